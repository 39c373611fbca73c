/** Failures that carry the failures of other attempts. */
import { ContentFiltered, ContextLengthExceeded, InvalidRequest, type LlmError, withEvidence } from "./llmError.ts"

/** The failures of all attempts, a nested failover's among them as its own. */
export const flatten = (failures: ReadonlyArray<LlmError>): ReadonlyArray<LlmError> =>
  failures.flatMap((failure) => {
    switch (failure._tag) {
      case "AllProvidersFailed":
        return flatten(failure.failures)
      case "ContextLengthExceeded":
      case "ContentFiltered":
      case "InvalidRequest":
        // Attached, they hold themselves too.
        return failure.failures === undefined ? [failure] : flatten(failure.failures)
      default:
        return [failure]
    }
  })

/** The same failure with the failures of all attempts attached. */
export const attach = (failure: LlmError, failures: ReadonlyArray<LlmError>): LlmError => {
  const others = failures.filter((f) => f !== failure)
  if (others.length === 0) return failure
  const evidence = { providerMessage: failure.providerMessage, cause: failure.cause }
  switch (failure._tag) {
    case "ContextLengthExceeded":
      return withEvidence(new ContextLengthExceeded({ ...fieldsOf(failure), failures }), evidence)
    case "ContentFiltered":
      return withEvidence(new ContentFiltered({ ...fieldsOf(failure), failures }), evidence)
    case "InvalidRequest":
      return withEvidence(new InvalidRequest({ ...fieldsOf(failure), failures }), evidence)
    default:
      return failure
  }
}

const fieldsOf = <E extends LlmError>(failure: E): E => ({ ...failure })
