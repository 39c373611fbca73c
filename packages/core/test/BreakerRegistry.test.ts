import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { CircuitBreaker, Understudy } from "@understudy/core"
import { Registry } from "../src/internal/breaker/registry.ts"
import { ask, fails, failure, play, random, said, says, stub } from "./stub.ts"

const { rejected } = CircuitBreaker
const rules = CircuitBreaker.rules({ failures: 1 })

/** Uses a circuit, with an outcome. */
const use = (registry: Registry, key: string, now: number, outcome: CircuitBreaker.Outcome = "success") => {
  const circuit = registry.get(key, rules, now)
  const ticket = circuit.admit(now)
  if (ticket !== rejected) circuit.record(ticket, outcome, now)
  return circuit
}

describe("A registry of circuits", () => {
  it("has one circuit for each key, however often it is asked for", () => {
    const registry = new Registry(10)
    assert.strictEqual(registry.get("a", rules), registry.get("a", rules))
    assert.notStrictEqual(registry.get("a", rules), registry.get("b", rules))
  })

  it("lets the idle one that was not used for the longest time make room for a new key", () => {
    const registry = new Registry(3)
    for (const [now, key] of ["a", "b", "c"].entries()) use(registry, key, now)
    use(registry, "a", 10)
    const b = registry.get("b", rules)
    use(registry, "d", 11)
    assert.deepStrictEqual([...registry.circuits.keys()], ["a", "c", "d"])
    assert.isFalse(b.registered)
  })

  it("never lets go of one that is open or half-open, taken in hand, or has a call under way", () => {
    const registry = new Registry(5)
    use(registry, "open", 0, "failure")
    use(registry, "half-open", 1, "failure").halfOpen(1)
    registry.byHand("isolated", rules, 2).isolate(2)
    registry.byHand("shadow", rules, 3).disable(3, true)
    const busy = registry.get("busy", rules, 4)
    const ticket = busy.admit(4)
    // There is no room: the new key has a circuit that lets all through, and it is not kept.
    const fresh = use(registry, "fresh", 5, "failure")
    assert.isFalse(fresh.registered)
    assert.notStrictEqual(fresh.admit(6), rejected)
    assert.strictEqual(registry.circuits.size, 5)
    assert.isFalse(registry.circuits.has("fresh"))
    busy.record(ticket, "success", 7)
    use(registry, "fresh", 8)
    assert.deepStrictEqual([...registry.circuits.keys()], ["open", "half-open", "isolated", "shadow", "fresh"])
  })

  it("always has room for a word of the operator", () => {
    const registry = new Registry(2)
    for (const key of ["a", "b"]) use(registry, key, 0, "failure")
    registry.byHand("c", rules, 1).isolate(1)
    assert.strictEqual(registry.get("c", rules).mode, "isolated")
  })

  it("keeps the circuit of an account as long as one of a model belongs to it", () => {
    const registry = new Registry(3)
    const model = registry.get("a/m", rules, 0, "a/*")
    assert.strictEqual(model.account, registry.circuits.get("a/*"))
    use(registry, "b", 1)
    use(registry, "a/m", 2)
    use(registry, "c", 3)
    assert.deepStrictEqual([...registry.circuits.keys()], ["a/m", "a/*", "c"])
    use(registry, "d", 4)
    use(registry, "e", 5)
    assert.isFalse(model.registered)
    assert.isUndefined(model.account)
    assert.deepStrictEqual([...registry.circuits.keys()].sort(), ["c", "d", "e"].sort())
  })

  it("holds all this for random uses of many keys", () => {
    for (let seed = 0; seed < 100; seed++) {
      const r = random(seed)
      const capacity = r.int(1, 100)
      const registry = new Registry(capacity)
      const flying: Array<{ circuit: ReturnType<Registry["get"]>; ticket: number }> = []
      let hands = 0
      for (let now = 0; now < 300; now++) {
        const kept = [...registry.circuits.values()].filter(
          (one) => one.state !== "closed" || one.mode !== "automatic" || one.outstanding > 0,
        )
        const key = `${r.int(0, 150)}`
        const dice = r.next()
        if (dice < 0.5) {
          const circuit = registry.get(key, rules, now, r.chance(0.5) ? `${r.int(0, 5)}/*` : undefined)
          const ticket = circuit.admit(now)
          if (ticket !== rejected) flying.push({ circuit, ticket })
        } else if (dice < 0.95) {
          const [one] = flying.splice(r.int(0, Math.max(1, flying.length)), 1)
          one?.circuit.record(one.ticket, r.chance(0.1) ? "failure" : "success", now)
        } else {
          if (!registry.circuits.has(key)) hands++
          registry.byHand(key, rules, now).isolate(now)
        }
        assert.isAtMost(registry.circuits.size, capacity + hands)
        assert.isTrue(kept.every((one) => one.registered && registry.circuits.get(one.key) === one))
        assert.isTrue([...registry.circuits.values()].every(({ account }) => account?.registered !== false))
      }
    }
  })

  it("lets go of old keys fast enough for a flood of new ones", () => {
    const registry = new Registry(10_000)
    for (let n = 0; n < 10_000; n++) use(registry, `${n}`, n)
    let looks = 0
    const values = registry.circuits.values.bind(registry.circuits)
    registry.circuits.values = () => {
      looks++
      return values()
    }
    for (let n = 10_000; n < 12_000; n++) use(registry, `${n}`, n)
    delete (registry.circuits as { values?: unknown }).values
    assert.strictEqual(registry.circuits.size <= 10_000, true)
    assert.isTrue(registry.circuits.has("11999"))
    assert.isFalse(registry.circuits.has("0"))
    // At all circuits there are, once for many new keys.
    assert.isBelow(looks, 20)
  })
})

