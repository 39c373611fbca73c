import { assert, describe, it } from "@effect/vitest"
import { Call, LanguageModelFace, LlmError } from "@understudy/core"
import { OpenAiChat, OpenAiDialect } from "@understudy/providers"
import { Effect, Redacted, Schema, Stream } from "effect"
import { LanguageModel, Prompt, Tool } from "effect/ai"
import { answerOf, bodyFor, decodes, events, failureOf, partsOf, stop, transport, weather, without } from "./support.ts"

const apiKey = Redacted.make("sk-planted-key")
const openai = OpenAiChat.make({ model: "gpt-4.1", apiKey })
const as = (dialect: OpenAiDialect.Known, model = "m") =>
  OpenAiChat.make({ model, dialect, baseUrl: "http://127.0.0.1:9/v1", apiKey })

const png = new Uint8Array([0x89, 0x50, 0x4e, 0x47])

const history = Prompt.make([
  { role: "system", content: "Be brief." },
  { role: "user", content: [{ type: "text", text: "Weather in Rome?" }] },
  {
    role: "assistant",
    content: [
      { type: "reasoning", text: "Foreign thoughts.", options: { anthropic: { signature: "s", origin: "claude/c" } } },
      { type: "text", text: "I look." },
      { type: "tool-call", id: "toolu_01", name: "weather", params: { city: "Rome" } },
    ],
  },
  {
    role: "tool",
    content: [{ type: "tool-result", id: "toolu_01", name: "weather", isFailure: false, result: { sky: "clear" } }],
  },
])

