import { expect, test } from "vitest";
import type { Environment } from "@/api/types";
import { bodyOf, draftText, emptyForm, formOf, fromDraft, refusalOf } from "./form";

const full: Environment = {
  id: "env_1",
  environment_id: "env_1",
  name: "demo",
  docker_image: "debian:12",
  repos: ["acme/app", "https://example.org/x.git#main"],
  setup_commands: ["make deps", "echo 'a  b'"],
  secrets: [],
  env_vars: { TOKEN: "a value that was shown", OTHER: "<redacted>" },
  scope: "OWNER",
  sandbox: { network: { mode: "proxy", allow: ["a.example.org:443"] }, nested: true, root: "fake", limits: { memory_mb: 2048, cpus: 1.5 } },
  created_at: "2026-01-01T00:00:00.000Z",
  updated_at: "2026-01-02T00:00:00.000Z",
};

test("a replacement keeps whatever was not changed", () => {
  expect(bodyOf(formOf(full), false)).toEqual({
    name: "demo",
    docker_image: "debian:12",
    repos: full.repos,
    setup_commands: full.setup_commands,
    env_vars: { TOKEN: "<redacted>", OTHER: "<redacted>" },
    sandbox: full.sandbox,
  });
});
test("a variable that is taken away is not in the replacement, one that is given anew is", () => {
  const f = formOf(full);
  f.vars = [{ name: "TOKEN", value: "new", kept: true }, { name: "MORE", value: "", kept: false }];
  expect(bodyOf(f, false).env_vars).toEqual({ TOKEN: "new", MORE: "" });
});
test("nothing is asked of a sandbox when nothing is filled in", () => {
  expect(bodyOf({ ...emptyForm(), name: " a ", image: "x" }, true)).toEqual({ name: "a", docker_image: "x", repos: [], setup_commands: [] });
});
test("hosts alone mean the proxy, and go with no other network", () => {
  const f = { ...emptyForm(), allow: "a.example.org:443\n\n b.example.org:80 " };
  expect(bodyOf(f, true).sandbox).toEqual({ network: { mode: "proxy", allow: ["a.example.org:443", "b.example.org:80"] } });
  expect(bodyOf({ ...f, mode: "none" }, true).sandbox).toEqual({ network: { mode: "none" } });
});
test("for everybody is said when it is made, never again", () => {
  expect(bodyOf({ ...emptyForm(), global: true }, true).global).toBe(true);
  expect(bodyOf({ ...emptyForm(), global: true }, false).global).toBeUndefined();
});
test("what JSON has no place for is refused here", () => {
  const v = (name: string, value: string) => ({ name, value, kept: false });
  expect(refusalOf({ ...emptyForm(), vars: [v("A", "1"), v("A", "2")] })).toMatch("A is there twice");
  expect(refusalOf({ ...emptyForm(), vars: [v("", "1")] })).toMatch("no name");
  expect(refusalOf({ ...emptyForm(), vars: [v("A", "<redacted>")] })).toMatch("cannot be stored");
  expect(refusalOf({ ...emptyForm(), vars: [v("A", ""), v("", "")] })).toBeUndefined();
});
test("a draft has everything but the values of variables", () => {
  const f = { ...formOf(full), vars: [{ name: "TOKEN", value: "hidden words", kept: false }, { name: "OTHER", value: "", kept: true }] };
  const text = draftText(f);
  expect(text).not.toContain("hidden words");
  expect(text).not.toContain("a value that was shown");
  expect(fromDraft(text)).toEqual({ ...f, vars: [{ name: "TOKEN", value: "", kept: false, again: true }, { name: "OTHER", value: "", kept: true }] });
});
test("a value that the draft has lost is not stored as empty", () => {
  const lost = fromDraft(draftText({ ...emptyForm(), vars: [{ name: "TOKEN", value: "hidden words", kept: false }] }))!;
  expect(refusalOf(lost)).toMatch("value of TOKEN again");
  lost.vars[0]!.value = "typed again";
  expect(refusalOf(lost)).toBeUndefined();
});
test("a draft that is none is nothing", () => {
  for (const text of ["", "{", "null", "[]", '"x"', "{}"]) expect(fromDraft(text)).toBeNull();
  expect(fromDraft('{"name":"x","setup":[1],"vars":[null],"mode":"evil"}')).toMatchObject({ name: "x", setup: "", vars: [{ name: "", kept: false }], mode: "" });
});
