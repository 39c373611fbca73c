/**
 * Retry: asks the same provider again, after a backoff, when the failure says
 * that it may help.
 *
 * Two extra attempts; 500 ms, doubled each time, with full jitter, at most 8
 * seconds; at least what the provider asked for, plus up to 10 %.
 *
 * **Details**
 *
 * - Which failures are retried, and how often, is the `sameAgain` cell of
 *   `FailureMode`. `on` narrows it further. Defects and failures that are not
 *   of the union pass.
 * - The hint of the latest failure counts, and it never makes a wait shorter.
 * - `jitter`, of a backoff `d`: `none`, `d` itself; `full`, anything from 0 to
 *   `d`; `equal`, half of `d` and anything up to the other half; `decorrelated`,
 *   anything from `base` to three times the wait before.
 * - `perTag` gives failures of a tag numbers, or a schedule, of their own. What
 *   is not said there is as for all. A tag with a `times` of its own is counted
 *   for itself; the others share the rest.
 * - An extra attempt draws on the destination's budget where there is one
 *   (`RetryBudget`), and is not made when that is spent.
 * - A backoff that would pass the call's deadline, or `maxElapsed`, is not taken,
 *   nor one longer than `maxWait`, nor, while another candidate is ready, one that would bring
 *   the backoffs at this provider past the patience, nor one at whose end the
 *   provider's circuit would still be open. The failure then leaves at once.
 *   A backoff that is longer than the patience ends early when another candidate
 *   becomes ready meanwhile.
 * - Nothing is built before the first failure.
 *
 * **Gotchas**
 *
 * - Retry belongs outside breaker and timeouts: `p.pipe(Timeouts.with(),
 *   CircuitBreaker.with(), Retry.with())`.
 *
 * The kinds of jitter: Brooker, "Exponential Backoff and Jitter", AWS, 2015.
 */
import type * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type { Any, Hidden, Part } from "./Face.ts"
import type { RetryableTag } from "./FailureMode.ts"
import * as FailureMode from "./FailureMode.ts"
import type { CallRecord } from "./internal/callRecord.ts"
import { draw, type Subject } from "./internal/limits/allowance.ts"
import { checked, DurationInput, millis } from "./internal/options.ts"
import type { LlmError, StreamInterrupted, WithTag } from "./internal/llmError.ts"
import { isLlmError } from "./internal/llmError.ts"
import type { Policy, Provider } from "./internal/provider.ts"
import { fromEffect, fromStream, peek, wrap } from "./internal/provider.ts"

const backoffs = {
  /** Extra attempts at most. Default 2. */
  times: Schema.optional(Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))),
  /** The first backoff, before jitter. Default 500 ms. */
  base: Schema.optional(DurationInput),
  /** How much longer each backoff is than the one before. Default 2. */
  factor: Schema.optional(Schema.Finite.check(Schema.isGreaterThanOrEqualTo(1))),
  /** The longest backoff, unless the hint is longer. Default 8 seconds. */
  cap: Schema.optional(DurationInput),
  /** How much of a backoff is left to chance: `none`, `full`, `equal`, `decorrelated`. Default `full`. */
  jitter: Schema.optional(Schema.Literals(["full", "none", "equal", "decorrelated"])),
}

/** When to ask again after failures of one tag. */
export const TagOptions = Schema.Struct(backoffs)

/** When to ask again after failures of one tag. */
export interface TagOptions extends Schema.Schema.Type<typeof TagOptions> {}

const ofTag = Schema.optional(TagOptions)

const tagFields = {
  RateLimited: ofTag,
  Overloaded: ofTag,
  ProviderUnavailable: ofTag,
  ConnectionFailed: ofTag,
  TimedOut: ofTag,
  StreamInterrupted: ofTag,
  InvalidResponse: ofTag,
  CapacityExceeded: ofTag,
} satisfies { readonly [T in RetryableTag]: typeof ofTag }

/** When to ask again. */
export const Options = Schema.Struct({
  ...backoffs,
  /** The longest wait that is taken at all, hint included. Default 1 minute. */
  maxWait: Schema.optional(DurationInput),
  /** No extra attempt begins later than this after the first. Default: no bound but the call's deadline. */
  maxElapsed: Schema.optional(DurationInput),
  /** Other numbers after failures of these tags. */
  perTag: Schema.optional(Schema.Struct(tagFields)),
})

/** When to ask again. */
export interface Options extends Schema.Schema.Type<typeof Options> {}

