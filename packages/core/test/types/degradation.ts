/** What a ladder leaves of failures, what it needs, and where its answers can come from, to the letter. */
import { Effect, type Layer, Schema, type Scope, type Stream } from "effect"
import type { BackingPersistence } from "effect/persistence/Persistence"
import type { Redis, RedisError } from "effect/persistence/Redis"
import {
  AnswerCache,
  Call,
  Degradation,
  type EmbeddingModelFace,
  type Face,
  LanguageModelLayer,
  type LanguageModelFace,
  type LlmError,
  type Provider,
  Timeouts,
  TypedLanguageModel,
  Understudy,
} from "@understudy/core"
import { same } from "./same.ts"

type LM = LanguageModelFace.LanguageModelFace
type Ladder<S extends Degradation.Source, E = never, R = never> = Degradation.Ladder<LM, S, E, R>
type Cache = AnswerCache.AnswerCache

declare const lead: Provider.Provider<LM, LlmError.Overloaded | LlmError.InvalidRequest, "lead">
declare const cheap: Provider.Provider<LM, LlmError.RateLimited | LlmError.InvalidRequest, "cheap">
declare const foreign: Provider.Provider<LM, LlmError.Overloaded | "odd", "foreign">
declare const embedder: Provider.Provider<EmbeddingModelFace.EmbeddingModelFace, LlmError.Overloaded>
declare const numbers: Provider.Provider<Face.Plain<number>, LlmError.Overloaded>
declare const request: LanguageModelFace.Request

// --- With a fallback, only what the table does not catch is left

const always = Degradation.make([Degradation.primary(lead), Degradation.fallback("We will be back.")])
same<typeof always, Ladder<"primary" | "fallback", LlmError.InvalidRequest, "lead">>(true)

const all = Degradation.make([
  Degradation.primary(lead),
  Degradation.cache({ scope: "tenant", timeToLive: "10 minutes" }),
  Degradation.model(cheap),
  Degradation.simplified("Briefly: {prompt}"),
  Degradation.stale({ maxAge: "1 day" }),
  Degradation.fallback((failure) => `We will be back (${failure._tag}).`),
])
same<
  typeof all,
  Ladder<
    "primary" | "cache" | "model" | "simplified" | "stale" | "fallback",
    LlmError.InvalidRequest,
    "lead" | "cheap" | Cache
  >
>(true)

// --- Without one, what the primary fails with is left, too; what those below fail with never is

const some = Degradation.make([Degradation.primary(lead), Degradation.model(cheap)])
same<typeof some, Ladder<"primary" | "model", LlmError.Overloaded | LlmError.InvalidRequest, "lead" | "cheap">>(true)
const simpler = Degradation.make([Degradation.primary(lead), Degradation.simplified(cheap, () => "Hello?")])
same<typeof simpler, Ladder<"primary" | "simplified", LlmError.Overloaded | LlmError.InvalidRequest, "lead" | "cheap">>(
  true,
)
const kept = Degradation.make([Degradation.primary(cheap), Degradation.stale({ scope: "everyone" })])
same<typeof kept, Ladder<"primary" | "stale", LlmError.RateLimited | LlmError.InvalidRequest, "cheap" | Cache>>(true)
const alone = Degradation.make([Degradation.primary(lead)])
same<typeof alone, Ladder<"primary", LlmError.Overloaded | LlmError.InvalidRequest, "lead">>(true)

// --- A cache before the primary

const through = Degradation.make([
  Degradation.cache({ scope: "everyone" }),
  Degradation.primary(lead),
  Degradation.fallback(""),
])
same<typeof through, Ladder<"cache" | "primary" | "fallback", LlmError.InvalidRequest, "lead" | Cache>>(true)

// --- Failures that are no LlmError pass, of the primary and of those below

const odd = Degradation.make([Degradation.primary(foreign), Degradation.fallback("")])
same<typeof odd, Ladder<"primary" | "fallback", "odd", "foreign">>(true)
const oddBelow = Degradation.make([Degradation.primary(lead), Degradation.model(foreign), Degradation.fallback("")])
same<typeof oddBelow, Ladder<"primary" | "model" | "fallback", LlmError.InvalidRequest | "odd", "lead" | "foreign">>(
  true,
)

// --- What a fallback fails with itself is left: one that is an effect can come too late

