/**
 * Laws for providers of language models: one contract that every adapter and
 * bridge keeps, checked over real sockets against the fault-injecting upstream.
 *
 * Policies rely on what an adapter promises: that it tells a rate limit from a
 * spent budget, that a broken stream never looks whole, that it retries nothing
 * itself, that an interruption closes the socket. Each law is one sentence
 * (`titles`), one effect to check it, and a failure that says what was expected
 * and what was seen.
 *
 * **Details**
 *
 * - A law starts an upstream of its own, and ends within seconds. It keeps real
 *   time, whatever `Clock` the test has.
 * - A law asks in both modes, for an answer and for a stream, and counts the
 *   requests that arrive: one for each call.
 * - Laws about failures also check what every failure owes: the provider's name
 *   and model, JSON that can be decoded, and no key in any way of showing it.
 * - What an adapter truly cannot keep goes into `skips`, with the reason. The
 *   check of a skipped law can be run all the same: one that holds is a skip
 *   that is not needed any more.
 *
 * **Example** (An adapter of one's own, with any test runner)
 *
 * ```ts
 * import { OpenAiChat } from "@understudy/providers"
 * import { ProviderLaws } from "@understudy/testkit"
 * import { Effect } from "effect"
 * import { FetchHttpClient } from "effect/http"
 *
 * const laws = ProviderLaws.laws({
 *   dialect: "openai",
 *   make: (upstream, options) => OpenAiChat.make({ model: "m", baseUrl: upstream.openaiUrl, ...options }),
 * })
 *
 * // With @effect/vitest: for (const law of laws) it.effect(law.title, () => law.check)
 * export const test = Effect.forEach(laws, (law) => law.check).pipe(Effect.provide(FetchHttpClient.layer))
 * ```
 */
import * as Call from "@understudy/core/Call"
import * as LanguageModelFace from "@understudy/core/LanguageModelFace"
import * as LlmError from "@understudy/core/LlmError"
import type * as Provider from "@understudy/core/Provider"
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Prompt from "effect/ai/Prompt"
import * as Response from "effect/ai/Response"
import * as Tool from "effect/ai/Tool"
import * as Toolkit from "effect/ai/Toolkit"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { inspect, isDeepStrictEqual } from "node:util"
import * as Upstream from "./Upstream.ts"

// -----------------------------------------------------------------------------
// Laws
// -----------------------------------------------------------------------------

/** The laws, each in a sentence. */
export const titles = {
  text: "the text of an answer is the same whole and in parts, and one finish ends it",
  reasoning: "reasoning comes beside the text, whole and in parts",
  usage: "the tokens that the provider counts are told",
  finishReasons: "the reasons stop, length and tool-calls are told apart",
  toolCalls: "calls of tools have their ids, their names, and their parameters as parsed JSON",
  partsDecode: "every part decodes as what LanguageModel takes from its hooks",

  systemMessage: "a system message reaches the wire as one",
  tools: "tools and the choice among them reach the wire",
  toolResults: "calls of tools and their results in the history reach the wire, under one id",
  images: "an image in the prompt reaches the wire",
  structuredOutput: "an answer in the form of a schema is asked for, and decodes by it",
  structuredOutputOptional: "an optional field of a schema may be left out of an answer",
  parameters: "parameters of the candidate reach the wire",
  parametersOfCall: "parameters of a call win over those of the candidate, field by field",
  extraParameters: "parameters of the provider's own reach the body as they are",
  key: "the key is sent",
  keyOfCall: "a key of the call is sent instead of the configured one, and failures say whose it was",
  foreignHistory: "a history of another provider is accepted: odd ids are made valid, foreign reasoning stays out",
  ownHistory: "an answer goes back into the history of its own provider, with what that signed",
  unsupportedFile: "a file that the provider does not take is InvalidRequest, before any network",

  missingUsage: "an answer without usage is an answer",
  unknownFields: "fields that no protocol knows change nothing",
  unknownEvents: "events that no protocol knows change nothing",
  lineEndings: "CRLF, comments and missing spaces in an event stream change nothing",
  splitBytes: "bytes that are cut anywhere, also inside of a character, change nothing",
  noEndMarker: "a stream that stops without a reason for its end never looks whole",

  interruptedAnswer: "interrupting a call for an answer closes its socket",
  interruptedSilence: "interrupting a call whose headers have come closes its socket",
  interruptedStream: "interrupting a stream in the middle closes its socket",
  leftEarly: "leaving a stream early closes its socket",

  status400: "400 is InvalidRequest",
  status401: "401 is AuthenticationFailed",
  status403: "403 is PermissionDenied",
  status404: "404 about the model is ModelNotFound",
  status408: "408 is TimedOut by the provider",
  status413: "413 is InvalidRequest",
  status422: "422 is InvalidRequest",
  status429: "429 is RateLimited, with the hint of retry-after",
  status500: "500 is ProviderUnavailable",
  status503: "503 is ProviderUnavailable or Overloaded, with the hint of retry-after",
  status529: "529 is Overloaded or ProviderUnavailable",
  noQuota: "a spent budget is QuotaExhausted, whatever its status",
  contextLength: "a prompt that is too long is ContextLengthExceeded",
  requestId: "a failure tells the provider's id of the request",
  refused: "a port that refuses is ConnectionFailed",
  resetBeforeHeaders: "a reset before the headers is ConnectionFailed",
  closeBeforeHeaders: "a close before the headers is ConnectionFailed",
  reset: "a reset within an answer is ConnectionFailed, within a stream StreamInterrupted by it",
  close: "a close within an answer is ConnectionFailed, within a stream StreamInterrupted",
  truncatedJson: "JSON that is cut is InvalidResponse, within a stream StreamInterrupted by it",
  html: "a web page under 200 is InvalidResponse",
  htmlOfGateway: "a web page under 502 is ProviderUnavailable",
  emptyAnswer: "an answer without any content is InvalidResponse, and such a stream fails before its commit point",
  errorInBand: "an error under 200 is the failure that it says",
  errorInBandLater: "an error in the middle of a stream is StreamInterrupted by what it says",
  refusal: "a refusal is ContentFiltered, before or behind the commit point",
  contentFilter: "a filtered answer is ContentFiltered, and StreamInterrupted by it when content is out",
  secrets: "the key shows nowhere in a failure, also when the provider quotes it",
} as const

/** The name of a law. */
export type Law = keyof typeof titles

/** The names of all laws, in the order in which they are given. */
export const names = Object.keys(titles) as ReadonlyArray<Law> as readonly [Law, ...ReadonlyArray<Law>]

