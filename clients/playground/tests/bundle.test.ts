import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { expect, test, vi } from "vitest";
import { build } from "vite";
import type { Rolldown } from "vite";

const SHIPPED = new URL("../../../server/e3rl_server/static/playground/", import.meta.url);
const PUBLIC = new URL("../public/", import.meta.url);

test("the files that the server ships are what this source builds", async () => {
  vi.stubEnv("NODE_ENV", "production"); // vitest's own is test, and is built in
  const root = fileURLToPath(new URL("..", import.meta.url));
  const built = (await build({ root, logLevel: "error", build: { write: false } })) as Rolldown.RolldownOutput;
  const files = new Map<string, string>(
    built.output.map((file) => [file.fileName, file.type === "chunk" ? file.code : String(file.source)]),
  );
  for (const name of readdirSync(PUBLIC)) files.set(name, readFileSync(new URL(name, PUBLIC), "utf8"));
  expect(readdirSync(SHIPPED).sort()).toEqual([...files.keys()].sort());
  for (const [name, text] of files) {
    expect(readFileSync(new URL(name, SHIPPED), "utf8") === text, `${name} is stale: say npm run build, and commit it`).toBe(true);
  }
});
