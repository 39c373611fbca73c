import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, type Exit, Redacted, Stream } from "effect"
import { type LanguageModelFace, LlmError, Timeouts } from "@understudy/core"
import { type Clock, type Limits, Pace } from "../src/internal/pace.ts"
import { end, expectTag, play, question, random, say, start, streams, stub, timed } from "./stub.ts"

/** The same in the plainest way: everything that came is remembered, and looked at anew each time. */
const model = (limits: Limits, spent: number) => {
  let now = spent
  const arrivals: Array<number> = []
  const ends = (): ReadonlyArray<readonly [clock: Clock, at: number]> => {
    const gap = (arrivals.at(-1) ?? spent) + limits.idle
    const { rate } = limits
    const oldest = rate === undefined ? 0 : (arrivals.toReversed()[rate.parts - 1] ?? spent)
    return [
      ["idle", gap],
      ["attempt", limits.whole],
      ["slow drip", rate === undefined ? Infinity : oldest + rate.within],
    ]
  }
  return {
    waited: (millis: number, contents: number) => {
      now += millis
      while (arrivals.length < contents) arrivals.push(now)
    },
    left: () => Math.max(0, Math.min(...ends().map(([, at]) => at)) - now),
    first: () => {
      const least = Math.min(...ends().map(([, at]) => at))
      return ends()
        .filter(([, at]) => at === least)
        .map(([clock]) => clock)
    },
  }
}

describe("The pace of a stream", () => {
  it("is that of an independent model, for 10,000 streams of 60 waits each", () => {
    const chance = random(41)
    const seen = new Map<Clock, number>()
    for (let round = 0; round < 10_000; round++) {
      const limits: Limits = {
        idle: chance.chance(0.8) ? chance.int(1, 200) : Infinity,
        whole: chance.chance(0.8) ? chance.int(100, 8_000) : Infinity,
        rate: chance.chance(0.6) ? { parts: chance.int(1, 6), within: chance.int(1, 500) } : undefined,
      }
      const spent = chance.int(0, 100)
      const pace = new Pace(limits, spent, 0)
      const plain = model(limits, spent)
      let contents = 0
      for (let step = 0; step < 60; step++) {
        assert.strictEqual(pace.left(), plain.left())
        if (pace.left() !== Infinity) assert.include(plain.first(), pace.first())
        seen.set(pace.first(), (seen.get(pace.first()) ?? 0) + 1)
        const millis = chance.int(0, 60)
        if (chance.chance(0.7)) contents += chance.int(1, 4)
        pace.waited(millis, contents)
        plain.waited(millis, contents)
      }
    }
    for (const clock of ["idle", "slow drip", "attempt"] as const) {
      assert.isAbove(seen.get(clock) ?? 0, 10_000, `${clock} was hardly ever the first`)
    }
  })

  const run = (parts: Stream.Stream<LanguageModelFace.Part>, options: Timeouts.Options) => {
    const { provider } = stub("a", () => streams(parts))
    return play(Stream.runDrain(provider.pipe(Timeouts.with(options)).stream(question)))
  }
  const brokenBy = (exit: Exit.Exit<unknown, unknown>) => {
    if (exit._tag === "Success") return "whole"
    const failure = expectTag("StreamInterrupted", Cause.squash(exit.cause))
    return failure.failure?._tag === "TimedOut" ? failure.failure.phase : failure.failure?._tag
  }

  it.effect("is too slow when fewer parts than wanted come in time, although none keeps waiting for long", () =>
    Effect.gen(function* () {
      const drip = timed([0, start], ...Array.from({ length: 40 }, (_, n) => [(n + 1) * 400, say("x")] as const), [
        16_500,
        end,
      ])
      const slow = { minimumRate: { parts: 5, within: "1 second" } } as const
      const fast = { minimumRate: { parts: 2, within: "1 second" } } as const
      assert.strictEqual(brokenBy((yield* run(drip, slow)).exit), "slow drip")
      assert.strictEqual(brokenBy((yield* run(drip, fast)).exit), "whole")
      assert.strictEqual(brokenBy((yield* run(drip, {})).exit), "whole")
    }),
  )

  it.effect("is not kept by what is no content: an empty delta, or the end of a block", () =>
    Effect.gen(function* () {
      const empty = Array.from({ length: 30 }, (_, n) => [500 + n * 500, say("")] as const)
      const idle = timed([0, start], [100, say("x")], ...empty, [16_000, say("late")], [16_100, end])
      assert.strictEqual(brokenBy((yield* run(idle, { idle: "2 seconds" })).exit), "idle")
    }),
  )

  it.effect("does not count the time that the consumer takes, whatever the rate", () =>
    Effect.gen(function* () {
      const parts = timed([0, start], [10, say("a")], [20, say("b")], [30, say("c")], [40, end])
      const { provider } = stub("a", () => streams(parts))
      const options = { minimumRate: { parts: 1, within: "100 millis" }, idle: "100 millis" } as const
      const slow = Stream.runForEach(provider.pipe(Timeouts.with(options)).stream(question), () =>
        Effect.sleep("5 seconds"),
      )
      assert.strictEqual((yield* play(slow)).exit._tag, "Success")
    }),
  )

  it.effect("says how much had come: parts, text, tokens by estimate; and the text itself on purpose only", () =>
    Effect.gen(function* () {
      const parts = Stream.concat(
        timed([0, start], [10, say("SECRET text ")], [20, say("so far")]),
        Stream.never as Stream.Stream<LanguageModelFace.Part>,
      )
      const { exit } = yield* run(parts, { idle: "1 second" })
      if (exit._tag === "Success") return assert.fail("it was whole")
      const failure = expectTag("StreamInterrupted", Cause.squash(exit.cause))
      assert.deepStrictEqual(failure.delivered, { parts: 3, characters: 18, inside: "text", estimatedTokens: 5 })
      assert.strictEqual(failure.text === undefined ? undefined : Redacted.value(failure.text), "SECRET text so far")
      assert.notInclude(JSON.stringify(failure) + failure.message + String(failure.text), "SECRET")
    }),
  )

  it("tells bad options at the door", () => {
    const with_ = Timeouts.with
    assert.throws(() => with_({ minimumRate: { parts: 0, within: "1 second" } }), /minimumRate/)
  })

  it("is a clock that a failure can name", () => {
    const failure = new LlmError.TimedOut({ provider: "a", phase: "slow drip" })
    assert.include(failure.message, "too slowly")
  })
})
