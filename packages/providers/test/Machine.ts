/** Time on a machine that has other things to do, too. */
import { Effect } from "effect"

/** A ticker looks this often whether it is late, and so much is no lateness. In milliseconds. */
const interval = 20
const tolerance = 2

/** Measures how long something takes, and for how long of that nobody here could do anything. */
class Ticker {
  private readonly begun = performance.now()
  private due = this.begun + interval
  private late = 0
  private handle = setTimeout(() => this.tick(), interval)

  private look(): number {
    const now = performance.now()
    this.late += Math.max(0, now - this.due - tolerance)
    this.due = now + interval
    return now
  }

  private tick(): void {
    this.look()
    this.handle = setTimeout(() => this.tick(), interval)
  }

  stop(): { readonly took: number; readonly late: number } {
    clearTimeout(this.handle)
    return { took: this.look() - this.begun, late: this.late }
  }
}

/**
 * How long an effect takes, in milliseconds: on the wall clock (`took`), and less the time for which this process had to
 * wait for its turn (`own`).
 */
export const timed = <A, E, R>(
  self: Effect.Effect<A, E, R>,
): Effect.Effect<{ readonly value: A; readonly took: number; readonly own: number }, E, R> =>
  Effect.acquireUseRelease(
    Effect.sync(() => new Ticker()),
    (ticker) =>
      Effect.map(self, (value) => {
        const { late, took } = ticker.stop()
        return { value, took, own: took - late }
      }),
    (ticker) => Effect.sync(() => void ticker.stop()),
  )
