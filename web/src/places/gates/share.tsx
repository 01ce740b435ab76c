import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { api } from "@/api/client";
import type { Answer, Approval, Input } from "@/api/types";
import { Button } from "@/ui/button";
import { CopyButton } from "@/ui/copy";
import { Dialog } from "@/ui/dialog";
import { Field, Select } from "@/ui/field";
import { ErrorBox } from "@/ui/states";
import { Time } from "@/ui/time";

/** A link that decides this one gate, for somebody without an account. */
export function ShareGate({ gate }: { gate: Approval }) {
  const [open, setOpen] = useState(false);
  if (!gate.sessionId || gate.kind === "question") return null;
  return (
    <>
      <button type="button" className="text-accent underline underline-offset-2" onClick={() => setOpen(true)}>
        Share a link…
      </button>
      {open && <ShareDialog gate={gate} session={gate.sessionId} close={() => setOpen(false)} />}
    </>
  );
}

function ShareDialog({ gate, session, close }: { gate: Approval; session: string; close(): void }) {
  const [label, setLabel] = useState("");
  const [lasts, setLasts] = useState("900");
  const make = useMutation({
    mutationFn: (body: Input<"createApprovalLink">) =>
      api.post<Answer<"createApprovalLink">>(`/api/v1/sessions/${encodeURIComponent(session)}/approvals/${encodeURIComponent(gate.approvalId)}/links`, body),
  });
  const link = make.data;
  return (
    <Dialog
      open
      onOpenChange={(o) => !o && close()}
      title="Share this decision"
      description="Whoever has the link can decide this one gate, once, without an account. It ends with the gate."
      actions={
        link ? (
          <Button kind="primary" onClick={close}>
            Done
          </Button>
        ) : (
          <>
            <Button onClick={close}>Back</Button>
            <Button kind="primary" busy={make.isPending} onClick={() => make.mutate({ expiresInSeconds: Number(lasts), ...(label.trim() ? { label: label.trim() } : {}) })}>
              Make a link
            </Button>
          </>
        )
      }
    >
      {link ? (
        <div className="space-y-2">
          <div className="flex items-center gap-2">
            <input readOnly aria-label="Link" value={link.url} className="field font-mono text-[13px]" onFocus={(e) => e.currentTarget.select()} />
            <CopyButton text={link.url} label="Copy the link" />
          </div>
          <p className="text-[13px] text-muted">
            It is shown only here and ends <Time at={link.expiresAt} />.
          </p>
        </div>
      ) : (
        <div className="space-y-3">
          <Field label="Who is it for? (optional)" value={label} maxLength={64} onChange={(e) => setLabel(e.target.value)} hint="The log says that this link decided." />
          <Select label="It ends after" value={lasts} onChange={(e) => setLasts(e.target.value)}>
            <option value="900">15 minutes</option>
            <option value="3600">An hour</option>
            <option value="86400">A day</option>
          </Select>
        </div>
      )}
      {make.isError && <ErrorBox error={make.error} className="mt-3" />}
    </Dialog>
  );
}
