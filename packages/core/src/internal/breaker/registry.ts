/**
 * The circuits of a process, by key, at most so many.
 *
 * When there is no room for a new key, those that were not used for the longest
 * time make room, if they are idle: closed, with nothing in flight, and not held
 * by hand. When none is, the new key gets a circuit that lets everything through
 * and takes nothing in: what is known to be sick stays known, whoever floods the
 * registry with keys.
 */
import { Breaker } from "./machine.ts"
import type { Rules } from "./rules.ts"

/** How many idle circuits make room at a time: one in so many. */
const batch = 64

/** The circuits. */
export class Registry {
  readonly circuits = new Map<string, Breaker>()
  /** Circuits at most. */
  readonly capacity: number
  private overflow: Breaker | undefined

  constructor(capacity: number) {
    this.capacity = capacity
  }

  /** The circuit of a key; made with these rules when it is new. With an account, it belongs to that one's circuit. */
  get(key: string, rules: Rules, now = 0, account?: string | undefined): Breaker {
    const known = this.circuits.get(key)
    if (known !== undefined) {
      if (known.provisional) known.adopt(rules)
      if (known.account === undefined && account !== undefined) this.join(known, account, rules, now)
      return known
    }
    const made = this.add(key, rules, now)
    if (made === undefined) return this.open(rules)
    if (account !== undefined) {
      // It must not make room for its own account.
      made.outstanding++
      this.join(made, account, rules, now)
      made.outstanding--
    }
    return made
  }

  /** The circuit of a key, for whoever takes it in hand before a policy has used it. */
  byHand(key: string, rules: Rules, now: number): Breaker {
    const known = this.circuits.get(key)
    if (known !== undefined) return known
    // There is always room for a word of the operator.
    this.makeRoom()
    const made = this.enter(key, rules, now)
    made.provisional = true
    return made
  }

  /** An account's circuit opens for what opens it at once, and not because one of its models fails or is slow. */
  private join(model: Breaker, account: string, rules: Rules, now: number): void {
    const circuit = this.get(account, { ...rules, inARow: Infinity, watches: [] }, now)
    if (!circuit.registered || circuit === model) return
    model.account = circuit
    circuit.models++
  }

  private add(key: string, rules: Rules, now: number): Breaker | undefined {
    return this.makeRoom() ? this.enter(key, rules, now) : undefined
  }

  private enter(key: string, rules: Rules, now: number): Breaker {
    const made = new Breaker(rules, key, now)
    made.registered = true
    this.circuits.set(key, made)
    return made
  }

  /** The circuit of keys for which there is no room. */
  private open(rules: Rules): Breaker {
    if (this.overflow === undefined) {
      this.overflow = new Breaker(rules)
      this.overflow.disable(0, false)
    }
    return this.overflow
  }

  private makeRoom(): boolean {
    if (this.circuits.size < this.capacity) return true
    const idle = [...this.circuits.values()].filter(isIdle).sort((a, b) => a.usedAt - b.usedAt)
    const leaving = idle.slice(0, Math.max(1, Math.floor(this.capacity / batch)))
    for (const circuit of leaving) {
      circuit.registered = false
      this.circuits.delete(circuit.key)
      if (circuit.account !== undefined) circuit.account.models--
      circuit.account = undefined
    }
    return this.circuits.size < this.capacity
  }
}

const isIdle = (circuit: Breaker): boolean =>
  circuit.state === "closed" && circuit.mode === "automatic" && circuit.outstanding === 0 && circuit.models === 0
