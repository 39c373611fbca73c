/**
 * A view of an answer that is still being written: the value so far, of the
 * span that is the likeliest answer up to now.
 *
 * Every unit is read once, besides bounded looks ahead, and no text is kept but
 * the last few hundred units. What shows here is a view only: which value the
 * answer is, is decided when all of it is there.
 */
import { unitAt } from "./characters.ts"
import type { Limits } from "./extract.ts"
import { maxIssues } from "./fit.ts"
import type { Issue } from "./issues.ts"
import { Lenient } from "./lenient.ts"
import type { Members, RootKinds } from "./members.ts"
import { endOfReasoning, landmark, unfinishedLandmark } from "./reasoning.ts"
import { inQuotes, standingOf, surroundings } from "./standing.ts"
import type { Path } from "./tree.ts"

/** How much prose is kept behind the place that is read. */
const keptProse = 400
/** Longer than any closing tag. */
const longestTag = 128

/** What there is of the value. */
export interface View {
  readonly value: unknown
  /** The path of the node that still grows; nothing when none does. */
  readonly open: Path | undefined
  readonly issues: ReadonlyArray<Issue>
}

const nothing: View = { value: undefined, open: undefined, issues: [] }

/** What the view wants to know about what was asked for. */
export interface Wanted {
  readonly kinds: RootKinds
  readonly members: Members | undefined
}

type Place = "prose" | "reasoning" | "value" | "broken" | "over"

/** The view of one answer. */
export class Live {
  view: View = nothing
  /** Units looked at. */
  work = 0

  private readonly limits: Limits
  private readonly wanted: Wanted
  private place: Place = "prose"
  /** Prose that is still needed, and how far it was read. */
  private text = ""
  private i = 0
  private length = 0
  private lenient: Lenient | undefined
  /** Prose before the span that is read, for the judgement of how it stands. */
  private before = ""
  private issues: Array<Issue> = []
  private shown = false
  /** Whether it cannot be the answer, by its bracket. */
  private hidden = false
  /** Open brackets of a broken span, and whether a string is open in it. */
  private depth = 0
  private inString = false

  constructor(limits: Limits, wanted: Wanted) {
    this.limits = limits
    this.wanted = wanted
  }

  push(delta: string): void {
    this.length += delta.length
    if (this.length > this.limits.maxBytes || this.work > this.limits.maxWork) this.place = "over"
    let more = delta
    for (;;) {
      const rest = this.read(more)
      if (rest === undefined) return
      more = rest
    }
  }

  /** Reads more text in the present place; gives the text that the next place begins with. */
  private read(more: string): string | undefined {
    switch (this.place) {
      case "prose":
        return this.prose(more)
      case "reasoning":
        return this.reasoning(more)
      case "value":
        return this.value(more)
      case "broken":
        return this.broken(more)
      case "over":
        return undefined
    }
  }

  private prose(more: string): string | undefined {
    const text = this.text.slice(Math.max(0, this.i - keptProse)) + more
    this.i = Math.min(this.i, keptProse)
    this.text = text
    for (;;) {
      landmark.lastIndex = this.i
      const mark = landmark.exec(text)
      const held = heldFrom(text, this.i)
      this.work += (mark?.index ?? text.length) - this.i + 1
      if (mark === null || mark.index >= held) {
        this.i = held
        return undefined
      }
      const [whole, open, close, fence] = mark
      this.i = landmark.lastIndex
      if (open !== undefined) {
        this.place = "reasoning"
        return this.leave()
      }
      if (close !== undefined) {
        this.view = nothing
        this.shown = false
      } else if (fence === undefined) {
        return this.begin(mark.index, whole)
      }
    }
  }

  /** Leaves prose: what was not read of it. */
  private leave(): string {
    const rest = this.text.slice(this.i)
    this.before = this.text.slice(Math.max(0, this.i - keptProse), this.i)
    this.text = ""
    this.i = 0
    return rest
  }

