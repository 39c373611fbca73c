import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Layer, Scope, Stream } from "effect"
import {
  Call,
  CircuitBreaker,
  Face,
  Failover,
  FailureMode,
  LlmError,
  Provider,
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
  said,
  say,
  says,
  seconds,
  settle,
  start,
  streams,
  stub,
  timed,
  wait,
} from "./stub.ts"

/** The circuit of a key, and what it is said to be. */
const statusOf = (key: string) =>
  Effect.flatMap(CircuitBreaker.Circuits, (circuits) =>
    Effect.map(circuits.status, (all) => all.find((status) => status.key === key)),
  )

const numbers = CircuitBreaker.rules()
const circuitOf = (key: string) => Effect.map(CircuitBreaker.Circuits, (circuits) => circuits.get(key, numbers))

const unavailable = failure("ProviderUnavailable")

/** What the circuits look like after one outcome: the model's opened, or the account's; it was counted, or not. */
type After = "open" | "account open" | "counted" | "unchanged"

describe("CircuitBreaker", () => {
  it.effect("opens after five failures in a row, rejects for 60 s, and closes after three probes succeed", () =>
    Effect.gen(function* () {
      for (const kind of kinds) {
        const a = stub(kind, (n) => (n <= 5 ? fails(unavailable) : says("well")))
        const guarded = a.provider.pipe(CircuitBreaker.with())
        const key = `${kind}/${kind}-1`
        const call = ask(kind, guarded)
        for (let n = 1; n <= 5; n++) {
          assert.strictEqual((yield* statusOf(key))?.state ?? "closed", "closed")
          assert.strictEqual(said((yield* play(call)).exit), "ProviderUnavailable")
        }
        yield* play(wait(10_000))
        const rejection = expectTag("CircuitOpen", failed((yield* play(call)).exit))
        assert.deepStrictEqual(rejection.retryAfter, seconds(50))
        assert.strictEqual(rejection.state, "open")
        assert.strictEqual(rejection.provider, kind)
        yield* play(wait(49_999))
        assert.strictEqual(said((yield* play(call)).exit), "CircuitOpen")
        assert.strictEqual(a.asked.length, 5)
        yield* play(wait(1))
        for (const state of ["half-open", "half-open", "closed"]) {
          assert.strictEqual(said((yield* play(call)).exit), "well")
          assert.strictEqual((yield* statusOf(key))?.state, state)
        }
      }
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("forgets its failures when one call succeeds", () =>
    Effect.gen(function* () {
      const a = stub("a", (n) => (n % 5 === 0 ? says("ok") : fails(unavailable)))
      const guarded = a.provider.pipe(CircuitBreaker.with())
      for (let n = 0; n < 50; n++) yield* play(ask("generate", guarded))
      assert.strictEqual(a.asked.length, 50)
    }).pipe(Effect.provide(Understudy.layer)),
  )

  describe("judges a failure by its tag", () => {
    const expected: { readonly [T in LlmError.Tag]: After } = {
      RateLimited: "counted",
      QuotaExhausted: "account open",
      Overloaded: "counted",
      ProviderUnavailable: "counted",
      ConnectionFailed: "counted",
      TimedOut: "counted",
      DeadlineExceeded: "unchanged",
      StreamInterrupted: "counted",
      InvalidResponse: "counted",
      ContentFiltered: "unchanged",
      ContextLengthExceeded: "unchanged",
      AuthenticationFailed: "account open",
      PermissionDenied: "counted",
      ModelNotFound: "open",
      InvalidRequest: "unchanged",
      UnknownFailure: "counted",
      CircuitOpen: "unchanged",
      CapacityExceeded: "unchanged",
      AllProvidersFailed: "unchanged",
    }
    const finer: ReadonlyArray<readonly [string, LlmError.LlmError, After]> = [
      ["an answer in the wrong form", new LlmError.InvalidResponse({ provider: "a", kind: "content" }), "unchanged"],
      [
        "a key that came with the call",
        new LlmError.AuthenticationFailed({ provider: "a", credential: "call" }),
        "unchanged",
      ],
      [
        "a right that the call's key lacks",
        new LlmError.PermissionDenied({ provider: "a", credential: "call" }),
        "unchanged",
      ],
      [
        "a deadline after a tenth of the limit",
        new LlmError.DeadlineExceeded({ provider: "a", attemptShare: 0.1 }),
        "unchanged",
      ],
      [
        "a deadline after half of the limit",
        new LlmError.DeadlineExceeded({ provider: "a", attemptShare: 0.5 }),
        "counted",
      ],
      [
        "a stream that a refusal interrupted",
        new LlmError.StreamInterrupted({ provider: "a", committed: true, failure: failure("ContentFiltered") }),
        "unchanged",
      ],
      [
        "a stream that an outage interrupted",
        new LlmError.StreamInterrupted({ provider: "a", committed: true, failure: unavailable }),
        "counted",
      ],
    ]
    const rows = [
      ...LlmError.tags.map((tag) => [tag, failure(tag) as LlmError.LlmError, expected[tag]] as const),
      ...finer,
    ]
    it.effect.each(rows)("%s", ([, error, after]) =>
      Effect.gen(function* () {
        for (const kind of kinds) {
          const a = stub(kind, () => fails(error))
          const guarded = a.provider.pipe(CircuitBreaker.with())
          yield* play(ask(kind, guarded))
          const status = yield* statusOf(`${kind}/${kind}-1`)
          assert.strictEqual(status?.state, after === "open" ? "open" : "closed", kind)
          if (after !== "open") assert.strictEqual(status?.failures, after === "counted" ? 1 : 0, kind)
          const account = yield* statusOf(`${kind}/*`)
          assert.strictEqual(account?.state, after === "account open" ? "open" : "closed", kind)
          const next = said((yield* play(ask(kind, guarded))).exit)
          assert.strictEqual(next === "CircuitOpen", after.endsWith("open") || error._tag === "CircuitOpen", kind)
        }
      }).pipe(Effect.provide(Understudy.layer)),
    )

    it.effect("and by the table that is in use", () =>
      Effect.gen(function* () {
        const a = stub("a", () => fails(unavailable))
        yield* play(ask("generate", a.provider.pipe(CircuitBreaker.with())))
        assert.strictEqual((yield* statusOf("a/a-1"))?.state, "open")
      }).pipe(
        Effect.provide(Layer.merge(Understudy.layer, FailureMode.layer({ ProviderUnavailable: { health: "opens" } }))),
      ),
    )

    it.effect("and by the table that is in use when a stream carries it", () =>
      Effect.gen(function* () {
        const a = stub("a", () => streams(Stream.concat(Stream.make(say("half")), Stream.fail(unavailable))))
        yield* play(ask("stream", a.provider.pipe(CircuitBreaker.with())))
        assert.strictEqual((yield* statusOf("a/a-1"))?.state, "open")
      }).pipe(
        Effect.provide(Layer.merge(Understudy.layer, FailureMode.layer({ ProviderUnavailable: { health: "opens" } }))),
      ),
    )
  })

  it.effect("counts defects, and failures that are not of the union unless classify says otherwise", () =>
    Effect.gen(function* () {
      const broken = stub("broken", () => dies(new Error("a bug")))
      yield* play(ask("generate", broken.provider.pipe(CircuitBreaker.with())))
      assert.strictEqual((yield* statusOf("broken/broken-1"))?.failures, 1)

      const strange = stub("strange", () => fails(new Foreign("theirs")))
      yield* play(ask("generate", strange.provider.pipe(CircuitBreaker.with())))
      assert.strictEqual((yield* statusOf("strange/strange-1"))?.failures, 1)

      for (const [outcome, state] of [
        ["ignored", "closed"],
        ["opens", "open"],
      ] as const) {
        const guarded = strange.provider.pipe(CircuitBreaker.with({ key: outcome, classify: () => outcome }))
        assert.instanceOf(failed((yield* play(ask("generate", guarded))).exit), Foreign)
        const status = yield* statusOf(outcome)
        assert.strictEqual(status?.state, state)
      }
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("counts a defect while half-open, and gives its permit back", () =>
    Effect.gen(function* () {
      const a = stub("a", inTurn(fails(failure("ModelNotFound")), dies(new Error("a bug")), says("ok")))
      const guarded = a.provider.pipe(CircuitBreaker.with())
      yield* play(ask("generate", guarded))
      yield* play(wait(60_000))
      yield* play(ask("generate", guarded))
      const circuit = yield* circuitOf("a/a-1")
      assert.strictEqual(circuit.state, "open")
      yield* play(wait(60_000))
      assert.strictEqual(said((yield* play(ask("generate", guarded))).exit), "ok")
      assert.strictEqual(circuit.inFlight, 0)
    }).pipe(Effect.provide(Understudy.layer)),
  )

  describe("of a stream", () => {
    it.effect("judges it by its end, not by its first part", () =>
      Effect.gen(function* () {
        const dropped = streams(Stream.concat(timed([0, start], [10, say("half")]), Stream.fail(unavailable)))
        const cut = streams(timed([0, start], [10, say("half")]))
        for (const [name, reply] of [
          ["dropped", dropped],
          ["cut", cut],
        ] as const) {
          const a = stub(name, () => reply)
          const guarded = a.provider.pipe(CircuitBreaker.with())
          for (let n = 0; n < 5; n++)
            assert.strictEqual(said((yield* play(ask("stream", guarded))).exit), "StreamInterrupted")
          assert.strictEqual(said((yield* play(ask("stream", guarded))).exit), "CircuitOpen", name)
        }
      }).pipe(Effect.provide(Understudy.layer)),
    )

    it.effect("ignores one that its consumer leaves, and takes back its permit", () =>
      Effect.gen(function* () {
        const endless = streams(Stream.fromEffectRepeat(Effect.as(wait(10), say("x"))))
        const a = stub("a", (n) => (n === 1 ? fails(failure("ModelNotFound")) : endless))
        const guarded = a.provider.pipe(CircuitBreaker.with({ permits: 1 }))
        yield* play(ask("stream", guarded))
        yield* play(wait(60_000))
        const circuit = yield* circuitOf("a/a-1")
        for (let n = 0; n < 10; n++) {
          const { exit } = yield* play(Stream.runCollect(Stream.take(guarded.stream(question), 2)))
          assert.strictEqual(exit._tag, "Success")
          assert.strictEqual(circuit.state, "half-open")
          assert.strictEqual(circuit.inFlight, 0)
          assert.strictEqual(circuit.succeeded, 0)
        }
      }).pipe(Effect.provide(Understudy.layer)),
    )

    it.effect("holds the permit until the end", () =>
      Effect.gen(function* () {
        const a = stub("a", (n) => (n === 1 ? fails(failure("ModelNotFound")) : says("ok")))
        const slow = streams(Stream.concat(Stream.make(say("half")), Stream.never))
        const b = stub("b", (n) => (n === 1 ? fails(failure("ModelNotFound")) : slow))
        for (const guarded of [a, b].map((s) => s.provider.pipe(CircuitBreaker.with()))) {
          yield* play(ask("stream", guarded))
          yield* play(wait(60_000))
          const { scope } = yield* openIn(guarded)
          const circuit = yield* circuitOf(`${guarded.name}/${guarded.model}`)
          assert.strictEqual(circuit.inFlight, guarded.name === "a" ? 0 : 1)
          assert.strictEqual(circuit.succeeded, guarded.name === "a" ? 1 : 0)
          yield* Scope.close(scope, Exit.void)
          assert.strictEqual(circuit.inFlight, 0)
        }
      }).pipe(Effect.provide(Understudy.layer)),
    )
  })

  it.effect("ignores an attempt that its caller interrupted", () =>
    Effect.gen(function* () {
      const a = stub("a", () => hangs)
      const guarded = a.provider.pipe(CircuitBreaker.with())
      for (const kind of kinds) {
        for (let n = 0; n < 10; n++) yield* play(Effect.timeoutOption(ask(kind, guarded), 100))
      }
      const status = yield* statusOf("a/a-1")
      assert.strictEqual(status?.state, "closed")
      assert.strictEqual(status?.failures, 0)
      assert.strictEqual(a.running(), 0)
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("learns nothing from an outcome that arrives after the circuit has changed its state", () =>
    Effect.gen(function* () {
      const a = stub<LlmError.LlmError>(
        "a",
        inTurn<LlmError.LlmError>(says("late", 61_000), fails(unavailable, 62_000), fails(failure("ModelNotFound"))),
      )
      const guarded = a.provider.pipe(CircuitBreaker.with({ successes: 1 }))
      const circuit = yield* circuitOf("a/a-1")
      const calls = Effect.gen(function* () {
        const late = yield* Effect.forkChild(Effect.exit(ask("generate", guarded)))
        const later = yield* Effect.forkChild(Effect.exit(ask("generate", guarded)))
        yield* settle
        yield* Effect.exit(ask("generate", guarded))
        const { openUntil, since } = circuit
        assert.strictEqual(circuit.state, "open")
        assert.strictEqual(said(yield* Fiber.join(late)), "late")
        assert.strictEqual(said(yield* Fiber.join(later)), "ProviderUnavailable")
        assert.deepStrictEqual([circuit.since, circuit.openUntil], [since, openUntil])
        assert.strictEqual(circuit.state, "open")
      })
      assert.strictEqual((yield* play(calls)).exit._tag, "Success")
    }).pipe(Effect.provide(Understudy.layer)),
  )

  describe("takes a hint", () => {
    const openFor = (retryAfter: Duration.Duration, before = 0) =>
      Effect.gen(function* () {
        const name = `hint${Duration.toMillis(retryAfter)}after${before}`
        const a = stub<LlmError.LlmError>(name, (n) =>
          n <= before ? fails(unavailable) : fails(failure("RateLimited", name, { retryAfter })),
        )
        const guarded = a.provider.pipe(CircuitBreaker.with())
        for (let n = 0; n <= before; n++) yield* play(ask("generate", guarded))
        const status = yield* statusOf(`${name}/${name}-1`)
        return status?.retryAfter
      })

    it.effect("longer than the patience as the time to stay open, even when that is shorter than openFor", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* openFor(seconds(20)), seconds(20))
        assert.deepStrictEqual(yield* openFor(seconds(600)), seconds(600))
      }).pipe(Effect.provide(Understudy.layer)),
    )

    it.effect("of at most an hour", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* openFor(Duration.hours(24)), Duration.hours(1))
      }).pipe(Effect.provide(Understudy.layer)),
    )

    it.effect("within the patience as a failure like any other", () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* openFor(seconds(2)), undefined)
      }).pipe(Effect.provide(Understudy.layer)),
    )

    it.effect("of the failure that trips the threshold when it is longer than openFor", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* openFor(seconds(20), 4), seconds(60))
        assert.deepStrictEqual(yield* openFor(seconds(90), 4), seconds(90))
      }).pipe(Effect.provide(Understudy.layer)),
    )

    it.effect("that a broken stream carries", () =>
      Effect.gen(function* () {
        const limited = failure("RateLimited", "a", { retryAfter: seconds(20) })
        const a = stub("a", () => streams(Stream.concat(Stream.make(say("half")), Stream.fail(limited))))
        yield* play(ask("stream", a.provider.pipe(CircuitBreaker.with())))
        assert.deepStrictEqual((yield* statusOf("a/a-1"))?.retryAfter, seconds(20))
      }).pipe(Effect.provide(Understudy.layer)),
    )
  })

  it.effect("counts a provider that hangs, in whichever order clocks and breaker are put around it", () =>
    Effect.gen(function* () {
      const clocks = Timeouts.with({ attempt: 1000, firstContent: 1000 })
      for (const clocksFirst of [true, false]) {
        for (const kind of kinds) {
          const a = stub("a", () => hangs)
          const breaker = CircuitBreaker.with({ key: `${kind} ${clocksFirst}` })
          const guarded = clocksFirst ? a.provider.pipe(clocks, breaker) : a.provider.pipe(breaker, clocks)
          for (let n = 0; n < 5; n++) assert.strictEqual(said((yield* play(ask(kind, guarded))).exit), "TimedOut")
          assert.strictEqual(said((yield* play(ask(kind, guarded))).exit), "CircuitOpen")
          assert.strictEqual(a.asked.length, 5)
        }
      }
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("lets at most three probes through at once", () =>
    Effect.gen(function* () {
      const a = stub("a", (n) => (n === 1 ? fails(failure("ModelNotFound")) : says("ok", 1000)))
      const guarded = a.provider.pipe(CircuitBreaker.with())
      yield* play(ask("generate", guarded))
      yield* play(wait(60_000))
      const { exit } = yield* play(
        Effect.forEach(Array.from({ length: 100 }), () => Effect.exit(ask("generate", guarded)), {
          concurrency: "unbounded",
        }),
      )
      const outcomes = (exit._tag === "Success" ? exit.value : []).map(said)
      assert.strictEqual(outcomes.filter((outcome) => outcome === "ok").length, 3)
      assert.strictEqual(outcomes.filter((outcome) => outcome === "CircuitOpen").length, 97)
      assert.strictEqual((yield* statusOf("a/a-1"))?.state, "closed")
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("is not wedged in a failover by probes that never come back", () =>
    Effect.gen(function* () {
      const paused = streams(Stream.concat(Stream.make(say("half")), Stream.never))
      const a = stub("a", (n) => (n === 1 ? fails(failure("ModelNotFound")) : n <= 4 ? paused : says("a")))
      const b = stub("b", () => says("b"))
      const provider = Understudy.make({ candidates: [{ provider: a.provider }, { provider: b.provider }] })
      assert.strictEqual(said((yield* play(ask("stream", provider))).exit), "b")
      yield* play(wait(60_000))
      // Three consumers that read the first part and then no more, as a stalled browser does.
      for (let n = 0; n < 3; n++) yield* openIn(provider)
      assert.strictEqual(said((yield* play(ask("stream", provider))).exit), "b")
      // After the probes' limit and the open time the provider must be asked again, by someone, some time.
      const later: Array<string> = []
      for (let minute = 0; minute < 10; minute++) {
        yield* play(wait(60_000))
        later.push(said((yield* play(ask("stream", provider))).exit))
      }
      assert.include(later, "a")
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("tells outside of attempts that another candidate's probes are overdue", () =>
    Effect.gen(function* () {
      const paused = streams(Stream.concat(Stream.make(say("half")), Stream.never))
      const a = stub("a", () => says("a", 10))
      const b = stub<LlmError.LlmError>("b", (n) => (n === 1 ? fails(failure("ModelNotFound", "b")) : paused))
      const provider = Understudy.make({ candidates: [{ provider: a.provider }, { provider: b.provider }] })
      const onlyB = Understudy.make({ candidates: [{ provider: b.provider }] })
      yield* play(ask("stream", onlyB))
      yield* play(wait(60_000))
      for (let n = 0; n < 3; n++) yield* openIn(onlyB)
      yield* play(wait(300_000))
      const { effect, events } = listener()
      for (const kind of kinds) assert.strictEqual(said((yield* play(effect(ask(kind, provider)))).exit), "a")
      assertInOrder(events)
    }).pipe(Effect.provide(Understudy.layer)),
  )

  describe("keeps circuits", () => {
    it.effect("by provider and model, or by the key it is given", () =>
      Effect.gen(function* () {
        const key = "one account"
        const [a, b, c] = [
          stub("a", () => fails(failure("QuotaExhausted"))),
          stub("b", () => says("b")),
          stub("c", () => says("c")),
        ]
        yield* play(ask("generate", a.provider.pipe(CircuitBreaker.with({ key }))))
        assert.strictEqual(
          said((yield* play(ask("generate", b.provider.pipe(CircuitBreaker.with({ key }))))).exit),
          "CircuitOpen",
        )
        assert.strictEqual(said((yield* play(ask("generate", c.provider.pipe(CircuitBreaker.with())))).exit), "c")
      }).pipe(Effect.provide(Understudy.layer)),
    )

    it.effect("shared by all policies with the same key, whose first numbers count", () =>
      Effect.gen(function* () {
        const a = stub("a", () => fails(unavailable))
        const [first, second] = [{ failures: 2 }, { failures: 9 }].map((o) => a.provider.pipe(CircuitBreaker.with(o)))
        yield* play(ask("generate", first!))
        yield* play(ask("generate", second!))
        assert.strictEqual(said((yield* play(ask("stream", second!))).exit), "CircuitOpen")
      }).pipe(Effect.provide(Understudy.layer)),
    )

    it.effect("in the layer: each has its own, for one and the same provider", () =>
      Effect.gen(function* () {
        const a = stub("a", () => fails(failure("ModelNotFound")))
        const call = ask("generate", a.provider.pipe(CircuitBreaker.with()))
        const here = yield* Layer.build(Layer.fresh(Understudy.layer))
        const there = yield* Layer.build(Layer.fresh(Understudy.layer))
        for (const [context, expected] of [
          [here, "ModelNotFound"],
          [here, "CircuitOpen"],
          [there, "ModelNotFound"],
          [here, "CircuitOpen"],
          [there, "CircuitOpen"],
        ] as const) {
          assert.strictEqual(said((yield* play(Effect.provideContext(call, context))).exit), expected)
        }
      }),
    )

    it.effect("that a provider may bring itself, into a failover that has others", () =>
      Effect.gen(function* () {
        const own = yield* Layer.build(Layer.fresh(Understudy.layer))
        const a = stub("a", () => fails(failure("ModelNotFound")))
        const b = stub("b", () => says("b"))
        const guarded = a.provider.pipe(CircuitBreaker.with(), Provider.provideContext(own))
        const provider = Failover.make([guarded, b.provider])
        for (let n = 0; n < 3; n++) assert.strictEqual(said((yield* play(ask("generate", provider))).exit), "b")
        assert.strictEqual(a.asked.length, 1)
      }),
    )
  })

  it.effect("says nothing about the health when a key of the call's own is refused", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(new LlmError.AuthenticationFailed({ provider: "a", credential: "call" })))
      const guarded = a.provider.pipe(CircuitBreaker.with())
      for (let n = 0; n < 10; n++) yield* play(ask("generate", guarded).pipe(Call.withParameters({ seed: n })))
      assert.strictEqual(a.asked.length, 10)
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("tells of every change of state, in order and outside of attempts", () =>
    Effect.gen(function* () {
      const { effect, events, names } = listener()
      const a = stub("a", inTurn(fails(failure("ModelNotFound")), says("ok")))
      const guarded = a.provider.pipe(CircuitBreaker.with({ successes: 2 }))
      const call = effect(ask("generate", guarded))
      yield* play(call)
      yield* play(call)
      yield* play(wait(60_000))
      yield* play(call)
      yield* play(call)
      assertInOrder(events)
      assert.deepStrictEqual(
        names().filter((name) => name.startsWith("Circuit")),
        ["CircuitOpened", "CircuitRejected", "CircuitHalfOpened", "CircuitClosed"],
      )
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("works alone on effects and streams", () =>
    Effect.gen(function* () {
      const once = { key: "effect", failures: 1 }
      const broken = CircuitBreaker.effect(Effect.fail(new Foreign("down")), once)
      assert.instanceOf(failed((yield* play(broken)).exit), Foreign)
      const open = expectTag("CircuitOpen", failed((yield* play(broken)).exit))
      assert.strictEqual(open.provider, "effect")

      const parts = Stream.make(1, 2, 3)
      const guarded = CircuitBreaker.stream(parts, { key: "stream", face: Face.plain<number>(), failures: 1 })
      for (let n = 0; n < 3; n++)
        assert.deepStrictEqual((yield* play(Stream.runCollect(guarded))).exit, Exit.succeed([1, 2, 3]))
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it("throws InvalidOptions for numbers that cannot be meant", () => {
    assert.throws(() => CircuitBreaker.with({ failures: 0 }), /CircuitBreaker\.with.*failures/s)
    assert.throws(() => CircuitBreaker.with({ permits: 1.5 }), /permits/)
    assert.throws(() => CircuitBreaker.with({ openFor: -1 }), /openFor/)
  })

  it.effect("keeps an answer whose end marker came as a success, whatever its source does then", () =>
    Effect.gen(function* () {
      const a = stub("a", () => streams(Stream.concat(timed([0, say("whole")], [1, end]), Stream.fail(unavailable))))
      const guarded = a.provider.pipe(CircuitBreaker.with({ failures: 1 }))
      assert.strictEqual(said((yield* play(ask("stream", guarded))).exit), "whole")
      assert.strictEqual((yield* statusOf("a/a-1"))?.state, "closed")
    }).pipe(Effect.provide(Understudy.layer)),
  )
})
