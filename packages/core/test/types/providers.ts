/** What a provider is made of, and what of it can be used where. */
import { type Context, Effect, type Layer, type Scope, Stream } from "effect"
import { type Face, LanguageModelFace, LlmError, Provider } from "@understudy/core"
import { same } from "./same.ts"

type LM = LanguageModelFace.LanguageModelFace
declare const request: LanguageModelFace.Request
declare const openai: Provider.Provider<LM, LlmError.RateLimited | LlmError.InvalidRequest, "http">

// The types of a provider follow from its face and its failures.
same<
  ReturnType<typeof openai.generate>,
  Effect.Effect<LanguageModelFace.Answer, LlmError.RateLimited | LlmError.InvalidRequest, "http">
>(true)
same<
  ReturnType<typeof openai.stream>,
  Stream.Stream<
    LanguageModelFace.Part,
    LlmError.RateLimited | LlmError.InvalidRequest | LlmError.StreamInterrupted,
    "http"
  >
>(true)
same<Parameters<typeof openai.open>, [request: LanguageModelFace.Request, scope: Scope.Scope]>(true)
same<Provider.ErrorOf<typeof openai>, LlmError.RateLimited | LlmError.InvalidRequest>(true)
same<Provider.ServicesOf<typeof openai>, "http">(true)
same<Provider.FaceOf<typeof openai>, LM>(true)
same<Face.Hidden<LM>, LlmError.ProviderFailure>(true)

// What the face can find in answers and parts, and a stream that stops, are failures of every provider.
const made = Provider.make({
  name: "made",
  model: "m",
  face: LanguageModelFace.languageModelFace,
  generate: () => Effect.fail("its own" as const),
  stream: () => Stream.fail("its own" as const),
})
same<typeof made, Provider.Provider<LM, "its own" | LlmError.ProviderFailure | LlmError.StreamInterrupted>>(true)

const effect = Provider.fromEffect(Effect.succeed(5) as Effect.Effect<number, LlmError.Overloaded, "db">)
same<typeof effect, Provider.Provider<Face.Plain<number>, LlmError.Overloaded, "db">>(true)

// Fewer failures and fewer services fit where more are expected, and not the other way.
export const wider: Provider.Provider<LM, LlmError.LlmError, "http" | "db"> = openai
// @ts-expect-error -- it can also be limited in its rate
export const narrower: Provider.Provider<LM, LlmError.InvalidRequest, "http"> = openai
// @ts-expect-error -- it needs a service
export const needy: Provider.Provider<LM, LlmError.LlmError> = openai
// @ts-expect-error -- it is asked and answers something else
export const foreign: Provider.Provider<Face.Plain<string>, LlmError.LlmError, "http"> = openai

declare const context: Context.Context<"http">
const provided = openai.pipe(Provider.provideContext(context))
same<typeof provided, Provider.Provider<LM, LlmError.RateLimited | LlmError.InvalidRequest>>(true)

// A service that holds a provider.
class Model extends Provider.Service<Model, Provider.Provider<LM, LlmError.AllProvidersFailed>>()("test/Model") {}
const asked = Effect.flatMap(Model, (model) => model.generate(request))
same<typeof asked, Effect.Effect<LanguageModelFace.Answer, LlmError.AllProvidersFailed, Model>>(true)
declare const failover: Provider.Provider<LM, LlmError.AllProvidersFailed>
same<ReturnType<typeof layered>, Layer.Layer<Model>>(true)
export const layered = () => Provider.layer(Model, failover)
// @ts-expect-error -- this one fails otherwise
export const wrongly = () => Provider.layer(Model, openai)

// The union is flat and closed: handling every tag leaves nothing.
declare const broken: Effect.Effect<"answer", LlmError.LlmError>
const handled = broken.pipe(
  Effect.catchTags({
    RateLimited: () => Effect.succeed("x" as const),
    QuotaExhausted: () => Effect.succeed("x" as const),
    Overloaded: () => Effect.succeed("x" as const),
    ProviderUnavailable: () => Effect.succeed("x" as const),
    ConnectionFailed: () => Effect.succeed("x" as const),
    TimedOut: () => Effect.succeed("x" as const),
    DeadlineExceeded: () => Effect.succeed("x" as const),
    StreamInterrupted: () => Effect.succeed("x" as const),
    InvalidResponse: () => Effect.succeed("x" as const),
    ContentFiltered: () => Effect.succeed("x" as const),
    ContextLengthExceeded: () => Effect.succeed("x" as const),
    AuthenticationFailed: () => Effect.succeed("x" as const),
    PermissionDenied: () => Effect.succeed("x" as const),
    ModelNotFound: () => Effect.succeed("x" as const),
    InvalidRequest: () => Effect.succeed("x" as const),
    UnknownFailure: () => Effect.succeed("x" as const),
    CircuitOpen: () => Effect.succeed("x" as const),
    CapacityExceeded: () => Effect.succeed("x" as const),
    AllProvidersFailed: () => Effect.succeed("x" as const),
  }),
)
same<typeof handled, Effect.Effect<"answer" | "x">>(true)

// And the one that is not handled is named.
const one = openai.generate(request).pipe(Effect.catchTag("RateLimited", () => Effect.succeed([])))
same<Effect.Error<typeof one>, LlmError.InvalidRequest>(true)
// @ts-expect-error -- it never fails so
export const never = openai.generate(request).pipe(Effect.catchTag("Overloaded", () => Effect.succeed([])))

// Guards narrow.
export const guarded = (u: unknown): string =>
  LlmError.is("ConnectionFailed")(u) ? u.fault : LlmError.isLlmError(u) ? u._tag : "other"
// @ts-expect-error -- a clock that ran out is named
export const nameless = () => new LlmError.TimedOut({ provider: "a" })
