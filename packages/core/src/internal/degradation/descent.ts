/** One call's way down a ladder, rung by rung, until one of them answers. */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FailureMode from "../../FailureMode.ts"
import type { Origin } from "../../Origin.ts"
import type { Source } from "../../PolicyEvent.ts"
import { atMost } from "../atMost.ts"
import { type CallRecord, CurrentCall, tagOf } from "../callRecord.ts"
import { DeadlineExceeded, isLlmError, type LlmError } from "../llmError.ts"
import { type AnyProvider, namesOf, need, peek } from "../provider.ts"
import type { CallCache } from "./callCache.ts"
import type { Flights } from "./flights.ts"
import type { Counts } from "./metrics.ts"

/** A rung as it is stepped on. */
export type Step =
  | { readonly rung: "primary"; readonly provider: AnyProvider }
  | { readonly rung: "model"; readonly provider: AnyProvider }
  | {
      readonly rung: "simplified"
      readonly provider: AnyProvider
      readonly request: (request: unknown) => unknown
    }
  | { readonly rung: "cache" | "stale" }
  | { readonly rung: "fallback"; readonly answer: (failure: unknown) => unknown }

/** A ladder as it is climbed down. */
export interface Spec {
  readonly name: string
  /** Is it another name than that of the primary? */
  readonly ownName: boolean
  readonly steps: ReadonlyArray<Step>
  readonly everything: boolean
  /** How long rungs without an attempt may take after the deadline, in milliseconds. */
  readonly afterDeadline: number
  readonly counts: Counts
}

/** How answers are asked for and given: whole, or as streams. */
export interface Way {
  readonly kind: "generate" | "stream"
  readonly ask: (provider: AnyProvider, request: unknown) => Effect.Effect<unknown, unknown, unknown>
  /** A whole answer that nobody was asked for. */
  readonly give: (answer: unknown, by: Origin) => Effect.Effect<unknown>
  /** What was asked for and is kept: at once, or when the stream has ended. `longest`: in characters. */
  readonly keep: (
    answer: unknown,
    longest: number,
    write: (answer: unknown) => Effect.Effect<void>,
  ) => Effect.Effect<unknown>
}

/** An answer, and where it came from. */
export interface Outcome {
  readonly answer: unknown
  readonly source: Source
  readonly by: Origin
  /** What the rungs above failed with, in order. */
  readonly failures: ReadonlyArray<LlmError>
}

/** What somebody who was asked gave; others who asked the same may have it, too. */
interface Asked {
  readonly answer: unknown
  readonly by: Origin
  /** Is it the provider's own answer, and not one that a ladder inside it gave instead? */
  readonly own: boolean
}

type Running<A> = Effect.Effect<A, unknown, unknown>

/** What a policy above lends for the time of a rung. */
type Lent = Pick<
  CallRecord,
  "alternatives" | "alternativeNeeds" | "patience" | "maxAttempts" | "pinned" | "passedOver" | "judge"
>

const lentTo = (record: CallRecord): Lent => {
  const { alternativeNeeds, alternatives, judge, maxAttempts, passedOver, patience, pinned } = record
  return { alternativeNeeds, alternatives, judge, maxAttempts, passedOver, patience, pinned }
}

/** One call's way down. */
export class Descent {
  private readonly spec: Spec
  private readonly way: Way
  private readonly request: unknown
  private readonly record: CallRecord
  private readonly context: Context.Context<never>
  private readonly cache: CallCache | undefined
  private readonly flights: Flights | undefined
  private readonly lent: Lent
  private readonly failures: Array<LlmError> = []
  /** What the primary failed with. */
  private original: { readonly failure: unknown } | undefined
  /** What the last one that was asked failed with, for events. */
  private last = ""
  /** When everything must be over, once the deadline has passed. */
  private until: number | undefined

  constructor(
    spec: Spec,
    way: Way,
    request: unknown,
    record: CallRecord,
    context: Context.Context<never>,
    cache: CallCache | undefined,
    flights: Flights | undefined,
  ) {
    this.spec = spec
    this.way = way
    this.request = request
    this.record = record
    this.context = context
    this.cache = cache
    this.flights = flights
    this.lent = lentTo(record)
  }

