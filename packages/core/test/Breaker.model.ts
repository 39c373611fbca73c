/**
 * A circuit breaker written a second time, from its description, to judge the
 * first: a log of periods and of what happened in them, and every question
 * answered by reading the log. Slow, and meant to be plain enough to be right.
 *
 * `Flaws` are mistakes that one could make. A check that does not notice them
 * would not notice them in the product either.
 */
import type { CircuitBreaker } from "@understudy/core"

export type Outcome = CircuitBreaker.Outcome | "interrupted"
type State = CircuitBreaker.State

interface Judging {
  readonly minimum: number
  readonly compare: ">=" | ">"
  readonly judge: "every outcome" | "failures"
}
type Window = { readonly of: number } | { readonly within: number; readonly buckets: number }

/** What trips it. */
export type Trip =
  | { readonly on: "failures in a row"; readonly failures: number; readonly compare: ">=" | ">" }
  | ({ readonly on: "failures"; readonly failures: number } & Judging & Window)
  | ({ readonly on: "failure rate"; readonly rate: number } & Judging & Window)
  | ({
      readonly on: "slow rate"
      readonly slow: number
      readonly by: "first content" | "total"
      readonly rate: number
    } & Judging &
      Window)

/** How a circuit behaves. Times are milliseconds. Every one of these is also a set of options. */
export interface Spec {
  readonly trip: readonly [Trip, ...ReadonlyArray<Trip>]
  readonly openFor:
    | readonly [number, ...ReadonlyArray<number>]
    | { readonly base: number; readonly factor: number; readonly cap: number; readonly jitter: number }
  readonly reset: "close" | "open time" | number
  readonly boundary: "inclusive" | "exclusive"
  readonly permits: number
  readonly verdict:
    | { readonly successes: number; readonly of: number }
    | { readonly rate: number; readonly of: number; readonly compare: ">=" | ">"; readonly early: boolean }
  readonly probeLimit: number
  readonly patience: number
  readonly maxHint: number
  readonly ignored: "nothing" | "success"
  readonly excess: "reject" | { readonly wait: number; readonly waiters: number }
}

/** Mistakes, each of which the check must notice. */
export interface Flaws {
  /** `>` where the deadline asks for `>=`, and the other way round. */
  readonly boundaryIsTheOther?: boolean
  /** `>` where a threshold asks for `>=`, and the other way round. */
  readonly compareIsTheOther?: boolean
  readonly onePermitTooMany?: boolean
  readonly onePermitTooFew?: boolean
  /** Outcomes of calls that were admitted before a change of state count. */
  readonly noFencing?: boolean
  readonly ignoredKeepsItsPermit?: boolean
  /** A success of a call that was admitted before a change of state counts as a probe's. */
  readonly lateSuccessCounts?: boolean
  /** An ignored outcome ends the row of failures. */
  readonly ignoredEndsTheRow?: boolean
  readonly interruptedCounts?: boolean
  readonly hintIsNotCapped?: boolean
  readonly hintShortensTheOpenTime?: boolean
  readonly oneFailureTooMany?: boolean
  readonly probesMayNeverReturn?: boolean
  readonly lostProbesCount?: boolean
  readonly successesSurviveTheReopening?: boolean
  readonly windowSurvivesTheClosing?: boolean
  readonly windowForgetsTooLate?: boolean
  readonly openingsAreNotCounted?: boolean
  readonly openingsAreNeverForgotten?: boolean
  readonly isolationEndsByItself?: boolean
  readonly shadowRejects?: boolean
  readonly floorIgnoresTheHint?: boolean
  readonly slowProbesAreFine?: boolean
}

/** A counted outcome. */
interface Said {
  readonly at: number
  readonly failed: boolean
  readonly first: number
  readonly total: number
}

/** From one change of state to the next. */
interface Period {
  readonly state: State
  readonly since: number
  /** Of an open one: until when. */
  until: number
  /** Of an open one: until when its hint says. */
  hintUntil: number
  /** Of an open one that is one more in a row: how long it was to last. */
  readonly length: number | undefined
  readonly reason: string | undefined
  /** Calls that were let through, and when. Probes of the floor are among those of an open one. */
  readonly began: Map<number, number>
  readonly ended: Set<number>
  readonly said: Array<Said>
  rejections: number
  /** Closed by hand: what was before is forgotten. */
  readonly anew: boolean
}

