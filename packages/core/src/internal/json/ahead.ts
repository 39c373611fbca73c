/**
 * Text that may come in pieces, and questions about what stands ahead in it.
 *
 * Every look ahead ends after a fixed reach, so that reading stays linear in the
 * text, whatever it holds. Where the text that is there does not reach far
 * enough for an answer, `starved` is set, and whoever asked must wait.
 */
import {
  backslash,
  beginsWord,
  colon,
  comma,
  isDigit,
  isSpace,
  isSpecialSpace,
  isWord,
  newline,
  quoteOf,
  unitAt,
} from "./characters.ts"
import { meaningOf } from "./literals.ts"

/** For the longest loops: see `unitAt`. */
const { charCodeAt } = String.prototype

/** How far to look for the end of a key, and over space and comments. */
export const keyReach = 256
/** How many pieces of space and comments to pass over. */
const maxTrivia = 64

/** How far to look back. */
export const backReach = 64

const lineEnd = "\n"
const blockEnd = "*/"

/** A window of text with a place in it. */
export abstract class Ahead {
  /** Units looked at, those ahead as well. */
  work = 0

  protected text: string
  /** Where the window begins in the whole text. */
  protected base: number
  /** Where reading must stop. */
  protected n: number
  /** Where reading is. */
  protected i: number
  /** Whether nothing comes after `n`. */
  protected ended = false
  /** Whether it waited long enough: what is there has to do. */
  protected impatient = false
  /** Whether an answer depended on text that is not there yet. */
  protected starved = false
  /** Whether the last look over space and comments crossed the end of a line. */
  protected crossed = false
  /** The quotes of a key that was seen ahead, with its colon. */
  protected keyFrom = -1
  protected keyTo = -1
  /** How many keys without quotes there were: another one is then no surprise. */
  protected bareKeys = 0

  private readonly line = { from: 0, to: -1 }
  private readonly block = { from: 0, to: -1 }
  private readonly space = { from: 0, to: -1, newline: -1 }

  constructor(text: string, start: number, base: number) {
    this.text = text
    this.i = start
    this.base = base
    this.n = text.length
  }

  /** Where it is in the whole text. */
  get position(): number {
    return this.base + this.i
  }

  /** Replaces the window by one that begins `drop` units later and ends with more text. */
  protected slide(drop: number, more: string): void {
    this.text = this.text.slice(drop) + more
    this.base += drop
    this.i -= drop
    this.n = this.text.length
    this.line.to = -1
    this.block.to = -1
    this.space.to = -1
  }

  /** Whether it must wait for more text. */
  protected get waits(): boolean {
    return this.starved && !this.ended && !this.impatient
  }

  /** The unit at `i`, or -1 at the end; then more text might change the answer. */
  protected at(i: number): number {
    if (i < this.n) return charCodeAt.call(this.text, i)
    this.starved = true
    return -1
  }

  /** Over space and comments from `i`; `crossed` tells whether a line ended. */
  protected trivia(from: number): number {
    const { n, text } = this
    this.crossed = false
    let i = from
    for (let k = 0; k < maxTrivia; k++) {
      if (i >= n) {
        this.starved = true
        break
      }
      const c = charCodeAt.call(text, i)
      if (isSpace(c) || isSpecialSpace(c)) {
        i = this.overSpace(i)
      } else if (c === 47 && this.at(i + 1) === 47) {
        i = this.endOf(lineEnd, i)
      } else if (c === 35 && i > from && this.at(i + 1) === 32) {
        i = this.endOf(lineEnd, i)
      } else if (c === 47 && this.at(i + 1) === 42) {
        i = Math.min(n, this.endOf(blockEnd, i + 2) + 2)
      } else {
        break
      }
    }
    this.work++
    return i
  }

  /** Over the space at `i`. A long stretch of it is remembered, and need not be gone over again. */
  private overSpace(from: number): number {
    const { n, space, text } = this
    let i = from
    for (; i < n; i++) {
      if (i - from > backReach) {
        if (i < space.from || i >= space.to) {
          space.from = i
          space.newline = -1
          let j = i
          for (; j < n; j++) {
            const c = charCodeAt.call(text, j)
            if (c === newline) space.newline = j
            else if (!isSpace(c) && !isSpecialSpace(c)) break
          }
          space.to = j
          this.work += j - i
        }
        if (space.newline >= i) this.crossed = true
        return space.to
      }
      const c = charCodeAt.call(text, i)
      if (c === newline) this.crossed = true
      else if (!isSpace(c) && !isSpecialSpace(c)) break
    }
    this.work += i - from
    return i
  }

  /** Where a comment that stands at `i` ends. Asked again inside of the same comment, it need not look again. */
  private endOf(what: string, i: number): number {
    const known = what === lineEnd ? this.line : this.block
    if (i < known.from || i > known.to) {
      const at = this.text.indexOf(what, i)
      known.from = i
      known.to = at < 0 || at > this.n ? this.n : at
      this.work += known.to - i
    }
    return known.to
  }

