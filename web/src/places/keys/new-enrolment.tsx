import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useRef, useState } from "react";
import { createEnrolment, keyKeys } from "@/api/keys";
import { inputLimits, limitOf } from "@/api/limits-of";
import { Button } from "@/ui/button";
import { CopyLine } from "@/ui/copy-line";
import { Dialog } from "@/ui/dialog";
import { Check, Field, Select } from "@/ui/field";
import { fieldErrors } from "@/ui/field-errors";
import { ErrorBox } from "@/ui/states";
import { useInvalid } from "@/ui/use-invalid";
import { ShownOnce } from "./shown-once";
import { lifetimes, workerCommand } from "./words";

const TIME = limitOf("createRunnerEnrolment", "expiresInSeconds");

export function NewEnrolment({ admin, close }: { admin: boolean; close(): void }) {
  const queries = useQueryClient();
  const [name, setName] = useState("");
  const [uses, setUses] = useState("1");
  const [seconds, setSeconds] = useState(86_400);
  const [org, setOrg] = useState("");
  const [shared, setShared] = useState(false);
  const form = useRef<HTMLFormElement>(null);
  const make = useMutation({
    mutationFn: () => createEnrolment({ uses: Number(uses), expiresInSeconds: seconds, ...(name.trim() ? { name: name.trim() } : {}), ...(shared ? { shared } : org.trim() ? { orgId: org.trim() } : {}) }),
    onSuccess: () => void queries.invalidateQueries({ queryKey: keyKeys.enrolments }),
    gcTime: 0,
  });
  const errors = fieldErrors(make.error, ["name", "uses", "expiresInSeconds", "orgId", "shared"]);
  useInvalid(form, make.error);
  if (make.data) {
    return (
      <ShownOnce title="The enrolment token" label="Token" secret={make.data.token} close={close}>
        <div className="mt-4 space-y-3">
          <p className="text-muted">
            On the machine that is to hold sandboxes: put the token into a file <code className="font-mono text-[13px] text-text">enrol.token</code> that only its user can read, then start
          </p>
          <CopyLine label="Command" text={workerCommand(location.origin, name)} />
          <p className="text-[13px] text-muted">It appears in Fleet as soon as it is connected. The token is not needed again: the worker keeps a credential of its own.</p>
        </div>
      </ShownOnce>
    );
  }
  const submit = (e: FormEvent) => {
    e.preventDefault();
    if (!make.isPending) make.mutate();
  };
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && close()}
      title="New enrolment token"
      actions={
        <>
          <Button onClick={close}>Back</Button>
          <Button kind="primary" type="submit" form="enrolment" busy={make.isPending}>
            Make it
          </Button>
        </>
      }
    >
      <form id="enrolment" ref={form} onSubmit={submit} className="space-y-4">
        <Field label="For which machine (optional)" {...inputLimits("createRunnerEnrolment", "name")} value={name} onChange={(e) => setName(e.target.value)} error={errors.at("name")} placeholder="build-2" autoComplete="off" />
        <div className="grid grid-cols-2 gap-3">
          <Field label="For how many workers" type="number" step={1} inputMode="numeric" required {...inputLimits("createRunnerEnrolment", "uses")} value={uses} onChange={(e) => setUses(e.target.value)} error={errors.at("uses")} />
          <Select label="To be used within" value={seconds} onChange={(e) => setSeconds(Number(e.target.value))} error={errors.at("expiresInSeconds")}>
            {lifetimes(TIME.min, TIME.max).map((l) => (
              <option key={l.seconds} value={l.seconds}>
                {l.label}
              </option>
            ))}
          </Select>
        </div>
        {admin && <Check label="For everybody" checked={shared} onChange={(e) => setShared(e.target.checked)} error={errors.at("shared")} hint="Its workers take sessions of every organisation." />}
        {admin && !shared && <Field label="Organisation" value={org} onChange={(e) => setOrg(e.target.value)} error={errors.at("orgId")} placeholder="Your own" hint="Its id; its workers take sessions of this organisation only." spellCheck={false} autoComplete="off" />}
        {make.isError && errors.elsewhere && <ErrorBox error={make.error} />}
      </form>
    </Dialog>
  );
}
