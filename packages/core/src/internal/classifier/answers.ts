/**
 * Answers that are failures: what stands in a body under a status of success.
 */
import * as Predicate from "effect/Predicate"
import * as Loose from "./loose.ts"
import type { Rule } from "./rules.ts"
import * as Said from "./said.ts"

/** Finish reasons that say that there is no good answer, as the providers spell them. */
export const finishRules: ReadonlyArray<Rule> = [
  {
    id: "finish/filtered",
    when: {
      codes: [
        "content_filter",
        "content_filtered",
        "content-filter",
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "MODEL_ARMOR",
        "LANGUAGE",
        "JAILBREAK",
        "refusal",
        "guardrail_intervened",
        "guardrail",
        "ERROR_TOXIC",
        "sensitive",
        "moderation",
        "flagged",
        "policy_violation",
      ],
    },
    tag: "ContentFiltered",
    stage: "answer",
  },
  {
    id: "finish/context",
    when: { codes: ["model_context_window_exceeded", "context_length_exceeded", "ERROR_LIMIT"] },
    tag: "ContextLengthExceeded",
  },
  {
    id: "finish/malformed",
    when: {
      codes: [
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE",
        "malformed_model_output",
        "malformed_tool_use",
        "invalid_tool_call",
      ],
    },
    tag: "InvalidResponse",
    kind: "content",
    detail: "The model wrote a call or an answer that is not well formed.",
  },
  {
    id: "finish/no-reason",
    when: { codes: ["OTHER", "NO_IMAGE", "IMAGE_OTHER", "FINISH_REASON_UNSPECIFIED", "unknown"] },
    tag: "InvalidResponse",
    detail: "The model stopped for a reason that it does not state.",
  },
  {
    id: "finish/overloaded",
    when: { codes: ["insufficient_system_resource", "overloaded"] },
    tag: "Overloaded",
  },
  {
    id: "finish/timeout",
    when: { codes: ["timeout", "timed_out", "deadline_exceeded"] },
    tag: "TimedOut",
    phase: "provider",
  },
  {
    id: "finish/error",
    when: {
      codes: [
        "error",
        "failed",
        "network_error",
        "server_error",
        "internal_error",
        "cancelled",
        "canceled",
        "abort",
        "aborted",
        "user_cancel",
      ],
    },
    tag: "ProviderUnavailable",
  },
]

const byReason = new Map<string, Rule>(
  finishRules.flatMap((rule) => (rule.when.codes ?? []).map((code) => [Said.plain(code), rule])),
)

/** The rule of a finish reason, or `undefined` when it is a normal end, or not known. */
export const ofReason = (reason: string): Rule | undefined => byReason.get(Said.plain(reason.slice(0, 120)))

const rule = (id: string, detail: string, more: Partial<Rule> = {}): Rule => ({
  id: `answer/${id}`,
  when: {},
  tag: "InvalidResponse",
  detail,
  ...more,
})

const empty = rule("empty", "The body is empty.")
const login = rule("login-page", "It is a page to log in: the address is behind something that is not the API.", {
  retryable: false,
})
const page = rule("page", "It is a web page.")
const notJson = rule("not-json", "It is not JSON, or was cut off.")
const noChoices = rule("no-choices", "It holds no choice at all.")
const noContent = rule("no-content", "It holds a choice without any content.")
const unknownShape = rule("unknown-shape", "It holds nothing that an answer has.")
const blocked = rule("prompt-blocked", "", { tag: "ContentFiltered", stage: "prompt" })

/** What was found: a rule that holds, an error that is to be read, or nothing to object to. */
export type Finding = { readonly rule: Rule } | { readonly error: unknown } | undefined

/** Where an answer has its content, over all the kinds of models. */
const answerKeys = [
  "choices",
  "candidates",
  "content",
  "output",
  "output_text",
  "message",
  "response",
  "text",
  "generated_text",
  "generation",
  "generations",
  "completion",
  "outputs",
  "results",
  "result",
  "data",
  "embedding",
  "embeddings",
  "predictions",
  "delta",
  "type",
  "usage",
  "usageMetadata",
  "done",
  "models",
]

const isSet = (u: unknown): boolean =>
  u !== undefined && u !== null && u !== false && u !== "" && !(Array.isArray(u) && u.length === 0)

const get = (u: unknown, key: string): unknown => (Predicate.isReadonlyObject(u) ? u[key] : undefined)

const list = (u: unknown): ReadonlyArray<unknown> => (Array.isArray(u) ? u.slice(0, 64) : [])

/**
 * Looks at a body under a status of success. A text longer than 64 KiB is an
 * answer unless it begins as an error; a parsed value is looked at whatever its
 * size, since only the places named here are visited.
 */