/** What a model says to a call that asks to be let through. */
export type Entry = "let through" | "unrecorded" | "rejected"

/** What jitter is drawn in all tests. */
export const chance = { nextDoubleUnsafe: () => 0.25 }

export class Model {
  mode: CircuitBreaker.Mode = "automatic"
  private readonly spec: Spec
  private readonly flaws: Flaws
  private readonly periods: Array<Period> = []
  private holders = 0

  constructor(spec: Spec, flaws: Flaws = {}, now = 0) {
    this.spec = spec
    this.flaws = flaws
    this.to("closed", now)
  }

  private to(state: State, since: number, more: Partial<Period> = {}): void {
    this.periods.push({
      state,
      since,
      until: 0,
      hintUntil: 0,
      length: undefined,
      reason: undefined,
      began: new Map(),
      ended: new Set(),
      said: [],
      rejections: 0,
      anew: false,
      ...more,
    })
  }

  // --- Questions

  private get period(): Period {
    return this.periods.at(-1)!
  }

  get state(): State {
    return this.period.state
  }

  get since(): number {
    return this.period.since
  }

  /** When an open circuit lets calls through. */
  get until(): number {
    return this.period.until
  }

  get reason(): string | undefined {
    const opened = this.periods.findLastIndex(({ state }) => state === "open")
    const forgotten = this.periods.findLastIndex(({ anew }) => anew)
    return opened > forgotten ? this.periods[opened]!.reason : undefined
  }

  get rejections(): number {
    return this.period.rejections
  }

  private get lenient(): boolean {
    return this.mode === "shadow" || this.mode === "off"
  }

  /** When the probe that was let through last was let through. */
  get lastProbe(): number | undefined {
    return this.state === "closed" ? undefined : [...this.period.began.values()].at(-1)
  }

  /** Probes that hold a permit. */
  probes(now: number): number {
    if (this.state === "closed") return 0
    const { began, ended } = this.period
    return [...began].filter(([call, at]) => !ended.has(call) && !this.isLost(at, now)).length
  }

  /** When the next probe in flight will be overdue. */
  nextLost(now: number): number {
    const { began, ended } = this.period
    const flying = [...began].filter(([call]) => !ended.has(call)).map(([, at]) => at + this.spec.probeLimit)
    return this.state === "closed" ? Infinity : Math.min(Infinity, ...flying.filter((at) => at > now))
  }

  private isLost(began: number, now: number): boolean {
    return now - began >= this.spec.probeLimit && this.flaws.probesMayNeverReturn !== true
  }

  private hasRoom(now: number): boolean {
    const { permits, verdict } = this.spec
    const { onePermitTooFew, onePermitTooMany } = this.flaws
    const probes = this.probes(now)
    const room = permits + (onePermitTooMany === true ? 1 : 0) - (onePermitTooFew === true ? 1 : 0)
    const needed = "rate" in verdict ? verdict.of - this.period.said.length : Infinity
    return probes < Math.min(room, needed)
  }

  private isOver(now: number): boolean {
    const exclusive = (this.spec.boundary === "exclusive") !== (this.flaws.boundaryIsTheOther === true)
    const { until } = this.period
    if (this.flaws.isolationEndsByItself === true && until === Infinity) return now > this.since + 60_000
    return exclusive ? now > until : now >= until
  }

  /** Would a call be let through? */
  ready(now: number): boolean {
    if (this.lenient && this.flaws.shadowRejects !== true) return true
    if (this.state === "closed") return true
    return (this.state === "half-open" || this.isOver(now)) && this.hasRoom(now)
  }

  mayFloor(now: number): boolean {
    const early = this.flaws.floorIgnoresTheHint !== true && now < this.period.hintUntil
    return this.state === "open" && this.mode === "automatic" && !early && this.hasRoom(now)
  }

