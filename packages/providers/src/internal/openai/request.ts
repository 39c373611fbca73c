/** The body of a chat completions request. */
import type * as Call from "@understudy/core/Call"
import type * as LanguageModelFace from "@understudy/core/LanguageModelFace"
import * as OpenAiStructuredOutput from "effect/ai/OpenAiStructuredOutput"
import * as Prompt from "effect/ai/Prompt"
import * as Tool from "effect/ai/Tool"
import type { Dialect } from "../../OpenAiDialect.ts"
import { isObject, present } from "../json.ts"
import * as Media from "../media.ts"
import * as Structured from "../structured.ts"
import { ToolIds } from "../toolIds.ts"
import { Unsupported } from "../unsupported.ts"

/** What a request is built from, besides what is asked. */
export interface Context {
  readonly dialect: Dialect
  readonly model: string
  readonly parameters: Call.Parameters
  /** Marks reasoning as this candidate's own. */
  readonly origin: string
  readonly stream: boolean
}

const idRules = {
  any: { valid: /^[\x21-\x7e]{1,40}$/, length: 24 },
  nine: { valid: /^[a-zA-Z0-9]{9}$/, length: 9 },
}

type Message = Record<string, unknown>

/** The format of the answer, where one was asked for. */
export const formatOf = (
  request: LanguageModelFace.Request,
  { dialect, stream }: Context,
): Structured.Format | undefined => {
  const { responseFormat } = request
  if (responseFormat.type === "text") return undefined
  // The parts of a stream go out as they come, so nothing could be brought back from a strict form.
  return dialect.structuredOutput === "strict" && !stream
    ? Structured.strict(responseFormat, OpenAiStructuredOutput.toCodecOpenAI)
    : Structured.plain(responseFormat)
}

/** The body of a request, as an object. */
export const body = (
  request: LanguageModelFace.Request,
  format: Structured.Format | undefined,
  context: Context,
): Record<string, unknown> => {
  const { dialect, model, parameters, stream } = context
  const tools = Structured.callable(request)
  const messages = messagesOf(request.prompt, context)
  const formatted = format === undefined ? {} : formatFields(format, dialect, messages)
  return {
    ...present({
      model,
      messages,
      ...parameterFields(parameters, dialect, model, tools.length > 0),
      tools: tools.length === 0 ? undefined : tools.map(toolOf),
      tool_choice: tools.length === 0 ? undefined : toolChoiceOf(request.toolChoice, dialect),
      ...formatted,
    }),
    ...parameters.extra,
    ...(stream ? { stream: true, ...(dialect.streamOptions ? { stream_options: { include_usage: true } } : {}) } : {}),
  }
}

// ---------------------------------------------------------------------------
// Parameters
// ---------------------------------------------------------------------------

const parameterFields = (all: Call.Parameters, dialect: Dialect, model: string, tools: boolean) => {
  const effort = all.reasoningEffort ?? (tools && dialect.toolsWithoutReasoning?.test(model) ? "none" : undefined)
  const rule = dialect.without?.find(({ models }) => models.test(model))
  const refused = rule === undefined || (rule.unlessNoReasoning === true && effort === "none") ? [] : rule.parameters
  const p: Call.Parameters = Object.fromEntries(
    Object.entries(all).filter(([name]) => !refused.some((r) => r === name)),
  )
  return {
    temperature: p.temperature,
    top_p: p.topP,
    [dialect.maxTokens]: p.maxTokens,
    stop: p.stop,
    [dialect.seed]: p.seed,
    presence_penalty: p.presencePenalty,
    frequency_penalty: p.frequencyPenalty,
    reasoning_effort: effort,
  }
}

const toolOf = (tool: Tool.Any) => ({
  type: "function",
  function: present({
    name: tool.name,
    description: Tool.getDescription(tool),
    parameters: Structured.parametersOf(tool),
    strict: Tool.getStrictMode(tool),
  }),
})

const toolChoiceOf = (choice: LanguageModelFace.Request["toolChoice"], { someTool }: Dialect): unknown => {
  if (choice === "required") return someTool
  if (typeof choice === "string") return choice
  if ("tool" in choice) return { type: "function", function: { name: choice.tool } }
  // The other tools are not in the list at all.
  return choice.mode === "required" ? someTool : "auto"
}

// ---------------------------------------------------------------------------
// Structured output
// ---------------------------------------------------------------------------

const instruction = ({ schema }: Structured.Format): string =>
  `Answer with a single JSON object and nothing else. It must fit this JSON schema:\n${JSON.stringify(schema)}`

