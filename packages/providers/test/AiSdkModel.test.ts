import { createAnthropic } from "@ai-sdk/anthropic"
import { createGoogle } from "@ai-sdk/google"
import { createOpenAICompatible } from "@ai-sdk/openai-compatible"
import * as AiSdk from "@ai-sdk/provider"
import type {
  LanguageModelV2,
  LanguageModelV3,
  LanguageModelV4,
  LanguageModelV4CallOptions,
  LanguageModelV4Content,
  LanguageModelV4GenerateResult,
  LanguageModelV4StreamPart,
} from "@ai-sdk/provider"
import { assert, describe, it } from "@effect/vitest"
import { Call, Classifier, LanguageModelFace, LlmError, Understudy } from "@understudy/core"
import { AiSdkModel } from "@understudy/providers"
import { Upstream } from "@understudy/testkit"
import { Deferred, Effect, Fiber, Redacted, Schema, Stream } from "effect"
import { Prompt, Response, Toolkit } from "effect/ai"
import { decodes, events, shown, stop, weather, without } from "./support.ts"

const request = LanguageModelFace.request("Hello?")

const usage = {
  inputTokens: { total: 11, noCache: 8, cacheRead: 3, cacheWrite: undefined },
  outputTokens: { total: 7, text: 5, reasoning: 2 },
}

const finish = (unified: "stop" | "length" | "other" | "error" | "interrupted", raw?: string) => ({ unified, raw })

const result = (
  content: ReadonlyArray<LanguageModelV4Content>,
  more: Partial<LanguageModelV4GenerateResult> = {},
): LanguageModelV4GenerateResult => ({
  content: [...content],
  finishReason: finish("stop", "stop"),
  usage,
  warnings: [],
  ...more,
})

const readable = <A>(parts: ReadonlyArray<A>): ReadableStream<A> =>
  new ReadableStream({
    start: (controller) => {
      for (const part of parts) controller.enqueue(part)
      controller.close()
    },
  })

interface Fake {
  readonly model: LanguageModelV4
  readonly asked: Array<LanguageModelV4CallOptions>
}

/** A model of the newest specification, which says what it is told to say. */
const fake = (
  says: {
    readonly answer?: () => PromiseLike<LanguageModelV4GenerateResult>
    readonly parts?: ReadonlyArray<LanguageModelV4StreamPart>
    readonly open?: (options: LanguageModelV4CallOptions) => PromiseLike<ReadableStream<LanguageModelV4StreamPart>>
    readonly headers?: Record<string, string>
    readonly provider?: string
  } = {},
): Fake => {
  const asked: Array<LanguageModelV4CallOptions> = []
  const answer = says.answer ?? (() => Promise.resolve(result([{ type: "text", text: "Hi" }])))
  const open = says.open ?? (() => Promise.resolve(readable(says.parts ?? [])))
  return {
    asked,
    model: {
      specificationVersion: "v4",
      provider: says.provider ?? "house.chat",
      modelId: "m",
      supportedUrls: {},
      doGenerate: (options) => {
        asked.push(options)
        return answer()
      },
      doStream: async (options) => {
        asked.push(options)
        return { stream: await open(options), response: { headers: says.headers ?? {} } }
      },
    },
  }
}

const parts = (...parts: ReadonlyArray<LanguageModelV4StreamPart>) => fake({ parts }).model

const failing = (error: unknown) =>
  fake({ answer: () => Promise.reject(error), open: () => Promise.reject(error) }).model

const text = (delta: string): ReadonlyArray<LanguageModelV4StreamPart> => [
  { type: "text-start", id: "0" },
  { type: "text-delta", id: "0", delta },
  { type: "text-end", id: "0" },
]

const end: LanguageModelV4StreamPart = { type: "finish", finishReason: finish("stop", "stop"), usage }

const collected = (model: AiSdkModel.Model, options: Partial<AiSdkModel.Options> = {}) =>
  Stream.runCollect(AiSdkModel.make({ ...options, model }).stream(request))

const failureOf = (model: AiSdkModel.Model) => Effect.flip(Stream.runDrain(AiSdkModel.make({ model }).stream(request)))

describe("AiSdkModel", () => {
  it("is named after the model's provider, and asks the model under its own id", () => {
    const model = AiSdkModel.make({ model: fake({ provider: "google.generative-ai" }).model })
    assert.deepStrictEqual([model.name, model.model], ["google", "m"])
    assert.strictEqual(AiSdkModel.make({ model: fake().model, name: "primary" }).name, "primary")
  })

  it("tells at the door which specification it does not know", () => {
    const old: unknown = { ...fake().model, specificationVersion: "v1" }
    assert.throws(
      () => AiSdkModel.make({ model: old as LanguageModelV4 }),
      TypeError,
      'AiSdkModel.make: model: expected specification version v2, v3 or v4, and it has "v1"',
    )
    for (const none of ["openai/gpt-5", undefined, { specificationVersion: "v4" }]) {
      assert.throws(() => AiSdkModel.make({ model: none as unknown as LanguageModelV4 }), /expected a language model/)
    }
  })
})

describe("AiSdkModel among candidates", () => {
  it.effect("needs no service of its own, and is one that another stands in for", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make({ script: [Upstream.status(401), Upstream.answer("Here")] })
      const openai = createOpenAICompatible({ name: "openai", baseURL: upstream.openaiUrl })("m")
      const claude = createAnthropic({ baseURL: `${upstream.anthropicUrl}/v1`, apiKey: "sk" })("claude-sonnet-4-5")
      const model = Understudy.make({
        candidates: [
          { provider: AiSdkModel.make({ model: openai }) },
          { provider: AiSdkModel.make({ model: claude }), priority: 1 },
        ],
      })
      const run: Effect.Effect<LanguageModelFace.Answer, LlmError.LlmError> = model
        .generate(request)
        .pipe(Effect.provide(Understudy.layer))
      assert.strictEqual(LanguageModelFace.text(yield* run), "Here")
      assert.deepStrictEqual(
        (yield* upstream.requests).map(({ dialect }) => dialect),
        ["openai", "anthropic"],
      )
    }),
  )
})

// ---------------------------------------------------------------------------
// Requests
// ---------------------------------------------------------------------------

const optionsFor = (
  asked: LanguageModelFace.Request,
  options: Partial<AiSdkModel.Options> = {},
  mode: "answer" | "stream" = "answer",
) =>
  Effect.gen(function* () {
    const { asked: seen, model } = fake({ parts: [...text("Hi"), end] })
    const provider = AiSdkModel.make({ ...options, model })
    if (mode === "answer") yield* provider.generate(asked)
    else yield* Stream.runDrain(provider.stream(asked))
    return seen[0] ?? assert.fail("nothing was asked")
  })

const png = new Uint8Array([0x89, 0x50, 0x4e, 0x47])

const own = { aiSdk: { origin: "house/m" }, house: { signature: "ours" } }
const foreign = { aiSdk: { origin: "google/gemini" }, google: { thoughtSignature: "theirs" } }

