/**
 * Circuit breakers: a provider that keeps failing is not asked for a while, so
 * that calls do not pile up waiting for it.
 *
 * One circuit for each provider and model, and one for its account. Closed, it
 * lets every call through; after 5 counted failures in a row it opens, and calls
 * fail at once with `CircuitOpen`. After 60 seconds it lets probes through: three
 * successes close it, one counted failure opens it again.
 *
 * **Details**
 *
 * - What counts is the `health` cell of `FailureMode`: an outage counts, a
 *   refused prompt does not. Defects count. An attempt that its caller
 *   interrupted says nothing.
 * - A refused key and a spent quota open the circuit of the account, for all its
 *   models; a model that is not there opens its own. Candidates of one account
 *   say so with `account`; by default it is named like the provider.
 * - What trips a circuit: failures in a row, so many failures or such a share of
 *   the last so many calls or of the last so long, a share of slow calls; any of
 *   several.
 * - A hint longer than the patience opens the circuit at once until the hint
 *   ends, at most `maxHint`. A shorter one only counts. A circuit that tripped
 *   stays open for the longer of its open time and the hint.
 * - A stream is judged by its end, not by its first part.
 * - Calls that bring a key of their own (`Call.withCredential`) have a circuit of
 *   their own, to which rate limits, quotas and refused keys say nothing: one
 *   user's account does not take the provider away from the others. It is one for
 *   all such calls, so users do not make the circuits grow, and no key, nor
 *   anything made of one, is kept.
 * - The outcome of a call that was admitted before the circuit changed its
 *   state changes nothing.
 * - The attempt's clocks always run inside the breaker, in whichever order
 *   `Timeouts.with` and `CircuitBreaker.with` are applied: a hung provider
 *   counts.
 * - The circuits live in a service, `Circuits`, given by `CircuitBreaker.layer`,
 *   which also tells their states and takes them in hand: `isolate`, `release`,
 *   `open`, `probe`, `close`, `disable`, `enable`.
 *
 * **Gotchas**
 *
 * - Put `Retry` outside the breaker: the breaker judges every attempt, and an
 *   open circuit is not retried.
 * - One set of options for each key: those of the first policy that uses a key
 *   are the key's.
 * - The total time of a stream holds the time that its consumer took. Judge slow
 *   streams by their first content, which is the default.
 *
 * The pattern is Nygard's, "Release It!", 2007.
 *
 * **Example** (Half of the calls of the last minute fail, or are slow)
 *
 * ```ts
 * import { CircuitBreaker, type LanguageModelFace, type LlmError, type Provider } from "@understudy/core"
 *
 * type Model = Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.ProviderFailure>
 *
 * export const guarded = (model: Model) =>
 *   model.pipe(
 *     CircuitBreaker.with({
 *       trip: [
 *         { on: "failure rate", rate: 0.5, within: "1 minute", minimum: 20 },
 *         { on: "slow rate", slow: "10 seconds", rate: 0.5, within: "1 minute", minimum: 20 },
 *       ],
 *       openFor: { base: "30 seconds", factor: 2, cap: "10 minutes" },
 *     }),
 *   )
 * ```
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import type * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import { credentialFor } from "./Call.ts"
import type { Any, Hidden, Part } from "./Face.ts"
import { type Admission, circuitOpen, isClear } from "./internal/admission.ts"
import { Breaker, type Mode, type Outcome, rejected, type State } from "./internal/breaker/machine.ts"
import { Options, type Rules, rulesOf, Trip } from "./internal/breaker/options.ts"
import { Registry } from "./internal/breaker/registry.ts"
import { type Reason, Tripper } from "./internal/breaker/tripper.ts"
import { type CallRecord, nowMillis } from "./internal/callRecord.ts"
import type { CircuitOpen, StreamInterrupted } from "./internal/llmError.ts"
import { lookup } from "./internal/inContext.ts"
import { checked, Count, DurationInput } from "./internal/options.ts"
import type { Policy, Provider, Readiness } from "./internal/provider.ts"
import { compositePlan, fromEffect, fromPlan, fromStream, planOf } from "./internal/provider.ts"
import { CurrentObserver } from "./PolicyEvent.ts"

export {
  /** How a circuit behaves. Plain data. */
  Options,
  /** What trips a closed circuit. Plain data. */
  Trip,
}

/** What a breaker learns from an outcome; the states; who has the last word; and why a circuit opened. */
export type { Mode, Outcome, Reason, Rules, State }

/** A circuit, and what trips one. */
export type { Breaker, Tripper }

// -----------------------------------------------------------------------------
// The machine by itself
// -----------------------------------------------------------------------------

