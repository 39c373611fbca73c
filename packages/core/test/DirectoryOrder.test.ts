import { assert, describe, it } from "@effect/vitest"
import { inOrder, type Order } from "../src/internal/directory/order.ts"
import { effective } from "../src/internal/directory/settings.ts"
import { Tally } from "../src/internal/directory/tally.ts"
import { holding } from "../src/internal/directory/window.ts"
import { Diary, type Flaw, type Kind, placed } from "./DirectoryOrder.model.ts"
import { agree, deep, type Game, tellsApart } from "./Sequences.ts"
import { type Random, random } from "./stub.ts"

interface Setup {
  readonly decay: number
  readonly candidates: ReadonlyArray<Diary["settings"]>
}

type Step =
  | { readonly do: "ask"; readonly kind: Kind; readonly which: number }
  | { readonly do: "answer" | "leave" | "refuse"; readonly which: number }
  | { readonly do: "fail"; readonly which: number; readonly longest: number }
  | { readonly do: "wait"; readonly millis: number }

const someStep = (r: Random): Step => {
  const dice = r.next()
  const which = r.int(0, 1000)
  if (dice < 0.34) return { do: "ask", kind: r.pick(["generate", "generate", "stream"]), which }
  if (dice < 0.5) return { do: "answer", which }
  if (dice < 0.55) return { do: "leave", which }
  if (dice < 0.58) return { do: "refuse", which }
  if (dice < 0.64) return { do: "fail", which, longest: r.pick([0, 500, 30_000]) }
  return { do: "wait", millis: r.pick([1, 7, 300, 2000, 60_000]) * (0.5 + r.next()) }
}

const near = (a: number | undefined, b: number | undefined): boolean =>
  a === undefined || b === undefined ? a === b : Math.abs(a - b) <= 1e-9 * Math.max(1, a, b)

