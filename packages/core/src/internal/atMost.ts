/** Effects that are waited for so long at most, and not a moment longer: one that cannot be interrupted is left behind. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import { startTimer } from "./timer.ts"

/** How it ended, or that it did not in time. */
export type Ended<A, E = unknown> = Exit.Exit<A, E> | "too slow"

/** An effect that runs. */
export interface Started {
  /** Interrupts it; how it ends is still told. */
  readonly interrupt: () => void
  /** Interrupts it, and nobody is told how it ends. */
  readonly leave: () => void
}

const ended: Started = { interrupt: () => undefined, leave: () => undefined }

/** Runs an effect for so long at most, and tells, once, how it ended. */
export const bounded = <A, E>(
  self: Effect.Effect<A, E>,
  millis: number,
  context: Context.Context<never>,
  end: (exit: Ended<A, E>) => void,
): Started => {
  const child = Effect.runForkWith(context)(self)
  const done = child.pollUnsafe()
  if (done !== undefined) {
    end(done)
    return ended
  }
  let over = false
  const finish = (exit: Ended<A, E>): void => {
    if (over) return
    over = true
    cancel()
    end(exit)
  }
  // Clocks cannot sleep for less than a moment.
  const cancel = startTimer(Context.get(context, Clock.Clock), context, Math.max(1, Math.ceil(millis)), () => {
    finish("too slow")
    child.interruptUnsafe()
  })
  child.addObserver(finish)
  return {
    interrupt: () => child.interruptUnsafe(),
    leave: () => {
      over = true
      cancel()
      child.interruptUnsafe()
    },
  }
}

/**
 * How an effect ends within so many milliseconds. When whoever waits is interrupted, so is the effect, which has the rest
 * of its time to end.
 */
export const atMost = <A, E, R>(self: Effect.Effect<A, E, R>, millis: number): Effect.Effect<Ended<A, E>, never, R> =>
  Effect.contextWith((context: Context.Context<R>) =>
    Effect.callback<Ended<A, E>>((resume) => {
      let exit: Ended<A, E> | undefined
      let whenEnded: (() => void) | undefined
      const started = bounded(Effect.provideContext(self, context), millis, context, (how) => {
        exit = how
        resume(Effect.succeed(how))
        whenEnded?.()
      })
      return Effect.callback<void>((left) => {
        started.interrupt()
        if (exit !== undefined) return left(Effect.void)
        whenEnded = () => left(Effect.void)
      })
    }),
  )
