import type { InfiniteData, QueryClient } from "@tanstack/react-query";
import { fleetKeys } from "@/api/fleet";
import { gateKeys } from "@/api/gates";
import { type Filters, matches, sessionKeys, summaryOf } from "@/api/sessions";
import type { Answer, Approval, SessionDetail } from "@/api/types";
import type { Message } from "./client";

type Pages<T> = InfiniteData<T, string>;
type SessionPage = Answer<"listSessions">;
type GatePage = Answer<"listApprovals">;

const REREAD_MS = 400;

/** Keeps what was read as the org's feed says it is now. */
export function orgFeed(queries: QueryClient, announce: (text: string) => void) {
  const waiting = new Map<string, ReturnType<typeof setTimeout>>();
  // Many changes at once are one reading.
  const reread = (key: readonly unknown[]) => {
    const name = JSON.stringify(key);
    if (waiting.has(name)) return;
    waiting.set(
      name,
      setTimeout(() => {
        waiting.delete(name);
        void queries.invalidateQueries({ queryKey: key });
      }, REREAD_MS),
    );
  };

  const session = (detail: SessionDetail) => {
    // What was read meanwhile may be newer than what is told.
    if ((queries.getQueryData<SessionDetail>(sessionKeys.one(detail.sessionId))?.rev ?? 0) > (detail.rev ?? 0)) return;
    const summary = summaryOf(detail);
    // The org's feed says what lists show; what is known beyond that stays until it is read again.
    if ("pendingApprovals" in detail) queries.setQueryData(sessionKeys.one(detail.sessionId), detail);
    else {
      queries.setQueryData<SessionDetail>(sessionKeys.one((detail as SessionDetail).sessionId), (old) => old && { ...old, ...(detail as SessionDetail) });
      reread(sessionKeys.one((detail as SessionDetail).sessionId));
    }
    for (const [key, pages] of queries.getQueriesData<Pages<SessionPage>>({ queryKey: [...sessionKeys.all, "list"] })) {
      const filters = key[2] as Filters;
      const shown = pages?.pages.some((p) => p.items.some((s) => s.sessionId === detail.sessionId)) ?? false;
      const fits = matches(filters, summary);
      if (shown && fits !== false) {
        queries.setQueryData<Pages<SessionPage>>(key, (old) =>
          old && {
            ...old,
            pages: old.pages.map((p) => ({ ...p, items: p.items.map((s) => (s.sessionId === detail.sessionId ? summary : s)) })),
          },
        );
      } else if (shown !== (fits === true)) {
        reread(key);
      }
    }
    reread([...sessionKeys.all, "few"]);
  };

  const gates = (fn: (items: Approval[]) => Approval[]) =>
    queries.setQueryData<Pages<GatePage>>(gateKeys.pending, (old) =>
      old && { ...old, pages: old.pages.map((p, i) => (i === 0 ? { ...p, items: fn(p.items) } : { ...p, items: fn(p.items).filter((a) => p.items.includes(a)) })) },
    );

  return (m: Message) => {
    if (m.type === "session" && m.action === "state_change") {
      const data = m.data as { session?: SessionDetail } | undefined;
      if (data?.session) session(data.session);
      else if (m.feed === "org") reread(sessionKeys.all); // who follows it hears of it anyway
    } else if (m.type === "approval_required") {
      const approval = m.approval as Approval;
      const full = { ...approval, sessionId: approval.sessionId ?? m.sessionId };
      gates((items) => (items.some((a) => a.approvalId === full.approvalId) ? items : [full, ...items]));
      reread(gateKeys.all);
      announce(`A gate waits: ${approval.description ?? approval.action ?? "approval"}`);
    } else if (m.type === "approval_resolved") {
      gates((items) => items.filter((a) => a.approvalId !== m.approvalId));
      reread(gateKeys.all);
    } else if (m.type === "runner_status") {
      reread(fleetKeys.all);
    } else if (m.type === "event" && m.event === "org_gap") {
      for (const key of [sessionKeys.all, gateKeys.all, fleetKeys.all]) reread(key);
    }
  };
}
