/**
 * A provider: one way to get an answer.
 *
 * It has a name, a model, a face, and two effects with a precise error type:
 * `generate` gives an answer, and `open` a stream at its commit point, the
 * moment the first content is there. `stream` follows from `open`. Policies are
 * functions from provider to provider, so they compose with `pipe`, and the
 * error type of the result is exact.
 *
 * **Details**
 *
 * - `E` means "before the commit point". After it there is one failure,
 *   `StreamInterrupted`, which carries the original.
 * - `Provider.make` builds one from two functions, which retry nothing
 *   themselves: the adapters of `@understudy/providers` are made so.
 *
 * **Example** (A provider of one's own)
 *
 * ```ts
 * import { LanguageModelFace, LlmError, Provider, Retry } from "@understudy/core"
 * import { Effect, Stream } from "effect"
 *
 * const echo = Provider.make({
 *   name: "echo",
 *   model: "echo-1",
 *   face: LanguageModelFace.languageModelFace,
 *   generate: () => Effect.fail(new LlmError.Overloaded({ provider: "echo", model: "echo-1" })),
 *   stream: () => Stream.fail(new LlmError.Overloaded({ provider: "echo", model: "echo-1" })),
 * })
 *
 * export const patient = echo.pipe(Retry.with({ times: 2 }))
 * ```
 */
export {
  type AnyOf,
  type AnyProvider,
  delegate,
  type ErrorOf,
  type FaceOf,
  fromEffect,
  isProvider,
  layer,
  make,
  type Opened,
  type Policy,
  type Provider,
  provideContext,
  Service,
  type ServicesOf,
  TypeId,
} from "./internal/provider.ts"
export {
  /** A `LanguageModel` of `effect/ai` as a provider. See `LanguageModelBridge`. */
  fromLanguageModel,
  /** A layer of a `LanguageModel` of `effect/ai` as a provider. See `LanguageModelBridge`. */
  fromLayer,
} from "./LanguageModelBridge.ts"
