import "fake-indexeddb/auto";

import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { Client, IndexedDBStore, type Pending, type SocketConstructor } from "../src/index.ts";
import { FakeSocket } from "./fake.ts";

let sockets: FakeSocket[] = [];
let sent: any[] = [];

const Socket: SocketConstructor = class extends FakeSocket {
  constructor(url: string) {
    super(url, (p) => sent.push(p));
    sockets.push(this);
  }
};

const name = () => crypto.randomUUID();
const next = async <T>(list: T[]): Promise<T> => {
  await vi.waitFor(() => expect(list.length).toBeGreaterThan(0), { timeout: 20_000, interval: 1 });
  return list.shift()!;
};

/** Takes the next connection and its LOGIN. */
async function accept(inbox = { head: 0, first: 1, acked: 0 }, resumed = false): Promise<{ socket: FakeSocket; login: any }> {
  const socket = await next(sockets);
  socket.accept();
  const login = await next(sent);
  socket.push({
    cmd: 0, id: login.id, data: {
      userId: "alice", terminal: "web", sessionId: "s", serverTime: Date.now(), expiresAt: Date.now() + 86_400_000, heartbeat: 30, epoch: "e1",
      inbox, resumed, node: "n",
    },
  });
  return { socket, login };
}

let clients: Client[] = [];

function client(store: IndexedDBStore): Client {
  const c = new Client({ url: "ws://x/im", token: "t", WebSocket: Socket, positions: store, outbox: store, ackDelay: 1, backoffMin: 1 });
  clients.push(c);
  void c.connect().catch(() => {});
  return c;
}

beforeEach(() => {
  sockets = [];
  sent = [];
  clients = [];
});
afterEach(async () => {
  await Promise.all(clients.map((c) => c.close()));
});

const push = (inbox: number) => ({
  cmd: 3, data: { inbox, msgId: "m", conv: "p:alice:bob", seq: inbox, from: "bob", to: "alice", ts: 1, type: 0, content: inbox },
});

test("the position and the sends without an answer outlive the page", async () => {
  const db = name();
  const first = client(new IndexedDBStore(db));
  const { socket } = await accept();
  const seen: unknown[] = [];
  first.on("message", (m) => seen.push(m.content));
  socket.push(push(1));
  socket.push(push(2));
  expect(await next(sent)).toEqual({ cmd: 7, data: { inbox: 2 } });
  const answered = first.send({ to: "bob", content: "answered" });
  const lost = [first.send({ to: "bob", content: "a" }), first.send({ group: "team", content: "b" }), first.recall("p:alice:bob", 1)];
  for (const p of lost) p.catch(() => {});
  const ephemeral = first.send({ to: "bob", content: "gone", ephemeral: true });
  ephemeral.catch(() => {});
  const packets = sent.splice(0);
  expect(packets.map((p) => p.cmd)).toEqual([3, 3, 4, 14, 3]);
  socket.push({ cmd: 6, id: packets[0].id, data: { msgId: "m", conv: "p:alice:bob", ts: 1, seq: 3 } });
  expect((await answered).seq).toBe(3);
  // The page goes: nothing of it runs any more.
  await vi.waitFor(async () => expect(await new IndexedDBStore(db).loadSends()).toHaveLength(3), { timeout: 20_000 });
  expect(seen).toEqual([1, 2]);
  await first.close();
  await Promise.allSettled(lost);

  const second = client(new IndexedDBStore(db));
  const { socket: again, login } = await accept({ head: 2, first: 1, acked: 2 }, true);
  expect(login.data.resume).toEqual({ epoch: "e1", inbox: 2 });
  expect(sent).toEqual(packets.slice(1, 4));
  const pending: Pending[] = second.pending;
  expect(pending.map((p) => p.id)).toEqual(packets.slice(1, 4).map((p) => p.id));
  for (const p of sent.splice(0)) again.push({ cmd: 6, id: p.id, data: { msgId: "m", conv: "c", ts: 1, seq: 9, duplicate: true } });
  expect((await Promise.all(pending.map((p) => p.done))).map((a) => a.duplicate)).toEqual([true, true, true]);
  await vi.waitFor(async () => expect(await new IndexedDBStore(db).loadSends()).toEqual([]), { timeout: 20_000 });
  expect(await new IndexedDBStore(db).load()).toEqual({ epoch: "e1", inbox: 2, groups: {} });
});

test("what an earlier run left goes before what is given now, and an id is sent once", async () => {
  const store = new IndexedDBStore(name());
  await store.putSend({ id: "old-1", cmd: 3, data: { to: "bob", content: 1 } });
  await store.putSend({ id: "old-2", cmd: 3, data: { to: "bob", content: 2 } });
  const c = client(store);
  void c.send({ to: "bob", content: 3, id: "new" }).catch(() => {});
  void c.send({ to: "bob", content: 2, id: "old-2" }).catch(() => {});
  await accept();
  expect(sent.map((p) => p.id)).toEqual(["old-1", "new", "old-2"]);
});

test("a store that is broken costs nothing but itself", async () => {
  const broken = { load: () => Promise.reject(new Error("no database")), save: () => Promise.reject(new Error("no space")) };
  const c = new Client({ url: "ws://x/im", token: "t", WebSocket: Socket, positions: broken, ackDelay: 1 });
  clients.push(c);
  const errors: string[] = [], seen: unknown[] = [];
  c.on("error", (e) => errors.push(e.message));
  c.on("message", (m) => seen.push(m.inbox));
  void c.connect();
  const { socket } = await accept();
  socket.push(push(1));
  expect(await next(sent)).toEqual({ cmd: 7, data: { inbox: 1 } });
  expect(seen).toEqual([1]);
  expect(errors[0]).toBe("no database");
  expect(errors).toContain("no space");
});
