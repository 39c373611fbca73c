/** Whose context window holds a prompt. Pure. */

/** A count of the tokens of a request, before it is sent. */
export interface Counted {
  /** Of the prompt. */
  readonly input: number
  /** That the answer may have, where the call says so. */
  readonly output: number
  /** Are they counted as a model counts them? */
  readonly exact: boolean
}

/** An estimate may be half above what it is: `TokenCounter`. */
const margin = 1.5

/** Tokens that the request has for sure. */
export const atLeast = ({ exact, input, output }: Counted): number => (exact ? input : input / margin) + output

/**
 * Those whose window may hold it, and those whose window cannot; all of them may
 * when none could, since whoever counts better will say so.
 */
export const holding = <E extends { readonly contextWindow: number | undefined }>(
  entries: ReadonlyArray<E>,
  counted: Counted,
): { readonly may: ReadonlyArray<E>; readonly cannot: ReadonlyArray<E> } => {
  const least = atLeast(counted)
  const cannot = entries.filter(({ contextWindow }) => contextWindow !== undefined && contextWindow < least)
  if (cannot.length === 0 || cannot.length === entries.length) return { may: entries, cannot: [] }
  return { may: entries.filter((entry) => !cannot.includes(entry)), cannot }
}
