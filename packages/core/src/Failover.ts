/**
 * Failover: when one candidate cannot answer, the next does.
 *
 * Candidates are asked in the order of their priority, the lowest number first.
 * A disabled one is passed over, and so is one whose circuit is open, without
 * an attempt. Every failure is kept.
 *
 * **Details**
 *
 * - Which failures let the next candidate try is the `next` cell of
 *   `FailureMode`. `ContextLengthExceeded` goes to candidates with a larger
 *   `contextWindow` only; `ContentFiltered` to none, unless `whenFiltered` says
 *   so.
 * - When all have failed: a `ContextLengthExceeded` or `ContentFiltered` of any
 *   candidate leaves as itself, since its remedy is above the failover;
 *   `InvalidRequest` does when every candidate that was asked raised it;
 *   everything else is inside `AllProvidersFailed`. The failures of all
 *   attempts are attached.
 * - While another candidate is ready, an attempt may not use the time that it
 *   needs, a provider that timed out is not asked again, and backoffs at one
 *   candidate stay within the patience (2 seconds, summed).
 * - A stream fails over until its first content, and never after.
 *
 * **Gotchas**
 *
 * - Failures that are not of the union pass as they are, and no other candidate
 *   is asked.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type { Any } from "./Face.ts"
import type { FinalTag } from "./FailureMode.ts"
import * as FailureMode from "./FailureMode.ts"
import type { CallRecord } from "./internal/callRecord.ts"
import { checked, Count, DurationInput, InvalidOptions, millis } from "./internal/options.ts"
import {
  AllProvidersFailed,
  ContentFiltered,
  ContextLengthExceeded,
  InvalidRequest,
  isLlmError,
  type LlmError,
  withEvidence,
} from "./internal/llmError.ts"
import type { AnyOf, AnyProvider, ErrorOf, FaceOf, Provider, ServicesOf } from "./internal/provider.ts"
import { fromParts, isProvider, namesOf, need, peek } from "./internal/provider.ts"

/** What is known of a candidate besides its provider. */
export const CandidateOptions = Schema.Struct({
  /** Lower is asked first; equal ones in the order of the list. Default 0. */
  priority: Schema.optional(Schema.Finite),
  /** A disabled candidate is not asked. Default true. */
  enabled: Schema.optional(Schema.Boolean),
  /** How many tokens prompt and answer may have together, for `ContextLengthExceeded`. Default: not known. */
  contextWindow: Schema.optional(Count),
})

/** What is known of a candidate besides its provider. */
export interface CandidateOptions extends Schema.Schema.Type<typeof CandidateOptions> {}

/** A provider in a failover list. */
export interface Candidate<P> extends CandidateOptions {
  readonly provider: P
}

/** How candidates are asked. */
export const Options = Schema.Struct({
  /** Names the composition in events and failures. Default: the names of the candidates. */
  name: Schema.optional(Schema.String),
  /** How long backoffs at one candidate, summed, may keep a call waiting while another is ready. Default 2 seconds. */
  patience: Schema.optional(DurationInput),
  /** Attempts at most; one is kept for each ready candidate that was not asked. Default 6. */
  maxAttempts: Schema.optional(Count),
  /** Is another candidate asked when one refuses by its content policy? Default `stop`. */
  whenFiltered: Schema.optional(Schema.Literals(["stop", "next"])),
})

/** How candidates are asked. */
export interface Options extends Schema.Schema.Type<typeof Options> {}

type AnyEntry<P extends AnyProvider> = P | Candidate<P>
type ProviderOf<C> = C extends { readonly provider: infer P } ? P : C

/** What leaves a failover of these candidates. */
export type Leaves<E> = AllProvidersFailed | Extract<E, { readonly _tag: FinalTag }> | Exclude<E, LlmError>

interface Entry {
  readonly provider: AnyProvider
  readonly priority: number
  readonly enabled: boolean
  readonly contextWindow: number | undefined
}

const toEntry = (entry: unknown, index: number): Entry => {
  if (isProvider(entry)) return { provider: entry, priority: 0, enabled: true, contextWindow: undefined }
  const where = `candidates[${index}]`
  if (!Predicate.isObject(entry)) throw new InvalidOptions(where, "expected a provider, or { provider, … }")
  const { provider, ...options } = entry as { readonly provider?: unknown }
  if (!isProvider(provider)) throw new InvalidOptions(`${where}.provider`, "expected a provider")
  const o = checked(where, CandidateOptions, options)
  return { provider, priority: o.priority ?? 0, enabled: o.enabled ?? true, contextWindow: o.contextWindow }
}

