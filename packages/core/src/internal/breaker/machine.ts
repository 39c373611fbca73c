/**
 * The circuit breaker's state machine: synchronous, over plain fields, told the
 * time by its caller. It knows nothing of effects, clocks or failures.
 *
 * - Closed: every call is admitted, and its outcome goes to the tripper. What
 *   trips it is a watch of that, a failure that says `opens`, or a hint longer
 *   than the patience.
 * - Open: every call is rejected until `openUntil`; at that instant a probe is let through.
 * - Half-open: at most `permits` calls are in flight as probes, until they have
 *   shown enough for the verdict. An ignored outcome gives its permit back and
 *   says nothing else. So does a probe that has not come back after
 *   `probeLimit`: it alone is written off, and the others keep their permits.
 *
 * Every call is admitted in an epoch, and every change of state begins a new
 * one: the outcome of a call that was admitted in an earlier epoch changes
 * nothing. The one exception are probes of the floor, which are let through
 * while the circuit is open: when one of them succeeds, those that are still in
 * flight go on as probes of the half-open circuit.
 *
 * By hand a circuit is isolated (open until it is released), opened, probed,
 * closed, or disabled: then it never rejects, and either goes on as if it did,
 * for others to see, or takes no outcomes in.
 */
import { type Chance, type OpenTime, over, type Rules } from "./rules.ts"
import { type Reason, Tripper } from "./tripper.ts"
import type { Counts } from "./window.ts"

/** What an outcome says about the provider's health. */
export type Outcome = "success" | "failure" | "opens" | "ignored"

/** The states. */
export type State = "closed" | "open" | "half-open"

/**
 * Who has the last word.
 *
 * - `automatic`: the outcomes
 * - `isolated`: whoever isolated it
 * - `shadow`: nobody: it never rejects, and shows what it would have done
 * - `off`: nobody: it never rejects, and takes no outcomes in
 */
export type Mode = "automatic" | "isolated" | "shadow" | "off"

/** What `admit` gives when the call is rejected. */
export const rejected = -1

/** The ticket of a call whose outcome is not taken in. */
export const unrecorded = 0

const still: Chance = { nextDoubleUnsafe: () => 0 }

/** When and why it opened last. */
export interface Trip {
  readonly at: number
  readonly reason: Reason
}

/** One circuit. */
export class Breaker {
  readonly key: string
  rules: Rules
  state: State = "closed"
  mode: Mode = "automatic"
  /** When the state changed last. */
  since: number
  /** When an open circuit lets probes through. */
  openUntil = 0
  /** When the hint ends that the circuit opened with. */
  hintUntil = 0
  /** Openings in a row. */
  openings = 0
  lastTrip: Trip | undefined
  /** Rejections since the state changed last. */
  rejections = 0
  /** The circuit of the account, for failures that are not the model's. */
  account: Breaker | undefined
  /** Calls that were let through and have not come back. */
  outstanding = 0
  /** When it was used last. */
  usedAt: number
  /** Is it in a registry? */
  registered = false
  /** Made by hand, before a policy used it: the rules are that policy's. */
  provisional = false
  /** Circuits of models that belong to this account. */
  models = 0

  private tripper: Tripper
  private openTime: OpenTime
  /** How often it was isolated. */
  private holders = 0
  /** Changes with every change of state. */
  private epoch = 1
  private lastTicket = 1
  /** What calls get while it is closed. */
  private pass = 1
  /** The last open time. */
  private openedFor = 0
  /** Probes in flight, and since when. */
  private readonly probes = new Map<number, number>()
  /** Who waits for the verdict, by the place in the queue. */
  private readonly waiting = new Map<number, () => void>()
  private succeededProbes = 0
  private failedProbes = 0
  /** For each watch over slow calls, how many probes were slow. */
  private slowProbes: Array<number>

  constructor(rules: Rules, key = "", now = 0) {
    this.key = key
    this.rules = rules
    this.since = now
    this.usedAt = now
    this.tripper = new Tripper(rules)
    this.openTime = rules.openTime()
    this.slowProbes = rules.watches.map(() => 0)
  }

  /** Other rules, for a circuit that nobody has used. */
  adopt(rules: Rules): void {
    this.rules = rules
    this.tripper = new Tripper(rules)
    this.openTime = rules.openTime()
    this.slowProbes = rules.watches.map(() => 0)
    this.provisional = false
  }

  // --- Looking

  /** Counted failures in a row, while closed. */
  get consecutive(): number {
    return this.tripper.inARow
  }