/** When to ask again after failures of one tag. A schedule gives the delays instead of the numbers; `times` still counts. */
export interface ForTag<T extends RetryableTag> extends TagOptions {
  readonly schedule?: Schedule.Schedule<unknown, WithTag<T>> | undefined
}

/** When to ask again, and for which failures. */
export interface With<T extends RetryableTag> extends Omit<Options, "perTag"> {
  /** Only failures of these tags. Default: all that the table says. */
  readonly on?: ReadonlyArray<T> | undefined
  /** Delays of one's own, instead of `base`, `factor`, `cap` and `jitter`. Its input is the failure; `times` still counts. */
  readonly schedule?: Schedule.Schedule<unknown, WithTag<T>> | undefined
  /** Other numbers, or other delays, after failures of these tags. */
  readonly perTag?: { readonly [K in RetryableTag]?: ForTag<K> | undefined } | undefined
}

type Delays = Schedule.Schedule<unknown, never>

interface Backoffs {
  readonly times: number
  readonly base: number
  readonly factor: number
  readonly cap: number
  readonly jitter: "full" | "none" | "equal" | "decorrelated"
  readonly schedule: Delays | undefined
}

interface Numbers extends Backoffs {
  readonly maxWait: number
  readonly maxElapsed: number
  readonly on: ReadonlySet<string> | undefined
  readonly perTag: ReadonlyMap<string, PerTag>
}

interface PerTag extends Backoffs {
  /** Is it counted apart from the others? */
  readonly apart: boolean
}

const backoffsOf = (o: TagOptions, schedule: Delays | undefined, rest?: Backoffs): Backoffs => ({
  times: o.times ?? rest?.times ?? 2,
  base: o.base === undefined ? (rest?.base ?? 500) : millis(o.base, 0),
  factor: o.factor ?? rest?.factor ?? 2,
  cap: o.cap === undefined ? (rest?.cap ?? 8000) : millis(o.cap, 0),
  jitter: o.jitter ?? rest?.jitter ?? "full",
  schedule: schedule ?? (isOnlyTimes(o) ? rest?.schedule : undefined),
})

/** Numbers of a tag's own stand instead of a schedule that is for all. */
const isOnlyTimes = (o: TagOptions): boolean =>
  o.base === undefined && o.factor === undefined && o.cap === undefined && o.jitter === undefined

const numbersOf = <T extends RetryableTag>(where: string, options: With<T>): Numbers => {
  const { on, perTag, schedule, ...rest } = options
  const plain: Record<string, unknown> = {}
  const schedules = new Map<string, Delays>()
  for (const [tag, forTag] of Object.entries(perTag ?? {})) {
    if (forTag === undefined) continue
    const { schedule: own, ...numbers } = forTag
    plain[tag] = numbers
    if (own !== undefined) schedules.set(tag, own as Delays)
  }
  const o = checked(where, Options, perTag === undefined ? rest : { ...rest, perTag: plain })
  const all = backoffsOf(o, schedule as Delays | undefined)
  return {
    ...all,
    maxWait: millis(o.maxWait, "1 minute"),
    maxElapsed: o.maxElapsed === undefined ? Infinity : millis(o.maxElapsed, 0),
    on: on === undefined ? undefined : new Set(on),
    perTag: new Map(
      Object.entries(o.perTag ?? {}).flatMap(([tag, own]) =>
        own === undefined
          ? []
          : [[tag, { ...backoffsOf(own, schedules.get(tag), all), apart: own.times !== undefined }] as const],
      ),
    ),
  }
}

/** How much longer than the hint a wait may be, so that those who got the same hint do not come back together. */
const hintJitter = 0.1

/**
 * The wait before extra attempt `n`, counted from 0, in milliseconds. `before` is the wait before that one, and `random`
 * is in [0, 1).
 */
const backoff = (numbers: Backoffs, n: number, before: number | undefined, random: number): number => {
  const { base, cap, factor, jitter } = numbers
  // A power beyond all numbers of a base of zero would be no number.
  const envelope = base === 0 ? 0 : Math.min(cap, base * factor ** n)
  switch (jitter) {
    case "none":
      return envelope
    case "full":
      return envelope * random
    case "equal":
      return envelope / 2 + (envelope / 2) * random
    case "decorrelated":
      return Math.min(cap, base + (3 * (before ?? base) - base) * random)
  }
}

const hintOf = (failure: LlmError): number =>
  failure.retryAfter === undefined ? 0 : Duration.toMillis(failure.retryAfter)

