/**
 * Breaks the circuit breaker on purpose, in one small way after the other, and
 * sees whether its tests notice: each mutation is applied to a copy of the
 * package, the breaker's tests are run there, and the first that fails has
 * killed it. Fails when a mutation survives, or can no longer be applied.
 *
 * `node scripts/mutations.ts [part of a name]`
 */
import { spawn } from "node:child_process"
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

interface Mutation {
  readonly name: string
  /** Under `packages/core/src`. */
  readonly file: string
  /** What is there, exactly once. */
  readonly from: string
  readonly to: string
}

const machine = "internal/breaker/machine.ts"
const tripper = "internal/breaker/tripper.ts"
const rules = "internal/breaker/rules.ts"
const window_ = "internal/breaker/window.ts"
const opening = "internal/breaker/opening.ts"
const registry = "internal/breaker/registry.ts"
const admission = "internal/admission.ts"
const service = "CircuitBreaker.ts"

const mutations: ReadonlyArray<Mutation> = [
  // --- `>=` to `>`
  {
    name: ">= to >: failures in a row",
    file: tripper,
    from: "++this.inARow >= this.limit",
    to: "++this.inARow > this.limit",
  },
  {
    name: ">= to >: a threshold",
    file: rules,
    from: 'compare === ">=" ? value >= threshold',
    to: 'compare === ">=" ? value > threshold',
  },
  {
    name: "> to >=: a threshold that must be exceeded",
    file: rules,
    from: ": value > threshold",
    to: ": value >= threshold",
  },
  {
    name: ">= to >: the minimum of calls",
    file: tripper,
    from: "window.calls < watch.minimum",
    to: "window.calls <= watch.minimum",
  },
  {
    name: ">= to >: what a window forgets",
    file: window_,
    from: "now - this.begins![this.oldest]! >= this.millis",
    to: "now - this.begins![this.oldest]! > this.millis",
  },
  {
    name: ">= to >: successes that close",
    file: machine,
    from: "this.succeededProbes >= verdict.successes",
    to: "this.succeededProbes > verdict.successes",
  },
  {
    name: "> to >=: failures that reopen",
    file: machine,
    from: "this.failedProbes > verdict.of - verdict.successes",
    to: "this.failedProbes >= verdict.of - verdict.successes",
  },
  {
    name: ">= to >: the sample of a share",
    file: machine,
    from: "this.sampled >= verdict.of",
    to: "this.sampled > verdict.of",
  },
  { name: "> to >=: a slow call", file: tripper, from: "firstContent) > slowAfter", to: "firstContent) >= slowAfter" },
  {
    name: "> to >=: a hint beyond the patience",
    file: machine,
    from: 'failed && hint > this.rules.patience) this.openFor(0, hint, now, "hint")\n  }',
    to: 'failed && hint >= this.rules.patience) this.openFor(0, hint, now, "hint")\n  }',
  },
  // --- Permits
  { name: "permits + 1", file: machine, from: "inFlight >= permits", to: "inFlight >= permits + 1" },
  { name: "permits - 1", file: machine, from: "inFlight >= permits", to: "inFlight >= permits - 1" },
  {
    name: "a sample of one probe too many",
    file: machine,
    from: "sampled + inFlight < verdict.of",
    to: "sampled + inFlight <= verdict.of",
  },
  {
    name: "an ignored outcome leaks a slot",
    file: machine,
    from: "    this.probes.delete(ticket)\n    // One that",
    to: '    if (outcome !== "ignored") this.probes.delete(ticket)\n    // One that',
  },
  {
    name: "an interruption leaks a slot",
    file: machine,
    from: "    this.probes.delete(ticket)\n    // One that",
    to: '    if (outcome !== "interrupted") this.probes.delete(ticket)\n    // One that',
  },
  // --- Late outcomes
  {
    name: "no fencing: of a closed circuit",
    file: machine,
    from: "if (ticket === this.epoch) this.heard(",
    to: "this.heard(",
  },
  { name: "no fencing: of probes", file: machine, from: "if (began === undefined) return\n", to: "" },
  {
    name: "no fencing: by state only",
    file: machine,
    from: "this.epoch = ++this.lastTicket",
    to: 'this.epoch = state === "closed" ? 1 : ++this.lastTicket',
  },
  {
    name: "a late success closes",
    file: machine,
    from: "if (began === undefined) return",
    to: 'if (began === undefined && outcome !== "success") return',
  },
  // --- Deadlines
  {
    name: "deadline boundary: inclusive",
    file: machine,
    from: 'boundary === "inclusive" ? now >= this.openUntil',
    to: 'boundary === "inclusive" ? now > this.openUntil',
  },
  {
    name: "deadline boundary: exclusive",
    file: machine,
    from: ": now > this.openUntil",
    to: ": now >= this.openUntil",
  },
  {
    name: "no probe deadline",
    file: machine,
    from: "if (now - began >= this.rules.probeLimit) this.probes.delete(ticket)",
    to: "void [ticket, began, now]",
  },
  {
    name: "no probe deadline: it looks as if there were one",
    file: machine,
    from: "if (now - began >= this.rules.probeLimit) count++",
    to: "void [began, now]",
  },
  {
    name: "a lost probe gives all permits back",
    file: machine,
    from: "if (now - began >= this.rules.probeLimit) this.probes.delete(ticket)",
    to: "if (now - began >= this.rules.probeLimit) this.probes.clear()",
  },
  {
    name: "a probe that comes back too late counts",
    file: machine,
    from: 'late ? "interrupted" : outcome',
    to: "outcome",
  },
  // --- Hints
  {
    name: "hint shortens a trip",
    file: machine,
    from: "now + Math.max(millis, capped)",
    to: "now + (capped > 0 ? capped : millis)",
  },
  {
    name: "a hint is not capped",
    file: machine,
    from: "const capped = Math.min(hint, this.rules.maxHint)\n    this.hintUntil",
    to: "const capped = hint\n    this.hintUntil",
  },
  {
    name: "a hint is not heard",
    file: admission,
    from: "failure.retryAfter === undefined ? 0 : Duration.toMillis(failure.retryAfter)",
    to: "0",
  },
  // --- Counts
  {
    name: "success count not reset",
    file: machine,
    from: "this.succeededProbes = this.failedProbes = 0",
    to: "this.failedProbes = 0",
  },
  {
    name: "failures in a row not reset by a success",
    file: tripper,
    from: "if (!failed) this.inARow = 0",
    to: "if (!failed) void 0",
  },
  {
    name: "windows survive the closing",
    file: machine,
    from: 'if (state === "closed") this.tripper.clear()',
    to: "",
  },
  {
    name: "a window keeps what it should forget",
    file: window_,
    from: "if ((oldest & failedBit) !== 0) this.failures--",
    to: "",
  },
  {
    name: "openings are not counted",
    file: machine,
    from: "this.openTime(++this.openings, chance)",
    to: "this.openTime((this.openings = 1), chance)",
  },
  {
    name: "openings are never counted anew",
    file: machine,
    from: "now - this.since >= (long as number)) this.openings = 0",
    to: "now - this.since >= (long as number)) void 0",
  },
  { name: "the open time is not capped", file: opening, from: "Math.min(cap, base * factor", to: "(base * factor" },
  // --- Interruptions and ignored outcomes
  {
    name: "interrupt counted",
    file: admission,
    from: 'const left: Learned = { own: "interrupted"',
    to: 'const left: Learned = { own: "failure"',
  },
  {
    name: "interrupt counted: by the machine, while closed",
    file: machine,
    from: 'if (outcome === "interrupted" || (outcome === "ignored" && this.rules.ignored === "nothing")) return\n',
    to: 'if (outcome === "ignored" && this.rules.ignored === "nothing") return\n',
  },
  {
    name: "interrupt counted: by the machine, of probes",
    file: machine,
    from: 'if (outcome === "interrupted" || (outcome === "ignored" && this.rules.ignored === "nothing")) return this',
    to: 'if (outcome === "ignored" && this.rules.ignored === "nothing") return this',
  },
  // --- By hand
  {
    name: "two isolations end with one release",
    file: machine,
    from: 'this.mode !== "isolated" || --this.holders > 0',
    to: 'this.mode !== "isolated"',
  },
  {
    name: "a shadow rejects",
    file: machine,
    from: "if (!this.lenient) return rejected",
    to: "return rejected",
  },
  {
    name: "one that is off takes outcomes in",
    file: machine,
    from: "this.pass = recording ? this.epoch : unrecorded",
    to: "this.pass = this.epoch",
  },
  // --- The floor, accounts, waiting, keys
  { name: "the floor ignores the hint", file: machine, from: "now >= this.hintUntil &&", to: "" },
  {
    name: "a failed probe of the floor is an opening more",
    file: machine,
    from: "if (failed) return this.prolong(hint, now)",
    to: 'if (failed) return this.openFor(this.nextOpenTime(now, chance), hint, now, "probe")',
  },
  { name: "the floor at every call", file: service, from: "< every) return false", to: "< 0) return false" },
  {
    name: "a dead key opens the model",
    file: admission,
    from: 'new Set(["QuotaExhausted", "AuthenticationFailed"])',
    to: 'new Set(["QuotaExhausted"])',
  },
  {
    name: "a missing model opens the account",
    file: admission,
    from: 'new Set(["QuotaExhausted", "AuthenticationFailed"])',
    to: 'new Set(["QuotaExhausted", "AuthenticationFailed", "ModelNotFound"])',
  },
  {
    name: "a slow model opens the account",
    file: registry,
    from: "{ ...rules, inARow: Infinity, watches: [] }",
    to: "rules",
  },
  {
    name: "nobody is called back at the verdict",
    file: machine,
    from: "for (const [, wake] of places) wake()",
    to: "void places",
  },
  {
    name: "nobody is called back for a permit",
    file: machine,
    from: "const wake = this.waiting.get(place)",
    to: "const wake = undefined as (() => void) | undefined",
  },
  {
    name: "who waits does not give up",
    file: admission,
    from: "if (waited !== undefined && now >= waited.until) return undefined",
    to: "",
  },
  {
    name: "an open circuit makes room",
    file: registry,
    from: 'circuit.state === "closed" &&',
    to: "",
  },
  {
    name: "a circuit with a call under way makes room",
    file: registry,
    from: "circuit.outstanding === 0 &&",
    to: "",
  },
  {
    name: "the latest used makes room",
    file: registry,
    from: "a.usedAt - b.usedAt",
    to: "b.usedAt - a.usedAt",
  },
]

