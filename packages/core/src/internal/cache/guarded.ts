/**
 * A store that may be slow, broken or gone, behind a guard: nobody waits for it
 * longer than a moment, and no failure of it is anybody's failure.
 *
 * A read is waited for at most its limit, and then left to itself. Writes run
 * in the background. After a failure the store is left alone for a while; then
 * one call tries it again, while the others still do without.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { bounded, type Ended } from "../atMost.ts"
import { nowMillis } from "../callRecord.ts"

/** What is behind the guard. Its failures are of any kind. */
export interface Store {
  readonly get: (key: string) => Effect.Effect<object | undefined, unknown>
  /** Without a time it is kept for good. */
  readonly set: (key: string, value: object, retain: Duration.Duration | undefined) => Effect.Effect<void, unknown>
  /** It seems to be lost: what can be made anew should be. */
  readonly reopen?: () => void
}

/** Why a store could not be used. */
export type Trouble = "failed" | "too slow"

/** What a store has for a key. `unreadable`: it works, but what it has is no JSON. */
export type Got = { readonly value: object | undefined } | { readonly trouble: Trouble | "unreadable" }

/** The guard's numbers, in milliseconds. */
export interface Numbers {
  readonly readTimeout: number
  readonly writeTimeout: number
  readonly coolDown: number
}

/** Writes under way at most. */
const maxPending = 100

/** After so many failures in a row a store seems to be lost. */
const lost = 3

/** The store behind its guard. */
export class Guarded {
  private readonly store: Store
  private readonly numbers: Numbers
  private readonly reads: CoolDown
  private readonly writes: CoolDown
  /** How to stop the writes that are under way. */
  private readonly pending = new Set<() => void>()
  private whenIdle: (() => void) | undefined
  private failures = 0

  constructor(store: Store, numbers: Numbers) {
    this.store = store
    this.numbers = numbers
    this.reads = new CoolDown(numbers.coolDown)
    this.writes = new CoolDown(numbers.coolDown)
  }

  /** What the store has. Takes at most the read's limit, or `atMost` milliseconds if that is less. */
  get(key: string, atMost: number): Effect.Effect<Got> {
    return Effect.withFiber(({ context }) => {
      const clock = clockOf(context)
      return Effect.callback<Got>((resume) => {
        // Admitted here and not before: an interruption could fall between.
        if (!this.reads.admits(nowMillis(clock))) return resume(Effect.succeed({ trouble: this.reads.trouble! }))
        const millis = Math.min(this.numbers.readTimeout, atMost)
        const started = bounded(this.store.get(key), millis, context, (exit) => {
          resume(Effect.succeed(this.got(exit, millis, nowMillis(clock))))
        })
        return Effect.sync(() => {
          this.reads.left()
          started.leave()
        })
      })
    })
  }

  private got(exit: Ended<object | undefined>, millis: number, now: number): Got {
    if (exit !== "too slow") {
      if (exit._tag === "Success") {
        this.worked(this.reads)
        return { value: exit.value }
      }
      if (isUnreadable(exit.cause)) {
        this.worked(this.reads)
        return { trouble: "unreadable" }
      }
    } else if (millis < this.numbers.readTimeout) {
      // Whoever had less time than a read may take learns nothing about the store.
      this.reads.left()
      return { trouble: "too slow" }
    }
    const trouble = troubleOf(exit)
    this.reads.failed(trouble, now)
    // What fails to be read will fail to be written. What is slow may not: a write has more time.
    if (trouble === "failed") this.writes.failed(trouble, now)
    this.failed()
    return { trouble }
  }

  private worked(how: CoolDown): void {
    how.worked()
    this.failures = 0
  }

  private failed(): void {
    if (++this.failures < lost) return
    this.failures = 0
    this.store.reopen?.()
  }

  /** Writes in the background. `told` learns, once, how it went. */
  set(
    key: string,
    value: object,
    retain: Duration.Duration | undefined,
    told: (outcome: "written" | Trouble) => void,
  ): Effect.Effect<void> {
    return Effect.withFiber(({ context }) => {
      const clock = clockOf(context)
      if (!this.writes.admits(nowMillis(clock))) {
        told(this.writes.trouble!)
      } else if (this.pending.size >= maxPending) {
        this.writes.left()
        told("too slow")
      } else {
        this.start(this.store.set(key, value, retain), context, (exit) => {
          if (exit !== "too slow" && exit._tag === "Success") {
            this.worked(this.writes)
            return told("written")
          }
          const trouble = troubleOf(exit)
          this.writes.failed(trouble, nowMillis(clock))
          this.failed()
          told(trouble)
        })
      }
      return Effect.void
    })
  }

  private start(
    write: Effect.Effect<void, unknown>,
    context: Context.Context<never>,
    end: (exit: Ended<void>) => void,
  ): void {
    const { pending } = this
    let stop: (() => void) | undefined
    let over = false
    stop = bounded(write, this.numbers.writeTimeout, context, (exit) => {
      over = true
      if (stop !== undefined) pending.delete(stop)
      end(exit)
      if (pending.size === 0) this.whenIdle?.()
    }).leave
    if (!over) pending.add(stop)
  }

  /** Waits for the writes that are under way, which takes at most their limit. */
  readonly close: Effect.Effect<void> = Effect.withFiber(({ context }) =>
    Effect.callback<void>((resume) => {
      // A clock of a test stands still while a layer closes.
      if (this.pending.size === 0 || clockOf(context) !== live) {
        for (const stop of this.pending) stop()
        return resume(Effect.void)
      }
      this.whenIdle = () => resume(Effect.void)
    }),
  )
}

/** Leaves a store alone for a while after a failure. */
class CoolDown {
  private readonly millis: number
  private until = -Infinity
  private trying = false
  /** What happened last, until it worked again. */
  trouble: Trouble | undefined

  constructor(millis: number) {
    this.millis = millis
  }

  /** May it be used now? After the pause by one at a time, until it worked. */
  admits(now: number): boolean {
    if (this.trouble === undefined) return true
    if (now < this.until || this.trying) return false
    this.trying = true
    return true
  }

  worked(): void {
    this.trouble = undefined
    this.trying = false
  }

  failed(trouble: Trouble, now: number): void {
    this.trouble = trouble
    this.trying = false
    this.until = now + this.millis
  }

  /** Whoever tried it did not wait for the outcome. */
  left(): void {
    this.trying = false
  }
}

const troubleOf = (exit: Ended<unknown>): Trouble => (exit === "too slow" ? exit : "failed")

/** A value that is no JSON, or in Redis no text, is the entry's fault, not the store's. */
const isUnreadable = (cause: Cause.Cause<unknown>): boolean => {
  const error = Cause.findErrorOption(cause)
  if (error._tag === "None" || typeof error.value !== "object" || error.value === null) return false
  const why = "cause" in error.value ? error.value.cause : undefined
  return why instanceof SyntaxError || (why instanceof Error && why.message.startsWith("WRONGTYPE "))
}

/** The clock of those who set none. */
const live: Clock.Clock = Context.get(Context.empty(), Clock.Clock)

const clockOf = (context: Context.Context<never>): Clock.Clock => Context.get(context, Clock.Clock)
