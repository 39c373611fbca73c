import { assert, describe, it } from "@effect/vitest"
import { getRequestListener } from "@hono/node-server"
import {
  Classifier,
  FailureMode,
  HttpErrorMiddleware,
  HttpErrorResponse,
  HttpErrorStream,
  LanguageModelFace,
  LlmError,
} from "@understudy/core"
import { Cause, Deferred, Effect, Fiber, Layer, ManagedRuntime, Scope, Stream } from "effect"
import { HttpRouter } from "effect/http"
import express from "express"
import { pipeline } from "node:stream/promises"
import {
  cases,
  type Line,
  planted,
  remember,
  remembering,
  type Served,
  serveEffect,
  serveNode,
} from "./HttpErrorResponse.cases.ts"
import { end, fails, failure, Foreign, question, say, seconds, start, streams, stub } from "./stub.ts"

const dialects = ["sse", "openai", "anthropic", "ndjson"] as const

/** What marks the end of a whole answer in each dialect, and an element before it. */
const written: Record<HttpErrorStream.Dialect, { readonly part: (text: string) => string; readonly end: string }> = {
  sse: { part: (text) => `data: ${JSON.stringify({ text })}\n\n`, end: "event: end\ndata: {}\n\n" },
  openai: {
    part: (content) => `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content } }] })}\n\n`,
    end: "data: [DONE]\n\n",
  },
  anthropic: {
    part: (text) =>
      `event: content_block_delta\ndata: ${JSON.stringify({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text } })}\n\n`,
    end: 'event: message_stop\ndata: {"type":"message_stop"}\n\n',
  },
  ndjson: { part: (text) => `${JSON.stringify({ text })}\n`, end: '{"end":true}\n' },
}

/** The stream of a provider in a dialect, with the marker behind its whole answer. */
const encoded = <E, R>(parts: Stream.Stream<LanguageModelFace.Part, E, R>, dialect: HttpErrorStream.Dialect) =>
  parts.pipe(
    Stream.map(LanguageModelFace.languageModelFace.partText),
    Stream.filter((text) => text !== ""),
    Stream.map(written[dialect].part),
    Stream.concat(Stream.make(written[dialect].end)),
  )

const whole = stub("a", () => streams(Stream.make(start, say("To be"), say(", or not"), end))).provider
const broken = stub("a", () =>
  streams(Stream.concat(Stream.make(start, say("To be")), Stream.fail(cases.Overloaded.failure))),
).provider
const down = stub("a", () => fails(cases.Overloaded.failure)).provider

/** The last thing in a body that is one event or line. */
const last = (text: string, dialect: HttpErrorStream.Dialect): unknown => {
  const data = dialect === "ndjson" ? text.trimEnd().split("\n").at(-1)! : text.trimEnd().split("data: ").at(-1)!
  return JSON.parse(data)
}

// ---------------------------------------------------------------------------
// Over a real server
// ---------------------------------------------------------------------------

type Source = Stream.Stream<string | Uint8Array, LlmError.LlmError | Foreign>

/** How a stream is served: a server whose every request is answered with it. */
const servers: Readonly<
  Record<string, (source: Source, options: Omit<HttpErrorStream.Options, "request">) => Promise<Served>>
