/**
 * Degradation: when the best answer cannot be had, a lesser one is, and it says
 * where it came from.
 *
 * A ladder is a declared chain of rungs. The primary is asked; when it fails,
 * the rungs below are stepped on in the order in which they stand, until one of
 * them answers. The answer comes with its source, whose type is exactly the
 * union of the declared rungs.
 *
 * **Details**
 *
 * | rung | gives |
 * |---|---|
 * | `primary` | the answer itself |
 * | `cache` | one that the primary gave a short time ago. Before the primary: instead of asking |
 * | `model` | the answer of another provider |
 * | `simplified` | the answer to a simpler question, made by a template |
 * | `stale` | one that the primary gave some time ago |
 * | `fallback` | what you say; the last rung |
 *
 * - Caught are the failures for which the table says so: all but
 *   `InvalidRequest`. `Degradation.everything` catches every failure. Defects and
 *   interruptions are never caught.
 * - With a `fallback`, what was caught is gone from the error type. Without one
 *   the primary's failure leaves when no rung answers, the very instance.
 * - After the deadline only rungs without an attempt are stepped on (`cache`,
 *   `stale`, `fallback`), for 250 milliseconds at most. While the primary is
 *   asked, the time that the rungs `model` and `simplified` need for another
 *   provider is not used up.
 * - A stream steps down until its first content, and never after. Its source is
 *   known then.
 * - Kept are answers of the primary that ended by themselves, without calls of
 *   tools, and, where an object was asked for, of its schema. See `AnswerCache`.
 * - The parts of an answer hold `understudy: { provider, model, source }`
 *   (`Degradation.sourceOf`), the event `Answered` its `source`, and the counter
 *   `understudy.ladder.answers` counts by composition and source, as does
 *   `understudy.answers` of `Metrics`.
 *
 * **Gotchas**
 *
 * - Put deadline, failover and the rest inside of the primary: `Understudy.make`
 *   does. A deadline around a ladder is one for the rungs with attempts.
 * - A fallback that is an effect can take too long, and then fails with
 *   `DeadlineExceeded`. A value or a plain function cannot.
 * - The rungs below the primary are no candidates of a failover: whoever pins
 *   others or excludes them passes them over.
 *
 * **Example** (Always an answer)
 *
 * ```ts
 * import { Degradation, type LanguageModelFace, type LlmError, type Provider } from "@understudy/core"
 * import { Effect } from "effect"
 *
 * type Model = Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.AllProvidersFailed>
 *
 * export const answer = (best: Model, cheap: Model, request: LanguageModelFace.Request) =>
 *   Degradation.make([
 *     Degradation.primary(best),
 *     Degradation.cache({ scope: "everyone", timeToLive: "10 minutes" }),
 *     Degradation.model(cheap),
 *     Degradation.stale({ maxAge: "1 day" }),
 *     Degradation.fallback("We will be back."),
 *   ])
 *     .ask(request)
 *     .pipe(Effect.map(({ answer, source }) => [source, answer] as const))
 * ```
 */
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { Answer, Any, Part, Request } from "./Face.ts"
import type { Keeping } from "./internal/degradation/callCache.ts"
import { placeholder } from "./internal/degradation/faces.ts"
import { ladderOf } from "./internal/degradation/ladder.ts"
import { aroundIn, is, type Listed, listedIn, nameIn, planned, valueIn } from "./internal/degradation/planning.ts"
import type {
  Cache,
  Catches,
  CatchesOf,
  Chain,
  Fallback,
  Get,
  Leaves,
  Legal,
  Model,
  Needs,
  Primary,
  ProblemOfEffect,
  ProblemOfMake,
  ProblemOfProvider,
  ProblemOfWith,
  Rung,
  Simplified,
  SourcesOf,
  Stale,
  Template,
  Value,
  ValuesOf,
} from "./internal/degradation/rungs.ts"
import { rung } from "./internal/degradation/rungs.ts"
import type { DeadlineExceeded, LlmError, StreamInterrupted } from "./internal/llmError.ts"
import { checked, DurationInput, InvalidOptions, millis } from "./internal/options.ts"
import type { AnyOf, AnyProvider, ErrorOf, FaceOf, Provider, ServicesOf } from "./internal/provider.ts"
import { fromEffect, isProvider } from "./internal/provider.ts"
import type { LanguageModelFace } from "./LanguageModelFace.ts"
import * as Origin from "./Origin.ts"
import { Source } from "./PolicyEvent.ts"

