/**
 * Where a strict JSON object or array ends, without building it.
 *
 * One pass with a stack of its own and no recursion. It stops at the first thing
 * that JSON does not allow, so many openers in prose cost little. Numbers,
 * words and escapes are looked at roughly: `JSON.parse` has the last word.
 */

/** How a scan ended: after the value, at a character that JSON does not allow, at the end of the text, or too deep. */
export type StrictEnd = "closed" | "broken" | "open" | "deep"

/** Where the last scan stopped; kept apart so that a scan allocates nothing. */
export interface StrictScan {
  end: StrictEnd
  at: number
}

/** Scans from an opening bracket. `at` is after the closing bracket, or where the scan stopped. */
export const scanStrict = (text: string, start: number, maxDepth: number, scan: StrictScan): void => {
  const n = text.length
  /** For each open bracket: is it an array? */
  const arrays: Array<boolean> = []
  let depth = 0
  let array = false
  let i = start
  let c = text.charCodeAt(i)
  value: for (;;) {
    // A value begins at `i`, with `c`.
    if (c === 34) {
      i = stringEnd(text, i)
      if (i < 0) return stop(scan, i === -1 ? "open" : "broken", n)
    } else if (c === 123 || c === 91) {
      if (depth >= maxDepth) return stop(scan, "deep", i)
      array = c === 91
      arrays[depth++] = array
      c = text.charCodeAt(++i)
      while (isSpace(c)) c = text.charCodeAt(++i)
      if (c !== (array ? 93 : 125)) {
        if (array) continue
        i = keyEnd(text, i, c)
        if (i < 0) return stop(scan, i === -1 ? "open" : "broken", n)
        c = text.charCodeAt(i)
        while (isSpace(c)) c = text.charCodeAt(++i)
        continue
      }
      // An empty one closes at once.
      i++
      depth--
      if (depth === 0) return stop(scan, "closed", i)
      array = arrays[depth - 1]!
    } else {
      const from = i
      while (isScalar(c)) c = text.charCodeAt(++i)
      if (i === from) return stop(scan, i >= n ? "open" : "broken", i)
    }
    // Behind a value.
    for (;;) {
      c = text.charCodeAt(i)
      while (isSpace(c)) c = text.charCodeAt(++i)
      if (c === 44) {
        c = text.charCodeAt(++i)
        while (isSpace(c)) c = text.charCodeAt(++i)
        if (!array) {
          i = keyEnd(text, i, c)
          if (i < 0) return stop(scan, i === -1 ? "open" : "broken", n)
          c = text.charCodeAt(i)
          while (isSpace(c)) c = text.charCodeAt(++i)
        }
        continue value
      }
      if (c !== (array ? 93 : 125)) return stop(scan, i >= n ? "open" : "broken", i)
      i++
      depth--
      if (depth === 0) return stop(scan, "closed", i)
      array = arrays[depth - 1]!
    }
  }
}

const isSpace = (c: number): boolean => c === 32 || c === 10 || c === 13 || c === 9

/** A part of a number or a word. */
const isScalar = (c: number): boolean =>
  (c >= 48 && c <= 57) || (c >= 97 && c <= 122) || c === 46 || c === 45 || c === 43 || c === 69

const stop = (scan: StrictScan, end: StrictEnd, at: number): void => {
  scan.end = end
  scan.at = at
}

/** After the closing quote; -1 when the text ends before it, -2 when JSON does not allow what is in it. */
const stringEnd = (text: string, quote: number): number => {
  for (let i = quote + 1; ; i++) {
    const c = text.charCodeAt(i)
    if (c === 34) return i + 1
    if (c === 92) i++
    else if (!(c >= 32)) return i >= text.length ? -1 : -2
  }
}

/** After the colon of a key; -1 and -2 as for a string. */
const keyEnd = (text: string, from: number, first: number): number => {
  if (first !== 34) return from >= text.length ? -1 : -2
  let i = stringEnd(text, from)
  if (i < 0) return i
  let c = text.charCodeAt(i)
  while (isSpace(c)) c = text.charCodeAt(++i)
  return c === 58 ? i + 1 : i >= text.length ? -1 : -2
}
