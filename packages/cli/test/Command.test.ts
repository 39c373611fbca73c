import { assert, describe, it } from "@effect/vitest"
import { LlmError, PolicyEvent } from "@understudy/core"
import { Upstream } from "@understudy/testkit"
import { Effect, Schema } from "effect"
import { spawn } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { fileURLToPath } from "node:url"

const bin = fileURLToPath(new URL("../src/bin.ts", import.meta.url))

interface Ran {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs the command as a person does, with this environment and input only. */
const run = (
  args: ReadonlyArray<string>,
  options: { readonly env?: Record<string, string>; readonly input?: string; readonly killAfter?: string } = {},
): Effect.Effect<Ran> =>
  Effect.callback((resume) => {
    const child = spawn(process.execPath, [bin, ...args], {
      env: { PATH: process.env["PATH"] ?? "", NO_COLOR: "1", ...options.env },
    })
    let stdout = ""
    let stderr = ""
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      stdout += chunk
      if (options.killAfter !== undefined && stdout.includes(options.killAfter)) child.kill("SIGINT")
    })
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => (stderr += chunk))
    child.on("close", (status) => resume(Effect.succeed({ status, stdout, stderr })))
    child.stdin.end(options.input ?? "")
    return Effect.sync(() => child.kill("SIGKILL"))
  })

const lines = (text: string): ReadonlyArray<string> => text.split("\n").filter((line) => line !== "")
const eventsOf = (stdout: string) =>
  lines(stdout).map((line) => Schema.decodeUnknownSync(PolicyEvent.PolicyEvent)(JSON.parse(line)))

const scratch = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "understudy-cli-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true })),
)

const config = (folder: string, candidates: ReadonlyArray<object>, more: object = {}): string => {
  const path = join(folder, "understudy.json")
  writeFileSync(path, JSON.stringify({ candidates, ...more }))
  return path
}

describe("understudy ask", () => {
  for (const stream of [false, true]) {
    it.live(`prints the answer on stdout and the story on stderr${stream ? ", streamed" : ""}`, () =>
      Effect.gen(function* () {
        const folder = yield* scratch
        const down = yield* Upstream.make({ script: { steps: [Upstream.status(500)], then: "repeat" } })
        const well = yield* Upstream.make({ script: [Upstream.answer("Frank Herbert.")] })
        const file = config(folder, [
          { name: "down", provider: "openai", model: "m1", baseUrl: down.openaiUrl },
          { name: "well", provider: "anthropic", model: "m2", baseUrl: well.anthropicUrl },
        ])
        const ran = yield* run(["ask", "Who wrote Dune?", "--config", file, ...(stream ? ["--stream"] : [])], {
          env: { OPENAI_API_KEY: "sk-planted-1", ANTHROPIC_API_KEY: "sk-planted-2" },
        })
        assert.strictEqual(ran.stdout, "Frank Herbert.\n", ran.stderr)
        assert.strictEqual(ran.status, 0)
        assert.match(ran.stderr, /down \(m1\): ProviderUnavailable/)
        assert.match(ran.stderr, /over to well/)
        assert.notInclude(ran.stderr, "sk-planted")
        const [seen] = yield* well.requests
        assert.strictEqual(seen?.streaming, stream)
      }).pipe(Effect.scoped),
    )
  }

  it.live("prints policy events with --json, one object a line", () =>
    Effect.gen(function* () {
      const folder = yield* scratch
      const limited = yield* Upstream.make({
        script: [Upstream.status(429, { headers: { "retry-after-ms": "50" } }), Upstream.answer("Yes.")],
      })
      const file = config(folder, [{ name: "a", provider: "openai", model: "m", baseUrl: limited.openaiUrl }])
      const ran = yield* run(["ask", "Well?", "--json", "--config", file], { env: { OPENAI_API_KEY: "k" } })
      assert.strictEqual(ran.status, 0, ran.stderr)
      const events = eventsOf(ran.stdout)
      assert.deepStrictEqual(
        events.map((event) => event.event),
        [
          "CallStarted",
          "AttemptStarted",
          "AttemptFailed",
          "BackedOff",
          "AttemptStarted",
          "AttemptSucceeded",
          "Answered",
        ],
      )
      const backedOff = events.find((event) => event.event === "BackedOff")
      assert.isTrue(backedOff?.event === "BackedOff" && backedOff.delayMs >= 50 && backedOff.failure === "RateLimited")
      const answered = events.at(-1)
      assert.isTrue(answered?.event === "Answered" && answered.text === "Yes." && answered.provider === "a")
      assert.strictEqual(new Set(events.map((event) => event.call)).size, 1)
    }).pipe(Effect.scoped),
  )

  it.live("ends with status 1 and the typed failure explained", () =>
    Effect.gen(function* () {
      const folder = yield* scratch
      const denied = yield* Upstream.make({ script: { steps: [Upstream.status(401)], then: "repeat" } })
      const file = config(folder, [{ name: "a", provider: "openai", model: "m", baseUrl: denied.openaiUrl }])
      const ran = yield* run(["ask", "Well?", "--config", file], { env: { OPENAI_API_KEY: "sk-planted" } })
      assert.strictEqual(ran.status, 1)
      assert.strictEqual(ran.stdout, "")
      assert.match(ran.stderr, /AllProvidersFailed/)
      assert.match(ran.stderr, /AuthenticationFailed: a \(m\) did not accept the configured key/)
      assert.notInclude(ran.stderr, "sk-planted")
    }).pipe(Effect.scoped),
  )

  it.live("says what is wrong with its input, and where", () =>
    Effect.gen(function* () {
      const folder = yield* scratch
      const good = { provider: "openai", model: "m" }
      const failing = (args: ReadonlyArray<string>, env: Record<string, string> = { OPENAI_API_KEY: "k" }) =>
        Effect.map(run(["ask", "Well?", ...args], { env }), (ran) => {
          assert.strictEqual(ran.status, 1, ran.stdout)
          return ran.stderr
        })
      const missing = join(folder, "nothing.json")
      assert.include(yield* failing(["--config", missing]), missing)
      const broken = join(folder, "broken.json")
      writeFileSync(broken, "{")
      assert.include(yield* failing(["--config", broken]), broken)
      const wrong = yield* failing(["--config", config(folder, [good], { retry: { times: "two" } })])
      assert.include(wrong, "retry.times")
      const unknown = yield* failing(["--config", config(folder, [{ provider: "nobody", model: "m" }])])
      assert.include(unknown, "candidates[0].provider")
      assert.include(unknown, "openai")
      assert.include(unknown, "anthropic")
      assert.include(yield* failing(["--config", config(folder, [good])], {}), "OPENAI_API_KEY")
      assert.include(yield* failing([], {}), "OPENAI_API_KEY")
    }).pipe(Effect.scoped),
  )
})

