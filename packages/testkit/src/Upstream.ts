/**
 * A fault-injecting LLM provider: a real HTTP server on the loopback interface
 * that speaks the OpenAI and the Anthropic protocol, answers well or fails as
 * its script says, and records what it saw.
 *
 * Point a client at `openaiUrl` or `anthropicUrl`, play a script, and look at
 * what the client did: how many requests came, with what in them, and who
 * closed each connection. Sockets are reset, stalled and refused for real,
 * since a mock of a client cannot tell how the client takes a broken
 * connection.
 *
 * **Details**
 *
 * - Each request plays the next step of the script (see `Script`, `Step` and
 *   `Fault`). Without a script every request gets a good answer.
 * - `POST` to a path that ends in `/chat/completions` is OpenAI, one that ends
 *   in `/v1/messages` is Anthropic, whatever stands before. `GET /health`
 *   answers 200 and is not recorded; any other path is a 404 that says so.
 * - Whether an answer is streamed depends on `stream: true` in the request.
 * - A request that no provider would accept (no `messages`, no `max_tokens`
 *   for Anthropic, ...) gets the 400 of its dialect and plays no step.
 * - Ids count from 1 and `created` is fixed, so the same requests get the same
 *   bytes each time.
 *
 * **Gotchas**
 *
 * The server keeps real time, whatever `Clock` the test has: a latency of a
 * second is a second also under `TestClock`. Keep the durations of a script
 * short, and wait with `awaitRequests`, `awaitClosed` and `awaitIdle` rather
 * than by sleeping.
 *
 * **Example** (The second request is answered)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Upstream } from "@understudy/testkit"
 *
 * export const program = Effect.gen(function* () {
 *   const upstream = yield* Upstream.make({
 *     script: [Upstream.status(429, { headers: { "retry-after": 1 } }), Upstream.answer("Hello")],
 *   })
 *   // ... call a client with the base URL upstream.openaiUrl ...
 *   const [first] = yield* upstream.awaitRequests(1)
 *   console.log(first?.body, first?.step)
 * }).pipe(Effect.scoped)
 * ```
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Http from "node:http"
import type { AddressInfo, Socket } from "node:net"
import * as Plan from "./internal/Plan.ts"
import * as Playback from "./internal/Playback.ts"
import type { Ask } from "./internal/Turn.ts"
import type { Dialect, FaultOf, Script, Step, Wire } from "./UpstreamScript.ts"

export * from "./UpstreamScript.ts"

// -----------------------------------------------------------------------------
// Errors
// -----------------------------------------------------------------------------

/** The port is in use by another program. */
export class PortInUse extends Schema.TaggedError<PortInUse>("@understudy/testkit/Upstream/PortInUse")("PortInUse", {
  host: Schema.String,
  port: Schema.Int,
}) {
  override get message(): string {
    return (
      `Port ${this.port} of ${this.host} is in use by another program. ` +
      "Stop that program, choose another port, or let the system choose one with port 0."
    )
  }
}

/** The server cannot listen, for a reason other than a port in use. `code` is the system's, such as `EACCES`. */
export class ListenFailed extends Schema.TaggedError<ListenFailed>("@understudy/testkit/Upstream/ListenFailed")(
  "ListenFailed",
  { host: Schema.String, port: Schema.Int, code: Schema.String },
) {
  override get message(): string {
    return (
      `Cannot listen on port ${this.port} of ${this.host} (${this.code}). ` +
      "Use an address of this machine, such as 127.0.0.1, and a port above 1023 or 0."
    )
  }
}

/** Why an upstream cannot listen. */
export type UpstreamError = PortInUse | ListenFailed

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/** An end of a connection. */
export type Side = "client" | "server"

/**
 * One request, as far as it has come. A record is never changed; ask again for
 * a newer one. Instants are milliseconds since the epoch.
 */