export const inspect = (body: unknown): Finding => {
  if (typeof body !== "string") return inspectValue(body, 0)
  const text = body.slice(0, Said.maxBody)
  if (text.trim() === "") return { rule: empty }
  if (Said.isHtml(text)) {
    return {
      rule:
        /type=["']?password|<title>[^<]{0,100}(?:sign|log)[ -]?in/i.test(text) ||
        /<form\b[^>]{0,300}(?:login|signin|sso|saml)/i.test(text)
          ? login
          : page,
    }
  }
  if (body.length > Said.maxBody) {
    // An error is short. Of what is long, the beginning tells no more than whether it is one.
    const finding = inspectValue(Loose.read(text).value, 0)
    return finding !== undefined && "error" in finding ? finding : undefined
  }
  try {
    return inspectValue(JSON.parse(text), 0)
  } catch {
    const sent = Said.events(text)
    return sent.length === 0
      ? { rule: notJson }
      : sent.map((value) => inspectValue(value, 0)).find((finding) => finding !== undefined && "error" in finding)
  }
}

const inspectValue = (value: unknown, depth: number): Finding => {
  if (Array.isArray(value)) {
    if (value.length === 0) return { rule: empty }
    return depth > 2
      ? undefined
      : list(value)
          .map((item) => inspectValue(item, depth + 1))
          .find((finding) => finding !== undefined)
  }
  if (!Predicate.isReadonlyObject(value)) return { rule: unknownShape }
  const type = value["type"]
  if (isSet(value["error"]) || type === "error" || value["object"] === "error" || isSet(value["exception"])) {
    return { error: value }
  }
  const base = get(value["base_resp"], "status_code")
  if (base !== undefined && base !== 0) return { error: value }
  const response = value["response"]
  if (Predicate.isReadonlyObject(response) && depth < 2) return inspectValue(response, depth + 1)
  return (
    ofChoices(value) ??
    ofCandidates(value) ??
    ofEnd(value) ??
    (answerKeys.some((key) => typeof value[key] === "object" && value[key] !== null) || isAnswerText(value)
      ? undefined
      : isSet(value["message"]) ||
          isSet(value["detail"]) ||
          isSet(value["errors"]) ||
          isSet(value["msg"]) ||
          isSet(value["error_msg"]) ||
          isSet(value["error_message"])
        ? { error: value }
        : { rule: unknownShape })
  )
}

/** Answers of completion and generation APIs are a text beside other fields. */
const isAnswerText = (value: Readonly<Record<string, unknown>>): boolean =>
  ["response", "text", "generated_text", "generation", "completion", "output_text", "content", "type"].some(
    (key) => typeof value[key] === "string",
  ) || value["done"] === true

/** Every reason must be a bad one: one good choice is an answer. */
const ofReasons = (reasons: ReadonlyArray<unknown>): Finding => {
  const rules = reasons.map((reason) => (typeof reason === "string" ? ofReason(reason) : undefined))
  const [first] = rules
  return first !== undefined && rules.every((rule) => rule !== undefined) ? { rule: first } : undefined
}

const ofChoices = (value: Readonly<Record<string, unknown>>): Finding => {
  if (!("choices" in value)) return undefined
  const choices = list(value["choices"])
  if (choices.length === 0) return { rule: noChoices }
  const failed = choices.find((choice) => isSet(get(choice, "error")))
  if (failed !== undefined) return { error: failed }
  const bad = ofReasons(choices.map((choice) => get(choice, "finish_reason")))
  if (bad !== undefined) return bad
  const refused = choices.every((choice) => {
    const message = get(choice, "message")
    return isSet(get(message, "refusal")) && !isSet(get(message, "content"))
  })
  if (refused) return { rule: { id: "answer/refusal", when: {}, tag: "ContentFiltered", stage: "answer" } }
  const held = choices.some((choice) =>
    ["message", "delta", "text"].some((key) => get(choice, key) !== undefined && get(choice, key) !== null),
  )
  return held ? undefined : { rule: noContent }
}

const ofCandidates = (value: Readonly<Record<string, unknown>>): Finding => {
  const candidates = list(value["candidates"])
  const feedback = value["promptFeedback"]
  if (candidates.length === 0) {
    if (isSet(get(feedback, "blockReason"))) return { rule: blocked }
    return "candidates" in value || "promptFeedback" in value || "usageMetadata" in value
      ? { rule: noChoices }
      : undefined
  }
  const bad = ofReasons(candidates.map((candidate) => get(candidate, "finishReason")))
  if (bad !== undefined) return bad
  const ended = candidates.every((candidate) => get(candidate, "finishReason") !== undefined)
  const held = candidates.some(
    (candidate) => isSet(get(get(candidate, "content"), "parts")) || isSet(get(candidate, "output")),
  )
  const length = candidates.some((candidate) => get(candidate, "finishReason") === "MAX_TOKENS")
  return ended && !held && !length ? { rule: noContent } : undefined
}

/** The ends of Anthropic, Bedrock, Cohere, Ollama and OpenAI's Responses. */
const ofEnd = (value: Readonly<Record<string, unknown>>): Finding => {
  const places = [value, value["delta"], value["message"], value["messageStop"], value["incomplete_details"]]
  const keys = ["stop_reason", "stopReason", "finish_reason", "done_reason", "reason"]
  for (const place of places) {
    for (const key of keys) {
      const found = ofReasons([get(place, key)])
      if (found !== undefined) return found
    }
  }
  const failed = value["status"] === "failed" || value["status"] === "error" || value["status"] === "cancelled"
  if (failed) return { error: value }
  const refusals = list(value["output"]).flatMap((item) => list(get(item, "content")))
  return refusals.length > 0 && refusals.every((part) => get(part, "type") === "refusal")
    ? { rule: { id: "answer/refusal", when: {}, tag: "ContentFiltered", stage: "answer" } }
    : undefined
}
