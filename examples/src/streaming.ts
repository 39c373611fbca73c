/**
 * Streams: cut a provider that does not begin, and tell the truth about one that
 * does not end.
 *
 * Until the first content a stream can be hidden: a stalled provider is cut by
 * the clock of first content, and the next one is asked. After it nothing is
 * asked again, since the reader has seen the beginning. A stream that breaks
 * then is `StreamInterrupted`, and says what had arrived.
 */
import { NodeHttpClient } from "@effect/platform-node"
import { LanguageModelFace, PolicyEvent, Understudy } from "@understudy/core"
import { AnthropicMessages, OpenAiChat } from "@understudy/providers"
import { Upstream } from "@understudy/testkit"
import { Console, Effect, Redacted, Stream } from "effect"

const write = (text: string) => Effect.sync(() => void process.stdout.write(text))

const program = Effect.gen(function* () {
  const slow = yield* Upstream.make({
    script: [
      // It sends its headers, and nothing else. No status ever says that something is wrong.
      Upstream.silence,
      // It begins well, and then the connection breaks.
      Upstream.reset({ answer: "The play begins on time, and", tokens: 7, afterTokens: 6 }),
    ],
  })
  const quick = yield* Upstream.make({
    script: [Upstream.answer("The show goes on.", { tokenDelay: "20 millis" })],
  })
  const apiKey = Redacted.make("sk-any")

  const model = Understudy.make({
    candidates: [
      {
        provider: OpenAiChat.make({ name: "slow", model: "gpt-5.6-terra", apiKey, baseUrl: slow.openaiUrl }),
        // 30 seconds by default. Here nobody has so long.
        timeouts: { firstContent: "500 millis" },
      },
      {
        provider: AnthropicMessages.make({
          name: "quick",
          model: "claude-sonnet-5-5",
          apiKey,
          baseUrl: quick.anthropicUrl,
        }),
        priority: 1,
      },
    ],
  })

  const tell = (question: string) =>
    write(`> ${question}\n`).pipe(
      Effect.andThen(
        model.stream(LanguageModelFace.request(question)).pipe(
          // Parts of a stream are those of effect/ai. `partText` is the text of those that have one.
          Stream.runForEach((part) => write(LanguageModelFace.languageModelFace.partText(part))),
        ),
      ),
      Effect.andThen(write("\n")),
      // The text is on the screen, so it cannot be taken back: say that it is not whole.
      Effect.catchTag("StreamInterrupted", (failure) =>
        write(
          `… [not whole: ${failure.delivered?.characters ?? 0} characters came, then ${failure.failure?._tag ?? "it just ended"}]\n`,
        ),
      ),
      // Before the first content the failures are those of an answer.
      Effect.catch((failure) => write(`[no answer: ${failure._tag}]\n`)),
    )

  yield* tell("Does the show go on?")
  yield* tell("When does the play begin?")

  const [first] = yield* slow.requests
  yield* Console.log(`The silent connection was closed by the ${first?.closedBy ?? "nobody"}.`)
})

// What the reader of a stream does not see: the attempt that was cut before its first content.
const story: PolicyEvent.Observer = (event) => {
  if (event.event === "FailedOver") process.stdout.write(`[${event.provider}: ${event.failure}, over to ${event.to}]\n`)
}

await program.pipe(
  PolicyEvent.observe(story),
  Effect.scoped,
  Effect.provide([Understudy.layer, NodeHttpClient.layerUndici]),
  Effect.runPromise,
)
