/**
 * Explains a call: what was tried, in order, with times, why each decision was
 * taken, and how it ended.
 *
 * `Explain.explain` makes a `Trace` of the events of a call, and `Explain.text`
 * makes a text of it for a person; the trace itself is plain JSON, by its schema
 * `Explain.Trace`. `Explain.traced` runs an effect and gives its exit with the
 * traces of its calls, `Explain.layer()` logs the traces of those calls that
 * failed or were slow, and of no others.
 *
 * **Details**
 *
 * - Reasons are those that the events tell: the cells of the table in use, the
 *   hint, whose limit the time of an attempt is (its own, its share beside other
 *   candidates, the deadline), the state of the circuit, the budget. Where they
 *   leave more than one, all are named.
 * - No prompt, answer, key or text of a provider is in a trace.
 * - Of a call at most 500 events are kept, the first and the last ones; `omitted`
 *   says how many are missing between. At most `maxCalls` calls are remembered.
 *
 * **Example** (Why did it take so long?)
 *
 * ```ts
 * import { Explain } from "@understudy/core"
 * import { Console, Effect } from "effect"
 *
 * export const explained = <A, E, R>(call: Effect.Effect<A, E, R>) =>
 *   Effect.gen(function* () {
 *     const { exit, traces } = yield* Explain.traced(call)
 *     yield* Effect.forEach(traces, (trace) => Console.log(Explain.text(trace)))
 *     return yield* exit
 *   })
 * ```
 */
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { around } from "./internal/events/around.ts"
import { type Attributes, attributesOf, isEnd, type Of } from "./internal/events/facts.ts"
import { oneLine } from "./internal/events/line.ts"
import { reasonOf, SoFar, span } from "./internal/events/reasons.ts"
import { sum, Tokens } from "./internal/events/told.ts"
import { Tracked, TrackingOptions } from "./internal/events/tracked.ts"
import { checked, DurationInput, millis } from "./internal/options.ts"
import * as PolicyEvent from "./PolicyEvent.ts"

/** One thing that happened in a call. */
export const Step = Schema.Struct({
  /** When, in milliseconds since the call began. */
  atMs: Schema.Finite,
  event: Schema.String,
  /** What happened, in a line. */
  what: Schema.String,
  /** Why, where there is something to say. */
  why: Schema.optionalKey(Schema.String),
  /** What the event holds, under the names that logs and spans have for it. */
  attributes: Schema.Record(
    Schema.String,
    Schema.Union([Schema.String, Schema.Finite, Schema.Boolean, Schema.Array(Schema.String)]),
  ),
})

/** One thing that happened in a call. */
export interface Step extends Schema.Schema.Type<typeof Step> {}

/** The decisions of one call. */
export const Trace = Schema.Struct({
  call: Schema.String,
  /** The composition that was asked. */
  provider: Schema.String,
  /** When it began, in milliseconds of Unix time. */
  startedAt: Schema.Finite,
  outcome: Schema.Literals(["answered", "failed", "interrupted", "unfinished"]),
  /** The tag that it failed with. */
  failure: Schema.optionalKey(Schema.String),
  /** Who answered. */
  answeredBy: Schema.optionalKey(Schema.String),
  /** The rung that the answer came from, where there is a ladder. */
  source: Schema.optionalKey(PolicyEvent.Source),
  elapsedMs: Schema.Finite,
  attempts: Schema.Int,
  /** Tokens of all attempts, as far as the providers told. */
  usage: Schema.optionalKey(Tokens),
  steps: Schema.Array(Step),
  /** Events that were not kept, since there were too many. */
  omitted: Schema.Int,
  /** How it ended, in a sentence. */
  conclusion: Schema.String,
})

/** The decisions of one call. */
export interface Trace extends Schema.Schema.Type<typeof Trace> {}

type Event = PolicyEvent.PolicyEvent

const kept = 500

/** The events of a call: the first ones and the last ones of too many, each without the answer's text. */
class Kept {
  private readonly first: Array<Event> = []
  private readonly last: Array<Event> = []
  private heard = 0

  push(event: Event): void {
    // An answer can be long, and is never told.
    const bare = event.event === "Answered" ? { ...event, text: "" } : event
    if (this.first.length < kept / 2) this.first.push(bare)
    else this.last[this.heard % (kept / 2)] = bare
    this.heard++
  }

  get omitted(): number {
    return this.heard - this.first.length - this.last.length
  }

  get events(): ReadonlyArray<Event> {
    const turn = this.omitted === 0 ? 0 : this.heard % (kept / 2)
    return [...this.first, ...this.last.slice(turn), ...this.last.slice(0, turn)]
  }
}

