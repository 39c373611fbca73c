/** What leaves the process, over real sockets on loopback: Prometheus text, and OTLP over HTTP. */
import { assert, describe, it } from "@effect/vitest"
import { NodeHttpServer } from "@effect/platform-node"
import { Effect, Layer, Logger, Metric } from "effect"
import {
  FetchHttpClient,
  type HttpClient,
  HttpRouter,
  HttpServer,
  HttpServerRequest,
  HttpServerResponse,
} from "effect/http"
import { Otlp, type OtlpExporter, PrometheusMetrics } from "effect/observability"
import * as Http from "node:http"
import { CircuitBreaker, EventLog, type LlmError, Metrics, Spans, Understudy } from "@understudy/core"
import { ask, fails, failure, Foreign, inTurn, type Reply, say, says, start, stub, timed } from "./stub.ts"

const planted = "PLANTED sk-SECRET0123456789"

const usage = { inputTokens: { total: 1200, cacheRead: 200 }, outputTokens: { total: 300 } }

/** An answer whose every text is planted. */
const leaky: Reply<never> = {
  whole: Effect.succeed([
    { type: "response-metadata", id: planted, modelId: planted },
    { type: "text", text: planted },
    { type: "finish", reason: "stop", usage },
  ]),
  parts: timed([0, start], [5, say(planted)], [10, { type: "finish", reason: "stop", usage }]),
}

/** A few calls: one failed over, one as a stream, one that failed. */
const calls = Effect.gen(function* () {
  const a = stub<LlmError.LlmError | Foreign>(
    "lead",
    inTurn<LlmError.LlmError | Foreign>(
      fails(failure("AuthenticationFailed", "lead", { status: 401 }), 3),
      fails(new Foreign(planted)),
    ),
  )
  const b = stub("understudy", () => leaky)
  const model = Understudy.make({
    candidates: [
      { provider: a.provider, breaker: false },
      { provider: b.provider, priority: 1 },
    ],
    name: "assistant",
  })
  yield* ask("generate", model).pipe(Effect.withSpan("request"), Effect.annotateLogs("request", "r-7"))
  yield* Effect.exit(ask("stream", model))
  yield* ask("stream", b.provider)
  const dead = stub("dead", () => fails(failure("ModelNotFound", "dead")))
  yield* Effect.exit(ask("generate", dead.provider.pipe(CircuitBreaker.with())))
}).pipe(Effect.provide(Understudy.layer))

const server = NodeHttpServer.layer(() => Http.createServer(), { port: 0, host: "127.0.0.1" })

const isolated = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.provideService(self, Metric.MetricRegistry, new Map())

/** A line of the Prometheus text format: a name, labels, a number. */
const sample =
  /^[a-zA-Z_:][a-zA-Z0-9_:]*(?:\{[a-zA-Z_]\w*="(?:[^"\\]|\\.)*"(?:,[a-zA-Z_]\w*="(?:[^"\\]|\\.)*")*\})? (?:[+-]?Inf|NaN|[\d.e+-]+)$/

