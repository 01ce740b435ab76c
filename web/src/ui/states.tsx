import { AlertTriangle, Lock, RotateCw } from "lucide-react";
import { type ReactNode, useEffect, useState } from "react";
import { ApiError } from "@/api/client";
import { Button } from "./button";
import { cx } from "./cx";

/** Nothing for 150 ms, so that what comes at once does not flicker. */
export function Skeleton({ rows = 3, className }: { rows?: number; className?: string }) {
  const [shown, show] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => show(true), 150);
    return () => clearTimeout(timer);
  }, []);
  return (
    <div role="status" className={cx("space-y-2", className)}>
      <span className="sr-only">Loading</span>
      {shown && Array.from({ length: rows }, (_, i) => <div key={i} className="skeleton late h-12" />)}
    </div>
  );
}

export function Empty({ icon, title, children, action }: { icon?: ReactNode; title: string; children?: ReactNode; action?: ReactNode }) {
  return (
    <div className="flex flex-col items-center px-6 py-12 text-center">
      {icon && <div className="mb-3 text-muted">{icon}</div>}
      <p className="font-medium">{title}</p>
      {children && <div className="mt-1 max-w-md text-muted">{children}</div>}
      {action && <div className="mt-4">{action}</div>}
    </div>
  );
}

/** What happened, what it means, what to do. */
function explain(error: unknown): { title: string; next: string } {
  if (!(error instanceof ApiError)) return { title: "Something in this page went wrong", next: "Reload the page; if it happens again, tell whoever runs this server." };
  if (error.offline) return { title: "No connection to the server", next: "What you see may be old. It is tried again by itself." };
  if (error.status === 401) return { title: "You are not signed in", next: "Sign in again; what you typed is kept." };
  if (error.status === 403) return { title: "You may not do this", next: "Ask an administrator of your organisation for the right to." };
  if (error.status === 404) return { title: "This does not exist", next: "It may have been removed, or it belongs to somebody else." };
  if (error.status === 409) return { title: "It has changed meanwhile", next: "Look at how it is now and decide again." };
  if (error.status === 429) return { title: "Too much at once", next: error.retryAfter ? `Try again in ${error.retryAfter} s.` : "Try again in a moment, or let something end first." };
  if (error.status === 503) return { title: "Not available just now", next: "The server is busy or stopping. Try again in a moment." };
  if (error.status >= 500) return { title: "The server failed", next: "Nothing is known to be lost. Try again; the log of the server has the details under this request id." };
  return { title: "The server did not accept this", next: "Change what it names and try again." };
}

export function ErrorBox({ error, retry, className }: { error: unknown; retry?: () => void; className?: string }) {
  const { title, next } = explain(error);
  const forbidden = error instanceof ApiError && error.status === 403;
  return (
    <div role="alert" className={cx("flex gap-3 rounded-lg border border-line bg-bad-soft p-3", className)}>
      {forbidden ? <Lock aria-hidden className="mt-0.5 size-4 shrink-0 text-bad" /> : <AlertTriangle aria-hidden className="mt-0.5 size-4 shrink-0 text-bad" />}
      <div className="min-w-0 flex-1">
        <p className="font-medium text-bad">{title}</p>
        {error instanceof Error && <p className="break-words">{error.message}</p>}
        {error instanceof ApiError && error.issues.length > 1 && (
          <ul className="mt-1 list-disc pl-5">
            {error.issues.map((i) => (
              <li key={i.path + i.code} className="break-words">
                <code className="font-mono text-[13px]">{i.path}</code> {i.message}
              </li>
            ))}
          </ul>
        )}
        <p className="text-muted">{next}</p>
        {error instanceof ApiError && error.requestId && (
          <p className="mt-1 text-xs break-all text-muted">
            Request <code className="font-mono select-all">{error.requestId}</code>
          </p>
        )}
      </div>
      {retry && (
        <Button size="small" onClick={retry} icon={<RotateCw aria-hidden className="size-3.5" />}>
          Retry
        </Button>
      )}
    </div>
  );
}
