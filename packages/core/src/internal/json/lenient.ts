/**
 * A lenient parser of one JSON object or array: text in, a value out, with a
 * list of what was repaired.
 *
 * A machine with a stack of its own and no recursion. It reads forward only:
 * where a slip has two readings, it looks ahead, never further than a fixed
 * reach, so its work grows with the text and with nothing else. Text may come
 * in pieces: where the reach goes beyond what is there, the machine waits.
 *
 * What is read where: `Ahead` looks, `Tree` holds the value, `Bare` and
 * `Strings` read values without and with quotes, and here is what stands
 * between them.
 */
import { keyReach } from "./ahead.ts"
import {
  backslash,
  backtick,
  beginsWord,
  colon,
  comma,
  isDigit,
  isEscapedSpace,
  isSpace,
  isSpecialSpace,
  isWord,
  newline,
  quoteOf,
  unitAt,
} from "./characters.ts"
import { Strings } from "./strings.ts"
import type { Mode, Path } from "./tree.ts"

/** For the longest loops: see `unitAt`. */
const { charCodeAt } = String.prototype

/** How long text may be that belongs to nothing and is passed over. */
const strayReach = 80

/** How much text is kept for a decision that depends on what comes after it. */
const maxWait = 1024

/** The parser of one value. */
export class Lenient extends Strings {
  /** Path of the node that was not finished, when it ended open. */
  openPath: Path | undefined

  private modeAfterComment: Mode = "value"
  private afterEllipsis = false

  /** Reads until the end; `limit` is where the text ends that may belong to the value. */
  complete(limit: number): void {
    this.n = Math.min(limit - this.base, this.text.length)
    this.ended = true
    this.run()
  }

  /** Takes more text, and reads as far as can be decided. */
  feed(delta: string): void {
    this.extend(delta)
    this.run()
  }

  private run(): void {
    const { maxWork } = this.around
    while (this.end === undefined) {
      this.starved = false
      const before = this.i
      this.step()
      this.work += Math.max(1, this.i - before)
      if (this.waits) {
        if (this.n - this.i < maxWait) return
        // However much more text comes, it is not kept for one decision.
        const { i, mode } = this
        this.impatient = true
        this.step()
        this.impatient = false
        if (this.i === i && this.mode === mode) this.end ??= "failed"
      }
      if (this.work > maxWork) this.end = "spent"
    }
  }

  private step(): void {
    switch (this.mode) {
      case "string":
        return this.string()
      case "line comment":
        return this.lineComment()
      case "block comment":
        return this.blockComment()
      default:
    }
    const c = this.skip()
    if (c === -2) return
    switch (this.mode) {
      case "key":
        return this.key(c)
      case "colon":
        return this.colon(c)
      case "after":
        return this.after(c)
      default:
        return this.value(c)
    }
  }

  // -------------------------------------------------------------------------
  // Space and comments
  // -------------------------------------------------------------------------

  /** Skips space; begins a comment. Gives the unit that is there, -1 at the end of the text, -2 when a step was made. */
  private skip(): number {
    const { n, text } = this
    let i = this.i
    for (;;) {
      if (i >= n) {
        this.i = i
        this.starved = true
        return this.ended ? -1 : -2
      }
      const c = charCodeAt.call(text, i)
      if (isSpace(c)) {
        i++
      } else if (c > 126 || c === 11 || c === 12) {
        if (!isSpecialSpace(c)) break
        this.repair("special whitespace", i)
        i++
        this.i = i
      } else if (c === 47 || c === 35 || c === 60) {
        this.i = i
        const mode = this.commentAt(i)
        if (this.waits) return -2
        if (mode === undefined) break
        this.repair("comment", i)
        this.modeAfterComment = this.mode
        this.mode = mode
        this.i = i + (mode === "line comment" ? 1 : 2)
        return -2
      } else if (c === backslash) {
        // A line end that was escaped although it is outside of any string.
        this.i = i
        const escaped = isEscapedSpace(this.at(i + 1))
        if (this.waits) return -2
        if (!escaped) break
        this.repair("stray text", i)
        i += 2
        this.i = i
      } else {
        break
      }
    }
    this.i = i
    return charCodeAt.call(text, i)
  }

