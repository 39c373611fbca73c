/**
 * An estimate of how many tokens a text is, for when there is no tokenizer: one
 * pass over its code units, which allocates nothing.
 *
 * Byte-pair encoders split a text into words, numbers, punctuation and white
 * space before they merge anything, so the same is done here, and each piece is
 * weighed by its length and its script. The weights were fitted to OpenAI's
 * o200k_base and cl100k_base; `TokenCounter.test.ts` holds the bounds.
 */

/** A run of Latin letters: common words are one token, long ones are more. Capitals merge less. */
const ofWord = (length: number, capitals: boolean): number =>
  capitals ? (length <= 3 ? 1 : 1 + (length - 3) / 3) : length <= 6 ? 1 : 1 + (length - 6) / 5.5

/** What a letter with a mark adds to its word: little in French and Vietnamese, more in Polish, Czech and Turkish. */
const ofMark = (unit: number): number => (unit < 0x100 ? 0.35 : unit < 0x180 ? 0.9 : 0.15)

/** A run of ASCII punctuation: `":` and `);` are one token, and so are long rules of dashes. */
const ofPunctuation = (length: number): number =>
  length <= 2 ? 0.8 : length <= 16 ? 1 + (length - 3) * 0.35 : 5.55 + (length - 16) / 32

/** What a code unit weighs that is none of these: the first upper bound above it. Surrogates come in pairs. */
const scripts: ReadonlyArray<readonly [below: number, weight: number]> = [
  [0x0250, 0.9], // signs of Latin 1
  [0x0370, 1], // phonetic signs, combining marks
  [0x0400, 0.55], // Greek
  [0x0530, 0.36], // Cyrillic
  [0x0700, 0.5], // Armenian, Hebrew, Arabic
  [0x0e80, 0.55], // Indic scripts, Thai
  [0x1100, 0.8],
  [0x1200, 0.8], // Hangul letters
  [0x2000, 0.8],
  [0x2e80, 0.9], // typography, mathematics, symbols
  [0x3040, 0.7], // CJK punctuation
  [0x3100, 0.75], // Kana
  [0xac00, 0.9], // Han
  [0xd7b0, 0.8], // Hangul
  [0xe000, 1], // pairs: emoji, rare Han
  [0x10000, 0.9],
]

/** The same for each sixteen code units: no script begins in between. */
const weights = Float64Array.from({ length: 0x1000 }, (_, index) => scripts.find(([below]) => index << 4 < below)![1])

const ofUnit = (unit: number): number => weights[unit >> 4]!

const isMarked = (unit: number): boolean =>
  (unit >= 0xc0 && unit < 0x250 && unit !== 0xd7 && unit !== 0xf7) || (unit >= 0x1e00 && unit < 0x1f00)
const isLower = (unit: number): boolean => (unit >= 97 && unit <= 122) || isMarked(unit)
const isUpper = (unit: number): boolean => unit >= 65 && unit <= 90
const isDigit = (unit: number): boolean => unit >= 48 && unit <= 57
const isBreak = (unit: number): boolean => unit === 10 || unit === 13 || unit === 9
const isPunctuation = (unit: number): boolean =>
  unit > 32 && unit < 128 && !isLower(unit) && !isUpper(unit) && !isDigit(unit)

/** What the marks in a run of letters add. */
const ofMarks = (text: string, from: number, to: number): number => {
  let tokens = 0
  for (let at = from; at < to; at++) {
    const unit = text.charCodeAt(at)
    if (isMarked(unit)) tokens += ofMark(unit)
  }
  return tokens
}

/** Where the run ends that begins at `from`. */
const runEnd = (text: string, from: number, belongs: (unit: number) => boolean): number => {
  let end = from + 1
  while (end < text.length && belongs(text.charCodeAt(end))) end++
  return end
}

/** Tokens of a text, estimated. */
export const estimate = (text: string): number => {
  let tokens = 0
  let at = 0
  while (at < text.length) {
    const unit = text.charCodeAt(at)
    let end = at + 1
    if (isLower(unit) || isUpper(unit)) {
      // `parseHTMLNode` is three words: each begins with a capital.
      end = runEnd(text, at, isUpper(unit) ? isUpper : isLower)
      if (isUpper(unit) && end < text.length && isLower(text.charCodeAt(end))) {
        const capitals = end - at - 1
        if (capitals > 0) tokens += ofWord(capitals, true)
        const last = end - 1
        end = runEnd(text, last, isLower)
        tokens += ofWord(end - last, false) + ofMarks(text, last, end)
      } else {
        tokens += ofWord(end - at, isUpper(unit)) + ofMarks(text, at, end)
      }
    } else if (isDigit(unit)) {
      end = runEnd(text, at, isDigit)
      tokens += Math.ceil((end - at) / 3)
    } else if (unit === 32) {
      end = runEnd(text, at, (next) => next === 32)
      // One space belongs to the word behind it, but not to a number.
      if (end - at > 1) tokens += 1 + (end - at) / 128
      else if (end < text.length && isDigit(text.charCodeAt(end))) tokens += 1
    } else if (isBreak(unit)) {
      end = runEnd(text, at, isBreak)
      tokens += 0.8 + (end - at) / 128
    } else if (isPunctuation(unit)) {
      end = runEnd(text, at, isPunctuation)
      tokens += ofPunctuation(end - at)
    } else {
      tokens += ofUnit(unit)
    }
    at = end
  }
  return Math.ceil(tokens)
}
