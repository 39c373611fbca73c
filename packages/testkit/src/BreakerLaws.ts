/**
 * Laws for circuit breakers: random sequences of overlapping calls, outcomes,
 * interruptions and waits are played on virtual time against a breaker of your
 * own and against an independent model of it, and every call must be let
 * through or rejected alike.
 *
 * Tests of breakers usually play one call after the other. Most mistakes show
 * only when calls overlap: the late outcome of a call that began before the
 * circuit opened, a probe whose caller left, two probes in the same instant.
 * The sequences here are made of these; what is found wrong is cut down to the
 * shortest sequence that shows it, and named by the law it breaks.
 *
 * | law | the breaker |
 * |---|---|
 * | `transparent` | hands on the outcome of a call as it is, and runs no call that it rejects |
 * | `opens` | opens when the failures in a row come to the threshold, and not before |
 * | `rejects` | rejects every call until its open time is over, and no longer |
 * | `probes` | lets so many probes be in flight while it is half-open, and no more |
 * | `closes` | closes after so many probes succeeded, and not before |
 * | `reopens` | opens again when a probe fails, for a whole open time |
 * | `fenced` | learns nothing from a call that was let through in an earlier state |
 * | `ignored` | learns nothing from an outcome that is to be ignored, and takes the slot back |
 * | `interrupted` | learns nothing from a call whose caller left, and takes the slot back |
 * | `neverWedged` | lets calls through again when its probes never return |
 *
 * **Details**
 *
 * - A breaker is a function around effects, and a way to tell its rejections.
 *   It is made anew for each sequence, on a `TestClock` that begins at 0.
 *   Nothing is asked of it but whether a call runs, and what comes back.
 * - Where breakers differ by intention, an option says what is meant: whether
 *   the threshold is reached or exceeded, whether a call at the very end of the
 *   open time is let through, whether late outcomes are fenced off, what an
 *   ignored outcome means.
 * - The report counts the states that the sequences reached, so that you see
 *   that they mean something.
 * - The name of the law is concluded from the shortest sequence: no step of it
 *   can be left out, so a stale outcome in it is part of the mistake.
 *
 * **Gotchas**
 *
 * - Calls in excess must be rejected. A breaker that makes them wait for the
 *   verdict on a probe breaks `probes`.
 * - A probe never takes longer than `probeLimit` in the sequences, since
 *   breakers differ in what they do then. `neverWedged` is played by itself,
 *   and only when there is a `probeLimit`.
 * - Hints of providers are not part of these laws.
 *
 * **Example** (A breaker of one's own)
 *
 * ```ts
 * import { BreakerLaws } from "@understudy/testkit"
 * import { Effect } from "effect"
 *
 * class Rejected {
 *   readonly _tag = "Rejected"
 * }
 *
 * const make = Effect.sync(() => {
 *   let failures = 0
 *   return {
 *     // Opens, and never closes again.
 *     guard: <A, E, R>(self: Effect.Effect<A, E, R>) =>
 *       Effect.suspend((): Effect.Effect<A, E | Rejected, R> =>
 *         failures >= 3
 *           ? Effect.fail(new Rejected())
 *           : Effect.tapError(self, () => Effect.sync(() => failures++)),
 *       ),
 *     rejected: (error: unknown) => error instanceof Rejected,
 *   }
 * })
 *
 * // The law "opens" is broken: ...
 * export const test = Effect.flip(BreakerLaws.check({ make, failures: 3, openFor: "10 seconds" }))
 * ```
 *
 * **Example** (The breaker of this library, with options)
 *
 * ```ts
 * import { BreakerLaws } from "@understudy/testkit"
 *
 * export const test = BreakerLaws.check(BreakerLaws.circuitBreaker({ failures: 2, openFor: "5 seconds", permits: 1 }))
 * ```
 */
import * as CircuitBreaker from "@understudy/core/CircuitBreaker"
import * as LlmError from "@understudy/core/LlmError"
import * as Arbitrary from "effect/Arbitrary"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import { BreakerModel, type Outcome, type Rules, type View } from "./internal/BreakerModel.ts"
import { type Sequence, sequenceOf, shortest, type Step } from "./internal/BreakerSequence.ts"
import { settle } from "./internal/Stage.ts"
import { table, time } from "./internal/Table.ts"

