#!/usr/bin/env node
/** The `understudy` command. */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import * as Effect from "effect/Effect"
import * as Command from "effect/cli/Command"
import * as Ask from "./Ask.ts"
import * as Classify from "./Classify.ts"
import * as Demo from "./Demo.ts"
import * as UpstreamCommand from "./UpstreamCommand.ts"

// A reader that leaves early, such as `head`, is no reason to crash.
process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1))

const understudy = Command.make("understudy").pipe(
  Command.withDescription("Keeps LLM calls alive: typed failures, each with a strategy"),
  Command.withSubcommands([Ask.command, Demo.command, Classify.command, UpstreamCommand.command]),
)

understudy.pipe(
  Command.run({ version: "0.1.0" }),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain({ disableErrorReporting: true }),
)