  private commentAt(i: number): "line comment" | "block comment" | undefined {
    const c = unitAt(this.text, i)
    if (c === 35) return "line comment"
    const d = this.at(i + 1)
    if (c === 47) return d === 47 ? "line comment" : d === 42 ? "block comment" : undefined
    return d === 33 && this.at(i + 2) === 45 && this.at(i + 3) === 45 ? "block comment" : undefined
  }

  private lineComment(): void {
    const { n, text } = this
    let i = this.i
    while (i < n && unitAt(text, i) !== newline) i++
    if (i >= n && this.ended) {
      // A text of one line: the comment cannot hold the brackets that close everything.
      for (let j = this.i; j < n; j++) {
        const c = unitAt(text, j)
        if (c === 125 || c === 93) {
          i = j
          break
        }
      }
    }
    this.i = i
    if (i < n || this.ended) this.mode = this.modeAfterComment
    else this.starved = true
  }

  private blockComment(): void {
    const { n, text } = this
    for (let i = this.i; i < n; i++) {
      const c = unitAt(text, i)
      if (c !== 42 && c !== 45) continue
      this.i = i
      const star = c === 42 && this.at(i + 1) === 47
      const arrow = c === 45 && this.at(i + 1) === 45 && this.at(i + 2) === 62
      if (this.waits) return
      if (star || arrow) {
        this.i = i + (star ? 2 : 3)
        this.mode = this.modeAfterComment
        return
      }
    }
    this.i = n
    if (this.ended) this.mode = this.modeAfterComment
    else this.starved = true
  }

  // -------------------------------------------------------------------------
  // Places
  // -------------------------------------------------------------------------

  /** At the place of a value or an item. */
  private value(c: number): void {
    const { i } = this
    const frame = this.frames[this.frames.length - 1]
    if (c === -1) return this.openEnd("text")
    if (c === 123 || c === 91) {
      this.i++
      return this.enter(c === 91, c === 91 ? 93 : 125)
    }
    if (frame === undefined) return c === 40 ? this.tuple() : this.fail()
    if (frame.array) {
      if (c === 93 || c === 125 || c === 41) return this.closing(c)
      if (c === comma) return this.extraComma()
      if (this.ellipsis(c)) return
    } else if (c === comma || c === 125 || c === 93) {
      this.repair("missing value", i)
      this.put(null)
      return this.settle()
    }
    if (c === 34 || c === 39 ? this.plainString(i, c, false) : isDigit(c) && this.plainNumber(i)) return
    const quote = quoteOf(c)
    if (quote !== undefined) return this.openString(i, quote, false)
    if (c === backslash && this.at(i + 1) === 34) return this.openEscaped(i, false)
    if (this.waits) return
    return c === 40 ? this.tuple() : this.scalar(i)
  }

  private extraComma(): void {
    this.repair("extra comma", this.i)
    this.i++
  }

  /** Round brackets around items. */
  private tuple(): void {
    const { i } = this
    const first = this.trivia(i + 1)
    const c = this.at(first)
    const opens = c === 41 || c === 40 || this.itemAt(first)
    if (this.waits) return
    if (!opens) return this.fail()
    this.repair("tuple", i)
    this.i++
    this.enter(true, 41)
  }

  /** Three dots in the place of members or items; also when that cannot be told yet. */
  private ellipsis(c: number): boolean {
    const { i } = this
    if (c !== 46 && c !== 0x2026) return false
    const dots = c === 0x2026 || (this.at(i + 1) === 46 && this.at(i + 2) === 46)
    if (this.waits) return true
    if (!dots) return false
    this.repair("ellipsis", i)
    this.top.comma = -1
    this.i = i + (c === 46 ? 3 : 1)
    this.mode = "after"
    this.afterEllipsis = true
    return true
  }

