import { expect, test } from "vitest";
import { inputLimits, limitOf } from "./limits-of";
import { rightsOf } from "./rights";

const who = (role: string, admin = false) => ({ id: "1", name: "x", role, admin, orgId: "o" });

test("each role may what the server lets it", () => {
  expect(rightsOf(who("viewer"))).toEqual({ admin: false, orgAdmin: false, write: false });
  expect(rightsOf(who("operator"))).toEqual({ admin: false, orgAdmin: false, write: true });
  expect(rightsOf(who("admin"))).toEqual({ admin: false, orgAdmin: true, write: true });
  expect(rightsOf(who("platform_admin", true))).toEqual({ admin: true, orgAdmin: true, write: true });
});
test("nobody, and a role that is not known, may nothing", () => {
  for (const user of [null, undefined, who("something new")]) expect(rightsOf(user)).toEqual({ admin: false, orgAdmin: false, write: false });
});
test("limits are those of the server's document, a zero among them", () => {
  expect(inputLimits("createKey", "expires_in_days")).toEqual({ maxLength: undefined, min: 1, max: 3650 });
  expect(inputLimits("createEnvironment", "sandbox.limits.cpus").min).toBe(0);
  expect(limitOf("createEnvironment", "sandbox.network.allow").maxItems).toBe(256);
});
