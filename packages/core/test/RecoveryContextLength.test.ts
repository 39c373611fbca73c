import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Schema, Stream } from "effect"
import { Prompt, Tool } from "effect/ai"
import {
  Call,
  Failover,
  LanguageModelFace,
  LlmError,
  type PolicyEvent,
  Recovery,
  Retry,
  Timeouts,
  TokenCounter,
  Truncation,
} from "@understudy/core"
import { conversation, unpaired } from "./Conversation.ts"
import { assertInOrder, listener } from "./PolicyEvent.check.ts"
import { asks, model, shown, tooLong } from "./Recovery.stage.ts"
import {
  expectTag,
  failed,
  fails,
  failure,
  kinds,
  play,
  random,
  said,
  say,
  says,
  start,
  streams,
  wait,
} from "./stub.ts"

type Request = LanguageModelFace.Request

const { count } = TokenCounter.estimate
const counted = (request: Request): number => Effect.runSync(count(request))

/** A conversation of so many exchanges, each of about 110 tokens, and a question. */
const talk = (exchanges: number): Request =>
  LanguageModelFace.request([
    { role: "system", content: "S" },
    ...Array.from({ length: exchanges }, (_, n): ReadonlyArray<Prompt.MessageEncoded> => [
      { role: "user", content: `U${n} ${"sand ".repeat(50)}` },
      { role: "assistant", content: `A${n} ${"worm ".repeat(50)}` },
    ]).flat(),
    { role: "user", content: "And now?" },
  ])

const names = (request: Request | undefined): ReadonlyArray<string> =>
  request === undefined ? [] : shown(request.prompt).map((line) => line.split(/[: ]+/)[1]!)

/** A provider with a window: it counts as we do, or `factor` times as much, and says what it wants to say. */
const windowed = (
  name: string,
  window: number,
  options: { readonly factor?: number; readonly says?: "all" | "limit" | "nothing"; readonly reserve?: number } = {},
) =>
  model(name, (request) => {
    const requested = Math.ceil(counted(request) * (options.factor ?? 1))
    if (requested + (options.reserve ?? 0) <= window) return says(`${name} answers`)
    const { says: what = "all" } = options
    return fails(
      tooLong(name, what === "all" ? { limit: window, requested } : what === "limit" ? { limit: window } : {}),
    )
  })

const changes = (events: ReadonlyArray<PolicyEvent.PolicyEvent>) =>
  events.flatMap((event) =>
    event.event === "PromptChanged" ? [`${event.provider} ${event.failure} ${event.step}`] : [],
  )