/** Options as the machine wants them. Throws `InvalidOptions`. */
export const rules = (options: Options & Scheduled = {}): Rules => rulesOf("CircuitBreaker.rules", options)

/**
 * A circuit by itself: synchronous, and told the time in milliseconds. For
 * simulations and tests of a policy; `with`, `effect` and `stream` take theirs
 * from `Circuits`.
 *
 * `admit(now)` gives a ticket, or `rejected`; `record(ticket, outcome, now)` takes it back.
 */
export const machine = (options: Options & Scheduled = {}): Breaker =>
  new Breaker(rulesOf("CircuitBreaker.machine", options))

/** What trips a circuit, by itself: `record(failed, now)` says why it trips, if it does. */
export const tripper = (options: Pick<Options, "failures" | "trip"> = {}): Tripper =>
  new Tripper(rulesOf("CircuitBreaker.tripper", options))

export {
  /** What `admit` gives when a call is rejected. */
  rejected,
}

// -----------------------------------------------------------------------------
// The circuits
// -----------------------------------------------------------------------------

/** A circuit, seen from outside. */
export interface Status {
  readonly key: string
  readonly state: State
  /** Who has the last word: the outcomes, or somebody by hand. */
  readonly mode: Mode
  /** When its state changed last, in milliseconds of Unix time. */
  readonly since: number
  /** How long until it lets probes through, while it is open; nothing while it is isolated. */
  readonly retryAfter: Duration.Duration | undefined
  /** Counted failures in a row, while it is closed. */
  readonly failures: number
  /** The outcomes it goes by: of its window (without one, all since it closed), of its probes while it is half-open, and while it is open what it opened for. */
  readonly counts: {
    readonly calls: number
    readonly failures: number
    readonly slow: number
    /** Shares of the calls, 0 when there are none. */
    readonly failureRate: number
    readonly slowRate: number
  }
  /** Probes that hold a permit. */
  readonly probes: number
  /** Rejections since the state changed; for one that is disabled, those that would have been. */
  readonly rejections: number
  /** Openings in a row. */
  readonly openings: number
  /** When, in milliseconds of Unix time, and why it opened last. */
  readonly lastTrip: { readonly at: number; readonly reason: Reason } | undefined
  /** The key of its account's circuit. */
  readonly account: string | undefined
}

/** What can be done to a circuit by hand, and what it is then. Each is told as a `CircuitSet` event when it changes something. */
export interface ByHand {
  /** Opens it until it is released, as often as it was isolated. */
  readonly isolate: (key: string) => Effect.Effect<Status>
  /** Takes back one `isolate`; the last one closes it. */
  readonly release: (key: string) => Effect.Effect<Status>
  /** Opens it, for so long or for its own open time. It then goes on by itself. */
  readonly open: (key: string, duration?: Duration.Input) => Effect.Effect<Status>
  /** Lets probes through at once. */
  readonly probe: (key: string) => Effect.Effect<Status>
  /** Closes it, and forgets what it has seen. Ends an isolation. */
  readonly close: (key: string) => Effect.Effect<Status>
  /**
   * It rejects nothing from here on. It begins anew, closed, records, and tells the events that it would have caused,
   * marked as `shadow`; or, with `recording: false`, it does not even that.
   */
  readonly disable: (key: string, options?: { readonly recording?: boolean }) => Effect.Effect<Status>
  /** It rejects again: from the state in which its shadow is. */
  readonly enable: (key: string) => Effect.Effect<Status>
}

/** The circuits of a process, by key: `provider/model`, `provider/model@account` for a named one, and `account/*`. */
export class Circuits extends Context.Service<
  Circuits,
  ByHand & {
    /**
     * The circuit of a key; made with these rules when it is new, in the account with this key. Synchronous, since it is
     * on every call's way.
     */
    readonly get: (key: string, rules: Rules, now?: number, account?: string) => Breaker
    /** All circuits there are. */
    readonly status: Effect.Effect<ReadonlyArray<Status>>
    /** May a failover let a probe of its floor through now? At most once in so many milliseconds for each failover. */
    readonly floor: (failover: object, now: number, every: number) => boolean
  }
>()("@understudy/core/CircuitBreaker/Circuits") {}

/** How circuits are kept. */
export const LayerOptions = Schema.Struct({
  /** Circuits at most, those of accounts among them. Idle ones make room for new ones. Default 10,000. */
  capacity: Schema.optional(Count),
})

/** How circuits are kept. */
export interface LayerOptions extends Schema.Schema.Type<typeof LayerOptions> {}

