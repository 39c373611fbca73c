/**
 * The rules, as data: what a provider says, and which failure that is.
 *
 * Rules are tried in order and the first that holds wins. The order is the
 * meaning: what was said comes before what the status means in general, and
 * the narrow comes before the wide (a spent budget is also told as a 429, a
 * prompt that is too long also as a 400).
 *
 * 1. the rules of a dialect, where a word means something else than elsewhere
 * 2. `said`: codes, types, exception names and phrases of every provider, since
 *    gateways quote the errors of all of them
 * 3. the statuses of a dialect, then `statuses`
 *
 * Sources: the error pages of the providers (OpenAI "Error codes", Azure OpenAI
 * "Troubleshooting", Anthropic "Errors", Google AIP-193 and "Gemini API
 * troubleshooting", Amazon Bedrock "Troubleshooting API error codes",
 * OpenRouter "Errors", Groq "Error codes", Mistral, Cohere "Errors", DeepSeek
 * "Error Codes", xAI "Debugging errors", Together, Fireworks, Perplexity), the
 * sources of vLLM, TGI, llama.cpp and Ollama, RFC 9110, and Cloudflare's and
 * nginx's own statuses.
 */
import type { ConnectionFault, ProviderFailure, TimeoutPhase } from "../llmError.ts"

/** The tags that a rule can give. `StreamInterrupted` is not among them: whether content went out is not in a body. */
export type RuleTag = Exclude<ProviderFailure["_tag"], "StreamInterrupted">

/** Where a signal was seen. */
export type Where = "http" | "sse-event" | "finish_reason" | "network"

/**
 * When a rule holds: all conditions that are given, where a list needs one of
 * its items. `codes` and `phrases` together are one condition: either will do.
 */
export interface When {
  /**
   * Codes, types, reasons or exception names. Compared without case and
   * punctuation, so that `rate_limit_exceeded` is also `RateLimitExceeded`.
   */
  readonly codes?: ReadonlyArray<string>
  /**
   * Words of the error message: text is looked for in the message in lower case
   * with single spaces; a `RegExp` must be linear. Never matched on a prompt.
   */
  readonly phrases?: ReadonlyArray<string | RegExp>
  /** Statuses: that of the response, or the one that the body states under a 2xx or 5xx. 0 stands for none. */
  readonly statuses?: ReadonlyArray<number>
  /** Does not hold under these statuses. */
  readonly notStatuses?: ReadonlyArray<number>
  /** Response headers that must be there, in lower case. */
  readonly headers?: ReadonlyArray<string>
  /** Whether a time to come back must be stated (headers, body or message), or must not. */
  readonly hinted?: boolean
  /** Only in these dialects. */
  readonly dialects?: ReadonlyArray<string>
  /** Only for signals seen there. */
  readonly where?: ReadonlyArray<Where>
}

/** One rule: when it holds, and which failure it makes. */
export interface Rule {
  /** A name for operators, such as `quota/spent`. */
  readonly id: string
  readonly when: When
  readonly tag: RuleTag
  /** Would the same request have a chance later? Default: that of the tag. */
  readonly retryable?: boolean
  /** One more sentence for the failure's message, in our own words. */
  readonly detail?: string
  /** For `InvalidResponse`. Default: `protocol`. */
  readonly kind?: "protocol" | "content"
  /** For `ContentFiltered`. */
  readonly stage?: "prompt" | "answer"
  /** For `TimedOut`. Default: `provider`. */
  readonly phase?: TimeoutPhase
  /** For `ConnectionFailed`. Default: `other`. */
  readonly fault?: typeof ConnectionFault.Type
}

/** The statuses of a request that is wrong in itself: there, words about rates are most likely an echo. */
const requestStatuses = [400, 404, 405, 409, 415, 422]

// ---------------------------------------------------------------------------
// Dialects: only where a word means something else than elsewhere
// ---------------------------------------------------------------------------

const google: ReadonlyArray<Rule> = [
  {
    id: "google/capacity",
    when: {
      codes: ["MODEL_CAPACITY_EXHAUSTED"],
      phrases: [/\bno capacity\b/, /\boverloaded\b/, /\bhigh demand\b/],
      statuses: [0, 429, 500, 503],
    },
    tag: "Overloaded",
  },
  {
    id: "google/quota-terminal",
    when: { codes: ["QUOTA_EXHAUSTED", "quota_exceeded", "dailyLimitExceeded", "payment_required"] },
    tag: "QuotaExhausted",
  },
  {
    id: "google/quota-per-day",
    when: { phrases: [/per[_ -]?day/, /\bdaily\b/], notStatuses: requestStatuses },
    tag: "QuotaExhausted",
    detail: "The exhausted quota is counted by the day.",
  },
  {
    id: "google/quota-zero",
    when: { phrases: [/\blimit: 0\b(?![.\d])/], notStatuses: requestStatuses },
    tag: "QuotaExhausted",
    detail: "The quota for this model is zero.",
  },
  {
    id: "google/rate",
    when: {
      phrases: [/per[_ -]?(?:minute|second)/, /\bquota exceeded for\b/],
      notStatuses: requestStatuses,
    },
    tag: "RateLimited",
  },
  {
    id: "google/plan",
    when: { phrases: ["check your plan and billing"], hinted: false, notStatuses: requestStatuses },
    tag: "QuotaExhausted",
  },
  {
    id: "google/credit",
    when: {
      phrases: [/\bcredits?\b[^|.]{0,40}\b(?:depleted|exhausted|insufficient)\b/, /\bspend(?:ing)? (?:cap|limit)\b/],
    },
    tag: "QuotaExhausted",
  },
  {
    id: "google/exhausted",
    when: {
      codes: ["RESOURCE_EXHAUSTED", "rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED"],
      phrases: ["exceeded your current quota", "resource exhausted", "resource has been exhausted"],
      notStatuses: [...requestStatuses, 402],
    },
    tag: "RateLimited",
  },
]

const aws: ReadonlyArray<Rule> = [
  {
    id: "bedrock/throttled-by-day",
    when: { phrases: [/\bper day\b/, /\bdaily\b/], notStatuses: requestStatuses },
    tag: "QuotaExhausted",
    detail: "The exhausted quota is counted by the day.",
  },
  {
    id: "bedrock/throttled",
    when: { codes: ["ThrottlingException", "TooManyRequestsException", "throttling"] },
    tag: "RateLimited",
  },
  {
    id: "bedrock/quota",
    when: { codes: ["ServiceQuotaExceededException"] },
    tag: "QuotaExhausted",
  },
  {
    id: "bedrock/credential",
    when: {
      codes: [
        "UnrecognizedClientException",
        "ExpiredTokenException",
        "ExpiredToken",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "IncompleteSignatureException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "MissingAuthenticationTokenException",
        "MissingAuthenticationToken",
        "InvalidAccessKeyId",
        "RequestExpired",
        "NotAuthorizedException",
        "CredentialsProviderError",
        "ExpiredTokenError",
      ],
    },
    tag: "AuthenticationFailed",
  },
  {
    id: "bedrock/internal",
    when: { codes: ["InternalServerException", "InternalFailure"] },
    tag: "ProviderUnavailable",
  },
  { id: "bedrock/not-ready", when: { codes: ["ModelNotReadyException"] }, tag: "Overloaded" },
  { id: "bedrock/model-timeout", when: { codes: ["ModelTimeoutException"] }, tag: "TimedOut" },
  {
    id: "bedrock/wrong-model-id",
    when: {
      codes: ["ResourceNotFoundException"],
      phrases: ["provided model identifier is invalid", "could not resolve the foundation model", "end of its life"],
    },
    tag: "ModelNotFound",
  },
  {
    id: "bedrock/model-access",
    when: {
      phrases: ["model access is denied", "you don't have access to the model", "access to the model"],
      statuses: [403, 500, 502],
    },
    tag: "PermissionDenied",
  },
]

