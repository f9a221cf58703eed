import { readdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import { parse, Stage } from "./stage.ts";

const folder = resolve(import.meta.dirname, "../../../testdata/dialogues");
const files = readdirSync(folder).filter((f) => f.endsWith(".jsonl"));

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test("the dialogues are there", () => expect(files.length).toBeGreaterThan(30));

describe("dialogues", () => {
  for (const f of files) {
    test(f.replace(".jsonl", ""), async () => {
      const [head, ...steps] = parse(readFileSync(resolve(folder, f), "utf8"));
      const stage = new Stage(head!);
      await stage.play(steps);
      const closing = stage.client.close();
      await vi.advanceTimersByTimeAsync(2000);
      await closing;
      expect(vi.getTimerCount(), "timers that are left").toBe(0);
    });
  }
});
