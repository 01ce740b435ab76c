import { Download, RotateCw, ScrollText } from "lucide-react";
import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";
import { isEnded } from "@/api/sessions";
import { plain } from "@/terminal/feed";
import { Button, IconButton } from "@/ui/button";
import { Select } from "@/ui/field";
import { Empty, ErrorBox, Skeleton } from "@/ui/states";
import { toastError } from "@/ui/toast";
import { terminalBytes } from "./calls";
import { size } from "./conversation";
import { save } from "./save";
import type { TabProps } from "./session";

const PAGE = 256 * 1024;
/** So much of it is in the page at once; what is further away is dropped and read again. */
const KEPT = 4;
const FOLLOW_MS = 2_000;
const CHUNK = 1024 * 1024;
const DOWNLOAD_MAX = 1024 * 1024 * 1024;

interface Page {
  from: number;
  to: number;
  text: string;
}

/** What the terminal has shown, as plain text, in pages from its end upwards. */
export default function LogTab({ session: s, search, shownNow }: TabProps & { shownNow: boolean }) {
  const id = s.sessionId;
  const [terminal, setTerminal] = useState(search.t ?? 0);
  const [pages, setPages] = useState<Page[] | null>(null);
  const [end, setEnd] = useState(0);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const [tick, setTick] = useState(0);
  const [saved, setSaved] = useState<number | null>(null);
  const ending = useRef(new AbortController());
  const saving = useRef<AbortController | null>(null);
  const box = useRef<HTMLDivElement>(null);
  const keep = useRef<"end" | { height: number } | null>("end");

  const read = useCallback(
    async (from: number | undefined, limit: number) => {
      const got = await terminalBytes(id, terminal, from, limit, ending.current.signal);
      setEnd(got.end);
      return { from: got.offset, to: got.offset + got.bytes.length, text: plain(new TextDecoder().decode(got.bytes)) };
    },
    [id, terminal],
  );
  const load = useCallback(
    async (fn: () => Promise<void>) => {
      setBusy(true);
      setError(undefined);
      try {
        await fn();
      } catch (e) {
        if (!ending.current.signal.aborted) setError(e);
      }
      setBusy(false);
    },
    [],
  );
  const newest = useCallback(
    () =>
      load(async () => {
        const page = await read(undefined, PAGE);
        keep.current = "end";
        setPages([page]);
      }),
    [load, read],
  );
  useEffect(() => {
    const mine = (ending.current = new AbortController());
    setPages(null);
    void newest();
    return () => {
      mine.abort();
      saving.current?.abort();
    };
  }, [newest]);
  useLayoutEffect(() => {
    const el = box.current;
    if (!el || !keep.current) return;
    el.scrollTop = keep.current === "end" ? el.scrollHeight : el.scrollTop + el.scrollHeight - keep.current.height;
    keep.current = null;
  }, [pages]);

  const first = pages?.[0];
  const last = pages?.at(-1);
  const before = () =>
    load(async () => {
      const from = Math.max(0, first!.from - PAGE);
      const page = await read(from, first!.from - from);
      keep.current = { height: box.current?.scrollHeight ?? 0 };
      setPages([page, ...pages!].slice(0, KEPT));
    });
  const after = () =>
    load(async () => {
      const page = await read(last!.to, PAGE);
      if (page.to > page.from) setPages([...pages!, page].slice(-KEPT));
    });

  // Whoever looks at the end of one that goes on sees it go on.
  const goesOn = shownNow && !isEnded(s.state);
  useEffect(() => {
    if (!goesOn || !last || busy) return;
    const timer = setTimeout(() => {
      const el = box.current;
      if (last.to < end || (el && el.scrollHeight - el.scrollTop - el.clientHeight > 80)) return;
      // A page that is not full is read again as a whole: it may have ended inside a character or a colour.
      const full = last.to - last.from >= PAGE;
      read(full ? last.to : last.from, full ? PAGE : PAGE * 2).then(
        (page) => {
          if (page.to <= last.to) return setTick((n) => n + 1);
          keep.current = "end";
          setPages((old) => [...(full ? (old ?? []) : (old ?? []).slice(0, -1)), page].slice(-KEPT));
        },
        () => setTick((n) => n + 1),
      );
    }, FOLLOW_MS);
    return () => clearTimeout(timer);
  }, [goesOn, last, busy, end, read, tick]);

  const download = async () => {
    const mine = (saving.current = new AbortController());
    const parts: Blob[] = [];
    try {
      setSaved(0);
      for (let at = 0; at < DOWNLOAD_MAX; ) {
        const got = await terminalBytes(id, terminal, at, CHUNK, mine.signal);
        if (!got.bytes.length) break;
        parts.push(new Blob([got.bytes]));
        at = got.offset + got.bytes.length;
        setSaved(at);
        if (at >= got.end) break;
      }
      save(parts, `${id}-terminal-${terminal}.log`, "text/plain");
    } catch (e) {
      if (!mine.signal.aborted) toastError("The log was not read to its end", e);
    }
    setSaved(null);
  };

  return (
    <div className="flex min-h-0 flex-1 flex-col">
      <div className="flex shrink-0 flex-wrap items-center gap-2 border-b border-line px-3 py-1.5">
        <Select label="Terminal" hideLabel className="w-32" value={terminal} onChange={(e) => setTerminal(Number(e.target.value))}>
          {Array.from({ length: 8 }, (_, n) => (
            <option key={n} value={n}>
              {n === 0 ? "Agent" : `Shell ${n}`}
            </option>
          ))}
        </Select>
        {first && last && (
          <span className="text-[13px] text-muted tabular-nums">
            {size(first.from)} to {size(last.to)} of {size(end)}
          </span>
        )}
        <span className="ml-auto flex items-center gap-1">
          <IconButton label="Read the end again" disabled={busy} onClick={() => void newest()}>
            <RotateCw className="size-4" aria-hidden />
          </IconButton>
          {saved === null ? (
            <Button size="small" onClick={() => void download()} disabled={!end} icon={<Download className="size-3.5" aria-hidden />}>
              Download
            </Button>
          ) : (
            <Button size="small" onClick={() => saving.current?.abort()}>
              {size(saved)}, stop
            </Button>
          )}
        </span>
      </div>
      {error !== undefined && <ErrorBox error={error} retry={() => void newest()} className="m-3" />}
      {!pages ? (
        !error && <Skeleton rows={5} className="p-4" />
      ) : end === 0 ? (
        <Empty icon={<ScrollText className="size-8" aria-hidden />} title="Nothing has been shown yet" />
      ) : (
        <div ref={box} className="min-h-0 flex-1 overflow-auto px-3 py-2" tabIndex={0} role="region" aria-label="Raw log">
          {first!.from > 0 && (
            <Button size="small" className="mb-2" busy={busy} onClick={() => void before()}>
              What was before
            </Button>
          )}
          {pages.map((p) => (
            <pre key={p.from} className="font-mono text-[13px] leading-relaxed break-words whitespace-pre-wrap">
              {p.text}
            </pre>
          ))}
          {last!.to < end && (
            <Button size="small" className="mt-2" busy={busy} onClick={() => void after()}>
              What comes next
            </Button>
          )}
        </div>
      )}
    </div>
  );
}
