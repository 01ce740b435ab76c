import type { Approval, SessionEvent } from "@/api/types";

/** What the log says, as people read it. Pure: the same events make the same items, in however many pieces they come (only the quiet
 * notes of two pieces stay two groups). */
interface Base {
  /** Stays the same whatever comes before or behind it. */
  key: string;
  seq: number;
  at: string;
}
export interface TaskItem extends Base {
  kind: "task";
}
export interface PromptItem extends Base {
  kind: "prompt";
  promptId: string;
  attempt: number;
  by?: string;
  state: "running" | "done" | "failed" | "cancelled";
  endedAt?: string;
}
export interface WordsItem extends Base {
  kind: "words";
  thought: boolean;
  text: string;
  turnId?: string;
  truncated?: boolean;
}
export interface ToolItem extends Base {
  kind: "tool";
  id: string;
  name: string;
  title: string;
  toolKind: string;
  turnId?: string;
  /** gone: its turn ended and nobody said what became of it. */
  state: "running" | "done" | "failed" | "gone";
  endedAt?: string;
  args?: unknown;
  paths: string[];
  touched: string[];
  result?: unknown;
  command?: string;
  cwd?: string;
  exitCode?: number | null;
  truncated?: boolean;
}
export interface PlanItem extends Base {
  kind: "plan";
  turnId?: string;
  entries: { text: string; status: string }[];
}
export interface DiffFile {
  path: string;
  oldPath?: string;
  status: string;
  additions: number;
  deletions: number;
}
export interface DiffItem extends Base {
  kind: "diff";
  files: DiffFile[];
  filesChanged: number;
  added: number;
  removed: number;
}
export interface GateItem extends Base {
  kind: "gate";
  gate: Approval & { options?: unknown; multiple?: boolean };
  resolved?: { status: string; by?: string; reason?: string; at: string };
}
export interface TurnEndItem extends Base {
  kind: "turnEnd";
  promptId?: string;
  state: "done" | "failed" | "cancelled";
  stopReason?: string;
  error?: string;
  startedAt?: string;
}
export interface EndItem extends Base {
  kind: "end";
  state: string;
  reason?: string;
  exitCode?: number;
  error?: string;
}
export interface AlertItem extends Base {
  kind: "alert";
  severity: "info" | "warn" | "error" | "critical";
  title: string;
  description: string;
}
export interface Note {
  seq: number;
  at: string;
  text: string;
  link?: string;
  /** A type that nobody here knows is shown as it came. */
  raw?: SessionEvent;
}
export interface NotesItem extends Base {
  kind: "notes";
  notes: Note[];
}
export type Item = TaskItem | PromptItem | WordsItem | ToolItem | PlanItem | DiffItem | GateItem | TurnEndItem | EndItem | AlertItem | NotesItem;