export {
  /** The rungs of a ladder, which are the sources of answers. */
  Source,
}
export type {
  Cache,
  Catches,
  Chain,
  Fallback,
  Leaves,
  Model,
  Needs,
  Primary,
  Rung,
  Simplified,
  SourcesOf,
  Stale,
  Template,
  Value,
}

// ---------------------------------------------------------------------------
// Answers and ladders
// ---------------------------------------------------------------------------

/** Where an answer came from. */
export interface Whence<out S extends Source> {
  /** The rung that it came from. */
  readonly source: S
  /** Who gave it: for an answer that was kept, who did then; for a fallback, the ladder. */
  readonly provider: string
  /** The model that gave it; `none` for a fallback. */
  readonly model: string
  /** What the rungs above failed with, in order. */
  readonly failures: ReadonlyArray<LlmError>
}

/** An answer, and where it came from. */
export interface Answered<out A, out S extends Source> extends Whence<S> {
  readonly answer: A
}

/** A stream at its commit point, and where it comes from. */
export interface Streaming<out P, out S extends Source> extends Whence<S> {
  /** What was held back, and the rest. */
  readonly stream: Stream.Stream<P, StreamInterrupted>
}

/** What a ladder has besides what every provider has. */
export interface Rungs<in out F extends Any, out S extends Source, out E = never, out R = never> {
  /** The rungs, in order. */
  readonly sources: ReadonlyArray<S>
  /** An answer, with its source. */
  readonly ask: (request: Request<F>) => Effect.Effect<Answered<Answer<F>, S>, E, R>
  /** A stream, with its source: succeeds at the commit point. What it holds is given back when the scope closes. */
  readonly askStream: (request: Request<F>) => Effect.Effect<Streaming<Part<F>, S>, E, R | Scope.Scope>
}

/** A provider whose answers come from one of several rungs. `S` are the rungs that are declared. */
export type Ladder<F extends Any, S extends Source, E = never, R = never> = Provider<F, E, R> & Rungs<F, S, E, R>

/** An answer as a tuple: the answer, and its source. */
export const tuple = <A, S extends Source>({ answer, source }: Answered<A, S>): readonly [answer: A, source: S] => [
  answer,
  source,
]

/** The rung that an answer came from, by the marks in its parts; `undefined` for one that no ladder gave. */
export const sourceOf = (
  answer: Iterable<Parameters<typeof Origin.of>[0]> | { readonly content: Iterable<Parameters<typeof Origin.of>[0]> },
): Source | undefined => Origin.ofAnswer("content" in answer ? answer.content : answer)?.source

// ---------------------------------------------------------------------------
// Rungs
// ---------------------------------------------------------------------------

/** Who is asked first: a provider, or, without one, whatever the ladder is put around. */
export const primary: {
  (): Primary
  <P extends AnyProvider>(provider: P): Primary<P>
} = <P>(provider?: P) => {
  if (provider !== undefined && !isProvider(provider)) {
    throw new InvalidOptions("Degradation.primary", "expected a provider")
  }
  return rung("primary", { asked: provider as P })
}

const ScopeSchema = Schema.Literals(["tenant", "everyone"])
const version = {
  /** Answers of another version are not given. Default: the primary's model. */
  version: Schema.optional(Schema.String),
}

/** How answers are kept while they are fresh. */
export const CacheOptions = Schema.Struct({
  ...version,
  /** Whose answers may be given: those of the call's tenant (`Call.withCache`), or everyone's. */
  scope: ScopeSchema,
  /** For how long an answer is fresh. Default 10 minutes. */
  timeToLive: Schema.optional(DurationInput),
  /** Do equal calls at the same time wait for one of them? Streams never do. Default false. */
  coalesce: Schema.optional(Schema.Boolean),
})

/** How answers are kept while they are fresh. */
export interface CacheOptions extends Schema.Schema.Type<typeof CacheOptions> {}

/**
 * An answer that was given a short time ago. Below the primary it is given when
 * that fails; before it, instead of asking. For an effect it takes a key and a
 * schema: plain data for the key, and a name for the ladder. A call with its
 * own credential does without the cache of everyone. Needs `AnswerCache`.
 */
