/**
 * The circuit breaker as programs use it: fibers, interruptions and waiting
 * calls on virtual time, against the model of the machine.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Deferred, Duration, Effect, type Exit, type Fiber, Layer, Random } from "effect"
import { TestClock } from "effect/testing"
import { CircuitBreaker, LlmError } from "@understudy/core"
import { chance, Model, type Outcome, type Spec } from "./Breaker.model.ts"
import { type ByHand, type Sequence, sequence, type Step } from "./Breaker.sequences.ts"
import { deep } from "./Sequences.ts"
import { random } from "./stub.ts"

const { Circuits } = CircuitBreaker
const key = "shell"

/** A call that was put to the breaker. */
interface Call {
  readonly name: number
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly end: Deferred.Deferred<void, LlmError.LlmError>
  readonly ran: () => boolean
}

type Fate = "runs" | "rejected" | "left" | "waits"

const fateOf = ({ fiber, ran }: Call): Fate => {
  if (ran()) return "runs"
  const exit = fiber.pollUnsafe()
  return exit === undefined ? "waits" : isRejection(exit) ? "rejected" : "left"
}

const isRejection = (exit: Exit.Exit<unknown, unknown>): boolean => {
  const error = exit._tag === "Failure" ? Cause.findErrorOption(exit.cause) : undefined
  return error?._tag === "Some" && LlmError.is("CircuitOpen")(error.value)
}

/** Who waits for a verdict in the model, and until when. */
interface Waiting {
  readonly call: number
  readonly until: number
}

/** The model of the machine, with the calls that wait. */
class Waiters {
  readonly model: Model
  private readonly spec: Spec
  private queue: ReadonlyArray<Waiting> = []

  constructor(model: Model, spec: Spec) {
    this.model = model
    this.spec = spec
  }

  begin(call: number, now: number): Fate {
    const { excess } = this.spec
    const waits = this.model.state === "half-open" && !this.model.ready(now) && excess !== "reject"
    if (waits && this.queue.length < excess.waiters) {
      this.queue = [...this.queue, { call, until: now + excess.wait }]
      return excess.wait === 0 ? this.resolve(now).get(call)! : "waits"
    }
    return this.model.begin(call, now) === "rejected" ? "rejected" : "runs"
  }

  leave(call: number): void {
    this.queue = this.queue.filter((one) => one.call !== call)
  }

  /** When something happens to those who wait, at the earliest. */
  next(now: number): number {
    const lost = this.queue.length > 0 ? this.model.nextLost(now) : Infinity
    return Math.min(lost, ...this.queue.map(({ until }) => until))
  }

  /** What becomes of those who wait, in order. */
  resolve(now: number): ReadonlyMap<number, Fate> {
    const fates = new Map<number, Fate>()
    const still: Array<Waiting> = []
    for (const one of this.queue) {
      const goesOn = this.model.state === "half-open" && !this.model.ready(now)
      if (goesOn && now < one.until) still.push(one)
      else fates.set(one.call, this.model.begin(one.call, now) === "rejected" ? "rejected" : "runs")
    }
    this.queue = still
    return fates
  }
}

/** What sequences come to. */
interface Tally {
  opened: boolean
  probed: boolean
  closedAgain: boolean
  waited: boolean
  interruptedProbe: boolean
  leftWhileWaiting: boolean
  leftAtOnce: boolean
}

const settle = Effect.forEach(Array.from({ length: 8 }), () => Effect.yieldNow, { discard: true })

const failureOf = (outcome: Outcome, hint: number): LlmError.LlmError => {
  const said = { provider: key, ...(hint === 0 ? {} : { retryAfter: Duration.millis(hint) }) }
  switch (outcome) {
    case "opens":
      return new LlmError.ModelNotFound(said)
    case "ignored":
      return new LlmError.ContentFiltered(said)
    default:
      return new LlmError.RateLimited(said)
  }
}

