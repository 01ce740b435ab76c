import type { SessionEvent } from "@/api/types";

/** What turns, states, tools and gates took of a session's time, out of the events that say so. */
export const FACT_TYPES = ["SESSION_CREATED", "SESSION_STATE_CHANGED", "SESSION_ENDED", "TURN_STARTED", "TURN_ENDED", "TOOL_CALL", "TOOL_RESULT", "APPROVAL_REQUESTED", "APPROVAL_RESOLVED", "CHECKPOINT_TAKEN", "PROVIDER_EVENT_FORWARDED"];

export interface Span {
  seq: number;
  from: number;
  /** undefined: it is still on. */
  to?: number;
  name: string;
  kind: string;
}
export interface Turn extends Span {
  promptId: string;
  state: string;
  tools: number;
  waited: number;
  cost?: number;
  used?: number;
  checkpoint?: number;
}
export interface Facts {
  from: number;
  to?: number;
  states: Span[];
  turns: Turn[];
  tools: Span[];
  gates: Span[];
  cost?: number;
}

const object = (v: unknown): Record<string, unknown> => (typeof v === "object" && v !== null ? (v as Record<string, unknown>) : {});
const text = (v: unknown) => (typeof v === "string" ? v : "");

export function factsOf(events: readonly SessionEvent[]): Facts {
  const facts: Facts = { from: events[0] ? Date.parse(events[0].timestamp) : 0, states: [], turns: [], tools: [], gates: [] };
  const tools = new Map<string, Span>();
  const gates = new Map<string, Span>();
  const turns = new Map<string, Turn>();
  let turn: Turn | undefined;
  for (const e of events) {
    const at = Date.parse(e.timestamp);
    const d = e.data;
    const state = e.type === "SESSION_CREATED" ? text(d.state) : e.type === "SESSION_STATE_CHANGED" ? text(d.newState) : e.type === "SESSION_ENDED" ? text(d.finalState) : "";
    if (state) {
      const last = facts.states.at(-1);
      if (last?.kind !== state) {
        if (last) last.to = at;
        facts.states.push({ seq: e.seq, from: at, name: state, kind: state });
      }
    }
    switch (e.type) {
      case "SESSION_ENDED":
        facts.to = at;
        for (const s of [facts.states.at(-1), ...facts.turns, ...facts.tools, ...facts.gates]) if (s) s.to ??= at;
        break;
      case "TURN_STARTED": {
        const id = text(d.promptId);
        turn = turns.get(id);
        if (turn) turn.to = undefined;
        else {
          turn = { seq: e.seq, from: at, name: `Turn ${facts.turns.length + 1}`, kind: "turn", promptId: id, state: "running", tools: 0, waited: 0 };
          turns.set(id, turn);
          facts.turns.push(turn);
        }
        break;
      }
      case "TURN_ENDED": {
        const ended = turns.get(text(d.promptId));
        if (!ended) break; // it was withdrawn before it began
        [ended.to, ended.state] = [at, text(d.state) || "done"];
        for (const t of tools.values()) t.to ??= at;
        break;
      }
      case "TOOL_CALL": {
        const tool: Span = { seq: e.seq, from: at, name: text(d.title) || text(d.toolName) || "tool", kind: text(d.kind) || "other" };
        tools.set(text(d.requestId), tool);
        facts.tools.push(tool);
        if (turn && !turn.to) turn.tools++;
        break;
      }
      case "TOOL_RESULT": {
        const tool = tools.get(text(d.requestId));
        if (tool) {
          tool.to = at;
          if (d.ok === false) tool.kind = "failed";
        }
        break;
      }
      case "APPROVAL_REQUESTED": {
        const a = object(d.approval);
        const gate: Span = { seq: e.seq, from: at, name: text(a.description) || text(a.action) || "gate", kind: "pending" };
        gates.set(text(a.approvalId), gate);
        facts.gates.push(gate);
        break;
      }
      case "APPROVAL_RESOLVED": {
        const gate = gates.get(text(d.approvalId));
        if (gate) {
          [gate.to, gate.kind] = [at, text(d.status)];
          if (turn && !turn.to) turn.waited += at - gate.from;
        }
        break;
      }
      case "CHECKPOINT_TAKEN": {
        const of = turns.get(text(d.turnId));
        if (of && typeof d.number === "number") of.checkpoint = d.number;
        break;
      }
      case "PROVIDER_EVENT_FORWARDED": {
        const event = object(d.providerEvent);
        const update = object(event.update);
        if (event.kind !== "usage_update") break;
        const cost = typeof update.cost === "number" ? update.cost : typeof object(update.cost).amount === "number" ? (object(update.cost).amount as number) : undefined;
        if (cost !== undefined) {
          // It is told of the session so far.
          if (turn && !turn.to) turn.cost = cost;
          facts.cost = Math.max(facts.cost ?? 0, cost);
        }
        if (turn && !turn.to && typeof update.used === "number") turn.used = update.used;
        break;
      }
    }
  }
  let before = 0;
  for (const t of facts.turns) {
    if (t.cost === undefined) continue;
    const now = t.cost;
    t.cost = Math.max(0, now - before);
    before = Math.max(before, now);
  }
  return facts;
}
