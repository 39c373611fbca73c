/**
 * Structured output: a schema in, a decoded value out, whoever answers.
 *
 * A model that is asked for JSON sends prose around it, fences, trailing commas,
 * half of it, or something else. Here an answer is searched, mended as far as
 * allowed and decoded; and when that is not enough, the model is told what was
 * wrong and asked again, a bounded number of times. `generate` does that for one
 * question; `with` makes a provider do it for every request that wants JSON or
 * offers tools, and so does every `LanguageModelLayer` and `TypedLanguageModel`.
 *
 * **Details**
 *
 * | why an answer is refused | what is done |
 * |---|---|
 * | `nothing found`, `unparseable`, `schema mismatch`, `ambiguous`, `too large` | asked again: the original messages, the failed answer in the assistant's turn, and at most ten issues |
 * | `truncated` | never sent as it was: asked for a shorter answer without showing the cut one, and with twice the length where the call limits it |
 * | `refusal` | not asked again: another candidate is, if there is one |
 *
 * - A re-prompt holds the original messages and the last failed answer only, so
 *   it does not grow. The answer stands in the assistant's own turn, capped and
 *   delimited; our message holds paths and expectations, never a value or a key
 *   that the model chose.
 * - The candidate that answered is asked again. It is passed over when it gives
 *   the same issues or the same text twice, or when there is no remedy; one of
 *   the answers is kept for another candidate that is ready.
 * - It is enough after `attempts` answers, beyond `tokenBudget` tokens, at the
 *   deadline, and when the attempts of the call are used up. A paid answer that
 *   fits is never thrown away for the budget.
 * - The usage that the accepted answer tells is that of all answers.
 * - Arguments of tool calls are mended and checked alike. A wrong call is
 *   answered with an error result, and no handler has run.
 *
 * **Gotchas**
 *
 * - A stream is judged only when it is held to its end (`holdStreams`): what the
 *   caller has seen cannot be asked again. `stream` gives the value as it grows.
 * - Text that a check writes goes to the model: do not put values of the answer
 *   into it.
 *
 * **Example** (A value that was checked)
 *
 * ```ts
 * import { type LanguageModelFace, type LlmError, type Provider, StructuredOutput } from "@understudy/core"
 * import { Schema } from "effect"
 *
 * const Order = Schema.Struct({ item: Schema.String, count: Schema.Int })
 *
 * export const order = (model: Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.ProviderFailure>) =>
 *   StructuredOutput.generate(model, {
 *     prompt: "Three boxes of tea, please.",
 *     schema: Order,
 *     checks: [{ name: "in stock", run: ({ count }) => (count <= 10 ? [] : ["a count of at most 10"]) }],
 *   })
 * ```
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Prompt from "effect/ai/Prompt"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { callEnded, type CallRecord, withCall } from "./internal/callRecord.ts"
import { LimitsInput } from "./internal/json/extract.ts"
import {
  InvalidResponse,
  isLlmError,
  type Rejection,
  type StreamInterrupted,
  withEvidence,
} from "./internal/llmError.ts"
import { Ended } from "./internal/opened.ts"
import { checked, Count } from "./internal/options.ts"
import { fromParts, namesOf, need, peek, type Opened, type Provider, within } from "./internal/provider.ts"
import * as Checks from "./internal/structured/checks.ts"
import type {
  AnyCheck,
  Asked,
  Check,
  Fix,
  FixingCheck,
  Problem,
  Problems,
  Run,
  Warning,
} from "./internal/structured/checks.ts"
import * as Judge from "./internal/structured/judge.ts"
import * as Loop from "./internal/structured/loop.ts"
import * as Reprompt from "./internal/structured/reprompt.ts"
import { jsonShapeOf, judging } from "./internal/structured/shape.ts"
import type { Extraction, Found as Where, Repair } from "./JsonExtraction.ts"
import * as JsonExtraction from "./JsonExtraction.ts"
import type { Answer, LanguageModelFace, Part, Request } from "./LanguageModelFace.ts"
import * as Face from "./LanguageModelFace.ts"

/** How answers are searched, mended, judged and asked for again. */
export const Options = Schema.Struct({
  /** Answers that are asked for in all, the first among them. Default 3. */
  attempts: Schema.optional(Count),
  /** No answer is asked for again when those before cost this many tokens, in and out. Default: no bound of its own. */
  tokenBudget: Schema.optional(Count),
  /** How far an answer is mended: `safe`, `guess` (safe and guess), or `loss` (a cut answer is completed too). Default `guess`. */
  tier: Schema.optional(Schema.Literals(["safe", "guess", "loss"])),
  /** Which of several values that fit is taken, or `refuse` for none. Default `latest`. */
  rivals: Schema.optional(Schema.Literals(["latest", "first", "refuse"])),
  /** How much of an answer is searched, and how deep: the limits of `JsonExtraction`, and their defaults. */
  limits: Schema.optional(LimitsInput),
  /** How many characters of a failed answer are shown to the model again: its head and its tail. Default 4,000. */
  quote: Schema.optional(Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))),
  /** Are the arguments of tool calls judged? Default true. */
  tools: Schema.optional(Schema.Boolean),
  /** Are streams held to their end, and judged then? Default false: they pass as they come. */
  holdStreams: Schema.optional(Schema.Boolean),
})

