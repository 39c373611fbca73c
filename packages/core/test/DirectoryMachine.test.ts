import { assert, describe, it } from "@effect/vitest"
import type { Directory } from "@understudy/core"
import { type Composition, Compositions, type Listed } from "../src/internal/directory/compositions.ts"
import type { Tally } from "../src/internal/directory/tally.ts"
import { Viewer } from "../src/internal/directory/view.ts"
import { type Declaration, type Flaw, Model, text } from "./Directory.model.ts"
import { agree, deep, type Game, tellsApart } from "./Sequences.ts"
import type { Random } from "./stub.ts"

type Settings = Directory.Settings

/** A composition that somebody made: two may have one name. */
interface Owner {
  readonly name: string
  readonly declaration: Declaration
}

interface Setup {
  readonly capacity: number
  readonly owners: ReadonlyArray<Owner>
}

type Step =
  | { readonly do: "ask"; readonly owner: number; readonly which: number }
  | { readonly do: "end"; readonly which: number }
  | { readonly do: "wait"; readonly millis: number }
  | { readonly do: "update"; readonly composition: string; readonly candidate: string; readonly settings: Settings }
  | { readonly do: "reset"; readonly composition: string; readonly candidate: string | undefined }
  | { readonly do: "replace all"; readonly plan: Directory.Plan }
  | { readonly do: "replace"; readonly owner: Owner }

const compositions = ["x", "y", "z"]
const candidates = ["a", "b", "c", "d"]

const someSettings = (r: Random): Settings => ({
  ...(r.chance(0.5) ? { priority: r.int(0, 3) } : {}),
  ...(r.chance(0.4) ? { enabled: r.chance(0.4) } : {}),
  ...(r.chance(0.2) ? { contextWindow: r.pick([1000, 2000]) } : {}),
  ...(r.chance(0.2) ? { weight: r.int(0, 3) } : {}),
  ...(r.chance(0.2) ? { price: { input: r.int(1, 3), output: 5 } } : {}),
  ...(r.chance(0.2) ? { tags: r.pick([[], ["eu"], ["eu", "fast"]]) } : {}),
})

const someDeclaration = (r: Random): Declaration => {
  const names = candidates.filter(() => r.chance(0.7))
  return (names.length === 0 ? ["a"] : names).map((name) => [name, someSettings(r)])
}

const someOwner = (r: Random): Owner => ({ name: r.pick(compositions), declaration: someDeclaration(r) })

const somePlan = (r: Random): Directory.Plan =>
  Object.fromEntries(
    compositions
      .filter(() => r.chance(0.4))
      .map((name) => [
        name,
        Object.fromEntries(candidates.filter(() => r.chance(0.3)).map((candidate) => [candidate, someSettings(r)])),
      ]),
  )

const someStep = (r: Random): Step => {
  const dice = r.next()
  if (dice < 0.38) return { do: "ask", owner: r.int(0, 100), which: r.int(0, 100) }
  if (dice < 0.58) return { do: "end", which: r.int(0, 100) }
  if (dice < 0.66) return { do: "wait", millis: r.pick([1, 1000, 3_599_999, 3_600_000, 3_600_001]) }
  const composition = r.pick(compositions)
  const candidate = r.pick(candidates)
  if (dice < 0.82) return { do: "update", composition, candidate, settings: someSettings(r) }
  if (dice < 0.89) return { do: "reset", composition, candidate: r.chance(0.5) ? candidate : undefined }
  if (dice < 0.94) return { do: "replace all", plan: somePlan(r) }
  return { do: "replace", owner: someOwner(r) }
}

const declaredOf = ({ declaration }: Owner) =>
  declaration.map(([name, settings]) => ({ name, model: `${name}-1`, settings }))