  retryAfter(now: number): number | undefined {
    return this.state === "open" ? Math.max(0, this.until - now) : undefined
  }

  get failuresInARow(): number {
    const { said } = this.period
    return said.length - 1 - said.findLastIndex(({ failed }) => !failed)
  }

  /** Openings in a row. */
  openings(): number {
    const { reset } = this.spec
    const { openingsAreNeverForgotten } = this.flaws
    let count = 0
    for (let index = this.periods.length - 1; index >= 0; index--) {
      const period = this.periods[index]!
      if (period.anew) return count
      if (period.length !== undefined) count++
      // How long it was closed is known when it opens again because it tripped.
      const next = this.periods[index + 1]
      if (period.state !== "closed" || next?.length === undefined || openingsAreNeverForgotten === true) continue
      const before = this.periods.slice(0, index).findLast(({ length }) => length !== undefined)?.length ?? 0
      const long = reset === "close" ? 0 : reset === "open time" ? before : reset
      if (next.since - period.since >= long) return count
    }
    return count
  }

  // --- Windows

  private isSlow(trip: Trip, { first, total }: Said): boolean {
    return trip.on === "slow rate" && (trip.by === "total" ? total : first) > trip.slow
  }

  /** The outcomes that a trip looks at. */
  private inWindow(trip: Trip, now: number): ReadonlyArray<Said> {
    const said = this.flaws.windowSurvivesTheClosing
      ? this.periods.flatMap((period) => (period.state === "closed" ? period.said : []))
      : this.lastClosed.said
    if (trip.on === "failures in a row") return said
    if ("of" in trip) return said.slice(-trip.of)
    const width = trip.within / trip.buckets
    const buckets: Array<{ readonly begins: number; readonly said: Array<Said> }> = []
    for (const one of said) {
      const last = buckets.at(-1)
      if (last === undefined || one.at - last.begins >= width) buckets.push({ begins: one.at, said: [one] })
      else last.said.push(one)
    }
    const later = this.flaws.windowForgetsTooLate === true ? 1 : 0
    return buckets.filter(({ begins }) => now - begins < trip.within + later).flatMap((bucket) => bucket.said)
  }

  private get lastClosed(): Period {
    return this.periods.findLast(({ state }) => state === "closed")!
  }

  private over(value: number, threshold: number, compare: ">=" | ">"): boolean {
    const exclusive = (compare === ">") !== (this.flaws.compareIsTheOther === true)
    return exclusive ? value > threshold : value >= threshold
  }

  /** Why the latest outcome trips it, if it does. */
  private tripped(now: number): string | undefined {
    const latest = this.period.said.at(-1)!
    const trips = (trip: Trip): boolean => {
      if (trip.on === "failures in a row") {
        const more = (trip.compare === ">" ? 1 : 0) + (this.flaws.oneFailureTooMany === true ? 1 : 0)
        return latest.failed && this.failuresInARow >= trip.failures + more
      }
      const said = this.inWindow(trip, now)
      const bad = trip.on === "slow rate" ? this.isSlow(trip, latest) : latest.failed
      if (said.length < trip.minimum || (trip.judge === "failures" && !bad)) return false
      const count = said.filter((one) => (trip.on === "slow rate" ? this.isSlow(trip, one) : one.failed)).length
      return trip.on === "failures"
        ? this.over(count, trip.failures, trip.compare)
        : this.over(count / said.length, trip.rate, trip.compare)
    }
    // Failures in a row are named first, and the others in their order.
    const inOrder = [...this.spec.trip].sort((a, b) => rank(a) - rank(b))
    return inOrder.find(trips)?.on
  }

