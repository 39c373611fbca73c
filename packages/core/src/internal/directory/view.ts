/** What a composition sees of the directory: its candidates, with what is set for them now. */
import type { Composition, Declared } from "./compositions.ts"
import { type Effective, effective, type Settings } from "./settings.ts"
import { Tally } from "./tally.ts"

interface Who {
  readonly name: string
  readonly model: string
}

/** A candidate, with what holds for it. */
export interface Entry<P> extends Effective {
  readonly provider: P
  /** How it did. Nothing where nobody wants to know. */
  readonly tally: Tally | undefined
}

/** Who may be asked: those that are enabled, by priority, and equal ones as they are listed. Never changed. */
export interface View<P> {
  readonly entries: ReadonlyArray<Entry<P>>
  /** Is a context window known? */
  readonly windows: boolean
}

/** Where compositions are known. */
export interface Known {
  readonly enter: (name: string, declared: ReadonlyArray<Declared>, decay: number, now: number) => Composition
}

const viewOf = <P>(all: ReadonlyArray<Entry<P>>): View<P> => ({
  entries: all.filter(({ enabled }) => enabled).sort((a, b) => a.priority - b.priority),
  windows: all.some(({ contextWindow, enabled }) => enabled && contextWindow !== undefined),
})

/** The eye of a composition: a new view only when something has changed. */
export class Viewer<P extends Who> {
  private readonly listed: ReadonlyArray<{ readonly provider: P; readonly settings: Settings }>
  /** How it enters a directory. */
  readonly listing: { readonly name: string; readonly declared: ReadonlyArray<Declared>; readonly decay: number }
  /** What is seen without a directory: what was declared. */
  readonly alone: View<P>
  private directory: Known | undefined
  private composition: Composition | undefined
  private version = 0
  private view: View<P>

  constructor(
    name: string,
    listed: ReadonlyArray<{ readonly provider: P; readonly settings: Settings }>,
    decay: number,
    measures: boolean,
  ) {
    this.listed = listed
    const declared = listed.map(({ provider, settings }) => ({ name: provider.name, model: provider.model, settings }))
    this.listing = { name, declared, decay }
    this.alone = viewOf(
      listed.map(({ provider, settings }) => ({
        provider,
        ...effective(settings),
        tally: measures ? new Tally(decay) : undefined,
      })),
    )
    this.view = this.alone
  }

  /** What is seen now. */
  look(directory: Known | undefined, time: { readonly now: () => number }): View<P> {
    if (directory === undefined) return this.alone
    if (this.composition === undefined || directory !== this.directory || this.composition.version !== this.version) {
      const { decay, declared, name } = this.listing
      const composition = directory.enter(name, declared, decay, time.now())
      this.directory = directory
      this.composition = composition
      this.version = composition.version
      this.view = viewOf(
        this.listed.map(({ provider, settings }) => {
          const { overrides, tally } = composition.candidates.get(provider.name)!
          return { provider, ...effective(settings, overrides), tally }
        }),
      )
    }
    return this.view
  }

  /** What was seen last. */
  get last(): View<P> {
    return this.view
  }
}
