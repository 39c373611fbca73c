import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Redacted, Schema } from "effect"
import { existsSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { inspect } from "node:util"
import { Classifier, Hint, LlmError } from "../src/index.ts"

// ---------------------------------------------------------------------------
// Labelled failures
// ---------------------------------------------------------------------------

interface Labelled {
  readonly id: string
  readonly provider: string
  readonly where: Classifier.Where
  readonly status: number | null
  readonly headers: Record<string, string> | null
  readonly body: string
  readonly tag: string
  readonly alt: string | null
  readonly retryable: boolean
  readonly hint: number | null
  /** Typed fields that the failure must have; durations are left to `hint`. */
  readonly fields?: Record<string, unknown>
}

const lines = (file: string): ReadonlyArray<string> =>
  readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line.trim() !== "")

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

const fixtures = lines(here("./fixtures/classifier/failures.jsonl")).map((line): Labelled => ({
  alt: null,
  ...JSON.parse(line),
}))

const signalOf = (c: Labelled): Classifier.Signal => {
  const headers = c.headers ?? {}
  const status = c.status === null ? {} : { status: c.status }
  switch (c.where) {
    case "network":
      return { where: "network", error: c.body }
    case "http":
      return { where: "http", status: c.status ?? 0, headers, body: c.body }
    case "sse-event":
    case "finish_reason":
      return { where: c.where, headers, body: c.body, ...status }
  }
}

const judge = (c: Labelled) => {
  const { failure, rule } = Classifier.explain(signalOf(c), { provider: c.provider })
  const given = failure.retryAfter === undefined ? null : Duration.toMillis(failure.retryAfter)
  return {
    c,
    failure,
    told: `${c.id}: ${failure._tag} by ${rule}, retryable ${failure.retryable}, hint ${given}`,
    strict: failure._tag === c.tag,
    lenient: failure._tag === c.tag || failure._tag === c.alt,
    retryable: failure.retryable === c.retryable,
    hint: c.hint === null || given === null ? c.hint === given : Math.abs(c.hint - given) <= c.hint * 0.025,
  }
}

const share = <A>(items: ReadonlyArray<A>, is: (a: A) => boolean): number =>
  items.length === 0 ? 1 : items.filter(is).length / items.length

const tagsOf = (cases: ReadonlyArray<Labelled>): ReadonlyArray<string> => [...new Set(cases.map((c) => c.tag))]

const openai: Classifier.Subject = { provider: "openai", model: "gpt" }

const http = (status: number, body: string, headers: Record<string, string> = {}): Classifier.Signal => ({
  where: "http",
  status,
  headers,
  body,
})

