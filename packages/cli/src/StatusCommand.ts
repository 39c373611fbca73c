/** `understudy status`: the candidates, what is set for them, and whether they can be asked. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import { NodeHttpClient } from "@effect/platform-node"
import { Call, Directory, LanguageModelFace, type LlmError, Timeouts } from "@understudy/core"
import { ProviderConfig } from "@understudy/providers"
import * as Output from "./Output.ts"
import * as Table from "./Table.ts"

// -----------------------------------------------------------------------------
// What a process of its own can know
// -----------------------------------------------------------------------------

/** What came of a tiny question. */
type Probe =
  | { readonly answered: true; readonly elapsedMs: number }
  | { readonly answered: false; readonly elapsedMs: number; readonly failure: LlmError.Tag; readonly message: string }

interface Seen extends ProviderConfig.Inspected {
  readonly probe: Probe | undefined
}

const isMissing = ({ key }: ProviderConfig.Inspected): boolean => key?.present === false
const isEnabled = ({ settings }: ProviderConfig.Inspected): boolean => settings.enabled !== false

/** Asks for one token. */
const probe = (
  candidate: ProviderConfig.Inspected,
  timeout: Duration.Duration,
): Effect.Effect<Probe | undefined, never, HttpClient.HttpClient> =>
  Effect.gen(function* () {
    const made = yield* Effect.option(candidate.make)
    if (Option.isNone(made)) return undefined
    const begin = yield* Clock.currentTimeMillis
    const asked = yield* Effect.result(
      made.value
        .pipe(Timeouts.with({ attempt: timeout }))
        .generate(LanguageModelFace.request("ping"))
        .pipe(Call.withParameters({ maxTokens: 1 })),
    )
    const elapsedMs = (yield* Clock.currentTimeMillis) - begin
    if (asked._tag === "Success") return { answered: true, elapsedMs }
    return { answered: false, elapsedMs, failure: asked.failure._tag, message: asked.failure.message }
  })

