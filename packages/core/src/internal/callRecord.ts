/** The engine's record of one call: plain fields, one for each call, found by a reference. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as Cause from "effect/Cause"
import { CurrentOverrides, type Overrides } from "../Call.ts"
import { FailureModes, type Table } from "../FailureMode.ts"
import type { LlmError } from "./llmError.ts"
import { CurrentObserver, type Observer, type PolicyEvent, type Source } from "../PolicyEvent.ts"

type AnyFiber = Fiber.Fiber<unknown, unknown>

/** Milliseconds on the clock that only moves forward. */
export const nowMillis = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000

/** What a call has done so far, and what bounds it. */
export class CallRecord {
  readonly composition: string
  readonly clock: Clock.Clock
  readonly random: { nextDoubleUnsafe(): number }
  readonly modes: Table
  readonly overrides: Overrides
  readonly startedAt: number
  readonly observer: Observer | undefined
  private readonly chance: number
  /** The instant by which the call must have ended; `Infinity` without one. */
  deadlineAt = Infinity
  deadlineMillis = Infinity
  private readonly deadlineFixed: boolean
  /** Attempts so far, over all candidates. */
  attempts = 0
  /** Failures that a policy did not let through, in order. */
  readonly failures: Array<LlmError> = []
  /** Untried candidates that could be asked now. Set by the failover while it asks one. */
  alternatives: () => number = none
  /** What they may need for an attempt each, summed, in milliseconds. */
  alternativeNeeds: () => number = none
  /** How long backoffs may keep a call waiting while there are alternatives. */
  patience = Infinity
  /** At most so many attempts, counting one for each alternative. */
  maxAttempts = Infinity
  /** Only this candidate is asked, whatever the caller pinned: it has answered before. */
  pinned: string | undefined
  /** These candidates are passed over, besides those that the caller excluded. */
  passedOver: ReadonlyArray<string> = []
  /** The rung of a ladder that the answer came from. */
  source: Source | undefined
  /** Who answered. */
  answered: { readonly provider: string; readonly model: string } | undefined

  constructor(fiber: AnyFiber, composition: string) {
    this.composition = composition
    this.clock = fiber.getRef(Clock.Clock)
    this.random = fiber.getRef(Random.Random)
    this.modes = fiber.getRef(FailureModes)
    this.overrides = fiber.getRef(CurrentOverrides)
    this.observer = fiber.getRef(CurrentObserver)
    // Drawn whether or not someone listens, so that listening changes no other chance.
    this.chance = this.random.nextDoubleUnsafe()
    this.startedAt = nowMillis(this.clock)
    this.deadlineFixed = this.overrides.deadline !== undefined
    if (this.overrides.deadline !== undefined) this.bound(Duration.toMillis(this.overrides.deadline))
  }

  get id(): string {
    return Math.floor(this.chance * 0x1_0000_0000)
      .toString(16)
      .padStart(8, "0")
  }

  now(): number {
    return nowMillis(this.clock)
  }

  elapsed(): number {
    return this.now() - this.startedAt
  }

  private bound(millis: number): void {
    this.deadlineMillis = millis
    this.deadlineAt = this.startedAt + millis
  }

  /** Sets the composition's deadline; one that the caller set stays, and of two the earlier counts. */
  limit(millis: number): void {
    if (!this.deadlineFixed && this.startedAt + millis < this.deadlineAt) this.bound(millis)
  }

  /** Tells the observer. Ask `observer !== undefined` first, so that nothing is built for nobody. */
  emit<const E extends Fact>(fact: E): void {
    if (this.observer === undefined) return
    try {
      const at = Math.round(this.clock.currentTimeMillisUnsafe())
      const told: unknown = this.observer({ ...fact, at, call: this.id } as PolicyEvent)
      // Nor does an async one that rejects.
      if (told instanceof Promise) told.catch(() => undefined)
    } catch {
      // An observer that throws changes nothing.
    }
  }
}

type Fact = PolicyEvent extends infer E ? (E extends PolicyEvent ? Omit<E, "at" | "call"> : never) : never

const none = () => 0

/** The record of the current call. */
export const CurrentCall = Context.Reference<CallRecord | undefined>("@understudy/core/internal/CallRecord", {
  defaultValue: () => undefined,
})

/** The tag of a cause's failure, for events. */
export const tagOf = (cause: Cause.Cause<unknown>): string => {
  for (const reason of cause.reasons) {
    if (reason._tag === "Fail") {
      const error = reason.error
      return typeof error === "object" && error !== null && "_tag" in error && typeof error._tag === "string"
        ? error._tag
        : "Error"
    }
  }
  return cause.reasons.some((reason) => reason._tag === "Die") ? "Defect" : "Interrupted"
}

const textOr = (text: () => string): string => {
  try {
    return text()
  } catch {
    // A face that cannot tell the text changes nothing.
    return ""
  }
}

/** Tells how the call ended. */
export const callEnded = (record: CallRecord, exit: Exit.Exit<unknown, unknown>, text: () => string): void => {
  if (record.observer === undefined) return
  const elapsedMs = record.elapsed()
  const { attempts } = record
  if (exit._tag === "Success") {
    record.emit({
      event: "Answered",
      provider: record.answered?.provider ?? record.composition,
      ...(record.answered === undefined ? {} : { model: record.answered.model }),
      ...(record.source === undefined ? {} : { source: record.source }),
      text: textOr(text),
      attempts,
      elapsedMs,
    })
  } else if (Cause.hasInterruptsOnly(exit.cause)) {
    record.emit({ event: "CallInterrupted", provider: record.composition, attempts, elapsedMs })
  } else {
    record.emit({ event: "CallFailed", provider: record.composition, failure: tagOf(exit.cause), attempts, elapsedMs })
  }
}

/**
 * Runs an effect inside the current call, or, when there is none, as a call of
 * its own whose end `onEnd` tells.
 */
export const withCall = <A, E, R>(
  composition: string,
  self: (record: CallRecord, outermost: boolean) => Effect.Effect<A, E, R>,
  onEnd: (record: CallRecord, exit: Exit.Exit<A, E>) => void,
): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => {
    const current = fiber.getRef(CurrentCall)
    if (current !== undefined) return self(current, false)
    const record = new CallRecord(fiber, composition)
    const run = Effect.provideService(
      Effect.suspend(() => self(record, true)),
      CurrentCall,
      record,
    )
    if (record.observer === undefined) return run
    // The beginning is told inside of what tells the end: an interruption can fall between.
    let begun = false
    const told = Effect.suspend(() => {
      begun = true
      record.emit({ event: "CallStarted", provider: composition })
      return run
    })
    return Effect.onExitPrimitive(told, (exit) => {
      if (begun) onEnd(record, exit)
      return undefined
    })
  })
