import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Layer, Scope, Stream } from "effect"
import { Bulkhead, CircuitBreaker, Face, Failover, type LlmError, Retry, Timeouts, Understudy } from "@understudy/core"
import { Agenda, anyPlan, crowd, differences, type Fate, type Plan, stays } from "./Crowd.ts"
import { assertInOrder, listener } from "./PolicyEvent.check.ts"
import { deep } from "./Sequences.ts"
import {
  ask,
  dies,
  end,
  expectTag,
  failed,
  fails,
  failure,
  Foreign,
  hangs,
  inTurn,
  kinds,
  openIn,
  play,
  question,
  random,
  said,
  say,
  says,
  seconds,
  settle,
  streams,
  stub,
  timed,
  wait,
} from "./stub.ts"

const statusOf = (key: string) =>
  Effect.flatMap(Bulkhead.Bulkheads, (bulkheads) =>
    Effect.map(bulkheads.status, (all) => all.find((status) => status.key === key)),
  )

const empty = (key: string) =>
  Effect.map(statusOf(key), (status) => {
    assert.strictEqual(status?.inUse, 0)
    assert.strictEqual(status?.waiting, 0)
  })

/** What must become of a crowd, by the description of a bulkhead. */
const foretold = (
  plans: ReadonlyArray<Plan>,
  numbers: { readonly permits: number; readonly queue: number; readonly maxWait: number },
): { readonly fates: ReadonlyArray<Fate>; readonly reached: ReadonlySet<string> } => {
  const fates: Array<Fate | undefined> = plans.map(() => undefined)
  const asked = new Map<number, number>()
  const inside = new Set<number>()
  const line: Array<number> = []
  const reached = new Set<string>()
  const agenda = new Agenda<"comes" | "is answered" | "has waited" | "leaves" | "is at its deadline">()

  const over = (call: number, at: number, how: string): void => {
    fates[call] = { asked: asked.get(call), over: at, how }
    if (inside.delete(call)) admit(at)
    const place = line.indexOf(call)
    if (place >= 0) line.splice(place, 1)
  }
  const enter = (call: number, at: number): void => {
    inside.add(call)
    asked.set(call, at)
    agenda.add(at + stays(plans[call]!), "is answered", call)
  }
  const admit = (at: number): void => {
    while (inside.size < numbers.permits && line.length > 0) {
      reached.add("served after a wait")
      enter(line.shift()!, at)
    }
  }

  for (const [call, plan] of plans.entries()) {
    agenda.add(plan.comes, "comes", call)
    if (plan.leaves !== undefined) agenda.add(plan.comes + plan.leaves, "leaves", call)
    if (plan.deadline !== undefined) agenda.add(plan.comes + plan.deadline, "is at its deadline", call)
  }
  const matters = (_: string, call: number): boolean => fates[call] === undefined
  for (let next = agenda.next(matters); next !== undefined; next = agenda.next(matters)) {
    const { at, call, what } = next
    const plan = plans[call]!
    switch (what) {
      case "comes":
        if (inside.size < numbers.permits && line.length === 0) {
          enter(call, at)
        } else if (line.length < numbers.queue) {
          line.push(call)
          agenda.add(at + numbers.maxWait, "has waited", call)
        } else {
          reached.add("full")
          over(call, at, "CapacityExceeded")
        }
        break
      case "has waited":
        if (line.includes(call)) {
          reached.add("waited in vain")
          over(call, at, "CapacityExceeded")
        }
        break
      case "is answered":
        over(call, at, plan.fails ? "ProviderUnavailable" : "answered")
        break
      case "leaves":
        reached.add(inside.has(call) ? "left from inside" : "left the line")
        over(call, at, "left")
        break
      case "is at its deadline": {
        const committed = plan.kind !== "generate" && asked.has(call) && at >= asked.get(call)! + plan.takes
        reached.add(inside.has(call) ? "cut at the deadline" : "waited until the deadline")
        over(call, at, committed ? "StreamInterrupted" : "DeadlineExceeded")
        break
      }
    }
  }
  return { fates: fates as ReadonlyArray<Fate>, reached }
}

const layer = Layer.mergeAll(Understudy.layer, Bulkhead.layer)

