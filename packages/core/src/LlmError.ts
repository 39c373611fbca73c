/**
 * The ways an LLM call fails: one tagged error for each, in one flat union.
 *
 * Every failure knows which provider and model it came from, whether the same
 * request has a chance later (`retryable`), and when the provider said to come
 * back (`retryAfter`). How each tag is treated is not written here but in the
 * one table, `FailureMode`.
 *
 * **Details**
 *
 * - Failures are schema classes: `Effect.catchTag` removes them from the error
 *   type, and `Schema.toCodecJson(LlmError)` carries them between processes.
 * - `message` is made from the typed fields alone. It holds no text of the
 *   provider, so it may be logged and shown.
 * - What the provider wrote is in `providerMessage`, and what was thrown is in
 *   `cause`. Both are `Redacted`: they print as `<redacted>`, they are not part
 *   of the schema, and JSON never carries them.
 *
 * **Gotchas**
 *
 * - `retryable` is not a function of the tag. A `RateLimited` request that is
 *   larger than its limit is not retryable; a `QuotaExhausted` can be.
 * - Use `Redacted.value(failure.providerMessage)` on purpose only: the text is
 *   the provider's and may quote the prompt or a key.
 */
export * from "./internal/llmError.ts"
export {
  /** The failures that `effect/ai` itself raises around a composition, as they arrive. */
  type CoreFailure,
  /** A failure of `effect/ai` as one of the union: the very instance when it was one of ours. */
  fromAiError,
  /** A failure as the nearest of `effect/ai`, from which `fromAiError` gives it back. */
  toAiError,
} from "./AiFailure.ts"
