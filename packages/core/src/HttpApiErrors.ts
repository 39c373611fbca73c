/**
 * Failures as the errors of endpoints of `effect/http-api`: declared with their
 * statuses, sent as the public body, and decoded back to failures by the typed
 * client.
 *
 * A handler fails with the failures that it has, and a client that is derived
 * from the same API gets failures with the same tags, `retryable` and
 * `retryAfter`: it can `catchTag` them, and give them to `Retry` and the other
 * policies.
 *
 * **Details**
 *
 * - The body is that of `HttpErrorResponse`. No provider, model or request
 *   identifier of a provider goes over the wire, so on the client's side the
 *   provider is `service`, and what the service wrote is in `providerMessage`.
 * - The failure answers for itself, as a respondable: with `Retry-After`, problem
 *   details where they are asked for, the table and settings of the layers
 *   around the server, and one line in the log.
 * - `UnknownFailure` is always among the errors: it is what a client reads of a
 *   500, whatever it was.
 * - Where a status depends on the failure, it is declared for all it can have:
 *   `AllProvidersFailed` for the statuses of those that it can hold.
 *
 * **Gotchas**
 *
 * - Statuses are declared when the API is. If the server overrides the table
 *   (`FailureMode.operatorOwned`), give the same overrides here.
 * - An endpoint that fails with `AiError` is mapped first:
 *   `Effect.mapError((error) => AiFailure.fromAiError(error))`.
 *
 * **Example** (An endpoint)
 *
 * ```ts
 * import { HttpApiErrors } from "@understudy/core"
 * import { Schema } from "effect"
 * import { HttpApiEndpoint } from "effect/http-api"
 *
 * export const ask = HttpApiEndpoint.post("ask", "/ask", {
 *   payload: Schema.Struct({ question: Schema.String }),
 *   success: Schema.Struct({ answer: Schema.String }),
 *   error: HttpApiErrors.errors(["AllProvidersFailed", "DeadlineExceeded", "ContentFiltered"]),
 * })
 * ```
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpApiSchema from "effect/http-api/HttpApiSchema"
import { HttpServerRequest } from "effect/http/HttpServerRequest"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaTransformation from "effect/SchemaTransformation"
import * as FailureMode from "./FailureMode.ts"
import { answering, type Body, publicError, Settings } from "./internal/http/answer.ts"
import { type ErrorType, statusOf, types } from "./internal/http/publicError.ts"
import { checked } from "./internal/options.ts"
import {
  AllProvidersFailed,
  AuthenticationFailed,
  CapacityExceeded,
  CircuitOpen,
  ConnectionFailed,
  ContentFiltered,
  ContextLengthExceeded,
  DeadlineExceeded,
  InvalidRequest,
  InvalidResponse,
  LlmError,
  ModelNotFound,
  Overloaded,
  PermissionDenied,
  ProviderUnavailable,
  QuotaExhausted,
  RateLimited,
  StreamInterrupted,
  type Tag,
  tags as allTags,
  TimedOut,
  UnknownFailure,
  withEvidence,
  type WithTag,
} from "./internal/llmError.ts"

/** How errors are declared. */
export const Options = Schema.Struct({
  /** The overrides of the table that the server uses, `FailureMode.operatorOwned` for example. Default: none. */
  failureModes: Settings.fields.failureModes,
  /** The provider's name in the failures that a client decodes. Default `service`. */
  provider: Schema.optional(Schema.String),
})

/** How errors are declared. */
export interface Options extends Schema.Schema.Type<typeof Options> {}

/** The failures of these tags over the wire. `UnknownFailure` is always among them. */
export interface Errors<T extends Tag> extends Schema.Codec<WithTag<T> | UnknownFailure, Body> {}

// ---------------------------------------------------------------------------
// Statuses
// ---------------------------------------------------------------------------

/** All statuses that failures of a tag can have by this table, as far as a table tells. */
const statusesOf = (tag: Tag, modes: FailureMode.Table): ReadonlyArray<number> => {
  const cell = modes[tag].http
  if (typeof cell === "number") return [cell]
  const usual = FailureMode.table[tag].http
  // A function instead of a number: `FailureMode.operatorOwned`, or one like it.
  if (typeof usual === "number") return [usual, 500]
  // A failure that holds others: theirs when they are alike.
  const inside = allTags.filter((other) => other !== tag && FailureMode.table[other].leaves === "inside")
  return [503, ...inside.flatMap((other) => statusesOf(other, modes))]
}

/** The tags by the statuses that their failures can have. */
const byStatus = (tags: ReadonlyArray<Tag>, modes: FailureMode.Table): ReadonlyMap<number, ReadonlySet<Tag>> => {
  const found = new Map<number, Set<Tag>>()
  const add = (tag: Tag, status: number): void => {
    const group = found.get(status) ?? new Set()
    found.set(status, group.add(tag))
  }
  for (const tag of tags) for (const status of statusesOf(tag, modes)) add(tag, status)
  // Whatever else fails on the server is a 500.
  add("UnknownFailure", 500)
  return found
}

// ---------------------------------------------------------------------------
// From the wire
// ---------------------------------------------------------------------------

interface Said {
  readonly provider: string
  readonly status?: number
  readonly retryable: boolean
  readonly retryAfter?: Duration.Duration
  readonly requestId?: string
}

