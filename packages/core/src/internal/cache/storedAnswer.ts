/**
 * Answers of language models as a cache keeps them: encoded parts, and only
 * those that can be said again. What calls a tool, was cut off or refused is
 * not among them, neither on the way in nor on the way out.
 */
import * as Response from "effect/ai/Response"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import type { Answer, Part } from "../../LanguageModelFace.ts"
import * as LanguageModelFace from "../../LanguageModelFace.ts"
import { namespace } from "../../Origin.ts"

/** The parts that can be said again. */
const Parts = Schema.Array(
  Schema.Union([
    Response.TextPart,
    Response.ReasoningPart,
    Response.FilePart,
    Response.DocumentSourcePart,
    Response.UrlSourcePart,
    Response.ResponseMetadataPart,
    Response.FinishPart,
  ]),
)

type Stored = (typeof Parts.Encoded)[number]

const decode = Schema.decodeUnknownExit(Parts)

/** Would all that comes after us accept it? */
const isStored = (parts: unknown): parts is ReadonlyArray<Stored> => Exit.isSuccess(decode(parts))

/** Nothing was asked, so nothing was spent. */
const free = { inputTokens: { total: 0 }, outputTokens: { total: 0 } } as const

/** Did it end by itself? */
const isWhole = (parts: ReadonlyArray<Stored>): boolean =>
  parts.some((part) => part.type === "finish") &&
  parts.every((part) => part.type !== "finish" || part.reason === "stop")

/** Without our marks, which are of that call, and without the details of the request, which may hold secrets. */
const stripped = (part: Stored): Stored => {
  const { [namespace]: _ours, ...metadata } = part.metadata ?? {}
  const kept = Object.keys(metadata).length === 0 ? {} : { metadata }
  switch (part.type) {
    case "response-metadata": {
      const { id, modelId, timestamp, type } = part
      return { type, id, modelId, timestamp, ...kept }
    }
    case "finish": {
      const { reason, type, usage } = part
      return { type, reason, usage, ...kept }
    }
    default: {
      const { metadata: _metadata, ...rest } = part
      return { ...rest, ...kept }
    }
  }
}

/** The answer as it is kept, or nothing if it must not be. */
export const store = (answer: Answer): ReadonlyArray<Stored> | undefined =>
  isStored(answer) && isWhole(answer) ? answer.map(stripped) : undefined

/** The answer that was kept, or nothing if this is none. It says that it cost nothing. */
export const restore = (kept: unknown): Answer | undefined =>
  isStored(kept) && isWhole(kept)
    ? kept.map((part) => (part.type === "finish" ? { ...stripped(part), usage: free } : stripped(part)))
    : undefined

/** A text as an answer that cost nothing. */
export const ofText = (text: string): Answer => [
  { type: "text", text },
  { type: "finish", reason: "stop", usage: free },
]

/** Hears a stream, and has its answer at the end. */
export class Collector {
  private readonly parts: Array<Part> = []
  private said = 0
  private held = 0
  private worthwhile = true
  private readonly longest: number

  /** Answers that are longer than this, in characters, are not collected. Each part is one at least. */
  constructor(longest: number) {
    this.longest = longest
  }

  hear(parts: Iterable<Part>): void {
    for (const part of parts) {
      if (!this.worthwhile) return
      const said = part.type === "text-delta" || part.type === "reasoning-delta" ? part.delta.length : 0
      this.said += said
      this.held += Math.max(1, part.type === "file" ? part.data.length : said)
      this.parts.push(part)
      // A call of a tool is not kept, so what is around it need not be.
      if (this.held > this.longest || neverKept.has(part.type)) this.forget()
    }
  }

  private forget(): void {
    this.worthwhile = false
    this.parts.length = 0
  }

  /** The answer, once the stream has ended by itself. */
  answer(): Answer | undefined {
    if (!this.worthwhile || this.parts.at(-1)?.type !== "finish") return undefined
    const answer = LanguageModelFace.collected(this.parts)
    // What stood in no block is not in it.
    return answer.reduce((left, part) => ("text" in part ? left - part.text.length : left), this.said) === 0
      ? answer
      : undefined
  }
}

const neverKept: ReadonlySet<Part["type"]> = new Set([
  "tool-params-start",
  "tool-params-delta",
  "tool-params-end",
  "tool-call",
  "tool-result",
  "tool-approval-request",
  "error",
])
