/**
 * Why a policy decided what it decided, in words: from the events of a call so
 * far, and from what the events say themselves. Nothing is guessed: where the
 * events leave more than one reason, all of them are named.
 */
import type { Name, Of } from "./facts.ts"
import { oneLine } from "./line.ts"

/** What has happened in a call so far, as far as reasons need it. */
export class SoFar {
  /** The last failure of each candidate. */
  readonly failures = new Map<string, Of<"AttemptFailed">>()
  /** How often each candidate was asked again. */
  readonly backoffs = new Map<string, number>()
  /** Those whose extra attempt was refused by their budget since they last failed. */
  readonly refused = new Set<string>()
  /** Other candidates that could be asked when the last attempt began. */
  alternatives = 0

  hear(event: { readonly event: string }): void {
    const row = Object.hasOwn(memory, event.event) ? memory[event.event as keyof typeof memory] : undefined
    ;(row as ((event: unknown, so: SoFar) => void) | undefined)?.(event, this)
  }
}

const memory: { readonly [N in Name]?: (event: Of<N>, so: SoFar) => void } = {
  AttemptStarted: (event, so) => {
    so.alternatives = event.alternatives ?? 0
  },
  AttemptFailed: (event, so) => {
    so.failures.set(event.provider, event)
    so.refused.delete(event.provider)
  },
  BackedOff: (event, so) => {
    so.backoffs.set(event.provider, (so.backoffs.get(event.provider) ?? 0) + 1)
  },
  BudgetRefused: (event, so) => {
    so.refused.add(event.provider)
  },
}

/** A duration for a person. */
export const span = (ms: number): string =>
  ms < 1000 ? `${Math.round(ms)} ms` : ms < 60_000 ? `${trimmed(ms / 1000)} s` : `${trimmed(ms / 60_000)} min`

const trimmed = (n: number): string => String(Math.round(n * 100) / 100)

const others = (n: number): string =>
  n === 0 ? "no other candidate is ready" : n === 1 ? "1 other candidate is ready" : `${n} other candidates are ready`

const again: Readonly<Record<string, string>> = {
  no: "do not ask it again",
  yes: "ask it again",
  once: "ask it once more",
  alone: "ask it again only while no other candidate is ready",
}

const elsewhere: Readonly<Record<string, string>> = {
  no: "no other candidate",
  yes: "another candidate may answer",
  "larger window": "only a candidate with a larger window",
  "if allowed": "another candidate only if the caller allows it",
}

const circuits: Readonly<Record<string, string>> = {
  failure: "counts against its circuit",
  opens: "opens its circuit at once",
  ignored: "says nothing about its health",
}

type Trip = NonNullable<Of<"CircuitOpened">["reason"]>

/** What opened a circuit, and the failure that was the last of it. */
const trips: { readonly [R in Trip]: (failure: Of<"AttemptFailed"> | undefined) => string | undefined } = {
  "failures in a row": () => "too many counted failures in a row",
  failures: () => "too many counted failures among the last calls",
  "failure rate": () => "too large a share of the last calls failed",
  "slow rate": () => "too large a share of the last calls was slow",
  "at once": (failure) => `${failure?.failure ?? "such a failure"} opens it at once`,
  hint: (failure) =>
    failure?.retryAfterMs === undefined
      ? "the hint is longer than the patience"
      : `it said to come back in ${span(failure.retryAfterMs)}, which is longer than the patience`,
  probe: () => "a probe failed",
  "by hand": () => "somebody opened it",
}

const word = (words: Readonly<Record<string, string>>, key: string | undefined): ReadonlyArray<string> =>
  key !== undefined && Object.hasOwn(words, key) ? [words[key]!] : []

const sentence = (parts: ReadonlyArray<string>): string | undefined =>
  parts.length === 0 ? undefined : parts.join("; ")

