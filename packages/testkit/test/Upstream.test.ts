import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Result, Scope, Stream } from "effect"
import * as Net from "node:net"
import { Upstream } from "../src/index.ts"
import { connect, parse, sse, type RawClient, type RawRequest } from "./RawClient.ts"

type Mode = readonly [dialect: Upstream.Dialect, how: "unary" | "stream"]

const modes: ReadonlyArray<Mode> = [
  ["openai", "unary"],
  ["openai", "stream"],
  ["anthropic", "unary"],
  ["anthropic", "stream"],
]

const messages = [{ role: "user", content: "Hi" }]

const request = ([dialect, how]: Mode, extra: Readonly<Record<string, unknown>> = {}): RawRequest =>
  dialect === "openai"
    ? {
        path: "/v1/chat/completions",
        headers: { authorization: "Bearer sk-secret" },
        body: {
          model: "gpt-test",
          messages,
          ...(how === "stream" ? { stream: true, stream_options: { include_usage: true } } : {}),
          ...extra,
        },
      }
    : {
        path: "/v1/messages",
        headers: { "x-api-key": "sk-secret", "anthropic-version": "2023-06-01" },
        body: {
          model: "claude-test",
          max_tokens: 64,
          messages,
          ...(how === "stream" ? { stream: true } : {}),
          ...extra,
        },
      }

/** Plays one step for one request of this mode over a connection of its own. */
const ask = Effect.fnUntraced(function* (
  script: Upstream.Script,
  mode: Mode,
  extra?: Readonly<Record<string, unknown>>,
) {
  const upstream = yield* Upstream.make({ script })
  const client = yield* connect(upstream.port)
  yield* client.send(request(mode, extra))
  return { upstream, client }
})

/** Plays one step that answers completely, and takes the answer apart. */
const answerTo = Effect.fnUntraced(function* (
  script: Upstream.Script,
  mode: Mode,
  extra?: Readonly<Record<string, unknown>>,
) {
  const { client, upstream } = yield* ask(script, mode, extra)
  const record = yield* upstream.awaitEnd("req_1")
  return { upstream, client, record, ...(yield* received(client)) }
})

/** What the client holds once the socket has had time to hand it over. */
const received = (client: RawClient) =>
  Effect.gen(function* () {
    while (true) {
      if (client.text().includes("\r\n\r\n")) {
        const response = parse(client.pieces)
        if (response.complete || client.ending() !== "open") return response
      }
      yield* Effect.sleep("1 millis")
    }
  })

const json = (text: string): Record<string, unknown> => JSON.parse(text)

const contentOf = (body: string, [dialect, how]: Mode): string => {
  if (how === "unary") {
    const parsed = JSON.parse(body)
    return dialect === "openai" ? parsed.choices[0].message.content : parsed.content[0].text
  }
  return sse(body)
    .filter(({ data }) => data !== "[DONE]")
    .map(({ data }) => JSON.parse(data))
    .map((event) => (dialect === "openai" ? event.choices?.[0]?.delta.content : event.delta?.text) ?? "")
    .join("")
}

/** The text and the tokens of `Upstream.answer("one two three four")`. */
const text = "one two three four"

