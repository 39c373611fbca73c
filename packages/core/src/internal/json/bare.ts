/** Values without quotes: numbers, literals, calls, and strings that lack them. */
import {
  backslash,
  backtick,
  colon,
  comma,
  isDigit,
  isEscapedSpace,
  isSpace,
  isWord,
  newline,
  unitAt,
} from "./characters.ts"
import { isPlaceholder, meaningOf, meaningOfBeginning } from "./literals.ts"
import { Tree } from "./tree.ts"

/** For the longest loops: see `unitAt`. */
const { charCodeAt } = String.prototype

/** How long a string without quotes may be. */
const wordReach = 4096

/** Reads values without quotes. */
export abstract class Bare extends Tree {
  /** A whole number with a comma or a bracket behind it: the same as what follows gives, in fewer steps. */
  protected plainNumber(i: number): boolean {
    const { n, text } = this
    let j = i
    let value = 0
    let c = 0
    for (; j < n; j++) {
      c = charCodeAt.call(text, j)
      if (!isDigit(c)) break
      value = value * 10 + c - 48
    }
    if (j === i || j - i > 15 || j >= n || (j - i > 1 && charCodeAt.call(text, i) === 48)) return false
    if (c !== 125 && c !== 93) {
      if (c !== comma) return false
      let q = j + 1
      while (q < n && isSpace(charCodeAt.call(text, q))) q++
      // A comma may also be between thousands.
      if (q >= n || (!this.top.array && isDigit(charCodeAt.call(text, q)))) return false
    }
    this.top.comma = -1
    this.work += j - i
    this.i = j
    this.solid++
    this.put(value)
    this.settle()
    return true
  }

  /** A number, a literal, a call, or a string without quotes. */
  protected scalar(i: number): void {
    const { top: frame } = this
    const end = this.endOfWord(i)
    if (this.waits) return
    const cut = end >= this.n
    if (end < 0 || (cut && !this.ended)) return this.fail()
    const word = this.text.slice(i, end).trim()
    if (word === "") return this.fail()
    frame.comma = -1
    const unfinished = cut && this.around.finished !== true
    const meaning = meaningOf(word) ?? (unfinished ? meaningOfBeginning(word) : undefined)
    if (meaning !== undefined) {
      if (meaning.repair !== undefined) this.repair(meaning.repair, i)
      this.put(meaning.value)
      this.solid++
    } else if (cut && /^[+-]?\.?$/.test(word)) {
      // Nothing of the number is there yet.
      this.i = end
      return this.openEnd("text")
    } else {
      const string = this.wordOrCall(word, i)
      if (string === undefined) return this.fail()
      this.put(string)
    }
    this.i = end
    // The text ended right behind the number or the word, or inside of it.
    if (unfinished) {
      this.mode = "value"
      return this.openEnd("text")
    }
    this.settle()
  }

