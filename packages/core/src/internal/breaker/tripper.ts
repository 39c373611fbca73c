/** Decides when a closed circuit trips: any of several watches over its outcomes. Pure, and told the time. */
import { over, type Rules, type Watch } from "./rules.ts"
import { type Counts, CountWindow, TimeWindow, type Window } from "./window.ts"

/** Why a circuit opened. */
export type Reason =
  | "failures in a row"
  | Watch["what"]
  /** A failure that opens at once, such as a refused key. */
  | "at once"
  | "hint"
  | "probe"
  | "by hand"

/** One watch, and the window that it looks at. */
export class Watching {
  readonly watch: Watch
  readonly window: Window

  constructor(watch: Watch) {
    const { span } = (this.watch = watch)
    this.window = "last" in span ? new CountWindow(span.last) : new TimeWindow(span.millis, span.buckets)
  }

  isSlow(firstContent: number, total: number): boolean {
    const { slowAfter, slowBy } = this.watch
    return (slowBy === "total" ? total : firstContent) > slowAfter
  }

  /** Takes an outcome in; does it trip? */
  record(failed: boolean, now: number, firstContent: number, total: number): boolean {
    const { watch, window } = this
    const slow = this.isSlow(firstContent, total)
    window.add(failed, slow, now)
    if (window.calls < watch.minimum) return false
    if (!watch.always && !(watch.what === "slow rate" ? slow : failed)) return false
    return over(valueOf(watch.what, window), watch.threshold, watch.compare)
  }
}

const valueOf = (what: Watch["what"], { calls, failures, slow }: Counts): number => {
  switch (what) {
    case "failures":
      return failures
    case "failure rate":
      return failures / calls
    case "slow rate":
      return slow / calls
  }
}

/** All that trips one circuit. */
export class Tripper {
  /** Counted failures in a row. */
  inARow = 0
  /** Outcomes since it was cleared, and the failures among them. */
  calls = 0
  failures = 0
  readonly watching: ReadonlyArray<Watching>
  private readonly limit: number

  constructor({ inARow, watches }: Pick<Rules, "inARow" | "watches">) {
    this.limit = inARow
    this.watching = watches.map((watch) => new Watching(watch))
  }

  /**
   * Takes an outcome in, and says why it trips, if it does. The two times, in milliseconds, are those that the call took
   * to its first content, and in all.
   */
  record(failed: boolean, now: number, firstContent = 0, total = 0): Reason | undefined {
    let reason: Reason | undefined
    this.calls++
    if (failed) this.failures++
    if (!failed) this.inARow = 0
    else if (++this.inARow >= this.limit) reason = "failures in a row"
    // Every window takes it in, also when an earlier watch has tripped.
    for (const watching of this.watching) {
      if (watching.record(failed, now, firstContent, total)) reason ??= watching.watch.what
    }
    return reason
  }

  clear(): void {
    this.inARow = this.calls = this.failures = 0
    for (const { window } of this.watching) window.clear()
  }
}
