import type { Effect } from "effect"
import { CircuitBreaker, type Face, Failover, type LanguageModelFace, type LlmError, Provider, Retry, Timeouts } from "@understudy/core"

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const same = <A, B>(_: Equal<A, B>): void => undefined

type LM = LanguageModelFace.LanguageModelFace
declare const openai: Provider.Provider<LM, LlmError.RateLimited | LlmError.InvalidRequest>
declare const claude: Provider.Provider<LM, LlmError.Overloaded | LlmError.ContextLengthExceeded, "svc">

const guarded = openai.pipe(Timeouts.with(), CircuitBreaker.with(), Retry.with({ times: 2 }))
same<
  typeof guarded,
  Provider.Provider<LM, LlmError.RateLimited | LlmError.InvalidRequest | LlmError.TimedOut | LlmError.CircuitOpen, CircuitBreaker.Circuits>
>(true)

const both = Failover.make([guarded, { provider: claude, priority: 2 }])
same<
  typeof both,
  Provider.Provider<LM, LlmError.AllProvidersFailed | LlmError.InvalidRequest | LlmError.ContextLengthExceeded, CircuitBreaker.Circuits | "svc">
>(true)
type X = typeof both
export const x: X = both
export type E = Effect.Error<ReturnType<(typeof both)["generate"]>>
export type FF = Face.Any