const formatFields = (format: Structured.Format, { structuredOutput }: Dialect, messages: Array<Message>) => {
  if (structuredOutput === "strict" || structuredOutput === "json_schema") {
    const { name, schema, strict } = format
    return { response_format: { type: "json_schema", json_schema: { name, schema, strict } } }
  }
  const [first] = messages
  if (first?.["role"] === "system")
    messages[0] = { role: "system", content: `${String(first["content"])}\n\n${instruction(format)}` }
  else messages.unshift({ role: "system", content: instruction(format) })
  return structuredOutput === "json_object" ? { response_format: { type: "json_object" } } : {}
}

// ---------------------------------------------------------------------------
// Messages
// ---------------------------------------------------------------------------

const messagesOf = (prompt: Prompt.Prompt, context: Context): Array<Message> => {
  const ids = new ToolIds(idRules[context.dialect.toolCallIds])
  const messages: Array<Message> = []
  for (const message of prompt.content) {
    switch (message.role) {
      case "system":
        messages.push({ role: "system", content: message.content })
        break
      case "user":
        messages.push({ role: "user", content: userContent(message.content, context.dialect) })
        break
      case "assistant": {
        const assistant = assistantMessage(message.content, ids, context)
        if (assistant !== undefined) messages.push(assistant)
        break
      }
      case "tool":
        for (const part of message.content) {
          if (part.type !== "tool-result" || part.providerExecuted) continue
          messages.push({ role: "tool", tool_call_id: ids.result(part.id), content: resultText(part) })
        }
        break
    }
  }
  return messages
}

/** The text of a tool's result. */
const resultText = ({ modelOutput, result }: Prompt.ToolResultPart): string =>
  modelOutput !== undefined
    ? Prompt.toolModelOutputToText(modelOutput)
    : typeof result === "string"
      ? result
      : (JSON.stringify(result) ?? "")

const userContent = (parts: ReadonlyArray<Prompt.UserMessagePart>, dialect: Dialect): unknown => {
  const contents = parts.map((part) => (part.type === "text" ? textPart(part.text) : filePart(part, dialect)))
  // A plain string is what every server understands.
  return contents.every((content) => content.type === "text") ? contents.map(({ text }) => text).join("\n") : contents
}

interface ContentPart extends Record<string, unknown> {
  readonly type: string
  readonly text?: string
}

const textPart = (text: string): ContentPart => ({ type: "text", text })

const filePart = (part: Prompt.FilePart, dialect: Dialect): ContentPart => {
  const media = Media.read(part)
  const { type } = media
  if (type.startsWith("image/")) {
    if (media.kind === "address" && !dialect.imageAddresses) {
      throw new Unsupported("It takes images by their content only, and the prompt gives an address.")
    }
    return { type: "image_url", image_url: { url: Media.toUrl(media) } }
  }
  if (Media.isText(type)) return textPart(Media.toText(media))
  const audio = /^audio\/(?:x-)?(wav|mp3|mpeg)$/.exec(type)?.[1]
  if (audio !== undefined && dialect.audio) {
    if (media.kind === "address")
      throw new Unsupported("It takes audio by its content only, and the prompt gives an address.")
    return { type: "input_audio", input_audio: { data: media.base64, format: audio === "wav" ? "wav" : "mp3" } }
  }
  if (type === "application/pdf" && dialect.pdf !== "none") {
    if (media.kind === "address" && dialect.pdf !== "address") {
      throw new Unsupported("It takes PDF files by their content only, and the prompt gives an address.")
    }
    return { type: "file", file: { filename: part.fileName ?? "file.pdf", file_data: Media.toUrl(media) } }
  }
  throw new Unsupported(`It takes no files of ${Media.shownType(type)}.`)
}

const assistantMessage = (
  parts: ReadonlyArray<Prompt.AssistantMessagePart>,
  ids: ToolIds,
  { dialect, origin }: Context,
): Message | undefined => {
  let text = ""
  let reasoning = ""
  const calls: Array<unknown> = []
  for (const part of parts) {
    switch (part.type) {
      case "text":
        text += part.text
        break
      case "file":
        text += Prompt.toolModelOutputToText([part])
        break
      case "reasoning":
        // The reasoning of another model is nothing to this one.
        if (isOwn(part, origin)) reasoning += part.text
        break
      case "tool-call":
        if (part.providerExecuted) break
        calls.push({
          id: ids.call(part.id),
          type: "function",
          function: { name: part.name, arguments: JSON.stringify(part.params ?? {}) },
        })
        break
      default:
        break
    }
  }
  if (text === "" && calls.length === 0) return undefined
  return present({
    role: "assistant",
    content: text === "" ? null : text,
    reasoning_content: dialect.reasoningInHistory && reasoning !== "" ? reasoning : undefined,
    tool_calls: calls.length === 0 ? undefined : calls,
  })
}

const isOwn = ({ options }: Prompt.ReasoningPart, origin: string): boolean => {
  const { openai } = options
  return isObject(openai) && openai["origin"] === origin
}
