import { queryOptions } from "@tanstack/react-query";
import { api } from "./client";
import type { Answer } from "./types";

export const loginsKey = ["logins"] as const;
export type LoginEntry = Answer<"listLogins">["sessions"][number];

export const loginsQuery = queryOptions({
  queryKey: loginsKey,
  queryFn: async ({ signal }) => (await api.get<Answer<"listLogins">>("/api/auth/sessions", undefined, signal)).sessions,
});
export const endLogin = (id: string) => api.delete<unknown>(`/api/auth/sessions/${encodeURIComponent(id)}`);
export const createLoginLink = () => api.post<Answer<"createLoginLink">>("/api/v1/keys/login-link");
