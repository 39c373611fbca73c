/**
 * Plays the trace of a breaker on the breaker of the library, on virtual time,
 * and tells what was observed after each step.
 *
 * The calls are fibers that go through `CircuitBreaker.effect`; nothing is asked
 * of it but whether they run, what comes back, which events are told, and the
 * status of the circuit. Only a call whose duration a trace reports, without
 * time passing, is told to the circuit directly.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as TestClock from "effect/testing/TestClock"
import { CircuitBreaker, LlmError, PolicyEvent } from "@understudy/core"
import { breakerOf, type Case, otherKind, type Played, type Step, tripperOf, Unsupported } from "./BreakerTrace.ts"

/** What was observed, for one trace. */
export type Replayed =
  | {
      readonly id: Case["id"]
      readonly supported: true
      readonly steps: ReadonlyArray<Readonly<Record<string, unknown>>>
    }
  | { readonly id: Case["id"]; readonly supported: false; readonly why: string }

/** Plays a trace. With options, those are played instead of the trace's own policy. */
export const replay = (trace: Case, considered?: CircuitBreaker.Options | undefined): Effect.Effect<Replayed> =>
  Effect.suspend(() => {
    const { kind } = trace.policy
    if (kind === "tripper") return Effect.sync(() => playTripper(trace))
    if (kind !== "breaker" && !(kind === undefined && considered !== undefined)) throw new Unsupported(otherKind(kind))
    return playBreaker(trace, breakerOf(trace.policy, considered))
  }).pipe(
    Effect.map((steps): Replayed => ({ id: trace.id, supported: true, steps })),
    Effect.catchDefect((defect) =>
      defect instanceof Unsupported
        ? Effect.succeed<Replayed>({ id: trace.id, supported: false, why: defect.message })
        : Effect.die(defect),
    ),
  )

type Seen = Readonly<Record<string, unknown>>

// -----------------------------------------------------------------------------
// What is looked at
// -----------------------------------------------------------------------------

const usually = ["admit", "state", "retry_after_ms", "events"]

/** The names that a step asks for, and of those with parts the parts, if it names them. */
const askedOf = ({ expect, observe = expect }: Step): ReadonlyArray<readonly [name: string, parts: unknown]> => {
  const asked = observe ?? usually
  if (typeof asked === "string") return [[asked, undefined]]
  return Array.isArray(asked)
    ? asked.map((name: string) => [name, undefined] as const)
    : Object.entries(asked as Readonly<Record<string, unknown>>)
}

/** Answers with what a step asks for, each looked up when it is asked. */
const looked = (step: Step, fields: Readonly<Record<string, () => unknown>>): Seen => {
  const out: Record<string, unknown> = {}
  for (const [name, parts] of askedOf(step)) {
    const [field = name, part] = name.split(".", 2)
    const look = Object.hasOwn(fields, field) ? fields[field] : undefined
    if (look === undefined) throw new Unsupported(`${field}: nothing of that name can be observed.`)
    const value = look()
    out[name] = part === undefined ? partsOf(field, value, parts) : partsOf(field, value, [part])[part]
  }
  return out
}

const partsOf = (field: string, value: unknown, parts: unknown): Record<string, unknown> => {
  const names = Array.isArray(parts) ? parts : typeof parts === "object" && parts !== null ? Object.keys(parts) : []
  const whole = value as Record<string, unknown>
  if (field !== "stats" || names.length === 0) return whole
  for (const name of names) {
    if (!Object.hasOwn(whole, name)) throw new Unsupported(`stats: nothing of the name ${name} is counted.`)
  }
  return Object.fromEntries(names.map((name) => [name, whole[name]]))
}

/** Shares to two decimals, as people write them. */
const share = (part: number, of: number): number => (of === 0 ? 0 : Math.round((100 * part) / of) / 100)

// -----------------------------------------------------------------------------
// A tripper
// -----------------------------------------------------------------------------

const playTripper = (trace: Case): ReadonlyArray<Seen> => {
  const tripper = tripperOf(trace.policy)
  return trace.steps.map((step) => {
    let trips = false
    const record = (failed: boolean) => {
      const took = step.duration_ms ?? 0
      trips = tripper.record(failed, step.at_ms, took, took) !== undefined
    }
    for (let n = 0; n < (step.repeat ?? 1); n++) {
      switch (step.action) {
        case "record-failure":
          record(true)
          break
        case "record-success":
          record(false)
          break
        case "record-slow":
          record(step.outcome === "failure")
          break
        case "reset":
          tripper.clear()
          break
        case "reset-then-record-success":
          tripper.clear()
          record(false)
          break
        case "check":
          break
        default:
          throw new Unsupported(`${step.action}: a tripper has no such action.`)
      }
    }
    return looked(step, { trips: () => trips })
  })
}

