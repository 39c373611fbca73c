/**
 * Truncation: makes a prompt fit into so many tokens, by leaving out what is
 * missed least.
 *
 * System messages stay, and so does the last turn of the user with what the
 * model answers to now. A call of a tool and its result stay or go together.
 * What is left is in its old order, and a prompt that fits is not touched.
 *
 * **Details**
 *
 * - What goes first are whole exchanges, the oldest first: what the user said,
 *   and all that came of it. So the history still begins with the user.
 * - Then goes what has been done for the last turn, the oldest first: answers,
 *   and calls of tools with their results. The latest of them stays, since the
 *   model is about to answer to it.
 * - `keep head and tail` keeps the first exchange until nothing else is left to
 *   go. That is where a long task is often explained.
 * - `summarise` gets what goes, and its text stands in its place, in a turn of
 *   the user that says that it is a summary.
 * - `shortenLast` allows to shorten the text of the last turn, and of what tools
 *   gave for it, when all else is gone: head and tail stay, with a mark between.
 * - Tokens are counted by `TokenCounter`. The whole takes time that is linear in
 *   the prompt.
 *
 * **Example** (A conversation that is kept short)
 *
 * ```ts
 * import { Truncation } from "@understudy/core"
 * import { Effect } from "effect"
 * import { Prompt } from "effect/ai"
 *
 * export const short = (history: Prompt.Prompt) =>
 *   Effect.map(Truncation.fit(history, { limit: 8000 }), ({ prompt }) => prompt)
 * ```
 */
import * as Prompt from "effect/ai/Prompt"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { checked, Count } from "./internal/options.ts"
import { type Group, type Layout, layoutOf } from "./internal/recovery/layout.ts"
import * as Shorten from "./internal/recovery/shorten.ts"
import * as Weigh from "./internal/recovery/weigh.ts"
import * as TokenCounter from "./TokenCounter.ts"

/**
 * What goes first.
 *
 * - `drop oldest`: the oldest exchange
 * - `keep head and tail`: the oldest behind the first
 */
export const Strategy = Schema.Literals(["drop oldest", "keep head and tail"])

/** What goes first. */
export type Strategy = typeof Strategy.Type

/** How a prompt is made to fit. */
export const Options = Schema.Struct({
  /** What goes first. Default `drop oldest`. */
  strategy: Schema.optional(Strategy),
  /** So many exchanges are the head, for `keep head and tail`. Default 1. */
  head: Schema.optional(Count),
  /** A summary is no longer than this, in tokens. Default 1,024, and an eighth of the limit at most. */
  summaryTokens: Schema.optional(Count),
  /** May the text of the last turn be shortened, when nothing else helps? Default false. */
  shortenLast: Schema.optional(Schema.Boolean),
})

/** How a prompt is made to fit. */
export interface Options extends Schema.Schema.Type<typeof Options> {}

/** Who writes a summary of what goes. Without a text, nothing stands in its place. */
export interface Summarising<out E = never, out R = never> {
  readonly summarise?: ((dropped: ReadonlyArray<Prompt.Message>) => Effect.Effect<string | undefined, E, R>) | undefined
}

/** A prompt that was made to fit, as far as that can be. */
export interface Fitted {
  readonly prompt: Prompt.Prompt
  /** What was left out, in order. */
  readonly dropped: ReadonlyArray<Prompt.Message>
  /** Does a summary stand in its place? */
  readonly summarised: boolean
  /** Was the text of the last turn shortened? */
  readonly shortened: boolean
  /** Tokens of the prompt now. */
  readonly tokens: number
  /** Are there no more than the limit? If not, nothing more may go. */
  readonly fits: boolean
}

/** In which order groups go. */
const order = (layout: Layout, strategy: Strategy, head: number): ReadonlyArray<Group> => {
  const { exchanges, underWay } = layout
  return strategy === "drop oldest"
    ? [...exchanges, ...underWay]
    : [...exchanges.slice(head), ...underWay, ...exchanges.slice(0, head).toReversed()]
}

