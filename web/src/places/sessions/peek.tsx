import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { Square } from "lucide-react";
import { type ReactNode, useState } from "react";
import { harnessName } from "@/api/catalog";
import { isEnded, sessionKeys, sessionQuery, stopSession } from "@/api/sessions";
import type { SessionDetail } from "@/api/types";
import { useFollow, useRereadMs } from "@/live/hooks";
import { GateLine } from "@/places/gates/line";
import { StateBadge } from "@/ui/badge";
import { Button } from "@/ui/button";
import { Dialog } from "@/ui/dialog";
import { ErrorBox, Skeleton } from "@/ui/states";
import { CodeText } from "@/ui/text";
import { Elapsed, Time } from "@/ui/time";
import { sessionLink } from "./link";
import { endText, queueText } from "./words";

/** A session beside the list: where it is, why, and what it just did. */
export function Peek({ id, close }: { id: string | undefined; close(): void }) {
  const every = useRereadMs();
  const session = useQuery({ ...sessionQuery(id ?? ""), enabled: Boolean(id), refetchInterval: (q) => (q.state.data && isEnded(q.state.data.state) ? false : every) });
  return (
    <Dialog open={Boolean(id)} onOpenChange={(open) => !open && close()} side="right" title={session.data?.taskSummary || "Session"}>
      {session.data ? <Facts session={session.data} /> : session.isError ? <ErrorBox error={session.error} retry={() => void session.refetch()} /> : <Skeleton rows={5} />}
    </Dialog>
  );
}

function Facts({ session: s }: { session: SessionDetail }) {
  const queries = useQueryClient();
  const [said, say] = useState("");
  const read = () => void queries.invalidateQueries({ queryKey: sessionKeys.one(s.sessionId) });
  useFollow(isEnded(s.state) ? undefined : s.sessionId, s.lastEventSeq, {
    event: read,
    lost: read,
    message: (m) => {
      const data = m.data as { kind?: string; content?: string } | undefined;
      // The agent's words as they come; only the end of them is kept here.
      if (m.action === "delta" && typeof data?.content === "string") say((before) => (before + data.content).slice(-4000));
    },
  });
  const stop = useMutation({
    mutationFn: () => stopSession(s.sessionId),
    onSuccess: (now) => {
      queries.setQueryData(sessionKeys.one(s.sessionId), now);
      void queries.invalidateQueries({ queryKey: sessionKeys.all });
    },
  });
  return (
    <div className="space-y-5">
      <div className="flex flex-wrap items-center gap-3">
        <StateBadge session={s} />
        <Elapsed from={s.createdAt} to={isEnded(s.state) ? (s.completedAt ?? s.createdAt) : undefined} className="text-muted tabular-nums" />
        <Link {...sessionLink(s.sessionId)} className="ml-auto inline-flex h-7 items-center rounded-md bg-accent-fill px-2.5 text-[13px] font-medium text-on-accent hover:bg-accent-hover">
          Open
        </Link>
        {!isEnded(s.state) && s.state !== "STOPPING" && (
          <Button size="small" kind="danger" busy={stop.isPending} onClick={() => stop.mutate()} icon={<Square className="size-3.5" aria-hidden />}>
            Stop
          </Button>
        )}
      </div>
      {stop.isError && <ErrorBox error={stop.error} />}
      {s.queueReason && <p className="rounded-lg bg-info-soft px-3 py-2 text-info">{queueText(s.queueReason)}</p>}
      {s.errorMessage && <CodeText text={s.errorMessage} label="Error" className="text-bad" />}
      {s.pendingApprovals.length > 0 && (
        <ul className="overflow-hidden rounded-lg border border-warn-line">
          {s.pendingApprovals.map((g) => (
            <li key={g.approvalId}>
              <GateLine gate={g} />
            </li>
          ))}
        </ul>
      )}
      <dl className="grid grid-cols-[7rem_1fr] gap-y-1.5">
        <Fact name="Repository">
          <span className="break-all">{s.repoUrl}</span>
          {s.repo?.branch && <span className="text-muted"> at {s.repo.branch}</span>}
        </Fact>
        <Fact name="Agent">
          {harnessName(s.providerId)}
          {s.model && <span className="text-muted"> · {s.model}</span>}
        </Fact>
        <Fact name="Created">
          <Time at={s.createdAt} />
        </Fact>
        {s.runnerName && (
          <Fact name="Worker">
            <Link to="/fleet" className="break-all text-accent underline underline-offset-2">
              {s.runnerName}
            </Link>
          </Fact>
        )}
        {s.endReason && (
          <Fact name="Ended">
            {endText(s.endReason)}
            {s.exitCode !== undefined && <span className="text-muted"> (exit code {s.exitCode})</span>}
          </Fact>
        )}
        {s.diff && (
          <Fact name="Changes">
            {s.diff.filesChanged ?? 0} files, <span className="text-ok">+{s.diff.linesAdded ?? 0}</span> <span className="text-bad">−{s.diff.linesRemoved ?? 0}</span>
          </Fact>
        )}
        {s.usage.tokensIn + s.usage.tokensOut > 0 && (
          <Fact name="Tokens">
            {s.usage.tokensIn.toLocaleString()} in, {s.usage.tokensOut.toLocaleString()} out
          </Fact>
        )}
        <Fact name="Id">
          <code className="font-mono text-[13px] break-all select-all">{s.sessionId}</code>
        </Fact>
      </dl>
      {said && <CodeText text={said} label="What the agent says" />}
      <section>
        <h3 className="mb-1 font-semibold">Lately</h3>
        <ol className="divide-y divide-line">
          {s.recentEvents.map((e, i) => (
            <li key={`${e.timestamp} ${e.type} ${i}`} className="flex gap-3 py-1.5">
              <span className="min-w-0 flex-1">
                <span className="font-mono text-[13px]">{e.type}</span>
                {e.summary && <span className="block text-[13px] break-words text-muted">{e.summary}</span>}
              </span>
              <Time at={e.timestamp} className="shrink-0 text-[13px] text-muted" />
            </li>
          ))}
        </ol>
      </section>
    </div>
  );
}

const Fact = ({ name, children }: { name: string; children: ReactNode }) => (
  <>
    <dt className="text-muted">{name}</dt>
    <dd className="min-w-0">{children}</dd>
  </>
);