  /** The outcomes it goes by. */
  counts(now: number): { readonly calls: number; readonly failures: number; readonly slow: number } {
    const slowTrips = this.spec.trip.filter(({ on }) => on === "slow rate")
    const tally = (said: ReadonlyArray<Said>, failed: (one: Said) => boolean) => ({
      calls: said.length,
      failures: said.filter(failed).length,
      slow: 0,
    })
    const reopened = this.state === "open" && this.reason === "probe"
    if (this.state === "half-open" || reopened) {
      const { said } = this.periods.findLast(({ state }) => state === "half-open") ?? this.period
      const slow = slowTrips.map((trip) => said.filter((one) => this.isSlow(trip, one)).length)
      return { ...tally(said, (one) => this.probeFailed(one)), slow: Math.max(0, ...slow) }
    }
    const at = this.state === "closed" ? now : this.lastAt
    const first = this.spec.trip.find(({ on }) => on !== "failures in a row")
    if (first === undefined) return tally(this.lastClosed.said, ({ failed }) => failed)
    const [slow] = slowTrips
    return {
      ...tally(this.inWindow(first, at), ({ failed }) => failed),
      slow: slow === undefined ? 0 : this.inWindow(slow, at).filter((one) => this.isSlow(slow, one)).length,
    }
  }

  /** When it was looked at last while it was closed: what was too old then is forgotten. */
  private lastAt = 0
  lookedAt(now: number): void {
    if (this.state === "closed") this.lastAt = now
  }

  // --- Calls

  begin(call: number, now: number): Entry {
    const let_ = this.ready(now)
    if (this.mode === "off") return "unrecorded"
    if (this.state === "open" && this.isOver(now) && this.hasRoom(now)) this.halfOpen(now)
    const room = this.state === "closed" || (this.state === "half-open" && this.hasRoom(now))
    if (!room) {
      this.period.rejections++
      return let_ ? "unrecorded" : "rejected"
    }
    this.period.began.set(call, now)
    return "let through"
  }

  beginFloor(call: number, now: number): Entry {
    if (!this.mayFloor(now)) return this.begin(call, now)
    this.period.began.set(call, now)
    return "let through"
  }

  /** A call that was let through ends. */
  end(call: number, outcome: Outcome, now: number, hint = 0, first = 0, total = 0): void {
    const { ignoredEndsTheRow, ignoredKeepsItsPermit, interruptedCounts, lateSuccessCounts, noFencing } = this.flaws
    const { period } = this
    const began = period.began.get(call)
    const late = began === undefined
    if (late && noFencing !== true && !(lateSuccessCounts === true && outcome === "success")) return
    const quiet =
      (outcome === "interrupted" && interruptedCounts !== true) ||
      (outcome === "ignored" && this.spec.ignored === "nothing" && ignoredEndsTheRow !== true)
    const lost = this.state !== "closed" && began !== undefined && now - began >= this.spec.probeLimit
    if (!(ignoredKeepsItsPermit === true && outcome === "ignored")) period.ended.add(call)
    if (quiet || (lost && this.flaws.lostProbesCount !== true)) return
    const failed = outcome === "failure" || outcome === "opens" || outcome === "interrupted"
    const said = { at: now, failed, first, total }
    if (this.state === "open") {
      if (late) return
      if (failed) return this.prolong(hint, now)
      this.halfOpen(now)
    }
    this.period.said.push(said)
    if (this.state === "closed") this.judgeClosed(outcome, failed, hint, now)
    else this.judgeProbes(outcome, failed, hint, now)
  }

  private judgeClosed(outcome: Outcome, failed: boolean, hint: number, now: number): void {
    const tripped = this.tripped(now)
    this.lastAt = now
    if (outcome === "opens") this.trip("at once", hint, now)
    else if (tripped !== undefined) this.trip(tripped, hint, now)
    else if (failed && hint > this.spec.patience) this.hinted(hint, now)
  }

  private probeFailed(one: Said): boolean {
    const slow = this.spec.trip.some((trip) => this.isSlow(trip, one)) && this.flaws.slowProbesAreFine !== true
    return one.failed || (slow && "successes" in this.spec.verdict)
  }

