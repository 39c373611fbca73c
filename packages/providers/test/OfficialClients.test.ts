import Anthropic, * as AnthropicSdk from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import { Upstream } from "@understudy/testkit"
import { Effect } from "effect"
import OpenAI, * as OpenAiSdk from "openai"

const text = "Schön, 😀: Frank Herbert wrote it."
const usage = { inputTokens: 11, outputTokens: 7 }
const call = { name: "weather", arguments: { city: "Rome", days: 2 } }

const parameters = {
  type: "object" as const,
  properties: { city: { type: "string" }, days: { type: "integer" } },
  required: ["city"],
}

const schema = {
  type: "object" as const,
  properties: { title: { type: "string" }, pages: { type: "integer" } },
  required: ["title", "pages"],
  additionalProperties: false,
}

const book = JSON.stringify({ title: "Dune", pages: 412 })

/** What a client makes of each way to write the same answer. */
const wires: ReadonlyArray<Upstream.Wire> = [
  {},
  { chunkBytes: 1, crlf: true, comments: true, noSpace: true, unknownFields: true },
]

const playing = (...steps: ReadonlyArray<Upstream.Step>) => Upstream.make({ script: { steps, then: "repeat" } })

const caught = (run: () => Promise<unknown>): Effect.Effect<unknown> =>
  Effect.promise(() =>
    run().then(
      () => assert.fail("it was answered"),
      (error: unknown) => error,
    ),
  )

