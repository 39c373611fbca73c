import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { spawn } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { replay } from "../src/BreakerReplay.ts"
import { Case, tracesOf } from "../src/BreakerTrace.ts"
import { traces } from "./fixtures/breaker-traces.ts"

type Json = Readonly<Record<string, unknown>>

const transitions = new Set<unknown>(["open", "close", "half-open"])

/** Is what was observed what was expected? Changes of state exactly, other events among what was told. */
const same = (field: string, expected: unknown, observed: unknown): boolean => {
  if (field === "events" && Array.isArray(expected) && Array.isArray(observed)) {
    const changes = (events: ReadonlyArray<unknown>) => JSON.stringify(events.filter((event) => transitions.has(event)))
    return changes(observed) === changes(expected) && expected.every((event) => observed.includes(event))
  }
  if (field === "stats") {
    return Object.entries(expected as Json).every(([name, value]) => (observed as Json)[name] === value)
  }
  return JSON.stringify(observed) === JSON.stringify(expected)
}

/** Where a replayed trace is not as expected. */
const differences = (trace: Case, steps: ReadonlyArray<Json>): ReadonlyArray<string> =>
  trace.steps.flatMap(({ expect = {} }, index) =>
    Object.entries(expect).flatMap(([field, expected]) => {
      const observed = steps[index]?.[field]
      return same(field, expected, observed)
        ? []
        : [`step ${index}: ${field} is ${JSON.stringify(observed)}, expected ${JSON.stringify(expected)}`]
    }),
  )

const decode = Schema.decodeUnknownSync(Schema.Array(Case))

describe("A trace of a breaker", () => {
  it.effect.each(traces.map((trace) => [trace.id, trace] as const))("is played as it was seen: %s", ([, trace]) =>
    Effect.gen(function* () {
      const [read] = decode([trace])
      const played = yield* replay(read!)
      assert.strictEqual(played.supported, true, "why" in played ? played.why : "")
      if (played.supported) assert.deepStrictEqual(differences(read!, played.steps), [])
    }),
  )

  it.effect("names what was observed, and never echoes what was expected", () =>
    Effect.gen(function* () {
      for (const trace of decode(traces)) {
        const wrong = {
          ...trace,
          steps: trace.steps.map(({ expect = {}, ...step }) => ({
            ...step,
            expect: Object.fromEntries(
              Object.keys(expect).map((field) => [field, field === "stats" ? expect[field] : "?"]),
            ),
          })),
        }
        const named = {
          ...trace,
          steps: trace.steps.map(({ expect = {}, ...step }) => ({ ...step, observe: Object.keys(expect) })),
        }
        const [right, misled, unled] = [yield* replay(trace), yield* replay(wrong), yield* replay(named)]
        assert.deepStrictEqual(misled, right)
        if (right.supported && unled.supported) assert.deepStrictEqual(differences(trace, unled.steps), [])
        assert.isTrue(unled.supported)
      }
    }),
  )

  const unsupported: ReadonlyArray<readonly [string, Json, RegExp]> = [
    ["another kind", { kind: "retry", maxRetries: 3 }, /not of "retry"/],
    ["no kind", {}, /kinds breaker and tripper/],
    ["a time of warming up", { kind: "breaker", warmupMs: 500 }, /minimum of calls/],
    ["a deadline for the half-open state", { kind: "breaker", halfOpenMaxMs: 1000 }, /probeLimit/],
    ["a breaker that is shut down", { kind: "breaker", initialState: { state: "shutdown" } }, /shut down/],
    ["late outcomes that count", { kind: "breaker", lateResults: "applied" }, /earlier state/],
    ["something that nobody knows", { kind: "breaker", magic: true }, /cannot be told/],
    [
      "a share of slow calls without a window",
      { kind: "breaker", trip: { type: "consecutive", failures: 2 }, slow: { durationMs: 1, rate: 0.5 } },
      /needs a window/,
    ],
    [
      "a threshold that is never reached",
      { kind: "breaker", trip: { type: "failures-of-last", failures: 4, of: 3 } },
      /never has so many/,
    ],
  ]
  it.effect.each(unsupported)("is not played with %s, and says why", ([, policy, why]) =>
    Effect.gen(function* () {
      const played = yield* replay({ id: "x", policy, steps: [] })
      assert.isFalse(played.supported)
      assert.match("why" in played ? played.why : "", why)
    }),
  )

  it.effect("is not played when it asks for what cannot be done or observed", () =>
    Effect.gen(function* () {
      const policy = { kind: "breaker", trip: { type: "consecutive", failures: 1 } }
      for (const [step, why] of [
        [{ at_ms: 0, action: "snapshot-restore" }, /not written down/],
        [{ at_ms: 0, action: "dance" }, /no such action/],
        [{ at_ms: 0, action: "end-success", call: "nobody" }, /no call of that name/],
        [{ at_ms: 0, action: "check", observe: ["mood"] }, /mood: nothing of that name/],
        [{ at_ms: 0, action: "check", expect: { stats: { charm: 1 } } }, /charm/],
      ] as const) {
        const played = yield* replay({ id: 1, policy, steps: decode([{ id: 1, policy, steps: [step] }])[0]!.steps })
        assert.match("why" in played ? played.why : "", why)
      }
    }),
  )

  it.effect("is played against a policy of ours that somebody considers", () =>
    Effect.gen(function* () {
      const steps = decode([
        {
          id: "incident",
          policy: {},
          steps: [
            { at_ms: 0, action: "call-failure" },
            { at_ms: 1000, action: "call-failure", hint_ms: 20_000 },
            { at_ms: 2000, action: "check", observe: ["state", "retry_after_ms", "reason"] },
          ],
        },
      ])[0]!.steps
      const last = (options: object, considered?: object) =>
        Effect.map(
          replay({ id: 1, policy: { kind: "breaker", options }, steps }, considered as never),
          (played) => played.supported && played.steps[2],
        )
      const byHint = { state: "open", retry_after_ms: 19_000, reason: "hint" }
      assert.deepStrictEqual(yield* last({}), byHint)
      assert.deepStrictEqual(yield* last({ patience: "1 minute" }), {
        state: "closed",
        retry_after_ms: 0,
        reason: null,
      })
      assert.deepStrictEqual(yield* last({ patience: "1 minute" }, {}), byHint)
    }),
  )
})