  /** At the place of a key. */
  private key(c: number): void {
    const { i } = this
    if (c === -1) return this.openEnd("text")
    if (c === 125 || c === 93 || c === 41) return this.closing(c)
    if (c === comma) return this.extraComma()
    if (this.ellipsis(c) || (c === backtick && this.fenceAt(i))) return
    if (c === 123 && this.inArray) return this.missingBracket(i)
    if ((c === 34 || c === 39) && this.plainString(i, c, true)) return
    if (c === 34 && this.mixedKey(i)) return
    const quote = quoteOf(c)
    if (quote !== undefined) return this.openString(i, quote, true)
    if (c === backslash && this.at(i + 1) === 34) return this.openEscaped(i, true)
    if (this.waits) return
    if (!beginsWord(c) && !isDigit(c)) return this.fail()
    if (this.plainKey(i)) return
    const stray = this.strayWordAt(i)
    if (this.waits) return
    if (!stray) return this.bareKey(i)
    this.repair("stray text", i)
    this.i = i + this.wordAt(i).length
  }

  /** A key that begins with a straight quote and ends with a typographic one. */
  private mixedKey(i: number): boolean {
    const { n, text } = this
    const stop = Math.min(n, i + keyReach)
    for (let j = i + 1; j < stop; j++) {
      const c = unitAt(text, j)
      if (c === 34 || c === backslash || c === newline || c === colon) return false
      if (c !== 0x201d) continue
      const ends = j > i + 1 && this.colonAfter(j + 1) === 1
      if (this.waits || !ends) return false
      this.repair("missing quote", j)
      this.quoted++
      this.top.key = text.slice(i + 1, j)
      this.top.comma = -1
      this.i = j + 1
      this.mode = "colon"
      return true
    }
    return false
  }

  /** One word with a colon right behind it: the same as what follows gives, in fewer steps. */
  private plainKey(i: number): boolean {
    const { n, text } = this
    const stop = Math.min(n, i + keyReach)
    let j = i
    while (j < stop && isWord(charCodeAt.call(text, j))) j++
    if (j >= n || charCodeAt.call(text, j) !== colon) return false
    this.repair("unquoted key", i)
    this.bareKeys++
    this.top.key = text.slice(i, j)
    this.top.comma = -1
    this.i = j + 1
    this.mode = "value"
    return true
  }

  /** A key without quotes: one word, or, where there were quotes before, several on one line. */
  private bareKey(i: number): void {
    const { n, text } = this
    const stop = Math.min(n, i + keyReach)
    let j = i
    while (j < stop && (isWord(unitAt(text, j)) || unitAt(text, j) === 32)) j++
    const name = text.slice(i, j).trimEnd()
    const spaces = name.includes(" ")
    if (j >= n) {
      this.starved = true
      if (this.waits) return
      return spaces ? this.fail() : this.openEnd("text")
    }
    const quoted = unitAt(text, j) === 34
    const d = this.at(this.trivia(quoted ? j + 1 : j))
    if (this.waits) return
    if (!(d === colon || d === 61 || d === -1) || (spaces && this.quoted === 0)) return this.fail()
    if (quoted) {
      this.repair("missing quote", i)
    } else {
      this.repair("unquoted key", i)
      this.bareKeys++
    }
    this.top.key = name
    this.top.comma = -1
    this.i = quoted ? j + 1 : j
    this.mode = "colon"
  }

  /** After a key. */
  private colon(c: number): void {
    const { i } = this
    if (c === -1) return this.openEnd("text")
    if (c === colon) {
      this.i++
      this.mode = "value"
      return
    }
    if (c === comma && this.asSet()) return
    const arrow = c === 61 && this.at(i + 1) === 62
    const value = c === 61 || quoteOf(c) !== undefined || c === 123 || c === 91 || this.scalarAt(i)
    if (this.waits) return
    if (!value) return this.fail()
    this.repair("missing colon", i)
    if (c === 61) this.i += arrow ? 2 : 1
    this.mode = "value"
  }

