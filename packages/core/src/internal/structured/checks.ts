/** Semantic checks: run in order on the decoded value, each with its own answer to failure. */
import * as Effect from "effect/Effect"
import type { Issue } from "../json/issues.ts"
import type { Fit, Shape } from "./shape.ts"

/** Which answer it is. */
export interface Asked {
  /** The first is 1. */
  readonly attempt: number
  /** Is it the last that is asked for? Then a check may be content with less. */
  readonly last: boolean
}

/** What a check has against a value: what it expected, and where. */
export type Problem = string | { readonly path?: ReadonlyArray<PropertyKey> | undefined; readonly expected: string }

/** Nothing, one problem, or several. */
export type Problems = Problem | ReadonlyArray<Problem> | undefined | void

/** Runs on a value: what is wrong with it. */
export type Run<A, E = never, R = never> = (value: A, asked: Asked) => Problems | Effect.Effect<Problems, E, R>

/** Makes another value of one that a check has something against. */
export type Fix<A, E = never, R = never> = (value: A, problems: ReadonlyArray<Issue>) => A | Effect.Effect<A, E, R>

/** A check of a decoded value, and what happens to one that it has something against. */
export interface Check<in A, out E = never, out R = never> {
  readonly name: string
  readonly run: Run<A, E, R>
  /** What happens to the value. Default `ask again`. */
  readonly otherwise?: "ask again" | "drop" | "accept" | undefined
}

/** A check that makes another value of one that it has something against. */
export interface FixingCheck<in out A, out E = never, out R = never> {
  readonly name: string
  readonly run: Run<A, E, R>
  readonly otherwise: Fix<A, E, R>
}

/** Either of them. */
export type AnyCheck<A, E = never, R = never> = Check<A, E, R> | FixingCheck<A, E, R>

/** A value that was accepted although a check had something against it. */
export interface Warning {
  readonly check: string
  readonly issues: ReadonlyArray<Issue>
}

/** What the checks made of a value. */
export interface Checked<out A> {
  readonly value: A
  /** The JSON of the value; nothing when a fix made another value of it. */
  readonly json: { readonly value: unknown } | undefined
  readonly warnings: ReadonlyArray<Warning>
  /** For which it is asked again. */
  readonly issues: ReadonlyArray<Issue>
}

const isEffect = (u: unknown): u is Effect.Effect<never, never, never> => Effect.isEffect(u)

const now = <A, E, R>(value: A | Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  isEffect(value) ? value : Effect.succeed(value as A)

const issuesOf = (problems: Problems): ReadonlyArray<Issue> =>
  (problems === undefined ? [] : Array.isArray(problems) ? problems : [problems]).map((problem: Problem) =>
    typeof problem === "string"
      ? { path: [], expected: problem }
      : { path: problem.path ?? [], expected: problem.expected },
  )

type Container = Record<PropertyKey, unknown> | Array<unknown>

const isContainer = (u: unknown): u is Container => typeof u === "object" && u !== null

/** Paths that are dropped together: later elements first, so that the places of the others stay. */
const inOrder = (paths: ReadonlyArray<ReadonlyArray<PropertyKey>>): ReadonlyArray<ReadonlyArray<PropertyKey>> =>
  [...paths].sort((a, b) => {
    for (let i = 0; i < Math.min(a.length, b.length); i++) {
      const x = a[i]
      const y = b[i]
      if (typeof x === "number" && typeof y === "number" && x !== y) return y - x
    }
    return b.length - a.length
  })

/** A copy of a JSON value without what is at these paths; nothing when one of them is the whole value, or leads nowhere. */
export const without = (
  json: unknown,
  paths: ReadonlyArray<ReadonlyArray<PropertyKey>>,
): { readonly value: unknown } | undefined => {
  const copy: unknown = structuredClone(json)
  const seen = new Set<string>()
  for (const path of inOrder(paths)) {
    const said = JSON.stringify(path)
    if (seen.has(said)) continue
    seen.add(said)
    const last = path.at(-1)
    if (last === undefined) return undefined
    let parent: unknown = copy
    for (const key of path.slice(0, -1)) {
      if (!isContainer(parent) || !Object.hasOwn(parent, key)) return undefined
      parent = Reflect.get(parent, key)
    }
    if (!isContainer(parent) || !Object.hasOwn(parent, last)) return undefined
    if (Array.isArray(parent)) parent.splice(Number(last), 1)
    else Reflect.deleteProperty(parent, last)
  }
  return { value: copy }
}

/** Runs the checks. Those whose value is to be asked again are gathered, so that the model hears of all at once. */
export const runAll = <A, E, R>(
  checks: ReadonlyArray<AnyCheck<A, E, R>>,
  value: A,
  json: unknown,
  shape: Shape<A>,
  asked: Asked,
): Effect.Effect<Checked<A>, E, R> =>
  Effect.gen(function* () {
    let current = value
    let source: { readonly value: unknown } | undefined = { value: json }
    const warnings: Array<Warning> = []
    const again: Array<Issue> = []
    for (const { name, otherwise = "ask again", run } of checks) {
      const issues = issuesOf(yield* now(run(current, asked)))
      if (issues.length === 0) continue
      if (otherwise === "accept") {
        warnings.push({ check: name, issues })
      } else if (otherwise === "ask again") {
        again.push(...issues)
      } else if (otherwise === "drop") {
        const rest: { readonly value: unknown } | undefined =
          source === undefined
            ? undefined
            : without(
                source.value,
                issues.map(({ path }) => path),
              )
        const fit: Fit<A> | undefined = rest === undefined ? undefined : shape(rest.value)
        if (fit?.fits === true) {
          current = fit.value
          source = { value: fit.json }
          warnings.push({ check: name, issues })
        } else again.push(...issues)
      } else {
        current = yield* now(otherwise(current, issues))
        source = undefined
        warnings.push({ check: name, issues })
      }
    }
    return { value: current, json: source, warnings, issues: again }
  })