describe("the official client of OpenAI reads the upstream", () => {
  const connect = (upstream: Upstream.Running) =>
    new OpenAI({ baseURL: upstream.openaiUrl, apiKey: "sk-test", maxRetries: 0 })

  const asking = { model: "gpt-4.1", messages: [{ role: "user" as const, content: "Who wrote Dune?" }] }
  const tools = [{ type: "function" as const, function: { name: "weather", parameters } }]

  it.effect("answers and streams, with their usage and their ends", () =>
    Effect.gen(function* () {
      for (const wire of wires) {
        const upstream = yield* playing(Upstream.answer(text, { usage, tokens: 4, wire }))
        const client = connect(upstream)
        const answer = yield* Effect.promise(() => client.chat.completions.create(asking))
        assert.strictEqual(answer.choices[0]?.message.content, text)
        assert.strictEqual(answer.choices[0]?.finish_reason, "stop")
        assert.deepInclude(answer.usage, { prompt_tokens: 11, completion_tokens: 7, total_tokens: 18 })
        assert.strictEqual(answer._request_id, "req_1")

        const runner = client.chat.completions.stream({ ...asking, stream_options: { include_usage: true } })
        const whole = yield* Effect.promise(() => runner.finalChatCompletion())
        assert.strictEqual(whole.choices[0]?.message.content, text)
        assert.strictEqual(whole.choices[0]?.finish_reason, "stop")
        assert.deepInclude(whole.usage, { prompt_tokens: 11, completion_tokens: 7 })
      }
    }),
  )

  it.effect("calls of tools, whole and in deltas", () =>
    Effect.gen(function* () {
      const upstream = yield* playing(Upstream.toolCalls([call, { ...call, id: "call_mine" }]))
      const client = connect(upstream)
      const runner = client.chat.completions.stream({ ...asking, tools })
      for (const answer of [
        yield* Effect.promise(() => client.chat.completions.create({ ...asking, tools })),
        yield* Effect.promise(() => runner.finalChatCompletion()),
      ]) {
        const calls = answer.choices[0]?.message.tool_calls ?? []
        assert.strictEqual(answer.choices[0]?.finish_reason, "tool_calls")
        assert.deepStrictEqual(
          calls.map((one) => (one.type === "function" ? [one.function.name, JSON.parse(one.function.arguments)] : [])),
          [
            ["weather", call.arguments],
            ["weather", call.arguments],
          ],
        )
        assert.strictEqual(calls[1]?.id, "call_mine")
      }
    }),
  )

  it.effect("structured output, parsed by the client itself", () =>
    Effect.gen(function* () {
      const upstream = yield* playing(Upstream.answer(book))
      const client = connect(upstream)
      const response_format = {
        type: "json_schema" as const,
        json_schema: { name: "book", schema, strict: true },
      }
      const answer = yield* Effect.promise(() => client.chat.completions.parse({ ...asking, response_format }))
      assert.strictEqual(answer.choices[0]?.message.content, book)
      const runner = client.chat.completions.stream({ ...asking, response_format })
      const whole = yield* Effect.promise(() => runner.finalChatCompletion())
      assert.strictEqual(whole.choices[0]?.message.content, book)
    }),
  )

  it.effect("refusals", () =>
    Effect.gen(function* () {
      const upstream = yield* playing(Upstream.refusal("I cannot."))
      const answer = yield* Effect.promise(() => connect(upstream).chat.completions.create(asking))
      assert.strictEqual(answer.choices[0]?.message.refusal, "I cannot.")
    }),
  )

  it.effect("errors as its own classes, with status, code and request id", () =>
    Effect.gen(function* () {
      const rows = [
        [400, OpenAiSdk.BadRequestError, null],
        [401, OpenAiSdk.AuthenticationError, "invalid_api_key"],
        [403, OpenAiSdk.PermissionDeniedError, "unsupported_country_region_territory"],
        [404, OpenAiSdk.NotFoundError, "model_not_found"],
        [422, OpenAiSdk.UnprocessableEntityError, null],
        [429, OpenAiSdk.RateLimitError, "rate_limit_exceeded"],
        [500, OpenAiSdk.InternalServerError, null],
        [503, OpenAiSdk.InternalServerError, "server_is_overloaded"],
      ] as const
      for (const [status, type, code] of rows) {
        const upstream = yield* playing(Upstream.status(status))
        const error = yield* caught(() => connect(upstream).chat.completions.create(asking))
        if (!(error instanceof type)) return assert.fail(`${status}: ${String(error)}`)
        assert.strictEqual(error.status, status)
        assert.strictEqual(error.code, code)
        assert.strictEqual(error.requestID, "req_1")
        assert.strictEqual(yield* upstream.count, 1)
      }
    }),
  )

  it.effect("broken connections and errors inside of a stream as what they are to it", () =>
    Effect.gen(function* () {
      const reset = yield* playing(Upstream.resetBeforeHeaders)
      assert.instanceOf(
        yield* caught(() => connect(reset).chat.completions.create(asking)),
        OpenAiSdk.APIConnectionError,
      )
      const inBand = yield* playing(Upstream.errorInBand({ afterTokens: 2 }))
      const error = yield* caught(() => connect(inBand).chat.completions.stream(asking).finalChatCompletion())
      assert.instanceOf(error, OpenAiSdk.OpenAIError)
    }),
  )
})