const game: Game<Setup, Step, Flaw> = {
  make: (r) => ({
    setup: {
      decay: r.pick([1000, 60_000]),
      candidates: Array.from({ length: r.int(2, 5) }, () => ({
        priority: r.int(0, 2),
        weight: r.int(0, 3),
        price: r.chance(0.3) ? undefined : { input: r.int(1, 4), output: r.int(1, 9) },
      })),
    },
    steps: Array.from({ length: r.int(60, 70) }, () => someStep(r)),
  }),
  play: ({ setup, steps }, flaw) => {
    const diaries = setup.candidates.map((settings) => new Diary(settings, setup.decay, flaw))
    const tallies = setup.candidates.map(() => new Tally(setup.decay))
    const entries = setup.candidates
      .map((settings, index) => ({ index, ...settings, tally: tallies[index]! }))
      .toSorted((a, b) => a.priority - b.priority)
    const underWay: Array<{ readonly candidate: number; readonly kind: Kind; readonly at: number }> = []
    const reached = new Set<string>()
    let now = 1000

    const over = (which: number) => {
      const [call] = underWay.splice(which % Math.max(1, underWay.length), 1)
      if (call === undefined) return undefined
      const [tally, diary] = [tallies[call.candidate]!, diaries[call.candidate]!]
      tally.end()
      diary.inFlight--
      return { tally, diary, kind: call.kind, took: now - call.at }
    }

    const take = (step: Step): void => {
      if (step.do === "wait") {
        now += step.millis
        return
      }
      if (step.do === "ask") {
        const candidate = step.which % tallies.length
        tallies[candidate]!.begin(now)
        diaries[candidate]!.inFlight++
        underWay.push({ candidate, kind: step.kind, at: now })
        if (diaries[candidate]!.inFlight > 2) reached.add("many at one")
        return
      }
      const ended = over(step.which)
      if (ended === undefined) return
      const { diary, kind, tally, took } = ended
      const before = tally.latency(kind, now)
      switch (step.do) {
        case "answer":
          tally.answered(kind, took, now)
          diary.answered(kind, took, now)
          break
        case "fail":
          tally.failed(kind, took, step.longest, "Overloaded", now)
          diary.failed(kind, took, step.longest, now)
          reached.add("failed")
          break
        case "leave":
          tally.left(kind, took, now)
          diary.left(kind, took, now)
          reached.add(before !== undefined && took <= before ? "left early" : "left late")
          break
        case "refuse":
          tally.refused("InvalidRequest", now)
          break
      }
      const after = tally.latency(kind, now)
      if (before !== undefined && after !== undefined && after > before) reached.add("went up")
    }

    const orderOf = (order: Order, kind: Kind, input: number) =>
      inOrder(entries, order, { kind, now, chance: () => 0.5, tokens: { input, output: 500 } }).map(
        ({ index }) => index,
      )
    const listed = entries.map(({ index }) => index)
    const foretold = (isBefore: (one: Diary, other: Diary) => boolean) =>
      placed(
        listed,
        (index) => (flaw === "mixesPriorities" ? 0 : diaries[index]!.settings.priority),
        (one, other) => isBefore(diaries[one]!, diaries[other]!),
      )

    for (const [at, step] of steps.entries()) {
      take(step)
      if (at % 3 !== 0 && at < steps.length - 2) continue
      const kind = at % 2 === 0 ? "generate" : "stream"
      const which = at % tallies.length
      const input = at % 3 === 0 ? 10 : 5000
      // Two that are equal but for their rounding may come in either order.
      const loads = tallies.map((tally) => tally.load(kind, now)).filter((load) => load > 0 && load < Infinity)
      const tied = loads.some((load, i) => loads.some((other, j) => i < j && near(load, other)))
      if (!tied) reached.add("no tie")
      const byLatency = foretold((one, other) => one.isBefore(other, kind, now))
      if (byLatency.join() !== listed.join()) reached.add("the last is first")
      const seen = [
        ["in flight", tallies[which]!.inFlight === diaries[which]!.inFlight],
        ["the latency", near(tallies[which]!.latency(kind, now), diaries[which]!.latency(kind, now))],
        ["the order by latency", tied || orderOf("latency", kind, 0).join() === byLatency.join()],
        [
          "the order by cost",
          orderOf("cost", kind, input).join() === foretold((one, other) => one.isCheaper(other, input, 500)).join(),
        ],
      ] as const
      const different = seen.find(([, same]) => !same)
      if (different !== undefined) {
        return { disagreement: `step ${at} ${JSON.stringify(step)} at ${now}: ${different[0]} is another`, reached }
      }
    }
    return { disagreement: undefined, reached }
  },
}

