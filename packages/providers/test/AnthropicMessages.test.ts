import { assert, describe, it } from "@effect/vitest"
import { Call, LanguageModelFace, LlmError } from "@understudy/core"
import { AnthropicMessages } from "@understudy/providers"
import { Effect, Redacted, Schema, Stream } from "effect"
import { LanguageModel, Prompt, Tool } from "effect/ai"
import { answerOf, bodyFor, decodes, events, failureOf, partsOf, stop, transport, weather, without } from "./support.ts"

const apiKey = Redacted.make("sk-ant-planted-key")
const claude = AnthropicMessages.make({ model: "claude-sonnet-4-5", apiKey })
const origin = "anthropic/claude-sonnet-4-5"

describe("AnthropicMessages requests", () => {
  it.effect("have the system prompt at the top, alternating turns, and thinking of this model only", () =>
    Effect.gen(function* () {
      const prompt = Prompt.make([
        { role: "system", content: "Be brief.", options: { anthropic: { cacheControl: { type: "ephemeral" } } } },
        {
          role: "user",
          content: [
            { type: "text", text: "Weather" },
            { type: "text", text: "  " },
          ],
        },
        { role: "user", content: [{ type: "text", text: "in Rome?" }] },
        { role: "system", content: "Be kind." },
        {
          role: "assistant",
          content: [
            { type: "reasoning", text: "Mine.", options: { anthropic: { origin, signature: "sig" } } },
            { type: "reasoning", text: "", options: { anthropic: { origin, redactedData: "xyz" } } },
            {
              type: "reasoning",
              text: "Another model's.",
              options: { anthropic: { origin: "anthropic/claude-opus-5", signature: "s" } },
            },
            { type: "reasoning", text: "Another provider's.", options: { openai: { origin: "openai/o3" } } },
            { type: "tool-call", id: "call.1|fc", name: "weather", params: { city: "Rome" } },
          ],
        },
        {
          role: "tool",
          content: [{ type: "tool-result", id: "call.1|fc", name: "weather", isFailure: true, result: "offline" }],
        },
        { role: "user", content: [{ type: "text", text: "Well?" }] },
        { role: "assistant", content: [{ type: "text", text: "It is \n" }] },
      ])
      const body = yield* bodyFor(claude, LanguageModelFace.request(prompt, { tools: [weather], toolChoice: "auto" }))
      const messages = body["messages"] as Array<{ content: Array<{ id?: string }> }>
      const id = messages[1]?.content[2]?.id
      assert.match(String(id), /^[a-zA-Z0-9_-]{1,64}$/)
      assert.deepStrictEqual(body, {
        model: "claude-sonnet-4-5",
        max_tokens: 16_384,
        system: [
          { type: "text", text: "Be brief.", cache_control: { type: "ephemeral" } },
          { type: "text", text: "Be kind." },
        ],
        messages: [
          {
            role: "user",
            content: [
              { type: "text", text: "Weather" },
              { type: "text", text: "in Rome?" },
            ],
          },
          {
            role: "assistant",
            content: [
              { type: "thinking", thinking: "Mine.", signature: "sig" },
              { type: "redacted_thinking", data: "xyz" },
              { type: "tool_use", id, name: "weather", input: { city: "Rome" } },
            ],
          },
          {
            role: "user",
            content: [
              { type: "tool_result", tool_use_id: id, content: "offline", is_error: true },
              { type: "text", text: "Well?" },
            ],
          },
          { role: "assistant", content: [{ type: "text", text: "It is" }] },
        ],
        tools: [{ name: "weather", description: "The weather at a place.", input_schema: Tool.getJsonSchema(weather) }],
        tool_choice: { type: "auto" },
      })
    }),
  )

  it.effect("say the tool choice in all its forms", () =>
    Effect.gen(function* () {
      const choose = (toolChoice: LanguageModelFace.Request["toolChoice"]) =>
        Effect.map(bodyFor(claude, LanguageModelFace.request("Hi", { tools: [weather, stop], toolChoice })), (body) => [
          body["tool_choice"],
          (body["tools"] as Array<unknown>).length,
        ])
      assert.deepStrictEqual(yield* choose("auto"), [{ type: "auto" }, 2])
      assert.deepStrictEqual(yield* choose("none"), [{ type: "none" }, 2])
      assert.deepStrictEqual(yield* choose("required"), [{ type: "any" }, 2])
      assert.deepStrictEqual(yield* choose({ tool: "stop" }), [{ type: "tool", name: "stop" }, 2])
      assert.deepStrictEqual(yield* choose({ oneOf: ["stop"] }), [{ type: "auto" }, 1])
      assert.deepStrictEqual(yield* choose({ mode: "required", oneOf: ["stop"] }), [{ type: "any" }, 1])
    }),
  )

  it.effect("carry images, PDF and text files, and tool results with images", () =>
    Effect.gen(function* () {
      const image = { type: "file", mediaType: "image/png", data: "iVBORw==" } as const
      const body = yield* bodyFor(
        claude,
        LanguageModelFace.request([
          {
            role: "user",
            content: [
              image,
              { type: "file", mediaType: "image/webp", data: new URL("https://example.com/a.webp") },
              { type: "file", mediaType: "application/pdf", fileName: "r.pdf", data: "JVBERg==" },
              { type: "file", mediaType: "application/pdf", data: new URL("https://example.com/r.pdf") },
              { type: "file", mediaType: "text/csv", data: "data:text/csv,a%2Cb" },
            ],
          },
          { role: "assistant", content: [{ type: "tool-call", id: "t1", name: "stop", params: {} }] },
          {
            role: "tool",
            content: [
              {
                type: "tool-result",
                id: "t1",
                name: "stop",
                isFailure: false,
                result: null,
                modelOutput: [{ type: "text", text: "Shot:" }, image],
              },
            ],
          },
        ]),
      )
      const source = { type: "base64", media_type: "image/png", data: "iVBORw==" }
      assert.deepStrictEqual(body["messages"], [
        {
          role: "user",
          content: [
            { type: "image", source },
            { type: "image", source: { type: "url", url: "https://example.com/a.webp" } },
            {
              type: "document",
              source: { type: "base64", media_type: "application/pdf", data: "JVBERg==" },
              title: "r.pdf",
            },
            { type: "document", source: { type: "url", url: "https://example.com/r.pdf" } },
            { type: "text", text: "a,b" },
          ],
        },
        { role: "assistant", content: [{ type: "tool_use", id: "t1", name: "stop", input: {} }] },
        {
          role: "user",
          content: [
            {
              type: "tool_result",
              tool_use_id: "t1",
              content: [
                { type: "text", text: "Shot:" },
                { type: "image", source },
              ],
            },
          ],
        },
      ])
      const { asked, layer } = transport("")
      for (const mediaType of ["image/tiff", "audio/wav", "application/zip"]) {
        const request = LanguageModelFace.request([
          { role: "user", content: [{ type: "file", mediaType, data: "AAAA" }] },
        ])
        const failure = yield* Effect.flip(claude.generate(request)).pipe(Effect.provide(layer))
        assert.strictEqual(failure._tag, "InvalidRequest")
        assert.include(failure.message, mediaType)
      }
      assert.strictEqual(asked.length, 0)
    }),
  )

  it.effect("carry the parameters that the model knows, those of the call before those of the adapter", () =>
    Effect.gen(function* () {
      const parameters = {
        temperature: 1.5,
        topP: 0.9,
        maxTokens: 100,
        stop: ["END", " "],
        seed: 7,
        presencePenalty: 1,
        reasoningEffort: "minimal",
        extra: { metadata: { user_id: "u" } },
      }
      const sent = (model: string) =>
        Effect.map(bodyFor(AnthropicMessages.make({ model, parameters }), LanguageModelFace.request("Hi")), (body) =>
          without(body, "messages", "metadata", "model"),
        )
      const always = { max_tokens: 100, stop_sequences: ["END"] }
      const sampling = { temperature: 1, top_p: 0.9 }
      const effort = { output_config: { effort: "low" } }
      for (const model of ["claude-3-5-haiku-20241022", "claude-sonnet-4-20250514", "claude-haiku-4-5"]) {
        assert.deepStrictEqual(yield* sent(model), { ...always, ...sampling }, model)
      }
      for (const model of ["claude-opus-4-6", "claude-opus-4-5-20251101", "claude-sonnet-4-6"]) {
        assert.deepStrictEqual(yield* sent(model), { ...always, ...sampling, ...effort }, model)
      }
      for (const model of ["claude-opus-4-7", "claude-sonnet-5-5", "claude-haiku-5-5", "claude-fable-5-1"]) {
        assert.deepStrictEqual(yield* sent(model), { ...always, ...effort }, model)
      }
      assert.deepStrictEqual(yield* sent("someone-elses"), { ...always, ...sampling, ...effort })
      const called = yield* bodyFor(
        AnthropicMessages.make({ model: "claude-haiku-4-5", parameters }),
        LanguageModelFace.request("Hi"),
        "stream",
      ).pipe(Call.withParameters({ maxTokens: 7 }))
      assert.deepStrictEqual([called["max_tokens"], called["top_p"], called["stream"]], [7, 0.9, true])
      assert.deepStrictEqual(called["metadata"], { user_id: "u" })
    }),
  )

  it.effect("go to the messages path with the key and the version in their headers", () =>
    Effect.gen(function* () {
      const { asked, layer } = transport("")
      const model = AnthropicMessages.make({
        model: "m",
        apiKey,
        baseUrl: "https://gateway.example.com/anthropic/",
        headers: { "anthropic-beta": "x" },
      })
      yield* Effect.exit(model.generate(LanguageModelFace.request("Hi"))).pipe(Effect.provide(layer))
      const [{ headers, url } = assert.fail("nothing was asked")] = asked
      assert.strictEqual(url, "https://gateway.example.com/anthropic/v1/messages")
      assert.strictEqual(headers["x-api-key"], "sk-ant-planted-key")
      assert.strictEqual(headers["anthropic-version"], "2023-06-01")
      assert.strictEqual(headers["anthropic-beta"], "x")
    }),
  )
})

