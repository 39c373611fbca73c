/**
 * What holds for every text: strict JSON comes back unchanged, a cut one as a
 * beginning of itself, nothing is thrown, no prototype is set, in pieces or as
 * a whole, and the work grows with the text and with nothing else.
 */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Result, Schema } from "effect"
import { JsonExtraction } from "@understudy/core"
import { defaultLimits, run } from "../src/internal/json/extract.ts"
import { byRoot } from "../src/internal/json/fit.ts"
import { Live } from "../src/internal/json/live.ts"
import { anyRoot } from "../src/internal/json/members.ts"
import { cases } from "./JsonExtraction.cases.ts"
import { type Random, random } from "./stub.ts"

// --- What texts are made of

const words = [
  ["", "a", "key", 'say "hi"', "{x}", "[1, 2]", "a\nb", "\\", "</think>", "```", "it's", "a, b: c", "😀", "// no"],
  ['{"a": 1}', "null", ', "k": 1', "x".repeat(300), "\u2028", "#", "“q”", "__proto__", "\ud800", "</think>{x: 1}"],
].flat()

const value = (r: Random, depth = 0): unknown => {
  switch (r.int(0, depth > 3 ? 4 : 6)) {
    case 0:
      return r.pick(words)
    case 1:
      return r.int(-1000, 1000) * r.pick([1, 0.25, 1e20, 1e-9])
    case 2:
      return r.pick([true, false, null])
    case 3:
      return r.pick(words) + r.pick(words)
    case 4:
      return Array.from({ length: r.int(0, 4) }, () => value(r, depth + 1))
    default:
      return object(r, depth, r.int(0, 4))
  }
}

const object = (r: Random, depth: number, size: number): unknown =>
  Object.fromEntries(Array.from({ length: size }, (_, i) => [`${r.pick(words)}${i}`, value(r, depth + 1)]))

const root = (r: Random): unknown =>
  r.chance(0.5) ? Array.from({ length: r.int(1, 5) }, () => value(r)) : object(r, 0, r.int(1, 5))

const spelled = (r: Random, json: unknown): string => JSON.stringify(json, null, r.pick(["", "  ", "\t"]))

const pieces = [
  ["{", "}", "[", "]", '"', "'", ":", ",", "\\", "\n", " ", "a", "b:", '"k":', "1", "-", ".", "...", "true", "null"],
  ["```", "```json\n", "<think>", "</think>", "//", "/*", "*/", "#", "“", "”", "`", "(", ")", "+", "=", "\u00a0"],
  ["__proto__", '"__proto__":', '{"', '"}', '"]', '","', '\\"', "\\u00", "\ud83d", "😀", "x y", "    ", "None"],
  [";", "<", ">", "|", '"""', "'''", "\r\n", "{a:", "[1,", "0x1", "1e", '"a" "b"', '"x"y"', "[THINK]", "<|end|>"],
].flat()

const junk = (r: Random): string => Array.from({ length: r.int(0, 40) }, () => r.pick(pieces)).join("")

/** A text in pieces of 1 to `most` units. */
const inPieces = (r: Random, text: string, most: number): ReadonlyArray<string> => {
  const out: Array<string> = []
  for (let at = 0; at < text.length;) {
    const size = r.int(1, most + 1)
    out.push(text.slice(at, at + size))
    at += size
  }
  return out
}

const property = (name: string, holds: (r: Random) => void, runs = 2000): void =>
  it.effect.prop(
    name,
    { seed: Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2 ** 31 }))) },
    ({ seed }) => Effect.sync(() => holds(random(seed))),
    { arbitrary: { runs, seed: 1 } },
  )

// --- What holds

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b)

/**
 * Is `part` a beginning of `whole`? Everything in it is the same but its last
 * node: a string that is a beginning, or a container that is. A number that was
 * cut is the number that its digits make so far, where numbers are not held back.
 */
