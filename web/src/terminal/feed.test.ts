import { expect, it } from "vitest";
import { Feed, pieces, plain } from "./feed";

const bytes = (s: string) => new TextEncoder().encode(s);
function feed() {
  let out = "";
  const f = new Feed({ write: (b) => (out += new TextDecoder().decode(b)), gap: (from, to) => (out += `<${from}-${to}>`) });
  return { take: (offset: number, s: string) => f.take(offset, bytes(s)), out: () => out, f };
}

it("writes each byte once, in whatever pieces they come", () => {
  const f = feed();
  f.take(100, "abc");
  f.take(100, "abc");
  f.take(101, "bcd");
  f.take(104, "ef");
  f.take(90, "x");
  expect(f.out()).toBe("abcdef");
  expect([f.f.start, f.f.end]).toEqual([100, 106]);
});
it("says what is missing", () => {
  const f = feed();
  f.take(0, "ab");
  f.take(10, "cd");
  expect(f.out()).toBe("ab<2-10>cd");
});
it("cuts input between characters", () => {
  expect(pieces("ab€c👍", 4)).toEqual(["ab", "€c", "👍"]);
  expect(pieces("")).toEqual([]);
  expect(pieces("x".repeat(70_000)).map((p) => p.length)).toEqual([32_768, 32_768, 4464]);
});
it("shows output as plain text", () => {
  expect(plain("\x1b[1;32mok\x1b[0m\r\n\x1b]0;title\x07\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\ 10%\r 20%\r100%\r\nend\x07")).toBe("ok\n100%\nend");
});
it("is fast on lines that never end", () => {
  const began = performance.now();
  plain("\x1b[".repeat(200_000));
  plain("\x1b]".repeat(100_000));
  plain("\x1bP".repeat(100_000));
  expect(performance.now() - began).toBeLessThan(1500);
});
