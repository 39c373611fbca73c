/** One call's way through changed prompts, and perhaps to another candidate, after a refusal. */
import type * as Prompt from "effect/ai/Prompt"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import type { LanguageModelFace, Request } from "../../LanguageModelFace.ts"
import { attach, flatten } from "../attached.ts"
import type { CallRecord } from "../callRecord.ts"
import { type ContentFiltered, isLlmError, type LlmError } from "../llmError.ts"
import { type AnyOf, within } from "../provider.ts"
import { asCallers, mayAsk, told, withPrompt } from "./asking.ts"

/** What a step makes of a prompt: another one, or nothing when it cannot help. */
export type Change<E, R> = Prompt.Prompt | undefined | Effect.Effect<Prompt.Prompt | undefined, E, R>

/** One modification of a prompt. */
export interface Step<out E = never, out R = never> {
  /** Names it in events. */
  readonly name: string
  /** Only for refusals of the prompt, or of the answer. Default: for both. */
  readonly stage?: "prompt" | "answer" | undefined
  readonly change: (prompt: Prompt.Prompt, failure: ContentFiltered) => Change<E, R>
}

/** What bounds it. */
export interface Settings<E, R> {
  readonly steps: ReadonlyArray<Step<E, R>>
  readonly times: number
  readonly then: "stop" | "other candidate"
}

const isRefusal = (failure: LlmError): failure is ContentFiltered => failure._tag === "ContentFiltered"

const samePrompt = (a: Prompt.Prompt, b: Prompt.Prompt): boolean => a === b || Equal.equals(a.content, b.content)

/** From the first refusal on. */
class Course<A, E, R, E2, R2> {
  private readonly self: AnyOf<LanguageModelFace>
  private readonly ask: (request: Request) => Effect.Effect<A, E, R>
  private readonly request: Request
  private readonly record: CallRecord
  private readonly settings: Settings<E2, R2>
  private readonly failuresBefore: number
  private readonly first: ContentFiltered & E
  /** Prompts that were refused. */
  private readonly refused: Array<Prompt.Prompt>
  private step = 0
  private asked = 0

  constructor(
    self: AnyOf<LanguageModelFace>,
    ask: (request: Request) => Effect.Effect<A, E, R>,
    request: Request,
    record: CallRecord,
    settings: Settings<E2, R2>,
    first: ContentFiltered & E,
  ) {
    this.self = self
    this.ask = ask
    this.request = request
    this.record = record
    this.settings = settings
    this.first = first
    this.refused = [request.prompt]
    this.failuresBefore = record.failures.length
    record.failures.push(first)
  }

  /** The next step that makes another prompt of the last one; then other candidates. */
  next(failure: ContentFiltered): Effect.Effect<A, E | E2, R | R2> {
    return Effect.suspend(() => {
      const { record, settings } = this
      const step = settings.steps[this.step]
      if (step === undefined || this.asked >= settings.times || !mayAsk(record)) return this.others(failure)
      this.step++
      if (step.stage !== undefined && failure.stage !== undefined && step.stage !== failure.stage) {
        return this.next(failure)
      }
      const change = step.change(this.refused.at(-1)!, failure)
      return Effect.isEffect(change)
        ? Effect.flatMap(asCallers(change, record), (prompt) => this.with(step.name, prompt, failure))
        : this.with(step.name, change, failure)
    })
  }

  private with(
    step: string,
    prompt: Prompt.Prompt | undefined,
    failure: ContentFiltered,
  ): Effect.Effect<A, E | E2, R | R2> {
    // What was refused will be refused again.
    if (prompt === undefined || this.refused.some((before) => samePrompt(before, prompt))) return this.next(failure)
    this.asked++
    this.refused.push(prompt)
    told(this.record, failure, "ContentFiltered", step)
    return Effect.catch(this.ask(withPrompt(this.request, prompt)), (error) =>
      isLlmError(error) && isRefusal(error) ? this.kept(error, () => this.next(error)) : this.leave(error),
    )
  }

  /** Those who have not refused are asked the original question. */
  private others(failure: ContentFiltered): Effect.Effect<A, E | E2, R | R2> {
    return Effect.suspend(() => {
      const { record, settings } = this
      if (settings.then !== "other candidate" || !mayAsk(record)) return this.conclude()
      const refusing = flatten(record.failures.slice(this.failuresBefore))
        .filter(isRefusal)
        .map(({ provider }) => provider)
      const other = within(this.self, record)
        .candidates()
        .find(({ name }) => !refusing.includes(name))
      if (other === undefined) return this.conclude()
      if (record.observer !== undefined) {
        record.emit({
          event: "FailedOver",
          provider: failure.provider,
          ...(failure.model === undefined ? {} : { model: failure.model }),
          failure: "ContentFiltered",
          to: other.name,
        })
      }
      return Effect.catch(passingOver(this.ask(this.request), record, refusing), (error) =>
        isLlmError(error) && isRefusal(error) && flatten([error]).some((f) => !refusing.includes(f.provider))
          ? this.kept(error, () => this.others(error))
          : this.leave(error),
      )
    })
  }

  private kept(failure: LlmError, go: () => Effect.Effect<A, E | E2, R | R2>): Effect.Effect<A, E | E2, R | R2> {
    this.record.failures.push(failure)
    return go()
  }

  /** What else went wrong with a changed prompt is told by the refusal, which was first. */
  private leave(error: E): Effect.Effect<A, E | E2, R | R2> {
    // Of a deadline the caller is told as of any other.
    if (!isLlmError(error) || error._tag === "DeadlineExceeded") {
      this.record.failures.splice(this.failuresBefore)
      return Effect.fail(error)
    }
    return this.kept(error, () => this.conclude())
  }

  private conclude(): Effect.Effect<never, E> {
    const failures = this.record.failures.splice(this.failuresBefore)
    // It is the failure that came, with others attached: of the same class.
    return Effect.fail(attach(this.first, flatten(failures)) as E & LlmError)
  }
}

/** Passes over these candidates as well. */
const passingOver = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  record: CallRecord,
  names: ReadonlyArray<string>,
): Effect.Effect<A, E, R> => {
  let before: ReadonlyArray<string> | undefined
  const run = Effect.suspend(() => {
    before = record.passedOver
    record.passedOver = [...before, ...names]
    return self
  })
  return Effect.onExitPrimitive(run, () => {
    if (before !== undefined) record.passedOver = before
    return undefined
  })
}

/** Asks, and again with changed prompts when it is refused. */
export const asking = <A, E, R, E2, R2>(
  self: AnyOf<LanguageModelFace>,
  ask: (request: Request) => Effect.Effect<A, E, R>,
  request: Request,
  record: CallRecord,
  settings: Settings<E2, R2>,
): Effect.Effect<A, E | E2, R | R2> =>
  Effect.catch(ask(request), (error) =>
    isLlmError(error) && isRefusal(error)
      ? new Course(self, ask, request, record, settings, error).next(error)
      : Effect.fail(error),
  )