describe("understudy classify", () => {
  it.live("gives one line for each line", () =>
    Effect.gen(function* () {
      const input = [
        {
          id: "a",
          provider: "openai",
          status: 429,
          headers: { "retry-after": "20" },
          body: '{"error":{"message":"Rate limit reached","code":"rate_limit_exceeded"}}',
          where: "http",
          more: 1,
        },
        {
          id: "b",
          provider: "openai",
          status: 429,
          headers: {},
          body: '{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}',
          where: "http",
        },
        {
          id: 3,
          provider: "anthropic",
          body: '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
          where: "sse-event",
        },
      ]
      const ran = yield* run(["classify"], { input: input.map((line) => JSON.stringify(line)).join("\n") })
      assert.strictEqual(ran.status, 0, ran.stderr)
      assert.deepStrictEqual(
        lines(ran.stdout).map((line) => JSON.parse(line) as unknown),
        [
          { id: "a", tag: "RateLimited", retryable: true, retryAfterMs: 20_000 },
          { id: "b", tag: "QuotaExhausted", retryable: false, retryAfterMs: null },
          { id: 3, tag: "Overloaded", retryable: true, retryAfterMs: null },
        ],
      )
    }),
  )

  // The project's own cases, and a larger corpus where it stands beside the project.
  const corpora = [
    new URL("../../core/test/fixtures/classifier/failures.jsonl", import.meta.url),
    new URL("../../../../shared/corpus/provider-errors.jsonl", import.meta.url),
  ]
    .map((url) => fileURLToPath(url))
    .filter((path) => existsSync(path))

  for (const corpus of corpora) {
    it.live(`reads a corpus of failures from a file: ${basename(corpus)}`, () =>
      Effect.gen(function* () {
        const ran = yield* run(["classify", corpus])
        assert.strictEqual(ran.status, 0, ran.stderr)
        const cases = lines(readFileSync(corpus, "utf8"))
        const out = lines(ran.stdout).map((line) => JSON.parse(line) as { readonly tag: string })
        assert.strictEqual(out.length, cases.length)
        assert.isTrue(out.every(({ tag }) => (LlmError.tags as ReadonlyArray<string>).includes(tag)))
      }),
    )
  }

  it.live("explains one failure for a person", () =>
    Effect.gen(function* () {
      const ran = yield* run([
        "classify",
        "--provider",
        "openai",
        "--status",
        "429",
        "--header",
        "Retry-After: 20",
        "--body",
        '{"error":{"message":"Rate limit reached for gpt","code":"rate_limit_exceeded"}}',
      ])
      assert.strictEqual(ran.status, 0, ran.stderr)
      for (const expected of [
        /tag: +RateLimited/,
        /strategy: +exponential backoff/,
        /same again: +yes/,
        /next candidate: +yes/,
        /health: +failure/,
        /HTTP status: +429/,
        /retry after: +20s/,
        /rule: /,
      ]) {
        assert.match(ran.stdout, expected)
      }
    }),
  )

  it.live("names the line that it cannot read", () =>
    Effect.gen(function* () {
      const good = '{"id":2,"provider":"openai","status":401,"headers":{},"body":"","where":"http"}'
      const ran = yield* run(["classify"], { input: `{"id":1,"provider":"openai","status":"high"}\n${good}\n` })
      assert.strictEqual(ran.status, 1)
      // Nothing is lost: the lines behind it are classified.
      assert.deepStrictEqual(JSON.parse(ran.stdout).tag, "AuthenticationFailed")
      assert.match(ran.stderr, /stdin, line 1/)
      assert.match(ran.stderr, /status/)
      const nowhere = yield* run(["classify", "/nowhere/failures.jsonl"])
      assert.strictEqual(nowhere.status, 1)
      assert.include(nowhere.stderr, "/nowhere/failures.jsonl")
    }),
  )
})

