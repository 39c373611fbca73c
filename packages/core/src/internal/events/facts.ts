/**
 * What observers may tell of an event: for each kind how loud it is and whom it
 * is about, and for each field under which name it is told, or that it is not.
 *
 * Both tables are exhaustive by type: an event or a field without a row does
 * not compile, so what is told has been decided for each of them.
 */
import type { PolicyEvent } from "../../PolicyEvent.ts"
import { oneLine } from "./line.ts"
import type { Tokens } from "./told.ts"

/** The names of all events. */
export type Name = PolicyEvent["event"]

/** The event of a name. */
export type Of<N extends Name> = Extract<PolicyEvent, { readonly event: N }>

/** How loud an event is in a log. */
export type Level = "Error" | "Warn" | "Info" | "Debug" | "Trace"

interface Kind {
  readonly level: Level
  /** Whom its `provider` names: someone who is asked, or the composition. */
  readonly who: "candidate" | "composition"
}

/** What is known of each kind of event. */
export const kinds: { readonly [N in Name]: Kind } = {
  CallStarted: { level: "Debug", who: "composition" },
  AttemptStarted: { level: "Debug", who: "candidate" },
  AttemptFailed: { level: "Warn", who: "candidate" },
  AttemptSucceeded: { level: "Debug", who: "candidate" },
  AttemptInterrupted: { level: "Debug", who: "candidate" },
  Committed: { level: "Debug", who: "candidate" },
  BackedOff: { level: "Info", who: "candidate" },
  Queued: { level: "Debug", who: "candidate" },
  CapacityRejected: { level: "Warn", who: "candidate" },
  BudgetRefused: { level: "Warn", who: "candidate" },
  HedgeLaunched: { level: "Info", who: "candidate" },
  HedgeWon: { level: "Info", who: "candidate" },
  HedgeLost: { level: "Debug", who: "candidate" },
  CircuitOpened: { level: "Error", who: "candidate" },
  CircuitHalfOpened: { level: "Info", who: "candidate" },
  CircuitClosed: { level: "Info", who: "candidate" },
  CircuitRejected: { level: "Debug", who: "candidate" },
  FloorProbed: { level: "Info", who: "candidate" },
  CircuitSet: { level: "Warn", who: "candidate" },
  FailedOver: { level: "Warn", who: "candidate" },
  PassedOver: { level: "Debug", who: "candidate" },
  CandidateChanged: { level: "Warn", who: "candidate" },
  ConfigApplied: { level: "Info", who: "composition" },
  ConfigRejected: { level: "Error", who: "composition" },
  AnswerRejected: { level: "Warn", who: "candidate" },
  AnswerRepaired: { level: "Info", who: "candidate" },
  AnswerDoubted: { level: "Warn", who: "candidate" },
  PromptChanged: { level: "Info", who: "candidate" },
  Degraded: { level: "Warn", who: "composition" },
  CacheRead: { level: "Debug", who: "composition" },
  CacheWritten: { level: "Debug", who: "composition" },
  CacheUnavailable: { level: "Warn", who: "composition" },
  Answered: { level: "Info", who: "candidate" },
  CallFailed: { level: "Error", who: "composition" },
  CallInterrupted: { level: "Info", who: "composition" },
}

type FieldsOf<E> = E extends PolicyEvent ? keyof E : never
/** The fields of all events. */
export type Field = FieldsOf<PolicyEvent>

/** Attributes, as logs and spans take them. */
export type Attributes = Readonly<Record<string, string | number | boolean | ReadonlyArray<string>>>

