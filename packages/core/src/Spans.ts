/**
 * Spans: every call and every attempt in a trace, with what was decided between.
 *
 * `Spans.layer()` listens to every call below it and makes spans with the
 * tracer that the call has around it: `understudy.call` below the caller's
 * span, and below that one span for each attempt, `chat gpt-5.2`, of kind
 * `client`, with the attributes of OpenTelemetry's GenAI conventions. What the
 * policies decide between the attempts is an event of the call's span.
 *
 * **Details**
 *
 * - Usage is on the spans of attempts as `gen_ai.usage.*`, so that who sums over
 *   spans counts each token once; the span of the call has the sum over its
 *   attempts as `understudy.usage.*`.
 * - A failed span has the status error with the failure's tag, which is also
 *   `error.type`, and nothing that a provider said. An attempt or a call that
 *   its caller interrupted ends as interrupted, at that instant.
 * - Times are those of the call's `Clock`. Sampling, trace levels, annotations
 *   and links of the surroundings count, as for any span of Effect.
 * - At most `maxCalls` calls are remembered: beyond it the spans of the oldest
 *   are ended, marked `understudy.abandoned`, and counted in
 *   `understudy.observer.evictions`.
 *
 * **Gotchas**
 *
 * - The spans of HTTP requests inside an attempt are below the caller's span,
 *   beside the attempt's.
 * - `effect/ai` makes a span for each of its methods, with `gen_ai.*` of the
 *   answer. It is the caller's span here, so `understudy.call` is below it. A
 *   backend that sums usage over all spans should leave one of the two out.
 *
 * **Example** (Spans over OTLP)
 *
 * ```ts
 * import { Spans } from "@understudy/core"
 * import { Layer } from "effect"
 * import { FetchHttpClient } from "effect/http"
 * import { Otlp } from "effect/observability"
 *
 * const otlp = Otlp.layerJson({ baseUrl: "http://localhost:4318", resource: { serviceName: "assistant" } })
 *
 * export const observed = Spans.layer().pipe(Layer.provideMerge(otlp), Layer.provide(FetchHttpClient.layer))
 * ```
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Layer from "effect/Layer"
import type * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import type { Span } from "effect/Tracer"
import { around } from "./internal/events/around.ts"
import {
  type Attributes,
  attributesOf,
  type Name,
  type Of,
  operationOf,
  tokenAttributes,
} from "./internal/events/facts.ts"
import { oneLine } from "./internal/events/line.ts"
import { sum, type Tokens } from "./internal/events/told.ts"
import { Tracked, TrackingOptions } from "./internal/events/tracked.ts"
import { checked } from "./internal/options.ts"
import * as PolicyEvent from "./PolicyEvent.ts"

/** How many calls are remembered. */
export const Options = TrackingOptions

/** How many calls are remembered. */
export interface Options extends Schema.Schema.Type<typeof Options> {}

/** What a failed span ends with: the tag, and nothing else. */
class FailedSpan {
  readonly _tag: string
  readonly name: string
  readonly message: string

  constructor(tag: string) {
    this._tag = this.name = this.message = tag
  }
}

const failed = (tag: string): Exit.Exit<never, FailedSpan> => Exit.fail(new FailedSpan(oneLine(tag)))

type Ended = Of<"AttemptFailed" | "AttemptSucceeded" | "AttemptInterrupted">

const describeInto = (span: Span, attributes: Attributes): void => {
  for (const [name, value] of Object.entries(attributes)) span.attribute(name, value)
}

/** The spans of one call. */
class CallSpans {
  private readonly context: Context.Context<never>
  private readonly span: Span
  private readonly attempts = new Map<number, Span>()
  private usage: Tokens | undefined
  private failovers = 0
  /** From whom the next attempt comes. */
  private failedOver: Of<"FailedOver"> | undefined

  constructor(context: Context.Context<never>, event: Of<"CallStarted">) {
    this.context = context
    this.span = Effect.runSyncWith(context)(
      Effect.makeSpan("understudy.call", { kind: "internal", attributes: attributesOf(event) }),
    )
  }

  attemptStarted(event: Of<"AttemptStarted">): void {
    this.endAttempt(event.attempt, Exit.interrupt())
    const { failedOver } = this
    this.failedOver = undefined
    const span = Effect.runSyncWith(this.context)(
      Effect.makeSpan(`${operationOf(event.face)} ${oneLine(event.model ?? event.provider)}`, {
        kind: "client",
        parent: this.span,
        attributes: {
          "gen_ai.operation.name": operationOf(event.face),
          ...attributesOf(event),
          ...(failedOver === undefined
            ? {}
            : {
                "understudy.failover.from": oneLine(failedOver.provider),
                "understudy.failover.reason": failedOver.failure,
              }),
        },
      }),
    )
    this.attempts.set(event.attempt, span)
  }

  attemptEnded(event: Ended): void {
    this.usage = sum(this.usage, event.usage)
    const span = this.attempts.get(event.attempt)
    if (span === undefined) return
    describeInto(span, attributesOf(event))
    switch (event.event) {
      case "AttemptSucceeded":
        return this.endAttempt(event.attempt, Exit.void)
      case "AttemptFailed":
        return this.endAttempt(event.attempt, failed(event.failure))
      case "AttemptInterrupted":
        return this.endAttempt(event.attempt, Exit.interrupt())
    }
  }

