/**
 * What an upstream plays: a list of steps, one for each request.
 *
 * A step is an answer (`{ "answer": "Hello" }`) or a fault
 * (`{ "fault": "stall", "afterTokens": 3 }`). Written as JSON it is a file for
 * a command line; written with the constructors below it is a line of a test.
 * Both are the same value: nothing is transformed by decoding.
 *
 * **Details**
 *
 * - A duration is a string such as `"200 millis"` or `"2 seconds"`, or a number
 *   of milliseconds; in TypeScript any `Duration.Input`.
 * - A token is one piece of streamed content. In a unary body, which has no
 *   tokens, "after N tokens" is the matching share of the body's bytes.
 * - Every step takes `latency`, `headers`, `wire`, `times` and `note` (see
 *   `Delivery`); every step that has content takes `answer`, `toolCalls`,
 *   `finishReason`, `usage`, `tokens` and more (see `Content`).
 * - Keys that no step knows are refused, so a misspelt one cannot be silently
 *   ignored.
 *
 * **Example** (A script as JSON)
 *
 * ```json
 * {
 *   "steps": [
 *     { "answer": "All is well." },
 *     { "fault": "status", "status": 429, "headers": { "retry-after": 2 }, "times": 3 },
 *     { "fault": "refuse", "for": "1 second" },
 *     { "fault": "stall", "afterTokens": 3 }
 *   ],
 *   "then": "cycle"
 * }
 * ```
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"

/**
 * The protocol a request speaks: OpenAI chat completions or Anthropic messages.
 */
export const Dialect = Schema.Literals(["openai", "anthropic"])

/** The protocol a request speaks. */
export type Dialect = typeof Dialect.Type

const isDuration = (input: unknown): input is Duration.Input =>
  (typeof input === "number" || typeof input === "string" || typeof input === "bigint" || Duration.isDuration(input)) &&
  Option.exists(
    Duration.fromInput(input as Duration.Input),
    (duration) => !Number.isNaN(Duration.toMillis(duration)) && !Duration.isNegative(duration),
  )

const DurationInput = Schema.declare(isDuration, {
  expected: 'a duration such as "200 millis" or "2 seconds", or a number of milliseconds',
})

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))
const Positive = Schema.Int.check(Schema.isGreaterThanOrEqualTo(1))
const HttpStatus = Schema.Int.check(Schema.isBetween({ minimum: 200, maximum: 599 }))
const Headers = Schema.Record(Schema.String, Schema.Union([Schema.String, Schema.Finite]))

/**
 * How bytes leave the server, to test the robustness of a client. All are off
 * by default.
 */
export const Wire = Schema.Struct({
  /** Split everything written into pieces of so many bytes, each its own TCP write, across UTF-8 characters too. */
  chunkBytes: Schema.optionalKey(Positive),
  /** End lines of an event stream with CRLF. */
  crlf: Schema.optionalKey(Schema.Boolean),
  /** Leave out the optional space after `data:` and `event:`. */
  noSpace: Schema.optionalKey(Schema.Boolean),
  /** Write a comment (`: keep-alive`) before each event of a stream. */
  comments: Schema.optionalKey(Schema.Boolean),
  /** Write a comment each time so long passes without an event, also while a stream is stalled. */
  keepAliveEvery: Schema.optionalKey(DurationInput),
  /** Add a field that no protocol knows to every JSON object, except inside the arguments of a tool call. */
  unknownFields: Schema.optionalKey(Schema.Boolean),
  /** Add events that no protocol knows before the first token and after the last. */
  unknownEvents: Schema.optionalKey(Schema.Boolean),
  /** `false` leaves out `[DONE]` or `message_stop` at the end of a stream that is otherwise complete. */
  endMarker: Schema.optionalKey(Schema.Boolean),
})

/** How bytes leave the server. */
export type Wire = typeof Wire.Type

const delivery = {
  latency: Schema.optionalKey(DurationInput),
  headers: Schema.optionalKey(Headers),
  wire: Schema.optionalKey(Wire),
  times: Schema.optionalKey(Positive),
  note: Schema.optionalKey(Schema.String),
}

