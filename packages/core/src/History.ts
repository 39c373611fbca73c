/**
 * A conversation that moves between providers.
 *
 * What one provider signed, numbered or remembered means nothing to another,
 * and most refuse a request that holds it. `portable` takes it out of a request
 * for the one who is asked now, and `guard` does so at a candidate's door.
 *
 * **Details**
 *
 * - A part knows who made it by the mark of `Origin`. `guard` marks what its
 *   provider gives out, and so do `LanguageModelLayer` and `TypedLanguageModel`
 *   for the candidate that answered.
 * - Of a part that somebody else made, the text stays, and its metadata go.
 *   Somebody else's reasoning goes as a whole, and so do calls of tools that
 *   somebody else ran on its side, with their results.
 * - The ids of tool calls keep the pairs together: a call, its result and its
 *   approval have one id, and no two calls share one. Ids of one's own stay.
 *   Others stay if every dialect accepts them (letters, digits, `_` and `-`, at
 *   most 40), and are replaced by one that depends on the id alone if not.
 * - `previousResponseId` and the incremental prompt stay only when the last
 *   answer is one's own.
 * - Pure: the history of the caller is not changed, and the next answer may come
 *   from the first provider again, with its own signatures in place.
 *
 * **Gotchas**
 *
 * - Provider and model must both be the same: a signature is good for the model
 *   that gave it.
 * - A part that nobody marked is the caller's own, and its options stay: they
 *   are under the provider's own key, and others do not look there. A history
 *   that was recorded elsewhere keeps the signatures that it holds.
 * - Guard the candidates and not their composition, and before anything else:
 *   `History.guard(provider).pipe(Timeouts.with(), …)`.
 *
 * **Example** (A candidate with a guard)
 *
 * ```ts
 * import { Failover, History, type LanguageModelFace, type LlmError, type Provider } from "@understudy/core"
 *
 * type Model = Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.ProviderFailure>
 *
 * export const both = (ours: Model, theirs: Model) => Failover.make([History.guard(ours), History.guard(theirs)])
 * ```
 */
import * as Prompt from "effect/ai/Prompt"
import * as Effect from "effect/Effect"
import * as Hash from "effect/Hash"
import { markAll, markBeginning } from "./internal/ai/marked.ts"
import type { Answer, LanguageModelFace, Part, Request } from "./LanguageModelFace.ts"
import * as Origin from "./Origin.ts"
import {
  fromParts,
  fromPlan,
  namesOf,
  need,
  type Opened,
  peek,
  planOf,
  type Provider,
  within,
} from "./internal/provider.ts"

/** The longest id of a tool call that every dialect accepts. */
export const maxToolIdLength = 40

const acceptedEverywhere = new RegExp(`^[a-zA-Z0-9_-]{1,${maxToolIdLength}}$`)

const derived = (id: string): string => {
  const digits = (salt: string): string => (Hash.string(`${salt}${id}`) >>> 0).toString(36)
  return `call_${digits("a")}${digits("b")}`
}

/** The ids of the tool calls of one request. */
class ToolIds {
  private readonly taken: Set<string>
  private readonly current = new Map<string, string>()

  /** `own` are the ids of calls that stay as they are. */
  constructor(own: ReadonlySet<string>) {
    this.taken = new Set(own)
  }

  own(id: string): string {
    this.current.set(id, id)
    return id
  }

  call(id: string): string {
    let accepted = acceptedEverywhere.test(id) ? id : derived(id)
    for (let n = 2; this.taken.has(accepted); n++) accepted = derived(`${n} ${id}`)
    this.taken.add(accepted)
    this.current.set(id, accepted)
    return accepted
  }

  /** The id of what belongs to a call: that of the last call with this id. */
  of(id: string): string {
    return this.current.get(id) ?? this.call(id)
  }
}

/** Did somebody else make this part? Of what nobody marked, nobody says so. */
const isForeign = (part: Prompt.Part, to: Origin.Origin): boolean => {
  const origin = Origin.of(part)
  return origin !== undefined && !Origin.same(origin, to)
}

const isOwn = (part: Prompt.Part, to: Origin.Origin): boolean => {
  const origin = Origin.of(part)
  return origin !== undefined && Origin.same(origin, to)
}

/** The ids of the calls that they made. */
const ownCalls = (prompt: Prompt.Prompt, to: Origin.Origin): ReadonlySet<string> => {
  const ids = new Set<string>()
  for (const message of prompt.content) {
    if (message.role !== "assistant") continue
    for (const part of message.content) if (part.type === "tool-call" && isOwn(part, to)) ids.add(part.id)
  }
  return ids
}

/** One request on its way to one provider. */
class Customs {
  private readonly to: Origin.Origin
  private readonly ids: ToolIds
  /** Calls of tools that somebody else ran on its side. */
  private readonly dropped = new Set<string>()

  constructor(prompt: Prompt.Prompt, to: Origin.Origin) {
    this.to = to
    this.ids = new ToolIds(ownCalls(prompt, to))
  }

