// Types of every API from the OpenAPI document of a running server (MUSTER_URL), else of the file that is named
// as argument. --check compares with what is committed.
import { readFile, writeFile } from "node:fs/promises";
import openapiTS, { astToString } from "openapi-typescript";

const args = process.argv.slice(2);
const check = args.includes("--check");
const file = args.find((a) => !a.startsWith("--"));
const target = new URL("../src/api/schema.d.ts", import.meta.url);

async function document() {
  if (file) return JSON.parse(await readFile(file, "utf8"));
  const base = process.env.MUSTER_URL ?? "http://127.0.0.1:8080";
  const answer = await fetch(new URL("/openapi.json", base));
  if (!answer.ok) throw new Error(`${base}/openapi.json: ${answer.status}`);
  return answer.json();
}

const head = "// Made from /openapi.json by `npm run api`.\n";
const text = head + astToString(await openapiTS(await document(), { alphabetize: true, emptyObjectsUnknown: true }));
if (check) {
  if ((await readFile(target, "utf8")) !== text) {
    console.error("src/api/schema.d.ts is not what the server says: npm run api");
    process.exit(1);
  }
  console.log("src/api/schema.d.ts is what the server says");
} else {
  await writeFile(target, text);
}
