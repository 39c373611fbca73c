/**
 * The versions of the AI SDK's language model specification, and what the older
 * ones spell differently. Requests are built for v4 and brought back to the
 * older forms here; answers are read in all forms where they are read.
 */
import type {
  LanguageModelV4CallOptions,
  LanguageModelV4FilePart,
  LanguageModelV4Message,
  LanguageModelV4ToolResultOutput,
  LanguageModelV4ToolResultPart,
} from "@ai-sdk/provider"
import { Unsupported } from "../unsupported.ts"

/** The versions that are understood. */
export const versions = ["v2", "v3", "v4"] as const

/** A version that is understood. */
export type Version = (typeof versions)[number]

type FileData = LanguageModelV4FilePart["data"]

/** Before v4 data were not tagged. */
const untagged = (data: FileData): unknown => {
  switch (data.type) {
    case "data":
      return data.data
    case "url":
      return data.url
    default:
      throw new Unsupported("A file in the prompt has a form that this version of the model does not know.")
  }
}

const olderFile = (part: LanguageModelV4FilePart): unknown => ({ ...part, data: untagged(part.data) })

type ToolContent = Extract<LanguageModelV4ToolResultOutput, { readonly type: "content" }>["value"][number]

/** Before v4 a file in a tool's result had a type for each of its forms, and before v3 there was one form. */
const olderToolContent = (part: ToolContent, version: Version): unknown => {
  if (part.type !== "file") return part
  const { data, mediaType } = part
  if (version === "v2") {
    if (data.type !== "data") throw new Unsupported("It takes files in the results of tools by their content only.")
    return { type: "media", data: data.data, mediaType }
  }
  const kind = mediaType.startsWith("image") ? "image" : "file"
  return data.type === "url"
    ? { type: `${kind}-url`, url: data.url.href }
    : { type: `${kind}-data`, data: untagged(data), mediaType }
}

const olderResult = (part: LanguageModelV4ToolResultPart, version: Version): unknown => {
  const { output } = part
  return output.type !== "content"
    ? part
    : { ...part, output: { ...output, value: output.value.map((inner) => olderToolContent(inner, version)) } }
}

const olderMessage = (message: LanguageModelV4Message, version: Version): unknown =>
  message.role === "system"
    ? message
    : {
        ...message,
        content: message.content.map((part) =>
          part.type === "file" ? olderFile(part) : part.type === "tool-result" ? olderResult(part, version) : part,
        ),
      }

/** The options of a call as a model of this version takes them. */
export const optionsFor = (version: Version, options: LanguageModelV4CallOptions): object => {
  if (version === "v4") return options
  const { prompt, reasoning: _, ...rest } = options
  return { ...rest, prompt: prompt.map((message) => olderMessage(message, version)) }
}