const corpus = fileURLToPath(new URL("../../../../shared/corpus/breaker-behaviours.json", import.meta.url))

if (existsSync(corpus))
  it.effect("Traces of other breakers' suites are played, nearly all, and each as it was seen", () =>
    Effect.gen(function* () {
      const file = Schema.decodeUnknownSync(Schema.Struct({ cases: Schema.Array(Case) }))(
        JSON.parse(readFileSync(corpus, "utf8")),
      )
      const ours = file.cases.filter(({ policy }) => policy["kind"] === "breaker" || policy["kind"] === "tripper")
      assert.isAtLeast(ours.length, 50)
      const wrong: Array<string> = []
      let supported = 0
      for (const trace of ours) {
        const played = yield* replay(trace)
        if (!played.supported) continue
        supported++
        for (const difference of differences(trace, played.steps)) wrong.push(`${trace.id}, ${difference}`)
      }
      assert.deepStrictEqual(wrong, [])
      assert.isAtLeast(supported / ours.length, 0.9)
    }),
  )

const bin = fileURLToPath(new URL("../src/bin.ts", import.meta.url))

interface Ran {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs the command as a person does. */
const run = (args: ReadonlyArray<string>, input = ""): Effect.Effect<Ran> =>
  Effect.callback((resume) => {
    const child = spawn(process.execPath, [bin, ...args], { env: { PATH: process.env["PATH"] ?? "", NO_COLOR: "1" } })
    let stdout = ""
    let stderr = ""
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => (stdout += chunk))
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => (stderr += chunk))
    child.on("close", (status) => resume(Effect.succeed({ status, stdout, stderr })))
    child.stdin.end(input)
    return Effect.sync(() => child.kill("SIGKILL"))
  })

const scratch = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "understudy-breaker-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true })),
)

const linesOf = (stdout: string): ReadonlyArray<Json> =>
  stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Json)

describe("understudy breaker replay", () => {
  const trace = {
    id: "t",
    policy: { kind: "breaker", trip: { type: "consecutive", failures: 1 }, openMs: [1000] },
    steps: [
      { at_ms: 0, action: "call-failure", observe: ["state"] },
      { at_ms: 400, action: "call-success" },
    ],
  }
  const played = {
    id: "t",
    supported: true,
    steps: [{ state: "open" }, { admit: false, state: "open", retry_after_ms: 600, events: ["reject"] }],
  }
  const retry = { id: "r", policy: { kind: "retry" }, steps: [] }

  it("takes an object with cases, an array, one trace, or one trace a line", () => {
    for (const text of [
      JSON.stringify({ schema: {}, cases: [trace, retry] }, null, 2),
      JSON.stringify([trace, retry]),
      `${JSON.stringify(trace)}\n\n${JSON.stringify(retry)}\n`,
    ]) {
      assert.deepStrictEqual(tracesOf(text), [trace, retry])
    }
    assert.deepStrictEqual(tracesOf(JSON.stringify(trace)), [trace])
    assert.deepStrictEqual(tracesOf(" \n"), [])
  })

  it.live("answers one line for each trace of a file", () =>
    Effect.gen(function* () {
      const file = join(yield* scratch, "traces.json")
      writeFileSync(file, JSON.stringify({ schema: {}, cases: [trace, retry] }, null, 2))
      const ran = yield* run(["breaker", "replay", file])
      assert.deepStrictEqual([ran.status, ran.stderr], [0, ""])
      const [first, second] = linesOf(ran.stdout)
      assert.deepStrictEqual(first, played)
      assert.deepStrictEqual([second?.["id"], second?.["supported"]], ["r", false])
    }).pipe(Effect.scoped),
  )

  it.live("plays another policy with --options, and says what is wrong with one that cannot be meant", () =>
    Effect.gen(function* () {
      const patient = yield* run(["breaker", "replay", "--options", '{"failures":2}'], JSON.stringify(trace))
      assert.deepStrictEqual(linesOf(patient.stdout)[0]?.["steps"], [
        { state: "closed" },
        { admit: true, state: "closed", retry_after_ms: 0, events: ["success"] },
      ])
      const never = '{"trip":{"on":"failures","failures":4,"of":3}}'
      const refused = yield* run(["breaker", "replay", "--options", never], JSON.stringify(trace))
      assert.strictEqual(refused.status, 1)
      assert.match(refused.stderr, /--options: .*never has so many failures of 3/)
      assert.strictEqual(refused.stdout, "")
    }),
  )

  it.live("tells which traces it cannot read, plays the others, and ends with status 1", () =>
    Effect.gen(function* () {
      const text = `${JSON.stringify(trace)}\nno json\n${JSON.stringify({ id: "x", steps: [] })}\n`
      const ran = yield* run(["breaker", "replay"], text)
      assert.strictEqual(ran.status, 1)
      assert.deepStrictEqual(linesOf(ran.stdout), [played])
      assert.match(ran.stderr, /line 2: this is no JSON/)
      assert.match(ran.stderr, /trace 3: [^]*policy/)
      assert.match(ran.stderr, /2 traces could not be read/)
      assert.match((yield* run(["breaker", "replay", "/nowhere.json"])).stderr, /no such file/)
    }),
  )
})
