/** Whether a JSON value fits what was asked for. */
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import { collect, type Issue, knownNames } from "./issues.ts"

/** A value that fits, what does not fit, or a value that is nested too deeply to be looked at. */
export type Fit<A> =
  | { readonly fits: true; readonly value: A }
  | { readonly fits: false; readonly tooDeep: false; readonly issues: ReadonlyArray<Issue>; readonly count: number }
  | { readonly fits: false; readonly tooDeep: true }

/** Tells whether a value fits; with all issues, or only as many as tell that it does not. */
export type Fitting<A> = (json: unknown, all: boolean) => Fit<A>

/** The issues that a failure keeps. */
export const maxIssues = 100

const tooDeep: Fit<never> = { fits: false, tooDeep: true }

/** A stack that overflowed: code that walks a value by recursion, such as a decoder, met one nested too deeply. */
const overflowed = (error: unknown): boolean =>
  error instanceof RangeError || (error instanceof Error && error.cause instanceof RangeError)

const guarded = <A>(fit: () => Fit<A>): Fit<A> => {
  try {
    return fit()
  } catch (error) {
    if (overflowed(error)) return tooDeep
    throw error
  }
}

const codecs = new WeakMap<
  object,
  (json: unknown, options: { readonly errors: "first" | "all" }) => Exit.Exit<unknown, Schema.SchemaError>
>()

const decoder = (schema: Schema.Codec<unknown, unknown, never, unknown>) => {
  const before = codecs.get(schema)
  if (before !== undefined) return before
  const decode = Schema.decodeUnknownExit(Schema.toCodecJson(schema))
  codecs.set(schema, decode)
  return decode
}

/** Decodes from the JSON side of a schema, at once. */
export const bySchema = <A>(schema: Schema.Codec<A, unknown, never, unknown>): Fitting<A> => {
  const decode = decoder(schema)
  return (json, all) =>
    guarded(() => {
      const exit = decode(json, { errors: all ? "all" : "first" })
      if (Exit.isSuccess(exit)) return { fits: true, value: exit.value as A }
      for (const reason of exit.cause.reasons) {
        if (Cause.isFailReason(reason) && SchemaIssue.isIssue(reason.error.issue)) {
          return { fits: false, tooDeep: false, ...collect(reason.error.issue, knownNames(schema.ast), maxIssues) }
        }
      }
      throw Cause.squash(exit.cause)
    })
}

/** Asks the caller. */
export const byCheck =
  (check: (json: unknown) => ReadonlyArray<Issue> | undefined): Fitting<unknown> =>
  (json) =>
    guarded(() => {
      const issues = check(json)
      if (issues === undefined) return { fits: true, value: json }
      return { fits: false, tooDeep: false, issues: issues.slice(0, maxIssues), count: issues.length }
    })

/** With nothing asked for, the root must be an object or an array. */
export const byRoot: Fitting<unknown> = (json) =>
  typeof json === "object" && json !== null
    ? { fits: true, value: json }
    : { fits: false, tooDeep: false, issues: [{ path: [], expected: "an object or an array" }], count: 1 }
