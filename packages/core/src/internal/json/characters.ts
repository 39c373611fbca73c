/** What single UTF-16 units mean to the lenient parser. -1 stands for the end of the text. */

const { charCodeAt } = String.prototype

/**
 * The unit at `i`.
 *
 * Strings come in many representations, and once an engine has met several of
 * them at `text.charCodeAt`, it looks the method up each time, at four times the
 * cost of a scan. So the method itself is asked: here, and in the longest loops
 * by a constant of their own, which an engine can see through.
 */
export const unitAt = (text: string, i: number): number => charCodeAt.call(text, i)

export const newline = 10
export const backslash = 92
export const comma = 44
export const colon = 58
export const backtick = 96

/** White space of JSON. */
export const isSpace = (c: number): boolean => c === 32 || c === 10 || c === 13 || c === 9

/** White space of everybody else: no-break and typographic spaces, zero width ones, the byte order mark. */
export const isSpecialSpace = (c: number): boolean =>
  c === 0xa0 ||
  c === 0x180e ||
  (c >= 0x2000 && c <= 0x200f) ||
  c === 0x2028 ||
  c === 0x2029 ||
  c === 0x202f ||
  c === 0x205f ||
  c === 0x2060 ||
  c === 0x3000 ||
  c === 0xfeff ||
  c === 11 ||
  c === 12 ||
  c === 0x85

/** `n`, `r` or `t`, which stand for space when a backslash is in front of them. */
export const isEscapedSpace = (c: number): boolean => c === 110 || c === 114 || c === 116

export const isDigit = (c: number): boolean => c >= 48 && c <= 57

/** For ASCII: 1 may begin a word, 2 may stand in one. */
const words = new Uint8Array(128)
for (const c of "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_$") words[unitAt(c, 0)] = 3
for (const c of "0123456789-.") words[unitAt(c, 0)] = 2

/** Whether a unit beyond ASCII is a letter, as far as this matters. */
const isForeign = (c: number): boolean =>
  c > 127 && !isSpecialSpace(c) && quoteOf(c) === undefined && c !== 0x2026 && c !== 0xbb

/** May begin a key or a word without quotes. */
export const beginsWord = (c: number): boolean => (c < 128 ? words[c] === 3 : isForeign(c))

/** May stand inside a key without quotes. */
export const isWord = (c: number): boolean => (c < 128 ? words[c]! > 1 : isForeign(c))

/** How a string that began with some quote can end. */
export interface Quote {
  /** The unit that ends it. */
  readonly close: number
  /** Others that end it as well. */
  readonly also: number
  readonly alsoToo: number
  /** Whether this is how JSON does it. */
  readonly proper: boolean
}

const quote = (close: number, also = -2, alsoToo = -2): Quote => ({
  close,
  also,
  alsoToo,
  proper: close === 34 && also === -2,
})

const double = quote(34)
const single = quote(39)
const typographic = quote(0x201d, 0x201c, 34)
const typographicSingle = quote(0x2019, 0x2018, 39)
const accent = quote(96, 0xb4)
const guillemet = quote(0xbb)

/** The quote that a unit opens a string with. */
export const quoteOf = (c: number): Quote | undefined => {
  switch (c) {
    case 34:
      return double
    case 39:
      return single
    case 0x201c:
    case 0x201d:
    case 0x201e:
      return typographic
    case 0x2018:
    case 0x2019:
    case 0x201a:
      return typographicSingle
    case 96:
    case 0xb4:
      return accent
    case 0xab:
      return guillemet
    default:
      return undefined
  }
}