describe("OpenAiChat requests", () => {
  it.effect("carry the conversation, tool calls and results included, and no foreign reasoning", () =>
    Effect.gen(function* () {
      const body = yield* bodyFor(
        openai,
        LanguageModelFace.request(history, { tools: [weather], toolChoice: "required" }),
      )
      assert.deepStrictEqual(body, {
        model: "gpt-4.1",
        messages: [
          { role: "system", content: "Be brief." },
          { role: "user", content: "Weather in Rome?" },
          {
            role: "assistant",
            content: "I look.",
            tool_calls: [
              { id: "toolu_01", type: "function", function: { name: "weather", arguments: '{"city":"Rome"}' } },
            ],
          },
          { role: "tool", tool_call_id: "toolu_01", content: '{"sky":"clear"}' },
        ],
        tools: [
          {
            type: "function",
            function: {
              name: "weather",
              description: "The weather at a place.",
              parameters: Tool.getJsonSchema(weather),
            },
          },
        ],
        tool_choice: "required",
      })
    }),
  )

  it.effect("ask for a stream with its usage, unless the server refuses to be asked", () =>
    Effect.gen(function* () {
      const request = LanguageModelFace.request("Hello?")
      assert.deepStrictEqual(yield* bodyFor(openai, request, "stream"), {
        model: "gpt-4.1",
        messages: [{ role: "user", content: "Hello?" }],
        stream: true,
        stream_options: { include_usage: true },
      })
      assert.deepStrictEqual(yield* bodyFor(as("mistral"), request, "stream"), {
        model: "m",
        messages: [{ role: "user", content: "Hello?" }],
        stream: true,
      })
    }),
  )

  it.effect("say the tool choice in all its forms", () =>
    Effect.gen(function* () {
      const choose = (toolChoice: LanguageModelFace.Request["toolChoice"], model = openai) =>
        Effect.map(bodyFor(model, LanguageModelFace.request("Hi", { tools: [weather, stop], toolChoice })), (body) => [
          body["tool_choice"],
          (body["tools"] as Array<{ function: { name: string } }>).map((t) => t.function.name),
        ])
      const both = ["weather", "stop"]
      assert.deepStrictEqual(yield* choose("auto"), ["auto", both])
      assert.deepStrictEqual(yield* choose("none"), ["none", both])
      assert.deepStrictEqual(yield* choose("required"), ["required", both])
      assert.deepStrictEqual(yield* choose("required", as("mistral")), ["any", both])
      assert.deepStrictEqual(yield* choose({ tool: "stop" }), [{ type: "function", function: { name: "stop" } }, both])
      assert.deepStrictEqual(yield* choose({ oneOf: ["stop"] }), ["auto", ["stop"]])
      assert.deepStrictEqual(yield* choose({ mode: "required", oneOf: ["stop"] }), ["required", ["stop"]])
    }),
  )

  it.effect("carry images, audio, PDF and text files", () =>
    Effect.gen(function* () {
      const body = yield* bodyFor(
        openai,
        LanguageModelFace.request([
          {
            role: "user",
            content: [
              { type: "text", text: "Look:" },
              { type: "file", mediaType: "image/png", data: png },
              { type: "file", mediaType: "image/jpeg", data: new URL("https://example.com/a.jpg") },
              { type: "file", mediaType: "image/*", data: "data:image/gif;base64,R0lG" },
              { type: "file", mediaType: "image/*", data: png },
              { type: "file", mediaType: "audio/mpeg", data: "AAAA" },
              { type: "file", mediaType: "application/pdf", fileName: "r.pdf", data: "JVBERg==" },
              { type: "file", mediaType: "text/plain", data: "SGVsbG8=" },
            ],
          },
        ]),
      )
      assert.deepStrictEqual(body["messages"], [
        {
          role: "user",
          content: [
            { type: "text", text: "Look:" },
            { type: "image_url", image_url: { url: "data:image/png;base64,iVBORw==" } },
            { type: "image_url", image_url: { url: "https://example.com/a.jpg" } },
            { type: "image_url", image_url: { url: "data:image/gif;base64,R0lG" } },
            { type: "image_url", image_url: { url: "data:image/png;base64,iVBORw==" } },
            { type: "input_audio", input_audio: { data: "AAAA", format: "mp3" } },
            { type: "file", file: { filename: "r.pdf", file_data: "data:application/pdf;base64,JVBERg==" } },
            { type: "text", text: "Hello" },
          ],
        },
      ])
    }),
  )

  it.effect("are refused before any network when the dialect cannot express them", () =>
    Effect.gen(function* () {
      const { asked, layer } = transport("")
      const file = (mediaType: string, data: string | URL) =>
        LanguageModelFace.request([{ role: "user", content: [{ type: "file", mediaType, data }] }])
      const cases = [
        [openai, file("application/zip", "AAAA"), /application\/zip/],
        [openai, file("video/<script>", "AAAA"), /an unknown type/],
        [openai, file("application/pdf", new URL("https://example.com/r.pdf")), /PDF/],
        [openai, file("image/png", "not base64!"), /base64/],
        [openai, file("image/png", new URL("file:///etc/passwd")), /address/],
        [as("ollama"), file("image/png", new URL("https://example.com/a.png")), /images/],
        [as("groq"), file("application/pdf", "AAAA"), /application\/pdf/],
        [
          openai,
          LanguageModelFace.request("Hi", {
            tools: [
              Tool.providerDefined({ id: "openai.web_search", customName: "WebSearch", providerName: "web_search" })(),
            ],
          }),
          /tool/,
        ],
        [
          openai,
          LanguageModelFace.request(
            Prompt.make([
              { role: "assistant", content: [{ type: "tool-call", id: "a", name: "b", params: { n: 1n } }] },
            ]),
          ),
          /JSON/,
        ],
      ] as const
      for (const [model, request, detail] of cases) {
        for (const run of [model.generate(request), Stream.runDrain(model.stream(request))]) {
          const failure = yield* Effect.flip(run as Effect.Effect<unknown, LlmError.LlmError, never>).pipe(
            Effect.provide(layer),
          )
          assert.strictEqual(failure._tag, "InvalidRequest")
          assert.match(failure.message, detail)
        }
      }
      assert.strictEqual(asked.length, 0)
    }),
  )

  it.effect("give tool calls ids that the dialect accepts, the same for call and result, and each its own", () =>
    Effect.gen(function* () {
      const call = (id: string) => ({ type: "tool-call", id, name: "stop", params: {} }) as const
      const result = (id: string) =>
        ({ type: "tool-result", id, name: "stop", isFailure: false, result: "ok" }) as const
      const prompt = Prompt.make([
        { role: "assistant", content: [call("call_0"), call("abcdefgh9")] },
        { role: "tool", content: [result("abcdefgh9"), result("call_0")] },
        { role: "assistant", content: [call("call_0")] },
        { role: "tool", content: [result("call_0")] },
      ])
      const idsOf = (body: Record<string, unknown>) =>
        (body["messages"] as Array<{ tool_calls?: Array<{ id: string }>; tool_call_id?: string }>).flatMap((m) =>
          m.tool_calls === undefined ? [m.tool_call_id ?? ""] : m.tool_calls.map((c) => c.id),
        )
      const mistral = idsOf(yield* bodyFor(as("mistral"), LanguageModelFace.request(prompt)))
      for (const id of mistral) assert.match(id, /^[a-zA-Z0-9]{9}$/)
      const [first, kept, keptResult, firstResult, second, secondResult] = mistral
      assert.strictEqual(kept, "abcdefgh9")
      assert.strictEqual(keptResult, kept)
      assert.strictEqual(firstResult, first)
      assert.notStrictEqual(second, first)
      assert.strictEqual(secondResult, second)
      assert.deepStrictEqual(idsOf(yield* bodyFor(as("mistral"), LanguageModelFace.request(prompt))), mistral)
      assert.deepStrictEqual(idsOf(yield* bodyFor(openai, LanguageModelFace.request(prompt))).slice(0, 4), [
        "call_0",
        "abcdefgh9",
        "abcdefgh9",
        "call_0",
      ])
    }),
  )

  it.effect("put parameters into the names of the dialect, those of the call before those of the adapter", () =>
    Effect.gen(function* () {
      const parameters = {
        temperature: 0.2,
        topP: 0.9,
        maxTokens: 100,
        stop: ["END"],
        seed: 7,
        presencePenalty: 0.1,
        frequencyPenalty: 0.2,
        reasoningEffort: "low",
        extra: { user: "u", metadata: { a: 1 } },
      }
      const model = (dialect: OpenAiDialect.Known, name: string) =>
        OpenAiChat.make({ model: name, dialect, baseUrl: "http://127.0.0.1:9", parameters })
      const request = LanguageModelFace.request("Hi")
      const all = { temperature: 0.2, top_p: 0.9, stop: ["END"], presence_penalty: 0.1, frequency_penalty: 0.2 }
      const rest = { reasoning_effort: "low", user: "u", metadata: { a: 1 } }
      assert.deepStrictEqual(without(yield* bodyFor(model("openai", "gpt-4.1"), request), "messages"), {
        model: "gpt-4.1",
        ...all,
        ...rest,
        max_completion_tokens: 100,
        seed: 7,
      })
      assert.deepStrictEqual(without(yield* bodyFor(model("mistral", "m"), request), "messages"), {
        model: "m",
        ...all,
        ...rest,
        max_tokens: 100,
        random_seed: 7,
      })
      // Models that reason take no sampling parameters.
      assert.deepStrictEqual(without(yield* bodyFor(model("openai", "o3"), request), "messages"), {
        model: "o3",
        ...rest,
        max_completion_tokens: 100,
        seed: 7,
      })
      const called = yield* bodyFor(model("openai", "gpt-4.1"), request).pipe(
        Call.withParameters({ temperature: 1, extra: { metadata: { b: 2 } } }),
      )
      assert.strictEqual(called["temperature"], 1)
      assert.strictEqual(called["top_p"], 0.9)
      assert.deepStrictEqual([called["user"], called["metadata"]], ["u", { b: 2 }])
    }),
  )

  it.effect("ask models that call tools only without reasoning to do so", () =>
    Effect.gen(function* () {
      const parameters = { temperature: 0 }
      const terra = OpenAiChat.make({ model: "gpt-5.6-terra", parameters })
      const plain = yield* bodyFor(terra, LanguageModelFace.request("Hi"))
      assert.isUndefined(plain["reasoning_effort"])
      assert.isUndefined(plain["temperature"])
      const tools = yield* bodyFor(terra, LanguageModelFace.request("Hi", { tools: [weather] }))
      assert.strictEqual(tools["reasoning_effort"], "none")
      assert.strictEqual(tools["temperature"], 0)
    }),
  )

  it.effect("go to the dialect's address with its header for the key, and keep a query", () =>
    Effect.gen(function* () {
      const asked = (options: OpenAiChat.Options) =>
        Effect.gen(function* () {
          const stub = transport("")
          yield* Effect.exit(OpenAiChat.make(options).generate(LanguageModelFace.request("Hi"))).pipe(
            Effect.provide(stub.layer),
          )
          return stub.asked[0] ?? assert.fail("nothing was asked")
        })
      const first = yield* asked({
        model: "m",
        apiKey,
        organization: "org",
        project: "proj",
        headers: { "X-Title": "t" },
      })
      assert.strictEqual(first.url, "https://api.openai.com/v1/chat/completions")
      assert.strictEqual(first.headers["authorization"], "Bearer sk-planted-key")
      assert.strictEqual(first.headers["openai-organization"], "org")
      assert.strictEqual(first.headers["openai-project"], "proj")
      assert.strictEqual(first.headers["x-title"], "t")
      assert.strictEqual(first.headers["content-type"], "application/json")
      const azure = yield* asked({
        model: "d",
        dialect: "azure",
        apiKey,
        baseUrl: "https://r.openai.azure.com/openai/deployments/d/?api-version=2024-10-21",
      })
      assert.strictEqual(
        azure.url,
        "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
      )
      assert.strictEqual(azure.headers["api-key"], "sk-planted-key")
      assert.isUndefined(azure.headers["authorization"])
      const local = yield* asked({ model: "qwen3", dialect: "ollama" })
      assert.strictEqual(local.url, "http://127.0.0.1:11434/v1/chat/completions")
      assert.isUndefined(local.headers["authorization"])
    }),
  )

  it("are impossible without an address, or with headers that cannot be sent, and the program hears it at once", () => {
    assert.throws(() => OpenAiChat.make({ model: "m", dialect: "azure" }), /baseUrl/)
    assert.throws(() => OpenAiChat.make({ model: "m", baseUrl: "ftp://example.com" }), /baseUrl/)
    assert.throws(() => OpenAiChat.make({ model: "m", headers: { "x-secret": "a\nb-hidden" } }), /"x-secret" cannot/)
    for (const dialect of Object.keys(OpenAiDialect.known) as Array<OpenAiDialect.Known>) {
      const { baseUrl } = OpenAiDialect.known[dialect] as OpenAiDialect.Dialect
      if (baseUrl !== undefined) assert.strictEqual(OpenAiChat.make({ model: "m", dialect }).model, "m")
    }
  })
})