> = {
  "effect/http": (source, options) =>
    serveEffect(
      HttpRouter.serve(
        Layer.merge(
          HttpRouter.add("GET", "/ask", HttpErrorMiddleware.stream(source, options)),
          HttpErrorMiddleware.layer(),
        ),
      ),
    ),
  "a web handler": (source, options) => {
    const lines: Array<Line> = []
    const runtime = ManagedRuntime.make(remembering(lines))
    const GET = HttpErrorResponse.handler(
      (request: Request) => HttpErrorStream.toResponse(source, { ...options, request }),
      { runtime },
    )
    return serveNode(getRequestListener(GET), lines)
  },
  Express: (source, options) => {
    const lines: Array<Line> = []
    const app = express()
    const ask = async (request: express.Request, response: express.Response): Promise<void> => {
      const controller = new AbortController()
      response.on("close", () => controller.abort())
      const streamed = await Effect.runPromise(
        HttpErrorStream.toResponse(source, { ...options, request }).pipe(Effect.provide(remembering(lines))),
        { signal: controller.signal },
      )
      response.writeHead(streamed.status, Object.fromEntries(streamed.headers))
      // Rejects when the reader goes, and then nobody is left to answer.
      await pipeline(streamed.body!, response).catch(() => undefined)
    }
    app.get("/ask", (request, response, next) => void ask(request, response).catch(next))
    const answered: express.ErrorRequestHandler = (error, request, response, _next) =>
      HttpErrorResponse.send(response, error, request, { log: remember(lines) })
    app.use(answered)
    return serveNode(app, lines)
  },
}

const over = async <A>(served: Promise<Served>, use: (served: Served) => Promise<A>): Promise<A> => {
  const running = await served
  try {
    return await use(running)
  } finally {
    await running.close()
  }
}

const failed = (lines: ReadonlyArray<Line>) => lines.filter(({ fields }) => "error_type" in fields)

/** Waits for what a server does behind its response. */
const eventually = async (holds: () => boolean): Promise<void> => {
  for (let n = 0; n < 400 && !holds(); n++) await new Promise((resolve) => setTimeout(resolve, 5))
  assert.isTrue(holds())
}

