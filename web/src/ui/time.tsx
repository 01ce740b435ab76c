import { useNow } from "./clock";
import { duration, exact, relative } from "./time-format";

export function Time({ at, className }: { at: string | undefined; className?: string }) {
  const now = useNow(15_000);
  const then = at ? Date.parse(at) : Number.NaN;
  if (Number.isNaN(then)) return null;
  return (
    <time dateTime={at} title={exact(then)} className={className}>
      {relative(then, Math.max(now, Math.min(then, now + 15_000)))}
    </time>
  );
}

/** How long it took, or has taken so far. */
export function Elapsed({ from, to, className }: { from: string; to?: string; className?: string }) {
  return to ? <span className={className}>{duration(Date.parse(to) - Date.parse(from))}</span> : <Running from={from} className={className} />;
}

function Running({ from, className }: { from: string; className?: string }) {
  const now = useNow();
  return <span className={className}>{duration(now - Date.parse(from))}</span>;
}