export interface RequestRecord {
  /** `req_1`, `req_2`, ... in order of arrival; also sent as `x-request-id` or `request-id`. */
  readonly id: string
  /** The connection it came over. */
  readonly connection: string
  /** Undefined for a path that belongs to no dialect. */
  readonly dialect: Dialect | undefined
  readonly method: string
  /** The path without the query. */
  readonly path: string
  /** What follows the question mark, or empty; without credentials, as the headers. */
  readonly query: string
  /** Lower-case names. Credentials are replaced by `<redacted>`, unless `recordCredentials` is set. */
  readonly headers: Readonly<Record<string, string>>
  /** The parsed body, or its text if it is not JSON. */
  readonly body: unknown
  /** Of the body, or empty. */
  readonly model: string
  readonly streaming: boolean
  /** When the last byte of the request had come. */
  readonly at: number
  /** The step played for it; undefined if it was rejected. */
  readonly step: Step | undefined
  /** Why it was rejected without playing a step: a wrong path, or a body that no provider would accept. */
  readonly rejected: string | undefined
  /** The status sent, once it is. */
  readonly status: number | undefined
  /** When the response was completely sent, if ever. */
  readonly completedAt: number | undefined
  /** Who closed the connection before the response was complete. */
  readonly closedBy: Side | undefined
  /** When the connection was closed before the response was complete. */
  readonly closedAt: number | undefined
}

/** One connection, as far as it has come. Instants are milliseconds since the epoch. */
export interface ConnectionRecord {
  /** `conn_1`, `conn_2`, ... in the order in which they were opened. */
  readonly id: string
  readonly openedAt: number
  /** The ids of the requests that came over it. */
  readonly requests: ReadonlyArray<string>
  /** Who closed it; undefined while it is open. */
  readonly closedBy: Side | undefined
  readonly closedAt: number | undefined
}

/** The options of an upstream. */
export interface Options {
  /** The address to listen on. Default `127.0.0.1`, so that only this machine can connect. */
  readonly host?: string
  /** The port to listen on. Default 0: one that is free. */
  readonly port?: number
  /** What to play. Default: good answers. */
  readonly script?: Script
  /** How bytes leave the server, unless a step says otherwise. */
  readonly wire?: Wire
  /** `created` of answers, in seconds since the epoch. Default 1735689600 (2025-01-01). */
  readonly created?: number
  /** Reject requests that no provider would accept. Default true. */
  readonly validate?: boolean
  /** Keep credentials in the recorded headers and queries. Default false. */
  readonly recordCredentials?: boolean
  /** How many requests, and how many connections, to remember: the newest. Default 10,000. */
  readonly remember?: number
  /** Called when a request has arrived, before its step is played. What it throws is ignored. */
  readonly onRequest?: (request: RequestRecord) => void
  /** Called when a request is over: completely answered, or its connection closed. What it throws is ignored. */
  readonly onEnd?: (request: RequestRecord) => void
}

/** What becomes of the requests being answered when the port starts to refuse. */
export interface RefuseOptions {
  /** Let them `finish` (default), or `reset` their connections. */
  readonly inFlight?: "finish" | "reset"
}

/** A running upstream. */
export interface Running {
  /** `http://127.0.0.1:<port>`. */
  readonly url: string
  /** The base URL for OpenAI clients: `url` and `/v1`. */
  readonly openaiUrl: string
  /** The base URL for Anthropic clients: `url` itself, to which they add `/v1/messages`. */
  readonly anthropicUrl: string
  readonly port: number

  /** The requests so far, the oldest first. */
  readonly requests: Effect.Effect<ReadonlyArray<RequestRecord>>
  /** The connections so far, the oldest first. */
  readonly connections: Effect.Effect<ReadonlyArray<ConnectionRecord>>
  /** How many requests have arrived. */
  readonly count: Effect.Effect<number>
  /** How many requests are being answered. */
  readonly open: Effect.Effect<number>
  /** Whether the port accepts connections. */
  readonly listening: Effect.Effect<boolean>
  /** Forgets all requests and connections that are over, and counts and names from 1 again. The script stays where it is. */
  readonly reset: Effect.Effect<void>

  /** Plays another script from its first step. A refusal by the former script ends. */
  readonly play: (script: Script) => Effect.Effect<void, UpstreamError>
  /** Stops listening and closes idle connections, until `accept`. */
  readonly refuse: (options?: RefuseOptions) => Effect.Effect<void>
  /** Listens again, on the same port. Fails if another program has taken the port meanwhile. */
  readonly accept: Effect.Effect<void, UpstreamError>

