import { expect, it, vi } from "vitest";
import type { SessionEvent } from "@/api/types";
import type { Follower } from "@/live/client";
import { SessionLog } from "./log";

const event = (seq: number, type = "AGENT_MESSAGE", data: Record<string, unknown> = { text: `n${seq}` }): SessionEvent => ({ seq, type, timestamp: "2026-01-01T00:00:00Z", data });

/** A server with that many events of which the first `lost` are gone, and the socket. */
function server(count: number, lost = 0) {
  const all = Array.from({ length: count }, (_, i) => event(i + 1));
  const read = vi.fn(async (_id: string, after: number, limit: number) => {
    const events = all.filter((e) => e.seq > Math.max(after, lost)).slice(0, limit);
    return { events, firstSeq: lost + 1, lastSeq: all.length, hasMore: (events.at(-1)?.seq ?? all.length) < all.length, nextSeq: 0 };
  });
  let follower: Follower = {};
  let seq: number | null = null;
  const live = {
    follow: (_id: string, from: number | null, f: Follower) => {
      [follower, seq] = [f, from];
      return () => {};
    },
    watch: () => {},
  };
  return { all, read, live, say: (e: SessionEvent) => follower.event?.(e), delta: (data: object) => follower.message?.({ type: "session", action: "delta", data }), lose: (n: number) => follower.lost?.(n), from: () => seq };
}
const numbers = (log: SessionLog) => log.shown.events.map((e) => e.seq);
const settle = () => new Promise((go) => setTimeout(go, 60));

it("reads the end first, follows from there, and goes upwards page by page", async () => {
  const s = server(1200);
  const log = new SessionLog("s", s.read);
  await log.start(s.live, 1200);
  expect([numbers(log)[0], numbers(log).at(-1), log.shown.whole, s.from()]).toEqual([701, 1200, false, 1200]);
  await Promise.all([log.earlier(), log.earlier()]);
  await log.earlier();
  await log.earlier();
  expect(numbers(log)).toEqual(s.all.map((e) => e.seq));
  expect(log.shown.whole).toBe(true);
  expect(s.read).toHaveBeenCalledTimes(3);
});
it("ends where the log is kept from", async () => {
  const s = server(100, 40);
  const log = new SessionLog("s", s.read);
  await log.start(s.live, 100);
  expect([numbers(log)[0], log.shown.whole, log.shown.oldest]).toEqual([41, true, 41]);
});
it("reads what is missing before it takes what came after", async () => {
  const s = server(10);
  const log = new SessionLog("s", s.read);
  await log.start(s.live, 10);
  const told: number[] = [];
  log.onEvent((e) => told.push(e.seq));
  s.say(event(11));
  s.say(event(11));
  s.all.push(...Array.from({ length: 20 }, (_, i) => event(i + 11)));
  s.say(event(29));
  s.say(event(30));
  await settle();
  expect(numbers(log)).toEqual(Array.from({ length: 30 }, (_, i) => i + 1));
  expect(told).toEqual(Array.from({ length: 20 }, (_, i) => i + 11));
});
it("appends what is being said, without repetition, until it is in the log", async () => {
  const s = server(1);
  const log = new SessionLog("s", s.read);
  await log.start(s.live, 1);
  for (const [offset, content] of [[0, "Grü"], [4, "ße"], [4, "ße, "], [9, "du"]] as const) s.delta({ turnId: "t", kind: "text", offset, content });
  s.delta({ turnId: "t", kind: "thought", offset: 0, content: "hm" });
  await settle();
  expect(log.shown.saying.map((w) => [w.thought, w.text])).toEqual([[false, "Grüße, du"], [true, "hm"]]);
  s.say(event(2, "AGENT_MESSAGE", { kind: "text", turnId: "t", text: "Grüße, du" }));
  await settle();
  expect(log.shown.saying.map((w) => w.text)).toEqual(["hm"]);
});
it("begins anew where the log was cut", async () => {
  const s = server(10);
  const log = new SessionLog("s", s.read);
  await log.start(s.live, 10);
  s.lose(50);
  s.say(event(50));
  await settle();
  expect(numbers(log)).toEqual([50]);
});
it("reaches an event however far up", async () => {
  const s = server(5000);
  const log = new SessionLog("s", s.read);
  await log.start(s.live, 5000);
  expect(await log.reach(17)).toBe(true);
  expect(numbers(log)[0]).toBeLessThanOrEqual(17);
});
it("begins again when it was stopped while it read", async () => {
  const s = server(100);
  const log = new SessionLog("s", s.read);
  const first = log.start(s.live, 100);
  log.stop();
  await Promise.all([first, log.start(s.live, 100)]);
  expect([numbers(log).length, log.shown.ready, log.shown.loading]).toEqual([100, true, false]);
});
