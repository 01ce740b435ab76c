import { useMutation, useQueryClient } from "@tanstack/react-query";
import { ArrowUp, CornerDownRight, Hand, Pencil, Trash2 } from "lucide-react";
import { type FormEvent, useEffect, useLayoutEffect, useRef, useState } from "react";
import { isEnded, sessionKeys } from "@/api/sessions";
import type { SessionDetail } from "@/api/types";
import { useActions } from "@/keys/registry";
import { readDraft, useDraft } from "@/state/drafts";
import { Button, IconButton } from "@/ui/button";
import { ErrorBox } from "@/ui/states";
import { Kbd, visible } from "@/ui/text";
import { announce, toastError } from "@/ui/toast";
import { act, addPrompt, changePrompt, type Prompt, promptsQuery, withdrawPrompt } from "./calls";

const MAX = 100_000;

/** Why nothing can be said now; undefined: it can. */
export function silentWhy(s: SessionDetail, viewer: boolean): string | undefined {
  if (isEnded(s.state)) return viewer ? "The session has ended." : "The session has ended. A fork goes on from one of its checkpoints.";
  if (s.state === "STOPPING") return "The session is stopping.";
  if (viewer) return "You may watch this session; prompts need the role of an operator.";
  if (s.mode !== "interactive") return "This session does one task and takes no further prompts. Type into its terminal, or fork it when it has ended.";
  return undefined;
}

export function Composer({ session: s, prompts, viewer, onSend, onFork }: { session: SessionDetail; prompts: Prompt[] | undefined; viewer: boolean; onSend(): void; onFork(): void }) {
  const queries = useQueryClient();
  const id = s.sessionId;
  const at = `/sessions/${id}`;
  const [draft, setDraft] = useDraft(at, "prompt");
  const box = useRef<HTMLTextAreaElement>(null);
  const why = silentWhy(s, viewer);
  const waiting = prompts?.filter((p) => p.state === "queued") ?? [];
  const working = prompts?.find((p) => p.state === "running" || p.state === "sent");
  const reread = () => {
    void queries.invalidateQueries({ queryKey: promptsQuery(id).queryKey });
    void queries.invalidateQueries({ queryKey: sessionKeys.one(id), exact: true });
  };

  const interrupt = useMutation({ mutationFn: () => act(id, "interrupt"), onSuccess: reread, onError: (e) => toastError("Not interrupted", e) });
  // One after the other, so that they queue in the order in which they were written.
  const send = useMutation({
    scope: { id: `prompts ${id}` },
    mutationFn: async ({ text, now, key }: { text: string; now: boolean; key: string }) => {
      const queued = await addPrompt(id, { prompt: text, ...(now ? { first: true } : {}) }, key);
      if (now && queued.state === "queued") await act(id, "interrupt").catch((e) => toastError("It is queued, but what runs was not interrupted", e));
      return queued;
    },
    onSuccess: (queued) => {
      announce(queued.state === "queued" && queued.ahead > 0 ? `Queued, ${queued.ahead} ahead.` : "Sent.");
      reread();
    },
    // What was not taken is in the field again, before what has been written since.
    onError: (_, { text }) => {
      const since = readDraft(at, "prompt");
      setDraft(since ? `${text}\n\n${since}` : text);
    },
  });
  const text = draft.trim();
  const submit = (now = false) => {
    if (!text || why) return;
    send.mutate({ text, now, key: crypto.randomUUID() });
    setDraft("");
    onSend();
    box.current?.focus();
  };

  useActions(
    [
      { id: "prompt", label: "Write a prompt", group: "Session", keys: "i", run: () => box.current?.focus() },
      ...(working ? [{ id: "interrupt", label: "Interrupt what runs", group: "Session", run: () => interrupt.mutate() }] : []),
    ],
    !why,
  );
  // As high as what is in it, up to a third of the page.
  useLayoutEffect(() => {
    const el = box.current;
    if (!el) return;
    el.style.height = "auto";
    el.style.height = `${Math.min(el.scrollHeight + 2, innerHeight / 3)}px`;
  }, [draft, why]);

  if (why) {
    return (
      <div className="shrink-0 border-t border-line px-4 py-2.5 text-muted" role="note">
        <div className="mx-auto flex min-h-8 max-w-3xl items-center gap-3">
          <p className="min-w-0 flex-1">{why}</p>
          {isEnded(s.state) && !viewer && (
            <Button size="small" onClick={onFork}>
              Checkpoints…
            </Button>
          )}
        </div>
      </div>
    );
  }
  return (
    <div className="shrink-0 border-t border-line bg-bg px-4 pt-2 pb-3">
      <div className="mx-auto max-w-3xl">
        {waiting.length > 0 && (
          <ol aria-label="Prompts that wait" className="mb-2 max-h-40 divide-y divide-line overflow-y-auto rounded-lg border border-line bg-panel">
            {waiting.map((p, i) => (
              <Waiting key={p.promptId} id={id} prompt={p} place={i + 1} reread={reread} />
            ))}
          </ol>
        )}
        {send.isError && <ErrorBox error={send.error} className="mb-2" />}
        <form
          onSubmit={(e: FormEvent) => {
            e.preventDefault();
            submit();
          }}
          className="rounded-xl border border-line-strong bg-panel focus-within:border-accent"
        >
          <label htmlFor="prompt" className="sr-only">
            Prompt
          </label>
          <textarea
            id="prompt"
            ref={box}
            rows={2}
            maxLength={MAX}
            value={draft}
            onChange={(e) => setDraft(e.target.value)}
            onKeyDown={(e) => {
              if (e.key === "Enter" && (e.metaKey || e.ctrlKey)) {
                e.preventDefault();
                submit(e.shiftKey);
              } else if (e.key === "Escape") e.currentTarget.blur();
            }}
            placeholder={working ? "What comes next?" : "What is to be done?"}
            className="block w-full resize-none bg-transparent px-3 pt-2.5 outline-none focus-visible:outline-none"
          />
          <div className="flex items-center gap-2 px-2 pb-2">
            <span className="hidden items-center gap-1.5 px-1 text-xs text-muted sm:flex">
              <Kbd keys="Ctrl Enter" /> {working ? "queue" : "send"}
            </span>
            {draft.length > MAX * 0.9 && <span className="text-xs text-muted tabular-nums">{(MAX - draft.length).toLocaleString()} left</span>}
            <span className="ml-auto flex gap-2">
              {working && !text && (
                <Button size="small" busy={interrupt.isPending} onClick={() => interrupt.mutate()} icon={<Hand className="size-3.5" aria-hidden />}>
                  Interrupt
                </Button>
              )}
              {working && text && (
                <Button size="small" title="Ends what runs and does this first" onClick={() => submit(true)} icon={<CornerDownRight className="size-3.5" aria-hidden />}>
                  Interrupt and send
                </Button>
              )}
              <Button size="small" kind="primary" type="submit" disabled={!text} icon={<ArrowUp className="size-3.5" aria-hidden />}>
                {send.isPending && !text ? "Sending…" : working || waiting.length ? "Queue" : "Send"}
              </Button>
            </span>
          </div>
        </form>
      </div>
    </div>
  );
}

