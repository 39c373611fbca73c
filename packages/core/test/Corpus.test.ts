/**
 * Traces from the suites of other libraries, played on what we offer of the
 * same: bulkheads, hedges, retries, delays, windows, compositions. Those of
 * circuit breakers are played by `understudy breaker replay`.
 *
 * A policy of theirs becomes one of ours, or a reason why there is none:
 *
 * | what | why not |
 * |---|---|
 * | a retry of a returned value | an answer that is no good is a failure here, found by the face or by validation |
 * | a delay that the outcome dictates | a hint never makes a wait shorter than the schedule's own |
 * | a hedge that ends for some values only | the first success wins; what is no success is a failure |
 * | a hedge that a negative delay turns off | it is turned off by leaving it out |
 * | a budget of what is in flight | ours is of what was asked in the last ten seconds |
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Fiber, Layer, Random, Schedule, Schema } from "effect"
import { Bulkhead, CircuitBreaker, Hedge, LlmError, Retry, Timeouts } from "@understudy/core"
import { existsSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { TimeWindow } from "../src/internal/breaker/window.ts"
import { listener } from "./PolicyEvent.check.ts"
import { ask, fails, failure, hangs, play, says, settle, stub, wait } from "./stub.ts"
import { World } from "./World.ts"

const Step = Schema.Struct({
  at_ms: Schema.Finite,
  action: Schema.String,
  call: Schema.optionalKey(Schema.String),
  repeat: Schema.optionalKey(Schema.Int),
  attempt: Schema.optionalKey(Schema.Int),
  attempts: Schema.optionalKey(Schema.Int),
  outcomes: Schema.optionalKey(Schema.Array(Schema.Union([Schema.String, Schema.Finite]))),
  durations_ms: Schema.optionalKey(Schema.Array(Schema.Finite)),
  expect: Schema.Record(Schema.String, Schema.Unknown),
})
interface Step extends Schema.Schema.Type<typeof Step> {}

const Case = Schema.Struct({
  id: Schema.String,
  policy: Schema.Record(Schema.String, Schema.Unknown),
  steps: Schema.Array(Step),
})
interface Case extends Schema.Schema.Type<typeof Case> {}

/** What was seen on ours, under the names that the trace expects something of. */
type Seen = Readonly<Record<string, unknown>>

/** What was seen after each step, or why it is not offered. */
type Played = ReadonlyArray<Seen> | string

// -----------------------------------------------------------------------------
// Policies
// -----------------------------------------------------------------------------

const OfRetry = Schema.Struct({
  kind: Schema.Literal("retry"),
  retryOn: Schema.Union([Schema.Literal("all"), Schema.Array(Schema.Union([Schema.String, Schema.Finite]))]),
  maxRetries: Schema.Union([Schema.Literal("infinite"), Schema.Int]),
  delays: Schema.optionalKey(Schema.Array(Schema.Finite)),
  backoff: Schema.optionalKey(
    Schema.Struct({
      type: Schema.Literals(["exponential", "linear", "constant"]),
      baseMs: Schema.Finite,
      factor: Schema.optionalKey(Schema.Finite),
      maxMs: Schema.optionalKey(Schema.Finite),
    }),
  ),
  delayOverrideMs: Schema.optionalKey(Schema.Union([Schema.Finite, Schema.Null])),
  abortDuringCall: Schema.optionalKey(Schema.Int),
  cancelAtMs: Schema.optionalKey(Schema.Finite),
})
const isRetry = Schema.is(OfRetry)

/** Their errors, as failures of ours that a retry accepts. */
const tags: Readonly<Record<string, "Overloaded" | "RateLimited" | "ConnectionFailed">> = {
  E: "Overloaded",
  A: "RateLimited",
  B: "ConnectionFailed",
}
const nameOf = (tag: string): string => Object.entries(tags).find(([, ours]) => ours === tag)?.[0] ?? tag

/** A delay that grows by its base each time: not one of ours, and so a schedule. */
const linear = (base: number) =>
  Schedule.forever.pipe(Schedule.modifyDelay(({ attempt }) => Effect.succeed(Duration.millis(base * attempt))))