declare const motd: Effect.Effect<string, "no motd", "db">
const asked = Degradation.make([Degradation.primary(lead), Degradation.fallback(() => motd)])
same<
  typeof asked,
  Ladder<"primary" | "fallback", LlmError.InvalidRequest | LlmError.DeadlineExceeded | "no motd", "lead" | "db">
>(true)
const askedAtOnce = Degradation.make([Degradation.primary(lead), Degradation.fallback(motd)])
same<typeof askedAtOnce, typeof asked>(true)

// --- Everything

const nothingLeft = Degradation.make(
  [Degradation.primary(lead), Degradation.model(cheap), Degradation.fallback("We will be back.")],
  Degradation.everything,
)
same<typeof nothingLeft, Ladder<"primary" | "model" | "fallback", never, "lead" | "cheap">>(true)
const answer = nothingLeft.generate(request)
same<typeof answer, Effect.Effect<LanguageModelFace.Answer, never, "lead" | "cheap">>(true)
const stream = nothingLeft.stream(request)
same<typeof stream, Stream.Stream<LanguageModelFace.Part, LlmError.StreamInterrupted, "lead" | "cheap">>(true)
const named = Degradation.make([Degradation.primary(lead), Degradation.fallback("")], {
  ...Degradation.everything,
  name: "support",
  afterDeadline: "100 millis",
})
same<typeof named, Ladder<"primary" | "fallback", never, "lead">>(true)
const oddToo = Degradation.make(
  [
    Degradation.primary(foreign),
    Degradation.model(foreign),
    Degradation.fallback((failure: unknown) => typeof failure),
  ],
  Degradation.everything,
)
same<typeof oddToo, Ladder<"primary" | "model" | "fallback", never, "foreign">>(true)
const everythingButAnAnswer = Degradation.make([Degradation.primary(lead), Degradation.model(cheap)], {
  catches: "everything",
})
same<
  typeof everythingButAnAnswer,
  Ladder<"primary" | "model", LlmError.Overloaded | LlmError.InvalidRequest, "lead" | "cheap">
>(true)

// --- Options that are not known to the letter take nothing from the error type

declare const perhaps: { readonly catches?: "everything" }
declare const either: { readonly catches: "everything" | "by table" }
declare const any: Degradation.Options
const twoRungs = [Degradation.primary(lead), Degradation.fallback("")] as const
const byPerhaps = Degradation.make(twoRungs, perhaps)
same<typeof byPerhaps, typeof always>(true)
const byEither = Degradation.make(twoRungs, either)
same<typeof byEither, typeof always>(true)
const byAny = Degradation.make(twoRungs, any)
same<typeof byAny, typeof always>(true)
const aroundByAny = lead.pipe(Degradation.with([Degradation.fallback("")], any))
same<typeof aroundByAny, typeof always>(true)
const aroundByPerhaps = lead.pipe(Degradation.with([Degradation.fallback("")], perhaps))
same<typeof aroundByPerhaps, typeof always>(true)
const aroundByEither = lead.pipe(Degradation.with([Degradation.fallback("")], either))
same<typeof aroundByEither, typeof always>(true)
const byTable = Degradation.make(twoRungs, { catches: "by table", name: "support" })
same<typeof byTable, typeof always>(true)
const loose = Degradation.make(
  [
    Degradation.primary(foreign),
    Degradation.model(foreign),
    Degradation.fallback((failure: unknown) => typeof failure),
  ],
  any,
)
same<typeof loose, Ladder<"primary" | "model" | "fallback", "odd", "foreign">>(true)
Degradation.make(
  // @ts-expect-error -- everything may be caught, so the fallback must take it
  [Degradation.primary(foreign), Degradation.fallback((failure: LlmError.LlmError) => failure._tag)],
  any,
)
Degradation.make(
  // @ts-expect-error -- perhaps it is
  [Degradation.primary(foreign), Degradation.fallback((failure: LlmError.LlmError) => failure._tag)],
  perhaps,
)
// @ts-expect-error -- around one as well
foreign.pipe(Degradation.with([Degradation.fallback((failure: LlmError.LlmError) => failure._tag)], either))
// @ts-expect-error -- a misspelt option
Degradation.make(twoRungs, { name: "support", catch: "everything" })

// --- Nor is it known what one of several chains can give

