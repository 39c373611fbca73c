/**
 * Policy events: one typed record of everything a policy decided.
 *
 * One call produces one ordered sequence of events, from `CallStarted` to
 * `Answered` or `CallFailed`, well nested for each attempt. Events hold tags,
 * names and times: no provider text, no key, no prompt. `Answered` holds the
 * answer's text, which is the model's and thus untrusted.
 *
 * **Details**
 *
 * - Nothing is built unless someone listens.
 * - An observer is called at once and synchronously. One that throws changes
 *   nothing: it is as if it had returned.
 *
 * **Example** (Telling the story of a call)
 *
 * ```ts
 * import { PolicyEvent } from "@understudy/core"
 * import { Effect } from "effect"
 *
 * export const told = <A, E, R>(call: Effect.Effect<A, E, R>) =>
 *   call.pipe(PolicyEvent.observe((event) => console.error(PolicyEvent.describe(event))))
 * ```
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as StreamModule from "effect/Stream"
import { layerHearing } from "./internal/events/hearing.ts"
import { Finish, Tokens } from "./internal/events/told.ts"
import { RejectionReason, tags, TimeoutPhase } from "./internal/llmError.ts"

const common = {
  /** When, in milliseconds of Unix time. */
  at: Schema.Finite,
  /** Which call: the same in all its events. */
  call: Schema.String,
}
const asked = { ...common, provider: Schema.String, model: Schema.optionalKey(Schema.String) }
const FailureTag = Schema.Literals(tags as [(typeof tags)[number], ...Array<(typeof tags)[number]>])
const Limit = Schema.Literals(["bulkhead", "rate limit"])
const circuit = {
  ...asked,
  /** The key of the circuit. */
  circuit: Schema.String,
  /** It is disabled by hand: nothing was rejected, and this is what would have been. */
  shadow: Schema.optionalKey(Schema.Boolean),
}
const attempted = {
  ...asked,
  attempt: Schema.Int,
  /** What kind of thing is asked: the name of its face. */
  face: Schema.optionalKey(Schema.String),
}
const ended = {
  ...attempted,
  elapsedMs: Schema.Finite,
  /** What it cost, as far as the provider told. */
  usage: Schema.optionalKey(Tokens),
  /** The model that answered, as the provider names it. */
  responseModel: Schema.optionalKey(Schema.String),
  /** Why the answer ended. */
  finish: Schema.optionalKey(Finish),
}

/** Why a circuit opened. */
const CircuitReason = Schema.Literals([
  "failures in a row",
  "failures",
  "failure rate",
  "slow rate",
  "at once",
  "hint",
  "probe",
  "by hand",
])

/** The rungs of a degradation ladder, which are the sources of answers. */
export const Source = Schema.Literals(["primary", "cache", "model", "simplified", "stale", "fallback"])

/** A rung of a degradation ladder, and the source of the answer that it gave. */
export type Source = typeof Source.Type

const of = <const Name extends string, const Fields extends Schema.Struct.Fields>(name: Name, fields: Fields) =>
  Schema.Struct({ event: Schema.tag(name), ...fields })