const retryOf = (
  policy: typeof OfRetry.Type,
): Retry.With<"Overloaded" | "RateLimited" | "ConnectionFailed"> | string => {
  const { backoff, delayOverrideMs, delays, maxRetries, retryOn } = policy
  if (retryOn !== "all" && retryOn.some((on) => typeof on === "number" || !(on in tags))) {
    return "a retry of a returned value"
  }
  if (delayOverrideMs !== undefined && delayOverrideMs !== null) return "a delay that the outcome dictates"
  return {
    times: maxRetries === "infinite" ? Number.MAX_SAFE_INTEGER : maxRetries,
    ...(retryOn === "all" ? {} : { on: retryOn.map((on) => tags[on]!) }),
    jitter: "none",
    base: backoff?.baseMs ?? delays?.[0] ?? 0,
    factor: backoff?.type === "constant" ? 1 : (backoff?.factor ?? 2),
    cap: backoff?.maxMs ?? "365 days",
    maxWait: "365 days",
    ...(backoff?.type === "linear" ? { schedule: linear(backoff.baseMs) } : {}),
  }
}

// -----------------------------------------------------------------------------
// Kinds
// -----------------------------------------------------------------------------

const only = (steps: ReadonlyArray<Step>): Step => {
  assert.strictEqual(steps.length, 1)
  return steps[0]!
}

const replyTo = (outcome: string | number | undefined, afterMillis = 0) =>
  typeof outcome === "string" && outcome in tags
    ? fails(failure(tags[outcome]!), afterMillis)
    : says(String(outcome), afterMillis)

const gaps = (asked: ReadonlyArray<number>): ReadonlyArray<number> =>
  asked.slice(1).map((at, index) => Math.round((at - asked[index]!) * 1000) / 1000)

const resultOf = (exit: Exit.Exit<string, { readonly _tag: string }>, retryOn: unknown): string => {
  if (exit._tag === "Success") return exit.value
  const failed = Exit.findErrorOption(exit)
  if (failed._tag === "None") return "cancelled"
  return retryOn === "all" ? "error" : nameOf(failed.value._tag)
}

const retry = (policy: Case["policy"], steps: ReadonlyArray<Step>): Effect.Effect<Played> =>
  Effect.gen(function* () {
    if (!isRetry(policy)) return "another form"
    const options = retryOf(policy)
    if (typeof options === "string") return options
    const { outcomes = [] } = only(steps)
    const { effect, events } = listener()
    const leave = policy.abortDuringCall !== undefined
    const a = stub("a", (n) => (leave ? hangs : replyTo(outcomes[n - 1])))
    const call = effect(ask("generate", a.provider.pipe(Retry.with(options))))
    const { exit } = yield* leave
      ? Effect.gen(function* () {
          const fiber = yield* Effect.forkChild(call)
          yield* settle
          yield* Fiber.interrupt(fiber)
          return { exit: yield* Fiber.await(fiber) }
        })
      : play(
          policy.cancelAtMs === undefined
            ? call
            : Effect.raceFirst(Effect.andThen(wait(policy.cancelAtMs), Effect.interrupt), call),
        )
    const result = resultOf(exit, policy.retryOn)
    return [
      {
        calls: a.asked.length,
        delays: gaps(a.asked),
        // A caller who left has no error: nobody is there to see it.
        result: leave && result === "cancelled" ? "error" : result,
        retryEvents: events.filter((event) => event.event === "BackedOff").map((_, index) => index + 1),
        giveUpEvents: events.filter((event) => event.event === "CallFailed").length,
      },
    ]
  })

const OfDelay = Schema.Struct({
  kind: Schema.Literal("delay"),
  type: Schema.Literals(["exponential", "linear", "constant"]),
  baseMs: Schema.Finite,
  factor: Schema.optionalKey(Schema.Finite),
  maxMs: Schema.optionalKey(Schema.Finite),
  jitter: Schema.Literals(["none", "plus-minus-25%"]),
})
const isDelay = Schema.is(OfDelay)

