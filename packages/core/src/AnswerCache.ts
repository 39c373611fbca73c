/**
 * Answers that were given before, in memory or in Redis: what the rungs `cache`
 * and `stale` of a `Degradation` ladder read, and its primary fills.
 *
 * A layer decides where answers are kept. None of them can fail a call or keep
 * it waiting: a store that is slow, broken or gone is as good as no cache, and
 * a `CacheUnavailable` event says so.
 *
 * **Details**
 *
 * - `layerMemory`: in this process, bounded in entries and bytes; the least
 *   recently used go first.
 * - `layerPersistence`: any store of `effect/persistence`. `layerRedis`: a Redis
 *   that need not be up when the program starts, and may go and come back.
 * - A read is waited for 100 milliseconds at most. Writes run in the background:
 *   no answer waits for one, and a caller that leaves does not undo it. A layer
 *   that closes waits for those under way, 1 second at most.
 * - After a failure the store is left alone for 5 seconds, so a dead one does not
 *   cost every call its read; then one call tries it again.
 * - Keys are SHA-256 digests, and tell neither prompt nor tenant. Values are the
 *   encoded parts of an answer: who can read the store can read the answers.
 *
 * **Gotchas**
 *
 * - Answers are kept for each composition, by the primary's name and model.
 *   Compositions with the same name share them.
 *
 * **Example** (In Redis)
 *
 * ```ts
 * import { NodeRedis } from "@effect/platform-node"
 * import { AnswerCache } from "@understudy/core"
 *
 * export const answers = AnswerCache.layerRedis(
 *   NodeRedis.layer({ url: "redis://localhost:6379", disableOfflineQueue: true }),
 * )
 * ```
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { type BackingPersistence, open, openRedis, type RedisService } from "./internal/cache/backing.ts"
import { Guarded, type Store, type Trouble } from "./internal/cache/guarded.ts"
import { bytesOf, MemoryStore } from "./internal/cache/memory.ts"
import { checked, Count, DurationInput, millis } from "./internal/options.ts"
import { Origin } from "./Origin.ts"

const EntrySchema = Schema.Struct({
  /** The form of entries: one of another form is not read. */
  v: Schema.Literal(1),
  /** When the answer was given, in milliseconds of Unix time. */
  at: Schema.Finite,
  /** Who gave it. */
  by: Origin,
  /** The encoded answer: JSON. */
  value: Schema.Unknown,
})

/** An answer as it is kept. */
export interface Entry extends Schema.Schema.Type<typeof EntrySchema> {}

/** What a cache has for a key. `unreadable`: there is something, but no entry. */
export type Found =
  | { readonly _tag: "Found"; readonly entry: Entry }
  | { readonly _tag: "Nothing" }
  | { readonly _tag: "Unavailable"; readonly why: Trouble | "unreadable" }

/** How a write went. */
export type Written = "written" | "too large" | Trouble

/** Keeps answers. What it does never fails, and nobody waits for it longer than a moment. */
export class AnswerCache extends Context.Service<
  AnswerCache,
  {
    /** The longest entry that is kept, in bytes of JSON. */
    readonly maxEntryBytes: number
    /** What is kept under a key. Takes `within` milliseconds at most. */
    readonly read: (key: string, within: number) => Effect.Effect<Found>
    /** Keeps an entry for so long, and does not wait until it is done. `told` learns, once, how it went. */
    readonly write: (
      key: string,
      entry: Entry,
      retain: Duration.Duration,
      told: (outcome: Written) => void,
    ) => Effect.Effect<void>
  }
>()("@understudy/core/AnswerCache") {}

const entry = { /** The longest entry, in bytes of JSON. Default 256 KiB. */ maxEntryBytes: Schema.optional(Count) }

/** How much is kept in memory. */
export const MemoryOptions = Schema.Struct({
  ...entry,
  /** Entries. Default 1000. */
  capacity: Schema.optional(Count),
  /** All keys and entries together, in bytes. Default 64 MiB. */
  maxBytes: Schema.optional(Count),
})

/** How much is kept in memory. */
export interface MemoryOptions extends Schema.Schema.Type<typeof MemoryOptions> {}

/** How a store is used. */
export const Options = Schema.Struct({
  ...entry,
  /** Names the store within its backing: the prefix of keys, or a table. Default `understudy_answers`. */
  storeId: Schema.optional(Schema.NonEmptyString),
  /** How long a read is waited for. Default 100 milliseconds. */
  readTimeout: Schema.optional(DurationInput),
  /** How long a write may take, in the background. Default 1 second. */
  writeTimeout: Schema.optional(DurationInput),
  /** How long the store is left alone after a failure. Default 5 seconds. */
  coolDown: Schema.optional(DurationInput),
})

