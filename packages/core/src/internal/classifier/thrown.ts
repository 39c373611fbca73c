/**
 * What a thrown error says: codes, names and messages of it and of everything
 * below it, over the chains of `cause`, `reason`, `errors` and the like.
 *
 * `effect/http` puts the fault of undici on `reason.cause` and that of `fetch`
 * one deeper; Node's happy eyeballs give an `AggregateError`. Errors of SDKs
 * that hold a response are told by `http`.
 */
import * as Predicate from "effect/Predicate"
import * as Said from "./said.ts"

const maxNodes = 48
const maxDepth = 10

/** The words of an error and of what is below it. */
export interface Thrown {
  readonly codes: ReadonlyArray<string>
  readonly messages: ReadonlyArray<string>
  /** The response that an error of an SDK holds. */
  readonly http: { readonly status: number; readonly headers: Said.Headers; readonly body: unknown } | undefined
}

/** A getter that throws says nothing. */
const field = (node: object, key: string): unknown => {
  try {
    const value: unknown = Reflect.get(node, key)
    return value
  } catch {
    return undefined
  }
}

const inMessage =
  /\b(?:E[A-Z]{3,20}|UND_ERR_[A-Z_]{2,40}|ERR_[A-Z0-9_]{2,60}|HPE_[A-Z_]{2,40}|CERT_[A-Z_]{2,40}|[A-Z]{3,20}_[A-Z_]{3,40}_CERT(?:_[A-Z]{2,20})?)\b/g

const below = ["cause", "reason", "error", "originalError", "errors", "reasons", "failures", "defect", "response"]

const statusOf = (node: object): number | undefined => {
  const metadata = field(node, "$metadata")
  const candidates = [
    field(node, "status"),
    field(node, "statusCode"),
    typeof metadata === "object" && metadata !== null ? field(metadata, "httpStatusCode") : undefined,
  ]
  return candidates.find((n): n is number => typeof n === "number" && Number.isInteger(n) && n >= 400 && n <= 599)
}

/** A plain record, or the `Headers` of the web. */
const headersOf = (u: unknown): Said.Headers => {
  try {
    if (u instanceof Headers) return Said.lowerCase(Object.fromEntries(u.entries()))
    return Predicate.isReadonlyObject(u) ? Said.lowerCase(u) : {}
  } catch {
    return {}
  }
}

/** Reads an error, its JSON rendering, or its text. */
export const read = (error: unknown): Thrown => {
  const codes: Array<string> = []
  const messages: Array<string> = []
  const seen = new Set<object>()
  let http: Thrown["http"]

  const say = (text: string): void => {
    const message = text.slice(0, 2048)
    messages.push(message)
    for (const [code] of message.matchAll(inMessage)) codes.push(code)
  }

  const visit = (node: unknown, depth: number): void => {
    if (depth > maxDepth || seen.size >= maxNodes) return
    if (typeof node === "string") return say(node)
    if (typeof node !== "object" || node === null || seen.has(node)) return
    seen.add(node)
    if (Array.isArray(node)) {
      for (const item of node.slice(0, 16)) visit(item, depth + 1)
      return
    }
    for (const key of ["code", "name", "_tag"]) {
      const code = field(node, key)
      if (typeof code === "string") codes.push(code)
    }
    const message = field(node, "message")
    if (typeof message === "string") say(message)
    const syscall = field(node, "syscall")
    if (syscall === "connect" && field(node, "code") === "ETIMEDOUT") codes.push("UND_ERR_CONNECT_TIMEOUT")
    const status = statusOf(node)
    if (status !== undefined && http === undefined) {
      const body = [
        field(node, "responseBody"),
        field(node, "body"),
        field(node, "error"),
        field(node, "data"),
        message,
      ]
      http = {
        status,
        headers: headersOf(field(node, "headers") ?? field(node, "responseHeaders")),
        body: body.find((part) => (typeof part === "string" && part !== "") || Predicate.isReadonlyObject(part)),
      }
    }
    for (const key of below) {
      const next = field(node, key)
      if (typeof next === "object" || (typeof next === "string" && key !== "reason")) visit(next, depth + 1)
    }
  }

  let parsed = error
  if (typeof error === "string") {
    try {
      parsed = JSON.parse(error.slice(0, Said.maxBody))
    } catch {
      parsed = error
    }
  }
  try {
    visit(parsed, 0)
  } catch {
    // A proxy that was revoked, or the like, says no more than was read of it.
  }
  return { codes: codes.slice(0, 128), messages, http }
}
