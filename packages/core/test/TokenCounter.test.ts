import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, type Layer, Schema } from "effect"
import { AiError, Prompt, Tokenizer, Tool } from "effect/ai"
import { LanguageModelFace, TokenCounter } from "@understudy/core"
import * as o200k from "gpt-tokenizer/encoding/o200k_base"
import { counting, maxPiece, opened } from "../src/internal/recovery/gptTokenizer.ts"
import { failed, random } from "./stub.ts"

const real = (text: string): number => o200k.countTokens(text, { disallowedSpecial: new Set() })

const repeat = (times: number, line: (index: number) => string): string =>
  Array.from({ length: times }, (_, index) => line(index)).join("\n")

/** Texts of many kinds, and how far off the estimate may be: the share of what gpt-tokenizer says. */
const texts: ReadonlyArray<readonly [name: string, least: number, most: number, text: string]> = [
  [
    "English prose",
    0.85,
    1.15,
    "The lighthouse keeper had not slept for two nights, and the storm showed no sign of passing. He counted the ships that had gone by since Monday, wrote the number into his book, and lit another lamp. Somewhere below, the sea was taking the old pier apart, one plank at a time; by morning there would be nothing left of it but a row of dark posts.",
  ],
  [
    "a chat",
    0.8,
    1.25,
    "hey 👋 can u check the pr?? lol its failing on CI again 😂😂 — thx!! btw @maria said it’s “fine” on her machine…",
  ],
  [
    "TypeScript",
    0.8,
    1.3,
    `export const parseHTMLNode = async (input: string, options: ParseOptions = {}): Promise<Array<Node>> => {
  const { maxDepth = 32, onError } = options
  const out: Array<Node> = []
  for (const [index, token] of tokenize(input).entries()) {
    if (token.depth > maxDepth) throw new RangeError(\`too deep at \${index}\`)
    out.push({ kind: token.kind, children: [], start: token.start ?? 0 })
  }
  return out.filter((node) => node.kind !== "comment")
}`,
  ],
  [
    "Python",
    0.8,
    1.3,
    `def fibonacci(n: int) -> list[int]:
    """Return the first n numbers."""
    numbers = [0, 1]
    while len(numbers) < n:
        numbers.append(numbers[-1] + numbers[-2])
    return numbers[:n]

if __name__ == "__main__":
    print(fibonacci(20))`,
  ],
  [
    "JSON",
    0.8,
    1.25,
    JSON.stringify(
      Array.from({ length: 20 }, (_, id) => ({
        id,
        name: `customer ${id}`,
        active: id % 2 === 0,
        balance: id * 13.37,
        tags: ["new", "eu-west"],
        address: { street: "Main Street 5", zip: "12345" },
      })),
    ),
  ],
  [
    "indented JSON",
    0.8,
    1.25,
    JSON.stringify(
      Array.from({ length: 20 }, (_, id) => ({ id, label: "a thing", nested: { ok: true, value: null } })),
      null,
      2,
    ),
  ],
  ["CSV", 0.8, 1.3, repeat(60, (id) => `${id},user${id}@example.com,Active,${(id * 13.7).toFixed(1)},"Springfield"`)],
  [
    "logs",
    0.8,
    1.25,
    repeat(
      40,
      (id) => `2026-09-14T12:${10 + id}:03.123Z INFO [req_${(id * 2654435) >>> 0}] GET /v1/items/${id} 200 12ms`,
    ),
  ],
  ["numbers", 0.8, 1.2, repeat(200, (id) => (id * 7919.37).toFixed(2))],
  ["a table", 0.8, 1.25, `| a | b |\n|---|---|\n${repeat(60, (id) => `| ${id} | two |`)}`],
  [
    "German",
    0.75,
    1.2,
    "Die Straßenbahn fuhr an diesem Morgen ungewöhnlich langsam durch die verschneite Innenstadt, weil die Geschwindigkeitsbegrenzung wegen der Bauarbeiten verlängert worden war. Niemand beschwerte sich darüber.",
  ],
  [
    "French",
    0.75,
    1.25,
    "L’été dernier, nous avons traversé la région à vélo, en nous arrêtant chaque soir dans un village différent. Les habitants étaient très accueillants, et la nourriture était délicieuse.",
  ],
  [
    "Polish",
    0.75,
    1.25,
    "Wczoraj wieczorem długo rozmawialiśmy o nowym planie i wszyscy zgodzili się, że potrzebujemy więcej czasu na testy. Proszę przetłumaczyć ten tekst na język angielski.",
  ],
  [
    "Vietnamese",
    0.8,
    1.4,
    "Tối qua chúng tôi đã thảo luận rất lâu về kế hoạch mới, và mọi người đều đồng ý rằng cần thêm thời gian để kiểm tra.",
  ],
  [
    "Russian",
    0.85,
    1.5,
    "Вчера вечером мы долго обсуждали новый план, и все согласились, что на проверку нужно больше времени. Пожалуйста, переведите этот текст на английский язык и назовите три самых важных вывода.",
  ],
  [
    "Greek",
    0.85,
    1.6,
    "Παρακαλώ μεταφράστε το κείμενο στα αγγλικά και γράψτε τρία συμπεράσματα για τους συναδέλφους μας.",
  ],
  ["Arabic", 0.85, 1.6, "يرجى ترجمة هذا النص إلى اللغة الإنجليزية وتلخيص أهم النقاط في ثلاث جمل قصيرة قبل نهاية اليوم."],
  [
    "Hindi",
    0.85,
    1.7,
    "कृपया इस पाठ का अंग्रेज़ी में अनुवाद करें और तीन सबसे महत्वपूर्ण निष्कर्ष लिखें। कल दोपहर हमने बैठक कक्ष में नई योजना पर चर्चा की।",
  ],
  [
    "Chinese",
    0.85,
    1.5,
    "昨天下午，我们在会议室讨论了新的产品计划，大家一致认为需要更多的测试时间。请把下面的报告翻译成英文，并列出三个最重要的结论。",
  ],
  [
    "Japanese",
    0.85,
    1.5,
    "昨日の午後、私たちは会議室で新しい計画について話し合いました。次の報告書を英語に翻訳して、最も重要な結論を三つ挙げてください。",
  ],
  [
    "Korean",
    0.75,
    1.5,
    "어제 오후 우리는 회의실에서 새로운 계획에 대해 논의했습니다. 다음 보고서를 영어로 번역하고 가장 중요한 결론 세 가지를 적어 주세요.",
  ],
  ["emoji", 0.75, 1.5, "😀😃😄😁😆😅🤣😂🙂🙃😉😊🥰😍🤩😘👍🏽👩‍👩‍👧‍👦🇩🇪🏳️‍🌈🚀🔥✨💯🎉❤️"],
  ["mathematics", 0.7, 1.3, "∑_{i=1}^{n} x_i² ≥ (∫₀^∞ e^{-x²} dx)·√π ⇒ ∀ε>0 ∃δ>0: |f(x)−f(a)|<ε"],
  [
    "base64",
    0.7,
    1.2,
    Buffer.from(Uint8Array.from({ length: 900 }, (_, index) => (index * 7919) >> 3)).toString("base64"),
  ],
]

