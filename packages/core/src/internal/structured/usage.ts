/** What answers cost, summed over all that were asked for. */
import type * as Response from "effect/ai/Response"
import type { Answer, Part } from "../../LanguageModelFace.ts"

type Encoded = typeof Response.Usage.Encoded

/** The usage that the end of an answer tells. */
export const usageOf = (answer: Iterable<Part | Answer[number]>): Encoded | undefined => {
  let usage: Encoded | undefined
  for (const part of answer) if (part.type === "finish") usage = part.usage
  return usage
}

const add = (a: number | undefined, b: number | undefined): number | undefined =>
  a === undefined ? b : b === undefined ? a : a + b

/** Adds field by field. What only one of them knows is that one's. */
const sumInput = (a: Encoded["inputTokens"], b: Encoded["inputTokens"]): Encoded["inputTokens"] => ({
  ...a,
  ...b,
  ...known("total", add(a.total, b.total)),
  ...known("uncached", add(a.uncached, b.uncached)),
  ...known("cacheRead", add(a.cacheRead, b.cacheRead)),
  ...known("cacheWrite", add(a.cacheWrite, b.cacheWrite)),
})

const sumOutput = (a: Encoded["outputTokens"], b: Encoded["outputTokens"]): Encoded["outputTokens"] => ({
  ...a,
  ...b,
  ...known("total", add(a.total, b.total)),
  ...known("text", add(a.text, b.text)),
  ...known("reasoning", add(a.reasoning, b.reasoning)),
})

const known = <const Key extends string>(key: Key, value: number | undefined) =>
  value === undefined ? {} : ({ [key]: value } as { [K in Key]: number })

/** The sum of two usages. */
export const sum = (a: Encoded | undefined, b: Encoded | undefined): Encoded | undefined =>
  a === undefined || b === undefined
    ? (a ?? b)
    : { inputTokens: sumInput(a.inputTokens, b.inputTokens), outputTokens: sumOutput(a.outputTokens, b.outputTokens) }

/** The tokens in and out, as far as they are known. */
export const tokens = (usage: Encoded | undefined): number =>
  usage === undefined ? 0 : (usage.inputTokens.total ?? 0) + (usage.outputTokens.total ?? 0)

/** The same answer whose end tells this usage. */
export const withUsage = (answer: Answer, usage: Encoded | undefined): Answer =>
  usage === undefined ? answer : answer.map((part) => (part.type === "finish" ? { ...part, usage } : part))
