/** A composition that tells who answered: it marks what goes out with the candidate of the call record. */
import type * as Arr from "effect/Array"
import type * as Response from "effect/ai/Response"
import * as Effect from "effect/Effect"
import type { LanguageModelFace } from "../../LanguageModelFace.ts"
import * as Origin from "../../Origin.ts"
import { fromParts, need, peek, type Provider } from "../provider.ts"

type Parts<P> = Arr.NonEmptyReadonlyArray<P>

/** Marks a run of parts. */
export const markAll = <P extends Response.AnyPartEncoded>(parts: Parts<P>, origin: Origin.Origin): Parts<P> => {
  const [first, ...rest] = parts
  return [Origin.mark(first, origin), ...rest.map((part) => Origin.mark(part, origin))]
}

/** Marks an answer or the head of a stream, in which somebody always says who answered. */
export const markBeginning = <P extends Response.AnyPartEncoded>(
  parts: ReadonlyArray<P | Response.ResponseMetadataPartEncoded>,
  origin: Origin.Origin,
): Parts<P | Response.ResponseMetadataPartEncoded> => {
  const marked = parts.map((part) => Origin.mark(part, origin))
  const [first, ...rest] = marked
  return first === undefined || !marked.some((part) => part.type === "response-metadata")
    ? [Origin.mark({ type: "response-metadata" }, origin), ...marked]
    : [first, ...rest]
}

/** The same provider, marking what goes out. */
export const marked = <E, R>(self: Provider<LanguageModelFace, E, R>): Provider<LanguageModelFace, E, R> =>
  fromParts({
    name: self.name,
    model: self.model,
    face: self.face,
    generate: (request, record) =>
      Effect.map(self.generate(request), (answer) => markBeginning(answer, record.answered ?? originOf(self))),
    open: (request, scope, record) =>
      Effect.map(self.open(request, scope), (opened) => {
        const origin = record.answered ?? originOf(self)
        return {
          ...opened,
          head: markBeginning(opened.head, origin),
          rest: Effect.map(opened.rest, (parts) => markAll(parts, origin)),
        }
      }),
    peek: (context, record, now) => peek(self, context, record, now),
    need: (kind) => need(self, kind),
    inner: [self],
  })

const originOf = ({ model, name }: { readonly name: string; readonly model: string }): Origin.Origin => ({
  provider: name,
  model,
})