  /** Quoted items without values in curly brackets: a set, as Python writes it. */
  private asSet(): boolean {
    const { count, key } = this.top
    if (key === undefined || count > 0 || this.repairs[this.repairs.length - 1]?.kind === "unquoted key") return false
    const items: Array<unknown> = [key]
    this.frames.pop()
    this.replace(items)
    this.push(items, true, 125)
    this.top.count = 1
    this.repair("set", this.i)
    this.mode = "after"
    return true
  }

  /** After a value. */
  private after(c: number): void {
    const { i, top: frame } = this
    if (c === -1) return this.openEnd("text")
    if (c === comma) {
      frame.comma = i
      this.i++
      return this.nextPlace()
    }
    if (c === 125 || c === 93 || c === 41) return this.closing(c)
    if (this.ellipsis(c) || (c === backtick && this.fenceAt(i))) return
    if (c === 43 /* + */ && typeof this.last() === "string") return this.concatenation(i)
    if (c === colon && frame.array && frame.count > 1 && this.inMember && this.inner === 0) {
      const key = this.last()
      if (typeof key === "string") return this.keyInArray(i, key)
    }
    if (this.afterEllipsis) return this.nextPlace()
    if (c === 123 && !frame.array && this.inArray) return this.missingBracket(i)
    const next = frame.array ? this.itemAt(i) : this.keyAt(i) || this.bareKeyOnNewLine(i)
    if (this.waits) return
    if (!next) return this.stray(i)
    this.repair("missing comma", i)
    this.nextPlace()
  }

  private nextPlace(): void {
    this.afterEllipsis = false
    this.mode = this.top.array ? "item" : "key"
  }

  private concatenation(i: number): void {
    const next = this.trivia(i + 1)
    const quote = quoteOf(this.at(next))
    if (this.waits) return
    if (quote === undefined) return this.fail()
    this.repair("concatenation", i)
    this.openString(next, quote, false, String(this.last()))
  }

  /** An array was not closed before the next key, which was taken for an item. */
  private keyInArray(i: number, key: string): void {
    const { value } = this.top
    if (Array.isArray(value)) value.pop()
    this.repair("missing bracket", i)
    this.frames.pop()
    this.top.key = key
    this.mode = "colon"
  }

  /** An object was not closed before the next item of the array that it is in. */
  private missingBracket(i: number): void {
    this.repair("missing bracket", i)
    this.leave()
  }

  /** Text after a value that belongs to nothing: over it, or the end of the value when prose follows. */
  private stray(i: number): void {
    const { n, text } = this
    const stop = Math.min(n, i + keyReach)
    for (let j = i; j < stop; j++) {
      const c = unitAt(text, j)
      if (c === comma || c === 125 || c === 93) {
        return j - i > strayReach ? this.fail() : this.skipStray(i, j)
      }
      if (c === newline) {
        const next = this.trivia(j)
        const d = this.at(next)
        const goesOn = d === comma || d === 125 || d === 93 || (d !== -1 && !this.top.array && this.keyAt(next, false))
        if (this.waits) return
        return goesOn ? this.skipStray(i, j) : this.openEnd("boundary")
      }
      if (c === 123 || c === 91 || c === colon || c === 59 || c === 61 || (quoteOf(c) !== undefined && c !== 39)) {
        return this.fail()
      }
    }
    if (stop < n) return this.fail()
    this.starved = true
    if (!this.waits) this.openEnd("boundary")
  }

  private skipStray(from: number, to: number): void {
    this.repair("stray text", from)
    this.i = to
  }

  /** Three backticks between tokens: the end of the fence that the value stands in. Also when that cannot be told yet. */
  private fenceAt(i: number): boolean {
    const fence = this.at(i + 1) === backtick && this.at(i + 2) === backtick
    if (this.waits) return true
    if (!fence) return false
    if (this.isEmpty) this.fail()
    else this.openEnd("boundary")
    return true
  }

  // -------------------------------------------------------------------------
  // Brackets
  // -------------------------------------------------------------------------

