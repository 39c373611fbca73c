/** Rows of words, in columns. */
import * as Output from "./Output.ts"

/** Prints rows below their heads; columns in which nothing stands are left out. */
export const print = (heads: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): void => {
  const columns = heads.map((head, index) => [head, ...rows.map((row) => Output.plain(row[index] ?? ""))])
  const shown = columns.filter(([, ...words]) => words.some((word) => word !== ""))
  const widths = shown.map((words) => Math.max(...words.map(({ length }) => length)))
  for (let row = 0; row <= rows.length; row++) {
    const line = shown.map((words, column) => (words[row] ?? "").padEnd(widths[column] ?? 0)).join("  ")
    Output.line(`  ${line.trimEnd()}`)
  }
}
