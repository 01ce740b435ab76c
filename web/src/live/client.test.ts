import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { SessionEvent } from "@/api/types";
import { Live } from "./client";

class Socket {
  static all: Socket[] = [];
  readyState = 1;
  sent: Record<string, unknown>[] = [];
  onmessage: ((e: { data: string }) => void) | null = null;
  onclose: ((e: { code: number }) => void) | null = null;
  constructor() {
    Socket.all.push(this);
  }
  send(text: string) {
    this.sent.push(JSON.parse(text));
  }
  close() {
    this.readyState = 3;
  }
  say(message: object) {
    this.onmessage?.({ data: JSON.stringify(message) });
  }
  cut(code = 1006) {
    this.readyState = 3;
    this.onclose?.({ code });
  }
}
const last = () => Socket.all.at(-1)!;
const authenticated = { type: "event", event: "authenticated", data: {} };
const event = (seq: number, eventType = "AGENT_MESSAGE") => ({ type: "session", action: "event", sessionId: "s", seq, timestamp: "t", data: { eventType, payload: { n: seq } } });

let live: Live;
const around = { socket: () => new Socket() as unknown as WebSocket, reread: vi.fn(), signedOut: vi.fn() };

beforeEach(() => {
  vi.useFakeTimers();
  Socket.all = [];
  vi.clearAllMocks();
  live = new Live(around);
  live.start();
});
afterEach(() => {
  live.stop();
  vi.useRealTimers();
});

it("hands every event on once and in order over a lost connection", () => {
  const got: number[] = [];
  last().say(authenticated);
  live.follow("s", 2, { event: (e: SessionEvent) => got.push(e.seq) });
  expect(last().sent.at(-1)).toMatchObject({ type: "subscribe_session", sessionId: "s", sinceSeq: 2 });
  last().say(event(3));
  last().say(event(4));
  last().cut();
  vi.advanceTimersByTime(1000);
  expect(Socket.all).toHaveLength(2);
  last().say(authenticated);
  expect(last().sent).toContainEqual(expect.objectContaining({ type: "subscribe_session", sinceSeq: 4 }));
  last().say(event(4));
  last().say(event(5));
  expect(got).toEqual([3, 4, 5]);
  expect(around.reread).toHaveBeenCalledTimes(1);
});

it("follows for as long as one of several wants it", () => {
  last().say(authenticated);
  const first = live.follow("s", null, {});
  const second = live.follow("s", null, {});
  expect(last().sent.filter((m) => m.type === "subscribe_session")).toHaveLength(1);
  first();
  expect(last().sent.some((m) => m.type === "unsubscribe_session")).toBe(false);
  second();
  expect(last().sent.some((m) => m.type === "unsubscribe_session")).toBe(true);
});

it("tells what is not kept any more and goes on behind it", () => {
  const lost = vi.fn();
  const got: number[] = [];
  last().say(authenticated);
  live.follow("s", 2, { lost, event: (e) => got.push(e.seq) });
  last().say({ type: "error", code: "REPLAY_UNAVAILABLE", replyTo: "sub-s", details: { oldestSeq: 50, latestSeq: 60 } });
  last().say(event(50));
  expect(lost).toHaveBeenCalledWith(50);
  expect(got).toEqual([50]);
});

it("reads lists again on its own where the server has no feed of the org", () => {
  last().say(authenticated);
  last().say({ type: "error", code: "UNKNOWN_MESSAGE_TYPE", replyTo: "sub-org" });
  expect(live.state.org).toBe("absent");
});

it("lets the org's feed keep the lists where there is one", () => {
  const seen: string[] = [];
  live.onFeed((m) => seen.push(m.type));
  last().say(authenticated);
  last().say({ type: "event", event: "subscribed", replyTo: "sub-org", data: { orgId: "o" } });
  expect(live.state.org).toBe("live");
  last().say({ type: "runner_status", runnerId: "r", status: "online" });
  expect(seen).toContain("runner_status");
});

it("drops a connection that is silent", () => {
  last().say(authenticated);
  vi.advanceTimersByTime(80_000);
  expect(last().sent.filter((m) => m.type === "ping").length + Socket.all[0]!.sent.filter((m) => m.type === "ping").length).toBeGreaterThan(1);
  expect(Socket.all.length).toBeGreaterThan(1);
});

it("asks who is signed in when the credential is over", () => {
  last().say(authenticated);
  last().cut(4401);
  vi.advanceTimersByTime(120_000);
  expect(around.signedOut).toHaveBeenCalledTimes(1);
  expect(Socket.all).toHaveLength(1);
});

it("hands the bytes of a terminal on, and goes on behind them", () => {
  const got: unknown[] = [];
  last().say(authenticated);
  const id = "ses_01020304-0506-0708-090a-0b0c0d0e0f10";
  live.follow(id, 0, { bytes: (terminal, offset, bytes) => got.push([terminal, offset, new TextDecoder().decode(bytes)]) });
  live.watch(id, 1, null);
  const head = [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, ...Array.from({ length: 16 }, (_, i) => i + 1)];
  last().onmessage?.({ data: new Uint8Array([...head, 104, 105]).buffer as never });
  last().onmessage?.({ data: new Uint8Array([1, 1]).buffer as never });
  expect(got).toEqual([[1, 2 ** 32, "hi"]]);
  last().cut();
  vi.advanceTimersByTime(1000);
  last().say(authenticated);
  expect(last().sent).toContainEqual(expect.objectContaining({ type: "subscribe_session", terminal: 1, terminalOffset: 2 ** 32 + 2, binary: true }));
});
