/**
 * Strings: from their first quote to their last, wherever that is.
 *
 * What a quote on the way is, `Quotes` judges. Here is what becomes of it: the
 * end of the string, a part of it, or, when it turns out that an end was
 * missed, an end further back.
 */
import { backReach, keyReach } from "./ahead.ts"
import { backslash, backtick, beginsWord, colon, comma, isSpace, newline, type Quote, unitAt } from "./characters.ts"
import {
  holdsForeignBrackets,
  swallowedKey,
  swallowedMember,
  withoutHalf,
  withoutLooseEnd,
  withoutStrayQuote,
} from "./content.ts"
import { doubleQuote, Quotes } from "./quotes.ts"
import { textBlock } from "./textBlock.ts"

/** For the longest loops: see `unitAt`. */
const { charCodeAt } = String.prototype

/** How often a string that never ends may be cut at a place that looks like its end. */
const maxRetries = 8

/** Reads strings. */
export abstract class Strings extends Quotes {
  /** How many units of quote it began with, and must end with. */
  private quoteWidth = 1
  /** What it is to be joined to. */
  private joined: string | undefined
  /** Whether its beginning is in the tree already. */
  private shown = false

  /** From where on the content is the text as it stands, without escapes. */
  private plainFrom = 0
  private rawControl = false
  /** The unit that the last escape stood for, while nothing follows it. */
  private lastEscaped = -1

  /** How long the string was before the last quote that was taken for content, and what is around that quote. */
  private innerLength = 0
  /** How far brackets inside of the string were counted. */
  private countedTo = 0
  private innerComma = false
  private innerBetweenWords = false
  /** Where the comma is before a key without quotes in front of it, and how long the string was up to there. */
  private memberAt = -1
  private memberCut = -1
  /** The first of those quotes that a line end follows. */
  private retryAt = -1
  private retryLength = 0
  private retryRepairs = 0
  private retries = 0

  /**
   * A string without anything unusual in it or behind it, at `i`: the same as what follows gives, in fewer steps. False
   * when it is not of that kind.
   */
  protected plainString(i: number, quote: number, isKey: boolean): boolean {
    const { n, text } = this
    let j = i + 1
    if (isKey && this.keyFrom === this.base + i) {
      j = this.keyTo - this.base
    } else {
      let c = 0
      while (j < n) {
        c = charCodeAt.call(text, j)
        if (c === quote || c < 32 || c === backslash) break
        j++
      }
      if (c !== quote || j >= n || j === i + 1) return false
      if (isKey ? j + 1 >= n || charCodeAt.call(text, j + 1) !== colon : !this.plainEnd(j + 1)) return false
    }
    if (quote !== 34) this.repair("quote style", i)
    this.top.comma = -1
    this.inner = 0
    this.quoted++
    this.work += j - i
    this.i = j + 1
    const content = text.slice(i + 1, j)
    if (!isKey) {
      this.put(content)
      this.settle()
      return true
    }
    this.top.key = content
    if (j + 1 < n && charCodeAt.call(text, j + 1) === colon) {
      this.i++
      this.mode = "value"
    } else {
      this.mode = "colon"
    }
    return true
  }

  /** Do a comma and the next member or item follow at `k`? */
  private plainEnd(k: number): boolean {
    const { n, text } = this
    if (k >= n || charCodeAt.call(text, k) !== comma) return false
    let q = k + 1
    while (q < n && isSpace(charCodeAt.call(text, q))) q++
    if (q >= n) return false
    const next = this.top.array ? this.itemAt(q) : this.keyAt(q, false)
    const certain = !this.waits
    // When more text has to tell, the string is read in the long way.
    this.starved = false
    return next && certain
  }

  /** A string begins at `i`. */
  protected openString(i: number, quote: Quote, isKey: boolean, joined?: string): void {
    let width = 1
    if (quote.close === 34 || quote.close === 39 || quote.close === backtick) {
      const q = unitAt(this.text, i)
      const second = this.at(i + 1)
      const third = second === q ? this.at(i + 2) : -2
      if (this.waits) return
      if (third === q) width = 3
      else if (second === q && this.doubled(i, q, third)) width = 2
      if (this.waits) return
      if (width === 3 && q === backtick) {
        if (this.isEmpty) return this.fail()
        // In a fence, three backticks at the beginning of a line are its end.
        if (this.around.fenced && this.beginsLine(i)) return this.openEnd("boundary")
      }
    }
    if (width === 2) this.repair("doubled quote", i)
    else if (!quote.proper || width === 3) this.repair("quote style", i)
    this.begin(i + width, quote, width, false, isKey, joined)
  }

