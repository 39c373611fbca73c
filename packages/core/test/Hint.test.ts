import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import { Hint } from "../src/index.ts"

const millis = (source: Hint.Source): number | undefined => {
  const hint = Hint.read(source)
  return hint === undefined ? undefined : Duration.toMillis(hint)
}

const date = "Wed, 01 Jan 2025 00:00:00 GMT"
const now = Date.parse(date)

describe("Hint", () => {
  describe("reads retry-after", () => {
    const spellings: ReadonlyArray<readonly [string, number | undefined]> = [
      ["30", 30_000],
      ["1.5", 1500],
      [" 7 ", 7000],
      ["86400", 86_400_000],
      ["2m30s", 150_000],
      ["500ms", 500],
      ["Wed, 01 Jan 2025 00:02:00 GMT", 120_000],
      ["2025-01-01T00:00:10Z", 10_000],
      ["1735689660", 60_000],
      ["5, 5", 5000],
      ["0", undefined],
      ["-1", undefined],
      ["NaN", undefined],
      ["soon", undefined],
      ["soon 5", undefined],
      ["", undefined],
      ["Infinity", undefined],
      ["Tue, 31 Dec 2024 23:59:59 GMT", undefined],
    ]
    for (const [value, expected] of spellings) {
      it(`${JSON.stringify(value)} is ${expected === undefined ? "no hint" : `${expected} ms`}`, () => {
        assert.strictEqual(millis({ headers: { "Retry-After": value, Date: date } }), expected)
        assert.strictEqual(millis({ headers: { "retry-after": value }, now }), expected)
      })
    }

    it("takes an instant by the provider's clock before ours, and by none not at all", () => {
      const headers = { "retry-after": "Wed, 01 Jan 2025 00:00:30 GMT" }
      assert.strictEqual(millis({ headers: { ...headers, date }, now: now + 25_000 }), 30_000)
      assert.strictEqual(millis({ headers, now: now + 25_000 }), 5000)
      assert.isUndefined(millis({ headers }))
    })

    it("prefers milliseconds, unless they say nothing", () => {
      assert.strictEqual(millis({ headers: { "retry-after-ms": "644", "retry-after": "1" } }), 644)
      assert.strictEqual(millis({ headers: { "x-ms-retry-after-ms": "2500", "retry-after": "3" } }), 2500)
      assert.strictEqual(millis({ headers: { "retry-after-ms": "0", "retry-after": "1" } }), 1000)
    })
  })

  describe("reads messages", () => {
    const messages: ReadonlyArray<readonly [string, number | undefined]> = [
      ["Please try again in 644ms. Visit https://example.com", 644],
      ["Please try again in 9.816s.", 9816],
      ["Please try again in 7m12s.", 432_000],
      ["Please try again in 1h2m3s.", 3_723_000],
      ["Please try again in 1m47.5854s.", 107_585.4],
      ["Please retry after 86400 seconds.", 86_400_000],
      ["Please retry in 48.939935699s.", 48_939.935699],
      ["Please wait 42 seconds before retrying.", 42_000],
      ["Your quota will reset after 19h14m47s.", 69_287_000],
      ["Try again in 5 minutes and 30 seconds", 330_000],
      ["Try again in 2 hours, 3 minutes", 7_380_000],
      ["Quota will be replenished in 01:23:45.", 5_025_000],
      ["Quota will be replenished in 1.00:00:10.", 86_410_000],
      ["Expected available in 20 seconds.", 20_000],
      ["Retry-After: 30", 30_000],
      ["You will regain access on 2025-01-02 at 00:00 UTC.", 86_400_000],
      ["Limits reset at 2025-01-01T00:01:00Z.", 60_000],
      ["The limit is 60 requests per 60 seconds. Please try again later.", undefined],
      ["Retry your request with the ID of an inference profile.", undefined],
      ["Please retry after a short wait", undefined],
      ["Too many requests in 10 seconds", undefined],
      ["try again in 0s", undefined],
      ["Retry after 3 attempts", undefined],
    ]
    for (const [message, expected] of messages) {
      it(`${message} (${expected ?? "no hint"})`, () => {
        const found = millis({ message, now })
        if (expected === undefined) assert.isUndefined(found)
        else assert.closeTo(found ?? 0, expected, 0.01)
        const inBody = millis({ body: JSON.stringify({ error: { message } }), now })
        assert.strictEqual(inBody, found)
      })
    }
  })

  describe("reads bodies", () => {
    it("Google's RetryInfo, in either form and however deep it was quoted", () => {
      const error = (retryDelay: unknown) => ({
        error: { code: 429, details: [{ "@type": "type.googleapis.com/google.rpc.RetryInfo", retryDelay }] },
      })
      assert.strictEqual(millis({ body: JSON.stringify([error("34.4s")]) }), 34_400)
      assert.strictEqual(millis({ body: error({ seconds: "5", nanos: 500_000_000 }) }), 5500)
      const quoted = { error: { message: JSON.stringify({ error: { message: JSON.stringify(error("20s")) } }) } }
      assert.strictEqual(millis({ body: JSON.stringify(quoted) }), 20_000)
    })

    it("fields of seconds and milliseconds", () => {
      assert.strictEqual(millis({ body: { error: { retry_after: 3 } } }), 3000)
      assert.strictEqual(millis({ body: { error: { metadata: { retry_after_seconds: 4 } } } }), 4000)
      assert.strictEqual(millis({ body: { retryAfterMs: 250 } }), 250)
      assert.strictEqual(millis({ body: { error: "Model is loading", estimated_time: 20.5 } }), 20_500)
    })

    it("but no prompt that is echoed", () => {
      assert.isUndefined(
        millis({
          body: JSON.stringify({
            error: { message: "Bad" },
            messages: [{ retry_after: 9, content: "try again in 5s" }],
          }),
        }),
      )
    })
  })

  describe("reads the exhausted bucket", () => {
    it("and not those with something left", () => {
      const headers = {
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "9s",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "6m0s",
      }
      assert.strictEqual(millis({ headers }), 360_000)
      assert.isUndefined(millis({ headers, buckets: false }))
      assert.isUndefined(millis({ headers: { ...headers, "x-ratelimit-remaining-tokens": "1" } }))
      assert.isUndefined(
        millis({ headers: { ...headers, "x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "0" } }),
      )
    })

    it("the longest when several are exhausted", () => {
      const headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "2s",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1s",
      }
      assert.strictEqual(millis({ headers }), 2000)
    })

    it("in every unit of a reset", () => {
      const reset = (value: string) =>
        millis({ headers: { date, "x-ratelimit-remaining": "0", "x-ratelimit-reset": value } })
      assert.strictEqual(reset("17"), 17_000)
      assert.strictEqual(reset("1735689620"), 20_000)
      assert.strictEqual(reset("1735689620000"), 20_000)
      assert.strictEqual(reset("2025-01-01T00:00:20Z"), 20_000)
      assert.strictEqual(reset("2m59.56s"), 179_560)
      assert.isUndefined(reset("1735689500"))
    })

    it("of Anthropic, of Kong, of the RateLimit drafts, and nested by OpenRouter", () => {
      assert.strictEqual(
        millis({
          headers: {
            date,
            "anthropic-ratelimit-tokens-remaining": "0",
            "anthropic-ratelimit-tokens-reset": "2025-01-01T00:00:09Z",
          },
        }),
        9000,
      )
      assert.strictEqual(millis({ headers: { "ratelimit-remaining": "0", "ratelimit-reset": "17" } }), 17_000)
      assert.strictEqual(millis({ headers: { ratelimit: '"default";r=0;t=12' } }), 12_000)
      const metadata = { headers: { "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1735689660000" } }
      assert.strictEqual(millis({ headers: { date }, body: { error: { message: "x", code: 429, metadata } } }), 60_000)
    })
  })

  it("tells where it found it", () => {
    assert.strictEqual(Hint.explain({ headers: { "retry-after": "1" } })?.from, "header retry-after")
    assert.strictEqual(Hint.explain({ message: "Try again in 5s" })?.from, "message")
    assert.strictEqual(
      Hint.explain({ headers: { "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "5s" } })?.from,
      "reset of the exhausted limit of tokens",
    )
  })
})