/**
 * What every step may say beside its own fields.
 *
 * **Details**
 *
 * - `latency`: wait so long after the request is read, before anything else.
 * - `headers`: added to the response, if the step sends one. The framing
 *   headers (`content-length`, `transfer-encoding`) are computed and ignored here.
 * - `wire`: overrides the `wire` option of the upstream, key by key.
 * - `times`: play the step for so many requests (default 1).
 * - `note`: free text for the reader, kept in the record.
 */
export const Delivery = Schema.Struct(delivery)

/** What every step may say beside its own fields. */
export type Delivery = typeof Delivery.Type

/**
 * A call of a tool. `arguments` is an object, or a string that is sent verbatim
 * (for arguments that are not JSON). `id` is made up when left out.
 */
export const ToolCall = Schema.Struct({
  name: Schema.NonEmptyString,
  arguments: Schema.Union([Schema.String, Schema.Record(Schema.String, Schema.Json)]),
  id: Schema.optionalKey(Schema.NonEmptyString),
})

/** A call of a tool. */
export type ToolCall = typeof ToolCall.Type

/** Token counts to report. By default they are estimated from the request and the answer, the same each time. */
export const Usage = Schema.Struct({ inputTokens: Count, outputTokens: Count })

/** Token counts to report. */
export type Usage = typeof Usage.Type

const content = {
  answer: Schema.optionalKey(Schema.String),
  thinking: Schema.optionalKey(Schema.String),
  refusal: Schema.optionalKey(Schema.String),
  toolCalls: Schema.optionalKey(Schema.Array(ToolCall)),
  finishReason: Schema.optionalKey(Schema.NonEmptyString),
  usage: Schema.optionalKey(Usage),
  tokens: Schema.optionalKey(Positive),
  firstTokenDelay: Schema.optionalKey(DurationInput),
  tokenDelay: Schema.optionalKey(DurationInput),
}

/**
 * What a step with content says about it. All are optional: `{}` is a good
 * answer.
 *
 * **Details**
 *
 * - `answer`: the text (default: a made-up line). A token is a word with the
 *   space before it.
 * - `thinking`: a thinking block before the text; in the OpenAI dialect the
 *   `reasoning_content` of compatible servers.
 * - `refusal`: the model declines. OpenAI `message.refusal`; Anthropic a text
 *   with `stop_reason: "refusal"`.
 * - `toolCalls`: calls of tools after the text, and no made-up text.
 * - `finishReason`: default `stop` or what fits the content. The names of either
 *   dialect (`stop`, `length`, `tool_calls`, `content_filter`, and `end_turn`,
 *   `max_tokens`, `tool_use`, `refusal`) are translated to the dialect of the
 *   request; any other goes out as it is.
 * - `tokens`: how many tokens. A given text is cut into so many pieces of even
 *   length, a made-up one has so many words.
 * - `firstTokenDelay`, `tokenDelay`: time before the first token, and between
 *   tokens. A unary answer comes when its last token would have come, headers
 *   included, as with a real provider.
 */
export const Content = Schema.Struct(content)

/** What a step with content says about it. */
export type Content = typeof Content.Type

/** A good answer: a step without a `fault`. */
export const Answer = Schema.Struct({ ...content, ...delivery })

/** A good answer: a step without a `fault`. */
export type Answer = typeof Answer.Type

const afterTokens = Schema.optionalKey(Count)

const fault = <const Name extends string, const Fields extends Schema.Struct.Fields>(name: Name, fields: Fields) =>
  Schema.Struct({ fault: Schema.Literal(name), ...fields, ...delivery })

const faults = [
  fault("status", {
    status: HttpStatus,
    body: Schema.optionalKey(Schema.Json),
  }),
  fault("reset-before-headers", {}),
  fault("close-before-headers", {}),
  fault("hang", {}),
  fault("silence", {}),
  fault("stall", { afterTokens, ...content }),
  fault("reset", { afterTokens, ...content }),
  fault("end-early", { afterTokens, ...content }),
  fault("slow-drip", { every: Schema.optionalKey(DurationInput), ...content }),
  fault("error-in-band", {
    afterTokens,
    error: Schema.optionalKey(Schema.Json),
    body: Schema.optionalKey(Schema.Json),
    ...content,
  }),
  fault("truncated-json", { afterTokens, thenContinue: Schema.optionalKey(Schema.Boolean), ...content }),
  fault("html", {
    status: Schema.optionalKey(HttpStatus),
    body: Schema.optionalKey(Schema.String),
  }),
  fault("empty-choices", { usage: Schema.optionalKey(Usage), finishReason: Schema.optionalKey(Schema.NonEmptyString) }),
  fault("missing-usage", { ...content }),
  fault("refuse", {
    for: DurationInput,
    inFlight: Schema.optionalKey(Schema.Literals(["finish", "reset"])),
  }),
] as const

