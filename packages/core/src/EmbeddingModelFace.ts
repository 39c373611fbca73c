/**
 * The face of embedding models: texts in, vectors out.
 *
 * Retry, timeouts, circuit breaker and failover are those of language models,
 * as they are. `EmbeddingModelLayer` makes a provider of this face the
 * `EmbeddingModel` of `effect/ai`, and `EmbeddingModelBridge` makes one a
 * candidate.
 *
 * **Details**
 *
 * - Vectors come whole. `generate` is what there is to ask; `open` and `stream`
 *   exist, as every provider has them, and fail with `InvalidRequest`.
 * - An answer with another number of vectors than there were texts, or with what
 *   is not a vector of numbers, is an `InvalidResponse` of kind `protocol`: the
 *   next candidate is asked.
 *
 * **Gotchas**
 *
 * - Vectors of different models cannot be compared. Let a failover choose among
 *   providers of one model, and not among models.
 *
 * **Example** (A provider of one's own)
 *
 * ```ts
 * import { EmbeddingModelFace, LlmError } from "@understudy/core"
 * import { Effect } from "effect"
 *
 * export const letters = EmbeddingModelFace.make({
 *   name: "letters",
 *   model: "length",
 *   embed: ({ inputs }) =>
 *     inputs.length > 100
 *       ? Effect.fail(new LlmError.InvalidRequest({ provider: "letters" }))
 *       : Effect.succeed({ results: inputs.map((text) => [text.length]), usage: { inputTokens: undefined } }),
 * })
 * ```
 */
import type * as EmbeddingModel from "effect/ai/EmbeddingModel"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { type Face, type Subject, Verdict } from "./Face.ts"
import { tokensOf } from "./internal/events/told.ts"
import { InvalidRequest, InvalidResponse, type StreamInterrupted } from "./internal/llmError.ts"
import { make as makeProvider, type Provider } from "./internal/provider.ts"

/** What an embedding model is asked. */
export interface Request extends EmbeddingModel.ProviderOptions {}
/** What it answers: a vector for each text, in order. */
export interface Answer extends EmbeddingModel.ProviderResponse {}

/** A part of a stream of vectors, of which there is none. */
export interface NoPart {
  readonly none: never
}

/** The face of embedding models. */
export interface EmbeddingModelFace extends Face<Request, Answer, NoPart, InvalidResponse> {}

const isVector = (vector: unknown): boolean =>
  Array.isArray(vector) && vector.length > 0 && vector.every(Number.isFinite)

const invalid = (subject: Subject, detail: string): InvalidResponse =>
  new InvalidResponse({ ...subject, kind: "protocol", detail })

/** The face of embedding models. */
export const embeddingModelFace: EmbeddingModelFace = {
  name: "embedding model",
  endMarker: false,
  judge: ({ results }, subject) =>
    results.every(isVector) ? undefined : invalid(subject, "Its vectors are not lists of numbers."),
  inspect: (subject) => ({
    verdict: () => Verdict.failure,
    failure: () => invalid(subject, "It sent a part of a stream."),
    delivered: () => ({ parts: 0, characters: 0, inside: "nothing" }),
  }),
  text: () => "",
  partText: () => "",
  told: ({ usage }) => ({ usage: tokensOf({ inputTokens: { total: usage.inputTokens }, outputTokens: {} }) }),
}

/**
 * An embedding provider from one function, which should not retry, and should
 * stop what it does when it is interrupted.
 */
export const make = <E = never, R = never>(options: {
  /** Names it in failures, events and configuration. */
  readonly name: string
  /** The model it asks. */
  readonly model: string
  readonly embed: (request: Request) => Effect.Effect<Answer, E, R>
}): Provider<EmbeddingModelFace, E | InvalidRequest | InvalidResponse | StreamInterrupted, R> => {
  const { embed, model, name } = options
  const subject = { provider: name, model }
  return makeProvider<EmbeddingModelFace, E | InvalidRequest | InvalidResponse, R>({
    name,
    model,
    face: embeddingModelFace,
    generate: (request) =>
      Effect.flatMap(embed(request), (answer) =>
        answer.results.length === request.inputs.length
          ? Effect.succeed(answer)
          : Effect.fail(
              invalid(subject, `It gave ${answer.results.length} vectors for ${request.inputs.length} texts.`),
            ),
      ),
    stream: () =>
      Stream.fail(new InvalidRequest({ ...subject, detail: "Embeddings come whole, and not as a stream." })),
  })
}
