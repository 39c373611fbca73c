/** JSON Schemas as checks of a value: draft 2020-12, 2019-09 or 7, by `$schema`, or whichever of them understands it. */
import * as Result from "effect/Result"
import { Ajv, type ErrorObject, type ValidateFunction } from "ajv"
import { Ajv2019 } from "ajv/dist/2019.js"
import { Ajv2020 } from "ajv/dist/2020.js"
import type { JsonExtraction } from "@understudy/core"

/** What does not fit, or nothing. */
export type Check = (json: unknown) => ReadonlyArray<JsonExtraction.Issue> | undefined

/** The check of a schema; nothing for null; or why it is no schema. */
export type Schemas = (schema: unknown) => Result.Result<Check | undefined, string>

const options = { strict: false, validateFormats: false, logger: false } as const

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
    let problem = ""
    for (const [, ajv] of said.length > 0 ? said : Object.entries(drafts)) {
      try {
        const validate = ajv.compile(schema)
        return Result.succeed(checkBy(validate))
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

const checkBy =
  (validate: ValidateFunction): Check =>
  (json) =>
    validate(json) ? undefined : (validate.errors ?? []).map(issueOf)

/** The keyword that failed; the message of the validator may quote names of the answer. */
const issueOf = ({ instancePath, keyword }: ErrorObject): JsonExtraction.Issue => ({
  path: instancePath
    .split("/")
    .slice(1)
    .map((segment) => (/^\d+$/.test(segment) ? Number(segment) : "*")),
  expected: `what the keyword ${keyword} allows`,
})
