import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Plus, X } from "lucide-react";
import { type FormEvent, type ReactNode, useRef, useState } from "react";
import { allEnvironmentsQuery, createEnvironment, environmentKeys, replaceEnvironment } from "@/api/environments";
import { inputLimits, limitOf } from "@/api/limits-of";
import { useRights } from "@/api/rights";
import type { Environment } from "@/api/types";
import { readDraft, writeDraft } from "@/state/drafts";
import { Button, IconButton } from "@/ui/button";
import { Dialog } from "@/ui/dialog";
import { Check, Field, Select, TextArea } from "@/ui/field";
import { type FieldErrors, fieldErrors } from "@/ui/field-errors";
import { Empty, ErrorBox } from "@/ui/states";
import { toast } from "@/ui/toast";
import { useInvalid } from "@/ui/use-invalid";
import { bodyOf, draftText, emptyForm, type EnvironmentForm, formOf, fromDraft, LIMIT_NAMES, type LimitName, type Mode, refusalOf } from "./form";

const FIELDS = ["name", "docker_image", "repos", "setup_commands", "env_vars", "global", "sandbox.network.mode", "sandbox.network.allow", "sandbox.nested", "sandbox.root", ...LIMIT_NAMES.map((n) => `sandbox.limits.${n}`)];
type Change = (part: Partial<EnvironmentForm>) => void;
interface Part {
  form: EnvironmentForm;
  change: Change;
  errors: FieldErrors;
}

/** Make or change one. What is typed stays in this browser until it is saved or thrown away; values of variables do not. */
export function EditEnvironment({ id, environment, close, test }: { id: string; environment: Environment | undefined; close(): void; test(id: string): void }) {
  const isNew = id === "new";
  const queries = useQueryClient();
  const { admin } = useRights();
  const draftAt = `/environments?edit=${id}`;
  const [begun, begin] = useState(environment);
  const start = begun ? formOf(begun) : emptyForm();
  const [form, put] = useState(() => fromDraft(readDraft(draftAt, "form")) ?? start);
  const [asked, ask] = useState(false);
  const element = useRef<HTMLFormElement>(null);
  const dirty = draftText(form) !== draftText(start);
  const outdated = environment !== undefined && form.since !== environment.updated_at;

  const save = useMutation({
    mutationFn: () => (isNew ? createEnvironment(bodyOf(form, true)) : replaceEnvironment(id, bodyOf(form, false))),
    onSuccess: (saved) => {
      writeDraft(draftAt, "form", "");
      // There at once: what comes next looks for it.
      queries.setQueryData(allEnvironmentsQuery.queryKey, (old) => old && [saved, ...old.filter((e) => e.environment_id !== saved.environment_id)]);
      void queries.invalidateQueries({ queryKey: environmentKeys.all });
      toast(isNew ? `${saved.name} is made.` : `${saved.name} is saved; what runs already keeps what it began with.`);
      if (isNew) test(saved.environment_id);
      else close();
    },
  });
  const errors = fieldErrors(save.error, FIELDS);
  useInvalid(element, save.error);
  const change: Change = (part) => {
    const next = { ...form, ...part };
    put(next);
    writeDraft(draftAt, "form", draftText(next) === draftText(start) ? "" : draftText(next));
  };
  const again = () => {
    begin(environment);
    put(environment ? formOf(environment) : emptyForm());
    writeDraft(draftAt, "form", "");
    save.reset();
    ask(false);
  };
  const refusal = refusalOf(form);
  function submit(e: FormEvent) {
    e.preventDefault();
    ask(true);
    if (!save.isPending && !refusal) save.mutate();
  }
  const part = { form, change, errors };
  const missing = !isNew && !environment;
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && close()}
      side="right"
      title={isNew ? "New environment" : `Edit ${environment?.name ?? "environment"}`}
      actions={
        missing ? undefined : (
          <>
            {dirty && (
              <Button kind="quiet" className="mr-auto" onClick={again}>
                {isNew ? "Clear" : "Undo changes"}
              </Button>
            )}
            <Button onClick={close}>Close</Button>
            <Button kind="primary" type="submit" form="environment" busy={save.isPending}>
              {save.isPending ? "Saving…" : isNew ? "Make it" : "Save"}
            </Button>
          </>
        )
      }
    >
      {missing ? (
        <Empty title="This environment does not exist">It may have been deleted.</Empty>
      ) : (
        <form id="environment" ref={element} onSubmit={submit} className="space-y-4">
          {outdated && (
            <p role="status" className="rounded-md bg-warn-soft px-3 py-2 text-warn">
              It was changed elsewhere after you began. What you see is what you typed.{" "}
              <button type="button" className="font-medium underline" onClick={again}>
                Begin again with what is there
              </button>
            </p>
          )}
          <Field label="Name" required {...inputLimits("createEnvironment", "name")} value={form.name} onChange={(e) => change({ name: e.target.value })} error={errors.at("name")} autoComplete="off" />
          <Field
            label="Image"
            required
            {...inputLimits("createEnvironment", "docker_image")}
            value={form.image}
            onChange={(e) => change({ image: e.target.value })}
            error={errors.at("docker_image")}
            placeholder="debian:12"
            hint="Workers with a container engine start this image; others run on the system that they have."
            spellCheck={false}
            autoCapitalize="off"
            autoComplete="off"
          />
          <TextArea
            label="Repositories, one a line"
            code
            rows={2}
            value={form.repos}
            onChange={(e) => change({ repos: e.target.value })}
            error={errors.at("repos")}
            hint={`owner/name of GitHub, or an address; #branch behind it if need be. At most ${limitOf("createEnvironment", "repos").maxItems}.`}
            spellCheck={false}
          />
          <TextArea
            label="Set-up commands, one a line"
            code
            rows={2}
            value={form.setup}
            onChange={(e) => change({ setup: e.target.value })}
            error={errors.at("setup_commands")}
            hint={`Run in this order before the agent begins. At most ${limitOf("createEnvironment", "setup_commands").maxItems}.`}
            spellCheck={false}
          />
          <Variables {...part} refusal={asked ? refusal : undefined} />
          {isNew && admin && <Check label="For everybody" checked={form.global} onChange={(e) => change({ global: e.target.checked })} hint="Every organisation of this server sees it. It may have no variables." error={errors.at("global")} />}
          <Sandbox {...part} admin={admin} />
          {save.isError && errors.elsewhere && <ErrorBox error={save.error} />}
        </form>
      )}
    </Dialog>
  );
}

