import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

import { afterAll, beforeAll, expect, test } from "vitest";

// The package as others get it: packed, unpacked, compiled against and run by Node alone.

const here = resolve(import.meta.dirname, "..");
const tsc = resolve(here, "../../node_modules/typescript/bin/tsc");
function run(cwd: string, command: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, encoding: "utf8" });
  expect(status, `${command} ${args.join(" ")}\n${stdout}${stderr}`).toBe(0);
  return stdout;
}
let dir: string;

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "meshtalk-package-"));
  run(here, process.execPath, tsc, "-p", "tsconfig.build.json");
  const [packed] = JSON.parse(run(here, "npm", "pack", "--ignore-scripts", "--json", "--pack-destination", dir)) as { filename: string; files: { path: string }[] }[];
  expect(packed!.files.map((f) => f.path).filter((p) => !/^(dist\/[a-z0-9]+\.(js|d\.ts|js\.map)|README\.md|package\.json)$/.test(p))).toEqual([]);
  const target = join(dir, "node_modules/meshtalk-client");
  mkdirSync(target, { recursive: true });
  run(dir, "tar", "-xzf", packed!.filename, "--strip-components=1", "-C", target);
  writeFileSync(join(dir, "package.json"), '{"type":"module"}');
  writeFileSync(join(dir, "program.ts"), `
    import { Client, type Message, ServerError } from "meshtalk-client";
    class Silent { onopen = null; onmessage = null; onclose = null; onerror = null; send(_: string) {} close() {} }
    const c = new Client({ url: "ws://127.0.0.1:1/im", token: async () => "t", WebSocket: Silent });
    c.on("message", (m: Message) => { const seq: number | undefined = m.seq; void seq; });
    c.on("state", (s) => { if (s.status === "ended") console.log(s.error.reason); });
    // @ts-expect-error there is no such event
    c.on("nonsense", () => {});
    const sent: Promise<{ seq?: number }> = c.send({ to: "bob", content: { text: "x" } });
    sent.catch((e: unknown) => { if (e instanceof ServerError) console.log(e.code); });
    c.connect().catch(() => {});
    await c.close();
  `);
}, 120_000);

afterAll(() => rmSync(dir, { recursive: true, force: true }));

for (const resolution of ["NodeNext", "Bundler"]) {
  test(`a program compiles against its types, ${resolution}`, () => {
    const module = resolution === "Bundler" ? "ESNext" : resolution;
    writeFileSync(join(dir, "tsconfig.json"), JSON.stringify({
      compilerOptions: { strict: true, exactOptionalPropertyTypes: true, target: "es2022", lib: ["es2022", "dom"], module, moduleResolution: resolution, types: [] },
      files: ["program.ts"],
    }));
    run(dir, process.execPath, tsc, "-p", ".");
  }, 120_000);
}

test("and runs, with nothing beside it", () => {
  expect(run(dir, process.execPath, "program.js")).toBe("closed\n");
}, 120_000);
