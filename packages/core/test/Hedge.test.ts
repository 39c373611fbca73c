import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Duration, Effect, Exit, Latch, Layer, Random, Schema, Scope, Stream } from "effect"
import { Tool } from "effect/ai"
import {
  Bulkhead,
  Call,
  CircuitBreaker,
  Face,
  Failover,
  Hedge,
  LanguageModelFace,
  Retry,
  RetryBudget,
  Timeouts,
  Understudy,
} from "@understudy/core"
import { CallRecord, factsOf } from "../src/internal/callRecord.ts"
import { Agenda } from "./Crowd.ts"
import { assertInOrder, faults, listener } from "./PolicyEvent.check.ts"
import { deep } from "./Sequences.ts"
import {
  ask,
  end,
  expectTag,
  failed,
  fails,
  failure,
  Foreign,
  hangs,
  inTurn,
  type Kind,
  kinds,
  openIn,
  play,
  question,
  random,
  type Random as Chance,
  type Reply,
  said,
  say,
  says,
  start,
  streams,
  stub,
  timed,
  wait,
} from "./stub.ts"
import { World } from "./World.ts"

const layer = Layer.mergeAll(Understudy.layer, Hedge.layer, RetryBudget.layer, Bulkhead.layer)

// --- A race, foretold

interface Attempt {
  readonly takes: number
  readonly how: "answers" | "fails" | "dies"
}

interface Scene {
  readonly kind: Kind
  readonly delay: number
  readonly max: number
  readonly attempts: ReadonlyArray<Attempt>
  readonly runsOn: number
  readonly leaves: number | undefined
  readonly deadline: number | undefined
}

const anyScene = (r: Chance): Scene => {
  const time = (longest: number): number => Math.ceil(r.next() * longest * 1000) / 1000
  const max = r.int(1, 5)
  return {
    kind: r.pick(kinds),
    delay: time(3000),
    max,
    attempts: Array.from({ length: max + 1 }, () => ({
      takes: time(10_000),
      how: r.chance(0.6) ? "answers" : r.chance(0.93) ? "fails" : "dies",
    })),
    runsOn: time(3000),
    leaves: r.chance(0.2) ? time(10_000) : undefined,
    deadline: r.chance(0.2) ? time(10_000) : undefined,
  }
}

interface Course {
  readonly how: string
  readonly over: number
  /** When the provider was asked. */
  readonly asked: ReadonlyArray<number>
  readonly told: string
}

/** What must become of a race, by its description. */
const foretold = (scene: Scene): Course & { readonly ambiguous: boolean } => {
  const asked: Array<number> = []
  const running = new Set<number>()
  const told: Array<string> = []
  const agenda = new Agenda<"hedge" | "ends" | "leaves" | "deadline" | "whole">()
  let course: Course | undefined
  let committed = false
  const over = (at: number, how: string): void => {
    course = { how, over: at, asked, told: told.sort().join() }
  }
  const launch = (at: number): void => {
    const number = asked.length
    asked.push(at)
    running.add(number)
    if (number > 0) told.push(`${number} launched`)
    agenda.add(at + scene.attempts[number]!.takes, "ends", number)
    const next = at + scene.delay
    if (number < scene.max && next < (scene.deadline ?? Infinity)) agenda.add(next, "hedge", number + 1)
  }
  const stop = (except?: number): void => {
    for (const number of running) if (number > 0 && number !== except) told.push(`${number} lost`)
    running.clear()
  }
  if (scene.leaves !== undefined) agenda.add(scene.leaves, "leaves", -1)
  if (scene.deadline !== undefined) agenda.add(scene.deadline, "deadline", -1)
  launch(0)
  const matters = (what: string, number: number): boolean =>
    course === undefined &&
    (what === "ends" ? running.has(number) : what === "hedge" ? running.size > 0 && !committed : true)
  for (let next = agenda.next(matters); next !== undefined; next = agenda.next(matters)) {
    const { at, call: number, what } = next
    switch (what) {
      case "hedge":
        launch(at)
        break
      case "ends": {
        const { how } = scene.attempts[number]!
        if (how === "answers") {
          stop(number)
          if (number > 0) told.push(`${number} won`)
          if (scene.kind === "generate") over(at, "answered")
          else {
            committed = true
            agenda.add(at + scene.runsOn, "whole", number)
          }
        } else if (how === "dies") {
          stop()
          over(at, "died")
        } else {
          running.delete(number)
          if (number > 0) told.push(`${number} lost`)
          if (running.size === 0) over(at, "Overloaded")
        }
        break
      }
      case "whole":
        over(at, "answered")
        break
      case "leaves":
        stop()
        over(at, "left")
        break
      case "deadline":
        stop()
        over(at, committed ? "StreamInterrupted" : "DeadlineExceeded")
        break
    }
  }
  return { ...course!, ambiguous: agenda.ambiguous }
}

