/**
 * Canonical JSON: equal values have one text, whatever the order of their
 * fields, and values that differ have different ones. Of what cannot be told
 * apart by looking (instances of classes, functions, what is redacted) there is
 * none: two of them would share what is kept.
 */
import * as DateTime from "effect/DateTime"
import * as Base64 from "effect/encoding/Base64"

/** Deeper than this nothing is looked at. */
const maxDepth = 200

/** A value that has no canonical text: it is no data, is too deep, or refers to itself. */
export class NoText extends Error {
  constructor() {
    super("A value for a cache's key is no plain data, is too deep, or refers to itself.")
    this.name = "NoText"
  }
}

const write = (value: unknown, depth: number): string | undefined => {
  if (depth > maxDepth) throw new NoText()
  switch (typeof value) {
    case "string":
      return JSON.stringify(value)
    case "number":
      return Number.isFinite(value) ? JSON.stringify(value) : String(value)
    case "boolean":
      return value ? "true" : "false"
    case "bigint":
      return `${value}n`
    case "object":
      return value === null ? "null" : written(value, depth)
    case "undefined":
      return undefined
    default:
      throw new NoText()
  }
}

const texts = (values: Iterable<unknown>, depth: number): Array<string> => {
  const out: Array<string> = []
  for (const value of values) out.push(write(value, depth + 1) ?? "null")
  return out
}

/** What is no JSON has a name before it, so that no JSON has the same text. */
const named = (name: string, text: string): string => `${name}(${text})`

/** Is it made of fields alone? Objects of other realms are, too. */
const isPlain = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

const written = (value: object, depth: number): string => {
  if (Array.isArray(value)) return `[${texts(value, depth).join(",")}]`
  if (value instanceof Uint8Array) return named("bytes", Base64.encode(value))
  if (value instanceof ArrayBuffer) return named("bytes", Base64.encode(new Uint8Array(value)))
  if (value instanceof Set) return named("set", texts(value, depth).sort().join(","))
  if (value instanceof Map) return named("map", texts(value, depth).sort().join(","))
  if (value instanceof Date) return named("date", String(value.getTime()))
  if (value instanceof URL) return named("url", JSON.stringify(value.href))
  if (DateTime.isDateTime(value)) {
    return named("time", DateTime.isZoned(value) ? DateTime.formatIsoZoned(value) : DateTime.formatIso(value))
  }
  if (!isPlain(value)) throw new NoText()
  const out: Array<string> = []
  for (const [name, field] of Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))) {
    const text = write(field, depth + 1)
    if (text !== undefined) out.push(`${JSON.stringify(name)}:${text}`)
  }
  return `{${out.join(",")}}`
}

/**
 * The canonical text of a value: fields in the order of their names, without
 * those that are undefined. Besides JSON it knows big integers, all numbers,
 * bytes, sets, maps, dates and URLs. Throws `NoText` for everything else.
 */
export const canonical = (value: unknown): string => write(value, 0) ?? "null"
