/**
 * The directory: what is known of every candidate, and what operations may
 * change of it while the program runs.
 *
 * During an incident a provider is disabled, or another is put before it,
 * without a deploy: by code (an admin route, a signal), or by the watched
 * `understudy.json` (`WatchedConfig` of `@understudy/providers`). And it tells
 * how all candidates are: enabled, circuit, latency, questions in flight, the
 * last failure.
 *
 * **Details**
 *
 * - What `Failover.make` and `Understudy.make` are told of a candidate is
 *   declared. What is set here goes over it, field by field, until it is reset
 *   or the process ends.
 * - A call sees its candidates as they are when it first asks them. A change
 *   counts for the calls that begin after it; those in flight are undisturbed.
 * - A composition is known by its name from its first call on, or from when a
 *   layer holds it (`Provider.Service`, `LanguageModelLayer`,
 *   `TypedLanguageModel`, `EmbeddingModelLayer`), or from `register`.
 * - It is an optional service: without it, everything is as declared.
 *   `Understudy.layer` holds one, and `Directory.layer` is one by itself.
 * - Each change is a `CandidateChanged` event for those who listen where it is
 *   made.
 *
 * **Gotchas**
 *
 * - Compositions of one name share what is set here: give them names.
 * - When all candidates are disabled nobody is asked, and calls end with
 *   `AllProvidersFailed`, for which a ladder may have an answer.
 *
 * **Example** (An incident at a provider)
 *
 * ```ts
 * import { Directory } from "@understudy/core"
 * import { Effect } from "effect"
 *
 * export const incident = Effect.gen(function* () {
 *   yield* Directory.disable("answers", "openai")
 *   yield* Directory.prioritise("answers", "anthropic", 0)
 * })
 *
 * export const over = Directory.reset("answers")
 * ```
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as CircuitBreaker from "./CircuitBreaker.ts"
import { nowMillis } from "./internal/callRecord.ts"
import {
  type Change,
  Compositions,
  type Listed,
  type Plan,
  type Unknown as Missing,
} from "./internal/directory/compositions.ts"
import { Directory, type Unknown, UnknownCandidate, UnknownComposition } from "./internal/directory/service.ts"
import { Settings, settingsOf, worded } from "./internal/directory/settings.ts"
import { Status } from "./internal/directory/status.ts"
import { checked } from "./internal/options.ts"
import { type AnyProvider, compositionsIn, enter } from "./internal/provider.ts"
import { CurrentObserver } from "./PolicyEvent.ts"

export {
  /** What is known of the candidates of a process, by composition and name. */
  Directory,
  /** What may be set for a candidate, and changed while the program runs. */
  Settings,
  /** A candidate of a composition, seen from outside. */
  Status,
  /** The composition has no candidate of this name. */
  UnknownCandidate,
  /** No composition of this name has been asked or registered. */
  UnknownComposition,
}

/** A name that is not known; and settings by composition and candidate. */
export type { Plan, Unknown }

// -----------------------------------------------------------------------------
// The service
// -----------------------------------------------------------------------------

const notKnown = ({ candidate, composition, known }: Missing): Unknown =>
  candidate === undefined
    ? new UnknownComposition({ composition, known: [...known] })
    : new UnknownCandidate({ composition, candidate, known: [...known] })

type Circuits = ReadonlyMap<string, CircuitBreaker.Status>

/** What circuits keep a candidate from being asked, or at least its own. */
const circuitOf = (circuits: Circuits, { model, name }: Listed): CircuitBreaker.Status | undefined => {
  const own = circuits.get(`${name}/${model}`)
  const account = own?.account === undefined ? undefined : circuits.get(own.account)
  return account !== undefined && own?.state === "closed" && account.state !== "closed" ? account : own
}

const rejects = (circuit: CircuitBreaker.Status | undefined): boolean =>
  circuit?.state === "open" && (circuit.mode === "automatic" || circuit.mode === "isolated")