/** A provider breaks a law. */
export class LawBroken extends Schema.TaggedError<LawBroken>("@understudy/testkit/ProviderLaws/LawBroken")(
  "LawBroken",
  {
    law: Schema.Literals(names),
    /** What was asked, and what should have come of it. */
    expected: Schema.String,
    /** What came of it. */
    seen: Schema.String,
  },
) {
  override get message(): string {
    return `The provider breaks the law ${this.law} (${titles[this.law]}): expected ${this.expected}, but saw ${this.seen}.`
  }
}

/** With what a law makes a provider. */
export interface MakeOptions {
  readonly apiKey: Redacted.Redacted<string>
  readonly parameters?: Call.Parameters
}

/** A provider to be checked. */
export interface Target<R = never> {
  /** What it speaks. */
  readonly dialect: Upstream.Dialect
  /** Makes it for an upstream. The model's name must be accepted by the adapter for all that the laws ask. */
  readonly make: (
    upstream: Upstream.Running,
    options: MakeOptions,
  ) => Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.ProviderFailure, R>
  /** Laws that it truly cannot keep, with the reason. */
  readonly skips?: { readonly [L in Law]?: string }
}

/** One law for one provider. */
export interface Checked<R = never> {
  readonly name: Law
  readonly title: string
  /** Why it is not asked for, if it is not. */
  readonly skipped: string | undefined
  /** Fails when the provider breaks it. */
  readonly check: Effect.Effect<void, LawBroken, R>
}

/** The laws for a provider. */
export const laws = <R>(target: Target<R>): ReadonlyArray<Checked<R>> =>
  names.map((name) => ({
    name,
    title: titles[name],
    skipped: target.skips?.[name],
    check: bounded(name, checksOf<R>()[name](new Bench(name, target))).pipe(Effect.scoped) as Effect.Effect<
      void,
      LawBroken,
      R
    >,
  }))

// -----------------------------------------------------------------------------
// The bench
// -----------------------------------------------------------------------------

type Request = LanguageModelFace.Request
type Part = LanguageModelFace.Part
type Mode = "answer" | "stream"
type Model<R> = Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.ProviderFailure, R>

const modes = ["answer", "stream"] as const

/** A key that can be recognized wherever it shows. */
const planted = "sk-planted-0123456789"
const plantedOfCall = "sk-of-the-call-9876543210"

/** The longest that anything below may take, in real time. */
const patience = 5000

/** Real time, since sockets keep it whatever the clock. */
const real = (millis: number): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const timer = setTimeout(() => resume(Effect.void), millis)
    return Effect.sync(() => clearTimeout(timer))
  })

const bounded = <A, R>(law: Law, self: Effect.Effect<A, LawBroken, R>): Effect.Effect<A, LawBroken, R> =>
  Effect.raceFirst(
    self,
    Effect.flatMap(real(3 * patience), () =>
      Effect.fail(new LawBroken({ law, expected: "an end", seen: `nothing for ${(3 * patience) / 1000} seconds` })),
    ),
  )

/** What came of a call. */
interface Outcome {
  readonly mode: Mode
  readonly parts: ReadonlyArray<Part | Response.PartEncoded>
  readonly failure: LlmError.LlmError | undefined
}

const textOf = ({ parts }: Outcome): string =>
  parts.map((part) => (part.type === "text" ? part.text : part.type === "text-delta" ? part.delta : "")).join("")

const reasoningOf = ({ parts }: Outcome): string =>
  parts
    .map((part) => (part.type === "reasoning" ? part.text : part.type === "reasoning-delta" ? part.delta : ""))
    .join("")

const finishes = ({ parts }: Outcome) => parts.filter((part) => part.type === "finish")

const callsOf = ({ parts }: Outcome) => parts.filter((part) => part.type === "tool-call")

const shownFailure = (failure: LlmError.LlmError | undefined): string => {
  if (failure === undefined) return "an answer"
  if (failure._tag !== "StreamInterrupted") return failure._tag
  return failure.failure === undefined ? "StreamInterrupted by nothing" : `StreamInterrupted by ${failure.failure._tag}`
}

const short = (value: unknown): string => {
  const text = typeof value === "string" ? JSON.stringify(value) : (JSON.stringify(value) ?? String(value))
  return text.length > 600 ? `${text.slice(0, 600)}…` : text
}

/** One provider at one upstream. */
class Stage<R> {
  readonly law: Law
  readonly dialect: Upstream.Dialect
  readonly upstream: Upstream.Running
  readonly model: Model<R>

  constructor(law: Law, dialect: Upstream.Dialect, upstream: Upstream.Running, model: Model<R>) {
    this.law = law
    this.dialect = dialect
    this.upstream = upstream
    this.model = model
  }

  broken(expected: string, seen: string): Effect.Effect<never, LawBroken> {
    return Effect.fail(new LawBroken({ law: this.law, expected, seen }))
  }

  expect(holds: boolean, expected: string, seen: () => string): Effect.Effect<void, LawBroken> {
    return holds ? Effect.void : Effect.suspend(() => this.broken(expected, seen()))
  }

  equal(actual: unknown, wanted: unknown, what: string): Effect.Effect<void, LawBroken> {
    return this.expect(isDeepStrictEqual(actual, wanted), `${what}: ${short(wanted)}`, () => short(actual))
  }

  /** Asks, and waits for the end. A defect breaks any law. */
  ask(mode: Mode, request: Request = hello): Effect.Effect<Outcome, LawBroken, R> {
    const parts: Array<Outcome["parts"][number]> = []
    const run: Effect.Effect<unknown, LlmError.LlmError, R> =
      mode === "answer"
        ? Effect.map(this.model.generate(request), (answer) => parts.push(...answer))
        : Stream.runForEach(this.model.stream(request), (part) => Effect.sync(() => parts.push(part)))
    return Effect.raceFirst(
      Effect.flatMap(Effect.exit(run), (exit): Effect.Effect<Outcome, LawBroken> => {
        if (Exit.isSuccess(exit)) return Effect.succeed({ mode, parts, failure: undefined })
        const [reason] = exit.cause.reasons
        if (reason?._tag === "Fail" && LlmError.isLlmError(reason.error)) {
          return Effect.succeed({ mode, parts, failure: reason.error })
        }
        return this.broken(`${kind[mode]} or a failure of the union`, Cause.pretty(exit.cause))
      }),
      Effect.flatMap(real(patience), () => this.broken(`an end of ${kind[mode]}`, `nothing for ${patience / 1000} s`)),
    )
  }

  /** Asks, and takes nothing but an answer. */
  answered(mode: Mode, request?: Request): Effect.Effect<Outcome, LawBroken, R> {
    return Effect.flatMap(this.ask(mode, request), (outcome) =>
      outcome.failure === undefined
        ? Effect.succeed(outcome)
        : this.broken(kind[mode], `${shownFailure(outcome.failure)}: ${outcome.failure.message}`),
    )
  }

