/**
 * Ids of tool calls in a history, made valid for the dialect that reads them.
 *
 * An id that is valid stays as it is. Another is replaced by one that depends
 * on it alone, the same for the call and its result. When a history uses one id
 * for two calls, as providers do that count from zero in every answer, the
 * second gets an id of its own.
 */
import * as Hash from "effect/Hash"

/** Which ids a dialect accepts, and how long a new one is: letters and digits only. */
export interface Rule {
  readonly valid: RegExp
  readonly length: number
}

const derived = (id: string, length: number): string => {
  let out = ""
  for (let i = 0; out.length < length; i++) out += (Hash.string(`${i} ${id}`) >>> 0).toString(36)
  return out.slice(-length)
}

/** The ids of one request. */
export class ToolIds {
  private readonly rule: Rule
  private readonly current = new Map<string, string>()
  private readonly taken = new Set<string>()

  constructor(rule: Rule) {
    this.rule = rule
  }

  /** The id of a call. */
  call(id: string): string {
    let wire = this.rule.valid.test(id) ? id : derived(id, this.rule.length)
    for (let n = 2; this.taken.has(wire); n++) wire = derived(`${id} ${n}`, this.rule.length)
    this.taken.add(wire)
    this.current.set(id, wire)
    return wire
  }

  /** The id of a result: that of the last call with this id. */
  result(id: string): string {
    return this.current.get(id) ?? this.call(id)
  }
}
