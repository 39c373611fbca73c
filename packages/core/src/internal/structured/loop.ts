/** Asking until an answer is accepted: who is asked, how often, and when it is enough. */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { CurrentOverrides, mergeParameters } from "../../Call.ts"
import type { Answer, Request } from "../../LanguageModelFace.ts"
import * as LanguageModelFace from "../../LanguageModelFace.ts"
import type { CallRecord } from "../callRecord.ts"
import {
  AllProvidersFailed,
  InvalidResponse,
  isLlmError,
  type LlmError,
  type Rejection,
  withEvidence,
} from "../llmError.ts"
import { type AnyOf, namesOf, peek, within } from "../provider.ts"
import { bounded } from "../recovery/asking.ts"
import * as Usage from "./usage.ts"

/** What is wrong with an answer, and how it can be asked for again. */
export interface Refused {
  readonly rejection: Pick<Rejection, "reason" | "issues" | "more">
  /** The request with which the same provider is asked again; without one that is of no use. */
  readonly again: ((request: Request) => Request) | undefined
  /** Was it cut off? Then a longer answer is allowed, where the call limits its length. */
  readonly longer: boolean
}

/** What a judge says of an answer. */
export type Verdict<A> =
  | { readonly _tag: "accepted"; readonly value: A; readonly answer: Answer; readonly repairs: number }
  | ({ readonly _tag: "refused" } & Refused)

/** An answer that was not accepted. */
export interface Rejected extends Rejection {
  /** The first answer that was asked for is 1. */
  readonly attempt: number
  /** Will an answer be asked for again? */
  readonly again: boolean
}

/** How often and how long it is asked. */
export interface Bounds {
  /** Answers, in all. */
  readonly attempts: number
  /** Tokens of all answers, beyond which none is asked for again. */
  readonly tokenBudget: number
}

/** An accepted answer. */
export interface Accepted<A> {
  readonly value: A
  /** As it is given out: its end tells the usage of all answers. */
  readonly answer: Answer
  readonly usage: ReturnType<typeof Usage.usageOf>
  /** Those before it. */
  readonly rejections: ReadonlyArray<Rejection>
}

/** Failures of a changed request that its change may have brought about. */
const ofTheChange: ReadonlySet<string> = new Set(["ContextLengthExceeded", "InvalidRequest", "ContentFiltered"])

/** One call's way to an accepted answer. */
class Course<A, E, R, EJ, RJ, RO> {
  private readonly ask: (request: Request) => Effect.Effect<Answer, E, R>
  private readonly self: AnyOf<LanguageModelFace.LanguageModelFace>
  private readonly original: Request
  private readonly judge: (answer: Answer, attempt: number, last: boolean) => Effect.Effect<Verdict<A>, EJ, RJ>
  private readonly bounds: Bounds
  private readonly record: CallRecord
  private readonly context: Context.Context<never>
  private readonly onInvalid: (rejected: Rejected, text: string) => Effect.Effect<void, never, RO>
  private readonly rejections: Array<Rejection> = []
  private usage: ReturnType<typeof Usage.usageOf>
  private asked = 0
  /** What the candidate that is asked now answered before. */
  private before: { readonly said: string; readonly text: string } | undefined
  private lastText = ""
  /** How often the length that the call allows was doubled, as an answer was cut off. */
  private doublings = 0

  constructor(
    ask: (request: Request) => Effect.Effect<Answer, E, R>,
    self: AnyOf<LanguageModelFace.LanguageModelFace>,
    original: Request,
    judge: (answer: Answer, attempt: number, last: boolean) => Effect.Effect<Verdict<A>, EJ, RJ>,
    bounds: Bounds,
    record: CallRecord,
    context: Context.Context<never>,
    onInvalid: (rejected: Rejected, text: string) => Effect.Effect<void, never, RO>,
  ) {
    this.ask = ask
    this.self = self
    this.original = original
    this.judge = judge
    this.bounds = bounds
    this.record = record
    this.context = context
    this.onInvalid = onInvalid
  }