/** How answers are searched, mended, judged and asked for again. */
export interface Options extends Schema.Schema.Type<typeof Options> {}

/** An answer that was refused. */
export interface Rejected extends Rejection {
  /** The first answer that was asked for is 1. */
  readonly attempt: number
  /** Will an answer be asked for again? */
  readonly again: boolean
  /** What the model wrote. */
  readonly text: Redacted.Redacted<string>
}

/** Somebody who hears of refused answers. */
export interface Observing<out R = never> {
  /** Is told of every answer that was refused. What it throws or dies of changes nothing. */
  readonly onInvalid?: ((rejected: Rejected) => void | Effect.Effect<void, never, R>) | undefined
}

interface Settings {
  readonly care: Judge.Care
  readonly bounds: Loop.Bounds
  readonly tools: boolean
  readonly holdStreams: boolean
}

/** The limits that are said. */
const known = (limits: NonNullable<Options["limits"]>): NonNullable<JsonExtraction.Options["limits"]> => ({
  ...(limits.maxBytes === undefined ? {} : { maxBytes: limits.maxBytes }),
  ...(limits.maxDepth === undefined ? {} : { maxDepth: limits.maxDepth }),
  ...(limits.maxCandidates === undefined ? {} : { maxCandidates: limits.maxCandidates }),
  ...(limits.maxWork === undefined ? {} : { maxWork: limits.maxWork }),
})

const settingsOf = (where: string, options: Options): Settings => {
  const o = checked(where, Options, options)
  return {
    care: {
      extract: {
        ...(o.tier === undefined ? {} : { tier: o.tier }),
        ...(o.rivals === undefined ? {} : { rivals: o.rivals }),
        ...(o.limits === undefined ? {} : { limits: known(o.limits) }),
      },
      quote: o.quote ?? 4_000,
    },
    bounds: { attempts: o.attempts ?? 3, tokenBudget: o.tokenBudget ?? Infinity },
    tools: o.tools ?? true,
    holdStreams: o.holdStreams ?? false,
  }
}

/** An observer as the loop tells it: one that throws or dies changes nothing. */
const telling =
  <R>(onInvalid: Observing<R>["onInvalid"]) =>
  (rejected: Loop.Rejected, text: string): Effect.Effect<void, never, R> =>
    onInvalid === undefined
      ? Effect.void
      : Effect.suspend(() => {
          const said = onInvalid({ ...rejected, text: Redacted.make(text, { label: "answer" }) })
          return Effect.isEffect(said) ? said : Effect.void
        }).pipe(
          Effect.catchCause((cause) =>
            Cause.hasInterruptsOnly(cause) ? Effect.failCause(cause as Cause.Cause<never>) : Effect.void,
          ),
        )

