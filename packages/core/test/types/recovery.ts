/** What the recoveries add to a provider's type: what the caller's own steps and summaries add, and nothing else. */
import type { Effect, Layer } from "effect"
import { Prompt, type Tokenizer } from "effect/ai"
import {
  type Face,
  Failover,
  type LanguageModelFace,
  type LlmError,
  type Provider,
  Recovery,
  TokenCounter,
  Truncation,
} from "@understudy/core"
import { same } from "./same.ts"

type LM = LanguageModelFace.LanguageModelFace
type Own = LlmError.RateLimited | LlmError.ContentFiltered | LlmError.ContextLengthExceeded
declare const openai: Provider.Provider<LM, Own, "http">

// --- By themselves they change nothing: what they recover from can still happen

const filtered = openai.pipe(Recovery.contentFiltered())
same<typeof filtered, Provider.Provider<LM, Own, "http">>(true)
const fitted = openai.pipe(Recovery.contextLength({ strategy: "keep head and tail" }))
same<typeof fitted, Provider.Provider<LM, Own, "http">>(true)
const both = Failover.make([openai]).pipe(
  Recovery.contextLength(),
  Recovery.contentFiltered({ then: "other candidate" }),
)
same<
  typeof both,
  Provider.Provider<LM, LlmError.AllProvidersFailed | LlmError.ContentFiltered | LlmError.ContextLengthExceeded, "http">
>(true)
const asValue = Recovery.contextLength()
same<typeof asValue, Recovery.Policy>(true)

// --- Steps add their own failures and services, each its own

declare const ink: Effect.Effect<Prompt.Prompt | undefined, "no ink", "pen">
declare const paper: Effect.Effect<Prompt.Prompt, "no paper", "desk">

const inked = Recovery.step("inked", () => ink)
same<typeof inked, Recovery.Step<"no ink", "pen">>(true)
const plain = Recovery.step("plain", (prompt, refusal) => (refusal.stage === "answer" ? undefined : prompt))
same<typeof plain, Recovery.Step>(true)
const written = openai.pipe(
  Recovery.contentFiltered({
    steps: [
      Recovery.dropNamed,
      plain,
      inked,
      Recovery.step("on paper", () => paper, { stage: "prompt" }),
      Recovery.rephrase(),
    ],
  }),
)
same<typeof written, Provider.Provider<LM, Own | "no ink" | "no paper", "http" | "pen" | "desk">>(true)

// A list that is made elsewhere keeps what is known of it.
declare const some: ReadonlyArray<Recovery.Step<"no ink", "pen">>
const listed = openai.pipe(Recovery.contentFiltered({ steps: some }))
same<typeof listed, Provider.Provider<LM, Own | "no ink", "http" | "pen">>(true)

// --- So does a summary

declare const summary: (dropped: ReadonlyArray<Prompt.Message>) => Effect.Effect<string, "no ink", "pen">
const summarised = openai.pipe(Recovery.contextLength({ summarise: summary }))
same<typeof summarised, Provider.Provider<LM, Own | "no ink", "http" | "pen">>(true)

const cut = Truncation.fit(Prompt.empty, { limit: 100, summarise: summary })
same<typeof cut, Effect.Effect<Truncation.Fitted, "no ink", "pen">>(true)
const bare = Truncation.fit(Prompt.empty, { limit: 100 })
same<typeof bare, Effect.Effect<Truncation.Fitted>>(true)

// --- In a generic bundle

const careful = <E, R>(self: Provider.Provider<LM, E, R>) =>
  self.pipe(Recovery.contextLength(), Recovery.contentFiltered())
const bundled = openai.pipe(careful)
same<typeof bundled, typeof openai>(true)

// --- Not for other faces, nor with what cannot be meant

declare const words: Provider.Provider<Face.Plain<string>, "odd">
// @ts-expect-error -- there is no prompt in it
words.pipe(Recovery.contextLength())
// @ts-expect-error -- no such strategy
Recovery.contextLength({ strategy: "drop newest" })
// @ts-expect-error -- a step has a name
Recovery.contentFiltered({ steps: [{ change: () => undefined }] })
// @ts-expect-error -- it makes a prompt, and not a text
Recovery.step("text", () => "shorter")

// --- Counters

const gpt = TokenCounter.layerGptTokenizer()
same<typeof gpt, Layer.Layer<never, TokenCounter.TokenizerMissing>>(true)
same<typeof TokenCounter.layerTokenizer, Layer.Layer<never, never, Tokenizer.Tokenizer>>(true)
const counted = TokenCounter.count("text")
same<typeof counted, Effect.Effect<number>>(true)
