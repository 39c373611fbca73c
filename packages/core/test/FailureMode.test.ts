import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { FailureMode, LlmError } from "@understudy/core"
import { failure } from "./stub.ts"

type Row = readonly [
  retryable: boolean,
  sameAgain: FailureMode.SameAgain,
  next: FailureMode.Next,
  leaves: "itself" | "inside",
  health: FailureMode.Health,
  ladder: boolean,
  http: number,
]

/** The table of the design, for a failure of which nothing more is known. */
const design: { readonly [T in LlmError.Tag]: Row } = {
  RateLimited: [true, "yes", "yes", "inside", "failure", true, 429],
  QuotaExhausted: [false, "no", "yes", "inside", "opens", true, 503],
  Overloaded: [true, "yes", "yes", "inside", "failure", true, 503],
  ProviderUnavailable: [true, "once", "yes", "inside", "failure", true, 503],
  ConnectionFailed: [true, "yes", "yes", "inside", "failure", true, 503],
  TimedOut: [true, "alone", "yes", "inside", "failure", true, 504],
  DeadlineExceeded: [true, "no", "no", "itself", "ignored", true, 504],
  StreamInterrupted: [true, "yes", "yes", "inside", "failure", true, 502],
  InvalidResponse: [true, "yes", "yes", "inside", "failure", true, 502],
  ContentFiltered: [false, "no", "if allowed", "itself", "ignored", true, 422],
  ContextLengthExceeded: [false, "no", "larger window", "itself", "ignored", true, 413],
  AuthenticationFailed: [false, "no", "yes", "inside", "opens", true, 401],
  PermissionDenied: [false, "no", "yes", "inside", "failure", true, 403],
  ModelNotFound: [false, "no", "yes", "inside", "opens", true, 404],
  InvalidRequest: [false, "no", "yes", "itself", "ignored", false, 400],
  UnknownFailure: [false, "no", "yes", "inside", "failure", true, 500],
  CircuitOpen: [true, "no", "yes", "inside", "ignored", true, 503],
  CapacityExceeded: [true, "yes", "yes", "inside", "ignored", true, 503],
  AllProvidersFailed: [false, "no", "yes", "inside", "ignored", true, 503],
}

const cellsOf = (error: LlmError.LlmError, table?: FailureMode.Table): Row => {
  const row = FailureMode.row(error, table)
  return [
    FailureMode.retryable(error, table),
    FailureMode.sameAgain(error, table),
    FailureMode.next(error, table),
    row.leaves,
    FailureMode.health(error, table),
    row.ladder,
    FailureMode.httpStatus(error, table),
  ]
}