  /** Probes in flight. */
  get inFlight(): number {
    return this.probes.size
  }

  /** Probes that hold a permit: in flight, and not overdue. */
  probesAt(now: number): number {
    return this.probes.size - this.overdue(now)
  }

  /** Probes that succeeded, while half-open. */
  get succeeded(): number {
    return this.succeededProbes
  }

  /** Does it let every call through, whatever its state? */
  get lenient(): boolean {
    return this.mode === "shadow" || this.mode === "off"
  }

  /** Would it learn the same from a success at any time? */
  get timeless(): boolean {
    return this.state === "closed" && this.rules.watches.length === 0
  }

  /** Would a call be admitted then? Changes nothing. */
  ready(now: number): boolean {
    return (
      this.state === "closed" ||
      this.lenient ||
      ((this.state === "half-open" || this.isOver(now)) && this.hasRoom(this.probesAt(now)))
    )
  }

  /** Would a call that is rejected now be let wait for the verdict on the probes? */
  mayWait(now: number): boolean {
    const { excess } = this.rules
    return excess !== undefined && this.state === "half-open" && !this.ready(now) && this.waiting.size < excess.waiters
  }

  /** Might a probe of the floor be let through then? */
  mayFloor(now: number): boolean {
    return (
      this.state === "open" && this.mode === "automatic" && now >= this.hintUntil && this.hasRoom(this.probesAt(now))
    )
  }

  /** How long until an open circuit lets probes through, in milliseconds; nothing when it is not open. */
  retryAfter(now: number): number | undefined {
    return this.state === "open" ? Math.max(0, this.openUntil - now) : undefined
  }

  /**
   * The outcomes that it goes by: of the probes while it is half-open, and while it is open those that it opened for;
   * else those in the window of its first watch; without a window, all since it closed.
   */
  counts(now: number): Counts {
    const ofProbes = this.state === "half-open" || (this.state === "open" && this.lastTrip?.reason === "probe")
    if (ofProbes) {
      return {
        calls: this.succeededProbes + this.failedProbes,
        failures: this.failedProbes,
        slow: Math.max(0, ...this.slowProbes),
      }
    }
    const { tripper } = this
    const { watching } = tripper
    const [first] = watching
    if (first === undefined) return { calls: tripper.calls, failures: tripper.failures, slow: 0 }
    if (this.state === "closed") for (const { window } of watching) window.expire(now)
    const slow = watching.find(({ watch }) => watch.what === "slow rate")
    const { calls, failures } = first.window
    return { calls, failures, slow: slow === undefined ? 0 : slow.window.slow }
  }

  // --- Calls

  /** A ticket for a call, to be given to `record` exactly once; or `rejected`. */
  admit(now: number): number {
    this.usedAt = now
    if (this.state === "closed") {
      this.outstanding++
      return this.pass
    }
    if ((this.state === "open" && !this.isOver(now)) || !this.makeRoom(now)) return this.turnAway()
    if (this.state === "open") {
      this.sample()
      this.enter("half-open", now)
    }
    return this.probe(now)
  }

  /** A ticket for a probe of the floor, which is let through although the circuit is open; or `rejected`. */
  admitFloor(now: number): number {
    this.usedAt = now
    if (!this.mayFloor(now)) return this.admit(now)
    this.makeRoom(now)
    return this.probe(now)
  }

  /**
   * The outcome of a call. `hint` is the provider's; the two times are those that the call took to its first content, and
   * in all. All are milliseconds.
   */
  record(
    ticket: number,
    outcome: Outcome | "interrupted",
    now: number,
    hint = 0,
    firstContent = 0,
    total = 0,
    chance: Chance = still,
  ): void {
    this.outstanding--
    if (this.state === "closed") {
      if (ticket === this.epoch) this.heard(outcome, now, hint, firstContent, total, chance)
      return
    }
    const began = this.probes.get(ticket)
    if (began === undefined) return
    this.probes.delete(ticket)
    // One that is overdue has given its permit back, and says nothing any more.
    const late = now - began >= this.rules.probeLimit
    this.probed(late ? "interrupted" : outcome, now, hint, firstContent, total, chance)
  }

  /** A place in the queue of those who wait for the verdict. */
  place(): number {
    return ++this.lastTicket
  }

  /**
   * Calls back once, when the state changes, or when a probe's permit comes free and nobody is before that place. The
   * function it returns takes that back.
   */
  wait(place: number, wake: () => void): () => void {
    this.waiting.set(place, wake)
    return () => void this.waiting.delete(place)
  }

