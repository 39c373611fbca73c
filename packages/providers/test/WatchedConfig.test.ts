import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Call, Directory, LanguageModelFace, LanguageModelLayer, PolicyEvent, Understudy } from "@understudy/core"
import { WatchedConfig } from "@understudy/providers"
import {
  ConfigProvider,
  Effect,
  Exit,
  Fiber,
  FileSystem,
  Layer,
  Logger,
  PlatformError,
  Queue,
  Ref,
  Stream,
} from "effect"
import { LanguageModel } from "effect/ai"
import { HttpClient, HttpClientResponse } from "effect/http"
import { TestClock } from "effect/testing"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"

/** A transport that answers with the host that was asked, after some time. */
const echo = (delay = 0) =>
  Layer.succeed(
    HttpClient.HttpClient,
    HttpClient.make((request, url) =>
      Effect.delay(
        Effect.sync(() =>
          HttpClientResponse.fromWeb(
            request,
            Response.json({
              choices: [{ index: 0, finish_reason: "stop", message: { role: "assistant", content: url.hostname } }],
            }),
          ),
        ),
        delay,
      ),
    ),
  )

const candidate = (name: string, more: object = {}) => ({
  name,
  provider: "openai-compatible",
  model: "m",
  baseUrl: `https://${name}.example.com/v1`,
  ...more,
})

const json = (candidates: ReadonlyArray<object>, more: object = {}) =>
  JSON.stringify({ name: "answers", candidates, ...more })

/** A disk with one file, whose folder tells of changes. Nothing: there is no file. */
const disk = (text: string | undefined) =>
  Effect.gen(function* () {
    const file = yield* Ref.make(text)
    const events = yield* Queue.unbounded<FileSystem.WatchEvent, PlatformError.PlatformError>()
    let reads = 0
    let watches = 0
    const layer = FileSystem.layerNoop({
      readFileString: (path) =>
        Effect.flatMap(Ref.get(file), (written) => {
          reads++
          return written === undefined
            ? Effect.fail(
                PlatformError.systemError({
                  module: "FileSystem",
                  method: "readFileString",
                  _tag: "NotFound",
                  pathOrDescriptor: path,
                }),
              )
            : Effect.succeed(written)
        }),
      watch: (_, options) =>
        Stream.suspend(() => {
          watches++
          options?.onReady?.()
          return Stream.fromQueue(events)
        }),
    })
    const changed: FileSystem.WatchEvent = { _tag: "Update", path: "understudy.json" }
    return {
      layer,
      reads: () => reads,
      watches: () => watches,
      breaks: Queue.fail(
        events,
        PlatformError.systemError({ module: "FileSystem", method: "watch", _tag: "Unknown", pathOrDescriptor: "." }),
      ),
      touch: Queue.offer(events, changed),
      silently: (next: string | undefined) => Ref.set(file, next),
      write: (next: string | undefined) => Effect.andThen(Ref.set(file, next), Queue.offer(events, changed)),
    }
  })

const question = LanguageModelFace.request("Who wrote Dune?")

const asked = ({ provider }: WatchedConfig.WatchedConfig) =>
  Effect.map(provider.generate(question), LanguageModelFace.text)

interface Heard {
  readonly events: Array<PolicyEvent.PolicyEvent>
  readonly lines: Array<string>
}

/** What is told while an effect runs: events, and lines of the log. */
const hearing = <A, E, R>(self: (heard: Heard) => Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    const heard: Heard = { events: [], lines: [] }
    const log = Logger.make(({ logLevel, message }) => void heard.lines.push(`${logLevel} ${String(message)}`))
    return self(heard).pipe(
      PolicyEvent.observe((event) => void heard.events.push(event)),
      Effect.provide(Logger.layer([log])),
    )
  })

const configs = ({ events }: Heard) =>
  events.flatMap((event) =>
    event.event === "ConfigApplied"
      ? [`applied +${event.added} -${event.removed}`]
      : event.event === "ConfigRejected"
        ? [`rejected ${event.issues}: ${event.problem}`]
        : [],
  )

const services = Layer.merge(Understudy.layer, echo())

const environment = (env: Record<string, string>) =>
  Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnvRecord(env))

/** Lets the watcher do what it does after something was noticed. */
const later = Effect.forEach(Array.from({ length: 12 }), () => TestClock.adjust("250 millis"), { discard: true })

