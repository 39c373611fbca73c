/**
 * Failures on their way through `effect/ai`, and back.
 *
 * The services of `effect/ai` fail with `AiError` and nothing else. `toAiError`
 * gives every failure of the union its nearest reason and keeps the failure
 * itself inside; `fromAiError` gives it back. So a program that was written for
 * `AiError` works as it is, and one that wants to know more asks.
 *
 * **Details**
 *
 * - The failure is carried under a symbol that is not enumerable, on the
 *   `AiError` and on its reason: it survives `mapError`, `Effect.retry`,
 *   `catchReason`, spans and an `Exit`, and `fromAiError` gives back the very
 *   instance.
 * - As JSON it is in the reason's `metadata.understudy`. After
 *   `Schema.toCodecJson(AiError.AiError)` and back, `fromAiError` gives one that
 *   is equal in every field. `providerMessage` and `cause` do not travel.
 * - An `AiError` that carries nothing of ours is read by its reason, and by the
 *   HTTP response in it, where there is one.
 *
 * | raised by `effect/ai` itself | arrives as |
 * |---|---|
 * | `ToolNotFoundError`, `ToolParameterValidationError`, `InvalidOutputError`, `StructuredOutputError` | `InvalidResponse` of kind `content` |
 * | `InvalidUserInputError`, `UnsupportedSchemaError`, `ToolkitRequiredError`, `ToolConfigurationError` | `InvalidRequest` |
 * | `InvalidToolResultError`, `ToolResultEncodingError` | `UnknownFailure` |
 *
 * **Gotchas**
 *
 * - `AiError.isRetryable` is a property of the reason. Whether the same request
 *   has a chance later is `fromAiError(error).retryable`.
 * - `AiError.retryAfter` exists for `RateLimitError` only. The hint of an
 *   overload is `fromAiError(error).retryAfter`.
 *
 * **Example** (The failure inside)
 *
 * ```ts
 * import { AiFailure } from "@understudy/core"
 * import { Effect } from "effect"
 * import { LanguageModel } from "effect/ai"
 *
 * export const haiku = LanguageModel.generateText({ prompt: "A haiku about rain" }).pipe(
 *   Effect.mapError((error) => AiFailure.fromAiError(error)),
 *   Effect.catchTag("ContextLengthExceeded", () => Effect.succeed({ text: "Too long." })),
 * )
 * ```
 */
import * as AiError from "effect/ai/AiError"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Classifier from "./Classifier.ts"
import {
  AuthenticationFailed,
  ConnectionFailed,
  ContentFiltered,
  InvalidRequest,
  InvalidResponse,
  isLlmError,
  LlmError,
  Overloaded,
  PermissionDenied,
  type ProviderFailure,
  ProviderUnavailable,
  QuotaExhausted,
  RateLimited,
  type Tag,
  TimedOut,
  UnknownFailure,
  withEvidence,
  type WithTag,
} from "./internal/llmError.ts"

/** The reasons that have room for metadata, and so can carry a failure. */
type Carrier = Extract<AiError.AiErrorReason, { readonly metadata: unknown }>

/** The key under which metadata is ours. */
const namespace = "understudy"

/** Where an `AiError` and its reason carry the failure. */
const FailureKey: unique symbol = Symbol.for("@understudy/core/AiFailure")

const codec = Schema.toCodecJson(LlmError)
const encode = Schema.encodeSync(codec)
/** Nothing for a failure that JSON cannot hold, such as one that is nested beyond measure. */
const encodedOr = (failure: LlmError): unknown => {
  try {
    return encode(failure)
  } catch {
    return null
  }
}
const decode = Schema.decodeUnknownExit(codec)

// ---------------------------------------------------------------------------
// To AiError
// ---------------------------------------------------------------------------

/** What every reason is made of. */
interface Said {
  readonly description: string
  readonly metadata: Carrier["metadata"]
  readonly http: typeof AiError.HttpContext.Type | undefined
  readonly retryAfter: Duration.Duration | undefined
}

type Reasons = { readonly [T in Tag]: (failure: WithTag<T>, said: Said) => Carrier }

const unavailable = (_: LlmError, { description, http, metadata }: Said): Carrier =>
  new AiError.InternalProviderError({ description, metadata, http })

const rateLimit = (_: LlmError, { http, metadata, retryAfter }: Said): Carrier =>
  new AiError.RateLimitError({
    metadata,
    http,
    retryAfter: retryAfter === undefined ? undefined : wholeMillis(retryAfter),
  })

