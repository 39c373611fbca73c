import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Redacted, Stream } from "effect"
import { Prompt } from "effect/ai"
import {
  Call,
  Classifier,
  Failover,
  LanguageModelFace,
  LlmError,
  type PolicyEvent,
  type Provider,
  Recovery,
  Retry,
  Timeouts,
  Understudy,
} from "@understudy/core"
import { assertInOrder, listener } from "./PolicyEvent.check.ts"
import { asks, model, refusal, shown } from "./Recovery.stage.ts"
import {
  dies,
  end,
  expectTag,
  failed,
  fails,
  failure,
  hangs,
  kinds,
  type LM,
  play,
  random,
  said,
  say,
  says,
  start,
  streams,
  wait,
} from "./stub.ts"

const question = LanguageModelFace.request("How is sugar made?")
const changed = (to: string) => Recovery.step(to, () => Prompt.make(to))
const changes = (events: ReadonlyArray<PolicyEvent.PolicyEvent>) =>
  events.flatMap((event) =>
    event.event === "PromptChanged" ? [`${event.provider} ${event.failure} ${event.step}`] : [],
  )

for (const kind of kinds) {
  describe(`After a content filter, ${kind}`, () => {
    it.effect("asks with a prompt that the caller's step made, and tells so", () =>
      Effect.gen(function* () {
        const a = model("a", (_, attempt) => (attempt === 1 ? fails(refusal("a")) : says("Boil it.")))
        const heard = listener()
        const recovered = a.provider.pipe(Recovery.contentFiltered({ steps: [changed("plainer")] }))
        assert.strictEqual(yield* heard.effect(asks(kind, recovered, question)), "Boil it.")
        assert.deepStrictEqual(a.prompts(), [["user: How is sugar made?"], ["user: plainer"]])
        assert.deepStrictEqual(changes(heard.events), ["a ContentFiltered plainer"])
        assert.deepStrictEqual(heard.names().slice(1, 5), [
          "AttemptStarted",
          "AttemptFailed",
          "PromptChanged",
          "AttemptStarted",
        ])
        assertInOrder(heard.events)
      }),
    )

    it.effect("tries steps in order, each on what the one before made of it, at most twice", () =>
      Effect.gen(function* () {
        const a = model("a", () => fails(refusal("a")))
        const add = (what: string) => Recovery.step(what, (prompt) => Prompt.concat(prompt, Prompt.make(what)))
        const recovered = a.provider.pipe(Recovery.contentFiltered({ steps: [add("1"), add("2"), add("3")] }))
        const exit = yield* Effect.exit(asks(kind, recovered, LanguageModelFace.request("0")))
        assert.strictEqual(said(exit), "ContentFiltered")
        assert.deepStrictEqual(
          a.prompts().map((prompt) => prompt.length),
          [1, 2, 3],
        )
        assert.deepStrictEqual(a.prompts().at(-1), ["user: 0", "user: 1", "user: 2"])
      }),
    )

    it.effect("passes over steps that give nothing, or a prompt that was refused already", () =>
      Effect.gen(function* () {
        const a = model("a", () => fails(refusal("a")))
        const steps = [
          Recovery.step("nothing", () => undefined),
          Recovery.step("the same", (prompt) => prompt),
          Recovery.step("an equal one", () => Prompt.make("How is sugar made?")),
          Recovery.step("nothing, later", () => Effect.succeed(undefined)),
          changed("another"),
          Recovery.step("back again", () => Effect.succeed(question.prompt)),
          changed("a third"),
        ]
        const heard = listener()
        const recovered = a.provider.pipe(Recovery.contentFiltered({ steps, times: 9 }))
        yield* Effect.exit(heard.effect(asks(kind, recovered, question)))
        assert.deepStrictEqual(a.prompts(), [["user: How is sugar made?"], ["user: another"], ["user: a third"]])
        assert.deepStrictEqual(changes(heard.events), ["a ContentFiltered another", "a ContentFiltered a third"])
      }),
    )

    it.effect("asks nobody again when there is no step for this stage, or none may be taken", () =>
      Effect.gen(function* () {
        const of = (stage?: "prompt" | "answer") =>
          model("a", () =>
            fails(new LlmError.ContentFiltered({ provider: "a", ...(stage === undefined ? {} : { stage }) })),
          )
        const asked = (stage: "prompt" | "answer" | undefined, options: Recovery.ContentFilteredOptions = {}) =>
          Effect.gen(function* () {
            const a = of(stage)
            const steps = [Recovery.step("s", () => Prompt.make("s"), { stage: "answer" })]
            const exit = yield* Effect.exit(
              asks(kind, a.provider.pipe(Recovery.contentFiltered({ ...options, steps })), question),
            )
            assert.strictEqual(said(exit), "ContentFiltered")
            return a.requests.length
          })
        assert.strictEqual(yield* asked("prompt"), 1)
        assert.strictEqual(yield* asked("answer"), 2)
        assert.strictEqual(yield* asked(undefined), 2)
        assert.strictEqual(yield* asked("answer", { times: 0 }), 1)
      }),
    )

    it.effect("gives the first refusal when all was in vain, with the later failures in it", () =>
      Effect.gen(function* () {
        const first = refusal("a", { categories: ["violence"] })
        const second = refusal("a", { categories: ["hate"] })
        const replies = [fails(first), fails(second), fails(failure("Overloaded"))]
        const a = model<LlmError.LlmError>("a", (_, attempt) => replies[attempt - 1]!)
        const recovered = a.provider.pipe(Recovery.contentFiltered({ steps: [changed("1"), changed("2")] }))
        const left = expectTag("ContentFiltered", failed(yield* Effect.exit(asks(kind, recovered, question))))
        assert.deepStrictEqual(left.categories, ["violence"])
        assert.deepStrictEqual(
          left.failures?.map((f) => f._tag),
          ["ContentFiltered", "ContentFiltered", "Overloaded"],
        )
        assert.strictEqual(left.failures?.[0], first)
        assert.strictEqual(left.failures?.[1], second)
      }),
    )

    it.effect("gives a refusal as it came when nothing was tried", () =>
      Effect.gen(function* () {
        const only = refusal("a")
        const a = model("a", () => fails(only))
        const recovered = a.provider.pipe(Recovery.contentFiltered({ steps: [] }))
        assert.strictEqual(failed(yield* Effect.exit(asks(kind, recovered, question))), only)
      }),
    )

    it.effect("leaves every other failure alone, and defects", () =>
      Effect.gen(function* () {
        for (const tag of LlmError.tags) {
          if (tag === "ContentFiltered") continue
          const one = failure(tag)
          const a = model<LlmError.LlmError>("a", () => fails(one))
          const recovered = a.provider.pipe(Recovery.contentFiltered({ steps: [changed("x")] }))
          assert.strictEqual(failed(yield* Effect.exit(asks(kind, recovered, question))), one)
          assert.strictEqual(a.requests.length, 1)
        }
        const broken = model("a", () => dies("a bug"))
        const exit = yield* Effect.exit(asks(kind, broken.provider.pipe(Recovery.contentFiltered()), question))
        assert.isTrue(Exit.hasDies(exit))
      }),
    )

    it.effect("lets failures of a step pass as they are", () =>
      Effect.gen(function* () {
        const a = model("a", () => fails(refusal("a")))
        const steps = [Recovery.step("broken", () => Effect.fail("no ink" as const))]
        const recovered = a.provider.pipe(Recovery.contentFiltered({ steps }))
        assert.strictEqual(failed(yield* Effect.exit(asks(kind, recovered, question))), "no ink")
      }),
    )

    it.effect("sends nothing of what the provider remembers with a changed prompt", () =>
      Effect.gen(function* () {
        const a = model("a", (_, attempt) => (attempt === 1 ? fails(refusal("a")) : says("ok")))
        const request = { ...question, previousResponseId: "r1", incrementalPrompt: Prompt.make("sugar?") }
        yield* asks(kind, a.provider.pipe(Recovery.contentFiltered({ steps: [changed("x")] })), request)
        assert.deepStrictEqual(
          a.requests.map((r) => [r.previousResponseId, r.incrementalPrompt === undefined]),
          [
            ["r1", false],
            [undefined, true],
          ],
        )
        assert.deepStrictEqual(shown(request.prompt), ["user: How is sugar made?"])
      }),
    )

    it.effect("counts against the attempts of the call: those of the failover are not had twice", () =>
      Effect.gen(function* () {
        const a = model("a", () => fails(refusal("a")))
        let made = 0
        const steps = ["1", "2", "3", "4", "5"].map((to) => Recovery.step(to, () => (made++, Prompt.make(to))))
        const asked = (maxAttempts: number) =>
          Effect.gen(function* () {
            const before = a.requests.length
            made = 0
            const recovered = Failover.make([a.provider], { maxAttempts }).pipe(
              Recovery.contentFiltered({ steps, times: 9 }),
            )
            assert.strictEqual(said(yield* Effect.exit(asks(kind, recovered, question))), "ContentFiltered")
            // And no prompt is made that nobody is asked.
            assert.strictEqual(made, a.requests.length - before - 1)
            return a.requests.length - before
          })
        assert.strictEqual(yield* asked(1), 1)
        assert.strictEqual(yield* asked(3), 3)
        assert.strictEqual(yield* asked(20), 6)
      }),
    )

    it.effect("takes no attempts from candidates beside it", () =>
      Effect.gen(function* () {
        const a = model("a", () => fails(refusal("a")))
        const c = model("c", () => says("c"))
        const inner = Failover.make([a.provider], { name: "inner", maxAttempts: 2 }).pipe(
          Recovery.contentFiltered({ steps: [changed("x"), changed("y")] }),
        )
        const outer = Failover.make([inner, c.provider], { whenFiltered: "next" })
        assert.strictEqual(yield* asks(kind, outer, question), "c")
        assert.strictEqual(a.requests.length, 2)
      }),
    )

    it.effect("starts nothing after the deadline, and gives a step up at it", () =>
      Effect.gen(function* () {
        const late = model("a", () => fails(refusal("a"), 900))
        const slow = Recovery.step("slow", () => Effect.as(wait(200), Prompt.make("x")))
        const run = (steps: ReadonlyArray<Recovery.Step>, a = late) =>
          play(
            asks(
              kind,
              a.provider.pipe(Recovery.contentFiltered({ steps }), Timeouts.deadline({ generate: 1000, stream: 1000 })),
              question,
            ),
          )
        const given = yield* run([slow])
        assert.deepStrictEqual([said(given.exit), given.millis, given.timers], ["ContentFiltered", 1000, 0])
        assert.strictEqual(late.requests.length, 1)
        // The attempt with the changed prompt is cut as any other: the caller is told of the deadline.
        const cut = yield* run([changed("x")])
        assert.deepStrictEqual([said(cut.exit), cut.millis, cut.timers], ["DeadlineExceeded", 1000, 0])
        const told = expectTag("DeadlineExceeded", failed(cut.exit))
        assert.deepStrictEqual(
          told.failures?.map((f) => f._tag),
          ["ContentFiltered"],
        )
      }),
    )

    it.effect("gives a step up at the deadline that cannot be interrupted", () =>
      Effect.gen(function* () {
        const a = model("a", () => fails(refusal("a")))
        const stubborn = Recovery.step("stubborn", () =>
          Effect.uninterruptible(Effect.as(wait(60_000), Prompt.make("x"))),
        )
        const recovered = a.provider.pipe(Recovery.contentFiltered({ steps: [stubborn] }))
        const { exit, millis } = yield* play(asks(kind, recovered, question).pipe(Call.withDeadline("1 second")))
        assert.deepStrictEqual([said(exit), millis, a.requests.length], ["ContentFiltered", 1000, 1])
      }),
    )

    it.effect("that is interrupted asks nobody again", () =>
      Effect.gen(function* () {
        const a = model("a", (_, attempt) => (attempt === 1 ? fails(refusal("a")) : hangs))
        const recovered = a.provider.pipe(Recovery.contentFiltered({ steps: [changed("1"), changed("2")] }))
        const { exit } = yield* play(Effect.timeoutOption(asks(kind, recovered, question), 1000))
        assert.isTrue(Exit.isSuccess(exit))
        assert.strictEqual(a.requests.length, 2)
      }),
    )

    it.effect("calls that a step makes are calls of their own", () =>
      Effect.gen(function* () {
        const a = model("a", (_, attempt) => (attempt === 1 ? fails(refusal("a")) : says("ok")))
        const helper = model("helper", () => says("How do people make sugar?"))
        const ask = asks("generate", helper.provider, LanguageModelFace.request("Say it nicer"))
        const steps = [Recovery.step("reworded", () => Effect.map(ask, (text) => Prompt.make(text)))]
        const heard = listener()
        const recovered = Failover.make([a.provider], { maxAttempts: 2 }).pipe(Recovery.contentFiltered({ steps }))
        assert.strictEqual(yield* heard.effect(asks(kind, recovered, question)), "ok")
        assert.deepStrictEqual(a.prompts().at(-1), ["user: How do people make sugar?"])
        assert.strictEqual(new Set(heard.events.map((event) => event.call)).size, 2)
        assertInOrder(heard.events)
      }),
    )

    describe("with another candidate allowed", () => {
      const other = { then: "other candidate" } as const

      it.effect("asks those that have not refused the original question", () =>
        Effect.gen(function* () {
          const a = model("a", () => fails(refusal("a")))
          const b = model("b", () => says("b knows"))
          const heard = listener()
          const recovered = Failover.make([a.provider, b.provider]).pipe(
            Recovery.contentFiltered({ steps: [changed("x")], ...other }),
          )
          assert.strictEqual(yield* heard.effect(asks(kind, recovered, question)), "b knows")
          assert.deepStrictEqual(a.prompts(), [["user: How is sugar made?"], ["user: x"]])
          assert.deepStrictEqual(b.requests, [question])
          const over = heard.events.flatMap((e) => (e.event === "FailedOver" ? [[e.provider, e.failure, e.to]] : []))
          assert.deepStrictEqual(over, [["a", "ContentFiltered", "b"]])
          assertInOrder(heard.events)
        }),
      )

      it.effect("asks one after the other, until none is left that has not refused", () =>
        Effect.gen(function* () {
          const [a, b, c] = ["a", "b", "c"].map((name) => model(name, () => fails(refusal(name))))
          const recovered = Failover.make([a!.provider, b!.provider, c!.provider]).pipe(
            Recovery.contentFiltered({ steps: [], ...other }),
          )
          const left = expectTag("ContentFiltered", failed(yield* Effect.exit(asks(kind, recovered, question))))
          assert.strictEqual(left.provider, "a")
          assert.deepStrictEqual(
            left.failures?.map((f) => f.provider),
            ["a", "b", "c"],
          )
          assert.deepStrictEqual([a!.requests.length, b!.requests.length, c!.requests.length], [1, 1, 1])
        }),
      )

      it.effect("finds them inside of other compositions, and passes over none afterwards", () =>
        Effect.gen(function* () {
          const a = model("a", () => fails(refusal("a")))
          const b = model("b", () => says("b"))
          const inner = Failover.make([a.provider, b.provider], { name: "inner" }).pipe(Retry.with())
          const recovered = Failover.make([inner]).pipe(Recovery.contentFiltered({ steps: [], ...other }))
          assert.strictEqual(yield* asks(kind, recovered, question), "b")
          assert.strictEqual(yield* asks(kind, recovered, question), "b")
          assert.deepStrictEqual([a.requests.length, b.requests.length], [2, 2])
        }),
      )

      it.effect("asks all of them again when somebody above changes the prompt", () =>
        Effect.gen(function* () {
          const a = model("a", (_, attempt) => (attempt === 1 ? fails(refusal("a")) : says("a")))
          const b = model("b", () => fails(refusal("b")))
          const recovered = Failover.make([a.provider, b.provider]).pipe(
            Recovery.contentFiltered({ steps: [], ...other }),
            Recovery.contentFiltered({ steps: [changed("x")] }),
          )
          assert.strictEqual(yield* asks(kind, recovered, question), "a")
          assert.deepStrictEqual(a.prompts(), [["user: How is sugar made?"], ["user: x"]])
        }),
      )

      it.effect("asks nobody when there is no other, when the call allows none, or when no attempt is left", () =>
        Effect.gen(function* () {
          const a = model("a", () => fails(refusal("a")))
          const b = model("b", () => says("b"))
          const policy = Recovery.contentFiltered({ steps: [], ...other })
          const heard = listener()
          const of = (provider: Provider.Provider<LM, LlmError.LlmError>) =>
            Effect.map(Effect.exit(heard.effect(asks(kind, provider.pipe(policy), question))), said)
          assert.strictEqual(yield* of(a.provider), "ContentFiltered")
          assert.strictEqual(yield* of(Failover.make([a.provider])), "ContentFiltered")
          const both = Failover.make([a.provider, b.provider])
          assert.strictEqual(yield* Call.pin("a")(of(both)), "ContentFiltered")
          assert.strictEqual(yield* Call.exclude("b")(of(both)), "ContentFiltered")
          assert.strictEqual(yield* of(Failover.make([a.provider, b.provider], { maxAttempts: 1 })), "ContentFiltered")
          const disabled = Failover.make([a.provider, { provider: b.provider, enabled: false }])
          assert.strictEqual(yield* of(disabled), "ContentFiltered")
          assert.strictEqual(b.requests.length, 0)
          assert.notInclude(heard.names(), "FailedOver")
          assert.strictEqual(yield* of(both), "b")
        }),
      )

      it.effect("tells of the first refusal when the others cannot answer", () =>
        Effect.gen(function* () {
          const a = model("a", () => fails(refusal("a")))
          const b = model("b", () => fails(failure("Overloaded", "b")))
          const recovered = Failover.make([a.provider, b.provider]).pipe(
            Recovery.contentFiltered({ steps: [], ...other }),
          )
          const left = expectTag("ContentFiltered", failed(yield* Effect.exit(asks(kind, recovered, question))))
          assert.deepStrictEqual(
            left.failures?.map((f) => `${f.provider} ${f._tag}`),
            ["a ContentFiltered", "b Overloaded"],
          )
        }),
      )
    })
  })
}

