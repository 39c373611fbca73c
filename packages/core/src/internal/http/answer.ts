/** From a failure to a status, headers, a body and a line of the log: plain functions, without effects. */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import * as FailureMode from "../../FailureMode.ts"
import type { LlmError } from "../llmError.ts"
import { checked } from "../options.ts"
import { prefersProblem } from "./accept.ts"
import {
  type ErrorType,
  messageOf,
  orElse,
  retryableOf,
  speaker,
  statusOf,
  titles,
  types,
  unknownMessage,
} from "./publicError.ts"
import { cleanId, type RequestFacts } from "./requestFacts.ts"

// ---------------------------------------------------------------------------
// Settings
// ---------------------------------------------------------------------------

const isFunction = (u: unknown): u is (...args: ReadonlyArray<never>) => unknown => typeof u === "function"

/** How a service answers failures. */
export const Settings = Schema.Struct({
  /** Cells of `FailureMode` to use instead, `FailureMode.operatorOwned` for example. Default: none. */
  failureModes: Schema.optional(
    Schema.declare<FailureMode.Overrides>(
      (u): u is FailureMode.Overrides =>
        typeof u === "object" && u !== null && Object.keys(u).every((tag) => Object.hasOwn(types, tag)),
      { expected: "overrides of the table, by tag, such as FailureMode.operatorOwned" },
    ),
  ),
  /**
   * Whom the messages are for. `users` read nothing of providers, models and keys, and of a 500 only that something
   * went wrong. `operators` read the failure's own message. Default `users`.
   */
  audience: Schema.optional(Schema.Literals(["users", "operators"])),
  /** Messages of one's own, in another language for example; `undefined` for the usual one. */
  message: Schema.optional(
    Schema.declare<(failure: LlmError, type: ErrorType) => string | undefined>(
      (u): u is (failure: LlmError, type: ErrorType) => string | undefined => isFunction(u),
      { expected: "a function from a failure and its type to a message" },
    ),
  ),
  /** What the `type` of problem details begins with; the type follows. Default `urn:understudy:error:`. */
  problemTypes: Schema.optional(Schema.String),
  /** The header in which a request brings its identifier. Default `x-request-id`. */
  requestIdHeader: Schema.optional(Schema.String),
})

/** How a service answers failures. */
export interface Settings extends Schema.Schema.Type<typeof Settings> {}

/** Settings with their defaults. */
export interface Answering {
  readonly modes: FailureMode.Table
  readonly audience: "users" | "operators"
  readonly message: Settings["message"]
  readonly problemTypes: string
  readonly requestIdHeader: string
}

/** Settings, checked: what cannot be meant is thrown as `InvalidOptions`. */
export const checkedSettings = (where: string, settings: Settings): Settings => checked(where, Settings, settings)

/** Settings with their defaults, over this table. */
export const answering = (settings: Settings, table: FailureMode.Table = FailureMode.table): Answering => ({
  modes: settings.failureModes === undefined ? table : FailureMode.override(settings.failureModes, table),
  audience: settings.audience ?? "users",
  message: settings.message,
  problemTypes: settings.problemTypes ?? "urn:understudy:error:",
  requestIdHeader: (settings.requestIdHeader ?? "x-request-id").toLowerCase(),
})

// ---------------------------------------------------------------------------
// Answers
// ---------------------------------------------------------------------------

/** What clients read of an error. */
export interface PublicError {
  /** What failed: the table is in the header of `HttpErrorResponse`. */
  readonly type: ErrorType
  /** For people, in our own words. */
  readonly message: string
  /** Would the same request have a chance later? */
  readonly retryable: boolean
  /** When to come back, in whole seconds, rounded up: the number of `Retry-After`. Only when it is known. */
  readonly retry_after?: number
  /** The identifier of the request, as it came with it. */
  readonly request_id?: string
}

/** The body of an error response. */
export interface Body {
  readonly error: PublicError
}

