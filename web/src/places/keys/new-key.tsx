import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useRef, useState } from "react";
import { createKey, keyKeys, keysQuery } from "@/api/keys";
import { inputLimits } from "@/api/limits-of";
import { Button } from "@/ui/button";
import { Dialog } from "@/ui/dialog";
import { Field, Select } from "@/ui/field";
import { fieldErrors } from "@/ui/field-errors";
import { ErrorBox } from "@/ui/states";
import { useInvalid } from "@/ui/use-invalid";
import { ShownOnce } from "./shown-once";
import { ROLES, type Role } from "./words";

export function NewKey({ close }: { close(): void }) {
  const queries = useQueryClient();
  const keys = useQuery(keysQuery);
  const [name, setName] = useState("");
  const [tenant, setTenant] = useState("");
  const [role, setRole] = useState<Role>("operator");
  const [days, setDays] = useState("90");
  const form = useRef<HTMLFormElement>(null);
  const make = useMutation({
    mutationFn: () => createKey({ name: name.trim(), role, ...(tenant.trim() ? { tenant: tenant.trim() } : {}), ...(days.trim() ? { expires_in_days: Number(days) } : {}) }),
    onSuccess: () => void queries.invalidateQueries({ queryKey: keyKeys.all }),
    // The answer has the key: it is forgotten with this dialog.
    gcTime: 0,
  });
  const errors = fieldErrors(make.error, ["name", "tenant", "role", "expires_in_days"]);
  useInvalid(form, make.error);
  if (make.data) {
    return (
      <ShownOnce title={`The key of ${make.data.name}`} label="API key" secret={make.data.key} close={close}>
        <p className="mt-3 text-[13px] text-muted">
          It signs a browser in, and goes with programs as <code className="font-mono text-text">Authorization: Bearer …</code>
        </p>
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
      title="New key"
      actions={
        <>
          <Button onClick={close}>Back</Button>
          <Button kind="primary" type="submit" form="key" busy={make.isPending}>
            Issue it
          </Button>
        </>
      }
    >
      <form id="key" ref={form} onSubmit={submit} className="space-y-4">
        <Field label="Whose, or what for" required {...inputLimits("createKey", "name")} value={name} onChange={(e) => setName(e.target.value)} error={errors.at("name")} placeholder="Ann, or nightly builds" autoComplete="off" />
        <Field
          label="Organisation"
          options={[...new Set((keys.data ?? []).map((k) => k.tenant))].slice(0, 100)}
          {...inputLimits("createKey", "tenant")}
          value={tenant}
          onChange={(e) => setTenant(e.target.value)}
          error={errors.at("tenant")}
          placeholder={name.trim() || "One of its own"}
          hint="Keys of one organisation see the same sessions. A new name makes a new one; empty: the key's own name."
          autoComplete="off"
        />
        <Select label="Role" value={role} onChange={(e) => setRole(e.target.value as Role)} error={errors.at("role")} hint={ROLES[role].hint}>
          {Object.entries(ROLES).map(([value, r]) => (
            <option key={value} value={value}>
              {r.label}
            </option>
          ))}
        </Select>
        <Field label="Ends after days" type="number" step={1} inputMode="numeric" {...inputLimits("createKey", "expires_in_days")} value={days} onChange={(e) => setDays(e.target.value)} error={errors.at("expires_in_days")} hint="Empty: it does not end by itself." />
        {make.isError && errors.elsewhere && <ErrorBox error={make.error} />}
      </form>
    </Dialog>
  );
}
