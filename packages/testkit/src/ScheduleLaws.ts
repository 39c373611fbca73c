/**
 * Laws for retry schedules: what every backoff should keep, checked against a
 * schedule of your own in virtual time, with random failures and random chance.
 *
 * A schedule of retries takes the failure as its input and says how long to
 * wait. Most mistakes in one show on a bad day only: a jitter that goes over
 * the cap, a hint that is read from the first failure, a state that two calls
 * share. Each law is one sentence; a schedule that breaks one is shown with the
 * waits that break it.
 *
 * | law | the schedule |
 * |---|---|
 * | `deterministic` | gives the same waits for the same failures, times and seed |
 * | `neverNegative` | never gives a wait that is negative, or without end |
 * | `stops` | stops after at most so many waits |
 * | `capped` | waits no longer than the cap |
 * | `monotone` | backs off: the longest that a wait can be never shrinks |
 * | `boundedTotal` | waits no longer than the total, all waits summed |
 * | `honoursHint` | waits at least as long as the latest failure asks |
 *
 * **Details**
 *
 * - The first two hold for every schedule and are always checked; the others
 *   when an option asks for them.
 * - `capped`, `monotone` and `boundedTotal` speak of failures without a hint: a
 *   provider may ask for more than your cap.
 * - The envelope of `monotone` is the longest wait at each step over many
 *   random sources, among them the two that give the lowest and the highest
 *   number each time. A shrinking by less than a tenth is taken for chance.
 * - Between waits the attempts take time, none or some seconds, except for
 *   `monotone`.
 * - `ofPolicy` is a whole policy instead of a schedule: it is put around a
 *   `FakeProvider` and played, and its waits are the gaps between attempts.
 *
 * **Gotchas**
 *
 * - Sequences have 40 failures. An uncapped exponential overflows after a
 *   thousand: raise `steps` to see it.
 * - A schedule that keeps state from call to call is caught by `deterministic`
 *   as long as that state still changes: check it while it is new.
 * - A schedule that is given to `Retry.with` need not honour hints, since
 *   `Retry` does. One that is given to `Effect.retry` must.
 *
 * **Example** (A schedule of one's own)
 *
 * ```ts
 * import { ScheduleLaws } from "@understudy/testkit"
 * import { Schedule } from "effect"
 *
 * const backoff = Schedule.min([Schedule.exponential("500 millis"), Schedule.spaced("8 seconds")]).pipe(
 *   Schedule.upTo({ times: 5 }),
 * )
 *
 * export const test = ScheduleLaws.check(backoff, { cap: "8 seconds", times: 5, total: "16 seconds", monotone: true })
 * ```
 *
 * **Example** (One law, as a property of a test runner)
 *
 * ```ts
 * import { ScheduleLaws } from "@understudy/testkit"
 * import { Arbitrary, Effect, Schedule } from "effect"
 *
 * const law = ScheduleLaws.stops(Schedule.recurs(3), 3)
 *
 * // With @effect/vitest: it.effect.prop(law.title, { sequence: law.sequences }, ({ sequence }) => law.holds(sequence))
 * export const test = Arbitrary.checkEffect(law.sequences, (sequence) => Effect.as(law.holds(sequence), true))
 * ```
 *
 * Full and decorrelated jitter: Brooker, "Exponential Backoff and Jitter", AWS, 2015.
 */
import type { RetryableTag } from "@understudy/core/FailureMode"
import { retryableTags } from "@understudy/core/FailureMode"
import type { LanguageModelFace } from "@understudy/core/LanguageModelFace"
import { request } from "@understudy/core/LanguageModelFace"
import type { ProviderFailure, WithTag } from "@understudy/core/LlmError"
import type { Provider } from "@understudy/core/Provider"
import * as Arbitrary from "effect/Arbitrary"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as FakeProvider from "./FakeProvider.ts"
import { Chance, draws, randomOf } from "./internal/Chance.ts"
import { failureOf, nameOf } from "./internal/Failure.ts"
import { PassingClock } from "./internal/PassingClock.ts"
import { play } from "./internal/Stage.ts"
import { table, time } from "./internal/Table.ts"

