import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Layer, Random, Schema, Scope, Stream } from "effect"
import { LanguageModel } from "effect/ai"
import {
  Bulkhead,
  Call,
  CircuitBreaker,
  Degradation,
  Directory,
  Failover,
  Hedge,
  LanguageModelFace,
  LanguageModelLayer,
  type LlmError,
  PolicyEvent,
  Provider,
  Retry,
  StructuredOutput,
  Timeouts,
  TokenCounter,
  Understudy,
} from "@understudy/core"
import { listener } from "./PolicyEvent.check.ts"
import {
  ask,
  end,
  expectTag,
  failed,
  fails,
  failure,
  Foreign,
  hangs,
  inTurn,
  kinds,
  type LM,
  play,
  question,
  said,
  say,
  says,
  type Script,
  start,
  streams,
  stub,
  textOf,
  timed,
  wait,
} from "./stub.ts"

const well = (name: string) => stub(name, () => says(name))

/** Two candidates that are well, in a composition named `answers`. */
const duo = (options: Failover.Options = {}) => {
  const [a, b] = [well("a"), well("b")]
  return { a, b, provider: Failover.make([a.provider, b.provider], { name: "answers", ...options }) }
}

const one = (candidate: string) =>
  Effect.map(Directory.status, (all) => {
    const found = all.find((status) => status.candidate === candidate)
    if (found === undefined) throw new Error(`${candidate} is not in the status`)
    return found
  })

const withDirectory = Effect.provide(Directory.layer)

