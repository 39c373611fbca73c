import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Cause, Clock, Effect, Exit, Layer, Schema } from "effect"
import { CircuitBreaker } from "effect/persistence"
import { BreakerLaws } from "../src/index.ts"

class Sick extends Schema.TaggedError<Sick>()("Sick", {}) {}
class Refused extends Schema.TaggedError<Refused>()("Refused", {}) {}
class NotNow extends Schema.TaggedError<NotNow>()("NotNow", {}) {}

const isRefused = (exit: Exit.Exit<unknown, unknown>): boolean => {
  if (exit._tag === "Success") return false
  const error = Cause.findErrorOption(exit.cause)
  return error._tag === "Some" && error.value instanceof Refused
}

/** Mistakes that a breaker can have. */
interface Mistakes {
  readonly neverOpens?: boolean
  readonly oneFailureTooMany?: boolean
  readonly oneFailureTooFew?: boolean
  readonly successDoesNotEndTheRow?: boolean
  readonly rowSurvivesTheClosing?: boolean
  readonly opensForHalfTheTime?: boolean
  readonly rejectsAtTheBoundary?: boolean
  readonly neverHalfOpens?: boolean
  readonly everyoneProbes?: boolean
  readonly onePermitTooMany?: boolean
  readonly onePermitTooFew?: boolean
  readonly looksBeforeItCounts?: boolean
  readonly waitsForTheVerdict?: boolean
  readonly oneSuccessCloses?: boolean
  readonly oneSuccessTooMany?: boolean
  readonly successesSurviveTheReopening?: boolean
  readonly probesMayFail?: boolean
  readonly reopensWithTheOldDeadline?: boolean
  readonly reopensForTwiceTheTime?: boolean
  readonly noFencing?: boolean
  readonly fencesByStateOnly?: boolean
  readonly ignoredCounts?: boolean
  readonly ignoredKeepsTheSlot?: boolean
  readonly ignoredEndsTheRow?: boolean
  readonly ignoredCloses?: boolean
  readonly interruptedCounts?: boolean
  readonly interruptedKeepsTheSlot?: boolean
  readonly slotTakenBeforeTheFinalizer?: boolean
  readonly probesMayNeverReturn?: boolean
  readonly wrapsFailures?: boolean
  readonly swallowsDefects?: boolean
}

const rules = { failures: 3, openFor: 10_000, permits: 2, successes: 2 } as const
const probeLimit = 60_000

/**
 * A breaker as one would write it by hand, right but for its mistakes. It is
 * kept simple, and shares nothing with the model or the library's breaker.
 */
