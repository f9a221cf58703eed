import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import { Client, EndError, MemoryPositions, OutboxError, type Options, type Socket } from "../src/index.ts";
import { FakeSocket } from "./fake.ts";

// What the golden dialogues do not show: this client's own API.

let sockets: FakeSocket[] = [];
let sent: any[] = [];
const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

class TestSocket extends FakeSocket {
  constructor(url: string) {
    super(url, (p) => sent.push(p));
    sockets.push(this);
  }
}

beforeEach(() => {
  vi.useFakeTimers();
  sockets = [];
  sent = [];
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const make = (o: Partial<Options> = {}) => new Client({ url: "ws://x/im", token: "t", WebSocket: TestSocket, ...o });

async function login(c: Client, head = 0): Promise<FakeSocket> {
  void c.connect().catch(() => {});
  await pass(0);
  const socket = sockets.shift()!;
  socket.accept();
  socket.push({
    cmd: 0, id: sent.pop().id, data: {
      userId: "alice", terminal: "web", sessionId: "s", serverTime: Date.now(), expiresAt: Date.now() + 86_400_000, heartbeat: 30, epoch: "e1",
      inbox: { head, first: 1, acked: 0 }, resumed: false, node: "n",
    },
  });
  await pass(0);
  return socket;
}

const push = (inbox: number) => ({
  cmd: 3, data: { inbox, msgId: "m", conv: "p:alice:bob", seq: inbox, from: "bob", to: "alice", ts: 1, type: 0, content: inbox },
});

test("a message is acknowledged when its handlers are done, and not before", async () => {
  const c = make();
  const released: (() => void)[] = [];
  const seen: number[] = [];
  c.on("message", (m) => {
    seen.push(m.inbox!);
    return new Promise<void>((r) => released.push(r));
  });
  const socket = await login(c);
  socket.push(push(1));
  socket.push(push(2));
  await pass(10_000);
  expect(seen).toEqual([1]);
  expect(sent).toEqual([]);
  released[0]!();
  await pass(200);
  expect(seen).toEqual([1, 2]);
  expect(sent).toEqual([{ cmd: 7, data: { inbox: 1 } }]);
});

test("a handler that throws is told of, and the next message comes all the same", async () => {
  const c = make();
  const errors: string[] = [];
  const seen: number[] = [];
  c.on("error", (e) => errors.push(e.message));
  c.on("message", (m) => {
    seen.push(m.inbox!);
    if (m.inbox === 1) throw new Error("broken");
    return m.inbox === 2 ? Promise.reject(new Error("broken too")) : undefined;
  });
  const socket = await login(c);
  for (const n of [1, 2, 3]) socket.push(push(n));
  await pass(200);
  expect([seen, errors]).toEqual([[1, 2, 3], ["broken", "broken too"]]);
  expect(sent).toEqual([{ cmd: 7, data: { inbox: 3 } }]);
});

test("without a handler errors go to the console", async () => {
  const warn = vi.spyOn(console, "warn").mockImplementation(() => {});
  const socket = await login(make());
  socket.onmessage!({ data: "not JSON" });
  expect(warn).toHaveBeenCalledOnce();
});

test("handlers that are far behind cost a bounded queue: what finds no room is fetched later, in order", async () => {
  const c = make({ maxQueue: 4 });
  let release!: () => void;
  const first = new Promise<void>((r) => (release = r));
  const seen: number[] = [];
  c.on("message", (m) => {
    seen.push(m.inbox!);
    return m.inbox === 1 ? first : undefined;
  });
  const socket = await login(c, 20);
  for (let n = 1; n <= 20; n++) socket.push(push(n));
  await pass(0);
  expect(sent).toEqual([]);
  release();
  await pass(0);
  const pull = sent.shift();
  expect(pull).toMatchObject({ cmd: 8 });
  const entries = Array.from({ length: 20 - pull.data.after }, (_, i) => push(pull.data.after + 1 + i));
  for (let p = pull; p; p = sent.find((x) => x.cmd === 8)) {
    sent.length = 0;
    socket.push({ cmd: 8, id: p.id, data: { entries: entries.filter((e) => e.data.inbox > p.data.after), head: 20, first: 1, more: false } });
    await pass(0);
  }
  expect(seen).toEqual(Array.from({ length: 20 }, (_, i) => i + 1));
});

describe("send", () => {
  test("refuses what the server would not understand", async () => {
    const c = make({ maxFrame: 200, maxOutbox: 2 });
    await expect(c.send({ content: 1 })).rejects.toThrow(TypeError);
    await expect(c.send({ to: "a", group: "b", content: 1 })).rejects.toThrow(TypeError);
    await expect(c.send({ to: "a", content: undefined as any })).rejects.toThrow(TypeError);
    await expect(c.send({ to: "a", content: 1, id: "x".repeat(65) })).rejects.toThrow(TypeError);
    await expect(c.send({ to: "a", content: "é".repeat(100) })).rejects.toThrow(OutboxError);
    void c.send({ to: "a", content: 1, id: "i" });
    await expect(c.send({ to: "a", content: 1, id: "i" })).rejects.toThrow(/already/);
    void c.send({ to: "a", content: 1 });
    await expect(c.send({ to: "a", content: 1 })).rejects.toThrow(/no answer/);
  });

  test("a signal ends the waiting, and the message is not repeated any more", async () => {
    const c = make();
    const abort = new AbortController();
    const a = c.send({ to: "bob", content: 1 }, { signal: abort.signal });
    const b = c.send({ to: "bob", content: 2 });
    abort.abort(new Error("enough"));
    await expect(a).rejects.toThrow("enough");
    await login(c);
    expect(sent.map((p) => p.data.content)).toEqual([2]);
    expect(c.pending.map((p) => p.id)).toEqual([sent[0].id]);
    b.catch(() => {});
    const aborted = c.history({ conv: "g:x" }, { signal: AbortSignal.abort(new Error("no")) });
    await expect(aborted).rejects.toThrow("no");
  });
});

describe("the end", () => {
  test("close acknowledges what was handled, and everything that waits ends", async () => {
    const c = make();
    c.on("message", () => {});
    const states: string[] = [];
    c.on("state", (s) => states.push(s.status));
    const socket = await login(c);
    socket.push(push(1));
    const send = c.send({ to: "bob", content: 1 });
    const call = c.history({ conv: "p:alice:bob" });
    await pass(0);
    const outcome = Promise.allSettled([send, call]);
    const closing = c.close();
    await pass(0);
    await closing;
    for (const o of await outcome) expect(o).toMatchObject({ status: "rejected", reason: { reason: "closed" } });
    expect(sent.at(-1)).toEqual({ cmd: 7, data: { inbox: 1 } });
    expect(socket.closed).toBe(true);
    expect(states).toEqual(["online", "ended"]);
    expect(c.status).toBe("ended");
    await expect(c.connect()).rejects.toThrow(EndError);
    await expect(c.send({ to: "bob", content: 1 })).rejects.toThrow(EndError);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("close before the first login, and without connect", async () => {
    const c = make();
    const started = c.connect();
    started.catch(() => {});
    await pass(0);
    await c.close();
    await expect(started).rejects.toMatchObject({ reason: "closed" });
    await make().close();
    expect(vi.getTimerCount()).toBe(0);
  });

  test("logout waits for the server's answer", async () => {
    const c = make();
    const socket = await login(c);
    const bye = c.logout();
    await pass(0);
    expect(sent[0]).toMatchObject({ cmd: 18 });
    socket.push({ cmd: 18, id: sent[0].id, data: {} });
    socket.end(1000, "");
    await pass(0);
    await bye;
    expect(sockets).toEqual([]);
    expect(c.status).toBe("ended");
  });
});

describe("the network", () => {
  const target = () => Object.assign(new EventTarget(), { document: Object.assign(new EventTarget(), { visibilityState: "visible" }) });
  const stub = () => {
    const t = target();
    vi.stubGlobal("addEventListener", t.addEventListener.bind(t));
    vi.stubGlobal("removeEventListener", t.removeEventListener.bind(t));
    vi.stubGlobal("document", t.document);
    return t;
  };

  test("coming back ends the wait before the next attempt", async () => {
    const t = stub();
    const c = make({ backoffMin: 30_000 });
    void c.connect();
    await pass(0);
    sockets.shift()!.end(1006, "");
    await pass(10);
    expect(sockets).toHaveLength(0);
    t.dispatchEvent(new Event("online"));
    await pass(0);
    expect(sockets).toHaveLength(1);
  });

  test("but not when the server has asked to stay away", async () => {
    const t = stub();
    const c = make();
    const socket = await login(c);
    socket.push({ cmd: 16, data: { reason: "stopping", retryAfterMs: 5000 } });
    socket.end(1001, "");
    await pass(100);
    t.dispatchEvent(new Event("online"));
    await pass(4800);
    expect(sockets).toHaveLength(0);
    await pass(200);
    expect(sockets).toHaveLength(1);
  });

  test("a connection that does not answer after a change of the network is given up", async () => {
    const t = stub();
    const c = make();
    const socket = await login(c);
    await pass(1000);
    t.dispatchEvent(new Event("offline"));
    t.document.dispatchEvent(new Event("visibilitychange"));
    expect(sent).toEqual([{ cmd: 1, data: {} }]);
    await pass(4999);
    expect(c.status).toBe("online");
    await pass(1);
    expect(c.status).toBe("connecting");
    expect(socket.closed).toBe(true);
  });

  test("and one that answers stays", async () => {
    const t = stub();
    const c = make();
    const socket = await login(c);
    await pass(1000);
    t.dispatchEvent(new Event("offline"));
    socket.push({ cmd: 1, data: { head: 0 } });
    await pass(10_000);
    expect(c.status).toBe("online");
  });
});

test("options are checked", () => {
  expect(() => make({ url: "http://x" })).toThrow(TypeError);
  expect(() => make({ url: [] })).toThrow(TypeError);
  expect(() => make({ window: 2000 })).toThrow(RangeError);
  vi.stubGlobal("WebSocket", undefined);
  expect(() => new Client({ url: "ws://x", token: "t" })).toThrow(/WebSocket/);
});

test("addresses are tried in turn, and a token's source that fails is asked again", async () => {
  let calls = 0;
  const c = make({
    url: ["ws://a/im", "ws://b/im"], positions: new MemoryPositions(),
    token: () => (++calls === 1 ? Promise.reject(new Error("the login service is away")) : "t"),
  });
  const states: string[] = [];
  c.on("state", (s) => states.push(s.status === "offline" ? s.error.message : s.status));
  void c.connect();
  await pass(200);
  expect(states[0]).toBe("the login service is away");
  expect(sockets.map((s: Socket & { url: string }) => s.url)).toEqual(["ws://b/im"]);
  sockets.shift()!.end(1006, "");
  await pass(400);
  expect(sockets.map((s: Socket & { url: string }) => s.url)).toEqual(["ws://a/im"]);
});