  /** Does a key stand at `i`, with its colon? Where the text ends before that can be told: `atEnd`. */
  protected keyAt(i: number, atEnd = true): boolean {
    const c = this.at(i)
    if (c === -1) return atEnd
    const { n, text } = this
    const stop = Math.min(n, i + keyReach)
    const quote = quoteOf(c)
    let j = i + 1
    if (quote !== undefined) {
      let plain = quote.proper
      for (; j < stop; j++) {
        const d = charCodeAt.call(text, j)
        if (d === backslash) {
          plain = false
          j++
        } else if (d === newline) return false
        else if (d === 0x201d && c === 34 && this.colonAfter(j + 1) === 1) return true
        else if (d === quote.close || d === quote.also || d === quote.alsoToo) break
      }
      this.work += j - i
      if (j >= stop) {
        // What is in quotes and longer than the reach may or may not be one, as at the end of the text.
        if (j >= n) this.starved = true
        return atEnd
      }
      const d = this.colonAfter(j + 1)
      if (d === 1 && plain) {
        this.keyFrom = this.base + i
        this.keyTo = this.base + j
      }
      return d === -1 ? atEnd : d === 1
    }
    if (c === backslash && this.at(i + 1) === 34) {
      for (j = i + 2; j < stop; j++) {
        if (charCodeAt.call(text, j) === backslash && this.at(j + 1) === 34) {
          const d = this.colonAfter(j + 2)
          return d === -1 ? atEnd : d === 1
        }
      }
      if (j >= n) this.starved = true
      return j >= n && atEnd
    }
    if (!beginsWord(c) && !isDigit(c)) return false
    while (j < stop && isWord(charCodeAt.call(text, j))) j++
    this.work += j - i
    if (j >= n) {
      this.starved = true
      return atEnd
    }
    if (this.bareKeys > 0 && charCodeAt.call(text, j) === colon && j + 1 < n) return charCodeAt.call(text, j + 1) !== 47
    // A key whose quote is missing at its front.
    if (charCodeAt.call(text, j) === 34) j++
    const d = this.colonAfter(j)
    if (d !== 1) return d === -1 && atEnd
    // `http://` is no key, and a word in prose is none unless a value follows it.
    const k = this.trivia(j)
    const v = this.trivia(k + 1)
    const first = this.at(v)
    if (first === 47) return false
    return (
      first === -1 ||
      this.bareKeys > 0 ||
      quoteOf(first) !== undefined ||
      isDigit(first) ||
      first === 123 ||
      first === 91 ||
      first === 45 ||
      this.literalAt(v)
    )
  }

  /** 1 when a colon comes next, 0 when something else does, -1 at the end of the text. */
  protected colonAfter(i: number): 0 | 1 | -1 {
    const c = this.at(this.trivia(i))
    if (c === -1) return -1
    return c === colon || c === 61 ? 1 : 0
  }

  protected literalAt(i: number): boolean {
    const match = this.wordAt(i)
    return match !== "" && meaningOf(match) !== undefined
  }

  protected wordAt(i: number): string {
    let j = i
    const stop = Math.min(this.n, i + 32)
    while (j < stop && isWord(charCodeAt.call(this.text, j))) j++
    if (j >= this.n) this.starved = true
    return this.text.slice(i, j)
  }

  /** Does a number or a literal stand at `i`, with the end of a value behind it? */
  protected scalarAt(i: number): boolean {
    const word = this.wordAt(i)
    if (word === "" || meaningOf(word) === undefined) return false
    const d = this.at(this.trivia(i + word.length))
    return d === -1 || d === comma || d === 125 || d === 93
  }

  /** Can an item of an array begin at `i`? */
  protected itemAt(i: number): boolean {
    const c = this.at(i)
    if (c === -1) return true
    if (quoteOf(c) !== undefined || c === 123 || c === 91 || isDigit(c) || c === 45) return true
    if (c === backslash) return this.at(i + 1) === 34
    if (c === 46) return this.at(i + 1) === 46
    const word = this.wordAt(i)
    if (word === "") return false
    if (meaningOf(word) !== undefined) return true
    // One word that is an item by itself.
    const d = this.at(this.trivia(i + word.length))
    return d === -1 || d === comma || d === 93
  }

  /** One word that belongs to nothing, with a key in quotes behind it. */
  protected strayWordAt(i: number): boolean {
    const word = this.wordAt(i)
    if (word === "" || isDigit(unitAt(word, 0))) return false
    const next = this.trivia(i + word.length)
    return this.at(next) === 34 && this.keyAt(next, false)
  }

  /** Does a line begin at `i` with a word and a colon? */
  protected bareKeyOnNewLine(i: number): boolean {
    let j = i - 1
    while (j >= 0 && i - j < backReach && isSpace(unitAt(this.text, j)) && unitAt(this.text, j) !== newline) j--
    if (j < 0 || unitAt(this.text, j) !== newline || !beginsWord(this.at(i))) return false
    const word = this.wordAt(i)
    return this.colonAfter(i + word.length) === 1
  }

  protected beginsLine(i: number): boolean {
    let j = i - 1
    while (j >= 0 && i - j < backReach && (unitAt(this.text, j) === 32 || unitAt(this.text, j) === 9)) j--
    return j >= 0 && unitAt(this.text, j) === newline
  }
}