const statusOf = (composition: string, listed: Listed, circuits: Circuits, now: number, wall: number): Status => {
  const { contextWindow, enabled, price, priority, tags, weight } = listed.settings
  const { answeredAt, inFlight, lastFailure } = listed.tally
  const circuit = circuitOf(circuits, listed)
  const [answer, firstContent] = [listed.tally.latency("generate", now), listed.tally.latency("stream", now)]
  return {
    composition,
    candidate: listed.name,
    model: listed.model,
    ready: enabled && !rejects(circuit),
    enabled,
    priority,
    weight,
    ...(contextWindow === undefined ? {} : { contextWindow }),
    ...(price === undefined ? {} : { price }),
    tags,
    overrides: listed.overrides,
    ...(circuit === undefined
      ? {}
      : {
          circuit: {
            key: circuit.key,
            state: circuit.state,
            mode: circuit.mode,
            ...(circuit.retryAfter === undefined ? {} : { retryAfter: circuit.retryAfter }),
          },
        }),
    inFlight,
    latency: {
      ...(answer === undefined ? {} : { answer: Duration.millis(Math.round(answer)) }),
      ...(firstContent === undefined ? {} : { firstContent: Duration.millis(Math.round(firstContent)) }),
    },
    ...(answeredAt === undefined ? {} : { answeredAt: Math.round(wall + answeredAt) }),
    ...(lastFailure === undefined
      ? {}
      : { lastFailure: { failure: lastFailure.failure, at: Math.round(wall + lastFailure.at) } }),
  }
}

/** Statuses as they are where this runs: with the circuits and the clock of the caller. */
const reporting = <A>(report: (statusOf: (composition: string, listed: Listed) => Status) => A): Effect.Effect<A> =>
  Effect.withFiber(({ context }) => {
    const clock = Context.get(context, Clock.Clock)
    const circuits = Context.getOrUndefined(
      context as Context.Context<CircuitBreaker.Circuits>,
      CircuitBreaker.Circuits,
    )
    const now = nowMillis(clock)
    const wall = clock.currentTimeMillisUnsafe() - now
    const known = circuits === undefined ? Effect.succeed([]) : circuits.status
    return Effect.map(known, (all) => {
      const byKey = new Map(all.map((circuit) => [circuit.key, circuit]))
      return report((composition, listed) => statusOf(composition, listed, byKey, now, wall))
    })
  })

/** Tells what changed, and by what. */
const tell = (changes: ReadonlyArray<Change>, by: "hand" | "file"): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    const observer = fiber.getRef(CurrentObserver)
    if (observer === undefined) return Effect.void
    const at = Math.round(fiber.getRef(Clock.Clock).currentTimeMillisUnsafe())
    for (const { candidate, changed, composition } of changes) {
      try {
        observer({
          event: "CandidateChanged",
          at,
          call: by === "hand" ? "by hand" : "configuration",
          provider: candidate.name,
          model: candidate.model,
          composition: composition.name,
          by,
          settings: worded(candidate.settings, changed),
        })
      } catch {
        // An observer that throws changes nothing.
      }
    }
    return Effect.void
  })

const makeDirectory = (): Directory["Service"] => {
  const compositions = new Compositions()

  const one = (composition: string, candidate: string) =>
    Effect.suspend(() => {
      const found = compositions.find(composition, candidate)
      return "known" in found ? Effect.fail(notKnown(found)) : Effect.succeed(found)
    })

  const some = (composition: string) =>
    Effect.suspend(() => {
      const known = compositions.all.get(composition)
      return known === undefined
        ? Effect.fail(notKnown({ composition, candidate: undefined, known: [...compositions.all.keys()] }))
        : Effect.succeed(known)
    })

  return {
    status: reporting((status) =>
      Array.from(compositions.all.values()).flatMap(({ candidates, name }) =>
        Array.from(candidates.values(), (listed) => status(name, listed)),
      ),
    ),
    update: (composition, candidate, settings) => {
      const wanted = settingsOf(checked("Directory.update", Settings, settings))
      return Effect.flatMap(one(composition, candidate), (found) =>
        Effect.andThen(
          tell(compositions.update(found.composition, found.candidate, wanted), "hand"),
          reporting((status) => status(composition, found.candidate)),
        ),
      )
    },
    reset: (composition, candidate) =>
      Effect.flatMap(some(composition), (known) =>
        Effect.flatMap(
          candidate === undefined
            ? Effect.succeed([...known.candidates.values()])
            : Effect.map(one(composition, candidate), (found) => [found.candidate]),
          (candidates) =>
            Effect.andThen(
              tell(compositions.reset(known, candidates), "hand"),
              reporting((status) => candidates.map((listed) => status(composition, listed))),
            ),
        ),
      ),
    replaceAll: (settings) => {
      for (const [composition, candidates] of Object.entries(settings)) {
        for (const [candidate, wanted] of Object.entries(candidates)) {
          checked(`Directory.replaceAll ${composition} ${candidate}`, Settings, wanted)
        }
      }
      return Effect.suspend(() => {
        const changes = compositions.replaceAll(settings)
        return "known" in changes ? Effect.fail(notKnown(changes)) : tell(changes, "hand")
      })
    },
    enter: (name, declared, decay, now) => compositions.enter(name, declared, decay, now),
    replace: (name, declared, decay) =>
      Effect.clockWith((clock) =>
        Effect.suspend(() => tell(compositions.replace(name, declared, decay, nowMillis(clock)), "file")),
      ),
  }
}

