import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Directory, LanguageModelFace, Understudy } from "@understudy/core"
import { FakeProvider, Upstream } from "@understudy/testkit"
import { Effect, Layer, Schema } from "effect"
import { HttpRouter, HttpServer, HttpServerResponse } from "effect/http"
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const bin = fileURLToPath(new URL("../src/bin.ts", import.meta.url))

/** Runs `understudy status` as a person does, with this environment only. */
const status = (args: ReadonlyArray<string>, env: Record<string, string> = {}) =>
  Effect.callback<{ readonly code: number | null; readonly stdout: string; readonly stderr: string }>((resume) => {
    const child = spawn(process.execPath, [bin, "status", ...args], {
      env: { PATH: process.env["PATH"] ?? "", NO_COLOR: "1", ...env },
      stdio: ["ignore", "pipe", "pipe"],
    })
    let [stdout, stderr] = ["", ""]
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => (stdout += chunk))
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => (stderr += chunk))
    child.on("close", (code) => resume(Effect.succeed({ code, stdout, stderr })))
    return Effect.sync(() => child.kill("SIGKILL"))
  })

const config = (candidates: ReadonlyArray<object>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const folder = mkdtempSync(join(tmpdir(), "understudy-status-"))
      const path = join(folder, "understudy.json")
      writeFileSync(path, JSON.stringify({ name: "answers", candidates }))
      return { folder, path }
    }),
    ({ folder }) => Effect.sync(() => rmSync(folder, { recursive: true, force: true })),
  ).pipe(Effect.map(({ path }) => path))

const lines = (text: string): ReadonlyArray<string> => text.split("\n").filter((line) => line !== "")
const words = (line: string | undefined): ReadonlyArray<string> => (line ?? "").trim().split(/ {2,}/)

