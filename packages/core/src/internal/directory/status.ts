/** How a candidate is and how it does, as data: for a health route, and for people. */
import * as Schema from "effect/Schema"
import { Price } from "../events/price.ts"
import { Settings } from "./settings.ts"

const UnixMillis = Schema.Finite

/** The circuit of a candidate: its own, or its account's when that is the one that keeps it from being asked. */
const Circuit = Schema.Struct({
  key: Schema.String,
  state: Schema.Literals(["closed", "open", "half-open"]),
  /** Who has the last word: the outcomes, or somebody by hand. */
  mode: Schema.String,
  /** How long until it lets probes through, while it is open. */
  retryAfter: Schema.optionalKey(Schema.DurationFromMillis),
})

/** A candidate of a composition, seen from outside. */
export const Status = Schema.Struct({
  /** The name of the composition. */
  composition: Schema.String,
  /** The name of the candidate. */
  candidate: Schema.String,
  model: Schema.String,
  /** Could it be asked now: is it enabled, and no circuit open? */
  ready: Schema.Boolean,
  enabled: Schema.Boolean,
  priority: Schema.Finite,
  weight: Schema.Finite,
  contextWindow: Schema.optionalKey(Schema.Int),
  price: Schema.optionalKey(Price),
  tags: Schema.Array(Schema.String),
  /** What was set while the program runs, over what was declared. */
  overrides: Settings,
  /** Nothing when it has no circuit, or was not asked yet. */
  circuit: Schema.optionalKey(Circuit),
  /** Attempts at it that are under way; a stream is one until it ends. */
  inFlight: Schema.Int,
  /** How long it takes, as far as is known: a moving average that goes up at once and comes down slowly. */
  latency: Schema.Struct({
    /** To a whole answer. */
    answer: Schema.optionalKey(Schema.DurationFromMillis),
    /** To the first content of a stream. */
    firstContent: Schema.optionalKey(Schema.DurationFromMillis),
  }),
  /** When it answered last, in milliseconds of Unix time. */
  answeredAt: Schema.optionalKey(UnixMillis),
  /** How it failed last, by tag, and when, in milliseconds of Unix time. */
  lastFailure: Schema.optionalKey(Schema.Struct({ failure: Schema.String, at: UnixMillis })),
})

/** A candidate of a composition, seen from outside. */
export interface Status extends Schema.Schema.Type<typeof Status> {}
