/**
 * Where each track of a script stands. Plain state that the server moves.
 */
import type { Dialect, FaultOf, Script, Step, Then } from "../UpstreamScript.ts"

/** What decides the track of a request. */
export interface Subject {
  readonly dialect: Dialect
  readonly model: string
  readonly path: string
}

interface Track {
  readonly matches: (subject: Subject) => boolean
  readonly steps: ReadonlyArray<Step>
  readonly then: Then
  index: number
  /** How often the step at `index` was played. */
  played: number
  /** Requests of this track that are not over yet. */
  inFlight: number
}

/** A script being played. */
export type Playback = ReadonlyArray<Track>

/** A step being played. Whoever plays it says `over` once. */
export interface Played {
  readonly step: Step
  readonly over: () => void
}

/** Starts a script from its first steps. */
export const make = (script: Script): Playback => {
  const { steps = [], then = "answer", tracks = [] } = isSteps(script) ? { steps: script } : script
  return [
    ...tracks.map((track) =>
      trackOf(
        track.steps,
        track.then ?? "answer",
        (subject) =>
          (track.dialect === undefined || track.dialect === subject.dialect) &&
          (track.model === undefined || globMatches(track.model, subject.model)) &&
          (track.path === undefined || globMatches(track.path, subject.path)),
      ),
    ),
    trackOf(steps, then, () => true),
  ]
}

const isSteps = (script: Script): script is ReadonlyArray<Step> => Array.isArray(script)

const trackOf = (steps: ReadonlyArray<Step>, then: Then, matches: Track["matches"]): Track => ({
  matches,
  steps,
  // A cycle of nothing but refusals would never answer again.
  then: then === "cycle" && steps.every(isRefuse) ? "answer" : then,
  index: 0,
  played: 0,
  inFlight: 0,
})

const globMatches = (glob: string, text: string): boolean =>
  new RegExp(`^${glob.replaceAll(/[\\^$.+?()[\]{}|]/g, "\\$&").replaceAll("*", ".*")}$`, "s").test(text)

const isRefuse = (step: Step): step is FaultOf<"refuse"> => "fault" in step && step.fault === "refuse"

const afterwards: Step = {}

const current = (track: Track): Step => {
  if (track.index >= track.steps.length && track.then === "cycle") track.index = 0
  const step = track.steps[track.index]
  if (step !== undefined) return step
  return (track.then === "repeat" ? track.steps.findLast((step) => !isRefuse(step)) : undefined) ?? afterwards
}

const advance = (track: Track): void => {
  const step = track.steps[track.index]
  if (step === undefined) return
  track.played += 1
  if (track.played < (step.times ?? 1)) return
  track.index += 1
  track.played = 0
}

/** Takes the next step for a request. */
export const next = (playback: Playback, subject: Subject): Played => {
  const track = playback.find((track) => track.matches(subject))
  if (track === undefined) return { step: afterwards, over: () => {} }
  const step = current(track)
  advance(track)
  track.inFlight += 1
  let isOver = false
  return {
    step,
    over: () => {
      if (isOver) return
      isOver = true
      track.inFlight -= 1
    },
  }
}

/** Takes a refusal whose time has come: it is the next step of a track, and what came before it is over. */
export const dueRefusal = (playback: Playback): FaultOf<"refuse"> | undefined => {
  for (const track of playback) {
    if (track.inFlight > 0) continue
    const step = current(track)
    if (!isRefuse(step)) continue
    advance(track)
    return step
  }
  return undefined
}
