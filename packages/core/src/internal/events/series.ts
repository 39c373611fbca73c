/** The series of metrics: one for each set of labels, up to a bound, in the metric registry of a context. */
import type * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import { type Instrument, instruments, type Labels, type Named } from "./instruments.ts"
import { oneLine } from "./line.ts"

type Series = Metric.Metric<number, unknown>
type Attributes = Readonly<Record<string, string>>

const make = (name: string, { boundaries, description, type, unit }: Instrument, labels: Attributes): Series => {
  // Effect's exporters take the unit from an attribute of this name.
  const attributes = { ...labels, unit }
  switch (type) {
    case "counter":
      return Metric.counter(name, { description, attributes, incremental: true })
    case "gauge":
      return Metric.gauge(name, { description, attributes })
    case "histogram":
      return Metric.histogram(name, { description, attributes, boundaries: boundaries ?? [] })
  }
}

/** OpenTelemetry's label of what is beyond the bound. */
const overflow: Attributes = { "otel.metric.overflow": "true" }

/** The longest value of a label. */
const longestLabel = 128

/** Updates metrics, and is no more than a number of them for each name. */
export class SeriesSet {
  private readonly context: Context.Context<never>
  private readonly max: number
  private readonly known = new Map<string, Map<string, Series>>()

  constructor(context: Context.Context<never>, max: number) {
    this.context = context
    this.max = max
  }

  /** Counts. */
  count<N extends Named<"counter">>(name: N, labels: Labels<N>, by = 1): void {
    if (by >= 0 && Number.isFinite(by)) this.of(name, labels)?.updateUnsafe(by, this.context)
  }

  /** Measures, in the unit of the histogram. */
  measure<N extends Named<"histogram">>(name: N, labels: Labels<N>, value: number): void {
    if (value >= 0 && Number.isFinite(value)) this.of(name, labels)?.updateUnsafe(value, this.context)
  }

  /** Sets a gauge. */
  set<N extends Named<"gauge">>(name: N, labels: Labels<N>, value: number): void {
    this.of(name, labels)?.updateUnsafe(value, this.context)
  }

  /** Moves a gauge. */
  move<N extends Named<"gauge">>(name: N, labels: Labels<N>, by: number): void {
    this.of(name, labels)?.modifyUnsafe(by, this.context)
  }

  private of(name: keyof typeof instruments, labels: Readonly<Record<string, string | undefined>>): Series | undefined {
    let family = this.known.get(name)
    if (family === undefined) this.known.set(name, (family = new Map()))
    const attributes: Record<string, string> = {}
    for (const [label, value] of Object.entries(labels)) {
      if (value !== undefined) attributes[label] = oneLine(String(value), longestLabel)
    }
    const key = JSON.stringify(attributes)
    const series = family.get(key)
    if (series !== undefined) return series
    const instrument: Instrument = instruments[name]
    if (family.size < this.max) return keep(family, key, make(name, instrument, attributes))
    // A gauge of many things at once says nothing.
    if (instrument.type === "gauge") return undefined
    return family.get(overflowKey) ?? keep(family, overflowKey, make(name, instrument, overflow))
  }
}

const overflowKey = "overflow"

const keep = (family: Map<string, Series>, key: string, series: Series): Series => {
  family.set(key, series)
  return series
}
