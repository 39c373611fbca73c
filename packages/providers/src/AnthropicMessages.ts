/**
 * An adapter for the Anthropic messages API, and for what speaks it.
 *
 * It makes a provider for policies to build on. One call is one request: it
 * retries nothing, has no clock of its own, and follows no redirect. The client
 * is `HttpClient` from the context, so that tests and users choose the
 * transport.
 *
 * **Details**
 *
 * - Every failure is of `LlmError.ProviderFailure`, told by the classifier in
 *   `Classifier.Current`. What this dialect cannot express is `InvalidRequest`,
 *   before any network.
 * - All system messages of a prompt go to the top, in order. Turns of the same
 *   role are joined, and texts of white space only are left out, as the API
 *   refuses both.
 * - `max_tokens` is required there: 16,384 where nobody says otherwise.
 * - Parameters that a model refuses are left out: sampling from Opus 4.7 and
 *   Sonnet 5 on, effort before Opus 4.5. A temperature above 1 becomes 1.
 * - Thinking is given back with its signature to the candidate and model it came
 *   from, and to no other.
 * - `options: { anthropic: { cacheControl: { type: "ephemeral" } } }` on a part
 *   or a message becomes `cache_control`.
 * - A stream is whole with `message_stop`. One that ends before has no `finish`
 *   part, which a provider makes `StreamInterrupted`.
 * - At most 32 MiB of an answer are read, 64 KiB of an error, and 1 MiB of one
 *   event.
 *
 * **Gotchas**
 *
 * - Structured output uses `output_config.format`, which the models from 4.5 on
 *   have. Older ones need `structuredOutput: "tool"`: a forced tool whose input
 *   becomes the text. The newest refuse forced tools, so it is not the default.
 * - With `FetchHttpClient`, a `RequestInit` that was given to the client's layer
 *   is replaced by `{ redirect: "manual" }`; one around the call is kept.
 *
 * **Example** (Claude)
 *
 * ```ts
 * import { AnthropicMessages } from "@understudy/providers"
 * import { Redacted } from "effect"
 *
 * export const claude = AnthropicMessages.make({
 *   model: "claude-sonnet-5-5",
 *   apiKey: Redacted.make("sk-ant-…"),
 *   parameters: { maxTokens: 4096 },
 * })
 * ```
 *
 * Source: Anthropic "Messages API", "Streaming messages", "Structured outputs"
 * and the types of `@anthropic-ai/sdk`.
 */
import type * as Call from "@understudy/core/Call"
import type * as LanguageModelFace from "@understudy/core/LanguageModelFace"
import type { ProviderFailure } from "@understudy/core/LlmError"
import type * as Provider from "@understudy/core/Provider"
import * as Effect from "effect/Effect"
import type * as HttpClient from "effect/http/HttpClient"
import type * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as Answer from "./internal/anthropic/answer.ts"
import * as Request from "./internal/anthropic/request.ts"
import * as Wire from "./internal/wire.ts"

/** Where Anthropic listens. */
export const baseUrl = "https://api.anthropic.com"

/** The version of the API that is spoken. */
export const version = "2023-06-01"

/** `max_tokens` where nobody sets it. */
export const defaultMaxTokens = 16_384

/** What the adapter needs to know. */
export interface Options {
  /** Names it in failures, events and configuration. Default `anthropic`. */
  readonly name?: string | undefined
  /** The model to ask. */
  readonly model: string
  /** The key. Without one no key is sent. A key of the call is used instead. */
  readonly apiKey?: Redacted.Redacted<string> | undefined
  /** Up to `/v1/messages`; a query is kept. Default `https://api.anthropic.com`. */
  readonly baseUrl?: string | undefined
  /** More headers, such as `anthropic-beta`. They win over the adapter's own, but not over a key of the call, and traces redact them. */
  readonly headers?: Readonly<Record<string, string | Redacted.Redacted<string>>> | undefined
  /** Parameters of the model. Those of a call win, field by field. */
  readonly parameters?: Call.Parameters | undefined
  /** How an answer that fits a schema is asked for: the API's own format, or a forced tool. Default `native`. */
  readonly structuredOutput?: "native" | "tool" | undefined
}

/** A provider that asks by messages. */
export interface AnthropicMessages extends Provider.Provider<
  LanguageModelFace.LanguageModelFace,
  ProviderFailure,
  HttpClient.HttpClient
> {}

/** The same with its client. */
export interface Connected extends Provider.Provider<LanguageModelFace.LanguageModelFace, ProviderFailure> {}

const endpointOf = (options: Options): Wire.Endpoint => {
  const where = "AnthropicMessages.make"
  return {
    name: options.name ?? "anthropic",
    model: options.model,
    dialect: "anthropic",
    url: Wire.address(where, options.baseUrl ?? baseUrl, "/v1/messages"),
    headers: { "anthropic-version": version, ...Wire.headers(where, options.headers) },
    apiKey: options.apiKey,
    authorize: (key) => ({ "x-api-key": key }),
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
  structuredOutput: "native" | "tool",
  request: LanguageModelFace.Request,
  stream: boolean,
): Effect.Effect<Exchange, ProviderFailure> =>
  Effect.gen(function* () {
    const attempt = yield* Wire.begin(endpoint)
    const { model, name } = endpoint
    const { parameters } = attempt
    const origin = `${name}/${model}`
    let recode = (text: string): string => text
    let formatTool: string | undefined
    const body = yield* Wire.build(attempt, () => {
      const context: Request.Context = {
        model,
        parameters,
        structuredOutput,
        maxTokens: defaultMaxTokens,
        origin,
        stream,
      }
      const format = Request.formatOf(request, context)
      recode = format?.recode ?? recode
      formatTool = structuredOutput === "tool" ? format?.name : undefined
      return Request.body(request, format, context)
    })
    return { attempt, body, context: { attempt, origin, recode, formatTool } }
  })

const hooks = (options: Options): Wire.Hooks => {
  const endpoint = endpointOf(options)
  const structuredOutput = options.structuredOutput ?? "native"
  return {
    name: endpoint.name,
    model: endpoint.model,
    generate: (request) =>
      Effect.flatMap(exchange(endpoint, structuredOutput, request, false), ({ attempt, body, context }) =>
        Wire.generate(attempt, body, (value) => Answer.parts(context, value)),
      ),
    stream: (request) =>
      Stream.unwrap(
        Effect.map(exchange(endpoint, structuredOutput, request, true), ({ attempt, body, context }) =>
          Wire.stream(attempt, body, (headers) => new Answer.Decoder(context, headers)),
        ),
      ),
  }
}

/**
 * A provider that asks by messages. Throws a `TypeError` for a base URL that is
 * no http address, and for headers that cannot be sent.
 */
export const make = (options: Options): AnthropicMessages => Wire.provider(hooks(options))

/** The same with the client of the context, so that the provider needs no service any more. */
export const connect = (options: Options): Effect.Effect<Connected, never, HttpClient.HttpClient> =>
  Wire.connected(hooks(options))
