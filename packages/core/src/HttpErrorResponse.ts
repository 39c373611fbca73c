/**
 * Failures as HTTP responses: status, headers and body by the one table, in
 * words that a service may show to its users.
 *
 * `of` is plain: a failure in, `{ status, headers, body }` out, for any
 * framework. `toResponse` makes a web `Response`, `send` writes to a response of
 * Node or Express, and `handler` turns an effect into a handler of Hono, Next
 * or whatever else takes a `Request` and gives a `Response`. For servers of
 * `effect/http` there is `HttpErrorMiddleware`, for `effect/http-api`
 * `HttpApiErrors`, and for what breaks in the middle of a stream
 * `HttpErrorStream`.
 *
 * **Details**
 *
 * | tag | status | type |
 * |---|---|---|
 * | `RateLimited` | 429 | `rate_limit` |
 * | `QuotaExhausted` | 503 | `quota_exhausted` |
 * | `Overloaded` | 503 | `overloaded` |
 * | `ProviderUnavailable` | 503 | `provider_error` |
 * | `ConnectionFailed` | 503 | `connection_failed` |
 * | `TimedOut` | 504 | `timeout` |
 * | `DeadlineExceeded` | 504 | `deadline_exceeded` |
 * | `StreamInterrupted` | 502 | `stream_interrupted` |
 * | `InvalidResponse` | 502 | `invalid_response` |
 * | `ContentFiltered` | 422 | `content_filtered` |
 * | `ContextLengthExceeded` | 413 | `context_length` |
 * | `AuthenticationFailed` | 401 | `authentication` |
 * | `PermissionDenied` | 403 | `permission_denied` |
 * | `ModelNotFound` | 404 | `model_not_found` |
 * | `InvalidRequest` | 400 | `invalid_request` |
 * | `UnknownFailure` | 500 | `unknown` |
 * | `CircuitOpen` | 503 | `circuit_open` |
 * | `CapacityExceeded` | 503 | `capacity_exceeded` |
 * | `AllProvidersFailed` | that of all attempts if they failed alike, else 503 | theirs, else `all_providers_failed` |
 *
 * - The body is `{"error":{"type","message","retryable","retry_after"?,"request_id"?}}`,
 *   or problem details (RFC 9457) when the `Accept` header asks for them.
 * - `Retry-After`, and `retry_after` in the body, are there when the failure has
 *   a hint: the same whole seconds in both, rounded up.
 * - `WWW-Authenticate: Bearer realm="service"` is there with a 401, which must say
 *   how to authenticate (RFC 9110).
 * - `request_id` is the identifier that came with the request, in `x-request-id`
 *   unless told otherwise. That of the provider's response is for the operator
 *   and stays in the failure.
 * - Messages name no provider, no model and no key. A 500 says nothing but that
 *   something went wrong, its type is `unknown`, and the log has the true one.
 * - One line of the log for each failed response. `of` writes none.
 *
 * **Gotchas**
 *
 * - What is no failure of ours, and no `AiError`, becomes a 500 that does not
 *   quote it. `onUnexpected` of `handler` hears of it.
 * - Where a table was overridden by a layer, what has no effects (`of`,
 *   `toResponse`, `send`) does not know of it: give it `failureModes`.
 *
 * **Example** (A handler of Hono, Next or Bun)
 *
 * ```ts
 * import { FailureMode, HttpErrorResponse, type LlmError } from "@understudy/core"
 * import { Effect } from "effect"
 *
 * declare const ask: (question: string) => Effect.Effect<string, LlmError.LlmError>
 *
 * export const POST = HttpErrorResponse.handler(
 *   (request: Request) =>
 *     Effect.promise(() => request.text()).pipe(
 *       Effect.flatMap(ask),
 *       Effect.map((answer) => Response.json({ answer })),
 *     ),
 *   { failureModes: FailureMode.operatorOwned },
 * )
 * ```
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type { ManagedRuntime } from "effect/ManagedRuntime"
import type { LlmError, Tag } from "./internal/llmError.ts"
import {
  answer,
  answerAndLine,
  answering,
  type Body,
  checkedSettings,
  type HttpErrorResponse,
  type LogLine,
  logLine,
  type Settings,
} from "./internal/http/answer.ts"
import { failureOf } from "./internal/http/failureOf.ts"
import { type ErrorType, types } from "./internal/http/publicError.ts"
import {
  factsOf,
  type HeadersLike,
  pathOf,
  type RequestFacts,
  type RequestLike,
  signalOf,
} from "./internal/http/requestFacts.ts"
import { answeringNow, CurrentSettings, report, write } from "./internal/http/settings.ts"

export {
  type Body,
  type HttpErrorResponse,
  type LogLine,
  type Problem,
  type PublicError,
  Settings,
} from "./internal/http/answer.ts"
export {
  /** The settings in use. Set them with `layer`. */
  CurrentSettings,
  type ErrorType,
  /** The failure that this is, or that an `AiError` or a cause carries; `undefined` for everything else. */
  failureOf,
  type HeadersLike,
  type RequestLike,
}

