/** Words and numbers without quotes: which of them have a value of their own. */
import { unitAt } from "./characters.ts"
import type { RepairKind } from "./repair.ts"

/** A value that a word stands for, and the repair that it takes to see it. */
export interface Meaning {
  readonly value: unknown
  readonly repair: RepairKind | undefined
}

const said = (value: unknown, repair?: RepairKind): Meaning => ({ value, repair })

const literals: ReadonlyMap<string, Meaning> = new Map([
  ["true", said(true)],
  ["false", said(false)],
  ["null", said(null)],
  ["True", said(true, "literal spelling")],
  ["False", said(false, "literal spelling")],
  ["None", said(null, "literal spelling")],
  ["TRUE", said(true, "literal spelling")],
  ["FALSE", said(false, "literal spelling")],
  ["NULL", said(null, "literal spelling")],
  ["Null", said(null, "literal spelling")],
  ["NONE", said(null, "literal spelling")],
  ["nil", said(null, "literal spelling")],
  ["undefined", said(null, "no such literal")],
  ["NaN", said(null, "no such literal")],
  ["nan", said(null, "no such literal")],
  ["Infinity", said(null, "no such literal")],
  ["-Infinity", said(null, "no such literal")],
])

/** Names of types, which stand where a value was to be filled in. */
const placeholders: ReadonlySet<string> = new Set([
  "string",
  "number",
  "boolean",
  "integer",
  "int",
  "float",
  "double",
  "str",
  "bool",
  "any",
  "object",
  "array",
  "unknown",
  "never",
  "void",
  "String",
  "Number",
  "Boolean",
  "Integer",
])

/** Whether a word is the name of a type, and so no value. */
export const isPlaceholder = (word: string): boolean => placeholders.has(word)

const strictNumber = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/
const spelledNumber = /^[+-]?(?:(?:0|[1-9]\d*(?:_\d+)*)(?:\.\d*(?:_\d+)*)?|\.\d+)(?:[eE][+-]?\d+)?$/
/** Thousands apart, as in `-2,000.00`; and an exponent that was not written. */
const grouped = /^[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?$/
const withoutExponent = /^([+-]?\d+(?:\.\d+)?)[eE][+-]?$/
const hexadecimal = /^[+-]?0[xX][0-9a-fA-F]{1,13}$/

/** What a whole word or number means, when it means anything but itself. */
export const meaningOf = (word: string): Meaning | undefined => {
  const c = unitAt(word, 0)
  if (c > 57 || !(c >= 43) || word === "-Infinity") return literals.get(word)
  if (strictNumber.test(word)) return said(Number(word))
  if (spelledNumber.test(word) && /\d/.test(word)) return said(Number(word.replaceAll("_", "")), "number spelling")
  if (grouped.test(word)) return said(Number(word.replaceAll(",", "")), "number spelling")
  const mantissa = withoutExponent.exec(word)?.[1]
  if (mantissa !== undefined && strictNumber.test(mantissa)) return said(Number(mantissa), "number spelling")
  if (hexadecimal.test(word)) {
    const sign = word.startsWith("-") ? -1 : 1
    return said(sign * Number(word.replace(/^[+-]/, "")), "number spelling")
  }
  return undefined
}

const prefixes = ["true", "false", "null", "True", "False", "None"]

/**
 * What the beginning of a word or number means when the text ended in it:
 * `tru` is true, `12.` and `12e` are 12, and `-` is nothing.
 */
export const meaningOfBeginning = (word: string): Meaning | undefined => {
  const whole = prefixes.find((literal) => literal.startsWith(word))
  if (whole !== undefined) return meaningOf(whole)
  const number = /^([+-]?\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)(?:\.|[eE][+-]?)?$/.exec(word)?.[1]
  return number === undefined ? undefined : meaningOf(number)
}