describe("Directory", () => {
  it.effect("keeps a disabled candidate from being asked from the next call on, until it is enabled or reset", () =>
    Effect.gen(function* () {
      const { provider } = duo()
      for (const kind of kinds) {
        assert.strictEqual(yield* ask(kind, provider), "a")
        assert.isFalse((yield* Directory.disable("answers", "a")).enabled)
        assert.strictEqual(yield* ask(kind, provider), "b")
        yield* Directory.enable("answers", "a")
        assert.strictEqual(yield* ask(kind, provider), "a")
        yield* Directory.disable("answers", "a")
        const [status] = yield* Directory.reset("answers", "a")
        assert.deepStrictEqual([status?.enabled, status?.overrides], [true, {}])
        assert.strictEqual(yield* ask(kind, provider), "a")
      }
    }).pipe(withDirectory),
  )

  it.effect("puts a candidate before another by its priority, and equal ones in the order of the list", () =>
    Effect.gen(function* () {
      const [a, b, c] = [well("a"), well("b"), well("c")]
      const provider = Failover.make([{ provider: a.provider, priority: 1 }, b.provider, c.provider], {
        name: "answers",
      })
      assert.strictEqual(yield* ask("generate", provider), "b")
      yield* Directory.prioritise("answers", "a", 0)
      assert.strictEqual(yield* ask("generate", provider), "a")
      yield* Directory.prioritise("answers", "c", -1)
      assert.strictEqual(yield* ask("generate", provider), "c")
      yield* Directory.reset("answers")
      assert.strictEqual(yield* ask("generate", provider), "b")
    }).pipe(withDirectory),
  )

  it.effect("asks nobody when all are disabled, and says so", () =>
    Effect.gen(function* () {
      const { a, b, provider } = duo()
      yield* Directory.register(provider)
      yield* Directory.disable("answers", "a")
      yield* Directory.disable("answers", "b")
      const { exit } = yield* play(ask("generate", provider))
      assert.deepStrictEqual(expectTag("AllProvidersFailed", failed(exit)).failures, [])
      assert.deepStrictEqual([a.asked.length, b.asked.length], [0, 0])
    }).pipe(withDirectory),
  )

  it.effect(
    "knows the settings field by field: what is not said stays, and what was declared holds where nothing is set",
    () =>
      Effect.gen(function* () {
        const { provider } = duo()
        yield* Directory.register(provider)
        yield* Directory.update("answers", "a", { priority: 3, tags: ["eu"] })
        const status = yield* Directory.update("answers", "a", { contextWindow: 1000, enabled: undefined })
        assert.deepStrictEqual(status.overrides, { priority: 3, contextWindow: 1000, tags: ["eu"] })
        assert.deepStrictEqual(
          [status.priority, status.contextWindow, status.tags, status.enabled, status.weight],
          [3, 1000, ["eu"], true, 1],
        )
      }).pipe(withDirectory),
  )

  it.effect("replaces all settings at once, or none when a name is not known", () =>
    Effect.gen(function* () {
      const { provider } = duo()
      yield* Directory.register(provider)
      yield* Directory.disable("answers", "a")
      const wrong = yield* Effect.flip(
        Directory.replaceAll({ answers: { b: { priority: 2 }, nobody: { enabled: false } } }),
      )
      assert.strictEqual(wrong._tag, "UnknownCandidate")
      assert.deepStrictEqual((yield* one("b")).overrides, {})
      yield* Directory.replaceAll({ answers: { b: { priority: -1 } } })
      assert.deepStrictEqual(
        (yield* Directory.status).map(({ overrides }) => overrides),
        [{}, { priority: -1 }],
      )
      assert.strictEqual(yield* ask("generate", provider), "b")
      assert.strictEqual((yield* Effect.flip(Directory.replaceAll({ nothing: {} })))._tag, "UnknownComposition")
      yield* Directory.replaceAll({})
      assert.strictEqual(yield* ask("generate", provider), "a")
    }).pipe(withDirectory),
  )

  it.effect("fails for names that it does not know, and says which it knows", () =>
    Effect.gen(function* () {
      assert.include((yield* Effect.flip(Directory.disable("answers", "a"))).message, "None is known yet")
      yield* Directory.register(duo().provider)
      const composition = yield* Effect.flip(Directory.disable("answer", "a"))
      assert.strictEqual(composition.message, 'No composition is named "answer". Known: answers.')
      const candidate = yield* Effect.flip(Directory.disable("answers", "c"))
      assert.strictEqual(candidate.message, '"answers" has no candidate named "c". Known: a, b.')
      assert.strictEqual((yield* Effect.flip(Directory.reset("answer")))._tag, "UnknownComposition")
      assert.strictEqual((yield* Effect.flip(Directory.reset("answers", "c")))._tag, "UnknownCandidate")
    }).pipe(withDirectory),
  )

  it("refuses settings that cannot be meant, and names them", () => {
    assert.throws(() => Directory.update("x", "a", { weight: -1 }).pipe(withDirectory, Effect.runSync), /weight/)
    assert.throws(
      () => Directory.update("x", "a", { contextWindow: 0.5 }).pipe(withDirectory, Effect.runSync),
      /contextWindow/,
    )
    // @ts-expect-error -- there is no such setting
    assert.throws(() => Directory.update("x", "a", { enabeld: false }).pipe(withDirectory, Effect.runSync), /enabeld/)
    assert.throws(
      () => Directory.replaceAll({ x: { a: { priority: Number.NaN } } }).pipe(withDirectory, Effect.runSync),
      /x a.*priority/s,
    )
    assert.throws(() => Failover.make([well("a").provider], { latencyDecay: 0 }), /latencyDecay/)
  })

  it.effect("tells each change as an event, with what holds now; nothing when nothing changes", () =>
    Effect.gen(function* () {
      const { provider } = duo()
      yield* Directory.register(provider)
      const { effect, events } = listener()
      yield* effect(
        Effect.gen(function* () {
          yield* Directory.update("answers", "a", {
            enabled: false,
            price: { input: 1, output: 2 },
            tags: ["eu", "fast"],
          })
          yield* Directory.disable("answers", "a")
          yield* Directory.update("answers", "b", { priority: 0 })
          yield* Directory.reset("answers")
        }),
      )
      assert.deepStrictEqual(
        events.map((event) => (event.event === "CandidateChanged" ? [event.provider, event.settings] : event.event)),
        [
          ["a", "enabled: false, price: 1 and 2, tags: eu fast"],
          ["a", "enabled: true, price: not known, tags: none"],
        ],
      )
      const [first] = events
      assert.deepInclude(first, { call: "by hand", model: "a-1", composition: "answers", by: "hand" })
      assert.strictEqual(
        PolicyEvent.describe(first!),
        "a (a-1): enabled: false, price: 1 and 2, tags: eu fast (by hand)",
      )
    }).pipe(withDirectory),
  )

  it.effect("changes what it is told to change, whatever an observer does", () =>
    Effect.gen(function* () {
      yield* Directory.register(duo().provider)
      yield* Directory.disable("answers", "a").pipe(
        PolicyEvent.observe(() => {
          throw new Error("an observer's bug")
        }),
      )
      assert.isFalse((yield* one("a")).enabled)
    }).pipe(withDirectory),
  )

  it.effect("is optional: without it everything is as declared", () =>
    Effect.gen(function* () {
      const { provider } = duo()
      assert.strictEqual(yield* ask("generate", provider), "a")
      yield* Effect.gen(function* () {
        yield* Directory.register(provider)
        yield* Directory.disable("answers", "a")
        assert.strictEqual(yield* ask("generate", provider), "b")
      }).pipe(withDirectory)
      assert.strictEqual(yield* ask("generate", provider), "a")
    }),
  )

  it.effect("is each program's own: what one sets, another with the same provider does not see", () =>
    Effect.gen(function* () {
      const { provider } = duo()
      const directory = () =>
        Effect.map(Layer.build(Layer.fresh(Directory.layer)), (context) => Effect.provideContext(context))
      const [mine, theirs] = [yield* directory(), yield* directory()]
      yield* mine(Directory.register(provider))
      yield* mine(Directory.disable("answers", "a"))
      assert.strictEqual(yield* mine(ask("generate", provider)), "b")
      assert.strictEqual(yield* theirs(ask("generate", provider)), "a")
      assert.strictEqual(yield* mine(ask("generate", provider)), "b")
    }),
  )
})

