/**
 * Providers from a configuration: a file such as `understudy.json`, or nothing
 * but the keys in the environment.
 *
 * The file is the options of `Understudy.make` where a candidate names its
 * adapter instead of holding a provider. Keys are never in it: they are read
 * from the environment, by `Config`, into `Redacted`.
 *
 * ```json
 * {
 *   "candidates": [
 *     { "provider": "openai", "model": "gpt-5.6-terra", "retry": { "times": 1 } },
 *     { "provider": "anthropic", "model": "claude-sonnet-5-5", "priority": 1 },
 *     { "provider": "ollama", "model": "qwen3", "priority": 2, "timeouts": { "attempt": "60 seconds" } }
 *   ],
 *   "deadline": { "generate": "20 seconds" }
 * }
 * ```
 *
 * **Details**
 *
 * - A mistake is told with its file, its place in it and what was expected, all
 *   mistakes at once. What stands in the file is not quoted: it may be a secret.
 * - A candidate is named by `name`, else by its provider; the second of the same
 *   provider by provider and model.
 * - A disabled candidate needs no key.
 *
 * **Example** (From a file to a resilient model)
 *
 * ```ts
 * import { Understudy } from "@understudy/core"
 * import { ProviderConfig } from "@understudy/providers"
 * import { Effect } from "effect"
 *
 * export const fromFile = (text: string) =>
 *   ProviderConfig.fromJson(text, "understudy.json").pipe(
 *     Effect.flatMap(ProviderConfig.resolve),
 *     Effect.map((options) => Understudy.make(options)),
 *   )
 * ```
 */
import * as Call from "@understudy/core/Call"
import type * as Directory from "@understudy/core/Directory"
import type * as LanguageModelFace from "@understudy/core/LanguageModelFace"
import type { ProviderFailure } from "@understudy/core/LlmError"
import type * as Provider from "@understudy/core/Provider"
import * as Understudy from "@understudy/core/Understudy"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import type * as HttpClient from "effect/http/HttpClient"
import type * as JsonSchema from "effect/JsonSchema"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as AnthropicMessages from "./AnthropicMessages.ts"
import { present } from "./internal/json.ts"
import * as Wire from "./internal/wire.ts"
import * as OpenAiChat from "./OpenAiChat.ts"
import * as OpenAiDialect from "./OpenAiDialect.ts"

// ---------------------------------------------------------------------------
// Errors
// ---------------------------------------------------------------------------

/** One mistake: where it is (`candidates[0].provider`; empty for the whole), and what was expected. */
export const Problem = Schema.Struct({ path: Schema.String, message: Schema.String })

/** One mistake. */
export interface Problem extends Schema.Schema.Type<typeof Problem> {}

/** A configuration cannot be meant as it is. */
export class InvalidConfig extends Schema.TaggedError<InvalidConfig>("@understudy/providers/InvalidConfig")(
  "InvalidConfig",
  {
    /** Its file, or `the environment`. */
    file: Schema.String,
    problems: Schema.Array(Problem),
  },
) {
  override get message(): string {
    const lines = this.problems.map(({ message, path }) => (path === "" ? `  ${message}` : `  ${path}: ${message}`))
    return `The configuration in ${this.file} is not valid:\n${lines.join("\n")}`
  }
}

/** A candidate's key is not in the environment. */
export class MissingApiKey extends Schema.TaggedError<MissingApiKey>("@understudy/providers/MissingApiKey")(
  "MissingApiKey",
  {
    /** The candidate's name. */
    provider: Schema.String,
    /** The environment variable that should hold the key. */
    variable: Schema.String,
  },
) {
  override get message(): string {
    return `The key of ${this.provider} is missing. Set the environment variable ${this.variable}, name another one in "apiKeyEnv", or disable the candidate with "enabled": false.`
  }
}

/** The environment holds no key of a known provider. */
export class NothingConfigured extends Schema.TaggedError<NothingConfigured>("@understudy/providers/NothingConfigured")(
  "NothingConfigured",
  {
    /** The environment variables that were looked at. */
    variables: Schema.Array(Schema.String),
  },
) {
  override get message(): string {
    return `No provider is configured. Set one of ${this.variables.join(", ")}, or write a configuration file.`
  }
}

/** Why there are no providers. */
export type ProviderConfigError = InvalidConfig | MissingApiKey | NothingConfigured

// ---------------------------------------------------------------------------
// Schema
// ---------------------------------------------------------------------------

/** The name of a provider in a configuration. */
export type KnownProvider = "anthropic" | OpenAiDialect.Known

const isDialect = (name: string): name is OpenAiDialect.Known => Object.hasOwn(OpenAiDialect.known, name)

/** The providers that a configuration can name. */
export const knownProviders: ReadonlyArray<KnownProvider> = [
  "anthropic",
  ...Object.keys(OpenAiDialect.known).filter(isDialect),
]

