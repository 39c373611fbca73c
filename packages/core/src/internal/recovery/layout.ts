/** What of a prompt stays together, what always stays, and in which order the rest may go. */
import type * as Prompt from "effect/ai/Prompt"

/** Messages, by their index, that stay or go together. */
export type Group = ReadonlyArray<number>

/** A prompt as truncation sees it. Every message is in exactly one place, and groups are in the prompt's order. */
export interface Layout {
  /** System messages. They stay. */
  readonly system: Group
  /** Whole exchanges before the last turn of the user: what the user said, and all that came of it. */
  readonly exchanges: ReadonlyArray<Group>
  /** The last turn of the user. It stays. */
  readonly lastTurn: Group
  /** What has been done for it so far: answers, and calls of tools with their results. */
  readonly underWay: ReadonlyArray<Group>
  /** The end of that: what the model answers to now. It stays. */
  readonly end: Group
}

/**
 * Where no cut may be made: `glued[i]` says that message `i` and the one behind
 * it stay together. A call of a tool and whatever belongs to it (result, request
 * for approval, approval) enclose all that is between; consecutive messages of
 * the assistant are one answer.
 */
const glue = (messages: ReadonlyArray<Prompt.Message>): ReadonlyArray<boolean> => {
  const edges = new Int32Array(messages.length + 1)
  const join = (from: number | undefined, to: number): void => {
    if (from === undefined || from === to) return
    edges[from]!++
    edges[to]!--
  }
  // Ids may come again: a result belongs to the last call with its id.
  const calls = new Map<string, number>()
  const requests = new Map<string, number>()
  let before: Prompt.Message["role"] | undefined
  let beforeAt = 0
  for (const [index, message] of messages.entries()) {
    if (message.role === "system") continue
    if (message.role === "assistant" && before === "assistant") join(beforeAt, index)
    before = message.role
    beforeAt = index
    for (const part of message.content) {
      switch (part.type) {
        case "tool-call":
          calls.set(part.id, index)
          break
        case "tool-result":
          join(calls.get(part.id), index)
          break
        case "tool-approval-request":
          join(calls.get(part.toolCallId), index)
          requests.set(part.approvalId, index)
          break
        case "tool-approval-response":
          join(requests.get(part.approvalId), index)
          break
        default:
          break
      }
    }
  }
  let open = 0
  return Array.from({ length: messages.length }, (_, index) => (open += edges[index]!) > 0)
}

const isUser = (messages: ReadonlyArray<Prompt.Message>, group: Group): boolean =>
  group.every((index) => messages[index]!.role === "user")

/** Takes linear time. */
export const layoutOf = (messages: ReadonlyArray<Prompt.Message>): Layout => {
  const glued = glue(messages)
  const system: Array<number> = []
  const groups: Array<Array<number>> = []
  let together = false
  for (const [index, message] of messages.entries()) {
    if (message.role === "system") system.push(index)
    else if (together) groups.at(-1)!.push(index)
    else groups.push([index])
    together = glued[index]!
  }

  const lastUser = groups.findLastIndex((group) => group.some((index) => messages[index]!.role === "user"))
  let turnFrom = Math.max(0, lastUser)
  while (turnFrom > 0 && isUser(messages, groups[turnFrom]!) && isUser(messages, groups[turnFrom - 1]!)) turnFrom--

  const exchanges: Array<Array<number>> = []
  let userBefore = false
  for (const group of lastUser < 0 ? [] : groups.slice(0, turnFrom)) {
    const user = isUser(messages, group)
    if (exchanges.length === 0 || (user && !userBefore)) exchanges.push([...group])
    else exchanges.at(-1)!.push(...group)
    userBefore = user
  }
  const after = groups.slice(lastUser + 1)
  return {
    system,
    exchanges,
    lastTurn: lastUser < 0 ? [] : groups.slice(turnFrom, lastUser + 1).flat(),
    underWay: after.slice(0, -1),
    end: after.at(-1) ?? [],
  }
}
