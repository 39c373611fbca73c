/**
 * A circuit breaker written a second time, from its description, to judge the
 * first: a log of facts, and every question answered by reading the log. Slow,
 * and meant to be plain enough to be right.
 *
 * `Flaws` are mistakes that one could make. A check that does not notice them
 * would not notice them in the product either.
 */
import type { Numbers, Outcome, State } from "../src/internal/breaker.ts"

type Fact =
  | { readonly fact: "changed"; readonly at: number; readonly to: State; readonly until: number }
  | { readonly fact: "began"; readonly at: number; readonly call: number }
  | { readonly fact: "ended"; readonly at: number; readonly call: number; readonly outcome: Outcome }

/** Mistakes, each of which the check must notice. */
export interface Flaws {
  /** `>` where the deadline asks for `>=`. */
  readonly rejectsAtTheDeadline?: boolean
  readonly onePermitTooMany?: boolean
  /** Outcomes of calls that were admitted before a change of state count. */
  readonly noFencing?: boolean
  readonly ignoredKeepsItsPermit?: boolean
  /** A success of a call that was admitted before a change of state counts as a probe's. */
  readonly lateSuccessCounts?: boolean
  /** An ignored outcome ends the row of failures. */
  readonly ignoredEndsTheRow?: boolean
  readonly hintIsNotCapped?: boolean
  readonly hintShortensTheOpenTime?: boolean
  readonly oneFailureTooMany?: boolean
  readonly probesMayNeverReturn?: boolean
}

const counts = (outcome: Outcome): boolean => outcome === "failure" || outcome === "opens"

export class Model {
  readonly log: Array<Fact> = []
  private readonly numbers: Numbers
  private readonly flaws: Flaws

  constructor(numbers: Numbers, flaws: Flaws = {}) {
    this.numbers = numbers
    this.flaws = flaws
  }

  private get change(): Extract<Fact, { fact: "changed" }> | undefined {
    return this.log.findLast((fact) => fact.fact === "changed")
  }

  /** What happened since the state changed last. */
  private get period(): ReadonlyArray<Fact> {
    const change = this.change
    return change === undefined ? this.log : this.log.slice(this.log.lastIndexOf(change) + 1)
  }

  private get began() {
    return this.period.filter((fact) => fact.fact === "began")
  }

  /** The outcomes that count for something: those of calls that began in this period. */
  private get outcomes() {
    const here = new Set(this.began.map((fact) => fact.call))
    const { lateSuccessCounts = false, noFencing = false } = this.flaws
    return this.period.filter(
      (fact) =>
        fact.fact === "ended" &&
        (here.has(fact.call) || noFencing || (lateSuccessCounts && fact.outcome === "success")),
    ) as ReadonlyArray<Extract<Fact, { fact: "ended" }>>
  }

  get state(): State {
    return this.change?.to ?? "closed"
  }

  /** When an open circuit lets calls through. */
  get until(): number {
    return this.change?.until ?? 0
  }

  /** When the last probe was let through. */
  get lastProbe(): number | undefined {
    return this.state === "half-open" ? this.began.at(-1)?.at : undefined
  }

  get probesInFlight(): number {
    if (this.state !== "half-open") return 0
    const back = this.outcomes.filter(
      (fact) => !(this.flaws.ignoredKeepsItsPermit === true && fact.outcome === "ignored"),
    )
    return this.began.length - back.length
  }

  /** How many of the latest outcomes were failures, while closed. */
  get failuresInARow(): number {
    if (this.state !== "closed") return 0
    const said = this.outcomes.filter((fact) => fact.outcome !== "ignored" || this.flaws.ignoredEndsTheRow === true)
    const lastOther = said.findLastIndex((fact) => !counts(fact.outcome))
    return said.length - 1 - lastOther
  }

  get probesSucceeded(): number {
    return this.state === "half-open" ? this.outcomes.filter((fact) => fact.outcome === "success").length : 0
  }

  private get permits(): number {
    return this.numbers.permits + (this.flaws.onePermitTooMany === true ? 1 : 0)
  }

  /** Would a call be let through? */
  ready(now: number): boolean {
    switch (this.state) {
      case "closed":
        return true
      case "open":
        return this.flaws.rejectsAtTheDeadline === true ? now > this.until : now >= this.until
      case "half-open":
        return this.probesInFlight < this.permits
    }
  }

  retryAfter(now: number): number | undefined {
    return this.state === "open" ? Math.max(0, this.until - now) : undefined
  }

  /** A call asks to be let through. */
  begin(call: number, now: number): boolean {
    const { openFor, probeLimit } = this.numbers
    if (!this.ready(now)) {
      const wedged = this.state === "half-open" && now - (this.lastProbe ?? now) >= probeLimit
      if (wedged && this.flaws.probesMayNeverReturn !== true) this.to("open", now, now + openFor)
      return false
    }
    if (this.state === "open") this.to("half-open", now, 0)
    this.log.push({ fact: "began", at: now, call })
    return true
  }

  /** A call that was let through ends. */
  end(call: number, outcome: Outcome, now: number, hint: number): void {
    const { failures, maxHint, openFor, patience, successes } = this.numbers
    const { hintIsNotCapped, hintShortensTheOpenTime, oneFailureTooMany } = this.flaws
    this.log.push({ fact: "ended", at: now, call, outcome })
    const said = this.outcomes.at(-1)
    const heard = said !== undefined && said === this.log.at(-1)
    if (!heard || this.state === "open") return
    if (counts(outcome)) {
      const until = now + (hintIsNotCapped === true ? hint : Math.min(hint, maxHint))
      const tripped =
        outcome === "opens" ||
        this.state === "half-open" ||
        this.failuresInARow >= failures + (oneFailureTooMany === true ? 1 : 0)
      if (tripped) {
        const shortened = hintShortensTheOpenTime === true && hint > 0
        this.to("open", now, shortened ? until : Math.max(now + openFor, until))
      } else if (hint > patience) this.to("open", now, until)
    } else if (this.state === "half-open" && this.probesSucceeded >= successes) {
      this.to("closed", now, 0)
    }
  }

  private to(state: State, at: number, until: number): void {
    this.log.push({ fact: "changed", at, to: state, until })
  }
}