  private judgeProbes(outcome: Outcome, failed: boolean, hint: number, now: number): void {
    const { verdict } = this.spec
    const said = this.flaws.successesSurviveTheReopening
      ? this.periods.flatMap((period) => (period.state === "half-open" ? period.said : []))
      : this.period.said
    const bad = said.filter((one) => this.probeFailed(one)).length
    let next: State = "half-open"
    if ("successes" in verdict) {
      if (said.length - bad >= verdict.successes) next = "closed"
      else if (bad > verdict.of - verdict.successes) next = "open"
    } else {
      const slow = this.spec.trip.some(
        (trip) =>
          trip.on === "slow rate" &&
          this.over(said.filter((one) => this.isSlow(trip, one)).length / verdict.of, trip.rate, trip.compare),
      )
      const whole = said.length >= verdict.of
      if (whole || verdict.early) {
        const tooMany = slow || this.over(bad / verdict.of, verdict.rate, verdict.compare)
        next = tooMany ? "open" : whole ? "closed" : "half-open"
      }
    }
    if (outcome === "opens" || next === "open") this.trip("probe", hint, now)
    else if (failed && hint > this.spec.patience) this.hinted(hint, now)
    else if (next === "closed") this.to("closed", now)
  }

  // --- Changes

  private halfOpen(now: number): void {
    // Probes of the floor go on as what they are.
    const { began, ended } = this.period
    const flying = [...began].filter(([call]) => !ended.has(call))
    this.to("half-open", now, this.state === "open" ? { began: new Map(flying) } : {})
  }

  private capped(hint: number): number {
    return this.flaws.hintIsNotCapped === true ? hint : Math.min(hint, this.spec.maxHint)
  }

  private hinted(hint: number, now: number): void {
    const until = now + this.capped(hint)
    this.to("open", now, { until, hintUntil: until, reason: "hint" })
  }

  private trip(reason: string, hint: number, now: number): void {
    const length = this.lengthOfNext(now)
    const capped = this.capped(hint)
    const shortened = this.flaws.hintShortensTheOpenTime === true && hint > 0
    this.to("open", now, {
      until: now + (shortened ? capped : Math.max(length, capped)),
      hintUntil: hint > 0 ? now + capped : 0,
      length,
      reason,
    })
  }

  private lengthOfNext(now: number): number {
    // As if it had opened, to count it among the others.
    this.to("open", now, { length: 0 })
    const n = this.flaws.openingsAreNotCounted === true ? 1 : this.openings()
    this.periods.pop()
    const { openFor } = this.spec
    if ("base" in openFor) {
      const grown = Math.min(openFor.cap, openFor.base * openFor.factor ** (n - 1))
      return grown * (1 + openFor.jitter * chance.nextDoubleUnsafe())
    }
    return openFor[Math.min(n, openFor.length) - 1]!
  }

  /** A probe of the floor failed. */
  private prolong(hint: number, now: number): void {
    const { period } = this
    const capped = this.capped(hint)
    const length = this.periods.findLast((one) => one.length !== undefined)?.length ?? 0
    period.until = Math.max(period.until, now + length, now + capped)
    if (hint > 0) period.hintUntil = Math.max(period.hintUntil, now + capped)
  }

  // --- By hand

  isolate(now: number): void {
    this.holders++
    if (this.mode === "isolated") return
    this.mode = "isolated"
    this.to("open", now, { until: Infinity, reason: "by hand" })
  }

  release(now: number): void {
    if (this.mode === "isolated" && --this.holders === 0) this.close(now)
  }

  open(now: number, millis: number | undefined): void {
    this.automatic()
    const length = millis === undefined ? this.lengthOfNext(now) : undefined
    this.to("open", now, { until: now + (millis ?? length!), length, reason: "by hand" })
  }

  probe(now: number): void {
    this.automatic()
    if (this.state !== "half-open") this.halfOpen(now)
  }

  close(now: number): void {
    if (this.mode === "isolated") this.automatic()
    this.to("closed", now, { anew: true })
  }

  disable(now: number, recording: boolean): void {
    const mode = recording ? "shadow" : "off"
    if (this.mode === mode) return
    this.close(now)
    this.mode = mode
  }

  enable(now: number): void {
    if (!this.lenient) return
    const off = this.mode === "off"
    this.automatic()
    if (off) this.close(now)
  }

  private automatic(): void {
    this.mode = "automatic"
    this.holders = 0
  }
}

const rank = (trip: Trip): number => (trip.on === "failures in a row" ? 0 : 1)
