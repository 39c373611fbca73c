/**
 * One request to a provider, and what comes back: what the adapters over HTTP
 * share. It retries nothing, and everything that can go wrong on the way is a
 * failure of the union.
 *
 * - The request lives in a scope: an interruption at any moment aborts it, which
 *   closes its socket.
 * - At most 64 KiB of an error's body are read, and 32 MiB of an answer's, in
 *   both cases after decompression.
 * - The key is in a header that traces redact, and nowhere else: it is cut out
 *   of whatever a provider quotes, and failures of the transport are taken apart
 *   so that the request is not their cause.
 */
import type * as Classifier from "@understudy/core/Classifier"
import * as LanguageModelFace from "@understudy/core/LanguageModelFace"
import * as LlmError from "@understudy/core/LlmError"
import * as Provider from "@understudy/core/Provider"
import * as RateLimit from "@understudy/core/RateLimit"
import * as Timeouts from "@understudy/core/Timeouts"
import type * as Response from "effect/ai/Response"
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Headers from "effect/http/Headers"
import * as HttpBody from "effect/http/HttpBody"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Pull from "effect/Pull"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Asked from "./asked.ts"
import { invalid, scrubbed } from "./asked.ts"
import { parse } from "./json.ts"
import * as Sse from "./sse.ts"

type Part = LanguageModelFace.Part
type Failure = LlmError.ProviderFailure

/** The most that is read of an error's body, in bytes. */
export const maxErrorBody = 64 * 1024

/** The most that is read of an answer, in bytes. */
export const maxAnswerBody = 32 * 1024 * 1024

/** Header values: a text, or a secret. */
export type HeaderInput = Readonly<Record<string, string | Redacted.Redacted<string>>>

/** Where requests go, and with what. */
export interface Endpoint extends Asked.Candidate {
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  /** The header that carries the key. */
  readonly authorize: (key: string) => Readonly<Record<string, string>>
}

/** One attempt over HTTP. */
export interface Attempt extends Asked.Asked {
  readonly endpoint: Endpoint
}

// ---------------------------------------------------------------------------
// The endpoint
// ---------------------------------------------------------------------------

const headerName = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
const headerValue = /^[\t\x20-\x7e\x80-\xff]*$/

/** The address of a path below a base URL, whose query is kept. Throws for what is no http address. */
export const address = (where: string, baseUrl: string, path: string): string => {
  const url = URL.parse(baseUrl)
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) {
    throw new TypeError(`${where}: baseUrl: expected an http or https address`)
  }
  if (url.username !== "" || url.password !== "") {
    throw new TypeError(`${where}: baseUrl: expected an address without user and password; give the key as apiKey`)
  }
  url.pathname = `${url.pathname.replace(/\/+$/, "")}${path}`
  return url.href
}

/** The headers of every request. Throws for a name or value that no header can carry, naming the header only. */
export const headers = (where: string, input: HeaderInput | undefined): Readonly<Record<string, string>> => {
  const out: Record<string, string> = {}
  for (const [name, value] of Object.entries(input ?? {})) {
    const text = Redacted.isRedacted(value) ? Redacted.value(value) : value
    if (!headerName.test(name) || !headerValue.test(text)) {
      throw new TypeError(`${where}: headers: ${JSON.stringify(name)} cannot be sent as a header`)
    }
    out[name.toLowerCase()] = text
  }
  return out
}

// ---------------------------------------------------------------------------
// Failures
// ---------------------------------------------------------------------------

// The error of a client holds the request, and the request holds the key. Its
// tag is left out too: a connection that breaks within a body is a `DecodeError`.
const withoutRequest = (error: unknown): unknown => {
  if (!HttpClientError.isHttpClientError(error)) return error
  const { reason } = error
  const description = "description" in reason ? reason.description : undefined
  return new Error(description ?? "The transport failed.", { cause: "cause" in reason ? reason.cause : undefined })
}

const ofNetwork = ({ classifier, subject }: Attempt, cause: Cause.Cause<unknown>): Failure =>
  classifier.classify({ where: "network", error: withoutRequest(Cause.squash(cause)) }, subject)