describe("Upstream answers", () => {
  it.live("an OpenAI request with a complete chat completion", () =>
    Effect.gen(function* () {
      const { body, headers, status } = yield* answerTo([Upstream.answer("Hello")], ["openai", "unary"])
      assert.strictEqual(status, 200)
      assert.strictEqual(headers["content-type"], "application/json")
      assert.strictEqual(headers["x-request-id"], "req_1")
      assert.deepStrictEqual(json(body), {
        id: "chatcmpl-1",
        object: "chat.completion",
        created: 1735689600,
        model: "gpt-test",
        service_tier: "default",
        system_fingerprint: "fp_understudy",
        choices: [
          {
            index: 0,
            message: { role: "assistant", content: "Hello", refusal: null, annotations: [] },
            logprobs: null,
            finish_reason: "stop",
          },
        ],
        usage: {
          prompt_tokens: 16,
          completion_tokens: 1,
          total_tokens: 17,
          prompt_tokens_details: { cached_tokens: 0, audio_tokens: 0 },
          completion_tokens_details: {
            reasoning_tokens: 0,
            audio_tokens: 0,
            accepted_prediction_tokens: 0,
            rejected_prediction_tokens: 0,
          },
        },
      })
    }),
  )

  it.live("an Anthropic request with a complete message", () =>
    Effect.gen(function* () {
      const { body, headers, status } = yield* answerTo([Upstream.answer("Hello")], ["anthropic", "unary"])
      assert.strictEqual(status, 200)
      assert.strictEqual(headers["request-id"], "req_1")
      assert.deepStrictEqual(json(body), {
        id: "msg_1",
        type: "message",
        role: "assistant",
        model: "claude-test",
        container: null,
        content: [{ type: "text", text: "Hello", citations: null }],
        diagnostics: null,
        stop_reason: "end_turn",
        stop_sequence: null,
        stop_details: null,
        usage: {
          input_tokens: 21,
          output_tokens: 1,
          output_tokens_details: null,
          cache_creation: { ephemeral_1h_input_tokens: 0, ephemeral_5m_input_tokens: 0 },
          cache_creation_input_tokens: 0,
          cache_read_input_tokens: 0,
          inference_geo: null,
          server_tool_use: null,
          service_tier: "standard",
          speed: null,
        },
      })
    }),
  )

  it.live("an OpenAI stream with chunks, usage in a last chunk of its own, and [DONE]", () =>
    Effect.gen(function* () {
      const { body, headers } = yield* answerTo([Upstream.answer("Hello there")], ["openai", "stream"])
      assert.strictEqual(headers["content-type"], "text/event-stream; charset=utf-8")
      const events = sse(body)
      assert.isTrue(events.every(({ event }) => event === undefined))
      assert.strictEqual(events.at(-1)?.data, "[DONE]")
      const chunks = events.slice(0, -1).map(({ data }) => JSON.parse(data))
      assert.isTrue(chunks.every(({ id, object }) => id === "chatcmpl-1" && object === "chat.completion.chunk"))
      assert.deepStrictEqual(
        chunks.map(({ choices }) => choices),
        [
          [{ index: 0, delta: { role: "assistant", content: "", refusal: null }, logprobs: null, finish_reason: null }],
          [{ index: 0, delta: { content: "Hello" }, logprobs: null, finish_reason: null }],
          [{ index: 0, delta: { content: " there" }, logprobs: null, finish_reason: null }],
          [{ index: 0, delta: {}, logprobs: null, finish_reason: "stop" }],
          [],
        ],
      )
      assert.deepStrictEqual(
        chunks.map(({ usage }) => usage?.completion_tokens ?? usage),
        [null, null, null, null, 2],
      )
    }),
  )

  it.live("an OpenAI stream without usage unless it was asked for", () =>
    Effect.gen(function* () {
      const { body } = yield* answerTo([], ["openai", "stream"], { stream_options: undefined })
      assert.notInclude(body, "usage")
      assert.include(body, "[DONE]")
    }),
  )

  it.live("an Anthropic stream with its events in order", () =>
    Effect.gen(function* () {
      const { body } = yield* answerTo([Upstream.answer("Hello there")], ["anthropic", "stream"])
      const events = sse(body).map(({ data, event }) => ({ event, data: JSON.parse(data) }))
      assert.isTrue(events.every(({ data, event }) => event === data.type))
      assert.deepStrictEqual(
        events.map(({ event }) => event),
        [
          "message_start",
          "content_block_start",
          "ping",
          "content_block_delta",
          "content_block_delta",
          "content_block_stop",
          "message_delta",
          "message_stop",
        ],
      )
      assert.deepStrictEqual(events[0]?.data.message.content, [])
      assert.strictEqual(events[0]?.data.message.stop_reason, null)
      assert.deepStrictEqual(events[1]?.data.content_block, { type: "text", text: "", citations: null })
      assert.deepStrictEqual(events[3]?.data, {
        type: "content_block_delta",
        index: 0,
        delta: { type: "text_delta", text: "Hello" },
      })
      assert.strictEqual(events[6]?.data.delta.stop_reason, "end_turn")
      assert.strictEqual(events[6]?.data.usage.output_tokens, 2)
    }),
  )

  it.live("with tool calls, whole or as deltas that join to the same arguments", () =>
    Effect.gen(function* () {
      const calls = [
        { name: "weather", arguments: { city: "Zürich", days: 3 } },
        { name: "now", arguments: {}, id: "mine" },
      ]
      const script = [Upstream.toolCalls(calls)]

      const openai = JSON.parse((yield* answerTo(script, ["openai", "unary"])).body).choices[0]
      assert.strictEqual(openai.finish_reason, "tool_calls")
      assert.strictEqual(openai.message.content, null)
      assert.deepStrictEqual(openai.message.tool_calls, [
        { id: "call_1_1", type: "function", function: { name: "weather", arguments: '{"city":"Zürich","days":3}' } },
        { id: "mine", type: "function", function: { name: "now", arguments: "{}" } },
      ])

      const deltas = sse((yield* answerTo(script, ["openai", "stream"])).body)
        .filter(({ data }) => data !== "[DONE]")
        .flatMap(({ data }) => JSON.parse(data).choices[0]?.delta.tool_calls ?? [])
      assert.deepStrictEqual(
        deltas.filter(({ id }) => id !== undefined).map(({ function: { name }, id, index }) => [index, id, name]),
        [
          [0, "call_1_1", "weather"],
          [1, "mine", "now"],
        ],
      )
      const joined = (index: number) =>
        deltas
          .filter((delta) => delta.index === index)
          .map((delta) => delta.function.arguments)
          .join("")
      assert.deepStrictEqual([joined(0), joined(1)], ['{"city":"Zürich","days":3}', "{}"])

      const anthropic = JSON.parse((yield* answerTo(script, ["anthropic", "unary"])).body)
      assert.strictEqual(anthropic.stop_reason, "tool_use")
      assert.deepStrictEqual(
        anthropic.content.map(({ id, input, name, type }: Record<string, unknown>) => ({ id, input, name, type })),
        [
          { id: "toolu_1_1", input: { city: "Zürich", days: 3 }, name: "weather", type: "tool_use" },
          { id: "mine", input: {}, name: "now", type: "tool_use" },
        ],
      )

      const blocks = sse((yield* answerTo(script, ["anthropic", "stream"])).body).map(({ data }) => JSON.parse(data))
      assert.deepStrictEqual(
        blocks
          .filter(({ type }) => type === "content_block_start")
          .map(({ content_block, index }) => [index, content_block.name, content_block.input]),
        [
          [0, "weather", {}],
          [1, "now", {}],
        ],
      )
      assert.strictEqual(
        blocks
          .filter(({ delta, index }) => index === 0 && delta?.type === "input_json_delta")
          .map(({ delta }) => delta.partial_json)
          .join(""),
        '{"city":"Zürich","days":3}',
      )
    }),
  )

  it.live("with a thinking block before the text", () =>
    Effect.gen(function* () {
      const script = [Upstream.answer("42", { thinking: "Let me see" })]
      const whole = JSON.parse((yield* answerTo(script, ["anthropic", "unary"])).body)
      assert.deepStrictEqual(whole.content[0], {
        type: "thinking",
        thinking: "Let me see",
        signature: "understudy-signature-1",
      })
      const { body } = yield* answerTo(script, ["anthropic", "stream"])
      assert.deepStrictEqual(
        sse(body).flatMap(({ data }) => JSON.parse(data).delta?.type ?? []),
        ["thinking_delta", "thinking_delta", "thinking_delta", "signature_delta", "text_delta"],
      )
    }),
  )

  it.live("with a refusal as each dialect has it", () =>
    Effect.gen(function* () {
      const script = [Upstream.refusal("I will not")]
      const openai = JSON.parse((yield* answerTo(script, ["openai", "unary"])).body).choices[0]
      assert.deepStrictEqual(
        [openai.message.content, openai.message.refusal, openai.finish_reason],
        [null, "I will not", "stop"],
      )
      const streamed = (yield* answerTo(script, ["openai", "stream"])).body
      assert.include(streamed, '"delta":{"refusal":"I"}')
      const anthropic = JSON.parse((yield* answerTo(script, ["anthropic", "unary"])).body)
      assert.deepStrictEqual([anthropic.content[0].text, anthropic.stop_reason], ["I will not", "refusal"])
    }),
  )

  it.live.each([
    ["length", "length", "max_tokens"],
    ["max_tokens", "length", "max_tokens"],
    ["content_filter", "content_filter", "refusal"],
    ["refusal", "content_filter", "refusal"],
    ["tool_use", "tool_calls", "tool_use"],
    ["eos", "eos", "eos"],
  ] as const)("with the finish reason %s", ([reason, openai, anthropic]) =>
    Effect.gen(function* () {
      const script = [Upstream.finish(reason)]
      assert.include((yield* answerTo(script, ["openai", "unary"])).body, `"finish_reason":"${openai}"`)
      assert.include((yield* answerTo(script, ["openai", "stream"])).body, `"finish_reason":"${openai}"`)
      assert.include((yield* answerTo(script, ["anthropic", "unary"])).body, `"stop_reason":"${anthropic}"`)
      assert.include((yield* answerTo(script, ["anthropic", "stream"])).body, `"stop_reason":"${anthropic}"`)
    }),
  )

  it.live("with as many tokens as asked for, made up or cut from the text", () =>
    Effect.gen(function* () {
      const count = (body: string) => sse(body).filter(({ event }) => event === "content_block_delta").length
      const madeUp = yield* answerTo([{ tokens: 30 }], ["anthropic", "stream"])
      assert.strictEqual(count(madeUp.body), 30)
      const cut = yield* answerTo([Upstream.answer("Grüße 🎭!", { tokens: 4 })], ["anthropic", "stream"])
      assert.strictEqual(count(cut.body), 4)
      assert.strictEqual(contentOf(cut.body, ["anthropic", "stream"]), "Grüße 🎭!")
    }),
  )

  it.live("on any prefix of the path, and with the usage and headers it is told", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make({
        script: [
          Upstream.answer("Hi", {
            usage: { inputTokens: 7, outputTokens: 9 },
            headers: { "X-Extra": 3, "content-length": 1 },
          }),
        ],
        created: 5,
      })
      const client = yield* connect(upstream.port)
      yield* client.send({
        ...request(["openai", "unary"]),
        path: "/openai/deployments/mine/chat/completions?api-version=1&api-key=sk-secret",
        body: { messages },
      })
      const { body, headers } = yield* received(client)
      assert.strictEqual(headers["x-extra"], "3")
      const parsed = JSON.parse(body)
      assert.deepStrictEqual([parsed.created, parsed.usage.total_tokens, parsed.model], [5, 16, "understudy-1"])
      const [record] = yield* upstream.requests
      assert.deepStrictEqual(
        [record?.path, record?.query],
        ["/openai/deployments/mine/chat/completions", "api-version=1&api-key=<redacted>"],
      )
    }),
  )

  it.live("a unary request when its last token would have come, and a stream as tokens come", () =>
    Effect.gen(function* () {
      const step = Upstream.answer(text, { firstTokenDelay: "10 millis", tokenDelay: "10 millis" })
      const unary = yield* answerTo([step], ["openai", "unary"])
      assert.isAtLeast((unary.record.completedAt ?? 0) - unary.record.at, 38)
      const { client, upstream } = yield* ask([step], ["openai", "stream"])
      const first = yield* client.awaitText('"content":"one"')
      assert.notInclude(first, '"content":" four"')
      yield* upstream.awaitEnd("req_1")
    }),
  )
})

