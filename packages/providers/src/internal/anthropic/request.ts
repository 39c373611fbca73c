/** The body of a messages request. */
import type * as Call from "@understudy/core/Call"
import type * as LanguageModelFace from "@understudy/core/LanguageModelFace"
import * as AnthropicStructuredOutput from "effect/ai/AnthropicStructuredOutput"
import type * as Prompt from "effect/ai/Prompt"
import * as Tool from "effect/ai/Tool"
import { isObject, present, text } from "../json.ts"
import type { Obj } from "../json.ts"
import * as Media from "../media.ts"
import * as Structured from "../structured.ts"
import { ToolIds } from "../toolIds.ts"
import { Unsupported } from "../unsupported.ts"

/** What a request is built from, besides what is asked. */
export interface Context {
  readonly model: string
  readonly parameters: Call.Parameters
  /** How an answer that fits a schema is asked for. */
  readonly structuredOutput: "native" | "tool"
  /** `max_tokens`, where nobody sets it. */
  readonly maxTokens: number
  /** Marks reasoning as this candidate's own. */
  readonly origin: string
  readonly stream: boolean
}

type Block = Record<string, unknown>

/** The format of the answer, where one was asked for. */
export const formatOf = (request: LanguageModelFace.Request, context: Context): Structured.Format | undefined => {
  const { responseFormat } = request
  if (responseFormat.type === "text") return undefined
  // The parts of a stream go out as they come, so nothing could be brought back from a strict form.
  return context.structuredOutput === "native" && !context.stream
    ? Structured.strict(responseFormat, AnthropicStructuredOutput.toCodecAnthropic)
    : Structured.plain(responseFormat)
}

/** The body of a request, as an object. */
export const body = (
  request: LanguageModelFace.Request,
  format: Structured.Format | undefined,
  context: Context,
): Record<string, unknown> => {
  const { model, parameters, stream, structuredOutput } = context
  const callable = Structured.callable(request).map(toolOf)
  const asTool = format !== undefined && structuredOutput === "tool"
  const tools = asTool ? [formatTool(format)] : callable
  const known = knows(model)
  const effort = known.effort ? efforts[parameters.reasoningEffort ?? ""] : undefined
  const outputConfig = present({
    effort,
    format: format === undefined || asTool ? undefined : { type: "json_schema", schema: format.schema },
  })
  const stop = parameters.stop?.filter((sequence) => sequence.trim() !== "") ?? []
  const { messages, system } = messagesOf(request.prompt, context)
  return {
    ...present({
      model,
      max_tokens: parameters.maxTokens ?? context.maxTokens,
      system: system.length === 0 ? undefined : system,
      messages,
      temperature: known.sampling ? clamp(parameters.temperature) : undefined,
      top_p: known.sampling ? parameters.topP : undefined,
      stop_sequences: stop.length === 0 ? undefined : stop,
      output_config: Object.keys(outputConfig).length === 0 ? undefined : outputConfig,
      tools: tools.length === 0 ? undefined : tools,
      tool_choice: asTool
        ? { type: "tool", name: format.name }
        : tools.length === 0
          ? undefined
          : toolChoiceOf(request.toolChoice),
    }),
    ...parameters.extra,
    ...(stream ? { stream: true } : {}),
  }
}

// ---------------------------------------------------------------------------
// Parameters
// ---------------------------------------------------------------------------

/**
 * Which parameters a model knows. Sampling parameters ended with Opus 4.7 and
 * Sonnet 5; effort began with Opus 4.5. A model of another name is trusted with
 * both, unless it is a Claude of the later families.
 */
const knows = (model: string): { readonly sampling: boolean; readonly effort: boolean } => {
  if (!model.includes("claude")) return { sampling: true, effort: true }
  const [, family, major, minor] = /claude-(?:([a-z]+)-)?(\d{1,2})(?!\d)(?:[-.](\d{1,2})(?!\d))?/.exec(model) ?? []
  if (major === undefined || (family !== undefined && !["opus", "sonnet", "haiku"].includes(family))) {
    return { sampling: false, effort: true }
  }
  const version = Number(major) + Number(minor ?? 0) / 100
  return { sampling: version < 4.07, effort: version >= 4.06 || (family === "opus" && version >= 4.05) }
}

const efforts: Readonly<Record<string, string>> = {
  minimal: "low",
  low: "low",
  medium: "medium",
  high: "high",
  xhigh: "xhigh",
  max: "max",
}

// Here 1 is the most, where others allow 2.
const clamp = (temperature: number | undefined): number | undefined =>
  temperature === undefined ? undefined : Math.min(1, Math.max(0, temperature))

const toolOf = (tool: Tool.Any) =>
  present({
    name: tool.name,
    description: Tool.getDescription(tool),
    input_schema: Structured.parametersOf(tool),
    strict: Tool.getStrictMode(tool),
  })

const formatTool = ({ name, schema }: Structured.Format) => ({
  name,
  description: "Gives the answer in the form that was asked for.",
  input_schema: schema,
})

const toolChoiceOf = (choice: LanguageModelFace.Request["toolChoice"]): Block => {
  if (choice === "required") return { type: "any" }
  if (typeof choice === "string") return { type: choice }
  if ("tool" in choice) return { type: "tool", name: choice.tool }
  // The other tools are not in the list at all.
  return { type: choice.mode === "required" ? "any" : "auto" }
}

