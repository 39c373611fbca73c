import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Layer } from "effect"
import * as Persistence from "effect/persistence/Persistence"
import * as Redis from "effect/persistence/Redis"
import { TestClock } from "effect/testing"
import { AnswerCache, Degradation, type LlmError, Understudy } from "@understudy/core"
import { bytesOf, MemoryStore } from "../src/internal/cache/memory.ts"
import { assertInOrder, listener } from "./PolicyEvent.check.ts"
import { ask, fails, failure, inTurn, play, random, said, says, type Script, settle, stub } from "./stub.ts"

type Store = Persistence.BackingPersistenceStore

const broken = Effect.fail(new Persistence.PersistenceError({ message: "gone" }))

/** A store of effects that a test decides about, and what it was asked. */
const backing = () => {
  const entries = new Map<string, object>()
  const store = {
    get: (key: string): ReturnType<Store["get"]> => Effect.sync(() => entries.get(key)),
    set: (key: string, value: object): ReturnType<Store["set"]> => Effect.sync(() => void entries.set(key, value)),
  }
  const calls = { get: 0, set: 0 }
  const layer = Layer.succeed(Persistence.BackingPersistence)({
    make: () =>
      Effect.succeed({
        get: (key) => Effect.suspend(() => (calls.get++, store.get(key))),
        set: (key, value) => Effect.suspend(() => (calls.set++, store.set(key, value))),
        getMany: () => broken,
        setMany: () => broken,
        remove: () => broken,
        clear: broken,
      }),
  })
  const cache = (options?: AnswerCache.Options) => Layer.provide(AnswerCache.layerPersistence(options), layer)
  return { store, calls, entries, cache }
}

const entry = (value: unknown): AnswerCache.Entry => ({ v: 1, at: 0, by: { provider: "p", model: "m" }, value })
const minute = Duration.minutes(1)

/** Writes, and tells how it went once that is known. */
const write = (key: string, value: unknown, retain = minute) =>
  Effect.gen(function* () {
    const cache = yield* AnswerCache.AnswerCache
    const outcomes: Array<AnswerCache.Written> = []
    yield* cache.write(key, entry(value), retain, (outcome) => outcomes.push(outcome))
    return outcomes
  })

const read = (key: string, within = Infinity) =>
  Effect.flatMap(AnswerCache.AnswerCache, (cache) =>
    Effect.map(cache.read(key, within), (found) =>
      found._tag === "Found"
        ? found.entry.value
        : found._tag === "Unavailable"
          ? `Unavailable: ${found.why}`
          : found._tag,
    ),
  )

// --- In memory

interface Modelled {
  readonly key: string
  readonly text: string
  readonly until: number
}

/** The store as a list: the entry that was used last stands at the end. */
class Model {
  entries: ReadonlyArray<Modelled> = []
  readonly counts = { hits: 0, expired: 0, overCapacity: 0, overBytes: 0, tooLarge: 0 }
  readonly capacity: number
  readonly maxBytes: number

  constructor(capacity: number, maxBytes: number) {
    this.capacity = capacity
    this.maxBytes = maxBytes
  }

  get bytes(): number {
    return this.entries.reduce((sum, { key, text }) => sum + bytesOf(key) + bytesOf(text), 0)
  }

  get(key: string, now: number): string | undefined {
    const found = this.entries.find((e) => e.key === key)
    if (found === undefined) return undefined
    const others = this.entries.filter((e) => e !== found)
    if (found.until <= now) {
      this.counts.expired++
      this.entries = others
      return undefined
    }
    this.counts.hits++
    this.entries = [...others, found]
    return found.text
  }

  set(key: string, text: string, until: number): boolean {
    this.entries = this.entries.filter((e) => e.key !== key)
    if (bytesOf(key) + bytesOf(text) > this.maxBytes) {
      this.counts.tooLarge++
      return false
    }
    this.entries = [...this.entries, { key, text, until }]
    while (this.entries.length > this.capacity || this.bytes > this.maxBytes) {
      if (this.entries.length > this.capacity) this.counts.overCapacity++
      else this.counts.overBytes++
      this.entries = this.entries.slice(1)
    }
    return true
  }
}

