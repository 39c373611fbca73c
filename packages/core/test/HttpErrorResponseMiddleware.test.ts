import { NodeHttpClient } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import {
  AiFailure,
  FailureMode,
  HttpApiErrors,
  HttpErrorMiddleware,
  HttpErrorResponse,
  HttpErrorStream,
  LlmError,
  Retry,
} from "@understudy/core"
import { Cause, Effect, Layer, Schema, Stream } from "effect"
import { HttpRouter, HttpServer, HttpServerRespondable, HttpServerResponse } from "effect/http"
import {
  HttpApi,
  HttpApiBuilder,
  HttpApiClient,
  HttpApiEndpoint,
  HttpApiGroup,
  HttpApiSchema,
  OpenApi,
} from "effect/http-api"
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { cases, type Line, type Served, serveEffect } from "./HttpErrorResponse.cases.ts"
import { failure, Foreign, seconds } from "./stub.ts"

const raises = (effect: Effect.Effect<HttpServerResponse.HttpServerResponse, unknown>) =>
  HttpRouter.add("GET", "/ask", effect)

const middleware = HttpErrorMiddleware.layer()

/** What a server answers at this path. */
const answer = (app: ReturnType<typeof raises>, around: Layer.Layer<never> = Layer.empty, path = "/ask") =>
  Effect.gen(function* () {
    const served = yield* Effect.acquireRelease(
      Effect.promise(() => serveEffect(HttpRouter.serve(app).pipe(Layer.provide(around)))),
      ({ close }) => Effect.promise(close),
    )
    const response = yield* Effect.promise(() => fetch(`${served.url}${path}`))
    const text = yield* Effect.promise(() => response.text())
    return { status: response.status, text, lines: served.lines }
  })

const typeOf = (text: string): string => (JSON.parse(text) as HttpErrorResponse.Body).error.type
const failedLines = (lines: ReadonlyArray<Line>) => lines.filter(({ fields }) => "error_type" in fields)

describe("The middleware of effect/http", () => {
  const ours = failure("AuthenticationFailed")

  for (const [how, app] of Object.entries({
    "with the middleware": Layer.merge(raises(Effect.fail(ours)), middleware),
    "as respondables": raises(Effect.fail(ours)),
  })) {
    it.live(`reads the table of the layers around the server, ${how}`, () =>
      Effect.gen(function* () {
        assert.strictEqual((yield* answer(app)).status, 401)
        const { lines, status, text } = yield* answer(app, FailureMode.layer(FailureMode.operatorOwned))
        assert.deepStrictEqual([status, typeOf(text)], [500, "unknown"])
        assert.strictEqual(failedLines(lines)[0]?.fields["error_type"], "authentication")
        assert.strictEqual(failedLines(lines)[0]?.level, "Error")
      }),
    )

    it.live(`reads the settings of the layers around the server, ${how}`, () =>
      Effect.gen(function* () {
        const { text } = yield* answer(app, HttpErrorResponse.layer({ message: () => "Leider nicht." }))
        assert.include(text, "Leider nicht.")
      }),
    )
  }

  it.live("prefers settings of its own", () =>
    Effect.gen(function* () {
      const own = HttpErrorMiddleware.layer({ message: () => "mine", failureModes: FailureMode.operatorOwned })
      const { status, text } = yield* answer(
        Layer.merge(raises(Effect.fail(ours)), own),
        HttpErrorResponse.layer({ message: () => "theirs" }),
      )
      assert.strictEqual(status, 500)
      assert.include(text, "mine")
    }),
  )

  it.live("answers a failure that was raised as a defect, or lies in one", () =>
    Effect.gen(function* () {
      for (const defect of [failure("Overloaded"), AiFailure.toAiError(failure("Overloaded"))]) {
        const { status, text } = yield* answer(Layer.merge(raises(Effect.die(defect)), middleware))
        assert.deepStrictEqual([status, typeOf(text)], [503, "overloaded"])
      }
    }),
  )

  it.live("leaves everything else as it is", () =>
    Effect.gen(function* () {
      const teapot = HttpServerResponse.empty({ status: 418 })
      const statuses: Array<number> = []
      for (const raised of [
        Effect.fail(new Foreign("planted")),
        Effect.die(new Error("planted")),
        Effect.die(teapot),
      ]) {
        const { lines, status, text } = yield* answer(Layer.merge(raises(raised), middleware))
        assert.notInclude(text, "planted")
        assert.deepStrictEqual(failedLines(lines), [])
        statuses.push(status)
      }
      assert.deepStrictEqual(statuses, [500, 500, 418])
      const { status } = yield* answer(Layer.merge(raises(Effect.fail(ours)), middleware), Layer.empty, "/nowhere")
      assert.strictEqual(status, 404)
    }),
  )

  it.live("leaves no stack in the log", () =>
    Effect.gen(function* () {
      const { lines } = yield* answer(Layer.merge(raises(Effect.fail(ours)), middleware))
      assert.notMatch(JSON.stringify(lines), /\bat .*\.ts:\d+/)
    }),
  )

  it.live("works on one handler, and without a router", () =>
    Effect.gen(function* () {
      const app = HttpErrorMiddleware.handle()(Effect.fail(failure("TimedOut")))
      const served = yield* Effect.acquireRelease(
        Effect.promise(() => serveEffect(HttpServer.serve(app))),
        ({ close }: Served) => Effect.promise(close),
      )
      assert.strictEqual((yield* Effect.promise(() => fetch(served.url))).status, 504)
    }),
  )
})

