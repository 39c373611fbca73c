/**
 * A log of policy events: one line each, for people, with annotations for
 * machines.
 *
 * `EventLog.layer()` listens to every call below it and logs through Effect's
 * loggers, with the levels, annotations and spans that the call has around it.
 * The message is `PolicyEvent.describe`; the annotations are the attributes of
 * `docs/events.md`. A logger of one's own (`Logger.consoleJson`, OTLP) takes
 * both.
 *
 * **Details**
 *
 * - Levels: what a user had to notice is `Error` (a call failed, a circuit
 *   opened), what was hidden from him is `Warn` (an attempt failed, the next
 *   candidate was asked), what is worth a line is `Info` (an answer), the rest is
 *   `Debug`. `levels` changes them, `None` leaves an event out.
 * - A line stays a line: control characters in names are taken out, and names
 *   are cut at 200 characters. The text of answers is never in it.
 * - A logger that throws changes nothing.
 *
 * **Gotchas**
 *
 * - By Effect's default `Debug` is not logged: set `References.MinimumLogLevel`.
 *
 * **Example** (As JSON, without the lines of backoffs)
 *
 * ```ts
 * import { EventLog } from "@understudy/core"
 * import { Layer, Logger } from "effect"
 *
 * export const observed = Layer.mergeAll(
 *   EventLog.layer({ levels: { BackedOff: "None" } }),
 *   Logger.layer([Logger.consoleJson]),
 * )
 * ```
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as LogLevel from "effect/LogLevel"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import { around } from "./internal/events/around.ts"
import { attributesOf, isEnd, kinds, levelOf, type Name } from "./internal/events/facts.ts"
import { oneLine } from "./internal/events/line.ts"
import { Tracked, TrackingOptions } from "./internal/events/tracked.ts"
import { checked } from "./internal/options.ts"
import * as PolicyEvent from "./PolicyEvent.ts"

const Level = Schema.Literals(["Error", "Warn", "Info", "Debug", "Trace", "None"])

/** How loud an event is; `None` leaves it out. */
export type Level = typeof Level.Type

type Levels = { readonly [N in Name]: Schema.optional<typeof Level> }

/** What is logged, and how loud. */
export const Options = Schema.Struct({
  ...TrackingOptions.fields,
  /** Other levels for events, by name. */
  levels: Schema.optional(
    Schema.Struct(Object.fromEntries(Object.keys(kinds).map((name) => [name, Schema.optional(Level)])) as Levels),
  ),
})

/** What is logged, and how loud. */
export interface Options extends Schema.Schema.Type<typeof Options> {}

/** The longest line. */
const longestLine = 1000

/** The line of an event. One that is not known is told by its name. */
const lineOf = (event: PolicyEvent.PolicyEvent): string => {
  const line: string | undefined = PolicyEvent.describe(event)
  return oneLine(line ?? event.event, longestLine)
}

/** An observer that logs. */
export const make = (options: Options = {}): Effect.Effect<PolicyEvent.Observer> => {
  const { levels = {}, maxCalls } = checked("EventLog.make", Options, options)
  return Effect.map(Effect.context(), (context) => {
    // A call's lines have the annotations of its caller, also those that its own fibers do not write.
    const calls = new Tracked<Context.Context<never>>("log", context, maxCalls)
    return (event) => {
      const caller =
        event.event === "CallStarted"
          ? calls.begin(event.call, around(context))
          : (calls.get(event.call) ?? around(context))
      if (isEnd(event)) calls.end(event.call)
      const level = levels[event.event] ?? levelOf(event)
      if (level === "None" || LogLevel.isLessThan(level, Context.get(caller, References.MinimumLogLevel))) return
      Effect.runSyncWith(caller)(
        Effect.logWithLevel(level)(lineOf(event)).pipe(Effect.annotateLogs(attributesOf(event))),
      )
    }
  })
}

/** Logs every call below the layer. */
export const layer = (options: Options = {}): Layer.Layer<never> =>
  PolicyEvent.layerEffect(make(checked("EventLog.layer", Options, options)))
