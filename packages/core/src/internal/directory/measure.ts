/** Measures a candidate while it is asked: how long until the answer, or a stream's first content, and how it ends. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as FailureMode from "../../FailureMode.ts"
import { type CallRecord, tagOf } from "../callRecord.ts"
import { isLlmError, type LlmError } from "../llmError.ts"
import type { Opened } from "../opened.ts"
import type { Kind, Tally } from "./tally.ts"

/** What a failure counts for when a candidate has no clock of its own: the preset's limit of an attempt. */
const unlimited = 30_000

/** Those that say that nobody was asked. */
const notAsked: ReadonlySet<string> = new Set<LlmError["_tag"]>(["CircuitOpen", "CapacityExceeded"])

/** Does it count against whoever was asked? Failures that are not of the union and defects do. */
const counts = (cause: Cause.Cause<unknown>, record: CallRecord): boolean =>
  cause.reasons.some(
    (reason) =>
      reason._tag === "Die" ||
      (reason._tag === "Fail" &&
        (!isLlmError(reason.error) || FailureMode.health(reason.error, record.modes) !== "ignored")),
  )

/** Remembers a failure. `need`: how long it may take at most, in milliseconds. */
const failed = (
  tally: Tally,
  record: CallRecord,
  kind: Kind,
  cause: Cause.Cause<unknown>,
  elapsed: number,
  need: () => number,
): void => {
  const now = record.now()
  if (Cause.hasInterruptsOnly(cause)) return tally.left(kind, elapsed, now)
  const tag = tagOf(cause)
  if (notAsked.has(tag)) return
  if (!counts(cause, record)) return tally.refused(tag, now)
  const longest = need()
  tally.failed(kind, elapsed, longest === Infinity || longest === 0 ? unlimited : longest, tag, now)
}

/** Asks, and remembers how that went. Nothing is held when an interruption comes before it begins. */
export const measured = <A, E, R>(
  run: () => Effect.Effect<A, E, R>,
  tally: Tally,
  record: CallRecord,
  kind: Kind,
  need: () => number,
): Effect.Effect<A, E, R> => {
  let begunAt: number | undefined
  const asking = Effect.suspend(() => {
    tally.begin((begunAt = record.now()))
    return run()
  })
  return Effect.onExitPrimitive(asking, (exit) => {
    if (begunAt === undefined) return undefined
    const elapsed = record.now() - begunAt
    if (exit._tag === "Failure") {
      tally.end()
      failed(tally, record, kind, exit.cause, elapsed, need)
      return undefined
    }
    tally.answered(kind, elapsed, begunAt + elapsed)
    if (kind === "generate") tally.end()
    else untilEnd(exit.value as Opened<unknown>, tally, record, begunAt, need)
    return undefined
  })
}

/** A stream is a question until it ends. One that breaks was no answer. */
const untilEnd = (
  opened: Opened<unknown>,
  tally: Tally,
  record: CallRecord,
  begunAt: number,
  need: () => number,
): void =>
  opened.ended.observe((exit: Exit.Exit<void, unknown>) => {
    tally.end()
    if (exit._tag === "Failure" && !Cause.hasInterruptsOnly(exit.cause)) {
      failed(tally, record, "stream", exit.cause, record.now() - begunAt, need)
    }
  })
