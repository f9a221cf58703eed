import { beforeEach, describe, expect, test } from "vitest";

import type { Message } from "../../../clients/typescript/src/index.ts";
import { Model, privateConv, textOf, typingFor } from "../src/model.ts";

const conv = "p:alice:bob";
let model: Model;
let changes = 0;

beforeEach(() => {
  changes = 0;
  model = new Model("alice", () => changes++);
});

const message = (seq: number, from = "bob", more: Partial<Message> = {}): Message =>
  ({ kind: "private", conv, seq, inbox: seq, msgId: `m${seq}`, from, to: from === "bob" ? "alice" : "bob", ts: seq * 1000, type: 0, content: { text: `${seq}` }, ...more });
const recall = (seq: number, target: number): Message => ({ kind: "recall", conv, seq, target, ts: seq * 1000, from: "bob" });
const shown = () => model.chat(conv).items.map((i) => (i.recalled ? "gone" : textOf(i.content)));
const ack = (id: string, seq: number) => ({ id, seq, conv, msgId: `m${seq}`, ts: seq * 1000 });

test("a conversation of two is named by their names in byte order", () => {
  expect(privateConv("bob", "alice")).toBe("p:alice:bob");
  expect(privateConv("a", "B")).toBe("p:B:a");
  expect(privateConv("é", "z")).toBe("p:z:é");
  expect(privateConv("\u{1F600}", "\uFFFD")).toBe("p:\uFFFD:\u{1F600}"); // by UTF-8, not by UTF-16
  expect(model.chat("p:B:alice").name).toBe("B");
  expect(model.chat("g:team")).toMatchObject({ kind: "group", name: "team" });
  expect(model.chat("n:alice")).toMatchObject({ kind: "system", name: "System" });
});

describe("messages", () => {
  test("of history and live ones meet, once and in order", () => {
    model.message(message(5));
    model.page(conv, [message(5), message(4), message(3)], true, true);
    model.message(message(6));
    model.page(conv, [message(2), message(1)], true, false);
    expect(shown()).toEqual(["1", "2", "3", "4", "5", "6"]);
    expect(model.chat(conv)).toMatchObject({ head: 6, loaded: true, complete: true, last: { seq: 6 } });
  });

  test("one's own: on its way, acknowledged, its copy, in any order", () => {
    const c = model.chat(conv);
    model.sending(conv, "a", { text: "one" }, 1);
    model.sending(conv, "b", { text: "two" }, 2);
    model.sending(conv, "b", { text: "two" }, 2);
    expect(c.items.map((i) => model.tick(c, i))).toEqual(["waiting", "waiting"]);
    model.acked(conv, ack("b", 2));
    model.message(message(1, "alice", { id: "a", content: { text: "one" } }));
    model.acked(conv, ack("a", 1));
    model.message(message(2, "alice", { id: "b", content: { text: "two" } }));
    expect(shown()).toEqual(["one", "two"]);
    expect(c.items.map((i) => model.tick(c, i))).toEqual(["sent", "sent"]);
    expect(c.unread).toBe(0);
    model.sending(conv, "c", { text: "three" }, 3);
    model.page(conv, [message(3, "carol", { content: { text: "three" } })], false, true); // under another id: another message
    model.acked(conv, ack("c", 3));
    expect(shown()).toEqual(["one", "two", "three"]);
  });

  test("the same id of somebody else is another message", () => {
    model.sending(conv, "x", { text: "mine" }, 1);
    model.message(message(1, "bob", { id: "x" }));
    expect(shown()).toEqual(["1", "mine"]);
  });

  test("a refused one says so, and can be thrown away", () => {
    const c = model.chat(conv);
    model.sending(conv, "a", { text: "one" }, 1);
    model.failed(conv, "a", "not a member");
    expect(model.tick(c, c.items[0]!)).toBe("failed");
    model.discard(conv, "a");
    expect(shown()).toEqual([]);
  });

  test("taken back: before it is here, after, and in the list", () => {
    model.message(message(1));
    model.message(message(2));
    model.recall(recall(3, 2));
    expect(shown()).toEqual(["1", "gone"]);
    expect(model.chat(conv)).toMatchObject({ head: 3, last: { seq: 2, recalled: true } });
    model.message(message(2)); // as an older page may still show it
    expect(shown()).toEqual(["1", "gone"]);
    model.page(conv, [recall(5, 4), message(4, "bob", { content: null, recalled: true })], false, true);
    expect(shown()).toEqual(["1", "gone", "gone"]);
  });

  test("another store: what was here is forgotten, what is on its way is not", () => {
    model.message(message(1));
    model.sending(conv, "a", { text: "one" }, 1);
    model.forget();
    expect(shown()).toEqual(["one"]);
    expect(model.chat(conv)).toMatchObject({ head: 0, unread: 0, loaded: false });
  });
});

