/**
 * JSON out of the text of an answer: the value that was asked for, and a report
 * of how it was found and what was repaired.
 *
 * Models wrap JSON in prose, fences and reasoning, forget quotes and commas,
 * write Python, and stop in the middle. `extract` finds the value, mends what
 * has one likely reading, says what it did, and refuses where it would have to
 * guess too much: a refused answer can be asked for again, a wrong one cannot be
 * taken back.
 *
 * **Details**
 *
 * - The ladder: the whole text, strict; reasoning tags cut; the outermost spans
 *   of brackets, strict; the same spans, repaired; a span that the text ends in,
 *   completed. Strict JSON is never altered: it is what `JSON.parse` gives.
 * - The schema chooses among what was found; then fewer losses and guesses, then
 *   a code fence, then fewer repairs of spelling, then the later one. Other
 *   values that would have done are `rivals`.
 * - Repairs have tiers: `safe` is another spelling of the same value, `guess` has
 *   one likely reading, `loss` lacks something. The caller says how far to go;
 *   by default up to `guess`.
 * - What stands inside of a string, or of reasoning, is never the answer, and no
 *   value inside of a broken or open one is.
 * - The parser has no recursion and looks ahead a bounded distance: its work
 *   grows with the text. Bytes, depth, candidates and work have limits.
 * - A stream is read as it comes, each unit once: `parser`, or `partials` for a
 *   `Stream`. A value that is still growing has a type of its own, `Partial`.
 *
 * **Gotchas**
 *
 * - `finishReason: "length"` says that the answer was cut off. Without it, a list
 *   that was cut between two items and one whose bracket was forgotten look the
 *   same: both are `loss`, which the default does not accept.
 * - The value of a snapshot is alive: it grows with the next `push`. Take `copy`
 *   of what has to stay.
 * - A failure holds no text of the answer: positions, and paths and expectations
 *   in the words of the schema. Names of keys that the schema does not know are
 *   `*`.
 * - A key named `__proto__` is an own property, as `JSON.parse` makes it. No key
 *   sets a prototype.
 *
 * **Example** (An answer in prose, with a trailing comma)
 *
 * ```ts
 * import { JsonExtraction } from "@understudy/core"
 * import { Result, Schema } from "effect"
 *
 * const Person = Schema.Struct({ name: Schema.String, age: Schema.Int })
 *
 * const found = JsonExtraction.extract('Sure! {"name": "Ada", "age": 36,} Anything else?', { schema: Person })
 * if (Result.isSuccess(found)) {
 *   const { repairs, value } = found.success
 *   console.log(value.name, repairs.map(({ kind, tier }) => `${kind} (${tier})`)) // Ada [ 'trailing comma (safe)' ]
 * }
 * ```
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { copyJson } from "./internal/json/copy.ts"
import {
  type Demand,
  type Extraction,
  type Failure,
  defaultLimits,
  type Limits,
  LimitsInput,
  run,
} from "./internal/json/extract.ts"
import { byCheck, byRoot, bySchema, type Fitting } from "./internal/json/fit.ts"
import { type Issue, issuesOf } from "./internal/json/issues.ts"
import { Live, type View } from "./internal/json/live.ts"
import { anyRoot, membersOf, rootKinds } from "./internal/json/members.ts"
import { type Repair, type RepairKind, type Tier, tiers } from "./internal/json/repair.ts"
import type { Found } from "./internal/json/scan.ts"
import { checked } from "./internal/options.ts"

export {
  /** A value, and how it came about. */
  type Extraction,
  /** Where in the text a value was found. */
  type Found,
  /** What does not fit, and where; it holds no value and no name that the answer brought along. */
  type Issue,
  /** The first issues of a failed decoding as paths and expectations. The cap is 100 unless told. */
  issuesOf,
  /** One repair: what, how far it goes, and at which UTF-16 unit of the text. */
  type Repair,
  /** What was repaired. */
  type RepairKind,
  /** How far a repair goes: another spelling, one likely reading, or something is missing. */
  type Tier,
  /** Every kind of repair with its tier. */
  tiers,
}

/** A path in a value: names of keys and indices, from the root. */
export type Path = ReadonlyArray<string | number>

/** A schema that a value can be decoded by from its JSON side, at once and without services. */
export type Codec<A, I = unknown> = Schema.Codec<A, I, never, unknown>