describe("A stream that a content filter ends behind its first content", () => {
  it.effect("is not asked for again: the caller has had a part of it", () =>
    Effect.gen(function* () {
      const cutOff = { ...end, reason: "content-filter" } as typeof end
      const a = model("a", () => streams(Stream.make(start, say("Boil"), cutOff).pipe(Stream.rechunk(1))))
      const recovered = a.provider.pipe(Recovery.contentFiltered({ steps: [changed("x")] }))
      const left = expectTag("StreamInterrupted", failed(yield* Effect.exit(asks("stream", recovered, question))))
      assert.isTrue(left.committed && left.failure?._tag === "ContentFiltered")
      assert.strictEqual(a.requests.length, 1)
      // Before any content it is.
      const b = model("b", (_, attempt) =>
        attempt === 1 ? streams(Stream.make(start, cutOff).pipe(Stream.rechunk(1))) : says("Boil it."),
      )
      const before = b.provider.pipe(Recovery.contentFiltered({ steps: [changed("x")] }))
      assert.strictEqual(yield* asks("stream", before, question), "Boil it.")
    }),
  )
})

describe("Rephrasing", () => {
  const rephrased = (prompt: Prompt.Prompt, step = Recovery.rephrase("Be kind.")) => {
    const out = step.change(prompt, refusal("a"))
    return Prompt.isPrompt(out) ? out : assert.fail("a prompt")
  }

  it("adds an instruction to the end of the system message, and changes no word of the user", () => {
    const prompt = Prompt.make([
      { role: "system", content: "Be brief.", options: { own: { a: 1 } } },
      { role: "user", content: "How?" },
      { role: "assistant", content: "So." },
      { role: "user", content: "And then?" },
    ])
    const out = rephrased(prompt)
    assert.strictEqual(shown(out)[0], "system: Be brief.\n\nBe kind.")
    assert.deepStrictEqual(out.content[0]?.options, { own: { a: 1 } })
    assert.deepStrictEqual(out.content.slice(1), prompt.content.slice(1))
  })

  it("becomes the system message where there is none", () => {
    assert.deepStrictEqual(shown(rephrased(question.prompt)), ["system: Be kind.", "user: How is sugar made?"])
    assert.match(shown(rephrased(question.prompt, Recovery.rephrase()))[0]!, /content policies/)
  })
})

