import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { CalendarClock, Pause, Pencil, Play, Plus, Trash2 } from "lucide-react";
import { useMemo, useState } from "react";
import { allEnvironmentsQuery } from "@/api/environments";
import { useRights } from "@/api/rights";
import { deleteSchedule, pauseSchedule, resumeSchedule, type Schedule, scheduleKeys, schedulesQuery } from "@/api/schedules";
import { useActions } from "@/keys/registry";
import { Page } from "@/shell/page";
import { Badge } from "@/ui/badge";
import { Button, IconButton } from "@/ui/button";
import { Confirm } from "@/ui/confirm";
import { Filter, fits, MANY } from "@/ui/filter";
import { Paged } from "@/ui/paged";
import { Empty, ErrorBox, Skeleton } from "@/ui/states";
import { visible } from "@/ui/text";
import { Time } from "@/ui/time";
import { toast, toastError } from "@/ui/toast";
import { EditSchedule } from "./edit";
import { configOf, HARNESSES } from "./form";
import type { ScheduleSearch } from "./search";
import { ShowSchedule, useRunNow } from "./show";

export function Schedules() {
  const search = useSearch({ from: "/schedules" });
  const navigate = useNavigate();
  const queries = useQueryClient();
  const rights = useRights();
  // Nothing tells when one has fired: it is read again while it is looked at.
  const list = useQuery({ ...schedulesQuery, refetchInterval: 10_000 });
  const [removing, remove] = useState<Schedule | null>(null);
  const go = (to: ScheduleSearch, replace = false) => void navigate({ to: "/schedules", search: { ...(search.q ? { q: search.q } : {}), ...to }, replace });
  // The list does not say more of an environment than its id.
  const environments = useQuery(allEnvironmentsQuery);
  const names = useMemo(() => new Map(environments.data?.map((e) => [e.environment_id, e.name])), [environments.data]);
  const placeOf = (s: Schedule) => {
    const id = configOf(s).environment_id;
    return id ? (names.get(id) ?? id) : undefined;
  };
  const shown = list.data?.filter((s) => fits(search.q, [s.name, s.prompt, s.cron_schedule, placeOf(s)]));
  const find = (id: string | undefined) => list.data?.find((s) => s.id === id);

  useActions([{ id: "schedule new", label: "New schedule", group: "Schedules", keys: "n", icon: <Plus className="size-4" aria-hidden />, run: () => go({ edit: "new" }) }], rights.write);

  const make = (
    <Button kind="primary" icon={<Plus className="size-4" aria-hidden />} onClick={() => go({ edit: "new" })}>
      New schedule
    </Button>
  );
  return (
    <Page title="Schedules" actions={rights.write && (list.data?.length ?? 0) > 0 ? make : undefined}>
      {list.isError && !list.data ? (
        <ErrorBox error={list.error} retry={() => void list.refetch()} />
      ) : !list.data ? (
        <Skeleton rows={4} />
      ) : list.data.length === 0 ? (
        <Empty icon={<CalendarClock className="size-8" aria-hidden />} title="No schedule yet" action={rights.write ? make : undefined}>
          A schedule asks the same at set times: every night, every hour, on Mondays. Each time is a run of its own.
        </Empty>
      ) : (
        <>
          {(list.data.length > MANY || search.q) && <Filter label="Find a schedule" value={search.q} onChange={(q) => void navigate({ to: "/schedules", search: q ? { q } : {}, replace: true })} />}
          {shown?.length === 0 && <p className="py-6 text-center text-muted">No schedule is like that.</p>}
          <Paged
            items={shown ?? []}
            label="Schedules"
            className="space-y-3"
            row={(s) => <Card key={s.id} schedule={s} where={placeOf(s)} show={(run) => go({ show: s.id, ...(run ? { run } : {}) })} edit={() => go({ edit: s.id })} remove={() => remove(s)} />}
          />
        </>
      )}
      {search.edit && rights.write && <EditSchedule key={search.edit} id={search.edit} close={() => go({})} />}
      {search.show && <ShowSchedule key={search.show} id={search.show} known={find(search.show)} run={search.run} go={(run, replace) => go({ show: search.show, ...(run ? { run } : {}) }, replace)} close={() => go({})} />}
      <Confirm
        open={removing !== null}
        close={() => remove(null)}
        title={`Delete ${removing?.name ?? ""}?`}
        does="Delete"
        act={() => deleteSchedule(removing!.id)}
        done={() => {
          toast(`${removing!.name} is deleted.`);
          void queries.invalidateQueries({ queryKey: scheduleKeys.all });
        }}
      >
        <p>It does not fire any more. Its runs stay.</p>
      </Confirm>
    </Page>
  );
}

