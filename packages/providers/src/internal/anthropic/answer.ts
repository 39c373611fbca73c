/** Messages, whole and in events, as response parts. */
import type * as Classifier from "@understudy/core/Classifier"
import * as LanguageModelFace from "@understudy/core/LanguageModelFace"
import type { ProviderFailure } from "@understudy/core/LlmError"
import type * as Response from "effect/ai/Response"
import * as Asked from "../asked.ts"
import { count, isObject, isSet, list, object, parse, present, text } from "../json.ts"
import type { Obj } from "../json.ts"
import * as Parts from "../parts.ts"
import type { Event } from "../sse.ts"
import type * as Wire from "../wire.ts"

/** What an answer is read with. */
export interface Context {
  readonly attempt: Wire.Attempt
  /** Marks reasoning as this candidate's own. */
  readonly origin: string
  /** From the provider's JSON to plain JSON, where the answer was asked for in a form. */
  readonly recode: (text: string) => string
  /** The tool whose input is the answer, where one is forced for structured output. */
  readonly formatTool: string | undefined
}

type Part = LanguageModelFace.Part

// ---------------------------------------------------------------------------
// Fields
// ---------------------------------------------------------------------------

const reasons: Readonly<Record<string, Response.FinishReason>> = {
  end_turn: "stop",
  stop_sequence: "stop",
  max_tokens: "length",
  tool_use: "tool-calls",
  pause_turn: "pause",
}

const reasonOf = (said: string | undefined, formatted: boolean): Response.FinishReason => {
  const reason = said === undefined ? "unknown" : (reasons[said] ?? "other")
  return formatted && reason === "tool-calls" ? "stop" : reason
}

const usageOf = (usage: Obj): typeof Response.Usage.Encoded => {
  const uncached = count(usage["input_tokens"])
  const cacheRead = count(usage["cache_read_input_tokens"])
  const cacheWrite = count(usage["cache_creation_input_tokens"])
  const output = count(usage["output_tokens"])
  const reasoning = count(object(usage["output_tokens_details"])["thinking_tokens"])
  return Parts.usage({
    // What is called the input here is without the cache.
    input: uncached === undefined ? undefined : uncached + (cacheRead ?? 0) + (cacheWrite ?? 0),
    uncached,
    cacheRead,
    cacheWrite,
    output,
    reasoning,
    text: reasoning === undefined ? undefined : Parts.minus(output, reasoning),
  })
}

const metadataOf = (message: Obj, { now }: Wire.Attempt) =>
  Parts.metadata({ id: text(message["id"]), modelId: text(message["model"]), millis: now })

const thinkingMetadata = (block: Obj, origin: string) => {
  const { data, signature } = block
  return {
    anthropic: {
      origin,
      ...(typeof signature === "string" && signature !== "" ? { signature } : {}),
      ...(typeof data === "string" ? { redactedData: data } : {}),
    },
  }
}

// ---------------------------------------------------------------------------
// Whole answers
// ---------------------------------------------------------------------------

/** The parts of a whole answer, or the failure that it is. */
export const parts = (context: Context, value: unknown): ReadonlyArray<Response.PartEncoded> | ProviderFailure => {
  const { attempt, formatTool, origin, recode } = context
  const message = object(value)
  if (!Array.isArray(message["content"])) return noContent(attempt)
  const out: Array<Response.PartEncoded> = [metadataOf(message, attempt)]
  let formatted = false
  for (const block of list(message["content"]).filter(isObject)) {
    switch (block["type"]) {
      case "text": {
        const said = text(block["text"])
        if (said !== undefined) out.push({ type: "text", text: recode(said) })
        break
      }
      case "thinking":
      case "redacted_thinking":
        out.push({ type: "reasoning", text: text(block["thinking"]) ?? "", metadata: thinkingMetadata(block, origin) })
        break
      case "tool_use": {
        const name = text(block["name"])
        const id = text(block["id"])
        if (name === undefined || id === undefined) {
          return Asked.invalid(attempt, "content", "It calls a tool without a name or an id.")
        }
        const { input } = block
        const params = Parts.params(attempt, JSON.stringify(input ?? {}), message["stop_reason"] === "max_tokens")
        if (Parts.isFailure(params)) return params
        if (name === formatTool) {
          formatted = true
          out.push({ type: "text", text: JSON.stringify(params.value) })
        } else out.push({ type: "tool-call", id, name, params: params.value })
        break
      }
      default:
        break
    }
  }
  const reason = reasonOf(text(message["stop_reason"]), formatted)
  if (list(message["content"]).length === 0 && isEnd(reason)) return noContent(attempt)
  out.push({ type: "finish", reason, usage: usageOf(object(message["usage"])) })
  return out
}