declare const sometimes: boolean
const twoOrOne = sometimes ? twoRungs : ([Degradation.primary(lead)] as const)
// @ts-expect-error -- is there a fallback?
Degradation.make(twoOrOne, Degradation.everything)
const fallbackOrNone = sometimes ? ([Degradation.fallback("")] as const) : ([] as const)
// @ts-expect-error -- is there one around it?
lead.pipe(Degradation.with(fallbackOrNone, Degradation.everything))
const nobody = Degradation.fallback("nobody")
// @ts-expect-error -- is the last one a fallback?
Degradation.make([Degradation.primary(lead), sometimes ? nobody : Degradation.model(cheap)], Degradation.everything)
const oneOrOther = Degradation.make([Degradation.primary(lead), sometimes ? nobody : Degradation.fallback("none")])
same<typeof oneOrOther, typeof always>(true)

// --- The answer and its source

const told = all.ask(request)
same<
  typeof told,
  Effect.Effect<
    Degradation.Answered<LanguageModelFace.Answer, "primary" | "cache" | "model" | "simplified" | "stale" | "fallback">,
    LlmError.InvalidRequest,
    "lead" | "cheap" | Cache
  >
>(true)
export const bySource = Effect.map(always.ask(request), ({ source }): number => {
  switch (source) {
    case "primary":
      return 1
    case "fallback":
      return 2
  }
})
const pair = Effect.map(always.ask(request), Degradation.tuple)
same<
  typeof pair,
  Effect.Effect<
    readonly [answer: LanguageModelFace.Answer, source: "primary" | "fallback"],
    LlmError.InvalidRequest,
    "lead"
  >
>(true)
const streaming = always.askStream(request)
same<
  typeof streaming,
  Effect.Effect<
    Degradation.Streaming<LanguageModelFace.Part, "primary" | "fallback">,
    LlmError.InvalidRequest,
    "lead" | Scope.Scope
  >
>(true)

// --- Around a provider

const around = lead.pipe(Degradation.with([Degradation.model(cheap), Degradation.fallback("")]))
same<typeof around, Ladder<"primary" | "model" | "fallback", LlmError.InvalidRequest, "lead" | "cheap">>(true)
const aroundEverything = lead.pipe(Degradation.with([Degradation.fallback("")], Degradation.everything))
same<typeof aroundEverything, Ladder<"primary" | "fallback", never, "lead">>(true)
const cachedFirst = lead.pipe(
  Degradation.with([Degradation.cache({ scope: "everyone" }), Degradation.primary(), Degradation.fallback("")]),
)
same<typeof cachedFirst, Ladder<"cache" | "primary" | "fallback", LlmError.InvalidRequest, "lead" | Cache>>(true)
const preset = Understudy.make({ candidates: [{ provider: lead }, { provider: cheap }] }).pipe(
  Degradation.with([Degradation.stale({ scope: "tenant" }), Degradation.fallback("We will be back.")]),
)
same<
  typeof preset,
  Ladder<"primary" | "stale" | "fallback", LlmError.InvalidRequest, "lead" | "cheap" | Cache | Understudy.State>
>(true)
const bundle = <E, R>(self: Provider.Provider<LM, E, R>) =>
  self.pipe(Degradation.with([Degradation.model(cheap), Degradation.fallback("")]))
const bundled = bundle(lead)
same<typeof bundled, typeof around>(true)

// --- A ladder is a provider, and goes wherever one does

same<typeof always extends Provider.Provider<LM, LlmError.InvalidRequest, "lead"> ? true : false, true>(true)
const bounded = always.pipe(Timeouts.deadline())
same<typeof bounded, Provider.Provider<LM, LlmError.InvalidRequest | LlmError.DeadlineExceeded, "lead">>(true)
export const out = LanguageModelLayer.layer(nothingLeft)
export const typed = TypedLanguageModel.make(nothingLeft)
const within = always.generate(request).pipe(Call.withCache({ tenant: "t" }))
same<typeof within, Effect.Effect<LanguageModelFace.Answer, LlmError.InvalidRequest, "lead">>(true)

// --- Other faces

const digits = Degradation.make([Degradation.primary(numbers), Degradation.fallback(0)])
same<typeof digits, Degradation.Ladder<Face.Plain<number>, "primary" | "fallback">>(true)
const vectors = Degradation.make([Degradation.primary(embedder), Degradation.model(embedder)])
same<
  typeof vectors,
  Degradation.Ladder<EmbeddingModelFace.EmbeddingModelFace, "primary" | "model", LlmError.Overloaded>