// -----------------------------------------------------------------------------
// Laws
// -----------------------------------------------------------------------------

/** The laws, each in a sentence. */
export const titles = {
  transparent: "hands on the outcome of a call as it is, and runs no call that it rejects",
  opens: "opens when the failures in a row come to the threshold, and not before",
  rejects: "rejects every call until its open time is over, and no longer",
  probes: "lets so many probes be in flight while it is half-open, and no more",
  closes: "closes after so many probes succeeded, and not before",
  reopens: "opens again when a probe fails, for a whole open time",
  fenced: "learns nothing from a call that was let through in an earlier state",
  ignored: "learns nothing from an outcome that is to be ignored, and takes the slot back",
  interrupted: "learns nothing from a call whose caller left, and takes the slot back",
  neverWedged: "lets calls through again when its probes never return",
} as const

/** The name of a law. */
export type Law = keyof typeof titles

/** All laws. */
export const laws = Object.keys(titles) as ReadonlyArray<Law> as readonly [Law, ...ReadonlyArray<Law>]

/** One step of a counterexample. */
export const Happening = Schema.Struct({
  /** When, in milliseconds from the beginning. */
  at: Schema.Number,
  /** What was done. Calls have numbers. */
  step: Schema.String,
  /** What the model says to it. */
  expected: Schema.String,
  /** What the breaker did. */
  observed: Schema.String,
  /** The model's state afterwards. */
  state: Schema.Literals(["closed", "open", "half-open"]),
})

/** One step of a counterexample. */
export interface Happening extends Schema.Schema.Type<typeof Happening> {}

/** A breaker breaks a law. The message shows the shortest sequence of steps that was found, as a table. */
export class LawBroken extends Schema.TaggedError<LawBroken>("@understudy/testkit/BreakerLaws/LawBroken")("LawBroken", {
  law: Schema.Literals(laws),
  /** What is wrong, in a sentence. */
  reason: Schema.String,
  counterexample: Schema.Array(Happening),
  /** The seed of the sequence in which it was found. */
  seed: Schema.Int,
}) {
  override get message(): string {
    const { counterexample, law, reason, seed } = this
    const rows = counterexample.map(({ at, expected, observed, state, step }) => [
      time(at),
      step,
      expected,
      observed,
      state,
    ])
    const shown = table(["at", "step", "expected", "observed", "state"], rows, rows.length - 1)
    return `The law "${law}" is broken: a breaker ${titles[law]}. ${reason}\n\n${shown}\n\nSeed: ${seed}.`
  }
}

// -----------------------------------------------------------------------------
// What is checked
// -----------------------------------------------------------------------------

/** A breaker: a function around effects, and a way to tell its rejections. */
export interface Guard {
  readonly guard: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, unknown, R>
  /** Is this failure a rejection of the breaker? */
  readonly rejected: (error: unknown) => boolean
}

/** How a breaker is meant to behave. */
export interface Parameters {
  /** Counted failures in a row that open it. */
  readonly failures: number
  /** How long it stays open. */
  readonly openFor: Duration.Input
  /** Probes in flight at most, while half-open. Default 1. */
  readonly permits?: number | undefined
  /** Probes that must succeed to close it. Default 1. */
  readonly successes?: number | undefined
  /** When probes that have not come back no longer hold a slot. Default never, and then `neverWedged` is not checked. */
  readonly probeLimit?: Duration.Input | undefined
  /** Does it open when the row of failures has reached `failures`, or exceeded it? Default `reached`. */
  readonly threshold?: "reached" | "exceeded" | undefined
  /** Is a call at the very end of the open time let through (`inclusive`), or only one after it? Default `inclusive`. */
  readonly boundary?: "inclusive" | "exclusive" | undefined
  /**
   * Do outcomes of calls that were let through in an earlier state change
   * nothing? Without it they count in the state in which they come, but hold no
   * slot. Default true.
   */
  readonly fencing?: boolean | undefined
  /** What an ignored outcome means. Default `nothing`. */
  readonly ignored?: "nothing" | "success" | undefined
  /** What a defect means. Default: none is tried. */
  readonly defects?: "failure" | "ignored" | undefined
}

