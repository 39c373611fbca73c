/**
 * Rate limits of our own, so that a provider's are not run into: requests a
 * minute and tokens a minute together, for all calls of this process.
 *
 * A call reserves one request and as many tokens as it may take (its prompt,
 * estimated, and the longest answer), of all limits at once or of none. When it
 * has ended, the reservation is settled with what it really used. Who finds no
 * room waits in line, first come, first served.
 *
 * **Details**
 *
 * - The prompt is counted by `TokenCounter`; the answer counts as the call's
 *   `maxTokens`, and as `answerTokens` without. What was used is what the
 *   provider says at the end; if it does not, what was estimated stays.
 * - Given back: everything, when nothing was sent (the circuit was open, the
 *   caller left before); the tokens, when the provider failed without an answer.
 *   Of an attempt that was cut, the prompt stays, and so much of the answer as
 *   came.
 * - It learns: when a provider says that less is left than we thought (OpenAI's
 *   `x-ratelimit-remaining-*`, Anthropic's `anthropic-ratelimit-*`), that counts,
 *   and after a `RateLimited` nothing is sent until its hint is over, at most an
 *   hour. What it learns never allows more than was configured.
 * - A call waits for `maxWait` at most, never past its deadline, and, while
 *   another candidate is ready, no longer than the patience. Otherwise it fails at
 *   once with `CapacityExceeded`, whose hint is exact, unless something is given
 *   back before. A request that is larger than a limit never fits: its failure is
 *   not retryable.
 * - Calls that bring a key of their own (`Call.withCredential`) have limits of
 *   their own, for each key.
 * - A limit says nothing about the provider's health. All of it lives in a
 *   service, `RateLimits`, given by `RateLimit.layer`.
 *
 * **Gotchas**
 *
 * - It belongs outside the breaker and inside `Retry`: `p.pipe(Timeouts.with(),
 *   CircuitBreaker.with(), RateLimit.with({ requestsPerMinute: 500 }), Retry.with())`.
 * - Several processes with one account each need their share of its limits.
 * - One set of numbers for each key: the numbers of the first policy that uses
 *   a key are the key's.
 *
 * The algorithm is the generic cell rate algorithm (ITU-T I.371), a token bucket
 * that refills continuously, as Anthropic's limits do.
 *
 * **Example** (The limits of an account)
 *
 * ```ts
 * import { type LanguageModelFace, type LlmError, Provider, RateLimit, Retry } from "@understudy/core"
 *
 * type Model = Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.ProviderFailure>
 *
 * export const paced = (model: Model) =>
 *   model.pipe(RateLimit.with({ requestsPerMinute: 500, tokensPerMinute: 200_000 }), Retry.with())
 * ```
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Hash from "effect/Hash"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import { credentialFor } from "./Call.ts"
import type { Any, Hidden, Part, Request, Told } from "./Face.ts"
import { type CallRecord, nowMillis } from "./internal/callRecord.ts"
import * as Headrooms from "./internal/limits/headroom.ts"
import { Line } from "./internal/limits/line.ts"
import { type Cost, RateLimiter } from "./internal/limits/rateLimit.ts"
import { Registry } from "./internal/limits/registry.ts"
import { type Estimate, estimateFor, fixed, type Tokens } from "./internal/limits/tokens.ts"
import { capacityExceeded, changed, type Door, type Subject, Turn, type Why } from "./internal/limits/turn.ts"
import { type CapacityExceeded, isLlmError, type LlmError, type StreamInterrupted } from "./internal/llmError.ts"
import { lookup } from "./internal/inContext.ts"
import type { Opened } from "./internal/opened.ts"
import { checked, Count, DurationInput, InvalidOptions, millis } from "./internal/options.ts"
import type { Policy, Provider } from "./internal/provider.ts"
import { asking, fromEffect, fromParts, fromStream, namesOf, need, peek, within } from "./internal/provider.ts"

export {
  /** What is left of a provider's rate limits, as far as it says so. */
  Headroom,
  /** The key under which the metadata of a `response-metadata` part hold what is left. */
  namespace,
  /** What is left of a provider's rate limits, from the headers of its response. For adapters. */
  read as headroom,
  /** What is left of a provider's rate limits, from the parts of its answer. */
  of as headroomOf,
} from "./internal/limits/headroom.ts"