// ---------------------------------------------------------------------------
// As a policy
// ---------------------------------------------------------------------------

const split = <R>(options: Options & Observing<R>): [Options, Observing<R>["onInvalid"]] => {
  const { onInvalid, ...rest } = options
  return [rest, onInvalid]
}

/** Is there something in the answer of this request that can be judged? */
const concerns = (request: Request, settings: Settings): boolean =>
  request.responseFormat.type === "json" || (settings.tools && request.tools.length > 0)

/** Judges the answer of a request by what the request wants. */
const judgeOf =
  (request: Request, settings: Settings) =>
  (answer: Answer): Loop.Verdict<unknown> => {
    const { care } = settings
    if (Judge.callsTools(answer)) {
      return settings.tools
        ? Judge.toolCalls(answer, request, care)
        : { _tag: "accepted", value: undefined, answer, repairs: 0 }
    }
    return request.responseFormat.type === "json"
      ? Judge.json(answer, jsonShapeOf(request.responseFormat.schema), care)
      : { _tag: "accepted", value: undefined, answer, repairs: 0 }
  }

/**
 * Judges the answers to requests that want JSON or offer tools, and asks again
 * for those that do not fit. What goes out of an answer that was mended is the
 * plain JSON. Adds `InvalidResponse`.
 */
const with_ = <R2 = never>(
  options: Options & Observing<R2> = {},
): (<E, R>(self: Provider<LanguageModelFace, E, R>) => Provider<LanguageModelFace, E | InvalidResponse, R | R2>) => {
  const [rest, onInvalid] = split(options)
  const settings = settingsOf("StructuredOutput.with", rest)
  const told = telling(onInvalid)
  return <E, R>(self: Provider<LanguageModelFace, E, R>): Provider<LanguageModelFace, E | InvalidResponse, R | R2> => {
    const leaves = (request: Request, record: CallRecord): boolean =>
      record.judge === "above" || !concerns(request, settings)

    const course = <E2>(
      request: Request,
      record: CallRecord,
      ask: (request: Request) => Effect.Effect<Answer, E2, R>,
    ): Effect.Effect<Answer, E2 | InvalidResponse, R | R2> => {
      const judge = judgeOf(request, settings)
      // Those below judge for themselves. What they accepted, or a ladder gave in their place, stays.
      const before = record.judge
      const verdict = (answer: Answer): Loop.Verdict<unknown> =>
        record.judge === "below" ? { _tag: "accepted", value: undefined, answer, repairs: 0 } : judge(answer)
      const asking = Loop.untilAccepted(
        self,
        (asked) =>
          Effect.suspend(() => {
            record.judge = "nobody"
            return ask(asked)
          }),
        request,
        record,
        settings.bounds,
        (answer) => Effect.sync(() => verdict(answer)),
        told,
      )
      return Effect.onExitPrimitive(
        Effect.map(asking, ({ answer }) => answer),
        (exit) => {
          // Who failed has judged nothing: another may answer yet.
          record.judge = exit._tag === "Success" ? "below" : before
          return undefined
        },
      )
    }

    return fromParts<LanguageModelFace, E | InvalidResponse, R | R2>({
      name: self.name,
      model: self.model,
      face: self.face,
      generate: (request, record): Effect.Effect<Answer, E | InvalidResponse, R | R2> =>
        leaves(request, record) ? self.generate(request) : course(request, record, (asked) => self.generate(asked)),
      open: (request, scope, record): Effect.Effect<Opened<Part>, E | InvalidResponse, R | R2> =>
        !settings.holdStreams || leaves(request, record)
          ? self.open(request, scope)
          : Effect.map(
              course(request, record, (asked) => held(self, asked)),
              (answer) => replayed(self, answer),
            ),
      inside: namesOf(self),
      peek: (context, record, now) => peek(self, context, record, now),
      need: (kind) => need(self, kind),
      within: (record) => within(self, record),
      inner: [self],
    })
  }
}

