import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Effect, Layer, Random, Stream } from "effect"
import { CircuitBreaker, Failover, type LlmError, type Provider, Understudy } from "@understudy/core"
import { faults, listener } from "./PolicyEvent.check.ts"
import {
  ask,
  end,
  fails,
  failure,
  inTurn,
  kinds,
  type LM,
  question,
  type Reply,
  say,
  start,
  streams,
  stub,
  type Stub,
  wait,
} from "./stub.ts"
import { World } from "./World.ts"

const giveWay = Effect.forEach([1, 2, 3], () => Effect.yieldNow, { discard: true })

/** The same reply, with pauses and turns given away before. */
const busy = <E>(reply: Reply<E>): Reply<E> => ({
  whole: Effect.andThen(giveWay, Effect.andThen(wait(10), reply.whole)),
  parts: Stream.concat(
    Stream.fromEffect(Effect.as(giveWay, start)),
    Stream.tap(reply.parts, () => Effect.andThen(wait(10), giveWay)),
  ),
})

const slowAnswer = busy(
  streams(
    Stream.fromArray([say("a"), say("b"), say("c"), end]).pipe(
      Stream.rechunk(1),
      Stream.tap(() => wait(5)),
    ),
  ),
)
const silence: Reply<never> = { whole: Effect.never, parts: Stream.concat(Stream.make(start), Stream.never) }
const stalled: Reply<never> = {
  whole: Effect.never,
  parts: Stream.concat(Stream.make(start, say("half")), Stream.never),
}

/** Something to interrupt: leaves, and a call that asks them. */
interface Scene {
  readonly stubs: ReadonlyArray<Stub<LlmError.LlmError>>
  readonly provider: Provider.Provider<LM, unknown, Understudy.State>
  /** Circuits that are half-open when the call begins. */
  readonly probing?: ReadonlyArray<string>
}

const two = (
  first: readonly [Reply<LlmError.LlmError>, ...ReadonlyArray<Reply<LlmError.LlmError>>],
  second: Reply<LlmError.LlmError>,
): Scene => {
  const a = stub<LlmError.LlmError>("a", inTurn(...first))
  const b = stub<LlmError.LlmError>("b", () => second)
  const provider = Understudy.make({
    candidates: [{ provider: a.provider }, { provider: b.provider }],
    retry: { jitter: "none" },
    timeouts: { attempt: 100, firstContent: 100, idle: 100 },
  })
  return { stubs: [a, b], provider }
}

const overloaded = failure("Overloaded")

const scenes: ReadonlyArray<readonly [string, () => Scene]> = [
  ["an answer", () => two([slowAnswer], slowAnswer)],
  ["a backoff and a second attempt", () => two([busy(fails(overloaded)), slowAnswer], slowAnswer)],
  ["a failover", () => two([busy(fails(failure("QuotaExhausted")))], slowAnswer)],
  ["a provider that hangs", () => two([silence], slowAnswer)],
  ["a stream that stalls", () => two([stalled], slowAnswer)],
  ["candidates that all fail", () => two([busy(fails(overloaded))], busy(fails(failure("InvalidRequest", "b"))))],
  ["a probe", () => ({ ...two([slowAnswer], slowAnswer), probing: ["a/a-1", "b/b-1"] })],
  [
    "a nested composition",
    () => {
      const inner = two([busy(fails(failure("ModelNotFound")))], busy(fails(failure("AuthenticationFailed", "b"))))
      const c = stub<LlmError.LlmError>("c", () => slowAnswer)
      const provider = Failover.make([inner.provider as typeof c.provider, c.provider]).pipe(
        CircuitBreaker.with({ key: "whole" }),
      )
      return { stubs: [...inner.stubs, c], provider, probing: ["whole"] }
    },
  ],
]

const numbers = CircuitBreaker.rules({ permits: 1 })

type Ask = (scene: Scene) => Effect.Effect<unknown, unknown, Understudy.State>

