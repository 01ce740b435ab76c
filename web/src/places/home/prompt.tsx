import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useLocation, useNavigate } from "@tanstack/react-router";
import { ArrowUp } from "lucide-react";
import { type FormEvent, useEffect, useRef } from "react";
import { environmentsQuery, providersQuery } from "@/api/catalog";
import { ApiError } from "@/api/client";
import { runnersQuery } from "@/api/fleet";
import { createSession, fewSessionsQuery, sessionKeys } from "@/api/sessions";
import type { Input } from "@/api/types";
import { sessionLink } from "@/places/sessions/link";
import { useDraft } from "@/state/drafts";
import { usePrefs } from "@/state/prefs";
import { Button } from "@/ui/button";
import { Field, Select } from "@/ui/field";
import { ErrorBox } from "@/ui/states";
import { Kbd } from "@/ui/text";
import { announce } from "@/ui/toast";
import { harnessChoices, repoAddress, repoChoices } from "./choices";

type Request = Input<"createSession">;

/** One box: what, where, with which agent. What was chosen last is chosen again; a half-typed prompt stays. */
export function PromptBox() {
  const [prompt, setPrompt] = useDraft("/", "prompt");
  const { last, setLast } = usePrefs();
  const navigate = useNavigate();
  const queries = useQueryClient();
  const hash = useLocation({ select: (l) => l.hash });
  const state = useLocation({ select: (l) => l.state.key });
  const box = useRef<HTMLTextAreaElement>(null);
  const key = useRef({ body: "", key: "" });

  const runners = useQuery(runnersQuery);
  const environments = useQuery(environmentsQuery);
  const providers = useQuery(providersQuery);
  const recent = useQuery(fewSessionsQuery({ state: ["terminal"] }, 8));

  useEffect(() => {
    if (hash === "prompt") box.current?.focus();
  }, [hash, state]);

  const harnesses = harnessChoices(runners.data);
  const harness = harnesses.find((h) => h.id === last.harness) ?? harnesses[0]!;
  const known = environments.data?.environments ?? [];
  const environment = known.some((e) => e.environment_id === last.environment) ? last.environment : "";
  const repos = repoChoices(recent.data?.items, known);
  // Never chosen here: that of the newest session.
  const repo = last.repo ?? repos[0] ?? "";
  const models = [...new Set((providers.data?.providers ?? []).flatMap((p) => (p.model ? [p.model] : [])))];

  const create = useMutation({
    mutationFn: (body: Request) => {
      // The same request again (a lost answer, a second press) is the same session.
      const text = JSON.stringify(body);
      if (key.current.body !== text) key.current = { body: text, key: crypto.randomUUID() };
      return createSession(body, key.current.key);
    },
    onSuccess: (session) => {
      key.current = { body: "", key: "" };
      setPrompt("");
      queries.setQueryData(sessionKeys.one(session.sessionId), session);
      void queries.invalidateQueries({ queryKey: sessionKeys.all, refetchType: "all" });
      announce("The session is created.");
      void navigate(sessionLink(session.sessionId));
    },
  });

  function submit(e?: FormEvent) {
    e?.preventDefault();
    if (create.isPending || !prompt.trim() || !repo.trim()) return;
    setLast({ repo });
    create.mutate({
      orgId: "me",
      providerId: harness.id,
      repo: { url: repoAddress(repo) },
      task: prompt.trim(),
      options: {
        ...(environment ? { environmentId: environment } : {}),
        ...(last.model.trim() ? { model: last.model.trim() } : {}),
        ...(last.interactive ? { mode: "interactive" as const } : {}),
      },
    });
  }
  const field = create.error instanceof ApiError ? create.error.field : undefined;
  const wrong = (path: string) => (field === path || field?.startsWith(`${path}.`) ? (create.error?.message ?? undefined) : undefined);

  return (
    <form onSubmit={submit} className="mb-8 rounded-xl border border-line bg-panel p-3 shadow-sm focus-within:border-line-strong" aria-label="New session">
      <label htmlFor="prompt" className="sr-only">
        What is to be done
      </label>
      <textarea
        id="prompt"
        ref={box}
        rows={3}
        value={prompt}
        maxLength={100_000}
        placeholder={harness.id === "shell" ? "A script to run in the repository" : "What is to be done?"}
        onChange={(e) => setPrompt(e.target.value)}
        onKeyDown={(e) => {
          if (e.key === "Enter" && (e.metaKey || e.ctrlKey)) submit();
        }}
        className={`field-sizing-content max-h-[40dvh] min-h-20 w-full resize-none bg-transparent px-1 text-base outline-none ${harness.id === "shell" ? "font-mono" : ""}`}
      />
      <div className="mt-2 grid gap-2 grid-cols-2 lg:grid-cols-[2fr_1.2fr_1.2fr_1fr]">
        <Field label="Repository" className="col-span-2 lg:col-span-1" options={repos} value={repo} onChange={(e) => setLast({ repo: e.target.value })} placeholder="owner/name or an address" spellCheck={false} autoCapitalize="off" required error={wrong("repo")} />
        <Select label="Environment" value={environment} onChange={(e) => setLast({ environment: e.target.value })} error={wrong("options.environmentId")}>
          <option value="">None</option>
          {known.map((e) => (
            <option key={e.environment_id} value={e.environment_id}>
              {e.name}
            </option>
          ))}
        </Select>
        <Select label="Agent" value={harness.id} onChange={(e) => setLast({ harness: e.target.value })} error={wrong("providerId")} hint={runners.data && !harness.offered ? "No connected worker has it: the session will wait." : undefined}>
          {harnesses.map((h) => (
            <option key={h.id} value={h.id}>
              {h.name}
              {h.offered ? "" : " (no worker)"}
            </option>
          ))}
        </Select>
        <Field label="Model" className="col-span-2 lg:col-span-1" options={models} value={last.model} onChange={(e) => setLast({ model: e.target.value })} placeholder="The agent's own" spellCheck={false} autoCapitalize="off" error={wrong("options.model")} />
      </div>
      <div className="mt-3 flex flex-wrap items-center gap-3">
        <label className="flex items-center gap-2 text-[13px] text-muted">
          <input type="checkbox" className="size-4 accent-(--accent-fill)" checked={last.interactive} onChange={(e) => setLast({ interactive: e.target.checked })} />
          Stays open for further prompts
        </label>
        <span className="ml-auto hidden items-center gap-2 sm:flex">
          <Kbd keys={/Mac|iPhone|iPad/.test(navigator.platform) ? "⌘ ↵" : "Ctrl ↵"} />
        </span>
        <Button kind="primary" type="submit" busy={create.isPending} disabled={!prompt.trim() || !repo.trim()} icon={<ArrowUp className="size-4" aria-hidden />} className="ml-auto sm:ml-0">
          {create.isPending ? "Creating…" : "Start session"}
        </Button>
      </div>
      {create.isError && <ErrorBox error={create.error} className="mt-3" />}
    </form>
  );
}
