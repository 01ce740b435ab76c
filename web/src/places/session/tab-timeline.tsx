import { ChartGantt } from "lucide-react";
import { useMemo } from "react";
import { isEnded } from "@/api/sessions";
import { stateText } from "@/ui/badge";
import { useNow } from "@/ui/clock";
import { cx } from "@/ui/cx";
import { Empty, ErrorBox, Skeleton } from "@/ui/states";
import { visible } from "@/ui/text";
import { duration } from "@/ui/time-format";
import type { Span } from "./facts";
import type { TabProps } from "./session";
import { useFacts } from "./use-facts";

const WIDTH = 1000;
const LANE = 30;
const BAR = 18;
/** More bars than that would be hairs. */
const BARS = 1500;

const COLOR: Record<string, string> = {
  RUNNING: "fill-info",
  WAITING_FOR_APPROVAL: "fill-warn",
  PAUSED_BY_HUMAN: "fill-accent",
  COMPLETED: "fill-ok",
  FAILED: "fill-bad",
  TIMED_OUT: "fill-bad",
  turn: "fill-accent-fill",
  failed: "fill-bad",
  denied: "fill-bad",
  expired: "fill-bad",
  allowed: "fill-ok",
  pending: "fill-warn",
  tool: "fill-info",
};

/** Neighbours that would be less than a point apart are one. */
export function joined(spans: readonly Span[], from: number, perMs: number, now: number): (Span & { count: number })[] {
  const out: (Span & { count: number })[] = [];
  for (const s of spans) {
    const last = out.at(-1);
    const gap = last ? (s.from - (last.to ?? now)) * perMs : Number.POSITIVE_INFINITY;
    if (last && gap < 1 && ((s.to ?? now) - s.from) * perMs < 2 && last.kind === s.kind && ((last.to ?? now) - from) * perMs < WIDTH) {
      last.to = Math.max(last.to ?? now, s.to ?? now);
      last.count++;
    } else out.push({ ...s, count: 1 });
  }
  return out.slice(0, BARS);
}

export default function TimelineTab({ session: s, log, change, shownNow }: TabProps & { shownNow: boolean }) {
  const { facts, whole, error, retry } = useFacts(s.sessionId, log, shownNow);
  const ended = isEnded(s.state);
  const clock = useNow(2_000);
  const picture = useMemo(() => {
    if (!facts || !facts.from) return undefined;
    const end = Math.max(facts.to ?? (ended ? (facts.states.at(-1)?.from ?? facts.from) : clock), facts.from + 1000);
    const perMs = WIDTH / (end - facts.from);
    const lanes = [
      { name: "State", spans: facts.states, color: (x: Span) => COLOR[x.kind] ?? "fill-muted" },
      { name: "Turns", spans: facts.turns, color: () => COLOR.turn! },
      { name: "Tools", spans: facts.tools, color: (x: Span) => COLOR[x.kind] ?? COLOR.tool! },
      { name: "Gates", spans: facts.gates, color: (x: Span) => COLOR[x.kind] ?? "fill-warn" },
    ].filter((l) => l.spans.length);
    return { end, perMs, lanes: lanes.map((l) => ({ ...l, bars: joined(l.spans, facts.from, perMs, end) })) };
  }, [facts, ended, clock]);

  if (error) return <ErrorBox error={error} retry={retry} className="m-4" />;
  if (!facts) return <Skeleton rows={3} className="p-4" />;
  if (!picture) return <Empty icon={<ChartGantt className="size-8" aria-hidden />} title="Nothing has happened yet" />;
  const { end, perMs, lanes } = picture;
  const name = (x: Span & { count: number }) => `${x.count > 1 ? `${x.count} × ` : ""}${x.name === x.kind ? stateText(x.kind as never) : x.name.split("\n")[0]!.slice(0, 80)}, ${duration((x.to ?? end) - x.from)}`;
  const go = (seq: number) => change({ ...(matchMedia("(min-width: 64rem)").matches ? {} : { tab: "talk" as const }) }, `event-${seq}`);
  return (
    <div className="min-h-0 flex-1 space-y-5 overflow-y-auto p-4">
      <figure>
        <div className="flex">
          <div className="w-14 shrink-0" aria-hidden>
            {lanes.map((l) => (
              <p key={l.name} className="flex items-center text-[13px] text-muted" style={{ height: LANE }}>
                {l.name}
              </p>
            ))}
          </div>
          <svg role="img" aria-label="States, turns, tools and gates over time; the list below says the same" viewBox={`0 0 ${WIDTH} ${lanes.length * LANE}`} preserveAspectRatio="none" className="min-w-0 flex-1" style={{ height: lanes.length * LANE }}>
            {lanes.map((l, i) => (
              <g key={l.name}>
                <rect x={0} y={i * LANE + (LANE - BAR) / 2} width={WIDTH} height={BAR} className="fill-sunken" />
                {l.bars.map((x) => (
                  <rect
                    key={x.seq}
                    x={(x.from - facts.from) * perMs}
                    y={i * LANE + (LANE - BAR) / 2}
                    width={Math.max(2, ((x.to ?? end) - x.from) * perMs)}
                    height={BAR}
                    className={cx("cursor-pointer hover:opacity-70", l.color(x))}
                    onClick={() => go(x.seq)}
                  >
                    <title>{name(x)}</title>
                  </rect>
                ))}
              </g>
            ))}
          </svg>
        </div>
        <figcaption className="mt-1 flex justify-between pl-14 text-xs text-muted tabular-nums">
          <span>{new Date(facts.from).toLocaleTimeString()}</span>
          <span>{duration(end - facts.from)}</span>
          <span>{ended ? new Date(end).toLocaleTimeString() : "now"}</span>
        </figcaption>
      </figure>
      {!whole && <p className="text-[13px] text-muted">The log is very long: only its beginning is shown here.</p>}
      {lanes.map((l) => (
        <details key={l.name} open={l.name !== "Tools"}>
          <summary className="cursor-pointer font-semibold">
            {l.name} <span className="font-normal text-muted tabular-nums">{l.spans.length.toLocaleString()}</span>
          </summary>
          <ol className="mt-1 text-[13px]">
            {l.spans.slice(-200).map((x) => (
              <li key={x.seq}>
                <button type="button" onClick={() => go(x.seq)} className="flex w-full min-w-0 items-center gap-3 min-h-6.5 rounded px-1 text-left hover:bg-hover">
                  <span className="w-20 shrink-0 text-muted tabular-nums">+{duration(x.from - facts.from)}</span>
                  <span className="min-w-0 flex-1 truncate">{visible(x.name === x.kind ? stateText(x.kind as never) : (x.name.split("\n")[0] ?? ""))}</span>
                  {["allowed", "denied", "expired", "cancelled", "failed", "pending"].includes(x.kind) && <span className="shrink-0 text-muted">{x.kind}</span>}
                  <span className="shrink-0 text-muted tabular-nums">{duration((x.to ?? end) - x.from)}</span>
                </button>
              </li>
            ))}
          </ol>
        </details>
      ))}
    </div>
  );
}
