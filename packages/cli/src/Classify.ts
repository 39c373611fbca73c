/** `understudy classify`: what a provider's failure is, and how it is treated. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { Classifier } from "@understudy/core"
import * as Output from "./Output.ts"
import * as Story from "./Story.ts"

const Headers = Schema.Record(
  Schema.String,
  Schema.Union([Schema.String, Schema.Finite, Schema.Null, Schema.Array(Schema.String)]),
)

/** One failure of a provider, as it was seen. Fields besides these are ignored. */
const Seen = Schema.Struct({
  id: Schema.optionalKey(Schema.NullOr(Schema.Union([Schema.String, Schema.Finite]))),
  provider: Schema.optionalKey(Schema.NullOr(Schema.String)),
  status: Schema.optionalKey(Schema.NullOr(Schema.Int)),
  headers: Schema.optionalKey(Schema.NullOr(Headers)),
  /** Text as it came, or JSON. */
  body: Schema.optionalKey(Schema.Json),
  where: Schema.optionalKey(Schema.NullOr(Schema.Literals(["http", "sse-event", "finish_reason", "network"]))),
})

type Seen = typeof Seen.Type

const textOf = (body: Seen["body"]): string =>
  body === undefined || body === null ? "" : typeof body === "string" ? body : JSON.stringify(body)

const headersOf = (headers: Seen["headers"]): Record<string, string> => {
  const out: Record<string, string> = {}
  for (const [name, value] of Object.entries(headers ?? {})) {
    if (value !== null) out[name] = Array.isArray(value) ? value.join(", ") : String(value)
  }
  return out
}

const signalOf = (seen: Seen): Classifier.Signal => {
  const where = seen.where ?? (seen.status === undefined || seen.status === null ? "network" : "http")
  const body = textOf(seen.body)
  const status = seen.status ?? undefined
  const headers = headersOf(seen.headers)
  switch (where) {
    case "network":
      return { where, error: seen.body ?? "" }
    case "http":
      return { where, status: status ?? 0, headers, body }
    default:
      return { where, body, headers, ...(status === undefined ? {} : { status }) }
  }
}

const explain = (seen: Seen, now: number): Classifier.Explained =>
  Classifier.explain(signalOf(seen), { provider: seen.provider ?? "unknown", now })

const decodeSeen = Schema.decodeUnknownEffect(Schema.fromJsonString(Seen))

/** One line in, one object out; a line that cannot be read is told on stderr, and gives false. */
const classifyLine = (line: string, number: number, from: string): Effect.Effect<boolean> =>
  Effect.gen(function* () {
    const seen = yield* Effect.result(decodeSeen(line))
    if (seen._tag === "Failure") {
      Output.note(Output.plain(`${from}, line ${number}: ${seen.failure.message}`))
      return false
    }
    const now = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
    const { failure } = explain(seen.success, now)
    Output.json({
      id: seen.success.id ?? null,
      tag: failure._tag,
      retryable: failure.retryable,
      retryAfterMs: failure.retryAfter === undefined ? null : Math.ceil(Duration.toMillis(failure.retryAfter)),
    })
    return true
  })

const fromLines = <E>(bytes: Stream.Stream<Uint8Array, E>, from: string) =>
  bytes.pipe(
    Stream.decodeText,
    Stream.splitLines,
    Stream.zipWithIndex,
    Stream.mapEffect(([line, index]) =>
      line.trim() === "" ? Effect.succeed(true) : classifyLine(line, index + 1, from),
    ),
    Stream.runFold(
      () => 0,
      (unread, read) => (read ? unread : unread + 1),
    ),
    Effect.mapError((error) => Output.userError(`${from}: cannot be read.`, error)),
    Effect.flatMap((unread) =>
      unread === 0
        ? Effect.void
        : Effect.fail(Output.userError(`${from}: ${unread} ${unread === 1 ? "line" : "lines"} could not be read.`)),
    ),
  )

