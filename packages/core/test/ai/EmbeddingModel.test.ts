import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Redacted, Stream } from "effect"
import { AiError, EmbeddingModel, Model } from "effect/ai"
import {
  AiFailure,
  Call,
  EmbeddingModelBridge,
  EmbeddingModelFace,
  EmbeddingModelLayer,
  Failover,
  type LlmError,
  Retry,
  Timeouts,
  Understudy,
} from "@understudy/core"
import { failed, failure, play } from "../stub.ts"

type Answer = EmbeddingModelFace.Answer

const embedder = <E = never>(
  name: string,
  embed: (request: EmbeddingModelFace.Request, attempt: number) => Effect.Effect<Answer, E>,
) => {
  const requests: Array<ReadonlyArray<string>> = []
  const provider = EmbeddingModelFace.make({
    name,
    model: "lengths",
    embed: (request) => Effect.suspend(() => embed(request, requests.push(request.inputs))),
  })
  return { provider, requests }
}

const lengths = ({ inputs }: EmbeddingModelFace.Request): Effect.Effect<Answer> =>
  Effect.succeed({ results: inputs.map((text) => [text.length, 1]), usage: { inputTokens: inputs.length } })

const ask = { inputs: ["a", "bb"] }

describe("Embedding models", () => {
  it.effect("have the same policies: retry, timeouts, breaker and failover", () =>
    Effect.gen(function* () {
      const hangs = embedder("hangs", () => Effect.never)
      const limited = embedder<LlmError.Overloaded>("limited", (request, attempt) =>
        attempt < 3 ? Effect.fail(failure("Overloaded", "limited")) : lengths(request),
      )
      const model = Understudy.make({
        candidates: [
          { provider: hangs.provider, timeouts: { attempt: "2 seconds" } },
          { provider: limited.provider, priority: 1 },
        ],
      })
      const { exit, timers } = yield* play(Effect.provide(model.generate(ask), Understudy.layer))
      assert.deepStrictEqual((yield* exit).results, [
        [1, 1],
        [2, 1],
      ])
      assert.deepStrictEqual([hangs.requests.length, limited.requests.length, timers], [1, 3, 0])
    }),
  )

  it.effect("the wrong number of vectors, or what is no vector, lets the next candidate try", () =>
    Effect.gen(function* () {
      const one = embedder("one", () => Effect.succeed({ results: [[1]], usage: { inputTokens: undefined } }))
      const odd = embedder("odd", ({ inputs }) =>
        Effect.succeed({ results: inputs.map(() => [Number.NaN]), usage: { inputTokens: undefined } }),
      )
      const good = embedder("good", lengths)
      const { results } = yield* Failover.make([one.provider, odd.provider, good.provider]).generate(ask)
      assert.strictEqual(results.length, 2)
      for (const { provider } of [one, odd]) {
        const found = yield* Effect.flip(provider.generate(ask))
        assert.strictEqual(found._tag === "InvalidResponse" && found.kind, "protocol")
      }
    }),
  )

  it.effect("have no stream, and say so", () =>
    Effect.gen(function* () {
      const { provider } = embedder("a", lengths)
      assert.strictEqual((yield* Effect.flip(Stream.runDrain(provider.stream(ask))))._tag, "InvalidRequest")
    }),
  )

  it.effect("a provider is an EmbeddingModel of effect/ai", () =>
    Effect.gen(function* () {
      const { provider, requests } = embedder("a", lengths)
      yield* Effect.gen(function* () {
        const model = yield* EmbeddingModel.EmbeddingModel
        const [one, two] = yield* Effect.all([model.embed("a"), model.embed("bb")], { concurrency: "unbounded" })
        assert.deepStrictEqual(
          [one.vector, two.vector],
          [
            [1, 1],
            [2, 1],
          ],
        )
        const many = yield* model.embedMany(["ccc"])
        assert.strictEqual(many.usage.inputTokens, 1)
        assert.deepStrictEqual([yield* Model.ProviderName, yield* Model.ModelName], ["a", "lengths"])
      }).pipe(Effect.provide(EmbeddingModelLayer.layer(provider)))
      // Those that are asked together are one request.
      assert.deepStrictEqual(requests, [["a", "bb"], ["ccc"]])
    }),
  )

  it.effect("two credentials are never in one request", () =>
    Effect.gen(function* () {
      const { provider, requests } = embedder("a", lengths)
      yield* Effect.gen(function* () {
        const model = yield* EmbeddingModel.EmbeddingModel
        const as = (key: string) => Call.withCredential("a", Redacted.make(key))
        yield* Effect.all([as("one")(model.embed("a")), as("two")(model.embed("bb"))], { concurrency: "unbounded" })
      }).pipe(Effect.provide(EmbeddingModelLayer.layer(provider)))
      assert.deepStrictEqual(requests, [["a"], ["bb"]])
    }),
  )

  it.effect("the failure itself is inside the AiError", () =>
    Effect.gen(function* () {
      const original = failure("QuotaExhausted")
      const { provider } = embedder("a", () => Effect.fail(original))
      yield* Effect.gen(function* () {
        const model = yield* EmbeddingModel.EmbeddingModel
        const one = yield* Effect.flip(model.embed("a"))
        assert.strictEqual(one.reason._tag, "QuotaExhaustedError")
        assert.strictEqual(AiFailure.fromAiError(one), original)
        assert.strictEqual(AiFailure.fromAiError(yield* Effect.flip(model.embedMany(["a"]))), original)
      }).pipe(Effect.provide(EmbeddingModelLayer.layer(provider)))
    }),
  )

  it.effect("an EmbeddingModel of effect/ai is a candidate", () =>
    Effect.gen(function* () {
      let attempts = 0
      const service = yield* EmbeddingModel.make({
        embedMany: (request) =>
          ++attempts === 1
            ? Effect.fail(
                AiError.make({
                  module: "Theirs",
                  method: "embedMany",
                  reason: new AiError.InternalProviderError({ description: "oops" }),
                }),
              )
            : lengths(request),
      })
      const theirs = EmbeddingModelBridge.fromEmbeddingModel(service, { name: "theirs", model: "lengths" })
      const { exit } = yield* play(theirs.pipe(Retry.with()).generate(ask))
      assert.deepStrictEqual((yield* exit).usage, { inputTokens: 2 })

      const layer = Model.make("openai", "small", Layer.succeed(EmbeddingModel.EmbeddingModel)(service))
      const built = yield* EmbeddingModelBridge.fromLayer(layer)
      assert.deepStrictEqual([built.name, built.model], ["openai", "small"])
    }),
  )

  it.effect("one that hangs is timed out", () =>
    Effect.gen(function* () {
      const { provider } = embedder("a", () => Effect.never)
      const { exit, millis } = yield* play(provider.pipe(Timeouts.with({ attempt: "1 second" })).generate(ask))
      assert.strictEqual(failed(exit)._tag, "TimedOut")
      assert.strictEqual(millis, 1000)
      assert.isTrue(Exit.isFailure(exit))
    }),
  )
})