// -----------------------------------------------------------------------------
// Laws
// -----------------------------------------------------------------------------

/** The laws, each in a sentence. */
export const titles = {
  deterministic: "gives the same waits for the same failures, times and seed",
  neverNegative: "never gives a wait that is negative, or without end",
  stops: "stops after at most so many waits",
  capped: "waits no longer than the cap",
  monotone: "backs off: the longest that a wait can be never shrinks",
  boundedTotal: "waits no longer than the total, all waits summed",
  honoursHint: "waits at least as long as the latest failure asks",
} as const

/** The name of a law. */
export type Law = keyof typeof titles

/** All laws, in the order in which they are checked: what depends on earlier calls shows best in the first ones. */
export const laws = Object.keys(titles) as ReadonlyArray<Law> as readonly [Law, ...ReadonlyArray<Law>]

/** One wait of a counterexample. Times are milliseconds. */
export const Wait = Schema.Struct({
  /** Which wait, counted from 1. */
  step: Schema.Int,
  /** The tag or name of the failure before it. */
  failure: Schema.String,
  /** When that failure said to come back. */
  hint: Schema.optionalKey(Schema.Number),
  wait: Schema.Number,
  /** The same wait in a second run, where that is the point. */
  again: Schema.optionalKey(Schema.Number),
  /** From the first attempt to the end of the wait, attempts included. */
  elapsed: Schema.Number,
})

/** One wait of a counterexample. */
export interface Wait extends Schema.Schema.Type<typeof Wait> {}

/** A schedule breaks a law. The message shows how, as a table. */
export class LawBroken extends Schema.TaggedError<LawBroken>("@understudy/testkit/ScheduleLaws/LawBroken")(
  "LawBroken",
  {
    law: Schema.Literals(laws),
    /** What is wrong, in a sentence. */
    reason: Schema.String,
    counterexample: Schema.Array(Wait),
    /** The wait that breaks it, counted from 1, where it is one. */
    step: Schema.optionalKey(Schema.Int),
    /** The random source: a seed, or one that always gives its lowest or highest number. */
    chance: Chance,
  },
) {
  override get message(): string {
    const { chance, counterexample, law, reason } = this
    const twice = counterexample.some(({ again }) => again !== undefined)
    const columns = ["step", "failure", "hint", "wait", ...(twice ? ["again"] : []), "elapsed"]
    const rows = counterexample.map((wait) => [
      String(wait.step),
      wait.failure,
      wait.hint === undefined ? "–" : time(wait.hint),
      time(wait.wait),
      ...(twice ? [wait.again === undefined ? "–" : time(wait.again)] : []),
      time(wait.elapsed),
    ])
    const pointAt = this.step === undefined ? undefined : counterexample.findIndex(({ step }) => step === this.step)
    const source = typeof chance === "number" ? `seed ${chance}` : `always the ${chance} number`
    return `The law "${law}" is broken: a schedule ${titles[law]}. ${reason}\n\n${table(columns, rows, pointAt)}\n\nRandom source: ${source}.`
  }
}

// -----------------------------------------------------------------------------
// What is checked
// -----------------------------------------------------------------------------

/** A failure, and how long the attempt took that ended with it, in milliseconds. */
export interface Round<out In> {
  readonly failure: In
  readonly took: number
}

/** What a schedule is given: failures in order, and a random source. */
export interface Sequence<out In> {
  readonly rounds: ReadonlyArray<Round<In>>
  readonly chance: Chance
}

export type { Chance }

/** Anything that waits between attempts. */
export interface Subject<in In, out R = never> {
  /** The waits in milliseconds, one for each failure, until it gives up. Every run begins anew. */
  readonly waits: (sequence: Sequence<In>) => Effect.Effect<ReadonlyArray<number>, never, R>
}