  /** Asks in both modes, and takes nothing but answers. */
  both(request?: Request): Effect.Effect<ReadonlyArray<Outcome>, LawBroken, R> {
    return Effect.forEach(modes, (mode) => this.answered(mode, request))
  }

  /** The newest request, which no validation of the upstream turned away. */
  get wire(): Effect.Effect<Upstream.RequestRecord & { readonly body: Readonly<Record<string, unknown>> }, LawBroken> {
    return Effect.flatMap(this.upstream.requests, (requests) => {
      const request = requests.at(-1)
      const { body } = request ?? {}
      if (request === undefined || !isRecord(body)) return this.broken("a request with JSON", "none")
      return request.rejected === undefined
        ? Effect.succeed({ ...request, body })
        : this.broken("a request that the provider accepts", request.rejected)
    })
  }

  requests(count: number): Effect.Effect<void, LawBroken> {
    return Effect.flatMap(this.upstream.count, (seen) =>
      this.expect(
        seen === count,
        `${count} ${count === 1 ? "request" : "requests"} in all, one for each call`,
        () => `${seen}`,
      ),
    )
  }
}

const kind: Record<Mode, string> = { answer: "an answer", stream: "a stream" }

type Running<A, R> = Effect.Effect<A, LawBroken, R | Scope.Scope>

class Bench<R> {
  private readonly law: Law
  private readonly target: Target<R>

  constructor(law: Law, target: Target<R>) {
    this.law = law
    this.target = target
  }

  get dialect(): Upstream.Dialect {
    return this.target.dialect
  }

  /** An upstream that plays one step again and again, and a provider that asks it. */
  start(
    step: Upstream.Step = {},
    options: Omit<Upstream.Options, "script"> & { readonly parameters?: Call.Parameters } = {},
  ): Running<Stage<R>, R> {
    const { parameters, ...rest } = options
    const { law, target } = this
    return Effect.map(
      Effect.orDie(Upstream.make({ ...rest, script: { steps: [step], then: "repeat" } })),
      (upstream) =>
        new Stage(
          law,
          target.dialect,
          upstream,
          target.make(upstream, {
            apiKey: Redacted.make(planted),
            ...(parameters === undefined ? {} : { parameters }),
          }),
        ),
    )
  }
}

// -----------------------------------------------------------------------------
// What is asked
// -----------------------------------------------------------------------------

const hello = LanguageModelFace.request("Who wrote Dune?")

const said = "Schön, 😀: Frank Herbert wrote it."

const weather = Tool.make("weather", {
  description: "The weather at a place.",
  parameters: Schema.Struct({ city: Schema.String, days: Schema.optionalKey(Schema.Int) }),
})

const toolkit = Toolkit.make(weather)

const withTools = (prompt: Prompt.RawInput, toolChoice: Request["toolChoice"] = "auto"): Request =>
  LanguageModelFace.request(prompt, { tools: [weather], toolChoice })

const twoCalls: Upstream.Step = Upstream.toolCalls([
  { name: "weather", arguments: { city: "Rome" } },
  { name: "weather", arguments: { city: "Oslo", days: 2 } },
])

const Book = Schema.Struct({ title: Schema.String, pages: Schema.Int })
const Note = Schema.Struct({ title: Schema.String, note: Schema.optionalKey(Schema.String) })

const asJson = (schema: Schema.Codec<unknown, unknown>): Request =>
  LanguageModelFace.request("Which book?", { responseFormat: { type: "json", objectName: "book", schema } })

const pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

// -----------------------------------------------------------------------------
// The wire
// -----------------------------------------------------------------------------

const isRecord = (u: unknown): u is Readonly<Record<string, unknown>> => Predicate.isObject(u) && !Array.isArray(u)

const listOf = (u: unknown): ReadonlyArray<Readonly<Record<string, unknown>>> =>
  Array.isArray(u) ? u.filter(isRecord) : []

/** All objects in a value, at any depth. */
const objectsIn = (value: unknown): ReadonlyArray<Readonly<Record<string, unknown>>> => {
  if (Array.isArray(value)) return value.flatMap(objectsIn)
  return isRecord(value) ? [value, ...Object.values(value).flatMap(objectsIn)] : []
}

/** Where the dialects have the same thing. */
const wires = {
  openai: {
    system: (body) =>
      listOf(body["messages"])
        .filter(({ role }) => role === "system" || role === "developer")
        .map(({ content }) => content),
    maxTokens: (body) => body["max_completion_tokens"] ?? body["max_tokens"],
    stop: (body) => body["stop"],
    calls: (body) =>
      listOf(body["messages"])
        .flatMap((message) => listOf(message["tool_calls"]))
        .map((call) => ({ id: call["id"], ...namedCall(call["function"]) })),
    results: (body) =>
      listOf(body["messages"])
        .filter(({ role }) => role === "tool")
        .map((message) => ({ id: message["tool_call_id"], text: short(message["content"]) })),
    tools: (body) =>
      listOf(body["tools"]).map((tool) => {
        const inner = isRecord(tool["function"]) ? tool["function"] : {}
        return { name: inner["name"], description: inner["description"], schema: inner["parameters"] }
      }),
    must: (body) => body["tool_choice"],
    key: (headers) => headers["authorization"]?.replace(/^Bearer /, ""),
  },
  anthropic: {
    system: (body) => [body["system"]],
    maxTokens: (body) => body["max_tokens"],
    stop: (body) => body["stop_sequences"],
    calls: (body) =>
      blocks(body, "tool_use").map((block) => ({ id: block["id"], name: block["name"], params: block["input"] })),
    results: (body) =>
      blocks(body, "tool_result").map((block) => ({ id: block["tool_use_id"], text: short(block["content"]) })),
    tools: (body) =>
      listOf(body["tools"]).map((tool) => ({
        name: tool["name"],
        description: tool["description"],
        schema: tool["input_schema"],
      })),
    must: (body) => (isRecord(body["tool_choice"]) ? body["tool_choice"]["type"] : undefined),
    key: (headers) => headers["x-api-key"] ?? headers["authorization"]?.replace(/^Bearer /, ""),
  },
} satisfies Record<Upstream.Dialect, Wire>

type Body = Readonly<Record<string, unknown>>

interface Wire {
  readonly system: (body: Body) => ReadonlyArray<unknown>
  readonly maxTokens: (body: Body) => unknown
  readonly stop: (body: Body) => unknown
  readonly calls: (
    body: Body,
  ) => ReadonlyArray<{ readonly id: unknown; readonly name: unknown; readonly params: unknown }>
  readonly results: (body: Body) => ReadonlyArray<{ readonly id: unknown; readonly text: string }>
  readonly tools: (
    body: Body,
  ) => ReadonlyArray<{ readonly name: unknown; readonly description: unknown; readonly schema: unknown }>
  readonly must: (body: Body) => unknown
  readonly key: (headers: Readonly<Record<string, string>>) => string | undefined
}

