/**
 * Which quote ends a string, and which was only written inside of it.
 *
 * A quote ends a string when what follows it is what should follow a string at
 * that place, and what follows that makes sense as well. A quote that turns out
 * to be the beginning of the next string means that the end of this one is
 * missing.
 */
import { keyReach } from "./ahead.ts"
import { Bare } from "./bare.ts"
import { backslash, backtick, colon, comma, newline, type Quote, quoteOf, unitAt } from "./characters.ts"

/** What a quote is: a part of the string, its end, or the end of one that began inside of it. */
export type Verdict = "content" | "close" | "split"

export const doubleQuote = quoteOf(34)!

/** Judges quotes inside of the string that is being read. */
export abstract class Quotes extends Bare {
  protected quote: Quote = doubleQuote
  /** Whether its quotes are escaped themselves. */
  protected escaped = false
  protected isKey = false
  /** What was read of it, up to the local place `mark`. */
  protected read = ""
  protected mark = 0
  /** How many quotes in it were taken for content. */
  protected inner = 0
  /** Where the last of them is. */
  protected innerAt = -1
  /** How long the string was before a comma or a line end in front of that one; -1 when there is neither. */
  protected innerCut = -1

  /** Brackets that opened inside of the string and did not close, from its first quote that was taken for content on. */
  protected innerSquare = 0
  protected innerCurly = 0
  /** Where the content of the string begins. */
  protected start = 0
  /** For the string that begins there: up to where brackets ahead were counted, and what was found. */
  private aheadInner = -1
  private aheadTo = -1
  private aheadCurly = 0
  private aheadSquare = 0
  private aheadClosed = false
  private aheadEnds = false

  protected abstract fits(i: number, frame: number): boolean

  /** What the quote in front of `k` is. */
  protected judge(k: number): Verdict {
    const { array } = this.top
    const p = this.trivia(k)
    const { crossed } = this
    const c = this.at(p)
    if (c === -1) return "close"
    if (this.isKey) return this.judgeKey(k, p, c)
    if (this.inner > 0 && (this.innerCurly > 0 || this.innerSquare > 0)) {
      this.countInner(k)
      const inside =
        (c === 125 && this.innerCurly > 0) ||
        (c === 93 && this.innerSquare > 0) ||
        (c === colon && this.innerCurly > 0) ||
        (c === comma && (this.innerCurly > 0 || this.innerSquare > 0))
      // Inside of brackets that are part of the string, with quotes of their own.
      if (inside && this.closesInside(p)) return "content"
      if (this.waits) return "content"
    }
    if (c === comma) return this.judgeComma(this.trivia(p + 1))
    if (c === 125 || c === 93 || c === 41) return this.judgeBracket(p, c)
    if (c === colon) {
      if (array) return this.inner === 0 ? "close" : "content"
      return this.innerCut >= 0 && this.innerAt >= this.base ? "split" : "content"
    }
    if (c === 43 /* + */) return quoteOf(this.at(this.trivia(p + 1))) === undefined ? "content" : "close"
    if (c === backtick && this.at(p + 1) === backtick) return "close"
    if (c === backslash && this.escaped) {
      const d = this.at(p + 1)
      return d === 34 || d === 110 ? "close" : "content"
    }
    const opens = quoteOf(c) !== undefined
    if (!array) return (opens || crossed) && this.keyAt(p, false) ? "close" : "content"
    // Another item without a comma, unless this quote ends a pair inside of the string.
    if (opens) return this.inner === 0 || (this.inner % 2 === 0 && (crossed || p > k)) ? "close" : "content"
    return (crossed && (c === 123 || c === 91)) || (p > k && this.scalarAt(p)) ? "close" : "content"
  }

  /** Do the brackets that opened inside of the string close ahead, with the end of the string behind them? */
  private closesInside(from: number): boolean {
    const { base } = this
    const stop = Math.min(this.n, from + keyReach)
    // What was counted for a quote before this one need not be counted again.
    const known = this.aheadInner === this.start && this.aheadTo >= base + from
    if (known && this.aheadClosed) return this.aheadEnds
    if (!known) {
      this.aheadInner = this.start
      this.aheadTo = base + from
      this.aheadCurly = this.innerCurly
      this.aheadSquare = this.innerSquare
    }
    this.aheadClosed = false
    let j = this.aheadTo - base
    this.work += Math.max(0, stop - j)
    for (; j < stop; j++) {
      const c = unitAt(this.text, j)
      if (c === 123) this.aheadCurly++
      else if (c === 91) this.aheadSquare++
      else if (c === 125) this.aheadCurly--
      else if (c === 93) this.aheadSquare--
      else continue
      if (this.aheadCurly > 0 || this.aheadSquare > 0) continue
      this.aheadTo = base + j
      this.aheadEnds = this.endsBehind(j + 1, j > from)
      this.aheadClosed = !this.waits
      return this.aheadEnds
    }
    this.aheadTo = base + j
    if (stop < this.n) return true
    this.starved = true
    return false
  }

