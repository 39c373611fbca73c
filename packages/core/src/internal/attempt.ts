/**
 * The attempt: one trip over the wire, with its clocks, its circuit and its
 * events, in one child fiber.
 *
 * Everything that an attempt holds (a breaker's ticket, a timer) is taken in
 * the callback that starts the child, and given back in the observer that sees
 * it end, so an interruption finds either nothing or a finalizer. When nothing
 * is configured and nobody listens, the leaf runs as it is.
 */
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Pull from "effect/Pull"
import type * as Scope from "effect/Scope"
import type { Answer, Any, Part, Request, Subject } from "../Face.ts"
import { credentialFor } from "../Call.ts"
import * as FailureMode from "../FailureMode.ts"
import type { StreamInterrupted, TimeoutPhase } from "./llmError.ts"
import { type Admission, awaitVerdict, enter, leave, noTicket, type Waiting } from "./admission.ts"
import type { Breaker } from "./breaker/machine.ts"
import { DeadlineExceeded, isLlmError, type LlmError, TimedOut } from "./llmError.ts"
import { type CallRecord, CurrentCall, tagOf } from "./callRecord.ts"
import { failed } from "./directory/measure.ts"
import type { Tally } from "./directory/tally.ts"
import * as attempted from "./events/attempted.ts"
import type { Told } from "./events/told.ts"
import { interrupted, type Opened } from "./opened.ts"
import type { Marked } from "./provider.ts"
import type { Deadline } from "./deadlines.ts"
import { Pace, type Rate } from "./pace.ts"
import { startDeadline } from "./timer.ts"

/** Clocks of an attempt, in milliseconds. `Infinity` where there is none. */
export interface Clocks {
  readonly attempt: number
  readonly firstContent: number
  readonly idle: number
  readonly streamAttempt: number
  /** A stream's headers. */
  readonly headers: number
  /** How fast a stream must be at least. */
  readonly rate: Rate | undefined
}

/** No clocks. */
export const noClocks: Clocks = {
  attempt: Infinity,
  firstContent: Infinity,
  idle: Infinity,
  streamAttempt: Infinity,
  headers: Infinity,
  rate: undefined,
}

/**
 * How long an adapter waits for the headers of a stream, in milliseconds. It
 * alone sees them; what it fails with is `TimedOut` of phase `headers`.
 */
export const CurrentHeadersLimit = Context.Reference<number>("@understudy/core/Timeouts/Headers", {
  defaultValue: () => Infinity,
})

/** What a policy above may know of those who can answer a call. */
export interface Within {
  /** Whom this call may ask, in order, with their context windows where they are known. */
  readonly candidates: () => ReadonlyArray<{ readonly name: string; readonly contextWindow: number | undefined }>
  /** Attempts at most, in all. */
  readonly maxAttempts: number
}

/** All that an attempt at a provider is made of. */
export interface Plan<F extends Any, E, R> {
  readonly name: string
  readonly model: string
  readonly face: F
  readonly generate: (request: Request<F>) => Effect.Effect<Answer<F>, E, R>
  readonly open: (request: Request<F>, scope: Scope.Scope) => Effect.Effect<Opened<Part<F>>, E, R>
  /** A composition in which attempts are made, and not an attempt itself: it is not counted, nor told. */
  readonly composite: boolean
  /** Are the calls that it makes calls of their own? */
  readonly apart: boolean
  /** Names of candidates inside a composition. */
  readonly inside: ReadonlyArray<string>
  /** The composition itself, where it is one. */
  readonly inner?: ReadonlyArray<Marked> | undefined
  /** Who may answer a call, where these are others. */
  readonly within?: ((record: CallRecord) => Within) | undefined
  readonly clocks: Clocks
  readonly admission: Admission | undefined
}

/** The lifecycle of one attempt: its slot in the circuit, its number, its events. */
class Attempt {
  readonly record: CallRecord
  /** Who is asked. */
  readonly subject: Subject
  readonly startedAt: number
  readonly number: number
  private readonly plan: Plan<Any, unknown, unknown>
  private readonly breaker: Breaker | undefined
  private readonly ticket: number
  private readonly accountTicket: number
  private readonly kind: Kind
  /** What is remembered of how the candidate does, where somebody wants to know. */
  readonly tally: Tally | undefined

