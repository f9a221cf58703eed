// A signed-in user: the client, the model that it feeds, and what the page can ask for.

import {
  Client, DisconnectedError, EndError, IndexedDBStore, isMessage, type Json, ServerError, type State,
} from "../../../clients/typescript/src/index.ts";
import { type Chat, type Item, Model, privateConv } from "./model.ts";

/** Messages of one page of history. */
const pageSize = 40;
/** A TYPING is sent this often while somebody writes, in ms. */
const typingEvery = 2500;

/** Calls the demo's part of the server. */
async function call<T>(what: string, parameters: Record<string, string>): Promise<T> {
  const answer = await fetch(`/demo/${what}?${new URLSearchParams(parameters)}`, { method: "POST" });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error ?? `the server answers ${answer.status}`);
  return body as T;
}

interface Granted {
  token: string;
  /** Path of the WebSocket. */
  socket: string;
  lobby: string;
}

/** One terminal per browser: a second page of the same user takes over from the first. */
function terminal(): string {
  const kept = localStorage.getItem("terminal");
  if (kept) return kept;
  const made = "web-" + Array.from(crypto.getRandomValues(new Uint8Array(4)), (b) => b.toString(16).padStart(2, "0")).join("");
  localStorage.setItem("terminal", made);
  return made;
}

export class Session {
  readonly model: Model;
  readonly client: Client;
  state: State | undefined;
  /** When the next attempt to connect is, by the local clock. */
  retryAt = 0;
  #watched = new Set<string>();
  #typed = 0;
  #epoch = "";
  #loading = new Map<string, Promise<void>>();

  private constructor(readonly user: string, granted: Granted, readonly changed: () => void, readonly notice: (text: string) => void) {
    this.model = new Model(user, changed);
    const own = terminal();
    const store = new IndexedDBStore(`${location.host}/${user}/${own}`);
    let first: string | undefined = granted.token;
    this.client = new Client({
      url: `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${granted.socket}`, terminal: own, positions: store, outbox: store,
      token: async () => {
        const token = first ?? (await call<Granted>("token", { user, terminal: own })).token;
        first = undefined;
        return token;
      },
    });
    const c = this.client, m = this.model;
    c.on("message", (x) => m.message(x));
    c.on("message", () => this.#look());
    c.on("recall", (x) => m.recall(x));
    c.on("receipt", (x) => m.receipt(x));
    c.on("typing", (x) => m.typing(x, Date.now()));
    c.on("presence", (x) => m.seen(x));
    c.on("state", (x) => this.#stateChanged(x));
    c.on("error", (e) => {
      if (e instanceof ServerError) this.notice(e.text || e.reason);
    });
    m.chat(`g:${granted.lobby}`);
  }

  /** Signs a user in. It throws when the name cannot be, or there is no server. */
  static async start(user: string, changed: () => void, notice: (text: string) => void): Promise<Session> {
    const granted = await call<Granted>("token", { user, terminal: terminal() });
    const s = new Session(user, granted, changed, notice);
    void s.client.connect().then(() => s.#restore(), () => {}); // its end is a state
    return s;
  }

  /** What was queued by a page before this one goes out by itself; here it is shown. */
  #restore(): void {
    for (const p of this.client.pending) {
      if (!isMessage(p)) continue;
      const d = p.data as { to?: string; group?: string; content: Json };
      const conv = d.to === undefined ? `g:${d.group}` : privateConv(this.user, d.to);
      if (this.model.chat(conv).items.some((i) => i.id === p.id)) continue;
      this.model.sending(conv, p.id, d.content, Date.now());
      this.#await(conv, p.id, p.done);
    }
  }

  #stateChanged(s: State): void {
    this.state = s;
    this.retryAt = s.status === "offline" ? Date.now() + s.retryAfter : 0;
    if (s.status === "online") {
      if (this.#epoch && this.#epoch !== s.session.epoch) this.model.forget();
      this.#epoch = s.session.epoch;
      void this.#list().catch((e) => this.#trouble(e));
    }
    this.changed();
  }

  /** The list tells what was missed while away: receipts, and what another terminal has read. */
  async #list(): Promise<void> {
    let after: string | undefined;
    for (let page = 0; page < 5; page++) {
      const l = await this.client.conversations({ limit: 100, ...(after ? { after } : {}) });
      this.model.listed(l.conversations);
      after = l.cursor;
      if (!after) break;
    }
    await this.#watch();
    if (this.model.open) await this.#load(this.model.chat(this.model.open));
    this.#look();
  }

  async #watch(): Promise<void> {
    const peers = [...this.model.chats.values()].filter((c) => c.kind === "private").map((c) => c.name).filter((n) => !this.#watched.has(n)).slice(0, 900);
    if (peers.length === 0) return;
    for (const p of peers) this.#watched.add(p);
    this.model.seen(await this.client.watch(peers));
  }

  #trouble(e: unknown): void {
    if (e instanceof EndError || e instanceof DisconnectedError) return;
    this.notice(e instanceof Error ? e.message : String(e));
  }

