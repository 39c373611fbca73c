/**
 * Nothing secret leaves: a key and the provider's words are planted wherever a
 * failure can meet them, for every tag, and then everything that anyone can see
 * of it is searched: messages, JSON, inspection, logs, spans, policy events and
 * HTTP responses in all their forms. The same search with the redaction taken
 * off must find them, or it would prove nothing.
 */
import { NodeHttpClient } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import {
  AiFailure,
  CircuitBreaker,
  HttpApiErrors,
  HttpErrorMiddleware,
  HttpErrorResponse,
  HttpErrorStream,
  LanguageModelFace,
  LlmError,
  PolicyEvent,
  Provider,
  Retry,
  Understudy,
} from "@understudy/core"
import { AnthropicMessages, OpenAiChat } from "@understudy/providers"
import { Upstream } from "@understudy/testkit"
import { Cause, Effect, Inspectable, Layer, Logger, Redacted, Schema, Stream, Tracer } from "effect"
import {
  HttpClient,
  HttpClientError,
  HttpClientRequest,
  HttpClientResponse,
  HttpServerRequest,
  HttpServerRespondable,
  HttpServerResponse,
} from "effect/http"
import { inspect } from "node:util"

// ---------------------------------------------------------------------------
// What is planted
// ---------------------------------------------------------------------------

/** A secret for each place: some look like a key, all stand among words of the provider. */
const plants = {
  key: "sk-planted-key-5f0c1e",
  url: "planted-url-77ab02",
  header: "sk-planted-header-91d3",
  body: "planted-body-c4419e",
  event: "planted-event-e0772b",
  cause: "planted-cause-3b88aa",
} as const
type Place = keyof typeof plants

const places = Object.keys(plants) as ReadonlyArray<Place>

const found = (text: string): ReadonlyArray<Place> => places.filter((place) => text.includes(plants[place]))

// ---------------------------------------------------------------------------
// Everything that can be seen
// ---------------------------------------------------------------------------

/** All that is in a value, whatever hides it from `JSON` and inspection; what is redacted only with `unwrap`. */
const everythingIn = (value: unknown, unwrap: boolean): string => {
  const out: Array<string> = []
  const seen = new Set<object>()
  const visit = (u: unknown, depth: number): void => {
    if (Redacted.isRedacted(u)) {
      if (unwrap) visit(Redacted.value(u), depth)
    } else if (typeof u === "string") {
      out.push(u)
    } else if (typeof u === "object" && u !== null && !seen.has(u) && depth < 40 && seen.size < 20_000) {
      seen.add(u)
      if (u instanceof Map || u instanceof Set) for (const item of u) visit(item, depth + 1)
      if (u instanceof Error) out.push(`${u.name}: ${u.message}\n${u.stack}`)
      for (const key of Reflect.ownKeys(u)) {
        out.push(String(key))
        const descriptor = Reflect.getOwnPropertyDescriptor(u, key)
        if (descriptor !== undefined && "value" in descriptor) visit(descriptor.value, depth + 1)
      }
    }
  }
  visit(value, 0)
  return out.join("\n")
}

/** One value in every way of showing it. */
const shown = (value: unknown, unwrap: boolean): string =>
  [
    everythingIn(value, unwrap),
    String(value),
    JSON.stringify(value, (_key, item: unknown) => (typeof item === "bigint" ? String(item) : item)) ?? "",
    inspect(value, { depth: 30, showHidden: true }),
    inspect(value),
    Inspectable.toStringUnknown(value),
  ].join("\n")

const toJson = Schema.encodeSync(Schema.toCodecJson(LlmError.LlmError))

/** A request to a service that answers with the failure: it brings the key too. */
const request = new Request(`http://service.test/ask?key=${plants.key}`, {
  headers: { authorization: `Bearer ${plants.key}`, "x-request-id": "req-1" },
})

const settings: ReadonlyArray<HttpErrorResponse.Settings> = [{}, { audience: "operators" }]

