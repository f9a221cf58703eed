import type { Connection } from "./connection.ts";
import { type EndError, ServerError } from "./errors.ts";
import { Cmd, type SendAck } from "./protocol.ts";
import type { OutboxStore, SavedSend } from "./stores.ts";

/** Doubles with every refusal in a row that names no retryAfterMs, up to pauseMax; in ms. */
const pauseMin = 50;
const pauseMax = 5_000;

/** A send without an answer. */
export interface Pending extends SavedSend {
  /** Resolves at SEND_ACK. */
  readonly done: Promise<SendAck>;
}

interface Entry extends Pending {
  packet: string;
  bytes: number;
  /** Not written to the present connection. */
  queued: boolean;
  resolve(ack: SendAck): void;
  reject(error: unknown): void;
}

/** The packet is longer than the server takes, or too many sends have no answer. */
export class OutboxError extends Error {
  override readonly name = "OutboxError";
}

export interface OutboxHost {
  readonly connection: Connection | undefined;
  /** Gets what keeping or forgetting a send has thrown. */
  trouble(e: unknown): void;
}

/** The sends without an answer, in the order in which they were given. They are repeated under the same id until there is one. */
export class Outbox {
  #entries = new Map<string, Entry>();
  #pausedUntil = 0; // after a refusal for the moment
  #pause = 0;

  constructor(readonly host: OutboxHost, readonly store: OutboxStore | undefined, readonly maxFrame: number, readonly maxSends: number) {}

  get pending(): Pending[] {
    return [...this.#entries.values()];
  }

  /** Puts what an earlier run left before everything else. */
  restore(saved: SavedSend[]): void {
    const given = this.#entries;
    this.#entries = new Map();
    for (const s of saved) {
      if (given.has(s.id)) continue;
      const e = this.#entry(s);
      e.done.catch(() => {}); // perhaps nobody waits for it
      this.#entries.set(s.id, e);
    }
    for (const [id, e] of given) this.#entries.set(id, e);
  }

  /** Takes a packet that SEND_ACK answers. */
  add(send: SavedSend, keep: boolean, signal?: AbortSignal): Promise<SendAck> {
    signal?.throwIfAborted();
    const { id } = send;
    const e = this.#entry(send);
    if (e.bytes > this.maxFrame) throw new OutboxError(`a packet of ${e.bytes} bytes is over the limit of ${this.maxFrame}`);
    if (this.#entries.has(id)) throw new OutboxError(`the id ${id} is being sent already`);
    if (this.#entries.size >= this.maxSends) throw new OutboxError(`${this.maxSends} sends have no answer yet`);
    signal?.addEventListener("abort", () => this.#remove(id)?.reject(signal.reason), { once: true });
    const before = this.#paused() || [...this.#entries.values()].some((other) => other.queued);
    this.#entries.set(id, e);
    if (keep) this.#keep((s) => s.putSend(send));
    if (!before) this.#write(e);
    return e.done;
  }

  #entry({ id, cmd, data }: SavedSend): Entry {
    const packet = JSON.stringify({ cmd, id, data });
    let resolve!: Entry["resolve"], reject!: Entry["reject"];
    const done = new Promise<SendAck>((a, b) => ([resolve, reject] = [a, b]));
    return { id, cmd, data, packet, bytes: new TextEncoder().encode(packet).length, queued: true, done, resolve, reject };
  }

  #keep(work: (s: OutboxStore) => Promise<void>): void {
    if (this.store) work(this.store).catch((e) => this.host.trouble(e));
  }

  #remove(id: string): Entry | undefined {
    const e = this.#entries.get(id);
    if (!e) return undefined;
    this.#entries.delete(id);
    this.#keep((s) => s.deleteSend(id));
    return e;
  }

  #write(e: Entry): void {
    const c = this.host.connection;
    if (!c) return;
    e.queued = false;
    c.sendText(e.packet);
  }

  #paused(): boolean {
    return Date.now() < this.#pausedUntil;
  }

  /** The connection is gone, or new: nothing is sent. */
  requeue(): void {
    for (const e of this.#entries.values()) e.queued = true;
    this.#pausedUntil = this.#pause = 0;
  }

  /** Writes what is queued, in order, unless the server asked to wait. */
  flush(): void {
    if (this.#paused()) return;
    for (const e of this.#entries.values()) if (e.queued) this.#write(e);
  }

  /** Ends a send by its SEND_ACK. */
  settle(id: string | undefined, data: Omit<SendAck, "id">): void {
    this.#pause = 0;
    if (id) this.#remove(id)?.resolve({ id, ...data });
  }

  /** Takes an ERROR that answers a send: a retryable one queues it again, any other ends it. Reports whether there was one. */
  refuse(id: string | undefined, error: ServerError): boolean {
    const e = id ? this.#entries.get(id) : undefined;
    if (!e) return false;
    if (!error.retryable) {
      this.#remove(e.id)!.reject(error);
      return true;
    }
    e.queued = true;
    const wait = error.retryAfterMs || (this.#pause = Math.min(Math.max(2 * this.#pause, pauseMin), pauseMax));
    const c = this.host.connection;
    if (Date.now() + wait > this.#pausedUntil) {
      this.#pausedUntil = Date.now() + wait;
      setTimeout(() => {
        if (this.host.connection === c) this.flush();
      }, wait);
    }
    return true;
  }

  /**
   * Ends the largest send on the wire: the server closed because of a frame over its limit and cannot say which one it was;
   * sending it again would close the next connection too.
   */
  dropLargest(error: ServerError): void {
    let largest: Entry | undefined;
    for (const e of this.#entries.values()) if (!e.queued && e.bytes > (largest?.bytes ?? 0)) largest = e;
    if (largest) this.#remove(largest.id)!.reject(error);
  }

  /** The client has ended. What is kept stays so, for the next run. */
  end(error: EndError): void {
    const all = [...this.#entries.values()];
    this.#entries.clear();
    for (const e of all) e.reject(error);
  }
}

/** Whether a kept send is a message, rather than a recall. */
export const isMessage = (p: SavedSend): boolean => p.cmd === Cmd.PrivateMessage || p.cmd === Cmd.GroupMessage;
