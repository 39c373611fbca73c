import { NodeHttpClient } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Call, Classifier, LanguageModelFace, LlmError, Provider, Understudy } from "@understudy/core"
import { AnthropicMessages, OpenAiChat } from "@understudy/providers"
import { Upstream } from "@understudy/testkit"
import { Effect, Fiber, Layer, Logger, Redacted, Stream, Tracer } from "effect"
import { FetchHttpClient, HttpClient, type HttpClientError } from "effect/http"
import { inspect } from "node:util"
import * as Zlib from "node:zlib"
import { failureOf, serve, shown, transport } from "./support.ts"

const planted = "sk-planted-0123456789"
const apiKey = Redacted.make(planted)
const request = LanguageModelFace.request("Hello?")

const openaiAt = (baseUrl: string) =>
  OpenAiChat.make({ name: "primary", model: "m", dialect: "openai", baseUrl, apiKey })
const claudeAt = (baseUrl: string) => AnthropicMessages.make({ name: "primary", model: "m", baseUrl, apiKey })

const clients = {
  undici: NodeHttpClient.layerUndici,
  "node:http": NodeHttpClient.layerNodeHttp,
  fetch: FetchHttpClient.layer,
}

const answer = JSON.stringify({ choices: [{ message: { content: "Hello" }, finish_reason: "stop" }] })
const chunk = (content: string) => `data: ${JSON.stringify({ choices: [{ delta: { content } }] })}\n\n`
const done = `data: ${JSON.stringify({ choices: [{ delta: {}, finish_reason: "stop" }] })}\n\ndata: [DONE]\n\n`

