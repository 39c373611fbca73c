/**
 * A bulkhead with its line written a second time, from its description: one
 * list of all who are there, in the order in which they came, of whom some have
 * entered.
 */

interface Guest {
  readonly call: number
  readonly until: number
  entered: boolean
}

/** Mistakes, each of which the check must notice. */
export type Flaw =
  | "onePermitTooMany"
  | "oneMoreWaits"
  | "lastComeFirstServed"
  | "servedAtTheEndOfItsTime"
  | "newcomersOvertake"
  | "leavingTheLineTakesAPermit"

export class Model {
  private here: Array<Guest> = []
  /** Permits that nobody has and nobody gets. */
  private lost = 0
  private readonly permits: number
  private readonly queue: number
  private readonly flaw: Flaw | undefined

  constructor(numbers: { readonly permits: number; readonly queue: number }, flaw?: Flaw) {
    this.permits = numbers.permits + (flaw === "onePermitTooMany" ? 1 : 0)
    this.queue = numbers.queue + (flaw === "oneMoreWaits" ? 1 : 0)
    this.flaw = flaw
  }

  get inside(): ReadonlyArray<number> {
    return this.here.filter(({ entered }) => entered).map(({ call }) => call)
  }

  private get line(): ReadonlyArray<Guest> {
    return this.here.filter(({ entered }) => !entered)
  }

  /** Those who wait, in the order in which they came. */
  get waiting(): ReadonlyArray<number> {
    return this.line.map(({ call }) => call)
  }

  /** Those who wait though their time is over. */
  overdue(now: number): ReadonlyArray<number> {
    return this.line.filter(({ until }) => now >= until).map(({ call }) => call)
  }

  private get free(): boolean {
    return this.inside.length + this.lost < this.permits
  }

  come(call: number, until: number): "inside" | "waiting" | "turned away" {
    const { line } = this
    if (this.free && (line.length === 0 || this.flaw === "newcomersOvertake")) {
      this.here.push({ call, until, entered: true })
      return "inside"
    }
    if (line.length >= this.queue) return "turned away"
    this.here.push({ call, until, entered: false })
    return "waiting"
  }

  leave(call: number, now: number): void {
    const waited = this.here.some((guest) => guest.call === call && !guest.entered)
    this.here = this.here.filter((guest) => guest.call !== call)
    if (waited && this.flaw === "leavingTheLineTakesAPermit") this.lost++
    while (this.free) {
      const ready = this.line.filter(({ until }) =>
        this.flaw === "servedAtTheEndOfItsTime" ? now <= until : now < until,
      )
      const next = this.flaw === "lastComeFirstServed" ? ready.at(-1) : ready[0]
      if (next === undefined) return
      next.entered = true
    }
  }
}