  /** A span may begin with this bracket. */
  private begin(at: number, bracket: string): string | undefined {
    const { array, object } = this.wanted.kinds
    if (inQuotes(this.text, at)) {
      this.i = at + 1
      return ""
    }
    this.i = at
    this.hidden = !(bracket === "[" ? array : object)
    const rest = this.leave()
    const { maxDepth, maxWork } = this.limits
    const lenient = new Lenient("", 0, 0, {
      fenced: /```[^\n]*\s*$/.test(this.before),
      finished: undefined,
      maxDepth,
      maxWork,
    })
    const members = this.wanted.members
    this.issues = []
    this.shown = false
    if (members !== undefined) {
      const { issues } = this
      const seen = new Set<string>()
      lenient.onNode = (path, value) => {
        if (issues.length >= maxIssues) return
        for (const issue of members(path, value)) {
          // An item is judged by itself, and again with the array that it is in.
          const key = JSON.stringify(issue)
          if (!seen.has(key)) issues.push(issue)
          seen.add(key)
        }
      }
    }
    this.lenient = lenient
    this.place = "value"
    return rest
  }

  private value(more: string): string | undefined {
    const lenient = this.lenient!
    const before = lenient.work
    lenient.feed(more)
    this.work += lenient.work - before
    switch (lenient.end) {
      case undefined: {
        const path = lenient.show()
        if (lenient.isVisible) this.show(lenient.root, path)
        return undefined
      }
      case "closed":
      case "open": {
        const text = this.before + " "
        const stands = surroundings(text, this.before.length, text.length, false)
        // What follows is not there yet: as far as a view goes, a list of numbers is one.
        const around = stands.place === "inline" ? stands : ({ ...stands, list: "any" } as const)
        const shows = lenient.committed || standingOf(lenient, around) === "strong"
        if (shows) this.show(lenient.root, undefined)
        return this.resume(lenient.rest())
      }
      case "failed":
        if (lenient.committed) {
          this.hide()
          this.depth = lenient.depth
          this.inString = false
          this.place = "broken"
          this.lenient = undefined
          return lenient.rest()
        }
        this.hide()
        return this.resume(lenient.afterFirst())
      case "deep":
      case "spent":
        this.hide()
        this.place = "over"
        return undefined
    }
  }

  private show(value: unknown, open: Path | undefined): void {
    if (this.hidden) return
    this.shown = true
    this.view = { value, open, issues: this.issues }
  }

  private hide(): void {
    if (this.shown) this.view = nothing
    this.shown = false
  }

  /** Goes on with prose. */
  private resume(rest: string): string {
    this.place = "prose"
    this.lenient = undefined
    this.text = ""
    this.i = 0
    return rest
  }

  private reasoning(more: string): string | undefined {
    const text = this.text + more
    const end = endOfReasoning(text, 0)
    this.work += text.length
    if (end < 0) {
      this.text = text.slice(-longestTag)
      return undefined
    }
    return this.resume(text.slice(end))
  }

  /** Over the rest of a span that turned out to be broken JSON. */
  private broken(more: string): string | undefined {
    for (let i = 0; i < more.length; i++) {
      const c = unitAt(more, i)
      if (this.inString) {
        if (c === 92) i++
        else if (c === 34 || c === 10) this.inString = false
      } else if (c === 34) {
        this.inString = true
      } else if (c === 123 || c === 91) {
        this.depth++
      } else if ((c === 125 || c === 93) && --this.depth <= 0) {
        this.work += i
        return this.resume(more.slice(i + 1))
      }
    }
    this.work += more.length
    return undefined
  }
}

/** From where on the text may hold the beginning of a landmark. */
const heldFrom = (text: string, from: number): number => {
  const begin = Math.max(from, text.length - 2 * longestTag)
  const held = text.slice(begin).search(unfinishedLandmark)
  return held < 0 ? text.length : begin + held
}
