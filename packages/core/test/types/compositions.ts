/** What leaves a failover and the preset, and what cannot be composed. */
import { Effect, type Layer, Stream } from "effect"
import {
  type Directory,
  type Face,
  Failover,
  type FailureMode,
  type LanguageModelFace,
  type LlmError,
  type Provider,
  Retry,
  Timeouts,
  Understudy,
} from "@understudy/core"
import { same } from "./same.ts"

type LM = LanguageModelFace.LanguageModelFace
declare const openai: Provider.Provider<LM, LlmError.RateLimited | LlmError.InvalidRequest>
declare const claude: Provider.Provider<LM, LlmError.Overloaded | LlmError.ContextLengthExceeded, "http">
declare const odd: Provider.Provider<LM, LlmError.Overloaded | "odd", "db">
declare const adapter: Provider.Provider<LM, LlmError.ProviderFailure, "http">
declare const plain: Provider.Provider<Face.Plain<string>, LlmError.Overloaded>
declare const request: LanguageModelFace.Request

// --- Failover: only failures whose remedy is above it leave as themselves, and those that are not ours

const one = Failover.make([openai])
same<typeof one, Provider.Provider<LM, LlmError.AllProvidersFailed | LlmError.InvalidRequest>>(true)

const two = Failover.make([openai, claude])
type Two = LlmError.AllProvidersFailed | LlmError.InvalidRequest | LlmError.ContextLengthExceeded
same<typeof two, Provider.Provider<LM, Two, "http">>(true)

const mixed = Failover.make([{ provider: openai, priority: 2 }, claude, { provider: odd, contextWindow: 8000 }])
same<typeof mixed, Provider.Provider<LM, Two | "odd", "http" | "db">>(true)

const harmless = Failover.make([claude.pipe(Retry.with()), { provider: odd, enabled: false }])
same<
  typeof harmless,
  Provider.Provider<LM, LlmError.AllProvidersFailed | LlmError.ContextLengthExceeded | "odd", "http" | "db">
>(true)

const nested = Failover.make([two, { provider: adapter }])
same<
  typeof nested,
  Provider.Provider<
    LM,
    LlmError.AllProvidersFailed | LlmError.InvalidRequest | LlmError.ContextLengthExceeded | LlmError.ContentFiltered,
    "http"
  >
>(true)

const inTime = two.pipe(Timeouts.deadline())
same<typeof inTime, Provider.Provider<LM, Two | LlmError.DeadlineExceeded, "http">>(true)

const otherFace = Failover.make([plain])
same<typeof otherFace, Provider.Provider<Face.Plain<string>, LlmError.AllProvidersFailed>>(true)

same<Failover.Leaves<LlmError.LlmError>, LlmError.AllProvidersFailed | LlmError.WithTag<FailureMode.FinalTag>>(true)

// @ts-expect-error -- they are not asked the same
export const faces = Failover.make([openai, plain])
// @ts-expect-error -- nobody to ask
export const empty = Failover.make([])

// --- The preset

const understudy = Understudy.make({
  candidates: [{ provider: adapter }, { provider: openai, priority: 1, retry: false }],
  deadline: { generate: "20 seconds" },
})
type Left =
  | LlmError.AllProvidersFailed
  | LlmError.ContentFiltered
  | LlmError.ContextLengthExceeded
  | LlmError.InvalidRequest
  | LlmError.InvalidResponse
  | LlmError.DeadlineExceeded
same<typeof understudy, Provider.Provider<LM, Left, "http" | Understudy.State>>(true)

const single = Understudy.make({ candidates: [{ provider: odd }] })
same<
  typeof single,
  Provider.Provider<
    LM,
    LlmError.AllProvidersFailed | LlmError.DeadlineExceeded | LlmError.InvalidResponse | "odd",
    "db" | Understudy.State
  >
>(true)
// Values that are no answers of a language model are not judged.
const values = Understudy.make({ candidates: [{ provider: plain }] })
same<Provider.ErrorOf<typeof values>, Failover.Leaves<Provider.ErrorOf<typeof plain>> | LlmError.DeadlineExceeded>(true)
same<typeof Understudy.layer, Layer.Layer<Understudy.State | Directory.Directory>>(true)

// @ts-expect-error -- they are not asked the same
export const presetFaces = Understudy.make({ candidates: [{ provider: openai }, { provider: plain }] })
// @ts-expect-error -- nobody to ask
export const presetEmpty = Understudy.make({ candidates: [] })
// @ts-expect-error -- no such option
export const presetMisspelt = Understudy.make({ candidates: [{ provider: openai }], deadlin: "1 second" })

// --- What is handled is gone, and what is not is named

const handled = understudy.generate(request).pipe(
  Effect.catchTags({
    AllProvidersFailed: () => Effect.succeed("later" as const),
    ContentFiltered: () => Effect.succeed("no" as const),
    ContextLengthExceeded: () => Effect.succeed("shorter" as const),
    InvalidRequest: () => Effect.succeed("otherwise" as const),
    InvalidResponse: () => Effect.succeed("odd" as const),
    DeadlineExceeded: () => Effect.succeed("slow" as const),
  }),
)
same<
  typeof handled,
  Effect.Effect<
    LanguageModelFace.Answer | "later" | "no" | "shorter" | "otherwise" | "odd" | "slow",
    never,
    "http" | Understudy.State
  >
>(true)

const stream = understudy
  .stream(request)
  .pipe(
    Stream.catchTag(
      [
        "AllProvidersFailed",
        "ContentFiltered",
        "ContextLengthExceeded",
        "InvalidRequest",
        "InvalidResponse",
        "DeadlineExceeded",
      ],
      () => Stream.empty,
    ),
  )
same<Stream.Error<typeof stream>, LlmError.StreamInterrupted>(true)

export const unknownTag = understudy
  .generate(request)
  // @ts-expect-error -- retried and failed over inside: it cannot leave
  .pipe(Effect.catchTag("RateLimited", () => Effect.succeed([])))

// @ts-expect-error -- the circuits are missing
export const without = () => Effect.runPromise(understudy.generate(request))
