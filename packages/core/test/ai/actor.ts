/** Candidates that say their lines, and remember what they were asked. */
import { Effect, Stream } from "effect"
import type { LanguageModel, Response } from "effect/ai"
import { LanguageModelFace, type LlmError, Provider } from "@understudy/core"

type Answer = LanguageModelFace.Answer
type Part = LanguageModelFace.Part
type Request = LanguageModelFace.Request

/** The n-th line, counted from 1. */
export type Script<E> = (request: Request, attempt: number) => Effect.Effect<Answer, E>

export interface Actor<E> {
  readonly provider: Provider.Provider<LanguageModelFace.LanguageModelFace, E | LlmError.ProviderFailure>
  readonly requests: Array<Request>
}

/** A candidate whose streams are its answers, part by part. */
export const actor = <E = never>(name: string, script: Script<E>): Actor<E> => {
  const requests: Array<Request> = []
  const play = (request: Request) => Effect.suspend(() => script(request, requests.push(request)))
  return {
    requests,
    provider: Provider.make<LanguageModelFace.LanguageModelFace, E>({
      name,
      model: `${name}-1`,
      face: LanguageModelFace.languageModelFace,
      generate: play,
      stream: (request) =>
        Stream.fromIterableEffect(Effect.map(play(request), (answer) => answer.flatMap(streamed))).pipe(
          Stream.rechunk(1),
        ),
    }),
  }
}

const streamed = (part: Answer[number], index: number): ReadonlyArray<Part> => {
  const id = String(index)
  switch (part.type) {
    case "text":
      return [
        { type: "text-start", id, metadata: part.metadata },
        { type: "text-delta", id, delta: part.text },
        { type: "text-end", id },
      ]
    case "reasoning":
      return [
        { type: "reasoning-start", id },
        { type: "reasoning-delta", id, delta: part.text },
        { type: "reasoning-end", id, metadata: part.metadata },
      ]
    default:
      return [part]
  }
}

export const finish = (reason: Response.FinishReason = "stop"): Response.FinishPartEncoded => ({
  type: "finish",
  reason,
  usage: { inputTokens: { total: 3 }, outputTokens: { total: 5 } },
})

export const text = (text: string, metadata: Response.ProviderMetadata = {}): Response.TextPartEncoded => ({
  type: "text",
  text,
  metadata,
})

export const call = (
  name: string,
  params: unknown,
  id = `${name}-id`,
  metadata: Response.ProviderMetadata = {},
): Response.ToolCallPartEncoded => ({ type: "tool-call", id, name, params, metadata })

/** An answer of one text. */
export const says = (words: string): Effect.Effect<Answer> => Effect.succeed([text(words), finish()])

/** An answer that calls tools. */
export const calls = (...parts: ReadonlyArray<Response.ToolCallPartEncoded>): Effect.Effect<Answer> =>
  Effect.succeed([...parts, finish("tool-calls")])

/** Everything that a model of `effect/ai` says, as text. */
export const spoken = (parts: Iterable<{ readonly type: string }>): string => {
  let out = ""
  for (const part of parts) {
    if (part.type === "text" && "text" in part) out += part.text
    if (part.type === "text-delta" && "delta" in part) out += part.delta
  }
  return out
}

export type Model = LanguageModel.LanguageModel