describe("Answers in memory", () => {
  it("behave as a list that is ordered by use, cut at its capacity, its bytes and its times", () => {
    const counts = { hits: 0, expired: 0, overCapacity: 0, overBytes: 0, tooLarge: 0 }
    for (let seed = 0; seed < 60; seed++) {
      const chance = random(seed)
      const limits = { capacity: chance.int(1, 8), maxBytes: chance.int(20, 160) }
      const store = new MemoryStore(limits)
      const model = new Model(limits.capacity, limits.maxBytes)
      let now = 0
      for (let step = 0; step < 400; step++) {
        now += chance.int(0, 5)
        const key = `k${chance.int(0, 12)}`
        if (chance.chance(0.5)) {
          assert.strictEqual(store.get(key, now), model.get(key, now))
        } else {
          const text = chance.pick(["x", "é", "😀"]).repeat(chance.int(0, chance.chance(0.05) ? 200 : 30))
          const until = now + chance.int(1, 40)
          assert.strictEqual(store.set(key, text, until), model.set(key, text, until))
        }
        assert.strictEqual(store.size, model.entries.length)
        assert.strictEqual(store.bytes, model.bytes)
        assert.isAtMost(store.size, limits.capacity)
        assert.isAtMost(store.bytes, limits.maxBytes)
      }
      for (const name of ["hits", "expired", "overCapacity", "overBytes", "tooLarge"] as const) {
        counts[name] += model.counts[name]
      }
    }
    for (const count of Object.values(counts)) assert.isAbove(count, 100)
  })

  it.effect("are there until their time, by the clock", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* write("k", "kept"), ["written"])
      yield* TestClock.adjust("59 seconds")
      assert.strictEqual(yield* read("k"), "kept")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* read("k"), "Nothing")
      assert.strictEqual(yield* read("other"), "Nothing")
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it.effect("are no larger than an entry may be, and as many as there may be", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* write("long", "x".repeat(100)), ["too large"])
      assert.deepStrictEqual(yield* write("none", 1n), ["failed"])
      for (const key of ["a", "b", "c"]) yield* write(key, key)
      assert.deepStrictEqual(yield* Effect.forEach(["long", "none", "a", "b", "c"], (key) => read(key)), [
        "Nothing",
        "Nothing",
        "Nothing",
        "b",
        "c",
      ])
    }).pipe(Effect.provide(AnswerCache.layerMemory({ maxEntryBytes: 120, capacity: 2 }))),
  )

  it.effect("do not change when somebody changes what was put in, or what came out", () =>
    Effect.gen(function* () {
      const value = { texts: ["a"] }
      yield* write("k", value)
      value.texts.push("b")
      const first = (yield* read("k")) as typeof value
      first.texts.push("c")
      assert.deepStrictEqual(yield* read("k"), { texts: ["a"] })
    }).pipe(Effect.provide(AnswerCache.layerMemory())),
  )

  it("are refused options that cannot be meant", () => {
    assert.throws(() => AnswerCache.layerMemory({ capacity: 0 }), /AnswerCache\.layerMemory.*capacity/s)
    assert.throws(
      () => AnswerCache.layerPersistence({ readTimeout: -1 }),
      /AnswerCache\.layerPersistence.*readTimeout/s,
    )
    assert.throws(() => AnswerCache.layerPersistence({ storeId: "" }), Understudy.InvalidOptions)
  })
})

// --- In a store

