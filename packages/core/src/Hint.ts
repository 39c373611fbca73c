/**
 * The hint: when the failed provider said to come back, from every spelling of
 * it, as one `Duration`.
 *
 * What was said is kept unchanged; whoever uses it caps it. Zero, negative
 * numbers, instants in the past and what is no number are no hint.
 *
 * **Details**
 *
 * The first of these that says something is taken:
 *
 * | where | spelling |
 * |---|---|
 * | headers in milliseconds | `retry-after-ms` (OpenAI, Azure), `x-ms-retry-after-ms` (Azure), `grpc-retry-pushback-ms` |
 * | `retry-after` | seconds, also with a fraction; an HTTP date (RFC 9110, 10.2.3) or RFC 3339 |
 * | body | Google's `RetryInfo.retryDelay`, and fields such as `retry_after` (seconds) and `retry_after_ms` |
 * | message | `try again in 644ms`, `9.816s`, `7m12s`, `1h2m3s`, `01:02:03`, `retry after 86400 seconds` |
 * | body | Hugging Face's `estimated_time` (seconds) |
 * | an exhausted bucket | `x-ratelimit-remaining-tokens: 0` with `x-ratelimit-reset-tokens`; Anthropic's `anthropic-ratelimit-*`, `ratelimit-reset`, and headers that OpenRouter nests in `error.metadata.headers` |
 *
 * **Gotchas**
 *
 * - Instants are relative to the `date` header, which is the provider's clock,
 *   and only without one to `now`. With neither, an instant is no hint.
 * - A bucket counts only where it is exhausted. A plain `x-ratelimit-reset`
 *   without any `remaining` counts, since it stands on no other answers.
 */
import * as Predicate from "effect/Predicate"
import * as Duration from "effect/Duration"
import * as Said from "./internal/classifier/said.ts"

/** Where a hint is looked for. */
export interface Source {
  /** The response headers; their names may have any case. */
  readonly headers?: Readonly<Record<string, string | undefined>>
  /** The body, as text or already parsed. At most 64 KiB of a text are looked at. */
  readonly body?: unknown
  /** The provider's message, where it is known apart from the body. */
  readonly message?: string
  /** The present, in milliseconds since 1970, for instants when there is no `date` header. */
  readonly now?: number
  /** Whether the resets of exhausted buckets count. Default: true. */
  readonly buckets?: boolean
}

/** A hint, and where it was found. */
export interface Explained {
  readonly after: Duration.Duration
  /** Where it was found, in words for operators: `header retry-after`. */
  readonly from: string
}

/** When the provider said to come back, or `undefined` when it did not. */
export const read = (source: Source): Duration.Duration | undefined => explain(source)?.after

/** When the provider said to come back, and where it said so. */
export const explain = (source: Source): Explained | undefined => {
  const said = Said.read(source.body, {}, source.message === undefined ? {} : { messages: [source.message] })
  return ofSaid(said, Said.lowerCase(source.headers), source)
}

/**
 * The same, of a body that was read already.
 *
 * @internal
 */
export const ofSaid = (
  said: Said.Said,
  headers: Said.Headers,
  options: { readonly now?: number; readonly buckets?: boolean },
): Explained | undefined => {
  const date = Date.parse(headers["date"] ?? "")
  const now = Number.isNaN(date) ? options.now : date
  return (
    fromHeaders(headers, now) ??
    fromFields(said, now) ??
    fromMessages(said, now) ??
    fromEstimate(said) ??
    (options.buckets === false ? undefined : fromBuckets(said, headers, now))
  )
}

const hint = (millis: number | undefined, from: string): Explained | undefined =>
  millis !== undefined && Number.isFinite(millis) && millis > 0 ? { after: Duration.millis(millis), from } : undefined

// ---------------------------------------------------------------------------
// Spellings of a time
// ---------------------------------------------------------------------------

const unit: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
}

/** `milliseconds`, `secs`, `minute` … as a key of `unit`. */
const unitOf = (word: string): number => {
  if (/^(?:ms|msecs?|millis|milliseconds?)$/.test(word)) return 1
  return unit[word] ?? unit[word.charAt(0)] ?? Number.NaN
}

const units = "ns|us|µs|ms|msecs?|millis|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?"
const compound = String.raw`\d{1,12}(?:\.\d{1,12})?\s?(?:${units})(?:(?:,? and |, ?| )?\d{1,12}(?:\.\d{1,12})?\s?(?:${units})){0,4}(?![a-z])`
const clock = String.raw`(?:\d{1,2}\.)?\d{1,3}:\d{2}:\d{2}(?:\.\d{1,9})?`
const wholeCompound = new RegExp(`^${compound}$`)
const wholeClock = new RegExp(`^${clock}$`)

