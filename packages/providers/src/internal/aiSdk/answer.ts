/** Answers of AI SDK models, whole and in parts, as response parts. Read leniently, in the forms of all versions. */
import type * as Classifier from "@understudy/core/Classifier"
import type * as LanguageModelFace from "@understudy/core/LanguageModelFace"
import type { ProviderFailure } from "@understudy/core/LlmError"
import type * as Response from "effect/ai/Response"
import * as Base64 from "effect/encoding/Base64"
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import * as Asked from "../asked.ts"
import { count, isObject, list, object, present, text } from "../json.ts"
import type { Obj } from "../json.ts"
import * as Parts from "../parts.ts"
import * as Failure from "./failure.ts"
import { mark } from "./request.ts"

/** What an answer is read with. */
export interface Context {
  readonly asked: Asked.Asked
  /** Marks what this candidate made. */
  readonly origin: string
  /** Was JSON asked for? */
  readonly json: boolean
  /** From the provider's JSON to plain JSON, where the answer was asked for in a form. */
  readonly recode: (text: string) => string
}

type Part = LanguageModelFace.Part

// ---------------------------------------------------------------------------
// Fields
// ---------------------------------------------------------------------------

const reasons: Readonly<Record<string, Response.FinishReason>> = {
  stop: "stop",
  length: "length",
  "content-filter": "content-filter",
  "tool-calls": "tool-calls",
  error: "error",
  other: "other",
}

interface Finish {
  /** The SDK's word. */
  readonly unified: string | undefined
  /** The provider's. */
  readonly raw: string | undefined
}

/** The reason of an end: two words, or one before v3. */
const finishOf = (value: unknown): Finish =>
  typeof value === "string"
    ? { unified: value, raw: undefined }
    : { unified: text(object(value)["unified"]), raw: text(object(value)["raw"]) }

const reasonOf = ({ raw, unified }: Finish, called: boolean): Response.FinishReason => {
  // The SDK has no word for an answer that is to be continued.
  if (raw === "pause_turn") return "pause"
  const reason = reasons[unified ?? ""] ?? "unknown"
  const said = reason === "other" && raw === undefined ? "unknown" : reason
  return called && (said === "stop" || said === "unknown") ? "tool-calls" : said
}

/** Did the provider say no reason, so that the answer is not whole? */
const isCut = ({ raw, unified }: Finish): boolean =>
  unified === "interrupted" ||
  (raw === undefined && !["stop", "length", "content-filter", "tool-calls"].includes(unified ?? ""))

/** Tokens, by kind or, before v3, flat. */
const usageOf = (value: unknown): typeof Response.Usage.Encoded => {
  const usage = object(value)
  const { inputTokens, outputTokens } = usage
  if (isObject(inputTokens) || isObject(outputTokens)) {
    const input = object(inputTokens)
    const output = object(outputTokens)
    return Parts.usage({
      input: count(input["total"]),
      uncached: count(input["noCache"]),
      cacheRead: count(input["cacheRead"]),
      cacheWrite: count(input["cacheWrite"]),
      output: count(output["total"]),
      reasoning: count(output["reasoning"]),
      text: count(output["text"]),
    })
  }
  const cacheRead = count(usage["cachedInputTokens"])
  const reasoning = count(usage["reasoningTokens"])
  return Parts.usage({
    input: count(inputTokens),
    uncached: cacheRead === undefined ? undefined : Parts.minus(count(inputTokens), cacheRead),
    cacheRead,
    cacheWrite: undefined,
    output: count(outputTokens),
    reasoning,
    text: reasoning === undefined ? undefined : Parts.minus(count(outputTokens), reasoning),
  })
}

const metadataOf = (value: unknown) => {
  const { id, modelId, timestamp } = object(value)
  const millis = timestamp instanceof Date ? timestamp.getTime() : undefined
  return Parts.metadata({
    id: text(id),
    modelId: text(modelId),
    millis: millis !== undefined && Number.isFinite(millis) ? millis : undefined,
  })
}

/** What the provider wrote down about a part, as plain JSON. */
const own = (part: Obj): Record<string, Schema.Json> => {
  const { providerMetadata } = part
  if (!isObject(providerMetadata) || Object.keys(providerMetadata).length === 0) return {}
  try {
    const plain: Record<string, Schema.Json> = JSON.parse(JSON.stringify(providerMetadata))
    return plain
  } catch {
    return {}
  }
}

/** Metadata of a part that may go back to the model that made it, and to no other. */
const marked = (part: Obj, origin: string) => ({ metadata: { ...own(part), [mark]: { origin } } })

/** The same, where the provider wrote something down at all. */
const markedIf = (part: Obj, origin: string) => (Object.keys(own(part)).length === 0 ? {} : marked(part, origin))

