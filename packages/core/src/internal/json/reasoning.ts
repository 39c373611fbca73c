/**
 * Where a model thinks aloud: what is inside of these tags is never the answer.
 *
 * Tags that models and their servers leave in the text: `<think>` and its
 * relatives, Mistral's `[THINK]`, Kimi's `◁think▷`, and the channels of
 * OpenAI's harmony format.
 */

const names =
  "think|thinking|thought|thoughts|reasoning|reflection|analysis|scratchpad|antthinking|antThinking|inner_monologue|seed:think"

const opening = String.raw`<(?:${names}|THINK|Thinking|Think)(?:\s[^<>\n]{0,80})?>|\[THINK\]|◁think▷|<\|channel\|>(?:analysis|commentary)[^<{]{0,80}<\|message\|>|<\|begin_of_thought\|>`
const closing = String.raw`</(?:${names}|THINK|Thinking|Think)\s?>|\[/THINK\]|◁/think▷|<\|channel\|>final|<\|end_of_thought\|>`
const tag = new RegExp(`(${opening})|${closing}`, "g")
const close = new RegExp(closing, "g")
// In harmony, the end of a message ends the channel as well.
const end = new RegExp(String.raw`${closing}|<\|end\|>|<\|start\|>`, "g")

/**
 * What the scan of prose stops at: tags that open, tags that close, fences
 * (groups 1 to 3), and brackets. Whoever uses it says where to begin.
 */
export const landmark = new RegExp(`(${opening})|(${closing})|(${"`{3,}|~{3,}"})|[{[]`, "g")

/** The beginning of a landmark at the end of a text that is not there as a whole. */
export const unfinishedLandmark = /<[^<>{]{0,200}$|\[\/?(?:T(?:H(?:I(?:NK?)?)?)?)?$|◁[^▷]{0,10}$|[`~]{1,2}$/

/** The end of reasoning that began before `from`: after the closing tag; -1 when it never ends. */
export const endOfReasoning = (text: string, from: number): number => {
  end.lastIndex = from
  return end.exec(text) === null ? -1 : end.lastIndex
}

/** The end of the last reasoning; 0 when there is none. */
export const endOfLastReasoning = (text: string): number => {
  let last = 0
  close.lastIndex = 0
  while (close.exec(text) !== null) last = close.lastIndex
  return last
}

/**
 * Closing tags without an opening one before them: whatever stands before is
 * reasoning, so no value that needs repair may reach over them.
 */
export class Boundaries {
  private next = -1
  private readonly text: string

  constructor(text: string) {
    this.text = text
  }

  /** The first boundary at or after `from`, or the end of the text. Ask with growing positions. */
  after(from: number): number {
    if (this.next >= from) return this.next
    const { text } = this
    let open = 0
    tag.lastIndex = from
    for (let match = tag.exec(text); match !== null; match = tag.exec(text)) {
      if (match[1] !== undefined) open++
      else if (open > 0) open--
      else {
        this.next = match.index
        return this.next
      }
    }
    this.next = text.length
    return this.next
  }
}
