/**
 * From one signal of a provider to one failure.
 *
 * A signal is a response, an error inside of a stream, a finish reason, or a
 * thrown network error. What it says decides before its status does: a spent
 * budget is told as a 429, a prompt that is too long as a 400, an overload as
 * a 200. The rules are data, one table that an operator can read:
 * `internal/classifier/rules.ts`.
 *
 * **Details**
 *
 * - Pure, total and bounded: it never throws, at most 64 KiB of a body are
 *   looked at, and JSON inside of strings to a depth of three.
 * - Words are matched on the provider's error message and never on a prompt
 *   that the body echoes.
 * - The failure's `message` and its JSON hold none of the provider's text. That
 *   is in `providerMessage` and `cause`, both redacted.
 * - `retryAfter` is the `Hint`, as it was said.
 *
 * **Example** (A gateway of your own)
 *
 * ```ts
 * import { Classifier } from "@understudy/core"
 *
 * export const ours = Classifier.layer([
 *   { id: "ours/department-budget", when: { codes: ["DEPT_BUDGET"] }, tag: "QuotaExhausted" },
 *   { id: "ours/maintenance", when: { phrases: ["nightly maintenance"], statuses: [503] }, tag: "Overloaded" },
 * ])
 * ```
 *
 * **Gotchas**
 *
 * - `classify` and its companions of this module know the built-in rules only.
 *   Adapters take the classifier from `Classifier.Current`, so that `layer` is
 *   heard; do the same in an adapter of your own.
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Hint from "./Hint.ts"
import * as Answers from "./internal/classifier/answers.ts"
import * as Filtered from "./internal/classifier/filtered.ts"
import type { Rule, RuleTag, When, Where } from "./internal/classifier/rules.ts"
import * as Rules from "./internal/classifier/rules.ts"
import * as Said from "./internal/classifier/said.ts"
import * as Thrown from "./internal/classifier/thrown.ts"
import * as Tokens from "./internal/classifier/tokens.ts"
import * as LlmError from "./internal/llmError.ts"

export type {
  /** One rule: when it holds, and which failure it makes. */
  Rule,
  /** The tags that a rule can give. */
  RuleTag,
  /** When a rule holds. */
  When,
  /** Where a signal was seen. */
  Where,
}

/** Whose signal it is. */
export interface Subject {
  /** The provider's name, as the composition names it. */
  readonly provider: string
  /** The model that was asked for. */
  readonly model?: string
  /** Whose words are spoken: `openai`, `azure`, `anthropic`, `gemini` … Default: derived from `provider`. */
  readonly dialect?: string
  /** Whose key it was. Default: `operator`. */
  readonly credential?: "operator" | "call"
  /** The present, in milliseconds since 1970, for hints that name an instant when there is no `date` header. */
  readonly now?: number
}

/** Response headers; names may have any case. */
export type SignalHeaders = Readonly<Record<string, string | undefined>>

/** What was seen of a failure. */
export type Signal =
  /** A response. */
  | { readonly where: "http"; readonly status: number; readonly headers: SignalHeaders; readonly body: string }
  /**
   * An error inside of a stream that began well: the data of the event. For
   * Bedrock, `headers` are those of the frame (`:exception-type` …).
   */
  | {
      readonly where: "sse-event"
      readonly body: string
      readonly event?: string
      readonly status?: number
      readonly headers?: SignalHeaders
    }
  /** A body under a status of success that says that it failed. */
  | {
      readonly where: "finish_reason"
      readonly body: string
      readonly status?: number
      readonly headers?: SignalHeaders
    }
  /** A thrown error, with whatever it is caused by; or its rendering as JSON or text. */
  | { readonly where: "network"; readonly error: unknown }

/** A failure, and why it is that one. */
export interface Explained {
  readonly failure: LlmError.ProviderFailure
  /** The rule that held, and what it held on, in our words: `quota/code (code insufficient_quota)`. */
  readonly rule: string
  /** Where the hint was found. */
  readonly hintFrom?: string
}

