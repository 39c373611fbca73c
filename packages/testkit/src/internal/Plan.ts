/**
 * What the server does for one request, as a list of acts. Pure: the same step
 * and request make the same plan, and the server only carries it out.
 */
import * as Duration from "effect/Duration"
import type { Content, Fault, FaultOf, Step, Wire } from "../UpstreamScript.ts"
import { protocol as anthropic } from "./Anthropic.ts"
import { protocol as openai } from "./OpenAi.ts"
import * as Turn from "./Turn.ts"

/** One thing the server does. After `Reset`, `Close`, `Hang` and `End` nothing follows. */
export type Act =
  | { readonly _tag: "Wait"; readonly duration: Duration.Duration }
  | { readonly _tag: "Head"; readonly status: number; readonly headers: Readonly<Record<string, string>> }
  | { readonly _tag: "Write"; readonly bytes: Uint8Array }
  | { readonly _tag: "End" }
  | { readonly _tag: "Reset" }
  | { readonly _tag: "Close" }
  | { readonly _tag: "Hang" }

/** The protocols by dialect. */
export const protocols = { openai, anthropic }

const end: Act = { _tag: "End" }
const reset: Act = { _tag: "Reset" }
const close: Act = { _tag: "Close" }
const hang: Act = { _tag: "Hang" }

const encoder = new TextEncoder()
const write = (text: string): Act => ({ _tag: "Write", bytes: encoder.encode(text) })
const wait = (duration: Duration.Input | undefined): ReadonlyArray<Act> => {
  const time = Duration.fromInputUnsafe(duration ?? 0)
  return Duration.isZero(time) ? [] : [{ _tag: "Wait", duration: time }]
}

/** A comment of an event stream, as servers send it to keep a connection alive. */
export const comment = (wire: Wire): string => `: keep-alive${eol(wire)}${eol(wire)}`

const eol = (wire: Wire): string => (wire.crlf === true ? "\r\n" : "\n")

/** What a handler of a step works with. */
interface Stage {
  readonly ask: Turn.Ask
  readonly wire: Wire
  readonly protocol: Turn.Protocol
  readonly head: (contentType: string, options?: { readonly status?: number; readonly length?: number }) => Act
}

const contentTypes = {
  json: "application/json",
  stream: "text/event-stream; charset=utf-8",
  html: "text/html; charset=utf-8",
}

/** Plans what the server does when this step is played for this request. */
export const make = (step: Step, ask: Turn.Ask, wire: Wire): ReadonlyArray<Act> => {
  const protocol = protocols[ask.dialect]
  const stage: Stage = {
    ask,
    wire,
    protocol,
    head: (contentType, { length, status = 200 } = {}) => ({
      _tag: "Head",
      status,
      headers: {
        "content-type": contentType,
        [protocol.requestIdHeader]: ask.requestId,
        ...(contentType === contentTypes.stream ? { "cache-control": "no-cache" } : {}),
        ...withoutFraming(step.headers ?? {}),
        ...(length === undefined ? {} : { "content-length": String(length) }),
      },
    }),
  }
  return [...wait(step.latency), ...("fault" in step ? planFault(step, stage) : goodAnswer(step, stage))]
}

const withoutFraming = (headers: Readonly<Record<string, string | number>>): Readonly<Record<string, string>> =>
  Object.fromEntries(
    Object.entries(headers)
      .map(([name, value]) => [name.toLowerCase(), String(value)] as const)
      .filter(([name]) => name !== "content-length" && name !== "transfer-encoding"),
  )

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

const goodAnswer = (content: Content, stage: Stage, options?: Parameters<typeof Turn.make>[2]): ReadonlyArray<Act> => {
  const turn = Turn.make(stage.ask, content, options)
  if (stage.ask.streaming) {
    const { marker, preamble, tokens, trailer } = events(turn, content, stage)
    return [stage.head(contentTypes.stream), ...preamble, ...tokens.flat(), ...trailer, ...marker, end]
  }
  const bytes = unaryBytes(turn, stage)
  return [
    ...generation(turn, content),
    stage.head(contentTypes.json, { length: bytes.length }),
    { _tag: "Write", bytes },
    end,
  ]
}

const unaryBytes = (turn: Turn.Turn, stage: Stage): Uint8Array =>
  encoder.encode(JSON.stringify(withUnknownFields(stage.protocol.body(turn), stage.wire)))

