/**
 * A rate limit with its line written a second time, as what it is equivalent
 * to: token buckets that refill while time passes. Whole numbers only: a level
 * is kept as the time in which it comes.
 */

export interface Meter {
  readonly limit: number
  readonly window: number
  readonly burst: number
}

/** Mistakes, each of which the check must notice. */
export type Flaw =
  | "asksTheFirstMeterOnly"
  | "smallOnesOvertake"
  | "givesBackBeyondTheBrim"
  | "settlesNothingMore"
  | "forgetsPauses"
  | "learnsToAllowMore"
  | "startsEmpty"
  | "admitsNoDebt"

interface Waiting {
  readonly call: number
  readonly cost: ReadonlyArray<number>
  readonly until: number
}

export class Model {
  /** How much each meter holds. */
  held: Array<number>
  private paused = -Infinity
  private readonly meters: ReadonlyArray<Meter>
  private readonly flaw: Flaw | undefined
  waiting: Array<Waiting> = []

  constructor(meters: ReadonlyArray<Meter>, flaw?: Flaw) {
    this.meters = meters
    this.flaw = flaw
    this.held = meters.map((_, index) => (flaw === "startsEmpty" ? 0 : this.brim(index)))
  }

  /** The time in which one unit of a meter comes. */
  private unit(meter: number): number {
    const { limit, window } = this.meters[meter]!
    return window / limit
  }

  private brim(meter: number): number {
    const { burst, limit } = this.meters[meter]!
    return Math.min(burst, limit) * this.unit(meter)
  }

  pass(millis: number): void {
    this.held = this.held.map((level, meter) => Math.min(this.brim(meter), level + millis))
  }

  private change(cost: ReadonlyArray<number>, sign: number): void {
    this.held = this.held.map((level, meter) => {
      const changed = level + sign * cost[meter]! * this.unit(meter)
      return this.flaw === "givesBackBeyondTheBrim" ? changed : Math.min(this.brim(meter), changed)
    })
  }

  /** How long until it can be had. */
  untilReady(now: number, cost: ReadonlyArray<number>): number {
    const lacks = this.held.map((level, meter) => {
      const units = cost[meter]!
      if (units === 0 || (this.flaw === "asksTheFirstMeterOnly" && meter > 0)) return 0
      const wanted = units * this.unit(meter)
      return (this.flaw === "admitsNoDebt" ? wanted : Math.min(wanted, this.brim(meter))) - level
    })
    return Math.max(0, this.flaw === "forgetsPauses" ? 0 : this.paused - now, ...lacks)
  }

  come(call: number, now: number, cost: ReadonlyArray<number>, until: number, queue: number): string {
    if (this.waiting.length === 0 && this.untilReady(now, cost) === 0) {
      this.change(cost, -1)
      return "inside"
    }
    if (this.waiting.length >= queue) return "turned away"
    this.waiting.push({ call, cost, until })
    return "waiting"
  }

  /** Serves whom it can, from the front. */
  serve(now: number): void {
    const { waiting: line } = this
    for (const waiting of line) {
      if (now >= waiting.until) continue
      if (this.untilReady(now, waiting.cost) > 0) {
        if (this.flaw === "smallOnesOvertake") continue
        return
      }
      this.change(waiting.cost, -1)
      this.giveUp(waiting.call)
    }
  }

  giveUp(call: number): void {
    this.waiting = this.waiting.filter((waiting) => waiting.call !== call)
  }

  settle(taken: ReadonlyArray<number>, real: ReadonlyArray<number>): void {
    const back = taken.map((units, meter) => units - real[meter]!)
    this.change(this.flaw === "settlesNothingMore" ? back.map((units) => Math.max(0, units)) : back, 1)
  }

  atMost(meter: number, units: number): void {
    const level = units * this.unit(meter)
    const levels = [...this.held]
    levels[meter] =
      this.flaw === "learnsToAllowMore" ? Math.min(level, this.brim(meter)) : Math.min(level, levels[meter]!)
    this.held = levels
  }

  pause(until: number): void {
    this.paused = Math.max(this.paused, until)
  }

  /** When all of these are served one after the other, by letting time pass. */
  forecast(now: number, costs: ReadonlyArray<ReadonlyArray<number>>): ReadonlyArray<number> {
    const kept = this.held
    let at = now
    const instants = costs.map((cost) => {
      const millis = this.untilReady(at, cost)
      this.pass(millis)
      at += millis
      this.change(cost, -1)
      return at
    })
    this.held = kept
    return instants
  }
}