const entriesOf = (candidates: ReadonlyArray<unknown>): ReadonlyArray<Entry> => {
  if (candidates.length === 0) throw new InvalidOptions("candidates", "expected at least one")
  const entries = candidates.map(toEntry)
  const names = new Set<string>()
  for (const { provider } of entries) {
    if (names.has(provider.name)) {
      throw new InvalidOptions("candidates", `expected each name once, got ${JSON.stringify(provider.name)} twice`)
    }
    names.add(provider.name)
  }
  return entries.sort((a, b) => a.priority - b.priority)
}

/** The failures of all attempts, a nested failover's among them as its own. */
const flatten = (failures: ReadonlyArray<LlmError>): ReadonlyArray<LlmError> =>
  failures.flatMap((failure) => {
    switch (failure._tag) {
      case "AllProvidersFailed":
        return flatten(failure.failures)
      case "ContextLengthExceeded":
      case "ContentFiltered":
      case "InvalidRequest":
        // Attached, they hold themselves too.
        return failure.failures === undefined ? [failure] : flatten(failure.failures)
      default:
        return [failure]
    }
  })

const hintMillis = (failure: LlmError): number =>
  failure.retryAfter === undefined ? Infinity : Duration.toMillis(failure.retryAfter)

/**
 * Every candidate failed: the failures of all attempts; and, of what each candidate ended with, the least hint, and
 * retryable if one of them is.
 */
const allFailed = (
  name: string,
  failures: ReadonlyArray<LlmError>,
  ends: ReadonlyArray<LlmError>,
  modes: FailureMode.Table,
): AllProvidersFailed => {
  const least = Math.min(...ends.map(hintMillis))
  return new AllProvidersFailed({
    provider: name,
    failures,
    retryable: ends.some((failure) => FailureMode.retryable(failure, modes)),
    ...(least === Infinity ? {} : { retryAfter: Duration.millis(least) }),
  })
}

/** The same failure with the failures of all attempts attached. */
const attach = (failure: LlmError, failures: ReadonlyArray<LlmError>): LlmError => {
  const others = failures.filter((f) => f !== failure)
  if (others.length === 0) return failure
  const evidence = { providerMessage: failure.providerMessage, cause: failure.cause }
  switch (failure._tag) {
    case "ContextLengthExceeded":
      return withEvidence(new ContextLengthExceeded({ ...fieldsOf(failure), failures }), evidence)
    case "ContentFiltered":
      return withEvidence(new ContentFiltered({ ...fieldsOf(failure), failures }), evidence)
    case "InvalidRequest":
      return withEvidence(new InvalidRequest({ ...fieldsOf(failure), failures }), evidence)
    default:
      return failure
  }
}

const fieldsOf = <E extends LlmError>(failure: E): E => ({ ...failure })

/** Failures of candidates that were not asked. */
const notAsked: ReadonlySet<LlmError["_tag"]> = new Set(["CircuitOpen", "CapacityExceeded"])

/** What leaves, of the failures of all attempts, and of those that each candidate ended with. */
const conclude = (
  name: string,
  failures: ReadonlyArray<LlmError>,
  ends: ReadonlyArray<LlmError>,
  modes: FailureMode.Table,
): LlmError => {
  const all = flatten(failures)
  const special = all.find((f) => f._tag === "ContextLengthExceeded" || f._tag === "ContentFiltered")
  if (special !== undefined) return attach(special, all)
  const asked = ends.filter((f) => !notAsked.has(f._tag))
  const [first] = asked
  if (first?._tag === "InvalidRequest" && asked.every((f) => f._tag === "InvalidRequest")) return attach(first, all)
  return allFailed(name, all, ends, modes)
}

type Kind = "generate" | "stream"

/** One call's way through the candidates. */
class Course {
  private readonly entries: ReadonlyArray<Entry>
  private readonly record: CallRecord
  private readonly kind: Kind
  private readonly name: string
  private readonly whenFiltered: "stop" | "next"
  private readonly run: (provider: AnyProvider) => Effect.Effect<unknown, unknown, unknown>
  private readonly isReady: (entry: Entry) => boolean
  private readonly reject: (entry: Entry) => unknown
  private readonly failuresBefore: number
  /** What a failover around this one lends. */
  private readonly outer: Pick<CallRecord, "alternatives" | "alternativeNeeds" | "patience" | "maxAttempts">
  private smallestWindow = 0
  /** What each candidate ended with. */
  private readonly ends: Array<LlmError> = []

