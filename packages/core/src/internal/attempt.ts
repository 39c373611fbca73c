/**
 * The attempt: one trip over the wire, with its clocks, its circuit and its
 * events, in one child fiber.
 *
 * Everything that an attempt holds (a breaker's ticket, a permit, a timer) is
 * taken in the callback that starts the child, and given back in the observer
 * that sees it end, so an interruption finds either nothing or a finalizer. When
 * nothing is configured and nobody listens, the leaf runs as it is.
 *
 * An attempt that has a gate, or something that is done about its failures,
 * goes straight through both where that costs nothing: the circuits are closed,
 * the gate lets it in, and it does not fail. Otherwise the layers around it,
 * which do the same one by one, take over.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { Answer, Any, Part, Request, Subject } from "../Face.ts"
import { credentialFor } from "../Call.ts"
import * as FailureMode from "../FailureMode.ts"
import { awaitVerdict, enter, isClear, isTimeless, leave, noTicket, type Waiting } from "./admission.ts"
import type { Breaker } from "./breaker/machine.ts"
import { type CallRecord, CurrentCall, tagOf } from "./callRecord.ts"
import type { Alarm, Deadline } from "./deadlines.ts"
import { failed } from "./directory/measure.ts"
import type { Tally } from "./directory/tally.ts"
import * as attempted from "./events/attempted.ts"
import type { Told } from "./events/told.ts"
import { deadlineExceeded, timedOut } from "./expiry.ts"
import { isLlmError, type LlmError, type TimeoutPhase } from "./llmError.ts"
import { callIn } from "./inContext.ts"
import type { Opened } from "./opened.ts"
import type { Limits } from "./pace.ts"
import { CurrentHeadersLimit, type Inside, type Plan } from "./plan.ts"
import { withClocks } from "./restClocks.ts"
import { startDeadline } from "./timer.ts"

type AnyPlan = Plan<Any, unknown, unknown>

type Kind = "generate" | "stream"

type Resume<A, E> = (effect: Effect.Effect<A, E>) => void

/** The lifecycle of one attempt: its slot in the circuit, its number, its clock, its events. */
class Attempt<A, E> implements Alarm {
  readonly record: CallRecord
  readonly startedAt: number
  readonly number: number
  /** What is remembered of how the candidate does, where somebody wants to know. */
  readonly tally: Tally | undefined
  private readonly plan: AnyPlan
  private readonly kind: Kind
  private readonly resume: Resume<A, E>
  /** What keeps it open after it has succeeded: a stream that runs on. */
  private readonly holds: ((value: A, attempt: Attempt<A, E>, context: Context.Context<never>) => A) | undefined
  /** The clock of the attempt, or, of a stream, of its first content; and how much of that it gets. */
  private readonly own: number
  private limit: number
  /** Is it the call's deadline that bounds it? */
  private byDeadline = false
  private expired: LlmError | undefined
  private timer: Deadline | undefined
  /** The fiber of the leaf, with its context; and whoever waits for it. */
  private child: Fiber.Fiber<A, E> | undefined
  private context: Context.Context<never> | undefined
  private caller = 0
  private breaker: Breaker | undefined
  private ticket = noTicket
  private accountTicket = noTicket
  /** Where it is, behind a gate. */
  private inside: Inside | undefined
  /** What went straight, and what is asked. */
  private straight: Straight<Any, unknown, unknown> | undefined
  private request: unknown

  constructor(
    plan: AnyPlan,
    record: CallRecord,
    kind: Kind,
    own: number,
    startedAt: number,
    resume: Resume<A, E>,
    holds?: (value: A, attempt: Attempt<A, E>, context: Context.Context<never>) => A,
  ) {
    this.plan = plan
    this.record = record
    this.kind = kind
    this.own = own
    this.limit = own
    this.startedAt = startedAt
    this.resume = resume
    this.holds = holds
    this.number = plan.composite ? record.attempts : ++record.attempts
    const { watched } = record
    this.tally = watched?.provider.name === plan.name && !plan.composite ? watched.tally : undefined
    this.tally?.begin(startedAt)
  }

  /** Who is asked. */
  get subject(): Subject {
    return this.plan.subject
  }

  /** It has gone straight to where it is. */
  went(straight: Straight<Any, unknown, unknown>, request: unknown, inside: Inside | undefined): void {
    this.straight = straight
    this.request = request
    this.inside = inside
  }

