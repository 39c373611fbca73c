/**
 * What the command prints: answers and data on stdout, the story on stderr.
 *
 * Written at once and in order, so that a story told by an observer stands
 * where it happened.
 */
import * as CliError from "effect/cli/CliError"

/** Text on stdout, as it is. */
export const text = (chunk: string): void => void process.stdout.write(chunk)

/** One line on stdout. */
export const line = (content: string): void => text(`${content}\n`)

/** One line of JSON on stdout. */
export const json = (value: unknown): void =>
  line(JSON.stringify(value).replace(unprintable, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`))

/** What a terminal may take for a command, or reorder text by; line ends and tabs are not among it. */
const unprintable =
  // eslint-disable-next-line no-control-regex -- these are what must not reach a terminal
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g

/** One line on stderr. */
export const note = (content: string): void => void process.stderr.write(`${content}\n`)

/** A failure of the command that is told to its user, and ends it with status 1. */
export const userError = (message: string, cause?: unknown): CliError.UserError =>
  new CliError.UserError({ cause: cause ?? message, userMessage: message })

/** Text of the outside world, safe to show in a terminal: no control characters but line ends and tabs. */
export const plain = (untrusted: string): string => untrusted.replace(unprintable, "")
