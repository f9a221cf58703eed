import { afterAll, beforeAll, expect, test } from "vitest";

import { Client, openConsole, rows } from "../console.ts";
import { type Chromium, launch, type Server, startServer, until } from "../harness.ts";

// What an operator does to users, each with a question before it, and what a user may have put into the console's way.

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

test("find a user, and see terminals, positions and inbox", async () => {
  const clients = [await Client.login(server, "albert"), await Client.login(server, "alice", "websocket", "web"),
    await Client.login(server, "alice", "tcp", "ios"), await Client.login(server, "bob")];
  for (let i = 1; i <= 30; i++) await server.api("POST", "/v1/messages", { id: `i-${i}`, from: "bob", to: "alice", content: { text: `number ${i}` } });
  await clients[2]!.get((p) => p.data["inbox"] === 30);
  clients[2]!.close();

  const tab = await openConsole(server, browser, "users");
  const names = tab.page.locator(".names a");
  await expect.poll(() => names.allInnerTexts()).toEqual(["albert", "alice", "bob"]);
  await tab.page.getByLabel("Find a user").fill("al");
  await expect.poll(() => names.allInnerTexts()).toEqual(["albert", "alice"]);
  await names.getByText("alice").click();
  await tab.page.getByRole("heading", { name: "alice" }).waitFor();
  await expect.poll(async () => {
    await tab.page.getByRole("button", { name: "Refresh" }).click();
    return (await rows(tab, "Terminals")).get("ios")?.slice(0, 3);
  }).toEqual(["30", "0", "offline"]);
  expect((await rows(tab, "Terminals")).get("web")).toEqual(expect.arrayContaining(["30", "0", "online", "websocket", "127.0.0.1"]));
  expect(await tab.page.locator('[data-key="head"]').innerText()).toBe("30");
  const inbox = await rows(tab, "Last messages of the inbox");
  expect([...inbox.keys()]).toEqual(Array.from({ length: 20 }, (_, i) => String(30 - i)));
  expect(inbox.get("30")).toEqual(expect.arrayContaining(["p:alice:bob", "bob", "private", "number 30"]));
  await expect.poll(async () => (await rows(tab, "Conversations")).get("p:alice:bob")).toEqual(expect.arrayContaining(["private", "30"]));
  await tab.page.getByRole("link", { name: "p:alice:bob" }).first().click();
  await tab.page.getByRole("heading", { level: 1, name: "Conversations" }).waitFor();
  tab.check();
  for (const c of clients) c.close();
});

test("kick asks first, and tells the reason", async () => {
  const carol = await Client.login(server, "carol", "tcp", "ios");
  const tab = await openConsole(server, browser, "users/carol");
  const kick = tab.page.getByRole("button", { name: "Kick", exact: true });
  await kick.click();
  const dialog = tab.page.getByRole("dialog");
  expect(await dialog.innerText()).toContain("Kick carol?");
  await dialog.getByRole("button", { name: "Cancel" }).click();
  await dialog.waitFor({ state: "detached" });
  await kick.click();
  await tab.page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  expect(await kick.evaluate((b) => b === document.activeElement)).toBe(true);
  expect(carol.ended).toBe(false);
  expect(await server.api("GET", "/v1/users/carol")).toMatchObject({ online: true });

  await tab.page.getByRole("button", { name: "Kick from ios" }).click();
  await dialog.getByLabel("Reason that the client is told").fill("see <i>the</i> house rules");
  await dialog.getByRole("button", { name: "Kick" }).click();
  await tab.page.getByText("1 session was closed.").waitFor();
  const told = await carol.get((p) => p.cmd === 2);
  expect(told.data).toMatchObject({ code: 4011, reason: "see <i>the</i> house rules" });
  await until("the connection ends", () => carol.ended);
  await tab.page.locator(".pill.off", { hasText: "offline" }).waitFor();
  expect(await tab.page.getByRole("button", { name: "Kick", exact: true }).isDisabled()).toBe(true);
  tab.check();
});

