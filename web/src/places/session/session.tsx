import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useLocation, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { lazy, Suspense, useCallback, useEffect, useMemo, useRef, useState } from "react";
import { loginQuery } from "@/api/auth";
import { isEnded, sessionKeys, sessionQuery } from "@/api/sessions";
import type { SessionDetail, SessionEvent } from "@/api/types";
import { useActions } from "@/keys/registry";
import { useRereadMs } from "@/live/hooks";
import { Page } from "@/shell/page";
import { useTitle } from "@/shell/title";
import { cx } from "@/ui/cx";
import { ErrorBox, Skeleton } from "@/ui/states";
import { announce } from "@/ui/toast";
import { promptsQuery, taskQuery } from "./calls";
import { Composer } from "./composer";
import type { Item } from "./conversation";
import { type SessionLog, type Shown, useSessionLog } from "./log";
import type { Around } from "./rows";
import { eventHash, type PageSearch, TABS, type TabName } from "./search";
import { Split, useWide } from "./split";
import { Talk } from "./talk";
import { Top, type TopDialog } from "./top";

/** What every tab gets. */
export interface TabProps {
  session: SessionDetail;
  log: SessionLog;
  shown: Shown;
  viewer: boolean;
  search: PageSearch;
  change(part: Partial<PageSearch>, hash?: string): void;
}

const PANELS = {
  terminal: lazy(() => import("./tab-terminal")),
  changes: lazy(() => import("./tab-changes")),
  files: lazy(() => import("./tab-files")),
  events: lazy(() => import("./tab-events")),
  usage: lazy(() => import("./tab-usage")),
  log: lazy(() => import("./tab-log")),
  timeline: lazy(() => import("./tab-timeline")),
};
const LABELS: Record<TabName, string> = { talk: "Conversation", terminal: "Terminal", changes: "Changes", files: "Files", events: "Events", usage: "Usage", log: "Raw log", timeline: "Timeline" };
const REREAD_MS = 300;

export function SessionPage() {
  const { id } = useParams({ from: "/sessions/$id" });
  const every = useRereadMs();
  const session = useQuery({ ...sessionQuery(id), refetchInterval: (q) => (q.state.data && isEnded(q.state.data.state) ? false : every) });
  if (session.data?.pendingApprovals) return <Whole key={id} session={session.data} />;
  return <Page title="Session">{session.isError ? <ErrorBox error={session.error} retry={() => void session.refetch()} /> : <Skeleton rows={6} />}</Page>;
}

/** Events that change what is read beside the log. */
function useReread(log: SessionLog, id: string) {
  const queries = useQueryClient();
  useEffect(() => {
    const due = new Set<string>();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const reread = (...what: string[]) => {
      for (const w of what) due.add(w);
      timer ??= setTimeout(() => {
        timer = undefined;
        for (const w of due) void queries.invalidateQueries({ queryKey: w === "session" ? sessionKeys.one(id) : [...sessionKeys.one(id), w], exact: true });
        due.clear();
      }, REREAD_MS);
    };
    const off = log.onEvent((e: SessionEvent) => {
      if (e.type === "APPROVAL_REQUESTED") announce("The agent waits for a decision.");
      if (/^(SESSION_|APPROVAL_)/.test(e.type)) reread("session");
      if (e.type.startsWith("TURN_")) reread("session", "prompts");
      if (e.type === "DIFF_SUMMARY") reread("session", "diff");
      if (e.type === "CHECKPOINT_TAKEN") reread("checkpoints");
      if (e.type === "ARTIFACT_CREATED" || e.type === "SESSION_ENDED") reread("artifacts", "files", "diff", "prompts");
    });
    return () => {
      off();
      clearTimeout(timer);
    };
  }, [log, id, queries]);
}

/** The last thing that was done, in a few words. */
function lastLine(items: readonly Item[]): string | undefined {
  let note: string | undefined;
  for (let i = items.length - 1; i >= Math.max(0, items.length - 20); i--) {
    const item = items[i]!;
    if (item.kind === "tool") return item.command ?? (item.title === item.name ? item.name : `${item.name} ${item.title}`);
    if (item.kind === "words" && !item.thought) return item.text.trim().split("\n").at(-1);
    if (item.kind === "alert") return item.title || item.description;
    if (item.kind === "notes") note ??= item.notes.at(-1)?.text;
  }
  return note;
}

