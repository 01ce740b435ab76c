import { QueryClient } from "@tanstack/react-query";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { gateKeys } from "@/api/gates";
import { sessionKeys } from "@/api/sessions";
import type { Session, SessionDetail } from "@/api/types";
import { orgFeed } from "./feed";

const AT = "2026-01-01T00:00:00.000Z";
const row = (sessionId: string, state: Session["state"], rev = 1): Session => ({
  sessionId, orgId: "o", state, rev, providerId: "codex", repoUrl: "https://example.org/a/b", startedAt: AT, createdAt: AT, updatedAt: AT, durationSeconds: 0, taskSummary: "do it", mode: "task",
});
const pages = (items: unknown[]) => ({ pages: [{ items, total: items.length, page: 1, pageSize: 100, hasMore: false }], pageParams: [""] });
const changed = (session: Session) => ({ type: "session", feed: "org", action: "state_change", sessionId: session.sessionId, data: { session } });

let queries: QueryClient;
let reread: { mock: { calls: unknown[][] } };
const spoken: string[] = [];
let feed: ReturnType<typeof orgFeed>;

beforeEach(() => {
  vi.useFakeTimers();
  queries = new QueryClient();
  reread = vi.spyOn(queries, "invalidateQueries");
  spoken.length = 0;
  feed = orgFeed(queries, (text) => spoken.push(text));
});
afterEach(() => vi.useRealTimers());

const reads = () => {
  vi.advanceTimersByTime(1000);
  return reread.mock.calls.map((c: unknown[]) => JSON.stringify((c[0] as { queryKey: unknown }).queryKey));
};

it("changes the row where it is shown, and what the session has of it", () => {
  queries.setQueryData(sessionKeys.list({}), pages([row("a", "QUEUED"), row("b", "QUEUED")]));
  queries.setQueryData(sessionKeys.one("b"), { ...row("b", "QUEUED"), pendingApprovals: [], createdBy: "u" });
  feed(changed(row("b", "RUNNING", 2)));
  const list = queries.getQueryData<ReturnType<typeof pages>>(sessionKeys.list({}))!;
  expect(list.pages[0]!.items.map((s) => (s as Session).state)).toEqual(["QUEUED", "RUNNING"]);
  expect(queries.getQueryData<SessionDetail>(sessionKeys.one("b"))).toMatchObject({ state: "RUNNING", rev: 2, pendingApprovals: [], createdBy: "u" });
  expect(reads()).not.toContain(JSON.stringify(sessionKeys.list({})));
  expect(reads()).toContain(JSON.stringify(sessionKeys.one("b")));
});

it("makes no session out of a row, and nothing old out of something new", () => {
  queries.setQueryData(sessionKeys.list({}), pages([row("a", "COMPLETED", 5)]));
  feed(changed(row("a", "RUNNING", 4)));
  expect(queries.getQueryData<ReturnType<typeof pages>>(sessionKeys.list({}))!.pages[0]!.items).toMatchObject([{ state: "COMPLETED" }]);
  expect(queries.getQueryData(sessionKeys.one("a"))).toBeUndefined();
});

it("reads a list again when a session comes into it or leaves it, once for many", () => {
  const active = { state: ["active" as const] };
  queries.setQueryData(sessionKeys.list(active), pages([row("a", "RUNNING")]));
  feed(changed(row("a", "COMPLETED")));
  feed(changed(row("c", "CREATED")));
  feed(changed(row("d", "CREATED")));
  expect(reads().filter((k: string) => k === JSON.stringify(sessionKeys.list(active)))).toHaveLength(1);
});

it("leaves a list alone whose filters say no", () => {
  const shell = { providerId: "shell" as const };
  queries.setQueryData(sessionKeys.list(shell), pages([]));
  feed(changed(row("a", "RUNNING")));
  expect(reads()).not.toContain(JSON.stringify(sessionKeys.list(shell)));
});

it("shows a gate when it comes, says so, and takes it away when it is decided", () => {
  queries.setQueryData(gateKeys.pending, pages([]));
  const approval = { approvalId: "apr_1", status: "pending", description: "Push to main" };
  feed({ type: "approval_required", sessionId: "a", approval });
  feed({ type: "approval_required", sessionId: "a", approval });
  const items = () => queries.getQueryData<ReturnType<typeof pages>>(gateKeys.pending)!.pages[0]!.items;
  expect(items()).toEqual([{ ...approval, sessionId: "a" }]);
  expect(spoken[0]).toContain("Push to main");
  feed({ type: "approval_resolved", sessionId: "a", approvalId: "apr_1" });
  expect(items()).toEqual([]);
});

it("reads every list again after a gap", () => {
  feed({ type: "event", event: "org_gap", data: {} });
  expect(reads()).toEqual(expect.arrayContaining(['["sessions"]', '["gates"]', '["fleet"]']));
});
