/** Overlapping calls, changes by hand and callers that leave, on virtual time and real fibers. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Context, Effect, type Exit, Layer, Random, Stream } from "effect"
import { CircuitBreaker, Directory, Failover, PolicyEvent, Provider } from "@understudy/core"
import { deep } from "./Sequences.ts"
import { end, face, failure, type LM, question, random, type Random as Chance, say, start, wait } from "./stub.ts"
import { World } from "./World.ts"

/** What a candidate does with a call. Times are milliseconds. */
interface Reply {
  readonly takes: number
  /** Until the end of the stream behind its first content. */
  readonly runsOn: number
  readonly does: "answers" | "fails" | "dies"
}

interface Plan {
  readonly comes: number
  readonly kind: "generate" | "stream"
  /** Its caller has lost patience so long after it came. */
  readonly leaves: number | undefined
  /** By candidate. */
  readonly replies: ReadonlyArray<Reply>
}

interface Change {
  readonly at: number
  readonly candidate: number
  readonly settings: Directory.Settings | "reset"
}

interface Fate {
  readonly asked: ReadonlyArray<string>
  readonly how: string
  readonly over: number
}

const names = ["a", "b", "c", "d"]

/** No two things happen at once. */
const time = (r: Chance, longest: number): number => Math.ceil(r.next() * longest * 1000) / 1000

const anyPlan = (r: Chance): Plan => ({
  comes: time(r, 100_000),
  kind: r.pick(["generate", "stream"]),
  leaves: r.chance(0.25) ? time(r, 40_000) : undefined,
  replies: names.map(() => ({
    takes: time(r, 20_000),
    runsOn: time(r, 20_000),
    does: r.chance(0.45) ? "fails" : r.chance(0.05) ? "dies" : "answers",
  })),
})

const anyChange = (r: Chance): Change => ({
  at: time(r, 110_000),
  candidate: r.int(0, names.length),
  settings: r.chance(0.2)
    ? "reset"
    : r.pick<Directory.Settings>([
        { enabled: false },
        { enabled: true },
        { priority: r.int(0, 3) },
        { weight: r.int(0, 3) },
      ]),
})

const declared: ReadonlyArray<Directory.Settings> = [{}, { priority: 1 }, { priority: 1 }, { enabled: false }]

/** The settings of the candidates at an instant, by what was done until then. */
const settingsAt = (changes: ReadonlyArray<Change>, at: number) =>
  names.map((name, index) => {
    let set: Directory.Settings = {}
    for (const change of changes.toSorted((a, b) => a.at - b.at)) {
      if (change.candidate !== index || change.at > at) continue
      set = change.settings === "reset" ? {} : { ...set, ...change.settings }
    }
    return { name, index, priority: 0, enabled: true, ...declared[index], ...set }
  })

/** Whom a call that comes then may ask, in order. */
const allowedAt = (changes: ReadonlyArray<Change>, at: number) =>
  settingsAt(changes, at)
    .filter(({ enabled }) => enabled)
    .toSorted((a, b) => (a.priority ?? 0) - (b.priority ?? 0) || a.index - b.index)

/** What must become of a call, whatever is changed after it has come. */
const foretold = (plan: Plan, changes: ReadonlyArray<Change>): Fate => {
  const asked: Array<string> = []
  const leaves = plan.leaves === undefined ? Infinity : plan.comes + plan.leaves
  let at = plan.comes
  for (const { index, name } of allowedAt(changes, plan.comes)) {
    if (at >= leaves) break
    asked.push(name)
    const { does, runsOn, takes } = plan.replies[index]!
    at += takes
    if (does === "fails") continue
    if (does === "answers" && plan.kind === "stream") at += runsOn
    if (at >= leaves) break
    return { asked, how: does === "dies" ? "died" : `answered by ${name}`, over: at }
  }
  return at >= leaves ? { asked, how: "left", over: leaves } : { asked, how: "AllProvidersFailed", over: at }
}

interface Call {
  readonly plan: Plan
  readonly asked: Array<string>
}