const delay = (policy: Case["policy"], steps: ReadonlyArray<Step>): Effect.Effect<Played> =>
  Effect.sync(() => {
    if (!isDelay(policy)) return "another form"
    const step = only(steps)
    const expected = step.expect["delays"]
    const times = step.attempts ?? (step.attempt ?? (Array.isArray(expected) ? expected.length - 1 : 0)) + 1
    const around = Schedule.spaced(policy.baseMs).pipe(
      Schedule.modifyDelay(({ duration }) =>
        Effect.map(Random.next, (chance) => Duration.millis(Duration.toMillis(duration) * (0.75 + chance / 2))),
      ),
    )
    const options: Retry.With<"Overloaded"> = {
      times,
      base: policy.baseMs,
      factor: policy.factor ?? 1,
      cap: policy.maxMs ?? "1000 days",
      maxWait: "1000 days",
      jitter: "none",
      ...(policy.type === "linear" ? { schedule: linear(policy.baseMs) } : {}),
      ...(policy.jitter === "none" ? {} : { schedule: around }),
    }
    const world = new World(2048)
    const a = stub("a", () => fails(failure("Overloaded")))
    Effect.runFork(
      ask("generate", a.provider.pipe(Retry.with(options))).pipe(
        Effect.exit,
        Effect.provideService(Clock.Clock, world.clock),
        Random.withSeed(1),
      ),
      { scheduler: world },
    )
    while (world.turn());
    const delays = gaps(a.asked)
    const [min, max] = [Math.min(...delays), Math.max(...delays)]
    return [
      {
        delays,
        delay: delays.at(-1),
        // Bounds are kept, and come near to.
        min: min >= policy.baseMs * 0.75 && min < policy.baseMs * 0.76 ? policy.baseMs * 0.75 : min,
        max: max <= policy.baseMs * 1.25 && max > policy.baseMs * 1.24 ? policy.baseMs * 1.25 : max,
      },
    ]
  })

const OfBulkhead = Schema.Struct({ kind: Schema.Literal("bulkhead"), limit: Schema.Int, queue: Schema.Int })
const isBulkhead = Schema.is(OfBulkhead)

const bulkhead = (policy: Case["policy"], steps: ReadonlyArray<Step>): Effect.Effect<Played> =>
  Effect.gen(function* () {
    if (!isBulkhead(policy)) return "another form"
    const options = { permits: policy.limit, queue: policy.queue, maxWait: "365 days", key: "k" } as const
    const calls = new Map<
      string,
      {
        readonly fiber: Fiber.Fiber<unknown, LlmError.CapacityExceeded | "failed">
        readonly end: (how: Exit.Exit<void, "failed">) => void
        runs: boolean
      }
    >()
    const gone = new Set<string>()
    const states = (): ReadonlyArray<readonly [string, string]> =>
      [...calls].map(([name, { fiber, runs }]) => {
        const exit = fiber.pollUnsafe()
        return [name, exit === undefined ? (runs ? "inside" : "queued") : exit._tag === "Success" ? "done" : "gone"]
      })
    const seen: Array<Seen> = []
    // Nothing happens by itself in these traces, so what time it is does not matter.
    for (const { action, call = "" } of steps) {
      const before = new Map(states())
      if (action === "begin") {
        const ends: Array<(exit: Exit.Exit<void, "failed">) => void> = []
        const inside = Effect.callback<void, "failed">((resume) => {
          calls.get(call)!.runs = true
          ends.push(resume)
        })
        const fiber = yield* Effect.forkChild(Effect.andThen(Effect.yieldNow, Bulkhead.effect(inside, options)))
        calls.set(call, { fiber, end: (how) => ends[0]?.(how), runs: false })
      } else if (action === "abort") {
        yield* Fiber.interrupt(calls.get(call)!.fiber)
        gone.add(call)
      } else {
        calls.get(call)!.end(action === "end-success" ? Exit.void : Exit.fail("failed"))
      }
      yield* settle
      const after = states()
      const now = new Map(after).get(call)
      const failure = calls.get(call)!.fiber.pollUnsafe()
      const error = failure === undefined ? undefined : Exit.findErrorOption(failure)
      const [status] = yield* Effect.flatMap(Bulkhead.Bulkheads, (bulkheads) => bulkheads.status)
      seen.push({
        admit: action === "begin" ? (now === "inside" ? true : now === "queued" ? "queued" : false) : undefined,
        error: error?._tag === "Some" && LlmError.is("CapacityExceeded")(error.value) ? "bulkhead-full" : undefined,
        released: after
          .filter(([name, state]) => state === "inside" && before.get(name) === "queued")
          .map(([name]) => name),
        // Ours are gone at once, and not when their turn would have come.
        cancelled: [...gone],
        freeSlots: options.permits - (status?.inUse ?? 0),
        freeQueue: options.queue - (status?.waiting ?? 0),
      })
    }
    for (const { fiber } of calls.values()) yield* Fiber.interrupt(fiber)
    return seen
  }).pipe(Effect.provide(Layer.fresh(Bulkhead.layer)))

const OfHedge = Schema.Struct({
  kind: Schema.Literal("hedge"),
  delayMs: Schema.Finite,
  maxHedges: Schema.Int,
  cancelOn: Schema.Unknown,
})
const isHedge = Schema.is(OfHedge)

