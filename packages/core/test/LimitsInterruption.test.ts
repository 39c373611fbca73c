import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Layer, Random, Stream } from "effect"
import {
  Bulkhead,
  CircuitBreaker,
  Hedge,
  type LlmError,
  type Provider,
  RateLimit,
  Retry,
  RetryBudget,
  Timeouts,
} from "@understudy/core"
import { faults, listener } from "./PolicyEvent.check.ts"
import { isDeep } from "./Sequences.ts"
import { ask, end, fails, failure, inTurn, kinds, type LM, question, say, start, streams, stub, wait } from "./stub.ts"
import { World } from "./World.ts"

type Services =
  | CircuitBreaker.Circuits
  | Bulkhead.Bulkheads
  | RateLimit.RateLimits
  | RetryBudget.Budgets
  | Hedge.Latencies

const layer = Layer.mergeAll(CircuitBreaker.layer, Bulkhead.layer, RateLimit.layer, RetryBudget.layer, Hedge.layer)

const answer = streams(
  Stream.fromArray([start, say("a"), say("b"), end]).pipe(
    Stream.rechunk(1),
    Stream.tap(() => wait(30)),
  ),
)

/** Everything at once: who waits for a permit, for room, for a backoff, beside a hedge. */
const guarded = (self: Provider.Provider<LM, LlmError.LlmError>) =>
  self.pipe(
    Timeouts.with({ attempt: 300, firstContent: 300, idle: 300 }),
    CircuitBreaker.with({ key: "circuit" }),
    Bulkhead.with({ permits: 2, queue: 4, key: "bulkhead" }),
    RateLimit.with({ requestsPerMinute: 6000, tokensPerMinute: 1_200_000, burst: 40, maxWait: 5000, key: "rate" }),
    Hedge.with({ delay: 50, max: 2 }),
    Retry.with({ base: 40, jitter: "none" }),
    RetryBudget.with({ share: 0, floor: 10, key: "budget" }),
  )

const scenes = {
  "a call that waits and is answered": () => stub<LlmError.LlmError>("a", () => answer),
  "a call that is retried": () =>
    stub<LlmError.LlmError>("a", (n) => (n % 2 === 1 ? fails(failure("Overloaded"), 20) : answer)),
  "a call that is hedged": () =>
    stub<LlmError.LlmError>(
      "a",
      inTurn(streams(Stream.never), streams(Stream.concat(Stream.make(start), Stream.never)), answer),
    ),
}

/** Plays three calls of which the second is interrupted after so many turns, and says what was left behind. */
const playUntil = (
  make: () => ReturnType<(typeof scenes)["a call that is hedged"]>,
  kind: (typeof kinds)[number],
  operations: number,
  turns: number,
) => {
  const world = new World(operations)
  const services = Effect.runSync(Effect.scoped(Layer.build(Layer.fresh(layer))))
  const { effect, events } = listener()
  const a = make()
  const model = guarded(a.provider)
  const run = <A, E>(self: Effect.Effect<A, E, Services>) =>
    Effect.runForkWith(services)(
      Effect.exit(self).pipe(Random.withSeed(1), Effect.provideService(Clock.Clock, world.clock)),
      { scheduler: world },
    )
  const first = run(ask(kind, model))
  const second = run(
    effect(kind === "stream" ? Stream.runDrain(Stream.take(model.stream(question), 3)) : ask(kind, model)),
  )
  const third = run(ask(kind, model))
  let taken = 0
  while (taken < turns && second.pollUnsafe() === undefined && world.turn()) taken++
  second.interruptUnsafe()
  let limit = 100_000
  while (limit > 0 && world.turn()) limit--
  const left: Array<string> = []
  for (const [index, fiber] of [first, second, third].entries()) {
    if (fiber.pollUnsafe() === undefined) left.push(`call ${index} has not ended`)
  }
  if (world.asleep > 0) left.push(`${world.asleep} timers`)
  if (a.running() > 0) left.push(`${a.running()} attempts`)
  const look = Effect.gen(function* () {
    const [permits] = yield* (yield* Bulkhead.Bulkheads).status
    if (permits !== undefined && permits.inUse + permits.waiting > 0) left.push(JSON.stringify(permits))
    yield* wait(60_000)
    const [rates] = yield* (yield* RateLimit.RateLimits).status
    if (rates !== undefined && rates.waiting > 0) left.push(`${rates.waiting} in line`)
    // After a minute everything that was reserved is back, whatever became of it.
    for (const { available, name, perMinute } of rates?.limits ?? []) {
      if (available !== Math.floor((perMinute * 40) / 60_000)) left.push(`${available} ${name}`)
    }
    const [budget] = yield* (yield* RetryBudget.Budgets).status
    if (budget !== undefined && budget.left !== 100) left.push(`${budget.left} in the budget`)
    for (const { key, probes } of yield* (yield* CircuitBreaker.Circuits).status) {
      if (probes > 0) left.push(`${key} has ${probes} probes`)
    }
  })
  const looked = run(look)
  while (world.turn());
  if (looked.pollUnsafe()?._tag !== "Success") left.push("nobody could look")
  return { left, taken, faults: faults(events), last: events.at(-1)?.event }
}

describe("An interruption at any point of a call that is limited, retried and hedged", () => {
  const rows = Object.entries(scenes).flatMap(([name, make]) => kinds.map((kind) => [kind, name, make] as const))
  const step = isDeep ? 1 : 8
  it.each(rows)("leaves nothing behind, and is told in order: %s of %s", (kind, _name, make) => {
    const ends = new Set<string | undefined>()
    let seen = 0
    for (const operations of [2, 7]) {
      for (let turns = 0; ; turns += step) {
        const { faults, last, left, taken } = playUntil(make, kind, operations, turns)
        const where = `after turn ${turns}, ${operations} operations each`
        assert.strictEqual([...left, ...faults].join("; "), "", where)
        ends.add(last)
        seen++
        if (taken < turns) break
      }
    }
    assert.isTrue(ends.has("CallInterrupted"))
    assert.isTrue(ends.has("Answered") || kind === "stream")
    assert.isAbove(seen, 30)
  })
})
