/**
 * The face of language models: the raw hooks of `effect/ai`.
 *
 * A request is what `LanguageModel.make` hands to a provider's hooks, an answer
 * is a list of encoded response parts, and a stream is made of encoded stream
 * parts. Everything above (decoding, tool handlers, structured output) stays
 * with `effect/ai`, outside every policy.
 *
 * **Details**
 *
 * - Content is text, reasoning, tool calls, files and sources. Response
 *   metadata and the `-start` of a block are preamble.
 * - The end marker is the `finish` part.
 * - A finish reason of `content-filter` is `ContentFiltered`, and `error` is
 *   `ProviderUnavailable`: in an answer and before the commit point as
 *   themselves, after it inside `StreamInterrupted`. `length` is an answer.
 */
import type * as LanguageModel from "effect/ai/LanguageModel"
import * as Prompt from "effect/ai/Prompt"
import type * as Response from "effect/ai/Response"
import * as Context from "effect/Context"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"
import type { Face, Inspector, Subject } from "./Face.ts"
import { Verdict } from "./Face.ts"
import { type Told, tokensOf } from "./internal/events/told.ts"
import type { Delivered, ProviderFailure } from "./internal/llmError.ts"
import {
  ContentFiltered,
  InvalidResponse,
  isLlmError,
  maxDeliveredText,
  ProviderUnavailable,
  UnknownFailure,
  withEvidence,
} from "./internal/llmError.ts"

/** What a language model is asked. */
export interface Request extends LanguageModel.ProviderOptions {}
/** What it answers. */
export type Answer = ReadonlyArray<Response.PartEncoded>
/** The failures that answers and parts can hide. */
export type Hidden = ProviderFailure
/** What its stream is made of. */
export type Part = Response.StreamPartEncoded

/** The face of language models. */
export interface LanguageModelFace extends Face<Request, Answer, Part, Hidden> {}

const failureOfFinish = (reason: string, subject: Subject): ProviderFailure | undefined => {
  switch (reason) {
    case "content-filter":
      return new ContentFiltered({ ...subject, stage: "answer" })
    case "error":
      return new ProviderUnavailable({ ...subject, detail: "It ended the answer with an error." })
    default:
      return undefined
  }
}

const failureOfErrorPart = (error: unknown, subject: Subject): ProviderFailure => {
  if (isLlmError(error)) {
    switch (error._tag) {
      case "DeadlineExceeded":
      case "CircuitOpen":
      case "CapacityExceeded":
      case "AllProvidersFailed":
        break
      default:
        return error
    }
  }
  return withEvidence(new UnknownFailure({ ...subject, detail: "It sent an error inside the stream." }), {
    cause: error,
  })
}

const judge = (answer: Answer, subject: Subject): ProviderFailure | undefined => {
  let content = false
  let finished = false
  for (const part of answer) {
    if (part.type === "finish") {
      finished = true
      const failure = failureOfFinish(part.reason, subject)
      if (failure !== undefined) return failure
    } else if (part.type !== "response-metadata") {
      content = true
    }
  }
  return content || finished
    ? undefined
    : new InvalidResponse({ ...subject, kind: "protocol", detail: "The answer is empty." })
}

/** What the parts that tell it say: the model that answered, and the end. */
const toldOf = (
  metadata: Response.ResponseMetadataPartEncoded | undefined,
  finish: Response.FinishPartEncoded | undefined,
): Told => ({
  model: metadata?.modelId,
  ...(finish === undefined ? {} : { usage: tokensOf(finish.usage), finish: finish.reason }),
})

const told = (answer: Answer): Told =>
  toldOf(
    answer.findLast((part) => part.type === "response-metadata"),
    answer.findLast((part) => part.type === "finish"),
  )

/** About so many UTF-16 units make a token, in prose and in code of most languages. */
const unitsPerToken = 4

const inspect = (subject: Subject): Inspector<Part, Hidden> => {
  let metadata: Response.ResponseMetadataPartEncoded | undefined
  let finish: Response.FinishPartEncoded | undefined
  let parts = 0
  let characters = 0
  let units = 0
  let text = ""
  let inside: Delivered["inside"] = "nothing"
  return {
    verdict: (part) => {
      switch (part.type) {
        case "text-delta":
          parts++
          characters += part.delta.length
          units += part.delta.length
          if (text.length < maxDeliveredText) text += part.delta
          inside = "text"
          return part.delta === "" ? Verdict.preamble : Verdict.content
        case "reasoning-delta":
          parts++
          units += part.delta.length
          inside = "reasoning"
          return part.delta === "" ? Verdict.preamble : Verdict.content
        case "tool-params-start":
        case "tool-params-delta":
          parts++
          if (part.type === "tool-params-delta") units += part.delta.length
          inside = "tool call"
          return Verdict.content
        case "response-metadata":
          parts++
          metadata = part
          return Verdict.preamble
        case "text-start":
        case "reasoning-start":
          parts++
          return Verdict.preamble
        case "text-end":
        case "reasoning-end":
        case "tool-params-end":
          parts++
          inside = "nothing"
          return Verdict.preamble
        case "finish":
          parts++
          finish = part
          return part.reason === "content-filter" || part.reason === "error" ? Verdict.failure : Verdict.end
        case "error":
          return Verdict.failure
        default:
          parts++
          inside = "nothing"
          return Verdict.content
      }
    },
    failure: (part) =>
      (part.type === "finish" ? failureOfFinish(part.reason, subject) : undefined) ??
      failureOfErrorPart(part.type === "error" ? part.error : part, subject),
    delivered: () => ({ parts, characters, inside, estimatedTokens: Math.ceil(units / unitsPerToken) }),
    text: () => text,
    told: () => toldOf(metadata, finish),
  }
}

