/**
 * A provider of the embedding face as the `EmbeddingModel` of `effect/ai`.
 *
 * **Details**
 *
 * - Failures become `AiError` with the nearest reason; `AiFailure.fromAiError`
 *   gives the failure itself back. For exact failures ask the provider:
 *   `provider.generate({ inputs })`.
 * - `embed` calls that are made together become one request, as `effect/ai` does
 *   it. Calls with other overrides (another credential or deadline) are not put
 *   into the same request. A request that fails fails for all who are in it.
 * - What the provider needs is taken when the layer is built, as in
 *   `LanguageModelLayer`.
 *
 * **Example** (Two providers of one model)
 *
 * ```ts
 * import { type EmbeddingModelFace, EmbeddingModelLayer, type LlmError, type Provider, Understudy } from "@understudy/core"
 * import { Layer } from "effect"
 *
 * type Embedder = Provider.Provider<EmbeddingModelFace.EmbeddingModelFace, LlmError.ProviderFailure>
 *
 * export const resilient = (openai: Embedder, azure: Embedder) =>
 *   EmbeddingModelLayer.layer(
 *     Understudy.make({ candidates: [{ provider: openai }, { provider: azure, priority: 1 }] }),
 *   ).pipe(Layer.provide(Understudy.layer))
 * ```
 */
import * as EmbeddingModel from "effect/ai/EmbeddingModel"
import * as Model from "effect/ai/Model"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { toAiError } from "./AiFailure.ts"
import { CurrentOverrides } from "./Call.ts"
import type { EmbeddingModelFace } from "./EmbeddingModelFace.ts"
import { ambient } from "./internal/ai/ambient.ts"
import type { LlmError } from "./internal/llmError.ts"
import { enter, type Provider } from "./internal/provider.ts"

/** The `EmbeddingModel` of a provider. Its failures are inside `AiError`. */
export const make = <E extends LlmError, R>(
  provider: Provider<EmbeddingModelFace, E, R>,
): Effect.Effect<EmbeddingModel.EmbeddingModel, never, R> =>
  Effect.flatMap(Effect.tap(ambient<R>(), enter(provider)), (services) =>
    EmbeddingModel.make({
      embedMany: (request) =>
        Effect.mapError(services.effect(provider.generate(request)), (failure) =>
          toAiError(failure, { module: "EmbeddingModel", method: "embedMany" }),
        ),
      batchKey: (context) => Context.get(context, CurrentOverrides),
    }),
  )

/** A layer with the `EmbeddingModel` of a provider, and the names of the composition. */
export const layer = <E extends LlmError, R>(
  provider: Provider<EmbeddingModelFace, E, R>,
): Model.Model<string, EmbeddingModel.EmbeddingModel, Exclude<R, Scope.Scope>> =>
  Model.make(provider.name, provider.model, Layer.effect(EmbeddingModel.EmbeddingModel)(make(provider)))
