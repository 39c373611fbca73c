/**
 * A race: the same question asked once, and beside that again and again until
 * one answers. The first success wins; the others are interrupted, and the race
 * is over when they are.
 *
 * Each branch runs in a fiber of its own, with a branch of the call's record. A
 * stream that lost is closed before the winner is told.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { type CallRecord, CurrentCall, tagOf } from "../callRecord.ts"
import { isLlmError } from "../llmError.ts"
import { startTimer } from "../timer.ts"
import type { Draw, Subject } from "./allowance.ts"

/** One way to ask. What a stream holds lives in the scope. */
export interface Way<A, E> {
  readonly subject: Subject
  readonly ask: (scope: Scope.Scope | undefined) => Effect.Effect<A, E>
}

/** What a race is run by. */
export interface Rules<A, E> {
  /** The way of branch `n`, counted from 0; nothing when there is none. */
  readonly way: (n: number) => Way<A, E> | undefined
  /** May this be run beside others now? What it draws on the budget; nothing if not. */
  readonly mayAdd: (way: Way<A, E>) => Draw | undefined
  /** Is the next way run at once, since one has failed so? */
  readonly isNext: (failure: unknown) => boolean
  /** How long each branch is waited for before the next is run, in milliseconds. */
  readonly delay: () => number
  /** How long the first branch took, or would have taken at least. */
  readonly observe: (millis: number) => void
  /** In which streams are opened; nothing for answers. */
  readonly scope: Scope.Scope | undefined
}

interface Branch<A, E> {
  readonly number: number
  readonly way: Way<A, E>
  readonly record: CallRecord
  readonly scope: Scope.Closeable | undefined
  readonly startedAt: number
  readonly drawn: Draw | undefined
  fiber: Fiber.Fiber<A, E> | undefined
}

class Race<A, E> {
  private readonly rules: Rules<A, E>
  private readonly record: CallRecord
  private readonly context: Context.Context<never>
  private readonly resume: (exit: Exit.Exit<A, E>) => void
  private readonly startedAt: number
  private readonly running = new Set<Branch<A, E>>()
  private launched = 0
  private winner: Branch<A, E> | undefined
  /** How the race ends, once that is decided. */
  private outcome: Exit.Exit<A, E> | undefined
  /** How it ends if nobody does better. */
  private failure: Exit.Exit<A, E> | undefined
  private cancelTimer: (() => void) | undefined
  private whenStopped: (() => void) | undefined

  constructor(
    rules: Rules<A, E>,
    record: CallRecord,
    context: Context.Context<never>,
    resume: (exit: Exit.Exit<A, E>) => void,
  ) {
    this.rules = rules
    this.record = record
    this.context = context
    this.resume = resume
    this.startedAt = record.now()
  }

  /** Runs the next branch. */
  run(way: Way<A, E>, drawn: Draw | undefined): void {
    const { context, record, rules } = this
    const branch: Branch<A, E> = {
      number: this.launched++,
      way,
      record: record.fork(),
      scope: rules.scope === undefined ? undefined : Scope.forkUnsafe(rules.scope),
      startedAt: record.now(),
      drawn,
      fiber: undefined,
    }
    // Beside others it takes what there is, and does not wait for more.
    branch.record.extra = this.running.size > 0
    this.running.add(branch)
    if (branch.number > 0) this.tell(branch, "HedgeLaunched")
    const services = Context.add(context, CurrentCall, branch.record)
    const fiber = Effect.runForkWith(services)(Effect.suspend(() => way.ask(branch.scope)))
    branch.fiber = fiber
    if (fiber.pollUnsafe() === undefined) this.arm()
    fiber.addObserver((exit) => this.ended(branch, exit))
  }

