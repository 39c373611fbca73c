/**
 * Recovery: when a provider does not take the prompt, changes it and asks again.
 *
 * `contentFiltered` is for prompts and answers that a content policy refused,
 * `contextLength` for prompts that are longer than the context window. Asking
 * the same again would not help either of them.
 *
 * **Details**
 *
 * - Both stand above a failover and below a ladder:
 *   `failover.pipe(Recovery.contextLength(), Recovery.contentFiltered())`. In this
 *   order a prompt that was changed after a refusal may be cut, too.
 * - Both ask again twice at most (`times`), count every attempt against the
 *   call's, and ask nobody after its deadline. Streams are recovered until their
 *   first content, and never after.
 * - What they did is told as `PromptChanged`.
 * - The caller's prompt is never changed, only what is sent. When it all was in
 *   vain, the first refusal leaves, and the later ones are in its `failures`.
 * - An effect of the caller's (a step, a summary) may fail with failures of its
 *   own, which leave as they are, and ask models: those are calls of their own.
 *
 * **Gotchas**
 *
 * - They change requests of the language-model face, so they are policies of
 *   providers only: an effect or a stream by itself holds no request.
 * - A changed prompt is sent whole: `previousResponseId` is left out, since what
 *   the provider remembers is what it refused.
 *
 * **Example** (Both, around a failover)
 *
 * ```ts
 * import { Failover, type LanguageModelFace, type LlmError, type Provider, Recovery } from "@understudy/core"
 *
 * type Model = Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.ProviderFailure>
 *
 * export const patient = (small: Model, large: Model) =>
 *   Failover.make([
 *     { provider: small, contextWindow: 8192 },
 *     { provider: large, contextWindow: 128_000 },
 *   ]).pipe(Recovery.contextLength({ strategy: "keep head and tail" }), Recovery.contentFiltered())
 * ```
 */
import * as Prompt from "effect/ai/Prompt"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { checked, Count, InvalidOptions } from "./internal/options.ts"
import type { ContentFiltered } from "./internal/llmError.ts"
import { type Provider, within, wrapAsking } from "./internal/provider.ts"
import { bounded } from "./internal/recovery/asking.ts"
import * as Filtered from "./internal/recovery/contentFiltered.ts"
import * as TooLong from "./internal/recovery/contextLength.ts"
import { withoutNamed } from "./internal/recovery/named.ts"
import type { LanguageModelFace } from "./LanguageModelFace.ts"
import * as Truncation from "./Truncation.ts"

export type {
  /** What a step makes of a prompt: another one, or nothing when it cannot help. */
  Change,
  /** One modification of a prompt. */
  Step,
} from "./internal/recovery/contentFiltered.ts"

/** A policy for language models that adds these failures and services. */
export interface Policy<out E2 = never, out R2 = never> {
  <E, R>(self: Provider<LanguageModelFace, E, R>): Provider<LanguageModelFace, E | E2, R | R2>
}

const Times = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

// ---------------------------------------------------------------------------
// Content filters
// ---------------------------------------------------------------------------

/** How often, and who else is asked. */
export const ContentFilteredOptions = Schema.Struct({
  /** Changed prompts at most. Default 2. */
  times: Schema.optional(Times),
  /**
   * What comes when no step helped. `other candidate`: those that have not refused are asked the original question,
   * since another provider has another policy. Default `stop`.
   */
  then: Schema.optional(Schema.Literals(["stop", "other candidate"])),
})

/** How often, and who else is asked. */
export interface ContentFilteredOptions extends Schema.Schema.Type<typeof ContentFilteredOptions> {}

type AnyStep = Filtered.Step<unknown, unknown>
type StepError<S> = S extends Filtered.Step<infer E, infer _R> ? E : never
type StepServices<S> = S extends Filtered.Step<infer _E, infer R> ? R : never

/**
 * A step of one's own: a function from the prompt that was refused, and the
 * refusal, to another prompt, or to `undefined` when it cannot help. It may be
 * an effect, whose failures and services show in the policy's type.
 *
 * `stage` makes it one for refusals of the prompt or of the answer only.
 *
 * **Example** (A plainer prompt)
 *
 * ```ts
 * import { Recovery } from "@understudy/core"
 * import { Prompt } from "effect/ai"
 *
 * export const plainer = Recovery.step("without examples", (prompt, refusal) =>
 *   refusal.categories?.includes("violence") === true
 *     ? Prompt.fromMessages(prompt.content.filter((message) => message.role !== "assistant"))
 *     : undefined,
 * )
 * ```
 */
export const step = <E = never, R = never>(
  name: string,
  change: (prompt: Prompt.Prompt, failure: ContentFiltered) => Filtered.Change<E, R>,
  options: { readonly stage?: "prompt" | "answer" | undefined } = {},
): Filtered.Step<E, R> => ({ name, change, stage: options.stage })

/**
 * Leaves out what the provider names: the text that it quotes (OpenRouter), or
 * the message whose place it tells. It helps with nothing else: most providers
 * say no more than that they refuse.
 *
 * Where a turn or the result of a tool would be empty, a note stands in its
 * place, so that pairs stay whole. System messages stay, and so does the last
 * turn of the user, unless something of it is left. Listed twice, it leaves out
 * what is named next, too.
 */
