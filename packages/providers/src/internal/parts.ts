/** What all adapters need to make response parts. */
import type * as LanguageModelFace from "@understudy/core/LanguageModelFace"
import * as LlmError from "@understudy/core/LlmError"
import type * as Response from "effect/ai/Response"
import * as Tool from "effect/ai/Tool"
import * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"
import { present } from "./json.ts"
import * as Asked from "./asked.ts"

type Part = LanguageModelFace.Part

/** Is it a failure, and not what was to be made? */
export const isFailure = (u: unknown): u is LlmError.ProviderFailure => LlmError.isLlmError(u)

// ---------------------------------------------------------------------------
// Metadata and usage
// ---------------------------------------------------------------------------

/** Who answered, and when. */
export const metadata = (said: {
  readonly id: string | undefined
  readonly modelId: string | undefined
  readonly millis: number | undefined
}): Response.ResponseMetadataPartEncoded => {
  const timestamp = said.millis === undefined ? undefined : Option.getOrUndefined(DateTime.make(said.millis))
  return {
    type: "response-metadata",
    ...present({
      id: said.id,
      modelId: said.modelId,
      timestamp: timestamp === undefined ? undefined : DateTime.formatIso(timestamp),
    }),
  }
}

/** The difference, where both are known; never below zero. */
export const minus = (a: number | undefined, b: number | undefined): number | undefined =>
  a === undefined ? undefined : Math.max(0, a - (b ?? 0))

/** Tokens, as far as they are known. */
export const usage = (said: {
  readonly input: number | undefined
  readonly uncached: number | undefined
  readonly cacheRead: number | undefined
  readonly cacheWrite: number | undefined
  readonly output: number | undefined
  readonly reasoning: number | undefined
  readonly text: number | undefined
}): typeof Response.Usage.Encoded => ({
  inputTokens: present({
    total: said.input,
    uncached: said.uncached,
    cacheRead: said.cacheRead,
    cacheWrite: said.cacheWrite,
  }),
  outputTokens: present({ total: said.output, text: said.text, reasoning: said.reasoning }),
})

// ---------------------------------------------------------------------------
// Tools
// ---------------------------------------------------------------------------

/**
 * The parameters of a tool call. None at all are an empty object. What is not
 * strict JSON stays the text that it is, for whoever judges the answer: it can
 * be mended, or asked for again. What was cut off is of no use to anyone.
 */
export const params = (
  asked: Asked.Asked,
  json: string,
  cut: boolean,
): { readonly value: unknown } | LlmError.InvalidResponse => {
  if (json.trim() === "") return { value: {} }
  try {
    return { value: Tool.unsafeSecureJsonParse(json) }
  } catch {
    return cut
      ? Asked.invalid(asked, "content", "It reached its token limit inside the arguments of a tool call.", json)
      : { value: json }
  }
}

// ---------------------------------------------------------------------------
// Blocks
// ---------------------------------------------------------------------------

type Metadata = Response.TextStartPartEncoded["metadata"]

/** The text and reasoning of a stream whose deltas do not say where a block begins and ends. */
export class Blocks {
  private open: { readonly kind: "text" | "reasoning"; readonly id: string } | undefined = undefined
  private blocks = 0

  delta(kind: "text" | "reasoning", delta: string, out: Array<Part>, metadata?: Metadata): void {
    if (this.open?.kind !== kind) {
      this.close(out)
      this.open = { kind, id: `${kind}-${this.blocks++}` }
      const { id } = this.open
      out.push(kind === "text" ? { type: "text-start", id } : { type: "reasoning-start", id, metadata })
    }
    const { id } = this.open
    out.push(kind === "text" ? { type: "text-delta", id, delta } : { type: "reasoning-delta", id, delta })
  }

  close(out: Array<Part>): void {
    if (this.open === undefined) return
    const { id, kind } = this.open
    out.push(kind === "text" ? { type: "text-end", id } : { type: "reasoning-end", id })
    this.open = undefined
  }
}
