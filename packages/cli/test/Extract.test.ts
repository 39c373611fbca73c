import { assert, describe, it } from "@effect/vitest"
import { JsonExtraction } from "@understudy/core"
import { Effect, Schema } from "effect"
import { spawn } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url))
const bin = path("../src/bin.ts")

const Case = Schema.Struct({
  id: Schema.String,
  category: Schema.String,
  text: Schema.String,
  expect: Schema.Json,
  expect_kind: Schema.Literals(["value", "reject", "ambiguous"]),
})

const Out = Schema.Union([
  Schema.Struct({
    id: Schema.NullOr(Schema.Union([Schema.String, Schema.Finite])),
    ok: Schema.Literal(true),
    value: Schema.Json,
    repairs: Schema.Array(
      Schema.Struct({
        kind: Schema.String,
        tier: Schema.Literals(["safe", "guess", "loss"]),
        position: Schema.Int,
      }),
    ),
    complete: Schema.Boolean,
  }),
  Schema.Struct({
    id: Schema.NullOr(Schema.Union([Schema.String, Schema.Finite])),
    ok: Schema.Literal(false),
    cause: Schema.Literals([
      "nothing found",
      "truncated",
      "unparseable",
      "schema mismatch",
      "ambiguous",
      "too large",
      "invalid schema",
    ]),
  }),
])

const lines = (text: string): ReadonlyArray<string> => text.split("\n").filter((line) => line !== "")

/** Runs the command as a person does. */
const run = (args: ReadonlyArray<string>, input = "") =>
  Effect.callback<{ readonly status: number | null; readonly stdout: string; readonly stderr: string }>((resume) => {
    const child = spawn(process.execPath, [bin, "extract", ...args], {
      env: { PATH: process.env["PATH"] ?? "", NO_COLOR: "1" },
    })
    let stdout = ""
    let stderr = ""
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => (stdout += chunk))
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => (stderr += chunk))
    child.on("close", (status) => resume(Effect.succeed({ status, stdout, stderr })))
    child.stdin.end(input)
    return Effect.sync(() => child.kill("SIGKILL"))
  })

const decode = Schema.decodeUnknownSync(Schema.fromJsonString(Out), { onExcessProperty: "error" })

const input = (...answers: ReadonlyArray<unknown>): string =>
  answers.map((answer) => (typeof answer === "string" ? answer : JSON.stringify(answer))).join("\n")

const own = path("../../core/test/fixtures/json-extraction.jsonl")
const corpus = path("../../../../shared/corpus/json-extraction.jsonl")

/** Deeply equal, without recursion: cases may be nested deeply. */
const same = (left: unknown, right: unknown): boolean => JSON.stringify(sorted(left)) === JSON.stringify(sorted(right))

const sorted = (json: unknown): unknown =>
  typeof json !== "object" || json === null
    ? json
    : Array.isArray(json)
      ? json.map(sorted)
      : Object.entries(json)
          .toSorted(([a], [b]) => (a < b ? -1 : 1))
          .map(([key, value]) => [key, sorted(value)])

const scored = (file: string) =>
  Effect.gen(function* () {
    const ran = yield* run([file])
    assert.strictEqual(ran.status, 0, ran.stderr)
    const outs = lines(ran.stdout).map((line) => decode(line))
    const cases = lines(readFileSync(file, "utf8")).map((line) =>
      Schema.decodeUnknownSync(Schema.fromJsonString(Case))(line),
    )
    assert.deepStrictEqual(
      outs.map(({ id }) => id),
      cases.map(({ id }) => id),
    )
    const score = { right: 0, wrong: 0, refused: 0, accepted: 0, values: 0, rejects: 0 }
    const missed: Array<string> = []
    for (const [index, out] of outs.entries()) {
      const { expect, expect_kind: kind, id } = cases[index]!
      if (kind === "ambiguous") continue
      const verdict =
        kind === "reject"
          ? out.ok
            ? "accepted"
            : "right"
          : !out.ok
            ? "refused"
            : same(out.value, expect)
              ? "right"
              : "wrong"
      score[verdict]++
      score[kind === "reject" ? "rejects" : "values"]++
      if (verdict !== "right") missed.push(`${id}: ${verdict}`)
    }
    return { score, missed: missed.join("\n") }
  })

