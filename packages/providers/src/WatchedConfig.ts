/**
 * A composition that is made anew while the program runs, whenever its
 * configuration file changes: during an incident somebody edits
 * `understudy.json`, and the next call goes elsewhere.
 *
 * **Details**
 *
 * - Everything in the file counts from the next call on: who is enabled,
 *   priorities, candidates that are new or gone, models, timeouts, the deadline.
 *   Calls in flight end as they began. Only the composition's name stays.
 * - A file that cannot be meant (no JSON, an unknown provider, a name twice, a
 *   key that is not in the environment) changes nothing: the last good one
 *   stays. It is told once, as a `ConfigRejected` event and a warning in the
 *   log, with every place and what was expected there. What stands in the file
 *   is not quoted.
 * - The folder is watched, not the file, so editors and deployments that put
 *   another file in its place are noticed. What cannot be watched is looked at
 *   every 10 seconds (`poll`).
 * - A file that is half written is read again before it is found wrong.
 * - What is known of candidates stays: circuits, latencies, and what was set by
 *   hand (`Directory`), but for a setting that the file declares anew.
 *
 * **Gotchas**
 *
 * - Keys are read from the environment of this process: a new candidate needs
 *   one that is there.
 * - A circuit that exists keeps its numbers: other `breaker` options count for
 *   new ones.
 *
 * **Example** (A model whose file may change)
 *
 * ```ts
 * import { LanguageModelLayer, Understudy } from "@understudy/core"
 * import { WatchedConfig } from "@understudy/providers"
 * import { NodeHttpClient, NodeServices } from "@effect/platform-node"
 * import { Layer } from "effect"
 *
 * export const model = WatchedConfig.layer(LanguageModelLayer.layer, { file: "understudy.json" }).pipe(
 *   Layer.provideMerge(Layer.mergeAll(Understudy.layer, NodeHttpClient.layerUndici, NodeServices.layer)),
 * )
 * ```
 */
import * as Directory from "@understudy/core/Directory"
import { CurrentObserver, type PolicyEvent } from "@understudy/core/PolicyEvent"
import * as Provider from "@understudy/core/Provider"
import * as Understudy from "@understudy/core/Understudy"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as PlatformError from "effect/PlatformError"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as ProviderConfig from "./ProviderConfig.ts"

/** Which file, and how it is watched. */
export interface Options {
  /** Default `understudy.json`. */
  readonly file?: string | undefined
  /** After something changed in its folder, how long it must be quiet there before the file is read. Default 200 ms. */
  readonly debounce?: Duration.Input | undefined
  /** A file that cannot be meant is read again after this time, until it stays as it is. Default 500 ms. */
  readonly settle?: Duration.Input | undefined
  /** How often the file is looked at, whether or not a change was noticed; `false` for never. Default 10 seconds. */
  readonly poll?: Duration.Input | false | undefined
}

/** Why a file cannot be used. */
export type ConfigError = ProviderConfig.InvalidConfig | ProviderConfig.MissingApiKey

const compose = (options: ProviderConfig.Resolved) => Understudy.make(options)

/** The composition of a file. */
export type Model = ReturnType<typeof compose>

/** What is known of a file. */
export interface Status {
  readonly file: string
  /** When it was read that holds now, in milliseconds of Unix time. */
  readonly appliedAt: number
  /** What is wrong with the file as it is, since when. Nothing when it holds. */
  readonly rejected: { readonly at: number; readonly problems: ReadonlyArray<ProviderConfig.Problem> } | undefined
}

/** A file that is watched. */
export interface WatchedConfig {
  /** Asks the candidates of the last good file. */
  readonly provider: Model
  readonly status: Effect.Effect<Status>
  /** Reads the file now. Fails when it cannot be used; then the last good one stays. */
  readonly reload: Effect.Effect<void, ConfigError>
}

// -----------------------------------------------------------------------------
// From a file to a composition
// -----------------------------------------------------------------------------

interface Composed {
  readonly model: Model
  readonly candidates: ReadonlySet<string>
}

const invalid = (file: string, path: string, message: string) =>
  new ProviderConfig.InvalidConfig({ file, problems: [{ path, message }] })

