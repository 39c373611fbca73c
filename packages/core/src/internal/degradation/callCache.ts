/** The cache, as one call uses it: one key, one entry, and a word about everything that happens. */
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { AnswerCache, Found } from "../../AnswerCache.ts"
import type { Overrides } from "../../Call.ts"
import type { Origin } from "../../Origin.ts"
import { canonical } from "../cache/canonical.ts"
import { keyOf, type Scope } from "../cache/requestKey.ts"
import type { CallRecord } from "../callRecord.ts"
import { millis } from "../options.ts"
import type { Counts, Outcome } from "./metrics.ts"

/** How a ladder keeps answers. Times are milliseconds. */
export interface Keeping {
  readonly scope: Scope
  /** For how long an answer is fresh, and for how long it is better than none; 0 where no rung gives such. */
  readonly freshFor: number
  readonly goodFor: number
  readonly coalesce: boolean
  /** Whose answers these are. */
  readonly of: ReadonlyArray<string>
  /** What decides about the answer, or what the caller says does. May throw. */
  readonly what: (request: unknown, overrides: Overrides) => unknown
  /** The answer as it is kept, or nothing if it must not be. May throw. */
  readonly store: (answer: unknown, request: unknown) => { readonly value: unknown } | undefined
  /** The answer that was kept, or nothing if this is none to that request. May throw. */
  readonly restore: (value: unknown, request: unknown) => { readonly answer: unknown } | undefined
}

/** An answer that was kept. */
export interface Kept {
  readonly answer: unknown
  readonly by: Origin
  readonly at: number
}

/** What a call needs to use the cache. */
export interface Using {
  readonly keeping: Keeping
  readonly cache: AnswerCache["Service"]
  readonly name: string
  readonly counts: Counts
}

type Key = { readonly key: string } | { readonly trouble: "no tenant" | "failed" }

const keyFor = (keeping: Keeping, request: unknown, overrides: Overrides): Effect.Effect<Key> => {
  const { tenant } = overrides
  // A tenant without a name is a mistake, and would share its answers with all others of that kind.
  if (keeping.scope === "tenant" && (tenant === undefined || tenant === "")) {
    return Effect.succeed({ trouble: "no tenant" })
  }
  try {
    const what = keeping.what(request, overrides)
    return Effect.map(keyOf({ scope: keeping.scope, tenant, of: keeping.of, what }), (key) => ({ key }))
  } catch {
    // Of what is no data there is no key.
    return Effect.succeed({ trouble: "failed" })
  }
}

/**
 * May this call use the cache at all? What somebody's own credential has paid for, or can see, is not for everyone; and
 * whoever brings one wants to be asked with it.
 */
export const admits = (keeping: Keeping, { credentials }: Overrides): boolean =>
  keeping.scope !== "everyone" || credentials === undefined || Object.keys(credentials).length === 0

/** The cache for one call. */
export class CallCache {
  private readonly using: Using
  private readonly key: Key
  private readonly request: unknown
  private readonly record: CallRecord
  private readonly context: Context.Context<never>
  private kept: Kept | undefined
  /** Was there nothing, and has nothing happened since? */
  private empty = false

  private constructor(using: Using, key: Key, request: unknown, record: CallRecord, context: Context.Context<never>) {
    this.using = using
    this.key = key
    this.request = request
    this.record = record
    this.context = context
  }

  static make(
    using: Using,
    request: unknown,
    record: CallRecord,
    context: Context.Context<never>,
  ): Effect.Effect<CallCache> {
    return Effect.map(
      keyFor(using.keeping, request, record.overrides),
      (key) => new CallCache(using, key, request, record, context),
    )
  }

  /** A name for equal questions that can wait for one another; none for those that bring a key of their own. */
  get flight(): string | undefined {
    const { credentials, deadline, timeouts } = this.record.overrides
    if (!this.using.keeping.coalesce || credentials !== undefined || "trouble" in this.key) return undefined
    // Whoever asks may take as long as any that wait.
    const times = [deadline, timeouts?.attempt, timeouts?.firstContent, timeouts?.idle]
    return canonical([this.key.key, ...times.map((time) => (time === undefined ? null : millis(time, 0)))])
  }

