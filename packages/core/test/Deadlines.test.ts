import { assert, describe, it, vi } from "@effect/vitest"
import { Timeouts } from "@understudy/core"
import { Effect } from "effect"
import { type Deadline, Deadlines } from "../src/internal/deadlines.ts"
import { random } from "./stub.ts"

/** A platform whose time is moved by hand, with one timer at most, as a process has. */
const platform = () => {
  let now = 0
  let timer: { readonly due: number; readonly fire: () => void; held: boolean } | undefined
  let sets = 0
  const advance = (to: number): void => {
    while (timer !== undefined && timer.due <= to) {
      now = Math.max(now, timer.due)
      const { fire } = timer
      timer = undefined
      fire()
    }
    now = to
  }
  return {
    advance,
    sets: () => sets,
    keepsAlive: () => timer?.held === true,
    is: {
      now: () => now,
      set: (fire: () => void, millis: number) => {
        sets++
        const set = { due: now + millis, fire, held: true }
        timer = set
        return { ref: () => void (set.held = true), unref: () => void (set.held = false) }
      },
      clear: () => {
        timer = undefined
      },
    },
  }
}

describe("Deadlines", () => {
  it("fire in order at their time, and never when they were given up, whatever comes between", () => {
    const { next: chance } = random(7)
    for (let round = 0; round < 300; round++) {
      const world = platform()
      const deadlines = new Deadlines(world.is)
      const fired: Array<number> = []
      const expected: Array<readonly [due: number, id: number]> = []
      const standing = new Map<number, { readonly deadline: Deadline; readonly due: number }>()
      for (let id = 0; id < 60; id++) {
        const what = chance()
        if (what < 0.55) {
          const millis = Math.floor(chance() * 100)
          const now = world.is.now()
          standing.set(id, { deadline: deadlines.add(now, millis, { fire: () => fired.push(id) }), due: now + millis })
        } else if (what < 0.8) {
          const ids = [...standing.keys()]
          const chosen = ids[Math.floor(chance() * ids.length)]
          if (chosen !== undefined) {
            standing.get(chosen)!.deadline.cancel()
            standing.get(chosen)!.deadline.cancel()
            standing.delete(chosen)
          }
        } else {
          const to = world.is.now() + Math.floor(chance() * 40)
          world.advance(to)
          for (const [due, past] of [...standing]
            .filter(([, { due }]) => due <= to)
            .map(([key, { due }]) => [due, key] as const)) {
            expected.push([due, past])
            standing.delete(past)
          }
        }
        assert.deepStrictEqual(
          fired.toSorted((a, b) => a - b),
          expected.map(([, past]) => past).toSorted((a, b) => a - b),
        )
        assert.strictEqual(deadlines.size, standing.size)
        assert.strictEqual(world.keepsAlive(), standing.size > 0)
      }
      const dues = new Map(expected.map(([due, past]) => [past, due]))
      const order = fired.map((past) => dues.get(past)!)
      assert.deepStrictEqual(
        order,
        order.toSorted((a, b) => a - b),
      )
    }
  })

  it("arm one timer for many attempts that end in time", () => {
    const world = platform()
    const deadlines = new Deadlines(world.is)
    for (let i = 0; i < 1_000; i++) {
      deadlines.add(world.is.now(), 30_000, { fire: () => assert.fail("it ended in time") }).cancel()
      world.advance(world.is.now() + 1)
    }
    assert.strictEqual(world.sets(), 1)
  })

  it.live("are those of all attempts on the live clock: they take no timers of their own", () =>
    Effect.gen(function* () {
      const leaf = Effect.promise(async () => 42)
      const asked = Timeouts.effect(leaf, { attempt: "45 seconds" })
      yield* asked
      const set = vi.spyOn(globalThis, "setTimeout")
      for (let n = 0; n < 200; n++) yield* asked
      const timers = set.mock.calls.filter(([, millis]) => Number(millis) > 1_000).length
      set.mockRestore()
      assert.isAtMost(timers, 2)
    }),
  )

  it("wait longer than a platform timer can", () => {
    const world = platform()
    const deadlines = new Deadlines(world.is)
    let fired = false
    deadlines.add(0, 2 ** 32, { fire: () => (fired = true) })
    world.advance(2 ** 32 - 1)
    assert.isFalse(fired)
    world.advance(2 ** 32)
    assert.isTrue(fired)
  })
})