  /** From this rung on. */
  from(index: number): Running<Outcome> {
    const step = this.spec.steps[index]
    if (step === undefined) return this.nobody()
    switch (step.rung) {
      case "primary":
        return this.asking(index, step, this.askPrimary(step.provider))
      case "model":
        return this.asking(index, step, this.ask(step.provider, this.request))
      case "simplified":
        return this.asking(
          index,
          step,
          Effect.suspend(() => this.ask(step.provider, step.request(this.request))),
        )
      case "cache":
      case "stale":
        return this.remembering(index, step.rung)
      case "fallback":
        return this.fallingBack(step.answer)
    }
  }

  // -------------------------------------------------------------------------
  // Rungs with an attempt
  // -------------------------------------------------------------------------

  private asking(index: number, step: Extract<Step, { provider: AnyProvider }>, ask: Running<Asked>): Running<Outcome> {
    this.lend(index)
    return Effect.matchEffect(ask, {
      onFailure: (failure) => this.failed(index, step, failure),
      onSuccess: (asked) => {
        // Who judged the answer stays known to those above.
        Object.assign(this.record, { ...this.lent, judge: this.record.judge })
        this.record.answered = asked.by
        const outcome = (answer: unknown): Outcome => this.answered(answer, step.rung, asked.by)
        if (step.rung !== "primary" || this.cache === undefined || !asked.own) {
          return Effect.sync(() => outcome(asked.answer))
        }
        const { cache } = this
        return Effect.map(
          this.way.keep(asked.answer, cache.longest, (answer) => cache.write(answer, asked.by)),
          outcome,
        )
      },
    })
  }

  private ask(provider: AnyProvider, request: unknown): Running<Asked> {
    const { record, way } = this
    return Effect.suspend(() => {
      record.source = undefined
      record.answered = undefined
      return Effect.map(way.ask(provider, request), (answer) => ({
        answer,
        by: record.answered ?? { provider: provider.name, model: provider.model },
        own: record.source === undefined || record.source === "primary",
      }))
    })
  }

  /** Equal calls wait for one another, where they may. A stream waits for nobody. */
  private askPrimary(provider: AnyProvider): Running<Asked> {
    const { cache, flights, record, way } = this
    const ask = this.ask(provider, this.request)
    const flight = flights === undefined || way.kind === "stream" ? undefined : cache?.flight
    if (flight === undefined) return ask
    let own = false
    const asked = Effect.suspend(() => {
      own = true
      return ask
    })
    // What another call asked for, that one keeps.
    return Effect.map(flights!.join(flight, record, asked), (result) => (own ? result : { ...result, own: false }))
  }

  private failed(index: number, step: Step, failure: unknown): Running<Outcome> {
    const { record, spec } = this
    Object.assign(record, this.lent)
    const known = isLlmError(failure)
    // Below, only the primary's own failures are the caller's: another dialect or a template is not what it sent.
    const caught =
      spec.everything || (known && (step.rung !== "primary" || FailureMode.row(failure, record.modes).ladder))
    if (!caught) return Effect.fail(failure)
    if (step.rung === "primary") this.original = { failure }
    this.last = tagOf(Cause.fail(failure))
    if (known) {
      this.failures.push(failure)
      record.failures.push(failure)
      if (failure._tag === "DeadlineExceeded") this.until ??= record.now() + spec.afterDeadline
    }
    this.cache?.forget()
    return this.down(index + 1)
  }

  /** The next rung that can be stepped on. */
  private down(from: number): Running<Outcome> {
    const { record, spec } = this
    if (record.now() >= record.deadlineAt) this.until ??= record.now() + spec.afterDeadline
    let index = from
    while (index < spec.steps.length && !this.canStepOn(spec.steps[index]!)) index++
    const step = spec.steps[index]
    if (step !== undefined && record.observer !== undefined) {
      record.emit({ event: "Degraded", provider: spec.name, failure: this.last, to: step.rung })
    }
    return this.from(index)
  }

  private canStepOn(step: Step): boolean {
    if (!("provider" in step)) return true
    return this.until === undefined && this.allows(step.provider)
  }

