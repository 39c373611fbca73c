/**
 * Failover: when one candidate cannot answer, the next does.
 *
 * Candidates are asked in the order of their priority, the lowest number first,
 * and equal ones as `order` says. A disabled one is passed over, and so is one
 * whose circuit is open, or whose context window cannot hold the prompt, without
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
 * - What is declared of candidates here can be changed while the program runs,
 *   by the `Directory`, where there is one. A call goes on as it began.
 * - The floor: when every candidate's circuit is open, the one that is likeliest
 *   to be well is asked all the same, once a second over all calls, and never
 *   before a hint of its provider ends. The event `FloorProbed` marks it.
 *
 * **Gotchas**
 *
 * - Failures that are not of the union pass as they are, and no other candidate
 *   is asked.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type { Any } from "./Face.ts"
import type { FinalTag } from "./FailureMode.ts"
import * as FailureMode from "./FailureMode.ts"
import type { Bounds, CallRecord } from "./internal/callRecord.ts"
import { choose } from "./internal/directory/choose.ts"
import { measured } from "./internal/directory/measure.ts"
import { Directory } from "./internal/directory/service.ts"
import { Settings } from "./internal/directory/settings.ts"
import { type Entry as EntryOf, type View as ViewOf, Viewer } from "./internal/directory/view.ts"
import { remembering } from "./internal/inContext.ts"
import { checked, Count, DurationInput, InvalidOptions, millis } from "./internal/options.ts"
import { attach, flatten } from "./internal/attached.ts"
import { AllProvidersFailed, ContextLengthExceeded, isLlmError, type LlmError } from "./internal/llmError.ts"
import type {
  AnyOf,
  AnyProvider,
  ErrorOf,
  FaceOf,
  Floor,
  Provider,
  Readiness,
  ServicesOf,
} from "./internal/provider.ts"
import { asking, compositionsIn, fromParts, isProvider, namesOf, need, peek, within } from "./internal/provider.ts"

/** What is known of a candidate besides its provider. */
export const CandidateOptions = Schema.Struct(Settings.fields)

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
  /**
   * How candidates of the same priority are put in order, for each call: `priority` (as they are listed), `weight` (drawn
   * by weight), `latency` (who answers soonest), or `cost` (whose price for this prompt is lowest). Default `priority`.
   */
  order: Schema.optional(Schema.Literals(["priority", "weight", "latency", "cost"])),
  /**
   * How long a latency is remembered: after this time it weighs 1/e. Who takes n times as long as the best is tried again
   * after ln n of it. More than zero. Default 5 minutes.
   */
  latencyDecay: Schema.optional(
    DurationInput.check(
      Schema.makeFilter((input: Duration.Input) => Duration.toMillis(Duration.fromInputUnsafe(input)) > 0, {
        expected: "a duration of more than zero",
      }),
    ),
  ),
})

/** How candidates are asked. */
export interface Options extends Schema.Schema.Type<typeof Options> {}

type AnyEntry<P extends AnyProvider> = P | Candidate<P>
type ProviderOf<C> = C extends { readonly provider: infer P } ? P : C

/** What leaves a failover of these candidates. */
export type Leaves<E> = AllProvidersFailed | Extract<E, { readonly _tag: FinalTag }> | Exclude<E, LlmError>

type Entry = EntryOf<AnyProvider>
type View = ViewOf<AnyProvider>

/** A candidate as it is declared. */
interface Declared {
  readonly provider: AnyProvider
  readonly settings: Settings
}

const toDeclared = (entry: unknown, index: number): Declared => {
  if (isProvider(entry)) return { provider: entry, settings: {} }
  const where = `candidates[${index}]`
  if (!Predicate.isObject(entry)) throw new InvalidOptions(where, "expected a provider, or { provider, … }")
  const { provider, ...options } = entry as { readonly provider?: unknown }
  if (!isProvider(provider)) throw new InvalidOptions(`${where}.provider`, "expected a provider")
  return { provider, settings: checked(where, CandidateOptions, options) }
}

const declaredOf = (candidates: ReadonlyArray<unknown>): ReadonlyArray<Declared> => {
  if (candidates.length === 0) throw new InvalidOptions("candidates", "expected at least one")
  const declared = candidates.map(toDeclared)
  const names = new Set<string>()
  for (const { provider } of declared) {
    if (names.has(provider.name)) {
      throw new InvalidOptions("candidates", `expected each name once, got ${JSON.stringify(provider.name)} twice`)
    }
    names.add(provider.name)
  }
  return declared
}

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

