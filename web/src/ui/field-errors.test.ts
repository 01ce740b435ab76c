import { expect, test } from "vitest";
import { ApiError, errorOf } from "@/api/client";
import { fieldErrors, plainMessage } from "./field-errors";

const oz = (field: string, message: string) => errorOf(400, { error: message, message, code: "invalid_field", field, request_id: "req_1" });
const KNOWN = ["name", "sandbox", "sandbox.network.allow", "sandbox.limits.memory_mb", "env_vars"];

test("what the server says of a field is said at that field, without its path", () => {
  const e = fieldErrors(oz("sandbox.limits.memory_mb", "sandbox.limits.memory_mb must be 16 to 16777216"), KNOWN);
  expect(e.at("sandbox.limits.memory_mb")).toBe("This must be 16 to 16777216");
  expect(e.at("sandbox")).toBeUndefined();
  expect(e.elsewhere).toBe(false);
});
test("a member of a list is its line, a member of a map its name", () => {
  expect(fieldErrors(oz("sandbox.network.allow[2]", "sandbox.network.allow[2] must be host:port"), KNOWN).at("sandbox.network.allow")).toBe("Line 3 must be host:port");
  expect(fieldErrors(oz("env_vars.1a", "env_vars.1a: a variable's name must match x"), KNOWN).at("env_vars")).toBe("1a: a variable's name must match x");
});
test("a sentence of its own begins with a capital letter", () => {
  expect(plainMessage("cron_schedule", "cron_schedule", 'cron_schedule: cron minute "x": not a value')).toBe('Cron minute "x": not a value');
  expect(plainMessage("name", "name", "A key named a exists already")).toBe("A key named a exists already");
});
test("a field that only begins alike is another one", () => {
  expect(fieldErrors(oz("names", "names is wrong"), KNOWN)).toMatchObject({ elsewhere: true });
});
test("what names no field of the form is said elsewhere", () => {
  expect(fieldErrors(oz("secrets", "secrets: none"), KNOWN).elsewhere).toBe(true);
  expect(fieldErrors(new ApiError(503, "unavailable", "busy"), KNOWN).elsewhere).toBe(true);
  expect(fieldErrors(new Error("x"), KNOWN).elsewhere).toBe(true);
  expect(fieldErrors(null, KNOWN).elsewhere).toBe(false);
});
test("every issue of an envelope finds its field", () => {
  const e = fieldErrors(
    errorOf(400, {
      success: false,
      error: { code: "VALIDATION_ERROR", message: "The request is not valid", details: { issues: [{ path: "uses", code: "too_small", message: "uses must be 1 to 1000" }, { path: "name", code: "too_big", message: "name is too long" }] } },
      meta: { requestId: "req_1" },
    }),
    ["uses", "name"],
  );
  expect([e.at("uses"), e.at("name"), e.elsewhere]).toEqual(["This must be 1 to 1000", "This is too long", false]);
});