// Whatever the transport throws is a failure; only an interruption stays one.
const orFailure =
  (attempt: Attempt) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, Failure, R> =>
    Effect.catchCause(self, (cause) =>
      Cause.hasInterruptsOnly(cause) ? Effect.interrupt : Effect.fail(ofNetwork(attempt, cause)),
    )

// ---------------------------------------------------------------------------
// The attempt
// ---------------------------------------------------------------------------

/** Reads what the caller overrides. Fails, before any network, with a key that no header can carry. */
export const begin = (endpoint: Endpoint): Effect.Effect<Attempt, LlmError.AuthenticationFailed> =>
  Effect.map(Asked.begin(endpoint), (asked) => ({ ...asked, endpoint }))

/** Builds a request's body, as text. What cannot be said in this dialect is `InvalidRequest`. */
export const build = (attempt: Attempt, body: () => unknown): Effect.Effect<string, LlmError.InvalidRequest> =>
  Asked.build(attempt, () => JSON.stringify(body()))

const secretHeaders = ["authorization", "x-api-key", "api-key", "x-goog-api-key"]

/** Sends a request. Succeeds with a response of success only. */
const send = (
  attempt: Attempt,
  body: string,
  accept: string,
): Effect.Effect<HttpClientResponse.HttpClientResponse, Failure, HttpClient.HttpClient | Scope.Scope> =>
  Effect.gen(function* () {
    const { endpoint, key, subject } = attempt
    const authorization = key === undefined ? {} : endpoint.authorize(key)
    const client = HttpClient.withScope(yield* HttpClient.HttpClient)
    const request = HttpClientRequest.post(endpoint.url, {
      headers: {
        accept,
        // What is not asked for need not be undone; see `plainBytes` for who sends it nevertheless.
        "accept-encoding": "identity",
        // Headers of the user's win, but not over a key that came with the call.
        ...(subject.credential === "call"
          ? { ...endpoint.headers, ...authorization }
          : { ...authorization, ...endpoint.headers }),
      },
      body: HttpBody.text(body, "application/json"),
    })
    const response = yield* client.execute(request).pipe(
      Effect.updateContext((context: Context.Context<HttpClient.HttpClient | Scope.Scope>) =>
        context.pipe(
          // A query may hold a key, and spans hold the whole address.
          Context.add(
            HttpClient.TracerDisabledWhen,
            (asked) => endpoint.url.includes("?") || Context.get(context, HttpClient.TracerDisabledWhen)(asked),
          ),
          // Every header of the user's may be a secret.
          Context.add(Headers.CurrentRedactedNames, [
            ...Context.get(context, Headers.CurrentRedactedNames),
            ...secretHeaders,
            ...Object.keys(endpoint.headers),
          ]),
          // `fetch` would take the key along to wherever it is sent.
          Context.add(FetchHttpClient.RequestInit, {
            ...Context.getOrUndefined(context, FetchHttpClient.RequestInit),
            redirect: "manual",
          }),
        ),
      ),
      orFailure(attempt),
    )
    if (response.status >= 200 && response.status < 300) return response
    // An error's body may break off: its status and what came of it say enough.
    const said = yield* collect(response, maxErrorBody)
    return yield* Effect.fail(
      attempt.classifier.classify(
        {
          where: "http",
          status: response.status,
          headers: { ...response.headers },
          body: scrubbed(attempt, said.text),
        },
        attempt.subject,
      ),
    )
  })

// ---------------------------------------------------------------------------
// Bodies
// ---------------------------------------------------------------------------

type Bytes = Stream.Stream<Uint8Array, HttpClientError.HttpClientError>

const first = (coding: string): number => (coding === "deflate" ? 0x78 : 0x1f)

/**
 * The bytes of a body, decompressed. `fetch` does that itself and leaves the
 * header, undici does not: so the first byte decides, which no JSON, event
 * stream or page begins with.
 */