const blocks = (body: Body, type: string) =>
  listOf(body["messages"])
    .flatMap((message) => listOf(message["content"]))
    .filter((block) => block["type"] === type)

const parsed = (text: unknown): unknown => {
  try {
    return typeof text === "string" ? JSON.parse(text) : text
  } catch {
    return text
  }
}

const namedCall = (u: unknown): { readonly name: unknown; readonly params: unknown } =>
  isRecord(u) ? { name: u["name"], params: parsed(u["arguments"]) } : { name: undefined, params: undefined }

// -----------------------------------------------------------------------------
// Failures
// -----------------------------------------------------------------------------

/** Everything that a failure shows, in every way of showing it. */
const shown = (failure: LlmError.LlmError): string =>
  [
    failure.message,
    failure.stack ?? "",
    JSON.stringify(failure),
    inspect(failure, { depth: 20, showHidden: true }),
    String(failure),
  ].join("\n")

const json = Schema.toCodecJson(LlmError.LlmError)

/** What every failure owes. */
const owes = <R>(stage: Stage<R>, failure: LlmError.LlmError): Effect.Effect<void, LawBroken> =>
  Effect.gen(function* () {
    const { model, name } = stage.model
    yield* stage.equal([failure.provider, failure.model], [name, model], "the provider and model of the failure")
    yield* stage.expect(!shown(failure).includes(planted), "no key in the failure", () => "the key")
    const back = yield* Effect.exit(
      Effect.flatMap(Schema.encodeEffect(json)(failure), (encoded) => Schema.decodeEffect(json)(encoded)),
    )
    yield* stage.expect(Exit.isSuccess(back) && back.value._tag === failure._tag, "a failure that survives JSON", () =>
      Exit.isSuccess(back) ? back.value._tag : Cause.pretty(back.cause),
    )
  })

type Tag = LlmError.Tag

/** What a fault should be told as. */
interface Told {
  readonly step: Upstream.Step
  /** Any of these. */
  readonly answer: ReadonlyArray<Tag>
  /** Before the commit point any of these. Default: the same as for an answer. */
  readonly stream?: ReadonlyArray<Tag>
  /** After it, `StreamInterrupted` by any of these; `nothing` when the stream just ends. */
  readonly interrupted?: ReadonlyArray<Tag | "nothing">
  /** More about the failure: what is wrong with it. */
  readonly also?: (failure: LlmError.LlmError) => string | undefined
}

const isTold = (failure: LlmError.LlmError | undefined, mode: Mode, told: Told): boolean => {
  if (failure === undefined) return false
  if (mode === "answer") return told.answer.includes(failure._tag)
  if (failure._tag === "StreamInterrupted" && told.interrupted !== undefined) {
    return told.interrupted.includes(failure.failure?._tag ?? "nothing")
  }
  return (told.stream ?? (told.interrupted === undefined ? told.answer : [])).includes(failure._tag)
}

const expectation = (mode: Mode, { answer, interrupted, stream }: Told): string => {
  if (mode === "answer") return answer.join(" or ")
  const after = interrupted?.map((tag) => `StreamInterrupted by ${tag}`) ?? []
  const before = stream ?? (interrupted === undefined ? answer : [])
  return [...before, ...after].join(" or ")
}

const tells = <R>(stage: Stage<R>, told: Told, from = 0): Effect.Effect<void, LawBroken, R> =>
  Effect.gen(function* () {
    for (const [index, mode] of modes.entries()) {
      const { failure } = yield* stage.ask(mode)
      if (!isTold(failure, mode, told)) {
        return yield* stage.broken(
          `${kind[mode]} to fail with ${expectation(mode, told)}`,
          `${shownFailure(failure)}${failure === undefined ? "" : `: ${failure.message}`}`,
        )
      }
      if (failure === undefined) continue
      yield* owes(stage, failure)
      const wrong = told.also?.(failure)
      if (wrong !== undefined) return yield* stage.broken(`${kind[mode]} to fail so that ${wrong}`, short(failure))
      yield* stage.requests(from + index + 1)
    }
  })

const fault =
  <R>(told: Told | ((dialect: Upstream.Dialect) => Told)) =>
  (bench: Bench<R>): Running<void, R> => {
    const row = typeof told === "function" ? told(bench.dialect) : told
    return Effect.flatMap(bench.start(row.step), (stage) => tells(stage, row))
  }

/** The error body of a dialect. */
const errorBody = (
  dialect: Upstream.Dialect,
  says: { readonly openai: string; readonly anthropic: string; readonly message: string },
): { readonly [key: string]: Schema.Json } =>
  dialect === "openai"
    ? { error: { message: says.message, type: "invalid_request_error", param: null, code: says.openai } }
    : { type: "error", error: { type: says.anthropic, message: says.message } }

const hinted =
  (millis: number) =>
  (failure: LlmError.LlmError): string | undefined =>
    failure.retryAfter !== undefined && Duration.toMillis(failure.retryAfter) === millis
      ? undefined
      : `its hint is ${millis} ms`

const overloaded = { type: "overloaded_error", message: "Overloaded" }

// -----------------------------------------------------------------------------
// Interruption
// -----------------------------------------------------------------------------

/** Interrupts a call that hangs, and waits for the socket to be closed by the client. */
const interrupts = <R>(bench: Bench<R>, step: Upstream.Step, mode: Mode, awaitContent: boolean): Running<void, R> =>
  Effect.gen(function* () {
    const stage = yield* bench.start(step)
    const { model, upstream } = stage
    let content = (): void => {}
    const begun = new Promise<void>((resolve) => {
      content = resolve
    })
    const run: Effect.Effect<unknown, LlmError.LlmError, R> =
      mode === "answer"
        ? model.generate(hello)
        : Stream.runForEach(model.stream(hello), (part) =>
            Effect.sync(() => {
              if (part.type === "text-delta") content()
            }),
          )
    const fiber = yield* Effect.forkChild(Effect.exit(run))
    yield* upstream.awaitRequests(1)
    if (awaitContent)
      yield* within(
        stage,
        Effect.promise(() => begun),
        "content before the interruption",
      )
    // Time for the headers, where there are some.
    else yield* real(40)
    yield* within(stage, Fiber.interrupt(fiber), "the call to end when it is interrupted")
    const { closedBy } = yield* within(stage, upstream.awaitClosed("req_1"), "its socket to be closed")
    yield* stage.equal(closedBy, "client", "who closed the socket")
    yield* stage.requests(1)
  })

