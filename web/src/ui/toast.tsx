import { X } from "lucide-react";
import { useEffect } from "react";
import { create } from "zustand";
import { ApiError } from "@/api/client";
import { IconButton } from "./button";
import { cx } from "./cx";

interface Toast {
  id: number;
  text: string;
  tone: "quiet" | "bad";
}
interface Said {
  toasts: Toast[];
  /** For the live region only. */
  spoken: string;
}

const useSaid = create<Said>()(() => ({ toasts: [], spoken: "" }));
let next = 1;

const drop = (id: number) => useSaid.setState((s) => ({ toasts: s.toasts.filter((t) => t.id !== id) }));

export function toast(text: string, tone: Toast["tone"] = "quiet") {
  useSaid.setState((s) => ({ toasts: [...s.toasts.slice(-3), { id: next++, text, tone }] }));
}
export function toastError(what: string, error: unknown) {
  const id = error instanceof ApiError && error.requestId ? ` (${error.requestId})` : "";
  toast(`${what}: ${error instanceof Error ? error.message : String(error)}${id}`, "bad");
}
/** Said to screen readers, shown nowhere. */
export const announce = (text: string) => useSaid.setState({ spoken: text });

function One({ toast: t }: { toast: Toast }) {
  useEffect(() => {
    const timer = setTimeout(() => drop(t.id), t.tone === "bad" ? 15_000 : 5_000);
    return () => clearTimeout(timer);
  }, [t]);
  return (
    <li className={cx("late flex items-start gap-2 rounded-lg border border-line bg-raised py-1.5 pr-1.5 pl-3 shadow-lift", t.tone === "bad" && "text-bad")}>
      <span className="flex-1 py-1 break-words">{t.text}</span>
      <IconButton label="Dismiss" onClick={() => drop(t.id)}>
        <X className="size-4" aria-hidden />
      </IconButton>
    </li>
  );
}

export function Toasts() {
  const { toasts, spoken } = useSaid();
  return (
    <>
      <div role="status" aria-live="polite" className="sr-only">
        {spoken}
      </div>
      <ol aria-label="Messages" aria-live="polite" className="pointer-events-none fixed right-4 bottom-20 z-50 w-[min(24rem,calc(100vw-2rem))] space-y-2 md:bottom-4 [&>li]:pointer-events-auto">
        {toasts.map((t) => (
          <One key={t.id} toast={t} />
        ))}
      </ol>
    </>
  );
}