/** At least the hint, plus up to 10 %, and never shorter than the schedule's own wait. */
const withHint = (delay: number, hint: number, random: number): number =>
  hint > 0 ? Math.max(delay, hint * (1 + hintJitter * random)) : delay

type ScheduleStep = (now: number, input: unknown) => Effect.Effect<[unknown, Duration.Duration], Cause.Done<unknown>>

/** How far the backoffs after failures of a tag, or of all that share theirs, have come. */
class Progress {
  readonly backoffs: Backoffs
  /** Extra attempts so far. */
  extra = 0
  /** The last delay, without the hint. */
  before: number | undefined
  private step: ScheduleStep | undefined

  constructor(backoffs: Backoffs) {
    this.backoffs = backoffs
  }

  /** The next delay of a schedule, in milliseconds; nothing when it stops. */
  next(schedule: Delays, record: CallRecord, error: LlmError): Effect.Effect<number | undefined> {
    return Effect.suspend(() =>
      this.step === undefined
        ? Effect.tap(Schedule.toStep(schedule) as unknown as Effect.Effect<ScheduleStep>, (step) =>
            Effect.sync(() => {
              this.step = step
            }),
          )
        : Effect.succeed(this.step),
    ).pipe(
      Effect.flatMap((step) => step(record.clock.currentTimeMillisUnsafe(), error)),
      Effect.match({
        onSuccess: ([, delay]): number | undefined => Duration.toMillis(delay),
        onFailure: () => undefined,
      }),
    )
  }
}

/** What one call remembers from its first failure on. */
class Retrying {
  private readonly numbers: Numbers
  private readonly record: CallRecord
  private readonly subject: Subject
  private readonly context: Context.Context<never>
  /** No extra attempt begins later. */
  private readonly until: number
  private extra = 0
  private readonly shared: Progress
  private readonly apart = new Map<string, Progress>()
  /** Would the provider's circuit let a call through then? */
  private readonly readyAt: (instant: number) => boolean

  constructor(
    numbers: Numbers,
    record: CallRecord,
    subject: Subject,
    context: Context.Context<never>,
    until: number,
    readyAt: (instant: number) => boolean,
  ) {
    this.numbers = numbers
    this.record = record
    this.subject = subject
    this.context = context
    this.until = until
    this.readyAt = readyAt
    this.shared = new Progress(numbers)
  }

  /** Asks again, or fails with what it was given. */
  after<A, E, R>(self: Effect.Effect<A, E, R>, error: E): Effect.Effect<A, E, R> {
    const { record } = this
    if (!isLlmError(error)) return Effect.fail(error)
    const progress = this.progressOf(error)
    if (!this.worthwhile(error, progress)) return Effect.fail(error)
    const { backoffs, before, extra } = progress
    if (backoffs.schedule === undefined) {
      const delay = backoff(backoffs, extra, before, record.random.nextDoubleUnsafe())
      return this.wait(self, error, progress, delay)
    }
    return Effect.flatMap(progress.next(backoffs.schedule, record, error), (delay) =>
      delay === undefined ? Effect.fail<E>(error) : this.wait(self, error, progress, delay),
    )
  }

  private progressOf(error: LlmError): Progress {
    const own = this.numbers.perTag.get(error._tag)
    if (own === undefined) return this.shared
    let progress = this.apart.get(error._tag)
    if (progress === undefined) this.apart.set(error._tag, (progress = new Progress(own)))
    return progress
  }

  /** Extra attempts that count against the times of this one: those of all that share theirs. */
  private extraOf(progress: Progress): number {
    let extra = this.extra
    if (this.numbers.perTag.size === 0) return extra
    for (const [tag, other] of this.apart) {
      if (!this.numbers.perTag.get(tag)!.apart) continue
      if (other === progress) return other.extra
      extra -= other.extra
    }
    return extra
  }

  private worthwhile(error: LlmError, progress: Progress): boolean {
    const { numbers, record } = this
    if (this.extraOf(progress) >= progress.backoffs.times) return false
    if (numbers.on !== undefined && !numbers.on.has(error._tag)) return false
    if (record.attempts + record.alternatives() >= record.maxAttempts) return false
    switch (FailureMode.sameAgain(error, record.modes)) {
      case "no":
        return false
      case "yes":
        return true
      case "once":
        return this.extra === 0
      case "alone":
        return record.alternatives() === 0
    }
  }

