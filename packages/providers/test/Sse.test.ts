import { assert, describe, it } from "@effect/vitest"
import * as Sse from "../src/internal/sse.ts"

const encoder = new TextEncoder()

const read = (pieces: ReadonlyArray<Uint8Array | string>, limit?: number) => {
  const reader = new Sse.Reader(limit)
  const events = pieces.flatMap((piece) => reader.feed(typeof piece === "string" ? encoder.encode(piece) : piece))
  return [...events, ...reader.end()].map(({ data, name }) => (name === undefined ? data : `${name}|${data}`))
}

describe("the reader of server-sent events", () => {
  const text =
    'event: delta\ndata: {"t":"ö€😀"}\r\n\r\n: keep-alive\rdata:b\r\rdata: c\ndata: d\n\nid: 7\nretry: 10\n\ndata: e\n\n'
  const expected = ['delta|{"t":"ö€😀"}', "b", "c\nd", "e"]

  it("reads LF, CRLF, CR, comments, several data lines, and values without a space", () => {
    assert.deepStrictEqual(read([text]), expected)
  })

  it("gives the same events however the bytes are cut in two", () => {
    const bytes = encoder.encode(text)
    for (let at = 0; at <= bytes.length; at++) {
      assert.deepStrictEqual(read([bytes.subarray(0, at), bytes.subarray(at)]), expected, `cut at ${at}`)
    }
  })

  it("gives the same events when every byte comes alone", () => {
    assert.deepStrictEqual(read(Array.from(encoder.encode(text), (byte) => Uint8Array.of(byte))), expected)
  })

  it("skips a byte order mark, and fields and events that say nothing", () => {
    assert.deepStrictEqual(read(["\uFEFFdata: a\n\nevent: empty\n\ndata\n\nfoo: bar\n\ndata: b\n\n"]), ["a", "b"])
  })

  it("takes the last event without a blank line or any line end behind it", () => {
    assert.deepStrictEqual(read(["data: a\n\ndata: b\n"]), ["a", "b"])
    assert.deepStrictEqual(read(["data: a\n\ndata: b"]), ["a", "b"])
    assert.deepStrictEqual(read(["data: a\r"]), ["a"])
  })

  it("tells which event the end of the body completed", () => {
    const reader = new Sse.Reader()
    assert.deepStrictEqual(
      reader.feed(encoder.encode("data: a\n\ndata: b")).map(({ last }) => last),
      [false],
    )
    assert.deepStrictEqual(
      reader.end().map(({ last }) => last),
      [true],
    )
  })

  it("takes a bare JSON object as data, and an error field as an event of that name", () => {
    assert.deepStrictEqual(read(['{"error":{"message":"no"}}\n\nerror: {"code":500}\n\n']), [
      '{"error":{"message":"no"}}',
      'error|{"code":500}',
    ])
  })

  it("stops at an event that is too long, in one line or in many", () => {
    for (const body of [
      `data: ${"x".repeat(100)}\n\ndata: y\n\n`,
      `${"data: xxxxxxxx\n".repeat(20)}\n`,
      "x".repeat(100),
    ]) {
      const reader = new Sse.Reader(50)
      assert.deepStrictEqual(reader.feed(encoder.encode(body)), [])
      assert.isTrue(reader.tooLong)
    }
    assert.isFalse(new Sse.Reader().tooLong)
    assert.strictEqual(read(["data: y\n\n".repeat(1000)], 50).length, 1000)
  })
})
