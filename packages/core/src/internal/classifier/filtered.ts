/**
 * What a content policy objects to, and where: categories, the place that a
 * provider names, and the text that it quotes.
 *
 * Shapes: Azure `content_filter_result: { violence: { filtered: true } }` (and
 * `content_filter_results`), Gemini `safetyRatings: [{ category, blocked }]` and
 * `blockReason`, OpenRouter `metadata: { reasons, flagged_input }`, Bedrock
 * guardrails `filters: [{ type, action: "BLOCKED" }]`, OpenAI
 * `param: "messages[3].content[1]"`.
 */
import * as Predicate from "effect/Predicate"
import type { FilterCategory } from "../llmError.ts"
import { plain, read } from "./said.ts"

/** What is found in the body of a refusal. */
export interface Objection {
  readonly categories: ReadonlyArray<FilterCategory>
  readonly named: { readonly message: number; readonly part?: number } | undefined
  /** What the provider quotes of the prompt: the user's words, and not for a failure's fields. */
  readonly quoted: string | undefined
}

const maxNodes = 512
const maxDepth = 10

/** The words that providers have for a category; the first whose beginning fits. */
const words: ReadonlyArray<readonly [RegExp, FilterCategory]> = [
  [/^(?:harm_category_)?hate/, "hate"],
  [/^(?:harm_category_)?(?:harassment|insults?|bullying|derogatory)/, "harassment"],
  [/^(?:harm_category_)?sex/, "sexual"],
  [/^(?:harm_category_)?violen/, "violence"],
  [/^self[-_ ]?harm/, "self-harm"],
  [/^(?:harm_category_)?(?:dangerous|illicit|misconduct|weapon|civic)/, "dangerous"],
  [/^(?:profanity|toxic)/, "profanity"],
  [/^indirect[-_ ]?attack/, "indirect attack"],
  [/^(?:jailbreak|prompt[-_ ]?(?:attack|injection))/, "jailbreak"],
  [/^(?:protected[-_ ]?material|recitation|copyright)/, "protected material"],
  [/^(?:personal|pii\b|spii)/, "personal information"],
  [/^(?:custom[-_ ]?)?block[-_ ]?list/, "blocklist"],
]

const categoryOf = (word: unknown): FilterCategory | undefined => {
  if (typeof word !== "string" || word.length > 64) return undefined
  const lower = word.toLowerCase()
  return words.find(([pattern]) => pattern.test(lower))?.[1]
}

const place = /^(?:messages|input)\.?\[?(\d{1,6})\]?(?:\.content\.?\[?(\d{1,6})\]?)?/

const placeOf = (param: unknown): Objection["named"] => {
  const found = typeof param === "string" ? place.exec(param.slice(0, 200)) : null
  if (found === null) return undefined
  const message = Number(found[1])
  return found[2] === undefined ? { message } : { message, part: Number(found[2]) }
}

/** Did the policy block by this entry? Azure says `filtered`, Gemini `blocked`, Bedrock `action`. */
const blocks = (entry: Readonly<Record<string, unknown>>): boolean =>
  entry["filtered"] === true || entry["blocked"] === true || entry["action"] === "BLOCKED"

/** What is objected to in the values of a body. Never throws; looks at 512 nodes at most. */
export const objectionOf = (values: ReadonlyArray<unknown>): Objection => {
  const categories = new Set<FilterCategory>()
  let named: Objection["named"]
  let quoted: string | undefined
  let nodes = 0

  const add = (word: unknown): void => {
    const category = categoryOf(word)
    if (category !== undefined) categories.add(category)
  }

  const visit = (node: unknown, depth: number): void => {
    if (depth > maxDepth || ++nodes > maxNodes) return
    if (Array.isArray(node)) {
      for (const item of node.slice(0, 64)) visit(item, depth + 1)
      return
    }
    if (!Predicate.isReadonlyObject(node)) return
    if (blocks(node)) {
      add(node["category"])
      add(node["type"])
    }
    for (const [name, value] of Object.entries(node).slice(0, 64)) {
      const key = plain(name)
      if (key === "param") named ??= placeOf(value)
      else if (key === "flaggedinput" && typeof value === "string" && value !== "") quoted ??= value.slice(0, 4096)
      else if (key === "blockreason") add(value)
      else if (key === "reasons" && Array.isArray(value)) value.slice(0, 32).forEach(add)
      else if (Predicate.isReadonlyObject(value) && blocks(value)) add(name)
      // What the prompt or the answer holds is not what is said about it.
      if (!echoed.has(key)) visit(value, depth + 1)
    }
  }

  for (const value of values) visit(value, 0)
  return { categories: [...categories], named, quoted }
}

const echoed: ReadonlySet<string> = new Set(["messages", "message", "input", "prompt", "content", "parts", "delta"])

/** The same of a body as it came. */
export const objectionOfBody = (body: unknown): Objection => objectionOf(read(body).values)
