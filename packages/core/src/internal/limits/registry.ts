/** Machines by key, of which those that are as if they were new are forgotten when there are many. */

/** What can be forgotten. */
export interface Idle {
  /** Is it as if it were new? */
  readonly idle: (now: number) => boolean
}

/** So many keys are kept without a look at who is idle. */
export const comfortable = 10_000

/** The machines of a process, by key. One that is in use is never forgotten, however many there are. */
export class Registry<M extends Idle> {
  private readonly machines = new Map<string, M>()
  private sweepAt = comfortable

  /** The machine of a key; made now when it is new. */
  get(key: string, now: number, make: () => M): M {
    const known = this.machines.get(key)
    if (known !== undefined) return known
    if (this.machines.size >= this.sweepAt) this.sweep(now)
    const machine = make()
    this.machines.set(key, machine)
    return machine
  }

  /** All there are. */
  entries(): Iterable<readonly [string, M]> {
    return this.machines
  }

  private sweep(now: number): void {
    for (const [key, machine] of this.machines) if (machine.idle(now)) this.machines.delete(key)
    // As many again before the next look, so that it costs little for each key.
    this.sweepAt = Math.max(comfortable, Math.ceil(this.machines.size * 1.1))
  }
}
