/** JSON from the wire, read leniently: what has not the form that is needed is as if it were not there. */

/** A JSON object whose fields are not known. */
export interface Obj {
  readonly [key: string]: unknown
}

/** Is it an object, and no array? */
export const isObject = (u: unknown): u is Obj => typeof u === "object" && u !== null && !Array.isArray(u)

/** An object, or an empty one. */
export const object = (u: unknown): Obj => (isObject(u) ? u : {})

/** A text that is not empty. */
export const text = (u: unknown): string | undefined => (typeof u === "string" && u !== "" ? u : undefined)

/** A list, or an empty one. */
export const list = (u: unknown): ReadonlyArray<unknown> => (Array.isArray(u) ? u : [])

/** A whole number, zero or more. */
export const count = (u: unknown): number | undefined =>
  typeof u === "number" && Number.isSafeInteger(u) && u >= 0 ? u : undefined

/** Is something said: not absent, null, false, or empty? */
export const isSet = (u: unknown): boolean => u !== undefined && u !== null && u !== false && u !== ""

/** The value of a text of JSON, or `undefined` when it is none. */
export const parse = (json: string): unknown => {
  try {
    return JSON.parse(json)
  } catch {
    return undefined
  }
}

/** The fields that are there, so that an optional one is absent and not `undefined`. */
export const present = <A extends object>(fields: A): { [K in keyof A]: Exclude<A[K], undefined> } =>
  // The type says less than the value: keys whose value is undefined are gone.
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof A]: Exclude<A[K], undefined>
  }