/**
 * The ways to fail, told apart by `fault`.
 *
 * **Details**
 *
 * | `fault` | what the client sees |
 * |---|---|
 * | `status` | the `status` and `body` given: a string verbatim, other JSON encoded; by default the error body that the dialect has for the status |
 * | `reset-before-headers` | a TCP reset once the request is read |
 * | `close-before-headers` | a clean close (FIN) once the request is read |
 * | `hang` | nothing, ever: accepted, read, never answered |
 * | `silence` | the headers of a good answer, then nothing |
 * | `stall` | content up to `afterTokens` (default 2), then nothing |
 * | `reset` | content up to `afterTokens` (default 2), then a TCP reset |
 * | `end-early` | content up to `afterTokens` (default 2), then a clean end: a stream without finish reason and end marker, a unary body shorter than its `content-length` |
 * | `slow-drip` | a good answer, a token `every` so long (default 100 ms); a unary body in as many pieces |
 * | `error-in-band` | status 200 and an error inside it: first of all without `afterTokens`, else after so many tokens. `error` is the error object; `body` replaces the whole payload |
 * | `truncated-json` | a unary body of JSON that is cut, in complete HTTP framing; in a stream, one cut `data:` line after `afterTokens` (default 2) and then the end, or the rest of the answer if `thenContinue` |
 * | `html` | a web page with `text/html` under 200, or under the `status` given |
 * | `empty-choices` | a complete answer with `choices: []` or `content: []` |
 * | `missing-usage` | a good answer without usage |
 * | `refuse` | connections are refused `for` so long: nothing listens on the port |
 *
 * With `afterTokens: 0` a stream carries its opening events (the role, or
 * `message_start`) and no content. More tokens than the answer has means all
 * of them; a made-up answer is made longer instead.
 *
 * **Gotchas**
 *
 * `refuse` answers no request: it begins as soon as the step before it is over,
 * at once if it comes first. Idle connections are closed; a request that is
 * still being answered may finish, or is reset with `inFlight: "reset"`. A
 * request that arrives over an open connection before then is reset and lets
 * the refusal begin.
 */
export const Fault = Schema.Union(faults)

/** The ways to fail, told apart by `fault`. */
export type Fault = typeof Fault.Type

/** The fault of this name. */
export type FaultOf<Name extends Fault["fault"]> = Extract<Fault, { readonly fault: Name }>

/** What is played for one request: a fault, or an answer. */
export const Step = Schema.Union([...faults, Answer]).annotate({
  expected: 'a step such as { "answer": "Hello" } or { "fault": "hang" }',
})

/** What is played for one request: a fault, or an answer. */
export type Step = typeof Step.Type

/**
 * What is played after the last step: a default good `answer` (the default),
 * `repeat` the last step, or `cycle` through all of them.
 */
export const Then = Schema.Literals(["answer", "repeat", "cycle"])

/** What is played after the last step. */
export type Then = typeof Then.Type

/**
 * A script of its own for some requests: those that match `dialect`, `model` and
 * `path`, as far as given. `*` in a model or path stands for any text.
 */
export const Track = Schema.Struct({
  dialect: Schema.optionalKey(Dialect),
  model: Schema.optionalKey(Schema.NonEmptyString),
  path: Schema.optionalKey(Schema.NonEmptyString),
  steps: Schema.Array(Step),
  then: Schema.optionalKey(Then),
})

/** A script of its own for some requests. */
export type Track = typeof Track.Type

/**
 * What an upstream plays: the steps, or an object with the steps, what comes
 * after them, and tracks for some requests. The first track that matches a
 * request plays for it, else `steps`.
 */
