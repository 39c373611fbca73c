/**
 * The dialects of the OpenAI chat completions API: where servers that speak it
 * listen, and in which points they differ.
 *
 * It is a table, for people to read and for `OpenAiChat` to follow. A server
 * that is not in it is `compatible` with what it needs changed:
 *
 * ```ts
 * import { OpenAiChat, OpenAiDialect } from "@understudy/providers"
 *
 * export const ours = OpenAiChat.make({
 *   model: "our-model",
 *   baseUrl: "https://llm.example.com/v1",
 *   dialect: { ...OpenAiDialect.compatible, structuredOutput: "json_object" },
 * })
 * ```
 *
 * Sources: the API references of the providers (OpenAI "Chat Completions",
 * Azure OpenAI "REST API reference", Mistral, Groq, Together, OpenRouter,
 * DeepSeek "Thinking Mode" and "JSON Output", xAI, Fireworks), the types of the
 * SDKs `openai`, `groq-sdk`, `together-ai` and `@mistralai/mistralai`, and the
 * documentation of Ollama, vLLM and llama.cpp on their compatible servers.
 */
import type * as Call from "@understudy/core/Call"

/** A parameter of the model that has a name of its own. */
export type Parameter = Exclude<keyof Call.Parameters, "extra">

/** In which points a server differs. */
export interface Dialect {
  /** Names it for the classifier of failures. Default: what the provider's name suggests. */
  readonly name?: string
  /** Where it listens, up to the path `/chat/completions`. Without one it must be given. */
  readonly baseUrl?: string
  /** The environment variable that holds the key by custom. Without one it needs no key. */
  readonly apiKeyEnv?: string
  /** How the key is sent: `Authorization: Bearer …`, or in a header of this name. */
  readonly keyHeader: "bearer" | "api-key"
  /** What the longest answer is called. */
  readonly maxTokens: "max_tokens" | "max_completion_tokens"
  /** What the seed is called. */
  readonly seed: "seed" | "random_seed"
  /** What "some tool must be called" is called. */
  readonly someTool: "required" | "any"
  /** Does it accept `stream_options: { include_usage: true }`? Those that do not send the usage anyway, or refuse the field. */
  readonly streamOptions: boolean
  /**
   * How an answer that fits a schema is asked for.
   *
   * - `strict`: `json_schema`, in the part of JSON Schema that strict modes accept
   * - `json_schema`: the plain schema, `strict: false`
   * - `json_object`: any JSON object, and the schema in the prompt
   * - `prompt`: the schema in the prompt only
   */
  readonly structuredOutput: "strict" | "json_schema" | "json_object" | "prompt"
  /** May images be given by their address? */
  readonly imageAddresses: boolean
  /** Does it take PDF files: by their content, also by their address, or not at all? */
  readonly pdf: "content" | "address" | "none"
  /** Does it take audio? */
  readonly audio: boolean
  /** Which ids of tool calls it accepts: any of up to 40 characters, or nine letters and digits. */
  readonly toolCallIds: "any" | "nine"
  /** Must the model's own reasoning come back beside its tool calls, as `reasoning_content`? */
  readonly reasoningInHistory: boolean
  /** Parameters that a model refuses: they are left out. The first entry whose pattern fits the model counts. */
  readonly without?: ReadonlyArray<{
    readonly models: RegExp
    readonly parameters: ReadonlyArray<Parameter>
    /** It accepts them when `reasoningEffort` is `none`. */
    readonly unlessNoReasoning?: boolean
  }>
  /** Models that call tools only without reasoning: with tools, `reasoningEffort` defaults to `none`. */
  readonly toolsWithoutReasoning?: RegExp
}

/** A server of which nothing more is known. */
export const compatible: Dialect = {
  keyHeader: "bearer",
  maxTokens: "max_tokens",
  seed: "seed",
  someTool: "required",
  streamOptions: true,
  structuredOutput: "strict",
  imageAddresses: true,
  pdf: "none",
  audio: false,
  toolCallIds: "any",
  reasoningInHistory: false,
}

