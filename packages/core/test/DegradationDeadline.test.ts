import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import * as Persistence from "effect/persistence/Persistence"
import { AnswerCache, Call, Degradation, type LlmError, type Provider, Timeouts, Understudy } from "@understudy/core"
import { assertInOrder, listener } from "./PolicyEvent.check.ts"
import {
  ask,
  expectTag,
  failed,
  fails,
  failure,
  hangs,
  kinds,
  type LM,
  play,
  question,
  said,
  says,
  stub,
  wait,
} from "./stub.ts"

const state = Layer.mergeAll(Understudy.layer, AnswerCache.layerMemory())

/** A composition of one that must have answered within 5 seconds. */
const within5 = (provider: Provider.Provider<LM, LlmError.ProviderFailure>) =>
  Understudy.make({
    candidates: [{ provider }],
    deadline: { generate: "5 seconds", stream: "5 seconds" },
  })

/** A store that answers nothing, and nobody. */
const deaf = Layer.succeed(Persistence.BackingPersistence)({
  make: () =>
    Effect.succeed({
      get: () => Effect.uninterruptible(Effect.never),
      getMany: () => Effect.never,
      set: () => Effect.uninterruptible(Effect.never),
      setMany: () => Effect.never,
      remove: () => Effect.never,
      clear: Effect.never,
    }),
})

