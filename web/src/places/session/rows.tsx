import { Link } from "@tanstack/react-router";
import { AlertTriangle, Brain, Check, ChevronRight, CircleDashed, CircleSlash, FileText, Flag, Globe, Info, ListTodo, Loader, MessageCircleQuestion, Pencil, Search, ShieldCheck, ShieldX, SquareTerminal, Trash2, User, Wrench, X } from "lucide-react";
import { memo, type ReactNode, useState } from "react";
import type { Approval, SessionDetail } from "@/api/types";
import { GateCard } from "@/places/gates/card";
import { exactOf } from "@/places/gates/exact";
import { endText } from "@/places/sessions/words";
import { stateText } from "@/ui/badge";
import { cx } from "@/ui/cx";
import { CodeText, visible, visibleName } from "@/ui/text";
import { Time } from "@/ui/time";
import { duration } from "@/ui/time-format";
import type { AlertItem, DiffItem, EndItem, GateItem, Item, NotesItem, PlanItem, PromptItem, ToolItem, TurnEndItem, WordsItem } from "./conversation";
import { Words } from "./markdown";

/** What the rows know beyond the log. */
export interface Around {
  session: SessionDetail;
  prompts: ReadonlyMap<string, string>;
  task: string;
  /** The gate that the keys a and d mean. */
  first: string | undefined;
  viewer: boolean;
}

const LONG = 20_000;
const lasted = (from: string | undefined, to: string | undefined) => (from && to ? duration(Date.parse(to) - Date.parse(from)) : "");

export const Row = memo(function Row({ item, around }: { item: Item; around: Around }) {
  switch (item.kind) {
    case "task":
      return <Said who="The task" at={item.at} seq={item.seq} text={around.task} />;
    case "prompt":
      return <PromptRow item={item} text={around.prompts.get(item.promptId)} />;
    case "words":
      return <WordsRow item={item} />;
    case "tool":
      return <ToolRow item={item} id={around.session.sessionId} />;
    case "plan":
      return <PlanRow item={item} />;
    case "diff":
      return <DiffRow item={item} id={around.session.sessionId} />;
    case "gate":
      return <GateRow item={item} around={around} />;
    case "turnEnd":
      return <TurnEndRow item={item} />;
    case "end":
      return <EndRow item={item} />;
    case "alert":
      return <AlertRow item={item} />;
    case "notes":
      return <NotesRow item={item} />;
  }
});

function Said({ who, at, seq, text }: { who: string; at: string; seq: number; text: string | undefined }) {
  const [all, showAll] = useState(false);
  const long = (text?.length ?? 0) > 2000;
  return (
    <div className="mt-3 rounded-xl bg-accent-soft px-4 py-3">
      <p className="mb-1 flex items-center gap-2 text-xs text-muted">
        <User className="size-3.5" aria-hidden />
        <span className="font-medium">{who}</span>
        <Link to="." hash={`event-${seq}`} search={(s: object) => s as never} title="The address of this turn" className="ml-auto inline-flex min-h-6 items-center hover:underline">
          <Time at={at} />
        </Link>
      </p>
      {text === undefined ? <p className="text-muted">The prompt is read…</p> : <div className="break-words whitespace-pre-wrap">{visible(long && !all ? `${text.slice(0, 2000)}…` : text)}</div>}
      {long && (
        <button type="button" className="mt-1 text-accent underline underline-offset-2" onClick={() => showAll(!all)}>
          {all ? "Less" : `All of its ${text!.length.toLocaleString()} characters`}
        </button>
      )}
    </div>
  );
}

function PromptRow({ item, text }: { item: PromptItem; text: string | undefined }) {
  return <Said who={item.attempt > 1 ? `Prompt, attempt ${item.attempt}` : "Prompt"} at={item.at} seq={item.seq} text={text} />;
}

function WordsRow({ item }: { item: WordsItem }) {
  const [open, setOpen] = useState(false);
  if (item.thought) {
    return (
      <div className="text-muted">
        <Fold open={open} toggle={() => setOpen(!open)} icon={<Brain className="size-4" aria-hidden />} label={<span className="truncate italic">{open ? "Thought" : item.text.split("\n")[0]}</span>} />
        {open && <div className="border-l-2 border-line pl-4 break-words whitespace-pre-wrap">{visible(item.text)}</div>}
      </div>
    );
  }
  const text = item.text.length > LONG && !open ? `${item.text.slice(0, LONG)}…` : item.text;
  return (
    <div>
      <Words text={text} />
      {item.text.length > LONG && (
        <button type="button" className="mt-1 text-accent underline underline-offset-2" onClick={() => setOpen(!open)}>
          {open ? "Less" : "All of it"}
        </button>
      )}
      {item.truncated && <p className="text-[13px] text-muted">More than is kept was said.</p>}
    </div>
  );
}

