import { assert, describe, it } from "@effect/vitest"
import { LanguageModelFace, type LlmError, Understudy } from "@understudy/core"
import { OpenAiDialect, ProviderConfig } from "@understudy/providers"
import { ConfigProvider, Effect, Schema } from "effect"
import type { HttpClient } from "effect/http"
import { shown, transport } from "./support.ts"

const environment = (env: Record<string, string>) =>
  Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnvRecord(env))

const read = (config: unknown) => ProviderConfig.fromJson(JSON.stringify(config), "understudy.json")

const problemsOf = (config: unknown) =>
  Effect.flip(read(config)).pipe(
    Effect.map(({ problems }) => problems.map(({ message, path }) => `${path}: ${message}`)),
  )

const keys = { OPENAI_API_KEY: "sk-openai", ANTHROPIC_API_KEY: "sk-ant", TOGETHER_API_KEY: "tg", MY_KEY: "sk-mine" }

describe("a configuration file", () => {
  const file = {
    $schema: "./understudy.schema.json",
    candidates: [
      { provider: "openai", model: "gpt-5.6-terra", retry: { times: 1 }, parameters: { maxTokens: 5 } },
      { provider: "openai", model: "gpt-4.1", apiKeyEnv: "MY_KEY", headers: { "x-team": "a" } },
      { name: "claude", provider: "anthropic", model: "claude-sonnet-5-5", priority: 1, contextWindow: 200_000 },
      { provider: "ollama", model: "qwen3", enabled: false, timeouts: { attempt: "60 seconds" }, breaker: false },
      { name: "ours", provider: "openai-compatible", model: "m", baseUrl: "https://llm.example.com/v1" },
    ],
    deadline: { generate: "20 seconds" },
    patience: "1 second",
  }

  it.effect("becomes candidates for Understudy.make, with keys from the environment", () =>
    Effect.gen(function* () {
      const options = yield* read(file).pipe(Effect.flatMap(ProviderConfig.resolve))
      assert.deepStrictEqual(
        options.candidates.map(({ provider, ...rest }) => [provider.name, provider.model, rest]),
        [
          ["openai", "gpt-5.6-terra", { retry: { times: 1 } }],
          ["openai/gpt-4.1", "gpt-4.1", {}],
          ["claude", "claude-sonnet-5-5", { priority: 1, contextWindow: 200_000 }],
          ["ollama", "qwen3", { enabled: false, timeouts: { attempt: "60 seconds" }, breaker: false }],
          ["ours", "m", {}],
        ],
      )
      assert.deepStrictEqual([options.deadline, options.patience], [{ generate: "20 seconds" }, "1 second"])
      const { asked, layer } = transport("")
      for (const { provider } of options.candidates) {
        yield* Effect.exit(provider.generate(LanguageModelFace.request("Hi"))).pipe(Effect.provide(layer))
      }
      assert.deepStrictEqual(
        asked.map(({ headers, url }) => [url, headers["authorization"] ?? headers["x-api-key"], headers["x-team"]]),
        [
          ["https://api.openai.com/v1/chat/completions", "Bearer sk-openai", undefined],
          ["https://api.openai.com/v1/chat/completions", "Bearer sk-mine", "a"],
          ["https://api.anthropic.com/v1/messages", "sk-ant", undefined],
          ["http://127.0.0.1:11434/v1/chat/completions", undefined, undefined],
          ["https://llm.example.com/v1/chat/completions", undefined, undefined],
        ],
      )
      assert.strictEqual(asked[0]?.body["max_completion_tokens"], 5)
      const model = Understudy.make(options)
      const run: Effect.Effect<LanguageModelFace.Answer, LlmError.LlmError, HttpClient.HttpClient> = model
        .generate(LanguageModelFace.request("Hi"))
        .pipe(Effect.provide(Understudy.layer))
      assert.isTrue(Effect.isEffect(run))
    }).pipe(environment(keys)),
  )

  it.effect("that is wrong is told with every place and what was expected there", () =>
    Effect.gen(function* () {
      const problems = yield* problemsOf({
        candidates: [
          { provider: "opnai", model: "m" },
          { provider: "openai" },
          {
            provider: "openai",
            model: "m",
            baseUrl: "llm.example.com",
            apikey: "sk-in-the-file",
            retry: { times: -1 },
          },
          { provider: "vllm", model: "m", headers: { "x y": "sk-in-the-file" }, parameters: { temperature: "hot" } },
        ],
        deadlin: {},
      })
      const at = (path: string) => problems.filter((problem) => problem.startsWith(`${path}: `)).join()
      for (const name of ProviderConfig.knownProviders) assert.include(at("candidates[0].provider"), name)
      assert.match(at("candidates[1].model"), /missing/i)
      assert.match(at("candidates[2].baseUrl"), /an http or https address/)
      assert.notStrictEqual(at("candidates[2].apikey"), "")
      assert.match(problems.join(), /candidates\[2\]\.retry/)
      assert.match(at("candidates[3].headers"), /headers/)
      assert.match(at("candidates[3].parameters.temperature"), /number/i)
      assert.notStrictEqual(at("deadlin"), "")
      assert.notInclude(problems.join(), "sk-in-the-file")
      assert.match((yield* problemsOf({ candidates: [] })).join(), /candidates/)
      const error = yield* Effect.flip(read({ candidates: [{ provider: "x", model: "m" }] }))
      assert.match(
        error.message,
        /^The configuration in understudy\.json is not valid:\n {2}candidates\[0\]\.provider: /,
      )
    }),
  )

  it.effect("that is not JSON is told with its line, and never quoted", () =>
    Effect.gen(function* () {
      for (const text of ['{\n  "a": sk-secret\n}', '{"candidates": [', "", '{"a": "sk-secret']) {
        const error = yield* Effect.flip(ProviderConfig.fromJson(text, "conf.json"))
        assert.match(error.message, /conf\.json[^]*Expected JSON/)
        assert.notInclude(shown(error), "sk-secret")
      }
      const error = yield* Effect.flip(ProviderConfig.fromJson('{\n  "a": 1,\n  "b" 2\n}', "conf.json"))
      assert.match(error.message, /line 3/)
      assert.isObject(yield* ProviderConfig.fromJson(`\uFEFF${JSON.stringify(file)}`))
    }),
  )

  it.effect("whose key is missing or empty names the variable, unless the candidate is disabled", () =>
    Effect.gen(function* () {
      const one = (candidate: object) =>
        read({ candidates: [{ model: "m", ...candidate }] }).pipe(Effect.flatMap(ProviderConfig.resolve))
      for (const [candidate, variable] of [
        [{ provider: "groq" }, "GROQ_API_KEY"],
        [{ provider: "anthropic" }, "ANTHROPIC_API_KEY"],
        [{ provider: "ollama", apiKeyEnv: "OLLAMA_KEY" }, "OLLAMA_KEY"],
        [{ provider: "openai" }, "OPENAI_API_KEY"],
      ] as const) {
        const error = yield* Effect.flip(one(candidate))
        assert.strictEqual(error._tag, "MissingApiKey")
        assert.include(error.message, variable)
      }
      yield* one({ provider: "groq", enabled: false })
    }).pipe(environment({ OPENAI_API_KEY: " " })),
  )

  it.effect("with a name that is there twice, or without the base URL that is needed, is told so", () =>
    Effect.gen(function* () {
      const errors = (config: unknown) =>
        Effect.flip(read(config).pipe(Effect.flatMap((config) => ProviderConfig.resolve(config, "my.json"))))
      const ollama = { provider: "ollama", model: "m" }
      const twice = yield* errors({
        candidates: [
          { ...ollama, name: "a" },
          { ...ollama, name: "a" },
        ],
      })
      assert.match(twice.message, /my\.json[^]*candidates\[1\]\.name: .*"a" is taken/)
      const azure = yield* errors({ candidates: [{ provider: "azure", model: "m" }] })
      assert.match(azure.message, /candidates\[0\]\.baseUrl: .*"azure"/)
    }),
  )

  it("has a JSON schema", () => {
    const schema = ProviderConfig.jsonSchema()
    assert.deepStrictEqual(schema["required"], ["candidates"])
    assert.include(JSON.stringify(schema), '"openai-compatible"')
    assert.include(JSON.stringify(schema), '"apiKeyEnv"')
  })

  it("can name every dialect, and the errors survive JSON", () => {
    assert.sameMembers([...ProviderConfig.knownProviders], ["anthropic", ...Object.keys(OpenAiDialect.known)])
    const error = new ProviderConfig.MissingApiKey({ provider: "p", variable: "V" })
    const codec = Schema.toCodecJson(ProviderConfig.MissingApiKey)
    assert.deepStrictEqual(Schema.decodeUnknownSync(codec)(Schema.encodeUnknownSync(codec)(error)), error)
  })
})

