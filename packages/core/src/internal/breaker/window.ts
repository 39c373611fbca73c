/**
 * Windows over the latest outcomes: the last so many, or those of the last so
 * long. Synchronous, told the time by their caller, with counts that are always
 * up to date, in memory that does not grow with the traffic.
 */

/** What is in a window. */
export interface Counts {
  readonly calls: number
  readonly failures: number
  /** Calls that were too slow, whether or not they failed. */
  readonly slow: number
}

/** The latest outcomes. */
export interface Window extends Counts {
  add(failed: boolean, slow: boolean, now: number): void
  /** Forgets what is too old by now. */
  expire(now: number): void
  clear(): void
}

const failedBit = 1
const slowBit = 2

/** The last `size` outcomes. */
export class CountWindow implements Window {
  readonly size: number
  calls = 0
  failures = 0
  slow = 0
  private slots: Uint8Array | undefined
  private next = 0

  constructor(size: number) {
    this.size = size
  }

  add(failed: boolean, slow: boolean): void {
    const slots = (this.slots ??= new Uint8Array(this.size))
    if (this.calls === this.size) {
      const oldest = slots[this.next]!
      if ((oldest & failedBit) !== 0) this.failures--
      if ((oldest & slowBit) !== 0) this.slow--
    } else this.calls++
    if (failed) this.failures++
    if (slow) this.slow++
    slots[this.next] = (failed ? failedBit : 0) | (slow ? slowBit : 0)
    this.next = this.next + 1 === this.size ? 0 : this.next + 1
  }

  expire(): void {}

  clear(): void {
    this.calls = this.failures = this.slow = this.next = 0
  }
}

/**
 * The outcomes of the last `millis`, in so many buckets.
 *
 * A bucket begins with an outcome, takes those of the next `millis / buckets`,
 * and is forgotten `millis` after it began. So an outcome counts for more than
 * `millis - millis / buckets`, and for `millis` at most.
 */
export class TimeWindow implements Window {
  readonly millis: number
  readonly buckets: number
  calls = 0
  failures = 0
  slow = 0
  private readonly width: number
  private begins: Float64Array | undefined
  /** Calls, failures and slow calls of each bucket. */
  private counts: Uint32Array | undefined
  private oldest = 0
  private used = 0

  constructor(millis: number, buckets: number) {
    this.millis = millis
    this.buckets = buckets
    this.width = millis / buckets
  }

  add(failed: boolean, slow: boolean, now: number): void {
    const { buckets } = this
    const begins = (this.begins ??= new Float64Array(buckets))
    const counts = (this.counts ??= new Uint32Array(3 * buckets))
    this.expire(now)
    let newest = (this.oldest + this.used - 1 + buckets) % buckets
    if (this.used === 0 || now - begins[newest]! >= this.width) {
      // Rounding may leave the oldest alive for a moment too long.
      if (this.used === buckets) this.drop()
      newest = (this.oldest + this.used) % buckets
      this.used++
      begins[newest] = now
      counts.fill(0, 3 * newest, 3 * newest + 3)
    }
    this.calls++
    counts[3 * newest]!++
    if (failed) {
      this.failures++
      counts[3 * newest + 1]!++
    }
    if (slow) {
      this.slow++
      counts[3 * newest + 2]!++
    }
  }

  expire(now: number): void {
    while (this.used > 0 && now - this.begins![this.oldest]! >= this.millis) this.drop()
  }

  clear(): void {
    this.calls = this.failures = this.slow = this.used = this.oldest = 0
  }

  private drop(): void {
    const counts = this.counts!
    const at = 3 * this.oldest
    this.calls -= counts[at]!
    this.failures -= counts[at + 1]!
    this.slow -= counts[at + 2]!
    this.oldest = (this.oldest + 1) % this.buckets
    this.used--
  }
}