>(true)

// --- Effects

declare const work: Effect.Effect<number, LlmError.Overloaded | LlmError.InvalidRequest | "odd", "db">
declare const other: Effect.Effect<bigint, LlmError.RateLimited | "other", "net">

const caught = Degradation.effect(work, [Degradation.fallback(0)])
same<
  typeof caught,
  Effect.Effect<Degradation.Answered<number, "primary" | "fallback">, LlmError.InvalidRequest | "odd", "db">
>(true)
const cachedWork = Degradation.effect(
  work,
  [
    Degradation.cache({ scope: "everyone", key: "work", schema: Schema.Number }),
    Degradation.model(other),
    Degradation.simplified(Effect.succeed(true)),
    Degradation.stale(),
    Degradation.fallback("none"),
  ],
  { name: "work" },
)
same<
  typeof cachedWork,
  Effect.Effect<
    Degradation.Answered<
      number | bigint | boolean | string,
      "primary" | "cache" | "model" | "simplified" | "stale" | "fallback"
    >,
    LlmError.InvalidRequest | "odd" | "other",
    "db" | "net" | Cache
  >
>(true)
const throughWork = Degradation.effect(
  work,
  [Degradation.cache({ scope: "everyone", key: { id: 1 }, schema: Schema.Number }), Degradation.primary()],
  { name: "work" },
)
same<
  typeof throughWork,
  Effect.Effect<
    Degradation.Answered<number, "cache" | "primary">,
    LlmError.Overloaded | LlmError.InvalidRequest | "odd",
    "db" | Cache
  >
>(true)
const neverFails = Degradation.effect(
  work,
  [Degradation.fallback((failure: unknown) => Number(failure))],
  Degradation.everything,
)
same<typeof neverFails, Effect.Effect<Degradation.Answered<number, "primary" | "fallback">, never, "db">>(true)
const workByAny = Degradation.effect(work, [Degradation.fallback((failure: unknown) => Number(failure))], any)
same<typeof workByAny, typeof caught>(true)
const workByPerhaps = Degradation.effect(work, [Degradation.fallback(0)], perhaps)
same<typeof workByPerhaps, typeof caught>(true)
const workByEither = Degradation.effect(work, [Degradation.fallback(0)], either)
same<typeof workByEither, typeof caught>(true)
const zeroOrNone = sometimes ? ([Degradation.fallback(0)] as const) : ([] as const)
// @ts-expect-error -- is there a fallback?
Degradation.effect(work, zeroOrNone, Degradation.everything)
// @ts-expect-error -- everything may be caught, so the fallback must take it
Degradation.effect(work, [Degradation.fallback((failure) => failure._tag)], any)
const oldWork = Degradation.effect(
  work,
  [Degradation.stale({ scope: "everyone", key: "work", schema: Schema.Number }), Degradation.fallback(0)],
  { name: "work", catches: "by table" },
)
same<
  typeof oldWork,
  Effect.Effect<
    Degradation.Answered<number, "primary" | "stale" | "fallback">,
    LlmError.InvalidRequest | "odd",
    "db" | Cache
  >
>(true)

const inline = Degradation.effect(
  Effect.map(work, (n) => n > 0),
  [Degradation.cache({ scope: "everyone", key: "work", schema: Schema.Boolean }), Degradation.fallback(false)],
  { name: "work" },
)
same<
  typeof inline,
  Effect.Effect<
    Degradation.Answered<boolean, "primary" | "cache" | "fallback">,
    LlmError.InvalidRequest | "odd",
    "db" | Cache
  >
>(true)
export const remembered = <A, E, R>(self: Effect.Effect<A, E, R>, key: string, schema: Schema.Codec<A, unknown>) =>
  Degradation.effect(self, [Degradation.cache({ scope: "everyone", key, schema })], { name: "work" })
const rememberedWork = remembered(work, "work", Schema.Number)
same<
  typeof rememberedWork,
  Effect.Effect<
    Degradation.Answered<number, "primary" | "cache">,
    LlmError.Overloaded | LlmError.InvalidRequest | "odd",
    "db" | Cache
  >
>(true)

// --- Chains that cannot be meant