const completion = (message: object, more: object = {}) => ({
  id: "chatcmpl-1",
  object: "chat.completion",
  created: 1_735_689_600,
  model: "gpt-4.1-2025",
  choices: [{ index: 0, message: { role: "assistant", ...message }, finish_reason: "stop", ...more }],
  usage: {
    prompt_tokens: 10,
    completion_tokens: 8,
    prompt_tokens_details: { cached_tokens: 4 },
    completion_tokens_details: { reasoning_tokens: 3 },
  },
  system_fingerprint: null,
})

const metadata = {
  type: "response-metadata" as const,
  id: "chatcmpl-1",
  modelId: "gpt-4.1-2025",
  timestamp: "2025-01-01T00:00:00.000Z",
}

const usage = {
  inputTokens: { total: 10, uncached: 6, cacheRead: 4 },
  outputTokens: { total: 8, text: 5, reasoning: 3 },
}

describe("OpenAiChat answers", () => {
  it.effect("become metadata, reasoning, text, tool calls and a finish, which all decode", () =>
    Effect.gen(function* () {
      const parts = yield* answerOf(
        openai,
        completion(
          {
            content: "Hello",
            reasoning_content: "Hm.",
            tool_calls: [
              { id: "call_1", type: "function", function: { name: "weather", arguments: '{"city":"Rome"}' } },
              { id: "call_2", type: "function", function: { name: "stop", arguments: "" } },
            ],
          },
          { finish_reason: "tool_calls" },
        ),
      )
      assert.deepStrictEqual(parts, [
        metadata,
        { type: "reasoning", text: "Hm.", metadata: { openai: { origin: "openai/gpt-4.1" } } },
        { type: "text", text: "Hello" },
        { type: "tool-call", id: "call_1", name: "weather", params: { city: "Rome" } },
        { type: "tool-call", id: "call_2", name: "stop", params: {} },
        { type: "finish", reason: "tool-calls", usage },
      ])
      yield* decodes(parts, "answer")
    }),
  )

  it.effect("may say their reason in any dialect, lack their usage, and hold what nobody knows", () =>
    Effect.gen(function* () {
      const reason = (finish_reason: unknown) =>
        Effect.map(answerOf(openai, completion({ content: "x" }, { finish_reason })), (parts) => {
          const finish = parts.at(-1)
          return finish?.type === "finish" ? finish.reason : undefined
        })
      assert.deepStrictEqual(
        yield* Effect.forEach(["stop", "length", "model_length", "function_call", "something_new", null], reason),
        ["stop", "length", "length", "tool-calls", "other", "unknown"],
      )
      const { usage: _, ...bare } = completion({ content: "x", audio: { data: "?" } })
      const parts = yield* answerOf(openai, { ...bare, created: 1e300, id: 7, extra: [1] })
      assert.deepStrictEqual(parts.at(-1), {
        type: "finish",
        reason: "stop",
        usage: { inputTokens: {}, outputTokens: {} },
      })
      assert.deepStrictEqual(parts[0], { type: "response-metadata", modelId: "gpt-4.1-2025" })
      yield* decodes(parts, "answer")
    }),
  )

  it.effect("that are no answer are classified failures", () =>
    Effect.gen(function* () {
      const cases: ReadonlyArray<readonly [unknown, LlmError.Tag]> = [
        [{ error: { message: "Rate limit reached", code: "rate_limit_exceeded" } }, "RateLimited"],
        [{ choices: [] }, "InvalidResponse"],
        ["<!doctype html><title>Gateway</title>", "InvalidResponse"],
        ['{"choices":[{"mess', "InvalidResponse"],
        ["", "InvalidResponse"],
        [completion({ content: "" }, { finish_reason: "content_filter" }), "ContentFiltered"],
        [completion({ content: null, refusal: "I cannot." }), "ContentFiltered"],
      ]
      for (const [body, tag] of cases) {
        assert.strictEqual((yield* Effect.flip(answerOf(openai, body)))._tag, tag, JSON.stringify(body))
      }
      const failure = yield* Effect.flip(
        answerOf(
          openai,
          completion({ tool_calls: [{ function: { name: "weather", arguments: "{" } }] }, { finish_reason: "length" }),
        ),
      )
      assert.isTrue(LlmError.is("InvalidResponse")(failure) && failure.kind === "content")
      assert.match(failure.message, /token limit/)
    }),
  )

  it.effect("keep arguments of a tool that are not JSON as the text that they are, and set no prototype", () =>
    Effect.gen(function* () {
      for (const said of ["{city", '{"__proto__":{}}']) {
        const calls = { tool_calls: [{ id: "a", function: { name: "weather", arguments: said } }] }
        const answer = yield* answerOf(openai, completion(calls))
        assert.deepInclude(answer, { type: "tool-call", id: "a", name: "weather", params: said })
        const parts = yield* partsOf(
          openai,
          events(
            call(0, { id: "a", function: { name: "weather", arguments: said } }),
            chunk({}, "tool_calls"),
            "[DONE]",
          ),
        )
        assert.deepInclude(parts, { type: "tool-call", id: "a", name: "weather", params: said })
      }
    }),
  )

  const Form = Schema.Struct({
    name: Schema.String,
    nick: Schema.optionalKey(Schema.String),
    tags: Schema.Record(Schema.String, Schema.Int),
    pair: Schema.Tuple([Schema.String, Schema.Int]),
  })

  const generateObject = (model: typeof openai, text: string) =>
    Effect.gen(function* () {
      const { asked, layer } = transport(JSON.stringify(completion({ content: text })))
      const service = yield* LanguageModel.make({
        generateText: (options) =>
          Effect.orDie(model.generate(options)).pipe(
            Effect.map((parts) => [...parts]),
            Effect.provide(layer),
          ),
        streamText: () => Stream.empty,
      })
      const { value } = yield* service.generateObject({ prompt: "A form", schema: Form, objectName: "my form" })
      return { value, body: asked[0]?.body ?? {} }
    })

  const value = { name: "A", tags: { x: 1 }, pair: ["b", 2] }

  it.effect("in a strict form are brought back to what LanguageModel decodes", () =>
    Effect.gen(function* () {
      const strict = { name: "A", nick: null, tags: [{ 0: "x", 1: 1 }], pair: { 0: "b", 1: 2 } }
      const { body, value: decoded } = yield* generateObject(openai, JSON.stringify(strict))
      assert.deepStrictEqual<unknown>(decoded, value)
      const format = body["response_format"] as { type: string; json_schema: Record<string, unknown> }
      assert.strictEqual(format.type, "json_schema")
      assert.strictEqual(format.json_schema["name"], "my_form")
      assert.isTrue(format.json_schema["strict"])
      assert.deepStrictEqual((format.json_schema["schema"] as { required: unknown }).required, [
        "name",
        "nick",
        "tags",
        "pair",
      ])
      // A server that ignores the form and answers plainly is understood as well.
      assert.deepStrictEqual<unknown>((yield* generateObject(openai, JSON.stringify(value))).value, value)
    }),
  )

  it.effect("in a plain form are asked for by the schema that LanguageModel decodes, or in the prompt", () =>
    Effect.gen(function* () {
      const plain = yield* generateObject(as("vllm"), JSON.stringify(value))
      assert.deepStrictEqual<unknown>(plain.value, value)
      assert.isFalse((plain.body["response_format"] as { json_schema: { strict: boolean } }).json_schema.strict)
      const prompted = yield* generateObject(as("deepseek"), JSON.stringify(value))
      assert.deepStrictEqual<unknown>(prompted.value, value)
      assert.deepStrictEqual(prompted.body["response_format"], { type: "json_object" })
      assert.match(JSON.stringify(prompted.body["messages"]), /"role":"system".*JSON schema/)
    }),
  )

  it.effect("give DeepSeek its own reasoning back, and nobody else's", () =>
    Effect.gen(function* () {
      const prompt = (origin: string) =>
        Prompt.make([
          {
            role: "assistant",
            content: [
              { type: "reasoning", text: "Mine.", options: { openai: { origin } } },
              { type: "tool-call", id: "c1", name: "stop", params: {} },
            ],
          },
        ])
      const sent = (origin: string) =>
        Effect.map(
          bodyFor(as("deepseek"), LanguageModelFace.request(prompt(origin))),
          (body) => (body["messages"] as Array<Record<string, unknown>>)[0]?.["reasoning_content"],
        )
      assert.strictEqual(yield* sent("deepseek/m"), "Mine.")
      assert.isUndefined(yield* sent("deepseek/other"))
    }),
  )
})

