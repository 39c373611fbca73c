import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Layer, Redacted, Stream } from "effect"
import {
  Call,
  CircuitBreaker,
  EmbeddingModelFace,
  Face,
  Failover,
  type LanguageModelFace,
  type LlmError,
  RateLimit,
  Retry,
  Timeouts,
  TokenCounter,
  Understudy,
} from "@understudy/core"
import { Agenda, anyPlan, crowd, differences, type Fate, type Plan, stays } from "./Crowd.ts"
import { assertInOrder, listener } from "./PolicyEvent.check.ts"
import { deep } from "./Sequences.ts"
import {
  ask,
  end,
  expectTag,
  failed,
  fails,
  failure,
  Foreign,
  hangs,
  inTurn,
  kinds,
  metadata,
  play,
  question,
  random,
  type Reply,
  said,
  say,
  says,
  seconds,
  settle,
  streams,
  stub,
  wait,
} from "./stub.ts"

const statusOf = (key: string) =>
  Effect.flatMap(RateLimit.RateLimits, (limits) =>
    Effect.map(limits.status, (all) => all.find((status) => status.key === key)),
  )

/** How much of each limit can be had now. */
const available = (key: string) =>
  Effect.map(statusOf(key), (status) => status?.limits.map((limit) => limit.available) ?? [])

/** An answer whose provider says what was used. */
const used = (input: number, output: number, afterMillis: number): Reply<never> => {
  const last = { ...end, usage: { inputTokens: { total: input }, outputTokens: { total: output } } }
  return {
    whole: Effect.as(wait(afterMillis), [{ type: "text", text: "used" }, last]),
    parts: Stream.concat(Stream.make(say("used")), Stream.fromEffect(Effect.as(wait(afterMillis), last))),
  }
}

type Part = LanguageModelFace.Part

const minute = 60_000

/** What a call of a crowd reserves and uses. */
interface Tokens {
  readonly prompt: number
  readonly maxTokens: number
  /** What the provider says at the end. */
  readonly input: number
  readonly output: number
}

/** "answered", in tokens, as it is estimated when the provider did not say. */
const came = 2

/** A token bucket that is looked at when something happens. */
class Bucket {
  private level: number
  private at = 0
  private readonly perMinute: number

  constructor(perMinute: number) {
    this.perMinute = perMinute
    this.level = perMinute
  }

  pass(at: number): void {
    this.level = Math.min(this.perMinute, this.level + ((at - this.at) * this.perMinute) / minute)
    this.at = at
  }

  /** How long until so much is there. */
  wait(units: number): number {
    return Math.max(0, ((units - this.level) * minute) / this.perMinute)
  }

  /** Takes, or gives back. */
  take(units: number): void {
    this.level = Math.min(this.perMinute, this.level - units)
  }

  copy(): Bucket {
    return Object.assign(new Bucket(this.perMinute), this)
  }
}

interface Numbers {
  readonly requestsPerMinute: number
  readonly tokensPerMinute: number
  readonly queue: number
  readonly maxWait: number
}

type Happening = "comes" | "is answered" | "has waited" | "leaves" | "is at its deadline" | "may be first"

