/**
 * Server-sent events, read from bytes that are cut anywhere.
 *
 * The format is that of the HTML standard (section 9.2): lines end with LF,
 * CRLF or CR, comments are skipped, several `data` lines make one event, a byte
 * order mark at the beginning is no text. What providers do beyond it:
 *
 * - the last event may lack the blank line behind it
 * - a line that is a JSON object without a field name counts as data, and
 *   `error: {…}` as data of an event `error`
 *
 * `id` and `retry` say nothing here, as no stream is taken up again.
 */

/** One event. */
export interface Event {
  /** The name, where there is one. */
  readonly name: string | undefined
  readonly data: string
  /** The body ended within this event, so that it may be cut. */
  readonly last: boolean
}

/** The longest event, in UTF-16 code units: 1 Mi. */
export const maxEvent = 1024 * 1024

const LF = 10
const CR = 13
const SPACE = 32

const lineEnd = (chunk: string, from: number): number => {
  for (let i = from; i < chunk.length; i++) {
    const code = chunk.charCodeAt(i)
    if (code === LF || code === CR) return i
  }
  return -1
}

/** Reads the events of one body. */
export class Reader {
  /** An event was longer than allowed. Nothing is read any more. */
  tooLong = false
  private readonly decoder = new TextDecoder()
  private readonly limit: number
  private events: Array<Event> = []
  private line = ""
  private afterCr = false
  private name: string | undefined = undefined
  private data: string | undefined = undefined

  constructor(limit: number = maxEvent) {
    this.limit = limit
  }

  /** The events that these bytes complete. */
  feed(bytes: Uint8Array): ReadonlyArray<Event> {
    this.read(this.decoder.decode(bytes, { stream: true }))
    return this.taken()
  }

  /** The event that the end of the body completes, if any. */
  end(): ReadonlyArray<Event> {
    this.read(this.decoder.decode())
    const { line } = this
    this.line = ""
    if (line !== "") this.field(line)
    this.dispatch(true)
    return this.taken()
  }

  private taken(): ReadonlyArray<Event> {
    const { events } = this
    this.events = []
    return events
  }

  private read(chunk: string): void {
    let from = 0
    while (from < chunk.length && !this.tooLong) {
      if (this.afterCr) {
        this.afterCr = false
        if (chunk.charCodeAt(from) === LF) {
          from++
          continue
        }
      }
      const end = lineEnd(chunk, from)
      this.line += chunk.slice(from, end === -1 ? chunk.length : end)
      if (this.line.length + (this.data?.length ?? 0) > this.limit) {
        this.tooLong = true
        return
      }
      if (end === -1) return
      const { line } = this
      this.line = ""
      this.afterCr = chunk.charCodeAt(end) === CR
      from = end + 1
      if (line === "") this.dispatch(false)
      else this.field(line)
    }
  }

  private dispatch(last: boolean): void {
    const { data, name } = this
    this.data = undefined
    this.name = undefined
    if (data !== undefined && data !== "") this.events.push({ name, data, last })
  }

  private field(line: string): void {
    const colon = line.indexOf(":")
    if (colon === 0) return
    const field = colon === -1 ? line : line.slice(0, colon)
    const value = colon === -1 ? "" : line.slice(line.charCodeAt(colon + 1) === SPACE ? colon + 2 : colon + 1)
    if (field === "data") this.append(value)
    else if (field === "event") this.name = value === "" ? undefined : value
    else if (field === "error") {
      this.name = "error"
      this.append(value)
    } else if (line.startsWith("{")) this.append(line)
  }

  private append(value: string): void {
    this.data = this.data === undefined ? value : `${this.data}\n${value}`
  }
}
