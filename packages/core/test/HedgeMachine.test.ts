import { assert, describe, it } from "@effect/vitest"
import { accuracy, fadesAt, Quantile } from "../src/internal/limits/quantile.ts"
import { deep } from "./Sequences.ts"
import { random, type Random } from "./stub.ts"

/** Latencies of a provider, in milliseconds: mostly alike, with a tail, and sometimes all of another kind. */
const anyLatency = (r: Random, kind: number): number => {
  switch (kind) {
    case 0:
      return 200 + 4000 * r.next() ** 3
    case 1:
      return 500 * Math.exp(3 * r.next() ** 4)
    case 2:
      return r.chance(0.9) ? 1000 : 30_000
    default:
      return r.int(0, 50)
  }
}

/** The same written a second time: every latency with its weight, sorted when it is asked. */
class Model {
  private readonly latencies: Array<{ readonly millis: number; weight: number }> = []
  total = 0

  add(millis: number): void {
    this.latencies.push({ millis, weight: 1 })
    this.total++
    if (this.total < fadesAt) return
    for (const latency of this.latencies) latency.weight /= 2
    this.total /= 2
  }

  at(share: number): number {
    let seen = 0
    const sorted = this.latencies.toSorted((a, b) => a.millis - b.millis)
    for (const { millis, weight } of sorted) {
      seen += weight
      if (seen >= share * this.total - 1e-9) return millis
    }
    return sorted.at(-1)!.millis
  }
}

const shares = [0.01, 0.5, 0.9, 0.95, 0.99] as const

describe("The quantile of latencies", () => {
  it("is off by at most 2 % in 10,000 random sequences, also when latencies change", () => {
    let changed = 0
    const sequences = deep(10_000)
    for (let seed = 0; seed < sequences; seed++) {
      const r = random(seed)
      const quantile = new Quantile()
      const model = new Model()
      const length = r.int(60, 200)
      let kind = r.int(0, 4)
      for (let n = 0; n < length; n++) {
        if (r.chance(0.01)) {
          kind = r.int(0, 4)
          changed++
        }
        const millis = anyLatency(r, kind)
        quantile.add(millis)
        model.add(millis)
      }
      const share = r.pick(shares)
      const exact = Math.max(1, model.at(share))
      assert.isAtMost(Math.abs(quantile.at(share)! - exact) / exact, accuracy + 1e-9, `seed ${seed}, ${share}`)
    }
    assert.isAbove(changed, sequences / 2)
  })

  it("is off by at most 2 % when old latencies have faded, too", () => {
    for (let seed = 0; seed < 10; seed++) {
      const r = random(seed)
      const quantile = new Quantile()
      const model = new Model()
      for (let n = 0; n < 5000; n++) {
        const millis = anyLatency(r, Math.floor(n / 1700))
        quantile.add(millis)
        model.add(millis)
        if (n % 499 !== 0) continue
        for (const share of shares) {
          const exact = Math.max(1, model.at(share))
          assert.isAtMost(
            Math.abs(quantile.at(share)! - exact) / exact,
            accuracy + 1e-9,
            `seed ${seed}, ${n}, ${share}`,
          )
        }
      }
    }
  })

  it("follows a provider that became slower within two thousand answers", () => {
    const quantile = new Quantile()
    for (let n = 0; n < 100_000; n++) quantile.add(500)
    for (let n = 0; n < 2000; n++) quantile.add(5000)
    assert.isAbove(quantile.at(0.5)!, 4900)
    assert.isBelow(quantile.total, fadesAt)
  })

  it("knows nothing before the first, and takes what no clock can measure", () => {
    const quantile = new Quantile()
    assert.strictEqual(quantile.at(0.5), undefined)
    quantile.add(0)
    assert.isAtMost(quantile.at(0.5)!, 1)
    quantile.add(Infinity)
    assert.isAtLeast(quantile.at(0.99)!, 3_500_000)
  })
})
