/** Are these one and the same type? Assignable both ways is not enough: `any` is that, too. */
export type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false

/** `same<A, B>(true)` compiles only when the two are one type. */
export const same: <A, B>(equal: Same<A, B>) => void = () => undefined
