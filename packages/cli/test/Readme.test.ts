import { assert, describe, it } from "@effect/vitest"
import { FailureMode, LlmError } from "@understudy/core"
import { ProviderConfig } from "@understudy/providers"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const root = new URL("../../../", import.meta.url)
const read = (path: string): string => readFileSync(new URL(path, root), "utf8")

const readme = read("README.md")
const block = (language: string): string => {
  const found = new RegExp("```" + language + "\\n([\\s\\S]*?)```").exec(readme)
  assert.isNotNull(found, `the README has a ${language} block`)
  return found![1]!
}

describe("README", () => {
  it("shows a first screen that is the example, to the letter", () => {
    assert.strictEqual(block("ts"), read("examples/src/first-screen.ts"))
  })

  it("shows a first screen that runs", () => {
    const out = execFileSync(process.execPath, [fileURLToPath(new URL("examples/src/first-screen.ts", root))], {
      encoding: "utf8",
    })
    assert.strictEqual(out, "Frank Herbert wrote Dune.\n")
  })

  it.effect("shows a configuration file that fits its schema", () =>
    Effect.gen(function* () {
      const config = yield* ProviderConfig.fromJson(block("json"), "README.md")
      assert.deepStrictEqual(
        config.candidates.map((candidate) => candidate.model),
        ["gpt-5.6-terra", "claude-sonnet-5-5"],
      )
    }),
  )

  it("shows a row for every failure, with the table's strategy", () => {
    for (const tag of LlmError.tags) {
      const row = readme
        .split("\n")
        .map((line) => line.replace(/ +/g, " "))
        .find((line) => line.startsWith(`| \`${tag}\``))
      assert.isDefined(row, tag)
      const http = FailureMode.table[tag].http
      if (typeof http === "number") assert.isTrue(row!.includes(`| ${http} |`), `${tag}: HTTP ${http}`)
      const strategy = FailureMode.table[tag].strategy.split(",")[0]!.split(":")[0]!
      if (tag !== "AllProvidersFailed") assert.include(row!, strategy, tag)
    }
  })
})
