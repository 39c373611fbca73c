import { assert, describe, it } from "@effect/vitest"
import {
  Call,
  CircuitBreaker,
  Failover,
  LanguageModelFace,
  LanguageModelLayer,
  LlmError,
  Provider,
  Retry,
  Timeouts,
  Understudy,
} from "@understudy/core"
import { Cause, Effect, Exit, Fiber, Schema, Scope, Stream } from "effect"
import { LanguageModel, Prompt, Tool, Toolkit } from "effect/ai"
import { TestClock } from "effect/testing"
import { FakeProvider } from "../src/index.ts"
import { play } from "../src/internal/Stage.ts"

type Face = LanguageModelFace.LanguageModelFace

const question = LanguageModelFace.request("Who wrote Dune?")

const textOf = (parts: Iterable<LanguageModelFace.Part>): string =>
  [...parts].map(LanguageModelFace.languageModelFace.partText).join("")

/** Asks for an answer, and for its text only. */
const generate = <E, R>(provider: Provider.Provider<Face, E, R>) =>
  Effect.map(provider.generate(question), LanguageModelFace.text)

/** Asks for a stream, and for its text only. */
const stream = <E, R>(provider: Provider.Provider<Face, E, R>) =>
  Effect.map(Stream.runCollect(provider.stream(question)), textOf)

/** Asks in both ways: what holds for one must hold for the other. */
const both = [generate, stream] as const

/** The failure of an exit. */
const failed = (exit: Exit.Exit<unknown, unknown>): unknown =>
  exit._tag === "Failure" ? Cause.squash(exit.cause) : assert.fail("It succeeded")

/** The failure of a tag, or the test ends. */
const tagged = <T extends LlmError.Tag>(tag: T, failure: unknown): LlmError.WithTag<T> =>
  LlmError.is(tag)(failure) ? failure : assert.fail(`Expected ${tag}, got ${String(failure)}`)

const defectOf = (exit: Exit.Exit<unknown, unknown>): unknown =>
  exit._tag === "Failure" && exit.cause.reasons[0]?._tag === "Die"
    ? exit.cause.reasons[0].defect
    : assert.fail("It did not die")

