import { describe, expect, it } from "vitest";
import { backoff } from "./backoff";
import { type Effect, type Input, START, type State, step } from "./machine";

function run(from: State, ...inputs: Input[]): { state: State; effects: Effect[] } {
  let state = from;
  let effects: Effect[] = [];
  for (const input of inputs) [state, effects] = step(state, input);
  return { state, effects };
}
const lost = (code = 1006): Input => ({ type: "closed", code, random: 0 });
const open = run(START, { type: "start" }, { type: "opened" }).state;
const follow = (seq: number | null): Input => ({ type: "follow", id: "ses_1", seq });
const sends = (effects: Effect[], type: string) => effects.filter((e) => e.do === "send" && e.message.type === type).map((e) => (e.do === "send" ? e.message : {}));

describe("the connection", () => {
  it("opens a socket and asks for the org's feed, without reading again the first time", () => {
    expect(run(START, { type: "start" }).effects).toEqual([{ do: "open" }]);
    const { state, effects } = run(START, { type: "start" }, { type: "opened" });
    expect(state).toMatchObject({ transport: "ws", phase: "open", org: "asked", before: true });
    expect(effects).toEqual([{ do: "send", message: { type: "subscribe_org", messageId: "sub-org" } }]);
  });

  it("waits longer with every failure, and begins anew when it has worked", () => {
    const one = run(open, lost());
    expect(one.effects).toEqual([{ do: "wait", ms: 250 }]);
    const two = run(one.state, { type: "wait_over" }, lost());
    expect(two.effects).toEqual([{ do: "wait", ms: 500 }]);
    const again = run(two.state, { type: "wait_over" }, { type: "opened" }, lost());
    expect(again.effects).toEqual([{ do: "wait", ms: 250 }]);
  });

  it("comes back when the server said it would be there", () => {
    expect(run(open, { type: "closed", code: 1001, random: 0.5, reconnectAfterMs: 4000 }).effects).toEqual([{ do: "wait", ms: 4000 }]);
  });

  it("goes on at the last event that was handed on, and reads the lists again", () => {
    const { effects } = run(open, follow(7), { type: "seen", id: "ses_1", seq: 9 }, lost(), { type: "wait_over" }, { type: "opened" });
    expect(sends(effects, "subscribe_session")).toEqual([{ type: "subscribe_session", messageId: "sub-ses_1", sessionId: "ses_1", terminal: false, binary: true, usage: true, sinceSeq: 9 }]);
    expect(effects.at(-1)).toEqual({ do: "reread" });
  });

  it("names the place in the terminal too", () => {
    const { effects } = run(open, { type: "follow", id: "ses_1", seq: 3, terminal: 0 }, { type: "bytes", id: "ses_1", end: 4096 }, lost(), { type: "wait_over" }, { type: "opened" });
    expect(sends(effects, "subscribe_session")[0]).toMatchObject({ terminal: 0, terminalOffset: 4096, sinceSeq: 3 });
  });

  it("asks for a further terminal by its number, and for each again where it was", () => {
    const watching = run(open, follow(3), { type: "watch", id: "ses_1", terminal: 0, offset: null }, { type: "watch", id: "ses_1", terminal: 2, offset: 100 });
    expect(sends(watching.effects, "subscribe_session")).toEqual([{ type: "subscribe_session", messageId: "term-ses_1-2", sessionId: "ses_1", terminal: 2, terminalOffset: 100 }]);
    expect(run(watching.state, { type: "watch", id: "ses_1", terminal: 2, offset: null }).effects).toEqual([]);
    const { effects } = run(watching.state, { type: "bytes", id: "ses_1", terminal: 2, end: 900 }, lost(), { type: "wait_over" }, { type: "opened" });
    expect(sends(effects, "subscribe_session")).toMatchObject([
      { terminal: 0, binary: true, sinceSeq: 3 },
      { terminal: 2, terminalOffset: 900 },
    ]);
  });

  it("never goes back in the log", () => {
    const { state } = run(open, follow(7), { type: "seen", id: "ses_1", seq: 9 }, { type: "seen", id: "ses_1", seq: 8 });
    expect(state.follows.ses_1?.seq).toBe(9);
  });

  it("goes on from the oldest when the log was cut", () => {
    const { state } = run(open, follow(7), { type: "lost", id: "ses_1", oldest: 40 });
    expect(state.follows.ses_1?.seq).toBe(39);
  });

  it("follows nothing that nobody wants any more", () => {
    const { state, effects } = run(open, follow(1), { type: "unfollow", id: "ses_1" });
    expect(state.follows).toEqual({});
    expect(sends(effects, "unsubscribe_session")).toHaveLength(1);
    expect(run(state, { type: "unfollow", id: "ses_1" }).effects).toEqual([]);
  });

  it("asks who is signed in when the credential is over, and tries no more", () => {
    const { state, effects } = run(open, lost(4401));
    expect(effects).toEqual([{ do: "who" }]);
    expect(run(state, { type: "wake" }, { type: "wait_over" }).effects).toEqual([]);
  });

  it("wakes at once when the network is back", () => {
    expect(run(open, lost(), { type: "wake" }).effects).toEqual([{ do: "open" }]);
    expect(run(open, { type: "wake" }).effects).toEqual([]);
  });

  it("keeps a server without the org's feed apart from one that has it", () => {
    expect(run(open, { type: "org_refused" }).state.org).toBe("absent");
    expect(run(open, { type: "org_live" }).state.org).toBe("live");
  });
});