for (const [server, serve] of Object.entries(servers)) {
  describe(`A stream over ${server}`, () => {
    for (const dialect of dialects) {
      it(`that is whole is all there, in the dialect ${dialect}`, () =>
        over(serve(encoded(whole.stream(question), dialect), { dialect }), async ({ lines, url }) => {
          const response = await fetch(`${url}/ask`)
          assert.strictEqual(response.status, 200)
          assert.strictEqual(response.headers.get("content-type"), HttpErrorStream.contentTypes[dialect])
          const { end, part } = written[dialect]
          assert.strictEqual(await response.text(), part("To be") + part(", or not") + end)
          assert.deepStrictEqual(failed(lines), [])
        }))

      it(`that breaks ends with an error event and without an end marker, in the dialect ${dialect}`, () =>
        over(serve(encoded(broken.stream(question), dialect), { dialect }), async ({ lines, url }) => {
          const response = await fetch(`${url}/ask?key=planted-key`, { headers: { "x-request-id": "req-1" } })
          assert.strictEqual(response.status, 200)
          const text = await response.text()
          const { end, part } = written[dialect]
          assert.isTrue(text.startsWith(part("To be")))
          assert.notInclude(text, end)
          const interrupted = new LlmError.StreamInterrupted({
            provider: "a",
            committed: true,
            retryAfter: seconds(30),
            failure: cases.Overloaded.failure,
          })
          assert.strictEqual(text, part("To be") + HttpErrorStream.event(interrupted, dialect, { requestId: "req-1" }))
          for (const secret of Object.values(planted)) assert.notInclude(text, secret)
          // One line of the log, with the status that had gone out.
          const [line, ...more] = failed(lines)
          assert.deepStrictEqual(line?.fields, {
            error_type: "stream_interrupted",
            provider: "a",
            model: "a-1",
            retryable: true,
            status: 200,
            path: "/ask",
            request_id: "req-1",
          })
          assert.deepStrictEqual(more, [])
        }))

      it(`that fails before its first content is an error response, in the dialect ${dialect}`, () =>
        over(serve(encoded(down.stream(question), dialect), { dialect }), async ({ lines, url }) => {
          const response = await fetch(`${url}/ask`)
          assert.deepStrictEqual([response.status, response.headers.get("retry-after")], [503, "30"])
          const { error } = (await response.json()) as HttpErrorResponse.Body
          assert.deepStrictEqual([error.type, error.retry_after], ["overloaded", 30])
          assert.strictEqual(failed(lines).length, 1)
        }))
    }

    it("does not quote what is no failure of ours", () =>
      over(
        serve(Stream.concat(Stream.make("data: 1\n\n"), Stream.fail(new Foreign("planted"))), { dialect: "sse" }),
        async ({ lines, url }) => {
          const text = await (await fetch(`${url}/ask`)).text()
          assert.strictEqual((last(text, "sse") as HttpErrorResponse.Body).error.type, "unknown")
          assert.notInclude(text + JSON.stringify(failed(lines)), "planted")
          assert.strictEqual(failed(lines)[0]?.level, "Error")
        },
      ))

    it("does not quote a defect", () =>
      over(
        serve(Stream.concat(Stream.make("data: 1\n\n"), Stream.die(new Error("planted"))), { dialect: "sse" }),
        async ({ lines, url }) => {
          const text = await (await fetch(`${url}/ask`)).text()
          assert.strictEqual((last(text, "sse") as HttpErrorResponse.Body).error.type, "unknown")
          assert.notInclude(text + JSON.stringify(failed(lines)), "planted")
        },
      ))

    it("is interrupted when its reader goes", async () => {
      let running = 0
      const held = Stream.unwrap(
        Effect.as(
          Effect.acquireRelease(
            Effect.sync(() => running++),
            () => Effect.sync(() => running--),
          ),
          Stream.concat(Stream.make("data: 1\n\n"), Stream.never),
        ),
      )
      await over(serve(held, { dialect: "sse" }), async ({ lines, url }) => {
        const controller = new AbortController()
        const response = await fetch(`${url}/ask`, { signal: controller.signal })
        await response.body!.getReader().read()
        assert.strictEqual(running, 1)
        controller.abort()
        await eventually(() => running === 0)
        assert.deepStrictEqual(failed(lines), [])
      })
    })

    it("is interrupted when its reader goes before there is anything to read", async () => {
      let running = 0
      const silent = Stream.unwrap(
        Effect.as(
          Effect.acquireRelease(
            Effect.sync(() => running++),
            () => Effect.sync(() => running--),
          ),
          Stream.never as Source,
        ),
      )
      await over(serve(silent, { dialect: "sse" }), async ({ url }) => {
        const controller = new AbortController()
        const response = fetch(`${url}/ask`, { signal: controller.signal }).catch(() => "aborted")
        await eventually(() => running === 1)
        controller.abort()
        assert.strictEqual(await response, "aborted")
        await eventually(() => running === 0)
      })
    })

    it("that holds nothing is an empty body", () =>
      over(serve(Stream.empty, { dialect: "sse" }), async ({ url }) => {
        const response = await fetch(`${url}/ask`)
        assert.deepStrictEqual([response.status, await response.text()], [200, ""])
      }))
  })
}

// ---------------------------------------------------------------------------
// Without a server
// ---------------------------------------------------------------------------

/** What clients read when the service itself did not go on. */
const stoppedHere = new LlmError.StreamInterrupted({ provider: "service", committed: true })

const textOf = <R>(body: Stream.Stream<Uint8Array, never, R>) => Stream.mkString(Stream.decodeText(body))

