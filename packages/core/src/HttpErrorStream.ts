/**
 * Streams over HTTP that tell the truth about their end.
 *
 * Before the first byte a failure can still become a status: `open` waits for
 * the first element, and fails as the stream does. Behind it the status is gone,
 * so the body ends with an error event in the words of whoever reads it, and
 * without the end marker of a whole answer.
 *
 * **Details**
 *
 * | dialect | the last event | what is never sent then |
 * |---|---|---|
 * | `sse` | `event: error`, `data: {"error":{…}}` | whatever ends your streams |
 * | `openai` | `data: {"error":{"message","type","param","code",…}}` | `data: [DONE]` |
 * | `anthropic` | `event: error`, `data: {"type":"error","error":{"type","message",…}}` | `event: message_stop` |
 * | `ndjson` | `{"error":{…}}` | whatever ends your streams |
 *
 * - The body is then ended as HTTP ends bodies. A connection that is broken
 *   instead would take with it what had not been read yet, and with it the event.
 * - One line of the log for a stream that broke, with the status that it had.
 * - What is no failure of ours is told as `unknown`, without its text.
 *
 * **Gotchas**
 *
 * - Write your end marker as the last element of the stream that you give, so
 *   that it comes only when everything before it did.
 * - The first element decides. Put nothing before the parts of the provider (a
 *   greeting, a role), or the response begins before anything is known.
 * - Elements must be whole events or lines. One that is not is closed before the
 *   error event begins.
 *
 * **Example** (An answer as server-sent events, for Hono, Next or Bun)
 *
 * ```ts
 * import { HttpErrorResponse, HttpErrorStream, LanguageModelFace, type LlmError, type Provider } from "@understudy/core"
 * import { Effect, Stream } from "effect"
 *
 * declare const model: Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.ProviderFailure>
 *
 * export const POST = HttpErrorResponse.handler((request: Request) =>
 *   Effect.promise(() => request.text()).pipe(
 *     Effect.flatMap((question) =>
 *       HttpErrorStream.toResponse(
 *         model.stream(LanguageModelFace.request(question)).pipe(
 *           Stream.map(LanguageModelFace.languageModelFace.partText),
 *           Stream.map((text) => `data: ${JSON.stringify({ text })}\n\n`),
 *           Stream.concat(Stream.make("data: [DONE]\n\n")),
 *         ),
 *         { dialect: "openai", request },
 *       ),
 *     ),
 *   ),
 * )
 * ```
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Pull from "effect/Pull"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { answering, checkedSettings, logLine, publicError, type Settings } from "./internal/http/answer.ts"
import { contentTypes, type Dialect, separators, written } from "./internal/http/dialects.ts"
import { failureOf } from "./internal/http/failureOf.ts"
import { factsOf, type RequestLike } from "./internal/http/requestFacts.ts"
import { answeringNow, report, write } from "./internal/http/settings.ts"
import { checked } from "./internal/options.ts"
import type { LlmError } from "./internal/llmError.ts"

export {
  /** The media type of each dialect. */
  contentTypes,
  type Dialect,
}

const Dialects = Schema.Struct({ dialect: Schema.Literals(["sse", "openai", "anthropic", "ndjson"]) })

/** How a stream is written. */
export interface Options extends Settings {
  /** Whose words: `sse`, `openai`, `anthropic` or `ndjson`. */
  readonly dialect: Dialect
  /** The request that is answered, for the path in the log and the request's identifier. */
  readonly request?: RequestLike | undefined
}

interface Checked {
  readonly dialect: Dialect
  readonly request: RequestLike | undefined
  readonly settings: Settings
}

const check = (where: string, { dialect, request, ...settings }: Options): Checked => ({
  dialect: checked(where, Dialects, { dialect }).dialect,
  request,
  settings: checkedSettings(where, settings),
})

/** The last event of a stream that failed, with all that ends it. Pure. */
export const event = (
  failure: LlmError,
  dialect: Dialect,
  options: Settings & { readonly requestId?: string | undefined } = {},
): string => {
  const { requestId, ...rest } = options
  const { dialect: to, settings } = check("HttpErrorStream.event", { dialect, ...rest })
  return written(publicError(failure, answering(settings), requestId).error, to)
}

