import { Context, Effect, type Layer, Schema, type Scope, Stream } from "effect"
import {
  type AiError,
  type EmbeddingModel,
  LanguageModel,
  type Model as AiModel,
  type Response,
  Tool,
  Toolkit,
} from "effect/ai"
import {
  type AiFailure,
  EmbeddingModelBridge,
  type EmbeddingModelFace,
  EmbeddingModelLayer,
  Failover,
  History,
  LanguageModelBridge,
  type LanguageModelFace,
  LanguageModelLayer,
  type LlmError,
  type Provider,
  Retry,
  TypedLanguageModel,
} from "@understudy/core"

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const same = <A, B>(equal: Equal<A, B>): void => void equal

type LM = LanguageModelFace.LanguageModelFace
type Core = LlmError.InvalidResponse | LlmError.InvalidRequest | LlmError.UnknownFailure
same<AiFailure.CoreFailure, Core>(true)

class Store extends Context.Service<Store, object>()("types/Store") {}
class Db extends Context.Service<Db, object>()("types/Db") {}
class Refused extends Schema.TaggedError<Refused>()("Refused", {}) {}

declare const overloaded: Provider.Provider<LM, LlmError.Overloaded, Store>
declare const limited: Provider.Provider<LM, LlmError.RateLimited>
declare const foreign: Provider.Provider<LM, LlmError.RateLimited | Error>
declare const embedder: Provider.Provider<EmbeddingModelFace.EmbeddingModelFace, LlmError.RateLimited, Store>

// --- The standard way out

export const standard = LanguageModelLayer.layer(overloaded)
same<typeof standard, AiModel.Model<string, LanguageModel.LanguageModel, Store>>(true)
export const asLayer: Layer.Layer<
  LanguageModel.LanguageModel | AiModel.ProviderName | AiModel.ModelName,
  never,
  Store
> = standard

// @ts-expect-error -- a provider with failures of its own has no standard way out
LanguageModelLayer.layer(foreign)
// @ts-expect-error -- a provider of embeddings is not a language model
LanguageModelLayer.layer(embedder)
// @ts-expect-error -- and the other way round
EmbeddingModelLayer.layer(limited)

const vectors = EmbeddingModelLayer.layer(embedder)
same<typeof vectors, AiModel.Model<string, EmbeddingModel.EmbeddingModel, Store>>(true)

// --- The typed way out: without a toolkit

declare const model: TypedLanguageModel.TypedLanguageModel<LlmError.Overloaded>
declare const original: LanguageModel.LanguageModel

const made = TypedLanguageModel.make(overloaded)
same<typeof made, Effect.Effect<TypedLanguageModel.TypedLanguageModel<LlmError.Overloaded>, never, Store>>(true)

const plain = model.generateText({ prompt: "Who?" })
const plainOriginal = original.generateText({ prompt: "Who?" })
same<Effect.Error<typeof plain>, LlmError.Overloaded | Core>(true)
same<Effect.Success<typeof plain>, Effect.Success<typeof plainOriginal>>(true)
same<Effect.Services<typeof plain>, never>(true)

const Person = Schema.Struct({ name: Schema.String, born: Schema.DateTimeUtcFromString })
const object = model.generateObject({ prompt: "Who?", schema: Person })
const objectOriginal = original.generateObject({ prompt: "Who?", schema: Person })
same<Effect.Error<typeof object>, LlmError.Overloaded | Core>(true)
same<Effect.Success<typeof object>, Effect.Success<typeof objectOriginal>>(true)
same<Effect.Services<typeof object>, Effect.Services<typeof objectOriginal>>(true)

const stream = model.streamText({ prompt: "Who?" })
const streamOriginal = original.streamText({ prompt: "Who?" })
same<Stream.Error<typeof stream>, LlmError.Overloaded | Core | LlmError.StreamInterrupted>(true)
same<Stream.Success<typeof stream>, Stream.Success<typeof streamOriginal>>(true)
same<Stream.Services<typeof stream>, never>(true)

// --- With toolkits

const Pay = Tool.make("Pay", {
  parameters: Schema.Struct({ euros: Schema.Finite }),
  success: Schema.String,
  failure: Refused,
  dependencies: [Db],
})
const Ship = Tool.make("Ship", { parameters: Schema.Struct({ to: Schema.String }), success: Schema.Finite })
const shop = Toolkit.make(Pay, Ship)
const port = Toolkit.make(Ship)

const bought = model.generateText({ prompt: "Buy", toolkit: shop })
const boughtOriginal = original.generateText({ prompt: "Buy", toolkit: shop })
same<Effect.Error<typeof bought>, Refused | LlmError.Overloaded | Core>(true)
same<Effect.Success<typeof bought>, Effect.Success<typeof boughtOriginal>>(true)
same<Effect.Services<typeof bought>, Effect.Services<typeof boughtOriginal>>(true)
same<Effect.Services<typeof bought>, Tool.HandlersFor<{ readonly Pay: typeof Pay; readonly Ship: typeof Ship }> | Db>(
  true,
)

const streamed = model.streamText({ prompt: "Buy", toolkit: shop })
const streamedOriginal = original.streamText({ prompt: "Buy", toolkit: shop })
same<Stream.Error<typeof streamed>, Refused | LlmError.Overloaded | Core | LlmError.StreamInterrupted>(true)
same<Stream.Success<typeof streamed>, Stream.Success<typeof streamedOriginal>>(true)
same<Stream.Services<typeof streamed>, Stream.Services<typeof streamedOriginal>>(true)

