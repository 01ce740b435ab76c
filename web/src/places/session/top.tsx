import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { ArrowLeft, Ellipsis, GitFork, Link2, Pause, Play, Square, SquareTerminal } from "lucide-react";
import { useRef, useState } from "react";
import { harnessName, repoName } from "@/api/catalog";
import { isEnded, sessionKeys, stopSession } from "@/api/sessions";
import type { SessionDetail } from "@/api/types";
import { useActions } from "@/keys/registry";
import { sessionLink } from "@/places/sessions/link";
import { endText, queueText } from "@/places/sessions/words";
import { useDraft } from "@/state/drafts";
import { StateBadge } from "@/ui/badge";
import { Button, IconButton } from "@/ui/button";
import { copy, CopyButton } from "@/ui/copy";
import { Dialog } from "@/ui/dialog";
import { Menu, MenuItem, MenuLine } from "@/ui/menu";
import { Empty, ErrorBox, Skeleton } from "@/ui/states";
import { visible } from "@/ui/text";
import { Elapsed, Time } from "@/ui/time";
import { toast, toastError } from "@/ui/toast";
import { act, type Checkpoint, checkpointsQuery, fork, stopNow } from "./calls";
import { size } from "./conversation";

export const attachCommand = (id: string) => `OZ_API_BASE_URL=${location.origin}/api/v1 muster attach ${id}`;

export type TopDialog = "checkpoints" | "attach" | "stop" | null;

