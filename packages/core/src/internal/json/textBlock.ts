/**
 * The content of a text block, as triple quotes or a fence hold it: a line end
 * behind the opening quotes and in front of the closing ones is not part of it,
 * nor is the indentation that all lines share. Behind three backticks there may
 * be the name of a language.
 */
export const textBlock = (content: string, fence: boolean): string => {
  const firstLine = content.indexOf("\n")
  if (firstLine < 0 || (!fence && content.slice(0, firstLine).trim() !== "")) return content
  const lines = content.slice(firstLine + 1).split("\n")
  if (lines.length > 1 && lines[lines.length - 1]!.trim() === "") lines.pop()
  let shared = Number.MAX_SAFE_INTEGER
  for (const line of lines) {
    const text = line.trimStart()
    if (text !== "") shared = Math.min(shared, line.length - text.length)
  }
  return lines.map((line) => line.slice(Math.min(shared, line.length))).join("\n")
}
