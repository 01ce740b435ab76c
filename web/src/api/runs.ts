import { queryOptions } from "@tanstack/react-query";
import { sseParser } from "@/live/sse";
import { api, errorOf } from "./client";
import type { Answer, Input, Schemas } from "./types";

export type Run = Schemas["Run"];
export type RunState = Run["state"];
export type RunRequest = NonNullable<Input<"createRun">>;
const at = (id: string) => `/api/v1/agent/runs/${encodeURIComponent(id)}`;
export const runKeys = { all: ["runs"] as const };
export const isOver = (state: RunState | undefined) => state === "SUCCEEDED" || state === "FAILED" || state === "CANCELLED";

export const runQuery = (id: string) =>
  queryOptions({ queryKey: [...runKeys.all, "one", id], queryFn: ({ signal }) => api.get<Run>(at(id), undefined, signal) });
export const runsOfSchedule = (id: string, count: number) =>
  queryOptions({
    queryKey: [...runKeys.all, "schedule", id, count],
    queryFn: async ({ signal }) => (await api.get<Answer<"listRuns">>("/api/v1/agent/runs", { schedule_id: id, limit: count }, signal)).runs,
  });

/** The key makes a second press, or a retry after a lost answer, the same run. */
export const createRun = (body: RunRequest, key: string) =>
  api.post<Answer<"createRun">>("/api/v1/agent/run", body, { headers: { "Idempotency-Key": key } });
export const cancelRun = (id: string) => api.post<unknown>(`${at(id)}/cancel`);

/** A run is a session, too. */
export const sessionOfRun = (id: string) => id.replace(/^run_/, "ses_");

const SILENT_MS = 45_000;

/** One connection of a run's events from where `after` says on; returns when the server closes it. */
export async function streamRun(id: string, after: number, emit: (event: { event: string; data: unknown; id?: number }) => void, signal: AbortSignal) {
  const silent = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silent.abort(), SILENT_MS);
  };
  heard();
  try {
    const answer = await fetch(`${at(id)}/events${after ? `?after=${after}` : ""}`, {
      credentials: "same-origin",
      headers: { Accept: "text/event-stream" },
      signal: AbortSignal.any([signal, silent.signal]),
    });
    if (!answer.ok || !answer.body) throw errorOf(answer.status, await answer.json().catch(() => undefined), answer.headers);
    const parse = sseParser(({ event, data, id: position }) => {
      const number = Number(position);
      emit({ event, data: JSON.parse(data), id: position !== undefined && Number.isInteger(number) ? number : undefined });
    });
    const reader = answer.body.getReader();
    const decoder = new TextDecoder();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      parse(decoder.decode(value, { stream: true }));
    }
  } finally {
    clearTimeout(timer);
  }
}