// -----------------------------------------------------------------------------
// A breaker
// -----------------------------------------------------------------------------

const key = "trace"

type Outcome = "success" | "failure" | "ignored"

/** A call that was put to the breaker. */
interface Call {
  readonly name: string
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly end: Deferred.Deferred<void, LlmError.LlmError>
  readonly ran: () => boolean
}

type Fate = "runs" | "rejected" | "cancelled" | "waits"

const playBreaker = (trace: Case, policy: Played): Effect.Effect<ReadonlyArray<Seen>> =>
  Effect.gen(function* () {
    const context = yield* Layer.build(Layer.fresh(CircuitBreaker.layer))
    const stage = new Stage(context, policy)
    yield* stage.begin
    const out: Array<Seen> = []
    for (const step of trace.steps) {
      yield* TestClock.setTime(step.at_ms)
      for (let n = 0; n < (step.repeat ?? 1); n++) yield* stage.take(step)
      out.push(yield* stage.look(step))
    }
    yield* stage.leave
    return out
  }).pipe(Effect.scoped, Effect.provide(TestClock.layer()))

/** Lets all fibers run until they wait for something. */
const settle = Effect.forEach(Array.from({ length: 24 }), () => Effect.yieldNow, { discard: true })

class Stage {
  private readonly context: Context.Context<CircuitBreaker.Circuits>
  private readonly circuits: CircuitBreaker.Circuits["Service"]
  private readonly policy: Played
  private readonly underWay = new Map<string, Call>()
  private readonly waiting = new Map<string, Call>()
  private events: Array<string> = []
  private released: Array<string> = []
  private rejected: Array<string> = []
  private cancelled: Array<string> = []
  /** What became of the call that the last step began. */
  private fate: Fate | undefined
  private rejection: LlmError.CircuitOpen | undefined
  private unnamed = 0

  constructor(context: Context.Context<CircuitBreaker.Circuits>, policy: Played) {
    this.context = context
    this.circuits = Context.get(context, CircuitBreaker.Circuits)
    this.policy = policy
  }

  /** Brings the circuit into the state in which the trace begins. */
  get begin(): Effect.Effect<void> {
    const { begin, rules, shadow } = this.policy
    this.circuits.get(key, rules, 0)
    const into = (): Effect.Effect<unknown> => {
      switch (begin?.state) {
        case "open": {
          if (begin.openedAt === undefined) return this.circuits.open(key)
          const whole = rules.openTime()(1, { nextDoubleUnsafe: () => 0 })
          return this.circuits.open(key, Math.max(0, begin.openedAt + whole))
        }
        case "half-open":
          return this.circuits.probe(key)
        case "isolated":
          return this.circuits.isolate(key)
        default:
          return Effect.void
      }
    }
    return Effect.andThen(into(), shadow ? this.circuits.disable(key) : Effect.void)
  }

