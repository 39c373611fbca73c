/** What a schema says of a JSON value. */
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { type Issue, issuesOf } from "../json/issues.ts"

/** It fits, and is decoded; or it does not, and these are the issues. */
export type Fit<A> =
  | {
      readonly fits: true
      readonly value: A
      /** What was decoded. */
      readonly json: unknown
    }
  | { readonly fits: false; readonly issues: ReadonlyArray<Issue> }

/** Judges JSON values. */
export type Shape<A> = (json: unknown) => Fit<A>

/** More issues than anyone reads, but not as many as an answer can hold. */
const maxIssues = 1_000

const decoding = <A>(schema: Schema.Top): ((json: unknown) => Exit.Exit<A, Schema.SchemaError>) =>
  // A request says of its schema only that it is one: what it decodes to, and with which services, is known above.
  Schema.decodeUnknownExit(schema as unknown as Schema.Codec<A, unknown>, { errors: "all" })

const remembered = (make: (schema: Schema.Top) => Shape<unknown>): ((schema: Schema.Top) => Shape<unknown>) => {
  const shapes = new WeakMap<Schema.Top, Shape<unknown>>()
  return (schema) => {
    const before = shapes.get(schema)
    if (before !== undefined) return before
    const shape = make(schema)
    shapes.set(schema, shape)
    return shape
  }
}

/** The judgement of the parameters of a tool, which are decoded as they are. */
export const shapeOf = remembered((schema) => judging(schema))

/** The judgement of an answer, which is decoded by the JSON side of the schema. */
export const jsonShapeOf = remembered((schema) => judging(Schema.toCodecJson(schema)))

/**
 * Judges by a schema. What cannot be decided here, because it takes time or
 * services, is judged by the encoded side of the schema.
 */
export const judging = <A>(schema: Schema.Top): Shape<A> => {
  const decode = decoding<A>(schema)
  let encoded: ((json: unknown) => Exit.Exit<A, Schema.SchemaError>) | undefined
  return (json) => {
    let exit = decode(json)
    let judge = schema
    if (Exit.isFailure(exit) && Cause.hasDies(exit.cause)) {
      judge = Schema.toEncoded(schema)
      encoded ??= decoding<A>(judge)
      exit = encoded(json)
    }
    if (Exit.isSuccess(exit)) return { fits: true, value: exit.value, json }
    const error = Option.getOrUndefined(Exit.findErrorOption(exit))
    return {
      fits: false,
      issues:
        error === undefined
          ? [{ path: [], expected: "a value that can be decoded" }]
          : issuesOf(judge, error, maxIssues),
    }
  }
}

type Container = Readonly<Record<PropertyKey, unknown>>

const isContainer = (u: unknown): u is Container => typeof u === "object" && u !== null

/** Is there a null at this path, in an object? */
const nullAt = (json: unknown, path: ReadonlyArray<PropertyKey>): boolean => {
  let value = json
  for (const [index, key] of path.entries()) {
    if (!isContainer(value) || !Object.hasOwn(value, key)) return false
    if (index === path.length - 1) return !Array.isArray(value) && value[key] === null
    value = value[key]
  }
  return false
}

/**
 * A judgement for which a null that does not fit is as good as a key that is not
 * there: many models write one where a field is optional. Where it is required,
 * the value does not fit either way.
 */
export const withoutNulls =
  <A>(shape: Shape<A>): Shape<A> =>
  (json) => {
    const fit = shape(json)
    if (fit.fits) return fit
    const nulls = fit.issues.map(({ path }) => path).filter((path) => nullAt(json, path))
    if (nulls.length === 0) return fit
    const copy: unknown = structuredClone(json)
    for (const path of nulls) {
      let parent: unknown = copy
      for (const key of path.slice(0, -1)) parent = isContainer(parent) ? parent[key] : undefined
      if (isContainer(parent)) Reflect.deleteProperty(parent, path.at(-1)!)
    }
    const again = shape(copy)
    return again.fits ? again : fit
  }
