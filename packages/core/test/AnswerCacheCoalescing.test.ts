import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Layer, Redacted, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import {
  AnswerCache,
  Call,
  Degradation,
  Failover,
  LanguageModelFace,
  type LlmError,
  type Provider,
  Understudy,
} from "@understudy/core"
import { assertInOrder, listener } from "./PolicyEvent.check.ts"
import {
  dies,
  expectTag,
  failed,
  fails,
  failure,
  hangs,
  inTurn,
  type LM,
  play,
  question,
  random,
  says,
  settle,
  stub,
  textOf,
  wait,
} from "./stub.ts"

type Model = Provider.Provider<LM, LlmError.ProviderFailure>

const played = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.flatMap(play(self), ({ exit }) => exit)

const coalesced = (provider: Model) =>
  Degradation.make([
    Degradation.cache({ scope: "everyone", coalesce: true, timeToLive: "1 millis" }),
    Degradation.primary(provider),
  ])

/** What a call got: its source and text, or its failure's tag. */
const said = <S extends Degradation.Source, E extends { readonly _tag: string }, R>(
  ladder: Degradation.Ladder<LM, S, E, R>,
  request = question,
) =>
  Effect.matchCause(ladder.ask(request), {
    onSuccess: ({ answer, source }) => `${source}: ${textOf(answer)}`,
    onFailure: (cause) => {
      const error = Cause.findErrorOption(cause)
      return error._tag === "Some" ? error.value._tag : Cause.hasDies(cause) ? "died" : "interrupted"
    },
  })

const together = { concurrency: "unbounded" } as const