function Group({ title, hint, add, children }: { title: string; hint?: string; add?: ReactNode; children: ReactNode }) {
  return (
    <fieldset className="min-w-0">
      <legend className="mb-1 text-[13px] font-medium text-muted">{title}</legend>
      {hint && <p className="mb-2 text-xs text-muted">{hint}</p>}
      <div className="space-y-2">{children}</div>
      {add && <div className="mt-2">{add}</div>}
    </fieldset>
  );
}

const Fault = ({ text }: { text: string | undefined }) =>
  text ? (
    <p role="alert" className="mt-1 text-[13px] text-bad">
      {text}
    </p>
  ) : null;

function Variables({ form, change, errors, refusal }: Part & { refusal?: string }) {
  const most = limitOf("createEnvironment", "env_vars").maxItems ?? 200;
  const { maxLength } = inputLimits("createEnvironment", "env_vars.*");
  const set = (i: number, part: Partial<EnvironmentForm["vars"][number]>) => change({ vars: form.vars.map((v, at) => (at === i ? { ...v, ...part } : v)) });
  const wrong = refusal ?? errors.at("env_vars");
  return (
    <Group
      title="Variables"
      hint="Values are encrypted on the server and not shown here again."
      add={
        <Button size="small" icon={<Plus className="size-3.5" aria-hidden />} disabled={form.vars.length >= most} onClick={() => change({ vars: [...form.vars, { name: "", value: "", kept: false }] })}>
          Add a variable
        </Button>
      }
    >
      {form.vars.map((v, i) => (
        <div key={i} className="grid grid-cols-[minmax(0,2fr)_minmax(0,3fr)_auto] items-start gap-2">
          <input
            aria-label={`Name of variable ${i + 1}`}
            aria-invalid={wrong ? true : undefined}
            value={v.name}
            // A stored value has this name; under another there is none to keep.
            readOnly={v.kept}
            placeholder="NAME"
            spellCheck={false}
            autoCapitalize="off"
            autoComplete="off"
            onChange={(e) => set(i, { name: e.target.value })}
            className="field font-mono text-[13px]"
          />
          <input
            aria-label={`Value of variable ${i + 1}`}
            aria-invalid={wrong && v.again && !v.value ? true : undefined}
            type="password"
            value={v.value}
            maxLength={maxLength}
            placeholder={v.again ? "Type it again" : v.kept ? "Stored; type to replace it" : "Value"}
            spellCheck={false}
            autoComplete="new-password"
            onChange={(e) => set(i, { value: e.target.value })}
            className="field font-mono text-[13px]"
          />
          <IconButton label={`Remove variable ${v.name || i + 1}`} onClick={() => change({ vars: form.vars.filter((_, at) => at !== i) })}>
            <X className="size-4" aria-hidden />
          </IconButton>
        </div>
      ))}
      <Fault text={wrong} />
    </Group>
  );
}

