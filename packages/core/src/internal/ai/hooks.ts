/** A provider as the hooks that `LanguageModel.make` takes. */
import type * as AiError from "effect/ai/AiError"
import * as LanguageModel from "effect/ai/LanguageModel"
import type * as Response from "effect/ai/Response"
import * as Telemetry from "effect/ai/Telemetry"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { Span } from "effect/Tracer"
import type { LanguageModelFace, Request } from "../../LanguageModelFace.ts"
import type { InvalidResponse, LlmError, StreamInterrupted } from "../llmError.ts"
import * as Origin from "../../Origin.ts"
import { enter, type Provider } from "../provider.ts"
import * as StructuredOutput from "../../StructuredOutput.ts"
import { ambient } from "./ambient.ts"
import { marked } from "./marked.ts"

type Hooks = Parameters<typeof LanguageModel.make>[0]

/** A response id of one provider means nothing to another: every request is whole. */
const whole = (request: Request): Request =>
  request.previousResponseId === undefined && request.incrementalPrompt === undefined
    ? request
    : { ...request, previousResponseId: undefined, incrementalPrompt: undefined }

/** Tells the span who answers, and what it cost. */
const annotate = (span: Span, parts: Iterable<Response.AnyPartEncoded>): void => {
  for (const part of parts) {
    if (part.type === "response-metadata") {
      const origin = Origin.of(part)
      Telemetry.addGenAIAnnotations(span, {
        operation: { name: "chat" },
        provider: { name: origin?.provider },
        request: { model: origin?.model },
        response: { id: part.id, model: part.modelId ?? origin?.model },
      })
    } else if (part.type === "finish") {
      Telemetry.addGenAIAnnotations(span, {
        response: { finishReasons: [part.reason] },
        usage: { inputTokens: part.usage.inputTokens.total, outputTokens: part.usage.outputTokens.total },
      })
    }
  }
}

/** What a way out may be told. */
export interface Options {
  /** How answers are searched, mended, judged and asked for again; `false` for not at all. */
  readonly structured?: StructuredOutput.Options | false | undefined
}

/** The hooks of a provider. `toAiError` makes the errors that leave them. */
export const hooks = <E extends LlmError, R>(
  provider: Provider<LanguageModelFace, E, R>,
  toAiError: (failure: E | InvalidResponse | StreamInterrupted, method: string) => AiError.AiError,
  options: Options = {},
): Effect.Effect<Hooks, never, R> => {
  const self: Provider<LanguageModelFace, E | InvalidResponse, R> =
    options.structured === false ? marked(provider) : marked(provider.pipe(StructuredOutput.with(options.structured)))
  return Effect.map(Effect.tap(ambient<R>(), enter(provider)), (services) => {
    // What was refused although the prompt was whole, by the span of the question.
    const refused = new WeakMap<Span, AiError.AiError>()
    const failed =
      (options: LanguageModel.ProviderOptions, method: string) =>
      (failure: E | InvalidResponse | StreamInterrupted) => {
        const error = toAiError(failure, method)
        if (options.incrementalPrompt !== undefined) refused.set(options.span, error)
        return error
      }
    const before = (options: LanguageModel.ProviderOptions): AiError.AiError | undefined =>
      options.incrementalFallback === true ? refused.get(options.span) : undefined

    return {
      // Answers hold JSON, so an object is decoded by the JSON side of its schema: a date from text, say.
      codecTransformer: (schema) => ({
        ...LanguageModel.defaultCodecTransformer(schema),
        codec: Schema.toCodecJson(schema),
      }),
      generateText: (options) => {
        const refusal = before(options)
        if (refusal !== undefined) return Effect.fail(refusal)
        const method = options.responseFormat.type === "json" ? "generateObject" : "generateText"
        return services.effect(self.generate(whole(options))).pipe(
          Effect.mapError(failed(options, method)),
          Effect.map((answer) => {
            annotate(options.span, answer)
            return [...answer]
          }),
        )
      },
      streamText: (options) => {
        const refusal = before(options)
        if (refusal !== undefined) return Stream.fail(refusal)
        return services.stream(self.stream(whole(options))).pipe(
          Stream.mapError(failed(options, "streamText")),
          Stream.mapArray((parts) => {
            annotate(options.span, parts)
            return parts
          }),
        )
      },
    }
  })
}
