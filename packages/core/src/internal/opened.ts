/** The commit point: from a stream of parts to an opened stream, whose preamble is held back. */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Pull from "effect/Pull"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Inspector, Subject } from "../Face.ts"
import { Verdict } from "../Face.ts"
import type { Told } from "./events/told.ts"
import { type Delivered, isLlmError, type LlmError, StreamInterrupted, withEvidence, withText } from "./llmError.ts"

/** How a stream ended. Written once, by whoever sees it first. */
export class Ended {
  /** Nothing while the stream runs. An interruption: its consumer left before the end. */
  exit: Exit.Exit<void, unknown> | undefined = undefined
  private readonly observers: Array<(exit: Exit.Exit<void, unknown>) => void> = []

  settle(exit: Exit.Exit<void, unknown>): void {
    if (this.exit !== undefined) return
    this.exit = exit
    for (const observer of this.observers) observer(exit)
  }

  /** Calls back once, at the end. */
  observe(observer: (exit: Exit.Exit<void, unknown>) => void): void {
    if (this.exit === undefined) this.observers.push(observer)
    else observer(this.exit)
  }
}

/** A stream at its commit point. */
export interface Opened<out Part> {
  /** The preamble and the first content. Empty only for a face without end marker, whose stream held nothing. */
  readonly head: ReadonlyArray<Part>
  /** The rest, as a pull. Its only failure is `StreamInterrupted`. */
  readonly rest: Pull.Pull<Arr.NonEmptyReadonlyArray<Part>, StreamInterrupted>
  /** How it ended. */
  readonly ended: Ended
  /** What came so far. */
  readonly delivered: () => Delivered
  /** How many parts of content came so far. */
  readonly contents?: (() => number) | undefined
  /** The text that came so far, where the face knows text. */
  readonly text?: (() => string) | undefined
  /** What it has told about itself so far. */
  readonly told?: (() => Told | undefined) | undefined
}

type Parts<Part> = Arr.NonEmptyReadonlyArray<Part>

/** The failure of a stream that was interrupted after its commit point. */
export const interrupted = (
  subject: Subject,
  failure: unknown,
  delivered: Delivered,
  text?: string,
): StreamInterrupted => {
  const known = isLlmError(failure) ? failure : undefined
  const out = new StreamInterrupted({
    provider: subject.provider,
    model: subject.model,
    committed: true,
    delivered,
    ...(known === undefined ? {} : { failure: known, retryable: known.retryable }),
    ...(known?.retryAfter === undefined ? {} : { retryAfter: known.retryAfter }),
    ...(known?.status === undefined ? {} : { status: known.status }),
    ...(known?.requestId === undefined ? {} : { requestId: known.requestId }),
  })
  if (text !== undefined && text !== "") withText(out, text)
  return known === undefined && failure !== undefined ? withEvidence(out, { cause: failure }) : out
}

/** A cause after the commit point: failures are inside `StreamInterrupted`, all else stays. */
export const afterCommit = (
  subject: Subject,
  cause: Cause.Cause<unknown>,
  delivered: Delivered,
  text?: string,
): Cause.Cause<StreamInterrupted> =>
  Cause.map(cause, (failure) =>
    isLlmError(failure) && failure._tag === "StreamInterrupted" && failure.committed
      ? failure
      : interrupted(
          subject,
          isLlmError(failure) && failure._tag === "StreamInterrupted" && failure.failure !== undefined
            ? failure.failure
            : failure,
          delivered,
          text,
        ),
  )

/**
 * Opens a stream: pulls until the first content, holding the preamble back.
 *
 * The stream's source lives in a scope of its own below `scope`, which is
 * closed at once when it fails before the commit point.
 */
