/**
 * Circuit breakers: a provider that keeps failing is not asked for a while, so
 * that calls do not pile up waiting for it.
 *
 * One circuit for each provider and model. Closed, it lets every call through;
 * after 5 counted failures in a row it opens, and calls fail at once with
 * `CircuitOpen`. After 60 seconds it lets probes through: three successes close
 * it, one counted failure opens it again.
 *
 * **Details**
 *
 * - What counts is the `health` cell of `FailureMode`: an outage counts, a
 *   refused prompt does not, a dead key opens the circuit at once. Defects
 *   count. An attempt that its caller interrupted says nothing.
 * - A hint longer than the patience opens the circuit at once until the hint
 *   ends, at most `maxHint`. A shorter one only counts. A circuit that its
 *   threshold tripped stays open for the longer of `openFor` and the hint.
 * - A stream is judged by its end, not by its first part.
 * - Calls that bring a key of their own (`Call.withCredential`) have a circuit of
 *   their own, to which rate limits, quotas and refused keys say nothing: one
 *   user's account does not take the provider away from the others.
 * - The outcome of a call that was admitted before the circuit changed its
 *   state changes nothing.
 * - The attempt's clocks always run inside the breaker, in whichever order
 *   `Timeouts.with` and `CircuitBreaker.with` are applied: a hung provider
 *   counts.
 * - The circuits live in a service, `Circuits`, given by `CircuitBreaker.layer`.
 *
 * **Gotchas**
 *
 * - Put `Retry` outside the breaker: the breaker judges every attempt, and an
 *   open circuit is not retried.
 * - One set of numbers for each key: the numbers of the first policy that uses
 *   a key are the key's.
 *
 * The pattern is Nygard's, "Release It!", 2007.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import { credentialFor } from "./Call.ts"
import type { Any, Hidden, Part } from "./Face.ts"
import { type Admission, circuitOpen, tellState } from "./internal/attempt.ts"
import { Breaker, type Numbers, type Outcome, type State } from "./internal/breaker.ts"
import type { CallRecord } from "./internal/callRecord.ts"
import { checked, Count, DurationInput, millis } from "./internal/options.ts"
import type { CircuitOpen, StreamInterrupted } from "./internal/llmError.ts"
import type { Policy, Provider, Readiness } from "./internal/provider.ts"
import { compositePlan, fromEffect, fromPlan, fromStream, planOf } from "./internal/provider.ts"

/** How a circuit behaves. */
export const Options = Schema.Struct({
  /** Counted failures in a row that open it. Default 5. */
  failures: Schema.optional(Count),
  /** How long it stays open. Default 60 seconds. */
  openFor: Schema.optional(DurationInput),
  /** Probes in flight at most, while half-open. Default 3. */
  permits: Schema.optional(Count),
  /** Probes that must succeed to close it. Default 3. */
  successes: Schema.optional(Count),
  /** A hint longer than this opens it at once. Default 2 seconds. */
  patience: Schema.optional(DurationInput),
  /** The longest that a hint can keep it open. Default 1 hour. */
  maxHint: Schema.optional(DurationInput),
  /** When no probe has come back for so long, the probes count as failed. Default 3 minutes. */
  probeLimit: Schema.optional(DurationInput),
})

/** How a circuit behaves. */
export interface Options extends Schema.Schema.Type<typeof Options> {}

const numbers = (where: string, options: Options): Numbers => {
  const o = checked(where, Options, options)
  return {
    failures: o.failures ?? 5,
    openFor: millis(o.openFor, "60 seconds"),
    permits: o.permits ?? 3,
    successes: o.successes ?? 3,
    patience: millis(o.patience, "2 seconds"),
    maxHint: millis(o.maxHint, "1 hour"),
    probeLimit: millis(o.probeLimit, "3 minutes"),
  }
}

/** What a breaker learns from an outcome. */
export type { Outcome, State }

/** A circuit, seen from outside. */
export interface Status {
  readonly key: string
  readonly state: State
  /** How long until it lets probes through, while it is open. */
  readonly retryAfter: Duration.Duration | undefined
  /** Counted failures in a row, while it is closed. */
  readonly failures: number
}

/** The circuits of a process, by key. */
export class Circuits extends Context.Service<
  Circuits,
  {
    /** The circuit of a key; made with these numbers when it is new. */
    readonly get: (key: string, numbers: Numbers) => Breaker
    /** All circuits there are. */
    readonly status: Effect.Effect<ReadonlyArray<Status>>
  }
>()("@understudy/core/CircuitBreaker/Circuits") {}

const makeCircuits = (): Circuits["Service"] => {
  const circuits = new Map<string, Breaker>()
  return {
    get: (key, policy) => {
      let circuit = circuits.get(key)
      if (circuit === undefined) {
        circuit = new Breaker(policy)
        circuits.set(key, circuit)
      }
      return circuit
    },
    status: Effect.clockWith((clock) =>
      Effect.sync(() => {
        const now = Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
        return [...circuits].map(([key, circuit]): Status => {
          const left = circuit.retryAfter(now)
          return {
            key,
            state: circuit.state,
            retryAfter: left === undefined ? undefined : Duration.millis(left),
            failures: circuit.consecutive,
          }
        })
      }),
    ),
  }
}

/** Circuits in memory, for one process. */
export const layer: Layer.Layer<Circuits> = Layer.sync(Circuits)(makeCircuits)

const admissionOf = (key: string, policy: Numbers, classify: ((error: unknown) => Outcome) | undefined): Admission => {
  // One lookup for each set of circuits, not for each call.
  let known: Circuits["Service"] | undefined
  let circuit: Breaker | undefined
  return {
    key,
    classify,
    circuit: (context, ownKey) => {
      const circuits = Context.getUnsafe(context as Context.Context<Circuits>, Circuits)
      if (ownKey) return circuits.get(`${key}#call`, policy)
      if (circuit === undefined || circuits !== known) {
        known = circuits
        circuit = circuits.get(key, policy)
      }
      return circuit
    },
  }
}

interface With extends Options {
  /** The circuit's key. Default: the provider's name and model. */
  readonly key?: string | undefined
  /** Judges failures that are not of the union. The default counts them. */
  readonly classify?: ((error: unknown) => Outcome) | undefined
}

const split = ({ classify, key, ...options }: With) => ({ classify, key, options })

/**
 * Asks a provider only while its circuit lets calls through.
 *
 * Adds `CircuitOpen`, and needs `Circuits`.
 */
const with_ = (options: With = {}): Policy<CircuitOpen, Circuits> => {
  const { classify, key, options: rest } = split(options)
  const policy = numbers("CircuitBreaker.with", rest)
  return <F extends Any, E, R>(self: Provider<F, E, R>): Provider<F, E | CircuitOpen, R | Circuits> => {
    const admission = admissionOf(key ?? `${self.name}/${self.model}`, policy, classify)
    const peek = (context: Context.Context<never>, record: CallRecord, at: number): Readiness | undefined => {
      const circuit = admission.circuit(context, credentialFor(record.overrides, self.name) !== undefined)
      return {
        ready: circuit.ready(at),
        rejection: () => {
          const now = record.now()
          const before = circuit.state
          circuit.expire(now)
          if (circuit.state !== before) tellState(record, self, admission.key, circuit, now)
          return circuitOpen(record, self, admission.key, circuit, now)
        },
      }
    }
    const plan = planOf(self)
    return fromPlan<F, E | CircuitOpen, R | Circuits>(
      { ...(plan !== undefined && plan.admission === undefined ? plan : compositePlan(self)), admission },
      peek,
    )
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