const estimate = (text: string) => TokenCounter.estimate.count(text)

describe("The estimate", () => {
  for (const [name, least, most, text] of texts) {
    it.effect(`of ${name} is ${least} to ${most} of what o200k_base gives`, () =>
      Effect.gen(function* () {
        const share = (yield* estimate(text)) / real(text)
        assert.isAtLeast(share, least)
        assert.isAtMost(share, most)
      }),
    )
  }

  it.effect("of all these texts together is within a tenth", () =>
    Effect.gen(function* () {
      const all = texts.map(([, , , text]) => text)
      const counts = yield* Effect.forEach(all, estimate)
      const sum = (numbers: ReadonlyArray<number>) => numbers.reduce((a, b) => a + b, 0)
      const share = sum(counts) / sum(all.map(real))
      assert.isAtLeast(share, 0.9)
      assert.isAtMost(share, 1.1)
    }),
  )

  it.effect("grows with the text, and is never more than its bytes by much", () =>
    Effect.gen(function* () {
      const r = random(7)
      const alphabet = [..."aZ 9\n{}—é жא中あ한😀\ud800\t"]
      for (let round = 0; round < 300; round++) {
        const text = Array.from({ length: r.int(0, 60) }, () => r.pick(alphabet).repeat(r.int(1, 5))).join("")
        const tokens = yield* estimate(text)
        assert.isAtMost(tokens, new TextEncoder().encode(text).length + 1)
        assert.isAtLeast(yield* estimate(text + text), tokens)
        assert.strictEqual(yield* estimate(text), tokens)
      }
    }),
  )

  it.effect("of nothing is nothing, and of white space little", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* estimate(""), 0)
      assert.strictEqual(yield* estimate(" "), 0)
      assert.isAtMost(yield* estimate(" ".repeat(1000)), 12)
    }),
  )
})

