/** The failures themselves. Their public module is `LlmError`. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"

/**
 * What a failure carries besides its fields: evidence for operators, which
 * prints as `<redacted>` and never leaves the process by JSON.
 */
export interface Evidence {
  /** What the provider wrote, at most 2 kB. */
  readonly providerMessage?: Redacted.Redacted<string>
  /** What was thrown or received below. */
  readonly cause?: Redacted.Redacted<unknown>
}

/** The longest `providerMessage` that is kept, in bytes of UTF-8. */
export const maxProviderMessageBytes = 2048

/**
 * Whether the same request has a chance later, for each tag, when nothing more
 * is known about the failure.
 */
export const retryableByDefault = {
  RateLimited: true,
  QuotaExhausted: false,
  Overloaded: true,
  ProviderUnavailable: true,
  ConnectionFailed: true,
  TimedOut: true,
  DeadlineExceeded: true,
  StreamInterrupted: true,
  InvalidResponse: true,
  ContentFiltered: false,
  ContextLengthExceeded: false,
  AuthenticationFailed: false,
  PermissionDenied: false,
  ModelNotFound: false,
  InvalidRequest: false,
  UnknownFailure: false,
  CircuitOpen: true,
  CapacityExceeded: true,
  AllProvidersFailed: false,
} as const

const common = <const Tag extends keyof typeof retryableByDefault>(tag: Tag) => ({
  /** The provider's name, as the composition names it. */
  provider: Schema.String,
  /** The model that was asked for. */
  model: Schema.optionalKey(Schema.String),
  /** The HTTP status, where there was one. */
  status: Schema.optionalKey(Schema.Int),
  /** The provider's identifier of the request, to quote to its support. */
  requestId: Schema.optionalKey(Schema.String),
  /** The hint: when the provider said to come back, as it was said. JSON holds milliseconds. */
  retryAfter: Schema.optionalKey(Schema.DurationFromMillis),
  /** Would the same request have a chance later? */
  retryable: Schema.Boolean.pipe(Schema.withConstructorDefault(Effect.succeed<boolean>(retryableByDefault[tag]))),
  /** One more sentence in our own words, never the provider's. */
  detail: Schema.optionalKey(Schema.String),
})

const failures = Schema.optionalKey(Schema.Array(Schema.suspend((): Schema.Codec<LlmError, unknown> => LlmError)))

interface Said {
  readonly provider: string
  readonly model?: string
  readonly status?: number
  readonly detail?: string
  readonly retryAfter?: Duration.Duration
}

const who = (f: Said): string => (f.model === undefined ? f.provider : `${f.provider} (${f.model})`)
const http = (f: Said): string => (f.status === undefined ? "" : ` with HTTP ${f.status}`)
const more = (f: Said): string => (f.detail === undefined ? "" : ` ${f.detail}`)
const spoken = (duration: Duration.Duration): string =>
  Duration.format(Duration.millis(Math.round(Duration.toMillis(duration))))
const wait = (f: Said): string => (f.retryAfter === undefined ? "" : ` It asks to wait ${spoken(f.retryAfter)}.`)

/** The provider limits the rate of requests or tokens. Strategy: exponential backoff, at least the hint. */
export class RateLimited extends Schema.TaggedError<RateLimited, Evidence>()("RateLimited", common("RateLimited")) {
  override get message(): string {
    const next = this.retryable
      ? "Wait and ask again, or let another provider answer."
      : "The request is larger than the limit, so waiting does not help: shorten it or raise the limit."
    return `${who(this)} limits the rate${http(this)}.${wait(this)}${more(this)} ${next}`
  }
}

/** The account has no quota, credit or budget left. Strategy: failover, and alert a person. */
export class QuotaExhausted extends Schema.TaggedError<QuotaExhausted, Evidence>()(
  "QuotaExhausted",
  common("QuotaExhausted"),
) {
  override get message(): string {
    return `The account at ${who(this)} has no quota or credit left${http(this)}.${wait(this)}${more(this)} Add credit or raise the plan's limit; until then another provider must answer.`
  }
}

/** The provider has more work than it can do. Strategy: backoff, then failover. */
export class Overloaded extends Schema.TaggedError<Overloaded, Evidence>()("Overloaded", common("Overloaded")) {
  override get message(): string {
    return `${who(this)} is overloaded${http(this)}.${wait(this)}${more(this)} Wait and ask again, or let another provider answer.`
  }
}

