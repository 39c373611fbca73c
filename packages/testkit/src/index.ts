/**
 * Tools to test programs that call LLM providers.
 */

/** Laws for circuit breakers. */
export * as BreakerLaws from "./BreakerLaws.ts"
/** A provider for tests, on virtual time. */
export * as FakeProvider from "./FakeProvider.ts"
/** Laws for retry schedules. */
export * as ScheduleLaws from "./ScheduleLaws.ts"
/** A fault-injecting provider over real HTTP. */
export * as Upstream from "./Upstream.ts"
/** The contract of every adapter, as laws. */
export * as ProviderLaws from "./ProviderLaws.ts"