describe("Answers in a store", () => {
  it.effect("come back, for as long as they were to be kept", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* write("k", { a: [1] }), ["written"])
      assert.deepStrictEqual(yield* read("k"), { a: [1] })
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* read("k"), "Nothing")
    }).pipe(Effect.provide(Layer.provide(AnswerCache.layerPersistence(), Persistence.layerBackingMemory))),
  )

  it.effect("that does not answer are waited for 100 milliseconds, and not again for 5 seconds", () =>
    Effect.gen(function* () {
      const { cache, calls, store } = backing()
      // Not even one that cannot be interrupted is waited for.
      store.get = () => Effect.uninterruptible(Effect.never)
      const reading = play(read("k"))
      yield* Effect.gen(function* () {
        const first = yield* reading
        assert.deepStrictEqual([first.exit, first.millis], [Exit.succeed("Unavailable: too slow"), 100])
        yield* TestClock.adjust("4999 millis")
        const second = yield* reading
        assert.deepStrictEqual([second.exit, second.millis, calls.get], [first.exit, 0, 1])
        yield* TestClock.adjust("1 millis")
        const third = yield* reading
        assert.deepStrictEqual([third.exit, third.millis, calls.get], [first.exit, 100, 2])
      }).pipe(Effect.provide(cache()))
    }),
  )

  it.effect("that was given up on is told so", () =>
    Effect.gen(function* () {
      const { cache, store } = backing()
      let stopped = 0
      const slow = Effect.onInterrupt(Effect.never, () => Effect.sync(() => void stopped++))
      store.get = () => slow
      store.set = () => slow
      yield* Effect.gen(function* () {
        yield* play(read("k"))
        assert.strictEqual(stopped, 1)
        yield* write("k", 1)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(stopped, 2)
      }).pipe(Effect.provide(cache()))
    }),
  )

  it.effect("that fails, dies or throws are not there, and no failure of anybody", () =>
    Effect.gen(function* () {
      for (const get of [
        () => broken,
        () => Effect.die("boom"),
        () => {
          throw new Error("boom")
        },
      ]) {
        const { cache, calls, store } = backing()
        store.get = get
        yield* Effect.gen(function* () {
          assert.strictEqual(yield* read("k"), "Unavailable: failed")
          assert.strictEqual(yield* read("k"), "Unavailable: failed")
          assert.strictEqual(calls.get, 1)
        }).pipe(Effect.provide(cache()))
      }
    }),
  )

  it.effect("that comes back is found by one call, while the others do without", () =>
    Effect.gen(function* () {
      const { cache, calls, entries, store } = backing()
      const get = store.get
      entries.set("k", entry("kept"))
      yield* Effect.gen(function* () {
        store.get = () => broken
        yield* read("k")
        yield* TestClock.adjust("5 seconds")
        store.get = (key) => Effect.delay(get(key), "50 millis")
        const all = yield* play(Effect.all([read("k"), read("k"), read("k")], { concurrency: "unbounded" }))
        assert.deepStrictEqual(all.exit, Exit.succeed(["kept", "Unavailable: failed", "Unavailable: failed"]))
        assert.deepStrictEqual([all.millis, calls.get], [50, 2])
        const after = yield* play(Effect.all([read("k"), read("k")], { concurrency: "unbounded" }))
        assert.deepStrictEqual(after.exit, Exit.succeed(["kept", "kept"]))
      }).pipe(Effect.provide(cache()))
    }),
  )

  it.effect("is tried again when whoever tried it left", () =>
    Effect.gen(function* () {
      const { cache, calls, store } = backing()
      yield* Effect.gen(function* () {
        store.get = () => broken
        yield* read("k")
        yield* TestClock.adjust("5 seconds")
        store.get = () => Effect.never
        const fiber = yield* Effect.forkChild(read("k"))
        yield* settle
        yield* Fiber.interrupt(fiber)
        store.get = () => Effect.undefined
        assert.strictEqual(yield* read("k"), "Nothing")
        assert.strictEqual(calls.get, 3)
      }).pipe(Effect.provide(cache()))
    }),
  )

  it.effect("is not blamed by a caller that had less time than a read may take", () =>
    Effect.gen(function* () {
      const { cache, store } = backing()
      const get = store.get
      yield* Effect.gen(function* () {
        store.get = (key) => Effect.delay(get(key), "50 millis")
        const hurried = yield* play(read("k", 20))
        assert.deepStrictEqual([hurried.exit, hurried.millis], [Exit.succeed("Unavailable: too slow"), 20])
        const patient = yield* play(read("k"))
        assert.deepStrictEqual([patient.exit, patient.millis], [Exit.succeed("Nothing"), 50])
      }).pipe(Effect.provide(cache()))
    }),
  )

  it.effect("are written in the background: nobody waits, and a caller that leaves does not undo it", () =>
    Effect.gen(function* () {
      const { cache, entries, store } = backing()
      const set = store.set
      store.set = (key, value) => Effect.delay(set(key, value), "300 millis")
      yield* Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(Effect.andThen(write("k", "kept"), Effect.never))
        yield* settle
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(entries.size, 0)
        yield* TestClock.adjust("300 millis")
        assert.deepStrictEqual([...entries], [["k", entry("kept")]])
      }).pipe(Effect.provide(cache()))
    }),
  )

  it.effect("that takes no writes for a second is not written to for 5 seconds, and read all the same", () =>
    Effect.gen(function* () {
      const { cache, calls, entries, store } = backing()
      entries.set("k", entry("kept"))
      yield* Effect.gen(function* () {
        store.set = () => Effect.uninterruptible(Effect.never)
        const first = yield* write("a", 1)
        yield* TestClock.adjust("999 millis")
        assert.deepStrictEqual(first, [])
        yield* TestClock.adjust("1 millis")
        assert.deepStrictEqual(first, ["too slow"])
        assert.deepStrictEqual(yield* write("b", 1), ["too slow"])
        assert.deepStrictEqual([calls.set, yield* read("k")], [1, "kept"])
        yield* TestClock.adjust("5 seconds")
        store.set = () => broken
        assert.deepStrictEqual(yield* write("c", 1), ["failed"])
        assert.strictEqual(calls.set, 2)
      }).pipe(Effect.provide(cache()))
    }),
  )

  it.effect("are not piled up: a hundred writes are under way at most", () =>
    Effect.gen(function* () {
      const { cache, calls, store } = backing()
      store.set = () => Effect.never
      yield* Effect.gen(function* () {
        const outcomes = yield* Effect.forEach(Array.from({ length: 103 }), (_, i) => write(`k${i}`, i))
        assert.deepStrictEqual([calls.set, outcomes.flat()], [100, ["too slow", "too slow", "too slow"]])
      }).pipe(Effect.provide(cache()))
    }),
  )

  it.live("are written before the layer closes", () =>
    Effect.gen(function* () {
      const { cache, entries, store } = backing()
      const set = store.set
      store.set = (key, value) => Effect.delay(set(key, value), "20 millis")
      yield* write("k", "kept").pipe(Effect.provide(cache()))
      assert.strictEqual(entries.size, 1)
    }),
  )

  it.effect("of which one is of another type keeps nobody from the others", () =>
    Effect.gen(function* () {
      const { cache, calls, store } = backing()
      const wrong = new Error("WRONGTYPE Operation against a key holding the wrong kind of value")
      const get = store.get
      store.get = (key) =>
        key === "list"
          ? Effect.fail(new Persistence.PersistenceError({ message: "Failed to get key", cause: wrong }))
          : get(key)
      yield* Effect.gen(function* () {
        yield* write("text", "Herbert.")
        yield* settle
        for (let n = 0; n < 4; n++) assert.strictEqual(yield* read("list"), "Unavailable: unreadable")
        assert.strictEqual(yield* read("text"), "Herbert.")
        assert.deepStrictEqual(yield* Effect.tap(write("list", 1), settle), ["written"])
      }).pipe(Effect.provide(cache()))
      assert.deepStrictEqual(calls, { get: 5, set: 2 })
    }),
  )

  it.effect("that are no entries are as good as none", () =>
    Effect.gen(function* () {
      const { cache, entries } = backing()
      yield* Effect.gen(function* () {
        for (const value of [{}, { ...entry("x"), v: 2 }, { v: 1, at: "now", by: {}, value: 1 }, []]) {
          entries.set("k", value)
          assert.strictEqual(yield* read("k"), "Unavailable: unreadable")
        }
        // It is the entry's fault, not the store's.
        entries.set("k", entry("kept"))
        assert.strictEqual(yield* read("k"), "kept")
      }).pipe(Effect.provide(cache()))
    }),
  )

  it.effect("are no larger than an entry may be", () =>
    Effect.gen(function* () {
      const { cache, calls } = backing()
      yield* Effect.gen(function* () {
        assert.deepStrictEqual(yield* write("k", "x".repeat(300 * 1024)), ["too large"])
        assert.strictEqual(calls.set, 0)
      }).pipe(Effect.provide(cache()))
    }),
  )
})

