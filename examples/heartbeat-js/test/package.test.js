// What is published: the types, how large it is, and what is in the package.

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { program, skip } from "./tools.js";

const folder = fileURLToPath(new URL("..", import.meta.url));

const run = (command, ...args) => {
  try {
    return execFileSync(command, args, { cwd: folder, encoding: "utf8" });
  } catch (error) {
    throw new Error(`${args.join(" ")}\n${error.stdout}${error.stderr}`);
  }
};

test("the module has the types that are documented", { skip }, () => {
  run(process.execPath, program("typescript/bin/tsc"), "-p", ".");
});

test("a page loads at most 6 kB of it", { skip }, () => {
  const minify = ["--module", "--compress", "passes=2", "--mangle", "--", "heartbeat.js"];
  const minified = run(process.execPath, program("terser/bin/terser"), ...minify);
  const size = gzipSync(minified, { level: 9 }).length;
  console.log(`${size} bytes, minified and gzipped`);
  assert.ok(size <= 6_000, `${size} bytes`);
});

test("the package is made without a network, and has what it exports", () => {
  const [{ files }] = JSON.parse(run("npm", "pack", "--dry-run", "--json", "--offline"));
  const names = files.map(({ path }) => path).sort();
  assert.deepEqual(names, ["README.md", "heartbeat.js", "package.json", "types.d.ts"]);
});

test("the code in the pages is JavaScript", () => {
  for (const page of ["examples/heartbeat-js/README.md", "docs/guide/browsers.md"]) {
    const text = readFileSync(new URL(`../../../${page}`, import.meta.url), "utf8");
    const blocks = [...text.matchAll(/^```js\n(.*?)^```/gms)];
    assert.ok(blocks.length >= 2, page);
    for (const [, code] of blocks) {
      const check = ["--check", "--input-type=module", "-"];
      const { status, stderr } = spawnSync(process.execPath, check, { input: code });
      assert.equal(status, 0, `${page}: ${stderr}`);
    }
  }
});
