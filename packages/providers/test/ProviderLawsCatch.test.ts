import { NodeHttpClient } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Call, LanguageModelFace, LlmError, Provider, Retry } from "@understudy/core"
import { OpenAiChat } from "@understudy/providers"
import { ProviderLaws, type Upstream } from "@understudy/testkit"
import { Effect, Fiber, Queue, Redacted, Stream } from "effect"
import { Prompt } from "effect/ai"
import type { HttpClient } from "effect/http"

type Request = LanguageModelFace.Request
type Part = LanguageModelFace.Part | LanguageModelFace.Answer[number]
type Model = Provider.Provider<LanguageModelFace.LanguageModelFace, LlmError.ProviderFailure, HttpClient.HttpClient>
type Make = ProviderLaws.Target<HttpClient.HttpClient>["make"]

const face = LanguageModelFace.languageModelFace

const good: Make = (upstream, options) =>
  OpenAiChat.make({ name: "primary", model: "m", baseUrl: upstream.openaiUrl, ...options })

/** A good provider, with one thing changed. */
const changed =
  (change: {
    readonly request?: (request: Request) => Request
    readonly part?: (part: Part) => Part | undefined
    readonly failure?: (failure: LlmError.LlmError) => LlmError.ProviderFailure
    readonly make?: Make
  }): Make =>
  (upstream, options) => {
    const self = (change.make ?? good)(upstream, options)
    const request = change.request ?? ((same) => same)
    const keep = (part: Part) => (change.part === undefined ? part : change.part(part))
    const failing = change.failure ?? ((same) => same as LlmError.ProviderFailure)
    return Provider.make({
      name: self.name,
      model: self.model,
      face,
      generate: (asked: Request) =>
        self.generate(request(asked)).pipe(
          Effect.map((parts) => parts.flatMap((part) => (keep(part) ?? []) as LanguageModelFace.Answer)),
          Effect.mapError(failing),
        ),
      stream: (asked: Request) =>
        self.stream(request(asked)).pipe(
          Stream.mapError(failing),
          Stream.map((part) => keep(part) as LanguageModelFace.Part | undefined),
          Stream.filter((part) => part !== undefined),
        ),
    })
  }

const messages = (request: Request, change: (message: Prompt.Message) => Prompt.Message | undefined): Request => ({
  ...request,
  prompt: Prompt.fromMessages(request.prompt.content.flatMap((message) => change(message) ?? [])),
})

/** Runs on when nobody listens any more. */
const detached: Make = (upstream, options) => {
  const self: Model = good(upstream, options)
  return Provider.make({
    name: self.name,
    model: self.model,
    face,
    generate: (request: Request) =>
      Effect.flatMap(Effect.forkDetach(self.generate(request)), (fiber) => Fiber.join(fiber)),
    stream: (request: Request) =>
      Stream.unwrap(
        Effect.gen(function* () {
          const queue = yield* Queue.unbounded<LanguageModelFace.Part>()
          yield* Effect.forkDetach(Stream.runForEach(self.stream(request), (part) => Queue.offer(queue, part)))
          return Stream.fromQueue(queue)
        }),
      ),
  })
}

/** Ends what broke off as if it were whole. */
const completing: Make = (upstream, options) => {
  const self: Model = good(upstream, options)
  const finish: LanguageModelFace.Part = {
    type: "finish",
    reason: "stop",
    usage: { inputTokens: {}, outputTokens: {} },
  }
  return Provider.make({
    name: self.name,
    model: self.model,
    face,
    generate: self.generate,
    stream: (request: Request) =>
      self.stream(request).pipe(Stream.catchTag("StreamInterrupted", () => Stream.make(finish))),
  })
}

