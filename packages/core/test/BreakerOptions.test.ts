import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Random, Schedule, Schema } from "effect"
import { CircuitBreaker, Understudy } from "@understudy/core"
import { CountWindow, TimeWindow } from "../src/internal/breaker/window.ts"
import { random } from "./stub.ts"

const { rejected } = CircuitBreaker
const still = { nextDoubleUnsafe: () => 0 }

/** How long each opening in a row lasts, when the probe fails every time. */
const openings = (options: Parameters<typeof CircuitBreaker.machine>[0], count: number, chance = still) => {
  const breaker = CircuitBreaker.machine({ failures: 1, ...options })
  let now = 0
  return Array.from({ length: count }, () => {
    breaker.record(breaker.admit(now), "failure", now, 0, 0, 0, chance)
    const millis = breaker.openUntil - now
    now = breaker.openUntil
    return millis
  })
}

/** What outcomes trip, one after the other at their instants. */
const tripping = (
  options: Parameters<typeof CircuitBreaker.tripper>[0],
  ...outcomes: ReadonlyArray<readonly [at: number, outcome: "ok" | "fails" | "slow"]>
) => {
  const tripper = CircuitBreaker.tripper(options)
  return outcomes.map(([at, outcome]) => tripper.record(outcome === "fails", at, outcome === "slow" ? 5000 : 10, 5000))
}