/** What a call gave, or its failure, and how long it took. */
const clocked = <E extends { readonly _tag: string }, R>(call: Effect.Effect<string, E, R>) =>
  Effect.gen(function* () {
    const now = Effect.clockWith((clock) => clock.currentTimeMillis)
    const begin = yield* now
    const exit = yield* Effect.exit(call)
    return [said(exit), Math.round((yield* now) - begin)] as const
  })

const together = <A, E, R>(...calls: ReadonlyArray<Effect.Effect<A, E, R>>) =>
  Effect.all(calls, { concurrency: "unbounded" })

const succeeded = <A>(exit: Exit.Exit<A, unknown>): A => {
  if (exit._tag === "Failure") throw new Error(`It failed: ${String(exit.cause)}`)
  return exit.value
}

describe("Bulkhead", () => {
  it.effect("gives each of a crowd the fate that its description foretells, in 1,000 crowds", () =>
    Effect.gen(function* () {
      const sequences = deep(1000)
      const reached = new Map<string, number>()
      for (let seed = 0; seed < sequences; seed++) {
        const r = random(seed)
        const numbers = { permits: r.int(1, 5), queue: r.pick([0, 1, 2, 8]), maxWait: r.int(1, 300_000_000) }
        const plans = Array.from({ length: 12 }, () => anyPlan(r))
        const { effect, events } = listener()
        const { fates, left } = yield* crowd(
          plans,
          r.pick([2, 3, 10, 2048]),
          (provider) => provider.pipe(Bulkhead.with({ key: "shared", ...numbers })),
          { around: (index, call) => (index % 4 === 0 ? effect(call) : call) },
        ).pipe(
          Effect.tap(() => empty("shared")),
          Effect.provide(Layer.fresh(Bulkhead.layer)),
        )
        const expected = foretold(plans, numbers)
        assert.strictEqual(differences(fates, expected.fates), "", `seed ${seed}`)
        assert.strictEqual(left, 0)
        assertInOrder(events)
        for (const state of expected.reached) reached.set(state, (reached.get(state) ?? 0) + 1)
      }
      const share = (state: string) => (reached.get(state) ?? 0) / sequences
      assert.isAtLeast(share("served after a wait"), 0.5)
      assert.isAtLeast(share("full"), 0.4)
      assert.isAtLeast(share("waited in vain"), 0.3)
      assert.isAtLeast(share("waited until the deadline"), 0.1)
      assert.isAtLeast(share("cut at the deadline"), 0.4)
      assert.isAtLeast(share("left the line"), 0.1)
      assert.isAtLeast(share("left from inside"), 0.4)
    }),
  )

  it.effect("lets no more in at once than there are permits, and the others in the order in which they came", () =>
    Effect.gen(function* () {
      for (const kind of kinds) {
        const a = stub(kind, (n) => says(`${n}`, 100))
        const guarded = a.provider.pipe(Bulkhead.with({ permits: 2, queue: 4 }))
        const call = Effect.map(Effect.exit(ask(kind, guarded)), said)
        const { exit, millis } = yield* play(
          Effect.all(
            Array.from({ length: 7 }, () => call),
            { concurrency: 7 },
          ),
        )
        assert.deepStrictEqual(exit, Exit.succeed(["1", "2", "3", "4", "5", "6", "CapacityExceeded"]))
        assert.strictEqual(millis, 300)
        yield* empty(`${kind}/${kind}-1`)
      }
    }).pipe(Effect.provide(layer)),
  )

  it.effect("by default lets as many wait as there are permits, for 10 seconds", () =>
    Effect.gen(function* () {
      const a = stub("a", () => says("late", 15_000))
      const call = clocked(ask("generate", a.provider.pipe(Bulkhead.with({ permits: 1 }))))
      const { exit } = yield* play(together(call, call, call))
      assert.deepStrictEqual(succeeded(exit), [
        ["late", 15_000],
        ["CapacityExceeded", 10_000],
        ["CapacityExceeded", 0],
      ])
    }).pipe(Effect.provide(layer)),
  )

  it.effect("says what is the matter, and gives no hint, since nobody knows when an answer will be whole", () =>
    Effect.gen(function* () {
      const a = stub("a", () => hangs)
      const guarded = a.provider.pipe(Bulkhead.with({ permits: 1, queue: 1, maxWait: "1 second" }))
      const first = yield* Effect.forkChild(ask("generate", guarded))
      yield* settle
      const second = yield* Effect.forkChild(play(ask("generate", guarded)))
      yield* settle
      const third = expectTag("CapacityExceeded", failed(yield* Effect.exit(ask("generate", guarded))))
      assert.strictEqual(third.retryAfter, undefined)
      assert.strictEqual(third.retryable, true)
      assert.include(third.message, "The one permit is out, and 1 wait already.")
      yield* play(wait(1000))
      const late = expectTag("CapacityExceeded", failed((yield* Fiber.join(second)).exit))
      assert.include(late.message, "waited as long as it may")
      yield* Fiber.interrupt(first)
      yield* empty("a/a-1")
    }).pipe(Effect.provide(layer)),
  )

  describe("gives a permit back", () => {
    const guard = Bulkhead.with({ permits: 1, queue: 0, key: "k" })

    it.effect("when an attempt fails, dies, or is interrupted", () =>
      Effect.gen(function* () {
        for (const kind of kinds) {
          for (const reply of [fails(failure("Overloaded")), dies(new Error("a bug")), fails(new Foreign("theirs"))]) {
            const a = stub<LlmError.LlmError | Foreign>("a", () => reply)
            yield* play(ask(kind, a.provider.pipe(guard)))
            yield* empty("k")
          }
          const a = stub("a", () => hangs)
          const fiber = yield* Effect.forkChild(ask(kind, a.provider.pipe(guard)))
          yield* settle
          assert.strictEqual((yield* statusOf("k"))?.inUse, 1)
          yield* Fiber.interrupt(fiber)
          yield* empty("k")
        }
      }).pipe(Effect.provide(layer)),
    )

    it.effect("when a stream has ended, and not at its first content", () =>
      Effect.gen(function* () {
        const a = stub("a", () => streams(timed([0, say("one")], [1000, say("two")], [2000, end])))
        const seen: Array<number | undefined> = []
        const reading = a.provider
          .pipe(guard)
          .stream(question)
          .pipe(Stream.runForEach(() => Effect.map(statusOf("k"), (status) => seen.push(status?.inUse))))
        yield* play(reading)
        assert.deepStrictEqual(seen, [1, 1, 0])
        yield* empty("k")
      }).pipe(Effect.provide(layer)),
    )

    it.effect("when a stream is closed before its end, and not before that", () =>
      Effect.gen(function* () {
        const a = stub("a", () => streams(Stream.concat(Stream.make(say("one")), Stream.never)))
        const { scope } = yield* openIn(a.provider.pipe(guard))
        assert.strictEqual((yield* statusOf("k"))?.inUse, 1)
        assert.strictEqual(said(yield* Effect.exit(ask("stream", a.provider.pipe(guard)))), "CapacityExceeded")
        yield* Scope.close(scope, Exit.void)
        yield* empty("k")
      }).pipe(Effect.provide(layer)),
    )
  })

  describe("while another candidate is ready", () => {
    it.effect("waits no longer than the patience, backoffs included", () =>
      Effect.gen(function* () {
        const busy = stub("a", inTurn(fails(failure("Overloaded")), hangs))
        const b = stub("b", () => says("b"))
        const guarded = busy.provider.pipe(Bulkhead.with({ permits: 1 }))
        const provider = Failover.make([
          guarded.pipe(Retry.with({ base: "800 millis", jitter: "none", times: 1 })),
          b.provider,
        ])
        // The second attempt of the first call has the permit, so nobody else gets it.
        const holder = Effect.delay(guarded.generate(question), "400 millis")
        const { exit } = yield* play(Effect.raceFirst(holder, clocked(ask("generate", provider))))
        assert.deepStrictEqual(succeeded(exit), ["b", 2000])
      }).pipe(Effect.provide(layer)),
    )

    it.effect("waits on when the other one is not ready, until it becomes so", () =>
      Effect.gen(function* () {
        const a = stub("a", () => hangs)
        const b = stub("b", inTurn(fails(failure("ModelNotFound", "b")), says("b")))
        const guarded = a.provider.pipe(Bulkhead.with({ permits: 1, maxWait: "10 minutes" }))
        const second = b.provider.pipe(CircuitBreaker.with({ openFor: "1 minute" }))
        yield* Effect.exit(ask("generate", second))
        const holder = yield* Effect.forkChild(ask("generate", guarded))
        yield* settle
        const { exit, millis } = yield* play(ask("generate", Failover.make([guarded, second])))
        assert.strictEqual(said(exit), "b")
        assert.isAtLeast(millis, 60_000)
        assert.isAtMost(millis, 62_000)
        yield* Fiber.interrupt(holder)
      }).pipe(Effect.provide(layer)),
    )
  })

  it.effect("holds no probe slot while it waits", () =>
    Effect.gen(function* () {
      const a = stub("a", inTurn(fails(failure("ModelNotFound")), says("well", 100)))
      const guarded = a.provider.pipe(CircuitBreaker.with({ openFor: 1000 }), Bulkhead.with({ permits: 1, queue: 2 }))
      yield* play(ask("generate", guarded))
      yield* play(wait(1000))
      const three = Effect.gen(function* () {
        const calls = [1, 2, 3].map(() => ask("generate", guarded))
        const fiber = yield* Effect.forkChild(Effect.all(calls, { concurrency: 3 }))
        yield* settle
        assert.deepStrictEqual(yield* statusOf("a/a-1"), { key: "a/a-1", permits: 1, inUse: 1, waiting: 2 })
        assert.strictEqual(a.asked.length, 2)
        return yield* Fiber.join(fiber)
      })
      assert.deepStrictEqual((yield* play(three)).exit, Exit.succeed(["well", "well", "well"]))
      yield* empty("a/a-1")
    }).pipe(Effect.provide(layer)),
  )

  it.effect("is not waited for when the circuit would not let the call through", () =>
    Effect.gen(function* () {
      const a = stub("a", inTurn(hangs, fails(failure("ModelNotFound"))))
      const broken = a.provider.pipe(CircuitBreaker.with({ openFor: "1 minute" }))
      const guarded = broken.pipe(Bulkhead.with({ permits: 1 }))
      const holder = yield* Effect.forkChild(ask("generate", guarded))
      yield* settle
      yield* Effect.exit(ask("generate", broken))
      const { exit, millis } = yield* play(ask("generate", guarded))
      assert.deepStrictEqual(expectTag("CircuitOpen", failed(exit)).retryAfter, seconds(60))
      assert.strictEqual(millis, 0)
      yield* Fiber.interrupt(holder)
      yield* empty("a/a-1")
    }).pipe(Effect.provide(layer)),
  )

  it.effect("says nothing about the provider's health", () =>
    Effect.gen(function* () {
      const a = stub("a", () => hangs)
      const guarded = a.provider.pipe(Bulkhead.with({ permits: 1, queue: 0 }), CircuitBreaker.with({ failures: 1 }))
      const holder = yield* Effect.forkChild(ask("generate", guarded))
      yield* settle
      for (let n = 0; n < 3; n++) {
        assert.strictEqual(said(yield* Effect.exit(ask("stream", guarded))), "CapacityExceeded")
      }
      yield* Fiber.interrupt(holder)
    }).pipe(Effect.provide(layer)),
  )

  it.effect("does not run the clocks of an attempt while a call waits for it", () =>
    Effect.gen(function* () {
      const a = stub("a", () => says("ok", 900))
      const guarded = a.provider.pipe(Timeouts.with({ attempt: "1 second" }), Bulkhead.with({ permits: 1, queue: 9 }))
      const call = ask("generate", guarded)
      const { exit } = yield* play(Effect.all([call, call, call, call], { concurrency: 4 }))
      assert.deepStrictEqual(exit, Exit.succeed(["ok", "ok", "ok", "ok"]))
    }).pipe(Effect.provide(layer)),
  )

  it.effect("may be waited for without end, with no timer", () =>
    Effect.gen(function* () {
      const a = stub("a", inTurn(says("first", 1000), says("second")))
      const guarded = a.provider.pipe(Bulkhead.with({ permits: 1, maxWait: Duration.infinity }))
      const call = ask("generate", guarded)
      const { exit, millis, timers } = yield* play(Effect.all([call, call], { concurrency: 2 }))
      assert.deepStrictEqual(exit, Exit.succeed(["first", "second"]))
      assert.deepStrictEqual([millis, timers], [1000, 0])
    }).pipe(Effect.provide(layer)),
  )

  it.effect("is one for each provider and model, or for each key, in each layer", () =>
    Effect.gen(function* () {
      const [a, b] = ["a", "b"].map((name) => stub(name, () => hangs).provider)
      const one = { permits: 1, queue: 0 }
      const here = yield* Layer.build(Layer.fresh(Bulkhead.layer))
      const there = yield* Layer.build(Layer.fresh(Bulkhead.layer))
      const calls = [
        [a!.pipe(Bulkhead.with(one)), here, "hangs"],
        [a!.pipe(Bulkhead.with(one)), here, "CapacityExceeded"],
        [a!.pipe(Bulkhead.with(one)), there, "hangs"],
        [b!.pipe(Bulkhead.with(one)), here, "hangs"],
        [b!.pipe(Bulkhead.with({ ...one, key: "both" })), here, "hangs"],
        [a!.pipe(Bulkhead.with({ ...one, key: "both" })), here, "CapacityExceeded"],
        // The first numbers of a key are the key's.
        [a!.pipe(Bulkhead.with({ permits: 9, key: "both" })), here, "CapacityExceeded"],
      ] as const
      for (const [index, [provider, context, expected]] of calls.entries()) {
        const fiber = yield* Effect.forkChild(Effect.provideContext(ask("generate", provider), context))
        yield* settle
        const exit = fiber.pollUnsafe()
        assert.strictEqual(exit === undefined ? "hangs" : said(exit), expected, `call ${index}`)
      }
    }),
  )

  it.effect("tells who waits, and who is turned away and why", () =>
    Effect.gen(function* () {
      const { effect, events } = listener()
      const a = stub("a", () => says("ok", 100))
      const guarded = a.provider.pipe(Bulkhead.with({ permits: 1, queue: 2, maxWait: 150 }))
      const call = effect(Effect.exit(ask("generate", guarded)))
      yield* play(Effect.all([call, call, call, call], { concurrency: 4 }))
      assertInOrder(events)
      const told = events.flatMap((event) =>
        event.event === "Queued"
          ? [`waits behind ${event.ahead}`]
          : event.event === "CapacityRejected"
            ? [`${event.limit}: ${event.reason}`]
            : [],
      )
      assert.deepStrictEqual(told, ["waits behind 0", "waits behind 1", "bulkhead: full", "bulkhead: waited"])
    }).pipe(Effect.provide(layer)),
  )

  it.effect("works alone on effects and streams", () =>
    Effect.gen(function* () {
      let running = 0
      let most = 0
      const work = Effect.acquireUseRelease(
        Effect.sync(() => (most = Math.max(most, ++running))),
        () => wait(10),
        () => Effect.sync(() => running--),
      )
      const options = { key: "work", permits: 3, queue: 100 }
      const all = Effect.all(
        Array.from({ length: 12 }, () => Bulkhead.effect(work, options)),
        { concurrency: 12 },
      )
      assert.strictEqual((yield* play(all)).millis, 40)
      assert.strictEqual(most, 3)
      const parts = Stream.fromEffect(work).pipe(Stream.map(() => 1))
      const guarded = Bulkhead.stream(parts, { ...options, face: Face.plain<number>() })
      const streamed = Effect.all(
        Array.from({ length: 6 }, () => Stream.runCollect(guarded)),
        { concurrency: 6 },
      )
      assert.strictEqual((yield* play(streamed)).millis, 20)
      assert.strictEqual(most, 3)
      const foreign = new Foreign("theirs")
      assert.strictEqual(failed((yield* play(Bulkhead.effect(Effect.fail(foreign), options))).exit), foreign)
      yield* empty("work")
    }).pipe(Effect.provide(layer)),
  )

  it("throws InvalidOptions for numbers that cannot be meant", () => {
    assert.throws(() => Bulkhead.with({ permits: 0 }), /Bulkhead\.with.*permits/s)
    assert.throws(() => Bulkhead.with({ permits: 2, queue: -1 }), /queue/)
    assert.throws(() => Bulkhead.with({ permits: 2, maxWait: -1 }), /maxWait/)
  })
})
