/** What a schema says about the root of a value and about the nodes below it, seen from the JSON side. */
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import * as SchemaIssue from "effect/SchemaIssue"
import * as Cause from "effect/Cause"
import { collect, type Issue, knownNames } from "./issues.ts"
import type { Path } from "./tree.ts"

/** Which brackets the value may begin with. */
export interface RootKinds {
  readonly object: boolean
  readonly array: boolean
}

/** The issues of a finished node: nothing when it fits, or when the schema does not say what it should be. */
export type Members = (path: Path, value: unknown) => ReadonlyArray<Issue>

export const anyRoot: RootKinds = { object: true, array: true }

/** How many aliases are followed. */
const maxAliases = 16

/** The JSON side of a node. */
const encodedSide = (ast: SchemaAST.AST): SchemaAST.AST => {
  let node = ast
  for (let k = 0; k < maxAliases; k++) {
    if (node.encoding !== undefined) node = node.encoding[node.encoding.length - 1]!.to
    else if (SchemaAST.isSuspend(node)) node = node.thunk()
    else break
  }
  return node
}

/** Which brackets a value of the schema may begin with. */
export const rootKinds = (ast: SchemaAST.AST): RootKinds => {
  const node = encodedSide(ast)
  switch (node._tag) {
    case "Objects":
      // An object without properties stands for anything but null and undefined.
      return { object: true, array: node.propertySignatures.length + node.indexSignatures.length === 0 }
    case "Arrays":
      return { object: false, array: true }
    case "Union": {
      const kinds = node.types.map((type) => (SchemaAST.isSuspend(type) ? anyRoot : rootKinds(type)))
      return { object: kinds.some(({ object }) => object), array: kinds.some(({ array }) => array) }
    }
    case "String":
    case "Number":
    case "Boolean":
    case "Null":
    case "Literal":
    case "TemplateLiteral":
    case "Enum":
      return { object: false, array: false }
    default:
      return anyRoot
  }
}

/** The schema of one member of a node, where the schema has one. */
const memberOf = (ast: SchemaAST.AST, key: string | number): SchemaAST.AST | undefined => {
  const node = encodedSide(ast)
  if (SchemaAST.isObjects(node)) {
    const property = node.propertySignatures.find(({ name }) => name === key)
    return property?.type ?? (node.propertySignatures.length === 0 ? node.indexSignatures[0]?.type : undefined)
  }
  if (SchemaAST.isArrays(node) && typeof key === "number") {
    return node.elements[key] ?? (node.rest.length === 1 ? node.rest[0] : undefined)
  }
  return undefined
}

type Decode = (json: unknown, options: { readonly errors: "all" }) => Exit.Exit<unknown, Schema.SchemaError>

/**
 * Decodes finished nodes of the first level, and items of arrays on it: so each
 * unit of an answer is decoded a fixed number of times, however deep it is.
 */
export const membersOf = (codec: Schema.Top): Members => {
  const decoders = new Map<SchemaAST.AST, Decode>()
  const known = knownNames(codec.ast)
  return (path, value) => {
    const [first, second] = path
    if (first === undefined || (second !== undefined && typeof second !== "number")) return []
    const outer = memberOf(codec.ast, first)
    const ast = outer === undefined || second === undefined ? outer : memberOf(outer, second)
    if (ast === undefined) return []
    let decode = decoders.get(ast)
    if (decode === undefined) {
      decode = Schema.decodeUnknownExit(Schema.make<Schema.Codec<unknown>>(ast))
      decoders.set(ast, decode)
    }
    const exit = decode(value, { errors: "all" })
    if (Exit.isSuccess(exit)) return []
    const issue = exit.cause.reasons.find(Cause.isFailReason)?.error.issue
    if (!SchemaIssue.isIssue(issue)) return []
    const at = path.map((key) => (typeof key === "number" || known.has(key) ? key : "*"))
    return collect(issue, known, 10).issues.map(({ expected, path: below }) => ({ path: [...at, ...below], expected }))
  }
}
