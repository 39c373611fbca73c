import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Fiber, Random } from "effect"
import { type LlmError, PolicyEvent, Understudy } from "@understudy/core"
import { ask, fails, failure, hangs, kinds, play, type Reply, says, seconds, stub, wait } from "./stub.ts"

/** How a primary can be dead. */
const deaths: ReadonlyArray<readonly [string, Reply<LlmError.LlmError>]> = [
  ["401 AuthenticationFailed", fails(failure("AuthenticationFailed", "primary", { status: 401 }), 50)],
  ["404 ModelNotFound", fails(failure("ModelNotFound", "primary", { status: 404 }), 50)],
  ["429 RateLimited for 60 s", fails(failure("RateLimited", "primary", { status: 429, retryAfter: seconds(60) }), 50)],
  ["500 ProviderUnavailable", fails(failure("ProviderUnavailable", "primary", { status: 500 }), 50)],
  ["HTML under 200", fails(failure("InvalidResponse", "primary", { status: 200 }), 50)],
  ["it hangs", hangs],
]

/** Makes calls, so many so far apart, to a dead primary and a healthy backup with default options. */
const calls = (death: Reply<LlmError.LlmError>, count: number, every: number) =>
  Effect.gen(function* () {
    const primary = stub<LlmError.LlmError>("primary", () => death)
    const backup = stub("backup", () => says("the backup's", 300))
    const provider = Understudy.make({ candidates: [{ provider: primary.provider }, { provider: backup.provider }] })
    let tripped = false
    const attempts = { beforeTrip: 0, toPrimary: 0, toBackup: 0 }
    const tell = (event: PolicyEvent.PolicyEvent) => {
      if (event.event === "CircuitOpened" && event.provider === "primary") tripped = true
      if (event.event !== "AttemptStarted") return
      if (event.provider === "backup") attempts.toBackup += tripped ? 1 : 0
      else attempts[tripped ? "toPrimary" : "beforeTrip"]++
    }
    let longest = 0
    const one = (index: number) =>
      Effect.gen(function* () {
        const begin = yield* Clock.currentTimeMillis
        const exit = yield* Effect.exit(ask(kinds[index % 2]!, provider))
        longest = Math.max(longest, (yield* Clock.currentTimeMillis) - begin)
        return Exit.isSuccess(exit) && exit.value === "the backup's"
      })
    const all = Effect.gen(function* () {
      const fibers: Array<Fiber.Fiber<boolean>> = []
      for (let index = 0; index < count; index++) {
        fibers.push(yield* Effect.forkChild(one(index)))
        if (every > 0) yield* wait(every)
      }
      return (yield* Effect.forEach(fibers, Fiber.join)).filter(Boolean).length
    })
    const { exit, timers } = yield* play(all.pipe(PolicyEvent.observe(tell), Random.withSeed(1)))
    assert.strictEqual(timers, 0)
    return { answered: Exit.isSuccess(exit) ? exit.value : 0, tripped, ...attempts, longest }
  }).pipe(Effect.provide(Understudy.layer))

const check = (name: string, count: number, every: number, death: Reply<LlmError.LlmError>) =>
  Effect.gen(function* () {
    const { answered, beforeTrip, longest, toBackup, toPrimary, tripped } = yield* calls(death, count, every)
    const afterTrip = toPrimary + toBackup
    const rhythm = every === 0 ? "at once" : `one every ${every} ms`
    process.stdout.write(
      `dead primary, ${name}, ${count} calls ${rhythm}: ${((100 * answered) / count).toFixed(2)} % answered by the backup; ` +
        `tripped after ${beforeTrip} attempts, then ${toPrimary} of ${afterTrip} attempts (${((100 * toPrimary) / afterTrip).toFixed(2)} %) ` +
        `to the primary; the longest call took ${(longest / 1000).toFixed(1)} s\n`,
    )
    assert.isAtLeast(answered, count * 0.999)
    assert.isTrue(tripped)
    assert.isAbove(afterTrip, count / 2)
    assert.isAtMost(toPrimary, afterTrip * 0.01)
  })

describe("A dead primary never costs a healthy backup's answer", () => {
  it.effect.each(deaths)("to 2,000 overlapping calls, one every 100 ms: %s", ([name, death]) =>
    check(name, 2000, 100, death),
  )

  it.effect.each(deaths)("to 200 calls at once that find its circuit closed: %s", ([name, death]) =>
    check(name, 200, 0, death),
  )
})
