import { assert, describe, it } from "@effect/vitest"
import { Line, type Waiter } from "../src/internal/limits/line.ts"
import { type Cost, RateLimiter } from "../src/internal/limits/rateLimit.ts"
import { type Flaw, type Meter, Model } from "./RateLimit.model.ts"
import { agree, deep, type Game, tellsApart } from "./Sequences.ts"
import { random, type Random } from "./stub.ts"

interface Setup {
  readonly meters: ReadonlyArray<Meter>
  readonly queue: number
}

type Step =
  | { readonly do: "come"; readonly shares: ReadonlyArray<number>; readonly maxWait: number }
  | { readonly do: "end"; readonly which: number; readonly used: number }
  | { readonly do: "give up"; readonly which: number }
  | { readonly do: "wait"; readonly millis: number }
  | { readonly do: "wait for the first"; readonly off: number }
  | { readonly do: "learn"; readonly meter: number; readonly share: number }
  | { readonly do: "pause"; readonly millis: number }

// Limits whose units come in whole milliseconds, so that everything is exact.
const anyMeter = (r: Random): Meter => {
  const limit = r.pick([10, 60, 100, 600])
  return { limit, window: 60_000, burst: r.pick([limit, limit / 2, limit / 10]) }
}

const anyStep = (r: Random): Step => {
  const dice = r.next()
  if (dice < 0.36) {
    const shares = [r.next(), r.next()].map((share) => (r.chance(0.15) ? 0 : share * r.pick([0.2, 0.6, 1])))
    return { do: "come", shares, maxWait: r.pick([1, 5000, 60_000, 600_000]) }
  }
  if (dice < 0.58) return { do: "end", which: r.int(0, 1000), used: r.pick([0, 0.1, 0.5, 1, 1.4]) }
  if (dice < 0.64) return { do: "give up", which: r.int(0, 1000) }
  if (dice < 0.76) return { do: "wait", millis: r.pick([0, 1, 100, 1000, 10_000]) }
  if (dice < 0.92) return { do: "wait for the first", off: r.pick([-1, 0, 0, 1]) }
  if (dice < 0.97) return { do: "learn", meter: r.int(0, 2), share: r.next() }
  return { do: "pause", millis: r.pick([1, 1000, 30_000]) }
}

const game: Game<Setup, Step, Flaw> = {
  make: (r) => ({
    setup: { meters: [anyMeter(r), anyMeter(r)], queue: r.pick([0, 1, 3, 10]) },
    steps: Array.from({ length: r.int(60, 101) }, () => anyStep(r)),
  }),
  play: ({ setup, steps }, flaw) => {
    const { meters, queue } = setup
    const limiter = new RateLimiter(meters)
    const line = new Line<Cost>(limiter, queue)
    const model = new Model(meters, flaw)
    const reached = new Set<string>()
    const inside = new Map<number, Cost>()
    const waiting = new Map<number, Waiter<Cost>>()
    const probe = meters.map(({ limit }) => Math.ceil(limit / 3))
    let now = 0
    let calls = 0
    let difference: string | undefined

    const differ = (what: string, real: unknown, expected: unknown): void => {
      if (real !== expected) difference ??= `${what} is ${real}, the model says ${expected}`
    }
    const pass = (millis: number): void => {
      now += millis
      model.pass(millis)
    }
    const serve = (): void => {
      line.advance(now)
      model.serve(now)
    }
    const come = (cost: Cost, maxWait: number): readonly [string, string] => {
      const call = calls++
      const until = now + maxWait
      const expected = model.come(call, now, cost, until, queue)
      if (line.tryTake(now, cost)) {
        inside.set(call, cost)
        return ["inside", expected]
      }
      const waiter: Waiter<Cost> = {
        cost,
        until,
        serve: () => {
          waiting.delete(call)
          inside.set(call, cost)
          reached.add("served after a wait")
        },
      }
      if (!line.join(waiter)) return ["turned away", expected]
      waiting.set(call, waiter)
      return ["waiting", expected]
    }

    for (const [index, step] of steps.entries()) {
      let came: readonly [string, string] = ["", ""]
      switch (step.do) {
        case "come": {
          const cost = meters.map(({ limit }, meter) => Math.floor(step.shares[meter]! * limit))
          if (!limiter.fits(cost)) break
          came = come(cost, step.maxWait)
          reached.add(came[0])
          break
        }
        case "end": {
          const entry = [...inside][step.which % Math.max(1, inside.size)]
          if (entry === undefined) break
          const [call, cost] = entry
          inside.delete(call)
          const real = cost.map((units) => Math.floor(units * step.used))
          if (step.used === 0) limiter.give(now, cost)
          else limiter.settle(now, cost, real)
          model.settle(cost, real)
          serve()
          reached.add(step.used === 0 ? "given back" : step.used > 1 ? "used more" : "settled")
          break
        }
        case "give up": {
          const entry = [...waiting][step.which % Math.max(1, waiting.size)]
          if (entry === undefined) break
          reached.add(now >= entry[1].until ? "waited in vain" : "gave up")
          waiting.delete(entry[0])
          line.leave(entry[1])
          model.giveUp(entry[0])
          serve()
          break
        }
        case "wait":
          pass(step.millis)
          break
        case "wait for the first": {
          const { first } = line
          if (first === undefined) break
          pass(Math.max(0, Math.ceil(limiter.readyAt(first.cost)) - now + step.off))
          serve()
          break
        }
        case "learn": {
          const units = Math.floor(step.share * meters[step.meter]!.limit)
          limiter.atMost(now, step.meter, units)
          model.atMost(step.meter, units)
          reached.add("learned")
          break
        }
        case "pause":
          limiter.pause(now + step.millis)
          model.pause(now + step.millis)
          reached.add("paused")
          break
      }
      for (const [meter, { limit, window }] of meters.entries()) {
        // In milliseconds of refilling, which are whole numbers here.
        const level = limiter.level(now, meter)
        if (level < 0) reached.add("in debt")
        differ(`what is left of meter ${meter}`, Math.round((level * window) / limit), model.held[meter])
      }
      differ("the newcomer", ...came)
      differ("the length of the line", line.length, model.waiting.length)
      let place = 0
      for (const call of waiting.keys()) differ("waiting", call, model.waiting[place++]?.call)
      differ("the wait", Math.max(0, limiter.readyAt(probe) - now), model.untilReady(now, probe))
      // It is the dearest to look at.
      if (index % 4 === 0) {
        const costs = [...[...waiting.values()].map(({ cost }) => cost), probe]
        const expected = model.forecast(now, costs)
        for (const [nth, at] of limiter.forecast(now, costs).entries()) differ("the forecast", at, expected[nth])
      }
      if (difference !== undefined) {
        return { disagreement: `step ${index} ${JSON.stringify(step)} at ${now}: ${difference}`, reached }
      }
    }
    return { disagreement: undefined, reached }
  },
}