/** Reads events as if they came as they are written in the documentation. */
const naive: Make = (upstream) => {
  const subject = { provider: "primary", model: "m" }
  const ask = async (stream: boolean): Promise<LanguageModelFace.Answer> => {
    const body = JSON.stringify({ model: "m", messages: [{ role: "user", content: "Hello?" }], stream })
    const response = await fetch(`${upstream.openaiUrl}/chat/completions`, { method: "POST", body })
    let text = ""
    for await (const chunk of response.body ?? []) text += new TextDecoder().decode(chunk)
    if (text.includes("understudy_unknown")) throw new Error("What is that?")
    const values = stream
      ? text
          .split("\n\n")
          .filter((event) => event !== "" && event !== "data: [DONE]")
          .map((event) => JSON.parse(event.slice("data: ".length)))
      : [JSON.parse(text)]
    const said = values.map((value) => (value.choices[0]?.delta ?? value.choices[0]?.message)?.content ?? "").join("")
    const total = stream ? undefined : values[0].usage.prompt_tokens
    return [
      { type: "text", text: said },
      { type: "finish", reason: "stop", usage: { inputTokens: { total }, outputTokens: {} } },
    ]
  }
  const asking = (stream: boolean) =>
    Effect.tryPromise({ try: () => ask(stream), catch: () => new LlmError.UnknownFailure(subject) })
  return Provider.make({
    name: "primary",
    model: "m",
    face,
    generate: () => asking(false),
    stream: () =>
      Stream.fromIterableEffect(
        Effect.map(asking(true), (parts) =>
          parts.flatMap((part): ReadonlyArray<LanguageModelFace.Part> =>
            part.type === "text"
              ? [{ type: "text-delta", id: "0", delta: part.text }]
              : part.type === "finish"
                ? [part]
                : [],
          ),
        ),
      ),
  })
}

