/**
 * How a span stands in the text around it: whether it looks like an answer, or
 * like brackets that prose, mathematics and programs use for their own purposes.
 */
import * as Predicate from "effect/Predicate"
import { beginsWord, isSpace, isSpecialSpace, isWord, newline, unitAt } from "./characters.ts"
import type { Lenient } from "./lenient.ts"

/** How far around a span is looked. */
const reach = 120
const wholeReach = 200

/** What is around a span. */
export interface Around {
  readonly fenced: boolean
  /** At the beginning of a line, behind a colon or the like, in a program, in a sentence, or right behind a word or a bracket. */
  readonly place: "line" | "label" | "code" | "inline" | "glued"
  /** Whether nothing follows it in its line. */
  readonly alone: boolean
  /** Whether there is nothing else but comments, punctuation and one name. */
  readonly whole: boolean
  /** Whether it stands as lists of numbers and words do that are no citations: alone in its line, or as what is assigned. */
  readonly list: "any" | "many" | "none"
}

export const surroundings = (text: string, start: number, end: number, fenced: boolean): Around => ({
  fenced,
  place: placeOf(text, start),
  alone: /^[^\S\n]*(?:\n|$)/.test(text.slice(end, end + reach)),
  whole: isWhole(text, start, end),
  list: listAt(text, start, end, fenced),
})

/** A word at the bottom of arrays of one item each, as in the links of a wiki. */
const holdsWords = (json: unknown): boolean => {
  let inner = json
  while (Array.isArray(inner) && inner.length === 1) inner = inner[0] as unknown
  return typeof inner === "string" || (Array.isArray(inner) && inner.some((item) => typeof item === "string"))
}

