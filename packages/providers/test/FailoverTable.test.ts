import { NodeHttpClient } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import type { LlmError } from "@understudy/core"
import { LanguageModelFace, PolicyEvent, Timeouts, Understudy } from "@understudy/core"
import { AnthropicMessages, OpenAiChat } from "@understudy/providers"
import { Upstream } from "@understudy/testkit"
import { Effect, Fiber, Layer, Redacted, Stream } from "effect"
import { timed } from "./Machine.ts"

/** Clocks of every call below, in milliseconds. */
const clocks = { attempt: 500, firstContent: 500, idle: 300, streamAttempt: 1500, deadline: 6000, backoff: 300 }

/** What is allowed on top of the clocks that a row may use. */
const grace = 300

type Dialect = "openai" | "anthropic"

interface Expected {
  /** Who answers; or the tag that the call fails with, that of the last attempt where every provider failed. */
  readonly by: "first" | "second" | LlmError.Tag
  /** Requests that arrive at the first and at the second. */
  readonly requests: readonly [number, number]
  /** The time that the row may use, and must at least. */
  readonly within: number
  readonly atLeast?: number
  /** What a `StreamInterrupted` carries. */
  readonly inside?: LlmError.Tag
}

interface Row {
  readonly name: string
  readonly steps: ReadonlyArray<Upstream.Step>
  /** Is there a second candidate, and with which context window? */
  readonly second: boolean | number
  readonly unary?: Expected
  readonly stream?: Expected
}

const both = (expected: Expected): Pick<Row, "unary" | "stream"> => ({ unary: expected, stream: expected })

const tooLong = Upstream.status(400, {
  body: { error: { message: "This model's maximum context length is 8192 tokens.", code: "context_length_exceeded" } },
})

/** The second candidate answers at once; what takes time is only what the first one takes. */
const rows: ReadonlyArray<Row> = [
  {
    name: "429 twice, and then an answer",
    steps: [Upstream.status(429), Upstream.status(429), Upstream.answer("third")],
    second: false,
    ...both({ by: "first", requests: [3, 0], atLeast: 3 * clocks.backoff, within: 3 * clocks.backoff }),
  },
  {
    name: "always 429, with a second candidate: backoffs within the patience, and over",
    steps: [Upstream.status(429)],
    second: true,
    ...both({ by: "second", requests: [3, 1], atLeast: 3 * clocks.backoff, within: 3 * clocks.backoff }),
  },
  {
    name: "always 500, with a second candidate: nobody waits out the backoffs",
    steps: [Upstream.status(500)],
    second: true,
    ...both({ by: "second", requests: [2, 1], within: clocks.backoff }),
  },
  {
    name: "429 with a hint of 2 seconds: at least so long is waited",
    steps: [Upstream.status(429, { headers: { "retry-after": 2 } }), Upstream.answer("later")],
    second: false,
    ...both({ by: "first", requests: [2, 0], atLeast: 2000, within: 2200 }),
  },
  {
    name: "429 with a hint of 30 seconds, with a second candidate: over at once",
    steps: [Upstream.status(429, { headers: { "retry-after": 30 } })],
    second: true,
    ...both({ by: "second", requests: [1, 1], within: 0 }),
  },
  {
    name: "a hang, with a second candidate: over when the clock is out",
    steps: [Upstream.hang],
    second: true,
    ...both({ by: "second", requests: [1, 1], atLeast: clocks.attempt, within: clocks.attempt }),
  },
  {
    name: "a hang, alone: asked again, and a timeout then",
    steps: [Upstream.hang],
    second: false,
    ...both({ by: "TimedOut", requests: [3, 0], within: 3 * (clocks.attempt + clocks.backoff) }),
  },
  {
    name: "headers, then silence, with a second candidate: over when the clock is out",
    steps: [Upstream.silence],
    second: true,
    ...both({ by: "second", requests: [1, 1], atLeast: clocks.firstContent, within: clocks.firstContent }),
  },
  {
    name: "one token, then a stall: an answer is asked elsewhere, a stream is interrupted in time",
    steps: [Upstream.stall({ afterTokens: 1 })],
    second: true,
    unary: { by: "second", requests: [1, 1], within: clocks.attempt },
    stream: {
      by: "StreamInterrupted",
      inside: "TimedOut",
      requests: [1, 0],
      within: clocks.firstContent + clocks.idle,
    },
  },
  {
    name: "a reset after one token: an answer is asked elsewhere, a stream never looks complete",
    steps: [Upstream.reset({ afterTokens: 1 })],
    second: true,
    unary: { by: "second", requests: [3, 1], within: 3 * clocks.backoff },
    stream: { by: "StreamInterrupted", inside: "ConnectionFailed", requests: [1, 0], within: 0 },
  },
  {
    name: "an error in band, first, with a second candidate: it is a failure, and not content",
    steps: [Upstream.errorInBand({ error: { type: "overloaded_error", message: "Overloaded" } })],
    second: true,
    stream: { by: "second", requests: [3, 1], within: 3 * clocks.backoff },
  },
  {
    name: "truncated JSON under 200, with a second candidate",
    steps: [Upstream.truncatedJson()],
    second: true,
    unary: { by: "second", requests: [3, 1], within: 3 * clocks.backoff },
  },
  {
    name: "a reset before the headers, with a second candidate",
    steps: [Upstream.resetBeforeHeaders],
    second: true,
    ...both({ by: "second", requests: [3, 1], within: 3 * clocks.backoff }),
  },
  {
    name: "502 with HTML, with a second candidate",
    steps: [Upstream.status(502, { body: "<html><title>Bad gateway</title></html>" })],
    second: true,
    ...both({ by: "second", requests: [2, 1], within: clocks.backoff }),
  },
  {
    name: "502 with HTML, alone: a failure of the union, without the page",
    steps: [Upstream.status(502, { body: "<html><title>Bad gateway</title></html>" })],
    second: false,
    ...both({ by: "ProviderUnavailable", requests: [2, 0], within: clocks.backoff }),
  },
  {
    name: "a prompt that is too long: not shopped around among equals",
    steps: [tooLong],
    second: 8192,
    ...both({ by: "ContextLengthExceeded", requests: [1, 0], within: 0 }),
  },
  {
    name: "a prompt that is too long: asked where the window is larger",
    steps: [tooLong],
    second: 128_000,
    ...both({ by: "second", requests: [1, 1], within: 0 }),
  },
]

