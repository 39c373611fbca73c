/**
 * Hedges: when an answer does not come for a while, the same is asked once more
 * beside, and the first answer counts.
 *
 * It helps against the slow tail: most answers take a few seconds, a few take
 * twenty, and asking again would have been quicker than waiting. It costs
 * attempts, so it waits until most would have answered, and draws on the budget.
 *
 * **Details**
 *
 * - The wait is a `delay`, or a quantile of the latencies of the last thousand
 *   or so first attempts at the destination, apart for answers and for streams.
 *   By default it is the 95th percentile, and 10 seconds until 30 latencies are
 *   known.
 * - The first success wins, and the others are interrupted: their sockets are
 *   closed before the answer is given. Of a stream the commit point decides: no
 *   part of another attempt is emitted.
 * - A failure before a hedge was launched leaves at once; `Retry` is for that.
 *   While hedges are under way, a failure waits for the others, and the last one
 *   leaves. A defect ends them all.
 * - Requests with tools are not hedged unless `tools` says so: models that use
 *   tools of the provider's own can do things twice.
 * - No hedge is launched when the budget refuses it, when the circuit is not
 *   closed enough to let it through, when the call's attempts are spent, or when
 *   the deadline would come first. It does not wait at limits.
 * - `Hedge.across` asks another candidate instead of the same one again.
 * - What is known of latencies lives in a service, `Latencies`, given by
 *   `Hedge.layer`.
 *
 * **Gotchas**
 *
 * - It belongs outside the limits and the breaker, so that each attempt takes a
 *   permit of its own and is judged by itself, and inside `Retry`:
 *   `p.pipe(Timeouts.with(), CircuitBreaker.with(), Hedge.with(), Retry.with(),
 *   RetryBudget.with())`. Without a budget only `max` bounds it.
 * - A hedge is paid for like any attempt, and most providers bill what was
 *   generated before an attempt was interrupted.
 *
 * Dean and Barroso, "The Tail at Scale", CACM 2013.
 *
 * **Example** (One more attempt when an answer is slower than nineteen of twenty)
 *
 * ```ts
 * import { Hedge, type LanguageModelFace, type LlmError, Provider, RetryBudget } from "@understudy/core"
 *
 * type Model = Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.ProviderFailure>
 *
 * export const quick = (model: Model) => model.pipe(Hedge.with({ quantile: 0.95 }), RetryBudget.with())
 * ```
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { Answer, Any, Hidden, Part, Request } from "./Face.ts"
import * as FailureMode from "./FailureMode.ts"
import type { CallRecord } from "./internal/callRecord.ts"
import { draw } from "./internal/limits/allowance.ts"
import { Quantile } from "./internal/limits/quantile.ts"
import { type Rules, race, type Way } from "./internal/limits/race.ts"
import { Registry } from "./internal/limits/registry.ts"
import { hasTools } from "./internal/limits/tokens.ts"
import { AllProvidersFailed, isLlmError, type StreamInterrupted } from "./internal/llmError.ts"
import type { Opened } from "./internal/opened.ts"
import { lookup } from "./internal/inContext.ts"
import { checked, Count, DurationInput, InvalidOptions, millis } from "./internal/options.ts"
import type { AnyOf, AnyProvider, ErrorOf, FaceOf, Policy, Provider, ServicesOf } from "./internal/provider.ts"
import { fromEffect, fromParts, fromStream, namesOf, need, peek, within } from "./internal/provider.ts"

/** When another attempt is made beside. */
export const Options = Schema.Struct({
  /** How long an attempt is waited for. With a `quantile`: as long as too few latencies are known. Default 10 seconds. */
  delay: Schema.optional(DurationInput),
  /** The share of attempts that is quick enough: the slower ones are hedged. Default 0.95, or none with a `delay`. */
  quantile: Schema.optional(Schema.Finite.check(Schema.isBetween({ minimum: 0.01, maximum: 0.999 }))),
  /** Hedges of one attempt at most. Default 1. */
  max: Schema.optional(Count),
  /** Are requests with tools hedged, too? Default false. */
  tools: Schema.optional(Schema.Boolean),
})

/** When another attempt is made beside. */
export interface Options extends Schema.Schema.Type<typeof Options> {}

interface Numbers {
  /** Milliseconds. */
  readonly delay: number
  readonly quantile: number | undefined
  readonly max: number
  readonly tools: boolean
}

const numbersOf = (where: string, options: Options): Numbers => {
  const o = checked(where, Options, options)
  return {
    delay: millis(o.delay, "10 seconds"),
    quantile: o.quantile ?? (o.delay === undefined ? 0.95 : undefined),
    max: o.max ?? 1,
    tools: o.tools ?? false,
  }
}

/** So many latencies are needed before their quantile is used. */
const enough = 30

type Kind = "generate" | "stream"

/** The latencies of a destination: of answers, and of first content. */
class Destination {
  readonly generate = new Quantile()
  readonly stream = new Quantile()

  idle(): boolean {
    return this.generate.total === 0 && this.stream.total === 0
  }
}