const bodyOf = (response: HttpServerResponse.HttpServerResponse): unknown =>
  response.body._tag === "Uint8Array" ? new TextDecoder().decode(response.body.body as Uint8Array) : response.body

/** The failure as a response, in all forms that there are. */
const responses = (failure: LlmError.LlmError): Effect.Effect<Array<unknown>> =>
  Effect.gen(function* () {
    const out: Array<unknown> = []
    for (const options of settings) {
      const lines: Array<unknown> = []
      const log = (line: HttpErrorResponse.LogLine): void => void lines.push(line)
      out.push(HttpErrorResponse.of(failure, options))
      out.push(HttpErrorResponse.of(failure, { ...options, accept: "application/problem+json" }))
      for (const raised of [failure, AiFailure.toAiError(failure), Cause.die(failure)]) {
        const response = HttpErrorResponse.toResponse(raised, request, { ...options, log })
        out.push([...response.headers], yield* Effect.promise(() => response.text()))
      }
      const streamed = HttpErrorStream.toResponse(Stream.concat(Stream.make("data: 1\n\n"), Stream.fail(failure)), {
        ...options,
        dialect: "sse",
        request,
      })
      const response = yield* Effect.orDie(streamed)
      out.push(yield* Effect.promise(() => response.text()), lines)
      for (const dialect of ["sse", "openai", "anthropic", "ndjson"] as const) {
        out.push(HttpErrorStream.event(failure, dialect, options))
      }
      const served = yield* HttpErrorMiddleware.respond(failure, options)
      out.push(served.status, { ...served.headers }, bodyOf(served))
    }
    const respondable = yield* HttpServerRespondable.toResponseOrElse(failure, HttpServerResponse.empty())
    out.push(respondable.status, { ...respondable.headers }, bodyOf(respondable))
    const errors = Schema.Union([HttpApiErrors.streamErrors(LlmError.tags), ...HttpApiErrors.errors(LlmError.tags)])
    out.push(Schema.encodeSync(errors)(failure))
    return out
  }).pipe(Effect.provideService(HttpServerRequest.HttpServerRequest, HttpServerRequest.fromWeb(request)))

/** What a program leaves behind for others to see. */
class Traces {
  readonly logs: Array<unknown> = []
  readonly spans: Array<Tracer.Span> = []
  readonly events: Array<PolicyEvent.PolicyEvent> = []

  readonly layer = Layer.merge(
    Logger.layer([
      Logger.make((options) => {
        this.logs.push(Logger.formatJson.log(options), Logger.formatLogFmt.log(options), options.message, options.cause)
      }),
    ]),
    Layer.succeed(Tracer.Tracer)(
      Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          this.spans.push(span)
          return span
        },
      }),
    ),
  )

  /** Runs it with all of them listening, and gives its failure. */
  readonly failing = <A, E extends LlmError.LlmError, R>(
    program: Effect.Effect<A, E, R>,
  ): Effect.Effect<LlmError.LlmError, never, R> =>
    program.pipe(
      Effect.withSpan("ask", { attributes: { path: "/ask" } }),
      Effect.tapCause((cause) => Effect.logError("It failed", cause)),
      Effect.tapError((failure) => Effect.logError(failure)),
      Effect.flip,
      Effect.catch(() => Effect.die(new Error("It was answered"))),
      Effect.annotateLogs({ path: "/ask" }),
      PolicyEvent.observe((event) => this.events.push(event)),
      Effect.provide(this.layer),
    )
}

/** What an exporter writes of a span: its exit as text. The error that it holds in memory is of no use to it. */
const writtenOf = (span: Tracer.Span): ReadonlyArray<unknown> => {
  const { attributes, links, name, status } = span
  const ended = status._tag === "Ended" && status.exit._tag === "Failure" ? status.exit.cause : Cause.empty
  return [
    name,
    attributes,
    links,
    span instanceof Tracer.NativeSpan ? span.events : [],
    Cause.pretty(ended),
    inspect(Cause.prettyErrors(ended), { depth: 30, showHidden: true }),
    JSON.stringify(ended),
    inspect(ended, { depth: 30, showHidden: true }),
  ]
}

