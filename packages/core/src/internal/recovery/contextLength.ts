/** One call's way to a prompt that fits into a context window. */
import type * as Prompt from "effect/ai/Prompt"
import * as Effect from "effect/Effect"
import type { LanguageModelFace, Request } from "../../LanguageModelFace.ts"
import * as TokenCounter from "../../TokenCounter.ts"
import * as Truncation from "../../Truncation.ts"
import { attach, flatten } from "../attached.ts"
import type { CallRecord } from "../callRecord.ts"
import { ContextLengthExceeded, isLlmError, type LlmError, withEvidence } from "../llmError.ts"
import { type AnyOf, within } from "../provider.ts"
import { asCallers, mayAsk, told, withPrompt } from "./asking.ts"
import { hasMedia } from "./weigh.ts"

/** How a prompt is made to fit, and how often. */
export interface Settings<E, R> {
  readonly truncation: Truncation.Options & Truncation.Summarising<E, R>
  readonly window: number | undefined
  readonly reserve: number | undefined
  readonly times: number
  /** How much longer than we count a prompt may be, as a share, unless it is counted exactly. */
  readonly margin: number
  readonly before: boolean
}

type Model = AnyOf<LanguageModelFace>

const isTooLong = (failure: LlmError): failure is ContextLengthExceeded => failure._tag === "ContextLengthExceeded"

/** When nobody says how long a prompt may be: this much of the last one. */
const shrink = 0.75

/** Of the window the answer gets this much, when nothing is said, and never more than a quarter. */
const defaultReserve = 1024

/** Between what we count and what they do, no more is believed than this. */
const believable = (ratio: number): number => Math.min(8, Math.max(0.25, ratio))

/** The largest window among those that this call may ask; `undefined` when one of them is not known. */
const largestWindow = (self: Model, record: CallRecord, window: number | undefined): number | undefined => {
  if (window !== undefined) return window
  const { candidates } = within(self, record)
  const largest = Math.max(...candidates().map(({ contextWindow }) => contextWindow ?? Infinity))
  return Number.isFinite(largest) ? largest : undefined
}

class Course<A, E, R, E2, R2> {
  private readonly self: Model
  private readonly ask: (request: Request) => Effect.Effect<A, E, R>
  private readonly request: Request
  private readonly record: CallRecord
  private readonly settings: Settings<E2, R2>
  private readonly counter: TokenCounter.TokenCounter
  private readonly failuresBefore: number
  /** What the last request held. */
  private sent: Prompt.Prompt
  private first: (ContextLengthExceeded & E) | undefined
  private asked = 0

  constructor(
    self: Model,
    ask: (request: Request) => Effect.Effect<A, E, R>,
    request: Request,
    record: CallRecord,
    settings: Settings<E2, R2>,
    counter: TokenCounter.TokenCounter,
  ) {
    this.self = self
    this.ask = ask
    this.request = request
    this.record = record
    this.settings = settings
    this.counter = counter
    this.failuresBefore = record.failures.length
    this.sent = request.prompt
  }

  /** Cuts a prompt that does not fit into the window, and asks. */
  begin(window: number): Effect.Effect<A, E | E2, R | R2> {
    return Effect.gen({ self: this }, function* () {
      const { counter, request, self } = this
      // An estimate that is hardly too much is asked as it is: whoever counts better will say so.
      if ((yield* counter.count(request)) <= window - this.reserve(window)) return yield* this.attempt(request)
      const fitted = yield* this.fit(this.room(window, 1))
      if (fitted.prompt === request.prompt) return yield* this.attempt(request)
      return yield* this.send(fitted, { provider: self.name, model: self.model })
    })
  }

  private attempt(request: Request): Effect.Effect<A, E | E2, R | R2> {
    return Effect.catch(this.ask(request), (error) => this.after(error))
  }

  after(error: E): Effect.Effect<A, E | E2, R | R2> {
    return Effect.gen({ self: this }, function* () {
      const { counter, record, settings } = this
      if (!isLlmError(error)) return yield* this.leave(error)
      if (!isTooLong(error)) {
        // It is short enough now, and something else is wrong. Unless they do not accept what we made of it.
        if (this.first === undefined || error._tag !== "InvalidRequest") return yield* this.leave(error)
        record.failures.push(error)
        return yield* this.conclude()
      }
      this.first ??= error
      record.failures.push(error)
      if (this.asked >= settings.times || !mayAsk(record)) return yield* this.conclude()

      const counted = yield* counter.count(withPrompt(this.request, this.sent))
      const { limit, requested } = this.known(error)
      const ratio = requested === undefined ? 1 : believable(requested / counted)
      const room = limit === undefined ? Infinity : this.room(limit, ratio)
      // They say that it is too long, whatever we count.
      const fitted = yield* this.fit(room < counted ? room : Math.floor(counted * shrink))
      if (!mayAsk(record)) return yield* this.conclude()
      const now = yield* counter.count(withPrompt(this.request, fitted.prompt))
      const hopeless = limit !== undefined && now * ratio > limit * (this.sure(ratio) ? 1 : 1 + settings.margin)
      if (now >= counted || (!fitted.fits && hopeless)) return yield* this.conclude(nothingMore)
      this.asked++
      return yield* this.send(fitted, error)
    })
  }

