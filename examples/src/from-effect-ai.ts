/**
 * A model of `effect/ai` as the understudy.
 *
 * Anything that is a `LanguageModel` of `effect/ai` can be a candidate: the
 * provider packages of Effect, a model of your own, a model on this machine.
 * Here it is one made by hand, which answers from a small book of phrases when
 * the provider in the cloud cannot.
 */
import { NodeHttpClient } from "@effect/platform-node"
import { LanguageModelBridge, LanguageModelLayer, Origin, Understudy } from "@understudy/core"
import { OpenAiChat } from "@understudy/providers"
import { Upstream } from "@understudy/testkit"
import { Console, Effect, Layer, Redacted, Stream } from "effect"
import { LanguageModel, Model, type Prompt, type Response } from "effect/ai"

// ---------------------------------------------------------------------------
// 1. A model of effect/ai. A provider package gives you one.
// ---------------------------------------------------------------------------

const answerTo = (prompt: Prompt.Prompt): string =>
  JSON.stringify(prompt.content).includes("Dune") ? "Frank Herbert wrote Dune." : "I do not know that one."

const finish: Response.FinishPartEncoded = {
  type: "finish",
  reason: "stop",
  usage: { inputTokens: {}, outputTokens: {} },
}

const Phrases = Model.make(
  "phrases",
  "book-1",
  Layer.effect(
    LanguageModel.LanguageModel,
    LanguageModel.make({
      generateText: ({ prompt }) => Effect.succeed([{ type: "text", text: answerTo(prompt) }, finish]),
      streamText: ({ prompt }) =>
        Stream.make(
          { type: "text-start", id: "0" },
          { type: "text-delta", id: "0", delta: answerTo(prompt) },
          { type: "text-end", id: "0" },
          finish,
        ),
    }),
  ),
)

// ---------------------------------------------------------------------------
// 2. The composition
// ---------------------------------------------------------------------------

const Resilient = Layer.unwrap(
  Effect.gen(function* () {
    const limited = yield* Upstream.make({
      script: {
        // Half an hour is longer than anyone would wait, so the next candidate is asked at once.
        steps: [Upstream.answer("Herbert, 1965."), Upstream.status(429, { headers: { "retry-after": 1800 } })],
        then: "repeat",
      },
    })
    const cloud = OpenAiChat.make({
      name: "cloud",
      model: "gpt-5.6-terra",
      apiKey: Redacted.make("sk-any"),
      baseUrl: limited.openaiUrl,
    })
    // Its name is that of the model's layer: `phrases`.
    const phrases = yield* LanguageModelBridge.fromLayer(Phrases)
    return LanguageModelLayer.layer(
      Understudy.make({ candidates: [{ provider: cloud }, { provider: phrases, priority: 1 }] }),
    )
  }),
).pipe(Layer.provide([Understudy.layer, NodeHttpClient.layerUndici]))

// ---------------------------------------------------------------------------
// 3. The program: it asks a LanguageModel, and sees who answered
// ---------------------------------------------------------------------------

const program = Effect.gen(function* () {
  const question = LanguageModel.generateText({ prompt: "Who wrote Dune?" })
  // The second call meets the limit. The third passes the open circuit over: the hint opened it.
  for (let turn = 1; turn <= 3; turn++) {
    const answer = yield* question
    yield* Console.log(`${turn}. ${answer.text} (${Origin.ofAnswer(answer.content)?.provider ?? "nobody"})`)
  }
})

await program.pipe(Effect.provide(Resilient), Effect.runPromise)
