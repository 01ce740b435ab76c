import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useRef, useState } from "react";
import { providersQuery } from "@/api/catalog";
import { allEnvironmentsQuery } from "@/api/environments";
import { inputLimits } from "@/api/limits-of";
import { createSchedule, replaceSchedule, type Schedule, scheduleKeys, scheduleQuery } from "@/api/schedules";
import { readDraft, writeDraft } from "@/state/drafts";
import { Button } from "@/ui/button";
import { Dialog } from "@/ui/dialog";
import { Check, Field, Select, TextArea } from "@/ui/field";
import { fieldErrors } from "@/ui/field-errors";
import { ErrorBox, Skeleton } from "@/ui/states";
import { exact } from "@/ui/time-format";
import { toast } from "@/ui/toast";
import { useInvalid } from "@/ui/use-invalid";
import { bodyOf, configOf, draftText, emptyForm, formOf, fromDraft, HARNESSES, OFTEN, type Harness, type ScheduleForm } from "./form";

export function EditSchedule({ id, close }: { id: string; close(): void }) {
  // Whole: the list cuts what is long.
  const whole = useQuery({ ...scheduleQuery(id), enabled: id !== "new", refetchOnWindowFocus: false, staleTime: 0 });
  if (id === "new" || (whole.data && whole.isFetchedAfterMount)) return <Form id={id} schedule={whole.data} close={close} />;
  return (
    <Dialog open onOpenChange={(open) => !open && close()} side="right" title="Edit schedule">
      {whole.isError ? <ErrorBox error={whole.error} retry={() => void whole.refetch()} /> : <Skeleton rows={5} />}
    </Dialog>
  );
}

const FIELDS = ["name", "prompt", "cron_schedule", "enabled", "agent_config.environment_id", "agent_config.harness", "agent_config.model_id", "agent_config.base_prompt"];

