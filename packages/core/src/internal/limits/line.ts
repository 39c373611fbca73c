/**
 * Those who wait at a limit: first come, first served.
 *
 * A synchronous machine, told the time by its caller. Nobody overtakes: as long
 * as somebody waits, a newcomer waits behind, and a large request at the front
 * is not passed by small ones. Who would be served at the end of its time, or
 * later, is not.
 */

/** What a line stands at. */
export interface Gate<in Cost> {
  /** Takes it, if it can be had now. */
  readonly tryTake: (now: number, cost: Cost) => boolean
}

/** One that waits. */
export interface Waiter<out Cost> {
  readonly cost: Cost
  /** From this instant on it is not served. */
  readonly until: number
  /** It has been taken for this one. */
  readonly serve: () => void
}

/** A line at a gate. */
export class Line<Cost, W extends Waiter<Cost> = Waiter<Cost>> {
  /** How many may wait. */
  readonly capacity: number
  private readonly gate: Gate<Cost>
  private readonly waiting = new Set<W>()
  private advancing = false
  private again = false

  constructor(gate: Gate<Cost>, capacity: number) {
    this.gate = gate
    this.capacity = capacity
  }

  /** How many wait. */
  get length(): number {
    return this.waiting.size
  }

  /** Those who wait, in order. */
  get waiters(): Iterable<W> {
    return this.waiting
  }

  /** Who is served next. */
  get first(): W | undefined {
    for (const waiter of this.waiting) return waiter
    return undefined
  }

  /** Takes at once, if it can be had and nobody waits for it. */
  tryTake(now: number, cost: Cost): boolean {
    return this.waiting.size === 0 && this.gate.tryTake(now, cost)
  }

  /** Stands behind the others; false when the line is full. */
  join(waiter: W): boolean {
    if (this.waiting.size >= this.capacity) return false
    this.waiting.add(waiter)
    return true
  }

  /** Leaves without having been served; false for one that does not wait. Others may be served then: `advance`. */
  leave(waiter: W): boolean {
    return this.waiting.delete(waiter)
  }

  /** Serves from the front whoever can be served. To be called when something was given back, or time has passed. */
  advance(now: number): void {
    // Who is served may run at once, end, and give back: it only says so to the loop that is under way.
    this.again = true
    if (this.advancing) return
    this.advancing = true
    try {
      while (this.again) {
        this.again = false
        for (const waiter of this.waiting) {
          if (now >= waiter.until) continue
          if (!this.gate.tryTake(now, waiter.cost)) break
          this.waiting.delete(waiter)
          waiter.serve()
        }
      }
    } finally {
      this.advancing = false
    }
  }
}
