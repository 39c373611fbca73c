/**
 * Who made a part of an answer.
 *
 * A composition has one name, but a candidate answers. The parts of an answer
 * tell which: their metadata hold `understudy: { provider, model }`, through
 * `effect/ai`, into a chat's history and back. So a program can say who
 * answered, and `History` knows whose signatures a history holds.
 *
 * **Details**
 *
 * - `LanguageModelLayer` and `TypedLanguageModel` mark what they give out. An
 *   answer without a `response-metadata` part gets one.
 * - Where there is a degradation ladder, the mark holds the rung, too:
 *   `understudy: { provider, model, source }`.
 * - The services `Model.ProviderName` and `Model.ModelName` are fixed when the
 *   layer is built: they name the composition.
 *
 * **Example** (Who answered)
 *
 * ```ts
 * import { Origin } from "@understudy/core"
 * import { Effect } from "effect"
 * import { LanguageModel } from "effect/ai"
 *
 * export const signed = Effect.gen(function* () {
 *   const response = yield* LanguageModel.generateText({ prompt: "Who wrote Dune?" })
 *   const origin = Origin.ofAnswer(response.content)
 *   return `${response.text} (${origin?.provider ?? "nobody"})`
 * })
 * ```
 */
import type * as Response from "effect/ai/Response"
import * as Schema from "effect/Schema"
import { Source } from "./PolicyEvent.ts"

/** The key under which the metadata of a part are ours. */
export const namespace = "understudy"

/** A provider and the model that it asks, and the rung of the ladder that the answer came from. */
export const Origin = Schema.Struct({
  /** The provider's name, as the composition names it. */
  provider: Schema.String,
  model: Schema.String,
  /** Where there is a ladder. */
  source: Schema.optionalKey(Source),
})

/** A provider and the model that it asks, and the rung of the ladder that the answer came from. */
export interface Origin extends Schema.Schema.Type<typeof Origin> {}

/** A part of an answer has metadata, one of a prompt has options: they are the same. */
interface Part {
  readonly metadata?: Response.ProviderMetadata | undefined
  readonly options?: Response.ProviderMetadata | undefined
}

const isOrigin = Schema.is(Origin)

/** Who made this part of an answer or a prompt; `undefined` for what nobody marked. */
export const of = (part: Part): Origin | undefined => {
  const mark = (part.metadata ?? part.options)?.[namespace]
  return isOrigin(mark) ? mark : undefined
}

/** Who made this answer: the first mark in it. */
export const ofAnswer = (parts: Iterable<Part>): Origin | undefined => {
  for (const part of parts) {
    const origin = of(part)
    if (origin !== undefined) return origin
  }
  return undefined
}

/** Are these the same provider and model? */
export const same = (a: Origin, b: Origin): boolean => a.provider === b.provider && a.model === b.model

/** Of a block in a stream its beginning is enough. */
const unmarked = new Set<Response.AnyPartEncoded["type"]>([
  "text-delta",
  "text-end",
  "reasoning-delta",
  "reasoning-end",
  "tool-params-start",
  "tool-params-delta",
  "tool-params-end",
  "error",
])

/** Marks a part of an answer or a stream. One that is marked already only takes the rung. */
export const mark = <P extends Response.AnyPartEncoded>(part: P, origin: Origin): P => {
  if (unmarked.has(part.type)) return part
  const before = of(part)
  if (before !== undefined && (origin.source === undefined || before.source === origin.source)) return part
  const { model, provider } = before ?? origin
  const { source } = origin
  const mark = source === undefined ? { provider, model } : { provider, model, source }
  return { ...part, metadata: { ...part.metadata, [namespace]: mark } }
}
