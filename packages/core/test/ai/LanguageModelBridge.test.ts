import { assert, describe, it } from "@effect/vitest"
import { Cause, DateTime, Duration, Effect, Exit, Layer, Schema, Stream } from "effect"
import {
  AiError,
  Chat,
  type IdGenerator,
  LanguageModel,
  Model,
  OpenAiStructuredOutput,
  type Response,
  ResponseIdTracker,
  Telemetry,
  Tool,
  Toolkit,
} from "effect/ai"
import {
  Failover,
  LanguageModelBridge,
  LanguageModelFace,
  LanguageModelLayer,
  type LlmError,
  Retry,
  Understudy,
} from "@understudy/core"
import { failure, play, question } from "../stub.ts"
import { actor, call, finish, says, spoken, text } from "./actor.ts"

type Hooks = Parameters<typeof LanguageModel.make>[0]
type Whole = Effect.Effect<Array<Response.PartEncoded>, AiError.AiError, IdGenerator.IdGenerator>

/** A model of `effect/ai`, as a provider package makes one. */
const service = (
  generateText: (options: LanguageModel.ProviderOptions) => Whole,
  more: Partial<Omit<Hooks, "generateText">> = {},
) => LanguageModel.make({ generateText, streamText: () => Stream.empty, ...more })

const bridged = (generateText: (options: LanguageModel.ProviderOptions) => Whole, more?: Partial<Hooks>) =>
  Effect.map(service(generateText, more), (model) =>
    LanguageModelBridge.fromLanguageModel(model, { name: "theirs", model: "theirs-1" }),
  )

const raised = (reason: AiError.AiErrorReason) => AiError.make({ module: "Theirs", method: "ask", reason })

const Pay = Tool.make("Pay", {
  parameters: Schema.Struct({ euros: Schema.FiniteFromString }),
  success: Schema.String,
})
const shop = Toolkit.make(Pay)

const everyPart: Array<Response.PartEncoded> = [
  {
    type: "response-metadata",
    id: "r",
    modelId: "m",
    timestamp: "2026-01-02T03:04:05.000Z",
    metadata: { theirs: { a: 1 } },
  },
  { type: "reasoning", text: "Hm.", metadata: { theirs: { signature: "s" } } },
  { type: "text", text: "Hello", metadata: {} },
  { type: "file", mediaType: "image/png", data: "AAEC", metadata: {} },
  { type: "source", sourceType: "url", id: "u", url: "https://example.com/", title: "T", metadata: {} },
  { type: "source", sourceType: "document", id: "d", mediaType: "text/plain", title: "D", metadata: {} },
  { type: "tool-call", id: "c", name: "Pay", params: { euros: "7" }, providerExecuted: false, metadata: {} },
  { type: "tool-call", id: "n", name: "Nobody", params: { x: [1] }, providerExecuted: false, metadata: {} },
  {
    type: "finish",
    reason: "tool-calls",
    usage: { inputTokens: { total: 1, uncached: 1 }, outputTokens: { total: 2 } },
    response: { status: 200, headers: { a: "b" } },
    metadata: {},
  },
]

