/**
 * Retry budgets: retries and hedges may add only so many attempts to a
 * destination, so that a provider in trouble is not asked three times as often
 * as one that is well.
 *
 * For each destination, extra attempts may be 20 % of the first ones, and 10 a
 * second besides, over the last 10 seconds. `Retry` and `Hedge` draw on it. An
 * extra attempt that the budget refuses is not made: what there is, a failure
 * or an attempt under way, stays as it is, and a `BudgetRefused` event says so.
 *
 * **Details**
 *
 * - A first attempt at another candidate never draws on it.
 * - A call that found the circuit open, or no capacity, did not reach the
 *   provider: it adds nothing to the budget, and trying again takes nothing.
 * - What was drawn for a backoff that did not end in an attempt is given back.
 * - The budgets live in a service, `Budgets`, given by `RetryBudget.layer`.
 *
 * **Gotchas**
 *
 * - It goes around what draws on it: `p.pipe(CircuitBreaker.with(),
 *   Hedge.with(), Retry.with(), RetryBudget.with())`.
 * - One set of numbers for each key: the numbers of the first policy that uses
 *   a key are the key's.
 *
 * Klein, "Retry Budgets", Finagle, 2016; "Site Reliability Engineering",
 * chapter 21: Handling Overload.
 *
 * **Example** (At most one retry for ten calls)
 *
 * ```ts
 * import { type LanguageModelFace, type LlmError, Provider, Retry, RetryBudget } from "@understudy/core"
 *
 * type Model = Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.ProviderFailure>
 *
 * export const frugal = (model: Model) =>
 *   model.pipe(Retry.with(), RetryBudget.with({ share: 0.1, floor: 1 }))
 * ```
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { Any } from "./Face.ts"
import { type CallRecord, nowMillis } from "./internal/callRecord.ts"
import { CurrentBudget } from "./internal/limits/allowance.ts"
import { Budget, type Numbers } from "./internal/limits/budget.ts"
import { Registry } from "./internal/limits/registry.ts"
import { lookup } from "./internal/inContext.ts"
import { checked } from "./internal/options.ts"
import type { Policy, Provider } from "./internal/provider.ts"
import { namesOf, peek, wrap } from "./internal/provider.ts"

const Share = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))

/** How many extra attempts there may be. */
export const Options = Schema.Struct({
  /** Extra attempts for each first one. Default 0.2. */
  share: Schema.optional(Share),
  /** Extra attempts a second, whatever the traffic. Default 10. */
  floor: Schema.optional(Share),
})

/** How many extra attempts there may be. */
export interface Options extends Schema.Schema.Type<typeof Options> {}

/** What is older is forgotten, in milliseconds. */
const window = 10_000

const numbersOf = (where: string, options: Options): Numbers => {
  const o = checked(where, Options, options)
  return { share: o.share ?? 0.2, floor: o.floor ?? 10, window }
}

/** A budget, seen from outside. */
export interface Status {
  readonly key: string
  /** How many extra attempts could be made now. */
  readonly left: number
}

/** The budgets of a process, by key. */
export class Budgets extends Context.Service<
  Budgets,
  {
    /** @internal The budget of a key; made with these numbers when it is new. */
    readonly budget: (key: string, numbers: Numbers, now: number) => Budget
    /** All budgets there are. */
    readonly status: Effect.Effect<ReadonlyArray<Status>>
  }
>()("@understudy/core/RetryBudget/Budgets") {}

const makeBudgets = (): Budgets["Service"] => {
  const budgets = new Registry<Budget>()
  return {
    budget: (key, numbers, now) => budgets.get(key, now, () => new Budget(numbers)),
    status: Effect.clockWith((clock) =>
      Effect.sync(() => {
        const now = nowMillis(clock)
        return Array.from(budgets.entries(), ([key, budget]) => ({ key, left: budget.left(now) }))
      }),
    ),
  }
}

/** Budgets in memory, for one process. */
export const layer: Layer.Layer<Budgets> = Layer.sync(Budgets)(makeBudgets)

const budgetsIn = lookup(Budgets)

/** Those who are asked inside draw on it. */
const lend = (record: CallRecord, budget: Budget, names: ReadonlyArray<string>): void => {
  for (let known = record.budget; known !== undefined; known = known.outer) if (known.budget === budget) return
  record.budget = { budget, names, outer: record.budget }
}

interface With extends Options {
  /** Whose budget it is. Default: the provider's name and model. */
  readonly key?: string | undefined
}

/**
 * Gives the retries and hedges inside a budget to draw on. Adds no failure, and
 * needs `Budgets`.
 */
const with_ = (options: With = {}): Policy<never, Budgets> => {
  const { key, ...rest } = options
  const numbers = numbersOf("RetryBudget.with", rest)
  return <F extends Any, E, R>(self: Provider<F, E, R>): Provider<F, E, R | Budgets> => {
    const name = key ?? `${self.name}/${self.model}`
    const names = namesOf(self)
    return wrap<F, E, R, E, R | Budgets>(self, (run, record, _, now) => {
      const { context } = Fiber.getCurrent()!
      const budget = budgetsIn(context).budget(name, numbers, now)
      if (peek(self, context, record, now)?.ready !== false) budget.deposit(now)
      lend(record, budget, names)
      return run(now)
    })
  }
}

export { with_ as with }

const around = (where: string, options: Options & { readonly key: string }): Effect.Effect<Budget, never, Budgets> => {
  const { key, ...rest } = options
  const numbers = numbersOf(where, rest)
  return Effect.flatMap(Budgets, (budgets) =>
    Effect.clockWith((clock) =>
      Effect.sync(() => {
        const now = nowMillis(clock)
        const budget = budgets.budget(key, numbers, now)
        budget.deposit(now)
        return budget
      }),
    ),
  )
}

/** Gives the retries and hedges of an effect a budget to draw on, and counts the effect as a first attempt. */
export const effect = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  options: Options & { readonly key: string },
): Effect.Effect<A, E, R | Budgets> =>
  Effect.flatMap(around("RetryBudget.effect", options), (budget) => Effect.provideService(self, CurrentBudget, budget))

/** Gives the retries and hedges of a stream a budget to draw on, and counts the stream as a first attempt. */
export const stream = <A, E, R>(
  self: Stream.Stream<A, E, R>,
  options: Options & { readonly key: string },
): Stream.Stream<A, E, R | Budgets> =>
  Stream.unwrap(
    Effect.map(around("RetryBudget.stream", options), (budget) => Stream.provideService(self, CurrentBudget, budget)),
  )