/** Where the session is, and what can be done with all of it. */
export function Top({ session: s, title, last, viewer, decide, dialog, show }: { session: SessionDetail; title: string; last: string | undefined; viewer: boolean; decide(): void; dialog: TopDialog; show(d: TopDialog): void }) {
  const queries = useQueryClient();
  const id = s.sessionId;
  const ended = isEnded(s.state);
  const took = (now: SessionDetail) => {
    if (now?.sessionId) queries.setQueryData(sessionKeys.one(id), now);
    void queries.invalidateQueries({ queryKey: sessionKeys.all });
  };
  const change = useMutation({
    mutationFn: (what: "pause" | "resume" | "interrupt" | "end" | "stop" | "kill") => (what === "stop" ? stopSession(id) : what === "kill" ? stopNow(id) : act(id, what)),
    onSuccess: took,
    onError: (e, what) => toastError({ pause: "Not paused", resume: "Not resumed", interrupt: "Not interrupted", end: "Not ended", stop: "Not stopped", kill: "Not stopped" }[what], e),
  });
  const paused = s.state === "PAUSED_BY_HUMAN";
  const mayPause = s.state === "RUNNING" || s.state === "WAITING_FOR_APPROVAL";
  const interactive = s.mode === "interactive";
  const steers = !viewer && !ended && s.state !== "STOPPING";

  useActions([
    ...(s.pendingApprovals.length && !viewer ? [{ id: "decide", label: "Go to what waits for a decision", group: "Session", keys: "g d", run: decide }] : []),
    ...(steers && mayPause ? [{ id: "pause", label: "Pause the session", group: "Session", run: () => change.mutate("pause") }] : []),
    ...(steers && paused ? [{ id: "resume", label: "Resume the session", group: "Session", run: () => change.mutate("resume") }] : []),
    ...(steers ? [{ id: "stop", label: "Stop the session…", group: "Session", run: () => show("stop") }] : []),
    { id: "checkpoints", label: "Checkpoints and forks…", group: "Session", run: () => show("checkpoints") },
    { id: "attach", label: "Attach in a terminal…", group: "Session", run: () => show("attach") },
  ]);

  const line = s.queueReason ? queueText(s.queueReason) : ended ? (s.endReason ? endText(s.endReason) : "") : s.runnerUnreachable ? "Its worker cannot be reached just now" : (last ?? "");
  return (
    <header className="flex shrink-0 items-center gap-x-3 border-b border-line bg-panel px-3 py-2 md:px-4">
      <Link to="/sessions" aria-label="All sessions" title="All sessions" className="inline-flex size-8 shrink-0 items-center justify-center rounded-md text-muted hover:bg-hover hover:text-text">
        <ArrowLeft className="size-4" aria-hidden />
      </Link>
      <div className="min-w-0 flex-1">
        <div className="flex min-w-0 items-center gap-2">
          <h1 className="min-w-0 truncate text-base font-semibold">{visible(title)}</h1>
          <StateBadge session={s} />
          <Elapsed from={s.createdAt} to={ended ? (s.completedAt ?? s.createdAt) : undefined} className="hidden shrink-0 text-[13px] text-muted tabular-nums sm:inline" />
        </div>
        <p className="flex min-w-0 gap-x-2 text-[13px] text-muted">
          <span className="shrink-0 max-md:hidden">{repoName(s.repoUrl)}</span>
          <span className="shrink-0 max-md:hidden">· {harnessName(s.providerId)}</span>
          {s.runnerName && (
            <span className="shrink-0 max-md:hidden">
              ·{" "}
              <Link to="/fleet" className="underline underline-offset-2 hover:text-text">
                {s.runnerName}
              </Link>
            </span>
          )}
          {s.parentSessionId && (
            <span className="shrink-0 max-md:hidden">
              ·{" "}
              <Link {...sessionLink(s.parentSessionId)} className="underline underline-offset-2 hover:text-text">
                a fork
              </Link>
            </span>
          )}
          {line && <span className="min-w-0 truncate">{line && <span className="max-md:hidden">· </span>}{visible(line)}</span>}
        </p>
      </div>
      {s.pendingApprovals.length > 0 && !viewer && (
        <Button size="small" kind="primary" onClick={decide}>
          {s.pendingApprovals.length === 1 ? "Decide" : `Decide ${s.pendingApprovals.length}`}
        </Button>
      )}
      {steers && mayPause && (
        <Button size="small" className="max-sm:hidden" busy={change.isPending && change.variables === "pause"} onClick={() => change.mutate("pause")} icon={<Pause className="size-3.5" aria-hidden />}>
          Pause
        </Button>
      )}
      {steers && paused && (
        <Button size="small" kind="primary" busy={change.isPending && change.variables === "resume"} onClick={() => change.mutate("resume")} icon={<Play className="size-3.5" aria-hidden />}>
          {s.hibernated || s.parked ? "Wake" : "Resume"}
        </Button>
      )}
      {steers && (
        <Button size="small" kind="danger" className="max-sm:hidden" onClick={() => show("stop")} icon={<Square className="size-3.5" aria-hidden />}>
          Stop…
        </Button>
      )}
      <Menu
        trigger={
          <IconButton label="More about this session">
            <Ellipsis className="size-4" aria-hidden />
          </IconButton>
        }
      >
        {steers && mayPause && (
          <MenuItem onSelect={() => change.mutate("pause")} icon={<Pause className="size-4" aria-hidden />}>
            Pause
          </MenuItem>
        )}
        {steers && interactive && mayPause && (
          <>
            <MenuItem onSelect={() => change.mutate("interrupt")}>Interrupt what runs</MenuItem>
            <MenuItem onSelect={() => change.mutate("end")}>End when its prompts are done</MenuItem>
          </>
        )}
        {steers && (
          <>
            <MenuItem onSelect={() => show("stop")} icon={<Square className="size-4" aria-hidden />}>
              Stop…
            </MenuItem>
            <MenuLine />
          </>
        )}
        <MenuItem onSelect={() => show("checkpoints")} icon={<GitFork className="size-4" aria-hidden />}>
          Checkpoints and forks…
        </MenuItem>
        <MenuItem onSelect={() => show("attach")} icon={<SquareTerminal className="size-4" aria-hidden />}>
          Attach in a terminal…
        </MenuItem>
        <MenuItem onSelect={() => void copy(location.origin + location.pathname).then((ok) => ok && toast("The link is copied; whoever may see this session can open it."))} icon={<Link2 className="size-4" aria-hidden />}>
          Copy the link
        </MenuItem>
      </Menu>
      {dialog === "stop" && (
        <Dialog
          open
          onOpenChange={() => show(null)}
          title="Stop this session?"
          description="The agent gets time to end, its changes are collected, and the session is over. A fork can go on from its last checkpoint."
          actions={
            <>
              <Button onClick={() => show(null)}>Back</Button>
              <Button kind="danger" onClick={() => (change.mutate("kill"), show(null))}>
                Stop at once
              </Button>
              <Button kind="primary" onClick={() => (change.mutate("stop"), show(null))}>
                Stop
              </Button>
            </>
          }
        >
          <p className="text-muted">At once leaves no time: what is not in a checkpoint may be lost.</p>
        </Dialog>
      )}
      {dialog === "attach" && (
        <Dialog open onOpenChange={() => show(null)} title="Attach in a terminal" description="The session in your own terminal: it shows what it shows here, and what you type goes there. Ctrl-] leaves it.">
          <div className="flex items-center gap-2">
            <input readOnly aria-label="Command" value={attachCommand(id)} className="field font-mono text-[13px]" onFocus={(e) => e.currentTarget.select()} />
            <CopyButton text={attachCommand(id)} label="Copy the command" />
          </div>
          <p className="mt-2 text-[13px] text-muted">
            It needs <code className="font-mono">OZ_API_KEY</code>, a key of yours.
          </p>
        </Dialog>
      )}
      {dialog === "checkpoints" && <Checkpoints session={s} viewer={viewer} close={() => show(null)} />}
    </header>
  );
}