/** What is found of the plants in all that can be seen of a failure, and of the program that it ended. */
const search = (
  failure: LlmError.LlmError,
  traces: Traces,
  unwrap: boolean,
): Effect.Effect<Readonly<Record<string, ReadonlyArray<Place>>>> =>
  Effect.gen(function* () {
    const aiError = AiFailure.toAiError(failure)
    const answered = yield* Effect.provide(responses(failure), traces.layer)
    const surfaces: Readonly<Record<string, ReadonlyArray<unknown>>> = {
      message: [failure.message, failure.stack],
      failure: [failure],
      json: [JSON.stringify(failure), JSON.stringify(toJson(failure)), { ...failure }],
      cause: [Cause.pretty(Cause.fail(failure)), Cause.prettyErrors(Cause.fail(failure)), Cause.die(failure)],
      "effect/ai": [aiError.message, aiError, aiError.reason],
      responses: answered,
      logs: traces.logs,
      spans: traces.spans.map(writtenOf),
      events: [...traces.events, ...traces.events.map(PolicyEvent.describe)],
    }
    const entries = Object.entries(surfaces).map(
      ([surface, values]) => [surface, found(values.map((value) => shown(value, unwrap)).join("\n"))] as const,
    )
    return Object.fromEntries(entries)
  })

/** Nobody sees anything; who takes the redaction off sees what was planted in these places, in logs too. */
const proves = (failure: LlmError.LlmError, traces: Traces, hidden: ReadonlyArray<Place>) =>
  Effect.gen(function* () {
    assert.isAbove(traces.logs.length, 0)
    assert.isAbove(traces.spans.length, 0)
    const seen = yield* search(failure, traces, false)
    assert.deepStrictEqual(
      Object.entries(seen).filter(([, found]) => found.length > 0),
      [],
    )
    const unwrapped = yield* search(failure, traces, true)
    for (const surface of ["failure", "cause", "effect/ai", "logs"]) {
      assert.includeMembers([...unwrapped[surface]!], [...hidden], `${surface}, with the redaction taken off`)
    }
  })

// ---------------------------------------------------------------------------
// Every tag, with all plants in its evidence
// ---------------------------------------------------------------------------

/** What a careless adapter has in its hands: the client's error with request and response, and what was thrown below. */
const raw = (): unknown => {
  const asked = HttpClientRequest.post(`http://upstream.test/v1?key=${plants.url}`, {
    headers: { authorization: `Bearer ${plants.key}` },
  })
  const response = new Response(plants.body, { status: 500, headers: { "x-echo": plants.header } })
  return new HttpClientError.HttpClientError({
    reason: new HttpClientError.StatusCodeError({
      request: asked,
      response: HttpClientResponse.fromWeb(asked, response),
      cause: new Error(`It said ${plants.cause}`, { cause: { headers: { "x-echo": plants.header }, url: asked.url } }),
    }),
  })
}

type Samples = { readonly [T in LlmError.Tag]: LlmError.WithTag<T> }

const said = { provider: "careless", model: "m-1", status: 500, detail: "In our words." }
const inner = LlmError.withEvidence(new LlmError.Overloaded(said), {
  providerMessage: plants.event,
  cause: new Error(plants.cause),
})

