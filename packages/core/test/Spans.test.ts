import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Layer, Metric, Option, Scope, Stream, Tracer } from "effect"
import { TestClock } from "effect/testing"
import { type LlmError, type PolicyEvent, Retry, Spans, Timeouts, Understudy } from "@understudy/core"
import { readFileSync } from "node:fs"
import { names } from "../src/internal/events/facts.ts"
import { anyEvents, stories } from "./PolicyEvent.stories.ts"
import {
  ask,
  fails,
  failure,
  Foreign,
  hangs,
  inTurn,
  kinds,
  play,
  question,
  type Reply,
  say,
  says,
  start,
  streams,
  stub,
  timed,
} from "./stub.ts"

type Event = PolicyEvent.PolicyEvent

/** A tracer that remembers its spans. */
const tracer = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const made = Tracer.make({
    span(options) {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    },
  })
  return { spans, tracer: made, layer: Layer.succeed(Tracer.Tracer)(made) }
}

const millis = (nanos: bigint): number => Number(nanos) / 1_000_000

const parentOf = (span: Tracer.Span): string | undefined => Option.getOrUndefined(span.parent)?.spanId

const endOf = (span: Tracer.Span): string => {
  if (span.status._tag === "Started") return "running"
  const { exit } = span.status
  if (exit._tag === "Success") return "ok"
  return Cause.hasInterruptsOnly(exit.cause) ? "interrupted" : `error ${Cause.prettyErrors(exit.cause)[0]!.message}`
}

/** A span as a line: its depth, its name, when it ran, and how it ended. */
const lineOf = (spans: ReadonlyArray<Tracer.NativeSpan>, span: Tracer.NativeSpan): string => {
  let depth = 0
  for (let up = parentOf(span); up !== undefined; depth++) {
    const parent = spans.find(({ spanId }) => spanId === up)
    up = parent === undefined ? undefined : parentOf(parent)
  }
  const begin = millis(spans[0]!.status.startTime)
  const from = millis(span.status.startTime) - begin
  const to = span.status._tag === "Ended" ? millis(span.status.endTime) - begin : "…"
  return `${"  ".repeat(depth)}${span.name} ${from}-${to} ${endOf(span)}`
}

const attributesOf = (span: Tracer.Span): Readonly<Record<string, unknown>> => Object.fromEntries(span.attributes)

const observed = Layer.mergeAll(Spans.layer(), Understudy.layer)

/** Everything in spans that is text. */
const everything = (spans: ReadonlyArray<Tracer.NativeSpan>): string =>
  JSON.stringify(
    spans.map((span) => [
      span.name,
      attributesOf(span),
      span.events.map(([name, , attributes]) => [name, attributes]),
      span.status._tag === "Ended" && span.status.exit._tag === "Failure"
        ? Cause.prettyErrors(span.status.exit.cause).map(({ message, name, stack }) => [message, name, stack])
        : [],
    ]),
  )