describe("the environment", () => {
  const models = (env: Record<string, string>) =>
    ProviderConfig.fromEnvironment.pipe(
      Effect.map(({ candidates }) => candidates.map(({ provider }) => [provider.name, provider.model])),
      environment(env),
    )

  it.effect("gives a candidate for each key, with models that can be named", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* models(keys),
        ProviderConfig.environment.map(({ model, provider }) => [provider, model]),
      )
      assert.deepStrictEqual(yield* models({ TOGETHER_API_KEY: "k", TOGETHER_MODEL: "other" }), [["together", "other"]])
      assert.deepStrictEqual(yield* models({ OPENAI_API_KEY: "", ANTHROPIC_API_KEY: "k", ANTHROPIC_MODEL: "" }), [
        ["anthropic", "claude-sonnet-5-5"],
      ])
    }),
  )

  it.effect("may name other addresses", () =>
    Effect.gen(function* () {
      const { asked, layer } = transport("")
      const { candidates } = yield* ProviderConfig.fromEnvironment.pipe(
        environment({ OPENAI_API_KEY: "k", OPENAI_BASE_URL: "http://127.0.0.1:1/v1" }),
      )
      yield* Effect.exit(candidates[0].provider.generate(LanguageModelFace.request("Hi"))).pipe(Effect.provide(layer))
      assert.strictEqual(asked[0]?.url, "http://127.0.0.1:1/v1/chat/completions")
      const error = yield* Effect.flip(models({ OPENAI_API_KEY: "k", OPENAI_BASE_URL: "nonsense" }))
      assert.match(error.message, /OPENAI_BASE_URL/)
    }),
  )

  it.effect("without any key is told with the names of all", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(models({}))
      assert.strictEqual(error._tag, "NothingConfigured")
      for (const { apiKeyEnv } of ProviderConfig.environment) assert.include(error.message, apiKeyEnv)
    }),
  )
})
