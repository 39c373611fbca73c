/** JSON Schemas as checks of a value: draft 2020-12, 2019-09 or 7, by `$schema`, or whichever of them understands it. */
import { runInNewContext } from "node:vm"
import * as Result from "effect/Result"
import { Ajv, type ErrorObject, type ValidateFunction } from "ajv"
import { Ajv2019 } from "ajv/dist/2019.js"
import { Ajv2020 } from "ajv/dist/2020.js"
import type { JsonExtraction } from "@understudy/core"

/** What does not fit, or nothing. */
export type Check = (json: unknown) => ReadonlyArray<JsonExtraction.Issue> | undefined

/** The check of a schema; nothing for null; or why it is no schema. */
export type Schemas = (schema: unknown) => Result.Result<Check | undefined, string>

// Only what a value has itself counts: every object inherits a `constructor` and a `toString`.
const options = { strict: false, validateFormats: false, logger: false, ownProperties: true } as const

/** How long the patterns of a schema may take for one value, in milliseconds: some take years for a short string. */
const patience = 1000

const timedOut = "ERR_SCRIPT_EXECUTION_TIMEOUT"

/** The patterns of a schema took too long. */
export class PatternTooSlow extends Error {
  override readonly name = "PatternTooSlow"
  override readonly message = "its patterns take too long for this answer"
}

/** Checks that are made once for each schema. */
export const make = (): Schemas => {
  const drafts = {
    "2020-12": new Ajv2020(options),
    "2019-09": new Ajv2019(options),
    "draft-07": new Ajv(options),
  }
  const made = new Map<string, Result.Result<Check, string>>()
  const compile = (schema: object | boolean): Result.Result<Check, string> => {
    const named = typeof schema === "object" && "$schema" in schema ? String(schema.$schema) : ""
    const said = Object.entries(drafts).filter(([draft]) => named.includes(draft))
    // Of drafts that are not known by name, what is the same in those that are can be used.
    const nameless = said.length > 0 || named === "" || typeof schema !== "object" ? schema : withoutName(schema)
    let problem = ""
    for (const [, ajv] of said.length > 0 ? said : Object.entries(drafts)) {
      try {
        const validate = ajv.compile(nameless)
        return Result.succeed(checkBy(validate, schema))
      } catch (error) {
        problem ||= error instanceof Error ? error.message : String(error)
      } finally {
        // So that two schemas may have the same $id.
        ajv.removeSchema()
      }
    }
    return Result.fail(`not a JSON Schema that can be used: ${problem}`)
  }
  return (schema) => {
    if (schema === null || schema === undefined) return Result.succeed(undefined)
    if ((typeof schema !== "object" && typeof schema !== "boolean") || Array.isArray(schema)) {
      return Result.fail("expected a JSON Schema, which is an object or a boolean, or null")
    }
    const key = JSON.stringify(schema)
    const before = made.get(key)
    if (before !== undefined) return before
    const check = compile(schema)
    made.set(key, check)
    return check
  }
}

const withoutName = (schema: object): object =>
  Object.fromEntries(Object.entries(schema).filter(([key]) => key !== "$schema" && key !== "id"))

const checkBy = (validate: ValidateFunction, schema: object | boolean): Check => {
  const patterned = /"pattern(?:Properties)?":/.test(JSON.stringify(schema))
  return (json) => {
    if (!finite(json)) return [{ path: [], expected: "finite numbers" }]
    if (patterned ? inTime(() => validate(json)) : validate(json)) return undefined
    return (validate.errors ?? []).map(issueOf)
  }
}

/** Runs what may never end, and ends it. */
const inTime = (run: () => boolean): boolean => {
  try {
    return runInNewContext("run()", { run }, { timeout: patience }) as boolean
  } catch (error) {
    // It may be an error of the other context, which has an Error of its own.
    if (typeof error === "object" && error !== null && "code" in error && error.code === timedOut) {
      throw new PatternTooSlow()
    }
    throw error
  }
}

/** Whether all numbers are finite: `1e999` is valid JSON, but what it becomes could only be printed as null. */
export const finite = (json: unknown): boolean => {
  const pending = [json]
  while (pending.length > 0) {
    const node = pending.pop()
    if (typeof node === "number" && !Number.isFinite(node)) return false
    if (typeof node === "object" && node !== null) for (const item of Object.values(node)) pending.push(item)
  }
  return true
}

/** The keyword that failed; the message of the validator may quote names of the answer. */
const issueOf = ({ instancePath, keyword }: ErrorObject): JsonExtraction.Issue => ({
  path: instancePath
    .split("/")
    .slice(1)
    .map((segment) => (/^\d+$/.test(segment) ? Number(segment) : "*")),
  expected: `what the keyword ${keyword} allows`,
})
