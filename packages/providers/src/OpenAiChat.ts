/**
 * An adapter for the OpenAI chat completions API, and for everything that
 * speaks it: Azure, Together, Groq, OpenRouter, DeepSeek, Mistral, xAI,
 * Fireworks, Ollama, vLLM, llama.cpp.
 *
 * It makes a provider for policies to build on. One call is one request: it
 * retries nothing, has no clock of its own, and follows no redirect. The client
 * is `HttpClient` from the context, so that tests and users choose the
 * transport.
 *
 * **Details**
 *
 * - Every failure is of `LlmError.ProviderFailure`, told by the classifier in
 *   `Classifier.Current`. What this dialect cannot express (a file of a type
 *   that it does not take, a tool defined by another provider) is
 *   `InvalidRequest`, before any network.
 * - Parameters of the model and the key may be given for a call with
 *   `Call.withParameters` and `Call.withCredential`; parameters that the model
 *   refuses by its dialect's table are left out.
 * - A history of another provider is accepted: ids of tool calls are made valid,
 *   reasoning that is not this candidate's own is left out.
 * - Structured output is asked for as `json_schema` where the dialect has it. An
 *   answer in a strict form is brought back to the JSON that `LanguageModel`
 *   decodes.
 * - A stream is whole with `[DONE]`, or with a finish reason and the end of the
 *   body. One that ends before has no `finish` part, which a provider makes
 *   `StreamInterrupted`.
 * - At most 32 MiB of an answer are read, 64 KiB of an error, and 1 MiB of one
 *   event.
 *
 * **Gotchas**
 *
 * - With `FetchHttpClient`, a `RequestInit` that was given to the client's layer
 *   is replaced by `{ redirect: "manual" }`; one around the call is kept.
 * - An `HttpClient` that retries or follows redirects does so here too. Give the
 *   adapters one that does neither.
 *
 * **Example** (OpenAI, and a local Ollama behind it)
 *
 * ```ts
 * import { Understudy } from "@understudy/core"
 * import { OpenAiChat } from "@understudy/providers"
 * import { Redacted } from "effect"
 *
 * const openai = OpenAiChat.make({ model: "gpt-5.6-terra", apiKey: Redacted.make("sk-…") })
 * const local = OpenAiChat.make({ dialect: "ollama", model: "qwen3" })
 *
 * export const model = Understudy.make({
 *   candidates: [{ provider: openai }, { provider: local, priority: 1 }],
 * })
 * ```
 *
 * Source: OpenAI "API reference, Chat Completions" and "Streaming events".
 */
import type * as Call from "@understudy/core/Call"
import type * as LanguageModelFace from "@understudy/core/LanguageModelFace"
import type { ProviderFailure } from "@understudy/core/LlmError"
import type * as Provider from "@understudy/core/Provider"
import * as Effect from "effect/Effect"
import type * as HttpClient from "effect/http/HttpClient"
import type * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as Answer from "./internal/openai/answer.ts"
import * as Request from "./internal/openai/request.ts"
import * as Wire from "./internal/wire.ts"
import * as OpenAiDialect from "./OpenAiDialect.ts"

/** What the adapter needs to know. */
export interface Options {
  /** Names it in failures, events and configuration. Default: the dialect's name, or `openai-compatible`. */
  readonly name?: string | undefined
  /** The model to ask. With a deployment in Azure's base URL: its name. */
  readonly model: string
  /** Who is spoken to: a name of `OpenAiDialect.known`, or a dialect of one's own. Default `openai`, or with a base URL `openai-compatible`. */
  readonly dialect?: OpenAiDialect.Known | OpenAiDialect.Dialect | undefined
  /** The key. Without one no key is sent. A key of the call is used instead. */
  readonly apiKey?: Redacted.Redacted<string> | undefined
  /** Up to `/chat/completions`; a query is kept. Default: that of the dialect. */
  readonly baseUrl?: string | undefined
  /** More headers. They win over the adapter's own, but not over a key of the call, and traces redact them. */
  readonly headers?: Readonly<Record<string, string | Redacted.Redacted<string>>> | undefined
  /** OpenAI's organization, for keys that have several. */
  readonly organization?: string | undefined
  /** OpenAI's project, for keys that have several. */
  readonly project?: string | undefined
  /** Parameters of the model. Those of a call win, field by field. */
  readonly parameters?: Call.Parameters | undefined
}