  /** Calls all who wait back, to look again: a probe is overdue. */
  lookAgain(): void {
    this.wakeAll()
  }

  /** When the first probe is overdue. */
  nextOverdue(): number {
    let first = Infinity
    for (const began of this.probes.values()) first = Math.min(first, began + this.rules.probeLimit)
    return first
  }

  // --- By hand

  /** Opens it until it is released as often as it was isolated, or closed. */
  isolate(now: number): void {
    this.holders++
    if (this.mode === "isolated") return
    this.mode = "isolated"
    this.open(now, Infinity, "by hand")
    this.wakeAll()
  }

  release(now: number): void {
    if (this.mode !== "isolated" || --this.holders > 0) return
    this.close(now)
  }

  /** Opens it, for so long or for its open time; then it goes on by itself. */
  trip(now: number, millis: number | undefined, chance: Chance = still): void {
    this.automatic()
    this.open(now, now + (millis ?? this.nextOpenTime(now, chance)), "by hand")
    this.wakeAll()
  }

  /** Lets probes through at once. */
  halfOpen(now: number): void {
    this.automatic()
    if (this.state === "half-open") return
    this.sample()
    this.enter("half-open", now)
  }

  /** Closes it, and forgets. */
  close(now: number): void {
    if (this.mode === "isolated") this.automatic()
    this.openings = 0
    this.lastTrip = undefined
    this.enter("closed", now)
    this.wakeAll()
  }

  /** It never rejects: from closed on it shows what it would have done, or takes no outcomes in at all. */
  disable(now: number, recording: boolean): void {
    const mode = recording ? "shadow" : "off"
    if (this.mode === mode) return
    this.close(now)
    this.mode = mode
    this.pass = recording ? this.epoch : unrecorded
  }

  /** It rejects again. */
  enable(now: number): void {
    if (!this.lenient) return
    const begins = this.mode === "off"
    this.automatic()
    if (begins) this.close(now)
  }

  // --- Inside

  private automatic(): void {
    this.mode = "automatic"
    this.holders = 0
    this.pass = this.epoch
  }

  private isOver(now: number): boolean {
    return this.rules.boundary === "inclusive" ? now >= this.openUntil : now > this.openUntil
  }

  /** Is there a permit, with so many probes in flight, and does the verdict need one more? */
  private hasRoom(inFlight: number): boolean {
    const { permits, verdict } = this.rules
    if (inFlight >= permits) return false
    const sampled = this.state === "half-open" ? this.sampled : 0
    return verdict.by !== "rate" || sampled + inFlight < verdict.of
  }

  /** The same, and takes permits back from probes that are overdue, if that is what it needs. */
  private makeRoom(now: number): boolean {
    if (this.hasRoom(this.probes.size)) return true
    for (const [ticket, began] of this.probes) {
      if (now - began >= this.rules.probeLimit) this.probes.delete(ticket)
    }
    return this.hasRoom(this.probes.size)
  }

  private overdue(now: number): number {
    let count = 0
    for (const began of this.probes.values()) if (now - began >= this.rules.probeLimit) count++
    return count
  }

  private probe(now: number): number {
    const ticket = ++this.lastTicket
    this.probes.set(ticket, now)
    this.outstanding++
    return ticket
  }

  private turnAway(): number {
    this.rejections++
    if (!this.lenient) return rejected
    this.outstanding++
    return unrecorded
  }

  /** An outcome while it is closed. */
  private heard(
    outcome: Outcome | "interrupted",
    now: number,
    hint: number,
    firstContent: number,
    total: number,
    chance: Chance,
  ): void {
    if (outcome === "interrupted" || (outcome === "ignored" && this.rules.ignored === "nothing")) return
    const failed = outcome === "failure" || outcome === "opens"
    const tripped = this.tripper.record(failed, now, firstContent, total)
    if (outcome === "opens") this.openFor(this.nextOpenTime(now, chance), hint, now, "at once")
    else if (tripped !== undefined) this.openFor(this.nextOpenTime(now, chance), hint, now, tripped)
    else if (failed && hint > this.rules.patience) this.openFor(0, hint, now, "hint")
  }

