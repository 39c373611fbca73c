import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Layer, Redacted, Schema, Scope, Stream } from "effect"
import { LanguageModel } from "effect/ai"
import * as Persistence from "effect/persistence/Persistence"
import { AnswerCache, Call, Degradation, LanguageModelFace, LanguageModelLayer, type Provider } from "@understudy/core"
import { Collector } from "../src/internal/cache/storedAnswer.ts"
import { listener } from "./PolicyEvent.check.ts"
import {
  ask,
  end,
  fails,
  failure,
  inTurn,
  kinds,
  type LM,
  metadata,
  openIn,
  play,
  question,
  type Reply,
  say,
  says,
  settle,
  start,
  streams,
  stub,
  textOf,
  timed,
} from "./stub.ts"

type Answer = LanguageModelFace.Answer
type Part = LanguageModelFace.Part

const played = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.flatMap(play(self), ({ exit }) => exit)

/** An answer as what an attempt gives, whole and as a stream. */
const gives = (...answer: Answer): Reply<never> => ({
  whole: Effect.succeed(answer),
  parts: Stream.fromIterable(LanguageModelFace.streamed(answer)),
})

const text = (text: string) => ({ type: "text", text }) as const
const finish = (reason: "stop" | "length" | "tool-calls" | "unknown") => ({ ...end, reason })

/** A ladder that asks only for what is not kept. */
const readThrough = (provider: Provider.Provider<LM, unknown>, options: Partial<Degradation.CacheOptions> = {}) =>
  Degradation.make([Degradation.cache({ scope: "everyone", ...options }), Degradation.primary(provider)])

/** A store whose entries a test can see and change. */
const visible = (told: (retain: Duration.Duration | undefined) => void = () => undefined) => {
  const entries = new Map<string, object>()
  const unused = Effect.die("not used")
  const layer = Layer.succeed(Persistence.BackingPersistence)({
    make: () =>
      Effect.succeed({
        get: (key) => Effect.sync(() => entries.get(key)),
        set: (key, value, retain) =>
          Effect.sync(() => {
            entries.set(key, value)
            told(retain)
          }),
        getMany: () => unused,
        setMany: () => unused,
        remove: () => unused,
        clear: unused,
      }),
  })
  return { entries, layer: Layer.provide(AnswerCache.layerPersistence(), layer) }
}

const call = { type: "tool-call", id: "c", name: "clock", params: {}, providerExecuted: true } as const
const source = { type: "source", sourceType: "url", id: "s", url: "https://a.b/", title: "A" } as const
const file = { type: "file", mediaType: "text/plain", data: "aGk=" } as const

