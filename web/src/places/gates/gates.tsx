import { useInfiniteQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { Inbox, ShieldCheck } from "lucide-react";
import { useEffect, useRef } from "react";
import { gatesQuery } from "@/api/gates";
import type { Approval } from "@/api/types";
import { useActions } from "@/keys/registry";
import { useRereadMs } from "@/live/hooks";
import { Page } from "@/shell/page";
import { Button } from "@/ui/button";
import { cx } from "@/ui/cx";
import { Empty, ErrorBox, Skeleton } from "@/ui/states";
import { Kbd } from "@/ui/text";
import { Time } from "@/ui/time";
import { GateCard } from "./card";
import { questionOf } from "./exact";
import { Risk } from "./line";

export function Gates() {
  const every = useRereadMs();
  const gates = useInfiniteQuery({ ...gatesQuery, refetchInterval: every });
  const items = gates.data?.pages.flatMap((p) => p.items) ?? [];
  const chosen = useSearch({ from: "/gates", select: (s) => s.gate });
  const navigate = useNavigate();
  const at = items.findIndex((g) => g.approvalId === chosen);
  const gate = items[at];
  const first = items[0]?.approvalId;
  const byItself = useRef(chosen === undefined);
  const choose = (g: Approval | undefined, unasked = false) => {
    byItself.current = unasked;
    void navigate({ to: "/gates", search: g ? { gate: g.approvalId } : {}, replace: true });
  };
  // A desk opens the first by itself, and then stays with it: what comes in later does not slip under somebody's hand.
  useEffect(() => {
    if (!chosen && first && matchMedia("(min-width: 48rem)").matches) void navigate({ to: "/gates", search: { gate: first }, replace: true });
  }, [chosen, first, navigate]);
  const move = (by: number) => choose(items[Math.min(items.length - 1, Math.max(0, Math.max(at, 0) + by))]);

  useActions(
    [
      { id: "gate next", label: "Next gate", group: "Gates", keys: "j", keyOnly: true, run: () => move(1) },
      { id: "gate before", label: "Gate before", group: "Gates", keys: "k", keyOnly: true, run: () => move(-1) },
    ],
    items.length > 0,
  );

  // Decided elsewhere, or too late: said, instead of showing another in the same place.
  const gone = chosen !== undefined && at < 0;
  return (
    <Page title="Gates" wide fill actions={items.length > 0 && <span className="hidden items-center gap-2 text-[13px] text-muted md:flex"><Kbd keys="j k" /> move <Kbd keys="a" /> allow <Kbd keys="d" /> deny</span>}>
      {gates.isError && !gates.data ? (
        <ErrorBox error={gates.error} retry={() => void gates.refetch()} />
      ) : gates.isPending ? (
        <Skeleton rows={4} />
      ) : items.length === 0 ? (
        <Empty icon={<ShieldCheck className="size-8" aria-hidden />} title="Nothing waits for you">
          When an agent wants to push, deploy or use what its policy asks for first, it stops and the request is here until somebody decides or its time is over.
        </Empty>
      ) : (
        <div className="grid min-h-0 flex-1 md:grid-cols-[20rem_1fr] md:gap-6 lg:grid-cols-[24rem_1fr]">
          <ul aria-label="Gates that wait" className={cx("min-h-0 overflow-y-auto pb-4", chosen && "hidden md:block")}>
            {items.map((g) => (
              <li key={g.approvalId}>
                <button
                  type="button"
                  aria-current={g === gate || undefined}
                  onClick={() => choose(g)}
                  className={cx("mb-1 w-full rounded-lg border border-line bg-panel p-3 text-left hover:bg-hover md:border-transparent md:bg-transparent", g === gate && "md:border-line! md:bg-panel!")}
                >
                  <span className="flex items-start gap-2">
                    <Inbox className="mt-0.5 size-4 shrink-0 text-warn" aria-hidden />
                    <span className="line-clamp-2 min-w-0 flex-1 font-medium break-words">{g.description || questionOf(g)}</span>
                  </span>
                  <span className="mt-1.5 flex items-center gap-2 pl-6 text-[13px] text-muted">
                    {g.kind !== "question" && <Risk risk={g.risk} />}
                    <Time at={g.requestedAt} className="ml-auto" />
                  </span>
                </button>
              </li>
            ))}
            {gates.hasNextPage && (
              <Button className="w-full" busy={gates.isFetchingNextPage} onClick={() => void gates.fetchNextPage()}>
                More
              </Button>
            )}
          </ul>
          {gone && (
            <Empty icon={<ShieldCheck className="size-8" aria-hidden />} title="This gate is decided or over" action={<Button onClick={() => choose(items[0])}>Show the next</Button>}>
              Somebody decided it elsewhere, its time ran out, or its session ended.
            </Empty>
          )}
          {gate && (
            <div className="min-h-0 md:pb-6">
              <GateCard key={gate.approvalId} gate={gate} back={() => choose(undefined)} unasked={byItself.current} next={() => choose(items[items.indexOf(gate) + 1] ?? items[items.indexOf(gate) - 1], true)} />
            </div>
          )}
        </div>
      )}
    </Page>
  );
}