/** The body of an error response as problem details (RFC 9457). */
export interface Problem {
  /** A URI that names the type. */
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail: string
  readonly retryable: boolean
  readonly retry_after?: number
  readonly request_id?: string
}

/** The response to a failure, for any framework. */
export interface HttpErrorResponse<out B extends Body | Problem = Body | Problem> {
  readonly status: number
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>
  /** To be sent as JSON. */
  readonly body: B
}

/** RFC 9111 lets recipients of seconds stop there, and it is 68 years. */
const mostSeconds = 2_147_483_647

/** A hint in whole seconds, rounded up, so that nobody who heeds it comes too early. */
const secondsOf = (hint: Duration.Duration | undefined): number | undefined => {
  if (hint === undefined) return undefined
  const seconds = Math.ceil(Duration.toMillis(hint) / 1000)
  return Number.isFinite(seconds) && seconds >= 0 ? Math.min(seconds, mostSeconds) : undefined
}

const longestMessage = 1000

/** The operator's own words, if there are any. */
const ownMessage = (failure: LlmError, type: ErrorType, message: Settings["message"]): string | undefined => {
  if (message === undefined) return undefined
  const words: unknown = orElse(
    () => message(failure, type),
    () => undefined,
  )
  return typeof words === "string" && words !== "" ? words.slice(0, longestMessage) : undefined
}

/** The failure's message, for operators. Failures may be nested deeper than a stack is high. */
const operatorMessage = (failure: LlmError): string =>
  orElse(
    () => failure.message.slice(0, longestMessage),
    () => titles[types[failure._tag]],
  )

/** What clients read of a failure, with its status; of anything else, that something went wrong. */
export const publicError = (
  failure: LlmError | undefined,
  settings: Answering,
  requestId?: string,
): { readonly status: number; readonly error: PublicError } =>
  failure === undefined ? { status: 500, error: unknownError(requestId) } : knownError(failure, settings, requestId)

const knownError = (
  failure: LlmError,
  { audience, message, modes }: Answering,
  requestId?: string,
): { readonly status: number; readonly error: PublicError } => {
  const status = statusOf(failure, modes)
  const retryable = retryableOf(failure, modes)
  const speaking = speaker(failure, modes)
  // A 500 is nobody's business but the operator's: that the operator's own key failed, for example.
  const type = status === 500 && audience === "users" ? "unknown" : types[speaking._tag]
  const usual =
    audience === "operators"
      ? operatorMessage(failure)
      : type === "unknown"
        ? unknownMessage
        : messageOf(speaking, retryable)
  const retryAfter = secondsOf(failure.retryAfter)
  const id = cleanId(requestId)
  return {
    status,
    error: {
      type,
      message: ownMessage(failure, type, message) ?? usual,
      retryable,
      ...(retryAfter === undefined ? {} : { retry_after: retryAfter }),
      ...(id === undefined ? {} : { request_id: id }),
    },
  }
}

/** What clients read when something fails that is no failure of an LLM call. */
const unknownError = (requestId: string | undefined): PublicError => {
  const id = cleanId(requestId)
  return {
    type: "unknown",
    message: unknownMessage,
    retryable: false,
    ...(id === undefined ? {} : { request_id: id }),
  }
}

/**
 * A 401 must say how to authenticate (RFC 9110, section 15.5.2), and a challenge of this scheme must have a parameter
 * (RFC 6750, section 3). No browser asks for a password because of it.
 */
const challenge = 'Bearer realm="service"'

const responseOf = (
  status: number,
  error: PublicError,
  { problemTypes }: Answering,
  accept: string | undefined,
): HttpErrorResponse => {
  const asProblem = prefersProblem(accept)
  const { message, type, ...rest } = error
  return {
    status,
    headers: {
      "content-type": asProblem ? "application/problem+json" : "application/json",
      // A cache must not answer the next one with this.
      "cache-control": "no-store",
      ...(error.retry_after === undefined ? {} : { "retry-after": String(error.retry_after) }),
      ...(status === 401 ? { "www-authenticate": challenge } : {}),
    },
    body: asProblem
      ? { type: `${problemTypes}${type}`, title: titles[type], status, detail: message, ...rest }
      : { error },
  }
}

