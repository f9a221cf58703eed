import { afterAll, beforeAll, expect, test } from "vitest";

import { Client, openConsole, rows, shows } from "../console.ts";
import { type Chromium, launch, type Server, startServer, until } from "../harness.ts";

// Groups, conversations, tail, settings and cluster.

let server: Server;
let browser: Chromium;
const secret = "rocketmq-secret-of-the-test";

beforeAll(async () => {
  server = await startServer({ args: [`--rocketmq.secret-key=${secret}`, "--limits.messages-burst=77", "--cluster.node-id=node-of-the-test"] });
  browser = await launch();
});

afterAll(async () => {
  await browser?.close();
  expect(await server?.stop()).toBe(0);
});

test("groups: size, head, members page by page", async () => {
  const members = Array.from({ length: 450 }, (_, i) => `member-${String(i).padStart(3, "0")}`);
  await server.api("PUT", "/v1/groups/team", { members });
  for (let i = 0; i < 3; i++) await server.api("POST", "/v1/messages", { id: `g-${i}`, from: "member-001", group: "team", content: i });
  const tab = await openConsole(server, browser, "groups");
  await tab.page.getByRole("searchbox", { name: "Group" }).fill("team");
  await tab.page.keyboard.press("Enter");
  await tab.page.getByRole("heading", { name: "team" }).waitFor();
  expect(await tab.page.locator('[data-key="size"]').innerText()).toBe("450");
  expect(await tab.page.locator(".facts").innerText()).toMatch(/Head\s+3/);
  const chips = tab.page.locator(".chips li");
  const more = tab.page.getByRole("button", { name: "More members" });
  await expect.poll(() => chips.count()).toBe(200);
  await more.click();
  await expect.poll(() => chips.count()).toBe(400);
  await more.click();
  await expect.poll(() => chips.allInnerTexts()).toEqual(members);
  await more.waitFor({ state: "hidden" });
  tab.expect(/status of 404/);
  await tab.page.goto(server.address("admin") + "/#/groups/nobody");
  await tab.page.getByText("There is no such group.").waitFor();
  tab.check();
});

test("conversations: history page by page, both ways", async () => {
  for (let i = 1; i <= 120; i++) await server.api("POST", "/v1/messages", { id: `h-${i}`, from: "bob", to: "alice", content: { text: `message ${i}` } });
  await server.api("DELETE", "/v1/conversations/p:alice:bob/messages/119");
  const tab = await openConsole(server, browser, "conversations");
  await tab.page.getByLabel("Between").fill("bob"); // in any order
  await tab.page.getByLabel("and", { exact: true }).fill("alice");
  await tab.page.keyboard.press("Enter");
  await tab.page.getByRole("heading", { name: "p:alice:bob" }).waitFor();
  const seqs = async () => [...(await rows(tab, "Messages of p:alice:bob")).keys()].map(Number);
  const page = (from: number, to: number) => Array.from({ length: from - to + 1 }, (_, i) => from - i);
  await expect.poll(seqs).toEqual(page(121, 72));
  const first = await rows(tab, "Messages of p:alice:bob");
  expect(first.get("121")).toContain("takes back 119");
  expect(first.get("119")).toContain("recalled");
  expect(first.get("120")).toContain("message 120");
  const button = (name: string) => tab.page.getByRole("button", { name, exact: true });
  await button("Older").click();
  await expect.poll(seqs).toEqual(page(71, 22));
  await button("Older").click();
  await expect.poll(seqs).toEqual(page(21, 1));
  expect(await button("Older").isDisabled()).toBe(true);
  await button("Newer").click();
  await expect.poll(seqs).toEqual(page(71, 22));
  await button("Newest").click();
  await expect.poll(seqs).toEqual(page(121, 72));
  tab.check();
});