  /** A string begins at `i` with an escaped quote. */
  protected openEscaped(i: number, isKey: boolean): void {
    if (this.waits) return
    this.repair("escaped quote", i)
    this.begin(i + 2, doubleQuote, 1, true, isKey, undefined)
  }

  /** Does a string that begins with two quotes end with two as well? Otherwise it is empty, or begins with a quote. */
  private doubled(i: number, q: number, third: number): boolean {
    if (third === -1 || third === comma || third === colon || third === 125 || third === 93) return false
    if (isSpace(third)) return false
    const stop = Math.min(this.n, i + keyReach)
    for (let j = i + 2; j < stop; j++) {
      const c = unitAt(this.text, j)
      if (c === newline) return false
      if (c === q) {
        this.work += j - i
        return this.at(j + 1) === q
      }
    }
    if (stop === this.n) this.starved = true
    return false
  }

  private begin(
    i: number,
    quote: Quote,
    width: number,
    escaped: boolean,
    isKey: boolean,
    joined: string | undefined,
  ): void {
    this.top.comma = -1
    this.quote = quote
    this.quoteWidth = width
    this.escaped = escaped
    this.isKey = isKey
    this.joined = joined
    this.shown = joined !== undefined
    this.start = this.base + i
    this.plainFrom = this.start
    this.lastEscaped = -1
    this.read = ""
    this.rawControl = false
    this.inner = 0
    this.innerCurly = 0
    this.innerSquare = 0
    this.innerAt = -1
    this.innerComma = false
    this.innerCut = -1
    this.memberAt = -1
    this.retryAt = -1
    this.mark = i
    this.i = i
    this.mode = "string"
  }

  /** Inside a string. */
  protected string(): void {
    const { escaped, n, text } = this
    const { also, alsoToo, close } = this.quote
    let i = this.i
    for (;;) {
      let c = 0
      while (i < n) {
        c = charCodeAt.call(text, i)
        if (c === close || c === backslash || c < 32 || c === also || c === alsoToo) break
        i++
      }
      this.i = i
      if (i >= n) {
        this.starved = true
        return this.ended ? this.endOfText() : undefined
      }
      if (c < 32) {
        if (!this.rawControl) this.repair("raw control character", i)
        this.rawControl = true
        i++
      } else if (c === backslash) {
        if (!(escaped && this.at(i + 1) === 34)) {
          if (this.waits) return
          const width = this.escape(i)
          if (width === 0) return
          i += width
          this.mark = i
          this.plainFrom = this.base + i
        } else {
          if (this.quoteAt(i, 2) || this.waits) return
          i += 2
        }
      } else if (escaped) {
        i++
      } else if (this.quoteWidth > 1) {
        const run = this.runOf(c, i)
        if (this.waits) return
        if (run >= this.quoteWidth) return this.endWide(i + run - this.quoteWidth, c)
        i += run
      } else {
        if (this.quoteAt(i, 1) || this.waits) return
        i++
      }
    }
  }

  /** How many of this unit stand at `i`, counted up to one more than are needed. */
  private runOf(c: number, i: number): number {
    let run = 1
    while (run <= this.quoteWidth && this.at(i + run) === c) run++
    return run
  }

  /** The end of a string in double or triple quotes. */
  private endWide(i: number, c: number): void {
    const content = this.content(i)
    this.i = i + this.quoteWidth
    this.finish(this.quoteWidth === 3 ? textBlock(content, c === backtick) : content)
  }

  /** A quote of this width at `i`. True when the string ended; otherwise it is content. */
  private quoteAt(i: number, width: number): boolean {
    const verdict = this.judge(i + width)
    if (this.waits) return false
    if (verdict === "split") {
      this.split()
      return true
    }
    if (verdict === "content") {
      if (this.isKey && this.shortenKey(i)) return true
      this.noteInner(i, width)
      return false
    }
    if (this.inner === 1 && !this.isKey && this.oddQuote(i, width)) return true
    if (this.inner > 0 && holdsForeignBrackets(this.content(i))) this.fail()
    else this.endAt(i, i + width)
    return true
  }