const base64Of = (data: unknown): string | undefined => {
  const inner = isObject(data) && data["type"] === "data" ? data["data"] : data
  if (inner instanceof Uint8Array) return Base64.encode(inner)
  return typeof inner === "string" && Result.isSuccess(Base64.decode(inner)) ? inner : undefined
}

/** A file: its content, or its address as a source. */
const fileOf = (part: Obj, id: string, origin: string): ReadonlyArray<Response.PartEncoded & Part> => {
  const mediaType = text(part["mediaType"]) ?? "application/octet-stream"
  const data = base64Of(part["data"])
  if (data !== undefined) return [{ type: "file", mediaType, data, ...marked(part, origin) }]
  const { url } = object(part["data"])
  return url instanceof URL || typeof url === "string" ? sourceOf({ sourceType: "url", id, url: String(url) }) : []
}

const sourceOf = (part: Obj): ReadonlyArray<Response.PartEncoded & Part> => {
  const id = text(part["id"]) ?? "source"
  const title = text(part["title"])
  const metadata = present({ metadata: Object.keys(own(part)).length === 0 ? undefined : own(part) })
  const url = text(part["url"])
  if (part["sourceType"] === "url") {
    if (url === undefined || !URL.canParse(url)) return []
    return [{ type: "source", sourceType: "url", id, url, title: title ?? url, ...metadata }]
  }
  const mediaType = text(part["mediaType"])
  if (part["sourceType"] !== "document" || mediaType === undefined) return []
  const fileName = text(part["filename"])
  return [
    {
      type: "source",
      sourceType: "document",
      id,
      mediaType,
      title: title ?? fileName ?? mediaType,
      ...present({ fileName }),
      ...metadata,
    },
  ]
}

/** A call of a tool. Calls that the provider carries out itself are its own business. */
const callOf = (
  { asked, origin }: Context,
  part: Obj,
  index: number,
): Response.ToolCallPartEncoded | ProviderFailure | undefined => {
  if (part["providerExecuted"] === true) return undefined
  const name = text(part["toolName"])
  if (name === undefined) return Asked.invalid(asked, "content", "It calls a tool without a name.")
  const { input } = part
  const params = Parts.params(asked, typeof input === "string" ? input : JSON.stringify(input ?? {}), false)
  if (Parts.isFailure(params)) return params
  const id = text(part["toolCallId"]) ?? `call_${asked.seed}_${index}`
  return { type: "tool-call", id, name, params: params.value, ...markedIf(part, origin) }
}

const noContent = (asked: Asked.Asked) => Asked.invalid(asked, "protocol", "It holds no content at all.")

// An answer that was cut or paused may be empty.
const isEnd = (reason: Response.FinishReason): boolean =>
  reason === "stop" || reason === "unknown" || reason === "other"

/** The failure that an end is, by the provider's own word for it. */
const failureOf = ({ classifier, subject }: Asked.Asked, { raw }: Finish): ProviderFailure | undefined =>
  raw === undefined ? undefined : classifier.finishReason(raw, subject)

// ---------------------------------------------------------------------------
// Whole answers
// ---------------------------------------------------------------------------

/** The parts of a whole answer, or the failure that it is. */
export const parts = (context: Context, value: unknown): ReadonlyArray<Response.PartEncoded> | ProviderFailure => {
  const { asked, json, origin, recode } = context
  const result = object(value)
  const response = object(result["response"])
  const { body, headers } = response
  // The SDK reads some failures as answers. What the provider really said is there.
  const hidden = isObject(body) ? asked.classifier.inspectAnswer(body, asked.subject, headersOf(headers)) : undefined
  if (hidden !== undefined) return hidden
  if (!Array.isArray(result["content"])) return noContent(asked)
  const out: Array<Response.PartEncoded> = [metadataOf(response)]
  const chosen = result["structuredOutputText"]
  const instead = json && typeof chosen === "string" ? chosen : undefined
  let calls = 0
  for (const [index, part] of list(result["content"]).filter(isObject).entries()) {
    switch (part["type"]) {
      case "text": {
        const said = text(part["text"])
        if (said !== undefined && instead === undefined) {
          out.push({ type: "text", text: recode(said), ...markedIf(part, origin) })
        }
        break
      }
      case "reasoning":
        out.push({ type: "reasoning", text: text(part["text"]) ?? "", ...marked(part, origin) })
        break
      case "file":
        out.push(...fileOf(part, `file-${index}`, origin))
        break
      case "source":
        out.push(...sourceOf(part))
        break
      case "tool-call": {
        const call = callOf(context, part, index)
        if (call === undefined) break
        if (Parts.isFailure(call)) return call
        calls++
        out.push(call)
        break
      }
      default:
        break
    }
  }
  if (instead !== undefined) out.push({ type: "text", text: recode(instead) })
  const finish = finishOf(result["finishReason"])
  const failure = failureOf(asked, finish)
  if (failure !== undefined) return failure
  const reason = reasonOf(finish, calls > 0)
  if (out.length === 1 && isEnd(reason)) return noContent(asked)
  const metadata = own(result)
  out.push({ type: "finish", reason, usage: usageOf(result["usage"]), ...(isEmpty(metadata) ? {} : { metadata }) })
  return out
}

