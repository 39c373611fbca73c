import { NodeHttpClient } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Call, LanguageModelLayer, LlmError, StructuredOutput, TypedLanguageModel, Understudy } from "@understudy/core"
import { AnthropicMessages, OpenAiChat } from "@understudy/providers"
import { Upstream } from "@understudy/testkit"
import { Effect, Layer, Redacted, Schema } from "effect"
import { LanguageModel, Tool, Toolkit } from "effect/ai"

const Order = Schema.Struct({ item: Schema.String, count: Schema.Int })
const good = '{"item":"tea","count":3}'
const usage = { inputTokens: 100, outputTokens: 20 }
const answer = (text: string, options: Parameters<typeof Upstream.answer>[1] = {}) =>
  Upstream.answer(text, { usage, ...options })

type Body = Readonly<Record<string, unknown>>

/** A message of either dialect as who speaks and what: texts, calls and results. */
const turnsOf = (body: Body) =>
  (body["messages"] as ReadonlyArray<Body>).map((message) => ({
    role: message["role"],
    said: JSON.stringify([message["content"], message["tool_calls"]].filter((part) => part !== undefined)),
  }))

const dialects = [
  {
    name: "OpenAI",
    make: (upstream: Upstream.Running, name: string) =>
      OpenAiChat.make({ name, model: "gpt-4.1", baseUrl: upstream.openaiUrl, apiKey: Redacted.make("sk") }),
    results: (body: Body) => turnsOf(body).filter(({ role }) => role === "tool"),
    maxTokens: (body: Body) => body["max_completion_tokens"] ?? body["max_tokens"],
  },
  {
    name: "Anthropic",
    make: (upstream: Upstream.Running, name: string) =>
      AnthropicMessages.make({
        name,
        model: "claude-sonnet-5",
        baseUrl: upstream.anthropicUrl,
        apiKey: Redacted.make("sk"),
      }),
    results: (body: Body) => turnsOf(body).filter(({ said }) => said.includes("tool_result")),
    maxTokens: (body: Body) => body["max_tokens"],
  },
] as const

const Live = Layer.mergeAll(Understudy.layer, NodeHttpClient.layerUndici)

