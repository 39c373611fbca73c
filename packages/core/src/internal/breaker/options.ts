/** The options of a circuit breaker: plain data, and what the machine makes of them. */
import type * as Duration from "effect/Duration"
import type * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { checked, Count, DurationInput, InvalidOptions, millis } from "../options.ts"
import { growing, listed, scheduled } from "./opening.ts"
import type { Compare, Rules, Verdict, Watch } from "./rules.ts"

export type { Rules } from "./rules.ts"

const CompareOption = Schema.Literals([">=", ">"])
const Share = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 }))
const Size = Count.check(Schema.isLessThanOrEqualTo(10_000))
const Buckets = Count.check(Schema.isLessThanOrEqualTo(1000))

const judging = {
  /** Is a threshold that is reached enough (`>=`), or must it be exceeded (`>`)? Default `>=`. */
  compare: Schema.optional(CompareOption),
  /**
   * When it is judged: at every counted outcome, so that a success may complete the minimum; or only at failures, and
   * slow calls. Default `every outcome`.
   */
  judge: Schema.optional(Schema.Literals(["every outcome", "failures"])),
}
/** The last so many calls. */
const counted = {
  of: Size,
  /** Calls that must be in it. Default: all. */
  minimum: Schema.optional(Count),
  ...judging,
}
/** The calls of the last so long. */
const timed = {
  within: DurationInput,
  /** Calls that must be in it. Default 10. */
  minimum: Schema.optional(Count),
  /** How finely the time is divided: what is older is forgotten in steps of one bucket. Default 10. */
  buckets: Schema.optional(Buckets),
  ...judging,
}
const failures = { on: Schema.Literal("failures"), failures: Count }
const failureRate = { on: Schema.Literal("failure rate"), rate: Share }
const slowRate = {
  on: Schema.Literal("slow rate"),
  /** A call that takes longer is slow, whether or not it fails. */
  slow: DurationInput,
  /** Up to its first content, or to its end. Default `first content`; an answer that comes whole has no difference. */
  by: Schema.optional(Schema.Literals(["first content", "total"])),
  rate: Share,
}

/**
 * What trips a closed circuit.
 *
 * - `failures in a row`
 * - `failures`: so many `of` the last calls, or `within` a time
 * - `failure rate`: such a share `of` the last calls, or `within` a time
 * - `slow rate`: such a share of calls that are slower than `slow`
 */
export const Trip = Schema.Union([
  Schema.Struct({ on: Schema.Literal("failures in a row"), failures: Count, compare: judging.compare }),
  Schema.Struct({ ...failures, ...counted, minimum: Schema.optional(Count) }),
  Schema.Struct({ ...failures, ...timed }),
  Schema.Struct({ ...failureRate, ...counted }),
  Schema.Struct({ ...failureRate, ...timed }),
  Schema.Struct({ ...slowRate, ...counted }),
  Schema.Struct({ ...slowRate, ...timed }),
])

/** What trips a closed circuit. */
export type Trip = typeof Trip.Type