describe("A circuit breaker's options", () => {
  it("trip on five failures in a row when they say nothing, and on nothing but what they say when they do", () => {
    assert.strictEqual(CircuitBreaker.rules().inARow, 5)
    assert.strictEqual(CircuitBreaker.rules({ failures: 2 }).inARow, 2)
    const only = CircuitBreaker.rules({ trip: { on: "failures", failures: 3, of: 4 } })
    assert.deepStrictEqual([only.inARow, only.watches.length], [Infinity, 1])
    const both = CircuitBreaker.rules({ failures: 7, trip: [{ on: "failures", failures: 3, of: 4 }] })
    assert.deepStrictEqual([both.inARow, both.watches.length], [7, 1])
  })

  it("trip on so many failures of the last calls, or within a time", () => {
    const last = { trip: { on: "failures", failures: 2, of: 3 } } as const
    assert.deepStrictEqual(tripping(last, [0, "fails"], [0, "ok"], [0, "ok"], [0, "fails"], [0, "ok"], [0, "fails"]), [
      undefined,
      undefined,
      undefined,
      undefined,
      undefined,
      "failures",
    ])
    const within = { trip: { on: "failures", failures: 2, within: "1 second" } } as const
    assert.deepStrictEqual(tripping(within, [0, "fails"], [1000, "fails"], [1999, "fails"]), [
      undefined,
      undefined,
      "failures",
    ])
  })

  it("trip on a share of failures once there are enough calls, reached or exceeded", () => {
    const rate = (compare: ">=" | ">", judge: "every outcome" | "failures" = "every outcome") =>
      ({ trip: { on: "failure rate", rate: 0.5, of: 4, compare, judge } }) as const
    const half = [
      [0, "fails"],
      [0, "fails"],
      [0, "ok"],
      [0, "ok"],
      [0, "fails"],
    ] as const
    assert.deepStrictEqual(tripping(rate(">="), ...half).slice(3), ["failure rate", "failure rate"])
    assert.deepStrictEqual(tripping(rate(">"), ...half).slice(3), [undefined, undefined])
    // A success may complete the minimum, unless only failures are judged.
    assert.deepStrictEqual(tripping(rate(">=", "failures"), ...half).slice(3), [undefined, "failure rate"])
  })

  it("trip on a share of slow calls, by their first content or their whole time", () => {
    const slow = (by?: "first content" | "total") =>
      ({ trip: { on: "slow rate", slow: "4 seconds", rate: 0.5, of: 2, ...(by === undefined ? {} : { by }) } }) as const
    assert.deepStrictEqual(tripping(slow(), [0, "ok"], [0, "slow"]), [undefined, "slow rate"])
    assert.deepStrictEqual(tripping(slow(), [0, "ok"], [0, "ok"]), [undefined, undefined])
    assert.deepStrictEqual(tripping(slow("total"), [0, "ok"], [0, "ok"]), [undefined, "slow rate"])
    const exact = CircuitBreaker.tripper(slow())
    assert.deepStrictEqual([exact.record(false, 0, 4000), exact.record(false, 0, 4000)], [undefined, undefined])
  })

  it("trip on any of several", () => {
    const any = {
      trip: [
        { on: "failures in a row", failures: 3 },
        { on: "failure rate", rate: 0.5, of: 4 },
      ],
    } as const
    assert.deepStrictEqual(tripping(any, [0, "fails"], [0, "fails"], [0, "fails"]).at(-1), "failures in a row")
    assert.deepStrictEqual(tripping(any, [0, "fails"], [0, "ok"], [0, "fails"], [0, "ok"]).at(-1), "failure rate")
  })

  it("open for one time, for one after the other, or for a time that grows up to its cap", () => {
    assert.deepStrictEqual(openings({}, 3), [60_000, 60_000, 60_000])
    assert.deepStrictEqual(openings({ openFor: ["1 second", "5 seconds"] }, 4), [1000, 5000, 5000, 5000])
    assert.deepStrictEqual(openings({ openFor: [1000, 5000] }, 2), [1000, 5000])
    assert.deepStrictEqual(openings({ openFor: { base: "1 second", cap: "5 seconds" } }, 4), [1000, 2000, 4000, 5000])
    const jittered = { openFor: { base: "1 second", factor: 1, jitter: 0.2 } } as const
    assert.deepStrictEqual(openings(jittered, 2, { nextDoubleUnsafe: () => 0.5 }), [1100, 1100])
  })

  it("open for the delays of any schedule, whose chance is the call's", () => {
    const schedule = Schedule.exponential("1 second").pipe(Schedule.upTo({ times: 3 }))
    assert.deepStrictEqual(openings({ schedule }, 5), [1000, 2000, 4000, 4000, 4000])
    const jittered = Schedule.spaced("1 second").pipe(Schedule.jittered)
    const low = openings({ schedule: jittered }, 3, still)
    const high = openings({ schedule: jittered }, 3, { nextDoubleUnsafe: () => 0.999_999 })
    assert.deepStrictEqual(low, [800, 800, 800])
    assert.isTrue(high.every((millis) => millis > 1199 && millis < 1200))
    // A schedule begins anew for each circuit, and with each first opening.
    const again = CircuitBreaker.machine({ failures: 1, successes: 1, reset: "close", schedule })
    for (let now = 0; now < 10_000; now += 2000) {
      again.record(again.admit(now), "failure", now)
      assert.strictEqual(again.openUntil, now + 1000)
      again.record(again.admit(now + 1000), "success", now + 1000)
    }
  })

  it("count openings anew when it closes, after so long, or after as long as it was open", () => {
    const second = (reset: CircuitBreaker.Options["reset"], closedFor: number) => {
      const options = { failures: 1, successes: 1, openFor: [1000, 7000] } as const
      const breaker = CircuitBreaker.machine(reset === undefined ? options : { ...options, reset })
      breaker.record(breaker.admit(0), "failure", 0)
      breaker.record(breaker.admit(1000), "success", 1000)
      const now = 1000 + closedFor
      breaker.record(breaker.admit(now), "failure", now)
      return breaker.openUntil - now
    }
    assert.deepStrictEqual([second("close", 0)], [1000])
    assert.deepStrictEqual([second(undefined, 999), second(undefined, 1000)], [7000, 1000])
    assert.deepStrictEqual([second("5 seconds", 4999), second("5 seconds", 5000)], [7000, 1000])
  })

  it("judge probes by successes in a row, by so many of so many, or by a share of failures", () => {
    const judged = (options: CircuitBreaker.Options, outcomes: string) => {
      const breaker = CircuitBreaker.machine({ failures: 1, permits: 1, ...options })
      breaker.halfOpen(0)
      return [...outcomes].map((outcome) => {
        breaker.record(breaker.admit(0), outcome === "S" ? "success" : "failure", 0)
        return breaker.state
      })
    }
    assert.deepStrictEqual(judged({ successes: 2 }, "SS"), ["half-open", "closed"])
    assert.deepStrictEqual(judged({ successes: 2 }, "SF"), ["half-open", "open"])
    const some = { verdict: { successes: 2, of: 4 } }
    assert.deepStrictEqual(judged(some, "FFS").at(-1), "half-open")
    assert.deepStrictEqual(judged(some, "FFF").at(-1), "open")
    assert.deepStrictEqual(judged(some, "FFSS").at(-1), "closed")
    const share = { verdict: { rate: 0.5, of: 4 } }
    assert.deepStrictEqual(judged(share, "FF").at(-1), "open")
    assert.deepStrictEqual(judged({ verdict: { rate: 0.5, of: 4, early: false } }, "FFS").at(-1), "half-open")
    assert.deepStrictEqual(judged({ verdict: { rate: 0.5, of: 4, early: false } }, "FFSS").at(-1), "open")
    assert.deepStrictEqual(judged({ verdict: { rate: 0.5, of: 4, compare: ">" } }, "FFSS").at(-1), "closed")
  })

  it("take a sample of no more probes than its verdict needs", () => {
    const breaker = CircuitBreaker.machine({ permits: 10, verdict: { rate: 0.5, of: 2 } })
    breaker.halfOpen(0)
    const [first] = [breaker.admit(0), breaker.admit(0)]
    assert.strictEqual(breaker.admit(0), rejected)
    breaker.record(first!, "ignored", 0)
    assert.notStrictEqual(breaker.admit(0), rejected)
    assert.strictEqual(breaker.admit(0), rejected)
  })

  it("take an ignored outcome for nothing, or for a success where it is meant so, but never a caller who left", () => {
    for (const [ignored, state] of [
      ["nothing", "half-open"],
      ["success", "closed"],
    ] as const) {
      const breaker = CircuitBreaker.machine({ successes: 1, ignored })
      breaker.halfOpen(0)
      breaker.record(breaker.admit(0), "interrupted", 0)
      assert.strictEqual(breaker.state, "half-open")
      breaker.record(breaker.admit(0), "ignored", 0)
      assert.strictEqual(breaker.state, state)
    }
  })

  it("let a probe that is too slow pass for one that failed", () => {
    const breaker = CircuitBreaker.machine({ trip: { on: "slow rate", slow: "4 seconds", rate: 0.5, of: 4 } })
    breaker.halfOpen(0)
    breaker.record(breaker.admit(0), "success", 0, 0, 5000, 5000)
    assert.strictEqual(breaker.state, "open")
  })

  const wrong: ReadonlyArray<readonly [string, CircuitBreaker.Options, RegExp]> = [
    ["a number of failures that cannot be", { failures: 0 }, /failures/],
    ["more failures than calls", { trip: { on: "failures", failures: 4, of: 3 } }, /never has so many failures of 3/],
    [
      "as many failures as calls, to be exceeded",
      { trip: { on: "failures", failures: 3, of: 3, compare: ">" } },
      /never has so many/,
    ],
    ["a minimum beyond the window", { trip: { on: "failure rate", rate: 0.5, of: 9, minimum: 10 } }, /minimum/],
    ["a share above one", { trip: { on: "failure rate", rate: 50, of: 9 } }, /between|1/],
    ["a share that is always reached", { trip: { on: "failure rate", rate: 0, of: 9 } }, /more than 0/],
    ["a share that is never exceeded", { verdict: { rate: 1, of: 4, compare: ">" } }, /less than 1/],
    ["no time at all", { trip: { on: "failures", failures: 1, within: 0 } }, /no time/],
    ["a window without bounds", { trip: { on: "failure rate", rate: 0.5, of: 1_000_000 } }, /10000|10_000|of/],
    ["more successes than probes", { verdict: { successes: 3, of: 2 } }, /so many successes of 2/],
    ["a time that runs backwards", { openFor: -1 }, /openFor/],
    ["no times at all", { openFor: [] as never }, /openFor/],
  ]
  it.each(wrong)("throw InvalidOptions for %s", (_name, options, message) => {
    assert.throws(() => CircuitBreaker.with(options), message)
    assert.throws(() => CircuitBreaker.with(options), /CircuitBreaker\.with/)
  })

  it("are plain data: they come through JSON as they are", () => {
    const options: CircuitBreaker.Options = {
      trip: [
        { on: "failure rate", rate: 0.5, within: "30 seconds", minimum: 20, buckets: 6 },
        { on: "slow rate", slow: "10 seconds", by: "total", rate: 0.5, of: 50, minimum: 10 },
      ],
      openFor: { base: "10 seconds", factor: 3, cap: "5 minutes", jitter: 0.1 },
      reset: "10 minutes",
      verdict: { rate: 0.5, of: 4 },
      excess: { wait: "1 second", waiters: 10 },
      account: "main",
    }
    const read = Schema.decodeUnknownSync(CircuitBreaker.Options)(JSON.parse(JSON.stringify(options)))
    assert.deepStrictEqual(read, options)
    assert.doesNotThrow(() => Schema.decodeUnknownSync(Understudy.Policies)({ breaker: options }))
  })
})

