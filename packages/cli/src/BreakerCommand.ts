/** `understudy breaker replay`: what a circuit breaker does with the trace of an incident. */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { CircuitBreaker } from "@understudy/core"
import { replay } from "./BreakerReplay.ts"
import { Case, NotJson, tracesOf } from "./BreakerTrace.ts"
import * as Output from "./Output.ts"

const decodeCase = Schema.decodeUnknownEffect(Case)
const decodeOptions = Schema.decodeUnknownEffect(Schema.fromJsonString(CircuitBreaker.Options))

const notMeant = (error: unknown) =>
  Output.userError(Output.plain(`--options: ${error instanceof Error ? error.message : String(error)}`))

/** One trace in, one line out; one that cannot be read is told on stderr, and gives false. */
const replayOne = (
  trace: unknown,
  number: number,
  from: string,
  options: CircuitBreaker.Options | undefined,
): Effect.Effect<boolean> =>
  Effect.gen(function* () {
    if (trace instanceof NotJson) {
      Output.note(`${Output.plain(from)}, line ${trace.line}: this is no JSON.`)
      return false
    }
    const read = yield* Effect.result(decodeCase(trace))
    if (read._tag === "Failure") {
      Output.note(Output.plain(`${from}, trace ${number}: ${read.failure.message}`))
      return false
    }
    Output.json(yield* replay(read.success, options))
    return true
  })

const replayAll = (text: string, from: string, options: CircuitBreaker.Options | undefined) =>
  Effect.gen(function* () {
    const traces = tracesOf(text)
    if (traces.length === 0) return yield* Output.userError(`${from}: there is no trace in it.`)
    const read = yield* Effect.forEach(traces, (trace, index) => replayOne(trace, index + 1, from, options))
    const unread = read.filter((one) => !one).length
    if (unread > 0) {
      return yield* Output.userError(`${from}: ${unread} ${unread === 1 ? "trace" : "traces"} could not be read.`)
    }
  })

const readFile = (path: string) =>
  Effect.gen(function* () {
    const files = yield* FileSystem.FileSystem
    return yield* Effect.mapError(files.readFileString(path), (error) =>
      Output.userError(`${path}: there is no such file that can be read.`, error),
    )
  })

const replayCommand = Command.make(
  "replay",
  {
    file: Argument.String("file").pipe(
      Argument.withDescription(
        "Traces as JSON: an object with cases, an array, or one trace a line, each with id, policy and steps. Default: stdin",
      ),
      Argument.optional,
    ),
    options: Flag.String("options").pipe(
      Flag.withMetavar("JSON"),
      Flag.withDescription("Play the traces against these options of CircuitBreaker instead of their own policies"),
      Flag.optional,
    ),
  },
  Effect.fnUntraced(function* ({ file, options }) {
    const considered = Option.isNone(options)
      ? undefined
      : yield* decodeOptions(options.value, { onExcessProperty: "error" }).pipe(
          Effect.mapError((error) => Output.userError(Output.plain(`--options: ${error.message}`))),
          Effect.tap((read) => Effect.try({ try: () => CircuitBreaker.rules(read), catch: notMeant })),
        )
    if (Option.isSome(file)) return yield* replayAll(yield* readFile(file.value), file.value, considered)
    const stdio = yield* Stdio.Stdio
    const text = yield* stdio.stdin.pipe(
      Stream.decodeText,
      Stream.mkString,
      Effect.mapError((error) => Output.userError("stdin: cannot be read.", error)),
    )
    return yield* replayAll(text, "stdin", considered)
  }),
).pipe(
  Command.withDescription("Play traces against a circuit breaker, and tell after each step what was observed"),
  Command.withExamples([
    { command: "understudy breaker replay incident.json", description: "One line out for each trace in" },
    {
      command: 'understudy breaker replay incident.json --options \'{"failures":3,"openFor":"30 seconds"}\'',
      description: "What another policy would have done",
    },
  ]),
)

/** The command. */
export const command = Command.make("breaker").pipe(
  Command.withDescription("Circuit breakers: what a policy would do"),
  Command.withSubcommands([replayCommand]),
)
