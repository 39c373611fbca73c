import { assert, describe, it } from "@effect/vitest"
import { Call, Failover, LanguageModelFace, LlmError, Provider, StructuredOutput } from "@understudy/core"
import { Effect, Redacted, Schema, Stream } from "effect"
import { type Prompt, Tool } from "effect/ai"
import { assertInOrder, listener } from "./PolicyEvent.check.ts"
import { expectTag, failure, type LM, play } from "./stub.ts"

type Answer = LanguageModelFace.Answer
type Request = LanguageModelFace.Request

const Order = Schema.Struct({
  item: Schema.String,
  count: Schema.Int,
  note: Schema.optionalKey(Schema.String),
  tags: Schema.optionalKey(Schema.Record(Schema.String, Schema.Int)),
})
const good = '{"item":"tea","count":3}'

const usage = (input: number, output: number) => ({ inputTokens: { total: input }, outputTokens: { total: output } })
const text = (said: string, reason: "stop" | "length" = "stop"): Answer => [
  { type: "text", text: said },
  { type: "finish", reason, usage: usage(10, 5) },
]
const calls = (...all: ReadonlyArray<{ readonly name?: string; readonly params: unknown }>): Answer => [
  ...all.map(({ name = "weather", params }, index) => ({ type: "tool-call" as const, id: `c${index}`, name, params })),
  { type: "finish", reason: "tool-calls", usage: usage(10, 5) },
]

/** A candidate that answers in turn, the last answer over and over, and remembers what it was asked. */
const candidate = (name: string, ...answers: ReadonlyArray<Answer | LlmError.ProviderFailure>) => {
  const asked: Array<{ readonly prompt: Prompt.Prompt; readonly maxTokens: number | undefined }> = []
  const next = (request: Request) =>
    Effect.flatMap(Call.CurrentOverrides, ({ parameters }) => {
      asked.push({ prompt: request.prompt, maxTokens: parameters?.maxTokens })
      const answer = answers[Math.min(asked.length, answers.length) - 1]!
      return LlmError.isLlmError(answer) ? Effect.fail(answer) : Effect.succeed(answer)
    })
  const provider = Provider.make<LM, LlmError.ProviderFailure>({
    name,
    model: `${name}-1`,
    face: LanguageModelFace.languageModelFace,
    generate: next,
    stream: (request) =>
      Stream.unwrap(Effect.map(next(request), (answer) => Stream.fromIterable(LanguageModelFace.streamed(answer)))),
  })
  return { provider, asked }
}

const json: Request = LanguageModelFace.request("Three boxes of tea, please.", {
  responseFormat: { type: "json", objectName: "order", schema: Order },
})

const weather = Tool.make("weather", {
  parameters: Schema.Struct({ city: Schema.String, days: Schema.optionalKey(Schema.Int) }),
})
const withTools: Request = LanguageModelFace.request("Weather in Rome?", { tools: [weather] })

const said = (answer: Answer) => LanguageModelFace.text(answer)
const turns = (prompt: Prompt.Prompt) =>
  prompt.content.map(({ content, role }) => ({
    role,
    text:
      typeof content === "string" ? content : content.map((part) => ("text" in part ? part.text : part.type)).join(""),
  }))

const direct = candidate("direct", text(good)).provider

