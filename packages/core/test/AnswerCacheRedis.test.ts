/** On a real Redis: the one of `REDIS_URL`, or a private one that is killed and started again. */
import { NodeRedis } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, References, type Scope } from "effect"
import * as Persistence from "effect/persistence/Persistence"
import * as Redis from "effect/persistence/Redis"
import { AnswerCache, Call, Degradation, LanguageModelFace } from "@understudy/core"
import { type ChildProcess, execFile, spawn, spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { listener } from "./PolicyEvent.check.ts"
import { says, stub, textOf } from "./stub.ts"

const shared = process.env["REDIS_URL"]
const hasServer = spawnSync("redis-server", ["--version"]).status === 0

if (!hasServer) {
  const missing = "No redis-server here: what is true of a lost Redis is not shown on a real one."
  if (process.env["CI"] !== undefined) throw new Error(missing)
  process.stderr.write(`${missing}\n`)
}

const freePort = Effect.promise(
  () =>
    new Promise<number>((done) => {
      const server = createServer().listen(0, "127.0.0.1", () => {
        const address = server.address()
        server.close(() => done(typeof address === "object" && address !== null ? address.port : 0))
      })
    }),
)

/** A private Redis that keeps nothing on the disk, and can be killed. */
const privateRedis: Effect.Effect<
  { readonly url: string; readonly start: Effect.Effect<void>; readonly kill: Effect.Effect<void> },
  never,
  Scope.Scope
> = Effect.gen(function* () {
  const port = yield* freePort
  const folder = mkdtempSync(join(tmpdir(), "understudy-redis-"))
  let child: ChildProcess | undefined
  const start = Effect.promise(
    () =>
      new Promise<void>((ready, failed) => {
        const options = [
          "--bind",
          "127.0.0.1",
          "--port",
          `${port}`,
          "--save",
          "",
          "--appendonly",
          "no",
          "--dir",
          folder,
        ]
        const started = (child = spawn("redis-server", options, { stdio: ["ignore", "pipe", "inherit"] }))
        started.on("error", failed)
        started.stdout.setEncoding("utf8").on("data", (text: string) => {
          if (text.includes("Ready to accept connections")) ready()
        })
      }),
  )
  const kill = Effect.promise(
    () =>
      new Promise<void>((gone) => {
        if (child === undefined || child.exitCode !== null || child.signalCode !== null) return gone()
        child.once("exit", () => gone())
        child.kill("SIGKILL")
      }),
  )
  yield* Effect.addFinalizer(() =>
    Effect.andThen(
      kill,
      Effect.sync(() => rmSync(folder, { recursive: true, force: true })),
    ),
  )
  return { url: `redis://127.0.0.1:${port}`, start, kill }
})

const aRedis = Effect.gen(function* () {
  if (shared !== undefined) return shared
  const { start, url } = yield* privateRedis
  yield* start
  return url
})

/** The client tells of every lost connection, which is what is wanted here. */
const quiet = Layer.succeed(References.MinimumLogLevel)("None")

const asked = (text: string) => LanguageModelFace.request(text)

const lead = () => stub("lead", (attempt) => says(`answer ${attempt}`))

const readThrough = (provider: ReturnType<typeof lead>["provider"]) =>
  Degradation.make([
    Degradation.cache({ scope: "tenant", timeToLive: "1 minute" }),
    Degradation.primary(provider),
    Degradation.fallback("We will be back."),
  ])

/** One call: its source, its text, and how long it took in milliseconds. */
const call = (ladder: ReturnType<typeof readThrough>, question: string, tenant = "a") =>
  Effect.gen(function* () {
    const begun = performance.now()
    const { answer, source } = yield* ladder.ask(asked(question)).pipe(Call.withCache({ tenant }))
    return { source, text: textOf(answer), millis: performance.now() - begun }
  })

const pause = (millis: number) => Effect.sleep(millis)

/** Tries again until the answer comes from the cache, for ten seconds. */
const untilCached = (one: Effect.Effect<{ readonly source: string }, unknown, AnswerCache.AnswerCache>) =>
  Effect.gen(function* () {
    for (let n = 0; n < 500; n++) {
      if ((yield* one).source === "cache") return true
      yield* pause(20)
    }
    return false
  })

/** For tests that are not about time, on a machine with other things to do. */
const patient = { readTimeout: "10 seconds", writeTimeout: "10 seconds" } as const

/** Much less than the Redis is gone for, and enough for a machine with other things to do. */
const bound = 600

describe.skipIf(!hasServer && shared === undefined)("Answers in a Redis", () => {
  it.live("are found by others: another client, another layer, another process", () =>
    Effect.gen(function* () {
      const url = yield* aRedis
      const run = `${Date.now()}-${process.pid}`
      const question = `Who wrote Dune? ${run}`
      const first = lead()
      const ladder = readThrough(first.provider)
      const redis = NodeRedis.layer({ url })
      yield* Effect.gen(function* () {
        assert.strictEqual((yield* call(ladder, question)).source, "primary")
        assert.isTrue(yield* untilCached(call(ladder, question)))
      }).pipe(Effect.provide(AnswerCache.layerRedis(redis, patient)))
      const persisted = AnswerCache.layerPersistence(patient).pipe(
        Layer.provide(Persistence.layerBackingRedis),
        Layer.provide(NodeRedis.layer({ url })),
      )
      yield* Effect.gen(function* () {
        assert.deepInclude(yield* call(ladder, question), { source: "cache", text: "answer 1" })
        assert.strictEqual((yield* call(ladder, question, "another tenant")).source, "primary")
      }).pipe(Effect.provide(persisted))
      const elsewhere = yield* Effect.promise(
        () =>
          new Promise<string>((done, failed) => {
            const code = `
              import { NodeRedis } from "@effect/platform-node"
              import { Effect } from "effect"
              import * as AnswerCache from "@understudy/core/AnswerCache"
              import * as Call from "@understudy/core/Call"
              import * as Degradation from "@understudy/core/Degradation"
              import * as LanguageModelFace from "@understudy/core/LanguageModelFace"
              import * as Provider from "@understudy/core/Provider"
              const provider = Provider.make({
                name: "lead", model: "lead-1", face: LanguageModelFace.languageModelFace,
                generate: () => Effect.die("asked"), stream: () => Effect.die("asked"),
              })
              const ladder = Degradation.make([Degradation.cache({ scope: "tenant" }), Degradation.primary(provider)])
              const { answer, source } = await ladder.ask(LanguageModelFace.request(process.argv[1])).pipe(
                Call.withCache({ tenant: "a" }),
                Effect.provide(AnswerCache.layerRedis(NodeRedis.layer({ url: process.argv[2] }), { readTimeout: "10 seconds" })),
                Effect.runPromise,
              )
              process.stdout.write(source + ": " + LanguageModelFace.text(answer))`
            execFile(
              process.execPath,
              ["--input-type=module", "--eval", code, question, url],
              { cwd: new URL("..", import.meta.url) },
              (error, stdout) => (error === null ? done(stdout) : failed(error)),
            )
          }),
      )
      assert.strictEqual(elsewhere, "cache: answer 1")
    }),
  )

  it.live("of which one has become a list keep being given: only that one is asked for again", () =>
    Effect.gen(function* () {
      const url = yield* aRedis
      const storeId = `list ${Date.now()}-${process.pid}`
      const ladder = readThrough(lead().provider)
      const heard = listener()
      yield* Effect.gen(function* () {
        const redis = yield* Redis.Redis
        assert.isTrue(yield* untilCached(call(ladder, "Who wrote Dune?")))
        const keys = yield* redis.send<ReadonlyArray<string>>("KEYS", `*${storeId}*`)
        assert.strictEqual(keys.length, 1)
        yield* redis.send("DEL", keys[0]!)
        yield* redis.send("LPUSH", keys[0]!, "1")
        assert.isTrue(yield* untilCached(call(ladder, "Who wrote Emma?")))
        assert.strictEqual((yield* heard.effect(call(ladder, "Who wrote Dune?"))).source, "primary")
        assert.deepInclude(
          heard.events.find(({ event }) => event === "CacheUnavailable"),
          { operation: "read", why: "unreadable" },
        )
        assert.strictEqual((yield* call(ladder, "Who wrote Emma?")).source, "cache")
        assert.isTrue(yield* untilCached(call(ladder, "Who wrote Dune?")))
      }).pipe(
        Effect.provide(AnswerCache.layerRedis(NodeRedis.layer({ url }), { ...patient, storeId })),
        Effect.provide(NodeRedis.layer({ url })),
      )
    }),
  )

  it.live("of a program that ends at once are there for the next", () =>
    Effect.gen(function* () {
      const url = yield* aRedis
      const question = `At once? ${Date.now()}-${process.pid}`
      const ladder = readThrough(lead().provider)
      const once = () =>
        call(ladder, question).pipe(Effect.provide(AnswerCache.layerRedis(NodeRedis.layer({ url }), patient)))
      assert.strictEqual((yield* once()).source, "primary")
      assert.strictEqual((yield* once()).source, "cache")
    }),
  )
})

describe.skipIf(!hasServer)("A Redis that is killed", () => {
  for (const [name, options] of [
    ["with a client that fails at once while it is gone", { disableOfflineQueue: true }],
    ["with a client that holds commands back", {}],
  ] as const) {
    it.live(
      `${name}, and started again in the middle of a run: every call is answered in time, and the cache comes back`,
      () =>
        Effect.gen(function* () {
          const redis = yield* privateRedis
          yield* redis.start
          const stubbed = lead()
          const ladder = readThrough(stubbed.provider)
          const heard = listener()
          const calls: Array<{ readonly source: string; readonly text: string; readonly millis: number }> = []
          let n = 0
          const one = Effect.suspend(() => heard.effect(call(ladder, `question ${n++ % 3}`))).pipe(
            Effect.tap((done) => Effect.sync(() => calls.push(done))),
          )
          const for_ = (millis: number) =>
            Effect.gen(function* () {
              const end = performance.now() + millis
              const from = calls.length
              while (performance.now() < end) {
                yield* Effect.all([one, one], { concurrency: "unbounded" })
                yield* pause(15)
              }
              return calls.slice(from)
            })
          const sources = (done: typeof calls) => new Set(done.map(({ source }) => source))
          const cached = (done: typeof calls) => done.filter(({ source }) => source === "cache").length

          yield* Effect.gen(function* () {
            assert.isTrue(yield* untilCached(one))
            const before = yield* for_(300)
            assert.isAbove(cached(before), before.length / 2)

            yield* redis.kill
            heard.events.length = 0
            const gone = yield* for_(1200)
            assert.deepStrictEqual(sources(gone), new Set(["primary"]))
            assert.isTrue(
              heard.events.some((event) => event.event === "CacheUnavailable" && event.operation === "read"),
            )
            assert.isAbove(gone.length, 10)

            yield* redis.start
            assert.isTrue(yield* untilCached(one))
            const after = yield* for_(300)
            assert.isAbove(cached(after), after.length / 2)
          }).pipe(
            Effect.provide(
              AnswerCache.layerRedis(NodeRedis.layer({ url: redis.url, ...options }), { coolDown: "200 millis" }),
            ),
          )
          const slowest = Math.max(...calls.map(({ millis }) => millis))
          assert.isBelow(slowest, bound)
          assert.isFalse(calls.some(({ source }) => source === "fallback"))
        }).pipe(Effect.provide(quiet)),
    )
  }

  it.live("before the program starts stops nobody, and is found when it comes", () =>
    Effect.gen(function* () {
      const redis = yield* privateRedis
      const ladder = readThrough(lead().provider)
      const begun = performance.now()
      yield* Effect.gen(function* () {
        const first = yield* call(ladder, "Anybody?")
        assert.strictEqual(first.source, "primary")
        assert.isBelow(performance.now() - begun, bound)
        yield* redis.start
        assert.isTrue(yield* untilCached(call(ladder, "Anybody?")))
      }).pipe(Effect.provide(AnswerCache.layerRedis(NodeRedis.layer({ url: redis.url }), { coolDown: "100 millis" })))
    }).pipe(Effect.provide(quiet)),
  )

  it.live("and stays away does not keep a program from ending", () =>
    Effect.gen(function* () {
      const redis = yield* privateRedis
      yield* redis.start
      const ladder = readThrough(lead().provider)
      let begun = 0
      yield* Effect.gen(function* () {
        assert.isTrue(yield* untilCached(call(ladder, "Anybody?")))
        yield* redis.kill
        yield* call(ladder, "Anybody else?")
        begun = performance.now()
      }).pipe(Effect.provide(AnswerCache.layerRedis(NodeRedis.layer({ url: redis.url }))))
      assert.isBelow(performance.now() - begun, 2000 + bound)
    }).pipe(Effect.provide(quiet)),
  )
})
