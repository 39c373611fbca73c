/**
 * Every code block of the documentation, checked. `packages/cli/test/Docs.test.ts`
 * runs it with `--json`; by hand it is `node scripts/doc-blocks.ts`.
 *
 * Each `ts` block of README.md, CONTRIBUTING.md, docs/ and the docstrings of the
 * packages is a whole module: it is written to `.build/doc-blocks`, one file a
 * block, and type-checked as a program of its own against the sources of the
 * workspace. A mistake is told at the line where the block stands.
 *
 * | after the three backticks | what is done |
 * |---|---|
 * | `ts` | type-checked |
 * | `ts run` | also run; it must end well. A `text` block right after it is what it prints |
 * | `sh run` | run by a shell, in which `pnpm understudy` is the command as it stands in the sources |
 * | `ts fragment` | nothing: it is not a module. There should be none |
 */
import { spawn } from "node:child_process"
import { globSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { dirname, join, relative, resolve } from "node:path"

const root = resolve(import.meta.dirname, "..")

/** Where blocks are written: it is ignored by git, and by everything else. */
const folder = join(root, ".build/doc-blocks")

// ---------------------------------------------------------------------------
// Blocks
// ---------------------------------------------------------------------------

/** A code block, and where it stands. */
interface Block {
  /** The file, from the root. */
  readonly file: string
  /** The line of its first line of code, counted from 1. */
  readonly line: number
  /** How much stands before its lines, in columns. */
  readonly indent: number
  readonly kind: "check" | "run" | "shell" | "fragment"
  readonly code: string
  /** What it prints, if a `text` block says so. */
  readonly prints: string | undefined
}

/** The documentation, from the root. */
const pages = (): ReadonlyArray<string> =>
  ["README.md", "CONTRIBUTING.md", ...globSync("docs/**/*.md", { cwd: root })].sort()

const sources = (): ReadonlyArray<string> => globSync("packages/*/src/**/*.ts", { cwd: root }).sort()

const kinds: Readonly<Record<string, Block["kind"]>> = {
  ts: "check",
  "ts run": "run",
  "sh run": "shell",
  "ts fragment": "fragment",
}

const opening = /^(\s*(?:\* ?)?)```(.*)$/

/** The code blocks of a text, in order. In a docstring, each line begins with an asterisk. */
const blocksOf = (file: string, text: string): ReadonlyArray<Block> => {
  const docstrings = file.endsWith(".ts")
  const lines = text.split("\n")
  const blocks: Array<Block> = []
  // The block before, while only blank lines stand behind it.
  let before: Block | undefined
  for (let at = 0; at < lines.length; at++) {
    const [, margin = "", info] = opening.exec(lines[at]!) ?? []
    if (info === undefined || docstrings !== margin.includes("*")) {
      if (lines[at]!.trim() !== "") before = undefined
      continue
    }
    const end = lines.findIndex((line, index) => index > at && opening.exec(line)?.[2] === "")
    if (end < 0) throw new Error(`${file}:${at + 1}: this code block does not end`)
    const code = lines
      .slice(at + 1, end)
      .map((line) => (line.startsWith(margin) ? line.slice(margin.length) : line.slice(margin.trimEnd().length)))
      .join("\n")
    const kind = kinds[info.trim()]
    if (kind !== undefined) {
      before = { file, line: at + 2, indent: margin.length, kind, code, prints: undefined }
      blocks.push(before)
    } else {
      if (info.trim() === "text" && before !== undefined && before.kind !== "check")
        blocks[blocks.length - 1] = { ...before, prints: `${code}\n` }
      before = undefined
    }
    at = end
  }
  return blocks
}

/** All code blocks of the documentation. */
const all = (): ReadonlyArray<Block> =>
  [...pages(), ...sources()].flatMap((file) => blocksOf(file, readFileSync(join(root, file), "utf8")))

// ---------------------------------------------------------------------------
// Files
// ---------------------------------------------------------------------------

const options = {
  extends: "../../tsconfig.base.json",
  compilerOptions: {
    noEmit: true,
    composite: false,
    declaration: false,
    declarationMap: false,
    sourceMap: false,
    allowImportingTsExtensions: true,
    rewriteRelativeImportExtensions: false,
    rootDir: "../..",
    types: ["node"],
  },
  include: ["*.ts"],
}

/** Packages that blocks may import, as they are installed for the packages of the workspace. */
const link = (): void => {
  const modules = join(folder, "node_modules")
  for (const name of ["core", "providers", "testkit"]) {
    mkdirSync(join(modules, "@understudy"), { recursive: true })
    symlinkSync(join(root, "packages", name), join(modules, "@understudy", name))
  }
  const optional = join(root, "packages/providers/node_modules/@ai-sdk")
  mkdirSync(join(modules, "@ai-sdk"), { recursive: true })
  for (const name of readdirSync(optional)) symlinkSync(join(optional, name), join(modules, "@ai-sdk", name))
  mkdirSync(join(modules, "@types"), { recursive: true })
  for (const name of ["express", "hono", "@types/express"]) {
    symlinkSync(join(root, "packages/core/node_modules", name), join(modules, name))
  }
}

/** A block that is written to a file of its own: one line before it names its origin. */
interface Written extends Block {
  readonly path: string
}

/** Writes blocks, and what is needed to check them, to their folder. */
const write = (blocks: ReadonlyArray<Block>): ReadonlyArray<Written> => {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  link()
  writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }))
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(options, undefined, 2))
  return blocks
    .filter(({ kind }) => kind !== "fragment")
    .map((block) => {
      const name = `${block.file.replace(/\.[a-z]+$/, "").replaceAll(/[^a-zA-Z0-9]+/g, "-")}-${block.line}.ts`
      const path = join(folder, name)
      if (block.kind !== "shell") writeFileSync(path, `// ${block.file}:${block.line}\n${block.code}\n`)
      return { ...block, path }
    })
}

