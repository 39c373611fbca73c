import { afterEach, assert, describe, it, vi } from "@effect/vitest"
import { AiFailure, FailureMode, HttpErrorResponse, LlmError, Understudy } from "@understudy/core"
import { Cause, Context, Duration, Effect, ErrorReporter, Layer, ManagedRuntime } from "effect"
import { AiError } from "effect/ai"
import { inspect } from "node:util"
import { cases, challenge, type Line, planted, remember, remembering, serveNode } from "./HttpErrorResponse.cases.ts"
import { failure, Foreign, random, seconds } from "./stub.ts"

const url = "http://service.test/v1/ask?key=planted-key"
const request = (headers: Record<string, string> = {}) => new Request(url, { headers })
const quiet = { log: false } as const

/** The error in the body of a response. */
const errorIn = async (response: Response): Promise<Record<string, unknown>> =>
  ((await response.json()) as { readonly error: Record<string, unknown> }).error

const everywhere = (secret: string, ...places: ReadonlyArray<unknown>): void => {
  for (const place of places) assert.notInclude(typeof place === "string" ? place : JSON.stringify(place), secret)
}

describe("HttpErrorResponse.of", () => {
  for (const tag of LlmError.tags) {
    const { failure, retryable, retryAfter, status, type } = cases[tag]

    it(`makes ${status} and ${type} of ${tag}`, () => {
      const made = HttpErrorResponse.of(failure)
      assert.strictEqual(made.status, status)
      assert.deepStrictEqual(made.headers, {
        "content-type": "application/json",
        "cache-control": "no-store",
        ...(retryAfter === undefined ? {} : { "retry-after": String(retryAfter) }),
        ...(status === 401 ? { "www-authenticate": challenge } : {}),
      })
      assert.deepStrictEqual(made.body, {
        error: {
          type,
          message: made.body.error.message,
          retryable,
          ...(retryAfter === undefined ? {} : { retry_after: retryAfter }),
        },
      })
      assert.strictEqual(HttpErrorResponse.errorTypes[tag], type)
      for (const secret of Object.values(planted)) everywhere(secret, made)
    })
  }

  it("keeps the seed's types, and gives no two tags the same", () => {
    const types = Object.values(HttpErrorResponse.errorTypes)
    assert.strictEqual(new Set(types).size, LlmError.tags.length)
    assert.includeMembers(types, [
      "rate_limit",
      "timeout",
      "invalid_response",
      "content_filtered",
      "context_length",
      "authentication",
      "provider_error",
      "unknown",
    ])
  })

  it("rounds a hint up to whole seconds, the same in header and body, so that nobody comes too early", () => {
    const { next } = random(7)
    for (let n = 0; n < 2000; n++) {
      const millis = next() * 10 ** (n % 8)
      const { body, headers } = HttpErrorResponse.of(
        failure("RateLimited", "a", { retryAfter: Duration.millis(millis) }),
      )
      const { retry_after } = body.error
      assert.strictEqual(headers["retry-after"], String(retry_after))
      assert.match(headers["retry-after"]!, /^\d+$/)
      assert.isTrue(retry_after! * 1000 >= millis && (retry_after! - 1) * 1000 < millis, `${millis} ms`)
    }
  })

  it("has no Retry-After without a hint, nor for one without end, and a bounded one for one that is absurd", () => {
    const after = (retryAfter: Duration.Duration) =>
      HttpErrorResponse.of(failure("Overloaded", "a", { retryAfter })).headers["retry-after"]
    assert.strictEqual(HttpErrorResponse.of(failure("Overloaded")).headers["retry-after"], undefined)
    assert.strictEqual(after(Duration.infinity), undefined)
    assert.strictEqual(after(Duration.days(1e9)), "2147483647")
    assert.strictEqual(after(Duration.zero), "0")
  })

  it("lets a failure speak for all attempts that failed like it, in status, type and words", () => {
    const all = (...failures: ReadonlyArray<LlmError.LlmError>) =>
      new LlmError.AllProvidersFailed({ provider: "all", retryable: true, failures })
    const limited = failure("RateLimited")
    const spoken = (failure: LlmError.LlmError, options?: HttpErrorResponse.Settings) => {
      const { body, status } = HttpErrorResponse.of(failure, options)
      return [status, body.error.type]
    }
    assert.deepStrictEqual(spoken(all(limited, failure("RateLimited", "b"))), [429, "rate_limit"])
    assert.deepStrictEqual(spoken(all(all(limited), all(limited))), [429, "rate_limit"])
    assert.deepStrictEqual(spoken(all(limited, failure("Overloaded", "b"))), [503, "all_providers_failed"])
    assert.deepStrictEqual(spoken(all()), [503, "all_providers_failed"])
    const message = (failure: LlmError.LlmError) => HttpErrorResponse.of(failure).body.error.message
    assert.strictEqual(message(all(limited)), message(limited))

    // Of the same tag, but not of the same status: nobody speaks for both.
    const ours = new LlmError.AuthenticationFailed({ provider: "a" })
    const theirs = new LlmError.AuthenticationFailed({ provider: "b", credential: "call" })
    const failureModes = FailureMode.operatorOwned
    assert.deepStrictEqual(spoken(all(ours, theirs)), [401, "authentication"])
    assert.deepStrictEqual(spoken(all(ours, theirs), { failureModes }), [503, "all_providers_failed"])
    assert.deepStrictEqual(spoken(all(ours, ours), { failureModes }), [500, "unknown"])
  })

  it("answers failures that are nested deeper than a stack is high", () => {
    let nested: LlmError.LlmError = failure("Overloaded")
    let interrupted: LlmError.LlmError = failure("Overloaded")
    for (let n = 0; n < 20_000; n++) {
      nested = Object.assign(failure("AllProvidersFailed"), { failures: [nested] })
      interrupted = Object.assign(failure("StreamInterrupted"), { failure: interrupted })
    }
    assert.include([500, 503], HttpErrorResponse.of(nested).status)
    assert.strictEqual(HttpErrorResponse.of(interrupted, { audience: "operators" }).status, 502)
    assert.strictEqual(HttpErrorResponse.line(interrupted).fields.error_type, "stream_interrupted")
  })
})

