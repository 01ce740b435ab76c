import { ArrowDown, ArrowUp, ChevronLeft, ChevronRight, Search, X } from "lucide-react";
import { useCallback, useEffect, useRef, useState } from "react";
import { useLive } from "@/live/hooks";
import type { Message } from "@/live/client";
import { Button, IconButton } from "@/ui/button";
import { Dialog } from "@/ui/dialog";
import { CodeText } from "@/ui/text";
import { toastError } from "@/ui/toast";
import { type Engine, makeTerminal } from "./engine";
import { Feed, pieces } from "./feed";

const TAIL = 256 * 1024;
const HISTORY = 512 * 1024;
const ACK_BYTES = 64 * 1024;
const POLL_MS = 1_500;
const KEYS: [string, string][] = [
  ["Esc", "\x1b"],
  ["Tab", "\t"],
  ["Ctrl-C", "\x03"],
  ["Ctrl-D", "\x04"],
  ["↑", "\x1b[A"],
  ["↓", "\x1b[B"],
  ["←", "\x1b[D"],
  ["→", "\x1b[C"],
];

export interface Piece {
  bytes: Uint8Array;
  offset: number;
  end: number;
}
export interface Source {
  read(from: number | undefined, limit: number, signal: AbortSignal): Promise<Piece>;
  /** Where there is no socket. */
  type(data: string): Promise<unknown>;
  onBytes(fn: (terminal: number, offset: number, bytes: Uint8Array) => void): () => void;
  watch(terminal: number, offset: number | null): void;
}
interface Props {
  id: string;
  terminal: number;
  source: Source;
  /** Whether what is typed goes anywhere. */
  writable: boolean;
  visible: boolean;
  label: string;
}

const count = (n: number) => (n < 1024 ? `${n} bytes` : n < 1024 * 1024 ? `${Math.round(n / 1024)} KiB` : `${(n / 1024 / 1024).toFixed(1)} MiB`);

