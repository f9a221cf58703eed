import type { Connection } from "./connection.ts";
import { DisconnectedError, ServerError } from "./errors.ts";
import type { Message } from "./protocol.ts";
import type { Delivery } from "./deliveries.ts";

/** What the parts of a client that follow the rules need of it. */
export interface Core {
  /** The logged-in connection. */
  readonly connection: Connection | undefined;
  /**
   * Sends a packet on the present connection; reply gets the answer's data from the socket's own event, so nothing comes
   * in between, or the error. With DisconnectedError the connection is over.
   */
  ask(cmd: number, data: unknown, reply: (error: Error | undefined, data: any) => void): void;
  /** Whether a stored message may be queued for the handlers. */
  hasRoom(): boolean;
  /** Queues a call of the handlers. */
  deliver(d: Delivery): void;
  /** The call of the handlers for a message. */
  tell(m: Message): () => unknown;
  /** The position has changed and is to be kept, although no message was handled. */
  touch(): void;
}

/** Messages kept while a gap before them is filled; what is beyond is asked for again. */
export const maxHeld = 1024;

/** The wait after a PULL or HISTORY that was refused for the moment without saying for how long, in ms. */
const retryDelay = 500;

/** Repeats a PULL or HISTORY that failed on c, after the time that the server asked for. */
export function later(core: Core, c: Connection, error: Error, again: () => void): void {
  if (error instanceof DisconnectedError || core.connection !== c) return;
  const wait = error instanceof ServerError && error.retryAfterMs > 0 ? error.retryAfterMs : retryDelay;
  setTimeout(() => {
    if (core.connection === c) again();
  }, wait);
}