describe("Failures as respondables", () => {
  it.effect("answer outside of a server too", () =>
    Effect.gen(function* () {
      for (const tag of LlmError.tags) {
        const { failure, status } = cases[tag]
        assert.isTrue(HttpServerRespondable.isRespondable(failure))
        const response = yield* HttpServerRespondable.toResponseOrElse(failure, HttpServerResponse.empty())
        assert.strictEqual(response.status, status)
      }
    }),
  )

  it("need no module to be imported for it, and load no server before one answers", async () => {
    const program = `
      import { registerHooks } from "node:module"
      const loaded = []
      registerHooks({ load: (url, context, next) => (loaded.push(url), next(url, context)) })
      const { RateLimited } = await import("@understudy/core/LlmError")
      const before = loaded.some((url) => url.includes("HttpServerResponse"))
      const { Effect, Logger } = await import("effect")
      const { toResponseOrElse } = await import("effect/http/HttpServerRespondable")
      const failure = new RateLimited({ provider: "a" })
      const response = await Effect.runPromise(toResponseOrElse(failure, undefined).pipe(Effect.provide(Logger.layer([]))))
      console.log(JSON.stringify([before, response.status, Object.keys(failure)]))
    `
    const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", program], {
      cwd: import.meta.dirname,
    })
    assert.deepStrictEqual(JSON.parse(stdout), [false, 429, ["_tag", "provider", "retryable"]])
  })
})

// ---------------------------------------------------------------------------
// effect/http-api
// ---------------------------------------------------------------------------

/** An API with one endpoint that declares these tags. */
const apiOf = <const T extends LlmError.Tag>(tags: ReadonlyArray<T>, options?: HttpApiErrors.Options) =>
  HttpApi.make("api").add(
    HttpApiGroup.make("llm").add(
      HttpApiEndpoint.get("ask", "/ask", { success: Schema.String, error: HttpApiErrors.errors(tags, options) }),
    ),
  )

/** What the typed client of such an API gets. */
const asked = <T extends LlmError.Tag>(
  tags: ReadonlyArray<T>,
  raised: LlmError.LlmError,
  options?: HttpApiErrors.Options,
  around: Layer.Layer<never> = Layer.empty,
) =>
  Effect.gen(function* () {
    const Api = apiOf(tags, options)
    const app = HttpApiBuilder.layer(Api).pipe(
      Layer.provide(
        HttpApiBuilder.group(Api, "llm", (handlers) =>
          // Also what a handler may not raise by its type.
          handlers.handle("ask", () => Effect.fail(raised as LlmError.WithTag<T>)),
        ),
      ),
    )
    const served = yield* Effect.acquireRelease(
      Effect.promise(() => serveEffect(HttpRouter.serve(app).pipe(Layer.provide(around)))),
      ({ close }) => Effect.promise(close),
    )
    const client = yield* HttpApiClient.make(Api, { baseUrl: served.url })
    return { failure: yield* Effect.flip(client.llm.ask()), lines: failedLines(served.lines) }
  }).pipe(Effect.provide(NodeHttpClient.layerUndici))

