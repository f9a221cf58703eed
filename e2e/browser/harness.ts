// What the tests in a real browser share: a Mesh-Talk server in a process of its own, and a Chromium that is watched for
// errors and for requests that leave the machine.
//
//   const server = await startServer({ args: ["--demo.enable"] });
//   const browser = await launch();
//   const tab = await browser.tab({ theme: "dark", width: 390, height: 844 });
//   await tab.page.goto(server.address("admin"));
//   …
//   tab.check();                    // no console errors, nothing asked of another host
//   await browser.close(); await server.stop();

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";

/** How long anything is waited for, in ms; only a test that fails waits for it. */
export const patience = 60_000;

/** The repository. */
export const root = resolve(import.meta.dirname, "../..");

/** The server's program, built by `make build`. */
export const program = process.env["SERVER"] ?? join(root, "bin/meshtalk");

/** The folder into which tests put the pictures of the documents. They are written only when PICTURES is set. */
export const pictures = process.env["PICTURES"] ? join(root, "docs/images") : mkdtempSync(join(tmpdir(), "meshtalk-pictures-"));

export interface ServerOptions {
  /** More flags of `meshtalk serve`. */
  args?: string[];
  /** Without it a new one, removed at the end. */
  dataDir?: string;
}

/** A server on free ports of the loopback, which it keeps over restarts. */
export class Server {
  readonly dataDir: string;
  #own: boolean;
  #args: string[];
  #child: ChildProcess | undefined;
  #ended: Promise<number | null> = Promise.resolve(null);
  #addresses = new Map<string, string>();
  #log = "";

  constructor(options: ServerOptions) {
    this.#own = options.dataDir === undefined;
    this.dataDir = options.dataDir ?? mkdtempSync(join(tmpdir(), "meshtalk-browser-"));
    this.#args = options.args ?? [];
  }

  /** The URL of a listener: websocket, tcp, admin, or the demo's page. */
  address(name: string): string {
    const url = this.#addresses.get(name);
    if (!url) throw new Error(`the server has no listener ${name}; it has ${[...this.#addresses.keys()].join(", ")}`);
    return url;
  }

  /** What the server has logged so far. */
  get log(): string {
    return this.#log;
  }