/** The provider fails on its side. Strategy: failover. */
export class ProviderUnavailable extends Schema.TaggedError<ProviderUnavailable, Evidence>()(
  "ProviderUnavailable",
  common("ProviderUnavailable"),
) {
  override get message(): string {
    return `${who(this)} failed on its side${http(this)}.${wait(this)}${more(this)} Let another provider answer, or ask again later.`
  }
}

/** How a connection failed. */
export const ConnectionFault = Schema.Literals(["dns", "refused", "unreachable", "reset", "closed", "tls", "other"])

const connectionWords: Record<typeof ConnectionFault.Type, string> = {
  dns: "its host name did not resolve",
  refused: "nothing listens there",
  unreachable: "its host cannot be reached",
  reset: "the connection was reset",
  closed: "the connection was closed before the answer was whole",
  tls: "the certificate or the TLS handshake was not accepted",
  other: "the connection broke",
}

/** The connection could not be made, or broke before the answer was there. Strategy: retry, then failover. */
export class ConnectionFailed extends Schema.TaggedError<ConnectionFailed, Evidence>()("ConnectionFailed", {
  ...common("ConnectionFailed"),
  fault: ConnectionFault.pipe(Schema.withConstructorDefault(Effect.succeed<typeof ConnectionFault.Type>("other"))),
}) {
  override get message(): string {
    const next = this.retryable ? "Ask again, or let another provider answer." : "Check its address and certificate."
    return `Could not talk to ${who(this)}: ${connectionWords[this.fault]}.${more(this)} ${next}`
  }
}

/** Which clock ran out. `provider` is the provider's own. */
export const TimeoutPhase = Schema.Literals([
  "connect",
  "headers",
  "first content",
  "idle",
  "slow drip",
  "attempt",
  "provider",
])

/** Which clock ran out. */
export type TimeoutPhase = typeof TimeoutPhase.Type

/** An attempt took longer than one of its clocks allows. Strategy: timeout, then retry. */
export class TimedOut extends Schema.TaggedError<TimedOut, Evidence>()("TimedOut", {
  ...common("TimedOut"),
  phase: TimeoutPhase,
  /** The limit of that clock. JSON holds milliseconds. */
  limit: Schema.optionalKey(Schema.DurationFromMillis),
  /**
   * The share of its own limit that the attempt had, 0 to 1, when it was shortened for the sake of another candidate:
   * from one half on, a breaker counts it.
   */
  attemptShare: Schema.optionalKey(Schema.Finite),
}) {
  override get message(): string {
    const limit = this.limit === undefined ? "" : ` within ${spoken(this.limit)}`
    const what: Record<TimeoutPhase, string> = {
      connect: `${who(this)} accepted no connection${limit}.`,
      headers: `${who(this)} sent no headers${limit}.`,
      "first content": `${who(this)} sent no first content${limit}.`,
      idle: `${who(this)} stopped sending: no content${limit}.`,
      "slow drip": `${who(this)} sends too slowly.`,
      attempt: `${who(this)} gave no whole answer${limit}.`,
      provider: `${who(this)} reports that it ran out of time itself${http(this)}.`,
    }
    return `${what[this.phase]}${more(this)} Ask again, let another provider answer, or allow more time.`
  }
}

/** The call's deadline passed. Strategy: tell the caller in time. */
export class DeadlineExceeded extends Schema.TaggedError<DeadlineExceeded, Evidence>()("DeadlineExceeded", {
  ...common("DeadlineExceeded"),
  /** How long the call was allowed to take in all. JSON holds milliseconds. */
  limit: Schema.optionalKey(Schema.DurationFromMillis),
  /** The share of its own limit that the running attempt had, 0 to 1: from one half on, a breaker counts it. */
  attemptShare: Schema.optionalKey(Schema.Finite),
  /** The failures of the attempts before, in order. */
  failures,
}) {
  override get message(): string {
    const limit = this.limit === undefined ? "its deadline" : `its deadline of ${spoken(this.limit)}`
    return `The call did not end within ${limit}; ${who(this)} was asked last.${more(this)} Ask again, or allow more time.`
  }
}

/**
 * Why an answer is not what was asked for.
 *
 * - `nothing found`: there is no JSON in it
 * - `refusal`: the model declined in words
 * - `truncated`: it was cut off
 * - `unparseable`: what is there cannot be read, nor mended as far as allowed
 * - `schema mismatch`: it does not fit the schema, or a check says no
 * - `ambiguous`: more than one value fits, and the policy takes none
 * - `too large`: it is past the limits
 */
