/**
 * A provider for tests, on virtual time: it answers, fails and waits as its
 * script says, and remembers what it was asked.
 *
 * It is an ordinary `Provider`, so policies compose with it as with a real one:
 * put it below a retry, into a failover, or behind a service's key, and look
 * at what reached it. `Upstream` is its counterpart with real sockets, for
 * clients; this one is for everything above the client.
 *
 * **Details**
 *
 * - Each request plays the next step of the script. A step says both what an
 *   answer is and what a stream is: `text("hi")` is one token when streamed,
 *   and `stream(["h", "i"], { every: "1 second" })` is `hi` after two seconds
 *   when asked for whole.
 * - All time is that of `Clock`: under `TestClock` an hour costs nothing.
 *   Nothing sleeps for real.
 * - A script that runs out ends the call with the defect `ScriptExhausted`,
 *   which says which request had no step. `then` can say otherwise.
 * - A failure given by its tag gets the fake's name and model.
 * - `calls` holds, for each request in order, the prompt as text, the overrides
 *   in force, when it came, and how and when it ended: `interrupted` also when
 *   a stream's consumer left before the end.
 *
 * **Gotchas**
 *
 * - The types of the steps decide the error type of a service's fake: a fake
 *   that fails in a way the service's type does not have does not compile.
 * - Assertions are defects, so that they add nothing to a test's error type and
 *   no policy can take them for a failure of the provider.
 *
 * **Example** (The second attempt is answered)
 *
 * ```ts
 * import { LanguageModelFace, Retry } from "@understudy/core"
 * import { FakeProvider } from "@understudy/testkit"
 * import { Effect, Fiber } from "effect"
 * import { TestClock } from "effect/testing"
 *
 * export const test = Effect.gen(function* () {
 *   const fake = yield* FakeProvider.make({
 *     script: [FakeProvider.fail("RateLimited", { retryAfter: "2 seconds" }), FakeProvider.text("Frank Herbert")],
 *   })
 *   const question = LanguageModelFace.request("Who wrote Dune?")
 *   const call = yield* Effect.forkChild(fake.provider.pipe(Retry.with()).generate(question))
 *   yield* TestClock.adjust("1 minute")
 *   yield* fake.assertAsked(2)
 *   return LanguageModelFace.text(yield* Fiber.join(call))
 * })
 * ```
 *
 * **Example** (The same program with the real provider and the fake one)
 *
 * ```ts
 * import { LanguageModelFace, type LlmError, Provider } from "@understudy/core"
 * import { FakeProvider } from "@understudy/testkit"
 * import { Effect } from "effect"
 *
 * class Model extends Provider.Service<
 *   Model,
 *   Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.AllProvidersFailed>
 * >()("app/Model") {}
 *
 * const program = Effect.flatMap(Model, (model) => model.generate(LanguageModelFace.request("Who wrote Dune?")))
 *
 * export const test = Effect.gen(function* () {
 *   yield* Effect.flip(program)
 *   const fake = yield* FakeProvider.behind(Model)
 *   yield* fake.assertLastPrompt("Dune")
 * }).pipe(Effect.provide(FakeProvider.layer(Model, [FakeProvider.fail("AllProvidersFailed")])))
 * ```
 */
import * as Call from "@understudy/core/Call"
import * as LanguageModelFace from "@understudy/core/LanguageModelFace"
import type * as LlmError from "@understudy/core/LlmError"
import * as Provider from "@understudy/core/Provider"
import type * as Prompt from "effect/ai/Prompt"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { failureOf, type Fields, nameOf } from "./internal/Failure.ts"

export type { Fields }

type Request = LanguageModelFace.Request
type Answer = LanguageModelFace.Answer
type Part = LanguageModelFace.Part
type Face = LanguageModelFace.LanguageModelFace

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/** The request that a step is played for. */
export interface Turn {
  /** Which request it is, counted from 1. */
  readonly number: number
  readonly request: Request
  /** The fake's name and model, for failures. */
  readonly provider: string
  readonly model: string
}

/** What a step does: for those who ask for an answer, and for those who ask for a stream. */
export interface Reply<out E> {
  readonly answer: Effect.Effect<Answer, E>
  readonly stream: Stream.Stream<Part, E>
}