/** Where a list of numbers or words is meant: `any`, or only one of `many` items; sentences have citations and intervals. */
const listAt = (text: string, start: number, end: number, fenced: boolean): Around["list"] => {
  const after = text.slice(end, end + reach)
  const before = text.slice(Math.max(0, start - reach), start)
  const line = before.slice(before.lastIndexOf("\n") + 1)
  if (fenced || (start < reach && before.trim() === "" && isWhole(text, start, end) && !after.startsWith("(")))
    return "any"
  if (/:[\s*_`]{0,9}$/.test(before) && /^(?:[\s.;!`*"']|$)/.test(after)) {
    // One word and one number are a source; a sentence or several lines are not.
    return text.slice(start, Math.min(end, start + reach)).includes("\n") || /\w\s+\w+\W+$/.test(line) ? "any" : "many"
  }
  if (/\w{2}\($/.test(line) && isWhole(text, start, end)) return "many"
  if (!/^[^\S\n]*[.;!,`*"']{0,4}[^\S\n]*(?:\/\/[^\n]*)?(?:\n|$)/.test(after)) return "none"
  if (/^[\s>*\-•"'`]*(?:\d{1,3}[.)]\s?)?$/.test(line)) return "many"
  if (/=>?\s{0,9}$/.test(before)) return "any"
  return /(?:[>`]\s{0,9}|\b(?:is|are|was|were)\s{1,9})$/.test(before) ? "many" : "none"
}

const placeOf = (text: string, at: number): Around["place"] => {
  const before = text.slice(Math.max(0, at - reach), at)
  const lineBegin = before.lastIndexOf("\n") + 1
  const line = before.slice(lineBegin)
  const wholeLine = lineBegin > 0 || line.length === at
  if (wholeLine && /^[\s>*\-•"'`(]*(?:\d{1,3}[.)]\s?)?$/.test(line)) return "line"
  if (/[:=>`]\s{0,9}$/.test(line) || /[:=]\s{0,9}$/.test(before)) return "label"
  if (/(?:\b(?:return|default)\s{1,9}|\w\()$/.test(line)) return "code"
  return /[\w)\]\\$^}]$/.test(line) ? "glued" : "inline"
}

const isWhole = (text: string, start: number, end: number): boolean => {
  if (start > wholeReach || text.length - end > wholeReach) return false
  const rest = (part: string): string => part.replaceAll(/\/\*[^]*?(?:\*\/|$)|\/\/[^\n]*/g, "").trim()
  return /^\W*\w*\W*$/.test(rest(text.slice(0, start))) && /^\W*$/.test(rest(text.slice(end)))
}

/**
 * Whether a value may begin with the bracket at `at`, as far as the next few
 * units tell: most brackets of prose are told apart without a parser.
 */
export const mayBegin = (text: string, at: number): boolean => {
  const stop = Math.min(text.length, at + 2 * reach)
  let i = at + 1
  while (i < stop && isSpace(unitAt(text, i))) i++
  if (!beginsWord(unitAt(text, i))) return true
  const array = unitAt(text, at) === 91
  for (; i < stop; i++) {
    const c = unitAt(text, i)
    if (isWord(c) || c === 32) continue
    // The first word of an array goes on to a comma or a bracket; that of an object must be a key.
    if (array) {
      if (c === 123 || c === 91 || c === 59 || c === 60) return false
      // A stray bracket in a sentence, and then an object of its own.
      if (c === newline && unitAt(text, overSpace(text, i, stop)) === 123) return beginsLine(text, at)
      if (c === 44 || c === 93 || c === newline || c === 34) return true
    } else {
      return c === 58 || c === 61 || c === 34 || c === 47 || c === 35 || isSpace(c) || isSpecialSpace(c)
    }
  }
  return true
}

const overSpace = (text: string, from: number, stop: number): number => {
  let i = from
  while (i < stop && isSpace(unitAt(text, i))) i++
  return i
}

/** Whether a tag or the like is the first thing in its line. */
export const beginsLine = (text: string, at: number): boolean => {
  let i = at - 1
  while (i >= 0 && at - i < reach && isSpace(unitAt(text, i)) && unitAt(text, i) !== newline) i--
  return i < 0 || unitAt(text, i) === newline
}

/** Whether a bracket stands inside of quotes that began earlier in its line: what is in a string is no answer. */
export const inQuotes = (text: string, at: number): boolean => {
  let quotes = 0
  for (let i = at - 1; i >= 0 && at - i < 3 * reach; i--) {
    const c = unitAt(text, i)
    if (c === newline) break
    if (c === 34) quotes++
  }
  return quotes % 2 === 1
}

/**
 * Strict JSON that goes on behind its end: by a member, when a bracket is there
 * too early, or by the rest of a string, when a quote in it was not escaped.
 */
export const endsTooEarly = (text: string, start: number, end: number): boolean => {
  const rest = text.slice(end, end + 300)
  return (
    (unitAt(text, start) === 123 && /^\s{0,64},\s{0,64}"[^"\\\n]{0,128}"\s{0,16}:/.test(rest)) ||
    /^[^\n{["]{0,250}"[^\S\n]{0,9}[}\]]/.test(rest)
  )
}

/**
 * What follows a value that was closed by a guess, and tells that it was not its end: the rest of a string, another
 * member, or brackets and a quote.
 */
export const contradicts = (text: string, end: number): boolean =>
  /^\s{0,64}(?:"|'\s{0,9}[,}\]]|,\s{0,64}(?:["'][^"'\\\n]{0,128}["']|[\w$]{1,64})\s{0,16}:|[\]}]{1,8}\s{0,9}"|\w{1,64}")/.test(
    text.slice(end, end + 400),
  ) ||
  /^[^\n{["]{0,250}"[^\S\n]{0,9}(?:[}\]]|,\s{0,9}")/.test(text.slice(end, end + 300)) ||
  /^[^\n{]{0,250}"[^\S\n]{0,9}(?:,\s{0,9}"[^"\n]{0,64}"\s{0,9}:|\}[^\S\n]{0,9}(?:\n|$))/.test(
    text.slice(end, end + 350),
  )

const isEmpty = (json: unknown): boolean =>
  Array.isArray(json) ? json.length === 0 : typeof json === "object" && json !== null && Object.keys(json).length === 0

/** Only numbers, as in the citations and intervals of prose. */
const isNumbers = (json: ReadonlyArray<unknown>): boolean => {
  let items = json
  while (items.length === 1 && Array.isArray(items[0])) items = items[0] as ReadonlyArray<unknown>
  return items.length > 0 && items.every((item) => typeof item === "number")
}

/** Whether a list of this many items may be meant where it stands. */
const listMeant = ({ list }: Around, count: number): boolean => list === "any" || (list === "many" && count > 1)

/** Whether a value is only a list of numbers or words, as prose has it as well. */
export const isPlainList = (json: unknown, words: boolean): boolean =>
  Array.isArray(json) &&
  (isNumbers(json) || (words && json.every((item) => typeof item === "string" || typeof item === "number")))

/** Whether strict JSON is meant as a value: prose has `[1]`, `[ ]`, `{}` and `a["b"]` for its own purposes. */
export const looksMeant = (json: unknown, around: Around): boolean => {
  const { alone, fenced, place, whole } = around
  if (fenced) return true
  if (Array.isArray(json) && isNumbers(json)) return listMeant(around, json.length)
  if (whole) return true
  if (isEmpty(json)) return (place === "line" && alone) || place === "label"
  if (!Array.isArray(json)) return true
  if (place === "glued") return json.some((item) => typeof item === "object" && item !== null)
  if (json.length === 1 && typeof json[0] !== "object") return place === "label"
  return true
}

/** How far a repaired span is to be believed: as an answer, as one only if it was asked for, or not at all. */
export const standingOf = (lenient: Lenient, around: Around): "strong" | "weak" | "none" => {
  const { end, quoted, repairs, root, solid } = lenient
  const { fenced, place, whole } = around
  if (typeof root !== "object" || root === null) return "none"
  const apart = fenced || place === "line" || place === "label" || place === "code"
  if (isEmpty(root)) return (end === "open" ? apart : whole) ? "strong" : "none"
  if (!Array.isArray(root)) {
    // In a sentence or a program, a name may stand where a value does.
    const program = !apart || (place === "code" && !fenced)
    if (program && repairs.some(({ kind }) => kind === "unquoted value")) return "none"
    if (quoted === 0 && repairs.some(({ kind }) => kind === "missing colon")) return "none"
    return quoted > 0 || apart ? "strong" : "none"
  }
  if (quoted === 0 && solid === 0) {
    // One word in brackets is a placeholder or a note, unless it is a number or an address of some kind.
    const [only, ...others] = root as ReadonlyArray<unknown>
    if (others.length === 0 && typeof only === "string") {
      return whole && /^\S*(?:\d|:\/\/)\S*$/.test(only) ? "strong" : "none"
    }
    if (root.every((item) => Array.isArray(item) && holdsWords(item)) && !fenced) return "weak"
    return apart && place !== "code" && (whole || fenced) ? "strong" : "weak"
  }
  if (place === "glued" || (place === "code" && !fenced && quoted === 0)) return "none"
  if (quoted === 0 && !root.some(Predicate.isObjectOrArray)) {
    const words = root.some((item) => typeof item === "string")
    const meant = words ? around.list !== "none" && (place === "line" || around.list === "any") : undefined
    return (meant ?? listMeant(around, root.length)) ? "strong" : "weak"
  }
  return apart || quoted > 0 || root.length > 1 ? "strong" : "weak"
}

/** Where a broken span ends: at its last bracket, before a fence at the beginning of a line, or with the text. */
export const endOfBroken = (text: string, from: number, depth: number): number => {
  const token = /[{}[\]]|"(?:[^"\\\n]|\\.)*"|\n\s{0,8}```/g
  token.lastIndex = from
  let open = depth
  for (let match = token.exec(text); match !== null; match = token.exec(text)) {
    const c = match[0].charCodeAt(0)
    if (c === newline) return match.index
    if (c === 123 || c === 91) open++
    if ((c === 125 || c === 93) && --open <= 0) return token.lastIndex
  }
  return text.length
}