/** A classifier: the rules, and what can be asked of them. */
export interface Classifier {
  /** The rules that come before the built-in ones, in order. */
  readonly rules: ReadonlyArray<Rule>
  /** The failure that a signal is. Never throws. */
  readonly classify: (signal: Signal, subject: Subject) => LlmError.ProviderFailure
  /** The same, with the rule that decided and where the hint was found. */
  readonly explain: (signal: Signal, subject: Subject) => Explained
  /**
   * Is this body under a status of success a failure in disguise: HTML, no
   * choices, an error, a refusal? `undefined` when it is an answer.
   */
  readonly inspectAnswer: (
    body: unknown,
    subject: Subject,
    headers?: SignalHeaders,
  ) => LlmError.ProviderFailure | undefined
  /**
   * The failure that a bare finish reason is; `undefined` for a normal end
   * (`stop`, `length`, `tool_calls`, `end_turn`, `max_tokens` …) and for what
   * is not known. `stage` is what a filter refused. Default: `answer`.
   */
  readonly finishReason: (
    reason: string,
    subject: Subject,
    stage?: "prompt" | "answer",
  ) => LlmError.ProviderFailure | undefined
}

// ---------------------------------------------------------------------------
// Dialects
// ---------------------------------------------------------------------------

/** Which words in a provider's name give its dialect; the first that is found wins. */
const dialectNames: ReadonlyArray<readonly [RegExp, string]> = [
  [/open-?router/, "openrouter"],
  [/lite-?llm/, "litellm"],
  [/azure|github-?models|foundry/, "azure"],
  [/bedrock|\baws\b|amazon/, "bedrock"],
  [/vertex/, "vertex"],
  [/gemini|google|ai-?studio/, "gemini"],
  [/anthropic|claude/, "anthropic"],
  [/mistral/, "mistral"],
  [/groq/, "groq"],
  [/cohere/, "cohere"],
  [/deep-?seek/, "deepseek"],
  [/x-?ai\b|grok/, "xai"],
  [/together/, "together"],
  [/fireworks/, "fireworks"],
  [/perplexity|pplx/, "perplexity"],
  [/ollama/, "ollama"],
  [/llama\.?-?cpp/, "llamacpp"],
  [/vllm/, "vllm"],
  [/\btgi\b|text-generation-inference/, "tgi"],
  [/hugging-?face|\bhf\b/, "huggingface"],
  [/open-?ai|\bgpt\b|codex/, "openai"],
]

/** The dialect that a provider's name suggests; the name itself when none does. */
export const dialectOf = (provider: string): string => {
  const name = provider.toLowerCase().slice(0, 200)
  return dialectNames.find(([pattern]) => pattern.test(name))?.[1] ?? name
}

// ---------------------------------------------------------------------------
// Rules that hold
// ---------------------------------------------------------------------------

/** What rules are asked about. */
interface Facts {
  readonly where: Where
  readonly dialect: string
  /** The status that speaks: that of the response, or the one stated inside. 0 when there is none. */
  readonly status: number
  readonly codes: ReadonlySet<string>
  readonly text: string
  readonly headers: Said.Headers
  readonly hinted: () => boolean
}

const includes = <A>(list: ReadonlyArray<A> | undefined, item: A): boolean => list === undefined || list.includes(item)

/** Why a rule holds, in words; `undefined` when it does not. */
const holds = ({ when }: Rule, facts: Facts): string | undefined => {
  if (!includes(when.where, facts.where) || !includes(when.dialects, facts.dialect)) return undefined
  if (!includes(when.statuses, facts.status) || when.notStatuses?.includes(facts.status)) return undefined
  if (when.headers?.some((name) => facts.headers[name] === undefined)) return undefined
  if (when.hinted !== undefined && when.hinted !== facts.hinted()) return undefined
  if (when.codes === undefined && when.phrases === undefined) {
    return when.statuses === undefined ? "always" : `status ${facts.status}`
  }
  const code = when.codes?.find((code) => facts.codes.has(Said.plain(code)))
  if (code !== undefined) return `code ${code}`
  const phrase = when.phrases?.find((phrase) =>
    typeof phrase === "string" ? facts.text.includes(phrase) : facts.text.search(phrase) >= 0,
  )
  return phrase === undefined
    ? undefined
    : `words ${typeof phrase === "string" ? JSON.stringify(phrase) : String(phrase)}`
}

interface Verdict {
  readonly rule: Rule
  readonly because: string
}

/** The rules of a dialect. A provider may have any name, also one that every object has. */
const rulesOf = (
  tables: Readonly<Record<string, ReadonlyArray<Rule> | undefined>>,
  dialect: string,
): ReadonlyArray<Rule> => (Object.hasOwn(tables, dialect) ? (tables[dialect] ?? []) : [])

