/** The surroundings of a call: what its caller had around it when it began. */
import type * as Context from "effect/Context"
import * as Fiber from "effect/Fiber"

/** Those of the fiber that tells the event; outside of any, the other ones. */
export const around = (otherwise: Context.Context<never>): Context.Context<never> =>
  Fiber.getCurrent()?.context ?? otherwise