describe("HttpErrorStream.body", () => {
  it.effect("begins its event on a line of its own, whatever came before it", () =>
    Effect.gen(function* () {
      const after = (...elements: ReadonlyArray<string | Uint8Array>) =>
        textOf(
          HttpErrorStream.body(Stream.concat(Stream.fromIterable(elements), Stream.fail(failure("TimedOut"))), {
            dialect: "sse",
          }),
        )
      const event = HttpErrorStream.event(failure("TimedOut"), "sse")
      assert.strictEqual(yield* after(), event)
      assert.strictEqual(yield* after("data: 1\n\n"), `data: 1\n\n${event}`)
      assert.strictEqual(yield* after("data: 1\r\n\r\n"), `data: 1\r\n\r\n${event}`)
      assert.strictEqual(yield* after("data: 1\n", "\n"), `data: 1\n\n${event}`)
      assert.strictEqual(yield* after("data: 1\n", "", new Uint8Array()), `data: 1\n\n${event}`)
      assert.strictEqual(yield* after('data: {"te'), `data: {"te\n\n${event}`)
      assert.strictEqual(yield* after(new TextEncoder().encode("data: ü")), `data: ü\n\n${event}`)
      const line = yield* textOf(
        HttpErrorStream.body(Stream.concat(Stream.make('{"te'), Stream.fail(failure("TimedOut"))), {
          dialect: "ndjson",
        }),
      )
      assert.strictEqual(line, `{"te\n${HttpErrorStream.event(failure("TimedOut"), "ndjson")}`)
    }),
  )

  it.effect("reads the table in use", () =>
    Effect.gen(function* () {
      const own = new LlmError.AuthenticationFailed({ provider: "a" })
      const text = yield* textOf(HttpErrorStream.body(Stream.fail(own), { dialect: "sse" }))
      assert.strictEqual((last(text, "sse") as HttpErrorResponse.Body).error.type, "unknown")
    }).pipe(Effect.provide([FailureMode.layer(FailureMode.operatorOwned), remembering([])])),
  )

  it.effect("tells of what was interrupted inside of it, with a line of the log", () => {
    const lines: Array<Line> = []
    const inside = Stream.fromEffect(Effect.flatMap(Effect.forkChild(Effect.interrupt), Fiber.join))
    return Effect.gen(function* () {
      for (const stopped of [inside, Stream.fromEffect(Effect.interrupt)]) {
        lines.length = 0
        const text = yield* textOf(
          HttpErrorStream.body(Stream.concat(Stream.make("data: 1\n\n"), stopped), { dialect: "sse" }),
        )
        assert.strictEqual(text, `data: 1\n\n${HttpErrorStream.event(stoppedHere, "sse")}`)
        assert.deepStrictEqual(
          failed(lines).map(({ fields, level }) => [level, fields["error_type"], fields["status"]]),
          [["Warn", "stream_interrupted", 200]],
        )
      }
    }).pipe(Effect.provide(remembering(lines)))
  })

  it.effect("stays interrupted when whoever reads it is, and writes no line", () => {
    const lines: Array<Line> = []
    return Effect.gen(function* () {
      const begun = yield* Deferred.make<void>()
      const read: Array<Uint8Array> = []
      const source = Stream.concat(
        Stream.make("a"),
        Stream.drain(Stream.fromEffect(Effect.andThen(Deferred.succeed(begun, undefined), Effect.never))),
      )
      const reader = yield* Effect.forkChild(
        Stream.runForEach(HttpErrorStream.body(source, { dialect: "sse" }), (bytes) =>
          Effect.sync(() => read.push(bytes)),
        ),
      )
      yield* Deferred.await(begun)
      yield* Fiber.interrupt(reader)
      const exit = yield* Fiber.await(reader)
      assert.isTrue(exit._tag === "Failure" && Cause.hasInterruptsOnly(exit.cause))
      assert.lengthOf(read, 1)
      assert.deepStrictEqual(failed(lines), [])
    }).pipe(Effect.provide(remembering(lines)))
  })
})