  /** Starts the server, on the ports that it had before, and returns when it is ready. */
  async start(): Promise<void> {
    const port = (name: string) => (this.#addresses.has(name) ? new URL(this.address(name)).port : "0");
    const child = spawn(program, [
      "serve", "--data-dir", this.dataDir,
      "--websocket.host=127.0.0.1", `--websocket.port=${port("websocket")}`,
      "--tcpsocket.host=127.0.0.1", `--tcpsocket.port=${port("tcp")}`,
      `--admin.port=${port("admin")}`, ...this.#args,
    ], { stdio: ["ignore", "pipe", "pipe"] });
    this.#child = child;
    child.stderr.setEncoding("utf8").on("data", (text: string) => (this.#log += text));
    this.#ended = new Promise((done, failed) => {
      child.once("error", failed);
      child.once("exit", (code) => done(code));
    });
    this.#ended.catch(() => {}); // told by the race below
    const ready = (async () => {
      for await (const line of createInterface({ input: child.stdout })) {
        const [name, url] = line.split(" ");
        if (name === "ready") return;
        if (name && url) this.#addresses.set(name, url);
      }
      throw new Error(`the server ended (${await this.#ended}) before it was ready:\n${this.#log}`);
    })();
    await within(Promise.race([ready, this.#ended.then((code) => Promise.reject(new Error(`the server ended (${code}):\n${this.#log}`)))]), "the server's start");
    child.stdout.resume(); // nothing more is read, and nobody may wait for it
  }

  /** kill -9, and returns when the process is gone. */
  async kill(): Promise<void> {
    this.#child?.kill("SIGKILL");
    await within(this.#ended, "the end of the server");
  }

  /** SIGTERM, and returns the exit code. The data directory goes, if it was made here. */
  async stop(): Promise<number | null> {
    this.#child?.kill("SIGTERM");
    const code = await within(this.#ended, "the stop of the server");
    if (this.#own) rmSync(this.dataDir, { recursive: true, force: true });
    return code;
  }

  /** A signal that does not end it, such as SIGHUP, SIGSTOP and SIGCONT. */
  signal(name: NodeJS.Signals): void {
    this.#child?.kill(name);
  }

  /** A token of a user, minted with the server's key. */
  async token(user: string, ttl = "1h", terminal = ""): Promise<string> {
    const { stdout } = await promisify(execFile)(program, ["token", "--user", user, "--ttl", ttl, "--data-dir", this.dataDir,
      ...(terminal ? ["--terminal", terminal] : [])]);
    return stdout.trim();
  }

  /** A call of the HTTP API; throws on a refusal. */
  async api<T = unknown>(method: string, path: string, body?: unknown): Promise<T> {
    const answer = await fetch(this.address("admin") + path, {
      method, ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } }),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return JSON.parse(text) as T;
  }

  /** The sum of a metric over its labels; those in `labels` must match. */
  async metric(name: string, labels: Record<string, string> = {}): Promise<number> {
    const text = await (await fetch(this.address("admin") + "/metrics")).text();
    let sum = NaN;
    for (const line of text.split("\n")) {
      const m = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
      if (!m || m[1] !== name) continue;
      if (!Object.entries(labels).every(([k, v]) => (m[2] ?? "").includes(`${k}=${JSON.stringify(v)}`))) continue;
      sum = (Number.isNaN(sum) ? 0 : sum) + Number(m[3]);
    }
    return sum;
  }
}

/** Starts a server and waits until it is ready. */
export async function startServer(options: ServerOptions = {}): Promise<Server> {
  const server = new Server(options);
  await server.start();
  return server;
}

export interface TabOptions {
  theme?: "light" | "dark";
  width?: number;
  height?: number;
  /** Pixels of the picture for one of the page; 2 for screenshots. */
  scale?: number;
  /** Another tab, to share its storage and cookies. */
  beside?: Tab;
}

/** A page that is watched. */
export class Tab {
  /** What a person would have seen in the console as an error, and every request that left the machine. */
  readonly problems: string[] = [];
  #expected: RegExp[] = [];

  constructor(readonly page: Page, readonly context: BrowserContext) {
    page.on("console", (m) => {
      if (m.type() === "error" || m.type() === "warning") this.#problem(`console: ${m.text()} (${m.location().url})`);
    });
    page.on("pageerror", (e) => this.#problem(`uncaught: ${e.stack ?? e.message}`));
    page.on("dialog", (d) => {
      this.#problem(`dialog: ${d.message()}`);
      void d.dismiss();
    });
    page.on("request", (r) => this.#request(r.url()));
    page.on("websocket", (w) => this.#request(w.url()));
  }

  #request(address: string): void {
    const url = new URL(address);
    if (["data:", "blob:", "about:"].includes(url.protocol)) return;
    if (url.hostname !== "127.0.0.1" && url.hostname !== "localhost") this.problems.push(`a request left the machine: ${address}`);
  }

  #problem(text: string): void {
    if (!this.#expected.some((e) => e.test(text))) this.problems.push(text);
  }

  /** Errors that the test causes itself, such as a refused connection while the server is down, from now on. */
  expect(...patterns: RegExp[]): void {
    this.#expected.push(...patterns);
  }

  /** Throws if there was a problem. */
  check(): void {
    if (this.problems.length > 0) throw new Error(`problems of ${this.page.url()}:\n${this.problems.join("\n")}`);
  }

  /** A picture for the documents. */
  async picture(name: string): Promise<void> {
    await this.page.evaluate(() => document.fonts.ready);
    await this.page.screenshot({ path: join(pictures, name), animations: "disabled", caret: "hide" });
  }
}

/** A Chromium of this machine; nothing is downloaded. */
export class Chromium {
  #contexts = new Set<BrowserContext>();
  constructor(readonly browser: Browser) {}

  /** A new page, in a context of its own (storage, cookies) unless it stands beside another. */
  async tab(options: TabOptions = {}): Promise<Tab> {
    let context = options.beside?.context;
    if (!context) {
      context = await this.browser.newContext({
        colorScheme: options.theme ?? "light", locale: "en-GB", timezoneId: "UTC", reducedMotion: "reduce",
        viewport: { width: options.width ?? 1280, height: options.height ?? 800 }, deviceScaleFactor: options.scale ?? 1,
      });
      context.setDefaultTimeout(patience);
      this.#contexts.add(context);
    }
    return new Tab(await context.newPage(), context);
  }

  async close(): Promise<void> {
    for (const c of this.#contexts) await c.close();
    await this.browser.close();
  }
}

/** Starts Chromium without a window. */
export async function launch(): Promise<Chromium> {
  const browser = await chromium.launch({
    executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--font-render-hinting=none"],
  });
  return new Chromium(browser);
}

/** Waits for a condition outside of a page. */
export async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + patience;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`it did not come to this: ${what}`);
    await new Promise((r) => setTimeout(r, 20));
  }
}

/** Waits for a promise, with patience. */
export async function within<T>(promise: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, failed) => {
    timer = setTimeout(() => failed(new Error(`${what}: nothing within ${patience} ms`)), patience);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