const succeeds = (check: () => unknown): boolean => {
  try {
    check()
    return true
  } catch {
    return false
  }
}

const BaseUrl = Schema.String.check(
  Schema.makeFilter((url: string) => succeeds(() => Wire.address("", url, "")), {
    expected: "an http or https address",
  }),
)

const Headers = Schema.Record(Schema.String, Schema.String).check(
  Schema.makeFilter((headers: Readonly<Record<string, string>>) => succeeds(() => Wire.headers("", headers)), {
    expected: "names and values that can be sent as headers",
  }),
)

const fields = {
  /** Names it in failures, events and statistics. Default: its provider. */
  name: Schema.optional(Schema.NonEmptyString),
  /** Who is asked. */
  provider: Schema.Literals(knownProviders),
  /** The model to ask. */
  model: Schema.NonEmptyString,
  /** Where it listens. Default: the provider's own address; `azure` and `openai-compatible` need one. */
  baseUrl: Schema.optional(BaseUrl),
  /** The environment variable with the key. Default: the provider's usual one. */
  apiKeyEnv: Schema.optional(Schema.NonEmptyString),
  /** More headers of every request. Not for keys. */
  headers: Schema.optional(Headers),
  /** Parameters of the model. */
  parameters: Schema.optional(Call.Parameters),
}

/** What a configuration says of one provider. */
export const Candidate = Schema.Struct(fields)

/** What a configuration says of one provider. */
export interface Candidate extends Schema.Schema.Type<typeof Candidate> {}

/** A configuration file. */
export const File = Schema.Struct({
  /** For editors. */
  $schema: Schema.optional(Schema.String),
  ...Understudy.optionsOf(fields).fields,
})

/** A configuration file. */
export interface File extends Schema.Schema.Type<typeof File> {}

/** The JSON schema of a configuration file, for editors. */
export const jsonSchema = (): JsonSchema.JsonSchema => {
  const { definitions, schema } = Schema.toJsonSchemaDocument(File)
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    ...schema,
    ...(Object.keys(definitions).length === 0 ? {} : { $defs: definitions }),
  }
}

// ---------------------------------------------------------------------------
// Providers
// ---------------------------------------------------------------------------

/** A provider of this package. */
export interface Model extends Provider.Provider<
  LanguageModelFace.LanguageModelFace,
  ProviderFailure,
  HttpClient.HttpClient
> {}

/** The options of `Understudy.make`, with the providers made. */
export interface Resolved extends Understudy.Policies {
  readonly candidates: readonly [Understudy.Candidate<Model>, ...Array<Understudy.Candidate<Model>>]
}

const build = (candidate: Candidate, apiKey: Redacted.Redacted<string> | undefined): Model => {
  const { baseUrl, headers, model, name, parameters, provider } = candidate
  const options = { name: name ?? provider, model, apiKey, baseUrl, headers, parameters }
  return provider === "anthropic" ? AnthropicMessages.make(options) : OpenAiChat.make({ ...options, dialect: provider })
}

const dialectOf = (provider: KnownProvider): { readonly baseUrl?: string; readonly apiKeyEnv?: string } =>
  provider === "anthropic"
    ? { baseUrl: AnthropicMessages.baseUrl, apiKeyEnv: "ANTHROPIC_API_KEY" }
    : OpenAiDialect.known[provider]

/** A variable of the environment that is there and not empty. */
const secret = (variable: string): Effect.Effect<Option.Option<Redacted.Redacted<string>>> =>
  Config.option(Config.Redacted(variable)).pipe(
    Effect.map(Option.filter((value) => Redacted.value(value).trim() !== "")),
    Effect.catch(() => Effect.succeedNone),
  )

/**
 * The provider of a candidate, with its key from the environment. Fails with
 * `InvalidConfig` when it needs a base URL and has none, and with
 * `MissingApiKey`.
 */
export const make = (candidate: Candidate): Effect.Effect<Model, InvalidConfig | MissingApiKey> =>
  makeOf(candidate, "the candidate", "", true)

const makeOf = (
  candidate: Candidate,
  file: string,
  path: string,
  needed: boolean,
): Effect.Effect<Model, InvalidConfig | MissingApiKey> =>
  Effect.gen(function* () {
    const { provider } = candidate
    const dialect = dialectOf(provider)
    if (candidate.baseUrl === undefined && dialect.baseUrl === undefined) {
      const problem = {
        path: `${path}baseUrl`,
        message: `Expected an address, since "${provider}" has none of its own`,
      }
      return yield* new InvalidConfig({ file, problems: [problem] })
    }
    const variable = candidate.apiKeyEnv ?? dialect.apiKeyEnv
    if (variable === undefined) return build(candidate, undefined)
    const key = yield* secret(variable)
    if (Option.isSome(key)) return build(candidate, key.value)
    if (needed) return yield* new MissingApiKey({ provider: candidate.name ?? provider, variable })
    return build(candidate, undefined)
  })

