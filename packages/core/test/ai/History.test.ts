import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Ref, Schema, Stream } from "effect"
import { Chat, Prompt, type Response, Tool, Toolkit } from "effect/ai"
import {
  CircuitBreaker,
  Failover,
  History,
  LanguageModelFace,
  LanguageModelLayer,
  LlmError,
  Origin,
  Timeouts,
  Understudy,
} from "@understudy/core"
import { failure, play } from "../stub.ts"
import { actor, call, finish, text } from "./actor.ts"

type Request = LanguageModelFace.Request

const a: Origin.Origin = { provider: "a", model: "a-1" }
const b: Origin.Origin = { provider: "b", model: "b-1" }
const by = ({ model, provider }: Origin.Origin, more: Prompt.ProviderOptions = {}): Prompt.ProviderOptions => ({
  ...more,
  understudy: { provider, model },
})

const asked = (...messages: ReadonlyArray<Prompt.Message>): Request =>
  LanguageModelFace.request(Prompt.fromMessages(messages))
const user = Prompt.userMessage({ content: [Prompt.textPart({ text: "Hi", options: { anthropic: { cache: true } } })] })
const assistant = (...content: ReadonlyArray<Prompt.AssistantMessagePart>) => Prompt.assistantMessage({ content })
const results = (...ids: ReadonlyArray<string>) =>
  Prompt.toolMessage({
    content: ids.map((id) =>
      Prompt.toolResultPart({ id, name: "t", isFailure: false, result: id, providerExecuted: false }),
    ),
  })
const toolCall = (id: string, options: Prompt.ProviderOptions = {}, providerExecuted = false) =>
  Prompt.toolCallPart({ id, name: "t", params: {}, providerExecuted, options })
const thought = (options: Prompt.ProviderOptions) => Prompt.reasoningPart({ text: "Hm.", options })

const partsOf = (request: Request): ReadonlyArray<Prompt.Part> =>
  request.prompt.content.flatMap((message): ReadonlyArray<Prompt.Part> =>
    typeof message.content === "string" ? [] : message.content,
  )
/** The ids of calls and results, in order. */
const idsOf = (request: Request): ReadonlyArray<string> =>
  partsOf(request).flatMap((part) =>
    part.type === "tool-call" || part.type === "tool-result"
      ? [part.id]
      : part.type === "tool-approval-request"
        ? [part.toolCallId]
        : [],
  )

