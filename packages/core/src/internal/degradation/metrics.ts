/**
 * What operators watch of ladders: where answers come from, and how the cache does. It is counted without an observer,
 * and also when it happens after the call.
 */
import type * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import type { Source } from "../../PolicyEvent.ts"

const answers = Metric.counter("understudy.ladder.answers", {
  description: "Answers of degradation ladders, by the rung that they came from",
  incremental: true,
})

const operations = Metric.counter("understudy.ladder.cache", {
  description: "What degradation ladders did with their cache, and how it went",
  incremental: true,
})

/** How reading or writing went. */
export type Outcome =
  | "fresh"
  | "stale"
  | "nothing"
  | "written"
  | "too large"
  | "failed"
  | "too slow"
  | "unreadable"
  | "no tenant"

/** Counts for one composition. */
export class Counts {
  private readonly composition: string
  private readonly known = new Map<string, Metric.Counter<number>>()

  constructor(composition: string) {
    this.composition = composition
  }

  answer(source: Source, context: Context.Context<never>): void {
    this.counter(answers, { "understudy.source": source }).updateUnsafe(1, context)
  }

  cache(operation: "read" | "write", outcome: Outcome, context: Context.Context<never>): void {
    this.counter(operations, {
      "understudy.cache.operation": operation,
      "understudy.cache.outcome": outcome,
    }).updateUnsafe(1, context)
  }

  private counter(
    metric: Metric.Counter<number>,
    attributes: Readonly<Record<string, string>>,
  ): Metric.Counter<number> {
    const key = Object.values(attributes).join(" ")
    let counter = this.known.get(key)
    if (counter === undefined) {
      counter = Metric.withAttributes(metric, { "understudy.composition": this.composition, ...attributes })
      this.known.set(key, counter)
    }
    return counter
  }
}