  /** May this call ask it? Whoever pins the ladder by a name of its own leaves it the choice. */
  private allows(provider: AnyProvider): boolean {
    const { overrides, passedOver } = this.record
    const { exclude, pin } = overrides
    if (exclude?.includes(provider.name) === true || passedOver.includes(provider.name)) return false
    return (
      pin === undefined ||
      (this.spec.ownName && pin.includes(this.spec.name)) ||
      namesOf(provider).some((name) => pin.includes(name))
    )
  }

  /** Those below that ask somebody else are candidates, too: their time is not used up above them. */
  private lend(index: number): void {
    const { context, lent, record, spec, way } = this
    const asked = new Set(
      spec.steps.slice(0, index + 1).map((step) => ("provider" in step ? step.provider : undefined)),
    )
    const others = spec.steps
      .slice(index + 1)
      .flatMap((step) => ("provider" in step && !asked.has(step.provider) ? [step.provider] : []))
      .filter((provider) => this.allows(provider))
    if (others.length === 0) return
    const ready = (provider: AnyProvider): boolean => peek(provider, context, record, record.now())?.ready ?? true
    record.alternatives = () => others.filter(ready).length + lent.alternatives()
    record.alternativeNeeds = () =>
      others.filter(ready).reduce((sum, provider) => sum + need(provider, way.kind), lent.alternativeNeeds())
  }

  // -------------------------------------------------------------------------
  // Rungs without one
  // -------------------------------------------------------------------------

  private remembering(index: number, rung: "cache" | "stale"): Running<Outcome> {
    const within = this.left()
    if (this.cache === undefined || within <= 0) return this.next(index)
    return Effect.flatMap(this.cache.read(rung, within), (kept) =>
      kept === undefined ? this.next(index) : this.given(kept.answer, rung, kept.by),
    )
  }

  /** Without a failure so far, nothing was stepped down. */
  private next(index: number): Running<Outcome> {
    return this.original === undefined ? this.from(index + 1) : this.down(index + 1)
  }

  private fallingBack(answer: (failure: unknown) => unknown): Running<Outcome> {
    return Effect.suspend(() => {
      const nobody = { provider: this.spec.name, model: "none" }
      const value = answer(this.original?.failure)
      if (!Effect.isEffect(value)) return this.given(value, "fallback", nobody)
      // What it asks itself is asked in calls of its own.
      const own = Effect.provideService(value, CurrentCall, undefined) as Running<unknown>
      const left = this.left()
      const inTime =
        left === Infinity
          ? own
          : Effect.flatMap(atMost(own, left), (exit) => (exit === "too slow" ? Effect.fail(this.tooLate()) : exit))
      return Effect.flatMap(inTime, (value) => this.given(value, "fallback", nobody))
    })
  }

  /** What rungs without an attempt may take, in milliseconds. */
  private left(): number {
    const { record, spec } = this
    return (this.until ?? record.deadlineAt + spec.afterDeadline) - record.now()
  }

  private tooLate(): DeadlineExceeded {
    const { deadlineMillis } = this.record
    return new DeadlineExceeded({
      provider: this.spec.name,
      ...(deadlineMillis === Infinity ? {} : { limit: Duration.millis(deadlineMillis) }),
      detail: "The fallback was not there in time.",
      ...(this.failures.length === 0 ? {} : { failures: this.failures }),
    })
  }

  private given(answer: unknown, source: Source, by: Origin): Running<Outcome> {
    const { record, way } = this
    record.answered = source === "fallback" ? undefined : { provider: by.provider, model: by.model }
    // It is given as it is: nobody is there who could be asked again.
    if (record.judge === "nobody") record.judge = "below"
    return Effect.map(way.give(answer, by), (given) => this.answered(given, source, by))
  }

  // -------------------------------------------------------------------------
  // The end
  // -------------------------------------------------------------------------

  private answered(answer: unknown, source: Source, by: Origin): Outcome {
    this.record.source = source
    this.spec.counts.answer(source, this.context)
    return { answer, source, by: { provider: by.provider, model: by.model }, failures: this.failures }
  }

  /** What the primary failed with leaves; what happened below is only on record. */
  private nobody(): Running<never> {
    const failure = this.original?.failure
    const at = this.record.failures.indexOf(failure as LlmError)
    if (at !== -1) this.record.failures.splice(at, 1)
    return Effect.fail(failure)
  }
}