describe("AiSdkModel requests", () => {
  it.effect("carry the conversation in the form of the specification, with system messages first", () =>
    Effect.gen(function* () {
      const { abortSignal, prompt } = yield* optionsFor(
        LanguageModelFace.request([
          { role: "system", content: "Be brief." },
          {
            role: "user",
            content: [
              { type: "text", text: "Look:", options: { house: { cacheControl: { type: "ephemeral" } } } },
              { type: "text", text: "" },
              { type: "file", mediaType: "image/png", data: png },
              { type: "file", mediaType: "image/jpeg", data: new URL("https://example.com/a.jpg") },
              { type: "file", mediaType: "application/pdf", fileName: "r.pdf", data: "JVBERg==" },
              { type: "file", mediaType: "text/plain", data: "SGVsbG8=" },
            ],
          },
          { role: "system", content: "And in English." },
          {
            role: "assistant",
            content: [
              { type: "reasoning", text: "Mine.", options: own },
              { type: "reasoning", text: "Theirs.", options: foreign },
              { type: "reasoning", text: "Nobody's." },
              { type: "text", text: "I look.", options: foreign },
              { type: "file", mediaType: "image/png", data: "iVBORw==", options: own },
              { type: "file", mediaType: "image/png", data: "iVBORw==" },
              { type: "tool-call", id: "call|1", name: "weather", params: { city: "Rome" }, options: own },
              { type: "tool-call", id: "theirs", name: "search", params: {}, providerExecuted: true },
            ],
          },
          {
            role: "tool",
            content: [
              { type: "tool-result", id: "call|1", name: "weather", isFailure: false, result: { sky: "clear" } },
              { type: "tool-result", id: "b", name: "weather", isFailure: true, result: "no such place" },
              { type: "tool-result", id: "c", name: "weather", isFailure: true, result: { code: 7 } },
              { type: "tool-result", id: "d", name: "stop", isFailure: false, result: undefined },
              {
                type: "tool-result",
                id: "e",
                name: "weather",
                isFailure: false,
                result: null,
                modelOutput: [Prompt.textPart({ text: "clear" }), Prompt.textPart({ text: "warm" })],
              },
              {
                type: "tool-result",
                id: "f",
                name: "weather",
                isFailure: false,
                result: null,
                modelOutput: [Prompt.filePart({ mediaType: "image/png", data: png })],
              },
            ],
          },
        ]),
      )
      assert.instanceOf(abortSignal, AbortSignal)
      const [, , , assistant] = prompt
      const id = assistant?.role === "assistant" && assistant.content.at(-1)
      const called = id !== false && id?.type === "tool-call" ? id.toolCallId : assert.fail("no call")
      assert.match(called, /^[\w-]{1,40}$/)
      const result = (toolCallId: string, output: unknown, toolName = "weather") => ({
        type: "tool-result",
        toolCallId,
        toolName,
        output,
      })
      const image = { type: "file", mediaType: "image/png", data: { type: "data", data: "iVBORw==" } }
      const signed = { providerOptions: { house: { signature: "ours" } } }
      assert.deepStrictEqual(prompt as unknown, [
        { role: "system", content: "Be brief." },
        { role: "system", content: "And in English." },
        {
          role: "user",
          content: [
            { type: "text", text: "Look:", providerOptions: { house: { cacheControl: { type: "ephemeral" } } } },
            image,
            {
              type: "file",
              mediaType: "image/jpeg",
              data: { type: "url", url: new URL("https://example.com/a.jpg") },
            },
            {
              type: "file",
              mediaType: "application/pdf",
              data: { type: "data", data: "JVBERg==" },
              filename: "r.pdf",
            },
            { type: "text", text: "Hello" },
          ],
        },
        {
          role: "assistant",
          content: [
            { type: "reasoning", text: "Mine.", ...signed },
            { type: "text", text: "I look." },
            { ...image, ...signed },
            { type: "text", text: "[image/png omitted]" },
            { type: "tool-call", toolCallId: called, toolName: "weather", input: { city: "Rome" }, ...signed },
          ],
        },
        {
          role: "tool",
          content: [
            result(called, { type: "json", value: { sky: "clear" } }),
            result("b", { type: "error-text", value: "no such place" }),
            result("c", { type: "error-json", value: { code: 7 } }),
            result("d", { type: "json", value: null }, "stop"),
            result("e", { type: "text", value: "clear\nwarm" }),
            result("f", { type: "content", value: [image] }),
          ],
        },
      ])
    }),
  )

  it.effect("say the tools and the choice among them in all its forms", () =>
    Effect.gen(function* () {
      const choose = (toolChoice: LanguageModelFace.Request["toolChoice"]) =>
        Effect.map(optionsFor(LanguageModelFace.request("Hi", { tools: [weather, stop], toolChoice })), (options) => [
          options.toolChoice,
          options.tools?.map(({ name }) => name),
        ])
      const both = ["weather", "stop"]
      assert.deepStrictEqual(yield* choose("auto"), [{ type: "auto" }, both])
      assert.deepStrictEqual(yield* choose("none"), [{ type: "none" }, both])
      assert.deepStrictEqual(yield* choose("required"), [{ type: "required" }, both])
      assert.deepStrictEqual(yield* choose({ tool: "stop" }), [{ type: "tool", toolName: "stop" }, both])
      assert.deepStrictEqual(yield* choose({ oneOf: ["stop"] }), [{ type: "auto" }, ["stop"]])
      assert.deepStrictEqual(yield* choose({ mode: "required", oneOf: ["stop"] }), [{ type: "required" }, ["stop"]])
      const none = yield* optionsFor(request)
      assert.isFalse("tools" in none || "toolChoice" in none)
    }),
  )

  it.effect("carry the parameters in the words of the specification, and extras as provider options", () =>
    Effect.gen(function* () {
      const options = yield* optionsFor(request, {
        parameters: {
          temperature: 0.25,
          topP: 0.5,
          maxTokens: 77,
          stop: ["END"],
          seed: 4,
          presencePenalty: 0.1,
          frequencyPenalty: 0.2,
          reasoningEffort: "low",
          extra: { user: "u" },
        },
        providerOptions: { house: { user: "nobody", tier: "flex" }, other: { a: 1 } },
      }).pipe(Call.withParameters({ topP: 0.75, extra: { store: false } }))
      assert.deepStrictEqual(without({ ...options }, "prompt", "abortSignal"), {
        maxOutputTokens: 77,
        temperature: 0.25,
        topP: 0.75,
        stopSequences: ["END"],
        seed: 4,
        presencePenalty: 0.1,
        frequencyPenalty: 0.2,
        reasoning: "low",
        providerOptions: { house: { user: "u", tier: "flex", store: false }, other: { a: 1 } },
      })
      const unknown = yield* optionsFor(request, { parameters: { reasoningEffort: "4096" }, namespace: "vertex" })
      assert.deepStrictEqual(unknown.providerOptions, { vertex: { reasoningEffort: "4096" } })
      assert.isFalse("reasoning" in unknown)
    }),
  )

  it.effect("give ids of tool calls the form that Mistral asks for", () =>
    Effect.gen(function* () {
      const call = { type: "tool-call", id: "call_1", name: "weather", params: {} } as const
      const asked = LanguageModelFace.request([{ role: "assistant", content: [call] }])
      const { prompt } = yield* optionsFor(asked, { namespace: "mistral" })
      assert.match(JSON.stringify(prompt), /"toolCallId":"[a-zA-Z0-9]{9}"/)
    }),
  )

  it.effect("are told as InvalidRequest when they hold what cannot be said, and go nowhere", () =>
    Effect.gen(function* () {
      const { asked, model } = fake()
      const file = (mediaType: string, data: string | URL): Prompt.RawInput => [
        { role: "user", content: [{ type: "file", mediaType, data }] },
      ]
      for (const prompt of [file("text/plain", new URL("https://example.com/a")), file("image/png", "ftp://nowhere")]) {
        const failure = yield* Effect.flip(AiSdkModel.make({ model }).generate(LanguageModelFace.request(prompt)))
        assert.strictEqual(failure._tag, "InvalidRequest")
      }
      assert.strictEqual(asked.length, 0)
    }),
  )
})