export const openStream = <Part, E, R, Hidden extends LlmError>(
  stream: Stream.Stream<Part, E, R>,
  inspector: Inspector<Part, Hidden>,
  endMarker: boolean,
  subject: Subject,
  scope: Scope.Scope,
): Effect.Effect<Opened<Part>, E | Hidden | StreamInterrupted, R> =>
  Effect.suspend(() => {
    const attemptScope = Scope.forkUnsafe(scope)
    const ended = new Ended()
    let sawEnd = false
    let contents = 0
    const facts = {
      delivered: inspector.delivered,
      told: inspector.told,
      contents: () => contents,
      text: inspector.text,
    }

    // Looks at a chunk: what may be emitted of it, whether it holds content, and a failure behind that.
    const look = (
      chunk: Parts<Part>,
    ): { parts: ReadonlyArray<Part>; content: boolean; failed: { readonly part: Part } | undefined } => {
      let content = false
      for (let index = 0; index < chunk.length; index++) {
        const part = chunk[index]!
        const verdict = inspector.verdict(part)
        if ((verdict & Verdict.failure) !== 0) return { parts: chunk.slice(0, index), content, failed: { part } }
        if ((verdict & Verdict.content) !== 0) {
          content = true
          contents++
        }
        if ((verdict & Verdict.end) !== 0) sawEnd = true
      }
      return { parts: chunk, content, failed: undefined }
    }

    const fail = (failure: unknown): Effect.Effect<never, StreamInterrupted> => {
      const exit = Exit.fail(interrupted(subject, failure, inspector.delivered(), inspector.text?.()))
      ended.settle(exit)
      return exit
    }

    const makeRest = (
      pull: Pull.Pull<Parts<Part>, E, void, R>,
      context: Context.Context<R>,
      failedInHead: { readonly part: Part } | undefined,
    ): Opened<Part>["rest"] => {
      if (failedInHead !== undefined) return Effect.suspend(() => fail(inspector.failure(failedInHead.part)))
      let pending: Effect.Effect<never, StreamInterrupted> | undefined
      // Made once, and run for each pull.
      const asked = Effect.matchCauseEffect(pull, {
        onSuccess: (chunk): Opened<Part>["rest"] => {
          const { failed, parts } = look(chunk)
          if (failed !== undefined) {
            const failing = Effect.suspend(() => fail(inspector.failure(failed.part)))
            if (parts.length === 0) return failing
            pending = failing
          } else if (sawEnd) {
            ended.settle(Exit.void)
          }
          return Effect.succeed(parts as unknown as Parts<Part>)
        },
        onFailure: (cause): Opened<Part>["rest"] => {
          if (Pull.isDoneCause(cause)) {
            if (endMarker) return fail(undefined)
            ended.settle(Exit.void)
            return Cause.done()
          }
          const after = afterCommit(subject, cause, inspector.delivered(), inspector.text?.())
          const exit = Exit.failCause(after)
          if (!Cause.hasInterruptsOnly(after)) ended.settle(exit)
          return exit
        },
      }) as unknown as Effect.Effect<Parts<Part>, StreamInterrupted | Cause.Done<void>, R>
      const within = Effect.provideContext(asked, context)
      const next = Effect.withFiber((fiber) =>
        pending !== undefined
          ? pending
          : sawEnd
            ? // The answer is whole, whatever its source does behind the end marker.
              Cause.done()
            : // Whoever guards the stream pulls it with its services already.
              fiber.context === (context as Context.Context<never>)
              ? (asked as typeof within)
              : within,
      )
      return next
    }

    const open = Effect.gen(function* () {
      yield* Scope.addFinalizer(
        attemptScope,
        Effect.sync(() => ended.settle(Exit.interrupt())),
      )
      const context = yield* Effect.context<R>()
      const pull = yield* Channel.toPullScoped(Stream.toChannel(stream), attemptScope)
      const preamble: Array<Part> = []
      while (true) {
        const exit = yield* Effect.exit(pull)
        if (exit._tag === "Failure") {
          if (!Pull.isDoneCause(exit.cause)) return yield* Effect.failCause(exit.cause as Cause.Cause<E>)
          if (!endMarker) {
            ended.settle(Exit.void)
            return { head: preamble, rest: Cause.done(), ended, ...facts }
          }
          return yield* new StreamInterrupted({
            provider: subject.provider,
            model: subject.model,
            committed: false,
            detail: preamble.length === 0 ? "It sent nothing." : "It sent no content.",
          })
        }
        const { content, failed, parts } = look(exit.value)
        preamble.push(...parts)
        if (failed !== undefined && !content) return yield* Effect.fail(inspector.failure(failed.part))
        if (content || sawEnd) {
          if (sawEnd && failed === undefined) ended.settle(Exit.void)
          return {
            head: preamble,
            rest: makeRest(pull as Pull.Pull<Parts<Part>, E, void, R>, context, failed),
            ended,
            ...facts,
          }
        }
      }
    })

    return Effect.onExitPrimitive(open, (exit) =>
      exit._tag === "Failure" ? Scope.close(attemptScope, exit) : undefined,
    )
  })

/** A stream that emits what was held back, and then the rest. */
export const toStream = <Part, E, R>(
  open: (scope: Scope.Scope) => Effect.Effect<Opened<Part>, E, R>,
): Stream.Stream<Part, E | StreamInterrupted, R> =>
  Stream.fromChannel(
    Channel.fromTransform((_upstream: Pull.Pull<unknown, unknown, unknown>, scope) =>
      Effect.map(open(scope), ({ head, rest }) => {
        let first = true
        return Effect.suspend((): Pull.Pull<Parts<Part>, E | StreamInterrupted> => {
          if (!first) return rest
          first = false
          return Arr.isReadonlyArrayNonEmpty(head) ? Effect.succeed(head) : rest
        })
      }),
    ),
  ) as Stream.Stream<Part, E | StreamInterrupted, R>
