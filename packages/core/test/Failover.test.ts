import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Redacted, Scope, Stream } from "effect"
import {
  Call,
  CircuitBreaker,
  Failover,
  FailureMode,
  LlmError,
  Provider,
  Retry,
  Timeouts,
  Understudy,
} from "@understudy/core"
import { assertInOrder, listener } from "./PolicyEvent.check.ts"
import {
  ask,
  dies,
  end,
  expectTag,
  failed,
  fails,
  failure,
  Foreign,
  hangs,
  inTurn,
  kinds,
  openIn,
  play,
  question,
  random,
  type Random,
  type Reply,
  said,
  say,
  says,
  seconds,
  start,
  streams,
  stub,
  textOf,
  timed,
} from "./stub.ts"

/** The failures that a failure carries from the attempts before. */
const carried = (error: LlmError.LlmError): ReadonlyArray<LlmError.LlmError> =>
  "failures" in error ? (error.failures ?? []) : []

const tagsOf = (failures: ReadonlyArray<LlmError.LlmError>): ReadonlyArray<string> =>
  failures.map((f) => `${f.provider}: ${f._tag}`)

/** A candidate for the random lists: how it fails, and its window. */
interface Candidate {
  readonly tag: LlmError.Tag
  readonly contextWindow: number | undefined
}

/**
 * What must come of candidates that fail so, by the rules as the design has
 * them: which of them are asked, and what leaves.
 */
const expected = (list: ReadonlyArray<Candidate>, whenFiltered: "stop" | "next") => {
  const asked: Array<number> = []
  let tooLong: number | undefined
  for (const [index, { contextWindow, tag }] of list.entries()) {
    if (tooLong !== undefined && (contextWindow ?? 0) <= tooLong) continue
    asked.push(index)
    if (tag === "ContentFiltered" && whenFiltered === "stop") break
    if (tag === "DeadlineExceeded") break
    if (tag === "ContextLengthExceeded") tooLong = Math.max(tooLong ?? 0, contextWindow ?? 1)
  }
  const tags = asked.map((index) => list[index]!.tag)
  const remedyAbove = tags.find((tag) => tag === "ContextLengthExceeded" || tag === "ContentFiltered")
  // Our own circuits and limits kept these from being asked at all.
  const tried = tags.filter((tag) => tag !== "CircuitOpen" && tag !== "CapacityExceeded")
  const allWrong = tried.length > 0 && tried.every((tag) => tag === "InvalidRequest")
  const leaves: LlmError.Tag =
    tags.at(-1) === "DeadlineExceeded"
      ? "DeadlineExceeded"
      : (remedyAbove ?? (allWrong ? "InvalidRequest" : "AllProvidersFailed"))
  return {
    asked,
    leaves,
    from: leaves === "AllProvidersFailed" ? undefined : asked.find((i) => list[i]!.tag === leaves),
  }
}

const anyTag = (r: Random): LlmError.Tag =>
  r.chance(0.6)
    ? r.pick(["InvalidRequest", "ContextLengthExceeded", "ContentFiltered"] as const)
    : r.pick(LlmError.tags.filter((tag) => tag !== "AllProvidersFailed"))

