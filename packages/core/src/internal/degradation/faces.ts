/** What a ladder must know of answers to give, keep and mark them: of language models, and of all else. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Prompt from "effect/ai/Prompt"
import * as Schema from "effect/Schema"
import type { Any } from "../../Face.ts"
import * as LanguageModelFace from "../../LanguageModelFace.ts"
import type { Origin } from "../../Origin.ts"
import { markAll, markBeginning } from "../ai/marked.ts"
import { whatIsAsked } from "../cache/requestKey.ts"
import { Collector, ofText, restore, store } from "../cache/storedAnswer.ts"
import { Ended, type Opened } from "../opened.ts"
import type { Keeping } from "./callCache.ts"
import type { Template, Value } from "./rungs.ts"

type Answer = LanguageModelFace.Answer
type Part = LanguageModelFace.Part
type Request = LanguageModelFace.Request

/** Hears a stream, and has its answer at the end; nothing if there is none to keep. */
export interface Listener {
  readonly hear: (parts: Iterable<unknown>) => void
  readonly answer: () => unknown
}

/** Answers and streams of a face, to a ladder. */
export interface Adapter {
  /** What a fallback says, as an answer. */
  readonly answer: (said: unknown) => unknown
  /** A whole answer as the parts of a stream. */
  readonly parts: (answer: unknown) => ReadonlyArray<unknown>
  readonly listener: (longest: number) => Listener
  /** The answer, in which stands where it came from, where it can. */
  readonly marked: (answer: unknown, origin: Origin) => unknown
  readonly markedStream: (opened: Opened<unknown>, origin: Origin) => Opened<unknown>
}

const languageModel: Adapter = {
  answer: (said) => (typeof said === "string" ? ofText(said) : said),
  parts: (answer) => LanguageModelFace.streamed(answer as Answer),
  listener: (longest) => {
    const collector = new Collector(longest)
    return { hear: (parts) => collector.hear(parts as Iterable<Part>), answer: () => collector.answer() }
  },
  marked: (answer, origin) => markBeginning(answer as Answer, origin),
  markedStream: (opened, origin) => {
    const { head, rest } = opened as Opened<Part>
    return {
      ...opened,
      head: markBeginning(head, origin),
      rest: Effect.map(rest, (parts) => markAll(parts, origin)),
    }
  },
}

const other: Adapter = {
  answer: (said) => said,
  parts: (answer) => [answer],
  listener: () => ({ hear: () => undefined, answer: () => undefined }),
  marked: (answer) => answer,
  markedStream: (opened) => opened,
}

/** Is it the face of language models, perhaps with other details? */
export const isLanguageModel = (face: Any): boolean => face.name === LanguageModelFace.languageModelFace.name

/** The answers of a face. */
export const adapterOf = (face: Any): Adapter => (isLanguageModel(face) ? languageModel : other)

/** A stream that is all there. */
export const streamOf = (face: Any, answer: unknown, { model, provider }: Origin): Opened<unknown> => {
  const head = adapterOf(face).parts(answer)
  const inspector = face.inspect({ provider, model })
  for (const part of head) inspector.verdict(part)
  const ended = new Ended()
  ended.settle(Exit.void)
  return { head, rest: Cause.done(), ended, delivered: inspector.delivered }
}

/** A stream that is kept when it has ended by itself. Its last parts do not wait for that. */
export const keptAtEnd = (
  opened: Opened<unknown>,
  listener: Listener,
  write: (answer: unknown) => Effect.Effect<void>,
): Effect.Effect<Opened<unknown>> => {
  const { ended, head, rest } = opened
  let written = false
  const heard = <A extends Iterable<unknown>>(parts: A): Effect.Effect<A> => {
    listener.hear(parts)
    if (written || ended.exit?._tag !== "Success") return Effect.succeed(parts)
    written = true
    const answer = listener.answer()
    return answer === undefined ? Effect.succeed(parts) : Effect.as(write(answer), parts)
  }
  return Effect.as(heard(head), { ...opened, rest: Effect.flatMap(rest, heard) })
}