function Fold({ open, toggle, icon, label, end }: { open: boolean; toggle(): void; icon: ReactNode; label: ReactNode; end?: ReactNode }) {
  return (
    <button type="button" aria-expanded={open} onClick={toggle} className="flex min-h-8 w-full min-w-0 items-center gap-2 rounded-md px-1 py-1 text-left hover:bg-hover">
      <ChevronRight className={cx("size-4 shrink-0 text-muted transition-transform", open && "rotate-90")} aria-hidden />
      <span className="shrink-0 text-muted">{icon}</span>
      <span className="flex min-w-0 flex-1 items-baseline gap-2">{label}</span>
      {end}
    </button>
  );
}

const TOOL_ICON: Record<string, typeof Wrench> = { read: FileText, edit: Pencil, delete: Trash2, move: Pencil, search: Search, execute: SquareTerminal, think: Brain, fetch: Globe };
const TOOL_STATE: Record<ToolItem["state"], { icon: ReactNode; text: string }> = {
  running: { icon: <Loader className="size-4 text-info motion-safe:animate-spin" aria-hidden />, text: "runs" },
  done: { icon: <Check className="size-4 text-ok" aria-hidden />, text: "done" },
  failed: { icon: <X className="size-4 text-bad" aria-hidden />, text: "failed" },
  gone: { icon: <CircleDashed className="size-4 text-muted" aria-hidden />, text: "its end was not told" },
};
const shownAs = (v: unknown) => (typeof v === "string" ? v : JSON.stringify(v, null, 2));

function ToolRow({ item, id }: { item: ToolItem; id: string }) {
  const [open, setOpen] = useState(false);
  const Icon = TOOL_ICON[item.toolKind] ?? Wrench;
  const state = TOOL_STATE[item.state];
  const what = item.command ?? (item.title !== item.name ? item.title : item.paths[0] ?? item.touched[0]);
  return (
    <div className="rounded-lg border border-line bg-panel px-1.5 py-0.5">
      <Fold
        open={open}
        toggle={() => setOpen(!open)}
        icon={<Icon className="size-4" aria-hidden />}
        label={
          <>
            <span className="shrink-0 font-medium">{item.name}</span>
            {what && <span className="min-w-0 truncate font-mono text-[13px] text-muted">{visible(what.split("\n")[0] ?? "")}</span>}
          </>
        }
        end={
          <span className="flex shrink-0 items-center gap-2 text-[13px] text-muted tabular-nums">
            {typeof item.exitCode === "number" && item.exitCode !== 0 && <span className="text-bad">exit {item.exitCode}</span>}
            {item.endedAt && Date.parse(item.endedAt) - Date.parse(item.at) >= 1000 && lasted(item.at, item.endedAt)}
            {state.icon}
            <span className="sr-only">{state.text}</span>
          </span>
        }
      />
      {open && (
        <div className="space-y-2 px-2 pt-1 pb-2">
          <p className="flex flex-wrap gap-x-3 text-[13px] text-muted">
            <span>{item.toolKind}</span>
            <span>{state.text}</span>
            <Time at={item.at} />
            {item.cwd && <span className="font-mono break-all">{visible(item.cwd)}</span>}
            <Link to="/sessions/$id" params={{ id }} search={(s: object) => ({ ...s, tab: "events" as const })} hash={`event-${item.seq}`} className="text-accent underline underline-offset-2">
              Event {item.seq}
            </Link>
          </p>
          {item.command && <CodeText text={item.command} label="Command" />}
          {item.args !== undefined && <CodeText text={shownAs(item.args)} label="Arguments" />}
          {item.result !== undefined && <CodeText text={shownAs(item.result)} label="Result" className={item.state === "failed" ? "text-bad" : undefined} />}
          {[...new Set([...item.paths, ...item.touched])].length > 0 && (
            <ul className="flex flex-wrap gap-x-3 text-[13px]">
              {[...new Set([...item.paths, ...item.touched])].map((p) => (
                <li key={p} className="font-mono break-all">
                  {item.touched.includes(p) ? (
                    <Link to="/sessions/$id" params={{ id }} search={(s: object) => ({ ...s, tab: "changes" as const, file: p })} className="text-accent underline underline-offset-2">
                      {visibleName(p)}
                    </Link>
                  ) : (
                    visibleName(p)
                  )}
                </li>
              ))}
            </ul>
          )}
          {item.truncated && <p className="text-[13px] text-muted">Only its beginning is kept.</p>}
        </div>
      )}
    </div>
  );
}