export const RejectionReason = Schema.Literals([
  "nothing found",
  "refusal",
  "truncated",
  "unparseable",
  "schema mismatch",
  "ambiguous",
  "too large",
])

/** Why an answer is not what was asked for. */
export type RejectionReason = typeof RejectionReason.Type

/** An answer that was not what was asked for. It holds no value of the answer, and no name that the model chose. */
export const Rejection = Schema.Struct({
  /** Who gave it. */
  provider: Schema.String,
  model: Schema.optionalKey(Schema.String),
  reason: RejectionReason,
  /** What was expected where: at most ten. */
  issues: Schema.Array(Schema.Struct({ path: Schema.String, expected: Schema.String })),
  /** How many issues more there were. */
  more: Schema.Int,
})

/** An answer that was not what was asked for. */
export interface Rejection extends Schema.Schema.Type<typeof Rejection> {}

const rejectionWords: Record<RejectionReason, string> = {
  "nothing found": "It holds no JSON.",
  refusal: "The model declined.",
  truncated: "It was cut off before its end.",
  unparseable: "It cannot be read as JSON.",
  "schema mismatch": "It does not fit the schema.",
  ambiguous: "More than one value in it fits.",
  "too large": "It is larger than the limits allow.",
}

const rejectionRemedy: Record<RejectionReason, string> = {
  "nothing found": "Ask again and say what was wrong.",
  refusal: "Change the prompt, or let another provider answer.",
  truncated: "Allow a longer answer (maxTokens), or ask for less.",
  unparseable: "Ask again and say what was wrong.",
  "schema mismatch": "Ask again and say what was wrong.",
  ambiguous: "Ask for one value only, or take the latest.",
  "too large": "Ask for less, or raise the limits.",
}

/** The provider answered with something that is not an answer (protocol), or not the answer asked for (content). */
export class InvalidResponse extends Schema.TaggedError<InvalidResponse, Evidence>()("InvalidResponse", {
  ...common("InvalidResponse"),
  /** `protocol`: not an answer of the API at all. `content`: an answer, but not in the form asked for. */
  kind: Schema.Literals(["protocol", "content"]).pipe(
    Schema.withConstructorDefault(Effect.succeed<"protocol" | "content">("protocol")),
  ),
  /** Why the last answer was not what was asked for, where that is known. */
  reason: Schema.optionalKey(RejectionReason),
  /** All answers that were not what was asked for, in order. */
  rejections: Schema.optionalKey(Schema.Array(Rejection)),
  /** What all those answers cost, in tokens. */
  usage: Schema.optionalKey(Schema.Struct({ inputTokens: Schema.Int, outputTokens: Schema.Int })),
}) {
  override get message(): string {
    if (this.kind === "protocol") {
      return `${who(this)} sent something that is not an answer of its API${http(this)}.${more(this)} Ask again, or let another provider answer.`
    }
    const { reason, rejections } = this
    const why = reason === undefined ? "" : ` ${rejectionWords[reason]}`
    const asked = rejections === undefined || rejections.length < 2 ? "" : ` It was asked ${rejections.length} times.`
    const remedy = reason === undefined ? "Ask again and say what was wrong." : rejectionRemedy[reason]
    return `${who(this)} answered, but not in the form asked for.${why}${asked}${more(this)} ${remedy}`
  }
}

/** What kind of content a policy objects to. What is none of these is not told. */
export const FilterCategory = Schema.Literals([
  "hate",
  "harassment",
  "sexual",
  "violence",
  "self-harm",
  "dangerous",
  "profanity",
  "jailbreak",
  "indirect attack",
  "protected material",
  "personal information",
  "blocklist",
])

/** What kind of content a policy objects to. */
export type FilterCategory = typeof FilterCategory.Type

/** The provider refused the prompt or the answer by its content policy. Strategy: modify the prompt. */
export class ContentFiltered extends Schema.TaggedError<ContentFiltered, Evidence>()("ContentFiltered", {
  ...common("ContentFiltered"),
  /** What was refused, where that is known. */
  stage: Schema.optionalKey(Schema.Literals(["prompt", "answer"])),
  /** What its policy objects to, as far as it says so. */
  categories: Schema.optionalKey(Schema.Array(FilterCategory)),
  /**
   * Where it stands, if the provider names the place: the message, counted from 0 as OpenAI's chat protocol counts (a
   * system message is one, and so is each result of a tool), and the part of its content.
   */
  named: Schema.optionalKey(Schema.Struct({ message: Schema.Int, part: Schema.optionalKey(Schema.Int) })),
  /** The failures of the attempts before, in order. */
  failures,
}) {
  override get message(): string {
    const what = this.stage === undefined ? "the request" : `the ${this.stage}`
    return `${who(this)} refused ${what} by its content policy${http(this)}.${more(this)} Change the prompt; the same prompt will be refused again.`
  }
}

