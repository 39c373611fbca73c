/**
 * What a provider said: its codes, its messages and its own statuses, taken out
 * of a body of whatever shape.
 *
 * Only the places where an API puts its error are read (`error`, `message`,
 * `detail`, `fault`, `errors`, `metadata.raw`, …). A prompt that is echoed in
 * `input`, `messages`, `content` and the like is never looked at. Read is, at
 * most, the first 64 KiB of a body, and JSON inside of strings to a depth of
 * three.
 *
 * Shapes: OpenAI `{error:{message,type,param,code}}`, Anthropic
 * `{type:"error",error:{type,message},request_id}`, Google
 * `{error:{code,message,status,details[]}}` also as an array, AWS
 * `{__type,Message}` with `x-amzn-errortype`, FastAPI `{detail:[{msg}]}`,
 * Apigee `{fault:{faultstring,detail:{errorcode}}}`, XML of object stores, HTML
 * of edges, plain text.
 */
import * as Predicate from "effect/Predicate"
import * as Loose from "./loose.ts"

/** The most of a body that is looked at, in characters. */
export const maxBody = 64 * 1024
const maxMessage = 8 * 1024
const maxMessages = 32
const maxNesting = 3
const maxDepth = 10
const maxNodes = 512

/** Header names in lower case. */
export type Headers = Readonly<Record<string, string>>

/** What was found in one signal. */
export interface Said {
  /** Codes, types, reasons and exception names, as `plain` writes them. */
  readonly codes: ReadonlySet<string>
  /** The messages, outermost first, as the provider wrote them. */
  readonly messages: ReadonlyArray<string>
  /** The statuses that the body states, outermost first. */
  readonly statuses: ReadonlyArray<number>
  /** Every JSON value found: the body, and values inside of strings. */
  readonly values: ReadonlyArray<unknown>
  readonly requestId: string | undefined
  readonly html: boolean
  /** The whole body was one JSON value. */
  readonly json: boolean
}

/** A code without its spelling: `RATE_LIMIT_EXCEEDED` and `RateLimitExceeded` are `ratelimitexceeded`. */
export const plain = (code: string): string => code.toLowerCase().replace(/[^\p{L}\p{N}]/gu, "")

/** Headers by lower-case name, without those that are not set. */
export const lowerCase = (headers: Readonly<Record<string, unknown>> | undefined): Headers => {
  const out: Record<string, string> = {}
  for (const [name, value] of Object.entries(headers ?? {})) {
    if (typeof value === "string" || typeof value === "number") out[name.toLowerCase()] = String(value)
  }
  return out
}

/** Where a code stands. */
const codeKeys = new Set([
  "code",
  "type",
  "status",
  "reason",
  "error",
  "errortype",
  "errorcode",
  "errorstatus",
  "name",
  "statuscode",
  "exception",
  "limitsource",
  "responsecode",
  "originalstatuscode",
])

/** Where a message stands, or an object that holds one. */
const messageKeys = new Set([
  "error",
  "errors",
  "message",
  "msg",
  "errormessage",
  "errormsg",
  "errordescription",
  "originalmessage",
  "detail",
  "details",
  "title",
  "description",
  "faultstring",
  "raw",
  "quotaid",
  "failedcheck",
  "statusmsg",
  "errmsg",
])

/** What tells the body of an error from any other value in braces. */
const errorKeys = new Set(["error", "errors", "message", "msg", "detail", "fault", "faultstring", "errormessage"])

/** Where only an object is of use. */
const nestedKeys = new Set([
  "fault",
  "metadata",
  "innererror",
  "response",
  "exception",
  "violations",
  "cause",
  "body",
  "data",
  "responsebody",
  "previouserrors",
  "baseresp",
  "internalserverexception",
  "modelstreamerrorexception",
  "serviceunavailableexception",
  "throttlingexception",
  "validationexception",
  "modeltimeoutexception",
])

const requestIdKeys = new Set(["requestid", "xrequestid", "awsrequestid"])

const requestIdHeaders = [
  "x-request-id",
  "request-id",
  "apim-request-id",
  "x-ms-request-id",
  "x-amzn-requestid",
  "x-amzn-request-id",
  "x-kong-request-id",
  "mistral-correlation-id",
  "x-correlation-id",
  "x-trace-id",
  "cf-ray",
]

