/** From the candidates of a text to one answer, or to why there is none. */
import * as Predicate from "effect/Predicate"
import { unitAt } from "./characters.ts"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { Count } from "../options.ts"
import { sameJson } from "./equal.ts"
import type { Fit, Fitting } from "./fit.ts"
import type { Issue } from "./issues.ts"
import { type Repair, type Tier, within } from "./repair.ts"
import { type Candidate, type Found, type Limits as ScanLimits, scan, type Scanned } from "./scan.ts"
import type { Path } from "./tree.ts"
import { gathered, loneValue, stringedValue, unquotedLines, wrappedValue } from "./unbracketed.ts"

/** Limits of one extraction. */
export interface Limits extends ScanLimits {
  readonly maxBytes: number
}

/** The limits where nothing else is said. */
export const defaultLimits: Limits = {
  maxBytes: 8 * 1024 * 1024,
  maxDepth: 1000,
  maxCandidates: 1000,
  maxWork: 100_000_000,
}

/** The limits as options, judged at the door. */
export const LimitsInput = Schema.Struct({
  maxBytes: Schema.optional(Count),
  maxDepth: Schema.optional(Count),
  maxCandidates: Schema.optional(Count),
  maxWork: Schema.optional(Count),
})

/** What was asked for. */
export interface Demand<out A> {
  readonly fit: Fitting<A>
  /** Whether there is a schema or a check, or just any object or array will do. */
  readonly constrained: boolean
  readonly finishReason: string | undefined
  readonly tier: Tier
  readonly rivals: "latest" | "first" | "refuse"
  readonly limits: Limits
}

/** Another candidate that would have done. */
export interface Rival {
  readonly found: Found
  readonly repairs: ReadonlyArray<Repair>
  readonly json: unknown
}

/** A value, and how it came about. */
export interface Extraction<out A> {
  /** What was asked for: decoded by the schema, or the JSON value itself. */
  readonly value: A
  /** The JSON value before decoding. */
  readonly json: unknown
  readonly found: Found
  readonly repairs: ReadonlyArray<Repair>
  /** Other values in the text that would have done as well. */
  readonly rivals: ReadonlyArray<Rival>
  /** Whether nothing of it was lost. */
  readonly complete: boolean
  /** Paths of the nodes that were cut off; those around them are not complete either. */
  readonly incomplete: ReadonlyArray<Path>
}

/** Why there is no answer. */
export interface Failure {
  readonly cause: "nothing found" | "truncated" | "unparseable" | "schema mismatch" | "ambiguous" | "too large"
  readonly position?: number
  readonly issues?: ReadonlyArray<Issue>
  readonly issueCount?: number
  readonly rivals?: number
  readonly limit?: keyof Limits
  readonly tier?: Tier
}

/** The outcome, and how many units were looked at for it. */
export interface Outcome<out A> {
  readonly result: Result.Result<Extraction<A>, Failure>
  readonly work: number
}

/** Whether the finish reason says that the model was done (`true`) or cut off (`false`), if it says either. */
const finishedBy = (reason: string | undefined): boolean | undefined =>
  reason === "length" ? false : reason === "stop" || reason === "tool-calls" ? true : undefined

/** Finds, chooses, and tells why. */
export const run = <A>(answer: string, demand: Demand<A>): Outcome<A> => {
  const { limits } = demand
  if (bytesAreMore(answer, limits.maxBytes)) {
    return { result: Result.fail({ cause: "too large", limit: "maxBytes" }), work: 0 }
  }
  const text = unquotedLines(answer)
  const finished = finishedBy(demand.finishReason)
  const scanned = candidatesIn(text, finished, demand)
  const { passed, work } = scanned
  if (passed !== undefined) return { result: Result.fail({ cause: "too large", ...passed }), work }
  return { result: choose(text, scanned, finished, demand), work }
}

const candidatesIn = <A>(text: string, finished: boolean | undefined, demand: Demand<A>): Scanned => {
  const lone = loneValue(text)
  if (lone !== undefined) return { candidates: [lone], brokenAt: undefined, passed: undefined, work: text.length }
  const scanned = scan(text, finished, demand.limits)
  if (scanned.candidates.length > 0 || !demand.constrained) return scanned
  const wrapped = wrappedValue(text)
  return wrapped === undefined ? scanned : { ...scanned, candidates: [wrapped] }
}

interface Fitted<A> {
  readonly candidate: Candidate
  readonly value: A
}

