/** What is wrong with an answer: with the JSON that was asked for, and with the arguments of tool calls. */
import * as Predicate from "effect/Predicate"
import type * as Response from "effect/ai/Response"
import type * as Tool from "effect/ai/Tool"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { Extraction, ExtractionFailure, Issue, Options as ExtractOptions } from "../../JsonExtraction.ts"
import * as JsonExtraction from "../../JsonExtraction.ts"
import type { Answer, Request } from "../../LanguageModelFace.ts"
import * as LanguageModelFace from "../../LanguageModelFace.ts"
import type { Rejection } from "../llmError.ts"
import type { Verdict } from "./loop.ts"
import * as Reprompt from "./reprompt.ts"
import { type Shape, shapeOf, withoutNulls } from "./shape.ts"

/** How far answers are mended, and how much of a failed one is shown again. */
export interface Care {
  readonly extract: Pick<ExtractOptions, "tier" | "rivals" | "limits">
  readonly quote: number
}

/** At most so many issues go into a message or a failure. */
const maxIssues = 10

/** `$.orders[2].id`: where in a value. */
const pathOf = (path: ReadonlyArray<PropertyKey>): string =>
  path.reduce<string>((out, key) => out + (typeof key === "number" ? `[${key}]` : `.${String(key)}`), "$")

/** The first issues, as texts, and how many there are more. */
export const listed = (issues: ReadonlyArray<Issue>): Pick<Rejection, "issues" | "more"> => ({
  issues: issues.slice(0, maxIssues).map(({ expected, path }) => ({ path: pathOf(path), expected })),
  more: Math.max(0, issues.length - maxIssues),
})

/** Why the model ended the answer. */
const finishOf = (answer: Answer): string | undefined => {
  for (const part of answer) if (part.type === "finish") return part.reason
  return undefined
}

/** How models begin when they decline in words: with themselves, or with an apology. */
const opening =
  /^\W*(?:i\b|i['’]m\b|we\b|we['’]re\b|sorry\b|(?:my |our )?apolog|unfortunately\b|regrettably\b|as an ai\b)/i

