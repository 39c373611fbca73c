/** Asking again with another prompt: what bounds it, and what it leaves in the call's record. */
import * as Effect from "effect/Effect"
import type * as Prompt from "effect/ai/Prompt"
import type { Request } from "../../LanguageModelFace.ts"
import { atMost } from "../atMost.ts"
import { type CallRecord, CurrentCall } from "../callRecord.ts"
import type { LlmError } from "../llmError.ts"

/** The request with another prompt. What the provider remembers of the old one must not be added to it. */
export const withPrompt = (request: Request, prompt: Prompt.Prompt): Request => ({
  ...request,
  prompt,
  incrementalPrompt: undefined,
  previousResponseId: undefined,
})

/** May this call ask once more? */
export const mayAsk = (record: CallRecord): boolean =>
  record.attempts < record.maxAttempts && record.now() < record.deadlineAt

/** Tells that the prompt was changed. */
export const told = (
  record: CallRecord,
  who: { readonly provider: string; readonly model?: string | undefined },
  failure: LlmError["_tag"],
  step: string,
): void => {
  if (record.observer === undefined) return
  record.emit({
    event: "PromptChanged",
    provider: who.provider,
    ...(who.model === undefined ? {} : { model: who.model }),
    failure,
    step,
  })
}

/**
 * An effect of the caller's: calls that it makes are calls of their own, and it
 * is given up at the deadline of this one, also when it cannot be interrupted.
 */
export const asCallers = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  record: CallRecord,
): Effect.Effect<A | undefined, E, R> => {
  const own = Effect.provideService(self, CurrentCall, undefined)
  if (record.deadlineAt === Infinity) return own
  return Effect.suspend(() =>
    Effect.flatMap(atMost(own, record.deadlineAt - record.now()), (exit): Effect.Effect<A | undefined, E> =>
      exit === "too slow" ? Effect.undefined : exit,
    ),
  )
}

/** No more attempts than so many from here on, whatever those below ask for anew each time. */
export const bounded = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  record: CallRecord,
  maxAttempts: number,
): Effect.Effect<A, E, R> => {
  if (maxAttempts === Infinity) return self
  let before: number | undefined
  const run = Effect.suspend(() => {
    before = record.maxAttempts
    record.maxAttempts = Math.min(before, record.attempts + maxAttempts)
    return self
  })
  return Effect.onExitPrimitive(run, () => {
    if (before !== undefined) record.maxAttempts = before
    return undefined
  })
}
