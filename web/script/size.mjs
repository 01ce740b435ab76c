// What the first page costs: index.html, every script and style it names, Home, and what these import, as gzip -9 sends them.
import { readdir, readFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";

const LIMIT = 150 * 1024;
const dist = new URL("../dist/", import.meta.url);
const home = (await readdir(new URL("assets/", dist))).filter((name) => /^home-.*\.js$/.test(name));
if (home.length !== 1) throw new Error("which script is Home?");
const todo = ["index.html", `assets/${home[0]}`];
const seen = new Map();
while (todo.length) {
  const name = todo.pop();
  if (seen.has(name)) continue;
  const bytes = await readFile(new URL(name, dist));
  seen.set(name, gzipSync(bytes, { level: 9 }).length);
  const text = bytes.toString();
  if (name.endsWith(".html")) {
    for (const m of text.matchAll(/(?:src|href)="\/(assets\/[^"]+\.(?:js|css))"/g)) todo.push(m[1]);
  } else if (name.endsWith(".js")) {
    for (const m of text.matchAll(/(?:from|import)\s*"\.\/([^"]+\.js)"/g)) todo.push(`assets/${m[1]}`);
  }
}
let total = 0;
for (const [name, size] of [...seen].sort((a, b) => b[1] - a[1])) {
  console.log(`${String(size).padStart(8)}  ${name}`);
  total += size;
}
console.log(`${String(total).padStart(8)}  first load, gzip -9 (at most ${LIMIT})`);
if (total > LIMIT) process.exit(1);