describe("without a socket", () => {
  const started = run(START, { type: "start" }, follow(5)).state;
  const away = run(started, lost(), { type: "wait_over" }, lost(), { type: "wait_over" }, lost());
  const reached = (yes: boolean): Input => ({ type: "reachable", yes, random: 0 });
  const streaming = run(away.state, reached(true));

  it("looks after three tries whether the server is there, and goes on trying", () => {
    expect(away.effects).toEqual([{ do: "wait", ms: 1000 }, { do: "probe" }]);
    expect(run(away.state, reached(false)).state).toBe(away.state);
    expect(run(open, reached(true)).effects).toEqual([]);
  });

  it("waits like at the beginning when the server goes away", () => {
    const { state, effects } = run(streaming.state, reached(false));
    expect(state).toMatchObject({ transport: "ws", phase: "waiting" });
    expect(effects).toEqual([{ do: "end_stream", id: "ses_1" }, { do: "poll", on: false }, { do: "wait", ms: 250 }]);
  });

  it("streams when it is, from where it was, and tries the socket again later", () => {
    expect(streaming.state).toMatchObject({ transport: "sse", phase: "open" });
    expect(streaming.effects).toEqual([{ do: "stream", id: "ses_1", seq: 5, ms: 0 }, { do: "poll", on: false }, { do: "socket_later", ms: 60_000 }]);
  });

  it("streams at once when it has too many sockets", () => {
    expect(run(open, follow(1), lost(4429)).state.transport).toBe("sse");
  });

  it("reads now and then when streams do not come either", () => {
    const failed: Input = { type: "stream_failed", id: "ses_1", random: 0 };
    const once = run(streaming.state, { type: "seen", id: "ses_1", seq: 6 }, failed);
    expect(once.effects).toEqual([{ do: "stream", id: "ses_1", seq: 6, ms: backoff(1, 0) }]);
    const { state, effects } = run(once.state, failed, failed);
    expect(state.transport).toBe("poll");
    expect(effects).toContainEqual({ do: "poll", on: true });
    expect(effects).toContainEqual({ do: "probe" });
    expect(effects).toContainEqual({ do: "end_stream", id: "ses_1" });
  });

  it("forgets failures when a stream works", () => {
    const failed: Input = { type: "stream_failed", id: "ses_1", random: 0 };
    expect(run(streaming.state, failed, failed, { type: "stream_ok", id: "ses_1" }, failed).state.transport).toBe("sse");
  });

  it("goes back to the socket as soon as it opens", () => {
    const trying = run(streaming.state, { type: "try_socket" });
    expect(trying.effects).toEqual([{ do: "open" }]);
    expect(run(trying.state, lost()).effects).toEqual([{ do: "socket_later", ms: 60_000 }, { do: "probe" }]);
    const { state, effects } = run(trying.state, { type: "opened" });
    expect(state).toMatchObject({ transport: "ws", org: "asked" });
    expect(effects).toContainEqual({ do: "end_stream", id: "ses_1" });
    expect(sends(effects, "subscribe_session")[0]).toMatchObject({ sinceSeq: 5 });
  });

  it("ends everything when it is stopped, and a late close changes nothing", () => {
    const { state, effects } = run(streaming.state, { type: "stop" });
    expect(effects).toEqual([{ do: "close" }, { do: "poll", on: false }, { do: "end_stream", id: "ses_1" }]);
    expect(run(state, lost()).state).toBe(state);
    expect(run(state, { type: "opened" }).effects).toEqual([{ do: "close" }]);
  });
});

describe("backoff", () => {
  it("doubles up to half a minute, with at least half of it", () => {
    expect([0, 1, 2, 3].map((n) => backoff(n, 1))).toEqual([500, 1000, 2000, 4000]);
    expect(backoff(50, 1)).toBe(30_000);
    expect(backoff(50, 0)).toBe(15_000);
  });
});
