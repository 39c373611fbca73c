/**
 * The circuit breaker's state machine: synchronous, over plain fields, told the
 * time by its caller. It knows nothing of effects, clocks or failures.
 *
 * - Closed: every call is admitted. `failures` counted failures in a row trip
 *   it, and so does one that says `opens`, or whose hint is longer than the
 *   patience.
 * - Open: every call is rejected until `openUntil`; at that instant a probe is let through.
 * - Half-open: at most `permits` calls are in flight as probes. `successes` of
 *   them close the circuit, one counted failure opens it again. An ignored
 *   outcome gives its permit back and says nothing else.
 *
 * Every call is admitted in an epoch, and every change of state begins a new
 * one: the outcome of a call that was admitted in an earlier epoch changes
 * nothing. When all permits are out and the last of them was given
 * `probeLimit` ago, the probes count as failed, so that one that never returns
 * does not wedge the circuit.
 */

/** Numbers of a breaker. Times are milliseconds. */
export interface Numbers {
  readonly failures: number
  readonly openFor: number
  readonly permits: number
  readonly successes: number
  readonly patience: number
  readonly maxHint: number
  readonly probeLimit: number
}

/** What an outcome says about the provider's health. */
export type Outcome = "success" | "failure" | "opens" | "ignored"

/** The states. */
export type State = "closed" | "open" | "half-open"

/** What `admit` gives when the call is rejected. */
export const rejected = -1

/** One circuit. */
export class Breaker {
  readonly numbers: Numbers
  state: State = "closed"
  /** How often the state has changed. */
  epoch = 0
  /** Counted failures in a row, while closed. */
  consecutive = 0
  /** When an open circuit lets probes through. */
  openUntil = 0
  /** Probes in flight, while half-open. */
  inFlight = 0
  /** Probes that succeeded, while half-open. */
  succeeded = 0
  private lastProbeAt = 0

  constructor(numbers: Numbers) {
    this.numbers = numbers
  }

  /** Would a call be admitted then? Changes nothing. */
  ready(now: number): boolean {
    switch (this.state) {
      case "closed":
        return true
      case "open":
        return now >= this.openUntil
      case "half-open":
        return this.inFlight < this.numbers.permits
    }
  }

  /** How long until an open circuit lets probes through, in milliseconds; nothing when that is not known. */
  retryAfter(now: number): number | undefined {
    return this.state === "open" ? Math.max(0, this.openUntil - now) : undefined
  }

  /** Counts probes that do not come back as failed, once their time is over. */
  expire(now: number): void {
    const { openFor, permits, probeLimit } = this.numbers
    if (this.state === "half-open" && this.inFlight >= permits && now - this.lastProbeAt >= probeLimit) {
      this.trip(now, openFor)
    }
  }

  /** A ticket for a call, to be given to `record` exactly once; or `rejected`. */
  admit(now: number): number {
    if (this.state === "closed") return this.epoch
    if (this.state === "open") {
      if (now < this.openUntil) return rejected
      this.enter("half-open")
      this.inFlight = 0
      this.succeeded = 0
    }
    if (this.inFlight >= this.numbers.permits) {
      this.expire(now)
      return rejected
    }
    this.inFlight++
    this.lastProbeAt = now
    return this.epoch
  }

  /** The outcome of a call. `hint` is the provider's, in milliseconds. */
  record(ticket: number, outcome: Outcome, now: number, hint = 0): void {
    if (ticket !== this.epoch) return
    if (this.state === "half-open") {
      this.inFlight--
      if (outcome === "success") {
        this.succeeded++
        if (this.succeeded >= this.numbers.successes) {
          this.enter("closed")
          this.consecutive = 0
        }
      } else if (outcome !== "ignored") {
        this.trip(now, Math.max(this.numbers.openFor, this.capped(hint)))
      }
      return
    }
    if (outcome === "success") {
      this.consecutive = 0
    } else if (outcome !== "ignored") {
      this.consecutive++
      if (outcome === "opens" || this.consecutive >= this.numbers.failures) {
        this.trip(now, Math.max(this.numbers.openFor, this.capped(hint)))
      } else if (hint > this.numbers.patience) {
        this.trip(now, this.capped(hint))
      }
    }
  }

  private capped(hint: number): number {
    return Math.min(hint, this.numbers.maxHint)
  }

  private trip(now: number, millis: number): void {
    this.enter("open")
    this.openUntil = now + millis
  }

  private enter(state: State): void {
    this.state = state
    this.epoch++
  }
}
