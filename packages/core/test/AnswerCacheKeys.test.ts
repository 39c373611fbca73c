import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted, Schema } from "effect"
import { Prompt, Tool } from "effect/ai"
import { type Call, LanguageModelFace } from "@understudy/core"
import { createHash } from "node:crypto"
import { execFile } from "node:child_process"
import { canonical, NoText } from "../src/internal/cache/canonical.ts"
import { keyOf, type Scope, whatIsAsked } from "../src/internal/cache/requestKey.ts"
import { digest, sha256 } from "../src/internal/cache/sha256.ts"
import { random } from "./stub.ts"

type Request = LanguageModelFace.Request

/** The key of a request in a call with these overrides. */
const key = (
  request: Request,
  overrides: Call.Overrides = {},
  { of = ["language model", "lead", "lead-1"], scope = "everyone" as Scope } = {},
): string =>
  Effect.runSync(
    keyOf({
      scope,
      tenant: overrides.tenant,
      of,
      what: whatIsAsked(request, overrides),
    }),
  )

const ask = (prompt: Prompt.RawInput, options: Parameters<typeof LanguageModelFace.request>[1] = {}) =>
  LanguageModelFace.request(prompt, options)

const weather = Tool.make("weather", {
  description: "The weather of a city.",
  parameters: Schema.Struct({ city: Schema.String, units: Schema.Literals(["C", "F"]) }),
  success: Schema.String,
})
const clock = Tool.make("clock", { parameters: Schema.Struct({}), success: Schema.String })

/** A conversation with a call of a tool, as one provider or another has put it. */
const conversation = (by: string, id: string, marked = true): Request =>
  ask([
    { role: "system", content: "Be kind." },
    { role: "user", content: [{ type: "text", text: "How warm is Rome?" }] },
    {
      role: "assistant",
      content: [
        { type: "reasoning", text: "I should look.", options: { [by]: { signature: `signed by ${by}` } } },
        {
          type: "tool-call",
          id,
          name: "weather",
          params: { city: "Rome", units: "C" },
          providerExecuted: false,
          options: marked ? { understudy: { provider: by, model: `${by}-1`, source: "primary" } } : {},
        },
      ],
    },
    {
      role: "tool",
      content: [
        {
          type: "tool-result",
          id,
          name: "weather",
          isFailure: false,
          result: { degrees: 30 },
          options: { [by]: { n: 1 } },
        },
      ],
    },
    { role: "user", content: "And in Fahrenheit?" },
  ])