describe("The machine of a rate limit", () => {
  it("does what token buckets do in 10,000 random sequences of overlapping calls", () => {
    const share = agree(game, deep(10_000))
    assert.isAtLeast(share("inside"), 0.9)
    assert.isAtLeast(share("waiting"), 0.6)
    assert.isAtLeast(share("turned away"), 0.6)
    assert.isAtLeast(share("served after a wait"), 0.6)
    assert.isAtLeast(share("waited in vain"), 0.5)
    assert.isAtLeast(share("gave up"), 0.3)
    for (const state of ["given back", "settled", "used more", "learned", "paused"]) {
      assert.isAtLeast(share(state), 0.5, state)
    }
    assert.isAtLeast(share("in debt"), 0.4)
  })

  it.each<Flaw>([
    "asksTheFirstMeterOnly",
    "smallOnesOvertake",
    "givesBackBeyondTheBrim",
    "settlesNothingMore",
    "forgetsPauses",
    "learnsToAllowMore",
    "startsEmpty",
    "admitsNoDebt",
  ])("is told apart from one with the flaw %s", (flaw) => tellsApart(game, flaw))

  it("lets no more through in any minute than its limit and what it had saved", () => {
    let used = 0
    for (let seed = 0; seed < 200; seed++) {
      const r = random(seed)
      const limit = r.int(1, 1000)
      const burst = Math.max(1, limit * r.next())
      const limiter = new RateLimiter([{ limit, window: 60_000, burst }])
      const taken: Array<readonly [at: number, units: number]> = []
      for (let now = 0; now < 240_000; now += r.int(1, 600)) {
        const units = r.int(1, Math.max(2, Math.floor(burst)))
        if (limiter.tryTake(now, [units])) taken.push([now, units])
      }
      for (const [from] of taken) {
        const within = taken.filter(([at]) => at >= from && at < from + 60_000)
        const sum = within.reduce((all, [, units]) => all + units, 0)
        assert.isAtMost(sum, limit + burst + 1e-6, `seed ${seed}`)
        used = Math.max(used, sum / (limit + burst))
      }
    }
    assert.isAbove(used, 0.9)
  })

  it("is as if it were new when everything is back", () => {
    const limiter = new RateLimiter([{ limit: 60, window: 60_000, burst: 60 }])
    assert.isTrue(limiter.idle(0))
    limiter.tryTake(0, [10])
    assert.isFalse(limiter.idle(9999))
    assert.isTrue(limiter.idle(10_000))
    limiter.pause(20_000)
    assert.isFalse(limiter.idle(19_999))
    assert.strictEqual(limiter.pausedFor(19_999), 1)
    assert.isTrue(limiter.idle(20_000))
  })
})
