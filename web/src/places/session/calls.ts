import { queryOptions } from "@tanstack/react-query";
import { api, errorOf } from "@/api/client";
import { sessionKeys } from "@/api/sessions";
import type { Answer, Input, SessionDetail } from "@/api/types";

const base = (id: string) => `/api/v1/sessions/${encodeURIComponent(id)}`;
/** A session is a run, too, with the same UUID. */
export const runOf = (id: string) => `/api/v1/agent/runs/${encodeURIComponent(id.replace(/^ses_/, "run_"))}`;
const of = (id: string, what: string) => [...sessionKeys.one(id), what] as const;

export type Prompt = Answer<"listPrompts">["items"][number];
export const PAGE = 500;
const PROMPT_PAGE = 200;
const PROMPT_PAGES = 25;

export const eventsPage = (id: string, afterSeq: number, limit: number, signal?: AbortSignal, types?: string[]) =>
  api.get<Answer<"getSessionEvents">>(`${base(id)}/events`, { afterSeq, limit, types }, signal);

export const promptsQuery = (id: string) =>
  queryOptions({
    queryKey: of(id, "prompts"),
    queryFn: async ({ signal }) => {
      const all: Prompt[] = [];
      for (let i = 0; i < PROMPT_PAGES; i++) {
        const last = all.at(-1)?.position;
        const { items } = await api.get<Answer<"listPrompts">>(`${base(id)}/prompts`, last === undefined ? {} : { fromPosition: last + 1 }, signal);
        all.push(...items);
        if (items.length < PROMPT_PAGE) break;
      }
      return all;
    },
  });
export const addPrompt = (id: string, body: Input<"addPrompt">, key: string) => api.post<Answer<"addPrompt">>(`${base(id)}/prompts`, body, { headers: { "Idempotency-Key": key } });
export const changePrompt = (id: string, prompt: string, text: string) => api.patch<Answer<"changePrompt">>(`${base(id)}/prompts/${encodeURIComponent(prompt)}`, { prompt: text });
export const withdrawPrompt = (id: string, prompt: string) => api.delete<Answer<"withdrawPrompt">>(`${base(id)}/prompts/${encodeURIComponent(prompt)}`);

type Act = "pause" | "resume" | "interrupt" | "end";
export const act = (id: string, what: Act) => api.post<SessionDetail>(`${base(id)}/${what}`, {});
export const stopNow = (id: string) => api.post<SessionDetail>(`${base(id)}/stop`, { graceful: false });

export type Checkpoint = Answer<"listCheckpoints">["items"][number];
export const checkpointsQuery = (id: string) => queryOptions({ queryKey: of(id, "checkpoints"), queryFn: ({ signal }) => api.get<Answer<"listCheckpoints">>(`${base(id)}/checkpoints`, undefined, signal) });
export const fork = (id: string, body: Input<"forkSession">, key: string) => api.post<SessionDetail>(`${base(id)}/fork`, body, { headers: { "Idempotency-Key": key } });

export type Diff = Answer<"getDiff">;
export const diffQuery = (id: string) => queryOptions({ queryKey: of(id, "diff"), queryFn: ({ signal }) => api.get<Diff>(`${base(id)}/diff`, { patch: true }, signal), staleTime: 10_000 });
export const artifactsQuery = (id: string) => queryOptions({ queryKey: of(id, "artifacts"), queryFn: ({ signal }) => api.get<Answer<"getArtifacts">>(`${base(id)}/artifacts`, undefined, signal) });
export const filesQuery = (id: string) => queryOptions({ queryKey: of(id, "files"), queryFn: ({ signal }) => api.get<Answer<"listRunFiles">>(`${runOf(id)}/files`, undefined, signal) });
export const fileAddress = (id: string, name: string) => `${runOf(id)}/files/${encodeURIComponent(name)}`;
/** What a task was asked, whole. */
export const taskQuery = (id: string) => queryOptions({ queryKey: of(id, "task"), queryFn: ({ signal }) => api.get<Answer<"getRun">>(runOf(id), undefined, signal), staleTime: Number.POSITIVE_INFINITY });

export const openTerminal = (id: string, size: Input<"openTerminal">) => api.post<Answer<"openTerminal">>(`${base(id)}/terminals`, size);
export const closeTerminal = (id: string, n: number) => api.delete<unknown>(`${base(id)}/terminals/${n}`);

export const typeInto = (id: string, terminal: number, data: string) => api.post<unknown>(`${base(id)}/input`, { data, terminal });

/** A piece of what a terminal has shown; `from` undefined: the last of it. */
export async function terminalBytes(id: string, terminal: number, from: number | undefined, limit: number, signal?: AbortSignal) {
  const query = new URLSearchParams({ terminal: String(terminal), limit: String(limit), ...(from === undefined ? {} : { from: String(from) }) });
  const answer = await fetch(`${base(id)}/terminal?${query}`, { credentials: "same-origin", signal });
  if (!answer.ok) throw errorOf(answer.status, await answer.json().catch(() => undefined), answer.headers);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const offset = Number(answer.headers.get("x-terminal-offset") ?? from ?? 0);
  return { bytes, offset, end: Number(answer.headers.get("x-terminal-end") ?? offset + bytes.length) };
}