describe.each(modes)("Upstream fails a request in the mode %s %s", (dialect, how) => {
  const mode: Mode = [dialect, how]
  const streaming = how === "stream"

  it.live("with a status, headers and the error body of the dialect", () =>
    Effect.gen(function* () {
      const { body, headers, record, status } = yield* answerTo(
        [Upstream.status(429, { headers: { "retry-after": 2 } })],
        mode,
      )
      assert.strictEqual(status, 429)
      assert.strictEqual(record.status, 429)
      assert.strictEqual(headers["retry-after"], "2")
      const parsed = JSON.parse(body)
      if (dialect === "openai") assert.strictEqual(parsed.error.code, "rate_limit_exceeded")
      else assert.deepStrictEqual([parsed.type, parsed.error.type], ["error", "rate_limit_error"])
    }),
  )

  it.live("with any status and body whatsoever, verbatim", () =>
    Effect.gen(function* () {
      const bodies = ["upstream connect error", '{"detail":"not found"}', "[1,", "", "Grüße\r\n"]
      const upstream = yield* Upstream.make({
        script: [
          ...bodies.map((body) => Upstream.status(503, { body })),
          Upstream.status(400, { body: { a: [null, 1] } }),
        ],
      })
      for (const body of [...bodies, '{"a":[null,1]}']) {
        const client = yield* connect(upstream.port)
        yield* client.send(request(mode))
        assert.strictEqual((yield* received(client)).body, body)
      }
    }),
  )

  it.live("after a latency that any step can have", () =>
    Effect.gen(function* () {
      const { record, status } = yield* answerTo([Upstream.status(500, { latency: "30 millis" })], mode)
      assert.strictEqual(status, 500)
      assert.isAtLeast((record.completedAt ?? 0) - record.at, 28)
    }),
  )

  it.live("with a reset before headers", () =>
    Effect.gen(function* () {
      const { client, upstream } = yield* ask([Upstream.resetBeforeHeaders], mode)
      assert.strictEqual(yield* client.awaitEnding, "rst")
      assert.strictEqual(client.text(), "")
      const record = yield* upstream.awaitEnd("req_1")
      assert.deepStrictEqual([record.closedBy, record.completedAt, record.status], ["server", undefined, undefined])
    }),
  )

  it.live("with a clean close before headers", () =>
    Effect.gen(function* () {
      const { client, upstream } = yield* ask([Upstream.closeBeforeHeaders], mode)
      assert.strictEqual(yield* client.awaitEnding, "fin")
      assert.strictEqual(client.text(), "")
      assert.strictEqual((yield* upstream.awaitEnd("req_1")).closedBy, "server")
    }),
  )

  it.live("by never answering, until the client closes", () =>
    Effect.gen(function* () {
      const { client, upstream } = yield* ask([Upstream.hang], mode)
      yield* upstream.awaitRequests(1)
      yield* Effect.sleep("20 millis")
      assert.deepStrictEqual([client.text(), client.ending()], ["", "open"])
      assert.strictEqual(yield* upstream.open, 1)
      yield* client.close
      const record = yield* upstream.awaitEnd("req_1")
      assert.deepStrictEqual([record.closedBy, record.completedAt], ["client", undefined])
      assert.strictEqual(yield* upstream.open, 0)
    }),
  )

  it.live("with headers and then silence", () =>
    Effect.gen(function* () {
      const { client, upstream } = yield* ask([Upstream.silence], mode)
      yield* client.awaitText("\r\n\r\n")
      yield* Effect.sleep("20 millis")
      const response = parse(client.pieces)
      assert.deepStrictEqual([response.status, response.body, response.complete], [200, "", false])
      assert.strictEqual(
        response.headers["content-type"],
        streaming ? "text/event-stream; charset=utf-8" : "application/json",
      )
      assert.strictEqual(client.ending(), "open")
      yield* client.close
      assert.strictEqual((yield* upstream.awaitEnd("req_1")).closedBy, "client")
    }),
  )

  it.live("with some content and then nothing", () =>
    Effect.gen(function* () {
      const { client, upstream } = yield* ask([Upstream.stall({ afterTokens: 3, answer: text })], mode)
      yield* client.awaitText("three")
      yield* Effect.sleep("20 millis")
      const response = parse(client.pieces)
      assert.isFalse(response.complete)
      assert.strictEqual(client.ending(), "open")
      if (streaming) assert.strictEqual(contentOf(response.body, mode), "one two three")
      else assert.isAbove(Number(response.headers["content-length"]), Buffer.byteLength(response.body))
      yield* client.close
      assert.strictEqual((yield* upstream.awaitEnd("req_1")).closedBy, "client")
    }),
  )

  it.live("with some content and then a reset, after the content has arrived", () =>
    Effect.gen(function* () {
      const { client, upstream } = yield* ask([Upstream.reset({ afterTokens: 3, answer: text })], mode)
      assert.strictEqual(yield* client.awaitEnding, "rst")
      const response = parse(client.pieces)
      assert.isFalse(response.complete)
      if (streaming) assert.strictEqual(contentOf(response.body, mode), "one two three")
      else assert.isAbove(response.body.length, 10)
      const record = yield* upstream.awaitEnd("req_1")
      assert.deepStrictEqual([record.closedBy, record.status], ["server", 200])
    }),
  )

  it.live("with a clean end that leaves the answer incomplete", () =>
    Effect.gen(function* () {
      const { client, upstream } = yield* ask([Upstream.endEarly({ afterTokens: 2, answer: text })], mode)
      const record = yield* upstream.awaitEnd("req_1")
      const response = yield* received(client)
      if (streaming) {
        // The chunked encoding is ended properly, and only the protocol shows that something is missing.
        assert.isTrue(response.complete)
        assert.strictEqual(contentOf(response.body, mode), "one two")
        assert.notMatch(response.body, /"(finish|stop)_reason":"|\[DONE\]|message_stop/)
        assert.isDefined(record.completedAt)
        assert.strictEqual(client.ending(), "open")
      } else {
        assert.strictEqual(yield* client.awaitEnding, "fin")
        assert.isFalse(response.complete)
        assert.strictEqual(record.closedBy, "server")
      }
    }),
  )

  it.live("with a slow drip", () =>
    Effect.gen(function* () {
      const { body, record } = yield* answerTo([Upstream.slowDrip({ every: "5 millis", answer: text })], mode)
      assert.strictEqual(contentOf(body, mode), text)
      assert.isAtLeast((record.completedAt ?? 0) - record.at, 18)
    }),
  )

  it.live("with headers at once when it drips", () =>
    Effect.gen(function* () {
      const { client, upstream } = yield* ask([Upstream.slowDrip({ every: "30 millis", answer: text })], mode)
      yield* client.awaitText("\r\n\r\n")
      assert.strictEqual(yield* upstream.open, 1)
      yield* client.close
      assert.strictEqual((yield* upstream.awaitEnd("req_1")).closedBy, "client")
    }),
  )

  it.live("with an error inside a 200, before any content", () =>
    Effect.gen(function* () {
      const { body, complete, status } = yield* answerTo([Upstream.errorInBand()], mode)
      assert.strictEqual(status, 200)
      assert.isTrue(complete)
      const events = streaming ? sse(body) : [{ event: undefined, data: body }]
      assert.strictEqual(events.length, 1)
      assert.strictEqual(events[0]?.event, streaming && dialect === "anthropic" ? "error" : undefined)
      const { error, type } = JSON.parse(events[0]?.data ?? "")
      assert.strictEqual(error.type, dialect === "openai" ? "server_error" : "overloaded_error")
      if (dialect === "anthropic") assert.strictEqual(type, "error")
    }),
  )

  it.live("with an error of one's own after some content", () =>
    Effect.gen(function* () {
      const step = Upstream.errorInBand({ afterTokens: 2, answer: text, error: { type: "mine", message: "gone" } })
      const { body } = yield* answerTo([step], mode)
      if (streaming) {
        assert.strictEqual(contentOf(body, mode), "one two")
        assert.deepStrictEqual(JSON.parse(sse(body).at(-1)?.data ?? "").error, { type: "mine", message: "gone" })
        assert.notMatch(body, /\[DONE\]|message_stop/)
      } else assert.deepStrictEqual(JSON.parse(body).error, { type: "mine", message: "gone" })
    }),
  )

  it.live("with an error payload replayed as it was recorded", () =>
    Effect.gen(function* () {
      const { body } = yield* answerTo([Upstream.errorInBand({ body: '{"error": "just text"}' })], mode)
      assert.include(body, '{"error": "just text"}')
    }),
  )

  it.live("with JSON that is cut, in complete framing", () =>
    Effect.gen(function* () {
      const { body, complete } = yield* answerTo([Upstream.truncatedJson({ afterTokens: 2, answer: text })], mode)
      assert.isTrue(complete)
      const last = streaming ? (sse(body).at(-1)?.data ?? "") : body
      assert.isAbove(last.length, 5)
      assert.throws(() => JSON.parse(last))
    }),
  )

  if (streaming) {
    it.live("with one cut line in a stream that goes on to its end", () =>
      Effect.gen(function* () {
        const step = Upstream.truncatedJson({ afterTokens: 1, answer: text, thenContinue: true })
        const { body } = yield* answerTo([step], mode)
        const broken = sse(body).filter(
          ({ data }) => data !== "[DONE]" && Result.isFailure(Result.try(() => JSON.parse(data))),
        )
        assert.strictEqual(broken.length, 1)
        assert.notInclude(body, '" two"')
        assert.match(body, /" four"[^]*(\[DONE\]|message_stop)/)
      }),
    )
  }

  it.live("with a web page under 200", () =>
    Effect.gen(function* () {
      const { body, headers, status } = yield* answerTo([Upstream.html()], mode)
      assert.strictEqual(status, 200)
      assert.strictEqual(headers["content-type"], "text/html; charset=utf-8")
      assert.include(body, "<html>")
    }),
  )

  it.live("with an answer without choices", () =>
    Effect.gen(function* () {
      const { body } = yield* answerTo([Upstream.emptyChoices()], mode)
      if (streaming) {
        assert.strictEqual(contentOf(body, mode), "")
        assert.notInclude(body, "content_block")
        assert.match(body, /\[DONE\]|message_stop/)
      } else if (dialect === "openai") assert.deepStrictEqual(json(body)["choices"], [])
      else assert.deepStrictEqual(json(body)["content"], [])
    }),
  )

  it.live("with an answer without usage", () =>
    Effect.gen(function* () {
      const { body } = yield* answerTo([Upstream.missingUsage({ answer: text })], mode)
      assert.strictEqual(contentOf(body, mode), text)
      assert.notInclude(body, "usage")
    }),
  )
})

describe("Upstream writes", () => {
  it.live("every byte on its own, through the middle of characters", () =>
    Effect.gen(function* () {
      for (const mode of modes) {
        const { body, chunks } = yield* answerTo([Upstream.answer("Grüße 🎭", { wire: { chunkBytes: 1 } })], mode)
        assert.strictEqual(contentOf(body, mode), "Grüße 🎭")
        if (mode[1] === "stream") assert.isTrue(chunks.every((chunk) => chunk.length === 1))
      }
    }),
  )

  it.live("pieces of a unary body one after the other", () =>
    Effect.gen(function* () {
      const { client } = yield* answerTo([Upstream.answer("Hello", { wire: { chunkBytes: 100 } })], ["openai", "unary"])
      assert.isAbove(client.pieces.length, 3)
    }),
  )

  it.live.each(modes.filter(([, how]) => how === "stream"))(
    "CRLF, comments, no spaces and unknown fields in %s",
    (mode) =>
      Effect.gen(function* () {
        const upstream = yield* Upstream.make({
          script: [Upstream.answer(text)],
          wire: { crlf: true, comments: true, noSpace: true, unknownFields: true },
        })
        const client = yield* connect(upstream.port)
        yield* client.send(request(mode))
        const { body } = yield* received(client)
        assert.notMatch(body, /[^\r]\n/)
        assert.notMatch(body, /^(data|event): /m)
        assert.strictEqual(body.split(": keep-alive\r\n\r\n").length - 1, sse(body).length)
        assert.include(body, "understudy_unknown")
        assert.strictEqual(contentOf(body, mode), text)
      }),
  )

  it.live("unknown fields everywhere but in the arguments of a tool", () =>
    Effect.gen(function* () {
      const step = Upstream.toolCalls([{ name: "f", arguments: { a: {} } }], { wire: { unknownFields: true } })
      const { body } = yield* answerTo([step], ["anthropic", "unary"])
      const parsed = JSON.parse(body)
      assert.isDefined(parsed.understudy_unknown)
      assert.isDefined(parsed.content[0].understudy_unknown)
      assert.deepStrictEqual(parsed.content[0].input, { a: {} })
    }),
  )

  it.live("events that no protocol knows", () =>
    Effect.gen(function* () {
      const step = Upstream.answer(text, { wire: { unknownEvents: true } })
      const anthropic = yield* answerTo([step], ["anthropic", "stream"])
      assert.strictEqual(sse(anthropic.body).filter(({ event }) => event === "understudy_unknown").length, 2)
      const openai = yield* answerTo([step], ["openai", "stream"])
      assert.strictEqual(openai.body.split("understudy_unknown").length - 1, 2)
      assert.strictEqual(contentOf(openai.body, ["openai", "stream"]), text)
    }),
  )

  it.live("no end marker if told so, and all the rest", () =>
    Effect.gen(function* () {
      const step = Upstream.answer(text, { wire: { endMarker: false } })
      const openai = yield* answerTo([step], ["openai", "stream"])
      assert.notInclude(openai.body, "[DONE]")
      assert.include(openai.body, '"finish_reason":"stop"')
      const anthropic = yield* answerTo([step], ["anthropic", "stream"])
      assert.notInclude(anthropic.body, "message_stop")
      assert.include(anthropic.body, '"stop_reason":"end_turn"')
    }),
  )

  it.live("comments to keep a stalled stream alive", () =>
    Effect.gen(function* () {
      const { client } = yield* ask(
        [Upstream.stall({ afterTokens: 1, wire: { keepAliveEvery: "3 millis" } })],
        ["openai", "stream"],
      )
      yield* client.awaitText(": keep-alive\n\n")
      const comments = () => client.text().split(": keep-alive").length - 1
      while (comments() < 3) yield* Effect.sleep("1 millis")
      assert.strictEqual(client.ending(), "open")
    }),
  )
})

/** Sends a request over a connection of its own and gives what was played for it. */
const playedFor = Effect.fnUntraced(function* (
  upstream: Upstream.Running,
  mode: Mode = ["openai", "unary"],
  model?: string,
) {
  const client = yield* connect(upstream.port)
  const count = yield* upstream.count
  yield* client.send(request(mode, model === undefined ? {} : { model }))
  const record = yield* upstream.awaitEnd(`req_${count + 1}`)
  yield* client.close
  return record
})

const statuses = (upstream: Upstream.Running, count: number) =>
  Effect.forEach(Array.from({ length: count }), () => Effect.map(playedFor(upstream), ({ status }) => status))

describe("A script", () => {
  it.live.each([
    ["answer", [500, 503, 200, 200, 200]],
    ["repeat", [500, 503, 503, 503, 503]],
    ["cycle", [500, 503, 500, 503, 500]],
  ] as const)("is followed by: %s", ([then, expected]) =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make({ script: { steps: [Upstream.status(500), Upstream.status(503)], then } })
      assert.deepStrictEqual(yield* statuses(upstream, 5), [...expected])
    }),
  )

  it.live("plays a step as many times as it says", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make({
        script: [Upstream.status(500, { times: 2 }), Upstream.delivered(Upstream.html({ status: 502 }), { times: 2 })],
      })
      assert.deepStrictEqual(yield* statuses(upstream, 5), [500, 500, 502, 502, 200])
    }),
  )

  it.live("has a track of its own for a dialect, a model or a path", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make({
        script: {
          steps: [Upstream.status(500)],
          then: "repeat",
          tracks: [
            { dialect: "anthropic", steps: [Upstream.status(529)], then: "repeat" },
            { model: "gpt-*-mini", steps: [Upstream.status(404)] },
            { path: "/other/*", steps: [] },
          ],
        },
      })
      const seen = [
        yield* playedFor(upstream),
        yield* playedFor(upstream, ["anthropic", "unary"]),
        yield* playedFor(upstream, ["anthropic", "stream"]),
        yield* playedFor(upstream, ["openai", "unary"], "gpt-5-mini"),
        yield* playedFor(upstream, ["openai", "unary"], "gpt-5-mini"),
        yield* playedFor(upstream, ["openai", "unary"], "gpt-5-minimal"),
      ]
      assert.deepStrictEqual(
        seen.map(({ status }) => status),
        [500, 529, 529, 404, 200, 500],
      )
    }),
  )

  it.live("can be replaced at run time", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make({ script: { steps: [Upstream.status(500)], then: "repeat" } })
      assert.deepStrictEqual(yield* statuses(upstream, 2), [500, 500])
      yield* upstream.play([Upstream.status(401)])
      assert.deepStrictEqual(yield* statuses(upstream, 2), [401, 200])
    }),
  )

  it.live("whose headers HTTP cannot carry is answered by a 500 that says so", () =>
    Effect.gen(function* () {
      const { body, record, status } = yield* answerTo(
        [Upstream.answer("Hi", { headers: { bad: "a\nb" } })],
        ["openai", "unary"],
      )
      assert.strictEqual(status, 500)
      assert.include(body, "could not be played")
      assert.include(record.rejected ?? "", "Invalid character")
    }),
  )
})