describe("A call", () => {
  /** Disables a candidate when it is asked for the first time. */
  const whileAsked = (name: string, script: Script<LlmError.LlmError>) => {
    const asked = stub(name, script)
    const provider = Provider.make<LM, LlmError.LlmError, Directory.Directory>({
      ...asked.provider,
      generate: (request) =>
        Effect.andThen(
          asked.asked.length === 0 ? Effect.orDie(Directory.disable("answers", name)) : Effect.void,
          asked.provider.generate(request),
        ),
      stream: (request) => asked.provider.stream(request),
    })
    return { ...asked, provider }
  }

  it.effect("sees its candidates as they were when it first asked them, also when it asks them again", () =>
    Effect.gen(function* () {
      const b = well("b")
      const schema = Schema.Struct({ author: Schema.String })
      const a = whileAsked("a", inTurn(says("not JSON"), says('{"author":"Herbert"}')))
      const provider = Failover.make([a.provider, b.provider], { name: "answers" })
      const model = yield* LanguageModelLayer.make(provider)
      const { value } = yield* model.generateObject({ prompt: "Who wrote Dune?", schema, objectName: "dune" })
      assert.deepStrictEqual(value, { author: "Herbert" })
      assert.deepStrictEqual([a.asked.length, b.asked.length], [2, 0])
      // The next call sees what has been set.
      assert.strictEqual(yield* ask("generate", provider), "b")
    }).pipe(withDirectory),
  )

  it.effect("sees one and the same in all the branches of a hedge", () =>
    Effect.gen(function* () {
      const a = stub("a", () => says("a", 10_000))
      const b = stub("b", () => says("b", 1000))
      const provider = Failover.make([a.provider, b.provider], { name: "answers" }).pipe(
        Hedge.with({ delay: "1 second" }),
      )
      const { exit, millis } = yield* play(
        Effect.gen(function* () {
          const call = yield* Effect.forkChild(ask("generate", provider))
          yield* wait(500)
          yield* Directory.disable("answers", "a")
          return yield* Fiber.join(call)
        }),
      )
      assert.deepStrictEqual([said(exit), millis, a.asked, b.asked.length], ["a", 10_000, [0, 1000], 0])
    }).pipe(Effect.provide([Directory.layer, Hedge.layer])),
  )

  it.effect("under way is not disturbed when its candidate is disabled, answer or stream", () =>
    Effect.gen(function* () {
      for (const kind of kinds) {
        const a = stub("a", () =>
          kind === "generate"
            ? says("a", 2000)
            : streams(Stream.concat(Stream.make(start, say("a")), Stream.drain(Stream.fromEffect(wait(2000))))),
        )
        const provider = Failover.make([a.provider, well("b").provider], { name: "answers" })
        const { exit } = yield* play(
          Effect.gen(function* () {
            const call = yield* Effect.forkChild(Effect.exit(ask(kind, provider)))
            yield* wait(1000)
            yield* Directory.disable("answers", "a")
            return yield* Fiber.join(call)
          }),
        )
        assert.isTrue(Exit.isSuccess(exit))
        assert.strictEqual(a.asked.length, 1)
        yield* Directory.reset("answers")
      }
    }).pipe(withDirectory),
  )

  it.effect("may ask only candidates that have all the tags that it requires", () =>
    Effect.gen(function* () {
      const [a, b, c] = [well("a"), well("b"), well("c")]
      const inner = Failover.make([{ provider: c.provider, tags: ["eu", "fast"] }, well("d").provider], {
        name: "inner",
      })
      const provider = Failover.make(
        [a.provider, { provider: b.provider, tags: ["eu"] }, { provider: inner, priority: 1 }],
        { name: "answers" },
      )
      const tagged = (...tags: ReadonlyArray<string>) => play(ask("generate", provider).pipe(Call.requireTags(...tags)))
      assert.strictEqual(said((yield* tagged()).exit), "a")
      assert.strictEqual(said((yield* tagged("eu")).exit), "b")
      assert.strictEqual(said((yield* tagged("fast", "eu")).exit), "c")
      assert.strictEqual(said((yield* tagged("us")).exit), "AllProvidersFailed")
      // Whoever requires more inside does not give up what is required around.
      const both = ask("generate", provider).pipe(Call.requireTags("eu"), Call.requireTags("fast"))
      assert.strictEqual(said((yield* play(both)).exit), "c")
      const stream = Stream.runCollect(Call.stream({ tags: ["eu"] })(provider.stream(question)))
      assert.strictEqual(textOf(yield* stream), "b")
      yield* Directory.update("answers", "a", { tags: ["eu"] })
      assert.strictEqual(said((yield* tagged("eu")).exit), "a")
    }).pipe(withDirectory),
  )
})

