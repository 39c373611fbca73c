/**
 * Anthropic messages as the service writes them.
 *
 * @see https://docs.claude.com/en/api/messages
 * @see https://docs.claude.com/en/docs/build-with-claude/streaming
 */
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { argumentsOf, type Block, type Frame, type Protocol, type Turn } from "./Turn.ts"

const stopReasons: Readonly<Record<string, string>> = {
  stop: "end_turn",
  length: "max_tokens",
  tool_calls: "tool_use",
  function_call: "tool_use",
  content_filter: "refusal",
}

const stopReason = (turn: Turn) => stopReasons[turn.finishReason] ?? turn.finishReason

const stopDetails = (turn: Turn) =>
  stopReason(turn) === "refusal"
    ? { type: "refusal", category: null, explanation: "The understudy was told to refuse." }
    : null

const usage = (turn: Turn, outputTokens: number) =>
  turn.usage && {
    input_tokens: turn.usage.inputTokens,
    output_tokens: outputTokens,
    output_tokens_details: null,
    cache_creation: { ephemeral_1h_input_tokens: 0, ephemeral_5m_input_tokens: 0 },
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: 0,
    inference_geo: null,
    server_tool_use: null,
    service_tier: "standard",
    speed: null,
  }

const message = (turn: Turn, content: ReadonlyArray<unknown>, ended: boolean) => ({
  id: `msg_${turn.ask.sequence}`,
  type: "message",
  role: "assistant",
  model: turn.ask.model,
  container: null,
  content,
  diagnostics: null,
  stop_reason: ended ? stopReason(turn) : null,
  stop_sequence: null,
  stop_details: ended ? stopDetails(turn) : null,
  ...(turn.usage === undefined ? {} : { usage: usage(turn, ended ? turn.usage.outputTokens : 1) }),
})

const parse = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Json))

const contentBlock = (turn: Turn, block: Block, index: number, whole: boolean) => {
  const text = whole ? block.pieces.join("") : ""
  switch (block.kind) {
    case "thinking":
      return { type: "thinking", thinking: text, signature: whole ? signature(turn) : "" }
    case "tool":
      return {
        type: "tool_use",
        id: block.call.id ?? `toolu_${turn.ask.sequence}_${index + 1}`,
        name: block.call.name,
        // Arguments that are not JSON have no place in a unary body: they go out as a string.
        input: whole ? Option.getOrElse(parse(argumentsOf(block.call)), () => text) : {},
        caller: { type: "direct" },
      }
    default:
      return { type: "text", text, citations: null }
  }
}

const signature = (turn: Turn) => `understudy-signature-${turn.ask.sequence}`

const delta = (block: Block, piece: string) => {
  switch (block.kind) {
    case "thinking":
      return { type: "thinking_delta", thinking: piece }
    case "tool":
      return { type: "input_json_delta", partial_json: piece }
    default:
      return { type: "text_delta", text: piece }
  }
}

const frame = (data: Readonly<Record<string, unknown>> & { readonly type: string }): Frame => ({
  event: data.type,
  data,
})

const start = (turn: Turn, block: Block, index: number) =>
  frame({ type: "content_block_start", index, content_block: contentBlock(turn, block, index, false) })

const stop = (turn: Turn, block: Block, index: number): ReadonlyArray<Frame> => [
  ...(block.kind === "thinking"
    ? [frame({ type: "content_block_delta", index, delta: { type: "signature_delta", signature: signature(turn) } })]
    : []),
  frame({ type: "content_block_stop", index }),
]

// The frames between two tokens, such as the end of one block and the start of
// the next, belong to the token after them. So a stream that is cut after n
// tokens holds nothing beyond the n-th.
const frames: Protocol["frames"] = (turn) => {
  const tokens: Array<ReadonlyArray<Frame>> = []
  const [first] = turn.blocks
  const preamble = [
    frame({ type: "message_start", message: message(turn, [], false) }),
    ...(first === undefined ? [] : [start(turn, first, 0)]),
    frame({ type: "ping" }),
  ]
  let between: ReadonlyArray<Frame> = []
  turn.blocks.forEach((block, index) => {
    if (index > 0) between = [...between, start(turn, block, index)]
    for (const piece of block.pieces) {
      tokens.push([...between, frame({ type: "content_block_delta", index, delta: delta(block, piece) })])
      between = []
    }
    between = [...between, ...stop(turn, block, index)]
  })
  return {
    preamble,
    tokens,
    trailer: [
      ...between,
      frame({
        type: "message_delta",
        delta: { container: null, stop_reason: stopReason(turn), stop_sequence: null, stop_details: stopDetails(turn) },
        ...(turn.usage === undefined ? {} : { usage: usage(turn, turn.usage.outputTokens) }),
      }),
    ],
    marker: [frame({ type: "message_stop" })],
  }
}

const errors: Readonly<Record<number, readonly [type: string, message: string]>> = {
  400: ["invalid_request_error", "Invalid request"],
  401: ["authentication_error", "invalid x-api-key"],
  402: ["billing_error", "There is a problem with your billing"],
  403: ["permission_error", "Your API key does not have permission to use the specified resource"],
  404: ["not_found_error", "The requested resource could not be found"],
  413: ["request_too_large", "Request exceeds the maximum size"],
  429: ["rate_limit_error", "This request would exceed your rate limit"],
  504: ["timeout_error", "Request timed out"],
  529: ["overloaded_error", "Overloaded"],
}

/** The protocol of Anthropic messages. */
export const protocol: Protocol = {
  requestIdHeader: "request-id",
  body: (turn) =>
    message(
      turn,
      turn.blocks.map((block, index) => contentBlock(turn, block, index, true)),
      true,
    ),
  frames,
  error: (status, message) => {
    const [type, text] = errors[status] ?? [
      status >= 400 && status < 500 ? "invalid_request_error" : "api_error",
      "Internal server error",
    ]
    return { type, message: message ?? text }
  },
  errorBody: (error, requestId) => ({ type: "error", error, request_id: requestId }),
  errorFrame: (body) => ({ event: "error", data: body }),
  unknownFrame: () => frame({ type: "understudy_unknown" }),
  complaint: (body, { headers }) => {
    if (!("anthropic-version" in headers)) return "anthropic-version: header is required"
    if (!Predicate.isObject(body)) return "The request body is not valid JSON"
    if (typeof body["model"] !== "string") return "model: Field required"
    if (typeof body["max_tokens"] !== "number") return "max_tokens: Field required"
    if (!Array.isArray(body["messages"])) return "messages: Field required"
    return body["messages"].length === 0 ? "messages: at least one message is required" : undefined
  },
}