const parseHeader = (header: string): Option.Option<readonly [string, string]> => {
  const colon = header.indexOf(":")
  return colon <= 0
    ? Option.none()
    : Option.some([header.slice(0, colon).trim().toLowerCase(), header.slice(colon + 1).trim()])
}

/** One failure, explained for a person. */
const explainOne = (seen: Seen) =>
  Effect.gen(function* () {
    const now = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
    const { failure, hintFrom, rule } = explain(seen, now)
    for (const line of Story.explain(failure)) Output.line(Output.plain(line))
    Output.line(`  ${"rule:".padEnd(17)}${Output.plain(rule)}`)
    if (hintFrom !== undefined) Output.line(`  ${"hint from:".padEnd(17)}${Output.plain(hintFrom)}`)
  })

/** The command. */
export const command = Command.make(
  "classify",
  {
    file: Argument.String("file").pipe(
      Argument.withDescription(
        "Failures, one JSON object a line: id, provider, status, headers, body, where. Default: stdin",
      ),
      Argument.optional,
    ),
    provider: Flag.String("provider").pipe(
      Flag.withMetavar("NAME"),
      Flag.withDescription("Whose failure it is: openai, anthropic, gemini, bedrock …"),
      Flag.optional,
    ),
    status: Flag.Int("status").pipe(Flag.withDescription("Explain one failure: its HTTP status"), Flag.optional),
    header: Flag.String("header").pipe(
      Flag.withMetavar("'NAME: VALUE'"),
      Flag.withDescription("Explain one failure: a response header; may be repeated"),
      Flag.atLeast(0),
    ),
    body: Flag.String("body").pipe(Flag.withDescription("Explain one failure: the response body"), Flag.optional),
    where: Flag.Literals("where", ["http", "sse-event", "finish_reason", "network"]).pipe(
      Flag.withDescription("Explain one failure: where it was seen. Default: http with a status, else network"),
      Flag.optional,
    ),
  },
  Effect.fnUntraced(function* ({ body, file, header, provider, status, where }) {
    if (Option.isSome(status) && (status.value < 100 || status.value > 599)) {
      return yield* Output.userError(`--status: expected a number from 100 to 599, got ${status.value}.`)
    }
    const one = Option.isSome(status) || Option.isSome(body) || header.length > 0 || Option.isSome(where)
    if (one) {
      if (Option.isSome(file)) {
        return yield* Output.userError(
          "Give a file of failures, or one failure by --status, --header and --body; not both.",
        )
      }
      const headers: Record<string, string> = {}
      for (const text of header) {
        const parsed = parseHeader(text)
        if (Option.isNone(parsed)) {
          return yield* Output.userError(`--header: expected 'name: value', got ${JSON.stringify(text)}.`)
        }
        headers[parsed.value[0]] = parsed.value[1]
      }
      return yield* explainOne({
        provider: Option.getOrElse(provider, () => "unknown"),
        status: Option.getOrNull(status),
        headers,
        body: Option.getOrElse(body, () => ""),
        where: Option.getOrNull(where),
      })
    }
    if (Option.isSome(file)) {
      const path = file.value
      const files = yield* FileSystem.FileSystem
      const exists = yield* files.exists(path).pipe(Effect.orElseSucceed(() => false))
      if (!exists) return yield* Output.userError(`${path}: there is no such file that can be read.`)
      return yield* fromLines(files.stream(path), path)
    }
    const stdio = yield* Stdio.Stdio
    return yield* fromLines(stdio.stdin, "stdin")
  }),
).pipe(
  Command.withDescription("Tell what provider failures are, one JSON line each; or explain one of them"),
  Command.withExamples([
    { command: "understudy classify failures.jsonl", description: "One line out for each line in" },
    {
      command:
        'understudy classify --provider openai --status 429 --header \'retry-after: 20\' --body \'{"error":{"code":"insufficient_quota"}}\'',
      description: "Explain one failure",
    },
  ]),
)
