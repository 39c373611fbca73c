/** What answering HTTP takes out of error types and leaves in them, to the letter. */
import type { Layer, Scope } from "effect"
import { Effect, ManagedRuntime, Stream } from "effect"
import type { AiError } from "effect/ai"
import type { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiClient, HttpApi, HttpApiEndpoint, HttpApiGroup } from "effect/http-api"
import {
  FailureMode,
  HttpApiErrors,
  HttpErrorMiddleware,
  HttpErrorResponse,
  HttpErrorStream,
  type LlmError,
} from "@understudy/core"
import { same } from "./same.ts"

declare class Foreign {
  readonly _tag: "Foreign"
}
declare class Database {
  readonly database: "database"
}
declare const failure: LlmError.LlmError

// --- Plain

const made = HttpErrorResponse.of(failure)
same<typeof made.body, HttpErrorResponse.Body>(true)
const negotiated = HttpErrorResponse.of(failure, { accept: "application/problem+json" })
same<typeof negotiated.body, HttpErrorResponse.Body | HttpErrorResponse.Problem>(true)
same<ReturnType<typeof HttpErrorResponse.toResponse>, Response>(true)

// Only failures have a row in the table.
// @ts-expect-error
HttpErrorResponse.of(new Error("no"))
// @ts-expect-error
HttpErrorResponse.of(failure, { audience: "everyone" })
// A tag that is not there.
// @ts-expect-error
HttpErrorResponse.of(failure, { failureModes: { RateLimite: { http: 429 } } })
HttpErrorResponse.of(failure, { failureModes: FailureMode.operatorOwned, audience: undefined })

// --- Handlers

type Plain = (request: Request) => Promise<Response>
declare const respond: Effect.Effect<Response, LlmError.LlmError | Foreign>
declare const withDatabase: Effect.Effect<Response, LlmError.LlmError, Database>
declare const runtime: ManagedRuntime.ManagedRuntime<Database | "more", Foreign>

const plain = HttpErrorResponse.handler((_request: Request) => respond)
same<typeof plain, Plain>(true)
// Services come from a runtime, and from nowhere else.
// @ts-expect-error
HttpErrorResponse.handler(() => withDatabase)
// @ts-expect-error
HttpErrorResponse.handler(() => withDatabase, { runtime: ManagedRuntime.make(HttpErrorResponse.layer({})) })
const served = HttpErrorResponse.handler((_request: Request) => withDatabase, { runtime })
same<typeof served, Plain>(true)

// Further arguments are those of the framework.
interface Context {
  readonly params: Promise<{ readonly id: string }>
}
const next = HttpErrorResponse.handler((_request: Request, _context: Context) => respond)
same<typeof next, (request: Request, context: Context) => Promise<Response>>(true)

// --- effect/http

declare const app: Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  LlmError.RateLimited | AiError.AiError | Foreign,
  Database
>
const handled = HttpErrorMiddleware.handle()(app)
same<typeof handled, Effect.Effect<HttpServerResponse.HttpServerResponse, Foreign, Database>>(true)

const layer = HttpErrorMiddleware.layer({ failureModes: FailureMode.operatorOwned })
same<typeof layer, Layer.Layer<never, never, HttpRouter.HttpRouter>>(true)

const answered = HttpErrorMiddleware.respond(failure)
same<typeof answered, Effect.Effect<HttpServerResponse.HttpServerResponse>>(true)

// --- Streams

declare const source: Stream.Stream<string, LlmError.StreamInterrupted | Foreign, Database>

const body = HttpErrorStream.body(source, { dialect: "openai" })
same<typeof body, Stream.Stream<Uint8Array, never, Database>>(true)
const opened = HttpErrorStream.open(source, { dialect: "sse" })
same<
  typeof opened,
  Effect.Effect<Stream.Stream<Uint8Array>, LlmError.StreamInterrupted | Foreign, Database | Scope.Scope>
>(true)
const web = HttpErrorStream.toResponse(source, { dialect: "sse" })
same<typeof web, Effect.Effect<Response, LlmError.StreamInterrupted | Foreign, Database>>(true)
const server = HttpErrorMiddleware.stream(source, { dialect: "ndjson" })
same<
  typeof server,
  Effect.Effect<
    HttpServerResponse.HttpServerResponse,
    LlmError.StreamInterrupted | Foreign,
    Database | Scope.Scope | HttpServerRequest.HttpServerRequest
  >
>(true)
// @ts-expect-error
export const xml = HttpErrorStream.body(source, { dialect: "xml" })
// @ts-expect-error
export const numbers = HttpErrorStream.body(Stream.make(1), { dialect: "sse" })

// --- effect/http-api

const errors = HttpApiErrors.errors(["RateLimited", "TimedOut"])
type Declared = (typeof errors)[number]["Type"]
same<Declared, LlmError.RateLimited | LlmError.TimedOut | LlmError.UnknownFailure>(true)
// @ts-expect-error
HttpApiErrors.errors(["RateLimite"])

const Api = HttpApi.make("api").add(
  HttpApiGroup.make("llm").add(HttpApiEndpoint.get("ask", "/ask", { error: [...errors] })),
)
// A client handles them by tag.
export const asked = Effect.gen(function* () {
  const client = yield* HttpApiClient.make(Api)
  const left = client.llm.ask().pipe(Effect.catchTags({ RateLimited: () => Effect.void, TimedOut: () => Effect.void }))
  type Left = typeof left extends Effect.Effect<infer _A, infer E, infer _R> ? Extract<E, LlmError.LlmError> : never
  same<Left, LlmError.UnknownFailure>(true)
})