describe("StructuredOutput", () => {
  describe("of one answer", () => {
    it.effect("asks in all no more often than the composition inside may", () =>
      Effect.gen(function* () {
        const a = candidate("a", text("no JSON"), text("none"), text("still none"), text("nor here"), text(good))
        const twice = Failover.make([a.provider], { maxAttempts: 2 }).pipe(StructuredOutput.with({ attempts: 5 }))
        yield* Effect.flip(twice.generate(json))
        assert.strictEqual(a.asked.length, 2)
      }),
    )

    it.effect("leaves strict JSON as it is, to the last space", () =>
      Effect.gen(function* () {
        const spaced = ` {"count" : 3,\n"item":"tea"} `
        const { provider } = candidate("a", text(spaced))
        assert.strictEqual(said(yield* provider.pipe(StructuredOutput.with()).generate(json)), spaced)
      }),
    )

    it.effect("finds the value in prose and fences, mends it, and gives out plain JSON", () =>
      Effect.gen(function* () {
        const ears = listener()
        const { asked, provider } = candidate(
          "a",
          text("Of course!\n```json\n{'item': 'tea', count: 3,}\n```\nAnything else?"),
        )
        const answer = yield* provider.pipe(StructuredOutput.with()).generate(json).pipe(ears.effect)
        assert.deepStrictEqual(JSON.parse(said(answer)), { item: "tea", count: 3 })
        assert.strictEqual(asked.length, 1)
        assert.deepStrictEqual(ears.names(), [
          "CallStarted",
          "AttemptStarted",
          "AttemptSucceeded",
          "AnswerRepaired",
          "Answered",
        ])
        assertInOrder(ears.events)
      }),
    )

    it.effect("takes a null where a field is optional for an absent one, and nowhere else", () =>
      Effect.gen(function* () {
        const { provider } = candidate("a", text('{"item":"tea","count":3,"note":null}'))
        assert.strictEqual(said(yield* provider.pipe(StructuredOutput.with()).generate(json)), good)
        const other = candidate("a", text('{"item":null,"count":3}'))
        const failed = yield* Effect.flip(other.provider.pipe(StructuredOutput.with({ attempts: 1 })).generate(json))
        const { rejections } = expectTag("InvalidResponse", failed)
        assert.deepStrictEqual(
          rejections?.[0]?.issues.map(({ path }) => path),
          ["$.item"],
        )
      }),
    )

    it.effect("lets requests pass that want neither JSON nor tools", () =>
      Effect.gen(function* () {
        const { provider } = candidate("a", text("{not json"))
        const plain = LanguageModelFace.request("Hello?")
        assert.strictEqual(said(yield* provider.pipe(StructuredOutput.with()).generate(plain)), "{not json")
      }),
    )

    it.effect("completes a cut answer only when told that loss is allowed", () =>
      Effect.gen(function* () {
        const cut = text('{"item":"tea","count":3,"note":"as soon as po', "length")
        const strict = candidate("a", cut)
        const failed = yield* Effect.flip(strict.provider.pipe(StructuredOutput.with()).generate(json))
        assert.strictEqual(expectTag("InvalidResponse", failed).reason, "truncated")
        const lenient = candidate("a", cut)
        const answer = yield* lenient.provider.pipe(StructuredOutput.with({ tier: "loss" })).generate(json)
        assert.deepInclude(JSON.parse(said(answer)), { item: "tea", count: 3 })
      }),
    )

    it.effect("searches no more of an answer than it may, and says so", () =>
      Effect.gen(function* () {
        const { provider } = candidate("a", text(good))
        const judged = provider.pipe(StructuredOutput.with({ limits: { maxBytes: 10 }, attempts: 1 }))
        const failed = yield* Effect.flip(judged.generate(json))
        assert.strictEqual(expectTag("InvalidResponse", failed).reason, "too large")
        assert.include(failed.message, "larger than the limits allow")
      }),
    )

    it.effect("refuses several values that fit when told to, and takes the latest else", () =>
      Effect.gen(function* () {
        const both = text('First {"item":"tea","count":1}, or rather {"item":"tea","count":2}.')
        const latest = candidate("a", both)
        const answer = yield* latest.provider.pipe(StructuredOutput.with()).generate(json)
        assert.deepStrictEqual(JSON.parse(said(answer)), { item: "tea", count: 2 })
        const strict = candidate("a", both)
        const failed = yield* Effect.flip(
          strict.provider.pipe(StructuredOutput.with({ rivals: "refuse", attempts: 1 })).generate(json),
        )
        assert.strictEqual(expectTag("InvalidResponse", failed).reason, "ambiguous")
      }),
    )
  })

  describe("asks again", () => {
    it.effect("with the original messages, the failed answer in its own turn, and paths with expectations", () =>
      Effect.gen(function* () {
        const { asked, provider } = candidate("a", text('Here: {"item":"tea"}'), text(good))
        const answer = yield* provider.pipe(StructuredOutput.with()).generate(json)
        assert.strictEqual(said(answer), good)
        assert.strictEqual(asked.length, 2)
        assert.deepStrictEqual(turns(asked[0]!.prompt), turns(json.prompt))
        const [first, second, third, ...rest] = turns(asked[1]!.prompt)
        assert.deepStrictEqual([first], turns(json.prompt))
        assert.deepStrictEqual(second, {
          role: "assistant",
          text: '<previous_answer>\nHere: {"item":"tea"}\n</previous_answer>',
        })
        assert.strictEqual(third?.role, "user")
        assert.match(
          third?.text ?? "",
          /^The answer above was not accepted\. It does not fit what was asked for:\n- at \$\.count: [^\n]+\nAnswer again/,
        )
        assert.deepStrictEqual(rest, [])
      }),
    )

    it.effect("shows the last failed answer only, so that the prompt does not grow", () =>
      Effect.gen(function* () {
        const { asked, provider } = candidate("a", text("nonsense one"), text('{"item":"two"}'), text(good))
        yield* provider.pipe(StructuredOutput.with()).generate(json)
        const last = turns(asked[2]!.prompt)
        assert.strictEqual(last.length, 3)
        assert.notInclude(JSON.stringify(last), "nonsense one")
        assert.include(JSON.stringify(last), "two")
      }),
    )

    it.effect("names at most ten issues and counts the rest", () =>
      Effect.gen(function* () {
        const Many = Schema.Struct(
          Object.fromEntries(Array.from({ length: 14 }, (_, i) => [`field${i}`, Schema.String])),
        )
        const request = LanguageModelFace.request("All of it.", {
          responseFormat: { type: "json", objectName: "many", schema: Many },
        })
        const { asked, provider } = candidate("a", text("{}"), text("[]"))
        const failed = yield* Effect.flip(provider.pipe(StructuredOutput.with({ attempts: 2 })).generate(request))
        const message = turns(asked[1]!.prompt).at(-1)?.text ?? ""
        assert.strictEqual(message.match(/^- at /gm)?.length, 10)
        assert.include(message, "- and 4 more")
        const [first] = expectTag("InvalidResponse", failed).rejections ?? []
        assert.strictEqual(first?.issues.length, 10)
        assert.strictEqual(first?.more, 4)
      }),
    )

    it.effect("caps the failed answer to its head and tail, and delimits it by a tag that it does not hold", () =>
      Effect.gen(function* () {
        const long = `</previous_answer>HEAD${"x".repeat(10_000)}TAIL`
        const { asked, provider } = candidate("a", text(long), text(good))
        yield* provider.pipe(StructuredOutput.with({ quote: 100 })).generate(json)
        const shown = turns(asked[1]!.prompt)[1]?.text ?? ""
        assert.isBelow(shown.length, 250)
        assert.match(shown, /^<previous_answer_2>\n<\/previous_answer>HEAD/)
        assert.match(shown, /characters left out/)
        assert.match(shown, /TAIL\n<\/previous_answer_2>$/)
      }),
    )

    it.effect("three times in all, and then tells of every answer", () =>
      Effect.gen(function* () {
        const ears = listener()
        const { asked, provider } = candidate("a", text("no"), text('{"item":"tea"}'), text("[1]"), text(good))
        const failed = yield* Effect.flip(provider.pipe(StructuredOutput.with()).generate(json).pipe(ears.effect))
        assert.strictEqual(asked.length, 3)
        const found = expectTag("InvalidResponse", failed)
        assert.strictEqual(found.kind, "content")
        assert.deepStrictEqual(
          found.rejections?.map(({ model, provider: by, reason }) => [by, model, reason]),
          [
            ["a", "a-1", "nothing found"],
            ["a", "a-1", "schema mismatch"],
            ["a", "a-1", "schema mismatch"],
          ],
        )
        assert.deepStrictEqual(found.usage, { inputTokens: 30, outputTokens: 15 })
        assert.match(found.message, /asked 3 times/)
        const rejected = ears.events.filter((event) => event.event === "AnswerRejected")
        assert.deepStrictEqual(
          rejected.map((event) => event.again),
          [true, true, false],
        )
        assertInOrder(ears.events)
      }),
    )

    it.effect("sums the usage of all answers into the one that is given out", () =>
      Effect.gen(function* () {
        const { provider } = candidate("a", text("no"), text(good))
        const answer = yield* provider.pipe(StructuredOutput.with()).generate(json)
        assert.deepInclude(answer, { type: "finish", reason: "stop", usage: usage(20, 10) })
      }),
    )

    it.effect(
      "never sends a truncated answer back, asks for less, and allows twice the length where it is limited",
      () =>
        Effect.gen(function* () {
          const { asked, provider } = candidate(
            "a",
            text('{"item":"tea","count":3,"note":"endless', "length"),
            text(good),
          )
          const judged = provider.pipe(StructuredOutput.with())
          yield* judged.generate(json).pipe(Call.withParameters({ maxTokens: 100 }))
          assert.deepStrictEqual(
            asked.map(({ maxTokens }) => maxTokens),
            [100, 200],
          )
          const again = turns(asked[1]!.prompt)
          assert.deepStrictEqual(
            again.map(({ role }) => role),
            ["user", "user"],
          )
          assert.notInclude(JSON.stringify(again), "endless")
          assert.match(again[1]?.text ?? "", /cut off.*\n?.*as short as it can be/s)
        }),
    )

    it.effect("again when another text without JSON comes, or another cut one, which is allowed ever more", () =>
      Effect.gen(function* () {
        const prose = candidate("a", text("hello there"), text("well, maybe later"), text(good))
        assert.strictEqual(said(yield* prose.provider.pipe(StructuredOutput.with()).generate(json)), good)
        const cut = (n: number) => text(`{"item":"tea","note":"${"x".repeat(n)}`, "length")
        const { asked, provider } = candidate("a", cut(5), cut(9), text(good))
        yield* provider
          .pipe(StructuredOutput.with())
          .generate(json)
          .pipe(Call.withParameters({ maxTokens: 100 }))
        assert.deepStrictEqual(
          asked.map(({ maxTokens }) => maxTokens),
          [100, 200, 400],
        )
      }),
    )

    it.effect("when the model is only polite", () =>
      Effect.gen(function* () {
        for (const polite of [
          "Apologies! Here's the order:\n item: tea",
          "Sorry for the delay, the value is in the next message",
          "I have put the order together for you.",
        ]) {
          const { asked, provider } = candidate("a", text(polite), text(good))
          assert.strictEqual(said(yield* provider.pipe(StructuredOutput.with()).generate(json)), good)
          assert.strictEqual(asked.length, 2)
        }
      }),
    )

    it.effect("not when the model declines in words", () =>
      Effect.gen(function* () {
        for (const declines of [
          "I cannot do that.",
          "I'm unable to process orders.",
          "Unfortunately, I won’t be able to take this order.",
          "Sorry. As a model I must decline to answer.",
        ]) {
          const { asked, provider } = candidate("a", text(declines), text(good))
          yield* Effect.flip(provider.pipe(StructuredOutput.with()).generate(json))
          assert.strictEqual(asked.length, 1, declines)
        }
        const { asked, provider } = candidate("a", text("I'm sorry, but I can't help with that."), text(good))
        const failed = yield* Effect.flip(provider.pipe(StructuredOutput.with()).generate(json))
        assert.strictEqual(expectTag("InvalidResponse", failed).reason, "refusal")
        assert.strictEqual(asked.length, 1)
      }),
    )

    it.effect("not when the same text or the same issues come twice", () =>
      Effect.gen(function* () {
        for (const answers of [
          [text("no"), text("no")],
          [text('{"item":"tea"}'), text('{"item":"coffee"}')],
        ]) {
          const { asked, provider } = candidate("a", ...answers, text(good))
          const failed = yield* Effect.flip(provider.pipe(StructuredOutput.with({ attempts: 5 })).generate(json))
          assert.strictEqual(failed._tag, "InvalidResponse")
          assert.strictEqual(asked.length, 2)
        }
      }),
    )

    it.effect("not beyond the token budget, but keeps a paid answer that fits", () =>
      Effect.gen(function* () {
        const dear = candidate("a", text("no"), text("nope"), text(good))
        const failed = yield* Effect.flip(dear.provider.pipe(StructuredOutput.with({ tokenBudget: 30 })).generate(json))
        assert.strictEqual(failed._tag, "InvalidResponse")
        assert.strictEqual(dear.asked.length, 2)
        const fits = candidate("a", text("no"), text(good))
        const answer = yield* fits.provider.pipe(StructuredOutput.with({ tokenBudget: 20 })).generate(json)
        assert.strictEqual(said(answer), good)
      }),
    )

    it.effect("not after the call's deadline", () =>
      Effect.gen(function* () {
        const { asked, provider } = candidate("a", text("no"), text(good))
        const judged = provider.pipe(StructuredOutput.with({ onInvalid: () => Effect.sleep("2 seconds") }))
        const { exit } = yield* play(Effect.flip(judged.generate(json).pipe(Call.withDeadline("1 second"))))
        assert.strictEqual(exit._tag, "Success")
        assert.strictEqual(asked.length, 1)
      }),
    )
  })

  describe("among candidates", () => {
    it.effect("asks the one again that answered, and keeps one answer for another that is ready", () =>
      Effect.gen(function* () {
        const a = candidate("a", text("no"), text('{"item":"tea"}'), text("[]"))
        const b = candidate("b", text(good))
        const both = Failover.make([a.provider, b.provider]).pipe(StructuredOutput.with())
        const answer = yield* both.generate(json)
        assert.strictEqual(said(answer), good)
        assert.deepStrictEqual([a.asked.length, b.asked.length], [2, 1])
        assert.deepStrictEqual(turns(b.asked[0]!.prompt), turns(json.prompt))
      }),
    )

    it.effect("passes over one that says the same twice, and one that declines", () =>
      Effect.gen(function* () {
        for (const first of [[text("no"), text("no")], [text("I cannot do that.")]]) {
          const a = candidate("a", ...first)
          const b = candidate("b", text(good))
          const both = Failover.make([a.provider, b.provider]).pipe(StructuredOutput.with({ attempts: 5 }))
          assert.strictEqual(said(yield* both.generate(json)), good)
          assert.strictEqual(a.asked.length, first.length)
        }
      }),
    )

    it.effect("stays with the candidate that was failed over to", () =>
      Effect.gen(function* () {
        const a = candidate("a", failure("ProviderUnavailable"), text(good))
        const b = candidate("b", text("no"), text(good))
        const both = Failover.make([a.provider, b.provider]).pipe(StructuredOutput.with())
        yield* both.generate(json)
        assert.deepStrictEqual([a.asked.length, b.asked.length], [1, 2])
      }),
    )

    it.effect("goes to another when the one that answered fails on being asked again", () =>
      Effect.gen(function* () {
        const a = candidate("a", text("no"), failure("ProviderUnavailable"))
        const b = candidate("b", text(good))
        const both = Failover.make([a.provider, b.provider]).pipe(StructuredOutput.with({ attempts: 4 }))
        assert.strictEqual(said(yield* both.generate(json)), good)
        assert.deepStrictEqual([a.asked.length, b.asked.length], [2, 1])
      }),
    )

    it.effect("tells of the answers, and not of the longer prompt, when that prompt does not fit any more", () =>
      Effect.gen(function* () {
        const a = candidate("a", text("no"), failure("ContextLengthExceeded"))
        const failed = yield* Effect.flip(a.provider.pipe(StructuredOutput.with()).generate(json))
        assert.strictEqual(expectTag("InvalidResponse", failed).rejections?.length, 1)
      }),
    )

    it.effect("judges who answers in the place of one that judges for itself and failed", () =>
      Effect.gen(function* () {
        for (const first of [failure("ProviderUnavailable"), text("no")]) {
          const a = candidate("a", first)
          const b = candidate("b", text("garbage"), text("still garbage"), text(good))
          const inner = Failover.make([a.provider.pipe(StructuredOutput.with()), b.provider])
          const answer = yield* inner.pipe(StructuredOutput.with({ attempts: 4 })).generate(json)
          assert.strictEqual(said(answer), good)
        }
      }),
    )

    it.effect("tells of the answers before it, when the asking itself fails at last", () =>
      Effect.gen(function* () {
        const a = candidate("a", text("no"), text("[1]"))
        const b = candidate("b", failure("ProviderUnavailable"))
        const both = Failover.make([a.provider, b.provider]).pipe(StructuredOutput.with())
        const failed = expectTag("AllProvidersFailed", yield* Effect.flip(both.generate(json)))
        assert.deepStrictEqual(
          failed.failures.map(({ _tag }) => _tag),
          ["InvalidResponse", "ProviderUnavailable"],
        )
        assert.strictEqual(expectTag("InvalidResponse", failed.failures[0]).rejections?.length, 2)
      }),
    )

    it.effect("leaves the candidates of the next question alone", () =>
      Effect.gen(function* () {
        const a = candidate("a", text("no"), text("no"), text(good))
        const b = candidate("b", text(good))
        const both = Failover.make([a.provider, b.provider]).pipe(StructuredOutput.with())
        yield* both.generate(json)
        yield* both.generate(json)
        assert.deepStrictEqual([a.asked.length, b.asked.length], [3, 1])
      }),
    )
  })

  describe("of tool calls", () => {
    it.effect("lets arguments pass that fit, untouched", () =>
      Effect.gen(function* () {
        const answer = calls({ params: { city: "Rome" } })
        const { provider } = candidate("a", answer)
        assert.strictEqual(yield* provider.pipe(StructuredOutput.with()).generate(withTools), answer)
      }),
    )

    it.effect("mends arguments that are text, and leaves out nulls of optional fields", () =>
      Effect.gen(function* () {
        const { asked, provider } = candidate(
          "a",
          calls({ params: "{'city': 'Rome',}" }, { params: { city: "Oslo", days: null } }),
        )
        const answer = yield* provider.pipe(StructuredOutput.with()).generate(withTools)
        assert.deepStrictEqual(
          answer.flatMap((part) => (part.type === "tool-call" ? [part.params] : [])),
          [{ city: "Rome" }, { city: "Oslo" }],
        )
        assert.strictEqual(asked.length, 1)
      }),
    )

    it.effect("answers wrong calls with error results, and every call beside them with one", () =>
      Effect.gen(function* () {
        const { asked, provider } = candidate(
          "a",
          calls({ params: { city: 7 } }, { params: { city: "Oslo" } }, { name: "wether", params: {} }),
          calls({ params: { city: "Rome" } }),
        )
        yield* provider.pipe(StructuredOutput.with()).generate(withTools)
        const [, assistant, tool] = asked[1]!.prompt.content
        assert.strictEqual(assistant?.role, "assistant")
        assert.strictEqual(tool?.role, "tool")
        const results = tool?.role === "tool" ? tool.content : []
        assert.deepStrictEqual(
          results.map((part) => (part.type === "tool-result" ? [part.id, part.name, part.isFailure] : [])),
          [
            ["c0", "weather", true],
            ["c1", "weather", true],
            ["c2", "wether", true],
          ],
        )
        const texts = results.map((part) => (part.type === "tool-result" ? String(part.result) : ""))
        assert.match(texts[0] ?? "", /at \$\.city: /)
        assert.match(texts[1] ?? "", /^Not run, since another call/)
        assert.match(texts[2] ?? "", /one of the tools that exist: weather/)
      }),
    )

    it.effect("that were cut off are allowed more, asked for shorter, and not shown", () =>
      Effect.gen(function* () {
        const cut: Answer = [
          { type: "tool-call", id: "c0", name: "weather", params: { town: "endless" } },
          { type: "finish", reason: "length", usage: usage(10, 5) },
        ]
        const { asked, provider } = candidate("a", cut, calls({ params: { city: "Rome" } }))
        yield* provider
          .pipe(StructuredOutput.with())
          .generate(withTools)
          .pipe(Call.withParameters({ maxTokens: 100 }))
        assert.deepStrictEqual(
          asked.map(({ maxTokens }) => maxTokens),
          [100, 200],
        )
        const again = JSON.stringify(asked[1]!.prompt.content.slice(1))
        assert.include(again, "as short as they can be")
        assert.notInclude(again, "endless")
      }),
    )

    it.effect("are left alone when told so", () =>
      Effect.gen(function* () {
        const { provider } = candidate("a", calls({ params: "{" }))
        const answer = yield* provider.pipe(StructuredOutput.with({ tools: false })).generate(withTools)
        assert.deepInclude(answer, { type: "tool-call", id: "c0", name: "weather", params: "{" })
      }),
    )
  })

  describe("of streams", () => {
    it.effect("lets them pass as they come", () =>
      Effect.gen(function* () {
        const { provider } = candidate("a", text("no"), text(good))
        const parts = yield* Stream.runCollect(provider.pipe(StructuredOutput.with()).stream(json))
        assert.strictEqual(said(LanguageModelFace.collected(parts)), "no")
      }),
    )

    it.effect("judges those that the caller holds to their end", () =>
      Effect.gen(function* () {
        const { asked, provider } = candidate("a", text("no"), text(`Sure: ${good}`))
        const judged = provider.pipe(StructuredOutput.with({ holdStreams: true }))
        const parts = yield* Stream.runCollect(judged.stream(json))
        assert.strictEqual(said(LanguageModelFace.collected(parts)), good)
        assert.strictEqual(parts.at(-1)?.type, "finish")
        assert.strictEqual(asked.length, 2)
      }),
    )
  })

  describe("observed", () => {
    it.effect("tells of each refused answer with its number, and of its text only on purpose", () =>
      Effect.gen(function* () {
        const heard: Array<StructuredOutput.Rejected> = []
        const { provider } = candidate("a", text("SECRET"), text(good))
        yield* provider
          .pipe(StructuredOutput.with({ onInvalid: (rejected) => void heard.push(rejected) }))
          .generate(json)
        assert.strictEqual(heard.length, 1)
        assert.deepInclude(heard[0], { provider: "a", model: "a-1", reason: "nothing found", attempt: 1, again: true })
        assert.notInclude(JSON.stringify(heard), "SECRET")
        assert.strictEqual(Redacted.value(heard[0]!.text), "SECRET")
      }),
    )

    it.effect("is not changed by an observer that throws or dies", () =>
      Effect.gen(function* () {
        const observers: ReadonlyArray<() => Effect.Effect<void>> = [
          () => {
            throw new Error("no")
          },
          () => Effect.die("no"),
        ]
        for (const onInvalid of observers) {
          const { provider } = candidate("a", text("no"), text(good))
          const answer = yield* provider.pipe(StructuredOutput.with({ onInvalid })).generate(json)
          assert.strictEqual(said(answer), good)
        }
      }),
    )

    it.effect("shows no value and no key of the model's own in failures and re-prompts", () =>
      Effect.gen(function* () {
        const planted = '{"item":"sk-value","count":"sk-count","tags":{"sk-key":"sk-tag"}}'
        const { asked, provider } = candidate("a", text(planted), text("no"))
        const failed = yield* Effect.flip(provider.pipe(StructuredOutput.with({ attempts: 2 })).generate(json))
        assert.notMatch(`${failed.message} ${JSON.stringify(failed)}`, /sk-/)
        assert.notMatch(turns(asked[1]!.prompt).at(-1)?.text ?? "", /sk-/)
        assert.match(turns(asked[1]!.prompt)[1]?.text ?? "", /sk-value/)
      }),
    )
  })

  describe("for one question", () => {
    const ask = (
      provider: Provider.Provider<LM, LlmError.ProviderFailure>,
      options: Partial<StructuredOutput.Options> = {},
    ) => StructuredOutput.generate(provider, { prompt: "Three boxes of tea, please.", schema: Order, ...options })

    it.effect("gives the decoded value with how it was come by", () =>
      Effect.gen(function* () {
        const { provider } = candidate("a", text("no"), text('{"item":"tea","count":3,}'))
        const { complete, rejections, repairs, usage: spent, value } = yield* ask(provider)
        assert.deepStrictEqual(value, { item: "tea", count: 3 })
        assert.deepStrictEqual(
          repairs.map(({ kind }) => kind),
          ["trailing comma"],
        )
        assert.deepStrictEqual(
          rejections.map(({ reason }) => reason),
          ["nothing found"],
        )
        assert.deepStrictEqual(spent, { inputTokens: 20, outputTokens: 10 })
        assert.isTrue(complete)
      }),
    )

    it.effect("decodes transformations once, and gives the JSON as the answer", () =>
      Effect.gen(function* () {
        const When = Schema.Struct({ at: Schema.DateTimeUtcFromString })
        const { provider } = candidate("a", text('Then: {"at":"2026-01-02T03:04:05.000Z"}'))
        const { answer, value } = yield* StructuredOutput.generate(provider, { prompt: "When?", schema: When })
        assert.strictEqual(value.at.epochMilliseconds, Date.UTC(2026, 0, 2, 3, 4, 5))
        assert.strictEqual(said(answer), '{"at":"2026-01-02T03:04:05.000Z"}')
      }),
    )

    it.effect("writes the schema into the prompt when asked to", () =>
      Effect.gen(function* () {
        const { asked, provider } = candidate("a", text(good))
        yield* StructuredOutput.generate(provider, { prompt: "Tea.", schema: Order, instructions: true })
        const [system] = turns(asked[0]!.prompt)
        assert.strictEqual(system?.role, "system")
        assert.match(system?.text ?? "", /"count"/)
      }),
    )

    it.effect("asks again for what a check has against the value, and tells it which answer it sees", () =>
      Effect.gen(function* () {
        const seen: Array<StructuredOutput.Asked> = []
        const { asked, provider } = candidate(
          "a",
          text('{"item":"tea","count":30}'),
          text('{"item":"tea","count":20}'),
          text(good),
        )
        const { value } = yield* StructuredOutput.generate(provider, {
          prompt: "Tea.",
          schema: Order,
          checks: [
            {
              name: "in stock",
              run: ({ count }, which) => {
                seen.push(which)
                return count <= 10 ? [] : { path: ["count"], expected: `at most ${10 + seen.length}` }
              },
            },
          ],
        })
        assert.strictEqual(value.count, 3)
        assert.deepStrictEqual(seen, [
          { attempt: 1, last: false },
          { attempt: 2, last: false },
          { attempt: 3, last: true },
        ])
        assert.match(turns(asked[1]!.prompt).at(-1)?.text ?? "", /- at \$\.count: at most 11/)
      }),
    )

    it.effect("drops, fixes or accepts what a check has something against", () =>
      Effect.gen(function* () {
        const List = Schema.Struct({ items: Schema.Array(Schema.Int), note: Schema.optionalKey(Schema.String) })
        type List = typeof List.Type
        const ears = listener()
        const { asked, provider } = candidate("a", text('{"items":[1,-2,3,-4],"note":"  hm "}'))
        const { answer, value, warnings } = yield* StructuredOutput.generate(provider, {
          prompt: "Numbers.",
          schema: List,
          checks: [
            StructuredOutput.check(
              "positive",
              ({ items }: List) =>
                items.flatMap((n, i) => (n < 0 ? [{ path: ["items", i], expected: "a positive number" }] : [])),
              "drop",
            ),
            StructuredOutput.check("polite", () => Effect.succeed("a greeting"), "accept"),
            StructuredOutput.check(
              "trimmed",
              ({ note }: List) => (note === note?.trim() ? [] : "a trimmed note"),
              (list: List): Effect.Effect<List> => Effect.succeed({ ...list, note: list.note?.trim() ?? "" }),
            ),
          ],
        }).pipe(ears.effect)
        assert.deepStrictEqual(value, { items: [1, 3], note: "hm" })
        assert.deepStrictEqual(JSON.parse(said(answer)), { items: [1, 3], note: "hm" })
        assert.deepStrictEqual(
          warnings.map(({ check }) => check),
          ["positive", "polite", "trimmed"],
        )
        assert.deepStrictEqual(
          ears.events.flatMap((event) => (event.event === "AnswerDoubted" ? [event.check] : [])),
          ["positive", "polite", "trimmed"],
        )
        assertInOrder(ears.events)
        assert.strictEqual(asked.length, 1)
      }),
    )

    it.effect("asks again when what is left after a drop does not fit the schema", () =>
      Effect.gen(function* () {
        const { asked, provider } = candidate("a", text('{"item":"","count":3}'), text(good))
        const { value } = yield* StructuredOutput.generate(provider, {
          prompt: "Tea.",
          schema: Order,
          checks: [
            StructuredOutput.check(
              "named",
              ({ item }: typeof Order.Type) => (item === "" ? [{ path: ["item"], expected: "a name" }] : []),
              "drop",
            ),
          ],
        })
        assert.strictEqual(value.item, "tea")
        assert.strictEqual(asked.length, 2)
      }),
    )

    it.effect("fails as a check fails", () =>
      Effect.gen(function* () {
        const { asked, provider } = candidate("a", text(good))
        const failed = yield* Effect.flip(
          StructuredOutput.generate(provider, {
            prompt: "Tea.",
            schema: Order,
            checks: [StructuredOutput.check("asks a database", () => Effect.fail("down" as const))],
          }),
        )
        assert.strictEqual(failed, "down")
        assert.strictEqual(asked.length, 1)
      }),
    )

    it.effect("asks three times in all, also where the provider judges for itself", () =>
      Effect.gen(function* () {
        const { asked, provider } = candidate("a", text("1"), text("two"), text("[3]"), text("4"), text("5"))
        const failed = yield* Effect.flip(ask(provider.pipe(StructuredOutput.with()) as typeof provider))
        assert.strictEqual(failed._tag, "InvalidResponse")
        assert.strictEqual(asked.length, 3)
      }),
    )

    it.effect("is one call, whatever it takes", () =>
      Effect.gen(function* () {
        const ears = listener()
        const { provider } = candidate("a", text("no"), text(good))
        yield* ask(provider).pipe(ears.effect)
        assert.deepStrictEqual(ears.names(), [
          "CallStarted",
          "AttemptStarted",
          "AttemptSucceeded",
          "AnswerRejected",
          "AttemptStarted",
          "AttemptSucceeded",
          "Answered",
        ])
        assertInOrder(ears.events)
      }),
    )
  })

  describe("while it comes", () => {
    const growing = (...deltas: ReadonlyArray<string>) =>
      Provider.make<LM>({
        name: "a",
        model: "a-1",
        face: LanguageModelFace.languageModelFace,
        generate: () => Effect.die("a stream was asked for"),
        stream: () =>
          Stream.fromIterable<LanguageModelFace.Part>([
            { type: "text-start", id: "0" },
            ...deltas.map((delta) => ({ type: "text-delta" as const, id: "0", delta })),
            { type: "text-end", id: "0" },
            { type: "finish", reason: "stop", usage: usage(1, 1) },
          ]).pipe(Stream.rechunk(1)),
      })

    it.effect("gives what is there, and at last the whole, decoded", () =>
      Effect.gen(function* () {
        const provider = growing("Sure: ", '{"item":"t', 'ea","count":', "3", "}", " Bye.")
        const seen: Array<unknown> = []
        yield* StructuredOutput.stream(provider, { prompt: "Tea.", schema: Order }).pipe(
          Stream.runForEach((progress) =>
            Effect.sync(() =>
              seen.push(
                progress._tag === "Partial"
                  ? JSON.parse(JSON.stringify(progress.value ?? null))
                  : progress.extraction.value,
              ),
            ),
          ),
        )
        assert.deepStrictEqual(seen.slice(0, 2), [{ item: "t" }, { item: "tea" }])
        assert.deepStrictEqual(seen.at(-1), { item: "tea", count: 3 })
      }),
    )

    it.effect("fails when the whole does not fit, without asking again", () =>
      Effect.gen(function* () {
        const provider = growing('{"item":"tea"}')
        const failed = yield* Effect.flip(
          Stream.runDrain(StructuredOutput.stream(provider, { prompt: "Tea.", schema: Order })),
        )
        const { reason, rejections } = expectTag("InvalidResponse", failed)
        assert.strictEqual(reason, "schema mismatch")
        assert.deepStrictEqual(
          rejections?.[0]?.issues.map(({ path }) => path),
          ["$.count"],
        )
      }),
    )
  })

  it("tells bad options at the door", () => {
    assert.throws(() => StructuredOutput.with({ attempts: 0 }), /attempts/)
    assert.throws(() => StructuredOutput.generate(direct, { prompt: "", schema: Order, quote: -1 }), /quote/)
  })
})