const begins = (part: unknown, whole: unknown, numbers: "held back" | "cut"): boolean => {
  if (typeof part === "string") return typeof whole === "string" && whole.startsWith(part)
  if (typeof part === "number") return typeof whole === "number" && (numbers === "cut" || Object.is(part, whole))
  if (typeof part !== "object" || part === null) return part === whole
  if (typeof whole !== "object" || whole === null || Array.isArray(part) !== Array.isArray(whole)) return false
  const keys = Object.keys(part)
  const all = Object.keys(whole)
  return (
    keys.length <= all.length &&
    keys.every((key, i) => {
      if (!Object.hasOwn(whole, key)) return false
      const [a, b] = [part, whole].map((node) => Object.getOwnPropertyDescriptor(node, key)!.value as unknown)
      return i < keys.length - 1 ? same(a, b) : begins(a, b, numbers)
    })
  )
}

const hasPlainPrototypes = (json: unknown): boolean => {
  const pending = [json]
  while (pending.length > 0) {
    const node = pending.pop()
    if (typeof node !== "object" || node === null) continue
    const prototype: unknown = Object.getPrototypeOf(node)
    if (prototype !== Object.prototype && prototype !== Array.prototype) return false
    for (const key of Object.keys(node)) pending.push(Object.getOwnPropertyDescriptor(node, key)!.value)
  }
  return true
}

const all: JsonExtraction.Options = { tier: "loss" }

describe("For every text", () => {
  property(
    "strict JSON comes back as JSON.parse gives it, without a repair, as a whole, in prose and in a fence",
    (r) => {
      const text = spelled(r, root(r))
      for (const around of [text, `Here you are: ${text} Well?`, `\`\`\`json\n${text}\n\`\`\``]) {
        const result = JsonExtraction.extract(around)
        assert.isTrue(Result.isSuccess(result), around)
        if (Result.isFailure(result)) return
        assert.strictEqual(JSON.stringify(result.success.json), JSON.stringify(JSON.parse(text)))
        assert.deepStrictEqual(result.success.repairs, [])
        assert.deepStrictEqual(result.success.rivals, [])
      }
    },
  )

  property("a cut of a valid document gives a beginning of it", (r) => {
    const whole = root(r)
    const text = spelled(r, whole)
    const cut = text.slice(0, r.int(1, text.length + 1))
    const result = JsonExtraction.extract(cut, { ...all, finishReason: "length" })
    assert.isTrue(Result.isSuccess(result), cut)
    if (Result.isSuccess(result)) assert.isTrue(begins(result.success.json, whole, "cut"), cut)
  })

  property("a valid document that comes in pieces shows nothing but beginnings of it, and at last all of it", (r) => {
    const whole = root(r)
    const text = spelled(r, whole)
    const parser = JsonExtraction.parser()
    const before = r.pick(["", "Sure: ", "```json\n", "<think>{</think>\n"])
    for (const piece of inPieces(r, before + text, 9)) {
      const { value } = parser.push(piece)
      assert.isTrue(value === undefined || begins(value, whole, "held back"), `${text} ${JSON.stringify(value)}`)
    }
    const last = parser.push("\nWell?")
    assert.isTrue(same(last.value, whole), text)
    assert.isUndefined(last.open)
  })

  property("nothing is thrown, and no prototype is set", (r) => {
    const text = junk(r)
    const result = JsonExtraction.extract(text, all)
    if (Result.isSuccess(result)) assert.isTrue(hasPlainPrototypes(result.success.json), text)
  })

  property("what comes in pieces gives what the whole gives, and sets no prototype either", (r) => {
    const text = r.chance(0.3) ? r.pick(cases).text.slice(0, 2000) : junk(r)
    const parser = JsonExtraction.parser(all)
    for (const piece of inPieces(r, text, 6)) {
      assert.isTrue(hasPlainPrototypes(parser.push(piece).value), text)
    }
    assert.deepStrictEqual(parser.end(), JsonExtraction.extract(text, all))
  })

  property("a value that is accepted with safe repairs is accepted with all, and is the same", (r) => {
    const text = junk(r)
    const safe = JsonExtraction.extract(text, { tier: "safe" })
    if (Result.isFailure(safe)) return
    const more = JsonExtraction.extract(text, { tier: "loss" })
    assert.isTrue(Result.isSuccess(more) && same(more.success.json, safe.success.json), text)
  })
})

