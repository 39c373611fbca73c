import { assert, describe, it } from "@effect/vitest"
import { Cause, type Duration, Effect, Exit, Fiber, Layer, Metric, Schema, Scope, Stream } from "effect"
import { Chat, LanguageModel, type Prompt, Tool } from "effect/ai"
import { TestClock } from "effect/testing"
import {
  AiFailure,
  AnswerCache,
  Call,
  Degradation,
  Failover,
  LanguageModelFace,
  LanguageModelLayer,
  type LlmError,
  Origin,
  Provider,
  Retry,
  Understudy,
} from "@understudy/core"
import { assertInOrder, listener } from "./PolicyEvent.check.ts"
import {
  ask,
  dies,
  end,
  expectTag,
  face,
  failed,
  fails,
  failure,
  Foreign,
  hangs,
  inTurn,
  type Kind,
  kinds,
  type LM,
  openIn,
  play,
  question,
  said,
  say,
  says,
  settle,
  start,
  streams,
  stub,
  textOf,
} from "./stub.ts"

/** An answer of a ladder in one line: its source, and its text. */
const told = <S extends Degradation.Source, E, R>(
  kind: Kind,
  ladder: Degradation.Ladder<LM, S, E, R>,
  request = question,
): Effect.Effect<string, E | LlmError.StreamInterrupted, R> =>
  kind === "generate"
    ? Effect.map(ladder.ask(request), ({ answer, source }) => `${source}: ${textOf(answer)}`)
    : Effect.scoped(
        Effect.flatMap(ladder.askStream(request), ({ source, stream }) =>
          Effect.map(Stream.runCollect(stream), (parts) => `${source}: ${textOf(parts)}`),
        ),
      )

/** The parts of an answer, or of a stream. */
const parts = <E, R>(
  kind: Kind,
  provider: Provider.Provider<LM, E, R>,
): Effect.Effect<
  ReadonlyArray<LanguageModelFace.Answer[number] | LanguageModelFace.Part>,
  E | LlmError.StreamInterrupted,
  R
> => (kind === "generate" ? provider.generate(question) : Stream.runCollect(provider.stream(question)))

const later = (duration: Duration.Input) => TestClock.adjust(duration)
const played = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.flatMap(play(self), ({ exit }) => exit)
const overloaded = (name: string) => fails(failure("Overloaded", name))

/** A provider that remembers the prompts that it was asked with, as text. */
const scribe = (name: string) => {
  const prompts: Array<string> = []
  const written = (prompt: Prompt.Prompt): string =>
    prompt.content
      .map(({ content, role }) => {
        const text =
          typeof content === "string" ? content : content.map((part) => ("text" in part ? part.text : "")).join("")
        return `${role}: ${text}`
      })
      .join("\n")
  const provider = Provider.make<LM>({
    name,
    model: `${name}-1`,
    face,
    generate: ({ prompt }) => {
      prompts.push(written(prompt))
      return says(`by ${name}`).whole
    },
    stream: ({ prompt }) => {
      prompts.push(written(prompt))
      return says(`by ${name}`).parts
    },
  })
  return { provider, prompts }
}

