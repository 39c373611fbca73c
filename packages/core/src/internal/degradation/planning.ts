/** From a chain of rungs to what a ladder is built of. What cannot be meant is refused here, as the types refuse it. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Source } from "../../PolicyEvent.ts"
import { canonical } from "../cache/canonical.ts"
import { InvalidOptions } from "../options.ts"
import { type AnyProvider, fromEffect, isProvider } from "../provider.ts"
import type { Keeping } from "./callCache.ts"
import { isLanguageModel, ofRequests, ofValues } from "./faces.ts"
import type { Plan, Planned } from "./ladder.ts"
import {
  type Cache,
  type Fallback,
  type Model,
  type Primary,
  type Rung,
  rung,
  RungTypeId,
  type Simplified,
  type Stale,
  type Template,
  type Value,
} from "./rungs.ts"

/** A rung, whatever it holds. */
export type Listed =
  | Primary<unknown>
  | Cache<Value<unknown> | undefined>
  | Model<unknown>
  | Simplified<unknown, string | Template | undefined>
  | Stale<Keeping["scope"] | undefined, Value<unknown> | undefined>
  | Fallback<unknown, unknown>

/** Is it this rung? */
export const is =
  <const S extends Source>(name: S) =>
  (listed: Listed): listed is Extract<Listed, { readonly rung: S }> =>
    listed.rung === name

/** The rungs, if they are a chain that can be meant. */
export const listedIn = (where: string, rungs: ReadonlyArray<Rung>): ReadonlyArray<Listed> => {
  const seen = new Set<Source>()
  for (const [index, rung] of rungs.entries()) {
    if (rung?.[RungTypeId] !== RungTypeId) throw new InvalidOptions(`${where}[${index}]`, "expected a rung")
    if (seen.has(rung.rung)) throw new InvalidOptions(where, `expected each rung once, got \`${rung.rung}\` twice`)
    seen.add(rung.rung)
  }
  const names = rungs.map(({ rung }) => rung)
  if (names[0] !== "primary" && !(names[0] === "cache" && names[1] === "primary")) {
    throw new InvalidOptions(
      where,
      `expected the primary first, or a cache and then the primary, got ${names.join(", ")}`,
    )
  }
  if (seen.has("fallback") && names.at(-1) !== "fallback") {
    throw new InvalidOptions(where, "expected the fallback last: nothing below it is ever reached")
  }
  return rungs as ReadonlyArray<Listed>
}

/** The primary is what they are put around, whether it is listed or not. */
export const aroundIn = (where: string, rungs: ReadonlyArray<Rung>): ReadonlyArray<Listed> => {
  const listed = listedIn(
    where,
    rungs.some(({ rung }) => rung === "primary") ? rungs : [rung("primary", { asked: undefined }), ...rungs],
  )
  if (listed.find(is("primary"))?.asked !== undefined) {
    throw new InvalidOptions(where, "expected a primary without a provider: it is what the ladder is put around")
  }
  return listed
}

/** What is said of a ladder as a whole, in milliseconds. */
type Said = Pick<Plan, "name" | "everything" | "afterDeadline">

/** What a ladder with this primary is built of. */
export const planned = (where: string, asked: AnyProvider, listed: ReadonlyArray<Listed>, said: Said): Plan => ({
  ...said,
  primary: asked,
  rungs: listed.map((each) => plannedOf(where, asked, each)),
  keeping: keepingOf(where, asked, listed),
})

const plannedOf = (where: string, primary: AnyProvider, listed: Listed): Planned => {
  switch (listed.rung) {
    case "primary":
    case "cache":
    case "stale":
      return { rung: listed.rung }
    case "model":
      return { rung: "model", provider: providerIn(`${where}.model`, primary, listed.asked) }
    case "simplified": {
      const { asked, template } = listed
      const provider = asked === undefined ? undefined : providerIn(`${where}.simplified`, primary, asked)
      if ((template === undefined) === isLanguageModel(primary.face)) {
        throw new InvalidOptions(`${where}.simplified`, "expected a template for a language model, and none for others")
      }
      return { rung: "simplified", provider, template }
    }
    case "fallback":
      return { rung: "fallback", answer: listed.answer }
  }
}

/** Who is asked below the primary: a provider of its face, or, below an effect, an effect. */
const providerIn = (where: string, primary: AnyProvider, asked: unknown): AnyProvider => {
  const provider: AnyProvider | undefined = isProvider(asked)
    ? asked
    : Effect.isEffect(asked)
      ? fromEffect(asked as Effect.Effect<unknown, unknown, unknown>, { name: where.replace(/.*\./, "") })
      : undefined
  if (provider === undefined || provider.face.name !== primary.face.name) {
    throw new InvalidOptions(where, `expected what is asked as the primary is, a ${primary.face.name}`)
  }
  return provider
}

/** How answers are kept, if there is a rung that gives them. */
const keepingOf = (where: string, asked: AnyProvider, listed: ReadonlyArray<Listed>): Keeping | undefined => {
  const cached = listed.find(is("cache"))
  const old = listed.find(is("stale"))
  const scope = cached?.scope ?? old?.scope
  if (cached === undefined && old === undefined) return undefined
  if (scope === undefined)
    throw new InvalidOptions(`${where}.stale.scope`, "expected a scope, as there is no rung `cache`")
  if (old?.scope !== undefined && old.scope !== scope) {
    throw new InvalidOptions(`${where}.stale.scope`, "expected the scope of the rung `cache`, or none")
  }
  const value = cached?.of ?? old?.of
  if ((value === undefined) !== isLanguageModel(asked.face)) {
    throw new InvalidOptions(
      `${where}.cache`,
      "expected a key and a schema for an effect, and none for a language model",
    )
  }
  return {
    scope,
    freshFor: cached?.freshFor ?? 0,
    goodFor: old?.goodFor ?? 0,
    coalesce: cached?.coalesce ?? false,
    of: [asked.face.name, asked.name, cached?.version ?? old?.version ?? asked.model],
    ...(value === undefined ? ofRequests : ofValues(value)),
  }
}

/** How the values of an effect are kept, if it is said: by a key that others cannot share, and by a schema. */
export const valueIn = <A>(
  where: string,
  key: unknown,
  schema: Value<A>["schema"] | undefined,
): Value<A> | undefined => {
  if (schema === undefined && key === undefined) return undefined
  if (!Schema.isSchema(schema)) throw new InvalidOptions(where, "expected a schema of the values beside the key")
  if (key === undefined) throw new InvalidOptions(where, "expected a key of what is asked beside the schema")
  try {
    canonical(key)
  } catch {
    throw new InvalidOptions(`${where}.key`, "expected plain data: instances of classes cannot be told apart")
  }
  return { key, schema }
}

/** The name of an effect's ladder. Values of all that had none would be kept in one place. */
export const nameIn = (where: string, listed: ReadonlyArray<Listed>, name: string | undefined): string | undefined => {
  if ((name === undefined || name === "") && listed.some(({ rung }) => rung === "cache" || rung === "stale")) {
    throw new InvalidOptions(`${where}.name`, "expected a name: values are kept under it, beside their key")
  }
  return name
}