const Book = Schema.Struct({
  title: Schema.String,
  note: Schema.optionalKey(Schema.String),
  tags: Schema.Record(Schema.String, Schema.Int),
})

const asBook = LanguageModelFace.request("Which?", {
  responseFormat: { type: "json", objectName: "my book", schema: Book },
})

describe("AiSdkModel structured output", () => {
  it.effect("is asked for in the strict form, and brought back to plain JSON", () =>
    Effect.gen(function* () {
      const strict = JSON.stringify({ title: "Dune", note: null, tags: [{ "0": "sf", "1": 3 }] })
      const { asked, model } = fake({ answer: () => Promise.resolve(result([{ type: "text", text: strict }])) })
      const answer = yield* AiSdkModel.make({ model }).generate(asBook)
      assert.deepStrictEqual(JSON.parse(LanguageModelFace.text(answer)), { title: "Dune", tags: { sf: 3 } })
      const format = asked[0]?.responseFormat
      assert.isTrue(format?.type === "json" && format.name === "my_book")
      assert.deepStrictEqual(format?.type === "json" ? format.schema?.required : undefined, ["title", "note", "tags"])
      assert.isUndefined(asked[0]?.providerOptions)
    }),
  )

  it.effect("of a stream is asked for as it is, and not as strict", () =>
    Effect.gen(function* () {
      const options = yield* optionsFor(asBook, {}, "stream")
      const format = options.responseFormat
      assert.deepStrictEqual(format?.type === "json" ? format.schema?.required : undefined, ["title", "tags"])
      assert.deepStrictEqual(options.providerOptions, { house: { strictJsonSchema: false } })
    }),
  )

  it.effect("is the text that the model chooses, where it writes drafts", () =>
    Effect.gen(function* () {
      const drafts = result([{ type: "text", text: "Let me think." }], {
        structuredOutputText: '{"title":"Dune","note":null,"tags":[]}',
      })
      const { model } = fake({ answer: () => Promise.resolve(drafts) })
      const answer = yield* AiSdkModel.make({ model }).generate(asBook)
      assert.deepStrictEqual(JSON.parse(LanguageModelFace.text(answer)), { title: "Dune", tags: {} })
      const plain = yield* AiSdkModel.make({ model }).generate(request)
      assert.strictEqual(LanguageModelFace.text(plain), "Let me think.")
    }),
  )

  it.effect("is in the prompt for a model that says that it takes no schema", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make({
        script: { steps: [Upstream.answer('{"title":"Dune","tags":{}}')], then: "repeat" },
      })
      const model = createOpenAICompatible({ name: "small", baseURL: upstream.openaiUrl })("m")
      yield* AiSdkModel.make({ model }).generate(asBook)
      const [seen] = yield* upstream.requests
      const body = seen?.body as { readonly messages: ReadonlyArray<unknown>; readonly response_format: unknown }
      assert.deepStrictEqual(body.response_format, { type: "json_object" })
      assert.match(JSON.stringify(body.messages[0]), /"role":"system".*JSON schema.*title/)
    }),
  )

  it.effect("works with a model that needs a tool for it", () =>
    Effect.gen(function* () {
      const form = { title: "Dune", note: null, tags: [] }
      const upstream = yield* Upstream.make({
        script: { steps: [Upstream.toolCalls([{ name: "json", arguments: form }])], then: "repeat" },
      })
      const model = createAnthropic({ baseURL: `${upstream.anthropicUrl}/v1`, apiKey: "sk" })("claude-3-haiku-20240307")
      const provider = AiSdkModel.make({ model })
      const answer = yield* provider.generate(asBook)
      assert.deepStrictEqual(JSON.parse(LanguageModelFace.text(answer)), { title: "Dune", tags: {} })
      const [seen] = yield* upstream.requests
      assert.match(JSON.stringify(seen?.body), /"tools":\[{"name":"json".*"tool_choice":{"type":"any"/)
    }),
  )
})

// ---------------------------------------------------------------------------
// Answers
// ---------------------------------------------------------------------------

describe("AiSdkModel answers", () => {
  it.effect("hold text, reasoning, calls, files and sources, with what may go back to the model", () =>
    Effect.gen(function* () {
      const response = { id: "r1", modelId: "m-2026", timestamp: new Date(0) }
      const content: ReadonlyArray<LanguageModelV4Content> = [
        { type: "reasoning", text: "Hm.", providerMetadata: { house: { signature: "s", none: undefined } } },
        { type: "text", text: "Hi" },
        { type: "text", text: "" },
        { type: "tool-call", toolCallId: "c1", toolName: "weather", input: '{"city":"Rome"}' },
        { type: "tool-call", toolCallId: "c2", toolName: "stop", input: "" },
        { type: "tool-call", toolCallId: "c3", toolName: "search", input: "{}", providerExecuted: true },
        { type: "tool-result", toolCallId: "c3", toolName: "search", result: "found" },
        { type: "file", mediaType: "image/png", data: { type: "data", data: png } },
        { type: "file", mediaType: "image/png", data: { type: "data", data: "no base64!" } },
        { type: "file", mediaType: "image/png", data: { type: "url", url: new URL("https://example.com/x.png") } },
        { type: "source", sourceType: "url", id: "s1", url: "https://example.com/", title: "Example" },
        { type: "source", sourceType: "url", id: "s2", url: "not an address" },
        { type: "source", sourceType: "document", id: "s3", mediaType: "text/plain", title: "Notes" },
        { type: "custom", kind: "house.thing" },
      ]
      const { model } = fake({ answer: () => Promise.resolve(result(content, { response })) })
      const answer = yield* AiSdkModel.make({ model }).generate(request)
      const mark = { aiSdk: { origin: "house/m" } }
      assert.deepStrictEqual(answer as unknown, [
        { type: "response-metadata", id: "r1", modelId: "m-2026", timestamp: "1970-01-01T00:00:00.000Z" },
        { type: "reasoning", text: "Hm.", metadata: { house: { signature: "s" }, ...mark } },
        { type: "text", text: "Hi" },
        { type: "tool-call", id: "c1", name: "weather", params: { city: "Rome" } },
        { type: "tool-call", id: "c2", name: "stop", params: {} },
        { type: "file", mediaType: "image/png", data: "iVBORw==", metadata: mark },
        {
          type: "source",
          sourceType: "url",
          id: "file-9",
          url: "https://example.com/x.png",
          title: "https://example.com/x.png",
        },
        { type: "source", sourceType: "url", id: "s1", url: "https://example.com/", title: "Example" },
        { type: "source", sourceType: "document", id: "s3", mediaType: "text/plain", title: "Notes" },
        {
          type: "finish",
          reason: "tool-calls",
          usage: {
            inputTokens: { total: 11, uncached: 8, cacheRead: 3 },
            outputTokens: { total: 7, text: 5, reasoning: 2 },
          },
        },
      ])
      yield* decodes(answer, "answer")
    }),
  )

  it.effect("are failures when they are empty or say so", () =>
    Effect.gen(function* () {
      const rows: ReadonlyArray<readonly [LanguageModelV4GenerateResult, LlmError.Tag]> = [
        [result([]), "InvalidResponse"],
        [result([{ type: "text", text: "" }]), "InvalidResponse"],
        [
          result([{ type: "text", text: "I will" }], { finishReason: { unified: "content-filter", raw: "refusal" } }),
          "ContentFiltered",
        ],
        [
          result([{ type: "text", text: "x" }], { finishReason: finish("other", "MALFORMED_FUNCTION_CALL") }),
          "InvalidResponse",
        ],
        [
          result([{ type: "text", text: "x" }], { finishReason: finish("other", "insufficient_system_resource") }),
          "Overloaded",
        ],
        [result([{ type: "text", text: "x" }], { finishReason: finish("error") }), "ProviderUnavailable"],
        [
          result([], { response: { body: { promptFeedback: { blockReason: "SAFETY" }, candidates: [] } } }),
          "ContentFiltered",
        ],
      ]
      for (const [answer, tag] of rows) {
        const { model } = fake({ answer: () => Promise.resolve(answer) })
        const failure = yield* Effect.flip(AiSdkModel.make({ model }).generate(request))
        assert.strictEqual(failure._tag, tag, JSON.stringify(answer))
      }
      const torn = fake({
        answer: () =>
          Promise.resolve(result([{ type: "tool-call", toolCallId: "c", toolName: "weather", input: "{city" }])),
      })
      const call = yield* AiSdkModel.make({ model: torn.model }).generate(request)
      assert.strictEqual(call.find((part) => part.type === "tool-call")?.params, "{city")
      const paused = fake({ answer: () => Promise.resolve(result([], { finishReason: finish("stop", "pause_turn") })) })
      const pause = yield* AiSdkModel.make({ model: paused.model }).generate(request)
      assert.deepInclude(pause.at(-1), { type: "finish", reason: "pause" })
      const cut = fake({ answer: () => Promise.resolve(result([], { finishReason: finish("length", "length") })) })
      assert.strictEqual((yield* AiSdkModel.make({ model: cut.model }).generate(request)).length, 2)
    }),
  )

  it.effect("that have not the form of an answer at all are InvalidResponse, not a defect", () =>
    Effect.gen(function* () {
      for (const none of [undefined, null, "text", {}, { content: "text" }]) {
        const model = fake({ answer: () => Promise.resolve(none as unknown as LanguageModelV4GenerateResult) }).model
        const failure = yield* Effect.flip(AiSdkModel.make({ model }).generate(request))
        assert.strictEqual(failure._tag, "InvalidResponse")
      }
    }),
  )
})

describe("AiSdkModel streams", () => {
  it.effect("hold the parts of the SDK's, without what is not part of an answer", () =>
    Effect.gen(function* () {
      const model = parts(
        { type: "stream-start", warnings: [] },
        { type: "response-metadata", id: "r1", modelId: "m", timestamp: new Date(0) },
        { type: "reasoning-start", id: "1", providerMetadata: { house: { item: "i" } } },
        { type: "reasoning-delta", id: "1", delta: "Hm." },
        { type: "reasoning-end", id: "1", providerMetadata: { house: { signature: "s" } } },
        { type: "ping" },
        { type: "raw", rawValue: 1 },
        ...text("Hi"),
        { type: "tool-input-start", id: "c1", toolName: "weather" },
        { type: "tool-input-delta", id: "c1", delta: '{"city":"Rome"}' },
        { type: "tool-input-end", id: "c1" },
        { type: "tool-call", toolCallId: "c1", toolName: "weather", input: '{"city":"Rome"}' },
        { type: "tool-input-start", id: "c2", toolName: "search", providerExecuted: true },
        { type: "tool-input-delta", id: "c2", delta: "{}" },
        { type: "tool-input-end", id: "c2" },
        { type: "tool-call", toolCallId: "c2", toolName: "search", input: "{}", providerExecuted: true },
        { type: "file", mediaType: "image/png", data: { type: "data", data: png } },
        { type: "source", sourceType: "url", id: "s1", url: "https://example.com/" },
        { ...end, providerMetadata: { house: { cost: 1 } } },
        ...text("never read"),
      )
      const seen = yield* collected(model)
      yield* decodes(seen, "stream")
      assert.deepStrictEqual(
        seen.map((part) => part.type),
        [
          "response-metadata",
          "reasoning-start",
          "reasoning-delta",
          "reasoning-end",
          "text-start",
          "text-delta",
          "text-end",
          "tool-params-start",
          "tool-params-delta",
          "tool-params-end",
          "tool-call",
          "file",
          "source",
          "finish",
        ],
      )
      assert.deepInclude(seen.at(-1), { reason: "tool-calls", metadata: { house: { cost: 1 } } })
      // What is signed in pieces goes back as one.
      const decoded = yield* Schema.decodeUnknownEffect(Schema.Array(Response.StreamPart(Toolkit.make(weather))))(seen)
      const [assistant] = Prompt.fromResponseParts(decoded).content
      const [reasoning] = typeof assistant?.content === "string" ? [] : (assistant?.content ?? [])
      assert.deepStrictEqual(reasoning?.options, {
        house: { item: "i", signature: "s" },
        aiSdk: { origin: "house/m" },
      })
    }),
  )

  it.effect("are whole with a reason for their end only", () =>
    Effect.gen(function* () {
      const cuts: ReadonlyArray<ReadonlyArray<LanguageModelV4StreamPart>> = [
        text("Hi"),
        [...text("Hi"), { type: "finish", finishReason: finish("interrupted"), usage }],
        [...text("Hi"), { type: "finish", finishReason: finish("other"), usage }],
        [
          ...text("Hi"),
          {
            type: "error",
            error: new AiSdk.InvalidResponseDataError({
              data: undefined,
              message: "Response stream ended without a finish reason.",
            }),
          },
          { type: "finish", finishReason: finish("error"), usage },
        ],
      ]
      for (const cut of cuts) {
        const failure = yield* failureOf(parts(...cut))
        assert.isTrue(LlmError.is("StreamInterrupted")(failure) && failure.committed && failure.failure === undefined)
      }
      const nothing = yield* failureOf(parts())
      assert.isTrue(LlmError.is("StreamInterrupted")(nothing) && !nothing.committed)
      const empty = yield* failureOf(parts(end))
      assert.strictEqual(empty._tag, "InvalidResponse")
      const long = yield* collected(parts({ type: "finish", finishReason: finish("length", "length"), usage }))
      assert.strictEqual(long.length, 1)
    }),
  )

  it.effect("fail with what an error inside of them says, in all its forms", () =>
    Effect.gen(function* () {
      const overloaded = { type: "overloaded_error", message: "Overloaded" }
      const marked = Object.defineProperty(
        { message: "Overloaded", type: "overloaded_error", statusCode: 529, data: overloaded },
        Symbol.for("vercel.ai.providerStreamError"),
        { value: true },
      )
      const validation = (value: unknown) => new AiSdk.TypeValidationError({ value, cause: new Error("zod") })
      const rows: ReadonlyArray<readonly [unknown, LlmError.Tag]> = [
        [overloaded, "Overloaded"],
        [{ error: overloaded }, "Overloaded"],
        [marked, "Overloaded"],
        ["The server is overloaded. Please try again later.", "Overloaded"],
        [validation({ type: "error", error: overloaded }), "Overloaded"],
        [validation({ type: "content_block_delta", index: "a" }), "InvalidResponse"],
        [validation({ choices: "none" }), "InvalidResponse"],
        [validation("text"), "InvalidResponse"],
        [new AiSdk.JSONParseError({ text: '{"a', cause: new Error("cut") }), "InvalidResponse"],
        [new AiSdk.InvalidResponseDataError({ data: 1, message: "Expected an id." }), "InvalidResponse"],
        [
          new AiSdk.APICallError({
            message: "x",
            url: "",
            requestBodyValues: {},
            statusCode: 429,
            responseBody: '{"error":{"code":"insufficient_quota"}}',
          }),
          "QuotaExhausted",
        ],
        [Object.assign(new TypeError("terminated"), { cause: { code: "ECONNRESET" } }), "ConnectionFailed"],
        [undefined, "InvalidResponse"],
      ]
      for (const [error, tag] of rows) {
        const first = yield* failureOf(parts({ type: "error", error }, ...text("Hi"), end))
        assert.strictEqual(first._tag, tag, String(error))
        const later = yield* failureOf(parts(...text("Hi"), { type: "error", error }, end))
        assert.strictEqual(later._tag, "StreamInterrupted")
        assert.strictEqual(later._tag === "StreamInterrupted" ? later.failure?._tag : "", tag, String(error))
      }
    }),
  )

  it.effect("go on behind events that the SDK does not know", () =>
    Effect.gen(function* () {
      const error = new AiSdk.TypeValidationError({ value: { type: "weather_report" }, cause: new Error("zod") })
      const seen = yield* collected(parts({ type: "error", error }, ...text("Hi"), { type: "error", error }, end))
      assert.strictEqual(seen.at(-1)?.type, "finish")
    }),
  )

  it.effect("break with their readable, and are no streams without one", () =>
    Effect.gen(function* () {
      const breaking = new ReadableStream<LanguageModelV4StreamPart>({
        pull: (controller) => controller.error(Object.assign(new Error("socket"), { code: "ECONNRESET" })),
      })
      const broken = yield* failureOf(fake({ open: () => Promise.resolve(breaking) }).model)
      assert.strictEqual(broken._tag, "ConnectionFailed")
      const none = fake({ open: () => Promise.resolve(undefined as unknown as ReadableStream) }).model
      assert.strictEqual((yield* failureOf(none))._tag, "UnknownFailure")
    }),
  )

  it.effect("tell by the content type that they are none", () =>
    Effect.gen(function* () {
      const none = [
        ["text/html; charset=utf-8", /web page/],
        ["application/json", /JSON document/],
      ] as const
      for (const [type, says] of none) {
        const failure = yield* failureOf(fake({ headers: { "Content-Type": type } }).model)
        assert.isTrue(LlmError.is("InvalidResponse")(failure))
        assert.match(failure.message, says)
      }
    }),
  )
})

// ---------------------------------------------------------------------------
// Interruption
// ---------------------------------------------------------------------------

describe("AiSdkModel interruption", () => {
  it.live("aborts the signal, and waits for no model that does not hear it", () =>
    Effect.gen(function* () {
      const signals: Array<AbortSignal | undefined> = []
      let cancelled = 0
      const hanging = () =>
        new ReadableStream<LanguageModelV4StreamPart>({
          start: (controller) => {
            for (const part of text("Hi")) controller.enqueue(part)
          },
          cancel: () => {
            cancelled++
            return new Promise(() => undefined)
          },
        })
      const begun = yield* Deferred.make<void>()
      const { asked, model } = fake({
        answer: () => new Promise(() => undefined),
        open: () => Promise.resolve(hanging()),
      })
      const provider = AiSdkModel.make({ model })
      const answer = yield* Effect.forkChild(provider.generate(request))
      yield* Effect.sleep("10 millis")
      yield* Fiber.interrupt(answer).pipe(Effect.timeout("1 second"))
      const stream = yield* Effect.forkChild(
        Stream.runForEach(provider.stream(request), () => Deferred.succeed(begun, undefined)),
      )
      yield* Deferred.await(begun)
      yield* Fiber.interrupt(stream).pipe(Effect.timeout("1 second"))
      signals.push(...asked.map(({ abortSignal }) => abortSignal))
      assert.deepStrictEqual(
        signals.map((signal) => signal?.aborted),
        [true, true],
      )
      assert.strictEqual(cancelled, 1)
    }),
  )

  it.live("cancels a stream that comes too late", () =>
    Effect.gen(function* () {
      const cancelled = yield* Deferred.make<void>()
      const late = new ReadableStream<LanguageModelV4StreamPart>({
        cancel: () => Effect.runSync(Deferred.succeed(cancelled, undefined)) as unknown as undefined,
      })
      let arrive: (stream: ReadableStream<LanguageModelV4StreamPart>) => void = () => undefined
      const { asked, model } = fake({
        open: () =>
          new Promise((resolve) => {
            arrive = resolve
          }),
      })
      const fiber = yield* Effect.forkChild(Stream.runDrain(AiSdkModel.make({ model }).stream(request)))
      yield* Effect.sleep("10 millis")
      yield* Fiber.interrupt(fiber).pipe(Effect.timeout("1 second"))
      assert.isTrue(asked[0]?.abortSignal?.aborted)
      arrive(late)
      yield* Deferred.await(cancelled).pipe(Effect.timeout("1 second"))
    }),
  )
})

// ---------------------------------------------------------------------------
// Failures
// ---------------------------------------------------------------------------

const apiCall = (more: Partial<ConstructorParameters<typeof AiSdk.APICallError>[0]>) =>
  new AiSdk.APICallError({
    message: "It failed",
    url: "https://example.com/?key=sk-in-the-address",
    requestBodyValues: { messages: ["the secret prompt"] },
    ...more,
  })

describe("AiSdkModel failures", () => {
  const rows: ReadonlyArray<readonly [string, unknown, LlmError.Tag]> = [
    ["NoSuchModelError", new AiSdk.NoSuchModelError({ modelId: "m", modelType: "languageModel" }), "ModelNotFound"],
    ["LoadAPIKeyError", new AiSdk.LoadAPIKeyError({ message: "no key" }), "AuthenticationFailed"],
    ["LoadSettingError", new AiSdk.LoadSettingError({ message: "no region" }), "AuthenticationFailed"],
    ["InvalidPromptError", new AiSdk.InvalidPromptError({ prompt: [], message: "no" }), "InvalidRequest"],
    ["InvalidArgumentError", new AiSdk.InvalidArgumentError({ argument: "a", message: "no" }), "InvalidRequest"],
    [
      "UnsupportedFunctionalityError",
      new AiSdk.UnsupportedFunctionalityError({ functionality: "x" }),
      "InvalidRequest",
    ],
    ["TypeValidationError", new AiSdk.TypeValidationError({ value: {}, cause: new Error("zod") }), "InvalidResponse"],
    ["JSONParseError", new AiSdk.JSONParseError({ text: "{", cause: new Error("cut") }), "InvalidResponse"],
    ["InvalidResponseDataError", new AiSdk.InvalidResponseDataError({ data: {}, message: "no" }), "InvalidResponse"],
    ["EmptyResponseBodyError", new AiSdk.EmptyResponseBodyError(), "InvalidResponse"],
    ["NoContentGeneratedError", new AiSdk.NoContentGeneratedError(), "InvalidResponse"],
    ["an error of another kind", new Error("boom"), "UnknownFailure"],
    ["no error at all", undefined, "UnknownFailure"],
    ["a clock of the transport", new DOMException("The operation timed out", "TimeoutError"), "TimedOut"],
    [
      "a connection that was refused",
      apiCall({ cause: Object.assign(new Error("connect"), { code: "ECONNREFUSED" }) }),
      "ConnectionFailed",
    ],
    [
      "a connection that broke within an answer",
      apiCall({
        statusCode: 200,
        cause: Object.assign(new TypeError("terminated"), { cause: { code: "UND_ERR_SOCKET" } }),
      }),
      "ConnectionFailed",
    ],
    ["a body that cannot be read", apiCall({ statusCode: 200, cause: new Error("?") }), "InvalidResponse"],
    ["an empty body", apiCall({ statusCode: 200, cause: new AiSdk.EmptyResponseBodyError() }), "InvalidResponse"],
    ["a web page under 200", apiCall({ statusCode: 200, responseBody: "<html></html>" }), "InvalidResponse"],
    [
      "an error under 200",
      apiCall({ statusCode: 200, responseBody: '{"error":{"code":"insufficient_quota","message":"…"}}' }),
      "QuotaExhausted",
    ],
    ["an error whose body broke", apiCall({ statusCode: 503 }), "ProviderUnavailable"],
    [
      "an error with data only",
      apiCall({ statusCode: 400, data: { error: { code: "context_length_exceeded" } } }),
      "ContextLengthExceeded",
    ],
    ["a redirect", apiCall({ statusCode: 307, responseBody: "" }), "InvalidResponse"],
    [
      "the gateway's own errors",
      Object.assign(new Error("Too many"), { name: "GatewayRateLimitError", statusCode: 429 }),
      "RateLimited",
    ],
  ]

  for (const [name, error, tag] of rows) {
    it.effect(`${name} is ${tag}, and holds nothing of the request`, () =>
      Effect.gen(function* () {
        const provider = AiSdkModel.make({ model: failing(error), name: "primary" })
        for (const failure of [
          yield* Effect.flip(provider.generate(request)),
          yield* Effect.flip(Stream.runDrain(provider.stream(request))),
        ]) {
          assert.strictEqual(failure._tag, tag, failure.message)
          assert.strictEqual(failure.provider, "primary")
          const evidence = [failure.providerMessage, failure.cause].map((e) =>
            Redacted.isRedacted(e) ? shown(Redacted.value(e)) : "",
          )
          assert.notMatch(`${shown(failure)}${evidence.join()}`, /secret prompt|sk-in-the-address/)
        }
      }),
    )
  }

  it.effect("of a response carry its hint and its id", () =>
    Effect.gen(function* () {
      const error = apiCall({
        statusCode: 429,
        responseHeaders: { "retry-after-ms": "1500", "x-request-id": "req-9" },
        responseBody: "{}",
      })
      const failure = yield* Effect.flip(AiSdkModel.make({ model: failing(error) }).generate(request))
      assert.strictEqual(failure.requestId, "req-9")
      assert.deepInclude(JSON.parse(JSON.stringify(failure)), { _tag: "RateLimited", retryAfter: 1500 })
    }),
  )

  it.effect("are told by rules of the user's own first", () =>
    Effect.gen(function* () {
      const rules = Classifier.layer([
        { id: "ours/model", when: { codes: ["AI_NoSuchModelError"] }, tag: "PermissionDenied" },
      ])
      const error = new AiSdk.NoSuchModelError({ modelId: "m", modelType: "languageModel" })
      const failure = yield* Effect.flip(AiSdkModel.make({ model: failing(error) }).generate(request)).pipe(
        Effect.provide(rules),
      )
      assert.strictEqual(failure._tag, "PermissionDenied")
    }),
  )

  it.effect("that a model throws at once are failures too", () =>
    Effect.gen(function* () {
      const model: LanguageModelV4 = {
        ...fake().model,
        doGenerate: () => {
          throw new AiSdk.LoadAPIKeyError({ message: "no key" })
        },
      }
      const failure = yield* Effect.flip(AiSdkModel.make({ model }).generate(request))
      assert.strictEqual(failure._tag, "AuthenticationFailed")
    }),
  )
})

describe("AiSdkModel and a key of the call", () => {
  it.effect("never goes out with the operator's key instead", () =>
    Effect.gen(function* () {
      const { asked, model } = fake()
      const provider = AiSdkModel.make({ model })
      for (const run of [provider.generate(request), Stream.runDrain(provider.stream(request))]) {
        const failure = yield* Effect.flip(run as Effect.Effect<unknown, LlmError.LlmError>).pipe(
          Call.withCredential(provider.name, Redacted.make("sk-of-the-call")),
        )
        assert.strictEqual(failure._tag, "InvalidRequest")
        assert.match(failure.message, /withCredential/)
      }
      assert.strictEqual(asked.length, 0)
    }),
  )

  it.effect("makes the model with it, and cuts it out of what the provider quotes", () =>
    Effect.gen(function* () {
      const key = "sk-of-the-call"
      const made: Array<string> = []
      const errors = [
        apiCall({ statusCode: 401, responseBody: JSON.stringify({ error: { message: `Bad key ${key}` } }) }),
        Object.assign(new Error(`Bad key ${key}`), { code: "ECONNRESET", cause: new Error(key) }),
      ]
      for (const error of errors) {
        const provider = AiSdkModel.make({
          model: fake().model,
          withCredential: (credential) => {
            made.push(Redacted.value(credential))
            return failing(error)
          },
        })
        const failure = yield* Effect.flip(provider.generate(request)).pipe(
          Call.withCredential(provider.name, Redacted.make(` ${key}\n`)),
        )
        if (failure._tag === "AuthenticationFailed") assert.strictEqual(failure.credential, "call")
        const evidence = [failure.providerMessage, failure.cause].map((e) =>
          Redacted.isRedacted(e) ? shown(Redacted.value(e)) : "",
        )
        assert.match(evidence.join(), /<redacted>/)
        assert.notInclude(`${shown(failure)}${evidence.join()}`, key)
        yield* provider.generate(request)
      }
      assert.deepStrictEqual(made, [key, key])
    }),
  )

  it.effect("is a failure when no model can be made with it", () =>
    Effect.gen(function* () {
      const provider = AiSdkModel.make({
        model: fake().model,
        withCredential: () => {
          throw new AiSdk.LoadAPIKeyError({ message: "no" })
        },
      })
      const failure = yield* Effect.flip(provider.generate(request)).pipe(
        Call.withCredential(provider.name, Redacted.make("sk-call")),
      )
      assert.strictEqual(failure._tag, "AuthenticationFailed")
    }),
  )
})

// ---------------------------------------------------------------------------
// Older specifications
// ---------------------------------------------------------------------------

const withFile = LanguageModelFace.request([
  { role: "user", content: [{ type: "file", mediaType: "image/png", data: png }] },
  { role: "assistant", content: [{ type: "tool-call", id: "c", name: "weather", params: {} }] },
  {
    role: "tool",
    content: [
      {
        type: "tool-result",
        id: "c",
        name: "weather",
        isFailure: false,
        result: null,
        modelOutput: [Prompt.textPart({ text: "See:" }), Prompt.filePart({ mediaType: "image/png", data: png })],
      },
    ],
  },
])

describe("AiSdkModel and older specifications", () => {
  it.effect("asks and reads v3", () =>
    Effect.gen(function* () {
      const asked: Array<Parameters<LanguageModelV3["doGenerate"]>[0]> = []
      const model: LanguageModelV3 = {
        specificationVersion: "v3",
        provider: "house.chat",
        modelId: "m",
        supportedUrls: {},
        doGenerate: (options) => {
          asked.push(options)
          return Promise.resolve({
            content: [
              { type: "text", text: "Hi" },
              { type: "file", mediaType: "image/png", data: "iVBORw==" },
            ],
            finishReason: { unified: "stop", raw: "stop" },
            usage,
            warnings: [],
          })
        },
        doStream: () =>
          Promise.resolve({
            stream: readable([
              { type: "text-start" as const, id: "0" },
              { type: "text-delta" as const, id: "0", delta: "Hi" },
              { type: "text-end" as const, id: "0" },
              { type: "finish" as const, finishReason: { unified: "stop" as const, raw: "stop" }, usage },
            ]),
          }),
      }
      const provider = AiSdkModel.make({ model, parameters: { reasoningEffort: "low" } })
      const answer = yield* provider.generate(withFile)
      yield* decodes(answer, "answer")
      assert.deepStrictEqual(
        answer.map((part) => part.type),
        ["response-metadata", "text", "file", "finish"],
      )
      const [options] = asked
      assert.deepStrictEqual(options?.providerOptions, { house: { reasoningEffort: "low" } })
      assert.isFalse(options !== undefined && "reasoning" in options)
      assert.deepStrictEqual(options?.prompt[0]?.content as unknown, [
        { type: "file", mediaType: "image/png", data: "iVBORw==" },
      ])
      assert.match(JSON.stringify(options?.prompt[2]), /"type":"image-data","data":"iVBORw==","mediaType":"image\/png"/)
      const seen = yield* collected(model)
      assert.strictEqual(seen.at(-1)?.type, "finish")
    }),
  )

  it.effect("asks and reads v2", () =>
    Effect.gen(function* () {
      const asked: Array<Parameters<LanguageModelV2["doGenerate"]>[0]> = []
      const flat = { inputTokens: 11, outputTokens: 7, totalTokens: 18, reasoningTokens: 2, cachedInputTokens: 3 }
      const streamed = (finishReason: "stop" | "unknown") =>
        readable([
          { type: "text-start" as const, id: "0" },
          { type: "text-delta" as const, id: "0", delta: "Hi" },
          { type: "text-end" as const, id: "0" },
          { type: "finish" as const, finishReason, usage: flat },
        ])
      let reason: "stop" | "unknown" = "stop"
      const model: LanguageModelV2 = {
        specificationVersion: "v2",
        provider: "house.chat",
        modelId: "m",
        supportedUrls: {},
        doGenerate: (options) => {
          asked.push(options)
          return Promise.resolve({
            content: [{ type: "text", text: "Hi" }],
            finishReason: "length",
            usage: flat,
            warnings: [],
          })
        },
        doStream: () => Promise.resolve({ stream: streamed(reason) }),
      }
      const answer = yield* AiSdkModel.make({ model }).generate(withFile)
      const expected = {
        inputTokens: { total: 11, uncached: 8, cacheRead: 3 },
        outputTokens: { total: 7, reasoning: 2, text: 5 },
      }
      assert.deepStrictEqual(answer.at(-1), { type: "finish", reason: "length", usage: expected })
      assert.match(JSON.stringify(asked[0]?.prompt[2]), /"type":"media","data":"iVBORw==","mediaType":"image\/png"/)
      const seen = yield* collected(model)
      assert.deepStrictEqual(seen.at(-1), { type: "finish", reason: "stop", usage: expected })
      const address = Prompt.filePart({ mediaType: "image/png", data: new URL("https://example.com/a.png") })
      const result = { type: "tool-result", id: "c", name: "weather", isFailure: false, result: null } as const
      const unsaid = LanguageModelFace.request([{ role: "tool", content: [{ ...result, modelOutput: [address] }] }])
      assert.strictEqual((yield* Effect.flip(AiSdkModel.make({ model }).generate(unsaid)))._tag, "InvalidRequest")
      assert.strictEqual(asked.length, 1)
      reason = "unknown"
      const cut = yield* failureOf(model)
      assert.strictEqual(cut._tag, "StreamInterrupted")
    }),
  )
})

// ---------------------------------------------------------------------------
// Gemini
// ---------------------------------------------------------------------------

interface Gemini {
  readonly model: AiSdkModel.AiSdkModel
  readonly bodies: Array<Record<string, unknown>>
}

const gemini = (answer: () => globalThis.Response): Gemini => {
  const bodies: Array<Record<string, unknown>> = []
  const google = createGoogle({
    apiKey: "AIza-planted",
    fetch: (_, init) => {
      bodies.push(JSON.parse(String(init?.body)))
      return Promise.resolve(answer())
    },
  })
  return { bodies, model: AiSdkModel.make({ model: google("gemini-2.5-flash") }) }
}

const geminiJson =
  (body: unknown, status = 200) =>
  () =>
    new globalThis.Response(JSON.stringify(body), { status, headers: { "content-type": "application/json" } })

const geminiStream =
  (...values: ReadonlyArray<unknown>) =>
  () =>
    new globalThis.Response(events(...values), { headers: { "content-type": "text/event-stream" } })

const candidate = (parts: ReadonlyArray<unknown>, finishReason?: string) => ({
  candidates: [{ content: { role: "model", parts }, ...(finishReason === undefined ? {} : { finishReason }) }],
})

const counted = { usageMetadata: { promptTokenCount: 11, candidatesTokenCount: 7, totalTokenCount: 18 } }

describe("AiSdkModel of @ai-sdk/google", () => {
  it.effect("answers and streams, with usage, reasoning and calls of tools", () =>
    Effect.gen(function* () {
      const call = { functionCall: { name: "weather", args: { city: "Rome" } }, thoughtSignature: "sig" }
      const parts = [{ text: "Hm.", thought: true }, { text: "Schön" }, call]
      const asked = LanguageModelFace.request("Weather?", { tools: [weather] })
      const whole = gemini(geminiJson({ ...candidate(parts, "STOP"), ...counted }))
      const streamed = gemini(
        geminiStream(
          ...parts.map((part, i) => ({
            ...candidate([part], i === 2 ? "STOP" : undefined),
            ...(i === 2 ? counted : {}),
          })),
        ),
      )
      const answer = yield* whole.model.generate(asked)
      const seen = yield* Stream.runCollect(streamed.model.stream(asked))
      yield* decodes(answer, "answer")
      yield* decodes(seen, "stream")
      assert.strictEqual(LanguageModelFace.text(answer), "Schön")
      assert.strictEqual(seen.map((part) => (part.type === "text-delta" ? part.delta : "")).join(""), "Schön")
      for (const all of [answer, seen]) {
        const called = all.find((part) => part.type === "tool-call")
        assert.isTrue(called?.type === "tool-call" && called.name === "weather")
        assert.deepStrictEqual(called?.type === "tool-call" ? called.params : undefined, { city: "Rome" })
        const last = all.at(-1)
        assert.isTrue(last?.type === "finish" && last.reason === "tool-calls" && last.usage.inputTokens.total === 11)
      }
      // The signature goes back with the call.
      const decoded = yield* Schema.decodeUnknownEffect(Schema.Array(Response.Part(Toolkit.make(weather))))(answer)
      const history = Prompt.concat(Prompt.make("Weather?"), Prompt.fromResponseParts(decoded))
      yield* whole.model.generate(LanguageModelFace.request(history, { tools: [weather] }))
      assert.match(JSON.stringify(whole.bodies[1]), /"functionCall".*"thoughtSignature":"sig"/)
    }),
  )

  it.effect("asks for structured output by its schema, and carries parameters and images", () =>
    Effect.gen(function* () {
      const answer = JSON.stringify({ title: "Dune", note: null, tags: [{ "0": "sf", "1": 3 }] })
      const { bodies, model } = gemini(geminiJson({ ...candidate([{ text: answer }], "STOP"), ...counted }))
      const book = yield* model.generate(asBook).pipe(Call.withParameters({ temperature: 0.5, maxTokens: 9 }))
      assert.deepStrictEqual(JSON.parse(LanguageModelFace.text(book)), { title: "Dune", tags: { sf: 3 } })
      const config = bodies[0]?.["generationConfig"] as Record<string, unknown>
      assert.deepInclude(config, { temperature: 0.5, maxOutputTokens: 9, responseMimeType: "application/json" })
      assert.match(JSON.stringify(config), /"required":\["title","note","tags"\]/)
      yield* model.generate(withFile)
      assert.match(JSON.stringify(bodies[1]?.["contents"]), /"inlineData":{"mimeType":"image\/png","data":"iVBORw=="}/)
    }),
  )

  it.effect("tells failures as what they are", () =>
    Effect.gen(function* () {
      const error = (code: number, status: string, message: string, details: ReadonlyArray<unknown> = []) =>
        geminiJson({ error: { code, status, message, details } }, code)
      const rows: ReadonlyArray<readonly [() => globalThis.Response, LlmError.Tag]> = [
        [
          error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", [
            { "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason: "API_KEY_INVALID" },
          ]),
          "AuthenticationFailed",
        ],
        [
          error(429, "RESOURCE_EXHAUSTED", "Quota exceeded. Please retry in 26s.", [
            { "@type": "type.googleapis.com/google.rpc.RetryInfo", retryDelay: "26s" },
          ]),
          "RateLimited",
        ],
        [error(503, "UNAVAILABLE", "The model is overloaded. Please try again later."), "Overloaded"],
        [error(404, "NOT_FOUND", "models/nope is not found for API version v1beta"), "ModelNotFound"],
        [geminiJson({ promptFeedback: { blockReason: "SAFETY" }, ...counted }), "ContentFiltered"],
        [geminiJson({ ...candidate([{ text: "I" }], "SAFETY"), ...counted }), "ContentFiltered"],
        [geminiJson({ ...candidate([{ text: "I" }], "LANGUAGE"), ...counted }), "ContentFiltered"],
        [geminiJson({ ...candidate([{ text: "I" }], "MALFORMED_FUNCTION_CALL"), ...counted }), "InvalidResponse"],
        [geminiJson({ candidates: [], ...counted }), "InvalidResponse"],
      ]
      for (const [answer, tag] of rows) {
        const failure = yield* Effect.flip(gemini(answer).model.generate(request))
        assert.strictEqual(failure._tag, tag, failure.message)
        assert.notInclude(shown(failure), "AIza-planted")
      }
      const limited = yield* Effect.flip(gemini(rows[1]![0]).model.generate(request))
      assert.deepInclude(JSON.parse(JSON.stringify(limited)), { retryAfter: 26_000 })
    }),
  )

  it.effect("never takes a broken stream for a whole one", () =>
    Effect.gen(function* () {
      const begun = candidate([{ text: "Hi" }])
      const overloaded = { error: { code: 503, status: "UNAVAILABLE", message: "The model is overloaded." } }
      const rows: ReadonlyArray<readonly [ReadonlyArray<unknown>, string]> = [
        [[begun], "StreamInterrupted by nothing"],
        [[begun, overloaded], "StreamInterrupted by Overloaded"],
        [[overloaded], "Overloaded"],
        [[begun, candidate([], "SAFETY")], "StreamInterrupted by ContentFiltered"],
        [[{ promptFeedback: { blockReason: "SAFETY" } }], "ContentFiltered"],
        [[], "StreamInterrupted by nothing"],
      ]
      for (const [values, wanted] of rows) {
        const failure = yield* Effect.flip(Stream.runDrain(gemini(geminiStream(...values)).model.stream(request)))
        const seen =
          failure._tag === "StreamInterrupted"
            ? `StreamInterrupted by ${failure.failure?._tag ?? "nothing"}`
            : failure._tag
        assert.strictEqual(seen, wanted, JSON.stringify(values))
      }
    }),
  )
})
