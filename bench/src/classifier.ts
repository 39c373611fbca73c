/**
 * Scores the classifier on the corpus of labelled failures, when it is there.
 *
 * `node bench/src/classifier.ts [file]` prints tags strictly and leniently,
 * each tag by itself, `retryable`, hints, and what was missed.
 */
import { Classifier } from "@understudy/core"
import { Duration } from "effect"
import { existsSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

interface Case {
  readonly id: string
  readonly provider: string
  readonly status: number | null
  readonly headers: Record<string, string> | null
  readonly body: string
  readonly where: Classifier.Where
  readonly expect_tag: string
  readonly alt_tag: string | null
  readonly retryable: boolean
  readonly retry_after_ms: number | null
}

const signalOf = (c: Case): Classifier.Signal => {
  const headers = c.headers ?? {}
  const status = c.status === null ? {} : { status: c.status }
  switch (c.where) {
    case "network":
      return { where: "network", error: c.body }
    case "http":
      return { where: "http", status: c.status ?? 0, headers, body: c.body }
    case "sse-event":
    case "finish_reason":
      return { where: c.where, headers, body: c.body, ...status }
  }
}

/** Within 2.5 %, or both nothing. */
const sameHint = (expected: number | null, given: number | null): boolean =>
  expected === null || given === null ? expected === given : Math.abs(expected - given) <= expected * 0.025

const judge = (c: Case) => {
  const { failure, hintFrom, rule } = Classifier.explain(signalOf(c), { provider: c.provider })
  const given = failure.retryAfter === undefined ? null : Duration.toMillis(failure.retryAfter)
  return {
    c,
    tag: failure._tag,
    rule,
    hintFrom,
    given,
    strict: failure._tag === c.expect_tag,
    lenient: failure._tag === c.expect_tag || failure._tag === c.alt_tag,
    retryable: failure.retryable === c.retryable,
    hint: sameHint(c.retry_after_ms, given),
  }
}

type Judged = ReturnType<typeof judge>

const share = <A>(items: ReadonlyArray<A>, is: (a: A) => boolean): string => {
  const right = items.filter(is).length
  return items.length === 0 ? "-" : `${((100 * right) / items.length).toFixed(1)} % (${right}/${items.length})`
}

const report = (name: string, judged: ReadonlyArray<Judged>): ReadonlyArray<string> => {
  const hinted = judged.filter(({ c }) => c.retry_after_ms !== null)
  const unhinted = judged.filter(({ c }) => c.retry_after_ms === null)
  return [
    `${name}: tag ${share(judged, (j) => j.strict)}, with alternatives ${share(judged, (j) => j.lenient)},`,
    `  retryable ${share(judged, (j) => j.retryable)}, hints found ${share(hinted, (j) => j.hint)}, invented ${share(unhinted, (j) => !j.hint)}`,
  ]
}

const file = process.argv[2] ?? fileURLToPath(new URL("../../../shared/corpus/provider-errors.jsonl", import.meta.url))

const lines: Array<string> = []
if (existsSync(file)) {
  const judged = readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line): Case => JSON.parse(line))
    .map(judge)
  lines.push(...report("all", judged))
  for (const tag of [...new Set(judged.map(({ c }) => c.expect_tag))].toSorted()) {
    const own = judged.filter(({ c }) => c.expect_tag === tag)
    lines.push(`  ${tag.padEnd(22)} ${share(own, (j) => j.strict).padEnd(18)} lenient ${share(own, (j) => j.lenient)}`)
  }
  for (const j of judged.filter((j) => !j.strict || !j.retryable || !j.hint)) {
    const { c } = j
    lines.push(
      `miss ${c.id}: ${c.expect_tag}${c.alt_tag === null ? "" : ` or ${c.alt_tag}`}, ${c.retryable}, ${c.retry_after_ms} ms`,
    )
    lines.push(
      `  was ${j.tag}, ${j.rule}, ${j.retryable ? c.retryable : !c.retryable}, ${j.given} ms ${j.hintFrom ?? ""}`,
    )
  }
} else {
  lines.push(`${file} is not there: nothing to score.`)
}
process.stdout.write(`${lines.join("\n")}\n`)