/** One decision of a policy. */
export const PolicyEvent = Schema.Union([
  /** A call begins. `provider` is the composition's name. */
  of("CallStarted", { ...common, provider: Schema.String }),
  /** A provider is asked. `attempt` counts from 1 over the whole call. */
  of("AttemptStarted", {
    ...attempted,
    /** Is a stream asked for? */
    streaming: Schema.optionalKey(Schema.Boolean),
    /** The time it gets: for an answer, or for a stream's first content. */
    limitMs: Schema.optionalKey(Schema.Finite),
    /** Whose limit that is: its own clock, its share beside other candidates, or the deadline of the call. */
    limitBy: Schema.optionalKey(Schema.Literals(["clock", "share", "deadline"])),
    /** What the call has left until its deadline. */
    leftMs: Schema.optionalKey(Schema.Finite),
    /** Other candidates that could be asked now. */
    alternatives: Schema.optionalKey(Schema.Int),
  }),
  /** The attempt failed, after `elapsedMs`. `phase`: which clock ran out, for `TimedOut`. */
  of("AttemptFailed", {
    ...ended,
    failure: FailureTag,
    phase: Schema.optionalKey(TimeoutPhase),
    /** The HTTP status. */
    status: Schema.optionalKey(Schema.Int),
    /** When the provider said to come back: the hint. */
    retryAfterMs: Schema.optionalKey(Schema.Finite),
    /** What the table in use says of this failure. */
    sameAgain: Schema.optionalKey(Schema.Literals(["no", "yes", "once", "alone"])),
    next: Schema.optionalKey(Schema.Literals(["no", "yes", "larger window", "if allowed"])),
    health: Schema.optionalKey(Schema.Literals(["failure", "opens", "ignored"])),
  }),
  /** The attempt succeeded: for a stream, when its end marker came. */
  of("AttemptSucceeded", ended),
  /** The attempt was ended by its caller. */
  of("AttemptInterrupted", ended),
  /** The stream's first content came: nothing is asked again from here on. */
  of("Committed", { ...attempted, elapsedMs: Schema.Finite }),
  /** The same provider is asked again after `delayMs`. */
  of("BackedOff", { ...asked, failure: FailureTag, delayMs: Schema.Finite }),
  /** A limit is reached, and the call waits in line behind `ahead` others, for `delayMs` if that is known. */
  of("Queued", { ...asked, limit: Limit, ahead: Schema.Int, delayMs: Schema.optionalKey(Schema.Finite) }),
  /** A limit is reached, and the call does not wait, or waits no longer. There may be room in `delayMs`. */
  of("CapacityRejected", {
    ...asked,
    limit: Limit,
    reason: Schema.Literals(["full", "too slow", "waited", "another is ready", "never fits"]),
    delayMs: Schema.optionalKey(Schema.Finite),
  }),
  /** The destination's budget allows no extra attempt now: what was to be retried or hedged is not. */
  of("BudgetRefused", {
    ...asked,
    extra: Schema.Literals(["retry", "hedge"]),
    failure: Schema.optionalKey(FailureTag),
  }),
  /** Another attempt is made beside those under way, since there is no answer after `elapsedMs`. `hedge` counts from 1. */
  of("HedgeLaunched", { ...asked, hedge: Schema.Int, elapsedMs: Schema.Finite }),
  /** This hedge answered first, and the others are over. */
  of("HedgeWon", { ...asked, hedge: Schema.Int, elapsedMs: Schema.Finite }),
  /** This hedge is over without having answered first. `failure`: it failed by itself. */
  of("HedgeLost", {
    ...asked,
    hedge: Schema.Int,
    failure: Schema.optionalKey(Schema.String),
    elapsedMs: Schema.Finite,
  }),
  /** A circuit opened, for `delayMs`; for good without. */
  of("CircuitOpened", {
    ...circuit,
    delayMs: Schema.optionalKey(Schema.Finite),
    /** Why: what tripped it, a hint, a failure that opens at once, or a probe that failed. */
    reason: Schema.optionalKey(CircuitReason),
  }),
  /** A circuit lets probes through. */
  of("CircuitHalfOpened", circuit),
  /** A circuit closed. */
  of("CircuitClosed", circuit),
  /** A provider was passed over without an attempt, since its circuit is open for `delayMs` more. */
  of("CircuitRejected", { ...circuit, delayMs: Schema.optionalKey(Schema.Finite) }),
  /** Every candidate's circuit is open, and this one is asked all the same: the floor of a failover. */
  of("FloorProbed", circuit),
  /** A circuit was taken in hand. `call` is `by hand`, and `provider` the circuit's key. */
  of("CircuitSet", {
    ...circuit,
    to: Schema.Literals(["isolated", "released", "opened", "probing", "closed", "disabled", "enabled"]),
  }),
  /** The next candidate, `to`, is asked. */
  of("FailedOver", { ...asked, failure: FailureTag, to: Schema.String }),
  /** A candidate is not asked: the prompt has so many tokens at least, and does not fit into its context window. */
  of("PassedOver", { ...asked, tokens: Schema.Int, contextWindow: Schema.Int }),
  /**
   * Something else is set for a candidate from here on. `call` is `by hand`, or `configuration` when its file changed.
   * `settings`: what holds now, of what changed.
   */
  of("CandidateChanged", {
    ...asked,
    composition: Schema.String,
    by: Schema.Literals(["hand", "file"]),
    settings: Schema.String,
  }),
  /** The configuration file changed, and holds from here on. `call` is `configuration`. */
  of("ConfigApplied", {
    ...common,
    /** The name of the composition. */
    provider: Schema.String,
    file: Schema.String,
    /** Candidates that are new. */
    added: Schema.Int,
    /** Candidates that are gone. */
    removed: Schema.Int,
  }),
  /** The configuration file changed, and is not valid: the last good one stays. `call` is `configuration`. */
  of("ConfigRejected", {
    ...common,
    /** The name of the composition. */
    provider: Schema.String,
    file: Schema.String,
    /** How many mistakes. */
    issues: Schema.Int,
    /** The first of them: its place, and what was expected. */
    problem: Schema.String,
  }),
  /** An answer was not what was asked for. `issues`: how many. `again`: is it asked for once more? */
  of("AnswerRejected", { ...asked, reason: RejectionReason, issues: Schema.Int, again: Schema.Boolean }),
  /** An answer was mended: `repairs` says how often. */
  of("AnswerRepaired", { ...asked, repairs: Schema.Int }),
  /** An answer was accepted although a check had something against it. `check` names it. */
  of("AnswerDoubted", { ...asked, check: Schema.String }),
  /** The prompt was changed because of this failure, or before it could happen. `step` says how. */
  of("PromptChanged", { ...asked, failure: FailureTag, step: Schema.String }),
  /** The next rung of the ladder is tried. */
  of("Degraded", { ...common, provider: Schema.String, failure: Schema.String, to: Source }),
  /** A cache was read: `fresh`, `stale`, or nothing there. */
  of("CacheRead", {
    ...common,
    provider: Schema.String,
    found: Schema.Literals(["fresh", "stale", "nothing"]),
    ageMs: Schema.optionalKey(Schema.Finite),
  }),
  /** An answer was put into a cache. */
  of("CacheWritten", { ...common, provider: Schema.String }),
  /** A cache could not be used: it is as if there were none. */
  of("CacheUnavailable", {
    ...common,
    provider: Schema.String,
    operation: Schema.Literals(["read", "write"]),
    why: Schema.Literals(["failed", "too slow", "unreadable", "no tenant"]),
  }),
  /** The call ended with an answer of this provider. `source`: the rung that it came from, where there is a ladder. */
  of("Answered", {
    ...asked,
    /** The composition that was asked. */
    composition: Schema.optionalKey(Schema.String),
    source: Schema.optionalKey(Source),
    text: Schema.String,
    attempts: Schema.Int,
    elapsedMs: Schema.Finite,
  }),
  /** The call ended with this failure. */
  of("CallFailed", { ...asked, failure: Schema.String, attempts: Schema.Int, elapsedMs: Schema.Finite }),
  /** The call was ended by its caller. */
  of("CallInterrupted", { ...common, provider: Schema.String, attempts: Schema.Int, elapsedMs: Schema.Finite }),
])

