import { assert, describe, it } from "@effect/vitest"
import { LlmError, PolicyEvent, Provider, Retry } from "@understudy/core"
import { Arbitrary, Clock, Duration, Effect, Random, Schedule, Schema } from "effect"
import { ScheduleLaws } from "../src/index.ts"

/** Changes a schedule's delays, in milliseconds, by the failure before them. */
const changed =
  (change: (millis: number, failure: unknown) => number) =>
  <Out, In, R>(self: Schedule.Schedule<Out, In, never, R>): Schedule.Schedule<Out, In, never, R> =>
    Schedule.modifyDelay(self, ({ duration, input }) =>
      Effect.succeed(Duration.millis(change(Duration.toMillis(duration), input))),
    )

const hint = (failure: unknown): number => {
  const duration = ScheduleLaws.hintOf(failure)
  return duration === undefined ? 0 : Duration.toMillis(duration)
}

/** At least the hint of the latest failure. */
const atLeastTheHint = changed((millis, failure) => Math.max(millis, hint(failure)))

const exponential = Schedule.exponential("500 millis")
const capped = Schedule.min([exponential, Schedule.spaced("8 seconds")])

/** Delays by a function of the step, counted from 0, and a random number. */
const delays = (delay: (n: number, random: number) => number): Schedule.Schedule<number> =>
  Schedule.fromStep(
    Effect.sync(() => {
      let n = 0
      return () =>
        Effect.map(Random.next, (random) => [n, Duration.millis(delay(n++, random))] as [number, Duration.Duration])
    }),
  )

/** A policy that asks three times more, at once. */
const eager: Provider.Policy = (self) =>
  Provider.make({
    name: self.name,
    model: self.model,
    face: self.face,
    generate: (request) => Effect.retry(self.generate(request), { times: 3 }),
    stream: self.stream,
  }) as typeof self

/** A policy that waits longer with each call it has ever seen. */
const tiring = (): Provider.Policy => {
  let waits = 0
  return (self) =>
    Provider.make({
      name: self.name,
      model: self.model,
      face: self.face,
      generate: (request) =>
        Effect.retry(self.generate(request), Schedule.recurs(2).pipe(changed(() => 1000 * ++waits))),
      stream: self.stream,
    }) as typeof self
}