/** `1h2m3.5s`, `5 minutes and 3 seconds`, `00:01:30`, in milliseconds. */
const spelled = (text: string): number | undefined => {
  if (wholeClock.test(text)) {
    const [seconds = 0, minutes = 0, rest = "0"] = text
      .split(":")
      .toReversed()
      .map((part, i) => (i < 2 ? Number(part) : part))
    const [hours, days = "0"] = String(rest).split(".").toReversed()
    return ((Number(days) * 24 + Number(hours)) * 60 + Number(minutes)) * 60_000 + Number(seconds) * 1000
  }
  if (!wholeCompound.test(text)) return undefined
  let total = 0
  for (const [, value, word] of text.matchAll(new RegExp(String.raw`(\d+(?:\.\d+)?)\s?(${units})(?![a-z])`, "g"))) {
    total += Number(value) * unitOf(word ?? "")
  }
  return total
}

const isNumber = /^[+-]?\d{1,15}(?:\.\d{1,12})?$/
const rfc3339 = /^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:z|utc| utc|[+-]\d\d:?\d\d)?)?$/i
const httpDate = /^(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6},? .{8,40}$/i

const instant = (text: string): number | undefined => {
  if (!rfc3339.test(text) && !httpDate.test(text)) return undefined
  const zoned = rfc3339.test(text) ? text.replace(/\s?utc$/i, "Z").replace(/^(\S{10}) /, "$1T") : text
  const at = Date.parse(/^\d{4}-\d\d-\d\dT[\d:.]+$/.test(zoned) ? `${zoned}Z` : zoned)
  return Number.isNaN(at) ? undefined : at
}

const until = (at: number | undefined, now: number | undefined): number | undefined =>
  at === undefined || now === undefined ? undefined : at - now

/**
 * One value of a header or field, in milliseconds from now: a number of
 * seconds, a number so large that it is an instant, a duration, or a date.
 */
const valueOf = (raw: unknown, now: number | undefined): number | undefined => {
  if (typeof raw !== "string" && typeof raw !== "number") return undefined
  const text = String(raw).trim().slice(0, 64)
  if (isNumber.test(text)) {
    const value = Number(text)
    if (value >= 1e11) return until(value, now)
    return value >= 1e9 ? until(value * 1000, now) : value * 1000
  }
  return spelled(text.toLowerCase()) ?? until(instant(text), now)
}

// ---------------------------------------------------------------------------
// Places
// ---------------------------------------------------------------------------

const millisHeaders = ["retry-after-ms", "x-ms-retry-after-ms", "x-retry-after-ms", "grpc-retry-pushback-ms"]
const retryHeaders = ["retry-after", "x-retry-after", "x-ratelimit-retry-after", "x-rate-limit-retry-after"]

const fromHeaders = (headers: Said.Headers, now: number | undefined): Explained | undefined => {
  for (const name of millisHeaders) {
    const text = headers[name]?.trim()
    const found = hint(text !== undefined && isNumber.test(text) ? Number(text) : undefined, `header ${name}`)
    if (found !== undefined) return found
  }
  for (const name of retryHeaders) {
    const text = headers[name]
    // A header that was sent twice arrives joined by a comma, and so does the comma of a date.
    const found =
      hint(valueOf(text, now), `header ${name}`) ?? hint(valueOf(text?.split(",")[0], now), `header ${name}`)
    if (found !== undefined) return found
  }
  return undefined
}

/** Objects of an error body; prompts and answers inside of it are left out. */
const objects = (said: Said.Said): ReadonlyArray<Readonly<Record<string, unknown>>> => {
  const out: Array<Readonly<Record<string, unknown>>> = []
  const echoes = new Set(["messages", "input", "content", "contents", "choices", "prompt", "candidates", "output"])
  const visit = (node: unknown, depth: number): void => {
    if (depth > 8 || out.length >= 256) return
    if (Array.isArray(node)) {
      for (const item of node.slice(0, 32)) visit(item, depth + 1)
    } else if (Predicate.isReadonlyObject(node)) {
      out.push(node)
      for (const [key, value] of Object.entries(node).slice(0, 64)) {
        if (typeof value === "object" && !echoes.has(key)) visit(value, depth + 1)
      }
    }
  }
  for (const value of said.values) visit(value, 0)
  return out
}

/** Google's `RetryInfo` says `"26s"`, `"34.4s"`, or `{ seconds, nanos }`. */
const delay = (raw: unknown): number | undefined => {
  if (Predicate.isReadonlyObject(raw)) {
    const seconds = Number(raw["seconds"] ?? 0)
    const nanos = Number(raw["nanos"] ?? 0)
    return seconds * 1000 + nanos / 1e6
  }
  return valueOf(raw, undefined)
}

const secondsFields = new Set([
  "retryafter",
  "retryafterseconds",
  "retryafters",
  "retryaftersec",
  "retryin",
  "resetsinseconds",
  "resetsin",
  "cooldown",
  "cooldownseconds",
  "secondsuntilreset",
])
const instantFields = new Set(["resetsat", "resetat"])

