/** What the directory adds to types: nothing to those who are asked, and its errors to those who change it. */
import type { Effect, Layer } from "effect"
import {
  Call,
  Directory,
  Failover,
  type LanguageModelFace,
  type LlmError,
  Provider,
  Understudy,
} from "@understudy/core"
import { same } from "./same.ts"

type LM = LanguageModelFace.LanguageModelFace
declare const openai: Provider.Provider<LM, LlmError.RateLimited>
declare const claude: Provider.Provider<LM, LlmError.Overloaded, "http">

// --- A failover needs no directory, however it is ordered

const ordered = Failover.make(
  [
    { provider: openai, weight: 2, price: { input: 1, output: 2 }, tags: ["eu"], contextWindow: 1000 },
    { provider: claude, priority: 1 },
  ],
  { order: "latency", latencyDecay: "1 minute" },
)
same<typeof ordered, Provider.Provider<LM, LlmError.AllProvidersFailed, "http">>(true)
same<typeof Directory.layer, Layer.Layer<Directory.Directory>>(true)
const preset = Understudy.make({ candidates: [{ provider: openai, weight: 2 }], order: "weight" })
same<Provider.ServicesOf<typeof preset>, Understudy.State>(true)

// --- Changes need one, and fail for names

type Named<A> = Effect.Effect<A, Directory.UnknownComposition | Directory.UnknownCandidate, Directory.Directory>
const disabled = Directory.disable("answers", "openai")
same<typeof disabled, Named<Directory.Status>>(true)
const set = Directory.update("answers", "openai", { priority: 1, weight: undefined, tags: ["eu"] })
same<typeof set, Named<Directory.Status>>(true)
const reset = Directory.reset("answers")
same<typeof reset, Named<ReadonlyArray<Directory.Status>>>(true)
const all = Directory.replaceAll({ answers: { openai: { enabled: false } } })
same<typeof all, Named<void>>(true)
same<typeof Directory.status, Effect.Effect<ReadonlyArray<Directory.Status>, never, Directory.Directory>>(true)
const registered = Directory.register(ordered)
same<typeof registered, Effect.Effect<void, never, Directory.Directory>>(true)

// @ts-expect-error -- no such setting
export const misspelt = Directory.update("answers", "openai", { enabeld: false })
// @ts-expect-error -- a price has two sides
export const half = Directory.update("answers", "openai", { price: { input: 1 } })
// @ts-expect-error -- no such order
export const orders = Failover.make([openai], { order: "speed" })

// --- Who is asked for a call changes no type

const tagged = openai.generate({} as LanguageModelFace.Request).pipe(Call.requireTags("eu"))
same<typeof tagged, Effect.Effect<LanguageModelFace.Answer, LlmError.RateLimited>>(true)

// --- A delegate is of the type of those whom it asks

const delegate = Provider.delegate(() => claude)
same<typeof delegate, typeof claude>(true)
