import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { Client, frames, inaccessible, openConsole, tile } from "../console.ts";
import { type Chromium, launch, type Server, startServer, type Tab, until } from "../harness.ts";

// The console as people meet it: light and dark, on a telephone, with the keyboard alone, with a screen reader. Under some load, which
// the pictures of the documents show too.

let server: Server;
let browser: Chromium;
let driving = true;
let driven: Promise<void> | undefined;
const clients: Client[] = [];
const people = ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"];
const texts = ["Are you coming to the meeting?", "Yes, five minutes.", "The build is green.", "Lunch at noon?", "I will send the figures today.", "Thank you!"];

beforeAll(async () => {
  server = await startServer({ args: ["--limits.messages-per-second=0", "--cluster.node-id=node-1"] });
  browser = await launch();
  await server.api("PUT", "/v1/groups/team", { members: people });
  for (const [i, name] of people.entries()) clients.push(await Client.login(server, name, i % 3 === 0 ? "tcp" : "websocket", i % 2 ? "web" : "ios"));
  driven = drive();
});

afterAll(async () => {
  driving = false;
  await driven;
  for (const c of clients) c.close();
  await browser?.close();
  expect(await server?.stop()).toBe(0);
});

/** People talk, and some come and go, until the end. */
async function drive(): Promise<void> {
  for (let i = 0; driving; i++) {
    const from = i % people.length;
    const toGroup = i % 5 === 0;
    clients[from]!.send({
      cmd: toGroup ? 4 : 3, id: `d-${i}`,
      data: { ...(toGroup ? { group: "team" } : { to: people[(from + 1 + i % 3) % people.length]! }), content: { text: texts[i % texts.length]! } },
    });
    if (i % 200 === 199) {
      const guest = await Client.login(server, `guest-${i % 7}`);
      guest.send({ cmd: i % 400 === 399 ? 18 : 99, data: {} });
      guest.close();
    }
    if (i % (5 + Math.round(4 * Math.sin(i / 400))) === 0) await new Promise((r) => setTimeout(r, 8));
  }
}

const pages = ["overview", "users/alice", "groups/team", "conversations/g:team", "tail", "settings", "cluster"];

/** Waits until a page has what it shows. */
async function filled(tab: Tab, page: string): Promise<void> {
  if (page === "overview") await until("frames", async () => await tile(tab, "connections") > 0 && await tab.page.locator(".chart canvas").count() >= 12);
  else await tab.page.locator("main table tbody tr, main .chips li").first().waitFor();
}

describe.each(["light", "dark"] as const)("%s", (theme) => {
  describe.each([390, 1440])("%d pixels wide", (width) => {
    test.each(pages)("%s", async (page) => {
      const tab = await openConsole(server, browser, page, { theme, width, height: width < 500 ? 844 : 900 });
      await filled(tab, page);
      expect(await inaccessible(tab)).toEqual([]);
      const { wide, shown } = await tab.page.evaluate(() => ({ wide: document.documentElement.scrollWidth, shown: document.documentElement.clientWidth }));
      expect(wide).toBeLessThanOrEqual(shown); // nothing sticks out: tables scroll by themselves
      tab.check();
      await tab.page.close();
    });
  });
});

test("axe-core finds what is there to find", async () => {
  const tab = await openConsole(server, browser, "groups");
  await tab.page.evaluate(() => document.querySelector("main")!.append(document.createElement("button"), document.createElement("select")));
  expect((await inaccessible(tab)).join("\n")).toMatch(/button-name[^]*select-name/);
});

test("every button is large enough for a finger, on a telephone", async () => {
  const tab = await openConsole(server, browser, "users/alice", { width: 390, height: 844 });
  await filled(tab, "users/alice");
  const small = await tab.page.locator("button:visible, nav a").evaluateAll((all) => all.filter((e) => {
    const { width, height } = e.getBoundingClientRect();
    return width < 24 || height < 24; // WCAG 2.2, target size
  }).map((e) => e.outerHTML));
  expect(small).toEqual([]);
});

test("with the keyboard alone", async () => {
  const tab = await openConsole(server, browser, "overview");
  await filled(tab, "overview");
  const focused = () => tab.page.evaluate(() => document.activeElement?.textContent?.trim() ?? "");
  await tab.page.keyboard.press("Tab");
  expect(await focused()).toBe("Skip to the content");
  await tab.page.keyboard.press("Enter");
  expect(await tab.page.evaluate(() => document.activeElement?.id)).toBe("main");
  await tab.page.getByRole("link", { name: "Users" }).focus();
  await tab.page.keyboard.press("Enter");
  await tab.page.getByRole("heading", { level: 1, name: "Users" }).waitFor();
  await expect.poll(focused).toBe("Users"); // a screen reader reads the new page's heading
  await tab.page.getByLabel("Find a user").focus();
  await tab.page.keyboard.type("alice");
  await tab.page.keyboard.press("Enter");
  await tab.page.getByRole("heading", { name: "alice" }).waitFor();
  await tab.page.getByRole("button", { name: "Revoke tokens" }).focus();
  await tab.page.keyboard.press("Enter");
  const dialog = tab.page.getByRole("dialog", { name: "Revoke the tokens of alice?" });
  await dialog.waitFor();
  for (let i = 0; i < 6; i++) { // the focus does not reach what is behind the question
    await tab.page.keyboard.press("Tab");
    expect(await tab.page.evaluate(() => document.activeElement === document.body || document.querySelector("dialog")!.contains(document.activeElement))).toBe(true);
  }
  expect(await inaccessible(tab)).toEqual([]);
  await tab.page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  expect(await focused()).toBe("Revoke tokens");
  tab.check();
});

test("the theme follows the system, and a choice that stays", async () => {
  const tab = await openConsole(server, browser, "overview", { theme: "dark" });
  const background = () => tab.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await background();
  await tab.page.emulateMedia({ colorScheme: "light" });
  const light = await background();
  expect(light).not.toBe(dark);
  const button = tab.page.getByRole("button", { name: /^Theme/ });
  await button.click(); // light
  await button.click(); // dark
  expect(await background()).toBe(dark);
  await tab.page.reload();
  await tab.page.getByRole("heading", { level: 1 }).waitFor();
  expect(await background()).toBe(dark);
  await button.click(); // as the system again
  expect(await background()).toBe(light);
  tab.check();
});

test("pictures for the documents", async () => {
  const watched = await openConsole(server, browser, "overview", { width: 1440, height: 1000 });
  await until("some history", async () => (await frames(watched)).shown.length >= 40);
  for (const theme of ["light", "dark"] as const) {
    const tab = await openConsole(server, browser, "overview", { theme, width: 1440, height: 1000 });
    await filled(tab, "overview");
    await tab.picture(`console-overview-${theme}.png`);
    await tab.page.goto(server.address("admin") + "/#/users/alice");
    await filled(tab, "users/alice");
    await tab.page.locator(".pill.good", { hasText: "online" }).waitFor();
    await tab.picture(`console-users-${theme}.png`);
    tab.check();
  }
  const phone = await openConsole(server, browser, "overview", { theme: "dark", width: 390, height: 844, scale: 2 });
  await filled(phone, "overview");
  await phone.picture("console-phone.png");
  phone.check();
});
