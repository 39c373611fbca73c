/** Services as policies look them up in every call. */
import * as Context from "effect/Context"

/**
 * What `find` finds in a context. A context never changes, and the calls of a fiber, and of those that it forks, share
 * one: the last answer is remembered with its context.
 */
export const remembering = <A>(
  find: (context: Context.Context<never>) => A,
): ((context: Context.Context<never>) => A) => {
  let last: Context.Context<never> | undefined
  let found: A
  return (context) => {
    if (context !== last) {
      found = find(context)
      last = context
    }
    return found
  }
}

/** Looks a service up that whoever asks has in their type. */
export const lookup = <I, S>(key: Context.Key<I, S>): ((context: Context.Context<never>) => S) =>
  remembering((context) => Context.getUnsafe(context as Context.Context<I>, key))
