/**
 * What policies find in a context, in every call.
 *
 * A context never changes, and the calls of a fiber, and of those that it forks,
 * share one. So what was found is remembered, with the one context that was used
 * last. A context in which a call goes on belongs to that call, and is not kept.
 */
import * as Context from "effect/Context"
import type { CallRecord } from "./callRecord.ts"

/** The record of the current call. */
export const CurrentCall = Context.Reference<CallRecord | undefined>("@understudy/core/internal/CallRecord", {
  defaultValue: () => undefined,
})

let last: Context.Context<never> | undefined
/** How many contexts were the last one. */
let generation = 0

/** What `find` finds in a context. */
export const remembering = <A>(
  find: (context: Context.Context<never>) => A,
): ((context: Context.Context<never>) => A) => {
  let foundIn = -1
  let found: A
  return (context) => {
    if (context !== last) {
      if (Context.get(context, CurrentCall) !== undefined) return find(context)
      last = context
      generation++
    }
    if (foundIn !== generation) {
      found = find(context)
      foundIn = generation
    }
    return found
  }
}

/** Looks a service up that whoever asks has in their type. */
export const lookup = <I, S>(key: Context.Key<I, S>): ((context: Context.Context<never>) => S) =>
  remembering((context) => Context.getUnsafe(context as Context.Context<I>, key))

/** The call that goes on in a context, if one does. */
export const callIn = (context: Context.Context<never>): CallRecord | undefined =>
  context === last ? undefined : Context.get(context, CurrentCall)
