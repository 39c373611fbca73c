/** Every metric there is: its kind, its unit, what it counts, and the labels that it may carry. */
import { evictions, evictionsDescription } from "./tracked.ts"

/** A metric. */
export interface Instrument {
  readonly type: "counter" | "gauge" | "histogram"
  /** In UCUM, as OpenTelemetry writes it. */
  readonly unit: string
  readonly description: string
  readonly labels: ReadonlyArray<string>
  /** The upper bounds of a histogram's buckets. */
  readonly boundaries?: ReadonlyArray<number>
}

// The buckets that OpenTelemetry's conventions recommend for durations and for tokens.
const seconds = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
const tokens = [1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864]

const provider = "gen_ai.provider.name"
const model = "gen_ai.request.model"
const operation = "gen_ai.operation.name"
const error = "error.type"
const composition = "understudy.composition"

/** All metrics, by name. Those of OpenTelemetry's GenAI conventions first. */
export const instruments = {
  "gen_ai.client.operation.duration": {
    type: "histogram",
    unit: "s",
    description: "How long attempts took.",
    labels: [operation, provider, model, error],
    boundaries: seconds,
  },
  "gen_ai.client.operation.time_to_first_chunk": {
    type: "histogram",
    unit: "s",
    description: "How long streams took to their first content.",
    labels: [operation, provider, model],
    boundaries: seconds,
  },
  "gen_ai.client.token.usage": {
    type: "histogram",
    unit: "{token}",
    description: "Tokens of an attempt, as far as the provider told them.",
    labels: [operation, provider, model, "gen_ai.token.type"],
    boundaries: tokens,
  },
  "understudy.calls": {
    type: "counter",
    unit: "{call}",
    description: "Calls that ended.",
    labels: [composition, "understudy.outcome", error],
  },
  "understudy.calls.running": {
    type: "gauge",
    unit: "{call}",
    description: "Calls under way.",
    labels: [composition],
  },
  "understudy.call.duration": {
    type: "histogram",
    unit: "s",
    description: "How long calls took, with all their attempts and waits.",
    labels: [composition, "understudy.outcome"],
    boundaries: seconds,
  },
  "understudy.answers": {
    type: "counter",
    unit: "{answer}",
    description: "Answers, by whom and from which rung of the ladder they came.",
    labels: [composition, "understudy.source", provider, model],
  },
  "understudy.attempts.started": {
    type: "counter",
    unit: "{attempt}",
    description: "Attempts that began.",
    labels: [provider, model],
  },
  "understudy.attempts": {
    type: "counter",
    unit: "{attempt}",
    description: "Attempts that ended.",
    labels: [provider, model, "understudy.outcome"],
  },
  "understudy.attempts.running": {
    type: "gauge",
    unit: "{attempt}",
    description: "Attempts under way.",
    labels: [provider, model],
  },
  "understudy.failures": {
    type: "counter",
    unit: "{failure}",
    description: "Failures of attempts, by tag.",
    labels: [provider, model, error, "understudy.timeout.phase"],
  },
  "understudy.retries": {
    type: "counter",
    unit: "{retry}",
    description: "Backoffs, after which the same provider was asked again.",
    labels: [provider, model, error],
  },
  "understudy.backoff.duration": {
    type: "histogram",
    unit: "s",
    description: "How long backoffs were.",
    labels: [provider, model],
    boundaries: seconds,
  },
  "understudy.queued": {
    type: "counter",
    unit: "{attempt}",
    description: "How often a call had to wait in line for a limit.",
    labels: [provider, model, "understudy.limit"],
  },
  "understudy.capacity.rejections": {
    type: "counter",
    unit: "{rejection}",
    description: "How often a candidate was not asked, since a limit had no room.",
    labels: [provider, model, "understudy.limit", "understudy.reason"],
  },
  "understudy.budget.refusals": {
    type: "counter",
    unit: "{refusal}",
    description: "Extra attempts that the budget of their destination did not allow.",
    labels: [provider, model, "understudy.extra"],
  },
  "understudy.hedges": {
    type: "counter",
    unit: "{hedge}",
    description: "Attempts that were made beside others: launched, won, lost.",
    labels: [provider, model, "understudy.outcome"],
  },
  "understudy.failovers": {
    type: "counter",
    unit: "{failover}",
    description: "Calls that went on to another candidate.",
    labels: [provider, model, "understudy.to", error],
  },
  "understudy.circuit.state": {
    type: "gauge",
    unit: "{state}",
    description: "The state of a circuit: 0 closed, 1 half-open, 2 open. A shadow is 0: it lets everything through.",
    labels: ["understudy.circuit.key"],
  },
  "understudy.circuit.openings": {
    type: "counter",
    unit: "{opening}",
    description: "How often a circuit opened, and why.",
    labels: ["understudy.circuit.key", "understudy.circuit.shadow", "understudy.reason"],
  },
  "understudy.circuit.rejections": {
    type: "counter",
    unit: "{rejection}",
    description: "How often a candidate was passed over, since its circuit let nothing through.",
    labels: ["understudy.circuit.key", "understudy.circuit.shadow"],
  },
  "understudy.circuit.set": {
    type: "counter",
    unit: "{change}",
    description: "How often a circuit was taken in hand.",
    labels: ["understudy.circuit.key", "understudy.to"],
  },
  "understudy.passed_over": {
    type: "counter",
    unit: "{candidate}",
    description: "How often a candidate was not asked, since its context window cannot hold the prompt.",
    labels: [provider, model],
  },
  "understudy.candidate.changes": {
    type: "counter",
    unit: "{change}",
    description: "How often something else was set for a candidate.",
    labels: [composition, provider, model, "understudy.by"],
  },
  "understudy.config.changes": {
    type: "counter",
    unit: "{change}",
    description: "How often the configuration file changed, applied or rejected.",
    labels: [composition, "understudy.outcome"],
  },
  "understudy.floor.probes": {
    type: "counter",
    unit: "{probe}",
    description: "How often a candidate was asked although every circuit was open.",
    labels: [provider, model],
  },
  "understudy.answers.rejected": {
    type: "counter",
    unit: "{answer}",
    description: "Answers that were not what was asked for.",
    labels: [provider, model, "understudy.reason", "understudy.again"],
  },
  "understudy.answers.repaired": {
    type: "counter",
    unit: "{answer}",
    description: "Answers that were mended.",
    labels: [provider, model],
  },
  "understudy.answers.doubted": {
    type: "counter",
    unit: "{answer}",
    description: "Answers that were accepted although a check had something against them.",
    labels: [provider, model, "understudy.check"],
  },
  "understudy.prompts.changed": {
    type: "counter",
    unit: "{prompt}",
    description: "Prompts that were changed.",
    labels: [provider, model, error, "understudy.step"],
  },
  "understudy.degradations": {
    type: "counter",
    unit: "{step}",
    description: "Steps down the ladder.",
    labels: [composition, "understudy.to", error],
  },
  "understudy.cache.reads": {
    type: "counter",
    unit: "{read}",
    description: "Reads of the cache of answers, by what was found.",
    labels: [composition, "understudy.cache.found"],
  },
  "understudy.cache.writes": {
    type: "counter",
    unit: "{write}",
    description: "Answers that were put into the cache.",
    labels: [composition],
  },
  "understudy.cache.unavailable": {
    type: "counter",
    unit: "{operation}",
    description: "How often the cache could not be used.",
    labels: [composition, "understudy.cache.operation", "understudy.cache.why"],
  },
  "understudy.tokens": {
    type: "counter",
    unit: "{token}",
    description: "Tokens of all attempts. Cached ones are also counted as input, reasoning ones also as output.",
    labels: [provider, model, "gen_ai.token.type"],
  },
  "understudy.tokens.unknown": {
    type: "counter",
    unit: "{attempt}",
    description: "Attempts that may have cost tokens of which nobody told.",
    labels: [provider, model, "understudy.outcome"],
  },
  "understudy.cost.estimated": {
    type: "counter",
    unit: "{currency}",
    description: "What the known tokens cost, estimated by the given prices.",
    labels: [provider, model, "understudy.currency"],
  },
  "understudy.cost.unpriced": {
    type: "counter",
    unit: "{attempt}",
    description: "Attempts whose tokens are known, and whose price is not.",
    labels: [provider, model],
  },
  "understudy.events": {
    type: "counter",
    unit: "{event}",
    description: "Policy events, by name.",
    labels: ["understudy.event"],
  },
  [evictions]: {
    type: "counter",
    unit: "{call}",
    description: evictionsDescription,
    labels: ["understudy.observer"],
  },
} as const satisfies Readonly<Record<string, Instrument>>

type All = typeof instruments

/** The names of metrics of a kind. */
export type Named<Type extends Instrument["type"]> = {
  [N in keyof All]: All[N]["type"] extends Type ? N : never
}[keyof All]

/** The labels of a metric, each with its value; none that it does not have. */
export type Labels<N extends keyof All> = { readonly [L in All[N]["labels"][number]]: string | undefined }
