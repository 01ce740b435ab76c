import { expect, it } from "vitest";
import { duration, relative } from "./time-format";

const now = Date.parse("2026-06-15T12:00:00Z");
const S = 1000;
const M = 60 * S;
const H = 60 * M;
const D = 24 * H;

it.each([
  [0, "just now"],
  [44 * S, "just now"],
  [45 * S, "1 min ago"],
  [59 * M, "59 min ago"],
  [H - 20 * S, "1 h ago"],
  [5 * H, "5 h ago"],
  [D, "yesterday"],
  [6 * D, "6 days ago"],
  [-10 * S, "in a moment"],
  [-29 * M, "in 29 min"],
  [-3 * H, "in 3 h"],
  [-D, "tomorrow"],
])("%i ms ago is %s", (ago, text) => expect(relative(now - ago, now)).toBe(text));

it("is a date when it is longer than a month away", () => expect(relative(now - 45 * D, now)).toMatch(/2026/));

it.each([
  [-5, "0 s"],
  [59 * S, "59 s"],
  [65 * S, "1 min 05 s"],
  [2 * H + 3 * M, "2 h 03 min"],
  [3 * D + 4 * H + 59 * M, "3 d 4 h"],
])("%i ms lasts %s", (ms, text) => expect(duration(ms)).toBe(text));
