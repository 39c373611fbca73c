/** How many tokens a request may take, told before it is sent. */
import * as Effect from "effect/Effect"
import { embeddingModelFace, type Request as Texts } from "../../EmbeddingModelFace.ts"
import type { Any } from "../../Face.ts"
import { languageModelFace, type Request } from "../../LanguageModelFace.ts"
import * as TokenCounter from "../../TokenCounter.ts"
import type { CallRecord } from "../callRecord.ts"

/** Tokens of a prompt, and of the answer at most. */
export interface Tokens {
  readonly input: number
  readonly output: number
}

/** Estimates a request. `answer`: what an answer is taken for, when the call does not bound it. */
export type Estimate = (request: unknown, record: CallRecord, answer: number) => Effect.Effect<Tokens>

const ofPrompt: Estimate = (request, record, answer) =>
  Effect.map(TokenCounter.count(request as Request), (input) => ({
    input,
    output: record.overrides.parameters?.maxTokens ?? answer,
  }))

const ofTexts: Estimate = (request) =>
  Effect.map(
    Effect.forEach((request as Texts).inputs, (text) => TokenCounter.count(text)),
    (counts) => ({ input: counts.reduce((sum, count) => sum + count, 0), output: 0 }),
  )

/** The same number for every request. */
export const fixed =
  (input: number): Estimate =>
  () =>
    Effect.succeed({ input, output: 0 })

/** The estimate for requests of a face; one that has no tokens has none. */
export const estimateFor = (face: Any): Estimate =>
  face === languageModelFace ? ofPrompt : face === embeddingModelFace ? ofTexts : fixed(0)

/** Does a request offer tools? They can do what must not be done twice. */
export const hasTools = (request: unknown): boolean =>
  typeof request === "object" &&
  request !== null &&
  "tools" in request &&
  Array.isArray(request.tools) &&
  request.tools.length > 0
