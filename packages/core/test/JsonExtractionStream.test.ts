import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Result, Schema, Stream } from "effect"
import { JsonExtraction } from "@understudy/core"

const Order = Schema.Struct({
  id: Schema.Int,
  lines: Schema.Array(Schema.Struct({ item: Schema.String, count: Schema.Int })),
  placed: Schema.Date,
})

/** What is there after each piece: a copy, since the value goes on growing. */
const shown = (options: JsonExtraction.Options, ...pieces: ReadonlyArray<string>) => {
  const parser = JsonExtraction.parser(options)
  return pieces.map((piece) => JsonExtraction.copy(parser.push(piece).value))
}

describe("A parser", () => {
  it("shows what there is, and holds back what is not whole: numbers, literals, keys, escapes, halves of characters", () => {
    assert.deepStrictEqual(
      shown({}, '{"a": 1', '2, "b', '": tr', 'ue, "c": "x\\', "n\ud83d", '\ude00y", "d": 5', "}"),
      [
        {},
        { a: 12 },
        { a: 12 },
        { a: 12, b: true, c: "x" },
        { a: 12, b: true, c: "x\n" },
        { a: 12, b: true, c: "x\n😀y" },
        { a: 12, b: true, c: "x\n😀y", d: 5 },
      ],
    )
  })

  it("tells which node still grows, and so which are whole", () => {
    const parser = JsonExtraction.parser()
    const snapshot = parser.push('{"a": [1, {"b": "x"}, {"c": "yy')
    assert.deepStrictEqual(snapshot.open, ["a", 2, "c"])
    const whole = (...path: JsonExtraction.Path) => JsonExtraction.isComplete(snapshot, path)
    assert.isTrue(whole("a", 0))
    assert.isTrue(whole("a", 1))
    assert.isTrue(whole("a", 1, "b"))
    assert.isFalse(whole("a", 2, "c"))
    assert.isFalse(whole("a", 2))
    assert.isFalse(whole("a"))
    assert.isFalse(whole())
    assert.isFalse(whole("z"))
    const last = parser.push('"}]}.')
    assert.isUndefined(last.open)
    assert.isTrue(JsonExtraction.isComplete(last, []))
    assert.isTrue(JsonExtraction.isComplete(last, ["a", 2, "c"]))
  })

  it("shows nothing of prose and of reasoning, wherever a tag is cut", () => {
    assert.deepStrictEqual(shown({}, "See [1", "] or {x} <th", 'ink>{"a": 0}</th', 'ink>{"a": "y', '"}'), [
      undefined,
      undefined,
      undefined,
      { a: "y" },
      { a: "y" },
    ])
    assert.deepStrictEqual(shown({}, '{"a": "x"} no', "</think>", '{"a": "z"'), [{ a: "x" }, undefined, { a: "z" }])
  })

  it("shows only what can be the answer by its schema", () => {
    assert.deepStrictEqual(shown({ schema: Order }, '["a", "b"] {"id": 1, "l', 'ines": [{"item": "p'), [
      { id: 1 },
      { id: 1, lines: [{ item: "p" }] },
    ])
    assert.deepStrictEqual(shown({ schema: Schema.Array(Schema.String) }, '{"a": ["x", "y"', "]} ", '["z"'), [
      undefined,
      undefined,
      ["z"],
    ])
  })

  it("shows a string before it is known that it ends there", () => {
    assert.deepStrictEqual(shown({}, '{"a": "x", "b', '": "y"', ', "c'), [
      { a: "x" },
      { a: "x", b: "y" },
      { a: "x", b: "y" },
    ])
  })

  it("mends what it shows", () => {
    assert.deepStrictEqual(shown({}, "{'a': 'it's', b: [x, ", "y], // note\n c: None", "}"), [
      { a: "it's", b: ["x"] },
      { a: "it's", b: ["x", "y"] },
      { a: "it's", b: ["x", "y"], c: null },
    ])
  })

  it("goes on over a broken value, and shows nothing that is inside of it", () => {
    assert.deepStrictEqual(shown({}, '{"a": "x", "b": ;', ' {"c": "d"}', "} ", '{"e": "f"'), [
      undefined,
      undefined,
      undefined,
      { e: "f" },
    ])
  })

  it("decodes members as they are finished, each once", () => {
    const parser = JsonExtraction.parser({ schema: Order })
    const issues = (piece: string) => [...parser.push(piece).issues]
    assert.deepStrictEqual(issues('{"id": "one"'), [])
    assert.deepStrictEqual(issues(', "lines": ['), [{ path: ["id"], expected: "an integer" }])
    assert.lengthOf(issues('{"item": "p", "count": 1.5'), 1)
    assert.deepStrictEqual(issues('}, {"item": "q", "count": 2},').slice(1), [
      { path: ["lines", 0, "count"], expected: "an integer" },
    ])
    assert.lengthOf(issues(' {"item": "SECRET"'), 2)
    const after = issues('}], "placed": "SECRET", "x":')
    assert.deepStrictEqual(after.slice(2), [
      { path: ["lines", 2, "count"], expected: "this key to be there" },
      { path: ["placed"], expected: "a valid Date" },
    ])
    assert.notInclude(JSON.stringify(after), "SECRET")
  })

  it("ends with what the whole text gives, and takes the last word on why it ended", () => {
    const read = (finishReason?: string) => {
      const parser = JsonExtraction.parser({ schema: Schema.Struct({ a: Schema.Array(Schema.Int) }) })
      parser.push('{"a": [1,')
      parser.push(" 2")
      return parser.end(finishReason)
    }
    assert.isTrue(Result.isFailure(read()))
    assert.isTrue(Result.isFailure(read("length")))
    const stopped = read("stop")
    assert.deepStrictEqual(Result.isSuccess(stopped) ? stopped.success.value : undefined, { a: [1, 2] })
  })

  it("stops looking where a limit is passed, and tells at the end which", () => {
    const parser = JsonExtraction.parser({ limits: { maxBytes: 20 } })
    assert.deepStrictEqual(parser.push('{"a": "0123"').value, { a: "0123" })
    assert.deepStrictEqual(parser.push(', "b": "456"}').value, { a: "0123" })
    const end = parser.end()
    assert.strictEqual(Result.isFailure(end) ? end.failure.limit : undefined, "maxBytes")
    const deep = JsonExtraction.parser()
    assert.isUndefined(deep.push("[".repeat(100_000)).value)
    assert.isUndefined(deep.push("]").value)
  })
})

