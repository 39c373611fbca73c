/**
 * A crowd of overlapping calls that come, wait, run, fail, and leave early, on
 * virtual time and real fibers; and what became of each of them.
 */
import { Cause, Clock, Effect, type Exit, Random, Stream } from "effect"
import { Call, type LanguageModelFace, type Provider } from "@understudy/core"
import {
  end,
  fails,
  failure,
  type LM,
  question,
  type Random as Chance,
  type Reply,
  say,
  start,
  stub,
  wait,
} from "./stub.ts"
import { World } from "./World.ts"

type Part = LanguageModelFace.Part

/** One call: when it comes and what becomes of it, if nothing comes between. Times are milliseconds. */
export interface Plan {
  readonly comes: number
  readonly kind: "generate" | "stream" | "stream that is left early"
  /** Until the answer, or the first content. */
  readonly takes: number
  /** Until the end of the stream behind that. */
  readonly runsOn: number
  readonly fails: boolean
  /** Its caller has lost patience so long after it came. */
  readonly leaves: number | undefined
  readonly deadline: number | undefined
}

/** What became of a call. Times are milliseconds from the beginning. */
export interface Fate {
  /** When the provider was asked, if it was. */
  readonly asked: number | undefined
  readonly over: number
  /** `answered`, `left`, or the tag of its failure. */
  readonly how: string
}

/** Any call of a crowd that comes within so many milliseconds. In a long time hardly two things happen at once. */
export const anyPlan = (r: Chance, within = 1_000_000_000): Plan => {
  const time = (longest: number): number => Math.ceil(r.next() * longest * 1000) / 1000
  return {
    comes: time(within),
    kind: r.pick(["generate", "stream", "stream that is left early"]),
    takes: time(within / 3),
    runsOn: time(within / 3),
    fails: r.chance(0.2),
    leaves: r.chance(0.25) ? time(within / 2) : undefined,
    deadline: r.chance(0.25) ? time(within / 2) : undefined,
  }
}

/** How long a call that comes in stays there. */
export const stays = (plan: Plan): number =>
  plan.kind === "stream" && !plan.fails ? plan.takes + plan.runsOn : plan.takes

const later = (parts: Iterable<Part>, millis: number): Stream.Stream<Part> =>
  Stream.unwrap(Effect.as(wait(millis), Stream.fromIterable(parts)))

const replyOf = (plan: Plan, last: Part): Reply<ReturnType<typeof failure>> =>
  plan.fails
    ? fails(failure("ProviderUnavailable"), plan.takes)
    : {
        whole: Effect.as(wait(plan.takes), [{ type: "text", text: "answered" }, last as typeof end]),
        parts: Stream.make<[Part]>(start).pipe(
          Stream.concat(later([say("answered")], plan.takes)),
          Stream.concat(later([last], plan.runsOn)),
        ),
      }

const said = (exit: Exit.Exit<string, { readonly _tag: string }>): string => {
  if (exit._tag === "Success") return exit.value
  const error = Cause.findErrorOption(exit.cause)
  return error._tag === "Some" ? error.value._tag : "interrupted"
}

/** What became of a crowd, and what it left behind. */
export interface Aftermath {
  readonly fates: ReadonlyArray<Fate>
  /** Timers, and attempts that hold something. */
  readonly left: number
}

/**
 * Plays the calls, each to a provider of its own around which `guard` puts the policies that they share, in a world where
 * fibers give way after so many operations each.
 */