/** A schedule whose input is the failure, as a subject of the laws. */
export const ofSchedule = <In, R>(schedule: Schedule.Schedule<unknown, In, never, R>): Subject<In, R> => ({
  waits: ({ chance, rounds }) =>
    Effect.suspend(() => {
      const clock = new PassingClock()
      return Effect.gen(function* () {
        const step = yield* Schedule.toStep(schedule)
        const waits: Array<number> = []
        for (const { failure, took } of rounds) {
          clock.pass(took)
          const wait = yield* Pull.matchEffect(step(clock.currentTimeMillisUnsafe(), failure), {
            onSuccess: ([, delay]) => Effect.succeed(Duration.toMillis(delay)),
            onFailure: Effect.failCause,
            onDone: () => Effect.succeed(undefined),
          })
          if (wait === undefined) break
          waits.push(wait)
          if (!Number.isFinite(wait)) break
          clock.pass(wait)
        }
        return waits
      }).pipe(Effect.provideService(Clock.Clock, clock), Effect.provideService(Random.Random, randomOf(chance)))
    }),
})

/**
 * A policy that asks again, as a subject of the laws. It is put around a
 * `FakeProvider` that fails as the sequence says and then answers, and is
 * played on a test clock of its own.
 */
export const ofPolicy = <In extends object, E, R>(
  policy: (provider: Provider<LanguageModelFace, In | ProviderFailure>) => Provider<LanguageModelFace, E, R>,
): Subject<In, R> => ({
  waits: ({ chance, rounds }) =>
    Effect.gen(function* () {
      const fake = yield* FakeProvider.make({
        script: rounds.map(({ failure, took }) => FakeProvider.delay(took, FakeProvider.fail(failure))),
        then: "answer",
      })
      const call = policy(fake.provider).generate(request("A question"))
      yield* play(Effect.provideService(call, Random.Random, randomOf(chance)))
      const calls = yield* fake.calls
      return calls.slice(1).map((call, index) => call.at - (calls[index]?.endedAt ?? call.at))
    }),
})

/** What can be checked: a schedule as it is, or a subject. */
export type Checkable<In, R> = Schedule.Schedule<unknown, In, never, R> | Subject<In, R>

const subjectOf = <In, R>(self: Checkable<In, R>): Subject<In, R> =>
  Schedule.isSchedule(self) ? ofSchedule(self as Schedule.Schedule<unknown, In, never, R>) : (self as Subject<In, R>)

// -----------------------------------------------------------------------------
// Failures
// -----------------------------------------------------------------------------

/** Failures that `Retry` can be asked to retry. */
export type Retryable = WithTag<RetryableTag>

/**
 * Failures of these tags, or of all that can be retried: half of them with a
 * hint of up to 30 seconds.
 */
export const failures = <const T extends RetryableTag = RetryableTag>(
  ...tags: ReadonlyArray<T>
): Arbitrary.Arbitrary<WithTag<T>> => {
  const from = (tags.length === 0 ? retryableTags : tags) as readonly [T, ...ReadonlyArray<T>]
  return Arbitrary.map(
    Arbitrary.all({
      tag: Arbitrary.schema(Schema.Literals(from)),
      hinted: Arbitrary.schema(Schema.Boolean),
      hint: between(1, 30_000),
    }),
    ({ hint, hinted, tag }) =>
      failureOf(tag, { provider: "laws", model: "laws-1" }, hinted ? { retryAfter: hint } : {}),
  )
}

/** The `retryAfter` of a failure, where it has one that is a duration. */
export const hintOf = (failure: unknown): Duration.Duration | undefined =>
  Predicate.hasProperty(failure, "retryAfter") && Duration.isDuration(failure.retryAfter)
    ? failure.retryAfter
    : undefined

/** Which failures a schedule is given. */
export interface Given<In> {
  /** When a failure says to come back. Default `hintOf`. */
  readonly hint?: ((failure: In) => Duration.Duration | undefined) | undefined
  /** How many failures a sequence has. Default 40. */
  readonly steps?: number | undefined
}

interface GivenFailures<In> {
  /** The failures. Default: all of the union that can be retried. */
  readonly failures: Arbitrary.Arbitrary<In>
}