/** The `type` of each failure, as clients read it. */
export const errorTypes: { readonly [T in Tag]: ErrorType } = types

/**
 * Settings for everything below that has effects: middleware, respondables,
 * handlers. Settings given there win, field by field.
 */
export const layer = (settings: Settings): Layer.Layer<never> =>
  Layer.succeed(CurrentSettings)(checkedSettings("HttpErrorResponse.layer", settings))

// ---------------------------------------------------------------------------
// Plain
// ---------------------------------------------------------------------------

/** Settings, and what is known of the request. */
export interface Options extends Settings {
  /** The `Accept` header of the request. Default: none, which is plain JSON. */
  readonly accept?: string | undefined
  /**
   * The identifier of the request, for `request_id`: letters, digits and `. _ : = + / @ -`, at most 128 of them.
   * Anything else is left out, since it may come from anyone.
   */
  readonly requestId?: string | undefined
}

/** Status, headers and body for a failure. Pure: it writes no log. */
export const of: {
  (failure: LlmError, options?: Options & { readonly accept?: undefined }): HttpErrorResponse<Body>
  (failure: LlmError, options?: Options): HttpErrorResponse
} = (failure: LlmError, options: Options = {}): HttpErrorResponse<Body> => {
  const { accept, requestId, ...settings } = options
  const made = answer(failure, answering(checkedSettings("HttpErrorResponse.of", settings)), { accept, requestId })
  // Without an `Accept` header it is no problem.
  return made as HttpErrorResponse<Body>
}

/** The line of the log for a failed response, to write it to a log of one's own. */
export const line = (
  failure: LlmError,
  options: Settings & {
    /** The address or path of the request: the query is cut off. */
    readonly path?: string | undefined
    readonly requestId?: string | undefined
  } = {},
): LogLine => {
  const { path, requestId, ...settings } = options
  return logLine(failure, answering(checkedSettings("HttpErrorResponse.line", settings)), {
    path: path === undefined ? undefined : pathOf(path),
    requestId,
  })
}

/** Settings for responses that are made without effects. */
export interface PlainOptions extends Settings {
  /** The identifier of the request. Default: what its header says. */
  readonly requestId?: string | undefined
  /** Takes the line of the log; `false` for none. Default: the log of Effect, which writes to the console. */
  readonly log?: false | ((line: LogLine) => void) | undefined
}

/** The response to whatever was raised, and how its line is written to the log. */
const make = (
  where: string,
  error: unknown,
  request: RequestLike | undefined,
  { log, requestId, ...settings }: PlainOptions,
  sent?: number,
): { readonly response: HttpErrorResponse; readonly log: () => void } => {
  const all = answering(checkedSettings(where, settings))
  const failure = failureOf(error)
  const facts = withId(factsOf(request, all.requestIdHeader), requestId)
  const { line, response } = answerAndLine(failure, all, facts, sent)
  return {
    response,
    log: () => {
      try {
        if (log === undefined) Effect.runSync(write(line))
        else if (log !== false) log(line)
      } catch {
        // A log that is full must not cost the answer.
      }
    },
  }
}

const withId = (facts: RequestFacts, requestId: string | undefined): RequestFacts =>
  requestId === undefined ? facts : { ...facts, requestId }

const toWeb = ({ body, headers, status }: HttpErrorResponse): Response =>
  new Response(JSON.stringify(body), { status, headers: { ...headers } })

/**
 * A web `Response` for whatever was raised: a failure of ours by the table, an
 * `AiError` or a cause by the failure in it, and a 500 for everything else.
 * `request` gives the `Accept` header, the request's identifier and the path for
 * the log. Never throws, but for settings that cannot be meant.
 */
export const toResponse = (error: unknown, request?: RequestLike, options: PlainOptions = {}): Response => {
  const { log, response } = make("HttpErrorResponse.toResponse", error, request, options)
  log()
  return toWeb(response)
}

/** A response of Node's `http`, Express or the like. */
export interface ServerResponseLike {
  statusCode: number
  readonly headersSent?: boolean
  readonly writableEnded?: boolean
  setHeader(name: string, value: string): unknown
  removeHeader?(name: string): unknown
  end(body?: string): unknown
  destroy?(): unknown
}

/** What a handler may have said of the body that it did not send. */
const bodyHeaders = ["content-length", "content-encoding", "content-language", "content-range", "etag", "last-modified"]

/**
 * Writes the response for whatever was raised to a response of Node or Express,
 * as `toResponse` makes it. Where the headers are gone already, the connection
 * is cut, so that nobody takes what was sent for a whole answer.
 */
