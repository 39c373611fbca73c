/**
 * OpenAI chat completions as the service writes them.
 *
 * @see https://platform.openai.com/docs/api-reference/chat
 */
import * as Predicate from "effect/Predicate"
import { argumentsOf, type Ask, type Block, type Frame, type Protocol, type Turn } from "./Turn.ts"

const finishReasons: Readonly<Record<string, string>> = {
  end_turn: "stop",
  stop_sequence: "stop",
  max_tokens: "length",
  model_context_window_exceeded: "length",
  tool_use: "tool_calls",
  refusal: "content_filter",
}

const finishReason = (turn: Turn) => finishReasons[turn.finishReason] ?? turn.finishReason

const usage = (turn: Turn) =>
  turn.usage && {
    prompt_tokens: turn.usage.inputTokens,
    completion_tokens: turn.usage.outputTokens,
    total_tokens: turn.usage.inputTokens + turn.usage.outputTokens,
    prompt_tokens_details: { cached_tokens: 0, audio_tokens: 0 },
    completion_tokens_details: {
      reasoning_tokens: 0,
      audio_tokens: 0,
      accepted_prediction_tokens: 0,
      rejected_prediction_tokens: 0,
    },
  }

const envelope = (ask: Ask, object: string) => ({
  id: `chatcmpl-${ask.sequence}`,
  object,
  created: ask.created,
  model: ask.model,
  service_tier: "default",
  system_fingerprint: "fp_understudy",
})

type ToolBlock = Extract<Block, { readonly kind: "tool" }>

const toolBlocks = (turn: Turn): ReadonlyArray<ToolBlock> =>
  turn.blocks.filter((block): block is ToolBlock => block.kind === "tool")

const textOf = (turn: Turn, kind: "thinking" | "text" | "refusal"): string | null => {
  const blocks = turn.blocks.filter((block) => block.kind === kind)
  return blocks.length === 0 ? null : blocks.flatMap((block) => block.pieces).join("")
}

const callId = (ask: Ask, block: ToolBlock, index: number) => block.call.id ?? `call_${ask.sequence}_${index + 1}`

const body = (turn: Turn) => {
  const calls = toolBlocks(turn)
  const thinking = textOf(turn, "thinking")
  return {
    ...envelope(turn.ask, "chat.completion"),
    choices:
      turn.blocks.length === 0
        ? []
        : [
            {
              index: 0,
              message: {
                role: "assistant",
                content: textOf(turn, "text"),
                refusal: textOf(turn, "refusal"),
                annotations: [],
                ...(thinking === null ? {} : { reasoning_content: thinking }),
                ...(calls.length === 0
                  ? {}
                  : {
                      tool_calls: calls.map((block, index) => ({
                        id: callId(turn.ask, block, index),
                        type: "function",
                        function: { name: block.call.name, arguments: argumentsOf(block.call) },
                      })),
                    }),
              },
              logprobs: null,
              finish_reason: finishReason(turn),
            },
          ],
    ...(turn.usage === undefined ? {} : { usage: usage(turn) }),
  }
}

const deltaKeys = { thinking: "reasoning_content", text: "content", refusal: "refusal" } as const

const frames: Protocol["frames"] = (turn) => {
  const { ask } = turn
  const withUsage = ask.includeUsage && turn.usage !== undefined
  const chunk = (choices: ReadonlyArray<unknown>, lastUsage: unknown = null): Frame => ({
    data: { ...envelope(ask, "chat.completion.chunk"), choices, ...(withUsage ? { usage: lastUsage } : {}) },
  })
  const delta = (delta: Readonly<Record<string, unknown>>, reason: string | null = null) =>
    chunk([{ index: 0, delta, logprobs: null, finish_reason: reason }])
  const calls = toolBlocks(turn)
  const tokens = turn.blocks.flatMap((block) => {
    if (block.kind !== "tool") return block.pieces.map((piece) => [delta({ [deltaKeys[block.kind]]: piece })])
    const index = calls.indexOf(block)
    const head = delta({
      tool_calls: [
        {
          index,
          id: callId(ask, block, index),
          type: "function",
          function: { name: block.call.name, arguments: "" },
        },
      ],
    })
    return block.pieces.map((piece, position) => {
      const part = delta({ tool_calls: [{ index, function: { arguments: piece } }] })
      return position === 0 ? [head, part] : [part]
    })
  })
  const empty = turn.blocks.length === 0
  return {
    preamble: empty
      ? [chunk([])]
      : [delta({ role: "assistant", content: calls.length === turn.blocks.length ? null : "", refusal: null })],
    tokens,
    trailer: [...(empty ? [] : [delta({}, finishReason(turn))]), ...(withUsage ? [chunk([], usage(turn))] : [])],
    marker: [{ data: "[DONE]" }],
  }
}

const errors: Readonly<
  Record<number, { readonly message: string; readonly type: string; readonly code: string | null }>
> = {
  400: { message: "Invalid request.", type: "invalid_request_error", code: null },
  401: { message: "Incorrect API key provided.", type: "invalid_request_error", code: "invalid_api_key" },
  403: {
    message: "Country, region, or territory not supported",
    type: "request_forbidden",
    code: "unsupported_country_region_territory",
  },
  404: {
    message: "The model does not exist or you do not have access to it.",
    type: "invalid_request_error",
    code: "model_not_found",
  },
  429: { message: "Rate limit reached for requests.", type: "requests", code: "rate_limit_exceeded" },
  503: { message: "The server is currently overloaded.", type: "server_error", code: "server_is_overloaded" },
}

/** The protocol of OpenAI chat completions. */
export const protocol: Protocol = {
  requestIdHeader: "x-request-id",
  body,
  frames,
  error: (status, message) => {
    const known = errors[status] ?? {
      message: "The server had an error while processing your request.",
      type: status < 500 && status >= 400 ? "invalid_request_error" : "server_error",
      code: null,
    }
    return { ...known, message: message ?? known.message, param: null }
  },
  errorBody: (error) => ({ error }),
  errorFrame: (body) => ({ data: body }),
  unknownFrame: (ask) => ({ data: { ...envelope(ask, "chat.completion.understudy_unknown"), choices: [] } }),
  complaint: (body, { path }) => {
    if (!Predicate.isObject(body)) return "We could not parse the JSON body of your request."
    // Azure names the deployment in the path instead.
    if (typeof body["model"] !== "string" && !path.includes("/deployments/")) {
      return "you must provide a model parameter"
    }
    if (!Array.isArray(body["messages"]) || body["messages"].length === 0) {
      return "Missing required parameter: 'messages'."
    }
    return undefined
  },
}
