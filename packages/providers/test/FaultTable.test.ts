import { NodeHttpClient } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import type { LlmError } from "@understudy/core"
import { LanguageModelFace, PolicyEvent, Understudy } from "@understudy/core"
import { AnthropicMessages, OpenAiChat } from "@understudy/providers"
import { Upstream } from "@understudy/testkit"
import { Effect, Fiber, Layer, Redacted, Stream } from "effect"
import { timed } from "./Machine.ts"

/** Clocks of every call below, in milliseconds. */
const clocks = { attempt: 300, firstContent: 300, idle: 200, streamAttempt: 700, deadline: 2000, backoff: 20 }

/** What is allowed on top of the clocks that a row may use. */
const grace = 250

type Mode = "unary" | "stream"
type Dialect = "openai" | "anthropic"

interface Expected {
  /** The tag that the last attempt ended with; nothing when it is answered. */
  readonly tag?: LlmError.Tag
  /** What a `StreamInterrupted` carries: the tag, or nothing when the stream just ended. */
  readonly inside?: LlmError.Tag | "nothing"
  readonly attempts: number
  /** The clocks that the row may use, in milliseconds. */
  readonly within: number
}

interface Row {
  readonly name: string
  readonly step: Upstream.Step
  readonly unary?: Expected
  readonly stream?: Expected
}

const attempt = { unary: clocks.attempt, stream: clocks.firstContent }
const twice = (millis: number): number => 2 * millis + clocks.backoff
const answered: Expected = { attempts: 1, within: clocks.attempt }

/** Both modes alike, but for the clock that ends them. */
const both = (tag: LlmError.Tag, attempts: number): Pick<Row, "unary" | "stream"> => ({
  unary: { tag, attempts, within: attempts === 2 ? twice(attempt.unary) : attempt.unary },
  stream: { tag, attempts, within: attempts === 2 ? twice(attempt.stream) : attempt.stream },
})

const interrupted = (inside: LlmError.Tag | "nothing", within: number): Expected => ({
  tag: "StreamInterrupted",
  inside,
  attempts: 1,
  within,
})

/** An error that both dialects know. */
const overloaded = { type: "overloaded_error", message: "Overloaded" }

const rows: ReadonlyArray<Row> = [
  { name: "a status of failure", step: Upstream.status(500), ...both("ProviderUnavailable", 2) },
  { name: "latency beyond the clock", step: Upstream.answer("late", { latency: 5000 }), ...both("TimedOut", 2) },
  {
    name: "latency within the clock",
    step: Upstream.answer("in time", { latency: 100 }),
    unary: answered,
    stream: answered,
  },
  { name: "a reset before the headers", step: Upstream.resetBeforeHeaders, ...both("ConnectionFailed", 2) },
  { name: "a clean close before the headers", step: Upstream.closeBeforeHeaders, ...both("ConnectionFailed", 2) },
  { name: "a hang before the headers", step: Upstream.hang, ...both("TimedOut", 2) },
  { name: "headers, then silence", step: Upstream.silence, ...both("TimedOut", 2) },
  {
    name: "some tokens, then a stall",
    step: Upstream.stall({ afterTokens: 3 }),
    unary: { tag: "TimedOut", attempts: 2, within: twice(attempt.unary) },
    stream: interrupted("TimedOut", clocks.firstContent + clocks.idle),
  },
  {
    name: "some tokens, then a reset",
    step: Upstream.reset({ afterTokens: 3 }),
    unary: { tag: "ConnectionFailed", attempts: 2, within: twice(attempt.unary) },
    stream: interrupted("ConnectionFailed", clocks.firstContent),
  },
  {
    name: "some tokens, then a clean end without the end marker",
    step: Upstream.endEarly({ afterTokens: 3 }),
    unary: { tag: "ConnectionFailed", attempts: 2, within: twice(attempt.unary) },
    stream: interrupted("nothing", clocks.firstContent),
  },
  {
    name: "a slow drip within the gap between parts",
    step: Upstream.slowDrip({ every: "120 millis", tokens: 30 }),
    unary: { tag: "TimedOut", attempts: 2, within: twice(attempt.unary) },
    stream: interrupted("TimedOut", clocks.streamAttempt),
  },
  {
    name: "an error in band, first",
    step: Upstream.errorInBand({ error: overloaded }),
    stream: { tag: "Overloaded", attempts: 2, within: twice(attempt.stream) },
  },
  {
    name: "an error in band, in the middle",
    step: Upstream.errorInBand({ afterTokens: 3, error: overloaded }),
    stream: interrupted("Overloaded", clocks.firstContent),
  },
  {
    name: "truncated JSON",
    step: Upstream.truncatedJson({ afterTokens: 3 }),
    unary: { tag: "InvalidResponse", attempts: 2, within: twice(attempt.unary) },
    stream: interrupted("InvalidResponse", clocks.firstContent),
  },
  { name: "HTML under 200", step: Upstream.html(), ...both("InvalidResponse", 2) },
  {
    name: "empty choices",
    step: Upstream.emptyChoices(),
    unary: { tag: "InvalidResponse", attempts: 2, within: twice(attempt.unary) },
  },
  { name: "missing usage", step: Upstream.missingUsage(), unary: answered, stream: answered },
]

