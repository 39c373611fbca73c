/** What every policy adds to and removes from the error type, to the letter. */
import { Effect, pipe, Schedule, Stream } from "effect"
import {
  Call,
  CircuitBreaker,
  Face,
  FailureMode,
  type LanguageModelFace,
  type LlmError,
  PolicyEvent,
  type Provider,
  Retry,
  Timeouts,
} from "@understudy/core"
import { same } from "./same.ts"

type LM = LanguageModelFace.LanguageModelFace
type Own = LlmError.RateLimited | LlmError.InvalidRequest
declare const openai: Provider.Provider<LM, Own, "http">
declare const request: LanguageModelFace.Request

// --- Around a provider

const retried = openai.pipe(Retry.with({ times: 2 }))
same<typeof retried, Provider.Provider<LM, Own, "http">>(true)

const clocked = openai.pipe(Timeouts.with({ attempt: "5 seconds" }))
same<typeof clocked, Provider.Provider<LM, Own | LlmError.TimedOut, "http">>(true)

const bounded = openai.pipe(Timeouts.deadline())
same<typeof bounded, Provider.Provider<LM, Own | LlmError.DeadlineExceeded, "http">>(true)

const guarded = openai.pipe(CircuitBreaker.with())
same<typeof guarded, Provider.Provider<LM, Own | LlmError.CircuitOpen, "http" | CircuitBreaker.Circuits>>(true)

type All = Own | LlmError.TimedOut | LlmError.CircuitOpen | LlmError.DeadlineExceeded
const all = openai.pipe(Timeouts.with(), CircuitBreaker.with(), Retry.with(), Timeouts.deadline())
same<typeof all, Provider.Provider<LM, All, "http" | CircuitBreaker.Circuits>>(true)
const otherOrder = openai.pipe(Timeouts.deadline(), Retry.with(), CircuitBreaker.with(), Timeouts.with())
same<typeof otherOrder, typeof all>(true)
const withPipe = pipe(openai, Timeouts.with(), CircuitBreaker.with(), Retry.with(), Timeouts.deadline())
same<typeof withPipe, typeof all>(true)

// --- As values: bound to a name, bundled, generic

const clocks = Timeouts.with()
same<typeof clocks, Provider.Policy<LlmError.TimedOut>>(true)
same<ReturnType<typeof Retry.with>, Provider.Policy>(true)
same<ReturnType<typeof CircuitBreaker.with>, Provider.Policy<LlmError.CircuitOpen, CircuitBreaker.Circuits>>(true)
same<ReturnType<typeof Timeouts.deadline>, Provider.Policy<LlmError.DeadlineExceeded>>(true)
const bound = openai.pipe(clocks)
same<typeof bound, typeof clocked>(true)

const careful = <F extends Face.Any, E, R>(self: Provider.Provider<F, E, R>) =>
  self.pipe(clocks, CircuitBreaker.with(), Retry.with(), Timeouts.deadline())
const bundled = openai.pipe(careful)
same<typeof bundled, typeof all>(true)
declare const plain: Provider.Provider<Face.Plain<string>, "odd">
const otherFace = plain.pipe(careful)
same<
  typeof otherFace,
  Provider.Provider<
    Face.Plain<string>,
    "odd" | LlmError.TimedOut | LlmError.CircuitOpen | LlmError.DeadlineExceeded,
    CircuitBreaker.Circuits
  >
>(true)
const asPolicy: Provider.Policy<
  LlmError.TimedOut | LlmError.CircuitOpen | LlmError.DeadlineExceeded,
  CircuitBreaker.Circuits
> = careful
export const applied = asPolicy(openai)

// --- On effects and streams

declare const work: Effect.Effect<number, LlmError.Overloaded | "odd", "db">
declare const parts: Stream.Stream<LanguageModelFace.Part, LlmError.Overloaded, "db">
declare const face: LM
type Found = LlmError.ProviderFailure | LlmError.StreamInterrupted

const retriedWork = Retry.effect(work)
same<typeof retriedWork, Effect.Effect<number, LlmError.Overloaded | "odd", "db">>(true)
const clockedWork = Timeouts.effect(work, { attempt: "1 second" })
same<typeof clockedWork, Effect.Effect<number, LlmError.Overloaded | "odd" | LlmError.TimedOut, "db">>(true)
const guardedWork = CircuitBreaker.effect(work, { key: "k" })
same<
  typeof guardedWork,
  Effect.Effect<number, LlmError.Overloaded | "odd" | LlmError.CircuitOpen, "db" | CircuitBreaker.Circuits>
