/**
 * What one attempt is asked with, whatever carries it: the classifier, the key
 * and the parameters that hold for it alone, and the failures of its making.
 */
import * as Call from "@understudy/core/Call"
import * as Classifier from "@understudy/core/Classifier"
import * as LlmError from "@understudy/core/LlmError"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import { Unsupported } from "./unsupported.ts"

/** Who is asked, and with what by default. */
export interface Candidate {
  readonly name: string
  readonly model: string
  /** The dialect for the classifier, where it is known better than by the provider's name. */
  readonly dialect: string | undefined
  readonly apiKey: Redacted.Redacted<string> | undefined
  readonly parameters: Call.Parameters | undefined
}

/** What holds for one attempt alone. */
export interface Asked {
  readonly classifier: Classifier.Classifier
  readonly subject: Classifier.Subject & { readonly model: string }
  readonly key: string | undefined
  readonly parameters: Call.Parameters
  /** Milliseconds since 1970. */
  readonly now: number
  /** For ids of tool calls that the provider gives none. */
  readonly seed: string
}

/** Reads what the caller overrides. Fails, before any network, with a key that no header can carry. */
export const begin = (candidate: Candidate): Effect.Effect<Asked, LlmError.AuthenticationFailed> =>
  Effect.gen(function* () {
    const overrides = yield* Call.CurrentOverrides
    const classifier = yield* Classifier.Current
    const now = yield* Clock.currentTimeMillis
    const seed = yield* Random.nextIntBetween(0, 36 ** 6)
    const { dialect, model, name } = candidate
    const own = Call.credentialFor(overrides, name)
    const credential = own === undefined ? "operator" : "call"
    const secret = own ?? candidate.apiKey
    const key = secret === undefined ? undefined : Redacted.value(secret).trim()
    if (key !== undefined && !/^[\x21-\x7e]+$/.test(key)) {
      return yield* new LlmError.AuthenticationFailed({
        provider: name,
        model,
        credential,
        detail: key === "" ? "The key is empty." : "The key holds characters that no header can carry.",
      })
    }
    return {
      classifier,
      subject: { provider: name, model, credential, now, ...(dialect === undefined ? {} : { dialect }) },
      key,
      parameters: Call.mergeParameters(candidate.parameters, overrides.parameters) ?? {},
      now,
      seed: seed.toString(36),
    }
  })

/** Builds a request. What cannot be said to this provider is `InvalidRequest`. */
export const build = <A>(asked: Asked, request: () => A): Effect.Effect<A, LlmError.InvalidRequest> =>
  Effect.suspend(() => {
    try {
      return Effect.succeed(request())
    } catch (cause) {
      const detail =
        cause instanceof Unsupported ? cause.detail : "The request holds something that cannot be written as JSON."
      return Effect.fail(LlmError.withEvidence(new LlmError.InvalidRequest({ ...who(asked), detail }), { cause }))
    }
  })

/** A failure's fields that say who. */
export const who = ({ subject }: Asked): { readonly provider: string; readonly model: string } => ({
  provider: subject.provider,
  model: subject.model,
})

/** An answer that is none (`protocol`), or not the one asked for (`content`). */
export const invalid = (
  asked: Asked,
  kind: "protocol" | "content",
  detail: string,
  providerMessage?: string,
): LlmError.InvalidResponse =>
  LlmError.withEvidence(new LlmError.InvalidResponse({ ...who(asked), kind, detail }), {
    providerMessage: providerMessage === undefined ? undefined : scrubbed(asked, providerMessage),
  })

/** The text of a provider without the key that it may quote. */
export const scrubbed = ({ key }: Asked, text: string): string =>
  key === undefined || key.length < 6 ? text : text.replaceAll(key, "<redacted>")
