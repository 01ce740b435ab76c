import type { RunState } from "@/api/runs";
import { Badge, type Tone } from "@/ui/badge";

const STATES: Record<RunState, { tone: Tone; text: string; moving?: boolean }> = {
  QUEUED: { tone: "quiet", text: "Queued" },
  PENDING: { tone: "quiet", text: "Waits for a worker" },
  CLAIMED: { tone: "info", text: "Taken by a worker", moving: true },
  INPROGRESS: { tone: "info", text: "Running", moving: true },
  SUCCEEDED: { tone: "ok", text: "Succeeded" },
  FAILED: { tone: "bad", text: "Failed" },
  CANCELLED: { tone: "quiet", text: "Cancelled" },
};
export const runStateText = (state: RunState) => STATES[state]?.text ?? state;

export function RunBadge({ state }: { state: RunState }) {
  const s = STATES[state] ?? { tone: "quiet" as const, text: state };
  return (
    <Badge tone={s.tone} dot={s.moving}>
      {s.text}
    </Badge>
  );
}
