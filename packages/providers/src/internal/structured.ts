/**
 * Structured output: the JSON schema that a provider is sent, and the way back
 * from its answer to the JSON that `LanguageModel` decodes.
 *
 * Strict modes accept a part of JSON Schema only. The transformers of
 * `effect/ai` express the rest in it: an optional field becomes one that may be
 * null, a tuple an object, a record a list of pairs. `LanguageModel` above the
 * policies knows nothing of that, as it does not know who will answer, and
 * decodes plain JSON. So the answer is brought back here, by the transformer's
 * codec for the *encoded* side of the schema: it runs no transformation of the
 * user's and needs no services.
 */
import type * as LanguageModelHooks from "effect/ai/LanguageModel"
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Tool from "effect/ai/Tool"
import * as Exit from "effect/Exit"
import type * as JsonSchema from "effect/JsonSchema"
import * as Schema from "effect/Schema"
import { isObject, parse } from "./json.ts"
import { Unsupported } from "./unsupported.ts"

/** What is sent, and how the answer is read. */
export interface Format {
  readonly name: string
  readonly schema: JsonSchema.JsonSchema
  /** Is the schema in the part of JSON Schema that strict modes accept? */
  readonly strict: boolean
  /** From the provider's JSON to plain JSON. A text that does not fit stays as it is. */
  readonly recode: (text: string) => string
}

type Asked = Extract<LanguageModelHooks.ProviderOptions["responseFormat"], { readonly type: "json" }>

const nameOf = (objectName: string): string => {
  const name = objectName.replaceAll(/[^a-zA-Z0-9_-]/g, "_").slice(0, 64)
  return name === "" ? "answer" : name
}

const same = (text: string): string => text

/** The plain JSON schema: what `LanguageModel` decodes, as it is. */
export const plain = ({ objectName, schema }: Asked): Format => {
  try {
    return {
      name: nameOf(objectName),
      schema: LanguageModel.defaultCodecTransformer(schema).jsonSchema,
      strict: false,
      recode: same,
    }
  } catch {
    throw new Unsupported("The schema of the answer cannot be expressed as a JSON schema.")
  }
}

/**
 * The schema for a strict mode, by the provider's transformer. One that does
 * not fit there (a union or a recursion at the root) is sent plain.
 */
export const strict = (asked: Asked, transformer: LanguageModelHooks.CodecTransformer): Format => {
  try {
    const json = Schema.toEncoded(Schema.toCodecJson(asked.schema))
    const { codec } = transformer(json)
    const decode = Schema.decodeUnknownExit(codec)
    return {
      name: nameOf(asked.objectName),
      schema: transformer(asked.schema).jsonSchema,
      strict: true,
      recode:
        codec.ast === json.ast
          ? same
          : (text) => {
              const exit = decode(parse(text))
              return Exit.isSuccess(exit) ? JSON.stringify(exit.value) : text
            },
    }
  } catch {
    return plain(asked)
  }
}

/** The JSON schema of a tool's parameters, with an object at its root. */
export const parametersOf = (tool: Tool.Any): JsonSchema.JsonSchema => {
  let schema: JsonSchema.JsonSchema
  try {
    schema = Tool.getJsonSchema(tool)
  } catch {
    throw new Unsupported("The parameters of a tool cannot be expressed as a JSON schema.")
  }
  const { $ref, ...rest } = schema
  if (typeof $ref !== "string") return schema
  // A reference at the root is not an object for the providers: its target goes in its place.
  const definitions = rest["$defs"]
  const target = isObject(definitions) ? definitions[$ref.replace("#/$defs/", "")] : undefined
  return isObject(target) ? { ...rest, ...target } : schema
}

/** The tools that may be called. Those defined by a provider are refused: nobody else has them. */
export const callable = ({ toolChoice, tools }: LanguageModelHooks.ProviderOptions): ReadonlyArray<Tool.Any> => {
  const allowed =
    typeof toolChoice === "object" && "oneOf" in toolChoice
      ? tools.filter((tool) => toolChoice.oneOf.includes(tool.name))
      : tools
  for (const tool of allowed) {
    if (Tool.isProviderDefined(tool)) {
      throw new Unsupported("A tool that is defined by a provider cannot be sent: only tools with a handler can.")
    }
  }
  return allowed
}