const chunk = (delta: object, finish_reason: string | null = null, more: object = {}) => ({
  id: "chatcmpl-1",
  object: "chat.completion.chunk",
  created: 1_735_689_600,
  model: "gpt-4.1-2025",
  choices: [{ index: 0, delta, finish_reason }],
  ...more,
})

const usageChunk = { ...chunk({}), choices: [], usage: completion({}).usage }

const call = (index: number | undefined, more: object) =>
  chunk({ tool_calls: [{ ...(index === undefined ? {} : { index }), ...more }] })

describe("OpenAiChat streams", () => {
  const text = events(
    chunk({ role: "assistant", content: "" }),
    chunk({ reasoning: "Hm" }),
    chunk({ reasoning: "." }),
    chunk({ content: "Hé" }),
    chunk({ content: "llo 😀" }),
    chunk({}, "stop"),
    usageChunk,
    "[DONE]",
  )

  const expected = [
    metadata,
    { type: "reasoning-start", id: "reasoning-0", metadata: { openai: { origin: "openai/gpt-4.1" } } },
    { type: "reasoning-delta", id: "reasoning-0", delta: "Hm" },
    { type: "reasoning-delta", id: "reasoning-0", delta: "." },
    { type: "reasoning-end", id: "reasoning-0" },
    { type: "text-start", id: "text-1" },
    { type: "text-delta", id: "text-1", delta: "Hé" },
    { type: "text-delta", id: "text-1", delta: "llo 😀" },
    { type: "text-end", id: "text-1" },
    { type: "finish", reason: "stop", usage },
  ]

  it.effect("become parts that decode", () =>
    Effect.gen(function* () {
      const parts = yield* partsOf(openai, text)
      assert.deepStrictEqual<unknown>(parts, expected)
      yield* decodes(parts, "stream")
    }),
  )

  it.effect("are the same with CRLF, keep-alives, a byte order mark, unknown fields and unknown events", () =>
    Effect.gen(function* () {
      const noisy = `\uFEFF: OPENROUTER PROCESSING\n\n${text
        .replaceAll('{"id"', '{"unknown":{"a":[1]},"id"')
        .replaceAll("data: {", 'event: ping\ndata: hello\n\nevent: other\ndata: {"x":1}\n\n: keep-alive\n\ndata:{')}`
      assert.deepStrictEqual<unknown>(yield* partsOf(openai, noisy), expected)
      assert.deepStrictEqual<unknown>(yield* partsOf(openai, noisy.replaceAll("\n", "\r\n")), expected)
    }),
  )

  it.effect("collect the arguments of parallel calls, with and without index and id", () =>
    Effect.gen(function* () {
      const finish = chunk({}, "tool_calls")
      const calls = (body: string) =>
        Effect.map(partsOf(openai, body), (parts) =>
          parts.flatMap((part) => (part.type === "tool-call" ? [[part.id, part.name, part.params]] : [])),
        )
      const both = [
        ["a", "weather", { city: "Rome" }],
        ["b", "stop", {}],
      ]
      assert.deepStrictEqual(
        yield* calls(
          events(
            call(0, { id: "a", function: { name: "weather", arguments: "" } }),
            call(1, { id: "b", function: { name: "stop", arguments: "" } }),
            call(0, { function: { arguments: '{"city":' } }),
            call(0, { id: "a", function: { name: "weather", arguments: '"Rome"}' } }),
            finish,
            "[DONE]",
          ),
        ),
        both,
      )
      // One index for all, as some gateways have it; or none; or arguments that are an object.
      for (const index of [0, undefined]) {
        assert.deepStrictEqual(
          yield* calls(
            events(
              call(index, { id: "a", function: { name: "weather", arguments: { city: "Rome" } } }),
              call(index, { id: "b", function: { name: "stop", arguments: "{}" } }),
              finish,
            ),
          ),
          both,
        )
      }
      const [[id] = []] = yield* calls(events(call(0, { function: { name: "stop" } }), chunk({}, "stop"), "[DONE]"))
      assert.match(String(id), /^call_\w+_0$/)
      const parts = yield* partsOf(
        openai,
        events(call(0, { id: "a", function: { name: "stop", arguments: "{}" } }), finish, "[DONE]"),
      )
      assert.deepStrictEqual(
        parts.map(({ type }) => type),
        ["response-metadata", "tool-params-start", "tool-params-delta", "tool-params-end", "tool-call", "finish"],
      )
      yield* decodes(parts, "stream")
    }),
  )

  it.effect("are whole with the end marker or with a finish reason, and end without a finish part otherwise", () =>
    Effect.gen(function* () {
      const last = (body: string) => Effect.map(partsOf(openai, body), (parts) => parts.at(-1)?.type)
      const begin = [chunk({ content: "a" })] as const
      assert.strictEqual(yield* last(events(...begin, chunk({}, "stop"))), "finish")
      assert.strictEqual(yield* last(events(...begin, "[DONE]")), "finish")
      const truncated = yield* Effect.flip(partsOf(openai, events(...begin)))
      assert.isTrue(
        LlmError.is("StreamInterrupted")(truncated) && truncated.committed && truncated.failure === undefined,
      )
      // Cut within the last event: that is an end too early, and nothing worse.
      const cut = yield* Effect.flip(partsOf(openai, `${events(...begin)}data: {"choices":[{"del`))
      assert.isTrue(LlmError.is("StreamInterrupted")(cut) && cut.failure === undefined)
      const nothing = yield* Effect.flip(partsOf(openai, ""))
      assert.isTrue(LlmError.is("StreamInterrupted")(nothing) && !nothing.committed)
    }),
  )

  it.effect("end with the failure that stands in them", () =>
    Effect.gen(function* () {
      const begin = events(chunk({ content: "a" }))
      const error = { message: "The server is overloaded", code: "server_is_overloaded" }
      const cases: ReadonlyArray<readonly [string, LlmError.Tag]> = [
        [events({ error }), "Overloaded"],
        [`event: error\ndata: ${JSON.stringify(error)}\n\n`, "Overloaded"],
        [`${JSON.stringify({ error })}\n\n`, "Overloaded"],
        [events({ ...chunk({ content: "" }, "error"), error }), "Overloaded"],
        [events({ object: "error", message: "rate limit exceeded", code: 429 }), "RateLimited"],
        [events({ choices: [{ delta: {}, error }] }), "Overloaded"],
        [events(chunk({}, "content_filter")), "ContentFiltered"],
        [events(chunk({ refusal: "I cannot" })), "ContentFiltered"],
        [events(chunk({}, "error")), "ProviderUnavailable"],
        ["data: {not json\n\n", "InvalidResponse"],
        [events({ ...chunk({}), choices: [] }, "[DONE]"), "InvalidResponse"],
        [`data: ${"x".repeat(1024 * 1024 + 1)}\n\n`, "InvalidResponse"],
      ]
      for (const [body, tag] of cases) {
        const { failure } = yield* failureOf(openai, `: hi\n\n${body}`)
        const found = failure._tag === "StreamInterrupted" ? failure.failure?._tag : failure._tag
        assert.strictEqual(found, tag, body.slice(0, 100))
      }
      const { failure, parts } = yield* failureOf(openai, begin + events({ error }))
      assert.isTrue(LlmError.is("StreamInterrupted")(failure) && failure.failure?._tag === "Overloaded")
      assert.deepStrictEqual(
        parts.map(({ type }) => type),
        ["response-metadata", "text-start", "text-delta"],
      )
    }),
  )

  it.effect("may be answered whole, and a page or an error instead is classified", () =>
    Effect.gen(function* () {
      const parts = yield* partsOf(openai, JSON.stringify(completion({ content: "Hello" })))
      assert.deepStrictEqual(
        parts.map(({ type }) => type),
        ["response-metadata", "text-start", "text-delta", "text-end", "finish"],
      )
      yield* decodes(parts, "stream")
      const error = yield* failureOf(openai, JSON.stringify({ error: { code: "insufficient_quota", message: "…" } }))
      assert.strictEqual(error.failure._tag, "QuotaExhausted")
      const page = yield* failureOf(openai, "\n<!doctype html><html></html>")
      assert.strictEqual(page.failure._tag, "InvalidResponse")
    }),
  )
})
