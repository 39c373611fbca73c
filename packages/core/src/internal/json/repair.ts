/** What the lenient parser can do to a text, and how much of a guess each of it is. */

/**
 * How far a repair goes.
 *
 * - `safe`: another spelling of the same value. Nothing is guessed.
 * - `guess`: a slip that has one likely reading. The reading may be wrong.
 * - `loss`: something that belongs to the value is missing.
 */
export type Tier = "safe" | "guess" | "loss"

/** Every repair with its tier. */
export const tiers = {
  /** A byte order mark, a no-break space or the like between tokens. */
  "special whitespace": "safe",
  /** `//`, `#` or block comments. */
  comment: "safe",
  /** A comma before a closing bracket. */
  "trailing comma": "safe",
  /** Single, typographic, triple or backtick quotes. */
  "quote style": "safe",
  /** A line end or another control character inside a string. */
  "raw control character": "safe",
  /** A backslash before a character that JSON does not escape. */
  "invalid escape": "safe",
  /** `True`, `None`, `NULL` and the like. */
  "literal spelling": "safe",
  /** `+5`, `.5`, `5.`, `1_000`. */
  "number spelling": "safe",
  /** A key without quotes. */
  "unquoted key": "guess",
  /** A string without quotes. */
  "unquoted value": "guess",
  /** A string with a quote at one end only. */
  "missing quote": "guess",
  /** A quote inside a string that should have been escaped. */
  "unescaped quote": "guess",
  /** Quotes written twice at both ends of a string. */
  "doubled quote": "guess",
  /** Every quote of the value is escaped, as inside of a string. */
  "escaped quote": "guess",
  /** Strings joined by `+`. */
  concatenation: "guess",
  /** A call around a value, as in `ISODate("…")`. */
  call: "guess",
  /** Round brackets around items. */
  tuple: "guess",
  /** Items without keys in curly brackets. */
  set: "guess",
  /** `undefined`, `NaN` or an infinity, which become null. */
  "no such literal": "guess",
  /** A comma that was not there. */
  "missing comma": "guess",
  /** A comma with nothing between it and another. */
  "extra comma": "guess",
  /** A colon that was not there, or `=` or `=>` in its place. */
  "missing colon": "guess",
  /** A key without a value, which becomes null. */
  "missing value": "guess",
  /** A closing bracket that was not there though the text went on. */
  "missing bracket": "guess",
  /** A closing bracket of another kind. */
  "wrong bracket": "guess",
  /** A closing bracket that nothing opened. */
  "extra bracket": "guess",
  /** Text between tokens that belongs to nothing. */
  "stray text": "guess",
  /** `...` in the place of items. */
  ellipsis: "loss",
  /** The text ended inside the value. */
  truncated: "loss",
} as const satisfies Record<string, Tier>

/** What was repaired. */
export type RepairKind = keyof typeof tiers

/** One repair: what, how far it goes, and at which UTF-16 unit of the text. */
export interface Repair {
  readonly kind: RepairKind
  readonly tier: Tier
  readonly position: number
}

const order: Record<Tier, number> = { safe: 0, guess: 1, loss: 2 }

/** Whether a tier is within what is allowed. */
export const within = (tier: Tier, allowed: Tier): boolean => order[tier] <= order[allowed]

/** How many repairs there are of each tier, the worst first: what candidates are compared by. */
export const weigh = (repairs: ReadonlyArray<Repair>): readonly [loss: number, guess: number, safe: number] => {
  let loss = 0
  let guess = 0
  for (let i = 0; i < repairs.length; i++) {
    const { tier } = repairs[i]!
    if (tier === "loss") loss++
    else if (tier === "guess") guess++
  }
  return [loss, guess, repairs.length - loss - guess]
}