  private wait<A, E, R>(
    self: Effect.Effect<A, E, R>,
    error: E & LlmError,
    progress: Progress,
    delay: number,
  ): Effect.Effect<A, E, R> {
    const { numbers, record, subject } = this
    const hint = hintOf(error)
    // What was asked for decides whether to wait at all, not the jitter on top.
    const millis = Math.min(withHint(delay, hint, record.random.nextDoubleUnsafe()), Math.max(numbers.maxWait, hint))
    const end = record.now() + millis
    const tooLong =
      Math.max(delay, hint) > numbers.maxWait ||
      end >= record.deadlineAt ||
      end > this.until ||
      (record.waited(subject.name) + millis > record.patience && record.alternatives() > 0) ||
      !this.readyAt(end)
    if (tooLong) return Effect.fail<E>(error)
    const drawn = draw(record, subject, this.context, "retry", error)
    if (drawn === undefined) return Effect.fail<E>(error)
    this.extra++
    progress.extra++
    progress.before = delay
    record.wait(subject.name, millis)
    record.failures.push(error)
    if (record.observer !== undefined) {
      record.emit({
        event: "BackedOff",
        provider: error.provider,
        ...(error.model === undefined ? {} : { model: error.model }),
        failure: error._tag,
        delayMs: millis,
      })
    }
    const again = Effect.catch(self, (next: E) => this.after(self, next))
    const leave = Effect.suspend(() => {
      // It is not swallowed after all.
      record.failures.splice(record.failures.lastIndexOf(error), 1)
      return Effect.fail<E>(error)
    })
    const waited = Effect.onExitPrimitive(this.pause(millis), (exit) => {
      if (exit._tag === "Failure" || !exit.value) drawn.giveBack()
      return undefined
    })
    return Effect.flatMap(waited, (over) => (over ? again : leave)) as Effect.Effect<A, E, R>
  }

  /** Sleeps, and is true; or false, when another candidate became ready while the patience is over. */
  private pause(millis: number): Effect.Effect<boolean> {
    const { record } = this
    const patient = record.waited(this.subject.name) <= record.patience || record.patience === Infinity
    if (patient) return Effect.as(Effect.sleep(Duration.millis(millis)), true)
    const end = record.now() + millis
    const look: Effect.Effect<boolean> = Effect.suspend(() => {
      const left = end - record.now()
      // What is left of a sleep after rounding is less than a clock can sleep.
      if (left < 0.01) return Effect.succeed(true)
      if (left < millis && record.alternatives() > 0) return Effect.succeed(false)
      return Effect.flatMap(Effect.sleep(Duration.millis(Math.min(left, Math.max(record.patience, 100)))), () => look)
    })
    return look
  }
}

/**
 * Asks again when the failure says that it may help. Adds and removes no
 * failure: the last one stays.
 */
const with_ = <const T extends RetryableTag = RetryableTag>(options: With<T> = {}): Policy => {
  const numbers = numbersOf("Retry.with", options)
  return <F extends Any, E, R>(self: Provider<F, E, R>): Provider<F, E, R> => {
    const after = <A, E2, R2>(error: E2, run: () => Effect.Effect<A, E2, R2>, record: CallRecord, until: number) => {
      const { context } = Fiber.getCurrent()!
      const readyAt = (instant: number) => peek(self, context, record, instant)?.ready ?? true
      return new Retrying(numbers, record, self, context, until, readyAt).after(Effect.suspend(run), error)
    }
    return wrap<F, E, R, E, R>(
      self,
      (run, record, _, now) => {
        const until = now + numbers.maxElapsed
        return Effect.catch(run(now), (error: E) => after(error, () => run(record.now()), record, until))
      },
      (plan) =>
        plan.again === undefined && numbers.maxElapsed === Infinity
          ? { again: (error, run, record) => after(error, run, record, Infinity) }
          : undefined,
    )
  }
}

export { with_ as with }

/** Asks an effect again. */
export const effect = <A, E, R, const T extends RetryableTag = RetryableTag>(
  self: Effect.Effect<A, E, R>,
  options: With<T> = {},
): Effect.Effect<A, E, R> => fromEffect(self).pipe(with_(options)).generate()

/** Asks a stream again while it has no content. Needs the face of its parts, which knows content and end marker. */
export const stream = <F extends Any, E, R, const T extends RetryableTag = RetryableTag>(
  self: Stream.Stream<Part<F>, E, R>,
  options: With<T> & { readonly face: F },
): Stream.Stream<Part<F>, E | Hidden<F> | StreamInterrupted, R> => {
  const { face, ...rest } = options
  return fromStream(self, { face })
    .pipe(with_(rest as With<T>))
    .stream(undefined as never)
}