const CurrentPlan = Context.Reference<Call | undefined>("test/CurrentPlan", { defaultValue: () => undefined })

const said = (exit: Exit.Exit<string, { readonly _tag: string }>): string => {
  if (exit._tag === "Success") return exit.value
  const error = Cause.findErrorOption(exit.cause)
  return error._tag === "Some" ? error.value._tag : Cause.hasDies(exit.cause) ? "died" : "interrupted"
}

/** Plays the calls and the changes, and looks at the directory at some instants. */
const play = (
  plans: ReadonlyArray<Plan>,
  changes: ReadonlyArray<Change>,
  looks: ReadonlyArray<number>,
  order: "priority" | "weight" | "latency" | "cost",
  operations: number,
) => {
  const world = new World(operations)
  const running = names.map(() => 0)
  const told: Array<PolicyEvent.PolicyEvent> = []
  const wrong: Array<string> = []
  const now = () => world.clock.currentTimeMillisUnsafe()

  const candidate = (name: string, index: number): Provider.Provider<LM, unknown> => {
    const hold = Effect.acquireRelease(
      Effect.map(CurrentPlan, (call) => {
        call!.asked.push(name)
        running[index]!++
        return call!.plan.replies[index]!
      }),
      () => Effect.sync(() => running[index]!--),
    )
    const reply = ({ does, takes }: Reply) =>
      Effect.andThen(
        wait(takes),
        does === "dies"
          ? Effect.die("a bug")
          : does === "fails"
            ? Effect.fail(failure("Overloaded", name))
            : Effect.succeed(name),
      )
    return Provider.make({
      name,
      model: `${name}-1`,
      face,
      generate: () =>
        Effect.scoped(
          Effect.map(Effect.flatMap(hold, reply), (text): [{ type: "text"; text: string }, typeof end] => [
            { type: "text", text },
            end,
          ]),
        ),
      stream: () =>
        Stream.unwrap(
          Effect.flatMap(hold, (plan) =>
            Effect.map(reply(plan), (text) =>
              Stream.concat(
                Stream.make(start, say(text)),
                Stream.unwrap(Effect.as(wait(plan.runsOn), Stream.make(end))),
              ),
            ),
          ),
        ),
    })
  }

  const provider = Failover.make(
    names.map((name, index) => ({ provider: candidate(name, index), ...declared[index] })) as [
      Failover.Candidate<Provider.Provider<LM, unknown>>,
    ],
    { name: "all", order },
  )

  const fates: Array<Fate> = []
  const calls = plans.map((plan, index) => {
    const call: Call = { plan, asked: [] }
    const answer: Effect.Effect<unknown, unknown> =
      plan.kind === "generate" ? provider.generate(question) : Stream.runCollect(provider.stream(question))
    return Effect.gen(function* () {
      yield* wait(plan.comes)
      const asking = Effect.map(
        Effect.provideService(answer, CurrentPlan, call),
        () => `answered by ${call.asked.at(-1)}`,
      )
      const left = plan.leaves === undefined ? asking : Effect.raceFirst(asking, Effect.as(wait(plan.leaves), "left"))
      const how = said(yield* Effect.exit(left as Effect.Effect<string, { readonly _tag: string }>))
      fates[index] = { asked: call.asked, how, over: now() }
    })
  })

  const operations_ = changes.map(({ at, candidate: index, settings }) =>
    Effect.gen(function* () {
      yield* wait(at)
      const name = names[index]!
      const status =
        settings === "reset"
          ? (yield* Directory.reset("all", name))[0]!
          : yield* Directory.update("all", name, settings)
      const expected = settingsAt(changes, at)[index]!
      if (status.enabled !== expected.enabled || status.priority !== expected.priority) {
        wrong.push(`at ${at}: ${JSON.stringify(status)}, and it should be ${JSON.stringify(expected)}`)
      }
    }),
  )

  const looking = looks.map((at) =>
    Effect.gen(function* () {
      yield* wait(at)
      // Let whoever has just been woken take his turn.
      for (let n = 0; n < 200; n++) yield* Effect.yieldNow
      const status = yield* Directory.status
      const inFlight = status.map((one) => one.inFlight).join()
      if (inFlight !== running.join()) wrong.push(`at ${at}: ${inFlight} in flight, and ${running.join()} are running`)
    }),
  )

  const program = Effect.gen(function* () {
    yield* Directory.register(provider)
    yield* Effect.all([...calls, ...operations_, ...looking], { concurrency: "unbounded", discard: true })
    return yield* Directory.status
  }).pipe(
    PolicyEvent.observe((event) => void told.push(event)),
    Effect.provide(Layer.merge(Directory.layer, CircuitBreaker.layer)),
    Effect.provideService(Clock.Clock, world.clock),
    Random.withSeed(1),
  )
  const fiber = Effect.runForkWith(Context.empty())(program, { scheduler: world })
  let turns = 1_000_000
  while (turns > 0 && world.turn()) turns--
  const exit = fiber.pollUnsafe()
  if (exit?._tag !== "Success") throw new Error(`It did not come to an end: ${String(exit?.cause)}`)
  return { fates, status: exit.value, wrong, told, left: world.asleep + running.reduce((a, b) => a + b, 0) }
}

