/** What an answer tells about itself besides its content: its cost, its model, and why it ended. */
import * as Schema from "effect/Schema"

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

/** Tokens of one attempt, as far as the provider told them. */
export const Tokens = Schema.Struct({
  /** All of the prompt, whether or not it came from the provider's cache. */
  inputTokens: Schema.optionalKey(Count),
  /** All of the answer, with what was thought. */
  outputTokens: Schema.optionalKey(Count),
  /** Of the prompt: read from the provider's cache. */
  cacheReadTokens: Schema.optionalKey(Count),
  /** Of the prompt: written into the provider's cache. */
  cacheWriteTokens: Schema.optionalKey(Count),
  /** Of the answer: thought. */
  reasoningTokens: Schema.optionalKey(Count),
})

/** Tokens of one attempt, as far as the provider told them. */
export interface Tokens extends Schema.Schema.Type<typeof Tokens> {}

/** Why an answer ended. */
export const Finish = Schema.Literals([
  "stop",
  "length",
  "content-filter",
  "tool-calls",
  "error",
  "pause",
  "other",
  "unknown",
])

/** Why an answer ended. */
export type Finish = typeof Finish.Type

/** What an answer tells about itself. */
export interface Told {
  readonly usage?: Tokens | undefined
  /** The model that answered, as the provider names it: not to be trusted. */
  readonly model?: string | undefined
  readonly finish?: Finish | undefined
}

interface Encoded {
  readonly inputTokens: {
    readonly total?: number | undefined
    readonly cacheRead?: number | undefined
    readonly cacheWrite?: number | undefined
  }
  readonly outputTokens: { readonly total?: number | undefined; readonly reasoning?: number | undefined }
}

const counted = <const Key extends keyof Tokens>(key: Key, n: number | undefined): { readonly [K in Key]?: number } =>
  typeof n === "number" && Number.isSafeInteger(n) && n >= 0 ? ({ [key]: n } as { readonly [K in Key]: number }) : {}

/** The tokens that `effect/ai` tells; nothing when none of them is known. */
export const tokensOf = ({ inputTokens, outputTokens }: Encoded): Tokens | undefined => {
  const tokens = {
    ...counted("inputTokens", inputTokens.total),
    ...counted("outputTokens", outputTokens.total),
    ...counted("cacheReadTokens", inputTokens.cacheRead),
    ...counted("cacheWriteTokens", inputTokens.cacheWrite),
    ...counted("reasoningTokens", outputTokens.reasoning),
  }
  return Object.keys(tokens).length === 0 ? undefined : tokens
}

const add = (a: number | undefined, b: number | undefined): number | undefined =>
  a === undefined ? b : b === undefined ? a : a + b

/** The sum, field by field. What only one of them tells is that one's. */
export const sum = (a: Tokens | undefined, b: Tokens | undefined): Tokens | undefined =>
  a === undefined || b === undefined
    ? (a ?? b)
    : {
        ...counted("inputTokens", add(a.inputTokens, b.inputTokens)),
        ...counted("outputTokens", add(a.outputTokens, b.outputTokens)),
        ...counted("cacheReadTokens", add(a.cacheReadTokens, b.cacheReadTokens)),
        ...counted("cacheWriteTokens", add(a.cacheWriteTokens, b.cacheWriteTokens)),
        ...counted("reasoningTokens", add(a.reasoningTokens, b.reasoningTokens)),
      }