describe("A script read from data", () => {
  const problems = (input: unknown) =>
    Effect.map(Effect.flip(Upstream.decodeScript(input)), ({ problems }) =>
      problems.map(({ message, path }) => `${path}: ${message}`),
    )

  it.effect("may hold every step", () =>
    Effect.gen(function* () {
      const steps: ReadonlyArray<Upstream.Step> = [
        Upstream.answer(),
        Upstream.answer("Hi", { latency: "1 second", wire: { crlf: true }, note: "first" }),
        Upstream.toolCalls([{ name: "f", arguments: { a: [1, null] } }]),
        Upstream.toolCalls([{ name: "f", arguments: '{"a":' }]),
        Upstream.refusal("No"),
        Upstream.finish("length", { tokens: 5, tokenDelay: 3 }),
        Upstream.status(429, { headers: { "retry-after": 1 }, body: { error: null }, times: 3 }),
        Upstream.resetBeforeHeaders,
        Upstream.closeBeforeHeaders,
        Upstream.hang,
        Upstream.silence,
        Upstream.stall({ afterTokens: 0 }),
        Upstream.reset({ afterTokens: 1 }),
        Upstream.endEarly(),
        Upstream.slowDrip({ every: "50 millis" }),
        Upstream.errorInBand({ error: { type: "overloaded_error" } }),
        Upstream.truncatedJson({ thenContinue: true }),
        Upstream.html({ body: "<html>" }),
        Upstream.emptyChoices(),
        Upstream.missingUsage(),
        Upstream.refuse("2 seconds", { inFlight: "reset" }),
      ]
      const text = JSON.stringify({ steps, then: "cycle", tracks: [{ dialect: "openai", steps: [] }] })
      assert.deepStrictEqual(yield* Upstream.parseScript(text), JSON.parse(text))
      assert.deepStrictEqual(yield* Upstream.decodeScript(steps), steps)
    }),
  )

  it.effect("names every mistake and its place", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* problems({
          steps: [
            { answer: "Hi", latency: "soon" },
            { fault: "stall", afterTokens: -1, answer: 3 },
            { fault: "status" },
            { anwser: "Hi" },
            { fault: "refuse", for: -1 },
          ],
          then: "again",
        }),
        [
          'steps[0].latency: Expected a duration such as "200 millis" or "2 seconds", or a number of milliseconds, got "soon"',
          "steps[1].afterTokens: Expected a value greater than or equal to 0, got -1",
          "steps[1].answer: Expected string, got 3",
          "steps[2].status: Missing key",
          "steps[3].anwser: No such key here",
          'steps[4].for: Expected a duration such as "200 millis" or "2 seconds", or a number of milliseconds, got -1',
          'then: Expected "answer" | "repeat" | "cycle", got "again"',
        ],
      )
    }),
  )

  it.effect("lists the faults there are when one is unknown", () =>
    Effect.gen(function* () {
      const [problem] = yield* problems([{ fault: "explode", afterTokens: 3 }])
      assert.match(problem ?? "", /^\[0\]\.fault: Expected one of status, reset-before-headers, .*refuse$/)
    }),
  )

  it.effect("that is not a script, or not JSON, says so", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* problems(5), [": Expected a list of steps, or an object with steps, got 5"])
      assert.match((yield* problems([7]))[0] ?? "", /^\[0\]: Expected a step such as/)
      const error = yield* Effect.flip(Upstream.parseScript("[{"))
      assert.match(error.message, /^The script of the upstream is not valid:\n {2}the script: not JSON: /)
    }),
  )
})

