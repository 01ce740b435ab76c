import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useEffect, useLayoutEffect, useReducer, useRef, useState } from "react";
import { ApiError, mayRetry } from "@/api/client";
import { cancelRun, isOver, type Run, runKeys, runQuery, sessionOfRun, streamRun } from "@/api/runs";
import { backoff } from "@/live/backoff";
import { sessionLink } from "@/places/sessions/link";
import { Button } from "@/ui/button";
import { ErrorBox, Skeleton } from "@/ui/states";
import { CodeText } from "@/ui/text";
import { Elapsed } from "@/ui/time";
import { announce } from "@/ui/toast";
import { RunBadge, runStateText } from "./badge";
import { attemptsOf, unwatched, watch, type Watched } from "./watched";

/** The run's events while it works; a lost connection goes on where it was. */
function useEvents(id: string, on: boolean): { watched: Watched; lost: boolean } {
  const [watched, emit] = useReducer(watch, unwatched);
  const [lost, setLost] = useState(false);
  const now = useRef(watched);
  now.current = watched;
  useEffect(() => {
    if (!on) return;
    const stop = new AbortController();
    let tries = 0;
    let timer: ReturnType<typeof setTimeout>;
    // What was emitted may not be drawn yet: the position is kept here.
    let after = now.current.seq;
    let ended = now.current.ended;
    const connect = async () => {
      try {
        await streamRun(
          id,
          after,
          (e) => {
            tries = 0;
            setLost(false);
            after = e.event === "reset" ? 0 : Math.max(after, e.id ?? 0);
            ended ||= e.event === "end";
            emit(e);
          },
          stop.signal,
        );
      } catch (e) {
        // A refusal stays one; the run itself says what it is.
        if (e instanceof ApiError && !mayRetry(0, e)) return;
      }
      if (stop.signal.aborted || ended) return;
      setLost(true);
      timer = setTimeout(() => void connect(), backoff(tries++, Math.random()));
    };
    void connect();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [id, on]);
  return { watched, lost };
}

function result(run: Run): string {
  const error = run.error?.message ?? (run.state === "FAILED" ? run.status_message?.message : undefined);
  return run.state === "FAILED" ? error || "It failed." : "";
}

/** A run, watched where it was asked for: where it is, what it prints, how it ended. */
export function RunWatch({ id, again }: { id: string; again?: () => void }) {
  const queries = useQueryClient();
  // The events say when something happened; now and then is for what they do not say.
  const query = useQuery({ ...runQuery(id), refetchInterval: (q) => (isOver(q.state.data?.state) ? false : 4_000) });
  const run = query.data;
  const over = isOver(run?.state);
  const { watched, lost: cut } = useEvents(id, run !== undefined && !over);
  // A connection may hang without an end; a reading that fails is told sooner.
  const lost = cut || query.failureCount > 0;
  const { state: heard, ended } = watched;
  useEffect(() => {
    if (heard || ended) void queries.invalidateQueries({ queryKey: runQuery(id).queryKey });
  }, [queries, id, heard, ended]);
  const state = over ? run?.state : (heard ?? run?.state);
  useEffect(() => {
    if (state) announce(`The run: ${runStateText(state)}`);
  }, [state]);
  const cancel = useMutation({ mutationFn: () => cancelRun(id), onSuccess: () => void queries.invalidateQueries({ queryKey: runKeys.all }) });

  if (query.isError && !run) return <ErrorBox error={query.error} retry={() => void query.refetch()} />;
  if (!run || !state) return <Skeleton rows={3} />;
  const waits = state === "QUEUED" || state === "PENDING" ? (watched.message ?? run.status_message?.message) : undefined;
  const text = over ? (run.output ?? watched.text) : watched.text || (run.output ?? "");
  return (
    <section aria-label="Run" className="space-y-3">
      <div className="flex flex-wrap items-center gap-x-3 gap-y-2">
        <RunBadge state={state} />
        <Elapsed from={run.created_at} to={over ? (run.completed_at ?? run.updated_at) : undefined} className="text-muted tabular-nums" />
        {run.worker_id && <span className="min-w-0 text-[13px] break-all text-muted">on {run.worker_id}</span>}
        {over && !run.error && run.exit_code !== null && run.exit_code !== undefined && <span className="text-[13px] text-muted">exit code {run.exit_code}</span>}
        <span className="ml-auto flex items-center gap-2">
          <Link {...sessionLink(sessionOfRun(id))} className="text-[13px] text-accent underline underline-offset-2">
            As a session
          </Link>
          {!over && (
            <Button size="small" busy={cancel.isPending} onClick={() => cancel.mutate()}>
              Cancel
            </Button>
          )}
          {over && again && (
            <Button size="small" onClick={again}>
              Run again
            </Button>
          )}
        </span>
      </div>
      {waits && <p className="text-muted">{waits}</p>}
      {lost && !over && <p className="text-[13px] text-warn">The connection was lost; it is tried again and goes on where it was.</p>}
      {over && result(run) && <p className="break-words text-bad">{result(run)}</p>}
      {text ? <Following text={text} live={!over} /> : <p className="rounded-md border border-dashed border-line px-3 py-2 text-muted">{over ? "It printed nothing." : "Nothing printed yet."}</p>}
      {over && <Attempts run={run} />}
      {cancel.isError && <ErrorBox error={cancel.error} />}
    </section>
  );
}

function Attempts({ run }: { run: Run }) {
  const attempts = attemptsOf(run.provider);
  if (attempts.length === 0) return null;
  return (
    <p className="text-[13px] text-muted">
      {attempts.map((a, i) => (
        <span key={i}>
          {i > 0 && ", then "}
          <span className="font-medium text-text">{a.key}</span> {a.text}
        </span>
      ))}
    </p>
  );
}

/** Stays at the end of what comes, unless somebody has scrolled up. */
function Following({ text, live }: { text: string; live: boolean }) {
  const around = useRef<HTMLDivElement>(null);
  const atEnd = useRef(true);
  useLayoutEffect(() => {
    const box = around.current?.firstElementChild;
    if (box && live && atEnd.current) box.scrollTop = box.scrollHeight;
  }, [text, live]);
  return (
    <div
      ref={around}
      onScrollCapture={(e) => {
        const box = e.target as HTMLElement;
        atEnd.current = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
      }}
    >
      <CodeText text={text} label="Output" className="max-h-[60dvh]!" />
    </div>
  );
}