export const Script = Schema.Union([
  Schema.Array(Step),
  Schema.Struct({
    steps: Schema.optionalKey(Schema.Array(Step)),
    then: Schema.optionalKey(Then),
    tracks: Schema.optionalKey(Schema.Array(Track)),
  }),
]).annotate({ expected: "a list of steps, or an object with steps" })

/** What an upstream plays. */
export type Script = typeof Script.Type

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

type OptionsOf<Name extends Fault["fault"]> = Omit<FaultOf<Name>, "fault">

/** A good answer with this text, or with a made-up one. */
export const answer = (text?: string, options: Omit<Answer, "answer"> = {}): Answer =>
  text === undefined ? options : { ...options, answer: text }

/** A good answer that calls tools. */
export const toolCalls = (calls: ReadonlyArray<ToolCall>, options: Omit<Answer, "toolCalls"> = {}): Answer => ({
  ...options,
  toolCalls: calls,
})

/** A complete answer in which the model declines. */
export const refusal = (text: string, options: Omit<Answer, "refusal"> = {}): Answer => ({ ...options, refusal: text })

/** A complete answer that ends for this reason, such as `length` or `content_filter`. */
export const finish = (reason: string, options: Omit<Answer, "finishReason"> = {}): Answer => ({
  ...options,
  finishReason: reason,
})

/** An HTTP status with any headers and any body. */
export const status = (code: number, options: Omit<OptionsOf<"status">, "status"> = {}): FaultOf<"status"> => ({
  ...options,
  fault: "status",
  status: code,
})

/** A TCP reset before any header. */
export const resetBeforeHeaders: FaultOf<"reset-before-headers"> = { fault: "reset-before-headers" }

/** A clean close before any header. */
export const closeBeforeHeaders: FaultOf<"close-before-headers"> = { fault: "close-before-headers" }

/** No answer, ever. */
export const hang: FaultOf<"hang"> = { fault: "hang" }

/** Headers, then nothing. */
export const silence: FaultOf<"silence"> = { fault: "silence" }

/** Some content (default 2 tokens), then nothing. */
export const stall = (options: OptionsOf<"stall"> = {}): FaultOf<"stall"> => ({ ...options, fault: "stall" })

/** Some content (default 2 tokens), then a TCP reset. */
export const reset = (options: OptionsOf<"reset"> = {}): FaultOf<"reset"> => ({ ...options, fault: "reset" })

/** Some content (default 2 tokens), then a clean end that leaves the answer incomplete. */
export const endEarly = (options: OptionsOf<"end-early"> = {}): FaultOf<"end-early"> => ({
  ...options,
  fault: "end-early",
})

/** A good answer, one token at a time (default every 100 ms). */
export const slowDrip = (options: OptionsOf<"slow-drip"> = {}): FaultOf<"slow-drip"> => ({
  ...options,
  fault: "slow-drip",
})

/** Status 200 and an error inside: first of all, or after some tokens. */
export const errorInBand = (options: OptionsOf<"error-in-band"> = {}): FaultOf<"error-in-band"> => ({
  ...options,
  fault: "error-in-band",
})

/** JSON that is cut, in complete HTTP framing. */
export const truncatedJson = (options: OptionsOf<"truncated-json"> = {}): FaultOf<"truncated-json"> => ({
  ...options,
  fault: "truncated-json",
})

/** A web page where an answer should be (default status 200). */
export const html = (options: OptionsOf<"html"> = {}): FaultOf<"html"> => ({ ...options, fault: "html" })

/** A complete answer without any choice or content block. */
export const emptyChoices = (options: OptionsOf<"empty-choices"> = {}): FaultOf<"empty-choices"> => ({
  ...options,
  fault: "empty-choices",
})

/** A good answer without usage. */
export const missingUsage = (options: OptionsOf<"missing-usage"> = {}): FaultOf<"missing-usage"> => ({
  ...options,
  fault: "missing-usage",
})

/** Nothing listens on the port for so long. */
export const refuse = (
  duration: Duration.Input,
  options: Omit<OptionsOf<"refuse">, "for"> = {},
): FaultOf<"refuse"> => ({ ...options, fault: "refuse", for: duration })

