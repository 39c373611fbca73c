import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Logger, References, Schema, Stream } from "effect"
import { Explain, FailureMode, type LlmError, type PolicyEvent, Understudy } from "@understudy/core"
import { anyEvents, stories } from "./PolicyEvent.stories.ts"
import {
  ask,
  fails,
  failure,
  Foreign,
  hangs,
  inTurn,
  kinds,
  play,
  question,
  say,
  says,
  seconds,
  streams,
  stub,
  timed,
} from "./stub.ts"

type Event = PolicyEvent.PolicyEvent

const encode = Schema.encodeSync(Schema.toCodecJson(Explain.Trace))
const decode = Schema.decodeUnknownSync(Schema.toCodecJson(Explain.Trace))

/** The text of a trace without the id of the call. */
const textOf = (trace: Explain.Trace | undefined): ReadonlyArray<string> =>
  trace === undefined ? [] : Explain.text(trace).replace(trace.call, "…").split("\n")

const traced = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const { exit } = yield* play(Effect.orDie(Explain.traced(self)))
    return Exit.isSuccess(exit) ? exit.value : yield* Effect.die(exit.cause)
  })

const base = { at: 0, call: "c", provider: "a" }

describe("Explain", () => {
  it.effect("tells what was tried, when, and why each decision was taken", () =>
    Effect.gen(function* () {
      const busy = failure("Overloaded", "a", { retryAfter: seconds(2), status: 529 })
      const a = stub("a", inTurn(fails(busy, 20), hangs))
      const b = stub("b", () => fails(failure("ModelNotFound", "b", { status: 404 }), 30))
      const c = stub("c", () => says("the answer", 30))
      const model = Understudy.make({
        candidates: [{ provider: a.provider }, { provider: b.provider }, { provider: c.provider }],
        deadline: { generate: "40 seconds" },
        patience: "5 seconds",
        retry: { base: "3 seconds", jitter: "none" },
        name: "three",
      })
      const { exit, traces } = yield* traced(ask("generate", model))
      assert.deepStrictEqual(exit, Exit.succeed("the answer"))
      assert.strictEqual(traces.length, 1)
      assert.deepStrictEqual(textOf(traces[0]), [
        "Call … to three",
        "   +0.000 s  three: a question",
        "   +0.000 s  a (a-1): asked (attempt 1)",
        "               because: it may take 13.33 s of the 40 s that the call has left: the rest is kept for 2 other candidates",
        "   +0.020 s  a (a-1): Overloaded after 20 ms",
        "               because: HTTP 529; it said to come back in 2 s; the table says of Overloaded: ask it again, another candidate may answer, counts against its circuit",
        "   +0.020 s  a: Overloaded, will be asked again in 3.00 s",
        "               because: it said to come back in 2 s, which counts at least",
        "   +3.020 s  a (a-1): asked (attempt 2)",
        "               because: it may take 12.33 s of the 36.98 s that the call has left: the rest is kept for 2 other candidates",
        "  +15.347 s  a (a-1): TimedOut (attempt) after 12.3 s",
        "               because: the table says of TimedOut: ask it again only while no other candidate is ready, another candidate may answer, says nothing about its health",
        "  +15.347 s  a (a-1): TimedOut, over to b",
        "               because: the table says: ask it again only while no other is ready, and 2 other candidates are ready",
        "  +15.347 s  b (b-1): asked (attempt 3)",
        "               because: it may take 12.33 s of the 24.65 s that the call has left: the rest is kept for 1 other candidate",
        "  +15.377 s  b (b-1): ModelNotFound after 30 ms",
        "               because: HTTP 404; the table says of ModelNotFound: do not ask it again, another candidate may answer, opens its circuit at once",
        "  +15.377 s  b (b-1): circuit opened for 60.0 s (at once)",
        "               because: ModelNotFound opens it at once",
        "  +15.377 s  b (b-1): ModelNotFound, over to c",
        "               because: the table says of ModelNotFound: do not ask it again",
        "  +15.377 s  c (c-1): asked (attempt 4)",
        "               because: it may take the 24.62 s that the call has left",
        "  +15.407 s  c (c-1): answered in 30 ms",
        "  +15.407 s  c (c-1): the answer, after 15.4 s and 4 attempts",
        "  = Answered by c, after 15.41 s and 4 attempts.",
      ])
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("tells of a call that failed, with the failure as it was", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(failure("AuthenticationFailed", "a", { status: 401 })))
      const model = Understudy.make({ candidates: [{ provider: a.provider }], deadline: false, name: "one" })
      const first = yield* traced(Effect.flip(ask("stream", model)))
      assert.strictEqual(Exit.isSuccess(first.exit) && first.exit.value._tag, "AllProvidersFailed")
      assert.deepInclude(first.traces[0], { outcome: "failed", failure: "AllProvidersFailed", attempts: 1 })
      const { exit, traces } = yield* traced(ask("stream", model))
      assert.isTrue(Exit.isFailure(exit))
      assert.deepStrictEqual(textOf(traces[0]), [
        "Call … to one",
        "  +0.000 s  one: a question",
        "  +0.000 s  a (a-1): passed over, circuit open for 60.0 s more",
        "              because: it failed too often, or said to come back later",
        "  +0.000 s  one: no answer (AllProvidersFailed) after 0 ms and 0 attempts",
        "  = Failed with AllProvidersFailed after 0 ms and 0 attempts.",
      ])
    }).pipe(Effect.provide(Understudy.layer)),
  )

  it.effect("tells by the table that was in use, and not by the default one", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(failure("Overloaded")))
      const model = Understudy.make({ candidates: [{ provider: a.provider }] })
      const { traces } = yield* traced(ask("generate", model))
      const step = traces[0]?.steps.find(({ event }) => event === "AttemptFailed")
      assert.strictEqual(
        step?.why,
        "the table says of Overloaded: do not ask it again, another candidate may answer, says nothing about its health",
      )
      assert.strictEqual(traces[0]?.attempts, 1)
    }).pipe(
      Effect.provide(
        Layer.mergeAll(Understudy.layer, FailureMode.layer({ Overloaded: { sameAgain: "no", health: "ignored" } })),
      ),
    ),
  )

  it.effect(
    "gives a trace for each call in an effect, in the order of their ends, and none for an effect without calls",
    () =>
      Effect.gen(function* () {
        const slow = stub("slow", () => says("slow", 500)).provider
        const quick = stub("quick", () => says("quick", 100)).provider
        const both = Effect.all([ask("generate", slow), ask("stream", quick)], { concurrency: "unbounded" })
        const { traces } = yield* traced(both)
        assert.deepStrictEqual(
          traces.map(({ answeredBy, elapsedMs, outcome }) => [answeredBy, elapsedMs, outcome]),
          [
            ["quick", 100, "answered"],
            ["slow", 500, "answered"],
          ],
        )
        assert.deepStrictEqual(yield* traced(Effect.succeed(1)), { exit: Exit.succeed(1), traces: [] })
      }),
  )

  it.effect("gives the trace of a stream when it ends, also when its consumer leaves", () =>
    Effect.gen(function* () {
      const traces: Array<Explain.Trace> = []
      const a = stub("a", () => streams(timed([0, say("one")], [100, say("two")], [9000, say("late")])))
      const stream = a.provider.stream(question).pipe(Explain.observeStream((trace) => void traces.push(trace)))
      yield* play(Stream.runDrain(Stream.take(stream, 2)))
      assert.deepStrictEqual(
        traces.map(({ conclusion, outcome }) => [outcome, conclusion]),
        [["interrupted", "Its caller left after 100 ms and 1 attempt."]],
      )
    }),
  )

  it.effect("changes nothing in a call when who is told throws", () =>
    Effect.gen(function* () {
      const call = ask("generate", stub("a", () => says("ok")).provider).pipe(
        Explain.observe(() => {
          throw new Error("a bug of theirs")
        }),
      )
      assert.deepStrictEqual((yield* play(call)).exit, Exit.succeed("ok"))
    }),
  )

  it.effect("logs the traces of calls that failed or were slow, and of no others", () => {
    const lines: Array<string> = []
    const logger = Logger.make(({ fiber, logLevel, message }) => {
      const { "understudy.outcome": outcome, request } = fiber.getRef(References.CurrentLogAnnotations)
      lines.push(`${logLevel} ${String(request)} ${String(outcome)} ${String(message).split("\n").at(-1)}`)
    })
    return Effect.gen(function* () {
      const a = stub(
        "a",
        inTurn<LlmError.LlmError>(says("quick"), says("slow", 6000), fails(failure("InvalidRequest")), hangs),
      )
      const call = Effect.annotateLogs(ask("generate", a.provider), "request", "r-7")
      for (let n = 0; n < 3; n++) yield* play(Effect.exit(call))
      yield* play(Effect.timeoutOption(call, "1 second"))
      yield* play(Effect.timeoutOption(call, "7 seconds"))
      assert.deepStrictEqual(lines, [
        "Warn r-7 answered   = Answered by a, after 6 s and 1 attempt.",
        "Warn r-7 failed   = Failed with InvalidRequest after 0 ms and 1 attempt.",
        "Warn r-7 interrupted   = Its caller left after 7 s and 1 attempt.",
      ])
    }).pipe(Effect.provide(Layer.mergeAll(Explain.layer({ slowerThan: "5 seconds" }), Logger.layer([logger]))))
  })

  it.effect("holds nothing of prompts, answers, keys or what a provider said", () =>
    Effect.gen(function* () {
      const planted = "PLANTED sk-SECRET0123456789"
      const a = stub<LlmError.LlmError | Foreign>(
        "a",
        inTurn(says(planted), streams(timed([0, say(planted)])), fails(new Foreign(planted))),
      )
      for (const kind of [...kinds, "generate"] as const) {
        const { traces } = yield* traced(Effect.exit(ask(kind, a.provider)))
        const told = traces.map((trace) => Explain.text(trace) + JSON.stringify(encode(trace))).join("")
        assert.include(told, "asked (attempt 1)")
        assert.notMatch(told, /PLANTED|SECRET|Dune/)
      }
    }),
  )

  it("sums the tokens of all attempts", () => {
    const usage = { inputTokens: 100, outputTokens: 20 }
    const attempt = { ...base, attempt: 1, elapsedMs: 1 }
    const [trace] = Explain.explain([
      { event: "CallStarted", ...base },
      { event: "AttemptFailed", ...attempt, failure: "ContentFiltered", usage },
      { event: "AttemptSucceeded", ...attempt, usage: { ...usage, reasoningTokens: 7 } },
    ])
    assert.deepStrictEqual(trace?.usage, { inputTokens: 200, outputTokens: 40, reasoningTokens: 7 })
    assert.strictEqual(
      textOf(trace).at(-1),
      "  = It has not ended after 0 ms and 0 attempts. Tokens: 200 in, 40 out, over all attempts.",
    )
  })

  it("keeps the first and the last events of a call that has too many, and says how many are left out", () => {
    const events: ReadonlyArray<Event> = [
      { event: "CallStarted", ...base },
      ...Array.from({ length: 9998 }, (_, n): Event => ({
        event: "BackedOff",
        ...base,
        at: n + 1,
        failure: "Overloaded",
        delayMs: 1,
      })),
      { event: "CallFailed", ...base, at: 9999, failure: "Overloaded", attempts: 0, elapsedMs: 9999 },
    ]
    for (const length of [2, 249, 250, 251, 499, 500]) {
      const [trace] = Explain.explain(events.slice(0, length))
      assert.deepStrictEqual(
        [trace?.omitted, trace?.steps.map(({ atMs }) => atMs)],
        [0, Array.from({ length }, (_, n) => n)],
      )
    }
    for (const length of [501, 750, 777]) {
      const [trace] = Explain.explain(events.slice(0, length))
      const late = Array.from({ length: 250 }, (_, n) => length - 250 + n)
      assert.deepStrictEqual([trace?.omitted, trace?.steps.slice(250).map(({ atMs }) => atMs)], [length - 500, late])
    }
    const [trace] = Explain.explain(events)
    assert.deepInclude(trace, { omitted: 9500, outcome: "failed" })
    const lines = textOf(trace)
    assert.strictEqual(lines.filter((line) => line === "  … 9500 events are left out …").length, 1)
    assert.isAtMost(lines.length, 1003)
  })

  it.effect("explains any events in any order, events that it does not know, and none at all; and survives JSON", () =>
    Effect.gen(function* () {
      const events = yield* anyEvents
      assert.deepStrictEqual(Explain.explain([]), [])
      const odd = [{ event: "Unheard", at: 0, call: "c", provider: "a", text: "PLANTED" }] as unknown as Array<Event>
      assert.deepStrictEqual(textOf(Explain.explain(odd)[0]), [
        "Call … to a",
        "  +0.000 s  Unheard",
        "  = It has not ended after 0 ms and 0 attempts.",
      ])
      let traces = 0
      for (let seed = 0; seed < 60; seed++) {
        const told = stories(seed, 8, events)
        const all = Explain.explain(told)
        assert.deepStrictEqual(
          all.map(({ call }) => call),
          [...new Set(told.map(({ call }) => call))],
        )
        assert.strictEqual(
          all.reduce((n, { steps }) => n + steps.length, 0),
          told.length,
        )
        for (const trace of all) {
          traces++
          const json = JSON.stringify(encode(trace))
          assert.deepStrictEqual(decode(JSON.parse(json)), trace)
          assert.notInclude(Explain.text(trace), "undefined")
          assert.notInclude(Explain.text(trace), "NaN")
        }
      }
      for (const event of events) {
        const answered = event.event === "Answered" ? { ...event, text: "PLANTED" } : event
        const trace = Explain.explain([answered])[0]!
        assert.notMatch(Explain.text(trace) + JSON.stringify(encode(trace)), /PLANTED/)
        assert.notMatch(Explain.text(trace).replaceAll("\n", ""), /\p{Cc}/u)
      }
      assert.strictEqual(traces, 60 * 8)
    }),
  )

  it("refuses options that cannot be meant, and names them", () => {
    // @ts-expect-error -- misspelt
    assert.throws(() => Explain.layer({ slowerthan: "1 second" }), /slowerthan/)
    assert.throws(() => Explain.layer({ slowerThan: "-1 seconds" }), /slowerThan/)
  })
})
