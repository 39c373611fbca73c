/** What extraction gives for a schema, and what is known of a value that still grows. */
import { type Result, Schema, type Stream } from "effect"
import { JsonExtraction } from "@understudy/core"
import { same } from "./same.ts"

type Failure = JsonExtraction.ExtractionFailure

// --- Whole values

const Order = Schema.Struct({
  id: Schema.Int,
  kind: Schema.Literals(["new", "used"]),
  lines: Schema.Array(Schema.Struct({ item: Schema.String })),
  placed: Schema.Date,
  note: Schema.optional(Schema.NullOr(Schema.String)),
})

const order = JsonExtraction.extract("", { schema: Order })
same<typeof order, Result.Result<JsonExtraction.Extraction<typeof Order.Type>, Failure>>(true)

const anything = JsonExtraction.extract("")
same<typeof anything, Result.Result<JsonExtraction.Extraction<unknown>, Failure>>(true)

const checked = JsonExtraction.extract("", { check: () => undefined, tier: "loss" })
same<typeof checked, typeof anything>(true)

class Person extends Schema.Class<Person>("Person")({ name: Schema.String }) {}
const person = JsonExtraction.extract("", { schema: Person })
same<typeof person, Result.Result<JsonExtraction.Extraction<Person>, Failure>>(true)

// @ts-expect-error: there is no such tier
JsonExtraction.extract("", { tier: "wild" })

declare const needy: Schema.Codec<string, string, "a service">
// @ts-expect-error: a schema that needs a service cannot be decoded at once
JsonExtraction.extract("", { schema: needy })

// --- Kinds of repairs are a closed union, each with its tier

same<keyof typeof JsonExtraction.tiers, JsonExtraction.RepairKind>(true)
same<JsonExtraction.Repair["tier"], "safe" | "guess" | "loss">(true)

// --- Values that grow

interface Encoded {
  readonly id: number
  readonly kind: "new" | "used"
  readonly lines: ReadonlyArray<{ readonly item: string }>
  readonly at: readonly [number, string]
  readonly placed: Date
  readonly note?: string | null | undefined
}

same<
  JsonExtraction.Partial<Encoded>,
  {
    readonly id?: number
    readonly kind?: string
    readonly lines?: ReadonlyArray<{ readonly item?: string }>
    readonly at?: readonly [number?, string?]
    readonly placed?: unknown
    readonly note?: string | null
  }
>(true)
same<JsonExtraction.Partial<unknown>, unknown>(true)
same<JsonExtraction.Partial<"a" | 1 | null>, string | 1 | null>(true)

const parser = JsonExtraction.parser({ schema: Order })
const { snapshot } = parser
same<(typeof snapshot)["value"], JsonExtraction.Partial<typeof Order.Encoded> | undefined>(true)
const id: number | undefined = snapshot.value?.id
const item: string | undefined = snapshot.value?.lines?.[0]?.item
void [id, item]
// @ts-expect-error: a value that grows is no value
const whole: typeof Order.Encoded | undefined = snapshot.value
void whole
const end = parser.end()
same<typeof end, typeof order>(true)

declare const text: Stream.Stream<string, "gone", "net">
const growing = text.pipe(JsonExtraction.partials({ schema: Order }))
same<
  typeof growing,
  Stream.Stream<JsonExtraction.Progress<typeof Order.Type, typeof Order.Encoded>, "gone" | Failure, "net">
>(true)