const message = (content: ReadonlyArray<unknown>, more: object = {}) => ({
  id: "msg_1",
  type: "message",
  role: "assistant",
  model: "claude-sonnet-4-5-20250929",
  content,
  stop_reason: "end_turn",
  stop_sequence: null,
  usage: {
    input_tokens: 10,
    cache_read_input_tokens: 20,
    cache_creation_input_tokens: 30,
    output_tokens: 8,
    output_tokens_details: { thinking_tokens: 3 },
  },
  ...more,
})

const metadata = {
  type: "response-metadata" as const,
  id: "msg_1",
  modelId: "claude-sonnet-4-5-20250929",
  timestamp: "1970-01-01T00:00:00.000Z",
}

const usage = {
  inputTokens: { total: 60, uncached: 10, cacheRead: 20, cacheWrite: 30 },
  outputTokens: { total: 8, text: 5, reasoning: 3 },
}

describe("AnthropicMessages answers", () => {
  it.effect("become metadata, reasoning with its signature, text, tool calls and a finish, which all decode", () =>
    Effect.gen(function* () {
      const parts = yield* answerOf(
        claude,
        message(
          [
            { type: "thinking", thinking: "Hm.", signature: "sig" },
            { type: "redacted_thinking", data: "xyz" },
            { type: "text", text: "Hello", citations: null },
            { type: "server_tool_use", id: "s", name: "web_search", input: {} },
            { type: "tool_use", id: "toolu_1", name: "weather", input: { city: "Rome" } },
          ],
          { stop_reason: "tool_use" },
        ),
      )
      assert.deepStrictEqual(parts, [
        metadata,
        { type: "reasoning", text: "Hm.", metadata: { anthropic: { origin, signature: "sig" } } },
        { type: "reasoning", text: "", metadata: { anthropic: { origin, redactedData: "xyz" } } },
        { type: "text", text: "Hello" },
        { type: "tool-call", id: "toolu_1", name: "weather", params: { city: "Rome" } },
        { type: "finish", reason: "tool-calls", usage },
      ])
      yield* decodes(parts, "answer")
    }),
  )

  it.effect("may be cut or paused, and lack their usage", () =>
    Effect.gen(function* () {
      const last = (more: object) =>
        Effect.map(answerOf(claude, message([{ type: "text", text: "x" }], more)), (parts) => parts.at(-1))
      const none = { usage: undefined }
      const reason = (reason: string) => ({ type: "finish", reason, usage: { inputTokens: {}, outputTokens: {} } })
      assert.deepStrictEqual<unknown>(yield* last({ stop_reason: "max_tokens", ...none }), reason("length"))
      assert.deepStrictEqual<unknown>(yield* last({ stop_reason: "pause_turn", ...none }), reason("pause"))
      assert.deepStrictEqual<unknown>(yield* last({ stop_reason: "stop_sequence", ...none }), reason("stop"))
      assert.deepStrictEqual<unknown>(yield* last({ stop_reason: "brand_new", ...none }), reason("other"))
    }),
  )

  it.effect("that are no answer are classified failures", () =>
    Effect.gen(function* () {
      const error = (type: string, text = "…") => ({ type: "error", error: { type, message: text } })
      const cases: ReadonlyArray<readonly [unknown, LlmError.Tag]> = [
        [error("overloaded_error"), "Overloaded"],
        [error("invalid_request_error", "Your credit balance is too low"), "QuotaExhausted"],
        [message([{ type: "text", text: "No." }], { stop_reason: "refusal" }), "ContentFiltered"],
        [message([], { stop_reason: "model_context_window_exceeded" }), "ContextLengthExceeded"],
        [message([]), "InvalidResponse"],
        [{ ...message([]), content: undefined }, "InvalidResponse"],
        ["<html></html>", "InvalidResponse"],
      ]
      for (const [body, tag] of cases) {
        assert.strictEqual((yield* Effect.flip(answerOf(claude, body)))._tag, tag, JSON.stringify(body))
      }
    }),
  )

  const Form = Schema.Struct({ name: Schema.String, nick: Schema.optionalKey(Schema.String) })

  const generateObject = (model: typeof claude, answer: unknown) =>
    Effect.gen(function* () {
      const { asked, layer } = transport(JSON.stringify(answer))
      const service = yield* LanguageModel.make({
        generateText: (options) =>
          Effect.orDie(model.generate(options)).pipe(
            Effect.map((parts) => [...parts]),
            Effect.provide(layer),
          ),
        streamText: () => Stream.empty,
      })
      const { finishReason, value } = yield* service.generateObject({
        prompt: "A form",
        schema: Form,
        objectName: "form",
      })
      return { value, finishReason, body: asked[0]?.body ?? {} }
    })

  it.effect("in a form use the API's own format, and are brought back to what LanguageModel decodes", () =>
    Effect.gen(function* () {
      const answer = message([{ type: "text", text: '{"name":"A","nick":null}' }])
      const { body, value } = yield* generateObject(claude, answer)
      assert.deepStrictEqual<unknown>(value, { name: "A" })
      const { format } = body["output_config"] as { format: { type: string; schema: { required: unknown } } }
      assert.strictEqual(format.type, "json_schema")
      assert.deepStrictEqual(format.schema.required, ["name", "nick"])
      assert.isUndefined(body["tools"])
    }),
  )

  it.effect("in a form may use a forced tool, whose input is the text", () =>
    Effect.gen(function* () {
      const model = AnthropicMessages.make({ model: "claude-3-5-haiku-latest", structuredOutput: "tool" })
      const answer = message([{ type: "tool_use", id: "t", name: "form", input: { name: "A" } }], {
        stop_reason: "tool_use",
      })
      const { body, finishReason, value } = yield* generateObject(model, answer)
      assert.deepStrictEqual<unknown>(value, { name: "A" })
      assert.strictEqual(finishReason, "stop")
      assert.deepStrictEqual(body["tool_choice"], { type: "tool", name: "form" })
      const request = LanguageModelFace.request("A form", {
        responseFormat: { type: "json", objectName: "form", schema: Form },
      })
      const parts = yield* partsOf(
        model,
        events(
          start(),
          {
            type: "content_block_start",
            index: 0,
            content_block: { type: "tool_use", id: "t", name: "form", input: {} },
          },
          { type: "content_block_delta", index: 0, delta: { type: "input_json_delta", partial_json: '{"name":' } },
          { type: "content_block_delta", index: 0, delta: { type: "input_json_delta", partial_json: '"A"}' } },
          { type: "content_block_stop", index: 0 },
          end("tool_use"),
          { type: "message_stop" },
        ),
        request,
      )
      assert.strictEqual(parts.map((part) => (part.type === "text-delta" ? part.delta : "")).join(""), '{"name":"A"}')
      const finish = parts.at(-1)
      assert.isTrue(finish?.type === "finish" && finish.reason === "stop")
    }),
  )
})

