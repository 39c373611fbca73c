/** Whom a call may ask, in which order: by what is set for them, by how they did, and by what is asked. */
import type * as Prompt from "effect/ai/Prompt"
import * as Effect from "effect/Effect"
import type { Any } from "../../Face.ts"
import { languageModelFace } from "../../LanguageModelFace.ts"
import * as TokenCounter from "../../TokenCounter.ts"
import type { CallRecord } from "../callRecord.ts"
import { estimateFor } from "../limits/tokens.ts"
import { hasMedia } from "../recovery/weigh.ts"
import { inOrder, type Order } from "./order.ts"
import type { Kind } from "./tally.ts"
import type { Entry } from "./view.ts"
import { atLeast, holding } from "./window.ts"

/** Tokens of an answer, for the order `cost`, where the call does not bound it. */
const typicalAnswer = 500

interface Who {
  readonly name: string
  readonly model: string
}

/** What is asked, and by which rules somebody is chosen. */
export interface Question {
  readonly order: Order
  /** Is a context window known, of one of them? */
  readonly windows: boolean
  readonly face: Any
  readonly request: unknown
  readonly record: CallRecord
  readonly kind: Kind
}

const noTokens = { input: 0, output: 0 }

const sorted = <P>(
  entries: ReadonlyArray<Entry<P>>,
  { kind, order, record }: Question,
  tokens: { readonly input: number; readonly output: number },
): ReadonlyArray<Entry<P>> =>
  inOrder(entries, order, { kind, now: record.now(), chance: () => record.random.nextDoubleUnsafe(), tokens })

/** Tells of those whose window cannot hold the prompt, and gives the others. */
const thatHold = <P extends Who>(
  entries: ReadonlyArray<Entry<P>>,
  record: CallRecord,
  input: number,
  exact: boolean,
): ReadonlyArray<Entry<P>> => {
  const counted = { input, output: record.overrides.parameters?.maxTokens ?? 0, exact }
  const { cannot, may } = holding(entries, counted)
  if (record.observer !== undefined) {
    const tokens = Math.floor(atLeast(counted))
    for (const { contextWindow, provider } of cannot) {
      if (contextWindow === undefined) continue
      record.emit({ event: "PassedOver", provider: provider.name, model: provider.model, tokens, contextWindow })
    }
  }
  return may
}

/** Puts those who may be asked in order. Tokens are counted only where it matters how many there are. */
export const choose = <P extends Who>(
  entries: ReadonlyArray<Entry<P>>,
  question: Question,
): ReadonlyArray<Entry<P>> | Effect.Effect<ReadonlyArray<Entry<P>>> => {
  const { face, order, record, request, windows } = question
  if (entries.length < 2) return entries
  const measured = windows && face === languageModelFace
  if (!measured && order !== "cost") return order === "priority" ? entries : sorted(entries, question, noTokens)
  return Effect.flatMap(TokenCounter.Current, ({ exact }) =>
    Effect.map(estimateFor(face)(request, record, typicalAnswer), (tokens) => {
      const sure = exact && !hasMedia((request as { readonly prompt: Prompt.Prompt }).prompt)
      return sorted(measured ? thatHold(entries, record, tokens.input, sure) : entries, question, tokens)
    }),
  )
}