/** A schedule whose input is narrower than all failures that can be retried must be given its failures. */
export type WithFailures<In> = [Retryable] extends [In] ? Partial<GivenFailures<In>> : GivenFailures<In>

type Rest<In, Options> = [Retryable] extends [In]
  ? [options?: Options & WithFailures<In>]
  : [options: Options & WithFailures<In>]

// -----------------------------------------------------------------------------
// Properties
// -----------------------------------------------------------------------------

/** A law for one subject, as a property of any runner. */
export interface Property<in out In, out R = never> {
  readonly law: Law
  /** The law in a sentence, for the name of a test. */
  readonly title: string
  readonly sequences: Arbitrary.Arbitrary<Sequence<In>>
  readonly holds: (sequence: Sequence<In>) => Effect.Effect<void, LawBroken, R>
}

/** No wait is negative, or without end. */
export const neverNegative = <In, R>(self: Checkable<In, R>, ...[options]: Rest<In, Given<In>>): Property<In, R> =>
  property("neverNegative", self, given(options), any, (run) =>
    run.find(
      (wait) => !(wait >= 0 && Number.isFinite(wait)),
      (wait) => `Wait %s is ${time(wait)}.`,
    ),
  )

/** The same failures at the same times, with the same seed, give the same waits: nothing is kept from call to call. */
export const deterministic = <In, R>(self: Checkable<In, R>, ...[options]: Rest<In, Given<In>>): Property<In, R> => {
  const { hint, ...rest } = given(options)
  const subject = subjectOf(self)
  return {
    ...property("deterministic", self, { hint, ...rest }, any, () => undefined),
    holds: (sequence) =>
      Effect.gen(function* () {
        const first = yield* subject.waits(sequence)
        const second = yield* subject.waits(sequence)
        const length = Math.max(first.length, second.length)
        const differs = Array.from({ length }, (_, index) => index).find((index) => !same(first[index], second[index]))
        if (differs === undefined) return
        const run = new Run(sequence, first, hint)
        const step = Math.min(differs + 1, first.length)
        const reason =
          first.length === second.length || differs < Math.min(first.length, second.length)
            ? `Wait ${differs + 1} is another one in a second run.`
            : `There are ${first.length} waits, and in a second run ${second.length}.`
        return yield* run.broken("deterministic", reason, step === 0 ? undefined : step, second)
      }),
  }
}

/** It gives up after at most so many waits. */
export const stops = <In, R>(
  self: Checkable<In, R>,
  times: number,
  ...[options]: Rest<In, Omit<Given<In>, "steps">>
): Property<In, R> =>
  property("stops", self, { ...given(options), steps: times + 1 }, any, (run) =>
    run.waits.length > times
      ? run.breaks(times + 1, `It waits a ${ordinal(times + 1)} time; ${times} are allowed.`)
      : undefined,
  )

/** No wait after a failure without a hint is longer than the cap. */
export const capped = <In, R>(
  self: Checkable<In, R>,
  cap: Duration.Input,
  ...[options]: Rest<In, Given<In>>
): Property<In, R> => {
  const limit = Duration.toMillis(cap)
  return property("capped", self, given(options), any, (run) =>
    run.find(
      (wait, hint) => hint === undefined && wait > limit + tolerance,
      (wait) => `Wait %s is ${time(wait)}, and the cap is ${time(limit)}.`,
    ),
  )
}

/** The longest that each wait can be, over all chance, is at least that of the waits before: for one failure without a hint. */
export const monotone = <In, R>(self: Checkable<In, R>, ...[options]: Rest<In, Given<In>>): Property<In, R> => {
  const known = given(options)
  const subject = subjectOf(self)
  return {
    ...property("monotone", self, known, constant, () => undefined),
    holds: ({ chance, rounds }) =>
      Effect.gen(function* () {
        const seeds = typeof chance === "number" ? chance : 0
        const chances: ReadonlyArray<Chance> = ["highest", "lowest", ...Array.from({ length: 64 }, (_, n) => seeds + n)]
        const envelope: Array<number> = []
        for (const chance of chances) {
          const waits = yield* subject.waits({ chance, rounds })
          for (const [n, wait] of waits.entries()) envelope[n] = Math.max(envelope[n] ?? -Infinity, wait)
        }
        let highest = -Infinity
        for (const [n, longest] of envelope.entries()) {
          if (longest < highest * (1 - chanceTolerance) - tolerance) {
            const run = new Run({ chance: "highest", rounds }, envelope, known.hint)
            const reason = `Wait ${n + 1} is never longer than ${time(longest)}, and one before it can be ${time(highest)}. The table shows the longest of each.`
            return yield* run.broken("monotone", reason, n + 1)
          }
          highest = Math.max(highest, longest)
        }
      }),
  }
}