// ---------------------------------------------------------------------------
// Checks
// ---------------------------------------------------------------------------

/** Something that is wrong, at its place in the documentation. */
interface Problem {
  readonly at: string
  readonly message: string
}

interface Ran {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

const start = (command: string, args: ReadonlyArray<string>, seconds: number): Promise<Ran> =>
  new Promise((done) => {
    const child = spawn(command, args, { cwd: root, env: { ...process.env, NO_COLOR: "1" }, timeout: seconds * 1000 })
    let stdout = ""
    let stderr = ""
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => (stdout += chunk))
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => (stderr += chunk))
    child.on("error", (error) => (stderr += error.message))
    child.on("close", (status) => done({ status, stdout, stderr }))
  })

const diagnostic = /^(.+?)\((\d+),(\d+)\): (.*)$/

/** What the compiler has to say about blocks. Mistakes in the sources themselves are told as they are. */
const check = async (written: ReadonlyArray<Written>): Promise<ReadonlyArray<Problem>> => {
  const tsc = join(root, "node_modules/.bin/tsc")
  const { status, stderr, stdout } = await start(tsc, ["-p", folder, "--pretty", "false"], 60)
  const byPath = new Map(written.map((block) => [block.path, block]))
  const problems: Array<{ at: string; message: string }> = []
  for (const text of stdout.split("\n")) {
    const [, path, line, column, message] = diagnostic.exec(text) ?? []
    if (path !== undefined && message !== undefined) {
      const block = byPath.get(resolve(root, path))
      const at =
        block === undefined
          ? `${path}:${line}:${column}`
          : `${block.file}:${block.line + Number(line) - 2}:${block.indent + Number(column)}`
      problems.push({ at, message })
    } else if (text.trim() !== "" && problems.length > 0) {
      problems.at(-1)!.message += `\n${text}`
    }
  }
  if (status !== 0 && problems.length === 0) problems.push({ at: "tsc", message: `${stdout}${stderr}` })
  return problems
}

// One process runs all programs, one after the other, as their start is most of their time.
const runner = `
import { inspect } from "node:util"
const write = process.stdout.write
for (const path of process.argv.slice(2)) {
  let stdout = ""
  let error
  process.stdout.write = (text) => (stdout += text, true)
  try {
    await import(path)
  } catch (thrown) {
    error = inspect(thrown)
  }
  process.stdout.write = write
  console.log(JSON.stringify({ path, stdout, error }))
}
`

interface Outcome {
  readonly path: string
  readonly stdout: string
  readonly error?: string
}

const compare = (block: Block, stdout: string): ReadonlyArray<Problem> =>
  block.prints === undefined || stdout === block.prints
    ? []
    : [{ at: `${block.file}:${block.line}`, message: `It is said to print:\n${block.prints}It prints:\n${stdout}` }]