function Whole({ session: s }: { session: SessionDetail }) {
  const id = s.sessionId;
  const login = useQuery(loginQuery);
  const viewer = login.data?.user?.role === "viewer";
  const search = useSearch({ from: "/sessions/$id" });
  const hash = useLocation({ select: (l) => l.hash });
  const visit = useLocation({ select: (l) => l.state.key ?? "" });
  const navigate = useNavigate();
  const wide = useWide();
  const [log, shown] = useSessionLog(id, s.lastEventSeq);
  useReread(log, id);
  const prompts = useQuery({ ...promptsQuery(id), enabled: s.mode === "interactive" });
  const task = useQuery({ ...taskQuery(id), enabled: s.mode !== "interactive" });
  const change = useCallback(
    (part: Partial<PageSearch>, to?: string) => void navigate({ to: "/sessions/$id", params: { id }, search: (old: PageSearch) => Object.fromEntries(Object.entries({ ...old, ...part }).filter(([, v]) => v !== undefined)) as PageSearch, hash: to ?? "" }),
    [navigate, id],
  );

  // An interactive one is called as what it was asked first.
  const title = s.taskSummary || prompts.data?.[0]?.prompt.trim().split("\n")[0]?.slice(0, 120) || "Interactive session";
  useTitle(title);
  const around = useMemo<Around>(
    () => ({
      session: s,
      prompts: new Map(prompts.data?.map((p) => [p.promptId, p.prompt])),
      task: task.data?.prompt || s.taskSummary,
      first: s.pendingApprovals[0]?.approvalId,
      viewer,
    }),
    [s, prompts.data, task.data, viewer],
  );
  const tab: TabName = search.tab ?? (wide ? "terminal" : "talk");
  const panel = tab === "talk" ? "terminal" : tab;
  // A tab that was seen stays as it is while another one is looked at.
  const [sent, count] = useState(0);
  const [dialog, show] = useState<TopDialog>(null);
  const [opened, open] = useState<ReadonlySet<string>>(new Set());
  const showsPanel = wide || tab !== "talk";
  useEffect(() => {
    if (showsPanel) open((o) => (o.has(panel) ? o : new Set(o).add(panel)));
  }, [panel, showsPanel]);

  useActions(TABS.map((t, i) => ({ id: `tab ${t}`, label: LABELS[t], group: "Session", keys: `v ${i + 1}`, run: () => change({ tab: t }) })));

  const decide = () => {
    const first = s.pendingApprovals[0];
    const item = shown.items.findLast((i) => i.kind === "gate" && i.gate.approvalId === first?.approvalId);
    if (item) change(wide ? {} : { tab: "talk" }, `event-${item.seq}`);
    else if (first) void navigate({ to: "/gates", search: { gate: first.approvalId } });
  };
  const props: TabProps = { session: s, log, shown, viewer, search, change };
  const target = eventHash(hash);
  const talk = (
    <section aria-label="What is said and done" className="flex h-full min-h-0 min-w-0 flex-col">
      <Talk log={log} shown={shown} around={around} target={tab === "events" && wide ? undefined : target} visit={visit} sent={sent} />
      <Composer session={s} prompts={prompts.data} viewer={viewer} onSend={() => count((n) => n + 1)} onFork={() => show("checkpoints")} />
    </section>
  );
  const tabs = (
    <section aria-label="Beside it" className="flex h-full min-h-0 min-w-0 flex-col bg-panel">
      {wide && <TabBar tabs={[...TABS]} tab={panel} change={(t) => change({ tab: t })} />}
      {TABS.filter((t) => t === panel || opened.has(t)).map((t) => {
        const Panel = PANELS[t];
        return (
          <div key={t} role="tabpanel" id={`panel-${t}`} aria-label={LABELS[t]} hidden={t !== panel || !showsPanel} className="min-h-0 flex-1 [&:not([hidden])]:flex [&:not([hidden])]:flex-col">
            <Suspense fallback={<Skeleton rows={4} className="p-4" />}>
              <Panel {...props} shownNow={t === panel && showsPanel} />
            </Suspense>
          </div>
        );
      })}
    </section>
  );
  return (
    <div className="flex h-full min-h-0 flex-col">
      <Top session={s} title={title} last={lastLine(shown.items)} viewer={viewer} decide={decide} dialog={dialog} show={show} />
      {!wide && <TabBar tabs={["talk", ...TABS]} tab={tab} change={(t) => change({ tab: t })} />}
      {wide ? (
        <Split left={talk} right={tabs} />
      ) : (
        <>
          <div className={cx("min-h-0 flex-1", tab !== "talk" && "hidden")}>{talk}</div>
          <div className={cx("min-h-0 flex-1", tab === "talk" && "hidden")}>{tabs}</div>
        </>
      )}
    </div>
  );
}

function TabBar({ tabs, tab, change }: { tabs: TabName[]; tab: TabName; change(t: TabName): void }) {
  const bar = useRef<HTMLDivElement>(null);
  const move = (by: number) => {
    const next = tabs[(tabs.indexOf(tab) + by + tabs.length) % tabs.length]!;
    change(next);
    bar.current?.querySelector<HTMLElement>(`[data-tab=${next}]`)?.focus();
  };
  useEffect(() => {
    bar.current?.querySelector(`[data-tab=${tab}]`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [tab]);
  return (
    <div ref={bar} role="tablist" aria-label="Parts of the session" className="flex shrink-0 gap-1 overflow-x-auto border-b border-line bg-panel px-2">
      {tabs.map((t) => (
        <button
          key={t}
          type="button"
          role="tab"
          data-tab={t}
          aria-selected={t === tab}
          aria-controls={t === tab && t !== "talk" ? `panel-${t}` : undefined}
          tabIndex={t === tab ? 0 : -1}
          onClick={() => change(t)}
          onKeyDown={(e) => {
            if (e.key === "ArrowRight") move(1);
            else if (e.key === "ArrowLeft") move(-1);
          }}
          className={cx("-mb-px h-9 border-b-2 px-2.5 font-medium whitespace-nowrap -outline-offset-2", t === tab ? "border-accent text-text" : "border-transparent text-muted hover:text-text")}
        >
          {LABELS[t]}
        </button>
      ))}
    </div>
  );
}
