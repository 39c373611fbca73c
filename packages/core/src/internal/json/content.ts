/** What the content of a string tells: what was swallowed by it, and what does not belong to it. */
import { unitAt } from "./characters.ts"

/** A key with its quotes after the end of a string: what no text inside of a string looks like. */
export const swallowedKey = /["'”’]\s{0,9},\s{0,9}["'“‘][^"'“”‘’]{1,64}["'”’]\s{0,9}:/

/** A key without quotes and a number, a literal or a bracket after a comma. */
export const swallowedMember =
  /,\s{0,9}[A-Za-z_$][\w$-]{0,63}\s{0,9}:\s{0,9}(?:(?:-?\d[\d.]*|true|false|null|True|False|None)\s{0,9}(?:,|$)|[[{])/

/** Whether a string holds the end of something before it, or the beginning of something else: then its own end was taken for content. */
export const holdsForeignBrackets = (content: string): boolean => {
  const ends = /[\]}]\s{0,9},\s{0,9}"/.test(content)
  const begins = /\{\s{0,64}"[^"]{0,64}"\s{0,9}:/.test(content)
  if (!ends && !begins) return false
  let open = 0
  for (let i = 0; i < content.length; i++) {
    const c = unitAt(content, i)
    if (c === 123 || c === 91) open++
    else if ((c === 125 || c === 93) && --open < 0) return ends
  }
  return begins && open > 0
}

/** A string that was closed by a quote of another kind than it began with. */
export const withoutStrayQuote = (content: string): string => {
  const end = content.trimEnd()
  return /["'“”‘’`´]$/.test(end) && !/["'“”‘’`´]/.test(end.slice(0, -1)) ? end.slice(0, -1) : content
}

/** Without a comma or a line end that belongs to what follows a string, and not to it. */
export const withoutLooseEnd = (content: string): string => {
  const end = content.trimEnd()
  if (end.endsWith(",")) return end.slice(0, -1)
  return content.includes("\n", end.length) ? end : content
}

/** Without the first half of a character whose second half is missing. */
export const withoutHalf = (content: string): string => {
  const last = unitAt(content, content.length - 1)
  return last >= 0xd800 && last < 0xdc00 ? content.slice(0, -1) : content
}