for (const kind of kinds) {
  describe(`A prompt that is too long, ${kind}`, () => {
    it.effect("is cut to the limit that the refusal states, and asked again", () =>
      Effect.gen(function* () {
        const a = windowed("a", 1000)
        const heard = listener()
        const request = talk(20)
        const recovered = a.provider.pipe(Recovery.contextLength())
        assert.strictEqual(yield* heard.effect(asks(kind, recovered, request)), "a answers")
        assert.strictEqual(a.requests.length, 2)
        assert.strictEqual(a.requests[0], request)
        const sent = names(a.requests[1])
        assert.strictEqual(sent[0], "S")
        assert.match(sent[1]!, /^U/)
        assert.strictEqual(sent.at(-1), "And")
        // A quarter is for the answer, and a tenth of the rest for what we count wrong.
        assert.isAtMost(counted(a.requests[1]!), 682)
        assert.isAtLeast(counted(a.requests[1]!), 550)
        assert.deepStrictEqual(changes(heard.events), ["a ContextLengthExceeded drop oldest"])
        assertInOrder(heard.events)
        // What was sent is another prompt; the caller's is as it was.
        assert.strictEqual(names(request).length, 42)
      }),
    )

    it.effect("that nobody says how long it may be is cut by a quarter at a time", () =>
      Effect.gen(function* () {
        const request = talk(20)
        const whole = counted(request)
        const a = windowed("a", Math.floor(whole * 0.6), { says: "nothing" })
        assert.strictEqual(yield* asks(kind, a.provider.pipe(Recovery.contextLength()), request), "a answers")
        assert.strictEqual(a.requests.length, 3)
        const [, second, third] = a.requests.map((sent) => counted(sent) / whole)
        assert.isTrue(second! > 0.69 && second! <= 0.75)
        assert.isTrue(third! > 0.5 && third! <= 0.75 * 0.75)
      }),
    )

    it.effect("is counted as the provider counts, once it says what it counted", () =>
      Effect.gen(function* () {
        for (const factor of [0.5, 0.8, 1.3, 2, 5]) {
          const a = windowed("a", 1000, { factor })
          const recovered = a.provider.pipe(Recovery.contextLength({ reserve: 100 }))
          assert.strictEqual(yield* asks(kind, recovered, talk(60)), "a answers")
          assert.strictEqual(a.requests.length, 2)
          const used = (counted(a.requests[1]!) * factor) / 900
          assert.isTrue(used <= 1 / 1.1 + 0.01 && used > 0.2, `${factor}: ${used}`)
        }
      }),
    )

    it.effect("is cut further when it still is too long, whatever was stated", () =>
      Effect.gen(function* () {
        // It counts more than we do, and does not say so.
        const a = windowed("a", 1000, { factor: 1.9, says: "limit" })
        const recovered = a.provider.pipe(Recovery.contextLength({ times: 4 }))
        assert.strictEqual(yield* asks(kind, recovered, talk(20)), "a answers")
        const sizes = a.requests.map(counted)
        assert.deepStrictEqual(
          sizes,
          sizes.toSorted((x, y) => y - x),
        )
        assert.strictEqual(new Set(sizes).size, sizes.length)
        // And it refuses what we count as short enough.
        const b = windowed("b", 400, { says: "limit", factor: 3 })
        assert.strictEqual(
          said(yield* Effect.exit(asks(kind, b.provider.pipe(Recovery.contextLength({ times: 1 })), talk(3)))),
          "ContextLengthExceeded",
        )
        assert.isAtMost(counted(b.requests[1]!), counted(b.requests[0]!) * 0.75)
      }),
    )

    it.effect("is asked again twice at most, or as often as is said", () =>
      Effect.gen(function* () {
        const never = () => model("a", () => fails(tooLong("a")))
        const asked = (options: Recovery.ContextLengthOptions) =>
          Effect.gen(function* () {
            const a = never()
            yield* Effect.exit(asks(kind, a.provider.pipe(Recovery.contextLength(options)), talk(30)))
            return a.requests.length
          })
        assert.strictEqual(yield* asked({}), 3)
        assert.strictEqual(yield* asked({ times: 0 }), 1)
        assert.strictEqual(yield* asked({ times: 4 }), 5)
      }),
    )

    it.effect("leaves as it came first, with the later failures in it", () =>
      Effect.gen(function* () {
        const limits = [1000, 900, 800]
        const a = model("a", (_, attempt) => fails(tooLong("a", { limit: limits[attempt - 1]! })))
        const left = expectTag(
          "ContextLengthExceeded",
          failed(yield* Effect.exit(asks(kind, a.provider.pipe(Recovery.contextLength()), talk(30)))),
        )
        assert.strictEqual(left.limit, 1000)
        assert.deepStrictEqual(
          left.failures?.map((f) => f._tag === "ContextLengthExceeded" && f.limit),
          limits,
        )
      }),
    )

    it.effect("of which nothing may be left out leaves at once, and says so", () =>
      Effect.gen(function* () {
        const request = LanguageModelFace.request([
          { role: "system", content: "S" },
          { role: "user", content: "sand ".repeat(2000) },
        ])
        const a = windowed("a", 1000)
        const only = expectTag(
          "ContextLengthExceeded",
          failed(yield* Effect.exit(asks(kind, a.provider.pipe(Recovery.contextLength()), request))),
        )
        assert.strictEqual(a.requests.length, 1)
        assert.match(only.message, /What must stay of it, system message and last turn, is too long by itself\./)
        assert.strictEqual(only.limit, 1000)
        assert.isUndefined(only.failures)
        // Nor is it asked when what is left would be too long for certain.
        const before = Prompt.concat(talk(3).prompt, request.prompt)
        yield* Effect.exit(asks(kind, a.provider.pipe(Recovery.contextLength()), { ...request, prompt: before }))
        assert.strictEqual(a.requests.length, 2)
        // With leave to shorten the last turn, it is.
        const allowed = a.provider.pipe(Recovery.contextLength({ shortenLast: true }))
        const heard = listener()
        assert.strictEqual(yield* heard.effect(asks(kind, allowed, request)), "a answers")
        assert.deepStrictEqual(changes(heard.events), ["a ContextLengthExceeded shorten last"])
      }),
    )

    it.effect("is cut for the largest window among those that refuse it", () =>
      Effect.gen(function* () {
        const small = windowed("small", 500)
        const large = windowed("large", 3000)
        const both = Failover.make([
          { provider: small.provider, contextWindow: 500 },
          { provider: large.provider, contextWindow: 3000 },
        ])
        const recovered = both.pipe(Recovery.contextLength({ before: false }))
        assert.strictEqual(yield* asks(kind, recovered, talk(40)), "large answers")
        assert.strictEqual(large.requests.length, 2)
        assert.isAbove(counted(large.requests[1]!), 1500)
        // What fits into the larger one is not cut at all.
        const request = talk(10)
        assert.strictEqual(yield* asks(kind, recovered, request), "large answers")
        assert.strictEqual(large.requests.at(-1), request)
      }),
    )

    it.effect("is counted as the one counts that it is cut for, and not as another does", () =>
      Effect.gen(function* () {
        const small = windowed("small", 500, { factor: 0.9 })
        const large = windowed("large", 3000, { factor: 3 })
        const recovered = Failover.make([
          { provider: small.provider, contextWindow: 500 },
          { provider: large.provider, contextWindow: 3000 },
        ]).pipe(Recovery.contextLength({ before: false, times: 1 }))
        assert.strictEqual(yield* asks(kind, recovered, talk(60)), "large answers")
      }),
    )

    it.effect("is cut for the smaller one when the larger cannot answer", () =>
      Effect.gen(function* () {
        const small = windowed("small", 500)
        const large = model("large", () => fails(failure("Overloaded", "large")))
        const recovered = Failover.make([
          { provider: small.provider, contextWindow: 500 },
          { provider: large.provider, contextWindow: 3000 },
        ]).pipe(Recovery.contextLength())
        assert.strictEqual(yield* asks(kind, recovered, talk(15)), "small answers")
        assert.isAtMost(counted(small.requests.at(-1)!), 341)
      }),
    )

    it.effect("is cut for the candidate's window, or the one given, when the refusal states none", () =>
      Effect.gen(function* () {
        const cut = (
          provider: ReturnType<typeof windowed>,
          options: Recovery.ContextLengthOptions,
          contextWindow?: number,
        ) =>
          Effect.gen(function* () {
            const failover = Failover.make([{ provider: provider.provider, contextWindow }])
            const recovered = failover.pipe(Recovery.contextLength({ before: false, ...options }))
            assert.strictEqual(yield* asks(kind, recovered, talk(20)), "a answers")
            assert.strictEqual(provider.requests.length, 2)
            return counted(provider.requests[1]!)
          })
        const silent = () => windowed("a", 1000, { says: "nothing" })
        const byCandidate = yield* cut(silent(), {}, 1000)
        assert.isTrue(byCandidate <= 682 && byCandidate > 500)
        assert.strictEqual(yield* cut(silent(), { window: 1000 }), byCandidate)
      }),
    )

    it.effect("leaves room for the answer: the call's own length, or what is said", () =>
      Effect.gen(function* () {
        const sent = (options: Recovery.ContextLengthOptions, maxTokens?: number) =>
          Effect.gen(function* () {
            const a = windowed("a", 2000)
            const asking = asks(kind, a.provider.pipe(Recovery.contextLength(options)), talk(40))
            yield* maxTokens === undefined ? asking : Call.withParameters({ maxTokens })(asking)
            return counted(a.requests[1]!)
          })
        const near = (tokens: number, room: number) => assert.isTrue(tokens <= room / 1.1 && tokens > room / 1.1 - 115)
        near(yield* sent({}), 1500)
        near(yield* sent({ reserve: 0 }), 2000)
        near(yield* sent({ reserve: 1200 }), 800)
        near(yield* sent({}, 900), 1100)
        near(yield* sent({ reserve: 100 }, 900), 1900)
      }),
    )

    it.effect("counts tools and the schema of the answer, which cannot be left out", () =>
      Effect.gen(function* () {
        const tool = Tool.make("t", {
          description: "sand ".repeat(500),
          parameters: Schema.Struct({ a: Schema.String }),
        })
        const request = { ...talk(20), tools: [tool], toolChoice: "auto" as const }
        const a = windowed("a", 1400)
        assert.strictEqual(yield* asks(kind, a.provider.pipe(Recovery.contextLength()), request), "a answers")
        assert.strictEqual(a.requests.length, 2)
        assert.strictEqual(a.requests[1]!.tools, request.tools)
        const schema = Schema.Struct({ sky: Schema.String.annotate({ description: "worm ".repeat(500) }) })
        const structured = { ...talk(20), responseFormat: { type: "json", objectName: "sky", schema } as const }
        const b = windowed("b", 1400)
        assert.strictEqual(yield* asks(kind, b.provider.pipe(Recovery.contextLength()), structured), "b answers")
        assert.strictEqual(b.requests.length, 2)
      }),
    )

    it.effect("is summarised by the caller's effect, whose calls are calls of their own", () =>
      Effect.gen(function* () {
        const writer = model("writer", () => says("They spoke of sand."))
        const a = windowed("a", 1000)
        const heard = listener()
        const recovered = a.provider.pipe(
          Recovery.contextLength({
            strategy: "keep head and tail",
            summarise: (dropped) =>
              asks("generate", writer.provider, LanguageModelFace.request(`Summarise ${dropped.length} messages`)),
          }),
        )
        assert.strictEqual(yield* heard.effect(asks(kind, recovered, talk(20))), "a answers")
        assert.match(writer.prompts()[0]![0]!, /^user: Summarise \d\d messages$/)
        const sent = shown(a.requests[1]!.prompt)
        assert.match(sent[1]!, /^user: U0/)
        assert.include(sent[3], "They spoke of sand.")
        assert.deepStrictEqual(changes(heard.events), ["a ContextLengthExceeded summarise"])
        assert.strictEqual(new Set(heard.events.map((event) => event.call)).size, 2)
        assertInOrder(heard.events)
      }),
    )

    it.effect("fails as its summary does, and goes without one that does not come before the deadline", () =>
      Effect.gen(function* () {
        const a = windowed("a", 1000)
        const broken = a.provider.pipe(Recovery.contextLength({ summarise: () => Effect.fail("no ink" as const) }))
        assert.strictEqual(failed(yield* Effect.exit(asks(kind, broken, talk(20)))), "no ink")
        const slow = a.provider.pipe(
          Recovery.contextLength({ summarise: () => Effect.as(wait(5000), "late") }),
          Timeouts.deadline({ generate: 1000, stream: 1000 }),
        )
        const late = yield* play(asks(kind, slow, talk(20)))
        assert.deepStrictEqual([said(late.exit), late.millis, late.timers], ["ContextLengthExceeded", 1000, 0])
        assert.strictEqual(a.requests.length, 2)
      }),
    )

    it.effect("is not asked again without attempts left", () =>
      Effect.gen(function* () {
        const a = model("a", () => fails(tooLong("a")))
        let summaries = 0
        const summarise = () => Effect.sync(() => `Summary ${++summaries}`)
        const recovered = Failover.make([a.provider], { maxAttempts: 2 }).pipe(
          Recovery.contextLength({ times: 9, summarise }),
        )
        assert.strictEqual(said(yield* Effect.exit(asks(kind, recovered, talk(20)))), "ContextLengthExceeded")
        // Nor is anything written for a request that is not made.
        assert.deepStrictEqual([a.requests.length, summaries], [2, 1])
      }),
    )

    it.effect("that is short enough then, and fails otherwise, fails with that", () =>
      Effect.gen(function* () {
        for (const tag of ["RateLimited", "Overloaded", "ContentFiltered", "UnknownFailure"] as const) {
          const other = failure(tag)
          const a = model<LlmError.LlmError>("a", (_, attempt) => fails(attempt === 1 ? tooLong("a") : other))
          assert.strictEqual(
            failed(yield* Effect.exit(asks(kind, a.provider.pipe(Recovery.contextLength()), talk(9)))),
            other,
          )
        }
        // What they do not accept may be what we made of it.
        const a = model<LlmError.LlmError>("a", (_, attempt) =>
          fails(attempt === 1 ? tooLong("a") : failure("InvalidRequest")),
        )
        const left = failed(yield* Effect.exit(asks(kind, a.provider.pipe(Recovery.contextLength()), talk(9))))
        assert.deepStrictEqual(
          expectTag("ContextLengthExceeded", left).failures?.map((f) => f._tag),
          ["ContextLengthExceeded", "InvalidRequest"],
        )
        // Around a candidate it leaves no trace of what was repaired.
        const b = model<LlmError.LlmError>("b", (_, attempt) =>
          fails(attempt === 1 ? tooLong("b") : failure("Overloaded", "b")),
        )
        const around = Failover.make([b.provider.pipe(Recovery.contextLength())])
        assert.strictEqual(said(yield* Effect.exit(asks(kind, around, talk(9)))), "AllProvidersFailed")
      }),
    )

    it.effect("leaves every other failure alone", () =>
      Effect.gen(function* () {
        for (const tag of LlmError.tags) {
          if (tag === "ContextLengthExceeded") continue
          const one = failure(tag)
          const a = model<LlmError.LlmError>("a", () => fails(one))
          const recovered = a.provider.pipe(Recovery.contextLength({ window: 100_000 }))
          assert.strictEqual(failed(yield* Effect.exit(asks(kind, recovered, talk(3)))), one)
          assert.strictEqual(a.requests.length, 1)
        }
      }),
    )

    describe("before it is sent", () => {
      const pair = (small: number | undefined, large: number | undefined) => {
        const a = windowed("a", small ?? 1_000_000)
        const b = windowed("b", large ?? 1_000_000)
        const failover = Failover.make([
          { provider: a.provider, contextWindow: small },
          { provider: b.provider, contextWindow: large },
        ])
        return { a, b, failover }
      }

      it.effect("is cut for the largest window, when all windows are known, and it fits into none", () =>
        Effect.gen(function* () {
          const { a, b, failover } = pair(500, 2000)
          const heard = listener()
          const recovered = failover.pipe(Recovery.contextLength())
          assert.strictEqual(yield* heard.effect(asks(kind, recovered, talk(40))), "b answers")
          // The smaller one is passed over, as its window holds not even that.
          assert.deepStrictEqual([a.requests.length, b.requests.length], [0, 1])
          assert.isAtMost(counted(b.requests[0]!), 1500 / 1.1)
          assert.deepStrictEqual(changes(heard.events), ["a | b ContextLengthExceeded drop oldest"])
          assert.deepStrictEqual(heard.names().slice(0, 4), [
            "CallStarted",
            "PromptChanged",
            "PassedOver",
            "AttemptStarted",
          ])
          assertInOrder(heard.events)
        }),
      )

      it.effect("is not touched when it fits, when a window is not known, or when that is switched off", () =>
        Effect.gen(function* () {
          const untouched = (
            { a, b, failover }: ReturnType<typeof pair>,
            request: Request,
            options: Recovery.ContextLengthOptions = {},
          ) =>
            Effect.gen(function* () {
              yield* Effect.exit(asks(kind, failover.pipe(Recovery.contextLength(options)), request))
              assert.strictEqual(a.requests[0] ?? b.requests[0], request)
            })
          yield* untouched(pair(500, 2000), talk(2))
          yield* untouched(pair(500, 2000), talk(8))
          yield* untouched(pair(500, undefined), talk(40))
          yield* untouched(pair(500, 2000), talk(40), { before: false })
          yield* untouched(pair(undefined, undefined), talk(40))
        }),
      )

      it.effect("is cut for the window that is given, whatever the candidates have", () =>
        Effect.gen(function* () {
          const a = windowed("a", 1000)
          const recovered = a.provider.pipe(Recovery.contextLength({ window: 1000 }))
          assert.strictEqual(yield* asks(kind, recovered, talk(20)), "a answers")
          assert.strictEqual(a.requests.length, 1)
        }),
      )

      it.effect("looks at those only that this call may ask", () =>
        Effect.gen(function* () {
          const { a, failover } = pair(1000, 100_000)
          const recovered = failover.pipe(Recovery.contextLength())
          assert.strictEqual(yield* Call.pin("a")(asks(kind, recovered, talk(20))), "a answers")
          assert.strictEqual(a.requests.length, 1)
        }),
      )

      it.effect("is cut less when it is counted exactly", () =>
        Effect.gen(function* () {
          const exact = TokenCounter.make({ name: "exact", exact: true, text: (text) => Effect.runSync(count(text)) })
          const sent = (counter: TokenCounter.TokenCounter, options: Recovery.ContextLengthOptions = {}) =>
            Effect.gen(function* () {
              const a = windowed("a", 4000)
              const recovered = a.provider.pipe(Recovery.contextLength({ window: 4000, reserve: 0, ...options }))
              yield* Effect.provide(asks(kind, recovered, talk(60)), TokenCounter.layer(counter))
              assert.strictEqual(a.requests.length, 1)
              return counted(a.requests[0]!)
            })
          assert.isTrue((yield* sent(exact)) > 3880)
          // Of an image nobody knows, so there is a margin even then.
          const image = Prompt.make([
            { role: "user", content: [{ type: "file", mediaType: "image/png", data: "AAAA" }] },
          ])
          const a = windowed("a", 4000)
          const recovered = a.provider.pipe(Recovery.contextLength({ window: 4000, reserve: 0 }))
          const request = { ...talk(60), prompt: Prompt.concat(talk(60).prompt, image) }
          yield* Effect.provide(asks(kind, recovered, request), TokenCounter.layer(exact))
          assert.isTrue(counted(a.requests[0]!) <= 4000 / 1.1)
          assert.isTrue((yield* sent(TokenCounter.estimate)) <= 4000 / 1.1)
          assert.isTrue((yield* sent(TokenCounter.estimate, { margin: 0 })) > 3880)
          assert.isTrue((yield* sent(TokenCounter.estimate, { margin: 1 })) <= 2000)
        }),
      )

      it.effect("is asked all the same when what must stay seems too long: we may count wrong", () =>
        Effect.gen(function* () {
          const a = windowed("a", 5000)
          const request = LanguageModelFace.request("sand ".repeat(2000))
          const recovered = a.provider.pipe(Recovery.contextLength({ window: 1000 }))
          assert.strictEqual(yield* asks(kind, recovered, request), "a answers")
          assert.strictEqual(a.requests[0], request)
        }),
      )

      it.effect("costs none of the times that it may be asked again", () =>
        Effect.gen(function* () {
          // It counts more than we do.
          const a = windowed("a", 1000, { factor: 2 })
          const recovered = a.provider.pipe(Recovery.contextLength({ window: 1000, times: 1 }))
          assert.strictEqual(yield* asks(kind, recovered, talk(20)), "a answers")
          assert.strictEqual(a.requests.length, 2)
        }),
      )
    })
  })
}

