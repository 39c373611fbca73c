/**
 * An attempt goes straight through its gate and its retries while all is well,
 * and through its layers otherwise. Nobody can tell the two apart.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Duration, Effect, type Exit, Fiber, Layer, Random, Stream } from "effect"
import {
  Bulkhead,
  Call,
  CircuitBreaker,
  Failover,
  type LlmError,
  PolicyEvent,
  Provider,
  Retry,
  Timeouts,
} from "@understudy/core"
import { wrap } from "../src/internal/provider.ts"
import { listener } from "./PolicyEvent.check.ts"
import { deep } from "./Sequences.ts"
import {
  dies,
  failed,
  fails,
  failure,
  hangs,
  type LM,
  question,
  type Random as Chance,
  random,
  type Reply,
  says,
  stub,
  textOf,
  wait,
} from "./stub.ts"
import { World } from "./World.ts"

type Model<E, R> = Provider.Provider<LM, E, R>

/** A layer that does nothing, and through which nothing goes straight. */
const apart = <E, R>(self: Model<E, R>): Model<E, R> =>
  wrap<LM, E, R, E, R>(self, (run, _record, _kind, now) => run(now))

/** Where the layers are that nothing goes straight through. */
const builds = {
  straight: [],
  "layers around the attempt": ["attempt"],
  "layers around the gates": ["gates"],
  "layers around the retries": ["retries"],
  layers: ["attempt", "gates", "retries"],
} as const
type Build = keyof typeof builds

/** Policies that are there once, or more than once, and one that must look at the clock. */
const shapes = ["once", "two gates", "two retries", "for so long"] as const
type Shape = (typeof shapes)[number]

const guarded = (self: Model<LlmError.ProviderFailure, never>, build: Build, shape: Shape = "once") => {
  const split: ReadonlyArray<string> = builds[build]
  const between = <E, R>(where: string, model: Model<E, R>): Model<E, R> =>
    split.includes(where) ? apart(model) : model
  const attempt = self.pipe(
    Timeouts.with({ attempt: 300 }),
    CircuitBreaker.with({
      failures: 3,
      openFor: 400,
      permits: 2,
      successes: 2,
      excess: { wait: 150, waiters: 2 },
      patience: 100,
    }),
  )
  const gate = Bulkhead.with({ permits: 2, queue: 2, maxWait: 250 })
  const outerGate = Bulkhead.with({ permits: 3, queue: 1, maxWait: 100, key: "outer" })
  const permitted = between("attempt", attempt).pipe(gate)
  const gated = shape === "two gates" ? between("gates", permitted).pipe(outerGate) : permitted
  const retried = between("gates", gated).pipe(
    Retry.with({ times: 2, base: 60, ...(shape === "for so long" ? { maxElapsed: 70 } : {}) }),
  )
  return shape === "two retries" ? between("retries", retried).pipe(Retry.with({ times: 1, base: 10 })) : retried
}

const services = Layer.mergeAll(CircuitBreaker.layer, Bulkhead.layer)

type Reason = LlmError.ProviderFailure

const anyReply = (r: Chance): Reply<Reason> => {
  const after = Math.ceil(r.next() * 200 * 1000) / 1000
  return r.pick<() => Reply<Reason>>([
    () => says("answered", after),
    () => says("at once"),
    () => fails(failure("Overloaded"), after),
    () => fails(failure("ProviderUnavailable")),
    () => fails(failure("RateLimited", "a", { retryAfter: Duration.millis(after) }), after),
    () => fails(failure("ContentFiltered"), after),
    () => hangs,
    () => dies("broken"),
  ])()
}

const how = (exit: Exit.Exit<string, { readonly _tag: string }>): string => {
  if (exit._tag === "Success") return exit.value
  if (Cause.hasInterruptsOnly(exit.cause)) return "left"
  const error = Cause.findErrorOption(exit.cause)
  return error._tag === "None" ? "died" : JSON.stringify(error.value)
}

const permitsOut = Effect.flatMap(Bulkhead.Bulkheads, ({ status }) =>
  Effect.map(status, (all) => all.reduce((sum, { inUse, waiting }) => sum + inUse + waiting, 0)),
)

/** Plays a crowd of overlapping calls, and tells all that can be seen of it. */
const played = (seed: number, build: Build, listening: boolean) => {
  const shape = shapes[seed % shapes.length]!
  const r = random(seed)
  const world = new World(1_000_000_000)
  const context = Effect.runSync(Effect.scoped(Layer.build(Layer.fresh(services))))
  const time = (longest: number): number => Math.ceil(r.next() * longest * 1000) / 1000
  const a = stub<Reason>("a", (attempt) => anyReply(random(seed * 1000 + attempt)))
  const model = guarded(a.provider, build, shape)
  const { effect, events } = listener()
  const fates: Array<string> = []
  const reached = new Set<string>()
  const call = (index: number) => {
    const [comes, leaves, deadline] = [time(700), r.chance(0.2) ? time(500) : undefined, time(900)]
    const asked = Effect.map(model.generate(question), textOf)
    const bounded = r.chance(0.25) ? Call.withDeadline(deadline)(asked) : asked
    const seen = Effect.onExit(listening ? effect(bounded) : bounded, (exit) =>
      Effect.clockWith((clock) =>
        Effect.sync(() => {
          const said = how(exit)
          reached.add(/"_tag":"(\w+)"/.exec(said)?.[1] ?? said)
          fates.push(`${index} ${clock.currentTimeMillisUnsafe()} ${said}`)
        }),
      ),
    )
    const gone = Effect.timeoutOption(seen, leaves ?? 1_000_000)
    return Effect.andThen(wait(comes), Effect.exit(gone)).pipe(Random.withSeed(seed + index))
  }
  const run = <A, E>(self: Effect.Effect<A, E, CircuitBreaker.Circuits | Bulkhead.Bulkheads>) =>
    Effect.runForkWith(context)(Effect.provideService(self, Clock.Clock, world.clock), { scheduler: world })
  for (let index = 0; index < 14; index++) run(call(index))
  while (world.turn());
  const left = run(
    Effect.gen(function* () {
      return JSON.stringify([yield* (yield* CircuitBreaker.Circuits).status, yield* (yield* Bulkhead.Bulkheads).status])
    }),
  )
  while (world.turn());
  return {
    seen: { fates, asked: a.asked, left: left.pollUnsafe() },
    events,
    reached,
    held: a.running() + world.asleep + Effect.runSync(Effect.provideContext(permitsOut, context)),
  }
}