const unreadable = (file: string, { reason }: PlatformError.PlatformError) =>
  invalid(file, "", `Expected a file that can be read (${reason._tag})`)

/** `name`: it is called so already. */
const composed = (text: string, file: string, name: string | undefined): Effect.Effect<Composed, ConfigError> =>
  ProviderConfig.fromJson(text, file).pipe(
    Effect.flatMap((config) =>
      name !== undefined && config.name !== undefined && config.name !== name
        ? Effect.fail(
            invalid(file, "name", `Expected ${JSON.stringify(name)}: a composition gets another name by a restart`),
          )
        : ProviderConfig.resolve(config, file),
    ),
    Effect.flatMap((resolved) =>
      Effect.try({
        try: (): Composed => ({
          model: compose({ ...resolved, ...(name === undefined ? {} : { name }) }),
          candidates: new Set(resolved.candidates.map(({ provider }) => provider.name)),
        }),
        // A mistake that only the policies know.
        catch: (error) =>
          invalid(file, "", error instanceof Understudy.InvalidOptions ? error.message : "Expected options that fit"),
      }),
    ),
  )

const problemsOf = (error: ConfigError): ReadonlyArray<ProviderConfig.Problem> =>
  error._tag === "InvalidConfig" ? error.problems : [{ path: "", message: error.message }]

/** No longer than this, in an event. */
const longest = 300

const worded = ({ message, path }: ProviderConfig.Problem): string =>
  `${path === "" ? "" : `${path}: `}${message}`.slice(0, longest)

// -----------------------------------------------------------------------------
// Watching
// -----------------------------------------------------------------------------

type Told = PolicyEvent extends infer E
  ? E extends { readonly event: "ConfigApplied" | "ConfigRejected" }
    ? Omit<E, "at" | "call">
    : never
  : never

const tell = (told: Told): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    try {
      const at = fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
      fiber.getRef(CurrentObserver)?.({ ...told, at: Math.round(at), call: "configuration" })
    } catch {
      // An observer that throws changes nothing.
    }
    return Effect.void
  })

/** So often a file that changes all the time is read before it is found wrong. */
const patience = 20

const folderOf = (file: string): string => /^(.*)[/\\]/s.exec(file)?.[1] ?? "."

const millis = (input: Duration.Input | undefined, fallback: Duration.Input): Duration.Duration =>
  Duration.fromInputUnsafe(input ?? fallback)

/**
 * Reads a file and watches it for as long as the scope lasts. Fails with
 * `InvalidConfig` or `MissingApiKey` when the file cannot be used to begin with.
 */