/** What must become of a crowd, by the description of a rate limit. */
const foretold = (plans: ReadonlyArray<Plan>, tokens: ReadonlyArray<Tokens>, numbers: Numbers) => {
  const fates: Array<Fate | undefined> = plans.map(() => undefined)
  const asked = new Map<number, number>()
  const inside = new Set<number>()
  let line: ReadonlyArray<number> = []
  const until = new Map<number, number>()
  const reached = new Set<string>()
  const agenda = new Agenda<Happening>()
  const requests = new Bucket(numbers.requestsPerMinute)
  const used = new Bucket(numbers.tokensPerMinute)

  const needs = (call: number): number => tokens[call]!.prompt + tokens[call]!.maxTokens
  const wait = (call: number, of = { requests, used }): number =>
    Math.max(of.requests.wait(1), of.used.wait(needs(call)))
  const forecast = (at: number, calls: ReadonlyArray<number>): number => {
    const of = { requests: requests.copy(), used: used.copy() }
    let then = at
    for (const call of calls) {
      then += wait(call, of)
      of.requests.pass(then)
      of.used.pass(then)
      of.requests.take(1)
      of.used.take(needs(call))
    }
    return then
  }
  const enter = (call: number, at: number): void => {
    requests.take(1)
    used.take(needs(call))
    inside.add(call)
    asked.set(call, at)
    agenda.add(at + stays(plans[call]!), "is answered", call)
  }
  const serve = (at: number): void => {
    for (const call of line) {
      const left = wait(call)
      if (left > 1e-6) return agenda.add(at + left, "may be first", call)
      reached.add("served after a wait")
      line = line.filter((other) => other !== call)
      enter(call, at)
    }
  }
  /** `real`: what it used after all. */
  const over = (call: number, at: number, how: string, real: number): void => {
    fates[call] = { asked: asked.get(call), over: at, how }
    line = line.filter((other) => other !== call)
    if (inside.delete(call)) used.take(real - needs(call))
    serve(at)
  }

  for (const [call, plan] of plans.entries()) {
    agenda.add(plan.comes, "comes", call)
    if (plan.leaves !== undefined) agenda.add(plan.comes + plan.leaves, "leaves", call)
    if (plan.deadline !== undefined) agenda.add(plan.comes + plan.deadline, "is at its deadline", call)
  }
  const matters = (what: Happening, call: number): boolean =>
    what === "may be first"
      ? line[0] === call
      : fates[call] === undefined && (what !== "has waited" || line.includes(call))
  for (let next = agenda.next(matters); next !== undefined; next = agenda.next(matters)) {
    const { at, call, what } = next
    requests.pass(at)
    used.pass(at)
    const plan = plans[call]!
    const { input, output, prompt } = tokens[call]!
    const committed = plan.kind !== "generate" && asked.has(call) && at >= asked.get(call)! + plan.takes
    const cut = prompt + (committed ? came : 0)
    switch (what) {
      case "may be first":
        serve(at)
        break
      case "comes": {
        const last = Math.min(at + numbers.maxWait, plan.deadline === undefined ? Infinity : at + plan.deadline)
        if (needs(call) > numbers.tokensPerMinute) {
          reached.add("too large")
          over(call, at, "CapacityExceeded", 0)
        } else if (line.length === 0 && wait(call) === 0) {
          enter(call, at)
        } else if (forecast(at, [...line, call]) >= last) {
          reached.add("told at once that there is no room soon enough")
          over(call, at, "CapacityExceeded", 0)
        } else if (line.length >= numbers.queue) {
          reached.add("full")
          over(call, at, "CapacityExceeded", 0)
        } else {
          line = [...line, call]
          until.set(call, last)
          agenda.add(at + numbers.maxWait, "has waited", call)
          if (line.length === 1) serve(at)
        }
        break
      }
      case "has waited":
        reached.add("waited in vain")
        over(call, at, "CapacityExceeded", 0)
        break
      case "is answered":
        if (plan.fails) over(call, at, "ProviderUnavailable", 0)
        else over(call, at, "answered", plan.kind === "stream that is left early" ? prompt + came : input + output)
        if (!plan.fails && plan.kind !== "stream that is left early" && input + output > needs(call)) {
          reached.add("used more than was reserved")
        }
        break
      case "leaves":
        reached.add(inside.has(call) ? "left from inside" : "left the line")
        over(call, at, "left", cut)
        break
      case "is at its deadline":
        reached.add(inside.has(call) ? "cut at the deadline" : "waited until the deadline")
        over(call, at, committed ? "StreamInterrupted" : "DeadlineExceeded", cut)
        break
    }
  }
  return { fates: fates as ReadonlyArray<Fate>, reached, ambiguous: agenda.ambiguous }
}

const layer = Layer.mergeAll(Understudy.layer, RateLimit.layer)