/** The body that a stream of events or lines is. It tells failures as its last event, so that it never fails itself. */
export const body = <E, R>(
  stream: Stream.Stream<string | Uint8Array, E, R>,
  options: Options,
): Stream.Stream<Uint8Array, never, R> => bodyOf(stream, check("HttpErrorStream.body", options))

const bodyOf = <E, R>(
  stream: Stream.Stream<string | Uint8Array, E, R>,
  { dialect, request, settings }: Checked,
): Stream.Stream<Uint8Array, never, R> =>
  Stream.suspend(() => {
    const encoder = new TextEncoder()
    const tail = new Tail()
    return stream.pipe(
      Stream.map((element) => tail.seen(typeof element === "string" ? encoder.encode(element) : element)),
      Stream.catchCause((cause) => {
        // Whoever interrupts does not read on.
        if (Cause.hasInterruptsOnly(cause)) return Stream.failCause(cause as Cause.Cause<never>)
        return Stream.fromEffect(
          Effect.gen(function* () {
            const all = yield* answeringNow(settings)
            const failure = failureOf(cause)
            const facts = factsOf(request, all.requestIdHeader)
            if (failure === undefined) yield* report(cause)
            yield* write(logLine(failure, all, facts, 200))
            const { error } = publicError(failure, all, facts.requestId)
            return encoder.encode(tail.gap(separators[dialect]) + written(error, dialect))
          }),
        )
      }),
    )
  })

/** How what was sent so far ends. */
class Tail {
  private last = ""

  seen(bytes: Uint8Array): Uint8Array {
    if (bytes.length > 0) {
      this.last = `${this.last}${String.fromCharCode(...bytes.subarray(-4))}`.replaceAll("\r", "").slice(-2)
    }
    return bytes
  }

  /** What is missing until something new may begin. */
  gap(separator: string): string {
    if (this.last === "" || this.last.endsWith(separator)) return ""
    return this.last.endsWith("\n") ? separator.slice(1) : separator
  }
}

/**
 * Waits for the first element: until then the failures are those of the stream,
 * so that they can still become a status. Gives the body, which never fails. The
 * stream lives as long as the scope.
 */
export const open = <E, R>(
  stream: Stream.Stream<string | Uint8Array, E, R>,
  options: Options,
): Effect.Effect<Stream.Stream<Uint8Array>, E, R | Scope.Scope> =>
  openChecked(stream, check("HttpErrorStream.open", options))

const openChecked = <E, R>(
  stream: Stream.Stream<string | Uint8Array, E, R>,
  options: Checked,
): Effect.Effect<Stream.Stream<Uint8Array>, E, R | Scope.Scope> =>
  Effect.gen(function* () {
    const context = yield* Effect.context<R>()
    const pull = yield* Stream.toPull(Stream.filter(stream, (element) => element.length > 0))
    const first = yield* Pull.catchDone(pull, () => Effect.succeed([]))
    const rest = first.length === 0 ? Stream.empty : Stream.fromPull(Effect.succeed(pull))
    return Stream.provideContext(bodyOf(Stream.concat(Stream.fromArray(first), rest), options), context)
  })

/** The headers of a response that streams: no cache, and no proxy that waits for more. */
export const headers = (dialect: Dialect): Readonly<Record<string, string>> => ({
  "content-type": contentTypes[dialect],
  "cache-control": "no-cache",
  "x-accel-buffering": "no",
})

/**
 * A web `Response` with status 200 that streams, once the first element is there;
 * until then the failures of the stream, for `HttpErrorResponse.handler` to
 * answer. When the reader goes, the stream is interrupted.
 */
export const toResponse = <E, R>(
  stream: Stream.Stream<string | Uint8Array, E, R>,
  options: Options & { readonly request?: (RequestLike & { readonly signal?: AbortSignal }) | undefined },
): Effect.Effect<Response, E, R> => {
  const checked = check("HttpErrorStream.toResponse", options)
  return Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const bytes = yield* restore(openChecked(stream, checked)).pipe(
        Effect.provideService(Scope.Scope, scope),
        Effect.onExit((exit) => (Exit.isFailure(exit) ? Scope.close(scope, exit) : Effect.void)),
      )
      const closing = Stream.onExit(bytes, (exit) => Scope.close(scope, exit))
      const context = yield* Effect.context<never>()
      const signal = options.request?.signal
      return new Response(Stream.toReadableStreamWith(closing, context, signal === undefined ? {} : { signal }), {
        headers: { ...headers(checked.dialect) },
      })
    }),
  )
}