describe("A degradation ladder", () => {
  for (const kind of kinds) {
    describe(`(${kind})`, () => {
      it.effect("steps down rung by rung, and says where the answer came from", () =>
        Effect.gen(function* () {
          const down = { primary: false, model: false, simplified: false }
          const rung = (name: keyof typeof down) =>
            stub(name, () => (down[name] ? overloaded(name) : says(`by ${name}`))).provider
          const ladder = Degradation.make([
            Degradation.primary(rung("primary")),
            Degradation.cache({ scope: "everyone", timeToLive: "10 minutes" }),
            Degradation.model(rung("model")),
            Degradation.simplified(rung("simplified"), "Briefly: {prompt}"),
            Degradation.stale({ maxAge: "1 hour" }),
            Degradation.fallback("We will be back."),
          ])
          assert.deepStrictEqual(ladder.sources, ["primary", "cache", "model", "simplified", "stale", "fallback"])
          const next = played(told(kind, ladder))

          assert.strictEqual(yield* next, "primary: by primary")
          down.primary = true
          assert.strictEqual(yield* next, "cache: by primary")
          yield* later("10 minutes")
          assert.strictEqual(yield* next, "model: by model")
          down.model = true
          assert.strictEqual(yield* next, "simplified: by simplified")
          down.simplified = true
          assert.strictEqual(yield* next, "stale: by primary")
          yield* later("50 minutes")
          assert.strictEqual(yield* next, "fallback: We will be back.")
        }).pipe(Effect.provide(AnswerCache.layerMemory())),
      )

      it.effect("has the order that was declared", () =>
        Effect.gen(function* () {
          const model = stub("model", () => says("by model"))
          const make = (lead: Provider.Provider<LM, LlmError.ProviderFailure>) =>
            [
              Degradation.make([
                Degradation.primary(lead),
                Degradation.model(model.provider),
                Degradation.cache({ scope: "everyone" }),
              ]),
              Degradation.make([
                Degradation.primary(lead),
                Degradation.cache({ scope: "everyone" }),
                Degradation.model(model.provider),
              ]),
            ] as const
          const lead = stub("lead", inTurn(says("by lead"), overloaded("lead")))
          const [modelFirst, cacheFirst] = make(lead.provider)
          yield* played(told(kind, modelFirst))
          assert.strictEqual(yield* played(told(kind, modelFirst)), "model: by model")
          assert.strictEqual(yield* played(told(kind, cacheFirst)), "cache: by lead")
        }).pipe(Effect.provide(AnswerCache.layerMemory())),
      )

      it.effect("with a cache before its primary gives what is fresh without an attempt", () =>
        Effect.gen(function* () {
          const lead = stub("lead", (attempt) => says(`answer ${attempt}`))
          const ladder = Degradation.make([
            Degradation.cache({ scope: "everyone", timeToLive: "1 minute" }),
            Degradation.primary(lead.provider),
          ])
          const next = played(told(kind, ladder))
          assert.strictEqual(yield* next, "primary: answer 1")
          assert.strictEqual(yield* next, "cache: answer 1")
          assert.strictEqual(lead.asked.length, 1)
          yield* later("1 minute")
          assert.strictEqual(yield* next, "primary: answer 2")
          assert.strictEqual(yield* next, "cache: answer 2")
          assert.strictEqual(lead.asked.length, 2)
        }).pipe(Effect.provide(AnswerCache.layerMemory())),
      )

      it.effect("tells each step down, the source and who answered, in the order of the call", () =>
        Effect.gen(function* () {
          const lead = stub("lead", inTurn(says("Herbert."), overloaded("lead")))
          const cheap = stub("cheap", () => fails(failure("RateLimited", "cheap")))
          const ladder = Degradation.make([
            Degradation.primary(lead.provider),
            Degradation.cache({ scope: "everyone", timeToLive: "1 minute" }),
            Degradation.model(cheap.provider),
            Degradation.stale(),
          ])
          const heard = listener()
          yield* heard.effect(played(told(kind, ladder)))
          yield* later("2 minutes")
          yield* heard.effect(played(told(kind, ladder)))
          assertInOrder(heard.events)
          const steps = heard.events.filter(
            ({ event }) => event === "Degraded" || event === "CacheRead" || event === "CacheWritten",
          )
          assert.deepStrictEqual(
            steps.map(({ at: _at, call: _call, ...step }) => step),
            [
              { event: "CacheWritten", provider: "lead" },
              { event: "Degraded", provider: "lead", failure: "Overloaded", to: "cache" },
              { event: "CacheRead", provider: "lead", found: "stale", ageMs: 120_000 },
              { event: "Degraded", provider: "lead", failure: "Overloaded", to: "model" },
              { event: "Degraded", provider: "lead", failure: "RateLimited", to: "stale" },
            ],
          )
          const answers = heard.events.flatMap((event) => (event.event === "Answered" ? [event] : []))
          assert.deepStrictEqual(
            answers.map(({ attempts, model, provider, source, text }) => ({ attempts, model, provider, source, text })),
            [
              { attempts: 1, model: "lead-1", provider: "lead", source: "primary", text: "Herbert." },
              { attempts: 2, model: "lead-1", provider: "lead", source: "stale", text: "Herbert." },
            ],
          )
        }).pipe(Effect.provide(AnswerCache.layerMemory())),
      )

      it.effect("marks every answer with its source, provider and model", () =>
        Effect.gen(function* () {
          const lead = stub("lead", inTurn(says("Herbert."), overloaded("lead")))
          const ladder = Degradation.make(
            [
              Degradation.primary(lead.provider),
              Degradation.cache({ scope: "everyone" }),
              Degradation.fallback("We will be back."),
            ],
            { name: "support" },
          )
          const marks = Effect.map(played(parts(kind, ladder)), (all) => [
            Degradation.sourceOf(all),
            Origin.ofAnswer(all),
            textOf(all),
          ])
          const lead1 = { provider: "lead", model: "lead-1" }
          assert.deepStrictEqual(yield* marks, ["primary", { ...lead1, source: "primary" }, "Herbert."])
          assert.deepStrictEqual(yield* marks, ["cache", { ...lead1, source: "cache" }, "Herbert."])
          yield* later("10 minutes")
          assert.deepStrictEqual(yield* marks, [
            "fallback",
            { provider: "support", model: "none", source: "fallback" },
            "We will be back.",
          ])
          assert.isUndefined(Degradation.sourceOf([end]))
        }).pipe(Effect.provide(AnswerCache.layerMemory())),
      )

      it.effect("fails as its primary did when no rung answers: the very instance", () =>
        Effect.gen(function* () {
          const original = failure("Overloaded", "lead")
          const ladder = Degradation.make([
            Degradation.primary(stub("lead", () => fails(original)).provider),
            Degradation.model(stub("cheap", () => fails(failure("InvalidRequest", "cheap"))).provider),
            Degradation.stale({ scope: "everyone" }),
          ])
          const heard = listener()
          const { exit } = yield* play(heard.effect(told(kind, ladder)))
          assert.strictEqual(failed(exit), original)
          assert.deepStrictEqual(
            heard.events.flatMap((event) => (event.event === "CallFailed" ? [event.failure] : [])),
            ["Overloaded"],
          )
          // The others are on record for whoever is above.
          const { exit: above } = yield* play(ask(kind, Failover.make([ladder])))
          assert.deepStrictEqual(
            expectTag("AllProvidersFailed", failed(above)).failures.map(({ _tag }) => _tag),
            ["InvalidRequest", "Overloaded"],
          )
        }).pipe(Effect.provide(AnswerCache.layerMemory())),
      )

      it.effect("does not catch an InvalidRequest of the primary, unless it catches everything", () =>
        Effect.gen(function* () {
          const lead = stub("lead", () => fails(failure("InvalidRequest", "lead")))
          const rungs = [Degradation.primary(lead.provider), Degradation.fallback("Hm.")] as const
          assert.strictEqual(said((yield* play(told(kind, Degradation.make(rungs)))).exit), "InvalidRequest")
          const everything = Degradation.make(rungs, Degradation.everything)
          assert.strictEqual(yield* played(told(kind, everything)), "fallback: Hm.")
        }),
      )

      it.effect(
        "passes failures that are no LlmError, of the primary and of those below, unless it catches everything",
        () =>
          Effect.gen(function* () {
            const foreign = new Foreign("mine")
            const odd = stub("odd", () => fails(foreign)).provider
            const lead = stub("lead", () => overloaded("lead")).provider
            const rungs = [
              Degradation.primary(odd),
              Degradation.fallback((failure: unknown) => (failure instanceof Foreign ? "Odd." : "Hm.")),
            ] as const
            assert.strictEqual(failed((yield* play(told(kind, Degradation.make(rungs)))).exit), foreign)
            const everything = Degradation.make(rungs, Degradation.everything)
            assert.strictEqual(yield* played(told(kind, everything)), "fallback: Odd.")
            const below = [
              Degradation.primary(lead),
              Degradation.model(odd),
              Degradation.fallback((failure: unknown) => (failure instanceof Foreign ? "Odd." : "Hm.")),
            ] as const
            assert.strictEqual(failed((yield* play(told(kind, Degradation.make(below)))).exit), foreign)
            const heard = listener()
            const all = heard.effect(told(kind, Degradation.make(below, Degradation.everything)))
            assert.strictEqual(yield* played(all), "fallback: Hm.")
            assert.deepStrictEqual(
              heard.events.flatMap((event) => (event.event === "Degraded" ? [`${event.failure} > ${event.to}`] : [])),
              ["Overloaded > model", "Foreign > fallback"],
            )
          }),
      )

      it.effect("never catches a defect", () =>
        Effect.gen(function* () {
          const boom = new Error("boom")
          const broken = stub("broken", () => dies(boom)).provider
          const lead = stub("lead", () => overloaded("lead")).provider
          const ladders = [
            Degradation.make([Degradation.primary(broken), Degradation.fallback("Hm.")], Degradation.everything),
            Degradation.make(
              [Degradation.primary(lead), Degradation.model(broken), Degradation.fallback("Hm.")],
              Degradation.everything,
            ),
          ]
          for (const ladder of ladders) {
            const { exit } = yield* play(ask(kind, ladder))
            assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
          }
        }),
      )

      it.effect("interrupts what it is asking when its caller leaves, and steps no further", () =>
        Effect.gen(function* () {
          for (const hanging of ["lead", "cheap"]) {
            const lead = stub("lead", () => (hanging === "lead" ? hangs : overloaded("lead")))
            const cheap = stub("cheap", () => hangs)
            const ladder = Degradation.make([
              Degradation.primary(lead.provider),
              Degradation.model(cheap.provider),
              Degradation.fallback("Hm."),
            ])
            const heard = listener()
            const fiber = yield* Effect.forkChild(heard.effect(told(kind, ladder)))
            yield* settle
            assert.strictEqual(lead.running() + cheap.running(), 1)
            yield* Fiber.interrupt(fiber)
            assert.strictEqual(lead.running() + cheap.running(), 0)
            assert.strictEqual(cheap.asked.length, hanging === "lead" ? 0 : 1)
            assertInOrder(heard.events)
            assert.strictEqual(heard.events.at(-1)?.event, "CallInterrupted")
          }
        }),
      )

      it.effect("gives every rung its own attempts", () =>
        Effect.gen(function* () {
          const lead = stub("lead", () => overloaded("lead"))
          const cheap = stub("cheap", inTurn(overloaded("cheap"), overloaded("cheap"), says("by cheap")))
          const many = (provider: typeof lead.provider) =>
            Failover.make([provider.pipe(Retry.with({ times: 9, base: "1 millis" }))], { maxAttempts: 3 })
          const ladder = Degradation.make([
            Degradation.primary(many(lead.provider)),
            Degradation.model(many(cheap.provider)),
          ])
          assert.strictEqual(yield* played(told(kind, ladder)), "model: by cheap")
          // One attempt of the first is kept for the second while that is ready.
          assert.deepStrictEqual([lead.asked.length, cheap.asked.length], [2, 3])
        }),
      )

      it.effect("passes over a rung that the call may not ask", () =>
        Effect.gen(function* () {
          const lead = stub("lead", () => overloaded("lead"))
          const cheap = stub("cheap", () => says("by cheap"))
          const small = stub("small", () => says("by small"))
          const ladder = Degradation.make([
            Degradation.primary(lead.provider),
            Degradation.model(cheap.provider),
            Degradation.simplified(small.provider, "{prompt}"),
          ])
          const asked = told(kind, ladder)
          assert.strictEqual(yield* played(asked), "model: by cheap")
          assert.strictEqual(yield* played(asked.pipe(Call.exclude("cheap"))), "simplified: by small")
          assert.strictEqual(yield* played(asked.pipe(Call.pin("lead", "small"))), "simplified: by small")
          const { exit } = yield* play(asked.pipe(Call.exclude("cheap", "small")))
          assert.strictEqual(said(exit), "Overloaded")
        }),
      )

      it.effect("is a provider among others: a failover, an outer ladder and a service take it", () =>
        Effect.gen(function* () {
          const lead = stub("lead", () => overloaded("lead"))
          const cheap = stub("cheap", () => says("by cheap"))
          const inner = lead.provider.pipe(Degradation.with([Degradation.model(cheap.provider)], { name: "inner" }))
          assert.strictEqual(yield* played(ask(kind, Failover.make([inner]))), "by cheap")
          const outer = Degradation.make(
            [
              Degradation.cache({ scope: "everyone" }),
              Degradation.primary(inner),
              Degradation.fallback("We will be back."),
            ],
            { name: "outer" },
          )
          const heard = listener()
          assert.strictEqual(yield* played(heard.effect(told(kind, outer))), "primary: by cheap")
          assertInOrder(heard.events)
          // What a rung below another primary gave is no primary's answer, and is not kept.
          assert.strictEqual(yield* played(told(kind, outer)), "primary: by cheap")
          assert.strictEqual(cheap.asked.length, 3)
          class Model extends Provider.Service<Model, typeof inner>()("test/Model") {}
          const through = Effect.flatMap(Model, (model) => ask(kind, model))
          assert.strictEqual(yield* played(Effect.provide(through, Provider.layer(Model, inner))), "by cheap")
        }).pipe(Effect.provide(AnswerCache.layerMemory())),
      )

      it.effect("counts answers by their source and composition", () =>
        Effect.gen(function* () {
          const lead = stub("lead", inTurn(says("Herbert."), overloaded("lead")))
          const ladder = Degradation.make(
            [
              Degradation.primary(lead.provider),
              Degradation.cache({ scope: "everyone", timeToLive: "1 minute" }),
              Degradation.fallback("Hm."),
            ],
            { name: "support" },
          )
          yield* played(told(kind, ladder))
          yield* played(told(kind, ladder))
          yield* played(told(kind, ladder))
          yield* later("1 minute")
          yield* played(told(kind, ladder))
          const counted = (yield* Metric.snapshot).flatMap((metric) =>
            metric.type === "Counter" && metric.id.startsWith("understudy.ladder")
              ? [[metric.id, metric.attributes, metric.state.count]]
              : [],
          )
          const of = (labels: Readonly<Record<string, string>>) => ({ "understudy.composition": "support", ...labels })
          const from = (source: string) => of({ "understudy.source": source })
          const did = (operation: string, outcome: string) =>
            of({ "understudy.cache.operation": operation, "understudy.cache.outcome": outcome })
          assert.sameDeepMembers(counted, [
            ["understudy.ladder.answers", from("primary"), 1],
            ["understudy.ladder.answers", from("cache"), 2],
            ["understudy.ladder.answers", from("fallback"), 1],
            ["understudy.ladder.cache", did("write", "written"), 1],
            ["understudy.ladder.cache", did("read", "fresh"), 2],
            ["understudy.ladder.cache", did("read", "nothing"), 1],
          ])
        }).pipe(Effect.provide(AnswerCache.layerMemory()), Effect.provideService(Metric.MetricRegistry, new Map())),
      )

      it.effect("asks a simpler question by its template: the last question, and what the operator says", () =>
        Effect.gen(function* () {
          const small = scribe("small")
          const lead = stub("lead", () => overloaded("lead"))
          const request = LanguageModelFace.request([
            { role: "system", content: "Be kind." },
            { role: "user", content: "Who wrote Dune?" },
            { role: "assistant", content: "Frank Herbert." },
            { role: "user", content: "When, for {prompt} $& $1?" },
          ])
          const briefly = (template: string | Degradation.Template) =>
            Degradation.make([Degradation.primary(lead.provider), Degradation.simplified(small.provider, template)])
          yield* played(told(kind, briefly("In one word: {prompt}"), request))
          yield* played(
            told(
              kind,
              briefly((prompt) => `${prompt.content.length} messages`),
              request,
            ),
          )
          assert.deepStrictEqual(small.prompts, [
            "system: Be kind.\nuser: In one word: When, for {prompt} $& $1?",
            "user: 4 messages",
          ])
        }),
      )

      it.effect("asks the simpler question of a text without tools: what they have said is gone", () =>
        Effect.gen(function* () {
          const asked: Array<readonly [tools: number, choice: unknown, messages: number]> = []
          const note = (request: LanguageModelFace.Request) =>
            void asked.push([request.tools.length, request.toolChoice, request.prompt.content.length])
          const small = Provider.make<LM>({
            name: "small",
            model: "small-1",
            face,
            generate: (request) => (note(request), says("Noon.").whole),
            stream: (request) => (note(request), says("Noon.").parts),
          })
          const lead = stub("lead", () => overloaded("lead"))
          const clock = Tool.make("clock", { parameters: Schema.Struct({}), success: Schema.String })
          const call = { id: "c", name: "clock" } as const
          const request = LanguageModelFace.request(
            [
              { role: "user", content: "How late is it?" },
              { role: "assistant", content: [{ type: "tool-call", ...call, params: {}, providerExecuted: false }] },
              { role: "tool", content: [{ type: "tool-result", ...call, isFailure: false, result: "12:00" }] },
            ],
            { tools: [clock], toolChoice: "required" },
          )
          for (const template of ["Briefly: {prompt}", (prompt: Prompt.Prompt) => prompt]) {
            const ladder = Degradation.make([
              Degradation.primary(lead.provider),
              Degradation.simplified(small, template),
            ])
            yield* played(told(kind, ladder, request))
          }
          assert.deepStrictEqual(asked, [
            [0, "none", 1],
            [1, "required", 3],
          ])
        }),
      )

      it.effect("asks the primary the simpler question when no other provider is named", () =>
        Effect.gen(function* () {
          const lead = stub("lead", inTurn(fails(failure("ContextLengthExceeded", "lead")), says("Short.")))
          const ladder = Degradation.make([
            Degradation.primary(lead.provider),
            Degradation.simplified("Briefly: {prompt}"),
          ])
          assert.strictEqual(yield* played(told(kind, ladder)), "simplified: Short.")
        }),
      )

      it.effect("gives the fallback the primary's own failure, and an empty text is an answer", () =>
        Effect.gen(function* () {
          const seen: Array<string> = []
          const ladder = Degradation.make([
            Degradation.primary(stub("lead", () => overloaded("lead")).provider),
            Degradation.model(stub("cheap", () => fails(failure("RateLimited", "cheap"))).provider),
            Degradation.fallback(({ _tag, provider }) => {
              seen.push(`${_tag} of ${provider}`)
              return ""
            }),
          ])
          assert.strictEqual(yield* played(told(kind, ladder)), "fallback: ")
          assert.deepStrictEqual(seen, ["Overloaded of lead"])
        }),
      )

      it.effect("takes a fallback that is an effect, whose failures are its own, and encoded parts", () =>
        Effect.gen(function* () {
          const lead = stub("lead", () => overloaded("lead")).provider
          const asks = (fallback: Effect.Effect<string, "no motd">) =>
            Degradation.make([Degradation.primary(lead), Degradation.fallback(() => fallback)])
          assert.strictEqual(yield* played(told(kind, asks(Effect.succeed("Motd.")))), "fallback: Motd.")
          assert.strictEqual(failed((yield* play(told(kind, asks(Effect.fail("no motd"))))).exit), "no motd")
          const file = { type: "file", mediaType: "text/plain", data: "aGk=" } as const
          const ladder = Degradation.make([Degradation.primary(lead), Degradation.fallback([file, end] as const)])
          assert.deepInclude(
            (yield* played(parts(kind, ladder))).map(({ metadata: _metadata, ...part }) => part),
            file,
          )
        }),
      )

      it.effect("gives what is kept, and a fallback, as what cost nothing", () =>
        Effect.gen(function* () {
          const usage = { inputTokens: { total: 10 }, outputTokens: { total: 20 } }
          const lead = stub(
            "lead",
            inTurn(streams(Stream.make(start, say("Herbert."), { ...end, usage })), overloaded("lead")),
          )
          const ladder = Degradation.make([
            Degradation.primary(lead.provider),
            Degradation.cache({ scope: "everyone" }),
            Degradation.fallback("Hm."),
          ])
          const spent = Effect.map(played(parts(kind, ladder)), (all) =>
            all.flatMap((part) => (part.type === "finish" ? [part.usage.outputTokens.total] : [])),
          )
          assert.deepStrictEqual(yield* spent, kind === "stream" ? [20] : [undefined])
          assert.deepStrictEqual(yield* spent, [0])
          yield* later("10 minutes")
          assert.deepStrictEqual(yield* spent, [0])
        }).pipe(Effect.provide(AnswerCache.layerMemory())),
      )
    })
  }
})

