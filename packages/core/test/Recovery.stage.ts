/** Providers that remember which prompts they were sent, for tests of what is changed in them. */
import { Effect, Stream } from "effect"
import type { Prompt } from "effect/ai"
import { type LanguageModelFace, LlmError, Provider } from "@understudy/core"
import { face, type Kind, type LM, type Reply, textOf } from "./stub.ts"

type Request = LanguageModelFace.Request

/** A provider that does what it is told about each request, and keeps them. */
export const model = <E extends LlmError.LlmError = LlmError.ProviderFailure>(
  name: string,
  reply: (request: Request, attempt: number) => Reply<E>,
) => {
  const requests: Array<Request> = []
  const provider = Provider.make<LM, E>({
    name,
    model: `${name}-1`,
    face,
    generate: (request) => Effect.suspend(() => reply(request, requests.push(request)).whole),
    stream: (request) => Stream.suspend(() => reply(request, requests.push(request)).parts),
  })
  return { provider, requests, prompts: () => requests.map(({ prompt }) => shown(prompt)) }
}

/** A prompt, one line a message, as far as tests look at it. */
export const shown = (prompt: Prompt.Prompt): ReadonlyArray<string> =>
  prompt.content.map((message) =>
    message.role === "system"
      ? `system: ${message.content}`
      : `${message.role}: ${message.content.map((part) => shownPart(part)).join(" | ")}`,
  )

const shownPart = (part: Prompt.Part): string => {
  switch (part.type) {
    case "text":
    case "reasoning":
      return part.text
    case "tool-call":
      return `calls ${part.id}`
    case "tool-result":
      return `${part.id} gave ${typeof part.result === "string" ? part.result : JSON.stringify(part.result)}`
    default:
      return part.type
  }
}

/** Asks for an answer, or for a stream, and gives its text. */
export const asks = <E, R>(
  kind: Kind,
  provider: Provider.Provider<LM, E, R>,
  request: Request,
): Effect.Effect<string, E | LlmError.StreamInterrupted, R> =>
  kind === "generate"
    ? Effect.map(provider.generate(request), textOf)
    : Effect.map(Stream.runCollect(provider.stream(request)), textOf)

/** A refusal of a provider. */
export const refusal = (
  provider: string,
  fields: Partial<Pick<LlmError.ContentFiltered, "stage" | "categories" | "named">> = {},
) => new LlmError.ContentFiltered({ provider, model: `${provider}-1`, stage: "prompt", ...fields })

/** It is too long for a provider. */
export const tooLong = (
  provider: string,
  fields: Partial<Pick<LlmError.ContextLengthExceeded, "limit" | "requested" | "detail">> = {},
) => new LlmError.ContextLengthExceeded({ provider, model: `${provider}-1`, ...fields })