describe("understudy upstream", () => {
  it.live("listens and says where, and names what is wrong with a script", () =>
    Effect.gen(function* () {
      const folder = yield* scratch
      const script = join(folder, "faults.json")
      writeFileSync(script, JSON.stringify([{ fault: "status", status: 503 }]))
      const ran = yield* run(["upstream", "--port", "0", "--script", script], { killAfter: "Anthropic base URL" })
      assert.match(ran.stdout, /Listening at http:\/\/127\.0\.0\.1:\d+/)
      writeFileSync(script, JSON.stringify([{ fault: "no such fault" }]))
      const wrong = yield* run(["upstream", "--script", script])
      assert.strictEqual(wrong.status, 1)
      assert.include(wrong.stderr, script)
      assert.include(wrong.stderr, "fault")
    }).pipe(Effect.scoped),
  )
})

describe("understudy demo", () => {
  it.live(
    "shows a rate limit waited out, a stall cut, a circuit that opens and closes, answers mended and asked again, and a ladder",
    () =>
      Effect.gen(function* () {
        const ran = yield* run(["demo", "--json"])
        assert.strictEqual(ran.status, 0, ran.stderr)
        const events = eventsOf(ran.stdout)
        const has = (name: PolicyEvent.PolicyEvent["event"], more: Partial<Record<string, unknown>> = {}) =>
          assert.isTrue(
            events.some(
              (event) =>
                event.event === name && Object.entries(more).every(([key, value]) => Reflect.get(event, key) === value),
            ),
            `${name} ${JSON.stringify(more)}`,
          )
        has("BackedOff", { failure: "RateLimited", provider: "aurora" })
        has("AttemptFailed", { failure: "TimedOut", provider: "aurora" })
        has("FailedOver", { provider: "aurora" })
        has("FailedOver", { provider: "boreas", to: "calypso" })
        has("CircuitOpened", { provider: "aurora" })
        has("CircuitRejected", { provider: "aurora" })
        has("CircuitHalfOpened", { provider: "aurora" })
        has("CircuitClosed", { provider: "aurora" })
        has("AnswerRepaired", { provider: "aurora" })
        has("AnswerRejected", { provider: "aurora", reason: "schema mismatch", again: true })
        has("Degraded", { failure: "AllProvidersFailed", to: "cache" })
        has("Degraded", { failure: "AllProvidersFailed", to: "fallback" })
        const answers = events.filter((event) => event.event === "Answered")
        assert.deepStrictEqual(
          answers.map((event) => [event.source ?? "asked for an object", event.provider]),
          [
            ["primary", "aurora"],
            ["primary", "calypso"],
            ["primary", "boreas"],
            ["primary", "boreas"],
            ["primary", "aurora"],
            ["asked for an object", "aurora"],
            ["asked for an object", "aurora"],
            ["cache", "aurora"],
            ["fallback", "aurora | boreas | calypso"],
          ],
        )
        assert.deepStrictEqual(
          answers.slice(5).map(({ text }) => text),
          [
            '{"lead":"Aurora","understudy":"Boreas","nights":7}',
            '{"lead":"Calypso","understudy":"Boreas","nights":7}',
            "The lead is back.",
            "Please ask at the box office.",
          ],
        )
      }),
  )
})

describe("understudy --help", () => {
  it.live("names every command and flag", () =>
    Effect.gen(function* () {
      const help = yield* run(["--help"])
      for (const name of ["ask", "classify", "extract", "breaker", "status", "upstream", "demo"])
        assert.include(help.stdout, name)
      for (const [name, flags] of [
        ["ask", ["--config", "--stream", "--json", "prompt"]],
        ["classify", ["--provider", "--status", "--header", "--body"]],
        ["upstream", ["--port", "--script"]],
      ] as const) {
        const { stdout } = yield* run([name, "--help"])
        for (const flag of flags) assert.include(stdout, flag)
      }
    }),
  )
})