function Waiting({ id, prompt: p, place, reread }: { id: string; prompt: Prompt; place: number; reread(): void }) {
  const at = `/sessions/${id}`;
  const [draft, setDraft] = useDraft(at, `prompt ${p.promptId}`);
  const [editing, edit] = useState(draft !== "");
  const done = () => {
    setDraft("");
    edit(false);
    reread();
  };
  const field = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    if (editing) field.current?.focus();
  }, [editing]);
  const change = useMutation({ mutationFn: (text: string) => changePrompt(id, p.promptId, text), onSuccess: done, onError: reread });
  const withdraw = useMutation({ mutationFn: () => withdrawPrompt(id, p.promptId), onSuccess: done, onError: (e) => (toastError("Not withdrawn", e), reread()) });
  const text = draft || p.prompt;
  return (
    <li className="px-3 py-1.5">
      {editing ? (
        <div className="space-y-2">
          <label htmlFor={`edit-${p.promptId}`} className="sr-only">
            Prompt {place}
          </label>
          <textarea id={`edit-${p.promptId}`} ref={field} rows={3} maxLength={MAX} value={text} onChange={(e) => setDraft(e.target.value)} className="field" onKeyDown={(e) => e.key === "Enter" && (e.metaKey || e.ctrlKey) && text.trim() && change.mutate(text)} />
          <div className="flex justify-end gap-2">
            <Button size="small" onClick={() => (setDraft(""), edit(false))}>
              Back
            </Button>
            <Button size="small" kind="primary" disabled={!text.trim()} busy={change.isPending} onClick={() => change.mutate(text)}>
              Change
            </Button>
          </div>
          {change.isError && <ErrorBox error={change.error} />}
        </div>
      ) : (
        <div className="flex items-center gap-2">
          <span className="w-5 shrink-0 text-center text-[13px] text-muted tabular-nums">{place}</span>
          <span className="min-w-0 flex-1 truncate">{visible(p.prompt)}</span>
          <IconButton label={`Change prompt ${place}`} onClick={() => edit(true)}>
            <Pencil className="size-4" aria-hidden />
          </IconButton>
          <IconButton label={`Withdraw prompt ${place}`} disabled={withdraw.isPending} onClick={() => withdraw.mutate()}>
            <Trash2 className="size-4" aria-hidden />
          </IconButton>
        </div>
      )}
    </li>
  );
}