describe("A counter", () => {
  /** Counts characters: so that what is counted can be seen. */
  const characters = TokenCounter.make({ name: "characters", exact: true, text: (text) => text.length })

  it.effect("counts a message with its marks, and calls and results with theirs", () =>
    Effect.gen(function* () {
      const count = (...messages: ReadonlyArray<Prompt.MessageEncoded>) =>
        characters.count(Prompt.make(messages).content[0]!)
      assert.strictEqual(yield* count({ role: "system", content: "12345" }), 4 + 5)
      assert.strictEqual(yield* count({ role: "user", content: "123" }), 4 + 3)
      const call = { type: "tool-call", id: "an id that nobody counts", name: "find", params: { a: 1 } } as const
      assert.strictEqual(yield* count({ role: "assistant", content: [call] }), 4 + 8 + 4 + '{"a":1}'.length)
      const result = { type: "tool-result", id: "0", name: "find", isFailure: false, result: { b: [2] } } as const
      assert.strictEqual(yield* count({ role: "tool", content: [result] }), 4 + 8 + '{"b":[2]}'.length)
      const said = { ...result, modelOutput: [{ type: "text", text: "two" }] } as const
      assert.strictEqual(yield* count({ role: "tool", content: [said] }), 4 + 8 + 3)
      const thought = { type: "reasoning", text: "Hm." } as const
      assert.strictEqual(yield* count({ role: "assistant", content: [thought] }), 4 + 3)
    }),
  )

  it.effect("counts a prompt as the sum of its messages", () =>
    Effect.gen(function* () {
      const prompt = Prompt.make([
        { role: "system", content: "12" },
        { role: "user", content: "345" },
      ])
      assert.strictEqual(yield* characters.count(prompt), 3 + (4 + 2) + (4 + 3))
      assert.strictEqual(yield* characters.count(Prompt.empty), 3)
    }),
  )

  it.effect("counts the definitions of tools and the schema of the answer, too", () =>
    Effect.gen(function* () {
      const weather = Tool.make("weather", {
        description: "At a place.",
        parameters: Schema.Struct({ city: Schema.String }),
      })
      const plain = LanguageModelFace.request("Hi")
      const alone = yield* characters.count(plain)
      const tools = yield* characters.count({ ...plain, tools: [weather] })
      const definition = JSON.stringify(Tool.getJsonSchema(weather))
      assert.strictEqual(tools - alone, 8 + "weather".length + "At a place.".length + definition.length)
      const schema = Schema.Struct({ sky: Schema.String })
      const format = { type: "json", objectName: "sky", schema } as const
      const structured = yield* characters.count({ ...plain, responseFormat: format })
      assert.strictEqual(structured - alone, 8 + JSON.stringify(Tool.getJsonSchemaFromSchema(schema)).length)
    }),
  )

  it.effect("takes a flat figure for what is not text, and not its base64", () =>
    Effect.gen(function* () {
      const file = (mediaType: string, data: string | Uint8Array | URL) =>
        TokenCounter.estimate.count(Prompt.make([{ role: "user", content: [{ type: "file", mediaType, data }] }]))
      assert.strictEqual(yield* file("image/png", "A".repeat(4_000_000)), 1007)
      assert.strictEqual(yield* file("image/png", new URL("https://example.com/a.png")), 1007)
      assert.strictEqual(yield* file("application/pdf", new Uint8Array(200_000)), 3007)
      assert.strictEqual(yield* file("text/plain", new Uint8Array(300)), 107)
    }),
  )

  it.effect("counts what cannot be written as JSON as nothing, and does not throw", () =>
    Effect.gen(function* () {
      const circle: { self?: unknown } = {}
      circle.self = circle
      const message = Prompt.assistantMessage({
        content: [Prompt.toolCallPart({ id: "0", name: "t", params: circle, providerExecuted: false })],
      })
      assert.strictEqual(yield* characters.count(message), 4 + 8 + 1)
    }),
  )

  it.effect("counts a message once, however often it is sent", () =>
    Effect.gen(function* () {
      let calls = 0
      const counter = TokenCounter.make({
        name: "counting",
        exact: true,
        text: (text) => {
          calls++
          return Effect.succeed(text.length)
        },
      })
      const prompt = Prompt.make("Who wrote Dune?")
      const tokens = yield* counter.count(prompt)
      assert.strictEqual(yield* counter.count(Prompt.concat(prompt, prompt)), 2 * tokens - 3)
      assert.strictEqual(calls, 1)
    }),
  )
})

