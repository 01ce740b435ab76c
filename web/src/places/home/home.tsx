import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { Inbox, SquareTerminal } from "lucide-react";
import type { ReactNode } from "react";
import { gatesQuery } from "@/api/gates";
import { fewSessionsQuery } from "@/api/sessions";
import { useRereadMs } from "@/live/hooks";
import { GateLine } from "@/places/gates/line";
import { SessionRow } from "@/places/sessions/row";
import { Page } from "@/shell/page";
import { Empty, ErrorBox, Skeleton } from "@/ui/states";
import { PromptBox } from "./prompt";

export function Home() {
  return (
    <Page title="Home">
      <PromptBox />
      <div className="space-y-7">
        <WaitingGates />
        <Few title="In progress" state="active" count={20} more="All in progress" empty="Nothing is in progress.">
          Describe what is to be done above; the session appears here and is followed live.
        </Few>
        <Few title="Recently finished" state="terminal" count={8} more="All finished" />
      </div>
    </Page>
  );
}

function Section({ title, count, more, children }: { title: string; count?: number; more?: ReactNode; children: ReactNode }) {
  return (
    <section>
      <header className="mb-2 flex items-baseline gap-2">
        <h2 className="font-semibold">{title}</h2>
        {count !== undefined && count > 0 && <span className="text-[13px] text-muted tabular-nums">{count}</span>}
        <span className="ml-auto text-[13px]">{more}</span>
      </header>
      {children}
    </section>
  );
}

const LINK = "text-muted underline-offset-2 hover:text-text hover:underline";

function WaitingGates() {
  const gates = useInfiniteQuery(gatesQuery);
  const items = gates.data?.pages.flatMap((p) => p.items) ?? [];
  if (gates.isError && !gates.data) return <ErrorBox error={gates.error} retry={() => void gates.refetch()} />;
  if (items.length === 0) return null;
  return (
    <Section
      title="Waits for you"
      count={items.length}
      more={
        <Link to="/gates" className={LINK}>
          All gates
        </Link>
      }
    >
      <ul className="overflow-hidden rounded-lg border border-warn-line bg-panel">
        {items.slice(0, 5).map((g) => (
          <li key={g.approvalId} className="border-b border-line last:border-0">
            <GateLine gate={g} icon={<Inbox className="size-4 shrink-0 text-warn" aria-hidden />} />
          </li>
        ))}
      </ul>
    </Section>
  );
}

function Few({ title, state, count, more, empty, children }: { title: string; state: "active" | "terminal"; count: number; more: string; empty?: string; children?: ReactNode }) {
  const every = useRereadMs();
  const few = useQuery({ ...fewSessionsQuery({ state: [state] }, count), refetchInterval: every });
  const items = few.data?.items;
  if (items?.length === 0 && !empty) return null;
  return (
    <Section
      title={title}
      count={state === "active" ? few.data?.total : undefined}
      more={
        items?.length ? (
          <Link to="/sessions" search={{ state }} className={LINK}>
            {more}
          </Link>
        ) : null
      }
    >
      {few.isError && !items ? (
        <ErrorBox error={few.error} retry={() => void few.refetch()} />
      ) : !items ? (
        <Skeleton rows={3} />
      ) : items.length === 0 ? (
        <div className="rounded-lg border border-dashed border-line">
          <Empty icon={<SquareTerminal className="size-6" aria-hidden />} title={empty!}>
            {children}
          </Empty>
        </div>
      ) : (
        <ul className="overflow-hidden rounded-lg border border-line bg-panel">
          {items.map((s) => (
            <li key={s.sessionId} className="h-14 border-b border-line last:border-0 md:h-11">
              <SessionRow session={s} />
            </li>
          ))}
        </ul>
      )}
    </Section>
  );
}
