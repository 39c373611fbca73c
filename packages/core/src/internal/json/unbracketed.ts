/** Values that a scan for brackets does not find: a single word or string, and a list without its brackets. */
import { isWord, unitAt } from "./characters.ts"
import { meaningOf } from "./literals.ts"
import { endOfLastReasoning } from "./reasoning.ts"
import { tiers } from "./repair.ts"
import { type Candidate, candidate, parse, trimmed } from "./scan.ts"

/** The longest number or literal. */
const longestWord = 64

/**
 * The whole text as one string, number, boolean or null: then nothing inside of
 * it is looked for. What stands inside of a string is never the answer.
 */
export const loneValue = (text: string, from = 0, to = text.length, fenced = false): Candidate | undefined => {
  const [first, last] = trimmed(from === 0 && to === text.length ? text : text.slice(from, to))
  const start = from + first
  const end = from + last
  const c = unitAt(text, start)
  const short = end - start <= longestWord
  if (c !== 34 && !(short && isWord(c))) return undefined
  const whole = from === 0 && to === text.length
  const found = { how: whole ? "whole" : "span", fenced, start, end } as const
  const word = text.slice(start, end)
  const parsed = parse(word)
  if (parsed !== undefined) return candidate(found, parsed.value)
  const meaning = short ? meaningOf(word) : undefined
  if (meaning === undefined) return undefined
  const { repair, value } = meaning
  return candidate(found, value, {
    repairs: repair === undefined ? [] : [{ kind: repair, tier: tiers[repair], position: start }],
  })
}

/** A lone value behind the reasoning, or in a fence that holds everything else. */
export const wrappedValue = (text: string): Candidate | undefined => {
  const begin = endOfLastReasoning(text)
  const [first, last] = trimmed(text.slice(begin))
  const start = begin + first
  const end = begin + last
  if (text.startsWith("```", start) && text.startsWith("```", end - 3)) {
    const line = text.indexOf("\n", start)
    return line < 0 || line >= end ? undefined : loneValue(text, line, end - 3, true)
  }
  return begin === 0 ? undefined : loneValue(text, begin, text.length)
}

/** The longest text between two items that holds nothing but comments. */
const longestGap = 400

/** Values one after another, as in JSON Lines, as the items of the array that was asked for. */
export const gathered = (candidates: ReadonlyArray<Candidate>, text: string): Candidate | undefined => {
  if (candidates.length < 2 || candidates.some(({ found, strong }) => !strong || found.how === "open")) return undefined
  for (const [index, { found }] of candidates.entries()) {
    const next = candidates[index + 1]
    if (next === undefined) break
    if (next.found.start - found.end > longestGap) return undefined
    const between = text.slice(found.end, next.found.start)
    if (!/^[\s,;]*$/.test(between.replaceAll(/\/\*[^]*?\*\/|\/\/[^\n]*/g, ""))) return undefined
  }
  const { fenced, start } = candidates[0]!.found
  const { end } = candidates[candidates.length - 1]!.found
  return candidate(
    { how: "span", fenced, start, end },
    candidates.map(({ json }) => json),
    {
      repairs: [
        { kind: "missing bracket", tier: "guess", position: start },
        ...candidates.flatMap(({ repairs }) => repairs),
        { kind: "missing bracket", tier: "guess", position: end },
      ],
    },
  )
}
