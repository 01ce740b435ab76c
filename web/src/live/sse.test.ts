import { expect, it } from "vitest";
import { type ServerEvent, sseParser } from "./sse";

const TEXT = ': connected\r\n\r\nid: 1\nevent: SESSION_CREATED\ndata: {"a":1}\n\ndata: one\rdata: two\r\rid:2\nevent:x\ndata:é\n\n: keep-alive\n\nevent: nothing\n\n';
const WANTED: ServerEvent[] = [
  { event: "SESSION_CREATED", data: '{"a":1}', id: "1" },
  { event: "message", data: "one\ntwo", id: undefined },
  { event: "x", data: "é", id: "2" },
];

it("gives the same events wherever the text is cut", () => {
  for (let i = 0; i <= TEXT.length; i++) {
    for (const j of [i, Math.min(i + 1, TEXT.length), Math.min(i + 7, TEXT.length)]) {
      const out: ServerEvent[] = [];
      const parse = sseParser((e) => out.push(e));
      for (const piece of [TEXT.slice(0, i), TEXT.slice(i, j), TEXT.slice(j)]) parse(piece);
      expect(out, `cut at ${i} and ${j}`).toEqual(WANTED);
    }
  }
});
