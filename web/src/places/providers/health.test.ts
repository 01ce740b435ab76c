import { expect, test } from "vitest";
import { canBeAsked, healthOf, type Provider, used, windowText } from "./health";

const p = (part: Partial<Provider> = {}): Provider => ({ key: "a", type: "anthropic", model: "m", breaker: "closed", limit: null, running: 0, ...part });

test("what works is ready", () => {
  expect(healthOf(p()).text).toBe("Ready");
  expect(healthOf(p({ limit: 5, used: 4, window_seconds: 60 })).text).toBe("Ready");
});
test("the worst is said first", () => {
  const blocked = "2026-01-01T00:00:00.000Z";
  expect(healthOf(p({ breaker: "open", blocked_until: blocked })).text).toBe("Not asked");
  expect(healthOf(p({ breaker: "half_open", blocked_until: blocked }))).toMatchObject({ text: "Blocked", until: blocked });
  expect(healthOf(p({ breaker: "half_open" })).text).toBe("On trial");
});
test("a quota without a message left says when there is one again", () => {
  expect(healthOf(p({ limit: 5, used: 5, resets_at: "2026-01-01T00:00:00.000Z" }))).toMatchObject({ text: "Used up", until: "2026-01-01T00:00:00.000Z" });
  // After the limit was made smaller.
  expect(used(p({ limit: 5, used: 9 }))).toEqual({ used: 5, limit: 5, left: 0, percent: 100 });
  expect(used(p())).toBeNull();
});
test("a program with every place taken is busy", () => {
  expect(healthOf(p({ max_parallel: 2, running: 2 })).text).toBe("Busy");
  expect(healthOf(p({ max_parallel: 2, running: 1 })).text).toBe("Ready");
});
test("windows are said in the largest unit that fits", () => {
  expect([3600, 86_400, 18_000, 60, 90, 5].map(windowText)).toEqual(["1 h", "1 d", "5 h", "1 min", "1 min 30 s", "5 s"]);
});
test("only a provider that a run reaches first can be asked", () => {
  expect([p({ key: "claude" }), p({ key: "shell" }), p({ key: "spare" }), p({ key: "claude", model: null })].map(canBeAsked)).toEqual([true, true, false, false]);
});
