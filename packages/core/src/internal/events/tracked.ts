/**
 * What an observer remembers of the calls under way. A call that never ends
 * must not be remembered for ever: beyond a number of them the oldest is let
 * go, and counted.
 */
import type * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import * as Schema from "effect/Schema"
import { Count } from "../options.ts"

/** How many calls an observer remembers. */
export const TrackingOptions = Schema.Struct({
  /** Calls under way that are remembered at most; beyond it the oldest is let go. Default 10,000. */
  maxCalls: Schema.optional(Count),
})

/** The counter of those that were let go. */
export const evictions = "understudy.observer.evictions"

/** What it counts. */
export const evictionsDescription = "Calls that an observer let go before they ended, since there were too many."

/** The calls under way, by their id. */
export class Tracked<S> {
  private readonly calls = new Map<string, S>()
  private readonly max: number
  private readonly context: Context.Context<never>
  private readonly counter: Metric.Counter<number>
  private readonly letGo: (state: S, call: string) => void

  constructor(
    observer: string,
    context: Context.Context<never>,
    max: number | undefined,
    letGo: (state: S, call: string) => void = () => undefined,
  ) {
    this.max = max ?? 10_000
    this.context = context
    this.letGo = letGo
    this.counter = Metric.counter(evictions, {
      description: evictionsDescription,
      incremental: true,
      attributes: { "understudy.observer": observer, unit: "{call}" },
    })
  }

  get size(): number {
    return this.calls.size
  }

  get(call: string): S | undefined {
    return this.calls.get(call)
  }

  /** A call begins. One of the same id, and the oldest of too many, are let go. */
  begin(call: string, state: S): S {
    this.evict(call)
    if (this.calls.size >= this.max) {
      const [oldest] = this.calls.keys()
      if (oldest !== undefined) this.evict(oldest)
    }
    this.calls.set(call, state)
    return state
  }

  /** A call is over. */
  end(call: string): void {
    this.calls.delete(call)
  }

  /** All calls are let go, without being counted: nobody listens any more. */
  clear(): void {
    for (const [call, state] of this.calls) this.letGo(state, call)
    this.calls.clear()
  }

  private evict(call: string): void {
    const state = this.calls.get(call)
    if (state === undefined) return
    this.calls.delete(call)
    this.counter.updateUnsafe(1, this.context)
    this.letGo(state, call)
  }
}
