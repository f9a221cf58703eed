import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";

import { Person, signIn } from "../demo.ts";
import { type Chromium, launch, type Server, startServer, type TabOptions, until } from "../harness.ts";

// The demo as its users see it.

let server: Server;
let browser: Chromium;
let people: Person[] = [];

beforeAll(async () => {
  server = await startServer({ args: ["--demo.enable"] });
  browser = await launch();
});
afterEach(async () => {
  for (const p of people) p.tab.check();
  for (const p of people) await p.tab.context.close();
  people = [];
});
afterAll(async () => {
  await browser?.close();
  expect(await server?.stop()).toBe(0);
});

let counter = 0;
/** A name that no other test has used. */
const named = (name: string) => `${name}${++counter}`;

async function come(name: string, options?: TabOptions): Promise<Person> {
  const p = await signIn(browser, server, name, options);
  people.push(p);
  return p;
}

test("two people write to each other, and the ticks tell how far it has come", async () => {
  const [a, b] = [named("alice"), named("bob")];
  const alice = await come(a);
  await alice.writeTo(b);
  await alice.say("Are you there?");
  await alice.tick("Are you there?", "sent");
  const bob = await come(b);
  await alice.tick("Are you there?", "delivered");
  const line = bob.page.locator(".chats li", { hasText: a });
  await expect.poll(() => line.locator(".badge").textContent()).toBe("1");
  await expect.poll(() => bob.page.title()).toBe(`(1) ${b} · Mesh-Talk`);
  await bob.open(a);
  await bob.sees(["Are you there?"]);
  await alice.tick("Are you there?", "read");
  await expect.poll(() => bob.page.title()).toBe(`${b} · Mesh-Talk`);
  await bob.say("I am.\nTwo lines of it.");
  await alice.sees(["Are you there?", "I am.\nTwo lines of it."]);
});

test("somebody who writes, comes and goes is seen", async () => {
  const [a, b] = [named("alice"), named("bob")];
  const alice = await come(a);
  const bob = await come(b);
  await alice.writeTo(b);
  await bob.writeTo(a);
  const about = alice.page.locator(".thread .about");
  await expect.poll(() => about.textContent()).toBe("online");
  await bob.page.getByRole("textbox", { name: "Message" }).pressSequentially("hm");
  const writing = alice.page.locator(".thread > .writing");
  await expect.poll(() => writing.textContent()).toBe(`${b} is writing…`);
  await expect.poll(() => writing.textContent(), { timeout: 60_000 }).toBe("");
  await bob.page.getByRole("button", { name: `Sign out ${b}` }).click();
  await bob.page.getByLabel("Your name").waitFor();
  await expect.poll(() => about.textContent(), { timeout: 60_000 }).toMatch(/^last seen at \d\d:\d\d$/);
});

test("groups: the lobby of all, and one's own", async () => {
  const [a, b, c, team] = [named("alice"), named("bob"), named("carol"), named("team")];
  const [alice, bob, carol] = [await come(a), await come(b), await come(c)];
  await alice.open("lobby");
  const hello = `Hello, says ${a}`;
  await alice.say(hello);
  await bob.open("lobby");
  await expect.poll(() => bob.texts()).toContain(hello);

  await alice.page.getByRole("button", { name: "New conversation" }).click();
  await alice.page.getByLabel("With whom?").fill(`${b}, ${c}`);
  await alice.page.getByLabel("Name of the group").fill(team);
  await alice.page.getByRole("button", { name: "Start", exact: true }).click();
  await expect.poll(() => alice.page.locator(".thread .about").textContent()).toBe([a, b, c].sort().join(", "));
  await alice.say("Only for us.");
  for (const p of [bob, carol]) {
    await p.open(team);
    await p.sees(["Only for us."]);
  }
  await carol.say("Good.");
  await bob.sees(["Only for us.", "Good."]);
  await expect.poll(() => bob.page.locator(".log .sender").allTextContents()).toEqual([a, c]);
});

test("a message that was taken back is gone for everybody, also after a reload", async () => {
  const [a, b] = [named("alice"), named("bob")];
  const alice = await come(a);
  const bob = await come(b);
  await alice.writeTo(b);
  await alice.say("A secret");
  await alice.say("No secret");
  await bob.open(a);
  await bob.sees(["A secret", "No secret"]);
  await alice.page.locator(".message", { hasText: "A secret" }).hover();
  await alice.page.getByRole("button", { name: "Take this message back" }).first().click();
  await alice.sees(["You took this message back", "No secret"]);
  await bob.sees(["This message was taken back", "No secret"]);
  for (const p of [alice, bob]) {
    await p.page.reload();
    await p.online();
  }
  await alice.open(b);
  await bob.open(a);
  await alice.sees(["You took this message back", "No secret"]);
  await bob.sees(["This message was taken back", "No secret"]);
});

