/** A clock on which time passes when it is told, and whose sleepers wake at once. */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

/** A clock that begins at 0. */
export class PassingClock implements Clock.Clock {
  private millis = 0

  readonly currentTimeMillisUnsafe = (): number => this.millis
  readonly currentTimeNanosUnsafe = (): bigint => BigInt(Math.round(this.millis * 1_000_000))
  readonly monotonicTimeNanosUnsafe = (): bigint => this.currentTimeNanosUnsafe()
  readonly currentTimeMillis = Effect.sync(this.currentTimeMillisUnsafe)
  readonly currentTimeNanos = Effect.sync(this.currentTimeNanosUnsafe)
  readonly monotonicTimeNanos = Effect.sync(this.monotonicTimeNanosUnsafe)
  readonly sleep = (duration: Duration.Duration): Effect.Effect<void> =>
    Effect.sync(() => this.pass(Duration.toMillis(duration)))

  /** Lets time pass; it never goes back. */
  pass(millis: number): void {
    if (millis > 0 && Number.isFinite(millis)) this.millis += millis
  }
}
