/** The npm package gpt-tokenizer, if it is there: its encodings, and how a text of any kind is counted with them. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

/** The encodings of OpenAI's models. */
export const encodings = ["o200k_base", "o200k_harmony", "cl100k_base", "p50k_base", "r50k_base"] as const

/** An encoding of OpenAI's models. */
export type Encoding = (typeof encodings)[number]

/** The package is not there, or it does not have the encoding. */
export class TokenizerMissing extends Schema.TaggedError<TokenizerMissing>("@understudy/core/TokenizerMissing")(
  "TokenizerMissing",
  { encoding: Schema.Literals(encodings) },
) {
  override get message(): string {
    return `The encoding ${this.encoding} of the package gpt-tokenizer could not be loaded. Add it to your program (npm install gpt-tokenizer), or count by an estimate.`
  }
}

/** As much of an encoding's module as is used. */
export interface Module {
  readonly countTokens: (text: string, options: { readonly disallowedSpecial: Set<string> }) => number
  readonly clearMergeCache?: () => void
}

/** Each by a specifier of its own, so that a bundler finds it. */
export const load: { readonly [E in Encoding]: () => Promise<Module> } = {
  o200k_base: () => import("gpt-tokenizer/encoding/o200k_base"),
  o200k_harmony: () => import("gpt-tokenizer/encoding/o200k_harmony"),
  cl100k_base: () => import("gpt-tokenizer/encoding/cl100k_base"),
  p50k_base: () => import("gpt-tokenizer/encoding/p50k_base"),
  r50k_base: () => import("gpt-tokenizer/encoding/r50k_base"),
}

/** The longest piece that is given to the encoder, in code units. */
export const maxPiece = 128

/**
 * Runs that an encoder does not split: merging one takes time that grows with
 * the square of its length (a megabyte of spaces took minutes).
 */
const longRuns = new RegExp(String.raw`\s{${maxPiece + 1},}|[^\s\d]{${maxPiece + 1},}`, "gu")

/** Such a run in pieces. No pair of surrogates is cut. */
function* pieces(run: string): Generator<string> {
  for (let from = 0; from < run.length;) {
    let to = Math.min(from + maxPiece, run.length)
    if (to < run.length && (run.charCodeAt(to) & 0xfc00) === 0xdc00) to--
    yield run.slice(from, to)
    from = to
  }
}

// The text is the user's: what looks like a special token in it is ordinary text.
const ordinary = { disallowedSpecial: new Set<string>() }

/** After so many characters its cache is cleared: a full one slows every look-up down, and keeps what users wrote. */
const cacheFor = 0x40000

/**
 * Counts a text in time that is linear in its length. A run of more than 128
 * characters without any break is counted in pieces, which can be off by a
 * token for each.
 */
export const counting = ({ clearMergeCache, countTokens }: Module): ((text: string) => number) => {
  let counted = 0
  return (text) => {
    counted += text.length
    if (counted > cacheFor) {
      counted = 0
      clearMergeCache?.()
    }
    let tokens = 0
    let at = 0
    for (const { 0: run, index } of text.matchAll(longRuns)) {
      if (index > at) tokens += countTokens(text.slice(at, index), ordinary)
      for (const piece of pieces(run)) tokens += countTokens(piece, ordinary)
      at = index + run.length
    }
    return at < text.length ? tokens + countTokens(at === 0 ? text : text.slice(at), ordinary) : tokens
  }
}

/** What counts texts in this encoding. */
export const opened = (
  encoding: Encoding,
  import_: () => Promise<Module> = load[encoding],
): Effect.Effect<(text: string) => number, TokenizerMissing> =>
  Effect.tryPromise({ try: import_, catch: () => new TokenizerMissing({ encoding }) }).pipe(Effect.map(counting))
