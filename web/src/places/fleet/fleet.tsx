import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { Server } from "lucide-react";
import { useState } from "react";
import { harnessName } from "@/api/catalog";
import { capacityQuery, drainRunner, fleetKeys, loadOf, runnersQuery, undrainRunner } from "@/api/fleet";
import { useRights } from "@/api/rights";
import type { Runner } from "@/api/types";
import { useRereadMs } from "@/live/hooks";
import { sessionLink } from "@/places/sessions/link";
import { Page } from "@/shell/page";
import { Badge, type Tone } from "@/ui/badge";
import { Button } from "@/ui/button";
import { cx } from "@/ui/cx";
import { Dialog } from "@/ui/dialog";
import { Field } from "@/ui/field";
import { Empty, ErrorBox, Skeleton } from "@/ui/states";
import { Time } from "@/ui/time";
import { toast } from "@/ui/toast";

export function Fleet() {
  const every = useRereadMs();
  // Load has no event: it is read again every few seconds while it is looked at.
  const runners = useQuery({ ...runnersQuery, refetchInterval: Math.min(every, 5_000) });
  const capacity = useQuery({ ...capacityQuery, refetchInterval: Math.min(every, 5_000) });
  const [drain, setDrain] = useState<Runner | null>(null);
  const rights = useRights();
  const c = capacity.data;
  return (
    <Page title="Fleet">
      {c && (
        <dl className="mb-6 grid grid-cols-2 gap-3 sm:grid-cols-4">
          <Figure name="Workers online" value={c.onlineRunners ?? runners.data?.filter((r) => r.status === "online").length ?? 0} />
          <Figure name="Slots in use" value={c.used} of={c.unlimited ? undefined : c.total} />
          <Figure name="Slots free" value={c.unlimited ? "unlimited" : c.available} />
          <Figure name="Draining" value={c.draining} />
        </dl>
      )}
      {runners.isError && !runners.data ? (
        <ErrorBox error={runners.error} retry={() => void runners.refetch()} />
      ) : !runners.data ? (
        <Skeleton rows={3} />
      ) : runners.data.length === 0 ? (
        <Empty
          icon={<Server className="size-8" aria-hidden />}
          title="No worker yet"
          action={
            rights.orgAdmin ? (
              <Link to="/keys" search={{ new: "enrolment" }} className="text-accent underline underline-offset-2">
                Let one in
              </Link>
            ) : undefined
          }
        >
          Sessions wait until one is there. On a machine that is to hold sandboxes, run <code className="font-mono text-[13px] text-text">muster worker</code> with this server's
          address and a key of it.
        </Empty>
      ) : (
        <ul className="space-y-3">
          {runners.data.map((r) => (
            <RunnerCard key={r.runnerId} runner={r} drain={() => setDrain(r)} />
          ))}
        </ul>
      )}
      <DrainDialog runner={drain} close={() => setDrain(null)} />
    </Page>
  );
}

function Figure({ name, value, of }: { name: string; value: number | string; of?: number }) {
  return (
    <div className="rounded-lg border border-line bg-panel px-4 py-3">
      <dt className="text-[13px] text-muted">{name}</dt>
      <dd className="mt-0.5 text-xl font-semibold tabular-nums">
        {value}
        {of !== undefined && <span className="text-sm font-normal text-muted"> of {of}</span>}
      </dd>
    </div>
  );
}

const STATUS: Record<Runner["status"], { tone: Tone; text: string }> = {
  online: { tone: "ok", text: "Online" },
  offline: { tone: "bad", text: "Offline" },
  draining: { tone: "warn", text: "Draining" },
  maintenance: { tone: "quiet", text: "Maintenance" },
};