/** One step of a script. `E` is how it can fail. */
export interface Step<out E = never> {
  /** What it does, for messages. */
  readonly name: string
  readonly play: (turn: Turn) => Reply<E>
}

/** How a step can fail. */
export type FailureOf<S> = S extends Step<infer E> ? E : never

/**
 * What happens to requests after the last step.
 *
 * - `fail`: the defect `ScriptExhausted`
 * - `answer`: the text `ok`
 * - `repeat`: the last step, again and again
 * - `cycle`: the script from its beginning
 */
export type Then = "fail" | "answer" | "repeat" | "cycle"

/** The options of a fake. */
export interface Options<S> {
  /** Names it in failures and events. Default `fake`. */
  readonly name?: string | undefined
  /** The model it claims to be. Default: its name and `-1`. */
  readonly model?: string | undefined
  /** A step for each request, in order. */
  readonly script: ReadonlyArray<S>
  /** What happens to requests after the last step. Default `fail`. */
  readonly then?: Then | undefined
}

/**
 * How a request ended.
 *
 * - `answered`: an answer, or a stream with its end marker
 * - `failed`, `died`: a failure, or a defect
 * - `cut`: a stream that ended without its end marker
 * - `interrupted`: its caller left before the end
 */
export type Ending = "answered" | "failed" | "died" | "cut" | "interrupted"

/** One request, as far as it has come. Instants are milliseconds since the epoch, on the clock of the test. */
export interface Asked {
  /** Counted from 1. */
  readonly number: number
  readonly mode: "generate" | "stream"
  readonly request: Request
  /** The prompt as text: a line `role: …` for each message. */
  readonly prompt: string
  /** What the caller had set with `Call`. */
  readonly overrides: Call.Overrides
  /** The model parameters among them. */
  readonly parameters: Call.Parameters
  /** What the script had for it. */
  readonly step: string
  readonly at: number
  /** Undefined while it runs. */
  readonly ended: Ending | undefined
  readonly endedAt: number | undefined
  /** The failure or defect it ended with. */
  readonly failure: unknown
}

/** A fake, and what it saw. */
export interface Fake<out E = never> {
  readonly provider: Provider.Provider<Face, E | LlmError.ProviderFailure>
  /** What it was asked so far, the oldest first. */
  readonly calls: Effect.Effect<ReadonlyArray<Asked>>
  /** How many requests are under way. */
  readonly running: Effect.Effect<number>
  /** It was asked so many times, no more and no less. */
  readonly assertAsked: (times: number) => Effect.Effect<void>
  /** The latest prompt has this text in it, or matches. */
  readonly assertLastPrompt: (includes: string | RegExp) => Effect.Effect<void>
  /** Every request has ended: nothing is left behind. */
  readonly assertIdle: Effect.Effect<void>
  /** Every step of the script was played. */
  readonly assertPlayed: Effect.Effect<void>
}

/** A request came after the last step of the script. A defect. */
export class ScriptExhausted extends Schema.TaggedError<ScriptExhausted>(
  "@understudy/testkit/FakeProvider/ScriptExhausted",
)("ScriptExhausted", {
  provider: Schema.String,
  steps: Schema.Int,
  request: Schema.Int,
  mode: Schema.Literals(["generate", "stream"]),
  prompt: Schema.String,
}) {
  override get message(): string {
    return (
      `The script of "${this.provider}" has ${count(this.steps, "step")}, and this is request ${this.request} ` +
      `(${this.mode}), whose prompt is ${quote(this.prompt)}. ` +
      'Add a step for it, or say what happens then: "answer", "repeat" or "cycle".'
    )
  }
}

/** What a test expected of a fake is not so. A defect; the message lists what it was asked. */
export class Unmet extends Schema.TaggedError<Unmet>("@understudy/testkit/FakeProvider/Unmet")("Unmet", {
  message: Schema.String,
}) {}

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

/** A fake with its script at the first step. */
export const make = <const S extends Step<unknown>>(options: Options<S>): Effect.Effect<Fake<FailureOf<S>>> =>
  Effect.sync(() => fakeOf(new Playback(options)))

/**
 * A layer for a provider's service with a fake in it; `behind` gives the fake
 * back. The script can only fail as the service's type says.
 */