  /** Asks with this request, which is the original one or one that says what was wrong. */
  from(request: Request): Effect.Effect<Accepted<A>, E | EJ | InvalidResponse, R | RJ | RO> {
    return Effect.matchEffect(longerAnswer(this.ask(request), this.doublings), {
      onFailure: (error) => this.failed(request, error),
      onSuccess: (answer) => {
        this.asked++
        this.usage = Usage.sum(this.usage, Usage.usageOf(answer))
        return Effect.flatMap(this.judge(answer, this.asked, this.asked >= this.bounds.attempts), (verdict) =>
          verdict._tag === "accepted" ? Effect.succeed(this.accept(verdict)) : this.refuse(answer, verdict),
        )
      },
    })
  }

  private accept({ answer, repairs, value }: Extract<Verdict<A>, { readonly _tag: "accepted" }>): Accepted<A> {
    const { record, rejections, usage } = this
    if (repairs > 0 && record.observer !== undefined) {
      record.emit({ event: "AnswerRepaired", ...this.answering(), repairs })
    }
    return { value, answer: rejections.length === 0 ? answer : Usage.withUsage(answer, usage), usage, rejections }
  }

  private refuse(
    answer: Answer,
    { again, longer, rejection }: Refused,
  ): Effect.Effect<Accepted<A>, E | EJ | InvalidResponse, R | RJ | RO> {
    const { record } = this
    const who = this.answering()
    const text = LanguageModelFace.text(answer)
    this.rejections.push({ ...who, ...rejection })
    this.lastText = text
    record.failures.push(this.failure())

    const said = JSON.stringify([rejection.reason, rejection.issues])
    const repeated =
      this.before !== undefined &&
      ((rejection.issues.length > 0 && this.before.said === said) || (text !== "" && this.before.text === text))
    const others = this.others(who.provider)
    // One answer is kept for a candidate that was not asked.
    const keep = others ? 1 : 0
    const stay = again !== undefined && !repeated && this.asked + keep < this.bounds.attempts
    const go = !this.spent() && (stay || others)

    if (record.observer !== undefined) {
      const { issues, more, reason } = rejection
      record.emit({ event: "AnswerRejected", ...who, reason, issues: issues.length + more, again: go })
    }
    const rejected: Rejected = { ...who, ...rejection, attempt: this.asked, again: go }
    return Effect.flatMap(this.onInvalid(rejected, text), () => {
      if (!go) return Effect.fail(this.failure())
      if (!stay) return this.elsewhere(who.provider)
      this.before = { said, text }
      record.pinned = who.provider
      if (longer) this.doublings++
      return this.from(again(this.original))
    })
  }

  /** The asking itself failed. */
  private failed(request: Request, error: E): Effect.Effect<Accepted<A>, E | EJ | InvalidResponse, R | RJ | RO> {
    const { record } = this
    if (!isLlmError(error)) return Effect.fail(error)
    if (request === this.original) return Effect.fail(this.withRejections(error))
    const provider = record.pinned
    if (provider !== undefined && !this.spent() && this.others(provider)) {
      record.failures.push(error)
      return this.elsewhere(provider)
    }
    return Effect.fail(ofTheChange.has(error._tag) ? this.failure() : this.withRejections(error))
  }

  /** A failure that tells of others tells of the answers that were refused before it, too. */
  private withRejections(error: E & LlmError): E | InvalidResponse {
    if (this.rejections.length === 0 || error._tag !== "AllProvidersFailed") return error
    const before = this.failure()
    const all = new AllProvidersFailed({ ...error, failures: [before, ...error.failures] })
    // The same failure, which tells more: of the same tag, and so of the same type.
    return withEvidence(all, { providerMessage: error.providerMessage, cause: error.cause }) as E & LlmError
  }