/** The codec of `RateLimitError` reads no other milliseconds than whole and safe ones. */
const wholeMillis = (duration: Duration.Duration): Duration.Duration => {
  const millis = Math.ceil(Duration.toMillis(duration))
  return Number.isSafeInteger(millis) ? Duration.millis(millis) : millis > 0 ? Duration.infinity : Duration.zero
}

/** The nearest reason of each failure. */
const reasons: Reasons = {
  RateLimited: rateLimit,
  QuotaExhausted: (_, { http, metadata }) => new AiError.QuotaExhaustedError({ metadata, http }),
  Overloaded: unavailable,
  ProviderUnavailable: unavailable,
  // `NetworkError` has no metadata, and its method and address are not known here.
  ConnectionFailed: unavailable,
  TimedOut: unavailable,
  DeadlineExceeded: unavailable,
  StreamInterrupted: unavailable,
  InvalidResponse: ({ kind }, { description, http, metadata }) =>
    kind === "protocol"
      ? new AiError.InvalidResponseError({ description, metadata, http })
      : new AiError.InvalidOutputError({ description, metadata }),
  ContentFiltered: (_, { description, http, metadata }) =>
    new AiError.ContentPolicyError({ description, metadata, http }),
  ContextLengthExceeded: (_, { description, http, metadata }) =>
    new AiError.InvalidRequestError({
      parameter: "prompt",
      constraint: "is longer than the model's context window",
      description,
      metadata,
      http,
    }),
  AuthenticationFailed: (_, { description, http, metadata }) =>
    new AiError.AuthenticationError({ kind: "InvalidKey", description, metadata, http }),
  PermissionDenied: (_, { description, http, metadata }) =>
    new AiError.AuthenticationError({ kind: "InsufficientPermissions", description, metadata, http }),
  ModelNotFound: (_, { description, http, metadata }) =>
    new AiError.InvalidRequestError({ parameter: "model", description, metadata, http }),
  InvalidRequest: (_, { description, http, metadata }) =>
    new AiError.InvalidRequestError({ description, metadata, http }),
  UnknownFailure: (_, { description, http, metadata }) => new AiError.UnknownError({ description, metadata, http }),
  CircuitOpen: unavailable,
  CapacityExceeded: rateLimit,
  // When all attempts failed alike, that is what happened.
  AllProvidersFailed: (failure, said) => {
    const [first] = failure.failures
    return first !== undefined && failure.failures.every(({ _tag }) => _tag === first._tag)
      ? reasonOf(first, said)
      : unavailable(failure, said)
  },
}

const reasonOf = <T extends Tag>(failure: WithTag<T>, said: Said): Carrier => {
  const make: (failure: WithTag<T>, said: Said) => Carrier = reasons[failure._tag]
  return make(failure, said)
}

const carry = (carrier: object, failure: LlmError): void => {
  Reflect.defineProperty(carrier, FailureKey, { value: failure, enumerable: false, configurable: true })
}

// The encoded form is JSON, which the type of a codec does not tell.
const metadataOf = (failure: LlmError): Carrier["metadata"] =>
  ({ [namespace]: encodedOr(failure) }) as unknown as Carrier["metadata"]

/** A failure as an `AiError` with the nearest reason, which carries it. Never throws. */
export const toAiError = (
  failure: LlmError,
  options?: {
    /** The method that failed, for the message. Default `generateText`. */
    readonly method?: string | undefined
    /** The module that failed, for the message. Default `LanguageModel`. */
    readonly module?: string | undefined
  },
): AiError.AiError => {
  const { message, retryAfter, status } = failure
  const reason = reasonOf(failure, {
    description: message,
    metadata: metadataOf(failure),
    http: status === undefined ? undefined : { response: { status, headers: {} } },
    retryAfter,
  })
  const error = AiError.make({
    module: options?.module ?? "LanguageModel",
    method: options?.method ?? "generateText",
    reason,
  })
  carry(reason, failure)
  carry(error, failure)
  return error
}

// ---------------------------------------------------------------------------
// From AiError
// ---------------------------------------------------------------------------

/** Who was asked, for failures that do not say it themselves. */
export interface Subject {
  readonly provider: string
  readonly model?: string
  /** The present, in milliseconds since 1970, for reasons that name an instant. */
  readonly now?: number
}

const carried = (u: object): LlmError | undefined => {
  const failure: unknown = FailureKey in u ? u[FailureKey] : undefined
  return isLlmError(failure) ? failure : undefined
}