describe("History.portable", () => {
  it("is the same request when there is nothing to take out", () => {
    const request = asked(
      user,
      assistant(thought(by(a, { a: { signature: "s" } })), toolCall("x y", by(a))),
      results("x y"),
    )
    assert.strictEqual(History.portable(request, a), request)
    const unmarked = asked(user, assistant(thought({ a: { signature: "s" } }), toolCall("call_1")), results("call_1"))
    assert.strictEqual(History.portable(unmarked, a), unmarked)
  })

  it("takes out somebody else's reasoning and metadata, and leaves the text", () => {
    const request = asked(
      user,
      assistant(
        thought(by(a, { a: { signature: "s" } })),
        Prompt.textPart({ text: "Hello", options: by(a, { a: { itemId: "i" } }) }),
        toolCall("call_1", by(a, { a: { itemId: "j" } })),
      ),
      results("call_1"),
    )
    const portable = History.portable(request, b)
    assert.deepStrictEqual(
      partsOf(portable).map((part) => [part.type, part.options]),
      [
        ["text", { anthropic: { cache: true } }],
        ["text", {}],
        ["tool-call", {}],
        ["tool-result", {}],
      ],
    )
    assert.notStrictEqual(portable, request)
    assert.strictEqual(partsOf(request).length, 5)
  })

  it("another model of the same provider is somebody else", () => {
    const request = asked(user, assistant(thought(by(a)), Prompt.textPart({ text: "Hello" })))
    assert.strictEqual(partsOf(History.portable(request, { ...a, model: "a-2" })).length, 2)
  })

  it("drops a message of which nothing is left, and calls of tools that somebody else ran, with their results", () => {
    const ran = Prompt.toolResultPart({
      id: "s1",
      name: "t",
      isFailure: false,
      result: 1,
      providerExecuted: true,
      options: {},
    })
    const request = asked(user, assistant(thought(by(a))), assistant(toolCall("s1", by(a), true), ran), user)
    assert.deepStrictEqual(
      History.portable(request, b).prompt.content.map(({ role }) => role),
      ["user", "user"],
    )
    assert.strictEqual(History.portable(request, a), request)
  })

  it("keeps ids that every dialect accepts, and replaces others by the same one for call, approval and result", () => {
    const long = "toolu|".repeat(20)
    const request = asked(
      user,
      assistant(
        toolCall("call_1", by(a)),
        toolCall(long, by(a)),
        Prompt.toolApprovalRequestPart({ approvalId: "ok", toolCallId: long }),
      ),
      results(long, "call_1"),
    )
    const [first, second, approved, ...back] = idsOf(History.portable(request, b))
    assert.strictEqual(first, "call_1")
    assert.match(second!, /^[a-zA-Z0-9_-]{1,40}$/)
    assert.strictEqual(approved, second)
    assert.deepStrictEqual(back, [second!, "call_1"])
    assert.deepStrictEqual(idsOf(History.portable(request, b)), idsOf(History.portable(request, b)))
  })

  it("gives two calls two ids, where a provider counts from zero in every answer, and leaves one's own", () => {
    const request = asked(
      user,
      assistant(toolCall("0", by(a))),
      results("0"),
      assistant(toolCall("0", by(a))),
      results("0"),
      assistant(toolCall("0", by(b))),
      results("0"),
    )
    const ids = idsOf(History.portable(request, b))
    assert.deepStrictEqual([ids[0], ids[2], ids[4]], [ids[1], ids[3], ids[5]])
    assert.strictEqual(new Set(ids).size, 3)
    assert.strictEqual(ids[4], "0")
  })

  it("hands a response id to the one whose answer it was, and to nobody else", () => {
    const request: Request = {
      ...asked(user, assistant(Prompt.textPart({ text: "Hello", options: by(a) })), user),
      previousResponseId: "resp_1",
      incrementalPrompt: Prompt.fromMessages([user]),
    }
    assert.strictEqual(History.portable(request, a).previousResponseId, "resp_1")
    assert.isDefined(History.portable(request, a).incrementalPrompt)
    assert.isUndefined(History.portable(request, b).previousResponseId)
    assert.isUndefined(History.portable(request, b).incrementalPrompt)
  })

  const Turns = Arbitrary.array(
    Arbitrary.schema(
      Schema.Struct({
        who: Schema.Literals(["a", "b", "nobody"]),
        ids: Schema.Array(Schema.Literals(["0", "1", "x y", "call_1", "ü", "-".repeat(41)])),
      }),
    ),
    { maxLength: 12 },
  )
  it.effect.prop(
    "every result keeps its call, ids are valid and unique but for one's own",
    { turns: Turns },
    ({ turns }) =>
      Effect.sync(() => {
        const origin = { a: by(a), b: by(b), nobody: {} }
        const request = asked(
          ...turns.flatMap(({ ids, who }) => {
            const each = [...new Set(ids)]
            return [assistant(...each.map((id) => toolCall(id, origin[who]))), results(...each)]
          }),
        )
        const portable = History.portable(request, b)
        const before = partsOf(request)
        const after = partsOf(portable)
        assert.strictEqual(after.length, before.length)
        const seen = new Set<string>()
        const current = new Map<string, string>()
        for (const [index, part] of after.entries()) {
          const was = before[index]!
          if (part.type === "tool-call" && was.type === "tool-call") {
            const own = Origin.of(was)?.provider === "b"
            if (own) assert.strictEqual(part.id, was.id)
            else {
              assert.match(part.id, /^[a-zA-Z0-9_-]{1,40}$/)
              assert.isFalse(seen.has(part.id))
            }
            seen.add(part.id)
            current.set(was.id, part.id)
          } else if (part.type === "tool-result" && was.type === "tool-result") {
            assert.strictEqual(part.id, current.get(was.id))
          }
        }
        // Twice is once.
        assert.deepStrictEqual(idsOf(History.portable(portable, b)), idsOf(portable))
      }),
    { arbitrary: { runs: 1000, size: 60 } },
  )
})

