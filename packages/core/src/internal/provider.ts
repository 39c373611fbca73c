/** What a provider is made of. Its public module is `Provider`. */
import * as Effect from "effect/Effect"
import type { Pipeable } from "effect/Pipeable"
import { pipeArguments } from "effect/Pipeable"
import * as Predicate from "effect/Predicate"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import type { Answer, Any, Hidden, Inspector, Part, Request } from "../Face.ts"
import { plain, type Plain } from "../Face.ts"
import { ambient } from "./ai/ambient.ts"
import { attemptGenerate, attemptOpen, goStraight, isGuarded, type Straight } from "./attempt.ts"
import { callEnded, CallRecord, CurrentCall, factsOf, newCall, nowMillis, withCall } from "./callRecord.ts"
import { callIn } from "./inContext.ts"
import { noClocks, type Plan, type Within } from "./plan.ts"
import * as opened from "./opened.ts"
import type { Declared } from "./directory/compositions.ts"
import { Directory } from "./directory/service.ts"
import type { LlmError, StreamInterrupted } from "./llmError.ts"

/** Marks providers. */
export const TypeId: TypeId = "~@understudy/core/Provider"
/** Marks providers. */
export type TypeId = "~@understudy/core/Provider"

/** A stream at its commit point: what was held back, the rest, and how it ended. */
export interface Opened<out P> extends opened.Opened<P> {}

/** One way to get an answer. */
export interface Provider<in out F extends Any, out E = never, out R = never> extends Pipeable {
  readonly [TypeId]: TypeId
  /** Names it in failures, events and configuration. */
  readonly name: string
  /** The model it asks. */
  readonly model: string
  readonly face: F
  /** An answer, whole. */
  readonly generate: (request: Request<F>) => Effect.Effect<Answer<F>, E, R>
  /** A stream at its commit point. What it holds is given back when the scope closes, or the stream ends. */
  readonly open: (request: Request<F>, scope: Scope.Scope) => Effect.Effect<Opened<Part<F>>, E, R>
  /** A stream. Before its first content it fails with `E`, after it with `StreamInterrupted`. */
  readonly stream: (request: Request<F>) => Stream.Stream<Part<F>, E | StreamInterrupted, R>
}

/** Any provider. */
// eslint-disable-next-line typescript/no-explicit-any -- only `any` fits every face, which are invariant
export type AnyProvider = Provider<any, any, any>

/** Any provider of a face. */
// eslint-disable-next-line typescript/no-explicit-any -- a bound over variant parameters needs it
export type AnyOf<F extends Any> = Provider<F, any, any>

/** The failures of a provider before the commit point. */
export type ErrorOf<P> = P extends Provider<infer _F, infer E, infer _R> ? E : never
/** The services that a provider needs. */
export type ServicesOf<P> = P extends Provider<infer _F, infer _E, infer R> ? R : never
/** The face of a provider. */
export type FaceOf<P> = P extends Provider<infer F, infer _E, infer _R> ? F : never

/** A policy: a function from provider to provider that only adds failures and services. */
export interface Policy<out EOut = never, out ROut = never> {
  <F extends Any, E, R>(self: Provider<F, E, R>): Provider<F, E | EOut, R | ROut>
}

/** Is it a provider? */
export const isProvider = (u: unknown): u is Provider<Any, unknown, unknown> => Predicate.hasProperty(u, TypeId)

/** What a failover may know of a candidate before it asks it. */
export interface Readiness {
  readonly ready: boolean
  /** The failure that asking it now would give, with its event. */
  readonly rejection: () => unknown
  /** Is it a circuit that rejects, and in which state? */
  readonly circuit?: "open" | "half-open" | undefined
  /** Would it keep the call waiting for the verdict on its probes? */
  readonly waits?: boolean | undefined
  /** What a failover must know to probe it all the same, when no other is left. */
  readonly floor?: Floor | undefined
}

