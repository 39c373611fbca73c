import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"

const bin = fileURLToPath(new URL("../src/bin.ts", import.meta.url))

/** What the command says about one answer, and how it ends. */
const extract = (text: string, schema_hint: unknown = null) => {
  const { status, stderr, stdout } = spawnSync(process.execPath, [bin, "extract"], {
    input: JSON.stringify({ id: "1", text, schema_hint }),
    encoding: "utf8",
    env: { PATH: process.env["PATH"] ?? "", NO_COLOR: "1" },
    timeout: 20_000,
  })
  return { status, stderr, stdout, out: JSON.parse(stdout) as unknown }
}

const ok = (value: unknown) => ({ id: "1", ok: true, value, repairs: [], complete: true })
const no = (cause: string) => ({ id: "1", ok: false, cause })

describe("understudy extract", () => {
  it.each(["toString", "constructor", "__proto__"])("refuses an object that only inherits %s", (name) => {
    assert.deepStrictEqual(extract('{"a":1}', { type: "object", required: [name] }).out, no("schema mismatch"))
  })

  it("does not check what an object only inherits", () => {
    const schema = { type: "object", properties: { constructor: { type: "string" } } }
    assert.deepStrictEqual(extract('{"a":1}', schema).out, ok({ a: 1 }))
  })

  it("ends a pattern that takes too long, and says so", () => {
    const schema = { type: "object", properties: { a: { type: "string", pattern: "^(a+)+$" } } }
    const slow = extract(JSON.stringify({ a: `${"a".repeat(60)}!` }), schema)
    assert.deepStrictEqual(slow.out, no("invalid schema"))
    assert.strictEqual(slow.status, 1)
    assert.include(slow.stderr, "patterns take too long")
    assert.deepStrictEqual(extract('{"a":"aaa"}', schema).out, ok({ a: "aaa" }))
    assert.deepStrictEqual(extract('{"a":"b"}', schema).out, no("schema mismatch"))
  })

  it("prints no null for a number that is too large", () => {
    assert.deepStrictEqual(extract('{"a": 1e999}').out, no("unparseable"))
    assert.deepStrictEqual(extract('{"a": 1e999}', { type: "object" }).out, no("schema mismatch"))
  })

  it("uses schemas of older drafts as far as they are the same", () => {
    const schema = { $schema: "http://json-schema.org/draft-04/schema#", type: "object", required: ["a"] }
    assert.deepStrictEqual(extract('{"a":1}', schema).out, ok({ a: 1 }))
    assert.deepStrictEqual(extract('{"b":1}', schema).out, no("schema mismatch"))
  })

  it("escapes line separators, so that an answer stays one line everywhere", () => {
    const { out, stdout } = extract('{"a":"\u2028\u2029\u0085"}')
    assert.deepStrictEqual(out, ok({ a: "\u2028\u2029\u0085" }))
    assert.notMatch(stdout, /[\u2028\u2029\u0085]/)
  })
}, 30_000)
