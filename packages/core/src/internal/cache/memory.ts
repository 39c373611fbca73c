/** Entries in memory: the least recently used go first, and none is given out after its time. */

/** How much is kept. */
export interface Limits {
  /** Entries. */
  readonly capacity: number
  /** Keys and values together, in bytes. */
  readonly maxBytes: number
}

interface Kept {
  readonly text: string
  readonly bytes: number
  readonly until: number
}

const encoder = new TextEncoder()

/** The length of a text in bytes of UTF-8. */
export const bytesOf = (text: string): number => encoder.encode(text).length

/** Plain synchronous code over one map, whose order is that of use. */
export class MemoryStore {
  private readonly limits: Limits
  private readonly entries = new Map<string, Kept>()
  private held = 0

  constructor(limits: Limits) {
    this.limits = limits
  }

  get size(): number {
    return this.entries.size
  }

  /** What the entries take, in bytes. */
  get bytes(): number {
    return this.held
  }

  /** The entry of a key, which is now the one that was used last. */
  get(key: string, now: number): string | undefined {
    const kept = this.entries.get(key)
    if (kept === undefined) return undefined
    this.entries.delete(key)
    if (kept.until <= now) {
      this.held -= kept.bytes
      return undefined
    }
    this.entries.set(key, kept)
    return kept.text
  }

  /** Puts an entry, until an instant. False when it is larger than all that may be kept. */
  set(key: string, text: string, until: number): boolean {
    this.remove(key)
    const bytes = bytesOf(key) + bytesOf(text)
    if (bytes > this.limits.maxBytes) return false
    this.entries.set(key, { text, bytes, until })
    this.held += bytes
    for (const oldest of this.entries.keys()) {
      if (this.entries.size <= this.limits.capacity && this.held <= this.limits.maxBytes) break
      this.remove(oldest)
    }
    return true
  }

  private remove(key: string): void {
    const kept = this.entries.get(key)
    if (kept === undefined) return
    this.entries.delete(key)
    this.held -= kept.bytes
  }
}