describe("understudy status", () => {
  it.live("shows the candidates of a file, what is set for them and where their keys are, and asks nobody", () =>
    Effect.gen(function* () {
      const upstream = yield* Upstream.make()
      const file = yield* config([
        {
          provider: "openai",
          model: "m1",
          baseUrl: upstream.openaiUrl,
          tags: ["eu", "fast"],
          price: { input: 1.5, output: 10 },
        },
        { name: "claude", provider: "anthropic", model: "m2", priority: 1, enabled: false, contextWindow: 200_000 },
        { provider: "ollama", model: "qwen3", priority: 2 },
      ])
      const ran = yield* status(["--config", file], { OPENAI_API_KEY: "sk-planted" })
      assert.strictEqual(ran.code, 0, ran.stderr)
      const [title, head, ...rows] = lines(ran.stdout)
      assert.strictEqual(title, `answers (${file})`)
      assert.deepStrictEqual(words(head), [
        "candidate",
        "of",
        "model",
        "enabled",
        "priority",
        "window",
        "price",
        "tags",
        "key",
      ])
      assert.deepStrictEqual(rows.map(words), [
        ["openai", "m1", "yes", "0", "1.5 / 10", "eu fast", "OPENAI_API_KEY"],
        ["claude", "anthropic", "m2", "no", "1", "200000", "ANTHROPIC_API_KEY is missing"],
        ["ollama", "qwen3", "yes", "2", "none needed"],
      ])
      assert.notInclude(ran.stdout + ran.stderr, "sk-planted")
      assert.lengthOf(yield* upstream.requests, 0)
    }).pipe(Effect.scoped),
  )

  it.live("ends with status 1 when the key of an enabled candidate is missing, and names the variable", () =>
    Effect.gen(function* () {
      const file = yield* config([{ provider: "openai", model: "m1", apiKeyEnv: "MY_KEY" }])
      const ran = yield* status(["-c", file, "--json"])
      assert.strictEqual(ran.code, 1)
      assert.include(ran.stderr, "A key is missing.")
      assert.deepStrictEqual(JSON.parse(ran.stdout), {
        composition: "answers",
        from: file,
        candidates: [
          {
            candidate: "openai",
            provider: "openai",
            model: "m1",
            enabled: true,
            priority: 0,
            weight: 1,
            tags: [],
            key: { variable: "MY_KEY", present: false },
          },
        ],
      })
    }).pipe(Effect.scoped),
  )

  it.live("looks at the environment without a file, where one key is enough", () =>
    Effect.gen(function* () {
      const ran = yield* status([], { ANTHROPIC_API_KEY: "k", ANTHROPIC_MODEL: "m2" })
      assert.strictEqual(ran.code, 0, ran.stderr)
      assert.deepStrictEqual(words(lines(ran.stdout)[3]), ["anthropic", "m2", "yes", "0", "ANTHROPIC_API_KEY"])
      assert.include(ran.stdout, "TOGETHER_API_KEY is missing")
      assert.strictEqual((yield* status([])).code, 1)
    }),
  )

  it.live("tells with its places what is wrong with a file", () =>
    Effect.gen(function* () {
      const file = yield* config([{ provider: "opnai", model: "sk-planted" }])
      const ran = yield* status(["--config", file])
      assert.strictEqual(ran.code, 1)
      assert.include(ran.stderr, "candidates[0].provider")
      assert.notInclude(ran.stderr, "sk-planted")
      assert.include((yield* status(["--config", `${file}.nothing`])).stderr, "cannot be read (NotFound)")
    }).pipe(Effect.scoped),
  )

  it.live("asks each candidate for one token with --probe, and says how that went", () =>
    Effect.gen(function* () {
      const well = yield* Upstream.make({ script: [Upstream.answer("p")] })
      const down = yield* Upstream.make({ script: { steps: [Upstream.status(401)], then: "repeat" } })
      const stuck = yield* Upstream.make({ script: { steps: [Upstream.hang], then: "repeat" } })
      const file = yield* config([
        { name: "well", provider: "openai", model: "m1", baseUrl: well.openaiUrl },
        { name: "down", provider: "anthropic", model: "m2", baseUrl: down.anthropicUrl, enabled: false },
        { name: "stuck", provider: "openai", model: "m3", baseUrl: stuck.openaiUrl, priority: 1 },
        { name: "keyless", provider: "openai", model: "m4", apiKeyEnv: "NO_KEY" },
      ])
      const env = { OPENAI_API_KEY: "sk-planted-1", ANTHROPIC_API_KEY: "sk-planted-2" }
      const ran = yield* status(["--config", file, "--probe", "--timeout", "1"], env)
      assert.strictEqual(ran.code, 0, ran.stderr)
      const rows = lines(ran.stdout).slice(2).map(words)
      assert.match(rows[0]?.at(-1) ?? "", /^answered in \d+ ms$/)
      assert.match(rows[1]?.at(-1) ?? "", /^AuthenticationFailed after \d+ ms$/)
      assert.match(rows[2]?.at(-1) ?? "", /^TimedOut after 1\.\d s$/)
      assert.strictEqual(rows[3]?.at(-1), "NO_KEY is missing")
      assert.include(ran.stderr, "stuck: ")
      assert.notInclude(ran.stdout + ran.stderr, "sk-planted")
      const [request] = yield* well.requests
      assert.include(JSON.stringify(request?.body), '"max_completion_tokens":1')
      assert.lengthOf(yield* down.requests, 1)
    }).pipe(Effect.scoped),
  )

  it.live("ends with status 1 when no enabled candidate answers a probe", () =>
    Effect.gen(function* () {
      const well = yield* Upstream.make({ script: [Upstream.answer("p")] })
      const file = yield* config([
        { provider: "openai", model: "m1", baseUrl: well.openaiUrl, enabled: false },
        { name: "nobody", provider: "openai-compatible", model: "m2", baseUrl: "http://127.0.0.1:1/v1" },
      ])
      const ran = yield* status(["--config", file, "--probe", "--json"], { OPENAI_API_KEY: "k" })
      assert.strictEqual(ran.code, 1)
      assert.include(ran.stderr, "No candidate answered.")
      const { candidates } = JSON.parse(ran.stdout)
      assert.isTrue(candidates[0].probe.answered)
      assert.deepInclude(candidates[1].probe, { answered: false, failure: "ConnectionFailed" })
    }).pipe(Effect.scoped),
  )

  it.live("shows what a running service tells of its candidates at a URL", () =>
    Effect.gen(function* () {
      const routes = HttpRouter.use((router) =>
        router.add(
          "GET",
          "/health",
          Effect.flatMap(Directory.status, (candidates) =>
            HttpServerResponse.schemaJson(
              Schema.toCodecJson(Schema.Struct({ candidates: Schema.Array(Directory.Status) })),
            )({ candidates }, { status: 503 }),
          ),
        ),
      )
      const server = HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(
        Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" })),
        Layer.provideMerge(Understudy.layer),
      )
      yield* Effect.gen(function* () {
        const lead = yield* FakeProvider.make({ name: "lead", script: [FakeProvider.fail("AuthenticationFailed")] })
        const second = yield* FakeProvider.make({ name: "second", script: [FakeProvider.text("Frank Herbert.")] })
        const model = Understudy.make({
          name: "answers",
          candidates: [{ provider: lead.provider }, { provider: second.provider, priority: 1 }],
        })
        yield* model.generate(LanguageModelFace.request("Who wrote Dune?"))
        yield* Directory.prioritise("answers", "second", -1)
        const url = `${yield* HttpServer.addressFormattedWith(Effect.succeed)}/health`
        const ran = yield* status(["--url", url])
        assert.strictEqual(ran.code, 0, ran.stderr)
        const [title, head, first, then] = lines(ran.stdout)
        assert.strictEqual(title, "answers")
        assert.include(words(head).join(), "circuit,in flight,answer / first content,answered,last failure")
        assert.match(first ?? "", /lead +lead-1 +no +yes +0 +open for [\d.]+ s +0 .* AuthenticationFailed, \d+/)
        assert.match(then ?? "", /second +second-1 +yes +yes +-1 +priority +closed +0/)
        const json = yield* status(["--url", url, "--json"])
        assert.lengthOf(
          Schema.decodeUnknownSync(Schema.toCodecJson(Schema.Array(Directory.Status)))(JSON.parse(json.stdout)),
          2,
        )
        assert.strictEqual((yield* status(["--url", url, "--probe"])).code, 1)
        const wrong = yield* status(["--url", `${url}/nothing`])
        assert.deepStrictEqual([wrong.code, wrong.stderr.includes("there is no status to be had")], [1, true])
      }).pipe(Effect.provide(server))
    }),
  )
})
