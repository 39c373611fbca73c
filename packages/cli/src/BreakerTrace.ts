/**
 * Traces of breakers: timed steps, a policy, and what to look at after each
 * step. Read from a file, and the policy translated into the options of
 * `CircuitBreaker`, or the reason why it cannot be.
 */
import * as Predicate from "effect/Predicate"
import * as Duration from "effect/Duration"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { CircuitBreaker } from "@understudy/core"

const Looked = Schema.Union([Schema.String, Schema.Array(Schema.String), Schema.Record(Schema.String, Schema.Unknown)])

/** One step of a trace. What else is in it is not looked at. */
export const Step = Schema.Struct({
  /** When, in milliseconds from the beginning. */
  at_ms: Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0)),
  action: Schema.String,
  /** Names a call that begins in one step and ends in another. */
  call: Schema.optionalKey(Schema.Union([Schema.String, Schema.Finite])),
  /** How long the call took, as the trace reports it. */
  duration_ms: Schema.optionalKey(Schema.Finite),
  outcome: Schema.optionalKey(Schema.Literals(["success", "failure", "ignored"])),
  /** When the provider said to come back. */
  hint_ms: Schema.optionalKey(Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))),
  /** Had its caller left before it was let through? */
  aborted: Schema.optionalKey(Schema.Boolean),
  repeat: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100_000 }))),
  /** What to look at: names of fields. */
  observe: Schema.optionalKey(Looked),
  /** What was seen elsewhere: only its names are looked at. */
  expect: Schema.optionalKey(Schema.Record(Schema.String, Schema.Unknown)),
})

/** One step of a trace. */
export interface Step extends Schema.Schema.Type<typeof Step> {}

/** A trace, and the policy that it is played against. */
export const Case = Schema.Struct({
  id: Schema.Union([Schema.String, Schema.Finite]),
  policy: Schema.Record(Schema.String, Schema.Unknown),
  steps: Schema.Array(Step),
})

/** A trace, and the policy that it is played against. */
export interface Case extends Schema.Schema.Type<typeof Case> {}

/** The traces of a file: an object with `cases`, an array, one trace, or one trace a line. */
export const tracesOf = (text: string): ReadonlyArray<unknown> => {
  const whole = parsed(text)
  if (whole !== undefined) {
    if (Array.isArray(whole)) return whole
    return Predicate.isReadonlyObject(whole) && Array.isArray(whole["cases"]) ? whole["cases"] : [whole]
  }
  return text.split("\n").flatMap((line, index) => {
    if (line.trim() === "") return []
    const trace = parsed(line)
    return trace === undefined ? [new NotJson(index + 1)] : [trace]
  })
}

/** A line that is no JSON. */
export class NotJson {
  readonly line: number
  constructor(line: number) {
    this.line = line
  }
}

const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined
  }
}

// -----------------------------------------------------------------------------
// What a trace says of a policy
// -----------------------------------------------------------------------------

const Compare = Schema.optionalKey(Schema.Literals([">=", ">"]))
/** At every counted outcome, or only at failures? */
const Judge = Schema.optionalKey(Schema.Literals(["every outcome", "failures"]))
const Millis = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))
const Many = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

const TraceTrip = Schema.Union([
  Schema.Struct({ type: Schema.Literal("consecutive"), failures: Many, compare: Compare }),
  Schema.Struct({
    type: Schema.Literal("failures-of-last"),
    failures: Many,
    of: Many,
    minimumCalls: Schema.optionalKey(Many),
    compare: Compare,
    judge: Judge,
  }),
  Schema.Struct({
    type: Schema.Literal("count-rate"),
    threshold: Schema.Finite,
    size: Many,
    minimumCalls: Schema.optionalKey(Many),
    compare: Compare,
    judge: Judge,
  }),
  Schema.Struct({
    type: Schema.Literal("time-rate"),
    threshold: Schema.Finite,
    windowMs: Millis,
    minimumCalls: Schema.optionalKey(Many),
    compare: Compare,
    judge: Judge,
    buckets: Schema.optionalKey(Many),
  }),
  Schema.Struct({
    type: Schema.Literal("time-count"),
    failures: Many,
    windowMs: Millis,
    minimumCalls: Schema.optionalKey(Many),
    compare: Compare,
    judge: Judge,
    buckets: Schema.optionalKey(Many),
  }),
])
type TraceTrip = typeof TraceTrip.Type

