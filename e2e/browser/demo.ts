// What a person does in the demo.

import { expect } from "vitest";

import { type Chromium, type Server, type Tab, type TabOptions } from "./harness.ts";

/** A signed-in tab of the demo. */
export class Person {
  constructor(readonly name: string, readonly tab: Tab) {}

  get page() {
    return this.tab.page;
  }

  /** Begins or opens a private conversation. */
  async writeTo(who: string): Promise<void> {
    const line = this.page.getByRole("navigation").getByRole("button", { name: new RegExp(`\\b${who}\\b`) }).filter({ hasNot: this.page.getByRole("heading") });
    if (await line.count()) return line.first().click();
    await this.page.getByRole("button", { name: "New conversation" }).click();
    await this.page.getByLabel("With whom?").fill(who);
    await this.page.getByRole("button", { name: "Start", exact: true }).click();
  }

  async open(name: string): Promise<void> {
    await this.page.locator(".chats button", { has: this.page.locator(".name", { hasText: name }) }).click();
  }

  async say(text: string): Promise<void> {
    const field = this.page.getByRole("textbox", { name: "Message" });
    await field.fill(text);
    await field.press("Enter");
  }

  /** The texts of the open conversation, in their order. */
  texts(): Promise<string[]> {
    return this.page.locator(".log .text").allTextContents();
  }

  /** Waits until the open conversation shows exactly these texts. */
  async sees(texts: string[], patience = 60_000): Promise<void> {
    await expect.poll(() => this.texts(), { timeout: patience }).toEqual(texts);
  }

  /** Waits until a message of one's own has come so far. */
  async tick(text: string, state: "waiting to be sent" | "sent" | "delivered" | "read"): Promise<void> {
    await this.page.locator(".message", { has: this.page.locator(".text", { hasText: text }) }).getByRole("img", { name: state, exact: true }).waitFor();
  }

  async online(): Promise<void> {
    await this.page.locator(".self-state.online").waitFor();
  }
}

/** Opens the demo and signs in. */
export async function signIn(browser: Chromium, server: Server, name: string, options: TabOptions = {}): Promise<Person> {
  const tab = await browser.tab(options);
  await tab.page.goto(server.address("demo"));
  await tab.page.getByLabel("Your name").fill(name);
  await tab.page.getByRole("button", { name: "Start chatting" }).click();
  const person = new Person(name, tab);
  await person.online();
  return person;
}
