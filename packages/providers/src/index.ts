/**
 * Adapters: LLM providers as `Provider`s of `@understudy/core`.
 */

/** Language models of the AI SDK. */
export * as AiSdkModel from "./AiSdkModel.ts"
/** The Anthropic messages API. */
export * as AnthropicMessages from "./AnthropicMessages.ts"
/** The OpenAI chat completions API, and everything that speaks it. */
export * as OpenAiChat from "./OpenAiChat.ts"
/** In which points servers that speak chat completions differ. */
export * as OpenAiDialect from "./OpenAiDialect.ts"
/** Providers from a configuration file or the environment. */
export * as ProviderConfig from "./ProviderConfig.ts"
/** A composition that is made anew when its configuration file changes. */
export * as WatchedConfig from "./WatchedConfig.ts"
