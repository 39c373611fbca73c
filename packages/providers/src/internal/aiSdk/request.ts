/** The options of a call of an AI SDK model. */
import type {
  JSONObject,
  JSONSchema7,
  JSONValue,
  LanguageModelV4CallOptions,
  LanguageModelV4FilePart,
  LanguageModelV4FunctionTool,
  LanguageModelV4Message,
  LanguageModelV4TextPart,
  LanguageModelV4ToolChoice,
  LanguageModelV4ToolResultOutput,
  SharedV4ProviderOptions,
} from "@ai-sdk/provider"
import type * as Call from "@understudy/core/Call"
import type * as LanguageModelFace from "@understudy/core/LanguageModelFace"
import * as Origin from "@understudy/core/Origin"
import * as OpenAiStructuredOutput from "effect/ai/OpenAiStructuredOutput"
import type * as Prompt from "effect/ai/Prompt"
import * as Tool from "effect/ai/Tool"
import { isObject, present } from "../json.ts"
import * as Media from "../media.ts"
import * as Structured from "../structured.ts"
import { ToolIds } from "../toolIds.ts"
import type { Version } from "./specification.ts"

/** What a call is built from, besides what is asked. */
export interface Context {
  readonly version: Version
  /** The key of the model's own options and metadata. */
  readonly namespace: string
  readonly parameters: Call.Parameters
  readonly providerOptions: ProviderOptions
  /** How an answer that fits a schema is asked for. */
  readonly structuredOutput: "strict" | "plain" | "prompt"
  /** Marks what this candidate made. */
  readonly origin: string
  readonly stream: boolean
}

/** Options of the model's provider, by its key. */
export type ProviderOptions = Readonly<Record<string, Readonly<Record<string, unknown>>>>

/** The key of our own metadata: who made a part. */
export const mark = "aiSdk"

/** The format of the answer, where one was asked for. */
export const formatOf = (
  { responseFormat }: LanguageModelFace.Request,
  { stream, structuredOutput }: Context,
): Structured.Format | undefined => {
  if (responseFormat.type === "text") return undefined
  // The parts of a stream go out as they come, so nothing could be brought back from a strict form.
  return structuredOutput === "strict" && !stream
    ? Structured.strict(responseFormat, OpenAiStructuredOutput.toCodecOpenAI)
    : Structured.plain(responseFormat)
}

/** The options of a call, in the form of v4, without the signal. */
export const options = (
  request: LanguageModelFace.Request,
  format: Structured.Format | undefined,
  context: Context,
): LanguageModelV4CallOptions => {
  const { parameters: p } = context
  const tools = Structured.callable(request).map(toolOf)
  const effort = reasoningOf(p.reasoningEffort, context.version)
  return present({
    prompt: promptOf(request.prompt, format, context),
    maxOutputTokens: p.maxTokens,
    temperature: p.temperature,
    topP: p.topP,
    stopSequences: p.stop === undefined ? undefined : [...p.stop],
    seed: p.seed,
    presencePenalty: p.presencePenalty,
    frequencyPenalty: p.frequencyPenalty,
    reasoning: effort,
    responseFormat:
      format === undefined ? undefined : { type: "json" as const, name: format.name, schema: schemaOf(format.schema) },
    tools: tools.length === 0 ? undefined : tools,
    toolChoice: tools.length === 0 ? undefined : toolChoiceOf(request.toolChoice),
    providerOptions: providerOptions(format, effort === undefined ? p.reasoningEffort : undefined, context),
  })
}

// ---------------------------------------------------------------------------
// Parameters
// ---------------------------------------------------------------------------

const efforts = ["none", "minimal", "low", "medium", "high", "xhigh", "max"] as const

/** The effort, where the specification has a word for it. */
const reasoningOf = (effort: string | undefined, version: Version): (typeof efforts)[number] | undefined =>
  version === "v4" ? efforts.find((known) => known === effort) : undefined