const runPrograms = async (programs: ReadonlyArray<Written>): Promise<ReadonlyArray<Problem>> => {
  if (programs.length === 0) return []
  const path = join(folder, "run.mjs")
  writeFileSync(path, runner)
  const { status, stderr, stdout } = await start(process.execPath, [path, ...programs.map(({ path }) => path)], 30)
  const outcomes = stdout
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as Outcome)
  return programs
    .flatMap((block): ReadonlyArray<Problem> => {
      const outcome = outcomes.find(({ path }) => path === block.path)
      const at = `${block.file}:${block.line}`
      if (outcome === undefined) return [{ at, message: `It did not end, or one before it did not.\n${stderr}` }]
      return outcome.error === undefined ? compare(block, outcome.stdout) : [{ at, message: outcome.error }]
    })
    .concat(
      status === 0 || outcomes.length < programs.length
        ? []
        : [{ at: "run", message: `Status ${status}: something goes on after the end of a block.\n${stderr}` }],
    )
}

const bin = join(root, "packages/cli/src/bin.ts")

const runShell = async (block: Block): Promise<ReadonlyArray<Problem>> => {
  const script = `pnpm() { shift; '${process.execPath}' '${bin}' "$@"; }\n${block.code}`
  const { status, stderr, stdout } = await start("sh", ["-c", script], 20)
  return status === 0
    ? compare(block, stdout)
    : [{ at: `${block.file}:${block.line}`, message: `It ended with status ${status}.\n${stderr}` }]
}

/** Runs the blocks that are programs, and those for a shell: they must end well, and print what is said. */
const run = async (written: ReadonlyArray<Written>): Promise<ReadonlyArray<Problem>> => {
  const shells = Promise.all(written.filter(({ kind }) => kind === "shell").map(runShell))
  const programs = await runPrograms(written.filter(({ kind }) => kind === "run"))
  return [...programs, ...(await shells).flat()]
}

// ---------------------------------------------------------------------------
// Links
// ---------------------------------------------------------------------------

/** The headings of a page, as links name them. */
const anchors = (text: string): ReadonlySet<string> =>
  new Set(
    [...text.replaceAll(/^```[\s\S]*?^```/gm, "").matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
        .replaceAll(" ", "-"),
    ),
  )

/** Links between pages, and to files, that lead nowhere. */
const links = (): ReadonlyArray<Problem> =>
  pages().flatMap((file) => {
    const text = readFileSync(join(root, file), "utf8")
    return text.split("\n").flatMap((line, index): ReadonlyArray<Problem> =>
      [...line.matchAll(/\]\(([^)\s]+)\)/g)].flatMap(([, target = ""]): ReadonlyArray<Problem> => {
        if (/^[a-z]+:/.test(target)) return []
        const [path = "", anchor] = target.split("#")
        const at = `${file}:${index + 1}`
        const to = path === "" ? join(root, file) : resolve(root, dirname(file), path)
        let there: string | undefined
        try {
          there = to.endsWith(".md")
            ? readFileSync(to, "utf8")
            : (readdirSync(dirname(to)).find((n) => to.endsWith(`/${n}`)) ?? undefined)
        } catch {
          there = undefined
        }
        if (there === undefined) return [{ at, message: `There is no ${relative(root, to)}` }]
        return anchor === undefined || anchors(there).has(anchor)
          ? []
          : [{ at, message: `There is no heading #${anchor}` }]
      }),
    )
  })

// ---------------------------------------------------------------------------
// The command
// ---------------------------------------------------------------------------

if (import.meta.main) {
  const blocks = all()
  const written = write(blocks)
  const problems = { links: links(), types: await check(written), runs: await run(written) }
  const count = (kind: Block["kind"]): number => blocks.filter((block) => block.kind === kind).length
  const counts = { check: count("check"), run: count("run"), shell: count("shell"), fragment: count("fragment") }
  const found = Object.values(problems).flat()
  if (process.argv.includes("--json")) {
    process.stdout.write(`${JSON.stringify({ counts, problems })}\n`)
  } else {
    for (const { at, message } of found) process.stdout.write(`${at}: ${message}\n`)
    process.stdout.write(
      `${blocks.length} blocks: ${counts.check} checked, ${counts.run} checked and run, ${counts.shell} run by a shell, ${counts.fragment} left out. ${found.length} problems.\n`,
    )
  }
  process.exitCode = found.length === 0 ? 0 : 1
}
