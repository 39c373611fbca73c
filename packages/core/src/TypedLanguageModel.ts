/**
 * The typed way out: the methods of `LanguageModel` with every failure in the
 * type.
 *
 * What a composition leaves is in the error channel, tag by tag. A handled
 * failure disappears from it, and the compiler names those that remain.
 *
 * **Details**
 *
 * - `generateText`, `generateObject` and `streamText` are those of `effect/ai`,
 *   with the same options and answers. Where that has `AiError`, this has the
 *   failures of the provider, and the few that `effect/ai` raises around it:
 *   `InvalidResponse` (a tool that does not exist, parameters or an answer that
 *   do not fit), `InvalidRequest` (a prompt or a schema that cannot be),
 *   `UnknownFailure` (a tool's own `AiError`, say). Streams add
 *   `StreamInterrupted`, which is all that can happen after the first content.
 * - With a toolkit the failures of its tools and the services of its handlers
 *   stay as they are.
 * - All else is as in `LanguageModelLayer`, which it is made of.
 *
 * **Example** (A service whose provider a layer decides)
 *
 * ```ts
 * import { type LlmError, TypedLanguageModel } from "@understudy/core"
 * import { Effect } from "effect"
 *
 * class Model extends TypedLanguageModel.Service<Model, LlmError.AllProvidersFailed | LlmError.ContentFiltered>()(
 *   "app/Model",
 * ) {}
 *
 * export const answer = (question: string) =>
 *   Effect.gen(function* () {
 *     const model = yield* Model
 *     const { text } = yield* model.generateText({ prompt: question })
 *     return text
 *   }).pipe(
 *     Effect.catchTags({
 *       AllProvidersFailed: () => Effect.succeed("We will be back."),
 *       ContentFiltered: () => Effect.succeed("Please ask differently."),
 *       InvalidRequest: (failure) => Effect.die(failure),
 *       InvalidResponse: () => Effect.succeed("Please ask again."),
 *       UnknownFailure: () => Effect.succeed("Please ask again."),
 *     }),
 *   )
 *
 * // `Model.layer(provider)` provides it, for every provider that leaves no other failures.
 * ```
 */
import * as AiError from "effect/ai/AiError"
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { toAiError, toCoreFailure } from "./AiFailure.ts"
import { hooks, type Options } from "./internal/ai/hooks.ts"
import { type GenerateObject, type GenerateText, type StreamText, withFailures } from "./internal/ai/signatures.ts"
import type { LanguageModelFace } from "./LanguageModelFace.ts"
import type { InvalidResponse, LlmError, StreamInterrupted } from "./internal/llmError.ts"
import type { Provider } from "./internal/provider.ts"

/** Marks typed language models. */
export const TypeId: TypeId = "~@understudy/core/TypedLanguageModel"
/** Marks typed language models. */
export type TypeId = "~@understudy/core/TypedLanguageModel"

export {
  /** What a way out may be told: how its answers are judged. */
  type Options,
}

/** A language model whose failures are `E`, and those that `effect/ai` raises around it. */
export interface TypedLanguageModel<out E> {
  readonly [TypeId]: TypeId
  /** Asks for text, and runs the handlers of the tools that the answer calls. */
  readonly generateText: GenerateText<E>
  /** Asks for an object that fits a schema. */
  readonly generateObject: GenerateObject<E>
  /** Asks for text as it comes. After the first content it fails with `StreamInterrupted` only. */
  readonly streamText: StreamText<E>
}

/** The typed language model of a provider. */
export const make = <E extends LlmError, R>(
  provider: Provider<LanguageModelFace, E, R>,
  options?: Options,
): Effect.Effect<TypedLanguageModel<E>, never, R> => {
  const subject = { provider: provider.name, model: provider.model }
  // The errors of these hooks, and no other: a tool's handler may raise one of another model.
  const own = new WeakMap<AiError.AiError, E | InvalidResponse | StreamInterrupted>()
  const back = (error: unknown): unknown =>
    AiError.isAiError(error) ? (own.get(error) ?? toCoreFailure(error, subject)) : error
  const remember = (failure: E | InvalidResponse | StreamInterrupted, method: string): AiError.AiError => {
    const error = toAiError(failure, { method })
    own.set(error, failure)
    return error
  }
  return hooks(provider, remember, options).pipe(
    Effect.flatMap(LanguageModel.make),
    Effect.map((model) => ({
      [TypeId]: TypeId,
      ...withFailures<E>(model, Effect.mapError(back), Stream.mapError(back)),
    })),
  )
}

/** A service that holds a typed language model. */
export interface ServiceClass<
  in out Self,
  in out Id extends string,
  in out E extends LlmError,
> extends Context.ServiceClass<Self, Id, TypedLanguageModel<E>> {
  /** A layer with a provider that leaves no failures but those of the service. */
  readonly layer: <R>(
    provider: Provider<LanguageModelFace, E, R>,
    options?: Options,
  ) => Layer.Layer<Self, never, Exclude<R, Scope.Scope>>
}

/**
 * A service that holds a typed language model: a program asks for it by its
 * type, and a layer decides which provider it is.
 */
export const Service =
  <Self, E extends LlmError>() =>
  <const Id extends string>(id: Id): ServiceClass<Self, Id, E> => {
    const service = Context.Service<Self, TypedLanguageModel<E>>()(id)
    return Object.assign(service, {
      layer: <R>(
        provider: Provider<LanguageModelFace, E, R>,
        options?: Options,
      ): Layer.Layer<Self, never, Exclude<R, Scope.Scope>> => Layer.effect(service)(make(provider, options)),
    })
  }
