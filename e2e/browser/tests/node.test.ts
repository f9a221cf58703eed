import { afterAll, beforeAll, expect, test } from "vitest";
import { WebSocket } from "ws";

import { Client, type Options, type SocketConstructor } from "../../../clients/typescript/src/index.ts";
import { type Server, startServer, until } from "../harness.ts";

// The TypeScript client in Node, against a real server.

let server: Server;

beforeAll(async () => {
  server = await startServer({ args: ["--limits.messages-per-second=0", "--group.inbox-limit=2"] });
});
afterAll(async () => {
  await server?.stop();
});

const connect = async (user: string, o: Partial<Options> = {}): Promise<Client> => {
  const c = new Client({
    url: server.address("websocket"), token: () => server.token(user), WebSocket: WebSocket as unknown as SocketConstructor, backoffMin: 20, ...o,
  });
  await c.connect();
  return c;
};

test("every call of the client has the answer that it says", async () => {
  const alice = await connect("alice");
  const bob = await connect("bob");
  const seen: string[] = [];
  bob.on("message", (m) => seen.push(`${m.kind} ${m.conv} ${JSON.stringify(m.content)}`));
  bob.on("recall", (m) => seen.push(`recall ${m.target}`));
  const news: string[] = [];
  alice.on("receipt", (r) => news.push(`${r.user} ${r.delivered ? "delivered" : "read"} ${r.delivered ?? r.read}`));
  bob.on("typing", (t) => news.push(`typing ${t.from}`));
  const conv = "p:alice:bob";
  const ack = await alice.send({ to: "bob", content: { text: "héllo \u2028 <b>" } });
  expect(ack).toMatchObject({ conv, seq: 1 });
  expect(await alice.send({ to: "bob", content: { text: "héllo \u2028 <b>" }, id: ack.id })).toMatchObject({ seq: 1, duplicate: true });
  await expect(alice.send({ to: "bob", content: 2, id: ack.id })).rejects.toMatchObject({ code: 4012, reason: "CONFLICT" });
  expect(await alice.recall(conv, 1)).toMatchObject({ seq: 2 });
  await until("bob has seen it", () => seen.length === 2);
  expect(seen).toEqual([`private ${conv} {"text":"héllo \u2028 <b>"}`, "recall 1"]);
  await alice.send({ to: "bob", content: "again", type: 7 });
  await until("it was delivered", () => news.includes("bob delivered 3"));
  bob.read(conv, 3);
  await until("it was read", () => news.includes("bob read 3"));
  alice.typing({ to: "bob" });
  await until("bob sees that alice writes", () => news.includes("typing alice"));
  expect(await bob.history({ conv, after: 0 })).toMatchObject({
    messages: [{ seq: 1, recalled: true, content: null }, { kind: "recall", seq: 2, target: 1 }, { seq: 3, content: "again", type: 7 }], more: false,
  });
  expect((await alice.conversations()).conversations).toMatchObject([{ conv, kind: "private", peer: "bob", peerRead: 3, last: { content: "again" } }]);
  expect(await alice.pull({ after: 1, limit: 1 })).toMatchObject({ entries: [{ kind: "recall", inbox: 2 }], head: 3, more: true });
  expect(await alice.watch(["bob", "nobody"])).toMatchObject([{ user: "bob", online: true }, { user: "nobody", online: false }]);
  const left = new Promise<boolean>((done) => alice.on("presence", ([p]) => done(p!.online)));
  await bob.logout();
  expect(await left).toBe(false);
  await alice.unwatch(["bob"]);
  await alice.refresh();
  await expect(alice.request(1000, {})).rejects.toMatchObject({ code: 4005 });
  await expect(alice.history({ conv: "p:bob:carol" })).rejects.toMatchObject({ code: 4003 });
  await alice.close();
});

test("a thousand sends over three kills of the server: each once, in order, on every side, large groups too", async () => {
  await server.api("PUT", "/v1/groups/crowd", { members: ["ann", "ben", "cat"] }); // above the limit: no inbox entries
  const [ann, ben] = [await connect("ann"), await connect("ben")];
  const got: Record<string, number[]> = { private: [], group: [], own: [] };
  ben.on("message", (m) => got[m.kind]!.push(m.content as number));
  ann.on("message", (m) => {
    if (m.kind === "private") got["own"]!.push(m.content as number);
  });
  const n = 500;
  const answers: Promise<unknown>[] = [];
  for (let i = 0; i < n; i++) {
    answers.push(ann.send({ to: "ben", content: i }), ann.send({ group: "crowd", content: i }));
    if (i % 150 === 149) {
      await answers[answers.length - 60];
      await server.kill();
      await server.start();
    }
  }
  await Promise.all(answers);
  const all = Array.from({ length: n }, (_, i) => i);
  await until("everything is there", () => got["private"]!.length >= n && got["group"]!.length >= n && got["own"]!.length >= n);
  expect(got).toEqual({ private: all, group: all, own: all });
  expect(ann.pending).toEqual([]);
  await ann.close();
  await ben.close();
});

test("kicked and replaced clients end", async () => {
  const first = await connect("eve", { terminal: "phone" });
  const ended = new Promise<string>((done) => first.on("state", (s) => s.status === "ended" && done(s.error.reason)));
  const second = await connect("eve", { terminal: "phone" });
  expect(await ended).toBe("replaced");
  const kicked = new Promise<string>((done) => second.on("state", (s) => s.status === "ended" && done(s.error.reason)));
  await server.api("POST", "/v1/users/eve/kick", { reason: "enough" });
  expect(await kicked).toBe("kicked");
  const refused = new Client({ url: server.address("websocket"), token: "nonsense", WebSocket: WebSocket as unknown as SocketConstructor });
  await expect(refused.connect()).rejects.toMatchObject({ reason: "unauthorized" });
});