describe("RateLimit", () => {
  it.effect("gives each of a crowd the fate that its description foretells, in 1,000 crowds", () =>
    Effect.gen(function* () {
      const prompt = yield* TokenCounter.count(question)
      const sequences = deep(1000)
      const reached = new Map<string, number>()
      let played = 0
      let seed = 0
      for (; played < sequences; seed++) {
        const r = random(seed)
        const numbers = {
          requestsPerMinute: r.int(1, 6),
          tokensPerMinute: r.int(800, 2500),
          queue: r.pick([1, 2, 10]),
          maxWait: r.int(1, 300_000),
        }
        const plans = Array.from({ length: 12 }, () => anyPlan(r, 110_000))
        const tokens = plans.map((): Tokens => {
          const maxTokens = r.int(1, 900)
          return { prompt, maxTokens, input: r.int(1, 2 * prompt), output: r.int(0, maxTokens * r.pick([1.2, 5])) }
        })
        const expected = foretold(plans, tokens, numbers)
        if (expected.ambiguous) continue
        played++
        const { effect, events } = listener()
        const { fates, left } = yield* crowd(
          plans,
          r.pick([2, 3, 10, 2048]),
          (provider) => provider.pipe(RateLimit.with({ key: "shared", ...numbers })),
          {
            last: (index) => ({
              ...end,
              usage: { inputTokens: { total: tokens[index]!.input }, outputTokens: { total: tokens[index]!.output } },
            }),
            around: (index, call) => {
              const bounded = Call.withParameters({ maxTokens: tokens[index]!.maxTokens })(call)
              return index % 4 === 0 ? effect(bounded) : bounded
            },
          },
        ).pipe(Effect.provide(Layer.fresh(RateLimit.layer)))
        assert.strictEqual(differences(fates, expected.fates), "", `seed ${seed}`)
        assert.strictEqual(left, 0)
        assertInOrder(events)
        for (const state of expected.reached) reached.set(state, (reached.get(state) ?? 0) + 1)
      }
      const share = (state: string) => (reached.get(state) ?? 0) / sequences
      assert.isAtLeast(share("served after a wait"), 0.8)
      assert.isAtLeast(share("full"), 0.3)
      assert.isAtLeast(share("told at once that there is no room soon enough"), 0.5)
      assert.isAtLeast(share("used more than was reserved"), 0.5)
      assert.isAtLeast(share("left the line"), 0.2)
      assert.isAtLeast(share("left from inside"), 0.3)
      assert.isAtLeast(share("cut at the deadline"), 0.3)
      assert.isAtLeast(share("too large"), 0.02)
      assert.isAtLeast(share("waited in vain"), 0.01)
      assert.isAtLeast(share("waited until the deadline"), 0.01)
      assert.isAtMost(seed, sequences * 1.05)
    }),
  )

  describe("reserves", () => {
    const numbers = { requestsPerMinute: 10, tokensPerMinute: 10_000 }

    it.effect("a request and the tokens of prompt and answer, and settles them with what was used", () =>
      Effect.gen(function* () {
        const prompt = yield* TokenCounter.count(question)
        for (const kind of kinds) {
          for (const [parameters, reserved] of [
            [{ maxTokens: 500 }, 500],
            [{}, 1024],
          ] as const) {
            const a = stub("a", () => used(300, 40, 1000))
            const guarded = a.provider.pipe(RateLimit.with({ ...numbers, key: kind }))
            const during = Effect.gen(function* () {
              const fiber = yield* Effect.forkChild(Call.withParameters(parameters)(ask(kind, guarded)))
              yield* settle
              assert.deepStrictEqual(yield* available(kind), [9, 10_000 - prompt - reserved])
              yield* Fiber.join(fiber)
              // A second has passed, in which a request needs six to come back and tokens come by 166.
              assert.deepStrictEqual(yield* available(kind), [9, Math.floor(10_000 - 340 + 1000 / 6)])
            })
            const { exit } = yield* play(during)
            assert.deepStrictEqual(exit, Exit.void)
            yield* play(wait(minute))
          }
        }
      }).pipe(Effect.provide(layer)),
    )

    it.effect("of all limits or of none", () =>
      Effect.gen(function* () {
        const a = stub("a", () => hangs)
        const options = { requestsPerMinute: 1, tokensPerMinute: 100_000, maxWait: 0 }
        const guarded = a.provider.pipe(RateLimit.with(options))
        const fiber = yield* Effect.forkChild(ask("generate", guarded))
        yield* settle
        const before = yield* available("a/a-1")
        for (let n = 0; n < 5; n++) yield* Effect.exit(ask("generate", guarded))
        assert.deepStrictEqual(yield* available("a/a-1"), before)
        yield* Fiber.interrupt(fiber)
      }).pipe(Effect.provide(layer)),
    )

    it.effect("apart for prompts and answers, as Anthropic counts them", () =>
      Effect.gen(function* () {
        const a = stub("a", () => used(2000, 300, 0))
        const guarded = a.provider.pipe(
          RateLimit.with({ inputTokensPerMinute: 5000, outputTokensPerMinute: 1500, key: "k" }),
        )
        yield* play(ask("generate", guarded))
        assert.deepStrictEqual(yield* available("k"), [3000, 1200])
      }).pipe(Effect.provide(layer)),
    )

    it.effect("tokens of the texts of an embedding model", () =>
      Effect.gen(function* () {
        const inputs = ["one text", "and another one"]
        const embedding = EmbeddingModelFace.make({
          name: "e",
          model: "e-1",
          embed: () => Effect.succeed({ results: [[1], [2]], usage: { inputTokens: 70 } }),
        })
        const guarded = embedding.pipe(RateLimit.with({ tokensPerMinute: 1000 }))
        yield* play(guarded.generate({ inputs }))
        assert.deepStrictEqual(yield* available("e/e-1"), [930])
        const small = embedding.pipe(RateLimit.with({ tokensPerMinute: 2, key: "small" }))
        expectTag("CapacityExceeded", failed((yield* play(small.generate({ inputs }))).exit))
      }).pipe(Effect.provide(layer)),
    )
  })

  describe("gives back", () => {
    const guard = RateLimit.with({ requestsPerMinute: 100, tokensPerMinute: 100_000, key: "k" })
    const whole = [100, 100_000]

    it.effect("everything when the circuit rejects, and when the caller leaves the line", () =>
      Effect.gen(function* () {
        const a = stub("a", () => fails(failure("ModelNotFound")))
        const guarded = a.provider.pipe(CircuitBreaker.with({ openFor: "10 minutes" }), guard)
        yield* play(ask("generate", guarded))
        yield* play(wait(minute))
        assert.strictEqual(said((yield* play(ask("stream", guarded))).exit), "CircuitOpen")
        assert.deepStrictEqual(yield* available("k"), whole)

        const b = stub("b", () => hangs)
        const one = b.provider.pipe(RateLimit.with({ requestsPerMinute: 1, maxWait: "2 minutes" }))
        const holder = yield* Effect.forkChild(ask("generate", one))
        yield* settle
        const waiting = yield* Effect.forkChild(ask("generate", one))
        yield* settle
        assert.strictEqual((yield* statusOf("b/b-1"))?.waiting, 1)
        yield* Fiber.interrupt(waiting)
        assert.strictEqual((yield* statusOf("b/b-1"))?.waiting, 0)
        yield* play(wait(minute))
        assert.deepStrictEqual(yield* available("b/b-1"), [1])
        yield* Fiber.interrupt(holder)
      }).pipe(Effect.provide(layer)),
    )

    it.effect("everything when the call's deadline was over before it could be sent", () =>
      Effect.gen(function* () {
        const a = stub("a", () => says("a"))
        const late = a.provider.pipe(guard, (p) => Effect.andThen(wait(10), ask("generate", p)), Call.withDeadline(0))
        assert.strictEqual(said((yield* play(late)).exit), "DeadlineExceeded")
        assert.deepStrictEqual(yield* available("k"), whole)
      }).pipe(Effect.provide(layer)),
    )

    it.effect("the tokens when the provider failed without an answer, and not the request, which counts", () =>
      Effect.gen(function* () {
        for (const tag of ["RateLimited", "Overloaded", "ProviderUnavailable", "InvalidRequest"] as const) {
          for (const kind of kinds) {
            const a = stub("a", () => fails(failure(tag)))
            yield* play(ask(kind, a.provider.pipe(guard)))
            assert.deepStrictEqual(yield* available("k"), [99, 100_000], tag)
            yield* play(wait(minute))
          }
        }
      }).pipe(Effect.provide(layer)),
    )

    it.effect("all but the prompt, and what came of the answer, when an attempt was cut", () =>
      Effect.gen(function* () {
        const prompt = yield* TokenCounter.count(question)
        const text = "x".repeat(400)
        const half = streams(Stream.concat(Stream.make(say(text)), Stream.never))
        const broken = streams(Stream.concat(Stream.make(say(text)), Stream.fail(failure("ConnectionFailed"))))
        for (const [kind, reply, left] of [
          ["generate", hangs, prompt],
          ["stream", hangs, prompt],
          ["stream", half, prompt + 100],
          ["stream", broken, prompt + 100],
          ["generate", fails(failure("ContentFiltered")), prompt],
        ] as const) {
          const a = stub<LlmError.LlmError>("a", () => reply)
          const clocked = a.provider.pipe(Timeouts.with({ attempt: 10, firstContent: 10, idle: 10 }), guard)
          yield* play(ask(kind, clocked))
          const [, tokens = NaN] = yield* available("k")
          assert.isAtLeast(tokens, 100_000 - left)
          // At most 20 ms have passed, in which 33 come back.
          assert.isAtMost(tokens, 100_000 - left + 34)
          yield* play(wait(minute))
        }
      }).pipe(Effect.provide(layer)),
    )
  })

  it.effect("gives a hint that is exact: a call is let in then, and not a moment earlier", () =>
    Effect.gen(function* () {
      for (let seed = 0; seed < 50; seed++) {
        const r = random(seed)
        const a = stub("a", () => hangs)
        const key = `${seed}`
        const options = { requestsPerMinute: r.int(1, 50), tokensPerMinute: r.int(1200, 9000), maxWait: 0, key }
        const guarded = a.provider.pipe(RateLimit.with(options))
        const call = Call.withParameters({ maxTokens: r.int(1, 1000) })(ask("generate", guarded))
        const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
        const attempt = Effect.gen(function* () {
          const fiber = yield* Effect.forkChild(call)
          yield* settle
          fibers.push(fiber)
          return fiber.pollUnsafe()
        })
        let refused = yield* attempt
        while (refused === undefined) refused = yield* attempt
        const { retryAfter } = expectTag("CapacityExceeded", failed(refused))
        const hint = Duration.toMillis(retryAfter!)
        assert.isAbove(hint, 0)
        yield* play(wait(Math.max(0, hint - 0.01)))
        assert.isDefined(yield* attempt, key)
        yield* play(wait(0.01))
        assert.isUndefined(yield* attempt, key)
        yield* Fiber.interruptAll(fibers)
      }
    }).pipe(Effect.provide(layer)),
  )

  it.effect("fails at once, for good, with a request that can never fit", () =>
    Effect.gen(function* () {
      const { effect, events } = listener()
      const a = stub("a", () => says("a"))
      const guarded = a.provider.pipe(RateLimit.with({ tokensPerMinute: 1000 }), Retry.with())
      for (const kind of kinds) {
        const call = effect(Call.withParameters({ maxTokens: 1000 })(ask(kind, guarded)))
        const { exit, millis } = yield* play(call)
        const failure = expectTag("CapacityExceeded", failed(exit))
        assert.deepStrictEqual([failure.retryable, failure.retryAfter, millis], [false, undefined, 0])
        assert.match(failure.message, /may need 10\d\d tokens, and there are 1000 a minute/)
      }
      assert.strictEqual(a.asked.length, 0)
      assertInOrder(events)
      assert.strictEqual(events.filter((event) => event.event === "CapacityRejected").length, 2)
    }).pipe(Effect.provide(layer)),
  )

  it.effect("spreads requests when less than a minute's worth may be used at once", () =>
    Effect.gen(function* () {
      const a = stub("a", () => says("a"))
      const guarded = a.provider.pipe(
        RateLimit.with({ requestsPerMinute: 60, burst: "2 seconds", maxWait: "1 minute" }),
      )
      const calls = Array.from({ length: 7 }, () => ask("generate", guarded))
      yield* play(Effect.all(calls, { concurrency: "unbounded" }))
      assert.deepStrictEqual(
        a.asked.map((at) => Math.round(at - a.asked[0]!)),
        [0, 0, 1000, 2000, 3000, 4000, 5000],
      )
    }).pipe(Effect.provide(layer)),
  )

  describe("learns", () => {
    const left = (headroom: RateLimit.Headroom) => ({
      ...metadata,
      metadata: { [RateLimit.namespace]: headroom as never },
    })
    const telling = (headroom: RateLimit.Headroom): Reply<never> => ({
      whole: Effect.succeed([left(headroom) as never, { type: "text", text: "a" }, end]),
      parts: Stream.make(left(headroom), say("a"), end),
    })
    const numbers = { requestsPerMinute: 100, tokensPerMinute: 100_000 }

    it.effect("that less is left than it thought, and never that more is", () =>
      Effect.gen(function* () {
        for (const kind of kinds) {
          const said = (headroom: RateLimit.Headroom, learn = true) =>
            Effect.gen(function* () {
              const key = `${kind} ${learn}`
              const a = stub("a", () => telling(headroom))
              yield* play(ask(kind, a.provider.pipe(RateLimit.with({ ...numbers, key, learn }))))
              return yield* available(key)
            })
          const tokens = (yield* TokenCounter.count(question)) + 1024
          const many = { requests: { remaining: 40 }, tokens: { remaining: 200_000 } }
          assert.deepStrictEqual(yield* said(many), [40, 100_000 - tokens])
          assert.deepStrictEqual(yield* said({ requests: { remaining: 90 } }), [39, 100_000 - 2 * tokens])
          const none = { requests: { remaining: 0 }, tokens: { remaining: 0 } }
          assert.deepStrictEqual(yield* said(none, false), [99, 100_000 - tokens])
          assert.deepStrictEqual(yield* said(none), [0, 0])
        }
      }).pipe(Effect.provide(layer)),
    )

    it.effect("and gives nothing back beyond that at the end of a stream, but what has come back since", () =>
      Effect.gen(function* () {
        const last = { ...end, usage: { inputTokens: { total: 10 }, outputTokens: { total: 10 } } }
        const parts = Stream.concat(
          Stream.make<Array<Part>>(left({ tokens: { remaining: 600 } }), say("a")),
          Stream.fromEffect(Effect.as(wait(6000), last)),
        )
        const a = stub("a", () => streams(parts))
        yield* play(ask("stream", a.provider.pipe(RateLimit.with({ tokensPerMinute: 4000, key: "k" }))))
        assert.deepStrictEqual(yield* available("k"), [600 + 400])
      }).pipe(Effect.provide(layer)),
    )

    it.effect("to send nothing until the hint of a RateLimited is over, at most an hour", () =>
      Effect.gen(function* () {
        for (const [hint, pause] of [
          ["30 seconds", 30_000],
          ["3 days", 3_600_000],
        ] as const) {
          const limited = failure("RateLimited", "a", { retryAfter: Duration.fromInputUnsafe(hint) })
          const a = stub("a", inTurn(fails(limited), says("a")))
          const guarded = a.provider.pipe(RateLimit.with({ ...numbers, key: hint }))
          assert.strictEqual(said((yield* play(ask("generate", guarded))).exit), "RateLimited")
          const refused = expectTag("CapacityExceeded", failed((yield* play(ask("stream", guarded))).exit))
          assert.strictEqual(Duration.toMillis(refused.retryAfter!), pause)
          assert.deepStrictEqual((yield* statusOf(hint))?.pausedFor, Duration.millis(pause))
          yield* play(wait(pause))
          assert.strictEqual(said((yield* play(ask("stream", guarded))).exit), "a")
        }
      }).pipe(Effect.provide(layer)),
    )

    it.effect("and sends those away at once who would wait in vain", () =>
      Effect.gen(function* () {
        const a = stub("a", () => fails(failure("RateLimited", "a", { retryAfter: seconds(50) }), 1000))
        const one = { requestsPerMinute: 1, maxWait: "65 seconds" } as const
        const guarded = a.provider.pipe(RateLimit.with(one))
        const calls = [
          ask("generate", guarded),
          // There would have been room after a minute, and after two.
          Effect.delay(ask("generate", guarded), 100),
          Effect.delay(ask("generate", a.provider.pipe(RateLimit.with(one))), 200),
        ]
        const exits = Effect.all(
          calls.map((call) => Effect.exit(call)),
          { concurrency: 3 },
        )
        const { exit, millis } = yield* play(exits)
        assert.deepStrictEqual(exit._tag === "Success" && exit.value.map(said), [
          "RateLimited",
          "RateLimited",
          "CapacityExceeded",
        ])
        assert.strictEqual(millis, 61_000)
        const waiting = ask("generate", a.provider.pipe(RateLimit.with({ ...one, key: "k", requestsPerMinute: 2 })))
        const three = Effect.all(
          [waiting, waiting, Effect.delay(waiting, 500)].map((call) => Effect.exit(call)),
          {
            concurrency: 3,
          },
        )
        const again = yield* play(three)
        const last = again.exit._tag === "Success" ? again.exit.value[2]! : undefined
        // It could have come in after 30 seconds, and now must wait for 50: it does.
        assert.strictEqual(last === undefined ? "" : said(last), "RateLimited")
      }).pipe(Effect.provide(layer)),
    )
  })

  describe("while another candidate is ready", () => {
    it.effect("does not wait for room that comes behind the patience", () =>
      Effect.gen(function* () {
        const a = stub("a", () => says("a"))
        const b = stub("b", () => says("b"))
        const guarded = a.provider.pipe(RateLimit.with({ requestsPerMinute: 20, burst: "3 seconds" }))
        const both = Failover.make([guarded, b.provider])
        const call = ask("generate", both)
        const three = Effect.all([call, Effect.delay(call, 500), Effect.delay(call, 1500)], { concurrency: 3 })
        const { exit, millis } = yield* play(three)
        // The second would have to wait for 2.5 seconds. The third waits for 1.5.
        assert.deepStrictEqual(exit, Exit.succeed(["a", "b", "a"]))
        assert.strictEqual(Math.round(millis), 3000)
      }).pipe(Effect.provide(layer)),
    )

    it.effect("waits when it is the last", () =>
      Effect.gen(function* () {
        const a = stub("a", () => fails(failure("ModelNotFound")))
        const b = stub("b", () => says("b"))
        const guarded = b.provider.pipe(RateLimit.with({ requestsPerMinute: 20, burst: "3 seconds" }))
        const both = Failover.make([a.provider, guarded])
        const call = ask("generate", both)
        const { exit, millis } = yield* play(Effect.all([call, call], { concurrency: 2 }))
        assert.deepStrictEqual(exit, Exit.succeed(["b", "b"]))
        assert.strictEqual(Math.round(millis), 3000)
      }).pipe(Effect.provide(layer)),
    )
  })

  it.effect("is waited for by a retry as long as its hint says", () =>
    Effect.gen(function* () {
      const a = stub("a", () => says("a"))
      const guarded = a.provider.pipe(RateLimit.with({ requestsPerMinute: 2, burst: "1 second" }), Retry.with())
      const call = ask("generate", guarded)
      const { exit, millis } = yield* play(Effect.all([call, call], { concurrency: 2 }))
      assert.deepStrictEqual(exit, Exit.succeed(["a", "a"]))
      assert.isAtLeast(millis, 30_000)
      assert.isAtMost(millis, 33_001)
    }).pipe(Effect.provide(layer)),
  )

  it.effect("is another for each key that comes with a call, and shows no key", () =>
    Effect.gen(function* () {
      const a = stub("a", () => says("a"))
      const guarded = a.provider.pipe(RateLimit.with({ requestsPerMinute: 1, maxWait: 0 }))
      const own = (key: string) => Call.withCredential("a", Redacted.make(key))(ask("generate", guarded))
      const calls = [ask("generate", guarded), own("sk-one"), own("sk-two"), own("sk-one"), ask("generate", guarded)]
      const exits: Array<string> = []
      for (const call of calls) exits.push(said((yield* play(call)).exit))
      assert.deepStrictEqual(exits, ["a", "a", "a", "CapacityExceeded", "CapacityExceeded"])
      const keys = (yield* Effect.flatMap(RateLimit.RateLimits, (limits) => limits.status)).map(({ key }) => key)
      assert.deepStrictEqual(keys, ["a/a-1", "a/a-1#call", "a/a-1#call"])
    }).pipe(Effect.provide(layer)),
  )

  it.effect("says nothing about the provider's health", () =>
    Effect.gen(function* () {
      const a = stub("a", () => says("a"))
      const limited = a.provider.pipe(RateLimit.with({ requestsPerMinute: 1, maxWait: 0 }))
      const guarded = limited.pipe(CircuitBreaker.with({ failures: 1 }))
      yield* play(ask("generate", guarded))
      for (let n = 0; n < 3; n++) {
        assert.strictEqual(said((yield* play(ask("stream", guarded))).exit), "CapacityExceeded")
      }
    }).pipe(Effect.provide(layer)),
  )

  it.effect("works alone on effects and streams, with the tokens that they say", () =>
    Effect.gen(function* () {
      const options = { key: "work", tokensPerMinute: 600, maxWait: "1 minute", tokens: 600 } as const
      const work = RateLimit.effect(Effect.succeed(60), { ...options, used: (n) => n })
      const started = Effect.clockWith((clock) => clock.currentTimeMillis)
      const all = Effect.all(Array.from({ length: 3 }, () => Effect.andThen(work, started)))
      const { exit } = yield* play(all)
      // Each uses 60 of 600 after all: they come back in 6 seconds.
      const instants = exit._tag === "Success" ? exit.value : []
      assert.deepStrictEqual(
        instants.map((at) => Math.round(at - instants[0]!)),
        [0, 6000, 12_000],
      )
      const foreign = new Foreign("theirs")
      assert.strictEqual(failed((yield* play(RateLimit.effect(Effect.fail(foreign), options))).exit), foreign)
      yield* play(wait(minute))
      const parts = RateLimit.stream(Stream.make(1, 2), { ...options, face: Face.plain<number>() })
      assert.deepStrictEqual((yield* play(Stream.runCollect(parts))).exit, Exit.succeed([1, 2]))
      assert.deepStrictEqual(yield* available("work"), [0])
    }).pipe(Effect.provide(layer)),
  )

  it("throws InvalidOptions for numbers that cannot be meant, and for none at all", () => {
    assert.throws(() => RateLimit.with({}), /RateLimit\.with.*requestsPerMinute/s)
    assert.throws(() => RateLimit.with({ requestsPerMinute: 0 }), /requestsPerMinute/)
    assert.throws(() => RateLimit.with({ tokensPerMinute: 1.5 }), /tokensPerMinute/)
    assert.throws(() => RateLimit.effect(Effect.void, { key: "k", maxWait: -1, requestsPerMinute: 1 }), /maxWait/)
  })

  describe("reads what is left from headers", () => {
    const now = Date.parse("2026-03-01T12:00:00Z")
    const cases: ReadonlyArray<readonly [string, Record<string, string>, RateLimit.Headroom | undefined]> = [
      [
        "of OpenAI and those who speak like it",
        {
          "x-ratelimit-limit-requests": "500",
          "x-ratelimit-remaining-requests": "499",
          "x-ratelimit-reset-requests": "120ms",
          "X-RateLimit-Limit-Tokens": "30000",
          "X-RateLimit-Remaining-Tokens": "29500",
          "X-RateLimit-Reset-Tokens": "6m0s",
        },
        {
          requests: { remaining: 499, limit: 500, resetMs: 120 },
          tokens: { remaining: 29_500, limit: 30_000, resetMs: 360_000 },
        },
      ],
      [
        "of Anthropic, whose resets are instants",
        {
          "anthropic-ratelimit-requests-limit": "50",
          "anthropic-ratelimit-requests-remaining": "49",
          "anthropic-ratelimit-requests-reset": "2026-03-01T12:00:02Z",
          "anthropic-ratelimit-input-tokens-limit": "30000",
          "anthropic-ratelimit-input-tokens-remaining": "0",
          "anthropic-ratelimit-input-tokens-reset": "2026-03-01T12:01:00Z",
          "anthropic-ratelimit-output-tokens-remaining": "8000",
        },
        {
          requests: { remaining: 49, limit: 50, resetMs: 2000 },
          inputTokens: { remaining: 0, limit: 30_000, resetMs: 60_000 },
          outputTokens: { remaining: 8000 },
        },
      ],
      ["without a kind, as requests", { "x-ratelimit-remaining": "7" }, { requests: { remaining: 7 } }],
      [
        "of a minute, and not of a day",
        { "x-ratelimit-remaining-tokens-minute": "5", "x-ratelimit-remaining-requests-day": "3" },
        { tokens: { remaining: 5 } },
      ],
      ["which say nothing of it", { "content-type": "application/json", "retry-after": "3" }, undefined],
      [
        "with what is no number",
        { "x-ratelimit-remaining-tokens": "many", "x-ratelimit-remaining-requests": "-1" },
        undefined,
      ],
    ]
    it.each(cases)("%s", (_, headers, expected) => {
      assert.deepStrictEqual(RateLimit.headroom(headers, now), expected)
    })
  })
})
