import { expect, test } from "vitest";
import { fits } from "./filter";

test("every word has to be somewhere", () => {
  expect(fits("App deb", ["my app", "debian:12"])).toBe(true);
  expect(fits("app fedora", ["my app", "debian:12"])).toBe(false);
});
test("nothing fits everything, and a word does not reach over two texts", () => {
  expect([fits(undefined, []), fits(" ", ["x"])]).toEqual([true, true]);
  expect(fits("ab", ["a", "b", undefined])).toBe(false);
});