  /** Does a quote in the rest of this line end the string? When it is far, brackets before it tell that it is another one's. */
  private endsBehind(from: number, far: boolean): boolean {
    const stop = Math.min(this.n, from + keyReach)
    for (let j = from; j < stop; j++) {
      const c = unitAt(this.text, j)
      if (c === newline || (far && (c === 123 || c === 91))) return false
      if (c !== this.quote.close) continue
      this.work += j - from
      const next = this.trivia(j + 1)
      const d = this.at(next)
      if (d === -1 || d === 125 || d === 93) return true
      if (d !== comma) continue
      const after = this.trivia(next + 1)
      if (this.top.array ? this.itemAt(after) : this.keyAt(after)) return true
    }
    this.work += stop - from
    if (stop === this.n) this.starved = true
    return false
  }

  /** Counts brackets of the string up to the quote in front of `k`. */
  protected abstract countInner(k: number): void

  /** A quote and a comma end a string when a key or an item follows at `q`. */
  private judgeComma(q: number): Verdict {
    const d = this.at(q)
    if (d === -1 || d === 125 || d === comma || d === 46 || d === backtick) return "close"
    if (this.top.array) return d === 93 || d === 41 || this.itemAt(q) || this.halfQuoted(q) ? "close" : "content"
    return d === 123 || this.keyAt(q) || this.strayWordAt(q) || this.keyWithoutColon(q) ? "close" : "content"
  }

  /** `, b", `: one quote is missing at the beginning of an item, which is likelier than one too many in this string. */
  private halfQuoted(q: number): boolean {
    if (this.inner > 0) return false
    const word = this.wordAt(q)
    if (word === "" || this.at(q + word.length) !== 34) return false
    const next = this.trivia(q + word.length + 1)
    const d = this.at(next)
    if (d === 93) return true
    const item = d === comma ? this.trivia(next + 1) : -1
    return item >= 0 && (this.itemAt(item) || this.halfQuotedAt(item))
  }

  private halfQuotedAt(q: number): boolean {
    const word = this.wordAt(q)
    return word !== "" && this.at(q + word.length) === 34
  }

  /** `"key" value` and the end of it: one missing colon is likelier than several quotes inside of this string. */
  private keyWithoutColon(q: number): boolean {
    if (this.inner > 0 || this.at(q) !== 34) return false
    const end = this.plainQuoted(q)
    if (end < 0 || end - q > 66) return false
    const v = this.trivia(end)
    if (v === end) return false
    const d = this.at(v)
    if (d === 123 || d === 91) return true
    if (d !== 34) return d !== -1 && this.scalarAt(v)
    const close = this.plainQuoted(v)
    if (close < 0) return false
    const e = this.trivia(close)
    const f = this.at(e)
    return f === 125 || (f === comma && (this.keyAt(this.trivia(e + 1), false) || this.at(this.trivia(e + 1)) === 34))
  }

  /** Behind the string in quotes at `q`, if it is a short one of one line; or -1. */
  private plainQuoted(q: number): number {
    const stop = Math.min(this.n, q + keyReach)
    for (let j = q + 1; j < stop; j++) {
      const c = unitAt(this.text, j)
      if (c === 34) {
        this.work += j - q
        return j + 1
      }
      if (c === newline || c === backslash) return -1
    }
    this.work += stop - q
    if (stop === this.n) this.starved = true
    return -1
  }

  private judgeKey(k: number, p: number, c: number): Verdict {
    if (c === colon || c === 61) return "close"
    if (c === 125 || (c === comma && this.top.count === 0)) return "close"
    if (c === comma) return "content"
    // The colon is missing, or the closing quote of the key is.
    if (quoteOf(c) !== undefined && p > k) return "close"
    if (c === 123 || c === 91 || this.scalarAt(p)) return "close"
    const before = this.text.slice(Math.max(this.mark, k - 4), k - 1)
    return before.trimEnd().endsWith(":") ? "split" : "content"
  }

  /** A quote before a closing bracket ends the string if what follows the bracket makes sense. */
  private judgeBracket(p: number, c: number): Verdict {
    const { length } = this.frames
    const matching = this.matching(c)
    const next = this.trivia(p + 1)
    if (matching < 0) {
      return c !== 41 && (this.fits(next, length - 2) || this.fits(next, length - 1)) ? "close" : "content"
    }
    if (matching === 0) return !this.crossed && this.restHoldsTheEnd(next) ? "content" : "close"
    if (this.fits(next, matching - 1) || this.fits(next, length - 2) || this.fits(next, length - 1)) return "close"
    const d = this.at(next)
    return d === 125 || d === 93 ? "close" : "content"
  }

  /**
   * When everything closed: does the rest of the line hold another end of this string? While text comes in, the rest of
   * the line that is there has to do: a value that is whole is not held back for it.
   */
  private restHoldsTheEnd(from: number): boolean {
    const stop = Math.min(this.n, from + keyReach)
    const { close } = this.quote
    let j = from
    for (; j < stop; j++) {
      const c = unitAt(this.text, j)
      if (c === newline || c === 123 || c === 91) break
      if (c !== close) continue
      this.work += j - from
      const next = this.trivia(j + 1)
      const d = this.at(next)
      return d === 125 || d === 93 || (d === comma && this.keyAt(this.trivia(next + 1), false))
    }
    this.work += j - from
    return false
  }
}