/** Is there somebody inside who is asked in its place? */
const isComposition = (provider: AnyProvider): boolean => {
  const { length } = namesOf(provider)
  return length > 1 && namesOf(provider).some((name) => name !== provider.name)
}

/** Has a candidate all these tags? A composition leaves it to its own candidates. */
const isTagged = ({ provider, tags }: Entry, wanted: ReadonlyArray<string>): boolean =>
  wanted.every((tag) => tags.includes(tag)) || compositionsIn(provider).length > 0

/** Is it likelier to be well? What time does not mend comes last, and then whoever would be asked first anyway. */
const isBetter = (one: Floor, than: Floor): boolean =>
  one.hopeless === than.hopeless ? one.opensAt < than.opensAt : than.hopeless

const none: ReadonlyArray<never> = []

const directoryIn = remembering((context) => Context.getOrUndefined(context as Context.Context<Directory>, Directory))

/** A failover, as its courses know it. */
interface Rules {
  readonly name: string
  readonly whenFiltered: "stop" | "next"
  readonly patience: number
  readonly maxAttempts: number
}

type Run = (provider: AnyProvider, now: number) => Effect.Effect<unknown, unknown, unknown>

/** One call's way through the candidates. */
class Course {
  private readonly rules: Rules
  private readonly entries: ReadonlyArray<Entry>
  private readonly record: CallRecord
  private readonly kind: Kind
  private readonly context: Context.Context<never>
  private readonly run: Run
  /** Those that are passed over, as the prompt is longer than their window. */
  private readonly tooSmall: ReadonlyArray<Entry>
  private readonly failuresBefore: number
  /** What a failover around this one lends. */
  private readonly outer: Bounds
  private smallestWindow = 0
  /** Was everybody passed over, and told so? */
  private allPassed = false
  /** What each candidate ended with. */
  private readonly ends: Array<LlmError> = []

  constructor(
    rules: Rules,
    entries: ReadonlyArray<Entry>,
    tooSmall: ReadonlyArray<Entry>,
    record: CallRecord,
    kind: Kind,
    context: Context.Context<never>,
    run: Run,
  ) {
    this.rules = rules
    this.entries = entries
    this.tooSmall = tooSmall
    this.record = record
    this.kind = kind
    this.context = context
    this.run = run
    this.failuresBefore = record.failures.length
    const { maxAttempts, patience } = (this.outer = record.bounds)
    record.patience = Math.min(patience, rules.patience)
    record.maxAttempts = Math.min(maxAttempts, record.attempts + rules.maxAttempts)
  }

  private look(entry: Entry, now: number): Readiness | undefined {
    return peek(entry.provider, this.context, this.record, now)
  }

  private isReady(entry: Entry, now: number): boolean {
    return this.look(entry, now)?.ready ?? true
  }

  private reject(entry: Entry, now: number): unknown {
    return this.look(entry, now)?.rejection()
  }

  /** Asks from this candidate on. */
  from(start: number, now: number): Effect.Effect<unknown, unknown, unknown> {
    const { entries, record } = this
    const index = record.attempts < record.maxAttempts ? this.nextAsked(start, now) : undefined
    if (index === undefined) {
      this.tellOfTooSmall()
      return Effect.fail(this.conclude())
    }
    const entry = entries[index]!
    this.lend(index)
    return Effect.catch(this.ask(entry, now), (error) => {
      if (!isLlmError(error)) return Effect.fail(error)
      return this.after(index, entry, error)
    })
  }

  private ask(entry: Entry, now: number): Effect.Effect<unknown, unknown, unknown> {
    const { kind, record } = this
    const { provider, tally } = entry
    const composition = tally !== undefined && isComposition(provider)
    // The attempts of a candidate see to its tally; those of a composition are not its own.
    record.watched = composition ? undefined : entry
    const run = this.run(provider, now)
    return composition ? measured(run, tally, record, kind, () => need(provider, kind)) : run
  }

  /** The first candidate that can be asked, telling of those that are passed over. */
  private nextAsked(start: number, now: number): number | undefined {
    const { entries } = this
    let index = start
    while (index < entries.length && !(this.fits(entries[index]!) && this.isReady(entries[index]!, now))) index++
    const asked = index < entries.length ? index : start === 0 ? this.despite(now) : undefined
    for (let passed = start; passed < index && !this.allPassed; passed++) {
      const entry = entries[passed]!
      if (passed === asked || !this.fits(entry)) continue
      const rejection = this.reject(entry, now)
      if (isLlmError(rejection)) {
        this.record.failures.push(rejection)
        this.ends.push(rejection)
      }
    }
    // Who is asked although nobody was ready is the last of whom anything is told.
    if (index === entries.length) this.allPassed = true
    return asked
  }

