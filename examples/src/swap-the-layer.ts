/**
 * One program, and a layer that decides which provider it asks.
 *
 * `summarize` asks for a `Model` by its type. In production the layer holds real
 * providers; in this example's `main` it holds an embedded server; in
 * `examples/test/swap.test.ts` it holds a fake on virtual time. The program is
 * the same to the letter.
 */
import { NodeHttpClient } from "@effect/platform-node"
import { LanguageModelFace, type LlmError, Provider, Understudy } from "@understudy/core"
import { OpenAiChat } from "@understudy/providers"
import { Upstream } from "@understudy/testkit"
import { Console, Effect, Layer, Redacted } from "effect"

// ---------------------------------------------------------------------------
// 1. The service: what the program asks for, and how that may fail
// ---------------------------------------------------------------------------

export class Model extends Provider.Service<
  Model,
  Provider.Provider<
    LanguageModelFace.LanguageModelFace,
    | LlmError.AllProvidersFailed
    | LlmError.ContentFiltered
    | LlmError.ContextLengthExceeded
    | LlmError.DeadlineExceeded
    | LlmError.InvalidRequest
    | LlmError.InvalidResponse
  >
>()("examples/Model") {}

// ---------------------------------------------------------------------------
// 2. The program
// ---------------------------------------------------------------------------

/** A summary, a shorter text's summary, or word that there is none. */
export const summarize = (text: string): Effect.Effect<string, LlmError.InvalidRequest, Model> =>
  Effect.gen(function* () {
    const model = yield* Model
    const ask = (text: string) =>
      model.generate(LanguageModelFace.request(`In one sentence: ${text}`)).pipe(Effect.map(LanguageModelFace.text))
    return yield* ask(text).pipe(
      // Its remedy: a shorter prompt.
      Effect.catchTag("ContextLengthExceeded", () => ask(text.slice(0, Math.floor(text.length / 2)))),
      Effect.catchTags({
        AllProvidersFailed: (failure) =>
          Effect.succeed(failure.retryable ? "No summary now, please come back." : "No summary."),
        ContentFiltered: () => Effect.succeed("No summary of this text."),
        ContextLengthExceeded: () => Effect.succeed("The text is too long."),
        DeadlineExceeded: () => Effect.succeed("No summary in time."),
        // In the type of a composition since it judges answers that are asked for as JSON; this one is text.
        InvalidResponse: () => Effect.succeed("No summary."),
      }),
    )
  })

// ---------------------------------------------------------------------------
// 3. A layer with a real client. In production, without `baseUrl`.
// ---------------------------------------------------------------------------

const ModelLive = (baseUrl: string) =>
  Layer.effect(
    Model,
    Effect.gen(function* () {
      const provider = Understudy.make({
        candidates: [
          { provider: OpenAiChat.make({ model: "gpt-5.6-terra", apiKey: Redacted.make("sk-any"), baseUrl }) },
        ],
      })
      // What the provider needs (a client, the circuits) is taken now, so that the service needs nothing.
      return provider.pipe(Provider.provideContext(yield* Effect.context<Provider.ServicesOf<typeof provider>>()))
    }),
  ).pipe(Layer.provide([Understudy.layer, NodeHttpClient.layerUndici]))

// Only when this file is what is run: the tests import it too.
if (import.meta.main) {
  await Effect.gen(function* () {
    const upstream = yield* Upstream.make({ script: [Upstream.answer("A prince loses his father twice.")] })
    yield* summarize("Who's there? …").pipe(Effect.flatMap(Console.log), Effect.provide(ModelLive(upstream.openaiUrl)))
  }).pipe(Effect.scoped, Effect.runPromise)
}