const samples: Samples = {
  RateLimited: new LlmError.RateLimited(said),
  QuotaExhausted: new LlmError.QuotaExhausted(said),
  Overloaded: new LlmError.Overloaded(said),
  ProviderUnavailable: new LlmError.ProviderUnavailable(said),
  ConnectionFailed: new LlmError.ConnectionFailed(said),
  TimedOut: new LlmError.TimedOut({ ...said, phase: "attempt" }),
  DeadlineExceeded: new LlmError.DeadlineExceeded({ ...said, failures: [inner] }),
  StreamInterrupted: new LlmError.StreamInterrupted({ ...said, committed: true, failure: inner }),
  InvalidResponse: new LlmError.InvalidResponse({ ...said, kind: "content", reason: "unparseable" }),
  ContentFiltered: new LlmError.ContentFiltered({ ...said, failures: [inner] }),
  ContextLengthExceeded: new LlmError.ContextLengthExceeded({ ...said, failures: [inner] }),
  AuthenticationFailed: new LlmError.AuthenticationFailed(said),
  PermissionDenied: new LlmError.PermissionDenied(said),
  ModelNotFound: new LlmError.ModelNotFound(said),
  InvalidRequest: new LlmError.InvalidRequest({ ...said, failures: [inner] }),
  UnknownFailure: new LlmError.UnknownFailure(said),
  CircuitOpen: new LlmError.CircuitOpen(said),
  CapacityExceeded: new LlmError.CapacityExceeded(said),
  AllProvidersFailed: new LlmError.AllProvidersFailed({ ...said, failures: [inner, inner] }),
}

/** A failure of the tag with everything that was planted as its evidence. */
const sample = (tag: LlmError.Tag): LlmError.LlmError =>
  LlmError.withEvidence<LlmError.LlmError>(samples[tag], {
    providerMessage: `The provider said ${plants.body} and ${plants.event} to ${plants.key}`,
    cause: raw(),
  })

const question = LanguageModelFace.request("Who wrote Dune?")

describe("A key and the provider's words, in header, key, address, body, event and cause", () => {
  for (const tag of LlmError.tags) {
    it.effect(`are nowhere to be seen of ${tag}, but where the redaction is taken off`, () =>
      Effect.gen(function* () {
        const traces = new Traces()
        const failure = sample(tag)
        const careless = Provider.make({
          name: "careless",
          model: "m-1",
          face: LanguageModelFace.languageModelFace,
          generate: () => Effect.fail(failure),
          stream: () => Stream.fail(failure),
        })
        const raised = yield* traces.failing(careless.pipe(Retry.with({ times: 0 })).generate(question))
        assert.strictEqual(raised._tag, tag)
        yield* proves(raised, traces, places)
      }).pipe(Effect.provide(Understudy.layer)),
    )
  }
})

// ---------------------------------------------------------------------------
// The adapters, over real sockets
// ---------------------------------------------------------------------------

/** What a provider says on the wire for a tag. */
interface Says {
  readonly status: number
  readonly code: string
  /** What it is inside of a stream, where the status does not say it. */
  readonly inside?: LlmError.Tag
}

/** What comes over the wire for the tags that an error of a provider can be. */
const wire: Partial<Record<LlmError.Tag, Says>> = {
  RateLimited: { status: 429, code: "rate_limit_error" },
  QuotaExhausted: { status: 429, code: "insufficient_quota" },
  Overloaded: { status: 529, code: "overloaded_error" },
  ProviderUnavailable: { status: 500, code: "server_error" },
  TimedOut: { status: 504, code: "timeout_error" },
  InvalidResponse: { status: 400, code: "output_parse_failed" },
  ContentFiltered: { status: 400, code: "content_filter" },
  ContextLengthExceeded: { status: 400, code: "context_length_exceeded" },
  AuthenticationFailed: { status: 401, code: "invalid_api_key" },
  PermissionDenied: { status: 403, code: "permission_error" },
  ModelNotFound: { status: 404, code: "model_not_found" },
  InvalidRequest: { status: 400, code: "invalid_value" },
  UnknownFailure: { status: 418, code: "teapot", inside: "ProviderUnavailable" },
}

const headers = {
  "x-echo": plants.header,
  "x-request-id": plants.header,
  "request-id": plants.header,
  "retry-after": 0,
  warning: `299 - ${plants.header} ${plants.key}`,
}