  committed(event: Of<"Committed">): void {
    const span = this.attempts.get(event.attempt)
    if (span === undefined) return
    span.attribute("gen_ai.response.time_to_first_chunk", event.elapsedMs / 1000)
    span.event("understudy.committed", this.now(), attributesOf(event))
  }

  decided(event: PolicyEvent.PolicyEvent, name: string): void {
    this.span.event(name, this.now(), attributesOf(event))
  }

  goesOn(event: Of<"FailedOver">): void {
    this.failovers++
    this.failedOver = event
  }

  end(exit: Exit.Exit<unknown, unknown>, attributes: Attributes): void {
    for (const attempt of this.attempts.keys()) this.endAttempt(attempt, Exit.interrupt())
    describeInto(this.span, attributes)
    this.span.attribute("understudy.failovers", this.failovers)
    for (const [name, n] of Object.entries(tokenAttributes(this.usage))) {
      this.span.attribute(name.replace("gen_ai.", "understudy."), n)
    }
    this.span.end(this.now(), exit)
  }

  /** Nobody will tell how it ended. */
  abandon(): void {
    for (const span of this.attempts.values()) span.attribute("understudy.abandoned", true)
    this.end(Exit.interrupt(), { "understudy.abandoned": true })
  }

  private endAttempt(attempt: number, exit: Exit.Exit<unknown, unknown>): void {
    this.attempts.get(attempt)?.end(this.now(), exit)
    this.attempts.delete(attempt)
  }

  private now(): bigint {
    return Context.get(this.context, Clock.Clock).currentTimeNanosUnsafe()
  }
}

/**
 * What an event does to the spans of its call. The name of an event of the
 * call's span, or what is done instead.
 */
type Row<E> = string | ((event: E, call: CallSpans) => void)

/** A row for each event but the first of a call. */
type Table = { readonly [N in Exclude<Name, "CallStarted">]: Row<Of<N>> }

const attemptEnded = (event: Ended, call: CallSpans): void => call.attemptEnded(event)

const rows: Table = {
  AttemptStarted: (event, call) => call.attemptStarted(event),
  AttemptFailed: attemptEnded,
  AttemptSucceeded: attemptEnded,
  AttemptInterrupted: attemptEnded,
  Committed: (event, call) => call.committed(event),
  BackedOff: "understudy.backed_off",
  Queued: "understudy.queued",
  CapacityRejected: "understudy.capacity_rejected",
  BudgetRefused: "understudy.budget_refused",
  HedgeLaunched: "understudy.hedge.launched",
  HedgeWon: "understudy.hedge.won",
  HedgeLost: "understudy.hedge.lost",
  CircuitOpened: "understudy.circuit.opened",
  CircuitHalfOpened: "understudy.circuit.half_opened",
  CircuitClosed: "understudy.circuit.closed",
  CircuitRejected: "understudy.circuit.rejected",
  FloorProbed: "understudy.floor.probed",
  CircuitSet: "understudy.circuit.set",
  FailedOver: (event, call) => {
    call.decided(event, "understudy.failed_over")
    call.goesOn(event)
  },
  PassedOver: "understudy.passed_over",
  CandidateChanged: "understudy.candidate.changed",
  ConfigApplied: "understudy.config.applied",
  ConfigRejected: "understudy.config.rejected",
  AnswerRejected: "understudy.answer.rejected",
  AnswerRepaired: "understudy.answer.repaired",
  AnswerDoubted: "understudy.answer.doubted",
  PromptChanged: "understudy.prompt.changed",
  Degraded: "understudy.degraded",
  CacheRead: "understudy.cache.read",
  CacheWritten: "understudy.cache.written",
  CacheUnavailable: "understudy.cache.unavailable",
  Answered: (event, call) => call.end(Exit.void, attributesOf(event)),
  CallFailed: (event, call) => call.end(failed(event.failure), attributesOf(event)),
  CallInterrupted: (event, call) => call.end(Exit.interrupt(), attributesOf(event)),
}

/** An observer that makes spans. Those of calls under way are ended when the scope closes. */
export const make = (options: Options = {}): Effect.Effect<PolicyEvent.Observer, never, Scope.Scope> => {
  const { maxCalls } = checked("Spans.make", Options, options)
  return Effect.gen(function* () {
    const context = yield* Effect.context()
    const calls = new Tracked<CallSpans>("spans", context, maxCalls, (call) => call.abandon())
    yield* Scope.addFinalizer(
      yield* Scope.Scope,
      Effect.sync(() => calls.clear()),
    )
    const table: Readonly<Record<string, Row<never>>> = rows
    return (event) => {
      if (event.event === "CallStarted") {
        calls.begin(event.call, new CallSpans(around(context), event))
        return
      }
      const call = calls.get(event.call)
      const row = Object.hasOwn(table, event.event) ? table[event.event] : undefined
      if (call === undefined || row === undefined) return
      if (typeof row === "string") call.decided(event, row)
      else row(event as never, call)
      if (event.event === "Answered" || event.event === "CallFailed" || event.event === "CallInterrupted") {
        calls.end(event.call)
      }
    }
  })
}

/** Makes spans for every call below the layer. */
export const layer = (options: Options = {}): Layer.Layer<never> =>
  PolicyEvent.layerEffect(make(checked("Spans.layer", Options, options)))