/** What the clocks say, and the difference between them. */
const readClocks = (clock: Clock.Clock) => {
  const now = nowMillis(clock)
  return { now, wall: clock.currentTimeMillisUnsafe() - now }
}

const statusOf = (circuit: Breaker, { now, wall }: ReturnType<typeof readClocks>): Status => {
  const left = circuit.retryAfter(now)
  const { calls, failures, slow } = circuit.counts(now)
  const { lastTrip } = circuit
  return {
    key: circuit.key,
    state: circuit.state,
    mode: circuit.mode,
    since: Math.round(wall + circuit.since),
    retryAfter: left === undefined || left === Infinity ? undefined : Duration.millis(left),
    failures: circuit.consecutive,
    counts: {
      calls,
      failures,
      slow,
      failureRate: calls === 0 ? 0 : failures / calls,
      slowRate: calls === 0 ? 0 : slow / calls,
    },
    probes: circuit.probesAt(now),
    rejections: circuit.rejections,
    openings: circuit.openings,
    lastTrip: lastTrip === undefined ? undefined : { at: Math.round(wall + lastTrip.at), reason: lastTrip.reason },
    account: circuit.account?.key,
  }
}

const makeCircuits = (options: LayerOptions): Circuits["Service"] => {
  const registry = new Registry(options.capacity ?? 10_000)
  const floors = new WeakMap<object, number>()
  const unused = rules()

  /** Does something to a circuit, and tells it when it changed something. */
  const byHand = (
    key: string,
    to: Told,
    act: (circuit: Breaker, now: number, random: typeof Random.Random.Service) => void,
  ) =>
    Effect.withFiber((fiber) => {
      const clocks = readClocks(fiber.getRef(Clock.Clock))
      const circuit = registry.byHand(key, unused, clocks.now)
      const before = `${circuit.state} ${circuit.mode}`
      act(circuit, clocks.now, fiber.getRef(Random.Random))
      if (`${circuit.state} ${circuit.mode}` !== before) {
        try {
          fiber.getRef(CurrentObserver)?.({
            event: "CircuitSet",
            at: Math.round(clocks.wall + clocks.now),
            call: "by hand",
            provider: key,
            circuit: key,
            to,
          })
        } catch {
          // An observer that throws changes nothing.
        }
      }
      return Effect.succeed(statusOf(circuit, clocks))
    })

  return {
    get: (key, rules, now = 0, account) => registry.get(key, rules, now, account),
    floor: (failover, now, every) => {
      if (now - (floors.get(failover) ?? -Infinity) < every) return false
      floors.set(failover, now)
      return true
    },
    status: Effect.clockWith((clock) =>
      Effect.sync(() => {
        const clocks = readClocks(clock)
        return [...registry.circuits.values()].map((circuit) => statusOf(circuit, clocks))
      }),
    ),
    isolate: (key) => byHand(key, "isolated", (circuit, now) => circuit.isolate(now)),
    release: (key) => byHand(key, "released", (circuit, now) => circuit.release(now)),
    open: (key, duration) => {
      const millis =
        duration === undefined
          ? undefined
          : Duration.toMillis(Duration.fromInputUnsafe(checked("Circuits.open", DurationInput, duration)))
      return byHand(key, "opened", (circuit, now, random) => circuit.trip(now, millis, random))
    },
    probe: (key) => byHand(key, "probing", (circuit, now) => circuit.halfOpen(now)),
    close: (key) => byHand(key, "closed", (circuit, now) => circuit.close(now)),
    disable: (key, { recording = true } = {}) =>
      byHand(key, "disabled", (circuit, now) => circuit.disable(now, recording)),
    enable: (key) => byHand(key, "enabled", (circuit, now) => circuit.enable(now)),
  }
}

type Told = "isolated" | "released" | "opened" | "probing" | "closed" | "disabled" | "enabled"

/** Circuits in memory, for one process; 10,000 at most. */
export const layer: Layer.Layer<Circuits> = Layer.sync(Circuits)(() => makeCircuits({}))

/** The same with options. Throws `InvalidOptions`. */
export const layerWith = (options: LayerOptions): Layer.Layer<Circuits> => {
  const o = checked("CircuitBreaker.layerWith", LayerOptions, options)
  return Layer.sync(Circuits)(() => makeCircuits(o))
}

// -----------------------------------------------------------------------------
// The policy
// -----------------------------------------------------------------------------

const circuitsIn = lookup(Circuits)

interface Keys {
  readonly own: string
  readonly account: string | undefined
}

