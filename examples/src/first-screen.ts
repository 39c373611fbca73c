import { NodeHttpClient } from "@effect/platform-node"
import { LanguageModelFace, Understudy } from "@understudy/core"
import { AnthropicMessages, OpenAiChat } from "@understudy/providers"
import { Upstream } from "@understudy/testkit"
import { Console, Effect, Redacted } from "effect"

const program = Effect.gen(function* () {
  // Two servers on this machine: one is down, one is well.
  const down = yield* Upstream.make({ script: { steps: [Upstream.status(503)], then: "repeat" } })
  const well = yield* Upstream.make({ script: [Upstream.answer("Frank Herbert wrote Dune.")] })
  const apiKey = Redacted.make("sk-any")

  const model = Understudy.make({
    candidates: [
      { provider: OpenAiChat.make({ model: "gpt-5.6-terra", apiKey, baseUrl: down.openaiUrl }) },
      { provider: AnthropicMessages.make({ model: "claude-sonnet-5-5", apiKey, baseUrl: well.anthropicUrl }) },
    ],
    deadline: { generate: "20 seconds" },
  })

  const answer = yield* model.generate(LanguageModelFace.request("Who wrote Dune?")).pipe(
    Effect.map(LanguageModelFace.text),
    // A failure that is handled leaves the type. Without the last line, this is a compile error
    // that names ContentFiltered, ContextLengthExceeded, InvalidRequest and InvalidResponse.
    Effect.catchTag("AllProvidersFailed", (failure) => Effect.succeed(`Nobody can answer now. ${failure.message}`)),
    Effect.catchTag("DeadlineExceeded", () => Effect.succeed("That took too long, please ask again.")),
    Effect.catch((failure) => Effect.succeed(`Please ask differently: ${failure._tag}`)),
  )
  yield* Console.log(answer)
})

await program.pipe(Effect.scoped, Effect.provide([Understudy.layer, NodeHttpClient.layerUndici]), Effect.runPromise)
