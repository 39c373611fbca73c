/**
 * What the tests are played with: providers that do as they are told, failures
 * of every kind, seeded chance, and a stage manager for virtual time.
 */
import { Cause, Clock, Duration, Effect, type Exit, Fiber, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { LanguageModelFace, LlmError, Provider } from "@understudy/core"

export type LM = LanguageModelFace.LanguageModelFace
type Answer = LanguageModelFace.Answer
type Part = LanguageModelFace.Part

export const face = LanguageModelFace.languageModelFace
export const question = LanguageModelFace.request("Who wrote Dune?")

// --- What providers say

export const end: Part & Answer[number] = {
  type: "finish",
  reason: "stop",
  usage: { inputTokens: {}, outputTokens: {} },
}
export const start: Part = { type: "text-start", id: "0" }
export const metadata: Part = { type: "response-metadata", id: "r" }
export const say = (delta: string): Part => ({ type: "text-delta", id: "0", delta })

/** What an attempt does when it is asked: for an answer, and for a stream. */
export interface Reply<E> {
  readonly whole: Effect.Effect<Answer, E>
  readonly parts: Stream.Stream<Part, E>
}

const later = <A, E>(millis: number, self: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  millis === 0 ? self : Effect.delay(self, Duration.millis(millis))

/** From one effect both: its value as an answer, and as a stream of parts. */
const reply = <E>(self: Effect.Effect<string, E>): Reply<E> => ({
  whole: Effect.map(self, (text) => [{ type: "text", text }, end]),
  parts: Stream.unwrap(Effect.map(self, (text) => Stream.make(start, say(text), end))),
})

export const says = (text: string, afterMillis = 0): Reply<never> => reply(later(afterMillis, Effect.succeed(text)))
export const fails = <E>(failure: E, afterMillis = 0): Reply<E> => reply(later(afterMillis, Effect.fail(failure)))
export const dies = (defect: unknown): Reply<never> => reply(Effect.die(defect))
export const hangs: Reply<never> = reply(Effect.never)
/** Answers and streams of one's own; an answer is then made of the stream's text. */
export const streams = <E>(parts: Stream.Stream<Part, E>): Reply<E> => ({
  whole: Effect.map(Stream.runCollect(parts), (all) => [{ type: "text", text: textOf(all) }, end]),
  parts,
})

/** Parts that come at instants, in milliseconds from the beginning: each a chunk of its own. */
export const timed = (...parts: ReadonlyArray<readonly [at: number, part: Part]>): Stream.Stream<Part> =>
  Stream.fromIterable(parts.map(([at, part], index) => [at - (parts[index - 1]?.[0] ?? 0), part] as const)).pipe(
    Stream.rechunk(1),
    Stream.mapEffect(([wait, part]) => later(wait, Effect.succeed(part))),
  )

export const textOf = (parts: Iterable<Part | Answer[number]>): string => {
  let text = ""
  for (const part of parts) text += part.type === "text" ? part.text : part.type === "text-delta" ? part.delta : ""
  return text
}

// --- Providers

/** A provider that does as told, and remembers. */
export interface Stub<E> {
  readonly provider: Provider.Provider<LM, E | LlmError.ProviderFailure>
  /** When it was asked, in milliseconds. */
  readonly asked: Array<number>
  /** Attempts that hold something now. */
  readonly running: () => number
}

/** The reply to the n-th attempt, counted from 1, over answers and streams. */
export type Script<E> = (attempt: number) => Reply<E>

export const stub = <E = never>(name: string, script: Script<E>, log: Array<string> = []): Stub<E> => {
  const asked: Array<number> = []
  let running = 0
  const hold = Effect.acquireRelease(
    Effect.clockWith((clock) =>
      Effect.sync(() => {
        running++
        log.push(`${name} opens`)
        return asked.push(clock.currentTimeMillisUnsafe())
      }),
    ),
    () =>
      Effect.sync(() => {
        running--
        log.push(`${name} closes`)
      }),
  )
  const provider = Provider.make<LM, E>({
    name,
    model: `${name}-1`,
    face,
    generate: () => Effect.scoped(Effect.flatMap(hold, (attempt) => script(attempt).whole)),
    stream: () => Stream.unwrap(Effect.map(hold, (attempt) => script(attempt).parts)),
  })
  return { provider, asked, running: () => running }
}

/** A script from a list; the last entry repeats. */
export const inTurn =
  <E>(...replies: readonly [Reply<E>, ...ReadonlyArray<Reply<E>>]): Script<E> =>
  (attempt) =>
    replies[Math.min(attempt, replies.length) - 1]!

/** A provider as both kinds of call, each giving its text: what holds for one must hold for the other. */
export const kinds = ["generate", "stream"] as const
export type Kind = (typeof kinds)[number]

export const ask = <E, R>(
  kind: Kind,
  provider: Provider.Provider<LM, E, R>,
): Effect.Effect<string, E | LlmError.StreamInterrupted, R> =>
  kind === "generate"
    ? Effect.map(provider.generate(question), textOf)
    : Effect.map(Stream.runCollect(provider.stream(question)), textOf)

// --- Failures

/** What can be said about a failure of any kind. */
export type Fields = Partial<
  Pick<LlmError.RateLimited, "model" | "status" | "requestId" | "retryAfter" | "retryable" | "detail">
>

type Samples = { readonly [T in LlmError.Tag]: (common: Fields & { provider: string }) => LlmError.WithTag<T> }

const samples: Samples = {
  RateLimited: (f) => new LlmError.RateLimited(f),
  QuotaExhausted: (f) => new LlmError.QuotaExhausted(f),
  Overloaded: (f) => new LlmError.Overloaded(f),
  ProviderUnavailable: (f) => new LlmError.ProviderUnavailable(f),
  ConnectionFailed: (f) => new LlmError.ConnectionFailed({ ...f, fault: "reset" }),
  TimedOut: (f) => new LlmError.TimedOut({ ...f, phase: "attempt" }),
  DeadlineExceeded: (f) => new LlmError.DeadlineExceeded(f),
  StreamInterrupted: (f) => new LlmError.StreamInterrupted({ ...f, committed: false }),
  InvalidResponse: (f) => new LlmError.InvalidResponse(f),
  ContentFiltered: (f) => new LlmError.ContentFiltered(f),
  ContextLengthExceeded: (f) => new LlmError.ContextLengthExceeded(f),
  AuthenticationFailed: (f) => new LlmError.AuthenticationFailed(f),
  PermissionDenied: (f) => new LlmError.PermissionDenied(f),
  ModelNotFound: (f) => new LlmError.ModelNotFound(f),
  InvalidRequest: (f) => new LlmError.InvalidRequest(f),
  UnknownFailure: (f) => new LlmError.UnknownFailure(f),
  CircuitOpen: (f) => new LlmError.CircuitOpen(f),
  CapacityExceeded: (f) => new LlmError.CapacityExceeded(f),
  AllProvidersFailed: (f) => new LlmError.AllProvidersFailed({ ...f, failures: [] }),
}

/** A failure of a tag. */
export const failure = <T extends LlmError.Tag>(tag: T, provider = "a", fields: Fields = {}): LlmError.WithTag<T> =>
  samples[tag]({ provider, ...fields })

/** A failure that is not of the union. */
export class Foreign extends Error {
  readonly _tag = "Foreign"
}

export const seconds = Duration.seconds

/** The failure of an exit. */
export const failed = <E>(exit: Exit.Exit<unknown, E>): E => {
  if (exit._tag === "Success") throw new Error("It succeeded")
  const error = Cause.findErrorOption(exit.cause)
  if (error._tag === "None") throw new Error(`It did not fail: ${Cause.pretty(exit.cause)}`)
  return error.value
}

/** The tag of an exit's failure, or the text of its answer. */
export const said = (exit: Exit.Exit<string, { readonly _tag: string }>): string =>
  exit._tag === "Success" ? exit.value : failed(exit)._tag

/** A narrower type, or the test fails. */
export const expectTag = <T extends LlmError.Tag>(tag: T, error: unknown): LlmError.WithTag<T> => {
  if (!LlmError.is(tag)(error)) throw new Error(`Expected ${tag}, got ${String(error)}`)
  return error
}

// --- Time

/** A clock that knows who sleeps on it. */
class Watched implements Clock.Clock {
  readonly clock: Clock.Clock
  readonly wakes: Array<number> = []
  readonly currentTimeMillis: Effect.Effect<number>
  readonly currentTimeNanos: Effect.Effect<bigint>
  readonly monotonicTimeNanos: Effect.Effect<bigint>

  constructor(clock: Clock.Clock) {
    this.clock = clock
    this.currentTimeMillis = clock.currentTimeMillis
    this.currentTimeNanos = clock.currentTimeNanos
    this.monotonicTimeNanos = clock.monotonicTimeNanos
  }
  currentTimeMillisUnsafe = () => this.clock.currentTimeMillisUnsafe()
  currentTimeNanosUnsafe = () => this.clock.currentTimeNanosUnsafe()
  monotonicTimeNanosUnsafe = () => this.clock.monotonicTimeNanosUnsafe()
  sleep = (duration: Duration.Duration): Effect.Effect<void> =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        const wake = this.clock.currentTimeMillisUnsafe() + Duration.toMillis(duration)
        this.wakes.push(wake)
        return wake
      }),
      () => this.clock.sleep(duration),
      (wake) => Effect.sync(() => this.wakes.splice(this.wakes.indexOf(wake), 1)),
    )
}

