import { assert, describe, it } from "@effect/vitest"
import { Breaker, type Numbers, type Outcome, rejected, type State } from "../src/internal/breaker.ts"
import { type Flaws, Model } from "./Breaker.model.ts"
import { random, type Random } from "./stub.ts"

/** A step of a sequence. It says what to aim at, and not how far away that is: so a step keeps its sense when others are left out. */
type Step =
  | { readonly do: "wait"; readonly millis: number }
  | { readonly do: "wait until"; readonly what: "open time is over" | "probes are overdue"; readonly off: number }
  | { readonly do: "begin" }
  | { readonly do: "end"; readonly which: number; readonly outcome: Outcome; readonly hint: number }

interface Sequence {
  readonly numbers: Numbers
  readonly steps: ReadonlyArray<Step>
}

const anyNumbers = (r: Random): Numbers => {
  const patience = r.int(0, 3) * 1000
  return {
    failures: r.int(1, 6),
    openFor: r.pick([1, 500, 1000, 5000, 60_000]),
    permits: r.int(1, 4),
    successes: r.int(1, 5),
    patience,
    maxHint: patience + r.pick([1, 1000, 30_000]),
    probeLimit: r.pick([100, 1000, 10_000]),
  }
}

/** Outcomes come in moods, since a provider is sick or well for a while. */
const anySteps = (r: Random, numbers: Numbers): ReadonlyArray<Step> => {
  const steps: Array<Step> = []
  const length = r.int(60, 201)
  let failing = 0.5
  while (steps.length < length) {
    if (r.chance(0.06)) failing = r.pick([0.02, 0.1, 0.5, 0.9])
    const dice = r.next()
    if (dice < 0.38) {
      steps.push({ do: "begin" })
    } else if (dice < 0.76) {
      const outcome: Outcome = r.chance(failing)
        ? r.chance(0.1)
          ? "opens"
          : "failure"
        : r.chance(0.15)
          ? "ignored"
          : "success"
      const { maxHint, openFor, patience } = numbers
      const hint = r.chance(0.25)
        ? r.pick([1, patience, patience + 1, openFor, openFor + 1, maxHint, maxHint + 1000])
        : 0
      steps.push({ do: "end", which: r.int(0, 1000), outcome, hint })
    } else if (dice < 0.9) {
      steps.push({ do: "wait until", what: "open time is over", off: r.pick([-1, 0, 0, 0, 1]) })
    } else if (dice < 0.93) {
      steps.push({ do: "wait until", what: "probes are overdue", off: r.pick([-1, 0, 0, 1]) })
    } else {
      steps.push({ do: "wait", millis: r.pick([0, 1, 10, 500, 1000, numbers.openFor]) })
    }
  }
  return steps
}

const sequence = (seed: number): Sequence => {
  const r = random(seed)
  const numbers = anyNumbers(r)
  return { numbers, steps: anySteps(r, numbers) }
}

interface Played {
  /** Where breaker and model first disagree. */
  readonly disagreement: string | undefined
  readonly reached: ReadonlySet<State | "closed again">
}

/** Plays a sequence on breaker and model side by side, and compares everything that can be seen after every step. */
const play = ({ numbers, steps }: Sequence, flaws?: Flaws): Played => {
  const breaker = new Breaker(numbers)
  const model = new Model(numbers, flaws)
  const reached = new Set<State | "closed again">()
  /** Calls under way: the breaker's ticket and the model's name for each. */
  const underWay: Array<{ readonly call: number; readonly ticket: number }> = []
  let now = 1_000_000
  let calls = 0
  for (const [index, step] of steps.entries()) {
    let admitted: readonly [boolean, boolean] = [true, true]
    switch (step.do) {
      case "wait":
        now += step.millis
        break
      case "wait until": {
        const aim =
          step.what === "open time is over" && model.state === "open"
            ? model.until
            : step.what === "probes are overdue" && model.lastProbe !== undefined
              ? model.lastProbe + numbers.probeLimit
              : now
        now = Math.max(now, aim + step.off)
        break
      }
      case "begin": {
        const call = calls++
        const ticket = breaker.admit(now)
        admitted = [ticket !== rejected, model.begin(call, now)]
        if (admitted[0]) underWay.push({ call, ticket })
        break
      }
      case "end": {
        const [ended] = underWay.splice(step.which % Math.max(1, underWay.length), 1)
        if (ended === undefined) break
        breaker.record(ended.ticket, step.outcome, now, step.hint)
        model.end(ended.call, step.outcome, now, step.hint)
        break
      }
    }
    const before = reached.has("open")
    reached.add(model.state)
    if (model.state === "closed" && before) reached.add("closed again")
    const seen = [
      ["admitted", ...admitted],
      ["state", breaker.state, model.state],
      ["ready", breaker.ready(now), model.ready(now)],
      ["retryAfter", breaker.retryAfter(now), model.retryAfter(now)],
      ["failures in a row", breaker.state === "closed" ? breaker.consecutive : 0, model.failuresInARow],
      ["probes in flight", breaker.state === "half-open" ? breaker.inFlight : 0, model.probesInFlight],
    ] as const
    const different = seen.find(([, real, expected]) => real !== expected)
    if (different !== undefined) {
      const [what, real, expected] = different
      const disagreement = `step ${index} ${JSON.stringify(step)} at ${now}: ${what} is ${real}, the model says ${expected}`
      return { disagreement, reached }
    }
  }
  return { disagreement: undefined, reached }
}

