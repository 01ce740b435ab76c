import { expect, it } from "vitest";
import type { SessionEvent } from "@/api/types";
import { Conversation, conversation, type Item } from "./conversation";

let seq = 0;
const event = (type: string, data: Record<string, unknown> = {}): SessionEvent => ({ seq: ++seq, type, timestamp: new Date(seq * 1000).toISOString(), data });
const approval = (id: string, more = {}) => ({ sessionId: "s", approval: { approvalId: id, kind: "approval", status: "pending", context: { callID: "c2" }, ...more } });

function log(): SessionEvent[] {
  seq = 0;
  return [
    event("SESSION_CREATED", { mode: "interactive" }),
    event("SESSION_STATE_CHANGED", { previousState: "QUEUED", newState: "PREPARING_WORKSPACE" }),
    event("PROVIDER_EVENT_FORWARDED", { type: "boot", step: "clone" }),
    event("WORKSPACE_READY", { commit: "abcdef0123456", branch: "main" }),
    event("TURN_QUEUED", { promptId: "t1" }),
    event("TURN_STARTED", { promptId: "t1", attempt: 1 }),
    event("AGENT_MESSAGE", { kind: "thought", text: "Hm.", turnId: "t1" }),
    event("AGENT_MESSAGE", { kind: "text", text: "I read it.", turnId: "t1" }),
    event("TOOL_CALL", { requestId: "c1", toolName: "read", title: "Read a.c", kind: "read", paths: ["a.c"], turnId: "t1" }),
    event("TOOL_RESULT", { requestId: "c1", ok: true, result: "int x;" }),
    event("PROVIDER_EVENT_FORWARDED", { providerEvent: { kind: "plan", update: { entries: [{ content: "one", status: "pending" }] } } }),
    event("TOOL_CALL", { requestId: "c2", toolName: "bash", kind: "execute", turnId: "t1" }),
    event("COMMAND_STARTED", { commandId: "c2", command: "make", cwd: "/workspace", turnId: "t1" }),
    event("APPROVAL_REQUESTED", approval("g1")),
    event("SESSION_STATE_CHANGED", { previousState: "RUNNING", newState: "WAITING_FOR_APPROVAL" }),
    event("APPROVAL_RESOLVED", { approvalId: "g1", status: "allowed", resolvedBy: "user:ann", reason: "fine" }),
    event("SESSION_STATE_CHANGED", { previousState: "WAITING_FOR_APPROVAL", newState: "RUNNING" }),
    event("COMMAND_FINISHED", { commandId: "c2", exitCode: 2, ok: false }),
    event("TOOL_RESULT", { requestId: "c2", ok: false, result: "no rule" }),
    event("FILE_TOUCHED", { path: "a.o", reason: "write" }),
    event("PROVIDER_EVENT_FORWARDED", { providerEvent: { kind: "plan", update: { entries: [{ content: "one", status: "completed" }] } } }),
    event("TOOL_CALL", { requestId: "c3", toolName: "grep", kind: "search", turnId: "t1" }),
    event("USAGE_TICK", { units: 1 }),
    event("DIFF_SUMMARY", { filesChanged: 1, linesAdded: 2, linesRemoved: 0, files: [{ path: "a.o", status: "added", additions: 2, deletions: 0 }] }),
    event("TURN_ENDED", { promptId: "t1", state: "done", stopReason: "end_turn" }),
    event("CHECKPOINT_TAKEN", { number: 1, bytes: 57152, turnId: "t1" }),
    event("SOMETHING_NEW", { a: 1 }),
    event("ALERT_RAISED", { severity: "critical", title: "Keys", description: "can be read" }),
    event("SESSION_ENDED", { finalState: "COMPLETED", reason: "finished", exitCode: 0 }),
  ];
}
const of = <K extends Item["kind"]>(items: Item[], kind: K) => items.filter((i): i is Extract<Item, { kind: K }> => i.kind === kind);