/** A breaker, how it is meant to behave, and how calls can fail. */
export interface Subject<out R = never> extends Parameters {
  /** A breaker that nobody has used. Its scope ends with the sequence. */
  readonly make: Effect.Effect<Guard, never, R | Scope.Scope>
  /** A failure that counts. Default: `ProviderUnavailable`. */
  readonly failure?: (() => unknown) | undefined
  /** A failure that is to be ignored. Default: none is tried. */
  readonly ignorable?: (() => unknown) | undefined
}

/**
 * The options that the laws speak of. They know one open time, failures and successes in a row, and rejections: no windows,
 * shares, growing times or waiting calls.
 */
export type Lawful = Pick<
  CircuitBreaker.Options,
  "failures" | "permits" | "successes" | "probeLimit" | "patience" | "maxHint" | "boundary" | "ignored"
> & { readonly openFor?: Duration.Input | undefined }

/** The breaker of this library as a subject of the laws, with its own defaults. */
export const circuitBreaker = (options: Lawful = {}): Subject => ({
  failures: options.failures ?? 5,
  openFor: options.openFor ?? "60 seconds",
  permits: options.permits ?? 3,
  successes: options.successes ?? 3,
  probeLimit: options.probeLimit ?? "3 minutes",
  boundary: options.boundary,
  ignored: options.ignored,
  defects: "failure",
  ignorable: () => new LlmError.ContentFiltered({ provider: "laws" }),
  make: Effect.map(Layer.build(Layer.fresh(CircuitBreaker.layer)), (circuits) => ({
    guard: (self) => Effect.provide(CircuitBreaker.effect(self, { ...options, key: "laws" }), circuits),
    rejected: LlmError.is("CircuitOpen"),
  })),
})

// -----------------------------------------------------------------------------
// Checks
// -----------------------------------------------------------------------------

/** What the sequences reached: how often something happened in all of them. */
export interface Reached {
  readonly opened: number
  readonly halfOpened: number
  readonly closedAgain: number
  readonly reopened: number
  readonly rejected: number
  /** Calls that were let through when another was under way as a probe. */
  readonly overlappingProbes: number
  /** Outcomes of calls that were let through in an earlier state. */
  readonly stale: number
  readonly ignored: number
  readonly interrupted: number
  /** Interruptions among probes. */
  readonly interruptedProbes: number
  /** Calls whose caller left while they began. */
  readonly leftAtOnce: number
}

/** What was played. */
export interface Report {
  readonly sequences: number
  readonly steps: number
  readonly calls: number
  readonly reached: Reached
}

/** How hard a breaker is tried. */
export interface Options {
  /** How many sequences, of 60 to 200 steps each. Default 200. */
  readonly sequences?: number | undefined
  /** The seed of the first; each has the next one. Default 1. */
  readonly seed?: number | undefined
}

/**
 * Checks all laws, and fails with the one that is broken first. Dies when no sequence came to an opening, since the laws
 * then say nothing: give it more sequences, or a breaker with a lower threshold.
 */
export const check = <R>(
  subject: Subject<R>,
  { seed = 1, sequences = 200 }: Options = {},
): Effect.Effect<Report, LawBroken, Exclude<R, Scope.Scope>> =>
  Effect.gen(function* () {
    const trial = new Trial(subject)
    const total = new Tally()
    for (let n = 0; n < sequences; n++) {
      total.add(yield* judged(trial, trial.sequence(seed + n)))
    }
    yield* trial.wedge(seed)
    const report = total.report(sequences)
    if (report.reached.opened === 0) {
      return yield* Effect.die(
        new Error(
          "No sequence opened the circuit, so nothing was proved: ask for more sequences or a lower threshold.",
        ),
      )
    }
    return report
  })