/** An open circuit that a failover may probe. */
export interface Floor {
  /** When it would let probes through by itself. */
  readonly opensAt: number
  /** Did it open for something that time does not mend? */
  readonly hopeless: boolean
  /** Takes the failover's turn, if it is due. */
  readonly turn: (failover: object) => boolean
}

interface Internals<F extends Any, E, R> extends Provider<F, E, R> {
  /** Present while the provider is one attempt and nothing more. */
  readonly [PlanKey]?: Plan<F, E, R>
  /** Present while it is an attempt that may go straight through what is around it. */
  readonly [StraightKey]?: Plan<F, E, R>
  /** Could it be asked now? */
  readonly [PeekKey]: (context: Context.Context<never>, record: CallRecord, now: number) => Readiness | undefined
  /** Its name, and those of the candidates inside. */
  readonly [NamesKey]: ReadonlyArray<string>
  /** How long one attempt may need, in milliseconds. */
  readonly [NeedKey]: (kind: "generate" | "stream") => number
  /** Asks it within a call that is known, and so without looking for it. */
  readonly [AskKey]: Asking<F, E, R>
  /** Who may answer this call. Without it, only the provider itself. */
  readonly [WithinKey]?: (record: CallRecord) => Within
  /** The composition that it is. */
  readonly [ListingKey]?: Listing
  /** The providers inside. */
  readonly [InnerKey]: ReadonlyArray<Marked>
}

/** A composition, as it enters a directory. */
export interface Listing {
  readonly name: string
  readonly declared: ReadonlyArray<Declared>
  /** After this time, in milliseconds, a latency weighs 1/e. */
  readonly decay: number
}

/**
 * A provider's two functions within a call that is known. They are called in the fiber of the call, where what they give
 * is run at once, and once: what a policy does before it asks is done when they are called. They are told the time,
 * since a look at the clock costs more than most policies.
 */
export interface Asking<F extends Any, E, R> {
  readonly generate: (request: Request<F>, record: CallRecord, now: number) => Effect.Effect<Answer<F>, E, R>
  readonly open: (
    request: Request<F>,
    scope: Scope.Scope,
    record: CallRecord,
    now: number,
  ) => Effect.Effect<Opened<Part<F>>, E, R>
}

const AskKey: unique symbol = Symbol.for("@understudy/core/Provider/ask")
const NamesKey: unique symbol = Symbol.for("@understudy/core/Provider/names")
const StraightKey: unique symbol = Symbol.for("@understudy/core/Provider/straight")
const PlanKey: unique symbol = Symbol.for("@understudy/core/Provider/plan")
const PeekKey: unique symbol = Symbol.for("@understudy/core/Provider/peek")
const NeedKey: unique symbol = Symbol.for("@understudy/core/Provider/need")
const WithinKey: unique symbol = Symbol.for("@understudy/core/Provider/within")
const ListingKey: unique symbol = Symbol.for("@understudy/core/Provider/listing")
const InnerKey: unique symbol = Symbol.for("@understudy/core/Provider/inner")

const Proto = {
  [TypeId]: TypeId,
  pipe() {
    // eslint-disable-next-line prefer-rest-params -- what a pipeable is
    return pipeArguments(this, arguments)
  },
}

interface Parts<F extends Any, E, R> {
  readonly name: string
  readonly model: string
  readonly face: F
  readonly generate: (request: Request<F>, record: CallRecord, now: number) => Effect.Effect<Answer<F>, E, R>
  readonly open: (
    request: Request<F>,
    scope: Scope.Scope,
    record: CallRecord,
    now: number,
  ) => Effect.Effect<Opened<Part<F>>, E, R>
  readonly plan?: Plan<F, E, R> | undefined
  /** How its answers go straight through its layers. */
  readonly straight?: Straight<F, E, R> | undefined
  /** Names of candidates inside. */
  readonly inside?: ReadonlyArray<string>
  readonly peek: Internals<F, E, R>[typeof PeekKey]
  readonly need: Internals<F, E, R>[typeof NeedKey]
  readonly within?: ((record: CallRecord) => Within) | undefined
  /** The composition that it is, for a directory. */
  readonly listing?: Listing | undefined
  /** The providers inside, whose compositions enter a directory with it. */
  readonly inner?: ReadonlyArray<Marked> | undefined
  /**
   * Does it hand the record on by itself, to attempts and to what `asking` gives? Everything else that it runs must not
   * look for the call. Without it the call is put where it is looked for.
   */
  readonly handsOn?: boolean | undefined
}