describe("The order of candidates", () => {
  it(
    "follows from what was measured, in 10,000 random sequences of overlapping calls",
    () => {
      const share = agree(game, deep(10_000))
      for (const [state, least] of Object.entries({
        "many at one": 0.5,
        failed: 0.5,
        "left early": 0.3,
        "left late": 0.3,
        "went up": 0.5,
        "the last is first": 0.5,
        "no tie": 1,
      })) {
        assert.isAtLeast(share(state), least, state)
      }
    },
    deep(60_000),
  )

  it.each<Flaw>([
    "averagesPeaks",
    "doesNotFade",
    "fastFailuresLookFast",
    "leavingEarlyLooksFast",
    "loadDoesNotCount",
    "crowdsAtAStranger",
    "unknownPriceFirst",
    "mixesPriorities",
    "kindsAreOne",
  ])("is told apart from a model in which: %s", (flaw) => {
    tellsApart(game, flaw)
  })

  it("by weight asks each first in proportion to its weight, and then the next of those that are left", () => {
    const weights = [1, 2, 5, 0]
    const entries = weights.map((weight, index) => ({ index, ...effective({ weight }), tally: undefined }))
    const r = random(7)
    const draws = 60_000
    const first = new Map<number, number>()
    const pairs = new Map<string, number>()
    for (let n = 0; n < draws; n++) {
      const order = inOrder(entries, "weight", {
        kind: "generate",
        now: 0,
        chance: r.next,
        tokens: { input: 0, output: 0 },
      })
      const [a, b, , last] = order.map(({ index }) => index)
      first.set(a!, (first.get(a!) ?? 0) + 1)
      pairs.set(`${a},${b}`, (pairs.get(`${a},${b}`) ?? 0) + 1)
      // Weight 0 is a candidate of last resort.
      if (last !== 3) assert.fail(`draw ${n}: ${String(last)} is last`)
    }
    // Five standard deviations.
    const likely = (share: number, count = 0) =>
      assert.isBelow(Math.abs(count / draws - share), 5 * Math.sqrt((share * (1 - share)) / draws))
    likely(1 / 8, first.get(0))
    likely(2 / 8, first.get(1))
    likely(5 / 8, first.get(2))
    for (const [a, b] of [
      [0, 1],
      [0, 2],
      [1, 0],
      [1, 2],
      [2, 0],
      [2, 1],
    ] as const) {
      const rest = 8 - weights[a]!
      likely((weights[a]! / 8) * (weights[b]! / rest), pairs.get(`${a},${b}`))
    }
  })

  it("by weight draws nothing for those who are alone in their priority", () => {
    let draws = 0
    const chance = () => {
      draws++
      return 0.3
    }
    const entries = [0, 1, 1, 2].map((priority) => ({ ...effective({ priority }), tally: undefined }))
    inOrder(entries, "weight", { kind: "generate", now: 0, chance, tokens: { input: 0, output: 0 } })
    assert.strictEqual(draws, 2)
  })

  it("by latency tries strangers at once, one question at a time, and the slow again when what is known has faded", () => {
    const decay = 300_000
    const entries = ["fast", "slow", "new"].map((name) => ({ name, ...effective({}), tally: new Tally(decay) }))
    const [fast, slow, fresh] = entries.map(({ tally }) => tally)
    const first = (now: number) =>
      inOrder(entries, "latency", { kind: "generate", now, chance: () => 0, tokens: { input: 0, output: 0 } })[0]!.name
    fast!.answered("generate", 1000, 0)
    slow!.answered("generate", 10_000, 0)
    assert.strictEqual(first(0), "new")
    fresh!.begin(0)
    assert.strictEqual(first(0), "fast")
    fresh!.end()
    fresh!.answered("generate", 20_000, 0)
    // The fast one goes on answering, the slow one fades: ln 10 of the decay later it is tried.
    const again = decay * Math.log(10)
    fast!.answered("generate", 1000, again)
    assert.strictEqual(first(again - 1), "fast")
    assert.strictEqual(first(again + 1), "slow")
    // Ten questions at the fast one are as long as one at the slow one.
    fast!.answered("generate", 1000, 0)
    for (let n = 0; n < 10; n++) fast!.begin(0)
    assert.strictEqual(first(0), "slow")
  })
})

describe("Context windows", () => {
  const windows = (...all: ReadonlyArray<number | undefined>) => all.map((contextWindow) => ({ contextWindow }))
  const may = (all: ReturnType<typeof windows>, input: number, exact: boolean, output = 0) =>
    holding(all, { input, output, exact }).may.map(({ contextWindow }) => contextWindow)

  it("keep a prompt from those that cannot hold it, with the answer that it may have", () => {
    assert.deepStrictEqual(may(windows(1000, 2000, undefined), 1000, true), [1000, 2000, undefined])
    assert.deepStrictEqual(may(windows(1000, 2000, undefined), 1001, true), [2000, undefined])
    assert.deepStrictEqual(may(windows(1000, 2000, undefined), 501, true, 500), [2000, undefined])
    assert.deepStrictEqual(may(windows(1000, 2000, undefined), 9999, true), [undefined])
  })

  it("are not judged by an estimate that may be too high", () => {
    assert.deepStrictEqual(may(windows(1000, 2000), 1500, false), [1000, 2000])
    assert.deepStrictEqual(may(windows(1000, 2000), 1502, false), [2000])
  })

  it("keep it from nobody when none could hold it", () => {
    assert.deepStrictEqual(may(windows(1000, 2000), 9999, true), [1000, 2000])
    assert.deepStrictEqual(may(windows(1000), 9999, true), [1000])
  })
})