export const make = (
  options: Options = {},
): Effect.Effect<WatchedConfig, ConfigError, FileSystem.FileSystem | Scope.Scope> =>
  Effect.gen(function* () {
    const file = options.file ?? "understudy.json"
    const debounce = millis(options.debounce, "200 millis")
    const settle = millis(options.settle, "500 millis")
    const poll = options.poll === false ? undefined : millis(options.poll, "10 seconds")
    const files = yield* FileSystem.FileSystem
    const directory = yield* Effect.serviceOption(Directory.Directory)
    const one = yield* Semaphore.make(1)
    const read = Effect.mapError(files.readFileString(file), (error) => unreadable(file, error))

    let text = yield* read
    let current = yield* composed(text, file, undefined)
    let appliedAt = yield* Clock.currentTimeMillis
    let rejected: Status["rejected"]
    /** What was found wrong, so that it is told once. */
    let refused: string | undefined
    const provider = Provider.delegate(() => current.model)
    const { name } = provider

    const announce = (model: Model): Effect.Effect<void> =>
      Option.match(directory, {
        onNone: () => Effect.void,
        onSome: (known) => Effect.provideService(Directory.replace(model), Directory.Directory, known),
      })

    const apply = (next: Composed, written: string): Effect.Effect<void> =>
      Effect.gen(function* () {
        const { candidates: before } = current
        const added = [...next.candidates].filter((candidate) => !before.has(candidate)).length
        const removed = [...before].filter((candidate) => !next.candidates.has(candidate)).length
        // From here on, for whoever asks next.
        current = next
        text = written
        appliedAt = yield* Clock.currentTimeMillis
        rejected = undefined
        refused = undefined
        yield* announce(next.model)
        yield* tell({ event: "ConfigApplied", provider: name, file, added, removed })
        yield* Effect.logInfo(`The configuration in ${file} has changed, and holds now.`)
      })

    const reject = (error: ConfigError, written: string): Effect.Effect<void> =>
      Effect.gen(function* () {
        const problems = problemsOf(error)
        rejected = { at: yield* Clock.currentTimeMillis, problems }
        refused = written
        const [first] = problems
        const problem = first === undefined ? "" : worded(first)
        yield* tell({ event: "ConfigRejected", provider: name, file, issues: problems.length, problem })
        const lines = problems.map((one) => `\n  ${worded(one)}`).join("")
        yield* Effect.logWarning(`The configuration in ${file} is not valid. The last good one stays.${lines}`)
      })

    /** What is there now: a text, or the reason why there is none. */
    const look = Effect.map(
      Effect.result(read),
      Result.match({
        onSuccess: (written) => ({ written, next: composed(written, file, name) }),
        onFailure: (error) => ({ written: `\0${error.message}`, next: Effect.fail(error) }),
      }),
    )

    /** Reads until it can be meant, or stays as it is. */
    const settled = Effect.gen(function* () {
      for (let tries = 1; ; tries++) {
        const { next, written } = yield* look
        if (written === text || written === refused) return { written, next: undefined }
        const result = yield* Effect.result(next)
        if (Result.isSuccess(result)) return { written, next: result }
        yield* Effect.sleep(settle)
        const again = yield* look
        if (again.written === written || tries >= patience) return { written, next: result }
      }
    })

    const refresh: Effect.Effect<void> = one.withPermit(
      Effect.gen(function* () {
        const { next, written } = yield* settled
        if (next === undefined) {
          // It is again as it was when it was good.
          if (written === text) [rejected, refused] = [undefined, undefined]
        } else if (Result.isSuccess(next)) {
          yield* apply(next.success, written)
        } else {
          yield* reject(next.failure, written)
        }
      }),
    )

    const reload: Effect.Effect<void, ConfigError> = one.withPermit(
      Effect.gen(function* () {
        const { next, written } = yield* look
        yield* apply(yield* next, written)
      }),
    )

    const signals = yield* Queue.sliding<void>(1)
    const notice = () => void Queue.offerUnsafe(signals, undefined)
    const watching = files.watch(folderOf(file), { onReady: notice }).pipe(
      Stream.runForEach(() => Effect.sync(notice)),
      // It ends when the folder is gone; another may come in its place.
      Effect.andThen(Effect.fail("ended" as const)),
      Effect.tapError((error) =>
        error === "ended" ? Effect.void : Effect.logDebug(`The folder of ${file} cannot be watched.`),
      ),
      Effect.retry(Schedule.spaced(poll ?? "10 seconds")),
      Effect.ignore,
    )
    /** Waits until nothing happens for a while, but not forever: others may write into the folder all the time. */
    const quiet = Effect.gen(function* () {
      yield* Queue.take(signals)
      for (let n = 0; n < patience; n++) {
        const more = yield* Effect.timeoutOption(Queue.take(signals), debounce)
        if (Option.isNone(more)) return
      }
    })

    yield* announce(current.model)
    yield* Effect.forkScoped(watching)
    if (poll !== undefined) yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(poll), refresh)))
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(quiet, refresh)))
    return { provider, status: Effect.sync(() => ({ file, appliedAt, rejected })), reload }
  })

/**
 * A layer of whatever is made of a file's composition: `LanguageModelLayer.layer`,
 * or the `layer` of a service. Fails as `make` does.
 */
export const layer = <A, E, R>(
  out: (model: Model) => Layer.Layer<A, E, R>,
  options: Options = {},
): Layer.Layer<A, E | ConfigError, R | FileSystem.FileSystem> =>
  Layer.unwrap(Effect.map(make(options), ({ provider }) => out(provider)))
