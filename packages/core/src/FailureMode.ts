/**
 * The one table: how each failure is treated.
 *
 * A row for each tag of `LlmError`, a cell for each question that a policy or
 * an HTTP response asks. A cell is a value, or a total function of the failure.
 * The table is exhaustive by type, and nothing else in the library switches on
 * tags to choose a strategy. The tag sets in the signatures of policies (what
 * `Retry` accepts, what leaves a `Failover` as itself) are computed from the
 * table's literal type, so they cannot disagree with it.
 *
 * **Details**
 *
 * | cell | question |
 * |---|---|
 * | `retryable` | would the same request have a chance later? What clients are told |
 * | `sameAgain` | should this call ask this provider again now? |
 * | `next` | is another candidate worth a try? |
 * | `leaves` | does it leave a failover as itself, or inside `AllProvidersFailed`? |
 * | `health` | what does the circuit breaker learn? |
 * | `ladder` | does a degradation ladder catch it? |
 * | `http` | the status of an HTTP response |
 *
 * **Example** (A service whose users never bring their own key)
 *
 * ```ts
 * import { FailureMode } from "@understudy/core"
 *
 * // 401, 403 and 404 about the operator's own key or model become 500.
 * export const modes = FailureMode.layer(FailureMode.operatorOwned)
 * ```
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import type { LlmError, Tag, WithTag } from "./internal/llmError.ts"
import { tags } from "./internal/llmError.ts"

/** A value, or a total function of the failure and of the table in use. */
export type Cell<A, E> = A | ((failure: E, table: Table) => A)

/**
 * Should this call ask this provider again now?
 *
 * - `no`, `yes`
 * - `once`: one extra attempt
 * - `alone`: only while no other candidate is ready
 *
 * Every wait between is bounded by the patience while another candidate is
 * ready, and by the deadline always.
 */
export type SameAgain = "no" | "yes" | "once" | "alone"

/**
 * Is another candidate worth a try?
 *
 * - `no`, `yes`
 * - `larger window`: one whose context window is larger
 * - `if allowed`: when the caller allows it
 */
export type Next = "no" | "yes" | "larger window" | "if allowed"

/**
 * What a circuit breaker learns.
 *
 * - `failure`: counts
 * - `opens`: counts, and opens the circuit at once
 * - `ignored`: says nothing about the provider's health
 */
export type Health = "failure" | "opens" | "ignored"

/** One row: how one tag is treated. */
export interface Row<E> {
  /** The strategy in words, for people. */
  readonly strategy: string
  readonly retryable: Cell<boolean, E>
  readonly sameAgain: Cell<SameAgain, E>
  readonly next: Cell<Next, E>
  readonly leaves: "itself" | "inside"
  readonly health: Cell<Health, E>
  readonly ladder: boolean
  readonly http: Cell<number, E>
}

/** A whole table: a row for each tag. */
export type Table = { readonly [T in Tag]: Row<WithTag<T>> }

const asRetryable = (f: LlmError): SameAgain => (f.retryable ? "yes" : "no")
const said = (f: LlmError): boolean => f.retryable
const byCredential = (f: { readonly credential: "operator" | "call" }): Health =>
  f.credential === "call" ? "ignored" : "opens"

