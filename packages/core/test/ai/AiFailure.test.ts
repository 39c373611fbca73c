import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, DateTime, Duration, Effect, Redacted, Schema } from "effect"
import { AiError } from "effect/ai"
import { AiFailure, LlmError } from "@understudy/core"
import { failure } from "../stub.ts"

const codec = Schema.toCodecJson(AiError.AiError)
const throughJson = (error: AiError.AiError): AiError.AiError =>
  Schema.decodeUnknownSync(codec)(JSON.parse(JSON.stringify(Schema.encodeSync(codec)(error))))

// JSON holds milliseconds, so a duration of a hundred days and some nanoseconds comes back without them.
const json = Schema.toCodecJson(LlmError.LlmError)
const anyFailure = Arbitrary.map(Arbitrary.schema(LlmError.LlmError), (original) =>
  Schema.decodeUnknownSync(json)(Schema.encodeSync(json)(original)),
)

const raised = (reason: AiError.AiErrorReason) => AiError.make({ module: "Test", method: "ask", reason })
const seen = (reason: AiError.AiErrorReason) => AiFailure.fromAiError(raised(reason), { provider: "p", model: "m" })

describe("AiFailure", () => {
  const reasonOf: Record<LlmError.Tag, AiError.AiErrorReason["_tag"]> = {
    RateLimited: "RateLimitError",
    QuotaExhausted: "QuotaExhaustedError",
    Overloaded: "InternalProviderError",
    ProviderUnavailable: "InternalProviderError",
    ConnectionFailed: "InternalProviderError",
    TimedOut: "InternalProviderError",
    DeadlineExceeded: "InternalProviderError",
    StreamInterrupted: "InternalProviderError",
    InvalidResponse: "InvalidResponseError",
    ContentFiltered: "ContentPolicyError",
    ContextLengthExceeded: "InvalidRequestError",
    AuthenticationFailed: "AuthenticationError",
    PermissionDenied: "AuthenticationError",
    ModelNotFound: "InvalidRequestError",
    InvalidRequest: "InvalidRequestError",
    UnknownFailure: "UnknownError",
    CircuitOpen: "InternalProviderError",
    CapacityExceeded: "RateLimitError",
    AllProvidersFailed: "InternalProviderError",
  }

  for (const tag of LlmError.tags) {
    it(`${tag} is ${reasonOf[tag]}, and comes back as itself`, () => {
      const original = failure(tag, "a", { model: "m", status: 418, retryAfter: Duration.seconds(3) })
      const error = AiFailure.toAiError(original)
      assert.strictEqual(error.reason._tag, reasonOf[tag])
      assert.strictEqual(AiFailure.fromAiError(error), original)
      assert.strictEqual(AiFailure.fromAiError(error.reason), original)
      assert.strictEqual(
        AiFailure.fromAiError(AiError.make({ module: "X", method: "y", reason: error.reason })),
        original,
      )
      assert.include(error.message, original.message === "" ? "" : error.reason.message)
      assert.notInclude(Object.keys(error).join(), "understudy")
    })
  }

  it.effect.prop(
    "every failure becomes an AiError without throwing, and comes back: as itself, and equal after JSON",
    { original: anyFailure },
    ({ original }) =>
      Effect.sync(() => {
        const error = AiFailure.toAiError(original, { method: "streamText" })
        assert.strictEqual(AiFailure.fromAiError(error), original)
        const copy = throughJson(error)
        const back = AiFailure.fromAiError(copy)
        assert.deepStrictEqual(back, original)
        assert.strictEqual(back.constructor, original.constructor)
        assert.strictEqual(AiFailure.fromAiError(copy), back)
      }),
    { arbitrary: { runs: 2000 } },
  )

  it("the evidence does not travel, and appears nowhere", () => {
    const original = LlmError.withEvidence(failure("Overloaded"), {
      providerMessage: "SECRET",
      cause: new Error("SECRET"),
    })
    const error = AiFailure.toAiError(original)
    assert.notInclude(JSON.stringify(Schema.encodeSync(codec)(error)), "SECRET")
    assert.notInclude(`${error.message} ${error.stack} ${JSON.stringify(error)}`, "SECRET")
    const back = AiFailure.fromAiError(throughJson(error))
    assert.isUndefined(back.providerMessage)
    assert.isUndefined(back.cause)
  })

  it("when all attempts failed alike, that is the reason, with the least hint", () => {
    const both = new LlmError.AllProvidersFailed({
      provider: "both",
      failures: [failure("RateLimited", "a"), failure("RateLimited", "b")],
      retryable: true,
      retryAfter: Duration.seconds(2),
    })
    const error = AiFailure.toAiError(both)
    assert.strictEqual(error.reason._tag, "RateLimitError")
    assert.deepStrictEqual(error.retryAfter, Duration.seconds(2))
    assert.strictEqual(AiFailure.fromAiError(error), both)
  })

  it("what is not ours in the metadata is not taken for ours", () => {
    const reason = new AiError.UnknownError({ metadata: { understudy: { _tag: "RateLimited", provider: 7 } } })
    assert.strictEqual(seen(reason)._tag, "UnknownFailure")
  })

  describe("an AiError that carries nothing of ours", () => {
    const http = (status: number, body: unknown, headers: Record<string, string> = {}) => ({
      response: { status, headers },
      body: JSON.stringify(body),
    })
    const cases: ReadonlyArray<readonly [string, AiError.AiErrorReason, LlmError.Tag]> = [
      ["a rate limit", new AiError.RateLimitError({}), "RateLimited"],
      ["a spent quota", new AiError.QuotaExhaustedError({}), "QuotaExhausted"],
      ["a bad key", new AiError.AuthenticationError({ kind: "ExpiredKey" }), "AuthenticationFailed"],
      ["a lack of rights", new AiError.AuthenticationError({ kind: "InsufficientPermissions" }), "PermissionDenied"],
      ["a refusal", new AiError.ContentPolicyError({ description: "no" }), "ContentFiltered"],
      ["a wrong request", new AiError.InvalidRequestError({}), "InvalidRequest"],
      ["a provider's fault", new AiError.InternalProviderError({ description: "oops" }), "ProviderUnavailable"],
      ["a strange response", new AiError.InvalidResponseError({ description: "html" }), "InvalidResponse"],
      ["an unfit answer", new AiError.InvalidOutputError({ description: "no" }), "InvalidResponse"],
      [
        "an unfit object",
        new AiError.StructuredOutputError({ description: "no", responseText: "{" }),
        "InvalidResponse",
      ],
      ["no such tool", new AiError.ToolNotFoundError({ toolName: "x", availableTools: [] }), "InvalidResponse"],
      [
        "bad parameters",
        new AiError.ToolParameterValidationError({ toolName: "x", description: "no" }),
        "InvalidResponse",
      ],
      ["bad user input", new AiError.InvalidUserInputError({ description: "no" }), "InvalidRequest"],
      ["an impossible schema", new AiError.UnsupportedSchemaError({ description: "no" }), "InvalidRequest"],
      ["a missing toolkit", new AiError.ToolkitRequiredError({ pendingApprovals: ["x"] }), "InvalidRequest"],
      ["a wrong tool", new AiError.ToolConfigurationError({ toolName: "x", description: "no" }), "InvalidRequest"],
      ["a handler's bug", new AiError.InvalidToolResultError({ toolName: "x", description: "no" }), "UnknownFailure"],
      [
        "a result that cannot be encoded",
        new AiError.ToolResultEncodingError({ toolName: "x", toolResult: 1, description: "no" }),
        "UnknownFailure",
      ],
      ["who knows", new AiError.UnknownError({}), "UnknownFailure"],
      [
        "a broken connection",
        new AiError.NetworkError({ reason: "TransportError", method: "POST", url: "https://x" }),
        "ConnectionFailed",
      ],
      [
        "a request that cannot be made",
        new AiError.NetworkError({ reason: "InvalidUrlError", method: "POST", url: "::" }),
        "InvalidRequest",
      ],
      ["a 404 that effect/ai does not know", new AiError.UnknownError({ http: http(404, {}) }), "ModelNotFound"],
      [
        "a 400 about the window",
        new AiError.InvalidRequestError({
          http: http(400, { error: { code: "context_length_exceeded", message: "too long" } }),
        }),
        "ContextLengthExceeded",
      ],
      [
        "a 429 about the budget",
        new AiError.RateLimitError({ http: http(429, { error: { code: "insufficient_quota", message: "pay" } }) }),
        "QuotaExhausted",
      ],
    ]
    for (const [name, reason, tag] of cases) {
      it(`${name} is ${tag}`, () => {
        const found = seen(reason)
        assert.strictEqual(found._tag, tag)
        assert.strictEqual(found.provider, "p")
        assert.strictEqual(found.model, "m")
        assert.isDefined(found.cause)
      })
    }

    it("the hint comes with it: of the reason, of a header, and of an instant", () => {
      assert.deepStrictEqual(
        seen(new AiError.RateLimitError({ retryAfter: Duration.seconds(7) })).retryAfter,
        Duration.seconds(7),
      )
      assert.deepStrictEqual(
        seen(new AiError.InternalProviderError({ description: "x", http: http(529, {}, { "retry-after": "4" }) }))
          .retryAfter,
        Duration.seconds(4),
      )
      const resetAt = DateTime.makeUnsafe(10_000)
      assert.deepStrictEqual(
        AiFailure.fromAiError(raised(new AiError.QuotaExhaustedError({ resetAt })), { provider: "p", now: 4000 })
          .retryAfter,
        Duration.seconds(6),
      )
    })

    it("its words are evidence, and not in the message", () => {
      const found = seen(new AiError.InternalProviderError({ description: "the prompt said SECRET" }))
      assert.notInclude(`${found.message} ${JSON.stringify(found)}`, "SECRET")
      assert.include(Redacted.value(found.providerMessage!), "SECRET")
    })

    it.effect.prop(
      "every reason becomes a failure without throwing",
      { reason: Arbitrary.schema(AiError.AiErrorReason) },
      ({ reason }) => Effect.sync(() => assert.isTrue(LlmError.isLlmError(AiFailure.fromAiError(reason)))),
      { arbitrary: { runs: 1000 } },
    )
  })
})