const request = LanguageModelFace.request("What is said in the prologue?")
const apiKey = Redacted.make("sk-planted-key")

const providerOf = (dialect: Dialect, name: string, upstream: Upstream.Running) =>
  dialect === "openai"
    ? OpenAiChat.make({ name, model: "m", baseUrl: upstream.openaiUrl, apiKey })
    : AnthropicMessages.make({ name, model: "m", baseUrl: upstream.anthropicUrl, apiKey })

const services = Layer.mergeAll(Understudy.layer, NodeHttpClient.layerUndici)

for (const dialect of ["openai", "anthropic"] as const) {
  describe.concurrent(`the failover table over real sockets, ${dialect}`, () => {
    for (const row of rows) {
      for (const mode of ["unary", "stream"] as const) {
        const expected = row[mode]
        if (expected === undefined) continue
        it.live(`${row.name}, ${mode}: ${expected.by}`, () =>
          Effect.gen(function* () {
            const first = yield* Upstream.make({ script: { steps: row.steps, then: "repeat" } })
            const second = yield* Upstream.make({
              script: { steps: [Upstream.answer("I am the second.")], then: "repeat" },
            })
            const model = Understudy.make({
              candidates: [
                { provider: providerOf(dialect, "first", first), contextWindow: 8192 },
                {
                  provider: providerOf(dialect, "second", second),
                  priority: 1,
                  enabled: row.second !== false,
                  ...(typeof row.second === "number" ? { contextWindow: row.second } : {}),
                },
              ],
              timeouts: {
                attempt: clocks.attempt,
                firstContent: clocks.firstContent,
                idle: clocks.idle,
                streamAttempt: clocks.streamAttempt,
              },
              retry: { times: 2, base: clocks.backoff, jitter: "none" },
              deadline: { generate: clocks.deadline, stream: clocks.deadline },
            })
            const events: Array<PolicyEvent.PolicyEvent> = []
            const asked =
              mode === "unary" ? Effect.asVoid(model.generate(request)) : Stream.runDrain(model.stream(request))
            const {
              own,
              took,
              value: outcome,
            } = yield* asked.pipe(
              PolicyEvent.observe((event) => events.push(event)),
              Effect.result,
              timed,
            )
            if (outcome._tag === "Success") {
              const answered = events.find((event) => event.event === "Answered")
              assert.strictEqual(answered?.provider, expected.by)
            } else {
              const { failure } = outcome
              const last = failure._tag === "AllProvidersFailed" ? (failure.failures.at(-1) ?? failure) : failure
              assert.strictEqual(last._tag, expected.by, failure.message)
              assert.notMatch(JSON.stringify(failure) + failure.message, /Bad gateway|sk-planted/)
              if (last._tag === "StreamInterrupted") assert.strictEqual(last.failure?._tag, expected.inside)
            }
            assert.deepStrictEqual(
              [yield* first.count, yield* second.count],
              expected.requests,
              "requests that arrived",
            )
            assert.isBelow(own, expected.within + grace, "time at most")
            assert.isAtLeast(took, (expected.atLeast ?? 0) - 2, "time at least")
          }).pipe(Effect.scoped, Effect.provide(services)),
        )
      }
    }

    it.live("a stream without headers: the clock of headers ends it, and one with headers is not ended by it", () =>
      Effect.gen(function* () {
        const first = yield* Upstream.make({ script: { steps: [Upstream.hang, Upstream.silence], then: "cycle" } })
        const model = providerOf(dialect, "first", first).pipe(
          Timeouts.with({ headers: "500 millis", firstContent: "1 second" }),
        )
        for (const [phase, millis] of [
          ["headers", 500],
          ["first content", 1000],
        ] as const) {
          const { own, took, value: failure } = yield* timed(Effect.flip(Stream.runDrain(model.stream(request))))
          assert.isTrue(failure._tag === "TimedOut" && failure.phase === phase, failure.message)
          assert.isAtLeast(took, millis - 2)
          assert.isBelow(own, millis + grace)
        }
      }).pipe(Effect.scoped, Effect.provide(services)),
    )

    it.live("a client that leaves: the request upstream is cancelled within a second, and nobody else is asked", () =>
      Effect.gen(function* () {
        const first = yield* Upstream.make({ script: { steps: [Upstream.hang], then: "repeat" } })
        const second = yield* Upstream.make()
        const model = Understudy.make({
          candidates: [
            { provider: providerOf(dialect, "first", first) },
            { provider: providerOf(dialect, "second", second), priority: 1 },
          ],
        })
        const fiber = yield* Effect.forkChild(model.generate(request))
        const [seen] = yield* first.awaitRequests(1)
        yield* Fiber.interrupt(fiber)
        const connection = yield* first.awaitClosed(seen!.id).pipe(Effect.timeout("1 second"))
        assert.strictEqual(connection.closedBy, "client")
        assert.strictEqual(yield* second.count, 0)
      }).pipe(Effect.scoped, Effect.provide(services)),
    )
  })
}
