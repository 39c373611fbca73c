/** How long the n-th opening in a row lasts: the same, from a list, growing, or as a schedule says. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import type { Chance, OpenTime } from "./rules.ts"

/** The n-th of the list; its last entry repeats. */
export const listed =
  (millis: ReadonlyArray<number>): OpenTime =>
  (opening) =>
    millis[Math.min(opening, millis.length) - 1] ?? 0

/** `base`, times `factor` for each opening more, at most `cap`, and longer by up to the share `jitter`. */
export const growing =
  (numbers: {
    readonly base: number
    readonly factor: number
    readonly cap: number
    readonly jitter: number
  }): OpenTime =>
  (opening, chance) => {
    const { base, cap, factor, jitter } = numbers
    const millis = Math.min(cap, base * factor ** (opening - 1))
    return jitter === 0 ? millis : millis * (1 + jitter * chance.nextDoubleUnsafe())
  }

/** The delays of a schedule; its last one repeats. Elapsed time, for a schedule that looks at it, is the sum of the delays. */
export const scheduled = (schedule: Schedule.Schedule<unknown, number>): OpenTime => {
  type Step = (now: number, input: number) => Effect.Effect<[unknown, Duration.Duration], unknown>
  let step: Step | undefined
  let elapsed = 0
  let last = 0
  return (opening, chance) => {
    if (step === undefined || opening === 1) {
      step = Effect.runSync(Schedule.toStep(schedule)) as Step
      elapsed = 0
      last = 0
    }
    const exit = Effect.runSyncExit(Effect.provideService(step(elapsed, opening), Random.Random, randomOf(chance)))
    if (Exit.isSuccess(exit)) last = Duration.toMillis(exit.value[1])
    elapsed += last
    return last
  }
}

const randomOf = (chance: Chance): typeof Random.Random.Service => ({
  nextDoubleUnsafe: () => chance.nextDoubleUnsafe(),
  nextIntUnsafe: () => Math.floor((chance.nextDoubleUnsafe() * 2 - 1) * Number.MAX_SAFE_INTEGER),
})