const start = () => ({
  type: "message_start",
  message: { ...message([]), stop_reason: null, usage: { ...message([]).usage, output_tokens: 1 } },
})

const end = (stop_reason: string) => ({
  type: "message_delta",
  delta: { stop_reason, stop_sequence: null },
  usage: { output_tokens: 8, input_tokens: null },
})

const textBlock = (...deltas: ReadonlyArray<string>) => [
  { type: "content_block_start", index: 1, content_block: { type: "text", text: "" } },
  { type: "ping" },
  ...deltas.map((text) => ({ type: "content_block_delta", index: 1, delta: { type: "text_delta", text } })),
  { type: "content_block_stop", index: 1 },
]

const whole = [
  start(),
  { type: "content_block_start", index: 0, content_block: { type: "thinking", thinking: "", signature: "" } },
  { type: "content_block_delta", index: 0, delta: { type: "thinking_delta", thinking: "Hm." } },
  { type: "content_block_delta", index: 0, delta: { type: "signature_delta", signature: "sig" } },
  { type: "content_block_stop", index: 0 },
  ...textBlock("Hé", "llo 😀"),
  {
    type: "content_block_start",
    index: 2,
    content_block: { type: "tool_use", id: "toolu_1", name: "weather", input: {} },
  },
  { type: "content_block_delta", index: 2, delta: { type: "input_json_delta", partial_json: "" } },
  { type: "content_block_delta", index: 2, delta: { type: "input_json_delta", partial_json: '{"city":' } },
  { type: "content_block_delta", index: 2, delta: { type: "input_json_delta", partial_json: '"Rome"}' } },
  { type: "content_block_stop", index: 2 },
  {
    type: "content_block_start",
    index: 3,
    content_block: { type: "tool_use", id: "toolu_2", name: "stop", input: {} },
  },
  { type: "content_block_stop", index: 3 },
  end("tool_use"),
  { type: "message_stop" },
]