/**
 * The step with other latency, headers, wire, times or note.
 *
 * **Example** (A connection that is reset three times, each after 20 ms)
 *
 * ```ts
 * import { Upstream } from "@understudy/testkit"
 *
 * export const step = Upstream.delivered(Upstream.resetBeforeHeaders, { latency: "20 millis", times: 3 })
 * ```
 */
export const delivered = <S extends Step>(step: S, options: Delivery): S => ({ ...step, ...options })

/** The name of a step: its fault, or `answer`. */
export const stepName = (step: Step): Fault["fault"] | "answer" => ("fault" in step ? step.fault : "answer")

// -----------------------------------------------------------------------------
// Decoding
// -----------------------------------------------------------------------------

/**
 * A script could not be read. `problems` holds every mistake with the place it
 * is at, such as `steps[2].afterTokens`; `message` lists them.
 */
export class InvalidScript extends Schema.TaggedError<InvalidScript>("@understudy/testkit/Upstream/InvalidScript")(
  "InvalidScript",
  { problems: Schema.Array(Schema.Struct({ path: Schema.String, message: Schema.String })) },
) {
  override get message(): string {
    const lines = this.problems.map(({ message, path }) => `  ${path === "" ? "the script" : path}: ${message}`)
    return `The script of the upstream is not valid:\n${lines.join("\n")}`
  }
}

const decode = Schema.decodeUnknownEffect(Script, { errors: "all", onExcessProperty: "error", reportInput: true })

/**
 * Reads a script from a value such as parsed JSON. Fails with `InvalidScript`,
 * which names every mistake and its place.
 */
export const decodeScript = (input: unknown): Effect.Effect<Script, InvalidScript> =>
  Effect.mapError(decode(input), (error) => new InvalidScript({ problems: problemsOf(error.issue, []) }))

/** Reads a script from JSON text. Fails with `InvalidScript`, also when the text is not JSON. */
export const parseScript = (text: string): Effect.Effect<Script, InvalidScript> =>
  Effect.flatMap(
    Effect.try({
      try: (): unknown => JSON.parse(text),
      catch: (error) =>
        new InvalidScript({
          problems: [{ path: "", message: error instanceof Error ? `not JSON: ${error.message}` : "not JSON" }],
        }),
    }),
    decodeScript,
  )

type Problem = InvalidScript["problems"][number]
type Path = ReadonlyArray<PropertyKey>

const format = SchemaIssue.makeFormatterStandardSchemaV1()

const faultNames = faults.map((schema) => schema.fields.fault.literal)

// A step with a known fault fails twice: as that fault and, having a fault, as
// an answer. Only the first tells the author something.
const problemsOf = (issue: SchemaIssue.Issue, path: Path): ReadonlyArray<Problem> => {
  switch (issue._tag) {
    case "Encoding":
      return problemsOf(issue.issue, path)
    case "Pointer":
      return problemsOf(issue.issue, [...path, ...issue.path])
    case "Composite": {
      const unknownFault = issue.issues.find(
        (issue) => issue._tag === "Pointer" && issue.issue._tag === "UnexpectedKey" && issue.path[0] === "fault",
      )
      return unknownFault === undefined
        ? issue.issues.flatMap((issue) => problemsOf(issue, path))
        : [{ path: renderPath([...path, "fault"]), message: `Expected one of ${faultNames.join(", ")}` }]
    }
    case "AnyOf": {
      const [first] = issue.issues
      return first === undefined ? formatted(issue, path) : problemsOf(first, path)
    }
    case "UnexpectedKey":
      return [{ path: renderPath(path), message: "No such key here" }]
    default:
      return formatted(issue, path)
  }
}

const formatted = (issue: SchemaIssue.Issue, path: Path): ReadonlyArray<Problem> =>
  format(issue).issues.map(({ message, path: rest }) => ({
    message,
    path: renderPath([...path, ...(rest ?? []).map((key) => (typeof key === "object" ? key.key : key))]),
  }))

const renderPath = (path: Path): string =>
  path.reduce<string>((text, key) => {
    if (typeof key === "number") return `${text}[${key}]`
    return text === "" ? String(key) : `${text}.${String(key)}`
  }, "")
