import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Layer, Schema, Stream, Tracer } from "effect"
import {
  type AiError,
  Chat,
  LanguageModel,
  Model,
  Prompt,
  ResponseIdTracker,
  Telemetry,
  Tool,
  Toolkit,
} from "effect/ai"
import {
  AiFailure,
  Call,
  Failover,
  LanguageModelFace,
  LanguageModelLayer,
  LlmError,
  Origin,
  PolicyEvent,
  Provider,
  Retry,
  Understudy,
} from "@understudy/core"
import { failed, failure, fails, inTurn, play, says as speaks, streams, stub } from "../stub.ts"
import { actor, call, calls, finish, says, spoken, text } from "./actor.ts"

const ask = LanguageModel.generateText({ prompt: "Who wrote Dune?" })

/** Every way in which a program asks a model. */
const ways = {
  generateText: Effect.asVoid(ask),
  generateObject: Effect.asVoid(
    LanguageModel.generateObject({ prompt: "Who?", schema: Schema.Struct({ name: Schema.String }) }),
  ),
  streamText: Stream.runDrain(LanguageModel.streamText({ prompt: "Who?" })),
  "generateText with a toolkit": Effect.asVoid(LanguageModel.generateText({ prompt: "Who?", toolkit: Toolkit.empty })),
  "Chat.generateText": Effect.flatMap(Chat.empty, (chat) => Effect.asVoid(chat.generateText({ prompt: "Who?" }))),
  "Chat.streamText": Effect.flatMap(Chat.empty, (chat) => Stream.runDrain(chat.streamText({ prompt: "Who?" }))),
  "Chat.generateObject": Effect.flatMap(Chat.empty, (chat) =>
    Effect.asVoid(chat.generateObject({ prompt: "Who?", schema: Schema.Struct({ name: Schema.String }) })),
  ),
} satisfies Record<string, Effect.Effect<void, AiError.AiError, LanguageModel.LanguageModel>>

const broken = (original: LlmError.LlmError) =>
  LanguageModelLayer.layer(actor("a", () => Effect.fail(original)).provider)

const Pay = Tool.make("Pay", { parameters: Schema.Struct({ euros: Schema.Finite }), success: Schema.String })
class Refused extends Schema.TaggedError<Refused>()("Refused", {}) {}
const Ship = Tool.make("Ship", {
  parameters: Schema.Struct({ to: Schema.String }),
  success: Schema.String,
  failure: Refused,
})
const shop = Toolkit.make(Pay, Ship)

