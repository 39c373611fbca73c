/** What a schema expects, in words: its author's where there are any, and never what a check said about a value. */
import * as SchemaAST from "effect/SchemaAST"

/** A text among annotations. */
export const annotation = (annotations: object | undefined, name: string): string | undefined => {
  const value = annotations === undefined ? undefined : (annotations as Readonly<Record<string, unknown>>)[name]
  return typeof value === "string" ? value : undefined
}

const described = (annotations: object | undefined): string | undefined =>
  annotation(annotations, "expected") ?? annotation(annotations, "message")

/** What the author of a check says about it; never what the check said about the answer. */
export const expectedByCheck = ({ annotations }: SchemaAST.Check<unknown>): string | undefined =>
  described(annotations) ?? annotation(annotations, "description") ?? annotation(annotations, "title")

/** What the author of a schema says that it expects. */
export const describe = (ast: SchemaAST.AST): string | undefined => annotation(SchemaAST.resolve(ast), "expected")

const words: Partial<Record<SchemaAST.AST["_tag"], string>> = {
  Null: "null",
  Undefined: "undefined",
  Void: "nothing",
  Never: "nothing",
  String: "a string",
  Number: "a number",
  Boolean: "a boolean",
  BigInt: "an integer as a string",
  Objects: "an object",
  ObjectKeyword: "an object or an array",
  Arrays: "an array",
}

const maxAlternatives = 32
const notFinite = ["Infinity", "-Infinity", "NaN"].map((word) => JSON.stringify(word))

/** The members of a union, and of unions that are members of it. */
const alternatives = (ast: SchemaAST.Union): ReadonlyArray<SchemaAST.AST> => {
  const members: Array<SchemaAST.AST> = []
  const pending: Array<SchemaAST.AST> = [ast]
  for (let type = pending.pop(); type !== undefined; type = pending.pop()) {
    const named = described(SchemaAST.resolve(type)) !== undefined
    if (SchemaAST.isUnion(type) && (type === ast || !named)) pending.push(...type.types.toReversed())
    else members.push(type)
  }
  return members
}

/** The property that tells the members of a union apart, and what it may be: all of them have it, as a literal. */
export const discriminator = (
  ast: SchemaAST.Union,
): { readonly name: PropertyKey; readonly expected: string } | undefined => {
  const members = alternatives(ast)
  const [first] = members
  if (first === undefined || !SchemaAST.isObjects(first)) return undefined
  for (const { name } of first.propertySignatures) {
    const literals = members.flatMap((member): ReadonlyArray<string> => {
      const type = SchemaAST.isObjects(member)
        ? member.propertySignatures.find((property) => property.name === name)?.type
        : undefined
      return type !== undefined && SchemaAST.isLiteral(type) ? [expectedOf(type)] : []
    })
    if (literals.length === members.length) return { name, expected: `one of ${[...new Set(literals)].join(", ")}` }
  }
  return undefined
}

/** What a value of this schema is. */
export const expectedOf = (ast: SchemaAST.AST): string => {
  const named = described(SchemaAST.resolve(ast))
  if (named !== undefined) return named
  switch (ast._tag) {
    case "Literal":
      return typeof ast.literal === "string" ? JSON.stringify(ast.literal) : String(ast.literal)
    case "Enum":
      return `one of ${ast.enums.map(([, value]) => JSON.stringify(value)).join(", ")}`
    case "TemplateLiteral":
      return "a string of the given form"
    case "Union": {
      const said = new Set(alternatives(ast).map((type) => (SchemaAST.isSuspend(type) ? "a value" : expectedOf(type))))
      // On the JSON side a number may also be one of these words, and what is optional may be null: no advice to give.
      if (said.has("a number") || said.has("a finite number")) for (const word of notFinite) said.delete(word)
      if (said.size > 1) said.delete("undefined")
      const members = [...said]
      const more = members.length > maxAlternatives ? ", …" : ""
      return members.length === 1 ? members[0]! : `one of ${members.slice(0, maxAlternatives).join(", ")}${more}`
    }
    case "Suspend":
      return "a value"
    case "Declaration":
      return annotation(ast.annotations, "identifier") ?? "a valid value"
    default:
      return words[ast._tag] ?? "a valid value"
  }
}