export const layer = <I, P extends Provider.AnyOf<Face>>(
  service: Context.Key<I, P>,
  script: ReadonlyArray<Step<NoInfer<Provider.ErrorOf<P>>>> | Options<Step<NoInfer<Provider.ErrorOf<P>>>>,
): Layer.Layer<I> =>
  Layer.effect(
    service,
    Effect.map(make(isScript(script) ? { script } : script), (fake) => asService<P>(fake)),
  )

/** The fake behind a service that `layer` gave. Dies if the service holds another provider. */
export const behind = <I, P extends Provider.AnyOf<Face>>(
  service: Context.Key<I, P>,
): Effect.Effect<Fake<Provider.ErrorOf<P>>, never, I> =>
  Effect.flatMap(service, (provider) => {
    const fake = fakes.get(provider)
    return fake === undefined
      ? Effect.die(
          new Unmet({ message: `The provider in ${service.key} is no fake. Give it with FakeProvider.layer.` }),
        )
      : Effect.succeed(fake as Fake<Provider.ErrorOf<P>>)
  })

const isScript = <S>(script: ReadonlyArray<S> | Options<S>): script is ReadonlyArray<S> => Array.isArray(script)

const fakes = new WeakMap<object, Fake<unknown>>()

/**
 * A fake's provider as the service's. `Provider.make` adds the failures that a
 * face finds in answers and parts; those steps whose parts could hide one
 * (`answer`, `cut`) have them in their own type, so the script's type has all.
 */
const asService = <P extends Provider.AnyOf<Face>>(fake: Fake<Provider.ErrorOf<P>>): P =>
  fake.provider as Provider.AnyOf<Face> as P

// -----------------------------------------------------------------------------
// Steps
// -----------------------------------------------------------------------------

/** What an answer of text says besides the text. */
export interface TextOptions {
  /** Why it ended. `length` is an answer too. Default `stop`. */
  readonly finish?: "stop" | "length" | "tool-calls" | "pause" | "other" | "unknown" | undefined
  /** Tokens used. Default: not told. */
  readonly usage?: { readonly input: number; readonly output: number } | undefined
}

const step = <E>(name: string, play: (turn: Turn) => Reply<E>): Step<E> => ({ name, play })

/** An answer of text; streamed, it is one token. */
export const text = (text: string, options: TextOptions = {}): Step =>
  step(`text ${quote(text)}`, () => replyOf([{ type: "text", text }], finish(options)))

/** An answer that is this value as JSON. */
export const json = (value: unknown, options: TextOptions = {}): Step =>
  step("json", () => replyOf([{ type: "text", text: JSON.stringify(value) }], finish(options)))

/** A call of a tool. Its id is `call_` and the number of the request, unless it has one of its own. */
export const tool = (name: string, params: unknown, options: { readonly id?: string | undefined } = {}): Step =>
  step(`tool ${name}`, (turn) =>
    replyOf(
      [{ type: "tool-call", id: options.id ?? `call_${turn.number}`, name, params }],
      finish({ finish: "tool-calls" }),
    ),
  )

/**
 * An answer given by its parts, with a finish part at the end unless they have
 * one. Parts can hide failures (a finish reason of `content-filter`), which the
 * type of the step shows.
 */
export const answer = (parts: Answer): Step<LlmError.ProviderFailure> =>
  step("answer", () => {
    const last = parts.at(-1)
    return last?.type === "finish" ? replyOf(parts.slice(0, -1), last) : replyOf(parts, finish({}))
  })

/**
 * A failure: of the union by its tag, which gets the fake's name and model
 * (`fail("RateLimited", { retryAfter: "2 seconds" })`), or any other as it is.
 */
export const fail: {
  <const T extends LlmError.Tag>(tag: T, fields?: Fields<T>): Step<LlmError.WithTag<T>>
  <E extends object>(failure: E): Step<E>
} = (failure: LlmError.Tag | object, fields: Fields<LlmError.Tag> = {}) =>
  (typeof failure === "string"
    ? step(`fail ${failure}`, (turn) => ending(Effect.suspend(() => Effect.fail(failureOf(failure, turn, fields)))))
    : step(`fail ${nameOf(failure)}`, () => ending(Effect.fail(failure)))) as Step<never>

/** A defect, as of a bug in an adapter. */
export const defect = (defect: unknown): Step => step(`defect ${nameOf(defect)}`, () => ending(Effect.die(defect)))