/** The shortest sequence that is still found wrong: leaves out ever smaller pieces as long as that helps. */
const shrink = (found: Sequence, isWrong: (candidate: Sequence) => boolean): Sequence => {
  let steps = found.steps
  for (let size = Math.ceil(steps.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < steps.length;) {
      const fewer = [...steps.slice(0, at), ...steps.slice(at + size)]
      if (isWrong({ ...found, steps: fewer })) steps = fewer
      else at += size
    }
  }
  return { ...found, steps }
}

const report = (seed: number, flaws?: Flaws): string => {
  const minimal = shrink(sequence(seed), (s) => play(s, flaws).disagreement !== undefined)
  return [
    `seed ${seed}: ${play(minimal, flaws).disagreement}`,
    `numbers ${JSON.stringify(minimal.numbers)}`,
    ...minimal.steps.map((step) => `  ${JSON.stringify(step)}`),
  ].join("\n")
}

const numbers: Numbers = {
  failures: 5,
  openFor: 60_000,
  permits: 3,
  successes: 3,
  patience: 2000,
  maxHint: 3_600_000,
  probeLimit: 180_000,
}

/** A breaker in a state, at time 0, and when it got there. */
const opened = (over: Partial<Numbers> = {}): Breaker => {
  const breaker = new Breaker({ ...numbers, ...over })
  breaker.record(breaker.admit(0), "opens", 0)
  return breaker
}

describe("Breaker", () => {
  it("does what its description says in 10,000 random sequences of overlapping calls", () => {
    const sequences = process.env["UNDERSTUDY_DEEP"] === "1" ? 100_000 : 10_000
    const reached = new Map<string, number>()
    let steps = 0
    for (let seed = 0; seed < sequences; seed++) {
      const played = sequence(seed)
      assert.isAtLeast(played.steps.length, 60)
      steps += played.steps.length
      const { disagreement, reached: states } = play(played)
      if (disagreement !== undefined) assert.fail(report(seed))
      for (const state of states) reached.set(state, (reached.get(state) ?? 0) + 1)
    }
    const share = (state: State | "closed again") => (reached.get(state) ?? 0) / sequences
    assert.isAtLeast(steps, sequences * 100)
    assert.isAtLeast(share("open"), 0.3)
    assert.isAtLeast(share("half-open"), 0.25)
    assert.isAtLeast(share("closed again"), 0.04)
  })

  const flaws: ReadonlyArray<keyof Flaws> = [
    "rejectsAtTheDeadline",
    "onePermitTooMany",
    "noFencing",
    "ignoredKeepsItsPermit",
    "lateSuccessCounts",
    "ignoredEndsTheRow",
    "hintIsNotCapped",
    "hintShortensTheOpenTime",
    "oneFailureTooMany",
    "probesMayNeverReturn",
  ]
  it.each(flaws)("is told apart from a breaker with the flaw %s", (flaw) => {
    let caught = -1
    for (let seed = 0; seed < 500 && caught < 0; seed++) {
      if (play(sequence(seed), { [flaw]: true }).disagreement !== undefined) caught = seed
    }
    assert.isAtLeast(caught, 0, "no sequence tells them apart")
    const minimal = shrink(sequence(caught), (s) => play(s, { [flaw]: true }).disagreement !== undefined)
    assert.isBelow(minimal.steps.length, 30)
  })

  it("never has more probes in flight than permits, and each gives its permit back once", () => {
    for (let seed = 0; seed < 500; seed++) {
      const r = random(seed)
      const probing = opened({ permits: r.int(1, 5), successes: 1000, probeLimit: 1_000_000 })
      const tickets: Array<number> = []
      for (let step = 0; step < 60; step++) {
        if (r.chance(0.6)) {
          const ticket = probing.admit(60_000)
          if (ticket !== rejected) tickets.push(ticket)
        } else if (tickets.length > 0) {
          const [ticket = rejected] = tickets.splice(r.int(0, tickets.length), 1)
          probing.record(ticket, r.pick(["success", "ignored"]), 60_000)
        }
        assert.strictEqual(probing.inFlight, tickets.length)
        assert.isAtMost(probing.inFlight, probing.numbers.permits)
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

  it("is not wedged by probes that never return: they count as failed after the limit", () => {
    const breaker = opened()
    for (const at of [60_000, 61_000, 62_000]) assert.notStrictEqual(breaker.admit(at), rejected)
    const due = 62_000 + numbers.probeLimit
    assert.strictEqual(breaker.admit(due - 1), rejected)
    assert.strictEqual(breaker.state, "half-open")
    assert.strictEqual(breaker.admit(due), rejected)
    assert.strictEqual(breaker.state, "open")
    assert.notStrictEqual(breaker.admit(due + numbers.openFor), rejected)
    assert.strictEqual(breaker.inFlight, 1)
  })

  it("learns nothing from an outcome of a call that was admitted in an earlier state", () => {
    const outcomes: ReadonlyArray<Outcome> = ["success", "failure", "opens", "ignored"]
    for (const outcome of outcomes) {
      const breaker = new Breaker({ ...numbers, failures: 1, successes: 1 })
      const early = Array.from({ length: 20 }, () => breaker.admit(0))
      breaker.record(breaker.admit(0), "failure", 0)
      const late = () => {
        const before = { ...breaker }
        breaker.record(early.pop() ?? rejected, outcome, 60_000, 5000)
        assert.deepStrictEqual({ ...breaker }, before)
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
})
