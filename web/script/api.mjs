// Types of every API from the OpenAPI document of a running server (MUSTER_URL), else of the file that is named
// as argument, and the limits of what forms ask for. --check compares with what is committed.
import { readFile, writeFile } from "node:fs/promises";
import openapiTS, { astToString } from "openapi-typescript";

const args = process.argv.slice(2);
const check = args.includes("--check");
const file = args.find((a) => !a.startsWith("--"));
async function document() {
  if (file) return JSON.parse(await readFile(file, "utf8"));
  const base = process.env.MUSTER_URL ?? "http://127.0.0.1:8080";
  const answer = await fetch(new URL("/openapi.json", base));
  if (!answer.ok) throw new Error(`${base}/openapi.json: ${answer.status}`);
  return answer.json();
}

const FORMS = ["createEnvironment", "createSchedule", "createKey", "createRunnerEnrolment", "createRun"];
const KEPT = { maxLength: "maxLength", minimum: "min", maximum: "max", maxItems: "maxItems", maxProperties: "maxItems" };

/** path -> what its schema allows; a member of a list is path[], a value of a map path.* */
function limits(schema, path, out) {
  for (const s of [schema, ...(schema.anyOf ?? [])]) {
    for (const [name, as] of Object.entries(KEPT)) if (s[name] > 0 || (name === "minimum" && s[name] === 0)) (out[path] ??= {})[as] = s[name];
    for (const [name, member] of Object.entries(s.properties ?? {})) limits(member, path ? `${path}.${name}` : name, out);
    if (s.items) limits(s.items, `${path}[]`, out);
    if (typeof s.additionalProperties === "object") limits(s.additionalProperties, `${path}.*`, out);
  }
  return out;
}

function limitsText(doc) {
  const operations = Object.values(doc.paths).flatMap((p) => Object.values(p));
  const found = FORMS.map((id) => {
    const operation = operations.find((o) => o.operationId === id);
    if (!operation) throw new Error(`the server has no operation ${id}`);
    return [id, limits(operation.requestBody.content["application/json"].schema, "", {})];
  });
  return `export const LIMITS = ${JSON.stringify(Object.fromEntries(found), null, 2)} as const;\n`;
}

const head = "// Made from /openapi.json by `npm run api`.\n";
const doc = await document();
const made = {
  "schema.d.ts": astToString(await openapiTS(structuredClone(doc), { alphabetize: true, emptyObjectsUnknown: true })),
  "limits.ts": limitsText(doc),
};
for (const [name, text] of Object.entries(made)) {
  const target = new URL(`../src/api/${name}`, import.meta.url);
  if (!check) await writeFile(target, head + text);
  else if ((await readFile(target, "utf8").catch(() => "")) === head + text) console.log(`src/api/${name} is what the server says`);
  else {
    console.error(`src/api/${name} is not what the server says: npm run api`);
    process.exitCode = 1;
  }
}