  /** A quote that is taken for content: what may still become of it. */
  private noteInner(i: number, width: number): void {
    const { base, text } = this
    if (this.inner === 0) {
      this.countBrackets(this.content(i))
      this.countedTo = base + i
    } else this.countInner(i)
    this.inner++
    this.repair("unescaped quote", i)
    const floor = Math.max(this.plainFrom - base, i - backReach, 0)
    let j = i - 1
    let line = false
    while (j >= floor && isSpace(unitAt(text, j))) {
      if (unitAt(text, j) === newline) line = true
      j--
    }
    const before = j >= floor ? unitAt(text, j) : -1
    this.innerAt = base + i
    this.innerLength = this.lengthAt(i)
    this.innerComma = before === comma
    this.innerBetweenWords =
      j === i - 1 &&
      /[A-Za-z]\w*$/.test(text.slice(Math.max(floor, i - 16), i)) &&
      /^ [A-Za-z]/.test(text.slice(i + 1, i + 3))
    this.innerCut = before === comma ? this.lengthAt(j) : line ? this.lengthAt(j + 1) : -1
    this.memberAt = -1
    if (before === colon && !this.isKey) {
      const member = /,\s{0,9}[A-Za-z_$][\w$-]{0,63}\s{0,9}:$/.exec(text.slice(Math.max(floor, j - 80), j + 1))
      if (member !== null) {
        const at = j + 1 - member[0].length
        this.memberAt = base + at
        this.memberCut = this.lengthAt(at)
      }
    }
    if (this.retryAt < 0) {
      this.trivia(i + width)
      this.starved = false
      if (this.crossed) {
        this.retryAt = base + i
        this.retryLength = this.lengthAt(i)
        this.retryRepairs = this.repairs.length - 1
      }
    }
    if (width === 2) {
      this.read = this.content(i)
      this.mark = i + 1
      this.plainFrom = base + i + 1
    }
    this.i = i + width
  }

  protected countInner(k: number): void {
    const from = this.countedTo - this.base
    if (k <= from) return
    this.countBrackets(this.text.slice(from, k))
    this.countedTo = this.base + k
  }

  private countBrackets(content: string): void {
    for (let i = 0; i < content.length; i++) {
      const c = unitAt(content, i)
      if (c === 123) this.innerCurly++
      else if (c === 91) this.innerSquare++
      else if (c === 125) this.innerCurly = Math.max(0, this.innerCurly - 1)
      else if (c === 93) this.innerSquare = Math.max(0, this.innerSquare - 1)
    }
    this.work += content.length
  }

  /** How long the string is up to the local place `i`, which is in its plain part. */
  private lengthAt(i: number): number {
    return this.read.length + i - this.mark
  }

  private content(i: number): string {
    return this.mark === i ? this.read : this.read + this.text.slice(this.mark, i)
  }

  // -------------------------------------------------------------------------
  // How a string ends
  // -------------------------------------------------------------------------

  /** It ends before `i`; reading goes on at `next`. */
  private endAt(i: number, next: number): void {
    const content = this.content(i)
    this.i = next
    this.finish(content)
  }

  private finish(content: string): void {
    this.quoted++
    if (this.isKey) {
      this.top.key = content
      this.mode = "colon"
      return
    }
    this.place(content)
    this.settle()
  }

  private place(content: string): void {
    const value = this.joined === undefined ? content : this.joined + content
    if (this.shown) this.replace(value)
    else this.put(value)
    this.shown = true
  }

  /** Puts into the tree what there is of the string that is being read. */
  protected showString(): void {
    if (this.mode !== "string" || this.isKey) return
    // The first half of a character is held back. Looking at the text, and never at what was read, keeps that a rope.
    const { i, mark } = this
    const last = i > mark ? unitAt(this.text, i - 1) : this.lastEscaped
    const half = last >= 0xd800 && last < 0xdc00
    if (half && i === mark) return
    this.place(this.content(half ? i - 1 : i))
  }

  /** Whether the string that is being read is in the tree. */
  protected get showsString(): boolean {
    return this.mode === "string" && this.shown
  }