/** The prompt, with the answer asked for, does not fit into the model's context window. Strategy: truncate. */
export class ContextLengthExceeded extends Schema.TaggedError<ContextLengthExceeded, Evidence>()(
  "ContextLengthExceeded",
  {
    ...common("ContextLengthExceeded"),
    /** The window that the provider states, in tokens. */
    limit: Schema.optionalKey(Schema.Int),
    /** What the request needs, as the provider states it, in tokens. */
    requested: Schema.optionalKey(Schema.Int),
    /** The failures of the attempts before, in order. */
    failures,
  },
) {
  override get message(): string {
    const need = this.requested === undefined ? "" : ` It needs ${this.requested} tokens.`
    const limit = this.limit === undefined ? "" : ` The limit is ${this.limit} tokens.`
    return `The request is too long for ${who(this)}.${need}${limit}${more(this)} Shorten the prompt, or use a model with a larger window.`
  }
}

/** The key or token was not accepted. Strategy: failover, and alert a person. */
export class AuthenticationFailed extends Schema.TaggedError<AuthenticationFailed, Evidence>()("AuthenticationFailed", {
  ...common("AuthenticationFailed"),
  /** Whose credential it was: the operator's from the configuration, or one that came with the call. */
  credential: Schema.Literals(["operator", "call"]).pipe(
    Schema.withConstructorDefault(Effect.succeed<"operator" | "call">("operator")),
  ),
}) {
  override get message(): string {
    const whose = this.credential === "call" ? "the key that came with the call" : "the configured key"
    return `${who(this)} did not accept ${whose}${http(this)}.${more(this)} Check that it is set, current and meant for this provider.`
  }
}

/** The key is good, but not for this. Strategy: failover. */
export class PermissionDenied extends Schema.TaggedError<PermissionDenied, Evidence>()("PermissionDenied", {
  ...common("PermissionDenied"),
  /** Whose credential it was. */
  credential: Schema.Literals(["operator", "call"]).pipe(
    Schema.withConstructorDefault(Effect.succeed<"operator" | "call">("operator")),
  ),
}) {
  override get message(): string {
    return `${who(this)} does not permit this${http(this)}.${more(this)} Check the account's access, region and organisation.`
  }
}

/** The model or its endpoint does not exist there. Strategy: failover, and alert a person. */
export class ModelNotFound extends Schema.TaggedError<ModelNotFound, Evidence>()(
  "ModelNotFound",
  common("ModelNotFound"),
) {
  override get message(): string {
    return `${who(this)} does not have this model or address${http(this)}.${more(this)} Check the model's name and the base URL.`
  }
}

/** The request itself is wrong. Strategy: another dialect may accept it; then tell the caller. */
export class InvalidRequest extends Schema.TaggedError<InvalidRequest, Evidence>()("InvalidRequest", {
  ...common("InvalidRequest"),
  /** The failures of the attempts before, in order. */
  failures,
}) {
  override get message(): string {
    return `${who(this)} says that the request is wrong${http(this)}.${more(this)} Correct the request; it will fail again as it is.`
  }
}

/** A failure that fits no other tag. Strategy: failover. */
export class UnknownFailure extends Schema.TaggedError<UnknownFailure, Evidence>()(
  "UnknownFailure",
  common("UnknownFailure"),
) {
  override get message(): string {
    return `${who(this)} failed in a way that is not known${http(this)}.${more(this)} Look at providerMessage and cause, both redacted, for what it said.`
  }
}

/** What of a stream had reached the caller when it broke. */
export const Delivered = Schema.Struct({
  /** How many parts. */
  parts: Schema.Int,
  /** How many characters of text. */
  characters: Schema.Int,
  /** Where it broke. */
  inside: Schema.Literals(["nothing", "text", "reasoning", "tool call"]),
  /** How many tokens that were, estimated from what came: the provider tells them at the end, which was not reached. */
  estimatedTokens: Schema.optionalKey(Schema.Int),
})