const fromMetadata = (reason: AiError.AiErrorReason): LlmError | undefined => {
  const encoded = "metadata" in reason ? reason.metadata[namespace] : undefined
  if (encoded === undefined || encoded === null) return undefined
  const exit = decode(encoded)
  return Exit.isSuccess(exit) ? exit.value : undefined
}

type Facts = Pick<Subject, "provider" | "model"> & { readonly status?: number }

type ByReason = {
  readonly [T in AiError.AiErrorReason["_tag"]]: (
    reason: Extract<AiError.AiErrorReason, { readonly _tag: T }>,
    facts: Facts,
    subject: Subject,
  ) => ProviderFailure
}

const unfit =
  (detail: string) =>
  (_: AiError.AiErrorReason, facts: Facts): ProviderFailure =>
    new InvalidResponse({ ...facts, kind: "content", detail })

const wrong =
  (detail: string) =>
  (_: AiError.AiErrorReason, facts: Facts): ProviderFailure =>
    new InvalidRequest({ ...facts, detail })

const unknown =
  (detail: string) =>
  (_: AiError.AiErrorReason, facts: Facts): ProviderFailure =>
    new UnknownFailure({ ...facts, detail })

/** What each reason says when there is nothing else to go by. */
const byReason: ByReason = {
  RateLimitError: ({ retryAfter }, facts) =>
    new RateLimited({ ...facts, ...(retryAfter === undefined ? {} : { retryAfter }) }),
  QuotaExhaustedError: ({ resetAt }, facts, { now }) =>
    new QuotaExhausted({
      ...facts,
      ...(resetAt === undefined || now === undefined
        ? {}
        : { retryAfter: Duration.millis(Math.max(0, DateTime.toEpochMillis(resetAt) - now)) }),
    }),
  AuthenticationError: ({ kind }, facts) =>
    kind === "InsufficientPermissions" ? new PermissionDenied(facts) : new AuthenticationFailed(facts),
  ContentPolicyError: (_, facts) => new ContentFiltered(facts),
  InvalidRequestError: (_, facts) => new InvalidRequest(facts),
  InternalProviderError: (_, facts) => new ProviderUnavailable(facts),
  InvalidResponseError: (_, facts) => new InvalidResponse({ ...facts, kind: "protocol" }),
  UnknownError: (_, facts) => new UnknownFailure(facts),
  NetworkError: ({ cause, reason }, facts) => {
    if (reason !== "TransportError") return new InvalidRequest({ ...facts, detail: "The request could not be made." })
    const failure = cause === undefined ? undefined : Classifier.classify({ where: "network", error: cause }, facts)
    return failure === undefined || failure._tag === "UnknownFailure" ? new ConnectionFailed(facts) : failure
  },
  InvalidOutputError: unfit("It is not made of the parts that an answer has."),
  StructuredOutputError: unfit("It does not fit the schema."),
  ToolNotFoundError: unfit("It calls a tool that does not exist."),
  ToolParameterValidationError: unfit("It calls a tool with parameters that do not fit."),
  InvalidUserInputError: wrong("The prompt is not a prompt."),
  UnsupportedSchemaError: wrong("The schema cannot be expressed for a model."),
  ToolkitRequiredError: wrong("It resolves approvals of tools and holds no toolkit."),
  ToolConfigurationError: wrong("A tool is configured wrongly."),
  InvalidToolResultError: unknown("The handler of a tool gave a result that does not fit."),
  ToolResultEncodingError: unknown("The result of a tool could not be encoded."),
}

const read = <T extends AiError.AiErrorReason["_tag"]>(
  reason: Extract<AiError.AiErrorReason, { readonly _tag: T }>,
  facts: Facts,
  subject: Subject,
): ProviderFailure => {
  const failureOf: (
    reason: Extract<AiError.AiErrorReason, { readonly _tag: T }>,
    facts: Facts,
    subject: Subject,
  ) => ProviderFailure = byReason[reason._tag]
  return failureOf(reason, facts, subject)
}

/** Reasons that a status alone can give: the response behind them may say more. */
const vague = new Set<AiError.AiErrorReason["_tag"]>([
  "RateLimitError",
  "AuthenticationError",
  "InvalidRequestError",
  "InternalProviderError",
  "UnknownError",
])

