/** The `understudy` command: its subcommands, and how it speaks. */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as CliOutput from "effect/cli/CliOutput"
import * as Command from "effect/cli/Command"
import * as Ask from "./Ask.ts"
import * as BreakerCommand from "./BreakerCommand.ts"
import * as Classify from "./Classify.ts"
import * as Demo from "./Demo.ts"
import * as Extract from "./Extract.ts"
import * as StatusCommand from "./StatusCommand.ts"
import * as UpstreamCommand from "./UpstreamCommand.ts"

// A reader that leaves early, such as `head`, is no reason to crash, nor to lose what goes to the other.
for (const output of [process.stdout, process.stderr]) {
  output.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") process.exit(1)
  })
}

// Help that nobody asked for belongs with its error, not among the data.
const presenter: CliOutput.Presenter = {
  present: (event) =>
    event._tag === "InvalidInvocation"
      ? Effect.flatMap(Console.Console, (console) =>
          Effect.provideService(CliOutput.defaultPresenter.present(event), Console.Console, {
            ...console,
            log: console.error.bind(console),
          }),
        )
      : CliOutput.defaultPresenter.present(event),
}

const understudy = Command.make("understudy").pipe(
  Command.withDescription("Keeps LLM calls alive: typed failures, each with a strategy"),
  Command.withSubcommands([
    Ask.command,
    Demo.command,
    Classify.command,
    Extract.command,
    BreakerCommand.command,
    StatusCommand.command,
    UpstreamCommand.command,
  ]),
)

understudy.pipe(
  Command.run({ version: "0.1.0" }),
  Effect.provide([NodeServices.layer, CliOutput.layerPresenter(presenter)]),
  NodeRuntime.runMain(),
)
