import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Layer, Logger, Metric, References } from "effect"
import { EventLog, type LlmError, Metrics, PolicyEvent, Retry, Spans, Timeouts, Understudy } from "@understudy/core"
import { readFileSync } from "node:fs"
import { kinds as known } from "../src/internal/events/facts.ts"
import { anyEvents } from "./PolicyEvent.stories.ts"
import { ask, fails, failure, Foreign, hangs, inTurn, kinds, play, say, says, streams, stub, timed } from "./stub.ts"

type Event = PolicyEvent.PolicyEvent

interface Line {
  readonly level: string
  readonly message: string
  readonly annotations: Readonly<Record<string, unknown>>
  readonly cause: string
}

/** A logger that keeps its lines. */
const notebook = () => {
  const lines: Array<Line> = []
  const logger = Logger.make(({ cause, fiber, logLevel, message }) => {
    lines.push({
      level: logLevel,
      message: String(Array.isArray(message) ? message.join(" ") : message),
      annotations: { ...fiber.getRef(References.CurrentLogAnnotations) },
      cause: Cause.pretty(cause),
    })
  })
  return {
    lines,
    layer: Layer.mergeAll(Logger.layer([logger]), Layer.succeed(References.MinimumLogLevel)("Trace")),
    said: () => lines.map(({ level, message }) => `${level} ${message}`),
  }
}

const base = { at: 0, call: "c", provider: "a" }