const admissionOf = (keys: Keys, rules: Rules, classify: ((error: unknown) => Outcome) | undefined): Admission => {
  // One lookup for each set of circuits, not for each call.
  let known: Circuits["Service"] | undefined
  let circuit: Breaker | undefined
  return {
    classify,
    circuit: (context, ownKey, now) => {
      const circuits = circuitsIn(context)
      if (ownKey) return circuits.get(`${keys.own}#call`, rules, now)
      if (circuit === undefined || circuits !== known || !circuit.registered) {
        known = circuits
        circuit = circuits.get(keys.own, rules, now, keys.account)
      }
      return circuit
    },
  }
}

/** A schedule of one's own. */
export interface Scheduled {
  /** The delay for each opening in a row, instead of `openFor`; the last one repeats. It must not be asynchronous. */
  readonly schedule?: Schedule.Schedule<unknown, number> | undefined
}

interface With extends Options, Scheduled {
  /**
   * The circuit's key, which then has no account but one that is named. Default: the provider's name and model, and the
   * account where it is named.
   */
  readonly key?: string | undefined
  /** Judges failures that are not of the union. The default counts them. */
  readonly classify?: ((error: unknown) => Outcome) | undefined
}

const split = ({ classify, key, ...options }: With) => ({ classify, key, options })

/** How long a circuit must have been open before a failover probes it all the same. */
const floorEvery = 1000

/** What a failover may know of two circuits before it asks: nothing, when both are ready. */
const readiness = (
  context: Context.Context<never>,
  record: CallRecord,
  who: { readonly name: string; readonly model: string },
  circuit: Breaker,
  at: number,
): Readiness | undefined => {
  if (isClear(circuit)) return undefined
  const both = circuit.account === undefined ? [circuit] : [circuit.account, circuit]
  const closed = both.filter((one) => !one.ready(at))
  const [first] = closed
  if (first === undefined) return undefined
  return {
    ready: false,
    rejection: () => {
      first.admit(record.now())
      return circuitOpen(record, who, first, record.now())
    },
    circuit: closed.some((one) => one.state === "half-open") ? "half-open" : "open",
    waits: closed.every((one) => one.mayWait(at)),
    floor: closed.every((one) => one.mayFloor(at) && at - one.since >= floorEvery)
      ? {
          opensAt: Math.max(...closed.map((one) => one.openUntil)),
          // Nothing but an operator helps against a refused key or a missing model.
          hopeless: closed.some((one) => one.lastTrip?.reason === "at once"),
          turn: (failover) => circuitsIn(context).floor(failover, at, floorEvery),
        }
      : undefined,
  }
}

/**
 * Asks a provider only while its circuit lets calls through.
 *
 * Adds `CircuitOpen`, and needs `Circuits`.
 */
const with_ = (options: With = {}): Policy<CircuitOpen, Circuits> => {
  const { classify, key, options: rest } = split(options)
  const policy = rulesOf("CircuitBreaker.with", rest)
  return <F extends Any, E, R>(self: Provider<F, E, R>): Provider<F, E | CircuitOpen, R | Circuits> => {
    const plan = planOf(self)
    const single = plan !== undefined && plan.admission === undefined
    // Of a composition, and under a key of one's own, it is not known whose account it would be.
    const account = rest.account ?? (single && key === undefined ? self.name : undefined)
    const keys = {
      own: key ?? `${self.name}/${self.model}${account === undefined || account === self.name ? "" : `@${account}`}`,
      account: account === undefined ? undefined : `${account}/*`,
    }
    const admission = admissionOf(keys, policy, classify)
    const peek = (context: Context.Context<never>, record: CallRecord, at: number): Readiness | undefined => {
      const ownKey = credentialFor(record.overrides, self.name) !== undefined
      return readiness(context, record, self, admission.circuit(context, ownKey, at), at)
    }
    return fromPlan<F, E | CircuitOpen, R | Circuits>({ ...(single ? plan : compositePlan(self)), admission }, peek)
  }
}

export { with_ as with }

/** Guards an effect. Failures of the union are judged by the table, others by `classify`, or they count. */
export const effect = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  options: With & { readonly key: string },
): Effect.Effect<A, E | CircuitOpen, R | Circuits> =>
  fromEffect(self, { name: options.key }).pipe(with_(options)).generate()

/** Guards a stream, which is judged by its end. Needs the face of its parts, which knows content and end marker. */
export const stream = <F extends Any, E, R>(
  self: Stream.Stream<Part<F>, E, R>,
  options: With & { readonly key: string; readonly face: F },
): Stream.Stream<Part<F>, E | Hidden<F> | CircuitOpen | StreamInterrupted, R | Circuits> => {
  const { face, ...rest } = options
  return fromStream(self, { face, name: options.key })
    .pipe(with_(rest))
    .stream(undefined as never)
}
