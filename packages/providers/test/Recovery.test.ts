import { assert, describe, it } from "@effect/vitest"
import { Failover, LanguageModelFace, type LlmError, type Provider, Recovery, TokenCounter } from "@understudy/core"
import { AnthropicMessages, OpenAiChat } from "@understudy/providers"
import { Upstream } from "@understudy/testkit"
import { Effect, Redacted, Stream } from "effect"
import { FetchHttpClient, type HttpClient } from "effect/http"

type Model = Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.ProviderFailure, HttpClient.HttpClient>

const apiKey = Redacted.make("sk-test")

const dialects: Readonly<Record<"openai" | "anthropic", (upstream: Upstream.Running) => Model>> = {
  openai: (upstream) => OpenAiChat.make({ model: "m", apiKey, baseUrl: upstream.openaiUrl }),
  anthropic: (upstream) => AnthropicMessages.make({ model: "m", apiKey, baseUrl: upstream.anthropicUrl }),
}

const bodies = {
  openai: (code: string, message: string) => ({
    error: { message, type: "invalid_request_error", param: "messages", code },
  }),
  anthropic: (_: string, message: string) => ({ type: "error", error: { type: "invalid_request_error", message } }),
}

/** Asks for an answer, or for a stream, and gives its text. */
const asks = <E, R>(
  kind: "generate" | "stream",
  model: Provider.Provider<LanguageModelFace.LanguageModelFace, E, R>,
  request: LanguageModelFace.Request,
) =>
  kind === "generate"
    ? Effect.map(model.generate(request), LanguageModelFace.text)
    : Effect.map(Stream.runCollect(model.stream(request)), (parts) => parts.map(LanguageModelFace.partText).join(""))

/** The texts of the messages that a request held, in order. */
const sent = (body: unknown): ReadonlyArray<string> => {
  const { messages } = body as {
    readonly messages: ReadonlyArray<{ readonly role: string; readonly content: unknown }>
  }
  return messages.map(({ content, role }) => {
    const text = typeof content === "string" ? content : JSON.stringify(content)
    return `${role} ${/[QAT]\d+/.exec(text)?.[0] ?? text}`
  })
}

const call = (n: number) =>
  ({ type: "tool-call", id: `call_${n}`, name: "weather", params: { city: `T${n}` } }) as const
const result = (n: number) =>
  ({
    type: "tool-result",
    id: `call_${n}`,
    name: "weather",
    isFailure: false,
    result: `T${n} ${"sun ".repeat(80)}`,
  }) as const

const long = LanguageModelFace.request([
  { role: "system", content: "Be brief." },
  { role: "user", content: `Q1 ${"sand ".repeat(80)}` },
  { role: "assistant", content: `A1 ${"worm ".repeat(80)}` },
  { role: "user", content: `Q2 ${"sand ".repeat(80)}` },
  { role: "assistant", content: [call(1), call(2)] },
  { role: "tool", content: [result(1), result(2)] },
  { role: "assistant", content: `A2 ${"worm ".repeat(80)}` },
  { role: "user", content: "Q3" },
])

for (const dialect of ["openai", "anthropic"] as const) {
  for (const kind of ["generate", "stream"] as const) {
    describe(`Over a socket, ${dialect}, ${kind}`, () => {
      it.live("a prompt that is too long is sent again without its oldest exchange, pairs whole", () =>
        Effect.gen(function* () {
          const tokens = yield* TokenCounter.count(long)
          const limit = tokens - 50
          const message =
            dialect === "openai"
              ? `This model's maximum context length is ${limit} tokens. However, your messages resulted in ${tokens} tokens. Please reduce the length of the messages.`
              : `prompt is too long: ${tokens} tokens > ${limit} maximum`
          const upstream = yield* Upstream.make({
            script: [
              Upstream.status(400, { body: bodies[dialect]("context_length_exceeded", message) }),
              Upstream.answer("Sunny."),
            ],
          })
          const model = Failover.make([dialects[dialect](upstream)]).pipe(Recovery.contextLength({ reserve: 0 }))
          assert.strictEqual(yield* asks(kind, model, long), "Sunny.")
          const [first, second] = yield* upstream.requests
          assert.deepStrictEqual(
            sent(first!.body).filter((line) => /[QA]\d/.test(line)),
            ["user Q1", "assistant A1", "user Q2", "assistant A2", "user Q3"],
          )
          assert.deepStrictEqual(
            sent(second!.body).filter((line) => /[QA]\d/.test(line)),
            ["user Q2", "assistant A2", "user Q3"],
          )
          const body = JSON.stringify(second!.body)
          for (const id of ["call_1", "call_2"]) assert.strictEqual(body.split(`"${id}"`).length, 3, id)
          assert.include(body, "Be brief.")
          assert.strictEqual((yield* upstream.requests).length, 2)
        }).pipe(Effect.provide(FetchHttpClient.layer)),
      )

      it.live("a prompt that is refused is sent again as the steps change it", () =>
        Effect.gen(function* () {
          const upstream = yield* Upstream.make({
            script:
              dialect === "openai"
                ? [
                    Upstream.status(400, {
                      body: {
                        error: {
                          message:
                            "The response was filtered due to the prompt triggering the content management policy.",
                          code: "content_filter",
                          param: "messages[1].content[1]",
                        },
                      },
                    }),
                    Upstream.refusal("I cannot help with that."),
                    Upstream.answer("Boil it."),
                  ]
                : [
                    Upstream.status(400, { body: bodies.anthropic("", "Output blocked by content filtering policy") }),
                    Upstream.answer("Boil it."),
                  ],
          })
          const model = dialects[dialect](upstream).pipe(Recovery.contentFiltered())
          const request = LanguageModelFace.request([
            { role: "system", content: "Be brief." },
            {
              role: "user",
              content: [
                { type: "text", text: "How is sugar made?" },
                { type: "text", text: "Something dreadful." },
              ],
            },
          ])
          assert.strictEqual(yield* asks(kind, model, request), "Boil it.")
          const texts = (yield* upstream.requests).map(({ body }) => JSON.stringify(body))
          // What it names is left out, where it names something; then it is asked to answer within the policy.
          const whole = texts.map((text) => text.includes("Something dreadful."))
          const rephrased = texts.map((text) => text.includes("within the applicable content policies"))
          assert.deepStrictEqual(
            [whole, rephrased],
            dialect === "openai"
              ? [
                  [true, false, false],
                  [false, false, true],
                ]
              : [
                  [true, true],
                  [false, true],
                ],
          )
          for (const text of texts) assert.isTrue(text.includes("How is sugar made?") && text.includes("Be brief."))
        }).pipe(Effect.provide(FetchHttpClient.layer)),
      )
    })
  }
}