/** @internal Builds a provider whose outermost layer opens the call. */
export const fromParts = <F extends Any, E, R>(parts: Parts<F, E, R>): Provider<F, E, R> => {
  const { face, name, straight } = parts
  const answered = (record: CallRecord, exit: Exit.Exit<Answer<F>, E>): void =>
    callEnded(record, exit, () => (exit._tag === "Success" ? face.text(exit.value) : ""))
  const generate =
    straight === undefined
      ? (request: Request<F>): Effect.Effect<Answer<F>, E, R> =>
          withCall(name, (record, now) => parts.generate(request, record, now), answered, parts.handsOn)
      : (request: Request<F>): Effect.Effect<Answer<F>, E, R> =>
          Effect.callback((resume) => {
            const fiber = Fiber.getCurrent()!
            const current = callIn(fiber.context)
            if (current !== undefined) return goStraight(straight, fiber, request, current, current.now(), resume)
            const record = new CallRecord(factsOf(fiber.context), name)
            if (record.observer === undefined) {
              return goStraight(straight, fiber, request, record, record.startedAt, resume)
            }
            return resume(newCall(record, (_, now) => straight.layered(request, record, now), answered, true))
          })
  const open = (request: Request<F>, scope: Scope.Scope): Effect.Effect<Opened<Part<F>>, E, R> => {
    let telling: Telling | undefined
    const opening = withCall(
      name,
      (record, now, outermost) => {
        const run = parts.open(request, scope, record, now)
        if (!outermost || record.observer === undefined) return run
        const call = (telling = new Telling(record, face))
        // Attempts live in scopes below this one, so they are over when this finalizer runs.
        const left = Effect.sync(() => call.end(Exit.interrupt()))
        return Effect.flatMap(Scope.addFinalizer(scope, left), () => {
          call.untilScopeCloses = true
          return run
        })
      },
      (record, exit) => {
        if (exit._tag === "Success") return
        const call = telling ?? new Telling(record, face)
        if (!call.untilScopeCloses || !Cause.hasInterruptsOnly(exit.cause)) call.end(exit)
      },
      parts.handsOn,
    )
    return Effect.map(opening, (stream) => (telling === undefined ? stream : telling.hear(stream)))
  }
  const self: Internals<F, E, R> = Object.assign(Object.create(Proto), {
    name,
    model: parts.model,
    face,
    generate,
    open,
    stream: (request: Request<F>) => opened.toStream((scope) => open(request, scope)),
    ...(parts.plan === undefined ? {} : { [PlanKey]: parts.plan }),
    ...(straight === undefined ? {} : { [StraightKey]: straight.plan }),
    [AskKey]: asked(parts),
    [NamesKey]: parts.inside === undefined ? [name] : [name, ...parts.inside],
    [PeekKey]: parts.peek,
    [NeedKey]: parts.need,
    ...(parts.within === undefined ? {} : { [WithinKey]: parts.within }),
    ...(parts.listing === undefined ? {} : { [ListingKey]: parts.listing }),
    [InnerKey]: parts.inner ?? [],
  })
  return self
}

/** Tells, once, how the call of a stream ended, with the text that came. Only made when someone listens. */
class Telling {
  /** Is there a finalizer that tells when the consumer has left? */
  untilScopeCloses = false
  private readonly record: CallRecord
  private readonly face: Any
  private text = ""
  private told = false

