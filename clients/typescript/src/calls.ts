import type { Connection } from "./connection.ts";
import { DisconnectedError, type EndError, ServerError } from "./errors.ts";

/** The least wait before a call is repeated that the server refused for the moment, in ms. */
const pauseMin = 50;

type Reply = (error: Error | undefined, data: any) => void;

/** Packets that have an answer with the same id, other than sends. */
export class Calls {
  #waiting = new Map<string, Reply>();
  #ready: Promise<void>;
  #up = false;
  #online!: () => void;
  #failed!: (e: EndError) => void;

  constructor(readonly connection: () => Connection | undefined, readonly newId: () => string) {
    this.#ready = this.#offline();
  }

  #offline(): Promise<void> {
    const p = new Promise<void>((a, b) => {
      this.#online = a;
      this.#failed = b;
    });
    p.catch(() => {}); // perhaps nobody waits for it
    return p;
  }

  /** Resolves while there is a connection; rejects when there will be none. */
  connected(): Promise<void> {
    return this.#ready;
  }

  /** Sends a packet on the present connection; reply is called once, in the socket's event. */
  ask(cmd: number, data: unknown, reply: Reply): string {
    const id = this.newId();
    const c = this.connection();
    if (c) {
      this.#waiting.set(id, reply);
      c.send(cmd, id, data);
    } else {
      reply(new DisconnectedError(1006, "not connected"), undefined);
    }
    return id;
  }

  /** Sends a packet and waits for its answer. A repeatable one is sent again when the connection breaks or the server asks for it. */
  async call(cmd: number, data: unknown, repeatable: boolean, signal?: AbortSignal): Promise<any> {
    for (;;) {
      await cancellable(this.#ready, signal);
      let id = "";
      const answer = new Promise((done, failed) => {
        id = this.ask(cmd, data, (error, d) => (error ? failed(error) : done(d)));
      });
      try {
        return await cancellable(answer, signal);
      } catch (e) {
        this.#waiting.delete(id);
        signal?.throwIfAborted();
        if (!repeatable) throw e;
        if (e instanceof DisconnectedError) continue;
        if (!(e instanceof ServerError && e.retryable)) throw e;
        await cancellable(new Promise((r) => setTimeout(r, Math.max(e.retryAfterMs, pauseMin))), signal);
      }
    }
  }

  /** Gives an answer to what waits for it, if anything does. */
  answer(id: string | undefined, error: Error | undefined, data: any): boolean {
    const reply = id === undefined ? undefined : this.#waiting.get(id);
    if (!reply) return false;
    this.#waiting.delete(id!);
    reply(error, data);
    return true;
  }

  /** There is a connection. */
  ready(): void {
    this.#up = true;
    this.#online();
  }

  /** The connection is gone, and no answer will come on it. */
  disconnected(error: DisconnectedError): void {
    if (this.#up) this.#ready = this.#offline();
    this.#up = false;
    this.#fail(error);
  }

  /** There will be no connection any more. */
  end(error: EndError): void {
    this.#failed(error); // those who wait for a connection
    this.#ready = Promise.reject(error);
    this.#ready.catch(() => {});
    this.#fail(error);
  }

  #fail(error: Error): void {
    const waiting = this.#waiting;
    this.#waiting = new Map();
    for (const reply of waiting.values()) reply(error, undefined);
  }
}

/** The promise, or the signal's reason if that comes first. */
function cancellable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  return new Promise((done, failed) => {
    const abort = () => failed(signal.reason);
    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort, { once: true });
    promise.then(done, failed).finally(() => signal.removeEventListener("abort", abort));
  });
}
