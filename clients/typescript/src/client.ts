import { Calls } from "./calls.ts";
import { Connection, type Listener } from "./connection.ts";
import type { Core } from "./core.ts";
import { Deliveries, type Delivery } from "./deliveries.ts";
import { Emitter } from "./emitter.ts";
import { asError, DisconnectedError, EndError, endOfCode, GoAway, serverError, ServerError, TokenRefused } from "./errors.ts";
import { Groups } from "./groups.ts";
import { Inbox } from "./inbox.ts";
import { type Options, type Settings, settings } from "./options.ts";
import { Outbox, type Pending } from "./outbox.ts";
import { Positions } from "./positions.ts";
import {
  Cmd, Code, type Conversation, type Json, type Message, messageOf, type Packet, type Presence, type Receipt, type SendAck, type Session,
  type Typing,
} from "./protocol.ts";

/** The life of a connection after which its failure is not counted to the ones before, in ms. */
const stable = 5_000;

/** A change of the connection. Times are in ms. */
export type State =
  | { status: "online"; session: Session }
  | { status: "offline"; error: Error; retryAfter: number }
  | { status: "ended"; error: EndError };

/**
 * What a client tells. All but `packet` are called one after the other in the order in which things happened; a handler that
 * returns a promise is waited for, and when those of `message` and `recall` are done, the message counts as taken.
 */
export interface Events {
  /** Every message once and in order: stored ones by their inbox number (large groups: by their seq), and ephemeral ones. */
  message: Message;
  /** The event that takes a message back. It stands in the same order as messages. */
  recall: Message;
  receipt: Receipt;
  typing: Typing;
  /** Changes of watched users, and their states after a reconnect. */
  presence: Presence[];
  state: State;
  /** What belongs to no call: an ERROR that answers none, what a store, the token's source or a handler has thrown. */
  error: Error;
  /** Every received packet as it came, before any rule. */
  packet: Packet;
}

/** A message to send: `to` or `group`, and any JSON as content. */
export interface Outgoing {
  to?: string;
  group?: string;
  content: Json;
  /** An integer of yours; 0 = text. */
  type?: number;
  /** Makes repeats recognisable: 1–64 bytes, the same for the same message. None = a new one. */
  id?: string;
  /** To who is online now, and kept nowhere. */
  ephemeral?: boolean;
}

/** A signal that ends the waiting for an answer. */
export interface CallOptions {
  signal?: AbortSignal;
}

/**
 * A user's session that outlives its connections. It logs in, keeps the connection (reconnect, resume, heartbeat, token) and
 * follows the client's rule of the protocol, so that handlers see every stored message once and in order, whatever the
 * network does.
 */
export class Client {
  readonly #o: Settings;
  readonly #events = new Emitter<Events>();
  readonly #prefix = newPrefix();
  readonly #groupAckId = this.#prefix + "-ack"; // the FORBIDDEN of a group just left is known by it
  readonly #calls: Calls;
  readonly #deliveries: Deliveries;
  readonly #inbox: Inbox;
  readonly #groups: Groups;
  readonly #positions: Positions;
  readonly #outbox: Outbox;
  readonly #watched = new Set<string>();
  readonly #reads = new Map<string, number>(); // told while there was no connection
  #counter = 0;

  #started: Promise<Session> | undefined;
  #running: Promise<void> | undefined;
  #attempted: Connection | undefined; // opened, perhaps not logged in
  #connection: Connection | undefined; // logged in
  #session: Session | undefined;
  #end: EndError | undefined;
  #leaving = false; // logout was called
  #attempt = 0; // failures in a row
  #url = 0;
  #token = "";
  #refusedToken: string | undefined;
  #refusal = ""; // the server's words about it
  #asked = false; // LOGIN asked to resume
  #wake: (() => void) | undefined; // ends the wait before the next attempt
  #wakeable = true; // not while the server has asked to stay away