/** The table. */
export const table = {
  RateLimited: {
    strategy: "exponential backoff, at least the hint",
    retryable: said,
    sameAgain: asRetryable,
    next: "yes",
    leaves: "inside",
    health: "failure",
    ladder: true,
    http: 429,
  },
  QuotaExhausted: {
    strategy: "failover, alert",
    retryable: said,
    sameAgain: "no",
    next: "yes",
    leaves: "inside",
    health: "opens",
    ladder: true,
    http: 503,
  },
  Overloaded: {
    strategy: "backoff, then failover",
    retryable: said,
    sameAgain: asRetryable,
    next: "yes",
    leaves: "inside",
    health: "failure",
    ladder: true,
    http: 503,
  },
  ProviderUnavailable: {
    strategy: "failover",
    retryable: said,
    sameAgain: (f: LlmError): SameAgain => (f.retryable ? "once" : "no"),
    next: "yes",
    leaves: "inside",
    health: "failure",
    ladder: true,
    http: 503,
  },
  ConnectionFailed: {
    strategy: "retry, then failover",
    retryable: said,
    sameAgain: asRetryable,
    next: "yes",
    leaves: "inside",
    health: "failure",
    ladder: true,
    http: 503,
  },
  TimedOut: {
    strategy: "timeout, then retry",
    retryable: said,
    sameAgain: "alone",
    next: "yes",
    leaves: "inside",
    // An attempt that was cut short for the sake of the next candidate says little about the provider.
    health: (f: WithTag<"TimedOut">): Health => ((f.attemptShare ?? 1) >= 0.5 ? "failure" : "ignored"),
    ladder: true,
    http: 504,
  },
  DeadlineExceeded: {
    strategy: "tell the caller in time",
    retryable: said,
    sameAgain: "no",
    next: "no",
    leaves: "itself",
    health: (f: WithTag<"DeadlineExceeded">): Health => ((f.attemptShare ?? 0) >= 0.5 ? "failure" : "ignored"),
    ladder: true,
    http: 504,
  },
  StreamInterrupted: {
    strategy: "before content: retry, failover; after: the truth",
    retryable: said,
    sameAgain: (f: WithTag<"StreamInterrupted">): SameAgain => (f.committed ? "no" : asRetryable(f)),
    next: (f: WithTag<"StreamInterrupted">): Next => (f.committed ? "no" : "yes"),
    leaves: "inside",
    health: (f: WithTag<"StreamInterrupted">, modes: Table): Health =>
      f.failure === undefined ? "failure" : health(f.failure, modes),
    ladder: true,
    http: 502,
  },
  InvalidResponse: {
    strategy: "protocol: retry; content: re-prompt with the error",
    retryable: said,
    sameAgain: (f: WithTag<"InvalidResponse">): SameAgain => (f.kind === "protocol" && f.retryable ? "yes" : "no"),
    next: "yes",
    leaves: "inside",
    health: (f: WithTag<"InvalidResponse">): Health => (f.kind === "protocol" ? "failure" : "ignored"),
    ladder: true,
    http: 502,
  },
  ContentFiltered: {
    strategy: "modify the prompt",
    retryable: said,
    sameAgain: "no",
    next: "if allowed",
    leaves: "itself",
    health: "ignored",
    ladder: true,
    http: 422,
  },
  ContextLengthExceeded: {
    strategy: "truncate",
    retryable: said,
    sameAgain: "no",
    next: "larger window",
    leaves: "itself",
    health: "ignored",
    ladder: true,
    http: 413,
  },
  AuthenticationFailed: {
    strategy: "failover, alert",
    retryable: said,
    sameAgain: "no",
    next: "yes",
    leaves: "inside",
    health: byCredential,
    ladder: true,
    http: 401,
  },
  PermissionDenied: {
    strategy: "failover",
    retryable: said,
    sameAgain: "no",
    next: "yes",
    leaves: "inside",
    health: (f: WithTag<"PermissionDenied">): Health => (f.credential === "call" ? "ignored" : "failure"),
    ladder: true,
    http: 403,
  },
  ModelNotFound: {
    strategy: "failover, alert",
    retryable: said,
    sameAgain: "no",
    next: "yes",
    leaves: "inside",
    health: "opens",
    ladder: true,
    http: 404,
  },
  InvalidRequest: {
    strategy: "another dialect may accept it; then tell the caller",
    retryable: said,
    sameAgain: "no",
    next: "yes",
    leaves: "itself",
    health: "ignored",
    ladder: false,
    http: 400,
  },
  UnknownFailure: {
    strategy: "failover",
    retryable: said,
    sameAgain: "no",
    next: "yes",
    leaves: "inside",
    health: "failure",
    ladder: true,
    http: 500,
  },
  CircuitOpen: {
    strategy: "failover",
    retryable: said,
    sameAgain: "no",
    next: "yes",
    leaves: "inside",
    health: "ignored",
    ladder: true,
    http: 503,
  },
  CapacityExceeded: {
    strategy: "wait, then failover",
    retryable: said,
    sameAgain: asRetryable,
    next: "yes",
    leaves: "inside",
    health: "ignored",
    ladder: true,
    http: 503,
  },
  AllProvidersFailed: {
    strategy: "the ladder",
    retryable: said,
    sameAgain: "no",
    next: "yes",
    leaves: "inside",
    health: "ignored",
    ladder: true,
    http: (f: WithTag<"AllProvidersFailed">, modes: Table): number => sharedStatus(f.failures, modes),
  },
} as const satisfies Table