  /** It is in the circuit with these tickets. */
  admitted(breaker: Breaker, ticket: number, accountTicket: number): void {
    this.breaker = breaker
    this.ticket = ticket
    this.accountTicket = accountTicket
  }

  /** Runs the leaf in a fiber of its own. What is returned, unless it has ended already, stops it. */
  start(fiber: Fiber.Fiber<unknown, unknown>, leaf: () => Effect.Effect<A, E>): Effect.Effect<unknown> | undefined {
    const { plan, record } = this
    const { context } = fiber
    try {
      if (record.deadlineAt !== Infinity && !plan.composite) this.bound()
      if (record.observer !== undefined) this.begun()
    } catch (defect) {
      // Other candidates are looked at, and what a program says of them may throw.
      this.finish(Exit.die(defect))
      return undefined
    }
    this.context = contextOf(context, record, plan)
    this.caller = fiber.id
    const child = (this.child = Effect.runForkWith(this.context)(made(leaf)))
    const done = child.pollUnsafe()
    if (done !== undefined) {
      this.finish(done)
      return undefined
    }
    if (this.limit !== Infinity) {
      this.timer = startDeadline(record.clock, context, this.startedAt, this.limit, this)
    }
    child.addObserver((exit) => this.finish(exit))
    return Fiber.interrupt(child)
  }

  /** Its time is over. */
  fire(): void {
    this.expired = this.expiry()
    this.child!.interruptUnsafe(this.caller)
  }

  /**
   * The time it gets of a call that must end. While another candidate is ready, it may not use the time that candidate
   * needs; and never more than the call has left.
   */
  private bound(): void {
    const { own, record, startedAt } = this
    const left = record.deadlineAt - startedAt
    const alternatives = record.alternatives()
    if (alternatives > 0) {
      this.limit = Math.min(own, Math.max(left - record.alternativeNeeds(), left / (alternatives + 1)))
    } else if (left < own) {
      this.limit = left
      this.byDeadline = true
    }
  }

  private expiry(): LlmError {
    const { kind, limit, own, plan, record } = this
    return this.byDeadline
      ? deadlineExceeded(plan, record, limit / own)
      : timedOut(plan, kind === "generate" ? "attempt" : "first content", limit, own)
  }

  private finish(exit: Exit.Exit<A, E>): void {
    const { holds, plan, record } = this
    this.timer?.cancel()
    let told: (() => Told | undefined) | undefined
    let outcome = exit
    if (exit._tag === "Success") {
      const { value } = exit
      if (holds !== undefined) return this.resume(Exit.succeed(holds(value, this, this.context!)))
      if (record.observer !== undefined) told = () => plan.face.told?.(value)
      outcome = judged(exit, plan)
    } else if (this.expired !== undefined && Cause.hasInterruptsOnly(exit.cause)) {
      outcome = Exit.fail(this.expired as E)
    }
    try {
      this.settle(outcome, told)
    } catch (defect) {
      outcome = Exit.die(defect)
    }
    this.inside?.leave(record)
    this.resume(outcome._tag === "Success" ? outcome : this.mended(outcome))
  }

  /** A failure, and what is done about it. */
  private mended(outcome: Exit.Failure<A, E>): Effect.Effect<A, E> {
    const { record, request, straight } = this
    const again = straight?.plan.again
    if (again === undefined) return outcome
    const run = () => straight!.inner(request, record, record.now()) as Effect.Effect<A, E>
    return Effect.catch(outcome, (error) => again(error, run, record))
  }