describe("Failover", () => {
  it.effect("asks by priority, the lowest number first, and equal ones in the order of the list", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const down = (name: string) => stub(name, () => fails(failure("Overloaded", name)), log).provider
      const provider = Failover.make([
        { provider: down("c"), priority: 2 },
        { provider: down("b1"), priority: 1 },
        down("a"),
        { provider: down("b2"), priority: 1 },
        { provider: down("off"), enabled: false },
      ])
      for (const kind of kinds) {
        log.length = 0
        const { exit } = yield* play(ask(kind, provider))
        assert.deepStrictEqual(
          log.filter((line) => line.endsWith("opens")),
          ["a opens", "b1 opens", "b2 opens", "c opens"],
        )
        const all = expectTag("AllProvidersFailed", failed(exit))
        assert.deepStrictEqual(tagsOf(all.failures), [
          "a: Overloaded",
          "b1: Overloaded",
          "b2: Overloaded",
          "c: Overloaded",
        ])
        assert.strictEqual(all.provider, "a | b1 | b2 | c")
      }
    }),
  )

  it.effect("says that no provider could be asked when all are disabled or none is left by a pin", () =>
    Effect.gen(function* () {
      const a = stub("a", () => says("a"))
      const off = Failover.make([{ provider: a.provider, enabled: false }])
      assert.deepStrictEqual(
        expectTag("AllProvidersFailed", failed((yield* play(ask("generate", off))).exit)).failures,
        [],
      )
      const pinned = ask("generate", Failover.make([a.provider])).pipe(Call.pin("nobody"))
      assert.strictEqual(said((yield* play(pinned)).exit), "AllProvidersFailed")
      assert.strictEqual(a.asked.length, 0)
    }),
  )

  it.effect("reaches a candidate inside another composition by its name, or the composition by its own", () =>
    Effect.gen(function* () {
      const [a, b, c] = ["a", "b", "c"].map((name) => stub(name, () => says(name)))
      const inner = Failover.make([a!.provider, b!.provider], { name: "inner" })
      const provider = Failover.make([c!.provider, inner])
      const pinned = (name: string) => play(ask("generate", provider).pipe(Call.pin(name)))
      assert.strictEqual(said((yield* pinned("b")).exit), "b")
      assert.strictEqual(said((yield* pinned("inner")).exit), "a")
      assert.strictEqual(said((yield* pinned("c")).exit), "c")
      assert.strictEqual(said((yield* play(ask("generate", provider).pipe(Call.exclude("c")))).exit), "a")
      assert.strictEqual(said((yield* play(ask("generate", provider).pipe(Call.exclude("c", "a")))).exit), "b")
    }),
  )

  it.effect("does not blame a candidate for an attempt that was cut short for the sake of the next", () =>
    Effect.gen(function* () {
      const a = stub("a", () => says("a", 2000))
      const b = stub("b", () => says("b"))
      const provider = Understudy.make({ candidates: [{ provider: a.provider }, { provider: b.provider }] })
      for (let n = 0; n < 10; n++) {
        const { exit } = yield* play(ask("generate", provider).pipe(Call.withDeadline("1 second")))
        assert.strictEqual(said(exit), "b")
      }
      assert.strictEqual(a.asked.length, 10)
      assert.strictEqual(said((yield* play(ask("generate", provider))).exit), "a")
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("asks only those that the call pins, and none that it excludes", () =>
    Effect.gen(function* () {
      const provider = Failover.make([
        stub("a", () => says("a")).provider,
        stub("b", () => says("b")).provider,
        stub("c", () => says("c")).provider,
      ])
      const cases = [
        [Call.pin("b"), "b"],
        [Call.pin("c", "b"), "b"],
        [Call.exclude("a", "b"), "c"],
        [Call.exclude("nobody"), "a"],
      ] as const
      for (const [only, answer] of cases) {
        assert.strictEqual(said((yield* play(only(ask("generate", provider)))).exit), answer)
      }
      const stream = provider.stream(question).pipe(Call.stream({ pin: ["a", "b"], exclude: ["a"] }))
      const { exit } = yield* play(Stream.runCollect(stream))
      assert.strictEqual(textOf(exit._tag === "Success" ? exit.value : []), "b")
    }),
  )

  it.effect("passes over an open circuit without an attempt, and keeps that as a failure", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(failure("ModelNotFound", "a")))
      const b = stub("b", inTurn(says("b"), fails(failure("Overloaded", "b"))))
      const provider = Failover.make([a.provider.pipe(CircuitBreaker.with()), b.provider])
      const { effect, events } = listener()
      yield* play(effect(ask("generate", provider)))
      const { exit } = yield* play(effect(ask("generate", provider)))
      const all = expectTag("AllProvidersFailed", failed(exit))
      assert.deepStrictEqual(tagsOf(all.failures), ["a: CircuitOpen", "b: Overloaded"])
      assert.deepStrictEqual(all.retryAfter, seconds(60))
      assert.strictEqual(a.asked.length, 1)
      assertInOrder(events)
      assert.strictEqual(events.filter((event) => event.event === "CircuitRejected").length, 1)
      // Nobody took over from a candidate that was not asked.
      const takenOver = events.filter((event) => event.event === "FailedOver").map((event) => event.failure)
      assert.deepStrictEqual(takenOver, ["ModelNotFound"])
    }).pipe(Effect.provide(Understudy.layer)),
  )

  describe("of a mixed list of failures", () => {
    it.effect("follows the rules of the design, for random lists of candidates", () =>
      Effect.gen(function* () {
        const left = new Map<string, number>()
        for (let seed = 0; seed < 1500; seed++) {
          const r = random(seed)
          const mood = r.chance(0.25) ? anyTag(r) : undefined
          const list = Array.from({ length: r.int(1, 7) }, (): Candidate => ({
            tag: mood !== undefined && r.chance(0.9) ? mood : anyTag(r),
            contextWindow: r.chance(0.7) ? r.int(1, 4) * 1000 : undefined,
          }))
          const whenFiltered = r.pick(["stop", "next"] as const)
          const asked: Array<number> = []
          const failures = list.map(({ tag }, index) => failure(tag, `p${index}`))
          const candidates = list.map(({ contextWindow }, index) => ({
            contextWindow,
            provider: stub(`p${index}`, () => {
              asked.push(index)
              return fails(failures[index]!)
            }).provider,
          }))
          const kind = r.pick(kinds)
          const provider = Failover.make(candidates as [(typeof candidates)[number]], { whenFiltered, maxAttempts: 20 })
          const { exit } = yield* play(ask(kind, provider))
          const error = failed(exit)
          const want = expected(list, whenFiltered)
          const what = `seed ${seed}: ${JSON.stringify({ list, whenFiltered })}`
          assert.deepStrictEqual(asked, want.asked, what)
          assert.strictEqual(error._tag, want.leaves, what)
          if (!LlmError.isLlmError(error)) return assert.fail(what)
          if (want.from !== undefined) assert.strictEqual(error.provider, `p${want.from}`, what)
          if (asked.length > 1 && error._tag !== "DeadlineExceeded") {
            assert.deepStrictEqual(
              carried(error),
              want.asked.map((index) => failures[index]!),
              what,
            )
          }
          left.set(error._tag, (left.get(error._tag) ?? 0) + 1)
        }
        for (const tag of ["AllProvidersFailed", "InvalidRequest", "ContentFiltered", "ContextLengthExceeded"]) {
          assert.isAtLeast(left.get(tag) ?? 0, 100, tag)
        }
      }),
    )

    it.effect("lets InvalidRequest leave when every candidate that was asked raised it, whoever was not asked", () =>
      Effect.gen(function* () {
        const wrong = (name: string) => stub(name, () => fails(failure("InvalidRequest", name))).provider
        const full = stub("full", () => fails(failure("CapacityExceeded", "full"))).provider
        const dead = stub("dead", () => fails(failure("ModelNotFound", "dead"))).provider.pipe(CircuitBreaker.with())
        yield* play(ask("generate", dead))
        for (const notAsked of [full, dead]) {
          const { exit } = yield* play(ask("generate", Failover.make([wrong("a"), notAsked, wrong("b")])))
          assert.strictEqual(said(exit), "InvalidRequest", notAsked.name)
        }
      }).pipe(Effect.provide(Understudy.layer)),
    )

    it.effect("lets InvalidRequest leave when a candidate raised it after another attempt failed otherwise", () =>
      Effect.gen(function* () {
        const a = stub(
          "a",
          inTurn<LlmError.LlmError>(fails(failure("ConnectionFailed", "a")), fails(failure("InvalidRequest", "a"))),
        )
        const b = stub("b", () => fails(failure("InvalidRequest", "b")))
        const { exit } = yield* play(ask("generate", Failover.make([a.provider.pipe(Retry.with()), b.provider])))
        const wrong = expectTag("InvalidRequest", failed(exit))
        assert.deepStrictEqual(tagsOf(carried(wrong)), [
          "a: ConnectionFailed",
          "a: InvalidRequest",
          "b: InvalidRequest",
        ])
      }),
    )

    it.effect("is retryable if one failure is, with the least hint", () =>
      Effect.gen(function* () {
        const make = (...list: ReadonlyArray<LlmError.LlmError>) => {
          const [first, ...rest] = list.map((f, index) => stub(`p${index}`, () => fails(f)).provider)
          return Failover.make([first!, ...rest])
        }
        const hinted = failure("RateLimited", "a", { retryAfter: seconds(30) })
        const shorter = failure("Overloaded", "b", { retryAfter: seconds(7) })
        const hopeless = failure("AuthenticationFailed", "c")
        for (const [provider, retryable, retryAfter] of [
          [make(hinted, shorter, hopeless), true, seconds(7)],
          [make(hopeless, hinted), true, seconds(30)],
          [make(hopeless, failure("ModelNotFound", "d")), false, undefined],
        ] as const) {
          const all = expectTag("AllProvidersFailed", failed((yield* play(ask("generate", provider))).exit))
          assert.strictEqual(all.retryable, retryable)
          assert.deepStrictEqual(all.retryAfter, retryAfter)
        }
      }),
    )

    it.effect("keeps what the provider wrote with the failure that leaves", () =>
      Effect.gen(function* () {
        const evidence = { providerMessage: "they said so", cause: new Error("below") }
        const filtered = LlmError.withEvidence(new LlmError.ContentFiltered({ provider: "b" }), evidence)
        const a = stub("a", () => fails(failure("Overloaded")))
        const b = stub("b", () => fails(filtered))
        const { exit } = yield* play(ask("generate", Failover.make([a.provider, b.provider])))
        const left = expectTag("ContentFiltered", failed(exit))
        assert.strictEqual(left.providerMessage && Redacted.value(left.providerMessage), "they said so")
        assert.strictEqual(left.cause && Redacted.value(left.cause), evidence.cause)
        assert.strictEqual(carried(left).length, 2)
      }),
    )
  })

  it.effect("takes a request that is too long only to candidates with a larger window", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const long = (name: string) => stub(name, () => fails(failure("ContextLengthExceeded", name)), log).provider
      const provider = Failover.make([
        { provider: long("8k"), contextWindow: 8000 },
        { provider: long("4k"), contextWindow: 4000 },
        long("unknown"),
        { provider: long("32k"), contextWindow: 32_000 },
        { provider: long("16k"), contextWindow: 16_000 },
        { provider: stub("128k", () => says("fits"), log).provider, contextWindow: 128_000 },
      ])
      assert.strictEqual(said((yield* play(ask("generate", provider))).exit), "fits")
      assert.deepStrictEqual(
        log.filter((line) => line.endsWith("opens")),
        ["8k opens", "32k opens", "128k opens"],
      )
    }),
  )

  it.effect("takes the window that the provider states when none is configured", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(new LlmError.ContextLengthExceeded({ provider: "a", limit: 16_000 })))
      const [b, c] = [stub("b", () => says("b")), stub("c", () => says("c"))]
      const provider = Failover.make([
        a.provider,
        { provider: b.provider, contextWindow: 16_000 },
        { provider: c.provider, contextWindow: 32_000 },
      ])
      assert.strictEqual(said((yield* play(ask("generate", provider))).exit), "c")
    }),
  )

  it.effect("does not shop a refused prompt around, unless it is told to", () =>
    Effect.gen(function* () {
      for (const [whenFiltered, answer] of [
        [undefined, "ContentFiltered"],
        ["stop", "ContentFiltered"],
        ["next", "b"],
      ] as const) {
        const a = stub("a", () => fails(failure("ContentFiltered")))
        const b = stub("b", () => says("b"))
        const provider = Failover.make([a.provider, b.provider], whenFiltered === undefined ? {} : { whenFiltered })
        assert.strictEqual(said((yield* play(ask("generate", provider))).exit), answer)
      }
    }),
  )

  it.effect("lets failures that are not of the union, and defects, pass without asking another", () =>
    Effect.gen(function* () {
      for (const kind of kinds) {
        const b = stub("b", () => says("b"))
        const foreign = new Foreign("theirs")
        const strange = Failover.make([stub("a", () => fails(foreign)).provider, b.provider])
        assert.strictEqual(failed((yield* play(ask(kind, strange))).exit), foreign)
        const broken = Failover.make([stub("a", () => dies(new Error("a bug"))).provider, b.provider])
        const { exit } = yield* play(ask(kind, broken))
        assert.isTrue(exit._tag === "Failure" && exit.cause.reasons.every((reason) => reason._tag === "Die"))
        assert.strictEqual(b.asked.length, 0)
      }
    }),
  )

  it.effect("follows the table that is in use", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(failure("Overloaded")))
      const b = stub("b", () => says("b"))
      const { exit } = yield* play(ask("generate", Failover.make([a.provider, b.provider])))
      assert.strictEqual(said(exit), "AllProvidersFailed")
      assert.strictEqual(b.asked.length, 0)
    }).pipe(Effect.provide(FailureMode.layer({ Overloaded: { next: "no" } }))),
  )

  describe("shares the time", () => {
    it.effect("so that a candidate that hangs leaves the next one what it needs", () =>
      Effect.gen(function* () {
        for (const [deadline, firstMay] of [
          [90_000, 30_000],
          [45_000, 22_500],
          [10_000, 5000],
        ] as const) {
          const a = stub("a", () => hangs)
          const b = stub("b", () => says("b", firstMay * 0.9))
          const provider = Understudy.make({
            candidates: [{ provider: a.provider }, { provider: b.provider }],
            deadline: { generate: deadline, stream: deadline },
            breaker: false,
          })
          for (const kind of kinds) {
            const { exit, millis } = yield* play(ask(kind, provider))
            assert.strictEqual(said(exit), "b", `${kind} ${deadline}`)
            assert.strictEqual(millis, firstMay * 1.9)
          }
        }
      }).pipe(Effect.provide(Understudy.layer)),
    )

    it.effect("so that the next of many gets what it needs or else its share, for random lists and deadlines", () =>
      Effect.gen(function* () {
        for (let seed = 0; seed < 60; seed++) {
          const r = random(seed)
          const hanging = r.int(1, 5)
          const limit = r.int(2000, 60_000)
          const attempt = r.int(100, 40_000)
          const stubs = [
            ...Array.from({ length: hanging }, (_, index) => stub(`p${index}`, () => hangs)),
            stub("last", () => hangs),
          ]
          const candidates = stubs.map(({ provider }) => provider.pipe(Timeouts.with({ attempt })))
          const provider = Failover.make(candidates as [(typeof candidates)[number]]).pipe(
            Timeouts.deadline({ generate: limit }),
          )
          const { exit, millis } = yield* play(ask("generate", provider))
          const left = stubs.map(({ asked }) => limit - (asked[0]! - stubs[0]!.asked[0]!))
          for (let index = 0; index < hanging; index++) {
            const behind = hanging - index
            const kept = Math.min(attempt, (left[index]! * behind) / (behind + 1))
            assert.isAtLeast(left[index + 1]!, kept - 0.01, `seed ${seed}, after candidate ${index}`)
          }
          assert.isAtMost(millis, limit + 0.01)
          assert.isTrue(["AllProvidersFailed", "DeadlineExceeded"].includes(said(exit)))
        }
      }),
    )

    it.effect("and gives the last one all that is left", () =>
      Effect.gen(function* () {
        const a = stub("a", () => fails(failure("ModelNotFound")))
        const b = stub("b", () => says("b", 19_000))
        const provider = Failover.make([a.provider.pipe(Timeouts.with()), b.provider.pipe(Timeouts.with())]).pipe(
          Timeouts.deadline({ generate: "20 seconds" }),
        )
        assert.strictEqual(said((yield* play(ask("generate", provider))).exit), "b")
      }),
    )
  })

  describe("bounds the attempts of a call", () => {
    it.effect("to six, of which one is kept for every candidate that was not asked", () =>
      Effect.gen(function* () {
        const down = (name: string) => stub(name, () => fails(failure("ConnectionFailed", name)))
        const stubs = ["a", "b", "c", "d"].map(down)
        const candidates = stubs.map(({ provider }) => provider.pipe(Retry.with({ times: 9, base: 1 })))
        yield* play(ask("generate", Failover.make(candidates as [(typeof candidates)[number]])))
        assert.deepStrictEqual(
          stubs.map(({ asked }) => asked.length),
          [3, 1, 1, 1],
        )
      }),
    )

    it.effect("even when there are more candidates than attempts", () =>
      Effect.gen(function* () {
        const stubs = Array.from({ length: 9 }, (_, n) => stub(`p${n}`, () => fails(failure("Overloaded", `p${n}`))))
        const candidates = stubs.map(({ provider }) => provider)
        const { exit } = yield* play(ask("generate", Failover.make(candidates as [(typeof candidates)[number]])))
        assert.strictEqual(said(exit), "AllProvidersFailed")
        assert.strictEqual(
          stubs.reduce((sum, { asked }) => sum + asked.length, 0),
          6,
        )
      }),
    )

    it.effect("and to what it is told", () =>
      Effect.gen(function* () {
        const a = stub("a", () => fails(failure("ConnectionFailed")))
        const b = stub("b", () => fails(failure("ConnectionFailed", "b")))
        const policy = Retry.with({ times: 9, base: 1 })
        yield* play(
          ask("generate", Failover.make([a.provider.pipe(policy), b.provider.pipe(policy)], { maxAttempts: 4 })),
        )
        assert.deepStrictEqual([a.asked.length, b.asked.length], [3, 1])
      }),
    )
  })

  describe("inside another", () => {
    const nested = (inner: ReadonlyArray<Reply<LlmError.LlmError>>, outer: Reply<LlmError.LlmError>) => {
      const [first, ...rest] = inner.map((reply, index) => stub<LlmError.LlmError>(`i${index}`, () => reply))
      const last = stub<LlmError.LlmError>("o", () => outer)
      const policies = [Timeouts.with(), Retry.with({ base: 1 })] as const
      const candidates = [first!, ...rest].map(({ provider }) => provider.pipe(...policies))
      const inside = Failover.make(candidates as [(typeof candidates)[number]], { name: "inside" })
      return {
        first: first!,
        rest,
        last,
        provider: Failover.make([inside, last.provider.pipe(...policies)], { name: "outside" }),
      }
    }

    it.effect("goes on to the outer's next candidate, and keeps every failure once and in order", () =>
      Effect.gen(function* () {
        const { provider } = nested(
          [fails(failure("ModelNotFound", "i0")), fails(failure("QuotaExhausted", "i1"))],
          fails(failure("AuthenticationFailed", "o")),
        )
        for (const kind of kinds) {
          const all = expectTag("AllProvidersFailed", failed((yield* play(ask(kind, provider))).exit))
          assert.strictEqual(all.provider, "outside")
          assert.deepStrictEqual(tagsOf(all.failures), [
            "i0: ModelNotFound",
            "i1: QuotaExhausted",
            "o: AuthenticationFailed",
          ])
        }
      }),
    )

    it.effect("does not ask a provider again that timed out while the outer has another", () =>
      Effect.gen(function* () {
        const { provider, rest } = nested([fails(failure("ModelNotFound")), fails(failure("TimedOut"))], says("o"))
        assert.strictEqual(said((yield* play(ask("generate", provider))).exit), "o")
        assert.strictEqual(rest[0]!.asked.length, 1)
      }),
    )

    it.effect("leaves the outer's next candidate its time", () =>
      Effect.gen(function* () {
        const { provider } = nested([hangs, hangs], says("o", 9000))
        const bounded = provider.pipe(Timeouts.deadline({ generate: "30 seconds" }))
        assert.strictEqual(said((yield* play(ask("generate", bounded))).exit), "o")
      }),
    )

    it.effect("lets a failure leave as itself when its remedy is above both", () =>
      Effect.gen(function* () {
        const { last, provider } = nested(
          [fails(failure("Overloaded")), fails(failure("ContentFiltered", "i1"))],
          says("o"),
        )
        const filtered = expectTag("ContentFiltered", failed((yield* play(ask("generate", provider))).exit))
        assert.strictEqual(filtered.provider, "i1")
        assert.strictEqual(last.asked.length, 0)
      }),
    )
  })

  describe("of streams", () => {
    const half = (...texts: ReadonlyArray<string>) => Stream.fromIterable(texts.map(say))

    it.effect("emits nothing of an attempt that failed, and closes its source before the next opens", () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const broken = stub(
          "a",
          () => streams(Stream.concat(timed([0, start], [50, start]), Stream.fail(failure("Overloaded")))),
          log,
        )
        const stalled = stub("b", () => streams(Stream.concat(timed([0, start]), Stream.never)), log)
        const well = stub("c", () => streams(timed([0, start], [10, say("well")], [20, end])), log)
        const provider = Understudy.make({
          candidates: [
            { provider: broken.provider, retry: false },
            { provider: stalled.provider },
            { provider: well.provider },
          ],
        })
        const parts: Array<string> = []
        const { exit } = yield* play(
          Stream.runForEach(provider.stream(question), (part) => Effect.sync(() => parts.push(part.type))),
        )
        assert.strictEqual(exit._tag, "Success")
        // The first part tells who answers.
        assert.deepStrictEqual(parts, ["response-metadata", "text-start", "text-delta", "finish"])
        assert.deepStrictEqual(log, ["a opens", "a closes", "b opens", "b closes", "c opens", "c closes"])
      }).pipe(Effect.provide(Understudy.layer)),
    )

    it.effect("asks nobody else after the first content, whatever happens then", () =>
      Effect.gen(function* () {
        for (const cause of [failure("RateLimited"), failure("ContentFiltered"), failure("InvalidRequest")]) {
          const a = stub<LlmError.LlmError>("a", () => streams(Stream.concat(half("half"), Stream.fail(cause))))
          const b = stub("b", () => says("b"))
          const provider = Understudy.make({
            candidates: [{ provider: a.provider, breaker: false }, { provider: b.provider }],
          })
          const parts: Array<string> = []
          const { exit } = yield* play(
            Stream.runForEach(provider.stream(question), (part) => Effect.sync(() => parts.push(textOf([part])))),
          )
          const interrupted = expectTag("StreamInterrupted", failed(exit))
          assert.strictEqual(interrupted.failure, cause)
          assert.isTrue(interrupted.committed)
          assert.strictEqual(interrupted.delivered?.characters, 4)
          assert.deepStrictEqual(parts.join(""), "half")
          assert.strictEqual(b.asked.length, 0)
        }
      }).pipe(Effect.provide(Understudy.layer)),
    )

    it.effect("does not take a stream for whole that stops without its end marker", () =>
      Effect.gen(function* () {
        const a = stub("a", () => streams(half("looks ", "whole")))
        const b = stub("b", () => says("b"))
        const provider = Failover.make([a.provider, b.provider])
        const interrupted = expectTag("StreamInterrupted", failed((yield* play(ask("stream", provider))).exit))
        assert.strictEqual(interrupted.failure, undefined)
        assert.strictEqual(interrupted.delivered?.parts, 2)
      }),
    )

    it.effect("goes on to the next when a stream ends with nothing but a preamble", () =>
      Effect.gen(function* () {
        for (const empty of [Stream.empty, Stream.make(start)]) {
          const a = stub("a", () => streams(empty))
          const b = stub("b", () => says("b"))
          assert.strictEqual(said((yield* play(ask("stream", Failover.make([a.provider, b.provider])))).exit), "b")
        }
      }),
    )

    it.effect(
      "sees a failure that hides in a part: before content it goes on, after it the stream is interrupted",
      () =>
        Effect.gen(function* () {
          const filtered = { ...end, reason: "error" as const }
          const early = stub("a", () => streams(Stream.make(start, filtered)))
          const b = stub("b", () => says("b"))
          assert.strictEqual(said((yield* play(ask("stream", Failover.make([early.provider, b.provider])))).exit), "b")
          const late = stub("a", () => streams(Stream.make(start, say("half"), filtered)))
          const { exit } = yield* play(ask("stream", Failover.make([late.provider, b.provider])))
          assert.strictEqual(expectTag("StreamInterrupted", failed(exit)).failure?._tag, "ProviderUnavailable")
        }),
    )

    it.effect("gives back what an opened stream holds when its scope closes", () =>
      Effect.gen(function* () {
        const a = stub("a", () => fails(failure("Overloaded")))
        const b = stub("b", () => streams(Stream.concat(half("half"), Stream.never)))
        const { scope } = yield* openIn(Failover.make([a.provider, b.provider]))
        assert.strictEqual(b.running(), 1)
        yield* Scope.close(scope, yield* Effect.exit(Effect.void))
        assert.strictEqual(b.running(), 0)
      }),
    )
  })

  it("throws InvalidOptions for lists that cannot be meant", () => {
    const a = stub("a", () => says("a")).provider
    const cases: ReadonlyArray<[() => unknown, RegExp]> = [
      [() => Failover.make([] as never), /candidates.*at least one/],
      [() => Failover.make([a, a]), /"a" twice/],
      [() => Failover.make([{ provider: a, priority: NaN }]), /candidates\[0\].*priority/s],
      [() => Failover.make([{ provider: a, prioritiy: 1 }]), /prioritiy/],
      [() => Failover.make([a, { provider: "b" } as never]), /candidates\[1\]\.provider/],
      [() => Failover.make([a], { maxAttempts: 0 }), /maxAttempts/],
      [() => Failover.make([a], { patience: -1 }), /patience/],
    ]
    for (const [make, message] of cases) assert.throws(make, message)
  })

  it.effect("keeps a candidate waiting at most the patience it was given", () =>
    Effect.gen(function* () {
      for (const patience of [0, 500, 20_000]) {
        const hinted = failure("RateLimited", "a", { retryAfter: Duration.millis(400) })
        const a = stub("a", () => fails(hinted))
        const b = stub("b", () => says("b"))
        const provider = Failover.make([a.provider.pipe(Retry.with({ times: 20 })), b.provider], {
          patience,
          maxAttempts: 100,
        })
        const { exit, millis } = yield* play(ask("generate", provider))
        assert.strictEqual(said(exit), "b")
        assert.isAtMost(millis, patience)
        if (patience >= 500) assert.isAbove(millis, patience / 3)
      }
    }),
  )

  it.effect("takes back what it lends when it is over, so that a call may ask it as often as it likes", () =>
    Effect.gen(function* () {
      const small = Provider.fromEffect(Effect.succeed(1), { name: "small" })
      const makes = {
        failover: Failover.make([small], { maxAttempts: 2, patience: 10 }),
        preset: Understudy.make({ candidates: [{ provider: small }], maxAttempts: 2 }),
      }
      const services = yield* Effect.context<Understudy.State>()
      for (const [name, inner] of Object.entries(makes)) {
        const many = Effect.all(Array.from({ length: 5 }, () => inner.generate())).pipe(Effect.provideContext(services))
        const outer = stub(name, () => ({
          whole: Effect.andThen(Effect.orDie(many), says("five").whole),
          parts: Stream.empty,
        }))
        assert.deepStrictEqual((yield* play(ask("generate", outer.provider))).exit, Exit.succeed("five"), name)
      }
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("takes back what it lends also when parts of a call overlap", () =>
    Effect.gen(function* () {
      const inner = (name: string, takes: number, maxAttempts: number) =>
        Failover.make([stub(`${name}1`, () => says("1", takes)).provider, stub(`${name}2`, () => says("2")).provider], {
          name,
          maxAttempts,
        })
      const [f, g] = [inner("f", 20, 2), inner("g", 40, 4)]
      const both = Effect.all([f.generate(question), g.generate(question)], { concurrency: 2 })
      const asksBoth = stub("x", () => ({
        whole: Effect.andThen(Effect.orDie(both), fails(failure("Overloaded", "x")).whole),
        parts: Stream.empty,
      }))
      const y = stub("y", () => says("y"))
      const { exit, millis } = yield* play(ask("generate", Failover.make([asksBoth.provider, y.provider])))
      assert.deepStrictEqual([exit, millis], [Exit.succeed("y"), 40])
    }),
  )
})
