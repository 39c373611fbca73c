/** From the issues of a schema to paths and expectations that hold no text of the answer. */
import type * as Schema from "effect/Schema"
import type * as SchemaAST from "effect/SchemaAST"
import type * as SchemaIssue from "effect/SchemaIssue"
import { annotation, describe, discriminator, expectedByCheck, expectedOf } from "./expectation.ts"

/** What does not fit, and where. It holds no value and no name that the answer brought along. */
export interface Issue {
  /** Names of properties that the schema knows, indices, and `*` for any other name. */
  readonly path: ReadonlyArray<PropertyKey>
  readonly expected: string
}

/** What stands in a path for a name that the schema does not know. */
export const unknownName = "*"

/** The longest expectation that is told. */
const maxExpected = 400

/** The first `limit` issues of a failed decoding, in order. Default: 100. */
export const issuesOf = (schema: Schema.Top, error: Schema.SchemaError, limit = 100): ReadonlyArray<Issue> =>
  collect(error.issue, knownNames(schema.ast), limit).issues

interface Collected {
  readonly issues: ReadonlyArray<Issue>
  /** How many there are in all. */
  readonly count: number
}

interface Visit {
  readonly issue: SchemaIssue.Issue
  readonly path: ReadonlyArray<PropertyKey>
  /** What a check around this issue expects, which is more than the leaf knows. */
  readonly expected: string | undefined
}

/** Walks the tree of issues without recursion; it can be as deep as the answer. */
export const collect = (root: SchemaIssue.Issue, known: ReadonlySet<PropertyKey>, limit: number): Collected => {
  const issues: Array<Issue> = []
  const seen = new Set<string>()
  let count = 0
  const pending: Array<Visit> = [{ issue: root, path: [], expected: undefined }]
  const tell = (path: ReadonlyArray<PropertyKey>, expected: string): void => {
    count++
    if (issues.length >= limit) return
    const issue = { path, expected: expected.length > maxExpected ? `${expected.slice(0, maxExpected)}…` : expected }
    const key = JSON.stringify([path.map(String), issue.expected])
    if (seen.has(key)) {
      count--
      return
    }
    seen.add(key)
    issues.push(issue)
  }
  for (let visit = pending.pop(); visit !== undefined; visit = pending.pop()) {
    const { expected, issue, path } = visit
    switch (issue._tag) {
      case "Filter":
        pending.push({ issue: issue.issue, path, expected: expected ?? expectedByCheck(issue.filter) })
        break
      case "Encoding":
        pending.push({ issue: issue.issue, path, expected: expected ?? describe(issue.ast) })
        break
      case "Pointer":
        pending.push({
          issue: issue.issue,
          path: [...path, ...issue.path.map((segment) => (isKnown(segment, known) ? segment : unknownName))],
          expected,
        })
        break
      case "Composite":
        for (let k = issue.issues.length - 1; k >= 0; k--) pending.push({ issue: issue.issues[k]!, path, expected })
        break
      case "AnyOf":
        // What each member of a union misses is noise, unless there is only one that could be meant.
        if (issue.issues.length === 1 && goesDeeper(issue.issues[0]!)) {
          pending.push({ issue: issue.issues[0]!, path, expected })
        } else {
          const tag = issue.issues.length === 0 ? discriminator(issue.ast) : undefined
          if (tag === undefined) tell(path, expected ?? expectedOf(issue.ast))
          else tell([...path, tag.name], tag.expected)
        }
        break
      case "InvalidType":
        tell(path, expected ?? expectedOf(issue.ast))
        break
      case "InvalidValue":
        tell(path, expected ?? annotation(issue.annotations, "expected") ?? "a valid value")
        break
      case "MissingKey":
        tell(path, annotation(issue.annotations, "messageMissingKey") ?? "this key to be there")
        break
      case "UnexpectedKey":
        tell(path, annotation(issue.ast.annotations, "messageUnexpectedKey") ?? "no such key")
        break
      case "Forbidden":
        tell(path, "nothing that needs more than the answer to be decided")
        break
      case "OneOf":
        tell(path, "exactly one of several alternatives")
        break
    }
  }
  return { issues, count }
}

const isKnown = (segment: PropertyKey, known: ReadonlySet<PropertyKey>): boolean =>
  typeof segment === "number" || known.has(segment) || (typeof segment === "string" && /^\d{1,9}$/.test(segment))

/** Whether an issue is about a part of the value, and not about all of it. */
const goesDeeper = (issue: SchemaIssue.Issue): boolean => {
  switch (issue._tag) {
    case "Pointer":
    case "Composite":
      return true
    case "Filter":
    case "Encoding":
      return goesDeeper(issue.issue)
    case "AnyOf":
      return issue.issues.length === 1 && goesDeeper(issue.issues[0]!)
    default:
      return false
  }
}

const namesByAst = new WeakMap<SchemaAST.AST, ReadonlySet<PropertyKey>>()

/** Every name of a property that a schema mentions, on either side of its transformations. */
export const knownNames = (ast: SchemaAST.AST): ReadonlySet<PropertyKey> => {
  const before = namesByAst.get(ast)
  if (before !== undefined) return before
  const names = new Set<PropertyKey>()
  const seen = new Set<SchemaAST.AST>()
  const pending: Array<SchemaAST.AST> = [ast]
  for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
    if (seen.has(node)) continue
    seen.add(node)
    for (const link of node.encoding ?? []) pending.push(link.to)
    switch (node._tag) {
      case "Objects":
        for (const { name, type } of node.propertySignatures) {
          names.add(name)
          pending.push(type)
        }
        for (const { parameter, type } of node.indexSignatures) pending.push(parameter, type)
        break
      case "Arrays":
        pending.push(...node.elements, ...node.rest)
        break
      case "Union":
        pending.push(...node.types)
        break
      case "Suspend":
        pending.push(node.thunk())
        break
      case "Declaration":
        pending.push(...node.typeParameters)
        break
      case "Literal":
        // The names of a record with literal keys.
        if (typeof node.literal === "string") names.add(node.literal)
        break
      default:
    }
  }
  namesByAst.set(ast, names)
  return names
}
