/**
 * The preset: candidates in, one provider that survives a bad day out.
 *
 * Each candidate gets clocks, a circuit breaker and retries, in the right
 * order; a failover asks them by priority; the call has a deadline. Every
 * number has a default that is right for LLM calls, and every part can be used
 * by hand instead.
 *
 * **Details**
 *
 * - Order: deadline ( judge answers ( repair prompts ( failover ( budget ( retry (
 *   hedge ( limits ( breaker ( clocks ( provider )))))))))).
 * - Answers that are asked for as JSON, and calls of tools, are judged, mended and
 *   asked again for (`StructuredOutput`), within the call's attempts and deadline.
 * - Histories are guarded: what another candidate left in one (reasoning with its
 *   signature, ids of tool calls) is taken out before a candidate sees it.
 * - The options are a schema, `Understudy.Options`. A configuration file is
 *   read with the same schema, where a candidate names its adapter instead of
 *   holding a provider: `Understudy.optionsOf`.
 * - The provider needs the services in `Understudy.layer`, where all state
 *   lives.
 * - Options that cannot be meant are thrown as `InvalidOptions` when the
 *   provider is made, with their path.
 *
 * **Example** (Two candidates)
 *
 * ```ts
 * import { type LanguageModelFace, type LlmError, type Provider, Understudy } from "@understudy/core"
 *
 * type Model = Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.ProviderFailure>
 *
 * export const resilient = (openai: Model, claude: Model) =>
 *   Understudy.make({
 *     candidates: [{ provider: openai }, { provider: claude, priority: 1 }],
 *     deadline: { generate: "20 seconds" },
 *   })
 * ```
 */
import * as Schema from "effect/Schema"
import * as Layer from "effect/Layer"
import * as Bulkhead from "./Bulkhead.ts"
import * as CircuitBreaker from "./CircuitBreaker.ts"
import * as Directory from "./Directory.ts"
import * as Failover from "./Failover.ts"
import * as Hedge from "./Hedge.ts"
import * as History from "./History.ts"
import { type LanguageModelFace, languageModelFace } from "./LanguageModelFace.ts"
import { settingsOf } from "./internal/directory/settings.ts"
import { checked, InvalidOptions } from "./internal/options.ts"
import type {
  AllProvidersFailed,
  ContentFiltered,
  ContextLengthExceeded,
  DeadlineExceeded,
  InvalidRequest,
  InvalidResponse,
} from "./internal/llmError.ts"
import type { AnyOf, AnyProvider, ErrorOf, FaceOf, Provider, ServicesOf } from "./internal/provider.ts"
import { isProvider } from "./internal/provider.ts"
import * as RateLimit from "./RateLimit.ts"
import * as Recovery from "./Recovery.ts"
import * as Retry from "./Retry.ts"
import * as RetryBudget from "./RetryBudget.ts"
import * as StructuredOutput from "./StructuredOutput.ts"
import * as Timeouts from "./Timeouts.ts"

const attempts = {
  /** Clocks of the attempts, or `false` for none. */
  timeouts: Schema.optional(Schema.Union([Schema.Literal(false), Timeouts.Options])),
  /** The circuit breaker, or `false` for none. */
  breaker: Schema.optional(Schema.Union([Schema.Literal(false), CircuitBreaker.Options])),
  /** When to ask the same candidate again, or `false` for never. */
  retry: Schema.optional(Schema.Union([Schema.Literal(false), Retry.Options])),
  /** How many attempts there may be at once, or `false` for no bound. Default: no bound. */
  bulkhead: Schema.optional(Schema.Union([Schema.Literal(false), Bulkhead.Options])),
  /** How many requests and tokens there may be in a minute, or `false` for no bound. Default: no bound. */
  rateLimit: Schema.optional(Schema.Union([Schema.Literal(false), RateLimit.Options])),
  /** When another attempt runs beside one that is slow, or `false` for never. Default: never. */
  hedge: Schema.optional(Schema.Union([Schema.Literal(false), Hedge.Options])),
  /** How many attempts retries and hedges may add, or `false` for no bound. Default: 20 % of the first ones, and 10 a second. */
  budget: Schema.optional(Schema.Union([Schema.Literal(false), RetryBudget.Options])),
}