/**
 * The options of `Understudy.make` from a configuration, with keys from the
 * environment. Fails with `MissingApiKey`, and with `InvalidConfig` for what the
 * schema cannot tell: a missing base URL, or a name that is there twice.
 */
export const resolve = (
  config: File,
  file = "understudy.json",
): Effect.Effect<Resolved, InvalidConfig | MissingApiKey> =>
  Effect.gen(function* () {
    const { $schema: _, candidates, ...policies } = config
    const names = yield* namesOf(candidates, file)
    const [first, ...rest] = yield* Effect.forEach(candidates, (entry, index) => {
      const { apiKeyEnv, baseUrl, headers, model, name: _, parameters, provider, ...options } = entry
      const candidate = { name: names[index], provider, model, baseUrl, apiKeyEnv, headers, parameters }
      return Effect.map(
        makeOf(candidate, file, `candidates[${index}].`, entry.enabled !== false),
        (made): Understudy.Candidate<Model> => ({ ...options, provider: made }),
      )
    })
    return { ...policies, candidates: [first, ...rest] }
  })

const namesOf = (candidates: File["candidates"], file: string): Effect.Effect<ReadonlyArray<string>, InvalidConfig> => {
  const names: Array<string> = []
  const problems: Array<Problem> = []
  for (const [index, { model, name, provider }] of candidates.entries()) {
    const free = name ?? (names.includes(provider) ? `${provider}/${model}` : provider)
    if (names.includes(free)) {
      problems.push({
        path: `candidates[${index}].name`,
        message: `Expected a name that no other candidate has, but "${free}" is taken`,
      })
    }
    names.push(free)
  }
  return problems.length === 0 ? Effect.succeed(names) : Effect.fail(new InvalidConfig({ file, problems }))
}

// ---------------------------------------------------------------------------
// A look at them
// ---------------------------------------------------------------------------

/** Where a key is expected in the environment, and whether it is there. */
export interface Key {
  readonly variable: string
  readonly present: boolean
}

/** A candidate, seen without asking anybody. */
export interface Inspected {
  readonly name: string
  readonly provider: KnownProvider
  readonly model: string
  /** What is set for it, as far as something is. */
  readonly settings: Directory.Settings
  /** Nothing when it needs none. */
  readonly key: Key | undefined
  /** The provider itself. */
  readonly make: Effect.Effect<Model, InvalidConfig | MissingApiKey>
}

const keyOf = ({ apiKeyEnv, provider }: Pick<Candidate, "apiKeyEnv" | "provider">): Effect.Effect<Key | undefined> => {
  const variable = apiKeyEnv ?? dialectOf(provider).apiKeyEnv
  return variable === undefined
    ? Effect.succeed(undefined)
    : Effect.map(secret(variable), (key) => ({ variable, present: Option.isSome(key) }))
}

/** The candidates of a configuration: what is set for them, and which keys are missing. Asks nobody. */
export const inspect = (
  config: File,
  file = "understudy.json",
): Effect.Effect<ReadonlyArray<Inspected>, InvalidConfig> =>
  Effect.flatMap(namesOf(config.candidates, file), (names) =>
    Effect.forEach(config.candidates, (entry, index) => {
      const { apiKeyEnv, baseUrl, headers, model, parameters, provider } = entry
      const { contextWindow, enabled, price, priority, tags, weight } = entry
      const name = names[index] ?? provider
      const candidate = { name, provider, model, baseUrl, apiKeyEnv, headers, parameters }
      return Effect.map(keyOf(entry), (key): Inspected => ({
        name,
        provider,
        model,
        settings: present({ priority, enabled, contextWindow, weight, price, tags }),
        key,
        make: makeOf(candidate, file, `candidates[${index}].`, true),
      }))
    }),
  )

// ---------------------------------------------------------------------------
// Files
// ---------------------------------------------------------------------------

const decode = Schema.decodeUnknownEffect(File, { errors: "all", onExcessProperty: "error" })

/** Reads a configuration from JSON text. The name of its file is for errors only. */
export const fromJson = (text: string, filename = "understudy.json"): Effect.Effect<File, InvalidConfig> =>
  Effect.suspend(() => {
    let value: unknown
    try {
      value = JSON.parse(text.replace(/^\uFEFF/, ""))
    } catch (error) {
      const message = `Expected JSON${placeOf(text, error)}`
      return Effect.fail(new InvalidConfig({ file: filename, problems: [{ path: "", message }] }))
    }
    return Effect.mapError(
      decode(value),
      (error) => new InvalidConfig({ file: filename, problems: problemsOf(error.issue) }),
    )
  })