/** What is asked for, and how far to go for it. */
export interface Options<out A = unknown, out I = unknown> {
  /** Decoded from the JSON side (`Schema.toCodecJson`). */
  readonly schema?: Codec<A, I>
  /**
   * Instead of a schema, or besides it: what does not fit, or `undefined`. With neither, the root must be an object or
   * an array. What it says goes into failures, so it must not quote the value.
   */
  readonly check?: (json: unknown) => ReadonlyArray<Issue> | undefined
  /** Why the model stopped, as `effect/ai` names it: `length` means that the answer was cut off. */
  readonly finishReason?: string
  /** How far repairs may go. Default: `guess`. */
  readonly tier?: Tier
  /** Which of several equally good values to take, or to refuse when there are several. Default: `latest`. */
  readonly rivals?: "latest" | "first" | "refuse"
  /** At most 8 MiB of UTF-8, 1000 brackets deep, 1000 candidates, and 100 million units looked at, by default. */
  readonly limits?: {
    readonly maxBytes?: number
    readonly maxDepth?: number
    readonly maxCandidates?: number
    readonly maxWork?: number
  }
}

const OptionsAtTheDoor = Schema.Struct({
  schema: Schema.optional(
    Schema.declare<Schema.Top>((u): u is Schema.Top => Schema.isSchema(u), { expected: "an Effect schema" }),
  ),
  check: Schema.optional(
    Schema.declare<Function>((u): u is Function => typeof u === "function", { expected: "a function" }),
  ),
  finishReason: Schema.optional(Schema.String),
  tier: Schema.optional(Schema.Literals(["safe", "guess", "loss"])),
  rivals: Schema.optional(Schema.Literals(["latest", "first", "refuse"])),
  limits: Schema.optional(LimitsInput),
})

/** Which limit was passed. */
const Limit = Schema.Literals(["maxBytes", "maxDepth", "maxCandidates", "maxWork"])

/**
 * Why there is no value: one cause, with its remedy.
 *
 * - `nothing found`: no JSON of the right kind in the text.
 * - `truncated`: the answer was cut off. Asking for it again as it was costs the same again; allow more tokens, or ask
 *   for less.
 * - `unparseable`: there is something like JSON that could not be read, or only with repairs beyond the allowed tier.
 * - `schema mismatch`: there is a value, and it does not fit.
 * - `ambiguous`: several values fit, and the caller wanted one.
 * - `too large`: a limit was passed.
 */
export class ExtractionFailure extends Schema.TaggedError<ExtractionFailure>()("ExtractionFailure", {
  cause: Schema.Literals(["nothing found", "truncated", "unparseable", "schema mismatch", "ambiguous", "too large"]),
  /** The UTF-16 unit of the text where it shows, if there is one. */
  position: Schema.optionalKey(Schema.Int),
  /** What does not fit in the best candidate: the first 100 issues. */
  issues: Schema.optionalKey(
    Schema.Array(Schema.Struct({ path: Schema.Array(Schema.PropertyKey), expected: Schema.String })),
  ),
  /** How many issues there are in all. */
  issueCount: Schema.optionalKey(Schema.Int),
  /** How many other values would have done. */
  rivals: Schema.optionalKey(Schema.Int),
  /** Which limit was passed. */
  limit: Schema.optionalKey(Limit),
  /** The tier that it would take. */
  tier: Schema.optionalKey(Schema.Literals(["safe", "guess", "loss"])),
}) {
  override get message(): string {
    return `${said(this)} ${remedies[this.cause]}`
  }
}

const remedies: Record<Failure["cause"], string> = {
  "nothing found": "Ask for JSON and nothing else, and show its shape.",
  truncated: "Allow more output tokens, or ask for less; the same request would be cut off again.",
  unparseable: "Ask again for strict JSON, or allow repairs of a further tier.",
  "schema mismatch": "Ask again with what was expected.",
  ambiguous: "Ask for one value, or say which one to take.",
  "too large": "Ask for less, or raise the limit.",
}

const at = (position: number | undefined): string => (position === undefined ? "" : ` at position ${position}`)

