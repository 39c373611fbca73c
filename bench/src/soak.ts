/**
 * The soak: a million calls under random faults, interruptions and changes of the
 * candidates, on virtual time. `pnpm bench:soak [calls]`, or with `--json`.
 *
 * What must be true at the end: every call is accounted for in the events, once;
 * nothing is held any more (permits, probes, timers); and after a forced
 * collection the heap is as large as it was after a tenth of the calls.
 *
 * Time is that of a clock of its own: sleepers stand in a heap, and when nobody
 * has anything to do any more, time jumps to the first of them.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import { Effect, Fiber, Layer, Random, Stream } from "effect"
import {
  Bulkhead,
  Call,
  CircuitBreaker,
  Directory,
  LanguageModelFace,
  LlmError,
  PolicyEvent,
  Provider,
  RetryBudget,
  Understudy,
} from "@understudy/core"

const calls = Number(process.argv.slice(2).find((argument) => /^\d+$/.test(argument)) ?? 1_000_000)
const json = process.argv.includes("--json")
const crowd = 500

// ---------------------------------------------------------------------------
// Time
// ---------------------------------------------------------------------------

interface Sleeper {
  readonly due: number
  readonly order: number
  readonly wake: () => void
}

const before = (a: Sleeper, b: Sleeper): boolean => a.due < b.due || (a.due === b.due && a.order < b.order)

/** A clock whose time is moved from sleeper to sleeper. */
class HeapClock implements Clock.Clock {
  private millis = Date.UTC(2026, 0, 1)
  private readonly heap: Array<Sleeper> = []
  private readonly gone = new Set<Sleeper>()
  private order = 0

  readonly currentTimeMillisUnsafe = (): number => this.millis
  readonly currentTimeNanosUnsafe = (): bigint => BigInt(Math.round(this.millis)) * 1_000_000n
  readonly monotonicTimeNanosUnsafe = (): bigint => BigInt(Math.round(this.millis * 1_000_000))
  readonly currentTimeMillis = Effect.sync(this.currentTimeMillisUnsafe)
  readonly currentTimeNanos = Effect.sync(this.currentTimeNanosUnsafe)
  readonly monotonicTimeNanos = Effect.sync(this.monotonicTimeNanosUnsafe)
  readonly sleep = (duration: Duration.Duration): Effect.Effect<void> =>
    Effect.callback<void>((resume) => {
      const sleeper = {
        due: this.millis + Duration.toMillis(duration),
        order: this.order++,
        wake: () => resume(Effect.void),
      }
      this.push(sleeper)
      return Effect.sync(() => void this.gone.add(sleeper))
    })

  /** How many still sleep. */
  get sleeping(): number {
    return this.heap.length - this.gone.size
  }

  /** Wakes the first, if there is one. */
  next(): boolean {
    for (let first = this.pop(); first !== undefined; first = this.pop()) {
      if (this.gone.delete(first)) continue
      this.millis = Math.max(this.millis, first.due)
      first.wake()
      return true
    }
    return false
  }

  private push(sleeper: Sleeper): void {
    const { heap } = this
    let place = heap.push(sleeper) - 1
    while (place > 0) {
      const above = (place - 1) >> 1
      if (!before(sleeper, heap[above]!)) break
      heap[place] = heap[above]!
      place = above
    }
    heap[place] = sleeper
  }

  private pop(): Sleeper | undefined {
    const { heap } = this
    const first = heap[0]
    const last = heap.pop()
    if (first === undefined || last === undefined || first === last) return first
    let place = 0
    while (true) {
      let below = 2 * place + 1
      if (below >= heap.length) break
      if (below + 1 < heap.length && before(heap[below + 1]!, heap[below]!)) below++
      if (!before(heap[below]!, last)) break
      heap[place] = heap[below]!
      place = below
    }
    heap[place] = last
    return first
  }
}

// ---------------------------------------------------------------------------
// Providers that have bad days
// ---------------------------------------------------------------------------