describe("A stream that runs out of its window behind its first content", () => {
  it.effect("is not asked for again", () =>
    Effect.gen(function* () {
      const a = model("a", () =>
        streams(
          Stream.make(start, say("Well"), { type: "error" as const, error: tooLong("a") }).pipe(Stream.rechunk(1)),
        ),
      )
      const left = failed(yield* Effect.exit(asks("stream", a.provider.pipe(Recovery.contextLength()), talk(9))))
      const interrupted = expectTag("StreamInterrupted", left)
      assert.strictEqual(interrupted.failure?._tag, "ContextLengthExceeded")
      assert.strictEqual(a.requests.length, 1)
    }),
  )
})

describe("Both recoveries together", () => {
  it.effect("cut a prompt that a step made longer", () =>
    Effect.gen(function* () {
      const a = model<LlmError.LlmError>("a", (request) =>
        shown(request.prompt)[0]!.includes("content policies")
          ? counted(request) > 1000
            ? fails(tooLong("a", { limit: 1000 }))
            : says("ok")
          : fails(new LlmError.ContentFiltered({ provider: "a", stage: "prompt" })),
      )
      const heard = listener()
      const recovered = Failover.make([a.provider.pipe(Retry.with())]).pipe(
        Recovery.contextLength(),
        Recovery.contentFiltered(),
        Timeouts.deadline(),
      )
      assert.strictEqual((yield* play(heard.effect(asks("generate", recovered, talk(20))))).exit.pipe(said), "ok")
      assert.deepStrictEqual(changes(heard.events), [
        "a ContentFiltered rephrase",
        "a ContextLengthExceeded drop oldest",
      ])
      assertInOrder(heard.events)
    }),
  )
})

