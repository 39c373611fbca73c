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
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import * as StreamModule from "effect/Stream"
import { RejectionReason, tags, TimeoutPhase } from "./internal/llmError.ts"

const common = {
  /** When, in milliseconds of Unix time. */
  at: Schema.Finite,
  /** Which call: the same in all its events. */
  call: Schema.String,
}
const asked = { ...common, provider: Schema.String, model: Schema.optionalKey(Schema.String) }
const FailureTag = Schema.Literals(tags as [(typeof tags)[number], ...Array<(typeof tags)[number]>])
const circuit = { ...asked, /** The key of the circuit. */ circuit: Schema.String }

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
  of("AttemptStarted", { ...asked, attempt: Schema.Int }),
  /** The attempt failed, after `elapsedMs`. `phase`: which clock ran out, for `TimedOut`. */
  of("AttemptFailed", {
    ...asked,
    attempt: Schema.Int,
    failure: FailureTag,
    phase: Schema.optionalKey(TimeoutPhase),
    elapsedMs: Schema.Finite,
  }),
  /** The attempt succeeded: for a stream, when its end marker came. */
  of("AttemptSucceeded", { ...asked, attempt: Schema.Int, elapsedMs: Schema.Finite }),
  /** The attempt was ended by its caller. */
  of("AttemptInterrupted", { ...asked, attempt: Schema.Int, elapsedMs: Schema.Finite }),
  /** The stream's first content came: nothing is asked again from here on. */
  of("Committed", { ...asked, attempt: Schema.Int, elapsedMs: Schema.Finite }),
  /** The same provider is asked again after `delayMs`. */
  of("BackedOff", { ...asked, failure: FailureTag, delayMs: Schema.Finite }),
  /** A circuit opened, for `delayMs`; for good without. */
  of("CircuitOpened", { ...circuit, delayMs: Schema.optionalKey(Schema.Finite) }),
  /** A circuit lets probes through. */
  of("CircuitHalfOpened", circuit),
  /** A circuit closed. */
  of("CircuitClosed", circuit),
  /** A provider was passed over without an attempt, since its circuit is open for `delayMs` more. */
  of("CircuitRejected", { ...circuit, delayMs: Schema.optionalKey(Schema.Finite) }),
  /** The next candidate, `to`, is asked. */
  of("FailedOver", { ...asked, failure: FailureTag, to: Schema.String }),
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

/** Tells an observer of every event of every call below the layer. */
export const layer = (observer: Observer): Layer.Layer<never> => Layer.succeed(CurrentObserver)(observer)

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
    case "CircuitOpened":
      return `${who}: circuit opened${event.delayMs === undefined ? "" : ` for ${seconds(event.delayMs)}`}`
    case "CircuitHalfOpened":
      return `${who}: circuit half-open, probing`
    case "CircuitClosed":
      return `${who}: circuit closed, healthy again`
    case "CircuitRejected":
      return `${who}: passed over, circuit open${event.delayMs === undefined ? "" : ` for ${seconds(event.delayMs)} more`}`
    case "FailedOver":
      return `${who}: ${event.failure}, over to ${event.to}`
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