const hedge = (policy: Case["policy"], steps: ReadonlyArray<Step>): Effect.Effect<Played> =>
  Effect.gen(function* () {
    if (!isHedge(policy)) return "another form"
    if (policy.delayMs < 0) return "a hedge that a negative delay turns off"
    if (policy.cancelOn !== "any") return "a hedge that ends for some values only"
    const { durations_ms: durations = [], outcomes = [] } = only(steps)
    const a = stub("a", (n) => replyTo(outcomes[n - 1], durations[n - 1]))
    const hedged = a.provider.pipe(Hedge.with({ delay: policy.delayMs, max: policy.maxHedges }))
    const { exit, millis } = yield* play(ask("generate", hedged))
    const result = exit._tag === "Success" ? exit.value : "error"
    return [{ started: a.asked.length, hedges: a.asked.length - 1, result, done_at_ms: millis }]
  }).pipe(Effect.provide(Layer.fresh(Hedge.layer)))

const OfWindow = Schema.Struct({ kind: Schema.Literal("window"), windowMs: Schema.Finite, bucketMs: Schema.Finite })
const isWindow = Schema.is(OfWindow)

const window = (policy: Case["policy"], steps: ReadonlyArray<Step>): Effect.Effect<Played> =>
  Effect.sync(() => {
    if (!isWindow(policy)) return "another form"
    const window = new TimeWindow(policy.windowMs, policy.windowMs / policy.bucketMs)
    return steps.map(({ action, at_ms: at, repeat = 1 }) => {
      if (action !== "check") for (let n = 0; n < repeat; n++) window.add(action === "record-failure", false, at)
      window.expire(at)
      const { calls, failures } = window
      return { calls, failures, failureRate: calls === 0 ? 0 : failures / calls }
    })
  })

const Inner = Schema.Union([
  Schema.Struct({ kind: Schema.Literal("timeout"), ms: Schema.Finite, mode: Schema.Literal("aggressive") }),
  Schema.Struct({ ...OfBulkhead.fields, preTaken: Schema.Int }),
])
const OfComposition = Schema.Struct({ kind: Schema.Literal("composition"), outer: OfRetry, inner: Inner })
const isComposition = Schema.is(OfComposition)

const OfBreaker = Schema.Struct({
  kind: Schema.Literal("breaker"),
  trip: Schema.Struct({ type: Schema.Literal("consecutive"), failures: Schema.Int }),
  failOn: Schema.Array(Schema.String),
})
const isTwoBreakers = Schema.is(
  Schema.Struct({ kind: Schema.Literal("composition"), outer: OfBreaker, inner: OfBreaker }),
)

const twoBreakers = (outer: typeof OfBreaker.Type, inner: typeof OfBreaker.Type, steps: ReadonlyArray<Step>) =>
  Effect.gen(function* () {
    const { outcomes = [] } = only(steps)
    let calls = 0
    const work = Effect.suspend(() => Effect.fail(outcomes[calls++]))
    const guard = <A, R>(self: Effect.Effect<A, unknown, R>, key: string, { failOn, trip }: typeof OfBreaker.Type) =>
      CircuitBreaker.effect(self, {
        key,
        failures: trip.failures,
        classify: (error) => (failOn.some((on) => on === error) ? "failure" : "ignored"),
      })
    const exit = yield* Effect.exit(guard(guard(work, "inner", inner), "outer", outer))
    const failed = Exit.findErrorOption(exit)
    const all = yield* Effect.flatMap(CircuitBreaker.Circuits, (circuits) => circuits.status)
    const state = (key: string) => all.find((status) => status.key === key)?.state
    return [
      {
        calls,
        result: failed._tag === "Some" ? failed.value : "none",
        innerState: state("inner"),
        outerState: state("outer"),
      },
    ]
  }).pipe(Effect.provide(Layer.fresh(CircuitBreaker.layer)))

