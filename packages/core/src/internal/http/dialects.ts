/** How a stream that has begun says that it failed, in the words of whoever reads it. */
import type { PublicError } from "./answer.ts"
import type { ErrorType } from "./publicError.ts"

/**
 * How a stream is written.
 *
 * - `sse`: server-sent events, which end with `event: error` and the error body
 * - `openai`: chunks of chat completions, `data: {"error": …}` and no `[DONE]`
 * - `anthropic`: events of messages, `event: error` and no `message_stop`
 * - `ndjson`: one JSON value a line, the last of them the error body
 */
export type Dialect = "sse" | "openai" | "anthropic" | "ndjson"

/** The `type` and `code` of OpenAI's errors that are nearest. Clients of OpenAI know these. */
const openai: Record<ErrorType, readonly [type: string, code: string]> = {
  rate_limit: ["rate_limit_error", "rate_limit_exceeded"],
  quota_exhausted: ["insufficient_quota", "insufficient_quota"],
  overloaded: ["server_error", "overloaded"],
  provider_error: ["server_error", "server_error"],
  connection_failed: ["server_error", "server_error"],
  timeout: ["server_error", "timeout"],
  deadline_exceeded: ["server_error", "deadline_exceeded"],
  stream_interrupted: ["server_error", "stream_interrupted"],
  invalid_response: ["server_error", "invalid_response"],
  content_filtered: ["invalid_request_error", "content_filter"],
  context_length: ["invalid_request_error", "context_length_exceeded"],
  authentication: ["authentication_error", "invalid_api_key"],
  permission_denied: ["permission_error", "permission_denied"],
  model_not_found: ["invalid_request_error", "model_not_found"],
  invalid_request: ["invalid_request_error", "invalid_request"],
  unknown: ["server_error", "internal_error"],
  circuit_open: ["server_error", "server_error"],
  capacity_exceeded: ["server_error", "capacity_exceeded"],
  all_providers_failed: ["server_error", "server_error"],
}

/** The types of Anthropic's errors that are nearest. */
const anthropic: Record<ErrorType, string> = {
  rate_limit: "rate_limit_error",
  quota_exhausted: "billing_error",
  overloaded: "overloaded_error",
  provider_error: "api_error",
  connection_failed: "api_error",
  timeout: "timeout_error",
  deadline_exceeded: "timeout_error",
  stream_interrupted: "api_error",
  invalid_response: "api_error",
  content_filtered: "invalid_request_error",
  context_length: "request_too_large",
  authentication: "authentication_error",
  permission_denied: "permission_error",
  model_not_found: "not_found_error",
  invalid_request: "invalid_request_error",
  unknown: "api_error",
  circuit_open: "api_error",
  capacity_exceeded: "overloaded_error",
  all_providers_failed: "api_error",
}

/** The last thing that is said: an event or a line, with all that ends it. JSON holds no line break, so none is split. */
const writers: Record<Dialect, (error: PublicError) => string> = {
  sse: (error) => `event: error\ndata: ${JSON.stringify({ error })}\n\n`,
  openai: ({ message, type: of, ...rest }) => {
    const [type, code] = openai[of]
    return `data: ${JSON.stringify({ error: { message, type, param: null, code, ...rest } })}\n\n`
  },
  anthropic: ({ message, request_id, type, ...rest }) => {
    const error = { type: anthropic[type], message, ...rest }
    return `event: error\ndata: ${JSON.stringify({ type: "error", error, ...(request_id === undefined ? {} : { request_id }) })}\n\n`
  },
  ndjson: (error) => `${JSON.stringify({ error })}\n`,
}

/** An error as the last event of a stream. */
export const written = (error: PublicError, dialect: Dialect): string => writers[dialect](error)

/** The media type of a stream. */
export const contentTypes: Record<Dialect, string> = {
  sse: "text/event-stream",
  openai: "text/event-stream",
  anthropic: "text/event-stream",
  ndjson: "application/x-ndjson",
}

/** The bytes behind which an event or a line may begin. */
export const separators: Record<Dialect, string> = { sse: "\n\n", openai: "\n\n", anthropic: "\n\n", ndjson: "\n" }
