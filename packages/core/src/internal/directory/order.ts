/** In which order candidates of the same priority are asked. Pure: chance and time are given. */
import type { Effective } from "./settings.ts"
import type { Kind, Tally } from "./tally.ts"

/** How candidates of the same priority are put in order. */
export type Order = "priority" | "weight" | "latency" | "cost"

/** What an order may go by. */
export interface Basis {
  readonly kind: Kind
  readonly now: number
  /** In [0, 1). */
  readonly chance: () => number
  /** Tokens of the prompt, and those that the answer may have. */
  readonly tokens: { readonly input: number; readonly output: number }
}

/** Somebody to be put in order. */
export interface Ranked extends Pick<Effective, "priority" | "weight" | "price"> {
  readonly tally: Tally | undefined
}

type Key = (one: Ranked, basis: Basis) => number

/** The lowest is asked first, and equal ones stay as they are. */
const keys: { readonly [O in Exclude<Order, "priority">]: Key } = {
  /**
   * The first of several exponential clocks to ring is each one's with a chance
   * in proportion to its rate, and so is the next of those that are left: a
   * weighted draw without putting back. Efraimidis and Spirakis, "Weighted
   * random sampling with a reservoir", 2006.
   */
  weight: ({ weight }, { chance }) => {
    const ring = -Math.log1p(-chance())
    return weight === 0 ? Infinity : ring / weight
  },
  latency: ({ tally }, { kind, now }) => tally?.load(kind, now) ?? -1,
  cost: ({ price }, { tokens }) =>
    price === undefined ? Infinity : tokens.input * price.input + tokens.output * price.output,
}

/** Where a run of the same priority ends that begins at `from`. */
const runEnd = (entries: ReadonlyArray<Ranked>, from: number): number => {
  let end = from + 1
  while (end < entries.length && entries[end]!.priority === entries[from]!.priority) end++
  return end
}

/** Those who come sorted by priority, put in order within each priority. */
export const inOrder = <E extends Ranked>(entries: ReadonlyArray<E>, order: Order, basis: Basis): ReadonlyArray<E> => {
  if (order === "priority" || entries.length < 2) return entries
  const key = keys[order]
  const out: Array<E> = []
  for (let from = 0; from < entries.length;) {
    const end = runEnd(entries, from)
    const run = entries.slice(from, end).map((entry) => ({ entry, at: end - from === 1 ? 0 : key(entry, basis) }))
    // Not by a difference: of two who are never, it would be no number.
    run.sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0))
    for (const { entry } of run) out.push(entry)
    from = end
  }
  return out
}