/** How a store is used. */
export interface Options extends Schema.Schema.Type<typeof Options> {}

const maxEntryBytesOf = (options: { readonly maxEntryBytes?: number | undefined }): number =>
  options.maxEntryBytes ?? 256 * 1024

/** The text of an entry, or nothing when it has none. */
const textOf = (entry: Entry): string | undefined => {
  try {
    return JSON.stringify(entry)
  } catch {
    return undefined
  }
}

const decode = Schema.decodeUnknownExit(EntrySchema)

const found = (value: unknown): Found => {
  if (value === undefined) return { _tag: "Nothing" }
  const exit = decode(value)
  return Exit.isSuccess(exit) ? { _tag: "Found", entry: exit.value } : { _tag: "Unavailable", why: "unreadable" }
}

/**
 * Answers in memory, for one process. They are kept as text, so that nobody who
 * has one can change what the next gets.
 */
export const layerMemory = (options: MemoryOptions = {}): Layer.Layer<AnswerCache> => {
  const o = checked("AnswerCache.layerMemory", MemoryOptions, options)
  const maxEntryBytes = maxEntryBytesOf(o)
  const limits = { capacity: o.capacity ?? 1000, maxBytes: o.maxBytes ?? 64 * 1024 * 1024 }
  return Layer.sync(AnswerCache)(() => {
    const store = new MemoryStore(limits)
    return {
      maxEntryBytes,
      read: (key) =>
        Effect.map(Clock.currentTimeMillis, (now) => {
          const text = store.get(key, now)
          return found(text === undefined ? undefined : JSON.parse(text))
        }),
      write: (key, entry, retain, told) =>
        Effect.map(Clock.currentTimeMillis, (now) => {
          const text = textOf(entry)
          if (text === undefined) return told("failed")
          const fits = bytesOf(text) <= maxEntryBytes && store.set(key, text, now + Duration.toMillis(retain))
          told(fits ? "written" : "too large")
        }),
    }
  })
}

const layerOf = <R>(
  where: string,
  options: Options,
  opened: (storeId: string) => Effect.Effect<Store, never, R>,
): Layer.Layer<AnswerCache, never, Exclude<R, Scope.Scope>> => {
  const o = checked(where, Options, options)
  const maxEntryBytes = maxEntryBytesOf(o)
  const numbers = {
    readTimeout: millis(o.readTimeout, "100 millis"),
    writeTimeout: millis(o.writeTimeout, "1 second"),
    coolDown: millis(o.coolDown, "5 seconds"),
  }
  return Layer.effect(AnswerCache)(
    Effect.gen(function* () {
      const store = new Guarded(yield* opened(o.storeId ?? "understudy_answers"), numbers)
      yield* Effect.addFinalizer(() => store.close)
      return {
        maxEntryBytes,
        read: (key, within) =>
          Effect.map(store.get(key, within), (got) =>
            "trouble" in got ? { _tag: "Unavailable", why: got.trouble } : found(got.value),
          ),
        write: (key, entry, retain, told) =>
          Effect.suspend(() => {
            const text = textOf(entry)
            if (text !== undefined && bytesOf(text) <= maxEntryBytes) {
              // A copy: what a caller does with its answer must not reach the store.
              const copy = JSON.parse(text) as object
              return store.set(key, copy, Duration.isFinite(retain) ? retain : undefined, told)
            }
            told(text === undefined ? "failed" : "too large")
            return Effect.void
          }),
      }
    }),
  )
}

/** Answers in any store of `effect/persistence`, for all processes that share it. */
export const layerPersistence = (options: Options = {}): Layer.Layer<AnswerCache, never, BackingPersistence> =>
  layerOf("AnswerCache.layerPersistence", options, open)

/**
 * Answers in Redis. That its layer cannot be built is no failure of this one,
 * and no reason for a program not to start: the first connection is waited for
 * 1 second at most, and made later if it cannot be made now, whenever somebody
 * asks; anew, after three failures in a row.
 */
export const layerRedis = <E, R>(
  redis: Layer.Layer<RedisService, E, R>,
  options: Options = {},
): Layer.Layer<AnswerCache, never, Exclude<R, Scope.Scope>> =>
  layerOf("AnswerCache.layerRedis", options, (storeId) => openRedis(storeId, redis))