  /** Interrupts all that run, and waits for them. */
  stop(): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      this.whenStopped = () => resume(Effect.void)
      if (this.outcome === undefined) this.decide(Exit.interrupt())
      this.conclude()
    })
  }

  /** Waits for the time of the next branch. */
  private arm(): void {
    const { record, rules } = this
    this.disarm()
    if (this.outcome !== undefined || rules.way(this.launched) === undefined) return
    const millis = rules.delay()
    if (record.now() + millis >= record.deadlineAt) return
    this.cancelTimer = startTimer(record.clock, this.context, millis, () => {
      this.cancelTimer = undefined
      // Others may have been run at once, so that this was the last.
      const way = rules.way(this.launched)
      const drawn = way === undefined ? undefined : rules.mayAdd(way)
      if (way !== undefined && drawn !== undefined) this.run(way, drawn)
    })
  }

  private disarm(): void {
    this.cancelTimer?.()
    this.cancelTimer = undefined
  }

  private ended(branch: Branch<A, E>, exit: Exit.Exit<A, E>): void {
    this.record.rejoin(branch.record)
    this.observe(branch, exit)
    if (branch.record.begun === 0) branch.drawn?.giveBack()
    if (this.outcome !== undefined) return this.lost(branch, undefined)
    if (exit._tag === "Success") {
      this.winner = branch
      this.record.adopt(branch.record)
      this.decide(exit)
      return this.leave(branch)
    }
    this.swallow()
    this.failure = exit
    // A defect is a bug of the program, which no hedge hides.
    if (Cause.hasDies(exit.cause)) this.decide(exit)
    this.lost(branch, exit.cause)
  }

  /** Closes what it opened, tells, and goes on. */
  private lost(branch: Branch<A, E>, cause: Cause.Cause<E> | undefined): void {
    const then = (): void => {
      if (branch.number > 0) this.tell(branch, "HedgeLost", cause === undefined ? undefined : tagOf(cause))
      if (cause !== undefined && this.outcome === undefined && this.rules.isNext(Cause.squash(cause))) {
        const way = this.rules.way(this.launched)
        if (way !== undefined) this.run(way, undefined)
      }
      this.leave(branch)
    }
    const close = branch.scope === undefined ? undefined : Scope.closeUnsafe(branch.scope, Exit.interrupt())
    if (close === undefined) then()
    else Effect.runForkWith(this.context)(close).addObserver(then)
  }

  private decide(outcome: Exit.Exit<A, E>): void {
    this.outcome = outcome
    if (outcome !== this.failure) this.swallow()
    this.disarm()
    for (const branch of this.running) branch.fiber?.interruptUnsafe()
  }

  private leave(branch: Branch<A, E>): void {
    this.running.delete(branch)
    this.conclude()
  }

  private conclude(): void {
    if (this.running.size > 0) return
    const { failure, outcome, whenStopped, winner } = this
    this.disarm()
    if (winner !== undefined && winner.number > 0) this.tell(winner, "HedgeWon")
    if (whenStopped === undefined) this.resume(outcome ?? failure!)
    else whenStopped()
  }

  /** The failure that was the last until now does not leave. */
  private swallow(): void {
    const { failure, record } = this
    this.failure = undefined
    if (failure?._tag !== "Failure") return
    for (const reason of failure.cause.reasons) {
      if (reason._tag === "Fail" && isLlmError(reason.error)) record.failures.push(reason.error)
    }
  }

  /** Only the first branch says how long an answer takes: of the others only the fast ones are seen to their end. */
  private observe(branch: Branch<A, E>, exit: Exit.Exit<A, E>): void {
    if (branch.number > 0 || this.whenStopped !== undefined) return
    const timedOut = exit._tag === "Failure" && tagOf(exit.cause) === "TimedOut"
    if (exit._tag === "Success" || this.winner !== undefined || timedOut) {
      this.rules.observe(this.record.now() - branch.startedAt)
    }
  }

  private tell(branch: Branch<A, E>, event: "HedgeLaunched" | "HedgeWon" | "HedgeLost", failure?: string): void {
    const { record } = this
    if (record.observer === undefined) return
    const base = {
      provider: branch.way.subject.name,
      model: branch.way.subject.model,
      hedge: branch.number,
      elapsedMs: record.now() - (event === "HedgeLaunched" ? this.startedAt : branch.startedAt),
    }
    if (event === "HedgeLost") record.emit({ event, ...base, ...(failure === undefined ? {} : { failure }) })
    else record.emit({ event, ...base })
  }
}

/** Runs a race. Its failure is that of the branch that failed last. */
export const race = <A, E>(rules: Rules<A, E>, record: CallRecord, context: Context.Context<never>) =>
  Effect.callback<A, E>((resume) => {
    const running = new Race<A, E>(rules, record, context, resume)
    running.run(rules.way(0)!, undefined)
    return Effect.suspend(() => running.stop())
  })