  constructor(
    plan: Plan<Any, unknown, unknown>,
    record: CallRecord,
    breaker: Breaker | undefined,
    ticket: number,
    accountTicket: number,
    startedAt: number,
    kind: Kind,
  ) {
    this.record = record
    this.kind = kind
    this.plan = plan
    this.subject = { provider: plan.name, model: plan.model }
    this.breaker = breaker
    this.ticket = ticket
    this.accountTicket = accountTicket
    this.startedAt = startedAt
    this.number = plan.composite ? record.attempts : ++record.attempts
    const { watched } = record
    this.tally = watched?.provider.name === plan.name && !plan.composite ? watched.tally : undefined
    this.tally?.begin(startedAt)
  }

  /** Tells that it begins. Ask first whether someone listens. */
  begun(kind: Kind, limit: Limit, own: number): void {
    const { record } = this
    if (this.plan.composite) return
    record.emit({
      event: "AttemptStarted",
      ...this.who(),
      streaming: kind === "stream",
      ...attempted.bounds({
        limit: limit.millis,
        by: limit.by,
        own,
        left: record.deadlineAt - this.startedAt,
        alternatives: record.alternatives(),
      }),
    })
  }

  private who() {
    return { ...this.subject, attempt: this.number, face: this.plan.face.name }
  }

  /** Gives everything back and tells how it ended, with what the answer told and when. Called exactly once. */
  settle(exit: Exit.Exit<unknown, unknown>, told?: (() => Told | undefined) | undefined, contentAt?: number): void {
    const { record } = this
    if (!this.plan.composite) {
      if (exit._tag === "Success") record.answered = this.subject
      if (record.observer !== undefined) this.tell(exit, told)
    }
    const { breaker, plan, startedAt, tally } = this
    if (breaker === undefined && tally === undefined) return
    const now = record.now()
    if (tally !== undefined) this.remember(tally, exit, now)
    if (breaker === undefined || plan.admission === undefined) return
    leave(plan, record, plan.admission, breaker, this.ticket, this.accountTicket, exit, startedAt, contentAt, now)
  }

  private remember(tally: Tally, exit: Exit.Exit<unknown, unknown>, now: number): void {
    const { kind, plan, record, startedAt } = this
    tally.end()
    if (exit._tag === "Failure") {
      const longest = kind === "generate" ? plan.clocks.attempt : plan.clocks.firstContent
      failed(tally, record, kind, exit.cause, now - startedAt, longest, now)
    } else if (kind === "generate") {
      tally.answered(kind, now - startedAt, now)
    }
  }

  /** The first content of a stream is there, at this time where somebody wants to know. */
  committed(at: number | undefined): void {
    if (at !== undefined) this.tally?.answered("stream", at - this.startedAt, at)
    if (!this.plan.composite) this.record.answered = this.subject
    if (this.record.observer === undefined || this.plan.composite) return
    this.record.emit({
      event: "Committed",
      ...this.who(),
      elapsedMs: this.record.now() - this.startedAt,
    })
  }

  private tell(exit: Exit.Exit<unknown, unknown>, told: (() => Told | undefined) | undefined): void {
    const { record } = this
    const base = {
      ...this.who(),
      elapsedMs: record.now() - this.startedAt,
      ...attempted.answered(told),
    }
    if (exit._tag === "Success") {
      record.emit({ event: "AttemptSucceeded", ...base })
    } else if (Cause.hasInterruptsOnly(exit.cause)) {
      record.emit({ event: "AttemptInterrupted", ...base })
    } else {
      const tag = tagOf(exit.cause)
      const phase = phaseOf(exit.cause)
      record.emit({
        event: "AttemptFailed",
        ...base,
        failure: isTag(tag) ? tag : "UnknownFailure",
        ...(phase === undefined ? {} : { phase }),
        ...attempted.failed(exit.cause, record.modes),
      })
    }
  }
}

const isTag = (tag: string): tag is LlmError["_tag"] => Object.hasOwn(FailureMode.table, tag)

/** Which clock ran out, if one did. */
const phaseOf = (cause: Cause.Cause<unknown>): TimeoutPhase | undefined => {
  for (const reason of cause.reasons) {
    if (reason._tag !== "Fail" || !isLlmError(reason.error)) continue
    const failure = reason.error._tag === "StreamInterrupted" ? reason.error.failure : reason.error
    if (failure?._tag === "TimedOut") return failure.phase
  }
  return undefined
}