  /** Of all that said that it is too long, whoever takes most. */
  private known(error: ContextLengthExceeded): { readonly limit?: number; readonly requested?: number } {
    const { record, self, settings } = this
    const candidates = within(self, record).candidates()
    const said = flatten([error]).filter(isTooLong)
    const limits = said.map(
      ({ limit, provider }) => limit ?? candidates.find(({ name }) => name === provider)?.contextWindow ?? 0,
    )
    const largest = Math.max(...limits)
    const limit = largest > 0 ? largest : settings.window
    const requested = (said[limits.indexOf(largest)] ?? error).requested ?? said.find((f) => f.requested)?.requested
    return { ...(limit === undefined ? {} : { limit }), ...(requested === undefined ? {} : { requested }) }
  }

  private reserve(window: number): number {
    const { record, settings } = this
    return (
      settings.reserve ?? record.overrides.parameters?.maxTokens ?? Math.min(defaultReserve, Math.floor(window / 4))
    )
  }

  /** Do we count as they do? */
  private sure(ratio: number): boolean {
    return this.counter.exact && ratio === 1 && !hasMedia(this.request.prompt)
  }

  /** How many tokens, as we count them, a request may have. */
  private room(window: number, ratio: number): number {
    const margin = this.sure(ratio) ? 0 : this.settings.margin
    return Math.max(0, Math.floor((window - this.reserve(window)) / (ratio * (1 + margin))))
  }

  /** The original prompt, cut so that the request has no more than so many tokens, if that can be. */
  private fit(room: number): Effect.Effect<Truncation.Fitted, E2, R2> {
    return Effect.gen({ self: this }, function* () {
      const { counter, record, request, settings } = this
      const { summarise, ...options } = settings.truncation
      const besides = (yield* counter.count(request)) - (yield* counter.count(request.prompt))
      return yield* Truncation.fit(request.prompt, {
        ...options,
        limit: Math.max(0, room - besides),
        summarise: summarise === undefined ? undefined : (dropped) => asCallers(summarise(dropped), record),
      }).pipe(Effect.provideService(TokenCounter.Current, counter))
    })
  }

  private send(
    fitted: Truncation.Fitted,
    who: { readonly provider: string; readonly model?: string | undefined },
  ): Effect.Effect<A, E | E2, R | R2> {
    const { strategy = "drop oldest" } = this.settings.truncation
    const step = fitted.shortened ? "shorten last" : fitted.summarised ? "summarise" : strategy
    told(this.record, who, "ContextLengthExceeded", step)
    this.sent = fitted.prompt
    return this.attempt(withPrompt(this.request, fitted.prompt))
  }

  private leave(error: E): Effect.Effect<never, E> {
    // What was too long was made shorter: it is not why this failed.
    this.record.failures.splice(this.failuresBefore)
    return Effect.fail(error)
  }

  private conclude(detail?: string): Effect.Effect<never, E> {
    const failures = flatten(this.record.failures.splice(this.failuresBefore))
    const first = this.first!
    const said = detail === undefined ? first : withDetail(first, detail)
    const all = failures.map((failure) => (failure === first ? said : failure))
    // It is the failure that came, with more in it: of the same class.
    return Effect.fail(attach(said, all) as E & LlmError)
  }
}

const nothingMore = "What must stay of it, system message and last turn, is too long by itself."

const withDetail = (failure: ContextLengthExceeded, detail: string): ContextLengthExceeded =>
  withEvidence(
    new ContextLengthExceeded({
      ...failure,
      detail: failure.detail === undefined ? detail : `${failure.detail} ${detail}`,
    }),
    { providerMessage: failure.providerMessage, cause: failure.cause },
  )

/** Asks, and again with less when it was too long. */
export const asking = <A, E, R, E2, R2>(
  self: Model,
  ask: (request: Request) => Effect.Effect<A, E, R>,
  request: Request,
  record: CallRecord,
  settings: Settings<E2, R2>,
): Effect.Effect<A, E | E2, R | R2> => {
  const course = <B, E3, R3>(go: (course: Course<A, E, R, E2, R2>) => Effect.Effect<B, E3, R3>) =>
    Effect.flatMap(TokenCounter.Current, (counter) => go(new Course(self, ask, request, record, settings, counter)))
  const window = settings.before ? largestWindow(self, record, settings.window) : undefined
  const asked: Effect.Effect<A, E | E2, R | R2> =
    window !== undefined
      ? course((one) => one.begin(window))
      : Effect.catch(ask(request), (error) =>
          isLlmError(error) && isTooLong(error) ? course((one) => one.after(error)) : Effect.fail(error),
        )
  const before = record.shortens
  record.shortens = true
  return Effect.onExitPrimitive(asked, () => {
    record.shortens = before
    return undefined
  })
}
