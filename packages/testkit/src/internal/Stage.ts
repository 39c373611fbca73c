/** Virtual time for the laws: a test clock of their own, and time that passes by itself. */
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"

/** Lets all fibers run until the condition holds, or for so many turns of the scheduler. */
export const settle = (until: () => boolean, turns = 64): Effect.Effect<void> =>
  Effect.gen(function* () {
    for (let turn = 0; turn < turns && !until(); turn++) yield* Effect.yieldNow
  })

/** How many days of virtual time something may take before it counts as never ending. */
const patience = 1000

/**
 * Plays an effect to its end, from instant 0 of a new test clock. All sleeps
 * end in order at their very instants, and none takes real time.
 */
export const play = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<Exit.Exit<A, E>, never, R> =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(self)
    const done = () => fiber.pollUnsafe() !== undefined
    yield* settle(done, 16)
    for (let day = 0; day < patience && !done(); day++) {
      yield* TestClock.adjust("1 day")
      yield* settle(done, 16)
    }
    if (done()) return yield* Fiber.await(fiber)
    yield* Fiber.interrupt(fiber)
    return yield* Effect.die(new Error(`It did not end within ${patience} days of virtual time.`))
  }).pipe(Effect.provide(TestClock.layer()))
