import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { readdirSync } from "node:fs"
import { fileURLToPath } from "node:url"

const folder = fileURLToPath(new URL("../../../examples/src/", import.meta.url))

/** What each program prints. */
const programs: Readonly<Record<string, string>> = {
  "first-screen.ts": "Frank Herbert wrote Dune.\n",

  "chat-with-tools.ts": `[tool] booking 1: 4 guests at 20:00
[lead] calls BookTable
[lead] failed: ProviderUnavailable
[lead] failed: ProviderUnavailable
[lead] hands over to understudy
[understudy] says: Your table is booked, reference T-1.
`,

  "extraction.ts": `A short mail
  A-1: 120 EUR, due 2026-03-01
A long mail
  too long for first: asking with the first 100 characters
  A-2: 90.5 EUR, due 2026-03-01
A greeting card
  nothing found: asked again
  A-3: 12 EUR, due 2026-03-01
A bad day
  later: ProviderUnavailable, ProviderUnavailable, QuotaExhausted
`,

  "streaming.ts": `> Does the show go on?
[slow: TimedOut, over to quick]
The show goes on.
> When does the play begin?
The play begins on time,… [not whole: 24 characters came, then ConnectionFailed]
The silent connection was closed by the client.
`,

  "swap-the-layer.ts": "A prince loses his father twice.\n",

  "from-effect-ai.ts": `1. Herbert, 1965. (cloud)
2. Frank Herbert wrote Dune. (phrases)
3. Frank Herbert wrote Dune. (phrases)
`,
}

interface Ran {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program as a person does, with no key in its environment. */
const run = (name: string): Effect.Effect<Ran> =>
  Effect.callback((resume) => {
    const child = spawn(process.execPath, [`${folder}${name}`], {
      env: { PATH: process.env["PATH"] ?? "", NO_COLOR: "1" },
    })
    let stdout = ""
    let stderr = ""
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => (stdout += chunk))
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => (stderr += chunk))
    child.on("close", (status) => resume(Effect.succeed({ status, stdout, stderr })))
    return Effect.sync(() => child.kill("SIGKILL"))
  })

describe("Each example ends by itself, with what it is said to print", () => {
  it("and none is left out", () => {
    assert.deepStrictEqual(readdirSync(folder).toSorted(), Object.keys(programs).toSorted())
  })

  for (const [name, prints] of Object.entries(programs)) {
    it.live(name, () =>
      Effect.gen(function* () {
        const { status, stderr, stdout } = yield* run(name)
        assert.strictEqual(stdout, prints, stderr)
        assert.strictEqual(status, 0, stderr)
        assert.strictEqual(stderr, "")
      }),
    )
  }
})