function Form({ id, schedule: now, close }: { id: string; schedule: Schedule | undefined; close(): void }) {
  const isNew = id === "new";
  const queries = useQueryClient();
  const draftAt = `/schedules?edit=${id}`;
  // What it began with: a later reading does not change a form under somebody's hands.
  const [schedule, begin] = useState(now);
  const start = schedule ? formOf(schedule) : emptyForm();
  const [form, put] = useState(() => fromDraft(readDraft(draftAt, "form")) ?? start);
  const element = useRef<HTMLFormElement>(null);
  const environments = useQuery(allEnvironmentsQuery);
  const providers = useQuery(providersQuery);
  const dirty = draftText(form) !== draftText(start);
  const outdated = now !== undefined && form.since !== now.updated_at;

  const save = useMutation({
    mutationFn: () => {
      const body = bodyOf(form, schedule ? configOf(schedule) : {});
      return isNew ? createSchedule(body) : replaceSchedule(id, body);
    },
    onSuccess: (saved) => {
      writeDraft(draftAt, "form", "");
      void queries.invalidateQueries({ queryKey: scheduleKeys.all });
      const next = saved.enabled && saved.history?.next_run;
      toast(next ? `${saved.name}: the next run is ${exact(Date.parse(next))}.` : `${saved.name} is saved; it is paused.`);
      close();
    },
  });
  const errors = fieldErrors(save.error, FIELDS);
  useInvalid(element, save.error);
  const change = (part: Partial<ScheduleForm>) => {
    const next = { ...form, ...part };
    put(next);
    writeDraft(draftAt, "form", draftText(next) === draftText(start) ? "" : draftText(next));
  };
  const again = () => {
    begin(now);
    put(now ? formOf(now) : emptyForm());
    writeDraft(draftAt, "form", "");
    save.reset();
  };
  function submit(e: FormEvent) {
    e.preventDefault();
    if (!save.isPending) save.mutate();
  }
  const known = environments.data ?? [];
  const foreign = form.environment && !known.some((e) => e.environment_id === form.environment);
  const models = [...new Set((providers.data?.providers ?? []).flatMap((p) => (p.model ? [p.model] : [])))];
  const script = form.environment !== "" && form.harness === "shell";
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && close()}
      side="right"
      title={isNew ? "New schedule" : `Edit ${schedule?.name ?? ""}`}
      actions={
        <>
          {dirty && (
            <Button kind="quiet" className="mr-auto" onClick={again}>
              {isNew ? "Clear" : "Undo changes"}
            </Button>
          )}
          <Button onClick={close}>Close</Button>
          <Button kind="primary" type="submit" form="schedule" busy={save.isPending}>
            {save.isPending ? "Saving…" : isNew ? "Make it" : "Save"}
          </Button>
        </>
      }
    >
      <form id="schedule" ref={element} onSubmit={submit} className="space-y-4">
        {outdated && (
          <p role="status" className="rounded-md bg-warn-soft px-3 py-2 text-warn">
            It was changed elsewhere after you began. What you see is what you typed.{" "}
            <button type="button" className="font-medium underline" onClick={again}>
              Begin again with what is there
            </button>
          </p>
        )}
        <Field label="Name" required {...inputLimits("createSchedule", "name")} value={form.name} onChange={(e) => change({ name: e.target.value })} error={errors.at("name")} autoComplete="off" />
        <div>
          <Field
            label="When (cron, UTC)"
            required
            {...inputLimits("createSchedule", "cron_schedule")}
            value={form.cron}
            onChange={(e) => change({ cron: e.target.value })}
            error={errors.at("cron_schedule")}
            placeholder="minute hour day month weekday"
            hint="Five fields: minute, hour, day, month, day of the week. The server says the next run when it is saved."
            spellCheck={false}
            autoComplete="off"
            className="[&_input]:font-mono"
          />
          <div role="group" aria-label="Often wanted" className="mt-2 flex flex-wrap gap-1.5">
            {OFTEN.map((o) => (
              <Button key={o.cron} size="small" aria-pressed={form.cron.trim() === o.cron} className={form.cron.trim() === o.cron ? "border-accent! text-accent" : undefined} onClick={() => change({ cron: o.cron })} title={o.cron}>
                {o.label}
              </Button>
            ))}
          </div>
        </div>
        <TextArea
          label={script ? "Script" : "What is to be done"}
          required
          code={script}
          rows={5}
          {...inputLimits("createSchedule", "prompt")}
          value={form.prompt}
          onChange={(e) => change({ prompt: e.target.value })}
          error={errors.at("prompt")}
        />
        <Select
          label="Environment"
          value={form.environment}
          onChange={(e) => change({ environment: e.target.value })}
          error={errors.at("agent_config.environment_id")}
          hint={form.environment ? "A worker runs an agent in it." : "Without one a model provider answers: there are no files and no commands."}
        >
          <option value="">None</option>
          {known.map((e) => (
            <option key={e.environment_id} value={e.environment_id}>
              {e.name}
            </option>
          ))}
          {foreign && <option value={form.environment}>{form.environment.startsWith("env_") ? `${form.environment} (not there)` : `Image ${form.environment}`}</option>}
        </Select>
        <div className="grid gap-4 sm:grid-cols-2">
          {form.environment !== "" && (
            <Select label="Agent" value={form.harness} onChange={(e) => change({ harness: e.target.value as Harness | "" })} error={errors.at("agent_config.harness")} hint={form.harness ? undefined : "The model's name chooses it, without one the server's settings."}>
              <option value="">By the model</option>
              {Object.entries(HARNESSES).map(([value, name]) => (
                <option key={value} value={value}>
                  {name}
                </option>
              ))}
            </Select>
          )}
          <Field label="Model" options={models} {...inputLimits("createSchedule", "agent_config.model_id")} value={form.model} onChange={(e) => change({ model: e.target.value })} error={errors.at("agent_config.model_id")} placeholder="The default" spellCheck={false} autoCapitalize="off" />
        </div>
        <TextArea label="System text (optional)" rows={2} {...inputLimits("createSchedule", "agent_config.base_prompt")} value={form.system} onChange={(e) => change({ system: e.target.value })} error={errors.at("agent_config.base_prompt")} hint="Replaces the built-in one." />
        <Check label="It fires" checked={form.enabled} onChange={(e) => change({ enabled: e.target.checked })} error={errors.at("enabled")} />
        {save.isError && errors.elsewhere && <ErrorBox error={save.error} />}
      </form>
    </Dialog>
  );
}