  take(step: Step): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      this.events = []
      this.released = []
      this.rejected = []
      this.cancelled = []
      this.fate = undefined
      this.rejection = undefined
      yield* this.act(step)
      yield* settle
      for (const [name, call] of this.waiting) {
        const fate = this.fateOf(call)
        if (fate === "waits") continue
        this.waiting.delete(name)
        if (fate === "runs") this.released.push(name)
        else if (fate === "rejected") this.rejected.push(name)
        else this.cancelled.push(name)
      }
    })
  }

  private act(step: Step): Effect.Effect<void> {
    const { circuits } = this
    switch (step.action) {
      case "call-success":
        return this.whole(step, "success")
      case "call-failure":
        return this.whole(step, "failure")
      case "call-ignored":
        return this.whole(step, "ignored")
      case "call-slow":
        return Effect.sync(() => this.reported(step))
      case "begin":
        return this.start(step)
      case "end-success":
        return this.end(step, "success")
      case "end-failure":
        return this.end(step, "failure")
      case "end-ignored":
        return this.end(step, "ignored")
      case "abort":
      case "end-interrupted":
      case "release-permission":
        return this.abort(step)
      case "check":
      case "wait":
        return Effect.void
      case "isolate":
      case "force-state-isolated":
        return this.byHand(circuits.isolate(key))
      case "release-isolation":
        return this.byHand(circuits.release(key))
      case "close":
      case "reset":
      case "force-state-closed":
        return this.byHand(circuits.close(key))
      case "open":
      case "force-state-open":
        return this.byHand(
          step.duration_ms === undefined ? circuits.open(key) : circuits.open(key, Math.max(0, step.duration_ms)),
        )
      case "probe":
      case "half-open":
      case "force-state-half-open":
        return this.byHand(circuits.probe(key))
      case "shadow":
      case "force-state-shadow":
      case "force-state-metrics-only":
        return this.byHand(circuits.disable(key))
      case "disable":
      case "force-state-disabled":
        return this.byHand(circuits.disable(key, { recording: false }))
      case "enable":
        return this.byHand(circuits.enable(key))
      case "snapshot-restore":
        throw new Unsupported(
          "The state of a circuit is not written down and read again: it lives as long as its layer does.",
        )
      case "shutdown":
        throw new Unsupported("A circuit needs no shutting down: it holds no timer.")
      default:
        throw new Unsupported(`${step.action}: a breaker has no such action.`)
    }
  }

  // --- Calls

  private readonly hear = (event: PolicyEvent.PolicyEvent): void => {
    const name = nameOf(event)
    if (name !== undefined) this.events.push(name)
  }

  private nameOfCall(step: Step): string {
    return step.call === undefined ? `unnamed ${++this.unnamed}` : String(step.call)
  }

  /** Begins a call. One whose caller has left stops before it does anything, once it is let through. */
  private call(step: Step, end: Call["end"]): Effect.Effect<Call> {
    return Effect.gen({ self: this }, function* () {
      const name = this.nameOfCall(step)
      let ran = false
      const body = Effect.suspend(() => {
        if (step.aborted === true) return Effect.interrupt
        ran = true
        return Deferred.await(end)
      })
      const guarded = CircuitBreaker.effect(body, { ...this.policy.options, key }).pipe(
        PolicyEvent.observe(this.hear),
        Effect.provide(this.context),
      )
      const call: Call = { name, fiber: yield* Effect.forkChild(guarded), end, ran: () => ran }
      yield* settle
      this.fate = this.fateOf(call)
      if (this.fate === "rejected") this.rejection = rejectionOf(call)
      if (this.fate === "waits") this.waiting.set(name, call)
      return call
    })
  }

  private start(step: Step): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      const call = yield* this.call(step, Deferred.makeUnsafe())
      if (this.underWay.has(call.name)) throw new Unsupported(`${call.name}: a call of that name is under way.`)
      if (this.fate === "runs" || this.fate === "waits") this.underWay.set(call.name, call)
    })
  }

  /** A call that begins and ends in one step. */
  private whole(step: Step, outcome: Outcome): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      const end: Call["end"] = Deferred.makeUnsafe()
      yield* this.complete(end, outcome, step)
      yield* this.call(step, end)
    })
  }

  private end(step: Step, outcome: Outcome): Effect.Effect<void> {
    const call = this.named(step)
    this.underWay.delete(call.name)
    return this.complete(call.end, outcome, step)
  }

  private abort(step: Step): Effect.Effect<void> {
    const call = this.named(step)
    this.underWay.delete(call.name)
    return Effect.sync(() => call.fiber.interruptUnsafe())
  }

  private named(step: Step): Call {
    const call = this.underWay.get(String(step.call))
    if (call === undefined) throw new Unsupported(`${String(step.call)}: no call of that name is under way.`)
    return call
  }

  private complete(end: Call["end"], outcome: Outcome, { hint_ms }: Step): Effect.Effect<unknown> {
    const provider = key
    switch (outcome) {
      case "success":
        return Deferred.succeed(end, undefined)
      case "ignored":
        return Deferred.fail(end, new LlmError.ContentFiltered({ provider }))
      case "failure":
        return Deferred.fail(
          end,
          hint_ms === undefined
            ? new LlmError.ProviderUnavailable({ provider })
            : new LlmError.RateLimited({ provider, retryAfter: Duration.millis(hint_ms) }),
        )
    }
  }

  /** A call whose duration is reported: it takes no time on the clock. */
  private reported(step: Step): void {
    const { at_ms: now, duration_ms: took = 0, outcome = "success" } = step
    const circuit = this.circuits.get(key, this.policy.rules, now)
    const changed = (act: () => void) => {
      const before = circuit.state
      act()
      if (circuit.state === before) return
      if (circuit.mode !== "shadow") this.events.push(stateEvents[circuit.state])
      else if (circuit.state === "open") this.events.push("threshold-exceeded")
    }
    let ticket = CircuitBreaker.rejected
    changed(() => (ticket = circuit.admit(now)))
    this.fate = ticket === CircuitBreaker.rejected ? "rejected" : "runs"
    if (this.fate === "rejected") return void this.events.push("reject")
    this.events.push(outcome)
    changed(() => circuit.record(ticket, outcome, now, step.hint_ms ?? 0, took, took))
  }

  private byHand(act: Effect.Effect<CircuitBreaker.Status>): Effect.Effect<void> {
    return act.pipe(PolicyEvent.observe(this.hear), Effect.asVoid)
  }

  private fateOf(call: Call): Fate {
    if (call.ran()) return "runs"
    const exit = call.fiber.pollUnsafe()
    if (exit === undefined) return "waits"
    return exit._tag === "Failure" && Cause.hasInterruptsOnly(exit.cause) ? "cancelled" : "rejected"
  }

  /** Everybody leaves. */
  get leave(): Effect.Effect<void> {
    for (const { fiber } of [...this.underWay.values(), ...this.waiting.values()]) fiber.interruptUnsafe()
    return settle
  }

  // --- Looking

  look(step: Step): Effect.Effect<Seen> {
    return Effect.map(this.circuits.status, (all) => {
      const status = all.find((one) => one.key === key)!
      const { calls, failures, slow } = status.counts
      const retryAfter = status.retryAfter === undefined ? null : Duration.toMillis(status.retryAfter)
      const left = status.mode === "isolated" ? null : status.state === "open" ? retryAfter : 0
      return looked(step, {
        admit: () => (this.fate === undefined ? null : admitted[this.fate]),
        state: () => (status.mode === "isolated" ? "isolated" : status.mode === "automatic" ? status.state : "closed"),
        retry_after_ms: () => {
          const hint = this.rejection?.retryAfter
          return this.rejection === undefined ? left : hint === undefined ? null : Duration.toMillis(hint)
        },
        error: () => {
          if (this.fate !== "rejected") return null
          return status.mode === "isolated" ? "circuit-isolated" : "circuit-open"
        },
        events: () => this.events,
        stats: () => ({
          calls,
          failures,
          successes: calls - failures,
          slowCalls: slow,
          failureRate: share(failures, calls),
          successRate: share(calls - failures, calls),
          slowRate: share(slow, calls),
          rejected: status.rejections,
          notPermitted: status.rejections,
        }),
        released: () => this.released,
        rejected: () => this.rejected,
        cancelled: () => this.cancelled,
        probes: () => status.probes,
        openings: () => status.openings,
        reason: () => status.lastTrip?.reason ?? null,
      })
    })
  }
}