// Known to happen after the results of tools. An answer that was cut or paused may be empty.
const isEnd = (reason: Response.FinishReason): boolean => reason === "stop" || reason === "unknown"

const noContent = (attempt: Wire.Attempt) => Asked.invalid(attempt, "protocol", "It holds no content at all.")

// ---------------------------------------------------------------------------
// Events
// ---------------------------------------------------------------------------

type Block =
  | { readonly kind: "text"; readonly id: string }
  | { readonly kind: "reasoning"; readonly id: string; metadata: Obj }
  | { readonly kind: "format"; readonly id: string; initial: string; json: boolean }
  | { readonly kind: "tool"; readonly id: string; readonly name: string; initial: string; json: string }

const eventNames = new Set([
  "message",
  "message_start",
  "content_block_start",
  "content_block_delta",
  "content_block_stop",
  "message_delta",
  "message_stop",
  "error",
])

/** Reads the events of one stream. */
export class Decoder implements Wire.Decoder {
  private readonly context: Context
  private readonly headers: Classifier.SignalHeaders
  private readonly blocks = new Map<number, Block>()
  private usage: Obj = {}
  private stopReason: string | undefined = undefined
  private formatted = false
  private begun = false
  private done = false

  constructor(context: Context, headers: Classifier.SignalHeaders) {
    this.context = context
    this.headers = headers
  }

  complete(): boolean {
    return this.done
  }

  closed(): boolean {
    return this.done
  }

  whole(value: unknown): ReadonlyArray<Part> | ProviderFailure {
    const answer = parts(this.context, value)
    return Parts.isFailure(answer) ? answer : LanguageModelFace.streamed(answer)
  }

  end(): ProviderFailure | undefined {
    // Without `message_stop` the answer is not whole: no finish part tells so.
    return undefined
  }

  event({ data, last, name }: Event, out: Array<Part>): ProviderFailure | undefined {
    const { attempt } = this.context
    if (name !== undefined && !eventNames.has(name)) return undefined
    const value = parse(data)
    if (name === "error" || (isObject(value) && (value["type"] === "error" || isSet(value["error"])))) {
      return attempt.classifier.classify(
        {
          where: "sse-event",
          headers: this.headers,
          body: Asked.scrubbed(attempt, data),
          ...present({ event: name }),
        },
        attempt.subject,
      )
    }
    if (value === undefined) {
      // The last event may be cut.
      return last ? undefined : Asked.invalid(attempt, "protocol", "An event of its stream is not JSON.", data)
    }
    return isObject(value) ? this.read(value, out) : undefined
  }

  private read(value: Obj, out: Array<Part>): ProviderFailure | undefined {
    const { attempt } = this.context
    const index = count(value["index"]) ?? 0
    switch (value["type"]) {
      case "message_start": {
        const message = object(value["message"])
        this.addUsage(message["usage"])
        out.push(metadataOf(message, attempt))
        return undefined
      }
      case "content_block_start":
        return this.start(index, object(value["content_block"]), out)
      case "content_block_delta":
        this.delta(index, object(value["delta"]), out)
        return undefined
      case "content_block_stop":
        return this.stop(index, out)
      case "message_delta": {
        this.addUsage(value["usage"])
        this.stopReason = text(object(value["delta"])["stop_reason"]) ?? this.stopReason
        return this.stopReason === undefined
          ? undefined
          : attempt.classifier.finishReason(this.stopReason, attempt.subject)
      }
      case "message_stop": {
        for (const open of this.blocks.keys()) {
          const failure = this.stop(open, out)
          if (failure !== undefined) return failure
        }
        this.done = true
        const reason = reasonOf(this.stopReason, this.formatted)
        if (!this.begun && isEnd(reason)) return noContent(attempt)
        out.push({ type: "finish", reason, usage: usageOf(this.usage) })
        return undefined
      }
      default:
        return undefined
    }
  }

