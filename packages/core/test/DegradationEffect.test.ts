import { assert, describe, it } from "@effect/vitest"
import { Cause, DateTime, type Duration, Effect, Exit, Fiber, Option, Redacted, Schema } from "effect"
import { TestClock } from "effect/testing"
import { AnswerCache, Call, Degradation, LlmError, Retry, Understudy } from "@understudy/core"
import { assertInOrder, listener } from "./PolicyEvent.check.ts"
import { expectTag, failed, failure, Foreign, play, settle, wait } from "./stub.ts"

const later = (duration: Duration.Input) => TestClock.adjust(duration)
const played = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.flatMap(play(self), ({ exit }) => exit)
/** An equal value of its own, where it can be copied. */
const copied = (key: unknown): unknown =>
  DateTime.isDateTime(key) ? key : key instanceof URL ? new URL(key) : structuredClone(key)
const overloaded = (provider: string) => Effect.fail(failure("Overloaded", provider))

describe("A ladder below an effect", () => {
  it.effect("steps down rung by rung, and says where the value came from", () =>
    Effect.gen(function* () {
      const down = { primary: false, model: false, simplified: false }
      const rung = (name: keyof typeof down) =>
        Effect.suspend(() => (down[name] ? overloaded(name) : Effect.succeed(`by ${name}`)))
      const value = Degradation.effect(
        rung("primary"),
        [
          Degradation.cache({ scope: "everyone", timeToLive: "10 minutes", key: "work", schema: Schema.String }),
          Degradation.model(rung("model")),
          Degradation.simplified(rung("simplified")),
          Degradation.stale({ maxAge: "1 hour" }),
          Degradation.fallback(0),
        ],
        { name: "work" },
      )
      const next = played(Effect.map(value, Degradation.tuple))
      assert.deepStrictEqual(yield* next, ["by primary", "primary"])
      down.primary = true
      assert.deepStrictEqual(yield* next, ["by primary", "cache"])
      yield* later("10 minutes")
      assert.deepStrictEqual(yield* next, ["by model", "model"])
      down.model = true
      assert.deepStrictEqual(yield* next, ["by simplified", "simplified"])
      down.simplified = true
      assert.deepStrictEqual(yield* next, ["by primary", "stale"])
      yield* later("1 hour")
      assert.deepStrictEqual(yield* next, [0, "fallback"])
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it.effect("tells what the rungs above failed with, and all of it in events", () =>
    Effect.gen(function* () {
      const heard = listener()
      const value = Degradation.effect(
        overloaded("lead"),
        [Degradation.model(Effect.fail(failure("RateLimited", "cheap"))), Degradation.fallback("none")],
        { name: "weather" },
      )
      const { failures, model, provider, source } = yield* played(heard.effect(value))
      assert.deepStrictEqual([source, provider, model], ["fallback", "weather", "none"])
      assert.deepStrictEqual(
        failures.map(({ _tag }) => _tag),
        ["Overloaded", "RateLimited"],
      )
      assertInOrder(heard.events)
      assert.deepStrictEqual(
        heard.events.flatMap((event) =>
          event.event === "Degraded"
            ? [`${event.provider}: ${event.failure} > ${event.to}`]
            : event.event === "Answered"
              ? [event.source]
              : [],
        ),
        ["weather: Overloaded > model", "weather: RateLimited > fallback", "fallback"],
      )
    }),
  )

  it.effect("with a cache before it asks once for what is fresh, by key and tenant", () =>
    Effect.gen(function* () {
      let runs = 0
      const forecast = (city: string) =>
        Degradation.effect(
          Effect.sync(() => `${city} ${++runs}`),
          [Degradation.cache({ scope: "tenant", key: { city }, schema: Schema.String }), Degradation.primary()],
          { name: "forecast" },
        )
      const of = (city: string, tenant: string) =>
        Effect.map(played(forecast(city).pipe(Call.withCache({ tenant }))), ({ answer }) => answer)
      assert.strictEqual(yield* of("Rome", "a"), "Rome 1")
      assert.strictEqual(yield* of("Rome", "a"), "Rome 1")
      assert.strictEqual(yield* of("Oslo", "a"), "Oslo 2")
      assert.strictEqual(yield* of("Rome", "b"), "Rome 3")
      assert.strictEqual(yield* of("Oslo", "a"), "Oslo 2")
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it.effect("keeps values by the JSON of their schema: dates, nothing at all, and no others", () =>
    Effect.gen(function* () {
      /** A value the first time, and none after that. */
      const once = <A>(value: A) => {
        let runs = 0
        return Effect.suspend(() => (++runs === 1 ? Effect.succeed(value) : overloaded("lead")))
      }
      const twice = <A, S extends Degradation.Source, E, R>(ladder: Effect.Effect<Degradation.Answered<A, S>, E, R>) =>
        Effect.andThen(played(ladder), Effect.exit(played(Effect.map(ladder, Degradation.tuple))))
      const scope = "everyone"
      const name = "once"

      const at = DateTime.makeUnsafe("2026-11-20T00:00:00Z")
      const dates = Degradation.cache({ scope, key: "date", schema: Schema.DateTimeUtcFromString })
      const [date] = yield* yield* twice(Degradation.effect(once(at), [dates], { name }))
      assert.isTrue(DateTime.Equivalence(date, at))
      const nothings = Degradation.cache({ scope, key: "nothing", schema: Schema.Undefined })
      assert.deepStrictEqual(yield* yield* twice(Degradation.effect(once(undefined), [nothings], { name })), [
        undefined,
        "cache",
      ])
      // What does not fit its schema is not kept.
      const positive = Schema.Number.check(Schema.isGreaterThan(0))
      const positives = Degradation.cache({ scope, key: "positive", schema: positive })
      expectTag("Overloaded", failed(yield* twice(Degradation.effect(once(-1), [positives], { name }))))
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it.effect("keeps values by what their keys hold, and those of other names apart", () =>
    Effect.gen(function* () {
      let runs = 0
      const runOf = (key: unknown, name = "work") =>
        Effect.map(
          Degradation.effect(
            Effect.sync(() => ++runs),
            [Degradation.cache({ scope: "everyone", key, schema: Schema.Number }), Degradation.primary()],
            { name },
          ),
          ({ answer }) => answer,
        )
      const keys = [
        1,
        "1",
        1n,
        "1n",
        Number.NaN,
        "NaN",
        new Uint8Array([1]).buffer,
        new Uint8Array([2]).buffer,
        "bytes(AQ==)",
        new Date(0),
        new Date(1),
        "1970-01-01T00:00:00.000Z",
        new URL("https://a.b/"),
        "https://a.b/",
        DateTime.makeUnsafe(0),
        DateTime.makeZonedUnsafe(0, { timeZone: "Europe/Rome" }),
        DateTime.makeZonedUnsafe(0, { timeZone: "Europe/Oslo" }),
        new Set([1]),
        [1],
        new Map([["a", 1]]),
        new Map([["a", 2]]),
        [["a", 1]],
        { a: 1 },
        { a: [new Set([1])] },
      ]
      for (const [index, key] of keys.entries()) assert.strictEqual(yield* runOf(key), index + 1)
      for (const [index, key] of keys.entries()) assert.strictEqual(yield* runOf(copied(key)), index + 1)
      assert.strictEqual(yield* runOf(1, "other work"), keys.length + 1)
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it("takes no key that others could share: instances of classes, functions, what is redacted", () => {
    class User {
      readonly name: string
      constructor(name: string) {
        this.name = name
      }
      toJSON(): string {
        return "a user"
      }
    }
    const loop: Record<string, unknown> = {}
    loop["self"] = loop
    const schema = Schema.String
    for (const key of [
      Redacted.make("alice"),
      { user: Redacted.make("alice") },
      [Option.some(Redacted.make("alice"))],
      new User("alice"),
      /alice/,
      new Error("alice"),
      new DataView(new ArrayBuffer(1)),
      () => "alice",
      Symbol("alice"),
      { toJSON: () => "alice" },
      loop,
    ]) {
      for (const make of [
        () => Degradation.cache({ scope: "everyone", key, schema }),
        () => Degradation.stale({ scope: "everyone", key, schema }),
      ]) {
        assert.throws(make, /\.key: expected plain data/)
        assert.throws(make, Understudy.InvalidOptions)
      }
    }
  })

  it.effect("does not catch what is no LlmError, nor an InvalidRequest, unless it catches everything", () =>
    Effect.gen(function* () {
      const foreign = new Foreign("mine")
      const invalid = failure("InvalidRequest", "lead")
      const rungs = [Degradation.fallback((failure: unknown) => LlmError.isLlmError(failure))] as const
      for (const [error, known] of [
        [foreign, false],
        [invalid, true],
      ] as const) {
        const { exit } = yield* play(Degradation.effect(Effect.fail(error), rungs))
        assert.strictEqual(failed(exit), error)
        const { answer, source } = yield* played(Degradation.effect(Effect.fail(error), rungs, Degradation.everything))
        assert.deepStrictEqual([answer, source], [known, "fallback"])
      }
      const boom = yield* play(Degradation.effect(Effect.die("boom"), rungs, Degradation.everything))
      assert.isTrue(Exit.isFailure(boom.exit) && Cause.hasDies(boom.exit.cause))
    }),
  )

  it.effect("waits for no fallback after its time, not even for one that cannot be interrupted", () =>
    Effect.gen(function* () {
      let ended = 0
      const stubborn = Effect.uninterruptible(
        Effect.andThen(
          wait(60_000),
          Effect.sync(() => ++ended),
        ),
      )
      const value = Degradation.effect(
        Effect.never.pipe(
          Effect.timeoutOrElse({
            duration: "1 second",
            orElse: () => Effect.fail(failure("DeadlineExceeded", "lead")),
          }),
        ),
        [Degradation.fallback(stubborn)],
      )
      const { exit, millis } = yield* play(value.pipe(Call.withDeadline("1 second")))
      expectTag("DeadlineExceeded", failed(exit))
      assert.deepStrictEqual([millis, ended], [1250, 0])
    }),
  )

  it.effect("whose caller leaves stops its fallback", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const fallback = Effect.never.pipe(Effect.onInterrupt(() => Effect.sync(() => void log.push("stopped"))))
      const value = Degradation.effect(overloaded("lead"), [Degradation.fallback(fallback)])
      const fiber = yield* Effect.forkChild(value.pipe(Call.withDeadline("1 second")))
      yield* settle
      yield* Fiber.interrupt(fiber)
      log.push("left")
      assert.deepStrictEqual(log, ["stopped", "left"])
    }),
  )

  it.effect("asks nobody after a DeadlineExceeded, whoever's deadline it was", () =>
    Effect.gen(function* () {
      let asked = 0
      const value = Degradation.effect(Effect.fail(failure("DeadlineExceeded", "lead")), [
        Degradation.model(Effect.sync(() => ++asked)),
        Degradation.fallback(Effect.as(wait(1000), "late")),
      ])
      const { exit, millis } = yield* play(value)
      expectTag("DeadlineExceeded", failed(exit))
      assert.deepStrictEqual([asked, millis], [0, 250])
    }),
  )

  it.effect("stands above other policies, and is interrupted as a whole", () =>
    Effect.gen(function* () {
      let runs = 0
      let left = 0
      const work = Retry.effect(
        Effect.suspend(() => (++runs < 3 ? overloaded("lead") : Effect.never)).pipe(
          Effect.onInterrupt(() => Effect.sync(() => void left++)),
        ),
        { base: "1 millis" },
      )
      const fiber = yield* Effect.forkChild(Degradation.effect(work, [Degradation.fallback("none")]))
      yield* settle
      yield* later("1 second")
      assert.deepStrictEqual([runs, left], [3, 0])
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(left, 1)
    }),
  )
})
