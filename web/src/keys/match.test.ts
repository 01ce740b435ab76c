import { expect, it } from "vitest";
import { nameOf, Sequence } from "./match";

const known = ["g s", "g g", "c", "mod+k", "?", "shift+a", "a"];
const key = (k: string, more = {}) => ({ key: k, ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, ...more });

it("names keys", () => {
  expect(nameOf(key("K", { metaKey: true }))).toBe("mod+k");
  expect(nameOf(key("?", { shiftKey: true }))).toBe("?");
  expect(nameOf(key("A", { shiftKey: true }))).toBe("shift+a");
  expect(nameOf(key("Enter"))).toBe("Enter");
});

it("waits for the second key of a sequence, for a second", () => {
  const s = new Sequence();
  expect(s.press("g", known, 0)).toBe("more");
  expect(s.press("s", known, 500)).toBe("g s");
  expect(s.press("g", known, 1000)).toBe("more");
  expect(s.press("s", known, 2500)).toBeNull();
});

it("takes a key for itself when the sequence means nothing", () => {
  const s = new Sequence();
  s.press("g", known, 0);
  expect(s.press("c", known, 100)).toBe("c");
  expect(s.press("x", known, 200)).toBeNull();
});
