/**
 * What the clients of a service read of a failure: a type, a title and a
 * message in our own words, for people who know nothing of providers.
 */
import * as FailureMode from "../../FailureMode.ts"
import type { LlmError, Tag, WithTag } from "../llmError.ts"

/** The `type` of each failure. */
export const types = {
  RateLimited: "rate_limit",
  QuotaExhausted: "quota_exhausted",
  Overloaded: "overloaded",
  ProviderUnavailable: "provider_error",
  ConnectionFailed: "connection_failed",
  TimedOut: "timeout",
  DeadlineExceeded: "deadline_exceeded",
  StreamInterrupted: "stream_interrupted",
  InvalidResponse: "invalid_response",
  ContentFiltered: "content_filtered",
  ContextLengthExceeded: "context_length",
  AuthenticationFailed: "authentication",
  PermissionDenied: "permission_denied",
  ModelNotFound: "model_not_found",
  InvalidRequest: "invalid_request",
  UnknownFailure: "unknown",
  CircuitOpen: "circuit_open",
  CapacityExceeded: "capacity_exceeded",
  AllProvidersFailed: "all_providers_failed",
} as const satisfies Record<Tag, string>

/** The `type` of a failure, as clients read it. */
export type ErrorType = (typeof types)[Tag]

/** What a type is called: the same words each time, as RFC 9457 wants a title. */
export const titles: Record<ErrorType, string> = {
  rate_limit: "Too many requests",
  quota_exhausted: "Quota exhausted",
  overloaded: "Too busy",
  provider_error: "Not available",
  connection_failed: "Not available",
  timeout: "Took too long",
  deadline_exceeded: "Took too long",
  stream_interrupted: "Answer interrupted",
  invalid_response: "No usable answer",
  content_filtered: "Refused by a content policy",
  context_length: "Request too long",
  authentication: "Not authenticated",
  permission_denied: "Not permitted",
  model_not_found: "Model not found",
  invalid_request: "Invalid request",
  unknown: "Something went wrong",
  circuit_open: "Not available",
  capacity_exceeded: "Too busy",
  all_providers_failed: "Not available",
}

const unavailable = (_: LlmError, retryable: boolean): string =>
  retryable
    ? "The service is not available at the moment. Please try again later."
    : "The service cannot answer at the moment."
const busy = (_: LlmError, retryable: boolean): string =>
  retryable ? "The service is busy. Please try again in a moment." : "The request is more than the service can take."
const slow = (): string => "The answer took too long. Please try again."
const byCredential =
  (call: string) =>
  ({ credential }: { readonly credential: "operator" | "call" }): string =>
    credential === "call" ? call : "The service is not set up for this. Please contact its operator."

/** What is said when nothing can be said. */
export const unknownMessage = "Something went wrong. The operator of the service can see what."

/** The words for each failure, given whether the same request has a chance later. */
const messages: { readonly [T in Tag]: (failure: WithTag<T>, retryable: boolean) => string } = {
  RateLimited: (_, retryable) =>
    retryable
      ? "Too many requests at the moment. Please try again later."
      : "The request is larger than what is allowed at a time. Please shorten it.",
  QuotaExhausted: unavailable,
  Overloaded: busy,
  ProviderUnavailable: unavailable,
  ConnectionFailed: unavailable,
  TimedOut: slow,
  DeadlineExceeded: slow,
  StreamInterrupted: () => "The answer was interrupted before its end. Please ask again.",
  InvalidResponse: () => "The answer was not usable. Please ask again, or differently.",
  ContentFiltered: ({ stage }) =>
    stage === "answer"
      ? "The answer was withheld by a content policy. Please change the request."
      : "The request was refused by a content policy. Please change it.",
  ContextLengthExceeded: () => "The request is too long. Please shorten it.",
  AuthenticationFailed: byCredential("The key that came with the request was not accepted. Please check it."),
  PermissionDenied: byCredential("The key that came with the request does not permit this."),
  ModelNotFound: () => "The model that was asked for is not available.",
  InvalidRequest: () => "The request is not valid. Please correct it.",
  UnknownFailure: () => unknownMessage,
  CircuitOpen: unavailable,
  CapacityExceeded: busy,
  AllProvidersFailed: unavailable,
}

/** What is said of a failure to the users of a service. */
export const messageOf = <T extends Tag>(failure: WithTag<T>, retryable: boolean): string => {
  const words: (failure: WithTag<T>, retryable: boolean) => string = messages[failure._tag]
  return words(failure, retryable)
}

/** A value, or another where it throws: an answer must be given whatever the operator's own functions do. */
export const orElse = <A>(cell: () => A, instead: () => A): A => {
  try {
    return cell()
  } catch {
    return instead()
  }
}

/** The status of a failure by this table: from 400 to 599, and 500 where a cell says no such thing. */
export const statusOf = (failure: LlmError, modes: FailureMode.Table): number => {
  const status = orElse(
    () => FailureMode.httpStatus(failure, modes),
    () => 500,
  )
  return Number.isInteger(status) && status >= 400 && status <= 599 ? status : 500
}

/** Would the same request have a chance later, by this table? */
export const retryableOf = (failure: LlmError, modes: FailureMode.Table): boolean =>
  orElse(
    () => FailureMode.retryable(failure, modes) === true,
    () => failure.retryable === true,
  )

/**
 * The failure that speaks: when all attempts failed alike, that is what happened, as it is for the status.
 * `depth` bounds what is looked into, since failures also come as JSON.
 */
export const speaker = (failure: LlmError, modes: FailureMode.Table, depth = 8): LlmError => {
  if (failure._tag !== "AllProvidersFailed" || depth === 0) return failure
  const [first] = failure.failures
  if (first === undefined || failure.failures.some(({ _tag }) => _tag !== first._tag)) return failure
  return statusOf(first, modes) === statusOf(failure, modes) ? speaker(first, modes, depth - 1) : failure
}
