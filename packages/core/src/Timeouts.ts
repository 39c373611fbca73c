/**
 * Timeouts: a contract with the caller, who gets an answer in time, or word
 * that there is none.
 *
 * An attempt has a clock of its own (30 seconds). A stream has three: one for
 * its first content (30 seconds), one for the gap between content and content
 * (20 seconds), and one for the whole (120 seconds); on request one for its
 * headers, and a minimum rate. The call has a deadline, the one instant
 * by which it must have ended, whatever happens inside.
 *
 * **Details**
 *
 * - When a clock runs out the attempt is interrupted, which closes its socket,
 *   and fails with `TimedOut` once its cleanup is done.
 * - The clock of first content runs over the whole preamble. Metadata and
 *   keep-alives are not content; text, reasoning and tool calls are.
 * - The clock of headers is the adapter's, which alone sees them
 *   (`CurrentHeadersLimit`); that of the connection is the transport's.
 * - Behind the commit point the failure is `StreamInterrupted`, which carries
 *   `TimedOut`. The time that the consumer takes does not count.
 * - At the deadline the running attempt is interrupted, and the call fails with
 *   `DeadlineExceeded`. No attempt starts after it, and no backoff sleeps past
 *   it.
 *
 * **Gotchas**
 *
 * - An attempt that cannot be interrupted is waited for.
 */
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type { Any, Hidden, Part } from "./Face.ts"
import { checked, Count, DurationInput, millis } from "./internal/options.ts"
import { type Clocks, CurrentHeadersLimit } from "./internal/plan.ts"
import type { DeadlineExceeded, StreamInterrupted, TimedOut } from "./internal/llmError.ts"
import type { Policy, Provider } from "./internal/provider.ts"
import { compositePlan, fromEffect, fromPlan, fromStream, peek, planOf, wrap } from "./internal/provider.ts"

/** The clocks of an attempt. */
export const Options = Schema.Struct({
  /** An answer, whole. Default 30 seconds. */
  attempt: Schema.optional(DurationInput),
  /** A stream's first content. Default 30 seconds. */
  firstContent: Schema.optional(DurationInput),
  /** The gap between content and content of a stream. Default 20 seconds. */
  idle: Schema.optional(DurationInput),
  /** A stream, whole. Default 120 seconds. */
  streamAttempt: Schema.optional(DurationInput),
  /** The headers of a stream, where the adapter sees them. Those of an answer come with it. Default: none but that of first content. */
  headers: Schema.optional(DurationInput),
  /** How fast a stream must be: so many parts of content at least `within` each such time of waiting. Default: none. */
  minimumRate: Schema.optional(Schema.Struct({ parts: Count, within: DurationInput })),
})

/** The clocks of an attempt. */
export interface Options extends Schema.Schema.Type<typeof Options> {}

const clocksOf = (where: string, options: Options): Clocks => {
  const o = checked(where, Options, options)
  return {
    attempt: millis(o.attempt, "30 seconds"),
    firstContent: millis(o.firstContent, "30 seconds"),
    idle: millis(o.idle, "20 seconds"),
    streamAttempt: millis(o.streamAttempt, "120 seconds"),
    headers: o.headers === undefined ? Infinity : millis(o.headers, "0 millis"),
    rate:
      o.minimumRate === undefined
        ? undefined
        : { parts: o.minimumRate.parts, within: millis(o.minimumRate.within, "0 millis") },
  }
}

const shorter = (a: Clocks, b: Clocks): Clocks => ({
  attempt: Math.min(a.attempt, b.attempt),
  firstContent: Math.min(a.firstContent, b.firstContent),
  idle: Math.min(a.idle, b.idle),
  streamAttempt: Math.min(a.streamAttempt, b.streamAttempt),
  headers: Math.min(a.headers, b.headers),
  rate: a.rate ?? b.rate,
})

/**
 * Gives the attempts of a provider clocks. Of two the shorter counts.
 *
 * Adds `TimedOut`.
 */
const with_ = (options: Options = {}): Policy<TimedOut> => {
  const clocks = clocksOf("Timeouts.with", options)
  return <F extends Any, E, R>(self: Provider<F, E, R>): Provider<F, E | TimedOut, R> => {
    const peekSelf: Parameters<typeof fromPlan>[1] = (context, record, now) => peek(self, context, record, now)
    const plan = planOf(self) ?? compositePlan(self)
    return fromPlan<F, E | TimedOut, R>({ ...plan, clocks: shorter(plan.clocks, clocks) }, peekSelf)
  }
}

export { with_ as with }

export {
  /**
   * How long an adapter waits for the headers of a stream, in milliseconds. It alone sees them; what it fails with is
   * `TimedOut` of phase `headers`.
   */
  CurrentHeadersLimit,
}

/** The deadline of a call. */
export const DeadlineOptions = Schema.Struct({
  /** For an answer. Default 90 seconds. */
  generate: Schema.optional(DurationInput),
  /** For a stream, whole. Default 180 seconds. */
  stream: Schema.optional(DurationInput),
})

/** The deadline of a call. */
export interface DeadlineOptions extends Schema.Schema.Type<typeof DeadlineOptions> {}

/**
 * The call must have ended by then. A deadline that the caller set for the call
 * (`Call.withDeadline`) counts instead.
 *
 * Adds `DeadlineExceeded`.
 */
export const deadline = (options: DeadlineOptions = {}): Policy<DeadlineExceeded> => {
  const o = checked("Timeouts.deadline", DeadlineOptions, options)
  const limits = { generate: millis(o.generate, "90 seconds"), stream: millis(o.stream, "180 seconds") }
  return <F extends Any, E, R>(self: Provider<F, E, R>): Provider<F, E | DeadlineExceeded, R> =>
    wrap<F, E, R, E | DeadlineExceeded, R>(self, (run, record, kind, now) => {
      record.limit(limits[kind])
      return run(now)
    })
}

/** Gives an effect the clock `attempt`. */
export const effect = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  options: Options & { readonly name?: string | undefined } = {},
): Effect.Effect<A, E | TimedOut, R> => {
  const { name, ...rest } = options
  return fromEffect(self, { name }).pipe(with_(rest)).generate()
}

/** Gives a stream its clocks. Needs the face of its parts, which knows content and end marker. */
export const stream = <F extends Any, E, R>(
  self: Stream.Stream<Part<F>, E, R>,
  options: Options & { readonly face: F; readonly name?: string | undefined },
): Stream.Stream<Part<F>, E | Hidden<F> | TimedOut | StreamInterrupted, R> => {
  const { face, name, ...rest } = options
  return fromStream(self, { face, name })
    .pipe(with_(rest))
    .stream(undefined as never)
}