describe("An upstream that refuses", () => {
  const tryConnect = Effect.fnUntraced(function* (port: number) {
    const client = yield* connect(port)
    yield* client.send(request(["openai", "unary"]))
    return yield* Effect.race(client.awaitEnding, Effect.as(client.awaitText("HTTP/1.1 200"), "answered" as const))
  })

  it.live("refuses every connection until it accepts again on the same port", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make()
      assert.strictEqual(yield* tryConnect(upstream.port), "answered")
      yield* upstream.refuse()
      assert.isFalse(yield* upstream.listening)
      assert.strictEqual(yield* tryConnect(upstream.port), "refused")
      assert.strictEqual(yield* tryConnect(upstream.port), "refused")
      yield* upstream.accept
      assert.isTrue(yield* upstream.listening)
      assert.strictEqual(yield* tryConnect(upstream.port), "answered")
      assert.strictEqual(yield* upstream.count, 2)
    }).pipe(Effect.scoped),
  )

  it.live("closes idle connections, and lets a request in flight finish first", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make({
        script: [Upstream.answer(), Upstream.answer("late", { latency: "30 millis" })],
      })
      const idle = yield* connect(upstream.port)
      yield* idle.send(request(["openai", "unary"]))
      yield* received(idle)
      const busy = yield* connect(upstream.port)
      yield* busy.send(request(["openai", "unary"]))
      yield* upstream.awaitRequests(2)
      yield* upstream.refuse()
      assert.strictEqual(yield* idle.awaitEnding, "fin")
      assert.strictEqual(busy.ending(), "open")
      assert.strictEqual(contentOf((yield* received(busy)).body, ["openai", "unary"]), "late")
      assert.strictEqual(yield* busy.awaitEnding, "fin")
      assert.deepStrictEqual(
        (yield* upstream.connections).map(({ closedBy }) => closedBy),
        ["server", "server"],
      )
    }),
  )

  it.live("resets the requests in flight if told so", () =>
    Effect.gen(function* () {
      const { client, upstream } = yield* ask([Upstream.hang], ["openai", "unary"])
      yield* upstream.awaitRequests(1)
      yield* upstream.refuse({ inFlight: "reset" })
      assert.strictEqual(yield* client.awaitEnding, "rst")
      assert.strictEqual((yield* upstream.awaitEnd("req_1")).closedBy, "server")
    }),
  )

  it.live("does so as a step of a script, once the step before is over, for as long as it says", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make({
        script: [Upstream.answer(), Upstream.refuse("40 millis"), Upstream.status(500)],
      })
      const client = yield* connect(upstream.port)
      yield* client.send(request(["openai", "unary"]))
      yield* received(client)
      assert.strictEqual(yield* client.awaitEnding, "fin")
      assert.strictEqual(yield* tryConnect(upstream.port), "refused")
      while (!(yield* upstream.listening)) yield* Effect.sleep("2 millis")
      assert.strictEqual((yield* playedFor(upstream)).status, 500)
      assert.strictEqual(yield* upstream.count, 2)
    }),
  )

  it.live("does so at once if the script begins with it, and twice in a cycle", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make({
        script: { steps: [Upstream.refuse("15 millis"), Upstream.answer()], then: "cycle" },
      })
      for (const _ of [1, 2]) {
        assert.strictEqual(yield* tryConnect(upstream.port), "refused")
        while (!(yield* upstream.listening)) yield* Effect.sleep("1 millis")
        assert.strictEqual((yield* playedFor(upstream)).status, 200)
      }
    }),
  )

  it.live("resets a request that is faster than the refusal", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make({ script: [Upstream.hang, Upstream.refuse("1 minute"), Upstream.answer()] })
      const first = yield* connect(upstream.port)
      yield* first.send(request(["openai", "unary"]))
      yield* upstream.awaitRequests(1)
      assert.strictEqual(yield* tryConnect(upstream.port), "rst")
      assert.strictEqual(yield* tryConnect(upstream.port), "refused")
      assert.strictEqual(first.ending(), "open")
      yield* upstream.accept
      assert.strictEqual(yield* tryConnect(upstream.port), "answered")
    }),
  )

  it.live("stops refusing when another script is played", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make({ script: [Upstream.refuse("1 minute")] })
      assert.strictEqual(yield* tryConnect(upstream.port), "refused")
      yield* upstream.play([])
      assert.strictEqual(yield* tryConnect(upstream.port), "answered")
    }),
  )

  it.live("says that its port was taken when it cannot accept again", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make()
      yield* upstream.refuse()
      const thief = yield* Effect.acquireRelease(
        Effect.callback<Net.Server>((resume) => {
          const server = Net.createServer().listen(upstream.port, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close()),
      )
      const error = yield* Effect.flip(upstream.accept)
      assert.strictEqual(error._tag, "PortInUse")
      assert.isFalse(yield* upstream.listening)
      yield* Effect.sync(() => thief.close())
      yield* upstream.accept
      assert.strictEqual(yield* tryConnect(upstream.port), "answered")
    }),
  )
})

