/** What an attempt tells of itself in its events, beyond who was asked and how it ended. Only built when someone listens. */
import type * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as FailureMode from "../../FailureMode.ts"
import { identifier } from "../classifier/said.ts"
import { isLlmError, type LlmError } from "../llmError.ts"
import { Finish, type Told, type Tokens } from "./told.ts"

/** The time that an attempt gets, and whose it is. Times are milliseconds; `Infinity` where there is no bound. */
export const bounds = (time: {
  readonly limit: number
  readonly by: "clock" | "deadline"
  /** The limit that the attempt would have if it were alone. */
  readonly own: number
  /** What the call has left. */
  readonly left: number
  readonly alternatives: number
}): {
  readonly limitMs?: number
  readonly limitBy?: "clock" | "share" | "deadline"
  readonly leftMs?: number
  readonly alternatives: number
} => ({
  ...(time.limit === Infinity
    ? {}
    : {
        limitMs: time.limit,
        limitBy: time.by === "deadline" ? "deadline" : time.limit < time.own ? "share" : "clock",
      }),
  ...(time.left === Infinity ? {} : { leftMs: time.left }),
  alternatives: time.alternatives,
})

interface Failed {
  readonly status?: number
  readonly retryAfterMs?: number
  readonly sameAgain?: FailureMode.SameAgain
  readonly next?: FailureMode.Next
  readonly health?: FailureMode.Health
}

/** What a failure says, and what the table in use says of it. */
export const failed = (cause: Cause.Cause<unknown>, modes: FailureMode.Table): Failed => {
  for (const reason of cause.reasons) {
    if (reason._tag !== "Fail" || !isLlmError(reason.error)) continue
    const failure = reason.error
    const hint = failure.retryAfter === undefined ? undefined : Duration.toMillis(failure.retryAfter)
    return {
      ...(failure.status === undefined ? {} : { status: failure.status }),
      ...(hint === undefined || !Number.isFinite(hint) ? {} : { retryAfterMs: hint }),
      ...cells(failure, modes),
    }
  }
  return {}
}

const cells = (failure: LlmError, modes: FailureMode.Table): Failed => {
  try {
    return {
      sameAgain: FailureMode.sameAgain(failure, modes),
      next: FailureMode.next(failure, modes),
      health: FailureMode.health(failure, modes),
    }
  } catch {
    // A cell that throws is not told.
    return {}
  }
}

const isFinish = (reason: unknown): reason is Finish => Finish.literals.some((known) => known === reason)

/** What the answer told. A face that cannot tell changes nothing. */
export const answered = (
  told: (() => Told | undefined) | undefined,
): { readonly usage?: Tokens; readonly responseModel?: string; readonly finish?: Finish } => {
  if (told === undefined) return {}
  try {
    const { finish, model, usage } = told() ?? {}
    const responseModel = identifier(model)
    return {
      ...(usage === undefined ? {} : { usage }),
      ...(responseModel === undefined ? {} : { responseModel }),
      ...(isFinish(finish) ? { finish } : {}),
    }
  } catch {
    return {}
  }
}