const providerOptions = (
  format: Structured.Format | undefined,
  reasoningEffort: string | undefined,
  { namespace, parameters, providerOptions }: Context,
): SharedV4ProviderOptions | undefined => {
  const own = {
    // The providers that know a strict mode take every schema for one that fits it.
    ...(format === undefined || format.strict ? {} : { strictJsonSchema: false }),
    ...(reasoningEffort === undefined ? {} : { reasoningEffort }),
    ...providerOptions[namespace],
    ...parameters.extra,
  }
  const all = Object.keys(own).length === 0 ? providerOptions : { ...providerOptions, [namespace]: own }
  return optionsOf(all)
}

/** Those options that the AI SDK can take: an object of JSON for each provider. */
const optionsOf = (options: Readonly<Record<string, unknown>>): SharedV4ProviderOptions | undefined => {
  const entries = Object.entries(options).filter(
    (entry): entry is [string, JSONObject] => entry[0] !== mark && entry[0] !== Origin.namespace && isObject(entry[1]),
  )
  return entries.length === 0 ? undefined : Object.fromEntries(entries)
}

// ---------------------------------------------------------------------------
// Tools and schemas
// ---------------------------------------------------------------------------

// A JSON schema of a later draft is an object all the same: the models pass it on.
const schemaOf = (schema: Structured.Format["schema"]): JSONSchema7 => schema as JSONSchema7

const toolOf = (tool: Tool.Any): LanguageModelV4FunctionTool => ({
  type: "function",
  name: tool.name,
  inputSchema: schemaOf(Structured.parametersOf(tool)),
  ...present({ description: Tool.getDescription(tool), strict: Tool.getStrictMode(tool) }),
})

const toolChoiceOf = (choice: LanguageModelFace.Request["toolChoice"]): LanguageModelV4ToolChoice => {
  if (typeof choice === "string") return { type: choice }
  if ("tool" in choice) return { type: "tool", toolName: choice.tool }
  // The other tools are not in the list at all.
  return { type: choice.mode === "required" ? "required" : "auto" }
}

const instruction = ({ schema }: Structured.Format): string =>
  `Answer with a single JSON object and nothing else. It must fit this JSON schema:\n${JSON.stringify(schema)}`

// ---------------------------------------------------------------------------
// Prompts
// ---------------------------------------------------------------------------

const idRules = {
  any: { valid: /^[a-zA-Z0-9_-]{1,40}$/, length: 24 },
  mistral: { valid: /^[a-zA-Z0-9]{9}$/, length: 9 },
}

interface Bearer {
  readonly options: Prompt.ProviderOptions
}

/** Who made this part, if it was an AI SDK model. */
const madeBy = ({ options }: Bearer): unknown => {
  const { [mark]: own } = options
  return isObject(own) ? own["origin"] : undefined
}

/** The options of a part: the caller's, or what this very candidate wrote down. */
const kept = (part: Bearer, origin: string): { readonly providerOptions?: SharedV4ProviderOptions } => {
  const made = madeBy(part)
  return made !== undefined && made !== origin ? {} : present({ providerOptions: optionsOf(part.options) })
}

type Assistant = Extract<LanguageModelV4Message, { readonly role: "assistant" }>["content"]
type ToolContent = Extract<LanguageModelV4Message, { readonly role: "tool" }>["content"]

