import { assert, describe, it } from "@effect/vitest"
import type { Layer } from "effect"
import { Effect, Exit, Redacted, Schema, Stream } from "effect"
import { LanguageModel } from "effect/ai"
import {
  Call,
  CircuitBreaker,
  Classifier,
  Failover,
  FailureMode,
  LanguageModelFace,
  LanguageModelLayer,
  type LlmError,
  PolicyEvent,
  Provider,
  Retry,
  Timeouts,
  Understudy,
} from "@understudy/core"
import {
  ask,
  failed,
  fails,
  failure,
  hangs,
  inTurn,
  play,
  question,
  said,
  say,
  says,
  seconds,
  streams,
  stub,
  end,
} from "./stub.ts"

describe("Where one thing ends and another begins", () => {
  it.effect("a failover inside another bounds its own attempts only", () =>
    Effect.gen(function* () {
      const [a, b] = ["a", "b"].map((name) => stub(name, () => fails(failure("Overloaded", name))))
      const c = stub("c", () => says("c"))
      const inner = Failover.make([a!.provider, b!.provider], { maxAttempts: 2 })
      assert.strictEqual(said((yield* play(ask("generate", Failover.make([inner, c.provider])))).exit), "c")
    }),
  )

  it.effect("calls inside a program that a policy guards are calls of their own", () =>
    Effect.gen(function* () {
      const down = stub("down", () => fails(failure("Overloaded", "down")))
      const well = stub("well", () => says("well", 20_000))
      const model = Understudy.make({ candidates: [{ provider: down.provider }, { provider: well.provider }] })
      const eight = Effect.forEach(Array.from({ length: 8 }), () => ask("generate", model))
      const all = Array.from({ length: 8 }, () => "well")
      const clocked = Timeouts.effect(eight, { attempt: "10 minutes" })
      assert.deepStrictEqual((yield* play(Retry.effect(eight))).exit, Exit.succeed(all))
      assert.deepStrictEqual((yield* play(clocked)).exit, Exit.succeed(all))
      assert.deepStrictEqual((yield* play(CircuitBreaker.effect(eight, { key: "program" }))).exit, Exit.succeed(all))
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("one account's trouble does not open the circuit of the others, nor theirs its own", () =>
    Effect.gen(function* () {
      const spent = failure("QuotaExhausted", "a", { retryAfter: seconds(3600) })
      const a = stub("a", inTurn(fails(spent), says("a"), fails(spent), says("a")))
      const model = Understudy.make({ candidates: [{ provider: a.provider }] })
      const own = Call.withCredential("a", Redacted.make("sk-of-a-tenant"))
      assert.strictEqual(said((yield* play(own(ask("generate", model)))).exit), "AllProvidersFailed")
      assert.strictEqual(said((yield* play(ask("generate", model))).exit), "a")
      assert.strictEqual(said((yield* play(ask("generate", model))).exit), "AllProvidersFailed")
      assert.strictEqual(said((yield* play(own(ask("generate", model)))).exit), "a")
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("a backoff longer than the patience ends when another candidate becomes ready", () =>
    Effect.gen(function* () {
      const busy = fails(failure("RateLimited", "a", { retryAfter: seconds(50) }))
      const a = stub("a", inTurn(busy, says("a")))
      const b = stub("b", inTurn(fails(failure("ModelNotFound", "b")), says("b")))
      const model = Understudy.make({
        candidates: [
          { provider: a.provider, breaker: false },
          { provider: b.provider, breaker: { openFor: "5 seconds" } },
        ],
      })
      // Opens the circuit of the second for five seconds.
      yield* play(Effect.ignore(ask("generate", model).pipe(Call.pin("b"))))
      const { exit, millis } = yield* play(ask("generate", model))
      assert.strictEqual(said(exit), "b")
      assert.isAtMost(millis, 7000)
      assert.deepStrictEqual([a.asked.length, b.asked.length], [1, 2])
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("a deadline holds for what is buffered behind it, too", () =>
    Effect.gen(function* () {
      const parts = Stream.rechunk(Stream.fromIterable([...Array.from({ length: 20 }, () => say("x")), end]), 1)
      const model = Understudy.make({ candidates: [{ provider: stub("a", () => streams(parts)).provider }] })
      const slowly = Stream.runForEach(model.stream(question), () => Effect.sleep("1 second"))
      const { exit, millis } = yield* play(Call.withDeadline("3 seconds")(slowly))
      const interrupted = failed(exit)
      assert.isTrue(interrupted._tag === "StreamInterrupted" && interrupted.failure?._tag === "DeadlineExceeded")
      assert.isAtMost(millis, 5000)
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("with three candidates each has its share of a deadline that is too short for all", () =>
    Effect.gen(function* () {
      const [a, b] = ["a", "b"].map((name) => stub(name, () => hangs))
      const c = stub("c", () => says("c", 19_000))
      const model = Understudy.make({
        candidates: [{ provider: a!.provider }, { provider: b!.provider }, { provider: c.provider }],
        deadline: { generate: "60 seconds" },
      })
      assert.strictEqual(said((yield* play(ask("generate", model))).exit), "c")
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("a judge, a face or an observer that throws or rejects changes nothing", () =>
    Effect.gen(function* () {
      const boom = (): never => {
        throw new Error("boom")
      }
      const a = stub("a", inTurn(fails(failure("RateLimited")), says("a")))
      const model = a.provider.pipe(CircuitBreaker.with(), Retry.with())
      const { exit } = yield* play(
        ask("generate", model).pipe(
          Effect.provide(FailureMode.layer({ RateLimited: { health: boom } })),
          PolicyEvent.observe(async () => boom()),
        ),
      )
      assert.strictEqual(said(exit), "a")
      const mute = Provider.make({
        name: "mute",
        model: "m",
        face: { ...LanguageModelFace.languageModelFace, text: boom, partText: boom },
        generate: () => says("hi").whole,
        stream: () => says("hi").parts,
      })
      const heard = PolicyEvent.observe(() => undefined)
      assert.strictEqual((yield* play(heard(mute.generate(question)))).exit._tag, "Success")
      assert.strictEqual((yield* play(heard(Stream.runDrain(mute.stream(question))))).exit._tag, "Success")
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("an option that is undefined is one that is not given", () =>
    Effect.gen(function* () {
      const model = Understudy.make({
        candidates: [{ provider: stub("a", () => hangs).provider, timeouts: { attempt: undefined }, retry: false }],
        timeouts: { attempt: "5 seconds" },
      })
      assert.strictEqual((yield* play(ask("generate", model))).millis, 5000)
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("a provider behind a service sees the caller's overrides, not those of its layer", () =>
    Effect.gen(function* () {
      class Model extends Provider.Service<
        Model,
        Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.ProviderFailure>
      >()("test/Model") {}
      const seen: Array<number | undefined> = []
      const provider = Provider.make({
        name: "p",
        model: "m",
        face: LanguageModelFace.languageModelFace,
        generate: () =>
          Effect.flatMap(Call.CurrentOverrides, ({ parameters }) => {
            seen.push(parameters?.temperature)
            return says("p").whole
          }),
        stream: () => says("p").parts,
      })
      const layer: Layer.Layer<Model> = Model.layer(provider)
      const program = Effect.flatMap(Model, (model) =>
        model.generate(question).pipe(Call.withParameters({ temperature: 0.9 })),
      )
      yield* program.pipe(Effect.provide(layer), Call.withParameters({ temperature: 0.1 }))
      assert.deepStrictEqual(seen, [0.9])
    }),
  )

  it.effect("an object of dates and big numbers is decoded from the JSON of an answer", () =>
    Effect.gen(function* () {
      const json = '{"at":"2026-11-20T00:00:00.000Z","n":"12345678901234567890","where":"https://example.com/"}'
      const schema = Schema.Struct({ at: Schema.Date, n: Schema.BigInt, where: Schema.URL })
      const provider = stub("a", () => says(json)).provider
      const { value } = yield* LanguageModel.generateObject({ prompt: "When?", schema }).pipe(
        Effect.provide(LanguageModelLayer.layer(provider)),
      )
      assert.deepStrictEqual(
        [value.at.getUTCFullYear(), value.n, value.where.host],
        [2026, 12345678901234567890n, "example.com"],
      )
    }),
  )

  it("a provider may have any name", () => {
    for (const provider of ["constructor", "__proto__", "toString", ""]) {
      const signal = { where: "http", status: 401, headers: {}, body: "" } as const
      assert.strictEqual(Classifier.classify(signal, { provider })._tag, "AuthenticationFailed")
    }
  })
})
