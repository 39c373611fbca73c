import { NodeHttpClient } from "@effect/platform-node"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { getRequestListener } from "@hono/node-server"
import {
  AiFailure,
  FailureMode,
  HttpApiErrors,
  HttpErrorMiddleware,
  HttpErrorResponse,
  LlmError,
} from "@understudy/core"
import { Duration, Effect, Layer, ManagedRuntime, Redacted, Schema } from "effect"
import { HttpRouter, type HttpServerResponse } from "effect/http"
import { HttpApi, HttpApiBuilder, HttpApiClient, HttpApiEndpoint, HttpApiGroup } from "effect/http-api"
import express from "express"
import { Hono } from "hono"
import {
  cases,
  challenge,
  type Line,
  named,
  planted,
  remember,
  remembering,
  type Served,
  serveEffect,
  serveNode,
} from "./HttpErrorResponse.cases.ts"

// ---------------------------------------------------------------------------
// The servers: each fails at /fail/<tag> with the failure of that tag's case
// ---------------------------------------------------------------------------

const params = HttpRouter.schemaPathParams(Schema.Struct({ tag: Schema.String }))

const route = (raise: (failure: LlmError.LlmError) => Effect.Effect<HttpServerResponse.HttpServerResponse, unknown>) =>
  HttpRouter.add(
    "GET",
    "/fail/:tag",
    Effect.flatMap(params, ({ tag }) => raise(named(`/${tag}`))),
  )

const fails = route((failure) => Effect.fail(failure))

const Api = HttpApi.make("api").add(
  HttpApiGroup.make("llm").add(
    HttpApiEndpoint.get("fail", "/fail/:tag", {
      params: { tag: Schema.String },
      success: Schema.String,
      error: HttpApiErrors.errors(LlmError.tags),
    }),
  ),
)

const api = HttpApiBuilder.layer(Api).pipe(
  Layer.provide(
    HttpApiBuilder.group(Api, "llm", (handlers) =>
      handlers.handle("fail", ({ params: { tag } }) => Effect.fail(named(`/${tag}`))),
    ),
  ),
)

const handled = (lines: Array<Line>) =>
  HttpErrorResponse.handler((request: Request) => Effect.fail(named(new URL(request.url).pathname)), {
    runtime: ManagedRuntime.make(remembering(lines)),
  })

/** How a framework that is not of Effect is served. */
const servers: Readonly<Record<string, () => Promise<Served>>> = {
  "a router of effect/http with the middleware": () => {
    const lines: Array<Line> = []
    return serveEffect(HttpRouter.serve(Layer.merge(fails, HttpErrorMiddleware.layer())), lines)
  },
  "a router of effect/http with the middleware, around AiError": () => {
    const ai = route((failure) => Effect.fail(AiFailure.toAiError(failure)))
    return serveEffect(HttpRouter.serve(Layer.merge(ai, HttpErrorMiddleware.layer())))
  },
  "a router of effect/http where failures are respondables": () => serveEffect(HttpRouter.serve(fails)),
  "an endpoint of effect/http-api": () => serveEffect(HttpRouter.serve(api)),
  "a plain web handler": () => {
    const lines: Array<Line> = []
    return serveNode(getRequestListener(handled(lines)), lines)
  },
  "a route of Next": () => {
    const lines: Array<Line> = []
    // What Next calls for GET app/fail/[tag]/route.ts.
    const GET = HttpErrorResponse.handler(
      (_request: Request, context: { readonly params: Promise<{ readonly tag: string }> }) =>
        Effect.flatMap(
          Effect.promise(() => context.params),
          ({ tag }) => Effect.fail(named(`/${tag}`)),
        ),
      { runtime: ManagedRuntime.make(remembering(lines)) },
    )
    const next = (request: Request) =>
      GET(request, { params: Promise.resolve({ tag: new URL(request.url).pathname.split("/").at(-1)! }) })
    return serveNode(getRequestListener(next), lines)
  },
  Hono: () => {
    const lines: Array<Line> = []
    const app = new Hono()
    app.get("/fail/:tag", (c) => Effect.runPromise(Effect.fail(named(c.req.path))))
    app.onError((error, c) => HttpErrorResponse.toResponse(error, c.req.raw, { log: remember(lines) }))
    return serveNode(getRequestListener(app.fetch), lines)
  },
  Express: () => {
    const lines: Array<Line> = []
    const app = express()
    app.get("/fail/:tag", (request) => Effect.runPromise(Effect.fail(named(request.path))))
    const answer: express.ErrorRequestHandler = (error, request, response, _next) =>
      HttpErrorResponse.send(response, error, request, { log: remember(lines) })
    app.use(answer)
    return serveNode(app, lines)
  },
}

