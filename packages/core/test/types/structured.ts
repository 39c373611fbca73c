/** What asking for a value leaves in the type. */
import { Context, Effect, Schema } from "effect"
import { type LanguageModelFace, type LlmError, type Provider, StructuredOutput, Understudy } from "@understudy/core"
import { same } from "./same.ts"

type Model<E, R = never> = Provider.Provider<LanguageModelFace.LanguageModelFace, E, R>

declare const model: Model<LlmError.RateLimited | LlmError.InvalidRequest, "client">

const Order = Schema.Struct({ item: Schema.String, at: Schema.DateTimeUtcFromString })
class Stock extends Context.Service<Stock, { readonly of: (item: string) => Effect.Effect<number, "down"> }>()(
  "Stock",
) {}

// The policy adds InvalidResponse and what the observer needs, and nothing else.
const judged = model.pipe(StructuredOutput.with())
same<Provider.ErrorOf<typeof judged>, LlmError.RateLimited | LlmError.InvalidRequest | LlmError.InvalidResponse>(true)
same<Provider.ServicesOf<typeof judged>, "client">(true)
const observed = model.pipe(StructuredOutput.with({ onInvalid: () => Effect.asVoid(Stock) }))
same<Provider.ServicesOf<typeof observed>, "client" | Stock>(true)

// A value has the type of its schema.
const plain = StructuredOutput.generate(model, { prompt: "Tea.", schema: Order })
same<Effect.Success<typeof plain>["value"], typeof Order.Type>(true)
same<Effect.Error<typeof plain>, LlmError.RateLimited | LlmError.InvalidRequest | LlmError.InvalidResponse>(true)
same<Effect.Services<typeof plain>, "client">(true)

// The failures and services of checks and fixes are added, whatever the checks are.
const checked = StructuredOutput.generate(model, {
  prompt: "Tea.",
  schema: Order,
  checks: [
    { name: "named", run: ({ item }) => (item === "" ? "a name" : undefined) },
    {
      name: "in stock",
      run: ({ item }) =>
        Effect.flatMap(Stock, (stock) => Effect.map(stock.of(item), (n) => (n > 0 ? [] : ["something in stock"]))),
      otherwise: "drop",
    },
    { name: "late", run: ({ at }, { last }) => (last ? [] : Effect.fail({ _tag: "Late" as const, at })) },
    { name: "fixed", run: () => "a fix", otherwise: (order) => Effect.as(Effect.fail("no fix" as const), order) },
    StructuredOutput.check("built", () => Effect.fail("built" as const)),
  ],
})
same<
  Effect.Error<typeof checked>,
  | LlmError.RateLimited
  | LlmError.InvalidRequest
  | LlmError.InvalidResponse
  | "down"
  | { _tag: "Late"; at: typeof Order.Type.at }
  | "no fix"
  | "built"
>(true)
same<Effect.Services<typeof checked>, "client" | Stock>(true)

export const wrong = StructuredOutput.generate(model, {
  prompt: "Tea.",
  schema: Order,
  // @ts-expect-error -- no such field in the value
  checks: [{ name: "wrong", run: (order) => order.count }],
})

export const misfixed = StructuredOutput.generate(model, {
  prompt: "Tea.",
  schema: Order,
  // @ts-expect-error -- a fix makes a value of the schema
  checks: [{ name: "wrong", run: () => "a fix", otherwise: () => ({ item: "tea" }) }],
})

// A schema that needs services cannot be judged at once.
declare const needy: Schema.Codec<string, string, Stock>
// @ts-expect-error -- it decodes without services
export const served = StructuredOutput.generate(model, { prompt: "Tea.", schema: needy })

// The preset says it, too.
const preset = Understudy.make({ candidates: [{ provider: model }] })
same<
  Provider.ErrorOf<typeof preset>,
  LlmError.AllProvidersFailed | LlmError.DeadlineExceeded | LlmError.InvalidRequest | LlmError.InvalidResponse
>(true)
