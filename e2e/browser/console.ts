// What the tests of the console share: clients of the wire, without any library of ours, and the page.

import { connect, type Socket } from "node:net";

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import type { AxeResults } from "axe-core";
import { expect } from "vitest";
import WebSocket from "ws";

import { type Chromium, patience, type Server, type Tab, type TabOptions, until, within } from "./harness.ts";

export interface Packet {
  cmd: number;
  id?: string;
  data: Record<string, unknown>;
}

/** One connection to the server. */
export class Client {
  readonly got: Packet[] = [];
  ended = false;
  #send: (text: string) => void;
  #close: () => void;

  private constructor(send: (text: string) => void, close: () => void) {
    this.#send = send;
    this.#close = close;
  }

  static async tcp(server: Server): Promise<Client> {
    const url = new URL(server.address("tcp").replace("tcp:", "http:"));
    const socket: Socket = connect(Number(url.port), url.hostname);
    const client = new Client((text) => {
      const body = Buffer.from(text);
      const head = Buffer.alloc(4);
      head.writeUInt32BE(body.length);
      socket.write(Buffer.concat([head, body]));
    }, () => socket.destroy());
    let rest = Buffer.alloc(0);
    socket.on("data", (b) => {
      rest = Buffer.concat([rest, b]);
      for (let n = 0; rest.length >= 4 && rest.length >= 4 + (n = rest.readUInt32BE(0)); rest = rest.subarray(4 + n)) {
        client.got.push(JSON.parse(rest.subarray(4, 4 + n).toString()) as Packet);
      }
    });
    socket.on("error", () => (client.ended = true));
    socket.on("close", () => (client.ended = true));
    await within(new Promise<void>((done) => socket.once("connect", () => done())), "a TCP connection");
    return client;
  }

  static async webSocket(server: Server): Promise<Client> {
    const socket = new WebSocket(server.address("websocket"));
    const client = new Client((text) => socket.send(text), () => socket.terminate());
    socket.on("message", (b: Buffer) => client.got.push(JSON.parse(b.toString()) as Packet));
    socket.on("error", () => (client.ended = true));
    socket.on("close", () => (client.ended = true));
    await within(new Promise<void>((done) => socket.once("open", () => done())), "a WebSocket connection");
    return client;
  }

  /** Connects and logs in. */
  static async login(server: Server, user: string, transport: "tcp" | "websocket" = "tcp", terminal = ""): Promise<Client> {
    const client = await (transport === "tcp" ? Client.tcp(server) : Client.webSocket(server));
    client.send({ cmd: 0, id: "login", data: { accessToken: await server.token(user), ...(terminal ? { terminal } : {}) } });
    await client.get((p) => p.cmd === 0);
    return client;
  }

  send(packet: Packet): void {
    this.#send(JSON.stringify(packet));
  }

  /** Sends what is no packet. */
  junk(): void {
    this.#send("not JSON");
  }

  close(): void {
    this.#close();
  }

  /** Waits for a packet. */
  async get(which: (p: Packet) => boolean): Promise<Packet> {
    let found: Packet | undefined;
    await until("a packet", () => (found = this.got.find(which)) !== undefined || this.ended);
    if (!found) throw new Error(`the connection ended; it had got ${JSON.stringify(this.got)}`);
    return found;
  }
}

/** Opens a page of the console: "users/alice". Errors like those that are expected are none. */
export async function openConsole(server: Server, browser: Chromium, page = "overview", options: TabOptions & { expected?: RegExp } = {}): Promise<Tab> {
  const tab = await browser.tab(options);
  if (options.expected) tab.expect(options.expected);
  await tab.page.goto(server.address("admin") + "/#/" + page.split("/").map(encodeURIComponent).join("/"));
  await tab.page.getByRole("heading", { level: 1 }).waitFor();
  return tab;
}

/** The number of a tile of the overview. */
export async function tile(tab: Tab, key: string): Promise<number> {
  return Number(await tab.page.locator(`[data-key="${key}"]`).getAttribute("data-value"));
}

/** What the page has got of the stream, as far as the tests look at it. */
export interface Frame {
  second: number;
  connections: Record<string, number>;
  rates?: Record<string, number>;
}

/** The frames of the page, and the newest one, which is not shown while it is paused. */
export function frames(tab: Tab): Promise<{ shown: Frame[]; newest: Frame }> {
  // As a text: the test runner would make an import of its own of it.
  return tab.page.evaluate(`import("/console/live.js").then((m) => ({ shown: m.live.frames, newest: m.newest() }))`);
}

/** A table as names → cells of the row. */
export async function rows(tab: Tab, caption: string): Promise<Map<string, string[]>> {
  const list = await tab.page.getByRole("region", { name: caption, exact: true }).locator("tbody tr").evaluateAll((all) =>
    all.map((tr) => [...tr.children].map((cell) => (cell as HTMLElement).innerText)));
  return new Map(list.map(([name, ...cells]) => [name ?? "", cells]));
}

/** Waits until the page shows what `want` is at that moment. */
export async function shows<T>(what: () => Promise<T>, want: () => Promise<T> | T): Promise<void> {
  await expect.poll(async () => ({ page: await what(), server: await want() }), { timeout: patience }).toSatisfy(
    ({ page, server }: { page: T; server: T }) => JSON.stringify(page) === JSON.stringify(server));
}

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** What axe-core finds serious or critical. It comes in through the debugger: the page's policy would not load it. */
export async function inaccessible(tab: Tab): Promise<string[]> {
  await tab.page.evaluate(axe);
  const results = await tab.page.evaluate(() => (globalThis as unknown as { axe: { run(): Promise<AxeResults> } }).axe.run());
  return results.violations.filter((v) => v.impact === "serious" || v.impact === "critical")
    .map((v) => `${v.id} (${v.impact}): ${v.help}: ${v.nodes.map((n) => n.html + " " + (n.any[0]?.message ?? "")).slice(0, 3).join(" | ")}`);
}
