import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

import { afterAll, beforeAll, expect, test } from "vitest";

import { Client } from "../console.ts";
import { type Chromium, launch, type Server, startServer, type Tab } from "../harness.ts";

// The console of a server with an admin token.

let server: Server;
let browser: Chromium;
const token = "admin-token-of-the-test";

beforeAll(async () => {
  server = await startServer({ args: [`--admin.token=${token}`] });
  browser = await launch();
});

afterAll(async () => {
  await browser?.close();
  expect(await server?.stop()).toBe(0);
});

async function signIn(tab: Tab, text = token): Promise<void> {
  await tab.page.getByLabel("Admin token").fill(text);
  await tab.page.getByRole("button", { name: "Sign in" }).click();
}

test("sign in, stay in, sign out", async () => {
  expect((await fetch(server.address("admin") + "/")).status).toBe(401); // of a program, not of a browser
  const tab = await browser.tab();
  tab.expect(/status of 401/); // how the page learns that it has to ask
  await tab.page.goto(server.address("admin") + "/#/users");
  await tab.page.getByLabel("Admin token").waitFor();
  expect(await tab.page.locator("nav").isVisible()).toBe(false);
  await signIn(tab, "wrong");
  await tab.page.getByText("this is not the admin token").waitFor();
  await signIn(tab);
  await tab.page.getByRole("heading", { level: 1, name: "Users" }).waitFor(); // where the address pointed to
  await tab.page.getByText("live", { exact: true }).waitFor();
  const [cookie, ...more] = await tab.context.cookies();
  expect(more).toEqual([]);
  expect(cookie).toMatchObject({ httpOnly: true, sameSite: "Strict", secure: false, path: "/", expires: -1 });
  expect(cookie!.value).not.toContain(token);
  expect(await tab.page.evaluate(() => document.cookie + JSON.stringify({ ...localStorage, ...sessionStorage }))).toBe("{}");

  await tab.page.reload();
  await tab.page.getByText("live", { exact: true }).waitFor();
  await tab.page.getByRole("button", { name: "Sign out" }).click();
  await tab.page.getByLabel("Admin token").waitFor();
  expect((await tab.page.evaluate(() => fetch("/v1/stats").then((r) => r.status)))).toBe(401);
  await tab.page.reload();
  await tab.page.getByLabel("Admin token").waitFor();
  tab.check();
});

test("another tab that is signed out asks again, and so does a restarted server", async () => {
  const tab = await browser.tab();
  tab.expect(/status of 401|ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_CONNECTION_RESET/);
  await tab.page.goto(server.address("admin"));
  await signIn(tab);
  await tab.page.getByText("live", { exact: true }).waitFor();
  const other = await browser.tab({ beside: tab });
  other.expect(/status of 401/);
  await other.page.goto(server.address("admin") + "/#/settings");
  await other.page.getByRole("button", { name: "Sign out" }).click();
  await other.page.getByLabel("Admin token").waitFor();
  await tab.page.getByText("You have been signed out.").waitFor();
  await signIn(tab);
  await tab.page.getByText("live", { exact: true }).waitFor();
  await server.kill();
  await server.start();
  await tab.page.getByText("You have been signed out.").waitFor();
  await signIn(tab);
  await tab.page.getByText("live", { exact: true }).waitFor();
  tab.check();
  other.check();
});

test("the console acts with the cookie; a page of another port cannot", async () => {
  const judy = await Client.login(server, "judy");
  const tab = await browser.tab();
  tab.expect(/status of 401/);
  await tab.page.goto(server.address("admin") + "/#/users/judy");
  await signIn(tab);
  await tab.page.getByRole("heading", { name: "judy" }).waitFor();

  // The same site to the cookie, and another origin: everything that such a page can send.
  const admin = server.address("admin");
  const evil = createServer((_, w) => {
    w.setHeader("Content-Type", "text/html");
    w.end(`<form method=post enctype=text/plain action="${admin}/v1/users/judy/kick"><input name='{"reason":"' value='evil"}'></form>`);
  });
  await new Promise<void>((done) => evil.listen(0, "127.0.0.1", done));
  const page = await tab.context.newPage();
  await page.goto(`http://127.0.0.1:${(evil.address() as AddressInfo).port}/`);
  const answers = await page.evaluate(async (url) => {
    const send = (path: string, init: RequestInit) => fetch(url + path, { credentials: "include", ...init }).then((r) => r.type + " " + r.status, String);
    return {
      blind: await send("/v1/users/judy/kick", { method: "POST", mode: "no-cors", body: "{}" }),
      json: await send("/v1/users/judy/kick", { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" }),
      read: await send("/v1/users/judy", {}),
      out: await send("/console/logout", { method: "POST", mode: "no-cors" }),
    };
  }, admin);
  expect(answers).toEqual({ blind: "opaque 0", json: expect.stringContaining("Failed to fetch"), read: expect.stringContaining("Failed to fetch"), out: "opaque 0" });
  const sent = page.waitForResponse((r) => r.url().includes("/kick"));
  await page.evaluate(() => document.forms[0]!.submit());
  expect((await sent).status()).toBe(401);
  evil.close();
  expect(judy.ended).toBe(false);
  const user = await fetch(`${admin}/v1/users/judy`, { headers: { Authorization: `Bearer ${token}` } });
  expect(await user.json()).toMatchObject({ online: true });

  await tab.page.getByRole("button", { name: "Kick", exact: true }).click();
  await tab.page.getByRole("dialog").getByRole("button", { name: "Kick" }).click();
  await tab.page.getByText("1 session was closed.").waitFor(); // the console's own page can
  await judy.get((p) => p.cmd === 2);
  tab.check();
});