/** All waits together, after failures without a hint, are no longer than the total. */
export const boundedTotal = <In, R>(
  self: Checkable<In, R>,
  total: Duration.Input,
  ...[options]: Rest<In, Given<In>>
): Property<In, R> => {
  const limit = Duration.toMillis(total)
  return property("boundedTotal", self, given(options), unhinted, (run) => {
    let sum = 0
    for (const [n, wait] of run.waits.entries()) {
      sum += wait
      if (sum > limit + tolerance) {
        return run.breaks(n + 1, `The first ${n + 1} waits are ${time(sum)} together, and ${time(limit)} is allowed.`)
      }
    }
    return undefined
  })
}

/** A wait after a failure with a hint is at least that hint. */
export const honoursHint = <In, R>(self: Checkable<In, R>, ...[options]: Rest<In, Given<In>>): Property<In, R> =>
  property("honoursHint", self, given(options), any, (run) =>
    run.find(
      (wait, hint) => hint !== undefined && wait < hint - tolerance,
      (wait, hint = 0) => `Wait %s is ${time(wait)}, and the failure before it asks for ${time(hint)}.`,
    ),
  )

// -----------------------------------------------------------------------------
// Checks
// -----------------------------------------------------------------------------

/** Which laws are asked for, and how hard they are tried. */
export interface Options<In> extends Given<In> {
  /** Asks for `capped`. */
  readonly cap?: Duration.Input | undefined
  /** Asks for `stops`: how many waits at most. */
  readonly times?: number | undefined
  /** Asks for `boundedTotal`. */
  readonly total?: Duration.Input | undefined
  /** Asks for `monotone`. Default false. */
  readonly monotone?: boolean | undefined
  /** Asks for `honoursHint`. Default false. */
  readonly honoursHint?: boolean | undefined
  /** Sequences for each law. Default 100; a tenth of it for `monotone`, which plays each with 66 random sources. */
  readonly runs?: number | undefined
  /** The seed of the sequences. Default 1: every check is the same. */
  readonly seed?: string | number | undefined
}

/** Which laws were kept. */
export interface Report {
  readonly laws: ReadonlyArray<Law>
  /** Sequences played. */
  readonly runs: number
}

/** Checks the laws asked for, in their order, and fails with the first that is broken. */
export const check = <In, R>(
  self: Checkable<In, R>,
  ...[options]: Rest<In, Options<In>>
): Effect.Effect<Report, LawBroken, R> =>
  Effect.gen(function* () {
    const asked = propertiesOf(self, options)
    let runs = 0
    for (const property of asked) {
      const result = yield* tried(property, options)
      if (result.broken !== undefined) return yield* Effect.fail(result.broken)
      runs += result.runs
    }
    return { laws: asked.map(({ law }) => law), runs }
  })

/** Checks the laws asked for, and gives all that are broken, each with its counterexample. */
export const examine = <In, R>(
  self: Checkable<In, R>,
  ...[options]: Rest<In, Options<In>>
): Effect.Effect<ReadonlyArray<LawBroken>, never, R> =>
  Effect.map(
    Effect.forEach(propertiesOf(self, options), (property) => tried(property, options)),
    (results) => results.flatMap(({ broken }) => (broken === undefined ? [] : [broken])),
  )

