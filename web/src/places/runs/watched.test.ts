import { expect, test } from "vitest";
import { attemptsOf, unwatched, watch, type Watched } from "./watched";

type Event = Parameters<typeof watch>[1];
const all = (events: Event[], from: Watched = unwatched) => events.reduce(watch, from);
const output = (offset: number, text: string, reset?: boolean): Event => ({ event: "output", data: { offset, text, reset } });
const state = (id: number, s: string, message?: string): Event => ({ event: "state", id, data: { state: s, message } });

test("states come with their numbers, the end is the last", () => {
  const w = all([state(1, "PENDING", "no worker is connected"), state(2, "INPROGRESS")]);
  expect(w).toMatchObject({ seq: 2, state: "INPROGRESS", ended: false });
  expect(all([{ event: "end", id: 3, data: { state: "SUCCEEDED" } }], w)).toMatchObject({ seq: 3, state: "SUCCEEDED", ended: true });
});
test("output is put together by its offsets, in bytes", () => {
  expect(all([output(0, "äh\n"), output(4, "two")])).toMatchObject({ text: "äh\ntwo", bytes: 7 });
});
test("a viewer that joins again gets nothing twice", () => {
  const w = all([output(0, "one\n"), output(4, "two\n")]);
  expect(all([output(0, "one\ntwo\nthree\n")], w)).toMatchObject({ text: "one\ntwo\nthree\n", bytes: 14 });
  expect(all([output(4, "two\nthree\n")], w)).toMatchObject({ text: "one\ntwo\nthree\n", bytes: 14 });
});
test("another provider's text begins anew", () => {
  expect(all([output(0, "half an ans"), output(0, "whole", true)])).toMatchObject({ text: "whole", bytes: 5 });
});
test("of a long text the end is kept, and goes on", () => {
  const long = "é".repeat(200_000);
  const w = all([output(0, long), output(400_000, "end")]);
  expect(w.bytes).toBe(400_003);
  expect(w.text.length).toBeLessThan(140_000);
  expect(w.text).toMatch(/^é+end$/);
});
test("a log that begins elsewhere is read from its beginning", () => {
  expect(all([state(9, "INPROGRESS"), { event: "reset", data: { first_seq: 1, last_seq: 4 } }]).seq).toBe(0);
});
test("what is not known is no reason to stop", () => {
  expect(all([{ event: "artifact", id: 5, data: {} }, output(0, "x")])).toMatchObject({ seq: 5, text: "x" });
});
test("who was asked is told in order", () => {
  expect(attemptsOf({ key: "b", attempts: [{ key: "a", class: "rate_limited", ms: 1200 }, { key: "b", class: "ok" }, null, { class: "ok" }] })).toEqual([
    { key: "a", ok: false, text: `rate limited after ${(1200).toLocaleString()} ms` },
    { key: "b", ok: true, text: "answered" },
  ]);
  expect([attemptsOf(null), attemptsOf({}), attemptsOf({ attempts: "x" })]).toEqual([[], [], []]);
});