const said = ({ cause, issueCount, issues, limit, position, rivals, tier }: Failure): string => {
  const first = issues?.[0]
  const where =
    first === undefined || first.path.length === 0 ? "at the root" : `at ${first.path.map(String).join(".")}`
  const expected = first === undefined ? "" : ` Expected ${first.expected} ${where}.`
  const more = issueCount !== undefined && issueCount > 1 ? ` There are ${issueCount - 1} more issues.` : ""
  switch (cause) {
    case "nothing found":
      return "The answer holds no JSON value."
    case "truncated":
      return `The answer ends before its JSON value does${at(position)}.${expected}`
    case "unparseable":
      return tier === undefined
        ? `The JSON of the answer cannot be read${at(position)}.`
        : `The JSON of the answer takes a repair of tier ${tier}${at(position)}.`
    case "schema mismatch":
      return `The JSON of the answer does not fit.${expected}${more}`
    case "ambiguous":
      return `The answer holds ${(rivals ?? 0) + 1} values that fit.`
    case "too large":
      return `The answer passes the limit ${limit ?? "of its size"}${at(position)}.`
  }
}

/** The very value of options that were checked already: an extraction is cheap, and so must be its door. */
const checkedBefore = new WeakSet<object>()

const admitted = <A, I>(where: string, options: Options<A, I>): Options<A, I> => {
  if (!checkedBefore.has(options)) {
    checked(where, OptionsAtTheDoor, options)
    checkedBefore.add(options)
  }
  return options
}

const both =
  <A>(first: Fitting<A>, second: Fitting<unknown>): Fitting<A> =>
  (json, all) => {
    const fit = first(json, all)
    if (!fit.fits) return fit
    const other = second(json, all)
    return other.fits ? fit : other
  }

/** With neither schema nor check, any object or array is what was asked for: then `A` is `unknown`. */
const fittingOf = <A, I>({ check, schema }: Options<A, I>): Fitting<A> => {
  const checks = check === undefined ? byRoot : byCheck(check)
  if (schema === undefined) return checks as Fitting<A>
  return check === undefined ? bySchema(schema) : both(bySchema(schema), checks)
}

const demandOf = <A, I>(options: Options<A, I>): Demand<A> => ({
  fit: fittingOf(options),
  constrained: options.schema !== undefined || options.check !== undefined,
  finishReason: options.finishReason,
  tier: options.tier ?? "guess",
  rivals: options.rivals ?? "latest",
  limits: limitsOf(options),
})

const limitsOf = ({ limits = {} }: Options): Limits => ({
  maxBytes: limits.maxBytes ?? defaultLimits.maxBytes,
  maxDepth: limits.maxDepth ?? defaultLimits.maxDepth,
  maxCandidates: limits.maxCandidates ?? defaultLimits.maxCandidates,
  maxWork: limits.maxWork ?? defaultLimits.maxWork,
})

const extracted = <A>(text: string, demand: Demand<A>): Result.Result<Extraction<A>, ExtractionFailure> =>
  Result.mapError(run(text, demand).result, (failure) => new ExtractionFailure(failure))

/**
 * The value in the text of an answer, with a report; or why there is none.
 *
 * Never throws on any text; options that cannot be meant throw `InvalidOptions`.
 */
export const extract = <A = unknown>(
  text: string,
  options: Options<A> = {},
): Result.Result<Extraction<A>, ExtractionFailure> =>
  extracted(text, demandOf(admitted("JsonExtraction.extract", options)))

// ---------------------------------------------------------------------------
// Streams
// ---------------------------------------------------------------------------

/**
 * What may be there of a value that is still growing, as JSON holds it: members
 * may be missing, strings may be beginnings, and what JSON has no value for is
 * unknown.
 */
export type Partial<I> = unknown extends I
  ? unknown
  : I extends string
    ? string
    : I extends number | boolean | null
      ? I
      : I extends undefined
        ? null
        : I extends bigint | symbol | Date | ((...args: never) => unknown)
          ? unknown
          : I extends ReadonlyArray<infer Item>
            ? number extends I["length"]
              ? ReadonlyArray<Partial<Item>>
              : { readonly [K in keyof I]?: Partial<I[K]> }
            : I extends object
              ? { readonly [K in keyof I]?: Partial<I[K]> }
              : unknown

/** A value that is still growing. */
export interface Snapshot<I = unknown> {
  readonly _tag: "Partial"
  /** What there is of it; `undefined` before it begins. It is alive: the next `push` may change it. */
  readonly value: Partial<I> | undefined
  /**
   * The path of the node that still grows, `[]` for the root: it and those around it are not complete, everything else
   * is. `undefined` when nothing grows. Numbers and literals are held back until they are whole.
   */
  readonly open: Path | undefined
  /** What does not fit among the nodes that are finished: members of the root, and items of arrays below it. */
  readonly issues: ReadonlyArray<Issue>
}