const game: Game<Setup, Step, Flaw> = {
  make: (r) => ({
    setup: { capacity: r.pick([2, 4, 8, 100]), owners: Array.from({ length: r.int(2, 5) }, () => someOwner(r)) },
    steps: Array.from({ length: r.int(60, 65) }, () => someStep(r)),
  }),
  play: ({ setup, steps }, flaw) => {
    const machine = new Compositions(setup.capacity)
    const model = new Model(setup.capacity, flaw)
    const reached = new Set<string>()
    const viewers = setup.owners.map(({ declaration, name }) => {
      const listed = declaration.map(([who, settings]) => ({ provider: { name: who, model: `${who}-1` }, settings }))
      return new Viewer(name, listed, 60_000, false)
    })
    const underWay: Array<{
      readonly call: number
      readonly composition: string
      readonly candidate: string
      readonly tally: Tally
    }> = []
    let now = 10_000_000
    let calls = 0

    const take = (step: Step): readonly [real: unknown, expected: unknown] => {
      switch (step.do) {
        case "ask": {
          const index = step.owner % setup.owners.length
          const { declaration, name } = setup.owners[index]!
          const known = model.knows(name)
          const view = viewers[index]!.look(machine, { now: () => now })
          if (model.look(index, name, declaration, now) === "came in" && !known) reached.add("came back")
          const order = model.order(name, declaration)
          if (order.length === 0) reached.add("all disabled")
          const asked = view.entries[step.which % Math.max(1, view.entries.length)]
          if (asked !== undefined && order.includes(asked.provider.name)) {
            asked.tally!.begin(now)
            underWay.push({ call: calls, composition: name, candidate: asked.provider.name, tally: asked.tally! })
            model.ask(name, asked.provider.name, calls++, now)
          }
          return [view.entries.map(({ provider }) => provider.name).join(), order.join()]
        }
        case "end": {
          const [ended] = underWay.splice(step.which % Math.max(1, underWay.length), 1)
          if (ended === undefined) return [0, 0]
          ended.tally.end()
          model.end(ended.composition, ended.candidate, ended.call, now)
          return [0, 0]
        }
        case "wait":
          now += step.millis
          return [0, 0]
        case "update": {
          const found = machine.find(step.composition, step.candidate)
          const before = model.one(step.composition, step.candidate)
          const done = model.update(step.composition, step.candidate, step.settings)
          if ("known" in found) {
            reached.add(found.candidate === undefined ? "unknown composition" : "unknown candidate")
            return [false, done]
          }
          const changes = machine.update(found.composition, found.candidate, step.settings)
          reached.add(changes.length === 0 ? "set in vain" : "set")
          return [changes.length > 0, before !== model.one(step.composition, step.candidate)]
        }
        case "reset": {
          const known = machine.all.get(step.composition)
          const listed = step.candidate === undefined ? undefined : known?.candidates.get(step.candidate)
          const done = model.reset(step.composition, step.candidate)
          if (known === undefined || (step.candidate !== undefined && listed === undefined)) return [false, done]
          if (machine.reset(known, listed === undefined ? known.candidates.values() : [listed]).length > 0) {
            reached.add("reset")
          }
          return [true, done]
        }
        case "replace all": {
          const result = machine.replaceAll(step.plan)
          const done = model.replaceAll(step.plan)
          reached.add("known" in result ? "refused as a whole" : "replaced as a whole")
          return [!("known" in result), done]
        }
        case "replace": {
          const { name } = step.owner
          const before = machine.all.get(name)
          const gone = [...(before?.candidates.keys() ?? [])].some((candidate) =>
            step.owner.declaration.every(([other]) => other !== candidate),
          )
          if (gone) reached.add("gone")
          const set = [...(before?.candidates.values() ?? [])].filter(
            ({ overrides }) => text(overrides) !== "{}",
          ).length
          machine.replace(name, declaredOf(step.owner), 60_000, now)
          model.replace(name, step.owner.declaration, now)
          const kept = [...machine.all.get(name)!.candidates.values()].filter(
            ({ overrides }) => text(overrides) !== "{}",
          )
          if (kept.length > 0) reached.add("set by hand, and kept when the file changed")
          if (kept.length < set) reached.add("set by hand, and declared anew")
          return [0, 0]
        }
      }
    }

    const oneOf = (listed: Listed | undefined): string =>
      listed === undefined ? "nobody" : text([listed.name, listed.settings, listed.tally.inFlight])
    const statusOf = (composition: Composition | undefined): string =>
      Array.from(composition?.candidates.values() ?? [], oneOf).join("\n")

    for (const [index, step] of steps.entries()) {
      const size = machine.all.size
      const [real, expected] = take(step)
      if (machine.all.size < size || (step.do === "ask" && reached.has("came back"))) reached.add("forgotten")
      const last = index === steps.length - 1
      // One in turn, and all of them at the end.
      const [x, a] = [compositions[index % compositions.length]!, candidates[index % candidates.length]!]
      const looked = last
        ? compositions.map((name) => [name, statusOf(machine.all.get(name)), model.status(name).join("\n")] as const)
        : [[`${a} in ${x}`, oneOf(machine.all.get(x)?.candidates.get(a)), model.one(x, a)] as const]
      const seen = [
        ["it", real, expected],
        ["known", [...machine.all.keys()].join(), model.compositions().join()],
        ...looked,
      ] as const
      const different = seen.find(([, was, wanted]) => was !== wanted)
      if (different !== undefined) {
        const [what, was, wanted] = different
        return {
          disagreement: `step ${index} ${JSON.stringify(step)} at ${now}: ${what} is ${String(was)}, the model says ${String(wanted)}`,
          reached,
        }
      }
    }
    return { disagreement: undefined, reached }
  },
}

describe("The machine of a directory", () => {
  it(
    "does what its description says in 10,000 random sequences of calls, changes by hand and changed files",
    () => {
      const share = agree(game, deep(10_000))
      for (const [state, least] of Object.entries({
        set: 0.95,
        "set in vain": 0.5,
        reset: 0.5,
        "replaced as a whole": 0.5,
        "refused as a whole": 0.5,
        gone: 0.5,
        "set by hand, and kept when the file changed": 0.3,
        "set by hand, and declared anew": 0.3,
        "unknown candidate": 0.5,
        "unknown composition": 0.5,
        "all disabled": 0.15,
        forgotten: 0.1,
      })) {
        assert.isAtLeast(share(state), least, state)
      }
    },
    deep(60_000),
  )

  it.each<Flaw>([
    "declaredWins",
    "updateForgetsTheRest",
    "replaceAllStopsHalfway",
    "fileForgetsWhatWasSet",
    "fileNeverWins",
    "keepsWhoIsGone",
    "highestFirst",
    "disabledIsAsked",
    "forgetsWhoIsAsked",
    "forgetsWhatIsSet",
  ])("is told apart from a model in which: %s", (flaw) => {
    tellsApart(game, flaw)
  })
})
