/** Error events of a service, as the official clients and our own adapters read them. */
import Anthropic, * as AnthropicSdk from "@anthropic-ai/sdk"
import { NodeHttpClient, NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { HttpErrorMiddleware, type HttpErrorStream, LanguageModelFace, LlmError } from "@understudy/core"
import { AnthropicMessages, OpenAiChat } from "@understudy/providers"
import { Duration, Effect, Layer, Logger, Stream } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import * as Http from "node:http"
import OpenAI, * as OpenAiSdk from "openai"

const limited = new LlmError.RateLimited({ provider: "upstream", retryAfter: Duration.seconds(7) })

const chunks: Record<"openai" | "anthropic", ReadonlyArray<string>> = {
  openai: ["To be", ", or not"].map(
    (content) =>
      `data: ${JSON.stringify({ id: "c", object: "chat.completion.chunk", created: 1, model: "m", choices: [{ index: 0, delta: { content }, finish_reason: null }] })}\n\n`,
  ),
  anthropic: [
    {
      type: "message_start",
      message: {
        id: "m",
        type: "message",
        role: "assistant",
        model: "m",
        content: [],
        stop_reason: null,
        stop_sequence: null,
        usage: { input_tokens: 1, output_tokens: 1 },
      },
    },
    { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
    { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "To be" } },
    { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: ", or not" } },
  ].map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`),
}

/** A service that speaks a dialect, and whose streams break behind the first words, or before them. */
const service = (dialect: "openai" | "anthropic", words: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const source = Stream.concat(Stream.fromIterable(words), Stream.fail(limited))
    const options: Omit<HttpErrorStream.Options, "request"> = { dialect }
    const app = HttpRouter.add("POST", "/*", HttpErrorMiddleware.stream(source, options))
    const server = yield* Layer.build(
      HttpRouter.serve(Layer.merge(app, HttpErrorMiddleware.layer()), { disableListenLog: true }).pipe(
        Layer.provideMerge(NodeHttpServer.layer(() => Http.createServer(), { port: 0, host: "127.0.0.1" })),
        Layer.provide(Logger.layer([])),
      ),
    )
    return yield* HttpServer.addressFormattedWith(Effect.succeed).pipe(Effect.provideContext(server))
  })

const caught = (run: () => Promise<unknown>): Effect.Effect<unknown> =>
  Effect.promise(() =>
    run().then(
      () => assert.fail("it was taken for a whole answer"),
      (error: unknown) => error,
    ),
  )

describe("A stream that breaks in the middle", () => {
  it.effect("fails in the official client of OpenAI, behind its words", () =>
    Effect.gen(function* () {
      const baseURL = `${yield* service("openai", chunks.openai)}/v1`
      const client = new OpenAI({ baseURL, apiKey: "sk-test", maxRetries: 0 })
      let text = ""
      const error = yield* caught(async () => {
        const messages = [{ role: "user" as const, content: "?" }]
        for await (const chunk of await client.chat.completions.create({ model: "m", messages, stream: true })) {
          text += chunk.choices[0]?.delta.content ?? ""
        }
      })
      assert.strictEqual(text, "To be, or not")
      assert.isTrue(error instanceof OpenAiSdk.APIError && error.code === "rate_limit_exceeded")
    }),
  )

  it.effect("fails in the official client of Anthropic, behind its words", () =>
    Effect.gen(function* () {
      const baseURL = yield* service("anthropic", chunks.anthropic)
      const client = new Anthropic({ baseURL, apiKey: "sk-test", maxRetries: 0 })
      let text = ""
      const error = yield* caught(async () => {
        const messages = [{ role: "user" as const, content: "?" }]
        const stream = await client.messages.create({ model: "m", max_tokens: 10, messages, stream: true })
        for await (const event of stream) {
          if (event.type === "content_block_delta" && event.delta.type === "text_delta") text += event.delta.text
        }
      })
      assert.strictEqual(text, "To be, or not")
      assert.isTrue(error instanceof AnthropicSdk.APIError && JSON.stringify(error.error).includes("rate_limit_error"))
    }),
  )

  it.effect("is StreamInterrupted with its failure and hint inside for our own adapters", () =>
    Effect.gen(function* () {
      const openai = OpenAiChat.make({ model: "m", baseUrl: `${yield* service("openai", chunks.openai)}/v1` })
      const claude = AnthropicMessages.make({ model: "m", baseUrl: yield* service("anthropic", chunks.anthropic) })
      for (const model of [openai, claude]) {
        const failure = yield* Effect.flip(Stream.runDrain(model.stream(LanguageModelFace.request("?"))))
        assert.isTrue(failure._tag === "StreamInterrupted" && failure.committed && failure.retryable)
        if (failure._tag !== "StreamInterrupted") return
        assert.strictEqual(failure.failure?._tag, "RateLimited")
        assert.deepStrictEqual(failure.retryAfter, Duration.seconds(7))
      }
    }).pipe(Effect.provide(NodeHttpClient.layerUndici)),
  )
})

describe("A stream that fails before its first words", () => {
  it.effect("is the failure itself for our own adapters", () =>
    Effect.gen(function* () {
      const openai = OpenAiChat.make({ model: "m", baseUrl: `${yield* service("openai", [])}/v1` })
      const claude = AnthropicMessages.make({ model: "m", baseUrl: yield* service("anthropic", []) })
      for (const model of [openai, claude]) {
        const failure = yield* Effect.flip(Stream.runDrain(model.stream(LanguageModelFace.request("?"))))
        assert.strictEqual(failure._tag, "RateLimited")
        assert.deepStrictEqual(failure.retryAfter, Duration.seconds(7))
      }
    }).pipe(Effect.provide(NodeHttpClient.layerUndici)),
  )
})