/** Latencies, seen from outside. */
export interface Status {
  readonly key: string
  /** Of whole answers, or of the first content of streams. */
  readonly kind: "generate" | "stream"
  /** How many are remembered; older ones count in part. */
  readonly known: number
  readonly median: Duration.Duration
  readonly p95: Duration.Duration
}

/** What is known of latencies in a process, by key. */
export class Latencies extends Context.Service<
  Latencies,
  {
    /** @internal What is known of a key. */
    readonly destination: (key: string, now: number) => Destination
    /** All that is known. */
    readonly status: Effect.Effect<ReadonlyArray<Status>>
  }
>()("@understudy/core/Hedge/Latencies") {}

const makeLatencies = (): Latencies["Service"] => {
  const destinations = new Registry<Destination>()
  return {
    destination: (key, now) => destinations.get(key, now, () => new Destination()),
    status: Effect.sync(() => {
      const out: Array<Status> = []
      for (const [key, destination] of destinations.entries()) {
        for (const kind of ["generate", "stream"] as const) {
          const latencies = destination[kind]
          const [median, p95] = [latencies.at(0.5), latencies.at(0.95)]
          if (median === undefined || p95 === undefined) continue
          out.push({
            key,
            kind,
            known: Math.round(latencies.total),
            median: Duration.millis(median),
            p95: Duration.millis(p95),
          })
        }
      }
      return out
    }),
  }
}

/** Latencies in memory, for one process. */
export const layer: Layer.Layer<Latencies> = Layer.sync(Latencies)(makeLatencies)

const latenciesIn = lookup(Latencies)

const latenciesOf = (context: Context.Context<never>, key: string, kind: Kind, now: number): Quantile =>
  latenciesIn(context).destination(key, now)[kind]

const delayOf = ({ delay, quantile }: Numbers, latencies: Quantile): number =>
  quantile === undefined || latencies.total < enough ? delay : (latencies.at(quantile) ?? delay)

/** Are the call's attempts spent? One is kept for each candidate that was not asked. */
const isSpent = (record: CallRecord): boolean => record.attempts + record.alternatives() >= record.maxAttempts

interface With extends Options {
  /** Whose latencies they are. Default: the provider's name and model. */
  readonly key?: string | undefined
}

/**
 * Asks a provider once more beside when its answer does not come. Adds no
 * failure, and needs `Latencies`.
 */
const with_ = (options: With = {}): Policy<never, Latencies> => {
  const { key, ...rest } = options
  const numbers = numbersOf("Hedge.with", rest)
  return <F extends Any, E, R>(self: Provider<F, E, R>): Provider<F, E, R | Latencies> => {
    const name = key ?? `${self.name}/${self.model}`
    const hedged = <A>(
      request: Request<F>,
      record: CallRecord,
      kind: Kind,
      scope: Scope.Scope | undefined,
      ask: (scope: Scope.Scope | undefined) => Effect.Effect<A, E, R>,
    ): Effect.Effect<A, E, R | Latencies> => {
      if (!numbers.tools && hasTools(request)) return ask(scope)
      return Effect.withFiber(({ context }) => {
        const latencies = latenciesOf(context, name, kind, record.now())
        // What it needs is in the context that the branches run in.
        const way: Way<A, E> = { subject: self, ask: ask as Way<A, E>["ask"] }
        const rules: Rules<A, E> = {
          way: (n) => (n <= numbers.max ? way : undefined),
          mayAdd: () =>
            isSpent(record) || peek(self, context, record, record.now())?.ready === false
              ? undefined
              : draw(record, self, context, "hedge"),
          isNext: () => false,
          delay: () => delayOf(numbers, latencies),
          observe: (latency) => latencies.add(latency),
          scope,
        }
        return race(rules, record, context)
      })
    }
    return fromParts<F, E, R | Latencies>({
      name: self.name,
      model: self.model,
      face: self.face,
      generate: (request, record) =>
        hedged<Answer<F>>(request, record, "generate", undefined, () => self.generate(request)),
      open: (request, scope, record) =>
        hedged<Opened<Part<F>>>(request, record, "stream", scope, (inner) => self.open(request, inner ?? scope)),
      inside: namesOf(self),
      peek: (context, record, now) => peek(self, context, record, now),
      need: (kind) => need(self, kind),
      within: (record) => within(self, record),
      inner: [self],
    })
  }
}

export { with_ as with }

/** When the next candidate is asked beside. */
export const AcrossOptions = Schema.Struct({
  ...Options.fields,
  /** Names the composition in events and failures. Default: the names of the candidates. */
  name: Schema.optional(Schema.String),
})

/** When the next candidate is asked beside. */
export interface AcrossOptions extends Schema.Schema.Type<typeof AcrossOptions> {}

/**
 * A provider that asks the first candidate, and the next one beside when its
 * answer does not come, or at once when it fails in a way that another may not.
 * The first answer counts. First attempts at other candidates do not draw on a
 * budget.
 *
 * `max` bounds the candidates that are asked besides the first; default: all.
 * The failures are those of the candidates, of which the last one leaves, and
 * `AllProvidersFailed` when the call allows none of them. Needs `Latencies`.
 */