// @ts-expect-error -- the primary is first
Degradation.make([Degradation.model(cheap), Degradation.primary(lead)])
// @ts-expect-error -- there is no primary
Degradation.make([Degradation.fallback("")])
// @ts-expect-error -- there is nothing
Degradation.make([])
// @ts-expect-error -- a stale answer is not given instead of asking
Degradation.make([Degradation.stale({ scope: "tenant" }), Degradation.primary(lead)])
// @ts-expect-error -- each rung once
Degradation.make([Degradation.primary(lead), Degradation.model(cheap), Degradation.model(lead)])
// @ts-expect-error -- nothing below a fallback is reached
Degradation.make([Degradation.primary(lead), Degradation.fallback(""), Degradation.model(cheap)])
// @ts-expect-error -- whose answers may be stale?
Degradation.make([Degradation.primary(lead), Degradation.stale()])
// @ts-expect-error -- whose answers may be given?
Degradation.cache({ timeToLive: "1 minute" })
// @ts-expect-error -- the scope is one of two
Degradation.cache({ scope: "mine" })
// @ts-expect-error -- an embedder is no language model
Degradation.make([Degradation.primary(lead), Degradation.model(embedder)])
// @ts-expect-error -- an effect is no language model
Degradation.make([Degradation.primary(lead), Degradation.model(work)])
// @ts-expect-error -- a number is no answer of a language model
Degradation.make([Degradation.primary(lead), Degradation.fallback(42)])
// @ts-expect-error -- around one neither
lead.pipe(Degradation.with([Degradation.fallback(42)]))
// @ts-expect-error -- a text is no vector
Degradation.make([Degradation.primary(embedder), Degradation.fallback("none")])
// @ts-expect-error -- vectors are not kept
Degradation.make([Degradation.primary(embedder), Degradation.cache({ scope: "everyone" })])
// @ts-expect-error -- a language model needs no key
Degradation.make([Degradation.primary(lead), Degradation.cache({ scope: "everyone", key: 1, schema: Schema.String })])
// @ts-expect-error -- a ladder of `make` has a provider
Degradation.make([Degradation.primary(), Degradation.fallback("")])
// @ts-expect-error -- the fallback must take every failure that is caught
Degradation.make([Degradation.primary(foreign), Degradation.fallback(() => "")], Degradation.everything)
// @ts-expect-error -- the fallback must take every LlmError
Degradation.make([Degradation.primary(lead), Degradation.fallback((failure: LlmError.RateLimited) => failure.provider)])
// @ts-expect-error -- the primary of `with` is what it is put around
Degradation.with([Degradation.primary(lead), Degradation.fallback("")])
// @ts-expect-error -- an embedder is no language model
lead.pipe(Degradation.with([Degradation.model(embedder)]))
// @ts-expect-error -- a cache of an effect needs a key and a schema
Degradation.effect(work, [Degradation.cache({ scope: "everyone" })], { name: "work" })
// @ts-expect-error -- neither does an old value go without
Degradation.effect(work, [Degradation.stale({ scope: "everyone" })], { name: "work" })
// @ts-expect-error -- nor without the name of whose it is
Degradation.effect(work, [Degradation.cache({ scope: "everyone", key: 1, schema: Schema.Number })])
// @ts-expect-error -- nor with one that may be missing
Degradation.effect(work, [Degradation.stale({ scope: "everyone", key: 1, schema: Schema.Number })], any)
// @ts-expect-error -- the fallback must take whatever is caught
Degradation.effect(work, [Degradation.fallback((failure) => failure._tag)], Degradation.everything)
// @ts-expect-error -- a provider is no effect
Degradation.effect(work, [Degradation.model(cheap)])
// @ts-expect-error -- a template is for prompts
Degradation.effect(work, [Degradation.simplified("Briefly: {prompt}")])

// --- Where answers are kept

const inMemory = AnswerCache.layerMemory({ capacity: 100 })
same<typeof inMemory, Layer.Layer<Cache>>(true)
const persisted = AnswerCache.layerPersistence()
same<typeof persisted, Layer.Layer<Cache, never, BackingPersistence>>(true)
declare const redis: Layer.Layer<Redis, RedisError, "config">
const inRedis = AnswerCache.layerRedis(redis)
same<typeof inRedis, Layer.Layer<Cache, never, "config">>(true)
