/**
 * A face: what kind of thing a provider is asked, and what it answers.
 *
 * The policies are generic in it. What they must know about an answer or a part
 * of a stream they learn from the face: whether a part is content, whether it
 * is the end, whether it is a failure in disguise. `LanguageModelFace` is the
 * face of language models.
 *
 * **Details**
 *
 * A stream's inspector is made for each attempt and may remember what it saw,
 * because a part alone does not always tell (bytes are split anywhere).
 */
import type { Told } from "./internal/events/told.ts"
import type { Delivered, LlmError } from "./internal/llmError.ts"

/** Who is asked: goes into the failures that the face finds. */
export interface Subject {
  readonly provider: string
  readonly model: string
}

/**
 * What a part of a stream is, as bits that combine.
 *
 * - `0` preamble: metadata, keep-alives; held back before the commit point
 * - `1` content: the first one is the commit point
 * - `2` end: the end marker; without it a stream is interrupted
 * - `4` failure: the part says that the provider failed
 */
export const Verdict = { preamble: 0, content: 1, end: 2, failure: 4 } as const

/** Looks at the parts of one attempt, in order. */
export interface Inspector<in Part, out Hidden = LlmError> {
  /** The bits of `Verdict` for the next part. */
  readonly verdict: (part: Part) => number
  /** The failure of a part whose verdict has the failure bit. */
  readonly failure: (part: Part) => Hidden
  /** What the caller has had so far. */
  readonly delivered: () => Delivered
  /** The text that the caller has had so far, where the face knows text. */
  readonly text?: () => string
  /** What the stream has told about itself so far, for events. */
  readonly told?: () => Told | undefined
}

/** What a provider is asked, what it answers, and which failures the face itself finds in answers and parts. */
export interface Face<in out Request, in out Answer, in out Part, out Hidden = never> {
  readonly name: string
  /** Does a whole stream end with a marker? Then one that just stops is interrupted. */
  readonly endMarker: boolean
  /** The failure that an answer hides, if it does: a refusal, say. */
  readonly judge: (answer: Answer, subject: Subject) => Hidden | undefined
  /** A new inspector, for one attempt. */
  readonly inspect: (subject: Subject) => Inspector<Part, Hidden>
  /** The text of an answer, for events. */
  readonly text: (answer: Answer) => string
  /** The text of a part, for events. */
  readonly partText: (part: Part) => string
  /** What an answer tells about itself, for events. */
  readonly told?: (answer: Answer) => Told | undefined
  /** Never present: carries the types. */
  readonly "~types"?: { readonly request: (_: Request) => Request; readonly answer: Answer; readonly part: Part }
}

export type { Told }

/** Any face. */
// eslint-disable-next-line typescript/no-explicit-any -- a bound over an invariant type needs it
export type Any = Face<any, any, any, any>

/** What is asked. */
export type Request<F extends Any> = F extends Face<infer A, infer _B, infer _C, infer _D> ? A : never
/** What is answered. */
export type Answer<F extends Any> = F extends Face<infer _A, infer B, infer _C, infer _D> ? B : never
/** What a stream is made of. */
export type Part<F extends Any> = F extends Face<infer _A, infer _B, infer C, infer _D> ? C : never
/** The failures that the face finds in answers and parts. */
export type Hidden<F extends Any> = F extends Face<infer _A, infer _B, infer _C, infer D> ? D : never

/** A face for plain effects and streams: every part is content, the end needs no marker, nothing is hidden. */
export interface Plain<in out A> extends Face<void, A, A> {}

/** The face of plain effects and streams. */
export const plain = <A>(): Plain<A> => ({
  name: "plain",
  endMarker: false,
  judge: () => undefined,
  inspect: () => {
    let parts = 0
    return {
      verdict: () => {
        parts++
        return Verdict.content
      },
      failure: () => {
        throw new Error("A plain part never is a failure")
      },
      delivered: () => ({ parts, characters: 0, inside: "nothing" }),
    }
  },
  text: () => "",
  partText: () => "",
})