describe("ScheduleLaws", () => {
  describe("are kept", () => {
    const stock: ReadonlyArray<readonly [string, Schedule.Schedule<unknown>, ScheduleLaws.Options<unknown>]> = [
      ["recurs", Schedule.recurs(3), { times: 3, cap: 0, total: 0, monotone: true }],
      ["spaced", Schedule.spaced("1 second"), { cap: "1 second", monotone: true }],
      ["exponential", exponential, { monotone: true }],
      ["exponential, capped by min", capped, { cap: "8 seconds", monotone: true }],
      [
        "exponential, jittered and then capped",
        Schedule.min([Schedule.jittered(exponential), Schedule.spaced("8 seconds")]),
        { cap: "8 seconds", monotone: true },
      ],
      [
        "exponential, capped and then jittered by 20 %",
        Schedule.jittered(capped),
        { cap: "9600 millis", monotone: true },
      ],
      ["fibonacci", Schedule.fibonacci("10 millis"), { monotone: true }],
      [
        "upTo times",
        capped.pipe(Schedule.upTo({ times: 5 })),
        { times: 5, cap: "8 seconds", total: "15500 millis", monotone: true },
      ],
      [
        "upTo duration, one delay over",
        capped.pipe(Schedule.upTo({ duration: "30 seconds" })),
        { total: "38 seconds" },
      ],
      ["fixed", Schedule.fixed("2 seconds"), { cap: "2 seconds" }],
      ["windowed", Schedule.windowed("2 seconds"), { cap: "2 seconds" }],
      ["a hint, at least", atLeastTheHint(capped), { cap: "8 seconds", honoursHint: true, monotone: true }],
    ]
    it.effect.each(stock)("by %s, of Effect", ([, schedule, options]) =>
      Effect.gen(function* () {
        const { laws, runs } = yield* ScheduleLaws.check(schedule, options)
        assert.includeMembers([...laws], ["neverNegative", "deterministic"])
        assert.isAtLeast(runs, 200)
      }),
    )

    it.effect("by full jitter and by decorrelated jitter", () =>
      Effect.gen(function* () {
        const full = delays((n, random) => Math.min(8000, 500 * 2 ** n) * random)
        yield* ScheduleLaws.check(full, { cap: "8 seconds", monotone: true })
        const decorrelated: Schedule.Schedule<number> = Schedule.fromStep(
          Effect.sync(() => {
            let last = 500
            return () =>
              Effect.map(Random.next, (random): [number, Duration.Duration] => {
                last = Math.min(8000, 500 + random * (last * 3 - 500))
                return [last, Duration.millis(last)]
              })
          }),
        )
        yield* ScheduleLaws.check(decorrelated, { cap: "8 seconds", monotone: true })
      }),
    )

    it.effect("by a schedule that reads the clock and needs a service", () =>
      Effect.gen(function* () {
        const patient = Schedule.while(exponential, () => Effect.map(Clock.currentTimeMillis, (now) => now < 60_000))
        yield* ScheduleLaws.check(patient, { times: 8, total: "2 minutes" })
      }),
    )
  })

  describe("of our own Retry", () => {
    const asked: ScheduleLaws.Options<object> = {
      cap: "8 seconds",
      times: 2,
      total: "1500 millis",
      monotone: true,
      honoursHint: true,
    }

    it.effect("are kept by its defaults, played on virtual time", () =>
      Effect.gen(function* () {
        const report = yield* ScheduleLaws.check(ScheduleLaws.ofPolicy(Retry.with()), asked)
        assert.deepStrictEqual(report.laws, ScheduleLaws.laws)
      }),
    )

    it.effect("are kept by other numbers, with the bounds that follow from them", () =>
      Effect.gen(function* () {
        const policy = Retry.with({ times: 6, base: "100 millis", factor: 3, cap: "2 seconds", jitter: "none" })
        const total = 100 + 300 + 900 + 2000 * 3
        const bounds = { cap: "2 seconds", times: 6, total, monotone: true, honoursHint: true } as const
        yield* ScheduleLaws.check(ScheduleLaws.ofPolicy(policy), { ...bounds, runs: 40 })
        const broken = yield* ScheduleLaws.examine(ScheduleLaws.ofPolicy(policy), {
          cap: 1999,
          times: 5,
          total: total - 1,
          runs: 40,
        })
        assert.deepStrictEqual(
          broken.map(({ law }) => law),
          ["stops", "capped", "boundedTotal"],
        )
      }),
    )

    it.effect("are kept for a schedule that ignores hints, since Retry does not", () =>
      Effect.gen(function* () {
        const schedule = Schedule.spaced("1 second")
        const policy = Retry.with({ schedule, times: 4 })
        yield* ScheduleLaws.check(ScheduleLaws.ofPolicy(policy), { honoursHint: true, runs: 40 })
        const [broken] = yield* ScheduleLaws.examine(schedule, { honoursHint: true })
        assert.strictEqual(broken?.law, "honoursHint")
      }),
    )

    it.effect("are checked against the waits that its events tell", () =>
      Effect.gen(function* () {
        const told: Array<number> = []
        const observe = PolicyEvent.observe((event) => {
          if (event.event === "BackedOff") told.push(event.delayMs)
        })
        const subject = ScheduleLaws.ofPolicy(Retry.with({ times: 5 }))
        const failure = new LlmError.Overloaded({ provider: "a" })
        const rounds = Array.from({ length: 9 }, (_, n) => ({ failure, took: n * 100 }))
        const waits = yield* observe(subject.waits({ chance: 7, rounds }))
        assert.strictEqual(waits.length, 5)
        for (const [n, wait] of waits.entries()) assert.approximately(wait, told[n] ?? NaN, 0.001)
      }),
    )
  })

  /** Delays that the suites of other libraries expect, in milliseconds: base, factor, cap, and what follows. */
  const expected: ReadonlyArray<readonly [string, readonly [number, number, number], ReadonlyArray<number>]> = [
    ["cockatiel", [128, 2, 30_000], [128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 30_000, 30_000, 30_000]],
    ["Polly", [1000, 2, 60_000], [1000, 2000, 4000]],
    ["failsafe-go", [1, 2, 10], [1, 2, 4, 8, 10, 10]],
    [
      "resilience4j",
      [100, 2, 100_000],
      [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 100_000, 100_000],
    ],
  ]
  it.effect.each(expected)(
    "drive schedules and policies to the delays that %s expects",
    ([, [base, factor, cap], waits]) =>
      Effect.gen(function* () {
        const failure = new LlmError.Overloaded({ provider: "a" })
        const rounds = waits.map(() => ({ failure, took: 0 }))
        const schedule = Schedule.min([Schedule.exponential(base, factor), Schedule.spaced(cap)])
        const policy = Retry.with({ base, factor, cap, jitter: "none", times: waits.length, maxWait: "1 hour" })
        for (const subject of [ScheduleLaws.ofSchedule(schedule), ScheduleLaws.ofPolicy(policy)]) {
          assert.deepStrictEqual(yield* subject.waits({ chance: 0, rounds }), waits)
        }
      }),
  )

  describe("are broken", () => {
    /** A schedule with a mistake, what is asked of it, the law that it breaks, and others that it may break too. */
    interface Mistake {
      readonly schedule: Schedule.Schedule<unknown, unknown>
      readonly asked: ScheduleLaws.Options<unknown>
      readonly law: ScheduleLaws.Law
      readonly also?: ReadonlyArray<ScheduleLaws.Law>
    }

    const shared = (() => {
      let calls = 0
      return Schedule.fromStep(
        Effect.succeed(() =>
          Effect.sync((): [number, Duration.Duration] => [++calls, Duration.millis(100 * (calls % 30))]),
        ),
      )
    })()

    const firstHint = Schedule.fromStep(
      Effect.sync(() => {
        let first: number | undefined
        return (_now: number, failure: unknown) =>
          Effect.sync((): [number, Duration.Duration] => {
            first ??= hint(failure)
            return [first, Duration.millis(Math.max(1000, first))]
          })
      }),
    )

    const everything = { cap: "8 seconds", times: 5, total: "30 seconds", monotone: true } as const

    const mistakes: Record<string, Mistake> = {
      "jitter around the delay that is larger than the delay": {
        schedule: delays((_, random) => 1000 + (random * 2 - 1) * 1200).pipe(Schedule.upTo({ times: 5 })),
        asked: everything,
        law: "neverNegative",
      },
      "doubling in 32 bits": {
        schedule: delays((n) => 500 * (1 << n)),
        asked: { monotone: true },
        law: "neverNegative",
        also: ["monotone"],
      },
      "the logarithm of a random number that can be zero": {
        schedule: delays((_, random) => -1000 * Math.log(random)).pipe(Schedule.upTo({ times: 5 })),
        asked: { times: 5 },
        law: "neverNegative",
      },
      "no cap": {
        schedule: exponential.pipe(Schedule.upTo({ times: 6 })),
        asked: { ...everything, times: 6, total: "40 seconds" },
        law: "capped",
      },
      "jitter after the cap": {
        schedule: Schedule.jittered(capped).pipe(Schedule.upTo({ times: 5 })),
        asked: { ...everything, times: 5, cap: "8 seconds", total: "30 seconds" },
        law: "capped",
        also: ["boundedTotal"],
      },
      "a cap by max instead of min": {
        schedule: Schedule.max([exponential, Schedule.spaced("8 seconds")]).pipe(Schedule.upTo({ times: 8 })),
        asked: { times: 8, cap: "8 seconds" },
        law: "capped",
      },
      "a sawtooth": {
        schedule: delays((n) => 100 * 2 ** (n % 4)).pipe(Schedule.upTo({ times: 12 })),
        asked: { ...everything, times: 12 },
        law: "monotone",
      },
      "a fast second phase": {
        schedule: Schedule.concat(
          Schedule.spaced("2 seconds").pipe(Schedule.upTo({ times: 2 })),
          Schedule.spaced("200 millis").pipe(Schedule.upTo({ times: 3 })),
        ),
        asked: everything,
        law: "monotone",
      },
      "a duration that is looked at before the last wait only": {
        schedule: capped.pipe(Schedule.upTo({ duration: "30 seconds" })),
        asked: { cap: "8 seconds", total: "30 seconds", monotone: true },
        law: "boundedTotal",
      },
      "a total that is forgotten": {
        schedule: capped.pipe(Schedule.upTo({ times: 9 })),
        asked: { ...everything, times: 9 },
        law: "boundedTotal",
      },
      "no hint": {
        schedule: capped,
        asked: { cap: "8 seconds", honoursHint: true, monotone: true },
        law: "honoursHint",
      },
      "the hint of the first failure": {
        schedule: firstHint,
        asked: { honoursHint: true, monotone: true },
        law: "honoursHint",
      },
      "a hint that is capped": {
        schedule: Schedule.min([atLeastTheHint(exponential), Schedule.spaced("8 seconds")]),
        asked: { cap: "8 seconds", honoursHint: true },
        law: "honoursHint",
      },
      "jitter below the hint": {
        schedule: Schedule.jittered(atLeastTheHint(capped)),
        asked: { cap: "9600 millis", honoursHint: true },
        law: "honoursHint",
      },
      "a hint in seconds read as milliseconds": {
        schedule: changed((millis, failure) => Math.max(millis, hint(failure) / 1000))(capped),
        asked: { cap: "8 seconds", honoursHint: true },
        law: "honoursHint",
      },
      "no end": {
        schedule: Schedule.spaced("1 second"),
        asked: everything,
        law: "stops",
        also: ["boundedTotal"],
      },
      "one attempt too many": {
        schedule: capped.pipe(Schedule.upTo({ times: 6 })),
        asked: everything,
        law: "stops",
      },
      "a jitter that is not seeded": {
        schedule: changed((millis) => millis * Math.random())(capped).pipe(Schedule.upTo({ times: 5 })),
        asked: { ...everything, monotone: false },
        law: "deterministic",
      },
      "a count that all calls share": {
        schedule: shared,
        asked: { cap: "8 seconds" },
        law: "deterministic",
      },
    }

    it.effect.each(Object.entries(mistakes))("by a schedule with %s", ([, { also = [], asked, law, schedule }]) =>
      Effect.gen(function* () {
        const broken = (yield* ScheduleLaws.examine(schedule, asked)).map(({ law }) => law)
        assert.include(broken, law)
        assert.deepStrictEqual(
          broken.filter((name) => name !== law && !also.includes(name)),
          [],
        )
      }),
    )

    it.effect("and the first in order is what a check fails with", () =>
      Effect.gen(function* () {
        const { asked, schedule } = mistakes["no end"] as Mistake
        const broken = yield* ScheduleLaws.examine(schedule, asked)
        assert.deepStrictEqual(
          broken.map(({ law }) => law),
          ["stops", "boundedTotal"],
        )
        assert.deepStrictEqual(yield* Effect.flip(ScheduleLaws.check(schedule, asked)), broken[0])
      }),
    )

    it("for every law by one of these", () => {
      assert.sameMembers([...new Set(Object.values(mistakes).map(({ law }) => law))], [...ScheduleLaws.laws])
    })

    it.effect("by a policy that retries at once, and by one that shares its state", () =>
      Effect.gen(function* () {
        const [atOnce] = yield* ScheduleLaws.examine(ScheduleLaws.ofPolicy(eager), {
          times: 3,
          honoursHint: true,
          runs: 20,
        })
        assert.strictEqual(atOnce?.law, "honoursHint")
        const [shared] = yield* ScheduleLaws.examine(ScheduleLaws.ofPolicy(tiring()), { runs: 20 })
        assert.strictEqual(shared?.law, "deterministic")
      }),
    )
  })

  it.effect("show the waits that break a law, as a table", () =>
    Effect.gen(function* () {
      const broken = yield* Effect.flip(
        ScheduleLaws.check(exponential.pipe(Schedule.upTo({ times: 6 })), {
          cap: "8 seconds",
          failures: ScheduleLaws.failures("Overloaded"),
          hint: () => undefined,
        }),
      )
      assert.strictEqual(
        broken.message
          .replace(/seed \d+|always the \w+ number/, "some seed")
          .replaceAll(/elapsed|  \S+ m?s$/gm, "")
          .replaceAll(/ +$/gm, ""),
        [
          'The law "capped" is broken: a schedule waits no longer than the cap. Wait 6 is 16 s, and the cap is 8 s.',
          "",
          "  step  failure     hint  wait",
          "  1     Overloaded  –     500 ms",
          "  2     Overloaded  –     1 s",
          "  3     Overloaded  –     2 s",
          "  4     Overloaded  –     4 s",
          "  5     Overloaded  –     8 s",
          "→ 6     Overloaded  –     16 s",
          "",
          "Random source: some seed.",
        ].join("\n"),
      )
      assert.strictEqual(broken.counterexample.length, 6)
      assert.deepInclude(broken, { law: "capped", step: 6 })
    }),
  )

  it.effect("show both runs when they differ", () =>
    Effect.gen(function* () {
      const broken = yield* Effect.flip(ScheduleLaws.check(changed((millis) => millis + Math.random())(capped)))
      assert.strictEqual(broken.law, "deterministic")
      assert.match(broken.message, /step +failure +hint +wait +again +elapsed/)
    }),
  )

  it.effect("take failures of one's own, with hints of one's own", () =>
    Effect.gen(function* () {
      class Busy extends Schema.TaggedError<Busy>()("Busy", { seconds: Schema.Int }) {}
      const failures = Arbitrary.map(
        Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 60 }))),
        (seconds) => new Busy({ seconds }),
      )
      const given = {
        failures,
        hint: (busy: Busy) => (busy.seconds === 0 ? undefined : Duration.seconds(busy.seconds)),
      }
      const patient = Schedule.spaced("1 second").pipe(
        Schedule.setInputType<Busy>(),
        Schedule.modifyDelay(({ duration, input }) =>
          Effect.succeed(Duration.max(duration, Duration.seconds(input.seconds))),
        ),
      )
      yield* ScheduleLaws.check(patient, { ...given, cap: "1 second", honoursHint: true })
      const broken = yield* Effect.flip(
        ScheduleLaws.check(patient, {
          ...given,
          hint: ({ seconds }) => Duration.seconds(seconds + 1),
          honoursHint: true,
        }),
      )
      assert.strictEqual(broken.law, "honoursHint")
      // @ts-expect-error -- a schedule whose input is narrower must be given its failures
      void ScheduleLaws.check(patient, { cap: "1 second" })
    }),
  )

  it.effect("say so when a law cannot be tried on the failures given", () =>
    Effect.gen(function* () {
      const hinted = Arbitrary.filter(
        ScheduleLaws.failures("RateLimited"),
        (failure) => failure.retryAfter !== undefined,
      )
      const exit = yield* Effect.exit(ScheduleLaws.check(Schedule.recurs(1), { failures: hinted, monotone: true }))
      assert.match(String(exit), /"monotone" could not be checked. It needs failures without a hint/)
    }),
  )

  describe("one by one", () => {
    const five = atLeastTheHint(capped).pipe(Schedule.upTo({ times: 5 }))
    const one = [
      ScheduleLaws.deterministic(five),
      ScheduleLaws.neverNegative(five),
      ScheduleLaws.stops(five, 5),
      ScheduleLaws.capped(five, "8 seconds"),
      ScheduleLaws.monotone(five),
      ScheduleLaws.boundedTotal(five, "15500 millis"),
      ScheduleLaws.honoursHint(five),
    ]
    for (const law of one) {
      it.effect.prop(`a schedule ${law.title}`, { sequence: law.sequences }, ({ sequence }) => law.holds(sequence), {
        arbitrary: { runs: 30 },
      })
    }

    it("are all laws", () => {
      assert.deepStrictEqual(
        one.map(({ law }) => law),
        [...ScheduleLaws.laws],
      )
    })
  })
})
