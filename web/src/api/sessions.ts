import { infiniteQueryOptions, queryOptions } from "@tanstack/react-query";
import { api } from "./client";
import type { Answer, Input, Query, Session, SessionDetail, SessionState } from "./types";

const BASE = "/api/v1/sessions";
export type Filters = Pick<Query<"listSessions">, "state" | "providerId" | "q">;
export const ENDED: SessionState[] = ["COMPLETED", "FAILED", "TIMED_OUT"];
export const isEnded = (state: SessionState) => ENDED.includes(state);

export const sessionKeys = {
  all: ["sessions"] as const,
  list: (filters: Filters) => ["sessions", "list", filters] as const,
  few: (filters: Filters, count: number) => ["sessions", "few", filters, count] as const,
  one: (id: string) => ["sessions", "one", id] as const,
};

export const sessionsQuery = (filters: Filters) =>
  infiniteQueryOptions({
    queryKey: sessionKeys.list(filters),
    queryFn: ({ pageParam, signal }) =>
      api.get<Answer<"listSessions">>(BASE, { ...filters, pageSize: 100, cursor: pageParam || undefined }, signal),
    initialPageParam: "",
    getNextPageParam: (last) => last.nextCursor ?? undefined,
  });

/** The newest few of a kind. */
export const fewSessionsQuery = (filters: Filters, count: number) =>
  queryOptions({
    queryKey: sessionKeys.few(filters, count),
    queryFn: ({ signal }) => api.get<Answer<"listSessions">>(BASE, { ...filters, pageSize: count }, signal),
  });

export const sessionQuery = (id: string) =>
  queryOptions({
    queryKey: sessionKeys.one(id),
    queryFn: ({ signal }) => api.get<SessionDetail>(`${BASE}/${encodeURIComponent(id)}`, undefined, signal),
  });

/** The key makes a second press of the button, or a retry after a lost answer, the same session. */
export const createSession = (body: Input<"createSession">, key: string) =>
  api.post<SessionDetail>(BASE, body, { headers: { "Idempotency-Key": key } });

export const stopSession = (id: string, reason?: string) =>
  api.post<SessionDetail>(`${BASE}/${encodeURIComponent(id)}/stop`, { graceful: true, ...(reason ? { reason } : {}) });

export const eventsAfter = (id: string, afterSeq: number, signal?: AbortSignal) =>
  api.get<Answer<"getSessionEvents">>(`${BASE}/${encodeURIComponent(id)}/events`, { afterSeq, limit: 500 }, signal);

/** Whether a list with these filters shows it, as far as a client can tell; words are the server's to match. */
export function matches(filters: Filters, s: Session): boolean | "unknown" {
  if (filters.providerId && s.providerId !== filters.providerId) return false;
  const wanted = filters.state;
  if (wanted?.length) {
    const group = isEnded(s.state) ? "terminal" : "active";
    if (!wanted.includes(group) && !wanted.includes(s.state)) return false;
  }
  return filters.q ? "unknown" : true;
}