describe("FakeProvider", () => {
  it.effect("plays a step for each request, as an answer and as a stream", () =>
    Effect.gen(function* () {
      for (const ask of both) {
        const { provider } = yield* FakeProvider.make({
          script: [FakeProvider.text("one"), FakeProvider.stream(["t", "wo"]), FakeProvider.json({ three: 3 })],
        })
        assert.strictEqual(yield* ask(provider), "one")
        assert.strictEqual(yield* ask(provider), "two")
        assert.strictEqual(yield* ask(provider), '{"three":3}')
      }
    }),
  )

  it.effect("fails with any failure of the union by its tag, in its own name", () =>
    Effect.gen(function* () {
      for (const ask of both) {
        for (const tag of LlmError.tags) {
          const fake = yield* FakeProvider.make({ name: "tester", model: "t-9", script: [FakeProvider.fail(tag)] })
          const failure = tagged(tag, failed(yield* Effect.exit(ask(fake.provider))))
          assert.strictEqual(failure.provider, "tester")
          assert.strictEqual(failure.model, "t-9")
        }
      }
    }),
  )

  it.effect("gives a failure the fields it is told, and other failures as they are", () =>
    Effect.gen(function* () {
      class Mine {
        readonly _tag = "Mine"
      }
      const mine = new Mine()
      const { provider } = yield* FakeProvider.make({
        script: [
          FakeProvider.fail("RateLimited", { retryAfter: "2 seconds", status: 429 }),
          FakeProvider.fail("TimedOut", { phase: "connect" }),
          FakeProvider.fail(mine),
        ],
      })
      const limited = yield* Effect.flip(provider.generate(question))
      assert.deepInclude(JSON.parse(JSON.stringify(limited)), { _tag: "RateLimited", retryAfter: 2000, status: 429 })
      assert.strictEqual(tagged("TimedOut", yield* Effect.flip(provider.generate(question))).phase, "connect")
      assert.strictEqual(yield* Effect.flip(provider.generate(question)), mine)
    }),
  )

  it.effect("waits on the clock of the test, and for nothing else", () =>
    Effect.gen(function* () {
      const fake = yield* FakeProvider.make({
        script: [
          FakeProvider.delay("5 hours", FakeProvider.text("late")),
          FakeProvider.stream(["a", "b"], { every: "1 hour" }),
        ],
      })
      const late = yield* Effect.forkChild(generate(fake.provider))
      yield* TestClock.adjust("299 minutes")
      assert.strictEqual(late.pollUnsafe(), undefined)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* Fiber.join(late), "late")
      const slow = yield* Effect.forkChild(generate(fake.provider))
      yield* TestClock.adjust("2 hours")
      assert.strictEqual(yield* Fiber.join(slow), "ab")
      const hour = 3_600_000
      assert.deepStrictEqual(
        (yield* fake.calls).map(({ at, endedAt }) => [at, endedAt]),
        [
          [0, 5 * hour],
          [5 * hour, 7 * hour],
        ],
      )
    }),
  )

  it.effect("sends the tokens of a stream one by one, at their time", () =>
    Effect.gen(function* () {
      const { provider } = yield* FakeProvider.make({
        script: [FakeProvider.delay("1 second", FakeProvider.stream(["a", "b", "c"], { every: "100 millis" }))],
      })
      const arrivals: Array<readonly [string, number]> = []
      const reading = provider.stream(question).pipe(
        Stream.runForEach((part) =>
          Effect.clockWith((clock) =>
            Effect.sync(() => {
              if (part.type === "text-delta") arrivals.push([part.delta, clock.currentTimeMillisUnsafe()])
            }),
          ),
        ),
      )
      yield* play(reading)
      assert.deepStrictEqual(arrivals, [
        ["a", 1100],
        ["b", 1200],
        ["c", 1300],
      ])
    }),
  )

  it.effect("breaks, stalls or cuts a stream after its tokens", () =>
    Effect.gen(function* () {
      const tokens = ["Frank ", "Her"]
      const fake = yield* FakeProvider.make({
        script: [
          FakeProvider.streamThen(tokens, FakeProvider.fail("ConnectionFailed", { fault: "reset" })),
          FakeProvider.streamThen(tokens, FakeProvider.cut),
          FakeProvider.streamThen(tokens, FakeProvider.hang),
          FakeProvider.streamThen(tokens, FakeProvider.defect(new Error("a bug"))),
        ],
      })
      const provider = fake.provider.pipe(Timeouts.with({ idle: "3 seconds" }))
      const reset = tagged("StreamInterrupted", failed(yield* play(stream(provider))))
      assert.strictEqual(reset.failure?._tag, "ConnectionFailed")
      assert.deepStrictEqual(reset.delivered, { parts: 3, characters: 9, inside: "text", estimatedTokens: 3 })
      const cut = tagged("StreamInterrupted", failed(yield* play(stream(provider))))
      assert.strictEqual(cut.failure, undefined)
      const stalled = tagged("StreamInterrupted", failed(yield* play(stream(provider))))
      assert.strictEqual(stalled.failure?._tag, "TimedOut")
      assert.instanceOf(defectOf(yield* play(stream(provider))), Error)
      const endings = (yield* fake.calls).map(({ ended }) => ended)
      assert.deepStrictEqual(endings, ["failed", "cut", "interrupted", "died"])
    }),
  )

  it.effect("is cut, for those who ask for an answer, as a connection that closed", () =>
    Effect.gen(function* () {
      const { provider } = yield* FakeProvider.make({ script: [FakeProvider.streamThen(["half"], FakeProvider.cut)] })
      assert.strictEqual(tagged("ConnectionFailed", yield* Effect.flip(generate(provider))).fault, "closed")
    }),
  )

  it.effect("never answers when it hangs, and is told when its caller leaves", () =>
    Effect.gen(function* () {
      for (const ask of both) {
        const fake = yield* FakeProvider.make({ script: [FakeProvider.hang] })
        const provider = fake.provider.pipe(Timeouts.with({ attempt: "4 seconds", firstContent: "4 seconds" }))
        tagged("TimedOut", failed(yield* play(ask(provider))))
        const [call] = yield* fake.calls
        assert.deepInclude(call, { ended: "interrupted", at: 0, endedAt: 4000 })
        yield* fake.assertIdle
      }
    }),
  )

  it.effect("is told when the consumer of a stream leaves before its end, and not when it leaves after it", () =>
    Effect.gen(function* () {
      const fake = yield* FakeProvider.make({ script: FakeProvider.times(2, FakeProvider.stream(["a", "b"])) })
      const parts = (count: number) => Stream.runCollect(Stream.take(fake.provider.stream(question), count))
      assert.strictEqual(textOf(yield* parts(2)), "a")
      assert.strictEqual((yield* parts(5)).length, 5)
      assert.deepStrictEqual(
        (yield* fake.calls).map(({ ended }) => ended),
        ["interrupted", "answered"],
      )
    }),
  )

  it.effect("chooses a step by what was asked", () =>
    Effect.gen(function* () {
      const { provider } = yield* FakeProvider.make({
        script: [
          FakeProvider.reply((request, number) =>
            FakeProvider.promptText(request.prompt).includes("Dune") && number < 3
              ? FakeProvider.fail("Overloaded")
              : FakeProvider.text(`answer ${number}`),
          ),
        ],
        then: "repeat",
      })
      assert.strictEqual(yield* generate(provider.pipe(Retry.with({ base: 0 }))), "answer 3")
    }),
  )

  it.effect("calls tools, whose handlers run once", () =>
    Effect.gen(function* () {
      const Weather = Tool.make("Weather", {
        parameters: Schema.Struct({ city: Schema.String }),
        success: Schema.String,
      })
      const toolkit = Toolkit.make(Weather)
      let ran = 0
      const handlers = toolkit.toLayer({ Weather: ({ city }) => Effect.sync(() => `${city}: sun ${++ran}`) })
      const fake = yield* FakeProvider.make({
        script: FakeProvider.times(2, FakeProvider.tool("Weather", { city: "Arrakeen" })),
      })
      const model = LanguageModelLayer.layer(fake.provider)
      const options = { prompt: "Is it raining?", toolkit }
      const whole = yield* LanguageModel.generateText(options).pipe(Effect.provide([model, handlers]))
      assert.deepStrictEqual(
        whole.toolResults.map(({ id, result }) => [id, result]),
        [["call_1", "Arrakeen: sun 1"]],
      )
      const parts = yield* Stream.runCollect(LanguageModel.streamText(options)).pipe(Effect.provide([model, handlers]))
      const results = parts.filter((part) => part.type === "tool-result")
      assert.deepStrictEqual(
        results.map(({ id, result }) => [id, result]),
        [["call_2", "Arrakeen: sun 2"]],
      )
    }),
  )

  it.effect("answers for a value with JSON, and tells the tokens it is said to have used", () =>
    Effect.gen(function* () {
      const fake = yield* FakeProvider.make({
        script: [FakeProvider.json({ title: "Dune" }, { usage: { input: 12, output: 4 } })],
      })
      const answer = yield* LanguageModel.generateObject({
        prompt: "?",
        schema: Schema.Struct({ title: Schema.String }),
      }).pipe(Effect.provide(LanguageModelLayer.layer(fake.provider)))
      assert.deepStrictEqual(answer.value, { title: "Dune" })
      assert.strictEqual(answer.usage.inputTokens.total, 12)
    }),
  )

  it.effect("takes an answer by its parts, with the failure that they hide", () =>
    Effect.gen(function* () {
      const { provider } = yield* FakeProvider.make({
        script: FakeProvider.times(
          2,
          FakeProvider.answer([
            { type: "reasoning", text: "hmm" },
            { type: "finish", reason: "content-filter", usage: { inputTokens: {}, outputTokens: {} } },
          ]),
        ),
      })
      tagged("ContentFiltered", yield* Effect.flip(generate(provider)))
      const late = tagged("StreamInterrupted", yield* Effect.flip(stream(provider)))
      assert.strictEqual(late.failure?._tag, "ContentFiltered")
    }),
  )

  describe("remembers", () => {
    it.effect("the prompt, the overrides, the way it was asked, and how it ended", () =>
      Effect.gen(function* () {
        const fake = yield* FakeProvider.make({ script: [FakeProvider.text("a"), FakeProvider.fail("Overloaded")] })
        const prompt = LanguageModelFace.request([
          { role: "system", content: "Be brief." },
          { role: "user", content: [{ type: "text", text: "Who wrote Dune?" }] },
          { role: "assistant", content: [{ type: "tool-call", id: "1", name: "Find", params: { book: "Dune" } }] },
        ])
        yield* fake.provider.generate(prompt).pipe(Call.withParameters({ temperature: 0 }), Call.pin("fake"))
        yield* Effect.exit(stream(fake.provider))
        const [first, second] = yield* fake.calls
        if (first === undefined) return assert.fail("It was not asked")
        assert.strictEqual(
          first.prompt,
          'system: Be brief.\nuser: Who wrote Dune?\nassistant: [tool call Find {"book":"Dune"}]',
        )
        assert.strictEqual(first.request, prompt)
        assert.deepStrictEqual(first.parameters, { temperature: 0 })
        assert.deepStrictEqual(first.overrides.pin, ["fake"])
        assert.deepInclude(first, { number: 1, mode: "generate", ended: "answered", step: 'text "a"' })
        assert.deepInclude(second, { number: 2, mode: "stream", ended: "failed", step: "fail Overloaded" })
        tagged("Overloaded", second?.failure)
      }),
    )

    it.effect("a stream from the moment it is opened", () =>
      Effect.gen(function* () {
        const fake = yield* FakeProvider.make({ script: [FakeProvider.streamThen(["a"], FakeProvider.hang)] })
        const scope = yield* Scope.make()
        yield* fake.provider.open(question, scope)
        assert.strictEqual(yield* fake.running, 1)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* fake.running, 0)
      }),
    )
  })

  describe("after its last step", () => {
    it.effect("dies with the request that had no step, which no retry takes for a failure", () =>
      Effect.gen(function* () {
        for (const ask of both) {
          const fake = yield* FakeProvider.make({ name: "lead", script: [FakeProvider.fail("Overloaded")] })
          const defect = defectOf(yield* play(ask(fake.provider.pipe(Retry.with()))))
          assert.instanceOf(defect, FakeProvider.ScriptExhausted)
          assert.match(
            String(defect),
            /"lead" has 1 step, and this is request 2 \((generate|stream)\).*Who wrote Dune/s,
          )
          yield* fake.assertAsked(2)
        }
      }),
    )

    it.effect("answers, repeats its last step or begins again, as it is told", () =>
      Effect.gen(function* () {
        const said = (then: FakeProvider.Then) =>
          Effect.gen(function* () {
            const { provider } = yield* FakeProvider.make({
              script: [FakeProvider.text("a"), FakeProvider.text("b")],
              then,
            })
            return (yield* Effect.all(Array.from({ length: 5 }, () => generate(provider)))).join(" ")
          })
        assert.strictEqual(yield* said("answer"), "a b ok ok ok")
        assert.strictEqual(yield* said("repeat"), "a b b b b")
        assert.strictEqual(yield* said("cycle"), "a b a b a")
      }),
    )
  })

  describe("asserts", () => {
    const unmet = (assertion: Effect.Effect<void>) =>
      Effect.map(Effect.exit(assertion), (exit) => {
        const defect = defectOf(exit)
        return defect instanceof FakeProvider.Unmet ? defect.message : assert.fail("Another defect")
      })

    it.effect("nothing that is not so", () =>
      Effect.gen(function* () {
        const fake = yield* FakeProvider.make({ script: [FakeProvider.text("a"), FakeProvider.text("b")] })
        assert.match(yield* unmet(fake.assertLastPrompt("Dune")), /was not asked at all/)
        yield* generate(fake.provider)
        yield* fake.assertAsked(1)
        yield* fake.assertLastPrompt("Dune")
        yield* fake.assertLastPrompt(/^user: who/i)
        yield* fake.assertIdle
        assert.match(yield* unmet(fake.assertLastPrompt("Emma")), /has no "Emma" in it/)
        assert.match(yield* unmet(fake.assertPlayed), /1 step left that nobody asked for: text "b"/)
        yield* generate(fake.provider)
        yield* fake.assertPlayed
      }),
    )

    it.effect("with a list of what was asked", () =>
      Effect.gen(function* () {
        const fake = yield* FakeProvider.make({
          script: [FakeProvider.delay("2 seconds", FakeProvider.fail("Overloaded")), FakeProvider.hang],
        })
        yield* Effect.forkChild(generate(fake.provider.pipe(Retry.with({ base: "1 second", jitter: "none" }))))
        yield* TestClock.adjust("4 seconds")
        assert.strictEqual(
          yield* unmet(fake.assertAsked(1)),
          "fake was asked 2 times, not 1." +
            '\n  #1 generate at 0 ms: fail Overloaded after 2s — failed (Overloaded) after 2000 ms — "user: Who wrote Dune?"' +
            '\n  #2 generate at 3000 ms: hang — running after 1000 ms — "user: Who wrote Dune?"',
        )
        assert.match(yield* unmet(fake.assertIdle), /still has 1 request under way/)
      }),
    )
  })

  describe("as a layer", () => {
    class Model extends Provider.Service<
      Model,
      Provider.Provider<Face, LlmError.AllProvidersFailed | LlmError.DeadlineExceeded>
    >()("app/Model") {}

    const program = Effect.gen(function* () {
      const model = yield* Model
      return yield* generate(model).pipe(
        Effect.catchTag(["AllProvidersFailed", "DeadlineExceeded"], ({ _tag }) => Effect.succeed(`sorry: ${_tag}`)),
      )
    })

    it.effect("takes the place of the real provider, and is found behind the service", () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* program, "Frank Herbert")
        assert.strictEqual(yield* program, "sorry: AllProvidersFailed")
        const fake = yield* FakeProvider.behind(Model)
        yield* fake.assertAsked(2)
        yield* fake.assertPlayed
      }).pipe(
        Effect.provide(
          FakeProvider.layer(Model, [FakeProvider.text("Frank Herbert"), FakeProvider.fail("AllProvidersFailed")]),
        ),
      ),
    )

    it.effect("is of its service's type when the real one is a composition", () =>
      Effect.gen(function* () {
        const a = yield* FakeProvider.make({
          name: "a",
          script: [FakeProvider.fail("ProviderUnavailable")],
          then: "repeat",
        })
        const b = yield* FakeProvider.make({ name: "b", script: [FakeProvider.text("from b")] })
        const real = Understudy.make({ candidates: [{ provider: a.provider }, { provider: b.provider, priority: 1 }] })
        class Composed extends Provider.Service<Composed, typeof real>()("app/Composed") {}
        const asks = Effect.flatMap(Composed, generate)
        const exit = yield* play(asks.pipe(Effect.provide([Provider.layer(Composed, real), Understudy.layer])))
        assert.deepStrictEqual(exit, Exit.succeed("from b"))
        const faked = FakeProvider.layer(Composed, { name: "both", script: [FakeProvider.text("from the fake")] })
        assert.strictEqual(yield* asks.pipe(Effect.provide([faked, Understudy.layer])), "from the fake")
      }),
    )

    it("cannot fail in a way that its service's type does not have", () => {
      // @ts-expect-error -- RateLimited never leaves a composition
      const layer = FakeProvider.layer(Model, [FakeProvider.fail("RateLimited")])
      assert.isDefined(layer)
    })

    it.effect("says so when the service holds a provider that is no fake", () =>
      Effect.gen(function* () {
        const fake = yield* FakeProvider.make({ script: [] })
        class Leaf extends Provider.Service<Leaf, typeof fake.provider>()("app/Leaf") {}
        const guarded = Provider.layer(Leaf, fake.provider.pipe(Retry.with()))
        const exit = yield* Effect.exit(FakeProvider.behind(Leaf).pipe(Effect.provide(guarded)))
        assert.match(String(defectOf(exit)), /app\/Leaf is no fake/)
      }),
    )
  })

  it.effect("composes with every policy as a real provider does", () =>
    Effect.gen(function* () {
      const lead = yield* FakeProvider.make({
        name: "lead",
        script: [FakeProvider.fail("ProviderUnavailable")],
        then: "repeat",
      })
      const understudy = yield* FakeProvider.make({
        name: "understudy",
        script: [FakeProvider.text("the show")],
        then: "repeat",
      })
      const provider = Failover.make([
        lead.provider.pipe(Timeouts.with(), CircuitBreaker.with({ failures: 2 })),
        understudy.provider,
      ])
      const answers = yield* Effect.all(Array.from({ length: 5 }, () => generate(provider)))
      assert.deepStrictEqual([...new Set(answers)], ["the show"])
      yield* lead.assertAsked(2)
      yield* understudy.assertAsked(5)
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("reads a prompt of every kind of part as text", () =>
    Effect.sync(() => {
      const prompt = Prompt.make([
        {
          role: "user",
          content: [
            { type: "text", text: "Look" },
            { type: "file", mediaType: "image/png", fileName: "dune.png", data: new Uint8Array() },
          ],
        },
        { role: "assistant", content: [{ type: "reasoning", text: "sand" }] },
        { role: "tool", content: [{ type: "tool-result", id: "1", name: "Find", isFailure: false, result: [1] }] },
      ])
      assert.strictEqual(
        FakeProvider.promptText(prompt),
        "user: Look [file dune.png]\nassistant: [reasoning: sand]\ntool: [tool result Find [1]]",
      )
    }),
  )
})
