/** The order that the events of a call keep, as a check that other tests use too. */
import type { Effect, Stream } from "effect"
import { PolicyEvent } from "@understudy/core"

type Event = PolicyEvent.PolicyEvent

const ends = new Set<Event["event"]>(["Answered", "CallFailed", "CallInterrupted"])
const attemptEnds = new Set<Event["event"]>(["AttemptSucceeded", "AttemptFailed", "AttemptInterrupted"])

type Started = Extract<Event, { event: "AttemptStarted" }>

/** What is wrong with the events of one call; nothing when they are in order. */
export const faults = (events: ReadonlyArray<Event>): ReadonlyArray<string> => {
  const out: Array<string> = []
  const wrong = (index: number, what: string) => out.push(`event ${index} (${events[index]?.event}): ${what}`)
  let attempts = 0
  /** Attempts under way: more than one only while a hedge is. */
  const open = new Map<number, Started>()
  const committed = new Set<number>()
  const hedges = new Set<number>()
  for (const [index, event] of events.entries()) {
    const last = index === events.length - 1
    if ((index === 0) !== (event.event === "CallStarted")) wrong(index, "a call begins once, with CallStarted")
    if (last !== ends.has(event.event)) wrong(index, "a call ends once, with its last event")
    if (event.call !== events[0]?.call) wrong(index, "it is of another call")
    if (event.at < (events[index - 1]?.at ?? 0)) wrong(index, "time runs backwards")
    if ("elapsedMs" in event && event.elapsedMs < 0) wrong(index, "it took less than no time")
    const [first] = open.keys()
    if (event.event === "AttemptStarted") {
      if (first !== undefined && hedges.size === 0) wrong(index, `attempt ${first} has not ended`)
      if (event.attempt !== ++attempts) wrong(index, `attempt ${attempts} is next`)
      open.set(event.attempt, event)
    } else if (event.event === "Committed" || attemptEnds.has(event.event)) {
      const begun = "attempt" in event ? open.get(event.attempt) : undefined
      const same =
        begun !== undefined &&
        event.provider === begun.provider &&
        ("model" in event ? event.model : undefined) === begun.model
      if (!same) {
        wrong(index, "no such attempt is under way")
      } else if (event.event === "Committed") {
        if (committed.has(begun.attempt)) wrong(index, "it was committed before")
        committed.add(begun.attempt)
      } else {
        open.delete(begun.attempt)
      }
    } else if (event.event === "HedgeLaunched") {
      hedges.add(event.hedge)
    } else if (event.event === "HedgeWon" || event.event === "HedgeLost") {
      if (!hedges.delete(event.hedge)) wrong(index, "no such hedge is under way")
      if (hedges.size === 0 && open.size > 1) wrong(index, `attempts ${[...open.keys()].join(" and ")} have not ended`)
    } else if (
      first !== undefined &&
      hedges.size === 0 &&
      !(event.event === "BudgetRefused" && event.extra === "hedge")
    ) {
      wrong(index, `attempt ${first} has not ended`)
    }
    if (last && (open.size > 0 || hedges.size > 0)) wrong(index, "something is still under way")
    if ("attempts" in event && event.attempts !== attempts) wrong(index, `there were ${attempts} attempts`)
  }
  return out
}

/** The events of each call, in order. */
export const byCall = (events: ReadonlyArray<Event>): ReadonlyArray<ReadonlyArray<Event>> => [
  ...Map.groupBy(events, (event) => event.call).values(),
]

/** Throws when the events of some call are out of order. */
export const assertInOrder = (events: ReadonlyArray<Event>): void => {
  for (const call of byCall(events)) {
    const [first] = faults(call)
    if (first !== undefined) {
      throw new Error(`${first}\n${call.map((event) => `  ${event.at} ${PolicyEvent.describe(event)}`).join("\n")}`)
    }
  }
}

/** Someone who listens and takes notes. */
export const listener = () => {
  const events: Array<Event> = []
  const hear = (event: Event) => void events.push(event)
  return {
    events,
    names: () => events.map((event) => event.event),
    effect: <A, E, R>(self: Effect.Effect<A, E, R>) => PolicyEvent.observe(hear)(self),
    stream: <A, E, R>(self: Stream.Stream<A, E, R>) => PolicyEvent.observeStream(hear)(self),
  }
}
