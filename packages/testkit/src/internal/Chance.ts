/** Random sources for the laws: from a seed, or always at one end. */
import type * as Random from "effect/Random"
import * as Schema from "effect/Schema"

/** A seed, or a source that always gives its lowest or highest number. */
export const Chance = Schema.Union([Schema.Number, Schema.Literals(["lowest", "highest"])])

/** A seed, or a source that always gives its lowest or highest number. */
export type Chance = typeof Chance.Type

/** Numbers in [0, 1). */
export type Draw = () => number

/** Mulberry32. */
export const draws = (seed: number): Draw => {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** After so many draws a constant source becomes random, so that whoever draws until a number fits comes to an end. */
const constantDraws = 1000

const constant = (value: number): Draw => {
  const later = draws(0)
  let left = constantDraws
  return () => (left-- > 0 ? value : later())
}

const drawOf = (chance: Chance): Draw => {
  switch (chance) {
    case "lowest":
      return constant(0)
    case "highest":
      return constant(1 - Number.EPSILON / 2)
    default:
      return draws(chance)
  }
}

/** The service `Random` with a source. */
export const randomOf = (chance: Chance): typeof Random.Random.Service => {
  const draw = drawOf(chance)
  return {
    nextDoubleUnsafe: draw,
    nextIntUnsafe: () => Math.floor((draw() * 2 - 1) * Number.MAX_SAFE_INTEGER),
  }
}
