/** Tables of counterexamples, for messages. */

/** A table of text with aligned columns, indented by two; an arrow points at one row. */
export const table = (
  columns: ReadonlyArray<string>,
  rows: ReadonlyArray<ReadonlyArray<string>>,
  pointAt: number | undefined,
): string => {
  const all = [columns, ...rows]
  const widths = columns.map((_, column) => Math.max(...all.map((row) => (row[column] ?? "").length)))
  return all
    .map((row, index) => {
      const cells = row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ")
      return `${index - 1 === pointAt ? "→ " : "  "}${cells}`.trimEnd()
    })
    .join("\n")
}

/** Milliseconds for a person. */
export const time = (millis: number): string => {
  if (!Number.isFinite(millis)) return String(millis)
  return Math.abs(millis) < 1000 ? `${round(millis)} ms` : `${round(millis / 1000)} s`
}

const round = (n: number): string => String(Math.round(n * 1000) / 1000)