const tests = [
  "Breaker.test.ts",
  "BreakerOptions.test.ts",
  "BreakerRegistry.test.ts",
  "BreakerShell.test.ts",
  "CircuitBreaker.test.ts",
  "CircuitBreakerCircuits.test.ts",
]

const root = fileURLToPath(new URL("..", import.meta.url))
const copy = mkdtempSync(join(tmpdir(), "understudy-mutations-"))
const core = join(copy, "packages", "core")

const prepare = (): void => {
  for (const path of ["package.json", "src", "test", "tsconfig.json"]) {
    cpSync(join(root, "packages", "core", path), join(core, path), { recursive: true })
  }
  for (const path of ["package.json", "tsconfig.base.json"]) cpSync(join(root, path), join(copy, path))
  writeFileSync(
    join(copy, "vitest.config.js"),
    'export default { test: { root: "packages/core", include: ["test/**/*.test.ts"], testTimeout: 60_000 } }',
  )
  for (const path of ["node_modules", "packages/core/node_modules"]) {
    if (existsSync(join(root, path))) symlinkSync(join(root, path), join(copy, path))
  }
}

interface Results {
  readonly success: boolean
  readonly testResults: ReadonlyArray<{
    readonly message?: string
    readonly assertionResults: ReadonlyArray<{ readonly status: string; readonly fullName: string }>
  }>
}