for (const { make, maxTokens, name, results } of dialects) {
  /** An upstream with this script, and a model that asks it. */
  const staged = (...steps: ReadonlyArray<Upstream.Step>) =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make({ script: { steps, then: "repeat" } })
      const bodies = Effect.map(upstream.requests, (requests) => requests.map(({ body }) => body as Body))
      return { upstream, bodies, provider: make(upstream, "lead") }
    })

  describe(`Structured output over ${name}`, () => {
    it.live("mends an answer without asking again", () =>
      Effect.gen(function* () {
        const { bodies, provider } = yield* staged(answer("Sure!\n```json\n{'item': 'tea', 'count': 3,}\n```"))
        const {
          repairs,
          value,
          usage: spent,
        } = yield* StructuredOutput.generate(provider, { prompt: "Tea.", schema: Order })
        assert.deepStrictEqual(value, { item: "tea", count: 3 })
        assert.isAbove(repairs.length, 0)
        assert.deepStrictEqual(spent, usage)
        assert.strictEqual((yield* bodies).length, 1)
      }).pipe(Effect.scoped, Effect.provide(Live)),
    )

    it.live("asks again with the failed answer in the assistant's turn, and what was wrong in one message", () =>
      Effect.gen(function* () {
        const { bodies, provider } = yield* staged(
          answer("I think it is tea."),
          answer('{"item":"tea","count":"three"}'),
          answer(good),
        )
        const {
          rejections,
          usage: spent,
          value,
        } = yield* StructuredOutput.generate(provider, {
          prompt: "Three boxes of tea, please.",
          schema: Order,
        })
        assert.deepStrictEqual(value, { item: "tea", count: 3 })
        assert.deepStrictEqual(
          rejections.map(({ reason }) => reason),
          ["nothing found", "schema mismatch"],
        )
        assert.deepStrictEqual(spent, { inputTokens: 300, outputTokens: 60 })
        const [first, second, third, ...rest] = yield* bodies
        assert.deepStrictEqual(rest, [])
        const original = turnsOf(first!)
        for (const [body, shown, told] of [
          [second!, "I think it is tea.", "holds no JSON value"],
          [third!, "three", "$.count"],
        ] as const) {
          const turns = turnsOf(body)
          assert.deepStrictEqual(turns.slice(0, original.length), original)
          const [assistant, user, ...more] = turns.slice(original.length)
          assert.strictEqual(assistant?.role, "assistant")
          assert.include(assistant?.said, shown)
          assert.include(assistant?.said, "previous_answer")
          assert.strictEqual(user?.role, "user")
          assert.include(user?.said, told)
          assert.deepStrictEqual(more, [])
        }
        assert.notInclude(JSON.stringify(turnsOf(third!)), "I think it is tea.")
      }).pipe(Effect.scoped, Effect.provide(Live)),
    )

    it.live("stops after three answers, with the issues and the tokens of each", () =>
      Effect.gen(function* () {
        const { bodies, provider } = yield* staged(answer("no"), answer('{"item":"tea"}'), answer("[1]"))
        const failure = yield* Effect.flip(StructuredOutput.generate(provider, { prompt: "Tea.", schema: Order }))
        assert.strictEqual((yield* bodies).length, 3)
        assert.isTrue(LlmError.is("InvalidResponse")(failure))
        if (failure._tag !== "InvalidResponse") return
        assert.strictEqual(failure.rejections?.length, 3)
        assert.deepStrictEqual(
          failure.rejections?.[1]?.issues.map(({ path }) => path),
          ["$.count"],
        )
        assert.deepStrictEqual(failure.usage, { inputTokens: 300, outputTokens: 60 })
      }).pipe(Effect.scoped, Effect.provide(Live)),
    )

    it.live("never sends a cut answer back, and allows a longer one", () =>
      Effect.gen(function* () {
        const cut = Upstream.finish("length", { answer: '{"item":"tea, the green on', usage })
        const { bodies, provider } = yield* staged(cut, answer(good))
        const { value } = yield* StructuredOutput.generate(provider, { prompt: "Tea.", schema: Order }).pipe(
          Call.withParameters({ maxTokens: 50 }),
        )
        assert.strictEqual(value.item, "tea")
        const [first, second] = yield* bodies
        assert.deepStrictEqual([maxTokens(first!), maxTokens(second!)], [50, 100])
        assert.notInclude(JSON.stringify(second), "the green on")
        assert.include(JSON.stringify(second), "cut off")
      }).pipe(Effect.scoped, Effect.provide(Live)),
    )

    it.live("lets generateObject of unchanged code have all of that", () =>
      Effect.gen(function* () {
        const { bodies, provider } = yield* staged(answer("Well."), answer(`Here:\n${good}\nBye.`))
        const asked = LanguageModel.generateObject({ prompt: "Tea.", schema: Order })
        const { usage: spent, value } = yield* asked.pipe(
          Effect.provide(LanguageModelLayer.layer(Understudy.make({ candidates: [{ provider }] }))),
        )
        assert.deepStrictEqual(value, { item: "tea", count: 3 })
        assert.strictEqual(spent.inputTokens.total, 200)
        assert.strictEqual((yield* bodies).length, 2)
      }).pipe(Effect.scoped, Effect.provide(Live)),
    )

    it.live("answers a wrong call of a tool with an error result; the handler runs once", () =>
      Effect.gen(function* () {
        let runs = 0
        const weather = Tool.make("weather", {
          parameters: Schema.Struct({ city: Schema.String }),
          success: Schema.String,
        })
        const toolkit = Toolkit.make(weather)
        const { bodies, provider } = yield* staged(
          Upstream.toolCalls([{ name: "weather", arguments: { place: "Rome" } }], { usage }),
          // Not strict JSON: it is mended.
          Upstream.toolCalls(
            [{ name: "weather", arguments: name === "OpenAI" ? "{'city': 'Rome',}" : { city: "Rome" } }],
            { usage },
          ),
        )
        const model = yield* TypedLanguageModel.make(provider)
        const { toolResults } = yield* model
          .generateText({ prompt: "Weather in Rome?", toolkit })
          .pipe(
            Effect.provide(toolkit.toLayer({ weather: ({ city }) => Effect.sync(() => `${city}: sun, ${++runs}`) })),
          )
        assert.deepStrictEqual(
          toolResults.map(({ result }) => result),
          ["Rome: sun, 1"],
        )
        const all = yield* bodies
        assert.strictEqual(all.length, 2)
        const [result, ...others] = results(all[1]!)
        assert.deepStrictEqual(others, [])
        assert.include(result?.said, "were not accepted")
        assert.include(result?.said, "$.city")
      }).pipe(Effect.scoped, Effect.provide(Live)),
    )
  })
}