describe("A ladder whose store is in trouble", () => {
  const ladder = (script: Script<LlmError.Overloaded>) => {
    const lead = stub("lead", script)
    return Degradation.make([
      Degradation.cache({ scope: "everyone" }),
      Degradation.primary(lead.provider),
      Degradation.stale(),
      Degradation.fallback("We will be back."),
    ])
  }

  it.effect("answers as if it had none, and says why", () =>
    Effect.gen(function* () {
      const { cache, store } = backing()
      store.get = () => Effect.never
      store.set = () => broken
      const heard = listener()
      const asked = heard.effect(
        ask("generate", ladder(inTurn(says("Herbert."), fails(failure("Overloaded", "lead"))))),
      )
      yield* Effect.gen(function* () {
        const first = yield* play(asked)
        assert.deepStrictEqual([said(first.exit), first.millis], ["Herbert.", 100])
        const second = yield* play(asked)
        assert.deepStrictEqual([said(second.exit), second.millis], ["We will be back.", 0])
      }).pipe(Effect.provide(cache()))
      assertInOrder(heard.events)
      assert.deepStrictEqual(
        heard.events.flatMap((event) =>
          event.event === "CacheUnavailable" ? [`${event.operation}: ${event.why}`] : [],
        ),
        ["read: too slow", "write: failed", "read: too slow", "read: too slow"],
      )
    }),
  )

  it.effect("does not wait for a write, and what it is told after the call is no part of the call", () =>
    Effect.gen(function* () {
      const { cache, entries, store } = backing()
      const set = store.set
      store.set = (key, value) => Effect.delay(set(key, value), "30 millis")
      const heard = listener()
      const asked = heard.effect(
        ask(
          "generate",
          ladder(() => says("Herbert.")),
        ),
      )
      yield* Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(asked)
        yield* settle
        assert.strictEqual(yield* Fiber.join(fiber), "Herbert.")
        assert.strictEqual(entries.size, 0)
        yield* TestClock.adjust("30 millis")
        assert.strictEqual(entries.size, 1)
        assertInOrder(heard.events)
        assert.strictEqual(said(yield* Effect.exit(asked)), "Herbert.")
      }).pipe(Effect.provide(cache()))
      assert.include(heard.names(), "CacheRead")
      assert.notInclude(heard.names(), "CacheWritten")
    }),
  )
})