const replyOf = (scene: Scene, { how, takes }: Attempt): Reply<ReturnType<typeof failure>> => {
  const bug = Effect.delay(Effect.die("a bug"), takes)
  switch (how) {
    case "answers":
      return {
        whole: Effect.as(wait(takes), [{ type: "text", text: "answered" }, end]),
        parts: Stream.concat(
          Stream.fromEffect(Effect.as(wait(takes), say("answered"))),
          Stream.fromEffect(Effect.as(wait(scene.runsOn), end)),
        ),
      }
    case "fails":
      return fails(failure("Overloaded"), takes)
    case "dies":
      return { whole: bug, parts: Stream.fromEffect(bug) }
  }
}

/** What really becomes of it, where fibers give way after so many operations each. */
const played = (scene: Scene, operations: number) => {
  const world = new World(operations)
  const now = () => world.clock.currentTimeMillisUnsafe()
  const { effect, events } = listener()
  const a = stub("a", (n) => replyOf(scene, scene.attempts[n - 1]!))
  const hedged = a.provider.pipe(Hedge.with({ delay: scene.delay, max: scene.max }))
  let runningAtContent = 0
  const answer: Effect.Effect<unknown, { readonly _tag: string }, Hedge.Latencies> =
    scene.kind === "generate"
      ? Effect.tap(hedged.generate(question), () => Effect.sync(() => (runningAtContent = a.running())))
      : Stream.runForEach(hedged.stream(question), () =>
          Effect.sync(() => (runningAtContent = Math.max(runningAtContent, a.running()))),
        )
  const bounded = scene.deadline === undefined ? answer : Call.withDeadline(scene.deadline)(answer)
  const left =
    scene.leaves === undefined
      ? Effect.as(bounded, "answered")
      : Effect.raceFirst(Effect.as(bounded, "answered"), Effect.as(wait(scene.leaves), "left"))
  let over = -1
  const fiber = Effect.runFork(
    effect(left).pipe(
      Effect.onExit(() => Effect.sync(() => (over = now()))),
      Effect.provideService(Clock.Clock, world.clock),
      Effect.provide(Layer.fresh(Hedge.layer)),
      Random.withSeed(1),
    ),
    { scheduler: world },
  )
  while (world.turn());
  const exit = fiber.pollUnsafe()!
  const error = exit._tag === "Success" ? undefined : Cause.findErrorOption(exit.cause)
  const told = events.flatMap((event) =>
    event.event === "HedgeLaunched"
      ? [`${event.hedge} launched`]
      : event.event === "HedgeWon"
        ? [`${event.hedge} won`]
        : event.event === "HedgeLost"
          ? [`${event.hedge} lost`]
          : [],
  )
  const course: Course = {
    how: exit._tag === "Success" ? exit.value : error?._tag === "Some" ? error.value._tag : "died",
    over,
    asked: a.asked,
    told: told.sort().join(),
  }
  return { course, faults: faults(events), runningAtContent, left: world.asleep + a.running() }
}

const round = ({ asked, over, ...rest }: Course) => ({
  ...rest,
  over: Math.round(over * 10) / 10,
  asked: asked.map((at) => Math.round(at * 10) / 10),
})

