/**
 * One answer of the upstream before it has a dialect: blocks of content cut
 * into tokens, and what every protocol reports beside them.
 */
import type { Content, Dialect, ToolCall, Usage } from "../UpstreamScript.ts"

/** What a plan needs to know of a request. */
export interface Ask {
  readonly dialect: Dialect
  readonly model: string
  readonly streaming: boolean
  /** OpenAI `stream_options.include_usage`; Anthropic streams always have usage. */
  readonly includeUsage: boolean
  readonly inputTokens: number
  /** Counts the requests from 1: the source of every id. */
  readonly sequence: number
  readonly requestId: string
  /** Seconds since the epoch. */
  readonly created: number
}

/** A stretch of content of one kind. The pieces joined are the whole, and each is a token. */
export type Block =
  | { readonly kind: "thinking" | "text" | "refusal"; readonly pieces: ReadonlyArray<string> }
  | { readonly kind: "tool"; readonly call: ToolCall; readonly pieces: ReadonlyArray<string> }

/** An answer that has no dialect yet. */
export interface Turn {
  readonly ask: Ask
  readonly blocks: ReadonlyArray<Block>
  readonly finishReason: string
  readonly usage: Usage | undefined
}

/** An event of a stream. Data that is a string goes out verbatim. */
export interface Frame {
  readonly event?: string
  readonly data: unknown
}

/** A whole stream: `preamble`, then `tokens` (the frames of each), `trailer` and the end `marker`. */
export interface Frames {
  readonly preamble: ReadonlyArray<Frame>
  readonly tokens: ReadonlyArray<ReadonlyArray<Frame>>
  readonly trailer: ReadonlyArray<Frame>
  readonly marker: ReadonlyArray<Frame>
}

/** How a dialect writes things down. */
export interface Protocol {
  readonly requestIdHeader: string
  /** The body of a unary answer. */
  readonly body: (turn: Turn) => unknown
  readonly frames: (turn: Turn) => Frames
  /** The error object that belongs to a status. */
  readonly error: (status: number, message?: string) => unknown
  /** The body around an error object. */
  readonly errorBody: (error: unknown, requestId: string) => unknown
  /** The event that carries an error body in a stream. */
  readonly errorFrame: (body: unknown) => Frame
  /** An event that no client knows, as harmless as the protocol allows. */
  readonly unknownFrame: (ask: Ask) => Frame
  /** Why a provider would refuse this request, or undefined. */
  readonly complaint: (
    body: unknown,
    about: { readonly path: string; readonly headers: Readonly<Record<string, string>> },
  ) => string | undefined
}

/** What the made-up text is made of. */
const words = "The understudy waits in the wings and knows every line by heart.".split(/(?=\s\S)/)

const madeUp = (tokens: number): ReadonlyArray<string> =>
  Array.from({ length: tokens }, (_, index) => {
    const word = words[index % words.length] ?? ""
    return index > 0 && index % words.length === 0 ? ` ${word}` : word
  })

const characters = (text: string, size: number): ReadonlyArray<string> => {
  const all = Array.from(text)
  return Array.from({ length: Math.ceil(all.length / size) }, (_, index) =>
    all.slice(index * size, (index + 1) * size).join(""),
  )
}

const evenly = (text: string, tokens: number): ReadonlyArray<string> => {
  const all = Array.from(text)
  const count = Math.min(tokens, all.length)
  return Array.from({ length: count }, (_, index) =>
    all.slice(Math.floor((index * all.length) / count), Math.floor(((index + 1) * all.length) / count)).join(""),
  )
}

const wordsOf = (text: string): ReadonlyArray<string> => (text === "" ? [] : text.split(/(?=\s\S)/u))

/** The arguments of a call as they go over the wire. */
export const argumentsOf = (call: ToolCall): string =>
  typeof call.arguments === "string" ? call.arguments : JSON.stringify(call.arguments)

/**
 * The turn that a step describes. `atLeast` is how many tokens made-up text
 * must have; `usage: false` leaves usage out.
 */
export const make = (
  ask: Ask,
  content: Content,
  options: { readonly atLeast?: number; readonly usage?: boolean; readonly blocks?: ReadonlyArray<Block> } = {},
): Turn => {
  const blocks = options.blocks ?? blocksOf(content, options.atLeast ?? 0)
  const outputTokens = blocks.reduce((sum, block) => sum + block.pieces.length, 0)
  return {
    ask,
    blocks,
    finishReason: content.finishReason ?? naturalReason(blocks, ask.dialect),
    usage: options.usage === false ? undefined : (content.usage ?? { inputTokens: ask.inputTokens, outputTokens }),
  }
}

const blocksOf = (content: Content, atLeast: number): ReadonlyArray<Block> => {
  const blocks: Array<Block> = []
  if (content.thinking !== undefined) blocks.push({ kind: "thinking", pieces: wordsOf(content.thinking) })
  if (content.answer !== undefined) {
    blocks.push({
      kind: "text",
      pieces: content.tokens === undefined ? wordsOf(content.answer) : evenly(content.answer, content.tokens),
    })
  } else if (content.refusal === undefined && content.toolCalls === undefined) {
    blocks.push({ kind: "text", pieces: madeUp(content.tokens ?? Math.max(words.length, atLeast)) })
  }
  if (content.refusal !== undefined) blocks.push({ kind: "refusal", pieces: wordsOf(content.refusal) })
  for (const call of content.toolCalls ?? []) {
    const pieces = characters(argumentsOf(call), 8)
    blocks.push({ kind: "tool", call, pieces: pieces.length === 0 ? [""] : pieces })
  }
  return blocks
}

const naturalReason = (blocks: ReadonlyArray<Block>, dialect: Dialect): string => {
  if (blocks.some((block) => block.kind === "tool")) return "tool_calls"
  return dialect === "anthropic" && blocks.some((block) => block.kind === "refusal") ? "refusal" : "stop"
}
