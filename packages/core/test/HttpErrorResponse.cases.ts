/**
 * One failure of every tag with the response that it must become, and the
 * servers that answer with it. The table is exhaustive by type: a tag without a
 * case does not compile.
 */
import { NodeHttpServer } from "@effect/platform-node"
import { type HttpErrorResponse, LlmError } from "@understudy/core"
import { Cause, Duration, Effect, Layer, Logger, ManagedRuntime, References } from "effect"
import { HttpServer } from "effect/http"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"

/** What a 401 says of how to authenticate. */
export const challenge = 'Bearer realm="service"'

/** What no client may ever read. */
export const planted = {
  provider: "planted-provider",
  model: "planted-model",
  detail: "Planted detail.",
  message: "planted words of the provider, with sk-planted-0123456789",
  requestId: "req_planted",
}

const { provider, model, detail, requestId } = planted
const said = { provider, model, detail, requestId, status: 418 }

/** A failure, and what clients must get for it. */
export interface Case<T extends LlmError.Tag> {
  readonly failure: LlmError.WithTag<T>
  readonly status: number
  readonly type: HttpErrorResponse.ErrorType
  readonly retryable: boolean
  /** In whole seconds. */
  readonly retryAfter?: number
}

const of = <T extends LlmError.Tag>(
  failure: LlmError.WithTag<T>,
  status: number,
  type: HttpErrorResponse.ErrorType,
  retryable: boolean,
  retryAfter?: number,
): Case<T> => ({
  failure: LlmError.withEvidence<LlmError.WithTag<T>>(failure, {
    providerMessage: planted.message,
    cause: new Error(planted.message),
  }),
  status,
  type,
  retryable,
  ...(retryAfter === undefined ? {} : { retryAfter }),
})

const hint = (millis: number) => ({ retryAfter: Duration.millis(millis) })

/** One case for each tag. */
export const cases: { readonly [T in LlmError.Tag]: Case<T> } = {
  RateLimited: of(new LlmError.RateLimited({ ...said, ...hint(1001) }), 429, "rate_limit", true, 2),
  QuotaExhausted: of(new LlmError.QuotaExhausted(said), 503, "quota_exhausted", false),
  Overloaded: of(new LlmError.Overloaded({ ...said, ...hint(30_000) }), 503, "overloaded", true, 30),
  ProviderUnavailable: of(new LlmError.ProviderUnavailable(said), 503, "provider_error", true),
  ConnectionFailed: of(new LlmError.ConnectionFailed({ ...said, fault: "dns" }), 503, "connection_failed", true),
  TimedOut: of(new LlmError.TimedOut({ ...said, phase: "attempt" }), 504, "timeout", true),
  DeadlineExceeded: of(new LlmError.DeadlineExceeded(said), 504, "deadline_exceeded", true),
  StreamInterrupted: of(
    new LlmError.StreamInterrupted({ ...said, committed: false, failure: new LlmError.Overloaded(said) }),
    502,
    "stream_interrupted",
    true,
  ),
  InvalidResponse: of(new LlmError.InvalidResponse({ ...said, kind: "content" }), 502, "invalid_response", true),
  ContentFiltered: of(new LlmError.ContentFiltered({ ...said, stage: "answer" }), 422, "content_filtered", false),
  ContextLengthExceeded: of(
    new LlmError.ContextLengthExceeded({ ...said, limit: 8192, requested: 9000 }),
    413,
    "context_length",
    false,
  ),
  AuthenticationFailed: of(new LlmError.AuthenticationFailed(said), 401, "authentication", false),
  PermissionDenied: of(new LlmError.PermissionDenied(said), 403, "permission_denied", false),
  ModelNotFound: of(new LlmError.ModelNotFound(said), 404, "model_not_found", false),
  InvalidRequest: of(new LlmError.InvalidRequest(said), 400, "invalid_request", false),
  UnknownFailure: of(new LlmError.UnknownFailure(said), 500, "unknown", false),
  CircuitOpen: of(new LlmError.CircuitOpen({ ...said, ...hint(59_200) }), 503, "circuit_open", true, 60),
  CapacityExceeded: of(new LlmError.CapacityExceeded({ ...said, ...hint(0) }), 503, "capacity_exceeded", true, 0),
  AllProvidersFailed: of(
    new LlmError.AllProvidersFailed({
      ...said,
      ...hint(5000),
      retryable: true,
      failures: [new LlmError.TimedOut({ ...said, phase: "attempt" }), new LlmError.Overloaded(said)],
    }),
    503,
    "all_providers_failed",
    true,
    5,
  ),
}

/** The failure of the case that a path such as `/fail/RateLimited` names. */
export const named = (path: string): LlmError.LlmError => {
  const tag = LlmError.tags.find((tag) => path.endsWith(`/${tag}`))
  if (tag === undefined) throw new Error(`No case is at ${path}`)
  return cases[tag].failure
}

// ---------------------------------------------------------------------------
// Servers
// ---------------------------------------------------------------------------

/** A server on the loopback interface, and the lines that it wrote to its log. */
export interface Served {
  readonly url: string
  readonly lines: Array<Line>
  readonly close: () => Promise<void>
}

/** A line of a log: its level, its text, and its annotations. */
export interface Line {
  readonly level: string
  readonly message: string
  readonly fields: Readonly<Record<string, unknown>>
}

/** A log that remembers. */
export const remembering = (lines: Array<Line>): Layer.Layer<never> =>
  Logger.layer([
    Logger.make(({ cause, fiber, logLevel, message }) => {
      const text = Array.isArray(message) ? message.map(String).join(" ") : String(message)
      lines.push({
        level: logLevel,
        message: cause.reasons.length === 0 ? text : `${text} ${Cause.pretty(cause)}`,
        fields: { ...fiber.getRef(References.CurrentLogAnnotations) },
      })
    }),
  ])

/** The lines of failed responses, as `HttpErrorResponse` hands them out. */
export const remember =
  (lines: Array<Line>) =>
  ({ fields, level, message }: HttpErrorResponse.LogLine): void =>
    void lines.push({ level, message, fields: { ...fields } })

const node = NodeHttpServer.layer(() => Http.createServer(), { port: 0, host: "127.0.0.1" })

/** A server of `effect/http`. */
export const serveEffect = async <E>(
  app: Layer.Layer<never, E, Layer.Success<typeof node>>,
  lines: Array<Line> = [],
): Promise<Served> => {
  const runtime = ManagedRuntime.make(
    app.pipe(Layer.provideMerge(Layer.fresh(node)), Layer.provide(remembering(lines))),
  )
  const url = await runtime.runPromise(HttpServer.addressFormattedWith(Effect.succeed))
  return { url, lines, close: () => runtime.dispose() }
}

/** A server of Node. */
export const serveNode = async (listener: Http.RequestListener, lines: Array<Line> = []): Promise<Served> => {
  const server = Http.createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    lines,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections()
        server.close(() => resolve())
      }),
  }
}
