/** `understudy upstream`: the fault-injecting upstream alone. */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { Upstream } from "@understudy/testkit"
import * as Output from "./Output.ts"

const readScript = (path: string) =>
  Effect.gen(function* () {
    const files = yield* FileSystem.FileSystem
    const text = yield* files
      .readFileString(path)
      .pipe(Effect.mapError((error) => Output.userError(`${path}: cannot be read (${error.reason._tag}).`, error)))
    return yield* Upstream.parseScript(text).pipe(
      Effect.mapError((error) => Output.userError(`${path}: ${error.message}`, error)),
    )
  })

const describe = (record: Upstream.RequestRecord): string => {
  const step = record.step === undefined ? (record.rejected ?? "") : Upstream.stepName(record.step)
  const mode = record.streaming ? "stream" : "answer"
  const closed = record.closedBy === undefined ? "" : `, closed by the ${record.closedBy}`
  return `${record.id}  ${record.method} ${record.path}  ${record.model ?? "-"}  ${mode}  ${step}  ${record.status ?? "-"}${closed}`
}

/** The command. */
export const command = Command.make(
  "upstream",
  {
    port: Flag.Int("port").pipe(
      Flag.withMetavar("N"),
      Flag.withDescription("The port to listen on, at 127.0.0.1; 0 for a free one"),
      Flag.withDefault(0),
    ),
    script: Flag.String("script").pipe(
      Flag.withMetavar("FILE"),
      Flag.withDescription(
        "What to play, one step for each request (JSON). Without it every request gets a good answer",
      ),
      Flag.optional,
    ),
  },
  Effect.fnUntraced(function* ({ port, script }) {
    if (port < 0 || port > 65_535) {
      return yield* Output.userError(`--port: expected a number from 0 to 65535, got ${port}.`)
    }
    const steps = yield* Option.match(script, { onNone: () => Effect.succeed([]), onSome: readScript })
    return yield* Effect.scoped(
      Effect.gen(function* () {
        const upstream = yield* Upstream.make({
          port,
          script: steps,
          onEnd: (record) => Output.note(Output.plain(describe(record))),
        }).pipe(Effect.mapError((error) => Output.userError(error.message, error)))
        Output.line(`Listening at ${upstream.url}`)
        Output.line(`  OpenAI base URL:    ${upstream.openaiUrl}`)
        Output.line(`  Anthropic base URL: ${upstream.anthropicUrl}`)
        return yield* Effect.never
      }),
    )
  }),
).pipe(
  Command.withDescription("Run the fault-injecting upstream alone, speaking the OpenAI and the Anthropic protocol"),
  Command.withExamples([
    { command: "understudy upstream --port 9101 --script faults.json", description: "Play a script of faults" },
  ]),
)