/** The rules of each dialect that come before `said`. */
export const dialects: Readonly<Record<string, ReadonlyArray<Rule>>> = {
  gemini: google,
  vertex: google,
  bedrock: aws,
  azure: [
    {
      id: "azure/bad-output",
      when: { phrases: ["produced invalid content", "model produced invalid"] },
      tag: "InvalidResponse",
      kind: "content",
    },
  ],
  openrouter: [
    {
      id: "openrouter/in-flight",
      when: { codes: ["openrouter_in_flight_budget"], phrases: [/\bin[- ]flight\b/] },
      tag: "RateLimited",
      detail: "Credit is reserved by requests that are under way.",
    },
    {
      id: "openrouter/free-per-day",
      when: { phrases: ["free-models-per-day", /per[- ]day/], statuses: [429] },
      tag: "QuotaExhausted",
    },
    {
      id: "openrouter/no-endpoint-with-feature",
      when: { phrases: [/no endpoints found that (?:support|can handle)/] },
      tag: "InvalidRequest",
    },
    {
      id: "openrouter/data-policy",
      when: { phrases: [/no endpoints? (?:found|available)\b[^|]{0,40}(?:data policy|guardrail|privacy)/] },
      tag: "PermissionDenied",
    },
  ],
  together: [
    {
      id: "together/rate-told-as-credit",
      when: { phrases: [/rate limit/, /\b(?:queries|requests|tokens) per (?:second|minute|hour)\b/], statuses: [429] },
      tag: "RateLimited",
    },
  ],
  groq: [
    {
      id: "groq/flex-capacity",
      when: { statuses: [498], codes: ["capacity_exceeded"], phrases: ["capacity"] },
      tag: "Overloaded",
    },
  ],
  cohere: [
    {
      id: "cohere/trial-by-month",
      when: { phrases: [/\/ ?month\b/, "per month", "monthly"], statuses: [429] },
      tag: "QuotaExhausted",
    },
  ],
  ollama: [
    {
      id: "ollama/usage",
      when: { phrases: [/\b(?:hourly|daily|weekly|session) usage limit/] },
      tag: "QuotaExhausted",
    },
  ],
}

// ---------------------------------------------------------------------------
// What is said, by any provider or through any gateway
// ---------------------------------------------------------------------------

const filtered: ReadonlyArray<Rule> = [
  {
    id: "content/prompt",
    when: { phrases: ["due to the prompt triggering", /\bprompt (?:was|is|has been) (?:blocked|filtered|flagged)\b/] },
    tag: "ContentFiltered",
    stage: "prompt",
  },
  {
    id: "content/answer",
    when: {
      phrases: [
        /\b(?:output|answer|response|completion|generated (?:text|content|image))\b[^|]{0,40}\b(?:blocked|filtered|flagged|moderated)\b[^|]{0,60}\b(?:content|safety|polic|moderat|filter|guardrail|harm|recitation|copyright)/,
        /\boutput (?:new_)?sensitive/,
      ],
    },
    tag: "ContentFiltered",
    stage: "answer",
  },
  {
    id: "content/code",
    when: {
      codes: [
        "content_filter",
        "content_filtered",
        "content_policy_violation",
        "content_policy",
        "ContentPolicyViolationError",
        "ContentFilterFinishReasonError",
        "content_filter_error",
        "content_moderation",
        "content_moderation_failed",
        "content_blocked",
        "ResponsibleAIPolicyViolation",
        "moderation_blocked",
        "moderation_error",
        "invalid_prompt",
        "prompt_blocked",
        "data_inspection_failed",
        "DataInspectionFailed",
        "safety_violation",
        "safety_error",
        "cyber_policy_violation",
        "cyber_policy",
        "bio_policy",
        "sensitive_content",
        "input_moderation",
        "GuardrailIntervened",
        "guardrail_violation",
        "PROHIBITED_CONTENT",
        "usage_policy_violation",
        "image_content_policy_violation",
      ],
    },
    tag: "ContentFiltered",
    stage: "prompt",
  },
  {
    id: "content/words",
    when: {
      phrases: [
        "content management policy",
        "content exists risk",
        "content filter",
        "content_filter",
        "content policy",
        "content moderation",
        "content violates",
        "safety system",
        "safety filter",
        "safety_check",
        "safety policy",
        "safety policies",
        "responsible ai",
        "requires moderation",
        "inappropriate content",
        "prohibited content",
        "sensitive content",
        "contains sensitive",
        "harmful content",
        "sensitive words",
        "for safety reasons",
        "prompt injection",
        "jailbreak",
        "response was filtered",
        "moderation policy",
        "敏感内容",
        "违规内容",
        "不安全",
        "unsafe content",
        "blocked by content",
        /\b(?:prompt|input|request|content|message|text|image)s?\b[^|]{0,60}\b(?:was|were|is|been|are) flagged\b/,
        /\b(?:prompt|input|request|content|message|text|image)s?\b[^|]{0,60}\b(?:blocked|rejected|refused|denied|filtered)\b[^|]{0,60}\b(?:safety|content (?:filter|polic|management|moderation)|moderation|harmful|guardrail|responsible ai|usage polic)/,
        /\bviolat\w{1,6}\b[^|.]{0,60}\b(?:usage|content|safety|acceptable use|use)\b[^|.]{0,20}\b(?:polic|guideline)/,
        /\bviolat\w{1,6} (?:our|the)[^|.]{0,30}\b(?:policy|policies|guidelines)\b/,
        /\bflagged\b[^|]{0,40}\b(?:violat|moderat|unsafe|harmful|polic|safety|inappropriate)/,
        /\bguardrails? (?:intervened|blocked|violation)|blocked by [^|]{0,30}guardrail/,
        /\bblocked due to (?:safety|recitation|prohibited|content)/,
      ],
      notStatuses: [429],
    },
    tag: "ContentFiltered",
    stage: "prompt",
  },
]