/** One decision of a policy. */
export type PolicyEvent = typeof PolicyEvent.Type

/** Is told every event, at once. */
export type Observer = (event: PolicyEvent) => void

/** Who is told. Nobody by default. */
export const CurrentObserver = Context.Reference<Observer | undefined>("@understudy/core/PolicyEvent/Observer", {
  defaultValue: () => undefined,
})

const both = (first: Observer | undefined, second: Observer): Observer =>
  first === undefined
    ? second
    : (event) => {
        try {
          first(event)
        } finally {
          second(event)
        }
      }

/** Tells an observer, besides those already told, of every event of the calls in an effect. */
export const observe =
  (observer: Observer) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.flatMap(CurrentObserver, (current) => Effect.provideService(self, CurrentObserver, both(current, observer)))

/** The same for a stream. */
export const observeStream =
  (observer: Observer) =>
  <A, E, R>(self: Stream.Stream<A, E, R>): Stream.Stream<A, E, R> =>
    StreamModule.unwrap(
      Effect.map(CurrentObserver, (current) =>
        StreamModule.provideService(self, CurrentObserver, both(current, observer)),
      ),
    )

/**
 * Tells an observer, besides those already told, of every event of every call
 * below the layer. Layers of observers that are merged are all heard.
 */
export const layer = (observer: Observer): Layer.Layer<never> => layerEffect(Effect.succeed(observer))

/** The same for an observer that takes services, or something that must be given back. */
export const layerEffect = <E, R>(
  observer: Effect.Effect<Observer, E, R>,
): Layer.Layer<never, E, Exclude<R, Scope.Scope>> => layerHearing(CurrentObserver, observer)

