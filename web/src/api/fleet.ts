import { queryOptions } from "@tanstack/react-query";
import { api } from "./client";
import type { Answer, Runner } from "./types";

export const fleetKeys = { all: ["fleet"] as const };

/** Every runner: 100 at a time, at most 1,000. */
export const runnersQuery = queryOptions({
  queryKey: [...fleetKeys.all, "runners"],
  queryFn: async ({ signal }) => {
    const items: Runner[] = [];
    let cursor: string | undefined;
    do {
      const page = await api.get<Answer<"listRunners">>("/api/v1/runners", { pageSize: 100, cursor }, signal);
      items.push(...page.items);
      cursor = page.nextCursor;
    } while (cursor && items.length < 1000);
    return items;
  },
});

export const capacityQuery = queryOptions({
  queryKey: [...fleetKeys.all, "capacity"],
  queryFn: ({ signal }) => api.get<Answer<"getRunnerCapacity">>("/api/v1/runners/capacity", undefined, signal),
});

export const drainRunner = (id: string, reason: string) =>
  api.post<Runner>(`/api/v1/runners/${encodeURIComponent(id)}/drain`, reason ? { reason } : {});
export const undrainRunner = (id: string) => api.post<Runner>(`/api/v1/runners/${encodeURIComponent(id)}/undrain`);

const number = (v: unknown) => (typeof v === "number" && Number.isFinite(v) ? v : undefined);

/** The members of load and capabilities that are shown; the document leaves both open. */
export function loadOf(r: Runner) {
  const max = number(r.capabilities.maxConcurrentSessions) ?? 0;
  const list = (v: unknown) => (Array.isArray(v) ? v.filter((x): x is string => typeof x === "string") : []);
  return {
    active: (number(r.load.activeSessions) ?? 0) + (number(r.load.reservedSessions) ?? 0),
    max,
    cpu: number(r.load.cpuPercent),
    memory: number(r.load.memoryPercent),
    disk: number(r.load.diskPercent),
    harnesses: list(r.capabilities.providers),
    features: list(r.capabilities.features),
    labels: list(r.capabilities.labels),
  };
}
