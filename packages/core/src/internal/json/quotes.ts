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

  protected abstract fits(i: number, frame: number): boolean

  /** What the quote in front of `k` is. */
  protected judge(k: number): Verdict {
    const { array } = this.top
    const p = this.trivia(k)
    const { crossed } = this
    const c = this.at(p)
    if (c === -1) return "close"
    if (this.isKey) return this.judgeKey(k, p, c)
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

  /** A quote and a comma end a string when a key or an item follows at `q`. */
  private judgeComma(q: number): Verdict {
    const d = this.at(q)
    if (d === -1 || d === 125 || d === comma || d === 46 || d === backtick) return "close"
    if (this.top.array) return d === 93 || d === 41 || this.itemAt(q) ? "close" : "content"
    return d === 123 || this.keyAt(q) || this.strayWordAt(q) ? "close" : "content"
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
