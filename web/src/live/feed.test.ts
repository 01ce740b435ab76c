import { QueryClient } from "@tanstack/react-query";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { gateKeys } from "@/api/gates";
import { sessionKeys } from "@/api/sessions";
import type { SessionDetail } from "@/api/types";
import { orgFeed } from "./feed";

const detail = (sessionId: string, state: SessionDetail["state"], more: Partial<SessionDetail> = {}): SessionDetail => ({
  sessionId, orgId: "o", state, providerId: "codex", repoUrl: "https://example.org/a/b", startedAt: "2026-01-01T00:00:00.000Z", createdAt: "2026-01-01T00:00:00.000Z",
  durationSeconds: 0, taskSummary: "do it", mode: "task", usage: { tokensIn: 0, tokensOut: 0, apiCalls: 0, computeSeconds: 0 }, artifacts: [], attempt: 0, createdBy: "u",
  rev: 1, updatedAt: "2026-01-01T00:00:00.000Z", lastEventSeq: 1, recentEvents: [], pendingApprovals: [], ...more,
});
const pages = (items: unknown[]) => ({ pages: [{ items, total: items.length, page: 1, pageSize: 100, hasMore: false }], pageParams: [""] });
const changed = (session: SessionDetail) => ({ type: "session", action: "state_change", sessionId: session.sessionId, data: { session } });

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

it("changes the row where it is shown, and the session itself", () => {
  queries.setQueryData(sessionKeys.list({}), pages([detail("a", "QUEUED"), detail("b", "QUEUED")]));
  feed(changed(detail("b", "RUNNING")));
  const list = queries.getQueryData<ReturnType<typeof pages>>(sessionKeys.list({}))!;
  expect(list.pages[0]!.items.map((s) => (s as SessionDetail).state)).toEqual(["QUEUED", "RUNNING"]);
  expect(queries.getQueryData<SessionDetail>(sessionKeys.one("b"))?.state).toBe("RUNNING");
  expect(reads()).not.toContain(JSON.stringify(sessionKeys.list({})));
});

it("takes nothing away from a session of which it says only what lists show", () => {
  queries.setQueryData(sessionKeys.one("b"), detail("b", "QUEUED", { lastEventSeq: 7 }));
  const { pendingApprovals: _, usage: __, lastEventSeq: ___, ...listed } = detail("b", "RUNNING");
  feed(changed(listed as SessionDetail));
  expect(queries.getQueryData<SessionDetail>(sessionKeys.one("b"))).toMatchObject({ state: "RUNNING", pendingApprovals: [], lastEventSeq: 7 });
  expect(reads()).toContain(JSON.stringify(sessionKeys.one("b")));
  feed(changed({ ...listed, state: "QUEUED", rev: 0 } as SessionDetail));
  expect(queries.getQueryData<SessionDetail>(sessionKeys.one("b"))?.state).toBe("RUNNING");
  feed(changed({ ...listed, sessionId: "c" } as SessionDetail));
  expect(queries.getQueryData(sessionKeys.one("c"))).toBeUndefined();
});

it("reads a list again when a session comes into it or leaves it, once for many", () => {
  const active = { state: ["active" as const] };
  queries.setQueryData(sessionKeys.list(active), pages([detail("a", "RUNNING")]));
  feed(changed(detail("a", "COMPLETED")));
  feed(changed(detail("c", "CREATED")));
  feed(changed(detail("d", "CREATED")));
  expect(reads().filter((k: string) => k === JSON.stringify(sessionKeys.list(active)))).toHaveLength(1);
});

it("leaves a list alone whose filters say no", () => {
  const shell = { providerId: "shell" as const };
  queries.setQueryData(sessionKeys.list(shell), pages([]));
  feed(changed(detail("a", "RUNNING")));
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
