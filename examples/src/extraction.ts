/**
 * An object out of a text, with every failure in the type.
 *
 * `TypedLanguageModel` has the methods of `effect/ai`'s `LanguageModel`, and the
 * exact failures in the error channel. Handle one and it leaves the type; the
 * compiler names those that remain.
 *
 * Four mails come in. One is fine, one is too long, one is answered with
 * something that is no invoice at first and is asked about again, and one meets
 * a bad day of all providers.
 */
import { NodeHttpClient } from "@effect/platform-node"
import { type LlmError, PolicyEvent, TypedLanguageModel, Understudy } from "@understudy/core"
import { AnthropicMessages, OpenAiChat } from "@understudy/providers"
import { Upstream } from "@understudy/testkit"
import { Console, DateTime, Effect, Redacted, Schema } from "effect"

// ---------------------------------------------------------------------------
// 1. What we want
// ---------------------------------------------------------------------------

const Invoice = Schema.Struct({
  number: Schema.String,
  // The model writes "2026-03-01", the program gets a DateTime.
  due: Schema.DateTimeUtcFromString,
  euros: Schema.Finite,
})

// ---------------------------------------------------------------------------
// 2. The model: what a composition leaves is in its type
// ---------------------------------------------------------------------------

// These six leave `Understudy.make` for language models. The methods of the
// typed model add what `effect/ai` itself raises: InvalidResponse, InvalidRequest
// and UnknownFailure.
class Model extends TypedLanguageModel.Service<
  Model,
  | LlmError.AllProvidersFailed
  | LlmError.ContentFiltered
  | LlmError.ContextLengthExceeded
  | LlmError.DeadlineExceeded
  | LlmError.InvalidRequest
  | LlmError.InvalidResponse
>()("examples/Model") {}

// ---------------------------------------------------------------------------
// 3. The strategies that only the program knows
// ---------------------------------------------------------------------------

const ask = (mail: string) =>
  Effect.gen(function* () {
    const model = yield* Model
    const { value } = yield* model.generateObject({ prompt: `Read this invoice:\n\n${mail}`, schema: Invoice })
    return value
  })

/**
 * Too long: shorten it. An answer that is no invoice is asked for again by the
 * composition, and only when that is of no use it is InvalidResponse. What is
 * left is exactly what the type says; try to remove a tag from it.
 */
const extract = (
  mail: string,
): Effect.Effect<
  typeof Invoice.Type | undefined,
  LlmError.AllProvidersFailed | LlmError.DeadlineExceeded | LlmError.UnknownFailure,
  Model
> =>
  ask(mail).pipe(
    Effect.catchTag("ContextLengthExceeded", (failure) =>
      Console.log(`  too long for ${failure.provider}: asking with the first 100 characters`).pipe(
        Effect.andThen(ask(mail.slice(0, 100))),
      ),
    ),
    Effect.catchTags({
      // Twice is enough.
      ContextLengthExceeded: () => Effect.succeed(undefined),
      // A person must look at these.
      InvalidResponse: () => Effect.succeed(undefined),
      ContentFiltered: () => Effect.succeed(undefined),
      // A bug of ours, the schema perhaps.
      InvalidRequest: (failure) => Effect.die(failure),
    }),
  )

/** Tells of answers that were refused. */
const tell: PolicyEvent.Observer = (event) => {
  if (event.event === "AnswerRejected") console.log(`  ${event.reason}${event.again ? ": asked again" : ""}`)
}

/** At the edge of the program nothing may be left: `never`. */
const read = (subject: string, mail: string): Effect.Effect<void, never, Model> =>
  Console.log(subject).pipe(
    Effect.andThen(extract(mail)),
    Effect.flatMap((invoice) =>
      Console.log(
        invoice === undefined
          ? "  for a person to read"
          : `  ${invoice.number}: ${invoice.euros} EUR, due ${DateTime.formatIsoDate(invoice.due)}`,
      ),
    ),
    Effect.catchTags({
      AllProvidersFailed: (failure) => Console.log(`  later: ${failure.failures.map((f) => f._tag).join(", ")}`),
      DeadlineExceeded: () => Console.log("  later: it took too long"),
      UnknownFailure: () => Console.log("  later: something new"),
    }),
    PolicyEvent.observe(tell),
  )

// ---------------------------------------------------------------------------
// 4. The providers
// ---------------------------------------------------------------------------

const invoice = (number: string, euros: number) =>
  Upstream.answer(JSON.stringify({ number, due: "2026-03-01T00:00:00.000Z", euros }))

const tooLong = Upstream.status(400, {
  body: { error: { message: "maximum context length is 8192 tokens", code: "context_length_exceeded" } },
})

const program = Effect.gen(function* () {
  const first = yield* Upstream.make({
    script: {
      steps: [
        invoice("A-1", 120),
        tooLong,
        invoice("A-2", 90.5),
        Upstream.answer("There is no invoice in this mail."),
        invoice("A-3", 12),
        // An outage, which is asked about twice.
        Upstream.status(500),
      ],
      then: "repeat",
    },
  })
  // The second provider has a small model too, and no credit.
  const second = yield* Upstream.make({
    script: {
      steps: [Upstream.status(429, { body: { error: { message: "No credit", code: "insufficient_quota" } } })],
      then: "repeat",
    },
  })
  const apiKey = Redacted.make("sk-any")
  const provider = Understudy.make({
    name: "the reader",
    candidates: [
      {
        provider: OpenAiChat.make({ name: "first", model: "gpt-5.6-terra", apiKey, baseUrl: first.openaiUrl }),
        contextWindow: 8192,
      },
      {
        provider: AnthropicMessages.make({
          name: "second",
          model: "claude-sonnet-5-5",
          apiKey,
          baseUrl: second.anthropicUrl,
        }),
        // Not larger than the first one's: it is not asked when the mail is too long.
        contextWindow: 8192,
        priority: 1,
      },
    ],
    retry: { base: "20 millis" },
  })

  yield* Effect.gen(function* () {
    yield* read("A short mail", "Invoice A-1 …")
    yield* read("A long mail", `Invoice A-2 …${"and so on ".repeat(5000)}`)
    yield* read("A greeting card", "Happy birthday! Invoice A-3 …")
    yield* read("A bad day", "Invoice A-4 …")
    // `Model.layer` takes every provider that leaves no failures but those of the service.
  }).pipe(Effect.provide(Model.layer(provider)))
})

await program.pipe(Effect.scoped, Effect.provide([Understudy.layer, NodeHttpClient.layerUndici]), Effect.runPromise)
