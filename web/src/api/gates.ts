import { infiniteQueryOptions } from "@tanstack/react-query";
import { api } from "./client";
import type { Answer, Approval, Input, SessionDetail } from "./types";

export const gateKeys = { all: ["gates"] as const, pending: ["gates", "pending"] as const };

export const gatesQuery = infiniteQueryOptions({
  queryKey: gateKeys.pending,
  queryFn: ({ pageParam, signal }) =>
    api.get<Answer<"listApprovals">>("/api/v1/approvals", { status: "pending", pageSize: 100, cursor: pageParam || undefined }, signal),
  initialPageParam: "",
  getNextPageParam: (last) => last.nextCursor ?? undefined,
});

export type Decision = Input<"resolveApproval">;

export const resolveGate = (gate: Approval, decision: Decision) =>
  api.post<SessionDetail>(
    `/api/v1/sessions/${encodeURIComponent(gate.sessionId ?? "")}/approvals/${encodeURIComponent(gate.approvalId)}`,
    decision,
  );