describe("Operators' own keys", () => {
  const failureModes = FailureMode.operatorOwned
  const own = new LlmError.AuthenticationFailed({ provider: "openai" })
  const brought = new LlmError.AuthenticationFailed({ provider: "openai", credential: "call" })

  it("log no user out, and are not even told of, where the table says so", () => {
    for (const failure of [
      own,
      new LlmError.PermissionDenied({ provider: "openai" }),
      new LlmError.ModelNotFound({ provider: "openai" }),
    ]) {
      const { body, headers, status } = HttpErrorResponse.of(failure, { failureModes })
      assert.strictEqual(status, 500)
      assert.strictEqual(body.error.type, "unknown")
      // Nobody is asked to authenticate either.
      assert.isUndefined(headers["www-authenticate"])
      assert.deepStrictEqual(body, HttpErrorResponse.of(new LlmError.UnknownFailure({ provider: "a" })).body)
    }
  })

  it("are named in the log all the same", () => {
    const { fields, level } = HttpErrorResponse.line(own, { failureModes })
    assert.strictEqual(level, "Error")
    assert.strictEqual(fields.error_type, "authentication")
    assert.strictEqual(fields.status, 500)
  })

  it("are not those that come with a call", () => {
    const { body, headers, status } = HttpErrorResponse.of(brought, { failureModes })
    assert.strictEqual(status, 401)
    assert.strictEqual(headers["www-authenticate"], challenge)
    assert.strictEqual(body.error.type, "authentication")
    assert.include(body.error.message, "came with the request")
  })
})

