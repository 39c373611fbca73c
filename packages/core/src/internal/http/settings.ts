/** Settings and the table in use, where there are effects. */
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { FailureModes } from "../../FailureMode.ts"
import { type Answering, answering, type LogLine, type Settings } from "./answer.ts"

/** The settings in use. Set them with `HttpErrorResponse.layer`. */
export const CurrentSettings = Context.Reference<Settings>("@understudy/core/HttpErrorResponse", {
  defaultValue: () => ({}),
})

/** The settings in use with these over them, and the table in use with their overrides over it. */
export const answeringNow = (settings: Settings): Effect.Effect<Answering> =>
  Effect.gen(function* () {
    const current = yield* CurrentSettings
    const modes = yield* FailureModes
    // Overrides of both hold, the narrower ones first.
    const failureModes = { ...current.failureModes, ...settings.failureModes }
    return answering({ ...current, ...settings, failureModes }, modes)
  })

/** Writes the line to the log of Effect. */
export const write = ({ fields, level, message }: LogLine): Effect.Effect<void> =>
  Effect.logWithLevel(level)(message).pipe(Effect.annotateLogs(fields))

/** Tells the error reporters of Effect what is no failure of ours: it must not be lost because it is not quoted. */
export const report = (cause: Cause.Cause<unknown>): Effect.Effect<void> =>
  Effect.ignoreCause(Effect.withErrorReporting(Effect.failCause(cause)))
