/**
 * Numbers that a message states: the context window and what the request
 * needs, and whether a request is larger than the limit it ran into.
 */
import * as Predicate from "effect/Predicate"
import { plain } from "./said.ts"

/** The numbers of a context window, in tokens. */
export interface Window {
  readonly limit?: number
  readonly requested?: number
}

const n = String.raw`(?:approximately |about |~)?(\d[\d,_]{0,14})`

const limits: ReadonlyArray<RegExp> = [
  new RegExp(
    String.raw`(?:maximum|max(?:imum)? allowed|max)[a-z' ]{0,40}(?:context|prompt|input|token|sequence|model)[a-z' ]{0,30}(?:length|size|limit|window|tokens?|count)?[a-z' ]{0,20}?(?:is|of|:|=|\(|to)\s?\(?${n}`,
  ),
  new RegExp(String.raw`exceeds? the maximum (?:number of tokens|token count|input tokens?|tokens)[a-z ]{0,20}\(?${n}`),
  new RegExp(String.raw`> ${n}(?: tokens)?(?: maximum)?`),
  new RegExp(String.raw`with (?:a )?${n} (?:tokens? )?(?:maximum )?context`),
  new RegExp(String.raw`must be <=? ${n}`),
  new RegExp(
    String.raw`(?:context|token|window|model)[a-z' ]{0,30}(?:limit|length|size|window)[a-z' ]{0,40}?(?:is|of|:|=|\()\s?\(?${n}`,
  ),
  new RegExp(String.raw`(?:cannot|can not|must not|should not) exceed ${n}`),
  new RegExp(String.raw`max size: ${n} tokens`),
  new RegExp(
    String.raw`(?:limit(?! exceeded)|up to|at most|only supports?|maximum of|supports?)[a-z ]{0,30} ${n} (?:input |context |prompt )?tokens`,
  ),
]

const requests: ReadonlyArray<RegExp> = [
  new RegExp(
    String.raw`(?:messages|prompt|input|request)[a-z ]{0,20}(?:resulted in|contains?|has|have|is|of|was|requires?|length:?)\s?\(?${n} (?:input |prompt )?tokens`,
  ),
  new RegExp(String.raw`requested (?:a total of )?${n}(?: tokens)?`),
  new RegExp(String.raw`(?:too long|token count|tokens?|length)\s?[:(]\s?${n}\)?`),
  new RegExp(String.raw`${n} tokens? (?:>|exceeds?)`),
  new RegExp(String.raw`request \(${n} tokens?\)`),
  new RegExp(String.raw`(?:received|given|got):? ${n}\b`),
]

const toInt = (digits: string | undefined): number | undefined => {
  if (digits === undefined) return undefined
  const value = Number(digits.replace(/[,_]/g, ""))
  return Number.isSafeInteger(value) && value > 0 ? value : undefined
}

const first = (patterns: ReadonlyArray<RegExp>, text: string): number | undefined => {
  for (const pattern of patterns) {
    const value = toInt(pattern.exec(text)?.[1])
    if (value !== undefined) return value
  }
  return undefined
}

/** Fields of llama.cpp's `exceed_context_size_error`. */
const fields = (values: ReadonlyArray<unknown>): Window => {
  for (const value of values) {
    const error =
      Predicate.isReadonlyObject(value) && Predicate.isReadonlyObject(value["error"]) ? value["error"] : value
    if (!Predicate.isReadonlyObject(error)) continue
    const found = new Map(Object.entries(error).map(([key, value]) => [plain(key), value]))
    const limit = found.get("nctx")
    const requested = found.get("nprompttokens")
    if (Number.isSafeInteger(limit) && Number.isSafeInteger(requested)) {
      return { limit: Number(limit), requested: Number(requested) }
    }
  }
  return {}
}

/**
 * The window and the need that a message states. `requested` is given only
 * where it is more than `limit`, for else it is another number.
 */
export const window = (text: string, values: ReadonlyArray<unknown>): Window => {
  const stated = fields(values)
  if (stated.limit !== undefined) return stated
  const limit = first(limits, text)
  const sum = new RegExp(String.raw`${n} \+ ${n} > ${n}`).exec(text)
  const given = new RegExp(String.raw`given: ${n}[^.\d]{0,40}and ${n}`).exec(text)
  const over = new RegExp(String.raw`exceeded by ${n} tokens`).exec(text)
  const parts = sum ?? given
  const a = toInt(parts?.[1])
  const b = toInt(parts?.[2])
  const excess = toInt(over?.[1])
  const top = toInt(sum?.[3]) ?? limit
  const requested =
    a !== undefined && b !== undefined
      ? a + b
      : excess !== undefined && top !== undefined
        ? top + excess
        : first(requests, text)
  return {
    ...(top === undefined ? {} : { limit: top }),
    ...(requested === undefined || (top !== undefined && requested <= top) ? {} : { requested }),
  }
}

/** `Limit 30000, Requested 31538`: larger than the limit itself, so that no wait helps. */
export const neverFits = (text: string): boolean => {
  const found = new RegExp(String.raw`\blimit:? ${n}[^.]{0,60}\brequested:? ${n}`).exec(text)
  const limit = toInt(found?.[1])
  const requested = toInt(found?.[2])
  return limit !== undefined && requested !== undefined && requested > limit
}