/** The laws for one breaker, as a property of any runner: all but `neverWedged`, which is no property of sequences. */
export interface Property<out R = never> {
  /** Makes a name for a test. */
  readonly title: string
  readonly sequences: Arbitrary.Arbitrary<Sequence>
  readonly holds: (sequence: Sequence) => Effect.Effect<void, LawBroken, R>
}

export type { Sequence, Step }

/** The laws for one breaker, as a property of any runner. A counterexample comes shortened, so the runner need not. */
export const property = <R>(subject: Subject<R>): Property<Exclude<R, Scope.Scope>> => {
  const trial = new Trial(subject)
  return {
    title: "lets through and rejects calls as its model does, however they overlap",
    sequences: Arbitrary.map(
      Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0x7fff_ffff })), { shrink: () => [] }),
      (seed) => trial.sequence(seed),
    ),
    holds: (sequence) => Effect.asVoid(judged(trial, sequence)),
  }
}

/** Plays a sequence, and fails with the law that it shows to be broken. */
const judged = <R>(trial: Trial<R>, sequence: Sequence): Effect.Effect<Tally, LawBroken, Exclude<R, Scope.Scope>> =>
  Effect.gen(function* () {
    const played = yield* trial.play(sequence.steps)
    if (played.wrong === undefined) return played.tally
    const steps = yield* shortest(played.steps, (steps) =>
      Effect.map(trial.play(steps), ({ wrong }) => wrong !== undefined),
    )
    const shown = yield* trial.play(steps)
    // A circuit that did not close may show it later only, as if what came after the closing were to blame.
    const earlier = shown.closing === undefined ? shown : yield* trial.afterClosing(shown.steps.slice(0, shown.closing))
    const { tally, trace, wrong = played.wrong } = earlier.wrong === undefined ? shown : earlier
    return yield* Effect.fail(
      new LawBroken({ law: lawOf(wrong, tally), reason: wrong.reason, counterexample: trace, seed: sequence.seed }),
    )
  })

// -----------------------------------------------------------------------------
// Playing
// -----------------------------------------------------------------------------

/** Where breaker and model first differ. */
interface Wrong {
  readonly reason: string
  /** A call that was let through or not, unlike in the model; or an outcome that was changed. */
  readonly about: "admission" | "outcome"
  /** The model before that call. */
  readonly view: View
  /** Had time passed since its state changed last? */
  readonly later: boolean
}

interface Played {
  /** The steps as they were played: each end names its call. */
  readonly steps: ReadonlyArray<Step>
  readonly wrong: Wrong | undefined
  /** After how many steps the circuit is closed that had been half-open, when it is so to the end. */
  readonly closing: number | undefined
  readonly trace: ReadonlyArray<Happening>
  readonly tally: Tally
}

/** Counts what happens. */
class Tally {
  steps = 0
  calls = 0
  readonly reached: { -readonly [K in keyof Reached]: number } = {
    opened: 0,
    halfOpened: 0,
    closedAgain: 0,
    reopened: 0,
    rejected: 0,
    overlappingProbes: 0,
    stale: 0,
    ignored: 0,
    interrupted: 0,
    interruptedProbes: 0,
    leftAtOnce: 0,
  }
  /** Probes that succeeded, in all half-open periods. */
  probesSucceeded = 0

  add(other: Tally): void {
    this.steps += other.steps
    this.calls += other.calls
    for (const key of Object.keys(this.reached) as Array<keyof Reached>) this.reached[key] += other.reached[key]
  }

  changed(before: View, after: View): void {
    const { reached } = this
    if (before.since === after.since && before.state === after.state) return
    if (after.state === "half-open") reached.halfOpened++
    else if (after.state === "closed") reached.closedAgain++
    else if (before.state === "half-open") reached.reopened++
    else reached.opened++
  }

  report(sequences: number): Report {
    return { sequences, steps: this.steps, calls: this.calls, reached: { ...this.reached } }
  }
}

/** A call that was put to the breaker. */
interface Call {
  readonly number: number
  readonly fiber: Fiber.Fiber<unknown, unknown>
  /** Ends the call. */
  readonly end: Deferred.Deferred<unknown, unknown>
  /** Did the breaker let it through? */
  readonly ran: () => boolean
}