const failures: ReadonlyArray<(provider: string) => LlmError.ProviderFailure> = [
  (provider) => new LlmError.RateLimited({ provider, retryAfter: Duration.seconds(1) }),
  (provider) => new LlmError.Overloaded({ provider }),
  (provider) => new LlmError.ProviderUnavailable({ provider }),
  (provider) => new LlmError.ConnectionFailed({ provider, fault: "reset" }),
  (provider) => new LlmError.InvalidRequest({ provider }),
  (provider) => new LlmError.QuotaExhausted({ provider }),
  (provider) => new LlmError.ContentFiltered({ provider }),
]

const text: LanguageModelFace.Answer = [
  { type: "text", text: "The show goes on." },
  { type: "finish", reason: "stop", usage: { inputTokens: { total: 10 }, outputTokens: { total: 5 } } },
]
const parts = LanguageModelFace.streamed(text)

/** The chance of trouble rises and falls, so that circuits open and close. */
const trouble = (millis: number, phase: number): number => 0.22 + 0.2 * Math.sin(millis / 300_000 + phase)

const provider = (name: string, phase: number) => {
  const attempt = Effect.gen(function* () {
    const clock = yield* Clock.Clock
    const [chance, kind, wait] = [yield* Random.next, yield* Random.next, yield* Random.next]
    yield* Effect.sleep(Duration.millis(Math.floor(wait * wait * 4_000)))
    if (chance >= trouble(clock.currentTimeMillisUnsafe(), phase)) return
    if (kind < 0.05) return yield* Effect.never
    // The grave ones, last in the list, are rare.
    yield* Effect.fail(failures[Math.floor(kind * kind * failures.length)]!(name))
  })
  return Provider.make<LanguageModelFace.LanguageModelFace, LlmError.ProviderFailure>({
    name,
    model: `${name}-1`,
    face: LanguageModelFace.languageModelFace,
    generate: () => Effect.as(attempt, text),
    stream: () =>
      Stream.unwrap(
        Effect.as(
          attempt,
          Stream.fromIterable(parts).pipe(
            Stream.rechunk(1),
            Stream.tap(() => Effect.sleep("20 millis")),
          ),
        ),
      ),
  })
}

const names = ["aurora", "boreas", "calypso"]
const model = Understudy.make({
  name: "company",
  candidates: [
    { provider: provider("aurora", 0).pipe(Bulkhead.with({ permits: 200, queue: 50, maxWait: "1 second" })) },
    { provider: provider("boreas", 2), priority: 1 },
    { provider: provider("calypso", 4), priority: 2 },
  ],
  timeouts: { attempt: "3 seconds", firstContent: "3 seconds", idle: "2 seconds", streamAttempt: "10 seconds" },
  deadline: { generate: "12 seconds", stream: "20 seconds" },
})
const request = LanguageModelFace.request("Does the show go on?")

// ---------------------------------------------------------------------------
// The calls
// ---------------------------------------------------------------------------

const ends = new Set(["Answered", "CallFailed", "CallInterrupted"])
const tally = {
  started: 0,
  Answered: 0,
  CallFailed: 0,
  CallInterrupted: 0,
  attempts: 0,
  attemptsEnded: 0,
  strays: 0,
  changes: 0,
}
const open = new Set<string>()
/** What operations do belongs to no call. */
const byHand = "by hand"

const observer: PolicyEvent.Observer = (event) => {
  if (event.call === byHand) return
  if (event.event === "CallStarted") {
    tally.started++
    if (open.has(event.call)) tally.strays++
    open.add(event.call)
  } else if (!open.has(event.call)) {
    tally.strays++
  } else if (ends.has(event.event)) {
    tally[event.event as "Answered"]++
    open.delete(event.call)
  } else if (event.event === "AttemptStarted") tally.attempts++
  else if (event.event.startsWith("Attempt")) tally.attemptsEnded++
}

const ask = Effect.gen(function* () {
  const [kind, leaves, when] = [yield* Random.next, yield* Random.next, yield* Random.next]
  const one: Effect.Effect<unknown, unknown, Effect.Services<ReturnType<typeof model.generate>>> = kind < 0.7
    ? model.generate(request)
    : Stream.runDrain(model.stream(request))
  const fiber = yield* Effect.forkChild(Effect.exit(kind < 0.1 ? one.pipe(Call.withDeadline("2 seconds")) : one))
  if (leaves < 0.15) {
    yield* Effect.sleep(Duration.millis(Math.floor(when * 3_000)))
    yield* Fiber.interrupt(fiber)
  }
  yield* Fiber.await(fiber)
})

