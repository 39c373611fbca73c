/**
 * SHA-256 (FIPS 180-4), for the keys of caches.
 *
 * The platform's digest runs on another thread and ends when it likes, so two
 * calls on a test clock could be told apart by chance. Most requests are short,
 * and their digest is computed here, at once. Long ones, with images in them
 * say, are left to `crypto.subtle`, which does not keep the event loop.
 */
import * as Effect from "effect/Effect"

/** From this length on, in bytes, the platform's digest is used. */
const offThread = 32 * 1024

/** Words in hexadecimal. */
const wordsOf = (text: string): Uint32Array =>
  Uint32Array.from(text.trim().split(/\s+/), (word) => Number.parseInt(word, 16))

const K = wordsOf(`
  428a2f98 71374491 b5c0fbcf e9b5dba5 3956c25b 59f111f1 923f82a4 ab1c5ed5
  d807aa98 12835b01 243185be 550c7dc3 72be5d74 80deb1fe 9bdc06a7 c19bf174
  e49b69c1 efbe4786 0fc19dc6 240ca1cc 2de92c6f 4a7484aa 5cb0a9dc 76f988da
  983e5152 a831c66d b00327c8 bf597fc7 c6e00bf3 d5a79147 06ca6351 14292967
  27b70a85 2e1b2138 4d2c6dfc 53380d13 650a7354 766a0abb 81c2c92e 92722c85
  a2bfe8a1 a81a664b c24b8b70 c76c51a3 d192e819 d6990624 f40e3585 106aa070
  19a4c116 1e376c08 2748774c 34b0bcb5 391c0cb3 4ed8aa4a 5b9cca4f 682e6ff3
  748f82ee 78a5636f 84c87814 8cc70208 90befffa a4506ceb bef9a3f7 c67178f2
`)

const initial = wordsOf(`
  6a09e667 bb67ae85 3c6ef372 a54ff53a 510e527f 9b05688c 1f83d9ab 5be0cd19
`)

const rotated = (word: number, by: number): number => (word >>> by) | (word << (32 - by))

/** Pads to whole blocks: a one bit, zeros, and the length in bits. */
const padded = (bytes: Uint8Array): DataView => {
  const blocks = Math.ceil((bytes.length + 9) / 64)
  const out = new Uint8Array(blocks * 64)
  out.set(bytes)
  out[bytes.length] = 0x80
  const view = new DataView(out.buffer)
  view.setUint32(out.length - 8, Math.floor(bytes.length / 0x2000_0000))
  view.setUint32(out.length - 4, (bytes.length << 3) >>> 0)
  return view
}

/** The digest of bytes. */
export const sha256 = (bytes: Uint8Array): Uint8Array => {
  const view = padded(bytes)
  const hash = Uint32Array.from(initial)
  const w = new Uint32Array(64)
  for (let block = 0; block < view.byteLength; block += 64) {
    for (let t = 0; t < 16; t++) w[t] = view.getUint32(block + t * 4)
    for (let t = 16; t < 64; t++) {
      const before = w[t - 15]!
      const last = w[t - 2]!
      const s0 = rotated(before, 7) ^ rotated(before, 18) ^ (before >>> 3)
      const s1 = rotated(last, 17) ^ rotated(last, 19) ^ (last >>> 10)
      w[t] = (w[t - 16]! + s0 + w[t - 7]! + s1) | 0
    }
    let [a, b, c, d, e, f, g, h] = hash as unknown as [number, number, number, number, number, number, number, number]
    for (let t = 0; t < 64; t++) {
      const s1 = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + K[t]! + w[t]!) | 0
      const s0 = rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0
      h = g
      g = f
      f = e
      e = (d + t1) | 0
      d = c
      c = b
      b = a
      a = (t1 + t2) | 0
    }
    for (const [i, word] of [a, b, c, d, e, f, g, h].entries()) hash[i] = (hash[i]! + word) | 0
  }
  const out = new Uint8Array(32)
  const written = new DataView(out.buffer)
  for (const [i, word] of hash.entries()) written.setUint32(i * 4, word)
  return out
}

const hex = (bytes: Uint8Array): string => {
  let text = ""
  for (const byte of bytes) text += byte.toString(16).padStart(2, "0")
  return text
}

const encoder = new TextEncoder()

/** The digest of a text, in hexadecimal. */
export const digest = (text: string): Effect.Effect<string> =>
  Effect.suspend(() => {
    const bytes = encoder.encode(text)
    // Some platforms have no `subtle` outside of secure contexts.
    const subtle: SubtleCrypto | undefined = globalThis.crypto?.subtle
    return bytes.length < offThread || subtle === undefined
      ? Effect.succeed(hex(sha256(bytes)))
      : Effect.promise(() =>
          subtle.digest("SHA-256", bytes).then(
            (out) => hex(new Uint8Array(out)),
            () => hex(sha256(bytes)),
          ),
        )
  })
