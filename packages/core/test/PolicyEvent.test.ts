import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Fiber, Layer, Random, Redacted, Schema, Stream } from "effect"
import { CircuitBreaker, Failover, LlmError, PolicyEvent, Retry, Timeouts, Understudy } from "@understudy/core"
import { assertInOrder, byCall, faults, listener } from "./PolicyEvent.check.ts"
import {
  ask,
  end,
  fails,
  failure,
  Foreign,
  hangs,
  inTurn,
  kinds,
  metadata,
  play,
  question,
  random,
  type Random as Chance,
  type Reply,
  said,
  say,
  says,
  seconds,
  start,
  streams,
  stub,
  timed,
  wait,
} from "./stub.ts"

type Event = PolicyEvent.PolicyEvent

const decode = Schema.decodeUnknownSync(Schema.toCodecJson(PolicyEvent.PolicyEvent))
const encode = Schema.encodeSync(Schema.toCodecJson(PolicyEvent.PolicyEvent))

/** Something that a provider does, by chance. */
const anyReply = (r: Chance, name: string): Reply<LlmError.LlmError | Foreign> => {
  const pause = r.pick([0, 0, 5, 400, 3000])
  const broken = failure(r.pick(LlmError.tags), name, r.chance(0.2) ? { retryAfter: seconds(r.int(1, 40)) } : {})
  return r.pick<() => Reply<LlmError.LlmError | Foreign>>([
    () => says(name, pause),
    () => says(name, pause),
    () => fails(broken, pause),
    () => fails(broken, pause),
    () => hangs,
    () => fails(new Foreign("theirs"), pause),
    () => streams(Stream.concat(timed([0, start], [pause, say("half")]), Stream.fail(broken))),
    () => streams(timed([0, start], [pause, say("cut")])),
    () => streams(timed([0, metadata], [pause, say("one")], [pause + 300, say("two")], [pause + 300, end])),
  ])()
}

/** Many calls at once to candidates that do anything, of which some leave early. */
const crowd = (seed: number, calls: number) => {
  const r = random(seed)
  const named = (name: string) => stub<LlmError.LlmError | Foreign>(name, () => anyReply(r, name)).provider
  const options = {
    timeouts: { attempt: 1000, firstContent: 1000, idle: 500 },
    breaker: { openFor: 2000, successes: 1 },
  }
  const inside = Understudy.make({
    ...options,
    candidates: [{ provider: named("a") }, { provider: named("b") }],
    name: "inside",
  })
  const provider = Failover.make([inside, named("c").pipe(Timeouts.with({ attempt: 2000 }), Retry.with())]).pipe(
    Timeouts.deadline({ generate: 8000, stream: 8000 }),
  )
  return Effect.gen(function* () {
    const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
    for (let n = 0; n < calls; n++) {
      const call = ask(r.pick(kinds), provider)
      fibers.push(yield* Effect.forkChild(r.chance(0.3) ? Effect.timeoutOption(call, r.int(1, 3000)) : call))
      yield* wait(r.pick([0, 1, 100, 500]))
    }
    yield* Effect.forEach(fibers, Fiber.await)
  })
}

/** What the policies of the preset tell of plain questions. */
const ofThePreset: ReadonlyArray<PolicyEvent.PolicyEvent["event"]> = [
  "CallStarted",
  "AttemptStarted",
  "AttemptFailed",
  "AttemptSucceeded",
  "AttemptInterrupted",
  "Committed",
  "BackedOff",
  "CircuitOpened",
  "CircuitHalfOpened",
  "CircuitClosed",
  "CircuitRejected",
  "FailedOver",
  "Answered",
  "CallFailed",
  "CallInterrupted",
]

