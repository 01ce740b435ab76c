import { queryOptions } from "@tanstack/react-query";
import { api } from "./client";
import type { Answer, Input } from "./types";

export const keyKeys = { all: ["keys"] as const, enrolments: ["enrolments"] as const };
export type Key = Answer<"listKeys">["keys"][number];
export type NewKey = Answer<"createKey">;
export type Enrolment = Answer<"listRunnerEnrolments">["items"][number];
export type NewEnrolment = Answer<"createRunnerEnrolment">;

export const keysQuery = queryOptions({
  queryKey: keyKeys.all,
  queryFn: async ({ signal }) => (await api.get<Answer<"listKeys">>("/api/v1/keys", undefined, signal)).keys,
});
export const createKey = (body: Input<"createKey">) => api.post<NewKey>("/api/v1/keys", body);
export const revokeKey = (id: string) => api.delete<unknown>(`/api/v1/keys/${encodeURIComponent(id)}`);

export const enrolmentsQuery = (all: boolean) =>
  queryOptions({
    queryKey: [...keyKeys.enrolments, all],
    queryFn: async ({ signal }) => (await api.get<Answer<"listRunnerEnrolments">>("/api/v1/runner-enrolments", all ? { all: "true" } : undefined, signal)).items,
  });
export const createEnrolment = (body: NonNullable<Input<"createRunnerEnrolment">>) => api.post<NewEnrolment>("/api/v1/runner-enrolments", body);
export const revokeEnrolment = (id: string) => api.delete<unknown>(`/api/v1/runner-enrolments/${encodeURIComponent(id)}`);
