/**
 * What a request asks for and a dialect has no words for. Thrown while a
 * request is built, and made an `InvalidRequest` in one place (`Wire.build`),
 * before any network.
 */
export class Unsupported extends Error {
  /** In our own words. */
  readonly detail: string
  constructor(detail: string) {
    super(detail)
    this.detail = detail
  }
}