describe("WatchedConfig", () => {
  it.effect("asks by the new file from the next call on", () =>
    hearing((heard) =>
      Effect.gen(function* () {
        const { layer, write } = yield* disk(json([candidate("a"), candidate("b", { priority: 1 })]))
        yield* Effect.gen(function* () {
          const watched = yield* WatchedConfig.make()
          assert.strictEqual(yield* asked(watched), "a.example.com")
          yield* write(json([candidate("a", { enabled: false }), candidate("b", { priority: 1 })]))
          yield* later
          assert.strictEqual(yield* asked(watched), "b.example.com")
          yield* write(json([candidate("a"), candidate("b", { priority: -1 })]))
          yield* later
          assert.strictEqual(yield* asked(watched), "b.example.com")
          assert.strictEqual(watched.provider.name, "answers")
          assert.deepStrictEqual(configs(heard), ["applied +0 -0", "applied +0 -0"])
          assert.deepStrictEqual(
            heard.events.flatMap((event) =>
              event.event === "CandidateChanged" ? [[event.provider, event.settings, event.by]] : [],
            ),
            [
              ["a", "enabled: false", "file"],
              ["a", "enabled: true", "file"],
              ["b", "priority: -1", "file"],
            ],
          )
          assert.strictEqual(heard.lines[0], "Info The configuration in understudy.json has changed, and holds now.")
        }).pipe(Effect.provide(layer))
      }).pipe(Effect.provide(services)),
    ),
  )

  it.effect("takes in candidates that are new, forgets those that are gone, and applies every other option", () =>
    hearing((heard) =>
      Effect.gen(function* () {
        const { layer, write } = yield* disk(json([candidate("a"), candidate("b")]))
        yield* Effect.gen(function* () {
          const watched = yield* WatchedConfig.make()
          yield* Directory.disable("answers", "b")
          yield* write(
            json([candidate("c", { contextWindow: 1000, tags: ["eu"] }), candidate("a")], { deadline: false }),
          )
          yield* later
          assert.strictEqual(yield* asked(watched), "c.example.com")
          assert.strictEqual(yield* asked(watched).pipe(Call.pin("a")), "a.example.com")
          assert.deepStrictEqual(configs(heard), ["applied +1 -1"])
          const status = yield* Directory.status
          assert.deepStrictEqual(
            status.map((one) => [one.candidate, one.contextWindow, one.tags]),
            [
              ["a", undefined, []],
              ["c", 1000, ["eu"]],
            ],
          )
        }).pipe(Effect.provide(layer))
      }).pipe(Effect.provide(services)),
    ),
  )

  const wrong: ReadonlyArray<readonly [what: string, text: string, problem: RegExp]> = [
    ["no JSON", '{"candidates": [{"name": "sk-secret"', /^rejected 1: Expected JSON/],
    ["empty", "", /^rejected 1: Expected JSON/],
    ["a misspelt option", json([candidate("a", { priorty: 1 })]), /^rejected 1: candidates\[0\]\.priorty/],
    ["an unknown provider", json([candidate("a", { provider: "opnai" })]), /^rejected 1: candidates\[0\]\.provider/],
    ["a name twice", json([candidate("a"), candidate("a")]), /^rejected 1: candidates\[1\]\.name/],
    ["a key that is missing", json([candidate("a", { apiKeyEnv: "MY_KEY" })]), /^rejected 1: .*MY_KEY/],
    ["nobody", json([]), /^rejected 1: candidates/],
    ["two mistakes", json([candidate("a", { priority: "sk-secret", weight: -1 })]), /^rejected 2: /],
    ["another name", json([candidate("a")], { name: "others" }), /^rejected 1: name: Expected "answers"/],
    [
      "options that do not go together",
      json([candidate("a")], { breaker: { failures: 3, trip: { consecutive: 4 } } }),
      /^rejected 1/,
    ],
  ]
  for (const [what, text, problem] of wrong) {
    it.effect(`keeps the last good one, and says where it is wrong, once: ${what}`, () =>
      hearing((heard) =>
        Effect.gen(function* () {
          const { layer, touch, write } = yield* disk(json([candidate("a")]))
          yield* Effect.gen(function* () {
            const watched = yield* WatchedConfig.make()
            yield* write(text)
            yield* later
            yield* touch
            yield* TestClock.adjust("1 minute")
            assert.strictEqual(yield* asked(watched), "a.example.com")
            const told = configs(heard)
            assert.lengthOf(told, 1)
            assert.match(told[0]!, problem)
            const status = yield* watched.status
            assert.isAtLeast(status.rejected?.problems.length ?? 0, 1)
            const warnings = heard.lines.filter((line) => line.startsWith("Warn"))
            assert.lengthOf(warnings, 1)
            assert.include(warnings[0], "understudy.json")
            assert.include(warnings[0], "The last good one stays.")
            assert.notInclude(JSON.stringify([heard, status]), "sk-secret")
            // When it is mended, it holds.
            yield* write(json([candidate("b")]))
            yield* later
            assert.strictEqual(yield* asked(watched), "b.example.com")
            assert.isUndefined((yield* watched.status).rejected)
          }).pipe(Effect.provide(layer))
        }).pipe(Effect.provide(services), environment({})),
      ),
    )
  }

  it.effect("reads a file that is half written again, and says nothing of it", () =>
    hearing((heard) =>
      Effect.gen(function* () {
        const whole = json([candidate("b")])
        const { layer, silently, write } = yield* disk(json([candidate("a")]))
        yield* Effect.gen(function* () {
          const watched = yield* WatchedConfig.make({ poll: false })
          yield* write("")
          yield* TestClock.adjust("300 millis")
          yield* silently(whole.slice(0, 30))
          yield* TestClock.adjust("500 millis")
          yield* silently(whole)
          yield* later
          assert.strictEqual(yield* asked(watched), "b.example.com")
          assert.deepStrictEqual(configs(heard), ["applied +1 -1"])
        }).pipe(Effect.provide(layer))
      }).pipe(Effect.provide(services)),
    ),
  )

  it.effect("tells that the file is gone, and goes on with the last good one until there is another", () =>
    hearing((heard) =>
      Effect.gen(function* () {
        const { layer, write } = yield* disk(json([candidate("a")]))
        yield* Effect.gen(function* () {
          const watched = yield* WatchedConfig.make()
          yield* write(undefined)
          yield* later
          assert.deepStrictEqual(configs(heard), ["rejected 1: Expected a file that can be read (NotFound)"])
          assert.strictEqual(yield* asked(watched), "a.example.com")
          // It is back as it was: there is nothing to apply.
          yield* write(json([candidate("a")]))
          yield* later
          assert.isUndefined((yield* watched.status).rejected)
          assert.lengthOf(configs(heard), 1)
        }).pipe(Effect.provide(layer))
      }).pipe(Effect.provide(services)),
    ),
  )

  it.effect("looks at the file now and then where nothing is noticed, and watches again when watching ends", () =>
    Effect.gen(function* () {
      const { breaks, layer, silently, watches } = yield* disk(json([candidate("a")]))
      yield* Effect.gen(function* () {
        const watched = yield* WatchedConfig.make({ poll: "5 seconds" })
        yield* later
        yield* breaks
        yield* silently(json([candidate("b")]))
        yield* TestClock.adjust("4 seconds")
        yield* TestClock.adjust("6 seconds")
        assert.strictEqual(yield* asked(watched), "b.example.com")
        assert.isAtLeast(watches(), 2)
      }).pipe(Effect.provide(layer))
    }).pipe(Effect.provide(services)),
  )

  it.effect("reads no more than now and then in a folder where something changes all the time", () =>
    Effect.gen(function* () {
      const { layer, reads, silently, touch } = yield* disk(json([candidate("a")]))
      yield* Effect.gen(function* () {
        const watched = yield* WatchedConfig.make({ poll: false })
        yield* silently(json([candidate("b")]))
        const before = reads()
        for (let n = 0; n < 200; n++) {
          yield* touch
          yield* TestClock.adjust("50 millis")
        }
        assert.isAtMost(reads() - before, 20)
        assert.strictEqual(yield* asked(watched), "b.example.com")
      }).pipe(Effect.provide(layer))
    }).pipe(Effect.provide(services)),
  )

  it.effect("leaves calls in flight alone", () =>
    Effect.gen(function* () {
      const { layer, write } = yield* disk(json([candidate("a"), candidate("b")]))
      yield* Effect.gen(function* () {
        const watched = yield* WatchedConfig.make()
        const call = yield* Effect.forkChild(asked(watched))
        yield* TestClock.adjust("1 second")
        yield* write(json([candidate("b")]))
        yield* later
        const next = yield* Effect.forkChild(asked(watched))
        yield* TestClock.adjust("20 seconds")
        assert.deepStrictEqual([yield* Fiber.join(call), yield* Fiber.join(next)], ["a.example.com", "b.example.com"])
      }).pipe(Effect.provide(layer))
    }).pipe(Effect.provide(Layer.merge(Understudy.layer, echo(10_000)))),
  )

  it.effect("keeps what was set by hand, but for what the file says anew", () =>
    Effect.gen(function* () {
      const { layer, write } = yield* disk(json([candidate("a"), candidate("b")]))
      yield* Effect.gen(function* () {
        const watched = yield* WatchedConfig.make()
        yield* Directory.update("answers", "a", { enabled: false, weight: 5 })
        yield* write(json([candidate("a"), candidate("b", { contextWindow: 5000 })]))
        yield* later
        assert.strictEqual(yield* asked(watched), "b.example.com")
        yield* write(json([candidate("a", { enabled: true }), candidate("b")]))
        yield* later
        assert.strictEqual(yield* asked(watched), "a.example.com")
        assert.deepStrictEqual((yield* Directory.status)[0]?.overrides, { weight: 5 })
      }).pipe(Effect.provide(layer))
    }).pipe(Effect.provide(services)),
  )

  it.effect("reads the file when it is told to, and says what is wrong with it", () =>
    Effect.gen(function* () {
      const { layer, silently } = yield* disk(json([candidate("a")]))
      yield* Effect.gen(function* () {
        const watched = yield* WatchedConfig.make({ poll: false })
        yield* silently(json([candidate("b")]))
        yield* watched.reload
        assert.strictEqual(yield* asked(watched), "b.example.com")
        yield* silently("{")
        assert.strictEqual((yield* Effect.flip(watched.reload))._tag, "InvalidConfig")
        assert.strictEqual(yield* asked(watched), "b.example.com")
      }).pipe(Effect.provide(layer))
    }).pipe(Effect.provide(services)),
  )

  it.effect("fails at the start for a file that cannot be used", () =>
    Effect.gen(function* () {
      const fails = (text: string | undefined) =>
        Effect.flatMap(disk(text), ({ layer }) =>
          Effect.flip(WatchedConfig.make({ file: "ops.json" })).pipe(Effect.provide(layer)),
        )
      assert.include(
        (yield* fails(undefined)).message,
        "ops.json is not valid:\n  Expected a file that can be read (NotFound)",
      )
      assert.strictEqual((yield* fails("{"))._tag, "InvalidConfig")
      assert.strictEqual((yield* fails(json([candidate("a", { apiKeyEnv: "MY_KEY" })])))._tag, "MissingApiKey")
    }).pipe(environment({})),
  )

  it.effect("needs no directory, and no name", () =>
    Effect.gen(function* () {
      const { layer, write } = yield* disk(JSON.stringify({ candidates: [candidate("a"), candidate("b")] }))
      yield* Effect.gen(function* () {
        const watched = yield* WatchedConfig.make()
        assert.strictEqual(watched.provider.name, "a | b")
        yield* write(JSON.stringify({ candidates: [candidate("c")] }))
        yield* later
        assert.strictEqual(yield* asked(watched), "c.example.com")
        const failing = yield* Effect.exit(asked(watched).pipe(Call.exclude("c")))
        assert.isTrue(Exit.isFailure(failing))
        assert.include(String(failing), "a | b")
      }).pipe(Effect.provide(layer))
    }).pipe(Effect.provide(services)),
  )
})