describe("unread", () => {
  test("counts what others write above what was read", () => {
    model.listed([{ conv, kind: "private", peer: "bob", head: 4, read: 2, unread: 2, last: message(4) }]);
    model.message(message(4)); // counted by the list
    model.message(message(5));
    model.message(message(6, "alice"));
    expect(model.unread).toBe(3);
    expect(model.markRead(model.chat(conv))).toBe(6);
    expect(model.markRead(model.chat(conv))).toBeUndefined();
    expect(model.unread).toBe(0);
  });

  test("another terminal of one's own reads too", () => {
    for (const n of [1, 2, 3]) model.message(message(n));
    model.receipt({ conv, user: "alice", read: 2 });
    expect(model.unread).toBe(1);
    model.receipt({ conv, user: "alice", read: 1 });
    expect(model.unread).toBe(1);
  });
});

test("ticks follow the receipts, those missed while away too, and never go back", () => {
  const c = model.chat(conv);
  for (const n of [1, 2, 3]) model.message(message(n, "alice", { id: `i${n}` }));
  model.listed([{ conv, kind: "private", peer: "bob", head: 3, read: 3, unread: 0, peerDelivered: 2, peerRead: 1 }]);
  const ticks = () => c.items.map((i) => model.tick(c, i));
  expect(ticks()).toEqual(["read", "delivered", "sent"]);
  model.receipt({ conv, user: "bob", delivered: 3 });
  model.receipt({ conv, user: "bob", read: 2 });
  model.receipt({ conv, user: "bob", delivered: 1, read: 1 });
  expect(ticks()).toEqual(["read", "read", "delivered"]);
});

test("who writes is told for a while, and until the message is here", () => {
  const c = model.chat("g:team");
  model.typing({ conv: "g:team", from: "bob" }, 0);
  model.typing({ conv: "g:team", from: "carol" }, 1000);
  model.typing({ conv: "g:team", from: "alice" }, 1000);
  expect(model.typists(c, 1000)).toEqual(["bob", "carol"]);
  expect(model.typists(c, typingFor)).toEqual(["carol"]);
  model.message(message(1, "carol", { conv: "g:team", kind: "group" }));
  expect(model.typists(c, typingFor)).toEqual([]);
});

test("the list is in the order of what happened last", () => {
  model.chat("g:lobby");
  model.message(message(1, "bob", { ts: 5 }));
  model.message(message(1, "carol", { conv: "p:alice:carol", ts: 9 }));
  model.sending("p:alice:dave", "a", "x", 7);
  expect(model.list().map((c) => c.name)).toEqual(["carol", "dave", "bob", "lobby"]);
});

test("any content has a text", () => {
  expect(textOf("plain")).toBe("plain");
  expect(textOf({ text: "object", more: 1 })).toBe("object");
  expect(textOf({ text: 1 })).toBe('{"text":1}');
  expect(textOf([null])).toBe("[null]");
});
