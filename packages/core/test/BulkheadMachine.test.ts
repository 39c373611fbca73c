import { assert, describe, it } from "@effect/vitest"
import { Bulkhead } from "../src/internal/limits/bulkhead.ts"
import { Line, type Waiter } from "../src/internal/limits/line.ts"
import { type Flaw, Model } from "./Bulkhead.model.ts"
import { agree, deep, type Game, tellsApart } from "./Sequences.ts"
import type { Random } from "./stub.ts"

interface Setup {
  readonly permits: number
  readonly queue: number
}

type Step =
  | { readonly do: "come"; readonly maxWait: number }
  | { readonly do: "end" | "give up"; readonly which: number }
  | { readonly do: "wait"; readonly millis: number }
  | { readonly do: "wait for an end of patience"; readonly off: number }
  | { readonly do: "the overdue give up" }

const anyStep = (r: Random): Step => {
  const dice = r.next()
  if (dice < 0.42) return { do: "come", maxWait: r.pick([1, 50, 500, 5000]) }
  if (dice < 0.66) return { do: "end", which: r.int(0, 1000) }
  if (dice < 0.74) return { do: "give up", which: r.int(0, 1000) }
  if (dice < 0.84) return { do: "wait", millis: r.pick([0, 1, 10, 500]) }
  if (dice < 0.9) return { do: "wait for an end of patience", off: r.pick([-1, 0, 0, 1]) }
  return { do: "the overdue give up" }
}

const game: Game<Setup, Step, Flaw> = {
  make: (r) => ({
    setup: { permits: r.int(1, 5), queue: r.pick([0, 1, 2, 3, 8]) },
    steps: Array.from({ length: r.int(60, 121) }, () => anyStep(r)),
  }),
  play: ({ setup, steps }, flaw) => {
    const permits = new Bulkhead(setup.permits)
    const line = new Line<void>(permits, setup.queue)
    const model = new Model(setup, flaw)
    const reached = new Set<string>()
    const inside: Array<number> = []
    const waiting = new Map<number, Waiter<void>>()
    let now = 1_000_000
    let calls = 0

    const leave = (call: number): void => {
      const waiter = waiting.get(call)
      if (waiter === undefined) {
        inside.splice(inside.indexOf(call), 1)
        permits.give(now)
      } else {
        line.leave(waiter)
        waiting.delete(call)
      }
      line.advance(now)
    }

    const come = (maxWait: number): readonly [string, string] => {
      const call = calls++
      const until = now + maxWait
      const expected = model.come(call, until)
      if (line.tryTake(now)) {
        inside.push(call)
        return ["inside", expected]
      }
      const waiter: Waiter<void> = {
        cost: undefined,
        until,
        serve: () => {
          waiting.delete(call)
          inside.push(call)
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
        case "come":
          came = come(step.maxWait)
          reached.add(came[0])
          break
        case "end": {
          const call = inside[step.which % Math.max(1, inside.length)]
          if (call === undefined) break
          leave(call)
          model.leave(call, now)
          break
        }
        case "give up": {
          const call = [...waiting.keys()][step.which % Math.max(1, waiting.size)]
          if (call === undefined) break
          leave(call)
          model.leave(call, now)
          reached.add("gave up")
          break
        }
        case "wait":
          now += step.millis
          break
        case "wait for an end of patience": {
          const first = Math.min(...[...waiting.values()].map(({ until }) => until))
          if (first !== Infinity) now = Math.max(now, first + step.off)
          break
        }
        case "the overdue give up":
          for (const call of model.overdue(now)) {
            if (!waiting.has(call)) continue
            leave(call)
            model.leave(call, now)
            reached.add("waited in vain")
          }
          break
      }
      if (permits.inUse === setup.permits) reached.add("all permits out")
      const seen = [
        ["the newcomer", ...came],
        ["inside", inside.toSorted((a, b) => a - b).join(), model.inside.join()],
        ["waiting", [...waiting.keys()].join(), model.waiting.join()],
        ["permits out", permits.inUse, inside.length],
        ["the length of the line", line.length, model.waiting.length],
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

describe("The machine of a bulkhead", () => {
  it("does what its description says in 10,000 random sequences of overlapping calls", () => {
    const share = agree(game, deep(10_000))
    assert.isAtLeast(share("all permits out"), 0.95)
    assert.isAtLeast(share("waiting"), 0.7)
    assert.isAtLeast(share("turned away"), 0.6)
    assert.isAtLeast(share("served after a wait"), 0.7)
    assert.isAtLeast(share("waited in vain"), 0.5)
    assert.isAtLeast(share("gave up"), 0.6)
  })

  it.each<Flaw>([
    "onePermitTooMany",
    "oneMoreWaits",
    "lastComeFirstServed",
    "servedAtTheEndOfItsTime",
    "newcomersOvertake",
    "leavingTheLineTakesAPermit",
  ])("is told apart from one with the flaw %s", (flaw) => tellsApart(game, flaw))

  it("serves a long line whose members end at once without going deeper for each", () => {
    const permits = new Bulkhead(1)
    const line = new Line<void>(permits, Infinity)
    const served: Array<number> = []
    assert.isTrue(line.tryTake(0))
    for (let call = 0; call < 100_000; call++) {
      line.join({
        cost: undefined,
        until: 1,
        serve: () => {
          served.push(call)
          permits.give(0)
          line.advance(0)
        },
      })
    }
    permits.give(0)
    line.advance(0)
    assert.deepStrictEqual([served.length, served[0], served.at(-1)], [100_000, 0, 99_999])
    assert.deepStrictEqual([permits.inUse, line.length], [0, 0])
  })
})
