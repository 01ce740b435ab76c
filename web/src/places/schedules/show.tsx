import { useMutation, useQuery } from "@tanstack/react-query";
import { ArrowLeft, Play } from "lucide-react";
import { useRef } from "react";
import { useRights } from "@/api/rights";
import { createRun, isOver, runsOfSchedule } from "@/api/runs";
import { readSchedule, type Schedule, scheduleQuery } from "@/api/schedules";
import { RunBadge } from "@/places/runs/badge";
import { RunWatch } from "@/places/runs/watch";
import { Button } from "@/ui/button";
import { Dialog } from "@/ui/dialog";
import { ErrorBox, Skeleton } from "@/ui/states";
import { CodeText } from "@/ui/text";
import { Elapsed, Time } from "@/ui/time";
import { runOf } from "./form";

/** A run of the same request as its time would make; it is not counted as one of the schedule's. */
export function useRunNow(s: Schedule | undefined, started: (run: string) => void) {
  const { write, admin, user } = useRights();
  const key = useRef({ body: "", key: "" });
  const run = useMutation({
    mutationFn: async () => {
      // Whole, and as it is now.
      const body = runOf(await readSchedule(s!.id));
      const text = JSON.stringify(body);
      if (key.current.body !== text) key.current = { body: text, key: crypto.randomUUID() };
      return createRun(body, key.current.key);
    },
    onSuccess: (made) => {
      key.current = { body: "", key: "" };
      started(made.run_id);
    },
  });
  // An administrator sees everybody's: a run of another organisation's would be the administrator's.
  const own = !admin || s?.created_by?.uid === user?.id;
  return { may: write && own && s !== undefined, busy: run.isPending, error: run.error, start: () => run.mutate() };
}

export function ShowSchedule({ id, known, run, go, close }: { id: string; known: Schedule | undefined; run?: string; go(run: string | undefined, replace?: boolean): void; close(): void }) {
  const whole = useQuery(scheduleQuery(id));
  const s = whole.data ?? known;
  const now = useRunNow(s, (made) => go(made, run !== undefined));
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && close()}
      side="right"
      title={s?.name ?? "Schedule"}
      actions={
        run ? (
          <Button className="mr-auto" icon={<ArrowLeft className="size-4" aria-hidden />} onClick={() => go(undefined)}>
            The schedule
          </Button>
        ) : now.may ? (
          <Button kind="primary" busy={now.busy} onClick={now.start} icon={<Play className="size-4" aria-hidden />}>
            Run now
          </Button>
        ) : undefined
      }
    >
      {now.error ? <ErrorBox error={now.error} className="mb-3" /> : null}
      {run ? <RunWatch key={run} id={run} again={now.may ? now.start : undefined} /> : whole.isError && !s ? <ErrorBox error={whole.error} retry={() => void whole.refetch()} /> : !whole.data ? <Skeleton rows={4} /> : <Facts schedule={whole.data} open={go} />}
    </Dialog>
  );
}

function Facts({ schedule: s, open }: { schedule: Schedule; open(run: string): void }) {
  const runs = useQuery({ ...runsOfSchedule(s.id, 10), refetchInterval: 5_000 });
  return (
    <div className="space-y-5">
      <dl className="grid grid-cols-[auto_1fr] gap-x-4 gap-y-1.5">
        <dt className="text-muted">When</dt>
        <dd>
          <code className="font-mono text-[13px]">{s.cron_schedule}</code> <span className="text-muted">in UTC</span>
        </dd>
        <dt className="text-muted">Next run</dt>
        <dd>{s.enabled && s.history?.next_run ? <Next at={s.history.next_run} /> : s.enabled ? "None" : "Paused"}</dd>
      </dl>
      <section>
        <h3 className="mb-1 text-[13px] font-medium text-muted">What is asked</h3>
        <CodeText text={s.prompt} label="What is asked" />
      </section>
      {s.agent_config && (
        <section>
          <h3 className="mb-1 text-[13px] font-medium text-muted">How</h3>
          <CodeText text={JSON.stringify(s.agent_config, null, 2)} label="How" />
        </section>
      )}
      <section>
        <h3 className="mb-1 text-[13px] font-medium text-muted">Its last runs</h3>
        {runs.isError && !runs.data ? (
          <ErrorBox error={runs.error} retry={() => void runs.refetch()} />
        ) : !runs.data ? (
          <Skeleton rows={2} />
        ) : runs.data.length === 0 ? (
          <p className="text-muted">It has not fired yet.</p>
        ) : (
          <ul className="overflow-hidden rounded-lg border border-line">
            {runs.data.map((r) => (
              <li key={r.run_id} className="border-b border-line last:border-0">
                <button type="button" onClick={() => open(r.run_id)} className="flex min-h-11 w-full flex-wrap items-center gap-x-3 px-3 py-1.5 text-left hover:bg-hover">
                  <RunBadge state={r.state} />
                  <Time at={r.created_at} />
                  <Elapsed from={r.created_at} to={isOver(r.state) ? (r.completed_at ?? r.updated_at) : undefined} className="ml-auto text-[13px] text-muted tabular-nums" />
                </button>
              </li>
            ))}
          </ul>
        )}
      </section>
    </div>
  );
}

/** Not only "in 3 h": whoever sets a time wants to see it. */
function Next({ at }: { at: string }) {
  return (
    <>
      {new Date(at).toLocaleString(undefined, { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", timeZoneName: "short" })} <span className="text-muted">(<Time at={at} />)</span>
    </>
  );
}