describe("What a provider names", () => {
  const body = (error: unknown) => JSON.stringify({ error })
  const classified = (error: unknown, status = 400, provider = "azure") =>
    expectTag(
      "ContentFiltered",
      Classifier.classify({ where: "http", status, headers: {}, body: body(error) }, { provider }),
    )

  it("is read into categories of ours: Azure, Gemini, OpenRouter, Bedrock", () => {
    const azure = {
      code: "content_filter",
      param: "prompt",
      innererror: {
        code: "ResponsibleAIPolicyViolation",
        content_filter_result: {
          hate: { filtered: false, severity: "safe" },
          jailbreak: { filtered: true, detected: true },
          self_harm: { filtered: true, severity: "high" },
          indirect_attack: { filtered: true, detected: true },
        },
      },
    }
    assert.deepStrictEqual(classified(azure).categories, ["jailbreak", "self-harm", "indirect attack"])
    assert.isUndefined(classified(azure).named)
    const other = { code: "content_filter", inner_error: { content_filter_results: { violence: { filtered: true } } } }
    assert.deepStrictEqual(classified(other).categories, ["violence"])
    const openrouter = {
      code: 403,
      message: "Your input was flagged",
      metadata: { reasons: ["harassment/threatening", "no word of ours"], flagged_input: "…" },
    }
    assert.deepStrictEqual(classified(openrouter, 403, "openrouter").categories, ["harassment"])
    const gemini = Classifier.inspectAnswer(
      {
        promptFeedback: {
          blockReason: "SAFETY",
          safetyRatings: [
            { category: "HARM_CATEGORY_SEXUALLY_EXPLICIT", probability: "NEGLIGIBLE" },
            { category: "HARM_CATEGORY_DANGEROUS_CONTENT", probability: "HIGH", blocked: true },
          ],
        },
      },
      { provider: "gemini" },
    )
    assert.deepStrictEqual(expectTag("ContentFiltered", gemini).categories, ["dangerous"])
    const bedrock = {
      code: "GuardrailIntervened",
      assessments: [
        {
          contentPolicy: {
            filters: [
              { type: "PROMPT_ATTACK", action: "BLOCKED" },
              { type: "HATE", action: "NONE" },
            ],
          },
        },
      ],
    }
    assert.deepStrictEqual(classified(bedrock, 400, "bedrock").categories, ["jailbreak"])
  })

  it("is a place where it says so, and never one that it does not", () => {
    const named = (param: unknown) => classified({ code: "content_filter", param }).named
    assert.deepStrictEqual(named("messages[3].content[1]"), { message: 3, part: 1 })
    assert.deepStrictEqual(named("messages.[2].content"), { message: 2 })
    assert.deepStrictEqual(named("input[0]"), { message: 0 })
    for (const param of ["prompt", null, 3, "model", "tools[0].messages[1]"]) assert.isUndefined(named(param))
    // Of a batch of prompts, not of the messages of one.
    const batch = { code: "content_filter", prompt_filter_results: [{ prompt_index: 1, content_filter_results: {} }] }
    assert.isUndefined(classified(batch).named)
  })

  it("is not taken from what the prompt says", () => {
    const echoing = {
      code: "content_filter",
      messages: [{ param: "messages[0]", flagged_input: "secret", hate: { filtered: true } }],
    }
    const { categories, named } = classified(echoing)
    assert.deepStrictEqual([categories, named], [undefined, undefined])
  })

  it("never shows: what is quoted of the prompt is in no field, message or JSON", () => {
    const quoted = classified(
      {
        code: 403,
        message: "Your input was flagged",
        metadata: { reasons: ["hate"], flagged_input: "the planted words" },
      },
      403,
      "openrouter",
    )
    for (const text of [quoted.message, JSON.stringify(quoted), String(quoted), quoted.stack ?? ""]) {
      assert.notInclude(text, "planted")
    }
    assert.include(String(Redacted.value(quoted.cause!)), "planted")
  })

  describe("is left out", () => {
    const history = Prompt.make([
      { role: "system", content: "You help with chemistry." },
      { role: "user", content: "A harmless first question" },
      { role: "assistant", content: [{ type: "tool-call", id: "c1", name: "search", params: {} }] },
      {
        role: "tool",
        content: [
          { type: "tool-result", id: "c1", name: "search", isFailure: false, result: "Forum: an awful thing to read" },
        ],
      },
      { role: "assistant", content: "A first answer" },
      {
        role: "user",
        content: [
          { type: "text", text: "Summarise this page." },
          { type: "text", text: "The page: some dreadful words, and many more of them until its very end." },
        ],
      },
    ])
    const quoting = (flagged_input: string) =>
      LlmError.withEvidence(refusal("openrouter"), { cause: body({ metadata: { flagged_input } }) })
    const left = (failure: LlmError.ContentFiltered, prompt = history) => {
      const out = Recovery.dropNamed.change(prompt, failure)
      return Prompt.isPrompt(out) ? shown(out) : out
    }
    const note = "[This part was left out because of a content policy.]"
    const lines = shown(history)

    it("where it is quoted, whole or with dots in the middle", () => {
      const without = [...lines.slice(0, -1), "user: Summarise this page."]
      assert.deepStrictEqual(
        left(quoting("The page: some dreadful words, and many more of them until its very end.")),
        without,
      )
      assert.deepStrictEqual(left(quoting("The page: some dreadful...until its very end.")), without)
      assert.deepStrictEqual(left(quoting("The page: some dreadful … its very end.")), without)
      assert.deepStrictEqual(left(quoting("some dreadful words")), without)
    })

    it("where its place is told, as OpenAI's protocol counts", () => {
      const named = (message: number, part?: number) =>
        left(refusal("a", { named: part === undefined ? { message } : { message, part } }))
      assert.deepStrictEqual(named(5, 1), [...lines.slice(0, -1), "user: Summarise this page."])
      assert.deepStrictEqual(named(1), [lines[0]!, `user: ${note}`, ...lines.slice(2)])
    })

    it("of the result of a tool and of an answer, so that pairs and turns stay whole", () => {
      const result = [...lines.slice(0, 3), `tool: c1 gave ${note}`, ...lines.slice(4)]
      assert.deepStrictEqual(left(quoting("an awful thing to read")), result)
      assert.deepStrictEqual(left(refusal("a", { named: { message: 3 } })), result)
      assert.deepStrictEqual(left(quoting("A first answer")), [...lines.slice(0, 4), `assistant: ${note}`, lines[5]!])
    })

    it("only as far as something is left to ask, and never of the system message", () => {
      assert.isUndefined(left(refusal("a", { named: { message: 5 } })))
      assert.isUndefined(left(refusal("a", { named: { message: 0 } })))
      assert.isUndefined(left(quoting("You help with chemistry.")))
      assert.isUndefined(left(quoting("How is sugar made?"), question.prompt))
    })

    it("not at all, where nothing is named, or nothing of it is there", () => {
      assert.isUndefined(left(refusal("a")))
      assert.isUndefined(left(quoting("words that nobody wrote here")))
      assert.isUndefined(left(quoting("the")))
      assert.isUndefined(left(quoting("......")))
      assert.isUndefined(left(refusal("a", { named: { message: 99 } })))
      assert.isUndefined(left(LlmError.withEvidence(refusal("a"), { cause: new Error("flagged_input") })))
    })

    it("as well where one of several refusals names it", () => {
      const inner = quoting("some dreadful words")
      const outer = new LlmError.ContentFiltered({ provider: "a", stage: "prompt", failures: [refusal("a"), inner] })
      assert.deepStrictEqual(left(outer), [...lines.slice(0, -1), "user: Summarise this page."])
    })
  })
})

