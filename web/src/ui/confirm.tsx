import { useMutation } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { Button } from "./button";
import { Dialog } from "./dialog";
import { ErrorBox } from "./states";

/** Asks once more before something that cannot be taken back; stays open, with the reason, when it was refused. */
export function Confirm({ open, close, title, does, act, done, children }: { open: boolean; close(): void; title: string; does: string; act(): Promise<unknown>; done(): void; children: ReactNode }) {
  const doing = useMutation({
    mutationFn: act,
    onSuccess: () => {
      done();
      leave();
    },
  });
  const leave = () => {
    doing.reset();
    close();
  };
  return (
    <Dialog
      open={open}
      onOpenChange={(now) => !now && leave()}
      title={title}
      actions={
        <>
          <Button onClick={leave}>Back</Button>
          <Button kind="danger" busy={doing.isPending} onClick={() => doing.mutate()}>
            {does}
          </Button>
        </>
      }
    >
      {children}
      {doing.isError && <ErrorBox error={doing.error} className="mt-3" />}
    </Dialog>
  );
}