  /** The last quote that was taken for content was the beginning of the next string: this one ended before it. */
  private split(): void {
    const content = this.content(this.i)
    if (this.isKey) {
      // `"key:"value"`: the colon is inside.
      this.repair("missing quote", this.i)
      this.finish(content.slice(0, content.lastIndexOf(":")).trimEnd())
      this.mode = "value"
      return
    }
    this.dropRepairsFrom(this.innerAt)
    const at = this.innerAt - this.base
    this.repair("missing quote", at)
    this.i = at
    this.finish(withoutStrayQuote(content.slice(0, this.innerCut)))
    if (this.innerComma) this.top.comma = at
    else this.repair("missing comma", at)
    this.mode = this.top.array ? "item" : "key"
  }

  private dropRepairsFrom(position: number): void {
    const { repairs } = this
    while (repairs.length > 0 && repairs[repairs.length - 1]!.position >= position) repairs.pop()
  }

  /** One quote inside of a string is half of a pair: where it tells what it is, the string does not end at `i`. */
  private oddQuote(i: number, width: number): boolean {
    if (this.top.array && this.innerComma && this.innerAt >= this.base) {
      this.split()
      return true
    }
    if (this.top.array && this.innerBetweenWords && this.innerAt >= this.base) {
      // `["one" two", "three"]`: two items, the second without its first quote.
      const content = this.content(i)
      const first = content.slice(0, this.innerLength)
      this.dropRepairsFrom(this.innerAt)
      this.repair("missing comma", this.innerAt - this.base + 1)
      this.repair("missing quote", this.innerAt - this.base + 1)
      this.i = i + width
      this.finish(first)
      this.put(content.slice(first.length + 1).trimStart())
      this.settle()
      return true
    }
    if (this.memberAt >= this.base) {
      // `"first, b: "second"`: a key without quotes stands in front of it.
      const content = this.content(i).slice(0, this.memberCut)
      this.dropRepairsFrom(this.memberAt)
      this.i = this.memberAt - this.base
      this.repair("missing quote", this.i)
      this.finish(content)
      return true
    }
    if (this.innerAt === this.start) {
      this.dropRepairsFrom(this.innerAt)
      this.repair("doubled quote", this.innerAt - this.base)
      const content = this.content(i).slice(1)
      this.i = i + width
      this.finish(content)
      return true
    }
    return false
  }

  /** Whether the content is the text as it stands, so that places in it are places in the text. */
  private get isPlain(): boolean {
    return this.plainFrom === this.start
  }

  /** `{"a: 1, "b": 2}`: the key was not closed. One that holds quotes and punctuation, or is long, is none. */
  private shortenKey(i: number): boolean {
    const content = this.content(i)
    if (content.length <= keyReach && !/[:,{}[\]]/.test(content)) return false
    this.closeKey(content)
    return true
  }

  private closeKey(content: string): void {
    const name = this.isPlain && this.start >= this.base ? /^[\w$-]{1,64}(?=\s{0,9}:)/.exec(content)?.[0] : undefined
    if (name === undefined) return this.fail()
    this.i = this.start - this.base + name.length
    this.repair("missing quote", this.i)
    this.finish(name)
  }

  /** The text ended inside a string. */
  private endOfText(): void {
    const { around, n } = this
    const retry = this.retries < maxRetries
    if (retry && this.retryAt >= 0) {
      // A quote that was followed by a line end was its end after all.
      this.retries++
      this.repairs.length = this.retryRepairs
      this.i = this.retryAt - this.base + 1
      return this.finish(this.content(n).slice(0, this.retryLength))
    }
    let content = this.content(n)
    if (around.fenced) {
      const fence = content.lastIndexOf("\n```")
      if (fence >= 0) content = content.slice(0, fence)
    }
    // Do all the closing brackets stand at the end? Then only the quote is missing.
    const inside = around.finished === false ? -1 : this.beforeClosers(content)
    if (inside >= 0) return this.closeUnquoted(content.slice(0, inside), retry)
    if (this.isKey) {
      this.mode = "key"
      return this.openEnd("text")
    }
    if (swallowedKey.test(content)) return this.fail()
    content = withoutHalf(content)
    if (around.finished === true) {
      this.repair("missing quote", n)
      this.finish(content)
    } else {
      this.finish(content)
      this.mode = "value"
    }
    return this.openEnd("text")
  }

