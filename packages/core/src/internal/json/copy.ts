/** A copy of a JSON value, without recursion: answers may be nested deeply. */
export const copyJson = <A>(json: A): A => {
  const out: { root: unknown } = { root: undefined }
  const pending: Array<readonly [into: object, key: PropertyKey, value: unknown]> = [[out, "root", json]]
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const [into, key, value] = next
    if (typeof value !== "object" || value === null) {
      set(into, key, value)
      continue
    }
    const container: object = Array.isArray(value) ? Array.from({ length: value.length }) : {}
    set(into, key, container)
    const keys = Object.keys(value)
    // The properties are made in order, and filled later.
    for (const name of keys) set(container, name, undefined)
    for (const name of keys) pending.push([container, name, Object.getOwnPropertyDescriptor(value, name)!.value])
  }
  return out.root as A
}

const set = (object: object, key: PropertyKey, value: unknown): void => {
  Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true })
}
