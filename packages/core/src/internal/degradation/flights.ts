/**
 * Equal questions that are asked at the same time: one asks, the others wait
 * for what it gets.
 *
 * What the one that asks gets is everybody's, an answer or a failure. Its own
 * matters are its own: when its caller leaves, or its deadline passes, the next
 * in line asks.
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { CallRecord } from "../callRecord.ts"
import { DeadlineExceeded, isLlmError } from "../llmError.ts"
import { startTimer } from "../timer.ts"

/** What one who waits is told: how it ended, or that it is its turn. */
type Signal = Exit.Exit<unknown, unknown> | "your turn"

class Member {
  asking = false
  private signal: Signal | undefined
  private resume: ((signal: Signal) => void) | undefined

  tell(signal: Signal): void {
    this.signal = signal
    if (signal === "your turn") this.asking = true
    this.resume?.(signal)
  }

  /** Listens for the signal, which may have come already. */
  listen(resume: (signal: Signal) => void): void {
    if (this.signal === undefined) this.resume = resume
    else resume(this.signal)
  }
}

const flights = new WeakMap<object, Flights>()

/** The questions whose answers go into this store: whoever asks the same has the same key, whatever ladder it is. */
export const flightsOf = (store: object): Flights => {
  let own = flights.get(store)
  if (own === undefined) flights.set(store, (own = new Flights()))
  return own
}

/** The questions under way, by key. */
export class Flights {
  /** Who waits for the one that asks. */
  private readonly waiting = new Map<string, Set<Member>>()

  /** Asks, or waits for who asks the same. */
  join<A, E, R>(key: string, record: CallRecord, ask: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.suspend(() => {
      const member = new Member()
      // Entered inside of what leaves: an interruption can fall between.
      const entered = Effect.suspend(() =>
        this.enter(key, member)
          ? ask
          : Effect.flatMap(this.signalFor(member, record), (signal) =>
              signal === "your turn" ? ask : (signal as Exit.Exit<A, E>),
            ),
      )
      return Effect.onExitPrimitive(entered, (exit) => {
        this.leave(key, member, exit)
        return undefined
      })
    })
  }

  private enter(key: string, member: Member): boolean {
    const others = this.waiting.get(key)
    if (others === undefined) {
      this.waiting.set(key, new Set())
      return (member.asking = true)
    }
    others.add(member)
    return false
  }

  private leave(key: string, member: Member, exit: Exit.Exit<unknown, unknown>): void {
    const others = this.waiting.get(key)
    if (others === undefined) return
    if (!member.asking) {
      others.delete(member)
      return
    }
    if (isOwnMatter(exit)) {
      const [next] = others
      if (next !== undefined) {
        others.delete(next)
        next.tell("your turn")
        return
      }
    }
    this.waiting.delete(key)
    for (const other of others) other.tell(exit)
  }

  private signalFor(member: Member, record: CallRecord): Effect.Effect<Signal> {
    return Effect.withFiber(({ context }) =>
      Effect.callback<Signal>((resume) => {
        const left = record.deadlineAt - record.now()
        const cancel =
          left === Infinity
            ? undefined
            : startTimer(record.clock, context, Math.max(1, Math.ceil(left)), () =>
                resume(Effect.succeed(Exit.fail(tooLate(record)))),
              )
        member.listen((signal) => {
          cancel?.()
          resume(Effect.succeed(signal))
        })
        return Effect.sync(() => cancel?.())
      }),
    )
  }
}

const tooLate = (record: CallRecord): DeadlineExceeded =>
  new DeadlineExceeded({
    provider: record.composition,
    limit: Duration.millis(record.deadlineMillis),
    detail: "It waited for the answer to an equal call.",
  })

/** Is it about the caller that asked, and not about what was asked? */
const isOwnMatter = (exit: Exit.Exit<unknown, unknown>): boolean => {
  if (exit._tag === "Success") return false
  // Whatever its finalizers made of it on the way out.
  if (Cause.hasInterrupts(exit.cause)) return true
  const error = Cause.findErrorOption(exit.cause)
  return error._tag === "Some" && isLlmError(error.value) && error.value._tag === "DeadlineExceeded"
}
