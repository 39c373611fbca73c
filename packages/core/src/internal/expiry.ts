/** What an attempt fails with when its time is over. */
import * as Duration from "effect/Duration"
import type { Any } from "../Face.ts"
import type { CallRecord } from "./callRecord.ts"
import { DeadlineExceeded, TimedOut, type TimeoutPhase } from "./llmError.ts"
import type { Plan } from "./plan.ts"

type AnyPlan = Plan<Any, unknown, unknown>

/** The call has ended before the attempt did, which had this share of its time. */
export const deadlineExceeded = (plan: AnyPlan, record: CallRecord, share: number): DeadlineExceeded =>
  new DeadlineExceeded({
    ...plan.subject,
    limit: Duration.millis(record.deadlineMillis),
    attemptShare: Math.min(1, Math.max(0, share)),
    ...(record.failures.length === 0 ? {} : { failures: [...record.failures] }),
  })

/** A clock ran out. `own` is the attempt's own limit, where it was shortened. */
export const timedOut = (plan: AnyPlan, phase: TimeoutPhase, millis: number, own: number = millis): TimedOut =>
  new TimedOut({
    ...plan.subject,
    phase,
    limit: Duration.millis(Math.round(millis)),
    ...(own <= millis || own === Infinity ? {} : { attemptShare: millis / own }),
  })