  /** Where in the content of a string the brackets begin that close everything; -1 when they are not all there. */
  private beforeClosers(content: string): number {
    let at = content.trimEnd().length
    if (content.startsWith("```", at - 3)) at -= 3
    for (const { close } of this.frames) {
      at = content.slice(0, at).trimEnd().length - 1
      if (unitAt(content, at) !== close) return -1
    }
    return at
  }

  /** The string `inside` was not closed, but everything else is behind it. */
  private closeUnquoted(inside: string, retry: boolean): void {
    const { frames, inner, n, start } = this
    const plain = retry && this.isPlain
    this.retries++
    if (this.isKey) return this.closeKey(inside)
    const before = plain && inner === 1 ? inside.slice(0, this.innerAt - start) : ""
    if (before !== "" && /\S$/.test(before)) {
      const junk = inside.slice(before.length)
      if ((this.top.array ? /^"[ ,][^"\n]{0,80}$/ : /^" [^"\n]{0,80}$/).test(junk)) {
        // The quote was the end, and what follows it is stray.
        this.repairs.pop()
        this.i = start - this.base + before.length + 1
        return this.finish(before)
      }
    }
    if (inner % 2 === 1 || swallowedKey.test(inside)) return this.fail()
    const next = !plain ? -1 : this.top.array ? inside.indexOf(",") : inside.search(swallowedMember)
    this.repair("missing quote", next < 0 ? n : start - this.base + next)
    if (next >= 0) {
      // Items or members went on behind it.
      this.i = start - this.base + next
      return this.finish(inside.slice(0, next))
    }
    this.i = n
    this.finish(withoutStrayQuote(withoutLooseEnd(inside)))
    for (const frame of frames) if (frame.comma >= 0) this.repair("trailing comma", frame.comma)
    this.end = "closed"
  }

  // -------------------------------------------------------------------------
  // Escapes
  // -------------------------------------------------------------------------

  /** An escape at `i`: appends what it stands for and gives its width; 0 when it cannot be told yet. */
  private escape(i: number): number {
    const { text } = this
    let at = i + 1
    if (this.escaped && this.at(at) === backslash) {
      // One level of escapes around the value: `\\n` is a line end, `\\\"` a quote.
      at++
      if (this.at(at) === backslash && this.at(at + 1) === 34) at++
    }
    const c = this.at(at)
    const code = c === 117 ? this.hexadecimal(at + 1) : -1
    if (this.waits) return 0
    this.read = this.content(i)
    if (c === -1) return at - i
    const simple = escapes.get(c)
    if (simple !== undefined) {
      this.read += simple
      return at + 1 - i
    }
    this.lastEscaped = code
    if (code >= 0) {
      this.read += String.fromCharCode(code)
      return at + 5 - i
    }
    // The text ended inside of it.
    if (c === 117 && /^[\dA-Fa-f]{0,3}$/.test(text.slice(at + 1, Math.min(at + 5, this.n))) && at + 5 > this.n)
      return this.n - i
    this.repair("invalid escape", i)
    if (c === 39 || c === backtick || (c > 127 && !beginsWord(c))) {
      this.read += String.fromCharCode(c)
      return at + 1 - i
    }
    this.read += "\\"
    return 1
  }

  /** Four hexadecimal digits, or -1. */
  private hexadecimal(from: number): number {
    let code = 0
    for (let j = from; j < from + 4; j++) {
      const digit = Number.parseInt(String.fromCharCode(this.at(j)), 16)
      if (Number.isNaN(digit)) return -1
      code = code * 16 + digit
    }
    return code
  }

  // -------------------------------------------------------------------------
  // More text
  // -------------------------------------------------------------------------

  /** Takes more text, and forgets what is too far back to be looked at again. */
  protected extend(delta: string): void {
    if (this.mode === "string") {
      const { i } = this
      if (this.inner > 0) this.countInner(i)
      // Half of a character stays with the text that follows it.
      const to = i > this.mark && (unitAt(this.text, i - 1) & 0xfc00) === 0xd800 ? i - 1 : i
      this.read = this.content(to)
      this.mark = to
    }
    const drop = Math.max(0, this.i - 2 * keyReach)
    this.mark -= drop
    this.slide(drop, delta)
  }
}

const escapes: ReadonlyMap<number, string> = new Map([
  [34, '"'],
  [92, "\\"],
  [47, "/"],
  [98, "\b"],
  [102, "\f"],
  [110, "\n"],
  [114, "\r"],
  [116, "\t"],
])
