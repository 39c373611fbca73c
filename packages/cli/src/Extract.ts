/** `understudy extract`: the JSON values in answers, with what was repaired; or why there is none. */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { JsonExtraction } from "@understudy/core"
import * as JsonSchemaCheck from "./JsonSchemaCheck.ts"
import * as Output from "./Output.ts"

/** One answer of a model. Fields besides these are ignored. */
const Answer = Schema.Struct({
  id: Schema.optionalKey(Schema.NullOr(Schema.Union([Schema.String, Schema.Finite]))),
  text: Schema.String,
  /** A JSON Schema, or nothing: then the root must be an object or an array. */
  schema_hint: Schema.optionalKey(Schema.Json),
  finishReason: Schema.optionalKey(Schema.NullOr(Schema.String)),
})

type Answer = typeof Answer.Type

const decodeAnswer = Schema.decodeUnknownEffect(Schema.fromJsonString(Answer))

const extract = ({ finishReason, text }: Answer, tier: JsonExtraction.Tier, check: JsonSchemaCheck.Check | undefined) =>
  JsonExtraction.extract(text, {
    tier,
    ...(check === undefined ? {} : { check }),
    ...(finishReason === undefined || finishReason === null ? {} : { finishReason }),
  })

/** One line in, one object out; a line that cannot be used is told on stderr, and gives false. */
const extractLine = (
  line: string,
  number: number,
  from: string,
  tier: JsonExtraction.Tier,
  schemas: JsonSchemaCheck.Schemas,
): Effect.Effect<boolean> =>
  Effect.gen(function* () {
    const read = yield* Effect.result(decodeAnswer(line))
    if (Result.isFailure(read)) {
      Output.note(Output.plain(`${from}, line ${number}: ${read.failure.message}`))
      return false
    }
    const answer = read.success
    const id = answer.id ?? null
    const check = schemas(answer.schema_hint ?? null)
    if (Result.isFailure(check)) {
      Output.note(Output.plain(`${from}, line ${number}: schema_hint: ${check.failure}`))
      Output.json({ id, ok: false, cause: "invalid schema" })
      return false
    }
    const tried = Result.try({
      try: () => extract(answer, tier, check.success),
      catch: (error) => {
        if (error instanceof JsonSchemaCheck.PatternTooSlow) return error
        throw error
      },
    })
    if (Result.isFailure(tried)) {
      Output.note(Output.plain(`${from}, line ${number}: schema_hint: ${tried.failure.message}`))
      Output.json({ id, ok: false, cause: "invalid schema" })
      return false
    }
    const found = tried.success
    if (Result.isFailure(found)) {
      Output.json({ id, ok: false, cause: found.failure.cause })
    } else {
      const { complete, json, repairs } = found.success
      if (!JsonSchemaCheck.finite(json)) {
        Output.json({ id, ok: false, cause: "unparseable" })
        return true
      }
      Output.json({ id, ok: true, value: json, repairs, complete })
    }
    return true
  })

const fromLines = <E>(bytes: Stream.Stream<Uint8Array, E>, from: string, tier: JsonExtraction.Tier) =>
  Effect.suspend(() => {
    const schemas = JsonSchemaCheck.make()
    return bytes.pipe(
      Stream.decodeText,
      Stream.splitLines,
      Stream.zipWithIndex,
      Stream.mapEffect(([line, index]) =>
        line.trim() === "" ? Effect.succeed(true) : extractLine(line, index + 1, from, tier, schemas),
      ),
      Stream.runFold(
        () => 0,
        (unused, used) => (used ? unused : unused + 1),
      ),
    )
  }).pipe(
    Effect.mapError((error) => Output.userError(`${from}: cannot be read.`, error)),
    Effect.flatMap((unused) =>
      unused === 0
        ? Effect.void
        : Effect.fail(Output.userError(`${from}: ${unused} ${unused === 1 ? "line" : "lines"} could not be used.`)),
    ),
  )

/** The command. */
export const command = Command.make(
  "extract",
  {
    file: Argument.String("file").pipe(
      Argument.withDescription(
        "Answers, one JSON object a line: id, text, schema_hint (a JSON Schema, or null), finishReason. Default: stdin",
      ),
      Argument.optional,
    ),
    tier: Flag.Literals("tier", ["safe", "guess", "loss"]).pipe(
      Flag.withDescription(
        "How far to repair: another spelling (safe), one likely reading (guess), or what is cut off (loss)",
      ),
      Flag.withDefault("loss"),
    ),
  },
  Effect.fnUntraced(function* ({ file, tier }) {
    if (Option.isNone(file)) {
      const stdio = yield* Stdio.Stdio
      return yield* fromLines(stdio.stdin, "stdin", tier)
    }
    const path = file.value
    const files = yield* FileSystem.FileSystem
    const exists = yield* files.exists(path).pipe(Effect.orElseSucceed(() => false))
    if (!exists) return yield* Output.userError(`${path}: there is no such file that can be read.`)
    return yield* fromLines(files.stream(path), path, tier)
  }),
).pipe(
  Command.withDescription("Find the JSON values in answers, repair them, and say how, one JSON line each"),
  Command.withExamples([
    { command: "understudy extract answers.jsonl", description: "One line out for each line in" },
    {
      command: "understudy extract --tier safe < answers.jsonl",
      description: "Only what is another spelling of the same value",
    },
  ]),
)