const request = LanguageModelFace.request("What is said in the prologue?")
const apiKey = Redacted.make("sk-planted-key")

const modelFor = (dialect: Dialect, upstream: Upstream.Running) =>
  Understudy.make({
    candidates: [
      {
        provider:
          dialect === "openai"
            ? OpenAiChat.make({ name: "primary", model: "m", baseUrl: upstream.openaiUrl, apiKey })
            : AnthropicMessages.make({ name: "primary", model: "m", baseUrl: upstream.anthropicUrl, apiKey }),
      },
    ],
    timeouts: {
      attempt: clocks.attempt,
      firstContent: clocks.firstContent,
      idle: clocks.idle,
      streamAttempt: clocks.streamAttempt,
    },
    retry: { times: 1, base: clocks.backoff, jitter: "none" },
    deadline: { generate: clocks.deadline, stream: clocks.deadline },
  })

const ask = (dialect: Dialect, mode: Mode, upstream: Upstream.Running) => {
  const model = modelFor(dialect, upstream)
  return mode === "unary" ? Effect.asVoid(model.generate(request)) : Stream.runDrain(model.stream(request))
}

const last = (failure: LlmError.LlmError): LlmError.LlmError =>
  failure._tag === "AllProvidersFailed" ? (failure.failures.at(-1) ?? failure) : failure

const services = Layer.mergeAll(Understudy.layer, NodeHttpClient.layerUndici)

const modes = (row: Row): ReadonlyArray<readonly [Mode, Expected]> => [
  ...(row.unary === undefined ? [] : [["unary", row.unary] as const]),
  ...(row.stream === undefined ? [] : [["stream", row.stream] as const]),
]

for (const dialect of ["openai", "anthropic"] as const) {
  describe(`the fault table over real sockets, ${dialect}`, () => {
    for (const row of rows) {
      for (const [mode, expected] of modes(row)) {
        it.live(`${row.name}, ${mode}: ${expected.tag ?? "answered"} after ${expected.attempts}, in time`, () =>
          Effect.gen(function* () {
            const upstream = yield* Upstream.make({ script: { steps: [row.step], then: "repeat" } })
            const events: Array<PolicyEvent.PolicyEvent> = []
            const { own, value: outcome } = yield* ask(dialect, mode, upstream).pipe(
              PolicyEvent.observe((event) => events.push(event)),
              Effect.result,
              timed,
            )
            if (expected.tag === undefined) {
              assert.strictEqual(outcome._tag, "Success")
            } else {
              if (outcome._tag !== "Failure") return assert.fail("it was answered")
              const failure = last(outcome.failure)
              assert.strictEqual(failure._tag, expected.tag, failure.message)
              if (failure._tag === "StreamInterrupted") {
                assert.strictEqual(failure.failure?._tag ?? "nothing", expected.inside ?? "nothing")
              }
            }
            assert.strictEqual(
              events.filter((event) => event.event === "AttemptStarted").length,
              expected.attempts,
              "attempts",
            )
            assert.strictEqual(yield* upstream.count, expected.attempts, "requests that arrived")
            assert.isBelow(own, expected.within + grace, "time")
          }).pipe(Effect.scoped, Effect.provide(services)),
        )

        it.live(`${row.name}, ${mode}: the socket is closed when the caller is interrupted`, () =>
          Effect.gen(function* () {
            const slowly: Upstream.Step = { ...row.step, latency: row.step.latency ?? "5 seconds" }
            // Faults that hang by themselves are interrupted while they do; all others before they answer.
            const hangs = "fault" in row.step && ["hang", "silence", "stall"].includes(row.step.fault)
            const upstream = yield* Upstream.make({ script: { steps: [hangs ? row.step : slowly], then: "repeat" } })
            const fiber = yield* Effect.forkChild(ask(dialect, mode, upstream))
            const [seen] = yield* upstream.awaitRequests(1)
            yield* Effect.sleep("30 millis")
            yield* Fiber.interrupt(fiber)
            const connection = yield* upstream.awaitClosed(seen!.id).pipe(Effect.timeout("1 second"))
            assert.strictEqual(connection.closedBy, "client")
            assert.strictEqual(yield* upstream.count, 1)
          }).pipe(Effect.scoped, Effect.provide(services)),
        )
      }
    }

    for (const mode of ["unary", "stream"] as const) {
      it.live(`a port that refuses, ${mode}: ConnectionFailed after 2, and answered once it accepts again`, () =>
        Effect.gen(function* () {
          const upstream = yield* Upstream.make()
          yield* upstream.refuse()
          const { own, value: failure } = yield* timed(Effect.flip(ask(dialect, mode, upstream)))
          assert.isBelow(own, twice(attempt[mode]) + grace)
          const cause = last(failure)
          assert.strictEqual(cause._tag, "ConnectionFailed")
          if (cause._tag === "ConnectionFailed") assert.strictEqual(cause.fault, "refused")
          assert.strictEqual(failure._tag === "AllProvidersFailed" ? failure.failures.length : 0, 2)
          yield* upstream.accept
          yield* ask(dialect, mode, upstream)
        }).pipe(Effect.scoped, Effect.provide(services)),
      )
    }
  })
}