export const send = (
  response: ServerResponseLike,
  error: unknown,
  request?: RequestLike,
  options: PlainOptions = {},
): void => {
  const sent = response.headersSent === true ? response.statusCode : undefined
  const { log, response: made } = make("HttpErrorResponse.send", error, request, options, sent)
  log()
  if (sent !== undefined) {
    // What is whole stays whole.
    if (response.writableEnded !== true) response.destroy?.()
    return
  }
  for (const name of bodyHeaders) response.removeHeader?.(name)
  response.statusCode = made.status
  for (const [name, value] of Object.entries(made.headers)) response.setHeader(name, value)
  response.end(JSON.stringify(made.body))
}

// ---------------------------------------------------------------------------
// With effects
// ---------------------------------------------------------------------------

/**
 * `toResponse` as an effect: with the table and the settings in use, and one line
 * in the log of Effect.
 */
export const respond = (error: unknown, request?: RequestLike, settings: Settings = {}): Effect.Effect<Response> =>
  respondWith(error, request, checkedSettings("HttpErrorResponse.respond", settings))

const respondWith = (error: unknown, request: RequestLike | undefined, settings: Settings): Effect.Effect<Response> =>
  Effect.gen(function* () {
    const all = yield* answeringNow(settings)
    const failure = failureOf(error)
    const facts = factsOf(request, all.requestIdHeader)
    const { line, response } = answerAndLine(failure, all, facts)
    yield* write(line)
    return toWeb(response)
  })

/** How a handler runs and answers. */
export interface HandlerOptions extends Settings {
  /** Hears of what is no failure of ours, as it was raised, with texts and stacks. What it throws is ignored. */
  readonly onUnexpected?: ((cause: Cause.Cause<unknown>) => void) | undefined
}

/**
 * An effect for each request as a plain handler: `(request, ...) =>
 * Promise<Response>`. Whatever the effect raises is answered as `respond` does,
 * so the promise never rejects. When the request has a signal and is aborted, the
 * effect is interrupted. `runtime` gives the services; its log, its table and its settings
 * are used.
 */
export const handler: {
  <Req extends Request, Args extends ReadonlyArray<unknown>, E>(
    handle: (request: Req, ...args: Args) => Effect.Effect<Response, E>,
    options?: HandlerOptions & { readonly runtime?: undefined },
  ): (request: Req, ...args: Args) => Promise<Response>
  <Req extends Request, Args extends ReadonlyArray<unknown>, E, R, ER>(
    handle: (request: Req, ...args: Args) => Effect.Effect<Response, E, R>,
    options: HandlerOptions & { readonly runtime: ManagedRuntime<NoInfer<R>, ER> },
  ): (request: Req, ...args: Args) => Promise<Response>
} = <Req extends Request, Args extends ReadonlyArray<unknown>, E, R, ER>(
  handle: (request: Req, ...args: Args) => Effect.Effect<Response, E, R>,
  options: HandlerOptions & { readonly runtime?: ManagedRuntime<R, ER> | undefined } = {},
) => {
  const { onUnexpected, runtime, ...rest } = options
  const settings = checkedSettings("HttpErrorResponse.handler", rest)
  const hear = (cause: Cause.Cause<unknown>): void => {
    try {
      onUnexpected?.(cause)
    } catch {
      // Whoever listens must not cost the answer.
    }
  }
  const run: (
    effect: Effect.Effect<Response, never, R>,
    signal: AbortSignal | undefined,
  ) => Promise<Exit.Exit<Response, unknown>> =
    runtime === undefined
      ? // The overloads let nothing in here that needs services.
        (effect, signal) => Effect.runPromiseExit(effect as Effect.Effect<Response>, { signal })
      : (effect, signal) => runtime.runPromiseExit(effect, { signal })
  return async (request: Req, ...args: Args): Promise<Response> => {
    // Not everything that is called as a handler brings one: tests, adapters.
    const signal = signalOf(request)
    const exit = await run(
      Effect.suspend(() => handle(request, ...args)).pipe(
        Effect.catchCause((cause): Effect.Effect<Response> => {
          if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause as Cause.Cause<never>)
          if (failureOf(cause) !== undefined) return respondWith(cause, request, settings)
          hear(cause)
          return Effect.andThen(report(cause), respondWith(cause, request, settings))
        }),
      ),
      signal,
    )
    if (Exit.isSuccess(exit)) return exit.value
    // Nobody reads this when the client is gone; when the runtime is, another instance may answer.
    if (Cause.hasInterruptsOnly(exit.cause)) return new Response(null, { status: signal?.aborted === true ? 499 : 503 })
    // The services could not be made.
    if (failureOf(exit.cause) === undefined) hear(exit.cause)
    return toResponse(exit.cause, request, settings)
  }
}