/** How a circuit behaves. */
export const Options = Schema.Struct({
  /** Counted failures in a row that open it. Default 5, and none when there is a `trip`. */
  failures: Schema.optional(Count),
  /** What else opens it: one thing, or any of several. */
  trip: Schema.optional(Schema.Union([Trip, Schema.NonEmptyArray(Trip)])),
  /**
   * How long it stays open: a time, one for each opening in a row (the last repeats), or one that grows with them.
   * Default 60 seconds.
   */
  openFor: Schema.optional(
    Schema.Union([
      Schema.NonEmptyArray(DurationInput),
      Schema.Struct({
        base: DurationInput,
        /** Default 2. */
        factor: Schema.optional(Schema.Finite.check(Schema.isGreaterThanOrEqualTo(1))),
        /** Default 10 minutes. */
        cap: Schema.optional(DurationInput),
        /** It is longer by up to this share, by chance, so that many processes do not probe at once. Default 0. */
        jitter: Schema.optional(Share),
      }),
      DurationInput,
    ]),
  ),
  /**
   * When openings are counted anew: when it closes, or after it has stayed closed for so long. Default `open time`: for as
   * long as it was open last.
   */
  reset: Schema.optional(Schema.Union([Schema.Literals(["close", "open time"]), DurationInput])),
  /** Is a call at the very end of the open time let through? Default `inclusive`: yes. */
  boundary: Schema.optional(Schema.Literals(["inclusive", "exclusive"])),
  /** Probes in flight at most, while half-open. Default 3. */
  permits: Schema.optional(Count),
  /** Probes that must succeed in a row to close it. Default 3. */
  successes: Schema.optional(Count),
  /**
   * What probes must show instead: so many successes `of` so many probes, or at most such a `rate` of failures among so
   * many. With a rate it opens again as soon as that is certain, unless `early` is false.
   */
  verdict: Schema.optional(
    Schema.Union([
      Schema.Struct({ successes: Count, of: Count }),
      Schema.Struct({
        rate: Share,
        of: Count,
        compare: Schema.optional(CompareOption),
        early: Schema.optional(Schema.Boolean),
      }),
    ]),
  ),
  /**
   * What becomes of calls that find all permits out: they are rejected, or wait for the verdict. By default at most 100
   * wait, for 10 seconds at most. Default `reject`.
   */
  excess: Schema.optional(
    Schema.Union([
      Schema.Literals(["reject", "wait"]),
      Schema.Struct({ wait: DurationInput, waiters: Schema.optional(Count) }),
    ]),
  ),
  /** When a probe that has not come back no longer holds its permit. What it says then changes nothing. Default 3 minutes. */
  probeLimit: Schema.optional(DurationInput),
  /** A hint longer than this opens it at once. Default 2 seconds. */
  patience: Schema.optional(DurationInput),
  /** The longest that a hint can keep it open. Default 1 hour. */
  maxHint: Schema.optional(DurationInput),
  /** What an ignored outcome means, such as a refused prompt. A caller who left always means nothing. Default `nothing`. */
  ignored: Schema.optional(Schema.Literals(["nothing", "success"])),
  /** Whose key and quota it is: candidates with the same account share a circuit for these. Default: the provider's name. */
  account: Schema.optional(Schema.NonEmptyString),
})

/** How a circuit behaves. */
export interface Options extends Schema.Schema.Type<typeof Options> {}

/** What cannot be meant, though each part of it can. */
const refuse = (where: string, option: string, problem: string): never => {
  throw new InvalidOptions(where, `${option}: ${problem}`)
}

const inARowOf = (o: Options, trips: ReadonlyArray<Trip>): number => {
  const limits = trips.flatMap((trip) =>
    trip.on === "failures in a row" ? [trip.compare === ">" ? trip.failures + 1 : trip.failures] : [],
  )
  if (o.failures !== undefined) limits.push(o.failures)
  else if (trips.length === 0) limits.push(5)
  return Math.min(Infinity, ...limits)
}

const watchOf = (where: string, trip: Exclude<Trip, { readonly on: "failures in a row" }>): Watch => {
  const compare: Compare = trip.compare ?? ">="
  const threshold = trip.on === "failures" ? trip.failures : trip.rate
  const option = `trip on ${trip.on}`
  if (trip.on !== "failures") checkRate(where, option, threshold, compare)
  const span = "of" in trip ? { last: trip.of } : { millis: millis(trip.within, 0), buckets: trip.buckets ?? 10 }
  if ("last" in span) {
    const most = compare === ">=" ? span.last : span.last - 1
    if (trip.on === "failures" && threshold > most)
      refuse(where, option, `it never has so many failures of ${span.last}`)
    if ((trip.minimum ?? 0) > span.last) refuse(where, option, `it never has the minimum of calls of ${span.last}`)
  } else if (span.millis <= 0) refuse(where, option, "expected within to be more than no time")
  // A number of failures needs no others beside it.
  const usual = trip.on === "failures" ? 1 : "last" in span ? span.last : 10
  return {
    what: trip.on,
    span,
    threshold,
    compare,
    minimum: trip.minimum ?? usual,
    always: trip.judge !== "failures",
    slowAfter: trip.on === "slow rate" ? millis(trip.slow, 0) : Infinity,
    slowBy: trip.on === "slow rate" ? (trip.by ?? "first content") : "first content",
  }
}

