import { queryOptions } from "@tanstack/react-query";
import { api } from "./client";
import type { Answer, Harness } from "./types";

export const environmentsQuery = queryOptions({
  queryKey: ["environments"],
  queryFn: ({ signal }) => api.get<Answer<"listEnvironments">>("/api/v1/environments", undefined, signal),
});
export const providersQuery = queryOptions({
  queryKey: ["providers"],
  queryFn: ({ signal }) => api.get<Answer<"listProviders">>("/api/v1/providers", undefined, signal),
});
export const orgQuery = queryOptions({
  queryKey: ["org"],
  queryFn: ({ signal }) => api.get<Answer<"getOwnOrg">>("/api/v1/orgs/me", undefined, signal),
  staleTime: 5 * 60_000,
});

export const HARNESSES: Record<Harness, string> = {
  claude_code: "Claude Code",
  codex: "Codex",
  gemini_cli: "Gemini CLI",
  opencode: "OpenCode",
  omnara: "Omnara",
  shell: "Shell script",
  custom: "Custom agent",
};
export const harnessName = (id: string) => HARNESSES[id as Harness] ?? id;

/** The last two parts of an address: owner/name. */
export function repoName(url: string): string {
  const path = url
    .replace(/^[a-z+]+:\/\/[^/]*/i, "")
    .replace(/^[^@/:]+@[^:/]+:/, "")
    .replace(/\/+$/, "")
    .replace(/\.git$/, "");
  return path.split("/").filter(Boolean).slice(-2).join("/") || url;
}