describe("gpt-tokenizer", () => {
  const current = <A, E>(self: Effect.Effect<A, E>, layer: Layer.Layer<never, E>) => Effect.provide(self, layer)

  it.effect("counts exactly, in the encoding that is asked for", () =>
    Effect.gen(function* () {
      for (const [, , , text] of texts.slice(0, 6)) {
        const counted = current(TokenCounter.count(text), TokenCounter.layerGptTokenizer())
        assert.strictEqual(yield* counted, real(text))
      }
      const layer = TokenCounter.layerGptTokenizer({ encoding: "cl100k_base" })
      const counter = yield* current(Effect.service(TokenCounter.Current), layer)
      assert.strictEqual(counter.name, "gpt-tokenizer cl100k_base")
      assert.isTrue(counter.exact)
      assert.isFalse(TokenCounter.estimate.exact)
    }),
  )

  it.effect("takes what looks like a special token as ordinary text", () =>
    Effect.gen(function* () {
      const text = "Ignore it: <|endoftext|><|im_start|>system<|endofprompt|>"
      const tokens = yield* current(TokenCounter.count(text), TokenCounter.layerGptTokenizer())
      // As many as a text of this form has, and not one for each.
      assert.isAbove(tokens, 15)
    }),
  )

  it.effect("that is not installed is said so, in the layer's type", () =>
    Effect.gen(function* () {
      const missing = yield* Effect.exit(opened("o200k_base", () => Promise.reject(new Error("ERR_MODULE_NOT_FOUND"))))
      const failure = failed(missing)
      assert.instanceOf(failure, TokenCounter.TokenizerMissing)
      assert.match(failure.message, /npm install gpt-tokenizer/)
    }),
  )

  it("refuses an encoding that it does not have", () => {
    // @ts-expect-error -- no such encoding
    assert.throws(() => TokenCounter.layerGptTokenizer({ encoding: "gpt-9" }), /o200k_base/)
  })

  it("never gives the encoder a run that it cannot split, and all of the text", () => {
    const given: Array<string> = []
    const count = counting({
      countTokens: (text) => {
        given.push(text)
        return 1
      },
    })
    const r = random(11)
    const run = () => r.pick(["a", " ", "中", "-", "😀", "é", "\n", "x1", "a b "]).repeat(r.int(1, 900))
    for (let round = 0; round < 200; round++) {
      given.length = 0
      const text = Array.from({ length: r.int(1, 5) }, run).join("")
      assert.strictEqual(count(text), given.length)
      assert.strictEqual(given.join(""), text)
      for (const piece of given) {
        for (const [long] of piece.matchAll(/\s+|[^\s\d]+/gu)) assert.isAtMost([...long].length, maxPiece)
        assert.isTrue(piece.isWellFormed())
      }
    }
  })

  it("is asked for a megabyte of anything in a number of pieces that grows with its length only", () => {
    for (const unit of ["a", " ", "中", "-", "ab", "\n", "\u00a0"]) {
      const of = (length: number): number => {
        let pieces = 0
        counting({ countTokens: () => ++pieces && 1 })(unit.repeat(length))
        return pieces
      }
      const half = of(500_000)
      assert.isAtMost(of(1_000_000), 2 * half + 2, JSON.stringify(unit))
      assert.isAtLeast(half, (500_000 * unit.length) / maxPiece - 1)
    }
  })

  it("counts a megabyte of spaces and letters, which takes an encoder by itself minutes", () => {
    const count = counting(o200k)
    assert.strictEqual(count("a".repeat(1_000_000)), 125_000)
    assert.strictEqual(count(" ".repeat(1_000_000)), 7813)
  })

  it("is as exact for long runs as for one token in each piece", () => {
    const count = counting(o200k)
    for (const text of ["abc".repeat(300), "中文字".repeat(200), `${"-".repeat(500)} and ${" ".repeat(300)}`]) {
      assert.isAtMost(Math.abs(count(text) - real(text)), Math.ceil(text.length / maxPiece) + 1)
    }
  })

  it("forgets what it counted: its cache is cleared again and again", () => {
    let cleared = 0
    const count = counting({ countTokens: () => 1, clearMergeCache: () => void cleared++ })
    for (let megabytes = 0; megabytes < 4; megabytes++) count("word ".repeat(200_000))
    assert.isAtLeast(cleared, 3)
  })
})

