/**
 * The way in: a `LanguageModel` of `effect/ai` as a candidate.
 *
 * Any provider package of `effect/ai`, and any model of one's own, can take
 * part in a composition beside the adapters of `@understudy/providers`.
 *
 * **Details**
 *
 * - It is asked as the raw hooks are: prompt and tools in, encoded parts out.
 *   The handlers of tools do not run here, but above the composition, once.
 * - Failures are those of `AiFailure.fromAiError`: an `AiError` that carries one
 *   of ours gives it back, another is read by its reason and by the HTTP
 *   response in it. What policies inside the model raised (an open circuit, all
 *   candidates failed) is seen from outside, as a failure of this provider.
 * - What fails with something else than an `AiError`, in a model whose types do
 *   not say so, is classified like any thrown error. A defect stays a defect.
 * - An object is asked for by the JSON side of its schema, so the model's own
 *   form of structured output (a record as pairs, say) is brought back, and the
 *   user's transformations run once, above.
 * - Its histories are guarded: see `History.guard`.
 * - The span of `effect/ai` around each attempt is a child of the call's. A
 *   `ResponseIdTracker` or `CurrentSpanTransformer` of the caller belongs to the
 *   call, and is not seen inside.
 *
 * **Gotchas**
 *
 * - A promise that rejects inside of `Effect.promise` is a defect, and stays one:
 *   nothing tells it from a bug. `Effect.tryPromise` is what a model should use.
 * - Candidates of another Understudy belong into the list themselves. Behind a
 *   bridge their reasoning is somebody else's, and is taken out of histories.
 * - A model that retries by itself multiplies attempts. Switch that off.
 * - `fromLayer` builds the layer once and keeps it for the scope. Make the
 *   composition where you would build the layer: in `Layer.unwrap`, say.
 *
 * **Example** (Two models of `effect/ai`)
 *
 * ```ts
 * import { LanguageModelBridge, LanguageModelLayer, Understudy } from "@understudy/core"
 * import { Effect, Layer } from "effect"
 * import type { LanguageModel, Model } from "effect/ai"
 *
 * type AiModel = Model.Model<string, LanguageModel.LanguageModel, never>
 *
 * export const resilient = (lead: AiModel, understudy: AiModel) =>
 *   Layer.unwrap(
 *     Effect.gen(function* () {
 *       const first = yield* LanguageModelBridge.fromLayer(lead)
 *       const second = yield* LanguageModelBridge.fromLayer(understudy)
 *       return LanguageModelLayer.layer(
 *         Understudy.make({ candidates: [{ provider: first }, { provider: second, priority: 1 }] }),
 *       )
 *     }),
 *   ).pipe(Layer.provide(Understudy.layer))
 * ```
 */
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Model from "effect/ai/Model"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { guard } from "./History.ts"
import * as Inner from "./internal/ai/inner.ts"
import { providerFailure } from "./internal/ai/raised.ts"
import { type LanguageModelFace, languageModelFace } from "./LanguageModelFace.ts"
import type { ProviderFailure } from "./internal/llmError.ts"
import { make, type Provider } from "./internal/provider.ts"

/** Names a candidate. */
export interface Options {
  /** Names it in failures, events and configuration. */
  readonly name: string
  /** The model it asks. */
  readonly model: string
}

/** A `LanguageModel` as a candidate. */
export const fromLanguageModel = (
  service: LanguageModel.LanguageModel,
  { model, name }: Options,
): Provider<LanguageModelFace, ProviderFailure> => {
  const failure = providerFailure({ provider: name, model })
  return guard(
    make<LanguageModelFace, ProviderFailure>({
      name,
      model,
      face: languageModelFace,
      generate: (request) => Effect.catch(Inner.generate(service, request), failure),
      stream: (request) =>
        Stream.catch(Inner.stream(service, request), (error) => Stream.unwrap(Effect.map(failure(error), Stream.fail))),
    }),
  )
}

/**
 * A layer with a `LanguageModel` as a candidate. The layer is built once, and
 * lives as long as the scope.
 *
 * Its names default to the layer's `ProviderName` and `ModelName`.
 */
export const fromLayer = <E, R>(
  layer: Layer.Layer<LanguageModel.LanguageModel, E, R>,
  options?: Partial<Options>,
): Effect.Effect<Provider<LanguageModelFace, ProviderFailure>, E, R | Scope.Scope> =>
  Effect.map(Layer.build(layer), (context) => {
    const named = <I>(service: Context.Key<I, string>): string | undefined =>
      Option.getOrUndefined(Context.getOption(context, service))
    const name = options?.name ?? named(Model.ProviderName) ?? "language model"
    return fromLanguageModel(Context.get(context, LanguageModel.LanguageModel), {
      name,
      model: options?.model ?? named(Model.ModelName) ?? name,
    })
  })
