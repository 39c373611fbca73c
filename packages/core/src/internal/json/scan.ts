/**
 * What in an answer's text may be its value: the outermost spans of brackets,
 * strict where they are strict, repaired where they are not.
 *
 * One pass. Every unit is read by the scan of prose, by the strict scan and by
 * the lenient parser a fixed number of times, besides their bounded looks ahead:
 * a span that turned out to be prose is left at its first bracket, and one that
 * turned out to be broken JSON is left behind as a whole.
 */
import { isSpace, unitAt } from "./characters.ts"
import { Lenient } from "./lenient.ts"
import { Boundaries, endOfReasoning, landmark } from "./reasoning.ts"
import { type Repair, weigh } from "./repair.ts"
import {
  beginsLine,
  contradicts,
  mayBegin,
  endOfBroken,
  endsTooEarly,
  inQuotes,
  isPlainList,
  looksMeant,
  standingOf,
  surroundings,
  type Around,
} from "./standing.ts"
import { scanStrict, type StrictScan } from "./strict.ts"
import type { Path } from "./tree.ts"

/** Where in the text a value was found. */
export interface Found {
  /** As the whole text, as a span of it, or as a span that the text ends in. */
  readonly how: "whole" | "span" | "open"
  /** Whether it stands in a code fence. */
  readonly fenced: boolean
  /** First UTF-16 unit, and the one after the last. */
  readonly start: number
  readonly end: number
}

/** Something that may be the answer. */
export interface Candidate {
  readonly found: Found
  readonly json: unknown
  readonly repairs: ReadonlyArray<Repair>
  /** Losses, guesses and repairs of spelling. */
  readonly weight: readonly [loss: number, guess: number, safe: number]
  readonly incomplete: ReadonlyArray<Path>
  /** Whether it looks like an answer, or like brackets that prose uses for its own purposes. */
  readonly strong: boolean
  /** Whether it begins a line, or follows a colon. */
  readonly announced: boolean
  /** Whether it is no more than a list of numbers or words, outside of a fence. */
  readonly plainList: boolean
}

/** A candidate with its weight. */
export const candidate = (
  found: Found,
  json: unknown,
  options: {
    readonly repairs?: ReadonlyArray<Repair>
    readonly openPath?: Path | undefined
    readonly strong?: boolean
    readonly announced?: boolean
  } = {},
): Candidate => {
  const { announced = true, openPath, repairs = [], strong = true } = options
  return {
    found,
    json,
    repairs,
    weight: weigh(repairs),
    incomplete: openPath === undefined ? [] : [openPath],
    strong,
    announced,
    plainList:
      !found.fenced &&
      isPlainList(
        json,
        repairs.some(({ kind }) => kind === "unquoted value"),
      ),
  }
}

export interface Limits {
  readonly maxDepth: number
  readonly maxCandidates: number
  readonly maxWork: number
}

/** A limit that was passed, and where. */
export interface Passed {
  readonly limit: keyof Limits
  readonly position: number
}

/** Everything that was found. */
export interface Scanned {
  readonly candidates: ReadonlyArray<Candidate>
  /** Where the last span broke that looked like JSON. */
  readonly brokenAt: number | undefined
  readonly passed: Passed | undefined
  /** Units looked at. */
  readonly work: number
}

/** What a bracket costs besides the units that are read: so many units of work. */
const costOfSpan = 64

/** Finds the candidates. `finished` is what the finish reason says, if anything. */
export const scan = (text: string, finished: boolean | undefined, limits: Limits): Scanned => {
  const scan = new Scan(text, finished, limits)
  scan.run()
  return scan
}

class Scan implements Scanned {
  readonly candidates: Array<Candidate> = []
  brokenAt: number | undefined
  passed: Passed | undefined
  work = 0

  private readonly text: string
  private readonly finished: boolean | undefined
  private readonly limits: Limits
  /** Where the text begins and ends, without the space around it. */
  private readonly first: number
  private readonly last: number
  private readonly strict: StrictScan = { end: "broken", at: 0 }
  private readonly boundaries: Boundaries
  private i = 0
  private strong = 0
  private weak = 0
  private inFence = false
  private fenceEnd = -1
  /** How many more spans may be read twice, in two ways. */
  private secondLooks = 4
  /** Whether no reasoning that begins from here on ends. */
  private endless = false

