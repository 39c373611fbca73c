/** Which budget extra attempts draw on. */
import * as Context from "effect/Context"
import type { CallRecord } from "../callRecord.ts"
import type { LlmError } from "../llmError.ts"
import { type Budget, refused } from "./budget.ts"

/** The budget of the effects in a region, where there is no provider to tell them apart. */
export const CurrentBudget = Context.Reference<Budget | undefined>("@understudy/core/internal/Budget", {
  defaultValue: () => undefined,
})

/** Who is asked again, or beside. */
export interface Subject {
  readonly name: string
  readonly model: string
}

const budgetFor = (record: CallRecord, name: string, context: Context.Context<never>): Budget | undefined => {
  for (let allowance = record.budget; allowance !== undefined; allowance = allowance.outer) {
    if (allowance.names.includes(name)) return allowance.budget
  }
  return Context.get(context, CurrentBudget)
}

/** These did not reach the provider: the next try is no extra attempt. */
const notAsked: ReadonlySet<LlmError["_tag"]> = new Set(["CircuitOpen", "CapacityExceeded"])

/** An extra attempt, as far as its budget goes. */
export interface Draw {
  /** It is not made after all. */
  readonly giveBack: () => void
}

const free: Draw = { giveBack: () => undefined }

/** Draws an extra attempt on its budget, if there is one; nothing when that refuses, which is told. */
export const draw = (
  record: CallRecord,
  subject: Subject,
  context: Context.Context<never>,
  extra: "retry" | "hedge",
  failure?: LlmError,
): Draw | undefined => {
  if (failure !== undefined && notAsked.has(failure._tag)) return free
  const budget = budgetFor(record, subject.name, context)
  if (budget === undefined) return free
  const ticket = budget.tryTake(record.now())
  if (ticket !== refused) return { giveBack: () => budget.give(ticket, record.now()) }
  if (record.observer !== undefined) {
    record.emit({
      event: "BudgetRefused",
      provider: subject.name,
      model: subject.model,
      extra,
      ...(failure === undefined ? {} : { failure: failure._tag }),
    })
  }
  return undefined
}
