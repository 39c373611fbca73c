/**
 * A chat with a tool, whose lead falls ill between two turns.
 *
 * The program is plain `effect/ai`: a `Chat`, a `Toolkit`, and a loop that goes
 * on while the model calls tools. It knows nothing of providers. The layer at
 * the end makes it resilient.
 *
 * What to look for in the output:
 *
 * - the tool, which books a table and must not book two, runs once
 * - the understudy goes on from the lead's tool call: its history is made
 *   acceptable on the way
 */
import { NodeHttpClient } from "@effect/platform-node"
import { LanguageModelLayer, Origin, PolicyEvent, Understudy } from "@understudy/core"
import { AnthropicMessages, OpenAiChat } from "@understudy/providers"
import { Upstream } from "@understudy/testkit"
import { Console, Effect, Layer, Redacted, Ref, Schema } from "effect"
import { Chat, Tool, Toolkit } from "effect/ai"

// ---------------------------------------------------------------------------
// 1. A tool with a side effect
// ---------------------------------------------------------------------------

const BookTable = Tool.make("BookTable", {
  description: "Book a table in the restaurant",
  parameters: Schema.Struct({ guests: Schema.Int, time: Schema.String }),
  success: Schema.Struct({ reference: Schema.String }),
})

const Restaurant = Toolkit.make(BookTable)

const RestaurantLayer = Restaurant.toLayer(
  Effect.gen(function* () {
    const bookings = yield* Ref.make(0)
    return Restaurant.of({
      BookTable: ({ guests, time }) =>
        Effect.gen(function* () {
          const number = yield* Ref.updateAndGet(bookings, (n) => n + 1)
          yield* Console.log(`[tool] booking ${number}: ${guests} guests at ${time}`)
          return { reference: `T-${number}` }
        }),
    })
  }),
)

// ---------------------------------------------------------------------------
// 2. The program: effect/ai, and nothing else
// ---------------------------------------------------------------------------

const program = Effect.gen(function* () {
  const toolkit = yield* Restaurant
  const chat = yield* Chat.fromPrompt([
    { role: "system", content: "You book tables." },
    { role: "user", content: "A table for four at eight, please." },
  ])
  while (true) {
    // The history is in the chat, so there is nothing to add to it.
    const response = yield* chat.generateText({ prompt: [], toolkit })
    const by = Origin.ofAnswer(response.content)?.provider ?? "nobody"
    for (const call of response.toolCalls) yield* Console.log(`[${by}] calls ${call.name}`)
    // `effect/ai` has run the handlers by now. Ask again with their results.
    if (response.toolCalls.length > 0) continue
    yield* Console.log(`[${by}] says: ${response.text}`)
    return
  }
})

// ---------------------------------------------------------------------------
// 3. The layer: two providers behind one LanguageModel
// ---------------------------------------------------------------------------

const Model = Layer.unwrap(
  Effect.gen(function* () {
    // The lead calls the tool, and then it is down for good.
    const lead = yield* Upstream.make({
      script: {
        steps: [
          Upstream.toolCalls([{ name: "BookTable", arguments: { guests: 4, time: "20:00" } }]),
          Upstream.status(500),
        ],
        then: "repeat",
      },
    })
    // The understudy is asked once, in the middle of the conversation.
    const understudy = yield* Upstream.make({ script: [Upstream.answer("Your table is booked, reference T-1.")] })
    const apiKey = Redacted.make("sk-any")

    return LanguageModelLayer.layer(
      Understudy.make({
        candidates: [
          {
            provider: OpenAiChat.make({ name: "lead", model: "gpt-5.6-terra", apiKey, baseUrl: lead.openaiUrl }),
          },
          {
            provider: AnthropicMessages.make({
              name: "understudy",
              model: "claude-sonnet-5-5",
              apiKey,
              baseUrl: understudy.anthropicUrl,
            }),
            priority: 1,
          },
        ],
        // An outage is asked about once more before the next candidate is. Do not wait long for it here.
        retry: { base: "20 millis" },
      }),
    )
  }),
).pipe(Layer.provide([Understudy.layer, NodeHttpClient.layerUndici]))

// Only what the policies decided that a person would want to know.
const story: PolicyEvent.Observer = (event) => {
  if (event.event === "AttemptFailed") process.stdout.write(`[${event.provider}] failed: ${event.failure}\n`)
  if (event.event === "FailedOver") process.stdout.write(`[${event.provider}] hands over to ${event.to}\n`)
}

await program.pipe(PolicyEvent.observe(story), Effect.provide([RestaurantLayer, Model]), Effect.runPromise)
