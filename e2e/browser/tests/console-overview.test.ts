import { afterAll, beforeAll, expect, test } from "vitest";

import { Client, frames, openConsole, rows, shows, tile } from "../console.ts";
import { type Chromium, launch, type Server, startServer } from "../harness.ts";

// The overview shows what the server has counted, and nothing else.

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

const digits = (text: string) => Number(text.replaceAll(/[^0-9]/g, ""));

test("true numbers for a known load", async () => {
  const clients: Client[] = [];
  for (let i = 0; i < 5; i++) clients.push(await Client.login(server, `tcp-${i}`));
  for (let i = 0; i < 3; i++) clients.push(await Client.login(server, `ws-${i}`, "websocket"));
  clients.push(await Client.login(server, "ws-0", "websocket", "second")); // a user with two terminals
  const tab = await openConsole(server, browser);
  await shows(() => tile(tab, "connections"), () => 9);
  await shows(() => tile(tab, "sessions"), () => server.metric("meshtalk_sessions"));
  await expect.poll(() => tab.page.locator(".tiles").innerText()).toContain("5 tcp · 4 websocket");
  expect(await tab.page.locator(".tiles").innerText()).toContain("8 users");

  // Messages: the rates of the frames, each times its seconds, are the messages again.
  const before = await server.metric("meshtalk_messages_accepted_total", { kind: "private" });
  for (let i = 0; i < 40; i++) {
    await server.api("POST", "/v1/messages", { id: `m-${i}`, from: "tcp-0", to: "ws-0", content: { text: `message ${i}` } });
  }
  const accepted = await server.metric("meshtalk_messages_accepted_total");
  expect(accepted - before).toBe(40);
  const sub = (label: string) => tab.page.locator(".tile", { hasText: label }).locator(".sub").innerText();
  await shows(() => sub("Accepted / s"), () => `${accepted} in all`);
  await shows(async () => digits(await sub("Delivered / s")), () => server.metric("meshtalk_deliveries_total"));
  const summed = (await frames(tab)).shown.reduce((sum, f) => sum + (f.rates?.["accepted"] ?? 0) * f.second, 0);
  expect(Math.round(summed)).toBe(40);
  for (const key of ["commit", "delivery", "store", "memory"]) expect(await tile(tab, key)).toBeGreaterThan(0);

  // Ends and errors by their names.
  clients[0]!.junk();
  clients[0]!.junk();
  clients[1]!.send({ cmd: 18, data: {} });
  clients[2]!.close();
  await server.api("POST", "/v1/users/tcp-3/kick", {});
  await shows(() => tile(tab, "connections"), () => 6);
  for (const reason of ["logout", "peer", "kicked"]) {
    await shows(async () => digits((await rows(tab, "Closes by reason")).get(reason)?.[0] ?? ""),
      () => server.metric("meshtalk_closes_total", { reason }));
    expect(await server.metric("meshtalk_closes_total", { reason })).toBe(1);
  }
  await shows(async () => digits((await rows(tab, "Errors by name")).get("BAD_PACKET")?.[0] ?? ""), () => 2);
  expect(await server.metric("meshtalk_errors_total", { name: "BAD_PACKET" })).toBe(2);
  await shows(async () => digits((await rows(tab, "Accepted and refused sockets")).get("accepted")?.[0] ?? ""),
    () => server.metric("meshtalk_accepts_total", { result: "accepted" }));
  expect((await rows(tab, "Parts of the server")).get("store")?.[0]).toContain("embedded");
  await tab.page.getByText("ready", { exact: true }).waitFor();
  tab.check();
  for (const c of clients) c.close();
});

test("charts and the heat map draw, and say what they draw", async () => {
  const tab = await openConsole(server, browser);
  const charts = tab.page.locator(".chart");
  await expect.poll(() => charts.locator("canvas").count()).toBeGreaterThanOrEqual(12);
  expect(await charts.locator("canvas").count()).toBe(await charts.count());
  await expect.poll(() => tab.page.getByRole("img", { name: /^Connections: websocket \d+, tcp \d+/ }).count()).toBe(1);

  const heat = tab.page.locator(".heat canvas");
  await expect.poll(() => heat.getAttribute("aria-label")).toMatch(/^Busy of the event loops over time; now: loop 0 \d/);
  await tab.page.getByRole("button", { name: "Lag", exact: true }).click();
  await expect.poll(() => heat.getAttribute("aria-label")).toMatch(/^Lag .*loop 0 \d+(\.\d+)? (µs|ms)/);
  const colours = await heat.evaluate((c: HTMLCanvasElement) => {
    const data = c.getContext("2d")!.getImageData(0, 0, c.width, c.height).data;
    const seen = new Set<string>();
    for (let i = 0; i < data.length; i += 4) seen.add(data.slice(i, i + 3).join());
    return seen.size;
  });
  expect(colours).toBeGreaterThan(3);
  await tab.page.getByText("As a table").click();
  const loops = await rows(tab, "Event loops now");
  expect(loops.size).toBeGreaterThan(0);
  expect(await server.metric("meshtalk_loop_lag_peak_seconds")).toBeGreaterThan(0);
  await heat.hover({ position: { x: (await heat.boundingBox())!.width - 12, y: 8 } });
  await tab.page.getByText(/loop 0 · \d\d:\d\d:\d\d · busy/).waitFor();
  tab.check();
});

test("pause stands still, going on catches up; the time shown changes", async () => {
  const tab = await openConsole(server, browser);
  await shows(() => tile(tab, "connections"), () => server.metric("meshtalk_connections"));
  await tab.page.getByRole("button", { name: "Pause" }).click();
  await tab.page.getByText("paused", { exact: true }).waitFor();
  const still = await tile(tab, "connections");
  const client = await Client.login(server, "late");
  await expect.poll(async () => Object.values((await frames(tab)).newest.connections).reduce((a, b) => a + b)).toBe(still + 1);
  expect(await tile(tab, "connections")).toBe(still);
  await tab.page.getByRole("button", { name: "Go on" }).click();
  await shows(() => tile(tab, "connections"), () => still + 1);
  for (const name of ["1 min", "10 min", "5 min"]) {
    const button = tab.page.getByRole("button", { name, exact: true });
    await button.click();
    expect(await button.getAttribute("aria-pressed")).toBe("true");
  }
  tab.check();
  client.close();
});

test("a server that goes and comes back", async () => {
  const tab = await openConsole(server, browser);
  await tab.page.getByText("live", { exact: true }).waitFor();
  tab.expect(/ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_CONNECTION_RESET/);
  await server.kill();
  await tab.page.getByText("reconnecting", { exact: true }).waitFor();
  await server.start();
  await tab.page.getByText("live", { exact: true }).waitFor();
  await shows(() => tile(tab, "connections"), () => 0);
  tab.check();
});
