import { type ReactNode, useState } from "react";
import { Button } from "./button";

const STEP = 100;

/** A list of tall rows: a hundred at a time, so that a thousand are no work for who looks at ten. */
export function Paged<T>({ items, label, row, className }: { items: T[]; label: string; row(item: T): ReactNode; className: string }) {
  const [shown, show] = useState(STEP);
  return (
    <>
      <ul aria-label={label} className={className}>
        {items.slice(0, shown).map(row)}
      </ul>
      {items.length > shown && (
        <Button className="mt-3 w-full" onClick={() => show(shown + STEP)}>
          More ({(items.length - shown).toLocaleString()})
        </Button>
      )}
    </>
  );
}