interface Limit {
  readonly millis: number
  /** Of what: the attempt's own clock (perhaps shortened for the sake of another candidate), or the call's deadline. */
  readonly by: "clock" | "deadline"
}

/**
 * The time an attempt gets. While another candidate is ready, it may not use
 * the time that candidate needs; and never more than the call has left.
 */
const limitOf = (record: CallRecord, own: number, now: number, composite: boolean): Limit => {
  const left = record.deadlineAt - now
  if (left === Infinity || composite) return { millis: own, by: "clock" }
  const alternatives = record.alternatives()
  if (alternatives > 0) {
    const shared = Math.max(left - record.alternativeNeeds(), left / (alternatives + 1))
    return { millis: Math.min(own, shared), by: "clock" }
  }
  return own <= left ? { millis: own, by: "clock" } : { millis: left, by: "deadline" }
}

const deadlineExceeded = (plan: Plan<Any, unknown, unknown>, record: CallRecord, share: number): DeadlineExceeded =>
  new DeadlineExceeded({
    provider: plan.name,
    model: plan.model,
    limit: Duration.millis(record.deadlineMillis),
    attemptShare: Math.min(1, Math.max(0, share)),
    ...(record.failures.length === 0 ? {} : { failures: [...record.failures] }),
  })

/** `own` is the attempt's own limit, where it was shortened. */
const timedOut = (
  plan: Plan<Any, unknown, unknown>,
  phase: TimeoutPhase,
  millis: number,
  own: number = millis,
): TimedOut =>
  new TimedOut({
    provider: plan.name,
    model: plan.model,
    phase,
    limit: Duration.millis(Math.round(millis)),
    ...(own <= millis || own === Infinity ? {} : { attemptShare: millis / own }),
  })

type Kind = "generate" | "stream"

interface Resolved {
  /** The clock of the attempt, or, of a stream, of its first content. */
  readonly first: number
  readonly idle: number
  readonly whole: number
  readonly rate: Rate | undefined
}

const or = (input: Duration.Input | undefined, fallback: number): number =>
  input === undefined ? fallback : Duration.toMillis(input)

const resolve = (kind: Kind, { clocks, composite }: Plan<Any, unknown, unknown>, record: CallRecord): Resolved => {
  // What a caller overrides are the clocks of attempts, not those of a composition.
  const over = composite ? undefined : record.overrides.timeouts
  if (kind === "generate") {
    const attempt = or(over?.attempt, clocks.attempt)
    return { first: attempt, idle: Infinity, whole: attempt, rate: undefined }
  }
  const whole = or(over?.attempt, clocks.streamAttempt)
  return {
    first: Math.min(or(over?.firstContent, clocks.firstContent), whole),
    idle: or(over?.idle, clocks.idle),
    whole,
    rate: clocks.rate,
  }
}

/** Either a value as it is, or the failure that it hides. A judge that throws is a defect. */
const judgeExit = <A, E>(
  exit: Exit.Success<A, E>,
  { composite, face }: Plan<Any, unknown, unknown>,
  subject: Subject,
): Exit.Exit<A, E | LlmError> => {
  if (composite) return exit
  try {
    const hidden: LlmError | undefined = face.judge(exit.value, subject)
    return hidden === undefined ? exit : Exit.fail(hidden)
  } catch (defect) {
    return Exit.die(defect)
  }
}

/** The context in which a leaf finds the call that it is part of, if it is. */
const contextOf = (
  context: Context.Context<never>,
  record: CallRecord,
  { apart }: Plan<Any, unknown, unknown>,
): Context.Context<never> => {
  const call = apart ? undefined : record
  return Context.getOrUndefined(context, CurrentCall) === call ? context : Context.add(context, CurrentCall, call)
}

/** A leaf that throws while it makes its effect is a defect, too. */
const made = <A, E>(leaf: () => Effect.Effect<A, E>): Effect.Effect<A, E> => {
  try {
    return leaf()
  } catch (defect) {
    return Effect.die(defect)
  }
}

/**
 * Runs a leaf as one attempt. `holds` says what keeps the attempt open after it
 * has succeeded: a stream that runs on. `waited`: it has waited for a circuit's
 * verdict.
 */