describe("Errors of endpoints of effect/http-api", () => {
  const limited = failure("RateLimited", "a", { retryAfter: seconds(9) })
  const all = new LlmError.AllProvidersFailed({
    provider: "all",
    retryable: true,
    retryAfter: seconds(9),
    failures: [limited, limited],
  })

  it.live("come back with the failure that spoke for all attempts, inside or by itself", () =>
    Effect.gen(function* () {
      const inside = (yield* asked(["AllProvidersFailed"], all)).failure
      if (inside._tag !== "AllProvidersFailed") return assert.fail(inside._tag)
      assert.deepStrictEqual(
        inside.failures.map(({ _tag }) => _tag),
        ["RateLimited"],
      )
      assert.strictEqual(FailureMode.httpStatus(inside), 429)
      assert.deepStrictEqual(inside.retryAfter, seconds(9))
      const itself = (yield* asked(["AllProvidersFailed", "RateLimited"], all)).failure
      assert.strictEqual(itself._tag, "RateLimited")
    }),
  )

  it.live("become UnknownFailure where the operator's own key is nobody's business", () =>
    Effect.gen(function* () {
      const failureModes = FailureMode.operatorOwned
      const { failure: read, lines } = yield* asked(
        ["AuthenticationFailed"],
        failure("AuthenticationFailed"),
        { failureModes },
        FailureMode.layer(failureModes),
      )
      assert.strictEqual(read._tag, "UnknownFailure")
      assert.strictEqual(lines[0]?.fields["error_type"], "authentication")
    }),
  )

  it.live("come back as what they are where operators read the messages", () =>
    Effect.gen(function* () {
      const failureModes = FailureMode.operatorOwned
      const { failure: read } = yield* asked(
        ["AuthenticationFailed"],
        failure("AuthenticationFailed"),
        { failureModes },
        HttpErrorResponse.layer({ failureModes, audience: "operators" }),
      )
      assert.isTrue(read._tag === "AuthenticationFailed" && read.status === 500)
    }),
  )

  it.live("answer by the table even where an endpoint does not declare them", () =>
    Effect.gen(function* () {
      const { failure: read, lines } = yield* asked(["RateLimited"], failure("TimedOut"))
      assert.isTrue(read._tag === "HttpClientError" && read.response?.status === 504)
      assert.strictEqual(lines[0]?.fields["error_type"], "timeout")
    }),
  )

  it.live("are failures that a policy of the client heeds", () =>
    Effect.gen(function* () {
      let served = 0
      const Api = apiOf(["Overloaded"])
      const group = HttpApiBuilder.group(Api, "llm", (handlers) =>
        handlers.handle("ask", () =>
          Effect.suspend(() =>
            ++served < 3 ? Effect.fail(failure("Overloaded", "a", { retryAfter: seconds(0) })) : Effect.succeed("well"),
          ),
        ),
      )
      const app = HttpApiBuilder.layer(Api).pipe(Layer.provide(group))
      const { url } = yield* Effect.acquireRelease(
        Effect.promise(() => serveEffect(HttpRouter.serve(app))),
        ({ close }) => Effect.promise(close),
      )
      const client = yield* HttpApiClient.make(Api, { baseUrl: url })
      assert.strictEqual(yield* Retry.effect(client.llm.ask(), { base: "1 millis" }), "well")
    }).pipe(Effect.provide(NodeHttpClient.layerUndici)),
  )

  it("are declared with all statuses that they can have", () => {
    const statuses = (tags: ReadonlyArray<LlmError.Tag>, options?: HttpApiErrors.Options) => {
      const responses = OpenApi.fromApi(apiOf(tags, options)).paths["/ask"]?.get?.responses ?? {}
      return Object.keys(responses).filter((status) => Number(status) >= 400)
    }
    assert.includeMembers(statuses(["RateLimited", "ContentFiltered"]), ["422", "429", "500"])
    assert.notInclude(statuses(["RateLimited"]), "503")
    assert.includeMembers(statuses(["AllProvidersFailed"]), ["401", "403", "404", "429", "500", "502", "503", "504"])
    assert.notIncludeMembers(statuses(["AllProvidersFailed"]), ["413", "422"])
    assert.include(statuses(["ModelNotFound"]), "404")
    assert.notInclude(statuses(["ModelNotFound"], { failureModes: FailureMode.operatorOwned }), "404")
  })

  it("are encoded as the public body, and by no schema of another status", () => {
    for (const tag of LlmError.tags) {
      const { failure, status } = cases[tag]
      const schema = Schema.Union(HttpApiErrors.errors([tag]))
      assert.deepStrictEqual(Schema.encodeSync(schema)(failure), HttpErrorResponse.of(failure).body)
      const others = HttpApiErrors.errors([tag]).filter(
        ({ ast }) => ast.context?.annotations?.["httpApiStatus"] !== status,
      )
      for (const other of others) assert.throws(() => Schema.encodeSync(other)(failure))
    }
  })

  it("are nothing of another service's errors", () => {
    const [limited] = HttpApiErrors.errors(["RateLimited"])
    for (const body of [
      {},
      { error: "planted" },
      { error: { type: "rate_limit" } },
      { error: { type: "timeout", message: "planted", retryable: true } },
      { error: { type: "rate_limit", message: "m", retryable: true, retry_after: "soon" } },
    ]) {
      assert.isTrue(Schema.decodeUnknownExit(limited!)(body)._tag === "Failure")
    }
  })

  it("refuse options that cannot be meant", () => {
    const untyped = (options: object): HttpApiErrors.Options => options
    assert.throws(
      () => HttpApiErrors.errors(["RateLimited"], untyped({ providr: "x" })),
      /HttpApiErrors.errors.*providr/s,
    )
  })
})

