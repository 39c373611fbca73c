/** What an error response needs to know of its request, whatever kind of request that is. */

/** A request of any framework, as far as it is looked at: the web's, Node's, Express's, or that of `effect/http`. */
export interface RequestLike {
  readonly url?: string | undefined
  /** What Express and `effect/http` keep of the address when a router has cut it. */
  readonly originalUrl?: string | undefined
  readonly headers?: HeadersLike | undefined
}

/** Headers by name, in lower case, or behind a `get`. */
export type HeadersLike =
  | { readonly get: (name: string) => string | null }
  | { readonly [name: string]: string | ReadonlyArray<string> | undefined }

/** What is known of a request. */
export interface RequestFacts {
  readonly accept?: string | undefined
  readonly requestId?: string | undefined
  readonly path?: string | undefined
}

const longestPath = 256

/** Identifiers as they are in use: no space, no quote, no bracket, nothing that ends a line or a header. */
const identifier = /^[\w.:=+/@-]{1,128}$/

/** A request's identifier, or nothing where it is not one: it goes into responses and logs, and anyone can send it. */
export const cleanId = (id: unknown): string | undefined =>
  typeof id === "string" && identifier.test(id) ? id : undefined

/** An origin; and what may be one without its scheme, since a name and a password can stand before an `@`. */
const origins = [/^[a-z][a-z0-9+.-]*:\/\/[^/?#]*/i, /^(?:[\\/]{2,})?[^\\/?#]*@[^\\/?#]*/]

/** The path of an address: without origin and query, in visible ASCII, and not too long. */
export const pathOf = (url: unknown): string | undefined => {
  if (typeof url !== "string") return undefined
  const path = origins
    .reduce((rest, origin) => rest.replace(origin, ""), url)
    .replace(/[?#].*$/s, "")
    .slice(0, longestPath)
    .replaceAll(/[^\x21-\x7e]/g, "_")
  return path === "" ? "/" : path
}

const header = (headers: HeadersLike | undefined, name: string): string | undefined => {
  if (headers === undefined) return undefined
  const { get } = headers
  const value = typeof get === "function" ? get.call(headers, name) : (headers as Record<string, unknown>)[name]
  return typeof value === "string" ? value : Array.isArray(value) ? value.join(", ") : undefined
}

/** What a request says. Never throws. */
export const factsOf = (request: RequestLike | undefined, requestIdHeader: string): RequestFacts => {
  try {
    return {
      accept: header(request?.headers, "accept"),
      requestId: cleanId(header(request?.headers, requestIdHeader)),
      path: pathOf(request?.originalUrl ?? request?.url),
    }
  } catch {
    return {}
  }
}

/** The signal of a request, where it has one. Never throws. */
export const signalOf = (request: { readonly signal?: AbortSignal | null } | undefined): AbortSignal | undefined => {
  try {
    const signal = request?.signal
    return typeof signal?.addEventListener === "function" ? signal : undefined
  } catch {
    return undefined
  }
}
