import { useVirtualizer } from "@tanstack/react-virtual";
import { ArrowDown, Brain, MessageSquare } from "lucide-react";
import { useDeferredValue, useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import { useActions } from "@/keys/registry";
import { Button } from "@/ui/button";
import { cx } from "@/ui/cx";
import { Empty, ErrorBox, Skeleton } from "@/ui/states";
import { visible } from "@/ui/text";
import type { Item } from "./conversation";
import type { Saying, SessionLog, Shown } from "./log";
import { Words } from "./markdown";
import { type Around, Row } from "./rows";

const HEIGHTS: Record<Item["kind"], number> = { task: 120, prompt: 120, words: 90, tool: 42, plan: 140, diff: 90, gate: 60, turnEnd: 28, end: 60, alert: 70, notes: 26 };
const NEAR = 80;
const ROW = "mx-auto w-full max-w-3xl px-4 pb-3";

/** The conversation: only what is seen exists, the end stays in sight while one is there, and older pages come as one scrolls up. */
export function Talk({ log, shown, around, target, visit, sent }: { log: SessionLog; shown: Shown; around: Around; target: number | undefined; visit: string; sent: number }) {
  const { items, saying } = shown;
  const box = useRef<HTMLDivElement>(null);
  const stick = useRef(true);
  const was = useRef(0);
  const anchor = useRef<{ key: string; by: number } | null>(null);
  const [away, setAway] = useState<number | null>(null);
  const rows = useVirtualizer({
    count: items.length,
    getScrollElement: () => box.current,
    estimateSize: (i) => HEIGHTS[items[i]!.kind],
    getItemKey: (i) => items[i]!.key,
    overscan: 8,
  });
  const seen = rows.getVirtualItems();
  const total = rows.getTotalSize();

  const bottom = () => {
    const el = box.current;
    if (!el) return;
    el.scrollTop = el.scrollHeight;
    was.current = el.scrollTop;
  };
  const go = () => {
    stick.current = true;
    setAway(null);
    bottom();
  };

  // Who has said something looks at what comes of it.
  const told = useRef(sent);
  useEffect(() => {
    if (told.current === sent) return;
    told.current = sent;
    go();
  });

  const look = () => {
    const el = box.current;
    if (!el) return;
    const near = el.scrollHeight - el.scrollTop - el.clientHeight < NEAR;
    // Away is who scrolled up; that something grew below is no scrolling.
    const up = el.scrollTop < was.current - 1;
    was.current = el.scrollTop;
    if (near !== stick.current && (near || up)) {
      stick.current = near;
      setAway(near ? null : (items.at(-1)?.seq ?? 0));
    }
    const first = rows.getVirtualItemForOffset(el.scrollTop);
    anchor.current = first ? { key: String(first.key), by: el.scrollTop - first.start } : null;
  };

  // What came in above moves nothing that is read; what came in below is followed by whoever is there.
  const firstKey = items[0]?.key;
  useLayoutEffect(() => {
    const el = box.current;
    const at = anchor.current;
    if (!el || stick.current || !at) return;
    const i = items.findIndex((item) => item.key === at.key);
    const place = i < 0 ? undefined : rows.getOffsetForIndex(i, "start")?.[0];
    if (place !== undefined) el.scrollTop = place + at.by;
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [firstKey]);
  useLayoutEffect(() => {
    // Somebody may have scrolled up since, and the event of it is still to come.
    if (stick.current && box.current && box.current.scrollTop < was.current - 1) look();
    if (stick.current) bottom();
  }, [total, items, saying]);
  useEffect(() => {
    const el = box.current;
    if (!el) return;
    const watch = new ResizeObserver(() => stick.current && bottom());
    watch.observe(el);
    return () => watch.disconnect();
  }, []);

  const top = seen[0]?.index ?? 0;
  const wants = shown.ready && !shown.whole && !shown.loading && !shown.error && (top < 10 || !items.length);
  useEffect(() => {
    if (wants) void log.earlier();
  }, [wants, log]);

  // An event of the address.
  const reached = useRef("");
  const [marked, mark] = useState<string>();
  useEffect(() => {
    const way = `${target} ${visit}`;
    if (!target || !shown.ready || reached.current === way) return;
    reached.current = way;
    stick.current = false;
    let left = false;
    void log.reach(target).then((there) => {
      if (left || !there) return;
      const now = log.shown.items;
      const i = now.findLastIndex((item) => item.seq <= target);
      if (i < 0) return;
      mark(now[i]!.key);
      const see = () => rows.scrollToIndex(i, { align: "center" });
      requestAnimationFrame(() => (see(), requestAnimationFrame(see)));
    });
    return () => {
      left = true;
    };
  }, [target, visit, shown.ready, log, rows]);

  // From turn to turn.
  const turn = (by: 1 | -1) => {
    const el = box.current;
    if (!el) return;
    const here = rows.getVirtualItemForOffset(el.scrollTop + 1)?.index ?? 0;
    const isTurn = (item: Item | undefined) => item?.kind === "prompt" || item?.kind === "task";
    let i = here + by;
    while (items[i] && !isTurn(items[i])) i += by;
    if (!items[i]) return by === 1 ? go() : undefined;
    if (by === -1) stick.current = false;
    rows.scrollToIndex(i, { align: "start" });
  };
  useActions(
    [
      { id: "turn next", label: "Next turn", group: "Session", keys: "j", keyOnly: true, run: () => turn(1) },
      { id: "turn before", label: "Turn before", group: "Session", keys: "k", keyOnly: true, run: () => turn(-1) },
      { id: "talk end", label: "To the end of the conversation", group: "Session", keys: "shift+g", run: go },
    ],
    items.length > 0,
  );

  const fresh = useMemo(() => {
    if (away === null) return 0;
    let n = 0;
    for (let i = items.length - 1; i >= 0 && items[i]!.seq > away; i--) n++;
    return n;
  }, [items, away]);

  if (shown.error && !shown.ready) return <ErrorBox error={shown.error} retry={() => void log.earlier()} className="m-4" />;
  if (!shown.ready) return <Skeleton rows={5} className="mx-auto w-full max-w-3xl p-4" />;
  return (
    <div className="relative min-h-0 flex-1">
      <div ref={box} onScroll={look} className="h-full overflow-y-auto overscroll-contain pt-3 [overflow-anchor:none]" tabIndex={0} role="region" aria-label="Conversation">
        {!shown.whole && <p className="h-6 text-center text-[13px] text-muted">{shown.loading ? "Reading what was before…" : ""}</p>}
        {shown.whole && shown.oldest > 1 && <p className="pb-3 text-center text-[13px] text-muted">What was before event {shown.oldest} is not kept any more.</p>}
        {shown.error !== undefined && <ErrorBox error={shown.error} retry={() => void log.earlier()} className="mx-4 mb-3" />}
        {items.length === 0 && saying.length === 0 && shown.whole && (
          <Empty icon={<MessageSquare className="size-8" aria-hidden />} title="Nothing has happened yet">
            As soon as the agent does something it is here.
          </Empty>
        )}
        <ol className="relative" style={{ height: total }}>
          {seen.map((v) => {
            const item = items[v.index]!;
            return (
              <li
                key={v.key}
                id={`event-${item.seq}`}
                data-index={v.index}
                ref={rows.measureElement}
                aria-setsize={shown.whole ? items.length : -1}
                aria-posinset={v.index + 1}
                className="absolute inset-x-0 top-0"
                style={{ transform: `translateY(${v.start}px)` }}
              >
                <div className={cx(ROW, marked === item.key && "rounded-lg bg-accent-soft pt-3")}>
                  <Row item={item} around={around} />
                </div>
              </li>
            );
          })}
        </ol>
        {saying.map((s) => (
          <div key={`${s.turnId} ${s.thought}`} className={ROW}>
            <Now saying={s} />
          </div>
        ))}
      </div>
      {away !== null && (
        <Button className="absolute bottom-3 left-1/2 -translate-x-1/2 rounded-full shadow-lift" icon={<ArrowDown className="size-4" aria-hidden />} onClick={go}>
          {fresh > 0 ? `${fresh} new` : "To the end"}
        </Button>
      )}
    </div>
  );
}

/** What is being said; a long text is shown as it is, which costs less with every word. */
function Now({ saying }: { saying: Saying }) {
  const text = useDeferredValue(saying.text);
  if (saying.thought) {
    return (
      <div className="flex gap-2 text-muted italic">
        <Brain className="mt-0.5 size-4 shrink-0 motion-safe:animate-pulse" aria-hidden />
        <p className="min-w-0 break-words whitespace-pre-wrap">{visible(text.slice(-1500))}</p>
      </div>
    );
  }
  return text.length < 6000 ? <Words text={text} /> : <p className="break-words whitespace-pre-wrap">{visible(text)}</p>;
}
