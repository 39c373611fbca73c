import { assert, beforeAll, describe, it } from "@effect/vitest"
import { FailureMode, HttpErrorResponse, LlmError } from "@understudy/core"
import { OpenAiDialect } from "@understudy/providers"
import { execFile } from "node:child_process"
import { globSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../../../", import.meta.url))
const read = (path: string): string => readFileSync(`${root}${path}`, "utf8")

interface Problem {
  readonly at: string
  readonly message: string
}

/** What `scripts/doc-blocks.ts` says. */
interface Report {
  readonly counts: Readonly<Record<"check" | "run" | "shell" | "fragment", number>>
  readonly problems: Readonly<Record<"links" | "types" | "runs", ReadonlyArray<Problem>>>
}

const check = (): Promise<Report> =>
  new Promise((done, failed) => {
    execFile(process.execPath, ["scripts/doc-blocks.ts", "--json"], { cwd: root }, (error, stdout, stderr) => {
      try {
        done(JSON.parse(stdout) as Report)
      } catch {
        failed(new Error(`scripts/doc-blocks.ts said nothing.\n${stderr}`, { cause: error }))
      }
    })
  })

const none = (problems: ReadonlyArray<Problem>): void =>
  assert.strictEqual(problems.map(({ at, message }) => `${at}: ${message}`).join("\n"), "")

/** The rows of the table on a page whose header begins with these cells. */
const table = (page: string, ...header: ReadonlyArray<string>): ReadonlyArray<ReadonlyArray<string>> => {
  const cells = (line: string): ReadonlyArray<string> =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim())
  const lines = page.split("\n")
  const at = lines.findIndex((line) => header.every((name, index) => cells(line)[index] === name))
  assert.isAtLeast(at, 0, `there is a table with ${header.join(", ")}`)
  const end = lines.findIndex((line, index) => index > at && !line.startsWith("|"))
  return lines.slice(at + 2, end).map(cells)
}

const unquoted = (cell: string): string => cell.replaceAll("`", "")

describe("The documentation", () => {
  describe("has code blocks that", () => {
    let report: Report
    beforeAll(async () => {
      report = await check()
    }, 90_000)

    it("are whole modules, and compile", () => {
      none(report.problems.types)
      assert.strictEqual(report.counts.fragment, 0)
      assert.isAbove(report.counts.check, 0)
    })

    it("run, where they say so, and print what they say", () => {
      none(report.problems.runs)
      assert.isAbove(report.counts.run, 0)
    })

    it("stand among links that lead somewhere", () => {
      none(report.problems.links)
    })
  })

  const guides = globSync("docs/*.md", { cwd: root })
    .sort()
    .map((path) => read(path))
    .join("\n")

  it("mentions every exported module of every package", () => {
    for (const path of globSync("packages/*/src/index.ts", { cwd: root })) {
      for (const [, module = ""] of read(path).matchAll(/^export \* as (\w+)/gm)) {
        assert.match(guides, new RegExp(`\\b${module}\\b`), `${path}: ${module}`)
      }
    }
  })

  it("lists every example", () => {
    const index = read("docs/README.md")
    for (const path of globSync("examples/{src,test}/*.ts", { cwd: root })) assert.include(index, `../${path}`)
  })

  it("is linked from the README", () => {
    assert.include(read("README.md"), "(docs/README.md)")
  })

  it("shows the failures with the cells of the one table", () => {
    const rows = table(read("docs/failures.md"), "tag", "retryable", "same again", "next", "leaves failover")
    assert.deepStrictEqual(
      rows.map(([tag = ""]) => unquoted(tag)),
      [...LlmError.tags],
    )
    for (const tag of LlmError.tags) {
      const [, retryable = "", sameAgain, next, leaves, health, http = ""] = rows.find(
        ([name]) => name === `\`${tag}\``,
      )!
      const row = FailureMode.table[tag]
      if (tag !== "AllProvidersFailed") {
        assert.strictEqual(retryable, LlmError.retryableByDefault[tag] ? "yes" : "no", `${tag}: retryable`)
      }
      assert.strictEqual(leaves, row.leaves, `${tag}: leaves`)
      // A cell that is a function of the failure is told in words.
      if (typeof row.sameAgain === "string") assert.strictEqual(sameAgain, row.sameAgain, `${tag}: same again`)
      if (typeof row.next === "string") assert.strictEqual(next, row.next, `${tag}: next`)
      if (typeof row.health === "string") assert.strictEqual(health, row.health, `${tag}: circuit`)
      if (typeof row.http === "number") assert.strictEqual(Number(http), row.http, `${tag}: HTTP`)
    }
  })

  it("shows the responses that failures become", () => {
    const rows = table(read("docs/http.md"), "tag", "status", "type")
    assert.deepStrictEqual(
      rows.map(([tag = ""]) => unquoted(tag)),
      [...LlmError.tags],
    )
    for (const [cell = "", status = "", type = ""] of rows) {
      const tag = LlmError.tags.find((tag) => tag === unquoted(cell))!
      const { http } = FailureMode.table[tag]
      if (typeof http === "number") assert.strictEqual(Number(status), http, tag)
      assert.include(type, `\`${HttpErrorResponse.errorTypes[tag]}\``, tag)
    }
  })

  it("shows the fields that each failure has of its own", () => {
    const rows = table(read("docs/failures.md"), "tag", "it says", "fields of its own")
    const common = new Set(Object.keys(LlmError.RateLimited.fields))
    for (const member of LlmError.LlmError.members) {
      const tag = member.fields._tag.schema.literal
      const [, , fields = ""] = rows.find(([name]) => name === `\`${tag}\``) ?? []
      const said = [...fields.matchAll(/`(\w+)`/g)].map(([, field]) => field!)
      assert.deepStrictEqual(
        said.toSorted(),
        Object.keys(member.fields)
          .filter((field) => !common.has(field))
          .toSorted(),
        tag,
      )
    }
  })

  it("shows the dialects with their addresses and variables", () => {
    const rows = table(read("docs/providers.md"), "dialect", "base URL")
    const known: Readonly<Record<string, OpenAiDialect.Dialect>> = OpenAiDialect.known
    assert.deepStrictEqual(
      rows.map((row) => row.map(unquoted)),
      Object.entries(known).map(([name, { apiKeyEnv = "none", baseUrl = "yours" }]) => [name, baseUrl, apiKeyEnv]),
    )
  })
})
