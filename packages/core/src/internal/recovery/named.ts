/** Takes out of a prompt what a refusal names: by its place, or by quoting it. */
import * as Prompt from "effect/ai/Prompt"
import * as Redacted from "effect/Redacted"
import { flatten } from "../attached.ts"
import { objectionOfBody } from "../classifier/filtered.ts"
import type { ContentFiltered } from "../llmError.ts"
import { textOfResult } from "./weigh.ts"

/** Stands where something was taken out, so that turns, and calls with their results, stay in their order. */
export const note = "[This part was left out because of a content policy.]"

/** Does it name this part? `wire` is the message as OpenAI's protocol counts, `part` its place there. */
interface Names {
  (text: string, wire: number, part: number): boolean
}

const shortestQuote = 8

/** A quote may be shortened in its middle, with dots in place of what is missing. */
const quotes = (quote: string): ((text: string) => boolean) => {
  const pieces = quote.split(/\s*(?:\.{3}|…)\s*/).filter((piece) => piece !== "")
  const whole = pieces.length === 1
  return (text) => {
    if (whole && text.trim() === quote.trim()) return true
    let from = 0
    for (const piece of pieces) {
      // What is too short is found anywhere.
      if (piece.length < shortestQuote) continue
      const at = text.indexOf(piece, from)
      if (at < 0) return false
      from = at + piece.length
    }
    return from > 0
  }
}

/** What the body of a refusal quotes. Of a thrown error nothing is read. */
const quotedIn = (cause: unknown): string | undefined => {
  try {
    return cause instanceof Error ? undefined : objectionOfBody(cause).quoted
  } catch {
    // A body that cannot be read names nothing.
    return undefined
  }
}

const namesOf = (failure: ContentFiltered): ReadonlyArray<Names> =>
  flatten([failure]).flatMap((refusal): ReadonlyArray<Names> => {
    if (refusal._tag !== "ContentFiltered" || refusal.stage === "answer") return []
    const { cause, named } = refusal
    const out: Array<Names> = []
    if (named !== undefined) {
      out.push((_, wire, part) => wire === named.message && (named.part === undefined || named.part === part))
    }
    const quoted = cause === undefined ? undefined : quotedIn(Redacted.value(cause))
    if (quoted !== undefined) {
      const isQuoted = quotes(quoted)
      out.push((text) => isQuoted(text))
    }
    return out
  })

const textOf = (part: Prompt.Part): string => {
  switch (part.type) {
    case "text":
      return part.text
    case "tool-result":
      return part.modelOutput === undefined ? textOfResult(part.result) : Prompt.toolModelOutputToText(part.modelOutput)
    default:
      return ""
  }
}

const withheld = (result: Prompt.ToolResultPart): Prompt.ToolResultPart => {
  const { modelOutput: _, ...rest } = result
  return { ...rest, result: note }
}

/** The message without what is named; itself when nothing is. `wire` is where it begins as OpenAI's protocol counts. */
const without = (message: Prompt.Message, wire: number, isNamed: Names): Prompt.Message => {
  switch (message.role) {
    case "system":
      return message
    case "user": {
      const content = message.content.filter((part, at) => !isNamed(textOf(part), wire, at))
      if (content.length === message.content.length) return message
      return Prompt.userMessage({
        content: content.length === 0 ? [Prompt.textPart({ text: note })] : content,
        options: message.options,
      })
    }
    case "assistant": {
      // Of an answer only text goes: what it signed, and what it called, must stay as it was.
      const content = message.content.filter((part, at) => part.type !== "text" || !isNamed(part.text, wire, at))
      if (content.length === message.content.length) return message
      return Prompt.assistantMessage({
        content: content.length === 0 ? [Prompt.textPart({ text: note })] : content,
        options: message.options,
      })
    }
    case "tool": {
      let at = wire - 1
      const content = message.content.map((part) => {
        if (!isSentResult(part)) return part
        at++
        return isNamed(textOf(part), at, 0) ? withheld(part) : part
      })
      if (content.every((part, index) => part === message.content[index])) return message
      return Prompt.toolMessage({ content, options: message.options })
    }
  }
}

const isSentResult = (part: Prompt.Part): part is Prompt.ToolResultPart =>
  part.type === "tool-result" && !part.providerExecuted

const isSentAnswer = (part: Prompt.Part): boolean =>
  (part.type === "text" && part.text !== "") || (part.type === "tool-call" && !part.providerExecuted)

/** How many messages it is on the wire. */
const wireLength = (message: Prompt.Message): number => {
  switch (message.role) {
    case "tool":
      return message.content.filter(isSentResult).length
    case "assistant":
      return message.content.some(isSentAnswer) ? 1 : 0
    case "system":
    case "user":
      return 1
  }
}

/**
 * The prompt without the parts that a refusal names; `undefined` when it names
 * none, or when nothing would be left of the last thing that the user said.
 * System messages stay as they are.
 */
export const withoutNamed = (prompt: Prompt.Prompt, failure: ContentFiltered): Prompt.Prompt | undefined => {
  const names = namesOf(failure)
  if (names.length === 0) return undefined
  const isNamed: Names = (text, wire, part) => names.some((name) => name(text, wire, part))
  const lastUser = prompt.content.findLastIndex((message) => message.role === "user")
  const out: Array<Prompt.Message> = []
  let wire = 0
  let changed = false
  for (const [index, message] of prompt.content.entries()) {
    const left = without(message, wire, isNamed)
    if (left !== message) {
      changed = true
      // Without the question there is nothing to ask.
      if (index === lastUser && isOnlyNote(left)) return undefined
    }
    out.push(left)
    wire += wireLength(message)
  }
  return changed ? Prompt.fromMessages(out) : undefined
}

const isOnlyNote = (message: Prompt.Message): boolean =>
  message.role === "user" && message.content.every((part) => part.type === "text" && part.text === note)