const fromFields = (said: Said.Said, now: number | undefined): Explained | undefined => {
  for (const node of objects(said)) {
    for (const [name, value] of Object.entries(node)) {
      const key = Said.plain(name)
      const found =
        key === "retrydelay"
          ? hint(delay(value), "RetryInfo.retryDelay")
          : key === "retryafterms" || key === "retryaftermillis"
            ? hint(Number(value), `field ${key}`)
            : secondsFields.has(key) || instantFields.has(key)
              ? hint(valueOf(value, now), `field ${key}`)
              : undefined
      if (found !== undefined) return found
    }
  }
  return undefined
}

const lead = String.raw`(?:try(?:ing)? (?:your request |the request |this request )?again|retry(?:ing)?(?: (?:your|the|this) request| again)?|wait(?:ing)?|(?:will )?resets?|be reset|be replenished|available(?: again)?|back|come back|cool ?down|replenish(?:es)?|refresh(?:es)?|expires?|unblocked|remaining time)`
const joint = String.raw`(?: (?:in|after|for|within|until|at least|approximately|about|another|up to|around)){0,3}:? ?~?(?:about )?`
const inWords = new RegExp(`\\b${lead}${joint}(${clock}|${compound})`, "g")
const field =
  /\bretry[-_ ]?after["']?(?:\s{0,2}[:=]|\sis)?\s{0,2}["']?(\d{1,9}(?:\.\d{1,9})?)(?=["',;.})\s]|$)(?!\s?(?:ms|milli|min|h|d|attempt|time|more))/g
const onDate =
  /\b(?:again|until|at|on|after|resets?)\s(\d{4}-\d\d-\d\d(?:t\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:z|[+-]\d\d:?\d\d)?|(?:,? at)? ?\d\d:\d\d(?::\d\d)? ?utc))/g

const fromMessages = (said: Said.Said, now: number | undefined): Explained | undefined => {
  const from = "message"
  for (const message of said.messages) {
    const text = message.toLowerCase().replace(/\s+/g, " ")
    for (const [, time] of text.matchAll(inWords)) {
      const found = hint(spelled(time ?? ""), from)
      if (found !== undefined) return found
    }
    for (const [, seconds] of text.matchAll(field)) {
      const found = hint(Number(seconds) * 1000, from)
      if (found !== undefined) return found
    }
    for (const [, date] of text.matchAll(onDate)) {
      const at = instant((date ?? "").replace(/,? at /, " ").toUpperCase())
      const found = hint(until(at, now), from)
      if (found !== undefined) return found
    }
  }
  return undefined
}

const fromEstimate = (said: Said.Said): Explained | undefined => {
  for (const node of objects(said)) {
    const value = node["estimated_time"]
    const found = hint(typeof value === "number" ? value * 1000 : undefined, "field estimated_time")
    if (found !== undefined) return found
  }
  return undefined
}

interface Bucket {
  remaining?: number
  reset?: string
}

/** `x-ratelimit-remaining-tokens`, `anthropic-ratelimit-tokens-reset`, `ratelimit-reset` … by bucket. */
const bucketsOf = (headers: Said.Headers): ReadonlyMap<string, Bucket> => {
  const out = new Map<string, Bucket>()
  for (const [name, value] of Object.entries(headers)) {
    const match = /^(?:x-|anthropic-)?rate-?limit-([a-z-]{1,60})$/.exec(name)
    const parts = match?.[1]?.split("-") ?? []
    const part = parts.find((p) => p === "remaining" || p === "reset")
    if (part === undefined) continue
    const key = parts.filter((p) => p !== part && p !== "after").join("-")
    const bucket = out.get(key) ?? {}
    if (part === "reset") bucket.reset = value
    else if (isNumber.test(value.trim())) bucket.remaining = Number(value)
    out.set(key, bucket)
  }
  return out
}

const fromBuckets = (said: Said.Said, headers: Said.Headers, now: number | undefined): Explained | undefined => {
  const nested = objects(said)
    .map((node) => node["headers"])
    .filter(Predicate.isReadonlyObject)
    .map(Said.lowerCase)
  for (const from of [headers, ...nested]) {
    let longest: Explained | undefined
    for (const [key, { remaining, reset }] of bucketsOf(from)) {
      const exhausted = remaining === 0 || (remaining === undefined && key === "")
      if (!exhausted || reset === undefined) continue
      const name = key === "" ? "the exhausted limit" : `the exhausted limit of ${key}`
      const found = hint(valueOf(reset, now), `reset of ${name}`)
      if (found !== undefined && (longest === undefined || Duration.isGreaterThan(found.after, longest.after))) {
        longest = found
      }
    }
    if (longest !== undefined) return longest
    const inner = hint(
      from === headers ? undefined : valueOf(from["retry-after"], now),
      "header retry-after of the error",
    )
    if (inner !== undefined) return inner
    // The later drafts of RateLimit fields: `"default";r=0;t=17`.
    const draft = /;\s?r=0\b[^,]{0,60};\s?t=(\d{1,9})/.exec(from["ratelimit"] ?? "")
    const found = hint(draft === null ? undefined : Number(draft[1]) * 1000, "header ratelimit")
    if (found !== undefined) return found
  }
  return undefined
}