/** The failure that the response inside a reason is. */
const fromResponse = (reason: AiError.AiErrorReason, subject: Subject, said: ProviderFailure): ProviderFailure => {
  if (!vague.has(reason._tag) || !("http" in reason) || reason.http?.response === undefined) return said
  const { body = "", response } = reason.http
  if (response.status < 400) return said
  const headers: Record<string, string> = {}
  for (const [name, value] of Object.entries(response.headers)) if (typeof value === "string") headers[name] = value
  const { now, ...who } = subject
  const found = Classifier.classify(
    { where: "http", status: response.status, headers, body },
    now === undefined ? who : { ...who, now },
  )
  if (found._tag === "UnknownFailure") return said
  return found._tag === said._tag && found.retryAfter === undefined && said.retryAfter !== undefined ? said : found
}

/** The words of a reason: they may quote the provider. */
const wordsOf = (reason: AiError.AiErrorReason): string | undefined =>
  "description" in reason ? reason.description : undefined

/** @internal What an error of `effect/ai` says by itself, whatever it carries. */
export const fromReason = (error: AiError.AiError | AiError.AiErrorReason, subject: Subject): ProviderFailure => {
  const reason = AiError.isAiError(error) ? error.reason : error
  const status = "http" in reason ? reason.http?.response?.status : undefined
  const { model, provider } = subject
  const facts: Facts = {
    provider,
    ...(model === undefined ? {} : { model }),
    ...(status === undefined ? {} : { status }),
  }
  const said = read(reason, facts, subject)
  const failure = fromResponse(reason, subject, said)
  return withEvidence(failure, {
    providerMessage: failure.providerMessage ?? wordsOf(reason),
    cause: error,
  })
}

/**
 * The failure that an `AiError` is: the very instance that it carries, one that
 * is equal when it came as JSON, and otherwise what its reason and its response
 * say. Never throws.
 *
 * `subject` names the provider of failures that were not ours. Default: the
 * module that raised it.
 */
export const fromAiError = (error: AiError.AiError | AiError.AiErrorReason, subject?: Subject): LlmError => {
  const reason = AiError.isAiError(error) ? error.reason : error
  const failure = carried(error) ?? carried(reason) ?? fromMetadata(reason)
  if (failure !== undefined) {
    // The same instance next time.
    carry(reason, failure)
    return failure
  }
  return fromReason(error, subject ?? { provider: AiError.isAiError(error) ? error.module : "effect/ai" })
}

// ---------------------------------------------------------------------------
// Narrower
// ---------------------------------------------------------------------------

/** What the failures of policies are when seen from outside, as those of one provider. */
const asSeen = (failure: LlmError, { model, provider }: Subject): ProviderFailure => {
  const { retryable, retryAfter, status } = failure
  const facts = {
    provider,
    retryable,
    ...(model === undefined ? {} : { model }),
    ...(status === undefined ? {} : { status }),
    ...(retryAfter === undefined ? {} : { retryAfter }),
  }
  switch (failure._tag) {
    case "DeadlineExceeded":
      return new TimedOut({
        ...facts,
        phase: "provider",
        ...(failure.limit === undefined ? {} : { limit: failure.limit }),
      })
    case "CapacityExceeded":
      return new Overloaded(facts)
    case "CircuitOpen":
    case "AllProvidersFailed":
      return new ProviderUnavailable(facts)
    default:
      return failure
  }
}

/** @internal A failure as that of one provider: those of policies inside it become what they look like from outside. */
export const asProviderFailure = (failure: LlmError, subject: Subject): ProviderFailure => {
  const seen = asSeen(failure, subject)
  return seen === failure ? seen : withEvidence(seen, { cause: failure })
}

/**
 * What `effect/ai` raises around a provider: tool calls and answers that do not
 * fit, requests that are wrong, and what nobody knows.
 */
export type CoreFailure = InvalidResponse | InvalidRequest | UnknownFailure

/** @internal An error that no provider raised, as one of the few that `effect/ai` raises. */
export const toCoreFailure = (error: AiError.AiError, subject: Subject): CoreFailure => {
  const failure = fromReason(error, subject)
  switch (failure._tag) {
    case "InvalidResponse":
    case "InvalidRequest":
    case "UnknownFailure":
      return failure
    default:
      // The error of somebody else's model, in the handler of a tool, say.
      return withEvidence(
        new UnknownFailure({
          provider: subject.provider,
          ...(subject.model === undefined ? {} : { model: subject.model }),
          detail: "Something beside the provider failed, a tool's handler perhaps.",
        }),
        { cause: error },
      )
  }
}
