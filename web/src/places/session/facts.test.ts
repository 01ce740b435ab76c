import { expect, it } from "vitest";
import type { SessionEvent } from "@/api/types";
import { factsOf } from "./facts";

let seq = 0;
const event = (second: number, type: string, data: Record<string, unknown> = {}): SessionEvent => ({ seq: ++seq, type, timestamp: new Date(second * 1000).toISOString(), data });
const cost = (n: number) => ({ providerEvent: { kind: "usage_update", update: { used: 10, cost: n } } });

it("says what took how long", () => {
  const f = factsOf([
    event(0, "SESSION_CREATED", { state: "QUEUED" }),
    event(1, "SESSION_STATE_CHANGED", { newState: "QUEUED" }),
    event(5, "SESSION_STATE_CHANGED", { newState: "RUNNING" }),
    event(6, "TURN_STARTED", { promptId: "a" }),
    event(7, "TOOL_CALL", { requestId: "1", toolName: "bash" }),
    event(8, "APPROVAL_REQUESTED", { approval: { approvalId: "g", description: "May I?" } }),
    event(18, "APPROVAL_RESOLVED", { approvalId: "g", status: "denied" }),
    event(19, "TOOL_RESULT", { requestId: "1", ok: false }),
    event(19, "PROVIDER_EVENT_FORWARDED", cost(0.5)),
    event(20, "TURN_ENDED", { promptId: "a", state: "done" }),
    event(21, "CHECKPOINT_TAKEN", { turnId: "a", number: 1 }),
    event(30, "TURN_STARTED", { promptId: "b" }),
    event(31, "TOOL_CALL", { requestId: "2", toolName: "read" }),
    event(32, "PROVIDER_EVENT_FORWARDED", cost(0.75)),
    event(40, "SESSION_ENDED", { finalState: "FAILED" }),
  ]);
  expect(f.states.map((s) => [s.kind, s.from, s.to])).toEqual([
    ["QUEUED", 0, 5000],
    ["RUNNING", 5000, 40_000],
    ["FAILED", 40_000, 40_000],
  ]);
  expect(f.turns).toMatchObject([
    { from: 6000, to: 20_000, state: "done", tools: 1, waited: 10_000, cost: 0.5, checkpoint: 1 },
    { from: 30_000, to: 40_000, tools: 1, cost: 0.25 },
  ]);
  expect(f.tools.map((t) => [t.kind, t.to])).toEqual([["failed", 19_000], ["other", 40_000]]);
  expect(f.gates).toMatchObject([{ kind: "denied", from: 8000, to: 18_000 }]);
  expect(f).toMatchObject({ from: 0, to: 40_000, cost: 0.75 });
});
it("has nothing of nothing", () => expect(factsOf([])).toMatchObject({ turns: [], states: [] }));
