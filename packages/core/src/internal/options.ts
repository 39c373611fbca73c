/** Options: durations at the door, and a clear error for what cannot be meant. */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Exit from "effect/Exit"
import * as Cause from "effect/Cause"

/**
 * A duration as people write it: `"10 seconds"`, a number of milliseconds, or a
 * `Duration`. Zero or more.
 */
export const DurationInput = Schema.declare<Duration.Input>(
  (u): u is Duration.Input =>
    !Number.isNaN(u) &&
    Option.exists(Duration.fromInput(u as Duration.Input), (duration) => Duration.toMillis(duration) >= 0),
  { expected: 'a duration such as "10 seconds" or "500 millis", zero or more' },
)

/** A whole number, one or more. */
export const Count = Schema.Int.check(Schema.isGreaterThan(0))

/** Options that cannot be meant. The message names the option and what was expected. */
export class InvalidOptions extends Error {
  readonly _tag = "InvalidOptions"
  constructor(where: string, problem: string) {
    super(`${where}: ${problem}`)
    this.name = "InvalidOptions"
  }
}

/** The options themselves, or `InvalidOptions` thrown: a mistake in the program, found when the policy is made. */
export const checked = <S extends Schema.Codec<unknown, unknown>>(
  where: string,
  schema: S,
  options: unknown,
): S["Type"] => {
  const exit = Schema.decodeUnknownExit(schema)(options, { onExcessProperty: "error", errors: "all" })
  if (Exit.isSuccess(exit)) return exit.value
  throw new InvalidOptions(where, Cause.prettyErrors(exit.cause)[0]?.message ?? "these options do not fit")
}

/** A duration in milliseconds. */
export const millis = (input: Duration.Input | undefined, fallback: Duration.Input): number =>
  Duration.toMillis(Duration.fromInputUnsafe(input ?? fallback))
