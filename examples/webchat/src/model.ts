// What is known of the conversations, and how it changes by what the client tells. No page, no network.

import type { Conversation, Json, Message, Presence, Receipt, SendAck, Typing } from "../../../clients/typescript/src/index.ts";

/** One message in a conversation, or one that is on its way there. */
export interface Item {
  key: string;
  /** The sender's id, of one's own. */
  id?: string | undefined;
  /** None = not sent yet. */
  seq?: number | undefined;
  from: string;
  ts: number;
  content: Json;
  recalled: boolean;
  /** Why it was refused. */
  error?: string;
}

export interface Chat {
  conv: string;
  kind: "private" | "group" | "system";
  /** The other user, the group, or System. */
  name: string;
  /** By seq; what is on its way stands at the end. */
  items: Item[];
  /** RECALL events that stand among the messages: their seq counts, nothing is shown. */
  events: Set<number>;
  head: number;
  read: number;
  unread: number;
  peerDelivered: number;
  peerRead: number;
  /** The newest page of its history is here. */
  loaded: boolean;
  /** There is nothing before the first item. */
  complete: boolean;
  /** Of the list: text and time of the last message. */
  last?: { from: string; content: Json; recalled: boolean; ts: number; seq: number };
  /** By user, until when. */
  typing: Map<string, number>;
}

/** How long somebody counts as writing after a TYPING, in ms. */
export const typingFor = 4000;

/** The conversation of two users: their names in byte order. */
export function privateConv(a: string, b: string): string {
  const bytes = (s: string) => Array.from(new TextEncoder().encode(s), (n) => String.fromCharCode(n)).join("");
  return bytes(a) < bytes(b) ? `p:${a}:${b}` : `p:${b}:${a}`;
}

/** How far a message of one's own has come. */
export type Tick = "failed" | "waiting" | "sent" | "delivered" | "read";

export class Model {
  readonly chats = new Map<string, Chat>();
  readonly presence = new Map<string, Presence>();
  open: string | undefined;

  constructor(readonly me: string, readonly changed: () => void) {}

  /** The conversations, newest activity first, those without any at the end by name. */
  list(): Chat[] {
    const when = (c: Chat) => Math.max(c.last?.ts ?? 0, c.items.at(-1)?.ts ?? 0);
    return [...this.chats.values()].sort((a, b) => when(b) - when(a) || a.name.localeCompare(b.name));
  }

  get unread(): number {
    let n = 0;
    for (const c of this.chats.values()) n += c.unread;
    return n;
  }

  chat(conv: string): Chat {
    let c = this.chats.get(conv);
    if (c) return c;
    const [kind, first = "", second = ""] = conv.split(":");
    c = {
      conv, kind: kind === "p" ? "private" : kind === "g" ? "group" : "system",
      name: kind === "g" ? first : kind === "p" ? (first === this.me ? second : first) : "System",
      items: [], events: new Set(), head: 0, read: 0, unread: 0, peerDelivered: 0, peerRead: 0, loaded: false, complete: false, typing: new Map(),
    };
    this.chats.set(conv, c);
    return c;
  }

  /** Another store than before: what is here means nothing there. What is on its way stays. */
  forget(): void {
    for (const c of this.chats.values()) {
      c.items = c.items.filter((i) => i.seq === undefined);
      c.events.clear();
      c.head = c.read = c.unread = c.peerDelivered = c.peerRead = 0;
      c.loaded = c.complete = false;
      delete c.last;
    }
    this.changed();
  }

  /** What the server's list says. */
  listed(conversations: Conversation[]): void {
    for (const l of conversations) {
      const c = this.chat(l.conv);
      c.head = Math.max(c.head, l.head);
      c.read = Math.max(c.read, l.read);
      c.peerDelivered = Math.max(c.peerDelivered, l.peerDelivered ?? 0);
      c.peerRead = Math.max(c.peerRead, l.peerRead ?? 0);
      c.unread = l.unread;
      if (l.last && (l.last.seq ?? 0) >= (c.last?.seq ?? 0)) c.last = summary(l.last);
    }
    this.changed();
  }

  /** A page of history. */
  page(conv: string, messages: Message[], more: boolean, newest: boolean): void {
    const c = this.chat(conv);
    for (const m of messages) this.#put(c, m);
    if (newest) c.loaded = true;
    if (!more || c.items[0]?.seq === 1) c.complete = true;
    this.changed();
  }

  /** A message that has just come. */
  message(m: Message): void {
    const c = this.chat(m.conv);
    const fresh = (m.seq ?? 0) > c.head;
    this.#put(c, m);
    if (m.from) c.typing.delete(m.from);
    if (fresh && m.from !== this.me && m.seq! > c.read) c.unread++;
    this.changed();
  }

  recall(m: Message): void {
    this.#put(this.chat(m.conv), m);
    this.changed();
  }

