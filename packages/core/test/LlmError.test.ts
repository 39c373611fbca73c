import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Cause, Duration, Effect, Exit, Formatter, Redacted, Schema } from "effect"
import { inspect } from "node:util"
import { LlmError } from "@understudy/core"
import { failed, failure, random, seconds } from "./stub.ts"

const codec = Schema.toCodecJson(LlmError.LlmError)
const encode = Schema.encodeSync(codec)
const decode = Schema.decodeUnknownSync(codec)
const plain = Schema.encodeSync(LlmError.LlmError)

const throughJson = (error: LlmError.LlmError): LlmError.LlmError => decode(JSON.parse(JSON.stringify(encode(error))))

/** One failure of each tag with every field there is. */
const full: { readonly [T in LlmError.Tag]: LlmError.WithTag<T> } = (() => {
  const all = {
    provider: "openai",
    model: "gpt-x",
    status: 418,
    requestId: "req_1",
    retryAfter: Duration.millis(1500),
    retryable: false,
    detail: "One more sentence.",
  }
  const failures = [new LlmError.RateLimited(all), new LlmError.Overloaded({ provider: "claude" })]
  return {
    RateLimited: new LlmError.RateLimited(all),
    QuotaExhausted: new LlmError.QuotaExhausted(all),
    Overloaded: new LlmError.Overloaded(all),
    ProviderUnavailable: new LlmError.ProviderUnavailable(all),
    ConnectionFailed: new LlmError.ConnectionFailed({ ...all, fault: "tls" }),
    TimedOut: new LlmError.TimedOut({ ...all, phase: "first content", limit: seconds(30) }),
    DeadlineExceeded: new LlmError.DeadlineExceeded({ ...all, limit: seconds(90), attemptShare: 0.25, failures }),
    StreamInterrupted: new LlmError.StreamInterrupted({
      ...all,
      committed: true,
      failure: new LlmError.AllProvidersFailed({ ...all, failures }),
      delivered: { parts: 3, characters: 20, inside: "tool call" },
    }),
    InvalidResponse: new LlmError.InvalidResponse({ ...all, kind: "content" }),
    ContentFiltered: new LlmError.ContentFiltered({ ...all, stage: "prompt", failures }),
    ContextLengthExceeded: new LlmError.ContextLengthExceeded({ ...all, limit: 8192, requested: 9000, failures }),
    AuthenticationFailed: new LlmError.AuthenticationFailed({ ...all, credential: "call" }),
    PermissionDenied: new LlmError.PermissionDenied({ ...all, credential: "call" }),
    ModelNotFound: new LlmError.ModelNotFound(all),
    InvalidRequest: new LlmError.InvalidRequest({ ...all, failures }),
    UnknownFailure: new LlmError.UnknownFailure(all),
    CircuitOpen: new LlmError.CircuitOpen({ ...all, state: "half-open" }),
    CapacityExceeded: new LlmError.CapacityExceeded(all),
    AllProvidersFailed: new LlmError.AllProvidersFailed({ ...all, failures }),
  }
})()

