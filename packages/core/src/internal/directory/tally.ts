/**
 * What is remembered of how a candidate did: how long it takes, how many
 * questions it has now, and how it failed last. Told the time, and nothing but
 * plain fields.
 */
import { PeakEwma } from "./ewma.ts"

/** Answers are whole, or streams up to their first content: the two are measured apart. */
export type Kind = "generate" | "stream"

/** How a candidate did, in the time of the clock that only moves forward. */
export class Tally {
  /** Attempts at it that are under way; a stream is one until it ends. */
  inFlight = 0
  /** When it was asked last. */
  askedAt = -Infinity
  /** When it answered last. */
  answeredAt: number | undefined
  /** How and when it failed last. */
  lastFailure: { readonly failure: string; readonly at: number } | undefined
  /** After this time, in milliseconds, an old latency weighs 1/e. */
  decay: number
  private readonly latencies = { generate: new PeakEwma(), stream: new PeakEwma() }

  constructor(decay: number) {
    this.decay = decay
  }

  /** It is asked. */
  begin(now: number): void {
    this.inFlight++
    this.askedAt = now
  }

  /** It has a question less. */
  end(): void {
    this.inFlight--
  }

  /** It answered, after so long; of a stream, its first content was there. */
  answered(kind: Kind, elapsed: number, now: number): void {
    this.answeredAt = now
    this.latencies[kind].observe(elapsed, now, this.decay)
  }

  /** It failed. That is as bad as the longest that it may take, so whoever fails fast does not look fast. */
  failed(kind: Kind, elapsed: number, longest: number, failure: string, now: number): void {
    this.lastFailure = { failure, at: now }
    this.latencies[kind].observe(Math.max(elapsed, longest), now, this.decay)
  }

  /** It could not answer this question, which says nothing about how long it takes. */
  refused(failure: string, now: number): void {
    this.lastFailure = { failure, at: now }
  }

  /** Whoever asked did not wait for the end: it takes so long at least. */
  left(kind: Kind, elapsed: number, now: number): void {
    if (elapsed > (this.latency(kind, now) ?? 0)) this.latencies[kind].observe(elapsed, now, this.decay)
  }

  /** How long it takes, in milliseconds, as far as is known. */
  latency(kind: Kind, now: number): number | undefined {
    return this.latencies[kind].value(now, this.decay)
  }

  /** The price of asking it now: who has more to do takes longer. */
  load(kind: Kind, now: number): number {
    const latency = this.latency(kind, now)
    // A stranger is tried at once, but not by a crowd.
    if (latency === undefined) return this.inFlight === 0 ? -1 : Infinity
    return latency * (this.inFlight + 1)
  }
}
