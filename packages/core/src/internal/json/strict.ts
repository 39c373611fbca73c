/**
 * Where a strict JSON object or array ends, without building it.
 *
 * One pass with a stack of its own and no recursion. It stops at the first thing
 * that JSON does not allow, so many openers in prose cost little. Numbers,
 * words and escapes are looked at roughly: `JSON.parse` has the last word.
 *
 * No unit is read beyond the end of the text, and there are few places that read
 * one: both keep an engine's code for this loop as short as it can be.
 */
import { unitAt } from "./characters.ts"

/** How a scan ended: after the value, at a character that JSON does not allow, at the end of the text, or too deep. */
export type StrictEnd = "closed" | "broken" | "open" | "deep"

/** Where the last scan stopped; kept apart so that a scan allocates nothing. */
export interface StrictScan {
  end: StrictEnd
  at: number
}

// What may come next.
const value = 0
const firstItem = 1
const key = 2
const firstKey = 3
const colon = 4
const after = 5

/** Scans from an opening bracket. `at` is after the closing bracket, or where the scan stopped. */
export const scanStrict = (text: string, start: number, maxDepth: number, scan: StrictScan): void => {
  const n = text.length
  /** For each open bracket: is it an array? */
  const arrays: Array<boolean> = []
  let depth = 0
  let array = false
  let next = value
  let i = start
  for (; i < n; i++) {
    const c = unitAt(text, i)
    if (c === 34) {
      if (next > colon - 1) return stop(scan, "broken", i)
      next = next < key ? after : colon
      let d = 0
      for (i++; i < n; i++) {
        d = unitAt(text, i)
        if (d === 34) break
        if (d === 92) i++
        else if (d < 32) return stop(scan, "broken", i)
      }
    } else if (c === 44) {
      if (next !== after) return stop(scan, "broken", i)
      next = array ? value : key
    } else if (c === 58) {
      if (next !== colon) return stop(scan, "broken", i)
      next = value
    } else if (c === 32 || c === 10 || c === 13 || c === 9) {
      continue
    } else if (c === 123 || c === 91) {
      if (next > firstItem) return stop(scan, "broken", i)
      if (depth >= maxDepth) return stop(scan, "deep", i)
      array = c === 91
      arrays[depth++] = array
      next = array ? firstItem : firstKey
    } else if (c === 125 || c === 93) {
      if (c !== (array ? 93 : 125) || !(next === after || next === (array ? firstItem : firstKey))) {
        return stop(scan, "broken", i)
      }
      depth--
      if (depth === 0) return stop(scan, "closed", i + 1)
      array = arrays[depth - 1]!
      next = after
    } else {
      // A number or a word.
      if (next > firstItem || !isScalar(c)) return stop(scan, "broken", i)
      next = after
      while (i + 1 < n && isScalar(unitAt(text, i + 1))) i++
    }
  }
  stop(scan, "open", n)
}

/** A part of a number or a word. */
const isScalar = (c: number): boolean =>
  (c >= 48 && c <= 57) || (c >= 97 && c <= 122) || c === 46 || c === 45 || c === 43 || c === 69

const stop = (scan: StrictScan, end: StrictEnd, at: number): void => {
  scan.end = end
  scan.at = at
}
