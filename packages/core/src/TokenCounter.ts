/**
 * Counts tokens: of a text, a message, a prompt, or a whole request.
 *
 * `Recovery` asks it how much of a prompt fits into a context window. Without
 * more ado it estimates; a layer brings in a tokenizer.
 *
 * **Details**
 *
 * - A request is its messages, the definitions of its tools and the schema of
 *   the answer. Each message adds 4 tokens for its marks, each call and result
 *   of a tool 8, and the prompt 3.
 * - The estimate weighs words, numbers, punctuation and white space by length,
 *   and other scripts by the character: about 4 characters a token for English,
 *   about one token for a Chinese character. Measured against `o200k_base` it
 *   is a quarter below to six tenths above; for English, code, JSON and logs it is
 *   within 15 %.
 * - Nobody but the provider knows what an image costs. It counts as 1,000
 *   tokens; another file as 1,000 and one more for each 100 bytes.
 * - `exact` says whether texts are counted as a model counts them. Whoever
 *   relies on a number that is not exact leaves a margin.
 * - Counting takes time that is linear in the text, whatever the text is, and a
 *   message is counted once for as long as it lives.
 *
 * **Gotchas**
 *
 * - `layerGptTokenizer` is exact for models of OpenAI. Others have tokenizers of
 *   their own, most of which give more tokens.
 *
 * **Example** (Counting with OpenAI's encoding)
 *
 * ```ts
 * import { TokenCounter } from "@understudy/core"
 * import { Effect } from "effect"
 *
 * export const program = Effect.gen(function* () {
 *   return yield* TokenCounter.count("How many tokens is this?")
 * }).pipe(Effect.provide(TokenCounter.layerGptTokenizer()))
 * ```
 */
import * as Prompt from "effect/ai/Prompt"
import * as Tokenizer from "effect/ai/Tokenizer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { checked } from "./internal/options.ts"
import { estimate as estimateText } from "./internal/recovery/estimate.ts"
import * as GptTokenizer from "./internal/recovery/gptTokenizer.ts"
import * as Weigh from "./internal/recovery/weigh.ts"
import type { Request } from "./LanguageModelFace.ts"

export {
  /** The package gpt-tokenizer is not there, or it does not have the encoding. */
  TokenizerMissing,
} from "./internal/recovery/gptTokenizer.ts"

/** What can be counted. Of a request: the prompt, the tools and the format of the answer. */
export type Countable = string | Prompt.Message | Prompt.Prompt | Pick<Request, "prompt" | "tools" | "responseFormat">

/** Counts tokens. */
export interface TokenCounter {
  /** Says how it counts: `estimate`, `gpt-tokenizer o200k_base`. */
  readonly name: string
  /** Are texts counted as a model counts them? */
  readonly exact: boolean
  /** Tokens, rounded up. Never fails. */
  readonly count: (input: Countable) => Effect.Effect<number>
}

type Counted = number | Effect.Effect<number>

const sum = (counts: ReadonlyArray<Counted>): Counted => {
  let total = 0
  const later: Array<Effect.Effect<number>> = []
  for (const count of counts) {
    if (typeof count === "number") total += count
    else later.push(count)
  }
  return later.length === 0
    ? total
    : Effect.map(Effect.all(later), (rest) => rest.reduce((all, count) => all + count, total))
}

/**
 * A counter of one's own, from what counts a text. `text` gets no empty text,
 * may not fail, and should take time that is linear in the text.
 */
export const make = (options: {
  readonly name: string
  readonly exact: boolean
  readonly text: (text: string) => Counted
}): TokenCounter => {
  const { exact, name, text } = options
  // Messages are never changed, and a conversation is sent again with each turn.
  const known = new WeakMap<Prompt.Message, number>()

  const ofWeight = ({ flat, texts }: Weigh.Weight): Counted => sum([flat, ...texts.map(text)])

  const ofMessage = (message: Prompt.Message): Counted => {
    const before = known.get(message)
    if (before !== undefined) return before
    const counted = ofWeight(Weigh.ofMessage(message))
    const keep = (tokens: number): number => {
      const whole = Math.ceil(tokens)
      known.set(message, whole)
      return whole
    }
    return typeof counted === "number" ? keep(counted) : Effect.map(counted, keep)
  }

  const ofPrompt = (prompt: Prompt.Prompt): Counted => sum([Weigh.perPrompt, ...prompt.content.map(ofMessage)])

  const of = (input: Countable): Counted => {
    if (typeof input === "string") return input === "" ? 0 : text(input)
    if (Prompt.isPrompt(input)) return ofPrompt(input)
    if (Prompt.isMessage(input)) return ofMessage(input)
    return sum([ofPrompt(input.prompt), ofWeight(Weigh.besidesPrompt(input))])
  }

  return {
    name,
    exact,
    count: (input) =>
      Effect.suspend(() => {
        const counted = of(input)
        return typeof counted === "number" ? Effect.succeed(Math.ceil(counted)) : Effect.map(counted, Math.ceil)
      }),
  }
}

/** The estimate. */
export const estimate: TokenCounter = make({ name: "estimate", exact: false, text: estimateText })

/** Who counts. Default: the estimate. */
export const Current = Context.Reference<TokenCounter>("@understudy/core/TokenCounter", {
  defaultValue: () => estimate,
})

/** Tokens, by the current counter. */
export const count = (input: Countable): Effect.Effect<number> =>
  Effect.flatMap(Current, (counter) => counter.count(input))

/** A layer for a counter. */
export const layer = (counter: TokenCounter): Layer.Layer<never> => Layer.succeed(Current)(counter)

/** How to count with gpt-tokenizer. */
export const GptTokenizerOptions = Schema.Struct({
  /** Default `o200k_base`: GPT-4o, GPT-4.1, GPT-5, o1 and later. `cl100k_base`: GPT-4, GPT-3.5. */
  encoding: Schema.optional(Schema.Literals(GptTokenizer.encodings)),
})

/** How to count with gpt-tokenizer. */
export interface GptTokenizerOptions extends Schema.Schema.Type<typeof GptTokenizerOptions> {}

/** The counter of the npm package `gpt-tokenizer`, an optional peer that is loaded here. Fails with `TokenizerMissing`. */
export const gptTokenizer = (
  options: GptTokenizerOptions = {},
): Effect.Effect<TokenCounter, GptTokenizer.TokenizerMissing> => {
  const { encoding = "o200k_base" } = checked("TokenCounter.gptTokenizer", GptTokenizerOptions, options)
  return Effect.map(GptTokenizer.opened(encoding), (text) =>
    make({ name: `gpt-tokenizer ${encoding}`, exact: true, text }),
  )
}

/** The layer of the same. Fails with `TokenizerMissing` when it is built. */
export const layerGptTokenizer = (
  options: GptTokenizerOptions = {},
): Layer.Layer<never, GptTokenizer.TokenizerMissing> => Layer.effect(Current)(gptTokenizer(options))

/**
 * The layer of a `Tokenizer` of `effect/ai`. Each text is counted by itself; one
 * that it fails for is estimated.
 */
export const layerTokenizer: Layer.Layer<never, never, Tokenizer.Tokenizer> = Layer.effect(Current)(
  Effect.map(Tokenizer.Tokenizer, (tokenizer) =>
    make({
      name: "tokenizer",
      exact: true,
      text: (text) =>
        tokenizer.tokenize(text).pipe(
          Effect.map((tokens) => tokens.length),
          Effect.orElseSucceed(() => estimateText(text)),
        ),
    }),
  ),
)
