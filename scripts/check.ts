/**
 * Everything that must hold before a change lands: format, lint, types (type
 * tests too), Effect's own diagnostics, and tests. Stops at the first step that
 * fails, and prints totals.
 *
 * `--deep` plays ten times as many random sequences against the models.
 */
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const deep = process.argv.includes("--deep")
const report = mkdtempSync(join(tmpdir(), "understudy-check-"))
const results = join(report, "results.json")

const steps: ReadonlyArray<readonly [name: string, command: string, ...args: Array<string>]> = [
  ["format", "oxfmt", "--check"],
  ["lint", "oxlint", "--deny-warnings"],
  ["types", "tsc", "-b"],
  ...["core", "providers", "testkit", "cli"].map(
    (name) =>
      [
        `effect (${name})`,
        "effect-tsgo",
        "diagnostics",
        "--project",
        `packages/${name}/tsconfig.json`,
        "--severity",
        "error,warning",
        "--strict",
      ] as const,
  ),
  [
    "tests",
    "vitest",
    "run",
    "--config",
    "vitest.workspace.ts",
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${results}`,
  ],
]

interface Totals {
  readonly numPassedTests: number
  readonly numFailedTests: number
  readonly numPendingTests: number
  readonly numTodoTests: number
}

const say = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(1)} s`

const totals = (): Totals | undefined => {
  try {
    return JSON.parse(readFileSync(results, "utf8")) as Totals
  } catch {
    return undefined
  }
}

const begun = performance.now()
let failed: string | undefined
for (const [name, command, ...args] of steps) {
  const at = performance.now()
  say(`\n— ${name}`)
  const { error, status } = spawnSync(command, args, {
    stdio: "inherit",
    env: { ...process.env, ...(deep ? { UNDERSTUDY_DEEP: "1" } : {}) },
  })
  say(`— ${name}: ${status === 0 ? "ok" : "failed"} in ${seconds(at)}`)
  if (error !== undefined || status !== 0) {
    failed = name
    break
  }
}

const counted = totals()
rmSync(report, { recursive: true, force: true })
const skipped = (counted?.numPendingTests ?? 0) + (counted?.numTodoTests ?? 0)
if (skipped > 0) say(`\n${skipped} tests were skipped.`)
if (failed === undefined && skipped > 0 && process.env["CI"] === "true") {
  say("On CI no test may be skipped.")
  failed = "tests"
}
say(`\n${failed === undefined ? "All checks passed" : `Failed: ${failed}`} in ${seconds(begun)}.`)
if (counted !== undefined) {
  say(`${counted.numPassedTests} passed, ${counted.numFailedTests} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`)
}
process.exitCode = failed === undefined ? 0 : 1