describe("The words for clients", () => {
  it("are the failure's own message where operators read them", () => {
    const { error } = HttpErrorResponse.of(cases.AuthenticationFailed.failure, {
      audience: "operators",
      failureModes: FailureMode.operatorOwned,
    }).body
    assert.strictEqual(error.message, cases.AuthenticationFailed.failure.message)
    assert.strictEqual(error.type, "authentication")
  })

  it("can be given in another language, for some or all, and are bounded", () => {
    const message = (failure: LlmError.LlmError, type: HttpErrorResponse.ErrorType): string | undefined =>
      type === "rate_limit" ? "Zu viele Anfragen." : failure._tag === "Overloaded" ? "x".repeat(10_000) : undefined
    const said = (tag: LlmError.Tag) => HttpErrorResponse.of(failure(tag), { message }).body.error.message
    assert.strictEqual(said("RateLimited"), "Zu viele Anfragen.")
    assert.strictEqual(said("Overloaded").length, 1000)
    assert.strictEqual(said("TimedOut"), HttpErrorResponse.of(failure("TimedOut")).body.error.message)
  })

  it("are the usual ones when a function for them throws", () => {
    const message = (): never => {
      throw new Error("boom")
    }
    assert.deepStrictEqual(
      HttpErrorResponse.of(failure("TimedOut"), { message }),
      HttpErrorResponse.of(failure("TimedOut")),
    )
  })

  it("tell a request that can never fit from one that came too often", () => {
    const said = (retryable: boolean) =>
      HttpErrorResponse.of(failure("RateLimited", "a", { retryable })).body.error.message
    assert.include(said(true), "later")
    assert.include(said(false), "shorten")
  })
})

describe("A table that was overridden", () => {
  it("decides status and retryable", () => {
    const { body, status } = HttpErrorResponse.of(failure("Overloaded"), {
      failureModes: { Overloaded: { http: 529, retryable: false } },
    })
    assert.deepStrictEqual([status, body.error.type, body.error.retryable], [529, "overloaded", false])
  })

  it("cannot make a failure a success, nor a response impossible", () => {
    for (const http of [200, 302, 99, 600, 1000, 404.5, Number.NaN]) {
      assert.strictEqual(
        HttpErrorResponse.of(failure("Overloaded"), { failureModes: { Overloaded: { http } } }).status,
        500,
      )
    }
    const boom = (): never => {
      throw new Error("boom")
    }
    const { body, status } = HttpErrorResponse.of(failure("Overloaded"), {
      failureModes: { Overloaded: { http: boom, retryable: boom } },
    })
    assert.deepStrictEqual([status, body.error.retryable], [500, true])
  })
})

describe("Problem details are sent", () => {
  const asks = (accept: string | undefined) =>
    HttpErrorResponse.of(failure("TimedOut"), { accept }).headers["content-type"] === "application/problem+json"

  it("when the Accept header names and prefers them", () => {
    for (const accept of [
      "application/problem+json",
      "APPLICATION/PROBLEM+JSON; charset=utf-8",
      "application/json, application/problem+json",
      "application/problem+json, */*",
      "text/html, application/problem+json;q=0.2, */*;q=0.1",
      "application/problem+json;q=1.0, application/json;q=0.999",
      "application/json;q=0, application/*",
      "application/problem+json;profile=x;q=0.8, application/json ; q=0.7",
    ]) {
      assert.isTrue(asks(accept), accept)
    }
  })

  it("and otherwise not", () => {
    for (const accept of [
      undefined,
      "",
      "*/*",
      "application/*",
      "application/json",
      "text/html",
      "application/problem+xml",
      "application/problem+json;q=0",
      "application/problem+json;q=0.5, application/json",
      "application/problem+json;q=0.5, */*",
      "application/problem+json;q=2, application/json",
      "application/problem+json;q=-1",
      "application/problem+jsonx",
      ",;,;q=,",
    ]) {
      assert.isFalse(asks(accept), accept)
    }
  })

  it("with a type of the service's own", () => {
    const { body } = HttpErrorResponse.of(failure("TimedOut"), {
      accept: "application/problem+json",
      problemTypes: "https://service.test/problems/",
    })
    assert.strictEqual("type" in body ? body.type : "", "https://service.test/problems/timeout")
  })

  it("in time, whatever the header is", () => {
    const begin = process.cpuUsage()
    for (const piece of [",", ";q=", "application/", "a/b;q=0.5,", " ", "*/*,"]) asks(piece.repeat(200_000))
    // One that looks at each piece for each piece takes minutes.
    assert.isBelow(process.cpuUsage(begin).user, 5_000_000)
  })
})