  /** A closing bracket, of whichever kind: the right one, the wrong one, one too many, or others are missing. */
  private closing(c: number): void {
    const { frames, i, top: frame } = this
    if (c === frame.close && (frames.length > 1 || frame.array)) return this.leaveAt(i)
    const next = this.trivia(i + 1)
    if (c === frame.close) {
      const early = this.memberFollows(next)
      if (this.waits) return
      return early ? this.extraBracket(i) : this.leaveAt(i)
    }
    const matching = this.matching(c)
    const missing = matching >= 0 && this.fits(next, matching - 1)
    const wrong = this.fits(next, frames.length - 2)
    const extra = this.fits(next, frames.length - 1)
    if (this.waits) return
    if (!missing && !wrong && !extra && c === 125 && matching >= 0) {
      const goesOn = this.memberFollows(next)
      if (this.waits) return
      if (goesOn) {
        // The object goes on: only the arrays in it were closed, the outermost by the wrong bracket.
        while (frames.length > matching + 2) this.missingBracket(i)
        this.repair("wrong bracket", i)
        return this.leaveAt(i)
      }
    }
    if (missing || (matching >= 0 && !wrong && !extra)) {
      while (frames.length > matching + 1) this.missingBracket(i)
      return this.leaveAt(i)
    }
    if (extra && !wrong) return this.extraBracket(i)
    this.repair("wrong bracket", i)
    this.leaveAt(i)
  }

  private leaveAt(i: number): void {
    this.i = i + 1
    this.leave()
  }

  private extraBracket(i: number): void {
    this.repair("extra bracket", i)
    this.i = i + 1
    this.mode = "after"
  }

  /** Do a comma and another member follow at `i`? Then the bracket before closed everything too early. */
  private memberFollows(i: number): boolean {
    if (this.at(i) !== comma) return false
    const key = this.trivia(i + 1)
    return quoteOf(this.at(key)) !== undefined && this.keyAt(key, false)
  }

  /** Is what stands at `i` what should follow a value in this frame? -1 is the root. */
  protected fits(i: number, frame: number): boolean {
    const c = this.at(i)
    if (c === -1) return true
    if (frame < 0) return c !== comma && c !== 125 && c !== 93
    const { array, close } = this.frames[frame]!
    if (c === close) return true
    if (c === comma) {
      const next = this.trivia(i + 1)
      const d = this.at(next)
      if (d === -1 || d === close) return true
      return array ? this.itemAt(next) && !this.keyAt(next, false) : this.keyAt(next)
    }
    if (c === 125 || c === 93) return false
    return array ? this.itemAt(i) : this.keyAt(i)
  }

  /** The text, or what of it belongs to the value, ended before the closing brackets. */
  protected openEnd(how: "text" | "boundary"): void {
    if (!this.ended && how === "text") {
      this.starved = true
      return
    }
    const { around, frames, mode } = this
    const betweenTokens = mode === "after" || (how === "boundary" && (mode === "key" || mode === "item"))
    if (betweenTokens && (how === "boundary" || around.finished === true)) {
      for (const { comma } of frames) if (comma >= 0) this.repair("trailing comma", comma)
      for (let k = 0; k < frames.length; k++) this.repair("missing bracket", this.i)
      this.end = "closed"
      return
    }
    this.repair("truncated", this.i)
    this.openPath = this.pathOfOpen(mode === "value")
    this.end = "open"
  }

  // -------------------------------------------------------------------------
  // A view of what is growing
  // -------------------------------------------------------------------------

  /** The text behind the place where it is. */
  rest(): string {
    return this.text.slice(this.i)
  }

  /** The text behind its first bracket, as far as it is still there. */
  afterFirst(): string {
    return this.text.slice(this.base === 0 ? 1 : this.i)
  }

  /** Whether there is enough of it to be shown: after a key, or inside of a string. */
  get isVisible(): boolean {
    return this.committed || this.showsString
  }

  /** Makes the tree hold all that is known of it, and tells the path of the node that still grows. */
  show(): Path {
    this.showString()
    return this.pathOfOpen(this.showsString)
  }
}