  constructor(record: CallRecord, face: Any) {
    this.record = record
    this.face = face
  }

  end(exit: Exit.Exit<unknown, unknown>): void {
    if (this.told) return
    this.told = true
    callEnded(this.record, exit, () => this.text)
  }

  hear<P>(stream: Opened<P>): Opened<P> {
    const listen = (parts: Iterable<P>): void => {
      try {
        for (const part of parts) this.text += this.face.partText(part)
      } catch {
        // A face that cannot tell the text changes nothing.
      }
    }
    listen(stream.head)
    // The last parts are heard before the end is told: the end is settled while they are pulled.
    let ended: Exit.Exit<void, unknown> | undefined
    let pulling = false
    stream.ended.observe((exit) => {
      ended = exit
      if (!pulling) this.end(exit)
    })
    const rest = Effect.suspend(() => {
      pulling = true
      return Effect.onExitPrimitive(stream.rest, (exit) => {
        pulling = false
        if (exit._tag === "Success") listen(exit.value)
        if (ended !== undefined) this.end(ended)
        return undefined
      })
    })
    return { ...stream, rest }
  }
}

const internals = <F extends Any, E, R>(self: Provider<F, E, R>): Internals<F, E, R> => self as Internals<F, E, R>

/** @internal */
export const planOf = <F extends Any, E, R>(self: Provider<F, E, R>): Plan<F, E, R> | undefined =>
  internals(self)[PlanKey]

/** @internal Its name, and those of the candidates inside. */
export const namesOf = (self: Marked): ReadonlyArray<string> => (self as Internals<Any, unknown, unknown>)[NamesKey]

/** @internal */
export const peek = (
  self: Marked,
  context: Context.Context<never>,
  record: CallRecord,
  now: number,
): Readiness | undefined => (self as Internals<Any, unknown, unknown>)[PeekKey](context, record, now)

/** @internal */
export const need = (self: Marked, kind: "generate" | "stream"): number =>
  (self as Internals<Any, unknown, unknown>)[NeedKey](kind)

/** @internal Who may answer this call. */
export const within = (self: Marked, record: CallRecord): Within => {
  const { [WithinKey]: own, name } = self as Internals<Any, unknown, unknown>
  return own?.(record) ?? { candidates: () => [{ name, contextWindow: undefined }], maxAttempts: Infinity }
}

const withinOf = (self: Marked): ((record: CallRecord) => Within) | undefined =>
  (self as Internals<Any, unknown, unknown>)[WithinKey]

/** @internal The compositions in a provider, itself first. */
export const compositionsIn = (self: Marked): ReadonlyArray<Listing> => {
  const { [InnerKey]: inner, [ListingKey]: own } = self as Internals<Any, unknown, unknown>
  return [...(own === undefined ? [] : [own]), ...inner.flatMap(compositionsIn)]
}

/** @internal Lets the compositions in a provider enter the directory that is here, if there is one. */
export const enter = (self: Marked): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    const directory = Context.getOrUndefined(fiber.context as Context.Context<Directory>, Directory)
    if (directory !== undefined) {
      const now = nowMillis(fiber.getRef(Clock.Clock))
      for (const { declared, decay, name } of compositionsIn(self)) directory.enter(name, declared, decay, now)
    }
    return Effect.void
  })

/** @internal Any provider, when it does not matter of what. */
export interface Marked {
  readonly [TypeId]: TypeId
}

/** @internal The functions of a provider within a call that is known. */
export const asking = <F extends Any, E, R>(self: Provider<F, E, R>): Asking<F, E, R> => internals(self)[AskKey]