const plainBytes = (response: HttpClientResponse.HttpClientResponse): Bytes => {
  const said = response.headers["content-encoding"]?.trim().toLowerCase()
  const coding = said === "x-gzip" ? "gzip" : said
  if (coding !== "gzip" && coding !== "deflate") return response.stream
  return Stream.unwrap(
    Effect.gen(function* () {
      const pull = yield* Stream.toPull(response.stream)
      const head = yield* Pull.catchDone(pull, () => Effect.succeed(undefined))
      if (head === undefined) return Stream.empty
      const whole: Bytes = Stream.concat(Stream.fromArray(head), Stream.fromPull(Effect.succeed(pull)))
      return head[0][0] === first(coding) ? decompressed(response, whole, coding) : whole
    }),
  )
}

const decompressed = (
  response: HttpClientResponse.HttpClientResponse,
  bytes: Bytes,
  coding: "gzip" | "deflate",
): Bytes =>
  Stream.fromReadableStream<Uint8Array, HttpClientError.HttpClientError>({
    evaluate: () => {
      const { readable, writable } = new DecompressionStream(coding)
      // The types of the web disagree on the buffer below a byte array.
      const into = writable as WritableStream<Uint8Array>
      return Stream.toReadableStream(bytes).pipeThrough({ readable, writable: into })
    },
    onError: (cause) =>
      HttpClientError.isHttpClientError(cause)
        ? cause
        : new HttpClientError.HttpClientError({
            reason: new HttpClientError.DecodeError({ request: response.request, response, cause }),
          }),
  })

const isEmptyBody = (error: unknown): boolean =>
  HttpClientError.isHttpClientError(error) && error.reason._tag === "EmptyBodyError"

interface Body {
  readonly text: string
  /** Is it longer than the limit? */
  readonly tooLong: boolean
  /** Why it broke off, if it did. */
  readonly broken: Cause.Cause<unknown> | undefined
}

/** A body as text, up to a limit. */
const collect = (response: HttpClientResponse.HttpClientResponse, limit: number): Effect.Effect<Body> =>
  Effect.suspend(() => {
    const decoder = new TextDecoder()
    let size = 0
    let text = ""
    const body = (broken: Cause.Cause<unknown> | undefined): Body => ({
      text: text + decoder.decode(),
      tooLong: size > limit,
      broken,
    })
    return plainBytes(response).pipe(
      Stream.runForEachWhile((chunk) =>
        Effect.sync(() => {
          size += chunk.byteLength
          text += decoder.decode(chunk, { stream: true })
          return size <= limit
        }),
      ),
      Effect.matchCauseEffect({
        onSuccess: () => Effect.sync(() => body(undefined)),
        onFailure: (cause) =>
          Cause.hasInterruptsOnly(cause)
            ? Effect.interrupt
            : Effect.sync(() => body(isEmptyBody(Cause.squash(cause)) ? undefined : cause)),
      }),
    )
  })

const tooLarge = (attempt: Attempt): Failure => invalid(attempt, "protocol", "The answer is larger than 32 MiB.")

/** The value of an answer's body, or the failure that it is. */
const valueOf = (attempt: Attempt, text: string, headers: Headers.Headers): Effect.Effect<unknown, Failure> => {
  const { classifier, subject } = attempt
  const inspect = (text: string, value: unknown) => classifier.inspectAnswer(value ?? text, subject, { ...headers })
  const value = parse(text)
  const failure = inspect(text, value)
  if (failure === undefined) return Effect.succeed(value)
  const clean = scrubbed(attempt, text)
  return Effect.fail((clean === text ? undefined : inspect(clean, parse(clean))) ?? failure)
}

// ---------------------------------------------------------------------------
// Answers
// ---------------------------------------------------------------------------

/** What a dialect makes of an answer's JSON: parts, or the failure that it is. */
export type Decode<A> = (value: unknown) => ReadonlyArray<A> | Failure

/** Asks for an answer. */
export const generate = <A>(
  attempt: Attempt,
  body: string,
  decode: Decode<A>,
): Effect.Effect<ReadonlyArray<A>, Failure, HttpClient.HttpClient> =>
  Effect.gen(function* () {
    const response = yield* send(attempt, body, "application/json")
    const { broken, text, tooLong } = yield* collect(response, maxAnswerBody)
    if (tooLong) return yield* Effect.fail(tooLarge(attempt))
    if (broken !== undefined) return yield* Effect.fail(ofNetwork(attempt, broken))
    const decoded = decode(yield* valueOf(attempt, text, response.headers))
    if (LlmError.isLlmError(decoded)) return yield* Effect.fail(decoded)
    const headroom = RateLimit.headroom(response.headers, attempt.now)
    return headroom === undefined ? decoded : decoded.map((part) => withHeadroom(part, headroom))
  }).pipe(Effect.scoped)