describe("Metrics, scraped by Prometheus", () => {
  it.live("are text that it understands, with names and types as it wants them, and hold no planted text", () =>
    Effect.gen(function* () {
      const prices = { "understudy-1": { input: 2, output: 10, cacheRead: 0.5 } }
      const app = PrometheusMetrics.layerHttp({ path: "/metrics", metricNameMapper: Metrics.prometheusName })
      const body = yield* Effect.gen(function* () {
        yield* calls
        const url = yield* HttpServer.addressFormattedWith(Effect.succeed)
        const response = yield* Effect.promise(() => fetch(`${url}/metrics`))
        assert.strictEqual(response.status, 200)
        assert.include(response.headers.get("content-type") ?? "", "text/plain; version=0.0.4")
        return yield* Effect.promise(() => response.text())
      }).pipe(
        Effect.provide(
          HttpRouter.serve(app, { disableLogger: true, disableListenLog: true }).pipe(
            Layer.provideMerge(Layer.mergeAll(server, Metrics.layer({ prices }))),
          ),
        ),
      )
      const lines = body.split("\n").filter((line) => line !== "")
      for (const line of lines) assert.match(line, line.startsWith("#") ? /^# (?:HELP|TYPE) \w+ \S.*$/ : sample)
      const has = (line: string) => assert.include(lines, line)
      has("# TYPE understudy_attempts_total counter")
      has("# TYPE gen_ai_client_operation_duration_seconds histogram")
      has("# TYPE understudy_circuit_state gauge")
      has(
        'understudy_attempts_total{gen_ai_provider_name="lead",gen_ai_request_model="lead-1",understudy_outcome="failed"} 2',
      )
      has('understudy_circuit_state{understudy_circuit_key="dead/dead-1"} 2')
      has(
        'understudy_calls_total{understudy_composition="assistant",understudy_outcome="failed",error_type="_OTHER"} 1',
      )
      has(
        'understudy_answers_total{understudy_composition="assistant",gen_ai_provider_name="understudy",gen_ai_request_model="understudy-1",understudy_source="primary"} 1',
      )
      has(
        'understudy_failovers_total{gen_ai_provider_name="lead",gen_ai_request_model="lead-1",understudy_to="understudy",error_type="AuthenticationFailed"} 1',
      )
      const labels =
        'gen_ai_operation_name="chat",gen_ai_provider_name="understudy",gen_ai_request_model="understudy-1"'
      has(`gen_ai_client_operation_duration_seconds_count{${labels}} 2`)
      has(`gen_ai_client_operation_duration_seconds_bucket{${labels},le="+Inf"} 2`)
      has(`gen_ai_client_operation_time_to_first_chunk_seconds_count{${labels}} 1`)
      has(`gen_ai_client_token_usage_sum{${labels},gen_ai_token_type="input"} 2400`)
      const cost = (2 * (1000 * 2 + 200 * 0.5 + 300 * 10)) / 1_000_000
      has(
        `understudy_cost_estimated_total{gen_ai_provider_name="understudy",gen_ai_request_model="understudy-1",understudy_currency="USD"} ${cost}`,
      )
      assert.notMatch(body, /PLANTED|SECRET|Dune/)
    }).pipe(isolated),
  )
})

interface Attribute {
  readonly key: string
  readonly value: { readonly stringValue?: string; readonly intValue?: number; readonly boolValue?: boolean }
}

/** What of an export is looked at. */
interface Exported {
  readonly resourceSpans?: ReadonlyArray<{
    readonly scopeSpans: ReadonlyArray<{ readonly spans: ReadonlyArray<OtlpSpan> }>
  }>
  readonly resourceMetrics?: ReadonlyArray<{
    readonly scopeMetrics: ReadonlyArray<{ readonly metrics: ReadonlyArray<OtlpMetric> }>
  }>
  readonly resourceLogs?: ReadonlyArray<{
    readonly scopeLogs: ReadonlyArray<{ readonly logRecords: ReadonlyArray<OtlpLog> }>
  }>
}

interface OtlpSpan {
  readonly name: string
  readonly kind: number
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly startTimeUnixNano: string
  readonly endTimeUnixNano: string
  readonly attributes: ReadonlyArray<Attribute>
  readonly events: ReadonlyArray<{ readonly name: string; readonly attributes: ReadonlyArray<Attribute> }>
  readonly status: { readonly code: number; readonly message?: string }
}

interface OtlpMetric {
  readonly name: string
  readonly unit: string
  readonly sum?: { readonly isMonotonic: boolean; readonly dataPoints: ReadonlyArray<Point> }
  readonly gauge?: { readonly dataPoints: ReadonlyArray<Point> }
  readonly histogram?: { readonly dataPoints: ReadonlyArray<Point> }
}

interface Point {
  readonly attributes: ReadonlyArray<Attribute>
  readonly asDouble?: number
  readonly count?: number
}

interface OtlpLog {
  readonly severityText: string
  readonly body: { readonly stringValue?: string }
  readonly attributes: ReadonlyArray<Attribute>
}

const record = (attributes: ReadonlyArray<Attribute>): Readonly<Record<string, unknown>> =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, value.stringValue ?? value.intValue ?? value.boolValue]))

/** The observers, inside of what sends what they tell. */
const observedBy = <E>(otlp: Layer.Layer<OtlpExporter.Flusher, E, HttpClient.HttpClient>) =>
  Layer.mergeAll(Spans.layer(), Metrics.layer(), EventLog.layer()).pipe(
    Layer.provideMerge(otlp),
    Layer.provide(Layer.mergeAll(FetchHttpClient.layer, Logger.layer([]))),
  )

