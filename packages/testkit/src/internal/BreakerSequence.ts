/** Random sequences of what callers do to a circuit, and the shortest of them that still shows a mistake. */
import * as Effect from "effect/Effect"
import type { Outcome, Rules } from "./BreakerModel.ts"
import { draws } from "./Chance.ts"

/**
 * One step. It says what to aim at and not how far away that is, so that a step
 * keeps its sense when others are left out.
 */
export type Step =
  /** These calls begin in the same instant. */
  | { readonly do: "begin"; readonly calls: ReadonlyArray<number> }
  /**
   * A call begins, and its caller leaves after so many turns of the scheduler:
   * perhaps before it was let through. Nothing can be told of it afterwards, if
   * late outcomes are fenced off.
   */
  | { readonly do: "begin and leave"; readonly call: number; readonly turns: number }
  /** One of the calls under way ends. */
  | { readonly do: "end one"; readonly which: number; readonly outcome: Outcome }
  /** This call ends, if it is under way. */
  | { readonly do: "end"; readonly call: number; readonly outcome: Outcome }
  | { readonly do: "wait"; readonly millis: number }
  /** Waits for the end of the open time, and so many milliseconds more or less. */
  | { readonly do: "wait until open time is over"; readonly off: number }

/** A sequence of steps, and the seed it came from. */
export interface Sequence {
  readonly seed: number
  readonly steps: ReadonlyArray<Step>
}

/** The share of outcomes that are failures. A provider is sick or well for a while. */
const moods = [0.02, 0.3, 0.95]

/** The share of outcomes that should say nothing. */
const quiet = 0.2

/** Random steps from a seed: 60 to 200, in phases of one mood each, with waits between. */
export const sequenceOf = (
  seed: number,
  rules: Rules,
  has: { readonly ignored: boolean; readonly defects: boolean },
): Sequence => {
  const draw = draws(seed)
  const int = (min: number, max: number) => min + Math.floor(draw() * (max - min))
  const pick = <A>(from: ReadonlyArray<A>): A => from[int(0, from.length)] as A
  const outcomeIn = (failing: number): Outcome => {
    if (draw() < quiet) return has.ignored && draw() < 0.5 ? "ignored" : "interrupted"
    if (draw() < failing) return has.defects && draw() < 0.1 ? "defect" : "failure"
    return "success"
  }
  const length = int(60, 200)
  const phase = 2 * (rules.failures + rules.successes + rules.permits)
  const steps: Array<Step> = []
  let calls = 0
  const begin = (count: number): Step => ({ do: "begin", calls: Array.from({ length: count }, () => ++calls) })
  while (steps.length < length) {
    const failing = pick(moods)
    for (let left = int(2, phase + 1); left > 0; left--) {
      const dice = draw()
      if (dice < 0.1) steps.push(begin(int(2, rules.permits + 3)))
      else if (dice < 0.43) steps.push(begin(1))
      else if (dice < 0.46 && rules.fencing) steps.push({ do: "begin and leave", call: ++calls, turns: int(0, 4) })
      else if (dice < 0.96) steps.push({ do: "end one", which: int(0, 1000), outcome: outcomeIn(failing) })
      else steps.push({ do: "wait", millis: pick([1, 10, 1000, rules.openFor]) })
    }
    steps.push(
      draw() < 0.75
        ? { do: "wait until open time is over", off: pick([-1, 0, 0, 1, 1]) }
        : { do: "wait", millis: pick([1, 1000, rules.openFor]) },
    )
  }
  return { seed, steps }
}

/**
 * The shortest sequence that is still found wrong: leaves out ever smaller
 * pieces, and begins fewer calls at once, as long as that helps; a defect
 * becomes a failure if that will do. No single step can be left out of the
 * result.
 */
export const shortest = <R>(
  steps: ReadonlyArray<Step>,
  isWrong: (steps: ReadonlyArray<Step>) => Effect.Effect<boolean, never, R>,
): Effect.Effect<ReadonlyArray<Step>, never, R> =>
  Effect.gen(function* () {
    let best = steps
    let size = Math.ceil(steps.length / 2)
    while (true) {
      let helped = false
      for (let at = 0; at < best.length;) {
        const fewer = [...best.slice(0, at), ...best.slice(at + size)]
        if (yield* isWrong(fewer)) {
          best = fewer
          helped = true
        } else at += size
      }
      for (const [at, step] of best.entries()) {
        if (size > 1) continue
        if (step.do === "end" && step.outcome === "defect") {
          const plainer = best.with(at, { ...step, outcome: "failure" })
          if (yield* isWrong(plainer)) best = plainer
        }
        if (step.do !== "begin") continue
        let { calls } = step
        for (const call of step.calls) {
          const others = calls.filter((other) => other !== call)
          const fewer = best.with(at, { do: "begin", calls: others })
          if (others.length === 0 || !(yield* isWrong(fewer))) continue
          best = fewer
          calls = others
          helped = true
        }
      }
      if (size > 1) size = Math.ceil(size / 2)
      else if (!helped) return best
    }
  })