// What is left of the provider's limits goes up with the metadata of its answer, to whoever paces the calls.
const withHeadroom = <A>(part: A, headroom: RateLimit.Headroom): A =>
  isMetadata(part) ? { ...part, metadata: { ...part.metadata, [RateLimit.namespace]: { ...headroom } } } : part

const isMetadata = (part: unknown): part is Response.ResponseMetadataPartEncoded =>
  typeof part === "object" && part !== null && "type" in part && part.type === "response-metadata"

// ---------------------------------------------------------------------------
// Streams
// ---------------------------------------------------------------------------

/** What a dialect makes of the events of one stream. */
export interface Decoder {
  /** The parts of an event are pushed; what is returned is the failure that the event is. */
  readonly event: (event: Sse.Event, out: Array<Part>) => Failure | undefined
  /** The body has ended. */
  readonly end: (out: Array<Part>) => Failure | undefined
  /** Is the answer whole, whatever else comes? */
  readonly complete: () => boolean
  /** Did the end marker come, behind which nothing is read? */
  readonly closed: () => boolean
  /** A whole answer, where events were asked for. */
  readonly whole: (value: unknown) => ReadonlyArray<Part> | Failure
}

/** The headers of a stream have a clock of their own, where the policies say so: nobody else sees when they come. */
const headersInTime = <A, E, R>(
  { subject }: Attempt,
  self: Effect.Effect<A, E, R>,
): Effect.Effect<A, E | LlmError.TimedOut, R> =>
  Effect.flatMap(Timeouts.CurrentHeadersLimit, (millis) =>
    millis === Infinity
      ? self
      : Effect.timeoutOrElse(self, {
          duration: millis,
          orElse: () =>
            Effect.fail(
              new LlmError.TimedOut({
                provider: subject.provider,
                model: subject.model,
                phase: "headers",
                limit: Duration.millis(millis),
              }),
            ),
        }),
  )

/** Asks for a stream. The decoder is made for the headers of its response. */
export const stream = (
  attempt: Attempt,
  body: string,
  make: (headers: Classifier.SignalHeaders) => Decoder,
): Stream.Stream<Part, Failure, HttpClient.HttpClient> =>
  Stream.unwrap(
    Effect.map(headersInTime(attempt, send(attempt, body, "text/event-stream")), (response) =>
      Stream.transformPull(plainBytes(response), (pull) =>
        Effect.sync(() => partsOf(attempt, response.headers, make({ ...response.headers }), pull)),
      ),
    ),
  )

type Parts = Arr.NonEmptyReadonlyArray<Part>

const isFilled = (parts: Array<Part>): parts is [Part, ...Array<Part>] => parts.length > 0