/** Plays a sequence; says where breaker and model first differ, and what it came to. */
const play = ({ spec, steps }: Sequence, seed: number) =>
  Effect.gen(function* () {
    const context = yield* Layer.build(Layer.fresh(CircuitBreaker.layer))
    const circuits = Context.get(context, Circuits)
    const circuit = circuits.get(key, CircuitBreaker.rules(spec), 0)
    const model = new Model(spec)
    const waiters = new Waiters(model, spec)
    const tally: Tally = {
      opened: false,
      probed: false,
      closedAgain: false,
      waited: false,
      interruptedProbe: false,
      leftWhileWaiting: false,
      leftAtOnce: false,
    }
    const r = random(seed)
    const underWay: Array<Call> = []
    const waiting = new Map<number, Call>()
    /** When calls were let through. */
    const begun = new Map<number, number>()
    let now = 0
    let calls = 0
    let wrong: string | undefined

    const call = Effect.suspend(() => {
      const name = calls++
      const end: Call["end"] = Deferred.makeUnsafe()
      let ran = false
      const body = Effect.suspend(() => {
        ran = true
        return Deferred.await(end)
      })
      const guarded = CircuitBreaker.effect(body, { ...spec, key }).pipe(Effect.provide(context))
      return Effect.map(Effect.forkChild(guarded), (fiber): Call => ({ name, fiber, end, ran: () => ran }))
    })
    const differs = (what: string, real: unknown, wanted: unknown) => {
      if (real !== wanted) wrong ??= `at ${now}: ${what} is ${String(real)}, the model says ${String(wanted)}`
    }
    /** Those who waited, and wait no more. */
    const resolved = () => {
      const fates = waiters.resolve(now)
      for (const [name, one] of waiting) {
        const fate = fateOf(one)
        differs(`the waiting call ${name}`, fate, fates.get(name) ?? "waits")
        if (fate === "waits") continue
        waiting.delete(name)
        if (fate !== "runs") continue
        // The time that it waited is not the provider's.
        begun.set(name, now)
        underWay.push(one)
      }
    }
    /** Time passes; who waits is looked after whenever something may have happened to him. */
    const until = (instant: number) =>
      Effect.gen(function* () {
        while (now < instant) {
          now = Math.min(instant, Math.max(now + 0.001, waiters.next(now)))
          yield* TestClock.setTime(now)
          yield* settle
          resolved()
        }
      })
    const end = (one: Call, { hint, outcome }: Extract<Step, { do: "end" }>) =>
      Effect.gen(function* () {
        if (outcome === "interrupted") one.fiber.interruptUnsafe()
        else if (outcome === "success") yield* Deferred.succeed(one.end, undefined)
        else yield* Deferred.fail(one.end, failureOf(outcome, hint))
        if (outcome === "interrupted" && model.state === "half-open") tally.interruptedProbe = true
        const told = outcome === "success" || outcome === "interrupted" ? 0 : hint
        // On a clock that stands still while a call runs, both times are those since it began.
        const took = now - begun.get(one.name)!
        model.end(one.name, outcome, now, told, took, took)
        yield* settle
        resolved()
      })
    const byHand = (what: ByHand, millis: number): Effect.Effect<unknown> => {
      switch (what) {
        case "isolate":
          model.isolate(now)
          return circuits.isolate(key)
        case "release":
          model.release(now)
          return circuits.release(key)
        case "open":
        case "open for":
          model.open(now, what === "open" ? undefined : millis)
          return what === "open" ? circuits.open(key) : circuits.open(key, millis)
        case "probe":
          model.probe(now)
          return circuits.probe(key)
        case "close":
          model.close(now)
          return circuits.close(key)
        case "shadow":
        case "off":
          model.disable(now, what === "shadow")
          return circuits.disable(key, { recording: what === "shadow" })
        case "enable":
          model.enable(now)
          return circuits.enable(key)
      }
    }
    const take = (step: Step) =>
      Effect.gen(function* () {
        switch (step.do) {
          case "wait":
            return yield* until(now + step.millis)
          case "wait until": {
            const aim =
              step.what === "open time is over"
                ? model.state === "open" && model.until < Infinity
                  ? model.until
                  : now
                : (model.lastProbe ?? now - spec.probeLimit) + spec.probeLimit
            return yield* until(Math.max(now, aim + step.off))
          }
          case "begin": {
            const one = yield* call
            if (r.chance(0.05)) {
              // Its caller leaves while it begins: to the model it is as if it had not.
              for (let turn = r.int(0, 3); turn > 0; turn--) yield* Effect.yieldNow
              tally.leftAtOnce = true
              const known = model.state === "closed"
              one.fiber.interruptUnsafe()
              yield* settle
              if (known) return
              // It may have found the open time over, or been rejected.
              if (one.ran() || circuit.state !== model.state || circuit.rejections !== model.rejections) {
                if (model.begin(one.name, now) === "let through") model.end(one.name, "interrupted", now)
              }
              return resolved()
            }
            begun.set(one.name, now)
            yield* settle
            const fate = fateOf(one)
            differs(`call ${one.name}`, fate, waiters.begin(one.name, now))
            if (fate === "waits") {
              tally.waited = true
              waiting.set(one.name, one)
            } else if (fate === "runs") underWay.push(one)
            return
          }
          case "end": {
            if (step.outcome === "interrupted" && waiting.size > 0 && r.chance(0.5)) {
              const [name, one] = [...waiting][0]!
              tally.leftWhileWaiting = true
              waiting.delete(name)
              waiters.leave(name)
              one.fiber.interruptUnsafe()
              return yield* settle
            }
            const [one] = underWay.splice(step.which % Math.max(1, underWay.length), 1)
            if (one !== undefined) yield* end(one, step)
            return
          }
          case "by hand":
            yield* byHand(step.what, step.millis)
            yield* settle
            return resolved()
        }
      })

    for (const [index, step] of steps.entries()) {
      yield* take(step)
      differs("the state", circuit.state, model.state)
      differs("the mode", circuit.mode, model.mode)
      differs("probes", circuit.probesAt(now), model.probes(now))
      differs("the rest of the open time", circuit.retryAfter(now), model.retryAfter(now))
      differs("openings", circuit.openings, model.openings())
      differs(
        "waiting calls",
        [...waiting.values()].every((one) => fateOf(one) === "waits"),
        true,
      )
      if (model.state === "open") tally.opened = true
      if (model.state === "half-open") tally.probed = true
      if (model.state === "closed" && tally.probed) tally.closedAgain = true
      if (wrong !== undefined) return { wrong: `seed ${seed}, step ${index} ${JSON.stringify(step)} ${wrong}`, tally }
    }
    for (const { fiber } of [...underWay, ...waiting.values()]) fiber.interruptUnsafe()
    yield* settle
    yield* settle
    differs("calls under way, when everybody has left", circuit.outstanding, 0)
    differs("probes, when everybody has left", circuit.inFlight, 0)
    return { wrong: wrong === undefined ? undefined : `seed ${seed}, at the end ${wrong}`, tally }
  }).pipe(
    Effect.scoped,
    Effect.provideService(Random.Random, { ...chance, nextIntUnsafe: () => 1 }),
    Effect.provide(TestClock.layer()),
  )