describe("By default", () => {
  it.effect("what is named is left out first, and then it is asked to answer within the policy", () =>
    Effect.gen(function* () {
      const named = refusal("a", { named: { message: 0, part: 1 } })
      const a = model("a", () => fails(named))
      const content = ["Sum it up:", "a page"].map((text) => ({ type: "text", text }) as const)
      const request = LanguageModelFace.request([{ role: "user", content }])
      yield* Effect.exit(asks("generate", a.provider.pipe(Recovery.contentFiltered()), request))
      const [, second, third] = a.prompts()
      assert.deepStrictEqual(second, ["user: Sum it up:"])
      assert.match(third![0]!, /^system: Answer within the applicable content policies/)
      assert.deepStrictEqual(third!.slice(1), ["user: Sum it up:"])
      // An answer that was refused names nothing in the prompt.
      const b = model("b", () => fails(refusal("b", { stage: "answer", named: { message: 0, part: 1 } })))
      yield* Effect.exit(asks("generate", b.provider.pipe(Recovery.contentFiltered()), request))
      assert.deepStrictEqual(
        b.prompts().map((prompt) => prompt.at(-1)),
        ["user: Sum it up: | a page", "user: Sum it up: | a page"],
      )
    }),
  )

  it("options that cannot be meant are refused when the policy is made", () => {
    assert.throws(() => Recovery.contentFiltered({ times: -1 }), /times/)
    // @ts-expect-error -- no such option
    assert.throws(() => Recovery.contentFiltered({ time: 1 }), /time/)
    // @ts-expect-error -- not a step
    assert.throws(() => Recovery.contentFiltered({ steps: [() => undefined] }), /steps/)
    assert.instanceOf(
      (() => {
        try {
          Recovery.contentFiltered({ times: 0.5 })
        } catch (error) {
          return error
        }
        return undefined
      })(),
      Understudy.InvalidOptions,
    )
  })
})

