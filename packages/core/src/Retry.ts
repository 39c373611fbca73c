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
 * - A backoff that would pass the call's deadline is not taken, nor one longer
 *   than `maxWait`, nor, while another candidate is ready, one that would bring
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
 * Full jitter: Brooker, "Exponential Backoff and Jitter", AWS, 2015.
 */
import type * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type { Any, Hidden, Part } from "./Face.ts"
import type { RetryableTag } from "./FailureMode.ts"
import * as FailureMode from "./FailureMode.ts"
import type { CallRecord } from "./internal/callRecord.ts"
import { checked, DurationInput, millis } from "./internal/options.ts"
import type { LlmError, StreamInterrupted, WithTag } from "./internal/llmError.ts"
import { isLlmError } from "./internal/llmError.ts"
import type { Policy, Provider } from "./internal/provider.ts"
import { fromEffect, fromStream, peek, wrap } from "./internal/provider.ts"

/** When to ask again. */
export const Options = Schema.Struct({
  /** Extra attempts at most. Default 2. */
  times: Schema.optional(Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))),
  /** The first backoff, before jitter. Default 500 ms. */
  base: Schema.optional(DurationInput),
  /** How much longer each backoff is than the one before. Default 2. */
  factor: Schema.optional(Schema.Finite.check(Schema.isGreaterThanOrEqualTo(1))),
  /** The longest backoff, unless the hint is longer. Default 8 seconds. */
  cap: Schema.optional(DurationInput),
  /** `full`: anything from zero to the backoff. `none`: the backoff itself. Default `full`. */
  jitter: Schema.optional(Schema.Literals(["full", "none"])),
  /** The longest wait that is taken at all, hint included. Default 1 minute. */
  maxWait: Schema.optional(DurationInput),
})

/** When to ask again. */
export interface Options extends Schema.Schema.Type<typeof Options> {}

/** When to ask again, and for which failures. */
export interface With<T extends RetryableTag> extends Options {
  /** Only failures of these tags. Default: all that the table says. */
  readonly on?: ReadonlyArray<T> | undefined
  /** Delays of one's own, instead of `base`, `factor`, `cap` and `jitter`. Its input is the failure; `times` still counts. */
  readonly schedule?: Schedule.Schedule<unknown, WithTag<T>> | undefined
}

interface Numbers {
  readonly times: number
  readonly base: number
  readonly factor: number
  readonly cap: number
  readonly jitter: "full" | "none"
  readonly maxWait: number
  readonly on: ReadonlySet<string> | undefined
  readonly schedule: Schedule.Schedule<unknown, never> | undefined
}

const numbersOf = <T extends RetryableTag>(where: string, options: With<T>): Numbers => {
  const { on, schedule, ...rest } = options
  const o = checked(where, Options, rest)
  return {
    times: o.times ?? 2,
    base: millis(o.base, "500 millis"),
    factor: o.factor ?? 2,
    cap: millis(o.cap, "8 seconds"),
    jitter: o.jitter ?? "full",
    maxWait: millis(o.maxWait, "1 minute"),
    on: on === undefined ? undefined : new Set(on),
    schedule: schedule as Schedule.Schedule<unknown, never> | undefined,
  }
}

/** How much longer than the hint a wait may be, so that those who got the same hint do not come back together. */
const hintJitter = 0.1

/** The wait before extra attempt `n`, counted from 0, in milliseconds. `random` is in [0, 1). */
const backoff = (numbers: Numbers, n: number, random: number): number => {
  const envelope = Math.min(numbers.cap, numbers.base * numbers.factor ** n)
  return numbers.jitter === "full" ? envelope * random : envelope
}

const hintOf = (failure: LlmError): number =>
  failure.retryAfter === undefined ? 0 : Duration.toMillis(failure.retryAfter)

/** At least the hint, plus up to 10 %, and never shorter than the schedule's own wait. */
const withHint = (delay: number, hint: number, random: number): number =>
  hint > 0 ? Math.max(delay, hint * (1 + hintJitter * random)) : delay

type ScheduleStep = (now: number, input: unknown) => Effect.Effect<[unknown, Duration.Duration], Cause.Done<unknown>>

/** What one call remembers from its first failure on. */
class Retrying {
  private readonly numbers: Numbers
  private readonly record: CallRecord
  private extra = 0
  private waited = 0
  private step: ScheduleStep | undefined
  /** Would the provider's circuit let a call through then? */
  private readonly readyAt: (instant: number) => boolean

  constructor(numbers: Numbers, record: CallRecord, readyAt: (instant: number) => boolean) {
    this.numbers = numbers
    this.record = record
    this.readyAt = readyAt
  }

  /** Asks again, or fails with what it was given. */
  after<A, E, R>(self: Effect.Effect<A, E, R>, error: E): Effect.Effect<A, E, R> {
    const { numbers, record } = this
    if (!isLlmError(error) || !this.worthwhile(error)) return Effect.fail(error)
    if (numbers.schedule === undefined) {
      return this.wait(self, error, backoff(numbers, this.extra, record.random.nextDoubleUnsafe()))
    }
    return Effect.flatMap(this.next(numbers.schedule, error), (delay) =>
      delay === undefined ? Effect.fail<E>(error) : this.wait(self, error, delay),
    )
  }

  private worthwhile(error: LlmError): boolean {
    const { numbers, record } = this
    if (this.extra >= numbers.times) return false
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

  private wait<A, E, R>(self: Effect.Effect<A, E, R>, error: E & LlmError, delay: number): Effect.Effect<A, E, R> {
    const { numbers, record } = this
    const hint = hintOf(error)
    // What was asked for decides whether to wait at all, not the jitter on top.
    const millis = Math.min(withHint(delay, hint, record.random.nextDoubleUnsafe()), Math.max(numbers.maxWait, hint))
    const tooLong =
      Math.max(delay, hint) > numbers.maxWait ||
      record.now() + millis >= record.deadlineAt ||
      (this.waited + millis > record.patience && record.alternatives() > 0) ||
      !this.readyAt(record.now() + millis)
    if (tooLong) return Effect.fail<E>(error)
    this.extra++
    this.waited += millis
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
    return Effect.flatMap(this.pause(millis), (over) => (over ? again : leave)) as Effect.Effect<A, E, R>
  }

  /** Sleeps, and is true; or false, when another candidate became ready while the patience is over. */
  private pause(millis: number): Effect.Effect<boolean> {
    const { record } = this
    const patient = this.waited <= record.patience || record.patience === Infinity
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

  private next(schedule: Schedule.Schedule<unknown, never>, error: LlmError): Effect.Effect<number | undefined> {
    const { record } = this
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

/**
 * Asks again when the failure says that it may help. Adds and removes no
 * failure: the last one stays.
 */
const with_ = <const T extends RetryableTag = RetryableTag>(options: With<T> = {}): Policy => {
  const numbers = numbersOf("Retry.with", options)
  return <F extends Any, E, R>(self: Provider<F, E, R>): Provider<F, E, R> =>
    wrap<F, E, R, E, R>(self, (run, record) =>
      Effect.catch(run, (error: E) =>
        Effect.withFiber((fiber) => {
          const readyAt = (instant: number) => peek(self, fiber.context, record, instant)?.ready ?? true
          return new Retrying(numbers, record, readyAt).after(run, error)
        }),
      ),
    )
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
