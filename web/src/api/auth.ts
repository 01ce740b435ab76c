import { queryOptions } from "@tanstack/react-query";
import { api } from "./client";
import type { Schemas } from "./types";

export type Caller = Schemas["User"];
/** Who is signed in; nobody: null. */
export type Login = Partial<Pick<Schemas["Login"], "expires">> & { user: Caller | null };

export const sessionKey = ["auth", "session"] as const;
export const loginQuery = queryOptions({
  queryKey: sessionKey,
  queryFn: ({ signal }) => api.get<Login>("/api/auth/session", undefined, signal),
  staleTime: 5 * 60_000,
});
export const signIn = (credential: { token: string } | { code: string }) => api.post<Login>("/api/auth/login", credential);
export const signOut = () => api.post<unknown>("/api/auth/logout");