const looksLikeSecret =
  /^(?:sk|pk|rk|gsk|xai|hf|r8|pplx|fw|key|ghp|bearer|basic|aiza|akia|asia|eyj)(?:[-_ ]|[a-z0-9]{12})/i

/** An identifier, or nothing: what may be a key or a sentence is not kept. */
export const identifier = (u: unknown): string | undefined =>
  typeof u === "string" && /^[\w.:=+/-]{4,128}$/.test(u) && !looksLikeSecret.test(u) ? u : undefined

const exceptionName = /\b([A-Z][A-Za-z]{2,60}(?:Error|Exception|Fault))\b/g
const stated = /\b(?:error code|status code|statuscode|http(?: status| error)?|status)\s{0,2}[:=]?\s{0,2}([45]\d\d)\b/gi

/** `ThrottlingException:http://…` and `com.amazon…#ThrottlingException` are both `ThrottlingException`. */
const simpleName = (name: string): string => {
  const hash = name.lastIndexOf("#")
  return (hash >= 0 ? name.slice(hash + 1) : name).split(":http")[0] ?? name
}

const isStatus = (n: number): boolean => Number.isInteger(n) && n >= 400 && n <= 599

/** Is this the body of an error, and not any other value in braces? */
const saysSomething = (value: unknown): boolean => {
  const inner: unknown = Array.isArray(value) ? value.find(Predicate.isReadonlyObject) : value
  return Predicate.isReadonlyObject(inner) && Object.keys(inner).some((key) => errorKeys.has(plain(key)))
}

/** Does this text look like a page and not like an API's answer? */
export const isHtml = (text: string): boolean =>
  /^\s{0,200}(?:<!--[^>]{0,500}-->\s{0,20})?<(?:!doctype\s{1,5}html|html|head|body|title|center|h1|div|meta|script)\b/i.test(
    text.slice(0, 2048),
  )

const parse = (text: string): { readonly value: unknown } | undefined => {
  try {
    return { value: JSON.parse(text) }
  } catch {
    return undefined
  }
}

/** The values of server-sent events or of NDJSON; empty when it is neither. */
export const events = (text: string): ReadonlyArray<unknown> =>
  lines(text).flatMap((line) => {
    const parsed = parse(line)
    return parsed === undefined ? [] : [parsed.value]
  })

