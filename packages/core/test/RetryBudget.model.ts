/**
 * A retry budget written a second time, from its description: a list of what
 * was deposited and drawn, and of each when. The window moves in ten steps, so
 * what is looked at are the last ten of them.
 */
import type { Numbers } from "../src/internal/limits/budget.ts"

/** Mistakes, each of which the check must notice. */
export type Flaw =
  | "neverForgets"
  | "forgetsAStepTooEarly"
  | "noFloor"
  | "oneTooMany"
  | "givesBackWhatIsForgotten"
  | "refusalsCount"
  | "extraAttemptsDeposit"

interface Entry {
  readonly step: number
  readonly amount: number
}

export class Model {
  private readonly numbers: Numbers
  private readonly flaw: Flaw | undefined
  private entries: Array<Entry> = []

  constructor(numbers: Numbers, flaw?: Flaw) {
    this.numbers = numbers
    this.flaw = flaw
  }

  private step(now: number): number {
    return Math.floor((now * 10) / this.numbers.window)
  }

  private put(step: number, amount: number): void {
    this.entries.push({ step, amount })
    // What is long forgotten need not be looked at any more.
    const newest = this.entries.at(-1)!.step
    if (this.entries.length % 64 === 0 && this.flaw !== "neverForgets") {
      this.entries = this.entries.filter((entry) => entry.step > newest - 100)
    }
  }

  /** Thousandths of an extra attempt. */
  private balance(now: number): number {
    const steps = this.flaw === "forgetsAStepTooEarly" ? 9 : 10
    const counts = this.entries.filter(({ step }) => this.flaw === "neverForgets" || step > this.step(now) - steps)
    const floor = this.flaw === "noFloor" ? 0 : this.numbers.floor * this.numbers.window
    return counts.reduce((sum, { amount }) => sum + amount, floor)
  }

  deposit(now: number, times = 1): void {
    this.put(this.step(now), this.numbers.share * 1000 * times)
  }

  take(now: number): boolean {
    const enough = this.balance(now) >= (this.flaw === "oneTooMany" ? 0 : 1000)
    if (enough || this.flaw === "refusalsCount") this.put(this.step(now), -1000)
    if (enough && this.flaw === "extraAttemptsDeposit") this.deposit(now)
    return enough
  }

  give(drawnAt: number, now: number): void {
    this.put(this.flaw === "givesBackWhatIsForgotten" ? this.step(now) : this.step(drawnAt), 1000)
  }

  left(now: number): number {
    return Math.max(0, Math.floor(this.balance(now) / 1000))
  }
}