/** The failures as they are seen from the other side of the wire. */
const rebuilt: { readonly [T in Tag]: (said: Said) => WithTag<T> } = {
  RateLimited: (said) => new RateLimited(said),
  QuotaExhausted: (said) => new QuotaExhausted(said),
  Overloaded: (said) => new Overloaded(said),
  ProviderUnavailable: (said) => new ProviderUnavailable(said),
  ConnectionFailed: (said) => new ConnectionFailed(said),
  TimedOut: (said) => new TimedOut({ ...said, phase: "provider" }),
  DeadlineExceeded: (said) => new DeadlineExceeded(said),
  StreamInterrupted: (said) => new StreamInterrupted({ ...said, committed: said.status === undefined }),
  InvalidResponse: (said) => new InvalidResponse(said),
  ContentFiltered: (said) => new ContentFiltered(said),
  ContextLengthExceeded: (said) => new ContextLengthExceeded(said),
  AuthenticationFailed: (said) => new AuthenticationFailed(said),
  PermissionDenied: (said) => new PermissionDenied(said),
  ModelNotFound: (said) => new ModelNotFound(said),
  InvalidRequest: (said) => new InvalidRequest(said),
  UnknownFailure: (said) => new UnknownFailure(said),
  CircuitOpen: (said) => new CircuitOpen(said),
  CapacityExceeded: (said) => new CapacityExceeded(said),
  AllProvidersFailed: (said) => new AllProvidersFailed({ ...said, failures: [] }),
}

const tagOf = (type: ErrorType): Tag => allTags.find((tag) => types[tag] === type) ?? "UnknownFailure"

/** The failure that a body is. */
const fromBody = ({ error }: Body, group: ReadonlySet<Tag>, provider: string, status: number | undefined): LlmError => {
  const { message, request_id, retry_after, retryable, type } = error
  const said: Said = {
    provider,
    retryable,
    ...(status === undefined ? {} : { status }),
    ...(retry_after === undefined ? {} : { retryAfter: Duration.seconds(retry_after) }),
    ...(request_id === undefined ? {} : { requestId: request_id }),
  }
  const tag = tagOf(type)
  const failure =
    group.has(tag) || !group.has("AllProvidersFailed")
      ? rebuilt[tag](said)
      : // All attempts failed alike, and their failure spoke for them.
        new AllProvidersFailed({ ...said, failures: [rebuilt[tag](said)] })
  return withEvidence(failure, { providerMessage: message })
}

// ---------------------------------------------------------------------------
// Schemas
// ---------------------------------------------------------------------------

const bodyOf = (types: ReadonlyArray<ErrorType>) =>
  Schema.Struct({
    error: Schema.Struct({
      type: Schema.Literals(types),
      message: Schema.String,
      retryable: Schema.Boolean,
      retry_after: Schema.optionalKey(Schema.Finite),
      request_id: Schema.optionalKey(Schema.String),
    }),
  })

/** The types that failures of these tags can have. */
const typesOf = (group: ReadonlySet<Tag>, status: number | undefined, modes: FailureMode.Table): Array<ErrorType> => {
  const spoken = new Set<Tag>(group)
  if (group.has("AllProvidersFailed")) {
    for (const tag of allTags) {
      if (FailureMode.table[tag].leaves !== "inside") continue
      if (status === undefined || statusesOf(tag, modes).includes(status)) spoken.add(tag)
    }
  }
  return [...spoken].map((tag) => types[tag])
}

const codecOf = (
  group: ReadonlySet<Tag>,
  status: number | undefined,
  modes: FailureMode.Table,
  provider: string,
): Errors<Tag> => {
  const members = LlmError.members.filter(({ fields }) => group.has(fields._tag.schema.literal))
  const all = { ...answering({}), modes }
  return bodyOf(typesOf(group, status, modes)).pipe(
    Schema.decodeTo(
      Schema.toType(Schema.Union(members)),
      SchemaTransformation.transformEffect<LlmError, Body>({
        decode: (body) => Effect.succeed(fromBody(body, group, provider, status)),
        encode: (failure, options) =>
          Effect.contextWith((context: Context.Context<never>) => {
            const refuse = (message: string) => Effect.fail(new SchemaIssue.Forbidden({ message }, failure, options))
            if (status !== undefined) {
              // In a server the failure answers for itself, as a respondable: that knows the request, the table in
              // use, the settings and the log, and an encoder knows none of them.
              if (Context.getOrUndefined(context, HttpServerRequest) !== undefined) return refuse("It is a respondable")
              if (statusOf(failure, modes) !== status) return refuse(`Its status is not ${status}`)
            }
            return Effect.succeed<Body>({ error: publicError(failure, all).error })
          }),
      }),
    ),
  ) as unknown as Errors<Tag>
}

/**
 * The failures of these tags as errors of an endpoint: a schema for each status.
 * Put them beside your own: `error: [...HttpApiErrors.errors(["RateLimited"]), MyError]`.
 */
export const errors = <const T extends Tag>(
  tags: ReadonlyArray<T>,
  options: Options = {},
): ReadonlyArray<Errors<T>> => {
  const { failureModes, provider } = checked("HttpApiErrors.errors", Options, options)
  const { modes } = answering(failureModes === undefined ? {} : { failureModes })
  return [...byStatus(tags, modes)]
    .toSorted(([a], [b]) => a - b)
    .map(
      ([status, group]) =>
        codecOf(group, status, modes, provider ?? "service").pipe(HttpApiSchema.status(status)) as unknown as Errors<T>,
    )
}

/**
 * The failures of these tags as the errors of a stream, for the `error` of
 * `HttpApiSchema.StreamSse`: without a status, since a stream has sent it.
 */
export const streamErrors = <const T extends Tag>(tags: ReadonlyArray<T>, options: Options = {}): Errors<T> => {
  const { failureModes, provider } = checked("HttpApiErrors.streamErrors", Options, options)
  const { modes } = answering(failureModes === undefined ? {} : { failureModes })
  const group = new Set<Tag>([...tags, "UnknownFailure"])
  return codecOf(group, undefined, modes, provider ?? "service") as unknown as Errors<T>
}
