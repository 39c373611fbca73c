/** What a request is made of, for those who count it: its texts, and figures for what is not text. */
import type * as Prompt from "effect/ai/Prompt"
import * as Tool from "effect/ai/Tool"
import type { Request } from "../../LanguageModelFace.ts"

/** Something to be counted. */
export interface Weight {
  readonly texts: ReadonlyArray<string>
  /** Tokens besides those of the texts. */
  readonly flat: number
}

/** The marks around a message: OpenAI's cookbook counts 3 to 4, and 3 for the beginning of the answer. */
export const perMessage = 4
export const perPrompt = 3
/** The wrapping of a tool's call, its result, and its definition. */
const perTool = 8
/** An image, or a page of a document: they cost some hundreds up to about 1,600 by provider and size. */
export const perMedium = 1000
/** Bytes of a document or a recording that are one token more. */
const bytesPerToken = 100

const jsonOf = (value: unknown): string => {
  try {
    return JSON.stringify(value) ?? ""
  } catch {
    // What cannot be sent is not counted.
    return ""
  }
}

/** What a tool gave, as a text. */
export const textOfResult = (result: unknown): string => (typeof result === "string" ? result : jsonOf(result))

const bytesOf = ({ data }: Prompt.FilePart): number =>
  typeof data === "string" ? data.length * 0.75 : data instanceof URL ? 0 : data.byteLength

class Scale {
  readonly texts: Array<string> = []
  flat = 0

  text(text: string): void {
    if (text !== "") this.texts.push(text)
  }

  file(part: Prompt.FilePart): void {
    const bytes = bytesOf(part)
    if (part.mediaType.startsWith("text/")) this.flat += Math.max(1, bytes / 3)
    else if (part.mediaType.startsWith("image/")) this.flat += perMedium
    else this.flat += perMedium + bytes / bytesPerToken
  }

  result({ modelOutput, result }: Prompt.ToolResultPart): void {
    this.flat += perTool
    if (modelOutput === undefined) {
      this.text(textOfResult(result))
      return
    }
    for (const part of modelOutput) {
      if (part.type === "text") this.text(part.text)
      else this.file(part)
    }
  }

  part(part: Prompt.Part): void {
    switch (part.type) {
      case "text":
      case "reasoning":
        return this.text(part.text)
      case "file":
        return this.file(part)
      case "tool-call":
        this.flat += perTool
        this.text(part.name)
        return this.text(jsonOf(part.params))
      case "tool-result":
        return this.result(part)
      case "tool-approval-request":
      case "tool-approval-response":
        return
    }
  }

  tool(tool: Tool.Any): void {
    this.flat += perTool
    this.text(tool.name)
    this.text(Tool.getDescription(tool) ?? "")
    this.text(schemaOf(tool))
  }
}

/** Schemas are converted once: tools are made once and sent often. */
const schemas = new WeakMap<object, string>()

const once = (key: object, convert: () => unknown): string => {
  const known = schemas.get(key)
  if (known !== undefined) return known
  let json = ""
  try {
    json = jsonOf(convert())
  } catch {
    // A schema that cannot be expressed is not sent either.
  }
  schemas.set(key, json)
  return json
}

const schemaOf = (tool: Tool.Any): string => once(tool, () => Tool.getJsonSchema(tool))

/** A message. */
export const ofMessage = (message: Prompt.Message): Weight => {
  const scale = new Scale()
  scale.flat += perMessage
  if (message.role === "system") scale.text(message.content)
  else for (const part of message.content) scale.part(part)
  return scale
}

/** What a request holds besides its prompt: the definitions of tools, and the schema of the answer. */
export const besidesPrompt = ({ responseFormat, tools }: Pick<Request, "responseFormat" | "tools">): Weight => {
  const scale = new Scale()
  for (const tool of tools) scale.tool(tool)
  if (responseFormat.type === "json") {
    scale.flat += perTool
    scale.text(once(responseFormat.schema, () => Tool.getJsonSchemaFromSchema(responseFormat.schema)))
  }
  return scale
}

const isMedium = (part: Prompt.Part): boolean =>
  part.type === "file" ||
  (part.type === "tool-result" && part.modelOutput !== undefined && part.modelOutput.some(isMedium))

/** Is there something in the prompt of which nobody can say how many tokens it is? */
export const hasMedia = (prompt: Prompt.Prompt): boolean =>
  prompt.content.some((message) => message.role !== "system" && message.content.some(isMedium))
