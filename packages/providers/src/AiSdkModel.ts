/**
 * Language models of the AI SDK (`@ai-sdk/*`) as providers: Google Gemini,
 * Amazon Bedrock, Mistral, Cohere and some thirty more.
 *
 * Nothing of the AI SDK is imported: a model is an object with `doGenerate` and
 * `doStream`, which retry nothing themselves (`maxRetries` belongs to
 * `generateText` and `streamText`, which are not used). Models of the
 * specification v2, v3 and v4 are taken.
 *
 * **Details**
 *
 * - Every failure is of `LlmError.ProviderFailure`: status, headers and body of
 *   an `APICallError` are told by the classifier in `Classifier.Current`, errors
 *   without a response by their name. None holds the request.
 * - An interruption aborts the model's signal, which closes the socket.
 * - Parameters of the model may be given for a call with `Call.withParameters`;
 *   `extra` becomes options of the model's provider, which are in its own words.
 * - A key of the call (`Call.withCredential`) needs `withCredential`, since a
 *   model holds its key inside. Without it such a call is `InvalidRequest`: it
 *   never goes out with the operator's key.
 * - All system messages of a prompt go to the top, in order. A history of another
 *   provider is accepted: ids of tool calls are made valid, and reasoning and
 *   metadata go back to the candidate and model they came from only.
 * - Tools that the provider carries out itself stay with it: their calls and
 *   results are not part of an answer.
 * - Structured output is asked for in the strict form of JSON Schema that most
 *   providers accept, and the answer is brought back to the JSON that
 *   `LanguageModel` decodes. Models that say that they take no schema get it in
 *   the prompt.
 * - A stream is whole with a reason for its end. One that ends before has no
 *   `finish` part, which a provider makes `StreamInterrupted`.
 *
 * **Gotchas**
 *
 * - The AI SDK asks with `fetch`, not with the `HttpClient` of the context, and
 *   follows redirects. Give the model's provider a `fetch` of your own to change
 *   that, and for proxies.
 * - The key is inside of the model, so it cannot be cut out of what a provider
 *   quotes. That text is in `providerMessage` and `cause` only, redacted.
 * - Files that the prompt gives by their address are not downloaded: the model
 *   must take addresses.
 * - Warnings of the AI SDK about settings that it leaves out are not told.
 *
 * **Example** (Gemini, with keys of the callers)
 *
 * ```ts
 * import { createGoogle } from "@ai-sdk/google"
 * import { AiSdkModel } from "@understudy/providers"
 * import { Redacted } from "effect"
 *
 * const gemini = (apiKey: string) => createGoogle({ apiKey })("gemini-3-pro")
 *
 * export const model = AiSdkModel.make({
 *   model: gemini("AIza…"),
 *   withCredential: (key) => gemini(Redacted.value(key)),
 *   parameters: { maxTokens: 4096 },
 * })
 * ```
 *
 * Source: the language model specification in `@ai-sdk/provider`.
 */
import type * as Call from "@understudy/core/Call"
import * as Classifier from "@understudy/core/Classifier"
import * as LanguageModelFace from "@understudy/core/LanguageModelFace"
import * as LlmError from "@understudy/core/LlmError"
import type { ProviderFailure } from "@understudy/core/LlmError"
import * as Provider from "@understudy/core/Provider"
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Pull from "effect/Pull"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Answer from "./internal/aiSdk/answer.ts"
import * as Failure from "./internal/aiSdk/failure.ts"
import * as Request from "./internal/aiSdk/request.ts"
import * as Specification from "./internal/aiSdk/specification.ts"
import * as Asked from "./internal/asked.ts"

/**
 * What is needed of a model: `LanguageModelV4` of `@ai-sdk/provider` is one, and
 * so are its predecessors.
 */
export interface Model {
  readonly specificationVersion: "v2" | "v3" | "v4"
  /** The SDK's name for who is asked, such as `google.generative-ai`. */
  readonly provider: string
  readonly modelId: string
  readonly doGenerate: (options: never) => PromiseLike<unknown>
  readonly doStream: (options: never) => PromiseLike<{ readonly stream: ReadableStream<unknown> }>
}