/** What became of a call: it runs, it was rejected, it neither ran nor came back, or it failed in another way. */
type Fate = "runs" | "is rejected" | "waits" | "ends without having run"

/** Plays sequences on a breaker and its model side by side. */
class Trial<R> {
  private readonly subject: Subject<R>
  private readonly rules: Rules

  constructor(subject: Subject<R>) {
    this.subject = subject
    this.rules = {
      failures: subject.failures,
      openFor: Duration.toMillis(subject.openFor),
      permits: subject.permits ?? 1,
      successes: subject.successes ?? 1,
      probeLimit: subject.probeLimit === undefined ? undefined : Duration.toMillis(subject.probeLimit),
      threshold: subject.threshold ?? "reached",
      boundary: subject.boundary ?? "inclusive",
      fencing: subject.fencing ?? true,
      ignored: subject.ignored ?? "nothing",
      defects: subject.defects,
    }
  }

  sequence(seed: number): Sequence {
    return sequenceOf(seed, this.rules, {
      ignored: this.subject.ignorable !== undefined,
      defects: this.subject.defects !== undefined,
    })
  }

  /** A scene of its own: a new breaker, a new clock. */
  private scene<A, E>(act: (scene: Scene) => Effect.Effect<A, E>): Effect.Effect<A, E, Exclude<R, Scope.Scope>> {
    return Effect.flatMap(this.subject.make, (guard) => act(new Scene(guard, this.rules, this.subject))).pipe(
      Effect.scoped,
      Effect.provide(TestClock.layer()),
    ) as Effect.Effect<A, E, Exclude<R, Scope.Scope>>
  }

  play(steps: ReadonlyArray<Step>): Effect.Effect<Played, never, Exclude<R, Scope.Scope>> {
    return this.scene((scene) => scene.play(steps))
  }

  /** These steps, at whose end the circuit is closed, and then more calls than there are probes. */
  afterClosing(steps: ReadonlyArray<Step>): Effect.Effect<Played, never, Exclude<R, Scope.Scope>> {
    const calls = Array.from({ length: this.rules.permits + 1 }, (_, n) => -1 - n)
    return this.play([...steps, { do: "begin", calls }])
  }

  /** Probes that never return: some call must be let through once the limit, and perhaps another open time, are over. */
  wedge(seed: number): Effect.Effect<void, LawBroken, Exclude<R, Scope.Scope>> {
    const { openFor, permits, probeLimit } = this.rules
    if (probeLimit === undefined) return Effect.void
    return this.scene((scene) =>
      Effect.gen(function* () {
        const tries = [probeLimit, 1, openFor, 1]
        if (!(yield* scene.halfOpen(permits))) return
        for (const millis of tries) {
          yield* scene.wait(millis)
          if (yield* scene.tries()) return
        }
        const waited = tries.reduce((sum, millis) => sum + millis, 0)
        return yield* Effect.fail(
          new LawBroken({
            law: "neverWedged",
            reason: `Probes hold their slots and do not return, and ${time(waited)} after the last of them no call is let through.`,
            counterexample: scene.trace,
            seed,
          }),
        )
      }),
    )
  }
}

/** A breaker and its model on one clock. */
class Scene {
  readonly trace: Array<Happening> = []
  private readonly guard: Guard
  private readonly model: BreakerModel
  private readonly rules: Rules
  private readonly failures: Pick<Subject, "failure" | "ignorable">
  private readonly tally = new Tally()
  private readonly underWay = new Map<number, Call>()
  private now = 0
  /** Calls so far. In the trace they are numbered in the order in which they began. */
  private calls = 0
  private wrong: Wrong | undefined

  constructor(guard: Guard, rules: Rules, failures: Pick<Subject, "failure" | "ignorable">) {
    this.guard = guard
    this.rules = rules
    this.failures = failures
    this.model = new BreakerModel(rules)
  }