describe("An upstream records", () => {
  it.live("what each request was, without credentials", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make()
      yield* playedFor(upstream)
      yield* playedFor(upstream, ["anthropic", "stream"])
      const [first, second] = yield* upstream.requests
      assert.deepStrictEqual(
        [first?.id, first?.dialect, first?.method, first?.path, first?.model, first?.streaming, first?.connection],
        ["req_1", "openai", "POST", "/v1/chat/completions", "gpt-test", false, "conn_1"],
      )
      assert.deepStrictEqual(first?.body, { model: "gpt-test", messages })
      assert.strictEqual(first?.headers["authorization"], "<redacted>")
      assert.deepStrictEqual(first?.step, {})
      assert.deepStrictEqual(
        [second?.id, second?.dialect, second?.streaming, second?.connection],
        ["req_2", "anthropic", true, "conn_2"],
      )
      assert.strictEqual(second?.headers["x-api-key"], "<redacted>")
      assert.notInclude(JSON.stringify(yield* upstream.requests), "sk-secret")
    }),
  )

  it.live("credentials only if told so", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make({ recordCredentials: true })
      assert.strictEqual((yield* playedFor(upstream)).headers["authorization"], "Bearer sk-secret")
    }),
  )

  it.live("several requests of one connection, and that the client closed it", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make()
      const client = yield* connect(upstream.port)
      for (const id of ["req_1", "req_2"]) {
        yield* client.send(request(["openai", "unary"]))
        const record = yield* upstream.awaitEnd(id)
        assert.isDefined(record.completedAt)
        assert.strictEqual(record.closedBy, undefined)
      }
      const [open] = yield* upstream.connections
      assert.deepStrictEqual([open?.requests, open?.closedBy], [["req_1", "req_2"], undefined])
      yield* client.close
      const closed = yield* upstream.awaitClosed("req_2")
      assert.strictEqual(closed.closedBy, "client")
      assert.isAtLeast(closed.closedAt ?? 0, closed.openedAt)
    }),
  )

  it.live("that the server closed when the client had asked it to", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make()
      const client = yield* connect(upstream.port)
      const plain = request(["openai", "unary"])
      yield* client.send({ ...plain, headers: { ...plain.headers, connection: "close" } })
      assert.strictEqual(yield* client.awaitEnding, "fin")
      assert.strictEqual((yield* upstream.awaitClosed("req_1")).closedBy, "server")
    }),
  )

  it.live("a client that goes away in the middle of a stream", () =>
    Effect.gen(function* () {
      const { client, upstream } = yield* ask(
        [Upstream.slowDrip({ every: "5 millis", tokens: 500 })],
        ["openai", "stream"],
      )
      yield* client.awaitText("understudy")
      yield* client.close
      const record = yield* upstream.awaitEnd("req_1")
      assert.deepStrictEqual([record.closedBy, record.completedAt], ["client", undefined])
      yield* upstream.awaitIdle
    }),
  )

  it.live("and lets a test wait for requests that have not come yet", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make({ script: { steps: [Upstream.hang], then: "repeat" } })
      const waiting = yield* Effect.forkChild(upstream.awaitRequests(2))
      const ended = yield* Effect.forkChild(upstream.awaitEnd("req_2"))
      const clients = [yield* connect(upstream.port), yield* connect(upstream.port)]
      for (const client of clients) yield* client.send(request(["openai", "unary"]))
      assert.strictEqual((yield* Fiber.join(waiting)).length, 2)
      assert.strictEqual(yield* upstream.open, 2)
      for (const client of clients) yield* client.close
      assert.strictEqual((yield* Fiber.join(ended)).closedBy, "client")
      yield* upstream.awaitIdle
      assert.strictEqual(yield* upstream.open, 0)
    }),
  )

  it.live("and forgets when told so, without moving the script", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make({ script: [Upstream.answer(), Upstream.status(500)] })
      yield* playedFor(upstream)
      yield* upstream.reset
      assert.deepStrictEqual([yield* upstream.count, yield* upstream.requests], [0, []])
      const record = yield* playedFor(upstream)
      assert.deepStrictEqual([record.id, record.status], ["req_1", 500])
    }),
  )

  it.live("no more than it is told to remember", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make({ remember: 2 })
      yield* statuses(upstream, 4)
      assert.deepStrictEqual(
        (yield* upstream.requests).map(({ id }) => id),
        ["req_3", "req_4"],
      )
      assert.strictEqual(yield* upstream.count, 4)
    }),
  )

  it.live("and tells observers, whose exceptions change nothing", () =>
    Effect.gen(function* () {
      const told: Array<string> = []
      const upstream = yield* Upstream.make({
        script: [Upstream.stall()],
        onRequest: ({ id, step }) => {
          told.push(`${id} ${step === undefined ? "-" : Upstream.stepName(step)}`)
          throw new Error("observer")
        },
        onEnd: ({ closedBy, id, status }) => {
          told.push(`${id} ${status} ${closedBy}`)
          throw new Error("observer")
        },
      })
      const stream = yield* Effect.forkChild(Stream.runCollect(Stream.take(upstream.ended, 2)))
      const client = yield* connect(upstream.port)
      yield* client.send(request(["openai", "unary"]))
      yield* client.awaitText("HTTP/1.1 200")
      yield* client.close
      yield* upstream.awaitEnd("req_1")
      yield* playedFor(upstream)
      assert.deepStrictEqual(told, ["req_1 stall", "req_1 200 client", "req_2 answer", "req_2 200 undefined"])
      assert.deepStrictEqual(
        (yield* Fiber.join(stream)).map(({ id }) => id),
        ["req_1", "req_2"],
      )
    }),
  )
})