  /** Asks another candidate, as it was asked first. */
  private elsewhere(provider: string): Effect.Effect<Accepted<A>, E | EJ | InvalidResponse, R | RJ | RO> {
    const { record } = this
    record.passedOver = [...record.passedOver, provider]
    record.pinned = undefined
    this.before = undefined
    this.doublings = 0
    return this.from(this.original)
  }

  /** Is there a candidate besides this one that could be asked now? */
  private others(provider: string): boolean {
    const { context, record, self } = this
    if (!namesOf(self).some((name) => name !== provider && name !== self.name)) return false
    const { passedOver, pinned } = record
    record.passedOver = [...passedOver, provider]
    record.pinned = undefined
    const ready = peek(self, context, record, record.now())?.ready ?? true
    record.passedOver = passedOver
    record.pinned = pinned
    return ready
  }

  private spent(): boolean {
    const { bounds, record } = this
    return (
      this.asked >= bounds.attempts ||
      Usage.tokens(this.usage) >= bounds.tokenBudget ||
      record.attempts >= record.maxAttempts ||
      record.now() >= record.deadlineAt
    )
  }

  private answering(): { readonly provider: string; readonly model: string } {
    return this.record.answered ?? { provider: this.self.name, model: this.self.model }
  }

  private failure(): InvalidResponse {
    const { rejections } = this
    const last = rejections[rejections.length - 1]!
    const total =
      this.usage === undefined
        ? undefined
        : {
            inputTokens: this.usage.inputTokens.total ?? 0,
            outputTokens: this.usage.outputTokens.total ?? 0,
          }
    return withEvidence(
      new InvalidResponse({
        provider: last.provider,
        ...(last.model === undefined ? {} : { model: last.model }),
        kind: "content",
        reason: last.reason,
        rejections: [...rejections],
        ...(total === undefined ? {} : { usage: total }),
      }),
      { providerMessage: this.lastText },
    )
  }
}

/** Allows twice the length, and twice that, where the call limits it. */
const longerAnswer = <A, E, R>(self: Effect.Effect<A, E, R>, doublings: number): Effect.Effect<A, E, R> =>
  doublings === 0
    ? self
    : Effect.flatMap(CurrentOverrides, (current) => {
        const maxTokens = current.parameters?.maxTokens
        return maxTokens === undefined
          ? self
          : Effect.provideService(self, CurrentOverrides, {
              ...current,
              parameters: mergeParameters(current.parameters, { maxTokens: maxTokens * 2 ** doublings }),
            })
      })

/**
 * Asks for an answer until the judge accepts one.
 *
 * The candidate that answered is asked again, and told what was wrong. One that
 * gives the same issues or the same text twice is passed over, as is one for
 * which there is no remedy; one answer is kept for another candidate that is
 * ready. When it is enough, `InvalidResponse` tells of every answer.
 */
export const untilAccepted = <A, E, R, EJ, RJ, RO>(
  self: AnyOf<LanguageModelFace.LanguageModelFace>,
  ask: (request: Request) => Effect.Effect<Answer, E, R>,
  request: Request,
  record: CallRecord,
  bounds: Bounds,
  judge: (answer: Answer, attempt: number, last: boolean) => Effect.Effect<Verdict<A>, EJ, RJ>,
  onInvalid: (rejected: Rejected, text: string) => Effect.Effect<void, never, RO>,
): Effect.Effect<Accepted<A>, E | EJ | InvalidResponse, R | RJ | RO> =>
  Effect.withFiber(({ context }) => {
    const { passedOver, pinned } = record
    const failuresBefore = record.failures.length
    const course = new Course(ask, self, request, judge, bounds, record, context, onInvalid)
    const asking = Effect.onExitPrimitive(course.from(request), (exit) => {
      // What leaves tells of them.
      if (exit._tag === "Failure") record.failures.splice(failuresBefore)
      Object.assign(record, { passedOver, pinned })
      return undefined
    })
    // The attempts count together, however often it is asked.
    return bounded(asking, record, within(self, record).maxAttempts)
  })