  /**
   * Whom to ask although nobody is ready: somebody who lets the call wait for the verdict on its probes; or, when every
   * circuit is open, the one that is likeliest to be well, once a second. A known hint is waited for.
   */
  private despite(now: number): number | undefined {
    const all = this.entries.map((entry) => this.look(entry, now))
    const waiting = all.findIndex((one) => one?.waits === true)
    if (waiting >= 0) return waiting
    if (!all.every((one) => one?.circuit === "open")) return undefined
    let best: number | undefined
    for (const [index, one] of all.entries()) {
      if (one?.floor !== undefined && (best === undefined || isBetter(one.floor, all[best]!.floor!))) best = index
    }
    if (best === undefined || all[best]!.floor!.turn(this.rules) === false) return undefined
    this.record.floor = this.entries[best]!.provider.name
    return best
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
    const ready = (entry: Entry): boolean => this.fits(entry) && this.isReady(entry, record.now())
    record.alternatives = () => rest.reduce((n, entry) => (ready(entry) ? n + 1 : n), alternatives())
    record.alternativeNeeds = () =>
      rest.reduce((sum, entry) => (ready(entry) ? sum + need(entry.provider, kind) : sum), alternativeNeeds())
  }

  private after(index: number, entry: Entry, error: LlmError): Effect.Effect<unknown, unknown, unknown> {
    const { record } = this
    // It was for that one attempt only.
    record.floor = undefined
    record.failures.push(error)
    this.ends.push(error)
    if (!this.worthwhile(entry, error)) {
      const itself = error._tag === "DeadlineExceeded" || error._tag === "InvalidRequest"
      return Effect.fail(itself ? attach(error, flatten(this.taken())) : this.conclude())
    }
    const now = record.now()
    const next = record.attempts < record.maxAttempts ? this.nextAsked(index + 1, now) : undefined
    if (next !== undefined && record.observer !== undefined) {
      record.emit({
        event: "FailedOver",
        provider: entry.provider.name,
        model: entry.provider.model,
        failure: error._tag,
        to: this.entries[next]!.provider.name,
      })
    }
    return this.from(next ?? this.entries.length, now)
  }

  /**
   * Nobody answered of those whose window holds the prompt. One whose window does not hold it might, if it were shorter:
   * that is told where somebody shortens prompts.
   */
  private tellOfTooSmall(): void {
    const { ends, record, tooSmall } = this
    if (!record.shortens || ends.every(({ _tag }) => _tag === "InvalidRequest")) return
    for (const { contextWindow, provider } of tooSmall) {
      const failure = new ContextLengthExceeded({
        provider: provider.name,
        model: provider.model,
        ...(contextWindow === undefined ? {} : { limit: contextWindow }),
        detail: "It was not asked, since the prompt is longer than its window.",
      })
      record.failures.push(failure)
      ends.push(failure)
    }
  }

  private conclude(): LlmError {
    return conclude(this.rules.name, this.taken(), this.ends, this.record.modes)
  }

  /** The failures since this failover began. They go into what leaves it, and so out of the record, as do its bounds. */
  private taken(): ReadonlyArray<LlmError> {
    this.record.rebound(this.outer)
    return this.record.failures.splice(this.failuresBefore)
  }

