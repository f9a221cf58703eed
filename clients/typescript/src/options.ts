import { MemoryPositions, type OutboxStore, type PositionStore } from "./stores.ts";

/** What the client needs of a WebSocket: the browser's, Node's own from 22 on, or that of the package `ws`. */
export interface Socket {
  onopen: ((event: any) => void) | null;
  onmessage: ((event: { data: any }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  onerror: ((event: any) => void) | null;
  send(data: string): void;
  close(code?: number, reason?: string): void;
}

export type SocketConstructor = new (url: string) => Socket;

/** Only `url` and `token` are required. Times are in milliseconds. */
export interface Options {
  /** ws:// or wss://host[:port]/im. Of several, the next one is tried after a failure. */
  url: string | string[];
  /** The token for a login, or what fetches one. A function is called for every connection and before the token expires, one call at a time. */
  token: string | (() => string | Promise<string>);
  /** Empty = the token's, else the server's default. A newer login of the same user and terminal ends this one. */
  terminal?: string;
  /**
   * Who moves the terminal's position. `client` (the default): it moves when the handlers are done with a message, so nothing is
   * lost when the program dies. `auto`: when the server has handed a message to its kernel.
   */
  ack?: "client" | "auto";
  /** Messages in flight above the acknowledged position, 1–1,024; none = the server's 256. */
  window?: number;

  /** In memory by default: a new page begins at what the server knows. */
  positions?: PositionStore;
  /** None by default: what is queued offline is gone with the page. */
  outbox?: OutboxStore;
  /** `globalThis.WebSocket` by default. */
  WebSocket?: SocketConstructor;

  /** Handled messages after which they are acknowledged: 64, but at most a quarter of the window … */
  ackEvery?: number;
  /** … or the time after which they are: 200. */
  ackDelay?: number;
  /** The first wait before a new attempt (200), which doubles up to `backoffMax` (30,000). The wait is a random part of it, at least half. */
  backoffMin?: number;
  backoffMax?: number;
  /** For one attempt, LOGIN included: 15,000. */
  connectTimeout?: number;
  /** Between heartbeats; none = what the server asks for. */
  heartbeat?: number;

  /** The server's performance.max-frame-size in bytes: 65,535. A longer packet is refused here. */
  maxFrame?: number;
  /** Sends that may be without an answer: 1,024. */
  maxOutbox?: number;
  /** Events that may wait for the handlers: 4,096. Stored messages beyond it are fetched again, others are dropped. */
  maxQueue?: number;
}

/** The options with every default. */
export interface Settings extends Required<Omit<Options, "url" | "token" | "outbox" | "window" | "heartbeat" | "terminal">> {
  urls: string[];
  token: () => Promise<string>;
  outbox: OutboxStore | undefined;
  terminal: string;
  /** 0 = the server's. */
  window: number;
  /** 0 = the server's. */
  heartbeat: number;
}

/** Checks the options and fills in what they leave out. */
export function settings(o: Options): Settings {
  const urls = Array.isArray(o.url) ? o.url : [o.url];
  if (urls.length === 0 || !urls.every((u) => /^wss?:\/\/./.test(u))) throw new TypeError(`url ${JSON.stringify(o.url)}: want ws:// or wss://`);
  const window = o.window ?? 0;
  if (window < 0 || window > 1024) throw new RangeError("window is not within 1 and 1024");
  const WebSocket = o.WebSocket ?? (globalThis as { WebSocket?: SocketConstructor }).WebSocket;
  if (!WebSocket) throw new TypeError("there is no WebSocket here: give one as an option, for example that of the package ws");
  const { token } = o;
  return {
    urls, window, WebSocket,
    token: async () => (typeof token === "function" ? token() : token),
    terminal: o.terminal ?? "", ack: o.ack ?? "client", heartbeat: o.heartbeat ?? 0,
    positions: o.positions ?? new MemoryPositions(), outbox: o.outbox,
    ackEvery: Math.min(o.ackEvery ?? 64, Math.max(1, (window || 256) >> 2)),
    ackDelay: o.ackDelay ?? 200,
    backoffMin: o.backoffMin ?? 200, backoffMax: o.backoffMax ?? 30_000, connectTimeout: o.connectTimeout ?? 15_000,
    maxFrame: o.maxFrame ?? 65_535, maxOutbox: o.maxOutbox ?? 1024, maxQueue: o.maxQueue ?? 4096,
  };
}
