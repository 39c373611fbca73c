/**
 * Bulkheads: so many calls may be at a destination at once, and a few more may
 * wait for their turn, so that a slow provider does not take everything else
 * down with it.
 *
 * A permit for each attempt, given back when it has ended: for a stream, when
 * the stream has. Who finds no permit waits in line, first come, first served.
 *
 * **Details**
 *
 * - A call waits for `maxWait` at most, never past its deadline, and, while
 *   another candidate is ready, no longer than the patience. Then it fails with
 *   `CapacityExceeded`. Nobody knows when an answer will be whole, so that
 *   failure has no hint.
 * - A bulkhead says nothing about the provider's health.
 * - An interrupted call leaves the line, or gives its permit back, at once.
 * - The permits live in a service, `Bulkheads`, given by `Bulkhead.layer`.
 *
 * **Gotchas**
 *
 * - It belongs outside the breaker, so that nobody waits while holding a probe
 *   slot, and inside `Retry`: `p.pipe(Timeouts.with(), CircuitBreaker.with(),
 *   Bulkhead.with({ permits: 8 }), Retry.with())`. So clocks of the attempt do
 *   not run while it waits.
 * - One set of numbers for each key: the numbers of the first policy that uses
 *   a key are the key's.
 * - A stream that is neither read to its end nor closed keeps its permit.
 *
 * **Example** (Eight at once, eight more in line)
 *
 * ```ts
 * import { Bulkhead, type LanguageModelFace, type LlmError, Provider, Retry } from "@understudy/core"
 *
 * type Model = Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.ProviderFailure>
 *
 * export const bounded = (model: Model) => model.pipe(Bulkhead.with({ permits: 8 }), Retry.with())
 * ```
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type { Any, Hidden, Part } from "./Face.ts"
import type { CallRecord } from "./internal/callRecord.ts"
import { Bulkhead as Permits, type Numbers } from "./internal/limits/bulkhead.ts"
import { Line } from "./internal/limits/line.ts"
import { Registry } from "./internal/limits/registry.ts"
import { changed, type Door, Turn, type Why } from "./internal/limits/turn.ts"
import type { CapacityExceeded, StreamInterrupted } from "./internal/llmError.ts"
import { lookup } from "./internal/inContext.ts"
import type { Opened } from "./internal/opened.ts"
import { checked, Count, DurationInput, millis } from "./internal/options.ts"
import type { Gate } from "./internal/plan.ts"
import type { Policy, Provider } from "./internal/provider.ts"
import { fromEffect, fromStream, wrap } from "./internal/provider.ts"

/** How many at once, and how many wait for how long. */
export const Options = Schema.Struct({
  /** Calls at once. */
  permits: Count,
  /** Calls that may wait. Default: as many as `permits`. */
  queue: Schema.optional(Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))),
  /** The longest that a call waits. Default 10 seconds. */
  maxWait: Schema.optional(DurationInput),
})

/** How many at once, and how many wait for how long. */
export interface Options extends Schema.Schema.Type<typeof Options> {}

const numbersOf = (where: string, options: Options): Numbers => {
  const o = checked(where, Options, options)
  return { permits: o.permits, queue: o.queue ?? o.permits, maxWait: millis(o.maxWait, "10 seconds") }
}

/** A bulkhead, seen from outside. */
export interface Status {
  readonly key: string
  readonly permits: number
  /** Permits that are out. */
  readonly inUse: number
  /** Calls that wait. */
  readonly waiting: number
}

/** The permits of a destination and the line for them. */
class Pool implements Door<void> {
  readonly limit = "bulkhead"
  readonly machine: Permits
  readonly line: Line<void, Turn<void>>
  readonly maxWait: number

  constructor({ maxWait, permits, queue }: Numbers) {
    this.machine = new Permits(permits)
    this.line = new Line(this.machine, queue)
    this.maxWait = maxWait
  }

  readonly readyAt = (): number => Infinity
  readonly forecast = (): number => Infinity

  readonly words = (why: Why): string => {
    const { permits } = this.machine
    const out = permits === 1 ? "The one permit is out" : `All ${permits} permits are out`
    switch (why) {
      case "waited":
        return `${out}, and it waited as long as it may.`
      case "another is ready":
        return `${out}, and another candidate is ready.`
      default:
        return this.line.length === 0 ? `${out}.` : `${out}, and ${this.line.length} wait already.`
    }
  }

  give(now: number): void {
    this.machine.give(now)
    changed(this, now)
  }

  /** A call whose answer is there, or that has failed, gives its permit back. */
  leave(record: CallRecord): void {
    // When nobody waits for it the machine is enough, and it needs no time.
    if (this.line.length === 0) this.machine.give(0)
    else this.give(record.now())
  }

  idle(): boolean {
    return this.machine.inUse === 0 && this.line.length === 0
  }
}