/** The text of an answer: its text parts, joined. */
export const text = (answer: Answer): string => {
  let out = ""
  for (const part of answer) if (part.type === "text") out += part.text
  return out
}

/**
 * A request made by hand, for those who ask a provider without `effect/ai`'s
 * `LanguageModel` in between.
 *
 * **Example** (A plain question)
 *
 * ```ts
 * import { LanguageModelFace } from "@understudy/core"
 *
 * export const request = LanguageModelFace.request("Who wrote Dune?")
 * ```
 */
export const request = (
  prompt: Prompt.RawInput,
  options: Partial<Pick<Request, "tools" | "toolChoice" | "responseFormat">> = {},
): Request => ({
  prompt: Prompt.make(prompt),
  tools: options.tools ?? [],
  toolChoice: options.toolChoice ?? (options.tools === undefined ? "none" : "auto"),
  responseFormat: options.responseFormat ?? { type: "text" },
  span: new Tracer.NativeSpan({
    name: "understudy.request",
    parent: Option.none(),
    annotations: Context.empty(),
    links: [],
    startTime: 0n,
    kind: "client",
    sampled: false,
  }),
  previousResponseId: undefined,
  incrementalPrompt: undefined,
})

/** A whole answer as the parts of a stream. */
export const streamed = (answer: Answer): ReadonlyArray<Part> =>
  answer.flatMap((part, index): ReadonlyArray<Part> => {
    const id = `${part.type}-${index}`
    switch (part.type) {
      case "text":
        return [
          { type: "text-start", id, ...(part.metadata === undefined ? {} : { metadata: part.metadata }) },
          { type: "text-delta", id, delta: part.text },
          { type: "text-end", id },
        ]
      case "reasoning":
        return [
          { type: "reasoning-start", id, ...(part.metadata === undefined ? {} : { metadata: part.metadata }) },
          { type: "reasoning-delta", id, delta: part.text },
          { type: "reasoning-end", id },
        ]
      default:
        return [part]
    }
  })

/** The parts of a whole stream as an answer: deltas are joined, each block where it began. */
export const collected = (parts: Iterable<Part>): Answer => {
  const out: Array<Answer[number] | Block> = []
  const open = new Map<string, Block>()
  for (const part of parts) {
    switch (part.type) {
      case "text-start":
      case "reasoning-start": {
        const block = new Block(part.type === "text-start" ? "text" : "reasoning", part.metadata)
        open.set(`${block.type} ${part.id}`, block)
        out.push(block)
        break
      }
      case "text-delta":
      case "text-end":
        open.get(`text ${part.id}`)?.hear(part)
        break
      case "reasoning-delta":
      case "reasoning-end":
        open.get(`reasoning ${part.id}`)?.hear(part)
        break
      case "tool-params-start":
      case "tool-params-delta":
      case "tool-params-end":
      case "error":
        break
      default:
        out.push(part)
    }
  }
  return out.map((part) => (part instanceof Block ? part.whole() : part))
}

/** A block of text or reasoning while its deltas come. Signatures come with any of them. */
class Block {
  readonly type: "text" | "reasoning"
  private metadata: Response.ProviderMetadata | undefined
  private text = ""

  constructor(type: "text" | "reasoning", metadata: Response.ProviderMetadata | undefined) {
    this.type = type
    this.metadata = metadata
  }

  hear(part: { readonly delta?: string; readonly metadata?: Response.ProviderMetadata | undefined }): void {
    if (part.delta !== undefined) this.text += part.delta
    if (part.metadata !== undefined) this.metadata = { ...this.metadata, ...part.metadata }
  }

  whole(): Answer[number] {
    const { metadata, text, type } = this
    return metadata === undefined ? { type, text } : { type, text, metadata }
  }
}

/** The text of a part of a stream: that of a text delta, else nothing. */
export const partText = (part: Part): string => (part.type === "text-delta" ? part.delta : "")

/** The face of language models. */
export const languageModelFace: LanguageModelFace = {
  name: "language model",
  endMarker: true,
  judge,
  inspect,
  text,
  partText,
  told,
}