for (const [name, layer] of Object.entries(clients)) {
  describe(`the transport of ${name}`, () => {
    const live = Layer.mergeAll(layer)

    it.effect("answers and streams, in both dialects and over bytes that are cut anywhere", () =>
      Effect.gen(function* () {
        const wire = { chunkBytes: 1, crlf: true, comments: true, unknownFields: true, unknownEvents: true }
        const upstream = yield* Upstream.make({
          script: { steps: [Upstream.answer("Schön, 😀!", { thinking: "Hm.", tokens: 3 })], then: "repeat" },
          wire,
          recordCredentials: true,
        })
        for (const model of [openaiAt(upstream.openaiUrl), claudeAt(upstream.anthropicUrl)]) {
          assert.strictEqual(LanguageModelFace.text(yield* model.generate(request)), "Schön, 😀!")
          const parts = yield* Stream.runCollect(model.stream(request))
          assert.strictEqual(parts.map((p) => (p.type === "text-delta" ? p.delta : "")).join(""), "Schön, 😀!")
          assert.strictEqual(parts.map((p) => (p.type === "reasoning-delta" ? p.delta : "")).join(""), "Hm.")
          assert.strictEqual(parts.at(-1)?.type, "finish")
        }
        const [openai, , claude] = yield* upstream.requests
        assert.strictEqual(openai?.headers["authorization"], `Bearer ${planted}`)
        assert.strictEqual(claude?.headers["x-api-key"], planted)
      }).pipe(Effect.provide(live)),
    )

    it.effect("closes the socket when the caller is interrupted: before the headers, in an answer, in a stream", () =>
      Effect.gen(function* () {
        const upstream = yield* Upstream.make({
          script: [Upstream.hang, Upstream.silence, Upstream.hang, Upstream.stall({ afterTokens: 2 })],
        })
        const model = openaiAt(upstream.openaiUrl)
        for (const [index, run] of [
          model.generate(request),
          model.generate(request),
          Stream.runDrain(model.stream(request)),
          Stream.runDrain(model.stream(request)),
        ].entries()) {
          const fiber = yield* Effect.forkChild(run as Effect.Effect<unknown, LlmError.LlmError, HttpClient.HttpClient>)
          yield* upstream.awaitRequests(index + 1)
          yield* Fiber.interrupt(fiber)
          const { closedBy } = yield* upstream.awaitEnd(`req_${index + 1}`)
          assert.strictEqual(closedBy, "client")
        }
      }).pipe(Effect.provide(live)),
    )

    it.effect("closes the socket when a stream is left early", () =>
      Effect.gen(function* () {
        const upstream = yield* Upstream.make({ script: [Upstream.stall({ afterTokens: 2 })] })
        yield* openaiAt(upstream.openaiUrl)
          .stream(request)
          .pipe(
            Stream.filter((part) => part.type === "text-delta"),
            Stream.take(1),
            Stream.runDrain,
          )
        assert.strictEqual((yield* upstream.awaitEnd("req_1")).closedBy, "client")
      }).pipe(Effect.provide(live)),
    )

    it.effect("tells broken connections as what they are", () =>
      Effect.gen(function* () {
        const upstream = yield* Upstream.make({
          script: {
            steps: [
              Upstream.resetBeforeHeaders,
              Upstream.closeBeforeHeaders,
              Upstream.reset({ afterTokens: 2 }),
              Upstream.endEarly({ afterTokens: 2 }),
            ],
            then: "cycle",
          },
        })
        const model = openaiAt(upstream.openaiUrl)
        for (const _ of [1, 2, 3, 4]) {
          assert.strictEqual((yield* Effect.flip(model.generate(request)))._tag, "ConnectionFailed")
        }
        const streams = yield* Effect.forEach([1, 2, 3, 4], () => Effect.flip(Stream.runDrain(model.stream(request))))
        assert.deepStrictEqual(
          streams.map((f) => (f._tag === "StreamInterrupted" ? `interrupted by ${f.failure?._tag}` : f._tag)),
          ["ConnectionFailed", "ConnectionFailed", "interrupted by ConnectionFailed", "interrupted by undefined"],
        )
        yield* upstream.refuse()
        const refused = yield* Effect.flip(model.generate(request))
        assert.isTrue(LlmError.is("ConnectionFailed")(refused) && refused.fault === "refused")
      }).pipe(Effect.provide(live)),
    )

    it.effect("follows no redirect, with or without a key", () =>
      Effect.gen(function* () {
        const other = yield* Upstream.make()
        const server = yield* serve((_, response) => {
          response.writeHead(307, { location: `${other.openaiUrl}/chat/completions` }).end()
        })
        for (const model of [openaiAt(server.url), claudeAt(server.url)]) {
          const failure = yield* Effect.flip(model.generate(request))
          assert.strictEqual(failure._tag, "InvalidResponse")
          assert.strictEqual(failure.status, 307)
        }
        assert.strictEqual(yield* other.count, 0)
      }).pipe(Effect.provide(live)),
    )

    it.effect("reads compressed bodies that nobody asked for, and bounds them by their real size", () =>
      Effect.gen(function* () {
        const huge = Buffer.from(`{"choices":[{"message":{"content":"${"x".repeat(33 * 1024 * 1024)}"}}]}`)
        const bodies = [
          ["gzip", Zlib.gzipSync(answer)],
          ["deflate", Zlib.deflateSync(answer)],
          ["gzip", Zlib.gzipSync(chunk("Hel") + chunk("lo") + done)],
          ["gzip", Zlib.gzipSync(huge)],
          ["gzip", Zlib.gzipSync(answer).subarray(0, 30)],
        ] as const
        let next = 0
        const server = yield* serve((_, response) => {
          const [coding, body] = bodies[next++] ?? assert.fail("asked too often")
          response.writeHead(200, { "content-encoding": coding }).end(body)
        })
        const model = openaiAt(server.url)
        assert.strictEqual(LanguageModelFace.text(yield* model.generate(request)), "Hello")
        assert.strictEqual(LanguageModelFace.text(yield* model.generate(request)), "Hello")
        const parts = yield* Stream.runCollect(model.stream(request))
        assert.strictEqual(parts.map((p) => (p.type === "text-delta" ? p.delta : "")).join(""), "Hello")
        const failure = yield* Effect.flip(model.generate(request))
        assert.strictEqual(failure._tag, "InvalidResponse")
        assert.match(failure.message, /larger than 32 MiB/)
        const cut = yield* Effect.exit(model.generate(request))
        assert.strictEqual(cut._tag, "Failure")
      }).pipe(Effect.provide(live)),
    )
  })
}