  /** Gives everything back and tells how it ended, with what the answer told and when. Called exactly once. */
  settle(exit: Exit.Exit<unknown, unknown>, told?: (() => Told | undefined) | undefined, contentAt?: number): void {
    const { breaker, plan, record, startedAt, tally } = this
    if (!plan.composite) {
      if (exit._tag === "Success") record.answered = plan.subject
      if (record.observer !== undefined) this.tell(exit, told)
    }
    if (breaker === undefined && tally === undefined) return
    // A look at the clock costs as much as all the rest.
    const timeless = tally === undefined && exit._tag === "Success" && isTimeless(breaker!)
    const now = timeless ? startedAt : record.now()
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

  // --- What is told. Ask first whether someone listens.

  private who() {
    return { ...this.subject, attempt: this.number, face: this.plan.face.name }
  }

  private begun(): void {
    const { record } = this
    if (this.plan.composite) return
    record.emit({
      event: "AttemptStarted",
      ...this.who(),
      streaming: this.kind === "stream",
      ...attempted.bounds({
        limit: this.limit,
        by: this.byDeadline ? "deadline" : "clock",
        own: this.own,
        left: record.deadlineAt - this.startedAt,
        alternatives: record.alternatives(),
      }),
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

/** Either a value as it is, or the failure that it hides. A judge that throws is a defect. */
const judged = <A, E>(exit: Exit.Success<A, E>, { composite, face, subject }: AnyPlan): Exit.Exit<A, E> => {
  if (composite) return exit
  try {
    const hidden: LlmError | undefined = face.judge(exit.value, subject)
    return hidden === undefined ? exit : Exit.fail(hidden as E)
  } catch (defect) {
    return Exit.die(defect)
  }
}

/** The context in which a leaf finds the call that it is part of, if it is. */
const contextOf = (context: Context.Context<never>, record: CallRecord, { apart }: AnyPlan): Context.Context<never> => {
  const call = apart ? undefined : record
  return callIn(context) === call ? context : Context.add(context, CurrentCall, call)
}

/** A leaf that throws while it makes its effect is a defect, too. */
const made = <A, E>(leaf: () => Effect.Effect<A, E>): Effect.Effect<A, E> => {
  try {
    return leaf()
  } catch (defect) {
    return Effect.die(defect)
  }
}

/** The circuit of an attempt, if it has one. */
const circuitOf = (
  { admission, name }: AnyPlan,
  record: CallRecord,
  context: Context.Context<never>,
  now: number,
): Breaker | undefined => admission?.circuit(context, credentialFor(record.overrides, name) !== undefined, now)

/** Lets an attempt into circuits that are closed. */
const letIn = (
  attempt: { admitted(breaker: Breaker, ticket: number, accountTicket: number): void },
  breaker: Breaker,
  now: number,
): void => {
  const ticket = breaker.admit(now)
  attempt.admitted(breaker, ticket, breaker.account === undefined ? noTicket : breaker.account.admit(now))
}

/** Runs a leaf as one attempt. `waited`: it has waited for a circuit's verdict. */
const run = <A, E>(
  plan: AnyPlan,
  record: CallRecord,
  kind: Kind,
  own: number,
  leaf: () => Effect.Effect<A, E>,
  holds?: (value: A, attempt: Attempt<A, E>, context: Context.Context<never>) => A,
  waited?: Waiting,
): Effect.Effect<A, E> =>
  Effect.callback<A, E>((resume) => {
    const now = record.now()
    if (now >= record.deadlineAt) return resume(Effect.fail(deadlineExceeded(plan, record, 0) as E))
    const fiber = Fiber.getCurrent()!
    const { context } = fiber
    const breaker = circuitOf(plan, record, context, now)
    if (breaker === undefined || isClear(breaker)) {
      const attempt = new Attempt(plan, record, kind, own, now, resume, holds)
      if (breaker !== undefined) letIn(attempt, breaker, now)
      return attempt.start(fiber, leaf) as Effect.Effect<void>
    }
    const entry = enter(plan, record, breaker, now, waited)
    if ("rejection" in entry) return resume(Effect.fail(entry.rejection as E))
    if ("wait" in entry) {
      const again = () => run(plan, record, kind, own, leaf, holds, entry.wait)
      return resume(Effect.flatMap(awaitVerdict(record, context, entry.wait), again))
    }
    const attempt = new Attempt(plan, record, kind, own, now, resume, holds)
    attempt.admitted(breaker, entry.own, entry.account)
    return attempt.start(fiber, leaf) as Effect.Effect<void>
  })

const or = (input: Duration.Input | undefined, fallback: number): number =>
  input === undefined ? fallback : Duration.toMillis(input)

// What a caller overrides are the clocks of attempts, not those of a composition.
const overridden = ({ composite }: AnyPlan, record: CallRecord) => (composite ? undefined : record.overrides.timeouts)

const clockOf = (plan: AnyPlan, record: CallRecord): number =>
  or(overridden(plan, record)?.attempt, plan.clocks.attempt)

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

const nothingToDo = (plan: AnyPlan, own: number, record: CallRecord): boolean =>
  plan.admission === undefined &&
  record.observer === undefined &&
  record.watched === undefined &&
  record.deadlineAt === Infinity &&
  own === Infinity

/** One attempt at an answer. */
export const attemptGenerate = <F extends Any, E, R>(
  plan: Plan<F, E, R>,
  record: CallRecord,
  request: Request<F>,
): Effect.Effect<Answer<F>, E, R> => {
  const self = plan as AnyPlan
  const own = clockOf(self, record)
  const leaf = () => plan.generate(request) as Effect.Effect<Answer<F>, E>
  return nothingToDo(self, own, record)
    ? Effect.suspend(() => {
        const asked = Effect.provideService(leaf(), CurrentCall, plan.apart ? undefined : record)
        if (plan.composite) return asked
        record.attempts++
        return Effect.flatMap(asked, (answer) => {
          record.answered = plan.subject
          const hidden = plan.face.judge(answer, plan.subject)
          return hidden === undefined ? Effect.succeed(answer) : Effect.fail(hidden as E)
        })
      })
    : run(self, record, "generate", own, leaf)
}

/** An attempt that may go straight through what is around it. */
export interface Straight<F extends Any, E, R> {
  readonly plan: Plan<F, E, R>
  /** The same with its layers one by one. */
  readonly layered: (request: Request<F>, record: CallRecord, now: number) => Effect.Effect<Answer<F>, E, R>
  /** What is made again: all but the outermost layer. */
  readonly inner: (request: Request<F>, record: CallRecord, now: number) => Effect.Effect<Answer<F>, E, R>
}

/** May an attempt of this plan go straight? One that is guarded by nothing needs no fiber. */
export const isGuarded = <F extends Any, E, R>({ admission, clocks }: Plan<F, E, R>): boolean =>
  admission !== undefined || clocks.attempt !== Infinity

/**
 * Goes straight through a gate and what is done about failures, where it can. To be called in the callback that `resume`
 * is of, whose finalizer it gives.
 */
export const goStraight = <F extends Any, E, R>(
  straight: Straight<F, E, R>,
  fiber: Fiber.Fiber<unknown, unknown>,
  request: Request<F>,
  record: CallRecord,
  now: number,
  resume: (effect: Effect.Effect<Answer<F>, E, R>) => void,
): Effect.Effect<void> | void => {
  const { layered, plan } = straight
  const self = plan as AnyPlan
  const { context } = fiber
  const own = clockOf(self, record)
  const breaker = circuitOf(self, record, context, now)
  if (now >= record.deadlineAt || (breaker !== undefined && !isClear(breaker))) {
    return resume(layered(request, record, now))
  }
  const { gate } = plan
  const inside = gate?.enter(context, record)
  if (gate !== undefined && inside === undefined) return resume(layered(request, record, now))
  const attempt = new Attempt<Answer<F>, E>(self, record, "generate", own, now, resume)
  if (breaker !== undefined) letIn(attempt, breaker, now)
  attempt.went(straight as unknown as Straight<Any, unknown, unknown>, request, inside)
  return attempt.start(fiber, () => plan.generate(request) as Effect.Effect<Answer<F>, E>) as Effect.Effect<void>
}

// -----------------------------------------------------------------------------
// Streams
// -----------------------------------------------------------------------------

interface Resolved extends Limits {
  readonly first: number
}

const clocksOf = (plan: AnyPlan, record: CallRecord): Resolved => {
  const { clocks } = plan
  const over = overridden(plan, record)
  const whole = or(over?.attempt, clocks.streamAttempt)
  return {
    first: Math.min(or(over?.firstContent, clocks.firstContent), whole),
    idle: or(over?.idle, clocks.idle),
    whole,
    rate: clocks.rate,
  }
}

/** One attempt at a stream, up to its commit point; the attempt ends when the stream does. */
export const attemptOpen = <F extends Any, E, R>(
  plan: Plan<F, E, R>,
  record: CallRecord,
  request: Request<F>,
  scope: Scope.Scope,
): Effect.Effect<Opened<Part<F>>, E, R> => {
  const self = plan as AnyPlan
  const clocks = clocksOf(self, record)
  const { headers } = plan.clocks
  const leaf = (): Effect.Effect<Opened<Part<F>>, E> => {
    const opening = plan.open(request, scope) as Effect.Effect<Opened<Part<F>>, E>
    return headers === Infinity ? opening : Effect.provideService(opening, CurrentHeadersLimit, headers)
  }
  return run(self, record, "stream", clocks.first, leaf, (opened, attempt, context) => {
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
