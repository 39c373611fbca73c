import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Stream } from "effect"
import { Call, Face, Failover, Retry, Timeouts, Understudy } from "@understudy/core"
import {
  ask,
  end,
  expectTag,
  failed,
  fails,
  failure,
  hangs,
  inTurn,
  kinds,
  metadata,
  play,
  question,
  said,
  say,
  says,
  start,
  streams,
  stub,
  textOf,
  timed,
  wait,
} from "./stub.ts"

const silence = Stream.never

describe("Timeouts", () => {
  describe("of an attempt", () => {
    it.effect("let an answer pass that comes in time, and end one that comes a millisecond late", () =>
      Effect.gen(function* () {
        for (const [takes, expected, millis] of [
          [29_999, "ok", 29_999],
          [30_001, "TimedOut", 30_000],
        ] as const) {
          const a = stub("a", () => says("ok", takes))
          const played = yield* play(ask("generate", a.provider.pipe(Timeouts.with())))
          assert.strictEqual(said(played.exit), expected)
          assert.strictEqual(played.millis, millis)
          assert.strictEqual(played.timers, 0)
          assert.strictEqual(a.running(), 0)
        }
      }),
    )

    it.effect("say which clock ran out, and its limit", () =>
      Effect.gen(function* () {
        const a = stub("a", () => hangs)
        const { exit } = yield* play(ask("generate", a.provider.pipe(Timeouts.with({ attempt: "5 seconds" }))))
        const timedOut = expectTag("TimedOut", failed(exit))
        assert.strictEqual(timedOut.phase, "attempt")
        assert.deepStrictEqual(timedOut.limit, Duration.seconds(5))
        assert.strictEqual(timedOut.provider, "a")
        assert.strictEqual(timedOut.model, "a-1")
      }),
    )

    it.effect("count the shorter of two, in either order", () =>
      Effect.gen(function* () {
        for (const [inner, outer] of [
          ["2 seconds", "9 seconds"],
          ["9 seconds", "2 seconds"],
        ] as const) {
          const a = stub("a", () => hangs)
          const both = a.provider.pipe(Timeouts.with({ attempt: inner }), Timeouts.with({ attempt: outer }))
          assert.strictEqual((yield* play(ask("generate", both))).millis, 2000)
        }
      }),
    )

    it.effect("give each extra attempt a clock of its own", () =>
      Effect.gen(function* () {
        const a = stub("a", inTurn(hangs, says("ok", 900)))
        const provider = a.provider.pipe(
          Timeouts.with({ attempt: "1 second" }),
          Retry.with({ base: "500 millis", jitter: "none" }),
        )
        const { exit, millis } = yield* play(ask("generate", provider))
        assert.strictEqual(said(exit), "ok")
        assert.strictEqual(millis, 1000 + 500 + 900)
      }),
    )

    it.effect("wait for an attempt that cannot be interrupted", () =>
      Effect.gen(function* () {
        const a = stub("a", () => {
          const slow = says("late", 5000)
          return { ...slow, whole: Effect.uninterruptible(slow.whole) }
        })
        const { exit, millis, timers } = yield* play(ask("generate", a.provider.pipe(Timeouts.with({ attempt: 1000 }))))
        assert.strictEqual(said(exit), "TimedOut")
        assert.strictEqual(millis, 5000)
        assert.strictEqual(a.running(), 0)
        assert.strictEqual(timers, 0)
      }),
    )

    it.effect("are replaced by the call's own, for a longer and for a shorter time", () =>
      Effect.gen(function* () {
        for (const own of [200, 60_000]) {
          const a = stub("a", () => hangs)
          const call = ask("generate", a.provider.pipe(Timeouts.with())).pipe(Call.withTimeouts({ attempt: own }))
          assert.strictEqual((yield* play(call)).millis, own)
        }
      }),
    )

    it.effect("are an attempt's, even around a composition: the call's own clock is not that of the whole", () =>
      Effect.gen(function* () {
        const a = stub("a", () => hangs)
        const b = stub("b", () => says("b", 800))
        const provider = Failover.make([a.provider, b.provider]).pipe(Timeouts.with({ attempt: "1 minute" }))
        const call = ask("generate", provider).pipe(Call.withTimeouts({ attempt: "1 second" }))
        const { exit, millis } = yield* play(call)
        assert.strictEqual(said(exit), "b")
        assert.strictEqual(millis, 1800)
      }),
    )
  })

  describe("of a stream", () => {
    const text = (...parts: ReadonlyArray<readonly [number, ReturnType<typeof say>]>) => streams(timed(...parts))

    it.effect(
      "hold the first content to its clock over the whole preamble: metadata and keep-alives are not content",
      () =>
        Effect.gen(function* () {
          const preamble = [
            [100, metadata],
            [300, start],
            [450, metadata],
          ] as const
          for (const [at, expected] of [
            [499, "hi"],
            [501, "TimedOut"],
          ] as const) {
            const a = stub("a", () => text(...preamble, [at, say("hi")], [at + 1, end]))
            const { exit, millis, timers } = yield* play(
              ask("stream", a.provider.pipe(Timeouts.with({ firstContent: "500 millis" }))),
            )
            assert.strictEqual(said(exit), expected)
            assert.strictEqual(timers, 0)
            if (expected === "TimedOut") {
              assert.strictEqual(expectTag("TimedOut", failed(exit)).phase, "first content")
              assert.strictEqual(millis, 500)
            }
            assert.strictEqual(a.running(), 0)
          }
        }),
    )

    it.effect("let a gap of 499 ms pass and fail one of 501 ms, when a gap may be 500 ms", () =>
      Effect.gen(function* () {
        for (const gap of [499, 501]) {
          const a = stub("a", () => text([0, say("a")], [gap, say("b")], [gap * 2, say("c")], [gap * 2, end]))
          const { exit, millis, timers } = yield* play(
            ask("stream", a.provider.pipe(Timeouts.with({ idle: "500 millis" }))),
          )
          assert.strictEqual(timers, 0)
          assert.strictEqual(a.running(), 0)
          if (gap < 500) {
            assert.strictEqual(said(exit), "abc")
          } else {
            const interrupted = expectTag("StreamInterrupted", failed(exit))
            const timedOut = expectTag("TimedOut", interrupted.failure)
            assert.isTrue(interrupted.committed)
            assert.strictEqual(timedOut.phase, "idle")
            assert.deepStrictEqual(timedOut.limit, Duration.millis(500))
            assert.strictEqual(interrupted.delivered?.characters, 1)
            assert.strictEqual(millis, 500)
          }
        }
      }),
    )

    it.effect("do not take a slow consumer for an idle provider", () =>
      Effect.gen(function* () {
        const a = stub("a", () => text([0, say("a")], [10, say("b")], [20, say("c")], [30, end]))
        const slow = a.provider
          .pipe(Timeouts.with({ idle: "500 millis", streamAttempt: "1 second" }))
          .stream(question)
          .pipe(Stream.tap(() => wait(5000)))
        const { exit } = yield* play(Stream.runCollect(slow))
        assert.strictEqual(textOf(Exit.isSuccess(exit) ? exit.value : []), "abc")
      }),
    )

    it.effect("end a stream that never stops talking", () =>
      Effect.gen(function* () {
        const endless = Stream.fromEffectRepeat(Effect.as(wait(1000), say("x")))
        const a = stub("a", () => streams(endless))
        const { exit, millis, timers } = yield* play(ask("stream", a.provider.pipe(Timeouts.with())))
        const interrupted = expectTag("StreamInterrupted", failed(exit))
        const timedOut = expectTag("TimedOut", interrupted.failure)
        assert.strictEqual(timedOut.phase, "attempt")
        assert.deepStrictEqual(timedOut.limit, Duration.minutes(2))
        assert.strictEqual(millis, 120_000)
        assert.strictEqual(timers, 0)
      }),
    )

    it.effect("take a whole answer for whole, even when its source stays open behind the end marker", () =>
      Effect.gen(function* () {
        const a = stub("a", () => streams(Stream.concat(timed([0, say("whole")], [100, end]), silence)))
        const { exit, timers } = yield* play(ask("stream", a.provider.pipe(Timeouts.with())))
        assert.strictEqual(said(exit), "whole")
        assert.strictEqual(timers, 0)
        assert.strictEqual(a.running(), 0)
      }),
    )

    it.effect("have closed the source when the failure arrives", () =>
      Effect.gen(function* () {
        const before = [silence, Stream.concat(Stream.make(say("half")), silence)]
        for (const parts of before) {
          const log: Array<string> = []
          const a = stub("a", () => streams(parts), log)
          const stream = a.provider.pipe(Timeouts.with({ firstContent: 100, idle: 100 })).stream(question)
          const call = Effect.onExit(Stream.runDrain(stream), () => Effect.sync(() => log.push("the failure arrives")))
          assert.strictEqual((yield* play(call)).exit._tag, "Failure")
          assert.deepStrictEqual(log, ["a opens", "a closes", "the failure arrives"])
        }
      }),
    )

    it.effect("are replaced by the call's own", () =>
      Effect.gen(function* () {
        const a = stub("a", () => streams(Stream.concat(Stream.make(say("half")), silence)))
        const stream = a.provider
          .pipe(Timeouts.with())
          .stream(question)
          .pipe(Call.stream({ timeouts: { idle: "7 seconds" } }))
        assert.strictEqual((yield* play(Stream.runDrain(stream))).millis, 7000)
      }),
    )
  })

  describe("of a call", () => {
    it.effect("end it at its deadline, 90 s for an answer and 180 s for a stream, whatever happens inside", () =>
      Effect.gen(function* () {
        for (const [kind, millis] of [
          ["generate", 90_000],
          ["stream", 180_000],
        ] as const) {
          const a = stub("a", () => hangs)
          const played = yield* play(ask(kind, a.provider.pipe(Retry.with(), Timeouts.deadline())))
          const deadline = expectTag("DeadlineExceeded", failed(played.exit))
          assert.deepStrictEqual(deadline.limit, Duration.millis(millis))
          assert.strictEqual(deadline.provider, "a")
          assert.strictEqual(played.millis, millis)
          assert.strictEqual(played.timers, 0)
          assert.strictEqual(a.running(), 0)
        }
      }),
    )

    it.effect("end a stream behind its first content with the deadline inside StreamInterrupted", () =>
      Effect.gen(function* () {
        const endless = Stream.fromEffectRepeat(Effect.as(wait(1000), say("x")))
        const a = stub("a", () => streams(endless))
        const provider = a.provider.pipe(Timeouts.with(), Timeouts.deadline({ stream: "30 seconds" }))
        const { exit, millis } = yield* play(ask("stream", provider))
        const interrupted = expectTag("StreamInterrupted", failed(exit))
        assert.strictEqual(expectTag("DeadlineExceeded", interrupted.failure).provider, "a")
        assert.strictEqual(millis, 30_000)
      }),
    )

    it.effect("yield to the deadline that the caller set, shorter or longer", () =>
      Effect.gen(function* () {
        for (const own of [1000, 500_000]) {
          const a = stub("a", () => hangs)
          const provider = a.provider.pipe(Timeouts.deadline())
          const whole = yield* play(ask("generate", provider).pipe(Call.withDeadline(own)))
          assert.strictEqual(said(whole.exit), "DeadlineExceeded")
          assert.strictEqual(whole.millis, own)
          const stream = provider.stream(question).pipe(Call.stream({ deadline: own }))
          assert.strictEqual((yield* play(Stream.runDrain(stream))).millis, own)
        }
      }),
    )

    it.effect("hold for a call without any deadline policy, when the caller sets one", () =>
      Effect.gen(function* () {
        const a = stub("a", () => hangs)
        const { exit, millis } = yield* play(ask("generate", a.provider).pipe(Call.withDeadline("3 seconds")))
        assert.strictEqual(said(exit), "DeadlineExceeded")
        assert.strictEqual(millis, 3000)
      }),
    )

    it.effect("keep the failures of the attempts before", () =>
      Effect.gen(function* () {
        const overloaded = failure("Overloaded")
        const a = stub("a", inTurn(fails(overloaded, 100), hangs))
        const provider = a.provider.pipe(Retry.with({ jitter: "none" }), Timeouts.deadline({ generate: 5000 }))
        const { exit, millis } = yield* play(ask("generate", provider))
        assert.deepStrictEqual(expectTag("DeadlineExceeded", failed(exit)).failures, [overloaded])
        assert.strictEqual(millis, 5000)
      }),
    )

    it.effect("tell how much of its own limit the running attempt had", () =>
      Effect.gen(function* () {
        for (const [deadline, share] of [
          [3000, 0.3],
          [9000, 0.9],
        ] as const) {
          const a = stub("a", () => hangs)
          const provider = a.provider.pipe(
            Timeouts.with({ attempt: 10_000 }),
            Timeouts.deadline({ generate: deadline }),
          )
          const { exit } = yield* play(ask("generate", provider))
          assert.strictEqual(expectTag("DeadlineExceeded", failed(exit)).attemptShare, share)
        }
      }),
    )

    it.effect("count the silence in which a stream hung as a share of its limit", () =>
      Effect.gen(function* () {
        const a = stub("a", () => streams(Stream.concat(Stream.make(say("half")), silence)))
        const provider = a.provider.pipe(
          Timeouts.with({ idle: "100 seconds", streamAttempt: "100 seconds" }),
          Timeouts.deadline({ stream: "80 seconds" }),
        )
        const { exit } = yield* play(ask("stream", provider))
        const interrupted = expectTag("StreamInterrupted", failed(exit))
        assert.strictEqual(expectTag("DeadlineExceeded", interrupted.failure).attemptShare, 0.8)
      }),
    )

    it.effect("start no attempt after the deadline", () =>
      Effect.gen(function* () {
        const a = stub("a", () => {
          const slow = fails(failure("Overloaded"), 3000)
          return { ...slow, whole: Effect.uninterruptible(slow.whole) }
        })
        const b = stub("b", () => says("b"))
        const provider = Failover.make([a.provider, b.provider]).pipe(Timeouts.deadline({ generate: "2 seconds" }))
        const { exit } = yield* play(ask("generate", provider))
        assert.strictEqual(said(exit), "DeadlineExceeded")
        assert.strictEqual(b.asked.length, 0)
      }),
    )
  })

  it.effect("leave no timer and nothing running behind, however the call ends", () =>
    Effect.gen(function* () {
      const replies = [
        says("ok"),
        says("ok", 50),
        fails(failure("Overloaded")),
        fails(failure("Overloaded"), 50),
        hangs,
      ]
      for (const kind of kinds) {
        for (const reply of replies) {
          for (const leavesAfter of [0, 10, 60, 1_000_000]) {
            const a = stub("a", () => reply)
            const call = ask(kind, Understudy.make({ candidates: [{ provider: a.provider }] }))
            const played = yield* play(Effect.timeoutOption(call, leavesAfter))
            assert.strictEqual(played.timers, 0)
            assert.strictEqual(a.running(), 0)
          }
        }
      }
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("work alone on effects and streams", () =>
    Effect.gen(function* () {
      const slow = yield* play(Timeouts.effect(Effect.never, { attempt: "1 second", name: "job" }))
      assert.strictEqual(expectTag("TimedOut", failed(slow.exit)).provider, "job")
      assert.strictEqual(slow.millis, 1000)
      const quiet = yield* play(
        Stream.runDrain(Timeouts.stream(silence, { face: Face.plain<string>(), firstContent: "2 seconds" })),
      )
      assert.strictEqual(expectTag("TimedOut", failed(quiet.exit)).phase, "first content")
      assert.strictEqual(quiet.millis, 2000)
    }),
  )

  it("throw InvalidOptions for a time that cannot be meant", () => {
    assert.throws(() => Timeouts.with({ attempt: -1 }), /Timeouts\.with.*attempt/s)
    assert.throws(() => Timeouts.with({ idle: "soon" as never }), /idle/)
    assert.throws(() => Timeouts.with({ idel: 5 } as never), /idel/)
    assert.throws(() => Timeouts.deadline({ generate: -5 }), /Timeouts\.deadline/)
  })
})
