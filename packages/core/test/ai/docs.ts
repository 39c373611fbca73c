/**
 * Stands in for the provider packages that the examples of the documentation of
 * `effect/ai` import: their models are compositions, whose lead always fails.
 */
import { type Config, Context, Effect, Layer, type Redacted, Schema } from "effect"
import { Tool } from "effect/ai"
import type { HttpClient } from "effect/http"
import { LanguageModelLayer, LlmError, Understudy } from "@understudy/core"
import { type Actor, actor, call, finish, text } from "./actor.ts"

interface Options {
  readonly apiKey: Config.Config<Redacted.Redacted<string>>
}

// As the packages do, they ask for a client, which is not used here.
const connected = ({ apiKey }: Options) => Effect.andThen(Effect.context<HttpClient.HttpClient>(), apiKey)

class OpenAi extends Context.Service<OpenAi, Redacted.Redacted<string>>()("test/OpenAi") {}
class Anthropic extends Context.Service<Anthropic, Redacted.Redacted<string>>()("test/Anthropic") {}

export const OpenAiClient = {
  layerConfig: (options: Options) => Layer.merge(Layer.effect(OpenAi)(connected(options)), Understudy.layer),
}
export const AnthropicClient = {
  layerConfig: (options: Options) => Layer.merge(Layer.effect(Anthropic)(connected(options)), Understudy.layer),
}

const plan = {
  audience: "developers",
  channels: ["blog"],
  launchDate: "soon",
  summary: "It is good.",
  keyRisks: ["none"],
}

/** What was asked, of whom. */
export const stage: { leads: Array<Actor<LlmError.Overloaded>>; understudies: Array<Actor<never>> } = {
  leads: [],
  understudies: [],
}

const model = (name: string) => {
  const lead = actor(`${name}-lead`, () => Effect.fail(new LlmError.Overloaded({ provider: `${name}-lead` })))
  const understudy = actor(name, ({ prompt, responseFormat, tools }) => {
    if (responseFormat.type === "json") return Effect.succeed([text(JSON.stringify(plan)), finish()])
    const last = prompt.content.at(-1)
    if (tools.some((tool) => tool.name === "SearchProducts") && last?.role === "user") {
      return Effect.succeed([
        call("SearchProducts", { query: "chairs" }),
        call("GetInventory", { productId: "p-1" }),
        finish("tool-calls"),
      ])
    }
    if (tools.some((tool) => tool.name === "getCurrentTime") && last?.role === "user") {
      return Effect.succeed([call("getCurrentTime", { id: "t" }), finish("tool-calls")])
    }
    return Effect.succeed([text(`an answer to ${prompt.content.length} messages`), finish()])
  })
  stage.leads.push(lead)
  stage.understudies.push(understudy)
  return LanguageModelLayer.layer(
    Understudy.make({
      name,
      candidates: [{ provider: lead.provider }, { provider: understudy.provider, priority: 1 }],
    }),
  )
}

export const OpenAiLanguageModel = { model }
export const AnthropicLanguageModel = { model }

export const OpenAiTool = {
  WebSearch: Tool.providerDefined({
    id: "openai.web_search",
    customName: "OpenAiWebSearch",
    providerName: "web_search",
    args: Schema.Struct({ search_context_size: Schema.String }),
    success: Schema.Struct({ results: Schema.Array(Schema.String) }),
  }),
}