const checkRate = (where: string, option: string, rate: number, compare: Compare): void => {
  if (compare === ">=" && rate === 0) refuse(where, option, "expected a rate of more than 0, since 0 is always reached")
  if (compare === ">" && rate === 1) refuse(where, option, "expected a rate of less than 1, since 1 is never exceeded")
}

const verdictOf = (where: string, o: Options): Verdict => {
  const { verdict } = o
  if (verdict === undefined) {
    const successes = o.successes ?? 3
    return { by: "successes", successes, of: successes }
  }
  if ("rate" in verdict) {
    const { compare = ">=", early = true, of, rate } = verdict
    checkRate(where, "verdict", rate, compare)
    return { by: "rate", rate, of, compare, early }
  }
  if (verdict.successes > verdict.of) refuse(where, "verdict", `it never has so many successes of ${verdict.of}`)
  return { by: "successes", ...verdict }
}

const openTimeOf = (
  openFor: Options["openFor"],
  schedule: Schedule.Schedule<unknown, number> | undefined,
): Rules["openTime"] => {
  if (schedule !== undefined) return () => scheduled(schedule)
  if (Array.isArray(openFor)) {
    const all = openFor.map((one: Duration.Input) => millis(one, 0))
    return () => listed(all)
  }
  if (typeof openFor === "object" && "base" in openFor) {
    const { base, cap, factor = 2, jitter = 0 } = openFor
    const numbers = { base: millis(base, 0), factor, cap: millis(cap, "10 minutes"), jitter }
    return () => growing(numbers)
  }
  const always = [millis(openFor as Duration.Input | undefined, "60 seconds")]
  return () => listed(always)
}

const isMany = (trip: NonNullable<Options["trip"]>): trip is readonly [Trip, ...Array<Trip>] => Array.isArray(trip)

const excessOf = ({ excess }: Options): Rules["excess"] => {
  if (excess === undefined || excess === "reject") return undefined
  const { wait = "10 seconds", waiters = 100 } = excess === "wait" ? {} : excess
  return { wait: millis(wait, 0), waiters }
}

/** The options as the machine wants them. Throws `InvalidOptions`. */
export const rulesOf = (
  where: string,
  options: Options & { readonly schedule?: Schedule.Schedule<unknown, number> | undefined },
): Rules => {
  const { schedule, ...plain } = options
  const o = checked(where, Options, plain)
  const trips = o.trip === undefined ? [] : isMany(o.trip) ? o.trip : [o.trip]
  return {
    inARow: inARowOf(o, trips),
    watches: trips.flatMap((trip) => (trip.on === "failures in a row" ? [] : [watchOf(where, trip)])),
    openTime: openTimeOf(o.openFor, schedule),
    reset:
      o.reset === undefined || o.reset === "open time"
        ? "open time"
        : o.reset === "close"
          ? "close"
          : millis(o.reset, 0),
    boundary: o.boundary ?? "inclusive",
    permits: o.permits ?? 3,
    verdict: verdictOf(where, o),
    probeLimit: millis(o.probeLimit, "3 minutes"),
    patience: millis(o.patience, "2 seconds"),
    maxHint: millis(o.maxHint, "1 hour"),
    ignored: o.ignored ?? "nothing",
    excess: excessOf(o),
  }
}