  /** Waits until so many requests have arrived in all, and gives the requests so far. */
  readonly awaitRequests: (count: number) => Effect.Effect<ReadonlyArray<RequestRecord>>
  /** Waits until the request of this id, which need not have come yet, is over: completely answered, or its connection closed. */
  readonly awaitEnd: (id: string) => Effect.Effect<RequestRecord>
  /** Waits until the connection of the request of this id is closed. A connection that is kept alive stays open after the answer. */
  readonly awaitClosed: (id: string) => Effect.Effect<ConnectionRecord>
  /** Waits until no request is being answered. */
  readonly awaitIdle: Effect.Effect<void>
  /** Requests as they end, from the moment the stream is run. It does not end by itself. */
  readonly ended: Stream.Stream<RequestRecord>
}

/** The service of a running upstream, for tests that share one. */
export class Upstream extends Context.Service<Upstream, Running>()("@understudy/testkit/Upstream") {}

/** An upstream that listens as long as the layer is built. */
export const layer = (options: Options = {}): Layer.Layer<Upstream, UpstreamError> =>
  Layer.effect(Upstream, make(options))

/**
 * Starts an upstream. When the scope closes, all connections are closed at once
 * and the port is free.
 */
export const make = (options: Options = {}): Effect.Effect<Running, UpstreamError, Scope.Scope> =>
  Effect.suspend(() => {
    const server = new Server(options)
    return Effect.acquireRelease(
      Effect.map(server.start, () => server.running()),
      () => server.stop,
    )
  })

// -----------------------------------------------------------------------------
// Server
// -----------------------------------------------------------------------------

/** A connection and who is closing it: an intent that is set before the socket is touched. */
interface Connection {
  record: ConnectionRecord
  readonly socket: Socket
  closer: Side | undefined
  readonly exchanges: Set<Exchange>
  /** Close it when its requests are over, since the port refuses. */
  closeWhenIdle: boolean
}

/** A request and its response. */
interface Exchange {
  record: RequestRecord
  readonly connection: Connection
  readonly response: Http.ServerResponse
  over: boolean
  played: Playback.Played | undefined
  fiber: Fiber.Fiber<void> | undefined
}

const credentials = new Set([
  "authorization",
  "proxy-authorization",
  "x-api-key",
  "api-key",
  "x-goog-api-key",
  "cookie",
])

const secretParameter = /((?:^|&)(?:key|api[-_]?key|access_token)=)[^&]*/gi

// Another program may hold the port for a moment: a client that was given it for
// a connection of its own.
const relisten = Schedule.spaced("20 millis")

class Server {
  readonly options: Options
  readonly host: string
  readonly http: Http.Server
  readonly watchers = new Set<() => void>()
  readonly listeners = new Set<(record: RequestRecord) => void>()
  readonly live = new Set<Connection>()
  readonly bySocket = new WeakMap<object, Connection>()
  port: number
  playback: Playback.Playback
  readonly exchanges: Array<Exchange> = []
  readonly connections: Array<Connection> = []
  requestCount = 0
  connectionCount = 0
  openCount = 0
  stopped = false
  /** Whether the port should accept connections: the listener follows. */
  accepting = true
  /** Whether the listener is on its way. */
  binding = false
  /** Ends a refusal of the script. */
  refusal: Fiber.Fiber<void> | undefined

  constructor(options: Options) {
    this.options = options
    this.host = options.host ?? "127.0.0.1"
    this.port = options.port ?? 0
    this.playback = Playback.make(options.script ?? [])
    // No clock of Node's own may close a connection: the record would call it the client's.
    this.http = Http.createServer({ keepAliveTimeout: 0, requestTimeout: 0, headersTimeout: 0, noDelay: true })
    this.http.on("connection", (socket) => this.connected(socket))
    this.http.on("request", (request, response) => this.received(request, response))
    this.http.on("clientError", (error: NodeJS.ErrnoException, socket) => {
      const connection = this.bySocket.get(socket)
      if (connection === undefined) return void socket.destroy()
      // Bytes that are no HTTP are the server's reason to close; anything else, such
      // as a reset, came from the client.
      if (error.code?.startsWith("HPE_") !== true) connection.closer ??= "client"
      this.cut(connection, "destroy")
    })
  }

  // --- listening -------------------------------------------------------------

