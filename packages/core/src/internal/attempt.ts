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
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Pull from "effect/Pull"
import type * as Scope from "effect/Scope"
import type { Answer, Any, Part, Request } from "../Face.ts"
import { credentialFor } from "../Call.ts"
import * as FailureMode from "../FailureMode.ts"
import type { StreamInterrupted, TimeoutPhase } from "./llmError.ts"
import { CircuitOpen, DeadlineExceeded, isLlmError, type LlmError, TimedOut } from "./llmError.ts"
import { type Breaker, type Outcome, rejected } from "./breaker.ts"
import { type CallRecord, tagOf } from "./callRecord.ts"
import { interrupted, type Opened } from "./opened.ts"
import { startTimer } from "./timer.ts"

type AnyFiber = Fiber.Fiber<unknown, unknown>

/** Clocks of an attempt, in milliseconds. `Infinity` where there is none. */
export interface Clocks {
  readonly attempt: number
  readonly firstContent: number
  readonly idle: number
  readonly streamAttempt: number
}

/** No clocks. */
export const noClocks: Clocks = { attempt: Infinity, firstContent: Infinity, idle: Infinity, streamAttempt: Infinity }

/** The circuit of an attempt, and how its outcomes are judged. */
export interface Admission {
  /** Calls that bring a key of their own have a circuit of their own: an account's trouble is not another's. */
  readonly circuit: (context: Context.Context<never>, ownKey: boolean) => Breaker
  readonly key: string
  /** Judges failures that are not of the union; the default counts them. */
  readonly classify: ((error: unknown) => Outcome) | undefined
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
  /** Names of candidates inside a composition. */
  readonly inside: ReadonlyArray<string>
  readonly clocks: Clocks
  readonly admission: Admission | undefined
}

/** Failures that are an account's, and say nothing about the provider to the users of another one. */
const ofAccount: ReadonlySet<LlmError["_tag"]> = new Set([
  "RateLimited",
  "QuotaExhausted",
  "AuthenticationFailed",
  "PermissionDenied",
])

/** What the circuit of a plan learns from an exit. */
const outcomeOf = (
  exit: Exit.Exit<unknown, unknown>,
  modes: FailureMode.Table,
  admission: Admission,
  ownKey: boolean,
): { readonly outcome: Outcome; readonly hint: number } => {
  if (exit._tag === "Success") return { outcome: "success", hint: 0 }
  let outcome: Outcome = "ignored"
  let hint = 0
  for (const reason of exit.cause.reasons) {
    if (reason._tag === "Die") return { outcome: "failure", hint: 0 }
    if (reason._tag !== "Fail") continue
    const error = reason.error
    if (isLlmError(error)) {
      const failure = error._tag === "StreamInterrupted" ? (error.failure ?? error) : error
      outcome = ownKey && ofAccount.has(failure._tag) ? "ignored" : judged(failure, (f) => FailureMode.health(f, modes))
      hint = failure.retryAfter === undefined ? 0 : Duration.toMillis(failure.retryAfter)
    } else {
      outcome = judged(error, admission.classify)
    }
  }
  return { outcome, hint }
}

const judged = <E>(error: E, classify: ((error: E) => Outcome) | undefined): Outcome => {
  if (classify === undefined) return "failure"
  try {
    return classify(error)
  } catch {
    // A judge that throws says nothing, and must not keep the slot.
    return "ignored"
  }
}

/** The lifecycle of one attempt: its slot in the circuit, its number, its events. */
class Attempt {
  readonly record: CallRecord
  readonly name: string
  readonly model: string
  readonly startedAt: number
  readonly number: number
  private readonly breaker: Breaker | undefined
  private readonly admission: Admission | undefined
  private readonly ticket: number
  private readonly composite: boolean

  constructor(
    plan: Plan<Any, unknown, unknown>,
    record: CallRecord,
    breaker: Breaker | undefined,
    ticket: number,
    startedAt: number,
  ) {
    this.record = record
    this.name = plan.name
    this.model = plan.model
    this.admission = plan.admission
    this.breaker = breaker
    this.ticket = ticket
    this.startedAt = startedAt
    this.composite = plan.composite
    this.number = plan.composite ? record.attempts : ++record.attempts
    if (record.observer !== undefined && !plan.composite) {
      record.emit({ event: "AttemptStarted", provider: plan.name, model: plan.model, attempt: this.number })
    }
  }