const choose = <A>(
  text: string,
  { brokenAt, candidates }: Scanned,
  finished: boolean | undefined,
  demand: Demand<A>,
): Result.Result<Extraction<A>, Failure> => {
  const { constrained, fit, tier } = demand
  const open = candidates.findLast(({ found, strong }) => found.how === "open" && strong)
  // An answer that was cut off is the open span at its end, not an example before it.
  const eligible = finished === false && open !== undefined ? [open] : candidates
  const allowed = eligible.filter(
    ({ weight: [loss, guess] }) => (loss === 0 || within("loss", tier)) && (guess === 0 || within("guess", tier)),
  )
  const fitting: Array<Fitted<A>> = []
  let tooDeep = false
  const consider = (candidate: Candidate): void => {
    const judged = fit(candidate.json, false)
    if (judged.fits) fitting.push({ candidate, value: judged.value })
    else if (judged.tooDeep) tooDeep = true
  }
  for (const candidate of allowed) consider(candidate)
  if (fitting.length === 0 && constrained && within("guess", tier)) {
    const list = gathered(allowed, text)
    if (list !== undefined) consider(list)
  }
  if (fitting.length === 0 && within("guess", tier) && candidates.length === 0) {
    const stringed = stringedValue(text)
    if (stringed !== undefined) consider(stringed)
  }
  const strong = fitting.filter(({ candidate }) => candidate.strong)
  const pool = strong.length > 0 || !constrained ? strong : fitting
  const best = bestOf(pool, ({ candidate }) => candidate, demand)
  if (best === undefined) {
    if (tooDeep) return Result.fail({ cause: "too large", limit: "maxDepth" })
    return Result.fail(whyNone({ allowed, brokenAt, demand, eligible, finished, open, text }))
  }
  const { found, incomplete, json, repairs, weight } = best.candidate
  const rivals = pool.flatMap(({ candidate: other }): ReadonlyArray<Rival> =>
    other === best.candidate || sameJson(other.json, json)
      ? []
      : [{ found: other.found, repairs: other.repairs, json: other.json }],
  )
  if (rivals.length > 0 && demand.rivals === "refuse") {
    return Result.fail({ cause: "ambiguous", position: found.start, rivals: rivals.length })
  }
  return Result.succeed({ value: best.value, json, found, repairs, rivals, complete: weight[0] === 0, incomplete })
}

const bestOf = <A, B>(all: ReadonlyArray<B>, candidateOf: (b: B) => Candidate, demand: Demand<A>): B | undefined => {
  let best = all[0]
  for (const next of all) {
    if (best !== undefined && next !== best && better(candidateOf(next), candidateOf(best), demand)) best = next
  }
  return best
}

/**
 * Is `b` better than `a`, which comes before it in the text? Fewer losses and
 * guesses, then a fence, then fewer repairs of spelling, then the later one.
 */
const better = <A>(b: Candidate, a: Candidate, demand: Demand<A>): boolean => {
  const [lossA, guessA, safeA] = a.weight
  const [lossB, guessB, safeB] = b.weight
  if (lossA !== lossB) return lossB < lossA
  // With nothing asked for, an object is more likely meant than numbers in brackets, which prose has as well.
  if (!demand.constrained && a.plainList !== b.plainList) {
    const [list, other] = a.plainList ? [a, b] : [b, a]
    if (!Array.isArray(other.json) && list.found.how !== "whole") return b === other
  }
  if (guessA !== guessB) return guessB < guessA
  if (a.found.fenced !== b.found.fenced) return b.found.fenced
  if (safeA !== safeB) return safeB < safeA
  // With nothing asked for, a value that begins a line or follows a colon is more likely meant than one in a sentence.
  if (!demand.constrained && a.announced !== b.announced) return b.announced
  return demand.rivals !== "first"
}

interface None<A> {
  readonly allowed: ReadonlyArray<Candidate>
  readonly brokenAt: number | undefined
  readonly demand: Demand<A>
  readonly eligible: ReadonlyArray<Candidate>
  readonly finished: boolean | undefined
  readonly open: Candidate | undefined
  readonly text: string
}

const whyNone = <A>({ allowed, brokenAt, demand, eligible, finished, open, text }: None<A>): Failure => {
  const meant = ({ json, strong }: Candidate): boolean =>
    demand.constrained || (strong && Predicate.isObjectOrArray(json))
  const best = bestOf(allowed.filter(meant), (candidate) => candidate, demand)
  const mismatch = best === undefined ? {} : issuesIn(demand.fit(best.json, true))
  if (open !== undefined || finished === false) {
    return { cause: "truncated", position: open?.found.end ?? text.length, ...mismatch }
  }
  if (best !== undefined) return { cause: "schema mismatch", position: best.found.start, ...mismatch }
  const repair = eligible.findLast(meant)?.repairs.find(({ tier }) => !within(tier, demand.tier))
  if (repair !== undefined) return { cause: "unparseable", position: repair.position, tier: repair.tier }
  return brokenAt === undefined ? { cause: "nothing found" } : { cause: "unparseable", position: brokenAt }
}

const issuesIn = <A>(fit: Fit<A>): Pick<Failure, "issues" | "issueCount"> =>
  fit.fits || fit.tooDeep ? {} : { issues: fit.issues, issueCount: fit.count }

/** UTF-8 bytes are counted only when they may be too many. */
const bytesAreMore = (text: string, max: number): boolean => {
  if (text.length > max) return true
  if (text.length * 3 <= max) return false
  let bytes = 0
  for (let i = 0; i < text.length; i++) {
    const c = unitAt(text, i)
    bytes += c < 0x80 ? 1 : c < 0x800 || (c >= 0xd800 && c < 0xe000) ? 2 : 3
  }
  return bytes > max
}
