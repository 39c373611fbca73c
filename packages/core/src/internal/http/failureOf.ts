/** The failure of the union in whatever was raised. */
import * as AiError from "effect/ai/AiError"
import * as Cause from "effect/Cause"
import { fromAiError } from "../../AiFailure.ts"
import { isLlmError, type LlmError } from "../llmError.ts"

/**
 * The failure that this is, or that it carries: one of ours, an `AiError`, or a
 * cause that holds one of them as a failure or a defect, the first of them.
 * `undefined` for everything else. Never throws: anything can be raised, a proxy that was revoked for example.
 */
export const failureOf = (u: unknown): LlmError | undefined => {
  try {
    return found(u)
  } catch {
    return undefined
  }
}

const found = (u: unknown): LlmError | undefined => {
  if (isLlmError(u)) return u
  if (AiError.isAiError(u)) return fromAiError(u)
  if (!Cause.isCause(u)) return undefined
  for (const reason of u.reasons) {
    const failure =
      reason._tag === "Fail" ? failureOf(reason.error) : reason._tag === "Die" ? failureOf(reason.defect) : undefined
    if (failure !== undefined) return failure
  }
  return undefined
}
