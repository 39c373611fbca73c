/** `understudy ask`: one question, asked through all candidates. */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { NodeHttpClient } from "@effect/platform-node"
import { LanguageModelFace, type LlmError, PolicyEvent, type Provider, Understudy } from "@understudy/core"
import { ProviderConfig } from "@understudy/providers"
import * as Output from "./Output.ts"
import * as Story from "./Story.ts"

/** How a question is asked and told. */
export interface AskOptions {
  readonly stream: boolean
  readonly json: boolean
  readonly observer: PolicyEvent.Observer
}

type Model<R> = Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.LlmError, R>

/** Asks one question: the answer goes to stdout, unless events do. */
export const ask = <R>(
  model: Model<R>,
  prompt: string,
  options: AskOptions,
): Effect.Effect<void, LlmError.LlmError, R> => {
  const request = LanguageModelFace.request(prompt)
  const say = (text: string) => {
    if (!options.json) Output.text(Output.plain(text))
  }
  const asked = options.stream
    ? Stream.runForEach(model.stream(request), (part) => Effect.sync(() => say(LanguageModelFace.partText(part))))
    : Effect.map(model.generate(request), (answer) => say(LanguageModelFace.text(answer)))
  return asked.pipe(
    Effect.tap(() => Effect.sync(() => say("\n"))),
    PolicyEvent.observe(options.observer),
  )
}

const readConfig = (path: string) =>
  Effect.gen(function* () {
    const files = yield* FileSystem.FileSystem
    const text = yield* files
      .readFileString(path)
      .pipe(Effect.mapError((error) => Output.userError(`${path}: cannot be read (${error.reason._tag}).`, error)))
    return yield* ProviderConfig.fromJson(text, path).pipe(
      Effect.flatMap((config) => ProviderConfig.resolve(config, path)),
      Effect.map((options) => Understudy.make(options)),
      Effect.mapError((error) => Output.userError(error.message, error)),
    )
  })

const fromEnvironment = ProviderConfig.fromEnvironment.pipe(
  Effect.map((options) => Understudy.make(options)),
  Effect.mapError((error) => Output.userError(error.message, error)),
)

/** The command. */
export const command = Command.make(
  "ask",
  {
    prompt: Argument.String("prompt").pipe(Argument.withDescription("The question")),
    config: Flag.String("config").pipe(
      Flag.withAlias("c"),
      Flag.withMetavar("FILE"),
      Flag.withDescription(
        "The candidates and their policies (understudy.json). Without it: OPENAI_API_KEY, ANTHROPIC_API_KEY and TOGETHER_API_KEY of the environment.",
      ),
      Flag.optional,
    ),
    stream: Flag.Boolean("stream").pipe(Flag.withDescription("Print the answer as it comes"), Flag.withDefault(false)),
    json: Flag.Boolean("json").pipe(
      Flag.withDescription(
        "Print the policy events on stdout, one JSON object a line, instead of the answer and the story",
      ),
      Flag.withDefault(false),
    ),
  },
  Effect.fnUntraced(function* ({ config, json, prompt, stream }) {
    const model = yield* Option.match(config, { onNone: () => fromEnvironment, onSome: readConfig })
    yield* ask(model, prompt, { stream, json, observer: json ? Story.jsonLines : Story.teller() }).pipe(
      Effect.provide([Understudy.layer, NodeHttpClient.layerUndici]),
      Effect.mapError((failure) => Output.userError(Story.explainCall(failure).join("\n"), failure)),
    )
  }),
).pipe(
  Command.withDescription("Ask a question through all candidates; the answer on stdout, the story on stderr"),
  Command.withExamples([
    { command: 'understudy ask "Who wrote Dune?"', description: "Ask the providers whose keys are in the environment" },
    { command: 'understudy ask --config understudy.json --stream "Tell me a story"', description: "Stream an answer" },
  ]),
)