  #put(c: Chat, m: Message): void {
    const { seq } = m;
    if (seq === undefined) return; // ephemeral: this chat sends none
    c.head = Math.max(c.head, seq);
    if (m.kind === "recall") {
      c.events.add(seq);
      const target = c.items.find((i) => i.seq === m.target);
      if (target) Object.assign(target, { content: null, recalled: true });
      if (c.last?.seq === m.target) Object.assign(c.last!, { content: null, recalled: true });
      return;
    }
    const known = c.items.find((i) => i.seq === seq || (i.id !== undefined && i.id === m.id && m.from === this.me));
    const item: Item = known ?? { key: m.id && m.from === this.me ? m.id : `s${seq}`, from: "", ts: 0, content: null, recalled: false };
    Object.assign(item, {
      id: m.id, seq, from: m.from ?? "", ts: m.ts, content: m.content ?? null, recalled: m.recalled === true || item.recalled,
    });
    delete item.error;
    if (!known) c.items.push(item);
    sort(c);
    if (seq >= (c.last?.seq ?? 0)) c.last = summary({ ...m, recalled: item.recalled });
  }

  /** A message of one's own that is on its way. */
  sending(conv: string, id: string, content: Json, ts: number): void {
    const c = this.chat(conv);
    if (c.items.some((i) => i.id === id)) return;
    c.items.push({ key: id, id, from: this.me, ts, content, recalled: false });
    this.changed();
  }

  acked(conv: string, ack: SendAck): void {
    const c = this.chat(conv);
    const item = c.items.find((i) => i.id === ack.id);
    if (!item || item.seq !== undefined || ack.seq === undefined) return;
    const copy = c.items.find((i) => i.seq === ack.seq); // it came first, from history
    if (copy) {
      c.items.splice(c.items.indexOf(item), 1);
    } else {
      item.seq = ack.seq;
      item.ts = ack.ts;
      c.head = Math.max(c.head, ack.seq);
      if (ack.seq >= (c.last?.seq ?? 0)) c.last = { from: this.me, content: item.content, recalled: false, ts: ack.ts, seq: ack.seq };
      sort(c);
    }
    this.changed();
  }

  failed(conv: string, id: string, why: string): void {
    const item = this.chat(conv).items.find((i) => i.id === id);
    if (item && item.seq === undefined) item.error = why;
    this.changed();
  }

  /** Takes away a message that was refused. */
  discard(conv: string, id: string): void {
    const c = this.chat(conv);
    c.items = c.items.filter((i) => i.id !== id || i.seq !== undefined);
    this.changed();
  }

  receipt(r: Receipt): void {
    const c = this.chat(r.conv);
    if (r.user === this.me) { // another terminal of one's own has read
      if ((r.read ?? 0) > c.read) {
        c.read = r.read!;
        c.unread = c.items.filter((i) => i.seq !== undefined && i.seq > c.read && i.from !== this.me).length;
      }
    } else {
      c.peerDelivered = Math.max(c.peerDelivered, r.delivered ?? 0, r.read ?? 0);
      c.peerRead = Math.max(c.peerRead, r.read ?? 0);
    }
    this.changed();
  }

  typing(t: Typing, now: number): void {
    if (t.from === this.me) return;
    this.chat(t.conv).typing.set(t.from, now + typingFor);
    this.changed();
  }

  /** Who is writing, oldest first. */
  typists(c: Chat, now: number): string[] {
    for (const [user, until] of c.typing) if (until <= now) c.typing.delete(user);
    return [...c.typing.keys()];
  }

  seen(states: Presence[]): void {
    for (const s of states) this.presence.set(s.user, s);
    this.changed();
  }

  /** One has read what is there; returns the seq to tell, or undefined if it is known. */
  markRead(c: Chat): number | undefined {
    c.unread = 0;
    if (c.head <= c.read) return undefined;
    c.read = c.head;
    return c.head;
  }

  tick(c: Chat, i: Item): Tick {
    if (i.error) return "failed";
    if (i.seq === undefined) return "waiting";
    if (c.kind === "private" && i.seq <= c.peerRead) return "read";
    if (c.kind === "private" && i.seq <= c.peerDelivered) return "delivered";
    return "sent";
  }
}

const sort = (c: Chat) => c.items.sort((a, b) => (a.seq ?? Infinity) - (b.seq ?? Infinity) || 0);

const summary = (m: Message): NonNullable<Chat["last"]> =>
  ({ from: m.from ?? "", content: m.content ?? null, recalled: m.recalled === true, ts: m.ts, seq: m.seq ?? 0 });

/** What of a content is shown: its text, or the JSON itself. */
export function textOf(content: Json): string {
  if (typeof content === "string") return content;
  if (content && typeof content === "object" && !Array.isArray(content) && typeof content["text"] === "string") return content["text"];
  return JSON.stringify(content);
}
