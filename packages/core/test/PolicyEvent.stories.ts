/** Random stories of calls, as the engine could tell them: well nested, with attempts beside each other, in many calls at once. */
import { Arbitrary, Effect } from "effect"
import { type LlmError, PolicyEvent } from "@understudy/core"
import { random, type Random } from "./stub.ts"

type Event = PolicyEvent.PolicyEvent

const lifecycle = new Set<Event["event"]>([
  "CallStarted",
  "AttemptStarted",
  "AttemptFailed",
  "AttemptSucceeded",
  "AttemptInterrupted",
  "Committed",
  "Answered",
  "CallFailed",
  "CallInterrupted",
])

/** Events of every kind, as the schema allows them: with names and numbers that no sane program has. */
export const anyEvents = Effect.orDie(
  Arbitrary.sampleEffect(Arbitrary.schema(PolicyEvent.PolicyEvent), { count: 1500, seed: 7, size: 20 }),
)

const names = ["a", "b", "c"]
const tags: ReadonlyArray<LlmError.Tag> = [
  "Overloaded",
  "TimedOut",
  "StreamInterrupted",
  "RateLimited",
  "ModelNotFound",
]

/** The events of one call. `ends`: is its end told? */
const story = (r: Random, call: string, ends: boolean, decisions: ReadonlyArray<Event>): ReadonlyArray<Event> => {
  const out: Array<Event> = []
  const at = 0
  const running = new Map<number, { readonly provider: string; readonly model: string; committed: boolean }>()
  const usage = () => (r.chance(0.5) ? { usage: { inputTokens: r.int(0, 900), outputTokens: r.int(0, 90) } } : {})
  let attempts = 0
  const begin = () => {
    const provider = r.pick(names)
    const who = { provider, model: `${provider}-1`, committed: false }
    running.set(++attempts, who)
    out.push({
      event: "AttemptStarted",
      at,
      call,
      provider,
      model: who.model,
      attempt: attempts,
      face: "language model",
    })
  }
  const end = (attempt: number) => {
    const { model, provider } = running.get(attempt)!
    running.delete(attempt)
    const base = { at, call, provider, model, attempt, elapsedMs: r.int(0, 5000), ...usage() }
    out.push(
      r.pick<() => Event>([
        () => ({ event: "AttemptSucceeded", ...base }),
        () => ({ event: "AttemptInterrupted", ...base }),
        () => ({ event: "AttemptFailed", ...base, failure: r.pick(tags) }),
      ])(),
    )
  }
  out.push({ event: "CallStarted", at, call, provider: "both" })
  for (let steps = r.int(0, 25); steps > 0; steps--) {
    const [first] = running.entries()
    const dice = r.next()
    if (dice < 0.35) begin()
    else if (dice < 0.6 && first !== undefined) end(r.pick([...running.keys()]))
    else if (dice < 0.7 && first !== undefined && !first[1].committed) {
      first[1].committed = true
      const { model, provider } = first[1]
      out.push({ event: "Committed", at, call, provider, model, attempt: first[0], elapsedMs: r.int(0, 900) })
    } else out.push({ ...r.pick(decisions), call, at })
  }
  if (!ends) return out
  for (const attempt of running.keys()) end(attempt)
  const base = { at, call, attempts, elapsedMs: r.int(0, 9000) }
  out.push(
    r.pick<() => Event>([
      () => ({ event: "Answered", ...base, provider: "a", model: "a-1", composition: "both", text: "the answer" }),
      () => ({ event: "CallFailed", ...base, provider: "both", failure: r.pick(tags) }),
      () => ({ event: "CallInterrupted", ...base, provider: "both" }),
    ])(),
  )
  return out
}

/** The events of many calls, each in its order, told in between each other. Some calls never end. */
export const stories = (seed: number, calls: number, events: ReadonlyArray<Event>): ReadonlyArray<Event> => {
  const r = random(seed)
  const decisions = events.filter(({ event }) => !lifecycle.has(event))
  const told = Array.from({ length: calls }, (_, n) => [...story(r, `${seed}-${n}`, r.chance(0.9), decisions)])
  const out: Array<Event> = []
  for (let at = 1000; told.some((story) => story.length > 0); at += r.int(0, 50)) {
    const event = r.pick(told.filter((story) => story.length > 0)).shift()!
    out.push({ ...event, at })
  }
  return out
}