export { with_ as with }

/** A stream, whole. One that breaks on the way is no answer; the caller has seen nothing of it. */
const held = <E, R>(
  self: Provider<LanguageModelFace, E, R>,
  request: Request,
): Effect.Effect<Answer, E | InvalidResponse, R> =>
  Stream.runCollect(self.stream(request)).pipe(
    Effect.map((parts) => Face.collected(parts)),
    Effect.mapError((error) =>
      isLlmError(error) && error._tag === "StreamInterrupted" && error.committed
        ? withEvidence(
            new InvalidResponse({
              provider: error.provider,
              ...(error.model === undefined ? {} : { model: error.model }),
              retryable: error.retryable,
              ...(error.retryAfter === undefined ? {} : { retryAfter: error.retryAfter }),
              detail: "Its stream broke while it was held.",
            }),
            { cause: error },
          )
        : (error as E),
    ),
  )

/** An answer as a stream that is all there. */
const replayed = (subject: { readonly name: string; readonly model: string }, answer: Answer): Opened<Part> => {
  const head = Face.streamed(answer)
  const inspector = Face.languageModelFace.inspect({ provider: subject.name, model: subject.model })
  for (const part of head) inspector.verdict(part)
  const ended = new Ended()
  ended.settle(Exit.void)
  return { head, rest: Cause.done(), ended, delivered: inspector.delivered }
}

// ---------------------------------------------------------------------------
// For one question
// ---------------------------------------------------------------------------

export {
  /** Which answer a check sees. */
  type Asked,
  /** A check of a decoded value. */
  type Check,
  /** Makes another value of one that a check has something against. */
  type Fix,
  /** A check that makes another value of one that it has something against. */
  type FixingCheck,
  /** What a check has against a value. */
  type Problem,
  /** Nothing, one problem, or several. */
  type Problems,
  /** A value that was accepted although a check had something against it. */
  type Warning,
}

/**
 * A check of the decoded value, after its shape: what is wrong with it, or
 * nothing. It may ask a database, say, and fail with failures of its own.
 *
 * What happens otherwise:
 *
 * - `ask again` (default): the model is told, as it is of the schema
 * - `drop`: what is at the paths of the problems is taken out, if what is left
 *   still fits the schema; else it is asked again
 * - `accept`: the value is taken, with a warning
 * - a function: makes another value of it
 */
export function check<A, E = never, R = never>(
  name: string,
  run: Run<A, E, R>,
  otherwise?: "ask again" | "drop" | "accept",
): Check<A, E, R>
export function check<A, E = never, R = never>(
  name: string,
  run: Run<A, E, R>,
  otherwise: Fix<A, E, R>,
): FixingCheck<A, E, R>
export function check<A, E, R>(
  name: string,
  run: Run<A, E, R>,
  otherwise: "ask again" | "drop" | "accept" | Fix<A, E, R> = "ask again",
): AnyCheck<A, E, R> {
  return typeof otherwise === "function" ? { name, run, otherwise } : { name, run, otherwise }
}

// eslint-disable-next-line typescript/no-explicit-any -- only `any` fits the failures and services of every check
type CheckOf<A> = AnyCheck<A, any, any>
type Returned<F> = F extends (...args: never) => infer O ? O : never
type Results<C> = C extends { readonly run: infer Run } ? Returned<Run> | Returned<Otherwise<C>> : never
type Otherwise<C> = C extends { readonly otherwise: infer Fix } ? Fix : never
// eslint-disable-next-line typescript/no-explicit-any -- any effect
type Effects<C> = Extract<Results<C>, Effect.Effect<any, any, any>>
type CheckError<C> = Effect.Error<Effects<C>>
type CheckServices<C> = Effect.Services<Effects<C>>

