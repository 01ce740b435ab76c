import { useVirtualizer } from "@tanstack/react-virtual";
import { useLocation } from "@tanstack/react-router";
import { ListTree } from "lucide-react";
import { useEffect, useMemo, useRef, useState } from "react";
import { Button } from "@/ui/button";
import { cx } from "@/ui/cx";
import { Dialog } from "@/ui/dialog";
import { CopyButton } from "@/ui/copy";
import { Select } from "@/ui/field";
import { Empty } from "@/ui/states";
import { CodeText, visible } from "@/ui/text";
import { Time } from "@/ui/time";
import { person } from "./rows";
import { eventHash } from "./search";
import type { TabProps } from "./session";

const ROW = 34;
const SHORT = 300;

/** The log as it is: one line an event, its data on demand. */
export default function EventsTab({ log, shown, search, change, shownNow }: TabProps & { shownNow: boolean }) {
  const { events } = shown;
  const types = useMemo(() => [...new Set(events.map((e) => e.type))].sort(), [events]);
  const type = search.types;
  // The newest first, as a log is looked at.
  const list = useMemo(() => (type ? events.filter((e) => e.type === type) : events.slice()).reverse(), [events, type]);
  const box = useRef<HTMLDivElement>(null);
  const rows = useVirtualizer({ count: list.length, getScrollElement: () => box.current, estimateSize: () => ROW, getItemKey: (i) => list[i]!.seq, overscan: 15, enabled: shownNow });
  const seen = rows.getVirtualItems();
  const last = seen.at(-1)?.index ?? -1;
  const wants = shownNow && shown.ready && !shown.whole && !shown.loading && !shown.error && last >= list.length - 30;
  useEffect(() => {
    if (wants) void log.earlier(1000);
  }, [wants, log]);

  const target = eventHash(useLocation({ select: (l) => l.hash }));
  const [open, setOpen] = useState<number>();
  const reached = useRef<number | undefined>(undefined);
  useEffect(() => {
    if (!shownNow || !target || !shown.ready || reached.current === target) return;
    reached.current = target;
    void log.reach(target).then((there) => there && setOpen(target));
  }, [target, shownNow, shown.ready, log]);
  const chosen = events.find((e) => e.seq === open);
  const close = () => {
    setOpen(undefined);
    if (target) change({});
  };

  return (
    <div className="flex min-h-0 flex-1 flex-col">
      <div className="flex shrink-0 flex-wrap items-center gap-2 border-b border-line px-3 py-1.5">
        <Select label="Type" hideLabel className="w-64 max-w-full" value={type ?? ""} onChange={(e) => change({ types: e.target.value || undefined })}>
          <option value="">Every type</option>
          {(type && !types.includes(type) ? [type, ...types] : types).map((t) => (
            <option key={t} value={t}>
              {t}
            </option>
          ))}
        </Select>
        <span className="text-[13px] text-muted tabular-nums">
          {list.length.toLocaleString()} {type ? `of ${events.length.toLocaleString()} ` : ""}read{shown.whole ? "" : ", there are more before"}
        </span>
        {!shown.whole && (
          <Button size="small" className="ml-auto" busy={shown.loading} onClick={() => void log.earlier(1000)}>
            Read more
          </Button>
        )}
      </div>
      {list.length === 0 ? (
        <Empty icon={<ListTree className="size-8" aria-hidden />} title={type ? "None of this type has been read" : "No events yet"} />
      ) : (
        <div ref={box} className="min-h-0 flex-1 overflow-auto" tabIndex={0} role="region" aria-label="Events">
          <ol className="relative min-w-[30rem]" style={{ height: rows.getTotalSize() }}>
            {seen.map((v) => {
              const e = list[v.index]!;
              return (
                <li key={v.key} className="absolute inset-x-0 top-0" style={{ height: ROW, transform: `translateY(${v.start}px)` }}>
                  <button
                    type="button"
                    onClick={() => setOpen(e.seq)}
                    className={cx("grid h-full w-full grid-cols-[3rem_minmax(9rem,13rem)_1fr_5.5rem] items-center gap-3 border-b border-line px-3 text-left hover:bg-hover", e.seq === target && "bg-accent-soft")}
                  >
                    <span className="text-right text-[13px] text-muted tabular-nums">{e.seq}</span>
                    <span className="truncate font-mono text-[13px]">{e.type}</span>
                    <span className="truncate text-[13px] text-muted">{visible(JSON.stringify(e.data, (k, x: unknown) => (k === "sessionId" ? undefined : x)).slice(0, SHORT))}</span>
                    <Time at={e.timestamp} className="truncate text-right text-[13px] text-muted" />
                  </button>
                </li>
              );
            })}
          </ol>
        </div>
      )}
      {chosen && (
        <Dialog
          open
          onOpenChange={close}
          title={`Event ${chosen.seq}`}
          description={chosen.type}
          actions={
            <>
              <Button disabled={!events.some((e) => e.seq === chosen.seq - 1)} onClick={() => setOpen(chosen.seq - 1)}>
                Before
              </Button>
              <Button disabled={!events.some((e) => e.seq === chosen.seq + 1)} onClick={() => setOpen(chosen.seq + 1)}>
                Next
              </Button>
              <Button onClick={() => (setOpen(undefined), change({ tab: undefined }, `event-${chosen.seq}`))}>In the conversation</Button>
            </>
          }
        >
          <p className="mb-2 flex items-center gap-2 text-[13px] text-muted">
            <Time at={chosen.timestamp} />
            {chosen.actor && <span>by {person(chosen.actor.id)}</span>}
            <span className="ml-auto">
              <CopyButton text={JSON.stringify(chosen, null, 2)} label="Copy it as JSON" />
            </span>
          </p>
          <CodeText text={JSON.stringify(chosen.data, null, 2)} label="Data" className="max-h-[55dvh]!" />
        </Dialog>
      )}
    </div>
  );
}