  play(steps: ReadonlyArray<Step>): Effect.Effect<Played> {
    return Effect.gen({ self: this }, function* () {
      const { model, tally, trace } = this
      const played: Array<Step> = []
      let closing: number | undefined
      for (const step of steps) {
        const before = model.view(this.now)
        const exact = this.exact(step)
        if (exact === undefined) continue
        played.push(exact)
        tally.steps++
        yield* this.take(exact)
        const after = model.view(this.now)
        tally.changed(before, after)
        if (after.state !== "closed" || after.from === undefined) closing = undefined
        else closing ??= played.length
        if (this.wrong !== undefined) break
      }
      yield* this.leave
      return { steps: played, wrong: this.wrong, closing, trace, tally }
    })
  }

  /** A step that names its call, or nothing when there is none. */
  private exact(step: Step): Exclude<Step, { readonly do: "end one" }> | undefined {
    switch (step.do) {
      case "end one": {
        const call = [...this.underWay.keys()][step.which % Math.max(1, this.underWay.size)]
        return call === undefined ? undefined : { do: "end", call, outcome: step.outcome }
      }
      case "end":
        return this.underWay.has(step.call) ? step : undefined
      default:
        return step
    }
  }

  private take(step: Exclude<Step, { readonly do: "end one" }>): Effect.Effect<void> {
    switch (step.do) {
      case "begin":
        return this.begin(step.calls)
      case "begin and leave":
        return this.beginAndLeave(step.turns)
      case "end":
        return this.end(step.call, step.outcome)
      case "wait":
        return this.wait(this.allowed(step.millis))
      case "wait until open time is over": {
        const { state, until } = this.model.view(this.now)
        return state === "open" ? this.wait(Math.max(0, until + step.off - this.now)) : Effect.void
      }
    }
  }

  /** While probes are in flight, no more time passes than they are allowed to take. */
  private allowed(millis: number): number {
    const { probeLimit } = this.rules
    const { probesInFlight, since } = this.model.view(this.now)
    if (probeLimit === undefined || probesInFlight === 0) return millis
    return Math.max(0, Math.min(millis, since + probeLimit - 1 - this.now))
  }

  wait(millis: number): Effect.Effect<void> {
    if (millis === 0) return Effect.void
    return Effect.suspend(() => {
      this.note(`wait ${time(millis)}`, "", "")
      this.now += millis
      return TestClock.adjust(millis)
    })
  }