const Slow = Schema.Struct({
  durationMs: Millis,
  rate: Schema.Finite,
  compare: Compare,
  by: Schema.optionalKey(Schema.Literals(["first content", "total"])),
})

const Decide = Schema.Union([
  Schema.Struct({ type: Schema.Literal("single-probe") }),
  Schema.Struct({ type: Schema.Literal("successes-of"), successes: Many, of: Many }),
  Schema.Struct({ type: Schema.Literal("failures-of"), failures: Many, of: Many }),
  Schema.Struct({
    type: Schema.Literal("rate-of-calls"),
    calls: Many,
    threshold: Schema.Finite,
    compare: Compare,
    early: Schema.optionalKey(Schema.Boolean),
  }),
  /** What it does not say is as the trip says. */
  Schema.Struct({
    type: Schema.Literal("rate-min-calls"),
    calls: Schema.optionalKey(Many),
    minimumCalls: Schema.optionalKey(Many),
    threshold: Schema.optionalKey(Schema.Finite),
    compare: Compare,
  }),
])
type Decide = typeof Decide.Type

const BreakerPolicy = Schema.Struct({
  kind: Schema.Literal("breaker"),
  trip: TraceTrip,
  slow: Schema.optionalKey(Slow),
  /** The n-th opening in a row; the last repeats. */
  openMs: Schema.optionalKey(Schema.Union([Millis, Schema.NonEmptyArray(Millis)])),
  /** What a generator answered instead. */
  openMsGenerator: Schema.optionalKey(Schema.Union([Millis, Schema.NonEmptyArray(Millis)])),
  openBoundary: Schema.optionalKey(Schema.Literals(["inclusive", "exclusive"])),
  halfOpen: Schema.optionalKey(Schema.Struct({ permits: Schema.optionalKey(Many), decide: Decide })),
  onExcess: Schema.optionalKey(Schema.Literals(["reject", "queue"])),
  ignoredCountsAs: Schema.optionalKey(Schema.Literals(["ignored", "success"])),
  lateResults: Schema.optionalKey(Schema.Literals(["ignored"])),
  initialState: Schema.optionalKey(
    Schema.Struct({
      state: Schema.Literals(["closed", "open", "half-open", "isolated"]),
      openedAt: Schema.optionalKey(Schema.Finite),
    }),
  ),
  /** Does it record and never reject? */
  shadow: Schema.optionalKey(Schema.Boolean),
})

/** Options of our own, for a policy that is considered. */
const OwnPolicy = Schema.Struct({ kind: Schema.Literal("breaker"), options: CircuitBreaker.Options })

/** A policy to play a trace against. */
export interface Played {
  readonly options: CircuitBreaker.Options
  readonly rules: CircuitBreaker.Rules
  readonly begin: (typeof BreakerPolicy.Type)["initialState"]
  readonly shadow: boolean
}

/** What policies of others have and ours has not, and what to do instead. */
const missing: Readonly<Record<string, string>> = {
  warmupMs: "There is no time of warming up in which nothing trips: ask for a minimum of calls instead.",
  halfOpenMaxMs:
    "The half-open state has no deadline of its own. Each probe has one (probeLimit), after which it gives its permit back, and only the outcomes of probes decide.",
  failOn: "Which failures count is said by FailureMode, not by the policy of a breaker.",
}

/** Why a trace cannot be played, for its reader. */
export class Unsupported extends Error {}

