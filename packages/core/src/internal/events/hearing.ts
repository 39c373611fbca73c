/** Observers as layers, so that those which are merged are all heard, and none replaces another. */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Observer } from "../../PolicyEvent.ts"

/** Those who listen below the layers of one build, after those who listened before. */
class Audience {
  readonly before: Observer | undefined
  readonly observers = new Set<Observer>()
  /** What the layers give: the same for all of them, so it does not matter whose is used. */
  readonly hear: Observer = (event) => {
    tell(this.before, event)
    for (const observer of this.observers) tell(observer, event)
  }

  constructor(before: Observer | undefined) {
    this.before = before
  }
}

const tell = (observer: Observer | undefined, event: Parameters<Observer>[0]): void => {
  try {
    const told: unknown = observer?.(event)
    if (told instanceof Promise) told.catch(() => undefined)
  } catch {
    // Who throws is as if he had not listened, and the others hear all the same.
  }
}

// Layers that are built together share a memo map; those that are provided further in get one of their own.
const audiences = new WeakMap<Layer.MemoMap, Set<Audience>>()

const leave = (memoMap: Layer.MemoMap | undefined, audience: Audience, observer: Observer): void => {
  audience.observers.delete(observer)
  if (memoMap !== undefined && audience.observers.size === 0) audiences.get(memoMap)?.delete(audience)
}

const join = (memoMap: Layer.MemoMap | undefined, current: Observer | undefined): Audience => {
  if (memoMap === undefined) return new Audience(current)
  let known = audiences.get(memoMap)
  if (known === undefined) audiences.set(memoMap, (known = new Set()))
  for (const audience of known) if (audience.before === current || audience.hear === current) return audience
  const audience = new Audience(current)
  known.add(audience)
  return audience
}

/** A layer that adds an observer to those of a reference. */
export const layerHearing = <E, R>(
  reference: Context.Reference<Observer | undefined>,
  make: Effect.Effect<Observer, E, R>,
): Layer.Layer<never, E, Exclude<R, Scope.Scope>> =>
  Layer.effect(reference)(
    Effect.gen(function* () {
      const observer = yield* make
      const memoMap = Option.getOrUndefined(yield* Effect.serviceOption(Layer.CurrentMemoMap))
      const current = yield* reference
      const { audience } = yield* Effect.acquireRelease(
        Effect.sync(() => {
          const audience = join(memoMap, current)
          // One for each layer, so that a layer which closes takes nobody else's away.
          const own: Observer = (event) => observer(event)
          audience.observers.add(own)
          return { audience, own }
        }),
        ({ audience, own }) => Effect.sync(() => leave(memoMap, audience, own)),
      )
      return audience.hear
    }),
  ) as Layer.Layer<never, E, Exclude<R, Scope.Scope>>