  readonly listen: Effect.Effect<void, UpstreamError> = Effect.callback((resume) => {
    if (this.http.listening) return resume(Effect.void)
    const { host, port } = this
    const failed = (error: NodeJS.ErrnoException) => {
      this.http.off("listening", bound)
      this.binding = false
      this.accepting = false
      const code = error.code ?? error.message
      resume(
        Effect.fail(code === "EADDRINUSE" ? new PortInUse({ host, port }) : new ListenFailed({ host, port, code })),
      )
    }
    const bound = () => {
      this.http.off("error", failed)
      this.binding = false
      this.port = (this.http.address() as AddressInfo).port
      if (!this.accepting) this.http.close()
      resume(Effect.void)
    }
    this.http.once("error", failed)
    this.http.once("listening", bound)
    if (this.binding) return
    this.binding = true
    this.http.listen({ host, port, exclusive: true })
  })

  readonly start: Effect.Effect<void, UpstreamError> = Effect.tap(this.listen, () =>
    Effect.sync(() => this.refuseIfDue()),
  )

  readonly stop: Effect.Effect<void> = Effect.callback((resume) => {
    this.stopped = true
    this.accepting = false
    this.refusal?.interruptUnsafe()
    for (const connection of this.live) this.cut(connection, "destroy")
    this.http.close(() => resume(Effect.void))
  })

  refuseNow(inFlight: "finish" | "reset"): void {
    this.accepting = false
    for (const connection of this.live) {
      if (connection.exchanges.size === 0) this.cut(connection, "destroy")
      else if (inFlight === "reset") this.cut(connection, "reset")
      else connection.closeWhenIdle = true
    }
    if (this.http.listening) this.http.close()
    this.changed()
  }

  readonly acceptAgain: Effect.Effect<void, UpstreamError> = Effect.suspend(() => {
    if (this.stopped) return Effect.void
    this.accepting = true
    for (const connection of this.live) connection.closeWhenIdle = false
    return Effect.tap(this.listen, () => Effect.sync(() => this.changed()))
  })

  /** Begins the refusal that the script has next, if it has one and its time has come. */
  refuseIfDue(): void {
    if (this.stopped || !this.accepting) return
    const step = Playback.dueRefusal(this.playback)
    if (step !== undefined) this.refuseFor(step)
  }

  refuseFor(step: FaultOf<"refuse">): void {
    this.endRefusal()
    this.refuseNow(step.inFlight ?? "finish")
    this.refusal = Effect.runFork(
      Effect.sleep(step.for).pipe(
        Effect.andThen(Effect.retry(this.acceptAgain, relisten)),
        // It tries until it succeeds or the upstream stops: there is nobody to tell.
        Effect.orDie,
        Effect.andThen(
          Effect.sync(() => {
            this.refusal = undefined
            this.refuseIfDue()
          }),
        ),
      ),
    )
  }

  endRefusal(): boolean {
    const ended = this.refusal !== undefined
    this.refusal?.interruptUnsafe()
    this.refusal = undefined
    return ended
  }

  // --- connections -----------------------------------------------------------

  connected(socket: Socket): void {
    const connection: Connection = {
      record: {
        id: `conn_${(this.connectionCount += 1)}`,
        openedAt: Date.now(),
        requests: [],
        closedBy: undefined,
        closedAt: undefined,
      },
      socket,
      closer: undefined,
      exchanges: new Set(),
      closeWhenIdle: false,
    }
    this.live.add(connection)
    this.bySocket.set(socket, connection)
    this.remember(this.connections, connection)
    const byClient = () => {
      connection.closer ??= "client"
    }
    socket.on("error", byClient)
    socket.once("end", byClient)
    socket.once("close", () => {
      this.live.delete(connection)
      const closedBy = connection.closer ?? "client"
      const closedAt = Date.now()
      connection.record = { ...connection.record, closedBy, closedAt }
      for (const exchange of connection.exchanges) this.end(exchange, { closedBy, closedAt })
      this.changed()
    })
  }

  cut(connection: Connection, how: "reset" | "destroy" | "finish"): void {
    connection.closer ??= "server"
    if (how === "reset") connection.socket.resetAndDestroy()
    else if (how === "finish") connection.socket.destroySoon()
    else connection.socket.destroy()
  }

