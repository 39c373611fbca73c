/**
 * The benchmarks: `pnpm bench`, or `pnpm bench --json`.
 *
 * Each case runs in processes of its own, pinned to one core where `taskset` is
 * there; what is shown is the median of the processes with their range, and the
 * ratios to the peers, which say more than the times.
 */
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"

const processes = 5
const scripts = ["./stack.ts", "./streams.ts"].map((name) => fileURLToPath(new URL(name, import.meta.url)))
const pinned = spawnSync("taskset", ["--version"]).status === 0
const [command, ...before] = pinned ? ["taskset", "-c", "0", process.execPath] : [process.execPath]

const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!

const runs: Array<Record<string, number>> = []
for (let i = 0; i < processes; i++) {
  const found: Record<string, number> = {}
  for (const script of scripts) {
    const run = spawnSync(command!, [...before, script], { encoding: "utf8" })
    if (run.status !== 0) {
      process.stderr.write(run.stderr)
      process.exit(1)
    }
    Object.assign(found, JSON.parse(run.stdout))
  }
  runs.push(found)
}

const cases = Object.keys(runs[0]!).map((name) => {
  const values = runs.map((run) => run[name]!)
  return {
    name,
    ns: Math.round(median(values)),
    min: Math.round(Math.min(...values)),
    max: Math.round(Math.max(...values)),
  }
})
const ns = (name: string): number => cases.find((c) => c.name === name)!.ns
const bare = ns("a part of the bare stream")
const parts = cases
  .filter((c) => c.name.startsWith("a part behind"))
  .map(({ name }) => ({ name, "ns over the bare stream": ns(name) - bare }))
const ours = cases.filter((c) => c.name.startsWith("understudy"))
/** The median of what it is in each process: they may run on a machine that is busy at times. */
const ratio = (name: string, peer: string): number =>
  Number(median(runs.map((run) => run[name]! / run[peer]!)).toFixed(3))
const ratios = ours.map(({ name }) => ({
  name,
  "to cockatiel": ratio(name, "cockatiel wrap"),
  "to the stock Effect stack": ratio(name, "stock Effect stack"),
}))

if (process.argv.includes("--json")) {
  process.stdout.write(`${JSON.stringify({ node: process.version, pinned, processes, cases, ratios, parts })}\n`)
} else {
  const lines = [
    `One successful call, ns, median of ${processes} processes [min..max]; Node ${process.version}${pinned ? ", one pinned core" : ""}`,
    ...cases.map((c) => `  ${c.name.padEnd(52)} ${String(c.ns).padStart(7)}  [${c.min}..${c.max}]`),
    "Ratios",
    ...ratios.map(
      (r) =>
        `  ${r.name.padEnd(52)} ${r["to cockatiel"]} of cockatiel, ${r["to the stock Effect stack"]} of the stock Effect stack`,
    ),
    "Over the bare stream, ns a part",
    ...parts.map((p) => `  ${p.name.padEnd(52)} ${p["ns over the bare stream"]}`),
  ]
  process.stdout.write(`${lines.join("\n")}\n`)
}