describe("The identifier of a request", () => {
  it("is what came with it, and what cannot be one is left out", async () => {
    const id = async (value: string) =>
      (await errorIn(HttpErrorResponse.toResponse(failure("TimedOut"), request({ "x-request-id": value }), quiet)))[
        "request_id"
      ]
    assert.strictEqual(await id("7f3e-41.a_b:c/d=+@"), "7f3e-41.a_b:c/d=+@")
    for (const bad of ["two words", '"><script>', "a".repeat(129), "é", "<b>", "{}"]) {
      assert.strictEqual(await id(bad), undefined, bad)
    }
  })

  it("cannot break out of anything when the service gives it", () => {
    for (const requestId of ["a\r\nset-cookie: x=1", "a\nb", "a b", "\u2028", "", "x".repeat(10_000)]) {
      const made = HttpErrorResponse.of(failure("TimedOut"), { requestId })
      assert.deepStrictEqual(made, HttpErrorResponse.of(failure("TimedOut")))
      assert.isFalse("request_id" in HttpErrorResponse.line(failure("TimedOut"), { requestId }).fields)
    }
  })

  it("comes in the header that the service says", async () => {
    const response = HttpErrorResponse.toResponse(failure("TimedOut"), request({ "CF-Ray": "ray-1" }), {
      ...quiet,
      requestIdHeader: "CF-Ray",
    })
    assert.strictEqual((await errorIn(response))["request_id"], "ray-1")
  })
})

describe("The line of the log", () => {
  it("has a level by who must do something", () => {
    const levels = LlmError.tags.map((tag) => [tag, HttpErrorResponse.line(cases[tag].failure).level] as const)
    const of = (wanted: string) => levels.filter(([, level]) => level === wanted).map(([tag]) => tag)
    assert.deepStrictEqual(of("Error"), ["UnknownFailure"])
    assert.deepStrictEqual(of("Info"), ["ContentFiltered", "ContextLengthExceeded", "InvalidRequest"])
    assert.strictEqual(of("Warn").length, LlmError.tags.length - 4)
  })

  it("has the path without origin and query, in one line and bounded", () => {
    const path = (path: string) => HttpErrorResponse.line(failure("TimedOut"), { path }).fields.path
    assert.strictEqual(path("/ask?key=planted"), "/ask")
    assert.strictEqual(path("https://user:planted@host.test:8080/ask#planted"), "/ask")
    assert.strictEqual(path("/a\r\nb\u0000c"), "/a__b_c")
    assert.strictEqual(path("https://host.test?key=planted"), "/")
    assert.strictEqual(path(`/${"a".repeat(100_000)}`)!.length, 256)
  })

  it("has no name and password of an address, with or without its scheme, and keeps an @ of the path", () => {
    const path = (path: string) => HttpErrorResponse.line(failure("TimedOut"), { path }).fields.path
    const long = "a".repeat(5000)
    for (const address of [
      "//user:planted@host/p",
      "///user:planted@host/p",
      "\\\\user:planted@host/p",
      "https:////user:planted@host/p",
      "https:user:planted@host/p",
      "user:planted@host/p",
      `//user:planted${long}@host/p`,
      `https://user:planted${long}@host/p`,
    ]) {
      assert.strictEqual(path(address), "/p", address.slice(0, 40))
    }
    assert.strictEqual(path("//user:planted@host"), "/")
    for (const same of ["/@ada/posts", "/a/b@c", "//double/slash"]) assert.strictEqual(path(same), same)
  })

  it("names all models that a composition asked", () => {
    const all = new LlmError.AllProvidersFailed({
      provider: "a | b",
      failures: [
        failure("Overloaded", "a", { model: "m-1" }),
        failure("TimedOut", "a", { model: "m-1" }),
        failure("TimedOut", "b", { model: "m-2" }),
      ],
    })
    assert.strictEqual(HttpErrorResponse.line(all).fields.model, "m-1 | m-2")
    assert.isFalse("model" in HttpErrorResponse.line(failure("AllProvidersFailed")).fields)
  })

  it("names providers and models in one line, bounded", () => {
    const named = new LlmError.TimedOut({ provider: "a\nb".repeat(1000), model: "m\u001b[31m", phase: "attempt" })
    const { fields, message } = HttpErrorResponse.line(named)
    assert.isAtMost(fields.provider!.length, 200)
    assert.strictEqual(fields.model, "m [31m")
    assert.isAtMost(message.length, 1000)
    for (const text of [fields.provider!, message]) assert.notMatch(text, /\p{Cc}/u)
  })
})