const firstOf = (tables: ReadonlyArray<ReadonlyArray<Rule>>, facts: Facts): Verdict | undefined => {
  for (const table of tables) {
    for (const rule of table) {
      const because = holds(rule, facts)
      if (because !== undefined) return { rule, because }
    }
  }
  return undefined
}

const fallback = (id: string, tag: RuleTag, more: Partial<Rule> = {}): Verdict => ({
  rule: { id: `fallback/${id}`, when: {}, tag, ...more },
  because: "nothing that is known was said",
})

const byStatus = (status: number, facts: Facts): Verdict => {
  const known = firstOf([rulesOf(Rules.dialectStatuses, facts.dialect), Rules.statuses], facts)
  if (known !== undefined) return known
  if (status >= 500) return fallback("5xx", "ProviderUnavailable")
  if (status >= 400) return fallback("4xx", "UnknownFailure")
  if (status >= 300) return fallback("3xx", "InvalidResponse", { retryable: false, detail: "It redirects elsewhere." })
  if (status >= 200) return fallback("answer", "InvalidResponse")
  return fallback("no-status", facts.where === "network" ? "UnknownFailure" : "ProviderUnavailable")
}

/** `x-should-retry` of OpenAI and Anthropic: heard where no words decided. */
const shouldRetry = (headers: Said.Headers, verdict: Verdict): Verdict => {
  const said = headers["x-should-retry"]
  return said === "true" || said === "false"
    ? { ...verdict, rule: { ...verdict.rule, retryable: verdict.rule.retryable ?? said === "true" } }
    : verdict
}

// ---------------------------------------------------------------------------
// Failures
// ---------------------------------------------------------------------------

/** A signal that was read. */
interface Seen {
  readonly said: Said.Said
  readonly text: string
  readonly headers: Said.Headers
  readonly status: number | undefined
  /** What was thrown, or the body as it came. */
  readonly cause: unknown
}

/** The fields that every failure has. */
type Fields = Omit<ConstructorParameters<typeof LlmError.UnknownFailure>[0], "_tag">

const build: {
  readonly [T in RuleTag]: (fields: Fields, rule: Rule, seen: Seen, subject: Subject) => LlmError.WithTag<T>
} = {
  RateLimited: (fields, _, seen) =>
    new LlmError.RateLimited(Tokens.neverFits(seen.text) ? { ...fields, retryable: false } : fields),
  QuotaExhausted: (fields) => new LlmError.QuotaExhausted(fields),
  Overloaded: (fields) => new LlmError.Overloaded(fields),
  ProviderUnavailable: (fields) => new LlmError.ProviderUnavailable(fields),
  ConnectionFailed: (fields, rule) => new LlmError.ConnectionFailed({ ...fields, fault: rule.fault ?? "other" }),
  TimedOut: (fields, rule) => new LlmError.TimedOut({ ...fields, phase: rule.phase ?? "provider" }),
  InvalidResponse: (fields, rule) => new LlmError.InvalidResponse({ ...fields, kind: rule.kind ?? "protocol" }),
  ContentFiltered: (fields, rule, seen) => {
    const { categories, named } = Filtered.objectionOf(seen.said.values)
    return new LlmError.ContentFiltered({
      ...fields,
      ...(rule.stage === undefined ? {} : { stage: rule.stage }),
      ...(categories.length === 0 ? {} : { categories }),
      ...(named === undefined ? {} : { named }),
    })
  },
  ContextLengthExceeded: (fields, _, seen) =>
    new LlmError.ContextLengthExceeded({ ...fields, ...Tokens.window(seen.text, seen.said.values) }),
  AuthenticationFailed: (fields, _, __, subject) =>
    new LlmError.AuthenticationFailed({ ...fields, credential: subject.credential ?? "operator" }),
  PermissionDenied: (fields, _, __, subject) =>
    new LlmError.PermissionDenied({ ...fields, credential: subject.credential ?? "operator" }),
  ModelNotFound: (fields) => new LlmError.ModelNotFound(fields),
  InvalidRequest: (fields) => new LlmError.InvalidRequest(fields),
  UnknownFailure: (fields) => new LlmError.UnknownFailure(fields),
}

/** Tags for which the reset of an exhausted bucket is when to come back. */
const aboutLimits: ReadonlySet<RuleTag> = new Set(["RateLimited", "QuotaExhausted", "Overloaded"])