test("tail: closes and errors as they happen, filtered", async () => {
  const tab = await openConsole(server, browser, "tail");
  const lines = () => tab.page.getByRole("region", { name: "Closes and errors" }).locator("tbody tr").evaluateAll((all) =>
    all.map((tr) => [...tr.children].slice(1).map((c) => (c as HTMLElement).innerText)));
  await tab.page.getByText("Waiting for the first event.").waitFor();
  const junk = await Client.tcp(server);
  junk.junk();
  await expect.poll(lines).toEqual([
    ["close", "bad_packet", expect.stringContaining("JSON"), "before login", "", "127.0.0.1 tcp"],
    ["error", "BAD_PACKET", expect.stringContaining("JSON"), "before login", "", "127.0.0.1 tcp"],
  ]);
  await Client.login(server, "frank", "websocket", "web");
  await server.api("POST", "/v1/users/frank/kick", { reason: "enough" });
  await expect.poll(async () => (await lines())[0]).toEqual(["close", "kicked", "enough", "frank", "web", "127.0.0.1 websocket"]);

  await tab.page.getByLabel("What", { exact: true }).selectOption("close");
  await expect.poll(async () => (await lines()).map((l) => l[1])).toEqual(["kicked", "bad_packet"]);
  await tab.page.getByLabel("Names, with commas").fill("kicked, logout");
  await expect.poll(async () => (await lines()).map((l) => l[1])).toEqual(["kicked"]);
  const grace = await Client.login(server, "grace");
  grace.send({ cmd: 18, data: {} });
  await until("grace is out", () => grace.ended);
  const heidi = await Client.login(server, "heidi");
  heidi.close(); // a close by the peer, which is not asked for
  await expect.poll(async () => (await lines()).map((l) => [l[1], l[3]])).toEqual([["logout", "grace"], ["kicked", "frank"]]);
  await tab.page.getByLabel("Contains").fill("FRANK");
  await expect.poll(async () => (await lines()).map((l) => l[3])).toEqual(["frank"]);

  await tab.page.getByRole("button", { name: "Pause" }).click();
  await Client.login(server, "frank", "tcp", "ios");
  await server.api("POST", "/v1/users/frank/kick", { terminal: "ios" });
  expect((await lines()).length).toBe(1);
  await tab.page.getByRole("button", { name: "Go on" }).click();
  await expect.poll(async () => (await lines()).map((l) => l[4])).toEqual(["ios", "web"]);
  tab.check();
});

test("settings: values, their origin, no secret", async () => {
  const tab = await openConsole(server, browser, "settings");
  const settings = async () => new Map([...(await rows(tab, "Settings")).entries()].map(([key, cells]) => [key.split("\n")[0]!, cells]));
  await expect.poll(async () => (await settings()).size).toBeGreaterThan(50);
  const all = await settings();
  expect(all.get("limits.messages-burst")).toEqual(["77", "flag --limits.messages-burst"]);
  expect(all.get("rocketmq.secret-key")).toEqual(["********", "flag --rocketmq.secret-key"]);
  expect(all.get("heartbeat.timeout")).toEqual(["2m", "default"]);
  expect(all.get("redis.password")).toEqual(["none", "default"]);
  const sent = await (await fetch(server.address("admin") + "/console/settings")).text();
  expect(sent).toContain("********");
  expect(sent + await tab.page.content()).not.toContain(secret);
  await tab.page.getByLabel("Only what is not the default").check();
  await expect.poll(async () => [...(await settings()).values()].some((cells) => cells[1] === "default")).toBe(false);
  await tab.page.getByLabel("Contains").fill("burst");
  await expect.poll(async () => [...(await settings()).keys()]).toEqual(["limits.messages-burst"]);
  tab.check();
});

test("cluster: what GET /v1/nodes gives", async () => {
  const client = await Client.login(server, "ivan");
  const tab = await openConsole(server, browser, "cluster");
  await shows(async () => (await rows(tab, "Nodes")).values().next().value?.[2], () => server.metric("meshtalk_connections").then(String));
  expect([...(await rows(tab, "Nodes")).keys()][0]).toMatch(/^node-of-the-test\s*this one/);
  await tab.page.getByText("there are no queues").waitFor();
  // Several nodes and queues, as a cluster answers.
  await tab.page.route("**/v1/nodes", (r) => r.fulfill({ json: { nodes: [
    { node: "n1", incarnation: "a", address: "10.0.0.1:8090", since: Date.now() - 3_600_000, connections: 7, sessions: 6, queues: [1, 3], lag: { 1: 0, 3: 12 } },
    { node: "<b>n2</b>", incarnation: "b", address: "10.0.0.2:8090", since: Date.now() - 60_000, connections: 5, sessions: 5, queues: [0, 2], lag: { 0: 1, 2: 0 } }] } }));
  await expect.poll(async () => (await rows(tab, "Queues")).get("queue 3")?.slice(0, 2), { timeout: 20_000 }).toEqual(["n1", "12"]);
  const nodes = await rows(tab, "Nodes");
  expect([...nodes.values()].map((c) => c.slice(2))).toEqual([["7", "6", "2", "12"], ["5", "5", "2", "1"]]);
  expect([...nodes.keys()][1]).toContain("<b>n2</b>");
  expect([...(await rows(tab, "Queues")).keys()]).toEqual(["queue 0", "queue 1", "queue 2", "queue 3"]);
  tab.check();
  client.close();
});
