/** Random circuits, random sequences of what can happen to them, and the shortest of these that still shows a mistake. */
import type { Outcome, Spec, Trip } from "./Breaker.model.ts"
import { random, type Random } from "./stub.ts"

/** What somebody can do by hand. */
export type ByHand = "isolate" | "release" | "open" | "open for" | "probe" | "close" | "shadow" | "off" | "enable"

/** A step of a sequence. It says what to aim at, and not how far away that is: so a step keeps its sense when others are left out. */
export type Step =
  | { readonly do: "wait"; readonly millis: number }
  | { readonly do: "wait until"; readonly what: "open time is over" | "probes are overdue"; readonly off: number }
  | { readonly do: "begin"; readonly floor: boolean }
  | {
      readonly do: "end"
      readonly which: number
      readonly outcome: Outcome
      readonly hint: number
      readonly first: number
      readonly total: number
    }
  | { readonly do: "by hand"; readonly what: ByHand; readonly millis: number }

export interface Sequence {
  readonly spec: Spec
  readonly steps: ReadonlyArray<Step>
}

const anyTrip = (r: Random): Trip => {
  const dice = r.next()
  const compare = r.chance(0.75) ? (">=" as const) : (">" as const)
  if (dice < 0.3) return { on: "failures in a row", failures: r.int(1, 6), compare }
  const judge = r.chance(0.7) ? ("every outcome" as const) : ("failures" as const)
  const of = r.int(2, 9)
  const within = r.pick([100, 1000, 10_000])
  const window = r.chance(0.5) ? { of } : { within, buckets: r.pick([1, 2, 5, 10]) }
  const minimum = r.int(1, "of" in window ? of + 1 : 7)
  const judging = { ...window, minimum, compare, judge }
  // A share that is reached and not exceeded, or the other way round, must come up often.
  const rate = r.pick([0.25, 0.5, 0.5, 0.75, compare === ">=" ? 1 : 0])
  if (dice < 0.5) return { on: "failures", failures: r.int(1, compare === ">=" ? of + 1 : of), ...judging }
  if (dice < 0.75) return { on: "failure rate", rate, ...judging }
  return { on: "slow rate", slow: 1000, by: r.chance(0.5) ? "first content" : "total", rate, ...judging }
}

const anySpec = (r: Random): Spec => {
  const patience = r.int(0, 3) * 1000
  const of = r.int(1, 6)
  const dice = r.next()
  const compare = r.chance(0.7) ? (">=" as const) : (">" as const)
  return {
    trip: r.chance(0.6)
      ? [anyTrip(r)]
      : r.chance(0.7)
        ? [anyTrip(r), anyTrip(r)]
        : [anyTrip(r), anyTrip(r), anyTrip(r)],
    openFor:
      dice < 0.5
        ? [r.pick([0, 1, 500, 1000, 5000, 60_000])]
        : dice < 0.75
          ? [r.pick([1, 500]), 1000, 4000]
          : { base: 500, factor: r.pick([1, 2, 3]), cap: 4000, jitter: r.pick([0, 0.5]) },
    reset: r.pick(["close", "open time", "open time", 0, 2000]),
    boundary: r.chance(0.8) ? "inclusive" : "exclusive",
    permits: r.int(1, 5),
    verdict: r.chance(0.4)
      ? { successes: of, of }
      : r.chance(0.5)
        ? { successes: r.int(1, of + 1), of }
        : { rate: r.pick([0.25, 0.5, compare === ">=" ? 1 : 0]), of, compare, early: r.chance(0.5) },
    probeLimit: r.pick([100, 1000, 10_000]),
    patience,
    maxHint: patience + r.pick([1, 1000, 30_000]),
    ignored: r.chance(0.8) ? "nothing" : "success",
    excess: "reject",
  }
}

const hands: ReadonlyArray<ByHand> = [
  "isolate",
  "release",
  "release",
  "open",
  "open for",
  "probe",
  "close",
  "shadow",
  "off",
  "enable",
  "enable",
]

const openings = ({ openFor }: Spec): ReadonlyArray<number> =>
  "base" in openFor ? [openFor.base, openFor.cap] : openFor

/** Outcomes come in moods, since a provider is sick or well for a while. */
export const anySteps = (r: Random, spec: Spec): ReadonlyArray<Step> => {
  const steps: Array<Step> = []
  const length = r.int(60, 130)
  // Half of the circuits are left alone by hand, so that the others' handling does not hide what they do by themselves.
  const handled = r.chance(0.5) ? 0.03 : 0
  const times = [0, 900, 1000, 1001, 5000]
  let failing = 0.5
  while (steps.length < length) {
    if (r.chance(0.08)) failing = r.pick([0.02, 0.1, 0.5, 0.9])
    const dice = r.next()
    if (dice < handled) {
      steps.push({ do: "by hand", what: r.pick(hands), millis: r.pick([0, 1000, 50_000]) })
    } else if (dice < 0.4) {
      steps.push({ do: "begin", floor: r.chance(0.1) })
    } else if (dice < 0.78) {
      const outcome: Outcome = r.chance(failing)
        ? r.chance(0.06)
          ? "opens"
          : "failure"
        : r.chance(0.25)
          ? r.pick(["ignored", "interrupted"])
          : "success"
      const { maxHint, patience } = spec
      const around = r.pick(openings(spec))
      const hint = r.chance(0.2) ? r.pick([1, patience, patience + 1, around, around + 1, maxHint, maxHint + 1000]) : 0
      const first = r.pick(times)
      steps.push({ do: "end", which: r.int(0, 1000), outcome, hint, first, total: Math.max(first, r.pick(times)) })
    } else if (dice < 0.9) {
      steps.push({ do: "wait until", what: "open time is over", off: r.pick([-1, 0, 0, 0, 1]) })
    } else if (dice < 0.93) {
      steps.push({ do: "wait until", what: "probes are overdue", off: r.pick([-1, 0, 0, 1]) })
    } else {
      const millis = r.pick([0, 1, 10, 100, 500, 1000, 2000, 10_000, r.pick(openings(spec))])
      steps.push({ do: "wait", millis })
    }
  }
  return steps
}

export const sequence = (seed: number): Sequence => {
  const r = random(seed)
  const spec = anySpec(r)
  return { spec, steps: anySteps(r, spec) }
}

/** The shortest sequence that is still found wrong: leaves out ever smaller pieces as long as that helps. */
export const shrink = (found: Sequence, isWrong: (candidate: Sequence) => boolean): Sequence => {
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