/** What the bridge needs to know. */
export interface Options {
  /** The model to ask. */
  readonly model: Model
  /** Names it in failures, events and configuration. Default: the first word of the model's provider, such as `google`. */
  readonly name?: string | undefined
  /** Parameters of the model. Those of a call win, field by field. */
  readonly parameters?: Call.Parameters | undefined
  /** Options for the model's provider, by its key: `{ google: { thinkingConfig: { includeThoughts: true } } }`. */
  readonly providerOptions?: Readonly<Record<string, Readonly<Record<string, unknown>>>> | undefined
  /** The key of the model's own provider options, to which `extra` of the parameters goes. Default: the first word of the model's provider. */
  readonly namespace?: string | undefined
  /**
   * How an answer that fits a schema is asked for: by the schema in a strict form
   * (`strict`), by the schema as it is (`plain`), or also in the prompt
   * (`prompt`). Default `strict`, or `prompt` for a model that says that it takes
   * no schema. A stream never uses the strict form.
   */
  readonly structuredOutput?: "strict" | "plain" | "prompt" | undefined
  /** The same model with the key of a call. It is made for each such call. */
  readonly withCredential?: ((credential: Redacted.Redacted<string>) => Model) | undefined
}

/** A provider that asks an AI SDK model. */
export interface AiSdkModel extends Provider.Provider<LanguageModelFace.LanguageModelFace, ProviderFailure> {}

// ---------------------------------------------------------------------------
// The model
// ---------------------------------------------------------------------------

/** A model as it is asked, whatever its version. */
interface Asking {
  readonly version: Specification.Version
  readonly doGenerate: (options: unknown) => PromiseLike<unknown>
  readonly doStream: (options: unknown) => PromiseLike<{ readonly stream: ReadableStream<unknown> }>
}

const isVersion = (u: unknown): u is Specification.Version => Specification.versions.some((version) => version === u)

/** Throws a `TypeError` for what is no language model, or one of another specification. */
const asking = (where: string, model: Model): Asking => {
  const said: unknown = model
  if (typeof said !== "object" || said === null || !("doGenerate" in said) || !("doStream" in said)) {
    throw new TypeError(`${where}: model: expected a language model of the AI SDK`)
  }
  const { specificationVersion } = model
  if (!isVersion(specificationVersion)) {
    throw new TypeError(
      `${where}: model: expected specification version v2, v3 or v4, and it has ${JSON.stringify(specificationVersion)}`,
    )
  }
  // The options fit the version, which the types of a union of functions cannot say.
  const asked = model as unknown as Omit<Asking, "version">
  return {
    version: specificationVersion,
    doGenerate: (options) => asked.doGenerate(options),
    doStream: (options) => asked.doStream(options),
  }
}

const takesNoSchema = (model: Model): boolean =>
  "supportsStructuredOutputs" in model && model.supportsStructuredOutputs === false

// ---------------------------------------------------------------------------
// The attempt
// ---------------------------------------------------------------------------

interface Candidate extends Asked.Candidate {
  readonly asking: Asking
  readonly namespace: string
  readonly providerOptions: Request.ProviderOptions
  readonly structuredOutput: "strict" | "plain" | "prompt"
  readonly withCredential: Options["withCredential"]
}

const candidateOf = (options: Options): Candidate => {
  const { model } = options
  const first = asking("AiSdkModel.make", model)
  const [word = model.provider] = model.provider.split(".")
  return {
    name: options.name ?? word,
    model: model.modelId,
    dialect: Classifier.dialectOf(model.provider),
    apiKey: undefined,
    parameters: options.parameters,
    asking: first,
    namespace: options.namespace ?? word,
    providerOptions: options.providerOptions ?? {},
    structuredOutput: options.structuredOutput ?? (takesNoSchema(model) ? "prompt" : "strict"),
    withCredential: options.withCredential,
  }
}

/** The model with the key of the call, if there is one. */
const modelFor = (candidate: Candidate, asked: Asked.Asked): Effect.Effect<Asking, ProviderFailure> =>
  Effect.suspend(() => {
    const { key } = asked
    const { withCredential } = candidate
    // The candidate itself has none that is known.
    if (key === undefined) return Effect.succeed(candidate.asking)
    if (withCredential === undefined) {
      return Effect.fail(
        new LlmError.InvalidRequest({
          ...Asked.who(asked),
          detail: "A key came with the call, and this model is not set up to take one (withCredential).",
        }),
      )
    }
    return Effect.try({
      try: () => asking("AiSdkModel.make: withCredential", withCredential(Redacted.make(key))),
      catch: (error) => Failure.thrown(asked, error),
    })
  })

/** What one call is, and how its answer is read. */
interface Exchange {
  readonly model: Asking
  readonly options: (signal: AbortSignal) => unknown
  readonly context: Answer.Context
}