/** Why the same provider is not asked again. */
const notAgain = (failure: Of<"AttemptFailed">, so: SoFar): string | undefined => {
  const name = failure.provider
  if (so.refused.has(name)) return "its budget allows no extra attempt"
  const taken = so.backoffs.get(name) ?? 0
  switch (failure.sameAgain) {
    case "no":
      return `the table says of ${failure.failure}: do not ask it again`
    case "alone":
      if (so.alternatives > 0)
        return `the table says: ask it again only while no other is ready, and ${others(so.alternatives)}`
      break
    case "once":
      if (taken > 0) return "the table says: ask it once more, and it was"
      break
    default:
      break
  }
  const times = taken === 0 ? "it was not asked again" : `it was asked again ${taken === 1 ? "once" : `${taken} times`}`
  return `${times}: attempts, patience, circuit or deadline allow no ${taken === 0 ? "wait" : "other wait"}`
}

/** Why, for each event that has a reason beyond what it says. */
const reasons: { readonly [N in Name]?: (event: Of<N>, so: SoFar) => string | undefined } = {
  AttemptStarted: ({ alternatives = 0, leftMs, limitBy, limitMs }) => {
    const left = leftMs === undefined ? "" : ` of the ${span(leftMs)} that the call has left`
    if (limitMs === undefined) return leftMs === undefined ? undefined : `the call has ${span(leftMs)} left`
    switch (limitBy) {
      case "share":
        return `it may take ${span(limitMs)}${left}: the rest is kept for ${alternatives === 1 ? "1 other candidate" : `${alternatives} other candidates`}`
      case "deadline":
        return `it may take the ${span(limitMs)} that the call has left`
      default:
        return `it may take ${span(limitMs)}, its own limit${left === "" ? "" : `,${left}`}`
    }
  },
  AttemptFailed: ({ failure, health, next, retryAfterMs, sameAgain, status }) => {
    const table = [...word(again, sameAgain), ...word(elsewhere, next), ...word(circuits, health)]
    return sentence([
      ...(status === undefined ? [] : [`HTTP ${status}`]),
      ...(retryAfterMs === undefined ? [] : [`it said to come back in ${span(retryAfterMs)}`]),
      ...(table.length === 0 ? [] : [`the table says of ${failure}: ${table.join(", ")}`]),
    ])
  },
  AttemptInterrupted: () => "whoever asked for it needs it no more",
  BackedOff: (event, so) => {
    const hint = so.failures.get(event.provider)?.retryAfterMs
    return hint !== undefined && event.delayMs >= hint
      ? `it said to come back in ${span(hint)}, which counts at least`
      : "the schedule of the retry, with its jitter"
  },
  CircuitOpened: ({ provider, reason }, so) =>
    reason !== undefined && Object.hasOwn(trips, reason) ? trips[reason](so.failures.get(provider)) : undefined,
  CircuitHalfOpened: () => "its time is over: a few probes decide",
  CircuitClosed: () => "enough probes succeeded",
  CircuitRejected: ({ delayMs }) =>
    delayMs === undefined
      ? "its probes are all under way, or it is kept open by hand"
      : "it failed too often, or said to come back later",
  FailedOver: ({ failure, provider }, so) => {
    const last = so.failures.get(provider)
    return last === undefined || last.failure !== failure ? undefined : notAgain(last, so)
  },
  FloorProbed: () => "every circuit is open, so the least bad candidate is asked, once in a while",
  Committed: () => "from here on no failure can be hidden",
  AnswerRejected: ({ again: asked }) =>
    asked
      ? "the rest of its attempts, tokens and time allow another try"
      : "nothing is left to try, or it would be the same again",
  Degraded: ({ failure }) => `the ladder catches ${oneLine(failure)}`,
}

/** Why, or nothing where there is nothing to say. Tell `so` of the event afterwards. */
export const reasonOf = (event: { readonly event: string }, so: SoFar): string | undefined => {
  const reason = Object.hasOwn(reasons, event.event) ? reasons[event.event as keyof typeof reasons] : undefined
  return (reason as ((event: unknown, so: SoFar) => string | undefined) | undefined)?.(event, so)
}
