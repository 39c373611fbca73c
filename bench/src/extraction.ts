/**
 * JSON out of answers, beside the libraries that people use for it: which values
 * are right, and what it costs.
 *
 * `pnpm bench:extraction [corpus.jsonl] [--json]`. The corpus is a file of cases,
 * one a line: `id`, `category`, `text`, `expect`, `expect_kind` (value, reject, or
 * ambiguous, which is not scored) and `schema_hint`, a JSON Schema or null. Without
 * one, the fixtures of the package are scored. A value counts only when it fits
 * the schema of its case; with null, the root must be an object or an array.
 *
 * Times are of the processor, and ratios within one run: medians of several rounds.
 */
import * as JsonExtraction from "@understudy/core/JsonExtraction"
import { parsePartialJson } from "ai"
import { Ajv2020 } from "ajv/dist/2020.js"
import { parse as bestEffort, setErrorLogger } from "best-effort-json-parser"
import { Result } from "effect"
import { jsonrepair } from "jsonrepair"
import { existsSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { parse as partialJson } from "partial-json"

// ---------------------------------------------------------------------------
// Which values are right
// ---------------------------------------------------------------------------

interface Case {
  readonly id: string
  readonly category: string
  readonly text: string
  readonly expect: unknown
  readonly expect_kind: "value" | "reject" | "ambiguous"
  readonly schema_hint: object | boolean | null
  readonly finishReason?: string
}

type Check = (json: unknown) => boolean

/** What an engine makes of a text: a value, or `undefined`. */
type Engine = (c: Case, check: Check) => unknown

const attempt =
  (parse: (text: string) => unknown): Engine =>
  ({ text }, check) => {
    try {
      const value = parse(text)
      return check(value) ? value : undefined
    } catch {
      return undefined
    }
  }

// What it says of an answer goes to the console otherwise, with the text.
setErrorLogger(() => undefined)
bestEffort.onExtraToken = () => undefined

const engines: Readonly<Record<string, Engine | ((c: Case, check: Check) => Promise<unknown>)>> = {
  understudy: ({ finishReason, text }, check) => {
    const found = JsonExtraction.extract(text, {
      check: (json) => (check(json) ? undefined : []),
      tier: "loss",
      ...(finishReason === undefined ? {} : { finishReason }),
    })
    return Result.isSuccess(found) ? found.success.json : undefined
  },
  "JSON.parse": attempt((text) => JSON.parse(text) as unknown),
  jsonrepair: attempt((text) => JSON.parse(jsonrepair(text)) as unknown),
  "partial-json": attempt((text) => partialJson(text) as unknown),
  "best-effort": attempt((text) => bestEffort(text) as unknown),
  "ai parsePartialJson": async ({ text }, check) => {
    const { value } = await parsePartialJson(text)
    return value !== undefined && check(value) ? value : undefined
  },
}

const isNested: Check = (json) => typeof json === "object" && json !== null

const ajv = new Ajv2020({ strict: false, validateFormats: false, logger: false })

const checkOf = ({ schema_hint: schema }: Case): Check => {
  if (schema === null) return isNested
  const validate = ajv.compile(schema)
  ajv.removeSchema(schema)
  return (json) => validate(json)
}

/** Without recursion: cases are nested deeply. */
const same = (left: unknown, right: unknown): boolean => {
  const pending: Array<readonly [unknown, unknown]> = [[left, right]]
  for (let pair = pending.pop(); pair !== undefined; pair = pending.pop()) {
    const [a, b] = pair
    if (a === b || Object.is(a, b)) continue
    if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false
    if (Array.isArray(a) !== Array.isArray(b)) return false
    const keys = Object.keys(a)
    if (keys.length !== Object.keys(b).length) return false
    for (const key of keys) {
      const own = Object.getOwnPropertyDescriptor(b, key)
      if (own === undefined) return false
      pending.push([Object.getOwnPropertyDescriptor(a, key)!.value, own.value])
    }
  }
  return true
}

interface Score {
  right: number
  wrong: number
  refused: number
  /** Rejected texts of which a value was accepted. */
  accepted: number
}

const scored = async (cases: ReadonlyArray<Case>) => {
  const scores: Record<string, Record<string, Score>> = {}
  const missed: Array<string> = []
  const count = (engine: string, category: string, verdict: keyof Score): void => {
    const row = (scores[engine] ??= {})
    for (const name of [category, "total"]) {
      row[name] ??= { right: 0, wrong: 0, refused: 0, accepted: 0 }
      row[name][verdict]++
    }
  }
  for (const c of cases) {
    if (c.expect_kind === "ambiguous") continue
    const check = checkOf(c)
    for (const [name, engine] of Object.entries(engines)) {
      const value = await engine(c, check)
      const verdict =
        c.expect_kind === "reject"
          ? value === undefined
            ? "right"
            : "accepted"
          : value === undefined
            ? "refused"
            : same(value, c.expect)
              ? "right"
              : "wrong"
      count(name, c.category, verdict)
      if (name === "understudy" && verdict !== "right") missed.push(`${c.id}: ${verdict}`)
    }
  }
  return { scores, missed }
}

// ---------------------------------------------------------------------------
// What it costs
// ---------------------------------------------------------------------------

const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!

/** Time of this thread in milliseconds: what other programs do meanwhile does not count. */
const now = (): number => {
  const { system, user } = process.threadCpuUsage()
  return (user + system) / 1000
}

/** The clock of a thread may tick slowly, so each measurement lasts this long. */
const atLeast = 80

/** Milliseconds that one run takes. */
const time = (f: () => unknown): number => {
  const begin = now()
  let runs = 0
  do {
    f()
    runs++
  } while (now() - begin < atLeast)
  return (now() - begin) / runs
}

/** How much longer one thing takes than another: the median over rounds in which they take turns. */
const ratio = (f: () => unknown, base: () => unknown): { readonly ratio: number; readonly ms: number } => {
  time(f)
  const rounds = Array.from({ length: 7 }, () => [time(base), time(f)] as const)
  return { ratio: median(rounds.map(([a, b]) => b / a)), ms: median(rounds.map(([, ms]) => ms)) }
}

const records = (bytes: number): string => {
  const out: Array<object> = []
  for (let length = 0; length < bytes; length += 155) {
    const i = out.length
    out.push({
      id: i,
      name: `Person number ${i}`,
      email: `person${i}@example.org`,
      tags: ["alpha", "beta", "gamma"],
      score: i * 1.5,
      active: i % 2 === 0,
      note: 'A "quoted" word\nand a line',
    })
  }
  return JSON.stringify(out)
}

const extract = (text: string) => JsonExtraction.extract(text, { tier: "loss" })

const costs = () => {
  const clean = records(1_000_000)
  const preamble = "Sure! Here is what you asked for:\n\n"
  const texts: Record<string, string> = {
    "clean, the whole text": clean,
    "clean, with a preamble": `${preamble}${clean}`,
    "clean, in a fence, with a preamble and chatter": `${preamble}\`\`\`json\n${clean}\n\`\`\`\nAnything else?`,
    "damaged: trailing commas": preamble + clean.replaceAll("}", ",}"),
    "damaged: Python literals": preamble + clean.replaceAll("true", "True").replaceAll("false", "False"),
    "damaged: single quotes": preamble + clean.replaceAll('\\"', "").replaceAll('"', "'"),
    "damaged: keys without quotes": preamble + clean.replace(/"(id|name|email|tags|score|active|note)":/g, "$1:"),
    "damaged: quotes inside of strings": preamble + clean.replaceAll('\\"', '"'),
    "damaged: missing commas": preamble + clean.replaceAll("},{", "}\n{"),
    "damaged: cut off": preamble + clean.slice(0, -40),
  }
  return Object.entries(texts).map(([name, text]) => {
    const found = extract(text)
    if (Result.isFailure(found)) throw new Error(`${name}: ${found.failure.message}`)
    return {
      name,
      megabytes: text.length / 1e6,
      ...ratio(
        () => extract(text),
        () => JSON.parse(clean),
      ),
    }
  })
}

const adversaries: Readonly<Record<string, (n: number) => string>> = {
  '(b")  in one string': (n) => `{"a": "${'(b") '.repeat(n / 5)}`,
  'say "hi" to  in one string': (n) => `{"a": "${'say "hi" to '.repeat(n / 12)}"}`,
  "a string without an end": (n) => `{"a": "${"lorem ipsum, dolor ".repeat(n / 19)}`,
  "see { or [ here": (n) => "see { or [ here. ".repeat(n / 17),
  "a far quote": (n) => `{"a": "${"x,".repeat(n / 2)}" tail`,
  "quotes and commas": (n) => `{"a": "${'", '.repeat(n / 3)}`,
  "broken objects, one inside of the other": (n) => `${'{"a": '.repeat(500)}@ `.repeat(n / 3000),
  "quotes and comments": (n) => `{"a": "${'"//'.repeat(n / 3)}`,
  "reasoning tags": (n) => "so <think> then ".repeat(n / 16),
  "a list cut off": (n) => records(n).slice(0, -60),
}

const doubling = () =>
  Object.entries(adversaries).map(([name, make]) => {
    const [one, two] = [make(400_000), make(800_000)]
    return {
      name,
      ...ratio(
        () => extract(two),
        () => extract(one),
      ),
    }
  })

const streamed = (text: string): number =>
  time(() => {
    const parser = JsonExtraction.parser({ tier: "loss" })
    for (let i = 0; i < text.length; i += 20) parser.push(text.slice(i, i + 20))
    parser.end()
  })

const streams = () => {
  const sizes = [250_000, 500_000, 1_000_000]
  const texts = sizes.map((size) => records(size))
  for (const text of texts) streamed(text)
  const rounds = Array.from({ length: 5 }, () => texts.map((text) => streamed(text) / text.length))
  return sizes.map((size, k) => ({ size, "ns a unit": Math.round(1e6 * median(rounds.map((round) => round[k]!))) }))
}

const extremes = () => {
  const texts: Record<string, string> = {
    "100,000 deep": "[".repeat(100_000) + "]".repeat(100_000),
    "100,000 deep, cut off": '{"a":'.repeat(100_000),
    "20 MB": records(20_000_000),
    "20 MB, cut off": records(20_000_000).slice(0, -60),
  }
  const say = (found: ReturnType<typeof extract>): string =>
    Result.isSuccess(found) ? "parsed" : `refused: ${found.failure.message}`
  return Object.entries(texts).flatMap(([name, text]) => [
    { name, outcome: say(extract(text)) },
    { name: `${name}, no limits`, outcome: say(JsonExtraction.extract(text, { tier: "loss", limits: unlimited })) },
  ])
}

const unlimited = {
  maxBytes: Number.MAX_SAFE_INTEGER,
  maxDepth: Number.MAX_SAFE_INTEGER,
  maxWork: Number.MAX_SAFE_INTEGER,
  maxCandidates: Number.MAX_SAFE_INTEGER,
}

// ---------------------------------------------------------------------------
// The report
// ---------------------------------------------------------------------------

const places = [
  ...process.argv.slice(2).filter((argument) => !argument.startsWith("--")),
  fileURLToPath(new URL("../../../shared/corpus/json-extraction.jsonl", import.meta.url)),
  fileURLToPath(new URL("../../packages/core/test/fixtures/json-extraction.jsonl", import.meta.url)),
]
const file = places.find((place) => existsSync(place))!
const cases = readFileSync(file, "utf8")
  .split("\n")
  .filter((line) => line !== "")
  .map((line) => JSON.parse(line) as Case)

const { missed, scores } = await scored(cases)
const report = {
  node: process.version,
  file,
  scores,
  missed,
  costs: costs(),
  doubling: doubling(),
  streams: streams(),
  extremes: extremes(),
}

const cell = ({ accepted, refused, right, wrong }: Score): string => `${right}/${wrong}/${refused}/${accepted}`

const table = (rows: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<string> => {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  return rows.map((row) =>
    row.map((text, k) => (k === 0 ? text.padEnd(widths[k]!) : text.padStart(widths[k]!))).join("  "),
  )
}

if (process.argv.includes("--json")) {
  process.stdout.write(`${JSON.stringify(report)}\n`)
} else {
  const names = Object.keys(engines)
  const categories = Object.keys(scores["understudy"]!).filter((name) => name !== "total")
  const empty: Score = { right: 0, wrong: 0, refused: 0, accepted: 0 }
  const totals = scores["understudy"]!["total"]!
  const all = totals.right + totals.wrong + totals.refused + totals.accepted
  const percent = (name: string): string => `${((100 * scores[name]!["total"]!.right) / all).toFixed(1)} %`
  const lines = [
    `${all} cases of ${file}; right/wrong/refused/accepted a text to be rejected. Node ${report.node}`,
    "",
    ...table([
      ["category", ...names],
      ...[...categories, "total"].map((category) => [
        category,
        ...names.map((name) => cell(scores[name]![category] ?? empty)),
      ]),
      ["right", ...names.map(percent)],
    ]),
    "",
    ...(missed.length === 0 ? [] : ["Missed by understudy", ...missed.map((line) => `  ${line}`), ""]),
    ...table([
      ["1 MB, against JSON.parse of the clean document", "MB", "ms", "ratio"],
      ...report.costs.map(({ megabytes, ms, name, ratio }) => [
        name,
        megabytes.toFixed(2),
        ms.toFixed(1),
        ratio.toFixed(2),
      ]),
    ]),
    "",
    ...table([
      ["twice the text (0.8 MB against 0.4 MB)", "ms", "ratio"],
      ...report.doubling.map(({ ms, name, ratio }) => [name, ms.toFixed(1), ratio.toFixed(2)]),
    ]),
    "",
    ...table([
      ["a stream of 20-unit deltas", "ns a unit"],
      ...report.streams.map((row) => [String(row.size), String(row["ns a unit"])]),
    ]),
    "",
    ...report.extremes.map(({ name, outcome }) => `${name}: ${outcome}`),
  ]
  process.stdout.write(`${lines.join("\n")}\n`)
}
