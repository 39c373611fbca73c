/** Conversations of all shapes, by chance from a seed: parallel calls of tools, reasoning, approvals, ids that come again. */
import { Prompt } from "effect/ai"
import type { Random } from "./stub.ts"

const words = ["sand", "spice", "worm", "the", "keeper", "of", "中文", "x".repeat(40), "{ }", "été"]

const text = (r: Random, most: number): string => Array.from({ length: r.int(1, most) }, () => r.pick(words)).join(" ")

/** One conversation. It begins as conversations do, or in the middle; it ends with a question, or amid work for it. */
export const conversation = (r: Random, longest = 12): Prompt.Prompt => {
  const messages: Array<Prompt.MessageEncoded> = []
  // Some providers count their calls anew in each turn.
  const own = r.chance(0.5)
  let calls = 0
  const user = () => {
    const content = Array.from({ length: r.int(1, 3) }, () => ({ type: "text" as const, text: text(r, 30) }))
    messages.push({ role: "user", content: r.chance(0.5) ? text(r, 40) : content })
  }
  const reasoning = () => (r.chance(0.4) ? [{ type: "reasoning" as const, text: text(r, 20) }] : [])
  const tools = (answered: boolean) => {
    if (own) calls = 0
    const ids = Array.from({ length: r.int(1, 4) }, () => `call_${calls++}`)
    const approval = r.chance(0.2)
    messages.push({
      role: "assistant",
      content: [
        ...reasoning(),
        ...(r.chance(0.3) ? [{ type: "text" as const, text: text(r, 10) }] : []),
        ...ids.map((id) => ({ type: "tool-call" as const, id, name: "find", params: { q: text(r, 6) } })),
        ...(approval
          ? ids.map((id) => ({ type: "tool-approval-request" as const, approvalId: `a ${id}`, toolCallId: id }))
          : []),
      ],
    })
    // What was not approved has no result, and what is approved at the end has none yet.
    if (approval && (answered || r.chance(0.8))) {
      messages.push({
        role: "tool",
        content: ids.map((id) => ({
          type: "tool-approval-response" as const,
          approvalId: `a ${id}`,
          approved: answered,
        })),
      })
    }
    if (!answered) return
    const results = ids.map((id) => ({
      type: "tool-result" as const,
      id,
      name: "find",
      isFailure: r.chance(0.1),
      result: r.chance(0.5) ? text(r, 60) : { found: [text(r, 20)] },
    }))
    // All in one message, or each in its own.
    if (r.chance(0.6)) messages.push({ role: "tool", content: results })
    else for (const result of results) messages.push({ role: "tool", content: [result] })
  }
  const answer = () => {
    messages.push({ role: "assistant", content: [...reasoning(), { type: "text", text: text(r, 40) }] })
  }

  if (r.chance(0.8)) messages.push({ role: "system", content: text(r, 20) })
  if (r.chance(0.15)) answer()
  const exchanges = r.int(0, longest)
  for (let exchange = 0; exchange < exchanges; exchange++) {
    user()
    if (r.chance(0.1)) user()
    for (let n = r.int(0, 4); n > 0; n--) tools(r.chance(0.9))
    if (r.chance(0.05)) messages.push({ role: "system", content: text(r, 10) })
    if (r.chance(0.9)) answer()
  }
  if (r.chance(0.95)) user()
  if (r.chance(0.4)) for (let n = r.int(1, 5); n > 0; n--) tools(n > 1 || r.chance(0.8))
  return Prompt.make(messages.length === 0 ? "Hello" : messages)
}

/** What is wrong with the pairs of a prompt: results without their call, calls that have lost their result. */
export const unpaired = (prompt: Prompt.Prompt, original: Prompt.Prompt): ReadonlyArray<string> => {
  const out: Array<string> = []
  const answered = pairsOf(original)
  const here = pairsOf(prompt)
  for (const [call, result] of answered) {
    const kept = here.get(call)
    const present = prompt.content.includes(call)
    if (present && kept?.size !== result.size) out.push("a call has lost a result")
    for (const message of result) {
      if (!present && prompt.content.includes(message)) out.push("a result has lost its call")
    }
  }
  return out
}

/** The messages with calls, and those with what belongs to them: by the last call with an id, as providers read it. */
const pairsOf = (prompt: Prompt.Prompt): Map<Prompt.Message, Set<Prompt.Message>> => {
  const pairs = new Map<Prompt.Message, Set<Prompt.Message>>()
  const calls = new Map<string, Prompt.Message>()
  for (const message of prompt.content) {
    if (message.role === "system" || message.role === "user") continue
    for (const part of message.content) {
      if (part.type === "tool-call") {
        calls.set(part.id, message)
        if (!pairs.has(message)) pairs.set(message, new Set())
      }
      const id =
        part.type === "tool-result"
          ? part.id
          : part.type === "tool-approval-response"
            ? part.approvalId.slice(2)
            : undefined
      const call = id === undefined ? undefined : calls.get(id)
      if (call !== undefined) pairs.get(call)!.add(message)
    }
  }
  return pairs
}