const handmade = (wrong: Mistakes = {}): Effect.Effect<BreakerLaws.Guard> =>
  Effect.sync(() => {
    const threshold = rules.failures + (wrong.oneFailureTooMany ? 1 : 0) - (wrong.oneFailureTooFew ? 1 : 0)
    const permits = rules.permits + (wrong.onePermitTooMany ? 1 : 0) - (wrong.onePermitTooFew ? 1 : 0)
    const needed = wrong.oneSuccessCloses ? 1 : rules.successes + (wrong.oneSuccessTooMany ? 1 : 0)
    let state: "closed" | "open" | "half-open" = "closed"
    let epoch = 0
    let row = 0
    let until = 0
    let inFlight = 0
    let succeeded = 0
    let lastProbe = 0
    const waiting: Array<() => void> = []

    const enter = (next: typeof state) => {
      state = next
      epoch++
      for (const wake of waiting.splice(0)) wake()
    }
    const trip = (now: number) => {
      if (wrong.neverOpens) return
      const again = state === "half-open"
      const openFor =
        rules.openFor * (wrong.opensForHalfTheTime ? 0.5 : 1) * (again && wrong.reopensForTwiceTheTime ? 2 : 1)
      if (!(again && wrong.reopensWithTheOldDeadline)) until = now + openFor
      enter("open")
    }
    const mayTry = (now: number): boolean => {
      if (state === "closed") return true
      if (state === "open") {
        if (wrong.neverHalfOpens || (wrong.rejectsAtTheBoundary ? now <= until : now < until)) return false
        enter("half-open")
        inFlight = 0
        if (!wrong.successesSurviveTheReopening) succeeded = 0
      }
      if (inFlight < permits || wrong.everyoneProbes) return true
      if (!wrong.probesMayNeverReturn && now - lastProbe >= probeLimit) trip(now)
      return false
    }
    const take = (now: number) => {
      if (state !== "half-open") return
      inFlight++
      lastProbe = now
    }
    const kindOf = (exit: Exit.Exit<unknown, unknown>) => {
      if (exit._tag === "Success") return "success"
      if (Cause.hasInterruptsOnly(exit.cause)) return wrong.interruptedCounts ? "failure" : "interrupted"
      if (isRefused(exit)) {
        return wrong.ignoredCounts ? "failure" : wrong.ignoredCloses ? "success" : "ignored"
      }
      return "failure"
    }
    const record = (
      admitted: { epoch: number; state: typeof state },
      exit: Exit.Exit<unknown, unknown>,
      now: number,
    ) => {
      const same = wrong.fencesByStateOnly ? admitted.state === state : admitted.epoch === epoch
      if ((!same && !wrong.noFencing) || state === "open") return
      const kind = kindOf(exit)
      if (state === "half-open") {
        const keeps =
          (kind === "ignored" && wrong.ignoredKeepsTheSlot) || (kind === "interrupted" && wrong.interruptedKeepsTheSlot)
        if (same && !keeps) inFlight--
        if (kind === "failure" && !wrong.probesMayFail) trip(now)
        else if (kind === "success" && ++succeeded >= needed) {
          enter("closed")
          if (!wrong.rowSurvivesTheClosing) row = 0
          if (wrong.successesSurviveTheReopening) succeeded = 0
        }
      } else if (kind === "success" || (kind === "ignored" && wrong.ignoredEndsTheRow)) {
        if (!wrong.successDoesNotEndTheRow) row = 0
      } else if (kind === "failure" && ++row >= threshold) trip(now)
    }
    const changed = <A, E>(exit: Exit.Exit<A, E>): Effect.Effect<A, unknown> => {
      if (exit._tag === "Failure" && wrong.wrapsFailures) {
        return Effect.failCause(Cause.map(exit.cause, () => new Sick()))
      }
      if (exit._tag === "Failure" && wrong.swallowsDefects && Cause.hasDies(exit.cause)) return Effect.fail(new Sick())
      return exit
    }
    const guard = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, unknown, R> =>
      Effect.uninterruptibleMask((restore) =>
        Effect.gen(function* () {
          const now = yield* Clock.currentTimeMillis
          if (!mayTry(now)) {
            if (!wrong.waitsForTheVerdict || state === "open") return yield* new NotNow()
            yield* restore(Effect.callback<void>((resume) => void waiting.push(() => resume(Effect.void))))
            return yield* restore(guard(self))
          }
          if (wrong.looksBeforeItCounts) yield* Effect.yieldNow
          take(now)
          if (wrong.slotTakenBeforeTheFinalizer) yield* restore(Effect.yieldNow)
          const admitted = { epoch, state }
          const exit = yield* Effect.exit(restore(self))
          record(admitted, exit, yield* Clock.currentTimeMillis)
          return yield* changed(exit)
        }),
      )
    return { guard, rejected: (error) => error instanceof NotNow }
  })

const subject = (wrong: Mistakes = {}): BreakerLaws.Subject => ({
  make: handmade(wrong),
  ...rules,
  probeLimit,
  defects: "failure",
  failure: () => new Sick(),
  ignorable: () => new Refused(),
})

