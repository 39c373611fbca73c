/** Files in prompts: data URLs, base64, bytes and addresses, brought into one of two forms. */
import type * as Prompt from "effect/ai/Prompt"
import * as Base64 from "effect/encoding/Base64"
import * as Result from "effect/Result"
import { Unsupported } from "./unsupported.ts"

/** A file that is somewhere, or here. */
export type Media =
  | { readonly kind: "address"; readonly url: string; readonly type: string }
  | { readonly kind: "content"; readonly base64: string; readonly type: string }

const dataUrl = /^data:([^;,]*)((?:;[^;,]*)*),(.*)$/s
const base64 = /^[A-Za-z0-9+/_-]*={0,2}$/

/** The type of a file, as far as it may be shown: it is the caller's text. */
export const shownType = (type: string): string =>
  /^[\w.+-]{1,60}\/[\w.+*-]{1,60}$/.test(type) ? type : "an unknown type"

const fromDataUrl = (url: string, type: string): Media => {
  const [, said, options, data] = dataUrl.exec(url) ?? []
  if (data === undefined || options === undefined)
    throw new Unsupported("A file in the prompt has a data URL that cannot be read.")
  // A wildcard such as image/* is not a type that a provider accepts; the data URL knows better.
  const exact = said === undefined || said === "" || !type.includes("*") ? type : said
  if (/;\s*base64/i.test(options)) return { kind: "content", base64: data.replaceAll(/\s/g, ""), type: exact }
  try {
    return { kind: "content", base64: Base64.encode(decodeURIComponent(data)), type: exact }
  } catch {
    throw new Unsupported("A file in the prompt has a data URL that cannot be read.")
  }
}

const fromText = (text: string, type: string): Media => {
  if (text.startsWith("data:")) return fromDataUrl(text, type)
  if (/^https?:\/\//i.test(text)) return { kind: "address", url: text, type }
  const plain = text.replaceAll(/\s/g, "")
  if (!base64.test(plain)) {
    throw new Unsupported("A file in the prompt is neither base64 nor a data URL nor an http address.")
  }
  return { kind: "content", base64: plain.replaceAll("-", "+").replaceAll("_", "/"), type }
}

/** A file part in one of the two forms. */
export const read = ({ data, mediaType }: Prompt.FilePart): Media => {
  const type = mediaType.toLowerCase()
  if (typeof data === "string") return fromText(data, type)
  if (data instanceof URL) {
    if (data.protocol === "data:") return fromDataUrl(data.href, type)
    if (data.protocol === "http:" || data.protocol === "https:") return { kind: "address", url: data.href, type }
    throw new Unsupported("A file in the prompt has an address that is neither http nor a data URL.")
  }
  return { kind: "content", base64: Base64.encode(data), type: exactImage(data, type) }
}

/** The type of bytes that are said to be any image, by how the formats begin. */
const exactImage = (bytes: Uint8Array, type: string): string => {
  if (type !== "image/*") return type
  if (bytes[0] === 0x89 && bytes[1] === 0x50) return "image/png"
  if (bytes[0] === 0x47 && bytes[1] === 0x49) return "image/gif"
  if (bytes[0] === 0x52 && bytes[1] === 0x49) return "image/webp"
  return "image/jpeg"
}

/** The content as a data URL, or the address. */
export const toUrl = (media: Media): string =>
  media.kind === "address" ? media.url : `data:${media.type};base64,${media.base64}`

/** The text of a text file. */
export const toText = (media: Media): string => {
  if (media.kind === "address")
    throw new Unsupported("A text file in the prompt is an address; put its text there instead.")
  const decoded = Base64.decodeString(media.base64)
  if (Result.isFailure(decoded)) throw new Unsupported("A text file in the prompt is not base64.")
  return decoded.success
}

/** Is it text, which can stand in a prompt as it is? */
export const isText = (type: string): boolean => type.startsWith("text/") || type === "application/json"