describe("FailureMode", () => {
  it.each(LlmError.tags)("treats a failure as the design says: %s", (tag) => {
    assert.deepStrictEqual(cellsOf(failure(tag)), design[tag])
    assert.isNotEmpty(FailureMode.table[tag].strategy)
    assert.strictEqual(FailureMode.isFinal(failure(tag)), design[tag][3] === "itself")
  })

  it("has a row for each tag, and none besides", () => {
    assert.deepStrictEqual(Object.keys(FailureMode.table), [...LlmError.tags])
  })

  it("treats some failures of a tag otherwise", () => {
    const authentication = new LlmError.AuthenticationFailed({ provider: "a", credential: "call" })
    const permission = new LlmError.PermissionDenied({ provider: "a", credential: "call" })
    const content = new LlmError.InvalidResponse({ provider: "a", kind: "content" })
    const committed = new LlmError.StreamInterrupted({ provider: "a", committed: true })
    const carrying = (f: LlmError.LlmError) =>
      new LlmError.StreamInterrupted({ provider: "a", committed: true, failure: f })
    assert.strictEqual(FailureMode.health(authentication), "ignored")
    assert.strictEqual(FailureMode.health(permission), "ignored")
    assert.strictEqual(FailureMode.health(content), "ignored")
    assert.strictEqual(FailureMode.sameAgain(content), "no")
    assert.strictEqual(FailureMode.sameAgain(committed), "no")
    assert.strictEqual(FailureMode.next(committed), "no")
    assert.strictEqual(FailureMode.health(committed), "failure")
    for (const tag of LlmError.tags) {
      assert.strictEqual(FailureMode.health(carrying(failure(tag))), FailureMode.health(failure(tag)), tag)
    }
    const share = (attemptShare: number) =>
      FailureMode.health(new LlmError.DeadlineExceeded({ provider: "a", attemptShare }))
    assert.deepStrictEqual([share(0), share(0.49), share(0.5), share(1)], ["ignored", "ignored", "failure", "failure"])
  })

  it("never asks again for what is not retryable, and believes the failure itself in that", () => {
    for (const tag of LlmError.tags.filter((tag) => tag !== "TimedOut")) {
      assert.strictEqual(FailureMode.sameAgain(failure(tag, "a", { retryable: false })), "no", tag)
    }
    for (const tag of LlmError.tags) {
      for (const retryable of [true, false]) {
        assert.strictEqual(FailureMode.retryable(failure(tag, "a", { retryable })), retryable)
      }
    }
  })

  it("gives a failed composition the status that all its attempts share, or else 503", () => {
    const all = (...tags: ReadonlyArray<LlmError.Tag>) =>
      FailureMode.httpStatus(
        new LlmError.AllProvidersFailed({ provider: "all", failures: tags.map((tag) => failure(tag)) }),
      )
    assert.strictEqual(all("RateLimited", "RateLimited"), 429)
    assert.strictEqual(all("AuthenticationFailed"), 401)
    assert.strictEqual(all("RateLimited", "TimedOut"), 503)
    assert.strictEqual(all(), 503)
  })

  describe("overrides", () => {
    it("replace cells by value or by a function, and nothing else", () => {
      const table = FailureMode.override({
        RateLimited: { sameAgain: "no", http: (f) => (f.retryable ? 503 : 400) },
        InvalidRequest: { next: "no" },
      })
      assert.deepStrictEqual(cellsOf(failure("RateLimited"), table), [
        true,
        "no",
        "yes",
        "inside",
        "failure",
        true,
        503,
      ])
      assert.strictEqual(FailureMode.httpStatus(failure("RateLimited", "a", { retryable: false }), table), 400)
      assert.strictEqual(FailureMode.next(failure("InvalidRequest"), table), "no")
      for (const tag of LlmError.tags) {
        if (tag !== "RateLimited" && tag !== "InvalidRequest")
          assert.deepStrictEqual(cellsOf(failure(tag), table), design[tag])
        assert.deepStrictEqual(cellsOf(failure(tag)), design[tag])
      }
    })

    it("add up", () => {
      const once = FailureMode.override({ RateLimited: { http: 503 } })
      const twice = FailureMode.override({ RateLimited: { next: "no" } }, once)
      assert.strictEqual(FailureMode.httpStatus(failure("RateLimited"), twice), 503)
      assert.strictEqual(FailureMode.next(failure("RateLimited"), twice), "no")
    })

    it.effect("come from a layer", () =>
      Effect.gen(function* () {
        assert.strictEqual(FailureMode.httpStatus(failure("Overloaded"), yield* FailureMode.FailureModes), 529)
      }).pipe(Effect.provide(FailureMode.layer({ Overloaded: { http: 529 } }))),
    )

    const owned = FailureMode.override(FailureMode.operatorOwned)
    it("for services with their own keys make 401, 403 and 404 about the operator's key or model 500", () => {
      const call = { provider: "a", credential: "call" } as const
      for (const tag of ["AuthenticationFailed", "PermissionDenied", "ModelNotFound"] as const) {
        assert.strictEqual(FailureMode.httpStatus(failure(tag), owned), 500)
      }
      assert.strictEqual(FailureMode.httpStatus(new LlmError.AuthenticationFailed(call), owned), 401)
      assert.strictEqual(FailureMode.httpStatus(new LlmError.PermissionDenied(call), owned), 403)
    })

    it("hold inside a failed composition, too", () => {
      for (const tag of ["AuthenticationFailed", "PermissionDenied", "ModelNotFound"] as const) {
        const all = new LlmError.AllProvidersFailed({ provider: "all", failures: [failure(tag), failure(tag, "b")] })
        assert.strictEqual(FailureMode.httpStatus(all, owned), 500, tag)
      }
    })

    it("hold inside an interrupted stream, too", () => {
      const table = FailureMode.override({ Overloaded: { health: "ignored" } })
      const carrying = new LlmError.StreamInterrupted({
        provider: "a",
        committed: true,
        failure: failure("Overloaded"),
      })
      assert.strictEqual(FailureMode.health(carrying, table), "ignored")
    })
  })

  it("computes the tag sets from the table: the values are those of the types", () => {
    const again = LlmError.tags.filter((tag) =>
      [true, false].some((retryable) => FailureMode.sameAgain(failure(tag, "a", { retryable })) !== "no"),
    )
    assert.deepStrictEqual([...FailureMode.retryableTags], again)
    // One object for each type, with a property for every member: the compiler checks that none is missing or too many.
    const retryable: Record<FailureMode.RetryableTag, true> = {
      RateLimited: true,
      Overloaded: true,
      ProviderUnavailable: true,
      ConnectionFailed: true,
      TimedOut: true,
      StreamInterrupted: true,
      InvalidResponse: true,
      CapacityExceeded: true,
    }
    const final: Record<FailureMode.FinalTag, true> = {
      DeadlineExceeded: true,
      ContentFiltered: true,
      ContextLengthExceeded: true,
      InvalidRequest: true,
    }
    const notOnTheLadder: Record<Exclude<LlmError.Tag, FailureMode.LadderTag>, true> = { InvalidRequest: true }
    assert.deepStrictEqual(Object.keys(retryable), [...FailureMode.retryableTags])
    assert.deepStrictEqual(
      Object.keys(final),
      LlmError.tags.filter((tag) => FailureMode.isFinal(failure(tag))),
    )
    assert.deepStrictEqual(
      Object.keys(notOnTheLadder),
      LlmError.tags.filter((tag) => !FailureMode.table[tag].ladder),
    )
  })
})