const isEmpty = (o: object): boolean => Object.keys(o).length === 0

/** Response headers, as an SDK gives them. */
export const headersOf = (headers: unknown): Classifier.SignalHeaders =>
  isObject(headers)
    ? Object.fromEntries(
        Object.entries(headers).filter((entry): entry is [string, string] => typeof entry[1] === "string"),
      )
    : {}

// ---------------------------------------------------------------------------
// Streams
// ---------------------------------------------------------------------------

/** What a stream is at a part: a failure, whole, or not yet. */
export type Outcome = ProviderFailure | "whole" | undefined

/** Reads the parts of one stream. */
export class Decoder {
  private readonly context: Context
  private readonly headers: Classifier.SignalHeaders
  /** Tools that the provider carries out itself. */
  private readonly theirs = new Set<string>()
  private calls = 0
  private content = false
  private cut = false
  private parts = 0

  constructor(context: Context, headers: Classifier.SignalHeaders) {
    this.context = context
    this.headers = headers
  }

  part(value: unknown, out: Array<Part>): Outcome {
    return isObject(value) ? this.read(value, out) : undefined
  }

  /** The stream has ended without a finish. Without a `finish` part, a provider tells so. */
  end(): ProviderFailure | undefined {
    if (this.content) return undefined
    const type = Object.entries(this.headers).find(([name]) => name.toLowerCase() === "content-type")?.[1]
    if (type === undefined || !/^(?:text\/html|application\/json)\b/i.test(type)) return undefined
    const what = /html/i.test(type) ? "a web page" : "a JSON document"
    return Asked.invalid(this.context.asked, "protocol", `It sent ${what} where a stream was asked for.`)
  }

  private read(part: Obj, out: Array<Part>): Outcome {
    const { asked, origin } = this.context
    const id = text(part["id"]) ?? ""
    const delta = typeof part["delta"] === "string" ? part["delta"] : ""
    const index = this.parts++
    switch (part["type"]) {
      case "response-metadata":
        out.push(metadataOf(part))
        return undefined
      case "text-start":
      case "text-end":
        out.push({ type: part["type"], id, ...markedIf(part, origin) })
        return undefined
      case "text-delta":
        this.content ||= delta !== ""
        out.push({ type: "text-delta", id, delta, ...markedIf(part, origin) })
        return undefined
      case "reasoning-start":
        out.push({ type: "reasoning-start", id, ...marked(part, origin) })
        return undefined
      case "reasoning-delta":
        this.content ||= delta !== ""
        out.push({ type: "reasoning-delta", id, delta, ...markedIf(part, origin) })
        return undefined
      case "reasoning-end":
        out.push({ type: "reasoning-end", id, ...markedIf(part, origin) })
        return undefined
      case "tool-input-start": {
        if (part["providerExecuted"] === true) {
          this.theirs.add(id)
          return undefined
        }
        const name = text(part["toolName"])
        if (name === undefined) return Asked.invalid(asked, "content", "It calls a tool without a name.")
        this.content = true
        out.push({ type: "tool-params-start", id, name })
        return undefined
      }
      case "tool-input-delta":
        if (!this.theirs.has(id)) out.push({ type: "tool-params-delta", id, delta })
        return undefined
      case "tool-input-end":
        if (!this.theirs.has(id)) out.push({ type: "tool-params-end", id })
        return undefined
      case "tool-call": {
        const call = callOf(this.context, part, index)
        if (call === undefined) return undefined
        if (Parts.isFailure(call)) return call
        this.calls++
        this.content = true
        out.push(call)
        return undefined
      }
      case "file":
      case "source": {
        const parts = part["type"] === "file" ? fileOf(part, `file-${index}`, origin) : sourceOf(part)
        this.content ||= parts.length > 0
        out.push(...parts)
        return undefined
      }
      case "error": {
        const failure = Failure.inStream(asked, part["error"], this.headers)
        if (failure === "ended") this.cut = true
        return typeof failure === "string" ? undefined : failure
      }
      case "finish":
        return this.finish(part, out)
      default:
        return undefined
    }
  }

  private finish(part: Obj, out: Array<Part>): Outcome {
    const { asked } = this.context
    const finish = finishOf(part["finishReason"])
    if (this.cut || isCut(finish)) return undefined
    const failure = failureOf(asked, finish)
    if (failure !== undefined) return failure
    const reason = reasonOf(finish, this.calls > 0)
    if (!this.content && isEnd(reason)) return noContent(asked)
    const metadata = own(part)
    out.push({ type: "finish", reason, usage: usageOf(part["usage"]), ...(isEmpty(metadata) ? {} : { metadata }) })
    return "whole"
  }
}