  constructor(text: string, finished: boolean | undefined, limits: Limits) {
    this.text = text
    this.finished = finished
    this.limits = limits
    this.boundaries = new Boundaries(text)
    ;[this.first, this.last] = trimmed(text)
  }

  run(): void {
    const { limits, text } = this
    this.tuple(this.first)
    while (this.passed === undefined) {
      landmark.lastIndex = this.i
      const mark = landmark.exec(text)
      this.work += (mark === null ? text.length : mark.index) - this.i
      if (mark === null) return
      this.i = landmark.lastIndex
      const [, open, close, fence] = mark
      if (open !== undefined) {
        if (!this.reasoning(mark.index)) return
      } else if (close !== undefined) {
        // Everything up to here was reasoning.
        this.candidates.length = 0
        this.brokenAt = undefined
      } else if (fence !== undefined) {
        this.inFence = !this.inFence || /\w/.test(text.charAt(this.i))
        this.fenceEnd = this.i
        if (this.inFence) this.tuple(this.i + infoLine.exec(text.slice(this.i, this.i + 160))![0].length)
      } else {
        this.span(mark.index)
      }
      if (this.work > limits.maxWork) this.pass("maxWork", this.i)
    }
  }

  private add(found: Candidate): void {
    // Prose may be full of brackets that are hardly answers; they are no reason to give up, nor to be kept.
    if (found.strong ? ++this.strong > this.limits.maxCandidates : ++this.weak > this.limits.maxCandidates) {
      if (found.strong) this.pass("maxCandidates", found.found.start)
    } else {
      this.candidates.push(found)
    }
  }

  private pass(limit: keyof Limits, position: number): void {
    this.passed ??= { limit, position }
  }

  /** Goes behind reasoning that begins at `at`. False when the rest of the text is reasoning. */
  private reasoning(at: number): boolean {
    const { i, text } = this
    if (!this.endless) {
      const end = endOfReasoning(text, i)
      this.work += (end === -1 ? text.length : end) - i
      if (end !== -1) {
        this.i = end
        return true
      }
    }
    // A tag that is never closed and stands in a sentence is only mentioned.
    this.endless = true
    return !beginsLine(text, at)
  }

  /** The span that begins with the bracket at `at`. */
  private span(at: number): void {
    const { fenceEnd, first, inFence, last, limits, strict, text } = this
    if (text.startsWith("<![CDATA[", at - 2)) {
      this.i = at + 7
      return
    }
    const fenced = inFence && at - fenceEnd <= 160 && /^[^\n]*\s*$/.test(text.slice(fenceEnd, at))
    this.work += costOfSpan
    scanStrict(text, at, limits.maxDepth, strict)
    const end = strict.at
    this.work += end - at
    if (strict.end === "deep") return this.pass("maxDepth", end)
    const json = strict.end === "closed" ? parse(text.slice(at, end)) : undefined
    if (json === undefined) {
      if (mayBegin(text, at)) return this.repaired(at, fenced)
      this.i = at + 1
      return
    }
    if (end < last && this.secondLooks > 0 && endsTooEarly(text, at, end)) {
      this.secondLooks--
      const lenient = this.lenient(at, fenced)
      if (lenient.end === "closed" && lenient.position > end) return this.keep(lenient, at, fenced)
    }
    const how = at === first && end === last ? "whole" : "span"
    const around = surroundings(text, at, end, fenced)
    this.add(
      candidate({ how, fenced, start: at, end }, json.value, {
        strong: how === "whole" || looksMeant(json.value, around),
        announced: announced(around),
      }),
    )
    this.i = end
  }

  private lenient(at: number, fenced: boolean, limit = this.boundaries.after(at)): Lenient {
    const { finished, limits, text } = this
    const maxWork = limits.maxWork - this.work
    const lenient = new Lenient(text, at, 0, { fenced, finished, maxDepth: limits.maxDepth, maxWork })
    lenient.complete(limit)
    this.work += lenient.work
    if (lenient.end === "deep") this.pass("maxDepth", lenient.position)
    if (lenient.end === "spent") this.pass("maxWork", lenient.position)
    return lenient
  }

