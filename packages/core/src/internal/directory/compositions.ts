/**
 * The compositions of a process and their candidates, by name: what was declared
 * of each, what was set over that while the program runs, and how it did.
 *
 * Synchronous and plain. Compositions enter by themselves when they are asked,
 * so one that nobody has asked for an hour, and for which nothing is set, may be
 * forgotten when there are many.
 */
import { differing, type Effective, effective, type Field, fields, type Settings, settingsOf } from "./settings.ts"
import { Tally } from "./tally.ts"

/** A candidate as its composition declares it. */
export interface Declared {
  readonly name: string
  readonly model: string
  readonly settings: Settings
}

/** A candidate, as it is known. */
export class Listed {
  readonly name: string
  model: string
  declared: Settings
  /** What was set while the program runs. */
  overrides: Settings = {}
  readonly tally: Tally

  constructor({ model, name, settings }: Declared, decay: number) {
    this.name = name
    this.model = model
    this.declared = settings
    this.tally = new Tally(decay)
  }

  get settings(): Effective {
    return effective(this.declared, this.overrides)
  }
}

/** A composition, as it is known. */
export class Composition {
  readonly name: string
  readonly candidates = new Map<string, Listed>()
  /** Goes up with every change of what is set, and when it is forgotten. */
  version = 0
  /** When somebody looked at it last. */
  enteredAt = 0

  constructor(name: string) {
    this.name = name
  }

  isIdle(now: number): boolean {
    const used = now - forgetAfter
    if (this.enteredAt > used) return false
    for (const { overrides, tally } of this.candidates.values()) {
      if (tally.inFlight > 0 || tally.askedAt > used || differing(overrides, {}).length > 0) return false
    }
    return true
  }
}

/** A candidate whose settings changed, and in which fields. */
export interface Change {
  readonly composition: Composition
  readonly candidate: Listed
  readonly changed: ReadonlyArray<Field>
}

/** A name that is not known. Without a candidate it is the composition's. */
export interface Unknown {
  readonly composition: string
  readonly candidate: string | undefined
  /** The names that are. */
  readonly known: ReadonlyArray<string>
}

/** Settings by composition and candidate. */
export type Plan = Readonly<Record<string, Readonly<Record<string, Settings>>>>

/** So many candidates are kept without a look at who is idle. */
const comfortable = 10_000

/** An hour, in milliseconds. */
const forgetAfter = 3_600_000

/** The compositions of a process. */
export class Compositions {
  readonly all = new Map<string, Composition>()
  private size = 0
  private sweepAt: number

  constructor(capacity = comfortable) {
    this.sweepAt = capacity
    this.capacity = capacity
  }
  private readonly capacity: number

  /** A composition comes in, or comes back, with what it declares. Others of its name keep what they have. */
  enter(name: string, declared: ReadonlyArray<Declared>, decay: number, now: number): Composition {
    const known = this.all.get(name)
    const composition = known ?? this.add(name, now)
    composition.enteredAt = now
    for (const one of declared) this.put(composition, one, decay)
    return composition
  }

  /**
   * A composition takes the place of what is known by its name: who is not in it is forgotten, and what is declared anew
   * counts more than what was set before.
   */
  replace(name: string, declared: ReadonlyArray<Declared>, decay: number, now: number): ReadonlyArray<Change> {
    const composition = this.enter(name, [], decay, now)
    const before = new Map(Array.from(composition.candidates.values(), (one) => [one.name, one.settings]))
    for (const one of composition.candidates.values()) {
      const next = declared.find((other) => other.name === one.name)
      if (next === undefined) {
        composition.candidates.delete(one.name)
        this.size--
      } else {
        const renewed = differing(one.declared, next.settings)
        one.overrides = without(one.overrides, renewed)
      }
    }
    for (const one of declared) this.put(composition, one, decay)
    composition.version++
    return Array.from(composition.candidates.values()).flatMap((candidate) => {
      const old = before.get(candidate.name)
      const changed = old === undefined ? [] : differing(old, candidate.settings)
      return changed.length === 0 ? [] : [{ composition, candidate, changed }]
    })
  }

  /** Who is meant, or which name is not known. */
  find(
    composition: string,
    candidate: string,
  ): { readonly composition: Composition; readonly candidate: Listed } | Unknown {
    const known = this.all.get(composition)
    if (known === undefined) return { composition, candidate: undefined, known: [...this.all.keys()] }
    const listed = known.candidates.get(candidate)
    if (listed === undefined) return { composition, candidate, known: [...known.candidates.keys()] }
    return { composition: known, candidate: listed }
  }

  /** Sets some settings over what is declared; those that are not said stay. */
  update(composition: Composition, candidate: Listed, settings: Settings): ReadonlyArray<Change> {
    return this.set(composition, candidate, { ...candidate.overrides, ...settingsOf(settings) })
  }

  /** Takes back what was set, for some candidates. */
  reset(composition: Composition, candidates: Iterable<Listed>): ReadonlyArray<Change> {
    return Array.from(candidates).flatMap((candidate) => this.set(composition, candidate, {}))
  }

  /** This and nothing else is set, of all that are known; or, when a name is not known, nothing changes. */
  replaceAll(plan: Plan): ReadonlyArray<Change> | Unknown {
    for (const [composition, candidates] of Object.entries(plan)) {
      if (!this.all.has(composition)) return { composition, candidate: undefined, known: [...this.all.keys()] }
      for (const candidate of Object.keys(candidates)) {
        const found = this.find(composition, candidate)
        if ("known" in found) return found
      }
    }
    return Array.from(this.all.values()).flatMap((composition) =>
      Array.from(composition.candidates.values()).flatMap((candidate) => {
        const wanted = Object.hasOwn(plan, composition.name) ? plan[composition.name]! : {}
        return this.set(
          composition,
          candidate,
          Object.hasOwn(wanted, candidate.name) ? settingsOf(wanted[candidate.name]!) : {},
        )
      }),
    )
  }

  private set(composition: Composition, candidate: Listed, overrides: Settings): ReadonlyArray<Change> {
    if (differing(candidate.overrides, overrides).length === 0) return []
    const before = candidate.settings
    candidate.overrides = overrides
    composition.version++
    const changed = differing(before, candidate.settings)
    return changed.length === 0 ? [] : [{ composition, candidate, changed }]
  }

  private put(composition: Composition, declared: Declared, decay: number): void {
    const known = composition.candidates.get(declared.name)
    if (known === undefined) {
      composition.candidates.set(declared.name, new Listed(declared, decay))
      this.size++
    } else {
      known.model = declared.model
      known.declared = declared.settings
      known.tally.decay = decay
    }
  }

  private add(name: string, now: number): Composition {
    if (this.size >= this.sweepAt) this.sweep(now)
    const composition = new Composition(name)
    this.all.set(name, composition)
    return composition
  }

  private sweep(now: number): void {
    for (const composition of this.all.values()) {
      if (!composition.isIdle(now)) continue
      this.all.delete(composition.name)
      this.size -= composition.candidates.size
      // Whoever still has it looks again, and so comes back.
      composition.version++
    }
    // As many again before the next look, so that it costs little for each of them.
    this.sweepAt = Math.max(this.capacity, Math.ceil(this.size * 1.1))
  }
}

const without = (settings: Settings, dropped: ReadonlyArray<Field>): Settings =>
  Object.fromEntries(
    fields.flatMap((field) =>
      dropped.includes(field) || settings[field] === undefined ? [] : [[field, settings[field]]],
    ),
  )
