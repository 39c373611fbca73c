/**
 * Metrics: what the policies decided, counted by Effect's `Metric`.
 *
 * `Metrics.layer()` listens to every call below it and updates the metric
 * registry: attempts, failures by tag, durations, time to first content, the
 * state of circuits, the sources of answers, retries, failovers, tokens and
 * cost. `effect/observability` brings them out, as Prometheus text or over
 * OTLP. The whole table is in `docs/events.md`, and in `Metrics.instruments`.
 *
 * **Details**
 *
 * - Names are those of OpenTelemetry's GenAI conventions where it has one; ours
 *   begin with `understudy.`. Durations are seconds.
 * - Labels are names from the program (providers, models, circuits, checks) and
 *   words of fixed lists (tags, sources). Nothing that a user or a model wrote
 *   becomes one: the tag of a failure that is not of the union is `_OTHER`.
 * - For each metric `maxSeries` sets of labels are kept. What is beyond them is
 *   counted under the one label `otel.metric.overflow`; gauges beyond them are
 *   left out.
 * - `gen_ai.client.*` are of attempts, so a call that was retried is measured
 *   more than once, as it is paid for. `understudy.call.duration` is of calls.
 * - Attempts started are those that succeeded, failed, were interrupted, and
 *   are running.
 *
 * **Gotchas**
 *
 * - Tokens are what providers tell. An attempt that was cut before its end
 *   rarely tells: `understudy.tokens.unknown` counts those, so that sums are
 *   known to be too small.
 * - `understudy.cost.estimated` is an estimate by your own table. Bills know
 *   rebates, batches and tiers that no table knows.
 *
 * **Example** (Prometheus)
 *
 * ```ts
 * import { Metrics } from "@understudy/core"
 * import { Layer } from "effect"
 * import { PrometheusMetrics } from "effect/observability"
 *
 * // A route for an `HttpRouter`, and the observer that fills it.
 * export const observed = Layer.mergeAll(
 *   PrometheusMetrics.layerHttp({ path: "/metrics", metricNameMapper: Metrics.prometheusName }),
 *   Metrics.layer({ prices: { "openai/gpt-5.2": { input: 1.75, output: 14, cacheRead: 0.175 } } }),
 * )
 * ```
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { type Name, type Of, operationOf } from "./internal/events/facts.ts"
import { type Instrument, instruments as catalog } from "./internal/events/instruments.ts"
import { costOf, type Price, priceOf, Prices } from "./internal/events/price.ts"
import { SeriesSet } from "./internal/events/series.ts"
import { checked, Count } from "./internal/options.ts"
import { tags } from "./internal/llmError.ts"
import * as PolicyEvent from "./PolicyEvent.ts"

export type { Instrument, Price }

/** What is counted, and at which prices. */
export const Options = Schema.Struct({
  /**
   * Prices for a million tokens, by `provider/model` or by model, for
   * `understudy.cost.estimated`. Without them no cost is told.
   */
  prices: Schema.optional(Prices),
  /** The currency of the prices: a label. Default `USD`. */
  currency: Schema.optional(Schema.String),
  /** Sets of labels for each metric at most. Default 2,000. */
  maxSeries: Schema.optional(Count),
})

/** What is counted, and at which prices. */
export interface Options extends Schema.Schema.Type<typeof Options> {}

/** Every metric there is, by name: its type, unit, description and labels. */
export const instruments: Readonly<Record<string, Instrument>> = catalog

/**
 * The name of a metric as Prometheus wants it: counters end with `_total`,
 * seconds with `_seconds`. Names that are not ours stay as they are.
 *
 * For `metricNameMapper` of `PrometheusMetrics`.
 */
export const prometheusName = (name: string): string => {
  const instrument = Object.hasOwn(instruments, name) ? instruments[name] : undefined
  if (instrument === undefined) return name
  const unit = instrument.unit === "s" ? "_seconds" : ""
  return `${name.replaceAll(".", "_")}${unit}${instrument.type === "counter" ? "_total" : ""}`
}

const knownErrors: ReadonlySet<string> = new Set([...tags, "Defect", "Interrupted", "Error"])

/** A tag of the union, or what OpenTelemetry calls everything else. */
const errorType = (failure: string): string => (knownErrors.has(failure) ? failure : "_OTHER")

type Attempted = Of<"AttemptStarted" | "AttemptFailed" | "AttemptSucceeded" | "AttemptInterrupted" | "Committed">
type Ended = Of<"AttemptFailed" | "AttemptSucceeded" | "AttemptInterrupted">

const asked = (event: { readonly provider: string; readonly model?: string | undefined }) => ({
  "gen_ai.provider.name": event.provider,
  "gen_ai.request.model": event.model,
})

const operation = (event: Attempted) => ({ "gen_ai.operation.name": operationOf(event.face), ...asked(event) })

/** The state that a circuit has when somebody took it in hand. */
const byHand: { readonly [T in Of<"CircuitSet">["to"]]: keyof typeof states | undefined } = {
  isolated: "open",
  released: "closed",
  opened: "open",
  probing: "half-open",
  closed: "closed",
  disabled: "closed",
  enabled: undefined,
}

