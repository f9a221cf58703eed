import { asError, DisconnectedError, endOfCode, GoAway, loginRefusal, serverError } from "./errors.ts";
import type { Settings, Socket } from "./options.ts";
import { Cmd, type Packet, type Session } from "./protocol.ts";

/** What a connection tells its client, from the socket's own events, in their order. */
export interface Listener {
  /** The data of LOGIN, asked for when the socket is open. */
  loginData(): object;
  loggedIn(connection: Connection, session: Session): void;
  packet(connection: Connection, packet: Packet): void;
  /** Something that cannot be read. */
  trouble(error: Error): void;
  /** It is time for another token. Resolves when the server has it, or has refused it. */
  renew(): Promise<void>;
}

/** Without any packet for this many heartbeats the connection is dead: three answers are missing. */
const silence = 3;
/** Used when neither side names a heartbeat, in ms. */
const defaultHeartbeat = 30_000;
/** Before the expiry the token is renewed, or at 4/5 of its life if that is later; in ms. */
const renewAhead = 300_000;
/** How long a closing connection waits for the server's end, in ms. */
const lastWords = 1_000;
/** After a sign that the network has changed an answer must come within this time, in ms. */
const probePatience = 5_000;
/** A timer for longer than 2³¹ − 1 ms would fire at once. */
const day = 86_400_000;

/** One connection: it opens a socket, logs in, keeps the heartbeat, and ends once. */
export class Connection {
  /** Resolves when it is over, with why. */
  readonly ended: Promise<Error>;
  /** When the LOGIN answer came, 0 before. */
  since = 0;
  /** Why the server said that it ends, before the socket does. */
  end: Error | undefined;

  readonly #socket: Socket;
  readonly #listener: Listener;
  readonly #settings: Settings;
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();
  #resolve!: (why: Error) => void;
  #over = false;
  #heard = 0;
  #heartbeat = 0;
  #session: Session | undefined;
  /** Local clock − server clock. */
  #skew = 0;
  #probing = false;

  constructor(url: string, o: Settings, listener: Listener) {
    this.#settings = o;
    this.#listener = listener;
    this.ended = new Promise((resolve) => (this.#resolve = resolve));
    const socket = (this.#socket = new o.WebSocket(url));
    socket.onopen = () => this.send(Cmd.Login, "login", listener.loginData());
    socket.onmessage = (event) => this.#received(event.data);
    socket.onclose = (event) => this.#closed(event.code, event.reason);
    socket.onerror = () => {}; // the close follows
    this.#after(o.connectTimeout, () => {
      if (!this.since) this.abort(new DisconnectedError(1006, "no answer to the login in time"));
    });
  }

  /** Sends a packet; on a connection that is over it goes nowhere. */
  send(cmd: number, id: string | undefined, data: unknown): void {
    this.sendText(JSON.stringify({ cmd, id, data }));
  }

  /** Sends a packet that was made before. */
  sendText(packet: string): void {
    if (this.#over) return;
    try {
      this.#socket.send(packet);
    } catch (e) { // a socket that is closing under our hands tells so itself
      this.#listener.trouble(asError(e));
    }
  }

  /** Says that nothing more will be sent, and waits for the server's end, but not long. */
  async close(): Promise<void> {
    this.#after(lastWords, () => this.abort(new DisconnectedError(1000, "closed")));
    this.#socket.close(1000);
    await this.ended;
  }

  /** Gives the connection up now. */
  abort(why: Error): void {
    if (this.#over) return;
    this.#over = true;
    for (const t of this.#timers) clearTimeout(t);
    const s = this.#socket;
    s.onopen = s.onmessage = s.onclose = null;
    s.onerror = () => {}; // ws throws what nobody listens to
    try {
      s.close();
    } catch { /* it was closed or never open */ }
    this.#resolve(this.end ?? why);
  }

  /** The network may have changed: an answer must come soon, or the connection is given up. */
  probe(): void {
    if (!this.since || this.#probing) return;
    this.#probing = true;
    const asked = Date.now();
    this.send(Cmd.HeartBeat, undefined, {});
    this.#after(probePatience, () => {
      this.#probing = false;
      if (this.#heard < asked) this.abort(new DisconnectedError(1006, "no answer after a change of the network"));
    });
  }

  /** The token was renewed. */
  renewed(expiresAt: number): void {
    this.#session!.expiresAt = expiresAt;
  }

  #after(ms: number, f: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      f();
    }, Math.min(ms, day));
    this.#timers.add(timer);
  }

  #closed(code: number, text: string): void {
    this.abort((code >= 4000 && endOfCode(code, "", text)) || new DisconnectedError(code, text || `the connection was closed (${code})`));
  }

  #received(text: unknown): void {
    this.#heard = Date.now();
    try {
      const packet = JSON.parse(text as string) as Packet;
      if (typeof packet?.cmd !== "number") throw new Error("a packet without cmd");
      if (packet.cmd === Cmd.ForceLogout || packet.cmd === Cmd.GoAway) this.#leaving(packet);
      else if (this.since) this.#listener.packet(this, packet);
      else if (packet.cmd === Cmd.Login) this.#loggedIn(packet.data);
      else if (packet.cmd === Cmd.Error) this.abort(loginRefusal(serverError(packet.data)));
    } catch (e) {
      this.#listener.trouble(asError(e));
    }
  }

  #loggedIn(session: Session): void {
    this.#session = session;
    this.since = Date.now();
    this.#skew = this.since - session.serverTime;
    this.#heartbeat = this.#settings.heartbeat || session.heartbeat * 1000 || defaultHeartbeat;
    this.#listener.loggedIn(this, session);
    this.#beat();
    this.#listen();
    this.#renew();
  }

  /** FORCE_LOGOUT and GOAWAY: the server says why, and closes later; after GOAWAY at the latest when it asked us to be back. */
  #leaving({ cmd, data }: Packet): void {
    const reason = String(data?.reason ?? "");
    if (cmd === Cmd.ForceLogout) {
      const code = Number(data?.code);
      this.end = endOfCode(code, "", reason) ?? new DisconnectedError(code, reason);
      if (!this.since) this.abort(this.end);
      return;
    }
    const wait = Number(data?.retryAfterMs) || 0;
    this.end = new GoAway(Date.now() + wait, reason);
    if (this.since) this.#after(wait, () => this.abort(this.end!));
    else this.abort(this.end);
  }

  #beat(): void {
    this.#after(this.#heartbeat, () => {
      this.send(Cmd.HeartBeat, undefined, {});
      this.#beat();
    });
  }

  #listen(): void {
    this.#after(this.#heard + silence * this.#heartbeat - Date.now(), () => {
      if (Date.now() - this.#heard >= silence * this.#heartbeat) this.abort(new DisconnectedError(1006, "the server is silent"));
      else this.#listen();
    });
  }

  /** Shortly before the expiry, then ever more often. */
  #renew(): void {
    const left = this.#session!.expiresAt + this.#skew - Date.now();
    this.#after(Math.max(left - renewAhead, left * 0.8, 1000), () => {
      void this.#listener.renew().finally(() => {
        if (!this.#over) this.#renew();
      });
    });
  }
}