describe("An attempt", () => {
  it("does the same, straight or in layers, whoever listens", () => {
    const goesStraight = Symbol.for("@understudy/core/Provider/straight")
    const one = stub("a", () => says("answered")).provider
    assert.deepStrictEqual(
      [goesStraight in guarded(one, "straight"), goesStraight in guarded(one, "layers around the attempt")],
      [true, false],
    )
    const all = new Map<string, number>()
    const sequences = deep(300)
    for (let seed = 0; seed < sequences; seed++) {
      const straight = played(seed, "straight", false)
      assert.strictEqual(straight.held, 0, `seed ${seed}`)
      for (const name of straight.reached) all.set(name, (all.get(name) ?? 0) + 1)
      const heard = played(seed, "straight", true)
      assert.deepStrictEqual(heard.seen, straight.seen, `seed ${seed}, with a listener`)
      for (const build of Object.keys(builds) as ReadonlyArray<Build>) {
        assert.deepStrictEqual(played(seed, build, false).seen, straight.seen, `seed ${seed}, ${build}`)
        assert.deepStrictEqual(played(seed, build, true).events, heard.events, `seed ${seed}, ${build}`)
      }
    }
    const reached = Object.fromEntries(all)
    for (const name of [
      "answered",
      "at once",
      "left",
      "died",
      "TimedOut",
      "CircuitOpen",
      "CapacityExceeded",
      "DeadlineExceeded",
      "ContentFiltered",
    ]) {
      assert.isAbove(reached[name] ?? 0, sequences / 10, name)
    }
  })

  it.effect("is not made when no time is left", () =>
    Effect.gen(function* () {
      const a = stub<Reason>("a", () => says("answered"))
      const exit = yield* Effect.exit(Call.withDeadline(0)(guarded(a.provider, "straight").generate(question)))
      assert.deepStrictEqual([failed(exit)._tag, a.asked], ["DeadlineExceeded", []])
    }).pipe(Effect.provide(services)),
  )

  it.effect("is not made when the time is over since it was asked for", () =>
    Effect.gen(function* () {
      let now = 0
      const clock = { ...(yield* Clock.Clock), monotonicTimeNanosUnsafe: () => BigInt(now) * 1_000_000n }
      const busy = PolicyEvent.observe((event) => {
        if (event.event === "CallStarted") now += 150
      })
      for (const deadline of [100, 200]) {
        const a = stub<Reason>("a", () => hangs)
        const asked = Call.withDeadline(deadline)(guarded(a.provider, "straight").generate(question))
        const events = listener()
        const fiber = yield* Effect.forkChild(Effect.provideService(events.effect(asked), Clock.Clock, clock))
        const late = yield* Effect.forkChild(Effect.provideService(busy(asked), Clock.Clock, clock))
        yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
        yield* Fiber.interrupt(late)
        assert.strictEqual(a.asked.length, deadline === 100 ? 1 : 2)
      }
    }).pipe(Effect.provide(services)),
  )

  it.effect("takes nothing before it knows its clock", () =>
    Effect.gen(function* () {
      const a = stub<Reason>("a", () => says("answered"))
      const never = { timeouts: { attempt: "1e3 millis" as const } }
      const asked = guarded(a.provider, "straight").generate(question)
      const exit = yield* Effect.exit(Effect.provideService(asked, Call.CurrentOverrides, never))
      assert.isTrue(exit._tag === "Failure" && Cause.hasDies(exit.cause))
      assert.strictEqual(yield* permitsOut, 0)
      assert.throws(() => Call.withTimeouts({ attempt: "1e3 millis" })(asked), /withTimeouts.*attempt/s)
      assert.throws(() => Call.stream({ timeouts: { idle: -1 } })(Stream.empty), /Call\.stream\.timeouts.*idle/s)
    }).pipe(Effect.provide(services)),
  )

  it.effect("keeps nothing when another candidate cannot be looked at", () =>
    Effect.gen(function* () {
      const a = stub<Reason>("a", () => says("answered")).provider
      let broken = false
      const other = Provider.delegate(() => {
        if (broken) throw new Error("no such candidate")
        return stub("b", () => says("b")).provider
      })
      const both = Failover.make([guarded(a, "straight"), other]).pipe(Timeouts.deadline())
      broken = true
      const exit = yield* Effect.exit(both.generate(question))
      assert.isTrue(exit._tag === "Failure" && Cause.hasDies(exit.cause))
      assert.strictEqual(yield* permitsOut, 0)
    }).pipe(Effect.provide(services)),
  )
})