  /** The same span, repaired. */
  private repaired(at: number, fenced: boolean): void {
    const { text } = this
    const quoted = inQuotes(text, at)
    const limit = this.boundaries.after(at)
    if (limit < text.length && this.secondLooks-- > 0) {
      // A tag that ends reasoning may stand inside of a string; then nothing has to be guessed to read over it.
      const over = this.lenient(at, fenced, text.length)
      if ((over.end === "closed" || over.end === "open") && over.repairs.every(({ tier }) => tier !== "guess")) {
        return this.keep(over, at, fenced)
      }
    }
    const lenient = this.lenient(at, fenced)
    // What was cut off by the end of the reasoning belongs to the reasoning.
    if (lenient.end === "open" && limit < text.length) {
      this.i = limit
    } else if (lenient.end !== "failed") {
      this.keep(lenient, at, fenced)
    } else if (lenient.committed && !quoted) {
      this.brokenAt = lenient.position
      const end = endOfBroken(text, lenient.position, lenient.depth)
      this.work += end - lenient.position
      this.i = Math.max(end, at + 1)
    } else {
      this.i = at + 1
    }
  }

  private keep(lenient: Lenient, at: number, fenced: boolean): void {
    const { first, last, text } = this
    const end = lenient.position
    const around = surroundings(text, at, end, fenced)
    const standing = inQuotes(text, at) ? "none" : standingOf(lenient, around)
    if (standing === "none") {
      this.i = at + 1
      return
    }
    if (lenient.end === "closed" && lenient.repairs.some(({ tier }) => tier === "guess") && contradicts(text, end)) {
      // What goes on behind it is a part of it: nobody knows what was meant.
      this.brokenAt = end
      const broken = endOfBroken(text, end, 1)
      this.work += broken - end
      this.i = Math.max(broken, at + 1)
      return
    }
    if (lenient.end === "open" && this.swallows(at, fenced, around.place)) {
      this.i = at + 1
      return
    }
    const how = lenient.end === "open" ? "open" : at === first && end >= last ? "whole" : "span"
    this.add(
      candidate({ how, fenced, start: at, end }, lenient.root, {
        repairs: lenient.repairs,
        openPath: lenient.openPath,
        strong: standing === "strong",
        announced: announced(around),
      }),
    )
    this.i = Math.max(end, at + 1)
  }

  /** Whether a bracket in a sentence, with a word behind it, took in an object of its own that ends the text. */
  private swallows(at: number, fenced: boolean, place: Around["place"]): boolean {
    const { last, limits, strict, text } = this
    if (fenced || (place !== "inline" && place !== "glued") || !/^.\s{0,64}[A-Za-z]/.test(text.slice(at, at + 67)))
      return false
    if (this.secondLooks <= 0) return false
    this.secondLooks--
    const line = /\n[^\S\n]{0,64}(?=\{)/g
    line.lastIndex = at
    if (line.exec(text) === null) return false
    const begin = line.lastIndex
    scanStrict(text, begin, limits.maxDepth, strict)
    this.work += strict.at - at
    return strict.end === "closed" && strict.at === last
  }

  /** Round brackets in the place of square ones: as the whole text, or in a fence. */
  private tuple(at: number): void {
    const { finished, first, inFence, last, limits, text } = this
    if (unitAt(text, at) !== 40) return
    const maxWork = limits.maxWork - this.work
    const tuple = new Lenient(text, at, 0, { fenced: inFence, finished, maxDepth: limits.maxDepth, maxWork })
    tuple.complete(text.length)
    this.work += tuple.work
    if (tuple.end !== "closed" || !Array.isArray(tuple.root) || tuple.quoted + tuple.solid === 0) return
    const end = tuple.position
    if (!inFence && !surroundings(text, at, end, false).whole) return
    const how = at === first && end === last ? "whole" : "span"
    this.add(candidate({ how, fenced: inFence, start: at, end }, tuple.root, { repairs: tuple.repairs }))
    this.i = end
  }
}

/** The language behind a fence, and the space in front of what it holds. */
const infoLine = /^[^\n(]{0,80}\n?\s{0,80}/

const announced = ({ fenced, place }: Around): boolean =>
  fenced || place === "line" || place === "label" || place === "code"

/** Where the text begins and ends, without space and byte order marks. */
export const trimmed = (text: string): readonly [first: number, last: number] => {
  let first = 0
  let last = text.length
  while (first < last && (isSpace(unitAt(text, first)) || unitAt(text, first) === 0xfeff)) first++
  while (last > first && isSpace(unitAt(text, last - 1))) last--
  return [first, last]
}

/** Strict JSON, or nothing. The error of `JSON.parse` quotes the text, so it goes no further. */
export const parse = (text: string): { readonly value: unknown } | undefined => {
  try {
    return { value: JSON.parse(text) as unknown }
  } catch {
    return undefined
  }
}