describe("A directory", () => {
  it(
    "undisturbed by changes, calls ask whom they saw when they came, in 1,000 random crowds",
    () => {
      const reached = new Map<string, number>()
      const sequences = deep(1000)
      for (let seed = 0; seed < sequences; seed++) {
        const r = random(seed)
        const plans = Array.from({ length: r.int(3, 12) }, () => anyPlan(r))
        const changes = Array.from({ length: r.int(3, 15) }, () => anyChange(r))
        const looks = Array.from({ length: 4 }, () => time(r, 120_000))
        const order = r.pick(["priority", "priority", "weight", "latency", "cost"] as const)
        const played = play(plans, changes, looks, order, r.int(4, 60))
        const where = `seed ${seed}, by ${order}`
        assert.deepStrictEqual(played.wrong, [], where)
        assert.strictEqual(played.left, 0, where)
        assert.deepStrictEqual(
          played.status.map(({ inFlight }) => inFlight),
          names.map(() => 0),
          where,
        )
        const states = new Set<string>([order])
        for (const [index, plan] of plans.entries()) {
          const fate = played.fates[index]!
          const expected = foretold(plan, changes)
          if (order === "priority" || order === "cost") {
            assert.deepStrictEqual(
              { ...fate, over: Math.round(fate.over) },
              { ...expected, over: Math.round(expected.over) },
              where,
            )
          }
          const allowed = allowedAt(changes, plan.comes)
          const priorities = fate.asked.map((name) => allowed.find((one) => one.name === name)?.priority ?? -1)
          // Whoever was disabled when it came was not asked, and nobody before one of a lower number.
          assert.isTrue(
            priorities.every((priority, n) => priority >= (priorities[n - 1] ?? 0)),
            where,
          )
          assert.strictEqual(new Set(fate.asked).size, fate.asked.length, where)
          states.add(fate.how.split(" ")[0]!)
          const changed = changes.some(
            ({ at, candidate }) => at > plan.comes && at < fate.over && fate.asked.includes(names[candidate]!),
          )
          if (changed) states.add("changed under way")
          const allowedThen = new Set(allowedAt(changes, fate.over).map(({ name }) => name))
          if (fate.asked.some((name) => !allowedThen.has(name))) states.add("disabled under way")
        }
        for (const event of played.told) if (event.event === "CandidateChanged") states.add("told")
        for (const state of states) reached.set(state, (reached.get(state) ?? 0) + 1)
      }
      for (const [state, least] of Object.entries({
        priority: 0.3,
        weight: 0.1,
        latency: 0.1,
        cost: 0.1,
        answered: 0.9,
        left: 0.5,
        died: 0.1,
        AllProvidersFailed: 0.3,
        "changed under way": 0.5,
        "disabled under way": 0.3,
        told: 0.9,
      })) {
        assert.isAtLeast((reached.get(state) ?? 0) / sequences, least, state)
      }
    },
    deep(60_000),
  )
})
