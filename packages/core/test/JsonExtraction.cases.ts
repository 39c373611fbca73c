/** The cases that are kept with the package, in the format of the shared corpus, and a check for their small schemas. */
import { readFileSync } from "node:fs"
import type { JsonExtraction } from "@understudy/core"

export interface Case {
  readonly id: string
  readonly category: string
  readonly text: string
  readonly expect: unknown
  readonly expect_kind: "value" | "reject"
  readonly schema_hint: Shape | null
  readonly finishReason?: string
  readonly note?: string
}

/** As much of JSON Schema as the cases use. */
interface Shape {
  readonly type?: "object" | "array" | "string" | "integer" | "boolean"
  readonly properties?: Readonly<Record<string, Shape>>
  readonly required?: ReadonlyArray<string>
  readonly items?: Shape
  readonly additionalProperties?: false
}

export const cases: ReadonlyArray<Case> = readFileSync(
  new URL("./fixtures/json-extraction.jsonl", import.meta.url),
  "utf8",
)
  .split("\n")
  .filter((line) => line !== "")
  .map((line) => JSON.parse(line) as Case)

const isRecord = (json: unknown): json is Readonly<Record<string, unknown>> =>
  typeof json === "object" && json !== null && !Array.isArray(json)

const ofType = (json: unknown, type: Shape["type"]): boolean => {
  switch (type) {
    case undefined:
      return true
    case "object":
      return isRecord(json)
    case "array":
      return Array.isArray(json)
    case "integer":
      return Number.isInteger(json)
    default:
      return typeof json === type
  }
}

const fits = (json: unknown, shape: Shape): boolean =>
  ofType(json, shape.type) &&
  (!Array.isArray(json) || shape.items === undefined || json.every((item) => fits(item, shape.items!))) &&
  (!isRecord(json) ||
    ((shape.required ?? []).every((key) => Object.hasOwn(json, key)) &&
      Object.entries(json).every(([key, value]) => {
        const property = shape.properties?.[key]
        return property === undefined ? shape.additionalProperties !== false : fits(value, property)
      })))

/** The options that a case is extracted with. */
export const optionsOf = ({ finishReason, schema_hint: shape }: Case): JsonExtraction.Options => ({
  tier: "loss",
  ...(finishReason === undefined ? {} : { finishReason }),
  ...(shape === null
    ? {}
    : {
        check: (json: unknown) =>
          fits(json, shape) ? undefined : [{ path: [], expected: "a value of the shape of the case" }],
      }),
})
