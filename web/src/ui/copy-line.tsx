import { Check, Copy } from "lucide-react";
import { useId, useRef, useState } from "react";
import { Button } from "./button";
import { announce } from "./toast";

/** Text to take along: copied where the browser allows it (only https and this machine), else marked for copying by hand. */
export function CopyLine({ label, text, hint, onCopied }: { label: string; text: string; hint?: string; onCopied?: () => void }) {
  const id = useId();
  const box = useRef<HTMLTextAreaElement>(null);
  const [copied, say] = useState<"" | "yes" | "no">("");
  const copy = async () => {
    box.current?.select();
    try {
      await navigator.clipboard.writeText(text);
      say("yes");
      announce("Copied.");
      onCopied?.();
    } catch {
      say("no");
    }
  };
  return (
    <div>
      <label htmlFor={id} className="mb-1 block text-[13px] font-medium text-muted">
        {label}
      </label>
      <div className="flex items-start gap-2">
        <textarea ref={box} id={id} readOnly value={text} rows={1} spellCheck={false} onFocus={(e) => e.target.select()} onCopy={onCopied} className="field field-sizing-content min-w-0 flex-1 resize-none font-mono text-[13px] break-all" />
        <Button onClick={() => void copy()} icon={copied === "yes" ? <Check className="size-4" aria-hidden /> : <Copy className="size-4" aria-hidden />}>
          {copied === "yes" ? "Copied" : "Copy"}
        </Button>
      </div>
      {copied === "no" && (
        <p role="alert" className="mt-1 text-[13px] text-warn">
          The browser does not let this page copy. The text is marked: copy it with the keyboard.
        </p>
      )}
      {hint && <p className="mt-1 text-xs text-muted">{hint}</p>}
    </div>
  );
}
