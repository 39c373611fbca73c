/** The value that grows while it is read: open brackets, where values go, and what was repaired. */
import { Ahead } from "./ahead.ts"
import { type Repair, type RepairKind, tiers } from "./repair.ts"

/** An open bracket, and what has been read since. */
export interface Frame {
  value: Array<unknown> | Record<string, unknown>
  array: boolean
  /** The closing bracket. */
  readonly close: number
  /** The key whose value is being read. */
  key: string | undefined
  /** How many members or items there are. */
  count: number
  /** Where a comma is that nothing followed yet, else -1. */
  comma: number
  /** The innermost open bracket of each kind, this one included; -1 when there is none. */
  readonly curly: number
  readonly square: number
  readonly round: number
}

/** Where the parser is. */
export type Mode = "item" | "key" | "colon" | "value" | "after" | "string" | "line comment" | "block comment"

/**
 * How it ended: `closed` at its bracket, `open` where the text or what belongs
 * to the value ended, `failed` at what is no JSON, `deep` at one bracket too
 * many, `spent` when it had worked too long.
 */
export type End = "closed" | "open" | "failed" | "deep" | "spent"

/** What is known about the text around the value. */
export interface Surroundings {
  /** Whether the value stands in a fence: then a fence ends it. */
  readonly fenced: boolean
  /** Whether the model said that it was done (`true`) or cut off (`false`), if it said anything. */
  readonly finished: boolean | undefined
  readonly maxDepth: number
  readonly maxWork: number
}

/** Names of keys and indices from the root to a node. */
export type Path = ReadonlyArray<string | number>

/** A tree under construction. */
export abstract class Tree extends Ahead {
  /** How it ended, when it did. */
  end: End | undefined
  /** The value, as far as it is known. */
  root: unknown
  readonly repairs: Array<Repair> = []
  /** Called with every node of the first two levels that is finished. */
  onNode: ((path: Path, value: unknown) => void) | undefined
  /** Keys and strings in quotes; and other things that are not mere words. */
  quoted = 0
  solid = 0

  protected readonly frames: Array<Frame> = []
  protected mode: Mode = "value"
  protected readonly around: Surroundings

  constructor(text: string, start: number, base: number, around: Surroundings) {
    super(text, start, base)
    this.around = around
  }

  /** How many brackets are open. */
  get depth(): number {
    return this.frames.length
  }

  /** Whether it has seen enough to be broken JSON, when it failed, and not prose. */
  get committed(): boolean {
    if ((this.quoted === 0 && this.solid < 3) || this.frames.length === 0) return false
    return Array.isArray(this.root) ? this.root.length > 0 : this.frames[0]!.key !== undefined
  }

  protected get top(): Frame {
    return this.frames[this.frames.length - 1]!
  }

  /** Whether nothing of the value has been read but its first bracket. */
  protected get isEmpty(): boolean {
    return this.frames.length === 1 && this.quoted === 0 && this.top.count === 0 && this.top.key === undefined
  }

  /** Is the innermost bracket inside of an array? */
  protected get inArray(): boolean {
    return this.frames.length > 1 && this.frames[this.frames.length - 2]!.array
  }

  /** Is the innermost bracket the value of a key? */
  protected get inMember(): boolean {
    return this.frames.length > 1 && !this.frames[this.frames.length - 2]!.array
  }

  protected repair(kind: RepairKind, at: number): void {
    this.repairs.push({ kind, tier: tiers[kind], position: this.base + at })
  }

  protected fail(): void {
    this.end = "failed"
  }

  /** Writes a value to where it belongs. */
  protected put(value: unknown): void {
    const frame = this.frames[this.frames.length - 1]
    if (frame === undefined) {
      this.root = value
      return
    }
    frame.count++
    if (Array.isArray(frame.value)) frame.value.push(value)
    else write(frame.value, frame.key!, value)
  }

  /** Replaces the value that was put last. */
  protected replace(value: unknown): void {
    const frame = this.frames[this.frames.length - 1]
    if (frame === undefined) this.root = value
    else if (Array.isArray(frame.value)) frame.value[frame.value.length - 1] = value
    else write(frame.value, frame.key!, value)
  }

  /** The value that was put last. */
  protected last(): unknown {
    const { key, value } = this.top
    return Array.isArray(value) ? value[value.length - 1] : value[key!]
  }

  /** Puts a new array or object, and goes into it. */
  protected enter(array: boolean, close: number): void {
    if (this.frames.length >= this.around.maxDepth) {
      this.end = "deep"
      return
    }
    const outer = this.frames[this.frames.length - 1]
    if (outer !== undefined) outer.comma = -1
    const value = array ? [] : {}
    this.put(value)
    this.push(value, array, close)
    this.mode = array ? "item" : "key"
  }

  protected push(value: Frame["value"], array: boolean, close: number): void {
    const { length } = this.frames
    const outer = this.frames[length - 1]
    const curly = close === 125 ? length : (outer?.curly ?? -1)
    const square = close === 93 ? length : (outer?.square ?? -1)
    const round = close === 41 ? length : (outer?.round ?? -1)
    this.frames.push({ value, array, close, key: undefined, count: 0, comma: -1, curly, square, round })
  }

  /** The innermost bracket that this unit closes, or -1. */
  protected matching(close: number): number {
    const { curly, round, square } = this.top
    return close === 125 ? curly : close === 93 ? square : round
  }

  /** Leaves the innermost bracket. */
  protected leave(): void {
    const frame = this.frames.pop()!
    if (frame.close === 41 && Array.isArray(frame.value) && frame.count === 1 && frame.comma < 0) {
      // Brackets around one value are only brackets.
      this.replace(frame.value[0])
    }
    if (frame.comma >= 0) this.repair("trailing comma", frame.comma)
    this.settle()
    if (this.frames.length === 0) this.end = "closed"
  }

  /** A value is there. */
  protected settle(): void {
    this.mode = "after"
    const { frames, onNode } = this
    if (onNode !== undefined && frames.length > 0 && frames.length <= 2) {
      onNode(
        frames.map(({ array, count, key }) => (array ? count - 1 : key!)),
        this.last(),
      )
    }
  }

  /** The text or what belongs to the value ended before the closing brackets. */
  protected abstract openEnd(how: "text" | "boundary"): void

  /** The path of the innermost open bracket; with `last`, that of the value that was put into it last. */
  protected pathOfOpen(last: boolean): Path {
    const path: Array<string | number> = []
    const { frames } = this
    for (const [depth, { array, count, key }] of frames.entries()) {
      if (depth === frames.length - 1 && !last) break
      if (array ? count === 0 : key === undefined) break
      path.push(array ? count - 1 : key!)
    }
    return path
  }
}

/** Writes an own property, whatever its name is: no key sets a prototype. */
const write = (object: Record<string, unknown>, key: string, value: unknown): void => {
  if (key === "__proto__") {
    Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true })
  } else {
    object[key] = value
  }
}