describe("An upstream rejects without playing a step", () => {
  const send = Effect.fnUntraced(function* (raw: RawRequest, options: Upstream.Options = {}) {
    const upstream = yield* Upstream.make(options)
    const client = yield* connect(upstream.port)
    yield* client.send(raw)
    const response = yield* received(client)
    return { upstream, ...response, requests: yield* upstream.requests }
  })

  it.live("a path it does not know, with a 404 that says what it serves", () =>
    Effect.gen(function* () {
      const { body, requests, status } = yield* send({ path: "/v1/completions", body: {} })
      assert.strictEqual(status, 404)
      assert.include(body, "POST */chat/completions, POST */v1/messages and GET /health")
      assert.deepStrictEqual([requests[0]?.dialect, requests[0]?.step], [undefined, undefined])
    }),
  )

  it.live("a method other than POST", () =>
    Effect.gen(function* () {
      const { status } = yield* send({ path: "/v1/messages", method: "PUT", body: {} })
      assert.strictEqual(status, 405)
    }),
  )

  it.live.each<readonly [string, RawRequest, string]>([
    ["no JSON", { path: "/v1/chat/completions", body: "{" }, "could not parse"],
    ["no model", { path: "/v1/chat/completions", body: { messages } }, "model"],
    ["no messages", { path: "/v1/chat/completions", body: { model: "m", messages: [] } }, "messages"],
    ["no version", { path: "/v1/messages", body: {} }, "anthropic-version"],
    [
      "no max_tokens",
      { path: "/v1/messages", headers: { "anthropic-version": "2023-06-01" }, body: { model: "m", messages } },
      "max_tokens",
    ],
  ])("a request that no provider would accept: %s", ([, raw, complaint]) =>
    Effect.gen(function* () {
      const { body, requests, status } = yield* send(raw, { script: [Upstream.status(500)] })
      assert.strictEqual(status, 400)
      assert.include(JSON.parse(body).error.message, complaint)
      assert.include(requests[0]?.rejected ?? "", complaint)
      assert.strictEqual(requests[0]?.step, undefined)
    }),
  )

  it.live("nothing of that kind if told not to validate", () =>
    Effect.gen(function* () {
      const { status } = yield* send(
        { path: "/v1/messages", body: {} },
        { validate: false, script: [Upstream.status(529)] },
      )
      assert.strictEqual(status, 529)
    }),
  )

  it.live("bytes that are no HTTP", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make()
      const client = yield* connect(upstream.port)
      yield* client.send({ path: "/ no http", body: "" })
      yield* client.awaitEnding
      assert.strictEqual((yield* upstream.connections)[0]?.closedBy, "server")
      assert.strictEqual((yield* playedFor(upstream)).status, 200)
    }),
  )
})

