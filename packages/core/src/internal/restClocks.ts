/** A stream behind its commit point, as its clocks let it go on. */
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Pull from "effect/Pull"
import type { Any, Subject } from "../Face.ts"
import type { CallRecord } from "./callRecord.ts"
import type { Deadline } from "./deadlines.ts"
import { deadlineExceeded, timedOut } from "./expiry.ts"
import type { LlmError, StreamInterrupted } from "./llmError.ts"
import { interrupted, type Opened } from "./opened.ts"
import { type Limits, Pace } from "./pace.ts"
import type { Plan } from "./plan.ts"
import { startDeadline } from "./timer.ts"

/**
 * The clocks behind the commit point: the gap between content, the pace, the
 * attempt as a whole, and the call's deadline. A deadline passes whoever waits.
 */
export const withClocks = <P>(
  plan: Plan<Any, unknown, unknown>,
  record: CallRecord,
  clocks: Limits,
  attempt: { readonly subject: Subject; readonly startedAt: number },
  opened: Opened<P>,
  context: Context.Context<never>,
): Opened<P>["rest"] => {
  const contents = opened.contents ?? counting()
  const pace = new Pace(clocks, record.now() - attempt.startedAt, contents())
  const ended = (failure: LlmError) => {
    const failed = Exit.fail(interrupted(attempt.subject, failure, opened.delivered(), opened.text?.()))
    opened.ended.settle(failed)
    return failed
  }
  return Effect.callback<Arr.NonEmptyReadonlyArray<P>, StreamInterrupted | Cause.Done<void>>((resume) => {
    const pulledAt = record.now()
    // What is buffered behind the deadline is not delivered.
    if (pulledAt >= record.deadlineAt) return resume(ended(deadlineExceeded(plan, record, pace.spent / clocks.whole)))
    let timer: Deadline | undefined
    let expired: LlmError | undefined
    const finish = (exit: Exit.Exit<Arr.NonEmptyReadonlyArray<P>, StreamInterrupted | Cause.Done<void>>): void => {
      if (timer !== undefined) timer.cancel()
      pace.waited(record.now() - pulledAt, contents())
      resume(
        expired === undefined || exit._tag === "Success" || !Cause.hasInterruptsOnly(exit.cause)
          ? exit
          : ended(expired),
      )
    }
    const child = Effect.runForkWith(context)(opened.rest)
    const done = child.pollUnsafe()
    if (done !== undefined) return finish(done)
    const own = pace.left()
    const left = record.deadlineAt - pulledAt
    const millis = Math.min(own, left)
    if (millis !== Infinity) {
      const fire = (): void => {
        const clock = pace.first()
        expired =
          left < own
            ? deadlineExceeded(plan, record, (pace.spent + record.now() - pulledAt) / clocks.whole)
            : timedOut(
                plan,
                clock,
                clock === "idle" ? clocks.idle : clock === "attempt" ? clocks.whole : (clocks.rate?.within ?? own),
              )
        child.interruptUnsafe()
      }
      timer = startDeadline(record.clock, context, pulledAt, millis, { fire })
    }
    child.addObserver(finish)
    return Fiber.interrupt(child)
  }) as Pull.Pull<Arr.NonEmptyReadonlyArray<P>, StreamInterrupted>
}

/** Whose stream does not tell content from the rest: every pull that gives something counts. */
const counting = (): (() => number) => {
  let n = 0
  return () => n++
}