  // What the page asks for.

  open(conv: string | undefined): void {
    this.model.open = conv;
    if (conv) {
      void this.#load(this.model.chat(conv)).catch((e) => this.#trouble(e));
      void this.#watch().catch((e) => this.#trouble(e));
      this.#look();
    }
    this.changed();
  }

  /** Fetches the newest page of history, once. */
  #load(c: Chat): Promise<void> {
    if (c.loaded || (c.head === 0 && !c.last)) return Promise.resolve();
    return this.#page(c, {});
  }

  /** Fetches what is before the first message that is here. */
  async older(c: Chat): Promise<void> {
    const first = Math.min(c.items.find((i) => i.seq !== undefined)?.seq ?? Infinity, ...c.events);
    if (!c.loaded || c.complete || first === Infinity) return;
    await this.#page(c, { before: first }).catch((e) => this.#trouble(e));
  }

  #page(c: Chat, q: { before?: number }): Promise<void> {
    const under = this.#loading.get(c.conv);
    if (under) return under;
    const loading = this.client.history({ conv: c.conv, limit: pageSize, ...q })
      .then((p) => this.model.page(c.conv, p.messages, p.more, q.before === undefined))
      .finally(() => this.#loading.delete(c.conv));
    this.#loading.set(c.conv, loading);
    return loading;
  }

  loading(c: Chat): boolean {
    return this.#loading.has(c.conv);
  }

  /** Somebody looks at the open conversation: what is there has been read. */
  look = (): void => this.#look();

  #look(): void {
    const { open } = this.model;
    if (!open || document.visibilityState !== "visible") return;
    const c = this.model.chat(open);
    const seq = this.model.markRead(c);
    if (seq !== undefined) this.client.read(open, seq);
    this.changed();
  }

  send(c: Chat, text: string): void {
    const id = this.client.newId();
    this.#typed = 0;
    this.#send(c, id, { text });
  }

  #send(c: Chat, id: string, content: Json): void {
    this.model.sending(c.conv, id, content, Date.now());
    const to = c.kind === "group" ? { group: c.name } : { to: c.name };
    this.#await(c.conv, id, this.client.send({ ...to, content, id }));
  }

  #await(conv: string, id: string, done: Promise<import("../../../clients/typescript/src/index.ts").SendAck>): void {
    done.then(
      (ack) => this.model.acked(conv, ack),
      (e: Error) => {
        if (!(e instanceof EndError)) this.model.failed(conv, id, e instanceof ServerError ? e.text || e.reason : e.message);
      },
    );
  }

  /** Sends a refused message anew. */
  again(c: Chat, i: Item): void {
    this.model.discard(c.conv, i.id!);
    this.#send(c, this.client.newId(), i.content);
  }

  recall(c: Chat, i: Item): void {
    this.client.recall(c.conv, i.seq!).catch((e) => this.#trouble(e));
  }

  typing(c: Chat): void {
    const now = Date.now();
    if (c.kind === "system" || now - this.#typed < typingEvery) return;
    this.#typed = now;
    this.client.typing(c.kind === "group" ? { group: c.name } : { to: c.name });
  }

  startPrivate(name: string): void {
    this.open(this.model.chat(privateConv(this.user, name)).conv);
  }

  async startGroup(name: string, members: string[]): Promise<void> {
    await call("groups", { group: name, users: [this.user, ...members].join(",") });
    this.open(this.model.chat(`g:${name}`).conv);
  }

  async members(group: string): Promise<string[]> {
    return (await call<{ members: string[] }>("members", { group, user: this.user })).members;
  }

  /** Leaves the page as this user; what has not been sent yet goes out at the next visit. */
  async leave(): Promise<void> {
    await this.client.close();
  }
}
