/** The rungs of a ladder, and what their types say of a chain of them. */
import type * as Prompt from "effect/ai/Prompt"
import type * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type { AnswerCache } from "../../AnswerCache.ts"
import type { Answer, Any } from "../../Face.ts"
import type { LadderTag } from "../../FailureMode.ts"
import type { LanguageModelFace } from "../../LanguageModelFace.ts"
import type { Source } from "../../PolicyEvent.ts"
import type { Scope } from "../cache/requestKey.ts"
import type { LlmError, WithTag } from "../llmError.ts"
import type { AnyProvider, FaceOf, Provider } from "../provider.ts"

/** Marks rungs. */
export const RungTypeId: RungTypeId = "~@understudy/core/Degradation/Rung"
/** Marks rungs. */
export type RungTypeId = "~@understudy/core/Degradation/Rung"

/** One step of a ladder. */
export interface Rung<out S extends Source = Source> {
  readonly [RungTypeId]: RungTypeId
  /** Which it is, and the source of its answers. */
  readonly rung: S
}

/** A rung with these fields. */
export const rung = <const S extends Source, A extends object>(name: S, fields: A): Rung<S> & A => ({
  [RungTypeId]: RungTypeId,
  rung: name,
  ...fields,
})

/** Who is asked first. Without a provider: whatever the ladder is put around. */
export interface Primary<out P = undefined> extends Rung<"primary"> {
  readonly asked: P
}

/** How the values of an effect are kept. */
export interface Value<in out A> {
  /** What is asked: equal keys have one answer. */
  readonly key: unknown
  readonly schema: Schema.Codec<A, unknown>
}

/** What was answered a short time ago. `Of` is the value of an effect, or `undefined` for a language model. */
export interface Cache<out Of = undefined> extends Rung<"cache"> {
  readonly scope: Scope
  readonly freshFor: number
  readonly coalesce: boolean
  readonly version: string | undefined
  readonly of: Of
}

/** Another one is asked: a provider, or an effect. */
export interface Model<out P> extends Rung<"model"> {
  readonly asked: P
}

/** A simpler question. Of a language model it is made by a template. */
export interface Simplified<out P, out Of = undefined> extends Rung<"simplified"> {
  /** Without one the primary is asked. */
  readonly asked: P
  readonly template: Of
}

/** From the prompt of the call to a simpler one. */
export type Template = (prompt: Prompt.Prompt) => Prompt.RawInput

/** What was answered some time ago. Without a scope it is the one of the rung `cache`. */
export interface Stale<out S = undefined, out Of = undefined> extends Rung<"stale"> {
  readonly scope: S
  readonly goodFor: number
  readonly version: string | undefined
  readonly of: Of
}

/** What is said when nobody answers. */
export interface Fallback<in Failure, out A, out E = never, out R = never> extends Rung<"fallback"> {
  readonly answer: (failure: Failure) => A | Effect.Effect<A, E, R>
}

/** Which failures a ladder catches: those for which the table says so, or every one. */
export type Catches = "by table" | "everything"

/** What options say about failures: `everything` only where they cannot say anything else, both where nobody knows. */
export type CatchesOf<O> = [O] extends [{ readonly catches: "everything" }]
  ? "everything"
  : [O] extends [{ readonly catches?: "by table" | undefined }]
    ? "by table"
    : Catches

// ---------------------------------------------------------------------------
// What a chain gives
// ---------------------------------------------------------------------------

/** A chain of rungs. */
export type Chain = ReadonlyArray<Rung>

/** The rung of this name in a chain. */
export type Get<C extends Chain, S extends Source> = Extract<C[number], Rung<S>>

/** The sources of a chain: the names of its rungs. */
export type SourcesOf<C extends Chain> = C[number]["rung"]

/** Who is asked below the primary. */
type Lower<C extends Chain> = {
  [I in keyof C]: C[I] extends Model<infer P> ? P : C[I] extends Simplified<infer P, infer _Of> ? P : never
}[number]

type ErrorIn<P> =
  P extends Provider<infer _F, infer E, infer _R> ? E : P extends Effect.Effect<infer _A, infer E, infer _R> ? E : never

