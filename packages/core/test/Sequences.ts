/**
 * Random sequences of steps, played on a machine and on a model of it side by
 * side: how many reached what, and the shortest one on which the two disagree.
 */
import { assert } from "@effect/vitest"
import { random, type Random } from "./stub.ts"

/** Is it a deep run? */
export const isDeep = process.env["UNDERSTUDY_DEEP"] === "1"

/** Ten times as many in a deep run. */
export const deep = (sequences: number): number => (isDeep ? sequences * 10 : sequences)

export interface Sequence<Setup, Step> {
  readonly setup: Setup
  readonly steps: ReadonlyArray<Step>
}

export interface Played {
  /** Where machine and model first disagree. */
  readonly disagreement: string | undefined
  /** What was reached on the way. */
  readonly reached: ReadonlySet<string>
}

/** A machine and its model, and how to play them. `Flaw` names a mistake that is put into the model. */
export interface Game<Setup, Step, Flaw extends string> {
  readonly make: (r: Random) => Sequence<Setup, Step>
  readonly play: (sequence: Sequence<Setup, Step>, flaw?: Flaw) => Played
}

/** The shortest sequence that is still found wrong: leaves out ever smaller pieces as long as that helps. */
const shrink = <Setup, Step>(
  found: Sequence<Setup, Step>,
  isWrong: (candidate: Sequence<Setup, Step>) => boolean,
): Sequence<Setup, Step> => {
  let { steps } = found
  for (let size = Math.ceil(steps.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < steps.length;) {
      const fewer = [...steps.slice(0, at), ...steps.slice(at + size)]
      if (isWrong({ ...found, steps: fewer })) steps = fewer
      else at += size
    }
  }
  return { ...found, steps }
}

/** Plays them all, fails with the shortest on which the two disagree, and gives the share that reached each state. */
export const agree = <Setup, Step, Flaw extends string>(
  game: Game<Setup, Step, Flaw>,
  sequences: number,
): ((state: string) => number) => {
  const reached = new Map<string, number>()
  for (let seed = 0; seed < sequences; seed++) {
    const sequence = game.make(random(seed))
    assert.isAtLeast(sequence.steps.length, 60)
    const played = game.play(sequence)
    if (played.disagreement !== undefined) {
      const minimal = shrink(sequence, (s) => game.play(s).disagreement !== undefined)
      assert.fail(
        [
          `seed ${seed}: ${game.play(minimal).disagreement}`,
          JSON.stringify(minimal.setup),
          ...minimal.steps.map((step) => `  ${JSON.stringify(step)}`),
        ].join("\n"),
      )
    }
    for (const state of played.reached) reached.set(state, (reached.get(state) ?? 0) + 1)
  }
  return (state) => (reached.get(state) ?? 0) / sequences
}

/** A model with a mistake in it is told apart from the machine, by a short sequence. */
export const tellsApart = <Setup, Step, Flaw extends string>(game: Game<Setup, Step, Flaw>, flaw: Flaw): void => {
  for (let seed = 0; seed < 1000; seed++) {
    const sequence = game.make(random(seed))
    if (game.play(sequence, flaw).disagreement === undefined) continue
    const minimal = shrink(sequence, (s) => game.play(s, flaw).disagreement !== undefined)
    return assert.isBelow(minimal.steps.length, 40)
  }
  assert.fail("no sequence tells them apart")
}