describe("The status", () => {
  it.effect("has all candidates of all compositions that were asked or registered, and is JSON by its schema", () =>
    Effect.gen(function* () {
      const price = { input: 1.75, output: 14 }
      const a = well("a")
      const inner = Failover.make([{ provider: well("c").provider, enabled: false }], { name: "inner" })
      const provider = Failover.make(
        [
          { provider: a.provider, contextWindow: 1000, price, tags: ["eu"], weight: 2 },
          { provider: inner, priority: 1 },
        ],
        { name: "answers" },
      )
      assert.deepStrictEqual(yield* Directory.status, [])
      yield* ask("generate", provider)
      yield* Directory.register(provider)
      const status = yield* Directory.status
      assert.deepStrictEqual(
        status.map(({ candidate, composition, enabled, priority, ready }) => [
          composition,
          candidate,
          enabled,
          ready,
          priority,
        ]),
        [
          ["answers", "a", true, true, 0],
          ["answers", "inner", true, true, 1],
          ["inner", "c", false, false, 0],
        ],
      )
      assert.deepInclude(status[0], { model: "a-1", contextWindow: 1000, price, tags: ["eu"], weight: 2, inFlight: 0 })
      const json = Schema.toCodecJson(Schema.Array(Directory.Status))
      const text = JSON.stringify(yield* Schema.encodeEffect(json)(status))
      assert.deepStrictEqual(yield* Schema.decodeUnknownEffect(json)(JSON.parse(text)), status)
      assert.include(text, '"latency":{"answer":0}')
    }).pipe(withDirectory),
  )

  it.effect("tells how long answers and first content take, what is in flight, and how it failed last", () =>
    Effect.gen(function* () {
      const a = stub(
        "a",
        inTurn<LlmError.LlmError>(
          says("a", 1000),
          streams(
            Stream.concat(
              Stream.unwrap(Effect.as(wait(300), Stream.make(start, say("a")))),
              Stream.unwrap(Effect.as(wait(4000), Stream.empty)),
            ),
          ),
          fails(failure("Overloaded"), 100),
        ),
      )
      const provider = Failover.make([a.provider.pipe(Timeouts.with({ attempt: "8 seconds" }))], { name: "answers" })
      const looks = yield* Effect.forkChild(
        Effect.forEach([500, 600, 3000, 3000], (millis) => Effect.andThen(wait(millis), one("a"))),
      )
      yield* play(
        Effect.gen(function* () {
          yield* ask("generate", provider)
          yield* Effect.exit(ask("stream", provider))
          yield* Effect.exit(ask("generate", provider))
          yield* wait(60_000)
        }),
      )
      const [asked, streaming, , after] = yield* Fiber.join(looks)
      assert.deepInclude(asked, { inFlight: 1, latency: {} })
      assert.deepInclude(streaming, {
        inFlight: 1,
        latency: { answer: Duration.millis(Math.round(1000 * Math.exp(-100 / 300_000))) },
      })
      // The stream broke after its first content, and then an attempt failed: that is as bad as the longest it may take.
      assert.strictEqual(after?.inFlight, 0)
      assert.deepStrictEqual(after?.lastFailure, { failure: "Overloaded", at: 5400 })
      assert.strictEqual(after?.answeredAt, 1300)
      assert.closeTo(Duration.toMillis(after!.latency.answer!), 8000 * Math.exp(-1700 / 300_000), 1)
      assert.isAbove(Duration.toMillis(after!.latency.firstContent!), 7000)
    }).pipe(withDirectory),
  )

  it.effect("is not taken in by a circuit that rejects, a refused request, or a caller that leaves", () =>
    Effect.gen(function* () {
      const a = stub(
        "a",
        inTurn<LlmError.LlmError>(
          says("a", 1000),
          fails(failure("InvalidRequest"), 10),
          says("a", 60_000),
          fails(failure("AuthenticationFailed"), 10),
        ),
      )
      const provider = Failover.make([a.provider.pipe(CircuitBreaker.with())], { name: "answers" })
      const latency = Effect.map(one("a"), (status) => Math.round(Duration.toMillis(status.latency.answer!)))
      const call = Effect.exit(ask("generate", provider))
      yield* play(call)
      assert.strictEqual(yield* latency, 1000)
      yield* play(call)
      assert.strictEqual(yield* latency, 1000)
      assert.strictEqual((yield* one("a")).lastFailure?.failure, "InvalidRequest")
      yield* play(Effect.timeoutOption(call, "500 millis"))
      assert.strictEqual(yield* latency, Math.round(1000 * Math.exp(-510 / 300_000)))
      // It has a dead key now. Its circuit is open, and it is not asked.
      yield* play(call)
      const dead = yield* one("a")
      yield* play(call)
      assert.strictEqual((yield* one("a")).lastFailure?.failure, "AuthenticationFailed")
      assert.deepStrictEqual((yield* one("a")).latency, dead.latency)
      assert.strictEqual(a.asked.length, 4)
    }).pipe(Effect.provide([Directory.layer, CircuitBreaker.layer])),
  )

  it.effect("takes it that whoever was waited for in vain takes so long at least", () =>
    Effect.gen(function* () {
      const provider = Failover.make([stub("a", () => hangs).provider], { name: "answers" })
      yield* play(Effect.timeoutOption(ask("generate", provider), "5 seconds"))
      const status = yield* one("a")
      assert.deepStrictEqual([status.latency.answer, status.inFlight], [Duration.seconds(5), 0])
      assert.isUndefined(status.lastFailure)
    }).pipe(withDirectory),
  )

  it.effect("takes attempts of others in the same call for their own", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(failure("Overloaded")))
      const c = stub("c", () => says("c", 2000))
      const ladder = Degradation.make([
        Degradation.primary(Failover.make([a.provider], { name: "answers" })),
        Degradation.model(c.provider),
      ])
      assert.strictEqual(said((yield* play(ask("generate", ladder))).exit), "c")
      const status = yield* one("a")
      assert.deepStrictEqual([status.answeredAt, status.inFlight], [undefined, 0])
      assert.deepStrictEqual(status.lastFailure, { failure: "Overloaded", at: 0 })
    }).pipe(withDirectory),
  )

  it.effect(
    "measures a composition that is a candidate as a whole, but not when a limit keeps it from being asked",
    () =>
      Effect.gen(function* () {
        const b = stub("b", () => streams(timed([0, start], [3000, say("b")], [5000, end])))
        const inner = Failover.make([stub("a", () => fails(failure("Overloaded"), 1000)).provider, b.provider], {
          name: "inner",
        })
        const provider = Failover.make([inner.pipe(Bulkhead.with({ permits: 1, queue: 0 }))], { name: "answers" })
        for (const kind of kinds) {
          yield* play(
            Effect.gen(function* () {
              const first = yield* Effect.forkChild(ask(kind, provider))
              yield* wait(500)
              assert.strictEqual(said(yield* Effect.exit(ask(kind, provider))), "AllProvidersFailed")
              yield* wait(4000)
              // The stream has begun, and runs on.
              assert.strictEqual((yield* one("inner")).inFlight, 1)
              assert.strictEqual((yield* one("b")).inFlight, 1)
              yield* Fiber.join(first)
            }),
          )
        }
        const status = yield* one("inner")
        assert.isUndefined(status.lastFailure)
        assert.strictEqual(status.inFlight, 0)
        assert.closeTo(Duration.toMillis(status.latency.firstContent!), 4000 * Math.exp(-2 / 300), 1)
        assert.strictEqual((yield* one("a")).lastFailure?.failure, "Overloaded")
        assert.closeTo(Duration.toMillis((yield* one("b")).latency.firstContent!), 3000 * Math.exp(-2 / 300), 1)
      }).pipe(Effect.provide([Directory.layer, Bulkhead.layer])),
  )

  it.effect("takes it that an attempt that was cut short takes so long at least, whoever cut it", () =>
    Effect.gen(function* () {
      const a = stub("a", () => hangs).provider.pipe(Timeouts.with({ attempt: "60 seconds" }))
      const provider = Failover.make([a, well("b").provider.pipe(Timeouts.with())], { name: "answers" })
      yield* play(ask("generate", provider).pipe(Call.withDeadline("4 seconds")))
      assert.deepStrictEqual((yield* one("a")).latency.answer, Duration.seconds(2))
      assert.strictEqual((yield* one("a")).lastFailure?.failure, "TimedOut")
    }).pipe(withDirectory),
  )

  it.effect("says of failures that are not of the union, and of defects, that they are failures", () =>
    Effect.gen(function* () {
      const a = stub("a", inTurn(fails(new Foreign()), { whole: Effect.die("a bug"), parts: Stream.empty }))
      const provider = Failover.make([a.provider], { name: "answers" })
      yield* play(ask("generate", provider))
      assert.strictEqual((yield* one("a")).lastFailure?.failure, "Foreign")
      yield* play(ask("generate", provider))
      assert.strictEqual((yield* one("a")).lastFailure?.failure, "Defect")
      assert.deepStrictEqual((yield* one("a")).latency.answer, Duration.seconds(30))
    }).pipe(withDirectory),
  )

  it.effect("shows the circuit that keeps a candidate from being asked: its own, or its account's", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(failure("ModelNotFound")))
      const b = stub("b", () => fails(failure("QuotaExhausted", "b")))
      const provider = Understudy.make({
        candidates: [{ provider: a.provider }, { provider: b.provider }, { provider: well("c").provider }],
        name: "answers",
      })
      yield* Directory.register(provider)
      assert.isUndefined((yield* one("a")).circuit)
      assert.strictEqual(yield* ask("generate", provider), "c")
      assert.deepInclude((yield* one("a")).circuit, { key: "a/a-1", state: "open", mode: "automatic" })
      assert.deepInclude((yield* one("b")).circuit, { key: "b/*", state: "open" })
      assert.deepInclude((yield* one("c")).circuit, { key: "c/c-1", state: "closed" })
      assert.deepStrictEqual(
        (yield* Directory.status).map(({ ready }) => ready),
        [false, false, true],
      )
      const circuits = yield* CircuitBreaker.Circuits
      yield* circuits.isolate("c/c-1")
      assert.isFalse((yield* one("c")).ready)
      // Whoever is watched only is asked all the same.
      yield* circuits.disable("a/a-1")
      yield* Effect.exit(ask("generate", provider))
      assert.deepInclude((yield* one("a")).circuit, { state: "open", mode: "shadow" })
      assert.isTrue((yield* one("a")).ready)
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("has the compositions of every layer that holds a provider, before the first call", () =>
    Effect.gen(function* () {
      class Model extends Provider.Service<Model, Provider.Provider<LM, LlmError.LlmError>>()("test/Model") {}
      const named = (name: string) => Failover.make([well("a").provider], { name })
      const wrapped = named("wrapped").pipe(Retry.with(), Timeouts.deadline(), StructuredOutput.with())
      const ladder = Degradation.make(
        [Degradation.primary(named("laddered")), Degradation.model(named("lesser")), Degradation.fallback("Later.")],
        { name: "ladder" },
      )
      const known = (layer: Layer.Layer<never, never, Directory.Directory | CircuitBreaker.Circuits>) =>
        Effect.gen(function* () {
          yield* Layer.build(layer)
          return (yield* Directory.status).map(({ composition }) => composition)
        }).pipe(Effect.scoped, Effect.provide(Layer.fresh(Understudy.layer)))
      const discarded = <A, E, R>(layer: Layer.Layer<A, E, R>): Layer.Layer<never, E, R> =>
        Layer.effectDiscard(Layer.build(layer))
      assert.deepStrictEqual(yield* known(discarded(Model.layer(named("service")))), ["service"])
      assert.deepStrictEqual(yield* known(discarded(LanguageModelLayer.layer(wrapped))), ["wrapped"])
      assert.deepStrictEqual(yield* known(discarded(LanguageModelLayer.layer(ladder))), ["laddered", "lesser"])
    }),
  )

  it.effect("is of the directory that was there when a layer was built", () =>
    Effect.gen(function* () {
      const { provider } = duo()
      const program = Effect.gen(function* () {
        yield* Directory.disable("answers", "a")
        const { text } = yield* LanguageModel.generateText({ prompt: "Who wrote Dune?" })
        return text
      })
      const layer = LanguageModelLayer.layer(provider).pipe(Layer.provideMerge(Directory.layer))
      assert.strictEqual(yield* Effect.provide(program, layer), "b")
    }),
  )
})