describe("Errors of streams of effect/http-api", () => {
  const Api = HttpApi.make("api").add(
    HttpApiGroup.make("llm").add(
      HttpApiEndpoint.get("ask", "/ask", {
        success: HttpApiSchema.StreamSse({
          data: Schema.String,
          error: HttpApiErrors.streamErrors(["StreamInterrupted"]),
        }),
      }),
    ),
  )

  it.live("are decoded back in the middle of a stream", () =>
    Effect.gen(function* () {
      const broken = new LlmError.StreamInterrupted({ ...cases.StreamInterrupted.failure, committed: true })
      const group = HttpApiBuilder.group(Api, "llm", (handlers) =>
        handlers.handle("ask", () => Effect.succeed(Stream.concat(Stream.make("a", "b"), Stream.fail(broken)))),
      )
      const { url } = yield* Effect.acquireRelease(
        Effect.promise(() => serveEffect(HttpRouter.serve(HttpApiBuilder.layer(Api).pipe(Layer.provide(group))))),
        ({ close }) => Effect.promise(close),
      )
      const text = yield* Effect.promise(async () => (await fetch(`${url}/ask`)).text())
      assert.notInclude(text, "planted")
      const client = yield* HttpApiClient.make(Api, { baseUrl: url })
      const parts: Array<string> = []
      const read = yield* Stream.runForEach(yield* client.llm.ask(), (part) =>
        Effect.sync(() => parts.push(part)),
      ).pipe(Effect.flip)
      assert.deepStrictEqual(parts, ["a", "b"])
      assert.isTrue(read._tag === "StreamInterrupted" && read.committed && read.retryable)
    }).pipe(Effect.provide(NodeHttpClient.layerUndici)),
  )
})

describe("What a handler leaves", () => {
  it.effect("keeps its type but for what was handled", () =>
    Effect.gen(function* () {
      const app: Effect.Effect<HttpServerResponse.HttpServerResponse, Foreign | LlmError.RateLimited> = Effect.fail(
        new Foreign("x"),
      )
      const left: Effect.Effect<HttpServerResponse.HttpServerResponse, Foreign> = HttpErrorMiddleware.handle()(app)
      const exit = yield* Effect.exit(left)
      assert.isTrue(exit._tag === "Failure" && Cause.squash(exit.cause) instanceof Foreign)
      assert.strictEqual(HttpErrorStream.contentTypes.ndjson, "application/x-ndjson")
    }),
  )
})
