import { resolve } from "node:path";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";
import { expect, test } from "vitest";

const limit = 12 * 1024;

test("everything that the client exports is at most 12 KB of gzip", async () => {
  const entry = resolve(import.meta.dirname, "../src/index.ts");
  const { outputFiles, metafile } = await build({
    entryPoints: [entry], bundle: true, minify: true, format: "esm", target: "es2022", write: false, metafile: true, outdir: "/",
  });
  const size = gzipSync(outputFiles[0]!.contents, { level: 9 }).length;
  expect(size).toBeLessThanOrEqual(limit);
  expect(Object.keys(metafile.inputs).filter((f) => f.includes("node_modules")), "dependencies").toEqual([]);
});