/** Whether the node at a path of a snapshot is finished. */
export const isComplete = ({ open, value }: Snapshot, path: Path): boolean => {
  let node: unknown = value
  for (const key of path) {
    if (typeof node !== "object" || node === null || !Object.hasOwn(node, key)) return false
    node = (node as Readonly<Record<string | number, unknown>>)[key]
  }
  if (node === undefined) return false
  return open === undefined || path.length > open.length || path.some((key, depth) => key !== open[depth])
}

/** A copy of a JSON value that shares nothing with it, however deep it is. */
export const copy: <A>(json: A) => A = copyJson

/** Reads an answer as it comes. */
export interface Parser<out A = unknown, I = unknown> {
  /** The present state. */
  readonly snapshot: Snapshot<I>
  /** Takes more text. */
  readonly push: (delta: string) => Snapshot<I>
  /** The same as `extract` of all that was pushed. The finish reason is the last word on that of the options. */
  readonly end: (finishReason?: string) => Result.Result<Extraction<A>, ExtractionFailure>
}

/**
 * A parser that takes an answer in pieces, and shows at any time what there is.
 *
 * Its work is linear in the text, in whatever pieces it comes.
 */
export const parser = <A = unknown, I = unknown>(options: Options<A, I> = {}): Parser<A, I> => {
  const { schema } = admitted("JsonExtraction.parser", options)
  const demand = demandOf(options)
  const codec = schema === undefined ? undefined : Schema.toCodecJson(schema)
  const live = new Live(
    demand.limits,
    codec === undefined
      ? { kinds: anyRoot, members: undefined }
      : { kinds: rootKinds(codec.ast), members: membersOf(codec) },
  )
  const pieces: Array<string> = []
  let seen = live.view
  let snapshot = shown<I>(seen)
  return {
    get snapshot() {
      return snapshot
    },
    push: (delta) => {
      pieces.push(delta)
      live.push(delta)
      if (live.view !== seen) {
        seen = live.view
        snapshot = shown<I>(seen)
      }
      return snapshot
    },
    end: (finishReason) =>
      extracted(pieces.join(""), finishReason === undefined ? demand : { ...demand, finishReason }),
  }
}

/** The parser builds what the text says, and the type says what the schema expects: until the end it is only likely. */
const shown = <I>({ issues, open, value }: View): Snapshot<I> => ({
  _tag: "Partial",
  value: value as Partial<I> | undefined,
  open,
  issues,
})

/** What a stream of partial values gives: the value as it grows, and at last the whole. */
export type Progress<A = unknown, I = unknown> =
  | Snapshot<I>
  | { readonly _tag: "Whole"; readonly extraction: Extraction<A> }

/**
 * From a stream of text to a stream of values that grow, and at last the whole.
 * Adds `ExtractionFailure` to the failures.
 *
 * `finishReason` may be a function: it is asked when the text has ended.
 */
export const partials =
  <A = unknown, I = unknown>(
    options: Omit<Options<A, I>, "finishReason"> & {
      readonly finishReason?: string | (() => string | undefined)
    } = {},
  ) =>
  <E, R>(self: Stream.Stream<string, E, R>): Stream.Stream<Progress<A, I>, E | ExtractionFailure, R> =>
    Stream.suspend(() => {
      const { finishReason, ...rest } = options
      const reading = parser<A, I>(rest)
      let last = reading.snapshot
      const growing = Stream.filter(
        // One at a time, so that each is seen before the next text changes it.
        Stream.map(Stream.rechunk(self, 1), (delta): Progress<A, I> => reading.push(delta)),
        (snapshot) => {
          const changed = snapshot !== last
          if (snapshot._tag === "Partial") last = snapshot
          return changed
        },
      )
      const whole = Effect.suspend(() => {
        const reason = typeof finishReason === "function" ? finishReason() : finishReason
        return Effect.fromResult(reading.end(reason))
      })
      return Stream.concat(
        growing,
        Stream.fromEffect(Effect.map(whole, (extraction): Progress<A, I> => ({ _tag: "Whole", extraction }))),
      )
    })