const propertiesOf = <In, R>(
  self: Checkable<In, R>,
  options: (Options<In> & WithFailures<In>) | undefined,
): ReadonlyArray<Property<In, R>> => {
  const given = [options] as Rest<In, Given<In>>
  const { cap, times, total } = options ?? {}
  return [
    deterministic(self, ...given),
    neverNegative(self, ...given),
    ...(times === undefined ? [] : [stops(self, times, ...(given as Rest<In, Omit<Given<In>, "steps">>))]),
    ...(cap === undefined ? [] : [capped(self, cap, ...given)]),
    ...(options?.monotone === true ? [monotone(self, ...given)] : []),
    ...(total === undefined ? [] : [boundedTotal(self, total, ...given)]),
    ...(options?.honoursHint === true ? [honoursHint(self, ...given)] : []),
  ]
}

const unhintedOnly: ReadonlySet<Law> = new Set(["monotone", "boundedTotal"])

interface Tried {
  readonly broken: LawBroken | undefined
  readonly runs: number
}

const tried = <In, R>(
  property: Property<In, R>,
  { runs = 100, seed = 1 }: Options<In> = {},
): Effect.Effect<Tried, never, R> =>
  Effect.flatMap(
    Arbitrary.checkEffect(property.sequences, (sequence) => Effect.as(property.holds(sequence), true), {
      runs: property.law === "monotone" ? Math.max(1, Math.ceil(runs / 10)) : runs,
      maxDiscards: runs * 100,
      seed,
    }),
    (result): Effect.Effect<Tried> => {
      if (result._tag === "Passed") return Effect.succeed({ broken: undefined, runs: result.runs })
      if (result._tag === "Falsified" && result.failure._tag === "PropertyError") {
        return Effect.succeed({ broken: result.failure.error, runs: result.runs })
      }
      const needs = unhintedOnly.has(property.law) ? "It needs failures without a hint. " : ""
      const why = Arbitrary.formatCheckFailure(result) ?? ""
      return Effect.die(new Error(`The law "${property.law}" could not be checked. ${needs}${why}`))
    },
  )

// -----------------------------------------------------------------------------
// Sequences and runs
// -----------------------------------------------------------------------------

/** Virtual time is kept in whole nanoseconds. */
const tolerance = 0.001

/** How much shorter than it is the longest of many random waits may seem. */
const chanceTolerance = 0.1

interface Known<In> {
  readonly failures: Arbitrary.Arbitrary<In>
  readonly hint: (failure: In) => number | undefined
  readonly steps: number
}

const given = <In>(options: (Given<In> & WithFailures<In>) | undefined): Known<In> => {
  const { hint = hintOf, steps = 40 } = options ?? {}
  return {
    // Without failures given, the type says that all failures that can be retried are inputs.
    failures: options?.failures ?? (failures() as Arbitrary.Arbitrary<unknown> as Arbitrary.Arbitrary<In>),
    hint: (failure) => {
      const duration = hint(failure)
      return duration === undefined ? undefined : Duration.toMillis(duration)
    },
    steps,
  }
}

const between = (minimum: number, maximum: number): Arbitrary.Arbitrary<number> =>
  Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum, maximum })))

const chances: Arbitrary.Arbitrary<Chance> = Arbitrary.map(between(0, 1_000_000), (n) =>
  n % 8 === 0 ? "highest" : n % 8 === 1 ? "lowest" : n,
)

type Sequences = <In>(known: Known<In>) => Arbitrary.Arbitrary<Sequence<In>>

/** A few failures, and an order in which they come again and again. */
const mixed = <In>({ failures }: Known<In>) =>
  Arbitrary.all({
    chance: chances,
    among: Arbitrary.array(failures, { minLength: 4, maxLength: 4 }),
    order: between(0, 1_000_000),
  })

/** Most attempts fail at once, some after seconds. */
const rounds = <In>(among: ReadonlyArray<In>, order: number, steps: number): ReadonlyArray<Round<In>> => {
  const draw = draws(order)
  return Array.from({ length: steps }, () => ({
    failure: among[Math.floor(draw() * among.length)] as In,
    took: draw() < 0.75 ? 0 : Math.floor(draw() * 5000),
  }))
}

