/**
 * The services of a provider, taken when a layer is built, for calls that are
 * made later by somebody else.
 *
 * A hook of `effect/ai` may need no services, so they are given to each call.
 * What a provider needs is what was there when its layer was built: a caller's
 * own HTTP client must not be used instead. What belongs to the caller stays
 * the caller's: its span, its clock, its overrides, who listens.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as References from "effect/References"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import { CurrentOverrides } from "../../Call.ts"
import { Current as CurrentClassifier } from "../../Classifier.ts"
import { FailureModes } from "../../FailureMode.ts"
import { CurrentObserver } from "../../PolicyEvent.ts"
import { CurrentCall } from "../callRecord.ts"

/** Keys whose value is the caller's, where it has one. */
const callers: ReadonlySet<string> = new Set(
  [
    Clock.Clock,
    Random.Random,
    Scope.Scope,
    ...[References, Scheduler, Tracer].flatMap((module) => Object.values(module).filter(Context.isKey)),
    CurrentOverrides,
    CurrentObserver,
    CurrentClassifier,
    FailureModes,
  ].map(({ key }) => key),
)

/** Gives the services that were there to effects and streams. */
export interface Ambient<R> {
  readonly effect: <A, E>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E>
  readonly stream: <A, E>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E>
  /** What a call of this caller sees. */
  readonly around: (caller: Context.Context<never>) => Context.Context<R>
}

/** Takes the services that are there now. */
export const ambient = <R>(): Effect.Effect<Ambient<R>, never, R> =>
  Effect.map(Effect.context<R>(), (context) => {
    const services = new Map<string, unknown>()
    const fallbacks = new Map<string, unknown>()
    for (const [key, value] of context.mapUnsafe) {
      // A call that is under way here is not the one that comes.
      if (key === CurrentCall.key) continue
      if (callers.has(key)) fallbacks.set(key, value)
      else services.set(key, value)
    }
    const own = Context.makeUnsafe<R>(services)
    const before = Context.makeUnsafe<never>(fallbacks)
    const around = (caller: Context.Context<never>): Context.Context<R> =>
      Context.merge(Context.merge(before, caller), own)
    return {
      effect: (self) => Effect.updateContext(self, around),
      stream: (self) => Stream.updateContext(self, around),
      around,
    }
  })
