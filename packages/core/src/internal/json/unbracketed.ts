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

/**
 * JSON that was written as a JSON string, as the argument of what reads it: `JSON.parse("{\"a\": 1}")`. It is read once:
 * a string inside of it stays a string. Without the call, what stands inside of a string is no answer.
 */
export const stringedValue = (text: string): Candidate | undefined => {
  const [first, last] = trimmed(text)
  const call = /^[\w$.]{0,64}(?:parse|loads|decode)\(\s{0,9}(?=")/i.exec(text.slice(first, first + 90))
  if (call === null) return undefined
  const start = first + call[0].length
  const behind = /\s{0,9}\)\s{0,9};?$/.exec(text.slice(Math.max(start, last - 24), last))
  if (behind === null) return undefined
  const end = last - behind[0].length
  const string = parse(text.slice(start, end))?.value
  const inner = typeof string === "string" ? parse(string)?.value : undefined
  if (typeof inner !== "object" || inner === null) return undefined
  return candidate({ how: "span", fenced: false, start, end }, inner, {
    repairs: [{ kind: "escaped quote", tier: tiers["escaped quote"], position: start }],
  })
}

/**
 * A text whose lines are all quoted, as in mail, without its `>`: spaces stand in their places, so that all else stays
 * where it is.
 */
export const unquotedLines = (text: string): string => {
  if (unitAt(text, trimmed(text)[0]) !== 62) return text
  const lines = text.split("\n")
  if (lines.length < 2 || !lines.every((line) => /^\s*(?:>|$)/.test(line))) return text
  return lines.map((line) => line.replace(">", " ")).join("\n")
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
    if (!/^[\s,;]*$/.test(between.replaceAll(/\/\*[^]*?\*\/|\/\/[^\n]*|`{3,}\w*/g, ""))) return undefined
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