// Where the text stops being JSON. The engine's message may quote it, so only the place is taken.
const placeOf = (text: string, error: unknown): string => {
  const at = error instanceof SyntaxError ? /at position (\d+)/.exec(error.message)?.[1] : undefined
  if (at === undefined) return ""
  const before = text.slice(0, Number(at)).split("\n")
  return `, but line ${before.length}, column ${(before.at(-1)?.length ?? 0) + 1} is not`
}

const format = SchemaIssue.makeFormatterStandardSchemaV1()

const problemsOf = (issue: SchemaIssue.Issue): ReadonlyArray<Problem> =>
  format(issue).issues.map(({ message, path }) => ({
    path: (path ?? [])
      .map((key) => (typeof key === "object" ? key.key : key))
      .reduce<string>((out, key) => {
        if (typeof key === "number") return `${out}[${key}]`
        return out === "" ? String(key) : `${out}.${String(key)}`
      }, ""),
    message,
  }))

// ---------------------------------------------------------------------------
// The environment
// ---------------------------------------------------------------------------

/** What the environment alone configures, in the order in which they are asked. */
export const environment: ReadonlyArray<{
  readonly provider: KnownProvider
  /** Where the key is. */
  readonly apiKeyEnv: string
  /** Where another model than the default may be named. */
  readonly modelEnv: string
  /** Where another address than the provider's own may be. */
  readonly baseUrlEnv: string
  /** The model where none is named. */
  readonly model: string
}> = [
  {
    provider: "openai",
    apiKeyEnv: "OPENAI_API_KEY",
    modelEnv: "OPENAI_MODEL",
    baseUrlEnv: "OPENAI_BASE_URL",
    model: "gpt-5.6-terra",
  },
  {
    provider: "anthropic",
    apiKeyEnv: "ANTHROPIC_API_KEY",
    modelEnv: "ANTHROPIC_MODEL",
    baseUrlEnv: "ANTHROPIC_BASE_URL",
    model: "claude-sonnet-5-5",
  },
  {
    provider: "together",
    apiKeyEnv: "TOGETHER_API_KEY",
    modelEnv: "TOGETHER_MODEL",
    baseUrlEnv: "TOGETHER_BASE_URL",
    model: "openai/gpt-oss-120b",
  },
]

const setting = (variable: string): Effect.Effect<string | undefined> =>
  Config.option(Config.String(variable)).pipe(
    Effect.map((value) => Option.getOrUndefined(Option.filter(value, (text) => text.trim() !== ""))),
    Effect.catch(() => Effect.succeed(undefined)),
  )

const isBaseUrl = Schema.is(BaseUrl)

const address = (variable: string): Effect.Effect<string | undefined, InvalidConfig> =>
  Effect.flatMap(setting(variable), (baseUrl) =>
    baseUrl === undefined || isBaseUrl(baseUrl)
      ? Effect.succeed(baseUrl)
      : Effect.fail(
          new InvalidConfig({
            file: "the environment",
            problems: [{ path: variable, message: "Expected an http or https address" }],
          }),
        ),
  )

/**
 * A candidate for each key in the environment, see `environment`. Fails with
 * `NothingConfigured` when there is none, and with `InvalidConfig` for a base
 * URL that is no http address.
 */
export const fromEnvironment: Effect.Effect<Resolved, InvalidConfig | NothingConfigured> = Effect.gen(function* () {
  const candidates: Array<Understudy.Candidate<Model>> = []
  for (const { apiKeyEnv, baseUrlEnv, modelEnv, ...known } of environment) {
    const key = yield* secret(apiKeyEnv)
    if (Option.isNone(key)) continue
    const model = (yield* setting(modelEnv)) ?? known.model
    const baseUrl = yield* address(baseUrlEnv)
    candidates.push({ provider: build({ provider: known.provider, model, ...present({ baseUrl }) }, key.value) })
  }
  const [first, ...rest] = candidates
  if (first === undefined) {
    return yield* new NothingConfigured({ variables: environment.map(({ apiKeyEnv }) => apiKeyEnv) })
  }
  return { candidates: [first, ...rest] }
})

/** What the environment alone configures: also those whose keys are missing, and who are not asked. */
export const inspectEnvironment: Effect.Effect<ReadonlyArray<Inspected>, InvalidConfig> = Effect.forEach(
  environment,
  ({ baseUrlEnv, model, modelEnv, provider }) =>
    Effect.gen(function* () {
      const baseUrl = yield* address(baseUrlEnv)
      return { provider, model: (yield* setting(modelEnv)) ?? model, ...present({ baseUrl }) }
    }),
).pipe(
  Effect.flatMap(([first, ...rest]) =>
    first === undefined ? Effect.succeed([]) : inspect({ candidates: [first, ...rest] }, "the environment"),
  ),
)
