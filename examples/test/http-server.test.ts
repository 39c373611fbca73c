/** The service of `examples/http-server`, started as a program and asked with curl. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { type ChildProcessWithoutNullStreams, execFile, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"

const program = fileURLToPath(new URL("../http-server/main.ts", import.meta.url))

let child: ChildProcessWithoutNullStreams
let address = ""
let printed = ""

beforeAll(async () => {
  child = spawn(process.execPath, [program], { env: { PATH: process.env["PATH"] ?? "", NO_COLOR: "1", PORT: "0" } })
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => (printed += chunk))
  await new Promise<void>((resolve, reject) => {
    child.on("close", () => reject(new Error(`It ended: ${printed}`)))
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      printed += chunk
      address ||= /^Listening on (\S+)\n/m.exec(printed)?.[1] ?? ""
      if (address !== "") resolve()
    })
  })
}, 20_000)

afterAll(async () => {
  child.removeAllListeners("close")
  const closed = new Promise((resolve) => child.on("close", resolve))
  child.kill("SIGTERM")
  await closed
}, 20_000)

interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** What curl gets, with `-i`. */
const curl = (path: string, ...args: ReadonlyArray<string>): Promise<Answer> =>
  new Promise((resolve, reject) => {
    execFile("curl", ["-sS", "-i", "--max-time", "10", `${address}${path}`, ...args], (error, stdout, stderr) => {
      if (error !== null) return reject(new Error(stderr, { cause: error }))
      const at = stdout.indexOf("\r\n\r\n")
      const [first = "", ...lines] = stdout.slice(0, at).split("\r\n")
      const headers = lines.map((line) => [
        line.slice(0, line.indexOf(":")).toLowerCase(),
        line.slice(line.indexOf(":") + 1).trim(),
      ])
      resolve({ status: Number(first.split(" ")[1]), headers: Object.fromEntries(headers), body: stdout.slice(at + 4) })
    })
  })

const asking = (question: string) => ["-d", JSON.stringify({ question })]

/** One that nobody has answered yet. */
const question = asking("And what if nobody knows the lines?")

const day = async (name: string): Promise<void> => {
  assert.strictEqual((await curl(`/upstream/${name}`, "-X", "PUT")).status, 204)
}

/** The lines of failed responses in the log so far. */
const lines = (): ReadonlyArray<Readonly<Record<string, unknown>>> =>
  printed
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line).annotations)

describe("The service of examples/http-server, asked with curl,", () => {
  it("is healthy", async () => {
    const { body, status } = await curl("/health")
    assert.deepStrictEqual([status, body], [200, "ok"])
  })

  it("answers", async () => {
    await day("well")
    const { body, status } = await curl("/ask", ...asking("Does the show go on?"))
    assert.strictEqual(status, 200)
    assert.deepStrictEqual(JSON.parse(body), { answer: "The show goes on.", source: "primary" })
  })

  it("answers from the ladder what it has answered before, whatever the day is like, and says so", async () => {
    for (const bad of ["limited", "down", "strict"]) {
      await day(bad)
      const { body, status } = await curl("/ask", ...asking("Does the show go on?"))
      assert.strictEqual(status, 200)
      assert.deepStrictEqual(JSON.parse(body), { answer: "The show goes on.", source: "cache" })
    }
  })

  it("says 429 and when to come back, when its providers do, and writes one line to its log", async () => {
    await day("limited")
    const before = lines().length
    const { body, headers, status } = await curl("/ask?key=sk-planted", ...question, "-H", "x-request-id: req-7")
    assert.strictEqual(status, 429)
    assert.strictEqual(headers["retry-after"], "1")
    assert.strictEqual(headers["content-type"], "application/json")
    assert.deepStrictEqual(JSON.parse(body), {
      error: {
        type: "rate_limit",
        message: "Too many requests at the moment. Please try again later.",
        retryable: true,
        retry_after: 1,
        request_id: "req-7",
      },
    })
    assert.deepStrictEqual(lines().slice(before), [
      {
        error_type: "rate_limit",
        provider: "openai-compatible | anthropic",
        model: "gpt-5.6-terra | claude-sonnet-5-5",
        retryable: true,
        status: 429,
        path: "/ask",
        request_id: "req-7",
      },
    ])
    assert.notInclude(printed, "sk-planted")
  })

  it("says 503 and when to come back, when its providers are down", async () => {
    await day("down")
    const { body, headers, status } = await curl("/ask", ...question)
    assert.strictEqual(status, 503)
    assert.strictEqual(headers["retry-after"], "2")
    assert.strictEqual(JSON.parse(body).error.retry_after, 2)
  })

  it("says 422 and nothing of coming back, when the question is refused", async () => {
    await day("strict")
    const { body, headers, status } = await curl("/ask", ...question)
    assert.deepStrictEqual([status, headers["retry-after"]], [422, undefined])
    assert.deepInclude(JSON.parse(body).error, { type: "content_filtered", retryable: false })
  })

  it("sends problem details where the Accept header asks for them", async () => {
    await day("limited")
    const { body, headers, status } = await curl("/ask", ...question, "-H", "accept: application/problem+json")
    assert.deepStrictEqual([status, headers["content-type"]], [429, "application/problem+json"])
    assert.deepInclude(JSON.parse(body), { type: "urn:understudy:error:rate_limit", status: 429, retry_after: 1 })
  })

  it("streams an answer up to its end marker", async () => {
    await day("well")
    const { body, headers, status } = await curl("/ask/stream", "-N", ...asking("How does it begin?"))
    assert.deepStrictEqual([status, headers["content-type"]], [200, "text/event-stream"])
    assert.isTrue(body.endsWith("data: [DONE]\n\n"))
  })

  it("ends a stream that broke with an error event, and without the end marker", async () => {
    await day("broken")
    const before = lines().length
    const { body, status } = await curl("/ask/stream", "-N", ...question)
    assert.strictEqual(status, 200)
    assert.match(body, /^data: \{"text":"The /)
    assert.match(body, /event: error\ndata: \{"error":\{"type":"stream_interrupted",[^\n]+\}\}\n\n$/)
    assert.notInclude(body, "[DONE]")
    assert.deepStrictEqual(
      lines()
        .slice(before)
        .map(({ error_type, status }) => [error_type, status]),
      [["stream_interrupted", 200]],
    )
  })

  it("answers a stream that never began with a status", async () => {
    await day("limited")
    const { body, headers, status } = await curl("/ask/stream", "-N", ...question)
    assert.deepStrictEqual([status, headers["retry-after"]], [429, "1"])
    assert.strictEqual(JSON.parse(body).error.type, "rate_limit")
  })

  it("leaves what is no failure of a call as it is", async () => {
    assert.strictEqual((await curl("/nowhere")).status, 404)
    assert.strictEqual((await curl("/ask", "-d", "no json")).status, 400)
  })
})