describe("An upstream", () => {
  it.live("answers a health check, which it does not count", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make()
      const response = yield* Effect.promise(() => fetch(`${upstream.url}/health`))
      assert.strictEqual(response.status, 200)
      assert.deepStrictEqual(yield* Effect.promise(() => response.json()), { status: "ok", requests: 0, open: 0 })
      assert.strictEqual(yield* upstream.count, 0)
    }),
  )

  it.live("gives the base URLs that clients of each dialect want", () =>
    Effect.gen(function* () {
      const { anthropicUrl, openaiUrl, port, url } = yield* Upstream.make()
      assert.strictEqual(url, `http://127.0.0.1:${port}`)
      assert.strictEqual(openaiUrl, `${url}/v1`)
      assert.strictEqual(anthropicUrl, url)
    }),
  )

  it.live("says what to do when its port is in use", () =>
    Effect.gen(function* () {
      const { port } = yield* Upstream.make()
      const error = yield* Effect.flip(Upstream.make({ port }))
      assert.strictEqual(error._tag, "PortInUse")
      assert.include(error.message, `Port ${port} of 127.0.0.1 is in use by another program.`)
    }),
  )

  it.live("says what to do when it cannot listen on an address", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Upstream.make({ host: "192.0.2.1" }))
      assert.deepStrictEqual(
        [error._tag, error._tag === "ListenFailed" && error.code],
        ["ListenFailed", "EADDRNOTAVAIL"],
      )
    }),
  )

  it.live("closes every connection and frees its port when its scope closes", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const upstream = yield* Scope.provide(
        Upstream.make({ script: { steps: [Upstream.stall()], then: "repeat" } }),
        scope,
      )
      const clients = [yield* connect(upstream.port), yield* connect(upstream.port)]
      for (const client of clients) {
        yield* client.send(request(["openai", "stream"]))
        yield* client.awaitText("understudy")
      }
      // It does not wait for what never ends.
      yield* Effect.timeout(Scope.close(scope, Exit.void), "10 seconds")
      for (const client of clients) assert.notStrictEqual(yield* client.awaitEnding, "open")
      const again = yield* Upstream.make({ port: upstream.port })
      assert.strictEqual(again.port, upstream.port)
    }),
  )

  it.live("stops at once in the middle of a refusal", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const { port } = yield* Scope.provide(Upstream.make({ script: [Upstream.refuse("1 hour")] }), scope)
      yield* Scope.close(scope, Exit.void)
      yield* Upstream.make({ port })
    }),
  )

  it.live("sends the same bytes for the same requests", () =>
    Effect.gen(function* () {
      const script = [Upstream.toolCalls([{ name: "f", arguments: { a: 1 } }], { answer: "Let me look" })]
      for (const mode of modes) {
        const [first, second] = [yield* answerTo(script, mode), yield* answerTo(script, mode)]
        assert.strictEqual(first.body, second.body)
      }
    }),
  )

  it.effect("keeps real time, whatever clock the test has", () =>
    Effect.gen(function* () {
      const { record } = yield* Effect.gen(function* () {
        const upstream = yield* Upstream.make({ script: [Upstream.answer("Hi", { latency: "20 millis" })] })
        return { record: yield* playedFor(upstream) }
      })
      assert.isAtLeast((record.completedAt ?? 0) - record.at, 18)
    }),
  )

  describe("as a layer", () => {
    it.layer(Upstream.layer({ script: { steps: [Upstream.status(503)], then: "repeat" } }), {
      excludeTestServices: true,
    })((it) => {
      it.effect("is shared by the tests that use it", () =>
        Effect.gen(function* () {
          const upstream = yield* Upstream.Upstream
          assert.strictEqual((yield* playedFor(upstream)).status, 503)
        }),
      )
    })
  })
})
