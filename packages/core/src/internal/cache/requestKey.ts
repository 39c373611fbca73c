/**
 * The key of a request: a digest of all that the answer depends on.
 *
 * Two requests that ask the same have the same key, in every process. So what
 * differs from one telling of a conversation to the next and says nothing to
 * the model is left out: who gave an answer of the history and what that
 * provider put beside it (ids, signatures), and the names of tool calls, of
 * which only the order counts. What a caller says of its own messages counts.
 */
import * as LanguageModel from "effect/ai/LanguageModel"
import type * as Prompt from "effect/ai/Prompt"
import * as Tool from "effect/ai/Tool"
import type * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type { Overrides } from "../../Call.ts"
import type { Request } from "../../LanguageModelFace.ts"
import { namespace } from "../../Origin.ts"
import { canonical } from "./canonical.ts"
import { digest } from "./sha256.ts"

/** When what goes into a key changes, so does this, and no old entry is found. */
const format = 2

/** Whose answer it is: a tenant's own, or everyone's. */
export type Scope = "tenant" | "everyone"

/** What a key is made of. */
export interface Asked {
  readonly scope: Scope
  readonly tenant: string | undefined
  /** Who is asked: another composition has other answers. */
  readonly of: ReadonlyArray<string>
  /** What is asked: a key of the caller's own, or the request. */
  readonly what: unknown
}

/** The key, in hexadecimal. It holds nothing in clear. Throws `NoText` for what has no canonical text. */
export const keyOf = ({ of, scope, tenant, what }: Asked): Effect.Effect<string> =>
  digest(canonical([format, scope, scope === "tenant" ? tenant : null, of, what]))

/**
 * What of a request and of the overrides of its call decides about the answer. A key of the caller's own stands for all
 * of it but the form of the answer: no text is an object. Throws for a schema without JSON form.
 */
export const whatIsAsked = (request: Request, { cacheKey, exclude, parameters, pin, tags }: Overrides): unknown =>
  cacheKey === undefined
    ? {
        prompt: new Told().prompt(request.prompt),
        tools: request.tools.map(toolOf).sort((a, b) => (a.name < b.name ? -1 : 1)),
        toolChoice: request.toolChoice,
        format: formOf(request),
        parameters: parameters ?? {},
        pin: pin?.toSorted() ?? null,
        exclude: exclude?.toSorted() ?? null,
        tags: [...new Set(tags)].sort(),
      }
    : { key: cacheKey, format: formOf(request) }

const formOf = ({ responseFormat }: Request): unknown =>
  responseFormat.type === "json" ? { name: responseFormat.objectName, schema: schemaOf(responseFormat.schema) } : "text"

type Fields = Readonly<Record<string, unknown>>

/** A conversation as it is told, message by message. */
class Told {
  private readonly calls = new Map<string, number>()

  prompt(prompt: Prompt.Prompt): ReadonlyArray<unknown> {
    return prompt.content.map((message) => this.message(message))
  }

  private message({ content, options, role }: Prompt.Message): Fields {
    // What stands beside an answer is its provider's, and changes with every telling.
    const own = role === "system" || role === "user"
    return {
      role,
      ...(own ? { options: optionsOf(options) } : {}),
      content: typeof content === "string" ? content : content.map((part) => this.part(part, own)),
    }
  }

  private part({ options, ...part }: Prompt.Part, own: boolean): Fields {
    const fields: Record<string, unknown> = own ? { options: optionsOf(options) } : {}
    for (const [name, value] of Object.entries(part)) {
      // Marks of types are no data.
      if (!name.startsWith("~effect/")) fields[name] = ids.has(name) ? this.call(String(value)) : value
    }
    return fields
  }

  /** Which name it is, counted in order. */
  private call(id: string): number {
    const known = this.calls.get(id) ?? this.calls.size
    this.calls.set(id, known)
    return known
  }
}

const ids: ReadonlySet<string> = new Set(["id", "toolCallId", "approvalId"])

const optionsOf = ({ [namespace]: _ours, ...theirs }: Fields): Fields => theirs

interface Described extends Fields {
  readonly name: string
}

const known = new WeakMap<object, unknown>()

/** Made once for each schema or tool: it costs more than the rest of the key. */
const once = <K extends object, A>(key: K, make: (key: K) => A): A => {
  const before = known.get(key)
  if (before !== undefined) return before as A
  const made = make(key)
  known.set(key, made)
  return made
}

const toolOf = (tool: Tool.Any): Described =>
  once(tool, () => ({
    name: tool.name,
    description: Tool.getDescription(tool),
    parameters: Tool.getJsonSchema(tool),
    ...(Tool.isProviderDefined(tool) ? { id: tool.id, args: tool.args } : {}),
  }))

const schemaOf = (schema: Schema.Top): unknown =>
  once(schema, () => LanguageModel.defaultCodecTransformer(schema).jsonSchema)