describe("bodies", () => {
  it.effect("of an error are read up to 64 KiB, and a broken one is judged by what came", () =>
    Effect.gen(function* () {
      let next = 0
      const server = yield* serve((_, response) => {
        response.writeHead(429, { "retry-after": "7", "x-request-id": "req-1" })
        const more = () => {
          while (response.write("x".repeat(16_384)));
          response.once("drain", more)
        }
        const endless = next++ === 0
        response.write('{"error":{"message":"Rate limit reached"}', () => (endless ? more() : response.destroy()))
      })
      const model = openaiAt(server.url)
      for (const _ of ["endless", "broken"]) {
        const failure = yield* Effect.flip(model.generate(request))
        assert.strictEqual(failure._tag, "RateLimited")
        assert.strictEqual(failure.requestId, "req-1")
      }
      yield* Effect.promise(() => server.closed)
    }).pipe(Effect.provide(NodeHttpClient.layerUndici)),
  )

  it.effect("of a stream may go on behind the end marker without being waited for", () =>
    Effect.gen(function* () {
      const server = yield* serve((_, response) => {
        response.writeHead(200, { "content-type": "text/event-stream" })
        response.write(chunk("Hello") + done)
      })
      const parts = yield* Stream.runCollect(openaiAt(server.url).stream(request))
      assert.strictEqual(parts.at(-1)?.type, "finish")
      yield* Effect.promise(() => server.closed)
    }).pipe(Effect.provide(NodeHttpClient.layerUndici)),
  )

  it.effect("of an answer that is whole but for its end count as whole", () =>
    Effect.gen(function* () {
      const server = yield* serve((_, response) => {
        response.writeHead(200, { "content-type": "text/event-stream" })
        response.write(chunk("Hello") + done.replace("data: [DONE]\n\n", ""), () =>
          setTimeout(() => response.destroy(), 20),
        )
      })
      const parts = yield* Stream.runCollect(openaiAt(server.url).stream(request))
      assert.strictEqual(parts.at(-1)?.type, "finish")
    }).pipe(Effect.provide(NodeHttpClient.layerUndici)),
  )
})

describe("whatever the transport throws", () => {
  const throwing = (effect: (r: unknown) => Effect.Effect<never, HttpClientError.HttpClientError>) =>
    Layer.succeed(
      HttpClient.HttpClient,
      HttpClient.make((request) => effect(request)),
    )

  it.effect("is a failure of the union: rejections, defects and thrown errors", () =>
    Effect.gen(function* () {
      const layers = [
        throwing(() => Effect.die(new Error("boom"))),
        throwing(() => {
          throw new TypeError("thrown")
        }),
        throwing(() => Effect.promise(() => Promise.reject(new Error("rejected")))),
        throwing(() => Effect.die("a string")),
      ]
      for (const layer of layers) {
        const model = openaiAt("http://127.0.0.1:9")
        const failure = yield* Effect.flip(model.generate(request)).pipe(Effect.provide(layer))
        assert.strictEqual(failure._tag, "UnknownFailure")
        const streamed = yield* Effect.flip(Stream.runDrain(model.stream(request))).pipe(Effect.provide(layer))
        assert.strictEqual(streamed._tag, "UnknownFailure")
      }
    }),
  )

  it.effect("in the middle of a body is one too", () =>
    Effect.gen(function* () {
      let pulled = 0
      const body = () =>
        new Response(
          new ReadableStream({
            pull: (controller) => {
              if (pulled++ > 0) throw new Error("boom")
              controller.enqueue(new TextEncoder().encode(chunk("a")))
            },
          }),
        )
      const { failure } = yield* failureOf(openaiAt("http://127.0.0.1:9"), body)
      assert.isTrue(LlmError.is("StreamInterrupted")(failure) && failure.failure?._tag === "UnknownFailure")
    }),
  )
})

