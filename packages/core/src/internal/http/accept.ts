/**
 * Content negotiation between plain JSON and problem details, by the `Accept`
 * header (RFC 9110, section 12.5.1).
 */

/** What is looked at of a header that anyone can send. */
const longest = 2048

interface Range {
  readonly type: string
  readonly q: number
}

/** A weight is at most three digits behind the point: what is none counts for nothing. */
const weight = (parameters: ReadonlyArray<string>): number => {
  for (const parameter of parameters) {
    const [name = "", value = ""] = parameter.split("=", 2)
    if (name.trim().toLowerCase() !== "q") continue
    return /^(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)$/.test(value.trim()) ? Number(value) : 0
  }
  return 1
}

const rangesOf = (accept: string): ReadonlyArray<Range> =>
  accept
    .slice(0, longest)
    .split(",")
    .map((range) => {
      const [type = "", ...parameters] = range.split(";")
      return { type: type.trim().toLowerCase(), q: weight(parameters) }
    })

/** The weight of a media type: that of the most specific range that holds it. */
const quality = (ranges: ReadonlyArray<Range>, type: string): number =>
  [type, `${type.slice(0, type.indexOf("/"))}/*`, "*/*"]
    .map((wanted) => ranges.find((range) => range.type === wanted)?.q)
    .find((q) => q !== undefined) ?? 0

const problem = "application/problem+json"

/**
 * Does a client ask for problem details? When it names them, and prefers
 * nothing to them; a wildcard alone asks for plain JSON, unless that is refused.
 */
export const prefersProblem = (accept: string | undefined): boolean => {
  if (accept === undefined || accept.trim() === "") return false
  const ranges = rangesOf(accept)
  const [asProblem, asJson] = [quality(ranges, problem), quality(ranges, "application/json")]
  return asProblem > asJson || (asProblem > 0 && asProblem === asJson && ranges.some(({ type }) => type === problem))
}