/**
 * A provider that signs its reasoning, numbers its calls in its own way, and
 * refuses a history that holds anything of somebody else's.
 */
const strict = (name: string, up: (attempt: number) => boolean) => {
  const refused: Array<string> = []
  const signed = { [name]: { signature: `${name}-signature` } }
  const stranger = (request: Request): string | undefined => {
    if (request.previousResponseId !== undefined) return "a response id"
    const calls = new Set<string>()
    for (const part of partsOf(request)) {
      for (const key of Object.keys(part.options)) {
        if (key !== name && key !== Origin.namespace && key !== "app") return `${part.type}: metadata of ${key}`
      }
      if (part.type === "reasoning" && part.options[name] === undefined) return "reasoning without a signature"
      if (part.type === "tool-call") {
        if (!(part.id.startsWith(`${name}|`) || /^[a-zA-Z0-9_-]{1,40}$/.test(part.id))) return `the id ${part.id}`
        if (calls.has(part.id)) return `the id ${part.id} twice`
        calls.add(part.id)
      }
      if (part.type === "tool-result" && !calls.has(part.id)) return `a result without a call, ${part.id}`
    }
    return undefined
  }
  const played = actor<LlmError.InvalidRequest | LlmError.ProviderUnavailable>(name, (request, attempt) => {
    if (!up(attempt)) return Effect.fail(failure("ProviderUnavailable", name, { retryable: false }))
    const problem = stranger(request)
    if (problem !== undefined) {
      refused.push(problem)
      return Effect.fail(failure("InvalidRequest", name, { detail: problem }))
    }
    const last = request.prompt.content.at(-1)
    const thinking: Response.ReasoningPartEncoded = { type: "reasoning", text: "Hm.", metadata: signed }
    return Effect.succeed(
      last?.role === "user"
        ? [
            { type: "response-metadata", id: `${name}-resp` } as const,
            thinking,
            call("Look", { where: "up" }, `${name}|${attempt}/0`, signed),
            call("Look", { where: "down" }, `${name}|${attempt}/1`, signed),
            finish("tool-calls"),
          ]
        : [thinking, text(`${name} saw it`, signed), finish()],
    )
  })
  return { ...played, refused }
}

const Look = Tool.make("Look", { parameters: Schema.Struct({ where: Schema.String }), success: Schema.String })
const eyes = Toolkit.make(Look)

