/** One timer on any clock: on the live one a deadline among many, on others a fiber that sleeps. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { type Alarm, type Deadline, Deadlines } from "./deadlines.ts"

/** The clock of whoever was given none: the very instance, which `defaultValue` would make anew. */
const live: Clock.Clock = Context.get(Context.empty(), Clock.Clock)

const now = (): number => performance.now()

/**
 * Milliseconds on the clock that only moves forward, from an origin of its own.
 * That of the live clock is read without the detour of a big integer.
 */
export const nowMillis = (clock: Clock.Clock): number =>
  clock === live ? now() : Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000

const deadlines = new Deadlines({
  now,
  set: (fire, millis) => setTimeout(fire, millis),
  clear: (handle) => clearTimeout(handle as ReturnType<typeof setTimeout>),
})

/** The alarm fires after `millis` on the clock, of which it is `now`, unless it is cancelled before. */
export const startDeadline = (
  clock: Clock.Clock,
  context: Context.Context<never>,
  now: number,
  millis: number,
  alarm: Alarm,
): Deadline => {
  if (clock === live) return deadlines.add(now, millis, alarm)
  return { cancel: startTimer(clock, context, millis, () => alarm.fire()) }
}

/** Calls `fire` after `millis` on the clock, unless the function it returns is called before. */
export const startTimer = (
  clock: Clock.Clock,
  context: Context.Context<never>,
  millis: number,
  fire: () => void,
): (() => void) => {
  if (clock === live) {
    const deadline = deadlines.add(now(), millis, { fire })
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