/** Operations at work: somebody disables, enables and re-prioritises all the time. */
const change = Effect.gen(function* () {
  const directory = yield* Directory.Directory
  const [who, what] = [yield* Random.next, yield* Random.next]
  const name = names[Math.floor(who * names.length)]!
  yield* Effect.ignore(directory.update("company", name, { enabled: what < 0.8, priority: Math.floor(what * 10) }))
  tally.changes++
})

const clock = new HeapClock()

/** Runs so many calls, a crowd at once, each beginning when another has ended. */
const run = (count: number) => {
  let left = count
  const next: Effect.Effect<void, never, Effect.Services<typeof ask> | Directory.Directory> = Effect.suspend(() => {
    if (left <= 0) return Effect.void
    left--
    const pause = Effect.flatMap(Random.next, (share) => Effect.sleep(Duration.millis(Math.floor(share * 10_000))))
    return Effect.andThen(pause, left % 1_000 === 0 ? Effect.andThen(change, ask) : ask).pipe(Effect.andThen(next))
  })
  return Effect.all(
    Array.from({ length: crowd }, () => next),
    { concurrency: "unbounded", discard: true },
  )
}

const heap = (): number => {
  for (let n = 0; n < 4; n++) globalThis.gc?.()
  return process.memoryUsage().heapUsed
}

const program = Effect.gen(function* () {
  const tenth = Math.floor(calls / 10)
  const begun = process.hrtime.bigint()
  yield* run(tenth)
  const early = heap()
  yield* run(calls - tenth)
  const took = Number(process.hrtime.bigint() - begun)
  const late = heap()
  const circuits = yield* (yield* CircuitBreaker.Circuits).status
  const bulkheads = yield* (yield* Bulkhead.Bulkheads).status
  return {
    calls,
    ...tally,
    open: open.size,
    permitsOut: bulkheads.reduce((sum, { inUse }) => sum + inUse, 0),
    waiting: bulkheads.reduce((sum, { waiting }) => sum + waiting, 0),
    circuits: circuits.map(({ key, state }) => `${key}: ${state}`),
    sleeping: clock.sleeping,
    heapAtTenth: early,
    heapAtEnd: late,
    growth: late / early - 1,
    nsACall: Math.round(took / calls),
  }
}).pipe(
  PolicyEvent.observe(observer),
  Random.withSeed(7),
  Effect.provideService(Clock.Clock, clock),
  Effect.provide(Layer.mergeAll(Understudy.layer, Bulkhead.layer, RetryBudget.layer)),
  Effect.scoped,
)

let over = false
const outcome = Effect.runPromise(program as Effect.Effect<Effect.Success<typeof program>>).finally(() => (over = true))
// When nobody has anything to do any more, it is time for the next.
const turn = (): void => {
  if (over) return
  clock.next()
  setImmediate(turn)
}
setImmediate(turn)

const found = await outcome
const wrong = [
  found.started === calls ? [] : [`${found.started} calls began`],
  found.Answered + found.CallFailed + found.CallInterrupted === found.started ? [] : ["some calls have no end"],
  found.open === 0 ? [] : [`${found.open} calls are open`],
  found.strays === 0 ? [] : [`${found.strays} events belong to no call`],
  found.attempts === found.attemptsEnded - 0 || found.attempts <= found.attemptsEnded
    ? []
    : ["some attempts have no end"],
  found.permitsOut === 0 ? [] : [`${found.permitsOut} permits are out`],
  globalThis.gc === undefined || found.growth <= 0.05 ? [] : [`the heap grew by ${(found.growth * 100).toFixed(1)} %`],
].flat()

process.stdout.write(
  json
    ? `${JSON.stringify({ ...found, wrong })}\n`
    : `${JSON.stringify(found, null, 2)}\n${wrong.length === 0 ? "All is accounted for." : wrong.join("\n")}\n`,
)
process.exitCode = wrong.length === 0 ? 0 : 1