  /** Calls begin in the same instant; as many must run as in the model. */
  private begin(names: ReadonlyArray<number>): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      const { guard, model, tally, underWay } = this
      const { length } = names
      const first = this.calls + 1
      const calls = yield* Effect.forEach(names, () => this.call)
      yield* settle(() => calls.every((call) => fateOf(call, guard) !== "waits"))
      const fates = calls.map((call) => fateOf(call, guard))
      const running = names.filter((_, n) => fates[n] === "runs")
      const views: Array<View> = []
      let expected = 0
      for (let n = 0; n < length; n++) {
        const view = model.view(this.now)
        views.push(view)
        // The model lets the first ones through; the breaker may choose others.
        if (!model.begin(running[n] ?? nobody, this.now)) continue
        expected++
        if (view.probesInFlight > 0) tally.reached.overlappingProbes++
      }
      for (const [n, name] of names.entries()) {
        const call = calls[n]
        if (call !== undefined && (fates[n] === "runs" || fates[n] === "waits")) underWay.set(name, call)
      }
      tally.calls += length
      tally.reached.rejected += length - expected
      const odd = fates.find((fate) => fate === "waits" || fate === "ends without having run")
      this.note(
        length === 1 ? `#${first} begins` : `#${first} to #${this.calls} begin`,
        saying("runs", expected, length),
        odd === undefined
          ? saying("runs", running.length, length)
          : saying(odd, fates.filter((fate) => fate === odd).length, length),
      )
      if (odd === undefined && running.length === expected) return
      const view = views[Math.min(running.length, expected, length - 1)] ?? model.view(this.now)
      this.differs("admission", view, whyOf(view, this.now, running.length < expected, odd))
    })
  }

  /** A call begins and its caller leaves: to the model it is as if nothing had happened. */
  private beginAndLeave(turns: number): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      const { tally } = this
      const { fiber, number } = yield* this.call
      for (let turn = 0; turn < turns; turn++) yield* Effect.yieldNow
      fiber.interruptUnsafe()
      yield* settle(() => fiber.pollUnsafe() !== undefined)
      tally.calls++
      tally.reached.leftAtOnce++
      this.note(`#${number} begins, and its caller leaves at once`, "", "")
    })
  }

  /** A call ends, and its outcome must reach the caller as it is. */
  private end(name: number, outcome: Outcome): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      const { model, tally, underWay } = this
      const call = underWay.get(name)
      if (call === undefined) return
      underWay.delete(name)
      const view = model.view(this.now)
      const stale = model.isStale(name)
      const given = yield* this.finish(call, outcome)
      model.end(name, outcome, this.now)
      if (stale) tally.reached.stale++
      else if (outcome === "ignored") tally.reached.ignored++
      else if (outcome === "interrupted") {
        tally.reached.interrupted++
        if (view.state === "half-open") tally.reached.interruptedProbes++
      } else if (outcome === "success" && view.state === "half-open") tally.probesSucceeded++
      const exit = call.fiber.pollUnsafe()
      const same = exit !== undefined && isOutcome(exit, outcome, given)
      const how = outcome === "interrupted" ? "is interrupted" : `ends: ${outcome}`
      this.note(
        `#${call.number} ${how}${stale ? " (from an earlier state)" : ""}`,
        "",
        same ? "" : exit === undefined ? "does not come back" : "comes back changed",
      )
      if (same) return
      this.differs("outcome", view, `The outcome of call #${call.number} does not reach its caller as it is.`)
    })
  }

  private finish(call: Call, outcome: Outcome): Effect.Effect<unknown> {
    const ended = (complete: Effect.Effect<unknown>, given: unknown) =>
      Effect.as(
        Effect.andThen(
          complete,
          settle(() => call.fiber.pollUnsafe() !== undefined),
        ),
        given,
      )
    switch (outcome) {
      case "interrupted":
        return ended(
          Effect.sync(() => call.fiber.interruptUnsafe()),
          undefined,
        )
      case "success": {
        const value = { call: call.number }
        return ended(Deferred.succeed(call.end, value), value)
      }
      case "defect": {
        const defect = new Error(`Call #${call.number} has a bug`)
        return ended(Deferred.die(call.end, defect), defect)
      }
      case "failure":
      case "ignored": {
        const make = (outcome === "failure" ? this.failures.failure : this.failures.ignorable) ?? unavailable
        const failure = make()
        return ended(Deferred.fail(call.end, failure), failure)
      }
    }
  }

  private readonly call: Effect.Effect<Call> = Effect.suspend(() => {
    const number = ++this.calls
    const end = Deferred.makeUnsafe<unknown, unknown>()
    let ran = false
    const guarded = this.guard.guard(
      Effect.suspend(() => {
        ran = true
        return Deferred.await(end)
      }),
    )
    return Effect.map(Effect.forkChild(guarded), (fiber) => ({ number, fiber, end, ran: () => ran }))
  })

  /** Brings the breaker into its half-open state with so many probes under way; false if it does not go there. */
  halfOpen(permits: number): Effect.Effect<boolean> {
    return Effect.gen({ self: this }, function* () {
      const { failures, openFor, threshold } = this.rules
      const row = threshold === "reached" ? failures : failures + 1
      for (let name = 1; name <= row; name++) {
        yield* this.begin([name])
        yield* this.end(name, "failure")
      }
      yield* this.wait(openFor + 1)
      for (let name = row + 1; name <= row + permits; name++) yield* this.begin([name])
      return this.wrong === undefined
    })
  }

  /** Is a call let through? */
  tries(): Effect.Effect<boolean> {
    return Effect.gen({ self: this }, function* () {
      const call = yield* this.call
      yield* settle(() => fateOf(call, this.guard) !== "waits")
      const fate = fateOf(call, this.guard)
      this.note(`#${call.number} begins`, "runs, sooner or later", fate)
      call.fiber.interruptUnsafe()
      return fate === "runs"
    })
  }

  /** Everybody leaves. */
  private readonly leave: Effect.Effect<void> = Effect.suspend(() => {
    const left = [...this.underWay.values()]
    for (const { fiber } of left) fiber.interruptUnsafe()
    return settle(() => left.every(({ fiber }) => fiber.pollUnsafe() !== undefined))
  })

  private note(step: string, expected: string, observed: string): void {
    this.trace.push({ at: this.now, step, expected, observed, state: this.model.view(this.now).state })
  }

  private differs(about: Wrong["about"], view: View, reason: string): void {
    this.wrong ??= { about, view, reason, later: this.now > view.since }
  }
}