describe("A tokenizer of effect/ai", () => {
  const words = Tokenizer.make({
    tokenize: (prompt) =>
      Effect.succeed(
        prompt.content
          .flatMap((message) =>
            message.role === "user"
              ? message.content.flatMap((part) => (part.type === "text" ? part.text.split(" ") : []))
              : [],
          )
          .map((_, index) => index),
      ),
  })

  it.effect("counts for us", () =>
    Effect.gen(function* () {
      const count = TokenCounter.count(Prompt.make([{ role: "system", content: "one two three" }]))
      assert.strictEqual(yield* Effect.provide(count, TokenCounter.layerTokenizer), 3 + 4 + 3)
    }).pipe(Effect.provideService(Tokenizer.Tokenizer, words)),
  )

  it.effect("that fails is made up for by the estimate", () => {
    const broken = Tokenizer.make({
      tokenize: () =>
        Effect.fail(
          AiError.make({
            module: "t",
            method: "tokenize",
            reason: new AiError.UnknownError({ description: "broken" }),
          }),
        ),
    })
    return Effect.gen(function* () {
      const text = "one two three"
      const exit = yield* Effect.exit(Effect.provide(TokenCounter.count(text), TokenCounter.layerTokenizer))
      assert.deepStrictEqual(exit, Exit.succeed(yield* TokenCounter.estimate.count(text)))
    }).pipe(Effect.provideService(Tokenizer.Tokenizer, broken))
  })
})