const hintOf = (seen: Seen, subject: Subject, buckets: boolean): Hint.Explained | undefined =>
  Hint.ofSaid(seen.said, seen.headers, subject.now === undefined ? { buckets } : { buckets, now: subject.now })

const conclude = ({ because, rule }: Verdict, seen: Seen, subject: Subject): Explained => {
  const hint = hintOf(seen, subject, aboutLimits.has(rule.tag))
  const fields: Fields = {
    provider: subject.provider,
    ...(subject.model === undefined ? {} : { model: subject.model }),
    ...(seen.status === undefined ? {} : { status: seen.status }),
    ...(seen.said.requestId === undefined ? {} : { requestId: seen.said.requestId }),
    ...(hint === undefined ? {} : { retryAfter: hint.after }),
    ...(rule.retryable === undefined ? {} : { retryable: rule.retryable }),
    ...(rule.detail === undefined || rule.detail === "" ? {} : { detail: rule.detail }),
  }
  const failure = LlmError.withEvidence<LlmError.ProviderFailure>(build[rule.tag](fields, rule, seen, subject), {
    providerMessage: seen.said.messages.length > 0 ? seen.said.messages.join("\n") : textual(seen.cause),
    cause: seen.cause,
  })
  return {
    failure,
    rule: because === "" ? rule.id : `${rule.id} (${because})`,
    ...(hint === undefined ? {} : { hintFrom: hint.from }),
  }
}

const textual = (cause: unknown): string | undefined => (typeof cause === "string" ? cause : undefined)

/** Is it one of ours already? */
const isProviderFailure = (u: unknown): u is LlmError.ProviderFailure => {
  try {
    return LlmError.isLlmError(u) && (u._tag === "StreamInterrupted" || Object.hasOwn(build, u._tag))
  } catch {
    return false
  }
}

// ---------------------------------------------------------------------------
// Classifiers
// ---------------------------------------------------------------------------

/**
 * A classifier with more rules in front of the built-in ones. The first rule
 * that holds wins, so one without conditions decides everything.
 */