/** The response to a failure; to anything else, that something went wrong. */
export const answer = (
  failure: LlmError | undefined,
  settings: Answering,
  { accept, requestId }: RequestFacts,
): HttpErrorResponse => {
  const { error, status } = publicError(failure, settings, requestId)
  return responseOf(status, error, settings, accept)
}

// ---------------------------------------------------------------------------
// The log
// ---------------------------------------------------------------------------

/** The line of the log for a failed response. It holds no text of a provider, no key and no stack. */
export interface LogLine {
  /**
   * `Error` for a 500, since a person must look; `Info` for 400, 413 and 422, where the client must change something;
   * `Warn` for the rest.
   */
  readonly level: "Info" | "Warn" | "Error"
  /** In our words, for operators. */
  readonly message: string
  readonly fields: {
    /** What failed, even where clients are told `unknown`. */
    readonly error_type: ErrorType
    readonly provider?: string
    readonly model?: string
    readonly retryable: boolean
    readonly status: number
    /** Without the query. */
    readonly path?: string
    readonly request_id?: string
  }
}

const levelOf = (status: number): LogLine["level"] =>
  status === 500 ? "Error" : status === 400 || status === 413 || status === 422 ? "Info" : "Warn"

/** Text in the log is one line. */
const oneLine = (text: string): string => text.replaceAll(/\p{Cc}/gu, " ")

/** Names in the log are not too long. */
const name = (text: string): string => oneLine(text.slice(0, 200))

/** The model that was asked, or all that were. */
const modelOf = (failure: LlmError): string | undefined => {
  if (failure.model !== undefined || failure._tag !== "AllProvidersFailed") return failure.model
  const asked = new Set(failure.failures.slice(0, 20).flatMap(({ model }) => (model === undefined ? [] : [model])))
  return asked.size === 0 ? undefined : [...asked].join(" | ")
}

/** The line of the log for a response. `sent`: the status that went out already, when a stream broke behind it. */
export const logLine = (
  failure: LlmError | undefined,
  { modes }: Answering,
  { path, requestId }: RequestFacts,
  sent?: number,
): LogLine => {
  const id = cleanId(requestId)
  const where = { ...(path === undefined ? {} : { path }), ...(id === undefined ? {} : { request_id: id }) }
  if (failure === undefined) {
    return {
      level: "Error",
      message: "A request failed with something that is no failure of an LLM call.",
      fields: { error_type: "unknown", retryable: false, status: sent ?? 500, ...where },
    }
  }
  const status = statusOf(failure, modes)
  const model = modelOf(failure)
  return {
    level: levelOf(status),
    message: oneLine(operatorMessage(failure)),
    fields: {
      error_type: types[speaker(failure, modes)._tag],
      provider: name(failure.provider),
      ...(model === undefined ? {} : { model: name(model) }),
      retryable: retryableOf(failure, modes),
      status: sent ?? status,
      ...where,
    },
  }
}

/** What clients read with the line of the log. What throws when it is looked at is no failure of ours. */
export const errorAndLine = (
  failure: LlmError | undefined,
  settings: Answering,
  facts: RequestFacts,
  sent?: number,
): { readonly status: number; readonly error: PublicError; readonly line: LogLine } => {
  const both = (failure: LlmError | undefined) => ({
    ...publicError(failure, settings, facts.requestId),
    line: logLine(failure, settings, facts, sent),
  })
  return orElse(
    () => both(failure),
    () => both(undefined),
  )
}

/** The response to whatever was raised, with its line of the log. Never throws. */
export const answerAndLine = (
  failure: LlmError | undefined,
  settings: Answering,
  facts: RequestFacts,
  sent?: number,
): { readonly response: HttpErrorResponse; readonly line: LogLine } => {
  const { error, line, status } = errorAndLine(failure, settings, facts, sent)
  return { response: responseOf(status, error, settings, facts.accept), line }
}