// --- What it costs

const work = (text: string): number => {
  const limits = { ...defaultLimits, maxWork: Number.MAX_SAFE_INTEGER, maxCandidates: Number.MAX_SAFE_INTEGER }
  const demand = { fit: byRoot, constrained: false, finishReason: undefined, tier: "loss", rivals: "latest" } as const
  return run(text, { ...demand, limits }).work
}

describe("Twice the text is twice the work:", () => {
  const adversaries: Readonly<Record<string, (n: number) => string>> = {
    "quotes in one string": (n) => `{"a": "${'(b") '.repeat(n)}`,
    "quoted words in one string": (n) => `{"a": "${'say "hi" to '.repeat(n)}"}`,
    "a string without an end": (n) => `{"a": "${"lorem ipsum, ".repeat(n)}`,
    "openers in prose": (n) => "see { or [ here ".repeat(n),
    "openers of keys": (n) => '{"a '.repeat(n),
    "openers of words": (n) => "{a: b c d ".repeat(n),
    "a far quote": (n) => `{"a": "${"x,".repeat(n)}" tail`,
    "quotes and commas": (n) => `{"a": "${'", '.repeat(n)}`,
    "quotes and brackets, deep inside": (n) => `${'{"a":'.repeat(900)}"${'"]'.repeat(n)}`,
    "quotes and comments": (n) => `{"a": "${'"//'.repeat(n)}`,
    "quotes and open comments": (n) => `{"a": "${'"/*'.repeat(n)}`,
    "quotes and long space": (n) => `{"a": "${`"${" ".repeat(300)}`.repeat(n / 100)}`,
    "broken objects": (n) => `${'{"a":'.repeat(500)}@ `.repeat(n / 500),
    "broken arrays": (n) => `${"[1,".repeat(500)}@ `.repeat(n / 500),
    "quotes in keys": (n) => `{"${'a"b '.repeat(n)}`,
    "keys with quotes": (n) => `{${Array.from({ length: n }, (_, i) => `"k${i}" x": 1`).join(",")}`,
    "words and commas": (n) => `{a: ${"b, ".repeat(n)}`,
    "open reasoning": (n) => "x <think> ".repeat(n),
    "closed reasoning": (n) => 'x </think> {"a": "b '.repeat(n),
    fences: (n) => '```json\n{"a": '.repeat(n),
    "escaped quotes": (n) => `{\\"a\\": \\"${'x\\"y '.repeat(n)}`,
    "values that seem to end early": (n) => '{"a":1} x"} '.repeat(n),
    values: (n) => '{"a":1} '.repeat(n),
    "quotes and line ends": (n) => `{"a": "${'x"\n'.repeat(n)}`,
    "text blocks": (n) => `{"a": """${'""x\n'.repeat(n)}`,
  }

  it.each(Object.entries(adversaries))("%s", (_name, make) => {
    const [one, two] = [10_000, 20_000].map((n) => {
      const text = make(n)
      return work(text) / text.length
    })
    assert.isBelow(two!, 1.1 * one! + 0.1)
    assert.isBelow(two!, 30)
  })

  it.each(Object.entries(adversaries))("in pieces of 20 units as well: %s", (_name, make) => {
    const [one, two] = [10_000, 20_000].map((n) => {
      const text = make(n)
      const live = new Live(
        { ...defaultLimits, maxWork: Number.MAX_SAFE_INTEGER },
        { kinds: anyRoot, members: undefined },
      )
      for (let at = 0; at < text.length; at += 20) live.push(text.slice(at, at + 20))
      return live.work / text.length
    })
    assert.isBelow(two!, 1.1 * one! + 0.1)
    assert.isBelow(two!, 60)
  })
})
