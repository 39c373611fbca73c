/**
 * A rate limit over several meters at once: requests a minute and tokens a
 * minute, say. What it takes, it takes of all of them, or of none.
 *
 * A synchronous machine over plain fields, told the time by its caller. Each
 * meter is the generic cell rate algorithm in its virtual-scheduling form
 * (ITU-T
 * I.371; ATM Forum, Traffic Management 4.0), which allows exactly what a token bucket that refills
 * continuously allows, and needs one number for it: the instant at which the
 * bucket is full again. So giving back is a subtraction, and when something can
 * be had is not searched for but known.
 *
 * - What is more than the bucket holds can be had when the bucket is full, and
 *   leaves a debt behind.
 * - What was taken may turn out to be more (`settle`): that leaves a debt, too.
 * - A pause ends at an instant, until which nothing can be had.
 */
import type { Gate } from "./line.ts"

/** A meter: so many units in so many milliseconds, and how many of them at once. */
export interface Meter {
  readonly limit: number
  readonly window: number
  readonly burst: number
}

/** How many units of each meter. */
export type Cost = ReadonlyArray<number>

/** Virtual time is kept in nanoseconds, and floating-point sums of it are not exact. In milliseconds. */
const tolerance = 0.001

class Bucket {
  /** How many units it holds. */
  readonly size: number
  /** How many units can be asked for at all. */
  readonly limit: number
  /** How long one unit takes to come back. */
  readonly interval: number
  /** When it is full again. */
  fullAt = -Infinity

  constructor({ burst, limit, window }: Meter) {
    this.size = Math.min(burst, limit)
    this.limit = limit
    this.interval = window / limit
  }

  /** How many units it holds then: fewer than none are a debt. */
  level(now: number): number {
    return this.size - Math.max(0, this.fullAt - now) / this.interval
  }

  /** When so many can be had. */
  readyAt(units: number): number {
    return units <= 0 ? -Infinity : this.fullAt - (this.size - Math.min(units, this.size)) * this.interval
  }

  take(now: number, units: number): void {
    if (units > 0) this.fullAt = Math.max(this.fullAt, now) + units * this.interval
  }

  give(units: number): void {
    this.fullAt -= units * this.interval
  }

  atMost(now: number, units: number): void {
    this.fullAt = Math.max(this.fullAt, now + (this.size - Math.min(units, this.size)) * this.interval)
  }
}

/** The rates of one destination. */
export class RateLimiter implements Gate<Cost> {
  private readonly buckets: ReadonlyArray<Bucket>
  private pausedUntil = -Infinity

  constructor(meters: ReadonlyArray<Meter>) {
    this.buckets = meters.map((meter) => new Bucket(meter))
  }

  /** Could it ever be had? */
  fits(cost: Cost): boolean {
    return this.buckets.every((bucket, index) => cost[index]! <= bucket.limit)
  }

  /** When it can be had, if nothing is taken and nothing given back meanwhile. */
  readyAt(cost: Cost): number {
    let at = this.pausedUntil
    for (let index = 0; index < this.buckets.length; index++) {
      at = Math.max(at, this.buckets[index]!.readyAt(cost[index]!))
    }
    return at
  }

  /** Takes it of all meters, or of none. */
  tryTake(now: number, cost: Cost): boolean {
    if (this.readyAt(cost) > now + tolerance) return false
    this.take(now, cost)
    return true
  }

  /** Gives back what was taken. */
  give(_now: number, cost: Cost): void {
    for (let index = 0; index < this.buckets.length; index++) this.buckets[index]!.give(cost[index]!)
  }

  /** What was taken turned out to be this. */
  settle(now: number, taken: Cost, real: Cost): void {
    for (let index = 0; index < this.buckets.length; index++) {
      const more = real[index]! - taken[index]!
      if (more > 0) this.buckets[index]!.take(now, more)
      else this.buckets[index]!.give(-more)
    }
  }

  /** Somebody who knows says that a meter had no more than this left at an instant. What came back since is added. */
  atMost(now: number, meter: number, units: number, since: number = now): void {
    const bucket = this.buckets[meter]!
    bucket.atMost(now, units + (now - since) / bucket.interval)
  }

  /** Nothing can be had until then. */
  pause(until: number): void {
    this.pausedUntil = Math.max(this.pausedUntil, until)
  }

  /** When each of these can be had, one after the other, if nothing is given back meanwhile. */
  forecast(now: number, costs: Iterable<Cost>): ReadonlyArray<number> {
    const kept = this.buckets.map((bucket) => bucket.fullAt)
    const instants: Array<number> = []
    let at = now
    for (const cost of costs) {
      at = Math.max(at, this.readyAt(cost))
      this.take(at, cost)
      instants.push(at)
    }
    for (const [index, fullAt] of kept.entries()) this.buckets[index]!.fullAt = fullAt
    return instants
  }

  /** How many units a meter has left: fewer than none are a debt. */
  level(now: number, meter: number): number {
    return this.buckets[meter]!.level(now)
  }

  /** How long nothing can be had for, because of a pause. */
  pausedFor(now: number): number {
    return Math.max(0, this.pausedUntil - now)
  }

  /** Is it as if it were new? */
  idle(now: number): boolean {
    return this.pausedUntil <= now && this.buckets.every((bucket) => bucket.level(now) >= bucket.size)
  }

  private take(now: number, cost: Cost): void {
    for (let index = 0; index < this.buckets.length; index++) this.buckets[index]!.take(now, cost[index]!)
  }
}
