/** Shortens texts: the head and the tail stay, and a mark says how much is missing between them. */
import * as Prompt from "effect/ai/Prompt"
import * as Effect from "effect/Effect"
import { textOfResult } from "./weigh.ts"

/** Counts a text. */
export type Count = (text: string) => Effect.Effect<number>

const isHigh = (unit: number): boolean => (unit & 0xfc00) === 0xd800
const isLow = (unit: number): boolean => (unit & 0xfc00) === 0xdc00

/** The first and the last of a text, so many characters together. No pair of surrogates is cut. */
const headAndTail = (text: string, characters: number): string => {
  let head = Math.ceil(characters / 2)
  let tail = text.length - Math.floor(characters / 2)
  if (head > 0 && isHigh(text.charCodeAt(head - 1))) head--
  if (isLow(text.charCodeAt(tail))) tail++
  return `${text.slice(0, head)}\n[… ${tail - head} characters left out …]\n${text.slice(tail)}`
}

/** A text is not made shorter than this, in tokens. */
export const shortest = 32

const maxTries = 12

/**
 * The text itself if it has so many tokens at most, else its head and its tail.
 * `undefined` when it cannot be that short.
 */
export const cut = (text: string, tokens: number, count: Count): Effect.Effect<string | undefined> =>
  Effect.gen(function* () {
    const whole = yield* count(text)
    if (whole <= tokens) return text
    if (tokens < shortest) return undefined
    // The mark has some ten tokens itself.
    let characters = Math.floor((text.length * (tokens - 12)) / whole)
    for (let tries = 0; tries < maxTries && characters >= 0; tries++) {
      const shorter = headAndTail(text, characters)
      const counted = yield* count(shorter)
      if (counted <= tokens) return shorter
      // What stays may be heavier than what went.
      characters = Math.floor(characters * Math.min(0.9, tokens / counted))
    }
    return undefined
  })

/** A text in a prompt that may be shortened: in which message, part of it, and part of what a tool gave. */
interface Place {
  readonly text: string
  readonly message: number
  readonly part: number
  readonly output?: number
}

/** The texts of what a tool gave. */
const ofResult = ({ modelOutput, result }: Prompt.ToolResultPart, message: number, part: number): Array<Place> =>
  modelOutput === undefined
    ? [{ text: textOfResult(result), message, part }]
    : modelOutput.flatMap((said, output) => (said.type === "text" ? [{ text: said.text, message, part, output }] : []))

/** What the user said, and what tools gave, in these messages. */
const placesOf = (messages: ReadonlyArray<Prompt.Message>, within: ReadonlyArray<number>): Array<Place> =>
  within.flatMap((index) => {
    const message = messages[index]!
    if (message.role !== "user" && message.role !== "tool") return []
    return message.content.flatMap((part: Prompt.UserMessagePart | Prompt.ToolMessagePart, at) =>
      part.type === "tool-result"
        ? ofResult(part, index, at)
        : part.type === "text"
          ? [{ text: part.text, message: index, part: at }]
          : [],
    )
  })

const resultWith = (result: Prompt.ToolResultPart, { output }: Place, text: string): Prompt.ToolResultPart =>
  result.modelOutput === undefined
    ? { ...result, result: text }
    : {
        ...result,
        modelOutput: result.modelOutput.map((part, at) =>
          at === output && part.type === "text" ? { ...part, text } : part,
        ),
      }

/** The message with another text there. */
const messageWith = (message: Prompt.Message, place: Place, text: string): Prompt.Message => {
  switch (message.role) {
    case "user": {
      const content = message.content.map((part, at) =>
        at === place.part && part.type === "text" ? { ...part, text } : part,
      )
      return Prompt.userMessage({ content, options: message.options })
    }
    case "tool": {
      const content = message.content.map((part, at) =>
        at === place.part && part.type === "tool-result" ? resultWith(part, place, text) : part,
      )
      return Prompt.toolMessage({ content, options: message.options })
    }
    case "system":
    case "assistant":
      return message
  }
}

/**
 * Messages with less text in some of them, by at least `excess` tokens if that
 * can be: the longest text is shortened first.
 */
export const shortened = (
  messages: ReadonlyArray<Prompt.Message>,
  within: ReadonlyArray<number>,
  excess: number,
  count: Count,
): Effect.Effect<ReadonlyArray<Prompt.Message>> =>
  Effect.gen(function* () {
    const all = yield* Effect.forEach(placesOf(messages, within), (place) =>
      Effect.map(count(place.text), (tokens) => ({ place, tokens })),
    )
    const out = [...messages]
    let left = excess
    for (const { place, tokens } of all.toSorted((a, b) => b.tokens - a.tokens)) {
      if (left <= 0) break
      const shorter = yield* cut(place.text, Math.max(shortest, tokens - left), count)
      if (shorter === undefined || shorter === place.text) continue
      out[place.message] = messageWith(out[place.message]!, place, shorter)
      left -= tokens - (yield* count(shorter))
    }
    return out
  })