  prompt(prompt: Prompt.Prompt): Prompt.Prompt {
    const messages = prompt.content.flatMap((message) => this.message(message))
    return messages.length === prompt.content.length && messages.every((message, i) => message === prompt.content[i])
      ? prompt
      : Prompt.fromMessages(messages)
  }

  private message(message: Prompt.Message): ReadonlyArray<Prompt.Message> {
    switch (message.role) {
      case "system":
      case "user":
        return [message]
      case "assistant": {
        const content = message.content.flatMap((part) => this.assistant(part))
        return rebuilt(message, content, () => Prompt.assistantMessage({ content, options: message.options }))
      }
      case "tool": {
        const content = message.content.map((part) =>
          part.type === "tool-result" ? withId(part, this.ids.of(part.id)) : part,
        )
        return rebuilt(message, content, () => Prompt.toolMessage({ content, options: message.options }))
      }
    }
  }

  private assistant(part: Prompt.AssistantMessagePart): ReadonlyArray<Prompt.AssistantMessagePart> {
    const foreign = isForeign(part, this.to)
    switch (part.type) {
      case "text":
      case "file":
        return [foreign ? { ...part, options: {} } : part]
      case "reasoning":
        return foreign ? [] : [part]
      case "tool-call": {
        if (foreign && part.providerExecuted) {
          this.dropped.add(part.id)
          return []
        }
        if (isOwn(part, this.to)) {
          this.ids.own(part.id)
          return [part]
        }
        const call = withId(part, this.ids.call(part.id))
        return [foreign ? { ...call, options: {} } : call]
      }
      case "tool-result": {
        if (this.dropped.delete(part.id) || (foreign && part.providerExecuted)) return []
        return [withId(part, this.ids.of(part.id))]
      }
      case "tool-approval-request": {
        const toolCallId = this.ids.of(part.toolCallId)
        return [toolCallId === part.toolCallId ? part : { ...part, toolCallId }]
      }
    }
  }
}

const withId = <P extends { readonly id: string }>(part: P, id: string): P => (part.id === id ? part : { ...part, id })

/** The message itself when nothing changed, and none when nothing is left of it. */
const rebuilt = <M extends Prompt.AssistantMessage | Prompt.ToolMessage>(
  message: M,
  content: ReadonlyArray<unknown>,
  make: () => M,
): ReadonlyArray<M> => {
  if (content.length === message.content.length && content.every((part, i) => part === message.content[i])) {
    return [message]
  }
  return content.length === 0 ? [] : [make()]
}

/** Is the last answer of this prompt by them? */
const lastAnswerIsOf = (prompt: Prompt.Prompt, to: Origin.Origin): boolean => {
  const last = prompt.content.findLast((message) => message.role === "assistant")
  return last !== undefined && last.content.some((part) => isOwn(part, to))
}

/**
 * A request as this provider accepts it: without what only somebody else
 * understands. The same request when there is nothing to take out.
 */
export const portable = (request: Request, to: Origin.Origin): Request => {
  const customs = new Customs(request.prompt, to)
  const prompt = customs.prompt(request.prompt)
  const { incrementalPrompt, previousResponseId } = request
  if (incrementalPrompt === undefined && previousResponseId === undefined) {
    return prompt === request.prompt ? request : { ...request, prompt }
  }
  return lastAnswerIsOf(request.prompt, to)
    ? {
        ...request,
        prompt,
        incrementalPrompt: incrementalPrompt === undefined ? undefined : customs.prompt(incrementalPrompt),
      }
    : { ...request, prompt, incrementalPrompt: undefined, previousResponseId: undefined }
}

/**
 * The same provider, which accepts every history and marks what it gives out.
 *
 * Adds and removes no failure.
 */
export const guard = <E, R>(self: Provider<LanguageModelFace, E, R>): Provider<LanguageModelFace, E, R> => {
  const origin: Origin.Origin = { provider: self.name, model: self.model }
  const whole = (answer: Answer): Answer => markBeginning(answer, origin)
  const begun = (opened: Opened<Part>): Opened<Part> => ({
    ...opened,
    head: markBeginning(opened.head, origin),
    rest: Effect.map(opened.rest, (parts) => markAll(parts, origin)),
  })
  const plan = planOf(self)
  if (plan !== undefined) {
    return fromPlan<LanguageModelFace, E, R>(
      {
        ...plan,
        generate: (request) => Effect.map(plan.generate(portable(request, origin)), whole),
        open: (request, scope) => Effect.map(plan.open(portable(request, origin), scope), begun),
      },
      (context, record, now) => peek(self, context, record, now),
    )
  }
  return fromParts({
    name: self.name,
    model: self.model,
    face: self.face,
    generate: (request) => Effect.map(self.generate(portable(request, origin)), whole),
    open: (request, scope) => Effect.map(self.open(portable(request, origin), scope), begun),
    inside: namesOf(self),
    peek: (context, record, now) => peek(self, context, record, now),
    need: (kind) => need(self, kind),
    within: (record) => within(self, record),
    inner: [self],
  })
}
