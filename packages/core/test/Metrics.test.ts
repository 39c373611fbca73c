import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Metric, Random, Stream } from "effect"
import { readFileSync } from "node:fs"
import {
  CircuitBreaker,
  EmbeddingModelFace,
  type LlmError,
  Metrics,
  type PolicyEvent,
  Retry,
  Timeouts,
  Understudy,
} from "@understudy/core"
import { anyEvents, stories } from "./PolicyEvent.stories.ts"
import {
  ask,
  fails,
  failure,
  Foreign,
  hangs,
  inTurn,
  play,
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

/** A registry of its own, so that no test counts what another one did. */
const isolated = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.suspend(() => Effect.provideService(self, Metric.MetricRegistry, new Map()))

/** Everything that was counted, as lines: the name, the labels in order, and the number. */
const counted = Effect.map(Metric.snapshot, (all) =>
  all
    .map(({ attributes = {}, id, ...metric }) => {
      const labels = Object.entries(attributes)
        .filter(([label]) => label !== "unit")
        .map(([label, value]) => `${label.replace(/^(?:understudy|gen_ai)\./, "")}=${value}`)
        .sort()
      const { state } = metric
      const value =
        "buckets" in state
          ? `${state.count} of ${state.sum}`
          : "count" in state
            ? state.count
            : "value" in state
              ? state.value
              : 0
      return `${id} {${labels.join(", ")}} ${value}`
    })
    .sort(),
)

/** What was counted under a name. */
const countedAs = (name: string) => Effect.map(counted, (lines) => lines.filter((line) => line.startsWith(`${name} {`)))

const observed = (options?: Metrics.Options) => Layer.mergeAll(Metrics.layer(options), Understudy.layer)

/** An answer, whole and as a stream, with its tokens. */
const costs = (
  text: string,
  input: { readonly total?: number; readonly cacheRead?: number; readonly cacheWrite?: number },
  output: { readonly total?: number; readonly reasoning?: number },
  wait = 0,
): Reply<never> => {
  const end = { type: "finish", reason: "stop", usage: { inputTokens: input, outputTokens: output } } as const
  return {
    whole: Effect.delay(Effect.succeed([{ type: "text", text }, end]), wait),
    parts: timed([0, start], [wait, say(text)], [wait + 1000, end]),
  }
}

/** The sum of a counter's or a gauge's series whose labels hold these. */
const total = (name: string, labels: Readonly<Record<string, string>> = {}) =>
  Effect.map(Metric.snapshot, (all) =>
    all
      .filter(
        ({ attributes = {}, id }) =>
          id === name && Object.entries(labels).every(([label, value]) => attributes[label] === value),
      )
      .reduce(
        (sum, { state }) => sum + ("count" in state ? Number(state.count) : "value" in state ? Number(state.value) : 0),
        0,
      ),
  )

describe("Metrics", () => {
  it.effect("counts what happened in a call that was retried and failed over", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(failure("Overloaded"), 20))
      const b = stub("b", () => says("the answer", 30))
      const model = Understudy.make({
        candidates: [{ provider: a.provider }, { provider: b.provider }],
        retry: { times: 1, jitter: "none" },
        name: "both",
      })
      yield* play(ask("generate", model))
      assert.deepStrictEqual(yield* counted, [
        "gen_ai.client.operation.duration {error.type=Overloaded, operation.name=chat, provider.name=a, request.model=a-1} 2 of 0.04",
        "gen_ai.client.operation.duration {operation.name=chat, provider.name=b, request.model=b-1} 1 of 0.03",
        "understudy.answers {composition=both, provider.name=b, request.model=b-1, source=primary} 1",
        "understudy.attempts {outcome=failed, provider.name=a, request.model=a-1} 2",
        "understudy.attempts {outcome=succeeded, provider.name=b, request.model=b-1} 1",
        "understudy.attempts.running {provider.name=a, request.model=a-1} 0",
        "understudy.attempts.running {provider.name=b, request.model=b-1} 0",
        "understudy.attempts.started {provider.name=a, request.model=a-1} 2",
        "understudy.attempts.started {provider.name=b, request.model=b-1} 1",
        "understudy.backoff.duration {provider.name=a} 1 of 0.5",
        "understudy.call.duration {composition=both, outcome=answered} 1 of 0.57",
        "understudy.calls {composition=both, outcome=answered} 1",
        "understudy.calls.running {composition=both} 0",
        "understudy.events {event=Answered} 1",
        "understudy.events {event=AttemptFailed} 2",
        "understudy.events {event=AttemptStarted} 3",
        "understudy.events {event=AttemptSucceeded} 1",
        "understudy.events {event=BackedOff} 1",
        "understudy.events {event=CallStarted} 1",
        "understudy.events {event=FailedOver} 1",
        "understudy.failovers {error.type=Overloaded, provider.name=a, request.model=a-1, to=b} 1",
        "understudy.failures {error.type=Overloaded, provider.name=a, request.model=a-1} 2",
        "understudy.retries {error.type=Overloaded, provider.name=a} 1",
        "understudy.tokens.unknown {outcome=succeeded, provider.name=b, request.model=b-1} 1",
      ])
    }).pipe(Effect.provide(observed()), isolated),
  )

  it.effect("measures a stream to its first content and to its end, and takes its tokens", () =>
    Effect.gen(function* () {
      const a = stub("a", () => costs("ok", { total: 1000, cacheRead: 400 }, { total: 200, reasoning: 50 }, 250))
      yield* play(ask("stream", a.provider))
      assert.deepStrictEqual(yield* countedAs("gen_ai.client.operation.time_to_first_chunk"), [
        "gen_ai.client.operation.time_to_first_chunk {operation.name=chat, provider.name=a, request.model=a-1} 1 of 0.25",
      ])
      assert.deepStrictEqual(yield* countedAs("gen_ai.client.operation.duration"), [
        "gen_ai.client.operation.duration {operation.name=chat, provider.name=a, request.model=a-1} 1 of 1.25",
      ])
      assert.deepStrictEqual(yield* countedAs("gen_ai.client.token.usage"), [
        "gen_ai.client.token.usage {operation.name=chat, provider.name=a, request.model=a-1, token.type=input} 1 of 1000",
        "gen_ai.client.token.usage {operation.name=chat, provider.name=a, request.model=a-1, token.type=output} 1 of 200",
      ])
      assert.deepStrictEqual(yield* countedAs("understudy.tokens"), [
        "understudy.tokens {provider.name=a, request.model=a-1, token.type=cache_read} 400",
        "understudy.tokens {provider.name=a, request.model=a-1, token.type=input} 1000",
        "understudy.tokens {provider.name=a, request.model=a-1, token.type=output} 200",
        "understudy.tokens {provider.name=a, request.model=a-1, token.type=reasoning} 50",
      ])
      assert.deepStrictEqual(yield* countedAs("understudy.tokens.unknown"), [])
      assert.deepStrictEqual(yield* countedAs("understudy.cost.estimated"), [])
    }).pipe(Effect.provide(observed()), isolated),
  )

  it.effect("estimates the cost by the given prices, and says whose price is not known", () =>
    Effect.gen(function* () {
      const reply = costs("ok", { total: 1_000_000, cacheRead: 400_000, cacheWrite: 100_000 }, { total: 200_000 })
      const [a, b, c] = ["a", "b", "c"].map((name) => stub(name, () => reply).provider)
      for (const provider of [a!, b!, c!]) yield* play(ask("generate", provider))
      // 500,000 at 2, 400,000 at 0.2, 100,000 at 2.5, and 200,000 at 10; by the model alone, cached ones at full price.
      assert.deepStrictEqual(yield* countedAs("understudy.cost.estimated"), [
        `understudy.cost.estimated {currency=EUR, provider.name=a, request.model=a-1} ${1 + 0.08 + 0.25 + 2}`,
        "understudy.cost.estimated {currency=EUR, provider.name=b, request.model=b-1} 4",
      ])
      assert.deepStrictEqual(yield* countedAs("understudy.cost.unpriced"), [
        "understudy.cost.unpriced {provider.name=c, request.model=c-1} 1",
      ])
    }).pipe(
      Effect.provide(
        observed({
          currency: "EUR",
          prices: {
            "a/a-1": { input: 2, output: 10, cacheRead: 0.2, cacheWrite: 2.5 },
            "b-1": { input: 2, output: 10 },
          },
        }),
      ),
      isolated,
    ),
  )

  it.effect("counts the tokens of an attempt that failed, and says where nobody told them", () =>
    Effect.gen(function* () {
      const usage = { inputTokens: { total: 70 }, outputTokens: { total: 7 } }
      const filtered: Reply<never> = {
        whole: Effect.succeed([{ type: "finish", reason: "content-filter", usage }]),
        parts: Stream.make(start, say("no"), { type: "finish", reason: "content-filter", usage }),
      }
      const a = stub("a", () => filtered)
      for (const kind of ["generate", "stream"] as const) yield* play(ask(kind, a.provider))
      assert.strictEqual(yield* total("understudy.tokens", { "gen_ai.token.type": "input" }), 140)
      assert.strictEqual(yield* total("understudy.attempts", { "understudy.outcome": "failed" }), 2)
      assert.strictEqual(yield* total("understudy.tokens.unknown"), 0)
      const b = stub(
        "b",
        inTurn<LlmError.LlmError>(fails(failure("Overloaded", "b")), streams(timed([0, say("cut")])), hangs),
      )
      yield* play(ask("stream", b.provider))
      yield* play(ask("stream", b.provider))
      yield* play(ask("stream", b.provider.pipe(Timeouts.with({ firstContent: "1 second" }))))
      yield* play(Effect.timeoutOption(ask("stream", b.provider), "1 second"))
      assert.deepStrictEqual(yield* countedAs("understudy.tokens.unknown"), [
        "understudy.tokens.unknown {outcome=failed, provider.name=b, request.model=b-1} 2",
        "understudy.tokens.unknown {outcome=interrupted, provider.name=b, request.model=b-1} 1",
      ])
    }).pipe(Effect.provide(observed()), isolated),
  )

  it.effect("shows the state of each circuit, and how often it opened and rejected", () =>
    Effect.gen(function* () {
      const a = stub("a", inTurn(fails(failure("Overloaded")), fails(failure("Overloaded")), says("well")))
      const guarded = a.provider.pipe(CircuitBreaker.with({ failures: 1, openFor: "10 seconds", successes: 2 }))
      const state = total("understudy.circuit.state", { "understudy.circuit.key": "a/a-1" })
      yield* play(ask("generate", guarded))
      assert.strictEqual(yield* state, 2)
      yield* play(ask("generate", guarded))
      yield* play(wait(10_000))
      yield* play(ask("generate", guarded))
      assert.strictEqual(yield* state, 2)
      yield* play(wait(10_000))
      yield* play(ask("generate", guarded))
      assert.strictEqual(yield* state, 1)
      yield* play(ask("generate", guarded))
      assert.strictEqual(yield* state, 0)
      assert.deepStrictEqual(
        [yield* countedAs("understudy.circuit.openings"), yield* countedAs("understudy.circuit.rejections")],
        [
          [
            "understudy.circuit.openings {circuit.key=a/a-1, reason=failures in a row} 1",
            "understudy.circuit.openings {circuit.key=a/a-1, reason=probe} 1",
          ],
          ["understudy.circuit.rejections {circuit.key=a/a-1} 1"],
        ],
      )
    }).pipe(Effect.provide(observed()), isolated),
  )

  it.effect("tells failures by tag and clock, and one that is not of the union as _OTHER", () =>
    Effect.gen(function* () {
      const a = stub("a", inTurn<LlmError.LlmError | Foreign>(hangs, fails(new Foreign("SECRET words of a user"))))
      const clocked = a.provider.pipe(Timeouts.with({ attempt: "1 second" }))
      yield* play(ask("generate", clocked))
      yield* play(ask("generate", clocked))
      assert.deepStrictEqual(yield* countedAs("understudy.failures"), [
        "understudy.failures {error.type=TimedOut, provider.name=a, request.model=a-1, timeout.phase=attempt} 1",
        "understudy.failures {error.type=UnknownFailure, provider.name=a, request.model=a-1} 1",
      ])
      assert.deepStrictEqual(yield* countedAs("understudy.calls"), [
        "understudy.calls {composition=a, error.type=TimedOut, outcome=failed} 1",
        "understudy.calls {composition=a, error.type=_OTHER, outcome=failed} 1",
      ])
    }).pipe(Effect.provide(observed()), isolated),
  )

  it.effect("counts embeddings as embeddings, with their tokens", () =>
    Effect.gen(function* () {
      const letters = EmbeddingModelFace.make({
        name: "letters",
        model: "length",
        embed: ({ inputs }) =>
          Effect.succeed({ results: inputs.map((text) => [text.length]), usage: { inputTokens: 12 } }),
      })
      yield* play(letters.generate({ inputs: ["one", "two"] }))
      assert.deepStrictEqual(yield* countedAs("gen_ai.client.token.usage"), [
        "gen_ai.client.token.usage {operation.name=embeddings, provider.name=letters, request.model=length, token.type=input} 1 of 12",
      ])
    }).pipe(Effect.provide(observed()), isolated),
  )

  it.effect("shows what is under way while it is", () =>
    Effect.gen(function* () {
      const a = stub("a", () => says("late", 1000))
      const call = ask("generate", a.provider.pipe(Retry.with()))
      const during = Effect.delay(
        Effect.all([total("understudy.calls.running"), total("understudy.attempts.running")]),
        "500 millis",
      )
      const { exit } = yield* play(Effect.all([call, call, during], { concurrency: "unbounded" }))
      assert.deepStrictEqual(exit._tag === "Success" && exit.value[2], [2, 2])
      assert.deepStrictEqual(
        [yield* total("understudy.calls.running"), yield* total("understudy.attempts.running")],
        [0, 0],
      )
    }).pipe(Effect.provide(observed()), isolated),
  )

  it.effect("keeps so many sets of labels of each metric, and counts what is beyond them under one", () =>
    Effect.gen(function* () {
      const hear = yield* Metrics.make({ maxSeries: 3 })
      for (let n = 0; n < 50; n++) {
        const who = { at: 0, call: "c", provider: `p${n}`, model: "m" }
        hear({ event: "AttemptStarted", ...who, attempt: 1 })
        hear({ event: "AttemptStarted", ...who, attempt: 2 })
      }
      const started = yield* countedAs("understudy.attempts.started")
      assert.deepStrictEqual(started, [
        "understudy.attempts.started {otel.metric.overflow=true} 94",
        "understudy.attempts.started {provider.name=p0, request.model=m} 2",
        "understudy.attempts.started {provider.name=p1, request.model=m} 2",
        "understudy.attempts.started {provider.name=p2, request.model=m} 2",
      ])
      assert.strictEqual((yield* countedAs("understudy.attempts.running")).length, 3)
    }).pipe(isolated),
  )

  it.effect("takes only labels that it names, and no answer, prompt or control character into them", () =>
    Effect.gen(function* () {
      const hear = yield* Metrics.make({ prices: { a: { input: 1, output: 1 } } })
      for (const event of yield* anyEvents) hear(event.event === "Answered" ? { ...event, text: "PLANTED" } : event)
      hear({
        event: "CallFailed",
        at: 0,
        call: "c",
        provider: "p\u001b[31m\nq",
        failure: "PLANTED",
        attempts: 0,
        elapsedMs: 0,
      })
      const seen = new Set<string>()
      for (const { attributes = {}, id } of yield* Metric.snapshot) {
        seen.add(id)
        const known = new Set([...Metrics.instruments[id]!.labels, "unit", "otel.metric.overflow"])
        for (const [label, value] of Object.entries(attributes)) {
          assert.isTrue(known.has(label), `${id}: ${label}`)
          assert.notMatch(value, /[\p{Cc}]|PLANTED/u)
          assert.isAtMost(value.length, 128)
        }
      }
      const silent = Object.keys(Metrics.instruments).filter((name) => !seen.has(name))
      assert.deepStrictEqual(silent, ["understudy.cost.estimated", "understudy.observer.evictions"])
    }).pipe(isolated),
  )

  it.effect("adds up: attempts that began have ended or are under way, in any order of any events", () =>
    Effect.gen(function* () {
      const events = yield* anyEvents
      let never = 0
      for (let seed = 0; seed < 150; seed++) {
        yield* isolated(
          Effect.gen(function* () {
            const hear = yield* Metrics.make()
            const told: ReadonlyArray<Event> = stories(seed, 12, events)
            for (const event of told) hear(event)
            const ended = { succeeded: 0, failed: 0, interrupted: 0 }
            for (const outcome of ["succeeded", "failed", "interrupted"] as const) {
              ended[outcome] = yield* total("understudy.attempts", { "understudy.outcome": outcome })
            }
            const running = yield* total("understudy.attempts.running")
            const started = yield* total("understudy.attempts.started")
            assert.strictEqual(started, told.filter(({ event }) => event === "AttemptStarted").length)
            assert.strictEqual(started, ended.succeeded + ended.failed + ended.interrupted + running, `seed ${seed}`)
            assert.strictEqual(yield* total("understudy.events"), told.length)
            assert.strictEqual(yield* total("understudy.failures"), ended.failed)
            const calls = yield* total("understudy.calls")
            const open = yield* total("understudy.calls.running")
            assert.strictEqual(calls + open, 12)
            assert.isAtLeast(running, 0)
            never += open
          }),
        )
      }
      assert.isAbove(never, 50, "some calls never ended")
    }),
  )

  it.effect("is told of events that it does not know, and of broken ones, without a word", () =>
    Effect.gen(function* () {
      const hear = yield* Metrics.make()
      // What another version of the library, or a program without types, could tell.
      for (const odd of [{ event: "Unheard", text: "PLANTED" }, { event: "__proto__" }, { event: "AttemptStarted" }]) {
        hear(odd as unknown as Event)
      }
      assert.deepStrictEqual(yield* countedAs("understudy.events"), [
        "understudy.events {event=AttemptStarted} 1",
        "understudy.events {event=_OTHER} 2",
      ])
      assert.notInclude((yield* counted).join("\n"), "PLANTED")
    }).pipe(isolated),
  )

  it("refuses options that cannot be meant, and names them", () => {
    assert.throws(() => Metrics.layer({ prices: { a: { input: -1, output: 1 } } }), /Metrics\.layer/)
    assert.throws(() => Metrics.layer({ maxSeries: 0 }), /maxSeries/)
    // @ts-expect-error -- misspelt
    assert.throws(() => Metrics.layer({ price: {} }), /price/)
  })

  it("names metrics for Prometheus by their type and unit, and leaves those of others alone", () => {
    assert.strictEqual(Metrics.prometheusName("understudy.attempts"), "understudy_attempts_total")
    assert.strictEqual(
      Metrics.prometheusName("gen_ai.client.operation.duration"),
      "gen_ai_client_operation_duration_seconds",
    )
    assert.strictEqual(Metrics.prometheusName("understudy.circuit.state"), "understudy_circuit_state")
    assert.strictEqual(Metrics.prometheusName("http.server.requests"), "http.server.requests")
    assert.strictEqual(Metrics.prometheusName("toString"), "toString")
    const names = Object.keys(Metrics.instruments).map(Metrics.prometheusName)
    assert.strictEqual(new Set(names).size, names.length)
  })

  it("is documented, metric by metric, with types, units and labels", () => {
    const page = readFileSync(new URL("../../../docs/events.md", import.meta.url), "utf8")
    const rows = page.split("\n").flatMap((line) => {
      const cells = line.split("|").map((cell) => cell.trim().replaceAll("`", ""))
      const name = cells[1] ?? ""
      return Object.hasOwn(Metrics.instruments, name) ? [[name, cells[2], cells[3], cells[4]]] : []
    })
    assert.deepStrictEqual(
      rows,
      Object.entries(Metrics.instruments).map(([name, { labels, type, unit }]) => [
        name,
        type,
        unit,
        labels.join(", "),
      ]),
    )
  })

  it.effect("changes nothing in a call, whether it counts or not", () =>
    Effect.gen(function* () {
      const story = Effect.gen(function* () {
        const a = stub("a", inTurn(fails(failure("Overloaded", "a", { retryAfter: seconds(1) })), says("ok", 5)))
        const { exit, millis, timers } = yield* play(
          ask("stream", a.provider.pipe(CircuitBreaker.with(), Retry.with())),
        )
        return [said(exit), millis, timers, a.asked.length]
      }).pipe(Random.withSeed(1))
      const bare = yield* Effect.provide(story, Understudy.layer, { local: true })
      assert.deepStrictEqual(yield* Effect.provide(story, observed(), { local: true }), bare)
      assert.isAbove(yield* total("understudy.retries"), 0)
    }).pipe(isolated),
  )
})