describe("The key of a request", () => {
  it("is the same in every process, and from one release to the next", async () => {
    const here = key(ask("Who wrote Dune?"), { tenant: "a" }, { scope: "tenant" })
    assert.strictEqual(here, "ffa79585e1b0ee158bede7a0099be17ddd7572bfdb12f20828d77ddae9e41105")
    const there = await new Promise<string>((done, failed) => {
      const code = `
        import { Effect } from "effect"
        import * as LanguageModelFace from "@understudy/core/LanguageModelFace"
        import { keyOf, whatIsAsked } from "./src/internal/cache/requestKey.ts"
        const what = whatIsAsked(LanguageModelFace.request("Who wrote Dune?"), {})
        const of = ["language model", "lead", "lead-1"]
        process.stdout.write(Effect.runSync(keyOf({ scope: "tenant", tenant: "a", of, what })))`
      execFile(
        process.execPath,
        ["--input-type=module", "--eval", code],
        { cwd: new URL("..", import.meta.url) },
        (error, stdout) => (error === null ? done(stdout) : failed(error)),
      )
    })
    assert.strictEqual(there, here)
  })

  it("tells nothing in clear", () => {
    const made = key(ask("my secret"), { tenant: "alice@example.com", cacheKey: "my key" }, { scope: "tenant" })
    assert.match(made, /^[0-9a-f]{64}$/)
  })

  it("is another one for everything that the answer depends on", () => {
    const schema = Schema.Struct({ name: Schema.String })
    const json = (objectName: string, schema: Schema.Top) => ({
      responseFormat: { type: "json" as const, objectName, schema },
    })
    const keys = [
      key(ask("Who wrote Dune?")),
      key(ask("Who wrote Emma?")),
      key(ask([{ role: "system", content: "Who wrote Dune?" }])),
      key(
        ask([
          { role: "user", content: "Who wrote" },
          { role: "user", content: "Dune?" },
        ]),
      ),
      key(ask([{ role: "user", content: [{ type: "text", text: "Who wrote Dune?", options: { openai: { a: 1 } } }] }])),
      key(ask([{ role: "user", content: [{ type: "file", mediaType: "image/png", data: new Uint8Array([1]) }] }])),
      key(ask([{ role: "user", content: [{ type: "file", mediaType: "image/png", data: new Uint8Array([2]) }] }])),
      key(ask([{ role: "user", content: [{ type: "file", mediaType: "image/png", data: new URL("https://a.b/c") }] }])),
      key(ask("Who wrote Dune?", { tools: [weather] })),
      key(ask("Who wrote Dune?", { tools: [weather, clock] })),
      key(ask("Who wrote Dune?", { tools: [weather.setParameters(Schema.Struct({ city: Schema.String }))] })),
      key(ask("Who wrote Dune?", { tools: [weather], toolChoice: "required" })),
      key(ask("Who wrote Dune?", { tools: [weather], toolChoice: { tool: "weather" } })),
      key(ask("Who wrote Dune?", json("author", schema))),
      key(ask("Who wrote Dune?", json("person", schema))),
      key(ask("Who wrote Dune?", json("author", Schema.Struct({ name: Schema.String, born: Schema.Int })))),
      key(ask("Who wrote Dune?"), { parameters: { temperature: 0 } }),
      key(ask("Who wrote Dune?"), { parameters: { temperature: 1 } }),
      key(ask("Who wrote Dune?"), { parameters: { extra: { top_k: 3 } } }),
      key(ask("Who wrote Dune?"), { pin: ["b"] }),
      key(ask("Who wrote Dune?"), { exclude: ["b"] }),
      key(ask("Who wrote Dune?"), { cacheKey: "Who wrote Dune?" }),
      key(ask("Who wrote Dune?"), { tags: ["eu"] }),
      key(ask("Who wrote Dune?"), { tags: ["eu", "hipaa"] }),
      key(ask("Who wrote Dune?"), { cacheKey: "k" }),
      key(ask("Who wrote Dune?", json("author", schema)), { cacheKey: "k" }),
      key(ask("Who wrote Dune?", json("author", Schema.Struct({ born: Schema.Int }))), { cacheKey: "k" }),
      key(ask("Who wrote Dune?"), {}, { of: ["language model", "lead", "lead-2"] }),
      key(ask("Who wrote Dune?"), {}, { of: ["language model", "other", "lead-1"] }),
      key(ask("Who wrote Dune?"), { tenant: "a" }, { scope: "tenant" }),
      key(ask("Who wrote Dune?"), { tenant: "b" }, { scope: "tenant" }),
      key(ask("Who wrote Dune?"), { tenant: "a", cacheKey: "k" }, { scope: "tenant" }),
      key(ask("Who wrote Dune?"), { tenant: "b", cacheKey: "k" }, { scope: "tenant" }),
      key(conversation("openai", "call_1")),
    ]
    assert.strictEqual(new Set(keys).size, keys.length)
  })

  it("is the same for what says the same", () => {
    const same = (...keys: ReadonlyArray<string>) => assert.strictEqual(new Set(keys).size, 1)
    // Whoever answered the turns before, whatever it put beside them, and however calls are named.
    same(
      key(conversation("openai", "call_1")),
      key(conversation("anthropic", "toolu_9")),
      key(conversation("anthropic", "toolu_9", false)),
    )
    same(
      key(ask("Who wrote Dune?", { tools: [weather, clock] })),
      key(ask("Who wrote Dune?", { tools: [clock, weather] })),
    )
    same(
      key(ask("Who?"), { parameters: { temperature: 0, extra: { a: { x: 1, y: 2 }, b: [1, 2] } } }),
      key(ask("Who?"), { parameters: { extra: { b: [1, 2], a: { y: 2, x: 1 } }, temperature: 0 } }),
    )
    same(key(ask("Who?")), key({ ...ask("Who?"), previousResponseId: "r", incrementalPrompt: Prompt.make("Who?") }))
    same(key(ask("Who?"), { pin: ["a", "b"] }), key(ask("Who?"), { pin: ["b", "a"] }))
    same(key(ask("Who?"), { tags: ["a", "b"] }), key(ask("Who?"), { tags: ["b", "a", "b"] }))
    same(key(ask("Who?")), key(ask("Who?"), { tags: [] }))
    same(key(ask("Who?"), { cacheKey: "k" }), key(ask("Hm?"), { cacheKey: "k" }))
    same(
      key(ask("Who?")),
      key(ask("Who?"), { deadline: "1 second", timeouts: { idle: 1 }, tenant: "a", parameters: {} }),
    )
    const described = (name: string) => Schema.Struct({ name: Schema.String }).annotate({ title: name })
    const json = (schema: Schema.Top) => ask("Who?", { responseFormat: { type: "json", objectName: "o", schema } })
    same(key(json(described("a"))), key(json(described("a"))))
  })

  it("counts which call of a tool a result belongs to", () => {
    const two = (first: string, second: string, result: string) =>
      key(
        ask([
          { role: "user", content: "Hm?" },
          {
            role: "assistant",
            content: [first, second].map((id) => ({
              type: "tool-call" as const,
              id,
              name: "clock",
              params: {},
              providerExecuted: false,
            })),
          },
          { role: "tool", content: [{ type: "tool-result", id: result, name: "clock", isFailure: false, result: 1 }] },
        ]),
      )
    assert.strictEqual(two("a", "b", "a"), two("x", "y", "x"))
    assert.notStrictEqual(two("a", "b", "a"), two("a", "b", "b"))
  })
})