const unavailable = () => new LlmError.ProviderUnavailable({ provider: "laws" })

/** A name that no call has: one that the model lets through and the breaker does not. */
const nobody = 0

/** What became of so many calls, in words. */
const saying = (fate: Fate, count: number, of: number): string => {
  if (of === 1) return fate === "runs" && count === 0 ? "is rejected" : fate
  return `${count} of ${of} ${count === 1 ? fate : plural[fate]}`
}

const plural: Record<Fate, string> = {
  runs: "run",
  "is rejected": "are rejected",
  waits: "wait",
  "ends without having run": "end without having run",
}

const fateOf = (call: Call, { rejected }: Guard): Fate => {
  if (call.ran()) return "runs"
  const exit = call.fiber.pollUnsafe()
  if (exit === undefined) return "waits"
  const error = exit._tag === "Failure" ? Cause.findErrorOption(exit.cause) : undefined
  return error?._tag === "Some" && rejected(error.value) ? "is rejected" : "ends without having run"
}

const isOutcome = (exit: Exit.Exit<unknown, unknown>, outcome: Outcome, given: unknown): boolean => {
  if (exit._tag === "Success") return outcome === "success" && exit.value === given
  if (outcome === "interrupted") return Cause.hasInterruptsOnly(exit.cause)
  const [reason, ...more] = exit.cause.reasons
  if (reason === undefined || more.length > 0) return false
  if (outcome === "defect") return reason._tag === "Die" && reason.defect === given
  return outcome !== "success" && reason._tag === "Fail" && reason.error === given
}

// -----------------------------------------------------------------------------
// Naming the law
// -----------------------------------------------------------------------------

const count = (n: number, what: string): string => `${n} ${what}${n === 1 ? "" : "s"}`

/** Why the model says what it says, in a sentence. */
const whyOf = (view: View, now: number, tooFew: boolean, odd: Fate | undefined): string => {
  if (odd === "waits") return "A call neither runs nor is rejected: it waits."
  if (odd !== undefined) return "A call ends without having run, and its failure is no rejection."
  const what = tooFew ? "A call is rejected" : "A call is let through"
  switch (view.state) {
    case "closed":
      return `${what}, although the circuit is closed, with ${count(view.failuresInARow, "failure")} in a row.`
    case "open":
      return tooFew
        ? `${what}, although the open time is over since ${time(now - view.until)}.`
        : `${what}, although the circuit is open for ${time(view.until - now)} more.`
    case "half-open":
      return `${what}, although the circuit is half-open, with ${count(view.probesInFlight, "probe")} in flight and ${view.probesSucceeded} succeeded.`
  }
}

/** The law that a shortest sequence breaks: no step of it could be left out, so what is in it is part of the mistake. */
const lawOf = ({ about, later, view }: Wrong, { probesSucceeded, reached }: Tally): Law => {
  if (about === "outcome") return "transparent"
  if (reached.stale > 0) return "fenced"
  if (reached.interrupted + reached.leftAtOnce > 0) return "interrupted"
  if (reached.ignored > 0) return "ignored"
  switch (view.state) {
    case "closed":
      return view.from === "half-open" && view.failuresInARow === 0 ? "closes" : "opens"
    case "open":
      if (view.from === "half-open") return probesSucceeded > 0 ? "closes" : "reopens"
      return later ? "rejects" : "opens"
    case "half-open":
      return probesSucceeded > 0 ? "closes" : "probes"
  }
}