const within = <A, R>(stage: Stage<R>, self: Effect.Effect<A>, expected: string): Effect.Effect<A, LawBroken> =>
  Effect.raceFirst(
    self,
    Effect.flatMap(real(2000), () => stage.broken(expected, "nothing for 2 seconds")),
  )

// -----------------------------------------------------------------------------
// Checks
// -----------------------------------------------------------------------------

/** The same answer, whatever the wire does to it. */
const tolerates =
  <R>(step: Upstream.Step) =>
  (bench: Bench<R>): Running<void, R> =>
    Effect.gen(function* () {
      const stage = yield* bench.start({ answer: said, thinking: "Hm, Überlegung.", tokens: 4, ...step })
      for (const outcome of yield* stage.both()) {
        yield* stage.equal(textOf(outcome), said, `the text of ${kind[outcome.mode]}`)
        yield* stage.equal(finishes(outcome).length, 1, `finishes of ${kind[outcome.mode]}`)
      }
      yield* stage.requests(2)
    })

const history = (id: string, reasoning: string): Prompt.Prompt =>
  Prompt.make([
    { role: "system", content: "Be brief." },
    { role: "user", content: [{ type: "text", text: "Weather in Rome?" }] },
    {
      role: "assistant",
      content: [
        {
          type: "reasoning",
          text: reasoning,
          options: {
            openai: { origin: "elsewhere/x", itemId: "rs_foreign", reasoningEncryptedContent: "signature-of-another" },
            anthropic: { origin: "elsewhere/x", signature: "signature-of-another" },
            aiSdk: { origin: "elsewhere/x" },
            understudy: { provider: "elsewhere", model: "x" },
          },
        },
        { type: "text", text: "I look." },
        { type: "tool-call", id, name: "weather", params: { city: "Rome" } },
      ],
    },
    {
      role: "tool",
      content: [{ type: "tool-result", id, name: "weather", isFailure: false, result: { sky: "clear as day" } }],
    },
    { role: "user", content: [{ type: "text", text: "And in Oslo?" }] },
  ])

/** The parts as `LanguageModel` decodes them. */
const decoded = <R>(
  stage: Stage<R>,
  { mode, parts }: Outcome,
): Effect.Effect<ReadonlyArray<Response.AnyPart>, LawBroken> => {
  const schema: Schema.Codec<ReadonlyArray<Response.AnyPart>, unknown> = mode === "answer"
    ? Schema.Array(Response.Part(toolkit))
    : Schema.Array(Response.StreamPart(toolkit))
  return Effect.catch(Schema.decodeUnknownEffect(schema)(parts), (error) =>
    stage.broken(`parts of ${kind[mode]} that decode`, error.message),
  )
}

/** Tool calls and results in the history, under this id. */
const carriesTools = <R>(stage: Stage<R>, id: string, reasoning: string): Effect.Effect<void, LawBroken, R> =>
  Effect.gen(function* () {
    const read = wires[stage.dialect]
    for (const mode of modes) {
      yield* stage.answered(mode, withTools(history(id, reasoning)))
      const { body } = yield* stage.wire
      const [call] = read.calls(body)
      const [result] = read.results(body)
      yield* stage.equal([call?.name, call?.params], ["weather", { city: "Rome" }], "the call on the wire")
      yield* stage.expect(result?.text.includes("clear as day") === true, "the result of the tool on the wire", () =>
        short(result),
      )
      yield* stage.expect(
        typeof call?.id === "string" && /^[\w-]{1,64}$/.test(call.id) && call.id === result?.id,
        "one valid id for the call and its result",
        () => short([call?.id, result?.id]),
      )
      const whole = JSON.stringify(body)
      yield* stage.expect(!whole.includes(reasoning), "no reasoning of another provider on the wire", () => short(body))
      yield* stage.expect(!whole.includes("signature-of-another"), "no signature of another provider", () =>
        short(body),
      )
    }
  })

/** Asks for JSON, answers in the form that the wire asks for, and decodes the text. */
const structured = <R, A>(
  bench: Bench<R>,
  schema: Schema.Codec<A, unknown>,
  answer: (asked: Readonly<Record<string, unknown>> | undefined) => Readonly<Record<string, Schema.Json>>,
  wanted: A,
): Running<void, R> =>
  Effect.gen(function* () {
    const stage = yield* bench.start()
    const read = wires[stage.dialect]
    for (const mode of modes) {
      // How it is asked for is learnt from a first request, whose answer is in no form.
      yield* stage.upstream.play([])
      yield* Effect.asVoid(stage.ask(mode, asJson(schema)))
      const { body } = yield* stage.wire
      const asked = objectsIn(body).find(({ properties }) => isRecord(properties) && "title" in properties)
      yield* stage.expect(asked !== undefined || JSON.stringify(body).includes("title"), "the schema on the wire", () =>
        short(body),
      )
      const form = answer(asked)
      const [tool] = read.tools(body)
      yield* stage.upstream.play(
        typeof tool?.name === "string"
          ? [Upstream.toolCalls([{ name: tool.name, arguments: form }])]
          : [Upstream.answer(JSON.stringify(form))],
      )
      const outcome = yield* stage.answered(mode, asJson(schema))
      const decoded = yield* Effect.exit(
        Schema.decodeUnknownEffect(LanguageModel.defaultCodecTransformer(schema).codec)(parsed(textOf(outcome))),
      )
      yield* stage.expect(
        Exit.isSuccess(decoded) && isDeepStrictEqual(decoded.value, wanted),
        `${kind[mode]} that decodes as ${short(wanted)}`,
        () => short(textOf(outcome)),
      )
      yield* stage.expect(
        finishes(outcome).every((part) => part.type === "finish" && part.reason === "stop"),
        "the reason stop",
        () => short(finishes(outcome)),
      )
    }
  }).pipe(Effect.catchTag(["PortInUse", "ListenFailed"], Effect.die))

type Checks<R> = { readonly [L in Law]: (bench: Bench<R>) => Running<void, R> }