  // --- requests --------------------------------------------------------------

  received(request: Http.IncomingMessage, response: Http.ServerResponse): void {
    const chunks: Array<Buffer> = []
    request.on("data", (chunk: Buffer) => chunks.push(chunk))
    request.on("error", () => {})
    request.once("end", () => {
      const connection = this.bySocket.get(request.socket)
      if (connection === undefined) return
      const [path = "", ...query] = (request.url ?? "").split("?")
      if (request.method === "GET" && path === "/health") {
        this.sendJson(response, 200, { status: "ok", requests: this.requestCount, open: this.openCount })
      } else {
        const text = Buffer.concat(chunks).toString("utf8")
        this.arrived(request, response, connection, { path, query: query.join("?"), text })
      }
    })
  }

  arrived(
    request: Http.IncomingMessage,
    response: Http.ServerResponse,
    connection: Connection,
    { path, query, text }: { readonly path: string; readonly query: string; readonly text: string },
  ): void {
    const sequence = (this.requestCount += 1)
    const body = parsed(text)
    const dialect = dialectOf(path)
    const model = stringAt(body, "model")
    const headers = flatHeaders(request.headers)
    const exchange: Exchange = {
      record: {
        id: `req_${sequence}`,
        connection: connection.record.id,
        dialect,
        method: request.method ?? "",
        path,
        query: this.options.recordCredentials === true ? query : query.replaceAll(secretParameter, "$1<redacted>"),
        headers: this.options.recordCredentials === true ? headers : redacted(headers),
        body,
        model,
        streaming: Predicate.isObject(body) && body["stream"] === true,
        at: Date.now(),
        step: undefined,
        rejected: undefined,
        status: undefined,
        completedAt: undefined,
        closedBy: undefined,
        closedAt: undefined,
      },
      connection,
      response,
      over: false,
      played: undefined,
      fiber: undefined,
    }
    this.openCount += 1
    this.remember(this.exchanges, exchange)
    connection.exchanges.add(exchange)
    connection.record = { ...connection.record, requests: [...connection.record.requests, exchange.record.id] }
    response.once("finish", () => {
      if (!response.shouldKeepAlive) connection.closer ??= "server"
      this.end(exchange, { completedAt: Date.now() })
    })

    const rejection = this.rejectionOf(exchange.record)
    if (rejection !== undefined) {
      exchange.record = { ...exchange.record, rejected: rejection.message }
      this.announce(exchange)
      this.reply(exchange, rejection.status, rejection.body)
    } else if (dialect !== undefined) {
      this.playFor(exchange, {
        dialect,
        model: model === "" ? "understudy-1" : model,
        streaming: exchange.record.streaming,
        includeUsage: includesUsage(body),
        inputTokens: Math.ceil(text.length / 4),
        sequence,
        requestId: exchange.record.id,
        created: this.options.created ?? 1_735_689_600,
      })
    }
  }

  rejectionOf({
    body,
    dialect,
    headers,
    id,
    method,
    path,
  }: RequestRecord): { readonly status: number; readonly message: string; readonly body: unknown } | undefined {
    if (dialect === undefined) {
      const message = `No such path: ${method} ${path}. This upstream serves POST */chat/completions, POST */v1/messages and GET /health.`
      return { status: 404, message, body: { error: { type: "not_found_error", message, param: null, code: null } } }
    }
    const protocol = Plan.protocols[dialect]
    const reject = (status: number, message: string) => ({
      status,
      message,
      body: protocol.errorBody(protocol.error(status, message), id),
    })
    if (method !== "POST") return reject(405, `Not allowed to ${method} on ${path} (HTTP POST expected).`)
    if (this.options.validate === false) return undefined
    const complaint = protocol.complaint(body, { path, headers })
    return complaint === undefined ? undefined : reject(400, complaint)
  }