describe("The guide to extraction", () => {
  it("lists every kind of repair with its tier", () => {
    const rows = readFileSync(path("../../../docs/extraction.md"), "utf8").matchAll(/^\| `([^`]+)` +\| `(\w+)` +\|/gm)
    assert.deepStrictEqual(Object.fromEntries([...rows].map(([, kind, tier]) => [kind, tier])), JsonExtraction.tiers)
  })
})

describe("understudy extract", () => {
  it.live("reads, or rejects, every case that is kept with the package", () =>
    Effect.gen(function* () {
      const { missed, score } = yield* scored(own)
      assert.strictEqual(missed, "")
      assert.isAbove(score.values, 100)
      assert.isAbove(score.rejects, 20)
    }),
  )

  it.live("is right on at least 94 % of the shared corpus, wrong on at most 3 %, and takes no text for a value", () =>
    Effect.gen(function* () {
      // The project stands by itself: where the corpus is not there, the cases of its own are the measure.
      const { missed, score } = yield* scored(existsSync(corpus) ? corpus : own)
      assert.isAtLeast(score.right / (score.values + score.rejects), 0.94, missed)
      assert.isAtMost(score.wrong / score.values, 0.03, missed)
      assert.isAtMost(score.accepted, 1, missed)
    }),
  )

  it.live("prints one line for each answer, in order, from stdin as from a file, with all tiers unless told", () =>
    Effect.gen(function* () {
      const answers = input(
        { id: "a", text: "So: {'x': 1,}", more: true },
        { id: 2, text: '{"x": [1, 2', schema_hint: null },
        { text: "no" },
      )
      const all = yield* run([], answers)
      assert.strictEqual(all.status, 0, all.stderr)
      assert.deepStrictEqual(
        lines(all.stdout).map((line) => decode(line)),
        [
          {
            id: "a",
            ok: true,
            value: { x: 1 },
            repairs: [
              { kind: "quote style", tier: "safe", position: 5 },
              { kind: "trailing comma", tier: "safe", position: 11 },
            ],
            complete: true,
          },
          {
            id: 2,
            ok: true,
            value: { x: [1, 2] },
            repairs: [{ kind: "truncated", tier: "loss", position: 11 }],
            complete: false,
          },
          { id: null, ok: false, cause: "nothing found" },
        ],
      )
      const safe = yield* run(["--tier", "safe"], answers)
      assert.deepStrictEqual(
        lines(safe.stdout).map((line) => decode(line).ok),
        [true, false, false],
      )
    }),
  )

  it.live("checks by the JSON Schema of each answer, of any draft, also of two with one name", () =>
    Effect.gen(function* () {
      const text = '{"a": 1} [1, "b"] "c"'
      const ran = yield* run(
        [],
        input(
          { id: 1, text, schema_hint: { type: "object" } },
          {
            id: 2,
            text,
            schema_hint: { $id: "x", type: "array", prefixItems: [{ type: "integer" }, { type: "string" }] },
          },
          { id: 3, text, schema_hint: { $id: "x", type: "array", items: [{ type: "integer" }, { type: "string" }] } },
          { id: 4, text, schema_hint: { $schema: "http://json-schema.org/draft-07/schema#", type: "string" } },
          { id: 5, text, schema_hint: true },
          { id: 6, text, schema_hint: { required: ["z"], type: "object", format: "no-such-format" } },
        ),
      )
      assert.strictEqual(ran.status, 0, ran.stderr)
      assert.deepStrictEqual(
        lines(ran.stdout)
          .map((line) => decode(line))
          .map((out) => (out.ok ? out.value : out.cause)),
        [{ a: 1 }, [1, "b"], [1, "b"], "schema mismatch", [1, "b"], "schema mismatch"],
      )
    }),
  )

  it.live("takes the finish reason into account", () =>
    Effect.gen(function* () {
      const ran = yield* run(
        [],
        input(
          { id: "cut", text: 'Like {"a": 1}. Now {"a": 2, "b', finishReason: "length" },
          { id: "whole", text: '{"a": [1', finishReason: "stop" },
        ),
      )
      const [cut, whole] = lines(ran.stdout).map((line) => decode(line))
      assert.deepStrictEqual(cut!.ok && [cut!.value, cut!.complete], [{ a: 2 }, false])
      assert.deepStrictEqual(whole!.ok && [whole!.value, whole!.complete], [{ a: [1] }, true])
    }),
  )

  it.live("tells what is wrong with a line, goes on, and ends with status 1", () =>
    Effect.gen(function* () {
      const ran = yield* run(
        [],
        input(
          "nonsense",
          { id: "no text" },
          { id: "bad schema", text: "{}", schema_hint: { type: "nope" } },
          { id: "odd schema", text: "{}", schema_hint: "object" },
          { id: "good", text: '{"a": 1}' },
        ),
      )
      assert.strictEqual(ran.status, 1)
      assert.deepStrictEqual(
        lines(ran.stdout).map((line) => decode(line)),
        [
          { id: "bad schema", ok: false, cause: "invalid schema" },
          { id: "odd schema", ok: false, cause: "invalid schema" },
          { id: "good", ok: true, value: { a: 1 }, repairs: [], complete: true },
        ],
      )
      assert.match(ran.stderr, /stdin, line 1: /)
      assert.match(ran.stderr, /stdin, line 2: [^]*\["text"\]/)
      assert.match(ran.stderr, /stdin, line 3: schema_hint: not a JSON Schema that can be used/)
      assert.match(ran.stderr, /stdin, line 4: schema_hint: expected a JSON Schema/)
      assert.match(ran.stderr, /4 lines could not be used/)
    }),
  )

  it.live("is not brought down by depth: of an answer, of its value, or of a schema that asks itself", () =>
    Effect.gen(function* () {
      const nested = (depth: number): string => `${'{"a":'.repeat(depth)}1${"}".repeat(depth)}`
      const ran = yield* run(
        [],
        input(
          { id: "deep", text: nested(100_000) },
          { id: "cut", text: nested(100_000).slice(0, 300_000) },
          { id: "just", text: nested(1000) },
          { id: "self", text: '{"a": 1}', schema_hint: { $ref: "#" } },
        ),
      )
      assert.strictEqual(ran.status, 0, ran.stderr)
      const [deep, cut, just, self] = lines(ran.stdout)
      assert.deepStrictEqual(decode(deep), { id: "deep", ok: false, cause: "too large" })
      assert.deepStrictEqual(decode(cut), { id: "cut", ok: false, cause: "too large" })
      assert.strictEqual(JSON.stringify((JSON.parse(just!) as { readonly value: unknown }).value), nested(1000))
      assert.deepStrictEqual(decode(self), { id: "self", ok: false, cause: "too large" })
    }),
  )

  it.live("says which file is not there, and which tier", () =>
    Effect.gen(function* () {
      const missing = yield* run(["/no/such/file.jsonl"])
      assert.strictEqual(missing.status, 1)
      assert.match(missing.stderr, /\/no\/such\/file\.jsonl: there is no such file/)
      const wild = yield* run(["--tier", "wild"])
      assert.strictEqual(wild.status, 1)
      assert.match(wild.stderr, /safe.*guess.*loss/s)
    }),
  )
})