const duration = (ms: number): string => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`)

const yesOrNo = (fact: boolean): string => (fact ? "yes" : "no")

const wordOf = (result: Probe | undefined): string =>
  result === undefined
    ? ""
    : result.answered
      ? `answered in ${duration(result.elapsedMs)}`
      : `${result.failure} after ${duration(result.elapsedMs)}`

const priceOf = (price: Directory.Settings["price"]): string =>
  price === undefined ? "" : `${price.input} / ${price.output}`

const rowOf = ({ key, model, name, probe: result, provider, settings }: Seen): ReadonlyArray<string> => [
  name,
  name === provider ? "" : provider,
  model,
  yesOrNo(settings.enabled !== false),
  String(settings.priority ?? 0),
  settings.weight === undefined ? "" : String(settings.weight),
  settings.contextWindow === undefined ? "" : String(settings.contextWindow),
  priceOf(settings.price),
  settings.tags?.join(" ") ?? "",
  key === undefined ? "none needed" : key.present ? key.variable : `${key.variable} is missing`,
  wordOf(result),
]

const heads = ["candidate", "of", "model", "enabled", "priority", "weight", "window", "price", "tags", "key", "probe"]

const jsonOf = ({ key, model, name, probe: result, provider, settings }: Seen) => ({
  candidate: name,
  provider,
  model,
  enabled: settings.enabled !== false,
  priority: settings.priority ?? 0,
  weight: settings.weight ?? 1,
  ...(settings.contextWindow === undefined ? {} : { contextWindow: settings.contextWindow }),
  ...(settings.price === undefined ? {} : { price: settings.price }),
  tags: settings.tags ?? [],
  ...(key === undefined ? {} : { key }),
  ...(result === undefined ? {} : { probe: result }),
})

interface Sight {
  /** The file, or the environment. */
  readonly from: string
  readonly name: string | undefined
  readonly candidates: ReadonlyArray<ProviderConfig.Inspected>
}

const fromFile = (path: string) =>
  Effect.gen(function* () {
    const files = yield* FileSystem.FileSystem
    const text = yield* files
      .readFileString(path)
      .pipe(Effect.mapError((error) => Output.userError(`${path}: cannot be read (${error.reason._tag}).`, error)))
    return yield* ProviderConfig.fromJson(text, path).pipe(
      Effect.flatMap((config) =>
        Effect.map(ProviderConfig.inspect(config, path), (candidates): Sight => ({
          from: path,
          name: config.name,
          candidates,
        })),
      ),
      Effect.mapError((error) => Output.userError(error.message, error)),
    )
  })

const fromEnvironment = ProviderConfig.inspectEnvironment.pipe(
  Effect.map((candidates): Sight => ({ from: "the environment", name: undefined, candidates })),
  Effect.mapError((error) => Output.userError(error.message, error)),
)

/** What is wrong, for the status of the command; nothing when all is well. */
const complaint = (seen: ReadonlyArray<Seen>, needsAll: boolean, probed: boolean): string | undefined => {
  const wanted = seen.filter(isEnabled)
  const missing = wanted.filter(isMissing)
  if (probed) return wanted.some((one) => one.probe?.answered === true) ? undefined : "No candidate answered."
  if (wanted.length === 0) return "No candidate is enabled."
  if (missing.length === wanted.length || (needsAll && missing.length > 0)) {
    return `${missing.length === 1 ? "A key is" : `${missing.length} keys are`} missing.`
  }
  return undefined
}

const fromHere = (
  sight: Sight,
  options: { readonly json: boolean; readonly probe: boolean; readonly timeout: Duration.Duration },
) =>
  Effect.gen(function* () {
    const seen = yield* Effect.forEach(
      sight.candidates,
      (candidate) =>
        options.probe && !isMissing(candidate)
          ? Effect.map(probe(candidate, options.timeout), (result): Seen => ({ ...candidate, probe: result }))
          : Effect.succeed<Seen>({ ...candidate, probe: undefined }),
      { concurrency: "unbounded" },
    ).pipe(Effect.provide(NodeHttpClient.layerUndici))
    if (options.json) {
      const name = sight.name === undefined ? {} : { composition: sight.name }
      Output.json({ ...name, from: sight.from, candidates: seen.map(jsonOf) })
    } else {
      Output.line(Output.plain(sight.name === undefined ? sight.from : `${sight.name} (${sight.from})`))
      Table.print(heads, seen.map(rowOf))
      for (const { name, probe: result } of seen) {
        if (result?.answered === false) Output.note(Output.plain(`${name}: ${result.message}`))
      }
    }
    const wrong = complaint(seen, sight.from !== "the environment", options.probe)
    if (wrong !== undefined) return yield* Output.userError(wrong)
  })

// -----------------------------------------------------------------------------
// What a running service tells
// -----------------------------------------------------------------------------

const All = Schema.toCodecJson(Schema.Array(Directory.Status))

/** A list of candidates, or a report that has one. */
const Report = Schema.Union([All, Schema.Struct({ candidates: All })])

const ago = (at: number | undefined, now: number): string =>
  at === undefined ? "" : `${duration(Math.max(0, now - at))} ago`

const latencyOf = ({ latency }: Directory.Status): string =>
  [latency.answer, latency.firstContent]
    .map((one) => (one === undefined ? "–" : duration(Duration.toMillis(one))))
    .join(" / ")

const circuitOf = ({ circuit }: Directory.Status): string => {
  if (circuit === undefined) return ""
  const mode = circuit.mode === "automatic" ? "" : ` (${circuit.mode})`
  const left = circuit.retryAfter === undefined ? "" : ` for ${duration(Duration.toMillis(circuit.retryAfter))}`
  return `${circuit.state}${mode}${left}`
}

const liveRow = (status: Directory.Status, now: number): ReadonlyArray<string> => [
  status.candidate,
  status.model,
  yesOrNo(status.ready),
  yesOrNo(status.enabled),
  String(status.priority),
  Object.keys(status.overrides).join(" "),
  circuitOf(status),
  String(status.inFlight),
  status.latency.answer === undefined && status.latency.firstContent === undefined ? "" : latencyOf(status),
  ago(status.answeredAt, now),
  status.lastFailure === undefined ? "" : `${status.lastFailure.failure}, ${ago(status.lastFailure.at, now)}`,
]

const liveHeads = [
  "candidate",
  "model",
  "ready",
  "enabled",
  "priority",
  "set by hand",
  "circuit",
  "in flight",
  "answer / first content",
  "answered",
  "last failure",
]

const fromService = (url: string, json: boolean) =>
  Effect.gen(function* () {
    // A service that is not well says so by its status, and tells all the same.
    const report = yield* HttpClient.get(url, { headers: { accept: "application/json" } }).pipe(
      Effect.flatMap(HttpClientResponse.schemaBodyJson(Report)),
      Effect.timeout("10 seconds"),
      Effect.mapError((error) =>
        Output.userError(`${Output.plain(url)}: there is no status to be had (${error._tag}).`, error),
      ),
      Effect.provide(NodeHttpClient.layerUndici),
    )
    const candidates = "candidates" in report ? report.candidates : report
    if (json) return Output.json(Schema.encodeSync(All)(candidates))
    const now = yield* Clock.currentTimeMillis
    for (const [composition, all] of Map.groupBy(candidates, (status) => status.composition)) {
      Output.line(Output.plain(composition))
      Table.print(
        liveHeads,
        all.map((status) => liveRow(status, now)),
      )
    }
  })

/** The command. */
export const command = Command.make(
  "status",
  {
    config: Flag.String("config").pipe(
      Flag.withAlias("c"),
      Flag.withMetavar("FILE"),
      Flag.withDescription("The candidates (understudy.json). Without it: those of the environment"),
      Flag.optional,
    ),
    url: Flag.String("url").pipe(
      Flag.withMetavar("URL"),
      Flag.withDescription("The health route of a running service, for circuits, latencies and what was set by hand"),
      Flag.optional,
    ),
    probe: Flag.Boolean("probe").pipe(
      Flag.withDescription("Ask each candidate for one token, and tell how that went"),
      Flag.withDefault(false),
    ),
    timeout: Flag.Int("timeout").pipe(
      Flag.withMetavar("SECONDS"),
      Flag.withDescription("How long a probe may take"),
      Flag.withDefault(10),
    ),
    json: Flag.Boolean("json").pipe(Flag.withDescription("Print one JSON value"), Flag.withDefault(false)),
  },
  Effect.fnUntraced(function* ({ config, json, probe: asks, timeout, url }) {
    if (timeout < 1) return yield* Output.userError(`--timeout: expected at least 1 second, got ${timeout}.`)
    if (Option.isSome(url)) {
      if (Option.isSome(config) || asks) {
        return yield* Output.userError(
          "--url: a running service tells of its own candidates; leave --config and --probe out.",
        )
      }
      return yield* fromService(url.value, json)
    }
    const sight = yield* Option.match(config, { onNone: () => fromEnvironment, onSome: fromFile })
    yield* fromHere(sight, { json, probe: asks, timeout: Duration.seconds(timeout) })
  }),
).pipe(
  Command.withDescription(
    "Show the candidates, what is set for them, and which keys are missing; ask nobody unless told",
  ),
  Command.withExamples([
    {
      command: "understudy status --config understudy.json",
      description: "Look at a configuration before it is deployed",
    },
    { command: "understudy status --config understudy.json --probe", description: "Ask each candidate for one token" },
    { command: "understudy status --url http://localhost:3000/health", description: "Ask a running service" },
  ]),
)