function Checkpoints({ session: s, viewer, close }: { session: SessionDetail; viewer: boolean; close(): void }) {
  const list = useQuery(checkpointsQuery(s.sessionId));
  const navigate = useNavigate();
  const [from, choose] = useState<Checkpoint | null>(null);
  const [prompt, setPrompt] = useDraft(`/sessions/${s.sessionId}`, "fork");
  const key = useRef(crypto.randomUUID());
  const make = useMutation({
    mutationFn: (c: Checkpoint) => fork(s.sessionId, { checkpoint: c.number, ...(prompt.trim() ? { prompt: prompt.trim() } : {}) }, key.current),
    onSuccess: (made) => {
      setPrompt("");
      close();
      void navigate(sessionLink(made.sessionId));
    },
  });
  return (
    <Dialog
      open
      onOpenChange={(o) => !o && close()}
      title={from ? `Fork from checkpoint ${from.number}` : "Checkpoints"}
      description={from ? "A new session with the files and the conversation as they were then." : "After each turn the changes and the conversation are kept. A fork is a new session that begins at one."}
      actions={
        from && (
          <>
            <Button onClick={() => choose(null)}>Back</Button>
            <Button kind="primary" busy={make.isPending} onClick={() => make.mutate(from)}>
              Fork
            </Button>
          </>
        )
      }
    >
      {from ? (
        <>
          <label htmlFor="fork-prompt" className="mb-1 block text-[13px] font-medium text-muted">
            What is to be done there? (optional)
          </label>
          <textarea id="fork-prompt" rows={4} maxLength={100_000} value={prompt} onChange={(e) => setPrompt(e.target.value)} className="field" />
          {make.isError && <ErrorBox error={make.error} className="mt-3" />}
        </>
      ) : list.isError ? (
        <ErrorBox error={list.error} retry={() => void list.refetch()} />
      ) : !list.data ? (
        <Skeleton rows={3} />
      ) : list.data.items.length === 0 ? (
        <Empty title="No checkpoint yet">The first one is taken when a turn has ended.</Empty>
      ) : (
        <ul className="divide-y divide-line">
          {list.data.items.map((c) => (
            <li key={c.id} className="flex items-center gap-3 py-2">
              <span className="w-10 font-medium tabular-nums">{c.number}</span>
              <span className="flex-1 text-[13px] text-muted">
                <Time at={c.createdAt} /> · {size(c.bytes)}
                {c.inherited && " · from the session it was forked from"}
              </span>
              {!viewer && (
                <Button size="small" onClick={() => choose(c)} icon={<GitFork className="size-3.5" aria-hidden />}>
                  Fork…
                </Button>
              )}
            </li>
          ))}
        </ul>
      )}
    </Dialog>
  );
}