declare const either: typeof shop | typeof port
const one = model.generateText({ prompt: "Buy", toolkit: either })
const oneOriginal = original.generateText({ prompt: "Buy", toolkit: either })
same<Effect.Error<typeof one>, Refused | LlmError.Overloaded | Core>(true)
same<Effect.Success<typeof one>, Effect.Success<typeof oneOriginal>>(true)

const raw = model.generateText({ prompt: "Buy", toolkit: shop, disableToolCallResolution: true })
const rawOriginal = original.generateText({ prompt: "Buy", toolkit: shop, disableToolCallResolution: true })
same<Effect.Error<typeof raw>, LlmError.Overloaded | Core>(true)
same<Effect.Success<typeof raw>, Effect.Success<typeof rawOriginal>>(true)
same<Effect.Services<typeof raw>, Effect.Services<typeof rawOriginal>>(true)

/** A helper that is generic in its tools. */
export const generic = <Tools extends Record<string, Tool.Any>>(toolkit: Toolkit.WithHandler<Tools>) =>
  Effect.map(model.generateText({ prompt: "Buy", toolkit }), (response) => response.toolCalls)

// @ts-expect-error -- no such option
export const misspelt = model.generateText({ prompt: "Who?", temprature: 1 })
// @ts-expect-error -- no such tool
export const stolen = model.generateText({ prompt: "Buy", toolkit: shop, toolChoice: { tool: "Steal" } })

// --- Handled failures disappear

const fallback = () => Effect.succeed("later")
const some = plain.pipe(Effect.catchTag("Overloaded", fallback))
same<Effect.Error<typeof some>, Core>(true)
const all = plain.pipe(
  Effect.catchTags({
    Overloaded: fallback,
    InvalidResponse: fallback,
    InvalidRequest: fallback,
    UnknownFailure: fallback,
  }),
)
same<Effect.Error<typeof all>, never>(true)

// @ts-expect-error -- it never fails so
export const never = plain.pipe(Effect.catchTag("RateLimited", fallback))

// @ts-expect-error -- UnknownFailure is forgotten
export const forgotten: Effect.Effect<unknown> = plain.pipe(
  Effect.catchTags({ Overloaded: fallback, InvalidResponse: fallback, InvalidRequest: fallback }),
)

// --- The service

class Model extends TypedLanguageModel.Service<Model, LlmError.Overloaded | LlmError.RateLimited>()("types/Model") {}

const program = Effect.gen(function* () {
  const model = yield* Model
  return yield* model.generateText({ prompt: "Who?" })
})
same<Effect.Error<typeof program>, LlmError.Overloaded | LlmError.RateLimited | Core>(true)
same<Effect.Services<typeof program>, Model>(true)

const fewer = Model.layer(overloaded)
same<typeof fewer, Layer.Layer<Model, never, Store>>(true)

declare const refusing: Provider.Provider<LM, LlmError.ContentFiltered>
// @ts-expect-error -- it leaves a failure that the service does not have
Model.layer(refusing)

// --- The way in

const bridged = LanguageModelBridge.fromLanguageModel(original, { name: "a", model: "a-1" })
same<typeof bridged, Provider.Provider<LM, LlmError.ProviderFailure>>(true)

declare const theirs: AiModel.Model<"openai", LanguageModel.LanguageModel, Store>
const fromLayer = LanguageModelBridge.fromLayer(theirs)
same<typeof fromLayer, Effect.Effect<Provider.Provider<LM, LlmError.ProviderFailure>, never, Store | Scope.Scope>>(true)

declare const nothing: Layer.Layer<Db>
// @ts-expect-error -- there is no language model in it
LanguageModelBridge.fromLayer(nothing)

declare const theirVectors: EmbeddingModel.EmbeddingModel
const embedding = EmbeddingModelBridge.fromEmbeddingModel(theirVectors, { name: "a", model: "a-1" })
same<typeof embedding, Provider.Provider<EmbeddingModelFace.EmbeddingModelFace, LlmError.ProviderFailure>>(true)

// --- Policies on embeddings, and guards

const resilient = Failover.make([embedding.pipe(Retry.with())])
same<
  typeof resilient,
  Provider.Provider<
    EmbeddingModelFace.EmbeddingModelFace,
    LlmError.AllProvidersFailed | LlmError.ContextLengthExceeded | LlmError.ContentFiltered | LlmError.InvalidRequest
  >
>(true)
// @ts-expect-error -- faces do not mix
Failover.make([embedding, bridged])

const guarded = overloaded.pipe(History.guard, Retry.with())
same<typeof guarded, Provider.Provider<LM, LlmError.Overloaded, Store>>(true)

// --- Code against effect/ai runs as it is

export const written: Effect.Effect<string, AiError.AiError> = LanguageModel.generateText({ prompt: "Who?" }).pipe(
  Effect.map((response) => response.text),
  Effect.provide(LanguageModelLayer.layer(limited)),
)
export const parts: Stream.Stream<Response.StreamPart<{}>, AiError.AiError> = LanguageModel.streamText({
  prompt: "Who?",
}).pipe(Stream.provide(LanguageModelLayer.layer(limited)))