export const cache: {
  (options: CacheOptions): Cache
  <A>(options: CacheOptions & Value<A>): Cache<Value<A>>
} = <A>(options: CacheOptions & Partial<Value<A>>) => {
  const { key, schema, ...rest } = options
  const o = checked("Degradation.cache", CacheOptions, rest)
  return rung("cache", {
    scope: o.scope,
    freshFor: millis(o.timeToLive, "10 minutes"),
    coalesce: o.coalesce ?? false,
    version: o.version,
    // The overloads say which it is.
    of: valueIn("Degradation.cache", key, schema) as never,
  })
}

/** How long answers are better than none. */
export const StaleOptions = Schema.Struct({
  ...version,
  /** For how long an answer may be given when there is none. Default 1 day. */
  maxAge: Schema.optional(DurationInput),
  /** Whose answers may be given. Default: that of the rung `cache`; without one it must be said. */
  scope: Schema.optional(ScopeSchema),
})

/** How long answers are better than none. */
export interface StaleOptions extends Schema.Schema.Type<typeof StaleOptions> {}

/** An answer that was given some time ago, and is better than none. Needs `AnswerCache`. */
export const stale: {
  (options?: StaleOptions & { readonly scope?: undefined }): Stale
  (options: StaleOptions & { readonly scope: Keeping["scope"] }): Stale<Keeping["scope"]>
  <A>(options: StaleOptions & { readonly scope: Keeping["scope"] } & Value<A>): Stale<Keeping["scope"], Value<A>>
} = <A>(options: StaleOptions & Partial<Value<A>> = {}) => {
  const { key, schema, ...rest } = options
  const o = checked("Degradation.stale", StaleOptions, rest)
  return rung("stale", {
    scope: o.scope as never,
    goodFor: millis(o.maxAge, "1 day"),
    version: o.version,
    of: valueIn("Degradation.stale", key, schema) as never,
  })
}

/** Another provider, or another effect, is asked. */
export const model: {
  <P extends AnyProvider>(provider: P): Model<P>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Model<Effect.Effect<A, E, R>>
} = <P>(asked: P): Model<P> => rung("model", { asked })

/**
 * A simpler question. `template` is a text in which `{prompt}` stands for the
 * last question, the system messages stay and the rest goes; or a function of
 * the prompt. Without a provider the primary is asked. Of an effect it is a
 * simpler effect. With a text it is asked without tools; with a function they
 * stay.
 */
export const simplified: {
  (template: string | Template): Simplified<undefined, Template>
  <P extends AnyOf<LanguageModelFace>>(provider: P, template: string | Template): Simplified<P, Template>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Simplified<Effect.Effect<A, E, R>>
} = <P>(...said: readonly [asked: P, template?: string | Template]) => {
  const [first, second] = said
  const [asked, template] = isTemplate(first) ? [undefined, first] : [first, second]
  if (typeof template === "string" && !template.includes(placeholder)) {
    throw new InvalidOptions("Degradation.simplified", `expected a template with ${placeholder} in it`)
  }
  return rung("simplified", { asked, template }) as never
}

const isTemplate = (u: unknown): u is string | Template => typeof u === "string" || typeof u === "function"

/**
 * What is said when nobody answers: a value, a function of the primary's
 * failure, or an effect. Of a language model it is a text, or encoded parts.
 */
export const fallback: {
  <A, E, R>(answer: Effect.Effect<A, E, R>): Fallback<unknown, A, E | DeadlineExceeded, R>
  <B, Failure = LlmError>(answer: (failure: Failure) => B): Fallback<Failure, SaidBy<B>, FailureOf<B>, ServicesIn<B>>
  <A>(answer: A): Fallback<unknown, A>
} = (answer: unknown) =>
  rung("fallback", {
    answer: typeof answer === "function" ? (failure: never) => answer(failure) : () => answer,
  }) as never

type SaidBy<B> = B extends Effect.Effect<infer A, infer _E, infer _R> ? A : B
type FailureOf<B> = B extends Effect.Effect<infer _A, infer E, infer _R> ? E | DeadlineExceeded : never
type ServicesIn<B> = B extends Effect.Effect<infer _A, infer _E, infer R> ? R : never

// ---------------------------------------------------------------------------
// Chains
// ---------------------------------------------------------------------------