const admitted: Readonly<Record<Fate, boolean | "queued">> = {
  runs: true,
  rejected: false,
  waits: "queued",
  cancelled: false,
}

const stateEvents: Readonly<Record<CircuitBreaker.State, string>> = {
  open: "open",
  "half-open": "half-open",
  closed: "close",
}

const rejectionOf = (call: Call): LlmError.CircuitOpen | undefined => {
  const exit = call.fiber.pollUnsafe()
  return exit === undefined ? undefined : failureOf(exit)
}

const failureOf = (exit: Exit.Exit<unknown, unknown>): LlmError.CircuitOpen | undefined => {
  if (exit._tag === "Success") return undefined
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  return LlmError.is("CircuitOpen")(error) ? error : undefined
}

/** The name of an event in a trace. */
const nameOf = (event: PolicyEvent.PolicyEvent): string | undefined => {
  switch (event.event) {
    case "AttemptSucceeded":
      return "success"
    case "AttemptFailed":
      return event.health === "ignored" ? "ignored" : "failure"
    case "CircuitOpened":
      return event.shadow === true ? "threshold-exceeded" : "open"
    case "CircuitHalfOpened":
      return event.shadow === true ? undefined : "half-open"
    case "CircuitClosed":
      return event.shadow === true ? undefined : "close"
    case "CircuitRejected":
      return event.shadow === true ? undefined : "reject"
    case "CircuitSet":
      return setEvents[event.to]
    default:
      return undefined
  }
}

const setEvents: Readonly<Record<string, string | undefined>> = {
  isolated: "open",
  opened: "open",
  probing: "half-open",
  released: "close",
  closed: "close",
}