type End = Of<"Answered" | "CallFailed" | "CallInterrupted">

const finite = (n: number): number => (Number.isFinite(n) ? n : 0)
const whole = (n: number): number => Math.trunc(finite(n))

const usageOf = (event: Event): Tokens | undefined => ("usage" in event ? event.usage : undefined)

const attemptsOf = (events: ReadonlyArray<Event>): number =>
  events.reduce((n, event) => (event.event === "AttemptStarted" ? Math.max(n, event.attempt) : n), 0)

const attempts = (n: number): string => (n === 1 ? "1 attempt" : `${n} attempts`)

const conclusionOf = (end: End | undefined, elapsedMs: number, made: number): string => {
  const after = `after ${span(elapsedMs)} and ${attempts(made)}`
  switch (end?.event) {
    case undefined:
      return `It has not ended ${after}.`
    case "Answered": {
      const source = end.source === undefined || end.source === "primary" ? "" : `, from the rung "${end.source}"`
      return `Answered by ${oneLine(end.provider)}${source}, ${after}.`
    }
    case "CallFailed":
      return `Failed with ${oneLine(end.failure)} ${after}.`
    case "CallInterrupted":
      return `Its caller left ${after}.`
  }
}

const outcomes = { Answered: "answered", CallFailed: "failed", CallInterrupted: "interrupted" } as const

const stepOf = (event: Event, startedAt: number, so: SoFar): Step => {
  const why = reasonOf(event, so)
  so.hear(event)
  const attributes: Attributes = attributesOf(event)
  const what: string | undefined = PolicyEvent.describe(event)
  return {
    atMs: finite(event.at - startedAt),
    event: oneLine(event.event),
    what: oneLine(what ?? event.event, 1000),
    ...(why === undefined ? {} : { why: oneLine(why, 1000) }),
    attributes,
  }
}

const traceOf = (events: ReadonlyArray<Event>, omitted: number): Trace | undefined => {
  const [first] = events
  if (first === undefined) return undefined
  const last = events.at(-1)!
  const end = events.findLast(isEnd)
  const so = new SoFar()
  const elapsedMs = finite(end === undefined ? last.at - first.at : end.elapsedMs)
  const made = whole(end === undefined ? attemptsOf(events) : end.attempts)
  const usage = events.reduce<Tokens | undefined>((total, event) => sum(total, usageOf(event)), undefined)
  return {
    call: oneLine(first.call),
    provider: oneLine(first.provider),
    startedAt: first.at,
    outcome: end === undefined ? "unfinished" : outcomes[end.event],
    ...(end?.event === "CallFailed" ? { failure: oneLine(end.failure) } : {}),
    ...(end?.event === "Answered" ? { answeredBy: oneLine(end.provider) } : {}),
    ...(end?.event === "Answered" && end.source !== undefined ? { source: end.source } : {}),
    elapsedMs,
    attempts: made,
    ...(usage === undefined ? {} : { usage }),
    steps: events.map((event) => stepOf(event, first.at, so)),
    omitted,
    conclusion: conclusionOf(end, elapsedMs, made),
  }
}

/**
 * The traces of events: one for each call among them, in the order in which the
 * calls began. A call that has not ended is `unfinished`.
 */
export const explain = (events: Iterable<Event>): ReadonlyArray<Trace> => {
  const calls = new Map<string, Kept>()
  for (const event of events) {
    let call = calls.get(event.call)
    if (call === undefined) calls.set(event.call, (call = new Kept()))
    call.push(event)
  }
  return [...calls.values()].flatMap((call) => traceOf(call.events, call.omitted) ?? [])
}

const tokens = ({ inputTokens, outputTokens }: Tokens): string =>
  `Tokens: ${inputTokens ?? "?"} in, ${outputTokens ?? "?"} out, over all attempts.`

const stamp = (ms: number): string => `+${(ms / 1000).toFixed(3)} s`

/** A trace as a text for a person: a line for each step, its reason below it, and the conclusion at the end. */
export const text = (trace: Trace): string => {
  const stamps = trace.steps.map(({ atMs }) => stamp(atMs))
  const width = Math.max(0, ...stamps.map((s) => s.length))
  const lines = trace.steps.flatMap(({ what, why }, index) => [
    `  ${stamps[index]!.padStart(width)}  ${what}`,
    ...(why === undefined ? [] : [`  ${" ".repeat(width)}    because: ${why}`]),
  ])
  const cut = kept / 2
  const half = trace.steps.slice(0, cut).reduce((n, { why }) => n + (why === undefined ? 1 : 2), 0)
  const shown =
    trace.omitted === 0
      ? lines
      : [...lines.slice(0, half), `  … ${trace.omitted} events are left out …`, ...lines.slice(half)]
  return [
    `Call ${trace.call} to ${trace.provider}`,
    ...shown,
    `  = ${trace.conclusion}${trace.usage === undefined ? "" : ` ${tokens(trace.usage)}`}`,
  ].join("\n")
}