export const dropNamed: Filtered.Step = { name: "drop named", stage: "prompt", change: withoutNamed }

const neutrally =
  "Answer within the applicable content policies. If a part of the request cannot be answered that way, leave that part out, say so in one neutral sentence, and answer the rest. Do not quote what cannot be answered."

/**
 * Adds a neutral instruction to answer within the content policy, or your own.
 * It goes to the end of the system message, or becomes one: no word of the
 * user's is changed.
 */
export const rephrase = (instruction: string = neutrally): Filtered.Step => ({
  name: "rephrase",
  change: ({ content }) => {
    const index = content.findIndex((message) => message.role === "system")
    const system = content[index]
    return Prompt.fromMessages(
      system?.role === "system"
        ? content.with(
            index,
            Prompt.systemMessage({ content: `${system.content}\n\n${instruction}`, options: system.options }),
          )
        : [Prompt.systemMessage({ content: instruction }), ...content],
    )
  },
})

const isStep = (u: unknown): u is AnyStep =>
  Predicate.isObject(u) && typeof Reflect.get(u, "name") === "string" && Predicate.isFunction(Reflect.get(u, "change"))

/**
 * Asks again with a changed prompt when the content policy of a provider
 * refused the prompt or the answer.
 *
 * `steps` are tried in order, each on what the one before made of it; one that
 * gives nothing, or a prompt that was refused already, is passed over. Default:
 * `dropNamed`, then `rephrase()`. Adds what the steps add. `ContentFiltered`
 * stays: it can still happen.
 */
export const contentFiltered = <const Steps extends ReadonlyArray<AnyStep> = readonly []>(
  options: ContentFilteredOptions & { readonly steps?: Steps | undefined } = {},
): Policy<StepError<Steps[number]>, StepServices<Steps[number]>> => {
  const { steps, ...rest } = options
  const o = checked("Recovery.contentFiltered", ContentFilteredOptions, rest)
  if (steps !== undefined && !(Array.isArray(steps) && steps.every(isStep))) {
    throw new InvalidOptions("Recovery.contentFiltered.steps", "expected steps, each with a name and a change")
  }
  const settings = {
    steps: (steps ?? [dropNamed, rephrase()]) as ReadonlyArray<
      Filtered.Step<StepError<Steps[number]>, StepServices<Steps[number]>>
    >,
    times: o.times ?? 2,
    then: o.then ?? "stop",
  }
  return (self) =>
    wrapAsking(self, (ask, request, record) =>
      bounded(Filtered.asking(self, ask, request, record, settings), record, within(self, record).maxAttempts),
    )
}

// ---------------------------------------------------------------------------
// Context windows
// ---------------------------------------------------------------------------

/** How a prompt is made to fit into the window, and how often. */
export const ContextLengthOptions = Schema.Struct({
  ...Truncation.Options.fields,
  /** Shorter prompts at most. Default 2. */
  times: Schema.optional(Times),
  /** The window, in tokens of prompt and answer. Default: that of the candidates, or what a refusal states. */
  window: Schema.optional(Count),
  /** Tokens that are kept for the answer. Default: the call's `maxTokens`; else 1,024, and a quarter of the window at most. */
  reserve: Schema.optional(Times),
  /** How far off the count may be, as a share of it, where it is no exact one. Default 0.1. */
  margin: Schema.optional(Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))),
  /** Is a prompt counted, and cut, before it is sent, where all windows are known? Default true. */
  before: Schema.optional(Schema.Boolean),
})

/** How a prompt is made to fit into the window, and how often. */
export interface ContextLengthOptions extends Schema.Schema.Type<typeof ContextLengthOptions> {}

/**
 * Asks again with a shorter prompt when it was too long for the context window,
 * and cuts it before it is sent where it fits into no window.
 *
 * What is left out is said in `Truncation`. The prompt is fitted to the limit
 * that the refusal states, to the window of the candidate that refused
 * (`contextWindow`), or to `window`; without any, to three quarters of what was
 * too long. If several candidates refuse it, it is fitted to the largest: a
 * failover asks those with a larger window before anything is left out. Tokens
 * are those of `TokenCounter`, corrected by what a refusal says that it counted.
 *
 * Adds what `summarise` adds. `ContextLengthExceeded` stays: when what must stay
 * is too long by itself, its `detail` says so.
 */
export const contextLength = <E2 = never, R2 = never>(
  options: ContextLengthOptions & Truncation.Summarising<E2, R2> = {},
): Policy<E2, R2> => {
  const { summarise, ...rest } = options
  const o = checked("Recovery.contextLength", ContextLengthOptions, rest)
  const { before, margin, reserve, times, window, ...truncation } = o
  const settings: TooLong.Settings<E2, R2> = {
    truncation: { ...truncation, summarise },
    window,
    reserve,
    times: times ?? 2,
    margin: margin ?? 0.1,
    before: before ?? true,
  }
  return (self) =>
    wrapAsking(self, (ask, request, record) =>
      bounded(TooLong.asking(self, ask, request, record, settings), record, within(self, record).maxAttempts),
    )
}