  /** The outcome of a probe, while it is half-open; or of a floor's, while it is open. */
  private probed(
    outcome: Outcome | "interrupted",
    now: number,
    hint: number,
    firstContent: number,
    total: number,
    chance: Chance,
  ): void {
    if (outcome === "interrupted" || (outcome === "ignored" && this.rules.ignored === "nothing")) return this.wakeOne()
    const failed = outcome === "failure" || outcome === "opens"
    if (this.state === "open") {
      if (failed) return this.prolong(hint, now)
      this.sample()
      this.enter("half-open", now)
    }
    this.take(failed, firstContent, total)
    const decision = outcome === "opens" ? "open" : this.decision()
    if (decision === "open") this.openFor(this.nextOpenTime(now, chance), hint, now, "probe")
    else if (failed && hint > this.rules.patience) this.openFor(0, hint, now, "hint")
    else if (decision === "closed") this.enter("closed", now)
    else return this.wakeOne()
    this.wakeAll()
  }

  /** A probe of the floor failed: it stays open for as long as it would have from now on. */
  private prolong(hint: number, now: number): void {
    const capped = Math.min(hint, this.rules.maxHint)
    this.openUntil = Math.max(this.openUntil, now + this.openedFor, now + capped)
    if (capped > 0) this.hintUntil = Math.max(this.hintUntil, now + capped)
  }

  private take(failed: boolean, firstContent: number, total: number): void {
    let slow = false
    for (const [index, watching] of this.tripper.watching.entries()) {
      if (watching.watch.what !== "slow rate" || !watching.isSlow(firstContent, total)) continue
      slow = true
      this.slowProbes[index]!++
    }
    // Where failures are not a share of a sample, a probe that is too slow is no better than one that failed.
    if (failed || (slow && this.rules.verdict.by === "successes")) this.failedProbes++
    else this.succeededProbes++
  }

  private get sampled(): number {
    return this.succeededProbes + this.failedProbes
  }

  /** What the probes have shown so far. */
  private decision(): State {
    const { verdict } = this.rules
    if (verdict.by === "successes") {
      if (this.succeededProbes >= verdict.successes) return "closed"
      return this.failedProbes > verdict.of - verdict.successes ? "open" : "half-open"
    }
    const whole = this.sampled >= verdict.of
    if (!whole && !verdict.early) return "half-open"
    const tooMany =
      over(this.failedProbes / verdict.of, verdict.rate, verdict.compare) ||
      this.tripper.watching.some(
        ({ watch }, index) =>
          watch.what === "slow rate" && over(this.slowProbes[index]! / verdict.of, watch.threshold, watch.compare),
      )
    return tooMany ? "open" : whole ? "closed" : "half-open"
  }

  /** Begins a new sample of probes. */
  private sample(): void {
    this.succeededProbes = this.failedProbes = 0
    this.slowProbes.fill(0)
  }

  /** The length of the next opening, which is one more in a row unless it has been closed for long enough. */
  private nextOpenTime(now: number, chance: Chance): number {
    const { reset } = this.rules
    if (this.state === "closed") {
      const long = reset === "open time" ? this.openedFor : reset
      if (reset === "close" || now - this.since >= (long as number)) this.openings = 0
    }
    this.openedFor = this.openTime(++this.openings, chance)
    return this.openedFor
  }

  /** Opens for so long, and at least as long as the hint says. */
  private openFor(millis: number, hint: number, now: number, reason: Reason): void {
    const capped = Math.min(hint, this.rules.maxHint)
    this.hintUntil = capped > 0 ? now + capped : 0
    this.open(now, now + Math.max(millis, capped), reason)
  }

  private open(now: number, until: number, reason: Reason): void {
    this.lastTrip = { at: now, reason }
    this.openUntil = until
    if (reason === "by hand") this.hintUntil = 0
    this.enter("open", now)
  }

  private enter(state: State, now: number): void {
    // What is in flight when it becomes half-open are probes that the floor let through.
    if (state !== "half-open") this.probes.clear()
    if (state === "closed") this.tripper.clear()
    this.state = state
    this.since = now
    this.rejections = 0
    this.epoch = ++this.lastTicket
    this.pass = this.mode === "off" ? unrecorded : this.epoch
  }

  /** There is a verdict, or a permit that nobody gave back. Only called when all else is done, since whoever is called back may ask again at once. */
  private wakeAll(): void {
    if (this.waiting.size === 0) return
    const places = [...this.waiting].sort(([a], [b]) => a - b)
    this.waiting.clear()
    for (const [, wake] of places) wake()
  }

  /** Whoever has waited longest; who comes back to the queue keeps his place. */
  private wakeOne(): void {
    if (this.waiting.size === 0) return
    const place = Math.min(...this.waiting.keys())
    const wake = this.waiting.get(place)
    this.waiting.delete(place)
    wake?.()
  }
}