const expected = [
  metadata,
  { type: "reasoning-start", id: "reasoning-0", metadata: { anthropic: { origin } } },
  { type: "reasoning-delta", id: "reasoning-0", delta: "Hm." },
  { type: "reasoning-end", id: "reasoning-0", metadata: { anthropic: { origin, signature: "sig" } } },
  { type: "text-start", id: "text-1" },
  { type: "text-delta", id: "text-1", delta: "Hé" },
  { type: "text-delta", id: "text-1", delta: "llo 😀" },
  { type: "text-end", id: "text-1" },
  { type: "tool-params-start", id: "toolu_1", name: "weather" },
  { type: "tool-params-delta", id: "toolu_1", delta: '{"city":' },
  { type: "tool-params-delta", id: "toolu_1", delta: '"Rome"}' },
  { type: "tool-params-end", id: "toolu_1" },
  { type: "tool-call", id: "toolu_1", name: "weather", params: { city: "Rome" } },
  { type: "tool-params-start", id: "toolu_2", name: "stop" },
  { type: "tool-params-end", id: "toolu_2" },
  { type: "tool-call", id: "toolu_2", name: "stop", params: {} },
  { type: "finish", reason: "tool-calls", usage },
]

describe("AnthropicMessages streams", () => {
  it.effect("become parts that decode", () =>
    Effect.gen(function* () {
      const parts = yield* partsOf(claude, events(...whole))
      assert.deepStrictEqual<unknown>(parts, expected)
      yield* decodes(parts, "stream")
    }),
  )

  it.effect("are the same with CRLF, comments, unknown fields, unknown events and unknown blocks", () =>
    Effect.gen(function* () {
      const noisy = events(
        ...whole.slice(0, 5),
        { type: "brand_new_event", data: 1 },
        { type: "content_block_start", index: 9, content_block: { type: "server_tool_use", id: "s" } },
        { type: "content_block_delta", index: 9, delta: { type: "input_json_delta", partial_json: "{" } },
        { type: "content_block_delta", index: 1, delta: { type: "citations_delta", citation: {} } },
        { type: "content_block_stop", index: 9 },
        ...whole.slice(5),
      )
        .replaceAll('{"type"', '{"unknown":[1],"type"')
        .replaceAll("event: ping", ": comment\n\nevent: keepalive\ndata: not json\n\nevent: ping")
      assert.deepStrictEqual<unknown>(yield* partsOf(claude, noisy), expected)
      assert.deepStrictEqual<unknown>(yield* partsOf(claude, noisy.replaceAll("\n", "\r\n")), expected)
    }),
  )

  it.effect("give thinking back to the model that thought it", () =>
    Effect.gen(function* () {
      const { layer } = transport(events(...whole))
      const service = yield* LanguageModel.make({
        generateText: () => Effect.succeed([]),
        streamText: (options) => Stream.orDie(claude.stream(options)).pipe(Stream.provide(layer)),
      })
      const parts = yield* Stream.runCollect(
        service.streamText({ prompt: "Hi", toolCallValidation: "deferred", disableToolCallResolution: true }),
      )
      const body = yield* bodyFor(claude, LanguageModelFace.request(Prompt.fromResponseParts(parts)))
      const [assistant] = body["messages"] as Array<{ content: Array<unknown> }>
      assert.deepStrictEqual(assistant?.content[0], { type: "thinking", thinking: "Hm.", signature: "sig" })
    }),
  )

  it.effect("end without a finish part when the end marker is missing, whatever came before", () =>
    Effect.gen(function* () {
      for (const count of [1, 6, 8, whole.length - 1]) {
        const failure = yield* Effect.flip(partsOf(claude, events(...whole.slice(0, count))))
        assert.isTrue(LlmError.is("StreamInterrupted")(failure) && failure.failure === undefined, `after ${count}`)
      }
    }),
  )

  it.effect("keep arguments of a tool that are not JSON as the text that they are", () =>
    Effect.gen(function* () {
      const parts = yield* partsOf(
        claude,
        events(
          start(),
          {
            type: "content_block_start",
            index: 0,
            content_block: { type: "tool_use", id: "t", name: "stop", input: {} },
          },
          { type: "content_block_delta", index: 0, delta: { type: "input_json_delta", partial_json: "{oops" } },
          { type: "content_block_stop", index: 0 },
          end("tool_use"),
          { type: "message_stop" },
        ),
      )
      assert.deepInclude(parts, { type: "tool-call", id: "t", name: "stop", params: "{oops" })
    }),
  )

  it.effect("end with the failure that stands in them", () =>
    Effect.gen(function* () {
      const error = { type: "error", error: { type: "overloaded_error", message: "Overloaded" }, request_id: "req_7" }
      const cases: ReadonlyArray<readonly [string, LlmError.Tag]> = [
        [events(error), "Overloaded"],
        [events(start(), error), "Overloaded"],
        [events(start(), ...textBlock("a"), error), "Overloaded"],
        [events(start(), end("refusal"), { type: "message_stop" }), "ContentFiltered"],
        [events(start(), ...textBlock("a"), end("model_context_window_exceeded")), "ContextLengthExceeded"],
        [events(start(), end("end_turn"), { type: "message_stop" }), "InvalidResponse"],
        [`${events(start())}event: content_block_delta\ndata: {oops\n\n`, "InvalidResponse"],
        [JSON.stringify(error), "Overloaded"],
        ["<!doctype html>", "InvalidResponse"],
      ]
      for (const [body, tag] of cases) {
        const { failure } = yield* failureOf(claude, body)
        const found = failure._tag === "StreamInterrupted" ? failure.failure?._tag : failure._tag
        assert.strictEqual(found, tag, body.slice(0, 200))
      }
      const { failure } = yield* failureOf(claude, events(error))
      assert.isTrue(LlmError.is("Overloaded")(failure) && failure.requestId === "req_7")
    }),
  )

  it.effect("may be answered whole", () =>
    Effect.gen(function* () {
      const parts = yield* partsOf(claude, JSON.stringify(message([{ type: "text", text: "Hello" }])))
      assert.deepStrictEqual(
        parts.map(({ type }) => type),
        ["response-metadata", "text-start", "text-delta", "text-end", "finish"],
      )
    }),
  )
})
