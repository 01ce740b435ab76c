import { queryOptions } from "@tanstack/react-query";
import { api } from "./client";
import type { Answer, Environment, Input } from "./types";

const BASE = "/api/v1/environments";
export const environmentKeys = { all: ["environments"] as const };
export type EnvironmentBody = Input<"createEnvironment">;

/** Every one that the caller sees: 200 at a time, at most 2,000. */
export const allEnvironmentsQuery = queryOptions({
  queryKey: [...environmentKeys.all, "every"],
  queryFn: async ({ signal }) => {
    const items: Environment[] = [];
    let cursor: string | undefined;
    do {
      const page = await api.get<Answer<"listEnvironments">>(BASE, { limit: 200, cursor }, signal);
      items.push(...page.environments);
      cursor = page.next_cursor ?? undefined;
    } while (cursor && items.length < 2000);
    return items;
  },
});

export const createEnvironment = (body: EnvironmentBody) => api.post<Environment>(BASE, body);
export const replaceEnvironment = (id: string, body: EnvironmentBody) => api.put<Environment>(`${BASE}/${encodeURIComponent(id)}`, body);
export const deleteEnvironment = (id: string) => api.delete<unknown>(`${BASE}/${encodeURIComponent(id)}`);