describe("PolicyEvent", () => {
  it.effect("tells the story of a call from its beginning to its end", () =>
    Effect.gen(function* () {
      const { effect, events } = listener()
      const a = stub("a", () => fails(failure("Overloaded"), 20))
      const b = stub("b", () => says("the answer", 30))
      const provider = Understudy.make({
        candidates: [{ provider: a.provider }, { provider: b.provider }],
        retry: { times: 1, jitter: "none" },
        name: "both",
      })
      yield* play(effect(ask("generate", provider)))
      assertInOrder(events)
      assert.deepStrictEqual(events.map(PolicyEvent.describe), [
        "both: a question",
        "a (a-1): asked (attempt 1)",
        "a (a-1): Overloaded after 20 ms",
        "a: Overloaded, will be asked again in 500 ms",
        "a (a-1): asked (attempt 2)",
        "a (a-1): Overloaded after 20 ms",
        "a (a-1): Overloaded, over to b",
        "b (b-1): asked (attempt 3)",
        "b (b-1): answered in 30 ms",
        "b (b-1): the answer, after 570 ms and 3 attempts",
      ])
      const [last] = events.slice(-1)
      assert.strictEqual(last?.event === "Answered" && last.text, "the answer")
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("tells of a stream's first content, and of its end when the end marker came", () =>
    Effect.gen(function* () {
      const { events, stream } = listener()
      const a = stub("a", () => streams(timed([0, start], [10, say("one ")], [20, say("two")], [30, end])))
      yield* play(Stream.runDrain(stream(a.provider.stream(question))))
      assertInOrder(events)
      assert.deepStrictEqual(
        events.map((event) => [event.event, event.at - events[0]!.at]),
        [
          ["CallStarted", 0],
          ["AttemptStarted", 0],
          ["Committed", 10],
          ["AttemptSucceeded", 30],
          ["Answered", 30],
        ],
      )
    }),
  )

  it.effect("gives the whole text of a stream, however its parts are cut into chunks", () =>
    Effect.gen(function* () {
      const parts = [start, say("one "), say("two "), say("three"), end]
      for (const size of [1, 2, 3, 4, 5]) {
        const { events, stream } = listener()
        const a = stub("a", () => streams(Stream.fromIterable(parts).pipe(Stream.rechunk(size))))
        yield* play(Stream.runDrain(stream(a.provider.stream(question))))
        const last = events.at(-1)
        assert.strictEqual(last?.event === "Answered" && last.text, "one two three", `chunks of ${size}`)
      }
    }),
  )

  it.effect("keeps the order in every call, whatever happens and however many run at once", () =>
    Effect.gen(function* () {
      const seen = new Map<string, number>()
      let calls = 0
      for (let seed = 0; seed < 40; seed++) {
        const { effect, events } = listener()
        yield* play(effect(crowd(seed, 20)).pipe(Random.withSeed(seed), Effect.provide(Layer.fresh(Understudy.layer))))
        assertInOrder(events)
        calls += byCall(events).length
        for (const { event } of events) seen.set(event, (seen.get(event) ?? 0) + 1)
      }
      assert.strictEqual(calls, 40 * 20)
      for (const event of ofThePreset) assert.isTrue(seen.has(event), `${event} was never told`)
    }),
  )

  it.effect("is heard by everyone who listens, and one who throws changes nothing for the others or the call", () =>
    Effect.gen(function* () {
      const [first, last] = [listener(), listener()]
      const throws = PolicyEvent.observe(() => {
        throw new Error("an observer's bug")
      })
      const a = stub("a", inTurn(fails(failure("Overloaded")), says("ok")))
      const provider = a.provider.pipe(CircuitBreaker.with(), Retry.with())
      for (const kind of kinds) {
        const { exit } = yield* play(last.effect(throws(first.effect(ask(kind, provider)))))
        assert.strictEqual(said(exit), "ok")
      }
      assertInOrder(first.events)
      assert.deepStrictEqual(first.events, last.events)
      assert.isAbove(first.events.length, 8)
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("is the same story every time, and the same for one who listens from a layer", () =>
    Effect.gen(function* () {
      const story = Effect.gen(function* () {
        const { effect, events } = listener()
        yield* play(effect(crowd(3, 20)).pipe(Random.withSeed(5), Effect.provide(Layer.fresh(Understudy.layer))))
        const begin = events[0]?.at ?? 0
        return events.map((event) => `${event.at - begin} ${event.call} ${PolicyEvent.describe(event)}`)
      })
      const once = yield* story
      assert.isAbove(once.length, 100)
      assert.deepStrictEqual(yield* story, once)
      const heard: Array<Event> = []
      const a = stub("a", () => says("ok"))
      yield* play(ask("stream", a.provider).pipe(Effect.provide(PolicyEvent.layer((event) => void heard.push(event)))))
      assertInOrder(heard)
      assert.strictEqual(heard.length, 5)
    }),
  )

  it.effect("carries nothing that a provider wrote, nor a key, nor the prompt", () =>
    Effect.gen(function* () {
      const secret = "sk-THE-SECRET"
      const evidence = { providerMessage: `bad key ${secret}`, cause: new Error(secret) }
      for (const tag of LlmError.tags) {
        const error = LlmError.withEvidence(failure(tag), evidence)
        const broken = stub("a", () => fails(error))
        const interrupted = stub("b", () => streams(Stream.concat(Stream.make(say("half")), Stream.fail(error))))
        const { effect, events } = listener()
        for (const { provider } of [broken, interrupted]) {
          const composed = Understudy.make({ candidates: [{ provider }], deadline: { stream: 60_000 } })
          yield* play(effect(ask("stream", composed)))
        }
        assert.isAbove(events.length, 3)
        assert.notInclude(JSON.stringify(events.map((event) => encode(event))), secret)
        assert.notInclude(events.map(PolicyEvent.describe).join("\n"), secret)
        assert.strictEqual(error.providerMessage && Redacted.value(error.providerMessage), evidence.providerMessage)
      }
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect.prop(
    "survives JSON, and is one line for a person, whatever it holds",
    { event: Arbitrary.schema(PolicyEvent.PolicyEvent) },
    ({ event }) =>
      Effect.sync(() => {
        const json = JSON.stringify(encode(event))
        assert.strictEqual(JSON.stringify(encode(decode(JSON.parse(json)))), json)
        assert.match(PolicyEvent.describe(event), /^.*: .+$/s)
      }),
    { arbitrary: { runs: 500, seed: 1, size: 30 } },
  )

  it("says one attempt and not one attempts", () => {
    const base = { at: 0, call: "c", provider: "a", attempts: 1, elapsedMs: 5 }
    assert.strictEqual(
      PolicyEvent.describe({ event: "Answered", ...base, text: "" }),
      "a: the answer, after 5 ms and 1 attempt",
    )
    assert.strictEqual(
      PolicyEvent.describe({ event: "CallFailed", ...base, failure: "TimedOut" }),
      "a: no answer (TimedOut) after 5 ms and 1 attempt",
    )
  })

  describe("the check of the order itself", () => {
    const base = { at: 0, call: "c", provider: "a" }
    const story: ReadonlyArray<Event> = [
      { event: "CallStarted", ...base },
      { event: "AttemptStarted", ...base, attempt: 1 },
      { event: "AttemptFailed", ...base, attempt: 1, failure: "TimedOut", elapsedMs: 1 },
      { event: "AttemptStarted", ...base, attempt: 2 },
      { event: "Committed", ...base, attempt: 2, elapsedMs: 1 },
      { event: "AttemptSucceeded", ...base, attempt: 2, elapsedMs: 1 },
      { event: "Answered", ...base, text: "", attempts: 2, elapsedMs: 2 },
    ]

    it("accepts a story in order", () => {
      assert.deepStrictEqual(faults(story), [])
      assert.deepStrictEqual(faults([]), [])
    })

    it("finds any event that is left out, told twice, or in another's place", () => {
      const needed = story.filter((event) => event.event !== "Committed")
      for (let index = 0; index < needed.length; index++) {
        assert.isNotEmpty(faults(needed.toSpliced(index, 1)), `without ${needed[index]!.event}`)
        assert.isNotEmpty(faults(needed.toSpliced(index, 0, needed[index]!)), `twice ${needed[index]!.event}`)
        for (let other = 0; other < index; other++) {
          const swapped = needed.with(index, needed[other]!).with(other, needed[index]!)
          assert.isNotEmpty(faults(swapped), `${other} and ${index} swapped`)
        }
      }
    })
  })
})
