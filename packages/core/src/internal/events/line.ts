/** Names in lines for people and machines: whatever they hold, they stay within their line. */

/** What moves a cursor, colours a terminal, hides or turns text, or ends a line. */
const unseen = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]+/gu

/** The longest name that is told. */
const longest = 200

/** A text in one line, cut where it is too long. */
export const oneLine = (text: string, max = longest): string => {
  const whole = String(text)
  const cut = whole.length > max ? `${whole.slice(0, max - 1)}…` : whole
  return cut.replace(unseen, " ")
}