describe("Whatever was raised", () => {
  const overloaded = failure("Overloaded", "a", { retryAfter: seconds(3) })

  it("is a failure of ours when it is one, carries one, or is a cause of one", () => {
    for (const raised of [
      overloaded,
      AiFailure.toAiError(overloaded),
      Cause.fail(overloaded),
      Cause.die(overloaded),
      Cause.combine(Cause.interrupt(1), Cause.fail(AiFailure.toAiError(overloaded))),
    ]) {
      assert.strictEqual(HttpErrorResponse.failureOf(raised), overloaded)
    }
  })

  it("is what effect/ai says when it is an AiError of somebody else", () => {
    const error = AiError.make({
      module: "M",
      method: "m",
      reason: new AiError.RateLimitError({ retryAfter: seconds(2) }),
    })
    assert.strictEqual(HttpErrorResponse.failureOf(error)?._tag, "RateLimited")
  })

  it("is otherwise nothing that a client may read", async () => {
    for (const raised of [
      new Error("planted"),
      new Foreign("planted"),
      "planted",
      { _tag: "RateLimited", message: "planted" },
      null,
      undefined,
      Cause.die("planted"),
    ]) {
      assert.strictEqual(HttpErrorResponse.failureOf(raised), undefined)
      const lines: Array<Line> = []
      const response = HttpErrorResponse.toResponse(raised, request(), { log: remember(lines) })
      assert.strictEqual(response.status, 500)
      const error = await errorIn(response)
      assert.strictEqual(error["type"], "unknown")
      everywhere("planted", error, lines)
      assert.deepStrictEqual(lines[0]?.fields, {
        error_type: "unknown",
        retryable: false,
        status: 500,
        path: "/v1/ask",
      })
    }
  })
})

describe("What cannot even be looked at", () => {
  const boom = (): never => {
    throw new Error("planted")
  }
  const revoked = (): unknown => {
    const { proxy, revoke } = Proxy.revocable({}, {})
    revoke()
    return proxy
  }
  /** A failure until somebody wants to know more of it than its tag. */
  const turncoat = new Proxy(failure("RateLimited"), {
    get: (target, name) => (name === "_tag" ? target._tag : boom()),
  })
  const hostile = {
    "a revoked proxy": revoked(),
    "a proxy that throws": new Proxy({}, { get: boom, has: boom, getPrototypeOf: boom }),
    "a cause of one": Cause.fail(revoked()),
    "a failure that throws": turncoat,
  }

  for (const [what, raised] of Object.entries(hostile)) {
    it(`is answered as unknown without effects: ${what}`, async () => {
      const lines: Array<Line> = []
      const response = HttpErrorResponse.toResponse(raised, request(), { log: remember(lines) })
      assert.strictEqual(response.status, 500)
      const error = await errorIn(response)
      assert.strictEqual(error["type"], "unknown")
      everywhere("planted", error, lines)
      assert.deepStrictEqual(
        lines.map(({ fields }) => fields["error_type"]),
        ["unknown"],
      )
    })

    it(`is answered as unknown by a handler: ${what}`, async () => {
      const lines: Array<Line> = []
      const GET = HttpErrorResponse.handler(() => Effect.fail(raised), {
        runtime: ManagedRuntime.make(remembering(lines)),
      })
      const response = await GET(request())
      assert.strictEqual(response.status, 500)
      assert.strictEqual((await errorIn(response))["type"], "unknown")
      assert.lengthOf(lines, 1)
    })
  }

  it("hides no failure behind it in the same cause", () => {
    const cause = Cause.fromReasons([Cause.makeDieReason(revoked()), Cause.makeFailReason(failure("Overloaded"))])
    assert.strictEqual(HttpErrorResponse.failureOf(cause)?._tag, "Overloaded")
  })
})