describe("Spans, metrics and logs, over OTLP", () => {
  it.live("reach a collector as JSON, with the names of the GenAI conventions, and hold no planted text", () =>
    Effect.gen(function* () {
      const bodies: Array<readonly [path: string, body: string]> = []
      const collector = HttpServerRequest.HttpServerRequest.pipe(
        Effect.flatMap((request) => Effect.map(request.text, (text) => bodies.push([request.url, text]))),
        Effect.as(HttpServerResponse.jsonUnsafe({})),
      )
      yield* Effect.gen(function* () {
        const baseUrl = yield* HttpServer.addressFormattedWith(Effect.succeed)
        const otlp = Otlp.layerJson({ baseUrl, resource: { serviceName: "assistant" }, loggerMergeWithExisting: false })
        // What is not sent yet is sent when the layers close.
        yield* calls.pipe(Effect.provide(observedBy(otlp)))
      }).pipe(Effect.provide(HttpServer.serve(collector).pipe(Layer.provideMerge(server))))

      const all = bodies.map(([, body]) => body).join("\n")
      assert.notMatch(all, /PLANTED|SECRET|Dune/)
      assert.deepStrictEqual([...new Set(bodies.map(([path]) => path))].sort(), [
        "/v1/logs",
        "/v1/metrics",
        "/v1/traces",
      ])
      const exports = bodies.map(([, body]) => JSON.parse(body) as Exported)

      const spans = exports.flatMap(({ resourceSpans = [] }) =>
        resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap((scope) => scope.spans)),
      )
      const request = spans.find(({ name }) => name === "request")!
      const call = spans.find(({ parentSpanId }) => parentSpanId === request.spanId)!
      const attempts = spans.filter(({ parentSpanId }) => parentSpanId === call.spanId)
      assert.deepStrictEqual(
        [call.name, call.kind, call.traceId, call.status.code],
        ["understudy.call", 1, request.traceId, 1],
      )
      assert.deepStrictEqual(
        attempts.map(({ kind, name, status }) => [name, kind, status]),
        [
          ["chat lead-1", 3, { code: 2, message: "AuthenticationFailed" }],
          ["chat understudy-1", 3, { code: 1 }],
        ],
      )
      const [lead, understudy] = attempts
      assert.deepInclude(record(lead!.attributes), {
        "error.type": "AuthenticationFailed",
        "http.response.status_code": 401,
        "understudy.attempt": 1,
      })
      assert.deepStrictEqual(
        lead!.events.map(({ attributes, name }) => [name, record(attributes)]),
        [
          [
            "exception",
            {
              "exception.type": "AuthenticationFailed",
              "exception.message": "AuthenticationFailed",
              "exception.stacktrace": "AuthenticationFailed: AuthenticationFailed",
            },
          ],
        ],
      )
      assert.deepInclude(record(understudy!.attributes), {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "understudy",
        "gen_ai.request.model": "understudy-1",
        "gen_ai.usage.input_tokens": 1200,
        "gen_ai.usage.output_tokens": 300,
        "understudy.failover.from": "lead",
      })
      assert.isTrue(BigInt(lead!.endTimeUnixNano) - BigInt(lead!.startTimeUnixNano) >= 2_000_000n)
      assert.strictEqual(spans.filter(({ name }) => name === "understudy.call").length, 4)

      // Metrics are sent whole each time: the last time tells all.
      const metrics = exports
        .flatMap(({ resourceMetrics = [] }) => resourceMetrics.map(({ scopeMetrics }) => scopeMetrics[0]!.metrics))
        .at(-1)!
      const points = (name: string) => {
        const metric = metrics.find((one) => one.name === name)!
        const found = (metric.sum ?? metric.gauge ?? metric.histogram)!.dataPoints
        return found.map((point) => [record(point.attributes)["gen_ai.provider.name"], point.asDouble ?? point.count])
      }
      assert.deepStrictEqual(points("understudy.attempts.started"), [
        ["lead", 2],
        ["understudy", 2],
        ["dead", 1],
      ])
      assert.deepStrictEqual(points("gen_ai.client.operation.duration"), [
        ["lead", 1],
        ["understudy", 2],
        ["lead", 1],
        ["dead", 1],
      ])
      assert.strictEqual(metrics.find(({ name }) => name === "gen_ai.client.operation.duration")?.unit, "s")
      assert.strictEqual(metrics.find(({ name }) => name === "gen_ai.client.token.usage")?.unit, "{token}")
      assert.isTrue(metrics.find(({ name }) => name === "understudy.calls")?.sum?.isMonotonic)

      const logs = exports.flatMap(({ resourceLogs = [] }) =>
        resourceLogs.flatMap(({ scopeLogs }) => scopeLogs.flatMap(({ logRecords }) => logRecords)),
      )
      const failed = logs.find(({ attributes }) => record(attributes)["understudy.event"] === "AttemptFailed")!
      assert.match(failed.body.stringValue ?? "", /^lead \(lead-1\): AuthenticationFailed after \d+ ms$/)
      assert.strictEqual(failed.severityText, "Warn")
      assert.deepInclude(record(failed.attributes), { "error.type": "AuthenticationFailed", request: "r-7" })
    }).pipe(isolated),
  )

  it.live("an exporter whose collector is down changes nothing in a call", () =>
    Effect.gen(function* () {
      const otlp = Otlp.layerJson({
        baseUrl: "http://127.0.0.1:9",
        resource: { serviceName: "assistant" },
        shutdownTimeout: "50 millis",
      })
      const said = yield* ask("stream", stub("a", () => says("ok")).provider).pipe(Effect.provide(observedBy(otlp)))
      assert.strictEqual(said, "ok")
    }).pipe(isolated),
  )
})
