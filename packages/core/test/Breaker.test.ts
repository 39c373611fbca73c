import { assert, describe, it } from "@effect/vitest"
import { CircuitBreaker } from "@understudy/core"
import { unrecorded } from "../src/internal/breaker/machine.ts"
import { chance, type Flaws, Model, type Outcome } from "./Breaker.model.ts"
import { type Sequence, sequence, shrink, type Step } from "./Breaker.sequences.ts"
import { deep } from "./Sequences.ts"
import { random } from "./stub.ts"

const { rejected } = CircuitBreaker

/** What sequences come to. */
type Reached =
  | "open"
  | "half-open"
  | "closed again"
  | "reopened"
  | "opened twice in a row"
  | "probe lost"
  | "floor"
  | "late outcome"
  | "isolated"
  | "shadow"
  | "off"
  | `tripped: ${string}`

interface Played {
  /** Where breaker and model first disagree. */
  readonly disagreement: string | undefined
  readonly reached: ReadonlySet<Reached>
}

/** Plays a sequence on breaker and model side by side, and compares everything that can be seen after every step. */
const play = ({ spec, steps }: Sequence, flaws?: Flaws): Played => {
  const breaker = CircuitBreaker.machine(spec)
  const model = new Model(spec, flaws)
  const reached = new Set<Reached>()
  /** Calls under way: the breaker's ticket and the model's name for each. */
  const underWay: Array<{ readonly call: number; readonly ticket: number; readonly since: number }> = []
  let now = 0
  let calls = 0

  const take = (step: Step): readonly [unknown, unknown] => {
    switch (step.do) {
      case "wait":
        now += step.millis
        return [0, 0]
      case "wait until": {
        const aim =
          step.what === "open time is over"
            ? model.state === "open" && model.until < Infinity
              ? model.until
              : now
            : (model.lastProbe ?? now - spec.probeLimit) + spec.probeLimit
        now = Math.max(now, aim + step.off)
        return [0, 0]
      }
      case "begin": {
        const call = calls++
        const floor = step.floor && model.mayFloor(now)
        if (floor) reached.add("floor")
        const ticket = step.floor ? breaker.admitFloor(now) : breaker.admit(now)
        const entry = step.floor ? model.beginFloor(call, now) : model.begin(call, now)
        if (ticket !== rejected) underWay.push({ call, ticket, since: now })
        return [ticket === rejected ? "rejected" : ticket === unrecorded ? "unrecorded" : "let through", entry]
      }
      case "end": {
        const [ended] = underWay.splice(step.which % Math.max(1, underWay.length), 1)
        if (ended === undefined) return [0, 0]
        if (model.since > ended.since) reached.add("late outcome")
        else if (model.state === "half-open" && now - ended.since >= spec.probeLimit) reached.add("probe lost")
        const { first, hint, outcome, total } = step
        breaker.record(ended.ticket, outcome, now, hint, first, total, chance)
        model.end(ended.call, outcome, now, hint, first, total)
        return [0, 0]
      }
      case "by hand":
        byHand(step)
        return [0, 0]
    }
  }
  const byHand = ({ millis, what }: Extract<Step, { do: "by hand" }>): void => {
    switch (what) {
      case "isolate":
        breaker.isolate(now)
        return model.isolate(now)
      case "release":
        breaker.release(now)
        return model.release(now)
      case "open":
        breaker.trip(now, undefined, chance)
        return model.open(now, undefined)
      case "open for":
        breaker.trip(now, millis, chance)
        return model.open(now, millis)
      case "probe":
        breaker.halfOpen(now)
        return model.probe(now)
      case "close":
        breaker.close(now)
        return model.close(now)
      case "shadow":
      case "off":
        breaker.disable(now, what === "shadow")
        return model.disable(now, what === "shadow")
      case "enable":
        breaker.enable(now)
        return model.enable(now)
    }
  }

  for (const [index, step] of steps.entries()) {
    const before = model.state
    const admitted = take(step)
    const { mode, reason, state } = model
    if (state !== "closed") reached.add(state)
    else if (reached.has("open")) reached.add("closed again")
    if (state === "open" && before === "half-open") reached.add("reopened")
    if (state === "open" && before !== "open" && model.openings() > 1) reached.add("opened twice in a row")
    if (state === "open" && reason !== undefined) reached.add(`tripped: ${reason}`)
    if (mode !== "automatic") reached.add(mode)
    const counts = breaker.counts(now)
    const expected = model.counts(now)
    model.lookedAt(now)
    const seen = [
      ["admitted", ...admitted],
      ["state", breaker.state, state],
      ["mode", breaker.mode, mode],
      ["since", breaker.since, model.since],
      ["ready", breaker.ready(now), model.ready(now)],
      ["ready for the floor", breaker.mayFloor(now), model.mayFloor(now)],
      ["retryAfter", breaker.retryAfter(now), model.retryAfter(now)],
      ["probes", breaker.probesAt(now), model.probes(now)],
      [
        "failures in a row",
        state === "closed" ? breaker.consecutive : 0,
        state === "closed" ? model.failuresInARow : 0,
      ],
      ["calls counted", counts.calls, expected.calls],
      ["failures counted", counts.failures, expected.failures],
      ["slow calls counted", counts.slow, expected.slow],
      ["rejections", breaker.rejections, model.rejections],
      ["reason", breaker.lastTrip?.reason, reason],
      ["openings", breaker.openings, model.openings()],
      ["calls under way", breaker.outstanding, underWay.length],
    ] as const
    const different = seen.find(([, real, wanted]) => real !== wanted)
    if (different !== undefined) {
      const [what, real, wanted] = different
      const disagreement = `step ${index} ${JSON.stringify(step)} at ${now}: ${what} is ${real}, the model says ${wanted}`
      return { disagreement, reached }
    }
  }
  return { disagreement: undefined, reached }
}

