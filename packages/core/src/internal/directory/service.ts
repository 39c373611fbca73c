/** The service that holds what is known of candidates. Its public module is `Directory`. */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Composition, Declared, Plan } from "./compositions.ts"
import type { Settings } from "./settings.ts"
import type { Status } from "./status.ts"

/** So many names are told to whoever misspelt one. */
const told = 20

const list = (names: ReadonlyArray<string>): string =>
  names.length === 0
    ? "None is known yet."
    : `Known: ${names.slice(0, told).join(", ")}${names.length > told ? ", and others" : ""}.`

/** No composition of this name has been asked or registered. */
export class UnknownComposition extends Schema.TaggedError<UnknownComposition>(
  "@understudy/core/Directory/UnknownComposition",
)("UnknownComposition", { composition: Schema.String, known: Schema.Array(Schema.String) }, { httpApiStatus: 404 }) {
  override get message(): string {
    return `No composition is named ${JSON.stringify(this.composition)}. ${list(this.known)}`
  }
}

/** The composition has no candidate of this name. */
export class UnknownCandidate extends Schema.TaggedError<UnknownCandidate>(
  "@understudy/core/Directory/UnknownCandidate",
)(
  "UnknownCandidate",
  { composition: Schema.String, candidate: Schema.String, known: Schema.Array(Schema.String) },
  { httpApiStatus: 404 },
) {
  override get message(): string {
    return `${JSON.stringify(this.composition)} has no candidate named ${JSON.stringify(this.candidate)}. ${list(this.known)}`
  }
}

/** A name that is not known. */
export type Unknown = UnknownComposition | UnknownCandidate

/**
 * What is known of the candidates of a process, by composition and name. `Failover` and the preset look here, where there
 * is one.
 */
export class Directory extends Context.Service<
  Directory,
  {
    /** All candidates of all compositions that were asked or registered. */
    readonly status: Effect.Effect<ReadonlyArray<Status>>
    /** Sets something of a candidate, over what was declared; what is not said stays. */
    readonly update: (composition: string, candidate: string, settings: Settings) => Effect.Effect<Status, Unknown>
    /** Takes back what was set, of one candidate or of all in a composition. */
    readonly reset: (composition: string, candidate?: string) => Effect.Effect<ReadonlyArray<Status>, Unknown>
    /** This and nothing else is set from here on, of all candidates; or, when a name is not known, nothing changes. */
    readonly replaceAll: (settings: Plan) => Effect.Effect<void, Unknown>
    /** @internal A composition comes in. Synchronous, since it is on the way of a call. */
    readonly enter: (name: string, declared: ReadonlyArray<Declared>, decay: number, now: number) => Composition
    /** @internal A composition takes the place of the one of its name. */
    readonly replace: (name: string, declared: ReadonlyArray<Declared>, decay: number) => Effect.Effect<void>
  }
>()("@understudy/core/Directory") {}
