/** What a candidate's tally learns from how something ended. */
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

type Tags = ReadonlySet<LlmError["_tag"]>

/** Those that say that nobody was asked. */
const notAsked: Tags = new Set(["CircuitOpen", "CapacityExceeded"])

/** Those that say that there was no answer until then, whoever is to blame. */
const inVain: Tags = new Set(["TimedOut", "DeadlineExceeded"])

/** Does it count against whoever was asked? Failures that are not of the union and defects do. */
const counts = (cause: Cause.Cause<unknown>, record: CallRecord): boolean =>
  cause.reasons.some(
    (reason) =>
      reason._tag === "Die" || (reason._tag === "Fail" && (!isLlmError(reason.error) || isSick(reason.error, record))),
  )

const isSick = (failure: LlmError, record: CallRecord): boolean => {
  try {
    return FailureMode.health(failure, record.modes) !== "ignored"
  } catch {
    // A judge that throws says nothing.
    return false
  }
}

/** It did not end with an answer. `longest`: what it may take, in milliseconds. */
export const failed = (
  tally: Tally,
  record: CallRecord,
  kind: Kind,
  cause: Cause.Cause<unknown>,
  elapsed: number,
  longest: number,
  now: number,
): void => {
  if (Cause.hasInterruptsOnly(cause)) return tally.left(kind, elapsed, now)
  const tag = tagOf(cause)
  if ((notAsked as ReadonlySet<string>).has(tag)) return
  if (counts(cause, record)) {
    return tally.failed(kind, elapsed, longest === Infinity || longest === 0 ? unlimited : longest, tag, now)
  }
  tally.refused(tag, now)
  if ((inVain as ReadonlySet<string>).has(tag)) tally.left(kind, elapsed, now)
}

/**
 * The same for a candidate that is a composition: its attempts are those of others. Nothing is held when an interruption
 * comes before it begins.
 */
export const measured = <A, E, R>(
  run: Effect.Effect<A, E, R>,
  tally: Tally,
  record: CallRecord,
  kind: Kind,
  longest: () => number,
): Effect.Effect<A, E, R> => {
  let begunAt: number | undefined
  const asking = Effect.suspend(() => {
    tally.begin((begunAt = record.now()))
    return run
  })
  const over = (exit: Exit.Exit<unknown, unknown>, from: number): void => {
    tally.end()
    const now = record.now()
    if (exit._tag === "Failure") failed(tally, record, kind, exit.cause, now - from, longest(), now)
  }
  return Effect.onExitPrimitive(asking, (exit) => {
    if (begunAt === undefined) return undefined
    const from = begunAt
    if (exit._tag === "Success") {
      const now = record.now()
      tally.answered(kind, now - from, now)
    }
    // A stream is a question until it ends. One that breaks was no answer.
    if (exit._tag === "Failure" || kind === "generate") over(exit, from)
    else (exit.value as Opened<unknown>).ended.observe((end) => over(end, from))
    return undefined
  })
}