describe("A stream of text", () => {
  const text = Stream.make(
    "Sure! ",
    '{"id": 7, "lines": [{"item": "pen", ',
    '"count": 2}], "pla',
    'ced": "2024-01-02"}',
  )

  it.effect("becomes a stream of values that grow, each as it was then, and at last the whole", () =>
    Effect.gen(function* () {
      const seen = yield* text.pipe(
        JsonExtraction.partials({ schema: Order }),
        Stream.map((progress) =>
          progress._tag === "Whole" ? progress.extraction.value : JsonExtraction.copy(progress.value),
        ),
        Stream.runCollect,
      )
      assert.deepStrictEqual(
        [...seen],
        [
          { id: 7, lines: [{ item: "pen" }] },
          { id: 7, lines: [{ item: "pen", count: 2 }] },
          { id: 7, lines: [{ item: "pen", count: 2 }], placed: "2024-01-02" },
          { id: 7, lines: [{ item: "pen", count: 2 }], placed: new Date("2024-01-02") },
        ],
      )
    }),
  )

  it.effect("fails as extraction does, after what it could show, and passes other failures on", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const playing = <E>(self: Stream.Stream<string, E>, finishReason: () => string) =>
        self.pipe(
          JsonExtraction.partials({ schema: Order, finishReason }),
          Stream.runForEach(({ _tag }) => Effect.sync(() => seen.push(_tag))),
          Effect.exit,
        )
      const cut = yield* playing(Stream.take(text, 2), () => "length")
      const failure = Exit.isFailure(cut) ? Cause.squash(cut.cause) : undefined
      assert.instanceOf(failure, JsonExtraction.ExtractionFailure)
      assert.strictEqual(failure instanceof JsonExtraction.ExtractionFailure ? failure.cause : undefined, "truncated")
      assert.deepStrictEqual(seen, ["Partial"])
      const broken = yield* playing(Stream.concat(Stream.take(text, 1), Stream.fail("gone")), () => "stop")
      assert.deepStrictEqual(broken, Exit.fail("gone"))
    }),
  )

  it.effect("can be read twice", () =>
    Effect.gen(function* () {
      const values = JsonExtraction.partials({ schema: Order })(text)
      const [once, again] = [yield* Stream.runCount(values), yield* Stream.runCount(values)]
      assert.strictEqual(once, 4)
      assert.strictEqual(again, 4)
    }),
  )
})
