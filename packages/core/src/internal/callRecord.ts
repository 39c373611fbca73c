/** The engine's record of one call: plain fields, one for each call, found by a reference. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Random from "effect/Random"
import * as Cause from "effect/Cause"
import { CurrentOverrides, type Overrides } from "../Call.ts"
import { FailureModes, type Table } from "../FailureMode.ts"
import type { Tally } from "./directory/tally.ts"
import type { Budget } from "./limits/budget.ts"
import type { LlmError } from "./llmError.ts"
import { callIn, CurrentCall, remembering } from "./inContext.ts"
import { nowMillis } from "./timer.ts"
import { CurrentObserver, type Observer, type PolicyEvent, type Source } from "../PolicyEvent.ts"

export { CurrentCall, nowMillis }

/** What a call takes from the context in which it begins. */
export class Facts {
  readonly clock: Clock.Clock
  readonly random: { nextDoubleUnsafe(): number }
  readonly modes: Table
  readonly overrides: Overrides
  readonly observer: Observer | undefined

  constructor(context: Context.Context<never>) {
    this.clock = Context.get(context, Clock.Clock)
    this.random = Context.get(context, Random.Random)
    this.modes = Context.get(context, FailureModes)
    this.overrides = Context.get(context, CurrentOverrides)
    this.observer = Context.get(context, CurrentObserver)
  }
}

/** What a call takes from a context. */
export const factsOf = remembering((context) => new Facts(context))

/** What a call has done so far, and what bounds it. */
export class CallRecord {
  readonly composition: string
  private readonly facts: Facts
  readonly startedAt: number
  private readonly chance: number
  /** The instant by which the call must have ended; `Infinity` without one. */
  deadlineAt = Infinity
  deadlineMillis = Infinity
  /** Attempts so far, over all candidates. */
  attempts = 0
  /** Failures that a policy did not let through, in order. */
  readonly failures: Array<LlmError> = []
  /** Untried candidates that could be asked now. Set by the failover while it asks one. */
  alternatives: () => number = none
  /** What they may need for an attempt each, summed, in milliseconds. */
  alternativeNeeds: () => number = none
  /** How long backoffs may keep a call waiting while there are alternatives. */
  patience = Infinity
  /** At most so many attempts, counting one for each alternative. */
  maxAttempts = Infinity
  /** Who answered. */
  answered: { readonly provider: string; readonly model: string } | undefined
  /** The innermost budget of extra attempts around those who are asked now. */
  budget: Allowance | undefined
  /** Whose attempts are measured now: those of this candidate, as far as they are its own. */
  watched: Watched | undefined
  /** What compositions saw of their candidates when this call first asked them. */
  sights: Sight | undefined

  // What few calls need is theirs only when they set it: a record is made for every call.

  /** Only this candidate is asked, whatever the caller pinned: it has answered before. */
  declare pinned: string | undefined
  /** These candidates are passed over, besides those that the caller excluded. */
  declare passedOver: ReadonlyArray<string>
  /**
   * Who judges the answers of this call: somebody above the composition, so that those below leave them alone, or
   * somebody below, so that those above do.
   */
  declare judge: "nobody" | "above" | "below"
  /** Is there somebody above who shortens a prompt that is too long? */
  declare shortens: boolean
  /** This candidate is asked next although its circuit is open: the floor of a failover. */
  declare floor: string | undefined
  /** The rung of a ladder that the answer came from. */
  declare source: Source | undefined
  /** Was its end told? What happens later is no part of the call. */
  declare ended: boolean
  /** Is this a branch of a hedge that is beside the first? It does not wait at limits. */
  declare extra: boolean
  /** The parts that have begun in it, the last one first. */
  declare parts: Part | undefined
  declare private waits: Map<string, number> | undefined
  /** Of a branch: how many failures it began with. */
  declare private readonly inherited: number

  static {
    const untouched: Pick<CallRecord, "ended" | "extra" | "judge" | "passedOver" | "shortens"> = {
      ended: false,
      extra: false,
      judge: "nobody",
      passedOver: [],
      shortens: false,
    }
    Object.assign(this.prototype, untouched)
  }

  constructor(facts: Facts, composition: string) {
    this.composition = composition
    this.facts = facts
    // Drawn whether or not someone listens, so that listening changes no other chance.
    this.chance = facts.random.nextDoubleUnsafe()
    this.startedAt = nowMillis(facts.clock)
    const { deadline } = facts.overrides
    if (deadline !== undefined) this.bound(Duration.toMillis(deadline))
  }

  get clock(): Clock.Clock {
    return this.facts.clock
  }

  get random(): { nextDoubleUnsafe(): number } {
    return this.facts.random
  }

  get modes(): Table {
    return this.facts.modes
  }

  get overrides(): Overrides {
    return this.facts.overrides
  }

  get observer(): Observer | undefined {
    return this.facts.observer
  }

  get id(): string {
    return Math.floor(this.chance * 0x1_0000_0000)
      .toString(16)
      .padStart(8, "0")
  }