/** A sequence without what only the machine can be told: floors, and durations that take no time. */
const shellSequence = (seed: number): Sequence => {
  const { spec, steps } = sequence(seed)
  const r = random(seed + 1)
  const excess = r.chance(0.5) ? "reject" : { wait: r.pick([50, 1000, 20_000]), waiters: r.int(1, 4) }
  return {
    spec: { ...spec, excess },
    steps: steps.slice(0, r.int(60, 75)).map((step) => (step.do === "begin" ? { ...step, floor: false } : step)),
  }
}

describe("The circuit breaker of a program", () => {
  it.effect("does what its model does, in 1,000 sequences of fibers that overlap, wait and are interrupted", () =>
    Effect.gen(function* () {
      const sequences = deep(1000)
      const reached = new Map<string, number>()
      for (let seed = 0; seed < sequences; seed++) {
        const { tally, wrong } = yield* play(shellSequence(seed), seed)
        if (wrong !== undefined) assert.fail(wrong)
        for (const [what, was] of Object.entries(tally)) if (was) reached.set(what, (reached.get(what) ?? 0) + 1)
      }
      const least: Readonly<Record<keyof Tally, number>> = {
        opened: 0.8,
        probed: 0.7,
        closedAgain: 0.4,
        waited: 0.15,
        interruptedProbe: 0.15,
        leftWhileWaiting: 0.01,
        leftAtOnce: 0.6,
      }
      for (const [what, share] of Object.entries(least)) {
        assert.isAtLeast((reached.get(what) ?? 0) / sequences, share, what)
      }
    }),
  )
})