/** What is said of one candidate besides its provider. Its policies win over those for all, field by field. */
export const CandidateOptions = Schema.Struct({ ...Failover.CandidateOptions.fields, ...attempts })

/** What is said of one candidate besides its provider. */
export interface CandidateOptions extends Schema.Schema.Type<typeof CandidateOptions> {}

/** What is said of the composition as a whole. */
export const Policies = Schema.Struct({
  ...Failover.Options.fields,
  ...attempts,
  /** Asks again with a changed prompt where a provider does not take it. Nothing is changed unless it is said here. */
  recovery: Schema.optional(
    Schema.Struct({
      /** Prompts that are too long for the context window. */
      contextLength: Schema.optional(Recovery.ContextLengthOptions),
      /** Prompts and answers that a content policy refuses. */
      contentFiltered: Schema.optional(Recovery.ContentFilteredOptions),
    }),
  ),
  /** How answers that are asked for as JSON, and calls of tools, are judged and asked for again, or `false` for not at all. */
  structured: Schema.optional(Schema.Union([Schema.Literal(false), StructuredOutput.Options])),
  /** When the call must have ended, or `false` for never. */
  deadline: Schema.optional(Schema.Union([Schema.Literal(false), Timeouts.DeadlineOptions])),
})

/** What is said of the composition as a whole. */
export interface Policies extends Schema.Schema.Type<typeof Policies> {}

/** The options with candidates of this form: a configuration file names adapters where a program holds providers. */
export const optionsOf = <const Fields extends Schema.Struct.Fields>(candidate: Fields) =>
  Schema.Struct({
    candidates: Schema.NonEmptyArray(Schema.Struct({ ...CandidateOptions.fields, ...candidate })),
    ...Policies.fields,
  })

/** All options of `Understudy.make`. */
export const Options = optionsOf({
  provider: Schema.declare<AnyProvider>((u): u is AnyProvider => isProvider(u), { expected: "a provider" }),
})

/** A candidate with its provider. */
export interface Candidate<P> extends CandidateOptions {
  readonly provider: P
}

type ProviderOf<C> = C extends { readonly provider: infer P } ? P : never

type Model = Provider<LanguageModelFace, unknown, unknown>

const isLanguageModel = (provider: AnyProvider): provider is Model => provider.face === languageModelFace

const over = <O extends object>(mine: O | false | undefined, all: O | false | undefined): O | false =>
  mine === false || (mine === undefined && all === false)
    ? false
    : ({ ...(all === false ? {} : all), ...(mine === undefined ? {} : defined(mine)) } as O)

/** Of policies that there are only where they are asked for. */
const atMost = <O extends object>(mine: O | false | undefined, all: O | false | undefined): O | undefined => {
  if (mine === false || (mine === undefined && (all === false || all === undefined))) return undefined
  return { ...(all === false ? {} : all), ...(mine === undefined ? {} : defined(mine)) } as O
}

const defined = <O extends object>(options: O): Partial<O> =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Partial<O>

/**
 * Candidates in, one resilient provider out. What leaves it before the commit
 * point is `AllProvidersFailed`, `DeadlineExceeded`, and those failures of the
 * candidates whose remedy is a changed request.
 */
export const make = <
  C extends Candidate<AnyProvider>,
  const Rest extends ReadonlyArray<Candidate<AnyOf<FaceOf<ProviderOf<NoInfer<C>>>>>>,
>(
  options: { readonly candidates: readonly [C, ...Rest] } & Policies,
): Provider<
  FaceOf<ProviderOf<C>>,
  | Failover.Leaves<ErrorOf<ProviderOf<C>> | ErrorOf<ProviderOf<Rest[number]>>>
  | DeadlineExceeded
  | OfAnswers<FaceOf<ProviderOf<C>>>,
  ServicesOf<ProviderOf<C>> | ServicesOf<ProviderOf<Rest[number]>> | State