/** The bulkheads of a process, by key. */
export class Bulkheads extends Context.Service<
  Bulkheads,
  {
    /** @internal The pool of a key; made with these numbers when it is new. */
    readonly pool: (key: string, numbers: Numbers, now: number) => Pool
    /** All bulkheads there are. */
    readonly status: Effect.Effect<ReadonlyArray<Status>>
  }
>()("@understudy/core/Bulkhead/Bulkheads") {}

const makeBulkheads = (): Bulkheads["Service"] => {
  const pools = new Registry<Pool>()
  return {
    pool: (key, numbers, now) => pools.get(key, now, () => new Pool(numbers)),
    status: Effect.sync(() =>
      Array.from(pools.entries(), ([key, { line, machine }]) => ({
        key,
        permits: machine.permits,
        inUse: machine.inUse,
        waiting: line.length,
      })),
    ),
  }
}

/** Bulkheads in memory, for one process. */
export const layer: Layer.Layer<Bulkheads> = Layer.sync(Bulkheads)(makeBulkheads)

const bulkheadsIn = lookup(Bulkheads)

interface With extends Options {
  /** Whose permits they are. Default: the provider's name and model. */
  readonly key?: string | undefined
}

/** Out again: the permit is given back when the answer is there, or the stream has ended. */
const leave = (
  pool: Pool,
  turn: Turn<void>,
  record: CallRecord,
  kind: Kind,
  exit: Exit.Exit<unknown, unknown>,
): void => {
  if (turn.leave(record.now())) giveBack(pool, record, kind, exit)
}

const giveBack = (pool: Pool, record: CallRecord, kind: Kind, exit: Exit.Exit<unknown, unknown>): void => {
  if (kind === "stream" && exit._tag === "Success") {
    const { ended } = exit.value as Opened<unknown>
    ended.observe(() => pool.give(record.now()))
  } else {
    pool.leave(record)
  }
}

type Kind = "generate" | "stream"

/**
 * Asks a provider only as often at once as there are permits.
 *
 * Adds `CapacityExceeded`, and needs `Bulkheads`.
 */
const with_ = (options: With): Policy<CapacityExceeded, Bulkheads> => {
  const { key, ...rest } = options
  const numbers = numbersOf("Bulkhead.with", rest)
  return <F extends Any, E, R>(self: Provider<F, E, R>): Provider<F, E | CapacityExceeded, R | Bulkheads> => {
    const name = key ?? `${self.name}/${self.model}`
    const poolOf = (context: Context.Context<never>, record: CallRecord): Pool =>
      bulkheadsIn(context).pool(name, numbers, record.startedAt)
    const gate: Gate = {
      enter: (context, record) => {
        const pool = poolOf(context, record)
        return pool.line.tryTake(record.startedAt, undefined) ? pool : undefined
      },
    }
    const policy = <A>(run: (now: number) => Effect.Effect<A, E, R>, record: CallRecord, kind: Kind, now: number) => {
      let pool: Pool
      let turn: Turn<void> | undefined
      let inside = false
      // The permit is taken inside of what gives it back: an interruption can fall between.
      return Effect.onExitPrimitive(
        Effect.withFiber(({ context }) => {
          pool = poolOf(context, record)
          if (pool.line.tryTake(record.startedAt, undefined)) {
            inside = true
            return run(now)
          }
          turn = new Turn<void>(pool, record, self, context, undefined)
          const waiting = turn.enter()
          return waiting === undefined ? run(now) : Effect.flatMap(waiting, () => run(record.now()))
        }),
        (exit) => {
          if (inside) giveBack(pool, record, kind, exit)
          else if (turn !== undefined) leave(pool, turn, record, kind, exit)
          return undefined
        },
      )
    }
    return wrap<F, E, R, E | CapacityExceeded, R | Bulkheads>(self, policy, (plan) =>
      plan.gate === undefined && plan.again === undefined ? { gate } : undefined,
    )
  }
}

export { with_ as with }

/** Runs an effect only as often at once as there are permits. */
export const effect = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  options: Options & { readonly key: string },
): Effect.Effect<A, E | CapacityExceeded, R | Bulkheads> =>
  fromEffect(self, { name: options.key }).pipe(with_(options)).generate()

/** Runs a stream, to its end, only as often at once as there are permits. Needs the face of its parts. */
export const stream = <F extends Any, E, R>(
  self: Stream.Stream<Part<F>, E, R>,
  options: Options & { readonly key: string; readonly face: F },
): Stream.Stream<Part<F>, E | Hidden<F> | CapacityExceeded | StreamInterrupted, R | Bulkheads> => {
  const { face, ...rest } = options
  return fromStream(self, { face, name: options.key })
    .pipe(with_(rest))
    .stream(undefined as never)
}