function Card({ schedule: s, where, show, edit, remove }: { schedule: Schedule; where?: string; show(run?: string): void; edit(): void; remove(): void }) {
  const queries = useQueryClient();
  const rights = useRights();
  const now = useRunNow(s, show);
  const pause = useMutation({
    mutationFn: () => (s.enabled ? pauseSchedule(s.id) : resumeSchedule(s.id)),
    onSuccess: (changed) => {
      queries.setQueryData<Schedule[]>(schedulesQuery.queryKey, (old) => old?.map((o) => (o.id === changed.id ? { ...o, enabled: changed.enabled, history: changed.history, updated_at: changed.updated_at } : o)));
      toast(changed.enabled ? `${s.name} fires again.` : `${s.name} is paused.`);
    },
    onError: (e) => toastError(`${s.name} could not be changed`, e),
    onSettled: () => void queries.invalidateQueries({ queryKey: scheduleKeys.all }),
  });
  const config = configOf(s);
  const how = [config.harness ? HARNESSES[config.harness] : undefined, config.model_id, where && `in ${where}`].filter(Boolean).join(" · ");
  return (
    <li className="rounded-lg border border-line bg-panel p-4 [contain-intrinsic-size:auto_7rem] [content-visibility:auto]">
      <div className="flex flex-wrap items-center gap-x-3 gap-y-2">
        <h2 className="min-w-0 font-semibold break-words">
          <Link to="/schedules" search={(now) => ({ ...(now.q ? { q: now.q } : {}), show: s.id })} className="underline-offset-2 hover:underline">
            {s.name}
          </Link>
        </h2>
        <code className="font-mono text-[13px] text-muted" title="Minute, hour, day, month, day of the week; UTC">
          {s.cron_schedule}
        </code>
        {!s.enabled && <Badge>Paused</Badge>}
        {s.last_spawn_error && <Badge tone="bad">Did not fire</Badge>}
        {rights.write && (
          <span className="ml-auto flex items-center gap-1">
            {now.may && (
              <Button size="small" busy={now.busy} onClick={now.start} icon={<Play className="size-3.5" aria-hidden />} aria-label={`Run ${s.name} now`}>
                Run now
              </Button>
            )}
            {s.enabled ? (
              <IconButton label={`Pause ${s.name}`} aria-busy={pause.isPending || undefined} onClick={() => !pause.isPending && pause.mutate()}>
                <Pause className="size-4" aria-hidden />
              </IconButton>
            ) : (
              <Button size="small" busy={pause.isPending} onClick={() => pause.mutate()} aria-label={`Resume ${s.name}`}>
                Resume
              </Button>
            )}
            <IconButton label={`Edit ${s.name}`} onClick={edit}>
              <Pencil className="size-4" aria-hidden />
            </IconButton>
            <IconButton label={`Delete ${s.name}`} onClick={remove}>
              <Trash2 className="size-4" aria-hidden />
            </IconButton>
          </span>
        )}
      </div>
      <p className="mt-1 line-clamp-2 break-words text-muted">{visible(s.prompt.slice(0, 400))}</p>
      <p className="mt-2 flex flex-wrap gap-x-3 text-[13px] text-muted">
        {s.enabled && s.history?.next_run && (
          <span>
            Next <Time at={s.history.next_run} className="text-text" />
          </span>
        )}
        <span>{s.history?.last_ran ? <>Last <Time at={s.history.last_ran} /></> : "Has not fired yet"}</span>
        {how && <span className="break-all">{how}</span>}
      </p>
      {s.last_spawn_error && <p className="mt-2 break-words text-bad">{s.last_spawn_error}</p>}
      {now.error ? <ErrorBox error={now.error} className="mt-3" /> : null}
    </li>
  );
}