export const crowd = <E extends { readonly _tag: string }, R>(
  plans: ReadonlyArray<Plan>,
  operations: number,
  guard: (provider: Provider.Provider<LM, { readonly _tag: string }>, index: number) => Provider.Provider<LM, E, R>,
  options: {
    /** The finish part of the n-th. */
    readonly last?: (index: number) => Part
    readonly around?: <A, E2, R2>(index: number, call: Effect.Effect<A, E2, R2>) => Effect.Effect<A, E2, R2>
  } = {},
): Effect.Effect<Aftermath, never, R> =>
  Effect.map(Effect.context<R>(), (context) => {
    const world = new World(operations)
    const now = () => world.clock.currentTimeMillisUnsafe()
    const fates: Array<Fate> = []
    const stubs = plans.map((plan, index) => stub(`p${index}`, () => replyOf(plan, options.last?.(index) ?? end)))
    const calls = plans.map((plan, index) =>
      Effect.gen(function* () {
        yield* wait(plan.comes)
        const provider = guard(stubs[index]!.provider, index)
        const answer: Effect.Effect<unknown, { readonly _tag: string }, R> =
          plan.kind === "generate"
            ? provider.generate(question)
            : plan.kind === "stream"
              ? Stream.runDrain(provider.stream(question))
              : Stream.runDrain(Stream.take(provider.stream(question), 2))
        const bounded = plan.deadline === undefined ? answer : Call.withDeadline(plan.deadline)(answer)
        const around = Effect.as(options.around?.(index, bounded) ?? bounded, "answered")
        const left = plan.leaves === undefined ? around : Effect.raceFirst(around, Effect.as(wait(plan.leaves), "left"))
        const how = said(yield* Effect.exit(left))
        fates[index] = { asked: stubs[index]!.asked[0], over: now(), how }
      }),
    )
    const fiber = Effect.runForkWith(context)(
      Effect.all(calls, { concurrency: "unbounded", discard: true }).pipe(
        Effect.provideService(Clock.Clock, world.clock),
        Random.withSeed(1),
      ),
      { scheduler: world },
    )
    let turns = 1_000_000
    while (turns > 0 && world.turn()) turns--
    const exit = fiber.pollUnsafe()
    if (exit?._tag !== "Success") throw new Error(`The crowd did not come to an end: ${String(exit?.cause)}`)
    return { fates, left: world.asleep + stubs.reduce((sum, { running }) => sum + running(), 0) }
  })

/** In milliseconds: sums of virtual time are not exact. */
const tolerance = 0.05

/** Where the fates of a crowd are not as foretold; nothing if they are. */
export const differences = (real: ReadonlyArray<Fate>, expected: ReadonlyArray<Fate>): string => {
  const near = (a: number | undefined, b: number | undefined): boolean =>
    a === undefined || b === undefined ? a === b : Math.abs(a - b) <= tolerance
  return real
    .flatMap((fate, index) => {
      const foretold = expected[index]!
      return fate.how === foretold.how && near(fate.asked, foretold.asked) && near(fate.over, foretold.over)
        ? []
        : [`call ${index}: ${JSON.stringify(fate)}, foretold was ${JSON.stringify(foretold)}`]
    })
    .join("\n")
}

/** Things that happen at instants, to calls. The earliest is next. */
export class Agenda<What extends string> {
  private entries: Array<{ readonly at: number; readonly what: What; readonly call: number }> = []
  private last: { readonly at: number; readonly what: What; readonly call: number } | undefined
  /** Did two things happen so close together that nobody can say which came first? */
  ambiguous = false

  add(at: number, what: What, call: number): void {
    this.entries.push({ at, what, call })
  }

  /** The next one that still matters. */
  next(matters: (what: What, call: number) => boolean) {
    this.entries = this.entries.filter(({ call, what }) => matters(what, call))
    if (this.entries.length === 0) return undefined
    let first = 0
    for (let index = 1; index < this.entries.length; index++) {
      if (this.entries[index]!.at < this.entries[first]!.at) first = index
    }
    const next = this.entries.splice(first, 1)[0]!
    const { last } = this
    const close = last !== undefined && next.at - last.at < 2 * tolerance
    // The same twice is no question.
    if (close && (next.what !== last.what || next.call !== last.call)) this.ambiguous = true
    this.last = next
    return next
  }
}