describe("A window", () => {
  it("holds the last so many outcomes, whatever is put in", () => {
    for (let seed = 0; seed < 300; seed++) {
      const r = random(seed)
      const size = r.int(1, 12)
      const window = new CountWindow(size)
      let all: Array<readonly [failed: boolean, slow: boolean]> = []
      for (let n = 0; n < 40; n++) {
        if (r.chance(0.03)) {
          window.clear()
          all = []
        }
        const one = [r.chance(0.5), r.chance(0.5)] as const
        window.add(...one)
        all = [...all, one].slice(-size)
        assert.deepStrictEqual(
          [window.calls, window.failures, window.slow],
          [all.length, all.filter(([failed]) => failed).length, all.filter(([, slow]) => slow).length],
        )
      }
    }
  })

  it("forgets an outcome between the whole time and one bucket less, and keeps no more than its buckets", () => {
    for (let seed = 0; seed < 300; seed++) {
      const r = random(seed)
      const buckets = r.pick([1, 3, 10])
      const millis = r.pick([100, 999, 10_000])
      const window = new TimeWindow(millis, buckets)
      const all: Array<number> = []
      let now = r.int(0, 1000)
      for (let n = 0; n < 60; n++) {
        now += Math.round(r.pick([0, 1, millis / buckets, millis / 3, millis]))
        window.add(false, false, now)
        all.push(now)
        const surely = all.filter((at) => now - at <= millis - millis / buckets).length
        const perhaps = all.filter((at) => now - at < millis).length
        assert.isAtLeast(window.calls, surely)
        assert.isAtMost(window.calls, perhaps)
      }
      window.expire(now + millis)
      assert.strictEqual(window.calls, 0)
    }
  })

  it("begins a bucket with an outcome, and forgets it when the time is over since then", () => {
    const window = new TimeWindow(10_000, 10)
    window.add(true, false, 500)
    window.add(true, true, 1499)
    window.add(true, false, 1500)
    window.expire(10_499)
    assert.deepStrictEqual([window.calls, window.failures, window.slow], [3, 3, 1])
    window.expire(10_500)
    assert.deepStrictEqual([window.calls, window.failures, window.slow], [1, 1, 0])
    window.expire(11_500)
    assert.strictEqual(window.calls, 0)
  })
})

it.effect("A schedule of open times draws its chance from the call's Random", () =>
  Effect.gen(function* () {
    const schedule = Schedule.spaced("10 seconds").pipe(Schedule.jittered)
    const once = (seed: string) =>
      Effect.gen(function* () {
        const failing = CircuitBreaker.effect(Effect.fail("down"), { key: "k", failures: 1, schedule })
        yield* Effect.exit(failing)
        const [status] = yield* (yield* CircuitBreaker.Circuits).status
        return Duration.toMillis(status?.retryAfter ?? 0)
      }).pipe(Random.withSeed(seed), Effect.provide(CircuitBreaker.layer))
    const first = yield* once("a")
    assert.strictEqual(yield* once("a"), first)
    assert.notStrictEqual(yield* once("b"), first)
    assert.isTrue(first >= 8000 && first <= 12_000)
  }),
)