const sampling: ReadonlyArray<Parameter> = ["temperature", "topP", "presencePenalty", "frequencyPenalty", "stop"]

const openai: Dialect = {
  ...compatible,
  name: "openai",
  baseUrl: "https://api.openai.com/v1",
  apiKeyEnv: "OPENAI_API_KEY",
  maxTokens: "max_completion_tokens",
  pdf: "content",
  audio: true,
  without: [
    { models: /^(?:gpt-[34]|chatgpt-4o|gpt-5(?:\.\d+)?-chat|gpt-audio)/, parameters: [] },
    { models: /^gpt-(?:5\.\d|[6-9])/, parameters: sampling, unlessNoReasoning: true },
    { models: /^(?:o\d|gpt-5)/, parameters: sampling },
  ],
  toolsWithoutReasoning: /^gpt-(?:5\.[4-9]|6-(?:sol|luna))(?!.*chat)/,
}

/** The dialects, by the names that a configuration uses. */
export const known = {
  openai,
  /** Needs a base URL: `https://<resource>.openai.azure.com/openai/v1`, or one with a deployment and `?api-version=…`. */
  azure: {
    ...compatible,
    name: "azure",
    apiKeyEnv: "AZURE_OPENAI_API_KEY",
    keyHeader: "api-key",
    maxTokens: "max_completion_tokens",
    pdf: "content",
    audio: true,
  },
  together: {
    ...compatible,
    name: "together",
    baseUrl: "https://api.together.xyz/v1",
    apiKeyEnv: "TOGETHER_API_KEY",
    structuredOutput: "json_schema",
  },
  groq: {
    ...compatible,
    name: "groq",
    baseUrl: "https://api.groq.com/openai/v1",
    apiKeyEnv: "GROQ_API_KEY",
    maxTokens: "max_completion_tokens",
    streamOptions: false,
    structuredOutput: "json_schema",
  },
  openrouter: {
    ...compatible,
    name: "openrouter",
    baseUrl: "https://openrouter.ai/api/v1",
    apiKeyEnv: "OPENROUTER_API_KEY",
    pdf: "address",
    audio: true,
  },
  deepseek: {
    ...compatible,
    name: "deepseek",
    baseUrl: "https://api.deepseek.com",
    apiKeyEnv: "DEEPSEEK_API_KEY",
    structuredOutput: "json_object",
    reasoningInHistory: true,
  },
  /** Refuses fields that it does not know with 422. */
  mistral: {
    ...compatible,
    name: "mistral",
    baseUrl: "https://api.mistral.ai/v1",
    apiKeyEnv: "MISTRAL_API_KEY",
    seed: "random_seed",
    someTool: "any",
    streamOptions: false,
    toolCallIds: "nine",
  },
  xai: { ...compatible, name: "xai", baseUrl: "https://api.x.ai/v1", apiKeyEnv: "XAI_API_KEY" },
  fireworks: {
    ...compatible,
    name: "fireworks",
    baseUrl: "https://api.fireworks.ai/inference/v1",
    apiKeyEnv: "FIREWORKS_API_KEY",
    structuredOutput: "json_schema",
  },
  ollama: {
    ...compatible,
    name: "ollama",
    baseUrl: "http://127.0.0.1:11434/v1",
    structuredOutput: "json_schema",
    imageAddresses: false,
  },
  vllm: { ...compatible, name: "vllm", baseUrl: "http://127.0.0.1:8000/v1", structuredOutput: "json_schema" },
  llamacpp: { ...compatible, name: "llamacpp", baseUrl: "http://127.0.0.1:8080/v1", structuredOutput: "json_schema" },
  "openai-compatible": compatible,
} as const satisfies Record<string, Dialect>

/** The name of a dialect in the table. */
export type Known = keyof typeof known