/** How much, and how long a call waits for it. At least one of the limits is needed. */
export const Options = Schema.Struct({
  /** Requests a minute. */
  requestsPerMinute: Schema.optional(Count),
  /** Tokens of prompts and answers a minute. */
  tokensPerMinute: Schema.optional(Count),
  /** Tokens of prompts a minute. */
  inputTokensPerMinute: Schema.optional(Count),
  /** Tokens of answers a minute. */
  outputTokensPerMinute: Schema.optional(Count),
  /** How much of a limit may be used at once, as the time in which it comes back. Default 1 minute: all of it. */
  burst: Schema.optional(DurationInput),
  /** Tokens that are reserved for an answer when the call sets no `maxTokens`. Default 1,024. */
  answerTokens: Schema.optional(Count),
  /** Calls that may wait. Default 100. */
  queue: Schema.optional(Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))),
  /** The longest that a call waits. Default 10 seconds. */
  maxWait: Schema.optional(DurationInput),
  /** Does what the provider says is left count, too? Default true. */
  learn: Schema.optional(Schema.Boolean),
})

/** How much, and how long a call waits for it. At least one of the limits is needed. */
export interface Options extends Schema.Schema.Type<typeof Options> {}

type Name = keyof Headrooms.Headroom

const limits: Readonly<Record<Name, (options: Options) => number | undefined>> = {
  requests: (o) => o.requestsPerMinute,
  tokens: (o) => o.tokensPerMinute,
  inputTokens: (o) => o.inputTokensPerMinute,
  outputTokens: (o) => o.outputTokensPerMinute,
}
const names = Object.keys(limits) as ReadonlyArray<Name>

interface Numbers {
  readonly meters: ReadonlyArray<{ readonly name: Name; readonly limit: number }>
  /** Milliseconds. */
  readonly burst: number
  readonly answerTokens: number
  readonly queue: number
  /** Milliseconds. */
  readonly maxWait: number
  readonly learn: boolean
}

const minute = 60_000

/** The longest that a hint can stop everything: what a server says is not to be trusted without bounds. */
const longestPause = 3_600_000

const numbersOf = (where: string, options: Options): Numbers => {
  const o = checked(where, Options, options)
  const meters = names.flatMap((name) => {
    const limit = limits[name](o)
    return limit === undefined ? [] : [{ name, limit }]
  })
  if (meters.length === 0) {
    throw new InvalidOptions(where, `expected at least one of ${names.map((name) => `${name}PerMinute`).join(", ")}`)
  }
  return {
    meters,
    burst: millis(o.burst, "1 minute"),
    answerTokens: o.answerTokens ?? 1024,
    queue: o.queue ?? 100,
    maxWait: millis(o.maxWait, "10 seconds"),
    learn: o.learn ?? true,
  }
}

/** A rate limit, seen from outside. */
export interface Status {
  readonly key: string
  readonly limits: ReadonlyArray<{
    readonly name: "requests" | "tokens" | "inputTokens" | "outputTokens"
    readonly perMinute: number
    /** How many can be had now. Below zero: more was used than was reserved. */
    readonly available: number
  }>
  /** Calls that wait. */
  readonly waiting: number
  /** How long nothing is sent for, because the provider said so. */
  readonly pausedFor: Duration.Duration | undefined
}

const words: Readonly<Record<Name, string>> = {
  requests: "requests",
  tokens: "tokens",
  inputTokens: "tokens of prompts",
  outputTokens: "tokens of answers",
}

/** The limits of a destination and the line for them. */
class Pool implements Door<Cost> {
  readonly limit = "rate limit"
  readonly numbers: Numbers
  readonly machine: RateLimiter
  readonly line: Line<Cost, Turn<Cost>>
  readonly maxWait: number
  /** Are tokens limited at all? */
  readonly counts: boolean

  constructor(numbers: Numbers) {
    const { burst, maxWait, meters, queue } = numbers
    this.numbers = numbers
    this.machine = new RateLimiter(
      meters.map(({ limit }) => ({ limit, window: minute, burst: Math.max(1, (limit * burst) / minute) })),
    )
    this.line = new Line(this.machine, queue)
    this.maxWait = maxWait
    this.counts = meters.some(({ name }) => name !== "requests")
  }

  /** What a request costs of each limit. */
  cost({ input, output }: Tokens, requests = 1): Cost {
    const amounts = { requests, tokens: input + output, inputTokens: input, outputTokens: output }
    return this.numbers.meters.map(({ name }) => amounts[name])
  }

