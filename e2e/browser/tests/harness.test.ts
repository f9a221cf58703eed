import { afterAll, beforeAll, expect, test } from "vitest";

import { type Chromium, launch, type Server, startServer } from "../harness.ts";

// The harness itself: what it must notice, it notices.

let server: Server;
let browser: Chromium;

beforeAll(async () => {
  server = await startServer();
  browser = await launch();
});

afterAll(async () => {
  await browser?.close();
  expect(await server?.stop()).toBe(0);
});

test("errors and requests to other hosts are problems", async () => {
  const tab = await browser.tab();
  await tab.page.goto(server.address("admin"));
  tab.check();
  await tab.page.evaluate(() => console.error("broken"));
  expect(() => tab.check()).toThrow(/console: broken/);
  await tab.page.evaluate(() => setTimeout(() => { throw new Error("unseen"); }, 0));
  await expect.poll(() => tab.problems.join()).toMatch(/uncaught: .*unseen/s);
  const other = await browser.tab();
  await other.page.route("**/*", (r) => r.abort());
  await other.page.goto("http://192.0.2.1/").catch(() => {});
  expect(() => other.check()).toThrow(/left the machine: http:\/\/192\.0\.2\.1/);
});

test("a server comes back on its ports with its data", async () => {
  await server.api("PUT", "/v1/groups/team", { members: ["alice", "bob"] });
  const before = server.address("websocket");
  await server.kill();
  await server.start();
  expect(server.address("websocket")).toBe(before);
  expect(await server.api("GET", "/v1/groups/team")).toMatchObject({ group: "team", size: 2 });
  expect((await server.token("alice")).split(".")).toHaveLength(3);
  expect(await server.metric("meshtalk_connections", { transport: "websocket" })).toBe(0);
});
