/**
 * A directory written a second time, from its description: for each candidate a
 * diary of what was declared, what was set, and who asked it, and every question
 * answered by reading the diary.
 */
import type { Directory } from "@understudy/core"

type Settings = Directory.Settings

/** What a composition declares: its candidates in order. */
export type Declaration = ReadonlyArray<readonly [name: string, settings: Settings]>

type Entry =
  | { readonly what: "declared" | "set"; readonly settings: Settings }
  | { readonly what: "asked" | "ended"; readonly call: number; readonly at: number }

/** Mistakes, each of which the check must notice. */
export type Flaw =
  | "declaredWins"
  | "updateForgetsTheRest"
  | "replaceAllStopsHalfway"
  | "fileForgetsWhatWasSet"
  | "fileNeverWins"
  | "keepsWhoIsGone"
  | "highestFirst"
  | "disabledIsAsked"
  | "forgetsWhoIsAsked"
  | "forgetsWhatIsSet"

const fields = ["priority", "enabled", "contextWindow", "weight", "price", "tags"] as const

/** Only what is said, in one order. */
const said = (settings: Settings): Settings => {
  const out: Record<string, unknown> = {}
  for (const field of fields) if (settings[field] !== undefined) out[field] = settings[field]
  return out
}

export const text = (value: unknown): string => JSON.stringify(value) ?? "nothing"

const hour = 3_600_000

/** What holds where nothing is said. */
const unsaid = { priority: 0, enabled: true, contextWindow: undefined, weight: 1, price: undefined, tags: [] }

class Composition {
  readonly diaries = new Map<string, Array<Entry>>()
  /** When somebody looked at it, and how often it had changed then. */
  readonly looks: Array<{ readonly owner: number; readonly at: number; readonly changes: number }> = []
  changes = 0
}

export class Model {
  private readonly here = new Map<string, Composition>()
  private readonly flaw: Flaw | undefined
  private readonly capacity: number
  private room: number

  constructor(capacity: number, flaw?: Flaw) {
    this.capacity = capacity
    this.room = capacity
    this.flaw = flaw
  }

  private diary(composition: string, candidate: string): ReadonlyArray<Entry> {
    return this.here.get(composition)?.diaries.get(candidate) ?? []
  }

  private last(composition: string, candidate: string, what: "declared" | "set"): Settings {
    const entry = this.diary(composition, candidate).findLast((one) => one.what === what)
    return entry !== undefined && "settings" in entry ? entry.settings : {}
  }

  /** What is set over what is declared. */
  set(composition: string, candidate: string): Settings {
    return this.last(composition, candidate, "set")
  }

  /** What holds, for whoever declares this. */
  holds(composition: string, candidate: string, declared: Settings) {
    const [first, then] = this.flaw === "declaredWins" ? ["set", "declared"] : ["declared", "set"]
    const of = { declared, set: this.set(composition, candidate) }
    return {
      ...unsaid,
      ...of[first as "set"],
      ...of[then as "set"],
    }
  }

  compositions(): ReadonlyArray<string> {
    return [...this.here.keys()]
  }

  /** How the candidates of a composition are. */
  status(composition: string): ReadonlyArray<string> {
    return [...(this.here.get(composition)?.diaries.keys() ?? [])].map((candidate) => this.one(composition, candidate))
  }

  /** How a candidate is. */
  one(composition: string, candidate: string): string {
    if (!this.knows(composition, candidate)) return "nobody"
    const declared = this.last(composition, candidate, "declared")
    const { contextWindow, enabled, price, priority, tags, weight } = this.holds(composition, candidate, declared)
    const holds = { priority, enabled, contextWindow, weight, price, tags }
    return text([candidate, holds, this.inFlight(composition, candidate)])
  }

  /** Whom a composition that declares this asks, in order. */
  order(composition: string, declaration: Declaration): ReadonlyArray<string> {
    const sign = this.flaw === "highestFirst" ? -1 : 1
    return declaration
      .map(([name, declared], index) => ({ name, index, ...this.holds(composition, name, declared) }))
      .filter(({ enabled }) => enabled || this.flaw === "disabledIsAsked")
      .toSorted((a, b) => sign * ((a.priority ?? 0) - (b.priority ?? 0)) || a.index - b.index)
      .map(({ name }) => name)
  }

  private isIdle(composition: Composition, now: number): boolean {
    const recent = now - hour
    if (composition.looks.some(({ at }) => at > recent)) return false
    return [...composition.diaries.values()].every((diary) => {
      const asked = diary.filter((entry) => entry.what === "asked")
      const ended = diary.filter((entry) => entry.what === "ended")
      const set = diary.findLast((entry) => entry.what === "set")
      const isSet = set !== undefined && "settings" in set && Object.keys(set.settings).length > 0
      return (
        asked.every((entry) => "at" in entry && entry.at <= recent) &&
        (asked.length === ended.length || this.flaw === "forgetsWhoIsAsked") &&
        (!isSet || this.flaw === "forgetsWhatIsSet")
      )
    })
  }

