/**
 * The messages of a re-prompt: the original ones, the failed answer in the
 * assistant's own turn, and one message that says what was wrong.
 *
 * What the model wrote is untrusted text: it stays in its turn, capped and
 * delimited, and nothing of it (no value, no key that the schema does not know)
 * goes into our message.
 */
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Prompt from "effect/ai/Prompt"
import type * as Schema from "effect/Schema"
import { type Answer, text as textOf } from "../../LanguageModelFace.ts"
import type { Rejection, RejectionReason } from "../llmError.ts"

/** A call of a tool whose arguments were looked at. */
export interface JudgedCall {
  readonly id: string
  readonly name: string
  /** The arguments, as the assistant's turn holds them: always an object. */
  readonly params: Readonly<Record<string, unknown>>
  /** What was wrong, or nothing. */
  readonly rejection: Pick<Rejection, "reason" | "issues" | "more"> | undefined
}

/** The middle of a text is left out when it is longer than this many characters. */
export const capped = (text: string, cap: number): string => {
  if (text.length <= cap) return text
  const half = Math.floor(cap / 2)
  const left = text.length - 2 * half
  return `${text.slice(0, half)}\n[… ${left} characters left out …]\n${text.slice(text.length - half)}`
}

/** A tag that the text does not hold, so that nothing in it looks like its end. */
const delimited = (text: string): string => {
  let tag = "previous_answer"
  for (let n = 2; text.includes(tag); n++) tag = `previous_answer_${n}`
  return `<${tag}>\n${text}\n</${tag}>`
}

const what: Record<RejectionReason, string> = {
  "nothing found": "It holds no JSON value.",
  refusal: "It declines.",
  truncated: "It was cut off at its length limit before the JSON was complete.",
  unparseable: "It is not valid JSON.",
  "schema mismatch": "It does not fit what was asked for:",
  ambiguous: "It holds more than one JSON value that fits.",
  "too large": "It is too large.",
}

const listed = ({ issues, more, reason }: Pick<Rejection, "reason" | "issues" | "more">): string =>
  [
    what[reason],
    ...issues.map(({ expected, path }) => `- at ${path}: ${expected}`),
    ...(more === 0 ? [] : [`- and ${more} more`]),
  ].join("\n")

const request: Record<RejectionReason, string> = {
  "nothing found": "Answer again with the whole JSON value, and nothing else.",
  refusal: "Answer again with the whole JSON value, and nothing else.",
  truncated: "Answer again with the whole JSON value, compact and as short as it can be, and nothing else.",
  unparseable: "Answer again with the whole JSON value, valid JSON, and nothing else.",
  "schema mismatch": "Answer again with the whole JSON value, corrected, and nothing else.",
  ambiguous: "Answer again with exactly one JSON value, and nothing else.",
  "too large": "Answer again with the whole JSON value, as short as it can be, and nothing else.",
}

const say = (role: "assistant" | "user", text: string): Prompt.Message => {
  const content = [Prompt.makePart("text", { text })]
  return role === "assistant" ? Prompt.assistantMessage({ content }) : Prompt.userMessage({ content })
}

/** Asks again for JSON. A truncated answer is not shown: it is long, and it would be continued. */
export const forJson = (
  prompt: Prompt.Prompt,
  text: string,
  rejection: Pick<Rejection, "reason" | "issues" | "more">,
  quote: number,
): Prompt.Prompt => {
  const shown = rejection.reason !== "truncated" && text.trim() !== "" && quote > 0
  const about = shown ? "The answer above was not accepted." : "The last answer was not accepted."
  return Prompt.fromMessages([
    ...prompt.content,
    ...(shown ? [say("assistant", delimited(capped(text, quote)))] : []),
    say("user", `${about} ${listed(rejection)}\n${request[rejection.reason]}`),
  ])
}

const callAgain = ({ reason }: Pick<Rejection, "reason">): string =>
  reason === "truncated"
    ? "Call it again with arguments that are as short as they can be."
    : "Call it again with corrected arguments."

/** The model's own reasoning before its calls: some providers take a call back only together with it. */
const reasoning = (answer: Answer): ReadonlyArray<Prompt.ReasoningPart> =>
  answer.flatMap((part) =>
    part.type === "reasoning"
      ? [
          Prompt.makePart("reasoning", {
            text: part.text,
            ...(part.metadata === undefined ? {} : { options: part.metadata }),
          }),
        ]
      : [],
  )

/** Asks again for tool calls: each has a result, and those that were wrong have one that says so. */
export const forTools = (
  prompt: Prompt.Prompt,
  answer: Answer,
  calls: ReadonlyArray<JudgedCall>,
  quote: number,
): Prompt.Prompt => {
  const text = textOf(answer)
  return Prompt.fromMessages([
    ...prompt.content,
    Prompt.assistantMessage({
      content: [
        ...reasoning(answer),
        ...(text.trim() === "" || quote === 0 ? [] : [Prompt.makePart("text", { text: capped(text, quote) })]),
        ...calls.map(({ id, name, params }) =>
          Prompt.makePart("tool-call", { id, name, params, providerExecuted: false }),
        ),
      ],
    }),
    Prompt.toolMessage({
      content: calls.map(({ id, name, rejection }) =>
        Prompt.makePart("tool-result", {
          id,
          name,
          isFailure: true,
          providerExecuted: false,
          result:
            rejection === undefined
              ? "Not run, since another call beside it was wrong. Call it again."
              : `Not run: the arguments were not accepted. ${listed(rejection)}\n${callAgain(rejection)}`,
        }),
      ),
    }),
  ])
}

/** The prompt with the schema written into it, before all else. */
export const withSchema = (prompt: Prompt.RawInput, schema: Schema.Top): Prompt.Prompt => {
  const { jsonSchema } = LanguageModel.defaultCodecTransformer(schema)
  const text = `Answer with one JSON value that fits this JSON schema, and nothing else:\n${JSON.stringify(jsonSchema)}`
  return Prompt.fromMessages([Prompt.systemMessage({ content: text }), ...Prompt.make(prompt).content])
}