/** Under which name a field is told. `undefined`: not at all, or by those who know more of it. */
export const names: { readonly [F in Field]: string | undefined } = {
  event: "understudy.event",
  // Logs and spans have a time of their own.
  at: undefined,
  call: "understudy.call.id",
  // It depends on the event.
  provider: undefined,
  model: "gen_ai.request.model",
  composition: "understudy.composition",
  attempt: "understudy.attempt",
  face: "gen_ai.operation.name",
  streaming: "gen_ai.request.stream",
  limitMs: "understudy.limit_ms",
  limitBy: "understudy.limit_by",
  leftMs: "understudy.left_ms",
  alternatives: "understudy.alternatives",
  elapsedMs: "understudy.elapsed_ms",
  // More than one attribute.
  usage: undefined,
  responseModel: "gen_ai.response.model",
  finish: "gen_ai.response.finish_reasons",
  failure: "error.type",
  phase: "understudy.timeout.phase",
  status: "http.response.status_code",
  retryAfterMs: "understudy.retry_after_ms",
  sameAgain: "understudy.failure.same_again",
  next: "understudy.failure.next",
  health: "understudy.failure.health",
  delayMs: "understudy.delay_ms",
  limit: "understudy.limit",
  ahead: "understudy.queue.ahead",
  extra: "understudy.extra",
  hedge: "understudy.hedge",
  circuit: "understudy.circuit.key",
  shadow: "understudy.circuit.shadow",
  to: "understudy.to",
  reason: "understudy.reason",
  tokens: "understudy.tokens",
  contextWindow: "understudy.context_window",
  by: "understudy.by",
  settings: "understudy.settings",
  file: "understudy.file",
  added: "understudy.candidates.added",
  removed: "understudy.candidates.removed",
  problem: "understudy.problem",
  issues: "understudy.issues",
  again: "understudy.again",
  repairs: "understudy.repairs",
  check: "understudy.check",
  step: "understudy.step",
  source: "understudy.source",
  found: "understudy.cache.found",
  ageMs: "understudy.cache.age_ms",
  operation: "understudy.cache.operation",
  why: "understudy.cache.why",
  // The answer is the model's, and the user's.
  text: undefined,
  attempts: "understudy.attempts",
}

const operations: Readonly<Record<string, string>> = { "language model": "chat", "embedding model": "embeddings" }

/** What is done, in OpenTelemetry's words where it has them. */
export const operationOf = (face: string | undefined): string =>
  face === undefined ? "chat" : Object.hasOwn(operations, face) ? operations[face]! : oneLine(face)

const tokenNames: { readonly [T in keyof Tokens]-?: string } = {
  inputTokens: "gen_ai.usage.input_tokens",
  outputTokens: "gen_ai.usage.output_tokens",
  cacheReadTokens: "gen_ai.usage.cache_read.input_tokens",
  cacheWriteTokens: "gen_ai.usage.cache_creation.input_tokens",
  reasoningTokens: "gen_ai.usage.reasoning.output_tokens",
}

/** Tokens as attributes. */
export const tokenAttributes = (usage: Tokens | undefined): Attributes =>
  usage === undefined
    ? {}
    : Object.fromEntries(
        Object.entries(tokenNames).flatMap(([field, name]) => {
          const n = usage[field as keyof Tokens]
          return n === undefined ? [] : [[name, n] as const]
        }),
      )

/** Whom an event is about. */
export const whoOf = (event: PolicyEvent): string =>
  Object.hasOwn(kinds, event.event) && kinds[event.event].who === "composition"
    ? "understudy.composition"
    : "gen_ai.provider.name"

/** How loud an event is. One that is not known is not loud. */
export const levelOf = (event: PolicyEvent): Level =>
  Object.hasOwn(kinds, event.event) ? kinds[event.event].level : "Debug"

const told = (field: string, value: unknown): Attributes[string] | undefined => {
  switch (typeof value) {
    case "string":
      return field === "face" ? operationOf(value) : field === "finish" ? [oneLine(value)] : oneLine(value)
    case "number":
      // JSON knows no negative zero.
      return Number.isFinite(value) ? value || 0 : undefined
    case "boolean":
      return value
    default:
      return undefined
  }
}

/** All that may be told of an event, as attributes: what the table does not name is left out. */
export const attributesOf = (event: PolicyEvent): Attributes => {
  const out: Record<string, Attributes[string]> = {}
  for (const [field, value] of Object.entries(event)) {
    const name = field === "provider" ? whoOf(event) : Object.hasOwn(names, field) ? names[field as Field] : undefined
    const attribute = name === undefined ? undefined : told(field, value)
    if (name !== undefined && attribute !== undefined) out[name] = attribute
  }
  return "usage" in event ? { ...out, ...tokenAttributes(event.usage) } : out
}

/** Does a call end with this event? */
export const isEnd = (event: PolicyEvent): event is Of<"Answered" | "CallFailed" | "CallInterrupted"> =>
  event.event === "Answered" || event.event === "CallFailed" || event.event === "CallInterrupted"