/** The time a unary answer takes until its last token, before its headers. */
const generation = (turn: Turn.Turn, content: Content): ReadonlyArray<Act> => {
  const tokens = turn.blocks.reduce((sum, block) => sum + block.pieces.length, 0)
  const each = Duration.times(Duration.fromInputUnsafe(content.tokenDelay ?? 0), Math.max(0, tokens - 1))
  return wait(Duration.sum(Duration.fromInputUnsafe(content.firstTokenDelay ?? 0), each))
}

interface Events {
  readonly preamble: ReadonlyArray<Act>
  /** The acts of each token, its delay included. */
  readonly tokens: ReadonlyArray<ReadonlyArray<Act>>
  readonly trailer: ReadonlyArray<Act>
  readonly marker: ReadonlyArray<Act>
}

const events = (turn: Turn.Turn, content: Content, stage: Stage): Events => {
  const frames = stage.protocol.frames(turn)
  const unknown =
    stage.wire.unknownEvents === true ? eventActs([stage.protocol.unknownFrame(stage.ask)], stage.wire) : []
  return {
    preamble: [...eventActs(frames.preamble, stage.wire), ...unknown],
    tokens: frames.tokens.map((token, index) => [
      ...wait(index === 0 ? content.firstTokenDelay : content.tokenDelay),
      ...eventActs(token, stage.wire),
    ]),
    trailer: [...unknown, ...eventActs(frames.trailer, stage.wire)],
    marker: stage.wire.endMarker === false ? [] : eventActs(frames.marker, stage.wire),
  }
}

const eventActs = (frames: ReadonlyArray<Turn.Frame>, wire: Wire): ReadonlyArray<Act> =>
  frames.map((frame) => write((wire.comments === true ? comment(wire) : "") + eventText(frame, wire)))

const eventText = (frame: Turn.Frame, wire: Wire): string => {
  const colon = wire.noSpace === true ? ":" : ": "
  // A line break inside the data would end the line: each line gets its own `data:`.
  const lines = dataText(frame, wire)
    .split(/\r\n|\n|\r/)
    .map((line) => `data${colon}${line}`)
  return [...(frame.event === undefined ? [] : [`event${colon}${frame.event}`]), ...lines, "", ""].join(eol(wire))
}

const dataText = (frame: Turn.Frame, wire: Wire): string =>
  typeof frame.data === "string" ? frame.data : JSON.stringify(withUnknownFields(frame.data, wire))

const withUnknownFields = (value: unknown, wire: Wire): unknown => (wire.unknownFields === true ? salted(value) : value)

const salted = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(salted)
  if (typeof value !== "object" || value === null) return value
  return {
    ...Object.fromEntries(Object.entries(value).map(([key, field]) => [key, key === "input" ? field : salted(field)])),
    understudy_unknown: { nested: [1, "two", null] },
  }
}

// -----------------------------------------------------------------------------
// Faults
// -----------------------------------------------------------------------------

const planFault = <Name extends Fault["fault"]>(step: FaultOf<Name>, stage: Stage): ReadonlyArray<Act> => {
  const handler: Handlers[Name] = handlers[step.fault as Name]
  return handler(step, stage)
}

type Handlers = {
  readonly [Name in Fault["fault"]]: (step: FaultOf<Name>, stage: Stage) => ReadonlyArray<Act>
}

/** The first tokens of an answer, whatever the mode, and then this. */
const partly = (
  step: Content & { readonly afterTokens?: number },
  stage: Stage,
  then: Act | { readonly unary: Act; readonly stream: Act },
): ReadonlyArray<Act> => {
  const after = step.afterTokens ?? 2
  const turn = Turn.make(stage.ask, step, { atLeast: after + 1 })
  const last = "_tag" in then ? { unary: then, stream: then } : then
  if (stage.ask.streaming) {
    const { preamble, tokens } = events(turn, step, stage)
    return [stage.head(contentTypes.stream), ...preamble, ...tokens.slice(0, after).flat(), last.stream]
  }
  const bytes = unaryBytes(turn, stage)
  return [
    stage.head(contentTypes.json, { length: bytes.length }),
    { _tag: "Write", bytes: share(bytes, turn, after) },
    last.unary,
  ]
}

/** The part of a unary body that stands for so many tokens: never nothing, never all. */
const share = (bytes: Uint8Array, turn: Turn.Turn, tokens: number): Uint8Array => {
  const total = turn.blocks.reduce((sum, block) => sum + block.pieces.length, 0)
  const cut = Math.floor((bytes.length * tokens) / Math.max(1, total))
  return bytes.subarray(0, Math.min(Math.max(1, cut), bytes.length - 1))
}

