/** Virtual time and virtual turns: what a test needs to stop a program at every point there is. */
import { type Clock, Duration, Effect, type Fiber, type Scheduler } from "effect"

/**
 * A world in which every fiber gives way after each operation, and nothing
 * moves but one turn at a time: so a test can stop at every point there is.
 * When nobody has a turn, the clock jumps to the first who wakes.
 */
export class World implements Scheduler.Scheduler {
  readonly executionMode = "sync" as const
  private readonly operations: number
  private readonly turns: Array<() => void> = []
  private readonly sleepers = new Set<{ readonly at: number; readonly wake: () => void }>()
  private now = 0

  /** Each fiber gives way after so many operations. With fewer than two it never moves: coming back is one. */
  constructor(operations: number) {
    this.operations = operations
  }

  shouldYield(fiber: Fiber.Fiber<unknown, unknown>): boolean {
    return fiber.currentOpCount > this.operations
  }

  makeDispatcher(): Scheduler.SchedulerDispatcher {
    return { scheduleTask: (task) => void this.turns.push(task), flush: () => undefined }
  }

  readonly clock: Clock.Clock = {
    currentTimeMillisUnsafe: () => this.now,
    currentTimeMillis: Effect.sync(() => this.now),
    currentTimeNanosUnsafe: () => BigInt(Math.round(this.now * 1e6)),
    currentTimeNanos: Effect.sync(() => BigInt(Math.round(this.now * 1e6))),
    monotonicTimeNanosUnsafe: () => BigInt(Math.round(this.now * 1e6)),
    monotonicTimeNanos: Effect.sync(() => BigInt(Math.round(this.now * 1e6))),
    sleep: (duration) =>
      Effect.callback<void>((resume) => {
        const sleeper = { at: this.now + Duration.toMillis(duration), wake: () => resume(Effect.void) }
        this.sleepers.add(sleeper)
        return Effect.sync(() => this.sleepers.delete(sleeper))
      }),
  }

  get asleep(): number {
    return this.sleepers.size
  }

  /** One turn of one fiber; false when there is nothing to do. */
  turn(): boolean {
    const task = this.turns.shift()
    if (task !== undefined) {
      task()
      return true
    }
    const [first] = [...this.sleepers].sort((a, b) => a.at - b.at)
    if (first === undefined) return false
    this.now = Math.max(this.now, first.at)
    this.sleepers.delete(first)
    first.wake()
    return true
  }
}
