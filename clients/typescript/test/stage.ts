// The player of the golden dialogues, testdata/dialogues/README.md.

import { expect, vi } from "vitest";

import { Client, DisconnectedError, EndError, type Json, MemoryPositions, type Options, type Position, ServerError } from "../src/index.ts";
import { FakeSocket } from "./fake.ts";

type Range = [number, number];
type Values = { [key: string]: any };

export type Step = Values;

/** The lines of a dialogue. */
export function parse(text: string): Step[] {
  return text.split("\n").filter((l) => l !== "" && !l.startsWith("//")).map((l) => JSON.parse(l) as Step);
}

/** The server's and the application's side of one client. */
export class Stage {
  readonly client: Client;
  readonly #positions = new MemoryPositions();
  readonly #bound = new Map<string, string>(); // placeholders
  readonly #sent: unknown[] = [];
  readonly #told: unknown[] = [];
  readonly #outcomes = new Map<string, { result?: unknown; error?: Values }>();
  #attempts: FakeSocket[] = []; // to connect
  #socket!: FakeSocket;
  #step = "";
  #logins = 0;

  constructor(head: Step) {
    const tokens: string[] = head["tokens"] ?? ["token-1"];
    if (head["position"]) void this.#positions.save({ groups: {}, ...head["position"] } as Position);
    const stage = this;
    const options: Options = {
      url: "ws://server/im", positions: this.#positions, ...head["options"],
      token: () => (tokens.length > 1 ? tokens.shift()! : tokens[0]!),
      WebSocket: class extends FakeSocket {
        constructor(url: string) {
          super(url, (packet) => stage.#sent.push(packet));
          stage.#attempts.push(this);
        }
      },
    };
    this.client = new Client(options);
    for (const name of ["message", "recall", "receipt", "typing", "presence"] as const) {
      this.client.on(name, (value) => void this.#told.push({ [name]: value }));
    }
    this.client.on("error", (e) => void this.#told.push({ error: failure(e) }));
    this.client.on("state", (s) => void this.#told.push({ state: { status: s.status, ...(s.status === "ended" ? failure(s.error) : {}) } }));
    void this.client.connect().catch(() => {});
  }

  async play(steps: Step[]): Promise<void> {
    for (const s of steps) {
      this.#step = JSON.stringify(s);
      await this.#play(s);
    }
    this.#step = "the end";
    await settle();
    expect(this.#sent, "the client also sent").toEqual([]);
    expect(this.#told, "the application was also told").toEqual([]);
    expect(this.#attempts, "the client also connected").toEqual([]);
  }

  async #play(s: Step): Promise<void> {
    const [verb] = Object.keys(s);
    const arg = s[verb!];
    const within: Range = s["within"] ?? [0, 0];
    switch (verb) {
      case "connect": return this.#connect(arg, true);
      case "refuse": return this.#connect(arg, false);
      case "login": return this.#login(arg, s["answer"]);
      case "client": return this.#expect("send", this.#sent, arg, within, true);
      case "app": return this.#expect("tell", this.#told, arg, within, false);
      case "server": return this.#push(arg);
      case "close": this.#socket.end(arg, s["text"] ?? ""); return settle();
      case "break": this.#socket.end(1006, ""); return settle();
      case "closed": return this.#await("close the connection", arg, () => this.#socket.closed);
      case "do": this.#do(arg, s["as"], s["with"]); return settle();
      case "result": case "fails": return this.#outcome(verb, arg, s["is"]);
      case "saved":
        await settle();
        return expect(await this.#positions.load(), this.#step).toEqual({ groups: {}, ...arg });
      case "quiet": return this.#quiet(arg);
    }
    throw new Error(`no such step: ${verb}`);
  }

  /** Waits until ready, and fails if that is sooner or later than it should be. */
  async #await(what: string, [low, high]: Range, ready: () => boolean): Promise<void> {
    await settle();
    if (low > 0) {
      await pass(low - 1);
      if (ready()) throw new Error(`too early to ${what}: ${this.#step}`);
      await pass(1);
    }
    const step = Math.max(1, Math.floor((high - low) / 100));
    for (let at = low; !ready(); at += step) {
      if (at >= high) throw new Error(`the client does not ${what}: ${this.#step}`);
      await pass(step);
    }
  }

  async #connect(within: Range, accept: boolean): Promise<void> {
    await this.#await("connect", within, () => this.#attempts.length > 0);
    const socket = this.#attempts.shift()!;
    if (accept) {
      this.#socket = socket;
      socket.accept();
    } else {
      socket.end(1006, "");
    }
    return settle();
  }

  async #login(data: Values, answer: Values | undefined): Promise<void> {
    this.#bound.delete("$login");
    await this.#expect("send", this.#sent, { cmd: 0, id: "$login", data }, [0, 0], true);
    if (!answer) return;
    const { expiresIn, ...given } = answer;
    return this.#push({
      cmd: 0, id: "$login", data: {
        userId: "alice", terminal: "web", sessionId: `session-${++this.#logins}`, serverTime: "$now+0", expiresAt: `$now+${expiresIn ?? 86_400_000}`,
        heartbeat: 30, epoch: "e1", inbox: { head: 0, first: 1, acked: 0 }, resumed: false, node: "node-1", ...given,
      },
    });
  }

  async #push(packet: Json): Promise<void> {
    this.#socket.push(this.#filled(packet));
    return settle();
  }

  /** A value with what its placeholders stand for. */
  #filled(v: Json): Json {
    if (typeof v === "string") return v.startsWith("$now+") ? Date.now() + Number(v.slice(5)) : (this.#bound.get(v) ?? v);
    if (Array.isArray(v)) return v.map((x) => this.#filled(x));
    if (v && typeof v === "object") return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, this.#filled(x)]));
    return v;
  }

  async #expect(what: string, list: unknown[], want: unknown, within: Range, whole: boolean): Promise<void> {
    await this.#await(what, within, () => list.length > 0);
    const got = list.shift();
    if (!this.#matches(want, got, whole)) throw new Error(`it was ${JSON.stringify(got)}, not ${this.#step}`);
  }

  /** A placeholder of want stands for any string at the first time. Unless whole, got may have more fields. A field that is null is as good as none. */
  #matches(want: unknown, got: unknown, whole: boolean): boolean {
    if (typeof want === "string" && want.startsWith("$")) {
      if (typeof got !== "string") return false;
      if (!this.#bound.has(want)) this.#bound.set(want, got);
      return this.#bound.get(want) === got;
    }
    if (want === null || typeof want !== "object") return want === (got ?? null);
    if (got === null || typeof got !== "object") return false;
    if (Array.isArray(want)) return Array.isArray(got) && want.length === got.length && want.every((x, i) => this.#matches(x, got[i], whole));
    const w = want as Values, g = got as Values;
    return Object.keys(w).every((k) => this.#matches(w[k], g[k], whole)) &&
      (!whole || Object.keys(g).every((k) => k in w || (g[k] ?? null) === null));
  }

  async #quiet(ms: number): Promise<void> {
    await settle();
    await pass(ms);
    expect({ sent: this.#sent, told: this.#told, connects: this.#attempts.length }, this.#step).toEqual({ sent: [], told: [], connects: 0 });
  }

  async #outcome(verb: string, name: string, want: unknown): Promise<void> {
    await settle();
    const o = this.#outcomes.get(name);
    const got = verb === "fails" ? o?.error : o?.result;
    if (!o || (verb === "fails") !== (o.error !== undefined) || !this.#matches(want, got, false)) {
      throw new Error(`the outcome is ${JSON.stringify(o)}, not ${this.#step}`);
    }
  }

  #do(what: string, name: string | undefined, w: Values): void {
    this.#call(what, w).then(
      (result) => this.#outcomes.set(name ?? "", { result: result ?? null }),
      (e) => this.#outcomes.set(name ?? "", { error: failure(e) }),
    );
  }

  async #call(what: string, w: Values): Promise<unknown> {
    const c = this.client;
    switch (what) {
      case "send": return c.send(w as any);
      case "recall": return c.recall(w["conv"], w["seq"]);
      case "history": return c.history(w as any);
      case "conversations": return c.conversations(w);
      case "watch": return c.watch(w["watch"]);
      case "unwatch": return c.unwatch(w["unwatch"]);
      case "read": return c.read(w["conv"], w["seq"]);
      case "typing": return c.typing(w as any);
      case "refresh": return c.refresh();
      case "request": return c.request(w["cmd"], w["data"]);
    }
    throw new Error(`no such call: ${what}`);
  }
}

/** An error as the dialogues show it. */
function failure(e: unknown): Values {
  if (e instanceof ServerError) return { code: e.code };
  if (e instanceof EndError) return { reason: e.reason };
  if (e instanceof DisconnectedError) return { reason: "disconnected" };
  return { text: String(e) };
}

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

/** Everything that happens without time passing. */
const settle = async () => {
  for (let i = 0; i < 8; i++) await pass(0);
};