describe("BreakerLaws", () => {
  describe("are kept", () => {
    it.effect("by a right breaker, in sequences that reach every state", () =>
      Effect.gen(function* () {
        const { calls, reached, sequences, steps } = yield* BreakerLaws.check(subject())
        assert.strictEqual(sequences, 200)
        assert.isAbove(steps, 12_000)
        assert.isAbove(calls, 10_000)
        for (const [what, times] of Object.entries(reached)) assert.isAbove(times, 75, what)
      }),
    )

    it.effect("by the breaker of this library, with its defaults", () =>
      Effect.gen(function* () {
        const { reached } = yield* BreakerLaws.check(BreakerLaws.circuitBreaker(), { sequences: 100 })
        for (const [what, times] of Object.entries(reached)) assert.isAbove(times, 25, what)
      }),
    )

    it.effect("by the breaker of this library, with any numbers", () =>
      Effect.gen(function* () {
        const between = (minimum: number, maximum: number) =>
          Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum, maximum })))
        const options = Arbitrary.all({
          failures: between(1, 7),
          openFor: between(2, 90_000),
          permits: between(1, 5),
          successes: between(1, 5),
          probeLimit: between(1000, 300_000),
        })
        for (const option of yield* Arbitrary.sampleEffect(options, { count: 20, seed: 1 })) {
          yield* BreakerLaws.check(BreakerLaws.circuitBreaker(option), { sequences: 6 })
        }
      }),
    )

    it.effect("by the breaker of this library, where it is told to mean something else", () =>
      Effect.gen(function* () {
        const few = { failures: 2, openFor: "5 seconds", permits: 2, successes: 2 } as const
        for (const option of [{ boundary: "exclusive" }, { ignored: "success" }] as const) {
          yield* BreakerLaws.check(BreakerLaws.circuitBreaker({ ...few, ...option }), { sequences: 40 })
        }
        const [exclusive, success] = [{ boundary: "exclusive" }, { ignored: "success" }] as const
        const broken = yield* Effect.flip(
          BreakerLaws.check({ ...BreakerLaws.circuitBreaker({ ...few, ...exclusive }), boundary: "inclusive" }),
        )
        assert.strictEqual(broken.law, "rejects")
        const quiet = yield* Effect.flip(
          BreakerLaws.check({ ...BreakerLaws.circuitBreaker({ ...few, ...success }), ignored: "nothing" }),
        )
        assert.strictEqual(quiet.law, "ignored")
      }),
    )

    const stock = Effect.map(
      CircuitBreaker.make({ tripPolicy: CircuitBreaker.consecutive(3), openDuration: "10 seconds" }),
      (breaker): BreakerLaws.Guard => ({
        guard: (self) => breaker.execute(self, { key: "laws", classify: meaning }),
        rejected: (error) => error instanceof CircuitBreaker.CircuitBreakerError,
      }),
    ).pipe(Effect.provide(Layer.fresh(CircuitBreaker.layerStoreMemory())))
    const meaning = (exit: Exit.Exit<unknown, unknown>): CircuitBreaker.Outcome =>
      Exit.isSuccess(exit)
        ? CircuitBreaker.success
        : isRefused(exit)
          ? CircuitBreaker.ignored
          : CircuitBreaker.failure()
    const stockSubject: BreakerLaws.Subject = {
      make: stock,
      failures: 3,
      openFor: "10 seconds",
      defects: "failure",
      ignorable: () => new Refused(),
    }

    it.effect("by Effect's own breaker, for its one probe and one success", () =>
      Effect.gen(function* () {
        const { reached } = yield* BreakerLaws.check(stockSubject, { sequences: 100 })
        for (const [what, times] of Object.entries(reached)) {
          // It has one probe at a time, so none overlap.
          if (what !== "overlappingProbes") assert.isAbove(times, 25, what)
        }
      }),
    )

    it.effect("but for one by Effect's own breaker in memory: a probe that never returns wedges it", () =>
      Effect.gen(function* () {
        const broken = yield* Effect.flip(
          BreakerLaws.check({ ...stockSubject, probeLimit: "10 minutes" }, { sequences: 20 }),
        )
        assert.strictEqual(broken.law, "neverWedged")
      }),
    )

    const { holds, sequences, title } = BreakerLaws.property(subject())
    it.effect.prop(
      `one by one, as a property: a breaker ${title}`,
      { sequence: sequences },
      ({ sequence }) => holds(sequence),
      {
        arbitrary: { runs: 30 },
      },
    )
  })

  describe("are broken", () => {
    const mistakes: Record<keyof Mistakes, BreakerLaws.Law> = {
      neverOpens: "opens",
      oneFailureTooMany: "opens",
      oneFailureTooFew: "opens",
      successDoesNotEndTheRow: "opens",
      rowSurvivesTheClosing: "opens",
      opensForHalfTheTime: "rejects",
      rejectsAtTheBoundary: "rejects",
      neverHalfOpens: "rejects",
      everyoneProbes: "probes",
      onePermitTooMany: "probes",
      onePermitTooFew: "probes",
      looksBeforeItCounts: "probes",
      waitsForTheVerdict: "probes",
      oneSuccessCloses: "closes",
      oneSuccessTooMany: "closes",
      successesSurviveTheReopening: "closes",
      probesMayFail: "reopens",
      reopensWithTheOldDeadline: "reopens",
      reopensForTwiceTheTime: "reopens",
      noFencing: "fenced",
      fencesByStateOnly: "fenced",
      ignoredCounts: "ignored",
      ignoredKeepsTheSlot: "ignored",
      ignoredEndsTheRow: "ignored",
      ignoredCloses: "ignored",
      interruptedCounts: "interrupted",
      interruptedKeepsTheSlot: "interrupted",
      slotTakenBeforeTheFinalizer: "interrupted",
      probesMayNeverReturn: "neverWedged",
      wrapsFailures: "transparent",
      swallowsDefects: "transparent",
    }

    it.effect.each(Object.entries(mistakes))("by a breaker with the mistake %s", ([mistake, law]) =>
      Effect.gen(function* () {
        const broken = yield* Effect.flip(BreakerLaws.check(subject({ [mistake]: true }), { sequences: 100 }))
        assert.strictEqual(broken.law, law, broken.message)
        assert.isBelow(broken.counterexample.length, 20)
      }),
    )

    it("each by one of these", () => {
      assert.sameMembers([...new Set(Object.values(mistakes))], [...BreakerLaws.laws])
    })

    it.effect("by a property of one sequence", () =>
      Effect.gen(function* () {
        const { holds, sequences } = BreakerLaws.property(subject({ noFencing: true }))
        const result = yield* Arbitrary.checkEffect(sequences, (sequence) => Effect.as(holds(sequence), true), {
          seed: 1,
        })
        assert.isTrue(result._tag === "Falsified" && result.failure._tag === "PropertyError")
        assert.match(Arbitrary.formatCheckFailure(result) ?? "", /The law \\?"fenced\\?" is broken/)
      }),
    )

    it.effect("by the breaker of this library when something else is asked of it", () =>
      Effect.gen(function* () {
        const ours = BreakerLaws.circuitBreaker({ openFor: "10 seconds" })
        const asked: ReadonlyArray<readonly [Partial<BreakerLaws.Parameters>, BreakerLaws.Law]> = [
          [{ failures: 4 }, "opens"],
          [{ failures: 6 }, "opens"],
          [{ threshold: "exceeded" }, "opens"],
          [{ openFor: "9 seconds" }, "rejects"],
          [{ openFor: "11 seconds" }, "rejects"],
          [{ boundary: "exclusive" }, "rejects"],
          [{ permits: 2 }, "probes"],
          [{ permits: 4 }, "probes"],
          [{ successes: 2 }, "closes"],
          [{ successes: 4 }, "closes"],
          [{ fencing: false }, "fenced"],
          [{ ignored: "success" }, "ignored"],
        ]
        for (const [parameters, law] of asked) {
          const broken = yield* Effect.flip(BreakerLaws.check({ ...ours, ...parameters }))
          assert.strictEqual(broken.law, law, `${JSON.stringify(parameters)} ${broken.message}`)
        }
      }),
    )
  })

  it.effect("leave it to the breaker what it means to do, where breakers differ", () =>
    Effect.gen(function* () {
      const meant: ReadonlyArray<readonly [Mistakes, Partial<BreakerLaws.Subject>]> = [
        [{ oneFailureTooMany: true }, { threshold: "exceeded" }],
        [{ rejectsAtTheBoundary: true }, { boundary: "exclusive" }],
        [{ noFencing: true }, { fencing: false }],
        [{ ignoredCloses: true }, { ignored: "success" }],
        [{ ignoredCounts: true }, { ignorable: undefined }],
        [{ swallowsDefects: true }, { defects: undefined }],
        [{ probesMayNeverReturn: true }, { probeLimit: undefined }],
      ]
      for (const [manner, parameters] of meant) {
        yield* BreakerLaws.check({ ...subject(manner), ...parameters }, { sequences: 25 })
      }
    }),
  )

  it.effect("show the shortest sequence that breaks one, as a table", () =>
    Effect.gen(function* () {
      const broken = yield* Effect.flip(BreakerLaws.check(subject({ ignoredKeepsTheSlot: true })))
      const [headline = "", ...lines] = broken.message.split("\n")
      assert.match(
        headline,
        /^The law "ignored" is broken: a breaker learns nothing from an outcome that is to be ignored/,
      )
      assert.match(
        headline,
        /A call is rejected, although the circuit is half-open, with 1 probe in flight and 0 succeeded\.$/,
      )
      const steps = lines.filter((line) => line.includes(" s ") || line.includes(" ms "))
      assert.match(
        steps.join("\n"),
        /wait 10(\.001)? s.*open\n.*half-open\n.*ends: ignored +half-open\n→ .*begins? +.*half-open/s,
      )
      assert.strictEqual(broken.counterexample.length, steps.length)
      assert.strictEqual(lines.at(-1), `Seed: ${broken.seed}.`)
      const again = yield* Effect.flip(
        BreakerLaws.check(subject({ ignoredKeepsTheSlot: true }), { seed: broken.seed, sequences: 1 }),
      )
      assert.strictEqual(again.message, broken.message)
    }),
  )

  it.effect("begin each sequence with a breaker of its own, and close its scope", () =>
    Effect.gen(function* () {
      let open = 0
      let made = 0
      const make = Effect.acquireRelease(
        Effect.tap(handmade(), () => Effect.sync(() => [open++, made++])),
        () => Effect.sync(() => open--),
      )
      yield* BreakerLaws.check({ ...subject(), make }, { sequences: 20 })
      assert.strictEqual(open, 0)
      // One more for the probes that never return.
      assert.strictEqual(made, 21)
    }),
  )

  it.effect("leave the clock of the test where it is", () =>
    Effect.gen(function* () {
      yield* BreakerLaws.check(subject(), { sequences: 5 })
      assert.strictEqual(yield* Clock.currentTimeMillis, 0)
    }),
  )
})

it.effect("BreakerLaws say so when no sequence opened the circuit, and prove nothing silently", () =>
  Effect.gen(function* () {
    const subject = BreakerLaws.circuitBreaker({ failures: 1000 })
    const exit = yield* Effect.exit(BreakerLaws.check(subject, { sequences: 2 }))
    assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
    assert.match(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "", /No sequence opened the circuit/)
  }),
)
