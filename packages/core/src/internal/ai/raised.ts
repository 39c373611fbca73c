/** What a service of `effect/ai` raised, as the failure of one provider. */
import * as AiError from "effect/ai/AiError"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { asProviderFailure, fromAiError } from "../../AiFailure.ts"
import * as Classifier from "../../Classifier.ts"
import { isLlmError, type ProviderFailure } from "../llmError.ts"

/** Fails with the failure that an error is, whatever it is. */
export const providerFailure =
  (who: { readonly provider: string; readonly model: string }) =>
  (error: unknown): Effect.Effect<never, ProviderFailure> =>
    Effect.gen(function* () {
      const subject = { ...who, now: yield* Clock.currentTimeMillis }
      if (isLlmError(error)) return yield* Effect.fail(asProviderFailure(error, subject))
      if (AiError.isAiError(error) || AiError.isAiErrorReason(error)) {
        return yield* Effect.fail(asProviderFailure(fromAiError(error, subject), subject))
      }
      const classifier = yield* Classifier.Current
      return yield* Effect.fail(classifier.classify({ where: "network", error }, subject))
    })