describe("Spans", () => {
  it.effect("shows a call below the span of its caller, and below it each attempt, when it was", () => {
    const { layer, spans } = tracer()
    return Effect.gen(function* () {
      const a = stub("a", () => fails(failure("Overloaded", "a", { status: 529 }), 20))
      const b = stub("b", () => says("the answer", 30))
      const model = Understudy.make({
        candidates: [{ provider: a.provider }, { provider: b.provider }],
        retry: { times: 1, jitter: "none" },
        name: "both",
      })
      yield* play(Effect.withSpan(ask("generate", model), "caller"))
      assert.deepStrictEqual(
        spans.map((span) => lineOf(spans, span)),
        [
          "caller 0-570 ok",
          "  understudy.call 0-570 ok",
          "    chat a-1 0-20 error Overloaded",
          "    chat a-1 520-540 error Overloaded",
          "    chat b-1 540-570 ok",
        ],
      )
      const [, call, first, , last] = spans
      assert.deepStrictEqual(
        spans.map(({ kind }) => kind),
        ["internal", "internal", "client", "client", "client"],
      )
      assert.deepInclude(attributesOf(call!), {
        "understudy.composition": "both",
        "gen_ai.provider.name": "b",
        "gen_ai.request.model": "b-1",
        "understudy.attempts": 3,
        "understudy.failovers": 1,
      })
      assert.deepInclude(attributesOf(first!), {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "a",
        "gen_ai.request.model": "a-1",
        "gen_ai.request.stream": false,
        "understudy.attempt": 1,
        "error.type": "Overloaded",
        "http.response.status_code": 529,
      })
      assert.deepInclude(attributesOf(last!), {
        "understudy.attempt": 3,
        "understudy.failover.from": "a",
        "understudy.failover.reason": "Overloaded",
      })
      assert.deepStrictEqual(
        call!.events.map(([name, at]) => [name, millis(at) - millis(call!.startTime)]),
        [
          ["understudy.backed_off", 20],
          ["understudy.failed_over", 540],
        ],
      )
    }).pipe(Effect.provide(Layer.mergeAll(observed, layer)))
  })

  it.effect(
    "puts first content, tokens, model and finish of a stream on its attempt, and sums of tokens on the call",
    () => {
      const { layer, spans } = tracer()
      return Effect.gen(function* () {
        const usage = (n: number) => ({ inputTokens: { total: n, cacheRead: 5 }, outputTokens: { total: 2 * n } })
        const answered: Reply<never> = {
          whole: Effect.never,
          parts: timed(
            [0, { type: "response-metadata", modelId: "a-1-2026-10-01" }],
            [250, say("ok")],
            [400, { type: "finish", reason: "stop", usage: usage(30) }],
          ),
        }
        const filtered: Reply<never> = {
          whole: Effect.never,
          parts: timed([0, start], [100, { type: "finish", reason: "content-filter", usage: usage(10) }]),
        }
        const a = stub("a", () => filtered)
        const b = stub("b", () => answered)
        const model = Understudy.make({
          candidates: [{ provider: a.provider }, { provider: b.provider }],
          whenFiltered: "next",
        })
        yield* play(ask("stream", model))
        assert.deepStrictEqual(
          spans.map((span) => lineOf(spans, span)),
          ["understudy.call 0-500 ok", "  chat a-1 0-100 error ContentFiltered", "  chat b-1 100-500 ok"],
        )
        const [call, , attempt] = spans
        assert.deepInclude(attributesOf(attempt!), {
          "gen_ai.request.stream": true,
          "gen_ai.response.time_to_first_chunk": 0.25,
          "gen_ai.response.model": "a-1-2026-10-01",
          "gen_ai.response.finish_reasons": ["stop"],
          "gen_ai.usage.input_tokens": 30,
          "gen_ai.usage.output_tokens": 60,
          "gen_ai.usage.cache_read.input_tokens": 5,
        })
        assert.deepStrictEqual(
          attempt!.events.map(([name, at]) => [name, millis(at) - millis(attempt!.startTime)]),
          [["understudy.committed", 250]],
        )
        // A stream that failed before its first content tells no tokens.
        assert.deepInclude(attributesOf(call!), {
          "understudy.usage.input_tokens": 30,
          "understudy.usage.output_tokens": 60,
        })
        assert.isUndefined(attributesOf(call!)["gen_ai.usage.input_tokens"])
      }).pipe(Effect.provide(Layer.mergeAll(observed, layer)))
    },
  )

  it.effect("ends the spans of a call that its caller interrupts at that instant, as interrupted", () => {
    const { layer, spans } = tracer()
    return Effect.gen(function* () {
      const a = stub("a", () => hangs)
      yield* play(Effect.timeoutOption(ask("generate", a.provider), "700 millis"))
      const b = stub("b", () => streams(timed([0, say("one")], [100, say("two")], [99_000, say("late")])))
      yield* play(Stream.runDrain(Stream.take(b.provider.stream(question), 2)))
      assert.deepStrictEqual(
        spans.map((span) => lineOf(spans, span)),
        [
          "understudy.call 0-700 interrupted",
          "  chat a-1 0-700 interrupted",
          "understudy.call 700-800 interrupted",
          "  chat b-1 700-800 interrupted",
        ],
      )
    }).pipe(Effect.provide(Layer.mergeAll(observed, layer)))
  })

  it.effect("shows what circuits decided, and that a call failed", () => {
    const { layer, spans } = tracer()
    return Effect.gen(function* () {
      const a = stub("a", () => fails(failure("ModelNotFound")))
      const model = Understudy.make({ candidates: [{ provider: a.provider }] })
      yield* play(ask("generate", model))
      yield* play(ask("generate", model))
      const [first, , second] = spans
      assert.deepStrictEqual([endOf(first!), endOf(second!)], ["error AllProvidersFailed", "error AllProvidersFailed"])
      assert.strictEqual(attributesOf(first!)["error.type"], "AllProvidersFailed")
      assert.deepStrictEqual(
        [first!, second!].map(({ events }) =>
          events.map(([name, , attributes]) => [name, attributes?.["understudy.circuit.key"]]),
        ),
        [[["understudy.circuit.opened", "a/a-1"]], [["understudy.circuit.rejected", "a/a-1"]]],
      )
    }).pipe(Effect.provide(Layer.mergeAll(observed, layer)))
  })

  it.effect("uses the tracer, the parent and the sampling that the call has, not those of the layer", () => {
    const outer = tracer()
    const inner = tracer()
    return Effect.gen(function* () {
      const a = stub("a", () => says("ok", 10))
      yield* play(
        Effect.provide(Effect.withSpan(ask("generate", a.provider), "inside", { sampled: false }), inner.layer),
      )
      assert.deepStrictEqual(
        inner.spans.map(({ name, sampled }) => [name, sampled]),
        [
          ["inside", false],
          ["understudy.call", false],
          ["chat a-1", false],
        ],
      )
      assert.strictEqual(outer.spans.length, 0)
      yield* play(Effect.withTracerEnabled(ask("generate", a.provider), false))
      assert.strictEqual(outer.spans.length, 0)
      yield* play(Effect.annotateSpans(ask("generate", a.provider), "tenant", "t1"))
      assert.deepStrictEqual(
        outer.spans.map((span) => attributesOf(span)["tenant"]),
        ["t1", "t1"],
      )
    }).pipe(Effect.provide(Layer.mergeAll(observed, outer.layer)))
  })

  it.effect("holds nothing of prompts, answers, keys or what a provider said", () => {
    const { layer, spans } = tracer()
    return Effect.gen(function* () {
      const planted = "PLANTED sk-SECRET0123456789"
      const evil: Reply<LlmError.LlmError | Foreign> = {
        whole: Effect.succeed([
          { type: "response-metadata", modelId: planted },
          { type: "text", text: planted },
          { type: "finish", reason: planted as "stop", usage: { inputTokens: {}, outputTokens: {} } },
        ]),
        parts: timed([0, { type: "response-metadata", modelId: "sk-SECRET0123456789" }], [1, say(planted)]),
      }
      const a = stub<LlmError.LlmError | Foreign>("a", inTurn(evil, evil, fails(new Foreign(planted))))
      for (const kind of [...kinds, "generate"] as const) yield* play(ask(kind, a.provider))
      assert.deepStrictEqual(spans.filter(({ name }) => name === "understudy.call").map(endOf), [
        "ok",
        "error StreamInterrupted",
        "error Foreign",
      ])
      assert.notMatch(everything(spans), /PLANTED|SECRET|Dune/)
      assert.notInclude(everything(spans), ".ts:", "no stack")
    }).pipe(Effect.provide(Layer.mergeAll(observed, layer)))
  })

  it.effect("forgets the oldest of too many calls that never end, ends their spans, and counts them", () => {
    const { layer, spans } = tracer()
    return Effect.gen(function* () {
      const hear = yield* Spans.make({ maxCalls: 10 })
      for (let n = 0; n < 25; n++) {
        const call = { at: 0, call: `call-${n}`, provider: "a" }
        hear({ event: "CallStarted", ...call })
        hear({ event: "AttemptStarted", ...call, attempt: 1 })
      }
      const calls = spans.filter(({ name }) => name === "understudy.call")
      assert.strictEqual(calls.length, 25)
      assert.deepStrictEqual(calls.map(endOf), [...Array(15).fill("interrupted"), ...Array(10).fill("running")])
      const gone = spans.filter((span) => attributesOf(span)["understudy.abandoned"] === true)
      assert.strictEqual(gone.length, 30)
      const counter = (yield* Metric.snapshot).find(({ id }) => id === "understudy.observer.evictions")
      assert.deepStrictEqual(counter?.attributes, { "understudy.observer": "spans", unit: "{call}" })
      assert.deepInclude(counter?.state, { count: 15 })
      // A late end of one that was let go is no end of anything.
      hear({ event: "CallInterrupted", at: 0, call: "call-0", provider: "a", attempts: 1, elapsedMs: 1 })
      assert.strictEqual(spans.length, 50)
    }).pipe(Effect.scoped, Effect.provide(layer), Effect.provideService(Metric.MetricRegistry, new Map()))
  })

  it.effect("ends the spans of calls under way when nobody listens any more", () => {
    const { layer, spans } = tracer()
    return Effect.gen(function* () {
      const scope = yield* Scope.make()
      const hear = yield* Scope.provide(Spans.make(), scope)
      hear({ event: "CallStarted", at: 0, call: "c", provider: "a" })
      hear({ event: "AttemptStarted", at: 0, call: "c", provider: "a", attempt: 1 })
      assert.deepStrictEqual(spans.map(endOf), ["running", "running"])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(spans.map(endOf), ["interrupted", "interrupted"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("is well nested and whole at the end of each call, whatever happens and however many run at once", () =>
    Effect.gen(function* () {
      const events = yield* anyEvents
      let overlapping = 0
      for (let seed = 0; seed < 150; seed++) {
        const { spans, tracer: made } = tracer()
        const told = stories(seed, 12, events)
        yield* Effect.gen(function* () {
          const hear = yield* Spans.make()
          for (const event of told) {
            yield* TestClock.setTime(event.at)
            hear(event)
          }
          const ended = new Set(told.filter((event) => "attempts" in event).map(({ call }) => call))
          for (const span of spans) {
            const call = attributesOf(span)["understudy.call.id"]
            // An attempt can be over while its call is not.
            if (ended.has(String(call)) || span.name === "understudy.call") {
              assert.strictEqual(span.status._tag === "Ended", ended.has(String(call)), `seed ${seed}: ${span.name}`)
            }
          }
        }).pipe(Effect.scoped, Effect.provideService(Tracer.Tracer, made))
        const calls = new Map(spans.filter(({ name }) => name === "understudy.call").map((span) => [span.spanId, span]))
        assert.strictEqual(calls.size, 12)
        assert.strictEqual(spans.length - calls.size, told.filter(({ event }) => event === "AttemptStarted").length)
        for (const span of spans) {
          assert.strictEqual(span.status._tag, "Ended", `seed ${seed}: ${span.name} once nobody listens`)
          const parent = calls.get(parentOf(span) ?? "")
          if (span.status._tag === "Started" || parent === undefined) continue
          const whole = parent.status
          assert.isTrue(whole._tag === "Ended" && whole.endTime >= span.status.endTime, "within its call")
          assert.isTrue(whole.startTime <= span.status.startTime && span.status.startTime <= span.status.endTime)
          const { endTime } = span.status
          overlapping += spans.filter(
            (other) =>
              other !== span &&
              parentOf(other) === parent.spanId &&
              other.startTime >= span.startTime &&
              other.startTime < endTime,
          ).length
        }
      }
      assert.isAbove(overlapping, 500, "attempts beside each other")
    }),
  )

  it.effect("hears any events in any order, and events that it does not know, without a word", () => {
    const { layer, spans } = tracer()
    return Effect.gen(function* () {
      const hear = yield* Spans.make({ maxCalls: 50 })
      for (const event of yield* anyEvents) hear(event.event === "Answered" ? { ...event, text: "PLANTED" } : event)
      for (const odd of [{ event: "Unheard", call: "c" }, { event: "toString" }]) hear(odd as unknown as Event)
      assert.isAbove(spans.length, 30)
      assert.notInclude(everything(spans), "PLANTED")
    }).pipe(Effect.scoped, Effect.provide(layer))
  })

  it("has its attributes documented, each by its name", () => {
    const page = readFileSync(new URL("../../../docs/events.md", import.meta.url), "utf8")
    const documented = new Set([...page.matchAll(/`([a-z_]+(?:\.[a-z_]+)+)`/g)].map(([, name]) => name))
    for (const [field, name] of Object.entries(names)) {
      if (name !== undefined) assert.isTrue(documented.has(name), `${field}: ${name}`)
    }
  })

  it.effect("changes nothing in a call, even when its tracer throws", () => {
    const broken = Layer.succeed(Tracer.Tracer)(
      Tracer.make({
        span() {
          throw new Error("a tracer's bug")
        },
      }),
    )
    return Effect.gen(function* () {
      const a = stub("a", inTurn(fails(failure("Overloaded")), says("ok")))
      const { exit } = yield* play(
        ask("generate", a.provider.pipe(Timeouts.with(), Retry.with())).pipe(Effect.provide(broken)),
      )
      assert.deepStrictEqual(exit, Exit.succeed("ok"))
    }).pipe(Effect.provide(observed))
  })
})
