import { LanguageModelFace, type LlmError, type Provider } from "@understudy/core"
import { assert } from "@effect/vitest"
import { Effect, Inspectable, Layer, Schema, Stream } from "effect"
import { Response, Tool, Toolkit } from "effect/ai"
import { HttpClient, type HttpClientRequest, HttpClientResponse } from "effect/http"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"
import { inspect } from "node:util"

/** What a stubbed transport was asked. */
export interface Asked {
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: Record<string, unknown>
}

/** A transport without sockets: answers every request with this, and remembers what was asked. */
export const transport = (answer: string | Uint8Array | (() => globalThis.Response), headers = {}) => {
  const asked: Array<Asked> = []
  const client = HttpClient.make((request, url) =>
    Effect.sync(() => {
      asked.push({ url: url.href, headers: { ...request.headers }, body: bodyOf(request) })
      const response =
        typeof answer === "function" ? answer() : new globalThis.Response(answer as BodyInit, { status: 200, headers })
      return HttpClientResponse.fromWeb(request, response)
    }),
  )
  return { asked, layer: Layer.succeed(HttpClient.HttpClient, client) }
}

const bodyOf = (request: HttpClientRequest.HttpClientRequest): Record<string, unknown> => {
  const { body } = request
  if (body._tag !== "Uint8Array") return assert.fail(`a body of ${body._tag}`)
  const bytes = body.body
  return JSON.parse(typeof bytes === "string" ? bytes : new TextDecoder().decode(bytes))
}

type Model = Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.ProviderFailure, HttpClient.HttpClient>

/** The body that a request becomes. */
export const bodyFor = (model: Model, request: LanguageModelFace.Request, mode: "generate" | "stream" = "generate") =>
  Effect.gen(function* () {
    const { asked, layer } = transport("")
    const run = mode === "generate" ? model.generate(request) : Stream.runDrain(model.stream(request))
    yield* Effect.exit(run as Effect.Effect<unknown, LlmError.LlmError, HttpClient.HttpClient>).pipe(
      Effect.provide(layer),
    )
    return asked[0]?.body ?? assert.fail("nothing was asked")
  })

/** A record without these fields. */
export const without = (record: Record<string, unknown>, ...fields: ReadonlyArray<string>) =>
  Object.fromEntries(Object.entries(record).filter(([field]) => !fields.includes(field)))

/** Server-sent events of these values. */
export const events = (...values: ReadonlyArray<unknown>): string =>
  values
    .map((value) => {
      const name =
        typeof value === "object" && value !== null && "type" in value && !("choices" in value) ? value.type : undefined
      const data = typeof value === "string" ? value : JSON.stringify(value)
      return name === undefined ? `data: ${data}\n\n` : `event: ${String(name)}\ndata: ${data}\n\n`
    })
    .join("")

/** The parts of a stream. */
export const partsOf = (model: Model, body: string | Uint8Array, request = LanguageModelFace.request("Hello?")) =>
  Stream.runCollect(model.stream(request)).pipe(Effect.provide(transport(body).layer))

/** The failure of a stream, with the parts before it. */
export const failureOf = (model: Model, body: string | Uint8Array | (() => globalThis.Response)) => {
  const parts: Array<LanguageModelFace.Part> = []
  return Stream.runForEach(model.stream(LanguageModelFace.request("Hello?")), (part) =>
    Effect.sync(() => parts.push(part)),
  ).pipe(
    Effect.flip,
    Effect.map((failure) => ({ failure, parts })),
    Effect.provide(transport(body).layer),
  )
}

/** The parts of an answer. */
export const answerOf = (model: Model, body: unknown, request = LanguageModelFace.request("Hello?")) =>
  model.generate(request).pipe(Effect.provide(transport(typeof body === "string" ? body : JSON.stringify(body)).layer))

/** A tool of the tests. */
export const weather = Tool.make("weather", {
  description: "The weather at a place.",
  parameters: Schema.Struct({ city: Schema.String, days: Schema.optionalKey(Schema.Int) }),
})

/** Another one. */
export const stop = Tool.make("stop", { description: "Stops." })

const toolkit = Toolkit.make(weather, stop)

/** Do these parts decode as what `LanguageModel` takes from its hooks? */
export const decodes = (parts: ReadonlyArray<unknown>, mode: "answer" | "stream") =>
  mode === "answer"
    ? Schema.decodeUnknownEffect(Schema.Array(Response.Part(toolkit)))(parts)
    : Schema.decodeUnknownEffect(Schema.Array(Response.StreamPart(toolkit)))(parts)

/** Everything that a failure shows, in every way of showing it. */
export const shown = (failure: unknown): string =>
  [
    failure instanceof Error ? `${failure.message}\n${failure.stack}` : "",
    JSON.stringify(failure),
    inspect(failure, { depth: 20, showHidden: true }),
    Inspectable.toStringUnknown(failure),
    String(failure),
  ].join("\n")

// ---------------------------------------------------------------------------
// A real server
// ---------------------------------------------------------------------------

/** A server of one's own for what needs a socket. */
export const serve = (respond: (request: Http.IncomingMessage, response: Http.ServerResponse) => void) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly url: string; readonly closed: Promise<void>; readonly server: Http.Server }>(
      (resume) => {
        let gone = () => {}
        const closed = new Promise<void>((resolve) => {
          gone = resolve
        })
        const server = Http.createServer((request, response) => {
          response.on("close", () => {
            if (!response.writableFinished) gone()
          })
          request.resume()
          request.on("end", () => respond(request, response))
        })
        server.listen(0, "127.0.0.1", () => {
          const { port } = server.address() as AddressInfo
          resume(Effect.succeed({ url: `http://127.0.0.1:${port}`, closed, server }))
        })
      },
    ),
    ({ server }) =>
      Effect.sync(() => {
        server.closeAllConnections()
        server.close()
      }),
  )