describe("A web Response whose request is aborted while it streams", () => {
  /** A stream that goes silent behind its first element, and a response of it. */
  const silent = async (signal: AbortSignal, dialect: HttpErrorStream.Dialect = "sse", first = "data: 1\n\n") => {
    const lines: Array<Line> = []
    const running = { now: 0 }
    const held = Effect.acquireRelease(
      Effect.sync(() => running.now++),
      () => Effect.sync(() => running.now--),
    )
    const source = Stream.unwrap(Effect.as(held, Stream.concat(Stream.make(first), Stream.never)))
    const request = { url: "/ask", headers: { "x-request-id": "req-1" }, signal }
    const response = await Effect.runPromise(
      HttpErrorStream.toResponse(source, { dialect, request }).pipe(Effect.provide(remembering(lines))),
    )
    return { lines, running, reader: response.body!.pipeThrough(new TextDecoderStream()).getReader() }
  }
  const rest = async (reader: ReadableStreamDefaultReader<string>): Promise<string> => {
    let text = ""
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return text
      text += value
    }
  }
  const requestId = "req-1"

  for (const dialect of dialects) {
    it(`ends with an error event and never cleanly, in the dialect ${dialect}`, async () => {
      const controller = new AbortController()
      const { lines, reader, running } = await silent(controller.signal, dialect, written[dialect].part("To be"))
      assert.strictEqual((await reader.read()).value, written[dialect].part("To be"))
      controller.abort()
      assert.strictEqual(await rest(reader), HttpErrorStream.event(stoppedHere, dialect, { requestId }))
      await eventually(() => running.now === 0)
      // It may be that the client went, which is no failure.
      assert.deepStrictEqual(failed(lines), [])
    })
  }

  it("says that it took too long when the signal is that of a timeout, with a line of the log", async () => {
    const { lines, reader } = await silent(AbortSignal.timeout(20))
    const late = new LlmError.DeadlineExceeded({ provider: "service" })
    assert.strictEqual(await rest(reader), `data: 1\n\n${HttpErrorStream.event(late, "sse", { requestId })}`)
    await eventually(() => failed(lines).length > 0)
    assert.deepStrictEqual(
      failed(lines).map(({ fields }) => fields),
      [
        {
          error_type: "deadline_exceeded",
          provider: "service",
          retryable: true,
          status: 200,
          path: "/ask",
          request_id: "req-1",
        },
      ],
    )
  })

  it("says what failed when the reason of the signal is a failure, and begins its event on a line of its own", async () => {
    const controller = new AbortController()
    const { lines, reader } = await silent(controller.signal, "sse", 'data: {"te')
    await reader.read()
    controller.abort(cases.Overloaded.failure)
    const event = HttpErrorStream.event(cases.Overloaded.failure, "sse", { requestId })
    assert.strictEqual(await rest(reader), `\n\n${event}`)
    await eventually(() => failed(lines).length === 1)
  })

  it("is interrupted though nobody reads it", async () => {
    const controller = new AbortController()
    const { running } = await silent(controller.signal)
    assert.strictEqual(running.now, 1)
    controller.abort()
    await eventually(() => running.now === 0)
  })

  it("tells of an abort that came before it was made", async () => {
    const { reader, running } = await silent(AbortSignal.abort())
    assert.strictEqual(await rest(reader), HttpErrorStream.event(stoppedHere, "sse", { requestId }))
    await eventually(() => running.now === 0)
  })

  it("stays whole when all of it was there before", async () => {
    const controller = new AbortController()
    const request = { signal: controller.signal }
    const parts = ["data: 1\n\n", "data: [DONE]\n\n"]
    const response = await Effect.runPromise(
      HttpErrorStream.toResponse(Stream.fromIterable(parts), { dialect: "openai", request }),
    )
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
    assert.strictEqual((await reader.read()).value, parts[0])
    assert.strictEqual((await reader.read()).value, parts[1])
    await new Promise((resolve) => setTimeout(resolve, 5))
    controller.abort()
    assert.strictEqual(await rest(reader), "")
  })

  it("is interrupted when its body is cancelled, and an abort behind that says nothing", async () => {
    const controller = new AbortController()
    const { lines, reader, running } = await silent(controller.signal)
    await reader.read()
    await reader.cancel()
    await eventually(() => running.now === 0)
    controller.abort(cases.Overloaded.failure)
    await new Promise((resolve) => setTimeout(resolve, 5))
    assert.deepStrictEqual(failed(lines), [])
  })
})