const quota: ReadonlyArray<Rule> = [
  {
    id: "quota/returns",
    when: { statuses: [402], hinted: true },
    tag: "RateLimited",
    detail: "It names a time to come back, so the credit returns by itself.",
  },
  {
    id: "quota/google-zero",
    when: { phrases: [/\bquota exceeded for (?:quota )?metric\b[^|]{0,200}\blimit: 0\b(?![.\d])/] },
    tag: "QuotaExhausted",
  },
  {
    id: "quota/by-day",
    when: {
      phrases: [
        /\b(?:tokens|requests|queries|calls|messages|usage) (?:per|\/|a) ?day\b/,
        /\bdaily (?:\w{1,12} ){0,2}(?:limit|quota|allowance|allocation)\b/,
      ],
      statuses: [402, 403, 429],
      hinted: false,
    },
    tag: "QuotaExhausted",
    detail: "The exhausted quota is counted by the day.",
  },
  {
    id: "quota/google",
    when: { phrases: [/perday|per_day|_per_day/], codes: ["QUOTA_EXHAUSTED"] },
    tag: "QuotaExhausted",
  },
  {
    id: "quota/google-rate",
    when: {
      phrases: [
        "generate_content_free_tier",
        "generate_content_paid_tier",
        "quota exceeded for quota metric",
        "quota exceeded for metric",
        "quota exceeded for aiplatform",
        "check quota",
      ],
      notStatuses: requestStatuses,
    },
    tag: "RateLimited",
  },
  {
    id: "quota/code",
    when: {
      codes: [
        "insufficient_quota",
        "insufficient_user_quota",
        "insufficient_balance",
        "insufficient_credits",
        "insufficient_credit",
        "insufficient_funds",
        "InsufficientBalanceError",
        "InsufficientQuotaError",
        "quota_exhausted",
        "quota_exceeded",
        "QuotaExceededError",
        "exceeded_current_quota_error",
        "credit_balance_exhausted",
        "credit_balance_too_low",
        "credits_exhausted",
        "out_of_credits",
        "no_credits",
        "billing_hard_limit_reached",
        "billing_limit_reached",
        "billing_not_active",
        "billing_error",
        "billing_disabled",
        "BILLING_DISABLED",
        "payment_required",
        "PaymentRequiredError",
        "payment_error",
        "budget_exceeded",
        "BudgetExceededError",
        "ExceededBudget",
        "spend_limit_exceeded",
        "spend_limit_reached",
        "spending_limit_reached",
        "usage_limit_reached",
        "usage_limit_exceeded",
        "usage_not_included",
        "monthly_limit_exceeded",
        "credit_limit",
        "credit_limit_exceeded",
        "arrearage",
        "AllocationQuota.FreeTierOnly",
        "ServiceQuotaExceededException",
        "pre_consume_token_quota_failed",
        "dailyLimitExceeded",
        "free_quota_exceeded",
        "trial_expired",
        "subscription_expired",
        "subscription_required",
      ],
    },
    tag: "QuotaExhausted",
  },
  {
    id: "quota/words",
    when: {
      phrases: [
        "exceeded your current quota",
        "credit balance is too low",
        "credit balance too low",
        "insufficient_quota",
        /\binsufficient (?:account |user |token )?(?:balance|credits?|funds|quota)\b/,
        /\bnot enough (?:credits?|balance|funds|quota)\b/,
        /\b(?:out of|no remaining|no more|ran out of|run out of|zero|used (?:up )?all (?:of )?(?:your |its |the |available )?(?:available )?|exhausted (?:all )?(?:your |its |the )?|insufficient) ?(?:credits?|balance|funds)\b/,
        /\bcredits? (?:balance )?(?:is|are|have been|has been|was|were) (?:exhausted|depleted|used up|insufficient|negative|too low)\b/,
        /\bbalance (?:is |has been )?(?:exhausted|depleted|insufficient|too low|negative|not enough|not sufficient)\b/,
        /\brequires (?:more|at least)[^|.]{0,20} credits?\b/,
        /\b(?:have|has) (?:no|0|zero) (?:more |remaining |available |any )?(?:credits?|balance|quota)\b/,
        /\b(?:doesn't|don't|does not|do not) have (?:any |enough |sufficient )?(?:credits?|balance|funds|quota)\b/,
        /\bout of (?:call volume |bandwidth |volume )?quota\b/,
        /\bquota (?:is |was )?(?:not enough|used up|depleted)\b/,
        /\bused up (?:your|the|all)[^|.]{0,20}\b(?:daily|monthly|free|quota|credits?|allocation|allowance)\b/,
        /\bkey (?:credit |spending |spend |budget |usage )?limit (?:exceeded|reached)\b/,
        /\b(?:issue|problem) with your (?:billing|payment)\b/,
        /\bbilling (?:account )?(?:is |has been )?(?:disabled|closed|not enabled)\b|\benable billing\b|\bbilling to be enabled\b/,
        "can only afford",
        "never purchased credits",
        /\b(?:purchase|buy) (?:more |additional )?credits\b/,
        /\b(?:top|topping) ?up (?:your )?(?:balance|account|credit)/,
        "billing hard limit",
        /\bbilling (?:is |account is )?(?:not|in)[- ]?active\b/,
        /\b(?:spend|spending|credit) (?:limit|cap)\b[^|.]{0,40}\b(?:reached|exceeded|hit)\b/,
        /\b(?:reached|exceeded|hit)\b[^|.]{0,60}\b(?:spend|spending|credit|billing|monthly usage|api usage|monthly|prepaid) (?:limit|cap|allowance)s?\b/,
        /\bexceeded (?:your |its |the )?(?:monthly|weekly)?\s?(?:included )?(?:credits|budget|quota|allowance)\b/,
        /\bbudget has been exceeded|exceeded budget|over budget\b/,
        /\bexhausted your (?:capacity|quota|free|daily|monthly)/,
        /\b(?:daily|weekly|monthly|free|free tier|usage) quota\b[^|.]{0,40}\b(?:exceeded|exhausted|reached|used up)\b/,
        /\b(?:usage|weekly|monthly|session|5-hour) limits? (?:has been |was |is )?(?:reached|exceeded)\b/,
        /\byou(?:'ve| have) (?:reached|hit|exceeded) (?:your|the) (?:[a-z0-9-]{1,12} ){0,3}usage limits?\b/,
        "payment required",
        /\b(?:payment method|credit card)\b[^|.]{0,40}\b(?:required|missing|add|declined|failed|expired|on file)\b/,
        /\b(?:add|update|without) (?:a |your )?(?:valid )?(?:payment method|credit card)\b/,
        /\baccount\b[^|.]{0,60}\b(?:suspended|overdue|past due|arrears)\b[^|]{0,80}\b(?:billing|invoice|payment|balance|spend|limit|overdue)/,
        /\b(?:unpaid|overdue) (?:invoices?|balance|payment)/,
        "in good standing",
        /\bprepaid credits?\b/,
        /\b(?:free|trial)\b[^|.]{0,20}\b(?:expired|has ended|is over|used up)\b/,
        /\bapi calls? ?(?:\/|per) ?month\b/,
        "余额不足",
        "欠费",
        "额度不足",
        "额度已用尽",
        "配额不足",
      ],
    },
    tag: "QuotaExhausted",
  },
]

const tooLong: ReadonlyArray<Rule> = [
  {
    id: "context/not-the-output-limit",
    when: {
      phrases: [
        /\bmax(?:imum)?[_ ](?:completion_|output_|new_|completion |output |new )?tokens\b[^|]{0,80}\b(?:supports? at most|too large:|must be (?:at most|between|less than or equal))/,
        /\bmax_(?:output_)?tokens`? is too many\b/,
        /\b(?:output|completion) token (?:count|limit)\b/,
        /: `?max_(?:new_)?tokens`? must be <=/,
        /\bmaximum (?:tokens|number of tokens) you requested exceeds\b/,
        /\bsupports at most \d{1,9} (?:completion|output) tokens\b/,
      ],
      statuses: [400, 422],
    },
    tag: "InvalidRequest",
  },
  {
    id: "context/code",
    when: {
      codes: [
        "context_length_exceeded",
        "context_window_exceeded",
        "context_length_error",
        "context_too_long",
        "ContextWindowExceededError",
        "ContextLengthExceededError",
        "model_context_window_exceeded",
        "exceed_context_size_error",
        "tokens_limit_reached",
        "token_limit_exceeded",
        "too_many_tokens",
        "too_many_prompt_tokens",
        "prompt_too_long",
        "input_too_long",
        "input_length_exceeded",
        "max_prompt_tokens_exceeded",
        "model_max_prompt_tokens_exceeded",
        "max_context_length_exceeded",
        "3051",
      ],
      notStatuses: [402, 429],
    },
    tag: "ContextLengthExceeded",
  },
  {
    id: "context/words",
    when: {
      phrases: [
        /\bmaximum (?:model |allowed |input |supported )?(?:context|prompt|input|sequence)(?: token)? (?:length|size|window|tokens|limit)/,
        /\bcontext[_ ](?:length|window|size|limit)\b[^|]{0,80}\b(?:exceed|too (?:long|small|large)|reduce|overflow|full|greater|larger)/,
        /\b(?:exceed(?:s|ed|ing)?|(?:greater|larger|longer|bigger|more|less|fewer|shorter|smaller) than|too (?:long|large) for|beyond|over|overflow(?:s|ed)?|outside|fit (?:in|into|within)|above)\b[^|]{0,80}\bcontext[_ ](?:length|window|size|limit)s?\b/,
        /\bexceed(?:s|ed)? (?:the )?(?:available |maximum |max |model(?:'s)? )?context\b/,
        /'?(?:messages|input|prompt|instructions|contents)\b[^|:]{0,40}: string too long/,
        /\b(?:prompt|input|conversation|chat history|messages?|text|request)(?: is| are| was)? (?:way )?too (?:long|large)\b(?! for[^|]{0,60}\bper min)/,
        /\b(?:prompt|input) (?:length|tokens?|size|token count)\b[^|]{0,60}\bexceed/,
        /\b(?:input|prompt|context) token (?:count|limit|length)\b[^|]{0,60}\bexceed/,
        /\btoken count\b[^|]{0,40}\bexceeds/,
        /\bexceed(?:s|ed)?\b[^|]{0,40}\b(?:maximum|max) (?:number of |allowed |input |prompt |context )?(?:input |prompt )?tokens?\b/,
        /\bexceed(?:s|ed)?\b[^|]{0,40}\b(?:model|input|prompt|context)(?:'s)?(?: maximum| max)? token limit\b/,
        /\bexceed(?:s|ed)? (?:the )?token limit\b/,
        /\btoo many (?:input |prompt )?tokens\b/,
        /\breduce (?:the |your )?(?:length|size|number)\b[^|]{0,40}\b(?:messages?|prompt|input|context|tokens|completion)\b/,
        /\btokens \+ `?max_(?:new_)?tokens`? must be <=/,
        /\btoken count is \d{1,9} but\b/,
        /\breduce (?:the |your )?(?:input|prompt)(?: token count| tokens| length| size)\b/,
        /\bmax_(?:completion_)?tokens must be at least 1, got -/,
        /\b(?:range of )?input length should be\b/,
        /\b(?:input|prompt|inputs`?)\b[^|]{0,40}\bmust have less than \d{1,9} tokens/,
        /\b(?:must be|only) (?:shorter|fewer) than \d{1,9} tokens\b/,
        /\btokens in (?:request|prompt) more than max/,
        /\bexpected maxlength: \d{1,9}, actual/,
        /\bexceeds (?:the )?(?:model's )?(?:maximum )?(?:sequence|prompt|context) length\b/,
        /\blonger than the maximum model length\b/,
        /\btokens in (?:the|your) (?:prompt|input|request|messages)\b[^|]{0,30}\bexceed/,
        /\b(?:prompt|input) exceeds (?:the )?(?:max|model|limit|allowed)/,
        /\btokens\b[^|]{0,20}> ?(?:the )?(?:model |maximum )?context\b/,
        /\bbody too large for [^|]{1,60} model\b[^|]{0,40}\btokens\b/,
      ],
      notStatuses: [402, 429],
    },
    tag: "ContextLengthExceeded",
  },
]

const who: ReadonlyArray<Rule> = [
  {
    id: "permission/place",
    when: {
      codes: [
        "unsupported_country_region_territory",
        "unsupported_country",
        "unsupported_region",
        "region_not_supported",
      ],
      phrases: [
        /\b(?:country|region|territory|location)\b[^|.]{0,40}\b(?:is |are )?(?:not (?:supported|available|allowed)|unsupported|restricted|blocked)/,
        /\bnot (?:available|supported|permitted|offered) in your (?:country|region|location|area)/,
      ],
    },
    tag: "PermissionDenied",
    detail: "The service is not offered at the place that the request comes from.",
  },
  {
    id: "permission/key-limits",
    when: {
      codes: [
        "API_KEY_SERVICE_BLOCKED",
        "API_KEY_HTTP_REFERRER_BLOCKED",
        "API_KEY_IP_ADDRESS_BLOCKED",
        "API_KEY_ANDROID_APP_BLOCKED",
        "API_KEY_IOS_APP_BLOCKED",
        "SERVICE_DISABLED",
        "CONSUMER_INVALID",
        "CONSUMER_SUSPENDED",
        "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
        "IAM_PERMISSION_DENIED",
        "RESOURCE_PROJECT_INVALID",
        "LOCATION_POLICY_VIOLATED",
        "ip_not_authorized",
        "ip_not_allowed",
        "missing_scope",
        "insufficient_scope",
        "insufficient_permissions",
        "key_model_access_denied",
        "team_model_access_denied",
        "project_model_access_denied",
        "organization_restricted",
        "model_terms_required",
        "model_permission_blocked_org",
        "model_permission_blocked_project",
        "permissions_blocked",
        "user_model_access_denied",
        "org_model_access_denied",
        "organization_not_verified",
        "AuthorizationFailed",
      ],
      phrases: [
        /\b(?:insufficient|missing|lacks?|without|does not have|doesn't have|don't have) (?:the |any |enough |sufficient |required )?(?:required |necessary )?(?:permissions?|scopes?)\b/,
        /\bonly authorized for use\b/,
        /\borganization must be verified\b|\bverify (?:your )?organization\b/,
        /\b(?:principal|user|identity|caller|service account|role)\b[^|]{0,200}\b(?:does not have|doesn't have|lacks?|is not authorized)\b[^|]{0,60}\b(?:permission|access|authori[sz]|data action|rights?|scopes?|privilege|perform)/,
        "not authorized to perform",
        "model access is denied",
        /\bpermission '[\w.]{1,80}' denied\b/,
        "don't have access to the model with the specified",
        "has not been used in project",
      ],
      notStatuses: [404, 429],
    },
    tag: "PermissionDenied",
  },
  {
    id: "authentication/code",
    when: {
      codes: [
        "invalid_api_key",
        "invalid_key",
        "incorrect_api_key",
        "incorrect_api_key_error",
        "missing_api_key",
        "no_api_key",
        "api_key_missing",
        "api_key_invalid",
        "api_key_expired",
        "API_KEY_INVALID",
        "authentication_error",
        "AuthenticationError",
        "authentication_failed",
        "authentication_required",
        "invalid_authentication",
        "invalid_authentication_error",
        "invalid_credentials",
        "invalid_token",
        "expired_token",
        "token_expired",
        "token_revoked",
        "token_invalidated",
        "key_revoked",
        "key_expired",
        "account_deactivated",
        "user_deactivated",
        "mismatched_organization",
        "invalid_organization",
        "invalid_grant",
        "invalid_client",
        "UNAUTHENTICATED",
        "ACCESS_TOKEN_EXPIRED",
        "ACCESS_TOKEN_TYPE_UNSUPPORTED",
        "CREDENTIALS_MISSING",
        "ACCOUNT_STATE_INVALID",
        "InvalidAuthenticationToken",
        "InvalidAuthentication",
        "UnauthorizedError",
        "UnrecognizedClientException",
        "ExpiredTokenException",
        "InvalidSignatureException",
        "InvalidClientTokenId",
        "MissingAuthenticationTokenException",
        "no_auth_credentials",
        "token_not_provided",
        "DefaultCredentialsError",
        "RefreshError",
      ],
      notStatuses: [429],
    },
    tag: "AuthenticationFailed",
  },
  {
    id: "authentication/words",
    when: {
      phrases: [
        /\b(?:invalid|incorrect|wrong|missing|bad|malformed|expired|revoked|unknown|no|provide an?|provide your|provide a valid|required|without an?)\s(?:x-)?api[- _]?(?:key|token)s?\b(?! (?:does|do|doesn't|has|access))/,
        /\binvalid (?:x-api-key|bearer|access[- ]?token|auth(?:entication|orization|enticat\w{1,6})?\b|credentials?|username|user key|personal access|subscription key)/,
        /\binvalid (?:token|key|signature)(?: (?:provided|supplied|or expired|specified))?[.!,]?(?:$| \|)/,
        /\b(?:x-)?api[- _]?(?:key|token)\b[^|.]{0,60}\b(?:is |was |has |been |are |not )?(?:invalid|incorrect|expired|revoked|missing|not valid|not found|not provided|not set|required|deactivated|deleted|disabled|unrecognized|has been (?:disabled|revoked))\b/,
        /\bauthentication (?:fail\w{0,4}|required|error|header|token|credentials?|parameter)/,
        /\b(?:missing|no|without)\b[^|.]{0,20}\bauth(?:entication|orization)?(?: header| credentials?| token)?\b/,
        /\b(?:access|bearer|security|oauth|auth|session|id)[- ]?token\b[^|.]{0,60}\b(?:expired|invalid|missing|revoked|not valid)\b/,
        /\btoken (?:has |is |was )?(?:expired|revoked|invalidated)\b/,
        /\brequest signature\b|\bsignature (?:expired|not yet current|does not match)\b/,
        /\binvalid(?:ated)? (?:oauth|jwt)|\bjwt (?:expired|malformed|invalid|is missing)/,
        /\b(?:credentials?) (?:are |is |were |have |has )?(?:invalid|expired|missing|not valid|not found|incorrect)\b/,
        /\b(?:could|can) ?not (?:be )?(?:validate|authenticate|verify|load|locate|resolve) (?:your |the |aws )?(?:api key|credentials?|token|authorization|authentication)\b/,
        /\bunable to (?:authenticate|locate credentials|load credentials)/,
        /\baccount (?:associated with this [^|.]{0,30})?(?:has been|is|was) (?:deactivated|deleted)\b/,
        "failed to authenticate",
        "not authenticated",
        "unauthenticated",
        "must be a member of an organization",
        "login required",
        "please log in",
        "unregistered callers",
        /\bapi key (?:was|has been|is) (?:reported as )?(?:leaked|compromised|exposed)\b/,
        "reported as leaked",
        "无效的令牌",
        "令牌已过期",
        "未提供令牌",
      ],
      notStatuses: [404, 429],
    },
    tag: "AuthenticationFailed",
  },
  {
    id: "permission/code",
    when: {
      codes: [
        "AccessDeniedException",
        "PermissionDeniedError",
        "permission_denied_error",
        "permission_denied",
        "permission_error",
      ],
      notStatuses: [404, 429],
    },
    tag: "PermissionDenied",
  },
]

const account: ReadonlyArray<Rule> = [
  {
    id: "permission/account",
    when: {
      phrases: [
        /\b(?:organi[sz]ation|account|project|workspace|team)\b[^|.]{0,30}\b(?:has been|is|was) (?:disabled|blocked|suspended|banned|restricted|terminated)\b/,
      ],
      notStatuses: [429],
    },
    tag: "PermissionDenied",
  },
]

const model: ReadonlyArray<Rule> = [
  {
    id: "model/code",
    when: {
      codes: [
        "model_not_found",
        "ModelNotFound",
        "ModelNotFoundError",
        "DeploymentNotFound",
        "deployment_not_found",
        "model_not_available",
        "model_not_exist",
        "model_decommissioned",
        "model_deprecated",
        "model_not_supported",
        "unknown_model",
        "invalid_model",
        "invalid_model_error",
        "unsupported_model",
        "no_such_model",
        "ModelNotSupported",
        "OperationNotSupportedModel",
        "resource_not_found_error",
      ],
    },
    tag: "ModelNotFound",
  },
  {
    id: "model/words",
    when: {
      phrases: [
        /\b(?:model|deployment|engine|checkpoint)s?\b[^|]{0,120}\b(?:not found|does not exist|doesn't exist|do not exist|not exist|no longer (?:available|supported|exists?)|(?:is|was) not (?:available|deployed|a valid)|has been (?:decommissioned|deprecated|removed|retired|shut ?down|disabled)|is (?:decommissioned|deprecated|retired)|end of (?:its )?life)\b/,
        /\b(?:not found|unknown|unsupported|no such|could not find|couldn't find|cannot find|can't find|unable to (?:find|access|locate)|invalid|unrecognized|non-?existent|no (?:available )?(?:channel|provider|endpoint)s?(?: found)? for) (?:the )?(?:requested )?(?:model|deployment|engine)(?: name| id| identifier)?\b(?!'s| (?:output|response|parameter|input|version of))/,
        /\bis not a valid model\b/,
        /\bmodel (?:identifier|id|name) (?:provided )?is (?:invalid|not valid|incorrect)\b/,
        /\bprovided model identifier is invalid\b/,
        /\bno endpoints found\b/,
        /\bno available channel\b/,
        /\btry pulling it first\b/,
        /\bmodel[^|]{0,60}\bnot supported (?:for this|by (?:this|any) (?:provider|api version)|for task)/,
        /\bmodels\/[\w.-]{1,80} is not (?:found|supported)\b/,
        /\bmodel '?[^|' ]{0,80}'? is not (?:supported|served|loaded|available)\b/,
      ],
      notStatuses: [401, 413, 429],
    },
    tag: "ModelNotFound",
  },
  {
    id: "model/loading",
    when: {
      codes: ["model_loading", "ModelLoadingError", "unavailable_error"],
      phrases: [
        /\b(?:is )?(?:currently |still )?loading\b[^|]{0,20}\bmodel|\bmodel\b[^|]{0,120}\b(?:is |are )?(?:currently |still )?(?:loading|warming up|starting|being loaded)\b/,
      ],
      statuses: [429, 500, 502, 503, 504],
    },
    tag: "Overloaded",
    detail: "The model is being loaded there.",
  },
]

const rate: ReadonlyArray<Rule> = [
  {
    id: "rate/too-large",
    when: { phrases: [/request too large\b[^|]{0,200}\b(?:per (?:min|hour|day|sec)|\btp[md]\b|\brp[md]\b)/] },
    tag: "RateLimited",
    retryable: false,
    detail: "This request alone is larger than the limit.",
  },
  {
    id: "rate/throttled",
    when: {
      codes: [
        "ThrottlingException",
        "Throttling",
        "TooManyRequestsException",
        "RequestThrottled",
        "ThrottledException",
        "throttled",
      ],
    },
    tag: "RateLimited",
  },
]

const busy: ReadonlyArray<Rule> = [
  {
    id: "rate/code",
    when: {
      codes: [
        "rate_limit_exceeded",
        "rate_limit_error",
        "rate_limit_reached",
        "rate_limit_reached_error",
        "RateLimitError",
        "RateLimitReached",
        "rate_limit",
        "rate_limited",
        "rate_limits",
        "model_rate_limit",
        "requests_limit_exceeded",
        "too_many_requests",
        "too_many_requests_error",
        "rateLimitExceeded",
        "userRateLimitExceeded",
        "slow_down",
        "limit_requests",
        "limit_burst_rate",
        "concurrency_limit_exceeded",
        "dynamic_request_limited",
        "dynamic_token_limited",
        "tokens_exceeded_error",
        "max_rps_exceeded",
        "1300",
        "1302",
      ],
      notStatuses: [400, 401, 404],
    },
    tag: "RateLimited",
  },
  {
    id: "overloaded/code",
    when: {
      codes: [
        "overloaded_error",
        "overloaded",
        "OverloadedError",
        "server_overloaded",
        "server_is_overloaded",
        "engine_overloaded",
        "engine_overloaded_error",
        "model_overloaded",
        "capacity_exceeded",
        "service_tier_capacity_exceeded",
        "insufficient_capacity",
        "no_capacity",
        "NoCapacity",
        "resource_unavailable",
        "server_busy",
        "system_busy",
        "queue_full",
        "ModelNotReadyException",
        "insufficient_system_resource",
        "MODEL_CAPACITY_EXHAUSTED",
        "DEPLOYMENT_SCALING_UP",
        "3505",
      ],
    },
    tag: "Overloaded",
  },
  {
    id: "overloaded/words",
    when: {
      phrases: [
        /\boverload(?:ed)?\b/,
        /\b(?:over|at|out of|insufficient|no(?:t enough)?|exceeded|limited)(?: available| current| the| our| its)? (?:server |gpu |model |compute )?capacity\b/,
        /\bcapacity (?:is |was |has been )?(?:temporarily |currently )?(?:exceeded|exhausted|constraints?|constrained|limit|reached|unavailable)\b/,
        /\b(?:server|service|system|engine|model|cluster|backend)s?\b[^|.]{0,40}\b(?:is|are|too|currently|very|temporarily) (?:too |currently |very |temporarily )?busy\b/,
        /\b(?:server|model|service|system|engine) busy\b|\btoo busy\b/,
        /\b(?:high|heavy|increased|unusual|peak) (?:demand|load|traffic|usage)\b/,
        /\bmaximum pending requests\b|\bqueue (?:is )?full\b/,
        /\bno (?:healthy |available )?(?:workers?|replicas?|slots?|gpus?) available\b|\bno slot available\b/,
        /\bresource unavailable\b/,
        /\bdynamic(?:ally)? (?:scal|limit)/,
        /\bscal(?:e|ing) (?:up|down|to zero)\b/,
        /\breset reason: overflow\b/,
        /\bsaturated\b/,
        "负载已饱和",
        "服务器繁忙",
      ],
      notStatuses: requestStatuses,
    },
    tag: "Overloaded",
  },
  {
    id: "rate/words",
    when: {
      phrases: [
        /\brate[- _]?limit/,
        /\btoo many (?:concurrent )?(?:requests|connections|calls|api calls)\b/,
        /\b(?:requests?|tokens?|queries|calls) (?:per|\/) ?(?:second|minute|hour|day|min|sec)\b/,
        /\bper[- ]minute\b/,
        /\b(?:concurrency|concurrent requests?) (?:limit|exceed)/,
        /\bslow down\b/,
        /\bthrottl/,
        /\bquota exceeded\b|\bexceeded [^|.]{0,30}quota\b|\bupstream quota\b/,
        /\bresource(?: has been)? exhausted\b/,
        /\berror code:? {0,2}1015\b/,
        "请求过于频繁",
        "请求频率",
      ],
      notStatuses: [...requestStatuses, 401],
    },
    tag: "RateLimited",
  },
]

const broken: ReadonlyArray<Rule> = [
  {
    id: "answer/bad-output",
    when: {
      codes: [
        "tool_use_failed",
        "json_validate_failed",
        "output_parse_failed",
        "invalid_tool_call",
        "incomplete_generation",
        "malformed_function_call",
        "malformed_model_output",
      ],
      phrases: [
        "failed to generate json",
        /\bfailed to (?:call a function|parse tool call|parse (?:the )?model output)/,
        /\b(?:model|it) (?:produced|generated|returned) (?:an? )?(?:invalid|malformed|unparsable|empty)\b/,
        /\bincomplete generation\b/,
        /\boutput (?:that )?could not be parsed\b/,
      ],
      notStatuses: [401, 403, 429],
    },
    tag: "InvalidResponse",
    kind: "content",
  },
  {
    id: "timeout/code",
    when: {
      codes: [
        "timeout_error",
        "TimeoutError",
        "Timeout",
        "RequestTimeout",
        "request_timeout",
        "gateway_timeout",
        "upstream_timeout",
        "stream_timeout",
        "DEADLINE_EXCEEDED",
        "ModelTimeoutException",
        "RequestTimeoutException",
        "FUNCTION_INVOCATION_TIMEOUT",
        "APITimeoutError",
        "ReadTimeoutError",
        "OperationTimedOut",
      ],
      notStatuses: requestStatuses,
    },
    tag: "TimedOut",
  },
  {
    id: "timeout/words",
    when: {
      phrases: [
        /\btimed[- ]out\b/,
        /\b(?:request|response|gateway|upstream|read|server|operation|stream|connection|inference|generation|model)[- ]?(?:request )?time-?out\b/,
        /\bdeadline (?:expired|exceeded)\b/,
        /\boperation was timeout\b/,
        /\btime-?out (?:while|waiting|occurred|error|exceeded|reached|expired)\b/,
        /\b(?:took|taking) too long\b/,
      ],
      notStatuses: [...requestStatuses, 403],
    },
    tag: "TimedOut",
  },
  {
    id: "request/not-possible",
    when: {
      phrases: [
        /\brequires more (?:system |gpu )?memory\b/,
        /\bout of memory\b[^|]{0,30}\bload/,
        /\bunable to load model\b/,
      ],
      statuses: [500, 503],
    },
    tag: "ProviderUnavailable",
    retryable: false,
    detail: "The machine there is too small for the model.",
  },
  {
    id: "request/path",
    when: {
      phrases: [
        /(?:^|\| )(?:404:? )?(?:the )?(?:requested )?(?:page |resource |route |path |url |endpoint )?(?:could )?(?:was )?not (?:be )?found\.?(?:$| \|)/,
        /\binvalid url\b|\bunknown (?:request )?url\b|\bno route matched\b/,
        /\bcannot (?:get|post) \//,
        "404 page not found",
      ],
      statuses: [404],
    },
    tag: "InvalidRequest",
    detail: "The path is not known there: check the base URL and the API version.",
  },
  {
    id: "request/code",
    when: {
      codes: [
        "unsupported_value",
        "unsupported_parameter",
        "unknown_parameter",
        "invalid_value",
        "invalid_type",
        "missing_required_parameter",
        "invalid_request_body",
        "invalid_json",
        "json_invalid",
        "invalid_function_parameters",
        "invalid_image",
        "invalid_image_format",
        "invalid_image_url",
        "image_parse_error",
        "request_too_large",
        "payload_too_large",
        "unsupported_media_type",
        "method_not_allowed",
        "UnsupportedParamsError",
        "UnprocessableEntityError",
        "ValidationException",
        "validation_error",
        "INVALID_ARGUMENT",
        "FAILED_PRECONDITION",
        "OUT_OF_RANGE",
        "BadRequestError",
        "bad_request",
        "template_error",
        "invalid_schema",
        "string_above_max_length",
        "not_supported_error",
        "UNIMPLEMENTED",
        "tool_error",
      ],
      notStatuses: [401, 402, 403, 404, 408, 429, 502, 503, 504],
    },
    tag: "InvalidRequest",
  },
  {
    id: "permission/forbidden",
    when: {
      codes: ["forbidden", "access_denied", "AccessDenied", "not_allowed", "ForbiddenError"],
      notStatuses: [401, 429],
    },
    tag: "PermissionDenied",
  },
  {
    id: "authentication/unauthorized",
    when: { codes: ["unauthorized"], notStatuses: [403, 429] },
    tag: "AuthenticationFailed",
  },
  {
    id: "unavailable/code",
    when: {
      codes: [
        "server_error",
        "internal_server_error",
        "InternalServerError",
        "internal_error",
        "InternalServerException",
        "InternalFailure",
        "INTERNAL",
        "service_unavailable",
        "service_unavailable_error",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "ServiceUnavailableError",
        "UNAVAILABLE",
        "bad_gateway",
        "upstream_error",
        "provider_error",
        "api_error",
        "ModelStreamErrorException",
        "ModelErrorException",
        "vector_store_timeout",
        "ABORTED",
        "DATA_LOSS",
      ],
      notStatuses: [400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 501, 504, 505],
    },
    tag: "ProviderUnavailable",
  },
  {
    id: "request/weak-code",
    when: {
      codes: ["invalid_request_error", "invalid_request", "InvalidRequestError"],
      statuses: [0, 400, 413, 422],
    },
    tag: "InvalidRequest",
  },
  {
    id: "model/not-found-code",
    when: { codes: ["not_found_error", "NOT_FOUND", "NotFoundError"], statuses: [0, 404, 500] },
    tag: "ModelNotFound",
  },
]

/** What is said, by any provider or through any gateway. */
export const said: ReadonlyArray<Rule> = [
  ...rate,
  ...quota,
  ...account,
  ...filtered,
  ...tooLong,
  ...model.slice(0, 1),
  ...who,
  ...model.slice(1),
  ...busy,
  ...broken,
]

// ---------------------------------------------------------------------------
// Statuses, when nothing that was said is known
// ---------------------------------------------------------------------------

/** A server of one's own has no gateway before it: the client that closed the request is this one. */
const cancelledByUs: Rule = {
  id: "self-hosted/499",
  when: { statuses: [499] },
  tag: "UnknownFailure",
  detail: "It saw the request as cancelled by its client.",
}

/** The statuses that mean something else in a dialect. */
export const dialectStatuses: Readonly<Record<string, ReadonlyArray<Rule>>> = {
  fireworks: [
    {
      id: "fireworks/412",
      when: { statuses: [412] },
      tag: "QuotaExhausted",
      detail: "The account is suspended, most likely for its spending limit or an unpaid invoice.",
    },
  ],
  groq: [{ id: "groq/498", when: { statuses: [498] }, tag: "Overloaded" }],
  ...Object.fromEntries(["ollama", "llamacpp", "vllm", "tgi"].map((dialect) => [dialect, [cancelledByUs]])),
  gemini: [{ id: "gemini/499", when: { statuses: [499] }, tag: "TimedOut" }],
  vertex: [{ id: "vertex/499", when: { statuses: [499] }, tag: "TimedOut" }],
}

const meaning = (
  name: string,
  tag: RuleTag,
  statuses: ReadonlyArray<number>,
  more: Omit<Rule, "id" | "when" | "tag"> = {},
): Rule => ({ id: `status/${name}`, when: { statuses }, tag, ...more })

/** What a status means by itself. The rest of 4xx is `UnknownFailure`, the rest of 5xx `ProviderUnavailable`. */
export const statuses: ReadonlyArray<Rule> = [
  meaning("authentication", "AuthenticationFailed", [401, 407, 498, 561]),
  meaning("payment", "QuotaExhausted", [402]),
  meaning("permission", "PermissionDenied", [403, 451]),
  meaning("not-found", "ModelNotFound", [404, 410]),
  meaning("rate", "RateLimited", [429, 509]),
  meaning("overloaded", "Overloaded", [529]),
  meaning("timeout", "TimedOut", [408, 504, 522, 524, 598, 599]),
  meaning("passing", "ProviderUnavailable", [409, 421, 423, 424, 425, 444, 460, 499], { retryable: true }),
  meaning("lasting", "ProviderUnavailable", [501, 505, 506, 508, 510, 511], { retryable: false }),
  meaning(
    "request",
    "InvalidRequest",
    [400, 405, 406, 411, 412, 413, 414, 415, 416, 417, 422, 426, 428, 431, 463, 464, 494, 495, 496, 497],
  ),
]

// ---------------------------------------------------------------------------
// The network
// ---------------------------------------------------------------------------

/** Codes of Node, undici, OpenSSL, c-ares, Bun and Deno, and the words of those that have no codes. */
export const network: ReadonlyArray<Rule> = [
  {
    id: "network/certificate",
    when: {
      codes: [
        "CERT_HAS_EXPIRED",
        "CERT_NOT_YET_VALID",
        "CERT_REVOKED",
        "CERT_REJECTED",
        "CERT_UNTRUSTED",
        "CERT_CHAIN_TOO_LONG",
        "CERT_SIGNATURE_FAILURE",
        "CRL_HAS_EXPIRED",
        "CRL_NOT_YET_VALID",
        "CRL_SIGNATURE_FAILURE",
        "DEPTH_ZERO_SELF_SIGNED_CERT",
        "SELF_SIGNED_CERT_IN_CHAIN",
        "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
        "UNABLE_TO_GET_ISSUER_CERT",
        "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
        "UNABLE_TO_GET_CRL",
        "UNABLE_TO_DECRYPT_CERT_SIGNATURE",
        "UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY",
        "ERROR_IN_CERT_NOT_BEFORE_FIELD",
        "ERROR_IN_CERT_NOT_AFTER_FIELD",
        "HOSTNAME_MISMATCH",
        "INVALID_CA",
        "INVALID_PURPOSE",
        "PATH_LENGTH_EXCEEDED",
        "ERR_TLS_CERT_ALTNAME_INVALID",
        "ERR_TLS_CERT_ALTNAME_FORMAT",
        "ERR_SSL_CERTIFICATE_VERIFY_FAILED",
        "ERR_SSL_TLSV1_ALERT_UNKNOWN_CA",
        "ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE",
        "ERR_SSL_SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED",
      ],
      phrases: [
        /\bcertificate\b[^|]{0,80}\b(?:expired|invalid|not (?:yet )?valid|revoked|verif|self[- ]signed|unknown|mismatch|untrusted|required|altname)/,
        /\b(?:self[- ]signed|invalid peer|unable to verify[^|]{0,40}|expired|local issuer) certificate\b/,
        /\bdoes not match certificate\b|certificate_verify_failed|unknownissuer/,
      ],
    },
    tag: "ConnectionFailed",
    fault: "tls",
    retryable: false,
  },
  {
    id: "network/connect-timeout",
    when: {
      codes: [
        "UND_ERR_CONNECT_TIMEOUT",
        "ERR_TLS_HANDSHAKE_TIMEOUT",
        "ConnectTimeoutError",
        "ConnectTimeout",
        "ERR_SOCKET_CONNECTION_TIMEOUT",
      ],
      phrases: [
        /\bconnect(?:ion)? time(?:d )?-?out\b/,
        /\bconnect etimedout\b/,
        /\btls handshake time/,
        /\bconnect timeout error\b/,
      ],
    },
    tag: "TimedOut",
    phase: "connect",
  },
  {
    id: "network/headers-timeout",
    when: { codes: ["UND_ERR_HEADERS_TIMEOUT", "HeadersTimeoutError"] },
    tag: "TimedOut",
    phase: "headers",
  },
  {
    id: "network/body-timeout",
    when: { codes: ["UND_ERR_BODY_TIMEOUT", "BodyTimeoutError"] },
    tag: "TimedOut",
    phase: "idle",
  },
  {
    id: "network/timeout",
    when: {
      codes: [
        "ETIMEDOUT",
        "ESOCKETTIMEDOUT",
        "ETIME",
        "TimeoutError",
        "ERR_HTTP_REQUEST_TIMEOUT",
        "APIConnectionTimeoutError",
        "ReadTimeout",
        "ERR_HTTP2_PING_CANCEL",
        "TimeoutException",
        "RequestTimeout",
      ],
      phrases: [
        /\btimed[- ]?out\b/,
        /\b(?:due to|request|socket|read|response|operation|idle)[- ]time-?out\b/,
        "etimedout",
      ],
    },
    tag: "TimedOut",
    phase: "attempt",
  },
  {
    id: "network/dns",
    when: {
      codes: [
        "ENOTFOUND",
        "EAI_AGAIN",
        "EAI_FAIL",
        "EAI_NODATA",
        "EAI_NONAME",
        "ENODATA",
        "ESERVFAIL",
        "EREFUSED",
        "ETIMEOUT",
        "EBADRESP",
        "ENONAME",
        "EFORMERR",
        "EBADNAME",
        "ERR_NAME_NOT_RESOLVED",
        "ERR_DNS_SET_SERVERS_FAILED",
        "DNSException",
      ],
      phrases: [
        /\bgetaddrinfo\b/,
        /\bdns (?:error|lookup|resol|fail)/,
        /\b(?:name or service not known|could not resolve host|name resolution|nodename nor servname|no such host)\b/,
      ],
    },
    tag: "ConnectionFailed",
    fault: "dns",
  },
  {
    id: "network/refused",
    when: {
      codes: ["ECONNREFUSED", "ConnectionRefused", "ERR_CONNECTION_REFUSED"],
      phrases: ["connection refused", "econnrefused", "unable to connect. is the computer able"],
    },
    tag: "ConnectionFailed",
    fault: "refused",
  },
  {
    id: "network/unreachable",
    when: {
      codes: [
        "EHOSTUNREACH",
        "ENETUNREACH",
        "EHOSTDOWN",
        "ENETDOWN",
        "EADDRNOTAVAIL",
        "ENONET",
        "ERR_INTERNET_DISCONNECTED",
        "ERR_ADDRESS_UNREACHABLE",
        "ERR_NETWORK_CHANGED",
      ],
      phrases: [/\b(?:network|host) is (?:unreachable|down)\b/, "no route to host", "failedtoopensocket"],
    },
    tag: "ConnectionFailed",
    fault: "unreachable",
  },
  {
    id: "network/reset",
    when: {
      codes: [
        "ECONNRESET",
        "ECONNABORTED",
        "EPIPE",
        "ENETRESET",
        "ERR_CONNECTION_RESET",
        "ERR_CONNECTION_ABORTED",
        "ERR_HTTP2_STREAM_ERROR",
        "ERR_HTTP2_SESSION_ERROR",
        "ERR_HTTP2_GOAWAY_SESSION",
        "ERR_HTTP2_PROTOCOL_ERROR",
        "ERR_HTTP2_ERROR",
        "ERR_QUIC_PROTOCOL_ERROR",
        "ConnectionReset",
      ],
      phrases: [
        /\bconnection (?:was )?(?:reset|aborted)\b/,
        "econnreset",
        "broken pipe",
        "goaway",
        "nghttp2_",
        "rst_stream",
      ],
    },
    tag: "ConnectionFailed",
    fault: "reset",
  },
  {
    id: "network/closed",
    when: {
      codes: [
        "UND_ERR_SOCKET",
        "UND_ERR_CLOSED",
        "UND_ERR_DESTROYED",
        "UND_ERR_RES_CONTENT_LENGTH_MISMATCH",
        "ERR_STREAM_PREMATURE_CLOSE",
        "ERR_STREAM_DESTROYED",
        "ERR_STREAM_WRITE_AFTER_END",
        "ERR_SOCKET_CLOSED",
        "ERR_SOCKET_CLOSED_BEFORE_CONNECTION",
        "ERR_HTTP2_INVALID_SESSION",
        "ERR_HTTP2_STREAM_CANCEL",
        "ERR_HTTP2_INVALID_STREAM",
        "ERR_CONNECTION_CLOSED",
        "ERR_EMPTY_RESPONSE",
        "ERR_INCOMPLETE_CHUNKED_ENCODING",
        "ERR_CONTENT_LENGTH_MISMATCH",
        "HPE_INVALID_EOF_STATE",
        "HPE_CLOSED_CONNECTION",
        "Z_BUF_ERROR",
        "ENOTCONN",
        "ESHUTDOWN",
        "ConnectionClosed",
        "IncompleteRead",
        "RemoteProtocolError",
        "SocketError",
        "EOF",
      ],
      phrases: [
        "other side closed",
        "socket hang up",
        "premature close",
        "premature end",
        "unexpected end of file",
        "unexpected eof",
        "incomplete chunked read",
        "incompleteread",
        "disconnected before secure tls connection",
        /\b(?:socket|connection|stream|server|peer|remote)\b[^|]{0,60}\b(?:was |is |has been |unexpectedly )?(?:closed|disconnected|ended|terminated|hung up)\b/,
        /\bbody (?:was )?(?:cut|truncated)|response ended prematurely/,
        /(?:^|\| )terminated(?:$| \|)/,
      ],
    },
    tag: "ConnectionFailed",
    fault: "closed",
  },
  {
    id: "network/tls",
    when: {
      codes: [
        "EPROTO",
        "ERR_TLS_PROTOCOL_VERSION_CONFLICT",
        "ERR_TLS_INVALID_PROTOCOL_VERSION",
        "ERR_SSL_PROTOCOL_ERROR",
      ],
      phrases: [
        /\b(?:tls|ssl)\b[^|]{0,60}\b(?:handshake|alert|fail|error|routines)/,
        "handshake failure",
        "wrong version number",
        /\berr_(?:ssl|tls)_/,
      ],
    },
    tag: "ConnectionFailed",
    fault: "tls",
  },
  {
    id: "network/request",
    when: {
      codes: [
        "ERR_INVALID_URL",
        "ERR_INVALID_CHAR",
        "ERR_INVALID_ARG_TYPE",
        "ERR_INVALID_ARG_VALUE",
        "ERR_INVALID_HTTP_TOKEN",
        "ERR_INVALID_PROTOCOL",
        "ERR_UNESCAPED_CHARACTERS",
        "UND_ERR_INVALID_ARG",
        "UND_ERR_REQ_CONTENT_LENGTH_MISMATCH",
        "UND_ERR_NOT_SUPPORTED",
        "InvalidUrlError",
        "EncodeError",
        "InvalidUrl",
      ],
      phrases: ["invalid url", "failed to parse url", "unknown scheme"],
    },
    tag: "InvalidRequest",
    detail: "It could not be sent at all.",
  },
  {
    id: "network/not-http",
    when: {
      codes: [
        "UND_ERR_HEADERS_OVERFLOW",
        "UND_ERR_RES_EXCEEDED_MAX_SIZE",
        "HPE_HEADER_OVERFLOW",
        "Z_DATA_ERROR",
        "ERR_CONTENT_DECODING_FAILED",
        "DecodeError",
        "EmptyBodyError",
        "SyntaxError",
        "SchemaError",
        "HTTPParserError",
        "ERR_INVALID_HTTP_RESPONSE",
      ],
      phrases: [
        /\bhpe_[a-z_]{1,40}\b/,
        /\bunexpected (?:token|end of json|non-whitespace)\b/,
        "is not valid json",
        "parse error",
        "incorrect header check",
      ],
    },
    tag: "InvalidResponse",
    kind: "protocol",
  },
  {
    id: "network/aborted",
    when: {
      codes: [
        "AbortError",
        "ABORT_ERR",
        "UND_ERR_ABORTED",
        "APIUserAbortError",
        "ECANCELED",
        "CanceledError",
        "ERR_CANCELED",
      ],
      phrases: [/\b(?:operation|request|signal|stream)\b[^|]{0,20}\b(?:aborted|cancell?ed)\b/],
    },
    tag: "UnknownFailure",
    detail: "The attempt was aborted on this side.",
  },
  {
    id: "network/other",
    when: {
      codes: [
        "TransportError",
        "FetchError",
        "APIConnectionError",
        "ConnectionError",
        "NetworkError",
        "EIO",
        "EMFILE",
        "ENFILE",
        "ENOBUFS",
        "EADDRINUSE",
        "EACCES",
        "EPERM",
        "ERR_NETWORK",
        "ERR_FAILED",
      ],
      phrases: [
        "fetch failed",
        "failed to fetch",
        "load failed",
        "networkerror",
        "network error",
        "network request failed",
        "network connection was lost",
        "connection error",
        "error sending request",
        /\bund_err_/,
        /\berr_http2_/,
      ],
    },
    tag: "ConnectionFailed",
    fault: "other",
  },
]
