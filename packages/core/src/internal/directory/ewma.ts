/**
 * A latency that is remembered: a moving average that jumps up at once and comes
 * down slowly, and that fades while nothing is heard, so that whoever was slow
 * is tried again some day.
 *
 * Peak EWMA, as in Finagle's `loadbalancer/PeakEwma.scala`; reading it changes
 * nothing here, so it does not matter how often one looks.
 */
export class PeakEwma {
  private average: number | undefined
  private at = 0

  /** Something took so long. `decay`: after this time, in milliseconds, what was known weighs 1/e. */
  observe(millis: number, now: number, decay: number): void {
    const kept = Math.exp(-Math.max(0, now - this.at) / decay)
    this.average =
      this.average === undefined || millis >= this.average ? millis : this.average * kept + millis * (1 - kept)
    this.at = now
  }

  /** What is known now, or nothing. */
  value(now: number, decay: number): number | undefined {
    return this.average === undefined ? undefined : this.average * Math.exp(-Math.max(0, now - this.at) / decay)
  }
}