describe("the official client of Anthropic reads the upstream", () => {
  const connect = (upstream: Upstream.Running) =>
    new Anthropic({ baseURL: upstream.anthropicUrl, apiKey: "sk-test", maxRetries: 0 })

  const asking = {
    model: "claude-sonnet-5-5",
    max_tokens: 100,
    messages: [{ role: "user" as const, content: "Who wrote Dune?" }],
  }
  const tools = [{ name: "weather", input_schema: parameters }]

  it.effect("answers and streams, with their thinking, usage and ends", () =>
    Effect.gen(function* () {
      for (const wire of wires) {
        const upstream = yield* playing(Upstream.answer(text, { usage, thinking: "Hm.", tokens: 4, wire }))
        const client = connect(upstream)
        const stream = client.messages.stream(asking)
        for (const answer of [
          yield* Effect.promise(() => stream.finalMessage()),
          yield* Effect.promise(() => client.messages.create(asking)),
        ]) {
          assert.deepStrictEqual(
            answer.content.map((block) =>
              block.type === "thinking" ? block.thinking : block.type === "text" ? block.text : "",
            ),
            ["Hm.", text],
          )
          const [thinking] = answer.content
          assert.isTrue(thinking?.type === "thinking" && /^understudy-signature-\d$/.test(thinking.signature))
          assert.strictEqual(answer.stop_reason, "end_turn")
          assert.deepInclude(answer.usage, { input_tokens: 11, output_tokens: 7 })
          assert.strictEqual(answer.role, "assistant")
        }
      }
    }),
  )

  it.effect("calls of tools, whole and in deltas", () =>
    Effect.gen(function* () {
      const upstream = yield* playing(Upstream.toolCalls([call, { ...call, id: "toolu_mine" }]))
      const client = connect(upstream)
      const stream = client.messages.stream({ ...asking, tools })
      for (const answer of [
        yield* Effect.promise(() => client.messages.create({ ...asking, tools })),
        yield* Effect.promise(() => stream.finalMessage()),
      ]) {
        assert.strictEqual(answer.stop_reason, "tool_use")
        assert.deepStrictEqual(
          answer.content.map((block) => (block.type === "tool_use" ? [block.name, block.input] : [])),
          [
            ["weather", call.arguments],
            ["weather", call.arguments],
          ],
        )
        assert.isTrue(answer.content[1]?.type === "tool_use" && answer.content[1].id === "toolu_mine")
      }
    }),
  )

  it.effect("structured output, parsed by the client itself", () =>
    Effect.gen(function* () {
      const upstream = yield* playing(Upstream.answer(book))
      const client = connect(upstream)
      const output_config = { format: { type: "json_schema" as const, schema } }
      const answer = yield* Effect.promise(() => client.messages.parse({ ...asking, output_config }))
      assert.deepStrictEqual(
        answer.content.map((block) => (block.type === "text" ? block.text : "")),
        [book],
      )
      const stream = client.messages.stream({ ...asking, output_config })
      assert.strictEqual(yield* Effect.promise(() => stream.finalText()), book)
    }),
  )

  it.effect("refusals", () =>
    Effect.gen(function* () {
      const upstream = yield* playing(Upstream.refusal("I cannot."))
      const answer = yield* Effect.promise(() => connect(upstream).messages.create(asking))
      assert.strictEqual(answer.stop_reason, "refusal")
    }),
  )

  it.effect("errors as its own classes, with status, type and request id", () =>
    Effect.gen(function* () {
      const rows = [
        [400, AnthropicSdk.BadRequestError, "invalid_request_error"],
        [401, AnthropicSdk.AuthenticationError, "authentication_error"],
        [403, AnthropicSdk.PermissionDeniedError, "permission_error"],
        [404, AnthropicSdk.NotFoundError, "not_found_error"],
        [422, AnthropicSdk.UnprocessableEntityError, "invalid_request_error"],
        [429, AnthropicSdk.RateLimitError, "rate_limit_error"],
        [500, AnthropicSdk.InternalServerError, "api_error"],
        [529, AnthropicSdk.InternalServerError, "overloaded_error"],
      ] as const
      for (const [status, type, said] of rows) {
        const upstream = yield* playing(Upstream.status(status))
        const error = yield* caught(() => connect(upstream).messages.create(asking))
        if (!(error instanceof type)) return assert.fail(`${status}: ${String(error)}`)
        assert.strictEqual(error.status, status)
        assert.strictEqual(error.type, said)
        assert.strictEqual(error.requestID, "req_1")
        assert.strictEqual(yield* upstream.count, 1)
      }
    }),
  )

  it.effect("broken connections and errors inside of a stream as what they are to it", () =>
    Effect.gen(function* () {
      const reset = yield* playing(Upstream.resetBeforeHeaders)
      assert.instanceOf(yield* caught(() => connect(reset).messages.create(asking)), AnthropicSdk.APIConnectionError)
      const inBand = yield* playing(Upstream.errorInBand({ afterTokens: 2 }))
      const error = yield* caught(() => connect(inBand).messages.stream(asking).finalMessage())
      assert.instanceOf(error, AnthropicSdk.APIError)
      assert.match(String(error), /overloaded_error/)
    }),
  )
})
