/** One timer on any clock: on the live one a deadline among many, on others a fiber that sleeps. */
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { Deadlines } from "./deadlines.ts"

const live: Clock.Clock = Clock.Clock.defaultValue()

const now = (): number => Number(live.monotonicTimeNanosUnsafe()) / 1_000_000

const deadlines = new Deadlines({
  now,
  set: (fire, millis) => setTimeout(fire, millis),
  clear: (handle) => clearTimeout(handle as ReturnType<typeof setTimeout>),
})

/** Calls `fire` after `millis` on the clock, unless the function it returns is called before. */
export const startTimer = (
  clock: Clock.Clock,
  context: Context.Context<never>,
  millis: number,
  fire: () => void,
): (() => void) => {
  if (clock === live) {
    const deadline = deadlines.add(now(), millis, fire)
    return () => deadline.cancel()
  }
  const fiber = Effect.runForkWith(context)(clock.sleep(Duration.millis(millis)))
  let cancelled = false
  fiber.addObserver((exit) => {
    if (!cancelled && exit._tag === "Success") fire()
  })
  return () => {
    cancelled = true
    fiber.interruptUnsafe()
  }
}