/** What of a stream had reached the caller when it broke. */
export interface Delivered extends Schema.Schema.Type<typeof Delivered> {}

/** What a broken stream carries besides: the beginning of an answer, which prints as `<redacted>`. */
export interface Interrupted extends Evidence {
  /** The text that had come, at most 256 KiB of it. The model's, and so untrusted; never part of the schema, nor of JSON. */
  readonly text?: Redacted.Redacted<string>
}

/** A stream ended before its end. After the commit point it is the only failure there is. */
export class StreamInterrupted extends Schema.TaggedError<StreamInterrupted, Interrupted>()("StreamInterrupted", {
  ...common("StreamInterrupted"),
  /** Had the caller received content? Then nothing can be asked again without repeating it. */
  committed: Schema.Boolean,
  /** What interrupted it, where that is known. A clean end without an end marker has none. */
  failure: Schema.optionalKey(Schema.suspend((): Schema.Codec<LlmError, unknown> => LlmError)),
  /** What the caller had received. */
  delivered: Schema.optionalKey(Delivered),
}) {
  override get message(): string {
    const why = this.failure === undefined ? "It ended without its end marker." : this.failure.message
    const had =
      this.delivered === undefined || this.delivered.parts === 0
        ? ""
        : ` ${this.delivered.characters} characters had arrived.`
    const next = this.committed
      ? "What arrived is not a whole answer: ask again from the start if it must be."
      : "Ask again, or let another provider answer."
    return `The stream of ${who(this)} was interrupted.${had} ${why}${more(this)} ${next}`
  }
}

/** The circuit of this provider is open: it was not asked. Strategy: failover. */
export class CircuitOpen extends Schema.TaggedError<CircuitOpen, Evidence>()("CircuitOpen", {
  ...common("CircuitOpen"),
  /** `open`: until `retryAfter` is over. `half-open`: all probes are under way. `isolated`: by hand, until it is released. */
  state: Schema.Literals(["open", "half-open", "isolated"]).pipe(
    Schema.withConstructorDefault(Effect.succeed<"open" | "half-open" | "isolated">("open")),
  ),
}) {
  override get message(): string {
    const when = this.retryAfter === undefined ? "" : ` It may be asked again in ${spoken(this.retryAfter)}.`
    return `${who(this)} was not asked: its circuit is ${this.state === "isolated" ? "isolated by hand" : `${this.state} after recent failures`}.${when}${more(this)} Let another provider answer.`
  }
}

/** One of our own limits is reached: it was not asked. Strategy: wait, then failover. */
export class CapacityExceeded extends Schema.TaggedError<CapacityExceeded, Evidence>()(
  "CapacityExceeded",
  common("CapacityExceeded"),
) {
  override get message(): string {
    const when = this.retryAfter === undefined ? "" : ` There may be room in ${spoken(this.retryAfter)}.`
    return `${who(this)} was not asked: the limit set for it is reached.${when}${more(this)} Wait, or let another provider answer.`
  }
}

/** Every candidate failed. Strategy: the degradation ladder. */
export class AllProvidersFailed extends Schema.TaggedError<AllProvidersFailed, Evidence>()("AllProvidersFailed", {
  ...common("AllProvidersFailed"),
  /** The failures of all attempts, in order. */
  failures: Schema.Array(Schema.suspend((): Schema.Codec<LlmError, unknown> => LlmError)),
}) {
  override get message(): string {
    const each = this.failures.map((f) => `${who(f)}: ${f._tag}`).join(", ")
    return this.failures.length === 0
      ? `No provider of ${this.provider} could be asked.${more(this)} Enable at least one candidate, and look at what the call pins or excludes.`
      : `No provider of ${this.provider} answered. Tried: ${each}.${wait(this)}${more(this)}`
  }
}

/**
 * Every way an LLM call fails, as one schema. Encode with
 * `Schema.toCodecJson(LlmError)`; evidence does not travel.
 */
export const LlmError = Schema.Union([
  RateLimited,
  QuotaExhausted,
  Overloaded,
  ProviderUnavailable,
  ConnectionFailed,
  TimedOut,
  DeadlineExceeded,
  StreamInterrupted,
  InvalidResponse,
  ContentFiltered,
  ContextLengthExceeded,
  AuthenticationFailed,
  PermissionDenied,
  ModelNotFound,
  InvalidRequest,
  UnknownFailure,
  CircuitOpen,
  CapacityExceeded,
  AllProvidersFailed,
])