describe("History.guard", () => {
  const conversation = (chat: Chat.Chat, kind: "generate" | "stream") =>
    Effect.gen(function* () {
      const answers: Array<string> = []
      for (let turn = 1; turn <= 5; turn++) {
        const ask = (prompt: Prompt.RawInput) =>
          kind === "generate"
            ? Effect.map(
                chat.generateText({ prompt, toolkit: eyes }),
                ({ content }) => content as ReadonlyArray<Response.AnyPart>,
              )
            : Effect.map(
                Stream.runCollect(chat.streamText({ prompt, toolkit: eyes })),
                (parts): ReadonlyArray<Response.AnyPart> => parts,
              )
        const first = yield* ask(`Turn ${turn}: look`)
        assert.strictEqual(first.filter(({ type }) => type === "tool-result").length, 2)
        const second = yield* ask([])
        answers.push(Origin.ofAnswer(second)?.provider ?? "nobody")
      }
      return answers
    })

  for (const kind of ["generate", "stream"] as const) {
    it.effect(`five turns with tools and reasoning fail over in the middle, and back (${kind})`, () =>
      Effect.gen(function* () {
        let looks = 0
        // The lead is there for its first five answers, then gone for four, then back.
        const lead = strict("lead", (attempt) => attempt <= 5 || attempt > 9)
        const understudy = strict("understudy", () => true)
        const chat = yield* Chat.fromPrompt([
          { role: "system", content: "Look." },
          { role: "user", content: [{ type: "text", text: "Ready?", options: { app: { kept: true } } }] },
        ])
        const model = Understudy.make({
          candidates: [
            { provider: History.guard(lead.provider), retry: false, breaker: false },
            { provider: History.guard(understudy.provider), priority: 1, retry: false, breaker: false },
          ],
        })
        const { exit } = yield* play(
          conversation(chat, kind).pipe(
            Effect.provide(LanguageModelLayer.layer(model)),
            Effect.provide(Understudy.layer),
            Effect.provide(eyes.toLayer({ Look: ({ where }) => Effect.sync(() => `${where} ${++looks}`) })),
          ),
        )
        assert.deepStrictEqual([lead.refused, understudy.refused], [[], []])
        assert.deepStrictEqual(yield* exit, ["lead", "lead", "understudy", "understudy", "lead"])
        assert.strictEqual(looks, 10)
        // The caller's history holds everything as it was: both signatures, and the ids that were given.
        const history = yield* Ref.get(chat.history)
        const kept = history.content.flatMap((message): ReadonlyArray<Prompt.Part> =>
          typeof message.content === "string" ? [] : message.content,
        )
        const signers = kept.flatMap((part) => (part.type === "reasoning" ? [Origin.of(part)?.provider] : []))
        assert.deepStrictEqual(new Set(signers), new Set(["lead", "understudy"]))
        assert.isTrue(kept.some((part) => part.type === "tool-call" && part.id.startsWith("understudy|")))
        // Its own reasoning came back to the lead, with its signature.
        const last = lead.requests.at(-1)!
        assert.isTrue(partsOf(last).some((part) => part.type === "reasoning" && part.options["lead"] !== undefined))
        assert.isTrue(partsOf(last).some((part) => part.options["app"] !== undefined))
      }),
    )

    it.effect(`without it the same conversation is refused (${kind})`, () =>
      Effect.gen(function* () {
        const lead = strict("lead", (attempt) => attempt <= 5)
        const understudy = strict("understudy", () => true)
        const chat = yield* Chat.empty
        yield* conversation(chat, kind).pipe(
          Effect.provide(LanguageModelLayer.layer(Failover.make([lead.provider, understudy.provider]))),
          Effect.provide(eyes.toLayer({ Look: ({ where }) => Effect.succeed(where) })),
          Effect.exit,
        )
        assert.isTrue(understudy.refused.length > 0)
      }),
    )
  }

  it.effect("it is still one attempt to the policies around it", () =>
    Effect.gen(function* () {
      const { provider } = actor("a", () => Effect.never)
      const model = Failover.make([
        History.guard(provider).pipe(Timeouts.with({ attempt: "2 seconds" }), CircuitBreaker.with({ failures: 1 })),
      ])
      const ask = model.generate(LanguageModelFace.request("Hi"))
      const { exit, millis } = yield* play(
        Effect.provide(Effect.andThen(Effect.exit(ask), Effect.exit(ask)), CircuitBreaker.layer),
      )
      const found = yield* Effect.flip(yield* exit)
      assert.deepStrictEqual(
        found._tag === "AllProvidersFailed" ? found.failures.map(({ _tag }) => _tag) : found._tag,
        ["CircuitOpen"],
      )
      assert.strictEqual(millis, 2000)
      assert.isTrue(LlmError.isLlmError(found))
    }),
  )
})
