import { type Core, later, maxHeld } from "./core.ts";
import type { Delivery } from "./deliveries.ts";
import type { Groups } from "./groups.ts";
import { Cmd, type Message, messageOf, type Packet, type Session } from "./protocol.ts";

/** Entries that one PULL asks for: the protocol's maximum. */
const pullLimit = 500;
/** How long a message that a heartbeat announced may still be on its way before it is pulled, in ms. */
const headGrace = 1000;

/** The client's rule, docs/PROTOCOL.md §4.7: the next number is taken, lower ones are dropped, a gap is pulled. */
export class Inbox {
  /** Empty before the first login ever. */
  epoch = "";
  /** Counts dropped positions. */
  gen = 0;
  /** Newest number that was queued for the handlers. */
  last = 0;
  /** Newest number that the handlers are done with. */
  handled = 0;
  /** Newest number that this connection acknowledged. */
  acked = 0;

  // Of the present connection.
  #pulling = false;
  #starved = false; // a message found no room in the queue
  #held: Message[] = []; // behind the gap that is being pulled, by number

  constructor(readonly core: Core, readonly groups: Groups) {}

  /** Adapts the position to a LOGIN answer. */
  begin(s: Session, asked: boolean): void {
    this.#pulling = this.#starved = false;
    this.#held = [];
    const before = Math.max(0, s.inbox.first - 1); // behind it the inbox begins
    if (this.epoch === "") { // a new terminal: the server knows where it starts
      this.#set(Math.max(s.inbox.acked, before));
    } else if (asked && !s.resumed && (this.epoch !== s.epoch || this.last > s.inbox.head)) { // another store: numbers mean nothing here
      this.gen++;
      this.groups.clear();
      this.#set(before);
    } else if (this.last < before) { // retention went past it
      this.#set(before);
    } else {
      this.handled = Math.max(this.handled, before);
    }
    this.epoch = s.epoch;
    this.acked = this.handled;
  }

  #set(n: number): void {
    this.last = this.handled = n;
    this.core.touch();
  }

  take(m: Message): void {
    const n = m.inbox!;
    if (n <= this.last) return;
    if (n > this.last + 1) {
      const held = this.#held;
      if (held.length < maxHeld && (held.at(-1)?.inbox ?? 0) < n) held.push(m);
      this.pull();
    } else if (!this.core.hasRoom()) {
      this.#starved = true;
    } else {
      this.last = n;
      const d: Delivery = { run: this.core.tell(m), inbox: n, gen: this.gen };
      this.groups.count(m, d);
      this.core.deliver(d);
    }
  }

  /** Asks for what follows the position, unless that is under way already. */
  pull(): void {
    const c = this.core.connection;
    if (!c || this.#pulling || this.#starved) return;
    this.#pulling = true;
    const after = this.last;
    this.core.ask(Cmd.Pull, { after, limit: pullLimit }, (error, data) => {
      if (this.core.connection !== c) return;
      if (!error) return this.#pulled(after, data);
      later(this.core, c, error, () => {
        this.#pulling = false;
        this.pull();
      });
    });
  }

  #pulled(after: number, data: { entries: Packet[]; first: number; more: boolean }): void {
    if (data.first > 0 && data.first - 1 > this.last) { // retention removed what was in between
      this.last = data.first - 1;
      this.core.deliver({ inbox: this.last, gen: this.gen });
    }
    for (const e of data.entries) this.take(messageOf(e.cmd, e.data)); // pulling is still set: a hole in the answer asks for nothing
    this.#pulling = false;
    const held = this.#held;
    this.#held = [];
    for (let i = 0; i < held.length; i++) {
      if (held[i]!.inbox! > this.last + 1) {
        this.#held = held.slice(i);
        break;
      }
      this.take(held[i]!);
    }
    if (this.last === after) this.#held = []; // the server has nothing for the gap: wait for the next push or heartbeat
    else if (data.more || this.#held.length > 0) this.pull();
  }

  /** Compares the head of a heartbeat's answer with the position: what is missing for headGrace is pulled. */
  check(head: number, waiting: number): void {
    const c = this.core.connection;
    const seen = this.last;
    // What waits for the handlers means that they are slow, and the server waits for acknowledgements.
    if (head <= seen || this.#pulling || waiting > 0) return;
    setTimeout(() => {
      if (c && this.core.connection === c && this.last === seen) this.pull();
    }, headGrace);
  }

  /** Asks again for what found no room. */
  refill(): void {
    if (!this.#starved) return;
    this.#starved = false;
    this.pull();
  }
}
