import { afterAll, beforeAll, expect, test } from "vitest";

import { type Person, signIn } from "../demo.ts";
import { type Chromium, launch, type Server, startServer, until } from "../harness.ts";

// The pictures of the documents; PICTURES=1 keeps them in docs/images. Without it this is a test like any other.

let server: Server;
let browser: Chromium;

beforeAll(async () => {
  server = await startServer({ args: ["--demo.enable"] });
  browser = await launch();
});
afterAll(async () => {
  await browser?.close();
  await server?.stop();
});

let ids = 0;
const say = (from: string, to: { to: string } | { group: string }, text: string) =>
  server.api("POST", "/v1/messages", { id: `story-${++ids}`, from, ...to, content: { text } });

/** A morning in a boatyard. */
async function story(): Promise<void> {
  const harbour = "harbour crew";
  await server.api("PUT", `/v1/groups/${encodeURIComponent(harbour)}`, { members: ["maya", "jonas", "ines", "tobias"] });
  await say("tobias", { to: "maya" }, "The new propeller has arrived, it is at the gate.");
  await say("maya", { group: harbour }, "Crane is booked for Thursday, eight o'clock.");
  await say("ines", { group: harbour }, "Perfect. I'll bring the straps.");
  await say("tobias", { group: harbour }, "And I the coffee.");
  await server.api("POST", "/v1/messages", { id: "tide", to: "maya", content: { text: "High water at 14:20, 3.9 m" } });
  await say("ines", { to: "maya" }, "Do you still have my torque wrench?");
  await say("ines", { to: "maya" }, "No hurry.");
  await say("jonas", { to: "maya" }, "Morning! Did the mast survive the night?");
  await say("maya", { to: "jonas" }, "It did. The cover didn't.");
  await say("maya", { to: "jonas" }, "Found it two gardens further.");
}

async function open(me: Person): Promise<void> {
  await me.open("jonas");
  await expect.poll(async () => (await me.texts()).length).toBeGreaterThanOrEqual(3);
}

test("pictures of the chat", async () => {
  await story();
  const jonas = await signIn(browser, server, "jonas");
  const ines = await signIn(browser, server, "ines");
  const light = await signIn(browser, server, "maya", { width: 1180, height: 760, scale: 2 });
  await open(light);
  await jonas.open("maya");
  await jonas.say("Ha! Neighbourly wind.");
  await jonas.say("I can help you tie it down this afternoon, say after four? https://weather.example.org/harbour");
  await light.say("Four is great.");
  await light.tick("Four is great.", "read");
  await jonas.tab.page.close();
  await until("jonas has left", async () => !(await server.api<{ online: boolean }>("GET", "/v1/users/jonas")).online);
  await light.say("I'll leave the gate open for you.");
  await light.tick("I'll leave the gate open for you.", "sent");
  const back = await signIn(browser, server, "jonas");
  await light.tick("I'll leave the gate open for you.", "delivered");
  await back.open("maya");
  await light.tick("I'll leave the gate open for you.", "read");
  await light.page.mouse.move(0, 0);
  const typing = light.page.locator(".thread > .writing");
  const writes = async () => {
    await back.page.getByRole("textbox", { name: "Message" }).pressSequentially("o");
    await expect.poll(() => typing.textContent()).toBe("jonas is writing…");
  };
  await writes();
  await light.tab.picture("webchat-light.png");

  const dark = await signIn(browser, server, "maya", { theme: "dark", width: 1180, height: 760, scale: 2 });
  await open(dark);
  await dark.say("Bring the small ladder, too.");
  await dark.tick("Bring the small ladder, too.", "read");
  await dark.page.mouse.move(0, 0);
  await dark.tab.picture("webchat-dark.png");

  const phone = await signIn(browser, server, "maya", { width: 390, height: 780, scale: 2 });
  await phone.page.locator(".chats .badge:visible").first().waitFor();
  await phone.tab.picture("webchat-phone-list.png");
  await open(phone);
  await phone.tab.picture("webchat-phone.png");
  for (const p of [ines, light, dark, phone, back]) p.tab.check();
});