/** What is written must be checks of the value; what is inferred are the very checks. */
type ChecksOf<A, Checks> = { readonly [K in keyof Checks]: CheckOf<A> & Checks[K] }

/** A question whose answer is a value. */
export interface Question<S extends Schema.Codec<unknown, unknown>, Checks> extends Options {
  readonly prompt: Prompt.RawInput
  /** What the answer must be, as JSON. It decodes without services. */
  readonly schema: S
  /** Names the value for the provider. Default `answer`. */
  readonly objectName?: string | undefined
  /** Is the schema written into the prompt too? Helps models that break the bounds of a schema. Default false. */
  readonly instructions?: boolean | undefined
  /** Run in order after the shape was found good. */
  readonly checks?: ChecksOf<NoInfer<S["Type"]>, Checks> | undefined
}

/** A value, and how it was come by. */
export interface Structured<out A> {
  readonly value: A
  /** The answer, whose text is the JSON of the value. */
  readonly answer: Answer
  /** Where in the text it was. */
  readonly found: Where
  /** What was mended. */
  readonly repairs: ReadonlyArray<Repair>
  /** Other values in the answer that would have fitted. */
  readonly rivals: Extraction<A>["rivals"]
  /** Was the answer whole? Only `loss` accepts one that was not. */
  readonly complete: boolean
  /** What checks had against the value that was taken. */
  readonly warnings: ReadonlyArray<Warning>
  /** The answers before it. */
  readonly rejections: ReadonlyArray<Rejection>
  /** The tokens of all answers. */
  readonly usage: { readonly inputTokens: number; readonly outputTokens: number }
}

interface Taken<A> {
  readonly found: Judge.Found<A>
  readonly checked: Checks.Checked<A>
}

/**
 * Asks for a value.
 *
 * Adds `InvalidResponse` and the failures of the checks.
 */
export const generate = <
  S extends Schema.Codec<unknown, unknown>,
  E,
  R,
  const C extends ReadonlyArray<unknown> = readonly [],
  R2 = never,
>(
  provider: Provider<LanguageModelFace, E, R>,
  question: Question<S, C> & Observing<R2>,
): Effect.Effect<
  Structured<S["Type"]>,
  E | InvalidResponse | CheckError<C[number]>,
  R | R2 | CheckServices<C[number]>
> => {
  type A = S["Type"]
  const { checks = [], instructions, objectName, onInvalid, prompt, schema, ...rest } = question
  const settings = settingsOf("StructuredOutput.generate", rest)
  const shape = judging<A>(Schema.toCodecJson(schema))
  const request = Face.request(instructions === true ? Reprompt.withSchema(prompt, schema) : prompt, {
    responseFormat: { type: "json", objectName: objectName ?? "answer", schema },
  })
  const encode = Schema.encodeUnknownExit(Schema.toCodecJson(schema))

  const judge = (
    answer: Answer,
    attempt: number,
    last: boolean,
  ): Effect.Effect<Loop.Verdict<Taken<A>>, CheckError<C[number]>, CheckServices<C[number]>> => {
    const verdict = Judge.json(answer, shape, settings.care)
    if (verdict._tag === "refused") return Effect.succeed(verdict)
    const found = verdict.value
    return Effect.map(
      Checks.runAll<A, CheckError<C[number]>, CheckServices<C[number]>>(checks, found.value, found.json, shape, {
        attempt,
        last,
      }),
      (checked): Loop.Verdict<Taken<A>> => {
        if (checked.issues.length > 0) {
          return Judge.refused(
            Face.text(answer),
            { reason: "schema mismatch", ...Judge.listed(checked.issues) },
            settings.care,
          )
        }
        const encoded = checked.json === undefined ? encode(checked.value) : Exit.succeed(checked.json.value)
        if (Exit.isFailure(encoded)) {
          return Judge.refused(Face.text(answer), { reason: "schema mismatch", issues: [], more: 0 }, settings.care)
        }
        const json = encoded.value
        return { ...verdict, value: { found, checked }, answer: Judge.withText(verdict.answer, JSON.stringify(json)) }
      },
    )
  }

  return withCall(
    provider.name,
    (record) => {
      const before = record.judge
      record.judge = "above"
      const asking = Loop.untilAccepted(
        provider,
        (asked) => provider.generate(asked),
        request,
        record,
        settings.bounds,
        judge,
        telling(onInvalid),
      )
      const judged = Effect.onExitPrimitive(asking, () => {
        record.judge = before
        return undefined
      })
      return Effect.map(judged, ({ answer, rejections, usage, value: { checked, found } }): Structured<A> => {
        if (record.observer !== undefined) {
          for (const warning of checked.warnings) {
            record.emit({
              event: "AnswerDoubted",
              ...(record.answered ?? { provider: provider.name, model: provider.model }),
              check: warning.check,
            })
          }
        }
        const { complete, found: where, repairs, rivals } = found.extraction
        return {
          value: checked.value,
          answer,
          found: where,
          repairs,
          rivals,
          complete,
          warnings: checked.warnings,
          rejections,
          usage: { inputTokens: usage?.inputTokens.total ?? 0, outputTokens: usage?.outputTokens.total ?? 0 },
        }
      })
    },
    (record, exit) => callEnded(record, exit, () => (exit._tag === "Success" ? Face.text(exit.value.answer) : "")),
  )
}