/** Lets every fiber run until it waits for something. */
export const settle = Effect.forEach(Array.from({ length: 12 }), () => Effect.yieldNow, { discard: true })

/** How something ended, how long it took, and how many timers it left behind. */
export interface Played<A, E> {
  readonly exit: Exit.Exit<A, E>
  readonly millis: number
  readonly timers: number
}

/**
 * Plays an effect on the test clock: lets it run until all wait, jumps to the
 * instant at which the first of them wakes, and so on until it ends. So time
 * is exact, and an hour costs no more than a second.
 */
export const play = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<Played<A, E>, never, R> =>
  Effect.gen(function* () {
    const watched = new Watched(yield* Clock.Clock)
    const begin = watched.currentTimeMillisUnsafe()
    const fiber = yield* Effect.forkChild(Effect.provideService(self, Clock.Clock, watched))
    yield* settle
    for (let idle = 0; fiber.pollUnsafe() === undefined; yield* settle) {
      if (watched.wakes.length === 0) {
        if (++idle > 100) return yield* Effect.die(new Error("It waits for something that never comes"))
        continue
      }
      idle = 0
      yield* TestClock.setTime(Math.min(...watched.wakes))
    }
    const exit = yield* Fiber.await(fiber)
    const millis = watched.currentTimeMillisUnsafe() - begin
    yield* settle
    return { exit, millis, timers: watched.wakes.length }
  })

/** Waits, on the clock. */
export const wait = (millis: number): Effect.Effect<void> => Effect.sleep(Duration.millis(millis))

/** A stream up to its commit point in a scope of its own, for tests that look behind the curtain. */
export const openIn = <E, R>(provider: Provider.Provider<LM, E, R>) =>
  Effect.flatMap(Scope.make(), (scope) => Effect.map(provider.open(question, scope), (opened) => ({ opened, scope })))

// --- Chance

/** Chance from a seed: the same seed, the same run. */
export interface Random {
  /** In [0, 1). */
  readonly next: () => number
  /** A whole number from `min` up to, and without, `max`. */
  readonly int: (min: number, max: number) => number
  readonly chance: (share: number) => boolean
  readonly pick: <A>(from: ReadonlyArray<A>) => A
}

/** Mulberry32. */
export const random = (seed: number): Random => {
  let state = seed | 0
  const next = () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
  return {
    next,
    int: (min, max) => min + Math.floor(next() * (max - min)),
    chance: (share) => next() < share,
    pick: (from) => from[Math.floor(next() * from.length)]!,
  }
}