// ---------------------------------------------------------------------------
// What each of them must answer
// ---------------------------------------------------------------------------

const secrets = Object.values(planted)

const nothingOf = (said: string): void => {
  for (const secret of secrets) assert.notInclude(said, secret)
}

for (const [framework, start] of Object.entries(servers)) {
  describe(`${framework} answers`, () => {
    let served: Served
    beforeAll(async () => {
      served = await start()
    })
    afterAll(() => served.close())

    for (const tag of LlmError.tags) {
      const { retryable, retryAfter, status, type } = cases[tag]

      it(`${tag} with ${status} and ${type}`, async () => {
        served.lines.length = 0
        const response = await fetch(`${served.url}/fail/${tag}?key=planted-key`, {
          headers: { "x-request-id": "req-of-ours-1" },
        })
        const text = await response.text()
        assert.strictEqual(response.status, status)
        assert.strictEqual(response.headers.get("content-type"), "application/json")
        assert.strictEqual(response.headers.get("cache-control"), "no-store")
        assert.strictEqual(response.headers.get("retry-after"), retryAfter === undefined ? null : String(retryAfter))
        assert.strictEqual(response.headers.get("www-authenticate"), status === 401 ? challenge : null)
        const { error } = JSON.parse(text)
        assert.isAbove(error.message.length, 20)
        assert.deepStrictEqual(JSON.parse(text), {
          error: {
            type,
            message: error.message,
            retryable,
            ...(retryAfter === undefined ? {} : { retry_after: retryAfter }),
            request_id: "req-of-ours-1",
          },
        })
        nothingOf(text)
        nothingOf(JSON.stringify([...response.headers]))
        // One line of the log.
        const [line, ...more] = served.lines.filter(({ fields }) => "error_type" in fields)
        assert.deepStrictEqual(line?.fields, {
          error_type: type,
          provider: planted.provider,
          model: planted.model,
          retryable,
          status,
          path: `/fail/${tag}`,
          request_id: "req-of-ours-1",
        })
        assert.deepStrictEqual(more, [])
        const log = JSON.stringify(served.lines)
        for (const secret of [planted.message, planted.requestId, "planted-key"]) assert.notInclude(log, secret)
      })

      it(`${tag} with problem details, where they are asked for`, async () => {
        const response = await fetch(`${served.url}/fail/${tag}`, {
          headers: { accept: "application/json;q=0.5, application/problem+json" },
        })
        const text = await response.text()
        assert.strictEqual(response.status, status)
        assert.strictEqual(response.headers.get("content-type"), "application/problem+json")
        assert.strictEqual(response.headers.get("retry-after"), retryAfter === undefined ? null : String(retryAfter))
        assert.strictEqual(response.headers.get("www-authenticate"), status === 401 ? challenge : null)
        const { detail, title } = JSON.parse(text)
        assert.isAbove(title.length, 5)
        assert.isAbove(detail.length, 20)
        assert.deepStrictEqual(JSON.parse(text), {
          type: `urn:understudy:error:${type}`,
          title,
          status,
          detail,
          retryable,
          ...(retryAfter === undefined ? {} : { retry_after: retryAfter }),
        })
        nothingOf(text)
      })
    }
  })
}

describe("the typed client of effect/http-api decodes", () => {
  let served: Served
  beforeAll(async () => {
    served = await serveEffect(HttpRouter.serve(api))
  })
  afterAll(() => served.close())

  const ask = (tag: string) =>
    HttpApiClient.make(Api, { baseUrl: served.url }).pipe(
      Effect.flatMap((client) => client.llm.fail({ params: { tag } })),
      Effect.provide(NodeHttpClient.layerUndici),
    )

  for (const tag of LlmError.tags) {
    const { retryable, retryAfter, status } = cases[tag]

    it.live(`${tag}, with what a client can use of it`, () =>
      Effect.gen(function* () {
        const failure = yield* Effect.flip(ask(tag))
        if (!LlmError.is(tag)(failure)) return assert.fail(`It is ${failure._tag}`)
        assert.strictEqual(failure.retryable, retryable)
        assert.strictEqual(failure.status, status)
        assert.strictEqual(failure.provider, "service")
        assert.deepStrictEqual(failure.retryAfter, retryAfter === undefined ? undefined : Duration.seconds(retryAfter))
        // By the table it is what it was.
        assert.strictEqual(FailureMode.httpStatus(failure), status)
        // What the service wrote is evidence, as what any provider writes.
        const { message } = HttpErrorResponse.of(cases[tag].failure).body.error
        assert.strictEqual(Redacted.value(failure.providerMessage!), message)
        nothingOf(JSON.stringify(failure))
      }),
    )
  }
})
