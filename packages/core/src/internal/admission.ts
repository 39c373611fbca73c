/**
 * What an attempt has to do with its circuits: how it is let in, what they learn
 * from how it ends, and what is told of both.
 *
 * An attempt passes two circuits, that of its model and that of its account. A
 * refused key or a spent quota is the account's trouble, and says nothing about
 * the model; everything else is the model's.
 */
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import { credentialFor } from "../Call.ts"
import * as FailureMode from "../FailureMode.ts"
import { type Breaker, type Outcome, unrecorded } from "./breaker/machine.ts"
import type { CallRecord } from "./callRecord.ts"
import { CircuitOpen, isLlmError, type LlmError } from "./llmError.ts"
import { startTimer } from "./timer.ts"

/** The circuits of an attempt, and how its outcomes are judged. */
export interface Admission {
  /** Calls that bring a key of their own have a circuit of their own: an account's trouble is not another's. */
  readonly circuit: (context: Context.Context<never>, ownKey: boolean, now: number) => Breaker
  /** Judges failures that are not of the union; the default counts them. */
  readonly classify: ((error: unknown) => Outcome) | undefined
}

interface Who {
  readonly name: string
  readonly model: string
}

/** Failures that are an account's, and say nothing about the provider to the users of another one. */
const ofAccount: ReadonlySet<LlmError["_tag"]> = new Set([
  "RateLimited",
  "QuotaExhausted",
  "AuthenticationFailed",
  "PermissionDenied",
])

/** Those that open the circuit of the account for all its models, where the table says that they open one. */
const opensAccount: ReadonlySet<LlmError["_tag"]> = new Set(["QuotaExhausted", "AuthenticationFailed"])

// -----------------------------------------------------------------------------
// In
// -----------------------------------------------------------------------------

/** No ticket: there is no such circuit. */
export const noTicket = -1

/** What came of asking to be let in: tickets, a verdict to wait for, or a failure. */
export type Entry =
  | { readonly own: number; readonly account: number }
  | { readonly wait: Waiting }
  | { readonly rejection: CircuitOpen }

/** A place in the queue of a circuit, and until when it is kept. */
export interface Waiting {
  readonly circuit: Breaker
  readonly place: number
  readonly until: number
}

/** Does neither circuit have anything against it? */
export const isClear = ({ account, state }: Breaker): boolean =>
  state === "closed" && (account === undefined || account.state === "closed")

/** Would both circuits learn the same from a success at any time? */
export const isTimeless = ({ account, timeless }: Breaker): boolean =>
  timeless && (account === undefined || account.timeless)

/** Asks both circuits, when one of them is not simply closed. A caller that has waited says for how long it may go on. */
export const enter = (
  who: Who,
  record: CallRecord,
  breaker: Breaker,
  now: number,
  waited: Waiting | undefined,
): Entry => {
  const { account } = breaker
  const floor = record.floor === who.name
  record.floor = undefined
  for (const circuit of account === undefined ? [breaker] : [account, breaker]) {
    if (circuit.ready(now) || (floor && circuit.mayFloor(now))) continue
    const wait = waitingFor(circuit, now, waited)
    if (wait !== undefined) return { wait }
    circuit.admit(now)
    return { rejection: circuitOpen(record, who, circuit, now) }
  }
  // Neither says no from here on, so neither has to take a slot back.
  return {
    account: account === undefined ? noTicket : admitted(who, record, account, now, floor),
    own: admitted(who, record, breaker, now, floor),
  }
}

/** A place in the queue: the one that it had, or a new one. */
const waitingFor = (circuit: Breaker, now: number, waited: Waiting | undefined): Waiting | undefined => {
  const { excess } = circuit.rules
  if (excess === undefined || !circuit.mayWait(now)) return undefined
  if (waited !== undefined && now >= waited.until) return undefined
  if (waited?.circuit === circuit) return waited
  return { circuit, place: circuit.place(), until: waited?.until ?? now + excess.wait }
}

const admitted = (who: Who, record: CallRecord, circuit: Breaker, now: number, floor: boolean): number => {
  const before = circuit.state
  const ticket = floor ? circuit.admitFloor(now) : circuit.admit(now)
  if (circuit.state !== before) tellState(record, who, circuit, now)
  if (record.observer === undefined) return ticket
  const base = { provider: who.name, model: who.model, circuit: circuit.key }
  if (ticket === unrecorded && circuit.mode === "shadow") {
    record.emit({ event: "CircuitRejected", ...base, ...delay(circuit.retryAfter(now)), shadow: true })
  } else if (floor && circuit.state === "open") {
    record.emit({ event: "FloorProbed", ...base })
  }
  return ticket
}

/** Waits until the circuit's state changes or a probe's permit comes free. */
export const awaitVerdict = (
  record: CallRecord,
  context: Context.Context<never>,
  { circuit, place, until }: Waiting,
): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    let cancelTimer: (() => void) | undefined
    const leave = circuit.wait(place, () => {
      cancelTimer?.()
      // Not at once: the circuit's change is told first, by whoever caused it.
      resume(Effect.yieldNow)
    })
    const last = Math.min(until, record.deadlineAt)
    const overdue = circuit.nextOverdue()
    const at = Math.min(last, overdue)
    if (at !== Infinity) {
      cancelTimer = startTimer(record.clock, context, Math.max(0, at - record.now()), () => {
        // A probe that is overdue gives its permit back to whoever asks first then: those who wait ask in their order.
        if (overdue <= last) return circuit.lookAgain()
        leave()
        resume(Effect.void)
      })
    }
    return Effect.sync(() => {
      leave()
      cancelTimer?.()
    })
  })