> => {
  const o = checked("Understudy.make", Options, options)
  const candidates = o.candidates.map((candidate) => {
    const timeouts = over(candidate.timeouts, o.timeouts)
    const breaker = over(candidate.breaker, o.breaker)
    const retry = over(candidate.retry, o.retry)
    let provider = isLanguageModel(candidate.provider) ? History.guard(candidate.provider) : candidate.provider
    if (timeouts !== false) provider = provider.pipe(Timeouts.with(timeouts))
    if (breaker !== false) {
      provider = provider.pipe(
        CircuitBreaker.with(o.patience === undefined ? breaker : { patience: o.patience, ...defined(breaker) }),
      )
    }
    const bulkhead = atMost(candidate.bulkhead, o.bulkhead)
    const rateLimit = atMost(candidate.rateLimit, o.rateLimit)
    const hedge = atMost(candidate.hedge, o.hedge)
    const budget = over(candidate.budget, o.budget)
    if (bulkhead !== undefined) provider = provider.pipe(Bulkhead.with(bulkhead))
    if (rateLimit !== undefined) provider = provider.pipe(RateLimit.with(rateLimit))
    if (hedge !== undefined) provider = provider.pipe(Hedge.with(hedge))
    if (retry !== false) provider = provider.pipe(Retry.with(retry))
    if (budget !== false && (retry !== false || hedge !== undefined)) {
      provider = provider.pipe(RetryBudget.with(budget))
    }
    return { provider, ...settingsOf(candidate) }
  }) as [Failover.Candidate<AnyProvider>]
  const { latencyDecay, maxAttempts, name, order, patience, whenFiltered } = o
  const failover = Failover.make(candidates, { latencyDecay, maxAttempts, name, order, patience, whenFiltered })
  if (o.recovery !== undefined && !isLanguageModel(failover)) {
    throw new InvalidOptions(
      "Understudy.make.recovery",
      "expected candidates that are language models: others have no prompt",
    )
  }
  const answered: AnyProvider = isLanguageModel(failover) ? answering(failover, o) : failover
  const whole: unknown = o.deadline === false ? answered : answered.pipe(Timeouts.deadline(o.deadline))
  return whole as ReturnType<typeof make<C, Rest>>
}

/** What is done about prompts that are not taken, and answers that do not fit. */
const answering = (failover: Model, { recovery, structured }: Policies): Model => {
  let model = failover
  if (recovery?.contextLength !== undefined) model = model.pipe(Recovery.contextLength(recovery.contextLength))
  if (recovery?.contentFiltered !== undefined) model = model.pipe(Recovery.contentFiltered(recovery.contentFiltered))
  return structured === false ? model : model.pipe(StructuredOutput.with(structured))
}

/** What judging the answers adds, where there are answers to judge. */
type OfAnswers<F> = F extends LanguageModelFace ? InvalidResponse : never

/** The failures that leave a composition of adapters before the commit point, for the types of services. */
export type Failure =
  | AllProvidersFailed
  | ContentFiltered
  | ContextLengthExceeded
  | DeadlineExceeded
  | InvalidRequest
  | InvalidResponse

/** What compositions keep beyond a call: circuits, budgets, permits, limits and latencies. */
export type State =
  | CircuitBreaker.Circuits
  | RetryBudget.Budgets
  | Bulkhead.Bulkheads
  | RateLimit.RateLimits
  | Hedge.Latencies

/** All state of compositions, in memory: what they need, and the directory that they use where there is one. */
export const layer: Layer.Layer<State | Directory.Directory> = Layer.mergeAll(
  CircuitBreaker.layer,
  RetryBudget.layer,
  Bulkhead.layer,
  RateLimit.layer,
  Hedge.layer,
  Directory.layer,
)

export {
  /** What is thrown for options that cannot be meant; its message names the option and what was expected. */
  InvalidOptions,
}