  /** No longer answer is kept, in characters: each is a byte at least. */
  get longest(): number {
    return this.using.cache.maxEntryBytes
  }

  /** The answer that a rung can give now. Takes `within` milliseconds at most. */
  read(rung: "cache" | "stale", within: number): Effect.Effect<Kept | undefined> {
    return Effect.suspend(() => {
      const usable = (): Kept | undefined =>
        this.kept !== undefined && this.age(this.kept.at) < this.limitOf(rung) ? this.kept : undefined
      if (this.kept !== undefined || this.empty) return Effect.succeed(usable())
      const { key } = this
      if ("trouble" in key) {
        this.unavailable("read", key.trouble)
        this.empty = true
        return Effect.succeed(undefined)
      }
      return Effect.map(this.using.cache.read(key.key, within), (found) => {
        this.look(found)
        return usable()
      })
    })
  }

  /** Somebody was asked, which takes time: others may have filled the cache. */
  forget(): void {
    this.empty = false
  }

  private limitOf(rung: "cache" | "stale"): number {
    const { freshFor, goodFor } = this.using.keeping
    return rung === "cache" ? freshFor : goodFor
  }

  private age(at: number): number {
    return Math.max(0, this.record.clock.currentTimeMillisUnsafe() - at)
  }

  private look(found: Found): void {
    this.empty = true
    if (found._tag === "Unavailable") return this.unavailable("read", found.why)
    if (found._tag === "Nothing") return this.told("nothing", undefined)
    const { at, by, value } = found.entry
    const restored = attempted(() => this.using.keeping.restore(value, this.request))
    if (restored === undefined) return this.unavailable("read", "unreadable")
    const age = this.age(at)
    if (age < this.limitOf("cache")) this.told("fresh", age)
    else if (age < this.limitOf("stale")) this.told("stale", age)
    else return this.told("nothing", undefined)
    this.kept = { answer: restored.answer, by, at }
  }

  private told(found: "fresh" | "stale" | "nothing", age: number | undefined): void {
    const { counts, name } = this.using
    counts.cache("read", found, this.context)
    if (this.record.observer === undefined) return
    this.record.emit({ event: "CacheRead", provider: name, found, ...(age === undefined ? {} : { ageMs: age }) })
  }

  private unavailable(operation: "read" | "write", why: "failed" | "too slow" | "unreadable" | "no tenant"): void {
    const { counts, name } = this.using
    counts.cache(operation, why, this.context)
    this.tell(() => this.record.emit({ event: "CacheUnavailable", provider: name, operation, why }))
  }

  /** A write may end when its call is over, and then is no part of it. */
  private tell(emit: () => void): void {
    if (this.record.observer !== undefined && !this.record.ended) emit()
  }

  /** Keeps an answer of the primary, if it may be kept. Nobody waits for it. */
  write(answer: unknown, by: Origin): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { keeping, name, cache, counts } = this.using
      const { key } = this
      const retain = Duration.millis(Math.max(keeping.freshFor, keeping.goodFor))
      const kept = Duration.isZero(retain) ? undefined : attempted(() => keeping.store(answer, this.request))
      if (kept === undefined) return Effect.void
      if ("trouble" in key) {
        this.unavailable("write", key.trouble)
        return Effect.void
      }
      const entry = {
        v: 1 as const,
        at: this.record.clock.currentTimeMillisUnsafe(),
        by: { provider: by.provider, model: by.model },
        value: kept.value,
      }
      return cache.write(key.key, entry, retain, (outcome) => {
        if (outcome === "failed" || outcome === "too slow") return this.unavailable("write", outcome)
        counts.cache("write", outcome satisfies Outcome, this.context)
        if (outcome === "written") this.tell(() => this.record.emit({ event: "CacheWritten", provider: name }))
      })
    })
  }
}

/** Schemas are the caller's, and may throw: then there is nothing. */
const attempted = <A>(make: () => A | undefined): A | undefined => {
  try {
    return make()
  } catch {
    return undefined
  }
}