describe("Classifier", () => {
  describe("knows the failures of the fixtures", () => {
    for (const tag of tagsOf(fixtures)) {
      it(tag, () => {
        for (const c of fixtures.filter((c) => c.tag === tag)) {
          const judged = judge(c)
          assert.isTrue(judged.strict && judged.retryable && judged.hint, judged.told)
          for (const [name, value] of Object.entries(c.fields ?? {})) {
            assert.deepStrictEqual(Reflect.get(judged.failure, name), value, `${judged.told}, ${name}`)
          }
        }
      })
    }
  })

  describe("reaches its bar on the corpus", () => {
    const file = here("../../../../shared/corpus/provider-errors.jsonl")
    const corpus = existsSync(file)
      ? lines(file).map((line): Labelled => {
          const { alt_tag: alt, expect_tag: tag, retry_after_ms: hint, ...rest } = JSON.parse(line)
          return { ...rest, alt, hint, tag }
        })
      : // Where the corpus is not beside the project, its own cases are held to the same bar.
        fixtures
    const judged = corpus.map(judge)
    const wrong = (is: (j: ReturnType<typeof judge>) => boolean): string =>
      judged
        .filter((j) => !is(j))
        .map((j) => `${j.told}, but ${j.c.tag}`)
        .join("\n")

    it("93 % of the tags, and 97 % with alternatives", () => {
      assert.isAtLeast(
        share(judged, (j) => j.strict),
        0.93,
        wrong((j) => j.strict),
      )
      assert.isAtLeast(
        share(judged, (j) => j.lenient),
        0.97,
        wrong((j) => j.lenient),
      )
    })

    it("85 % of every tag with ten or more cases", () => {
      for (const tag of tagsOf(corpus)) {
        const own = judged.filter((j) => j.c.tag === tag)
        if (own.length >= 10)
          assert.isAtLeast(
            share(own, (j) => j.strict),
            0.85,
            tag,
          )
      }
    })

    it("96 % of retryable", () => {
      assert.isAtLeast(
        share(judged, (j) => j.retryable),
        0.96,
        wrong((j) => j.retryable),
      )
    })

    it("90 % of the hints, and 1 % invented at most", () => {
      assert.isAtLeast(
        share(
          judged.filter((j) => j.c.hint !== null),
          (j) => j.hint,
        ),
        0.9,
        wrong((j) => j.hint),
      )
      assert.isAtLeast(
        share(
          judged.filter((j) => j.c.hint === null),
          (j) => j.hint,
        ),
        0.99,
        wrong((j) => j.hint),
      )
    })
  })

  describe("fills the fields of a failure", () => {
    it("keeps provider, model, status, request id and credential", () => {
      const failure = Classifier.classify(
        http(401, '{"error":{"message":"Incorrect API key provided"}}', { "X-Request-Id": "req_abc123" }),
        { ...openai, credential: "call" },
      )
      assert.deepInclude(
        { ...failure },
        { provider: "openai", model: "gpt", status: 401, requestId: "req_abc123", credential: "call" },
      )
    })

    it("does not take for a request id what may be a key", () => {
      const failure = Classifier.classify(
        http(500, "{}", { "x-request-id": "sk-live-0123456789abcdef", "request-id": "what the user wrote" }),
        openai,
      )
      assert.isUndefined(failure.requestId)
    })

    it("keeps what the provider wrote as redacted evidence, at most 2 kB", () => {
      const failure = Classifier.classify(http(500, JSON.stringify({ error: { message: "x".repeat(9000) } })), openai)
      assert.isDefined(failure.providerMessage)
      if (failure.providerMessage !== undefined)
        assert.strictEqual(Redacted.value(failure.providerMessage).length, 2048)
      assert.isDefined(failure.cause)
      assert.notInclude(inspect(failure), "xxxx")
    })

    it("gives a failure that is one of ours already back as it is", () => {
      const failure = new LlmError.Overloaded({ provider: "a" })
      assert.strictEqual(Classifier.classify({ where: "network", error: failure }, openai), failure)
    })

    it("reads the error that effect/http and fetch throw, and not only its rendering", () => {
      const below = Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" })
      const error = Object.assign(new Error("Transport error"), {
        _tag: "HttpClientError",
        reason: { _tag: "TransportError", cause: new TypeError("fetch failed", { cause: below }) },
      })
      const failure = Classifier.classify({ where: "network", error }, openai)
      assert.deepInclude({ ...failure }, { _tag: "ConnectionFailed", fault: "reset" })
    })

    it("takes the response out of an SDK's error", () => {
      const error = Object.assign(new Error("429"), {
        status: 429,
        headers: new Headers({ "retry-after": "3" }),
        error: { message: "Slow down", code: "rate_limit_exceeded" },
      })
      const failure = Classifier.classify({ where: "network", error }, openai)
      assert.strictEqual(failure._tag, "RateLimited")
      assert.deepStrictEqual(failure.retryAfter, Duration.seconds(3))
    })
  })

  describe("looks at answers", () => {
    const answers: Record<string, unknown> = {
      openai: { choices: [{ index: 0, message: { role: "assistant", content: "hi" }, finish_reason: "stop" }] },
      "openai with error: null": { error: null, choices: [{ message: { content: "error" }, finish_reason: "length" }] },
      "one good choice of two": {
        choices: [
          { message: { content: null }, finish_reason: "content_filter" },
          { message: { content: "hi" }, finish_reason: "stop" },
        ],
      },
      "a tool call": { choices: [{ message: { content: null, tool_calls: [{}] }, finish_reason: "tool_calls" }] },
      responses: { object: "response", status: "completed", error: null, output: [{ type: "message", content: [] }] },
      anthropic: { type: "message", content: [{ type: "text", text: "error" }], stop_reason: "end_turn" },
      gemini: { candidates: [{ content: { parts: [{ text: "hi" }] }, finishReason: "STOP" }] },
      "gemini cut by length": { candidates: [{ content: { role: "model" }, finishReason: "MAX_TOKENS" }] },
      bedrock: { output: { message: { content: [{ text: "hi" }] } }, stopReason: "end_turn", usage: {} },
      cohere: { id: "x", finish_reason: "COMPLETE", message: { role: "assistant", content: [] } },
      ollama: { model: "m", message: { role: "assistant", content: "hi" }, done: true, done_reason: "stop" },
      tgi: [{ generated_text: "hi" }],
      embeddings: { object: "list", data: [{ embedding: [0.1] }] },
    }
    for (const [name, body] of Object.entries(answers)) {
      it(`${name} is an answer, as text and parsed`, () => {
        assert.isUndefined(Classifier.inspectAnswer(body, openai))
        assert.isUndefined(Classifier.inspectAnswer(JSON.stringify(body), openai))
      })
    }

    it("an answer longer than what is looked at is an answer", () => {
      const body = { usage: { note: "x".repeat(100_000) }, choices: [{ message: { content: "y".repeat(200_000) } }] }
      assert.isUndefined(Classifier.inspectAnswer(JSON.stringify(body), openai))
      assert.isUndefined(Classifier.inspectAnswer(body, openai))
    })

    it("null, text and numbers are not", () => {
      for (const body of [null, undefined, 3, "", "null", "hello", "[]", "{}"]) {
        assert.strictEqual(Classifier.inspectAnswer(body, openai)?._tag, "InvalidResponse")
      }
    })
  })

  describe("knows finish reasons", () => {
    it("normal ends and unknown words are none", () => {
      for (const reason of [
        "stop",
        "length",
        "tool_calls",
        "end_turn",
        "max_tokens",
        "STOP",
        "MAX_TOKENS",
        "pause_turn",
        "tool_use",
        "COMPLETE",
        "function_call",
        "stop_sequence",
        "eos_token",
        "surprise",
        "",
      ]) {
        assert.isUndefined(Classifier.finishReason(reason, openai), reason)
      }
    })

    it("the others have their tag, and the stage that was asked for", () => {
      const tags: Record<string, string> = {
        content_filter: "ContentFiltered",
        refusal: "ContentFiltered",
        SAFETY: "ContentFiltered",
        guardrail_intervened: "ContentFiltered",
        MALFORMED_FUNCTION_CALL: "InvalidResponse",
        OTHER: "InvalidResponse",
        model_context_window_exceeded: "ContextLengthExceeded",
        insufficient_system_resource: "Overloaded",
        TIMEOUT: "TimedOut",
        error: "ProviderUnavailable",
      }
      for (const [reason, tag] of Object.entries(tags)) {
        assert.strictEqual(Classifier.finishReason(reason, openai)?._tag, tag, reason)
      }
      assert.deepInclude({ ...Classifier.finishReason("SAFETY", openai, "prompt") }, { stage: "prompt" })
    })
  })

  describe("takes rules", () => {
    const rules: ReadonlyArray<Classifier.Rule> = [
      { id: "ours/budget", when: { codes: ["DEPT_BUDGET"] }, tag: "QuotaExhausted", detail: "Ask the department." },
      { id: "ours/nightly", when: { phrases: [/\bnightly\b/], statuses: [500] }, tag: "Overloaded" },
      { id: "ours/end", when: { codes: ["out_of_ink"] }, tag: "InvalidResponse" },
    ]
    const body = '{"error":{"code":"dept-budget","message":"Rate limit"}}'

    it("in front of the built-in ones", () => {
      const classifier = Classifier.make(rules)
      assert.strictEqual(classifier.classify(http(429, body), openai)._tag, "QuotaExhausted")
      assert.strictEqual(classifier.classify(http(500, "Nightly  work"), openai)._tag, "Overloaded")
      assert.strictEqual(classifier.classify(http(503, "Nightly work"), openai)._tag, "ProviderUnavailable")
      assert.strictEqual(classifier.finishReason("out_of_ink", openai)?._tag, "InvalidResponse")
      assert.strictEqual(Classifier.classify(http(429, body), openai)._tag, "RateLimited")
    })

    it.effect("by a layer", () =>
      Effect.gen(function* () {
        const classifier = yield* Classifier.Current
        const explained = classifier.explain(http(429, body), openai)
        assert.strictEqual(explained.rule, "ours/budget (code DEPT_BUDGET)")
        assert.include(explained.failure.message, "Ask the department.")
      }).pipe(Effect.provide(Classifier.layer(rules))),
    )

    it("and names the one that held, and where the hint came from", () => {
      const explained = Classifier.explain(http(429, "{}", { "retry-after": "5" }), openai)
      assert.strictEqual(explained.rule, "status/rate (status 429)")
      assert.strictEqual(explained.hintFrom, "header retry-after")
    })

    it("each of which has a name of its own", () => {
      const ids = Classifier.builtInRules.map((rule) => `${rule.id} ${rule.when.dialects?.join() ?? ""}`)
      assert.deepStrictEqual(
        ids.filter((id, i) => ids.indexOf(id) !== i),
        [],
      )
    })
  })

  it("derives the dialect from the provider's name, unless it is told", () => {
    const names = {
      "azure-eu": "azure",
      "my-openrouter": "openrouter",
      claude: "anthropic",
      "vertex-ai": "vertex",
      xai: "xai",
      grok: "xai",
      "llama.cpp": "llamacpp",
      mine: "mine",
      "openai-2": "openai",
      "aws-bedrock": "bedrock",
    }
    for (const [name, dialect] of Object.entries(names)) assert.strictEqual(Classifier.dialectOf(name), dialect)
    const signal = http(498, "")
    assert.strictEqual(Classifier.classify(signal, { provider: "fast" })._tag, "AuthenticationFailed")
    assert.strictEqual(Classifier.classify(signal, { provider: "fast", dialect: "groq" })._tag, "Overloaded")
  })

  describe("is bounded", () => {
    const padded = (length: number): string =>
      JSON.stringify({ pad: "x".repeat(length), error: { message: "maximum context length is 10 tokens" } })

    it("hears what stands in the first 64 KiB and nothing after", () => {
      assert.strictEqual(Classifier.classify(http(400, padded(60_000)), openai)._tag, "ContextLengthExceeded")
      assert.strictEqual(Classifier.classify(http(400, padded(70_000)), openai)._tag, "InvalidRequest")
    })

    it("reads errors inside of strings to a depth of three", () => {
      const wrap = (depth: number): string =>
        depth === 0
          ? '{"code":"credits_exhausted","message":"x"}'
          : JSON.stringify({ error: { message: wrap(depth - 1) } })
      assert.strictEqual(Classifier.classify(http(400, wrap(3)), openai)._tag, "QuotaExhausted")
      assert.strictEqual(Classifier.classify(http(400, wrap(5)), openai)._tag, "InvalidRequest")
    })

    it("survives nesting, cycles, proxies and getters that throw", () => {
      const cycle: Record<string, unknown> = { message: "x" }
      cycle["cause"] = cycle
      const { proxy, revoke } = Proxy.revocable({}, {})
      revoke()
      const getter = {
        get message(): string {
          throw new Error("no")
        },
      }
      for (const error of [cycle, proxy, getter, undefined, null, 0, Symbol("x"), () => 1, [], "[".repeat(200_000)]) {
        assert.isTrue(LlmError.isLlmError(Classifier.classify({ where: "network", error }, openai)))
      }
      for (const body of [
        "[".repeat(200_000),
        '{"error":'.repeat(20_000),
        "{'a':".repeat(20_000),
        '"'.repeat(99_999),
      ]) {
        assert.isTrue(LlmError.isLlmError(Classifier.classify(http(400, body), openai)))
      }
    })
  })

  describe("for any input", () => {
    const options = { arbitrary: { runs: 300, size: 40 } } as const
    const Status = Schema.Int.check(Schema.isBetween({ minimum: -1, maximum: 700 }))
    const Words = Schema.Array(
      Schema.Union([
        Schema.String,
        Schema.Literals([
          "rate limit",
          "{",
          "}",
          '"',
          "'",
          ":",
          "error",
          "message",
          "{'",
          "try again in ",
          "5",
          "s",
          "<html>",
          "data: ",
          "\n",
          "[",
          "\\",
          "limit 1 requested 2",
          "maximum context length is 5 tokens",
        ]),
      ]),
    )

    it.prop(
      "gives a failure with a tag of its own and never throws",
      [Status, Words, Schema.Json, Schema.Record(Schema.String, Schema.String)],
      ([status, words, json, headers]) => {
        const bodies = [
          words.join(""),
          words.join(" "),
          JSON.stringify(json),
          JSON.stringify({ error: json }),
          JSON.stringify({ error: { message: words.join("") } }),
        ]
        for (const body of bodies) {
          const signals: ReadonlyArray<Classifier.Signal> = [
            { where: "http", status, headers, body },
            { where: "sse-event", body, headers, event: body },
            { where: "finish_reason", body, status },
            { where: "network", error: body },
            { where: "network", error: json },
          ]
          for (const signal of signals) {
            const { failure, rule } = Classifier.explain(signal, openai)
            assert.isTrue(LlmError.isLlmError(failure))
            assert.isNotEmpty(rule)
            assert.isString(JSON.stringify(failure))
            if (failure.retryAfter !== undefined) assert.isAbove(Duration.toMillis(failure.retryAfter), 0)
          }
          Classifier.inspectAnswer(body, openai)
          Classifier.inspectAnswer(json, openai)
          Classifier.finishReason(body, openai)
          Hint.explain({ body, headers, message: body, now: 0 })
        }
      },
      options,
    )

    it.prop(
      "keeps keys and prompts out of message and JSON",
      [Status, Schema.Literals(["code", "type", "status", "param", "request_id", "reason", "detail", "retry_after"])],
      ([status, key]) => {
        const planted = ["sk-PLANTED0123456789abcdef", "PLANTED what the user wrote PLANTED"]
        for (const secret of planted) {
          const shapes: ReadonlyArray<unknown> = [
            secret,
            { error: secret },
            { error: { message: `Rate limit reached. Try again in 5s. ${secret}`, [key]: secret } },
            { [key]: secret, message: secret, errors: [{ message: secret }] },
            { choices: [{ message: { content: secret }, finish_reason: secret }], error: { message: secret } },
            { detail: [{ msg: secret, input: secret, loc: [secret] }] },
          ]
          const headers = Object.fromEntries(
            [
              "x-request-id",
              "request-id",
              "retry-after",
              "x-ratelimit-reset",
              "x-amzn-errortype",
              "date",
              "server",
              secret,
            ].map((name) => [name, secret]),
          )
          for (const shape of shapes) {
            const body = typeof shape === "string" ? shape : JSON.stringify(shape)
            const signals: ReadonlyArray<Classifier.Signal> = [
              { where: "http", status, headers, body },
              { where: "sse-event", headers, body, event: secret },
              { where: "finish_reason", headers, body, status: 200 },
              { where: "network", error: Object.assign(new Error(body), { code: secret, cause: new Error(secret) }) },
            ]
            for (const signal of signals) {
              const { failure, hintFrom, rule } = Classifier.explain(signal, openai)
              const told = [
                failure.message,
                JSON.stringify(failure),
                inspect(failure),
                String(failure),
                rule,
                hintFrom ?? "",
              ]
              for (const text of told) assert.notInclude(text, "PLANTED")
            }
          }
        }
      },
      { arbitrary: { runs: 40 } },
    )
  })
})