describe("CircuitBreaker.layerWith", () => {
  it.effect("holds as many circuits as it is told, and calls of keys beyond are let through", () =>
    Effect.gen(function* () {
      const sick = ["a", "b"].map((name) => stub(name, () => fails(failure("ModelNotFound", name))))
      for (const { provider } of sick)
        yield* play(ask("generate", provider.pipe(CircuitBreaker.with({ key: provider.name }))))
      const c = stub("c", (n) => (n <= 10 ? fails(failure("ModelNotFound", "c")) : says("c")))
      const guarded = c.provider.pipe(CircuitBreaker.with({ key: "c" }))
      for (let n = 1; n <= 10; n++)
        assert.strictEqual(said((yield* play(ask("generate", guarded))).exit), "ModelNotFound")
      const circuits = yield* CircuitBreaker.Circuits
      assert.deepStrictEqual(
        (yield* circuits.status).map(({ key }) => key),
        ["a", "b"],
      )
      // As soon as there is room again, it is kept.
      yield* circuits.close("a")
      yield* play(ask("stream", guarded))
      assert.deepStrictEqual(
        (yield* circuits.status).map(({ key }) => key),
        ["b", "c"],
      )
    }).pipe(Effect.provide(CircuitBreaker.layerWith({ capacity: 2 }))),
  )

  it.effect("has a circuit made anew after it was let go, for a policy that has known it", () =>
    Effect.gen(function* () {
      const a = stub("a", () => fails(failure("ProviderUnavailable")))
      const guarded = a.provider.pipe(CircuitBreaker.with({ key: "a", failures: 2 }))
      const other = stub("b", () => says("b")).provider.pipe(CircuitBreaker.with({ key: "b" }))
      yield* play(ask("generate", guarded))
      yield* play(ask("generate", other))
      yield* play(ask("generate", guarded))
      // What it had counted was let go with it.
      const [status] = yield* (yield* CircuitBreaker.Circuits).status
      assert.deepStrictEqual([status?.key, status?.state, status?.failures], ["a", "closed", 1])
    }).pipe(Effect.provide(CircuitBreaker.layerWith({ capacity: 1 }))),
  )

  it("throws InvalidOptions for no room at all", () => {
    assert.throws(() => CircuitBreaker.layerWith({ capacity: 0 }), Understudy.InvalidOptions)
    assert.isTrue(Layer.isLayer(CircuitBreaker.layerWith({})))
  })
})
