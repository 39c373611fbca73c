import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, Stream } from "effect"
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { play } from "../stub.ts"
import { stage } from "./docs.ts"
import * as Text from "./fixtures/71_ai/10_language-model.ts"
import * as Tools from "./fixtures/71_ai/20_tools.ts"
import * as Chats from "./fixtures/71_ai/30_chat.ts"

const keys = ConfigProvider.layer(ConfigProvider.fromUnknown({ OPENAI_API_KEY: "a", ANTHROPIC_API_KEY: "b" }))

const played = <A, E>(self: Effect.Effect<A, E>) => Effect.flatMap(play(self), ({ exit }) => exit)

const effect = dirname(createRequire(import.meta.url).resolve("effect/package.json"))
const here = join(import.meta.dirname, "fixtures/71_ai")

describe("The examples of the documentation of effect/ai, on compositions whose lead is overloaded", () => {
  for (const file of ["10_language-model.ts", "20_tools.ts", "30_chat.ts"]) {
    it(`${file} is unchanged but for the package of the provider`, () => {
      const original = readFileSync(join(effect, "ai-docs/src/71_ai", file), "utf8")
      const ours = readFileSync(join(here, file), "utf8").replace("// oxlint-disable\n", "")
      assert.strictEqual(ours, original.replaceAll(/"@effect\/ai-(?:openai|anthropic)"/g, '"../../docs.ts"'))
    })
  }

  it.effect("text, an object and a stream", () =>
    Effect.gen(function* () {
      const writer = yield* Text.AiWriter
      const draft = yield* writer.draftAnnouncement("Effect Cloud")
      assert.deepStrictEqual(draft, { provider: "gpt-5.2", text: "an answer to 1 messages" })
      const launch = yield* writer.extractLaunchPlan("notes")
      assert.strictEqual(launch.audience, "developers")
      const highlights = yield* Stream.mkString(writer.streamReleaseHighlights("4.1"))
      assert.strictEqual(highlights, "an answer to 1 messages")
    }).pipe(Effect.provide(Layer.provide(Text.AiWriter.layer, keys)), played),
  )

  it.effect("tools, whose handlers run once", () =>
    Effect.gen(function* () {
      const assistant = yield* Tools.ProductAssistant
      assert.deepStrictEqual(yield* assistant.answer("Which chairs?"), { text: "", toolCallCount: 2 })
    }).pipe(Effect.provide(Layer.provide(Tools.ProductAssistant.layer, keys)), played),
  )

  it.effect("a chat, and an agent with tools", () =>
    Effect.gen(function* () {
      const assistant = yield* Chats.AiAssistant
      assert.strictEqual(yield* assistant.chat("Hello"), "an answer to 2 messages")
      assert.strictEqual(yield* assistant.chat("And again"), "an answer to 4 messages")
      assert.strictEqual(yield* assistant.agent("What time is it?"), "an answer to 4 messages")
    }).pipe(Effect.provide(Layer.provide(Chats.AiAssistant.layer, keys)), played),
  )

  it("the leads were asked, and did not answer", () => {
    assert.isTrue(stage.leads.some(({ requests }) => requests.length > 0))
  })
})