const explain = (where: string, issue: unknown): string =>
  `${where} says something that a breaker of Understudy cannot be told. ${String((issue as { message?: unknown }).message ?? issue).replaceAll(/\s+/g, " ")}`

const read = <S extends Schema.Codec<unknown, unknown>>(schema: S, value: unknown, where: string): S["Type"] => {
  const read = Schema.decodeUnknownResult(schema)(value, { onExcessProperty: "error" })
  if (Result.isSuccess(read)) return read.success
  throw new Unsupported(explain(where, read.failure))
}

const atLeastOne = (n: number | undefined): number | undefined => (n === undefined ? undefined : Math.max(1, n))

const defined = <O extends object>(options: O): O =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as O

const tripOf = (trip: TraceTrip): CircuitBreaker.Trip => {
  const { compare } = trip
  switch (trip.type) {
    case "consecutive":
      return defined({ on: "failures in a row", failures: trip.failures, compare })
    case "failures-of-last":
      return defined({
        on: "failures",
        failures: trip.failures,
        of: trip.of,
        minimum: atLeastOne(trip.minimumCalls),
        compare,
        judge: trip.judge,
      })
    case "count-rate":
      return defined({
        on: "failure rate",
        rate: trip.threshold,
        of: trip.size,
        minimum: atLeastOne(trip.minimumCalls),
        compare,
        judge: trip.judge,
      })
    case "time-rate":
    case "time-count": {
      const window = defined({
        within: trip.windowMs,
        minimum: Math.max(1, trip.minimumCalls ?? 1),
        buckets: atLeastOne(trip.buckets),
        compare,
        judge: trip.judge,
      })
      return trip.type === "time-rate"
        ? { on: "failure rate", rate: trip.threshold, ...window }
        : { on: "failures", failures: trip.failures, ...window }
    }
  }
}

const slowOf = (slow: typeof Slow.Type, trip: CircuitBreaker.Trip): CircuitBreaker.Trip => {
  const { by, compare, durationMs, rate } = slow
  const own = { on: "slow rate", slow: durationMs, rate, ...defined({ by, compare }) } as const
  if ("of" in trip) return { ...own, of: trip.of, ...defined({ minimum: trip.minimum, judge: trip.judge }) }
  if ("within" in trip) {
    return {
      ...own,
      within: trip.within,
      ...defined({ minimum: trip.minimum, buckets: trip.buckets, judge: trip.judge }),
    }
  }
  throw new Unsupported("A share of slow calls needs a window, and failures in a row have none.")
}

/** So many calls at least, and the share of failures among them that reopens it. */
const rateOf = (decide: Extract<Decide, { type: "rate-min-calls" }>, trip: TraceTrip) => {
  const calls = decide.calls ?? decide.minimumCalls ?? ("minimumCalls" in trip ? trip.minimumCalls : undefined)
  const threshold = decide.threshold ?? ("threshold" in trip ? trip.threshold : undefined)
  if (calls === undefined || threshold === undefined) {
    throw new Unsupported("A verdict by rate needs its number of calls and its threshold, or a trip that has them.")
  }
  return { of: Math.max(1, calls), rate: threshold, compare: decide.compare ?? trip.compare ?? ">=" } as const
}

const verdictOf = (decide: Decide, trip: TraceTrip): Pick<CircuitBreaker.Options, "successes" | "verdict"> => {
  switch (decide.type) {
    case "single-probe":
      return { successes: 1 }
    case "successes-of":
      return { verdict: { successes: decide.successes, of: decide.of } }
    case "failures-of":
      // So many failures of n reopen it, so one success more than the rest closes it.
      return { verdict: { successes: decide.of - decide.failures + 1, of: decide.of } }
    case "rate-of-calls": {
      const { calls, compare = ">=", early = compare === ">", threshold } = decide
      return { verdict: { rate: threshold, of: calls, compare, early } }
    }
    case "rate-min-calls":
      return { verdict: { ...rateOf(decide, trip), early: false } }
  }
}