/** Never answers. */
export const hang: Step = step("hang", () => ending(Effect.never))

/**
 * A connection that closes in the middle: a stream without its end marker, and,
 * for those who ask for an answer, a `ConnectionFailed`.
 */
export const cut: Step<LlmError.ConnectionFailed | LlmError.StreamInterrupted> = step("cut", (turn) => ({
  answer: Effect.suspend(() => Effect.fail(failureOf("ConnectionFailed", turn, closed))),
  stream: Stream.empty,
}))

/** Waits first, before anything comes. */
export const delay = <E>(duration: Duration.Input, then: Step<E>): Step<E> =>
  step(`${then.name} after ${Duration.format(Duration.fromInputUnsafe(duration))}`, (turn) => {
    const reply = then.play(turn)
    return {
      answer: Effect.delay(reply.answer, duration),
      stream: Stream.unwrap(Effect.as(Effect.sleep(duration), reply.stream)),
    }
  })

/** How tokens come. */
export interface Pace {
  /** The wait before each token. Default none. */
  readonly every?: Duration.Input | undefined
}

/** Text in these tokens; asked for whole, it is all of them after the time they take. */
export const stream = (tokens: ReadonlyArray<string>, options: Pace & TextOptions = {}): Step =>
  step(`stream ${quote(tokens.join(""))}`, () => {
    const whole = replyOf([{ type: "text", text: tokens.join("") }], finish(options))
    return {
      answer: Effect.delay(whole.answer, timeOf(tokens, options)),
      stream: Stream.concat(
        paced(tokens, options),
        Stream.make<Array<Part>>({ type: "text-end", id: textId }, finish(options)),
      ),
    }
  })

/**
 * These tokens, and then another step that is not an answer: `fail`, `hang`,
 * `defect` or `cut`. Asked for whole, it is that step after the time the tokens
 * take.
 */
export const streamThen = <E>(tokens: ReadonlyArray<string>, then: Step<E>, options: Pace = {}): Step<E> =>
  step(`stream ${quote(tokens.join(""))}, then ${then.name}`, (turn) => {
    const reply = then.play(turn)
    return {
      answer: Effect.delay(reply.answer, timeOf(tokens, options)),
      stream: Stream.concat(paced(tokens, options), reply.stream),
    }
  })

/** A step that is chosen when the request has come, by what was asked. `number` counts from 1. */
export const reply = <S extends Step<unknown>>(
  choose: (request: Request, number: number) => S | Effect.Effect<S>,
): Step<FailureOf<S>> =>
  step("reply", (turn) => {
    const chosen = Effect.map(
      Effect.suspend(() => {
        const chosen = choose(turn.request, turn.number)
        return Effect.isEffect(chosen) ? chosen : Effect.succeed(chosen)
      }),
      (chosen) => chosen.play(turn) as Reply<FailureOf<S>>,
    )
    return {
      answer: Effect.flatMap(chosen, (reply) => reply.answer),
      stream: Stream.unwrap(Effect.map(chosen, (reply) => reply.stream)),
    }
  })

/** The same step for so many requests, to be spread into a script. */
export const times = <S extends Step<unknown>>(count: number, step: S): ReadonlyArray<S> =>
  Array.from({ length: count }, () => step)

const closed: Fields<"ConnectionFailed"> = { fault: "closed" }

const textId = "0"

const finish = ({ finish = "stop", usage }: TextOptions) =>
  ({
    type: "finish",
    reason: finish,
    usage:
      usage === undefined
        ? { inputTokens: {}, outputTokens: {} }
        : { inputTokens: { total: usage.input }, outputTokens: { total: usage.output } },
  }) as const

/** An answer's part as a stream sends it. */
const streamed = (part: Answer[number]): ReadonlyArray<Part> => {
  switch (part.type) {
    case "text":
      return [
        { type: "text-start", id: textId },
        { type: "text-delta", id: textId, delta: part.text },
        { type: "text-end", id: textId },
      ]
    case "reasoning":
      return [
        { type: "reasoning-start", id: textId },
        { type: "reasoning-delta", id: textId, delta: part.text },
        { type: "reasoning-end", id: textId },
      ]
    case "tool-call":
      return [
        { type: "tool-params-start", id: part.id, name: part.name },
        { type: "tool-params-delta", id: part.id, delta: JSON.stringify(part.params) },
        { type: "tool-params-end", id: part.id },
        part,
      ]
    default:
      return [part]
  }
}