  /** Gives everything back and tells how it ended. Called exactly once. */
  settle(exit: Exit.Exit<unknown, unknown>): void {
    const { record } = this
    if (!this.composite) {
      if (exit._tag === "Success") record.answered = { provider: this.name, model: this.model }
      if (record.observer !== undefined) this.tell(exit)
    }
    const { admission, breaker } = this
    if (breaker === undefined || admission === undefined) return
    const { hint, outcome } = outcomeOf(
      exit,
      record.modes,
      admission,
      credentialFor(record.overrides, this.name) !== undefined,
    )
    const before = breaker.state
    const now = record.now()
    breaker.record(this.ticket, outcome, now, hint)
    if (breaker.state !== before) tellState(record, this, admission.key, breaker, now)
  }

  committed(): void {
    if (!this.composite) this.record.answered = { provider: this.name, model: this.model }
    if (this.record.observer === undefined || this.composite) return
    this.record.emit({
      event: "Committed",
      provider: this.name,
      model: this.model,
      attempt: this.number,
      elapsedMs: this.record.now() - this.startedAt,
    })
  }

  private tell(exit: Exit.Exit<unknown, unknown>): void {
    const { record } = this
    const base = {
      provider: this.name,
      model: this.model,
      attempt: this.number,
      elapsedMs: record.now() - this.startedAt,
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

/** Tells that a circuit changed its state. */
export const tellState = (
  record: CallRecord,
  who: { readonly name: string; readonly model: string },
  circuit: string,
  breaker: Breaker,
  now: number,
): void => {
  if (record.observer === undefined) return
  const base = { provider: who.name, model: who.model, circuit }
  switch (breaker.state) {
    case "open":
      return record.emit({
        event: "CircuitOpened",
        ...base,
        ...(breaker.openUntil === Infinity ? {} : { delayMs: breaker.openUntil - now }),
      })
    case "half-open":
      return record.emit({ event: "CircuitHalfOpened", ...base })
    case "closed":
      return record.emit({ event: "CircuitClosed", ...base })
  }
}

/** The failure of a call that found the circuit open, and its event. */
export const circuitOpen = (
  record: CallRecord,
  who: { readonly name: string; readonly model: string },
  circuit: string,
  breaker: Breaker,
  now: number,
): CircuitOpen => {
  const left = breaker.retryAfter(now)
  const delayMs = left === Infinity ? undefined : left
  if (record.observer !== undefined) {
    record.emit({
      event: "CircuitRejected",
      provider: who.name,
      model: who.model,
      circuit,
      ...(delayMs === undefined ? {} : { delayMs }),
    })
  }
  return new CircuitOpen({
    provider: who.name,
    model: who.model,
    state: breaker.state === "half-open" ? "half-open" : "open",
    ...(delayMs === undefined ? {} : { retryAfter: Duration.millis(delayMs) }),
  })
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
}

const or = (input: Duration.Input | undefined, fallback: number): number =>
  input === undefined ? fallback : Duration.toMillis(input)

const resolve = (kind: Kind, { clocks, composite }: Plan<Any, unknown, unknown>, record: CallRecord): Resolved => {
  // What a caller overrides are the clocks of attempts, not those of a composition.
  const over = composite ? undefined : record.overrides.timeouts
  if (kind === "generate") {
    const attempt = or(over?.attempt, clocks.attempt)
    return { first: attempt, idle: Infinity, whole: attempt }
  }
  const whole = or(over?.attempt, clocks.streamAttempt)
  return {
    first: Math.min(or(over?.firstContent, clocks.firstContent), whole),
    idle: or(over?.idle, clocks.idle),
    whole,
  }
}

const judgeExit = <A>(value: A, judge: (value: A) => LlmError | undefined): Exit.Exit<A, LlmError> => {
  try {
    const hidden = judge(value)
    return hidden === undefined ? Exit.succeed(value) : Exit.fail(hidden)
  } catch (defect) {
    return Exit.die(defect)
  }
}

/**
 * Runs a leaf as one attempt. The leaf's success is judged by `judge`, and, when
 * `holds` says so, keeps the attempt open (a stream that runs on).
 */
const run = <A, E>(
  plan: Plan<Any, unknown, unknown>,
  record: CallRecord,
  fiber: AnyFiber,
  clocks: Resolved,
  kind: Kind,
  leaf: () => Effect.Effect<A, E>,
  judge: (value: A) => LlmError | undefined,
  holds: (value: A, attempt: Attempt, clocks: Resolved) => A,
): Effect.Effect<A, E> =>
  Effect.callback<A, E>((resume) => {
    const now = record.now()
    if (now >= record.deadlineAt) return resume(Effect.fail(deadlineExceeded(plan, record, 0) as E))
    const breaker = plan.admission?.circuit(fiber.context, credentialFor(record.overrides, plan.name) !== undefined)
    let ticket = 0
    if (breaker !== undefined) {
      const before = breaker.state
      ticket = breaker.admit(now)
      if (breaker.state !== before) tellState(record, plan, plan.admission!.key, breaker, now)
      if (ticket === rejected) {
        return resume(Effect.fail(circuitOpen(record, plan, plan.admission!.key, breaker, now) as E))
      }
    }
    const attempt = new Attempt(plan, record, breaker, ticket, now)
    const limit = limitOf(record, clocks.first, now, plan.composite)
    let expired: LlmError | undefined
    let cancelTimer: (() => void) | undefined

    const finish = (exit: Exit.Exit<A, E>): Exit.Exit<A, E> => {
      if (cancelTimer !== undefined) cancelTimer()
      if (exit._tag === "Success") {
        exit = judgeExit(exit.value, judge) as Exit.Exit<A, E>
        if (exit._tag === "Success" && kind === "stream") return Exit.succeed(holds(exit.value, attempt, clocks))
      } else if (expired !== undefined && Cause.hasInterruptsOnly(exit.cause)) {
        exit = Exit.fail(expired as E)
      }
      attempt.settle(exit)
      return exit
    }

    const child = Effect.runForkWith(fiber.context)(Effect.suspend(leaf))
    const done = child.pollUnsafe()
    if (done !== undefined) return resume(finish(done))
    if (limit.millis !== Infinity) {
      cancelTimer = startTimer(record.clock, fiber.context, limit.millis, () => {
        expired =
          limit.by === "deadline"
            ? deadlineExceeded(plan, record, limit.millis / clocks.first)
            : timedOut(plan, kind === "generate" ? "attempt" : "first content", limit.millis, clocks.first)
        child.interruptUnsafe(fiber.id)
      })
    }
    child.addObserver((exit) => resume(finish(exit)))
    return Fiber.interrupt(child)
  })

const nothingToDo = (plan: Plan<Any, unknown, unknown>, clocks: Resolved, record: CallRecord): boolean =>
  plan.admission === undefined &&
  record.observer === undefined &&
  record.deadlineAt === Infinity &&
  clocks.first === Infinity &&
  clocks.idle === Infinity &&
  clocks.whole === Infinity

/** One attempt at an answer. */
export const attemptGenerate = <F extends Any, E, R>(
  plan: Plan<F, E, R>,
  record: CallRecord,
  request: Request<F>,
): Effect.Effect<Answer<F>, E, R> =>
  Effect.withFiber((fiber) => {
    const clocks = resolve("generate", plan as Plan<Any, unknown, unknown>, record)
    const leaf = () => plan.generate(request) as Effect.Effect<Answer<F>, E>
    const subject = { provider: plan.name, model: plan.model }
    const judge = (answer: Answer<F>): LlmError | undefined =>
      plan.composite ? undefined : plan.face.judge(answer, subject)
    if (nothingToDo(plan as Plan<Any, unknown, unknown>, clocks, record)) {
      if (!plan.composite) record.attempts++
      return Effect.flatMap(Effect.suspend(leaf), (answer) => {
        if (!plan.composite) record.answered = subject
        const hidden = judge(answer)
        return hidden === undefined ? Effect.succeed(answer) : Effect.fail(hidden as E)
      })
    }
    return run(plan as Plan<Any, unknown, unknown>, record, fiber, clocks, "generate", leaf, judge, (answer) => answer)
  })

/** One attempt at a stream, up to its commit point; the attempt ends when the stream does. */
export const attemptOpen = <F extends Any, E, R>(
  plan: Plan<F, E, R>,
  record: CallRecord,
  request: Request<F>,
  scope: Scope.Scope,
): Effect.Effect<Opened<Part<F>>, E, R> =>
  Effect.withFiber((fiber) => {
    const clocks = resolve("stream", plan as Plan<Any, unknown, unknown>, record)
    const leaf = () => plan.open(request, scope) as Effect.Effect<Opened<Part<F>>, E>
    return run(
      plan as Plan<Any, unknown, unknown>,
      record,
      fiber,
      clocks,
      "stream",
      leaf,
      () => undefined,
      (opened, attempt) => {
        attempt.committed()
        opened.ended.observe((exit) => attempt.settle(exit))
        return clocks.idle === Infinity && clocks.whole === Infinity && record.deadlineAt === Infinity
          ? opened
          : {
              ...opened,
              rest: withClocks(plan as Plan<Any, unknown, unknown>, record, clocks, attempt, opened, fiber.context),
            }
      },
    )
  })

/**
 * The clocks behind the commit point: the gap between content, the attempt as a
 * whole, and the call's deadline. Only the time in which a pull is outstanding
 * counts for the first two, so a slow consumer is not an idle provider.
 */
const withClocks = <P>(
  plan: Plan<Any, unknown, unknown>,
  record: CallRecord,
  clocks: Resolved,
  attempt: Attempt,
  opened: Opened<P>,
  context: Context.Context<never>,
): Opened<P>["rest"] => {
  let spent = record.now() - attempt.startedAt
  return Effect.callback<Arr.NonEmptyReadonlyArray<P>, StreamInterrupted | Cause.Done<void>>((resume) => {
    const pulledAt = record.now()
    if (pulledAt >= record.deadlineAt) {
      // What is buffered behind the deadline is not delivered.
      const failure = deadlineExceeded(plan, record, spent / clocks.whole)
      const failed = Exit.fail(interrupted({ provider: plan.name, model: plan.model }, failure, opened.delivered()))
      opened.ended.settle(failed)
      return resume(failed)
    }
    let cancelTimer: (() => void) | undefined
    let expired: LlmError | undefined
    const finish = (exit: Exit.Exit<Arr.NonEmptyReadonlyArray<P>, StreamInterrupted | Cause.Done<void>>) => {
      if (cancelTimer !== undefined) cancelTimer()
      spent += record.now() - pulledAt
      if (expired === undefined || exit._tag === "Success" || !Cause.hasInterruptsOnly(exit.cause)) return exit
      const failed = Exit.fail(interrupted({ provider: plan.name, model: plan.model }, expired, opened.delivered()))
      opened.ended.settle(failed)
      return failed
    }
    const child = Effect.runForkWith(context)(opened.rest)
    const done = child.pollUnsafe()
    if (done !== undefined) return resume(finish(done))
    const idle = clocks.idle
    const whole = clocks.whole - spent
    const left = record.deadlineAt - pulledAt
    const millis = Math.max(0, Math.min(idle, whole, left))
    if (millis !== Infinity) {
      cancelTimer = startTimer(record.clock, context, millis, () => {
        expired =
          left < idle && left < whole
            ? deadlineExceeded(plan, record, (spent + record.now() - pulledAt) / clocks.whole)
            : timedOut(plan, idle <= whole ? "idle" : "attempt", idle <= whole ? idle : clocks.whole)
        child.interruptUnsafe()
      })
    }
    child.addObserver((exit) => resume(finish(exit)))
    return Fiber.interrupt(child)
  }) as Pull.Pull<Arr.NonEmptyReadonlyArray<P>, StreamInterrupted>
}
