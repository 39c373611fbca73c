/**
 * A circuit breaker to judge others by: a log of what happened, and every
 * question answered by reading the log. It is slow, and plain enough to be
 * right. It shares no line with the breaker of the library.
 */

/** What the outcome of a call was. */
export type Outcome = "success" | "failure" | "defect" | "ignored" | "interrupted"

/** The states. */
export type State = "closed" | "open" | "half-open"

/** How the breaker is meant to behave. Times are milliseconds. */
export interface Rules {
  readonly failures: number
  readonly openFor: number
  readonly permits: number
  readonly successes: number
  readonly probeLimit: number | undefined
  readonly threshold: "reached" | "exceeded"
  readonly boundary: "inclusive" | "exclusive"
  readonly fencing: boolean
  readonly ignored: "nothing" | "success"
  readonly defects: "failure" | "ignored" | undefined
}

/** What an outcome counts as. */
type Meaning = "success" | "failure" | "nothing"

/** The time from one change of state to the next. */
interface Period {
  readonly state: State
  /** The state before it. */
  readonly from: State | undefined
  readonly since: number
  /** When an open circuit lets probes through. */
  readonly until: number
  /** Calls that were let through in it. */
  readonly admitted: Array<number>
  /** Outcomes that were heard in it, with their call. */
  readonly heard: Array<{ readonly call: number; readonly meaning: Meaning }>
}

/** What can be said of the circuit at one moment. */
export interface View {
  readonly state: State
  readonly from: State | undefined
  readonly since: number
  readonly until: number
  readonly failuresInARow: number
  readonly probesInFlight: number
  readonly probesSucceeded: number
  /** Would a call be let through now? */
  readonly ready: boolean
}

/** The circuit. */
export class BreakerModel {
  readonly rules: Rules
  private readonly periods: Array<Period> = [
    { state: "closed", from: undefined, since: 0, until: 0, admitted: [], heard: [] },
  ]

  constructor(rules: Rules) {
    this.rules = rules
  }

  private get period(): Period {
    return this.periods[this.periods.length - 1] as Period
  }

  view(now: number): View {
    const { boundary, permits } = this.rules
    const { admitted, from, heard, since, state, until } = this.period
    const back = new Set(heard.map(({ call }) => call))
    const said = heard.filter(({ meaning }) => meaning !== "nothing")
    const lastSuccess = said.findLastIndex(({ meaning }) => meaning === "success")
    const probesInFlight = state === "half-open" ? admitted.filter((call) => !back.has(call)).length : 0
    return {
      state,
      from,
      since,
      until,
      probesInFlight,
      failuresInARow: state === "closed" ? said.length - 1 - lastSuccess : 0,
      probesSucceeded: state === "half-open" ? said.filter(({ meaning }) => meaning === "success").length : 0,
      ready:
        state === "closed" ||
        (state === "open" && (boundary === "inclusive" ? now >= until : now > until)) ||
        (state === "half-open" && probesInFlight < permits),
    }
  }

  /** Was the call let through before the state changed last? */
  isStale(call: number): boolean {
    return !this.period.admitted.includes(call)
  }

  /** A call asks to be let through. */
  begin(call: number, now: number): boolean {
    const { ready, state } = this.view(now)
    if (!ready) return false
    if (state === "open") this.change("half-open", now, 0)
    this.period.admitted.push(call)
    return true
  }

  /** A call that was let through ends. */
  end(call: number, outcome: Outcome, now: number): void {
    const { failures, fencing, openFor, successes, threshold } = this.rules
    if (this.period.state === "open" || (fencing && this.isStale(call))) return
    const meaning = this.meaningOf(outcome)
    this.period.heard.push({ call, meaning })
    const { failuresInARow, probesSucceeded, state } = this.view(now)
    if (state === "half-open") {
      if (meaning === "failure") this.change("open", now, now + openFor)
      else if (probesSucceeded >= successes) this.change("closed", now, 0)
    } else if (threshold === "reached" ? failuresInARow >= failures : failuresInARow > failures) {
      this.change("open", now, now + openFor)
    }
  }

  private meaningOf(outcome: Outcome): Meaning {
    switch (outcome) {
      case "success":
      case "failure":
        return outcome
      case "defect":
        return this.rules.defects === "failure" ? "failure" : "nothing"
      case "ignored":
        return this.rules.ignored === "success" ? "success" : "nothing"
      case "interrupted":
        return "nothing"
    }
  }

  private change(state: State, since: number, until: number): void {
    this.periods.push({ state, from: this.period.state, since, until, admitted: [], heard: [] })
  }
}