/** Any failures. */
const any: Sequences = (known) =>
  Arbitrary.map(mixed(known), ({ among, chance, order }) => ({ chance, rounds: rounds(among, order, known.steps) }))

/** Failures without a hint. */
const unhinted: Sequences = (known) =>
  Arbitrary.filterMap(mixed(known), ({ among, chance, order }) => {
    const left = among.filter((failure) => known.hint(failure) === undefined)
    return left.length === 0 ? Result.failVoid : Result.succeed({ chance, rounds: rounds(left, order, known.steps) })
  })

/** One failure without a hint, again and again, at once. */
const constant: Sequences = ({ failures, hint, steps }) =>
  Arbitrary.map(
    Arbitrary.all({
      chance: chances,
      failure: Arbitrary.filter(failures, (failure) => hint(failure) === undefined),
    }),
    ({ chance, failure }) => ({ chance, rounds: Array.from({ length: steps }, () => ({ failure, took: 0 })) }),
  )

const property = <In, R>(
  law: Law,
  self: Checkable<In, R>,
  known: Known<In>,
  sequences: Sequences,
  judge: (run: Run<In>) => { readonly step: number; readonly reason: string } | undefined,
): Property<In, R> => ({
  law,
  title: titles[law],
  sequences: sequences(known),
  holds: (sequence) =>
    Effect.flatMap(subjectOf(self).waits(sequence), (waits) => {
      const run = new Run(sequence, waits, known.hint)
      const wrong = judge(run)
      return wrong === undefined ? Effect.void : run.broken(law, wrong.reason, wrong.step)
    }),
})

/** The waits that a sequence gave. */
class Run<In> {
  readonly waits: ReadonlyArray<number>
  private readonly sequence: Sequence<In>
  private readonly hint: (failure: In) => number | undefined

  constructor(sequence: Sequence<In>, waits: ReadonlyArray<number>, hint: (failure: In) => number | undefined) {
    this.sequence = sequence
    this.waits = waits
    this.hint = hint
  }

  private hintAt(n: number): number | undefined {
    const round = this.sequence.rounds[n]
    return round === undefined ? undefined : this.hint(round.failure)
  }

  breaks(step: number, reason: string) {
    return { step, reason }
  }

  /** The first wait that is wrong. `%s` stands for its number. */
  find(
    wrong: (wait: number, hint: number | undefined) => boolean,
    reason: (wait: number, hint: number | undefined) => string,
  ) {
    for (const [n, wait] of this.waits.entries()) {
      const hint = this.hintAt(n)
      if (wrong(wait, hint)) return this.breaks(n + 1, reason(wait, hint).replace("%s", String(n + 1)))
    }
    return undefined
  }

  /** The law is broken: with the waits up to the one that breaks it. */
  broken(
    law: Law,
    reason: string,
    step: number | undefined,
    second?: ReadonlyArray<number>,
  ): Effect.Effect<never, LawBroken> {
    const { chance, rounds } = this.sequence
    const counterexample: Array<Wait> = []
    let elapsed = 0
    for (const [n, wait] of this.waits.slice(0, step).entries()) {
      const { failure, took = 0 } = rounds[n] ?? {}
      elapsed += took + wait
      const hint = this.hintAt(n)
      const again = second?.[n]
      counterexample.push({
        step: n + 1,
        failure: nameOf(failure),
        ...(hint === undefined ? {} : { hint }),
        wait,
        ...(again === undefined ? {} : { again }),
        elapsed,
      })
    }
    return Effect.fail(new LawBroken({ law, reason, counterexample, ...(step === undefined ? {} : { step }), chance }))
  }
}

const same = (a: number | undefined, b: number | undefined): boolean =>
  a === b || (a !== undefined && b !== undefined && Math.abs(a - b) <= tolerance)

const ordinal = (n: number): string => {
  const suffix = n % 100 >= 11 && n % 100 <= 13 ? "th" : (["th", "st", "nd", "rd"][n % 10] ?? "th")
  return `${n}${suffix}`
}
