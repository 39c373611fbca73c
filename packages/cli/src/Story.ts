/** The story of the policies: who was asked, what happened, what was decided, as it happens. */
import * as Duration from "effect/Duration"
import { FailureMode, type LlmError, PolicyEvent } from "@understudy/core"
import * as Output from "./Output.ts"

const stamp = (millis: number): string => `+${(millis / 1000).toFixed(2)} s`.padStart(9)

const marks: Record<PolicyEvent.PolicyEvent["event"], string> = {
  CallStarted: "?",
  AttemptStarted: "→",
  AttemptFailed: "✗",
  AttemptSucceeded: "✓",
  AttemptInterrupted: "·",
  Committed: "·",
  BackedOff: "↻",
  Queued: "…",
  CapacityRejected: "⊘",
  BudgetRefused: "⊘",
  HedgeLaunched: "⇉",
  HedgeWon: "✓",
  HedgeLost: "·",
  CircuitOpened: "⊘",
  CircuitHalfOpened: "◐",
  CircuitClosed: "○",
  CircuitRejected: "⊘",
  FloorProbed: "▲",
  CircuitSet: "✋",
  FailedOver: "⇢",
  PassedOver: "⊘",
  CandidateChanged: "✎",
  ConfigApplied: "✎",
  ConfigRejected: "✗",
  AnswerRejected: "✗",
  AnswerRepaired: "✎",
  AnswerDoubted: "~",
  PromptChanged: "✎",
  Degraded: "⇣",
  CacheRead: "▤",
  CacheWritten: "▤",
  CacheUnavailable: "▤",
  Answered: "✓",
  CallFailed: "✗",
  CallInterrupted: "·",
}

/** An observer that tells the story on stderr, with times since each call began. */
export const teller = (): PolicyEvent.Observer => {
  const begun = new Map<string, number>()
  return (event) => {
    const start = begun.get(event.call) ?? event.at
    if (event.event === "CallStarted") begun.set(event.call, event.at)
    Output.note(`${stamp(event.at - start)}  ${marks[event.event]} ${PolicyEvent.describe(event)}`)
    if (event.event === "Answered" || event.event === "CallFailed" || event.event === "CallInterrupted") {
      begun.delete(event.call)
    }
  }
}

/** An observer that prints each event on stdout as one line of JSON. */
export const jsonLines: PolicyEvent.Observer = (event) => Output.json(event)

const indent = (text: string): string => `  ${text}`

/** A failure explained for a person: what happened, and how it is treated. */
export const explain = (failure: LlmError.LlmError): ReadonlyArray<string> => {
  const rows: Array<readonly [string, string]> = [
    ["tag", failure._tag],
    ["strategy", FailureMode.row(failure).strategy],
    ["retryable later", FailureMode.retryable(failure) ? "yes" : "no"],
    ["same again", FailureMode.sameAgain(failure)],
    ["next candidate", FailureMode.next(failure)],
    ["health", FailureMode.health(failure)],
    ["HTTP status", String(FailureMode.httpStatus(failure))],
  ]
  if (failure.retryAfter !== undefined) rows.push(["retry after", Duration.format(failure.retryAfter)])
  if (failure.requestId !== undefined) rows.push(["request id", Output.plain(failure.requestId)])
  return [failure.message, ...rows.map(([name, value]) => indent(`${`${name}:`.padEnd(17)}${value}`))]
}

/** The failure of a call, with those of its attempts. */
export const explainCall = (failure: LlmError.LlmError): ReadonlyArray<string> => {
  const attempts = "failures" in failure && failure.failures !== undefined ? failure.failures : []
  return [
    ...explain(failure),
    ...(attempts.length === 0 ? [] : ["", "What was tried, in order:"]),
    ...attempts.map((attempt, index) => indent(`${index + 1}. ${attempt._tag}: ${attempt.message}`)),
  ]
}