const checksOf = <R>(): Checks<R> => ({
  text: (bench) =>
    Effect.gen(function* () {
      const stage = yield* bench.start(Upstream.answer(said, { tokens: 5 }))
      for (const outcome of yield* stage.both()) {
        yield* stage.equal(textOf(outcome), said, `the text of ${kind[outcome.mode]}`)
        yield* stage.equal(finishes(outcome).length, 1, `finishes of ${kind[outcome.mode]}`)
        yield* stage.equal(outcome.parts.at(-1)?.type, "finish", `the last part of ${kind[outcome.mode]}`)
      }
      yield* stage.requests(2)
    }),

  reasoning: (bench) =>
    Effect.gen(function* () {
      const stage = yield* bench.start(Upstream.answer(said, { thinking: "Hm, Überlegung." }))
      for (const outcome of yield* stage.both()) {
        yield* stage.equal(reasoningOf(outcome), "Hm, Überlegung.", `the reasoning of ${kind[outcome.mode]}`)
        yield* stage.equal(textOf(outcome), said, `the text of ${kind[outcome.mode]}`)
      }
    }),

  usage: (bench) =>
    Effect.gen(function* () {
      const stage = yield* bench.start(Upstream.answer(said, { usage: { inputTokens: 11, outputTokens: 7 } }))
      for (const outcome of yield* stage.both()) {
        const [finish] = finishes(outcome)
        const usage = finish?.type === "finish" ? finish.usage : undefined
        yield* stage.equal(
          [usage?.inputTokens.total, usage?.outputTokens.total],
          [11, 7],
          `tokens of ${kind[outcome.mode]}`,
        )
      }
    }),

  finishReasons: (bench) =>
    Effect.gen(function* () {
      const rows: ReadonlyArray<readonly [Upstream.Step, Response.FinishReason]> = [
        [Upstream.answer(said), "stop"],
        [Upstream.finish("length", { answer: "Frank Her" }), "length"],
        [twoCalls, "tool-calls"],
      ]
      for (const [step, reason] of rows) {
        const stage = yield* bench.start(step)
        for (const outcome of yield* stage.both(withTools("Weather?"))) {
          const reasons = finishes(outcome).map((part) => (part.type === "finish" ? part.reason : ""))
          yield* stage.equal(reasons, [reason], `the reasons of ${kind[outcome.mode]}`)
        }
      }
    }),

  toolCalls: (bench) =>
    Effect.gen(function* () {
      const stage = yield* bench.start(twoCalls)
      for (const outcome of yield* stage.both(withTools("Weather?"))) {
        const calls = callsOf(outcome)
        yield* stage.equal(
          calls.map((part) => (part.type === "tool-call" ? [part.name, part.params] : [])),
          [
            ["weather", { city: "Rome" }],
            ["weather", { city: "Oslo", days: 2 }],
          ],
          `the calls of ${kind[outcome.mode]}`,
        )
        const ids = new Set(calls.map((part) => (part.type === "tool-call" ? part.id : "")))
        yield* stage.expect(ids.size === 2 && !ids.has(""), "an id for each call", () => short([...ids]))
      }
    }),

  partsDecode: (bench) =>
    Effect.gen(function* () {
      const stage = yield* bench.start({
        answer: said,
        thinking: "Hm.",
        toolCalls: [{ name: "weather", arguments: { city: "Rome" } }],
      })
      for (const outcome of yield* stage.both(withTools("Weather?"))) {
        yield* decoded(stage, outcome)
        const open = new Set<string>()
        for (const part of outcome.parts) {
          if (part.type === "text-start" || part.type === "reasoning-start") open.add(part.id)
          else if (part.type === "text-end" || part.type === "reasoning-end") open.delete(part.id)
          else if (part.type === "text-delta" || part.type === "reasoning-delta") {
            yield* stage.expect(open.has(part.id), "deltas inside of their blocks", () => short(outcome.parts))
          }
        }
        yield* stage.expect(open.size === 0, "blocks that are closed", () => short([...open]))
      }
    }),

  systemMessage: (bench) =>
    Effect.gen(function* () {
      const stage = yield* bench.start()
      for (const mode of modes) {
        yield* stage.answered(
          mode,
          LanguageModelFace.request([
            { role: "system", content: "You are a librarian." },
            { role: "user", content: "Who wrote Dune?" },
          ]),
        )
        const { body } = yield* stage.wire
        const system = short(wires[stage.dialect].system(body))
        yield* stage.expect(system.includes("You are a librarian."), "the system message on the wire", () =>
          short(body),
        )
      }
    }),

  tools: (bench) =>
    Effect.gen(function* () {
      const stage = yield* bench.start(twoCalls)
      const read = wires[stage.dialect]
      for (const mode of modes) {
        yield* stage.answered(mode, withTools("Weather?", "required"))
        const { body } = yield* stage.wire
        const [tool] = read.tools(body)
        yield* stage.equal([tool?.name, tool?.description], ["weather", "The weather at a place."], "the tool")
        const properties = isRecord(tool?.schema) ? tool.schema["properties"] : undefined
        yield* stage.equal(
          isRecord(properties) ? Object.keys(properties).toSorted() : undefined,
          ["city", "days"],
          "the parameters of the tool's schema",
        )
        yield* stage.equal(read.must(body), stage.dialect === "openai" ? "required" : "any", "the choice of tools")
      }
    }),

  toolResults: (bench) => Effect.flatMap(bench.start(), (stage) => carriesTools(stage, "call_1", "Foreign thoughts.")),

  images: (bench) =>
    Effect.gen(function* () {
      const stage = yield* bench.start()
      for (const mode of modes) {
        yield* stage.answered(
          mode,
          LanguageModelFace.request([
            {
              role: "user",
              content: [
                { type: "text", text: "What is this?" },
                { type: "file", mediaType: "image/png", data: pixel },
              ],
            },
          ]),
        )
        const { body } = yield* stage.wire
        const text = JSON.stringify(body)
        yield* stage.expect(text.includes(pixel), "the image's bytes on the wire", () => short(body))
        yield* stage.expect(text.includes("image/png"), "the image's type on the wire", () => short(body))
        yield* stage.expect(text.includes("What is this?"), "the text beside it", () => short(body))
      }
    }),

  structuredOutput: (bench) =>
    structured(bench, Book, () => ({ title: "Dune", pages: 412 }), { title: "Dune", pages: 412 }),

  structuredOutputOptional: (bench) =>
    structured(
      bench,
      Note,
      // Strict forms ask for every field, and for null where there is nothing.
      (asked) =>
        Array.isArray(asked?.["required"]) && asked["required"].includes("note")
          ? { title: "Dune", note: null }
          : { title: "Dune" },
      { title: "Dune" },
    ),

  parameters: (bench) =>
    Effect.gen(function* () {
      const stage = yield* bench.start({}, { parameters: { temperature: 0.25, maxTokens: 77, stop: ["END"] } })
      const read = wires[stage.dialect]
      for (const mode of modes) {
        yield* stage.answered(mode)
        const { body } = yield* stage.wire
        yield* stage.equal(
          [body["temperature"], read.maxTokens(body), read.stop(body)],
          [0.25, 77, ["END"]],
          "temperature, longest answer and stop texts on the wire",
        )
      }
    }),

  parametersOfCall: (bench) =>
    Effect.gen(function* () {
      const stage = yield* bench.start({}, { parameters: { temperature: 0.25, maxTokens: 77 } })
      const read = wires[stage.dialect]
      for (const mode of modes) {
        yield* stage.answered(mode).pipe(Call.withParameters({ temperature: 0.5 }))
        const { body } = yield* stage.wire
        yield* stage.equal([body["temperature"], read.maxTokens(body)], [0.5, 77], "parameters of the call on the wire")
        yield* stage.answered(mode)
        const { body: next } = yield* stage.wire
        yield* stage.equal(next["temperature"], 0.25, "the candidate's parameters again")
      }
    }),

  extraParameters: (bench) =>
    Effect.gen(function* () {
      const stage = yield* bench.start({}, { parameters: { extra: { of_the_house: { a: [1, null] } } } })
      for (const mode of modes) {
        yield* stage.answered(mode)
        const { body } = yield* stage.wire
        yield* stage.equal(body["of_the_house"], { a: [1, null] }, "the provider's own parameter on the wire")
      }
    }),

  key: (bench) =>
    Effect.gen(function* () {
      const stage = yield* bench.start({}, { recordCredentials: true })
      for (const mode of modes) {
        yield* stage.answered(mode)
        const { headers } = yield* stage.wire
        yield* stage.equal(wires[stage.dialect].key(headers), planted, "the key on the wire")
      }
    }),

  keyOfCall: (bench) =>
    Effect.gen(function* () {
      const stage = yield* bench.start(Upstream.status(401), { recordCredentials: true })
      for (const mode of modes) {
        const { failure } = yield* stage
          .ask(mode)
          .pipe(Call.withCredential(stage.model.name, Redacted.make(plantedOfCall)))
        const { headers } = yield* stage.wire
        yield* stage.equal(wires[stage.dialect].key(headers), plantedOfCall, "the key of the call on the wire")
        if (failure?._tag !== "AuthenticationFailed") {
          return yield* stage.broken("AuthenticationFailed", shownFailure(failure))
        }
        yield* stage.equal(failure.credential, "call", "whose key it was")
        yield* stage.expect(!shown(failure).includes(plantedOfCall), "no key in the failure", () => "the key")
      }
    }),

  foreignHistory: (bench) =>
    Effect.gen(function* () {
      const stage = yield* bench.start()
      for (const id of ["functions.weather:0|äöü", "x".repeat(300), "toolu_01", ""]) {
        yield* carriesTools(stage, id, "Thoughts of somebody else.")
      }
    }),

  ownHistory: (bench) =>
    Effect.gen(function* () {
      const stage = yield* bench.start({
        answer: said,
        thinking: "Hm.",
        toolCalls: [{ name: "weather", arguments: { city: "Rome" } }],
      })
      for (const mode of modes) {
        const outcome = yield* stage.answered(mode, withTools("Weather?"))
        const [call] = callsOf(outcome)
        const id = call?.type === "tool-call" ? call.id : ""
        const next = Prompt.make("Weather?").pipe(
          Prompt.concat(Prompt.fromResponseParts(yield* decoded(stage, outcome))),
          Prompt.concat([
            {
              role: "tool",
              content: [{ type: "tool-result", id, name: "weather", isFailure: false, result: "clear as day" }],
            },
          ]),
        )
        yield* stage.answered(mode, withTools(next))
        const { body } = yield* stage.wire
        const [onWire] = wires[stage.dialect].calls(body)
        yield* stage.equal([onWire?.id, onWire?.params], [id, { city: "Rome" }], "its own call, under its own id")
        yield* stage.expect(JSON.stringify(body).includes(said.slice(0, 5)), "its own text", () => short(body))
        if (stage.dialect === "anthropic") {
          const [thinking] = blocks(body, "thinking")
          yield* stage.expect(
            typeof thinking?.["signature"] === "string" && thinking["signature"].startsWith("understudy-signature-"),
            "its own reasoning, signed",
            () => short(body),
          )
        }
      }
    }),

  unsupportedFile: (bench) =>
    Effect.gen(function* () {
      const stage = yield* bench.start()
      for (const mode of modes) {
        const { failure } = yield* stage.ask(
          mode,
          LanguageModelFace.request([
            {
              role: "user",
              content: [
                { type: "text", text: "Unpack this." },
                { type: "file", mediaType: "application/zip", data: "UEsDBA==" },
              ],
            },
          ]),
        )
        if (failure?._tag !== "InvalidRequest") return yield* stage.broken("InvalidRequest", shownFailure(failure))
        yield* owes(stage, failure)
      }
      yield* stage.requests(0)
    }),

  missingUsage: (bench) =>
    Effect.gen(function* () {
      const stage = yield* bench.start(Upstream.missingUsage({ answer: said }))
      for (const outcome of yield* stage.both()) {
        yield* stage.equal(textOf(outcome), said, `the text of ${kind[outcome.mode]}`)
        yield* stage.equal(finishes(outcome).length, 1, `finishes of ${kind[outcome.mode]}`)
      }
    }),

  unknownFields: tolerates({ wire: { unknownFields: true } }),
  unknownEvents: tolerates({ wire: { unknownEvents: true } }),
  lineEndings: tolerates({ wire: { crlf: true, comments: true, noSpace: true } }),
  splitBytes: tolerates({ wire: { chunkBytes: 1 } }),

  noEndMarker: (bench) =>
    Effect.gen(function* () {
      for (const afterTokens of [0, 2, 100]) {
        const stage = yield* bench.start(Upstream.endEarly({ afterTokens, answer: said, tokens: 4 }))
        const outcome = yield* stage.ask("stream")
        const { failure } = outcome
        yield* stage.expect(
          failure?._tag === "StreamInterrupted" && failure.failure === undefined,
          `a stream that ends after ${afterTokens} tokens to fail with StreamInterrupted by nothing`,
          () => shownFailure(failure),
        )
        yield* stage.equal(finishes(outcome).length, 0, "finishes")
        yield* stage.requests(1)
      }
    }),

  interruptedAnswer: (bench) => interrupts(bench, Upstream.hang, "answer", false),

  interruptedSilence: (bench) =>
    Effect.andThen(
      Effect.scoped(interrupts(bench, Upstream.silence, "answer", false)),
      interrupts(bench, Upstream.silence, "stream", false),
    ),

  interruptedStream: (bench) =>
    Effect.andThen(
      Effect.scoped(interrupts(bench, Upstream.hang, "stream", false)),
      interrupts(bench, Upstream.stall({ afterTokens: 3 }), "stream", true),
    ),

  leftEarly: (bench) =>
    Effect.gen(function* () {
      const stage = yield* bench.start(Upstream.stall({ afterTokens: 3 }))
      const { model, upstream } = stage
      const taken = yield* Effect.exit(
        model.stream(hello).pipe(
          Stream.filter((part) => part.type === "text-delta"),
          Stream.take(1),
          Stream.runDrain,
        ),
      )
      yield* stage.expect(Exit.isSuccess(taken), "the first content", () => short(taken))
      const { closedBy } = yield* within(stage, upstream.awaitClosed("req_1"), "its socket to be closed")
      yield* stage.equal(closedBy, "client", "who closed the socket")
    }),

  status400: fault({ step: Upstream.status(400), answer: ["InvalidRequest"] }),
  status401: fault({ step: Upstream.status(401), answer: ["AuthenticationFailed"] }),
  status403: fault({ step: Upstream.status(403), answer: ["PermissionDenied"] }),
  status404: fault((dialect) => ({
    step: Upstream.status(404, {
      body: errorBody(dialect, {
        openai: "model_not_found",
        anthropic: "not_found_error",
        message: dialect === "openai" ? "The model `m` does not exist." : "model: m",
      }),
    }),
    answer: ["ModelNotFound"],
  })),
  status408: fault({ step: Upstream.status(408), answer: ["TimedOut"] }),
  status413: fault({ step: Upstream.status(413), answer: ["InvalidRequest"] }),
  status422: fault({ step: Upstream.status(422), answer: ["InvalidRequest"] }),
  status429: fault({
    step: Upstream.status(429, { headers: { "retry-after": 3 } }),
    answer: ["RateLimited"],
    also: hinted(3000),
  }),
  status500: fault({ step: Upstream.status(500), answer: ["ProviderUnavailable"] }),
  status503: fault({
    step: Upstream.status(503, { headers: { "retry-after": 2 } }),
    answer: ["ProviderUnavailable", "Overloaded"],
    also: hinted(2000),
  }),
  status529: fault({ step: Upstream.status(529), answer: ["Overloaded", "ProviderUnavailable"] }),

  noQuota: fault((dialect) => ({
    step: Upstream.status(dialect === "openai" ? 429 : 400, {
      body: errorBody(dialect, {
        openai: "insufficient_quota",
        anthropic: "invalid_request_error",
        message:
          dialect === "openai"
            ? "You exceeded your current quota, please check your plan and billing details."
            : "Your credit balance is too low to access the Anthropic API.",
      }),
    }),
    answer: ["QuotaExhausted"],
  })),

  contextLength: fault((dialect) => ({
    step: Upstream.status(400, {
      body: errorBody(dialect, {
        openai: "context_length_exceeded",
        anthropic: "invalid_request_error",
        message:
          dialect === "openai"
            ? "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."
            : "prompt is too long: 210000 tokens > 200000 maximum",
      }),
    }),
    answer: ["ContextLengthExceeded"],
  })),

  requestId: fault({
    step: Upstream.status(500),
    answer: ["ProviderUnavailable"],
    also: (failure) =>
      failure.requestId?.startsWith("req_") === true ? undefined : "its requestId is that of the response",
  }),

  refused: (bench) =>
    Effect.gen(function* () {
      const stage = yield* bench.start()
      yield* stage.upstream.refuse()
      for (const mode of modes) {
        const { failure } = yield* stage.ask(mode)
        yield* stage.expect(
          failure?._tag === "ConnectionFailed" && failure.fault === "refused",
          `${kind[mode]} to fail with ConnectionFailed, refused`,
          () => `${shownFailure(failure)}: ${failure?.message ?? ""}`,
        )
        if (failure !== undefined) yield* owes(stage, failure)
      }
    }),

  resetBeforeHeaders: fault({ step: Upstream.resetBeforeHeaders, answer: ["ConnectionFailed"] }),
  closeBeforeHeaders: fault({ step: Upstream.closeBeforeHeaders, answer: ["ConnectionFailed"] }),
  reset: fault({
    step: Upstream.reset({ afterTokens: 3 }),
    answer: ["ConnectionFailed"],
    interrupted: ["ConnectionFailed"],
  }),
  close: fault({
    step: Upstream.endEarly({ afterTokens: 3 }),
    answer: ["ConnectionFailed"],
    interrupted: ["nothing", "ConnectionFailed"],
  }),
  truncatedJson: fault({
    step: Upstream.truncatedJson({ afterTokens: 3 }),
    answer: ["InvalidResponse"],
    interrupted: ["InvalidResponse"],
  }),
  html: fault({ step: Upstream.html(), answer: ["InvalidResponse"] }),
  htmlOfGateway: fault({ step: Upstream.html({ status: 502 }), answer: ["ProviderUnavailable"] }),
  emptyAnswer: fault({
    step: Upstream.emptyChoices(),
    answer: ["InvalidResponse"],
    stream: ["InvalidResponse"],
    interrupted: ["nothing"],
    also: (failure) =>
      failure._tag === "StreamInterrupted" && failure.committed ? "it comes before the commit point" : undefined,
  }),
  errorInBand: fault({ step: Upstream.errorInBand({ error: overloaded }), answer: ["Overloaded"] }),
  errorInBandLater: fault({
    step: Upstream.errorInBand({ afterTokens: 3, error: overloaded }),
    answer: ["Overloaded"],
    interrupted: ["Overloaded"],
  }),
  refusal: fault({
    step: Upstream.refusal("I cannot help with that."),
    answer: ["ContentFiltered"],
    stream: ["ContentFiltered"],
    interrupted: ["ContentFiltered"],
  }),
  contentFilter: fault({
    step: Upstream.finish("content_filter", { answer: "Some of it" }),
    answer: ["ContentFiltered"],
    stream: ["ContentFiltered"],
    interrupted: ["ContentFiltered"],
  }),

  secrets: (bench) =>
    Effect.gen(function* () {
      const body = { error: { message: `Incorrect API key provided: ${planted}.`, code: planted, type: planted } }
      const steps: ReadonlyArray<Upstream.Step> = [
        Upstream.status(401, { body, headers: { "x-echo": planted } }),
        Upstream.status(500, { body: `Bearer ${planted}` }),
        Upstream.errorInBand({ body }),
        Upstream.errorInBand({ body, afterTokens: 2 }),
        Upstream.html({ body: `<html>${planted}</html>` }),
        Upstream.truncatedJson({ answer: `${planted} ${planted} ${planted}`, tokens: 6 }),
        Upstream.resetBeforeHeaders,
        Upstream.reset({ afterTokens: 2 }),
      ]
      for (const step of steps) {
        const stage = yield* bench.start(step)
        for (const mode of modes) {
          const { failure } = yield* stage.ask(mode)
          if (failure === undefined) return yield* stage.broken(`${kind[mode]} to fail`, "an answer")
          yield* owes(stage, failure)
        }
      }
    }),
})