/** A provider that asks by chat completions. */
export interface OpenAiChat extends Provider.Provider<
  LanguageModelFace.LanguageModelFace,
  ProviderFailure,
  HttpClient.HttpClient
> {}

/** The same with its client. */
export interface Connected extends Provider.Provider<LanguageModelFace.LanguageModelFace, ProviderFailure> {}

const dialectOf = ({ baseUrl, dialect }: Options): OpenAiDialect.Dialect => {
  if (dialect !== undefined) return typeof dialect === "string" ? OpenAiDialect.known[dialect] : dialect
  return baseUrl === undefined ? OpenAiDialect.known.openai : OpenAiDialect.compatible
}

const keyHeaders: Record<OpenAiDialect.Dialect["keyHeader"], Wire.Endpoint["authorize"]> = {
  bearer: (key) => ({ authorization: `Bearer ${key}` }),
  "api-key": (key) => ({ "api-key": key }),
}

const endpointOf = (options: Options, dialect: OpenAiDialect.Dialect): Wire.Endpoint => {
  const where = "OpenAiChat.make"
  const { organization, project } = options
  return {
    name: options.name ?? dialect.name ?? "openai-compatible",
    model: options.model,
    dialect: dialect.name,
    url: Wire.address(where, options.baseUrl ?? dialect.baseUrl ?? "", "/chat/completions"),
    headers: Wire.headers(where, {
      ...(organization === undefined ? {} : { "openai-organization": organization }),
      ...(project === undefined ? {} : { "openai-project": project }),
      ...options.headers,
    }),
    apiKey: options.apiKey,
    authorize: keyHeaders[dialect.keyHeader],
    parameters: options.parameters,
  }
}

/** What one request is, and how its answer is read. */
interface Exchange {
  readonly attempt: Wire.Attempt
  readonly body: string
  readonly context: Answer.Context
}

const exchange = (
  endpoint: Wire.Endpoint,
  dialect: OpenAiDialect.Dialect,
  request: LanguageModelFace.Request,
  stream: boolean,
): Effect.Effect<Exchange, ProviderFailure> =>
  Effect.gen(function* () {
    const attempt = yield* Wire.begin(endpoint)
    const { model, name } = endpoint
    const origin = `${name}/${model}`
    let recode = (text: string): string => text
    const body = yield* Wire.build(attempt, () => {
      const context: Request.Context = { dialect, model, parameters: attempt.parameters, origin, stream }
      const format = Request.formatOf(request, context)
      recode = format?.recode ?? recode
      return Request.body(request, format, context)
    })
    return { attempt, body, context: { attempt, origin, recode } }
  })

const hooks = (options: Options): Wire.Hooks => {
  const dialect = dialectOf(options)
  const endpoint = endpointOf(options, dialect)
  return {
    name: endpoint.name,
    model: endpoint.model,
    generate: (request) =>
      Effect.flatMap(exchange(endpoint, dialect, request, false), ({ attempt, body, context }) =>
        Wire.generate(attempt, body, (value) => Answer.parts(context, value)),
      ),
    stream: (request) =>
      Stream.unwrap(
        Effect.map(exchange(endpoint, dialect, request, true), ({ attempt, body, context }) =>
          Wire.stream(attempt, body, (headers) => new Answer.Decoder(context, headers)),
        ),
      ),
  }
}

/**
 * A provider that asks by chat completions. Throws a `TypeError` for a base URL
 * that is missing or no http address, and for headers that cannot be sent.
 */
export const make = (options: Options): OpenAiChat => Wire.provider(hooks(options))

/** The same with the client of the context, so that the provider needs no service any more. */
export const connect = (options: Options): Effect.Effect<Connected, never, HttpClient.HttpClient> =>
  Wire.connected(hooks(options))