const report = (seed: number, flaws?: Flaws): string => {
  const minimal = shrink(sequence(seed), (s) => play(s, flaws).disagreement !== undefined)
  return [
    `seed ${seed}: ${play(minimal, flaws).disagreement}`,
    `spec ${JSON.stringify(minimal.spec)}`,
    ...minimal.steps.map((step) => `  ${JSON.stringify(step)}`),
  ].join("\n")
}

/** A breaker that a dead key has opened, at time 0. */
const opened = (options: CircuitBreaker.Options = {}) => {
  const breaker = CircuitBreaker.machine(options)
  breaker.record(breaker.admit(0), "opens", 0)
  return breaker
}

describe("Breaker", () => {
  it("does what its description says in 10,000 random sequences of overlapping calls, under random rules", () => {
    const sequences = deep(10_000)
    const reached = new Map<Reached, number>()
    let steps = 0
    for (let seed = 0; seed < sequences; seed++) {
      const played = sequence(seed)
      assert.isAtLeast(played.steps.length, 60)
      steps += played.steps.length
      const { disagreement, reached: states } = play(played)
      if (disagreement !== undefined) assert.fail(report(seed))
      for (const state of states) reached.set(state, (reached.get(state) ?? 0) + 1)
    }
    const least: Readonly<Record<Exclude<Reached, `tripped: ${string}`>, number>> = {
      open: 0.5,
      "half-open": 0.5,
      "closed again": 0.3,
      reopened: 0.3,
      "opened twice in a row": 0.2,
      "probe lost": 0.05,
      floor: 0.3,
      "late outcome": 0.4,
      isolated: 0.1,
      shadow: 0.1,
      off: 0.1,
    }
    assert.isAtLeast(steps, sequences * 90)
    for (const [state, share] of Object.entries(least)) {
      assert.isAtLeast((reached.get(state as Reached) ?? 0) / sequences, share, state)
    }
    for (const reason of [
      "failures in a row",
      "failures",
      "failure rate",
      "slow rate",
      "at once",
      "hint",
      "probe",
      "by hand",
    ]) {
      assert.isAtLeast((reached.get(`tripped: ${reason}`) ?? 0) / sequences, 0.08, reason)
    }
  })

  const flaws: ReadonlyArray<keyof Flaws> = [
    "boundaryIsTheOther",
    "compareIsTheOther",
    "onePermitTooMany",
    "onePermitTooFew",
    "noFencing",
    "ignoredKeepsItsPermit",
    "lateSuccessCounts",
    "ignoredEndsTheRow",
    "interruptedCounts",
    "hintIsNotCapped",
    "hintShortensTheOpenTime",
    "oneFailureTooMany",
    "probesMayNeverReturn",
    "lostProbesCount",
    "successesSurviveTheReopening",
    "windowSurvivesTheClosing",
    "windowForgetsTooLate",
    "openingsAreNotCounted",
    "openingsAreNeverForgotten",
    "isolationEndsByItself",
    "shadowRejects",
    "floorIgnoresTheHint",
    "slowProbesAreFine",
  ]
  it.each(flaws)("is told apart from a breaker with the flaw %s", (flaw) => {
    let caught = -1
    for (let seed = 0; seed < 1000 && caught < 0; seed++) {
      if (play(sequence(seed), { [flaw]: true }).disagreement !== undefined) caught = seed
    }
    assert.isAtLeast(caught, 0, "no sequence tells them apart")
    const minimal = shrink(sequence(caught), (s) => play(s, { [flaw]: true }).disagreement !== undefined)
    assert.isBelow(minimal.steps.length, 30, report(caught, { [flaw]: true }))
  })

  it("never has more probes in flight than permits, and each gives its permit back once", () => {
    for (let seed = 0; seed < 500; seed++) {
      const r = random(seed)
      const permits = r.int(1, 5)
      const probing = opened({ permits, successes: 1000, probeLimit: 1_000_000 })
      const tickets: Array<number> = []
      for (let step = 0; step < 60; step++) {
        if (r.chance(0.6)) {
          const ticket = probing.admit(60_000)
          if (ticket !== rejected) tickets.push(ticket)
        } else if (tickets.length > 0) {
          const [ticket = rejected] = tickets.splice(r.int(0, tickets.length), 1)
          probing.record(ticket, r.pick(["success", "ignored", "interrupted"]), 60_000)
        }
        assert.strictEqual(probing.inFlight, tickets.length)
        assert.isAtMost(probing.inFlight, permits)
      }
      for (const ticket of tickets) probing.record(ticket, "ignored", 60_000)
      assert.strictEqual(probing.inFlight, 0)
      assert.strictEqual(probing.state, "half-open")
    }
  })

  it("rejects every call until the open time is over, and lets a probe through at that very instant", () => {
    const breaker = opened()
    for (const now of [0, 1, 30_000, 59_999]) {
      assert.strictEqual(breaker.admit(now), rejected)
      assert.strictEqual(breaker.retryAfter(now), 60_000 - now)
    }
    assert.isTrue(breaker.ready(60_000))
    assert.notStrictEqual(breaker.admit(60_000), rejected)
    assert.strictEqual(breaker.state, "half-open")
  })

  it("lets a probe through only after that instant where the boundary is exclusive", () => {
    const breaker = opened({ boundary: "exclusive" })
    assert.strictEqual(breaker.admit(60_000), rejected)
    assert.notStrictEqual(breaker.admit(60_000.001), rejected)
  })

  it("is not wedged by probes that never return: each gives its own permit back after the limit, and no other", () => {
    const breaker = opened()
    const [first, second] = [60_000, 61_000, 62_000].map((at) => breaker.admit(at))
    const due = 60_000 + 180_000
    assert.strictEqual(breaker.admit(due - 1), rejected)
    const fourth = breaker.admit(due)
    assert.notStrictEqual(fourth, rejected)
    assert.strictEqual(breaker.admit(due), rejected)
    assert.strictEqual(breaker.probesAt(due), 3)
    // What the lost one says at last changes nothing, and what the others say does.
    breaker.record(first ?? rejected, "failure", due)
    assert.strictEqual(breaker.state, "half-open")
    breaker.record(second ?? rejected, "failure", due)
    assert.strictEqual(breaker.state, "open")
  })

  it("learns nothing from a probe that returns after its limit, though nobody wanted its permit", () => {
    const outcomes: ReadonlyArray<Outcome> = ["success", "failure", "opens"]
    for (const outcome of outcomes) {
      const breaker = opened({ successes: 1 })
      const ticket = breaker.admit(60_000)
      breaker.record(ticket, outcome, 240_000)
      assert.strictEqual(breaker.state, "half-open", outcome)
      assert.strictEqual(breaker.inFlight, 0, outcome)
    }
  })

  it("learns nothing from an outcome of a call that was admitted in an earlier state", () => {
    const outcomes: ReadonlyArray<Outcome> = ["success", "failure", "opens", "ignored", "interrupted"]
    for (const outcome of outcomes) {
      const breaker = CircuitBreaker.machine({ failures: 1, successes: 1 })
      const early = Array.from({ length: 20 }, () => breaker.admit(0))
      breaker.record(breaker.admit(0), "failure", 0)
      const look = () => ({ ...breaker, outstanding: 0, counts: breaker.counts(60_000), inFlight: breaker.inFlight })
      const late = () => {
        const before = look()
        breaker.record(early.pop() ?? rejected, outcome, 60_000, 5000)
        assert.deepStrictEqual(look(), before)
      }
      assert.strictEqual(breaker.state, "open")
      late()
      const probe = breaker.admit(60_000)
      assert.strictEqual(breaker.state, "half-open")
      late()
      breaker.record(probe, "success", 60_000)
      assert.strictEqual(breaker.state, "closed")
      late()
    }
  })

  it("lets probes of the floor through while it is open, at most as many as permits, and never before the hint ends", () => {
    const breaker = CircuitBreaker.machine({ failures: 1, permits: 2, successes: 2 })
    breaker.record(breaker.admit(0), "failure", 0, 10_000)
    assert.strictEqual(breaker.admitFloor(9999), rejected)
    const tickets = [breaker.admitFloor(10_000), breaker.admitFloor(10_000)]
    assert.notInclude(tickets, rejected)
    assert.strictEqual(breaker.admitFloor(10_000), rejected)
    assert.strictEqual(breaker.admit(10_000), rejected)
    assert.strictEqual(breaker.state, "open")
    // One that fails keeps it open for a whole open time more, and is no opening of its own.
    breaker.record(tickets[0]!, "failure", 20_000)
    assert.deepStrictEqual([breaker.state, breaker.openUntil, breaker.openings], ["open", 80_000, 1])
    // One that succeeds counts as a probe's success would.
    breaker.record(tickets[1]!, "success", 21_000)
    assert.strictEqual(breaker.state, "half-open")
    breaker.record(breaker.admit(21_000), "success", 21_000)
    assert.strictEqual(breaker.state, "closed")
  })

  it("calls those back who wait for the verdict: all when there is one, and one for each permit that comes free", () => {
    const waiting = (options: CircuitBreaker.Options) => {
      const breaker = opened({ permits: 1, successes: 1, excess: { wait: 1000, waiters: 2 }, ...options })
      const probe = breaker.admit(60_000)
      const woken: Array<string> = []
      assert.isTrue(breaker.mayWait(60_000))
      const [first, second] = [breaker.place(), breaker.place()]
      const leave = breaker.wait(second, () => void woken.push("second"))
      breaker.wait(first, () => void woken.push("first"))
      // No more than so many may wait.
      assert.isFalse(breaker.mayWait(60_000))
      return { breaker, probe, woken, leave }
    }
    const closed = waiting({})
    closed.breaker.record(closed.probe, "success", 60_000)
    assert.deepStrictEqual(closed.woken, ["first", "second"])
    const reopened = waiting({})
    reopened.breaker.record(reopened.probe, "failure", 60_000)
    assert.deepStrictEqual(reopened.woken, ["first", "second"])
    const ignored = waiting({})
    ignored.breaker.record(ignored.probe, "ignored", 60_000)
    assert.deepStrictEqual(ignored.woken, ["first"])
    const left = waiting({})
    left.leave()
    left.breaker.isolate(60_000)
    assert.deepStrictEqual(left.woken, ["first"])
    assert.isFalse(opened().mayWait(60_000))
  })
})