describe("A stream down a ladder", () => {
  it.effect("falls until its first content, and never after: then the truth is told", () =>
    Effect.gen(function* () {
      const broken = failure("ConnectionFailed", "lead")
      const before = stub("lead", () => streams(Stream.concat(Stream.make(start), Stream.fail(broken))))
      const after = stub("lead", () => streams(Stream.concat(Stream.make(start, say("Her")), Stream.fail(broken))))
      const around = (provider: typeof before.provider) =>
        Degradation.make(
          [
            Degradation.primary(provider),
            Degradation.cache({ scope: "everyone" }),
            Degradation.fallback("We will be back."),
          ],
          Degradation.everything,
        )
      const first = yield* played(Stream.runCollect(around(before.provider).stream(question)))
      assert.strictEqual(textOf(first), "We will be back.")
      const seen: Array<string> = []
      const heard = listener()
      const { exit } = yield* play(
        heard
          .stream(around(after.provider).stream(question))
          .pipe(Stream.runForEach((part) => Effect.sync(() => seen.push(textOf([part]))))),
      )
      assert.strictEqual(expectTag("StreamInterrupted", failed(exit)).failure, broken)
      assert.strictEqual(seen.join(""), "Her")
      assertInOrder(heard.events)
      // What broke is not kept.
      assert.strictEqual(
        textOf(yield* played(Stream.runCollect(around(before.provider).stream(question)))),
        "We will be back.",
      )
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it.effect("knows its source at the commit point, before the rest is there", () =>
    Effect.gen(function* () {
      const slow = stub("lead", () =>
        streams(Stream.concat(Stream.make(start, say("Her")), Stream.fromEffect(Effect.never))),
      )
      const ladder = Degradation.make([Degradation.primary(slow.provider), Degradation.fallback("Hm.")])
      yield* Effect.scoped(
        Effect.gen(function* () {
          const { model, provider, source, stream } = yield* ladder.askStream(question)
          assert.deepStrictEqual([source, provider, model], ["primary", "lead", "lead-1"])
          assert.strictEqual(slow.running(), 1)
          assert.strictEqual(textOf(yield* Stream.runCollect(Stream.take(stream, 3))), "Her")
        }),
      )
      assert.strictEqual(slow.running(), 0)
    }),
  )

  it.effect("of a kept answer has a beginning, the text, an end and a finish, and says that it ended", () =>
    Effect.gen(function* () {
      const lead = stub("lead", inTurn(says("Herbert."), overloaded("lead")))
      const ladder = Degradation.make([Degradation.primary(lead.provider), Degradation.cache({ scope: "everyone" })])
      // Asked for whole, and given as a stream.
      yield* played(ladder.generate(question))
      const all = yield* played(Stream.runCollect(ladder.stream(question)))
      assert.deepStrictEqual(
        all.map(({ type }) => type),
        ["response-metadata", "text-start", "text-delta", "text-end", "finish"],
      )
      assert.strictEqual(textOf(all), "Herbert.")
      const { opened, scope } = yield* openIn(ladder)
      assert.deepStrictEqual(opened.ended.exit, Exit.void)
      assert.strictEqual(opened.delivered().characters, 8)
      yield* Scope.close(scope, Exit.void)
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )
})

describe("A ladder below the ways out", () => {
  it.effect("answers through the LanguageModel of effect/ai, and tells its source there", () =>
    Effect.gen(function* () {
      const lead = stub("lead", inTurn(says("Herbert."), overloaded("lead")))
      const ladder = Understudy.make({ candidates: [{ provider: lead.provider, retry: false }] }).pipe(
        Degradation.with([
          Degradation.cache({ scope: "everyone", timeToLive: "1 minute" }),
          Degradation.fallback("We will be back."),
        ]),
      )
      const layer = LanguageModelLayer.layer(ladder)
      const text = played(
        Effect.map(
          LanguageModel.generateText({ prompt: "Who wrote Dune?" }),
          (response) => `${Degradation.sourceOf(response)}: ${response.text}`,
        ),
      )
      const stream = played(
        Effect.map(Stream.runCollect(LanguageModel.streamText({ prompt: "Who wrote Dune?" })), (all) => [
          Degradation.sourceOf(all),
          all.map((part) => (part.type === "text-delta" ? part.delta : "")).join(""),
        ]),
      )
      yield* Effect.gen(function* () {
        assert.strictEqual(yield* text, "primary: Herbert.")
        assert.strictEqual(yield* text, "cache: Herbert.")
        assert.deepStrictEqual(yield* stream, ["cache", "Herbert."])
        yield* later("1 minute")
        assert.strictEqual(yield* text, "fallback: We will be back.")
        assert.deepStrictEqual(yield* stream, ["fallback", "We will be back."])
      }).pipe(Effect.provide(layer))
    }).pipe(Effect.provide(Layer.mergeAll(Understudy.layer, AnswerCache.layerMemory()))),
  )

  it.effect("gives an object from the cache and from a fallback that fits, asking nobody again", () =>
    Effect.gen(function* () {
      const lead = stub("lead", inTurn(says('{"name":"Herbert"}'), overloaded("lead")))
      const ladder = Degradation.make([
        Degradation.primary(lead.provider),
        Degradation.cache({ scope: "everyone", timeToLive: "1 minute" }),
        Degradation.fallback('{"name":"nobody"}'),
      ])
      const object = played(
        Effect.map(
          LanguageModel.generateObject({ prompt: "Who?", schema: Schema.Struct({ name: Schema.String }) }),
          ({ value }) => value.name,
        ),
      )
      yield* Effect.gen(function* () {
        assert.strictEqual(yield* object, "Herbert")
        assert.strictEqual(yield* object, "Herbert")
        yield* later("1 minute")
        assert.strictEqual(yield* object, "nobody")
        assert.strictEqual(lead.asked.length, 3)
      }).pipe(Effect.provide(LanguageModelLayer.layer(ladder)))
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it.effect("does not ask again for an object that a fallback does not give: nobody could answer", () =>
    Effect.gen(function* () {
      const lead = stub("lead", () => overloaded("lead"))
      const ladder = Degradation.make([Degradation.primary(lead.provider), Degradation.fallback("We will be back.")])
      const object = LanguageModel.generateObject({ prompt: "Who?", schema: Schema.Struct({ name: Schema.String }) })
      const { exit } = yield* play(Effect.provide(object, LanguageModelLayer.layer(ladder)))
      expectTag("InvalidResponse", AiFailure.fromAiError(failed(exit)))
      assert.strictEqual(lead.asked.length, 1)
    }),
  )

  it.effect("holds a conversation in which one turn was answered by another rung", () =>
    Effect.gen(function* () {
      const seen: Array<ReadonlyArray<unknown>> = []
      const provider = (
        name: string,
        script: (turn: number) => Effect.Effect<LanguageModelFace.Answer, LlmError.Overloaded>,
      ) => {
        let turn = 0
        return Provider.make({
          name,
          model: `${name}-1`,
          face,
          generate: ({ prompt }) => {
            seen.push(
              prompt.content.flatMap(({ content, role }) =>
                role === "assistant" ? content.map(({ options, type }) => [type, Object.keys(options)]) : [],
              ),
            )
            return script(++turn)
          },
          stream: () => Stream.fail(failure("Overloaded", name)),
        })
      }
      const signed = (name: string): LanguageModelFace.Answer => [
        { type: "reasoning", text: "Hm.", metadata: { [name]: { signature: name } } },
        { type: "text", text: `by ${name}` },
        end,
      ]
      const lead = provider("lead", (turn) =>
        turn === 1 ? Effect.fail(failure("Overloaded", "lead")) : Effect.succeed(signed("lead")),
      )
      const cheap = provider("cheap", () => Effect.succeed(signed("cheap")))
      const ladder = Degradation.make([Degradation.primary(lead), Degradation.model(cheap)])
      const chat = yield* Chat.empty
      const turn = Effect.map(chat.generateText({ prompt: "And now?" }), Degradation.sourceOf)
      yield* Effect.gen(function* () {
        assert.strictEqual(yield* turn, "model")
        assert.strictEqual(yield* turn, "primary")
      }).pipe(Effect.provide(LanguageModelLayer.layer(ladder)))
      // The reasoning that the other signed does not reach the primary; its text does.
      assert.deepStrictEqual(seen, [[], [], [["text", []]]])
    }),
  )
})

describe("Ladders that cannot be meant are refused at the door", () => {
  const lead = stub("lead", () => says("by lead")).provider
  const loose = Degradation.make as (rungs: ReadonlyArray<unknown>, options?: unknown) => unknown
  const around = Degradation.with as unknown as (rungs: ReadonlyArray<unknown>) => (self: typeof lead) => unknown
  const below = Degradation.effect as (effect: unknown, rungs: ReadonlyArray<unknown>, options?: unknown) => unknown
  const cases: ReadonlyArray<readonly [name: string, make: () => unknown, message: RegExp]> = [
    ["no rung", () => loose([]), /expected the primary first/],
    ["no primary", () => loose([Degradation.fallback("")]), /expected the primary first/],
    [
      "a primary below another rung",
      () => loose([Degradation.model(lead), Degradation.primary(lead)]),
      /expected the primary first.*got model, primary/,
    ],
    [
      "a rung twice",
      () => loose([Degradation.primary(lead), Degradation.model(lead), Degradation.model(lead)]),
      /`model` twice/,
    ],
    [
      "a rung below a fallback",
      () => loose([Degradation.primary(lead), Degradation.fallback(""), Degradation.model(lead)]),
      /the fallback last/,
    ],
    ["what is no rung", () => loose([Degradation.primary(lead), lead]), /\[1\]: expected a rung/],
    ["a primary without a provider", () => loose([Degradation.primary()]), /primary with a provider/],
    ["a primary that is none", () => (Degradation.primary as (u: unknown) => unknown)({}), /expected a provider/],
    [
      "a stale answer of whom?",
      () => loose([Degradation.primary(lead), Degradation.stale()]),
      /stale\.scope: expected a scope/,
    ],
    [
      "two scopes",
      () =>
        loose([
          Degradation.primary(lead),
          Degradation.cache({ scope: "tenant" }),
          Degradation.stale({ scope: "everyone" }),
        ]),
      /stale\.scope: expected the scope of the rung `cache`/,
    ],
    ["no scope", () => (Degradation.cache as (u: unknown) => unknown)({}), /Degradation\.cache.*scope/s],
    [
      "a template without the prompt",
      () => Degradation.simplified("Briefly!"),
      /Degradation\.simplified: expected a template with \{prompt\}/,
    ],
    [
      "a template for an effect",
      () => below(Effect.void, [Degradation.simplified("{prompt}")]),
      /simplified: expected a template for a language model, and none for others/,
    ],
    [
      "another face below",
      () => loose([Degradation.primary(lead), Degradation.model(Effect.void)]),
      /model: expected what is asked as the primary is, a language model/,
    ],
    [
      "a cache of effects for a language model",
      () =>
        loose([Degradation.primary(lead), Degradation.cache({ scope: "everyone", key: "k", schema: Schema.String })]),
      /cache: expected a key and a schema for an effect/,
    ],
    [
      "a cache of requests for an effect",
      () => below(Effect.void, [Degradation.cache({ scope: "everyone" })], { name: "work" }),
      /cache: expected a key and a schema for an effect/,
    ],
    [
      "a cache of an effect without a name",
      () => below(Effect.void, [Degradation.cache({ scope: "everyone", key: "k", schema: Schema.Void })]),
      /Degradation\.effect\.name: expected a name/,
    ],
    [
      "old values of an effect with an empty name",
      () => below(Effect.void, [Degradation.stale({ scope: "everyone", key: "k", schema: Schema.Void })], { name: "" }),
      /Degradation\.effect\.name: expected a name/,
    ],
    [
      "a key without a schema",
      () => (Degradation.cache as (u: unknown) => unknown)({ scope: "everyone", key: "k" }),
      /a schema of the values beside the key/,
    ],
    [
      "a schema without a key",
      () => (Degradation.cache as (u: unknown) => unknown)({ scope: "everyone", schema: Schema.String }),
      /a key of what is asked beside the schema/,
    ],
    ["a second primary", () => around([Degradation.primary(lead)])(lead), /a primary without a provider/],
    [
      "a misspelt option",
      () => loose([Degradation.primary(lead)], { everything: true }),
      /Degradation\.make.*everything/s,
    ],
  ]
  for (const [name, make, message] of cases) {
    it(name, () => {
      assert.throws(make, message)
      try {
        make()
      } catch (error) {
        assert.instanceOf(error, Understudy.InvalidOptions)
      }
    })
  }
})
