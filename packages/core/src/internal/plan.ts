/** What an attempt is made of: plain data, to which policies add. */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Answer, Any, Part, Request, Subject } from "../Face.ts"
import type { Admission } from "./admission.ts"
import type { CallRecord } from "./callRecord.ts"
import type { Opened } from "./opened.ts"
import type { Rate } from "./pace.ts"
import type { Marked } from "./provider.ts"

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

/** A limit at the door of an attempt. */
export interface Gate {
  /** Lets a call in when there is room and nobody waits for it; otherwise nothing, and whoever wants to wait goes another way. */
  readonly enter: (context: Context.Context<never>, record: CallRecord) => Inside | undefined
}

/** Where a call is that was let in. */
export interface Inside {
  /** To be called exactly once. */
  readonly leave: (record: CallRecord) => void
}

/** What is done when an attempt has failed: it may be made again, by `run`. */
export type Again = <A, E, R>(error: E, run: () => Effect.Effect<A, E, R>, record: CallRecord) => Effect.Effect<A, E, R>

/** All that an attempt at a provider is made of. */
export interface Plan<F extends Any, E, R> {
  readonly name: string
  readonly model: string
  /** The two, as failures and events name who is asked. */
  readonly subject: Subject
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
  /** Of an attempt that goes straight through what is around it: its gate. */
  readonly gate?: Gate | undefined
  /** The same: what is done about its failures, outside the gate. */
  readonly again?: Again | undefined
}