test("history comes in pages, in order, and what is read stays where it is", async () => {
  const [a, b] = [named("alice"), named("bob")];
  const all = Array.from({ length: 130 }, (_, i) => `message ${i + 1}`);
  for (const [i, text] of all.entries()) await server.api("POST", "/v1/messages", { id: `${a}-${i}`, from: b, to: a, content: { text } });
  // What no terminal has taken yet is pushed to the first one; the second one finds it in the history.
  const first = await come(a);
  await expect.poll(() => first.page.locator(".chats .badge").allTextContents()).toContain("130");
  await until("all is acknowledged", async () => (await server.api<{ terminals: { acked: number }[] }>("GET", `/v1/users/${a}`)).terminals[0]!.acked === 130);
  const alice = await come(a);
  await expect.poll(() => alice.page.locator(".chats .badge").allTextContents()).toContain("130");
  await alice.open(b);
  await expect.poll(async () => (await alice.texts()).at(-1)).toBe("message 130");
  expect((await alice.texts()).length).toBeLessThan(130);
  const scroller = alice.page.locator(".scroller");
  for (let shown = (await alice.texts()).length; shown < 130; ) {
    expect(await alice.texts()).toEqual(all.slice(-shown));
    const seen = await scroller.evaluate((e) => { // in one go: the older ones may come at once
      e.scrollTo(0, 40);
      const first = document.querySelector<HTMLElement>(".message")!;
      return { key: first.dataset["key"]!, y: first.getBoundingClientRect().y };
    });
    await expect.poll(async () => (await alice.texts()).length).toBeGreaterThan(shown);
    const after = await alice.page.locator(`[data-key="${seen.key}"]`).boundingBox();
    expect(Math.abs(after!.y - seen.y), "what is read has moved").toBeLessThan(2);
    shown = (await alice.texts()).length;
  }
  expect(await alice.texts()).toEqual(all);
  expect(await alice.page.getByRole("button", { name: "Show older messages" }).isVisible()).toBe(false);
  await server.api("POST", "/v1/messages", { id: `${a}-new`, from: b, to: a, content: { text: "a new one" } });
  await expect.poll(async () => (await alice.texts()).length).toBe(131);
  await scroller.evaluate((e) => e.scrollTo(0, 300));
  await alice.page.getByRole("button", { name: "To the newest message" }).waitFor();
  await server.api("POST", "/v1/messages", { id: `${a}-newer`, from: b, to: a, content: { text: "a newer one" } });
  await expect.poll(async () => (await alice.texts()).length).toBe(132);
  expect(await scroller.evaluate((e) => e.scrollTop)).toBe(300);
  await alice.page.getByRole("button", { name: "To the newest message" }).click();
  await expect.poll(() => scroller.evaluate((e) => e.scrollHeight - e.scrollTop - e.clientHeight)).toBeLessThan(2);
});

test("whatever somebody calls himself or writes, it stays text", async () => {
  const mark = "<img src=x onerror=alert(1)>";
  const evil = `${mark}${++counter}`;
  const b = named("bob");
  const group = `<b onmouseover=alert(2)>${++counter}`;
  const mallory = await come(evil);
  const bob = await come(b);
  const texts = [
    "<script>alert(3)</script>", `"><svg onload=alert(4)>`, "javascript:alert(5)", "https://example.org/\"onmouseover=alert(6)//", "{{constructor.constructor('alert(7)')()}}",
    "\u202eevil\u0000\ufeff", "𝕌𝕟𝕚𝕔𝕠𝕕𝕖 👩‍👩‍👧 zalgo̴̢",
  ];
  await mallory.writeTo(b);
  for (const t of texts) await mallory.say(t);
  await server.api("PUT", `/v1/groups/${encodeURIComponent(group)}`, { members: [evil, b] });
  await server.api("POST", "/v1/messages", { id: `x${counter}`, from: evil, group, content: JSON.parse('{"<i>":["<u>",null],"__proto__":1}') });
  await server.api("POST", "/v1/messages", { id: `y${counter}`, to: b, content: "<marquee>from the system" });
  await bob.open(evil);
  await expect.poll(async () => (await bob.texts()).length).toBe(texts.length);
  expect((await bob.texts()).slice(0, 4)).toEqual(texts.slice(0, 4));
  await bob.open(group);
  await bob.sees(['{"<i>":["<u>",null],"__proto__":1}']);
  await bob.open("System");
  await bob.sees(["<marquee>from the system"]);
  await bob.open(evil);
  for (const p of [mallory, bob]) {
    expect(await p.page.locator(".app img[src=x], .app script, .app svg[onload], .app b, .app i, .app marquee, .app [onmouseover]").count()).toBe(0);
    const links = await p.page.locator(".log a").evaluateAll((all) => all.map((a) => [(a as HTMLAnchorElement).protocol, a.getAttribute("rel")]));
    expect(links).toEqual([["https:", "noopener noreferrer"]]);
  }
});

