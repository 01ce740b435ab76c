import { useInfiniteQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { Search, SquareTerminal } from "lucide-react";
import { useCallback, useDeferredValue, useEffect, useMemo, useRef, useState } from "react";
import { HARNESSES } from "@/api/catalog";
import { sessionsQuery } from "@/api/sessions";
import { useActions } from "@/keys/registry";
import { useRereadMs } from "@/live/hooks";
import { Page } from "@/shell/page";
import { Button } from "@/ui/button";
import { Select } from "@/ui/field";
import { Empty, ErrorBox, Skeleton } from "@/ui/states";
import { VirtualList } from "@/ui/virtual-list";
import { Peek } from "./peek";
import { SessionRow } from "./row";
import { filtersOf, type SessionSearch } from "./search";

const STATES: { value: NonNullable<SessionSearch["state"]>; label: string }[] = [
  { value: "active", label: "Not ended" },
  { value: "WAITING_FOR_APPROVAL", label: "Waits for you" },
  { value: "RUNNING", label: "Running" },
  { value: "QUEUED", label: "Queued" },
  { value: "PAUSED_BY_HUMAN", label: "Paused" },
  { value: "terminal", label: "Ended" },
  { value: "COMPLETED", label: "Completed" },
  { value: "FAILED", label: "Failed" },
  { value: "TIMED_OUT", label: "Timed out" },
];

function useRowHeight() {
  const wide = "(min-width: 48rem)";
  const [height, setHeight] = useState(() => (matchMedia(wide).matches ? 44 : 60));
  useEffect(() => {
    const media = matchMedia(wide);
    const look = () => setHeight(media.matches ? 44 : 60);
    media.addEventListener("change", look);
    return () => media.removeEventListener("change", look);
  }, []);
  return height;
}

export function Sessions() {
  const search = useSearch({ from: "/sessions" });
  const navigate = useNavigate();
  const every = useRereadMs();
  const filters = useMemo(() => filtersOf(search), [search.state, search.harness, search.q]);
  const list = useInfiniteQuery({
    ...sessionsQuery(filters),
    placeholderData: (before) => before,
    // Without the org's feed; a long list that was scrolled through is not read again as a whole.
    refetchInterval: (q) => ((q.state.data?.pages.length ?? 0) > 3 ? false : every),
  });
  const items = useMemo(() => list.data?.pages.flatMap((p) => p.items) ?? [], [list.data]);
  const total = list.data?.pages[0]?.total;
  const height = useRowHeight();
  const [at, setAt] = useState(-1);
  const word = useRef<HTMLInputElement>(null);

  const change = useCallback((part: Partial<SessionSearch>, replace = false) => void navigate({ to: "/sessions", search: (s: SessionSearch) => clean({ ...s, ...part }), replace }), [navigate]);
  const { fetchNextPage, hasNextPage, isFetchingNextPage } = list;
  const more = useCallback(() => {
    if (hasNextPage && !isFetchingNextPage) void fetchNextPage();
  }, [fetchNextPage, hasNextPage, isFetchingNextPage]);

  useActions([
    { id: "row next", label: "Next session", group: "Sessions", keys: "j", keyOnly: true, run: () => setAt((i) => Math.min(items.length - 1, i + 1)) },
    { id: "row before", label: "Session before", group: "Sessions", keys: "k", keyOnly: true, run: () => setAt((i) => Math.max(0, i - 1)) },
    { id: "row open", label: "Open session", group: "Sessions", keys: "Enter", keyOnly: true, run: () => items[at] && change({ open: items[at].sessionId }) },
    { id: "row search", label: "Search sessions", group: "Sessions", keys: "/", run: () => word.current?.focus() },
  ]);

  const filtered = search.state || search.harness || search.q;
  const keep = useMemo(() => clean({ state: search.state, harness: search.harness, q: search.q }), [search.state, search.harness, search.q]);
  return (
    <Page title="Sessions" wide fill actions={total !== undefined && <span className="text-[13px] text-muted tabular-nums">{total.toLocaleString()} {total === 1 ? "session" : "sessions"}</span>}>
      <div role="search" className="mb-3 grid grid-cols-2 gap-2 md:grid-cols-[minmax(12rem,24rem)_11rem_11rem_auto]">
        <Words inputRef={word} value={search.q ?? ""} onChange={(q) => change({ q: q || undefined }, true)} />
        <Select label="State" hideLabel value={search.state ?? ""} onChange={(e) => change({ state: (e.target.value || undefined) as SessionSearch["state"] })}>
          <option value="">Every state</option>
          {STATES.map((s) => (
            <option key={s.value} value={s.value}>
              {s.label}
            </option>
          ))}
        </Select>
        <Select label="Agent" hideLabel value={search.harness ?? ""} onChange={(e) => change({ harness: (e.target.value || undefined) as SessionSearch["harness"] })}>
          <option value="">Every agent</option>
          {Object.entries(HARNESSES).map(([id, name]) => (
            <option key={id} value={id}>
              {name}
            </option>
          ))}
        </Select>
        {filtered && (
          <Button kind="quiet" className="justify-self-start" onClick={() => change({ state: undefined, harness: undefined, q: undefined })}>
            Clear filters
          </Button>
        )}
      </div>
      {list.isError && !list.data ? (
        <ErrorBox error={list.error} retry={() => void list.refetch()} />
      ) : list.isPending ? (
        <Skeleton rows={8} />
      ) : items.length === 0 ? (
        <Empty icon={<SquareTerminal className="size-8" aria-hidden />} title={filtered ? "No session is like that" : "No session yet"} action={filtered ? undefined : <Button kind="primary" onClick={() => void navigate({ to: "/", hash: "prompt" })}>Start the first one</Button>}>
          {filtered ? "Fewer filters show more." : "A session is an agent at work on a repository."}
        </Empty>
      ) : (
        <VirtualList
          items={items}
          rowHeight={height}
          keyOf={(s) => s.sessionId}
          label="Sessions"
          current={at}
          onEnd={more}
          className="min-h-0 flex-1 overflow-y-auto rounded-t-lg border border-b-0 border-line bg-panel"
          row={(s, i) => (
            <div className="h-full border-b border-line">
              <SessionRow session={s} current={i === at || s.sessionId === search.open} search={keep} />
            </div>
          )}
          foot={isFetchingNextPage ? <p className="p-3 text-center text-[13px] text-muted">Reading on…</p> : undefined}
        />
      )}
      <Peek id={search.open} close={() => change({ open: undefined })} />
    </Page>
  );
}

const clean = (s: SessionSearch): SessionSearch => Object.fromEntries(Object.entries(s).filter(([, v]) => v !== undefined && v !== ""));

/** Typing is not delayed; the list follows when there is a pause. */
function Words({ inputRef, value, onChange }: { inputRef: React.Ref<HTMLInputElement>; value: string; onChange(q: string): void }) {
  const [text, setText] = useState(value);
  const said = useRef(value);
  const later = useDeferredValue(text);
  useEffect(() => {
    if (value !== said.current) {
      said.current = value;
      setText(value);
    }
  }, [value]);
  useEffect(() => {
    if (later === said.current) return;
    const timer = setTimeout(() => {
      said.current = later;
      onChange(later);
    }, 200);
    return () => clearTimeout(timer);
  }, [later, onChange]);
  return (
    <div className="relative col-span-2 md:col-span-1">
      <Search className="pointer-events-none absolute top-2.5 left-2.5 size-4 text-muted" aria-hidden />
      <input ref={inputRef} type="search" aria-label="Words in the task" placeholder="Search tasks" value={text} maxLength={400} onChange={(e) => setText(e.target.value)} onKeyDown={(e) => e.key === "Escape" && e.currentTarget.blur()} className="field pl-8!" />
    </div>
  );
}