/** One terminal of a session: the end of it as it comes, what was before in pages, never all of it. */
export function TerminalView({ id, terminal, source, writable, visible, label }: Props) {
  const live = useLive();
  const box = useRef<HTMLDivElement>(null);
  const engine = useRef<Engine | null>(null);
  const feed = useRef<Feed | null>(null);
  const acked = useRef(0);
  const [start, setStart] = useState<number | null>(null);
  const [empty, setEmpty] = useState(true);
  const [page, setPage] = useState<{ from: number; to: number; end: number } | null>(null);
  const paged = useRef(false);
  const [link, setLink] = useState<string | null>(null);
  const [finding, find] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  const [error, setError] = useState<unknown>();
  const typing = useRef<Promise<unknown>>(Promise.resolve());
  const may = useRef(writable);
  may.current = writable;
  const seen = useRef(visible);
  seen.current = visible;

  const resize = useCallback(() => {
    const size = seen.current ? engine.current?.fit() : undefined;
    if (size && may.current) live.send({ type: "terminal_resize", sessionId: id, terminal, ...size });
  }, [live, id, terminal]);

  const type = useCallback(
    (text: string) => {
      if (!may.current) return;
      setProblem(null);
      for (const data of pieces(text)) {
        if (live.state.transport === "ws" && live.send({ type: "terminal_input", messageId: `in-${id}-${terminal}`, sessionId: id, terminal, data })) continue;
        // One after the other, so that they arrive as they were typed.
        typing.current = typing.current.then(
          () => source.type(data),
          () => source.type(data),
        );
        typing.current.catch((e) => setProblem(`Not sent: ${e instanceof Error ? e.message : String(e)}`));
      }
    },
    [live, id, terminal, source],
  );

  const began = useRef(new AbortController());
  /** The end of it, and from there on as it comes. */
  const follow = useCallback(async () => {
    began.current.abort();
    const ending = (began.current = new AbortController());
    const { signal } = ending;
    const { term } = engine.current!;
    const f = new Feed({
      write: (bytes) => {
        setEmpty(false);
        const end = f.end!;
        term.write(bytes, () => {
          if (end - acked.current < ACK_BYTES && end < (f.end ?? 0)) return;
          acked.current = end;
          live.send({ type: "ack", sessionId: id, terminal, terminalOffset: end });
        });
      },
      gap: (from, to) => term.write(`\r\n\x1b[0;2m[${count(to - from)} were left out]\x1b[0m\r\n`),
    });
    feed.current = null;
    paged.current = false;
    setPage(null);
    setError(undefined);
    term.reset();
    const early: [number, Uint8Array][] = [];
    const off = source.onBytes((n, offset, bytes) => {
      if (n !== terminal) return;
      if (feed.current === f) f.take(offset, bytes);
      else early.push([offset, bytes]);
    });
    signal.addEventListener("abort", off);
    try {
      const tail = await source.read(undefined, TAIL, signal);
      if (signal.aborted) return;
      f.take(tail.offset, tail.bytes);
      feed.current = f;
      setStart(tail.offset);
      for (const [offset, bytes] of early) f.take(offset, bytes);
      source.watch(terminal, f.end);
    } catch (e) {
      if (!signal.aborted) setError(e);
    }
  }, [live, id, terminal, source]);

  useEffect(() => {
    const el = box.current!;
    const made = makeTerminal(el, { writable: may.current, onLink: setLink, small: matchMedia("(max-width: 48rem)").matches });
    engine.current = made;
    made.term.textarea?.setAttribute("aria-label", `${label}: type here; F6 leads out`);
    made.term.onData((text) => !paged.current && type(text));
    made.term.onBinary((text) => !paged.current && type(text));
    made.term.attachCustomKeyEventHandler((e) => {
      if (e.type === "keydown" && (e.ctrlKey || e.metaKey) && e.shiftKey && e.code === "KeyF") {
        find(true);
        return false;
      }
      // Tab is the program's; this one leads out.
      if (e.type === "keydown" && e.key === "F6") {
        (document.querySelector<HTMLElement>("[role=tab][aria-selected=true]") ?? document.body).focus();
        return false;
      }
      // What the page means stays the page's.
      return !((e.ctrlKey || e.metaKey) && e.code === "KeyK" && !e.shiftKey && e.metaKey);
    });
    let timer: ReturnType<typeof setTimeout> | undefined;
    const watch = new ResizeObserver(() => {
      clearTimeout(timer);
      timer = setTimeout(resize, 120);
    });
    watch.observe(el);
    resize();
    void follow();
    return () => {
      began.current.abort();
      watch.disconnect();
      clearTimeout(timer);
      made.dispose();
      engine.current = null;
    };
    // label is what it was called at first.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [follow, resize, type]);

  useEffect(() => {
    if (engine.current) engine.current.term.options.disableStdin = !writable || page !== null;
    if (writable) resize();
  }, [writable, page, resize]);
  useEffect(() => {
    if (visible) resize();
  }, [visible, resize]);

  // Without the socket no bytes come by themselves.
  useEffect(() => {
    if (!visible) return;
    const timer = setInterval(() => {
      const f = feed.current;
      const { transport, phase } = live.state;
      if (!f || paged.current || transport === "ws" || phase !== "open") return;
      void source.read(f.end ?? undefined, HISTORY, began.current.signal).then((p) => f === feed.current && p.bytes.length && f.take(p.offset, p.bytes), () => {});
    }, POLL_MS);
    return () => clearInterval(timer);
  }, [visible, live, source]);

  useEffect(
    () =>
      live.onFeed((m: Message) => {
        if (m.type === "error" && m.replyTo === `in-${id}-${terminal}`) setProblem(String(m.message ?? m.code));
      }),
    [live, id, terminal],
  );

  const turn = async (from: number) => {
    const signal = began.current.signal;
    try {
      const at = Math.max(0, from);
      const p = await source.read(at, HISTORY, signal);
      const term = engine.current?.term;
      if (signal.aborted || !term) return;
      paged.current = true;
      feed.current = null;
      term.reset();
      setPage({ from: p.offset, to: p.offset + p.bytes.length, end: p.end });
      term.write(p.bytes, () => term.scrollToTop());
    } catch (e) {
      if (!signal.aborted) toastError("Not read", e);
    }
  };

  return (
    <div className="relative flex min-h-0 flex-1 flex-col">
      {page ? (
        <div role="status" className="flex flex-wrap items-center gap-2 border-b border-line bg-info-soft px-3 py-1 text-[13px] text-info">
          <span className="min-w-0 flex-1">
            Earlier output: {count(page.from)} to {count(page.to)} of {count(page.end)}
          </span>
          <Button size="small" disabled={page.from === 0} onClick={() => void turn(page.from - HISTORY)} icon={<ChevronLeft className="size-3.5" aria-hidden />}>
            Earlier
          </Button>
          <Button size="small" disabled={page.to >= page.end} onClick={() => void turn(page.to)} icon={<ChevronRight className="size-3.5" aria-hidden />}>
            Later
          </Button>
          <Button size="small" kind="primary" onClick={() => void follow()}>
            Back to now
          </Button>
        </div>
      ) : (
        start !== null &&
        start > 0 && (
          <div className="flex items-center gap-2 border-b border-line px-3 py-1 text-[13px] text-muted">
            <span className="min-w-0 flex-1">{count(start)} came before this</span>
            <Button size="small" onClick={() => void turn(start - HISTORY)}>
              Earlier output
            </Button>
          </div>
        )
      )}
      {problem && (
        <div role="alert" className="flex items-center gap-2 bg-warn-soft px-3 py-1 text-[13px] text-warn">
          <span className="flex-1">{problem}</span>
          <IconButton label="Dismiss" className="size-6!" onClick={() => setProblem(null)}>
            <X className="size-3.5" aria-hidden />
          </IconButton>
        </div>
      )}
      {error !== undefined && (
        <div role="alert" className="flex items-center gap-2 bg-bad-soft px-3 py-1 text-[13px] text-bad">
          <span className="flex-1">{error instanceof Error ? error.message : "The output cannot be read."}</span>
          <Button size="small" onClick={() => void follow()}>
            Retry
          </Button>
        </div>
      )}
      <div className="relative min-h-0 flex-1 p-2">
      {finding ? (
        <Find engine={engine.current} close={() => (find(false), engine.current?.term.focus())} />
      ) : (
        <IconButton label="Find in the terminal (Ctrl Shift F)" className="absolute top-1 right-3 z-10 bg-panel/80" onClick={() => find(true)}>
          <Search className="size-4" aria-hidden />
        </IconButton>
      )}
        {empty && !error && <p className="pointer-events-none absolute inset-x-0 top-4 text-center text-muted">Nothing has been shown yet.</p>}
        <div ref={box} role="group" aria-label={label} className="h-full overflow-hidden" />
      </div>
      {writable && !page && (
        <div className="hidden gap-1 overflow-x-auto border-t border-line p-1.5 pointer-coarse:flex" role="group" aria-label="Keys">
          {KEYS.map(([name, data]) => (
            <Button key={name} className="h-10 min-w-11" onClick={() => type(data)}>
              {name}
            </Button>
          ))}
        </div>
      )}
      {link && (
        <Dialog
          open
          onOpenChange={() => setLink(null)}
          title="Open this address?"
          description="The program in the terminal wrote it. Look at it before you go there."
          actions={
            <>
              <Button onClick={() => setLink(null)}>Back</Button>
              <Button
                kind="primary"
                onClick={() => {
                  window.open(link, "_blank", "noopener,noreferrer");
                  setLink(null);
                }}
              >
                Open in a new tab
              </Button>
            </>
          }
        >
          <CodeText text={link} label="Address" />
        </Dialog>
      )}
    </div>
  );
}

function Find({ engine, close }: { engine: Engine | null; close(): void }) {
  const [text, setText] = useState("");
  const [found, setFound] = useState<boolean | null>(null);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), []);
  useEffect(() => () => engine?.search.clearDecorations(), [engine]);
  const go = (back: boolean, incremental = false) => setFound(text ? ((back ? engine?.search.findPrevious(text) : engine?.search.findNext(text, { incremental })) ?? null) : null);
  return (
    <form
      role="search"
      className="absolute top-1 right-3 z-10 flex items-center gap-1 rounded-lg border border-line bg-raised p-1 shadow-lift"
      onSubmit={(e) => {
        e.preventDefault();
        go(false);
      }}
      onKeyDown={(e) => e.key === "Escape" && close()}
    >
      <input ref={field} aria-label="Find in the terminal" value={text} onChange={(e) => setText(e.target.value)} aria-invalid={found === false || undefined} className="field w-44!" />
      {found === false && (
        <span role="status" className="px-1 text-[13px] text-bad">
          not found
        </span>
      )}
      <IconButton label="Before" onClick={() => go(true)}>
        <ArrowUp className="size-4" aria-hidden />
      </IconButton>
      <IconButton label="Next" type="submit">
        <ArrowDown className="size-4" aria-hidden />
      </IconButton>
      <IconButton label="Close" onClick={close}>
        <X className="size-4" aria-hidden />
      </IconButton>
    </form>
  );
}