  now(): number {
    return nowMillis(this.facts.clock)
  }

  elapsed(): number {
    return this.now() - this.startedAt
  }

  private bound(millis: number): void {
    this.deadlineMillis = millis
    this.deadlineAt = this.startedAt + millis
  }

  /** What a failover sets while it asks. */
  get bounds(): Bounds {
    const { alternativeNeeds, alternatives, maxAttempts, patience } = this
    return { alternatives, alternativeNeeds, patience, maxAttempts }
  }

  /** They are as they were. */
  rebound({ alternativeNeeds, alternatives, maxAttempts, patience }: Bounds): void {
    this.alternatives = alternatives
    this.alternativeNeeds = alternativeNeeds
    this.patience = patience
    this.maxAttempts = maxAttempts
  }

  /** Attempts that were begun here: those of a branch are its own. */
  get begun(): number {
    return this.attempts
  }

  /** What a composition saw when this call first asked it. */
  seen(owner: object): unknown {
    let sight = this.sights
    while (sight !== undefined && sight.owner !== owner) sight = sight.next
    return sight?.view
  }

  /** A composition saw this, and goes on seeing it for as long as the call lasts. */
  see(owner: object, view: unknown): void {
    if (this.seen(owner) === undefined) this.sights = { owner, view, next: this.sights }
  }

  /** How long the call has waited at a provider so far: backoffs and queues, which the patience bounds. */
  waited(provider: string): number {
    return this.waits?.get(provider) ?? 0
  }

  /** It waited so long at a provider. */
  wait(provider: string, millis: number): void {
    this.waits ??= new Map()
    this.waits.set(provider, this.waited(provider) + millis)
  }

  /**
   * A branch: it goes its own way beside others, in the same call. It numbers its attempts with them, sees what bounds the
   * call, and keeps to itself what it sets, until it is joined.
   */
  fork(): CallRecord {
    const branch: CallRecord & Rooted = Object.assign(Object.create(branchPrototype), this)
    branch.root = this
    branch.begunHere = 0
    return Object.assign(branch, {
      failures: [...this.failures],
      inherited: this.failures.length,
      parts: undefined,
      waits: this.waits === undefined ? undefined : new Map(this.waits),
    })
  }

  /** A branch is over: what it did not let through is the call's. */
  rejoin(branch: CallRecord): void {
    this.failures.push(...branch.failures.slice(branch.inherited))
  }

  /** A branch gave the answer. */
  adopt(branch: CallRecord): void {
    this.answered = branch.answered
    this.source = branch.source
    this.judge = branch.judge
  }

  /** Sets the composition's deadline; one that the caller set stays, and of two the earlier counts. */
  limit(millis: number): void {
    if (this.overrides.deadline === undefined && this.startedAt + millis < this.deadlineAt) this.bound(millis)
  }

  /** Tells the observer. Ask `observer !== undefined` first, so that nothing is built for nobody. */
  emit<const E extends Fact>(fact: E): void {
    if (this.observer === undefined) return
    try {
      const at = Math.round(this.clock.currentTimeMillisUnsafe())
      const told: unknown = this.observer({ ...fact, at, call: this.id } as PolicyEvent)
      // Nor does an async one that rejects.
      if (told instanceof Promise) told.catch(() => undefined)
    } catch {
      // An observer that throws changes nothing.
    }
  }
}

/** What bounds those who are asked now. */
export type Bounds = Readonly<Pick<CallRecord, "alternatives" | "alternativeNeeds" | "patience" | "maxAttempts">>

/** A part of a call that has begun, and what held before. */
interface Part {
  readonly bounds: Bounds
  readonly watched: Watched | undefined
  over: boolean
  /** The one that began before it, and had not ended then. */
  readonly outer: Part | undefined
}

/** A candidate whose attempts are measured. */
interface Watched {
  readonly provider: { readonly name: string }
  readonly tally: Tally | undefined
}

/** What a composition saw of its candidates; and what others did. */
interface Sight {
  readonly owner: object
  readonly view: unknown
  readonly next: Sight | undefined
}

/** What a branch has besides a copy of what the record held when it was made. */
interface Rooted {
  root: CallRecord | undefined
  begunHere: number
}

/** What a branch shares with the others and with the record that it is of: everything else is its own. */
const branchPrototype = Object.create(CallRecord.prototype, {
  attempts: {
    get(this: Rooted) {
      return this.root?.attempts
    },
    set(this: Rooted, attempts: number) {
      // While the record is copied there is nobody yet to share with.
      if (this.root === undefined) return
      this.begunHere += attempts - this.root.attempts
      this.root.attempts = attempts
    },
  },
  begun: {
    get(this: Rooted) {
      return this.begunHere
    },
  },
  // Whoever comes first uses it up.
  floor: {
    get(this: Rooted) {
      return this.root?.floor
    },
    set(this: Rooted, floor: string | undefined) {
      if (this.root !== undefined) this.root.floor = floor
    },
  },
  // A call sees one and the same, wherever it looks from.
  sights: {
    get(this: Rooted) {
      return this.root?.sights
    },
    set(this: Rooted, sights: Sight | undefined) {
      if (this.root !== undefined) this.root.sights = sights
    },
  },
  ended: {
    get(this: Rooted) {
      return this.root?.ended
    },
    set(this: Rooted, ended: boolean) {
      if (this.root !== undefined) this.root.ended = ended
    },
  },
})