describe("Hedge", () => {
  it("takes the course that its description foretells, in 1,000 races", () => {
    const sequences = deep(1000)
    const reached = new Map<string, number>()
    let seed = 0
    for (let n = 0; n < sequences; seed++) {
      const r = random(seed)
      const scene = anyScene(r)
      const { ambiguous, ...expected } = foretold(scene)
      if (ambiguous) continue
      n++
      const { course, faults, left, runningAtContent } = played(scene, r.pick([2, 3, 10, 2048]))
      assert.deepStrictEqual(round(course), round(expected), `seed ${seed} ${JSON.stringify(scene)}`)
      assert.deepStrictEqual({ faults, left }, { faults: [], left: 0 }, `seed ${seed}`)
      // When the answer is there, the losers are closed: an answer has left its attempt, too.
      if (course.how === "answered") assert.strictEqual(runningAtContent, scene.kind === "generate" ? 0 : 1)
      for (const state of [
        course.how,
        ...(course.told.includes("won") ? ["a hedge won"] : []),
        ...(course.told.includes("lost") ? ["a hedge lost"] : []),
        ...(course.asked.length > 2 ? ["two hedges"] : []),
      ]) {
        reached.set(state, (reached.get(state) ?? 0) + 1)
      }
    }
    const share = (state: string) => (reached.get(state) ?? 0) / sequences
    assert.isAtLeast(share("answered"), 0.5)
    assert.isAtLeast(share("a hedge won"), 0.25)
    assert.isAtLeast(share("a hedge lost"), 0.5)
    assert.isAtLeast(share("two hedges"), 0.3)
    assert.isAtLeast(share("Overloaded"), 0.05)
    assert.isAtLeast(share("left"), 0.05)
    assert.isAtLeast(share("DeadlineExceeded"), 0.04)
    assert.isAtLeast(share("died"), 0.02)
    assert.isAtMost(seed, sequences * 1.05)
  })

  it("closes a stream that had its first content at the same moment, before the winner's is seen", () => {
    let both = 0
    for (let operations = 2; operations < 40; operations++) {
      const world = new World(operations)
      const { effect, events } = listener()
      const latch = Latch.makeUnsafe()
      const open = streams(Stream.concat(Stream.fromEffect(Effect.as(latch.await, say("open"))), Stream.never))
      const a = stub("a", () => open)
      const hedged = a.provider.pipe(Bulkhead.with({ permits: 9 }), Retry.with(), Hedge.with({ delay: 100, max: 4 }))
      let running = -1
      const reading = Stream.runForEach(Stream.take(hedged.stream(question), 1), () =>
        Effect.sync(() => (running = a.running())),
      )
      const fiber = Effect.runFork(
        Effect.all([effect(reading), Effect.delay(latch.open, 1000)], { concurrency: 2 }).pipe(
          Effect.provideService(Clock.Clock, world.clock),
          Effect.provide(Layer.fresh(layer)),
          Random.withSeed(1),
        ),
        { scheduler: world },
      )
      while (world.turn());
      assert.strictEqual(fiber.pollUnsafe()?._tag, "Success")
      assert.deepStrictEqual([running, a.running(), faults(events)], [1, 0, []], `${operations} operations each`)
      if (events.filter((event) => event.event === "Committed").length > 1) both++
    }
    assert.isAbove(both, 0)
  })

  it.effect("gives each attempt a record of its own, which numbers its attempts with the others", () =>
    Effect.withFiber((fiber) => {
      const record = new CallRecord(factsOf(fiber.context), "all")
      record.attempts = 1
      record.floor = "a"
      record.patience = 7
      const [one, two] = [record.fork(), record.fork()]
      one!.attempts++
      two!.attempts++
      one!.attempts++
      assert.deepStrictEqual([record.attempts, one!.attempts, two!.attempts], [4, 4, 4])
      assert.deepStrictEqual([one!.begun, two!.begun], [2, 1])
      // The floor is used once, whoever uses it.
      assert.strictEqual(one!.floor, "a")
      one!.floor = undefined
      assert.strictEqual(two!.floor, undefined)
      one!.patience = 1
      one!.wait("a", 100)
      one!.failures.push(failure("Overloaded"))
      assert.deepStrictEqual(
        [two!.patience, two!.waited("a"), two!.failures.length, record.failures.length],
        [7, 0, 0, 0],
      )
      record.rejoin(one!)
      record.rejoin(two!)
      assert.strictEqual(record.failures.length, 1)
      return Effect.void
    }),
  )

  it.effect("emits nothing of an attempt that lost", () =>
    Effect.gen(function* () {
      const slow = streams(timed([0, start], [900, say("slow")], [2000, say(" and late")], [3000, end]))
      const quick = streams(timed([0, start], [300, say("quick")], [600, say(" and whole")], [900, end]))
      const a = stub("a", inTurn(slow, quick))
      const hedged = a.provider.pipe(Hedge.with({ delay: 500 }))
      const { exit, millis } = yield* play(ask("stream", hedged))
      assert.strictEqual(said(exit), "quick and whole")
      assert.strictEqual(millis, 1400)
    }).pipe(Effect.provide(layer)),
  )

  describe("waits", () => {
    const launchedAfter = (call: Effect.Effect<unknown, unknown, Hedge.Latencies>) =>
      Effect.gen(function* () {
        const { effect, events } = listener()
        yield* play(effect(Effect.timeoutOption(call, "1 minute")))
        const launched = events.find((event) => event.event === "HedgeLaunched")
        return launched?.event === "HedgeLaunched" ? Math.round(launched.elapsedMs) : undefined
      })

    it.effect("10 seconds until 30 latencies are known, and then as long as 95 % of them took", () =>
      Effect.gen(function* () {
        const latencies = Array.from({ length: 30 }, (_, n) => 100 * (n + 1))
        const a = stub("a", (n) => (n <= 29 ? says("a", latencies[n - 1]) : n === 31 ? says("a", 3000) : hangs))
        const hedged = a.provider.pipe(Hedge.with())
        for (let n = 0; n < 29; n++) yield* play(ask("generate", hedged))
        assert.strictEqual(yield* launchedAfter(ask("generate", hedged)), 10_000)
        // The 30th took 13 seconds at least: its hedge answered then.
        const after = yield* launchedAfter(ask("generate", hedged))
        assert.isAtLeast(after!, 2900 * 0.98)
        assert.isAtMost(after!, 2900 * 1.02)
        const [status, ...more] = yield* Effect.flatMap(Hedge.Latencies, (latencies) => latencies.status)
        assert.deepStrictEqual(more, [])
        assert.deepStrictEqual([status?.key, status?.kind, status?.known], ["a/a-1", "generate", 30])
        assert.approximately(Duration.toMillis(status!.median), 1500, 31)
      }).pipe(Effect.provide(layer)),
    )

    it.effect("for answers and for first content as long as each takes", () =>
      Effect.gen(function* () {
        let hung = false
        const well = streams(timed([0, start], [100, say("a")], [5000, end]))
        const a = stub("a", () => (hung ? hangs : well))
        const hedged = a.provider.pipe(Hedge.with({ quantile: 0.5 }))
        for (let n = 0; n < 80; n++) yield* play(ask(n % 2 === 0 ? "generate" : "stream", hedged))
        hung = true
        assert.approximately((yield* launchedAfter(ask("generate", hedged)))!, 5000, 101)
        assert.approximately((yield* launchedAfter(ask("stream", hedged)))!, 100, 3)
      }).pipe(Effect.provide(layer)),
    )

    it.effect("always as long as a delay says, when no quantile is asked for", () =>
      Effect.gen(function* () {
        const a = stub("a", (n) => (n <= 50 ? says("a", 10) : hangs))
        const hedged = a.provider.pipe(Hedge.with({ delay: "3 seconds" }))
        for (let n = 0; n < 50; n++) yield* play(ask("generate", hedged))
        assert.strictEqual(yield* launchedAfter(ask("generate", hedged)), 3000)
      }).pipe(Effect.provide(layer)),
    )
  })

  it("hedges the slowest twentieth, also when its own hedges are the reason why nobody sees how slow they were", () => {
    const r = random(1)
    const world = new World(2048)
    const a = stub("a", () => says("a", 300 + 5000 * r.next() ** 3))
    const hedged = a.provider.pipe(Hedge.with({ quantile: 0.95, delay: "1 minute" }))
    const calls = 4000
    const all = Effect.forEach(Array.from({ length: calls }), () => ask("generate", hedged), { discard: true })
    const fiber = Effect.runFork(
      all.pipe(Effect.provideService(Clock.Clock, world.clock), Effect.provide(Layer.fresh(Hedge.layer))),
      { scheduler: world },
    )
    while (world.turn());
    assert.strictEqual(fiber.pollUnsafe()?._tag, "Success")
    const hedges = a.asked.length - calls
    assert.isAtLeast(hedges / calls, 0.035)
    assert.isAtMost(hedges / calls, 0.065)
  })

  describe("launches no hedge", () => {
    const asked = (provider: ReturnType<typeof stub>["provider"], options: Hedge.Options = {}, request = question) =>
      Effect.exit(provider.pipe(Hedge.with({ delay: 100, ...options })).generate(request))

    it.effect("for a request with tools, unless it is told to", () =>
      Effect.gen(function* () {
        const pay = Tool.make("Pay", { parameters: Schema.Struct({ amount: Schema.Int }) })
        const request = LanguageModelFace.request("Pay", { tools: [pay] })
        const a = stub("a", () => says("paid", 1000))
        yield* play(asked(a.provider, {}, request))
        assert.strictEqual(a.asked.length, 1)
        yield* play(asked(a.provider, { tools: true }, request))
        assert.strictEqual(a.asked.length, 3)
      }).pipe(Effect.provide(layer)),
    )

    it.effect("when an attempt fails before: that is for a retry", () =>
      Effect.gen(function* () {
        const a = stub("a", () => fails(failure("Overloaded"), 99))
        const { exit, millis } = yield* play(asked(a.provider))
        assert.strictEqual(exit._tag === "Success" && expectTag("Overloaded", failed(exit.value))._tag, "Overloaded")
        assert.deepStrictEqual([a.asked.length, millis], [1, 99])
      }).pipe(Effect.provide(layer)),
    )

    it.effect("when the budget refuses it: the first attempt goes on", () =>
      Effect.gen(function* () {
        for (const kind of kinds) {
          const { effect, events, names } = listener()
          const a = stub("a", () => says("late", 5000))
          const hedged = a.provider.pipe(
            Hedge.with({ delay: 100 }),
            RetryBudget.with({ share: 0, floor: 0.1, key: kind }),
          )
          // The first hedge takes what there is in ten seconds.
          yield* play(effect(ask(kind, hedged)))
          const { exit } = yield* play(effect(ask(kind, hedged)))
          assert.strictEqual(said(exit), "late")
          assert.strictEqual(a.asked.length, 3)
          assertInOrder(events)
          assert.strictEqual(names().filter((name) => name === "BudgetRefused").length, 1)
        }
      }).pipe(Effect.provide(layer)),
    )

    it.effect("that would take an attempt which is kept for another candidate", () =>
      Effect.gen(function* () {
        const a = stub("a", () => fails(failure("Overloaded"), 1000))
        const b = stub("b", () => says("b"))
        const both = Failover.make([a.provider.pipe(Hedge.with({ delay: 10, max: 9 })), b.provider], { maxAttempts: 4 })
        const { exit } = yield* play(ask("generate", both))
        assert.strictEqual(said(exit), "b")
        assert.strictEqual(a.asked.length, 3)
      }).pipe(Effect.provide(layer)),
    )

    it.effect("behind the deadline, or past a circuit that lets nobody through", () =>
      Effect.gen(function* () {
        const a = stub("a", () => hangs)
        yield* play(Effect.exit(asked(a.provider).pipe(Call.withDeadline(100))))
        assert.strictEqual(a.asked.length, 1)
        const b = stub("b", inTurn(fails(failure("ModelNotFound", "b")), says("b", 1000)))
        const guarded = b.provider.pipe(CircuitBreaker.with({ openFor: 1000, permits: 1 }))
        yield* play(ask("generate", guarded))
        yield* play(wait(1000))
        const { effect, names } = listener()
        yield* play(effect(ask("generate", guarded.pipe(Hedge.with({ delay: 100, max: 3 })))))
        assert.strictEqual(b.asked.length, 2)
        assert.notInclude(names(), "HedgeLaunched")
      }).pipe(Effect.provide(layer)),
    )
  })

  it.effect("takes a permit for each attempt, and does not wait for one", () =>
    Effect.gen(function* () {
      for (const [permits, asked, lost] of [
        [2, 2, undefined],
        [1, 1, "CapacityExceeded"],
      ] as const) {
        const { effect, events } = listener()
        const a = stub("a", () => says("a", 1000))
        const hedged = a.provider.pipe(
          Bulkhead.with({ permits, key: `${permits}` }),
          Hedge.with({ delay: 100 }),
          RetryBudget.with({ share: 0, floor: 0.1, key: `${permits}` }),
        )
        const { millis } = yield* play(effect(ask("generate", hedged)))
        assert.deepStrictEqual([a.asked.length, millis], [asked, 1000])
        assertInOrder(events)
        const end = events.find((event) => event.event === "HedgeLost")
        assert.strictEqual(end?.event === "HedgeLost" && end.failure, lost)
        // A hedge that was not asked costs nothing.
        const budgets = yield* Effect.flatMap(RetryBudget.Budgets, (budgets) => budgets.status)
        assert.strictEqual(budgets.find(({ key }) => key === `${permits}`)?.left, permits === 1 ? 1 : 0)
      }
    }).pipe(Effect.provide(layer)),
  )

  it.effect("keeps the failures of all attempts, and the clocks of each", () =>
    Effect.gen(function* () {
      const a = stub(
        "a",
        inTurn<ReturnType<typeof failure>>(
          hangs,
          fails(failure("ConnectionFailed"), 50),
          fails(failure("Overloaded"), 20),
        ),
      )
      const model = Failover.make([
        a.provider.pipe(Timeouts.with({ attempt: 1000 }), Hedge.with({ delay: 100, max: 2 })),
      ])
      const { exit, millis } = yield* play(ask("generate", model))
      const all = expectTag("AllProvidersFailed", failed(exit))
      assert.deepStrictEqual(
        all.failures.map(({ _tag }) => _tag),
        ["ConnectionFailed", "Overloaded", "TimedOut"],
      )
      assert.strictEqual(millis, 1000)
    }).pipe(Effect.provide(layer)),
  )

  it.effect("is asked again by a retry outside, with hedges of its own", () =>
    Effect.gen(function* () {
      const { effect, events } = listener()
      const slow = fails(failure("Overloaded"), 200)
      const a = stub("a", inTurn(slow, slow, slow, says("a", 50)))
      const model = a.provider.pipe(Hedge.with({ delay: 100 }), Retry.with({ jitter: "none", base: 1000 }))
      const { exit, millis } = yield* play(effect(ask("stream", model)))
      assert.strictEqual(said(exit), "a")
      assert.strictEqual(millis, 300 + 1000 + 150)
      assertInOrder(events)
    }).pipe(Effect.provide(layer)),
  )

  describe("across candidates", () => {
    const across = (first: Reply<ReturnType<typeof failure>>, second: Reply<ReturnType<typeof failure>>) => {
      const a = stub("a", () => first)
      const b = stub("b", () => second)
      return { a, b, model: Hedge.across([a.provider, b.provider], { delay: 500 }) }
    }

    it.effect("asks the next one beside when the first is slow, and takes the first answer", () =>
      Effect.gen(function* () {
        for (const kind of kinds) {
          const { effect, events } = listener()
          const { a, model } = across(says("a", 2000), says("b", 300))
          const { exit, millis } = yield* play(effect(ask(kind, model)))
          assert.deepStrictEqual([said(exit), millis, a.running()], ["b", 800, 0])
          assertInOrder(events)
          const [last] = events.slice(-1)
          assert.strictEqual(last?.event === "Answered" && last.provider, "b")
        }
      }).pipe(Effect.provide(layer)),
    )

    it.effect("asks the next one at once when the first fails, and draws on no budget for that", () =>
      Effect.gen(function* () {
        const { a, b, model } = across(fails(failure("QuotaExhausted"), 20), says("b", 300))
        const guarded = model.pipe(RetryBudget.with({ share: 0, floor: 0 }))
        const { exit, millis } = yield* play(ask("generate", guarded))
        assert.deepStrictEqual([said(exit), millis], ["b", 320])
        assert.deepStrictEqual([a.asked.length, b.asked.length], [1, 1])
      }).pipe(Effect.provide(layer)),
    )

    it.effect("asks nobody else when that would not help, and ends with the last failure", () =>
      Effect.gen(function* () {
        const refused = across(fails(failure("ContentFiltered")), says("b"))
        assert.strictEqual(said((yield* play(ask("generate", refused.model))).exit), "ContentFiltered")
        assert.strictEqual(refused.b.asked.length, 0)
        const down = across(fails(failure("Overloaded")), fails(failure("QuotaExhausted", "b")))
        const { exit } = yield* play(ask("stream", Failover.make([down.model])))
        const { failures } = expectTag("AllProvidersFailed", failed(exit))
        assert.deepStrictEqual(
          failures.map(({ _tag }) => _tag),
          ["Overloaded", "QuotaExhausted"],
        )
      }).pipe(Effect.provide(layer)),
    )

    it.effect("asks only whom the call allows and a circuit lets through", () =>
      Effect.gen(function* () {
        const { a, b, model } = across(says("a"), says("b"))
        assert.strictEqual(said((yield* play(Call.pin("b")(ask("generate", model)))).exit), "b")
        assert.strictEqual(said((yield* play(Call.exclude("a")(ask("generate", model)))).exit), "b")
        const nobody = Call.exclude("a", "b")(ask("stream", model))
        assert.strictEqual(said((yield* play(nobody)).exit), "AllProvidersFailed")
        assert.deepStrictEqual([a.asked.length, b.asked.length], [0, 2])

        const dead = stub("dead", () => fails(failure("ModelNotFound", "dead"))).provider.pipe(CircuitBreaker.with())
        yield* play(ask("generate", dead))
        const around = Hedge.across([dead, b.provider])
        const { effect, names } = listener()
        assert.strictEqual(said((yield* play(effect(ask("generate", around)))).exit), "b")
        assert.deepStrictEqual(names(), ["CallStarted", "AttemptStarted", "AttemptSucceeded", "Answered"])
      }).pipe(Effect.provide(layer)),
    )

    it("takes each name once", () => {
      const a = stub("a", () => says("a")).provider
      assert.throws(() => Hedge.across([a, a]), /Hedge\.across.*each name once/)
    })
  })

  it.effect("works alone on effects and streams", () =>
    Effect.gen(function* () {
      let runs = 0
      const work = Effect.suspend(() => Effect.as(wait(++runs === 1 ? 5000 : 10), runs))
      const { exit, millis } = yield* play(Hedge.effect(work, { key: "work", delay: 100 }))
      assert.deepStrictEqual([exit, millis], [Exit.succeed(2), 110])
      runs = 0
      const parts = Hedge.stream(Stream.fromEffect(work), { key: "parts", delay: 100, face: Face.plain<number>() })
      assert.deepStrictEqual((yield* play(Stream.runCollect(parts))).exit, Exit.succeed([2]))
      const foreign = new Foreign("theirs")
      assert.strictEqual(failed((yield* play(Hedge.effect(Effect.fail(foreign), { key: "work" }))).exit), foreign)
    }).pipe(Effect.provide(layer)),
  )

  it.effect("keeps the stream of the winner open for as long as its scope", () =>
    Effect.gen(function* () {
      const open = streams(Stream.concat(Stream.make(say("open")), Stream.never))
      const a = stub("a", inTurn(hangs, open))
      const opening = Effect.gen(function* () {
        const { scope } = yield* openIn(a.provider.pipe(Hedge.with({ delay: 100 })))
        assert.strictEqual(a.running(), 1)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(a.running(), 0)
      })
      assert.deepStrictEqual((yield* play(opening)).exit, Exit.void)
    }).pipe(Effect.provide(layer)),
  )

  it.effect("lets a defect end the race: it is a bug, and no hedge hides it", () =>
    Effect.gen(function* () {
      const bug = new Error("a bug")
      const broken = { whole: Effect.delay(Effect.die(bug), 150), parts: Stream.die(bug) }
      const a = stub("a", inTurn(broken, says("a", 1000)))
      const { exit, millis } = yield* play(ask("generate", a.provider.pipe(Hedge.with({ delay: 100 }))))
      assert.isTrue(exit._tag === "Failure" && Cause.squash(exit.cause) === bug)
      assert.deepStrictEqual([millis, a.running()], [150, 0])
    }).pipe(Effect.provide(layer)),
  )

  it.effect("goes on when the last way was run at once, and has failed", () =>
    Effect.gen(function* () {
      const a = stub("a", () => says("a", 10_000))
      const b = stub("b", () => fails(failure("Overloaded", "b"), 50))
      const c = stub("c", () => fails(failure("Overloaded", "c")))
      const model = Hedge.across([a.provider, b.provider, c.provider], { delay: 100 })
      for (const kind of kinds) {
        const { exit, millis } = yield* play(ask(kind, model))
        assert.deepStrictEqual([exit, millis], [Exit.succeed("a"), 10_000])
      }
    }).pipe(Effect.provide(layer)),
  )

  it("throws InvalidOptions for numbers that cannot be meant", () => {
    assert.throws(() => Hedge.with({ delay: -1 }), /Hedge\.with.*delay/s)
    assert.throws(() => Hedge.with({ quantile: 1 }), /quantile/)
    assert.throws(() => Hedge.with({ max: 0 }), /max/)
  })
})