  constructor(
    entries: ReadonlyArray<Entry>,
    record: CallRecord,
    kind: Kind,
    name: string,
    whenFiltered: "stop" | "next",
    run: (provider: AnyProvider) => Effect.Effect<unknown, unknown, unknown>,
    bounds: { readonly patience: number; readonly maxAttempts: number },
    look: (entry: Entry) => ReturnType<typeof peek>,
  ) {
    this.entries = entries
    this.record = record
    this.kind = kind
    this.name = name
    this.whenFiltered = whenFiltered
    this.run = run
    this.isReady = (entry) => look(entry)?.ready ?? true
    this.reject = (entry) => look(entry)?.rejection()
    this.failuresBefore = record.failures.length
    const { alternativeNeeds, alternatives, maxAttempts, patience } = record
    this.outer = { alternatives, alternativeNeeds, patience, maxAttempts }
    record.patience = Math.min(patience, bounds.patience)
    record.maxAttempts = Math.min(maxAttempts, record.attempts + bounds.maxAttempts)
  }

  /** Asks from this candidate on. */
  from(start: number): Effect.Effect<unknown, unknown, unknown> {
    const { entries, record } = this
    const index = record.attempts < record.maxAttempts ? this.nextAsked(start) : undefined
    if (index === undefined) return Effect.fail(this.conclude())
    const entry = entries[index]!
    this.lend(index)
    return Effect.catch(this.run(entry.provider), (error) => {
      if (!isLlmError(error)) return Effect.fail(error)
      return this.after(index, entry, error)
    })
  }

  /** The first candidate that can be asked, telling of those that are passed over. */
  private nextAsked(start: number): number | undefined {
    for (let index = start; index < this.entries.length; index++) {
      const entry = this.entries[index]!
      if (!this.fits(entry)) continue
      if (this.isReady(entry)) return index
      const rejection = this.reject(entry)
      if (isLlmError(rejection)) {
        this.record.failures.push(rejection)
        this.ends.push(rejection)
      }
    }
    return undefined
  }

  private fits(entry: Entry): boolean {
    return this.smallestWindow === 0 || (entry.contextWindow ?? 0) > this.smallestWindow
  }

  /** Tells the policies below how many candidates are behind the one that is asked, and what they need. */
  private lend(index: number): void {
    const { entries, kind, record } = this
    const { alternativeNeeds, alternatives } = this.outer
    if (index === entries.length - 1) {
      record.alternatives = alternatives
      record.alternativeNeeds = alternativeNeeds
      return
    }
    const rest = entries.slice(index + 1)
    const ready = (entry: Entry): boolean => this.fits(entry) && this.isReady(entry)
    record.alternatives = () => rest.reduce((n, entry) => (ready(entry) ? n + 1 : n), alternatives())
    record.alternativeNeeds = () =>
      rest.reduce((sum, entry) => (ready(entry) ? sum + need(entry.provider, kind) : sum), alternativeNeeds())
  }

  private after(index: number, entry: Entry, error: LlmError): Effect.Effect<unknown, unknown, unknown> {
    const { record } = this
    record.failures.push(error)
    this.ends.push(error)
    if (!this.worthwhile(entry, error)) {
      const itself = error._tag === "DeadlineExceeded" || error._tag === "InvalidRequest"
      return Effect.fail(itself ? attach(error, flatten(this.taken())) : this.conclude())
    }
    const next = record.attempts < record.maxAttempts ? this.nextAsked(index + 1) : undefined
    if (next !== undefined && record.observer !== undefined) {
      record.emit({
        event: "FailedOver",
        provider: entry.provider.name,
        model: entry.provider.model,
        failure: error._tag,
        to: this.entries[next]!.provider.name,
      })
    }
    return this.from(next ?? this.entries.length)
  }

  private conclude(): LlmError {
    return conclude(this.name, this.taken(), this.ends, this.record.modes)
  }

  /** The failures since this failover began. They go into what leaves it, and so out of the record, as do its bounds. */
  private taken(): ReadonlyArray<LlmError> {
    Object.assign(this.record, this.outer)
    return this.record.failures.splice(this.failuresBefore)
  }