/** A directory in memory, for one process. */
export const layer: Layer.Layer<Directory> = Layer.sync(Directory)(makeDirectory)

// -----------------------------------------------------------------------------
// What can be done with it
// -----------------------------------------------------------------------------

/** All candidates of all compositions that were asked or registered, as they are now. */
export const status: Effect.Effect<ReadonlyArray<Status>, never, Directory> = Effect.flatMap(
  Directory,
  (directory) => directory.status,
)

/**
 * Sets something of a candidate, over what was declared; what is not said stays.
 * Gives the candidate as it is then. Fails with `UnknownComposition` or
 * `UnknownCandidate`; throws `InvalidOptions` for what cannot be meant.
 */
export const update = (
  composition: string,
  candidate: string,
  settings: Settings,
): Effect.Effect<Status, Unknown, Directory> =>
  Effect.flatMap(Directory, (directory) => directory.update(composition, candidate, settings))

/** From the next call on, this candidate is not asked. */
export const disable = (composition: string, candidate: string): Effect.Effect<Status, Unknown, Directory> =>
  update(composition, candidate, { enabled: false })

/** From the next call on, this candidate may be asked. */
export const enable = (composition: string, candidate: string): Effect.Effect<Status, Unknown, Directory> =>
  update(composition, candidate, { enabled: true })

/** Another priority for a candidate: lower is asked first. */
export const prioritise = (
  composition: string,
  candidate: string,
  priority: number,
): Effect.Effect<Status, Unknown, Directory> => update(composition, candidate, { priority })

/** Takes back what was set, of one candidate or of all in a composition: what was declared holds again. */
export const reset = (
  composition: string,
  candidate?: string,
): Effect.Effect<ReadonlyArray<Status>, Unknown, Directory> =>
  Effect.flatMap(Directory, (directory) => directory.reset(composition, candidate))

/**
 * This and nothing else is set from here on, for all candidates, at once; what
 * was set before and is not said is taken back. When a name is not known,
 * nothing changes.
 */
export const replaceAll = (settings: Plan): Effect.Effect<void, Unknown, Directory> =>
  Effect.flatMap(Directory, (directory) => directory.replaceAll(settings))

/**
 * Makes the compositions in a provider known before they are asked for the
 * first time, so that their candidates can be set, and are in the status.
 */
export const register = (provider: AnyProvider): Effect.Effect<void, never, Directory> =>
  Effect.andThen(Directory, enter(provider))

/**
 * The compositions in a provider take the place of those of their names: who is
 * not among the candidates any more is forgotten, and a setting that is declared
 * anew counts more than what was set by hand before. For whoever reads the
 * candidates from a file that changes.
 */
export const replace = (provider: AnyProvider): Effect.Effect<void, never, Directory> =>
  Effect.flatMap(Directory, (directory) =>
    Effect.forEach(compositionsIn(provider), ({ declared, decay, name }) => directory.replace(name, declared, decay), {
      discard: true,
    }),
  )