  constructor(options: Options) {
    const o = (this.#o = settings(options));
    const client = this;
    const core: Core = {
      get connection() { return client.#connection; },
      ask: (cmd, data, reply) => this.#calls.ask(cmd, data, reply),
      hasRoom: () => this.#deliveries.length < o.maxQueue,
      deliver: (d) => this.#deliveries.add(d),
      tell: (m) => () => this.#events.emit(m.kind === "recall" ? "recall" : "message", m),
      touch: () => this.#positions.touch(),
    };
    this.#calls = new Calls(() => this.#connection, () => this.newId());
    this.#deliveries = new Deliveries((d) => this.#handled(d), (e) => this.#trouble(e));
    this.#groups = new Groups(core, () => this.#inbox.gen);
    this.#inbox = new Inbox(core, this.#groups);
    const sending = { get connection() { return client.#connection; }, groupAckId: this.#groupAckId, trouble: (e: unknown) => this.#trouble(e) };
    this.#positions = new Positions(sending, o, this.#inbox, this.#groups);
    this.#outbox = new Outbox(sending, o.outbox, o.maxFrame, o.maxOutbox);
  }

  /** Calls handler for every event of that name until the returned function is called. */
  on<K extends keyof Events>(name: K, handler: (value: Events[K]) => unknown): () => void {
    return this.#events.on(name, handler);
  }

  /**
   * Begins to connect and resolves at the first login. Failures are repeated with growing waits; it rejects, with an EndError,
   * when the server refuses for good or the client is closed.
   */
  connect(): Promise<Session> {
    if (this.#end) return Promise.reject(this.#end);
    this.#running ??= this.#run();
    return (this.#started ??= this.#calls.connected().then(() => this.#session!));
  }

  /** What the newest LOGIN answered; undefined before the first. */
  get session(): Session | undefined {
    return this.#session;
  }

  get status(): "connecting" | "online" | "ended" {
    return this.#end ? "ended" : this.#connection ? "online" : "connecting";
  }

  /** The sends and recalls without an answer, in their order; after a restart with an outbox store also those of the last run. */
  get pending(): Pending[] {
    return this.#outbox.pending;
  }

  /** An id that no other call and no other client returns. */
  newId(): string {
    return `${this.#prefix}-${(this.#counter++).toString(36)}`;
  }

  /**
   * Sends a message and resolves when the server has made it durable. It is repeated under the same id over reconnects and
   * after errors for the moment, and sends to one conversation keep their order, with one exception: what was sent behind a
   * message that the server refuses for the moment may overtake it. Rejects with a ServerError when the server refuses it,
   * with an EndError when the client ends, and with the signal's reason: then it may or may not have been kept, and a send with
   * the same id finds out.
   */
  async send(m: Outgoing, o: CallOptions = {}): Promise<SendAck> {
    if ((m.to === undefined) === (m.group === undefined)) throw new TypeError("want either to or group");
    if (m.content === undefined) throw new TypeError("want content");
    const id = m.id ?? this.newId();
    if (id === "" || new TextEncoder().encode(id).length > 64) throw new TypeError("an id has 1 to 64 bytes");
    const data: Record<string, unknown> = m.group === undefined ? { to: m.to } : { group: m.group };
    if (m.type) data["type"] = m.type;
    data["content"] = m.content;
    if (m.ephemeral) data["ephemeral"] = true;
    return this.#submit(id, m.group === undefined ? Cmd.PrivateMessage : Cmd.GroupMessage, data, !m.ephemeral, o);
  }

  /** Takes a message of one's own back. Resolves when the event is durable; the answer's seq is the event's. */
  async recall(conv: string, seq: number, o: CallOptions = {}): Promise<SendAck> {
    return this.#submit(this.newId(), Cmd.Recall, { conv, seq }, true, o);
  }

  #submit(id: string, cmd: number, data: object, keep: boolean, o: CallOptions): Promise<SendAck> {
    if (this.#end) throw this.#end;
    return this.#outbox.add({ id, cmd, data }, keep, o.signal);
  }

  /**
   * Reads a conversation: newest first with `before` or neither, oldest first with `after`; at most limit messages (200, default
   * 50). Recalled messages have no content, and recall events stand in their place.
   */
  async history(q: { conv: string; before?: number; after?: number; limit?: number }, o: CallOptions = {}): Promise<{ messages: Message[]; more: boolean }> {
    const d = await this.#calls.call(Cmd.History, q, true, o.signal);
    return { messages: d.messages.map((m: unknown) => messageOf(-1, m)), more: d.more };
  }

  /** Lists the conversations, newest activity first, at most limit (200, default 50). The cursor asks for the next page; the last has none. */
  async conversations(q: { after?: string; limit?: number } = {}, o: CallOptions = {}): Promise<{ conversations: Conversation[]; cursor?: string }> {
    const d = await this.#calls.call(Cmd.Conversations, q, true, o.signal);
    for (const c of d.conversations) if (c.last) c.last = messageOf(-1, c.last);
    return d;
  }

  /** Reads the inbox after a number, oldest first, at most limit entries (500, default 100). It moves no position. */
  async pull(q: { after: number; limit?: number }, o: CallOptions = {}): Promise<{ entries: Message[]; head: number; first: number; more: boolean }> {
    const d = await this.#calls.call(Cmd.Pull, q, true, o.signal);
    return { ...d, entries: d.entries.map((e: Packet) => messageOf(e.cmd, e.data)) };
  }

  /** Tells that the user has read conv up to seq; without a connection, when there is one again. A refusal is an `error` event. */
  read(conv: string, seq: number): void {
    if (this.#connection) this.#connection.send(Cmd.Read, undefined, { conv, seq });
    else this.#reads.set(conv, Math.max(seq, this.#reads.get(conv) ?? 0));
  }

  /** Tells a user or a group that one is writing. It may be lost. */
  typing(target: { to: string } | { group: string }): void {
    this.#connection?.send(Cmd.Typing, undefined, target);
  }

  /** Begins to watch users, at most 1,000, and resolves with their present state. Changes are `presence` events. */
  async watch(users: string[], o: CallOptions = {}): Promise<Presence[]> {
    const d = await this.#calls.call(Cmd.Presence, { watch: users, unwatch: [] }, true, o.signal);
    for (const u of users) this.#watched.add(u);
    return d.states;
  }

  async unwatch(users: string[], o: CallOptions = {}): Promise<void> {
    await this.#calls.call(Cmd.Presence, { watch: [], unwatch: users }, true, o.signal);
    for (const u of users) this.#watched.delete(u);
  }

  /** Sends an extension command (≥ 1000) and resolves with the data of its answer. It is not repeated: a DisconnectedError says that there was none. */
  async request(cmd: number, data: Json, o: CallOptions = {}): Promise<Json> {
    return this.#calls.call(cmd, data, false, o.signal);
  }

  /** Gets a token from its source and gives it to the server. The client does so by itself before the expiry. */
  refresh(): Promise<void> {
    return this.#renew(true);
  }

  /** Ends the session on the server and closes the client. */
  async logout(): Promise<void> {
    await this.#positions.flush();
    this.#leaving = true;
    try {
      if (this.#connection) await this.#calls.call(Cmd.Logout, {}, false);
    } catch (e) {
      if (!(e instanceof DisconnectedError)) throw e; // the close overtook the answer
    } finally {
      await this.close();
    }
  }

  /**
   * Ends the client: the handler in progress is waited for, what was handled is acknowledged, and the connection is closed in
   * order. Events that still wait are dropped: they will be pushed to the next session. It must not be awaited by a handler.
   */
  async close(): Promise<void> {
    this.#end ??= new EndError("closed");
    await this.#deliveries.stop(false);
    await this.#positions.flush();
    this.#wake?.();
    if (this.#connection) await this.#connection.close();
    else this.#attempted?.abort(this.#end);
    if (!this.#running) this.#running = this.#finish(this.#end);
    await this.#running;
  }

  // The life of the connection.

  async #run(): Promise<void> {
    await this.#restore();
    const unlisten = this.#watchNetwork();
    let verdict: number | EndError;
    for (;;) {
      let why: Error;
      try {
        why = this.#end ?? (await this.#attemptOne());
      } catch (e) {
        why = asError(e);
      }
      verdict = this.#judge(why);
      if (typeof verdict !== "number") break;
      this.#url++;
      this.#tell("state", { status: "offline", error: why, retryAfter: verdict });
      if (verdict > 0) await this.#pause(verdict, why instanceof GoAway);
    }
    unlisten();
    await this.#finish(verdict);
  }

  async #restore(): Promise<void> {
    try {
      const position = await this.#o.positions.load();
      if (position) {
        this.#inbox.epoch = position.epoch;
        this.#inbox.last = this.#inbox.handled = position.inbox;
        this.#groups.restore(position.groups);
      }
      this.#outbox.restore((await this.#o.outbox?.loadSends()) ?? []);
    } catch (e) { // better a chat that sees some messages again than none
      this.#trouble(e);
    }
  }

  /** One connection from its beginning to its end; returns why it ended. */
  async #attemptOne(): Promise<Error> {
    const token = await this.#newToken();
    if (this.#end) return this.#end;
    if (token === this.#refusedToken) return new EndError("unauthorized", Code.Unauthorized, `${this.#refusal}; there is no other token`);
    this.#token = token;
    const { urls } = this.#o;
    const c = (this.#attempted = new Connection(urls[this.#url % urls.length]!, this.#o, this.#listener()));
    let why = await c.ended;
    this.#attempted = this.#connection = undefined;
    if (c.since && Date.now() - c.since > stable) this.#attempt = 0;
    if (why instanceof TokenRefused) {
      if (this.#refusedToken !== undefined) why = new EndError("unauthorized", Code.Unauthorized, why.message);
      this.#refusedToken = token;
      this.#refusal = why.message;
    }
    this.#outbox.requeue();
    this.#calls.disconnected(new DisconnectedError(1006, why.message));
    return why;
  }

  #listener(): Listener {
    return {
      loginData: () => this.#loginData(),
      loggedIn: (c, s) => this.#loggedIn(c, s),
      packet: (c, p) => this.#packet(c, p),
      trouble: (e) => this.#trouble(e),
      renew: () => this.#renew(false).catch((e) => {
        if (!(e instanceof DisconnectedError || e instanceof EndError)) this.#trouble(e);
      }),
    };
  }

  #loginData(): object {
    const { terminal, ack, window } = this.#o;
    const data: Record<string, unknown> = { accessToken: this.#token };
    if (terminal) data["terminal"] = terminal;
    data["ack"] = ack;
    if (window) data["window"] = window;
    const { epoch, handled } = this.#inbox;
    // Up to what was handled, not what is queued: an honoured resume acknowledges.
    if ((this.#asked = epoch !== "")) data["resume"] = { epoch, inbox: handled };
    return data;
  }

  /** The state from the LOGIN answer first, then everything that waited for it. */
  #loggedIn(c: Connection, s: Session): void {
    this.#connection = c;
    this.#session = s;
    this.#refusedToken = undefined;
    this.#inbox.begin(s, this.#asked);
    this.#outbox.requeue();
    this.#outbox.flush();
    this.#rewatch();
    this.#groups.begin(this.#o.ack === "auto");
    for (const [conv, seq] of this.#reads) this.read(conv, seq);
    this.#reads.clear();
    this.#tell("state", { status: "online", session: s });
    this.#calls.ready();
  }

  /** After the end of a connection or of an attempt: how long to wait, or the error that ends the client. */
  #judge(why: Error): number | EndError {
    if (this.#end) return this.#end;
    if (this.#leaving) return new EndError("closed");
    if (why instanceof EndError) return why;
    if (why instanceof TokenRefused) return 0; // once, with a fresh token
    if (why instanceof GoAway) {
      this.#attempt = 0;
      return Math.max(0, why.until - Date.now());
    }
    const { backoffMin, backoffMax } = this.#o;
    const wait = Math.min(backoffMax, backoffMin * 2 ** Math.min(this.#attempt++, 30));
    if (why instanceof ServerError && why.retryAfterMs) return why.retryAfterMs + Math.random() * backoffMin;
    return (wait / 2) * (1 + Math.random());
  }

  #pause(ms: number, asked: boolean): Promise<void> {
    this.#wakeable = !asked;
    return new Promise<void>((done) => {
      const timer = setTimeout(() => this.#wake?.(), ms);
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = undefined;
        done();
      };
    });
  }

  /** A browser tells when the network comes and goes, and when a page is looked at again after a sleep. */
  #watchNetwork(): () => void {
    const g = globalThis as Partial<Pick<Window, "addEventListener" | "removeEventListener" | "document">>;
    const look = (event: Event) => {
      if (event.type === "visibilitychange" && g.document?.visibilityState !== "visible") return;
      if (this.#connection) this.#connection.probe();
      else if (this.#wakeable && event.type !== "offline") this.#wake?.();
    };
    const names = ["online", "offline"];
    for (const n of names) g.addEventListener?.(n, look);
    g.document?.addEventListener("visibilitychange", look);
    return () => {
      for (const n of names) g.removeEventListener?.(n, look);
      g.document?.removeEventListener("visibilitychange", look);
    };
  }

  /** Ends the client and everything that waits for it. */
  async #finish(end: EndError): Promise<void> {
    this.#end = end;
    this.#outbox.end(end);
    this.#calls.end(end);
    await this.#deliveries.stop(true);
    await this.#positions.flush();
    await this.#events.emit("state", { status: "ended", error: end }).catch((e) => this.#trouble(e));
  }

  #tokens: Promise<unknown> = Promise.resolve();

  /** Asks the source, one call at a time and not for ever. */
  #newToken(): Promise<string> {
    const next = this.#tokens.then(() => {
      let timer: ReturnType<typeof setTimeout>;
      const late = new Promise<never>((_, failed) => {
        timer = setTimeout(() => failed(new Error("the token's source does not answer")), this.#o.connectTimeout);
      });
      return Promise.race([this.#o.token(), late]).finally(() => clearTimeout(timer));
    });
    this.#tokens = next.catch(() => {});
    return next;
  }

  /** Without force it spares the server a token that it knows. */
  async #renew(force: boolean): Promise<void> {
    const token = await this.#newToken();
    if (token === this.#token && !force) return;
    const d = await this.#calls.call(Cmd.Refresh, { accessToken: token }, false);
    this.#token = token;
    this.#connection?.renewed(d.expiresAt);
  }

  #rewatch(): void {
    if (this.#watched.size === 0) return;
    this.#calls.ask(Cmd.Presence, { watch: [...this.#watched].sort(), unwatch: [] }, (error, data) => {
      if (!error) this.#presence(data.states);
      else if (!(error instanceof DisconnectedError)) this.#trouble(error);
    });
  }

  // What comes.

  #packet(c: Connection, p: Packet): void {
    if (c !== this.#connection) return;
    void this.#events.emit("packet", p).catch((e) => this.#trouble(e));
    switch (p.cmd) {
      case Cmd.PrivateMessage: case Cmd.GroupMessage: case Cmd.SystemMessage: case Cmd.Recall:
        return this.#take(messageOf(p.cmd, p.data));
      case Cmd.SendAck:
        return this.#outbox.settle(p.id, p.data);
      case Cmd.Error:
        return this.#refused(c, p.id, serverError(p.data));
    }
    if (!this.#calls.answer(p.id, undefined, p.data)) this.#news(p);
  }

  #take(m: Message): void {
    if (m.inbox) this.#inbox.take(m);
    else if (m.seq) this.#groups.take(m);
    else this.#tell(m.kind === "recall" ? "recall" : "message", m); // ephemeral
  }

  /** What the server sends by itself beside messages. */
  #news({ cmd, data }: Packet): void {
    switch (cmd) {
      case Cmd.HeartBeat: return this.#inbox.check(data.head, this.#deliveries.length);
      case Cmd.Receipt: return this.#tell("receipt", data);
      case Cmd.Typing: return this.#tell("typing", data);
      case Cmd.Presence: return this.#presence(data.states);
    }
  }

  #presence(states: Presence[]): void {
    if (states.length > 0) this.#tell("presence", states);
  }

  /** Gives an ERROR to the send or call that it answers, or takes it as the connection's end. */
  #refused(c: Connection, id: string | undefined, e: ServerError): void {
    if (id === this.#groupAckId || this.#outbox.refuse(id, e) || this.#calls.answer(id, e, undefined)) return;
    switch (e.code) {
      case Code.TooLarge:
        this.#outbox.dropLargest(e);
        c.end = e;
        break;
      case Code.Unauthorized: case Code.Timeout: case Code.TooSlow: case Code.TokenExpired:
        c.end = e;
        break;
      case Code.Replaced: case Code.Kicked:
        break;
      default:
        return this.#trouble(e);
    }
    c.end = endOfCode(e.code, e.reason, e.text) ?? c.end;
  }

  #handled(d: Delivery): Promise<void> | undefined {
    if (this.#deliveries.length <= this.#o.maxQueue / 2) {
      this.#inbox.refill();
      this.#groups.refill();
    }
    return this.#positions.handled(d);
  }

  // What is told.

  /** Queues an event that may be dropped when the handlers are far behind. */
  #tell<K extends keyof Events>(name: K, value: Events[K]): void {
    if (this.#deliveries.length < 2 * this.#o.maxQueue) this.#deliveries.add({ run: () => this.#events.emit(name, value), gen: -1 });
  }

  #trouble(e: unknown): void {
    const error = asError(e);
    if (!this.#events.has("error")) console.warn("meshtalk:", error);
    else void this.#events.emit("error", error).catch((e) => console.warn("meshtalk:", e));
  }
}

/** 80 random bits in base 32. It needs no secure context. */
function newPrefix(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => (b & 31).toString(32)).join("");
}
