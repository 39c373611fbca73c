/**
 * The clocks of a stream behind its commit point, as a machine that is told for
 * how long its provider was waited for, and what came.
 *
 * Only the time in which a pull is outstanding counts, so a slow consumer is not
 * an idle provider. Only content counts: a keep-alive or an empty delta is none.
 */

/** Limits, in milliseconds. `Infinity` where there is none. */
export interface Limits {
  /** Between content and content. */
  readonly idle: number
  /** The stream as a whole. */
  readonly whole: number
  /** So many parts of content must come within each such time of waiting. */
  readonly rate: Rate | undefined
}

/** A minimum rate: at least so many parts of content within each such time of waiting, in milliseconds. */
export interface Rate {
  readonly parts: number
  readonly within: number
}

/** The clock that runs out first. */
export type Clock = "idle" | "slow drip" | "attempt"

/** The pace of one stream. */
export class Pace {
  private readonly limits: Limits
  /** The time for which the provider was waited for, from the attempt's beginning on. */
  spent: number
  private contents: number
  /** When, in time spent, the last content came. */
  private lastContentAt: number
  /** When the last parts of content came, as many as the rate wants, oldest first from `next` on. */
  private readonly arrivals: Array<number>
  private next = 0

  constructor(limits: Limits, spent: number, contents: number) {
    this.limits = limits
    this.spent = spent
    this.contents = contents
    this.lastContentAt = spent
    this.arrivals = limits.rate === undefined ? [] : Array.from({ length: limits.rate.parts }, () => spent)
  }

  /** For how long it may be waited until a clock runs out. */
  left(): number {
    const { idle, rate, whole } = this.limits
    const until = Math.min(this.lastContentAt + idle, whole)
    const drip = rate === undefined ? Infinity : this.arrivals[this.next]! + rate.within
    return Math.max(0, Math.min(until, drip) - this.spent)
  }

  /** Which clock is the first to run out. */
  first(): Clock {
    const { idle, rate, whole } = this.limits
    const gap = this.lastContentAt + idle
    const drip = rate === undefined ? Infinity : this.arrivals[this.next]! + rate.within
    if (drip < gap && drip < whole) return "slow drip"
    return gap <= whole ? "idle" : "attempt"
  }

  /** It was waited for so long, and in all so many parts of content have come. */
  waited(millis: number, contents: number): void {
    this.spent += millis
    const { rate } = this.limits
    if (contents === this.contents) return
    this.lastContentAt = this.spent
    if (rate !== undefined) {
      for (let n = Math.min(contents - this.contents, rate.parts); n > 0; n--) {
        this.arrivals[this.next] = this.spent
        this.next = (this.next + 1) % rate.parts
      }
    }
    this.contents = contents
  }
}
