import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Plus, X } from "lucide-react";
import { useEffect, useMemo, useState } from "react";
import { isEnded, sessionKeys } from "@/api/sessions";
import { useLive } from "@/live/hooks";
import { type Source, TerminalView } from "@/terminal/view";
import { Button, IconButton } from "@/ui/button";
import { cx } from "@/ui/cx";
import { toastError } from "@/ui/toast";
import { closeTerminal, eventsPage, openTerminal, terminalBytes, typeInto } from "./calls";
import type { TabProps } from "./session";

const TYPES = ["TERMINAL_OPENED", "TERMINAL_CLOSED"];

export default function TerminalTab({ session: s, log, viewer, search, change, shownNow }: TabProps & { shownNow: boolean }) {
  const id = s.sessionId;
  const live = useLive();
  const queries = useQueryClient();
  const key = useMemo(() => [...sessionKeys.one(id), "terminals"], [id]);
  const log0 = useQuery({ queryKey: key, queryFn: ({ signal }) => eventsPage(id, 0, 1000, signal, TYPES) });
  const [own, addOwn] = useState<number[]>([]);
  useEffect(() => log.onEvent((e) => TYPES.includes(e.type) && void queries.invalidateQueries({ queryKey: key })), [log, queries, key]);

  const state = new Map<number, boolean>([[0, true]]);
  for (const e of log0.data?.events ?? []) {
    const n = Number(e.data.terminal);
    if (n >= 1 && n <= 7) state.set(n, e.type === "TERMINAL_OPENED");
  }
  for (const n of own) if (!state.has(n)) state.set(n, true);
  const at = search.t ?? 0;
  if (!state.has(at)) state.set(at, false);
  const all = [...state.keys()].sort((a, b) => a - b);
  const [seen, see] = useState<ReadonlySet<number>>(new Set());
  useEffect(() => {
    if (shownNow) see((o) => (o.has(at) ? o : new Set(o).add(at)));
  }, [at, shownNow]);

  const runs = s.state === "RUNNING" || s.state === "WAITING_FOR_APPROVAL";
  const ended = isEnded(s.state);
  const open = useMutation({
    mutationFn: () => openTerminal(id, {}),
    onSuccess: (made) => {
      if (made.terminal === undefined) return;
      addOwn((o) => [...o, made.terminal!]);
      change({ tab: "terminal", t: made.terminal });
    },
    onError: (e) => toastError("No terminal was opened", e),
  });
  const close = useMutation({
    mutationFn: (n: number) => closeTerminal(id, n),
    onSuccess: (_, n) => {
      addOwn((o) => o.filter((x) => x !== n));
      if (at === n) change({ t: undefined });
      void queries.invalidateQueries({ queryKey: key });
    },
    onError: (e) => toastError("Not closed", e),
  });

  // Who types alone, if anybody does.
  const [control, setControl] = useState<string | null>(null);
  const [mine, setMine] = useState(false);
  useEffect(
    () =>
      log.onMessage((m) => {
        if (m.type !== "event" || m.event !== "control") return;
        const user = (m.data as { userId?: string | null })?.userId ?? null;
        setControl(user);
        if (!user) setMine(false);
      }),
    [log],
  );
  const sources = useMemo(
    () =>
      Array.from({ length: 8 }, (_, n): Source => ({
        read: (from, limit, signal) => terminalBytes(id, n, from, limit, signal),
        type: (data) => typeInto(id, n, data),
        onBytes: (fn) => log.onBytes(fn),
        watch: (t, offset) => log.watch(t, offset),
      })),
    [id, log],
  );
  const writable = !viewer && runs && (control === null || mine);
  const why = ended ? "The session has ended; this is what was shown." : viewer ? "You watch: typing needs the role of an operator." : !runs ? "Typing is possible as soon as it runs." : control !== null && !mine ? "Somebody else has control; only they type." : undefined;
  const name = (n: number) => (n === 0 ? "Agent" : `Shell ${n}`);
  return (
    <div className="flex min-h-0 flex-1 flex-col">
      <div className="flex shrink-0 items-center gap-1 border-b border-line px-2 py-1">
        <div role="group" aria-label="Terminals" className="flex min-w-0 flex-1 gap-1 overflow-x-auto">
          {all.map((n) => (
            <span key={n} className={cx("flex items-center rounded-md", n === at && "bg-hover")}>
              <button type="button" aria-pressed={n === at} onClick={() => change({ tab: "terminal", t: n || undefined })} className={cx("h-7 rounded-md px-2.5 text-[13px] whitespace-nowrap", n === at ? "font-medium" : "text-muted hover:text-text")}>
                {name(n)}
                {n > 0 && !state.get(n) && <span className="text-muted"> (closed)</span>}
              </button>
              {n > 0 && state.get(n) && !viewer && runs && (
                <IconButton label={`Close ${name(n)}`} className="size-6!" onClick={() => close.mutate(n)}>
                  <X className="size-3.5" aria-hidden />
                </IconButton>
              )}
            </span>
          ))}
          {!viewer && runs && all.filter((n) => state.get(n)).length < 8 && (
            <IconButton label="Open a shell in the workspace" className="size-7!" disabled={open.isPending} onClick={() => open.mutate()}>
              <Plus className="size-4" aria-hidden />
            </IconButton>
          )}
        </div>
        {!viewer && runs && (
          <Button
            size="small"
            kind="quiet"
            title="While one has control nobody else types or changes the size"
            onClick={() => {
              if (live.send({ type: mine ? "release_control" : "take_control", messageId: `control-${id}`, sessionId: id })) setMine(!mine);
            }}
          >
            {mine ? "Release control" : "Take control"}
          </Button>
        )}
      </div>
      {why && <p className="shrink-0 border-b border-line px-3 py-1 text-[13px] text-muted">{why}</p>}
      {all
        .filter((n) => seen.has(n) || n === at)
        .map((n) => (
          <div key={n} className={cx("min-h-0 flex-1 flex-col", n === at ? "flex" : "hidden")}>
            <TerminalView id={id} terminal={n} source={sources[n]!} writable={writable && (n === 0 || state.get(n) === true)} visible={n === at && shownNow} label={`Terminal, ${name(n)}`} />
          </div>
        ))}
    </div>
  );
}
