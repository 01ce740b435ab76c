import { useInfiniteQuery, useMutation, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { ArrowLeft, Inbox, ShieldCheck } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import { ApiError } from "@/api/client";
import { type Decision, gateKeys, gatesQuery, resolveGate } from "@/api/gates";
import { sessionKeys } from "@/api/sessions";
import type { Approval } from "@/api/types";
import { useActions } from "@/keys/registry";
import { useRereadMs } from "@/live/hooks";
import { sessionLink } from "@/places/sessions/link";
import { Page } from "@/shell/page";
import { readDraft, useDraft, writeDraft } from "@/state/drafts";
import { Badge } from "@/ui/badge";
import { Button } from "@/ui/button";
import { cx } from "@/ui/cx";
import { Empty, ErrorBox, Skeleton } from "@/ui/states";
import { CodeText, Kbd, visible } from "@/ui/text";
import { Time } from "@/ui/time";
import { announce, toast } from "@/ui/toast";
import { exactOf, questionOf } from "./exact";
import { Risk } from "./line";

export function Gates() {
  const every = useRereadMs();
  const gates = useInfiniteQuery({ ...gatesQuery, refetchInterval: every });
  const items = gates.data?.pages.flatMap((p) => p.items) ?? [];
  const chosen = useSearch({ from: "/gates", select: (s) => s.gate });
  const navigate = useNavigate();
  const at = items.findIndex((g) => g.approvalId === chosen);
  const gate = items[at];
  const first = items[0]?.approvalId;
  const byItself = useRef(chosen === undefined);
  const choose = (g: Approval | undefined, unasked = false) => {
    byItself.current = unasked;
    void navigate({ to: "/gates", search: g ? { gate: g.approvalId } : {}, replace: true });
  };
  // A desk opens the first by itself, and then stays with it: what comes in later does not slip under somebody's hand.
  useEffect(() => {
    if (!chosen && first && matchMedia("(min-width: 48rem)").matches) void navigate({ to: "/gates", search: { gate: first }, replace: true });
  }, [chosen, first, navigate]);
  const move = (by: number) => choose(items[Math.min(items.length - 1, Math.max(0, Math.max(at, 0) + by))]);

  useActions(
    [
      { id: "gate next", label: "Next gate", group: "Gates", keys: "j", keyOnly: true, run: () => move(1) },
      { id: "gate before", label: "Gate before", group: "Gates", keys: "k", keyOnly: true, run: () => move(-1) },
    ],
    items.length > 0,
  );

  // Decided elsewhere, or too late: said, instead of showing another in the same place.
  const gone = chosen !== undefined && at < 0;
  return (
    <Page title="Gates" wide fill actions={items.length > 0 && <span className="hidden items-center gap-2 text-[13px] text-muted md:flex"><Kbd keys="j k" /> move <Kbd keys="a" /> allow <Kbd keys="d" /> deny</span>}>
      {gates.isError && !gates.data ? (
        <ErrorBox error={gates.error} retry={() => void gates.refetch()} />
      ) : gates.isPending ? (
        <Skeleton rows={4} />
      ) : items.length === 0 ? (
        <Empty icon={<ShieldCheck className="size-8" aria-hidden />} title="Nothing waits for you">
          When an agent wants to push, deploy or use what its policy asks for first, it stops and the request is here until somebody decides or its time is over.
        </Empty>
      ) : (
        <div className="grid min-h-0 flex-1 md:grid-cols-[20rem_1fr] md:gap-6 lg:grid-cols-[24rem_1fr]">
          <ul aria-label="Gates that wait" className={cx("min-h-0 overflow-y-auto pb-4", chosen && "hidden md:block")}>
            {items.map((g) => (
              <li key={g.approvalId}>
                <button
                  type="button"
                  aria-current={g === gate || undefined}
                  onClick={() => choose(g)}
                  className={cx("mb-1 w-full rounded-lg border border-line bg-panel p-3 text-left hover:bg-hover md:border-transparent md:bg-transparent", g === gate && "md:border-line! md:bg-panel!")}
                >
                  <span className="flex items-start gap-2">
                    <Inbox className="mt-0.5 size-4 shrink-0 text-warn" aria-hidden />
                    <span className="line-clamp-2 min-w-0 flex-1 font-medium break-words">{g.description || questionOf(g)}</span>
                  </span>
                  <span className="mt-1.5 flex items-center gap-2 pl-6 text-[13px] text-muted">
                    <Risk risk={g.risk} />
                    <Time at={g.requestedAt} className="ml-auto" />
                  </span>
                </button>
              </li>
            ))}
            {gates.hasNextPage && (
              <Button className="w-full" busy={gates.isFetchingNextPage} onClick={() => void gates.fetchNextPage()}>
                More
              </Button>
            )}
          </ul>
          {gone && (
            <Empty icon={<ShieldCheck className="size-8" aria-hidden />} title="This gate is decided or over" action={<Button onClick={() => choose(items[0])}>Show the next</Button>}>
              Somebody decided it elsewhere, its time ran out, or its session ended.
            </Empty>
          )}
          {gate && (
            <div className="min-h-0 md:pb-6">
              <Gate key={gate.approvalId} gate={gate} back={() => choose(undefined)} unasked={byItself.current} next={() => choose(items[items.indexOf(gate) + 1] ?? items[items.indexOf(gate) - 1], true)} />
            </div>
          )}
        </div>
      )}
    </Page>
  );
}

const SEEN_MS = 400;
const DONE = { allow: "Allowed", deny: "Denied" };

function Gate({ gate, unasked, back, next }: { gate: Approval; unasked: boolean; back(): void; next(): void }) {
  const queries = useQueryClient();
  const draftAt = `/gates/${gate.approvalId}`;
  const [reason, setReason] = useDraft(draftAt, "reason");
  const [denying, deny] = useState(() => readDraft(draftAt, "reason") !== "");
  const field = useRef<HTMLTextAreaElement>(null);
  const votes = gate.votesNeeded ?? 0;

  // Never optimistic: it counts only when the server has written it.
  const decide = useMutation({
    mutationFn: (decision: Decision) => resolveGate(gate, decision),
    onSuccess: (session, decision) => {
      const still = session.pendingApprovals.some((a) => a.approvalId === gate.approvalId);
      queries.setQueryData(sessionKeys.one(session.sessionId), session);
      void queries.invalidateQueries({ queryKey: gateKeys.all });
      void queries.invalidateQueries({ queryKey: sessionKeys.all });
      const text = still ? "Your vote is recorded; one more person has to allow it." : `${DONE[decision.decision]}: ${gate.description ?? questionOf(gate)}`;
      toast(text);
      announce(text);
      writeDraft(draftAt, "reason", "");
      if (!still) next();
    },
    onError: (e) => {
      if (e instanceof ApiError && (e.status === 409 || e.status === 404)) void queries.invalidateQueries({ queryKey: gateKeys.all });
    },
  });
  const busy = decide.isPending;
  // The second press on a key is meant for what was seen, not for what has just taken its place by itself.
  const since = useRef(unasked ? Date.now() : 0);
  const say = (decision: Decision) => !busy && Date.now() - since.current >= SEEN_MS && decide.mutate(decision);
  const refuse = () => {
    if (denying) say({ decision: "deny", ...(reason.trim() ? { reason: reason.trim() } : {}) });
    else deny(true);
  };
  useEffect(() => {
    if (denying) field.current?.focus();
  }, [denying]);

  useActions([
    { id: "allow", label: "Allow once", group: "Gates", keys: "a", run: () => say({ decision: "allow", scope: "once" }) },
    { id: "allow session", label: "Allow for this session", group: "Gates", keys: "shift+a", run: () => say({ decision: "allow", scope: "session" }) },
    { id: "deny", label: "Deny with a reason", group: "Gates", keys: "d", run: () => deny(true) },
  ]);

  const exact = exactOf(gate);
  return (
    <article aria-label={questionOf(gate)} className="flex h-full min-h-0 flex-col md:h-auto md:max-h-full md:rounded-xl md:border md:border-line md:bg-panel">
      <div className="min-h-0 flex-1 overflow-y-auto pb-4 md:p-5">
        <Button kind="quiet" className="-ml-2 mb-1 md:hidden" onClick={back} icon={<ArrowLeft className="size-4" aria-hidden />}>
          All gates
        </Button>
        <div className="flex flex-wrap items-center gap-2">
          <h2 className="text-lg font-semibold">{questionOf(gate)}</h2>
          <Risk risk={gate.risk} />
          {votes > 1 && <Badge tone="info">{votes} people have to allow it</Badge>}
        </div>
        {gate.description && <p className="mt-1 break-words whitespace-pre-wrap">{visible(gate.description)}</p>}
        <p className="mt-1 flex flex-wrap gap-x-3 text-[13px] text-muted">
          <span>
            Asked <Time at={gate.requestedAt} />
          </span>
          {gate.expiresAt && (
            <span>
              Denied by itself <Time at={gate.expiresAt} />
            </span>
          )}
          {gate.sessionId && (
            <Link {...sessionLink(gate.sessionId)} className="text-accent underline underline-offset-2">
              Session
            </Link>
          )}
        </p>
        <div className="mt-4 space-y-3">
          {exact.map((e) => (
            <div key={e.label}>
              <p className="mb-1 text-xs text-muted">{e.label}</p>
              <CodeText text={e.text} label={e.label} />
            </div>
          ))}
          {exact.length === 0 && <p className="text-muted">The agent says no more than this.</p>}
        </div>
        {denying && (
          <div className="mt-4">
            <label htmlFor="reason" className="mb-1 block text-[13px] font-medium text-muted">
              Why not? The agent is told it.
            </label>
            <textarea id="reason" ref={field} rows={3} maxLength={2000} value={reason} onChange={(e) => setReason(e.target.value)} className="field" onKeyDown={(e) => e.key === "Enter" && (e.metaKey || e.ctrlKey) && refuse()} />
          </div>
        )}
        {decide.isError && <ErrorBox error={decide.error} className="mt-4" />}
      </div>
      <footer className="-mx-4 shrink-0 border-t border-line bg-bg px-4 py-3 md:mx-0 md:rounded-b-xl md:bg-panel md:px-5">
        <div className="grid grid-cols-2 gap-2 md:flex">
          {denying ? (
            <>
              <Button size="large" className="order-1 md:h-8.5 md:px-3 md:text-sm" onClick={() => (deny(false), setReason(""))} disabled={busy}>
                Back
              </Button>
              <Button kind="danger" size="large" busy={busy} className="order-2 md:h-8.5 md:px-3 md:text-sm" onClick={refuse}>
                {busy ? "Denying…" : reason.trim() ? "Deny with this reason" : "Deny"}
              </Button>
            </>
          ) : (
            <>
              <Button kind="danger" size="large" className="md:order-3 md:h-8.5 md:px-3 md:text-sm" onClick={refuse} disabled={busy}>
                Deny…
              </Button>
              <Button kind="allow" size="large" busy={busy} className="md:order-1 md:h-8.5 md:px-3 md:text-sm" onClick={() => say({ decision: "allow", scope: "once" })}>
                {busy ? "Deciding…" : "Allow once"}
              </Button>
              <Button className="col-span-2 h-10 md:order-2 md:h-8.5" onClick={() => say({ decision: "allow", scope: "session" })} disabled={busy}>
                Allow for this session
              </Button>
            </>
          )}
        </div>
      </footer>
    </article>
  );
}