/** Runs the tests in the copy: the name of the first that fails, or nothing. */
const firstFailure = (): Promise<string | undefined> =>
  new Promise((resolve, reject) => {
    const output = join(copy, "results.json")
    rmSync(output, { force: true })
    const child = spawn(
      process.execPath,
      [
        join(root, "node_modules", "vitest", "vitest.mjs"),
        "run",
        "--config",
        "vitest.config.js",
        "--bail=1",
        "--reporter=json",
        `--outputFile=${output}`,
        ...tests.map((test) => join("test", test)),
      ],
      { cwd: copy, stdio: ["ignore", "ignore", "pipe"], timeout: 300_000 },
    )
    let noise = ""
    child.stderr.setEncoding("utf8").on("data", (text: string) => (noise += text))
    running = () => child.kill("SIGKILL")
    child.on("error", reject)
    child.on("close", (_status, signal) => {
      running = undefined
      // A mutation may well make something run for ever.
      if (signal !== null) return resolve("(they did not come to an end)")
      if (!existsSync(output)) return reject(new Error(noise))
      const { success, testResults } = JSON.parse(readFileSync(output, "utf8")) as Results
      const failed = testResults.flatMap(({ assertionResults }) =>
        assertionResults.filter(({ status }) => status === "failed"),
      )
      const broken = testResults.find(({ message }) => (message ?? "") !== "")?.message
      resolve(failed[0]?.fullName ?? (success ? undefined : `(${broken?.split("\n")[0] ?? "they do not run"})`))
    })
  })

let running: (() => void) | undefined

const clean = (): void => {
  running?.()
  rmSync(copy, { recursive: true, force: true })
}
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    clean()
    process.exit(130)
  })
}

const say = (line: string): void => void process.stdout.write(`${line}\n`)

const main = async (): Promise<number> => {
  const wanted = process.argv[2]
  const chosen = mutations.filter(({ name }) => wanted === undefined || name.includes(wanted))
  prepare()
  const unbroken = await firstFailure()
  if (unbroken !== undefined) {
    say(`Without any mutation there is a test that fails: ${unbroken}`)
    return 1
  }
  let failures = 0
  for (const { file, from, name, to } of chosen) {
    const path = join(core, "src", file)
    const source = readFileSync(path, "utf8")
    if (source.split(from).length !== 2) {
      failures++
      say(`gone      ${name}: ${file} does not hold this once: ${from}`)
      continue
    }
    writeFileSync(
      path,
      source.replace(from, () => to),
    )
    const killer = await firstFailure()
    writeFileSync(path, source)
    if (killer === undefined) failures++
    say(killer === undefined ? `SURVIVED  ${name}` : `killed    ${name}, by: ${killer}`)
  }
  say(`\n${chosen.length - failures} of ${chosen.length} mutations killed.`)
  return failures === 0 && chosen.length > 0 ? 0 : 1
}

try {
  process.exitCode = await main()
} finally {
  clean()
}
