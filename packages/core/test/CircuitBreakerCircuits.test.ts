import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Fiber, Redacted, Scope, Stream } from "effect"
import { Call, CircuitBreaker, Failover, type LlmError, PolicyEvent, Timeouts, Understudy } from "@understudy/core"
import { assertInOrder, listener } from "./PolicyEvent.check.ts"
import {
  ask,
  expectTag,
  failed,
  fails,
  failure,
  inTurn,
  kinds,
  openIn,
  play,
  said,
  say,
  says,
  seconds,
  settle,
  streams,
  stub,
  timed,
  wait,
} from "./stub.ts"

const { Circuits } = CircuitBreaker

const statusOf = (key: string) =>
  Effect.flatMap(Circuits, (circuits) => Effect.map(circuits.status, (all) => all.find((status) => status.key === key)))

const unavailable = failure("ProviderUnavailable")

const circuitEvents = (events: ReadonlyArray<PolicyEvent.PolicyEvent>) =>
  events.filter((event) => event.event.startsWith("Circuit") || event.event === "FloorProbed")

describe("A circuit, by hand", () => {
  it.effect("is isolated until it is released as often, and its rejections say so and give no time", () =>
    Effect.gen(function* () {
      const a = stub("a", () => says("a"))
      const guarded = a.provider.pipe(CircuitBreaker.with())
      const circuits = yield* Circuits
      yield* circuits.isolate("a/a-1")
      yield* circuits.isolate("a/a-1")
      for (const hours of [0, 1, 1000]) {
        yield* play(wait(hours * 3_600_000))
        const rejection = expectTag("CircuitOpen", failed((yield* play(ask("generate", guarded))).exit))
        assert.deepStrictEqual([rejection.state, rejection.retryAfter], ["isolated", undefined])
        assert.match(rejection.message, /its circuit is isolated by hand\. Let another/)
      }
      assert.strictEqual((yield* circuits.release("a/a-1")).state, "open")
      assert.strictEqual((yield* circuits.release("a/a-1")).state, "closed")
      assert.strictEqual(said((yield* play(ask("generate", guarded))).exit), "a")
      assert.strictEqual(a.asked.length, 1)
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("is closed at once, and has forgotten what it saw", () =>
    Effect.gen(function* () {
      const a = stub("a", (n) => (n <= 9 ? fails(unavailable) : says("a")))
      const guarded = a.provider.pipe(CircuitBreaker.with())
      const circuits = yield* Circuits
      for (let n = 0; n < 5; n++) yield* play(ask("generate", guarded))
      assert.strictEqual((yield* statusOf("a/a-1"))?.state, "open")
      const closed = yield* circuits.close("a/a-1")
      assert.deepStrictEqual(
        [closed.state, closed.failures, closed.openings, closed.lastTrip],
        ["closed", 0, 0, undefined],
      )
      for (let n = 0; n < 4; n++) yield* play(ask("generate", guarded))
      assert.strictEqual((yield* statusOf("a/a-1"))?.state, "closed")
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("is opened for a time, and probed before that is over", () =>
    Effect.gen(function* () {
      const a = stub("a", () => says("a"))
      const guarded = a.provider.pipe(CircuitBreaker.with({ successes: 1 }))
      const circuits = yield* Circuits
      const opened = yield* circuits.open("a/a-1", "10 minutes")
      assert.deepStrictEqual(
        [opened.state, opened.retryAfter, opened.mode],
        ["open", Duration.minutes(10), "automatic"],
      )
      assert.strictEqual(said((yield* play(ask("generate", guarded))).exit), "CircuitOpen")
      assert.strictEqual((yield* circuits.probe("a/a-1")).state, "half-open")
      assert.strictEqual(said((yield* play(ask("generate", guarded))).exit), "a")
      assert.strictEqual((yield* statusOf("a/a-1"))?.state, "closed")
      // Without a time it is the policy's own.
      assert.deepStrictEqual((yield* circuits.open("a/a-1")).retryAfter, Duration.minutes(1))
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("that is disabled rejects nothing, and tells what it would have done", () =>
    Effect.gen(function* () {
      const { effect, events } = listener()
      const a = stub("a", (n) => (n <= 7 ? fails(unavailable) : says("a")))
      const guarded = a.provider.pipe(CircuitBreaker.with({ successes: 1 }))
      const circuits = yield* Circuits
      yield* effect(circuits.disable("a/a-1"))
      for (let n = 1; n <= 7; n++) yield* play(effect(ask("generate", guarded)))
      const shadow = yield* statusOf("a/a-1")
      assert.deepStrictEqual([shadow?.mode, shadow?.state, shadow?.rejections], ["shadow", "open", 2])
      yield* play(wait(60_000))
      assert.strictEqual(said((yield* play(effect(ask("generate", guarded)))).exit), "a")
      yield* effect(circuits.enable("a/a-1"))
      assertInOrder(events.filter((event) => event.call !== "by hand"))
      assert.deepStrictEqual(
        circuitEvents(events).map((event) => [
          event.event,
          "shadow" in event ? event.shadow : "to" in event ? event.to : undefined,
        ]),
        [
          ["CircuitSet", "disabled"],
          ["CircuitOpened", true],
          ["CircuitRejected", true],
          ["CircuitRejected", true],
          ["CircuitHalfOpened", true],
          ["CircuitClosed", true],
          ["CircuitSet", "enabled"],
        ],
      )
      assert.strictEqual(a.asked.length, 8)
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("that is disabled without recording learns nothing at all", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(unavailable))
      const guarded = a.provider.pipe(CircuitBreaker.with({ failures: 1 }))
      const circuits = yield* Circuits
      yield* circuits.disable("a/a-1", { recording: false })
      for (let n = 0; n < 5; n++)
        assert.strictEqual(said((yield* play(ask("generate", guarded))).exit), unavailable._tag)
      const off = yield* statusOf("a/a-1")
      assert.deepStrictEqual([off?.mode, off?.state, off?.counts.calls], ["off", "closed", 0])
      yield* circuits.enable("a/a-1")
      yield* play(ask("generate", guarded))
      assert.strictEqual((yield* statusOf("a/a-1"))?.state, "open")
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("can be taken in hand before a policy has used it, and then has that policy's options", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(unavailable))
      const guarded = a.provider.pipe(CircuitBreaker.with({ failures: 1, openFor: "5 seconds" }))
      const circuits = yield* Circuits
      yield* circuits.isolate("a/a-1")
      assert.strictEqual(said((yield* play(ask("generate", guarded))).exit), "CircuitOpen")
      yield* circuits.close("a/a-1")
      yield* play(ask("generate", guarded))
      assert.deepStrictEqual((yield* statusOf("a/a-1"))?.retryAfter, seconds(5))
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("tells what was done only when it changed something, to whoever listens, whatever he throws", () =>
    Effect.gen(function* () {
      const circuits = yield* Circuits
      const { effect, events } = listener()
      yield* effect(circuits.close("k"))
      yield* effect(circuits.isolate("k"))
      yield* effect(circuits.isolate("k"))
      yield* effect(circuits.release("k"))
      yield* effect(circuits.release("k"))
      yield* effect(circuits.release("k"))
      assert.deepStrictEqual(
        events.map((event) => (event.event === "CircuitSet" ? event.to : event.event)),
        ["isolated", "released"],
      )
      assert.strictEqual(PolicyEvent.describe(events[0]!), "k: circuit isolated by hand")
      const loud = PolicyEvent.observe(() => {
        throw new Error("boom")
      })
      assert.strictEqual((yield* loud(circuits.isolate("k"))).mode, "isolated")
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("says since when it is as it is, why it opened, and what it counted", () =>
    Effect.gen(function* () {
      yield* play(wait(1000))
      const a = stub("a", inTurn(fails(unavailable), says("a"), fails(unavailable), says("a")))
      const trip = { on: "failure rate", rate: 0.5, of: 4 } as const
      const guarded = a.provider.pipe(CircuitBreaker.with({ trip }))
      for (let n = 0; n < 3; n++) yield* play(ask("generate", guarded))
      const before = yield* statusOf("a/a-1")
      assert.isDefined(before)
      assert.deepStrictEqual(before.counts, { calls: 3, failures: 2, slow: 0, failureRate: 2 / 3, slowRate: 0 })
      assert.deepStrictEqual([before.since, before.account, before.openings], [1000, "a/*", 0])
      yield* play(wait(500))
      yield* play(ask("generate", guarded))
      yield* play(wait(2000))
      const after = yield* statusOf("a/a-1")
      assert.isDefined(after)
      assert.deepStrictEqual([after.state, after.since, after.openings], ["open", 1500, 1])
      assert.deepStrictEqual(after.lastTrip, { at: 1500, reason: "failure rate" })
      assert.deepStrictEqual(after.counts, { calls: 4, failures: 2, slow: 0, failureRate: 0.5, slowRate: 0 })
      assert.deepStrictEqual(after.retryAfter, seconds(58))
    }).pipe(Effect.provide(Understudy.layer)),
  )
})

describe("The circuit of an account", () => {
  const twoModels = (tag: LlmError.Tag, options: CircuitBreaker.Options = {}) => {
    const a = stub("a", inTurn(fails(failure(tag)), says("a")))
    const b = stub("b", () => says("b"))
    return [a, b].map(({ provider }) => provider.pipe(CircuitBreaker.with({ account: "main", ...options })))
  }

  it.effect("opens for all its models when the key is refused or the quota is spent", () =>
    Effect.gen(function* () {
      for (const tag of ["AuthenticationFailed", "QuotaExhausted"] as const) {
        const account = tag
        const [a, b] = twoModels(tag, { account })
        const other = stub("other", () => says("other")).provider.pipe(CircuitBreaker.with())
        yield* play(ask("generate", a!))
        for (const kind of kinds) {
          const rejection = expectTag("CircuitOpen", failed((yield* play(ask(kind, b!))).exit))
          assert.deepStrictEqual(rejection.provider, "b")
        }
        assert.strictEqual(said((yield* play(ask("generate", other))).exit), "other")
        assert.strictEqual((yield* statusOf(`${account}/*`))?.lastTrip?.reason, "at once")
      }
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("learns when a probe ends, and nothing from one that is overdue, while the model's own is closed", () =>
    Effect.gen(function* () {
      for (const [takes, state, since] of [
        [500, "closed", 10_500],
        [5000, "half-open", 10_000],
      ] as const) {
        const account = `took ${takes}`
        const a = stub("a", inTurn(fails(failure("AuthenticationFailed")), says("a", takes)))
        const guarded = a.provider.pipe(
          CircuitBreaker.with({ key: account, account, openFor: 10_000, successes: 1, probeLimit: 1000 }),
        )
        const began = yield* Clock.currentTimeMillis
        yield* play(ask("generate", guarded))
        yield* play(wait(10_000))
        assert.strictEqual(said((yield* play(ask("generate", guarded))).exit), "a")
        const status = yield* statusOf(`${account}/*`)
        assert.deepStrictEqual([status?.state, (status?.since ?? 0) - began], [state, since])
      }
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("stays closed when a model is not there, or fails", () =>
    Effect.gen(function* () {
      for (const tag of ["ModelNotFound", "RateLimited", "PermissionDenied"] as const) {
        const [a, b] = twoModels(tag, { account: tag, failures: 1 })
        yield* play(ask("generate", a!))
        assert.strictEqual(said((yield* play(ask("generate", a!))).exit), "CircuitOpen")
        assert.strictEqual(said((yield* play(ask("generate", b!))).exit), "b")
      }
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("stays closed when a model is slow, as often as that may be", () =>
    Effect.gen(function* () {
      const trip = { on: "slow rate", slow: "1 second", rate: 0.5, of: 2 } as const
      const a = stub("a", () => says("a", 2000)).provider.pipe(CircuitBreaker.with({ account: "slow", trip }))
      const b = stub("b", () => says("b")).provider.pipe(CircuitBreaker.with({ account: "slow", trip }))
      for (let n = 0; n < 4; n++) yield* play(ask("generate", a))
      assert.strictEqual(said((yield* play(ask("generate", a))).exit), "CircuitOpen")
      assert.strictEqual(said((yield* play(ask("generate", b))).exit), "b")
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("closes again when calls of any of its models come through", () =>
    Effect.gen(function* () {
      const [a, b] = twoModels("AuthenticationFailed", { account: "mended" })
      yield* play(ask("generate", a!))
      yield* play(wait(60_000))
      for (const [guarded, answer] of [
        [b!, "b"],
        [a!, "a"],
        [b!, "b"],
      ] as const) {
        assert.strictEqual((yield* statusOf("mended/*"))?.state === "closed", false)
        assert.strictEqual(said((yield* play(ask("generate", guarded))).exit), answer)
      }
      assert.strictEqual((yield* statusOf("mended/*"))?.state, "closed")
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("is each provider's own when nothing is said, so that one dead key leaves the others alone", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(failure("AuthenticationFailed")))
      const b = stub("b", () => says("b"))
      const [guardedA, guardedB] = [a, b].map(({ provider }) => provider.pipe(CircuitBreaker.with()))
      yield* play(ask("generate", guardedA!))
      assert.strictEqual(said((yield* play(ask("generate", guardedB!))).exit), "b")
      assert.deepStrictEqual(
        (yield* (yield* Circuits).status).map(({ account, key, state }) => [key, state, account]),
        [
          ["a/a-1", "closed", "a/*"],
          ["a/*", "open", undefined],
          ["b/b-1", "closed", "b/*"],
          ["b/*", "closed", undefined],
        ],
      )
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("is named in the preset's options, for each candidate or for all", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(failure("AuthenticationFailed")))
      const b = stub("b", () => says("b"))
      const c = stub("c", () => says("c"))
      const model = Understudy.make({
        candidates: [
          { provider: a.provider },
          { provider: b.provider },
          { provider: c.provider, breaker: { account: "c" } },
        ],
        breaker: { account: "shared" },
      })
      assert.strictEqual(said((yield* play(ask("generate", model))).exit), "c")
      assert.deepStrictEqual([a.asked.length, b.asked.length, c.asked.length], [1, 0, 1])
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("says nothing to calls with keys of their own, which share one circuit, however many they are", () =>
    Effect.gen(function* () {
      const a = stub<LlmError.LlmError>("a", (n) => (n === 1 ? fails(failure("AuthenticationFailed")) : says("a")))
      const guarded = a.provider.pipe(CircuitBreaker.with())
      yield* play(ask("generate", guarded))
      for (let user = 0; user < 50; user++) {
        const own = Call.withCredential("a", Redacted.make(`sk-${user}`))
        assert.strictEqual(said((yield* play(own(ask("generate", guarded)))).exit), "a")
      }
      const keys = (yield* (yield* Circuits).status).map(({ key }) => key)
      assert.deepStrictEqual(keys, ["a/a-1", "a/*", "a/a-1#call"])
    }).pipe(Effect.provide(Understudy.layer)),
  )
})

describe("Calls in excess of the permits", () => {
  const excess = { wait: "5 seconds", waiters: 2 } as const
  const probing = (reply: "well" | "sick") => {
    const first = fails<LlmError.LlmError>(failure("ModelNotFound"))
    const probe = reply === "well" ? says("probe", 1000) : fails(unavailable, 1000)
    const a = stub<LlmError.LlmError>("a", inTurn<LlmError.LlmError>(first, probe, says("later")))
    const options = { permits: 1, successes: 1, excess }
    return { a, guarded: a.provider.pipe(CircuitBreaker.with(options)) }
  }
  const many = (guarded: ReturnType<typeof probing>["guarded"], count: number) =>
    Effect.forEach(Array.from({ length: count }), () => Effect.exit(ask("generate", guarded)), {
      concurrency: "unbounded",
    })

  it.effect("wait for the verdict when they may, and run when it is a good one; no more than so many", () =>
    Effect.gen(function* () {
      const { guarded } = probing("well")
      yield* play(ask("generate", guarded))
      yield* play(wait(60_000))
      const { exit, millis } = yield* play(many(guarded, 5))
      assert.deepStrictEqual(exit._tag === "Success" && exit.value.map(said), [
        "probe",
        "later",
        "later",
        "CircuitOpen",
        "CircuitOpen",
      ])
      assert.strictEqual(millis, 1000)
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("are rejected when the verdict is a bad one, and when it does not come in time", () =>
    Effect.gen(function* () {
      const { a, guarded } = probing("sick")
      yield* play(ask("generate", guarded))
      yield* play(wait(60_000))
      const { exit, millis } = yield* play(many(guarded, 3))
      assert.deepStrictEqual(exit._tag === "Success" && exit.value.map(said), [
        "ProviderUnavailable",
        "CircuitOpen",
        "CircuitOpen",
      ])
      assert.deepStrictEqual([millis, a.asked.length], [1000, 2])

      const slow = stub<LlmError.LlmError>("slow", inTurn(fails(failure("ModelNotFound", "slow")), says("probe", 9000)))
      const patient = slow.provider.pipe(CircuitBreaker.with({ permits: 1, excess }))
      yield* play(ask("generate", patient))
      yield* play(wait(60_000))
      const probe = yield* Effect.forkChild(play(ask("generate", patient)))
      yield* settle
      const waited = yield* Effect.forkChild(play(ask("stream", patient)))
      assert.strictEqual(said((yield* Fiber.join(waited)).exit), "CircuitOpen")
      assert.strictEqual(said((yield* Fiber.join(probe)).exit), "probe")
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("leave the queue when their caller leaves, and when their deadline comes", () =>
    Effect.gen(function* () {
      const { a, guarded } = probing("well")
      yield* play(ask("generate", guarded))
      yield* play(wait(60_000))
      const inTime = Timeouts.deadline({ generate: "200 millis" })(guarded)
      const { exit, timers } = yield* play(
        Effect.all(
          [
            Effect.exit(ask("generate", guarded)),
            Effect.timeoutOption(ask("generate", guarded), 100),
            Effect.exit(ask("generate", inTime)),
          ],
          { concurrency: "unbounded" },
        ),
      )
      assert.strictEqual(exit._tag, "Success")
      if (exit._tag === "Success") {
        assert.strictEqual(said(exit.value[0]), "probe")
        assert.strictEqual(exit.value[1]._tag, "None")
        assert.strictEqual(said(exit.value[2]), "DeadlineExceeded")
      }
      assert.deepStrictEqual([a.asked.length, timers], [2, 0])
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("wait in a failover only when nobody else is ready", () =>
    Effect.gen(function* () {
      const { guarded } = probing("well")
      const b = stub("b", () => says("b"))
      const model = Failover.make([guarded, b.provider])
      yield* play(ask("generate", guarded))
      yield* play(wait(60_000))
      const beside = yield* play(
        Effect.all([ask("generate", guarded), ask("generate", model)], { concurrency: "unbounded" }),
      )
      assert.deepStrictEqual(beside.exit, Exit.succeed(["probe", "b"]))
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("wait in a failover whose only candidate is being probed", () =>
    Effect.gen(function* () {
      const { guarded } = probing("well")
      const model = Failover.make([guarded])
      yield* play(ask("generate", guarded))
      yield* play(wait(60_000))
      const { exit } = yield* play(
        Effect.all([ask("generate", model), ask("generate", model)], { concurrency: "unbounded" }),
      )
      assert.deepStrictEqual(exit, Exit.succeed(["probe", "later"]))
    }).pipe(Effect.provide(Understudy.layer)),
  )
})

describe("A circuit that trips on slow calls", () => {
  const trip = { on: "slow rate", slow: "4 seconds", rate: 1, of: 2 } as const
  it.effect("judges a stream by its first content, and an answer by the whole", () =>
    Effect.gen(function* () {
      const late = streams(
        timed(
          [5000, say("late")],
          [5001, { type: "finish", reason: "stop", usage: { inputTokens: {}, outputTokens: {} } }],
        ),
      )
      const long = streams(
        timed(
          [10, say("early")],
          [9000, { type: "finish", reason: "stop", usage: { inputTokens: {}, outputTokens: {} } }],
        ),
      )
      for (const [name, reply, kind, state] of [
        ["late", late, "stream", "open"],
        ["long", long, "stream", "closed"],
        ["whole", says("x", 5000), "generate", "open"],
        ["quick", says("x", 4000), "generate", "closed"],
      ] as const) {
        const guarded = stub(name, () => reply).provider.pipe(CircuitBreaker.with({ trip }))
        for (let n = 0; n < 2; n++) yield* play(ask(kind, guarded))
        const status = yield* statusOf(`${name}/${name}-1`)
        assert.strictEqual(status?.state, state, name)
        assert.strictEqual(status?.counts.slow, state === "open" ? 2 : 0, name)
      }
    }).pipe(Effect.provide(Understudy.layer)),
  )
})

describe("The floor of a failover", () => {
  const dead = (name: string, until: number, tag: LlmError.Tag = "ProviderUnavailable") =>
    stub<LlmError.LlmError>(name, (n) => (n <= until ? fails(failure(tag, name)) : says(name)))
  const guard = { failures: 1, openFor: "10 minutes", successes: 2 } as const

  it.effect("probes the likeliest candidate once a second over all calls, when every circuit is open", () =>
    Effect.gen(function* () {
      const { effect, events } = listener()
      const [a, b] = [dead("a", 4), dead("b", 99)]
      const model = Failover.make([
        a.provider.pipe(CircuitBreaker.with(guard)),
        b.provider.pipe(CircuitBreaker.with(guard)),
      ])
      const call = effect(ask("generate", model))
      yield* play(call)
      assert.deepStrictEqual([a.asked.length, b.asked.length], [1, 1])
      // Ten calls in the first second: nobody is probed so soon after it opened.
      for (let n = 0; n < 10; n++) yield* play(Effect.andThen(wait(90), call))
      assert.deepStrictEqual([a.asked.length, b.asked.length], [1, 1])
      // Then one a second, however many calls there are; who fails comes after the other.
      for (let n = 0; n < 60; n++) yield* play(Effect.andThen(wait(100), call))
      assert.deepStrictEqual([a.asked.length, b.asked.length], [4, 4])
      const answers: Array<string> = []
      for (let n = 0; n < 40; n++) answers.push(said((yield* play(Effect.andThen(wait(100), call))).exit))
      // The first success makes it half-open, and from then on calls are probes.
      assert.deepStrictEqual([...new Set(answers)], ["a"])
      assert.strictEqual((yield* statusOf("a/a-1"))?.state, "closed")
      assert.strictEqual((yield* statusOf("b/b-1"))?.state, "open")
      assertInOrder(events)
      assert.strictEqual(events.filter((event) => event.event === "FloorProbed").length, 7)
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("tells of each rejection once, and of none of the candidate that it asks", () =>
    Effect.gen(function* () {
      const { effect, events } = listener()
      const [a, b] = [dead("a", 99), dead("b", 99)]
      const model = Failover.make([
        a.provider.pipe(CircuitBreaker.with(guard)),
        b.provider.pipe(CircuitBreaker.with(guard)),
      ])
      yield* play(ask("generate", model))
      yield* play(wait(2000))
      const all = expectTag("AllProvidersFailed", failed((yield* play(effect(ask("generate", model)))).exit))
      assert.deepStrictEqual(
        all.failures.map(({ _tag, provider }) => `${provider} ${_tag}`),
        ["b CircuitOpen", "a ProviderUnavailable"],
      )
      assert.deepStrictEqual(
        circuitEvents(events).map((event) => `${event.provider} ${event.event}`),
        ["b CircuitRejected", "a FloorProbed"],
      )
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("waits for a hint to end, and leaves those in hand alone", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(failure("RateLimited", "a", { retryAfter: seconds(30) })))
      const b = stub("b", () => says("b"))
      const model = Failover.make([
        a.provider.pipe(CircuitBreaker.with(guard)),
        b.provider.pipe(CircuitBreaker.with(guard)),
      ])
      yield* (yield* Circuits).isolate("b/b-1")
      yield* play(ask("generate", model))
      for (const [second, asked] of [
        [10, 1],
        [29, 1],
        [30, 2],
      ] as const) {
        yield* play(wait(second * 1000 - (yield* Effect.clockWith((clock) => clock.currentTimeMillis))))
        yield* play(ask("generate", model))
        assert.deepStrictEqual([a.asked.length, b.asked.length], [asked, 0], `${second} s`)
      }
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("asks a candidate with a dead key or a missing model last", () =>
    Effect.gen(function* () {
      const [a, b] = [dead("a", 99, "ModelNotFound"), dead("b", 99)]
      const model = Failover.make([
        a.provider.pipe(CircuitBreaker.with({ ...guard, openFor: "5 minutes" })),
        b.provider.pipe(CircuitBreaker.with(guard)),
      ])
      yield* play(ask("generate", model))
      for (let n = 0; n < 5; n++) yield* play(Effect.andThen(wait(1000), ask("generate", model)))
      assert.deepStrictEqual([a.asked.length, b.asked.length], [1, 6])
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("stays out of the way while somebody is ready, or is being probed", () =>
    Effect.gen(function* () {
      const { effect, names } = listener()
      const [a, b] = [dead("a", 99), stub("b", () => says("b"))]
      const model = Failover.make([
        a.provider.pipe(CircuitBreaker.with(guard)),
        b.provider.pipe(CircuitBreaker.with(guard)),
      ])
      for (let n = 0; n < 5; n++) yield* play(Effect.andThen(wait(1000), effect(ask("generate", model))))
      assert.deepStrictEqual([a.asked.length, b.asked.length], [1, 5])
      assert.notInclude(names(), "FloorProbed")
      const stuck = stub<LlmError.LlmError>("stuck", (n) =>
        n === 1
          ? fails(failure("ProviderUnavailable", "stuck"))
          : streams(Stream.concat(Stream.make(say("half")), Stream.never)),
      )
      const slow = Failover.make([
        a.provider.pipe(CircuitBreaker.with(guard)),
        stuck.provider.pipe(CircuitBreaker.with({ ...guard, permits: 1, openFor: "1 second" })),
      ])
      yield* play(ask("generate", slow))
      yield* play(wait(1000))
      const { scope } = yield* openIn(slow)
      yield* play(wait(5000))
      yield* play(effect(ask("generate", slow)))
      assert.strictEqual(a.asked.length, 1)
      assert.notInclude(names(), "FloorProbed")
      yield* Scope.close(scope, Exit.void)
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("reaches into a failover inside another", () =>
    Effect.gen(function* () {
      const [a, b] = [dead("a", 99), dead("b", 1)]
      const inner = Failover.make([b.provider.pipe(CircuitBreaker.with(guard))], { name: "inner" })
      const outer = Failover.make([
        { provider: a.provider.pipe(CircuitBreaker.with({ ...guard, openFor: "1 hour" })) },
        inner,
      ])
      yield* play(ask("generate", outer))
      yield* play(wait(2000))
      assert.strictEqual(said((yield* play(ask("generate", outer))).exit), "b")
    }).pipe(Effect.provide(Understudy.layer)),
  )
})