const lines = (text: string): ReadonlyArray<string> => {
  const sse = /^(?:\s{0,20}:[^\n]{0,500}\n)*\s{0,20}(?:event|data|id|retry):/.test(text.slice(0, 8192))
  if (sse) {
    return text
      .split("\n")
      .filter((line) => line.startsWith("data:"))
      .map((line) => line.slice(5).trim())
  }
  return /^\s{0,20}\{[^\n]{0,16384}\}\s{0,5}\n\s{0,20}\{/.test(text) ? text.split("\n") : []
}

/**
 * Reads a body, as text or already parsed.
 */
export const read = (
  body: unknown,
  headers: Headers = {},
  more: { readonly codes?: ReadonlyArray<string>; readonly messages?: ReadonlyArray<string> } = {},
): Said => {
  const codes = new Set<string>()
  const messages: Array<string> = []
  const statuses: Array<number> = []
  const values: Array<unknown> = []
  let requestId = requestIdHeaders.map((name) => identifier(headers[name])).find((id) => id !== undefined)
  let nodes = 0
  let json = false

  const addCode = (code: string): void => {
    if (code.length > 120) return
    const name = plain(simpleName(code))
    if (name !== "" && codes.size < 128) codes.add(name)
  }

  const addStatus = (n: number): void => {
    if (isStatus(n)) statuses.push(n)
  }

  const addText = (text: string): void => {
    const message = text.trim().slice(0, maxMessage)
    if (message === "" || messages.length >= maxMessages || messages.includes(message)) return
    messages.push(message)
    for (const [, name] of message.slice(0, 400).matchAll(exceptionName)) addCode(name ?? "")
    for (const [, status] of message.slice(0, 400).matchAll(stated)) addStatus(Number(status))
  }

  /** A message, and what is inside of it when it quotes another body. */
  const addMessage = (text: string, nesting: number): void => {
    if (nesting < maxNesting) {
      let tries = 3
      for (const { index } of text.slice(0, maxBody).matchAll(/[{[]\s{0,20}\\?['"{]/g)) {
        if (tries-- === 0) break
        const tail = text.slice(index, index + maxBody)
        const strict = parse(tail)
        const { end, value } = strict === undefined ? Loose.read(tail) : { value: strict.value, end: tail.length }
        if (!saysSomething(value)) continue
        addText(`${text.slice(0, index)} ${tail.slice(end)}`.replace(/^[\s.'"]+$/, ""))
        values.push(value)
        return visit(value, nesting + 1, 0)
      }
    }
    addText(text)
  }

  const visit = (node: unknown, nesting: number, depth: number): void => {
    if (depth > maxDepth || ++nodes > maxNodes) return
    if (typeof node === "string") return addMessage(node, nesting)
    if (Array.isArray(node)) {
      for (const item of node.slice(0, 32)) visit(item, nesting, depth + 1)
      return
    }
    if (!Predicate.isReadonlyObject(node)) return
    for (const [name, value] of Object.entries(node).slice(0, 64)) {
      const key = plain(name)
      if (requestIdKeys.has(key)) requestId ??= identifier(value)
      if (codeKeys.has(key)) {
        if (typeof value === "number") {
          addStatus(value)
          addCode(String(value))
        } else if (typeof value === "string") {
          if (/^\d{3}$/.test(value)) addStatus(Number(value))
          addCode(value)
          // Some write a sentence where a code belongs.
          if (!messageKeys.has(key) && value.includes(" ")) addMessage(value, nesting)
        }
      }
      if (key.endsWith("exception") && Predicate.isReadonlyObject(value)) addCode(name)
      if (messageKeys.has(key) || (nestedKeys.has(key) && typeof value === "object")) visit(value, nesting, depth + 1)
    }
  }

  for (const name of ["x-amzn-errortype", ":exception-type", ":error-code", "x-ms-error-code", "x-error-code"]) {
    const code = headers[name]
    if (code !== undefined) addCode(code)
  }
  for (const name of [":error-message", "grpc-message"]) {
    const message = headers[name]
    if (message !== undefined) addText(message)
  }
  for (const code of more.codes ?? []) addCode(code)

  let html = false
  if (typeof body === "string") {
    const text = body.length > maxBody ? body.slice(0, maxBody) : body
    html = isHtml(text)
    const whole = html ? undefined : parse(text)
    if (html) {
      for (const [, words] of text.matchAll(/<(?:title|h1|h2)[^>]{0,200}>([^<]{1,300})/gi)) addText(words ?? "")
      for (const [, words] of text.matchAll(/(error code:? {0,2}\d{3,4})/gi)) addText(words ?? "")
    } else if (/^\s{0,200}<(?:\?xml|error\b|response\b)/i.test(text)) {
      for (const [, tag, words] of text.matchAll(/<(code|message|errorcode)>([^<]{1,500})/gi)) {
        if (tag?.toLowerCase() === "message") addText(words ?? "")
        else addCode(words ?? "")
      }
    } else if (whole !== undefined) {
      json = true
      values.push(whole.value)
      visit(whole.value, 0, 0)
    } else {
      const sent = events(text)
      for (const value of sent) {
        values.push(value)
        visit(value, 0, 0)
      }
      if (sent.length === 0) addMessage(text, 0)
    }
  } else if (body !== undefined && body !== null) {
    json = true
    values.push(body)
    visit(body, 0, 0)
  }
  for (const message of more.messages ?? []) addMessage(message, 0)

  return { codes, messages, statuses, values, requestId, html, json }
}

/** What a message quotes of the request; words in it are the prompt's and not the provider's. */
const echoes = [
  /\binput_value=.{0,4000}?(?=, input_type=|$)/g,
  /\b(?:got|received|input|prompt|content|text|value)["']?\s?(?:is|was)?\s?[:=]?\s?"(?:(?!").){16,4000}"/g,
  /\b(?:got|received|input|prompt|content|text|value)["']?\s?(?:is|was)?\s?[:=]?\s?'(?:(?!').){16,4000}'/g,
]

/** The messages as phrases are matched on them: one line, lower case, straight quotes, without echoes. */
export const textOf = (said: Said): string => {
  const text = said.messages
    .join(" | ")
    .slice(0, 2 * maxMessage)
    .toLowerCase()
    .replace(/[‘’]/g, "'")
    .replace(/\s+/g, " ")
  return echoes.reduce((rest, echo) => rest.replace(echo, ""), text)
}