const asked = <F extends Any, E, R>({ generate, handsOn, open, straight }: Parts<F, E, R>): Asking<F, E, R> => {
  if (straight !== undefined) {
    // Somebody else may have had a turn since it was asked.
    const goes = (request: Request<F>, record: CallRecord): Effect.Effect<Answer<F>, E, R> =>
      Effect.callback((resume) => goStraight(straight, Fiber.getCurrent()!, request, record, record.now(), resume))
    return { generate: goes, open }
  }
  if (handsOn === true) return { generate, open }
  const inside = <A, E2, R2>(record: CallRecord, run: () => Effect.Effect<A, E2, R2>): Effect.Effect<A, E2, R2> =>
    Effect.provideService(Effect.suspend(run), CurrentCall, record)
  return {
    generate: (request, record, now) => inside(record, () => generate(request, record, now)),
    open: (request, scope, record, now) => inside(record, () => open(request, scope, record, now)),
  }
}

/** @internal A provider that is one attempt, with a plan to which attempt policies add. */
export const fromPlan = <F extends Any, E, R>(
  plan: Plan<F, E, R>,
  peekPlan: Internals<F, E, R>[typeof PeekKey] = () => undefined,
): Provider<F, E, R> => {
  const generate = (request: Request<F>, record: CallRecord): Effect.Effect<Answer<F>, E, R> =>
    attemptGenerate(plan, record, request)
  return fromParts({
    name: plan.name,
    model: plan.model,
    face: plan.face,
    generate,
    straight: isGuarded(plan) ? { plan, layered: generate, inner: generate } : undefined,
    open: (request, scope, record) => attemptOpen(plan, record, request, scope),
    plan,
    inside: plan.inside,
    inner: plan.inner,
    within: plan.within,
    peek: peekPlan,
    handsOn: true,
    need: (kind) => (kind === "generate" ? plan.clocks.attempt : plan.clocks.firstContent),
  })
}

/** What an attempt goes straight through. */
type Shortcut = Pick<Plan<Any, unknown, unknown>, "again" | "gate">

/** A policy only adds failures and services, so what it wraps fails with less, and needs less, than the two together. */
const through = <F extends Any, E, R, E2, R2>(
  plan: Plan<F, E, R>,
  layered: Straight<F, E2, R2>["layered"],
  inner: Asking<F, E, R>["generate"],
): Straight<F, E2, R2> => ({ plan, layered, inner }) as unknown as Straight<F, E2, R2>

/**
 * @internal Wraps both functions of a provider alike. What it cannot know of itself it asks the inner one. The policy is
 * called when the call comes to it; `run` is called where what it gives is run, each time anew. `shortcut`: what an attempt
 * that goes straight needs, where the policy costs nothing as long as all is well.
 */
export const wrap = <F extends Any, E, R, E2, R2>(
  self: Provider<F, E, R>,
  policy: <A>(
    run: (now: number) => Effect.Effect<A, E, R>,
    record: CallRecord,
    kind: "generate" | "stream",
    now: number,
  ) => Effect.Effect<A, E2, R2>,
  shortcut?: (plan: Shortcut) => Shortcut | undefined,
): Provider<F, E2, R2> => {
  const ask = asking(self)
  const generate = (request: Request<F>, record: CallRecord, now: number): Effect.Effect<Answer<F>, E2, R2> =>
    policy((at) => ask.generate(request, record, at), record, "generate", now)
  const plan = internals(self)[StraightKey]
  const more = plan === undefined ? undefined : shortcut?.(plan)
  return fromParts<F, E2, R2>({
    name: self.name,
    model: self.model,
    face: self.face,
    generate,
    straight:
      plan === undefined || more === undefined ? undefined : through({ ...plan, ...more }, generate, ask.generate),
    open: (request, scope, record, now) => policy((at) => ask.open(request, scope, record, at), record, "stream", now),
    inside: namesOf(self),
    peek: internals(self)[PeekKey],
    need: internals(self)[NeedKey],
    handsOn: true,
    within: withinOf(self),
    inner: [self],
  })
}