/** An error that quotes what it knows. */
const errorOf = (code: string, words: string) => ({
  type: "error",
  error: { type: code, code, message: `${words}, asked with ${plants.key}`, param: words },
  request_id: plants.header,
})

/** An upstream that says the same to everyone. */
const saying = (step: Upstream.Step) => Upstream.make({ script: { steps: [step], then: "repeat" } })

const options = { model: "m-1", apiKey: Redacted.make(plants.key), headers: { "x-tenant": plants.header } }

const adapters = {
  OpenAiChat: (upstream: Pick<Upstream.Running, "openaiUrl">, query: string) =>
    OpenAiChat.make({ ...options, baseUrl: `${upstream.openaiUrl}${query}` }),
  AnthropicMessages: (upstream: Pick<Upstream.Running, "anthropicUrl">, query: string) =>
    AnthropicMessages.make({ ...options, baseUrl: `${upstream.anthropicUrl}${query}` }),
}

// A query may hold a key, so that traces leave such requests out: both kinds are searched.
const queries = ["", `?key=${plants.url}`]

const nowhere = { openaiUrl: "http://upstream.test/v1", anthropicUrl: "http://upstream.test" }

/** A client whose connections end with this code, or that has a mistake of its own. */
const throwing = (code: string | undefined) =>
  HttpClient.make((asked) =>
    code === undefined
      ? Effect.die(new TypeError(plants.cause))
      : Effect.fail(
          new HttpClientError.HttpClientError({
            reason: new HttpClientError.TransportError({
              request: asked,
              cause: Object.assign(new Error(`fetch failed: ${plants.cause}`), { code }),
            }),
          }),
        ),
  )

for (const [adapter, make] of Object.entries(adapters)) {
  describe(`What ${adapter} is told over the wire, and what it asks with, is nowhere to be seen`, () => {
    for (const [tag, { code, inside = tag, status }] of Object.entries(wire)) {
      it.effect(`of ${tag}, told by a status or inside of a stream`, () =>
        Effect.gen(function* () {
          const refusing = yield* saying(Upstream.status(status, { body: errorOf(code, plants.body), headers }))
          const breaking = yield* saying(Upstream.errorInBand({ body: errorOf(code, plants.event), headers }))
          for (const query of queries) {
            const refused = new Traces()
            const failure = yield* refused.failing(make(refusing, query).generate(question))
            assert.strictEqual(failure._tag, tag)
            yield* proves(failure, refused, ["header", "body"])

            const broken = new Traces()
            const within = yield* broken.failing(Stream.runDrain(make(breaking, query).stream(question)))
            assert.strictEqual(within._tag, inside)
            yield* proves(within, broken, ["event"])
          }
        }).pipe(Effect.provide(NodeHttpClient.layerUndici)),
      )
    }

    for (const [tag, code] of [
      ["ConnectionFailed", "ECONNRESET"],
      ["TimedOut", "ETIMEDOUT"],
      ["UnknownFailure", undefined],
    ] as const) {
      it.effect(`of ${tag}, thrown by the client below`, () =>
        Effect.gen(function* () {
          const traces = new Traces()
          const failure = yield* traces.failing(make(nowhere, queries[1]!).generate(question))
          assert.strictEqual(failure._tag, tag)
          yield* proves(failure, traces, ["cause"])
        }).pipe(Effect.provideService(HttpClient.HttpClient, throwing(code))),
      )
    }

    it.effect("of InvalidResponse, for a page of a proxy", () =>
      Effect.gen(function* () {
        const traces = new Traces()
        const proxy = yield* saying(Upstream.html({ body: `<html>${plants.body} ${plants.key}</html>`, headers }))
        const failure = yield* traces.failing(make(proxy, queries[1]!).generate(question))
        assert.strictEqual(failure._tag, "InvalidResponse")
        yield* proves(failure, traces, ["body"])
      }).pipe(Effect.provide(NodeHttpClient.layerUndici)),
    )

    it.effect("of StreamInterrupted, for an error behind the first words", () =>
      Effect.gen(function* () {
        const traces = new Traces()
        const breaking = yield* saying(
          Upstream.errorInBand({ body: errorOf("server_error", plants.event), afterTokens: 2, headers }),
        )
        const failure = yield* traces.failing(Stream.runDrain(make(breaking, queries[1]!).stream(question)))
        assert.isTrue(failure._tag === "StreamInterrupted" && failure.committed)
        yield* proves(failure, traces, ["event"])
      }).pipe(Effect.provide(NodeHttpClient.layerUndici)),
    )
  })
}