  readonly readyAt = (cost: Cost): number => this.machine.readyAt(cost)

  readonly forecast = (now: number, ahead: Iterable<Cost>, cost: Cost): number =>
    this.machine.forecast(now, [...ahead, cost]).at(-1)!

  readonly words = (why: Why): string => {
    switch (why) {
      case "waited":
        return "It waited for room as long as it may."
      case "another is ready":
        return "There is no room soon enough, and another candidate is ready."
      case "too slow":
        return "There is no room within the time that it may wait."
      default:
        return this.line.length === 0 ? "There is no room now." : `${this.line.length} wait already.`
    }
  }

  /** Which limit a cost can never keep. */
  tooLarge(cost: Cost): string {
    const index = this.numbers.meters.findIndex(({ limit }, meter) => cost[meter]! > limit)
    const { limit, name } = this.numbers.meters[index]!
    return `It may need ${Math.ceil(cost[index]!)} ${words[name]}, and there are ${limit} a minute, so waiting does not help: shorten it, bound its answer (maxTokens), or raise the limit.`
  }

  settle(now: number, reserved: Cost, real: Cost): void {
    this.machine.settle(now, reserved, real)
    changed(this, now)
  }

  learn(now: number, headroom: Headrooms.Headroom | undefined, since: number = now): void {
    if (headroom === undefined || !this.numbers.learn) return
    for (const [index, { name }] of this.numbers.meters.entries()) {
      const left = headroom[name]
      if (left !== undefined) this.machine.atMost(now, index, left.remaining, since)
    }
    this.reconsider(now)
  }

  pause(now: number, hint: number): void {
    if (!this.numbers.learn) return
    this.machine.pause(now + Math.min(hint, longestPause))
    this.reconsider(now)
  }

  idle(now: number): boolean {
    return this.line.length === 0 && this.machine.idle(now)
  }

  /** Whoever would wait in vain need not wait. */
  private reconsider(now: number): void {
    const waiting = [...this.line.waiters]
    if (waiting.length === 0) return
    const instants = this.machine.forecast(
      now,
      waiting.map(({ cost }) => cost),
    )
    for (const [index, turn] of waiting.entries()) turn.hear(now, instants[index]!)
    changed(this, now)
  }
}

/** The rate limits of a process, by key. */
export class RateLimits extends Context.Service<
  RateLimits,
  {
    /** @internal The pool of a key; made with these numbers when it is new. */
    readonly pool: (key: string, numbers: Numbers, now: number) => Pool
    /** All rate limits there are. */
    readonly status: Effect.Effect<ReadonlyArray<Status>>
  }
>()("@understudy/core/RateLimit/RateLimits") {}

const statusOf = (key: string, { line, machine, numbers }: Pool, now: number): Status => {
  const paused = machine.pausedFor(now)
  const [name = "", own] = key.split(ofCall)
  return {
    key: own === undefined ? name : `${name}#call`,
    limits: numbers.meters.map(({ limit, name }, index) => ({
      name,
      perMinute: limit,
      // Sums of time are not exact, and a whole one is not to look like one less.
      available: Math.floor(machine.level(now, index) + 1e-6),
    })),
    waiting: line.length,
    pausedFor: paused === 0 ? undefined : Duration.millis(paused),
  }
}

const makeRateLimits = (): RateLimits["Service"] => {
  const pools = new Registry<Pool>()
  return {
    pool: (key, numbers, now) => pools.get(key, now, () => new Pool(numbers)),
    status: Effect.clockWith((clock) =>
      Effect.sync(() => {
        const now = nowMillis(clock)
        return Array.from(pools.entries(), ([key, pool]) => statusOf(key, pool, now))
      }),
    ),
  }
}

/** Rate limits in memory, for one process. */
export const layer: Layer.Layer<RateLimits> = Layer.sync(RateLimits)(makeRateLimits)

/** What is used of a prompt and an answer when an attempt ends so, after it was sent. */
const cut: ReadonlySet<LlmError["_tag"]> = new Set([
  "TimedOut",
  "DeadlineExceeded",
  "StreamInterrupted",
  "ContentFiltered",
  "InvalidResponse",
])

