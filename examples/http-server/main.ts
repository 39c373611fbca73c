/**
 * A small service: a question in, an answer with its source out, and on a bad
 * day the answer of a better one, or clean HTTP.
 *
 * It needs no key. Both of its providers are an upstream inside of this process
 * that does as it is told, so that one can see each day for oneself:
 *
 *     PORT=8080 node examples/http-server/main.ts
 *     curl -sSi localhost:8080/ask -d '{"question":"Does the show go on?"}'
 *     curl -X PUT localhost:8080/upstream/limited
 *     curl -sSi localhost:8080/ask -d '{"question":"Does the show go on?"}'
 *     curl -sSi localhost:8080/ask -d '{"question":"And now?"}'
 *     curl -sSi localhost:8080/ask -d '{"question":"And now?"}' -H 'accept: application/problem+json'
 *     curl -X PUT localhost:8080/upstream/broken
 *     curl -sSiN localhost:8080/ask/stream -d '{"question":"How does it begin?"}'
 */
import { NodeHttpClient, NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import {
  AnswerCache,
  Degradation,
  FailureMode,
  HttpErrorMiddleware,
  LanguageModelFace,
  Understudy,
} from "@understudy/core"
import { AnthropicMessages, OpenAiChat } from "@understudy/providers"
import { Upstream } from "@understudy/testkit"
import { Config, Console, Effect, Layer, Logger, Redacted, Schema, Stream } from "effect"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import * as Http from "node:http"

// ---------------------------------------------------------------------------
// 1. The days that the upstream can have
// ---------------------------------------------------------------------------

const always = (step: Upstream.Step): Upstream.Script => ({ steps: [step], then: "repeat" })

const days: Readonly<Record<string, Upstream.Script>> = {
  well: always(Upstream.answer("The show goes on.", { tokens: 4 })),
  limited: always(Upstream.status(429, { headers: { "retry-after": 1 } })),
  down: always(Upstream.status(503, { headers: { "retry-after": 2 } })),
  strict: always(Upstream.status(400, { body: { error: { message: "No.", code: "content_filter" } } })),
  // It begins well, and then the connection breaks.
  broken: always(Upstream.reset({ answer: "The play begins on time, and", tokens: 7, afterTokens: 6 })),
}

// ---------------------------------------------------------------------------
// 2. The service
// ---------------------------------------------------------------------------

const Question = HttpServerRequest.schemaBodyJson(Schema.Struct({ question: Schema.String }))

const service = Effect.gen(function* () {
  const upstream = yield* Upstream.make({ script: days["well"]! })
  const apiKey = Redacted.make("sk-any")

  const model = Understudy.make({
    candidates: [
      { provider: OpenAiChat.make({ model: "gpt-5.6-terra", apiKey, baseUrl: upstream.openaiUrl }) },
      { provider: AnthropicMessages.make({ model: "claude-sonnet-5-5", apiKey, baseUrl: upstream.anthropicUrl }) },
    ],
    deadline: { generate: "10 seconds", stream: "20 seconds" },
    // A real service asks again, and remembers who is down. Here one wants to see each day at once.
    retry: false,
    breaker: false,
  })

  // A question that was answered a short time ago is answered again when nobody can. It bears no fallback: a user of
  // this service is better served by a clean status than by a phrase.
  const ladder = model.pipe(Degradation.with([Degradation.cache({ scope: "everyone", timeToLive: "10 minutes" })]))

  /** What is done about a question, and from which rung the answer is. What it may fail with is answered by the table. */
  const answer = (question: string) =>
    Effect.map(ladder.ask(LanguageModelFace.request(question)), ({ answer, source }) => ({
      answer: LanguageModelFace.text(answer),
      source,
    }))

  const ask = Question.pipe(
    Effect.flatMap(({ question }) => answer(question)),
    Effect.flatMap((body) => HttpServerResponse.json(body)),
  )

  // Until the first words are there a failure is still a status, and behind them an error event.
  const stream = Effect.flatMap(Question, ({ question }) =>
    HttpErrorMiddleware.stream(
      ladder.stream(LanguageModelFace.request(question)).pipe(
        Stream.map(LanguageModelFace.languageModelFace.partText),
        Stream.filter((text) => text !== ""),
        Stream.map((text) => `data: ${JSON.stringify({ text })}\n\n`),
        // The end marker is part of the stream, so that it comes only behind a whole answer.
        Stream.concat(Stream.make("data: [DONE]\n\n")),
      ),
      { dialect: "sse" },
    ),
  )

  const setDay = HttpRouter.schemaPathParams(Schema.Struct({ day: Schema.String })).pipe(
    Effect.flatMap(({ day }) => Effect.fromNullishOr(days[day])),
    Effect.flatMap((script) => upstream.play(script)),
    Effect.as(HttpServerResponse.empty()),
  )

  return Layer.mergeAll(
    HttpRouter.add("POST", "/ask", ask),
    HttpRouter.add("POST", "/ask/stream", stream),
    HttpRouter.add("PUT", "/upstream/:day", setDay),
    HttpRouter.add("GET", "/health", HttpServerResponse.text("ok")),
    // The service's users bring no key: they must not be told that theirs is wrong when ours is.
    HttpErrorMiddleware.layer({ failureModes: FailureMode.operatorOwned }),
  )
}).pipe(Layer.unwrap)

// ---------------------------------------------------------------------------
// 3. The server
// ---------------------------------------------------------------------------

const port = Config.withDefault(Config.Int("PORT"), 8080)

const listening = Layer.effectDiscard(
  HttpServer.addressFormattedWith((address) => Console.log(`Listening on ${address}`)),
)

const server = HttpRouter.serve(service, { disableLogger: true, disableListenLog: true }).pipe(
  Layer.merge(listening),
  Layer.provide(NodeHttpServer.layerConfig(() => Http.createServer(), { port, host: Config.succeed("127.0.0.1") })),
  Layer.provide([NodeHttpClient.layerUndici, Understudy.layer, AnswerCache.layerMemory()]),
  // One line of JSON for each failed response, and nothing for the others.
  Layer.provide(Logger.layer([Logger.consoleJson])),
)

NodeRuntime.runMain(Layer.launch(server))