/** Is told of a call that ended, with what its caller had around it. */
type OnTrace = (trace: Trace, context: Context.Context<never>) => void

interface Call {
  readonly kept: Kept
  readonly context: Context.Context<never>
}

/** An observer that gives the trace of each call when it ends. */
const observerOf = (
  calls: Tracked<Call>,
  context: Context.Context<never>,
  wanted: (end: End) => boolean,
  onTrace: OnTrace,
): PolicyEvent.Observer => {
  return (event) => {
    const call =
      event.event === "CallStarted"
        ? calls.begin(event.call, { kept: new Kept(), context: around(context) })
        : calls.get(event.call)
    if (call === undefined) return
    call.kept.push(event)
    if (!isEnd(event)) return
    calls.end(event.call)
    const trace = wanted(event) ? traceOf(call.kept.events, call.kept.omitted) : undefined
    if (trace !== undefined) onTrace(trace, call.context)
  }
}

const listener = (onTrace: OnTrace, context: Context.Context<never>): PolicyEvent.Observer =>
  observerOf(new Tracked<Call>("explain", context, undefined), context, () => true, onTrace)

/** Gives the trace of each call in an effect when it ends. One who throws changes nothing. */
export const observe =
  (onTrace: (trace: Trace) => void) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.contextWith((context: Context.Context<R>) => PolicyEvent.observe(listener(onTrace, context))(self))

/** The same for a stream. */
export const observeStream =
  (onTrace: (trace: Trace) => void) =>
  <A, E, R>(self: Stream.Stream<A, E, R>): Stream.Stream<A, E, R> =>
    Stream.unwrap(
      Effect.map(Effect.context<R>(), (context) => PolicyEvent.observeStream(listener(onTrace, context))(self)),
    )

/** How an effect ended, and the traces of the calls in it, in the order in which they ended. */
export interface Traced<A, E> {
  readonly exit: Exit.Exit<A, E>
  readonly traces: ReadonlyArray<Trace>
}

/** Runs an effect, and gives how it ended with the traces of its calls: also when it fails. */
export const traced = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<Traced<A, E>, never, R> =>
  Effect.suspend(() => {
    const traces: Array<Trace> = []
    return Effect.map(Effect.exit(observe((trace) => void traces.push(trace))(self)), (exit) => ({ exit, traces }))
  })

/** Which calls are logged, and how loud. */
export const Options = Schema.Struct({
  ...TrackingOptions.fields,
  /** Are calls that failed logged? Default `true`. */
  failed: Schema.optional(Schema.Boolean),
  /** Calls that took longer are logged, however they ended. Default 30 seconds. */
  slowerThan: Schema.optional(DurationInput),
  /** How loud. Default `Warn`. */
  level: Schema.optional(Schema.Literals(["Error", "Warn", "Info", "Debug", "Trace"])),
})

/** Which calls are logged, and how loud. */
export interface Options extends Schema.Schema.Type<typeof Options> {}

/** An observer that logs the traces of calls that failed or were slow. */
export const make = (options: Options = {}): Effect.Effect<PolicyEvent.Observer> => {
  const { failed = true, level = "Warn", maxCalls, slowerThan } = checked("Explain.make", Options, options)
  const slow = millis(slowerThan, Duration.seconds(30))
  return Effect.map(Effect.context(), (context) =>
    observerOf(
      new Tracked<Call>("explain", context, maxCalls),
      context,
      (end) => (failed && end.event === "CallFailed") || end.elapsedMs > slow,
      (trace, caller) => {
        const annotations = {
          "understudy.call.id": trace.call,
          "understudy.composition": trace.provider,
          "understudy.outcome": trace.outcome,
          ...(trace.failure === undefined ? {} : { "error.type": trace.failure }),
        }
        Effect.runSyncWith(caller)(Effect.logWithLevel(level)(text(trace)).pipe(Effect.annotateLogs(annotations)))
      },
    ),
  )
}

/** Logs the traces of the calls below the layer that failed or were slow, each once it is over. */
export const layer = (options: Options = {}): Layer.Layer<never> =>
  PolicyEvent.layerEffect(make(checked("Explain.layer", Options, options)))