/** What goes, so that no more than so many tokens are left, if that can be. */
const leaving = (
  groups: ReadonlyArray<Group>,
  tokens: ReadonlyArray<number>,
  total: number,
  limit: number,
): { readonly gone: ReadonlySet<number>; readonly total: number } => {
  const gone = new Set<number>()
  let left = total
  for (const group of groups) {
    if (left <= limit) break
    for (const index of group) {
      gone.add(index)
      left -= tokens[index]!
    }
  }
  return { gone, total: left }
}

const opening = "[What follows between the marks is a summary of earlier messages, which were left out.]\n<summary>\n"
const closing = "\n</summary>"

/** A summary in its place. Its own text cannot end it. */
const summaryMessage = (text: string): Prompt.Message =>
  Prompt.makeMessage("user", {
    content: [Prompt.textPart({ text: `${opening}${text.replaceAll("</summary>", "")}${closing}` })],
  })

/**
 * A prompt of no more than `limit` tokens, as long as what must stay allows it.
 * Fails as `summarise` does.
 */
export const fit = <E = never, R = never>(
  prompt: Prompt.Prompt,
  options: Options & Summarising<E, R> & { /** Tokens of the prompt at most. */ readonly limit: number },
): Effect.Effect<Fitted, E, R> => {
  const { limit, summarise, ...rest } = options
  const o = checked("Truncation.fit", Options, rest)
  return Effect.gen(function* () {
    const counter = yield* TokenCounter.Current
    const messages = prompt.content
    const tokens = yield* Effect.forEach(messages, counter.count)
    const total = tokens.reduce((sum, count) => sum + count, Weigh.perPrompt)
    const untouched: Fitted = { prompt, dropped: [], summarised: false, shortened: false, tokens: total, fits: true }
    if (total <= limit) return untouched

    const layout = layoutOf(messages)
    const groups = order(layout, o.strategy ?? "drop oldest", o.head ?? 1)
    const without = leaving(groups, tokens, total, limit)

    // A summary needs room of its own: more may have to go for it.
    const room = Math.min(o.summaryTokens ?? 1024, Math.floor(limit / 8))
    const frame = summarise === undefined ? 0 : yield* counter.count(summaryMessage(""))
    const withRoom = leaving(groups, tokens, total, limit - room - frame)
    let { gone } = without
    let summary: Prompt.Message | undefined
    if (summarise !== undefined && withRoom.gone.size > 0 && withRoom.total <= limit - room - frame) {
      const text = yield* summarise(messages.filter((_, index) => withRoom.gone.has(index)))
      const short = text === undefined ? "" : ((yield* Shorten.cut(text.trim(), room, counter.count)) ?? "")
      if (short !== "") {
        gone = withRoom.gone
        summary = summaryMessage(short)
      }
    }

    let kept: ReadonlyArray<Prompt.Message> = messages
    let shortened = false
    if (without.total > limit && o.shortenLast === true) {
      // A little more than what is too much, since counts of parts are rounded.
      kept = yield* Shorten.shortened(
        messages,
        [...layout.lastTurn, ...layout.end],
        without.total - limit + 2,
        counter.count,
      )
      shortened = kept.some((message, index) => message !== messages[index])
    }

    // Where the first that goes stood, and never behind the question.
    const place = Math.min(
      messages.findIndex((_, index) => gone.has(index)),
      layout.lastTurn[0] ?? Infinity,
    )
    const out: Array<Prompt.Message> = []
    for (const [index, message] of kept.entries()) {
      if (index === place && summary !== undefined) out.push(summary)
      if (!gone.has(index)) out.push(message)
    }
    if (gone.size === 0 && !shortened) return { ...untouched, fits: false }
    const fitted = Prompt.fromMessages(out)
    const now = yield* counter.count(fitted)
    return {
      prompt: fitted,
      dropped: messages.filter((_, index) => gone.has(index)),
      summarised: summary !== undefined,
      shortened,
      tokens: now,
      fits: now <= limit,
    }
  })
}