  playFor(exchange: Exchange, ask: Ask): void {
    const played = Playback.next(this.playback, { dialect: ask.dialect, model: ask.model, path: exchange.record.path })
    const { step } = played
    exchange.played = played
    exchange.record = { ...exchange.record, step }
    this.announce(exchange)
    if ("fault" in step && step.fault === "refuse") {
      this.cut(exchange.connection, "reset")
      return this.refuseFor(step)
    }
    const wire = { ...this.options.wire, ...step.wire }
    const fiber = Effect.runFork(this.perform(exchange, ask, step, wire))
    exchange.fiber = fiber
    fiber.addObserver((exit) => {
      if (Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)) this.couldNotPlay(exchange, exit.cause)
    })
  }

  /** Carries out a plan. Interrupted when the connection closes. */
  perform(exchange: Exchange, ask: Ask, step: Step, wire: Wire): Effect.Effect<void> {
    const { connection, response } = exchange
    const write = (bytes: Uint8Array) =>
      Effect.callback<void>((resume) => {
        response.write(bytes, () => resume(Effect.void))
      })
    const pieces = (bytes: Uint8Array) =>
      wire.chunkBytes === undefined || bytes.length <= wire.chunkBytes
        ? write(bytes)
        : Effect.forEach(split(bytes, wire.chunkBytes), (piece) => Effect.andThen(write(piece), nextTurn), {
            discard: true,
          })
    const comment = new TextEncoder().encode(Plan.comment(wire))
    // Waits, with a comment now and then once an event stream has begun.
    const wait = Effect.fnUntraced(function* (duration: Duration.Duration) {
      const every = Duration.max(Duration.fromInputUnsafe(wire.keepAliveEvery ?? "Infinity"), Duration.millis(1))
      let left = duration
      while (ask.streaming && response.headersSent && Duration.isLessThan(every, left)) {
        yield* Effect.sleep(every)
        yield* pieces(comment)
        left = Duration.subtract(left, every)
      }
      yield* Effect.sleep(left)
    })
    const act = (act: Plan.Act): Effect.Effect<void> => {
      switch (act._tag) {
        case "Wait":
          return wait(act.duration)
        case "Head":
          return Effect.sync(() => {
            response.writeHead(act.status, act.headers)
            response.flushHeaders()
            exchange.record = { ...exchange.record, status: act.status }
          })
        case "Write":
          return pieces(act.bytes)
        case "End":
          return Effect.sync(() => void response.end())
        case "Reset":
          return Effect.sync(() => this.cut(connection, "reset"))
        case "Close":
          return Effect.sync(() => this.cut(connection, "finish"))
        case "Hang":
          return wait(Duration.infinity)
      }
    }
    return Effect.suspend(() => Effect.forEach(Plan.make(step, ask, wire), act, { discard: true }))
  }

  /** A step whose headers or status HTTP cannot carry. */
  couldNotPlay(exchange: Exchange, cause: Cause.Cause<never>): void {
    if (exchange.over) return
    const message = `The step could not be played: ${String(Cause.squash(cause))}`
    exchange.record = { ...exchange.record, rejected: message }
    if (exchange.response.headersSent) this.cut(exchange.connection, "destroy")
    else this.reply(exchange, 500, { error: { type: "understudy_error", message, param: null, code: null } })
  }

  reply(exchange: Exchange, status: number, body: unknown): void {
    exchange.record = { ...exchange.record, status }
    this.sendJson(exchange.response, status, body)
  }

  sendJson(response: Http.ServerResponse, status: number, body: unknown): void {
    const text = JSON.stringify(body)
    response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(text) })
    response.end(text)
  }

  end(
    exchange: Exchange,
    how: { readonly completedAt: number } | { readonly closedBy: Side; readonly closedAt: number },
  ): void {
    if (exchange.over) return
    exchange.over = true
    exchange.record = { ...exchange.record, ...how }
    exchange.fiber?.interruptUnsafe()
    exchange.played?.over()
    const { connection } = exchange
    connection.exchanges.delete(exchange)
    this.openCount -= 1
    if (connection.closeWhenIdle && connection.exchanges.size === 0) this.cut(connection, "finish")
    this.refuseIfDue()
    for (const listener of this.listeners) listener(exchange.record)
    observe(this.options.onEnd, exchange.record)
    this.changed()
  }

  announce(exchange: Exchange): void {
    observe(this.options.onRequest, exchange.record)
    this.changed()
  }

  // --- what was seen ---------------------------------------------------------

  remember<A>(all: Array<A>, one: A): void {
    all.push(one)
    if (all.length > (this.options.remember ?? 10_000)) all.shift()
  }

  changed(): void {
    for (const watcher of this.watchers) watcher()
  }

  /** Waits until `read` gives a value. */
  until<A>(read: () => A | undefined): Effect.Effect<A> {
    return Effect.callback((resume) => {
      const check = () => {
        const value = read()
        if (value === undefined) return
        this.watchers.delete(check)
        resume(Effect.succeed(value))
      }
      this.watchers.add(check)
      check()
      return Effect.sync(() => this.watchers.delete(check))
    })
  }

  records(): ReadonlyArray<RequestRecord> {
    return this.exchanges.map((exchange) => exchange.record)
  }

  running(): Running {
    const url = `http://${this.host.includes(":") ? `[${this.host}]` : this.host}:${this.port}`
    const accept = Effect.suspend(() => {
      this.endRefusal()
      return Effect.retry(this.acceptAgain, { schedule: relisten, times: 10 })
    }).pipe(Effect.andThen(Effect.sync(() => this.refuseIfDue())))
    return {
      url,
      openaiUrl: `${url}/v1`,
      anthropicUrl: url,
      port: this.port,
      requests: Effect.sync(() => this.records()),
      connections: Effect.sync(() => this.connections.map((connection) => connection.record)),
      count: Effect.sync(() => this.requestCount),
      open: Effect.sync(() => this.openCount),
      listening: Effect.sync(() => this.accepting && this.http.listening),
      reset: Effect.sync(() => {
        this.requestCount = 0
        this.exchanges.length = 0
        this.connections.splice(0, this.connections.length, ...this.live)
        for (const connection of this.live) connection.record = { ...connection.record, requests: [] }
      }),
      play: (script) =>
        Effect.suspend(() => {
          const wasRefusing = this.endRefusal()
          this.playback = Playback.make(script)
          if (wasRefusing) return accept
          this.refuseIfDue()
          return Effect.void
        }),
      refuse: (options) =>
        Effect.sync(() => {
          this.endRefusal()
          this.refuseNow(options?.inFlight ?? "finish")
        }),
      accept,
      awaitRequests: (count) => this.until(() => (this.requestCount >= count ? this.records() : undefined)),
      awaitEnd: (id) =>
        this.until(() => {
          const exchange = this.exchanges.find((exchange) => exchange.record.id === id)
          return exchange?.over === true ? exchange.record : undefined
        }),
      awaitClosed: (id) =>
        this.until(() => {
          const record = this.exchanges.find((exchange) => exchange.record.id === id)?.connection.record
          return record?.closedAt === undefined ? undefined : record
        }),
      awaitIdle: Effect.asVoid(this.until(() => (this.openCount === 0 ? true : undefined))),
      ended: Stream.callback((queue) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            const listener = (record: RequestRecord) => void Queue.offerUnsafe(queue, record)
            this.listeners.add(listener)
            return listener
          }),
          (listener) => Effect.sync(() => this.listeners.delete(listener)),
        ),
      ),
    }
  }
}