type ServicesIn<P> =
  P extends Provider<infer _F, infer _E, infer R> ? R : P extends Effect.Effect<infer _A, infer _E, infer R> ? R : never

type ValueIn<P> = P extends Effect.Effect<infer A, infer _E, infer _R> ? A : never

type Caught<E, K extends Catches> = [K] extends ["everything"] ? E : Extract<E, WithTag<LadderTag>>

type OfFallback<C extends Chain> =
  Get<C, "fallback"> extends Fallback<infer F, infer A, infer E, infer R>
    ? { readonly failure: F; readonly answer: A; readonly error: E; readonly services: R }
    : never

type FallbackOf<C extends Chain> = [Get<C, "fallback">] extends [never]
  ? { readonly failure: unknown; readonly answer: never; readonly error: never; readonly services: never }
  : OfFallback<C>

/**
 * What leaves a ladder whose primary fails with `E`: all of that, unless there is a fallback; failures below that are no
 * `LlmError`; and those of the fallback itself.
 */
export type Leaves<E, C extends Chain, K extends Catches> =
  | ([Get<C, "fallback">] extends [never] ? E : Exclude<E, Caught<E, K>>)
  | ([K] extends ["everything"] ? never : Exclude<ErrorIn<Lower<C>>, LlmError>)
  | FallbackOf<C>["error"]

/** What a ladder needs besides what its primary needs. */
export type Needs<C extends Chain> =
  | ServicesIn<Lower<C>>
  | FallbackOf<C>["services"]
  | ([Get<C, "cache" | "stale">] extends [never] ? never : AnswerCache)

/** What the rungs below an effect can give. */
export type ValuesOf<C extends Chain> = ValueIn<Lower<C>> | KeptOf<C> | FallbackOf<C>["answer"]

type KeptOf<C extends Chain> = C[number] extends infer R
  ? R extends Cache<Value<infer A>>
    ? A
    : R extends Stale<infer _S, Value<infer A>>
      ? A
      : never
  : never

// ---------------------------------------------------------------------------
// What is wrong with a chain
// ---------------------------------------------------------------------------

/** Nothing is asked of an argument without a problem, and the impossible of one with it. */
export type Legal<Problem> = [Problem] extends [never] ? unknown : Problem

type Has<C extends Chain, S extends Source> = [Get<C, S>] extends [never] ? false : true

type Twice<C extends Chain, Seen = never> = C extends readonly [infer First extends Rung, ...infer Rest extends Chain]
  ? First["rung"] extends Seen
    ? true
    : Twice<Rest, Seen | First["rung"]>
  : false

type InOrder<C extends Chain> = C extends readonly [Rung<"primary">, ...Chain]
  ? true
  : C extends readonly [Rung<"cache">, Rung<"primary">, ...Chain]
    ? true
    : false

type FallbackLast<C extends Chain> =
  Has<C, "fallback"> extends false ? true : C extends readonly [...Chain, Rung<"fallback">] ? true : false

type Unscoped<C extends Chain> =
  Has<C, "cache"> extends true
    ? false
    : [Get<C, "stale">] extends [never]
      ? false
      : Get<C, "stale"> extends Stale<undefined, infer _Of>
        ? true
        : false

/** What is wrong with a chain whatever its primary is. */
export type ProblemOfChain<C extends Chain, K extends Catches> =
  Twice<C> extends true
    ? "a ladder has each rung once"
    : FallbackLast<C> extends false
      ? "nothing below a fallback is ever reached: it is the last rung"
      : Unscoped<C> extends true
        ? "whose answers may be stale? Without a rung `cache`, the rung `stale` needs a scope"
        : [K] extends ["everything"]
          ? never
          : [LlmError] extends [FallbackOf<C>["failure"]]
            ? never
            : "the function of a fallback takes every LlmError"

type OtherFace<C extends Chain, F extends Any> =
  Lower<C> extends infer P
    ? P extends undefined
      ? never
      : P extends AnyProvider
        ? [FaceOf<P>] extends [F]
          ? [F] extends [FaceOf<P>]
            ? never
            : P
          : P
        : P
    : never

