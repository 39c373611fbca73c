/**
 * A call: what the caller asked for, and what it may override.
 *
 * One `Context.Reference` carries the overrides of a call: its deadline, its
 * timeouts, the model's parameters, the credential, and which candidates may
 * answer. `Call.withDeadline("10 seconds")` and its like set one of them around
 * an effect; `Call.stream` sets several around a stream.
 *
 * **Gotchas**
 *
 * - An override that can bring a failure of its own shows it in the type:
 *   `withDeadline` adds `DeadlineExceeded`, `withTimeouts` adds `TimedOut`.
 * - A deadline set here replaces the preset's, longer or shorter.
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { checked, DurationInput } from "./internal/options.ts"
import type { DeadlineExceeded, TimedOut } from "./internal/llmError.ts"

/**
 * Parameters of the model. Every adapter translates them into its own names;
 * one that a provider does not know is left out, except those in `extra`,
 * which are put into the request's body as they are.
 */
export const Parameters = Schema.Struct({
  /** Randomness, usually 0 to 2. */
  temperature: Schema.optionalKey(Schema.Finite),
  /** Nucleus sampling, 0 to 1. */
  topP: Schema.optionalKey(Schema.Finite),
  /** The longest answer, in tokens. */
  maxTokens: Schema.optionalKey(Schema.Int.check(Schema.isGreaterThan(0))),
  /** Texts that end the answer. */
  stop: Schema.optionalKey(Schema.Array(Schema.String)),
  /** For answers that can be had again, where the provider can. */
  seed: Schema.optionalKey(Schema.Int),
  presencePenalty: Schema.optionalKey(Schema.Finite),
  frequencyPenalty: Schema.optionalKey(Schema.Finite),
  /** How much to think, for models that reason. */
  reasoningEffort: Schema.optionalKey(Schema.String),
  /** Fields of the provider's own. */
  extra: Schema.optionalKey(Schema.Record(Schema.String, Schema.Unknown)),
})

/** Parameters of the model. */
export interface Parameters extends Schema.Schema.Type<typeof Parameters> {}

/** Clocks of a call, instead of those of the composition. */
export const Timeouts = Schema.Struct({
  /** One attempt, whole. */
  attempt: Schema.optional(DurationInput),
  /** A stream's first content. */
  firstContent: Schema.optional(DurationInput),
  /** The gap between parts of a stream. */
  idle: Schema.optional(DurationInput),
})

/** Clocks of a call, instead of those of the composition. */
export interface Timeouts extends Schema.Schema.Type<typeof Timeouts> {}

/** What a caller may override. */
export interface Overrides {
  /** The call ends within this time. */
  readonly deadline?: Duration.Input | undefined
  readonly timeouts?: Timeouts | undefined
  readonly parameters?: Parameters | undefined
  /** Keys that are used instead of the configured ones, by the candidate's name. */
  readonly credentials?: Readonly<Record<string, Redacted.Redacted<string>>> | undefined
  /** Under which key a cache keeps the answer, instead of one made of the request. Nothing here reads it but caches. */
  readonly cacheKey?: string | undefined
  /** Whose answers a cache may give. Nothing here reads it but caches. */
  readonly tenant?: string | undefined
  /** Only these candidates may be asked, by name; those inside a composition among them. */
  readonly pin?: ReadonlyArray<string> | undefined
  /** These candidates are not asked, by name. */
  readonly exclude?: ReadonlyArray<string> | undefined
  /** Only candidates that have all of these tags are asked. */
  readonly tags?: ReadonlyArray<string> | undefined
}

/** The overrides of the current call. */
export const CurrentOverrides = Context.Reference<Overrides>("@understudy/core/Call", { defaultValue: () => ({}) })