const promptOf = (
  prompt: Prompt.Prompt,
  format: Structured.Format | undefined,
  { namespace, origin, structuredOutput }: Context,
): Array<LanguageModelV4Message> => {
  const ids = new ToolIds(namespace === "mistral" ? idRules.mistral : idRules.any)
  const system: Array<LanguageModelV4Message> = []
  const messages: Array<LanguageModelV4Message> = []
  for (const message of prompt.content) {
    const providerOptions = kept(message, origin)
    switch (message.role) {
      case "system":
        // Several models refuse a system message in the middle.
        system.push({ role: "system", content: message.content, ...providerOptions })
        break
      case "user": {
        const content = message.content.flatMap((part) => userPart(part, origin))
        if (content.length > 0) messages.push({ role: "user", content, ...providerOptions })
        break
      }
      case "assistant": {
        const content = message.content.flatMap((part) => assistantPart(part, ids, origin))
        if (content.length > 0) messages.push({ role: "assistant", content, ...providerOptions })
        break
      }
      case "tool": {
        const content: ToolContent = message.content.flatMap((part) =>
          part.type !== "tool-result" || part.providerExecuted
            ? []
            : [
                {
                  type: "tool-result" as const,
                  toolCallId: ids.result(part.id),
                  toolName: part.name,
                  output: outputOf(part, origin),
                  ...kept(part, origin),
                },
              ],
        )
        if (content.length > 0) messages.push({ role: "tool", content, ...providerOptions })
        break
      }
    }
  }
  if (format !== undefined && structuredOutput === "prompt") {
    system.push({ role: "system", content: instruction(format) })
  }
  return [...system, ...messages]
}

type UserPart = LanguageModelV4TextPart | LanguageModelV4FilePart

const textPart = (text: string, options: ReturnType<typeof kept> = {}): Array<LanguageModelV4TextPart> =>
  text === "" ? [] : [{ type: "text", text, ...options }]

const userPart = (part: Prompt.UserMessagePart, origin: string): Array<UserPart> =>
  part.type === "text" ? textPart(part.text, kept(part, origin)) : [filePart(part, origin)]

const dataOf = (media: Media.Media): Extract<LanguageModelV4FilePart["data"], { readonly type: "data" | "url" }> =>
  media.kind === "content" ? { type: "data", data: media.base64 } : { type: "url", url: new URL(media.url) }

const filePart = (part: Prompt.FilePart, origin: string): UserPart => {
  const media = Media.read(part)
  // Some models write the address of a text file into the prompt instead of the text.
  if (Media.isText(media.type)) return { type: "text", text: Media.toText(media), ...kept(part, origin) }
  return {
    type: "file",
    mediaType: media.type,
    data: dataOf(media),
    ...present({ filename: part.fileName }),
    ...kept(part, origin),
  }
}

const assistantPart = (part: Prompt.AssistantMessagePart, ids: ToolIds, origin: string): Assistant => {
  const own = madeBy(part) === origin
  switch (part.type) {
    case "text":
      return textPart(part.text, kept(part, origin))
    case "file": {
      if (!own) return textPart(`[${Media.shownType(part.mediaType)} omitted]`)
      return [{ type: "file", mediaType: part.mediaType, data: dataOf(Media.read(part)), ...kept(part, origin) }]
    }
    case "reasoning":
      // The reasoning of another model is nothing to this one, and its signature would be refused.
      return own ? [{ type: "reasoning", text: part.text, ...kept(part, origin) }] : []
    case "tool-call":
      return part.providerExecuted
        ? []
        : [
            {
              type: "tool-call",
              toolCallId: ids.call(part.id),
              toolName: part.name,
              input: part.params ?? {},
              ...kept(part, origin),
            },
          ]
    default:
      return []
  }
}

/** What JSON makes of a value. */
const jsonOf = (value: unknown): JSONValue => {
  const text: string | undefined = JSON.stringify(value)
  const json: JSONValue = text === undefined ? null : JSON.parse(text)
  return json
}

const outputOf = (part: Prompt.ToolResultPart, origin: string): LanguageModelV4ToolResultOutput => {
  const { isFailure, modelOutput, result } = part
  if (modelOutput !== undefined) {
    const value = modelOutput.flatMap((output) => userPart(output, origin))
    const texts = value.flatMap((output) => (output.type === "text" ? [output.text] : []))
    // A list of contents is what the fewest models read.
    if (texts.length === value.length) {
      return { type: isFailure ? "error-text" : "text", value: texts.join("\n") }
    }
    return { type: "content", value }
  }
  if (typeof result === "string") return { type: isFailure ? "error-text" : "text", value: result }
  return { type: isFailure ? "error-json" : "json", value: jsonOf(result) }
}