  private worthwhile(entry: Entry, error: LlmError): boolean {
    switch (FailureMode.next(error, this.record.modes)) {
      case "no":
        return false
      case "yes":
        return true
      case "if allowed":
        return this.whenFiltered === "next"
      case "larger window": {
        const stated = error._tag === "ContextLengthExceeded" ? error.limit : undefined
        this.smallestWindow = Math.max(this.smallestWindow, entry.contextWindow ?? stated ?? 1)
        return true
      }
    }
  }
}

/**
 * A provider that asks the first candidate, and the next when it cannot answer.
 *
 * Removes every failure of the candidates but those whose remedy is above a
 * failover; adds `AllProvidersFailed`.
 */
export const make = <
  C extends AnyEntry<AnyProvider>,
  const Rest extends ReadonlyArray<AnyEntry<AnyOf<FaceOf<ProviderOf<NoInfer<C>>>>>>,
>(
  candidates: readonly [C, ...Rest],
  options: Options = {},
): Provider<
  FaceOf<ProviderOf<C>>,
  Leaves<ErrorOf<ProviderOf<C>> | ErrorOf<ProviderOf<Rest[number]>>>,
  ServicesOf<ProviderOf<C>> | ServicesOf<ProviderOf<Rest[number]>>
> => {
  const o = checked("Failover.make", Options, options)
  const listed = entriesOf(candidates)
  const entries = listed.filter((entry) => entry.enabled)
  const all = listed.map((entry) => entry.provider)
  const asked = (entries.length === 0 ? listed : entries).map((entry) => entry.provider)
  const name = o.name ?? asked.map((provider) => provider.name).join(" | ")
  const patience = millis(o.patience, "2 seconds")
  const maxAttempts = o.maxAttempts ?? 6
  const whenFiltered = o.whenFiltered ?? "stop"

  /** The candidates that this call may ask. */
  const allowedOf = (record: CallRecord): ReadonlyArray<Entry> => {
    const { overrides, passedOver, pinned } = record
    if (
      overrides.pin === undefined &&
      overrides.exclude === undefined &&
      pinned === undefined &&
      passedOver.length === 0
    )
      return entries
    // Whoever pins this composition by its name leaves it the choice among its candidates.
    const pins = [overrides.pin, pinned === undefined ? undefined : [pinned]].filter(
      (pin) => pin !== undefined && !pin.includes(name),
    )
    return entries.filter(
      ({ provider }) =>
        pins.every((pin) => namesOf(provider).some((inside) => pin!.includes(inside))) &&
        overrides.exclude?.includes(provider.name) !== true &&
        !passedOver.includes(provider.name),
    )
  }

  const course = (
    record: CallRecord,
    kind: Kind,
    run: (provider: AnyProvider) => Effect.Effect<unknown, unknown, unknown>,
  ): Effect.Effect<unknown, unknown, unknown> =>
    Effect.withFiber(({ context }) => {
      return new Course(allowedOf(record), record, kind, name, whenFiltered, run, { patience, maxAttempts }, (entry) =>
        peek(entry.provider, context, record, record.now()),
      ).from(0)
    })

  type F = FaceOf<ProviderOf<C>>
  type E = Leaves<ErrorOf<ProviderOf<C>> | ErrorOf<ProviderOf<Rest[number]>>>
  type R = ServicesOf<ProviderOf<C>> | ServicesOf<ProviderOf<Rest[number]>>
  const first = all[0]!
  const provider: unknown = fromParts<Any, unknown, unknown>({
    name,
    model: [...new Set(asked.map((p) => p.model))].join(" | "),
    face: first.face,
    generate: (request, record) => course(record, "generate", (p) => p.generate(request)),
    open: (request, scope, record) =>
      course(record, "stream", (p) => p.open(request, scope)) as ReturnType<AnyProvider["open"]>,
    inside: all.flatMap((candidate) => namesOf(candidate)),
    peek: (context, record, now) => {
      const allowed = allowedOf(record)
      const ready = allowed.some((entry) => peek(entry.provider, context, record, now)?.ready ?? true)
      return ready
        ? undefined
        : {
            ready,
            rejection: () => {
              const rejections = allowed
                .map((entry) => peek(entry.provider, context, record, now)?.rejection())
                .filter(isLlmError)
              return allFailed(name, rejections, rejections, record.modes)
            },
          }
    },
    need: (kind) => entries.reduce((sum, entry) => sum + need(entry.provider, kind), 0),
  })
  return provider as Provider<F, E, R>
}