const replyOf = (parts: Answer, end: Answer[number]): Reply<never> => ({
  answer: Effect.succeed([...parts, end]),
  stream: Stream.fromIterable([...parts, end].flatMap(streamed)),
})

const ending = <E>(effect: Effect.Effect<never, E>): Reply<E> => ({ answer: effect, stream: Stream.fromEffect(effect) })

const timeOf = (tokens: ReadonlyArray<string>, { every = 0 }: Pace): Duration.Duration =>
  Duration.times(Duration.fromInputUnsafe(every), tokens.length)

const paced = (tokens: ReadonlyArray<string>, { every = 0 }: Pace): Stream.Stream<Part> =>
  Stream.concat(
    Stream.succeed<Part>({ type: "text-start", id: textId }),
    Stream.fromIterable(tokens).pipe(
      Stream.rechunk(1),
      Stream.mapEffect((delta) => Effect.as(Effect.sleep(every), { type: "text-delta", id: textId, delta } as const)),
    ),
  )

// -----------------------------------------------------------------------------
// Playing
// -----------------------------------------------------------------------------

/** Where the script stands, and what was asked. */
class Playback<S extends Step<unknown>> {
  readonly name: string
  readonly model: string
  readonly script: ReadonlyArray<S>
  readonly calls: Array<Asked> = []
  private readonly afterwards: Then

  constructor({ model, name = "fake", script, then = "fail" }: Options<S>) {
    this.name = name
    this.model = model ?? `${name}-1`
    this.script = script
    this.afterwards = then
  }

  private stepFor(turn: Turn, mode: Asked["mode"]): Step<unknown> {
    const { script } = this
    const next = script[turn.number - 1]
    if (next !== undefined) return next
    const [again] = this.afterwards === "cycle" ? script.slice((turn.number - 1) % script.length) : script.slice(-1)
    if (this.afterwards === "answer") return text("ok")
    if (this.afterwards !== "fail" && again !== undefined) return again
    return defect(
      new ScriptExhausted({
        provider: this.name,
        steps: script.length,
        request: turn.number,
        mode,
        prompt: promptText(turn.request.prompt),
      }),
    )
  }

  /** Takes the next step for a request, as long as the scope is open. */
  private ask(mode: Asked["mode"], request: Request): Effect.Effect<Asking<FailureOf<S>>, never, Scope.Scope> {
    return Effect.acquireRelease(
      Effect.clockWith((clock) =>
        Effect.map(Call.CurrentOverrides, (overrides) => {
          const number = this.calls.length + 1
          const turn = { number, request, provider: this.name, model: this.model }
          const step = this.stepFor(turn, mode) as Step<FailureOf<S>>
          this.calls.push({
            number,
            mode,
            request,
            prompt: promptText(request.prompt),
            overrides,
            parameters: overrides.parameters ?? {},
            step: step.name,
            at: clock.currentTimeMillisUnsafe(),
            ended: undefined,
            endedAt: undefined,
            failure: undefined,
          })
          return {
            reply: step.play(turn),
            end: (ended: Ending, failure?: unknown) => {
              const asked = this.calls[number - 1]
              if (asked === undefined || asked.ended !== undefined) return
              this.calls[number - 1] = { ...asked, ended, endedAt: clock.currentTimeMillisUnsafe(), failure }
            },
          }
        }),
      ),
      ({ end }) => Effect.sync(() => end("interrupted")),
    )
  }

  readonly generate = (request: Request): Effect.Effect<Answer, FailureOf<S>> =>
    Effect.scoped(
      Effect.flatMap(this.ask("generate", request), ({ end, reply }) =>
        Effect.onExit(reply.answer, (exit) =>
          Effect.sync(() => (exit._tag === "Success" ? end("answered") : endWith(end, exit.cause.reasons))),
        ),
      ),
    )

  readonly stream = (request: Request): Stream.Stream<Part, FailureOf<S>> =>
    Stream.unwrap(
      Effect.map(this.ask("stream", request), ({ end, reply }) =>
        reply.stream.pipe(
          Stream.tap((part) => (part.type === "finish" ? Effect.sync(() => end("answered")) : Effect.void)),
          Stream.tapCause((cause) => Effect.sync(() => endWith(end, cause.reasons))),
          Stream.onEnd(Effect.sync(() => end("cut"))),
        ),
      ),
    )
}

