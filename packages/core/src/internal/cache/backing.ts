/**
 * The one place that knows `effect/persistence`: its stores, as what a guard
 * watches.
 */
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Persistence from "effect/persistence/Persistence"
import type * as Redis from "effect/persistence/Redis"
import * as Scope from "effect/Scope"
import type { Store } from "./guarded.ts"

/** The service behind a store. */
export type BackingPersistence = Persistence.BackingPersistence

/** A Redis, as `effect/persistence` knows it. */
export type RedisService = Redis.Redis

/** A store of the backing that is there. */
export const open = (storeId: string): Effect.Effect<Store, never, BackingPersistence | Scope.Scope> =>
  Effect.flatMap(Persistence.BackingPersistence, (backing) => backing.make(storeId))

/**
 * A store in a Redis whose layer is built here, and again when it could not be
 * built or seems to be lost. So a Redis that is down at the start stops nobody,
 * and one that comes back is found.
 */
export const openRedis = <E, R>(
  storeId: string,
  redis: Layer.Layer<RedisService, E, R>,
): Effect.Effect<Store, never, R | Scope.Scope> =>
  Effect.gen(function* () {
    const context = yield* Effect.context<R>()
    const layer = Layer.provide(Persistence.layerBackingRedis, redis)
    const connect = (scope: Scope.Scope): Effect.Effect<Store, E> =>
      // A map of its own: a layer that failed once would stay failed.
      Layer.buildWithMemoMap(layer, Layer.makeMemoMapUnsafe(), scope).pipe(
        Effect.flatMap((built) => Effect.provideContext(open(storeId), built)),
        Effect.provideService(Scope.Scope, scope),
        Effect.provideContext(context),
      )
    const store = new Reconnecting(connect, context)
    yield* Effect.addFinalizer(() => store.close)
    // A moment for the first connection, so that the first question does not find it under way.
    yield* Effect.raceFirst(Effect.asVoid(Fiber.await(store.open().store)), Effect.sleep(connecting))
    return store
  })

interface Connection {
  readonly scope: Scope.Closeable
  readonly store: Fiber.Fiber<Store, unknown>
}

/** How long the first connection is waited for. */
const connecting = Duration.seconds(1)

/** How long closing is waited for: a client may wait itself, for answers that never come. */
const closing = Duration.seconds(1)

class Reconnecting implements Store {
  private readonly connect: (scope: Scope.Scope) => Effect.Effect<Store, unknown>
  private readonly context: Context.Context<never>
  private current: Connection | undefined

  constructor(connect: (scope: Scope.Scope) => Effect.Effect<Store, unknown>, context: Context.Context<never>) {
    this.connect = connect
    this.context = context
  }

  get(key: string): Effect.Effect<object | undefined, unknown> {
    return Effect.suspend(() => Effect.flatMap(this.connected(), (store) => store.get(key)))
  }

  set(key: string, value: object, retain: Duration.Duration | undefined): Effect.Effect<void, unknown> {
    return Effect.suspend(() => Effect.flatMap(this.connected(), (store) => store.set(key, value, retain)))
  }

  /** The store of the connection that there is, or that is made now. */
  private connected(): Effect.Effect<Store, unknown> {
    return Fiber.join((this.current ?? this.open()).store)
  }

  /** Begins to connect. Whoever asks waits for it as long as for any answer. */
  open(): Connection {
    const scope = Scope.makeUnsafe()
    const connection = { scope, store: Effect.runForkWith(this.context)(this.connect(scope)) }
    this.current = connection
    connection.store.addObserver((exit) => {
      if (exit._tag === "Failure") this.drop(connection)
    })
    return connection
  }

  /** The next one who asks makes a new connection. */
  reopen(): void {
    if (this.current !== undefined) this.drop(this.current)
  }

  private drop(connection: Connection): Fiber.Fiber<void> {
    if (this.current === connection) this.current = undefined
    connection.store.interruptUnsafe()
    return Effect.runForkWith(this.context)(Scope.close(connection.scope, Exit.void))
  }

  readonly close: Effect.Effect<void> = Effect.suspend(() =>
    this.current === undefined
      ? Effect.void
      : Effect.raceFirst(Effect.asVoid(Fiber.await(this.drop(this.current))), Effect.sleep(closing)),
  )
}