describe("What compositions learn of their providers is nowhere to be seen", () => {
  /** Both adapters, with an upstream for each. */
  const composed = (script: Upstream.Script, policies: Understudy.Policies = {}) =>
    Effect.gen(function* () {
      const [first, second] = [yield* Upstream.make({ script }), yield* Upstream.make({ script })]
      return Understudy.make({
        candidates: [
          { provider: adapters.OpenAiChat(first, queries[1]!) },
          { provider: adapters.AnthropicMessages(second, queries[1]!), priority: 1 },
        ],
        retry: false,
        ...policies,
      })
    })

  const refusing = (code: string, status: number) =>
    Upstream.status(status, { body: errorOf(code, plants.body), headers })

  it.effect("of AllProvidersFailed", () =>
    Effect.gen(function* () {
      const traces = new Traces()
      const model = yield* composed({ steps: [refusing("server_error", 500)], then: "repeat" })
      const failure = yield* traces.failing(model.generate(question))
      assert.isTrue(failure._tag === "AllProvidersFailed" && failure.failures.length === 2)
      assert.isAbove(traces.events.length, 4)
      yield* proves(failure, traces, ["header", "body"])
    }).pipe(Effect.provide([NodeHttpClient.layerUndici, Understudy.layer])),
  )

  it.effect("of a failure that leaves a failover as itself, with the attempts before", () =>
    Effect.gen(function* () {
      const traces = new Traces()
      const model = yield* composed({
        steps: [refusing("content_filter", 400)],
        then: "repeat",
      })
      const failure = yield* traces.failing(model.generate(question))
      assert.strictEqual(failure._tag, "ContentFiltered")
      yield* proves(failure, traces, ["header", "body"])
    }).pipe(Effect.provide([NodeHttpClient.layerUndici, Understudy.layer])),
  )

  it.live("of DeadlineExceeded, with the attempts before", () =>
    Effect.gen(function* () {
      const traces = new Traces()
      const model = yield* composed(
        { steps: [refusing("server_error", 500), Upstream.hang], then: "repeat" },
        { retry: { base: "1 millis" }, deadline: { generate: "400 millis" } },
      )
      const failure = yield* traces.failing(model.generate(question))
      assert.isTrue(failure._tag === "DeadlineExceeded" && (failure.failures ?? []).length > 0)
      yield* proves(failure, traces, ["header", "body"])
    }).pipe(Effect.provide([NodeHttpClient.layerUndici, Understudy.layer])),
  )

  it.effect("of an open circuit", () =>
    Effect.gen(function* () {
      const upstream = yield* saying(refusing("invalid_api_key", 401))
      const guarded = adapters.OpenAiChat(upstream, queries[1]!).pipe(CircuitBreaker.with())
      yield* Effect.ignore(guarded.generate(question))
      const traces = new Traces()
      const failure = yield* traces.failing(guarded.generate(question))
      assert.strictEqual(failure._tag, "CircuitOpen")
      // It was not asked, so there is nothing to hide.
      yield* proves(failure, traces, [])
    }).pipe(Effect.provide([NodeHttpClient.layerUndici, Understudy.layer])),
  )
})
