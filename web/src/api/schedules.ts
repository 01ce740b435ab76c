import { queryOptions } from "@tanstack/react-query";
import { api } from "./client";
import type { Answer, Input, Schemas } from "./types";

const BASE = "/api/v1/agent/schedules";
const at = (id: string) => `${BASE}/${encodeURIComponent(id)}`;
export type Schedule = Schemas["Schedule"];
export type ScheduleBody = Input<"replaceSchedule">;
export type AgentConfig = NonNullable<ScheduleBody["agent_config"]>;
export const scheduleKeys = { all: ["schedules"] as const };

export const schedulesQuery = queryOptions({
  queryKey: [...scheduleKeys.all, "list"],
  queryFn: async ({ signal }) => (await api.get<Answer<"listSchedules">>(BASE, undefined, signal)).schedules,
});
/** Whole: a list cuts long prompts and leaves long settings out. */
export const readSchedule = (id: string, signal?: AbortSignal) => api.get<Schedule>(at(id), undefined, signal);
export const scheduleQuery = (id: string) =>
  queryOptions({ queryKey: [...scheduleKeys.all, "one", id], queryFn: ({ signal }) => readSchedule(id, signal) });

export const createSchedule = (body: ScheduleBody) => api.post<Schedule>(BASE, body);
export const replaceSchedule = (id: string, body: ScheduleBody) => api.put<Schedule>(at(id), body);
export const deleteSchedule = (id: string) => api.delete<unknown>(at(id));
export const pauseSchedule = (id: string) => api.post<Schedule>(`${at(id)}/pause`);
export const resumeSchedule = (id: string) => api.post<Schedule>(`${at(id)}/resume`);
