import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { signIn } from "../demo.ts";
import { type Chromium, launch, type Server, startServer, type Tab } from "../harness.ts";

let server: Server;
let browser: Chromium;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

beforeAll(async () => {
  server = await startServer({ args: ["--demo.enable"] });
  browser = await launch();
});
afterAll(async () => {
  await browser?.close();
  await server?.stop();
});

/** Fails on findings of axe. */
async function judge(tab: Tab, what: string): Promise<void> {
  await tab.page.evaluate(axe);
  const findings = await tab.page.evaluate(async () => {
    const { violations } = await (globalThis as any).axe.run();
    return violations.map((v: any) => `${v.impact} ${v.id}: ${v.nodes.map((n: any) => n.html + " " + n.failureSummary).join("\n")}`);
  });
  expect(findings, what).toEqual([]);
}

describe("axe finds nothing", () => {
  for (const theme of ["light", "dark"] as const) {
    for (const [width, height] of [[1280, 800], [390, 844]] as const) {
      test(`${theme}, ${width} wide`, async () => {
        const me = `${theme}${width}`;
        const door = await browser.tab({ theme, width, height });
        await door.page.goto(server.address("demo"));
        await door.page.locator(".door").waitFor();
        await judge(door, "the door");
        await server.api("POST", "/v1/messages", { id: `${me}-1`, from: "bob", to: me, content: { text: "hello https://example.org" } });
        await server.api("POST", "/v1/messages", { id: `${me}-2`, from: "carol", to: me, content: { text: "unread" } });
        const alice = await signIn(browser, server, me, { theme, width, height });
        await alice.page.locator(".badge:visible").first().waitFor();
        await judge(alice.tab, "the list");
        await alice.open("bob");
        await alice.say("a message");
        await alice.tick("a message", "sent");
        await judge(alice.tab, "a conversation");
        if (width < 720) await alice.page.getByRole("button", { name: "Back to the list" }).click();
        await alice.page.getByRole("button", { name: "New conversation" }).click();
        await alice.page.getByLabel("With whom?").fill("bob, carol");
        await judge(alice.tab, "the dialogue");
        alice.tab.check();
        door.check();
        await alice.tab.context.close();
      });
    }
  }
});