/** What is wrong with a provider, and which laws must notice. */
const mutants: Record<string, { readonly make: Make; readonly breaks: ReadonlyArray<ProviderLaws.Law> }> = {
  "loses the end of the text": {
    make: changed({ part: (part) => (part.type === "text-delta" && part.delta.includes(".") ? undefined : part) }),
    breaks: ["text"],
  },
  "hides reasoning": {
    make: changed({ part: (part) => (part.type.startsWith("reasoning") ? undefined : part) }),
    breaks: ["reasoning"],
  },
  "counts nothing, and knows one end": {
    make: changed({
      part: (part) =>
        part.type === "finish"
          ? { type: "finish", reason: "other", usage: { inputTokens: {}, outputTokens: {} } }
          : part,
    }),
    breaks: ["usage", "finishReasons"],
  },
  "leaves parameters of tools as text": {
    make: changed({
      part: (part) => (part.type === "tool-call" ? { ...part, params: JSON.stringify(part.params) } : part),
    }),
    breaks: ["toolCalls", "partsDecode", "ownHistory"],
  },
  "leaves blocks open": {
    make: changed({ part: (part) => (part.type === "text-end" ? undefined : part) }),
    breaks: ["partsDecode"],
  },
  "asks without system messages": {
    make: changed({ request: (r) => messages(r, (m) => (m.role === "system" ? undefined : m)) }),
    breaks: ["systemMessage"],
  },
  "asks without tools": {
    make: changed({ request: (request) => ({ ...request, tools: [] }) }),
    breaks: ["tools"],
  },
  "asks without the results of tools": {
    make: changed({ request: (r) => messages(r, (m) => (m.role === "tool" ? undefined : m)) }),
    breaks: ["toolResults"],
  },
  "asks without its own answers": {
    make: changed({ request: (r) => messages(r, (m) => (m.role === "assistant" ? undefined : m)) }),
    breaks: ["ownHistory", "toolResults"],
  },
  "asks with the thoughts of others": {
    make: changed({
      request: (request) =>
        messages(request, (message) =>
          message.role === "assistant"
            ? Prompt.assistantMessage({
                content: message.content.map((part) =>
                  part.type === "reasoning" ? Prompt.textPart({ text: part.text }) : part,
                ),
              })
            : message,
        ),
    }),
    breaks: ["foreignHistory"],
  },
  "asks without files": {
    make: changed({
      request: (request) =>
        messages(request, (message) =>
          message.role === "user"
            ? Prompt.userMessage({ content: message.content.filter((part) => part.type === "text") })
            : message,
        ),
    }),
    breaks: ["images", "unsupportedFile"],
  },
  "never asks for JSON": {
    make: changed({ request: (request) => ({ ...request, responseFormat: { type: "text" } }) }),
    breaks: ["structuredOutput", "structuredOutputOptional"],
  },
  "is deaf to the call": {
    make: (upstream, options) => {
      const self = good(upstream, options)
      return Provider.make({
        name: self.name,
        model: self.model,
        face,
        generate: (request: Request) => Effect.provideService(self.generate(request), Call.CurrentOverrides, {}),
        stream: (request: Request) => Stream.provideService(self.stream(request), Call.CurrentOverrides, {}),
      })
    },
    breaks: ["parametersOfCall", "keyOfCall"],
  },
  "knows no parameters, and another key": {
    make: (upstream) => good(upstream, { apiKey: Redacted.make("sk-of-somebody-else") }),
    breaks: ["parameters", "extraParameters", "key"],
  },
  "reads as the documentation writes": {
    make: naive,
    breaks: ["missingUsage", "unknownFields", "unknownEvents", "lineEndings", "splitBytes"],
  },
  "completes what broke off": { make: completing, breaks: ["noEndMarker"] },
  "never lets go": {
    make: detached,
    breaks: ["interruptedAnswer", "interruptedSilence", "interruptedStream", "leftEarly"],
  },
  "knows one failure": {
    make: changed({
      failure: (failure) => new LlmError.UnknownFailure({ provider: "primary", model: failure.model ?? "" }),
    }),
    breaks: [
      "status400",
      "status401",
      "status403",
      "status404",
      "status408",
      "status413",
      "status422",
      "status429",
      "status500",
      "status503",
      "status529",
      "noQuota",
      "contextLength",
      "requestId",
      "refused",
      "resetBeforeHeaders",
      "closeBeforeHeaders",
      "reset",
      "close",
      "truncatedJson",
      "html",
      "htmlOfGateway",
      "emptyAnswer",
      "errorInBand",
      "errorInBandLater",
      "refusal",
      "contentFilter",
    ],
  },
  "forgets hints and ids": {
    make: changed({
      failure: ({ _tag }) =>
        _tag === "RateLimited"
          ? new LlmError.RateLimited({ provider: "primary", model: "m" })
          : new LlmError.ProviderUnavailable({ provider: "primary", model: "m" }),
    }),
    breaks: ["status429", "status503", "requestId"],
  },
  "names somebody else": {
    make: changed({ failure: () => new LlmError.InvalidRequest({ provider: "somebody", model: "m" }) }),
    breaks: ["status400"],
  },
  "retries by itself": {
    make: (upstream, options) => {
      const retried = good(upstream, options).pipe(Retry.with({ times: 1, base: "1 millis" }))
      return Provider.make({ ...retried, generate: retried.generate, stream: retried.stream })
    },
    breaks: ["status500", "resetBeforeHeaders"],
  },
  "tells its key": {
    make: (upstream, options) =>
      changed({
        failure: () =>
          new LlmError.UnknownFailure({ provider: "primary", model: "m", detail: Redacted.value(options.apiKey) }),
      })(upstream, options),
    breaks: ["secrets"],
  },
  throws: {
    make: (upstream: Upstream.Running, options) => {
      const self = good(upstream, options)
      return Provider.make({
        name: self.name,
        model: self.model,
        face,
        generate: () => Effect.die("boom"),
        stream: () => Stream.die("boom"),
      })
    },
    breaks: ["text", "status500"],
  },
}

describe("ProviderLaws notice a provider that", () => {
  for (const [name, { breaks, make }] of Object.entries(mutants)) {
    it.live(name, () =>
      Effect.gen(function* () {
        const laws = ProviderLaws.laws({ dialect: "openai", make })
        const results = yield* Effect.forEach(
          laws.filter((law) => breaks.includes(law.name)),
          (law) => Effect.result(law.check),
          { concurrency: 4 },
        )
        assert.deepStrictEqual(
          new Set(results.map((result) => (result._tag === "Failure" ? result.failure.law : "one holds"))),
          new Set(breaks),
        )
      }).pipe(Effect.provide(NodeHttpClient.layerUndici)),
    )
  }

  it("breaks any of them: no law is without a provider that breaks it", () => {
    const broken = new Set(Object.values(mutants).flatMap(({ breaks }) => breaks))
    assert.deepStrictEqual(
      ProviderLaws.names.filter((name) => !broken.has(name)),
      [],
    )
  })
})