const LIMIT_LABELS: Record<LimitName, string> = { memory_mb: "Memory, MiB", cpus: "Processors", pids: "Processes", disk_mb: "Disk, MiB", timeout_seconds: "Longest run, seconds" };

function Sandbox({ form, change, errors, admin }: Part & { admin: boolean }) {
  const asksFor = form.mode || form.allow || form.nested || form.fakeRoot || LIMIT_NAMES.some((n) => form.limits[n]);
  const wrong = FIELDS.some((f) => f.startsWith("sandbox.") && errors.at(f));
  const [open, setOpen] = useState(Boolean(asksFor));
  return (
    <details open={open || wrong} onToggle={(e) => setOpen(e.currentTarget.open)} className="rounded-lg border border-line">
      <summary className="cursor-pointer px-3 py-2 font-medium">What its sandbox may do</summary>
      <div className="space-y-4 border-t border-line p-3">
        <p className="text-xs text-muted">What is left empty is as the worker has it. A run waits until a worker is connected that can do all of it.</p>
        <Select label="Network" value={form.mode} onChange={(e) => change({ mode: e.target.value as Mode | "" })} error={errors.at("sandbox.network.mode")}>
          <option value="">As the worker has it</option>
          <option value="proxy">Listed hosts only</option>
          <option value="none">None at all</option>
          {(admin || form.mode === "host") && <option value="host">The worker's own, unfiltered</option>}
        </Select>
        {(form.mode === "" || form.mode === "proxy") && (
          <TextArea
            label="Hosts it may reach, one a line"
            code
            rows={2}
            value={form.allow}
            onChange={(e) => change({ allow: e.target.value })}
            placeholder={"api.example.org:443\n*.example.org:443"}
            hint={`host:port, besides the worker's own list and the hosts of the repositories. At most ${limitOf("createEnvironment", "sandbox.network.allow").maxItems}.`}
            error={errors.at("sandbox.network.allow")}
            spellCheck={false}
          />
        )}
        <div className="grid grid-cols-2 gap-3">
          {LIMIT_NAMES.map((n) => (
            <Field
              key={n}
              type="number"
              inputMode="decimal"
              step={n === "cpus" ? "any" : 1}
              {...inputLimits("createEnvironment", `sandbox.limits.${n}`)}
              label={LIMIT_LABELS[n]}
              value={form.limits[n]}
              onChange={(e) => change({ limits: { ...form.limits, [n]: e.target.value } })}
              error={errors.at(`sandbox.limits.${n}`)}
            />
          ))}
        </div>
        <Check label="The agent is user 0 inside" checked={form.fakeRoot} onChange={(e) => change({ fakeRoot: e.target.checked })} hint="For installers that ask for it; it has no more rights outside." error={errors.at("sandbox.root")} />
        {(admin || form.nested) && <Check label="The agent may make sandboxes of its own" checked={form.nested} onChange={(e) => change({ nested: e.target.checked })} hint="User namespaces inside: more of the kernel can be reached from there." error={errors.at("sandbox.nested")} />}
      </div>
    </details>
  );
}
