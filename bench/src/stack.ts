/**
 * What one successful call costs: the bare leaf, cockatiel's
 * wrap(retry, breaker, timeout, bulkhead), the stock Effect stack
 * retry(CircuitBreaker(timeout(semaphore))), and ours.
 *
 * The same leaf for all: an async function that ignores its signal. Effects run
 * inside one fiber, as they do in a program that is one; `runPromise` for each
 * call, a leaf that takes the signal, and the child fiber that any timeout needs,
 * stand beside. Prints one JSON object:
 * nanoseconds a call for each case, the median of the batches.
 */
import { Effect, Fiber, Schedule, Semaphore } from "effect"
import { CircuitBreaker as StockBreaker } from "effect/persistence"
import {
  bulkhead,
  circuitBreaker,
  ConsecutiveBreaker,
  ExponentialBackoff,
  handleAll,
  retry,
  timeout,
  TimeoutStrategy,
  wrap,
} from "cockatiel"
import { Bulkhead, CircuitBreaker, Provider, Retry, Timeouts, Understudy } from "@understudy/core"

const leaf = async (): Promise<number> => 42

/** One that could be aborted. */
const signalled = async (signal: AbortSignal): Promise<number> => (signal.aborted ? 0 : 42)

const warmUp = 3
const batches = 9
// Long enough that the change from one case to the next weighs nothing.
const perBatch = 20_000

const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!

/** Runs something so many times, one after the other. */
type Batch<E, R> = (times: number) => Effect.Effect<void, E, R>

const promises =
  (f: () => Promise<unknown>): Batch<never, never> =>
  (times) =>
    Effect.promise(async () => {
      for (let i = 0; i < times; i++) await f()
    })

const effects =
  <E, R>(effect: Effect.Effect<unknown, E, R>): Batch<E, R> =>
  (times) =>
    Effect.gen(function* () {
      for (let i = 0; i < times; i++) yield* effect
    })

/** The cases take turns, batch by batch, so that a machine that gets slower gets slower for all. */
const timed = (
  cases: Readonly<Record<string, Batch<unknown, Understudy.State>>>,
): Effect.Effect<Record<string, number>, unknown, Understudy.State> =>
  Effect.gen(function* () {
    const taken = new Map<string, Array<number>>()
    for (let b = 0; b < warmUp + batches; b++) {
      for (const [name, batch] of Object.entries(cases)) {
        const begin = process.hrtime.bigint()
        yield* batch(perBatch)
        const each = Number(process.hrtime.bigint() - begin) / perBatch
        if (b >= warmUp) taken.set(name, [...(taken.get(name) ?? []), each])
      }
    }
    return Object.fromEntries([...taken].map(([name, all]) => [name, median(all)]))
  })

const peer = wrap(
  retry(handleAll, { maxAttempts: 2, backoff: new ExponentialBackoff() }),
  circuitBreaker(handleAll, { halfOpenAfter: 60_000, breaker: new ConsecutiveBreaker(5) }),
  timeout(30_000, TimeoutStrategy.Aggressive),
  bulkhead(100, 0),
)

const base = Effect.promise(leaf)
// An interrupted fiber stays interrupted, so whoever wants to go on after a timeout runs what is timed in another one.
const inChild = Effect.callback<number>((resume) => {
  const child = Effect.runForkWith(Fiber.getCurrent()!.context)(base)
  child.addObserver(resume)
  return Fiber.interrupt(child)
})
const provider = Provider.fromEffect(base, { name: "leaf" })
const attempt = provider.pipe(Timeouts.with(), CircuitBreaker.with(), Bulkhead.with({ permits: 100 }), Retry.with())
// With its defaults: clocks, breaker, retry, budget, failover of one, deadline.
const whole = Understudy.make({ candidates: [{ provider }] })
const signal = Effect.promise((signal) => signalled(signal))
const signalling = Provider.fromEffect(signal, { name: "leaf that takes the signal" })
const attemptWithSignal = signalling.pipe(
  Timeouts.with(),
  CircuitBreaker.with(),
  Bulkhead.with({ permits: 100 }),
  Retry.with(),
)

const program = Effect.gen(function* () {
  const stockBreaker = yield* StockBreaker.make({
    tripPolicy: StockBreaker.consecutive(5),
    openDuration: "60 seconds",
  })
  const permits = yield* Semaphore.make(100)
  const guarded = base.pipe(permits.withPermits(1), Effect.timeout("30 seconds"))
  const stock = guarded.pipe(
    stockBreaker.execute({ key: "leaf" }),
    Effect.retry({ schedule: Schedule.exponential("500 millis"), times: 2 }),
  )
  const runPromise = Effect.runPromiseWith(yield* Effect.context<Effect.Services<ReturnType<typeof whole.generate>>>())
  return yield* timed({
    "bare async function": promises(leaf),
    "cockatiel wrap": promises(() => peer.execute(leaf)),
    "cockatiel wrap, leaf takes the signal": promises(() => peer.execute(({ signal }) => signalled(signal))),
    "fiber: promise(fn)": effects(base),
    "fiber: promise(fn) in a child": effects(inChild),
    "stock Effect stack": effects(stock),
    "understudy: breaker, permit, timer, lazy retry": effects(attempt.generate()),
    "understudy: failover, deadline, budget, and these": effects(whole.generate()),
    "understudy: an attempt whose leaf takes the signal": effects(attemptWithSignal.generate()),
    "understudy: an attempt by runPromise": promises(() => runPromise(attempt.generate())),
  })
}).pipe(Effect.scoped, Effect.provide([StockBreaker.layerStoreMemory(), Understudy.layer]))

process.stdout.write(`${JSON.stringify(await Effect.runPromise(program))}\n`)