// Between two pieces a reader gets its turn, or it would read both at once.
const nextTurn = Effect.callback<void>((resume) => {
  const immediate = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(immediate))
})

const observe = (observer: ((record: RequestRecord) => void) | undefined, record: RequestRecord): void => {
  try {
    observer?.(record)
  } catch {
    // An observer that throws changes nothing.
  }
}

const dialectOf = (path: string): Dialect | undefined => {
  if (path.endsWith("/chat/completions")) return "openai"
  return path.endsWith("/v1/messages") ? "anthropic" : undefined
}

const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

const stringAt = (body: unknown, key: string): string => {
  const value = Predicate.isObject(body) ? body[key] : undefined
  return typeof value === "string" ? value : ""
}

const includesUsage = (body: unknown): boolean => {
  const options = Predicate.isObject(body) ? body["stream_options"] : undefined
  return Predicate.isObject(options) && options["include_usage"] === true
}

const flatHeaders = (headers: Http.IncomingHttpHeaders): Record<string, string> =>
  Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(", ") : (value ?? "")]),
  )

const redacted = (headers: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name, credentials.has(name) ? "<redacted>" : value]),
  )

const split = (bytes: Uint8Array, size: number): ReadonlyArray<Uint8Array> =>
  Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) => bytes.subarray(index * size, (index + 1) * size))
