/**
 * One call at a limit: in at once, or in line for a while, and out again
 * exactly once, whatever happens.
 *
 * A call waits for `maxWait` at most, never past its deadline, and, while
 * another candidate is ready, no longer than the patience. An extra attempt of a
 * hedge does not wait at all. Timers belong to the calls that wait, so an
 * interruption takes them along.
 */
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { CallRecord } from "../callRecord.ts"
import { CapacityExceeded, DeadlineExceeded } from "../llmError.ts"
import { type Marked, peek } from "../provider.ts"
import { startTimer } from "../timer.ts"
import type { Line, Waiter } from "./line.ts"

/** Why a call does not come in. */
export type Why = "full" | "too slow" | "waited" | "another is ready" | "never fits"

/** A limit and its line. */
export interface Door<Cost> {
  readonly limit: "bulkhead" | "rate limit"
  readonly line: Line<Cost, Turn<Cost>>
  /** How long a call may wait, in milliseconds. */
  readonly maxWait: number
  /** When this can be had, if it is known; `Infinity` if not. */
  readonly readyAt: (cost: Cost) => number
  /** When this can be had behind those ahead, if it is known; `Infinity` if not. */
  readonly forecast: (now: number, ahead: Iterable<Cost>, cost: Cost) => number
  /** A sentence for the failure. */
  readonly words: (why: Why) => string
}

/** Lets in whoever can come in now. To be called whenever something was given back. */
export const changed = <Cost>(door: Door<Cost>, now: number): void => {
  door.line.advance(now)
  door.line.first?.standFirst(now)
}

/** Sums of virtual time are not exact. In milliseconds. */
const tolerance = 0.001

/** What a clock can sleep: whole microseconds, and not too short by more than the tolerance. */
const sleepable = (millis: number): number => Math.max(0, Math.ceil((millis - tolerance / 1000) * 1000) / 1000)

/** Who is asked behind the limit. */
export interface Subject extends Marked {
  readonly name: string
  readonly model: string
}

/** One call at a limit. */
export class Turn<Cost> implements Waiter<Cost> {
  readonly cost: Cost
  until = Infinity
  private readonly door: Door<Cost>
  private readonly record: CallRecord
  private readonly subject: Subject
  private readonly context: Context.Context<never>
  private state: "outside" | "waiting" | "inside" = "outside"
  private joinedAt = 0
  private resume: ((effect: Effect.Effect<void, CapacityExceeded>) => void) | undefined
  private cancelCheck: (() => void) | undefined
  private cancelFirst: (() => void) | undefined
  private firstFor = Infinity

  constructor(door: Door<Cost>, record: CallRecord, subject: Subject, context: Context.Context<never>, cost: Cost) {
    this.door = door
    this.record = record
    this.subject = subject
    this.context = context
    this.cost = cost
  }

  /** In at once: nothing is returned. Otherwise what to wait for. */
  enter(): Effect.Effect<void, CapacityExceeded> | undefined {
    if (this.door.line.tryTake(this.record.now(), this.cost)) {
      this.state = "inside"
      return undefined
    }
    return Effect.callback((resume) => {
      this.resume = resume
      this.stand(this.record.now())
    })
  }

  /** Out, from wherever it is. True when it was inside: what it took is to be given back. */
  leave(now: number): boolean {
    const { state } = this
    this.state = "outside"
    if (state !== "waiting") return state === "inside"
    this.stopWaiting(now)
    changed(this.door, now)
    return false
  }

  serve(): void {
    this.state = "inside"
    this.stopWaiting(this.record.now())
    this.resume!(Effect.void)
  }

  /** It is the first in line. */
  standFirst(now: number): void {
    const at = this.door.readyAt(this.cost)
    if (at === this.firstFor || at === Infinity) return
    this.cancelFirst?.()
    this.firstFor = at
    this.cancelFirst = this.after(at - now, () => {
      this.firstFor = Infinity
      changed(this.door, this.record.now())
    })
  }

  /** It became known that it can be had at this instant only. */
  hear(now: number, forecast: number): void {
    if (this.state === "waiting" && forecast >= this.until) this.reject("too slow", now, forecast)
  }