  /**
   * Where a word without quotes ends: before what may follow a value. One that
   * is the value of a key may hold commas and lines, as long as none of them
   * looks like the next key. -1 when it cannot be a value.
   */
  private endOfWord(i: number): number {
    const { n, text, top: frame } = this
    const stop = Math.min(n, i + wordReach)
    let quotes = 0
    let parens = 0
    let simple = true
    let firstLine = -1
    let signature = -1
    let j = i
    for (; j < stop; j++) {
      const c = charCodeAt.call(text, j)
      if ((c >= 97 && c <= 122) || (c >= 48 && c <= 57) || (c >= 65 && c <= 90)) continue
      if (c === 125 || c === 93) return this.wordEnd(i, j)
      if (c === comma) {
        if (parens > 0) continue
        if (frame.array) return this.wordEnd(i, j)
        const next = this.trivia(j + 1)
        const d = this.at(next)
        if (d === -1 || d === 125 || d === 93 || d === comma || this.keyAt(next)) return this.wordEnd(i, j)
        if (simple && !isDigit(d) && meaningOf(text.slice(i, j)) !== undefined) return this.wordEnd(i, j)
        continue
      }
      if (c === newline) {
        const next = this.trivia(j)
        const d = this.at(next)
        if (frame.array || d === -1 || d === 125 || d === 93 || d === comma || d === backtick || this.keyAt(next)) {
          return this.wordEnd(i, j)
        }
        if (simple && meaningOf(text.slice(i, j).trim()) !== undefined) return this.wordEnd(i, j)
        if (firstLine < 0) firstLine = j
        simple = false
        continue
      }
      if (c === 32 || c === 9) {
        // A number or a literal ends at a space when the next thing makes sense after it.
        if (simple && meaningOf(text.slice(i, j)) !== undefined) {
          const next = this.trivia(j)
          const d = this.at(next)
          if (d === -1 || d === comma || d === 125 || d === 93 || d === 41 || this.crossed) return this.wordEnd(i, j)
          if (d === 46 && this.at(next + 1) === 46) return this.wordEnd(i, j)
          if (frame.array ? this.itemAt(next) : this.keyAt(next, false) || this.strayWordAt(next))
            return this.wordEnd(i, j)
        }
        simple = false
        continue
      }
      if (c === 41) {
        if (parens === 0) return frame.close === 41 ? this.wordEnd(i, j) : firstLine
        parens--
        continue
      }
      if (c === 40) {
        parens++
        simple = false
        continue
      }
      if (c === 123) {
        // Brackets of prose, as in a template.
        if (simple && meaningOf(text.slice(i, j)) !== undefined) return this.wordEnd(i, j)
        const closing = frame.array ? -1 : this.proseBracket(j, 125)
        if (closing < 0) return firstLine
        j = closing
        continue
      }
      if (c === 91 && !frame.array && j > i && !isSpace(charCodeAt.call(text, j - 1))) {
        // A list type or a part of a route, as in `File[]` or `/post/[id]`.
        if (simple && meaningOf(text.slice(i, j)) !== undefined) return firstLine
        const closing = this.proseBracket(j, 93)
        if (closing < 0) return firstLine
        j = closing
        simple = false
        continue
      }
      if (c === 60 && !frame.array && j > i && isWord(charCodeAt.call(text, j - 1))) {
        // A type with an argument, as in `List<String>`.
        simple = false
        continue
      }
      if (c === 91 || c === 59 || c === 60) return firstLine
      if (c === 34 || c === 0x201c || c === 0x201d) {
        if (isSpace(charCodeAt.call(text, j - 1)) && !frame.array && this.keyAt(j, false)) return this.wordEnd(i, j)
        quotes++
        simple = false
        if (parens === 0 && quotes % 2 === 1 && this.endsWordWithQuote(j + 1)) return this.wordEnd(i, j + 1)
        continue
      }
      if (c === backslash && simple && isEscapedSpace(this.at(j + 1))) return this.wordEnd(i, j)
      if (c === backtick && text.startsWith("```", j)) return this.wordEnd(i, j)
      if (c === 47) {
        const d = this.at(j + 1)
        if (d === 42 && simple) return this.wordEnd(i, j)
        if (isSpace(charCodeAt.call(text, j - 1)) && (d === 47 || d === 42)) return this.wordEnd(i, j)
      }
      if (c === 35 && isSpace(charCodeAt.call(text, j - 1)) && this.at(j + 1) === 32) return this.wordEnd(i, j)
      if (c === colon && isSpace(this.at(j + 1))) {
        // A colon inside of a call's brackets or after them belongs to a signature, not to a key.
        if (frame.array || j === i) return firstLine
        if (parens === 0) {
          if (charCodeAt.call(text, j - 1) === 41) continue
          return firstLine
        }
        if (j > signature) signature = this.signatureEnd(j)
        if (signature < 0) return firstLine
      }
    }
    this.work += j - i
    if (j < n) return firstLine
    this.starved = true
    // The text ends inside of the word: what came after its first line was prose.
    return firstLine < 0 ? n : firstLine
  }

  private wordEnd(i: number, j: number): number {
    this.work += j - i
    return j
  }

  /** A quote at the end of a word whose first quote is missing: does the end of a value follow? */
  private endsWordWithQuote(k: number): boolean {
    const next = this.trivia(k)
    const { crossed } = this
    const d = this.at(next)
    if (d === -1 || d === 125 || d === 93) return true
    if (this.top.array) return d === comma
    if (d !== comma) return crossed && this.keyAt(next)
    const after = this.trivia(next + 1)
    return this.at(after) === 125 || this.keyAt(after)
  }

  /** The round bracket that closes what stands in a signature, on the same line. */
  private signatureEnd(j: number): number {
    const stop = Math.min(this.n, j + 256)
    for (let k = j + 1; k < stop; k++) {
      const c = unitAt(this.text, k)
      if (c === 41) return k
      if (c === newline || c === 34 || c === 40 || c === 91 || c === 93 || c === 123 || c === 125) return -1
    }
    if (stop === this.n) this.starved = true
    return -1
  }

  /** The bracket that closes a name in brackets, as in `hello {name}`. */
  private proseBracket(j: number, close: number): number {
    const stop = Math.min(this.n, j + 64)
    for (let k = j + 1; k < stop; k++) {
      const c = unitAt(this.text, k)
      if (c === close) return k
      if (!isWord(c) && c !== 32) return -1
    }
    if (stop === this.n) this.starved = true
    return -1
  }

  /** What a word is that stands for no other value; nothing when it is none. */
  private wordOrCall(word: string, i: number): unknown {
    const call = /^(?:new\s+)?[A-Za-z_$][\w$.]*\(\s*(?:"((?:[^"\\]|\\.)*)"|'([^'\\]*)'|(-?\d+(?:\.\d+)?))?\s*\)$/.exec(
      word,
    )
    if (call !== null) {
      const inner = call[1] ?? call[2] ?? (call[3] === undefined ? undefined : Number(call[3]))
      if (inner === undefined) return undefined
      this.repair("call", i)
      this.solid++
      return inner
    }
    const prefixed = /^[ubrfUBRF]{1,2}(?:'([^'\\]*)'|"([^"\\]*)")$/.exec(word)
    if (prefixed !== null) {
      this.repair("quote style", i)
      this.quoted++
      return prefixed[1] ?? prefixed[2]
    }
    if (isPlaceholder(word) || /^(?:\.{2,}|…)$| [<>|=&]{1,2} |^[\w$.]+\(/.test(word)) return undefined
    if ((word.split('"').length - 1) % 2 === 1) {
      if (!word.endsWith('"')) return undefined
      this.repair("missing quote", i)
      this.solid++
      return word.slice(0, -1)
    }
    this.repair("unquoted value", i)
    return word
  }
}
