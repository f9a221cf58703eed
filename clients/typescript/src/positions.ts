import type { Core } from "./core.ts";
import type { Delivery } from "./deliveries.ts";
import type { Groups } from "./groups.ts";
import type { Inbox } from "./inbox.ts";
import type { Settings } from "./options.ts";
import { Cmd } from "./protocol.ts";
import type { Position } from "./stores.ts";

/** What positions need of the client. */
export interface PositionsHost extends Pick<Core, "connection"> {
  /** The packet id of acknowledgements of large groups. */
  readonly groupAckId: string;
  trouble(e: unknown): void;
}

/** How far the handlers are: kept, and acknowledged, after so many deliveries or a while after the first. */
export class Positions {
  #changed = false; // the position differs from the kept one
  #due = 0; // handled since the last flush
  #timer: ReturnType<typeof setTimeout> | undefined;
  #flushing: Promise<void> = Promise.resolve();

  constructor(readonly host: PositionsHost, readonly options: Settings, readonly inbox: Inbox, readonly groups: Groups) {}

  /** The handlers have had d. When a flush is due it is to be waited for. */
  handled(d: Delivery): Promise<void> | undefined {
    if (d.gen !== this.inbox.gen || (!d.inbox && !d.conv)) return undefined;
    this.inbox.handled = Math.max(this.inbox.handled, d.inbox ?? 0);
    if (d.conv) this.groups.handled(d.conv, d.seq!);
    this.touch();
    return ++this.#due >= this.options.ackEvery ? this.flush() : undefined;
  }

  /** The position has changed. */
  touch(): void {
    this.#changed = true;
    this.#timer ??= setTimeout(() => void this.flush(), this.options.ackDelay);
  }

  /** Keeps the position and acknowledges what was handled, one flush after the other. It does not fail. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    return (this.#flushing = this.#flushing.then(() => this.#flushNow()));
  }

  async #flushNow(): Promise<void> {
    if (!this.#changed) return;
    this.#changed = false;
    this.#due = 0;
    const inbox = this.inbox;
    const position: Position = { epoch: inbox.epoch, inbox: inbox.handled, groups: this.groups.positions() };
    const owed = [...this.groups.owed];
    this.groups.owed.clear();
    try {
      await this.options.positions.save(position);
    } catch (e) { // acknowledged all the same: a repeat after a restart is better than a stop now
      this.host.trouble(e);
    }
    const c = this.host.connection;
    if (!c || this.options.ack !== "client" || inbox.epoch !== position.epoch) return;
    if (position.inbox > inbox.acked) {
      inbox.acked = position.inbox;
      c.send(Cmd.Ack, undefined, { inbox: position.inbox });
    }
    for (const conv of owed) c.send(Cmd.Ack, this.host.groupAckId, { conv, seq: position.groups[conv]!.seq });
  }
}
