/**
 * Failures as responses of `effect/http` servers: a middleware for routers, and
 * failures that answer for themselves.
 *
 * Every failure of the union is a respondable of `effect/http`: one that leaves
 * a handler unhandled becomes the response that `HttpErrorResponse` describes,
 * without anything being set up. The middleware does the same for failures
 * inside `AiError` too, takes settings of its own, and leaves nothing for the
 * request log of `effect/http` to print with its stack.
 *
 * **Details**
 *
 * - What is no failure of ours and no `AiError` passes unchanged: routes that are
 *   not there, requests that cannot be read, responses and defects.
 * - A failure of ours that was raised as a defect (`Effect.orDie`) is answered by
 *   the table too.
 * - Layers around the server are heard: `FailureMode.layer` for the table,
 *   `HttpErrorResponse.layer` for settings, loggers for the log.
 *
 * **Gotchas**
 *
 * - A respondable alone is also printed by the request log of `effect/http`, as a
 *   cause with a stack. Its text is ours, so nothing leaks; but for one line a
 *   failed response, use the middleware.
 * - For a stream, open it with `stream`: a failure after the first byte cannot
 *   change the status any more.
 *
 * **Example** (A router)
 *
 * ```ts
 * import { FailureMode, HttpErrorMiddleware, type LlmError } from "@understudy/core"
 * import { Effect, Layer } from "effect"
 * import { HttpRouter, HttpServerResponse } from "effect/http"
 *
 * declare const ask: Effect.Effect<string, LlmError.LlmError>
 *
 * export const app = HttpRouter.add("GET", "/ask", Effect.map(ask, HttpServerResponse.text)).pipe(
 *   Layer.merge(HttpErrorMiddleware.layer({ failureModes: FailureMode.operatorOwned })),
 * )
 * ```
 */
import type * as Cause from "effect/Cause"
import type { AiError } from "effect/ai/AiError"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import { HttpServerRequest } from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import type * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as HttpErrorStream from "./HttpErrorStream.ts"
import { checkedSettings, type Settings } from "./internal/http/answer.ts"
import { failureOf } from "./internal/http/failureOf.ts"
import { respond as respondWith } from "./internal/http/respond.ts"
import type { LlmError } from "./internal/llmError.ts"

/** What `handle` takes out of an error type. */
export type Handled = LlmError | AiError

/**
 * The response to a failure, for the request that is being answered, with one
 * line in the log.
 */
export const respond = (
  failure: LlmError,
  settings: Settings = {},
): Effect.Effect<HttpServerResponse.HttpServerResponse> =>
  respondWith(failure, checkedSettings("HttpErrorMiddleware.respond", settings))

/**
 * Answers the failures of a handler, a router or a whole server: a middleware of
 * `effect/http`. Removes the union and `AiError` from the error channel.
 */
export const handle = (
  settings: Settings = {},
): (<E, R>(
  app: Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>,
) => Effect.Effect<HttpServerResponse.HttpServerResponse, Exclude<E, Handled>, R>) => {
  const checked = checkedSettings("HttpErrorMiddleware.handle", settings)
  return <E, R>(app: Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>) =>
    Effect.catchCause(app, (cause) => {
      const failure = failureOf(cause)
      return failure === undefined
        ? Effect.failCause(cause as Cause.Cause<Exclude<E, Handled>>)
        : respondWith(failure, checked)
    })
}

/** `handle` around all routes of a router. */
export const layer = (settings: Settings = {}): Layer.Layer<never, never, HttpRouter.HttpRouter> =>
  HttpRouter.middleware(handle(settings), { global: true })

/**
 * A response with status 200 that streams, once the first element is there; until
 * then the failures of the stream, for `handle` to answer. When the client goes,
 * the stream is interrupted.
 */
export const stream = <E, R>(
  source: Stream.Stream<string | Uint8Array, E, R>,
  options: Omit<HttpErrorStream.Options, "request">,
): Effect.Effect<HttpServerResponse.HttpServerResponse, E, R | HttpServerRequest | Scope.Scope> =>
  Effect.gen(function* () {
    const request = yield* HttpServerRequest
    const body = yield* HttpErrorStream.open(source, { ...options, request })
    return HttpServerResponse.stream(body, {
      headers: HttpErrorStream.headers(options.dialect),
      contentType: HttpErrorStream.contentTypes[options.dialect],
    })
  })
