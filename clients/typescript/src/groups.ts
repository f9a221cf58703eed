import { type Core, later, maxHeld } from "./core.ts";
import type { Delivery } from "./deliveries.ts";
import { ServerError } from "./errors.ts";
import { Cmd, type Message, messageOf } from "./protocol.ts";
import type { Position } from "./stores.ts";

/** Messages that one HISTORY asks for: the protocol's maximum. */
const historyLimit = 200;

/**
 * The position in a large group, whose messages have no inbox number: the client's rule by seq, with HISTORY instead of
 * PULL. A group may cross the limit while we watch, so that some of its messages come by the inbox; both kinds share one count.
 */
interface Group {
  /** Counting began behind it: what is up to here comes by the inbox or not at all. */
  base: number;
  /** Everything above base up to here was queued for the handlers. */
  last: number;
  /** Newest seq that the handlers are done with. */
  handled: number;
  /** Above last, came by the inbox already. */
  ahead: Set<number>;

  // Of the present connection.
  filling: boolean;
  held: Message[]; // behind the gap that is being filled, by seq
}

const group = (base: number, seq: number): Group => ({ base, last: seq, handled: seq, ahead: new Set(), filling: false, held: [] });

/** Moves over the next message and what came ahead of it. */
function advance(g: Group): void {
  g.last++;
  while (g.ahead.delete(g.last + 1)) g.last++;
}

export class Groups {
  /** Conversations whose position is to be acknowledged. */
  readonly owed = new Set<string>();
  readonly #groups = new Map<string, Group>();
  readonly #starved = new Set<string>(); // whose message found no room in the queue

  /** `gen` is that of the inbox. */
  constructor(readonly core: Core, readonly gen: () => number) {}

  restore(groups: Position["groups"]): void {
    for (const [conv, g] of Object.entries(groups)) this.#groups.set(conv, group(g.base, g.seq));
  }

  positions(): Position["groups"] {
    return Object.fromEntries(Array.from(this.#groups, ([conv, g]) => [conv, { base: g.base, seq: g.handled }]));
  }

  clear(): void {
    this.#groups.clear();
    this.owed.clear();
  }

  /** Applies the rule to a message without an inbox number. */
  take(m: Message): void {
    const seq = m.seq!;
    let g = this.#groups.get(m.conv);
    if (!g) this.#groups.set(m.conv, (g = group(seq - 1, seq - 1)));
    if (seq <= g.last || g.ahead.has(seq)) return;
    if (seq > g.last + 1) {
      if (g.held.length < maxHeld && (g.held.at(-1)?.seq ?? 0) < seq) g.held.push(m);
      this.#fill(m.conv, g);
    } else if (!this.core.hasRoom()) {
      this.#starved.add(m.conv);
    } else {
      advance(g);
      this.core.deliver({ run: this.core.tell(m), conv: m.conv, seq: g.last, gen: this.gen() });
    }
  }

  /** Counts a message that came by the inbox into its large group, and silences it in d if it was taken by HISTORY before. */
  count(m: Message, d: Delivery): void {
    const g = this.#groups.get(m.conv);
    const seq = m.seq ?? 0;
    if (!g || seq <= g.base) return;
    if (seq <= g.last) {
      d.run = undefined;
    } else if (seq === g.last + 1) {
      advance(g);
      d.conv = m.conv;
      d.seq = g.last;
    } else {
      g.ahead.add(seq);
    }
  }

  /** The handlers are done with a message. */
  handled(conv: string, seq: number): void {
    const g = this.#groups.get(conv);
    if (!g || seq <= g.handled) return;
    g.handled = seq;
    this.owed.add(conv);
  }

  /**
   * Begins the groups' part of a new connection. An acknowledging client is pushed what it did not acknowledge, so it says
   * again what it has; an auto client asks for what it may have lost.
   */
  begin(auto: boolean): void {
    this.#starved.clear();
    for (const [conv, g] of this.#groups) {
      g.filling = false;
      g.held = [];
      if (auto) {
        this.#fill(conv, g);
      } else {
        this.owed.add(conv);
        this.core.touch();
      }
    }
  }

  /** Asks for what follows the position, unless that is under way already. */
  #fill(conv: string, g: Group): void {
    const c = this.core.connection;
    if (!c || g.filling || this.#starved.has(conv)) return;
    g.filling = true;
    const known = g.held.at(-1)?.seq ?? 0; // the server has sent this seq before we asked, so its answer goes up to it
    this.core.ask(Cmd.History, { conv, after: g.last, limit: historyLimit }, (error, data) => {
      if (this.core.connection !== c || this.#groups.get(conv) !== g) return;
      if (!error) {
        this.#filled(conv, g, known, data);
      } else if (error instanceof ServerError && !error.retryable) { // no member any more, or no history: go on without
        this.#filled(conv, g, Infinity, { messages: [], more: false });
      } else {
        later(this.core, c, error, () => {
          g.filling = false;
          this.#fill(conv, g);
        });
      }
    });
  }

  /** Takes the answer of a HISTORY, which misses nothing up to known but what retention removed. */
  #filled(conv: string, g: Group, known: number, page: { messages: any[]; more: boolean }): void {
    const before = g.last;
    for (const m of page.messages) this.#next(g, messageOf(-1, m));
    g.filling = false;
    if (page.more && g.last > before) return this.#fill(conv, g);
    const held = g.held;
    g.held = [];
    for (let i = 0; i < held.length; i++) {
      const seq = held[i]!.seq!;
      if (seq > known && seq > g.last + 1) { // it came while the answer was under way
        g.held = held.slice(i);
        return this.#fill(conv, g);
      }
      this.#next(g, held[i]!);
    }
  }

  /** Is take for a message before which nothing can be missing: a hole is what retention removed. */
  #next(g: Group, m: Message): void {
    if (this.#starved.has(m.conv)) return;
    if (this.core.hasRoom() && m.seq! > g.last + 1) {
      g.last = m.seq! - 2; // advance also moves over what came ahead
      advance(g);
      for (const seq of g.ahead) if (seq <= g.last) g.ahead.delete(seq);
    }
    this.take(m);
  }

  /** Asks again for what found no room. */
  refill(): void {
    for (const conv of [...this.#starved]) {
      this.#starved.delete(conv);
      const g = this.#groups.get(conv);
      if (g) this.#fill(conv, g);
    }
  }
}
