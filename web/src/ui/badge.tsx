import type { ReactNode } from "react";
import type { SessionState } from "@/api/types";
import { cx } from "./cx";

export type Tone = "ok" | "warn" | "bad" | "info" | "quiet" | "accent";
const TONES: Record<Tone, string> = {
  ok: "bg-ok-soft text-ok",
  warn: "bg-warn-soft text-warn",
  bad: "bg-bad-soft text-bad",
  info: "bg-info-soft text-info",
  quiet: "bg-quiet-soft text-muted",
  accent: "bg-accent-soft text-accent",
};

export function Badge({ tone = "quiet", dot, className, children }: { tone?: Tone; dot?: boolean; className?: string; children: ReactNode }) {
  return (
    <span className={cx("inline-flex h-5.5 shrink-0 items-center gap-1.5 rounded-full px-2 text-xs font-medium whitespace-nowrap", TONES[tone], className)}>
      {dot && <span aria-hidden className="size-1.5 rounded-full bg-current motion-safe:animate-pulse" />}
      {children}
    </span>
  );
}

const STATES: Record<SessionState, { tone: Tone; text: string; moving?: boolean }> = {
  CREATED: { tone: "quiet", text: "Created" },
  QUEUED: { tone: "quiet", text: "Queued" },
  PREPARING_WORKSPACE: { tone: "info", text: "Preparing", moving: true },
  STARTING_PROVIDER: { tone: "info", text: "Starting", moving: true },
  RUNNING: { tone: "info", text: "Running", moving: true },
  WAITING_FOR_APPROVAL: { tone: "warn", text: "Waits for you" },
  PAUSED_BY_HUMAN: { tone: "accent", text: "Paused" },
  STOPPING: { tone: "quiet", text: "Stopping", moving: true },
  COMPLETED: { tone: "ok", text: "Completed" },
  FAILED: { tone: "bad", text: "Failed" },
  TIMED_OUT: { tone: "bad", text: "Timed out" },
};
export const stateText = (state: SessionState) => STATES[state]?.text ?? state;

export function StateBadge({ session }: { session: { state: SessionState; hibernated?: boolean; parked?: boolean } }) {
  const s = STATES[session.state] ?? { tone: "quiet" as const, text: session.state };
  const text = session.parked ? "Parked" : session.hibernated && session.state === "PAUSED_BY_HUMAN" ? "Asleep" : s.text;
  return (
    <Badge tone={s.tone} dot={s.moving}>
      {text}
    </Badge>
  );
}