describe("LlmError", () => {
  describe("survives JSON", () => {
    it.each(LlmError.tags)("with every field: %s", (tag) => {
      const error = full[tag]
      assert.strictEqual(error._tag, tag)
      const back = throughJson(error)
      assert.deepStrictEqual(back, error)
      assert.instanceOf(back, error.constructor as new () => unknown)
      assert.strictEqual(back.message, error.message)
      assert.isTrue(LlmError.isLlmError(back))
    })

    it.effect.prop(
      "whatever it holds",
      { error: Arbitrary.schema(LlmError.LlmError) },
      ({ error }) =>
        Effect.sync(() => {
          const json = JSON.stringify(encode(error))
          const back = throughJson(error)
          assert.strictEqual(JSON.stringify(encode(back)), json)
          assert.strictEqual(back._tag, error._tag)
        }),
      { arbitrary: { runs: 400, seed: 1, size: 20 } },
    )

    it("as what JSON.stringify makes of it, too", () => {
      for (const tag of LlmError.tags) {
        const json = JSON.parse(JSON.stringify(full[tag]))
        assert.strictEqual(json.message, full[tag].message)
        assert.deepStrictEqual(decode(json), full[tag])
      }
    })

    it("with durations in milliseconds", () => {
      const json = encode(full.TimedOut) as Record<string, unknown>
      assert.strictEqual(json["retryAfter"], 1500)
      assert.strictEqual(json["limit"], 30_000)
    })
  })

  describe("says", () => {
    it.each(LlmError.tags)("who was asked, in whole sentences without holes: %s", (tag) => {
      for (const error of [full[tag], failure(tag, "openai"), failure(tag, "openai", { model: "gpt-x" })]) {
        assert.include(error.message, "openai")
        if (error.model !== undefined && tag !== "AllProvidersFailed") assert.include(error.message, "gpt-x")
        if (error.detail !== undefined && tag !== "AllProvidersFailed") assert.include(error.message, error.detail)
        assert.notMatch(error.message, /undefined|null|NaN|\[object|\s\s|\.\./)
        assert.match(error.message, /^\S.*\.$/s)
      }
    })

    it("which candidates of a composition failed, and how", () => {
      const { message } = new LlmError.AllProvidersFailed({
        provider: "both",
        failures: [failure("RateLimited", "openai", { model: "gpt-x" }), failure("CircuitOpen", "claude")],
      })
      assert.strictEqual(
        message,
        "No provider of both answered. Tried: openai (gpt-x): RateLimited, claude: CircuitOpen.",
      )
    })

    it("whether waiting helps", () => {
      assert.include(failure("RateLimited", "a", { retryAfter: seconds(7) }).message, "It asks to wait 7s.")
      assert.include(failure("RateLimited", "a", { retryable: false }).message, "waiting does not help")
    })
  })

  describe("keeps its evidence to itself", () => {
    const secret = "sk-THE-SECRET"
    /** A failure of the tag with a key in the provider's words and in what was thrown, and one that carries it. */
    const planted = (tag: LlmError.Tag): ReadonlyArray<LlmError.LlmError> => {
      const error = LlmError.withEvidence(failure(tag, "openai"), {
        providerMessage: `Incorrect API key provided: ${secret}`,
        cause: Object.assign(new Error(`401 ${secret}`), { request: { headers: { authorization: secret } } }),
      })
      return [
        error,
        new LlmError.AllProvidersFailed({ provider: "all", failures: [error] }),
        new LlmError.StreamInterrupted({ provider: "openai", committed: true, failure: error }),
        new LlmError.DeadlineExceeded({ provider: "openai", failures: [error] }),
      ]
    }
    const ways: ReadonlyArray<readonly [string, (error: LlmError.LlmError) => unknown]> = [
      ["its message", (error) => error.message],
      ["its stack", (error) => error.stack],
      ["a string", String],
      ["JSON.stringify", (error) => JSON.stringify(error)],
      ["JSON.stringify of a copy", (error) => JSON.stringify({ ...error })],
      ["the schema's JSON", (error) => JSON.stringify(encode(error))],
      ["the schema's encoding", (error) => inspect(plain(error), { depth: null })],
      ["inspect", (error) => inspect(error, { depth: null })],
      ["inspect of all that is hidden", (error) => inspect(error, { depth: null, showHidden: true })],
      ["Formatter", (error) => Formatter.format(error)],
      ["Cause.pretty", (error) => Cause.pretty(Cause.fail(error))],
      ["an exit", (error) => inspect(Exit.fail(error), { depth: null })],
      ["the JSON of an exit", (error) => JSON.stringify(Exit.fail(error))],
      ["a defect's pretty print", (error) => Cause.pretty(Cause.die(error))],
    ]
    it.each(ways)("in %s", (_, show) => {
      for (const tag of LlmError.tags) {
        for (const error of planted(tag)) {
          const shown = String(show(error))
          assert.isNotEmpty(shown)
          assert.notInclude(shown, secret, tag)
        }
      }
    })

    it("until an operator unwraps it on purpose", () => {
      const cause = new Error("thrown")
      const error = failure("AuthenticationFailed")
      assert.strictEqual(LlmError.withEvidence(error, { providerMessage: secret, cause }), error)
      assert.strictEqual(error.providerMessage && Redacted.value(error.providerMessage), secret)
      assert.strictEqual(error.cause && Redacted.value(error.cause), cause)
    })

    it("and has none when there is none", () => {
      const error = LlmError.withEvidence(failure("RateLimited"), { providerMessage: "", cause: undefined })
      assert.isUndefined(error.providerMessage)
      assert.isUndefined(error.cause)
    })

    it("in equality: two failures that say the same are equal, whatever the provider wrote", () => {
      const one = LlmError.withEvidence(failure("Overloaded"), { providerMessage: "one" })
      const two = LlmError.withEvidence(failure("Overloaded"), { providerMessage: "two" })
      assert.deepStrictEqual(encode(one), encode(two))
    })
  })

  describe("keeps at most 2048 bytes of what the provider wrote", () => {
    const bytes = (text: string) => new TextEncoder().encode(text).length
    const kept = (providerMessage: string | Redacted.Redacted<string>) => {
      const message = LlmError.withEvidence(failure("RateLimited"), { providerMessage }).providerMessage
      return message === undefined ? "" : Redacted.value(message)
    }

    it("and cuts no character in two, in any script", () => {
      const alphabets = ["abc", "äöü€", "漢字かな", "🎭🎬", "a€漢🎭"]
      for (let seed = 0; seed < 400; seed++) {
        const r = random(seed)
        const letters = [...r.pick(alphabets)]
        const length = r.pick([r.int(0, 4000), r.int(500, 700), r.int(2040, 2060)])
        const text = Array.from({ length }, () => r.pick(letters)).join("")
        const out = kept(text)
        assert.isTrue(text.startsWith(out))
        assert.isAtMost(bytes(out), 2048)
        if (bytes(text) <= 2048) assert.strictEqual(out, text)
        else assert.isAtLeast(bytes(out), 2045)
        assert.isTrue(out.isWellFormed())
      }
    })

    it("whether it comes as a string or redacted", () => {
      assert.strictEqual(bytes(kept(Redacted.make("x".repeat(10_000)))), 2048)
    })
  })

  describe("has guards", () => {
    it("that know its members, and nothing that only looks like one", () => {
      for (const tag of LlmError.tags) {
        assert.isTrue(LlmError.isLlmError(failure(tag)))
        for (const other of LlmError.tags) assert.strictEqual(LlmError.is(other)(failure(tag)), other === tag)
      }
      const lookalikes = [
        undefined,
        null,
        "RateLimited",
        { _tag: "RateLimited", provider: "a", retryable: true },
        Object.assign(new Error(), { _tag: "RateLimited" }),
        { ...failure("RateLimited") },
        { _tag: "constructor" },
        { _tag: 5 },
        new Error("x"),
      ]
      for (const u of lookalikes) assert.isFalse(LlmError.isLlmError(u), inspect(u))
    })

    it.effect("and members that catchTag, yield and throw know", () =>
      Effect.gen(function* () {
        const caught = yield* Effect.fail<LlmError.LlmError>(failure("Overloaded")).pipe(
          Effect.catchTag("Overloaded", (error) => Effect.succeed(error.provider)),
        )
        assert.strictEqual(caught, "a")
        const yielded = Effect.gen(function* () {
          return yield* failure("RateLimited")
        })
        const exit = yield* Effect.exit(yielded)
        assert.strictEqual(failed(exit)._tag, "RateLimited")
        assert.instanceOf(failure("RateLimited"), Error)
      }),
    )
  })

  it("says by default whether the same request has a chance later, and each failure can say otherwise", () => {
    for (const tag of LlmError.tags) {
      assert.strictEqual(failure(tag).retryable, LlmError.retryableByDefault[tag], tag)
      for (const retryable of [true, false]) assert.strictEqual(failure(tag, "a", { retryable }).retryable, retryable)
    }
  })

  it("lists its tags once each, in the order of the union", () => {
    assert.strictEqual(LlmError.tags.length, 19)
    assert.strictEqual(new Set(LlmError.tags).size, 19)
    assert.deepStrictEqual<ReadonlyArray<string>>(
      LlmError.tags,
      LlmError.LlmError.members.map((member) => member.identifier),
    )
    assert.deepStrictEqual([...LlmError.tags].sort(), Object.keys(LlmError.retryableByDefault).sort())
  })
})
