import { assert, describe, it } from "@effect/vitest"
import { Budget, type Numbers, refused } from "../src/internal/limits/budget.ts"
import { type Flaw, Model } from "./RetryBudget.model.ts"
import { agree, deep, type Game, tellsApart } from "./Sequences.ts"
import { random, type Random } from "./stub.ts"

type Step =
  | { readonly do: "deposit"; readonly times: number }
  | { readonly do: "take" }
  | { readonly do: "give back"; readonly which: number }
  | { readonly do: "wait"; readonly millis: number }

const anyStep = (r: Random): Step => {
  const dice = r.next()
  if (dice < 0.3) return { do: "deposit", times: r.int(1, 12) }
  if (dice < 0.65) return { do: "take" }
  if (dice < 0.75) return { do: "give back", which: r.int(0, 1000) }
  return { do: "wait", millis: r.pick([0, 1, 99, 100, 101, 999, 1000, 5000, 9000, 10_000, 60_000]) }
}

const game: Game<Numbers, Step, Flaw> = {
  make: (r) => ({
    setup: { share: r.pick([0, 0.1, 0.2, 0.25, 1]), floor: r.pick([0, 0.1, 0.5, 1]), window: r.pick([1000, 10_000]) },
    steps: Array.from({ length: r.int(60, 101) }, () => anyStep(r)),
  }),
  play: ({ setup, steps }, flaw) => {
    const budget = new Budget(setup)
    const model = new Model(setup, flaw)
    const reached = new Set<string>()
    const drawn: Array<{ readonly ticket: number; readonly at: number }> = []
    let now = 0
    for (const [index, step] of steps.entries()) {
      let granted: readonly [boolean, boolean] = [true, true]
      switch (step.do) {
        case "deposit":
          for (let n = 0; n < step.times; n++) budget.deposit(now)
          model.deposit(now, step.times)
          break
        case "take": {
          const ticket = budget.tryTake(now)
          granted = [ticket !== refused, model.take(now)]
          reached.add(granted[0] ? "granted" : "refused")
          if (granted[0] && reached.has("refused")) reached.add("granted again")
          if (granted[0]) drawn.push({ ticket, at: now })
          break
        }
        case "give back": {
          const [back] = drawn.splice(step.which % Math.max(1, drawn.length), 1)
          if (back === undefined) break
          budget.give(back.ticket, now)
          model.give(back.at, now)
          reached.add(now - back.at >= setup.window ? "given back too late" : "given back")
          break
        }
        case "wait":
          now += step.millis
          break
      }
      const seen = [
        ["granted", ...granted],
        ["what is left", budget.left(now), model.left(now)],
      ] as const
      const different = seen.find(([, real, expected]) => real !== expected)
      if (different !== undefined) {
        const [what, real, expected] = different
        return {
          disagreement: `step ${index} ${JSON.stringify(step)} at ${now}: ${what} is ${real}, the model says ${expected}`,
          reached,
        }
      }
    }
    return { disagreement: undefined, reached }
  },
}

describe("The machine of a retry budget", () => {
  it("does what its description says in 10,000 random sequences", () => {
    const share = agree(game, deep(10_000))
    assert.isAtLeast(share("granted"), 0.8)
    assert.isAtLeast(share("refused"), 0.6)
    assert.isAtLeast(share("granted again"), 0.4)
    assert.isAtLeast(share("given back"), 0.6)
    assert.isAtLeast(share("given back too late"), 0.5)
  })

  it.each<Flaw>([
    "neverForgets",
    "forgetsAStepTooEarly",
    "noFloor",
    "oneTooMany",
    "givesBackWhatIsForgotten",
    "refusalsCount",
    "extraAttemptsDeposit",
  ])("is told apart from one with the flaw %s", (flaw) => tellsApart(game, flaw))

  it("allows at most the share and the floor within any ten steps", () => {
    let used = 0
    for (let seed = 0; seed < 150; seed++) {
      const r = random(seed)
      const share = r.pick([0, 0.1, 0.2, 0.5])
      const floor = r.pick([0, 1, 10])
      const budget = new Budget({ share, floor, window: 10_000 })
      const log: Array<{ readonly step: number; readonly extra: boolean }> = []
      for (let now = 0; now < 60_000; now += r.int(1, 400)) {
        const step = Math.floor(now / 1000)
        if (r.chance(0.6)) {
          budget.deposit(now)
          log.push({ step, extra: false })
        } else if (budget.tryTake(now) !== refused) {
          log.push({ step, extra: true })
        }
        const window = log.filter((entry) => entry.step > step - 10)
        const extra = window.filter((entry) => entry.extra).length
        const allowed = share * (window.length - extra) + floor * 10
        // What was drawn on deposits that are forgotten by now was drawn before they were.
        if (log.at(-1)?.extra === true && log.at(-1)?.step === step) assert.isAtMost(extra, allowed + 1e-9)
        if (allowed > 0) used = Math.max(used, extra / allowed)
      }
    }
    assert.isAbove(used, 0.9)
  })

  it("is as if it were new when the window has passed", () => {
    const budget = new Budget({ share: 0.2, floor: 1, window: 10_000 })
    assert.isTrue(budget.idle(0))
    budget.deposit(0)
    assert.isFalse(budget.idle(9999))
    assert.isTrue(budget.idle(10_000))
  })
})