describe("The order of a failover", () => {
  const asked = (
    provider: Provider.Provider<LM, LlmError.LlmError>,
    times: number,
  ): Effect.Effect<Readonly<Record<string, number>>> =>
    Effect.map(
      Effect.forEach(Array.from({ length: times }), () => Effect.orDie(ask("generate", provider))),
      (all) => Object.fromEntries([...Map.groupBy(all, (text) => text)].map(([text, { length }]) => [text, length])),
    )

  it.effect("by weight is drawn for each call, and weights can be set while the program runs", () =>
    Effect.gen(function* () {
      const provider = Failover.make(
        [{ provider: well("a").provider, weight: 3 }, well("b").provider, { provider: well("c").provider, weight: 0 }],
        { name: "answers", order: "weight" },
      )
      const before = yield* asked(provider, 1000)
      assert.isUndefined(before["c"])
      // Five standard deviations.
      assert.isBelow(Math.abs(before["a"]! - 750), 70)
      yield* Directory.update("answers", "a", { weight: 0 })
      assert.deepStrictEqual(yield* asked(provider, 100), { b: 100 })
    }).pipe(withDirectory, Random.withSeed("weights")),
  )

  it.effect("by weight goes on with the others when the first cannot answer", () =>
    Effect.gen(function* () {
      const down = (name: string) => stub(name, () => fails(failure("Overloaded", name)))
      const all = [down("a"), down("b"), down("c")]
      const provider = Failover.make([all[0]!.provider, all[1]!.provider, all[2]!.provider], { order: "weight" })
      const { exit } = yield* play(ask("generate", provider))
      const error = expectTag("AllProvidersFailed", failed(exit))
      assert.deepStrictEqual(error.failures.map((f) => f.provider).toSorted(), ["a", "b", "c"])
    }).pipe(Random.withSeed(1)),
  )

  for (const kind of kinds) {
    it.effect(
      `by latency asks each once, and then whoever answers soonest, for ${kind}, with a directory and without`,
      () =>
        Effect.gen(function* () {
          const run = Effect.gen(function* () {
            const [a, b, c] = [
              stub("a", () => says("a", 3000)),
              stub("b", () => says("b", 1000)),
              stub("c", () => says("c", 2000)),
            ]
            const provider = Failover.make([a.provider, b.provider, c.provider], { name: "answers", order: "latency" })
            const order: Array<string> = []
            for (let n = 0; n < 8; n++) order.push(said((yield* play(ask(kind, provider))).exit))
            return order.join("")
          })
          assert.strictEqual(yield* run, "abcbbbbb")
          assert.strictEqual(yield* withDirectory(run), "abcbbbbb")
        }),
    )
  }

  it.effect("by latency spreads a crowd, and tries whoever was slow again after a while", () =>
    Effect.gen(function* () {
      let slow = 3000
      const a = stub("a", () => says("a", slow))
      const b = stub("b", () => says("b", 1000))
      const provider = Failover.make([a.provider, b.provider], {
        name: "answers",
        order: "latency",
        latencyDecay: "10 seconds",
      })
      yield* play(ask("generate", provider))
      yield* play(ask("generate", provider))
      // One after the other, all are the fast one's. Four at once are shared.
      const crowd = Effect.all(
        Array.from({ length: 4 }, () => ask("generate", provider)),
        { concurrency: "unbounded" },
      )
      const { exit } = yield* play(Effect.map(crowd, (all) => all.toSorted().join("")))
      assert.strictEqual(said(exit), "abbb")
      slow = 100
      const later: Array<string> = []
      for (let n = 0; n < 30; n++) later.push(said((yield* play(ask("generate", provider))).exit))
      assert.match(later.join(""), /^b{5,20}[ab]*a{10}$/)
    }).pipe(withDirectory),
  )

  it.effect("by latency does not prefer whoever fails fast", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(failure("ProviderUnavailable"), 1))
      const b = stub("b", () => says("b", 2000))
      const provider = Failover.make([a.provider, b.provider], { name: "answers", order: "latency" })
      for (let n = 0; n < 10; n++) assert.strictEqual(said((yield* play(ask("generate", provider))).exit), "b")
      assert.strictEqual(a.asked.length, 1)
    }).pipe(withDirectory),
  )

  it.effect("by cost asks whose price for this prompt and its answer is lowest, and unknown prices last", () =>
    Effect.gen(function* () {
      const provider = Failover.make(
        [
          well("unknown").provider,
          { provider: well("reader").provider, price: { input: 1, output: 20 } },
          { provider: well("writer").provider, price: { input: 4, output: 8 } },
          { provider: well("dear").provider, price: { input: 50, output: 50 }, priority: -1, enabled: false },
        ],
        { name: "answers", order: "cost" },
      )
      const of = (text: string) => provider.generate(LanguageModelFace.request(text)).pipe(Effect.map(textOf))
      // 500 tokens of an answer, where the call does not say how many it may have.
      assert.strictEqual(yield* of("Who wrote Dune?"), "writer")
      assert.strictEqual(yield* of("word ".repeat(5000)), "reader")
      assert.strictEqual(yield* of("Yes or no?").pipe(Call.withParameters({ maxTokens: 1 })), "reader")
      yield* Directory.update("answers", "unknown", { price: { input: 0, output: 0 } })
      assert.strictEqual(yield* of("Who wrote Dune?"), "unknown")
      yield* Directory.enable("answers", "dear")
      assert.strictEqual(yield* of("Who wrote Dune?"), "dear")
    }).pipe(withDirectory),
  )

  it.effect("is an option of the preset, with all that is set for a candidate", () =>
    Effect.gen(function* () {
      const provider = Understudy.make({
        name: "answers",
        order: "cost",
        latencyDecay: "1 minute",
        candidates: [
          { provider: well("a").provider, price: { input: 2, output: 2 }, tags: ["eu"], weight: 2 },
          { provider: well("b").provider, price: { input: 1, output: 1 }, contextWindow: 5 },
        ],
      })
      assert.strictEqual(yield* ask("generate", provider), "a")
      yield* Directory.update("answers", "b", { contextWindow: 1000 })
      assert.strictEqual(yield* ask("generate", provider), "b")
      assert.strictEqual(yield* ask("generate", provider).pipe(Call.requireTags("eu")), "a")
      assert.deepInclude(yield* one("a"), { tags: ["eu"], weight: 2, price: { input: 2, output: 2 } })
    }).pipe(Effect.provide(Understudy.layer)),
  )
})

