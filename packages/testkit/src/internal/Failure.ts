/** Failures of the union from a tag and the fields that matter. */
import * as LlmError from "@understudy/core/LlmError"
import * as Duration from "effect/Duration"

/** The fields of a failure, besides who failed. */
export type Fields<T extends LlmError.Tag> = Partial<
  Omit<
    Exclude<ConstructorParameters<(typeof LlmError)[T]>[0], void | undefined>,
    "_tag" | "provider" | "model" | "retryAfter"
  >
> & {
  /** When to come back, as the provider said it. */
  readonly retryAfter?: Duration.Input
}

/** What a tag needs to be a failure, where nobody says otherwise. */
const needed: { readonly [T in LlmError.Tag]?: object } = {
  TimedOut: { phase: "attempt" },
  StreamInterrupted: { committed: false },
  AllProvidersFailed: { failures: [] },
}

const classes: { readonly [T in LlmError.Tag]: new (fields: never) => LlmError.WithTag<T> } = {
  RateLimited: LlmError.RateLimited,
  QuotaExhausted: LlmError.QuotaExhausted,
  Overloaded: LlmError.Overloaded,
  ProviderUnavailable: LlmError.ProviderUnavailable,
  ConnectionFailed: LlmError.ConnectionFailed,
  TimedOut: LlmError.TimedOut,
  DeadlineExceeded: LlmError.DeadlineExceeded,
  StreamInterrupted: LlmError.StreamInterrupted,
  InvalidResponse: LlmError.InvalidResponse,
  ContentFiltered: LlmError.ContentFiltered,
  ContextLengthExceeded: LlmError.ContextLengthExceeded,
  AuthenticationFailed: LlmError.AuthenticationFailed,
  PermissionDenied: LlmError.PermissionDenied,
  ModelNotFound: LlmError.ModelNotFound,
  InvalidRequest: LlmError.InvalidRequest,
  UnknownFailure: LlmError.UnknownFailure,
  CircuitOpen: LlmError.CircuitOpen,
  CapacityExceeded: LlmError.CapacityExceeded,
  AllProvidersFailed: LlmError.AllProvidersFailed,
}

/** The failure of a tag. Its class checks the fields, and throws for those that cannot be. */
export const failureOf = <T extends LlmError.Tag>(
  tag: T,
  who: { readonly provider: string; readonly model: string },
  { retryAfter, ...fields }: { readonly retryAfter?: Duration.Input },
): LlmError.WithTag<T> =>
  new classes[tag]({
    ...needed[tag],
    ...fields,
    provider: who.provider,
    model: who.model,
    ...(retryAfter === undefined ? {} : { retryAfter: Duration.fromInputUnsafe(retryAfter) }),
  } as never)

/** What to call a failure, a defect or anything else that was thrown. */
export const nameOf = (failure: unknown): string => {
  if (typeof failure !== "object" || failure === null) return String(failure)
  if ("_tag" in failure && typeof failure._tag === "string") return failure._tag
  return failure instanceof Error ? failure.name : "failure"
}