// ---------------------------------------------------------------------------
// Messages
// ---------------------------------------------------------------------------

interface Message {
  readonly role: "user" | "assistant"
  readonly content: Array<Block>
}

/** The provider's own options of a part or message. */
const own = ({ options }: { readonly options: Prompt.ProviderOptions }): Obj => {
  const { anthropic } = options
  return isObject(anthropic) ? anthropic : {}
}

/** `cache_control`, as `options: { anthropic: { cacheControl: … } }` says it. */
const cached = (...of: ReadonlyArray<{ readonly options: Prompt.ProviderOptions }>): Block => {
  const control = of.map((part) => own(part)["cacheControl"]).find(isObject)
  return control === undefined ? {} : { cache_control: control }
}

const isBlank = (text: string): boolean => text.trim() === ""

const messagesOf = (prompt: Prompt.Prompt, { origin }: Context): { system: Array<Block>; messages: Array<Message> } => {
  const ids = new ToolIds({ valid: /^[a-zA-Z0-9_-]{1,64}$/, length: 24 })
  const system: Array<Block> = []
  const messages: Array<Message> = []

  // Turns alternate: what follows in the same role belongs to the same message.
  const add = (role: Message["role"], blocks: Array<Block>): void => {
    if (blocks.length === 0) return
    const last = messages.at(-1)
    if (last?.role === role) last.content.push(...blocks)
    else messages.push({ role, content: blocks })
  }

  for (const message of prompt.content) {
    // The options of a message hold for its last part.
    const ofLast = (index: number) => (index === message.content.length - 1 ? [message] : [])
    switch (message.role) {
      case "system":
        if (!isBlank(message.content)) system.push({ type: "text", text: message.content, ...cached(message) })
        break
      case "user":
        add(
          "user",
          message.content.flatMap((part, index) => {
            if (part.type === "text" && isBlank(part.text)) return []
            return [{ ...userBlock(part), ...cached(part, ...ofLast(index)) }]
          }),
        )
        break
      case "assistant":
        add(
          "assistant",
          message.content.flatMap((part, index) => {
            const block = assistantBlock(part, ids, origin)
            if (block === undefined) return []
            return [part.type === "reasoning" ? block : { ...block, ...cached(part, ...ofLast(index)) }]
          }),
        )
        break
      case "tool":
        add(
          "user",
          message.content.flatMap((part, index) =>
            part.type !== "tool-result" || part.providerExecuted
              ? []
              : [{ ...resultBlock(part, ids), ...cached(part, ...ofLast(index)) }],
          ),
        )
        break
    }
  }
  const last = messages.at(-1)
  const ending = last?.role === "assistant" ? last.content.at(-1) : undefined
  // An answer to be continued may not end in white space.
  if (ending?.["type"] === "text") ending["text"] = String(ending["text"]).trimEnd()
  return { system, messages }
}

const userBlock = (part: Prompt.UserMessagePart): Block =>
  part.type === "text" ? { type: "text", text: part.text } : fileBlock(part)

const images = new Set(["image/jpeg", "image/png", "image/gif", "image/webp"])

const fileBlock = (part: Prompt.FilePart): Block => {
  const media = Media.read(part)
  const source =
    media.kind === "address"
      ? { type: "url", url: media.url }
      : { type: "base64", media_type: media.type === "image/jpg" ? "image/jpeg" : media.type, data: media.base64 }
  if (media.type.startsWith("image/")) {
    if (media.kind === "content" && !images.has(String(source.media_type))) {
      throw new Unsupported(`It takes no images of ${Media.shownType(media.type)}.`)
    }
    return { type: "image", source }
  }
  if (media.type === "application/pdf") {
    return present({ type: "document", source, title: part.fileName })
  }
  if (Media.isText(media.type)) return { type: "text", text: Media.toText(media) }
  throw new Unsupported(`It takes no files of ${Media.shownType(media.type)}.`)
}

const assistantBlock = (part: Prompt.AssistantMessagePart, ids: ToolIds, origin: string): Block | undefined => {
  switch (part.type) {
    case "text":
      return isBlank(part.text) ? undefined : { type: "text", text: part.text }
    case "file":
      return { type: "text", text: `[${Media.shownType(part.mediaType)} omitted]` }
    case "reasoning": {
      // A signature is good for the model that gave it, and reasoning without one is refused.
      const { origin: from, redactedData, signature } = own(part)
      if (from !== origin) return undefined
      if (text(redactedData) !== undefined) return { type: "redacted_thinking", data: redactedData }
      return text(signature) === undefined ? undefined : { type: "thinking", thinking: part.text, signature }
    }
    case "tool-call":
      return part.providerExecuted
        ? undefined
        : { type: "tool_use", id: ids.call(part.id), name: part.name, input: isObject(part.params) ? part.params : {} }
    default:
      return undefined
  }
}

const resultBlock = (part: Prompt.ToolResultPart, ids: ToolIds): Block => {
  const { isFailure, modelOutput, result } = part
  const content =
    modelOutput !== undefined
      ? modelOutput.filter((output) => output.type !== "text" || !isBlank(output.text)).map(userBlock)
      : typeof result === "string"
        ? result
        : (JSON.stringify(result) ?? "")
  return { type: "tool_result", tool_use_id: ids.result(part.id), content, ...(isFailure ? { is_error: true } : {}) }
}