test("revoke ends sessions, and their token is refused", async () => {
  const dave = await Client.login(server, "dave");
  const token = await server.token("dave");
  const tab = await openConsole(server, browser, "users/dave");
  await tab.page.getByRole("button", { name: "Revoke tokens" }).click();
  await tab.page.getByRole("dialog").getByRole("button", { name: "Revoke" }).click();
  await tab.page.getByText(/Tokens issued before .* are refused/).waitFor();
  await until("the session ends", () => dave.ended);
  const again = await Client.tcp(server);
  again.send({ cmd: 0, id: "x", data: { accessToken: token } });
  expect((await again.get((p) => p.cmd === 15)).data).toMatchObject({ code: 4001 });
  tab.check();
});

test("a system message arrives, and stands in the inbox", async () => {
  const erin = await Client.login(server, "erin", "websocket");
  const tab = await openConsole(server, browser, "users/erin");
  await tab.page.getByRole("button", { name: "System message" }).click();
  const dialog = tab.page.getByRole("dialog");
  await dialog.getByRole("button", { name: "Send" }).click(); // without a text
  expect(await dialog.isVisible()).toBe(true);
  await dialog.getByLabel("Text").fill("Maintenance at 22:00 <b>UTC</b>\nThank you.");
  await dialog.getByRole("button", { name: "Send" }).click();
  const got = await erin.get((p) => p.cmd === 5);
  expect(got.data).toMatchObject({ conv: "n:erin", inbox: 1, content: { text: "Maintenance at 22:00 <b>UTC</b>\nThank you." } });
  await expect.poll(async () => (await rows(tab, "Last messages of the inbox")).get("1")?.join()).toContain("Maintenance at 22:00 <b>UTC</b>");
  tab.check();
  erin.close();
});

test("whatever users are called and say stays text", async () => {
  const evil = "<img src=x onerror=alert(1)>";
  const worse = `"><script>alert(2)<\\script>`;
  const terminal = "<b onclick=alert(3)>";
  const client = await Client.login(server, evil, "websocket", terminal);
  await server.api("PUT", "/v1/groups/" + encodeURIComponent(worse), { members: [evil, worse] });
  await server.api("POST", "/v1/messages", { id: "x1", from: worse, group: worse, content: { text: "<svg onload=alert(4)>" } });
  await server.api("POST", "/v1/messages", { id: "x2", from: worse, to: evil, content: "<a href='javascript:alert(5)'>javascript:alert(5)</a>" });

  const tab = await openConsole(server, browser, "users");
  await tab.page.locator(".names").getByText(evil, { exact: true }).click();
  await tab.page.getByRole("heading", { name: evil }).waitFor();
  await expect.poll(async () => (await rows(tab, "Last messages of the inbox")).size).toBe(2);
  const text = await tab.page.locator("main").innerText();
  for (const s of [evil, worse, terminal, "<svg onload=alert(4)>", "<a href='javascript:alert(5)'>"]) expect(text).toContain(s);
  expect(await tab.page.title()).toContain(evil);

  const seen = [tab];
  for (const [page, wanted] of [[`groups/${worse}`, evil], [`conversations/g:${worse}`, "<svg onload=alert(4)>"], [`users/${worse}`, worse],
    [`conversations/${evil}`, "no such conversation"], [`nothing/${evil}`, "Overview"]] as const) {
    const t = await openConsole(server, browser, page, { expected: /status of 404/ });
    await t.page.getByText(wanted).first().waitFor();
    seen.push(t);
  }
  // The tail: who it was, and words of theirs.
  const tail = await openConsole(server, browser, "tail");
  await tail.page.getByText("Waiting for the first event.").waitFor();
  client.send({ cmd: 4, id: "y", data: { group: "nobody", content: 1 } });
  await tail.page.getByRole("link", { name: evil }).first().waitFor();
  await server.api("POST", "/v1/users/" + encodeURIComponent(evil) + "/kick", { reason: "<img src=y onerror=alert(6)>" });
  await tail.page.getByText("<img src=y onerror=alert(6)>").waitFor();
  seen.push(tail);
  for (const t of seen) {
    expect(await t.page.locator("main img, main svg[onload], main script, [onclick], [onerror], a[href^='javascript:']").count()).toBe(0);
    t.check();
  }
});