describe("LanguageModelBridge", () => {
  it.effect("gives the parts as the model's own hook gave them, but for the mark", () =>
    Effect.gen(function* () {
      const provider = yield* bridged(() => Effect.succeed(everyPart))
      const answer = yield* provider.generate({ ...question, tools: [Pay], toolChoice: "auto" })
      const unmarked = answer.map((part) => {
        const { understudy, ...metadata } = part.metadata ?? {}
        assert.deepStrictEqual(understudy, { provider: "theirs", model: "theirs-1" })
        return { ...part, metadata }
      })
      assert.deepStrictEqual<unknown>(unmarked, everyPart)
    }),
  )

  it.effect("gives the parts of a stream as the model's own hook gave them", () =>
    Effect.gen(function* () {
      const parts: ReadonlyArray<Response.StreamPartEncoded> = [
        { type: "text-start", id: "0", metadata: {} },
        { type: "text-delta", id: "0", delta: "Hi", metadata: {} },
        { type: "text-end", id: "0", metadata: {} },
        { type: "tool-params-start", id: "c", name: "Pay", providerExecuted: false, metadata: {} },
        { type: "tool-params-delta", id: "c", delta: "{}", metadata: {} },
        { type: "tool-params-end", id: "c", metadata: {} },
        { type: "tool-call", id: "c", name: "Pay", params: { euros: "7" }, providerExecuted: false, metadata: {} },
        { type: "finish", reason: "tool-calls", usage: { inputTokens: {}, outputTokens: {} }, metadata: {} },
      ]
      const provider = yield* bridged(() => Effect.succeed([]), { streamText: () => Stream.fromIterable(parts) })
      const heard = yield* Stream.runCollect(provider.stream({ ...question, tools: [Pay], toolChoice: "auto" }))
      assert.deepStrictEqual<unknown>(
        heard
          .filter((part) => part.type !== "response-metadata")
          .map((part) => {
            const { understudy: _, ...metadata } = part.metadata ?? {}
            return { ...part, metadata }
          }),
        parts,
      )
    }),
  )

  it.effect("the handlers of tools run above the composition, with decoded parameters, once", () =>
    Effect.gen(function* () {
      let runs = 0
      const theirs = yield* bridged(({ prompt }) =>
        Effect.succeed(
          prompt.content.length === 1 ? [call("Pay", { euros: "7" }), finish("tool-calls")] : [text("bye"), finish()],
        ),
      )
      const lead = actor("lead", () => Effect.fail(failure("Overloaded")))
      const chat = yield* Chat.empty
      yield* Effect.gen(function* () {
        const { toolResults } = yield* chat.generateText({ prompt: "Buy", toolkit: shop })
        assert.deepStrictEqual(
          toolResults.map(({ result }) => result),
          ["paid 7"],
        )
        const { text } = yield* chat.generateText({ prompt: [], toolkit: shop })
        assert.strictEqual(text, "bye")
      }).pipe(
        Effect.provide(LanguageModelLayer.layer(Failover.make([lead.provider, theirs]))),
        Effect.provide(shop.toLayer({ Pay: ({ euros }) => Effect.sync(() => `paid ${(runs++, euros)}`) })),
      )
      assert.strictEqual(runs, 1)
    }),
  )

  describe("objects", () => {
    const Notes = Schema.Struct({
      tags: Schema.Record(Schema.String, Schema.Finite),
      note: Schema.optional(Schema.String),
      at: Schema.DateTimeUtcFromString,
    })

    it.effect("come back as plain JSON, whatever form the model asked for", () =>
      Effect.gen(function* () {
        // Strict modes have no records: the transformer makes pairs of them, and null of what is missing.
        const wire = { tags: [{ "0": "a", "1": 1 }], note: null, at: "2026-01-02T03:04:05.000Z" }
        const theirs = yield* bridged(() => Effect.succeed([text(JSON.stringify(wire)), finish()]), {
          codecTransformer: OpenAiStructuredOutput.toCodecOpenAI,
        })
        const answer = yield* theirs.generate(
          LanguageModelFace.request("Note", {
            responseFormat: { type: "json", objectName: "notes", schema: Notes },
          }),
        )
        assert.deepStrictEqual(JSON.parse(spoken(answer)), { tags: { a: 1 }, at: "2026-01-02T03:04:05.000Z" })
        const { value } = yield* LanguageModel.generateObject({ prompt: "Note", schema: Notes }).pipe(
          Effect.provide(LanguageModelLayer.layer(theirs)),
        )
        assert.deepStrictEqual(value.tags, { a: 1 })
        assert.strictEqual(DateTime.toEpochMillis(value.at), Date.UTC(2026, 0, 2, 3, 4, 5))
      }),
    )

    it.effect("are asked for by a schema that still says what its fields mean", () =>
      Effect.gen(function* () {
        class Person extends Schema.Class<Person>("Person")({
          name: Schema.String.annotate({ description: "full name" }),
          age: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 150 })),
          born: Schema.DateTimeUtcFromString,
        }) {}
        let seen: unknown
        const theirs = yield* bridged(({ responseFormat }) => {
          if (responseFormat.type === "json") {
            seen = [responseFormat.objectName, LanguageModel.defaultCodecTransformer(responseFormat.schema).jsonSchema]
          }
          return Effect.succeed([text('{"name":"F","age":1,"born":"2026-01-02T03:04:05.000Z"}'), finish()])
        })
        const { value } = yield* LanguageModel.generateObject({ prompt: "Who?", schema: Person }).pipe(
          Effect.provide(LanguageModelLayer.layer(theirs)),
        )
        assert.instanceOf(value, Person)
        const { $defs: _, ...direct } = LanguageModel.defaultCodecTransformer(Person).jsonSchema
        assert.deepStrictEqual(seen, ["Person", direct])
      }),
    )

    it.effect("that do not fit let the next candidate try", () =>
      Effect.gen(function* () {
        const theirs = yield* bridged(() => Effect.succeed([text('{"nme":1}'), finish()]))
        const ours = actor("ours", () => says('{"name":"Frank"}'))
        const { value } = yield* LanguageModel.generateObject({
          prompt: "Who?",
          schema: Schema.Struct({ name: Schema.String }),
        }).pipe(Effect.provide(LanguageModelLayer.layer(Failover.make([theirs, ours.provider]))))
        assert.strictEqual(value.name, "Frank")
      }),
    )

    it.effect("come whole where a stream is asked for", () =>
      Effect.gen(function* () {
        const theirs = yield* bridged(() => Effect.succeed([text('{"name":"F"}'), finish()]))
        const parts = yield* Stream.runCollect(
          theirs.stream(
            LanguageModelFace.request("Who?", {
              responseFormat: { type: "json", objectName: "o", schema: Schema.Struct({ name: Schema.String }) },
            }),
          ),
        )
        assert.strictEqual(spoken(parts), '{"name":"F"}')
      }),
    )
  })

  describe("failures", () => {
    it.effect("are read by their reason, with the hint, and name the candidate", () =>
      Effect.gen(function* () {
        const theirs = yield* bridged(() =>
          Effect.fail(raised(new AiError.RateLimitError({ retryAfter: Duration.seconds(3) }))),
        )
        const found = yield* Effect.flip(theirs.generate(question))
        assert.strictEqual(found._tag, "RateLimited")
        assert.strictEqual(found.provider, "theirs")
        assert.strictEqual(found.model, "theirs-1")
        assert.deepStrictEqual(found.retryAfter, Duration.seconds(3))
      }),
    )

    it.effect("of a stream are the same", () =>
      Effect.gen(function* () {
        const theirs = yield* bridged(() => Effect.succeed([]), {
          streamText: () => Stream.fail(raised(new AiError.InternalProviderError({ description: "oops" }))),
        })
        assert.strictEqual((yield* Effect.flip(Stream.runDrain(theirs.stream(question))))._tag, "ProviderUnavailable")
      }),
    )

    it.effect("of ours, from an Understudy inside, come back as the very instance", () =>
      Effect.gen(function* () {
        const original = failure("ContentFiltered")
        const inside = yield* LanguageModelLayer.make(actor("a", () => Effect.fail(original)).provider)
        const theirs = LanguageModelBridge.fromLanguageModel(inside, { name: "theirs", model: "m" })
        assert.strictEqual(yield* Effect.flip(theirs.generate(question)), original)
      }),
    )

    it.effect("of policies inside are those of one provider outside", () =>
      Effect.gen(function* () {
        const seen = (original: LlmError.LlmError) =>
          Effect.flatMap(LanguageModelLayer.make(actor("a", () => Effect.fail(original)).provider), (inside) =>
            Effect.map(
              Effect.flip(LanguageModelBridge.fromLanguageModel(inside, { name: "t", model: "m" }).generate(question)),
              (found) => [found._tag, found.retryAfter, found.retryable, found.cause !== undefined],
            ),
          )
        const retryAfter = Duration.seconds(2)
        assert.deepStrictEqual(yield* seen(failure("AllProvidersFailed", "a", { retryAfter, retryable: true })), [
          "ProviderUnavailable",
          retryAfter,
          true,
          true,
        ])
        assert.strictEqual((yield* seen(failure("CircuitOpen")))[0], "ProviderUnavailable")
        assert.strictEqual((yield* seen(failure("CapacityExceeded")))[0], "Overloaded")
        assert.strictEqual((yield* seen(failure("DeadlineExceeded")))[0], "TimedOut")
      }),
    )

    it.effect("that are no AiError, of a promise that rejects, are failures, and defects are defects", () =>
      Effect.gen(function* () {
        const rejects = yield* bridged(
          () => Effect.tryPromise(() => Promise.reject(new Error("what?"))) as unknown as Whole,
        )
        assert.strictEqual((yield* Effect.flip(rejects.generate(question)))._tag, "UnknownFailure")
        const resets = yield* bridged(
          () =>
            Effect.tryPromise({
              try: () => Promise.reject(new Error("x")),
              catch: () => Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" }),
            }) as unknown as Whole,
        )
        assert.strictEqual((yield* Effect.flip(resets.generate(question)))._tag, "ConnectionFailed")
        const buggy = yield* bridged(() => Effect.die(new Error("a bug")))
        const exit = yield* Effect.exit(buggy.generate(question))
        assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      }),
    )
  })

  it.effect("every policy works on it", () =>
    Effect.gen(function* () {
      let attempts = 0
      const theirs = yield* bridged(() =>
        ++attempts < 3
          ? Effect.fail(raised(new AiError.RateLimitError({ retryAfter: Duration.seconds(1) })))
          : Effect.succeed([text("at last"), finish()]),
      )
      const { exit } = yield* play(theirs.pipe(Retry.with()).generate(question))
      assert.strictEqual(Exit.isSuccess(exit) && spoken(exit.value), "at last")

      const hangs = yield* service(() => Effect.never)
      const lead = LanguageModelBridge.fromLanguageModel(hangs, { name: "lead", model: "lead-1" })
      const model = Understudy.make({ candidates: [{ provider: lead }, { provider: theirs, priority: 1 }] })
      const played = yield* play(Effect.provide(model.generate(question), Understudy.layer))
      assert.strictEqual(Exit.isSuccess(played.exit) && spoken(played.exit.value), "at last")
      assert.strictEqual(played.millis, 30_000)
      assert.strictEqual(played.timers, 0)
    }),
  )

  it.effect("what is the caller's is not seen inside: its response ids and its span transformer", () =>
    Effect.gen(function* () {
      const tracked: Array<unknown> = []
      let times = 0
      const theirs = yield* bridged(() =>
        Effect.gen(function* () {
          tracked.push(yield* Effect.serviceOption(ResponseIdTracker.ResponseIdTracker))
          return [text("ok"), finish()]
        }),
      )
      yield* LanguageModel.generateText({ prompt: "Who?" }).pipe(
        Effect.provide(LanguageModelLayer.layer(theirs)),
        Effect.provideServiceEffect(ResponseIdTracker.ResponseIdTracker, ResponseIdTracker.make),
        Effect.provideService(Telemetry.CurrentSpanTransformer, () => void times++),
      )
      assert.deepStrictEqual(
        tracked.map((found) => (found as { readonly _tag: string })._tag),
        ["None"],
      )
      assert.strictEqual(times, 1)
    }),
  )

  it.effect("a layer is built once, and gives its names", () =>
    Effect.gen(function* () {
      let built = 0
      let closed = 0
      const layer = Model.make(
        "openai",
        "gpt",
        Layer.effect(LanguageModel.LanguageModel)(
          Effect.gen(function* () {
            built++
            yield* Effect.addFinalizer(() => Effect.sync(() => closed++))
            return yield* service(() => Effect.succeed([text("ok"), finish()]))
          }),
        ),
      )
      yield* Effect.scoped(
        Effect.gen(function* () {
          const provider = yield* LanguageModelBridge.fromLayer(layer)
          assert.deepStrictEqual([provider.name, provider.model], ["openai", "gpt"])
          yield* provider.generate(question)
          yield* provider.generate(question)
          const named = yield* LanguageModelBridge.fromLayer(layer, { name: "lead" })
          assert.deepStrictEqual([named.name, named.model], ["lead", "gpt"])
        }),
      )
      assert.deepStrictEqual([built, closed], [built, built])
      assert.isTrue(built >= 1)
    }),
  )
})