const MAX_NOTES = 50;
const LAST_TOOL = "last tool of the turn";
/** A plan of a turn whose beginning has not been read. */
const PLAN = "plan of the turn before";
const object = (v: unknown): Record<string, unknown> => (typeof v === "object" && v !== null && !Array.isArray(v) ? (v as Record<string, unknown>) : {});
const text = (v: unknown): string | undefined => (typeof v === "string" && v !== "" ? v : undefined);
const number = (v: unknown): number => (typeof v === "number" && Number.isFinite(v) ? v : 0);
const list = (v: unknown): unknown[] => (Array.isArray(v) ? v : []);
const words = (v: unknown) => list(v).filter((x): x is string => typeof x === "string");
const web = (v: unknown) => (typeof v === "string" && /^https?:\/\//i.test(v) ? v : undefined);
const SEVERITIES = ["info", "warn", "error", "critical"] as const;

const STATES: Record<string, string> = {
  CREATED: "created",
  QUEUED: "waits for a worker",
  PREPARING_WORKSPACE: "the workspace is prepared",
  STARTING_PROVIDER: "the agent is started",
  RUNNING: "running",
  WAITING_FOR_APPROVAL: "waits for a decision",
  PAUSED_BY_HUMAN: "paused",
  STOPPING: "stopping",
  COMPLETED: "completed",
  FAILED: "failed",
  TIMED_OUT: "timed out",
};
const stateName = (v: unknown) => STATES[String(v)] ?? String(v);
const terminal = (v: unknown) => (number(v) ? `Shell ${number(v)}` : "The agent's terminal");
const BOOT: Record<string, string> = { clone: "The repository is cloned", restore: "The checkpoint is unpacked", setup: "Set-up commands run", agent: "The agent is started" };

export function size(bytes: number): string {
  if (bytes < 1024) return `${bytes} bytes`;
  if (bytes < 1024 * 1024) return `${(bytes / 1024).toFixed(bytes < 10_240 ? 1 : 0)} KiB`;
  if (bytes < 1024 ** 3) return `${(bytes / 1024 ** 2).toFixed(1)} MiB`;
  return `${(bytes / 1024 ** 3).toFixed(2)} GiB`;
}

/** undefined: nothing to be said in a conversation; null: nobody here knows this type. */
function noteOf(e: SessionEvent): Pick<Note, "text" | "link"> | undefined | null {
  const d = e.data;
  switch (e.type) {
    case "SESSION_STATE_CHANGED": {
      const [from, to] = [text(d.previousState), text(d.newState)];
      const why = text(d.note) ?? text(d.message) ?? text(d.reason);
      const asked = from === "WAITING_FOR_APPROVAL" || to === "WAITING_FOR_APPROVAL";
      if ((from === to && !why) || (asked && !why && (from === "RUNNING" || to === "RUNNING"))) return undefined;
      return { text: `Session: ${stateName(to)}${why ? ` (${why.replaceAll("_", " ")})` : ""}` };
    }
    case "SESSION_STARTED":
      return { text: `${text(d.providerId) ?? "The agent"} ${text(d.providerVersion) ?? ""}`.trim() + (d.resumed ? " goes on with its conversation" : " is ready") };
    case "WORKSPACE_READY":
      return { text: `Workspace at ${text(d.branch) ?? "the commit"} ${(text(d.commit) ?? "").slice(0, 10)}`.trim() };
    case "CHECKPOINT_TAKEN":
      return { text: `Checkpoint ${number(d.number)}${d.bytes ? `, ${size(number(d.bytes))}` : ""}` };
    case "GIT_COMMIT":
      return { text: `Commit ${(text(d.sha) ?? "").slice(0, 10)} ${(text(d.message) ?? "").split("\n")[0] ?? ""}`.trim() };
    case "GIT_PUSH":
      return { text: `Pushed ${text(d.branch) ?? ""}${text(d.remote) ? ` to ${text(d.remote)}` : ""}` };
    case "PR_OPENED":
      return { text: `Pull request ${d.number ? `#${String(d.number)}` : ""} ${text(d.branch) ?? ""}`.trim(), link: web(d.url) };
    case "ARTIFACT_CREATED": {
      const data = object(d.data);
      return { text: `Artifact: ${text(data.title) ?? text(d.artifact_type) ?? "file"}`, link: web(data.url) };
    }
    case "FILE_TOUCHED":
      return { text: `${{ read: "Read", delete: "Deleted" }[String(d.reason)] ?? "Changed"} ${text(d.path) ?? "a file"}` };
    case "TEST_RUN_STARTED":
      return { text: `Tests: ${text(d.command) ?? ""}` };
    case "TEST_RUN_FINISHED":
      return { text: `Tests: ${number(d.passed)} passed, ${number(d.failed)} failed, ${number(d.skipped)} skipped` };
    case "TERMINAL_OPENED":
      return { text: `${terminal(d.terminal)} was opened` };
    case "TERMINAL_CLOSED":
      return { text: `${terminal(d.terminal)} was closed` };
    case "TERMINAL_GAP":
      return { text: `${size(number(d.to) - number(d.from))} of the terminal were not kept` };
    case "TERMINAL_INPUT":
      return { text: `Somebody typed into ${terminal(d.terminal).replace(/^T/, "t")}` };
    case "PROVIDER_EVENT_FORWARDED": {
      const kind = text(object(d.providerEvent).kind);
      if (kind === "usage_update" || kind === "current_mode_update") return undefined;
      if (d.type === "boot") return { text: `${BOOT[String(d.step)] ?? `Start: ${String(d.step)}`}${text(d.detail) ? `: ${text(d.detail)}` : ""}` };
      if (d.type === "exited") return { text: `The agent ended${text(d.message) ? `: ${text(d.message)}` : ""}` };
      return null;
    }
    case "USAGE_TICK":
    case "TURN_QUEUED":
    case "TURN_CHANGED":
      return undefined;
    default:
      return null;
  }
}

/** How a later event changes an item that is there already. */
type Change = (item: Item) => Item;
interface Late {
  key: string;
  change: Change;
}

export class Conversation {
  items: Item[] = [];
  /** Where an item is: its number, the first of `items` being `base`. */
  private at = new Map<string, number>();
  private base = 0;
  /** Of items that are in a piece which has not been read yet. */
  private late: Late[] = [];
  private running = new Map<string, Set<string>>();
  private lastDiff = "";
  /** The turn that is on, "" between two; undefined: it began before what has been read. */
  private turn: string | undefined;

  append(events: readonly SessionEvent[]): this {
    if (!events.length) return this;
    this.items = this.items.slice();
    for (const e of events) this.take(e);
    return this;
  }

  /** What was before everything that is there. */
  prepend(events: readonly SessionEvent[]): this {
    if (!events.length) return this;
    this.items = this.items.slice();
    const before = new Conversation().append(events);
    for (const l of this.late) before.change(l.key, l.change);
    // A plan that goes on over the border is one.
    const mine = this.items;
    const open = this.at.get(PLAN);
    if (open !== undefined && before.turn !== undefined) {
      const item = mine[open - this.base] as PlanItem;
      this.at.delete(PLAN);
      if (before.at.has(before.planName)) {
        before.change(before.planName, (old) => ({ ...old, entries: item.entries }) as PlanItem);
        this.drop(open);
      } else this.at.set(before.planName, open);
    } else if (open !== undefined && before.at.has(PLAN)) {
      const item = mine[open - this.base] as PlanItem;
      before.change(PLAN, (old) => ({ ...old, entries: item.entries }) as PlanItem);
      this.at.delete(PLAN);
      this.drop(open);
    }
    const whole = this.turn !== undefined;
    if (!whole) this.turn = before.turn;
    for (const [key, number] of before.at) {
      const end = key.startsWith("turn ") ? `end ${key.slice(5)}` : "";
      if (this.at.has(end)) this.change(end, (i) => ({ ...i, startedAt: before.items[number]!.at }) as TurnEndItem);
    }
    // A command whose call was not known yet is that call.
    for (const key of before.at.keys()) {
      const number = key.startsWith("tool ") ? this.at.get(key) : undefined;
      if (number === undefined) continue;
      const { key: _, seq, at, name, title, toolKind, args, paths, truncated, ...rest } = mine[number - this.base] as ToolItem;
      before.change(key, (old) => ({ ...old, ...rest }) as ToolItem);
      this.at.delete(key);
      this.drop(number);
    }
    const shift = this.base - before.items.length - before.base;
    for (const [key, number] of before.at) if (!this.at.has(key) && !(whole && key === LAST_TOOL)) this.at.set(key, number + shift);
    for (const [turn, tools] of before.running) this.running.set(turn, new Set([...tools, ...(this.running.get(turn) ?? [])]));
    this.items = before.items.concat(mine);
    this.base += -before.items.length;
    this.late = before.late;
    const ended = mine.some((i) => i.kind === "end");
    for (const turn of before.running.keys()) if (ended || (turn && this.at.has(`end ${turn}`))) this.gone(turn);
    return this;
  }

  private drop(number: number) {
    this.items.splice(number - this.base, 1);
    for (const [key, n] of this.at) if (n > number) this.at.set(key, n - 1);
  }

  private get planName() {
    return this.turn === undefined ? PLAN : `plan ${this.turn}`;
  }

  private add(item: Item, name?: string) {
    if (name) this.at.set(name, this.base + this.items.length);
    this.items.push(item);
  }

  /** Changes what has that name, now or as soon as it has been read. */
  private change(name: string, change: Change): boolean {
    const number = this.at.get(name);
    const old = number === undefined ? undefined : this.items[number - this.base];
    if (!old) {
      this.late.push({ key: name, change });
      return false;
    }
    this.items[number! - this.base] = change(old);
    return true;
  }

  private note(e: SessionEvent, note: Pick<Note, "text" | "link" | "raw">) {
    const one: Note = { seq: e.seq, at: e.timestamp, ...note };
    const last = this.items.at(-1);
    if (last?.kind === "notes" && last.notes.length < MAX_NOTES) this.items[this.items.length - 1] = { ...last, notes: [...last.notes, one] };
    else this.add({ kind: "notes", ...this.head(e), notes: [one] });
  }

  private head = (e: SessionEvent): Base => ({ key: `e${e.seq}`, seq: e.seq, at: e.timestamp });

  private take(e: SessionEvent) {
    const d = e.data;
    const head = this.head(e);
    const turnId = text(d.turnId);
    switch (e.type) {
      case "SESSION_CREATED":
        if (d.mode === "task") this.add({ kind: "task", ...head });
        else this.note(e, { text: "Session created" });
        return;
      case "TURN_STARTED":
        return this.turnStarted(e);
      case "TURN_ENDED":
        // It never began: somebody took it back, in the middle of another.
        if (d.state === "cancelled" && !d.outcome && !this.at.has(`turn ${String(d.promptId)}`)) return this.note(e, { text: "A prompt that waited was withdrawn" });
        return this.turnEnded(e, text(d.promptId));
      case "AGENT_MESSAGE":
        if (!text(d.text)) return;
        this.add({ kind: "words", ...head, thought: d.kind === "thought", text: String(d.text), turnId, truncated: d.truncated === true || undefined });
        return;
      case "TOOL_CALL":
        return this.tool(e, String(d.requestId), {
          name: text(d.toolName) ?? "tool",
          title: text(d.title) ?? text(d.toolName) ?? "Tool",
          toolKind: text(d.kind) ?? "other",
          args: d.args,
          paths: words(d.paths),
          truncated: d.truncated === true || undefined,
        });
      case "TOOL_RESULT":
        this.change(`tool ${String(d.requestId)}`, (i) => ({ ...i, state: d.ok === false ? "failed" : "done", endedAt: e.timestamp, result: d.result ?? d.summary }) as ToolItem);
        this.over(String(d.requestId));
        return;
      case "COMMAND_STARTED": {
        const id = String(d.commandId);
        const told = { command: text(d.command), cwd: text(d.cwd) };
        if (this.at.has(`tool ${id}`)) this.change(`tool ${id}`, (i) => ({ ...i, ...told }) as ToolItem);
        else this.tool(e, id, { name: "command", title: told.command ?? "Command", toolKind: "execute", ...told });
        return;
      }
      case "COMMAND_FINISHED":
        this.change(`tool ${String(d.commandId)}`, (i) => {
          const failed = d.ok === false || (typeof d.exitCode === "number" && d.exitCode !== 0);
          return { ...i, exitCode: (d.exitCode as number | null | undefined) ?? null, state: failed ? "failed" : "done", endedAt: (i as ToolItem).endedAt ?? e.timestamp } as ToolItem;
        });
        this.over(String(d.commandId));
        return;
      case "FILE_TOUCHED": {
        const path = text(d.path);
        const known = this.at.has(LAST_TOOL);
        if (path && (known || this.turn === undefined)) {
          this.change(LAST_TOOL, (i) => ((i as ToolItem).touched.includes(path) ? i : ({ ...i, touched: [...(i as ToolItem).touched, path].slice(0, 50) } as ToolItem)));
          return;
        }
        break;
      }
      case "DIFF_SUMMARY":
        return this.diff(e);
      case "APPROVAL_REQUESTED": {
        const gate = object(d.approval) as unknown as GateItem["gate"];
        this.add({ kind: "gate", ...head, gate: { ...gate, sessionId: text(d.sessionId) } }, `gate ${gate.approvalId}`);
        return;
      }
      case "APPROVAL_RESOLVED":
        this.change(`gate ${String(d.approvalId)}`, (i) => ({ ...i, resolved: { status: String(d.status), by: text(d.resolvedBy), reason: text(d.reason), at: e.timestamp } }) as GateItem);
        return;
      case "ALERT_RAISED": {
        const severity = SEVERITIES.find((s) => s === d.severity) ?? "warn";
        this.add({ kind: "alert", ...head, severity, title: text(d.title) ?? "", description: text(d.description) ?? "" });
        return;
      }
      case "SESSION_ENDED":
        this.add({ kind: "end", ...head, state: String(d.finalState), reason: text(d.reason), exitCode: typeof d.exitCode === "number" ? d.exitCode : undefined, error: text(object(d.error).message) ?? text(d.error) });
        for (const turn of this.running.keys()) this.gone(turn);
        return;
      case "PROVIDER_EVENT_FORWARDED": {
        const event = object(d.providerEvent);
        if (event.kind === "plan") return this.plan(e, object(event.update), turnId ?? text(event.turnId));
        if (typeof d.outcome === "string") return this.turnEnded(e, undefined); // the one turn of a task
        break;
      }
    }
    const said = noteOf(e);
    if (said) this.note(e, said);
    else if (said === null) this.note(e, { text: e.type, raw: e });
  }

  private turnStarted(e: SessionEvent) {
    const promptId = String(e.data.promptId);
    const attempt = number(e.data.attempt) || 1;
    this.at.delete(LAST_TOOL);
    this.turn = promptId;
    const name = `turn ${promptId}`;
    if (this.at.has(name)) {
      this.change(name, (i) => ({ ...i, attempt, state: "running", endedAt: undefined }) as PromptItem);
      this.note(e, { text: `The prompt is worked on again (attempt ${attempt})` });
    } else if (attempt > 1) {
      this.add({ kind: "prompt", ...this.head(e), promptId, attempt, state: "running" }, name);
    } else {
      this.add({ kind: "prompt", ...this.head(e), promptId, attempt, by: e.actor?.id, state: "running" }, name);
    }
  }

  private turnEnded(e: SessionEvent, promptId: string | undefined) {
    const said = text(e.data.state) ?? text(e.data.outcome);
    const state = said === "failed" || said === "cancelled" ? said : "done";
    let startedAt: string | undefined;
    if (promptId) {
      const number = this.at.get(`turn ${promptId}`);
      const prompt = number === undefined ? undefined : this.items[number - this.base];
      startedAt = prompt?.at;
      this.change(`turn ${promptId}`, (i) => ({ ...i, state, endedAt: e.timestamp }) as PromptItem);
    }
    this.gone(promptId ?? "");
    this.turn = "";
    this.at.delete(LAST_TOOL);
    const end: TurnEndItem = { kind: "turnEnd", ...this.head(e), promptId, state, stopReason: text(e.data.stopReason), error: text(e.data.error) ?? text(object(e.data.error).message), startedAt };
    this.add(end, promptId ? `end ${promptId}` : undefined);
  }

  private tool(e: SessionEvent, id: string, more: Partial<ToolItem> & Pick<ToolItem, "name" | "title" | "toolKind">) {
    const turnId = text(e.data.turnId);
    const name = `tool ${id}`;
    this.add({ kind: "tool", ...this.head(e), id, turnId, state: "running", paths: [], touched: [], ...more }, name);
    const turn = this.running.get(turnId ?? "") ?? new Set();
    this.running.set(turnId ?? "", turn.add(id));
    this.at.set(LAST_TOOL, this.at.get(name)!);
  }

  private over(id: string) {
    for (const tools of this.running.values()) tools.delete(id);
  }

  private gone(turn: string) {
    for (const id of this.running.get(turn) ?? []) this.change(`tool ${id}`, (i) => ((i as ToolItem).state === "running" ? ({ ...i, state: "gone" } as ToolItem) : i));
    this.running.delete(turn);
  }

  private plan(e: SessionEvent, update: Record<string, unknown>, turnId: string | undefined) {
    const entries = list(update.entries).map((x) => ({ text: text(object(x).content) ?? "", status: text(object(x).status) ?? "pending" }));
    if (!entries.length) return;
    // One plan of a turn, however often it is told.
    if (this.at.has(this.planName)) this.change(this.planName, (i) => ({ ...i, entries }) as PlanItem);
    else this.add({ kind: "plan", ...this.head(e), turnId, entries }, this.planName);
  }

  private diff(e: SessionEvent) {
    const d = e.data;
    const files = list(d.files).map((f): DiffFile => {
      const o = object(f);
      return { path: text(o.path) ?? "?", oldPath: text(o.oldPath), status: text(o.status) ?? "modified", additions: number(o.additions), deletions: number(o.deletions) };
    });
    const shape = JSON.stringify([d.filesChanged, d.linesAdded, d.linesRemoved, files]);
    if (shape === this.lastDiff || (!files.length && !number(d.filesChanged) && !this.lastDiff)) return;
    this.lastDiff = shape;
    this.add({ kind: "diff", ...this.head(e), files, filesChanged: number(d.filesChanged), added: number(d.linesAdded), removed: number(d.linesRemoved) });
  }
}

export const conversation = (events: readonly SessionEvent[]): Item[] => new Conversation().append(events).items;
