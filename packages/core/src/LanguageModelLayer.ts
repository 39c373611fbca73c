/**
 * The standard way out: a provider as the `LanguageModel` of `effect/ai`.
 *
 * Code that is written against `effect/ai` (`generateText`, `generateObject`,
 * `streamText`, `Chat`, toolkits) becomes resilient when its layer is swapped
 * for this one, and nothing else changes.
 *
 * **Details**
 *
 * - The provider is asked below everything that `effect/ai` does: answers are
 *   decoded and the handlers of tools run outside every policy, once for each
 *   tool call of the answer that the caller sees.
 * - Failures become `AiError` with the nearest reason. `AiFailure.fromAiError`
 *   gives the failure itself back.
 * - The layer is a `Model`, so `captureRequirements` works, and it provides
 *   `ProviderName` and `ModelName` with the names of the composition. Who
 *   answered is in the parts of the answer: `Origin.ofAnswer`.
 * - What the provider needs is taken when the layer is built. The caller's span,
 *   clock, overrides (`Call.withDeadline`) and observers count for each call.
 * - The span of `effect/ai` is the parent of all attempts. It is annotated with
 *   the candidate that answered, the finish reason and the usage.
 *
 * **Gotchas**
 *
 * - Every request carries the whole prompt: a `previousResponseId` means
 *   something to one provider only, so none is handed to a composition, and a
 *   `ResponseIdTracker` saves nothing here.
 * - `effect/ai` asks a model again with the whole prompt when it refused an
 *   incremental one. As it was whole, that second question is not asked, and
 *   the first refusal is the answer.
 * - Most failures can be told apart with `catchReason`; those that share a
 *   reason (an overload and a timeout, say) with `AiFailure.fromAiError`, or in
 *   the types with `TypedLanguageModel`.
 *
 * **Example** (Swapping the layer)
 *
 * ```ts
 * import { LanguageModelLayer, type LanguageModelFace, type LlmError, type Provider, Understudy } from "@understudy/core"
 * import { Effect, Layer } from "effect"
 * import { LanguageModel } from "effect/ai"
 *
 * type Model = Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.ProviderFailure>
 *
 * const program = LanguageModel.generateText({ prompt: "Who wrote Dune?" })
 *
 * export const resilient = (openai: Model, claude: Model) =>
 *   program.pipe(
 *     Effect.provide(
 *       LanguageModelLayer.layer(
 *         Understudy.make({ candidates: [{ provider: openai }, { provider: claude, priority: 1 }] }),
 *       ).pipe(Layer.provide(Understudy.layer)),
 *     ),
 *   )
 * ```
 */
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Model from "effect/ai/Model"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { toAiError } from "./AiFailure.ts"
import { hooks, type Options } from "./internal/ai/hooks.ts"
import type { LanguageModelFace } from "./LanguageModelFace.ts"
import type { LlmError } from "./internal/llmError.ts"
import type { Provider } from "./internal/provider.ts"

export {
  /** What a way out may be told: how its answers are judged. */
  type Options,
}

/** The `LanguageModel` of a provider. Its failures are inside `AiError`. */
export const make = <E extends LlmError, R>(
  provider: Provider<LanguageModelFace, E, R>,
  options?: Options,
): Effect.Effect<LanguageModel.LanguageModel, never, R> =>
  Effect.flatMap(
    hooks(provider, (failure, method) => toAiError(failure, { method }), options),
    LanguageModel.make,
  )

/** A layer with the `LanguageModel` of a provider, and the names of the composition. */
export const layer = <E extends LlmError, R>(
  provider: Provider<LanguageModelFace, E, R>,
  options?: Options,
): Model.Model<string, LanguageModel.LanguageModel, Exclude<R, Scope.Scope>> =>
  Model.make(provider.name, provider.model, Layer.effect(LanguageModel.LanguageModel)(make(provider, options)))
