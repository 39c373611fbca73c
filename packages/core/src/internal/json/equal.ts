/** Whether two JSON values are the same, without recursion: answers may be nested deeply. */
export const sameJson = (left: unknown, right: unknown): boolean => {
  const pending: Array<unknown> = [left, right]
  while (pending.length > 0) {
    const b = pending.pop()
    const a = pending.pop()
    if (Object.is(a, b)) continue
    if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) {
      // 0 and -0 are one number in JSON.
      if (a === 0 && b === 0) continue
      return false
    }
    if (Array.isArray(a)) {
      if (!Array.isArray(b) || a.length !== b.length) return false
      for (let i = 0; i < a.length; i++) pending.push(a[i], b[i])
      continue
    }
    if (Array.isArray(b)) return false
    const keys = Object.keys(a)
    if (keys.length !== Object.keys(b).length) return false
    for (const key of keys) {
      const own = Object.getOwnPropertyDescriptor(b, key)
      if (own === undefined) return false
      pending.push(Object.getOwnPropertyDescriptor(a, key)!.value, own.value)
    }
  }
  return true
}