describe("An answer is kept", () => {
  const kept: ReadonlyArray<readonly [name: string, answer: Answer]> = [
    ["when it is a text", [text("Herbert."), finish("stop")]],
    ["when it is empty", [finish("stop")]],
    ["when it is an empty text", [text(""), finish("stop")]],
    [
      "with its reasoning, files and sources",
      [
        { type: "reasoning", text: "Hm.", metadata: { anthropic: { signature: "s" } } },
        text("Herbert."),
        file,
        source,
        finish("stop"),
      ],
    ],
  ]
  const never: ReadonlyArray<readonly [name: string, answer: Answer]> = [
    ["when it calls a tool", [text("I look."), { ...call, providerExecuted: false }, finish("stop")]],
    ["when it called a tool of the provider's own", [call, text("Noon."), finish("stop")]],
    ["when it ends for a call of a tool", [text("I look."), finish("tool-calls")]],
    ["when it was cut off", [text("Herb"), finish("length")]],
    ["when nobody knows why it ended", [text("Herb"), finish("unknown")]],
    ["when it holds what nobody could read", [text("Herbert."), { ...file, data: "no base64!" }, finish("stop")]],
  ]

  for (const kind of kinds) {
    describe(`(${kind})`, () => {
      for (const [name, answer] of kept) {
        it.effect(name, () =>
          Effect.gen(function* () {
            const lead = stub("lead", () => gives(...answer))
            const ladder = readThrough(lead.provider)
            const first = yield* played(ask(kind, ladder))
            const again = yield* played(ladder.ask(question))
            assert.deepStrictEqual([again.source, again.provider, again.model], ["cache", "lead", "lead-1"])
            assert.strictEqual(textOf(again.answer), first)
            const plain = again.answer.flatMap((part) => {
              const { understudy: _ours, ...theirs } = part.metadata ?? {}
              const { metadata: _metadata, ...rest } = part
              if (part.type === "response-metadata") return []
              return [
                part.type === "finish"
                  ? end
                  : { ...rest, ...(Object.keys(theirs).length === 0 ? {} : { metadata: theirs }) },
              ]
            })
            assert.deepStrictEqual(plain, [...answer])
            assert.strictEqual(yield* played(ask("stream", ladder)), first)
            assert.strictEqual(lead.asked.length, 1)
          }).pipe(Effect.provide(AnswerCache.layerMemory())),
        )
      }
      for (const [name, answer] of never) {
        it.effect(`not ${name}`, () =>
          Effect.gen(function* () {
            const lead = stub("lead", () => gives(...answer))
            const ladder = readThrough(lead.provider)
            const heard = listener()
            yield* heard.effect(played(ask(kind, ladder)))
            yield* played(ask(kind, ladder))
            assert.strictEqual(lead.asked.length, 2)
            assert.notInclude(heard.names(), "CacheWritten")
          }).pipe(Effect.provide(AnswerCache.layerMemory())),
        )
      }

      it.effect("not when it is another's than the primary's", () =>
        Effect.gen(function* () {
          const lead = stub("lead", () => fails(failure("Overloaded", "lead")))
          const cheap = stub("cheap", () => says("by cheap"))
          const ladder = Degradation.make([
            Degradation.cache({ scope: "everyone" }),
            Degradation.primary(lead.provider),
            Degradation.model(cheap.provider),
          ])
          yield* played(ask(kind, ladder))
          yield* played(ask(kind, ladder))
          assert.strictEqual(cheap.asked.length, 2)
        }).pipe(Effect.provide(AnswerCache.layerMemory())),
      )

      it.effect("by its tenant: nobody else's is given, and without a tenant there is no cache", () =>
        Effect.gen(function* () {
          const lead = stub("lead", (attempt) => says(`answer ${attempt}`))
          const ladder = readThrough(lead.provider, { scope: "tenant" })
          const as = (tenant: string) => played(ask(kind, ladder).pipe(Call.withCache({ tenant })))
          assert.strictEqual(yield* as("a"), "answer 1")
          assert.strictEqual(yield* as("b"), "answer 2")
          assert.strictEqual(yield* as("a"), "answer 1")
          assert.strictEqual(yield* as("b"), "answer 2")
          for (const nobody of [ask(kind, ladder), ask(kind, ladder).pipe(Call.withCache({ tenant: "" }))]) {
            const heard = listener()
            assert.match(yield* heard.effect(played(nobody)), /answer [34]/)
            assert.deepStrictEqual(
              heard.events.flatMap((event) =>
                event.event === "CacheUnavailable" ? [`${event.operation}: ${event.why}`] : [],
              ),
              ["read: no tenant", "write: no tenant"],
            )
          }
        }).pipe(Effect.provide(AnswerCache.layerMemory())),
      )

      it.effect("under the key that the call brings, for its tenant", () =>
        Effect.gen(function* () {
          const lead = stub("lead", (attempt) => says(`answer ${attempt}`))
          const ladder = readThrough(lead.provider, { scope: "tenant" })
          const as = (tenant: string, prompt: string) =>
            played(
              Effect.map(ladder.generate(LanguageModelFace.request(prompt)), textOf).pipe(
                Call.withCache({ tenant, key: "greeting" }),
              ),
            )
          assert.strictEqual(yield* as("a", "Hello!"), "answer 1")
          assert.strictEqual(yield* as("a", "Good morning!"), "answer 1")
          assert.strictEqual(yield* as("b", "Hello!"), "answer 2")
        }).pipe(Effect.provide(AnswerCache.layerMemory())),
      )

      it.effect("for its composition and version: others have their own", () =>
        Effect.gen(function* () {
          const a = stub("a", () => says("by a"))
          const b = stub("b", () => says("by b"))
          assert.strictEqual(yield* played(ask(kind, readThrough(a.provider))), "by a")
          assert.strictEqual(yield* played(ask(kind, readThrough(b.provider))), "by b")
          yield* played(ask(kind, readThrough(a.provider, { version: "2" })))
          yield* played(ask(kind, readThrough(a.provider, { version: "2" })))
          assert.strictEqual(a.asked.length, 2)
        }).pipe(Effect.provide(AnswerCache.layerMemory())),
      )

      it.effect("as encoded parts and nothing else, without our marks and what was sent", () =>
        Effect.gen(function* () {
          const { entries, layer } = visible()
          const request = { method: "POST", url: "https://a.b/?key=sk-planted", urlParams: [], headers: {} }
          const said = [
            { type: "response-metadata", id: "r", modelId: "m", request },
            { type: "text", text: "Herbert.", metadata: { lead: { itemId: "i" } } },
            { ...end, response: { status: 200, headers: { authorization: "sk-planted" } } },
          ] as unknown as Answer
          const lead = stub("lead", () => gives(...said))
          const heard = listener()
          yield* heard.effect(played(ask(kind, readThrough(lead.provider)))).pipe(Effect.provide(layer))
          const [[key, value]] = [...entries] as [[string, AnswerCache.Entry]]
          assert.match(key, /^[0-9a-f]{64}$/)
          assert.deepStrictEqual(
            { ...value, at: 0 },
            {
              v: 1,
              at: 0,
              by: { provider: "lead", model: "lead-1" },
              value: [
                { type: "response-metadata", id: "r", modelId: "m" },
                { type: "text", text: "Herbert.", metadata: { lead: { itemId: "i" } } },
                { type: "finish", reason: "stop", usage: { inputTokens: {}, outputTokens: {} } },
              ],
            },
          )
          assert.notInclude(JSON.stringify([value, heard.events]), "sk-planted")
        }),
      )

      it.effect("in a form that is checked when it is read: what was put there by others is not given", () =>
        Effect.gen(function* () {
          const { entries, layer } = visible()
          const lead = stub("lead", () => says("Herbert."))
          const ladder = readThrough(lead.provider)
          yield* played(ask(kind, ladder)).pipe(Effect.provide(layer))
          const [[key, value]] = [...entries] as [[string, AnswerCache.Entry]]
          const planted: ReadonlyArray<unknown> = [
            [{ ...call, providerExecuted: false }, finish("stop")],
            [text("Herb"), finish("length")],
            [text("Herbert.")],
            [{ type: "text", text: 42 }, finish("stop")],
            "Herbert.",
            null,
          ]
          for (const [index, parts] of planted.entries()) {
            entries.set(key, { ...value, value: parts })
            const heard = listener()
            assert.strictEqual(yield* heard.effect(played(ask(kind, ladder))).pipe(Effect.provide(layer)), "Herbert.")
            assert.strictEqual(lead.asked.length, index + 2)
            assert.deepInclude(
              heard.events.find(({ event }) => event === "CacheUnavailable"),
              { operation: "read", why: "unreadable" },
            )
          }
        }),
      )
    })
  }

  it.effect("when an object was asked for: only if it is one", () =>
    Effect.gen(function* () {
      const schema = Schema.Struct({ name: Schema.String, born: Schema.DateTimeUtcFromString })
      const request = LanguageModelFace.request("Who?", { responseFormat: { type: "json", objectName: "o", schema } })
      for (const [answer, asked] of [
        ['{"name":"Herbert","born":"1920-10-08T00:00:00Z"}', 1],
        ['{"name":"Herbert"}', 2],
        ["Frank Herbert, of course!", 2],
      ] as const) {
        const lead = stub("lead", () => says(answer))
        yield* Effect.gen(function* () {
          yield* played(readThrough(lead.provider).generate(request))
          yield* played(readThrough(lead.provider).generate(request))
        }).pipe(Effect.provide(AnswerCache.layerMemory()))
        assert.strictEqual(lead.asked.length, asked, answer)
      }
    }),
  )

  it.effect("but not given to whom it does not fit: the ladder goes on, and what fits takes its place", () =>
    Effect.gen(function* () {
      const small = Schema.Struct({ n: Schema.Int })
      const even = Schema.Struct({ n: Schema.Int.check(Schema.makeFilter((n: number) => n % 2 === 0)) })
      const boom = Schema.Struct({
        n: Schema.Int.check(
          Schema.makeFilter((): boolean => {
            throw new Error("boom")
          }),
        ),
      })
      const as = (schema: Schema.Top) =>
        LanguageModelFace.request("How many?", { responseFormat: { type: "json", objectName: "o", schema } })
      const lead = stub("lead", (attempt) => says(`{"n":${attempt}}`))
      const ladder = readThrough(lead.provider)
      const said = (request: LanguageModelFace.Request) =>
        Effect.map(played(ladder.ask(request)), ({ answer, source }) => `${source}: ${textOf(answer)}`)
      assert.strictEqual(yield* said(as(small)), 'primary: {"n":1}')
      assert.strictEqual(yield* said(as(small)), 'cache: {"n":1}')
      const heard = listener()
      assert.strictEqual(yield* heard.effect(said(as(even))), 'primary: {"n":2}')
      assert.deepInclude(
        heard.events.find(({ event }) => event === "CacheUnavailable"),
        { operation: "read", why: "unreadable" },
      )
      assert.strictEqual(yield* said(as(even)), 'cache: {"n":2}')
      assert.strictEqual(yield* said(as(boom)), 'primary: {"n":3}')
      assert.strictEqual(yield* said(as(small)), 'cache: {"n":2}')
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it.effect("under a key of the call's own for each form of the answer: no text is given for an object", () =>
    Effect.gen(function* () {
      const lead = stub("lead", inTurn(says("Hello!"), fails(failure("Overloaded", "lead"))))
      const ladder = Degradation.make([
        Degradation.primary(lead.provider),
        Degradation.cache({ scope: "everyone" }),
        Degradation.fallback('{"n":0}'),
      ])
      const schema = Schema.Struct({ n: Schema.Int })
      yield* Effect.gen(function* () {
        yield* LanguageModel.generateText({ prompt: "Hello?" })
        const text = yield* LanguageModel.generateText({ prompt: "Hello?" })
        const object = yield* LanguageModel.generateObject({ prompt: "How many?", schema })
        assert.deepStrictEqual([text.text, Degradation.sourceOf(text)], ["Hello!", "cache"])
        assert.deepStrictEqual([object.value, Degradation.sourceOf(object)], [{ n: 0 }, "fallback"])
      }).pipe(Effect.provide(LanguageModelLayer.layer(ladder)), Call.withCache({ key: "k" }))
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  for (const kind of kinds) {
    it.effect(`for everyone: not that of a call with its own credential, which is given none either (${kind})`, () =>
      Effect.gen(function* () {
        const lead = stub("lead", (attempt) => says(`answer ${attempt}`))
        const own = Call.withCredential("lead", Redacted.make("sk-own"))
        const ladder = readThrough(lead.provider)
        assert.strictEqual(yield* played(own(ask(kind, ladder))), "answer 1")
        assert.strictEqual(yield* played(ask(kind, ladder)), "answer 2")
        assert.strictEqual(yield* played(ask(kind, ladder)), "answer 2")
        assert.strictEqual(yield* played(own(ask(kind, ladder))), "answer 3")
        // A tenant's own are its own.
        const ofTenant = ask(kind, readThrough(lead.provider, { scope: "tenant" })).pipe(
          Call.withCache({ tenant: "a" }),
        )
        assert.strictEqual(yield* played(own(ofTenant)), "answer 4")
        assert.strictEqual(yield* played(own(ofTenant)), "answer 4")
      }).pipe(Effect.provide(AnswerCache.layerMemory())),
    )
  }

  it("of a stream: only as far as it may be long, where a part without a word counts, too", () => {
    const heard = (deltas: number): LanguageModelFace.Answer | undefined => {
      const collector = new Collector(100)
      collector.hear([start, say("Herbert.")])
      for (let n = 0; n < deltas; n++) collector.hear([say("")])
      collector.hear([{ type: "text-end", id: "0" }, end])
      return collector.answer()
    }
    assert.strictEqual(textOf(heard(89) ?? []), "Herbert.")
    assert.isUndefined(heard(90))
  })

  it.effect("of a request that has no key: not, and the call goes on", () =>
    Effect.gen(function* () {
      const lead = stub("lead", () => says("Herbert."))
      const loop: Record<string, unknown> = {}
      loop["self"] = loop
      const heard = listener()
      const asked = ask("generate", readThrough(lead.provider)).pipe(Call.withParameters({ extra: loop }))
      assert.strictEqual(yield* heard.effect(played(asked)), "Herbert.")
      assert.deepStrictEqual(
        heard.events.flatMap((event) => (event.event === "CacheUnavailable" ? [event.why] : [])),
        ["failed", "failed"],
      )
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it.effect("for as long as the longer of its times: for good, or not at all", () =>
    Effect.gen(function* () {
      const times: Array<Duration.Duration | undefined> = []
      const lead = stub("lead", () => says("Herbert."))
      const asked = (timeToLive: Duration.Input, maxAge: Duration.Input) =>
        Degradation.make([
          Degradation.primary(lead.provider),
          Degradation.cache({ scope: "everyone", timeToLive }),
          Degradation.stale({ maxAge }),
        ]).generate(question)
      yield* Effect.gen(function* () {
        yield* asked("1 minute", "1 hour")
        yield* asked("2 hours", "1 hour")
        yield* asked(Infinity, "1 hour")
        yield* asked(0, 0)
      }).pipe(Effect.provide(visible((retain) => times.push(retain)).layer))
      assert.deepStrictEqual(times, [Duration.hours(1), Duration.hours(2), undefined])
    }),
  )

  it.effect("with its age: a stale one is told with it, and one from a clock ahead is new", () =>
    Effect.gen(function* () {
      const { entries, layer } = visible()
      const lead = stub("lead", inTurn(says("Herbert."), fails(failure("Overloaded", "lead"))))
      const ladder = Degradation.make([
        Degradation.primary(lead.provider),
        Degradation.cache({ scope: "everyone", timeToLive: "1 minute" }),
      ])
      yield* Effect.gen(function* () {
        yield* played(ask("generate", ladder))
        const [[key, value]] = [...entries] as [[string, AnswerCache.Entry]]
        entries.set(key, { ...value, at: value.at + 3_600_000 })
        const heard = listener()
        yield* heard.effect(played(ask("generate", ladder)))
        assert.deepInclude(
          heard.events.find(({ event }) => event === "CacheRead"),
          { found: "fresh", ageMs: 0 },
        )
      }).pipe(Effect.provide(layer))
    }),
  )
})

describe("A stream is kept", () => {
  const twice = (
    parts: Stream.Stream<Part, unknown>,
    use: (ladder: ReturnType<typeof readThrough>) => Effect.Effect<unknown, unknown, AnswerCache.AnswerCache>,
  ) =>
    Effect.gen(function* () {
      const lead = stub("lead", inTurn(streams(parts), says("again")))
      const ladder = readThrough(lead.provider)
      yield* Effect.exit(use(ladder))
      const { source } = yield* played(ladder.ask(question))
      return source
    }).pipe(Effect.provide(AnswerCache.layerMemory()))
  const drain = (ladder: ReturnType<typeof readThrough>) => played(Stream.runDrain(ladder.stream(question)))

  it.effect("when its end marker came, however its parts came", () =>
    Effect.gen(function* () {
      const apart = timed([0, metadata], [100, start], [200, say("Her")], [300, say("bert.")], [400, end])
      assert.strictEqual(yield* twice(apart, drain), "cache")
      assert.strictEqual(yield* twice(Stream.make(metadata, start, say("Herbert."), end), drain), "cache")
      assert.strictEqual(yield* twice(Stream.make(end), drain), "cache")
    }),
  )

  it.effect("not when it broke, when its consumer left, or when nothing ended it", () =>
    Effect.gen(function* () {
      const broken = Stream.concat(Stream.make(start, say("Her")), Stream.fail(failure("ConnectionFailed", "lead")))
      assert.strictEqual(yield* twice(broken, drain), "primary")
      assert.strictEqual(yield* twice(Stream.make(start, say("Herbert.")), drain), "primary")
      const apart = timed([0, start], [0, say("Her")], [0, say("bert.")], [0, end])
      const left = (ladder: ReturnType<typeof readThrough>) =>
        played(Stream.runDrain(Stream.take(ladder.stream(question), 2)))
      assert.strictEqual(yield* twice(apart, left), "primary")
    }),
  )

  it.effect("not when text stood in no block, or it is longer than an entry may be", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* twice(Stream.make(say("Her"), start, say("bert."), end), drain), "primary")
      const long = Stream.concat(
        Stream.make(start),
        Stream.concat(Stream.fromIterable(Array.from({ length: 300 }, () => say("x".repeat(1024)))), Stream.make(end)),
      )
      assert.strictEqual(yield* twice(long, drain), "primary")
    }),
  )

  it.effect("without waiting for its consumer, who may wait with the end", () =>
    Effect.gen(function* () {
      const lead = stub("lead", () => streams(timed([0, start], [0, say("Herbert.")], [0, end])))
      const ladder = readThrough(lead.provider)
      const { opened, scope } = yield* openIn(ladder)
      assert.strictEqual((yield* played(ladder.ask(question))).source, "primary")
      yield* settle
      while (opened.ended.exit === undefined) yield* opened.rest
      assert.strictEqual((yield* played(ladder.ask(question))).source, "cache")
      yield* Scope.close(scope, Exit.void)
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )
})