// --- In Redis, as far as no Redis is needed for it

describe("A Redis that is down", () => {
  /** A Redis of one string, that can be switched off. */
  const fake = () => {
    const state = { up: false, built: 0, closed: 0, works: true }
    const values = new Map<string, string>()
    const layer = Layer.effect(Redis.Redis)(
      Effect.suspend(() => {
        state.built++
        return state.up ? Effect.void : Effect.fail(new Redis.RedisError({ cause: "refused" }))
      }).pipe(
        Effect.andThen(Effect.addFinalizer(() => Effect.sync(() => void state.closed++))),
        Effect.andThen(
          Redis.make({
            send: <A>(command: string, key: string = "", value: string = "") =>
              Effect.suspend((): Effect.Effect<A, Redis.RedisError> => {
                if (!state.works) return Effect.fail(new Redis.RedisError({ cause: "closed" }))
                if (command === "SET") values.set(key, value)
                return Effect.succeed((command === "GET" ? (values.get(key) ?? null) : "OK") as A)
              }),
            connect: Effect.die("not used"),
            subscribe: () => Effect.die("not used"),
          }),
        ),
      ),
    )
    return { state, values, layer }
  }

  it.effect("at the start stops nobody, and is found when it comes up", () =>
    Effect.gen(function* () {
      const { layer, state, values } = fake()
      yield* Effect.gen(function* () {
        assert.strictEqual(yield* read("k"), "Unavailable: failed")
        state.up = true
        assert.strictEqual(yield* read("k"), "Unavailable: failed")
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual(yield* read("k"), "Nothing")
        assert.deepStrictEqual(yield* write("k", "kept"), ["written"])
        assert.strictEqual(yield* read("k"), "kept")
        assert.match([...values.keys()].join(), /^understudy_answers:k$/)
        assert.deepStrictEqual(JSON.parse([...values.values()].join()), entry("kept"))
      }).pipe(Effect.provide(AnswerCache.layerRedis(layer)))
      assert.strictEqual(state.closed, 1)
    }),
  )

  it.effect("or slow to connect to is waited for once, at the start, and not for long", () =>
    Effect.gen(function* () {
      const slowly = (millis: number) =>
        Layer.unwrap(
          Effect.suspend(() => {
            const { layer, state } = fake()
            state.up = true
            return Effect.delay(Effect.succeed(layer), millis)
          }),
        )
      const start = (millis: number) => play(Effect.provide(read("k"), AnswerCache.layerRedis(slowly(millis))))
      const late = yield* start(700)
      assert.deepStrictEqual([late.exit, late.millis], [Exit.succeed("Nothing"), 700])
      const tooLate = yield* start(5000)
      assert.deepStrictEqual([tooLate.exit, tooLate.millis], [Exit.succeed("Unavailable: too slow"), 1100])
    }),
  )

  it.effect("for good is connected to anew after three failures in a row", () =>
    Effect.gen(function* () {
      const { layer, state } = fake()
      state.up = true
      yield* Effect.gen(function* () {
        assert.strictEqual(yield* read("k"), "Nothing")
        state.works = false
        for (let n = 0; n < 3; n++) {
          assert.strictEqual(yield* read("k"), "Unavailable: failed")
          assert.deepStrictEqual([state.built, state.closed], [1, n < 2 ? 0 : 1])
          yield* TestClock.adjust("5 seconds")
        }
        state.works = true
        assert.strictEqual(yield* read("k"), "Nothing")
        assert.strictEqual(state.built, 2)
      }).pipe(Effect.provide(AnswerCache.layerRedis(layer)))
      assert.strictEqual(state.closed, 2)
    }),
  )
})