describe("HttpErrorStream.open", () => {
  it.effect("fails as its stream does until the first element, and closes it then with its scope", () =>
    Effect.gen(function* () {
      let running = 0
      const held = Effect.acquireRelease(
        Effect.sync(() => running++),
        () => Effect.sync(() => running--),
      )
      const source = Stream.unwrap(Effect.as(held, Stream.fail(failure("Overloaded"))))
      const scope = yield* Scope.make()
      const error = yield* HttpErrorStream.open(source, { dialect: "sse" }).pipe(Scope.provide(scope), Effect.flip)
      assert.strictEqual(error._tag, "Overloaded")
      yield* Scope.close(scope, yield* Effect.exit(Effect.void))
      assert.strictEqual(running, 0)
    }),
  )

  it("refuses what cannot be meant", () => {
    const untyped = (options: object): HttpErrorStream.Options => options as HttpErrorStream.Options
    assert.throws(
      () => HttpErrorStream.body(Stream.empty, untyped({ dialect: "xml" })),
      /HttpErrorStream.body.*dialect/s,
    )
    assert.throws(() => HttpErrorStream.body(Stream.empty, untyped({ dialect: "sse", audince: 1 })), /audince/)
  })
})

describe("An error event", () => {
  const of = (tag: LlmError.Tag, dialect: HttpErrorStream.Dialect): string =>
    HttpErrorStream.event(cases[tag].failure, dialect)

  for (const dialect of dialects) {
    it(`is one event with one line of data, and holds nothing of the provider, in the dialect ${dialect}`, () => {
      for (const tag of LlmError.tags) {
        const text = of(tag, dialect)
        assert.strictEqual(text.trimEnd().split("\n").length, dialect === "sse" || dialect === "anthropic" ? 2 : 1)
        for (const secret of Object.values(planted)) assert.notInclude(text, secret)
        assert.include(text, `"retryable":${cases[tag].retryable}`)
      }
    })
  }

  it("cannot be split by a message", () => {
    const message = () => "a\n\ndata: [DONE]\n\n"
    for (const dialect of dialects) {
      const text = HttpErrorStream.event(failure("TimedOut"), dialect, { message })
      assert.strictEqual(
        text.split("\n").filter((line) => line !== "").length,
        of("TimedOut", dialect).trimEnd().split("\n").length,
      )
    }
  })

  it("has the shape that clients of OpenAI know", () => {
    assert.deepStrictEqual(last(of("RateLimited", "openai"), "openai"), {
      error: {
        message: HttpErrorResponse.of(cases.RateLimited.failure).body.error.message,
        type: "rate_limit_error",
        param: null,
        code: "rate_limit_exceeded",
        retryable: true,
        retry_after: 2,
      },
    })
  })

  it("has the shape that clients of Anthropic know", () => {
    assert.deepStrictEqual(last(of("Overloaded", "anthropic"), "anthropic"), {
      type: "error",
      error: {
        type: "overloaded_error",
        message: HttpErrorResponse.of(cases.Overloaded.failure).body.error.message,
        retryable: true,
        retry_after: 30,
      },
    })
  })

  /** What a classifier makes of the failures that no body tells. */
  const seen: Partial<Record<LlmError.Tag, LlmError.Tag>> = {
    ConnectionFailed: "ProviderUnavailable",
    DeadlineExceeded: "TimedOut",
    CircuitOpen: "ProviderUnavailable",
    CapacityExceeded: "Overloaded",
    AllProvidersFailed: "ProviderUnavailable",
    UnknownFailure: "ProviderUnavailable",
    StreamInterrupted: "ProviderUnavailable",
    InvalidResponse: "ProviderUnavailable",
  }

  for (const dialect of ["openai", "anthropic"] as const) {
    for (const tag of LlmError.tags) {
      it(`of ${tag} is classified as ${seen[tag] ?? tag} by whoever reads ${dialect}`, () => {
        const body = JSON.stringify(last(of(tag, dialect), dialect))
        const read = Classifier.classify({ where: "sse-event", event: "error", body }, { provider: dialect })
        assert.strictEqual(read._tag, seen[tag] ?? tag)
      })
    }
  }
})