const merge = (a: Overrides, b: Overrides): Overrides => ({
  ...a,
  ...b,
  timeouts: b.timeouts === undefined ? a.timeouts : { ...a.timeouts, ...b.timeouts },
  parameters: mergeParameters(a.parameters, b.parameters),
  credentials: b.credentials === undefined ? a.credentials : { ...a.credentials, ...b.credentials },
  // Who must be in the EU must be there whatever else is asked of him.
  tags: a.tags === undefined || b.tags === undefined ? (b.tags ?? a.tags) : [...a.tags, ...b.tags],
})

/** Parameters where those on the right win, field by field. */
export const mergeParameters = (a: Parameters | undefined, b: Parameters | undefined): Parameters | undefined => {
  if (a === undefined || b === undefined) return b ?? a
  const extra = a.extra === undefined && b.extra === undefined ? undefined : { ...a.extra, ...b.extra }
  return extra === undefined ? { ...a, ...b } : { ...a, ...b, extra }
}

const set =
  (overrides: Overrides) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.flatMap(CurrentOverrides, (current) =>
      Effect.provideService(self, CurrentOverrides, merge(current, overrides)),
    )

/** The calls in an effect end within this time. Adds `DeadlineExceeded`. */
export const withDeadline =
  (deadline: Duration.Input) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | DeadlineExceeded, R> =>
    set({ deadline: checked("Call.withDeadline", DurationInput, deadline) })(self)

/** Other clocks for the calls in an effect. Adds `TimedOut`. Throws `InvalidOptions` for what is no duration. */
export const withTimeouts =
  (timeouts: Timeouts) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | TimedOut, R> =>
    set({ timeouts: checked("Call.withTimeouts", Timeouts, timeouts) })(self)

/** Other parameters of the model for the calls in an effect, field by field. */
export const withParameters = (parameters: Parameters) => set({ parameters })

/**
 * A key of the call's own for one candidate, by its name. The others keep theirs, so no key goes to a provider that it is
 * not for; `pin` the candidate if nobody else may answer. Failures about it say nothing about the provider's health.
 */
export const withCredential = (candidate: string, key: Redacted.Redacted<string>) =>
  set({ credentials: { [candidate]: key } })

/** The key that the call brings for a candidate. For adapters. */
export const credentialFor = (overrides: Overrides, candidate: string): Redacted.Redacted<string> | undefined =>
  overrides.credentials !== undefined && Object.hasOwn(overrides.credentials, candidate)
    ? overrides.credentials[candidate]
    : undefined

/** Under which key, and for whom, a cache keeps the answers of the calls in an effect. */
export const withCache = (scope: { readonly key?: string | undefined; readonly tenant?: string | undefined }) =>
  set({
    ...(scope.key === undefined ? {} : { cacheKey: scope.key }),
    ...(scope.tenant === undefined ? {} : { tenant: scope.tenant }),
  })

/** Only these candidates may be asked, by name. */
export const pin = (...names: ReadonlyArray<string>) => set({ pin: names })

/** These candidates are not asked, by name. */
export const exclude = (...names: ReadonlyArray<string>) => set({ exclude: names })

/**
 * Only candidates that have all of these tags are asked, besides those of a `requireTags` around this one. A candidate
 * without tags has none of them; a composition inside another leaves it to its own candidates.
 */
export const requireTags = (...tags: ReadonlyArray<string>) => set({ tags })

/**
 * Overrides for a stream. Adds `DeadlineExceeded` and `TimedOut`, as a deadline or clocks may be among them. Throws
 * `InvalidOptions` for what is no duration.
 */
export const stream =
  (overrides: Overrides) =>
  <A, E, R>(self: Stream.Stream<A, E, R>): Stream.Stream<A, E | DeadlineExceeded | TimedOut, R> => {
    const { deadline, timeouts } = overrides
    if (deadline !== undefined) checked("Call.stream.deadline", DurationInput, deadline)
    if (timeouts !== undefined) checked("Call.stream.timeouts", Timeouts, timeouts)
    return Stream.unwrap(
      Effect.map(CurrentOverrides, (current) =>
        Stream.provideService(self, CurrentOverrides, merge(current, overrides)),
      ),
    )
  }