export const across = <C extends AnyProvider, const Rest extends ReadonlyArray<AnyOf<FaceOf<NoInfer<C>>>>>(
  candidates: readonly [C, ...Rest],
  options: AcrossOptions = {},
): Provider<
  FaceOf<C>,
  ErrorOf<C> | ErrorOf<Rest[number]> | AllProvidersFailed,
  ServicesOf<C> | ServicesOf<Rest[number]> | Latencies
> => {
  const { name: named, ...rest } = checked("Hedge.across", AcrossOptions, options)
  const numbers = numbersOf("Hedge.across", { max: Math.max(1, candidates.length - 1), ...rest })
  const all: ReadonlyArray<AnyProvider> = candidates
  if (new Set(all.map(({ name }) => name)).size < all.length) {
    throw new InvalidOptions("Hedge.across", "expected each name once")
  }
  const name = named ?? all.map((provider) => provider.name).join(" & ")

  /** Whom this call may ask, those first who would let it through. */
  const allowedOf = (context: Context.Context<never>, record: CallRecord): ReadonlyArray<AnyProvider> => {
    const { overrides, passedOver, pinned } = record
    const pins = [overrides.pin, pinned === undefined ? undefined : [pinned]].filter(
      (pin) => pin !== undefined && !pin.includes(name),
    )
    const allowed = all.filter(
      (provider) =>
        pins.every((pin) => namesOf(provider).some((inside) => pin!.includes(inside))) &&
        overrides.exclude?.includes(provider.name) !== true &&
        !passedOver.includes(provider.name),
    )
    const now = record.now()
    const ready = allowed.filter((provider) => peek(provider, context, record, now)?.ready !== false)
    return ready.length === 0 ? allowed.slice(0, 1) : ready
  }

  const hedged = (
    request: unknown,
    record: CallRecord,
    kind: Kind,
    scope: Scope.Scope | undefined,
    ask: (provider: AnyProvider, scope: Scope.Scope | undefined) => Effect.Effect<unknown, unknown, unknown>,
  ): Effect.Effect<unknown, unknown, unknown> =>
    Effect.withFiber(({ context }) => {
      const allowed = allowedOf(context, record)
      const [first] = allowed
      if (first === undefined) return Effect.fail(new AllProvidersFailed({ provider: name, failures: [] }))
      const latencies = latenciesOf(context, `${first.name}/${first.model}`, kind, record.now())
      const beside = numbers.tools || !hasTools(request)
      const ways = allowed.slice(0, numbers.max + 1).map((provider): Way<unknown, unknown> => ({
        subject: provider,
        ask: (inner) => ask(provider, inner) as Effect.Effect<unknown, unknown>,
      }))
      const rules: Rules<unknown, unknown> = {
        way: (n) => ways[n],
        mayAdd: () => (isSpent(record) || !beside ? undefined : { giveBack: () => undefined }),
        isNext: (failure) =>
          isLlmError(failure) && !isSpent(record) && FailureMode.next(failure, record.modes) === "yes",
        delay: () => delayOf(numbers, latencies),
        observe: (latency) => latencies.add(latency),
        scope,
      }
      return race(rules, record, context)
    })

  const provider: unknown = fromParts<Any, unknown, unknown>({
    name,
    model: [...new Set(all.map(({ model }) => model))].join(" & "),
    face: candidates[0].face,
    generate: (request, record) =>
      hedged(request, record, "generate", undefined, (candidate) => candidate.generate(request)),
    open: (request, scope, record) =>
      hedged(request, record, "stream", scope, (candidate, inner) =>
        candidate.open(request, inner ?? scope),
      ) as ReturnType<AnyProvider["open"]>,
    inside: all.flatMap((candidate) => namesOf(candidate)),
    inner: all,
    peek: (context, record, now) => {
      const readiness = all.map((candidate) => peek(candidate, context, record, now))
      return readiness.every((one) => one?.ready === false) ? readiness[0] : undefined
    },
    need: (kind) => Math.max(...all.map((candidate) => need(candidate, kind))),
    within: (record) => ({
      candidates: () => all.flatMap((candidate) => within(candidate, record).candidates()),
      maxAttempts: Infinity,
    }),
  })
  return provider as ReturnType<typeof across<C, Rest>>
}

/** Runs an effect once more beside when its result does not come. Only for effects that may run twice. */
export const effect = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  options: Options & { readonly key: string },
): Effect.Effect<A, E, R | Latencies> => fromEffect(self, { name: options.key }).pipe(with_(options)).generate()

/** Runs a stream once more beside while it has no content. Needs the face of its parts, which knows content. */
export const stream = <F extends Any, E, R>(
  self: Stream.Stream<Part<F>, E, R>,
  options: Options & { readonly key: string; readonly face: F },
): Stream.Stream<Part<F>, E | Hidden<F> | StreamInterrupted, R | Latencies> => {
  const { face, ...rest } = options
  return fromStream(self, { face, name: options.key })
    .pipe(with_(rest))
    .stream(undefined as never)
}