describe("EventLog", () => {
  it.effect("logs each decision in a line, as loud as it matters", () => {
    const { layer, lines, said } = notebook()
    return Effect.gen(function* () {
      const a = stub("a", () => fails(failure("Overloaded"), 20))
      const b = stub("b", () => says("the answer", 30))
      const model = Understudy.make({
        candidates: [{ provider: a.provider }, { provider: b.provider }],
        retry: { times: 1, jitter: "none" },
        name: "both",
      })
      yield* play(ask("generate", model))
      assert.deepStrictEqual(said(), [
        "Debug both: a question",
        "Debug a (a-1): asked (attempt 1)",
        "Warn a (a-1): Overloaded after 20 ms",
        "Info a: Overloaded, will be asked again in 500 ms",
        "Debug a (a-1): asked (attempt 2)",
        "Warn a (a-1): Overloaded after 20 ms",
        "Warn a (a-1): Overloaded, over to b",
        "Debug b (b-1): asked (attempt 3)",
        "Debug b (b-1): answered in 30 ms",
        "Info b (b-1): the answer, after 570 ms and 3 attempts",
      ])
      assert.deepInclude(lines[2]!.annotations, {
        "understudy.event": "AttemptFailed",
        "gen_ai.provider.name": "a",
        "gen_ai.request.model": "a-1",
        "gen_ai.operation.name": "chat",
        "understudy.attempt": 1,
        "understudy.elapsed_ms": 20,
        "error.type": "Overloaded",
        "understudy.failure.same_again": "yes",
        "understudy.failure.next": "yes",
        "understudy.failure.health": "failure",
      })
      assert.strictEqual(new Set(lines.map(({ annotations }) => annotations["understudy.call.id"])).size, 1)
      assert.deepInclude(lines[0]!.annotations, { "understudy.composition": "both" })
    }).pipe(Effect.provide(Layer.mergeAll(EventLog.layer(), Understudy.layer, layer)))
  })

  it.effect("keeps the annotations and levels of the caller, in lines that its own fibers do not write, too", () => {
    const { layer, lines } = notebook()
    return Effect.gen(function* () {
      const a = stub("a", () => hangs)
      const model = a.provider.pipe(Timeouts.with({ attempt: "1 second" }))
      yield* play(ask("generate", model).pipe(Effect.annotateLogs("request", "r-7")))
      assert.strictEqual(lines.length, 4)
      assert.deepStrictEqual(
        lines.map(({ annotations }) => annotations["request"]),
        ["r-7", "r-7", "r-7", "r-7"],
      )
      const quiet = Effect.provideService(ask("generate", model), References.MinimumLogLevel, "Error")
      yield* play(quiet)
      assert.deepStrictEqual(
        lines.slice(4).map(({ level, message }) => [level, message]),
        [["Error", "a: no answer (TimedOut) after 1.00 s and 1 attempt"]],
      )
    }).pipe(Effect.provide(Layer.mergeAll(EventLog.layer(), layer)))
  })

  it.effect("logs at the levels that it is told, and leaves out what it is told to", () => {
    const { layer, said } = notebook()
    return Effect.gen(function* () {
      const hear = yield* EventLog.make({ levels: { CircuitOpened: "Warn", CallStarted: "None" } })
      hear({ event: "CallStarted", ...base })
      hear({ event: "CircuitOpened", ...base, circuit: "a/m", delayMs: 5000 })
      hear({ event: "CircuitClosed", ...base, circuit: "a/m" })
      assert.deepStrictEqual(said(), ["Warn a: circuit opened for 5.00 s", "Info a: circuit closed, healthy again"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("holds nothing of prompts, answers, keys or what a provider said", () => {
    const { layer, lines } = notebook()
    return Effect.gen(function* () {
      const planted = "PLANTED sk-SECRET0123456789"
      const a = stub<LlmError.LlmError | Foreign>(
        "a",
        inTurn(says(planted), streams(timed([0, say(planted)])), fails(new Foreign(planted))),
      )
      for (const kind of [...kinds, "generate"] as const) yield* play(ask(kind, a.provider))
      const told = JSON.stringify(lines)
      assert.include(told, "the answer")
      assert.include(told, "Foreign")
      assert.notMatch(told, /PLANTED|SECRET|Dune/)
    }).pipe(Effect.provide(Layer.mergeAll(EventLog.layer(), layer)))
  })

  it.effect("stays a line of bounded length, whatever a name holds", () => {
    const { layer, lines } = notebook()
    return Effect.gen(function* () {
      const hear = yield* EventLog.make()
      hear({ event: "CallStarted", ...base, provider: "a\u001b[31m\r\nERROR all is lost\u2028\u202e" })
      hear({ event: "CallStarted", ...base, provider: "x".repeat(100_000) })
      for (const event of yield* anyEvents) hear(event)
      assert.strictEqual(lines[0]!.message, "a [31m ERROR all is lost : a question")
      assert.strictEqual(lines.length, 2 + (yield* anyEvents).length)
      for (const { annotations, message } of lines) {
        assert.notMatch(message, /[\p{Cc}\u2028\u2029\u202e]/u)
        assert.isAtMost(message.length, 1000)
        for (const value of Object.values(annotations)) {
          for (const text of [value].flat()) {
            if (typeof text !== "string") continue
            assert.notMatch(text, /[\p{Cc}\u2028\u2029\u202e]/u)
            assert.isAtMost(text.length, 200)
          }
        }
      }
    }).pipe(Effect.provide(layer))
  })

  it.effect("hears events that it does not know by their name", () => {
    const { layer, said } = notebook()
    return Effect.gen(function* () {
      const hear = yield* EventLog.make()
      hear({ event: "Unheard", text: "PLANTED", call: "c" } as unknown as Event)
      assert.deepStrictEqual(said(), ["Debug Unheard"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("remembers so many calls, and counts those that it let go", () => {
    const { layer, lines } = notebook()
    return Effect.gen(function* () {
      const hear = yield* EventLog.make({ maxCalls: 2 })
      const begin = (call: string) =>
        Effect.annotateLogs(
          Effect.sync(() => hear({ event: "CallStarted", ...base, call })),
          "request",
          call,
        )
      for (const call of ["one", "two", "three"]) yield* begin(call)
      for (const call of ["one", "two", "three"]) {
        hear({ event: "CallInterrupted", ...base, call, attempts: 0, elapsedMs: 0 })
      }
      assert.deepStrictEqual(
        lines.slice(3).map(({ annotations }) => annotations["request"]),
        [undefined, "two", "three"],
      )
      const counter = (yield* Metric.snapshot).find(({ id }) => id === "understudy.observer.evictions")
      assert.deepInclude(counter?.state, { count: 1 })
    }).pipe(Effect.provide(layer), Effect.provideService(Metric.MetricRegistry, new Map()))
  })

  it.effect("changes nothing in a call, even when a logger throws", () =>
    Effect.gen(function* () {
      const a = stub("a", inTurn(fails(failure("Overloaded")), says("ok")))
      const { exit } = yield* play(ask("generate", a.provider.pipe(Retry.with())))
      assert.strictEqual(exit._tag === "Success" && exit.value, "ok")
    }).pipe(
      Effect.provide(
        Layer.mergeAll(
          EventLog.layer(),
          Logger.layer([
            Logger.make(() => {
              throw new Error("a logger's bug")
            }),
          ]),
        ),
      ),
    ),
  )

  it("is documented, event by event, with levels and fields", () => {
    const page = readFileSync(new URL("../../../docs/events.md", import.meta.url), "utf8")
    const rows = page.split("\n").flatMap((line) => {
      const [, name = "", level, , fields = ""] = line.split("|").map((cell) => cell.trim().replaceAll("`", ""))
      return Object.hasOwn(known, name) ? [[name, level, fields]] : []
    })
    const common = new Set(["event", "at", "call", "provider", "model", "attempt", "face"])
    const fieldsOf = new Map<string, string>(
      PolicyEvent.PolicyEvent.members.map(({ fields }) => [
        fields.event.schema.literal,
        Object.keys(fields)
          .filter((field) => !common.has(field))
          .join(", "),
      ]),
    )
    assert.deepStrictEqual(
      rows,
      Object.entries(known).map(([name, { level }]) => [name, level, fieldsOf.get(name)]),
    )
  })

  it("refuses options that cannot be meant, and names them", () => {
    // @ts-expect-error -- there is no such event
    assert.throws(() => EventLog.layer({ levels: { CallBegun: "Info" } }), /CallBegun/)
    // @ts-expect-error -- there is no such level
    assert.throws(() => EventLog.layer({ levels: { CallStarted: "Loud" } }), /CallStarted/)
  })
})

describe("Layers of observers", () => {
  const counts = () => {
    const heard: Array<string> = []
    return { heard, hear: (event: Event) => void heard.push(event.event) }
  }
  const call = Effect.suspend(() => ask("generate", stub("a", () => says("ok")).provider))
  const story = ["CallStarted", "AttemptStarted", "AttemptSucceeded", "Answered"]

  it.effect("are all heard when they are merged, and when one is provided inside of another", () =>
    Effect.gen(function* () {
      const [a, b, c, d] = [counts(), counts(), counts(), counts()]
      const merged = Layer.mergeAll(
        PolicyEvent.layer(a.hear),
        Metrics.layer(),
        PolicyEvent.layer(b.hear),
        Spans.layer(),
      )
      const stacked = PolicyEvent.layer(c.hear).pipe(Layer.provideMerge(merged))
      yield* call.pipe(Effect.provide(stacked), PolicyEvent.observe(d.hear))
      assert.deepStrictEqual([a.heard, b.heard, c.heard, d.heard], [story, story, story, story])
      assert.isAbove((yield* Metric.snapshot).length, 5)
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())),
  )

  it.effect("are heard by what is below them, and by nothing beside it or after it", () =>
    Effect.gen(function* () {
      const [outer, left, right] = [counts(), counts(), counts()]
      yield* Effect.gen(function* () {
        yield* Effect.all(
          [
            Effect.provide(call, PolicyEvent.layer(left.hear)),
            Effect.provide(Effect.andThen(call, call), PolicyEvent.layer(right.hear)),
            call,
          ],
          { concurrency: "unbounded" },
        )
        yield* call
      }).pipe(Effect.provide(PolicyEvent.layer(outer.hear)))
      yield* call
      const heard = (names: ReadonlyArray<string>) => names.filter((name) => name === "Answered").length
      assert.deepStrictEqual([outer.heard, left.heard, right.heard].map(heard), [5, 1, 2])
    }),
  )

  it.effect("are heard although one before them throws", () =>
    Effect.gen(function* () {
      const last = counts()
      const broken = PolicyEvent.layer(() => {
        throw new Error("an observer's bug")
      })
      const rejects = PolicyEvent.layer((() => Promise.reject(new Error("an observer's bug"))) as () => void)
      const { exit } = yield* play(Effect.provide(call, Layer.mergeAll(broken, rejects, PolicyEvent.layer(last.hear))))
      assert.strictEqual(exit._tag === "Success" && exit.value, "ok")
      assert.deepStrictEqual(last.heard, story)
    }),
  )

  it.effect("give back what an observer holds when they close", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const observer = Effect.acquireRelease(
        Effect.sync(() => {
          log.push("opened")
          return (event: Event) => void log.push(event.event)
        }),
        () => Effect.sync(() => log.push("closed")),
      )
      yield* Effect.provide(call, PolicyEvent.layerEffect(observer))
      yield* call
      assert.deepStrictEqual(log, ["opened", ...story, "closed"])
    }),
  )
})