const partsOf = (
  attempt: Attempt,
  headers: Headers.Headers,
  decoder: Decoder,
  pull: Pull.Pull<Arr.NonEmptyReadonlyArray<Uint8Array>, HttpClientError.HttpClientError>,
): Pull.Pull<Parts, Failure> => {
  const reader = new Sse.Reader()
  // A body that begins as JSON or HTML is no event stream, whatever its type says.
  let plain: { text: string; size: number; readonly decoder: TextDecoder } | undefined
  let begun = false
  // What comes after the parts that are out: a failure, or the end.
  let after: Pull.Pull<never, Failure> | undefined
  let headroom = RateLimit.headroom(headers, attempt.now)

  const conclude = (parts: Array<Part>, failure: Failure | undefined, ended: boolean): Pull.Pull<Parts, Failure> => {
    const metadata = headroom === undefined ? -1 : parts.findIndex(isMetadata)
    if (headroom !== undefined && metadata >= 0) {
      parts[metadata] = withHeadroom(parts[metadata]!, headroom)
      headroom = undefined
    }
    if (failure !== undefined) after = Effect.fail(failure)
    else if (ended) after = Cause.done()
    return isFilled(parts) ? Effect.succeed(parts) : (after ?? next)
  }

  const events = (seen: ReadonlyArray<Sse.Event>, parts: Array<Part>): Failure | undefined => {
    for (const event of seen) {
      const failure = decoder.event(event, parts)
      if (failure !== undefined) return failure
      if (decoder.closed()) return undefined
    }
    return reader.tooLong ? invalid(attempt, "protocol", "An event of its stream is longer than 1 MiB.") : undefined
  }

  const onBytes = (chunks: Arr.NonEmptyReadonlyArray<Uint8Array>): Pull.Pull<Parts, Failure> => {
    const parts: Array<Part> = []
    for (const chunk of chunks) {
      if (!begun) {
        const at = chunk.find((byte) => byte > 0x20 && byte !== 0xef && byte !== 0xbb && byte !== 0xbf)
        if (at !== undefined) {
          begun = true
          if (at === 0x7b || at === 0x5b || at === 0x3c) plain = { text: "", size: 0, decoder: new TextDecoder() }
        }
      }
      if (plain !== undefined) {
        plain.size += chunk.byteLength
        if (plain.size > maxAnswerBody) return conclude(parts, tooLarge(attempt), true)
        plain.text += plain.decoder.decode(chunk, { stream: true })
        continue
      }
      const failure = events(reader.feed(chunk), parts)
      if (failure !== undefined || decoder.closed()) return conclude(parts, failure, true)
    }
    return conclude(parts, undefined, false)
  }

  const onEnd = (): Pull.Pull<Parts, Failure> => {
    if (plain !== undefined) {
      return Effect.flatMap(valueOf(attempt, plain.text, headers), (value) => {
        const parts = decoder.whole(value)
        return LlmError.isLlmError(parts) ? Effect.fail(parts) : conclude([...parts], undefined, true)
      })
    }
    const parts: Array<Part> = []
    const failure = events(reader.end(), parts) ?? (decoder.closed() ? undefined : decoder.end(parts))
    return conclude(parts, failure, true)
  }

  const next: Pull.Pull<Parts, Failure> = Effect.suspend(() =>
    after !== undefined
      ? after
      : Effect.matchCauseEffect(pull, {
          onSuccess: onBytes,
          onFailure: (cause): Pull.Pull<Parts, Failure> => {
            if (Pull.isDoneCause(cause)) return onEnd()
            if (Cause.hasInterruptsOnly(cause)) return Effect.interrupt
            if (isEmptyBody(Cause.squash(cause)) || (plain === undefined && decoder.complete())) return onEnd()
            return Effect.fail(ofNetwork(attempt, cause))
          },
        }),
  )
  return next
}

// ---------------------------------------------------------------------------
// Providers
// ---------------------------------------------------------------------------

type Face = LanguageModelFace.LanguageModelFace

/** The two functions of an adapter. */
export interface Hooks {
  readonly name: string
  readonly model: string
  readonly generate: (
    request: LanguageModelFace.Request,
  ) => Effect.Effect<LanguageModelFace.Answer, Failure, HttpClient.HttpClient>
  readonly stream: (request: LanguageModelFace.Request) => Stream.Stream<Part, Failure, HttpClient.HttpClient>
}

/** A provider of these functions. */
export const provider = (hooks: Hooks): Provider.Provider<Face, Failure, HttpClient.HttpClient> =>
  Provider.make({ ...hooks, face: LanguageModelFace.languageModelFace })

/** A provider of these functions, with the client of the context. */
export const connected = ({
  generate,
  stream,
  ...hooks
}: Hooks): Effect.Effect<Provider.Provider<Face, Failure>, never, HttpClient.HttpClient> =>
  Effect.map(HttpClient.HttpClient, (client) =>
    Provider.make({
      ...hooks,
      face: LanguageModelFace.languageModelFace,
      generate: (request: LanguageModelFace.Request) =>
        Effect.provideService(generate(request), HttpClient.HttpClient, client),
      stream: (request: LanguageModelFace.Request) =>
        Stream.provideService(stream(request), HttpClient.HttpClient, client),
    }),
  )
