import { queryOptions } from "@tanstack/react-query";
import { api } from "./client";

// /api/auth is the workspace's; its document has no schema for these answers.
export interface Caller {
  id: string;
  name: string;
  role: string;
  admin: boolean;
  orgId: string;
}
export interface Login {
  user: Caller | null;
  expires?: string;
}

export const sessionKey = ["auth", "session"] as const;
export const loginQuery = queryOptions({
  queryKey: sessionKey,
  queryFn: ({ signal }) => api.get<Login>("/api/auth/session", undefined, signal),
  staleTime: 5 * 60_000,
});
export const signIn = (credential: { token: string } | { code: string }) => api.post<Login>("/api/auth/login", credential);
export const signOut = () => api.post<unknown>("/api/auth/logout");
