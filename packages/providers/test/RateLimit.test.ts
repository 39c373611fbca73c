import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted, Stream } from "effect"
import { LanguageModelFace, RateLimit } from "@understudy/core"
import { AnthropicMessages, OpenAiChat } from "@understudy/providers"
import { events, transport } from "./support.ts"

const question = LanguageModelFace.request("Who wrote Dune?")

const openai = {
  model: OpenAiChat.make({ model: "gpt", apiKey: Redacted.make("sk-test") }),
  headers: {
    "x-ratelimit-limit-requests": "500",
    "x-ratelimit-remaining-requests": "3",
    "x-ratelimit-reset-requests": "59.64s",
    "x-ratelimit-remaining-tokens": "1200",
  },
  left: { requests: { remaining: 3, limit: 500, resetMs: 59_640 }, tokens: { remaining: 1200 } },
  available: [3, 1200],
  whole: JSON.stringify({
    id: "c1",
    model: "gpt-1",
    choices: [{ index: 0, message: { content: "Frank Herbert" }, finish_reason: "stop" }],
    usage: { prompt_tokens: 10, completion_tokens: 4 },
  }),
  streamed: events(
    { choices: [], prompt_filter_results: [] },
    { id: "c1", model: "gpt-1", choices: [{ index: 0, delta: { role: "assistant" } }] },
    { choices: [{ index: 0, delta: { content: "Frank Herbert" } }] },
    { choices: [{ index: 0, delta: {}, finish_reason: "stop" }] },
    { choices: [], usage: { prompt_tokens: 10, completion_tokens: 4 } },
    "[DONE]",
  ),
}

const anthropic = {
  model: AnthropicMessages.make({ model: "claude", apiKey: Redacted.make("sk-test") }),
  headers: {
    "anthropic-ratelimit-requests-remaining": "3",
    "anthropic-ratelimit-tokens-limit": "40000",
    "anthropic-ratelimit-tokens-remaining": "1200",
  },
  left: { requests: { remaining: 3 }, tokens: { remaining: 1200, limit: 40_000 } },
  available: [3, 1200],
  whole: JSON.stringify({
    id: "m1",
    type: "message",
    role: "assistant",
    model: "claude-1",
    content: [{ type: "text", text: "Frank Herbert" }],
    stop_reason: "end_turn",
    usage: { input_tokens: 10, output_tokens: 4 },
  }),
  streamed: events(
    { type: "message_start", message: { id: "m1", model: "claude-1", usage: { input_tokens: 10, output_tokens: 1 } } },
    { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
    { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "Frank Herbert" } },
    { type: "content_block_stop", index: 0 },
    { type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: 4 } },
    { type: "message_stop" },
  ),
}

describe.each([
  ["OpenAI", openai],
  ["Anthropic", anthropic],
] as const)("What %s says is left of its limits", (_, { available, headers, left, model, streamed, whole }) => {
  it.effect("comes with the metadata of an answer and of a stream, once", () =>
    Effect.gen(function* () {
      const answer = yield* model.generate(question).pipe(Effect.provide(transport(whole, headers).layer))
      assert.deepStrictEqual(RateLimit.headroomOf(answer), left)
      const parts = yield* Stream.runCollect(model.stream(question)).pipe(
        Effect.provide(transport(streamed, { ...headers, "content-type": "text/event-stream" }).layer),
      )
      assert.deepStrictEqual(RateLimit.headroomOf(parts), left)
      const marked = [...answer, ...parts].filter((part) => RateLimit.namespace in (part.metadata ?? {}))
      assert.strictEqual(marked.length, 2)
    }),
  )

  it.effect("is not there when it says nothing", () =>
    Effect.gen(function* () {
      const answer = yield* model.generate(question).pipe(Effect.provide(transport(whole).layer))
      assert.strictEqual(RateLimit.headroomOf(answer), undefined)
      assert.isUndefined(answer[0]?.metadata)
    }),
  )

  it.effect("is what the rate limit allows from then on", () =>
    Effect.gen(function* () {
      const paced = model.pipe(RateLimit.with({ requestsPerMinute: 500, tokensPerMinute: 40_000, key: "k" }))
      for (const [body, ask] of [
        [whole, Effect.asVoid(paced.generate(question))],
        [streamed, Stream.runDrain(paced.stream(question))],
      ] as const) {
        const status = yield* Effect.andThen(
          ask,
          Effect.flatMap(RateLimit.RateLimits, (limits) => limits.status),
        ).pipe(Effect.provide([transport(body, headers).layer, RateLimit.layer]))
        assert.deepStrictEqual(
          status[0]?.limits.map((limit) => limit.available),
          available,
        )
      }
    }),
  )
})