export const make = (rules: ReadonlyArray<Rule> = []): Classifier => {
  const factsOf = (where: Where, seen: Seen, subject: Subject): Facts => {
    const outer = seen.status ?? 0
    const stated = seen.said.statuses.at(-1)
    return {
      where,
      dialect: subject.dialect ?? dialectOf(subject.provider),
      status: stated !== undefined && (outer < 300 || outer >= 500) ? stated : outer < 300 ? 0 : outer,
      codes: seen.said.codes,
      text: seen.text,
      headers: seen.headers,
      hinted: () => hintOf(seen, subject, false) !== undefined,
    }
  }

  const spoken = (facts: Facts): Verdict | undefined =>
    firstOf([rules, rulesOf(Rules.dialects, facts.dialect), Rules.said], facts)

  const look = (
    body: unknown,
    headers: SignalHeaders | undefined,
    status: number | undefined,
    more: {
      readonly codes?: ReadonlyArray<string>
      readonly messages?: ReadonlyArray<string>
      readonly cause?: unknown
    } = {},
  ): Seen => {
    const lower = Said.lowerCase(headers)
    const said = Said.read(body, lower, more)
    const cause = more.cause ?? (typeof body === "string" ? body.slice(0, Said.maxBody) : body)
    const whole = status !== undefined && Number.isInteger(status) ? status : undefined
    return { said, text: Said.textOf(said), headers: lower, status: whole, cause: cause === "" ? undefined : cause }
  }

  const ofError = (where: Where, seen: Seen, subject: Subject): Explained => {
    const facts = factsOf(where, seen, subject)
    const verdict = spoken(facts) ?? shouldRetry(seen.headers, byStatus(facts.status, facts))
    return conclude(verdict, seen, subject)
  }

  /** A body under a status of success. What it says is read only when there is something to object to. */
  const ofAnswer = (where: Where, body: unknown, see: () => Seen, subject: Subject): Explained | undefined => {
    const finding = Answers.inspect(body)
    if (finding === undefined) return undefined
    const seen = see()
    const own = firstOf([rules], factsOf(where, seen, subject))
    if (own !== undefined) return conclude(own, seen, subject)
    if ("error" in finding) {
      // The part that failed, without the answer around it.
      const part = look(finding.error, seen.headers, seen.status)
      return ofError(where, { ...part, cause: seen.cause }, subject)
    }
    return conclude({ rule: finding.rule, because: "" }, seen, subject)
  }

  const ofThrown = (error: unknown, subject: Subject): Explained => {
    if (isProviderFailure(error)) return { failure: error, rule: "already classified" }
    const thrown = Thrown.read(error)
    const cause = Redacted.make(error, { label: "cause" })
    if (thrown.http !== undefined) {
      const { body, headers, status } = thrown.http
      return ofError(
        "http",
        look(body, headers, status, { codes: thrown.codes, messages: thrown.messages, cause }),
        subject,
      )
    }
    const seen = look(undefined, undefined, undefined, { ...thrown, cause })
    const facts = factsOf("network", seen, subject)
    const verdict = firstOf([rules, Rules.network], facts) ?? spoken(facts) ?? byStatus(facts.status, facts)
    return conclude(verdict, seen, subject)
  }

  const explain = (signal: Signal, subject: Subject): Explained => {
    if (signal.where === "network") return ofThrown(signal.error, subject)
    const { status = 200, where } = signal
    const codes = signal.where === "sse-event" && signal.event !== undefined ? [signal.event] : []
    const seen = look(signal.body, signal.headers, signal.status, { codes })
    const see = (): Seen => seen
    if (where === "sse-event") {
      const verdict = spoken(factsOf(where, seen, subject))
      if (verdict !== undefined) return conclude(verdict, seen, subject)
      return (
        (seen.said.messages.length === 0 ? ofAnswer(where, signal.body, see, subject) : undefined) ??
        ofError(where, seen, subject)
      )
    }
    const found = status < 300 ? ofAnswer(where, signal.body, see, subject) : ofError(where, seen, subject)
    return found ?? conclude(fallback("answer", "InvalidResponse"), seen, subject)
  }

  return {
    rules,
    explain,
    classify: (signal, subject) => explain(signal, subject).failure,
    inspectAnswer: (body, subject, headers) =>
      ofAnswer("finish_reason", body, () => look(body, headers, undefined), subject)?.failure,
    finishReason: (reason, subject, stage = "answer") => {
      const known = Answers.ofReason(reason)
      if (known === undefined && rules.length === 0) return undefined
      const seen = look(undefined, undefined, undefined, { codes: [reason] })
      const rule = firstOf([rules], factsOf("finish_reason", seen, subject))?.rule ?? known
      if (rule === undefined) return undefined
      return conclude({ rule: rule.tag === "ContentFiltered" ? { ...rule, stage } : rule, because: "" }, seen, subject)
        .failure
    },
  }
}

const builtIn = make()

/** The failure that a signal is, by the built-in rules. Never throws. */
export const classify: Classifier["classify"] = builtIn.classify

/** The failure that a signal is, with the rule that decided and where the hint was found. */
export const explain: Classifier["explain"] = builtIn.explain

/** Is this body under a status of success a failure in disguise? `undefined` when it is an answer. */
export const inspectAnswer: Classifier["inspectAnswer"] = builtIn.inspectAnswer

/** The failure that a bare finish reason is; `undefined` for a normal end and for what is not known. */
export const finishReason: Classifier["finishReason"] = builtIn.finishReason

/** The classifier in use. Default: the built-in rules alone. Put rules in front of them with `layer`. */
export const Current = Context.Reference<Classifier>("@understudy/core/Classifier", { defaultValue: () => builtIn })

/** A layer with more rules in front of the built-in ones. */
export const layer = (rules: ReadonlyArray<Rule>): Layer.Layer<never> => Layer.succeed(Current)(make(rules))

/** The built-in rules, in the order in which they are tried, for people and tools. */
export const builtInRules: ReadonlyArray<Rule> = [
  ...Object.entries(Rules.dialects).flatMap(([dialect, rules]) =>
    rules.map((rule): Rule => ({ ...rule, when: { ...rule.when, dialects: [dialect] } })),
  ),
  ...Rules.said,
  ...Object.entries(Rules.dialectStatuses).flatMap(([dialect, rules]) =>
    rules.map((rule): Rule => ({ ...rule, when: { ...rule.when, dialects: [dialect] } })),
  ),
  ...Rules.statuses,
  ...Rules.network.map((rule): Rule => ({ ...rule, when: { ...rule.when, where: ["network"] } })),
  ...Answers.finishRules,
]