interface Asking<out E> {
  readonly reply: Reply<E>
  /** Says how it ended; the first to say so is heard. */
  readonly end: (ended: Ending, failure?: unknown) => void
}

type Reason =
  | { readonly _tag: "Fail"; readonly error: unknown }
  | { readonly _tag: "Die"; readonly defect: unknown }
  | { readonly _tag: "Interrupt" }

const endWith = (end: Asking<unknown>["end"], reasons: ReadonlyArray<Reason>): void => {
  for (const reason of reasons) {
    if (reason._tag === "Fail") return end("failed", reason.error)
    if (reason._tag === "Die") return end("died", reason.defect)
  }
  end("interrupted")
}

const fakeOf = <S extends Step<unknown>>(playback: Playback<S>): Fake<FailureOf<S>> => {
  const { calls, name, script } = playback
  const check = (test: (now: number) => string | undefined): Effect.Effect<void> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const wrong = test(now)
      return wrong === undefined ? Effect.void : Effect.die(new Unmet({ message: `${wrong}${listed(calls, now)}` }))
    })
  const running = () => calls.filter((call) => call.ended === undefined).length
  const fake: Fake<FailureOf<S>> = {
    provider: Provider.make<Face, FailureOf<S>>({
      name,
      model: playback.model,
      face: LanguageModelFace.languageModelFace,
      generate: playback.generate,
      stream: playback.stream,
    }),
    calls: Effect.sync(() => [...calls]),
    running: Effect.sync(running),
    assertAsked: (times) =>
      check(() =>
        calls.length === times ? undefined : `${name} was asked ${count(calls.length, "time")}, not ${times}.`,
      ),
    assertLastPrompt: (includes) =>
      check(() => {
        const last = calls.at(-1)
        if (last === undefined) return `${name} was not asked at all.`
        const found = typeof includes === "string" ? last.prompt.includes(includes) : includes.test(last.prompt)
        if (found) return undefined
        return `The latest prompt of ${name} ${typeof includes === "string" ? `has no ${quote(includes)} in it` : `does not match ${includes}`}.`
      }),
    assertIdle: check(() =>
      running() === 0 ? undefined : `${name} still has ${count(running(), "request")} under way.`,
    ),
    assertPlayed: check(() => {
      const left = script.slice(calls.length)
      if (left.length === 0) return undefined
      return `${name} has ${count(left.length, "step")} left that nobody asked for: ${left.map(({ name }) => name).join("; ")}.`
    }),
  }
  fakes.set(fake.provider, fake)
  return fake
}

// -----------------------------------------------------------------------------
// Text
// -----------------------------------------------------------------------------

/** A prompt as text: a line `role: …` for each message. Files and tool calls stand in brackets. */
export const promptText = (prompt: Prompt.Prompt): string =>
  prompt.content
    .map((message) => {
      const said = typeof message.content === "string" ? message.content : message.content.map(partText).join(" ")
      return `${message.role}: ${said}`
    })
    .join("\n")

const partText = (part: Prompt.Part): string => {
  switch (part.type) {
    case "text":
      return part.text
    case "reasoning":
      return `[reasoning: ${part.text}]`
    case "file":
      return `[file ${part.fileName ?? part.mediaType}]`
    case "tool-call":
      return `[tool call ${part.name} ${JSON.stringify(part.params)}]`
    case "tool-result":
      return `[tool result ${part.name} ${JSON.stringify(part.result)}]`
    default:
      return `[${part.type}]`
  }
}

const count = (n: number, what: string): string => `${n} ${what}${n === 1 ? "" : "s"}`

const quote = (text: string): string => JSON.stringify(text.length > 60 ? `${text.slice(0, 59)}…` : text)

/** What was asked, a line for each request, below a message. */
const listed = (calls: ReadonlyArray<Asked>, now: number): string =>
  calls
    .map(({ at, ended = "running", endedAt = now, failure, mode, number, prompt, step }) => {
      const how = failure === undefined ? ended : `${ended} (${nameOf(failure)})`
      return `\n  #${number} ${mode} at ${at} ms: ${step} — ${how} after ${endedAt - at} ms — ${quote(prompt)}`
    })
    .join("")
