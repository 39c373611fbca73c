/** Options of circuit breakers, as types. */
import { CircuitBreaker, type Understudy } from "@understudy/core"
import { type Duration, type Effect, type Layer, Schedule } from "effect"
import { same } from "./same.ts"

// Plain data fits both the policy and the preset.
const options = {
  trip: [
    { on: "failure rate", rate: 0.5, within: "30 seconds", minimum: 20 },
    { on: "slow rate", slow: "10 seconds", rate: 0.5, of: 20 },
  ],
  openFor: { base: "10 seconds", factor: 2, cap: "5 minutes", jitter: 0.2 },
  verdict: { rate: 0.5, of: 4 },
  excess: { wait: "5 seconds", waiters: 10 },
  account: "main",
} satisfies CircuitBreaker.Options
export const policy = CircuitBreaker.with(options)
export const policies = { breaker: options } satisfies Understudy.Policies

// @ts-expect-error -- a window is of so many calls, or of so long
export const windowless = CircuitBreaker.with({ trip: { on: "failure rate", rate: 0.5 } })
// @ts-expect-error -- a share of failures has no number of them
export const both = CircuitBreaker.with({ trip: { on: "failure rate", failures: 3, of: 5 } })
// @ts-expect-error -- a verdict is of so many probes
export const endless = CircuitBreaker.with({ verdict: { successes: 3 } })
// @ts-expect-error -- a misspelt option
export const misspelt = CircuitBreaker.with({ falures: 3 })

// A schedule is for code, and no part of what a configuration file says.
export const scheduled = CircuitBreaker.with({ schedule: Schedule.exponential("1 second") })
// @ts-expect-error -- it is not plain data
export const configured = { breaker: { schedule: Schedule.exponential("1 second") } } satisfies Understudy.Policies

declare const circuits: CircuitBreaker.Circuits["Service"]
same<ReturnType<typeof circuits.isolate>, Effect.Effect<CircuitBreaker.Status>>(true)
same<typeof circuits.status, Effect.Effect<ReadonlyArray<CircuitBreaker.Status>>>(true)
same<CircuitBreaker.Status["retryAfter"], Duration.Duration | undefined>(true)
same<ReturnType<typeof CircuitBreaker.layerWith>, Layer.Layer<CircuitBreaker.Circuits>>(true)