function RunnerCard({ runner: r, drain }: { runner: Runner; drain(): void }) {
  const queries = useQueryClient();
  const load = loadOf(r);
  const status = r.status === "draining" && r.drained ? { tone: "quiet" as const, text: "Drained" } : r.status === "online" && !r.connected ? { tone: "warn" as const, text: "Connection lost" } : STATUS[r.status];
  const undrain = useMutation({
    mutationFn: () => undrainRunner(r.runnerId),
    onSuccess: () => {
      toast(`${r.hostname} takes sessions again.`);
      void queries.invalidateQueries({ queryKey: fleetKeys.all });
    },
  });
  return (
    <li className="rounded-lg border border-line bg-panel p-4">
      <div className="flex flex-wrap items-center gap-x-3 gap-y-2">
        <h2 className="min-w-0 font-semibold break-all">{r.hostname}</h2>
        <Badge tone={status.tone}>{status.text}</Badge>
        <span className="text-[13px] text-muted">
          {r.version}
          {r.lastHeartbeat && (
            <>
              {" · heard "}
              <Time at={r.lastHeartbeat} />
            </>
          )}
        </span>
        <span className="ml-auto">
          {r.status === "draining" ? (
            <Button size="small" busy={undrain.isPending} onClick={() => undrain.mutate()}>
              Take sessions again
            </Button>
          ) : (
            <Button size="small" onClick={drain}>
              Drain…
            </Button>
          )}
        </span>
      </div>
      <div className="mt-3 grid grid-cols-2 gap-x-6 gap-y-3 sm:grid-cols-4">
        <Meter name="Sessions" value={load.max ? (load.active / load.max) * 100 : 0} text={load.max ? `${load.active} of ${load.max}` : `${load.active}, no limit`} calm />
        <Meter name="Processor" value={load.cpu} />
        <Meter name="Memory" value={load.memory} />
        <Meter name="Disk" value={load.disk} />
      </div>
      <div className="mt-3 flex flex-wrap gap-1.5">
        {load.harnesses.map((h) => (
          <Badge key={h} tone="accent">
            {harnessName(h)}
          </Badge>
        ))}
        {load.labels.map((l) => (
          <Badge key={l} tone="info">
            {l}
          </Badge>
        ))}
        {load.features.map((f) => (
          <Badge key={f}>{f}</Badge>
        ))}
      </div>
      {r.activeSessionIds.length > 0 && (
        <p className="mt-3 text-[13px] text-muted">
          Works on{" "}
          {r.activeSessionIds.slice(0, 8).map((id, i) => (
            <span key={id}>
              {i > 0 && ", "}
              <Link {...sessionLink(id)} className="font-mono text-accent underline underline-offset-2">
                {id.replace(/^ses_/, "").slice(-8)}
              </Link>
            </span>
          ))}
          {r.activeSessionIds.length > 8 && ` and ${r.activeSessionIds.length - 8} more`}
        </p>
      )}
      {undrain.isError && <ErrorBox error={undrain.error} className="mt-3" />}
    </li>
  );
}

function Meter({ name, value, text, calm }: { name: string; value: number | undefined; text?: string; calm?: boolean }) {
  const percent = Math.max(0, Math.min(100, Math.round(value ?? 0)));
  const shown = text ?? (value === undefined ? "not told" : `${percent} %`);
  return (
    <div>
      <div className="flex justify-between gap-2 text-[13px]">
        <span className="text-muted">{name}</span>
        <span className="tabular-nums">{shown}</span>
      </div>
      <div role="meter" aria-label={name} aria-valuemin={0} aria-valuemax={100} aria-valuenow={percent} aria-valuetext={shown} className="mt-1 h-1.5 overflow-hidden rounded-full bg-quiet-soft">
        <div className={cx("h-full rounded-full", calm || percent < 90 ? "bg-accent-fill" : "bg-bad-fill")} style={{ width: `${percent}%` }} />
      </div>
    </div>
  );
}

function DrainDialog({ runner, close }: { runner: Runner | null; close(): void }) {
  const queries = useQueryClient();
  const [reason, setReason] = useState("");
  const drain = useMutation({
    mutationFn: () => drainRunner(runner!.runnerId, reason.trim()),
    onSuccess: (r) => {
      toast(`${r.hostname} finishes what it has and takes nothing new.`);
      void queries.invalidateQueries({ queryKey: fleetKeys.all });
      done();
    },
  });
  const done = () => {
    setReason("");
    drain.reset();
    close();
  };
  const active = runner ? loadOf(runner).active : 0;
  return (
    <Dialog
      open={runner !== null}
      onOpenChange={(open) => !open && done()}
      title={`Drain ${runner?.hostname ?? ""}`}
      description={active ? `Its ${active} sessions go on to their end; nothing new is placed on it.` : "Nothing new is placed on it until it is undrained."}
      actions={
        <>
          <Button onClick={done}>Back</Button>
          <Button kind="primary" busy={drain.isPending} onClick={() => drain.mutate()}>
            Drain
          </Button>
        </>
      }
    >
      <Field label="Reason (optional)" value={reason} maxLength={500} onChange={(e) => setReason(e.target.value)} />
      {drain.isError && <ErrorBox error={drain.error} className="mt-3" />}
    </Dialog>
  );
}