  private stand(now: number): void {
    const { door, record } = this
    if (door.line.tryTake(now, this.cost)) {
      this.state = "inside"
      return this.resume!(Effect.void)
    }
    // Whom the circuit would not let through has nothing to wait for.
    const circuit = record.floor === this.subject.name ? undefined : peek(this.subject, this.context, record, now)
    if (circuit?.ready === false) return this.resume!(Effect.fail(circuit.rejection() as CapacityExceeded))
    const forecast = door.forecast(now, this.ahead(), this.cost)
    this.until = Math.min(now + door.maxWait, record.deadlineAt)
    const others = record.alternatives() > 0
    const patience = others ? record.patience - record.waited(this.subject.name) : Infinity
    if (record.extra || door.maxWait <= 0) return this.reject("full", now, forecast)
    if (now >= this.until) return this.rejectAtDeadline()
    if (forecast !== Infinity && (forecast >= this.until || forecast - now > patience)) {
      return this.reject(forecast >= this.until ? "too slow" : "another is ready", now, forecast)
    }
    if (patience <= 0) return this.reject("another is ready", now, forecast)
    if (!door.line.join(this)) return this.reject("full", now, forecast)
    this.state = "waiting"
    this.joinedAt = now
    if (record.observer !== undefined) {
      record.emit({
        event: "Queued",
        provider: this.subject.name,
        model: this.subject.model,
        limit: door.limit,
        ahead: door.line.length - 1,
        ...(forecast === Infinity ? {} : { delayMs: forecast - now }),
      })
    }
    if (door.line.first === this) this.standFirst(now)
    this.look(now)
  }

  /** Waits on, or not. */
  private look(now: number): void {
    const { record } = this
    if (now >= this.until - tolerance) {
      return this.until >= record.deadlineAt ? this.rejectAtDeadline() : this.reject("waited", now)
    }
    const left = record.patience - record.waited(this.subject.name) - (now - this.joinedAt)
    const others = record.alternatives() > 0
    if (others && left <= tolerance) return this.reject("another is ready", now)
    // As long as there is no other candidate, there may be one later.
    const patience = others ? left : Math.max(record.patience, 100)
    const millis = Math.min(this.until - now, patience)
    this.cancelCheck = millis === Infinity ? undefined : this.after(millis, () => this.look(record.now()))
  }

  private reject(why: Why, now: number, forecast = this.door.forecast(now, this.ahead(), this.cost)): void {
    const { door, record, subject } = this
    this.out(now)
    const left = forecast - now
    const hint = left > 0 && left !== Infinity ? left : undefined
    if (record.observer !== undefined) {
      record.emit({
        event: "CapacityRejected",
        provider: subject.name,
        model: subject.model,
        limit: door.limit,
        reason: why,
        ...(hint === undefined ? {} : { delayMs: hint }),
      })
    }
    this.resume!(Effect.fail(capacityExceeded(subject, door.words(why), hint)))
  }

  private rejectAtDeadline(): void {
    const { record, subject } = this
    this.out(record.now())
    const failure: unknown = new DeadlineExceeded({
      provider: subject.name,
      model: subject.model,
      limit: Duration.millis(record.deadlineMillis),
      attemptShare: 0,
      ...(record.failures.length === 0 ? {} : { failures: [...record.failures] }),
    })
    // Whoever set the deadline added the failure to the type.
    this.resume!(Effect.fail(failure as CapacityExceeded))
  }

  private out(now: number): void {
    if (this.state !== "waiting") return
    this.state = "outside"
    this.stopWaiting(now)
    changed(this.door, now)
  }

  private stopWaiting(now: number): void {
    this.door.line.leave(this)
    this.cancelCheck?.()
    this.cancelFirst?.()
    this.record.wait(this.subject.name, now - this.joinedAt)
  }

  /** What those before it in line want; of one that does not stand there, all. */
  private *ahead(): Iterable<Cost> {
    for (const turn of this.door.line.waiters) {
      if (turn === this) return
      yield turn.cost
    }
  }

  private after(millis: number, then: () => void): () => void {
    return startTimer(this.record.clock, this.context, sleepable(millis), then)
  }
}

/** The failure of a call that did not come in. */
export const capacityExceeded = (
  { model, name }: { readonly name: string; readonly model: string },
  detail: string,
  hint: number | undefined,
  retryable = true,
): CapacityExceeded =>
  new CapacityExceeded({
    provider: name,
    model,
    detail,
    retryable,
    ...(hint === undefined ? {} : { retryAfter: Duration.millis(hint) }),
  })
