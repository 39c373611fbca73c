/**
 * `understudy demo`, the main job: questions asked through three providers that
 * misbehave, and answered all the same.
 *
 * The providers are embedded fault-injecting upstreams, real HTTP servers on
 * the loopback interface, so nothing is needed: no key, no server, no network.
 * The clocks are shortened, and named, so that a bad day passes in seconds. At
 * the end nobody answers, and a ladder still has something to say.
 */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { NodeHttpClient } from "@effect/platform-node"
import { AnswerCache, Degradation, PolicyEvent, StructuredOutput, Understudy } from "@understudy/core"
import { AnthropicMessages, OpenAiChat } from "@understudy/providers"
import { Upstream } from "@understudy/testkit"
import { ask } from "./Ask.ts"
import * as Output from "./Output.ts"
import * as Story from "./Story.ts"

const clocks = {
  timeouts: { firstContent: "600 millis", idle: "600 millis", streamAttempt: "5 seconds" },
  retry: { base: "250 millis", cap: "1 second" },
  breaker: { failures: 3, openFor: "2500 millis", successes: 1 },
  deadline: { stream: "10 seconds" },
} as const

const clocksInWords = [
  "first content 600 ms (default 30 s), gap between parts 600 ms (20 s), stream 5 s (120 s),",
  "backoff 250 ms doubled (500 ms), circuit opens after 3 failures (5) for 2.5 s (60 s) and closes after 1 success (3),",
  "deadline of a call 10 s (180 s)",
]

/** What is asked for as an object. */
const Cast = Schema.Struct({
  lead: Schema.String,
  understudy: Schema.String,
  nights: Schema.Int,
})

/** A question, and how the day is for each of the providers when it is asked. */
const scenes: ReadonlyArray<Scene> = [
  {
    title: "A rate limit is waited out, and the same provider asked again",
    question: "What does an understudy do?",
    aurora: [
      Upstream.status(429, { headers: { "retry-after": "1" } }),
      Upstream.answer("An understudy learns the part, and goes on when the lead cannot."),
    ],
    boreas: [],
    calypso: [],
  },
  {
    title: "One stalls, one fails, and the third answers",
    question: "Why does the show go on?",
    aurora: [Upstream.silence],
    boreas: [Upstream.status(500), Upstream.status(500)],
    calypso: [Upstream.answer("Because someone learned the lines before they were needed.")],
  },
  {
    title: "A third failure in a row opens the circuit",
    question: "How long should one wait for the lead?",
    aurora: [Upstream.status(503), Upstream.status(503)],
    boreas: [Upstream.answer("Not longer than the audience would.")],
    calypso: [],
  },
  {
    title: "The open circuit is passed over: no time is lost on it",
    question: "And if the lead is still ill?",
    aurora: [],
    boreas: [Upstream.answer("Then nobody knocks at the dressing room door.")],
    calypso: [],
  },
  {
    title: "After its rest the circuit lets a probe through, and closes",
    question: "Who plays tonight?",
    pause: 2500,
    aurora: [Upstream.answer("The lead is back.")],
    boreas: [],
    calypso: [],
  },
  {
    title: "An object is asked for, and what is malformed is mended",
    question: "Who plays Hamlet this week?",
    object: true,
    aurora: [
      Upstream.answer("Of course!\n```json\n{'lead': 'Aurora', 'understudy': 'Boreas', nights: 7,}\n```\nBreak a leg!"),
    ],
    boreas: [],
    calypso: [],
  },
  {
    title: "One that does not fit is asked for again, with what was wrong",
    question: "And who plays Ophelia?",
    object: true,
    aurora: [
      Upstream.answer('{"lead":"Calypso","understudy":"Boreas","nights":"all of them"}'),
      Upstream.answer('{"lead":"Calypso","understudy":"Boreas","nights":7}'),
    ],
    boreas: [],
    calypso: [],
  },
  {
    title: "All three are down: the ladder gives an answer that was kept, and says so",
    question: "Who plays tonight?",
    aurora: [Upstream.status(500), Upstream.status(500)],
    boreas: [Upstream.status(500), Upstream.status(500)],
    calypso: [Upstream.status(500), Upstream.status(500)],
  },
  {
    title: "And where nothing was kept, it says what it was told to say",
    question: "Is there a second performance?",
    aurora: [Upstream.status(500), Upstream.status(500)],
    boreas: [Upstream.status(500), Upstream.status(500)],
    calypso: [Upstream.status(500), Upstream.status(500)],
  },
]