describe("Without effects", () => {
  afterEach(() => void vi.restoreAllMocks())

  it("a line goes to the log of Effect, unless told otherwise", () => {
    const written: Array<string> = []
    vi.spyOn(console, "log").mockImplementation((...said) => void written.push(inspect(said)))
    HttpErrorResponse.toResponse(cases.RateLimited.failure, request())
    assert.strictEqual(written.length, 1)
    for (const word of ["rate_limit", planted.provider, planted.model, "429", "/v1/ask"]) {
      assert.include(written[0], word)
    }
    everywhere("planted-key", written)
    HttpErrorResponse.toResponse(cases.RateLimited.failure, request(), quiet)
    assert.strictEqual(written.length, 1)
  })

  it("a log that throws costs no answer", () => {
    const log = (): never => {
      throw new Error("The disk is full")
    }
    assert.strictEqual(HttpErrorResponse.toResponse(failure("TimedOut"), request(), { log }).status, 504)
  })

  it("a request that throws when it is looked at costs no answer", () => {
    const odd = {
      get headers(): never {
        throw new Error("boom")
      },
    }
    assert.strictEqual(HttpErrorResponse.toResponse(failure("TimedOut"), odd, quiet).status, 504)
  })

  it("a response of Node that has begun is cut, one that is whole stays so, and one that has not begun loses what was said of its body", async () => {
    const lines: Array<Line> = []
    const served = await serveNode((incoming, response) => {
      response.setHeader("content-length", "5")
      response.setHeader("etag", "x")
      response.setHeader("access-control-allow-origin", "*")
      if (incoming.url === "/ended") {
        response.setHeader("content-length", "100000")
        response.end("x".repeat(100_000))
        HttpErrorResponse.send(response, failure("TimedOut"), incoming, quiet)
      } else if (incoming.url === "/begun") {
        response.write("abc", () =>
          HttpErrorResponse.send(response, failure("TimedOut"), incoming, { log: remember(lines) }),
        )
      } else {
        HttpErrorResponse.send(response, failure("TimedOut"), incoming, quiet)
      }
    })
    const whole = await fetch(`${served.url}/ask`)
    assert.deepStrictEqual(
      [whole.status, whole.headers.get("etag"), whole.headers.get("access-control-allow-origin")],
      [504, null, "*"],
    )
    assert.strictEqual((await errorIn(whole))["type"], "timeout")
    const ended = await fetch(`${served.url}/ended`)
    assert.strictEqual((await ended.text()).length, 100_000)
    const begun = await fetch(`${served.url}/begun`)
    assert.strictEqual(begun.status, 200)
    assert.strictEqual(await begun.text().catch(() => "cut"), "cut")
    assert.deepStrictEqual(
      lines.map(({ fields }) => [fields["error_type"], fields["status"]]),
      [["timeout", 200]],
    )
    await served.close()
  })
})

class Greeter extends Context.Service<Greeter, { readonly greet: (name: string) => string }>()("test/Greeter") {}
const greeter = Layer.succeed(Greeter)({ greet: (name) => `Hello, ${name}` })

