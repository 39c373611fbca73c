/**
 * Quantiles of latencies as they come, in bounded memory: a histogram whose
 * bucket borders grow by a constant factor, so that an estimate is off by at
 * most 2 % of the value, whatever the distribution. Old latencies fade: when
 * 1,000 are counted, every count is halved.
 *
 * Masson, Rim and Lee, "DDSketch: A Fast and Fully-Mergeable Quantile Sketch
 * with Relative-Error Guarantees", VLDB 2019.
 */

/** How far off an estimate may be, as a share of the value. */
export const accuracy = 0.02

/** At so many, every count is halved. */
export const fadesAt = 1000

const gamma = (1 + accuracy) / (1 - accuracy)
const shortest = 1
const longest = 3_600_000

/** `shortest` and less are in the first bucket, `longest` and more in the last. */
const bucketOf = (millis: number): number =>
  Math.ceil(Math.log(Math.min(Math.max(millis, shortest), longest)) / Math.log(gamma))

const valueOf = (bucket: number): number => (2 * gamma ** bucket) / (gamma + 1)

/** Latencies of one kind of call to one destination, in milliseconds. */
export class Quantile {
  private readonly counts: Array<number> = Array.from({ length: bucketOf(longest) + 1 }, () => 0)
  /** How many are remembered; those that faded count in part. */
  total = 0

  add(millis: number): void {
    const bucket = bucketOf(millis)
    this.counts[bucket] = this.counts[bucket]! + 1
    this.total++
    if (this.total >= fadesAt) {
      this.total = 0
      for (let index = 0; index < this.counts.length; index++) {
        const half = this.counts[index]! / 2
        this.counts[index] = half
        this.total += half
      }
    }
  }

  /** The latency that this share of calls stays within; nothing as long as there is none. */
  at(share: number): number | undefined {
    if (this.total === 0) return undefined
    const rank = share * this.total
    let seen = 0
    let last = 0
    for (let bucket = 0; bucket < this.counts.length; bucket++) {
      const count = this.counts[bucket]!
      if (count === 0) continue
      seen += count
      last = bucket
      if (seen >= rank) break
    }
    return valueOf(last)
  }
}