describe("LanguageModelLayer", () => {
  describe("the failure itself", () => {
    const original = LlmError.withEvidence(failure("Overloaded"), { cause: new Error("below") })
    for (const [name, way] of Object.entries(ways)) {
      it.effect(`is inside the AiError of ${name}`, () =>
        Effect.gen(function* () {
          const error = yield* Effect.flip(way)
          assert.strictEqual(error.reason._tag, "InternalProviderError")
          assert.strictEqual(AiFailure.fromAiError(error), original)
        }).pipe(Effect.provide(broken(original))),
      )
    }

    it.effect("survives retry, sandbox, an exit and catchReason", () =>
      Effect.gen(function* () {
        const retried = yield* Effect.flip(Effect.retry(ask, { times: 1 }))
        assert.strictEqual(AiFailure.fromAiError(retried), original)

        const sandboxed = yield* Effect.flip(Effect.sandbox(ask))
        assert.strictEqual(AiFailure.fromAiError(failed(Exit.failCause(sandboxed))), original)

        const exit = yield* Effect.exit(ask)
        assert.strictEqual(AiFailure.fromAiError(failed(exit)), original)

        const [reason, error] = yield* ask.pipe(
          Effect.as([undefined, undefined] as const),
          Effect.catchReason("AiError", "InternalProviderError", (reason, error) =>
            Effect.succeed([reason, error] as const),
          ),
        )
        assert.strictEqual(AiFailure.fromAiError(reason!), original)
        assert.strictEqual(AiFailure.fromAiError(error!), original)
      }).pipe(Effect.provide(broken(original))),
    )

    it.effect("of a stream that breaks after its first content is a StreamInterrupted, with the original in it", () =>
      Effect.gen(function* () {
        const { provider } = stub(
          "a",
          inTurn(
            streams(
              Stream.concat(
                Stream.make<ReadonlyArray<LanguageModelFace.Part>>(
                  { type: "text-start", id: "0" },
                  { type: "text-delta", id: "0", delta: "He" },
                ),
                Stream.fail(original),
              ),
            ),
          ),
        )
        const parts: Array<{ readonly type: string }> = []
        const error = yield* LanguageModel.streamText({ prompt: "Who?" }).pipe(
          Stream.runForEach((part) => Effect.sync(() => parts.push(part))),
          Effect.flip,
          Effect.provide(LanguageModelLayer.layer(provider)),
        )
        assert.strictEqual(spoken(parts), "He")
        const interrupted = AiFailure.fromAiError(error)
        assert.strictEqual(interrupted._tag, "StreamInterrupted")
        assert.strictEqual(interrupted._tag === "StreamInterrupted" ? interrupted.failure : undefined, original)
      }),
    )

    it.effect("a defect stays a defect", () =>
      Effect.gen(function* () {
        const defect = new Error("a bug")
        const layer = LanguageModelLayer.layer(actor("a", () => Effect.die(defect)).provider)
        const exit = yield* Effect.exit(Effect.provide(ask, layer))
        assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      }),
    )
  })

  describe("what effect/ai raises itself", () => {
    const answering = (answer: LanguageModelFace.Answer) =>
      LanguageModelLayer.layer(actor("a", () => Effect.succeed(answer)).provider)

    it.effect("an object that does not fit is an InvalidResponse of kind content", () =>
      Effect.gen(function* () {
        const found = AiFailure.fromAiError(yield* Effect.flip(ways.generateObject))
        assert.strictEqual(found._tag === "InvalidResponse" && found.kind, "content")
      }).pipe(Effect.provide(answering([text('{"nme":'), finish()]))),
    )

    it.effect("a call of a tool that does not exist is an InvalidResponse", () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(LanguageModel.generateText({ prompt: "Buy", toolkit: shop }))
        assert.strictEqual(error._tag === "AiError" && AiFailure.fromAiError(error)._tag, "InvalidResponse")
      }).pipe(
        Effect.provide(answering([call("Steal", {}), finish("tool-calls")])),
        Effect.provide(shop.toLayer({ Pay: () => Effect.succeed("paid"), Ship: () => Effect.succeed("shipped") })),
      ),
    )

    it.effect("parameters that do not fit are an InvalidResponse", () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(LanguageModel.generateText({ prompt: "Buy", toolkit: shop }))
        assert.strictEqual(error._tag === "AiError" && AiFailure.fromAiError(error)._tag, "InvalidResponse")
      }).pipe(
        Effect.provide(answering([call("Pay", { euros: "many" }), finish("tool-calls")])),
        Effect.provide(shop.toLayer({ Pay: () => Effect.succeed("paid"), Ship: () => Effect.succeed("shipped") })),
      ),
    )
  })

  describe("who answers", () => {
    const composed = () => {
      const lead = actor("lead", () => Effect.fail(failure("ProviderUnavailable", "lead")))
      const understudy = actor("understudy", () => says("Frank Herbert"))
      return LanguageModelLayer.layer(Failover.make([lead.provider, understudy.provider], { name: "both" }))
    }

    it.effect("the names in the services are those of the composition", () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* Model.ProviderName, "both")
        assert.strictEqual(yield* Model.ModelName, "lead-1 | understudy-1")
      }).pipe(Effect.provide(composed())),
    )

    it.effect("the parts of an answer tell the candidate", () =>
      Effect.gen(function* () {
        const origin = { provider: "understudy", model: "understudy-1" }
        const { content } = yield* ask
        assert.deepStrictEqual(Origin.ofAnswer(content), origin)
        assert.deepStrictEqual(
          content.map((part) => [part.type, Origin.of(part)]),
          [
            ["response-metadata", origin],
            ["text", origin],
            ["finish", origin],
          ],
        )
        const parts = yield* Stream.runCollect(LanguageModel.streamText({ prompt: "Who?" }))
        assert.deepStrictEqual(Origin.ofAnswer(parts), origin)
        assert.deepStrictEqual(
          parts.map(({ type }) => type),
          ["response-metadata", "text-start", "text-delta", "text-end", "finish"],
        )
      }).pipe(Effect.provide(composed())),
    )

    it.effect("a model captures its requirements, as those of effect/ai do", () =>
      Effect.gen(function* () {
        class Secret extends Context.Service<Secret, string>()("test/Secret") {}
        const provider = Provider.make({
          name: "a",
          model: "a-1",
          face: LanguageModelFace.languageModelFace,
          generate: () => Effect.map(Secret, (secret) => [text(secret), finish()]),
          stream: () =>
            Stream.fromIterableEffect(
              Effect.map(Secret, (delta): ReadonlyArray<LanguageModelFace.Part> => [
                { type: "text-start", id: "0" },
                { type: "text-delta", id: "0", delta },
                finish(),
              ]),
            ),
        })
        const layer = yield* Effect.provideService(
          LanguageModelLayer.layer(provider).captureRequirements,
          Secret,
          "captured",
        )
        // What the caller has is not what the provider was given.
        const stranger = Effect.provideService(Secret, "the caller's")
        const { text: said } = yield* ask.pipe(Effect.provide(layer), stranger)
        assert.strictEqual(said, "captured")
        const parts = yield* LanguageModel.streamText({ prompt: "Who?" }).pipe(
          Stream.runCollect,
          Effect.provide(layer),
          stranger,
        )
        assert.strictEqual(spoken(parts), "captured")
      }),
    )
  })

  describe("what belongs to the caller", () => {
    it.effect("its overrides count, also over those around the layer", () =>
      Effect.gen(function* () {
        const seen: Array<unknown> = []
        const { provider } = actor("a", () =>
          Effect.flatMap(Call.CurrentOverrides, ({ parameters }) => {
            seen.push(parameters?.temperature)
            return says("ok")
          }),
        )
        yield* Effect.gen(function* () {
          yield* ask
          yield* Call.withParameters({ temperature: 1 })(ask)
        }).pipe(Effect.provide(LanguageModelLayer.layer(provider)), Call.withParameters({ temperature: 0 }))
        assert.deepStrictEqual(seen, [0, 1])
      }),
    )

    it.effect("its observer hears of one call, well nested, and so does one around the layer", () =>
      Effect.gen(function* () {
        const heard: Array<string> = []
        const { provider } = stub("a", inTurn(fails(failure("Overloaded")), speaks("ok")))
        const layer = LanguageModelLayer.layer(provider.pipe(Retry.with({ jitter: "none", base: "1 second" })))
        const listen = PolicyEvent.observe((event) => void heard.push(event.event))
        const expected = [
          "CallStarted",
          "AttemptStarted",
          "AttemptFailed",
          "BackedOff",
          "AttemptStarted",
          "AttemptSucceeded",
          "Answered",
        ]
        yield* play(listen(Effect.provide(ask, layer)))
        assert.deepStrictEqual(heard, expected)
        heard.length = 0
        yield* play(
          Effect.provide(
            ask,
            Layer.provide(
              layer,
              PolicyEvent.layer((event) => void heard.push(event.event)),
            ),
          ),
        )
        assert.deepStrictEqual(heard, ["CallStarted", "AttemptStarted", "AttemptSucceeded", "Answered"])
      }),
    )

    it.effect("its deadline ends the call", () =>
      Effect.gen(function* () {
        const { provider } = actor("a", () => Effect.never)
        const layer = LanguageModelLayer.layer(provider.pipe((self) => Failover.make([self])))
        const { exit, millis } = yield* play(Call.withDeadline("3 seconds")(Effect.provide(ask, layer)))
        const error = failed(exit)
        assert.strictEqual(error._tag === "AiError" && AiFailure.fromAiError(error)._tag, "DeadlineExceeded")
        assert.strictEqual(millis, 3000)
      }),
    )

    it.effect("its span is the parent of all attempts, and learns who answered and what it cost", () =>
      Effect.gen(function* () {
        const spans: Array<Tracer.NativeSpan> = []
        const tracer = Tracer.make({
          span: (options) => {
            const span = new Tracer.NativeSpan(options)
            spans.push(span)
            return span
          },
        })
        const lead = actor("lead", () => Effect.fail(failure("Overloaded")).pipe(Effect.withSpan("lead")))
        const understudy = actor("understudy", () => says("ok").pipe(Effect.withSpan("understudy")))
        const layer = LanguageModelLayer.layer(Failover.make([lead.provider, understudy.provider]))
        yield* ask.pipe(Effect.withSpan("program"), Effect.provide(layer), Effect.withTracer(tracer))
        const parents = spans.map(({ name, parent }) => [
          name,
          parent._tag === "Some" ? spans.find(({ spanId }) => spanId === parent.value.spanId)?.name : undefined,
        ])
        assert.deepStrictEqual(parents, [
          ["program", undefined],
          ["LanguageModel.generateText", "program"],
          ["lead", "LanguageModel.generateText"],
          ["understudy", "LanguageModel.generateText"],
        ])
        const attributes = Object.fromEntries(spans[1]!.attributes)
        assert.strictEqual(attributes["gen_ai.provider.name"], "understudy")
        assert.strictEqual(attributes["gen_ai.request.model"], "understudy-1")
        assert.strictEqual(attributes["gen_ai.usage.output_tokens"], 5)
        assert.deepStrictEqual(attributes["gen_ai.response.finish_reasons"], ["stop"])
      }),
    )

    it.effect("its span transformer runs once for each call", () =>
      Effect.gen(function* () {
        let times = 0
        const { provider } = actor("a", (_, attempt) =>
          attempt === 1 ? Effect.fail(failure("Overloaded")) : says("ok"),
        )
        yield* play(
          ask.pipe(
            Effect.provideService(Telemetry.CurrentSpanTransformer, () => void times++),
            Effect.provide(LanguageModelLayer.layer(provider.pipe(Retry.with()))),
          ),
        )
        assert.strictEqual(times, 1)
      }),
    )
  })

  describe("response ids", () => {
    const conversation = (model: Layer.Layer<LanguageModel.LanguageModel>, kind: "generate" | "stream" = "generate") =>
      Effect.gen(function* () {
        yield* LanguageModel.generateText({ prompt: "Zero?" })
        const user = Prompt.userMessage({ content: [Prompt.textPart({ text: "One?" })] })
        const history = Prompt.fromMessages([user])
        const { content } = yield* LanguageModel.generateText({ prompt: history })
        const next = Prompt.concat(Prompt.concat(history, Prompt.fromResponseParts(content)), "Two?")
        return yield* Effect.exit(
          kind === "generate"
            ? LanguageModel.generateText({ prompt: next })
            : Stream.runDrain(LanguageModel.streamText({ prompt: next })),
        )
      }).pipe(
        Effect.provide(model),
        Effect.provideServiceEffect(ResponseIdTracker.ResponseIdTracker, ResponseIdTracker.make),
      )

    it.effect("of one candidate are never handed to another: every request is whole", () =>
      Effect.gen(function* () {
        const lead = actor("lead", (_, attempt) =>
          attempt <= 2
            ? Effect.succeed([{ type: "response-metadata", id: "resp_lead" } as const, text("yes"), finish()])
            : Effect.fail(failure("Overloaded")),
        )
        const understudy = actor("understudy", () => says("two"))
        yield* conversation(LanguageModelLayer.layer(Failover.make([lead.provider, understudy.provider])))
        for (const request of [...lead.requests, ...understudy.requests]) {
          assert.isUndefined(request.previousResponseId)
          assert.isUndefined(request.incrementalPrompt)
        }
        assert.strictEqual(understudy.requests[0]?.prompt.content.length, 3)
      }),
    )

    for (const kind of ["generate", "stream"] as const) {
      it.effect(`a refusal of a prompt that was whole is not asked again (${kind})`, () =>
        Effect.gen(function* () {
          const refusal = failure("InvalidRequest")
          const { provider, requests } = actor("a", (_, attempt) =>
            attempt <= 2
              ? Effect.succeed([{ type: "response-metadata", id: "resp" } as const, text("yes"), finish()])
              : Effect.fail(refusal),
          )
          const exit = yield* conversation(LanguageModelLayer.layer(provider), kind)
          assert.strictEqual(AiFailure.fromAiError(failed(exit)), refusal)
          assert.strictEqual(requests.length, 3)
        }),
      )
    }
  })

  describe("the handlers of tools", () => {
    const counted = () => {
      const runs = { Pay: 0, Ship: 0 }
      return {
        runs,
        layer: shop.toLayer({
          Pay: ({ euros }) => Effect.sync(() => `${++runs.Pay}: ${euros}`),
          Ship: ({ to }) =>
            Effect.suspend(() => {
              runs.Ship++
              return to === "nowhere" ? Effect.fail(new Refused()) : Effect.succeed(to)
            }),
        }),
      }
    }
    const composed = (answer: Effect.Effect<LanguageModelFace.Answer>) => {
      const lead = actor("lead", () => Effect.fail(failure("ProviderUnavailable", "lead")))
      const understudy = actor("understudy", () => answer)
      const model = Understudy.make({ candidates: [{ provider: lead.provider }, { provider: understudy.provider }] })
      return { lead, understudy, layer: Layer.provide(LanguageModelLayer.layer(model), Understudy.layer) }
    }
    const buy = { prompt: "Buy", toolkit: shop }

    for (const kind of ["generateText", "streamText"] as const) {
      const run =
        kind === "generateText"
          ? Effect.map(
              LanguageModel.generateText(buy),
              ({ content }): ReadonlyArray<{ readonly type: string }> => content,
            )
          : Stream.runCollect(LanguageModel.streamText(buy))

      it.effect(`run once when candidates fail over in the middle (${kind})`, () =>
        Effect.gen(function* () {
          const { layer, runs } = counted()
          const {
            layer: model,
            lead,
            understudy,
          } = composed(calls(call("Pay", { euros: 3 }), call("Ship", { to: "x" })))
          const { exit } = yield* play(run.pipe(Effect.provide(layer), Effect.provide(model)))
          assert.isTrue(Exit.isSuccess(exit))
          assert.deepStrictEqual(runs, { Pay: 1, Ship: 1 })
          assert.isTrue(lead.requests.length > 0)
          assert.strictEqual(understudy.requests.length, 1)
        }),
      )

      it.effect(`run once when a sibling fails, whose failure is not ours to retry (${kind})`, () =>
        Effect.gen(function* () {
          const { layer, runs } = counted()
          const answer = calls(call("Pay", { euros: 3 }), call("Ship", { to: "nowhere" }))
          const { layer: model, understudy } = composed(answer)
          const { exit } = yield* play(run.pipe(Effect.provide(layer), Effect.provide(model)))
          assert.instanceOf(failed(exit), Refused)
          assert.deepStrictEqual(runs, { Pay: 1, Ship: 1 })
          assert.strictEqual(understudy.requests.length, 1)
        }),
      )
    }
  })
})