const PLAN_ICON: Record<string, ReactNode> = {
  completed: <Check className="mt-0.5 size-4 shrink-0 text-ok" aria-hidden />,
  in_progress: <Loader className="mt-0.5 size-4 shrink-0 text-info" aria-hidden />,
  cancelled: <CircleSlash className="mt-0.5 size-4 shrink-0 text-muted" aria-hidden />,
};
function PlanRow({ item }: { item: PlanItem }) {
  const done = item.entries.filter((e) => e.status === "completed").length;
  return (
    <section aria-label="Plan" className="rounded-lg border border-line bg-panel px-4 py-3">
      <p className="mb-1.5 flex items-center gap-2 font-medium">
        <ListTodo className="size-4 text-muted" aria-hidden />
        Plan
        <span className="text-[13px] font-normal text-muted">
          {done} of {item.entries.length}
        </span>
      </p>
      <ul className="space-y-1">
        {item.entries.map((e, i) => (
          <li key={i} className="flex gap-2">
            {PLAN_ICON[e.status] ?? <CircleDashed className="mt-0.5 size-4 shrink-0 text-muted" aria-hidden />}
            <span className={cx("min-w-0 break-words", e.status === "completed" && "text-muted line-through", e.status === "in_progress" && "font-medium")}>
              {visible(e.text)}
              <span className="sr-only">, {e.status.replaceAll("_", " ")}</span>
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}

export const Lines = ({ added, removed }: { added: number; removed: number }) => (
  <span className="shrink-0 text-[13px] tabular-nums">
    <span className="text-ok">+{added}</span> <span className="text-bad">−{removed}</span>
  </span>
);

function DiffRow({ item, id }: { item: DiffItem; id: string }) {
  const [all, showAll] = useState(false);
  const files = all ? item.files : item.files.slice(0, 6);
  return (
    <section aria-label="Changes" className="rounded-lg border border-line bg-panel px-4 py-2.5">
      <p className="flex items-center gap-2 font-medium">
        <Pencil className="size-4 text-muted" aria-hidden />
        {item.filesChanged === 0 ? "Nothing is changed any more" : item.filesChanged === 1 ? "1 file is changed" : `${item.filesChanged} files are changed`}
        {item.filesChanged > 0 && <Lines added={item.added} removed={item.removed} />}
      </p>
      <ul className="mt-1">
        {files.map((f) => (
          <li key={f.path}>
            <Link to="/sessions/$id" params={{ id }} search={(s: object) => ({ ...s, tab: "changes" as const, file: f.path })} className="flex min-h-7 items-center gap-2 rounded px-1 hover:bg-hover">
              <span className="w-4 shrink-0 text-center text-[13px] text-muted" title={f.status}>
                {f.status.slice(0, 1).toUpperCase()}
              </span>
              <span className="min-w-0 flex-1 truncate font-mono text-[13px]">{visibleName(f.path)}</span>
              <Lines added={f.additions} removed={f.deletions} />
            </Link>
          </li>
        ))}
      </ul>
      {item.files.length > 6 && (
        <button type="button" className="mt-1 px-1 text-accent underline underline-offset-2" onClick={() => showAll(!all)}>
          {all ? "Fewer" : `${item.files.length - 6} more`}
        </button>
      )}
    </section>
  );
}

const RESOLVED: Record<string, string> = { allowed: "Allowed", denied: "Denied", expired: "Nobody decided in time", cancelled: "Not needed any more" };
function GateRow({ item, around }: { item: GateItem; around: Around }) {
  const [open, setOpen] = useState(false);
  const pending = item.resolved ? undefined : around.session.pendingApprovals.find((a) => a.approvalId === item.gate.approvalId);
  const gate: Approval = { ...item.gate, ...pending, sessionId: around.session.sessionId };
  if (pending && !around.viewer) return <GateCard gate={gate} inline unasked keys={around.first === gate.approvalId} />;
  const status = item.resolved?.status ?? "pending";
  const question = gate.kind === "question";
  const Icon = question ? MessageCircleQuestion : status === "denied" || status === "expired" ? ShieldX : ShieldCheck;
  const said = question && status === "allowed" ? "Answered" : (RESOLVED[status] ?? "Waits for a decision");
  const exact = exactOf(gate);
  return (
    <div className="rounded-lg border border-line bg-panel px-1.5 py-0.5">
      <Fold
        open={open}
        toggle={() => setOpen(!open)}
        icon={<Icon className={cx("size-4", status === "allowed" ? "text-ok" : status === "pending" ? "text-warn" : "text-bad")} aria-hidden />}
        label={
          <>
            <span className="shrink-0 font-medium">{said}</span>
            <span className="min-w-0 truncate text-muted">{visible(gate.description?.split("\n")[0] ?? gate.action ?? "")}</span>
          </>
        }
        end={item.resolved?.by && <span className="shrink-0 text-[13px] text-muted">{person(item.resolved.by)}</span>}
      />
      {open && (
        <div className="space-y-2 px-2 pt-1 pb-2">
          <p className="flex flex-wrap gap-x-3 text-[13px] text-muted">
            <span>
              Asked <Time at={gate.requestedAt ?? item.at} />
            </span>
            {item.resolved && (
              <span>
                {said} <Time at={item.resolved.at} />
              </span>
            )}
          </p>
          {item.resolved?.reason && <p className="break-words">{visible(item.resolved.reason)}</p>}
          {gate.description && <CodeText text={gate.description} label="What was asked" />}
          {exact
            .filter((e) => e.text !== gate.description)
            .map((e) => (
              <div key={e.label}>
                <p className="mb-1 text-xs text-muted">{e.label}</p>
                <CodeText text={e.text} label={e.label} />
              </div>
            ))}
        </div>
      )}
    </div>
  );
}

export const person = (actor: string) => (actor === "admin" ? "administrator" : actor.replace(/^(user|key|link):/, (_, k: string) => (k === "link" ? "link " : "")).replace(/^([0-9a-f]{8})[0-9a-f]{24,}$/, "$1"));

function TurnEndRow({ item }: { item: TurnEndItem }) {
  const text = item.state === "done" ? "Done" : item.state === "failed" ? "Failed" : "Interrupted";
  return (
    <div className="flex items-center gap-3 text-[13px] text-muted">
      <span aria-hidden className="h-px flex-1 bg-line" />
      <span className={cx("min-w-0 break-words", item.state === "failed" && "text-bad")}>
        {text}
        {item.startedAt && ` after ${lasted(item.startedAt, item.at)}`}
        {item.stopReason && item.stopReason !== "end_turn" && item.stopReason !== item.state && ` (${item.stopReason.replaceAll("_", " ")})`}
        {item.error && `: ${item.error.slice(0, 500)}`}
      </span>
      <span aria-hidden className="h-px flex-1 bg-line" />
    </div>
  );
}

function EndRow({ item }: { item: EndItem }) {
  const bad = item.state !== "COMPLETED";
  return (
    <div className={cx("rounded-lg px-4 py-3", bad ? "bg-bad-soft" : "bg-ok-soft")}>
      <p className={cx("flex flex-wrap items-center gap-2 font-medium", bad ? "text-bad" : "text-ok")}>
        <Flag className="size-4" aria-hidden />
        {stateText(item.state as SessionDetail["state"])}
        {item.reason && <span className="font-normal">{endText(item.reason)}</span>}
        {item.exitCode !== undefined && item.exitCode !== 0 && <span className="font-normal">(exit code {item.exitCode})</span>}
        <Time at={item.at} className="ml-auto text-[13px] font-normal" />
      </p>
      {item.error && <p className="mt-1 break-words whitespace-pre-wrap">{visible(item.error)}</p>}
    </div>
  );
}

function AlertRow({ item }: { item: AlertItem }) {
  const tone = item.severity === "info" ? "bg-info-soft text-info" : item.severity === "warn" ? "bg-warn-soft text-warn" : "bg-bad-soft text-bad";
  return (
    <div className={cx("flex gap-2 rounded-lg px-4 py-2.5", tone)}>
      {item.severity === "info" ? <Info className="mt-0.5 size-4 shrink-0" aria-hidden /> : <AlertTriangle className="mt-0.5 size-4 shrink-0" aria-hidden />}
      <div className="min-w-0 break-words">
        {item.title && <p className="font-medium">{visible(item.title)}</p>}
        {item.description && <p className="whitespace-pre-wrap text-text">{visible(item.description)}</p>}
      </div>
    </div>
  );
}

function NotesRow({ item }: { item: NotesItem }) {
  const [open, setOpen] = useState(false);
  const last = item.notes.at(-1)!;
  const shown = open ? item.notes : [last];
  return (
    <ul className="space-y-0.5 text-[13px] text-muted">
      {shown.map((n) => (
        <li key={n.seq} className="flex min-w-0 items-baseline gap-2">
          <span aria-hidden>·</span>
          <span className="min-w-0 flex-1 break-words">
            {n.link ? (
              <a href={n.link} title={n.link} target="_blank" rel="noopener noreferrer nofollow" className="text-accent underline underline-offset-2">
                {visible(n.text)}
              </a>
            ) : (
              visible(n.text)
            )}
            {n.raw && (
              <details>
                <summary className="cursor-pointer">Its data</summary>
                <CodeText text={JSON.stringify(n.raw.data, null, 2)} label={n.raw.type} />
              </details>
            )}
          </span>
          {n === last && item.notes.length > 1 && (
            <button type="button" aria-expanded={open} className="shrink-0 underline underline-offset-2 hover:text-text" onClick={() => setOpen(!open)}>
              {open ? "less" : `${item.notes.length - 1} before`}
            </button>
          )}
          <Time at={n.at} className="shrink-0" />
        </li>
      ))}
    </ul>
  );
}