const exchange = (
  candidate: Candidate,
  request: LanguageModelFace.Request,
  stream: boolean,
): Effect.Effect<Exchange, ProviderFailure> =>
  Effect.gen(function* () {
    const asked = yield* Asked.begin(candidate)
    const model = yield* modelFor(candidate, asked)
    const { name, namespace, providerOptions, structuredOutput } = candidate
    const { version } = model
    const origin = `${name}/${candidate.model}`
    const { parameters } = asked
    return yield* Asked.build(asked, () => {
      const context = { version, namespace, parameters, providerOptions, structuredOutput, origin, stream }
      const format = Request.formatOf(request, context)
      const options = Specification.optionsFor(version, Request.options(request, format, context))
      return {
        model,
        options: (abortSignal: AbortSignal) => ({ ...options, abortSignal }),
        context: { asked, origin, json: format !== undefined, recode: format?.recode ?? ((text: string) => text) },
      }
    })
  })

const generate = (
  candidate: Candidate,
  request: LanguageModelFace.Request,
): Effect.Effect<LanguageModelFace.Answer, ProviderFailure> =>
  Effect.flatMap(exchange(candidate, request, false), ({ context, model, options }) =>
    Effect.flatMap(
      Effect.tryPromise({
        try: (signal) => model.doGenerate(options(signal)),
        catch: (error) => Failure.thrown(context.asked, error),
      }),
      (result) => {
        const parts = Answer.parts(context, result)
        return LlmError.isLlmError(parts) ? Effect.fail(parts) : Effect.succeed(parts)
      },
    ),
  )

// ---------------------------------------------------------------------------
// Streams
// ---------------------------------------------------------------------------

type Part = LanguageModelFace.Part

const stream = (candidate: Candidate, request: LanguageModelFace.Request): Stream.Stream<Part, ProviderFailure> =>
  Stream.unwrap(
    Effect.flatMap(exchange(candidate, request, true), (exchange) =>
      Effect.map(begin(exchange), ({ headers, reader }) =>
        Stream.fromPull(
          Effect.succeed(partsOf(exchange.context, new Answer.Decoder(exchange.context, headers), reader)),
        ),
      ),
    ),
  )

interface Begun {
  readonly reader: ReadableStreamDefaultReader<unknown>
  readonly headers: Classifier.SignalHeaders
}

const nothing = (): void => undefined

/** Begins a stream, which ends with the scope. */
const begin = ({ context, model, options }: Exchange): Effect.Effect<Begun, ProviderFailure, Scope.Scope> =>
  Effect.gen(function* () {
    const controller = new AbortController()
    let reader: Begun["reader"] | undefined
    const leave = (): void => {
      controller.abort()
      // Nobody waits for a model that does not hear the signal.
      reader?.cancel().catch(nothing)
    }
    yield* Effect.addFinalizer(() => Effect.sync(leave))
    return yield* Effect.tryPromise({
      try: async () => {
        const result = await model.doStream(options(controller.signal))
        reader = result.stream.getReader()
        if (controller.signal.aborted) leave()
        const response: unknown = "response" in result ? result.response : undefined
        const headers =
          typeof response === "object" && response !== null && "headers" in response ? response.headers : {}
        return { reader, headers: Answer.headersOf(headers) }
      },
      catch: (error) => Failure.thrown(context.asked, error),
    })
  })

type Parts = Arr.NonEmptyReadonlyArray<Part>

const isFilled = (parts: Array<Part>): parts is [Part, ...Array<Part>] => parts.length > 0

const partsOf = (
  { asked }: Answer.Context,
  decoder: Answer.Decoder,
  reader: Begun["reader"],
): Pull.Pull<Parts, ProviderFailure> => {
  const read = Effect.tryPromise({ try: () => reader.read(), catch: (error) => Failure.thrown(asked, error) })
  // What comes after the parts that are out: a failure, or the end.
  let after: Pull.Pull<never, ProviderFailure> | undefined

  const next: Pull.Pull<Parts, ProviderFailure> = Effect.suspend(() =>
    after !== undefined
      ? after
      : Effect.flatMap(read, ({ done, value }): Pull.Pull<Parts, ProviderFailure> => {
          const parts: Array<Part> = []
          const outcome = done ? decoder.end() : decoder.part(value, parts)
          if (outcome !== undefined && outcome !== "whole") after = Effect.fail(outcome)
          else if (done || outcome === "whole") after = Cause.done()
          return isFilled(parts) ? Effect.succeed(parts) : (after ?? next)
        }),
  )
  return next
}

/**
 * A provider that asks an AI SDK model. Throws a `TypeError` for what is no
 * language model, or one of a specification that is not known.
 */
export const make = (options: Options): AiSdkModel => {
  const candidate = candidateOf(options)
  return Provider.make({
    name: candidate.name,
    model: candidate.model,
    face: LanguageModelFace.languageModelFace,
    generate: (request: LanguageModelFace.Request) => generate(candidate, request),
    stream: (request: LanguageModelFace.Request) => stream(candidate, request),
  })
}