>(true)
const retriedParts = Retry.stream(parts, { face })
same<typeof retriedParts, Stream.Stream<LanguageModelFace.Part, LlmError.Overloaded | Found, "db">>(true)
const clockedParts = Timeouts.stream(parts, { face })
same<typeof clockedParts, Stream.Stream<LanguageModelFace.Part, LlmError.Overloaded | Found | LlmError.TimedOut, "db">>(
  true,
)
const guardedParts = CircuitBreaker.stream(parts, { face, key: "k" })
same<
  typeof guardedParts,
  Stream.Stream<
    LanguageModelFace.Part,
    LlmError.Overloaded | Found | LlmError.CircuitOpen,
    "db" | CircuitBreaker.Circuits
  >
>(true)
const numbers = Retry.stream(Stream.make(1, 2), { face: Face.plain<number>() })
same<typeof numbers, Stream.Stream<number, LlmError.StreamInterrupted>>(true)
// @ts-expect-error -- a circuit of an effect needs a key
export const keyless = CircuitBreaker.effect(work, {})
// @ts-expect-error -- the face is of other parts
export const faceless = Retry.stream(parts, { face: Face.plain<number>() })

// --- Around calls

const call = openai.generate(request)
const inTime = call.pipe(Call.withDeadline("10 seconds"))
same<typeof inTime, Effect.Effect<LanguageModelFace.Answer, Own | LlmError.DeadlineExceeded, "http">>(true)
const withClocks = call.pipe(Call.withTimeouts({ attempt: "10 seconds" }))
same<typeof withClocks, Effect.Effect<LanguageModelFace.Answer, Own | LlmError.TimedOut, "http">>(true)
const unchanged = call.pipe(
  Call.withParameters({ temperature: 0 }),
  Call.pin("a"),
  Call.exclude("b"),
  PolicyEvent.observe(() => undefined),
)
same<typeof unchanged, typeof call>(true)
const stream = openai.stream(request).pipe(Call.stream({ deadline: "10 seconds" }))
same<
  typeof stream,
  Stream.Stream<
    LanguageModelFace.Part,
    Own | LlmError.StreamInterrupted | LlmError.DeadlineExceeded | LlmError.TimedOut,
    "http"
  >
>(true)
const heard = openai.stream(request).pipe(PolicyEvent.observeStream(() => undefined))
same<typeof heard, ReturnType<typeof openai.stream>>(true)

// --- Only what can be retried, and only cells that keep the types true

same<
  FailureMode.RetryableTag,
  | "RateLimited"
  | "Overloaded"
  | "ProviderUnavailable"
  | "ConnectionFailed"
  | "TimedOut"
  | "StreamInterrupted"
  | "InvalidResponse"
  | "CapacityExceeded"
>(true)
same<FailureMode.FinalTag, "DeadlineExceeded" | "ContentFiltered" | "ContextLengthExceeded" | "InvalidRequest">(true)
same<FailureMode.LadderTag, Exclude<LlmError.Tag, "InvalidRequest">>(true)

export const narrowed = Retry.with({ on: ["RateLimited", "Overloaded"] })
// @ts-expect-error -- a wrong request is wrong the second time, too
export const hopeless = Retry.with({ on: ["InvalidRequest"] })
// @ts-expect-error -- there is no such tag
export const unknown = Retry.with({ on: ["Unavailable"] })
export const scheduled = Retry.with({
  on: ["RateLimited"],
  schedule: Schedule.spaced("1 second").pipe(
    Schedule.setInputType<LlmError.RateLimited>(),
    Schedule.while(({ input }) => Effect.succeed(input.status === 429)),
  ),
})
// @ts-expect-error -- no such option
export const misspelt = Timeouts.with({ attemt: "1 second" })

export const cells = FailureMode.override({
  RateLimited: { http: 503, sameAgain: "no" },
  TimedOut: { health: "ignored" },
})
// @ts-expect-error -- it would make the error type of a failover untrue
export const leaving = FailureMode.override({ RateLimited: { leaves: "itself" } })
// @ts-expect-error -- it would make the error type of a ladder untrue
export const climbing = FailureMode.override({ InvalidRequest: { ladder: true } })
// @ts-expect-error -- there is no such tag
export const tagless = FailureMode.override({ Unavailable: { http: 503 } })
// @ts-expect-error -- there is no such health
export const healthless = FailureMode.override({ RateLimited: { health: "sick" } })
const { AllProvidersFailed: _, ...missing } = FailureMode.table
// @ts-expect-error -- a tag without a row
export const rowless: FailureMode.Table = missing