const failureOf = (exit: Exit.Exit<unknown, unknown>): LlmError | undefined => {
  if (exit._tag === "Success") return undefined
  for (const reason of exit.cause.reasons) {
    if (reason._tag === "Fail" && isLlmError(reason.error)) return reason.error
  }
  return undefined
}

/** About so many characters are a token. */
const charactersPerToken = 4

/** What one call reserved, and what becomes of it. */
class Reservation {
  private readonly pool: Pool
  private readonly record: CallRecord
  private readonly estimated: Tokens
  readonly turn: Turn<Cost>
  /** How many attempts had begun when it came in. */
  private begun = 0

  constructor(pool: Pool, record: CallRecord, subject: Subject, context: Context.Context<never>, estimated: Tokens) {
    this.pool = pool
    this.record = record
    this.estimated = estimated
    this.turn = new Turn(pool, record, subject, context, pool.cost(estimated))
  }

  /** What to run when it has come in. */
  inside<A, E, R>(run: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    this.begun = this.record.begun
    return run
  }

  /** The answer is there, or there is none. */
  ended(exit: Exit.Exit<unknown, unknown>, told: (() => Told | undefined) | undefined): void {
    const now = this.record.now()
    if (!this.turn.leave(now)) return
    if (exit._tag === "Success") {
      this.used(now, told?.(), undefined)
      this.pool.learn(now, Headrooms.of(exit.value))
    } else {
      this.failed(now, exit)
    }
  }

  /** The stream is at its commit point, or there is none. */
  opened(exit: Exit.Exit<Opened<unknown>, unknown>): void {
    const now = this.record.now()
    if (!this.turn.leave(now)) return
    if (exit._tag === "Failure") return this.failed(now, exit)
    const { delivered, ended, head, told } = exit.value
    const headroom = Headrooms.of(head)
    this.pool.learn(now, headroom)
    ended.observe((end) => {
      const over = this.record.now()
      const whole = end._tag === "Success"
      this.used(over, told?.(), whole ? undefined : delivered().characters / charactersPerToken)
      // What is given back here was no more the provider's to give.
      this.pool.learn(over, headroom, now)
    })
  }

  /** `came`: so much of the answer came before it was cut. */
  private used(now: number, told: Told | undefined, came: number | undefined): void {
    const { estimated, pool } = this
    const real = {
      input: told?.usage?.inputTokens ?? estimated.input,
      output: told?.usage?.outputTokens ?? (came === undefined ? estimated.output : Math.ceil(came)),
    }
    pool.settle(now, this.turn.cost, pool.cost(real))
  }

  private failed(now: number, exit: Exit.Exit<unknown, unknown>): void {
    const { estimated, pool, record, turn } = this
    const failure = failureOf(exit)
    const sent = record.begun > this.begun
    const kept = sent && (failure === undefined || cut.has(failure._tag))
    pool.settle(now, turn.cost, pool.cost({ input: kept ? estimated.input : 0, output: 0 }, sent ? 1 : 0))
    if (failure?._tag === "RateLimited" && failure.retryAfter !== undefined) {
      pool.pause(now, Duration.toMillis(failure.retryAfter))
    }
  }
}

const rateLimitsIn = lookup(RateLimits)

interface With extends Options {
  /** Whose limits they are. Default: the provider's name and model. */
  readonly key?: string | undefined
}

/** A key of the call's own is another account, whose limits are its own. The key itself is not kept. */
const account = (record: CallRecord, provider: string): string => {
  const own = credentialFor(record.overrides, provider)
  return own === undefined ? "" : `${ofCall}${Hash.string(Redacted.value(own))}`
}

const ofCall = "\u0000"

type ToldOf = (answer: never) => Told | undefined

