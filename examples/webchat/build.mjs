// Builds the page into demo/web, from where the server embeds it. `node build.mjs --check` fails if what is there differs.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "../../demo/web");

/** The files of the page, by name. The same sources make the same bytes, on any machine. */
export async function bundle() {
  const { outputFiles } = await build({
    absWorkingDir: here, entryPoints: { app: "src/main.ts", style: "src/app.css" }, bundle: true, minify: true, format: "esm", target: "es2022",
    charset: "utf8", legalComments: "none", write: false, outdir: "out",
  });
  const files = new Map();
  for (const f of outputFiles) files.set(f.path.endsWith(".css") ? "app.css" : "app.js", Buffer.from(f.contents));
  for (const name of ["index.html", "icon.svg"]) files.set(name, readFileSync(join(here, "src", name)));
  return files;
}

/** The names of the files in demo/web that are not what the sources make. */
export async function stale() {
  const read = (name) => {
    try {
      return readFileSync(join(target, name));
    } catch {
      return Buffer.alloc(0);
    }
  };
  return [...(await bundle())].filter(([name, bytes]) => !bytes.equals(read(name))).map(([name]) => name);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv.includes("--check")) {
    const names = await stale();
    if (names.length > 0) {
      console.error(`demo/web is not what examples/webchat makes: ${names.join(", ")} (run make web)`);
      process.exit(1);
    }
  } else {
    mkdirSync(target, { recursive: true });
    for (const [name, bytes] of await bundle()) writeFileSync(join(target, name), bytes);
  }
}
