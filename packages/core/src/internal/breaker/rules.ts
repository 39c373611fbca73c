/** How a circuit behaves, as plain numbers: what the options become. Times are milliseconds. */

/** Is a threshold reached, or exceeded? */
export type Compare = ">=" | ">"

/** Which outcomes a window holds. */
export type Span = { readonly last: number } | { readonly millis: number; readonly buckets: number }

/** What trips a closed circuit, besides failures in a row. */
export interface Watch {
  readonly what: "failures" | "failure rate" | "slow rate"
  readonly span: Span
  /** A number of failures, or a share of the calls. */
  readonly threshold: number
  readonly compare: Compare
  /** With fewer calls in the window it says nothing. */
  readonly minimum: number
  /** May it trip on an outcome that is no failure (or not slow)? It may complete the minimum. */
  readonly always: boolean
  /** A call that takes longer is slow. */
  readonly slowAfter: number
  /** Up to its first content, or to its end? */
  readonly slowBy: "first content" | "total"
}

/** What the probes of a half-open circuit must show. */
export type Verdict =
  | {
      /** So many successes among so many probes; it opens again when they cannot be had any more. */
      readonly by: "successes"
      readonly successes: number
      readonly of: number
    }
  | {
      /** A share of failures among exactly so many probes. */
      readonly by: "rate"
      readonly rate: number
      readonly of: number
      readonly compare: Compare
      /** Does it open again as soon as the share is certain? */
      readonly early: boolean
    }

/** A source of numbers in [0, 1). */
export interface Chance {
  nextDoubleUnsafe(): number
}

/** How long the n-th opening in a row lasts, counted from 1. */
export type OpenTime = (opening: number, chance: Chance) => number

/** How a circuit behaves. */
export interface Rules {
  /** Failures in a row that trip it; `Infinity` for none. */
  readonly inARow: number
  readonly watches: ReadonlyArray<Watch>
  /** Made anew for each circuit, since a schedule has a state. */
  readonly openTime: () => OpenTime
  /** When openings are counted anew: at close, after being closed for as long as it was open, or for so long. */
  readonly reset: "close" | "open time" | number
  /** Is a call at the very end of the open time let through? */
  readonly boundary: "inclusive" | "exclusive"
  /** Probes in flight at most. */
  readonly permits: number
  readonly verdict: Verdict
  /** After so long a probe that has not come back no longer holds its permit. */
  readonly probeLimit: number
  /** A hint longer than this opens the circuit at once. */
  readonly patience: number
  /** The longest that a hint can keep it open. */
  readonly maxHint: number
  /** What an ignored outcome means. That of a caller who left always means nothing. */
  readonly ignored: "nothing" | "success"
  /** How long, and how many, calls wait for the verdict on the probes; nothing when they are rejected. */
  readonly excess: { readonly wait: number; readonly waiters: number } | undefined
}

/** Is it over the threshold? */
export const over = (value: number, threshold: number, compare: Compare): boolean =>
  compare === ">=" ? value >= threshold : value > threshold