describe("the key", () => {
  it.effect("of a call is used instead of the configured one, and failures say whose it was", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make({
        script: { steps: [Upstream.status(401)], then: "repeat" },
        recordCredentials: true,
      })
      for (const model of [openaiAt(upstream.openaiUrl), claudeAt(upstream.anthropicUrl)]) {
        const own = yield* Effect.flip(model.generate(request))
        assert.isTrue(LlmError.is("AuthenticationFailed")(own) && own.credential === "operator")
        const called = yield* Effect.flip(model.generate(request)).pipe(
          Call.withCredential(model.name, Redacted.make(" sk-of-the-call\n")),
        )
        assert.isTrue(LlmError.is("AuthenticationFailed")(called) && called.credential === "call")
        const streamed = yield* Effect.flip(
          Stream.runDrain(model.stream(request)).pipe(Call.withCredential(model.name, Redacted.make("sk-of-the-call"))),
        )
        assert.isTrue(LlmError.is("AuthenticationFailed")(streamed) && streamed.credential === "call")
      }
      const keys = (yield* upstream.requests).map(({ headers }) => headers["authorization"] ?? headers["x-api-key"])
      assert.deepStrictEqual(keys, [
        `Bearer ${planted}`,
        "Bearer sk-of-the-call",
        "Bearer sk-of-the-call",
        planted,
        "sk-of-the-call",
        "sk-of-the-call",
      ])
    }).pipe(Effect.provide(NodeHttpClient.layerUndici)),
  )

  it.effect("may be in a header of the user's own, which only a key of the call replaces", () =>
    Effect.gen(function* () {
      const { asked, layer } = transport(answer)
      const model = OpenAiChat.make({ model: "m", apiKey, headers: { Authorization: Redacted.make("Custom own") } })
      yield* model.generate(request).pipe(Effect.provide(layer))
      yield* model
        .generate(request)
        .pipe(Call.withCredential(model.name, Redacted.make("sk-call")), Effect.provide(layer))
      assert.deepStrictEqual(
        asked.map(({ headers }) => headers["authorization"]),
        ["Custom own", "Bearer sk-call"],
      )
    }),
  )

  it.effect("that no header can carry is told before any network, and not shown", () =>
    Effect.gen(function* () {
      const { asked, layer } = transport("")
      for (const key of ["sk-geheim\nx-evil: 1", "schlüssel-geheim", "  "]) {
        const model = OpenAiChat.make({ model: "m", apiKey: Redacted.make(key) })
        const failure = yield* Effect.flip(model.generate(request)).pipe(Effect.provide(layer))
        assert.strictEqual(failure._tag, "AuthenticationFailed")
        assert.notInclude(shown(failure), "geheim")
      }
      assert.strictEqual(asked.length, 0)
    }),
  )

  it.effect("shows nowhere: not in failures, not in logs, not in spans, whatever the provider says", () =>
    Effect.gen(function* () {
      const logs: Array<unknown> = []
      const spans: Array<Tracer.Span> = []
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          spans.push(span)
          return span
        },
      })
      const echo = { error: { message: `Incorrect API key provided: ${planted}.`, code: "invalid_api_key" } }
      const steps: ReadonlyArray<Upstream.Step> = [
        Upstream.status(401, { body: echo }),
        Upstream.errorInBand({ body: echo }),
        Upstream.html({ body: `<html>${planted}</html>` }),
        Upstream.resetBeforeHeaders,
        Upstream.truncatedJson(),
        Upstream.reset({ afterTokens: 2 }),
      ]
      const upstream = yield* Upstream.make({ script: { steps, then: "cycle" } })
      const failures: Array<LlmError.LlmError> = []
      const ask = Effect.gen(function* () {
        for (const model of [openaiAt(upstream.openaiUrl), claudeAt(upstream.anthropicUrl)]) {
          for (const _ of steps) failures.push(yield* Effect.flip(model.generate(request)))
          for (const _ of steps) failures.push(yield* Effect.flip(Stream.runDrain(model.stream(request))))
        }
        for (const failure of failures) yield* Effect.logError("It failed", failure)
      })
      yield* ask.pipe(
        Effect.withTracer(tracer),
        // What a user may switch on to see more.
        Effect.provideService(HttpClient.TracerHeaderFilter, () => true),
        Effect.provide(Logger.layer([Logger.make((options) => logs.push(Logger.formatJson.log(options)))])),
      )
      for (const failure of failures) {
        assert.notInclude(shown(failure), planted, failure._tag)
        // Nor where an operator looks on purpose.
        const evidence = [failure.providerMessage, failure.cause].map((e) =>
          Redacted.isRedacted(e) ? shown(Redacted.value(e)) : "",
        )
        assert.notInclude(evidence.join(), planted, failure._tag)
      }
      assert.isAtLeast(logs.length, failures.length)
      assert.notInclude(shown(logs), planted)
      assert.isAtLeast(spans.length, failures.length)
      for (const span of spans) {
        assert.notInclude(shown([...span.attributes]), planted)
        assert.match(shown([...span.attributes]), /authorization.*<redacted>|x-api-key.*<redacted>/s)
      }
    }).pipe(Effect.provide(NodeHttpClient.layerUndici)),
  )
})