/**
 * @internal The same for a policy that may ask more than once, and with other requests. A stream is asked for up to its
 * commit point.
 */
export const wrapAsking = <F extends Any, E, R, E2, R2>(
  self: Provider<F, E, R>,
  policy: <A>(
    ask: (request: Request<F>) => Effect.Effect<A, E, R>,
    request: Request<F>,
    record: CallRecord,
  ) => Effect.Effect<A, E2, R2>,
): Provider<F, E2, R2> =>
  fromParts<F, E2, R2>({
    name: self.name,
    model: self.model,
    face: self.face,
    generate: (request, record) => policy((asked) => self.generate(asked), request, record),
    open: (request, scope, record) => policy((asked) => self.open(asked, scope), request, record),
    inside: namesOf(self),
    peek: internals(self)[PeekKey],
    need: internals(self)[NeedKey],
    within: withinOf(self),
    inner: [self],
  })

/**
 * A provider from two functions: one that gives an answer, and one that gives a
 * stream of parts. Neither should retry, and both should stop what they do when
 * they are interrupted.
 */
export const make = <F extends Any, E = never, R = never>(options: {
  /** Names it in failures, events and configuration. */
  readonly name: string
  /** The model it asks. */
  readonly model: string
  readonly face: F
  readonly generate: (request: Request<F>) => Effect.Effect<Answer<F>, E, R>
  readonly stream: (request: Request<F>) => Stream.Stream<Part<F>, E, R>
}): Provider<F, E | Hidden<F> | StreamInterrupted, R> => made(options, false)

const made = <F extends Any, E, R>(
  options: Parameters<typeof make<F, E, R>>[0],
  apart: boolean,
): Provider<F, E | Hidden<F> | StreamInterrupted, R> => {
  const { face, generate, model, name, stream } = options
  const subject = { provider: name, model }
  return fromPlan<F, E | Hidden<F> | StreamInterrupted, R>({
    apart,
    name,
    model,
    subject,
    face,
    generate,
    open: (request, scope) =>
      opened.openStream(
        stream(request),
        face.inspect(subject) as Inspector<Part<F>, Hidden<F> & LlmError>,
        face.endMarker,
        subject,
        scope,
      ),
    composite: false,
    inside: [],
    clocks: noClocks,
    admission: undefined,
  })
}

/** @internal A composition as an outer plan, for attempt policies around it. */
export const compositePlan = <F extends Any, E, R>(self: Provider<F, E, R>): Plan<F, E, R> => ({
  name: self.name,
  model: self.model,
  subject: { provider: self.name, model: self.model },
  face: self.face,
  generate: self.generate,
  open: self.open,
  apart: false,
  composite: true,
  inside: namesOf(self),
  inner: [self],
  within: withinOf(self),
  clocks: noClocks,
  admission: undefined,
})

/** A plain effect as a provider, for policies around effects. Calls that it makes itself are calls of their own. */
export const fromEffect = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  options?: { readonly name?: string | undefined; readonly model?: string | undefined },
): Provider<Plain<A>, E, R> =>
  made<Plain<A>, E, R>(
    {
      name: options?.name ?? "effect",
      model: options?.model ?? options?.name ?? "effect",
      face: plain<A>(),
      generate: () => effect,
      stream: () => Stream.fromEffect(effect),
    },
    true,
  ) as Provider<Plain<A>, E, R>

/** @internal A stream as a provider of which only the stream is asked. The face tells what its parts are. */
export const fromStream = <F extends Any, E, R>(
  stream: Stream.Stream<Part<F>, E, R>,
  options: { readonly face: F; readonly name?: string | undefined; readonly model?: string | undefined },
): Provider<F, E | Hidden<F> | StreamInterrupted, R> =>
  made<F, E, R>(
    {
      name: options.name ?? "stream",
      model: options.model ?? options.name ?? "stream",
      face: options.face,
      generate: () => Effect.die(new Error("A provider made of a stream has no whole answer.")),
      stream: () => stream,
    },
    true,
  )

