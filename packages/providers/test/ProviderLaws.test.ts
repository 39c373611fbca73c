import { createAnthropic } from "@ai-sdk/anthropic"
import { createOpenAICompatible } from "@ai-sdk/openai-compatible"
import { NodeHttpClient } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { AiSdkModel, AnthropicMessages, OpenAiChat } from "@understudy/providers"
import { ProviderLaws, type Upstream } from "@understudy/testkit"
import { Effect, Redacted } from "effect"
import type { HttpClient } from "effect/http"

const openaiSdk = (upstream: Upstream.Running, apiKey: string) =>
  createOpenAICompatible({
    name: "upstream",
    baseURL: upstream.openaiUrl,
    apiKey,
    includeUsage: true,
    supportsStructuredOutputs: true,
  })("m")

const anthropicSdk = (upstream: Upstream.Running, apiKey: string) =>
  createAnthropic({ baseURL: `${upstream.anthropicUrl}/v1`, apiKey })("claude-sonnet-4-5")

const targets: Record<string, ProviderLaws.Target<HttpClient.HttpClient>> = {
  OpenAiChat: {
    dialect: "openai",
    make: (upstream, options) =>
      OpenAiChat.make({ name: "primary", model: "m", baseUrl: upstream.openaiUrl, ...options }),
  },
  AnthropicMessages: {
    dialect: "anthropic",
    make: (upstream, options) =>
      AnthropicMessages.make({ name: "primary", model: "m", baseUrl: upstream.anthropicUrl, ...options }),
  },
  "AiSdkModel of @ai-sdk/openai-compatible": {
    dialect: "openai",
    make: (upstream, { apiKey, ...options }) =>
      AiSdkModel.make({
        model: openaiSdk(upstream, Redacted.value(apiKey)),
        withCredential: (key) => openaiSdk(upstream, Redacted.value(key)),
        ...options,
      }),
  },
  "AiSdkModel of @ai-sdk/anthropic": {
    dialect: "anthropic",
    make: (upstream, { apiKey, ...options }) =>
      AiSdkModel.make({
        model: anthropicSdk(upstream, Redacted.value(apiKey)),
        withCredential: (key) => anthropicSdk(upstream, Redacted.value(key)),
        ...options,
      }),
    skips: {
      extraParameters: "its provider options are a closed list in the SDK's own words, not fields of the body",
      missingUsage: "the SDK's schema of an answer requires usage",
    },
  },
}

for (const [name, target] of Object.entries(targets)) {
  describe(`${name} keeps the law`, () => {
    for (const { check, skipped, title } of ProviderLaws.laws(target)) {
      if (skipped === undefined) {
        it.effect(`that ${title}`, () => check.pipe(Effect.provide(NodeHttpClient.layerUndici)))
      } else {
        it.effect(`that ${title}: not asked for, since ${skipped}`, () =>
          Effect.gen(function* () {
            const broken = yield* Effect.flip(check).pipe(Effect.provide(NodeHttpClient.layerUndici))
            assert.strictEqual(broken._tag, "LawBroken")
          }),
        )
      }
    }
  })
}