/** Plays a scene, interrupts its caller after so many turns, and says what was left behind, and how many turns there were. */
const playUntil = (scene: Scene, ask: Ask, operations: number, listening: boolean, turns: number) => {
  const world = new World(operations)
  const context = Effect.runSync(Effect.scoped(Layer.build(Layer.fresh(Understudy.layer))))
  const circuits = Context.get(context, CircuitBreaker.Circuits)
  for (const key of scene.probing ?? []) {
    const circuit = circuits.get(key, numbers)
    circuit.record(circuit.admit(-60_000), "opens", -60_000)
  }
  const { effect, events } = listener()
  const call = ask(scene)
  const fiber = Effect.runForkWith(context)(
    (listening ? effect(call) : call).pipe(Random.withSeed(1), Effect.provideService(Clock.Clock, world.clock)),
    { scheduler: world },
  )
  let taken = 0
  while (taken < turns && fiber.pollUnsafe() === undefined && world.turn()) taken++
  fiber.interruptUnsafe()
  let limit = 10_000
  while (limit > 0 && world.turn()) limit--

  const left: Array<string> = []
  if (fiber.pollUnsafe() === undefined) left.push("the call has not ended")
  if (limit === 0) left.push("something still runs")
  if (world.asleep > 0) left.push(`${world.asleep} timers`)
  for (const { provider, running } of scene.stubs) {
    if (running() > 0) left.push(`${provider.name} holds ${running()}`)
  }
  const heard = new Set(events.flatMap((event) => (event.event === "AttemptFailed" ? [event.provider] : [])))
  for (const key of ["a/a-1", "b/b-1", "whole"]) {
    const circuit = circuits.get(key, numbers)
    if (circuit.inFlight > 0) left.push(`${key} has ${circuit.inFlight} probes in flight`)
    const innocent = listening && !heard.has(key.slice(0, 1)) && scene.probing?.includes(key) !== true
    if (innocent && circuit.consecutive > 0) left.push(`${key} counted a failure`)
  }
  return { left, taken, events, ended: fiber.pollUnsafe()?._tag }
}

describe("An interruption at any point", () => {
  const leavesEarly = (scene: Scene) => Stream.runDrain(Stream.take(scene.provider.stream(question), 2))
  const ways: ReadonlyArray<readonly [string, Ask]> = [
    ...kinds.map((kind) => [kind, (scene: Scene) => ask(kind, scene.provider)] as const),
    ["stream that is left early", leavesEarly],
  ]
  const rows = scenes.flatMap(([name, make]) => ways.map(([way, run]) => [way, name, make, run] as const))

  /** Every point at which a scene can be interrupted: after each of its turns, from none to all. */
  function* points(make: () => Scene, run: Ask, operations: number, listening: boolean) {
    for (let turns = 0; ; turns++) {
      const played = playUntil(make(), run, operations, listening, turns)
      yield {
        ...played,
        where: `after turn ${turns}, ${operations} operations each, ${listening ? "heard" : "unheard"}`,
      }
      if (played.taken < turns) return
    }
  }

  it.each(rows)("leaves no slot, timer or running leaf behind: %s of %s", (_way, _name, make, run) => {
    let seen = 0
    for (const [operations, listening] of [
      [2, false],
      [7, true],
    ] as const) {
      for (const { left, where } of points(make, run, operations, listening)) {
        assert.strictEqual(left.join("; "), "", where)
        seen++
      }
    }
    assert.isAbove(seen, 100)
  })

  it.each(rows)("is told in order, the attempt's end before the call's: %s of %s", (_way, _name, make, run) => {
    const ends = new Set<string | undefined>()
    for (const { events, where } of points(make, run, 2, true)) {
      assert.strictEqual(faults(events).join("; "), "", where)
      ends.add(events.at(-1)?.event)
    }
    assert.isTrue(ends.has("CallInterrupted"))
  })

  it.each(rows)("is one of a call that otherwise ends: %s of %s", (_way, _name, make, run) => {
    const { ended, left } = playUntil(make(), run, 2, true, Infinity)
    assert.strictEqual(left.join("; "), "")
    assert.isDefined(ended)
  })
})