  // Counts are cumulative, and a null says nothing.
  private addUsage(usage: unknown): void {
    this.usage = { ...this.usage, ...Object.fromEntries(Object.entries(object(usage)).filter(([, n]) => n !== null)) }
  }

  private start(index: number, block: Obj, out: Array<Part>): ProviderFailure | undefined {
    const { attempt, formatTool, origin } = this.context
    this.begun = true
    switch (block["type"]) {
      case "text": {
        const id = `text-${index}`
        this.blocks.set(index, { kind: "text", id })
        out.push({ type: "text-start", id })
        const delta = text(block["text"])
        if (delta !== undefined) out.push({ type: "text-delta", id, delta })
        return undefined
      }
      case "thinking":
      case "redacted_thinking": {
        const id = `reasoning-${index}`
        this.blocks.set(index, { kind: "reasoning", id, metadata: block })
        out.push({ type: "reasoning-start", id, metadata: thinkingMetadata(block, origin) })
        const delta = text(block["thinking"])
        if (delta !== undefined) out.push({ type: "reasoning-delta", id, delta })
        return undefined
      }
      case "tool_use": {
        const name = text(block["name"])
        const id = text(block["id"])
        if (name === undefined || id === undefined) {
          return Asked.invalid(attempt, "content", "It calls a tool without a name or an id.")
        }
        // The input comes in deltas; only what is there without any stands in the block itself.
        const { input } = block
        const initial = isObject(input) && Object.keys(input).length > 0 ? JSON.stringify(input) : ""
        if (name === formatTool) {
          this.formatted = true
          this.blocks.set(index, { kind: "format", id: `text-${index}`, initial, json: false })
          out.push({ type: "text-start", id: `text-${index}` })
        } else {
          this.blocks.set(index, { kind: "tool", id, name, initial, json: "" })
          out.push({ type: "tool-params-start", id, name })
        }
        return undefined
      }
      default:
        return undefined
    }
  }

  private delta(index: number, delta: Obj, out: Array<Part>): void {
    const block = this.blocks.get(index)
    const said = text(delta["text"]) ?? text(delta["thinking"]) ?? text(delta["partial_json"])
    if (block === undefined) return
    if (block.kind === "reasoning" && delta["type"] === "signature_delta") {
      const signature = text(delta["signature"])
      if (signature !== undefined) block.metadata = { ...block.metadata, signature }
      return
    }
    if (said === undefined) return
    switch (block.kind) {
      case "text":
        if (delta["type"] === "text_delta") out.push({ type: "text-delta", id: block.id, delta: said })
        return
      case "reasoning":
        if (delta["type"] === "thinking_delta") out.push({ type: "reasoning-delta", id: block.id, delta: said })
        return
      case "format":
        block.json = true
        out.push({ type: "text-delta", id: block.id, delta: said })
        return
      case "tool":
        block.json += said
        out.push({ type: "tool-params-delta", id: block.id, delta: said })
        return
    }
  }

  private stop(index: number, out: Array<Part>): ProviderFailure | undefined {
    const { attempt, origin } = this.context
    const block = this.blocks.get(index)
    this.blocks.delete(index)
    switch (block?.kind) {
      case "text":
        out.push({ type: "text-end", id: block.id })
        return undefined
      case "reasoning":
        out.push({ type: "reasoning-end", id: block.id, metadata: thinkingMetadata(block.metadata, origin) })
        return undefined
      case "format":
        if (!block.json && block.initial !== "") out.push({ type: "text-delta", id: block.id, delta: block.initial })
        out.push({ type: "text-end", id: block.id })
        return undefined
      case "tool": {
        const params = Parts.params(
          attempt,
          block.json === "" ? block.initial : block.json,
          this.stopReason === "max_tokens",
        )
        if (Parts.isFailure(params)) return params
        const { id, name } = block
        out.push({ type: "tool-params-end", id }, { type: "tool-call", id, name, params: params.value })
        return undefined
      }
      default:
        return undefined
    }
  }
}