/** Every way an LLM call fails. */
export type LlmError =
  | RateLimited
  | QuotaExhausted
  | Overloaded
  | ProviderUnavailable
  | ConnectionFailed
  | TimedOut
  | DeadlineExceeded
  | StreamInterrupted
  | InvalidResponse
  | ContentFiltered
  | ContextLengthExceeded
  | AuthenticationFailed
  | PermissionDenied
  | ModelNotFound
  | InvalidRequest
  | UnknownFailure
  | CircuitOpen
  | CapacityExceeded
  | AllProvidersFailed

/** The tag of a failure. */
export type Tag = LlmError["_tag"]

/** The failures of some tags. */
export type WithTag<T extends Tag> = Extract<LlmError, { readonly _tag: T }>

/** What an adapter can meet on the wire: the failures that come from a provider and not from a policy. */
export type ProviderFailure = Exclude<LlmError, DeadlineExceeded | CircuitOpen | CapacityExceeded | AllProvidersFailed>

/** All tags, in the order of the table. */
export const tags: ReadonlyArray<Tag> = LlmError.members.map(({ fields }) => fields._tag.schema.literal)

const prototypes = new Map<string, LlmError>(
  LlmError.members.map((member) => [member.fields._tag.schema.literal, member.prototype]),
)

/** Is this one of our failures? */
export const isLlmError = (u: unknown): u is LlmError =>
  Predicate.hasProperty(u, "_tag") && typeof u._tag === "string" && prototypes.get(u._tag)?.isPrototypeOf(u) === true

/** Is this a failure with that tag? */
export const is =
  <T extends Tag>(tag: T) =>
  (u: unknown): u is WithTag<T> =>
    isLlmError(u) && u._tag === tag

const encode = Schema.encodeUnknownSync(Schema.toCodecJson(LlmError))

for (const prototype of prototypes.values()) {
  Object.defineProperty(prototype, "toJSON", {
    value(this: LlmError) {
      return { ...(encode(this) as object), message: this.message }
    },
  })
  // A failure that leaves a handler of `effect/http` answers by the table: it is a respondable. What that takes is
  // loaded when the first one answers, so that whoever serves nothing loads no server.
  Object.defineProperty(prototype, "~effect/http/HttpServerRespondable", {
    value(this: LlmError) {
      return Effect.flatMap(
        Effect.promise(() => import("./http/respond.ts")),
        ({ respond }) => respond(this),
      )
    },
  })
}

const truncate = (text: string): string => {
  if (text.length * 3 <= maxProviderMessageBytes) return text
  const bytes = new TextEncoder().encode(text.slice(0, maxProviderMessageBytes))
  return bytes.length <= maxProviderMessageBytes && text.length <= maxProviderMessageBytes
    ? text
    : new TextDecoder().decode(bytes.subarray(0, maxProviderMessageBytes), { stream: true })
}

/** The longest `text` of a broken stream that is kept, in UTF-16 units. */
export const maxDeliveredText = 256 * 1024

/** Attaches the text that had come to a broken stream, and returns the same instance. */
export const withText = (failure: StreamInterrupted, text: string): StreamInterrupted =>
  Object.defineProperty(failure, "text", {
    value: Redacted.make(text.slice(0, maxDeliveredText), { label: "text" }),
    enumerable: false,
    configurable: true,
  })

/**
 * Attaches evidence to a failure, and returns the same instance. The message is
 * cut at 2 kB of UTF-8, both are redacted, and neither is enumerable.
 */
export const withEvidence = <E extends LlmError>(
  failure: E,
  evidence: {
    readonly providerMessage?: string | Redacted.Redacted<string> | undefined
    readonly cause?: unknown
  },
): E => {
  const { cause, providerMessage } = evidence
  if (providerMessage !== undefined && providerMessage !== "") {
    Object.defineProperty(failure, "providerMessage", {
      value: Redacted.make(
        truncate(Redacted.isRedacted(providerMessage) ? Redacted.value(providerMessage) : providerMessage),
        { label: "providerMessage" },
      ),
      enumerable: false,
      configurable: true,
    })
  }
  if (cause !== undefined) {
    Object.defineProperty(failure, "cause", {
      value: Redacted.isRedacted(cause) ? cause : Redacted.make(cause, { label: "cause" }),
      enumerable: false,
      configurable: true,
    })
  }
  return failure
}
