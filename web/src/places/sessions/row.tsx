import { Link } from "@tanstack/react-router";
import { memo } from "react";
import { harnessName, repoName } from "@/api/catalog";
import { isEnded } from "@/api/sessions";
import type { Session } from "@/api/types";
import { StateBadge } from "@/ui/badge";
import { cx } from "@/ui/cx";
import { Elapsed, Time } from "@/ui/time";
import { peekLink } from "./link";

/** One session in a list, as wide as there is room: two lines on a phone, one with columns on a desk. */
export const SessionRow = memo(function SessionRow({ session: s, current, search }: { session: Session; current?: boolean; search?: object }) {
  return (
    <Link
      to="/sessions"
      search={{ ...search, ...peekLink(s.sessionId).search }}
      aria-current={current || undefined}
      className={cx(
        "grid h-full grid-cols-[1fr_auto] items-center gap-x-3 px-3 hover:bg-hover md:grid-cols-[7rem_1fr_9rem_5.5rem] lg:grid-cols-[7rem_1fr_10rem_6.5rem_5.5rem_5.5rem]",
        current && "bg-accent-soft",
      )}
    >
      <span className="order-2 md:order-none">
        <StateBadge session={s} />
      </span>
      <span className="order-1 truncate font-medium md:order-none">{s.taskSummary || <span className="text-muted">Interactive session</span>}</span>
      <span className="order-3 col-span-2 -mt-1 flex gap-2 truncate text-[13px] text-muted md:order-none md:col-span-1 md:mt-0">
        <span className="truncate">{repoName(s.repoUrl)}</span>
        <span className="md:hidden">· {harnessName(s.providerId)}</span>
        <span className="ml-auto md:hidden">
          <Time at={s.createdAt} />
        </span>
      </span>
      <span className="hidden truncate text-[13px] text-muted lg:block">{harnessName(s.providerId)}</span>
      <span className="hidden text-right text-[13px] text-muted tabular-nums lg:block">
        <Elapsed from={s.createdAt} to={isEnded(s.state) ? (s.completedAt ?? s.createdAt) : undefined} />
      </span>
      <Time at={s.createdAt} className="hidden text-right text-[13px] text-muted md:block" />
    </Link>
  );
});