// ---------------------------------------------------------------------------
// While it comes
// ---------------------------------------------------------------------------

/** A question whose answer is a value that grows. */
export interface Growing<S extends Schema.Codec<unknown, unknown>> extends Pick<Options, "tier" | "rivals" | "limits"> {
  readonly prompt: Prompt.RawInput
  /** What the answer must be, as JSON. It decodes without services. */
  readonly schema: S
  /** Names the value for the provider. Default `answer`. */
  readonly objectName?: string | undefined
  /** Is the schema written into the prompt too? Default false. */
  readonly instructions?: boolean | undefined
}

/**
 * Asks for a value and gives it as it grows: snapshots that hold what is there,
 * and at last the whole, decoded.
 *
 * It is not asked again, since the snapshots are out. Adds `InvalidResponse`,
 * when the whole does not fit.
 */
export const stream = <S extends Schema.Codec<unknown, unknown>, E, R>(
  provider: Provider<LanguageModelFace, E, R>,
  question: Growing<S>,
): Stream.Stream<JsonExtraction.Progress<S["Type"], S["Encoded"]>, E | InvalidResponse | StreamInterrupted, R> => {
  const { instructions, objectName, prompt, schema, ...rest } = question
  const { care } = settingsOf("StructuredOutput.stream", rest)
  const request = Face.request(instructions === true ? Reprompt.withSchema(prompt, schema) : prompt, {
    responseFormat: { type: "json", objectName: objectName ?? "answer", schema },
  })
  return Stream.suspend(() => {
    let finish: string | undefined
    let text = ""
    return provider.stream(request).pipe(
      Stream.map((part) => {
        if (part.type === "finish") finish = part.reason
        const delta = Face.partText(part)
        text += delta
        return delta
      }),
      Stream.filter((delta) => delta !== ""),
      JsonExtraction.partials<S["Type"], S["Encoded"]>({ ...care.extract, schema, finishReason: () => finish }),
      Stream.mapError((error) => {
        if (!(error instanceof JsonExtraction.ExtractionFailure)) return error
        const subject = { provider: provider.name, model: provider.model }
        const rejection: Rejection = { ...subject, ...Judge.rejectionOf(error, text) }
        return withEvidence(
          new InvalidResponse({ ...subject, kind: "content", reason: rejection.reason, rejections: [rejection] }),
          { providerMessage: text },
        )
      }),
    )
  })
}
