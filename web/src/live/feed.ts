import type { InfiniteData, QueryClient } from "@tanstack/react-query";
import { fleetKeys } from "@/api/fleet";
import { gateKeys } from "@/api/gates";
import { type Filters, matches, sessionKeys } from "@/api/sessions";
import type { Answer, Approval, Session, SessionDetail } from "@/api/types";
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

  // What was read may be newer: the greater rev counts.
  const session = (now: Session) => {
    const newer = (old: Session) => (old.sessionId === now.sessionId && old.rev <= now.rev ? now : old);
    // The org's feed says what lists show; what is known beyond that stays until it is read again.
    queries.setQueryData<SessionDetail>(sessionKeys.one(now.sessionId), (old) => old && (old.rev <= now.rev ? { ...old, ...now } : old));
    reread(sessionKeys.one(now.sessionId));
    for (const [key, pages] of queries.getQueriesData<Pages<SessionPage>>({ queryKey: [...sessionKeys.all, "list"] })) {
      const shown = pages?.pages.some((p) => p.items.some((s) => s.sessionId === now.sessionId)) ?? false;
      const fits = matches(key[2] as Filters, now);
      if (shown && fits !== false) {
        queries.setQueryData<Pages<SessionPage>>(key, (old) => old && { ...old, pages: old.pages.map((p) => ({ ...p, items: p.items.map(newer) })) });
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
      const data = m.data as { session?: Session } | undefined;
      if (m.feed !== "org") reread(sessionKeys.one(m.sessionId ?? ""));
      else if (data?.session) session(data.session);
      else reread(sessionKeys.all);
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
