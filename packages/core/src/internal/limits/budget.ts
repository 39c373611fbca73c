/**
 * A retry budget: how many attempts may be added to a destination, as a share
 * of those that are made there anyway, and a floor besides.
 *
 * A synchronous machine over plain fields, told the time by its caller. First
 * attempts deposit their share, extra ones withdraw one whole, and both are
 * forgotten when they are older than the window, which moves in ten steps. So
 * within any window there are at most `share` of the first attempts and `floor`
 * a second of extra ones.
 *
 * The budget of Finagle and Linkerd: Klein, "Retry Budgets", Finagle, 2016.
 */

/** Numbers of a budget. Times are milliseconds. */
export interface Numbers {
  /** Extra attempts for each first one. */
  readonly share: number
  /** Extra attempts a second, whatever the traffic. */
  readonly floor: number
  readonly window: number
}

/** What `tryTake` gives when there is nothing left. */
export const refused = -1

const steps = 10

/** Sums stay exact in whole thousandths. */
const whole = 1000

/** The budget of one destination. */
export class Budget {
  readonly numbers: Numbers
  private readonly reserve: number
  private readonly deposited: number
  private readonly stepMillis: number
  private readonly slots: Array<number> = Array.from({ length: steps }, () => 0)
  private sum = 0
  /** Which step the newest slot stands for. */
  private newest = -Infinity

  constructor(numbers: Numbers) {
    this.numbers = numbers
    this.deposited = Math.round(numbers.share * whole)
    this.reserve = Math.round((numbers.floor * numbers.window * whole) / 1000)
    this.stepMillis = numbers.window / steps
  }

  /** A first attempt is made. */
  deposit(now: number): void {
    this.put(this.stepOf(now), this.deposited)
  }

  /** Takes one extra attempt: a ticket for `give`, or `refused`. */
  tryTake(now: number): number {
    const step = this.stepOf(now)
    if (this.sum + this.reserve < whole) return refused
    this.put(step, -whole)
    return step
  }

  /** The extra attempt of this ticket was not made after all. */
  give(ticket: number, now: number): void {
    // What is older than the window was forgotten already.
    if (ticket > this.stepOf(now) - steps) this.put(ticket, whole)
  }

  /** How many extra attempts could be made then. */
  left(now: number): number {
    this.stepOf(now)
    return Math.max(0, Math.floor((this.sum + this.reserve) / whole))
  }

  /** Is it as if it were new? */
  idle(now: number): boolean {
    this.stepOf(now)
    return this.slots.every((slot) => slot === 0)
  }

  private put(step: number, amount: number): void {
    const index = step % steps
    this.slots[index] = this.slots[index]! + amount
    this.sum += amount
  }

  /** Forgets what is older than the window. */
  private stepOf(now: number): number {
    const step = Math.max(Math.floor(now / this.stepMillis), this.newest)
    if (step === this.newest) return step
    const from = Math.max(this.newest + 1, step - steps + 1, 0)
    for (let passed = from; passed <= step; passed++) {
      const index = passed % steps
      this.sum -= this.slots[index]!
      this.slots[index] = 0
    }
    this.newest = step
    return step
  }
}
