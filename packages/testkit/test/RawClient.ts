/**
 * A client that hides nothing: one TCP connection, the bytes as they came, and
 * how the socket ended.
 */
import { Effect, type Scope } from "effect"
import * as Net from "node:net"

export type Ending = "open" | "fin" | "rst" | "refused"

export interface RawClient {
  /** The chunks as the socket gave them. */
  readonly pieces: ReadonlyArray<Buffer>
  readonly text: () => string
  readonly ending: () => Ending
  readonly send: (request: RawRequest) => Effect.Effect<void>
  /** Waits for a text to have come. */
  readonly awaitText: (text: string) => Effect.Effect<string>
  readonly awaitEnding: Effect.Effect<Ending>
  readonly close: Effect.Effect<void>
}

export interface RawRequest {
  readonly path: string
  readonly body: unknown
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
}

export const connect = (port: number): Effect.Effect<RawClient, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => open(port)),
    (client) => client.close,
  )

const open = (port: number): RawClient => {
  const pieces: Array<Buffer> = []
  const watchers = new Set<() => void>()
  let ending: Ending = "open"
  const socket = Net.connect({ host: "127.0.0.1", port, noDelay: true })
  const changed = () => {
    for (const watcher of watchers) watcher()
  }
  socket.on("data", (piece: Buffer) => {
    pieces.push(piece)
    changed()
  })
  socket.on("end", () => {
    if (ending === "open") ending = "fin"
    changed()
  })
  socket.on("error", (error: NodeJS.ErrnoException) => {
    ending = error.code === "ECONNREFUSED" ? "refused" : "rst"
    changed()
  })
  const until = <A>(read: () => A | undefined) =>
    Effect.callback<A>((resume) => {
      const check = () => {
        const value = read()
        if (value === undefined) return
        watchers.delete(check)
        resume(Effect.succeed(value))
      }
      watchers.add(check)
      check()
      return Effect.sync(() => watchers.delete(check))
    })
  const text = () => Buffer.concat(pieces).toString("utf8")
  return {
    pieces,
    text,
    ending: () => ending,
    send: ({ body, headers = {}, method = "POST", path }) =>
      Effect.sync(() => {
        const payload = typeof body === "string" ? body : JSON.stringify(body)
        const all = {
          host: "upstream",
          "content-type": "application/json",
          "content-length": String(Buffer.byteLength(payload)),
          ...headers,
        }
        const head = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`)
        socket.write(`${method} ${path} HTTP/1.1\r\n${head.join("")}\r\n${payload}`)
      }),
    awaitText: (expected) => until(() => (text().includes(expected) ? text() : undefined)),
    awaitEnding: until(() => (ending === "open" ? undefined : ending)),
    close: Effect.sync(() => socket.destroy()),
  }
}

/** A response taken apart. `complete` says whether its framing was closed properly. */
export interface RawResponse {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
  readonly chunks: ReadonlyArray<Buffer>
  readonly complete: boolean
}

/** Takes apart what a connection with one response has brought so far. */
export const parse = (pieces: ReadonlyArray<Buffer>): RawResponse => {
  const all = Buffer.concat(pieces)
  const split = all.indexOf("\r\n\r\n")
  if (split < 0) throw new Error(`no headers in ${JSON.stringify(all.toString("utf8"))}`)
  const [first = "", ...lines] = all.subarray(0, split).toString("latin1").split("\r\n")
  const headers = Object.fromEntries(
    lines.map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]),
  )
  const status = Number(first.split(" ")[1])
  const rest = all.subarray(split + 4)
  if (headers["transfer-encoding"] !== "chunked") {
    return {
      status,
      headers,
      body: rest.toString("utf8"),
      chunks: [rest],
      complete: rest.length === Number(headers["content-length"]),
    }
  }
  const chunks: Array<Buffer> = []
  let at = 0
  let complete = false
  while (at < rest.length) {
    const line = rest.indexOf("\r\n", at)
    const size = Number.parseInt(rest.subarray(at, line).toString("latin1"), 16)
    if (size === 0) {
      complete = true
      break
    }
    chunks.push(rest.subarray(line + 2, line + 2 + size))
    at = line + 2 + size + 2
  }
  return { status, headers, body: Buffer.concat(chunks).toString("utf8"), chunks, complete }
}

export interface SseEvent {
  readonly event: string | undefined
  readonly data: string
}

/** The events of a stream; comments and the rest of the grammar are left out. */
export const sse = (body: string): ReadonlyArray<SseEvent> =>
  body
    .split(/\r?\n\r?\n/)
    .map((block) => block.split(/\r?\n/))
    .map((lines) => ({
      event: lines.find((line) => line.startsWith("event:"))?.replace(/^event: ?/, ""),
      data: lines
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.replace(/^data: ?/, ""))
        .join("\n"),
    }))
    .filter(({ data }) => data !== "")
