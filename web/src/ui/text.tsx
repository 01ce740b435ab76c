import { Fragment, type ReactNode } from "react";
import { cx } from "./cx";

export function Kbd({ keys }: { keys: string }) {
  return (
    <span className="inline-flex gap-0.5" aria-label={keys}>
      {keys.split(" ").map((k, i) => (
        <kbd key={i} className="inline-flex h-5 min-w-5 items-center justify-center rounded border border-line-strong/50 bg-sunken px-1 font-mono text-xs text-muted">
          {k}
        </kbd>
      ))}
    </span>
  );
}

/** Characters that have no shape, or turn the direction of what follows, by their number: what is shown is what is there. */
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202f\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb]|[\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]/gu;

export function visible(text: string): ReactNode[] {
  const out: ReactNode[] = [];
  let at = 0;
  for (const m of text.matchAll(UNSEEN)) {
    if (m.index > at) out.push(text.slice(at, m.index));
    const number = m[0].codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0");
    out.push(
      <span key={m.index} className="rounded-sm bg-bad-soft px-0.5 text-bad" title="A character that cannot be seen">
        U+{number}
      </span>,
    );
    at = m.index + m[0].length;
  }
  if (at < text.length) out.push(text.slice(at));
  return out;
}

/** A name is one line: what would break it is shown by its number, too. */
export function visibleName(name: string): ReactNode[] {
  return name.split(/([\t\n\r])/).flatMap((part, i) =>
    i % 2
      ? [
          <span key={`b${i}`} className="rounded-sm bg-bad-soft px-0.5 text-bad" title="A character that cannot be seen">
            {part === "\t" ? "\\t" : part === "\n" ? "\\n" : "\\r"}
          </span>,
        ]
      : [<Fragment key={i}>{visible(part)}</Fragment>],
  );
}

/** Text to the letter: what an agent says is never markup. */
export function CodeText({ text, className, label }: { text: string; className?: string; label?: string }) {
  return (
    <pre
      aria-label={label}
      // A long text scrolls, and somebody with a keyboard must be able to.
      tabIndex={0}
      className={cx("max-h-80 overflow-auto rounded-md border border-line bg-sunken px-3 py-2 font-mono text-[13px] leading-relaxed break-words whitespace-pre-wrap", className)}
    >
      {visible(text)}
    </pre>
  );
}
