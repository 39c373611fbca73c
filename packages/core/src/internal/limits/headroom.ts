/** What a provider says is left of its rate limits, in the headers of a response. */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import * as Hint from "../../Hint.ts"

const Left = Schema.Struct({
  /** How many are left. */
  remaining: Schema.Finite,
  /** How many there are in all. */
  limit: Schema.optionalKey(Schema.Finite),
  /** When all of them are back, in milliseconds. */
  resetMs: Schema.optionalKey(Schema.Finite),
})

/** What is left of a provider's rate limits, as far as it says so. */
export const Headroom = Schema.Struct({
  requests: Schema.optionalKey(Left),
  /** Tokens of prompt and answer. */
  tokens: Schema.optionalKey(Left),
  /** Tokens of the prompt. */
  inputTokens: Schema.optionalKey(Left),
  /** Tokens of the answer. */
  outputTokens: Schema.optionalKey(Left),
})

/** What is left of a provider's rate limits, as far as it says so. */
export interface Headroom extends Schema.Schema.Type<typeof Headroom> {}

/** The key under which the metadata of a `response-metadata` part hold it. */
export const namespace = "rateLimit"

type Kind = keyof Headroom

const kinds: Readonly<Record<string, Kind>> = {
  "": "requests",
  requests: "requests",
  "requests-minute": "requests",
  "req-minute": "requests",
  tokens: "tokens",
  "tokens-minute": "tokens",
  "input-tokens": "inputTokens",
  "output-tokens": "outputTokens",
}

const shape = /^(?:x-|anthropic-)?rate-?limit-([a-z-]{1,60})$/
const number = /^\d{1,15}(?:\.\d{1,6})?$/

interface Said {
  remaining?: number
  limit?: number
  reset?: string
}

/**
 * From `x-ratelimit-remaining-tokens` (OpenAI, and those who speak like it),
 * `anthropic-ratelimit-input-tokens-remaining` and their companions. Limits of
 * a day or a month are left out. `now` is the present in Unix milliseconds, for
 * instants without a `date` header.
 */
export const read = (headers: Readonly<Record<string, string | undefined>>, now: number): Headroom | undefined => {
  let found: Map<Kind, Said> | undefined
  let date: string | undefined
  for (const name in headers) {
    const value = headers[name]
    if (value === undefined) continue
    const lower = name.toLowerCase()
    if (lower === "date") date = value
    const parts = shape.exec(lower)?.[1]?.split("-")
    const field = parts?.find((part) => part === "remaining" || part === "limit" || part === "reset")
    if (parts === undefined || field === undefined) continue
    const key = parts.filter((part) => part !== field).join("-")
    const kind = Object.hasOwn(kinds, key) ? kinds[key] : undefined
    if (kind === undefined) continue
    const said = found?.get(kind) ?? {}
    const text = value.trim().slice(0, 64)
    if (field === "reset") said.reset = text
    else if (number.test(text)) said[field as "remaining" | "limit"] = Number(text)
    found = (found ?? new Map<Kind, Said>()).set(kind, said)
  }
  if (found === undefined) return undefined
  const out: Partial<Record<Kind, typeof Left.Type>> = {}
  for (const [kind, { limit, remaining, reset }] of found) {
    if (remaining === undefined) continue
    // A reset is spelled as a Retry-After is, or worse.
    const after =
      reset === undefined
        ? undefined
        : Hint.read({ headers: { "retry-after": reset, ...(date === undefined ? {} : { date }) }, now, buckets: false })
    out[kind] = {
      remaining,
      ...(limit === undefined ? {} : { limit }),
      ...(after === undefined ? {} : { resetMs: Duration.toMillis(after) }),
    }
  }
  return Object.keys(out).length === 0 ? undefined : out
}

const isHeadroom = Schema.is(Headroom)

interface Part {
  readonly type?: unknown
  readonly metadata?: unknown
}

/** What the `response-metadata` part among these holds. */
export const of = (parts: unknown): Headroom | undefined => {
  if (!Array.isArray(parts)) return undefined
  for (const part of parts as ReadonlyArray<Part | null | undefined>) {
    if (part?.type !== "response-metadata") continue
    const { metadata } = part
    const said = typeof metadata === "object" && metadata !== null ? Reflect.get(metadata, namespace) : undefined
    return isHeadroom(said) ? said : undefined
  }
  return undefined
}
