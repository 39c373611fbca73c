import { assert, describe, it } from "@effect/vitest"
import { Formatter, Result, Schema } from "effect"
import { JsonExtraction } from "@understudy/core"
import { cases, optionsOf } from "./JsonExtraction.cases.ts"

const Person = Schema.Struct({ name: Schema.String, age: Schema.Int })

const found = <A>(result: Result.Result<A, JsonExtraction.ExtractionFailure>): A => {
  if (Result.isFailure(result)) assert.fail(result.failure.message)
  return result.success
}

const failed = (result: Result.Result<unknown, JsonExtraction.ExtractionFailure>): JsonExtraction.ExtractionFailure => {
  if (Result.isSuccess(result)) assert.fail("a value was found")
  return result.failure
}

const kinds = ({ repairs }: { readonly repairs: ReadonlyArray<JsonExtraction.Repair> }) =>
  repairs.map(({ kind }) => kind)

const plan = "SECRET-IN-THE-ANSWER"

describe("Extraction", () => {
  describe("reads, or rejects, every case that is kept with the package", () => {
    const categories = [...new Set(cases.map(({ category }) => category))]
    it.each(categories)("%s", (category) => {
      for (const c of cases.filter((c) => c.category === category)) {
        const result = JsonExtraction.extract(c.text, optionsOf(c))
        if (c.expect_kind === "reject") {
          assert.isTrue(Result.isFailure(result), `${c.id} was accepted`)
        } else {
          assert.deepStrictEqual(found(result).json, c.expect, c.id)
        }
      }
    })
  })

  describe("leaves strict JSON as JSON.parse gives it", () => {
    it.each([
      '{"big": 123456789012345678901234567890, "tiny": 1e-400, "zero": -0}',
      '{"twice": 1, "twice": {"b": [2]}, "0": "first"}',
      '{"__proto__": {"a": 1}, "constructor": {"prototype": 2}}',
      '[" \\u2028 \\ud800 ", "\\/", "", [], {}, [[]], {"": ""}]',
    ])("%s", (text) => {
      for (const around of [text, `  ${text}\n`, `Here: ${text} done`, `\`\`\`json\n${text}\n\`\`\``]) {
        const { complete, json, repairs } = found(JsonExtraction.extract(around, { tier: "safe" }))
        assert.deepStrictEqual(json, JSON.parse(text))
        assert.strictEqual(JSON.stringify(json), JSON.stringify(JSON.parse(text)))
        assert.deepStrictEqual(repairs, [])
        assert.isTrue(complete)
      }
    })
  })

  it("tells where it found the value", () => {
    const at = (text: string) => found(JsonExtraction.extract(text, { tier: "loss" })).found
    assert.deepStrictEqual(at(' {"a": 1}\n'), { how: "whole", fenced: false, start: 1, end: 9 })
    assert.deepStrictEqual(at('So: {"a": 1}.'), { how: "span", fenced: false, start: 4, end: 12 })
    assert.deepStrictEqual(at("```json\n[1, 2]\n```"), { how: "span", fenced: true, start: 8, end: 14 })
    assert.deepStrictEqual(at('So: {"a": [1'), { how: "open", fenced: false, start: 4, end: 12 })
  })

  it("tells every repair with its position and tier", () => {
    const { repairs } = found(JsonExtraction.extract("{'a': 1, b: x,} // end", { tier: "guess" }))
    assert.deepStrictEqual(repairs, [
      { kind: "quote style", tier: "safe", position: 1 },
      { kind: "unquoted key", tier: "guess", position: 9 },
      { kind: "unquoted value", tier: "guess", position: 12 },
      { kind: "trailing comma", tier: "safe", position: 13 },
    ])
  })

  const examples: Readonly<Record<JsonExtraction.RepairKind, string>> = {
    "special whitespace": '{"a":\u00a01}',
    comment: '{"a": 1 /* one */}',
    "trailing comma": '{"a": 1,}',
    "quote style": "{'a': 1}",
    "raw control character": '{"a": "b\nc"}',
    "invalid escape": '{"a": "\\d"}',
    "literal spelling": '{"a": None}',
    "number spelling": '{"a": +1}',
    "unquoted key": "{a: 1}",
    "unquoted value": '{"a": word}',
    "missing quote": '{"a": "b, "c": 1}',
    "unescaped quote": '{"a": "b "c" d"}',
    "doubled quote": '{""a"": 1}',
    "escaped quote": '{\\"a\\": 1}',
    concatenation: '{"a": "b" + "c"}',
    call: '{"a": Date("2024-01-01")}',
    tuple: '{"a": (1, 2)}',
    set: '{"a", "b"}',
    "no such literal": '{"a": undefined}',
    "missing comma": '{"a": 1 "b": 2}',
    "extra comma": '{"a": 1,, "b": 2}',
    "missing colon": '{"a" 1}',
    "missing value": '{"a": , "b": 2}',
    "missing bracket": '{"a": [1, "b": 2}\n\ndone',
    "wrong bracket": '{"a": [1}, "b": 2}',
    "extra bracket": '{"a": 1], "b": 2}',
    "stray text": '{"a": 1, NOTE "b": 2}',
    ellipsis: "[1, 2, ...]",
    truncated: '{"a": [1, 2',
  }

  it.each(Object.entries(JsonExtraction.tiers))("mends “%s”, which is %s", (kind, tier) => {
    const text = Object.entries(examples).find(([name]) => name === kind)![1]
    const extraction = found(JsonExtraction.extract(text, { tier: "loss" }))
    assert.include(kinds(extraction), kind)
    assert.strictEqual(extraction.repairs.find((repair) => repair.kind === kind)!.tier, tier)
    assert.strictEqual(extraction.complete, tier !== "loss")
    if (tier === "safe") return
    const without = tier === "loss" ? "guess" : "safe"
    const failure = failed(JsonExtraction.extract(text, { tier: without }))
    assert.include(["unparseable", "truncated"], failure.cause)
  })

  describe("goes as far as it is told", () => {
    it("another spelling only", () => {
      const failure = failed(JsonExtraction.extract('{"a": 1, b: 2}', { tier: "safe" }))
      assert.strictEqual(failure.cause, "unparseable")
      assert.strictEqual(failure.tier, "guess")
      assert.strictEqual(failure.position, 9)
    })

    it("by default to one likely reading, and not to what is missing", () => {
      assert.deepStrictEqual(found(JsonExtraction.extract("{a: 1}")).json, { a: 1 })
      assert.strictEqual(failed(JsonExtraction.extract('{"a": [1, 2')).cause, "truncated")
    })

    it("to what was cut off, and tells which nodes are not whole", () => {
      const { complete, incomplete, json } = found(
        JsonExtraction.extract('{"a": 1, "b": [{"c": "x", "d": "yy', { tier: "loss" }),
      )
      assert.deepStrictEqual(json, { a: 1, b: [{ c: "x", d: "yy" }] })
      assert.isFalse(complete)
      assert.deepStrictEqual(incomplete, [["b", 0, "d"]])
    })
  })

  describe("believes the finish reason", () => {
    it("that an answer is whole though a bracket is missing", () => {
      const { complete, json } = found(JsonExtraction.extract('{"a": [1, 2', { finishReason: "stop" }))
      assert.deepStrictEqual(json, { a: [1, 2] })
      assert.isTrue(complete)
    })

    it("that it was cut off, and then takes no example for the answer", () => {
      const text = 'Like {"name": "Eve", "age": 1}: {"name": "Ada", "age": 3'
      assert.deepStrictEqual(found(JsonExtraction.extract(text, { schema: Person })).value, { name: "Eve", age: 1 })
      const failure = failed(JsonExtraction.extract(text, { schema: Person, finishReason: "length" }))
      assert.strictEqual(failure.cause, "truncated")
      const cut = found(JsonExtraction.extract(text, { schema: Person, finishReason: "length", tier: "loss" }))
      assert.deepStrictEqual(cut.value, { name: "Ada", age: 3 })
    })

    it("that nothing was found because it was cut off", () => {
      const thinking = "<think>Let me see"
      assert.strictEqual(failed(JsonExtraction.extract(thinking, { finishReason: "length" })).cause, "truncated")
      assert.strictEqual(failed(JsonExtraction.extract(thinking)).cause, "nothing found")
    })
  })

  describe("chooses", () => {
    const value = (text: string, options: JsonExtraction.Options = {}) =>
      found(JsonExtraction.extract(text, options)).json

    it("by the schema first", () => {
      const text = '{"name": "Ada", "age": 36,}\n{"error": null}'
      assert.deepStrictEqual(found(JsonExtraction.extract(text, { schema: Person })).value, { name: "Ada", age: 36 })
    })

    it("then the one with fewer guesses", () => {
      assert.deepStrictEqual(value('{"a": 1}\n{b: 2}'), { a: 1 })
    })

    it("then the one in a fence, though a comma is too many there", () => {
      assert.deepStrictEqual(value('{"a": 1}\n```json\n{"b": 2,}\n```\n{"c": 3}'), { b: 2 })
    })

    it("then the one with fewer repairs of spelling", () => {
      assert.deepStrictEqual(value('{"a": 1}\n{"b": 2,}'), { a: 1 })
    })

    it("then the later one, or the first where the caller wants it", () => {
      const text = '{"a": 1}\n{"b": 2}'
      assert.deepStrictEqual(value(text), { b: 2 })
      assert.deepStrictEqual(value(text, { rivals: "first" }), { a: 1 })
    })

    it("and names the others that would have done, or refuses because of them", () => {
      const text = 'One: {"a": 1}\nTwo: {"a": 2}\nTwo again: {"a": 2}'
      const { json, rivals } = found(JsonExtraction.extract(text))
      assert.deepStrictEqual(json, { a: 2 })
      assert.deepStrictEqual(
        rivals.map((rival) => [rival.json, rival.found.start]),
        [[{ a: 1 }, 5]],
      )
      const failure = failed(JsonExtraction.extract(text, { rivals: "refuse" }))
      assert.strictEqual(failure.cause, "ambiguous")
      assert.strictEqual(failure.rivals, 1)
      assert.deepStrictEqual(value('{"a": 2}\n{"a": 2}', { rivals: "refuse" }), { a: 2 })
    })

    it("never what is inside of an outer value that was cut off or is broken", () => {
      const inner = '{"name": "Eve", "age": 6}'
      assert.strictEqual(failed(JsonExtraction.extract(`{"people": [${inner},`, { schema: Person })).cause, "truncated")
      const broken = failed(JsonExtraction.extract(`{"x": @;@, "people": [${inner}]}`, { schema: Person }))
      assert.strictEqual(broken.cause, "unparseable")
      assert.strictEqual(broken.position, 6)
    })
  })

  describe("decodes", () => {
    it("from the JSON side of the schema", () => {
      const Event = Schema.Struct({ at: Schema.Date, size: Schema.optional(Schema.NumberFromString) })
      const { json, value } = found(
        JsonExtraction.extract('{"at": "2024-01-02T00:00:00.000Z", "size": "3"}', { schema: Event }),
      )
      assert.deepStrictEqual(value, { at: new Date("2024-01-02"), size: 3 })
      assert.deepStrictEqual(json, { at: "2024-01-02T00:00:00.000Z", size: "3" })
    })

    it("a lone value, when one was asked for, also behind reasoning or in a fence", () => {
      const one = <A>(schema: JsonExtraction.Codec<A>, text: string) =>
        found(JsonExtraction.extract(text, { schema })).value
      assert.strictEqual(one(Schema.Boolean, " True\n"), true)
      assert.strictEqual(one(Schema.Number, "<think>4?</think>\n42"), 42)
      assert.strictEqual(one(Schema.String, '```json\n"x"\n```'), "x")
      assert.strictEqual(failed(JsonExtraction.extract("42")).cause, "nothing found")
    })

    it("and tells all that does not fit, in the words of the schema", () => {
      const text = '{"name": 1, "age": 1.5}'
      const failure = failed(JsonExtraction.extract(text, { schema: Person }))
      assert.strictEqual(failure.cause, "schema mismatch")
      assert.deepStrictEqual(failure.issues, [
        { path: ["name"], expected: "a string" },
        { path: ["age"], expected: "an integer" },
      ])
      assert.strictEqual(failure.issueCount, 2)
    })

    it("and keeps the first hundred of many issues, and their number", () => {
      const text = JSON.stringify(Array.from({ length: 300 }, () => plan))
      const failure = failed(JsonExtraction.extract(text, { schema: Schema.Array(Schema.Number) }))
      assert.lengthOf(failure.issues!, 100)
      assert.strictEqual(failure.issueCount, 300)
    })

    it("with a check of the caller instead, or besides", () => {
      const check = (json: unknown) =>
        JSON.stringify(json).includes("ok") ? undefined : [{ path: ["a"], expected: "ok" }]
      assert.deepStrictEqual(found(JsonExtraction.extract('{"a": "ok"} {"a": 1}', { check })).json, { a: "ok" })
      const failure = failed(JsonExtraction.extract('{"a": 1}', { check }))
      assert.deepStrictEqual(failure.issues, [{ path: ["a"], expected: "ok" }])
      const schema = Schema.Struct({ a: Schema.String })
      assert.deepStrictEqual(found(JsonExtraction.extract('{"a": "ok"} {"a": "no"}', { check, schema })).value, {
        a: "ok",
      })
    })
  })

  describe("fails with one cause, its remedy, and no text of the answer", () => {
    const city = Schema.Struct({ city: Schema.Struct({ name: Schema.Literals(["Oslo", "Rome"]) }) })
    const strict = city.annotate({ parseOptions: { onExcessProperty: "error" } })
    const causes: Readonly<Record<string, [string, JsonExtraction.Options]>> = {
      "nothing found": [`${plan} and {${plan}}`, {}],
      truncated: [`{"${plan}": "${plan}`, {}],
      unparseable: [`{"${plan}": ;${plan};}`, {}],
      "schema mismatch": [`{"city": {"name": "${plan}"}, "${plan}": {"${plan}": 1}}`, { schema: strict }],
      ambiguous: [`{"a": "${plan}"} {"b": "${plan}"}`, { rivals: "refuse" }],
      "too large": [`{"a": "${plan}"}`, { limits: { maxBytes: 10 } }],
    }

    it.each(Object.keys(causes))("%s", (cause) => {
      const failure = failed(JsonExtraction.extract(...causes[cause]!))
      assert.strictEqual(failure.cause, cause)
      assert.strictEqual(failure._tag, "ExtractionFailure")
      assert.match(failure.message, /^The .*[.] (?:Ask|Allow) .*[.]$/)
      const encode = Schema.encodeSync(Schema.toCodecJson(JsonExtraction.ExtractionFailure))
      const decode = Schema.decodeUnknownSync(Schema.toCodecJson(JsonExtraction.ExtractionFailure))
      assert.deepStrictEqual(decode(JSON.parse(JSON.stringify(encode(failure)))), failure)
      for (const told of [failure.message, String(failure.stack), JSON.stringify(failure), Formatter.format(failure)]) {
        assert.notInclude(told, plan)
      }
    })

    it("and names of keys that only the answer knows are not told, nor what a check of the schema said of them", () => {
      const Scores = Schema.Record(Schema.String, Schema.Number)
      const leaky = Schema.Struct({
        scores: Scores,
        word: Schema.String.check(Schema.makeFilter((word) => (word === "ok" ? undefined : `${word} is no word`))),
        even: Schema.Number.check(Schema.makeFilter((n) => n % 2 === 0, { expected: "an even number" })),
      })
      const failure = failed(
        JsonExtraction.extract(`{"scores": {"${plan}": "x", "b": 1}, "word": "${plan}", "even": 3}`, { schema: leaky }),
      )
      assert.deepStrictEqual(failure.issues, [
        { path: ["scores", "*"], expected: "a finite number" },
        { path: ["word"], expected: "a valid value" },
        { path: ["even"], expected: "an even number" },
      ])
    })
  })

  describe("has limits", () => {
    const limited = (text: string, limits: NonNullable<JsonExtraction.Options["limits"]>) =>
      failed(JsonExtraction.extract(text, { tier: "loss", limits }))

    it("of bytes, counted as UTF-8", () => {
      const text = '{"a": "→→→"}'
      assert.strictEqual(limited(text, { maxBytes: 17 }).limit, "maxBytes")
      assert.deepStrictEqual(found(JsonExtraction.extract(text, { limits: { maxBytes: 18 } })).json, { a: "→→→" })
    })

    it("of depth, in strict and in damaged texts", () => {
      const nested = (depth: number, inside: string) => "[".repeat(depth) + inside + "]".repeat(depth)
      for (const inside of ["1", "1,", "@"])
        assert.strictEqual(limited(nested(51, inside), { maxDepth: 50 }).limit, "maxDepth")
      assert.strictEqual(limited("[".repeat(100_000), {}).limit, "maxDepth")
      assert.strictEqual(limited(nested(100_000, "1"), {}).limit, "maxDepth")
      assert.deepStrictEqual(found(JsonExtraction.extract(nested(1000, "1"))).repairs, [])
    })

    it("of candidates and of work", () => {
      assert.strictEqual(limited('{"a": 1} '.repeat(5), { maxCandidates: 4 }).limit, "maxCandidates")
      const cited = `${"as in [1], ".repeat(20)} {"a": 1}`
      assert.deepStrictEqual(found(JsonExtraction.extract(cited, { limits: { maxCandidates: 4 } })).json, { a: 1 })
      assert.strictEqual(limited(`{"a": "${'x", '.repeat(1000)}`, { maxWork: 1000 }).limit, "maxWork")
    })

    it("and without them parses what is 100,000 deep, and refuses what a schema cannot walk", () => {
      const maxDepth = 1_000_000
      const text = `${'{"a":'.repeat(100_000)}1`
      let node = found(JsonExtraction.extract(text, { tier: "loss", limits: { maxDepth } })).json
      let depth = 0
      while (typeof node === "object" && node !== null && "a" in node) {
        node = node.a
        depth++
      }
      assert.strictEqual(depth, 100_000)
      assert.strictEqual(node, 1)
      interface Nest {
        readonly a: Nest | number
      }
      const Nest: Schema.Codec<Nest> = Schema.Struct({
        a: Schema.Union([Schema.suspend((): Schema.Codec<Nest> => Nest), Schema.Number]),
      })
      const closed = `${text}${"}".repeat(100_000)}`
      const failure = failed(JsonExtraction.extract(closed, { schema: Nest, limits: { maxDepth } }))
      assert.strictEqual(failure.cause, "too large")
      assert.strictEqual(failure.limit, "maxDepth")
    })
  })

  it("wants options that can be meant", () => {
    assert.throws(() => JsonExtraction.extract("{}", { limits: { maxDepth: 0 } }), /JsonExtraction.extract.*maxDepth/s)
    assert.throws(
      () => JsonExtraction.extract("{}", JSON.parse('{"tiers": "safe"}') as JsonExtraction.Options),
      /JsonExtraction.extract.*tiers/s,
    )
  })

  it("copies what has to stay, however deep it is, and sets no prototype", () => {
    const json = JSON.parse('{"b": [1, {"__proto__": {"x": 1}}], "a": null}') as unknown
    const copy = JsonExtraction.copy(json)
    assert.notStrictEqual(copy, json)
    assert.deepStrictEqual(copy, json)
    assert.strictEqual(JSON.stringify(copy), JSON.stringify(json))
    const deep = JSON.parse("[".repeat(50_000) + "]".repeat(50_000)) as unknown
    let depth = 0
    for (let node = JsonExtraction.copy(deep); Array.isArray(node); node = node[0] as unknown) depth++
    assert.strictEqual(depth, 50_000)
  })
})