describe("A ladder and its call's deadline", () => {
  for (const kind of kinds) {
    describe(`(${kind})`, () => {
      it.effect("after it nobody is asked, and what needs nobody is given", () =>
        Effect.gen(function* () {
          const lead = stub("lead", () => hangs)
          const ladder = within5(lead.provider).pipe(
            Degradation.with([Degradation.simplified("{prompt}"), Degradation.fallback("We will be back.")]),
          )
          const heard = listener()
          const { exit, millis, timers } = yield* play(heard.effect(ask(kind, ladder)))
          assert.deepStrictEqual([said(exit), millis, timers], ["We will be back.", 5000, 0])
          // Its own clock is longer than the deadline, so it was asked once.
          assert.strictEqual(lead.asked.length, 1)
          assertInOrder(heard.events)
          assert.deepStrictEqual(
            heard.events.flatMap((event) => (event.event === "Degraded" ? [`${event.failure} > ${event.to}`] : [])),
            ["DeadlineExceeded > fallback"],
          )
        }).pipe(Effect.provide(state)),
      )

      it.effect("a rung that asks somebody else has its time, which the primary does not use up", () =>
        Effect.gen(function* () {
          const lead = stub("lead", () => hangs)
          const cheap = stub("cheap", () => says("by cheap", 9000))
          const ladder = Degradation.make([
            Degradation.primary(
              Understudy.make({
                candidates: [{ provider: lead.provider }],
                deadline: { generate: "25 seconds", stream: "25 seconds" },
              }),
            ),
            Degradation.model(
              cheap.provider.pipe(Timeouts.with({ attempt: "10 seconds", firstContent: "10 seconds" })),
            ),
          ])
          const { exit, millis } = yield* play(ask(kind, ladder))
          assert.deepStrictEqual([said(exit), millis], ["by cheap", 24_000])
          assert.strictEqual(lead.asked.length, 1)
        }).pipe(Effect.provide(state)),
      )

      it.effect("all rungs share it", () =>
        Effect.gen(function* () {
          const lead = stub("lead", () => fails(failure("Overloaded", "lead"), 3000))
          const cheap = stub("cheap", () => hangs)
          const ladder = within5(lead.provider).pipe(
            Degradation.with([Degradation.model(cheap.provider), Degradation.fallback("We will be back.")]),
          )
          const { exit, millis } = yield* play(ask(kind, ladder))
          assert.deepStrictEqual([said(exit), millis, cheap.running()], ["We will be back.", 5000, 0])
        }).pipe(Effect.provide(state)),
      )

      it.effect("one that the caller sets counts", () =>
        Effect.gen(function* () {
          const ladder = Degradation.make([
            Degradation.primary(stub("lead", () => hangs).provider),
            Degradation.simplified("{prompt}"),
            Degradation.fallback("We will be back."),
          ])
          const { exit, millis } = yield* play(ask(kind, ladder).pipe(Call.withDeadline("700 millis")))
          assert.deepStrictEqual([said(exit), millis], ["We will be back.", 700])
        }),
      )

      it.effect("a store that does not answer costs 100 milliseconds of what is left after it", () =>
        Effect.gen(function* () {
          const ladder = within5(stub("lead", () => hangs).provider).pipe(
            Degradation.with([
              Degradation.cache({ scope: "everyone" }),
              Degradation.stale(),
              Degradation.fallback("We will be back."),
            ]),
          )
          const { exit, millis } = yield* play(ask(kind, ladder))
          assert.deepStrictEqual([said(exit), millis], ["We will be back.", 5100])
        }).pipe(Effect.provide(Layer.mergeAll(Understudy.layer, Layer.provide(AnswerCache.layerPersistence(), deaf)))),
      )

      it.effect("what needs nobody may take 250 milliseconds after it, whatever a store may take", () =>
        Effect.gen(function* () {
          const rungs = [
            Degradation.cache({ scope: "everyone" }),
            Degradation.stale(),
            Degradation.fallback("We will be back."),
          ] as const
          const hanging = within5(stub("lead", () => hangs).provider)
          const first = yield* play(ask(kind, hanging.pipe(Degradation.with(rungs))))
          assert.deepStrictEqual([said(first.exit), first.millis], ["We will be back.", 5250])
        }).pipe(
          Effect.provide(
            Layer.mergeAll(
              Understudy.layer,
              Layer.provide(AnswerCache.layerPersistence({ readTimeout: "1 second" }), deaf),
            ),
          ),
        ),
      )

      it.effect("a fallback that is an effect fails with DeadlineExceeded when it comes too late", () =>
        Effect.gen(function* () {
          const slowly = Degradation.fallback(Effect.as(wait(10_000), "Late."))
          for (const [reply, options, millis] of [
            [hangs, {}, 5250],
            [fails(failure("Overloaded", "lead"), 1000), {}, 5250],
            [hangs, { afterDeadline: "50 millis" }, 5050],
          ] as const) {
            const lead = Understudy.make({
              candidates: [{ provider: stub("lead", () => reply).provider, retry: false }],
              deadline: { generate: "5 seconds", stream: "5 seconds" },
            })
            const played = yield* play(ask(kind, lead.pipe(Degradation.with([slowly], options))))
            const late = expectTag("DeadlineExceeded", failed(played.exit))
            assert.deepStrictEqual([late.provider, played.millis, played.timers], ["lead", millis, 0])
          }
          const noDeadline = stub("lead", () => fails(failure("Overloaded", "lead"))).provider
          const waited = yield* play(ask(kind, noDeadline.pipe(Degradation.with([slowly]))))
          assert.deepStrictEqual([said(waited.exit), waited.millis], ["Late.", 10_000])
        }).pipe(Effect.provide(state)),
      )

      it.effect("a fallback that cannot be interrupted is left behind then", () =>
        Effect.gen(function* () {
          const stubborn = Degradation.fallback(Effect.uninterruptible(Effect.as(wait(60_000), "Late.")))
          const ladder = Degradation.make([Degradation.primary(stub("lead", () => hangs).provider), stubborn])
          const { exit, millis } = yield* play(ask(kind, ladder).pipe(Call.withDeadline("1 second")))
          const late = expectTag("DeadlineExceeded", failed(exit))
          assert.deepStrictEqual([late.provider, millis], ["lead", 1250])
        }),
      )

      it.effect("what a fallback asks itself is asked in calls of its own", () =>
        Effect.gen(function* () {
          const late = stub("late", () => says("Late.", 100))
          const ladder = within5(stub("lead", () => hangs).provider).pipe(
            Degradation.with([Degradation.fallback(() => ask(kind, late.provider))]),
          )
          const heard = listener()
          const { exit, millis } = yield* play(heard.effect(ask(kind, ladder)))
          assert.deepStrictEqual([said(exit), millis], ["Late.", 5100])
          assertInOrder(heard.events)
        }).pipe(Effect.provide(state)),
      )
    })
  }

  it.effect("a stream that is under way when it passes tells the truth", () =>
    Effect.gen(function* () {
      const lead = stub("lead", () => ({
        ...says("never"),
        parts: Stream.concat(
          Stream.make({ type: "text-start" as const, id: "0" }, { type: "text-delta" as const, id: "0", delta: "Her" }),
          Stream.never,
        ),
      }))
      const ladder = within5(lead.provider).pipe(Degradation.with([Degradation.fallback("We will be back.")]))
      const { exit, millis } = yield* play(Stream.runCollect(ladder.stream(question)))
      const interrupted = expectTag("StreamInterrupted", failed(exit))
      assert.deepStrictEqual([interrupted.failure?._tag, millis], ["DeadlineExceeded", 5000])
    }).pipe(Effect.provide(state)),
  )
})
