/**
 * A forgiving reader of values in text: JSON that was cut off, Python's
 * `repr` of a dict, and either of them in the middle of a sentence.
 *
 * `JSON.parse` is asked first by the callers; this reads what it rejects. It
 * runs once over the text, never goes back, never throws, and gives what it
 * had when the text ended.
 */

/** The deepest nesting that is read; deeper values end the reading. */
const maxDepth = 32

/** A value, and the index after it. */
export interface Read {
  readonly value: unknown
  readonly end: number
}

const escapes: Readonly<Record<string, string>> = { n: "\n", t: "\t", r: "\r", b: "\b", f: "\f" }

const words: Readonly<Record<string, unknown>> = {
  null: null,
  None: null,
  true: true,
  True: true,
  false: false,
  False: false,
}

const number = /^-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?$/

/** Reads the value that starts at `from`. */
export const read = (text: string, from = 0): Read => {
  let at = from

  const skip = (): void => {
    while (at < text.length && (text.charCodeAt(at) <= 32 || text[at] === ",")) at++
  }

  const quoted = (quote: string): string => {
    let out = ""
    at++
    let start = at
    while (at < text.length) {
      const c = text[at]
      if (c === quote) {
        out += text.slice(start, at)
        at++
        return out
      }
      if (c !== "\\") {
        at++
        continue
      }
      out += text.slice(start, at)
      const next = text[at + 1] ?? ""
      const hex = next === "u" ? text.slice(at + 2, at + 6) : ""
      if (/^[0-9a-fA-F]{4}$/.test(hex)) {
        out += String.fromCharCode(Number.parseInt(hex, 16))
        at += 6
      } else {
        out += escapes[next] ?? next
        at += 2
      }
      start = at
    }
    return out + text.slice(start, at)
  }

  const bare = (): unknown => {
    const start = at
    while (at < text.length && !",:{}[]\"'".includes(text.charAt(at))) at++
    if (at === start) at++
    const word = text.slice(start, at).trim()
    if (Object.hasOwn(words, word)) return words[word]
    return number.test(word) ? Number(word) : word
  }

  const value = (depth: number): unknown => {
    if (depth > maxDepth) {
      at = text.length
      return undefined
    }
    skip()
    const c = text[at]
    if (c === "{") return object(depth)
    if (c === "[") return array(depth)
    if (c === '"' || c === "'") return quoted(c)
    return bare()
  }

  const object = (depth: number): Record<string, unknown> => {
    const entries: Array<[string, unknown]> = []
    at++
    for (skip(); at < text.length; skip()) {
      const c = text[at]
      if (c === "}") {
        at++
        break
      }
      const key = c === '"' || c === "'" ? quoted(c) : String(bare())
      skip()
      if (text[at] !== ":") continue
      at++
      entries.push([key, value(depth + 1)])
    }
    return Object.fromEntries(entries)
  }

  const array = (depth: number): Array<unknown> => {
    const items: Array<unknown> = []
    at++
    for (skip(); at < text.length; skip()) {
      if (text[at] === "]") {
        at++
        break
      }
      items.push(value(depth + 1))
    }
    return items
  }

  return { value: value(0), end: at }
}