/** That something is not going to happen. An apology alone is politeness. */
const inability =
  /\b(?:can(?:no|['’])t|can ?not|unable to|not able to|won['’]t|will not|(?:must|have to|need to) decline|decline to|refuse to|not (?:allowed|permitted|going) to)\b/i

/** Where a model says so, if it does: in its first two sentences. */
const firstSentences = /^(?:[^.!?]*[.!?]){0,2}[^.!?]{0,200}/

/** Only an answer that holds no JSON at all, and begins so, is taken for a refusal. */
const isRefusal = (text: string): boolean =>
  text.length < 2_000 && opening.test(text) && inability.test(firstSentences.exec(text.slice(0, 500))?.[0] ?? "")

/** Why an extraction gave nothing, as a rejection. */
export const rejectionOf = (
  failure: ExtractionFailure,
  text: string,
): Pick<Rejection, "reason" | "issues" | "more"> => ({
  reason: failure.cause === "nothing found" && isRefusal(text) ? "refusal" : failure.cause,
  ...listed(failure.issues ?? []),
})

// ---------------------------------------------------------------------------
// JSON
// ---------------------------------------------------------------------------

/** What was found in an answer. */
export interface Found<A> {
  /** As the schema decodes it. */
  readonly value: A
  /** Before that. */
  readonly json: unknown
  readonly extraction: Extraction<unknown>
}

const extract = <A>(
  text: string,
  finishReason: string | undefined,
  shape: Shape<A>,
  options: Care["extract"],
): Result.Result<Found<A>, ExtractionFailure> => {
  const fits = new Map<unknown, { readonly value: A; readonly json: unknown }>()
  const found = JsonExtraction.extract(text, {
    ...options,
    ...(finishReason === undefined ? {} : { finishReason }),
    check: (json) => {
      const fit = shape(json)
      if (!fit.fits) return fit.issues
      fits.set(json, fit)
      return undefined
    },
  })
  return Result.map(found, (extraction) => ({ ...fits.get(extraction.json)!, extraction }))
}

/** Finds the value of a shape in a text. A null where the schema wants an optional field counts as absent. */
export const find = <A>(
  text: string,
  finishReason: string | undefined,
  shape: Shape<A>,
  options: Care["extract"],
): Result.Result<Found<A>, ExtractionFailure> => {
  const found = extract(text, finishReason, shape, options)
  if (Result.isSuccess(found) || found.failure.cause !== "schema mismatch") return found
  const lenient = extract(text, finishReason, withoutNulls(shape), options)
  return Result.isSuccess(lenient) ? lenient : found
}

/** The same answer, whose text is this JSON and nothing else. */
export const withText = (answer: Answer, text: string): Answer => {
  const first = answer.findIndex((part) => part.type === "text")
  return answer.flatMap((part, index): Answer =>
    part.type !== "text" ? [part] : index === first ? [{ ...part, text }] : [],
  )
}

/** Judges an answer that should hold JSON of a shape. */
export const json = <A>(answer: Answer, shape: Shape<A>, care: Care): Verdict<Found<A>> => {
  const text = LanguageModelFace.text(answer)
  const found = find(text, finishOf(answer), shape, care.extract)
  if (Result.isSuccess(found)) {
    const { extraction, json } = found.success
    const untouched = extraction.found.how === "whole" && extraction.repairs.length === 0 && json === extraction.json
    return {
      _tag: "accepted",
      value: found.success,
      answer: untouched ? answer : withText(answer, JSON.stringify(json)),
      repairs: extraction.repairs.length,
    }
  }
  return refused(text, rejectionOf(found.failure, text), care)
}

/** An answer that is refused, and how it is asked for again. */
export const refused = (
  text: string,
  rejection: Pick<Rejection, "reason" | "issues" | "more">,
  care: Care,
): Extract<Verdict<never>, { readonly _tag: "refused" }> => ({
  _tag: "refused",
  rejection,
  longer: rejection.reason === "truncated",
  again:
    rejection.reason === "refusal"
      ? undefined
      : (request) => ({ ...request, prompt: Reprompt.forJson(request.prompt, text, rejection, care.quote) }),
})

// ---------------------------------------------------------------------------
// Tool calls
// ---------------------------------------------------------------------------

type ToolCall = Response.ToolCallPartEncoded

/** A call that the caller's own tools answer. */
const isOurs = (part: Answer[number]): part is ToolCall => part.type === "tool-call" && part.providerExecuted !== true

/** Does the answer call tools of the request? */
export const callsTools = (answer: Answer): boolean => answer.some(isOurs)

const shapeOfTool = (tool: Tool.Any): Shape<unknown> =>
  Schema.isSchema(tool.parametersSchema)
    ? shapeOf(tool.parametersSchema)
    : (json) =>
        Predicate.isReadonlyObject(json)
          ? { fits: true, value: json, json }
          : { fits: false, issues: [{ path: [], expected: "an object" }] }

interface Judged {
  readonly params: unknown
  readonly repairs: number
  readonly rejection: Pick<Rejection, "reason" | "issues" | "more"> | undefined
}

const judgeCall = (call: ToolCall, tools: ReadonlyArray<Tool.Any>, finish: string | undefined, care: Care): Judged => {
  const { params } = call
  const refuse = (rejection: Judged["rejection"]): Judged => ({ params, repairs: 0, rejection })
  const tool = tools.find(({ name }) => name === call.name)
  if (tool === undefined) {
    const expected = `one of the tools that exist: ${tools.map(({ name }) => name).join(", ")}`
    return refuse({ reason: "schema mismatch", issues: [{ path: "the tool's name", expected }], more: 0 })
  }
  const shape = shapeOfTool(tool)
  const fit = shape(params)
  if (fit.fits) return { params, repairs: 0, rejection: undefined }
  // Arguments that are not strict JSON come as the text that they are.
  if (typeof params === "string") {
    const found = find(params, finish, shape, care.extract)
    return Result.isSuccess(found)
      ? { params: found.success.json, repairs: found.success.extraction.repairs.length, rejection: undefined }
      : refuse(rejectionOf(found.failure, ""))
  }
  const lenient = withoutNulls(shape)(params)
  return lenient.fits
    ? { params: lenient.json, repairs: 0, rejection: undefined }
    : refuse({ reason: finish === "length" ? "truncated" : "schema mismatch", ...listed(fit.issues) })
}

/** The arguments as the assistant's turn shows them: always an object, and nothing of what was cut off. */
const shown = (params: unknown, rejection: Judged["rejection"]): Readonly<Record<string, unknown>> =>
  Predicate.isReadonlyObject(params) && rejection?.reason !== "truncated" ? params : {}

/** Judges the arguments of an answer's tool calls. */
export const toolCalls = (answer: Answer, request: Request, care: Care): Verdict<undefined> => {
  const finish = finishOf(answer)
  const judged = new Map<Answer[number], Judged>()
  for (const part of answer) if (isOurs(part)) judged.set(part, judgeCall(part, request.tools, finish, care))
  const all = [...judged.values()]
  const wrong = all.flatMap(({ rejection }) => (rejection === undefined ? [] : [rejection]))
  const [first] = wrong
  if (first === undefined) {
    const changed = [...judged].some(([part, { params }]) => isOurs(part) && part.params !== params)
    return {
      _tag: "accepted",
      value: undefined,
      answer: changed
        ? answer.map((part) => (isOurs(part) ? { ...part, params: judged.get(part)!.params } : part))
        : answer,
      repairs: all.reduce((sum, { repairs }) => sum + repairs, 0),
    }
  }
  const issues = wrong.flatMap((rejection) => rejection.issues)
  const calls = [...judged].flatMap(([part, { rejection }]): ReadonlyArray<Reprompt.JudgedCall> =>
    isOurs(part) ? [{ id: part.id, name: part.name, params: shown(part.params, rejection), rejection }] : [],
  )
  return {
    _tag: "refused",
    rejection: {
      reason: first.reason,
      issues: issues.slice(0, maxIssues),
      more: wrong.reduce((sum, { more }) => sum + more, 0) + Math.max(0, issues.length - maxIssues),
    },
    longer: wrong.some(({ reason }) => reason === "truncated"),
    again: (asked) => ({ ...asked, prompt: Reprompt.forTools(asked.prompt, answer, calls, care.quote) }),
  }
}