// -----------------------------------------------------------------------------
// Out
// -----------------------------------------------------------------------------

/** Tells both circuits how an attempt ended, and gives its slots back. `contentAt`: when its first content was there. */
export const leave = (
  who: Who,
  record: CallRecord,
  { classify }: Admission,
  breaker: Breaker,
  own: number,
  accounts: number,
  exit: Exit.Exit<unknown, unknown>,
  startedAt: number,
  contentAt: number | undefined,
  now: number,
): void => {
  const total = now - startedAt
  const first = contentAt === undefined ? total : contentAt - startedAt
  const { account } = breaker
  const learned = outcomeOf(exit, record, classify, who, account !== undefined)
  tellOutcome(who, record, breaker, own, learned.own, now, learned.hint, first, total)
  if (account !== undefined && accounts !== noTicket) {
    tellOutcome(who, record, account, accounts, learned.account, now, learned.hint, first, total)
  }
}

const tellOutcome = (
  who: Who,
  record: CallRecord,
  circuit: Breaker,
  ticket: number,
  outcome: Outcome | "interrupted",
  now: number,
  hint: number,
  first: number,
  total: number,
): void => {
  const before = circuit.state
  circuit.record(ticket, outcome, now, hint, first, total, record.random)
  if (circuit.state !== before) tellState(record, who, circuit, now)
}

/** What both circuits learn. */
interface Learned {
  readonly own: Outcome | "interrupted"
  readonly account: Outcome | "interrupted"
  readonly hint: number
}

const succeeded: Learned = { own: "success", account: "success", hint: 0 }
const died: Learned = { own: "failure", account: "ignored", hint: 0 }
const left: Learned = { own: "interrupted", account: "interrupted", hint: 0 }

/** What the circuits learn from an exit. */
const outcomeOf = (
  exit: Exit.Exit<unknown, unknown>,
  record: CallRecord,
  classify: Admission["classify"],
  who: Who,
  hasAccount: boolean,
): Learned => {
  if (exit._tag === "Success") return succeeded
  let learned = left
  for (const reason of exit.cause.reasons) {
    if (reason._tag === "Die") return died
    if (reason._tag !== "Fail") continue
    const error = reason.error
    if (!isLlmError(error)) {
      learned = { own: judged(error, classify), account: "ignored", hint: 0 }
      continue
    }
    const failure = error._tag === "StreamInterrupted" ? (error.failure ?? error) : error
    const hint = failure.retryAfter === undefined ? 0 : Duration.toMillis(failure.retryAfter)
    if (ofAccount.has(failure._tag) && credentialFor(record.overrides, who.name) !== undefined) {
      learned = { own: "ignored", account: "ignored", hint }
      continue
    }
    const outcome = judged(failure, (f) => FailureMode.health(f, record.modes))
    learned =
      hasAccount && outcome === "opens" && opensAccount.has(failure._tag)
        ? { own: "ignored", account: "opens", hint }
        : { own: outcome, account: "ignored", hint }
  }
  return learned
}

const judged = <E>(error: E, classify: ((error: E) => Outcome) | undefined): Outcome => {
  if (classify === undefined) return "failure"
  try {
    return classify(error)
  } catch {
    // A judge that throws says nothing, and must not keep the slot.
    return "ignored"
  }
}

// -----------------------------------------------------------------------------
// What is told
// -----------------------------------------------------------------------------

const delay = (millis: number | undefined): { readonly delayMs?: number } =>
  millis === undefined || millis === Infinity ? {} : { delayMs: millis }

/** Tells that a circuit changed its state. */
export const tellState = (record: CallRecord, who: Who, circuit: Breaker, now: number): void => {
  if (record.observer === undefined) return
  const shadow = circuit.mode === "shadow" ? { shadow: true } : {}
  const base = { provider: who.name, model: who.model, circuit: circuit.key, ...shadow }
  switch (circuit.state) {
    case "open": {
      const reason = circuit.lastTrip === undefined ? {} : { reason: circuit.lastTrip.reason }
      return record.emit({ event: "CircuitOpened", ...base, ...delay(circuit.retryAfter(now)), ...reason })
    }
    case "half-open":
      return record.emit({ event: "CircuitHalfOpened", ...base })
    case "closed":
      return record.emit({ event: "CircuitClosed", ...base })
  }
}

/** The failure of a call that a circuit rejects, and its event. */
export const circuitOpen = (record: CallRecord, who: Who, circuit: Breaker, now: number): CircuitOpen => {
  const left = delay(circuit.retryAfter(now))
  if (record.observer !== undefined) {
    record.emit({ event: "CircuitRejected", provider: who.name, model: who.model, circuit: circuit.key, ...left })
  }
  return new CircuitOpen({
    provider: who.name,
    model: who.model,
    state: circuit.mode === "isolated" ? "isolated" : circuit.state === "half-open" ? "half-open" : "open",
    ...(left.delayMs === undefined ? {} : { retryAfter: Duration.millis(left.delayMs) }),
  })
}