describe("HttpErrorResponse.handler", () => {
  const lines: Array<Line> = []
  const log = remembering(lines)

  it("gives the response of the effect, with the services of its runtime", async () => {
    const runtime = ManagedRuntime.make(greeter)
    const GET = HttpErrorResponse.handler(
      (_: Request, name: string) => Effect.map(Greeter, ({ greet }) => new Response(greet(name))),
      { runtime },
    )
    assert.strictEqual(await (await GET(request(), "Ada")).text(), "Hello, Ada")
    await runtime.dispose()
  })

  it("reads the table and the settings of its runtime, and its own over them", async () => {
    const runtime = ManagedRuntime.make(
      Layer.mergeAll(
        log,
        FailureMode.layer(FailureMode.operatorOwned),
        HttpErrorResponse.layer({ problemTypes: "https://service.test/", failureModes: { TimedOut: { http: 503 } } }),
      ),
    )
    const raising = (failure: LlmError.LlmError, settings: HttpErrorResponse.Settings = {}) =>
      HttpErrorResponse.handler(() => Effect.fail(failure), { ...settings, runtime })(
        request({ accept: "application/problem+json" }),
      )
    assert.strictEqual((await raising(failure("AuthenticationFailed"))).status, 500)
    const timedOut = await raising(failure("TimedOut"))
    assert.strictEqual(timedOut.status, 503)
    assert.strictEqual(((await timedOut.json()) as { readonly type: string }).type, "https://service.test/timeout")
    const own = await raising(failure("Overloaded"), {
      failureModes: { Overloaded: { http: 529 } },
      problemTypes: "x:",
    })
    assert.strictEqual(own.status, 529)
    assert.strictEqual(((await own.json()) as { readonly type: string }).type, "x:overloaded")
    await runtime.dispose()
  })

  it("answers a defect without its text, and lets the operator hear it", async () => {
    const heard: Array<unknown> = []
    const reported: Array<unknown> = []
    const reporter = ErrorReporter.make(({ error }) => void reported.push(error))
    lines.length = 0
    const runtime = ManagedRuntime.make(Layer.merge(log, ErrorReporter.layer([reporter])))
    const boom = new Error("planted")
    const GET = HttpErrorResponse.handler(() => Effect.die(boom), {
      runtime,
      onUnexpected: (cause) => {
        heard.push(Cause.squash(cause))
        throw new Error("An observer that throws changes nothing")
      },
    })
    const response = await GET(request())
    assert.strictEqual(response.status, 500)
    everywhere("planted", await response.text(), lines)
    assert.deepStrictEqual(heard, [boom])
    assert.deepStrictEqual(reported, [boom])
    await runtime.dispose()
  })

  it("answers what is thrown before there is an effect", async () => {
    const GET = HttpErrorResponse.handler(
      (): Effect.Effect<Response> => {
        throw failure("ContextLengthExceeded")
      },
      { runtime: ManagedRuntime.make(log) },
    )
    assert.strictEqual((await GET(request())).status, 413)
  })

  it("answers when its services cannot be made", async () => {
    const broken = Layer.effect(Greeter)(Effect.fail(failure("ConnectionFailed")))
    const GET = HttpErrorResponse.handler(() => Effect.map(Greeter, () => new Response()), {
      runtime: ManagedRuntime.make(broken),
    })
    vi.spyOn(console, "log").mockImplementation(() => undefined)
    const response = await GET(request())
    vi.restoreAllMocks()
    assert.strictEqual(response.status, 503)
  })

  it("interrupts the effect when the request is aborted, and does not call it a failure", async () => {
    lines.length = 0
    const controller = new AbortController()
    let interrupted = false
    const GET = HttpErrorResponse.handler(
      () =>
        Effect.onInterrupt(Effect.never, () =>
          Effect.sync(() => {
            interrupted = true
          }),
        ),
      { runtime: ManagedRuntime.make(log) },
    )
    const response = GET(new Request(url, { signal: controller.signal }))
    setTimeout(() => controller.abort(), 10)
    assert.strictEqual((await response).status, 499)
    assert.isTrue(interrupted)
    assert.deepStrictEqual(lines, [])
  })
})

describe("HttpErrorResponse.handler never rejects", () => {
  const GET = HttpErrorResponse.handler(() => Effect.fail(failure("TimedOut")), {
    runtime: ManagedRuntime.make(remembering([])),
  })
  const stopped = HttpErrorResponse.handler(() => Effect.interrupt)

  for (const [what, odd] of Object.entries({
    "has no signal": { url, headers: new Headers() },
    "has null for a signal": { url, signal: null },
    "has a signal that is none": { url, signal: {} },
    "throws when its signal is looked at": {
      get signal(): never {
        throw new Error("planted")
      },
    },
    "is not there": undefined,
  })) {
    it(`for a request that ${what}`, async () => {
      assert.strictEqual((await GET(odd as unknown as Request)).status, 504)
      // The one that asks whether the client went.
      assert.strictEqual((await stopped(odd as unknown as Request)).status, 503)
    })
  }
})

describe("Options that cannot be meant", () => {
  const refuses = (make: () => unknown, ...words: ReadonlyArray<string>) => {
    try {
      make()
    } catch (error) {
      if (!(error instanceof Understudy.InvalidOptions)) throw error
      for (const word of words) assert.include(error.message, word)
      return
    }
    assert.fail("They were taken")
  }

  it("are refused with their name", () => {
    const untyped = (options: object): HttpErrorResponse.Settings => options
    refuses(
      () => HttpErrorResponse.of(failure("TimedOut"), untyped({ audience: "all" })),
      "HttpErrorResponse.of",
      "audience",
    )
    refuses(() => HttpErrorResponse.layer(untyped({ failureModes: { Nope: {} } })), "HttpErrorResponse.layer", "by tag")
    refuses(() => HttpErrorResponse.handler(() => Effect.never, untyped({ mesage: "x" })), "handler", "mesage")
    refuses(() => HttpErrorResponse.toResponse(1, undefined, untyped({ message: "x" })), "toResponse", "a function")
  })
})