/**
 * A provider that is another one from some instant on: whoever is `current` when
 * a call first asks answers all of the call. For compositions that are made anew
 * while the program runs, from a file that changes. It keeps the name, the model
 * and the face of the first.
 */
export const delegate = <F extends Any, E, R>(current: () => Provider<F, E, R>): Provider<F, E, R> => {
  const { face, model, name } = current()
  const owner = {}
  const chosen = (record: CallRecord): Provider<F, E, R> =>
    (record.seen(owner) as Provider<F, E, R> | undefined) ?? current()
  const taken = (record: CallRecord): Provider<F, E, R> => {
    const provider = chosen(record)
    record.see(owner, provider)
    return provider
  }
  const provider = fromParts<F, E, R>({
    name,
    model,
    face,
    generate: (request, record, now) => asking(taken(record)).generate(request, record, now),
    open: (request, scope, record, now) => asking(taken(record)).open(request, scope, record, now),
    handsOn: true,
    peek: (context, record, now) => peek(chosen(record), context, record, now),
    need: (kind) => need(current(), kind),
    within: (record) => within(chosen(record), record),
  })
  return Object.defineProperties(provider, {
    [NamesKey]: { get: () => [name, ...namesOf(current())] },
    [InnerKey]: { get: () => [current()] },
  })
}

/** Gives a provider the services it needs. */
export const provideContext =
  <R2>(context: Context.Context<R2>) =>
  <F extends Any, E, R>(self: Provider<F, E, R>): Provider<F, E, Exclude<R, R2>> =>
    fromParts<F, E, Exclude<R, R2>>({
      name: self.name,
      model: self.model,
      face: self.face,
      generate: (request) => Effect.provideContext(self.generate(request), context),
      open: (request, scope) => Effect.provideContext(self.open(request, scope), context),
      peek: (outer, record, now) => peek(self, Context.merge(outer, context), record, now),
      inside: namesOf(self),
      need: internals(self)[NeedKey],
      within: withinOf(self),
      inner: [self],
    })

/**
 * A service that holds a provider, so that a program asks for it by type and a
 * layer decides which one it is.
 *
 * **Example** (Swapping a provider by swapping a layer)
 *
 * ```ts
 * import { type LanguageModelFace, type LlmError, Provider } from "@understudy/core"
 *
 * export class Model extends Provider.Service<
 *   Model,
 *   Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.AllProvidersFailed>
 * >()("app/Model") {}
 * ```
 */
export const Service =
  <Self, P extends AnyProvider>() =>
  <const Id extends string>(id: Id) => {
    const service = Context.Service<Self, P>()(id)
    return Object.assign(service, {
      /** The layer of a provider of this type; it takes what the provider needs. */
      layer: <F extends FaceOf<P>, E extends ErrorOf<P>, R>(provider: Provider<F, E, R>): Layer.Layer<Self, never, R> =>
        Layer.effect(service)(
          Effect.map(Effect.tap(ambient<R>(), enter(provider)), (services) => {
            const provided: unknown = fromParts<F, E, never>({
              name: provider.name,
              model: provider.model,
              face: provider.face,
              generate: (request) => services.effect(provider.generate(request)),
              open: (request, scope) => services.effect(provider.open(request, scope)),
              inside: namesOf(provider),
              peek: (caller, record, now) => peek(provider, services.around(caller), record, now),
              need: internals(provider)[NeedKey],
              within: withinOf(provider),
              inner: [provider],
            })
            // Without requirements of its own, it is of the service's type or leaves less.
            return provided as P
          }),
        ),
    })
  }

/** A layer for a provider's service. */
export const layer = <I, P extends AnyProvider>(service: Context.Key<I, P>, provider: P): Layer.Layer<I> =>
  Layer.succeed(service)(provider)
