/**
 * Many deadlines on one platform timer.
 *
 * Almost every deadline of an attempt is cancelled, since almost every attempt
 * ends in time. A platform timer for each costs more than the rest of an
 * attempt, so all deadlines stand in one heap, and one platform timer is armed
 * for the earliest. A cancelled deadline leaves the heap at once, but leaves the
 * timer armed: it fires early once, finds nothing due, and is armed anew. While
 * no deadline stands, the timer does not keep the process alive.
 *
 * The heap is a binary one that knows the place of each entry, so adding and
 * removing take the logarithm of the number of attempts under way.
 */

/** What a platform offers. Times are milliseconds. */
export interface Platform {
  /** A clock that only moves forward. */
  readonly now: () => number
  readonly set: (fire: () => void, millis: number) => unknown
  readonly clear: (handle: unknown) => void
}

/** The longest delay that a platform timer takes. */
const longest = 0x7fff_ffff

/** What happens at a deadline. */
export interface Alarm {
  readonly fire: () => void
}

/** One deadline. */
export interface Deadline {
  /** Gives it up. Of no consequence when it has fired or was given up before. */
  readonly cancel: () => void
}

class Entry implements Deadline {
  readonly due: number
  readonly alarm: Alarm
  /** Its place in the heap; -1 when it is not there. */
  place = -1
  private readonly owner: Deadlines

  constructor(owner: Deadlines, due: number, alarm: Alarm) {
    this.owner = owner
    this.due = due
    this.alarm = alarm
  }

  cancel(): void {
    if (this.place !== -1) this.owner.remove(this)
  }
}

interface Refable {
  ref(): void
  unref(): void
}

const isRefable = (handle: unknown): handle is Refable =>
  typeof handle === "object" && handle !== null && "unref" in handle && "ref" in handle

/** The deadlines of a process. */
export class Deadlines {
  private readonly platform: Platform
  private readonly heap: Array<Entry> = []
  private handle: unknown
  /** The handle, where it can let the process end. */
  private refable: Refable | undefined
  /** When the platform timer fires; `Infinity` while none is armed. */
  private armedFor = Infinity
  private readonly tick = (): void => this.fireDue()

  constructor(platform: Platform) {
    this.platform = platform
  }

  /** How many stand. */
  get size(): number {
    return this.heap.length
  }

  /** The alarm fires after `millis`, never earlier. */
  add(now: number, millis: number, alarm: Alarm): Deadline {
    const entry = new Entry(this, now + millis, alarm)
    const { heap } = this
    if (heap.length === 0) this.refable?.ref()
    heap.push(entry)
    this.up(entry, heap.length - 1)
    if (entry.due < this.armedFor) this.arm(now)
    return entry
  }

  /** @internal */
  remove(entry: Entry): void {
    const { heap } = this
    const { place } = entry
    entry.place = -1
    const last = heap.pop()!
    if (last !== entry) {
      this.up(last, place)
      if (last.place === place) this.down(last, place)
    }
    if (heap.length === 0) this.refable?.unref()
  }

  private arm(now: number): void {
    if (this.armedFor !== Infinity) this.platform.clear(this.handle)
    const [first] = this.heap
    if (first === undefined) {
      this.armedFor = Infinity
      this.handle = this.refable = undefined
      return
    }
    const millis = Math.min(Math.max(0, Math.ceil(first.due - now)), longest)
    this.armedFor = now + millis
    this.handle = this.platform.set(this.tick, millis)
    this.refable = isRefable(this.handle) ? this.handle : undefined
  }

  private fireDue(): void {
    const now = this.platform.now()
    this.armedFor = Infinity
    this.handle = this.refable = undefined
    const due: Array<Entry> = []
    for (let first = this.heap[0]; first !== undefined && first.due <= now; first = this.heap[0]) {
      this.remove(first)
      due.push(first)
    }
    this.arm(now)
    for (const { alarm } of due) alarm.fire()
  }

  private up(entry: Entry, from: number): void {
    const { heap } = this
    let place = from
    while (place > 0) {
      const above = (place - 1) >> 1
      const parent = heap[above]!
      if (parent.due <= entry.due) break
      heap[place] = parent
      parent.place = place
      place = above
    }
    heap[place] = entry
    entry.place = place
  }

  private down(entry: Entry, from: number): void {
    const { heap } = this
    let place = from
    while (true) {
      let below = 2 * place + 1
      if (below >= heap.length) break
      if (below + 1 < heap.length && heap[below + 1]!.due < heap[below]!.due) below++
      const child = heap[below]!
      if (child.due >= entry.due) break
      heap[place] = child
      child.place = place
      place = below
    }
    heap[place] = entry
    entry.place = place
  }
}