const whole = (contentType: string, status: number, text: string, stage: Stage): ReadonlyArray<Act> => {
  const bytes = encoder.encode(text)
  return [stage.head(contentType, { status, length: bytes.length }), { _tag: "Write", bytes }, end]
}

const looksLikeJson = (text: string): boolean => /^\s*[[{]/.test(text)

const page = (status: number): string =>
  `<!DOCTYPE html>\n<html><head><title>${status}</title></head>\n<body><h1>${status}</h1><p>nginx</p></body></html>\n`

const handlers: Handlers = {
  status: (step, stage) => {
    const { protocol } = stage
    const body = step.body ?? protocol.errorBody(protocol.error(step.status), stage.ask.requestId)
    const text = typeof body === "string" ? body : JSON.stringify(body)
    const type = typeof body === "string" && !looksLikeJson(text) ? "text/plain; charset=utf-8" : contentTypes.json
    return whole(type, step.status, text, stage)
  },

  "reset-before-headers": () => [reset],
  "close-before-headers": () => [close],
  hang: () => [hang],

  silence: (_, stage) => [stage.head(stage.ask.streaming ? contentTypes.stream : contentTypes.json), hang],

  stall: (step, stage) => partly(step, stage, hang),
  reset: (step, stage) => partly(step, stage, reset),
  "end-early": (step, stage) => partly(step, stage, { unary: close, stream: end }),

  "slow-drip": (step, stage) => {
    const every = step.every ?? "100 millis"
    if (stage.ask.streaming) return goodAnswer({ firstTokenDelay: every, tokenDelay: every, ...step }, stage)
    const turn = Turn.make(stage.ask, step)
    const bytes = unaryBytes(turn, stage)
    const count = turn.blocks.reduce((sum, block) => sum + block.pieces.length, 0)
    const size = Math.max(1, Math.ceil(bytes.length / Math.max(1, count)))
    const pieces = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index): ReadonlyArray<Act> => [
      ...wait(every),
      { _tag: "Write", bytes: bytes.subarray(index * size, (index + 1) * size) },
    ])
    return [stage.head(contentTypes.json, { length: bytes.length }), ...pieces.flat(), end]
  },

  "error-in-band": (step, stage) => {
    const { ask, protocol, wire } = stage
    const body = step.body ?? protocol.errorBody(step.error ?? defaultInBand(stage), ask.requestId)
    if (!ask.streaming) {
      return whole(contentTypes.json, 200, typeof body === "string" ? body : JSON.stringify(body), stage)
    }
    const error = eventActs([protocol.errorFrame(body)], wire)
    if (step.afterTokens === undefined) return [stage.head(contentTypes.stream), ...error, end]
    const before = partly(step, stage, end)
    return [...before.slice(0, -1), ...error, end]
  },

  "truncated-json": (step, stage) => {
    const { ask, protocol, wire } = stage
    const after = step.afterTokens ?? 2
    const turn = Turn.make(ask, step, { atLeast: after + 2 })
    if (!ask.streaming) {
      const bytes = share(unaryBytes(turn, stage), turn, after)
      return [stage.head(contentTypes.json, { length: bytes.length }), { _tag: "Write", bytes }, end]
    }
    const { marker, preamble, tokens, trailer } = events(turn, step, stage)
    const frames = protocol.frames(turn)
    const victim = frames.tokens[after]?.at(-1) ?? frames.trailer.at(-1)
    const text = victim === undefined ? '{"' : dataText(victim, wire)
    const cut = eventActs([{ ...victim, data: text.slice(0, Math.ceil(text.length / 2)) }], wire)
    return [
      stage.head(contentTypes.stream),
      ...preamble,
      ...tokens.slice(0, after).flat(),
      ...cut,
      ...(step.thenContinue === true ? [...tokens.slice(after + 1).flat(), ...trailer, ...marker] : []),
      end,
    ]
  },

  html: (step, stage) => {
    const status = step.status ?? 200
    return whole(contentTypes.html, status, step.body ?? page(status), stage)
  },

  "empty-choices": (step, stage) => goodAnswer(step, stage, { blocks: [] }),
  "missing-usage": (step, stage) => goodAnswer(step, stage, { usage: false }),

  // The refusal itself is the state of the listener. What is planned here is for
  // a request that was faster.
  refuse: () => [reset],
}

const defaultInBand = ({ ask, protocol }: Stage): unknown => protocol.error(ask.dialect === "anthropic" ? 529 : 500)
