/** What limits, budgets and hedges add to error and requirement types, to the letter. */
import { type Effect, pipe, Schedule, type Stream } from "effect"
import {
  Bulkhead,
  type Face,
  Hedge,
  type LanguageModelFace,
  type LlmError,
  type Provider,
  RateLimit,
  Retry,
  RetryBudget,
} from "@understudy/core"
import { same } from "./same.ts"

type LM = LanguageModelFace.LanguageModelFace
type Own = LlmError.RateLimited | LlmError.InvalidRequest
declare const openai: Provider.Provider<LM, Own, "http">

// --- Around a provider

const eight = openai.pipe(Bulkhead.with({ permits: 8 }))
same<typeof eight, Provider.Provider<LM, Own | LlmError.CapacityExceeded, "http" | Bulkhead.Bulkheads>>(true)

const paced = openai.pipe(RateLimit.with({ requestsPerMinute: 500 }))
same<typeof paced, Provider.Provider<LM, Own | LlmError.CapacityExceeded, "http" | RateLimit.RateLimits>>(true)

const hedged = openai.pipe(Hedge.with())
same<typeof hedged, Provider.Provider<LM, Own, "http" | Hedge.Latencies>>(true)

const bounded = openai.pipe(RetryBudget.with())
same<typeof bounded, Provider.Provider<LM, Own, "http" | RetryBudget.Budgets>>(true)

type All = Bulkhead.Bulkheads | RateLimit.RateLimits | Hedge.Latencies | RetryBudget.Budgets
const all = openai.pipe(
  Bulkhead.with({ permits: 8 }),
  RateLimit.with({ tokensPerMinute: 200_000 }),
  Hedge.with({ quantile: 0.9 }),
  Retry.with(),
  RetryBudget.with(),
)
same<typeof all, Provider.Provider<LM, Own | LlmError.CapacityExceeded, "http" | All>>(true)
const withPipe = pipe(
  openai,
  RetryBudget.with(),
  Retry.with(),
  Hedge.with(),
  RateLimit.with({ inputTokensPerMinute: 1, outputTokensPerMinute: 1 }),
  Bulkhead.with({ permits: 1, queue: 0, maxWait: "1 second" }),
)
same<typeof withPipe, typeof all>(true)

const careful = <F extends Face.Any, E, R>(self: Provider.Provider<F, E, R>) =>
  self.pipe(Bulkhead.with({ permits: 8 }), Hedge.with(), RetryBudget.with())
declare const plain: Provider.Provider<Face.Plain<string>, "odd">
const otherFace = plain.pipe(careful)
same<
  typeof otherFace,
  Provider.Provider<
    Face.Plain<string>,
    "odd" | LlmError.CapacityExceeded,
    Bulkhead.Bulkheads | Hedge.Latencies | RetryBudget.Budgets
  >
>(true)
const asPolicy: Provider.Policy<LlmError.CapacityExceeded, Bulkhead.Bulkheads | Hedge.Latencies | RetryBudget.Budgets> =
  careful
export const applied = asPolicy(openai)

// --- Across candidates

declare const claude: Provider.Provider<LM, LlmError.Overloaded, "other http">
const across = Hedge.across([openai, claude], { delay: "3 seconds" })
same<
  typeof across,
  Provider.Provider<
    LM,
    Own | LlmError.Overloaded | LlmError.AllProvidersFailed,
    "http" | "other http" | Hedge.Latencies
  >
>(true)
// @ts-expect-error -- a candidate of another face
export const mixed = Hedge.across([openai, plain])
// @ts-expect-error -- nobody to ask
export const nobody = Hedge.across([])

// --- On effects and streams

declare const work: Effect.Effect<number, LlmError.Overloaded | "odd", "db">
declare const parts: Stream.Stream<LanguageModelFace.Part, LlmError.Overloaded, "db">
declare const face: LM
type Found = LlmError.ProviderFailure | LlmError.StreamInterrupted
type OfWork = LlmError.Overloaded | "odd"

const boundedWork = Bulkhead.effect(work, { key: "k", permits: 1 })
same<typeof boundedWork, Effect.Effect<number, OfWork | LlmError.CapacityExceeded, "db" | Bulkhead.Bulkheads>>(true)
const pacedWork = RateLimit.effect(work, { key: "k", tokensPerMinute: 1, tokens: 3, used: (n) => n })
same<typeof pacedWork, Effect.Effect<number, OfWork | LlmError.CapacityExceeded, "db" | RateLimit.RateLimits>>(true)
const hedgedWork = Hedge.effect(work, { key: "k" })
same<typeof hedgedWork, Effect.Effect<number, OfWork, "db" | Hedge.Latencies>>(true)
const budgetedWork = RetryBudget.effect(work, { key: "k" })
same<typeof budgetedWork, Effect.Effect<number, OfWork, "db" | RetryBudget.Budgets>>(true)

type OfParts = LlmError.Overloaded | Found
const boundedParts = Bulkhead.stream(parts, { key: "k", permits: 1, face })
same<
  typeof boundedParts,
  Stream.Stream<LanguageModelFace.Part, OfParts | LlmError.CapacityExceeded, "db" | Bulkhead.Bulkheads>
>(true)
const pacedParts = RateLimit.stream(parts, { key: "k", requestsPerMinute: 1, face })
same<
  typeof pacedParts,
  Stream.Stream<LanguageModelFace.Part, OfParts | LlmError.CapacityExceeded, "db" | RateLimit.RateLimits>
>(true)
const hedgedParts = Hedge.stream(parts, { key: "k", face })
same<typeof hedgedParts, Stream.Stream<LanguageModelFace.Part, OfParts, "db" | Hedge.Latencies>>(true)
const budgetedParts = RetryBudget.stream(parts, { key: "k" })
same<typeof budgetedParts, Stream.Stream<LanguageModelFace.Part, LlmError.Overloaded, "db" | RetryBudget.Budgets>>(true)
// @ts-expect-error -- permits of an effect need a key
export const keyless = Bulkhead.effect(work, { permits: 1 })
// @ts-expect-error -- a bulkhead without permits
export const permitless = Bulkhead.with({})
// @ts-expect-error -- what was used is a number
export const unusable = RateLimit.effect(work, { key: "k", tokensPerMinute: 1, used: (n) => String(n) })

// --- Numbers and schedules of a tag's own

export const perTag = Retry.with({
  times: 1,
  perTag: {
    RateLimited: {
      times: 4,
      schedule: Schedule.spaced("1 second").pipe(
        Schedule.setInputType<LlmError.RateLimited>(),
        Schedule.while(({ input }) => input.status === 429),
      ),
    },
    ConnectionFailed: { base: "10 millis", jitter: "decorrelated" },
  },
})
// @ts-expect-error -- a wrong request is wrong the second time, too
export const hopeless = Retry.with({ perTag: { InvalidRequest: { times: 1 } } })
export const otherInput = Retry.with({
  perTag: {
    // @ts-expect-error -- its input is another failure
    RateLimited: { schedule: Schedule.forever.pipe(Schedule.setInputType<LlmError.TimedOut>()) },
  },
})
// @ts-expect-error -- there is no such jitter
export const jittery = Retry.with({ jitter: "some" })