// ---------------------------------------------------------------------------
// What is kept
// ---------------------------------------------------------------------------

type What = Pick<Keeping, "what" | "store" | "restore">

const decoders = new WeakMap<object, (text: unknown) => Exit.Exit<unknown, unknown>>()

/** Is it the JSON that was asked for? */
const fits = (text: string, schema: Schema.Top): boolean => {
  let decode = decoders.get(schema)
  if (decode === undefined) {
    const json = Schema.fromJsonString(Schema.toCodecJson(schema)) as unknown as Schema.Codec<unknown>
    decode = Schema.decodeUnknownExit(json)
    decoders.set(schema, decode)
  }
  return Exit.isSuccess(decode(text))
}

/** Is it the object that this request wants, if it wants one? Schemas with other checks can have the same JSON form. */
const isOfForm = (answer: Answer, { responseFormat }: Request): boolean =>
  responseFormat.type !== "json" || fits(LanguageModelFace.text(answer), responseFormat.schema)

/** The answers of a language model, by its requests. */
export const ofRequests: What = {
  what: (request, overrides) => whatIsAsked(request as Request, overrides),
  store: (answer, request) => {
    const parts = store(answer as Answer)
    // What is not the object that was asked for will be asked for again, and must be.
    return parts === undefined || !isOfForm(answer as Answer, request as Request) ? undefined : { value: parts }
  },
  restore: (value, request) => {
    const answer = restore(value)
    return answer === undefined || !isOfForm(answer, request as Request) ? undefined : { answer }
  },
}

/** The value of an effect, by a key. */
export const ofValues = <A>({ key, schema }: Value<A>): What => {
  const codec = Schema.toCodecJson(schema)
  const encode = Schema.encodeUnknownExit(codec)
  const decode = Schema.decodeUnknownExit(codec)
  return {
    what: (_request, { cacheKey }) => (cacheKey === undefined ? { value: key } : { key: cacheKey }),
    store: (value) => {
      const exit = encode(value)
      return Exit.isSuccess(exit) ? { value: exit.value } : undefined
    },
    restore: (kept) => {
      const exit = decode(kept)
      return Exit.isSuccess(exit) ? { answer: exit.value } : undefined
    },
  }
}

// ---------------------------------------------------------------------------
// Simpler questions
// ---------------------------------------------------------------------------

/** Where the original prompt goes in a template's text. */
export const placeholder = "{prompt}"

const lastQuestion = ({ content }: Prompt.Prompt): string => {
  const last = content.findLast((message) => message.role === "user")
  return last === undefined ? "" : last.content.flatMap((part) => (part.type === "text" ? [part.text] : [])).join("\n")
}

/** A text around the last question. What the operator says in system messages stays. */
const ofTemplate =
  (text: string): Template =>
  (prompt) =>
    Prompt.fromMessages([
      ...prompt.content.filter((message) => message.role === "system"),
      Prompt.userMessage({
        content: [Prompt.textPart({ text: text.replaceAll(placeholder, () => lastQuestion(prompt)) })],
      }),
    ])

/**
 * The request with a simpler prompt. A text leaves out what tools have said so far, so the answer would only call them
 * again: it is asked without them. A function decides about the prompt itself, which may hold their calls.
 */
export const simpler = (template: string | Template): ((request: unknown) => unknown) => {
  const isText = typeof template === "string"
  const simplify = isText ? ofTemplate(template) : template
  return (request) => {
    const asked = request as Request
    return {
      ...asked,
      ...(isText ? ({ tools: [], toolChoice: "none" } as const) : {}),
      prompt: Prompt.make(simplify(asked.prompt)),
      previousResponseId: undefined,
      incrementalPrompt: undefined,
    } satisfies Request
  }
}
