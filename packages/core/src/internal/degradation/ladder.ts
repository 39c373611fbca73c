/** From rungs to a provider that climbs down them. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import { AnswerCache } from "../../AnswerCache.ts"
import type { Any } from "../../Face.ts"
import * as History from "../../History.ts"
import type { LanguageModelFace } from "../../LanguageModelFace.ts"
import type { Source } from "../../PolicyEvent.ts"
import { callEnded, type CallRecord, withCall } from "../callRecord.ts"
import { type Opened, toStream } from "../opened.ts"
import { type AnyProvider, fromParts, namesOf, need, peek, planOf, type Provider, within } from "../provider.ts"
import { admits, CallCache, type Keeping } from "./callCache.ts"
import { Descent, type Outcome, type Spec, type Step, type Way } from "./descent.ts"
import { adapterOf, isLanguageModel, keptAtEnd, simpler, streamOf } from "./faces.ts"
import { flightsOf } from "./flights.ts"
import { Counts } from "./metrics.ts"
import type { Template } from "./rungs.ts"

/** What a ladder is built of. */
export interface Plan {
  readonly name: string | undefined
  readonly primary: AnyProvider
  readonly rungs: ReadonlyArray<Planned>
  readonly keeping: Keeping | undefined
  readonly everything: boolean
  readonly afterDeadline: number
}

/** A rung, before its provider is guarded. */
export type Planned =
  | { readonly rung: "primary" | "cache" | "stale" }
  | { readonly rung: "model"; readonly provider: AnyProvider }
  | {
      readonly rung: "simplified"
      readonly provider: AnyProvider | undefined
      readonly template: string | Template | undefined
    }
  | { readonly rung: "fallback"; readonly answer: (failure: unknown) => unknown }

/** What an answer comes with. */
export interface Whence {
  readonly source: Source
  readonly provider: string
  readonly model: string
  readonly failures: Outcome["failures"]
}

/** Where an opened stream came from, on the stream itself: what wraps it keeps it. */
const WhenceKey: unique symbol = Symbol.for("@understudy/core/Degradation/whence")

const whenceOf = ({ by, failures, source }: Outcome): Whence => ({
  source,
  provider: by.provider,
  model: by.model,
  failures,
})

/** A history that another rung answered in must not be refused. A composition guards its own candidates. */
const guarded = (provider: AnyProvider): AnyProvider => {
  if (!isLanguageModel(provider.face)) return provider
  const plan = planOf(provider)
  return plan === undefined || plan.composite
    ? provider
    : History.guard(provider as Provider<LanguageModelFace, unknown, unknown>)
}

const stepsOf = (rungs: ReadonlyArray<Planned>, primary: AnyProvider): ReadonlyArray<Step> =>
  rungs.map((planned): Step => {
    switch (planned.rung) {
      case "primary":
        return { rung: "primary", provider: primary }
      case "cache":
      case "stale":
        return { rung: planned.rung }
      case "fallback":
        return planned
      case "model":
        return { rung: "model", provider: guarded(planned.provider) }
      case "simplified": {
        const { provider, rung, template } = planned
        return {
          rung,
          provider: provider === undefined ? primary : guarded(provider),
          request: template === undefined ? (request) => request : simpler(template),
        }
      }
    }
  })

type Running<A> = Effect.Effect<A, unknown, unknown>

/** A ladder: a provider, and ways to ask it that tell where the answer came from. */
export const ladderOf = (plan: Plan) => {
  const { afterDeadline, everything, keeping } = plan
  const primary = guarded(plan.primary)
  const { face, model }: { readonly face: Any; readonly model: string } = primary
  const name = plan.name ?? primary.name
  const steps = stepsOf(plan.rungs, primary)
  const counts = new Counts(name)
  const spec: Spec = { name, ownName: !namesOf(primary).includes(name), steps, everything, afterDeadline, counts }
  const adapter = adapterOf(face)

  const descend = (way: Way, request: unknown, record: CallRecord): Running<Outcome> =>
    Effect.withFiber((fiber: Fiber.Fiber<unknown, unknown>) => {
      const context = fiber.context as Context.Context<never>
      if (keeping === undefined || !admits(keeping, record.overrides)) {
        return new Descent(spec, way, request, record, context, undefined, undefined).from(0)
      }
      const cache = Context.getUnsafe(context as Context.Context<AnswerCache>, AnswerCache)
      return Effect.flatMap(CallCache.make({ keeping, cache, name, counts }, request, record, context), (callCache) =>
        new Descent(spec, way, request, record, context, callCache, flightsOf(cache)).from(0),
      )
    })

  const generating: Way = {
    kind: "generate",
    ask: (provider, request) => provider.generate(request),
    give: (said) => Effect.succeed(adapter.answer(said)),
    keep: (answer, _longest, write) => Effect.as(write(answer), answer),
  }

  const streaming = (scope: Scope.Scope): Way => ({
    kind: "stream",
    ask: (provider, request) => provider.open(request, scope),
    give: (said, by) => Effect.sync(() => streamOf(face, adapter.answer(said), by)),
    keep: (opened, longest, write) => keptAtEnd(opened as Opened<unknown>, adapter.listener(longest), write),
  })

  const answer = (request: unknown, record: CallRecord): Running<Outcome> =>
    Effect.map(descend(generating, request, record), (outcome) => ({
      ...outcome,
      answer: adapter.marked(outcome.answer, { ...outcome.by, source: outcome.source }),
    }))

  const open = (request: unknown, scope: Scope.Scope, record: CallRecord): Running<Opened<unknown>> =>
    Effect.map(descend(streaming(scope), request, record), (outcome) => ({
      ...adapter.markedStream(outcome.answer as Opened<unknown>, { ...outcome.by, source: outcome.source }),
      [WhenceKey]: whenceOf(outcome),
    }))

  const asked = steps.flatMap((step) => ("provider" in step ? [step.provider] : []))
  const distinct = [...new Set(asked)]

  const provider = fromParts<Any, unknown, unknown>({
    name,
    model,
    face,
    generate: (request, record) => Effect.map(answer(request, record), (outcome) => outcome.answer),
    open,
    inside: distinct.flatMap((inner) => namesOf(inner)),
    inner: distinct,
    peek: (context, record, now) => {
      // What needs nobody may always answer.
      if (steps.some((step) => !("provider" in step))) return undefined
      const [first, ...rest] = distinct.map((inner) => peek(inner, context, record, now))
      return first === undefined || rest.some((readiness) => readiness?.ready ?? true) ? undefined : first
    },
    need: (kind) => distinct.reduce((sum, inner) => sum + need(inner, kind), 0),
    within: (record) => within(primary, record),
  })

  const ask = (request: unknown): Running<Whence & { readonly answer: unknown }> =>
    withCall(
      name,
      (record) => Effect.map(answer(request, record), (outcome) => ({ answer: outcome.answer, ...whenceOf(outcome) })),
      (record, exit) =>
        callEnded(record, exit, () => (exit._tag === "Success" ? face.text(exit.value.answer as never) : "")),
    )

  const askStream = (request: unknown): Running<Whence & { readonly stream: Stream.Stream<unknown, unknown> }> =>
    Effect.flatMap(Scope.Scope, (scope) =>
      Effect.map(provider.open(request, scope), (opened) => ({
        ...(opened as unknown as { readonly [WhenceKey]: Whence })[WhenceKey],
        stream: toStream(() => Effect.succeed(opened)),
      })),
    )

  return Object.assign(provider, { sources: steps.map((step) => step.rung), ask, askStream })
}