describe("A context window", () => {
  const long = LanguageModelFace.request("word ".repeat(3000))
  const exact = TokenCounter.layer(
    TokenCounter.make({ name: "words", exact: true, text: (text) => text.split(" ").length - 1 }),
  )
  const windows = (small: number, large: number | undefined) => {
    const [a, b] = [well("a"), well("b")]
    const provider = Failover.make(
      [
        { provider: a.provider, contextWindow: small },
        { provider: b.provider, contextWindow: large },
      ],
      { name: "answers" },
    )
    return { a, b, provider }
  }

  it.effect("that cannot hold the prompt has its candidate passed over, and an event says so", () =>
    Effect.gen(function* () {
      const { a, provider } = windows(1000, 100_000)
      const { effect, events } = listener()
      assert.strictEqual(textOf(yield* effect(provider.generate(long))), "b")
      const stream = yield* Effect.scoped(
        Effect.flatMap(Scope.Scope, (scope) => Effect.map(provider.open(long, scope), ({ head }) => textOf(head))),
      )
      assert.strictEqual(stream, "b")
      assert.strictEqual(a.asked.length, 0)
      const passed = events.filter((event) => event.event === "PassedOver")
      assert.deepStrictEqual(
        passed.map(({ contextWindow, provider: who }) => [who, contextWindow]),
        [["a", 1000]],
      )
      assert.isAtLeast(passed[0]!.tokens, 1001)
    }),
  )

  it.effect("is held against nobody on an estimate that may be too high, but on a count that is exact", () =>
    Effect.gen(function* () {
      const { provider } = windows(2500, 100_000)
      assert.strictEqual(textOf(yield* provider.generate(long)), "a")
      assert.strictEqual(textOf(yield* provider.generate(long).pipe(Effect.provide(exact))), "b")
    }),
  )

  it.effect("must hold the answer too, as long as the call lets it be", () =>
    Effect.gen(function* () {
      const { provider } = windows(4000, 100_000)
      const call = provider.generate(long).pipe(Effect.provide(exact), Effect.map(textOf))
      assert.strictEqual(yield* call, "a")
      assert.strictEqual(yield* call.pipe(Call.withParameters({ maxTokens: 1500 })), "b")
    }),
  )

  it.effect("that nobody has keeps nobody from being asked, and neither does one that is alone", () =>
    Effect.gen(function* () {
      const none = windows(1000, 1500)
      assert.strictEqual(textOf(yield* none.provider.generate(long)), "a")
      const { a, provider } = windows(1000, 100_000)
      assert.strictEqual(textOf(yield* provider.generate(long).pipe(Call.pin("a"))), "a")
      assert.strictEqual(a.asked.length, 1)
    }),
  )

  it.effect("that is not known may hold everything", () =>
    Effect.gen(function* () {
      const { provider } = windows(1000, undefined)
      assert.strictEqual(textOf(yield* provider.generate(long)), "b")
    }),
  )

  it.effect("that is too small makes its candidate no alternative for which time is kept", () =>
    Effect.gen(function* () {
      const big = stub("big", () => says("big", 50_000))
      const small = well("small")
      const provider = Failover.make([
        big.provider.pipe(Timeouts.with({ attempt: "60 seconds" })),
        { provider: small.provider.pipe(Timeouts.with({ attempt: "60 seconds" })), contextWindow: 100 },
      ]).pipe(Timeouts.deadline({ generate: "60 seconds" }))
      const { exit } = yield* play(Effect.map(provider.generate(long), textOf))
      assert.strictEqual(said(exit), "big")
    }),
  )
})

