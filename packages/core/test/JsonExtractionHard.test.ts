import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { JsonExtraction } from "@understudy/core"

const read = (text: string): unknown => {
  const result = JsonExtraction.extract(text, { tier: "loss" })
  return Result.isSuccess(result) ? result.success.json : result.failure.cause
}

describe("With nothing asked for", () => {
  it.each([
    "As shown in [2, 3], it works.",
    "Prior work [1,2,5] shows this.",
    "Values in [0, 1].",
    "(see [4,5])",
    "Sources: [1], [2]",
    "Ref: [3]",
    "[[1]](#fn1)",
    "[[wiki link]]",
    "Citation: [Smith, 2020]",
  ])("a citation, an interval or a link is no value: %s", (text) => {
    assert.strictEqual(read(text), "nothing found")
  })

  it.each([
    ['{"a": 1}\n\nSources: [1], [2]', { a: 1 }],
    ['P(A|B) = [0.5, 0.5]; {"p": 0.5}', { p: 0.5 }],
    ['see [ here\n\n{"a": 1}', { a: 1 }],
    ['see [ here, and there\n\n{"a": 1}', { a: 1 }],
    ["[1, 2, 3]", [1, 2, 3]],
    ["The primes:\n[2, 3, 5]\nare these.", [2, 3, 5]],
    ["```\n[1]\n```", [1]],
  ])("what stands by itself is the value: %s", (text, json) => {
    assert.deepStrictEqual(read(text), json)
  })
})

describe("A value that goes on behind a guess is read to its end", () => {
  it.each([
    ['{"code": "arr = ["a", "b"]", "lang": "py"}', { code: 'arr = ["a", "b"]', lang: "py" }],
    ['{"t": "list ["a", "b", "c"]"}', { t: 'list ["a", "b", "c"]' }],
    ['{"code": "a = {\n  "b": 1\n}", "n": 1}', { code: 'a = {\n  "b": 1\n}', n: 1 }],
    ['{"t": "json is {"a": 1, "b": 2} ok", "n": 1}', { t: 'json is {"a": 1, "b": 2} ok', n: 1 }],
    ['{"f": "w", "arguments": "{"city": "Paris", "days": 3}"}', { f: "w", arguments: '{"city": "Paris", "days": 3}' }],
    ['{"text": "use arr["x"] and arr["y"]", "n": 1}', { text: 'use arr["x"] and arr["y"]', n: 1 }],
    ['{"a": "frown :[ "x" ok", "b": 1}', { a: 'frown :[ "x" ok', b: 1 }],
    [
      '{"x": [[1, 2], [3, 4}, "y": 5}',
      {
        x: [
          [1, 2],
          [3, 4],
        ],
        y: 5,
      },
    ],
    ['{"a": "x", "b" "y"}', { a: "x", b: "y" }],
    ['{"a": "x", "b" 1, "c": 2}', { a: "x", b: 1, c: 2 }],
    ['["a", b", "c"]', ["a", "b", "c"]],
    ['{"a”: "b"}', { a: "b" }],
    ['{"a": 1, "b”: 2}', { a: 1, b: 2 }],
  ])("%s", (text, json) => {
    assert.deepStrictEqual(read(text), json)
  })
})

describe("What is around a value is not a part of it", () => {
  it.each([
    ["return { a: 1 };", { a: 1 }],
    ["foo({ a: 1 })", { a: 1 }],
    ["export default {\n  a: 1,\n};", { a: 1 }],
    ['JSON.parse("{\\"a\\": 1}")', { a: 1 }],
    ['<![CDATA[{"a": 1}]]>', { a: 1 }],
    ['> {\n>   "a": 1\n> }', { a: 1 }],
  ])("%s", (text, json) => {
    assert.deepStrictEqual(read(text), json)
  })

  it("fences one after another are the items of the array that was asked for", () => {
    const text = '```json\n{"name": "x"}\n```\n```json\n{"name": "y"}\n```'
    const result = JsonExtraction.extract(text, {
      tier: "loss",
      check: (json) => (Array.isArray(json) ? undefined : [{ path: [], expected: "an array" }]),
    })
    assert.deepStrictEqual(Result.getOrThrow(result).json, [{ name: "x" }, { name: "y" }])
  })

  it("numbers in brackets in a sentence are the value where a list of numbers was asked for", () => {
    const numbers = Schema.Array(Schema.Number)
    const result = JsonExtraction.extract("Values in [0, 1].", { schema: numbers })
    assert.deepStrictEqual(Result.getOrThrow(result).json, [0, 1])
  })
})
