/** What tokens cost, by a table of prices: an estimate, since bills have rules of their own. */
import * as Schema from "effect/Schema"
import type { Tokens } from "./told.ts"

const Amount = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))

/** The price of a model, for a million tokens. */
export const Price = Schema.Struct({
  /** Of the prompt. */
  input: Amount,
  /** Of the answer, what was thought included. */
  output: Amount,
  /** Of the prompt, read from the provider's cache. Default: `input`. */
  cacheRead: Schema.optional(Amount),
  /** Of the prompt, written into the provider's cache. Default: `input`. */
  cacheWrite: Schema.optional(Amount),
})

/** The price of a model, for a million tokens. */
export interface Price extends Schema.Schema.Type<typeof Price> {}

/** Prices by `provider/model`, or by model. */
export const Prices = Schema.Record(Schema.String, Price)

/** Prices by `provider/model`, or by model. */
export type Prices = typeof Prices.Type

/** The price of a model of a provider. */
export const priceOf = (prices: Prices, provider: string, model: string | undefined): Price | undefined => {
  if (model === undefined) return undefined
  const key = [`${provider}/${model}`, model].find((known) => Object.hasOwn(prices, known))
  return key === undefined ? undefined : prices[key]
}

/** What tokens cost. */
export const costOf = (usage: Tokens, price: Price): number => {
  const { cacheReadTokens: read = 0, cacheWriteTokens: written = 0, inputTokens = 0, outputTokens = 0 } = usage
  const plain = Math.max(0, inputTokens - read - written)
  const { cacheRead = price.input, cacheWrite = price.input, input, output } = price
  return (plain * input + read * cacheRead + written * cacheWrite + outputTokens * output) / 1_000_000
}
