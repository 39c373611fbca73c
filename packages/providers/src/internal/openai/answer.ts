/** Chat completions, whole and in chunks, as response parts. */
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
}

type Part = LanguageModelFace.Part

// ---------------------------------------------------------------------------
// Fields
// ---------------------------------------------------------------------------

const reasons: Readonly<Record<string, Response.FinishReason>> = {
  stop: "stop",
  eos: "stop",
  stop_sequence: "stop",
  end_turn: "stop",
  length: "length",
  max_tokens: "length",
  model_length: "length",
  tool_calls: "tool-calls",
  function_call: "tool-calls",
  tool_use: "tool-calls",
}

/** The reason of an end. Some servers say `stop` when a tool is called. */
const reasonOf = (said: string | undefined, called: boolean): Response.FinishReason => {
  const reason = said === undefined ? "unknown" : (reasons[said.toLowerCase()] ?? "other")
  return called && (reason === "stop" || reason === "unknown") ? "tool-calls" : reason
}

const usageOf = (value: unknown): typeof Response.Usage.Encoded => {
  const usage = object(value)
  const input = count(usage["prompt_tokens"])
  const output = count(usage["completion_tokens"])
  const inputDetails = object(usage["prompt_tokens_details"])
  const read = count(inputDetails["cached_tokens"]) ?? count(usage["prompt_cache_hit_tokens"])
  const reasoning = count(object(usage["completion_tokens_details"])["reasoning_tokens"])
  return Parts.usage({
    input,
    uncached: Parts.minus(input, read),
    cacheRead: read,
    cacheWrite: count(inputDetails["cache_write_tokens"]),
    output,
    reasoning,
    text: Parts.minus(output, reasoning),
  })
}

const usageIn = (value: Obj): unknown => value["usage"] ?? object(value["x_groq"])["usage"]

const metadataOf = (value: Obj) => {
  const created = count(value["created"])
  return Parts.metadata({
    id: text(value["id"]),
    modelId: text(value["model"]),
    millis: created === undefined ? undefined : created * 1000,
  })
}

/** The texts of a message or a delta: a string, or Mistral's list of text and thinking. */
const contentOf = (message: Obj): { readonly text: string; readonly reasoning: string } => {
  let out = typeof message["content"] === "string" ? message["content"] : ""
  let reasoning = text(message["reasoning_content"]) ?? text(message["reasoning"]) ?? ""
  for (const part of list(message["content"]).map(object)) {
    if (part["type"] === "text") out += text(part["text"]) ?? ""
    else if (part["type"] === "thinking") {
      const { thinking } = part
      reasoning +=
        text(thinking) ??
        list(thinking)
          .map((inner) => text(object(inner)["text"]) ?? "")
          .join("")
    }
  }
  return { text: out, reasoning }
}

const choiceOf = (value: Obj): Obj | undefined => {
  const choices = list(value["choices"]).filter(isObject)
  return choices.find((choice) => choice["index"] === 0) ?? choices[0]
}

const argumentsOf = (call: Obj): string => {
  const said = object(call["function"])["arguments"]
  return typeof said === "string" ? said : isObject(said) ? JSON.stringify(said) : ""
}

const ownReasoning = (origin: string) => ({ openai: { origin } })

// ---------------------------------------------------------------------------
// Whole answers
// ---------------------------------------------------------------------------

/** The parts of a whole answer, or the failure that it is. */
export const parts = (context: Context, value: unknown): ReadonlyArray<Response.PartEncoded> | ProviderFailure => {
  const { attempt, origin, recode } = context
  const answer = object(value)
  const choice = choiceOf(answer)
  if (choice === undefined) return Asked.invalid(attempt, "protocol", "It holds no choice at all.")
  const message = object(choice["message"])
  const finish = text(choice["finish_reason"])
  const content = contentOf(message)
  const out: Array<Response.PartEncoded> = [metadataOf(answer)]
  if (content.reasoning !== "") out.push({ type: "reasoning", text: content.reasoning, metadata: ownReasoning(origin) })
  if (content.text !== "") out.push({ type: "text", text: recode(content.text) })
  const calls = list(message["tool_calls"]).filter(isObject)
  for (const [index, call] of calls.entries()) {
    const name = text(object(call["function"])["name"])
    if (name === undefined) return Asked.invalid(attempt, "content", "It calls a tool without a name.")
    const params = Parts.params(attempt, argumentsOf(call), finish === "length")
    if (Parts.isFailure(params)) return params
    out.push({ type: "tool-call", id: text(call["id"]) ?? idOf(attempt, index), name, params: params.value })
  }
  out.push({ type: "finish", reason: reasonOf(finish, calls.length > 0), usage: usageOf(usageIn(answer)) })
  return out
}

const idOf = ({ seed }: Wire.Attempt, index: number): string => `call_${seed}_${index}`

// ---------------------------------------------------------------------------
// Chunks
// ---------------------------------------------------------------------------

interface Call {
  readonly id: string
  readonly name: string
  arguments: string
}

