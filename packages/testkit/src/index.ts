/**
 * Tools to test programs that call LLM providers.
 */

/** A fault-injecting provider over real HTTP. */
export * as Upstream from "./Upstream.ts"
