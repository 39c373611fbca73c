/** One timer on any clock, without a fiber when the clock is the live one. */
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

/** The longest delay that a platform timer takes. */
const longest = 0x7fff_ffff

const live: Clock.Clock = Clock.Clock.defaultValue()

const arm = (millis: number, fire: () => void): (() => void) => {
  let handle: ReturnType<typeof setTimeout>
  const set = (left: number): void => {
    handle = setTimeout(() => (left > longest ? set(left - longest) : fire()), Math.min(left, longest))
  }
  set(millis)
  return () => clearTimeout(handle)
}

/** Calls `fire` after `millis` on the clock, unless the function it returns is called before. */
export const startTimer = (
  clock: Clock.Clock,
  context: Context.Context<never>,
  millis: number,
  fire: () => void,
): (() => void) => {
  if (clock === live) return arm(millis, fire)
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