type Literal = typeof table

/** The cell's values for a row; a function counts as every value it can return. */
type Values<C> = C extends (failure: never, table: Table) => infer A ? A : C

/** Tags that `Retry` may ask the same provider again for. */
export type RetryableTag = {
  [T in Tag]: Exclude<Values<Literal[T]["sameAgain"]>, "no"> extends never ? never : T
}[Tag]

/** Tags that leave a `Failover` as themselves and not inside `AllProvidersFailed`. */
export type FinalTag = { [T in Tag]: Literal[T]["leaves"] extends "itself" ? T : never }[Tag]

/** Tags that a degradation ladder catches by default. */
export type LadderTag = { [T in Tag]: Literal[T]["ladder"] extends true ? T : never }[Tag]

/** `RetryableTag` as values, in the order of the table. */
export const retryableTags: ReadonlyArray<RetryableTag> = tags.filter(
  (tag): tag is RetryableTag => table[tag].sameAgain !== "no",
)

/** The cells that can be overridden. Those that decide error types cannot: a type would become untrue. */
export type Override<E> = Partial<Pick<Row<E>, "retryable" | "sameAgain" | "next" | "health" | "http">>

/** Cells to use instead of the table's. */
export type Overrides = { readonly [T in Tag]?: Override<WithTag<T>> }

/** The table in use. Override cells with `layer`. */
export const FailureModes = Context.Reference<Table>("@understudy/core/FailureMode", { defaultValue: () => table })

/** The table with some cells replaced. */
export const override = (overrides: Overrides, self: Table = table): Table => {
  const merged: Record<string, unknown> = { ...self }
  for (const tag of tags) {
    const cells = overrides[tag]
    if (cells !== undefined) merged[tag] = { ...self[tag], ...cells }
  }
  return merged as unknown as Table
}

/** A layer with some cells replaced. */
export const layer = (overrides: Overrides): Layer.Layer<never> => Layer.succeed(FailureModes)(override(overrides))

const ownedBy = (f: { readonly credential: "operator" | "call" }, status: number): number =>
  f.credential === "operator" ? 500 : status

/**
 * Overrides for services whose users do not bring a key: 401, 403 and 404 that
 * are about the operator's own key or model become 500, so that no user is
 * logged out by them.
 */
export const operatorOwned: Overrides = {
  AuthenticationFailed: { http: (f) => ownedBy(f, 401) },
  PermissionDenied: { http: (f) => ownedBy(f, 403) },
  ModelNotFound: { http: 500 },
}

const value = <A, E extends LlmError>(cell: Cell<A, E>, failure: E, self: Table): A =>
  typeof cell === "function" ? (cell as (failure: E, table: Table) => A)(failure, self) : cell

/** The row of a failure. */
export const row = (failure: LlmError, self: Table = table): Row<LlmError> => self[failure._tag] as Row<LlmError>

/** Would the same request have a chance later? */
export const retryable = (failure: LlmError, self: Table = table): boolean =>
  value(row(failure, self).retryable, failure, self)

/** Should this call ask this provider again now? */
export const sameAgain = (failure: LlmError, self: Table = table): SameAgain =>
  value(row(failure, self).sameAgain, failure, self)

/** Is another candidate worth a try? */
export const next = (failure: LlmError, self: Table = table): Next => value(row(failure, self).next, failure, self)

/** Does it leave a failover as itself? */
export const isFinal = (failure: LlmError): failure is WithTag<FinalTag> => table[failure._tag].leaves === "itself"

/** What a circuit breaker learns. */
export const health = (failure: LlmError, self: Table = table): Health =>
  value(row(failure, self).health, failure, self)

/** The status of an HTTP response. */
export const httpStatus = (failure: LlmError, self: Table = table): number =>
  value(row(failure, self).http, failure, self)

const sharedStatus = (failures: ReadonlyArray<LlmError>, modes: Table): number => {
  const [first] = failures
  if (first === undefined || failures.some((f) => f._tag !== first._tag)) return 503
  const statuses = new Set(failures.map((f) => httpStatus(f, modes)))
  return statuses.size === 1 ? httpStatus(first, modes) : 503
}