interface Scene {
  readonly title: string
  readonly question: string
  /** Is an object asked for? */
  readonly object?: boolean
  /** How long it begins after the last one, in milliseconds. */
  readonly pause?: number
  readonly aurora: ReadonlyArray<Upstream.Step>
  readonly boreas: ReadonlyArray<Upstream.Step>
  readonly calypso: ReadonlyArray<Upstream.Step>
}

interface Told {
  readonly by: string
  readonly source: string | undefined
  readonly attempts: number
  readonly millis: number
}

const play = (json: boolean) =>
  Effect.gen(function* () {
    const script = (name: "aurora" | "boreas" | "calypso") =>
      scenes.flatMap((scene): Array<Upstream.Step> => [...scene[name]])
    const aurora = yield* Upstream.make({ script: script("aurora") })
    const boreas = yield* Upstream.make({ script: script("boreas") })
    const calypso = yield* Upstream.make({ script: script("calypso") })
    const apiKey = Redacted.make("no-key-is-needed-here")

    const company = Understudy.make({
      candidates: [
        { provider: OpenAiChat.make({ name: "aurora", model: "aurora-large", baseUrl: aurora.openaiUrl, apiKey }) },
        {
          provider: AnthropicMessages.make({ name: "boreas", model: "boreas-2", baseUrl: boreas.anthropicUrl, apiKey }),
          priority: 1,
        },
        {
          provider: OpenAiChat.make({ name: "calypso", model: "calypso-mini", baseUrl: calypso.openaiUrl, apiKey }),
          priority: 2,
        },
      ],
      ...clocks,
    })
    const model = company.pipe(
      Degradation.with([
        Degradation.cache({ scope: "everyone" }),
        Degradation.fallback("Please ask at the box office."),
      ]),
    )

    const tell = json ? Story.jsonLines : Story.teller()
    const told: Array<Told> = []
    const observer: PolicyEvent.Observer = (event) => {
      if (event.event === "Answered") {
        told.push({
          by: event.provider,
          source: event.source,
          attempts: event.attempts,
          millis: event.elapsedMs,
        })
      }
      tell(event)
    }

    const note = json ? () => undefined : Output.note
    note(
      "Three providers, embedded here over real HTTP: aurora and calypso speak OpenAI's protocol, boreas Anthropic's.",
    )
    note("Clocks are shortened for this: " + clocksInWords.join("\n  "))

    for (const [index, scene] of scenes.entries()) {
      note(`\n${index + 1}. ${scene.title}`)
      if (scene.pause !== undefined) {
        note(`     (${scene.pause} ms later)`)
        yield* Effect.sleep(scene.pause)
      }
      if (!json) Output.line(`\n> ${scene.question}`)
      if (scene.object === true) {
        const asked = StructuredOutput.generate(company, { prompt: scene.question, schema: Cast })
        const { repairs, value } = yield* asked.pipe(PolicyEvent.observe(observer))
        if (!json) Output.line(JSON.stringify(value))
        if (repairs.length > 0) note(`     (mended: ${[...new Set(repairs.map(({ kind }) => kind))].join(", ")})`)
      } else yield* ask(model, scene.question, { stream: true, json, observer })
    }

    const seen = yield* Effect.all([aurora.count, boreas.count, calypso.count])
    note("\nWho answered")
    for (const [index, { attempts, by, millis, source }] of told.entries()) {
      const count = `${attempts} attempt${attempts === 1 ? " " : "s"}`
      const who = source === undefined || source === "primary" ? by : `(${source})`
      note(
        `  ${index + 1}. ${who.padEnd(10)} ${count} ${(millis / 1000).toFixed(2).padStart(5)} s   ${scenes[index]?.question ?? ""}`,
      )
    }
    note(`Requests that arrived: aurora ${seen[0]}, boreas ${seen[1]}, calypso ${seen[2]}.`)
  })

/** The command. */
export const command = Command.make(
  "demo",
  {
    json: Flag.Boolean("json").pipe(
      Flag.withDescription("Print the policy events on stdout, one JSON object a line"),
      Flag.withDefault(false),
    ),
  },
  ({ json }) =>
    play(json).pipe(
      Effect.scoped,
      Effect.provide([Understudy.layer, AnswerCache.layerMemory(), NodeHttpClient.layerUndici]),
      Effect.mapError((failure) => Output.userError(failure.message, failure)),
    ),
).pipe(Command.withDescription("Questions asked through three misbehaving providers, and answered all the same"))
