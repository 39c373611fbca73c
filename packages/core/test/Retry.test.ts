import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Random, Schedule, Stream } from "effect"
import {
  Call,
  CircuitBreaker,
  Face,
  Failover,
  type FailureMode,
  LlmError,
  Retry,
  Timeouts,
  Understudy,
} from "@understudy/core"
import { listener } from "./PolicyEvent.check.ts"
import {
  ask,
  dies,
  expectTag,
  failed,
  fails,
  failure,
  Foreign,
  inTurn,
  kinds,
  play,
  random,
  said,
  say,
  says,
  seconds,
  streams,
  stub,
} from "./stub.ts"

const gaps = (asked: ReadonlyArray<number>): ReadonlyArray<number> =>
  asked.slice(1).map((at, index) => at - asked[index]!)

/** Virtual time is kept in whole nanoseconds. */
const tolerance = 0.001

const assertBetween = (value: number, low: number, high: number, what: string) => {
  assert.isAtLeast(value, low - tolerance, what)
  assert.isAtMost(value, high + tolerance, what)
}

const overloaded = failure("Overloaded")
const hinted = (millis: number) => failure("Overloaded", "a", { retryAfter: Duration.millis(millis) })

describe("Retry", () => {
  it.effect("keeps every wait inside the full-jitter envelope, above the latest hint and at most 10 % over it", () =>
    Effect.gen(function* () {
      let hintsAbove = 0
      for (let seed = 0; seed < 300; seed++) {
        const r = random(seed)
        const times = r.int(1, 6)
        const base = r.int(1, 3000)
        const factor = r.pick([1, 1.5, 2, 3])
        const cap = r.int(1, 20_000)
        const jitter = r.pick(["full", "none"] as const)
        const hints = Array.from({ length: times + 1 }, () => (r.chance(0.4) ? r.int(1, 30_000) : 0))
        const a = stub("a", (n) => fails(hints[n - 1] === 0 ? overloaded : hinted(hints[n - 1]!)))
        const policy = Retry.with({ times, base, factor, cap, jitter })
        const { exit, timers } = yield* play(
          a.provider.pipe(policy, (p) => ask(r.pick(kinds), p), Random.withSeed(seed)),
        )
        assert.strictEqual(said(exit), "Overloaded")
        assert.strictEqual(a.asked.length, times + 1)
        assert.strictEqual(timers, 0)
        for (const [n, gap] of gaps(a.asked).entries()) {
          const envelope = Math.min(cap, base * factor ** n)
          const hint = hints[n]!
          const what = `seed ${seed}, wait ${n}`
          assertBetween(gap, jitter === "none" ? Math.max(envelope, hint) : hint, Math.max(envelope, hint * 1.1), what)
          if (hint > envelope) hintsAbove++
        }
      }
      assert.isAbove(hintsAbove, 100)
    }),
  )

  it.effect("uses the whole envelope: the waits of many calls are spread over it", () =>
    Effect.gen(function* () {
      const shares: Array<number> = []
      for (let seed = 0; seed < 200; seed++) {
        const a = stub("a", () => fails(overloaded))
        yield* play(
          a.provider.pipe(Retry.with({ times: 1, base: 1000 }), (p) => ask("generate", p), Random.withSeed(seed)),
        )
        shares.push(gaps(a.asked)[0]! / 1000)
      }
      for (const quarter of [0, 0.25, 0.5, 0.75]) {
        const inside = shares.filter((share) => share >= quarter && share < quarter + 0.25)
        assert.isAtLeast(inside.length, 30)
      }
    }),
  )

  it.effect("asks three times in all by default, with at most 500 ms and then 1 s between", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(overloaded))
      yield* play(a.provider.pipe(Retry.with(), (p) => ask("generate", p)))
      const [first = NaN, second = NaN, ...more] = gaps(a.asked)
      assert.deepStrictEqual(more, [])
      assertBetween(first, 0, 500, "first")
      assertBetween(second, 0, 1000, "second")
    }),
  )

  it.effect("follows the hint of the latest failure, not of an earlier one", () =>
    Effect.gen(function* () {
      const a = stub("a", inTurn(fails(hinted(20_000)), fails(hinted(3000)), fails(overloaded), says("late")))
      const { exit } = yield* play(a.provider.pipe(Retry.with({ times: 3, base: 1 }), (p) => ask("generate", p)))
      assert.strictEqual(said(exit), "late")
      const [first = NaN, second = NaN, third = NaN] = gaps(a.asked)
      assertBetween(first, 20_000, 22_000, "first")
      assertBetween(second, 3000, 3300, "second")
      assertBetween(third, 0, 4, "third")
    }),
  )

  it.effect("takes no backoff that would pass the deadline: the original failure leaves at once", () =>
    Effect.gen(function* () {
      let cut = 0
      for (let seed = 0; seed < 200; seed++) {
        const r = random(seed)
        const limit = r.int(1, 5000)
        const takes = r.int(0, 300)
        const a = stub("a", () => fails(r.chance(0.3) ? hinted(r.int(1, 5000)) : overloaded, takes))
        const kind = r.pick(kinds)
        const { exit, millis } = yield* play(
          a.provider.pipe(
            Retry.with({ times: 5, base: 800 }),
            Timeouts.deadline({ generate: limit, stream: limit }),
            (p) => ask(kind, p),
            Random.withSeed(seed),
          ),
        )
        const last = a.asked.at(-1)! - a.asked[0]!
        assert.isBelow(last, limit)
        if (said(exit) === "DeadlineExceeded") {
          assertBetween(millis, limit, limit, `seed ${seed}: a running attempt ends at the deadline`)
        } else {
          assert.strictEqual(said(exit), "Overloaded")
          assertBetween(millis, last + takes, last + takes, `seed ${seed}: no wait behind the last attempt`)
          if (a.asked.length < 6) cut++
        }
      }
      assert.isAbove(cut, 50)
    }),
  )

  it.effect("gives up at once when the provider asks for a longer wait than maxWait", () =>
    Effect.gen(function* () {
      for (const [hint, attempts] of [
        [30_000, 2],
        [60_001, 1],
      ] as const) {
        const a = stub("a", inTurn(fails(hinted(hint)), says("ok")))
        const { millis } = yield* play(a.provider.pipe(Retry.with(), (p) => ask("generate", p)))
        assert.strictEqual(a.asked.length, attempts)
        if (attempts === 1) assert.strictEqual(millis, 0)
      }
      const a = stub("a", () => fails(hinted(101)))
      yield* play(a.provider.pipe(Retry.with({ maxWait: "100 millis" }), (p) => ask("generate", p)))
      assert.strictEqual(a.asked.length, 1)
    }),
  )

  describe("while another candidate is ready", () => {
    it.effect("keeps the sum of its backoffs within the patience", () =>
      Effect.gen(function* () {
        for (let seed = 0; seed < 100; seed++) {
          const r = random(seed)
          const a = stub("a", () => fails(r.chance(0.5) ? hinted(r.int(1, 1500)) : overloaded))
          const b = stub("b", () => says("b"))
          const provider = Failover.make([a.provider.pipe(Retry.with({ times: 10, base: 700 })), b.provider], {
            maxAttempts: 20,
          })
          const { exit, millis } = yield* play(ask("generate", provider).pipe(Random.withSeed(seed)))
          assert.strictEqual(said(exit), "b")
          assert.isAtMost(millis, 2000 + tolerance)
          assert.strictEqual(b.asked.length, 1)
        }
      }),
    )

    it.effect("waits longer than the patience when the other candidate's circuit is open", () =>
      Effect.gen(function* () {
        const a = stub("a", inTurn(fails(hinted(10_000)), says("a")))
        const b = stub("b", () => fails(failure("AuthenticationFailed", "b")))
        const guarded = b.provider.pipe(CircuitBreaker.with())
        yield* Effect.exit(ask("generate", guarded))
        const { exit, millis } = yield* play(ask("generate", Failover.make([a.provider.pipe(Retry.with()), guarded])))
        assert.strictEqual(said(exit), "a")
        assertBetween(millis, 10_000, 11_000, "the hint is waited for")
        assert.strictEqual(b.asked.length, 1)
      }).pipe(Effect.provide(Understudy.layer)),
    )

    it.effect("does not ask a provider again that timed out, and does when it is alone", () =>
      Effect.gen(function* () {
        const timedOut = failure("TimedOut")
        const alone = stub("a", inTurn(fails(timedOut), says("a")))
        assert.strictEqual(said((yield* play(ask("generate", alone.provider.pipe(Retry.with())))).exit), "a")
        const first = stub("a", inTurn(fails(timedOut), says("a")))
        const b = stub("b", () => says("b"))
        const both = Failover.make([first.provider.pipe(Retry.with()), b.provider])
        assert.strictEqual(said((yield* play(ask("generate", both))).exit), "b")
        assert.strictEqual(first.asked.length, 1)
      }),
    )
  })

  /** How often a provider is asked that always fails so, when 5 extra attempts are allowed. */
  const attempts: { readonly [T in LlmError.Tag]: number } = {
    RateLimited: 6,
    QuotaExhausted: 1,
    Overloaded: 6,
    ProviderUnavailable: 2,
    ConnectionFailed: 6,
    TimedOut: 6,
    DeadlineExceeded: 1,
    StreamInterrupted: 6,
    InvalidResponse: 6,
    ContentFiltered: 1,
    ContextLengthExceeded: 1,
    AuthenticationFailed: 1,
    PermissionDenied: 1,
    ModelNotFound: 1,
    InvalidRequest: 1,
    UnknownFailure: 1,
    CircuitOpen: 1,
    CapacityExceeded: 6,
    AllProvidersFailed: 1,
  }
  it.effect.each(Object.entries(attempts) as ReadonlyArray<[LlmError.Tag, number]>)(
    "asks again as the table says: %s, %i attempts of 6",
    ([tag, expected]) =>
      Effect.gen(function* () {
        for (const kind of kinds) {
          const a = stub("a", () => fails(failure(tag)))
          const { exit } = yield* play(ask(kind, a.provider.pipe(Retry.with({ times: 5 }))))
          assert.strictEqual(failed(exit)._tag, tag)
          assert.strictEqual(a.asked.length, expected, kind)
        }
      }),
  )

  it.effect("does not ask again when the failure itself says that it is not retryable", () =>
    Effect.gen(function* () {
      for (const tag of ["RateLimited", "ConnectionFailed", "ProviderUnavailable", "InvalidResponse"] as const) {
        const a = stub("a", () => fails(failure(tag, "a", { retryable: false })))
        yield* play(ask("generate", a.provider.pipe(Retry.with())))
        assert.strictEqual(a.asked.length, 1, tag)
      }
    }),
  )

  it.effect("does not ask again for an answer in the wrong form: that needs a re-prompt", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(new LlmError.InvalidResponse({ provider: "a", kind: "content" })))
      yield* play(ask("generate", a.provider.pipe(Retry.with())))
      assert.strictEqual(a.asked.length, 1)
    }),
  )

  it.effect("asks again only for the tags in `on`", () =>
    Effect.gen(function* () {
      const on: ReadonlyArray<FailureMode.RetryableTag> = ["ConnectionFailed"]
      const a = stub(
        "a",
        inTurn<LlmError.LlmError>(fails(failure("ConnectionFailed")), fails(overloaded), says("never reached")),
      )
      const { exit } = yield* play(ask("generate", a.provider.pipe(Retry.with({ on }))))
      assert.strictEqual(said(exit), "Overloaded")
      assert.strictEqual(a.asked.length, 2)
    }),
  )

  it.effect("asks once when times is 0", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(overloaded))
      const { millis } = yield* play(ask("generate", a.provider.pipe(Retry.with({ times: 0 }))))
      assert.strictEqual(a.asked.length, 1)
      assert.strictEqual(millis, 0)
    }),
  )

  it.effect("takes a schedule's delays instead of its own, still bounded by times and raised by a hint", () =>
    Effect.gen(function* () {
      const schedule = Schedule.spaced("3 seconds")
      const a = stub("a", inTurn(fails(overloaded), fails(hinted(10_000)), fails(overloaded)))
      yield* play(ask("generate", a.provider.pipe(Retry.with({ schedule, times: 3 }))))
      const [first, second = NaN, third, ...more] = gaps(a.asked)
      assert.strictEqual(first, 3000)
      assertBetween(second, 10_000, 11_000, "the hint")
      assertBetween(third!, 3000, 3000, "the schedule again")
      assert.deepStrictEqual(more, [])
    }),
  )

  it.effect("stops with the last failure when its schedule stops", () =>
    Effect.gen(function* () {
      const schedule = Schedule.spaced("1 second").pipe(Schedule.upTo({ times: 1 }))
      const a = stub("a", inTurn<LlmError.LlmError>(fails(failure("ConnectionFailed")), fails(overloaded)))
      const { exit } = yield* play(ask("generate", a.provider.pipe(Retry.with({ schedule, times: 9 }))))
      assert.strictEqual(said(exit), "Overloaded")
      assert.strictEqual(a.asked.length, 2)
    }),
  )

  it.effect("gives its schedule the failure as input", () =>
    Effect.gen(function* () {
      const schedule = Schedule.forever.pipe(
        Schedule.setInputType<LlmError.RateLimited>(),
        Schedule.while(({ input }) => Effect.succeed(input.status !== 418)),
      )
      const a = stub("a", (n) => fails(failure("RateLimited", "a", { status: n === 3 ? 418 : 429 })))
      yield* play(ask("generate", a.provider.pipe(Retry.with({ on: ["RateLimited"], schedule, times: 9 }))))
      assert.strictEqual(a.asked.length, 3)
    }),
  )

  it.effect("never retries a defect, and lets failures that are not ours pass", () =>
    Effect.gen(function* () {
      for (const kind of kinds) {
        const defect = new Error("a bug")
        const broken = stub("a", () => dies(defect))
        const { exit } = yield* play(ask(kind, broken.provider.pipe(Retry.with())))
        assert.isTrue(exit._tag === "Failure" && Cause.squash(exit.cause) === defect)
        assert.strictEqual(broken.asked.length, 1)

        const foreign = new Foreign("theirs")
        const strange = stub("a", () => fails(foreign))
        assert.strictEqual(failed((yield* play(ask(kind, strange.provider.pipe(Retry.with())))).exit), foreign)
        assert.strictEqual(strange.asked.length, 1)
      }
    }),
  )

  it.effect("does not wait for a circuit that would still be open when it comes back", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(overloaded))
      const provider = a.provider.pipe(CircuitBreaker.with({ failures: 1 }), Retry.with())
      const { exit, millis } = yield* play(ask("generate", provider))
      assert.strictEqual(said(exit), "Overloaded")
      assert.strictEqual(millis, 0)
      assert.strictEqual(a.asked.length, 1)
    }).pipe(Effect.provide(Understudy.layer)),
  )

  describe("of a seed", () => {
    const waits = (seed: number, listening: boolean) =>
      Effect.gen(function* () {
        const a = stub("a", () => fails(overloaded))
        const call = ask("generate", a.provider.pipe(Retry.with({ times: 4 })))
        yield* play(Random.withSeed(listening ? listener().effect(call) : call, seed))
        return gaps(a.asked).map((gap) => gap.toFixed(3))
      })

    it.effect("waits the same every time, and otherwise for another seed", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* waits(7, false), yield* waits(7, false))
        assert.notDeepEqual(yield* waits(7, false), yield* waits(8, false))
      }),
    )

    it.effect("waits the same whether someone listens or not", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* waits(7, true), yield* waits(7, false))
      }),
    )
  })

  it.effect("asks for a stream again until its first content, and never after", () =>
    Effect.gen(function* () {
      const broken = (...before: ReadonlyArray<string>) =>
        streams(Stream.concat(Stream.fromIterable(before.map(say)), Stream.fail(overloaded)))
      const early = stub("a", inTurn(broken(), says("whole")))
      assert.strictEqual(said((yield* play(ask("stream", early.provider.pipe(Retry.with())))).exit), "whole")
      const late = stub("a", inTurn(broken("half"), says("whole")))
      const { exit } = yield* play(ask("stream", late.provider.pipe(Retry.with())))
      const interrupted = expectTag("StreamInterrupted", failed(exit))
      assert.strictEqual(interrupted.failure, overloaded)
      assert.strictEqual(late.asked.length, 1)
    }),
  )

  it.effect("works alone on effects and streams", () =>
    Effect.gen(function* () {
      let asked = 0
      const twice = Effect.suspend(() => (++asked < 3 ? Effect.fail(overloaded) : Effect.succeed("ok")))
      assert.strictEqual(said((yield* play(Retry.effect(twice))).exit), "ok")
      assert.strictEqual(asked, 3)
      asked = 0
      const parts = Stream.unwrap(Effect.map(twice, (text) => Stream.make(text)))
      const { exit } = yield* play(Stream.runCollect(Retry.stream(parts, { face: Face.plain<string>() })))
      assert.deepStrictEqual(exit, Exit.succeed(["ok"]))
      assert.strictEqual(asked, 3)
    }),
  )

  it("throws InvalidOptions, with the option's path, for numbers that cannot be meant", () => {
    const cases: ReadonlyArray<[Retry.Options, RegExp]> = [
      [{ times: -1 }, /Retry\.with.*times/s],
      [{ times: 1.5 }, /times/],
      [{ factor: 0.5 }, /factor/],
      [{ base: -1 }, /base/],
      [{ cap: "a while" as never }, /cap/],
    ]
    for (const [options, message] of cases) assert.throws(() => Retry.with(options), message)
  })

  it.effect("never waits less than the provider asked for, even when the cap is shorter", () =>
    Effect.gen(function* () {
      const a = stub("a", inTurn(fails(failure("RateLimited", "a", { retryAfter: seconds(30) })), says("ok")))
      const { millis } = yield* play(ask("generate", a.provider.pipe(Retry.with({ cap: "1 second" }))))
      assertBetween(millis, 30_000, 33_000, "the hint")
    }),
  )

  describe("with jitter", () => {
    const many = (options: Retry.Options, seeds: number) =>
      Effect.gen(function* () {
        const waits: Array<ReadonlyArray<number>> = []
        for (let seed = 0; seed < seeds; seed++) {
          const a = stub("a", () => fails(overloaded))
          yield* play(a.provider.pipe(Retry.with(options), (p) => ask("generate", p), Random.withSeed(seed)))
          waits.push(gaps(a.asked))
        }
        return waits
      })

    it.effect("`equal`, waits half of the backoff and anything up to the other half", () =>
      Effect.gen(function* () {
        const waits = yield* many({ times: 4, base: 1000, cap: 3000, jitter: "equal" }, 200)
        for (const [n, envelope] of [1000, 2000, 3000, 3000].entries()) {
          const nth = waits.map((of) => of[n]!)
          for (const wait of nth) assertBetween(wait, envelope / 2, envelope, `wait ${n}`)
          // The whole half is used.
          assert.isBelow(Math.min(...nth), envelope * 0.55)
          assert.isAbove(Math.max(...nth), envelope * 0.95)
        }
      }),
    )

    it.effect("`decorrelated`, waits anything from the base to three times the wait before, within the cap", () =>
      Effect.gen(function* () {
        const waits = yield* many({ times: 8, base: 100, cap: 2000, jitter: "decorrelated" }, 200)
        let grown = 0
        for (const of of waits) {
          let before = 100
          for (const [n, wait] of of.entries()) {
            assertBetween(wait, 100, Math.min(2000, 3 * before), `wait ${n}`)
            if (wait > 1500) grown++
            before = wait
          }
        }
        assert.isAbove(grown, 200)
      }),
    )

    it.effect("of every kind, never waits less than the latest hint, nor past deadline or patience", () =>
      Effect.gen(function* () {
        let hintsKept = 0
        for (let seed = 0; seed < 300; seed++) {
          const r = random(seed)
          const limit = r.int(1000, 20_000)
          const hints = Array.from({ length: 12 }, () => (r.chance(0.5) ? r.int(1, 3000) : 0))
          const a = stub("a", (n) => fails(hints[n - 1] === 0 ? overloaded : hinted(hints[n - 1]!)))
          const b = stub("b", () => fails(failure("Overloaded", "b")))
          const policy = Retry.with({
            times: 10,
            base: r.int(0, 1000),
            cap: r.int(1, 4000),
            jitter: r.pick(["none", "full", "equal", "decorrelated"]),
          })
          const alone = r.chance(0.5)
          const guarded = a.provider.pipe(policy)
          const both = Failover.make([guarded, b.provider], { maxAttempts: 20 })
          const call: Effect.Effect<string, LlmError.LlmError> = alone
            ? ask(r.pick(kinds), guarded)
            : ask(r.pick(kinds), both)
          const { millis } = yield* play(call.pipe(Call.withDeadline(limit), Random.withSeed(seed)))
          for (const [n, gap] of gaps(a.asked).entries()) {
            assert.isAtLeast(gap, hints[n]! - tolerance, `seed ${seed}, wait ${n}`)
            if (hints[n]! > 0) hintsKept++
          }
          assert.isAtMost(millis, alone ? limit : Math.min(limit, 2000) + tolerance, `seed ${seed}`)
        }
        assert.isAbove(hintsKept, 300)
      }),
    )

    it.effect("of every kind, is a number however often it is asked, and from whatever base", () =>
      Effect.gen(function* () {
        for (const jitter of ["none", "full", "equal", "decorrelated"] as const) {
          for (const base of [0, 1, "1 day"] as const) {
            const a = stub("a", () => fails(overloaded))
            const options = { times: 320, factor: 10, base, cap: 3, jitter }
            yield* play(ask("generate", a.provider.pipe(Retry.with(options))))
            assert.strictEqual(a.asked.length, 321)
            for (const gap of gaps(a.asked)) assertBetween(gap, 0, 3, `${jitter} of ${base}`)
          }
        }
      }),
    )
  })

  describe("with maxElapsed", () => {
    it.effect("begins no extra attempt later than that after the first", () =>
      Effect.gen(function* () {
        let cut = 0
        for (let seed = 0; seed < 200; seed++) {
          const r = random(seed)
          const maxElapsed = r.int(0, 5000)
          const takes = r.int(0, 400)
          const a = stub("a", () => fails(r.chance(0.3) ? hinted(r.int(1, 2000)) : overloaded, takes))
          const policy = Retry.with({ times: 6, base: 700, maxElapsed })
          const { exit, millis } = yield* play(
            a.provider.pipe(policy, (p) => ask(r.pick(kinds), p), Random.withSeed(seed)),
          )
          assert.strictEqual(said(exit), "Overloaded")
          const last = a.asked.at(-1)! - a.asked[0]!
          assert.isAtMost(last, maxElapsed + tolerance)
          assertBetween(millis, last + takes, last + takes, `seed ${seed}: no wait behind the last attempt`)
          if (a.asked.length < 7) cut++
        }
        assert.isAbove(cut, 100)
      }),
    )

    it.effect("counts from its own first attempt, and not from the beginning of the call", () =>
      Effect.gen(function* () {
        const a = stub("a", () => fails(failure("QuotaExhausted"), 60_000))
        const b = stub("b", inTurn(fails(failure("Overloaded", "b")), says("b")))
        const second = b.provider.pipe(Retry.with({ maxElapsed: "1 second", base: 900, jitter: "none" }))
        assert.strictEqual(said((yield* play(ask("generate", Failover.make([a.provider, second])))).exit), "b")
      }),
    )
  })

  describe("per tag", () => {
    it.effect("counts and waits for a tag apart, and the others share the rest", () =>
      Effect.gen(function* () {
        const connection = failure("ConnectionFailed")
        const limited = failure("RateLimited")
        const failures = [limited, connection, limited, overloaded, limited, connection]
        const a = stub<LlmError.LlmError>("a", (n) => fails(failures[n - 1]!))
        const policy = Retry.with({
          times: 2,
          base: 10,
          jitter: "none",
          perTag: {
            RateLimited: { times: 3, base: "1 second", factor: 1 },
            ConnectionFailed: { base: 0 },
          },
        })
        const { exit } = yield* play(ask("generate", a.provider.pipe(policy)))
        // Three of RateLimited; the others have two in all: a ConnectionFailed and an Overloaded.
        assert.deepStrictEqual(gaps(a.asked), [1000, 0, 1000, 10, 1000])
        assert.strictEqual(said(exit), "ConnectionFailed")
      }),
    )

    it.effect("takes a schedule of its own for a tag, which says how long and, with `times`, how often", () =>
      Effect.gen(function* () {
        const inputs: Array<number | undefined> = []
        const schedule = Schedule.fibonacci("100 millis").pipe(
          Schedule.setInputType<LlmError.RateLimited>(),
          Schedule.while(({ input }) =>
            Effect.as(
              Effect.sync(() => inputs.push(input.status)),
              true,
            ),
          ),
        )
        const a = stub("a", () => fails(failure("RateLimited", "a", { status: 429 })))
        const policy = Retry.with({ base: 1, perTag: { RateLimited: { schedule, times: 5 } } })
        yield* play(ask("stream", a.provider.pipe(policy)))
        assert.deepStrictEqual(gaps(a.asked), [100, 100, 200, 300, 500])
        assert.deepStrictEqual(inputs, [429, 429, 429, 429, 429])
      }),
    )

    it.effect("does not ask again for a tag whose times are 0, and as for all where nothing else is said", () =>
      Effect.gen(function* () {
        const policy = Retry.with({
          times: 1,
          base: 70,
          jitter: "none",
          perTag: { TimedOut: { times: 0 }, Overloaded: {} },
        })
        const a = stub("a", () => fails(failure("TimedOut")))
        yield* play(ask("generate", a.provider.pipe(policy)))
        assert.strictEqual(a.asked.length, 1)
        const b = stub("b", () => fails(overloaded))
        yield* play(ask("generate", b.provider.pipe(policy)))
        assert.deepStrictEqual(gaps(b.asked), [70])
      }),
    )

    it("throws InvalidOptions for a tag that is never retried, and for what it cannot mean", () => {
      assert.throws(() => Retry.with({ perTag: { InvalidRequest: { times: 1 } } as never }), /InvalidRequest/)
      assert.throws(() => Retry.with({ perTag: { RateLimited: { times: -1 } } }), /perTag.*RateLimited.*times/s)
    })
  })
})