type NeedsLanguageModel<C extends Chain> =
  | Get<C, "cache" | "stale">
  | (Get<C, "simplified"> extends infer S ? (S extends Simplified<infer _P, Template> ? S : never) : never)

/** What is wrong with a chain around a provider of this face that fails with `E`. */
export type ProblemOfProvider<F extends Any, E, C extends Chain, K extends Catches> = [OtherFace<C, F>] extends [never]
  ? [KeptOf<C>] extends [never]
    ? [F] extends [LanguageModelFace]
      ? ProblemOfFallback<E, C, K, string | Answer<F>>
      : [NeedsLanguageModel<C>] extends [never]
        ? ProblemOfFallback<E, C, K, Answer<F>>
        : "caches and templates are for language models"
    : "a key and a schema are for effects"
  : "whoever is asked below the primary must be a provider of the same face"

type ProblemOfFallback<E, C extends Chain, K extends Catches, Given> = [FallbackOf<C>["answer"]] extends [Given]
  ? "everything" extends K
    ? [E] extends [FallbackOf<C>["failure"]]
      ? ProblemOfChain<C, K>
      : "the function of a fallback takes every failure that is caught: annotate its parameter"
    : ProblemOfChain<C, K>
  : "the fallback is no answer: of a language model that is a text, or encoded parts"

/** What is wrong with a chain that holds its primary. */
export type ProblemOfMake<C extends Chain, K extends Catches> =
  IsUnion<C> extends true
    ? OneOfSeveral
    : InOrder<C> extends true
      ? Get<C, "primary"> extends Primary<infer P>
        ? P extends Provider<infer F, infer E, infer _R>
          ? ProblemOfProvider<F, E, C, K>
          : "the primary of `make` holds a provider"
        : never
      : "a ladder begins with its primary, or with a cache and then its primary"

type IsUnion<A, All = A> = A extends unknown ? ([All] extends [A] ? false : true) : never

/** Nobody could say which rungs an answer may come from, and whether there is a fallback among them. */
type OneOfSeveral = "this is one of several chains: make a ladder of each"

/** What is wrong with a chain that is put around its primary. */
export type ProblemOfWith<C extends Chain, K extends Catches> =
  IsUnion<C> extends true
    ? OneOfSeveral
    : [Get<C, "primary">] extends [never]
      ? ProblemOfChain<C, K>
      : Get<C, "primary"> extends Primary<undefined>
        ? InOrder<C> extends true
          ? ProblemOfChain<C, K>
          : "a ladder begins with its primary, or with a cache and then its primary"
        : "the primary is what the ladder is put around: `Degradation.primary()` only says where it stands"

/**
 * What is wrong with a chain around an effect. Neither its value nor its failures are looked at: where they are inferred
 * from a call that is itself generic, looking would fix them too early.
 */
export type ProblemOfEffect<C extends Chain, O> = [OtherThanEffect<C>] extends [never]
  ? [Valueless<C>] extends [never]
    ? [Nameless<C, O>] extends [never]
      ? "everything" extends CatchesOf<O>
        ? [unknown] extends [FallbackOf<C>["failure"]]
          ? ProblemOfWith<C, CatchesOf<O>>
          : "with `everything` the function of a fallback takes `unknown`: annotate its parameter"
        : ProblemOfWith<C, CatchesOf<O>>
      : "values are kept under the ladder's name: with a rung `cache` or `stale` the option `name` says it"
    : "a cache of an effect needs a key and the schema of its values"
  : "whoever is asked below an effect must be an effect"

/** The rungs that need a name, where there is none. */
type Nameless<C extends Chain, O> = [O] extends [{ readonly name: string }] ? never : Get<C, "cache" | "stale">

type OtherThanEffect<C extends Chain> = Exclude<Lower<C>, Effect.Effect<unknown, unknown, unknown>>

type Valueless<C extends Chain> = C[number] extends infer R
  ? R extends Cache<undefined>
    ? R
    : R extends Stale<infer S, undefined>
      ? S extends undefined
        ? never
        : R
      : never
  : never