describe("Equal calls at the same time", () => {
  it.effect("are one attempt, whose answer is everybody's, each with its own events", () =>
    Effect.gen(function* () {
      const lead = stub("lead", () => says("Herbert.", 1000))
      const ladder = coalesced(lead.provider)
      const heard = [listener(), listener(), listener()]
      const all = yield* play(
        Effect.all(
          heard.map((each, index) => Effect.delay(each.effect(said(ladder)), index * 100)),
          together,
        ),
      )
      assert.deepStrictEqual(all.exit, Exit.succeed(Array.from({ length: 3 }, () => "primary: Herbert.")))
      assert.deepStrictEqual([all.millis, all.timers, lead.asked.length], [1000, 0, 1])
      for (const each of heard) assertInOrder(each.events)
      assert.deepStrictEqual(
        heard.map((each) => each.names().join(" ")),
        [
          "CallStarted CacheRead AttemptStarted AttemptSucceeded CacheWritten Answered",
          "CallStarted CacheRead Answered",
          "CallStarted CacheRead Answered",
        ],
      )
      assert.strictEqual(new Set(heard.map(({ events }) => events[0]?.call)).size, 3)
      for (const { events } of heard) {
        assert.deepInclude(events.at(-1), { source: "primary", provider: "lead", model: "lead-1" })
      }
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it.effect("are asked one by one without the option", () =>
    Effect.gen(function* () {
      const lead = stub("lead", () => says("Herbert.", 1000))
      const ladder = Degradation.make([Degradation.cache({ scope: "everyone" }), Degradation.primary(lead.provider)])
      yield* played(Effect.all([said(ladder), said(ladder)], together))
      assert.strictEqual(lead.asked.length, 2)
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it.effect("share a failure, and step down each by itself", () =>
    Effect.gen(function* () {
      const lead = stub("lead", () => fails(failure("Overloaded", "lead"), 1000))
      const cheap = stub("cheap", (attempt) => says(`answer ${attempt}`))
      const ladder = Degradation.make([
        Degradation.primary(lead.provider),
        Degradation.cache({ scope: "everyone", coalesce: true }),
        Degradation.model(cheap.provider),
      ])
      const heard = [listener(), listener()]
      const all = yield* play(
        Effect.all(
          heard.map((each) => each.effect(said(ladder))),
          together,
        ),
      )
      assert.sameMembers([...(yield* all.exit)], ["model: answer 1", "model: answer 2"])
      assert.deepStrictEqual([all.millis, lead.asked.length], [1000, 1])
      for (const each of heard) {
        assertInOrder(each.events)
        assert.include(each.names(), "Degraded")
      }
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it.effect("share a defect, which nobody catches", () =>
    Effect.gen(function* () {
      const lead = stub("lead", () => ({ ...dies("boom"), whole: Effect.andThen(wait(10), Effect.die("boom")) }))
      const ladder = coalesced(lead.provider)
      assert.deepStrictEqual(yield* played(Effect.all([said(ladder), said(ladder)], together)), ["died", "died"])
      assert.strictEqual(lead.asked.length, 1)
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it.effect("go on when the one that asks leaves: the next in line asks", () =>
    Effect.gen(function* () {
      const lead = stub("lead", inTurn(hangs, hangs, says("Herbert.", 1000)))
      const ladder = coalesced(lead.provider)
      const heard = listener()
      const fibers: Array<Fiber.Fiber<string>> = []
      for (let n = 0; n < 4; n++) {
        fibers.push(yield* Effect.forkChild(heard.effect(said(ladder))))
        yield* settle
      }
      assert.deepStrictEqual([lead.asked.length, lead.running()], [1, 1])
      yield* Fiber.interrupt(fibers[0]!)
      yield* settle
      assert.deepStrictEqual([lead.asked.length, lead.running()], [2, 1])
      yield* Fiber.interrupt(fibers[1]!)
      yield* settle
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Fiber.join(fibers[2]!), "primary: Herbert.")
      assert.deepStrictEqual(yield* Fiber.join(fibers[3]!), "primary: Herbert.")
      assert.deepStrictEqual([lead.asked.length, lead.running()], [3, 0])
      assertInOrder(heard.events)
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it.effect("go on when the one that asks leaves, whatever its finalizers come to", () =>
    Effect.gen(function* () {
      const dying = { ...hangs, whole: Effect.ensuring(Effect.never, Effect.die("boom")) }
      const lead = stub("lead", inTurn(dying, says("Herbert.", 1000)))
      const ladder = coalesced(lead.provider)
      const first = yield* Effect.forkChild(said(ladder))
      yield* settle
      const second = yield* Effect.forkChild(said(ladder))
      yield* settle
      yield* Fiber.interrupt(first)
      yield* settle
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(second), "primary: Herbert.")
      assert.strictEqual(lead.asked.length, 2)
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it.effect("with other tags do not wait for one another, and have other answers", () =>
    Effect.gen(function* () {
      const us = stub("us", () => says("from the US", 100))
      const eu = stub("eu", () => says("from the EU", 100))
      const ladder = Degradation.make([
        Degradation.cache({ scope: "everyone", coalesce: true }),
        Degradation.primary(
          Failover.make([
            { provider: us.provider, tags: ["us"] },
            { provider: eu.provider, priority: 1, tags: ["eu"] },
          ]),
        ),
      ])
      const both = played(Effect.all([said(ladder), said(ladder).pipe(Call.requireTags("eu"))], together))
      assert.deepStrictEqual(yield* both, ["primary: from the US", "primary: from the EU"])
      assert.deepStrictEqual(yield* both, ["cache: from the US", "cache: from the EU"])
    }).pipe(Effect.provide(Layer.merge(Understudy.layer, AnswerCache.layerMemory()))),
  )

  it.effect("go on when one that waits leaves", () =>
    Effect.gen(function* () {
      const lead = stub("lead", () => says("Herbert.", 1000))
      const ladder = coalesced(lead.provider)
      const first = yield* Effect.forkChild(said(ladder))
      yield* settle
      const second = yield* Effect.forkChild(said(ladder))
      const third = yield* Effect.forkChild(said(ladder))
      yield* settle
      yield* Fiber.interrupt(second)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(first), "primary: Herbert.")
      assert.strictEqual(yield* Fiber.join(third), "primary: Herbert.")
      assert.strictEqual(lead.asked.length, 1)
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it.effect("have each their own deadline: that of the one that asks is not that of the others", () =>
    Effect.gen(function* () {
      const lead = stub("lead", inTurn(hangs, says("Herbert.", 1000)))
      const ladder = coalesced(lead.provider)
      const within = (at: number) => Effect.delay(Call.withDeadline("3 seconds")(ladder.ask(question)), at)
      const all = yield* play(Effect.all([Effect.exit(within(0)), Effect.exit(within(2000))], together))
      const [first, second] = yield* all.exit
      expectTag("DeadlineExceeded", failed(first!))
      assert.strictEqual(textOf((yield* second!).answer), "Herbert.")
      assert.deepStrictEqual([all.millis, all.timers, lead.asked.length], [4000, 0, 2])
      yield* TestClock.adjust("1 second")
      const both = yield* play(Effect.all([within(0), within(100)], together))
      assert.deepStrictEqual([both.millis, both.timers, lead.asked.length], [1000, 0, 3])
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it.effect("wait no longer than their own deadline, whoever asks", () =>
    Effect.gen(function* () {
      const lead = stub("lead", () => says("Herbert.", 60_000))
      const ladder = coalesced(lead.provider)
      const first = yield* Effect.forkChild(said(ladder))
      yield* settle
      // Other times are another flight, and so is a composition around it that sets a deadline.
      const bounded = ladder.pipe((self) => self.generate(question), Call.withDeadline("1 second"))
      const { exit, millis } = yield* play(bounded)
      expectTag("DeadlineExceeded", failed(exit))
      assert.deepStrictEqual([millis, lead.asked.length], [1000, 2])
      yield* Fiber.interrupt(first)
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it.effect("are equal by their key, and of one tenant: no answer is another's", () =>
    Effect.gen(function* () {
      const lead = stub("lead", (attempt) => says(`answer ${attempt}`, 1000))
      const ladder = Degradation.make([
        Degradation.cache({ scope: "tenant", coalesce: true }),
        Degradation.primary(lead.provider),
      ])
      const as = (tenant: string, request = question) => said(ladder, request).pipe(Call.withCache({ tenant }))
      const other = LanguageModelFace.request("Who wrote Emma?")
      assert.deepStrictEqual(
        yield* played(Effect.all([as("a"), as("b"), as("a"), as("a", other), as("b")], together)),
        ["primary: answer 1", "primary: answer 2", "primary: answer 1", "primary: answer 3", "primary: answer 2"],
      )
      // Without a tenant, or with a key of one's own, everybody asks alone.
      const own = Call.withCredential("lead", Redacted.make("sk-own"))
      const before = lead.asked.length
      yield* played(Effect.all([said(ladder), said(ladder), own(as("c")), own(as("c"))], together))
      assert.strictEqual(lead.asked.length, before + 4)
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it.effect("do not wait when they are streams", () =>
    Effect.gen(function* () {
      const lead = stub("lead", () => says("Herbert.", 1000))
      const ladder = coalesced(lead.provider)
      const streamed = Effect.map(Stream.runCollect(ladder.stream(question)), textOf)
      const all = yield* play(Effect.all([streamed, streamed], together))
      assert.deepStrictEqual(all.exit, Exit.succeed(["Herbert.", "Herbert."]))
      assert.strictEqual(lead.asked.length, 2)
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it.effect("of effects wait alike", () =>
    Effect.gen(function* () {
      let runs = 0
      // A ladder of its own for every call, as a function makes it.
      const value = () =>
        Degradation.effect(
          Effect.andThen(
            wait(100),
            Effect.sync(() => ++runs),
          ),
          [
            Degradation.cache({ scope: "everyone", coalesce: true, key: "k", schema: Schema.Number }),
            Degradation.primary(),
          ],
          { name: "count" },
        )
      const all = yield* play(Effect.all([value(), value(), value()], together))
      assert.deepStrictEqual(
        (yield* all.exit).map(({ answer, source }) => [answer, source]),
        Array.from({ length: 3 }, () => [1, "primary"]),
      )
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it.effect("under any interleaving of beginnings, ends and interruptions: one asks, all end, nothing is left", () =>
    Effect.gen(function* () {
      const seen = { shared: 0, tookOver: 0, failedTogether: 0, interrupted: 0 }
      for (let seed = 0; seed < 150; seed++) {
        const chance = random(seed)
        let most = 0
        const lead = stub("lead", (attempt) => {
          most = Math.max(most, lead.running())
          const takes = chance.int(1, 60)
          return chance.chance(0.3) ? fails(failure("Overloaded", "lead"), takes) : says(`answer ${attempt}`, takes)
        })
        const ladder = coalesced(lead.provider)
        const results: Array<string> = []
        const call = Effect.gen(function* () {
          const leaves = chance.chance(0.4) ? chance.int(0, 50) : undefined
          yield* wait(chance.int(0, 80))
          const fiber = yield* Effect.forkChild(said(ladder))
          if (leaves !== undefined) {
            yield* wait(leaves)
            yield* Fiber.interrupt(fiber)
          }
          const exit = yield* Fiber.await(fiber)
          results.push(Exit.isSuccess(exit) ? exit.value : "interrupted")
        })
        const { exit, timers } = yield* play(
          Effect.all(
            Array.from({ length: 12 }, () => call),
            together,
          ),
        )
        assert.isTrue(Exit.isSuccess(exit))
        assert.strictEqual(timers, 0)
        assert.strictEqual(results.length, 12)
        assert.strictEqual(most, 1)
        assert.strictEqual(lead.running(), 0)
        const answers = results.filter((result) => result.startsWith("primary"))
        seen.shared += answers.length - new Set(answers).size
        seen.failedTogether += Math.max(0, results.filter((result) => result === "Overloaded").length - 1)
        seen.interrupted += results.filter((result) => result === "interrupted").length
        // An attempt whose asker left was followed by another while somebody waited.
        seen.tookOver += Math.max(0, lead.asked.length - new Set(results).size)
        // Whoever comes after finds no trace of them.
        assert.match(yield* played(said(ladder)), /^(primary|cache): answer|^Overloaded$/)
      }
      for (const [what, times] of Object.entries(seen)) assert.isAbove(times, 30, what)
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )
})
