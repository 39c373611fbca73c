/**
 * The way in: an `EmbeddingModel` of `effect/ai` as a candidate.
 *
 * Failures are those of `AiFailure.fromAiError`, seen from outside, as in
 * `LanguageModelBridge`.
 *
 * **Gotchas**
 *
 * - The model is asked by `embedMany`, once for each attempt. Texts are not put
 *   together with those of other callers here, but above, by `EmbeddingModelLayer`.
 */
import * as EmbeddingModel from "effect/ai/EmbeddingModel"
import * as Model from "effect/ai/Model"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { type EmbeddingModelFace, make } from "./EmbeddingModelFace.ts"
import { providerFailure } from "./internal/ai/raised.ts"
import type { Options } from "./LanguageModelBridge.ts"
import type { ProviderFailure } from "./internal/llmError.ts"
import type { Provider } from "./internal/provider.ts"

/** An `EmbeddingModel` as a candidate. */
export const fromEmbeddingModel = (
  service: EmbeddingModel.EmbeddingModel,
  { model, name }: Options,
): Provider<EmbeddingModelFace, ProviderFailure> => {
  const failure = providerFailure({ provider: name, model })
  return make<ProviderFailure>({
    name,
    model,
    embed: ({ inputs }) =>
      service.embedMany(inputs).pipe(
        Effect.map(({ embeddings, usage }) => ({
          results: embeddings.map(({ vector }) => [...vector]),
          usage: { inputTokens: usage.inputTokens },
        })),
        Effect.catch(failure),
      ),
  })
}

/**
 * A layer with an `EmbeddingModel` as a candidate. The layer is built once, and
 * lives as long as the scope. Its names default to the layer's `ProviderName`
 * and `ModelName`.
 */
export const fromLayer = <E, R>(
  layer: Layer.Layer<EmbeddingModel.EmbeddingModel, E, R>,
  options?: Partial<Options>,
): Effect.Effect<Provider<EmbeddingModelFace, ProviderFailure>, E, R | Scope.Scope> =>
  Effect.map(Layer.build(layer), (context) => {
    const named = <I>(service: Context.Key<I, string>): string | undefined =>
      Option.getOrUndefined(Context.getOption(context, service))
    const name = options?.name ?? named(Model.ProviderName) ?? "embedding model"
    return fromEmbeddingModel(Context.get(context, EmbeddingModel.EmbeddingModel), {
      name,
      model: options?.model ?? named(Model.ModelName) ?? name,
    })
  })