describe("Asked before it is known", () => {
  it.effect("a composition made anew under its name finds what was set for it", () =>
    Effect.gen(function* () {
      const make = () => duo().provider
      yield* Directory.register(make())
      yield* Directory.disable("answers", "a")
      assert.strictEqual(yield* ask("generate", make()), "b")
      assert.strictEqual(yield* ask("generate", make()), "b")
      assert.lengthOf(yield* Directory.status, 2)
    }).pipe(withDirectory),
  )

  it.effect(
    "a composition that takes the place of another keeps what was set by hand, but for what is declared anew",
    () =>
      Effect.gen(function* () {
        const version = (settings: Directory.Settings, ...others: ReadonlyArray<string>) =>
          Failover.make([{ provider: well("a").provider, ...settings }, ...others.map((name) => well(name).provider)], {
            name: "answers",
          })
        yield* Directory.replace(version({ priority: 1 }, "b"))
        yield* Directory.update("answers", "a", { priority: 5, weight: 7 })
        yield* Directory.disable("answers", "b")
        const { effect, events } = listener()
        yield* effect(Directory.replace(version({ priority: 2 }, "c")))
        assert.deepStrictEqual((yield* one("a")).overrides, { weight: 7 })
        assert.strictEqual((yield* one("a")).priority, 2)
        assert.deepStrictEqual(
          (yield* Directory.status).map(({ candidate }) => candidate),
          ["a", "c"],
        )
        assert.deepStrictEqual(
          events.map(
            (event) => event.event === "CandidateChanged" && [event.provider, event.settings, event.by, event.call],
          ),
          [["a", "priority: 2", "file", "configuration"]],
        )
        // Who comes back begins anew.
        yield* Directory.replace(version({ priority: 2 }, "b"))
        assert.isTrue((yield* one("b")).enabled)
      }).pipe(withDirectory),
  )
})

describe("The errors of a directory", () => {
  it("are JSON, and tell no more than twenty names", () => {
    const known = Array.from({ length: 30 }, (_, n) => `c${n}`)
    const error = new Directory.UnknownCandidate({ composition: "answers", candidate: "x", known })
    assert.include(error.message, "c19, and others")
    assert.notInclude(error.message, "c20")
    const codec = Schema.toCodecJson(Directory.UnknownCandidate)
    assert.deepStrictEqual(
      Schema.decodeUnknownSync(codec)(JSON.parse(JSON.stringify(Schema.encodeSync(codec)(error)))),
      error,
    )
  })
})