/** A budget of extra attempts, and for whom it is. */
export interface Allowance {
  readonly budget: Budget
  /** Providers for whose extra attempts it is, by name. */
  readonly names: ReadonlyArray<string>
  /** The next one outwards. */
  readonly outer: Allowance | undefined
}

type Fact = PolicyEvent extends infer E ? (E extends PolicyEvent ? Omit<E, "at" | "call"> : never) : never

const none = () => 0

/** The tag of a cause's failure, for events. */
export const tagOf = (cause: Cause.Cause<unknown>): string => {
  for (const reason of cause.reasons) {
    if (reason._tag === "Fail") {
      const error = reason.error
      return typeof error === "object" && error !== null && "_tag" in error && typeof error._tag === "string"
        ? error._tag
        : "Error"
    }
  }
  return cause.reasons.some((reason) => reason._tag === "Die") ? "Defect" : "Interrupted"
}

const textOr = (text: () => string): string => {
  try {
    return text()
  } catch {
    // A face that cannot tell the text changes nothing.
    return ""
  }
}

/** Tells how the call ended. */
export const callEnded = (record: CallRecord, exit: Exit.Exit<unknown, unknown>, text: () => string): void => {
  record.ended = true
  if (record.observer === undefined) return
  const elapsedMs = record.elapsed()
  const { attempts } = record
  if (exit._tag === "Success") {
    record.emit({
      event: "Answered",
      provider: record.answered?.provider ?? record.composition,
      ...(record.answered === undefined ? {} : { model: record.answered.model }),
      composition: record.composition,
      ...(record.source === undefined ? {} : { source: record.source }),
      text: textOr(text),
      attempts,
      elapsedMs,
    })
  } else if (Cause.hasInterruptsOnly(exit.cause)) {
    record.emit({ event: "CallInterrupted", provider: record.composition, attempts, elapsedMs })
  } else {
    record.emit({ event: "CallFailed", provider: record.composition, failure: tagOf(exit.cause), attempts, elapsedMs })
  }
}

/**
 * Runs an effect inside the current call, or, when there is none, as a call of
 * its own whose end `onEnd` tells. It is told the time. `handsOn`: it sees to it
 * itself that whoever may look for the call finds it.
 */
export const withCall = <A, E, R>(
  composition: string,
  self: (record: CallRecord, now: number, outermost: boolean) => Effect.Effect<A, E, R>,
  onEnd: (record: CallRecord, exit: Exit.Exit<A, E>) => void,
  handsOn = false,
): Effect.Effect<A, E, R> =>
  Effect.withFiber(({ context }) => {
    const current = callIn(context)
    if (current !== undefined) return part(current, self)
    return newCall(new CallRecord(factsOf(context), composition), self, onEnd, handsOn)
  })

/** A part of a call. Whoever asked may ask again, so what is lent there is taken back when it is over. */
const part = <A, E, R>(
  record: CallRecord,
  self: (record: CallRecord, now: number, outermost: boolean) => Effect.Effect<A, E, R>,
): Effect.Effect<A, E, R> => {
  const begun: Part = { bounds: record.bounds, watched: record.watched, over: false, outer: record.parts }
  record.parts = begun
  return Effect.onExitPrimitive(self(record, record.now(), false), () => {
    begun.over = true
    // Of parts that overlap the last one to end takes back what all of them lent.
    for (let last = record.parts; last?.over === true; last = last.outer) {
      record.rebound(last.bounds)
      record.watched = last.watched
      record.parts = last.outer
    }
    return undefined
  })
}

/** The same for the record of a call that has just been made. To be called in the fiber of the call. */
export const newCall = <A, E, R>(
  record: CallRecord,
  self: (record: CallRecord, now: number, outermost: boolean) => Effect.Effect<A, E, R>,
  onEnd: (record: CallRecord, exit: Exit.Exit<A, E>) => void,
  handsOn: boolean,
): Effect.Effect<A, E, R> => {
  if (handsOn && record.observer === undefined) return self(record, record.startedAt, true)
  const begin = () => self(record, record.now(), true)
  const run = (): Effect.Effect<A, E, R> =>
    handsOn ? begin() : Effect.provideService(Effect.suspend(begin), CurrentCall, record)
  if (record.observer === undefined) return run()
  // The beginning is told inside of what tells the end: an interruption can fall between.
  let begun = false
  const told = Effect.suspend(() => {
    begun = true
    record.emit({ event: "CallStarted", provider: record.composition })
    return run()
  })
  return Effect.onExitPrimitive(told, (exit) => {
    if (begun) onEnd(record, exit)
    return undefined
  })
}