const permitsOf = (halfOpen: NonNullable<(typeof BreakerPolicy.Type)["halfOpen"]>, trip: TraceTrip): number => {
  const { decide, permits } = halfOpen
  if (permits !== undefined) return permits
  switch (decide.type) {
    case "single-probe":
      return 1
    case "rate-of-calls":
      return decide.calls
    case "rate-min-calls":
      return rateOf(decide, trip).of
    default:
      return decide.of
  }
}

/** Calls wait for the verdict for as long as it takes. */
const waits = { wait: "1000 days", waiters: 100_000 } as const

const optionsOf = (policy: typeof BreakerPolicy.Type): CircuitBreaker.Options => {
  const trip = tripOf(policy.trip)
  const { halfOpen, openMsGenerator, openMs = openMsGenerator, slow } = policy
  const openFor = openMsGenerator ?? openMs
  return {
    trip: slow === undefined ? trip : [trip, slowOf(slow, trip)],
    ...defined({ openFor, boundary: policy.openBoundary }),
    reset: "close",
    ...(halfOpen === undefined
      ? {}
      : { permits: permitsOf(halfOpen, policy.trip), ...verdictOf(halfOpen.decide, policy.trip) }),
    excess: policy.onExcess === "queue" ? waits : "reject",
    ignored: policy.ignoredCountsAs === "success" ? "success" : "nothing",
    // Traces say nothing about probes that never return.
    probeLimit: Duration.infinity,
  }
}

/** Throws what cannot be meant as `Unsupported`, since the trace is somebody else's. */
const attempt = <A>(make: () => A): A => {
  try {
    return make()
  } catch (error) {
    if (error instanceof Unsupported) throw error
    throw new Unsupported(explain("The policy", error))
  }
}

/** The policy of a trace of a breaker, or another one that is considered. Throws `Unsupported`. */
export const breakerOf = (policy: Case["policy"], considered: CircuitBreaker.Options | undefined): Played =>
  attempt(() => {
    if (considered !== undefined) {
      return { options: considered, rules: CircuitBreaker.rules(considered), begin: undefined, shadow: false }
    }
    if ("options" in policy) {
      const { options } = read(OwnPolicy, policy, "The policy")
      return { options, rules: CircuitBreaker.rules(options), begin: undefined, shadow: false }
    }
    for (const [name, why] of Object.entries(missing)) if (name in policy) throw new Unsupported(why)
    const { state } = (policy["initialState"] ?? {}) as { readonly state?: unknown }
    if (state === "shutdown") {
      throw new Unsupported(
        "A circuit cannot be shut down for good, as a breaker with timers must be. Isolated it rejects until it is released.",
      )
    }
    if (policy["lateResults"] !== undefined && policy["lateResults"] !== "ignored") {
      throw new Unsupported("The outcome of a call that was let through in an earlier state never changes anything.")
    }
    const theirs = read(BreakerPolicy, policy, "The policy")
    const options = optionsOf(theirs)
    return {
      options,
      rules: CircuitBreaker.rules(options),
      begin: theirs.initialState,
      shadow: theirs.shadow === true,
    }
  })

const TripperPolicy = Schema.Struct({
  kind: Schema.Literal("tripper"),
  trip: TraceTrip,
  slow: Schema.optionalKey(Slow),
})

/** What trips, of a trace of a tripper. Throws `Unsupported`. */
export const tripperOf = (policy: Case["policy"]): ReturnType<typeof CircuitBreaker.tripper> =>
  attempt(() => {
    const theirs = read(TripperPolicy, policy, "The policy")
    const trip = tripOf(theirs.trip)
    return CircuitBreaker.tripper({ trip: theirs.slow === undefined ? trip : [trip, slowOf(theirs.slow, trip)] })
  })

/** Why traces of this kind are not played. */
export const otherKind = (kind: unknown): string =>
  `Only traces of the kinds breaker and tripper are played here, not of ${JSON.stringify(kind) ?? "none"}.`
