import { type ReactNode, useState } from "react";
import { Button } from "@/ui/button";
import { CopyLine } from "@/ui/copy-line";
import { Dialog } from "@/ui/dialog";

/** A secret that the server shows this once. Closing before it was copied asks once more. */
export function ShownOnce({ title, label, secret, close, children }: { title: string; label: string; secret: string; close(): void; children?: ReactNode }) {
  const [copied, copy] = useState(false);
  const [warned, warn] = useState(false);
  const leave = () => (copied || warned ? close() : warn(true));
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && leave()}
      title={title}
      description="It is shown only now. Nobody can look it up again, this server neither."
      actions={
        <Button kind={copied ? "primary" : "plain"} onClick={leave}>
          {warned && !copied ? "Close without copying" : "Done"}
        </Button>
      }
    >
      <CopyLine label={label} text={secret} onCopied={() => copy(true)} />
      {warned && !copied && (
        <p role="alert" className="mt-2 text-[13px] text-warn">
          It is not copied yet, and gone when this closes.
        </p>
      )}
      {children}
    </Dialog>
  );
}
