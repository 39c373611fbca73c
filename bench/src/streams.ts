/**
 * What one part of a stream costs: the bare stream, whose source is a promise for
 * each part, and the same behind a commit point, a breaker and all clocks of a
 * stream. Prints one JSON object: nanoseconds a part for each case, the median
 * of the batches.
 */
import { Effect, Stream } from "effect"
import { CircuitBreaker, LanguageModelFace, Provider, Timeouts, Understudy } from "@understudy/core"

const parts = 4000
const batches = 15

const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!

const delta: LanguageModelFace.Part = { type: "text-delta", id: "0", delta: "word " }
const end: LanguageModelFace.Part = {
  type: "finish",
  reason: "stop",
  usage: { inputTokens: {}, outputTokens: {} },
}

/** A chunk for each part, and a promise for each chunk. */
const source = Stream.fromAsyncIterable(
  {
    async *[Symbol.asyncIterator]() {
      yield { type: "text-start", id: "0" } as LanguageModelFace.Part
      for (let n = 2; n < parts; n++) yield delta
      yield end
    },
  },
  (cause) => cause,
).pipe(Stream.orDie, Stream.rechunk(1))

const provider = Provider.make<LanguageModelFace.LanguageModelFace>({
  name: "leaf",
  model: "leaf",
  face: LanguageModelFace.languageModelFace,
  generate: () => Effect.die("streams only"),
  stream: () => source,
})
const request = LanguageModelFace.request("Say many words.")

const time = <E, R>(stream: Stream.Stream<unknown, E, R>): Effect.Effect<number, E, R> =>
  Effect.gen(function* () {
    const out: Array<number> = []
    for (let b = 0; b < batches; b++) {
      const begin = process.hrtime.bigint()
      yield* Stream.runDrain(stream)
      out.push(Number(process.hrtime.bigint() - begin) / parts)
    }
    return median(out.slice(3))
  })

const run = Effect.gen(function* () {
  return {
    "a part of the bare stream": yield* time(source),
    "a part behind commit point and end marker": yield* time(provider.stream(request)),
    "a part behind all clocks and a breaker": yield* time(
      provider
        .pipe(Timeouts.with({ minimumRate: { parts: 1, within: "10 seconds" } }), CircuitBreaker.with())
        .stream(request),
    ),
    "a part behind the preset": yield* time(Understudy.make({ candidates: [{ provider }] }).stream(request)),
  }
}).pipe(Effect.provide(Understudy.layer))

process.stdout.write(`${JSON.stringify(await Effect.runPromise(run))}\n`)
