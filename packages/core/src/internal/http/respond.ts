/**
 * Responses of `effect/http` for failures. Failures answer by this as
 * respondables, so it is loaded when the first of them does, and not before.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { HttpServerRequest } from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import type { LlmError } from "../llmError.ts"
import { answerAndLine, type HttpErrorResponse, type Settings } from "./answer.ts"
import { factsOf } from "./requestFacts.ts"
import { answeringNow, write } from "./settings.ts"

/** A response as `effect/http` has it. */
export const toServerResponse = ({ body, headers, status }: HttpErrorResponse): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.jsonUnsafe(body, { status, headers, contentType: headers["content-type"] })

/** The response to a failure, for the request that is being answered, and its line in the log. */
export const respond = (
  failure: LlmError,
  settings: Settings = {},
): Effect.Effect<HttpServerResponse.HttpServerResponse> =>
  Effect.gen(function* () {
    const all = yield* answeringNow(settings)
    const request = yield* Effect.contextWith((context: Context.Context<never>) =>
      Effect.succeed(Context.getOrUndefined(context, HttpServerRequest)),
    )
    const facts = factsOf(request, all.requestIdHeader)
    const { line, response } = answerAndLine(failure, all, facts)
    yield* write(line)
    return toServerResponse(response)
  })