describe("A real file", () => {
  const folder = Effect.acquireRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "understudy-watch-"))),
    (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true })),
  )
  /** Asks until the answer is this one. */
  const until = (expected: string, ask: Effect.Effect<string, unknown>) =>
    Effect.gen(function* () {
      for (let n = 0; n < 200; n++) {
        if ((yield* Effect.orDie(ask)) === expected) return
        yield* Effect.sleep("20 millis")
      }
      return assert.fail(`${expected} was never asked`)
    })

  it.live("is noticed when it is written, replaced by another, or removed and made again", () =>
    hearing((heard) =>
      Effect.gen(function* () {
        const path = yield* folder
        const file = Path.join(path, "understudy.json")
        Fs.writeFileSync(file, json([candidate("a")]))
        // Only what the system tells of changes counts.
        const options = { file, poll: false, debounce: "20 millis", settle: "50 millis" } as const
        const context = yield* Layer.build(
          WatchedConfig.layer(LanguageModelLayer.layer, options).pipe(
            Layer.provide(Layer.mergeAll(services, NodeServices.layer)),
          ),
        )
        const ask = LanguageModel.generateText({ prompt: "Who wrote Dune?" }).pipe(
          Effect.map(({ text }) => text),
          Effect.provideContext(context),
        )
        yield* until("a.example.com", ask)
        Fs.writeFileSync(file, json([candidate("b")]))
        yield* until("b.example.com", ask)
        // As editors and deployments do it.
        Fs.writeFileSync(`${file}.new`, json([candidate("c")]))
        Fs.renameSync(`${file}.new`, file)
        yield* until("c.example.com", ask)
        Fs.writeFileSync(file, '{"candidates": [')
        yield* Effect.sleep("10 millis")
        Fs.rmSync(file)
        Fs.writeFileSync(file, json([candidate("d")]))
        yield* until("d.example.com", ask)
        // And again, since whoever watches a file and not its folder loses it here.
        Fs.writeFileSync(file, json([candidate("e")]))
        yield* until("e.example.com", ask)
        const applied = configs(heard).filter((line) => line.startsWith("applied"))
        assert.deepStrictEqual(
          applied,
          Array.from({ length: 4 }, () => "applied +1 -1"),
        )
      }).pipe(Effect.scoped),
    ),
  )
})
