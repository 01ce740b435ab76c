import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { Box, FlaskConical, Pencil, Plus, Trash2 } from "lucide-react";
import { useState } from "react";
import { repoName } from "@/api/catalog";
import { allEnvironmentsQuery, deleteEnvironment, environmentKeys } from "@/api/environments";
import { useRights } from "@/api/rights";
import type { Environment } from "@/api/types";
import { useActions } from "@/keys/registry";
import { Page } from "@/shell/page";
import { Badge } from "@/ui/badge";
import { Button, IconButton } from "@/ui/button";
import { Confirm } from "@/ui/confirm";
import { Filter, fits, MANY } from "@/ui/filter";
import { Paged } from "@/ui/paged";
import { Empty, ErrorBox, Skeleton } from "@/ui/states";
import { Time } from "@/ui/time";
import { toast } from "@/ui/toast";
import { EditEnvironment } from "./edit";
import { formOf, LIMIT_NAMES } from "./form";
import type { EnvironmentSearch } from "./search";
import { TestEnvironment } from "./test-run";

export function Environments() {
  const search = useSearch({ from: "/environments" });
  const navigate = useNavigate();
  const queries = useQueryClient();
  const rights = useRights();
  const list = useQuery(allEnvironmentsQuery);
  const [removing, remove] = useState<Environment | null>(null);
  const go = (to: EnvironmentSearch, replace = false) => void navigate({ to: "/environments", search: { ...(search.q ? { q: search.q } : {}), ...to }, replace });
  const shown = list.data?.filter((e) => fits(search.q, [e.name, e.docker_image, ...e.repos]));
  const find = (id: string | undefined) => list.data?.find((e) => e.environment_id === id);

  useActions([{ id: "environment new", label: "New environment", group: "Environments", keys: "n", icon: <Plus className="size-4" aria-hidden />, run: () => go({ edit: "new" }) }], rights.write);

  const make = (
    <Button kind="primary" icon={<Plus className="size-4" aria-hidden />} onClick={() => go({ edit: "new" })}>
      New environment
    </Button>
  );
  return (
    <Page title="Environments" actions={rights.write && (list.data?.length ?? 0) > 0 ? make : undefined}>
      {list.isError && !list.data ? (
        <ErrorBox error={list.error} retry={() => void list.refetch()} />
      ) : !list.data ? (
        <Skeleton rows={4} />
      ) : list.data.length === 0 ? (
        <Empty icon={<Box className="size-8" aria-hidden />} title="No environment yet" action={rights.write ? make : undefined}>
          An environment is what an agent finds when it begins: an image, repositories, commands that set it up, variables, and what it may reach.
          {rights.write ? " Make one, then run its test." : " Somebody with the right to make and steer makes the first one."}
        </Empty>
      ) : (
        <>
          {(list.data.length > MANY || search.q) && <Filter label="Find an environment" value={search.q} onChange={(q) => void navigate({ to: "/environments", search: q ? { q } : {}, replace: true })} />}
          {shown?.length === 0 && <p className="py-6 text-center text-muted">No environment is like that.</p>}
          <Paged
            items={shown ?? []}
            label="Environments"
            className="space-y-3"
            row={(e) => (
              <Card
                key={e.environment_id}
                environment={e}
                test={rights.write ? () => go({ test: e.environment_id }) : undefined}
                // One that is everybody's is the administrator's.
                edit={rights.admin || (rights.write && e.scope === "OWNER") ? () => go({ edit: e.environment_id }) : undefined}
                remove={rights.admin || (rights.write && e.scope === "OWNER") ? () => remove(e) : undefined}
              />
            )}
          />
        </>
      )}
      {search.edit && list.data && rights.write && <EditEnvironment key={search.edit} id={search.edit} environment={find(search.edit)} close={() => go({})} test={(id) => go({ test: id }, true)} />}
      {search.test && list.data && rights.write && (
        <TestEnvironment key={search.test} environment={find(search.test)} run={search.run} close={() => go({})} started={(run) => go({ test: search.test, run }, search.run !== undefined)} again={() => go({ test: search.test })} />
      )}
      <Confirm
        open={removing !== null}
        close={() => remove(null)}
        title={`Delete ${removing?.name ?? ""}?`}
        does="Delete"
        act={() => deleteEnvironment(removing!.environment_id)}
        done={() => {
          toast(`${removing!.name} is deleted.`);
          void queries.invalidateQueries({ queryKey: environmentKeys.all });
        }}
      >
        <p>What runs with it goes on with what it began with. Schedules that name it fail until they name another. Its variables are deleted with it.</p>
      </Confirm>
    </Page>
  );
}

const NETWORKS = { "": "", proxy: "Listed hosts only", none: "No network", host: "The worker's network" };
const UNITS = { memory_mb: "MiB memory", cpus: "processors", pids: "processes", disk_mb: "MiB disk", timeout_seconds: "s at most" };

function Card({ environment: e, test, edit, remove }: { environment: Environment; test?: () => void; edit?: () => void; remove?: () => void }) {
  const f = formOf(e);
  const limits = LIMIT_NAMES.filter((n) => f.limits[n]).map((n) => `${Number(f.limits[n]).toLocaleString()} ${UNITS[n]}`);
  const counts = [
    e.setup_commands.length && `${e.setup_commands.length} set-up ${e.setup_commands.length === 1 ? "command" : "commands"}`,
    f.vars.length && `${f.vars.length} ${f.vars.length === 1 ? "variable" : "variables"}`,
    ...limits,
  ].filter(Boolean);
  return (
    <li className="rounded-lg border border-line bg-panel p-4 [contain-intrinsic-size:auto_7rem] [content-visibility:auto]">
      <div className="flex flex-wrap items-center gap-x-3 gap-y-2">
        <h2 className="min-w-0 font-semibold break-words">{e.name}</h2>
        {e.scope === "GLOBAL" && <Badge tone="accent">For everybody</Badge>}
        {f.mode && <Badge tone={f.mode === "host" ? "warn" : "info"}>{NETWORKS[f.mode]}</Badge>}
        {f.nested && <Badge tone="warn">Nested sandboxes</Badge>}
        {f.fakeRoot && <Badge>User 0 inside</Badge>}
        <span className="ml-auto flex items-center gap-1">
          {test && (
            <Button size="small" onClick={test} icon={<FlaskConical className="size-3.5" aria-hidden />} aria-label={`Test ${e.name}`}>
              Test
            </Button>
          )}
          {edit && (
            <IconButton label={`Edit ${e.name}`} onClick={edit}>
              <Pencil className="size-4" aria-hidden />
            </IconButton>
          )}
          {remove && (
            <IconButton label={`Delete ${e.name}`} onClick={remove}>
              <Trash2 className="size-4" aria-hidden />
            </IconButton>
          )}
        </span>
      </div>
      <p className="mt-1 font-mono text-[13px] break-all text-muted">{e.docker_image}</p>
      {e.repos.length > 0 && (
        <p className="mt-2 flex flex-wrap gap-1.5">
          {e.repos.slice(0, 6).map((r) => (
            <Badge key={r} className="max-w-full">
              <span className="truncate" title={r}>
                {repoName(r)}
              </span>
            </Badge>
          ))}
          {e.repos.length > 6 && <span className="text-[13px] text-muted">and {e.repos.length - 6} more</span>}
        </p>
      )}
      <p className="mt-2 text-[13px] text-muted">
        {counts.map((c) => `${c} · `)}
        changed <Time at={e.updated_at} />
      </p>
    </li>
  );
}