it("makes a turn of its events, each thing in its place", () => {
  const items = conversation(log());
  expect(items.map((i) => i.kind)).toEqual(["notes", "prompt", "words", "words", "tool", "plan", "tool", "gate", "tool", "diff", "turnEnd", "notes", "alert", "end"]);
  expect(of(items, "prompt")[0]).toMatchObject({ promptId: "t1", state: "done" });
  expect(of(items, "turnEnd")[0]).toMatchObject({ startedAt: new Date(6000).toISOString(), stopReason: "end_turn" });
  expect(of(items, "words").map((w) => w.thought)).toEqual([true, false]);
});
it("folds a call, its command, its files and its result into one", () => {
  expect(of(conversation(log()), "tool")).toMatchObject([
    { id: "c1", state: "done", result: "int x;", paths: ["a.c"] },
    { id: "c2", state: "failed", command: "make", exitCode: 2, result: "no rule", touched: ["a.o"] },
    { id: "c3", state: "gone" },
  ]);
});
it("does not take a withdrawn prompt for the end of the turn that is on", () => {
  const events = log();
  events.splice(10, 0, event("TURN_ENDED", { promptId: "t9", state: "cancelled" }));
  const items = conversation(events);
  expect(of(items, "turnEnd")).toHaveLength(1);
  expect(of(items, "tool")[0]).toMatchObject({ id: "c1", state: "done" });
  expect(of(items, "notes").flatMap((n) => n.notes).map((n) => n.text)).toContain("A prompt that waited was withdrawn");
});
it("keeps a plan in its place as it goes on", () => expect(of(conversation(log()), "plan")).toMatchObject([{ entries: [{ text: "one", status: "completed" }] }]));
it("says of a gate what became of it", () => expect(of(conversation(log()), "gate")[0]).toMatchObject({ gate: { approvalId: "g1", sessionId: "s" }, resolved: { status: "allowed", by: "user:ann", reason: "fine" } }));
it("shows a type that it does not know as it came", () => {
  const notes = of(conversation(log()), "notes").flatMap((n) => n.notes);
  expect(notes.find((n) => n.text === "SOMETHING_NEW")?.raw?.data).toEqual({ a: 1 });
  expect(notes.map((n) => n.text)).not.toContain("USAGE_TICK");
});
it("survives data of any shape", () => {
  seq = 0;
  const odd = [null, 1, "x", [], {}, { entries: 1 }];
  const types = [...new Set(log().map((e) => e.type))];
  const events = types.flatMap((t) => odd.map((v) => event(t, { data: v, approval: v, files: v, providerEvent: v, text: v, paths: v, error: v, promptId: v, requestId: v }) as SessionEvent));
  expect(() => conversation(events)).not.toThrow();
});

/** Notes as if they were never grouped. */
const flat = (items: Item[]) => items.flatMap((i): unknown[] => (i.kind === "notes" ? i.notes : [i]));

it("is the same in however many pieces it comes, forwards and backwards", () => {
  const events = log();
  const whole = flat(conversation(events));
  for (let cut = 0; cut <= events.length; cut++) {
    const [a, b] = [events.slice(0, cut), events.slice(cut)];
    expect(flat(new Conversation().append(a).append(b).items), `append at ${cut}`).toEqual(whole);
    expect(flat(new Conversation().append(b).prepend(a).items), `prepend at ${cut}`).toEqual(whole);
  }
  const c = new Conversation();
  for (const e of events.toReversed()) c.prepend([e]);
  expect(flat(c.items)).toEqual(whole);
});
it("leaves what somebody holds already as it is", () => {
  const c = new Conversation().append(log().slice(0, 9));
  const before = c.items;
  const tool = before.find((i) => i.kind === "tool");
  c.append(log().slice(9));
  expect(before.find((i) => i.kind === "tool")).toBe(tool);
  expect(tool).toMatchObject({ state: "running" });
});
it("takes 50,000 events, and one more at once", () => {
  seq = 0;
  const events = Array.from({ length: 25_000 }, (_, i) => [
    event("TOOL_CALL", { requestId: `c${i}`, toolName: "read", kind: "read", turnId: "t" }),
    event("TOOL_RESULT", { requestId: `c${i}`, ok: true, result: "x" }),
  ]).flat();
  const c = new Conversation();
  const began = performance.now();
  for (let end = events.length; end > 0; end -= 1000) c.prepend(events.slice(Math.max(0, end - 1000), end));
  const read = performance.now() - began;
  expect(c.items).toHaveLength(25_000);
  const one = performance.now();
  c.append([event("AGENT_MESSAGE", { text: "hello" })]);
  expect(performance.now() - one).toBeLessThan(20);
  expect(read).toBeLessThan(3000);
});
