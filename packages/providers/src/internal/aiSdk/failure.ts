/**
 * Failures as the AI SDK tells them. Its errors are known by their names and
 * fields and not by their classes, of which a program may hold several copies.
 *
 * What an error holds of the request (its body with the prompt, its address) is
 * taken off before it becomes evidence.
 */
import * as Classifier from "@understudy/core/Classifier"
import * as LlmError from "@understudy/core/LlmError"
import type { ProviderFailure } from "@understudy/core/LlmError"
import * as Asked from "../asked.ts"
import { isObject, isSet, parse, text } from "../json.ts"

/** What `@ai-sdk/anthropic` throws for a first event that it cannot read; the real fault is lost there. */
const firstEvent = "expected a normalized anthropic stream error"

/** Errors that were made before or without a response, by name. Rules of the user's own come before them. */
const rules: ReadonlyArray<Classifier.Rule> = [
  {
    id: "ai-sdk/no-such-model",
    when: { where: ["network"], codes: ["AI_NoSuchModelError"] },
    tag: "ModelNotFound",
  },
  {
    id: "ai-sdk/no-key",
    when: { where: ["network"], codes: ["AI_LoadAPIKeyError"] },
    tag: "AuthenticationFailed",
    detail: "No key was given.",
  },
  {
    id: "ai-sdk/no-setting",
    when: { where: ["network"], codes: ["AI_LoadSettingError"] },
    tag: "AuthenticationFailed",
    detail: "A setting that the model needs was not given.",
  },
  {
    id: "ai-sdk/unsupported",
    when: {
      where: ["network"],
      codes: ["AI_UnsupportedFunctionalityError", "AI_NoSuchProviderReferenceError"],
    },
    tag: "InvalidRequest",
    detail: "The model does not support something that the request asks for.",
  },
  {
    id: "ai-sdk/invalid-request",
    when: { where: ["network"], codes: ["AI_InvalidPromptError", "AI_InvalidArgumentError"] },
    tag: "InvalidRequest",
    detail: "The model cannot say what the request asks for.",
  },
  {
    id: "ai-sdk/no-answer",
    when: { where: ["network"], codes: ["AI_EmptyResponseBodyError", "AI_NoContentGeneratedError"] },
    tag: "InvalidResponse",
    detail: "It sent no answer.",
  },
  {
    id: "ai-sdk/wrong-answer",
    when: {
      where: ["network"],
      codes: ["AI_InvalidResponseDataError", "AI_TypeValidationError", "AI_JSONParseError", "AI_DownloadError"],
    },
    tag: "InvalidResponse",
    detail: "What it sent does not have the form of its API.",
  },
  {
    id: "ai-sdk/wrong-event",
    when: { where: ["network"], phrases: [firstEvent] },
    tag: "InvalidResponse",
    detail: "An event of its stream does not have the form of its API.",
  },
]

const known: ReadonlySet<string> = new Set(rules.flatMap((rule) => rule.when.codes ?? []))

const withRules = new WeakMap<Classifier.Classifier, Classifier.Classifier>()

const ruled = (classifier: Classifier.Classifier): Classifier.Classifier => {
  const had = withRules.get(classifier)
  if (had !== undefined) return had
  const made = Classifier.make([...classifier.rules, ...rules])
  withRules.set(classifier, made)
  return made
}

// ---------------------------------------------------------------------------
// Evidence
// ---------------------------------------------------------------------------

/** A field of an error; a getter that throws says nothing. */
const field = (error: object, key: string): unknown => {
  try {
    const value: unknown = Reflect.get(error, key)
    return value
  } catch {
    return undefined
  }
}

const nameOf = (error: unknown): string | undefined =>
  typeof error === "object" && error !== null ? text(field(error, "name")) : undefined

const messageOf = (error: unknown): string =>
  typeof error === "object" && error !== null ? (text(field(error, "message")) ?? "") : ""

/** One of another realm is no instance. */
const isError = (u: object): boolean =>
  u instanceof Error || (typeof field(u, "name") === "string" && typeof field(u, "message") === "string")

const copied = ["code", "errno", "syscall", "status", "statusCode", "type"]

/** The error and what is below it, without the request, and without the key. */
const clean = (asked: Asked.Asked, error: unknown, depth = 0): unknown => {
  if (typeof error === "string") return Asked.scrubbed(asked, error)
  if (typeof error !== "object" || error === null || depth > 8) return undefined
  if (!isError(error)) return parse(Asked.scrubbed(asked, json(error)))
  const cause = clean(asked, field(error, "cause"), depth + 1)
  const out = new Error(Asked.scrubbed(asked, messageOf(error)), { cause })
  const stack = text(field(error, "stack"))
  const fields: Record<string, unknown> = { name: nameOf(error) ?? "Error" }
  if (stack !== undefined) fields["stack"] = Asked.scrubbed(asked, stack)
  for (const key of copied) {
    const value = field(error, key)
    if (typeof value === "string" || typeof value === "number") fields[key] = value
  }
  const { responseBody, responseHeaders } = responseOf(error)
  if (responseBody !== "") fields["responseBody"] = Asked.scrubbed(asked, responseBody)
  fields["responseHeaders"] = responseHeaders
  const errors = field(error, "errors")
  if (Array.isArray(errors)) fields["errors"] = errors.slice(0, 8).map((inner) => clean(asked, inner, depth + 1))
  for (const [key, value] of Object.entries(fields)) {
    Object.defineProperty(out, key, { value, enumerable: false, configurable: true })
  }
  return out
}