const seconds = (ms: number): string =>
  ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`

/** One line for a person. */
export const describe = (event: PolicyEvent): string => {
  const who =
    "model" in event && event.model !== undefined && event.model !== event.provider
      ? `${event.provider} (${event.model})`
      : event.provider
  switch (event.event) {
    case "CallStarted":
      return `${who}: a question`
    case "AttemptStarted":
      return `${who}: asked (attempt ${event.attempt})`
    case "AttemptFailed":
      return `${who}: ${event.failure}${event.phase === undefined ? "" : ` (${event.phase})`} after ${seconds(event.elapsedMs)}`
    case "AttemptSucceeded":
      return `${who}: answered in ${seconds(event.elapsedMs)}`
    case "AttemptInterrupted":
      return `${who}: interrupted after ${seconds(event.elapsedMs)}`
    case "Committed":
      return `${who}: first content after ${seconds(event.elapsedMs)}`
    case "BackedOff":
      return `${who}: ${event.failure}, will be asked again in ${seconds(event.delayMs)}`
    case "Queued":
      return `${who}: waits for the ${event.limit}${event.ahead === 0 ? "" : ` behind ${event.ahead}`}${event.delayMs === undefined ? "" : `, for ${seconds(event.delayMs)}`}`
    case "CapacityRejected":
      return `${who}: not asked, the ${event.limit} has no room (${event.reason})${event.delayMs === undefined ? "" : `, perhaps in ${seconds(event.delayMs)}`}`
    case "BudgetRefused":
      return `${who}: no ${event.extra}${event.failure === undefined ? "" : ` of ${event.failure}`}, the budget for extra attempts is spent`
    case "HedgeLaunched":
      return `${who}: no answer after ${seconds(event.elapsedMs)}, asked once more beside (hedge ${event.hedge})`
    case "HedgeWon":
      return `${who}: hedge ${event.hedge} was first, after ${seconds(event.elapsedMs)}`
    case "HedgeLost":
      return `${who}: hedge ${event.hedge} ${event.failure === undefined ? "was not needed" : `failed (${event.failure})`}`
    case "CircuitOpened":
      return `${who}: circuit ${event.shadow === true ? "would have " : ""}opened${event.delayMs === undefined ? "" : ` for ${seconds(event.delayMs)}`}${event.reason === undefined ? "" : ` (${event.reason})`}`
    case "CircuitHalfOpened":
      return `${who}: circuit half-open, probing`
    case "CircuitClosed":
      return `${who}: circuit closed, healthy again`
    case "CircuitRejected":
      return `${who}: ${event.shadow === true ? "would have been " : ""}passed over, circuit open${event.delayMs === undefined ? "" : ` for ${seconds(event.delayMs)} more`}`
    case "FloorProbed":
      return `${who}: every circuit is open, asked all the same`
    case "CircuitSet":
      return `${event.circuit}: circuit ${event.to} by hand`
    case "FailedOver":
      return `${who}: ${event.failure}, over to ${event.to}`
    case "PassedOver":
      return `${who}: passed over, the prompt has ${event.tokens} tokens or more and its window ${event.contextWindow}`
    case "CandidateChanged":
      return `${who}: ${event.settings} (by ${event.by === "hand" ? "hand" : "the configuration file"})`
    case "ConfigApplied":
      return `${who}: ${event.file} holds now${event.added === 0 ? "" : `, ${event.added} candidate${event.added === 1 ? "" : "s"} more`}${event.removed === 0 ? "" : `, ${event.removed} candidate${event.removed === 1 ? "" : "s"} less`}`
    case "ConfigRejected":
      return `${who}: ${event.file} is not valid, the last good one stays (${event.problem}${event.issues > 1 ? `, and ${event.issues - 1} more` : ""})`
    case "AnswerRejected":
      return `${who}: the answer was rejected (${event.reason}${event.issues === 0 ? "" : `, ${event.issues} issue${event.issues === 1 ? "" : "s"}`})${event.again ? ", asked again" : ""}`
    case "AnswerRepaired":
      return `${who}: the answer was mended in ${event.repairs} place${event.repairs === 1 ? "" : "s"}`
    case "AnswerDoubted":
      return `${who}: accepted although ${event.check} had doubts`
    case "PromptChanged":
      return `${who}: ${event.failure}, the prompt was changed (${event.step})`
    case "Degraded":
      return `${who}: ${event.failure}, down to ${event.to}`
    case "CacheRead":
      return event.found === "nothing"
        ? `${who}: nothing in the cache`
        : `${who}: ${event.found} in the cache${event.ageMs === undefined ? "" : `, ${seconds(event.ageMs)} old`}`
    case "CacheWritten":
      return `${who}: the answer was cached`
    case "CacheUnavailable":
      return `${who}: the cache was not ${event.operation === "read" ? "read" : "written"} (${event.why})`
    case "Answered":
      return `${who}: the answer${event.source === undefined ? "" : ` from ${event.source}`}, after ${seconds(event.elapsedMs)} and ${event.attempts} attempt${event.attempts === 1 ? "" : "s"}`
    case "CallFailed":
      return `${who}: no answer (${event.failure}) after ${seconds(event.elapsedMs)} and ${event.attempts} attempt${event.attempts === 1 ? "" : "s"}`
    case "CallInterrupted":
      return `${who}: the caller left after ${seconds(event.elapsedMs)}`
  }
}