const around = <F extends Any, E, R>(
  self: Provider<F, E, R>,
  key: string | undefined,
  numbers: Numbers,
  estimate: Estimate,
  toldOf: ToldOf | undefined,
): Provider<F, E | CapacityExceeded, R | RateLimits> => {
  const name = key ?? `${self.name}/${self.model}`

  const limited = <A>(
    request: Request<F>,
    record: CallRecord,
    run: () => Effect.Effect<A, E, R>,
    end: (reservation: Reservation, exit: Exit.Exit<A, E | CapacityExceeded>) => void,
  ): Effect.Effect<A, E | CapacityExceeded, R | RateLimits> => {
    let reservation: Reservation | undefined
    const reserved = (estimated: Tokens) =>
      // The reservation is made inside of what gives it back: an interruption can fall between.
      Effect.onExitPrimitive(
        Effect.withFiber(({ context }): Effect.Effect<A, E | CapacityExceeded, R> => {
          const pool = rateLimitsIn(context).pool(name + account(record, self.name), numbers, record.now())
          reservation = new Reservation(pool, record, self, context, estimated)
          const { turn } = reservation
          if (!pool.machine.fits(turn.cost)) return neverFits(pool, turn.cost, record)
          const waiting = turn.enter()
          const inside = () => reservation!.inside(run())
          return waiting === undefined ? inside() : Effect.flatMap(waiting, inside)
        }),
        (exit) => {
          if (reservation !== undefined) end(reservation, exit)
          return undefined
        },
      )
    return countsTokens
      ? Effect.flatMap(estimate(request, record, numbers.answerTokens), reserved)
      : reserved({ input: 0, output: 0 })
  }

  const countsTokens = numbers.meters.some((meter) => meter.name !== "requests")

  const neverFits = (pool: Pool, cost: Cost, record: CallRecord): Effect.Effect<never, CapacityExceeded> =>
    Effect.suspend(() => {
      if (record.observer !== undefined) {
        record.emit({
          event: "CapacityRejected",
          provider: self.name,
          model: self.model,
          limit: "rate limit",
          reason: "never fits",
        })
      }
      return Effect.fail(capacityExceeded(self, pool.tooLarge(cost), undefined, false))
    })

  const ask = asking(self)
  return fromParts<F, E | CapacityExceeded, R | RateLimits>({
    name: self.name,
    model: self.model,
    face: self.face,
    generate: (request, record) =>
      limited(
        request,
        record,
        () => ask.generate(request, record, record.now()),
        (reservation, exit) =>
          reservation.ended(exit, toldOf === undefined ? undefined : () => answerTold(exit, toldOf)),
      ),
    open: (request, scope, record) =>
      limited(
        request,
        record,
        () => ask.open(request, scope, record, record.now()),
        (reservation, exit) => reservation.opened(exit),
      ),
    inside: namesOf(self),
    peek: (context, record, now) => peek(self, context, record, now),
    need: (kind) => need(self, kind),
    within: (record) => within(self, record),
    inner: [self],
  })
}

const answerTold = (exit: Exit.Exit<unknown, unknown>, toldOf: ToldOf): Told | undefined => {
  try {
    return exit._tag === "Success" ? toldOf(exit.value as never) : undefined
  } catch {
    // A face that cannot tell leaves the estimate.
    return undefined
  }
}

/**
 * Asks a provider only within these limits.
 *
 * Adds `CapacityExceeded`, and needs `RateLimits`.
 */
const with_ = (options: With): Policy<CapacityExceeded, RateLimits> => {
  const { key, ...rest } = options
  const numbers = numbersOf("RateLimit.with", rest)
  return (self) => around(self, key, numbers, estimateFor(self.face), self.face.told)
}

export { with_ as with }

interface Used<in A> {
  /** Tokens that are reserved. Default none. */
  readonly tokens?: number | undefined
  /** Tokens that were used. Default: as many as were reserved. */
  readonly used?: ((value: A) => number) | undefined
}

/** Runs an effect only within these limits. */
export const effect = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  options: Options & Used<A> & { readonly key: string },
): Effect.Effect<A, E | CapacityExceeded, R | RateLimits> => {
  const { key, tokens, used, ...rest } = options
  const numbers = numbersOf("RateLimit.effect", rest)
  const toldOf = used === undefined ? undefined : (value: A): Told => ({ usage: { inputTokens: used(value) } })
  return around(fromEffect(self, { name: key }), key, numbers, fixed(tokens ?? 0), toldOf).generate()
}

/** Runs a stream only within these limits. Needs the face of its parts. */
export const stream = <F extends Any, E, R>(
  self: Stream.Stream<Part<F>, E, R>,
  options: Options & { readonly key: string; readonly face: F; readonly tokens?: number | undefined },
): Stream.Stream<Part<F>, E | Hidden<F> | CapacityExceeded | StreamInterrupted, R | RateLimits> => {
  const { face, key, tokens, ...rest } = options
  const numbers = numbersOf("RateLimit.stream", rest)
  return around(fromStream(self, { face, name: key }), key, numbers, fixed(tokens ?? 0), undefined).stream(
    undefined as never,
  )
}