/** Reads the chunks of one stream. */
export class Decoder implements Wire.Decoder {
  private readonly context: Context
  private readonly headers: Classifier.SignalHeaders
  private readonly blocks = new Parts.Blocks()
  private readonly calls = new Map<string, Call>()
  private introduced = false
  private begun = false
  private finish: string | undefined = undefined
  private usage: unknown = undefined
  private done = false

  constructor(context: Context, headers: Classifier.SignalHeaders) {
    this.context = context
    this.headers = headers
  }

  complete(): boolean {
    return this.finish !== undefined
  }

  closed(): boolean {
    return this.done
  }

  whole(value: unknown): ReadonlyArray<Part> | ProviderFailure {
    const answer = parts(this.context, value)
    return Parts.isFailure(answer) ? answer : LanguageModelFace.streamed(answer)
  }

  end(out: Array<Part>): ProviderFailure | undefined {
    // Without a finish reason the answer is not whole: no finish part tells so.
    return this.finish === undefined ? undefined : this.close(out)
  }

  event({ data, last, name }: Event, out: Array<Part>): ProviderFailure | undefined {
    const { attempt } = this.context
    if (data.trim() === "[DONE]") {
      this.done = true
      return this.begun ? this.close(out) : Asked.invalid(attempt, "protocol", "Its stream ended without any choice.")
    }
    const value = parse(data)
    if (name === "error" || isErrorEvent(value)) {
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
      // The last event may be cut, and events of other names are nobody's business.
      return last || (name !== undefined && name !== "message")
        ? undefined
        : Asked.invalid(attempt, "protocol", "An event of its stream is not JSON.", data)
    }
    return isObject(value) ? this.chunk(value, out) : undefined
  }

  private chunk(value: Obj, out: Array<Part>): ProviderFailure | undefined {
    const { attempt, origin } = this.context
    const usage = usageIn(value)
    if (isObject(usage)) this.usage = usage
    const choice = choiceOf(value)
    if (choice === undefined) return undefined
    if (isSet(choice["error"])) {
      const body = Asked.scrubbed(attempt, JSON.stringify(choice))
      return attempt.classifier.classify({ where: "sse-event", headers: this.headers, body }, attempt.subject)
    }
    this.begun = true
    if (!this.introduced) {
      this.introduced = true
      out.push(metadataOf(value))
    }
    const delta = object(choice["delta"] ?? choice["message"])
    const content = contentOf(delta)
    if (content.reasoning !== "") this.blocks.delta("reasoning", content.reasoning, out, ownReasoning(origin))
    if (content.text !== "") this.blocks.delta("text", content.text, out)
    if (text(delta["refusal"]) !== undefined) return attempt.classifier.finishReason("refusal", attempt.subject)
    for (const call of list(delta["tool_calls"]).filter(isObject)) {
      const failure = this.call(call, out)
      if (failure !== undefined) return failure
    }
    const finish = text(choice["finish_reason"])
    if (finish === undefined) return undefined
    this.finish = finish
    return attempt.classifier.finishReason(finish, attempt.subject)
  }

  private call(value: Obj, out: Array<Part>): ProviderFailure | undefined {
    const { attempt } = this.context
    const id = text(value["id"])
    const index = count(value["index"])
    const name = text(object(value["function"])["name"])
    // A call is known by its index. Servers that send none, or the same for all, tell by the id.
    let key = index === undefined ? (id ?? [...this.calls.keys()].at(-1) ?? "0") : `${index}`
    const open = this.calls.get(key)
    if (open !== undefined && id !== undefined && id !== open.id && name !== undefined) key = `${key} ${id}`
    let call = this.calls.get(key)
    if (call === undefined) {
      if (name === undefined) return Asked.invalid(attempt, "content", "It calls a tool without a name.")
      this.blocks.close(out)
      call = { id: id ?? idOf(attempt, this.calls.size), name, arguments: "" }
      this.calls.set(key, call)
      out.push({ type: "tool-params-start", id: call.id, name })
    }
    const delta = argumentsOf(value)
    if (delta !== "") {
      call.arguments += delta
      out.push({ type: "tool-params-delta", id: call.id, delta })
    }
    return undefined
  }

  private close(out: Array<Part>): ProviderFailure | undefined {
    this.blocks.close(out)
    for (const { arguments: json, id, name } of this.calls.values()) {
      const params = Parts.params(this.context.attempt, json, this.finish === "length")
      if (Parts.isFailure(params)) return params
      out.push({ type: "tool-params-end", id }, { type: "tool-call", id, name, params: params.value })
    }
    out.push({ type: "finish", reason: reasonOf(this.finish, this.calls.size > 0), usage: usageOf(this.usage) })
    return undefined
  }
}

const isErrorEvent = (value: unknown): boolean =>
  isObject(value) &&
  (isSet(value["error"]) ||
    value["object"] === "error" ||
    value["type"] === "error" ||
    (!("choices" in value) && (isSet(value["detail"]) || text(value["message"]) !== undefined)))
