import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";
import type { Approval } from "@/api/types";
import { Badge } from "@/ui/badge";
import { Time } from "@/ui/time";
import { questionOf } from "./exact";

export function Risk({ risk }: { risk?: string }) {
  if (risk === "high") return <Badge tone="bad">High risk</Badge>;
  if (risk === "med") return <Badge tone="warn">Medium risk</Badge>;
  return risk === "low" ? <Badge>Low risk</Badge> : null;
}

/** A gate in a list: leads to where it is decided. */
export function GateLine({ gate: g, icon }: { gate: Approval; icon?: ReactNode }) {
  return (
    <Link to="/gates" search={{ gate: g.approvalId }} className="flex min-h-11 items-center gap-3 px-3 py-2 hover:bg-hover">
      {icon}
      <span className="min-w-0 flex-1">
        <span className="line-clamp-2 font-medium break-words md:line-clamp-1">{g.description || questionOf(g)}</span>
      </span>
      {g.kind !== "question" && <Risk risk={g.risk} />}
      <Time at={g.requestedAt} className="hidden w-24 text-right text-[13px] text-muted sm:block" />
    </Link>
  );
}