const run = <A, E>(
  plan: Plan<Any, unknown, unknown>,
  record: CallRecord,
  clocks: Resolved,
  leaf: () => Effect.Effect<A, E>,
  holds: ((value: A, attempt: Attempt, context: Context.Context<never>) => A) | undefined,
  waited?: Waiting,
): Effect.Effect<A, E> =>
  Effect.callback<A, E>((resume) => {
    const now = record.now()
    if (now >= record.deadlineAt) return resume(Effect.fail(deadlineExceeded(plan, record, 0) as E))
    const fiber = Fiber.getCurrent()!
    const { context } = fiber
    const inside = contextOf(context, record, plan)
    const { admission } = plan
    let breaker: Breaker | undefined
    let ticket = noTicket
    let accountTicket = noTicket
    if (admission !== undefined) {
      breaker = admission.circuit(context, credentialFor(record.overrides, plan.name) !== undefined, now)
      const { account } = breaker
      if (breaker.state === "closed" && (account === undefined || account.state === "closed")) {
        ticket = breaker.admit(now)
        if (account !== undefined) accountTicket = account.admit(now)
      } else {
        const entry = enter(plan, record, breaker, now, waited)
        if ("rejection" in entry) return resume(Effect.fail(entry.rejection as E))
        if ("wait" in entry) {
          const again = () => run(plan, record, clocks, leaf, holds, entry.wait)
          return resume(Effect.flatMap(awaitVerdict(record, context, entry.wait), again))
        }
        ticket = entry.own
        accountTicket = entry.account
      }
    }
    const kind = holds === undefined ? "generate" : "stream"
    const attempt = new Attempt(plan, record, breaker, ticket, accountTicket, now, kind)
    const limit = limitOf(record, clocks.first, now, plan.composite)
    if (record.observer !== undefined) attempt.begun(kind, limit, clocks.first)
    let expired: LlmError | undefined
    let timer: Deadline | undefined

    const finish = (exit: Exit.Exit<A, E>): void => {
      if (timer !== undefined) timer.cancel()
      let told: (() => Told | undefined) | undefined
      let outcome = exit
      if (exit._tag === "Success") {
        const { value } = exit
        if (holds !== undefined) return resume(Exit.succeed(holds(value, attempt, inside)))
        if (record.observer !== undefined) told = () => plan.face.told?.(value)
        outcome = judgeExit(exit, plan, attempt.subject) as Exit.Exit<A, E>
      } else if (expired !== undefined && Cause.hasInterruptsOnly(exit.cause)) {
        outcome = Exit.fail(expired as E)
      }
      attempt.settle(outcome, told)
      resume(outcome)
    }

    const child = Effect.runForkWith(inside)(made(leaf))
    const done = child.pollUnsafe()
    if (done !== undefined) return finish(done)
    if (limit.millis !== Infinity) {
      timer = startDeadline(record.clock, context, now, limit.millis, () => {
        expired =
          limit.by === "deadline"
            ? deadlineExceeded(plan, record, limit.millis / clocks.first)
            : timedOut(plan, kind === "generate" ? "attempt" : "first content", limit.millis, clocks.first)
        child.interruptUnsafe(fiber.id)
      })
    }
    child.addObserver(finish)
    return Fiber.interrupt(child)
  })

const nothingToDo = (plan: Plan<Any, unknown, unknown>, clocks: Resolved, record: CallRecord): boolean =>
  plan.admission === undefined &&
  record.observer === undefined &&
  record.watched === undefined &&
  record.deadlineAt === Infinity &&
  clocks.first === Infinity &&
  clocks.idle === Infinity &&
  clocks.whole === Infinity

/** One attempt at an answer. */
export const attemptGenerate = <F extends Any, E, R>(
  plan: Plan<F, E, R>,
  record: CallRecord,
  request: Request<F>,
): Effect.Effect<Answer<F>, E, R> => {
  const self = plan as Plan<Any, unknown, unknown>
  const clocks = resolve("generate", self, record)
  const leaf = () => plan.generate(request) as Effect.Effect<Answer<F>, E>
  return nothingToDo(self, clocks, record)
    ? Effect.suspend(() => {
        const asked = Effect.provideService(leaf(), CurrentCall, plan.apart ? undefined : record)
        if (plan.composite) return asked
        record.attempts++
        return Effect.flatMap(asked, (answer) => {
          const subject = (record.answered = { provider: plan.name, model: plan.model })
          const hidden = plan.face.judge(answer, subject)
          return hidden === undefined ? Effect.succeed(answer) : Effect.fail(hidden as E)
        })
      })
    : run(self, record, clocks, leaf, undefined)
}