describe("on a phone", () => {
  test("one column at a time, nothing beyond the edge", async () => {
    const [a, b] = [named("alice"), named("bob")];
    const alice = await come(a, { width: 390, height: 844 });
    await server.api("POST", "/v1/messages", { id: a, from: b, to: a, content: { text: "long ".repeat(80) + "x".repeat(200) } });
    const list = alice.page.getByRole("navigation", { name: "Conversations" });
    await alice.open(b);
    await alice.page.locator(".log .text").waitFor();
    expect(await list.isVisible()).toBe(false);
    const wide = () => alice.page.evaluate(() => document.documentElement.scrollWidth);
    expect(await wide()).toBe(390);
    for (const e of await alice.page.locator("button:visible, textarea:visible").all()) {
      const box = (await e.boundingBox())!;
      expect(box.x, await e.innerHTML()).toBeGreaterThanOrEqual(0);
      expect(box.x + box.width).toBeLessThanOrEqual(390);
    }
    await alice.say("short");
    await alice.page.getByRole("button", { name: "Back to the list" }).click();
    await list.waitFor();
    expect(await wide()).toBe(390);
    expect(await alice.page.locator(".thread").isVisible()).toBe(false);
  });
});

test("everything can be done with the keyboard", async () => {
  const [a, b] = [named("alice"), named("bob")];
  const tab = await browser.tab();
  const { page } = tab;
  const alice = new Person(a, tab);
  people.push(alice);
  await page.goto(server.address("demo"));
  await page.waitForSelector("#name:focus");
  await page.keyboard.type(a);
  await page.keyboard.press("Enter");
  await alice.online();
  await page.keyboard.press("Tab");
  expect(await page.evaluate(() => document.activeElement?.getAttribute("aria-label"))).toBe("New conversation");
  await page.keyboard.press("Enter");
  await page.keyboard.type(b);
  await page.keyboard.press("Enter");
  await page.waitForSelector("#field:focus");
  await page.keyboard.type("one");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("two");
  await page.keyboard.press("Enter");
  await alice.sees(["one\ntwo"]);
  await page.keyboard.press("Escape");
  await page.waitForSelector(".chats button:focus");
  await page.keyboard.press("ArrowDown");
  expect(await page.evaluate(() => document.activeElement?.querySelector(".name")?.textContent)).toBe("lobby");
  await page.keyboard.press("Enter");
  await expect.poll(() => page.locator(".thread h1").textContent()).toBe("lobby");
});

test("a second tab of the same user takes over, and the first can take back", async () => {
  const a = named("alice");
  const first = await come(a);
  const tab = await browser.tab({ beside: first.tab });
  await tab.page.goto(`${server.address("demo")}?user=${a}`);
  const second = new Person(a, tab);
  await second.online();
  await first.page.getByRole("heading", { name: "This chat is open in another tab of yours." }).waitFor();
  await first.page.getByRole("button", { name: "Use it here" }).click();
  await first.online();
  await second.page.getByRole("heading", { name: "This chat is open in another tab of yours." }).waitFor();
  tab.check();
});

test("a name that cannot be is refused at the door", async () => {
  const tab = await browser.tab();
  people.push(new Person("", tab));
  tab.expect(/400 \(Bad Request\)/);
  await tab.page.goto(server.address("demo"));
  await tab.page.getByLabel("Your name").fill("a:b");
  await tab.page.getByRole("button", { name: "Start chatting" }).click();
  await expect.poll(() => tab.page.getByRole("alert").textContent()).toMatch(/is no name/);
});
