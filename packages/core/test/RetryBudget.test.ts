import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber, Layer, Random, Stream } from "effect"
import {
  Bulkhead,
  CircuitBreaker,
  Face,
  Failover,
  Hedge,
  PolicyEvent,
  Retry,
  RetryBudget,
  Understudy,
} from "@understudy/core"
import { assertInOrder, listener } from "./PolicyEvent.check.ts"
import { Model } from "./RetryBudget.model.ts"
import { deep } from "./Sequences.ts"
import {
  ask,
  failed,
  fails,
  failure,
  hangs,
  inTurn,
  kinds,
  play,
  random,
  said,
  says,
  seconds,
  settle,
  stub,
  wait,
} from "./stub.ts"
import { World } from "./World.ts"

const layer = Layer.mergeAll(Understudy.layer, RetryBudget.layer, Hedge.layer, Bulkhead.layer)

const leftOf = (key: string) =>
  Effect.flatMap(RetryBudget.Budgets, (budgets) =>
    Effect.map(budgets.status, (all) => all.find((status) => status.key === key)?.left),
  )

const overloaded = failure("Overloaded")

describe("RetryBudget", () => {
  it("grants and refuses what its description says, in 1,000 crowds that retry, hedge and leave", () => {
    const sequences = deep(1000)
    const reached = new Map<string, number>()
    for (let seed = 0; seed < sequences; seed++) {
      const r = random(seed)
      const numbers = { share: r.pick([0, 0.2, 0.5]), floor: r.pick([0, 0.1, 0.4]) }
      const world = new World(r.pick([2, 3, 10, 2048]))
      const time = (longest: number): number => Math.ceil(r.next() * longest * 1000) / 1000
      const model = new Model({ ...numbers, window: 10_000 })
      const draws = new Map<string, number>()
      const seen = new Set<string>()
      const wrong: Array<string> = []
      const expect = (granted: boolean, at: number, event: PolicyEvent.PolicyEvent) => {
        if (model.take(at) !== granted) wrong.push(`${at} ${PolicyEvent.describe(event)}`)
        seen.add(granted ? "granted" : "refused")
        if (granted) draws.set(event.call, at)
      }
      const hear = (event: PolicyEvent.PolicyEvent): void => {
        const at = world.clock.currentTimeMillisUnsafe()
        switch (event.event) {
          case "CallStarted":
            return model.deposit(at)
          case "BackedOff":
          case "HedgeLaunched":
            return expect(true, at, event)
          case "BudgetRefused":
            return expect(false, at, event)
          // What was drawn for it was used.
          case "AttemptStarted":
            return void draws.delete(event.call)
          case "CallInterrupted": {
            const drawn = draws.get(event.call)
            if (drawn === undefined) return
            model.give(drawn, at)
            seen.add("given back")
          }
        }
      }
      const a = stub("a", () => (r.chance(0.6) ? fails(overloaded, time(2000)) : says("a", time(2000))))
      const guarded = a.provider.pipe(
        Hedge.with({ delay: time(3000) }),
        Retry.with({ base: time(3000), times: 3 }),
        RetryBudget.with({ key: "shared", ...numbers }),
      )
      const calls = Array.from({ length: 12 }, () => {
        const call = PolicyEvent.observe(hear)(ask(r.pick(kinds), guarded))
        const bounded = r.chance(0.3) ? Effect.asVoid(Effect.timeoutOption(call, time(4000))) : Effect.asVoid(call)
        return Effect.delay(Effect.exit(bounded), time(15_000))
      })
      const all = Effect.gen(function* () {
        yield* Effect.all(calls, { concurrency: "unbounded" })
        const now = world.clock.currentTimeMillisUnsafe()
        if ((yield* leftOf("shared")) !== model.left(now)) wrong.push(`${now}: another sum`)
      })
      const fiber = Effect.runFork(
        all.pipe(
          Effect.provideService(Clock.Clock, world.clock),
          Effect.provide(Layer.fresh(Layer.merge(Hedge.layer, RetryBudget.layer))),
          Random.withSeed(seed),
        ),
        { scheduler: world },
      )
      while (world.turn());
      assert.strictEqual(fiber.pollUnsafe()?._tag, "Success", `seed ${seed}`)
      assert.deepStrictEqual(wrong, [], `seed ${seed}`)
      assert.strictEqual(world.asleep + a.running(), 0)
      for (const state of seen) reached.set(state, (reached.get(state) ?? 0) + 1)
    }
    const share = (state: string) => (reached.get(state) ?? 0) / sequences
    assert.isAtLeast(share("granted"), 0.7)
    assert.isAtLeast(share("refused"), 0.7)
    assert.isAtLeast(share("given back"), 0.1)
  })

  it.effect("by default adds a fifth to the attempts, and ten a second, while a provider is down", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(overloaded))
      const guarded = a.provider.pipe(Retry.with({ times: 2, base: 1 }), RetryBudget.with())
      const calls = 2000
      yield* play(
        Effect.all(
          Array.from({ length: calls }, () => Effect.exit(ask("generate", guarded))),
          { concurrency: 9 },
        ),
      )
      const extra = a.asked.length - calls
      assert.isAtMost(extra, calls * 0.2 + 100)
      assert.isAtLeast(extra, calls * 0.2 + 90)
      // Without it, it would have been asked three times as often.
      const b = stub("b", () => fails(overloaded))
      yield* play(Effect.exit(ask("generate", b.provider.pipe(Retry.with({ times: 2, base: 1 })))))
      assert.strictEqual(b.asked.length, 3)
    }).pipe(Effect.provide(layer)),
  )

  it.effect("ends with the original failure, at once, and says so", () =>
    Effect.gen(function* () {
      for (const kind of kinds) {
        const { effect, events } = listener()
        const a = stub("a", () => fails(overloaded, 10))
        const guarded = a.provider.pipe(Retry.with(), RetryBudget.with({ share: 0, floor: 0 }))
        const { exit, millis } = yield* play(effect(ask(kind, guarded)))
        assert.strictEqual(failed(exit), overloaded)
        assert.deepStrictEqual([millis, a.asked.length], [10, 1])
        assertInOrder(events)
        const refused = events.filter((event) => event.event === "BudgetRefused")
        assert.deepStrictEqual(
          refused.map((event) => event.event === "BudgetRefused" && [event.provider, event.extra, event.failure]),
          [["a", "retry", "Overloaded"]],
        )
      }
    }).pipe(Effect.provide(layer)),
  )

  it.effect("never costs a first attempt at another candidate", () =>
    Effect.gen(function* () {
      const none = RetryBudget.with({ share: 0, floor: 0, key: "all" })
      const a = stub("a", () => fails(overloaded))
      const b = stub("b", () => fails(failure("QuotaExhausted", "b")))
      const c = stub("c", () => says("c"))
      const candidates = [a, b, c].map((one) => one.provider.pipe(Retry.with(), none))
      const model = Failover.make(candidates as [(typeof candidates)[0], ...typeof candidates]).pipe(none)
      for (const kind of kinds) assert.strictEqual(said((yield* play(ask(kind, model))).exit), "c")
      assert.deepStrictEqual(
        [a, b, c].map(({ asked }) => asked.length),
        [2, 2, 2],
      )
    }).pipe(Effect.provide(layer)),
  )

  it.effect("takes a draw back for a backoff that its caller left, or that another candidate made needless", () =>
    Effect.gen(function* () {
      const budget = RetryBudget.with({ share: 0, floor: 0.1, key: "k" })
      const busy = fails(failure("RateLimited", "a", { retryAfter: seconds(9) }))
      const a = stub("a", inTurn(busy, busy, says("a")))
      const guarded = a.provider.pipe(Retry.with({ base: 9000 }), budget)
      const fiber = yield* Effect.forkChild(ask("generate", guarded))
      yield* settle
      assert.strictEqual(yield* leftOf("k"), 0)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(yield* leftOf("k"), 1)

      const b = stub("b", inTurn(fails(failure("ModelNotFound", "b")), says("b")))
      const second = b.provider.pipe(CircuitBreaker.with({ openFor: 5000 }))
      yield* Effect.exit(ask("generate", second))
      const { exit } = yield* play(ask("generate", Failover.make([guarded, second])))
      assert.strictEqual(said(exit), "b")
      assert.strictEqual(yield* leftOf("k"), 1)
    }).pipe(Effect.provide(layer)),
  )

  it.effect("counts nothing that did not reach the provider", () =>
    Effect.gen(function* () {
      // An open circuit adds nothing to the budget.
      const a = stub("a", inTurn(fails(failure("ModelNotFound")), says("a")))
      const broken = a.provider.pipe(
        CircuitBreaker.with({ openFor: "1 hour" }),
        RetryBudget.with({ share: 1, floor: 0 }),
      )
      for (let n = 0; n < 5; n++) yield* play(ask("generate", broken))
      assert.strictEqual(yield* leftOf("a/a-1"), 1)
      // And a second try at a full bulkhead takes nothing from it.
      const b = stub("b", inTurn(hangs, says("b")))
      const full = b.provider.pipe(Bulkhead.with({ permits: 1, queue: 0 }))
      const guarded = full.pipe(
        Retry.with({ times: 5, base: 400, jitter: "none", factor: 1 }),
        RetryBudget.with({ share: 0, floor: 0 }),
      )
      const holder = Effect.timeoutOption(ask("generate", full), 1000)
      const { exit } = yield* play(Effect.all([holder, ask("generate", guarded)], { concurrency: 2 }))
      assert.strictEqual(exit._tag === "Success" && exit.value[1], "b")
    }).pipe(Effect.provide(layer)),
  )

  it.effect("is shared by all that draw on its key, and by compositions that it is put around", () =>
    Effect.gen(function* () {
      const [a, b] = ["a", "b"].map((name) => stub(name, () => fails(failure("Overloaded", name))))
      const retried = [a!, b!].map(({ provider }) => provider.pipe(Retry.with({ times: 2, base: 1, jitter: "none" })))
      const both = Failover.make([retried[0]!, retried[1]!], { maxAttempts: 9 })
      const model = both.pipe(RetryBudget.with({ share: 0, floor: 0.3, key: "both" }))
      yield* play(ask("generate", model))
      // Three extra attempts for both: two for the first, and one for the second.
      assert.deepStrictEqual([a!.asked.length, b!.asked.length], [3, 2])
      // The budget of one is not that of another.
      const own = retried[0]!.pipe(RetryBudget.with({ share: 0, floor: 0.1, key: "own" }))
      yield* play(ask("generate", Failover.make([own, retried[1]!], { maxAttempts: 9 })))
      assert.deepStrictEqual([a!.asked.length, b!.asked.length], [5, 5])
    }).pipe(Effect.provide(layer)),
  )

  it.effect("works alone around effects and streams that retry and hedge", () =>
    Effect.gen(function* () {
      let runs = 0
      const work = Effect.suspend(() => {
        runs++
        return Effect.fail(overloaded)
      })
      const retried = Retry.effect(work, { times: 5, base: 1 })
      const options = { key: "work", share: 0, floor: 0.2 }
      const guarded = RetryBudget.effect(retried, options)
      assert.strictEqual(failed((yield* play(guarded)).exit), overloaded)
      assert.strictEqual(runs, 3)
      yield* play(guarded)
      assert.strictEqual(runs, 4)
      const parts = Retry.stream(Stream.fromEffect(work), { times: 5, base: 1, face: Face.plain<number>() })
      yield* play(Effect.exit(Stream.runDrain(RetryBudget.stream(parts, { ...options, key: "parts" }))))
      assert.strictEqual(runs, 7)
      // Those who are not inside have all they want.
      yield* play(Effect.exit(retried))
      assert.strictEqual(runs, 13)
      yield* play(wait(10_000))
      assert.strictEqual(yield* leftOf("work"), 2)
    }).pipe(Effect.provide(layer)),
  )

  it("throws InvalidOptions for numbers that cannot be meant", () => {
    assert.throws(() => RetryBudget.with({ share: -0.1 }), /RetryBudget\.with.*share/s)
    assert.throws(() => RetryBudget.effect(Effect.void, { key: "k", floor: NaN }), /floor/)
  })
})