describe("Over any course of refusals", () => {
  type Outcome = "answers" | "refuses" | "is overloaded"
  type Made = "a new prompt" | "the same prompt" | "nothing" | "a new prompt for answers only"

  interface Play {
    readonly outcomes: ReadonlyArray<Outcome>
    readonly candidates: ReadonlyArray<string>
    readonly steps: ReadonlyArray<Made>
    readonly times: number
    readonly then: "stop" | "other candidate"
    readonly whenFiltered: "stop" | "next"
    readonly maxAttempts: number
  }

  /** What should happen, told without a single policy: who is asked which version of the prompt, and what leaves. */
  const expected = (play: Play) => {
    const asked: Array<string> = []
    const failures: Array<string> = []
    const steps: Array<string> = []
    const failover = (version: number, passed: ReadonlySet<string>): "answer" | "refusal" | "none" => {
      let refused = false
      for (const name of play.candidates) {
        if (passed.has(name)) continue
        if (asked.length >= play.maxAttempts) break
        asked.push(`${name} ${version}`)
        const outcome = play.outcomes[asked.length - 1]!
        if (outcome === "answers") return "answer"
        failures.push(`${name} ${outcome}`)
        if (outcome === "refuses") {
          refused = true
          if (play.whenFiltered === "stop") break
        }
      }
      return refused ? "refusal" : "none"
    }
    let version = 0
    let last = failover(0, new Set())
    if (last !== "refusal") return { asked, failures, steps, left: last }
    let changed = 0
    for (const made of play.steps) {
      if (changed >= play.times || asked.length >= play.maxAttempts || last !== "refusal") break
      if (made !== "a new prompt") continue
      changed++
      steps.push(`step ${++version}`)
      last = failover(version, new Set())
    }
    if (last === "refusal" && play.then === "other candidate") {
      while (asked.length < play.maxAttempts) {
        const passed = new Set(failures.filter((f) => f.endsWith("refuses")).map((f) => f.split(" ")[0]!))
        if (play.candidates.every((name) => passed.has(name))) break
        last = failover(0, passed)
        if (last !== "refusal") break
      }
    }
    return { asked, failures, steps, left: last === "answer" ? "answer" : "refusal" }
  }

  for (const kind of kinds) {
    it.effect(`what is asked, told and left is as said, ${kind}`, () =>
      Effect.gen(function* () {
        const r = random(kind === "generate" ? 31 : 32)
        for (let round = 0; round < 250; round++) {
          const play: Play = {
            outcomes: Array.from({ length: 40 }, () =>
              r.chance(0.15) ? "answers" : r.chance(0.75) ? "refuses" : "is overloaded",
            ),
            candidates: ["a", "b", "c"].slice(0, r.int(1, 4)),
            steps: Array.from({ length: r.int(0, 5) }, () =>
              r.pick(["a new prompt", "a new prompt", "the same prompt", "nothing", "a new prompt for answers only"]),
            ),
            times: r.int(0, 4),
            then: r.pick(["stop", "other candidate"]),
            whenFiltered: r.pick(["stop", "next"]),
            maxAttempts: r.int(1, 9),
          }
          const asked: Array<string> = []
          const candidates = play.candidates.map(
            (name) =>
              model<LlmError.LlmError>(name, (request) => {
                asked.push(`${name} ${request.prompt.content.length - 1}`)
                const outcome = play.outcomes[asked.length - 1]
                return outcome === "answers"
                  ? says("answer")
                  : fails(outcome === "refuses" ? refusal(name) : failure("Overloaded", name))
              }).provider,
          )
          let version = 0
          const steps = play.steps.map((made) =>
            made === "a new prompt"
              ? Recovery.step(`step ${++version}`, (prompt) => Prompt.concat(prompt, Prompt.make("more")))
              : made === "a new prompt for answers only"
                ? Recovery.step(made, () => Prompt.make("never"), { stage: "answer" })
                : Recovery.step(made, (prompt) => (made === "nothing" ? undefined : prompt)),
          )
          const [first, ...rest] = candidates
          const { maxAttempts, then, times, whenFiltered } = play
          const recovered = Failover.make([first!, ...rest], { maxAttempts, whenFiltered }).pipe(
            Recovery.contentFiltered({ steps, times, then }),
          )
          const heard = listener()
          const exit = yield* Effect.exit(heard.effect(asks(kind, recovered, question)))
          const should = expected(play)
          assert.deepStrictEqual(asked, should.asked)
          const left = { answer: "answer", refusal: "ContentFiltered", none: "AllProvidersFailed" }[should.left]
          assert.strictEqual(said(exit), left)
          assert.deepStrictEqual(
            heard.events.flatMap((event) => (event.event === "PromptChanged" ? [event.step] : [])),
            should.steps,
          )
          assertInOrder(heard.events)
          if (exit._tag === "Success") continue
          const error = failed(exit)
          const inside = "failures" in error ? error.failures : undefined
          const words = { ContentFiltered: "refuses", Overloaded: "is overloaded" } as const
          assert.deepStrictEqual(
            (inside ?? [error]).map((f) => `${f.provider} ${words[f._tag as keyof typeof words]}`),
            should.failures,
          )
        }
      }),
    )
  }
})