describe("Canonical JSON", () => {
  it("does not depend on the order of fields, at any depth", () => {
    const random_ = random(7)
    const value = (depth: number): unknown => {
      const kind = depth === 5 ? 5 : depth === 0 ? random_.int(0, 4) : random_.int(0, 6)
      if (kind === 0) return random_.int(-5, 5) / 2
      if (kind === 1) return random_.pick(["", "a", "ü\n", "\ud800"])
      if (kind === 2) return random_.chance(0.5)
      if (kind === 3) return null
      if (kind === 4) return Array.from({ length: random_.int(0, 4) }, () => value(depth - 1))
      return Object.fromEntries(
        Array.from({ length: random_.int(0, 5) }, () => [
          random_.pick(["a", "b", "c", "__proto__", "~x"]),
          value(depth - 1),
        ]),
      )
    }
    const shuffled = (v: unknown): unknown => {
      if (Array.isArray(v)) return v.map(shuffled)
      if (typeof v !== "object" || v === null) return v
      const entries = Object.entries(v).map(([name, field]) => [name, shuffled(field)] as const)
      return Object.fromEntries(
        entries
          .map((entry) => [random_.next(), entry] as const)
          .sort(([a], [b]) => a - b)
          .map(([, entry]) => entry),
      )
    }
    let nested = 0
    for (let run = 0; run < 2000; run++) {
      const v = value(5)
      const text = canonical(v)
      assert.strictEqual(canonical(shuffled(v)), text)
      assert.deepStrictEqual(JSON.parse(text), JSON.parse(JSON.stringify(v)))
      if (text.split("{").length > 2) nested++
    }
    assert.isAbove(nested, 500)
  })

  it("tells apart what JSON would not", () => {
    const texts = [
      1n,
      "1n",
      Number.NaN,
      "NaN",
      Infinity,
      -Infinity,
      null,
      "1",
      1,
      new Uint8Array([1]),
      "bytes:AQ==",
      [1],
      new Set([1]),
      [["a", 1]],
      new Map([["a", 1]]),
      new Date(1),
      new URL("https://a.b/"),
      "https://a.b/",
    ].map(canonical)
    assert.strictEqual(new Set(texts).size, texts.length)
    assert.strictEqual(canonical({ a: undefined }), "{}")
    assert.strictEqual(canonical([undefined]), "[null]")
    assert.strictEqual(
      canonical(
        new Map([
          ["a", 1],
          ["b", 2],
        ]),
      ),
      canonical(
        new Map([
          ["b", 2],
          ["a", 1],
        ]),
      ),
    )
  })

  it("refuses what it cannot look into", () => {
    for (const value of [
      Redacted.make("a"),
      /a/,
      new Error("a"),
      () => 1,
      Symbol("a"),
      new URLSearchParams("a=1"),
      new WeakMap(),
    ]) {
      assert.throws(() => canonical(value), NoText)
      assert.throws(() => canonical({ a: [value] }), NoText)
    }
  })

  it("refuses what refers to itself, or is too deep", () => {
    const loop: Record<string, unknown> = {}
    loop["self"] = loop
    assert.throws(() => canonical(loop), NoText)
    let deep: unknown = 1
    for (let i = 0; i < 100_000; i++) deep = [deep]
    assert.throws(() => canonical(deep), NoText)
  })
})

describe("SHA-256", () => {
  it("is that of the platform, for texts of every length around a block, and for long ones", async () => {
    const random_ = random(3)
    const lengths = [...Array.from({ length: 200 }, (_, i) => i), 1000, 32_767, 32_768, 100_000]
    for (const length of lengths) {
      const text = Array.from({ length }, () => String.fromCharCode(random_.int(32, 0x2000))).join("")
      const expected = createHash("sha256").update(text).digest("hex")
      assert.strictEqual(await Effect.runPromise(digest(text)), expected)
      assert.strictEqual(Buffer.from(sha256(new TextEncoder().encode(text))).toString("hex"), expected)
    }
  })

  it("of what is not long is there at once, on any clock", () => {
    assert.strictEqual(
      Effect.runSync(digest("abc")),
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    )
  })
})