describe("Over any conversation and any window", () => {
  for (const kind of kinds) {
    it.effect(`what is sent fits if what must stay does, pairs stay whole, and attempts are few, ${kind}`, () =>
      Effect.gen(function* () {
        const r = random(kind === "generate" ? 51 : 52)
        let cut = 0
        for (let round = 0; round < 250; round++) {
          const prompt = conversation(r)
          const request = { ...LanguageModelFace.request("x"), prompt }
          const whole = counted(request)
          const window = Math.max(40, Math.floor(whole * r.pick([0.2, 0.4, 0.7, 0.95, 1.2])))
          const factor = r.pick([0.6, 0.9, 1, 1.05, 1.4, 2.5])
          const a = windowed("a", window, { factor })
          const times = r.int(1, 4)
          const known = r.chance(0.5)
          const options = { times, reserve: 0, strategy: r.pick(["drop oldest", "keep head and tail"] as const) }
          const recovered = Failover.make([{ provider: a.provider, ...(known ? { contextWindow: window } : {}) }]).pipe(
            Recovery.contextLength(options),
          )
          const heard = listener()
          const exit = yield* Effect.exit(heard.effect(asks(kind, recovered, request)))
          assertInOrder(heard.events)
          assert.isAtMost(a.requests.length, times + 1)
          for (const sent of a.requests) assert.deepStrictEqual(unpaired(sent.prompt, prompt), [])
          // Each is shorter than the one before, and none is asked twice.
          const sizes = a.requests.map(counted)
          for (const [index, size] of sizes.entries()) assert.isTrue(index === 0 || size < sizes[index - 1]!)
          const least = counted({
            ...request,
            prompt: (yield* leastOf(prompt)).prompt,
          })
          if (Exit.isSuccess(exit)) {
            assert.isAtMost(sizes.at(-1)! * factor, window + 1)
            if (sizes.length > 1) cut++
          } else {
            assert.strictEqual(said(exit), "ContextLengthExceeded")
            // With all that it was told, it misses by no more than its margin, and what must stay.
            assert.isTrue(least * factor * 1.1 + 3 * factor > window, `${least} ${factor} ${window}`)
          }
        }
        assert.isAbove(cut, 30)
      }),
    )
  }

  const leastOf = (prompt: Prompt.Prompt) => Truncation.fit(prompt, { limit: 0 })
})
