import { expect, test } from "vitest";

// @ts-expect-error it is plain JavaScript
import { bundle, stale } from "../build.mjs";

test("what the server embeds is what the sources make", async () => {
  expect(await stale(), "run make web").toEqual([]);
});

test("the page is small, and asks no other host for anything", async () => {
  const files: Map<string, Buffer> = await bundle();
  let size = 0;
  for (const [name, bytes] of files) {
    size += bytes.length;
    const others = bytes.toString().replaceAll("http://www.w3.org/", "").match(/https?:\/\/[a-z0-9]/g);
    expect(others, name).toBeNull();
  }
  expect(size).toBeLessThan(96 * 1024);
});
