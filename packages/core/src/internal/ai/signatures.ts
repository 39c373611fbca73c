/**
 * The methods of `LanguageModel` with exact failures.
 *
 * Copied from `LanguageModel.Service` of `effect/ai` 4.1, where
 * `ExtractError<Options>` is replaced by the provider's failures:
 * overloads cannot be mapped by a type, since only the last is seen. The type tests compare
 * everything but the failures with the original.
 */
// oxlint-disable typescript/no-explicit-any -- the bounds are those of `effect/ai`
import type * as AiError from "effect/ai/AiError"
import type * as LanguageModel from "effect/ai/LanguageModel"
import type * as Response from "effect/ai/Response"
import type * as Tool from "effect/ai/Tool"
import type * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type { NoExcessProperties } from "effect/Types"
import type { CoreFailure } from "../../AiFailure.ts"
import type { StreamInterrupted } from "../llmError.ts"

/** Not exported by `effect/ai`. */
type GenerateTextOptionsWithoutToolkit = Omit<LanguageModel.GenerateTextOptions<{}>, "toolkit"> & {
  readonly toolkit?: undefined
}

/** `generateText` with exact failures. */
export interface GenerateText<out E> {
  // No toolkit
  <Options extends NoExcessProperties<GenerateTextOptionsWithoutToolkit, Options>>(
    options: Options & GenerateTextOptionsWithoutToolkit,
  ): Effect.Effect<
    LanguageModel.GenerateTextResponse<{}, LanguageModel.ExtractToolParametersModeWithoutToolkit<Options>>,
    Exclude<LanguageModel.ExtractError<Options>, AiError.AiError> | E | CoreFailure,
    LanguageModel.ExtractServices<Options>
  >
  // A toolkit, also in helpers that are generic in it
  <
    Tools extends Record<string, Tool.Any>,
    Options extends NoExcessProperties<
      LanguageModel.GenerateTextOptions<Tools> & { readonly toolkit: LanguageModel.ToolkitInput<Tools> },
      Options
    >,
  >(
    options: Options &
      LanguageModel.GenerateTextOptions<Tools> & { readonly toolkit: LanguageModel.ToolkitInput<Tools> },
  ): Effect.Effect<
    LanguageModel.GenerateTextResponse<Tools, LanguageModel.ExtractToolParametersMode<Options>>,
    Exclude<LanguageModel.ExtractError<Options>, AiError.AiError> | E | CoreFailure,
    LanguageModel.ExtractServices<Options>
  >
  // One of several toolkits
  <
    Options extends { readonly toolkit: LanguageModel.ToolkitOption<any> } & NoExcessProperties<
      LanguageModel.GenerateTextOptions<any>,
      Options
    >,
  >(
    options: Options &
      LanguageModel.GenerateTextOptions<LanguageModel.ExtractTools<Options>> & {
        readonly toolkit: Options["toolkit"]
      },
  ): Effect.Effect<
    LanguageModel.GenerateTextResponse<
      LanguageModel.ExtractTools<Options>,
      LanguageModel.ExtractToolParametersMode<Options>
    >,
    Exclude<LanguageModel.ExtractError<Options>, AiError.AiError> | E | CoreFailure,
    LanguageModel.ExtractServices<Options>
  >
}

/** `generateObject` with exact failures. */
export interface GenerateObject<out E> {
  <
    ObjectEncoded extends Record<string, any>,
    StructuredOutputSchema extends Schema.Encoder<ObjectEncoded, unknown>,
    Options extends NoExcessProperties<LanguageModel.GenerateObjectOptions<any, StructuredOutputSchema>, Options>,
    Tools extends Record<string, Tool.Any> = {},
  >(
    options: Options & LanguageModel.GenerateObjectOptions<Tools, StructuredOutputSchema>,
  ): Effect.Effect<
    LanguageModel.GenerateObjectResponse<
      Tools,
      StructuredOutputSchema["Type"],
      LanguageModel.ExtractToolParametersMode<Options>
    >,
    Exclude<LanguageModel.ExtractError<Options>, AiError.AiError> | E | CoreFailure,
    LanguageModel.ExtractServices<Options> | StructuredOutputSchema["DecodingServices"]
  >
}

/** `streamText` with exact failures. */
export interface StreamText<out E> {
  // No toolkit
  <Options extends NoExcessProperties<GenerateTextOptionsWithoutToolkit, Options>>(
    options: Options & GenerateTextOptionsWithoutToolkit,
  ): Stream.Stream<
    Response.StreamPart<{}, LanguageModel.ExtractToolParametersModeWithoutToolkit<Options>>,
    Exclude<LanguageModel.ExtractError<Options>, AiError.AiError> | E | CoreFailure | StreamInterrupted,
    LanguageModel.ExtractServices<Options>
  >
  // A toolkit, also in helpers that are generic in it
  <
    Tools extends Record<string, Tool.Any>,
    Options extends NoExcessProperties<
      LanguageModel.GenerateTextOptions<Tools> & { readonly toolkit: LanguageModel.ToolkitInput<Tools> },
      Options
    >,
  >(
    options: Options &
      LanguageModel.GenerateTextOptions<Tools> & { readonly toolkit: LanguageModel.ToolkitInput<Tools> },
  ): Stream.Stream<
    Response.StreamPart<Tools, LanguageModel.ExtractToolParametersMode<Options>>,
    Exclude<LanguageModel.ExtractError<Options>, AiError.AiError> | E | CoreFailure | StreamInterrupted,
    LanguageModel.ExtractServices<Options>
  >
  // One of several toolkits
  <
    Options extends { readonly toolkit: LanguageModel.ToolkitOption<any> } & NoExcessProperties<
      LanguageModel.GenerateTextOptions<any>,
      Options
    >,
  >(
    options: Options &
      LanguageModel.GenerateTextOptions<LanguageModel.ExtractTools<Options>> & {
        readonly toolkit: Options["toolkit"]
      },
  ): Stream.Stream<
    Response.StreamPart<LanguageModel.ExtractTools<Options>, LanguageModel.ExtractToolParametersMode<Options>>,
    Exclude<LanguageModel.ExtractError<Options>, AiError.AiError> | E | CoreFailure | StreamInterrupted,
    LanguageModel.ExtractServices<Options>
  >
}

type AnyEffect = Effect.Effect<any, any, any>
type AnyStream = Stream.Stream<any, any, any>

interface Methods<out E> {
  readonly generateText: GenerateText<E>
  readonly generateObject: GenerateObject<E>
  readonly streamText: StreamText<E>
}

/**
 * The methods of a model with other failures. One cast for all of them: the
 * signatures above differ from those of `effect/ai` in the failures alone.
 */
export const withFailures = <E>(
  model: LanguageModel.LanguageModel,
  effect: (self: AnyEffect) => AnyEffect,
  stream: (self: AnyStream) => AnyStream,
): Methods<E> => {
  const methods: unknown = {
    generateText: (options: any) => effect(model.generateText(options)),
    generateObject: (options: any) => effect(model.generateObject(options)),
    streamText: (options: any) => stream(model.streamText(options)),
  }
  return methods as Methods<E>
}