describe("providers", () => {
  it.effect("with their client need no service any more, and compose with the policies", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make({ script: [Upstream.status(401), Upstream.answer("Here")] })
      const openai = yield* OpenAiChat.connect({ model: "m", dialect: "openai", baseUrl: upstream.openaiUrl })
      const claude = yield* AnthropicMessages.connect({ model: "m", baseUrl: upstream.anthropicUrl })
      const model = Understudy.make({ candidates: [{ provider: openai }, { provider: claude, priority: 1 }] })
      const run: Effect.Effect<LanguageModelFace.Answer, LlmError.LlmError> = model
        .generate(request)
        .pipe(Effect.provide(Understudy.layer))
      assert.strictEqual(LanguageModelFace.text(yield* run), "Here")
      assert.deepStrictEqual(
        (yield* upstream.requests).map(({ dialect }) => dialect),
        ["openai", "anthropic"],
      )
    }).pipe(Effect.provide(NodeHttpClient.layerUndici)),
  )

  it.effect("ask the classifier in use, so that rules of one's own are heard", () =>
    Effect.gen(function* () {
      const rules = Classifier.layer([{ id: "ours/budget", when: { codes: ["DEPT_BUDGET"] }, tag: "QuotaExhausted" }])
      const error = JSON.stringify({ error: { code: "DEPT_BUDGET", message: "…" } })
      const statuses = transport(() => new Response(error, { status: 400 }))
      const failure = yield* Effect.flip(openaiAt("http://127.0.0.1:9").generate(request)).pipe(
        Effect.provide(Layer.merge(statuses.layer, rules)),
      )
      assert.strictEqual(failure._tag, "QuotaExhausted")
      const streamed = yield* failureOf(claudeAt("http://127.0.0.1:9"), `event: error\ndata: ${error}\n\n`).pipe(
        Effect.provide(rules),
      )
      assert.strictEqual(streamed.failure._tag, "QuotaExhausted")
    }),
  )

  it.effect("tell the request's id also for failures inside of a stream", () =>
    Effect.gen(function* () {
      const body = 'data: {"error":{"message":"overloaded","code":"server_is_overloaded"}}\n\n'
      const headers = { "x-request-id": "req-9" }
      const { failure } = yield* failureOf(openaiAt("http://127.0.0.1:9"), () => new Response(body, { headers }))
      assert.isTrue(LlmError.is("Overloaded")(failure) && failure.requestId === "req-9")
    }),
  )

  it.effect("can be given their client as a context", () =>
    Effect.gen(function* () {
      const { layer } = transport(answer)
      const model = openaiAt("http://127.0.0.1:9").pipe(Provider.provideContext(yield* Layer.build(layer)))
      assert.strictEqual(LanguageModelFace.text(yield* model.generate(request)), "Hello")
    }),
  )
})

describe("an address", () => {
  it("with a user or a password is refused, and not quoted", () => {
    for (const make of [OpenAiChat.make, AnthropicMessages.make]) {
      assert.throws(() => make({ model: "m", baseUrl: "http://user:topsecret@127.0.0.1" }), /without user and password/)
      assert.doesNotThrow(() => make({ model: "m", baseUrl: "http://127.0.0.1/v1?api-version=1" }))
    }
  })

  it.effect("with a query, which may hold a key, is in no span", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make()
      const model = OpenAiChat.make({ model: "m", baseUrl: `${upstream.openaiUrl}?api-key=sk-topsecret-q` })
      const spans: Array<Tracer.NativeSpan> = []
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          spans.push(span)
          return span
        },
      })
      yield* model.generate(request).pipe(Effect.withSpan("call"), Effect.provideService(Tracer.Tracer, tracer))
      const [seen] = yield* upstream.requests
      assert.include(seen?.query, "api-key")
      assert.isAbove(spans.length, 0)
      assert.notInclude(inspect(spans.map((span) => [...span.attributes])), "topsecret")
    }).pipe(Effect.provide(NodeHttpClient.layerUndici)),
  )
})