/** What is said of a ladder as a whole. */
export const Options = Schema.Struct({
  /** Names it in events and metrics. Default: the primary's name. */
  name: Schema.optional(Schema.String),
  /** How long rungs without an attempt may take after the deadline. Default 250 milliseconds. */
  afterDeadline: Schema.optional(DurationInput),
  /** Which failures are caught. Default `by table`: those for which `FailureMode` says so. */
  catches: Schema.optional(Schema.Literals(["by table", "everything"])),
})

/** What is said of a ladder as a whole. */
export interface Options extends Schema.Schema.Type<typeof Options> {}

/** These options, and no others. */
type Only<O extends Options> = O & { readonly [P in Exclude<keyof O, keyof Options>]: never }

/** The option with which a ladder catches every failure, `InvalidRequest` and those that are no `LlmError` among them. */
export const everything = { catches: "everything" } as const satisfies Options

type PrimaryIn<C extends Chain> = Get<C, "primary"> extends Primary<infer P> ? P : never

/**
 * A ladder from its rungs. The first is the primary, or a cache and then the
 * primary; below it the order is yours. Each rung stands once.
 *
 * With a `fallback` it removes the failures that are caught. Adds those of the
 * fallback, and, of the rungs below the primary, those that are no `LlmError`.
 */
export const make = <const C extends Chain, const O extends Options = {}>(
  rungs: C & Legal<ProblemOfMake<C, CatchesOf<O>>>,
  options?: Only<O>,
): Ladder<
  FaceOf<PrimaryIn<C>>,
  SourcesOf<C>,
  Leaves<ErrorOf<PrimaryIn<C>>, C, CatchesOf<O>>,
  ServicesOf<PrimaryIn<C>> | Needs<C>
> => {
  const where = "Degradation.make"
  const listed = listedIn(where, rungs)
  const asked = listed.find(is("primary"))?.asked
  if (!isProvider(asked)) throw new InvalidOptions(where, "expected a primary with a provider")
  const ladder: unknown = built(where, asked, listed, options)
  return ladder as ReturnType<typeof make<C, O>>
}

/**
 * The same around a provider, which is the primary. `Degradation.primary()` says
 * where it stands, when a cache comes before it.
 */
const with_ =
  <const C extends Chain, const O extends Options = {}>(
    rungs: C & Legal<ProblemOfWith<C, CatchesOf<O>>>,
    options?: Only<O>,
  ) =>
  <F extends Any, E, R>(
    self: Provider<F, E, R> & Legal<ProblemOfProvider<F, E, C, CatchesOf<O>>>,
  ): Ladder<F, "primary" | SourcesOf<C>, Leaves<E, C, CatchesOf<O>>, R | Needs<C>> => {
    const where = "Degradation.with"
    const ladder: unknown = built(where, self, aroundIn(where, rungs), options)
    return ladder as Ladder<F, "primary" | SourcesOf<C>, Leaves<E, C, CatchesOf<O>>, R | Needs<C>>
  }

export { with_ as with }

/**
 * A ladder below an effect, which is the primary: its value, or that of another
 * rung, with its source. The other rungs hold effects. With a rung `cache` or
 * `stale` it needs a name: values are kept under it, beside their key.
 */
export const effect = <A, E, R, const C extends Chain, const O extends Options = {}>(
  self: Effect.Effect<A, E, R>,
  rungs: C & Legal<ProblemOfEffect<C, O>>,
  options?: Only<O>,
): Effect.Effect<Answered<A | ValuesOf<C>, "primary" | SourcesOf<C>>, Leaves<E, C, CatchesOf<O>>, R | Needs<C>> => {
  const where = "Degradation.effect"
  const listed = aroundIn(where, rungs)
  const name = nameIn(where, listed, options?.name)
  const ladder = built(where, fromEffect(self, { name }), listed, options)
  const asked: unknown = ladder.ask(undefined)
  return asked as ReturnType<typeof effect<A, E, R, C, O>>
}

const built = (where: string, asked: AnyProvider, listed: ReadonlyArray<Listed>, options: Options = {}) => {
  const o = checked(where, Options, options)
  return ladderOf(
    planned(where, asked, listed, {
      name: o.name,
      everything: o.catches === "everything",
      afterDeadline: millis(o.afterDeadline, "250 millis"),
    }),
  )
}
