/**
 * The program of `examples/src/swap-the-layer.ts`, with a fake where the
 * provider was. There is no socket, no key and no real time here: an hour of the
 * fake's patience costs nothing.
 */
import { assert, describe, it } from "@effect/vitest"
import { FakeProvider } from "@understudy/testkit"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Model, summarize } from "../src/swap-the-layer.ts"

describe("summarize", () => {
  it.effect("gives the summary", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* summarize("Who's there?"), "A ghost story.")
      const fake = yield* FakeProvider.behind(Model)
      yield* fake.assertLastPrompt("In one sentence: Who's there?")
    }).pipe(Effect.provide(FakeProvider.layer(Model, [FakeProvider.text("A ghost story.")]))),
  )

  it.effect("asks again with half of a text that is too long", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* summarize("To be or not to be"), "He cannot decide.")
      const fake = yield* FakeProvider.behind(Model)
      yield* fake.assertAsked(2)
      yield* fake.assertLastPrompt(/: To be or $/)
    }).pipe(
      Effect.provide(
        FakeProvider.layer(Model, [
          // A failure by its tag. One that the service's type does not have does not compile.
          FakeProvider.fail("ContextLengthExceeded", { limit: 8 }),
          FakeProvider.text("He cannot decide."),
        ]),
      ),
    ),
  )

  it.effect("says when to come back, after an hour of trying", () =>
    Effect.gen(function* () {
      const call = yield* Effect.forkChild(summarize("Who's there?"))
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* Fiber.join(call), "No summary now, please come back.")
    }).pipe(
      Effect.provide(
        FakeProvider.layer(Model, [
          FakeProvider.delay("1 hour", FakeProvider.fail("AllProvidersFailed", { retryable: true })),
        ]),
      ),
    ),
  )
})