const json = (value: unknown): string => {
  try {
    return JSON.stringify(value) ?? ""
  } catch {
    return ""
  }
}

const responseOf = (error: object) => {
  const headers = field(error, "responseHeaders")
  return {
    responseBody: text(field(error, "responseBody")) ?? json(field(error, "data")),
    responseHeaders: isObject(headers) ? headersOf(headers) : {},
  }
}

const headersOf = (headers: Readonly<Record<string, unknown>>): Classifier.SignalHeaders =>
  Object.fromEntries(Object.entries(headers).filter((entry): entry is [string, string] => typeof entry[1] === "string"))

// ---------------------------------------------------------------------------
// Thrown
// ---------------------------------------------------------------------------

/** The failure that a rejected call or a broken stream is. */
export const thrown = (asked: Asked.Asked, error: unknown): ProviderFailure => {
  const { classifier, subject } = asked
  const name = nameOf(error)
  if (name === "AI_APICallError" && typeof error === "object" && error !== null) {
    const failure = ofResponse(asked, error)
    if (failure !== undefined) return failure
  }
  if (LlmError.isLlmError(error)) return classifier.classify({ where: "network", error }, subject)
  const signal = { where: "network", error: clean(asked, error) } as const
  return (name !== undefined && known.has(name)) || messageOf(error).toLowerCase().includes(firstEvent)
    ? ruled(classifier).classify(signal, subject)
    : classifier.classify(signal, subject)
}

/** The failure of a call that had a response. */
const ofResponse = (asked: Asked.Asked, error: object): ProviderFailure | undefined => {
  const { classifier, subject } = asked
  const status = field(error, "statusCode")
  if (typeof status !== "number") return undefined
  const { responseBody, responseHeaders } = responseOf(error)
  const body = Asked.scrubbed(asked, responseBody)
  if (status >= 300) {
    return classifier.classify({ where: "http", status, headers: responseHeaders, body }, subject)
  }
  if (text(field(error, "responseBody")) !== undefined) return ofBody(asked, body, responseHeaders)
  const cause = field(error, "cause")
  const failure = cause === undefined ? undefined : thrown(asked, cause)
  return failure === undefined || failure._tag === "UnknownFailure" ? unreadable(asked, undefined) : failure
}

/** The failure that a body under a status of success is. */
const ofBody = (asked: Asked.Asked, body: string, headers: Classifier.SignalHeaders): ProviderFailure =>
  asked.classifier.inspectAnswer(parse(body) ?? body, asked.subject, headers) ?? unreadable(asked, body)

const unreadable = (asked: Asked.Asked, body: string | undefined): ProviderFailure =>
  Asked.invalid(asked, "protocol", "What it sent does not have the form of its API.", body)

// ---------------------------------------------------------------------------
// In a stream
// ---------------------------------------------------------------------------

/** Events of the messages API. One of another name says nothing that an answer is made of. */
const contentEvents = /^(?:message|content_block|response)(?:_|\.|$)|^error$/

const isExtra = (value: unknown): boolean =>
  isObject(value) &&
  typeof value["type"] === "string" &&
  !contentEvents.test(value["type"]) &&
  !("choices" in value) &&
  !("candidates" in value) &&
  !isSet(value["error"])

const streamError = Symbol.for("vercel.ai.providerStreamError")

/**
 * What an `error` part of a stream is: the failure, `ignored` for an event that
 * the SDK does not know, or `ended` when the body ended before the answer did.
 */
export const inStream = (
  asked: Asked.Asked,
  error: unknown,
  headers: Classifier.SignalHeaders,
): ProviderFailure | "ignored" | "ended" => {
  const event = (value: unknown): ProviderFailure => {
    const body = Asked.scrubbed(asked, json(isObject(value) && isSet(value["error"]) ? value : { error: value }))
    return asked.classifier.classify({ where: "sse-event", headers, body }, asked.subject)
  }
  switch (nameOf(error)) {
    case "AI_TypeValidationError": {
      const value = isObject(error) ? error["value"] : undefined
      if (isExtra(value)) return "ignored"
      if (isObject(value) && (isSet(value["error"]) || value["type"] === "error")) return event(value)
      return Asked.invalid(asked, "protocol", "An event of its stream does not have the form of its API.", json(value))
    }
    case "AI_JSONParseError": {
      const said = isObject(error) ? text(error["text"]) : undefined
      return Asked.invalid(asked, "protocol", "An event of its stream is not JSON.", said)
    }
    case "AI_InvalidResponseDataError": {
      const message = isObject(error) ? text(error["message"]) : undefined
      if (message !== undefined && /ended without a finish reason/i.test(message)) return "ended"
      return thrown(asked, error)
    }
  }
  if (isObject(error) && streamError in error) return event(error["data"] ?? error)
  if (typeof error === "object" && error !== null && isError(error)) return thrown(asked, error)
  return event(error)
}