describe("Issues of a schema", () => {
  it("are told with the names that a recursive schema knows, at most as many as wanted", () => {
    interface Tree {
      readonly label: string
      readonly children: ReadonlyArray<Tree>
    }
    const Tree: Schema.Codec<Tree> = Schema.Struct({
      label: Schema.String,
      children: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree)),
    })
    const bad = {
      label: 1,
      children: [
        { label: "x", children: [{ label: 2 }] },
        { label: 3, children: [] },
      ],
    }
    const result = Schema.decodeUnknownResult(Tree)(bad, { errors: "all" })
    const error = Result.isFailure(result) ? result.failure : assert.fail("it fits")
    assert.deepStrictEqual(JsonExtraction.issuesOf(Tree, error), [
      { path: ["label"], expected: "a string" },
      { path: ["children", 0, "children", 0, "label"], expected: "a string" },
      { path: ["children", 0, "children", 0, "children"], expected: "this key to be there" },
      { path: ["children", 1, "label"], expected: "a string" },
    ])
    assert.lengthOf(JsonExtraction.issuesOf(Tree, error, 2), 2)
  })

  it("tell the property that a union is told apart by", () => {
    const Event = Schema.Union([
      Schema.Struct({ type: Schema.Literal("joined"), name: Schema.String }),
      Schema.Struct({ type: Schema.Literal("left"), at: Schema.Number }),
    ])
    const issues = (text: string) => failed(JsonExtraction.extract(text, { schema: Event })).issues
    assert.deepStrictEqual(issues(`{"type": "${plan}"}`), [{ path: ["type"], expected: 'one of "joined", "left"' }])
    assert.deepStrictEqual(issues('{"type": "left", "at": "now"}'), [{ path: ["at"], expected: "a finite number" }])
  })

  it("tell a union as what it may be, and a literal as itself", () => {
    const Shape = Schema.Struct({
      kind: Schema.Literals(["dot", "line"]),
      size: Schema.Union([Schema.Number, Schema.Null]),
    })
    const result = Schema.decodeUnknownResult(Shape)({ kind: plan, size: plan }, { errors: "all" })
    const error = Result.isFailure(result) ? result.failure : assert.fail("it fits")
    assert.deepStrictEqual(JsonExtraction.issuesOf(Shape, error), [
      { path: ["kind"], expected: 'one of "dot", "line"' },
      { path: ["size"], expected: "one of a number, null" },
    ])
  })
})
