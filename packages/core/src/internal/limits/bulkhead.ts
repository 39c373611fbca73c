/**
 * The permits of a bulkhead: how many calls may be inside at once.
 *
 * A synchronous machine over plain fields. Who waits for a permit stands in a
 * `Line`.
 */
import type { Gate } from "./line.ts"

/** Numbers of a bulkhead. Times are milliseconds. */
export interface Numbers {
  readonly permits: number
  readonly queue: number
  readonly maxWait: number
}

/** The permits of one destination. */
export class Bulkhead implements Gate<void> {
  readonly permits: number
  /** Permits that are out. */
  inUse = 0

  constructor(permits: number) {
    this.permits = permits
  }

  /** Takes a permit, to be given back exactly once. */
  tryTake(_now: number): boolean {
    if (this.inUse >= this.permits) return false
    this.inUse++
    return true
  }

  give(_now: number): void {
    this.inUse--
  }
}