interface Circuit {
  readonly circuit: string
  readonly shadow?: boolean | undefined
}

const circuit = (event: Circuit) => ({ "understudy.circuit.key": event.circuit })

const shadowed = (event: Circuit) => ({
  ...circuit(event),
  "understudy.circuit.shadow": event.shadow === true ? "true" : undefined,
})

const composition = (event: { readonly provider: string }) => ({ "understudy.composition": event.provider })

/** Failures of attempts that may have begun to answer, and so to cost. */
const cutShort: ReadonlySet<string> = new Set([
  "TimedOut",
  "DeadlineExceeded",
  "StreamInterrupted",
  "InvalidResponse",
  "ContentFiltered",
])

const states = { closed: 0, "half-open": 1, open: 2 }

type Outcome = "succeeded" | "failed" | "interrupted"

/** What an event does to the metrics. */
type Row<E> = (event: E, to: SeriesSet) => void

/** A row for each event; what is only counted among `understudy.events` has an empty one. */
type Table = { readonly [N in Name]: Row<Of<N>> }

const table = (options: Options): Table => {
  const { currency = "USD", prices } = options

  const cost = (event: Ended, to: SeriesSet): void => {
    const { usage } = event
    if (usage === undefined || prices === undefined) return
    const price = priceOf(prices, event.provider, event.model)
    if (price === undefined) return to.count("understudy.cost.unpriced", asked(event))
    to.count("understudy.cost.estimated", { ...asked(event), "understudy.currency": currency }, costOf(usage, price))
  }

  const tokens = (event: Ended, outcome: Outcome, to: SeriesSet): void => {
    const { usage } = event
    if (usage === undefined) {
      if (event.event !== "AttemptFailed" || cutShort.has(event.failure)) {
        to.count("understudy.tokens.unknown", { ...asked(event), "understudy.outcome": outcome })
      }
      return
    }
    const each = (type: string, n: number | undefined): void => {
      if (n !== undefined) to.count("understudy.tokens", { ...asked(event), "gen_ai.token.type": type }, n)
    }
    const whole = (type: string, n: number | undefined): void => {
      each(type, n)
      if (n !== undefined)
        to.measure("gen_ai.client.token.usage", { ...operation(event), "gen_ai.token.type": type }, n)
    }
    whole("input", usage.inputTokens)
    whole("output", usage.outputTokens)
    each("cache_read", usage.cacheReadTokens)
    each("cache_write", usage.cacheWriteTokens)
    each("reasoning", usage.reasoningTokens)
  }

  const attemptEnded = (event: Ended, outcome: Outcome, error: string | undefined, to: SeriesSet): void => {
    to.count("understudy.attempts", { ...asked(event), "understudy.outcome": outcome })
    to.move("understudy.attempts.running", asked(event), -1)
    const duration = { ...operation(event), "error.type": error }
    to.measure("gen_ai.client.operation.duration", duration, event.elapsedMs / 1000)
    tokens(event, outcome, to)
    cost(event, to)
  }

  const callEnded = (
    event: Of<"Answered" | "CallFailed" | "CallInterrupted">,
    outcome: "answered" | "failed" | "interrupted",
    to: SeriesSet,
  ): void => {
    const whose = {
      "understudy.composition": event.event === "Answered" ? (event.composition ?? event.provider) : event.provider,
    }
    const error = event.event === "CallFailed" ? errorType(event.failure) : undefined
    to.count("understudy.calls", { ...whose, "understudy.outcome": outcome, "error.type": error })
    to.move("understudy.calls.running", whose, -1)
    to.measure("understudy.call.duration", { ...whose, "understudy.outcome": outcome }, event.elapsedMs / 1000)
    if (event.event === "Answered") {
      to.count("understudy.answers", { ...whose, ...asked(event), "understudy.source": event.source ?? "primary" })
    }
  }

  const hedge =
    (outcome: string): Row<Of<"HedgeLaunched" | "HedgeWon" | "HedgeLost">> =>
    (event, to) =>
      to.count("understudy.hedges", { ...asked(event), "understudy.outcome": outcome })

  // A shadow lets everything through, whatever it would do.
  const enters = (state: keyof typeof states) => (event: Circuit, to: SeriesSet) =>
    to.set("understudy.circuit.state", circuit(event), event.shadow === true ? states.closed : states[state])

  return {
    CallStarted: (event, to) => to.move("understudy.calls.running", composition(event), 1),
    AttemptStarted: (event, to) => {
      to.count("understudy.attempts.started", asked(event))
      to.move("understudy.attempts.running", asked(event), 1)
    },
    AttemptFailed: (event, to) => {
      const error = errorType(event.failure)
      const phase = { "understudy.timeout.phase": event.phase }
      to.count("understudy.failures", { ...asked(event), "error.type": error, ...phase })
      attemptEnded(event, "failed", error, to)
    },
    AttemptSucceeded: (event, to) => attemptEnded(event, "succeeded", undefined, to),
    // OpenTelemetry has no word for a client that left.
    AttemptInterrupted: (event, to) => attemptEnded(event, "interrupted", "Interrupted", to),
    Committed: (event, to) =>
      to.measure("gen_ai.client.operation.time_to_first_chunk", operation(event), event.elapsedMs / 1000),
    BackedOff: (event, to) => {
      to.count("understudy.retries", { ...asked(event), "error.type": errorType(event.failure) })
      to.measure("understudy.backoff.duration", asked(event), event.delayMs / 1000)
    },
    Queued: (event, to) => to.count("understudy.queued", { ...asked(event), "understudy.limit": event.limit }),
    CapacityRejected: (event, to) =>
      to.count("understudy.capacity.rejections", {
        ...asked(event),
        "understudy.limit": event.limit,
        "understudy.reason": event.reason,
      }),
    BudgetRefused: (event, to) =>
      to.count("understudy.budget.refusals", { ...asked(event), "understudy.extra": event.extra }),
    HedgeLaunched: hedge("launched"),
    HedgeWon: hedge("won"),
    HedgeLost: hedge("lost"),
    CircuitOpened: (event, to) => {
      enters("open")(event, to)
      to.count("understudy.circuit.openings", { ...shadowed(event), "understudy.reason": event.reason })
    },
    CircuitHalfOpened: enters("half-open"),
    CircuitClosed: enters("closed"),
    CircuitRejected: (event, to) => to.count("understudy.circuit.rejections", shadowed(event)),
    FloorProbed: (event, to) => to.count("understudy.floor.probes", asked(event)),
    CircuitSet: (event, to) => {
      to.count("understudy.circuit.set", { ...circuit(event), "understudy.to": event.to })
      const state = byHand[event.to]
      if (state !== undefined) enters(state)(event, to)
    },
    FailedOver: (event, to) =>
      to.count("understudy.failovers", {
        ...asked(event),
        "understudy.to": event.to,
        "error.type": errorType(event.failure),
      }),
    PassedOver: (event, to) => to.count("understudy.passed_over", asked(event)),
    CandidateChanged: (event, to) =>
      to.count("understudy.candidate.changes", {
        "understudy.composition": event.composition,
        ...asked(event),
        "understudy.by": event.by,
      }),
    ConfigApplied: (event, to) =>
      to.count("understudy.config.changes", { ...composition(event), "understudy.outcome": "applied" }),
    ConfigRejected: (event, to) =>
      to.count("understudy.config.changes", { ...composition(event), "understudy.outcome": "rejected" }),
    AnswerRejected: (event, to) =>
      to.count("understudy.answers.rejected", {
        ...asked(event),
        "understudy.reason": event.reason,
        "understudy.again": String(event.again),
      }),
    AnswerRepaired: (event, to) => to.count("understudy.answers.repaired", asked(event)),
    AnswerDoubted: (event, to) =>
      to.count("understudy.answers.doubted", { ...asked(event), "understudy.check": event.check }),
    PromptChanged: (event, to) =>
      to.count("understudy.prompts.changed", {
        ...asked(event),
        "error.type": errorType(event.failure),
        "understudy.step": event.step,
      }),
    Degraded: (event, to) =>
      to.count("understudy.degradations", {
        ...composition(event),
        "understudy.to": event.to,
        "error.type": errorType(event.failure),
      }),
    CacheRead: (event, to) =>
      to.count("understudy.cache.reads", { ...composition(event), "understudy.cache.found": event.found }),
    CacheWritten: (event, to) => to.count("understudy.cache.writes", composition(event)),
    CacheUnavailable: (event, to) =>
      to.count("understudy.cache.unavailable", {
        ...composition(event),
        "understudy.cache.operation": event.operation,
        "understudy.cache.why": event.why,
      }),
    Answered: (event, to) => callEnded(event, "answered", to),
    CallFailed: (event, to) => callEnded(event, "failed", to),
    CallInterrupted: (event, to) => callEnded(event, "interrupted", to),
  }
}

const observerOf = (options: Options, context: Context.Context<never>): PolicyEvent.Observer => {
  const rows: Readonly<Record<string, Row<never>>> = table(options)
  const to = new SeriesSet(context, options.maxSeries ?? 2000)
  return (event) => {
    const row = Object.hasOwn(rows, event.event) ? rows[event.event] : undefined
    to.count("understudy.events", { "understudy.event": row === undefined ? "_OTHER" : event.event })
    row?.(event as never, to)
  }
}

/** An observer that counts in the metric registry of the effect's surroundings. */
export const make = (options: Options = {}): Effect.Effect<PolicyEvent.Observer> => {
  const o = checked("Metrics.make", Options, options)
  return Effect.map(Effect.context(), (context) => observerOf(o, context))
}

/** Counts every call below the layer. */
export const layer = (options: Options = {}): Layer.Layer<never> =>
  PolicyEvent.layerEffect(make(checked("Metrics.layer", Options, options)))
