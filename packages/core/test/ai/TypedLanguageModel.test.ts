import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema, Stream } from "effect"
import { AiError, LanguageModel, Tool, Toolkit } from "effect/ai"
import { AiFailure, Failover, LanguageModelLayer, LlmError, TypedLanguageModel } from "@understudy/core"
import { failure } from "../stub.ts"
import { actor, call, calls, finish, says, spoken, text } from "./actor.ts"

class Model extends TypedLanguageModel.Service<Model, LlmError.ProviderFailure>()("test/Model") {}

const Person = Schema.Struct({ name: Schema.String })
class Refused extends Schema.TaggedError<Refused>()("Refused", {}) {}
const Pay = Tool.make("Pay", {
  parameters: Schema.Struct({ euros: Schema.Finite }),
  success: Schema.String,
  failure: Refused,
})
const shop = Toolkit.make(Pay)
const paid = shop.toLayer({
  Pay: ({ euros }) => (euros < 0 ? Effect.fail(new Refused()) : Effect.succeed(`paid ${euros}`)),
})

describe("TypedLanguageModel", () => {
  it.effect("a program asks for it by its type, and a layer decides which provider it is", () =>
    Effect.gen(function* () {
      const program = Effect.gen(function* () {
        const model = yield* Model
        const { text } = yield* model.generateText({ prompt: "Who?" })
        const { value } = yield* model.generateObject({ prompt: "Who?", schema: Person })
        const parts = yield* Stream.runCollect(model.streamText({ prompt: "Who?" }))
        return [text, value.name, spoken(parts)]
      })
      const herbert = '{"name":"Frank Herbert"}'
      const asimov = '{"name":"Isaac Asimov"}'
      const one = yield* Effect.provide(program, Model.layer(actor("a", () => says(herbert)).provider))
      assert.deepStrictEqual(one, [herbert, "Frank Herbert", herbert])
      const two = yield* Effect.provide(program, Model.layer(actor("b", () => says(asimov)).provider))
      assert.deepStrictEqual(two, [asimov, "Isaac Asimov", asimov])
    }),
  )

  it.effect("a failure arrives as the very instance, from every method", () =>
    Effect.gen(function* () {
      const original = failure("Overloaded")
      const model = yield* TypedLanguageModel.make(actor("a", () => Effect.fail(original)).provider)
      assert.strictEqual(yield* Effect.flip(model.generateText({ prompt: "Who?" })), original)
      assert.strictEqual(yield* Effect.flip(model.generateObject({ prompt: "Who?", schema: Person })), original)
      assert.strictEqual(yield* Effect.flip(Stream.runDrain(model.streamText({ prompt: "Who?" }))), original)
      const asked = yield* model.generateText({ prompt: "Who?", toolkit: shop }).pipe(Effect.flip, Effect.provide(paid))
      assert.strictEqual(asked, original)
      const retried = yield* model.generateText({ prompt: "Who?" }).pipe(Effect.retry({ times: 2 }), Effect.flip)
      assert.strictEqual(retried, original)
      const caught = yield* model
        .generateText({ prompt: "Who?" })
        .pipe(Effect.catchTag("Overloaded", (found) => Effect.succeed(found)))
      assert.strictEqual(caught, original)
    }),
  )

  it.effect("a failover that everyone left names all who tried", () =>
    Effect.gen(function* () {
      const model = yield* TypedLanguageModel.make(
        Failover.make([
          actor("a", () => Effect.fail(failure("Overloaded", "a"))).provider,
          actor("b", () => Effect.fail(failure("RateLimited", "b"))).provider,
        ]),
      )
      const found = yield* Effect.flip(model.generateText({ prompt: "Who?" }))
      assert.deepStrictEqual(
        found._tag === "AllProvidersFailed" ? found.failures.map(({ _tag }) => _tag) : found._tag,
        ["Overloaded", "RateLimited"],
      )
    }),
  )

  it.effect("what effect/ai raises around it arrives as one of three", () =>
    Effect.gen(function* () {
      const answer = (part: ReturnType<typeof call>) => TypedLanguageModel.make(actor("a", () => calls(part)).provider)
      const nobody = yield* answer(call("Steal", {}))
      const unknownTool = yield* Effect.flip(nobody.generateText({ prompt: "Buy", toolkit: shop }))
      assert.strictEqual(unknownTool._tag === "InvalidResponse" ? unknownTool.kind : unknownTool._tag, "content")
      const badly = yield* answer(call("Pay", { euros: "many" }))
      assert.strictEqual(
        (yield* Effect.flip(badly.generateText({ prompt: "Buy", toolkit: shop })))._tag,
        "InvalidResponse",
      )
      const unfit = yield* TypedLanguageModel.make(actor("a", () => says("no JSON")).provider)
      const noObject = yield* Effect.flip(unfit.generateObject({ prompt: "Who?", schema: Person }))
      assert.strictEqual(noObject._tag, "InvalidResponse")
      assert.strictEqual(noObject.provider, "a")
    }).pipe(Effect.provide(paid)),
  )

  it.effect("a tool's own failure stays what it is", () =>
    Effect.gen(function* () {
      const model = yield* TypedLanguageModel.make(actor("a", () => calls(call("Pay", { euros: -1 }))).provider)
      assert.instanceOf(yield* Effect.flip(model.generateText({ prompt: "Buy", toolkit: shop })), Refused)
      assert.instanceOf(
        yield* Effect.flip(Stream.runDrain(model.streamText({ prompt: "Buy", toolkit: shop }))),
        Refused,
      )
    }).pipe(Effect.provide(paid)),
  )

  it.effect("a failure of another model, in a tool's handler, is not taken for one of this provider", () =>
    Effect.gen(function* () {
      const Ask = Tool.make("Ask", { parameters: Schema.Struct({}), success: Schema.String })
      const toolkit = Toolkit.make(Ask)
      const deep = failure("RateLimited", "another")
      const handlers = toolkit.toLayer({
        Ask: () => Effect.fail(AiFailure.toAiError(deep)),
      })
      const model = yield* TypedLanguageModel.make(actor("a", () => calls(call("Ask", {}))).provider)
      const found = yield* model.generateText({ prompt: "Ask", toolkit }).pipe(Effect.flip, Effect.provide(handlers))
      assert.strictEqual(found._tag, "UnknownFailure")
      assert.isDefined(found.cause)
    }),
  )

  it.effect("after the first content the only failure is StreamInterrupted, with the original in it", () =>
    Effect.gen(function* () {
      const { provider } = actor("a", () => Effect.succeed([text("half"), finish("error")]))
      const model = yield* TypedLanguageModel.make(provider)
      const found = yield* Effect.flip(Stream.runDrain(model.streamText({ prompt: "Who?" })))
      assert.strictEqual(found._tag === "StreamInterrupted" ? found.failure?._tag : found._tag, "ProviderUnavailable")
    }),
  )

  it.effect("both ways out live side by side", () =>
    Effect.gen(function* () {
      const { provider } = actor("a", () => Effect.fail(failure("Overloaded")))
      const both = Layer.merge(LanguageModelLayer.layer(provider), Model.layer(provider))
      yield* Effect.gen(function* () {
        assert.isTrue(AiError.isAiError(yield* Effect.flip(LanguageModel.generateText({ prompt: "Who?" }))))
        assert.isTrue(LlmError.isLlmError(yield* Effect.flip((yield* Model).generateText({ prompt: "Who?" }))))
      }).pipe(Effect.provide(both))
    }),
  )
})