const composition = (policy: Case["policy"], steps: ReadonlyArray<Step>): Effect.Effect<Played> =>
  Effect.gen(function* () {
    if (isTwoBreakers(policy)) return yield* twoBreakers(policy.outer, policy.inner, steps)
    if (!isComposition(policy)) return "another form"
    const { inner, outer } = policy
    const options = retryOf(outer)
    if (typeof options === "string") return options
    const { durations_ms: durations = [], outcomes = [] } = only(steps)
    const { effect, events } = listener()
    const a = stub("a", (n) => replyTo(outcomes[n - 1], durations[n - 1]))
    const count = (event: string) => events.filter((one) => one.event === event).length
    if (inner.kind === "timeout") {
      const model = a.provider.pipe(Timeouts.with({ attempt: inner.ms }), Retry.with(options))
      const { exit, millis } = yield* play(effect(ask("generate", model)))
      const result = resultOf(exit, outer.retryOn)
      return [{ attempts: a.asked.length, timeouts: count("AttemptFailed"), result, done_at_ms: millis }]
    }
    const permits = { permits: inner.limit, queue: inner.queue, key: "k" }
    const taken = yield* Effect.forEach(Array.from({ length: inner.preTaken }), () =>
      Effect.forkChild(Bulkhead.effect(Effect.never, permits)),
    )
    yield* settle
    const { exit } = yield* play(effect(ask("generate", a.provider.pipe(Bulkhead.with(permits), Retry.with(options)))))
    yield* Fiber.interruptAll(taken)
    const failed = Exit.findErrorOption(exit)
    const full = failed._tag === "Some" && LlmError.is("CapacityExceeded")(failed.value)
    return [{ attempts: count("CapacityRejected"), calls: a.asked.length, result: full ? "bulkhead-full" : "another" }]
  }).pipe(Effect.provide(Layer.fresh(Bulkhead.layer)))

const kinds: Readonly<Record<string, (policy: Case["policy"], steps: ReadonlyArray<Step>) => Effect.Effect<Played>>> = {
  bulkhead,
  composition,
  delay,
  hedge,
  retry,
  window,
  "retry-budget": () => Effect.succeed("a budget of what is in flight"),
}

// -----------------------------------------------------------------------------
// Traces
// -----------------------------------------------------------------------------

const casesOf = (path: string): ReadonlyArray<Case> =>
  Schema.decodeUnknownSync(Schema.Struct({ cases: Schema.Array(Case) }))(JSON.parse(readFileSync(path, "utf8"))).cases

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url))
const theirs = here("../../../../shared/corpus/breaker-behaviours.json")

const kindOf = ({ policy }: Case): string => String(policy["kind"])

/** Plays a trace and compares what it expects; gives the reason when it is not offered. */
const check = (one: Case): Effect.Effect<string | undefined> =>
  Effect.gen(function* () {
    const played = yield* kinds[kindOf(one)]!(one.policy, one.steps)
    if (typeof played === "string") return played
    for (const [index, { expect }] of one.steps.entries()) {
      for (const [name, expected] of Object.entries(expect)) {
        assert.deepStrictEqual(played[index]![name], expected, `${one.id}, step ${index}: ${name}`)
      }
    }
    return undefined
  })

const reasons = new Set([
  "a retry of a returned value",
  "a delay that the outcome dictates",
  "a hedge that ends for some values only",
  "a hedge that a negative delay turns off",
  "a budget of what is in flight",
])

describe("Traces of other suites", () => {
  const own = casesOf(here("fixtures/behaviours.json"))
  it.effect.each(own)("do as was seen: $id", (one) =>
    Effect.gen(function* () {
      assert.strictEqual(yield* check(one), undefined)
    }),
  )

  const others = existsSync(theirs) ? casesOf(theirs).filter((one) => kindOf(one) in kinds) : []
  it.effect.each(others)("do as was seen, or are not offered for a reason: $id", (one) =>
    Effect.gen(function* () {
      const why = yield* check(one)
      if (why !== undefined) assert.include([...reasons], why, one.id)
    }),
  )

  it.effect.each(own)("would be noticed if they did not: $id", (one) =>
    Effect.gen(function* () {
      for (const [at, step] of one.steps.entries()) {
        for (const name of Object.keys(step.expect)) {
          const other = { ...step, expect: { ...step.expect, [name]: "something else" } }
          const exit = yield* Effect.exit(check({ ...one, steps: one.steps.with(at, other) }))
          assert.strictEqual(exit._tag, "Failure", `${name} of step ${at}`)
        }
      }
    }),
  )

  if (others.length === 0) return
  it.effect("are offered, of each kind as many as this", () =>
    Effect.gen(function* () {
      const offered: Record<string, string> = {}
      for (const kind of Object.keys(kinds)) {
        const ofKind = others.filter((one) => kindOf(one) === kind)
        const reasons = yield* Effect.forEach(ofKind, check)
        offered[kind] = `${reasons.filter((why) => why === undefined).length} of ${ofKind.length}`
      }
      assert.deepStrictEqual(offered, {
        bulkhead: "3 of 3",
        composition: "3 of 3",
        delay: "6 of 6",
        hedge: "1 of 3",
        retry: "9 of 13",
        window: "2 of 2",
        "retry-budget": "0 of 2",
      })
    }),
  )
})