  private worthwhile(entry: Entry, error: LlmError): boolean {
    switch (FailureMode.next(error, this.record.modes)) {
      case "no":
        return false
      case "yes":
        return true
      case "if allowed":
        return this.rules.whenFiltered === "next"
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
  const declared = declaredOf(candidates)
  const all = declared.map(({ provider }) => provider)
  const first = all[0]!
  const isEnabled = ({ settings }: Declared) => settings.enabled !== false
  const asked = (declared.some(isEnabled) ? declared.filter(isEnabled) : declared)
    .toSorted((a, b) => (a.settings.priority ?? 0) - (b.settings.priority ?? 0))
    .map(({ provider }) => provider)
  const name = o.name ?? asked.map((provider) => provider.name).join(" | ")
  const patience = millis(o.patience, "2 seconds")
  const maxAttempts = o.maxAttempts ?? 6
  const whenFiltered = o.whenFiltered ?? "stop"
  const order = o.order ?? "priority"
  const viewer = new Viewer(name, declared, millis(o.latencyDecay, "5 minutes"), order === "latency")
  const rules: Rules = { name, whenFiltered, patience, maxAttempts }

  /** The candidates as this call sees them: as they were when it first asked them. */
  const seenBy = (context: Context.Context<never>, record: CallRecord): View => {
    const before = record.seen(rules)
    if (before !== undefined) return before as View
    return viewer.look(directoryIn(context), record)
  }

  /** The candidates that this call may ask. */
  const allowedOf = ({ overrides, passedOver, pinned }: CallRecord, { entries }: View): ReadonlyArray<Entry> => {
    const { exclude, pin, tags } = overrides
    if (
      pin === undefined &&
      exclude === undefined &&
      tags === undefined &&
      pinned === undefined &&
      passedOver.length === 0
    )
      return entries
    // Whoever pins this composition by its name leaves it the choice among its candidates.
    const pins = [pin, pinned === undefined ? undefined : [pinned]].filter(
      (names) => names !== undefined && !names.includes(name),
    )
    return entries.filter(
      (entry) =>
        pins.every((names) => namesOf(entry.provider).some((inside) => names!.includes(inside))) &&
        exclude?.includes(entry.provider.name) !== true &&
        (tags === undefined || isTagged(entry, tags)) &&
        !passedOver.includes(entry.provider.name),
    )
  }

  const course = (
    request: unknown,
    record: CallRecord,
    kind: Kind,
    now: number,
    run: Run,
  ): Effect.Effect<unknown, unknown, unknown> => {
    const { context } = Fiber.getCurrent()!
    const view = seenBy(context, record)
    if (view !== viewer.alone) record.see(rules, view)
    const allowed = allowedOf(record, view)
    const begin = (entries: ReadonlyArray<Entry>, at: number) => {
      const tooSmall = entries.length === allowed.length ? none : allowed.filter((entry) => !entries.includes(entry))
      return new Course(rules, entries, tooSmall, record, kind, context, run).from(0, at)
    }
    if (allowed.length < 2) return begin(allowed, now)
    const chosen = choose(allowed, { order, windows: view.windows, face: first.face, request, record, kind })
    return Effect.isEffect(chosen)
      ? Effect.flatMap(chosen, (entries) => begin(entries, record.now()))
      : begin(chosen, now)
  }

  type F = FaceOf<ProviderOf<C>>
  type E = Leaves<ErrorOf<ProviderOf<C>> | ErrorOf<ProviderOf<Rest[number]>>>
  type R = ServicesOf<ProviderOf<C>> | ServicesOf<ProviderOf<Rest[number]>>
  const provider: unknown = fromParts<Any, unknown, unknown>({
    name,
    model: [...new Set(asked.map((p) => p.model))].join(" | "),
    face: first.face,
    generate: (request, record, now) =>
      course(request, record, "generate", now, (p, at) => asking(p).generate(request, record, at)),
    open: (request, scope, record, now) =>
      course(request, record, "stream", now, (p, at) => asking(p).open(request, scope, record, at)) as ReturnType<
        AnyProvider["open"]
      >,
    handsOn: true,
    inside: all.flatMap((candidate) => namesOf(candidate)),
    inner: all,
    listing: viewer.listing,
    peek: (context, record, now) => {
      const allowed = allowedOf(record, seenBy(context, record))
      const all = allowed.map((entry) => peek(entry.provider, context, record, now))
      return all.some((one) => one?.ready ?? true)
        ? undefined
        : {
            ready: false,
            circuit: all.every((one) => one?.circuit === "open") ? "open" : undefined,
            waits: all.some((one) => one?.waits === true),
            floor: all.reduce<Floor | undefined>(
              (best, one) =>
                one?.floor !== undefined && (best === undefined || isBetter(one.floor, best)) ? one.floor : best,
              undefined,
            ),
            rejection: () => {
              const rejections = allowed
                .map((entry) => peek(entry.provider, context, record, now)?.rejection())
                .filter(isLlmError)
              return allFailed(name, rejections, rejections, record.modes)
            },
          }
    },
    need: (kind) => viewer.last.entries.reduce((sum, entry) => sum + need(entry.provider, kind), 0),
    within: (record) => ({
      // Of a composition, its window is that of all its candidates for which nothing else is said.
      candidates: () =>
        allowedOf(record, (record.seen(rules) as View | undefined) ?? viewer.last).flatMap((entry) =>
          within(entry.provider, record)
            .candidates()
            .map(({ contextWindow, name }) => ({ name, contextWindow: contextWindow ?? entry.contextWindow })),
        ),
      maxAttempts,
    }),
  })
  return provider as Provider<F, E, R>
}
