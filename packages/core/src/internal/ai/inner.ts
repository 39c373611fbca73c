/**
 * A `LanguageModel` of `effect/ai`, asked as the raw hooks are: what its methods
 * make of an answer is turned back into encoded parts, and its tools are left
 * alone.
 */
// oxlint-disable typescript/no-explicit-any -- the methods' types follow from toolkits that are known at run time only
import type * as LanguageModel from "effect/ai/LanguageModel"
import type * as Prompt from "effect/ai/Prompt"
import type * as Response from "effect/ai/Response"
import * as ResponseIdTracker from "effect/ai/ResponseIdTracker"
import * as Telemetry from "effect/ai/Telemetry"
import type * as Tool from "effect/ai/Tool"
import type * as Toolkit from "effect/ai/Toolkit"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Base64 from "effect/encoding/Base64"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { type Answer, type Part, type Request, streamed } from "../../LanguageModelFace.ts"

/** Tools without their handlers, which nobody asks for: they run above. */
const handlerless = (tools: ReadonlyArray<Tool.Any>): Toolkit.WithHandler<any> => ({
  tools: Object.fromEntries(tools.map((tool) => [tool.name, tool])),
  handle: () => Effect.die(new Error("The handlers of tools run above the providers.")),
})

const optionsOf = ({ prompt, toolChoice, tools }: Request) => ({
  prompt,
  toolChoice,
  disableToolCallResolution: true as const,
  toolCallValidation: "deferred" as const,
  ...(tools.length === 0 ? {} : { toolkit: handlerless(tools) }),
})

/**
 * What belongs to the model above and not to this one: its response ids are
 * another provider's, and its span is annotated once.
 */
const apart = <R>(context: Context.Context<R>): Context.Context<R> =>
  Context.omit(
    ResponseIdTracker.ResponseIdTracker,
    Telemetry.CurrentSpanTransformer,
  )(context as Context.Context<any>) as Context.Context<R>

// ---------------------------------------------------------------------------
// Asking
// ---------------------------------------------------------------------------

/** The parts of an answer. The one cast of its kind: the type of the content follows from the toolkit. */
const contentOf = (response: { readonly content: ReadonlyArray<any> }): ReadonlyArray<Response.AnyPart> =>
  response.content

/** Asks for an answer, as the `generateText` hook does. Fails with whatever the model fails with. */
export const generate = (model: LanguageModel.LanguageModel, request: Request): Effect.Effect<Answer, unknown> => {
  const { responseFormat } = request
  const options: any = optionsOf(request)
  const answer: Effect.Effect<Answer, unknown> =
    responseFormat.type === "text"
      ? Effect.map(model.generateText(options), (response) => contentOf(response).map(encode) as Answer)
      : Effect.map(
          model.generateObject({
            ...options,
            schema: jsonOf(responseFormat.schema),
            objectName: responseFormat.objectName,
          }) as Effect.Effect<LanguageModel.GenerateObjectResponse<any, unknown, any>, unknown>,
          (response) => withJson(contentOf(response).map(encode) as Answer, JSON.stringify(response.value)),
        )
  return Effect.updateContext(answer, apart)
}

/** Asks for a stream, as the `streamText` hook does. */
export const stream = (model: LanguageModel.LanguageModel, request: Request): Stream.Stream<Part, unknown> =>
  request.responseFormat.type === "text"
    ? Stream.updateContext(
        Stream.map(model.streamText(optionsOf(request) as any) as Stream.Stream<Response.AnyPart, unknown>, (part) =>
          encode(part),
        ) as Stream.Stream<Part, unknown>,
        apart,
      )
    : // There is no stream of an object: it comes whole.
      Stream.fromIterableEffect(Effect.map(generate(model, request), streamed))

// ---------------------------------------------------------------------------
// Structured output
// ---------------------------------------------------------------------------

/**
 * The JSON side of a schema. The model brings its own form back to it, none of
 * the user's transformations run twice, and none needs a service here.
 */
const jsonOf = (schema: Schema.Top): Schema.Codec<unknown> =>
  Schema.toEncoded(Schema.toCodecJson(schema)) as unknown as Schema.Codec<unknown>

/** An answer whose text is this JSON. */
const withJson = (answer: Answer, json: string): Answer => {
  const first = answer.findIndex((part) => part.type === "text")
  return answer.flatMap((part, index): Answer =>
    part.type !== "text" ? [part] : index === first ? [{ ...part, text: json }] : [],
  )
}

// ---------------------------------------------------------------------------
// Parts
// ---------------------------------------------------------------------------

/** A decoded part as it was before. */
const encode = (part: Response.AnyPart): Response.AnyPartEncoded => {
  const { "~effect/ai/Response/Part": _, ...rest } = part
  switch (rest.type) {
    case "file":
      return { ...rest, data: Base64.encode(rest.data) }
    case "source":
      return rest.sourceType === "url" ? { ...rest, url: rest.url.toString() } : rest
    case "response-metadata": {
      const { timestamp, ...others } = rest
      return timestamp === undefined ? others : { ...others, timestamp: DateTime.formatIso(timestamp) }
    }
    case "finish": {
      const { inputTokens, outputTokens } = rest.usage
      return { ...rest, usage: { inputTokens, outputTokens } }
    }
    case "tool-result": {
      const { encodedResult, ...others } = rest
      return { ...others, result: encodedResult, modelOutput: others.modelOutput as EncodedOutput }
    }
    default:
      return rest
  }
}

/** A decoded output is among the encoded forms. */
type EncodedOutput = ReadonlyArray<Prompt.TextPartEncoded | Prompt.FilePartEncoded> | undefined
