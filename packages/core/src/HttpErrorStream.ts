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
 * - What is interrupted from inside is told as `stream_interrupted`, with a line of
 *   the log. Whoever interrupts the body itself does not read on, and is told
 *   nothing.
 * - When the signal of the request of `toResponse` aborts, the stream is interrupted
 *   and its last event is the failure that the signal has as its reason, or
 *   `deadline_exceeded` for `AbortSignal.timeout`, each with a line of the log. For
 *   any other reason it is `stream_interrupted` without a line, since that is
 *   mostly a client that went, and then nobody reads it.
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
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Pull from "effect/Pull"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { abortable } from "./internal/http/abortable.ts"
import {
  type Answering,
  answering,
  checkedSettings,
  errorAndLine,
  type LogLine,
  publicError,
  type Settings,
} from "./internal/http/answer.ts"
import { contentTypes, type Dialect, separators, written } from "./internal/http/dialects.ts"
import { failureOf } from "./internal/http/failureOf.ts"
import { factsOf, type RequestLike, signalOf } from "./internal/http/requestFacts.ts"
import { answeringNow, report, write } from "./internal/http/settings.ts"
import { checked } from "./internal/options.ts"
import { DeadlineExceeded, type LlmError, StreamInterrupted } from "./internal/llmError.ts"

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
        // Whoever interrupts the body does not read on, and does not come here either: what is interrupted here is
        // something inside of the stream, and its reader waits.
        const failure = Cause.hasInterruptsOnly(cause) ? interrupted() : failureOf(cause)
        return Stream.fromEffect(
          Effect.gen(function* () {
            const all = yield* answeringNow(settings)
            if (failure === undefined) yield* report(cause)
            const { line, text } = lastWords(failure, all, dialect, request)
            yield* write(line)
            return encoder.encode(tail.gap(separators[dialect]) + text)
          }),
        )
      }),
    )
  })

/** What interrupted it has no name: it is the service that did not go on. */
const interrupted = (): LlmError => new StreamInterrupted({ provider: "service", committed: true })

/** The last event of a stream that was answered with 200, and the line of the log. */
const lastWords = (
  failure: LlmError | undefined,
  all: Answering,
  dialect: Dialect,
  request: RequestLike | undefined,
): { readonly line: LogLine; readonly text: string } => {
  const facts = factsOf(request, all.requestIdHeader)
  const { error, line } = errorAndLine(failure, all, facts, 200)
  return { line, text: written(error, dialect) }
}

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
 * answer. When the reader goes, the stream is interrupted. When the request's
 * signal aborts it is too, and the body ends with an error event.
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
      const all = yield* answeringNow(checked.settings)
      const source = Stream.toReadableStreamWith(closing, context)
      const signal = signalOf(options.request)
      return new Response(signal === undefined ? source : untilAborted(source, signal, checked, all, context), {
        headers: { ...headers(checked.dialect) },
      })
    }),
  )
}

/** The failure that an abort is, and whether it is one for the log. */
const abortedBy = (signal: AbortSignal): { readonly failure: LlmError; readonly logged: boolean } => {
  const reason: unknown = signal.reason
  const failure = failureOf(reason)
  if (failure !== undefined) return { failure, logged: true }
  // What `AbortSignal.timeout` says. Of the rest nobody can tell whether the client went or a middleware gave up.
  return reason instanceof DOMException && reason.name === "TimeoutError"
    ? { failure: new DeadlineExceeded({ provider: "service" }), logged: true }
    : { failure: interrupted(), logged: false }
}

/** A body that ends with an error event when the signal aborts: its end would be taken for that of a whole answer. */
const untilAborted = (
  source: ReadableStream<Uint8Array>,
  signal: AbortSignal,
  { dialect, request }: Checked,
  all: Answering,
  context: Context.Context<never>,
): ReadableStream<Uint8Array> => {
  const tail = new Tail()
  return abortable(
    source,
    signal,
    () => {
      const { failure, logged } = abortedBy(signal)
      const { line, text } = lastWords(failure, all, dialect, request)
      if (logged) Effect.runForkWith(context)(write(line))
      return new TextEncoder().encode(tail.gap(separators[dialect]) + text)
    },
    (bytes) => tail.seen(bytes),
  )
}
