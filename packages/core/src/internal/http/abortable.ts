/** A body that tells its reader when it was aborted. */

/**
 * The same bytes, until the signal aborts: the source is cancelled at once, whether anyone reads or not, and the body
 * ends with these last words. What nobody had read by then is not sent. A body that was all there stays whole.
 */
export const abortable = (
  source: ReadableStream<Uint8Array>,
  signal: AbortSignal,
  lastWords: () => Uint8Array,
  sent: (bytes: Uint8Array) => Uint8Array,
): ReadableStream<Uint8Array> => {
  const reader = source.getReader()
  /** All is there or told, and no abort changes that. */
  let ended = false
  /** The last words were said. */
  let cut = false
  let onAbort: () => void
  const end = (): void => {
    ended = true
    signal.removeEventListener("abort", onAbort)
  }
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        onAbort = () => {
          if (ended) return
          end()
          cut = true
          controller.enqueue(lastWords())
          controller.close()
          reader.cancel(signal.reason).catch(() => undefined)
        }
        if (signal.aborted) return onAbort()
        signal.addEventListener("abort", onAbort, { once: true })
        // Nothing is missing any more, though it may not have been read yet.
        reader.closed.then(end, () => undefined)
      },
      async pull(controller) {
        try {
          const { done, value } = await reader.read()
          if (cut) return
          if (done) {
            end()
            controller.close()
          } else controller.enqueue(sent(value))
        } catch (error) {
          end()
          controller.error(error)
        }
      },
      cancel(reason) {
        end()
        return reader.cancel(reason)
      },
    },
    // The source holds one element ready, and two would be one more that is never read.
    { highWaterMark: 0 },
  )
}