/** One attempt at a stream, up to its commit point; the attempt ends when the stream does. */
export const attemptOpen = <F extends Any, E, R>(
  plan: Plan<F, E, R>,
  record: CallRecord,
  request: Request<F>,
  scope: Scope.Scope,
): Effect.Effect<Opened<Part<F>>, E, R> => {
  const self = plan as Plan<Any, unknown, unknown>
  const clocks = resolve("stream", self, record)
  const { headers } = plan.clocks
  const leaf = (): Effect.Effect<Opened<Part<F>>, E> => {
    const opening = plan.open(request, scope) as Effect.Effect<Opened<Part<F>>, E>
    return headers === Infinity ? opening : Effect.provideService(opening, CurrentHeadersLimit, headers)
  }
  return run(self, record, clocks, leaf, (opened, attempt, context) => {
    const contentAt = plan.admission === undefined && attempt.tally === undefined ? undefined : record.now()
    attempt.committed(contentAt)
    opened.ended.observe((exit) => attempt.settle(exit, opened.told, contentAt))
    const none =
      clocks.idle === Infinity &&
      clocks.whole === Infinity &&
      clocks.rate === undefined &&
      record.deadlineAt === Infinity
    return none ? opened : { ...opened, rest: withClocks(self, record, clocks, attempt, opened, context) }
  })
}

/**
 * The clocks behind the commit point: the gap between content, the pace, the
 * attempt as a whole, and the call's deadline. A deadline passes whoever waits.
 */
const withClocks = <P>(
  plan: Plan<Any, unknown, unknown>,
  record: CallRecord,
  clocks: Resolved,
  attempt: Attempt,
  opened: Opened<P>,
  context: Context.Context<never>,
): Opened<P>["rest"] => {
  const contents = opened.contents ?? counting()
  const pace = new Pace(clocks, record.now() - attempt.startedAt, contents())
  const ended = (failure: LlmError) => {
    const failed = Exit.fail(interrupted(attempt.subject, failure, opened.delivered(), opened.text?.()))
    opened.ended.settle(failed)
    return failed
  }
  return Effect.callback<Arr.NonEmptyReadonlyArray<P>, StreamInterrupted | Cause.Done<void>>((resume) => {
    const pulledAt = record.now()
    // What is buffered behind the deadline is not delivered.
    if (pulledAt >= record.deadlineAt) return resume(ended(deadlineExceeded(plan, record, pace.spent / clocks.whole)))
    let timer: Deadline | undefined
    let expired: LlmError | undefined
    const finish = (exit: Exit.Exit<Arr.NonEmptyReadonlyArray<P>, StreamInterrupted | Cause.Done<void>>): void => {
      if (timer !== undefined) timer.cancel()
      pace.waited(record.now() - pulledAt, contents())
      resume(
        expired === undefined || exit._tag === "Success" || !Cause.hasInterruptsOnly(exit.cause)
          ? exit
          : ended(expired),
      )
    }
    const child = Effect.runForkWith(context)(opened.rest)
    const done = child.pollUnsafe()
    if (done !== undefined) return finish(done)
    const own = pace.left()
    const left = record.deadlineAt - pulledAt
    const millis = Math.min(own, left)
    if (millis !== Infinity) {
      timer = startDeadline(record.clock, context, pulledAt, millis, () => {
        const clock = pace.first()
        expired =
          left < own
            ? deadlineExceeded(plan, record, (pace.spent + record.now() - pulledAt) / clocks.whole)
            : timedOut(
                plan,
                clock,
                clock === "idle" ? clocks.idle : clock === "attempt" ? clocks.whole : (clocks.rate?.within ?? own),
              )
        child.interruptUnsafe()
      })
    }
    child.addObserver(finish)
    return Fiber.interrupt(child)
  }) as Pull.Pull<Arr.NonEmptyReadonlyArray<P>, StreamInterrupted>
}

/** Whose stream does not tell content from the rest: every pull that gives something counts. */
const counting = (): (() => number) => {
  let n = 0
  return () => n++
}
