/**
 * How candidates did and in which order they are asked, written a second time:
 * a list of what was measured, and sums over it where the product keeps a
 * number.
 */
import type { Effective } from "../src/internal/directory/settings.ts"

export type Kind = "generate" | "stream"

/** Mistakes, each of which the check must notice. */
export type Flaw =
  | "averagesPeaks"
  | "doesNotFade"
  | "fastFailuresLookFast"
  | "leavingEarlyLooksFast"
  | "loadDoesNotCount"
  | "crowdsAtAStranger"
  | "unknownPriceFirst"
  | "mixesPriorities"
  | "kindsAreOne"

interface Sample {
  readonly kind: Kind
  readonly at: number
  readonly took: number
}

/** One candidate. */
export class Diary {
  readonly settings: Pick<Effective, "priority" | "weight" | "price">
  private readonly samples: Array<Sample> = []
  private readonly decay: number
  private readonly flaw: Flaw | undefined
  inFlight = 0

  constructor(settings: Diary["settings"], decay: number, flaw: Flaw | undefined) {
    this.settings = settings
    this.decay = decay
    this.flaw = flaw
  }

  private of(kind: Kind): ReadonlyArray<Sample> {
    return this.flaw === "kindsAreOne" ? this.samples : this.samples.filter((sample) => sample.kind === kind)
  }

  /**
   * The average of all since the last peak, each with the share that it took when it came, and what is left of that by
   * now.
   */
  private average(samples: ReadonlyArray<Sample>, until: number): number | undefined {
    // Nothing before a peak matters. It is compared with what was known when that was measured.
    let peak = 0
    if (this.flaw !== "averagesPeaks") {
      for (let index = 1; index < samples.length; index++) {
        if (samples[index]!.took >= this.since(peak, samples.slice(0, index), samples[index - 1]!.at)) peak = index
      }
    }
    return samples.length === 0 ? undefined : this.since(peak, samples, until)
  }

  private since(peak: number, samples: ReadonlyArray<Sample>, until: number): number {
    const left = (at: number): number => Math.exp(-(until - at) / this.decay)
    let sum = samples[peak]!.took * left(samples[peak]!.at)
    for (let index = peak + 1; index < samples.length; index++) {
      const { at, took } = samples[index]!
      sum += took * (1 - Math.exp(-(at - samples[index - 1]!.at) / this.decay)) * left(at)
    }
    return sum
  }

  latency(kind: Kind, now: number): number | undefined {
    const samples = this.of(kind)
    return this.average(samples, this.flaw === "doesNotFade" ? (samples.at(-1)?.at ?? now) : now)
  }

  answered(kind: Kind, took: number, at: number): void {
    this.samples.push({ kind, at, took })
  }

  failed(kind: Kind, took: number, longest: number, at: number): void {
    this.samples.push({ kind, at, took: this.flaw === "fastFailuresLookFast" ? took : Math.max(took, longest) })
  }

  left(kind: Kind, took: number, at: number): void {
    const known = this.latency(kind, at)
    if (took > (known ?? 0) || this.flaw === "leavingEarlyLooksFast") this.samples.push({ kind, at, took })
  }

  /** Is it asked before another one of the same priority? */
  isBefore(other: Diary, kind: Kind, now: number): boolean {
    const [mine, others] = [this.latency(kind, now), other.latency(kind, now)]
    const stranger = (one: Diary, latency: number | undefined) => latency === undefined && one.inFlight === 0
    const crowded = (one: Diary, latency: number | undefined) => latency === undefined && one.inFlight > 0
    if (this.flaw === "crowdsAtAStranger") {
      if (mine === undefined || others === undefined) return mine === undefined && others !== undefined
    }
    if (stranger(this, mine) || stranger(other, others)) return stranger(this, mine) && !stranger(other, others)
    if (crowded(this, mine) || crowded(other, others)) return !crowded(this, mine) && crowded(other, others)
    const load = (one: Diary) => (this.flaw === "loadDoesNotCount" ? 1 : one.inFlight + 1)
    return mine! * load(this) < others! * load(other)
  }

  /** Is it cheaper, for so many tokens? */
  isCheaper(other: Diary, input: number, output: number): boolean {
    const [mine, others] = [this.settings.price, other.settings.price]
    if (mine === undefined || others === undefined) {
      const [first, then] = this.flaw === "unknownPriceFirst" ? [others, mine] : [mine, others]
      return first !== undefined && then === undefined
    }
    return input * mine.input + output * mine.output < input * others.input + output * others.output
  }
}

/** Puts in order by asking, for each place, who comes before all others that are left. */
export const placed = <A>(
  all: ReadonlyArray<A>,
  priority: (one: A) => number,
  isBefore: (one: A, other: A) => boolean,
): ReadonlyArray<A> => {
  const left = [...all]
  const out: Array<A> = []
  while (left.length > 0) {
    const first = left.find((one) =>
      left.every(
        (other) =>
          one === other ||
          priority(one) < priority(other) ||
          (priority(one) === priority(other) &&
            (isBefore(one, other) || (!isBefore(other, one) && left.indexOf(one) < left.indexOf(other)))),
      ),
    )
    if (first === undefined) throw new Error("Nobody is first")
    out.push(first)
    left.splice(left.indexOf(first), 1)
  }
  return out
}
