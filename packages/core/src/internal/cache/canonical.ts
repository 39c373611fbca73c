/** Canonical JSON: equal values have one text, whatever the order of their fields. */
import * as Base64 from "effect/encoding/Base64"

/** Deeper than this nothing is looked at. */
const maxDepth = 200

/** A value that has no canonical text: it is too deep, or refers to itself. */
export class NoText extends Error {
  constructor() {
    super("A value for a cache's key is too deep, or refers to itself.")
    this.name = "NoText"
  }
}

const write = (value: unknown, depth: number): string | undefined => {
  if (depth > maxDepth) throw new NoText()
  switch (typeof value) {
    case "string":
      return JSON.stringify(value)
    case "number":
      return Number.isFinite(value) ? JSON.stringify(value) : JSON.stringify(String(value))
    case "boolean":
      return value ? "true" : "false"
    case "bigint":
      return JSON.stringify(`${value}n`)
    case "object":
      return value === null ? "null" : written(value, depth)
    default:
      return undefined
  }
}

const texts = (values: Iterable<unknown>, depth: number): Array<string> => {
  const out: Array<string> = []
  for (const value of values) out.push(write(value, depth + 1) ?? "null")
  return out
}

const written = (value: object, depth: number): string | undefined => {
  if (value instanceof Uint8Array) return JSON.stringify(`bytes:${Base64.encode(value)}`)
  if (Array.isArray(value)) return `[${texts(value, depth).join(",")}]`
  if (value instanceof Set || value instanceof Map) return `[${texts(value, depth).sort().join(",")}]`
  if ("toJSON" in value && typeof value.toJSON === "function") return write(value.toJSON(), depth + 1)
  const out: Array<string> = []
  for (const [name, field] of Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))) {
    const text = write(field, depth + 1)
    if (text !== undefined) out.push(`${JSON.stringify(name)}:${text}`)
  }
  return `{${out.join(",")}}`
}

/**
 * The canonical text of a value: fields in the order of their names, without
 * those that are undefined; bytes, big integers and what has a JSON form of its
 * own as text. Throws `NoText`.
 */
export const canonical = (value: unknown): string => write(value, 0) ?? "null"
