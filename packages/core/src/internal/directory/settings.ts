/** What is set for a candidate: declared with it, and, over that, set while the program runs. */
import * as Schema from "effect/Schema"
import { Price } from "../events/price.ts"
import { Count } from "../options.ts"

/** What may be set for a candidate, and changed while the program runs. */
export const Settings = Schema.Struct({
  /** Lower is asked first; equal ones in the `order` of the composition. Default 0. */
  priority: Schema.optional(Schema.Finite),
  /** A disabled candidate is not asked. Default true. */
  enabled: Schema.optional(Schema.Boolean),
  /** How many tokens prompt and answer may have together. Default: not known. */
  contextWindow: Schema.optional(Count),
  /** How often it is asked first, beside those of the same priority, where the order is `weight`; 0 is last. Default 1. */
  weight: Schema.optional(Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))),
  /** What a million tokens cost, for the order `cost`. Default: not known. */
  price: Schema.optional(Price),
  /** Words of one's own, by which a call may choose: `Call.requireTags`. Default none. */
  tags: Schema.optional(Schema.Array(Schema.NonEmptyString)),
})

/** What may be set for a candidate, and changed while the program runs. */
export interface Settings extends Schema.Schema.Type<typeof Settings> {}

/** The name of a setting. */
export type Field = keyof Settings

/** The names of all settings. */
export const fields: ReadonlyArray<Field> = ["priority", "enabled", "contextWindow", "weight", "price", "tags"]

/** All settings of a candidate, with those that hold where nothing is said. */
export interface Effective {
  readonly priority: number
  readonly enabled: boolean
  readonly contextWindow: number | undefined
  readonly weight: number
  readonly price: Price | undefined
  readonly tags: ReadonlyArray<string>
}

/** What holds: what was set wins over what was declared, field by field. */
export const effective = (declared: Settings, overrides: Settings = {}): Effective => ({
  priority: overrides.priority ?? declared.priority ?? 0,
  enabled: overrides.enabled ?? declared.enabled ?? true,
  contextWindow: overrides.contextWindow ?? declared.contextWindow,
  weight: overrides.weight ?? declared.weight ?? 1,
  price: overrides.price ?? declared.price,
  tags: overrides.tags ?? declared.tags ?? [],
})

/** The settings among some fields: what is not set is left out. */
export const settingsOf = (from: Settings): Settings =>
  Object.fromEntries(fields.flatMap((field) => (from[field] === undefined ? [] : [[field, from[field]]])))

/** The same value? Settings are data, and their fields come in one order. */
const same = (a: unknown, b: unknown): boolean => a === b || JSON.stringify(a) === JSON.stringify(b)

/** The fields in which two differ. */
export const differing = (a: Effective | Settings, b: Effective | Settings): ReadonlyArray<Field> =>
  fields.filter((field) => !same(a[field], b[field]))

/** Some settings for a person: `enabled: false, priority: 2`. */
export const worded = (settings: Effective, among: ReadonlyArray<Field>): string =>
  among.map((field) => `${field}: ${wordOf(settings[field])}`).join(", ")

const wordOf = (value: Effective[Field]): string => {
  if (value === undefined) return "not known"
  if (typeof value !== "object") return String(value)
  return "input" in value ? `${value.input} and ${value.output}` : value.length === 0 ? "none" : value.join(" ")
}