  private get size(): number {
    return [...this.here.values()].reduce((sum, { diaries }) => sum + diaries.size, 0)
  }

  private find(name: string, now: number): Composition {
    const known = this.here.get(name)
    if (known !== undefined) return known
    if (this.size >= this.room) {
      for (const [other, composition] of this.here) if (this.isIdle(composition, now)) this.here.delete(other)
      this.room = Math.max(this.capacity, Math.ceil(this.size * 1.1))
    }
    const composition = new Composition()
    this.here.set(name, composition)
    return composition
  }

  private write(composition: Composition, candidate: string, entry: Entry): void {
    const diary = composition.diaries.get(candidate)
    if (diary === undefined) composition.diaries.set(candidate, [entry])
    else diary.push(entry)
  }

  private declare(composition: Composition, declaration: Declaration): void {
    for (const [candidate, settings] of declaration) {
      this.write(composition, candidate, { what: "declared", settings: said(settings) })
    }
  }

  /** Somebody looks; he comes in when he was never here, or something has changed since. */
  look(owner: number, name: string, declaration: Declaration, now: number): "came in" | "knew it" {
    const before = this.here.get(name)
    const last = before?.looks.findLast((one) => one.owner === owner)
    if (before !== undefined && last?.changes === before.changes) return "knew it"
    const composition = this.find(name, now)
    composition.looks.push({ owner, at: now, changes: composition.changes })
    this.declare(composition, declaration)
    return "came in"
  }

  /** A file declares a composition anew. */
  replace(name: string, declaration: Declaration, now: number): void {
    const composition = this.find(name, now)
    composition.changes++
    composition.looks.push({ owner: -1, at: now, changes: composition.changes })
    for (const candidate of Array.from(composition.diaries.keys())) {
      const anew = declaration.find(([other]) => other === candidate)?.[1]
      if (anew === undefined) {
        if (this.flaw !== "keepsWhoIsGone") composition.diaries.delete(candidate)
        continue
      }
      const before = this.last(name, candidate, "declared")
      const stays = (field: string): boolean =>
        this.flaw === "fileNeverWins" || text(before[field as keyof Settings]) === text(anew[field as keyof Settings])
      const kept = Object.entries(this.set(name, candidate)).filter(
        ([field]) => this.flaw !== "fileForgetsWhatWasSet" && stays(field),
      )
      this.write(composition, candidate, { what: "set", settings: said(Object.fromEntries(kept)) })
    }
    this.declare(composition, declaration)
  }

  knows(composition: string, candidate?: string): boolean {
    const known = this.here.get(composition)
    return known !== undefined && (candidate === undefined || known.diaries.has(candidate))
  }

  private put(name: string, candidate: string, settings: Settings): void {
    const before = this.set(name, candidate)
    const now = said(settings)
    if (text(before) === text(now)) return
    const composition = this.here.get(name)!
    composition.changes++
    this.write(composition, candidate, { what: "set", settings: now })
  }

  update(composition: string, candidate: string, settings: Settings): boolean {
    if (!this.knows(composition, candidate)) return false
    const before = this.flaw === "updateForgetsTheRest" ? {} : this.set(composition, candidate)
    this.put(composition, candidate, { ...before, ...said(settings) })
    return true
  }

  reset(composition: string, candidate: string | undefined): boolean {
    if (!this.knows(composition, candidate)) return false
    const all = [...this.here.get(composition)!.diaries.keys()]
    for (const name of candidate === undefined ? all : [candidate]) this.put(composition, name, {})
    return true
  }

  replaceAll(plan: Readonly<Record<string, Readonly<Record<string, Settings>>>>): boolean {
    for (const [composition, candidates] of Object.entries(plan)) {
      for (const [candidate, settings] of Object.entries(candidates)) {
        if (!this.knows(composition, candidate)) return false
        if (this.flaw === "replaceAllStopsHalfway") this.put(composition, candidate, settings)
      }
      if (!this.knows(composition)) return false
    }
    for (const [composition, { diaries }] of this.here) {
      for (const candidate of diaries.keys()) this.put(composition, candidate, plan[composition]?.[candidate] ?? {})
    }
    return true
  }

  ask(composition: string, candidate: string, call: number, at: number): void {
    this.write(this.here.get(composition)!, candidate, { what: "asked", call, at })
  }

  /** Whose question it was may be gone by now, and another be there by his name. */
  end(composition: string, candidate: string, call: number, at: number): void {
    const asked = this.diary(composition, candidate).some((entry) => entry.what === "asked" && entry.call === call)
    if (asked) this.write(this.here.get(composition)!, candidate, { what: "ended", call, at })
  }

  /** Questions that a candidate has. */
  inFlight(composition: string, candidate: string): number {
    return this.diary(composition, candidate).reduce(
      (n, { what }) => (what === "asked" ? n + 1 : what === "ended" ? n - 1 : n),
      0,
    )
  }
}
